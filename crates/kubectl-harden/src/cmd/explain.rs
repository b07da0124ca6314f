//! `kubectl harden explain`.

use anyhow::Context as _;
use comfy_table::{ContentArrangement, Table, presets};
use hardening_api::policy::{ContainerKind, Profile};
use hardening_engine::{Policy, plan};
use hardening_manifests::{Manifest, read};
use serde_json::{Value, json};

use super::read_stdin_once;
use crate::args::{ExplainArgs, ReportFormat};
use crate::explain::{Line, Scope, SetBy, explain, kubernetes_default};
use crate::output::{Report, one_line};
use crate::source::{Cluster, Policies};
use crate::workload::{Workload, workloads};

pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let explained = match &args.pod {
        Some(name) => running(args, name)?,
        None => given(args, &mut report.stderr)?,
    };
    report.stdout = match args.output {
        ReportFormat::Text => as_text(&explained),
        ReportFormat::Json => as_json(&explained)?,
    };
    Ok(report)
}

/// A pod, or what makes pods, with its lines.
struct Explained {
    source: String,
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    /// The policies for it, in order; not known of a running pod.
    policies: Option<Vec<String>>,
    lines: Vec<Line>,
}

/// A pod that runs, by what is recorded on it.
fn running(args: &ExplainArgs, name: &str) -> anyhow::Result<Vec<Explained>> {
    let cluster = Cluster::open(&args.cluster)?;
    let namespace = args
        .namespace
        .namespace
        .as_deref()
        .unwrap_or_else(|| cluster.namespace());
    // As kubectl prints it: pod/web.
    let name = name
        .strip_prefix("pod/")
        .or_else(|| name.strip_prefix("pods/"))
        .unwrap_or(name);
    let manifest = cluster.pod(namespace, name)?;
    let found = workloads(std::slice::from_ref(&manifest), namespace);
    let explained = found
        .iter()
        .map(|workload| Explained::new(workload, None, explain(workload.pod, workload.pod, None)));
    Ok(explained.collect())
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
    let known = policies.for_workloads(&found, &manifests, namespace)?;
    notes.extend(known.warnings);
    let mut explained = Vec::new();
    for workload in &found {
        let pod = workload.pod()?;
        let matching = workload.matching(&known.set, &pod)?;
        let plan = plan(&matching, &pod);
        let mut after = workload.pod.clone();
        json_patch::patch(&mut after, &plan.to_patch()).with_context(|| workload.title())?;
        let policies = matching
            .policies()
            .map(Policy::reference)
            .map(ToString::to_string)
            .collect();
        explained.push(Explained::new(
            workload,
            Some(policies),
            explain(workload.pod, &after, Some(&plan)),
        ));
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

fn as_text(explained: &[Explained]) -> String {
    let tables: Vec<String> = explained.iter().map(table).collect();
    let mut lines = explained.iter().flat_map(|explained| &explained.lines);
    let has_defaults = lines.any(Line::is_set_by_policy);
    tables.join("\n") + if has_defaults { COMPATIBILITY } else { "" }
}

fn table(explained: &Explained) -> String {
    let Explained {
        source,
        kind,
        namespace,
        name,
        policies,
        lines,
        ..
    } = explained;
    let mut text = one_line(&format!("{kind} {namespace}/{name} ({source})")) + "\n";
    match policies.as_deref() {
        Some([]) => text += "No policy is for it.\n",
        Some(policies) => {
            text += &format!("Policies, in order: {}\n", one_line(&policies.join(", ")));
        }
        None => {}
    }
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
    text + &table.trim_fmt() + "\n"
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

fn who(line: &Line) -> String {
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
    said.iter()
        .map(|line| one_line(line))
        .collect::<Vec<_>>()
        .join("\n")
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
        "audited": line.audited.iter().map(|audited| json!({
            "policy": audited.policy,
            "value": serde_json::from_str(&audited.value).unwrap_or(Value::Null),
        })).collect::<Vec<_>>(),
    })
}
