//! `kubectl harden explain`.

use anyhow::{Context as _, bail};
use comfy_table::{ContentArrangement, Table, presets};
use hardening_api::policy::{ContainerKind, Profile};
use hardening_engine::{Policy, plan};
use hardening_manifests::{Manifest, read};
use serde_json::{Value, json};

use super::read_stdin_once;
use crate::args::{ExplainArgs, ReportFormat};
use crate::explain::{
    Because, Line, Lost, Scope, SetBy, Today, Would, explain, explain_running, kubernetes_default,
};
use crate::output::{Report, one_line};
use crate::source::{Cluster, Known, Policies};
use crate::workload::{Workload, workloads};

pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut explained = match &args.object {
        Some(name) => in_cluster(args, name, &mut report.stderr)?,
        None => given(args, &mut report.stderr)?,
    };
    if let Some(field) = &args.why {
        keep_only(field, &mut explained)?;
    }
    report.stdout = match (args.output, &args.why) {
        (ReportFormat::Text, None) => as_text(&explained, table),
        (ReportFormat::Text, Some(_)) => as_text(&explained, blocks),
        (ReportFormat::Json, _) => as_json(&explained)?,
    };
    Ok(report)
}

fn keep_only(field: &str, explained: &mut [Explained]) -> anyhow::Result<()> {
    let found = explained
        .iter()
        .any(|explained| explained.lines.iter().any(|line| line.is(field)));
    if !found && !explained.is_empty() {
        bail!(
            "--why: there is no field {field} that a policy can give a default for in these pods"
        );
    }
    for explained in explained {
        explained.lines.retain(|line| line.is(field));
    }
    Ok(())
}

/// A pod, or what makes pods, with its lines.
struct Explained {
    source: String,
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    /// The policies for it, in order; `None` where they are not known.
    policies: Option<Vec<String>>,
    lines: Vec<Line>,
}

/// What is in the cluster: a pod that runs, by what is recorded on it, or what makes pods.
fn in_cluster(
    args: &ExplainArgs,
    name: &str,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Explained>> {
    let cluster = Cluster::open(&args.cluster)?;
    let namespace = args
        .namespace
        .namespace
        .as_deref()
        .unwrap_or_else(|| cluster.namespace())
        .to_owned();
    let manifests = [cluster.named(&namespace, name)?];
    let policies = match args.policies.policies.as_slice() {
        [] => Policies::Cluster(cluster),
        _ => Policies::open(&args.policies, &args.cluster)?,
    };
    let found = workloads(&manifests, &namespace);
    let is_running = found.iter().any(|workload| workload.pointer.is_empty());
    let kubernetes = args.kubernetes.kubernetes_version;
    match policies.for_workloads(&found, &manifests, &namespace, kubernetes) {
        Ok(known) => with_policies(&found, known, is_running, notes),
        // What is recorded on the pod is there to be seen all the same.
        Err(error) if is_running => {
            notes.push(format!(
                "warning: only what is recorded on the pod is shown, for the policies are not known: {error:#}"
            ));
            let lines = |workload: &Workload<'_>| explain_running(workload.pod, None);
            let partial = found
                .iter()
                .map(|workload| Explained::new(workload, None, lines(workload)));
            Ok(partial.collect())
        }
        Err(error) => Err(error),
    }
}

/// The workloads in manifests, by what policies would fill in.
fn given(args: &ExplainArgs, notes: &mut Vec<String>) -> anyhow::Result<Vec<Explained>> {
    read_stdin_once(args.files.iter().chain(&args.policies.policies))?;
    let manifests: Vec<Manifest> = read(&args.files)?;
    let policies = Policies::open(&args.policies, &args.cluster)?;
    let namespace = args
        .namespace
        .namespace
        .as_deref()
        .unwrap_or_else(|| policies.namespace());
    let found = workloads(&manifests, namespace);
    if found.is_empty() {
        notes.push(
            "note: there is no pod in these manifests, and nothing that makes pods".to_owned(),
        );
    }
    let known = policies.for_workloads(
        &found,
        &manifests,
        namespace,
        args.kubernetes.kubernetes_version,
    )?;
    with_policies(&found, known, false, notes)
}

fn with_policies(
    found: &[Workload<'_>],
    known: Known,
    is_running: bool,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Explained>> {
    notes.extend(known.warnings);
    let mut explained = Vec::new();
    for workload in found {
        let pod = workload.pod()?;
        let matching = workload.matching(&known.set, &pod)?;
        let plan = plan(&matching, &pod);
        let policies = matching
            .policies()
            .map(Policy::reference)
            .map(ToString::to_string)
            .collect();
        let today = Today {
            set: &known.set,
            matching: &matching,
            plan: &plan,
            pod: &pod,
            namespace: &workload.namespace,
        };
        let lines = if is_running {
            explain_running(workload.pod, Some(&today))
        } else {
            let mut after = workload.pod.clone();
            json_patch::patch(&mut after, &plan.to_patch()).with_context(|| workload.title())?;
            explain(workload.pod, &after, &today)
        };
        explained.push(Explained::new(workload, Some(policies), lines));
    }
    Ok(explained)
}

impl Explained {
    fn new(workload: &Workload<'_>, policies: Option<Vec<String>>, lines: Vec<Line>) -> Self {
        let object = &workload.object;
        Self {
            source: object.source.to_string(),
            api_version: object.api_version.to_owned(),
            kind: object.kind.to_owned(),
            namespace: workload.namespace.clone(),
            name: object.name().unwrap_or_default().to_owned(),
            policies,
            lines,
        }
    }
}

// --- text ---

/// Where it is written what keeps an image from running with a default, which a pod does not show.
const COMPATIBILITY: &str =
    "\nWhat each default can stop, and what to set instead: docs/compatibility.md\n";

fn as_text(explained: &[Explained], body: fn(&[Line]) -> String) -> String {
    let texts: Vec<String> = explained
        .iter()
        .map(|explained| heading(explained) + &body(&explained.lines))
        .collect();
    let mut lines = explained.iter().flat_map(|explained| &explained.lines);
    let has_defaults = lines.any(Line::is_set_by_policy);
    texts.join("\n") + if has_defaults { COMPATIBILITY } else { "" }
}

fn heading(explained: &Explained) -> String {
    let Explained {
        source,
        kind,
        namespace,
        name,
        policies,
        ..
    } = explained;
    let mut text = one_line(&format!("{kind} {namespace}/{name} ({source})")) + "\n";
    match policies.as_deref() {
        Some([]) => text += "No policy is for it.\n",
        Some(policies) => {
            text += &format!("Policies, in order: {}\n", one_line(&policies.join(", ")));
        }
        None => text += "The policies are not known: this is only what is recorded on it.\n",
    }
    text
}

/// One field after the other, with all that is to say about it.
fn blocks(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        let value = line.value.as_ref().map_or_else(|| "-".to_owned(), plain);
        let scope = title(&line.scope);
        text += &one_line(&format!("{scope}: {}: {value}", line.path));
        text += "\n";
        let who = said(line).into_iter().chain(line.lost.iter().map(beaten));
        for said in who {
            text += &format!("  {}\n", one_line(&said));
        }
    }
    text
}

fn table(lines: &[Line]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match terminal_size::terminal_size() {
        Some((width, _)) => {
            table
                .set_width(width.0)
                .set_content_arrangement(ContentArrangement::Dynamic);
        }
        // One line each, for grep.
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    table.set_header(["FIELD", "VALUE", "SET BY"]);
    let mut scope = None;
    for line in lines {
        if scope != Some(&line.scope) {
            scope = Some(&line.scope);
            table.add_row([one_line(&title(&line.scope)), String::new(), String::new()]);
        }
        let value = line.value.as_ref().map_or_else(|| "-".to_owned(), plain);
        table.add_row([format!("  {}", line.path), one_line(&value), who(line)]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

fn title(scope: &Scope) -> String {
    match scope {
        Scope::Pod => "pod".to_owned(),
        Scope::Container {
            kind: ContainerKind::Container,
            name,
        } => format!("container {name}"),
        Scope::Container {
            kind: ContainerKind::InitContainer,
            name,
        } => format!("init container {name}"),
        Scope::Container {
            kind: ContainerKind::EphemeralContainer,
            name,
        } => format!("ephemeral container {name}"),
    }
}

/// Strings as they are, everything else as JSON.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// What a cell of the table says: no word of policies that are not for the pod.
fn who(line: &Line) -> String {
    let lost = line.lost.iter();
    let lost = lost.filter(|lost| lost.because != Because::NotForPod);
    let said = said(line).into_iter().chain(lost.map(beaten));
    said.map(|said| one_line(&said))
        .collect::<Vec<_>>()
        .join("\n")
}

fn beaten(lost: &Lost) -> String {
    let Lost {
        policy,
        value,
        because: _,
        reason,
    } = lost;
    format!("not {policy} ({value}): {reason}")
}

/// Who set a field, who would set it, and what was held back.
fn said(line: &Line) -> Vec<String> {
    let mut said: Vec<String> = line
        .set_by
        .iter()
        .map(|set_by| match set_by {
            SetBy::Author => "author".to_owned(),
            SetBy::Policy {
                policy,
                profile: None,
            } => policy.clone(),
            SetBy::Policy {
                policy,
                profile: Some(profile),
            } => {
                format!("{policy} (profile {})", profile_name(*profile))
            }
            SetBy::Pod => "the pod".to_owned(),
        })
        .collect();
    if said.is_empty() {
        said.push(format!(
            "nobody; Kubernetes' default: {}",
            kubernetes_default(line.field)
        ));
    } else {
        said = vec![said.join(", ")];
    }
    for audited in &line.audited {
        said.push(format!(
            "{}, in mode Audit, would set {}",
            audited.policy, audited.value
        ));
    }
    for missing in &line.missing {
        said.push(format!(
            "{} would set {} if the pod were created now",
            missing.policy, missing.value
        ));
    }
    for held in &line.withheld {
        let policy = held
            .policy
            .as_ref()
            .map(|policy| format!(" from {policy}"))
            .unwrap_or_default();
        said.push(format!(
            "withheld{policy} ({}): {}",
            held.guard, held.reason
        ));
    }
    said
}

fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Restricted => "Restricted",
        Profile::Hardened => "Hardened",
    }
}

// --- json ---

fn as_json(explained: &[Explained]) -> anyhow::Result<String> {
    let pods: Vec<Value> = explained
        .iter()
        .map(|explained| {
            let Explained {
                source,
                api_version,
                kind,
                namespace,
                name,
                policies,
                lines,
            } = explained;
            json!({
                "source": source,
                "apiVersion": api_version,
                "kind": kind,
                "namespace": namespace,
                "name": name,
                "policies": policies,
                "fields": lines.iter().map(field).collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&json!({ "pods": pods }))? + "\n")
}

fn field(line: &Line) -> Value {
    let (kind, container) = match &line.scope {
        Scope::Pod => ("Pod", None),
        Scope::Container { kind, name } => {
            let kind = match kind {
                ContainerKind::Container => "Container",
                ContainerKind::InitContainer => "InitContainer",
                ContainerKind::EphemeralContainer => "EphemeralContainer",
            };
            (kind, Some(name))
        }
    };
    let set_by: Vec<Value> = line
        .set_by
        .iter()
        .map(|set_by| match set_by {
            SetBy::Author => json!({"who": "author"}),
            SetBy::Policy { policy, profile } => {
                json!({"who": "policy", "policy": policy, "profile": profile.map(profile_name)})
            }
            SetBy::Pod => json!({"who": "pod"}),
        })
        .collect();
    json!({
        "level": kind,
        "container": container,
        "field": line.path,
        "value": line.value,
        "setBy": set_by,
        "kubernetesDefault": line.value.is_none().then(|| kubernetes_default(line.field)),
        "withheld": line.withheld.iter().map(|held| json!({
            "policy": held.policy,
            "guard": held.guard,
            "reason": held.reason,
        })).collect::<Vec<_>>(),
        "audited": line.audited.iter().map(would).collect::<Vec<_>>(),
        "missing": line.missing.iter().map(would).collect::<Vec<_>>(),
        "lost": line.lost.iter().map(|lost| json!({
            "policy": lost.policy,
            "value": parsed(&lost.value),
            "because": because(lost.because),
            "reason": lost.reason,
        })).collect::<Vec<_>>(),
    })
}

fn would(would: &Would) -> Value {
    json!({"policy": would.policy, "value": parsed(&would.value)})
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or(Value::Null)
}

fn because(because: Because) -> &'static str {
    match because {
        Because::Author => "author",
        Because::Policy => "policy",
        Because::Present => "present",
        Because::Guard => "guard",
        Because::NotNeeded => "notNeeded",
        Because::NotForPod => "notForPod",
    }
}
