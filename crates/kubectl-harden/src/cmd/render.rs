//! `kubectl harden render`.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use anyhow::Context as _;
use hardening_engine::{Fill, Plan, PolicySet, plan};
use hardening_manifests::{Document, File, Format, Manifest, objects, read_files};
use json_patch::Patch;
use serde_json::{Value, json};

use super::read_stdin_once;
use crate::args::{InputArgs, RenderArgs, RenderFormat};
use crate::diff;
use crate::output::{Report, Usage};
use crate::source::Policies;
use crate::workload::{Workload, workloads};
use crate::yaml::{self, Node};

pub(crate) fn run(args: &RenderArgs) -> anyhow::Result<Report> {
    render_as(args.output, &args.input)
}

/// Renders manifests in one of the formats.
pub(super) fn render_as(format: RenderFormat, args: &InputArgs) -> anyhow::Result<Report> {
    let files = read_files(&inputs(args)?)?;
    let manifests: Vec<Manifest> = documents(&files)
        .map(|(_, document)| document.manifest.clone())
        .collect();
    let policies = Policies::open(&args.policies, &args.cluster)?;
    let namespace = args
        .namespace
        .namespace
        .as_deref()
        .unwrap_or_else(|| policies.namespace());
    let found = workloads(&manifests, namespace);
    let known = policies.for_workloads(
        &found,
        &manifests,
        namespace,
        args.kubernetes.kubernetes_version,
    )?;
    let mut report = Report {
        stderr: known.warnings,
        ..Report::default()
    };
    if !args.verbose && !any_policy(&found, &known.set)? {
        match found.as_slice() {
            [] => {}
            [one] => report
                .stderr
                .push(format!("note: {}: no policy is for its pods", one.title())),
            several => {
                let count = several.len();
                report.stderr.push(format!(
                    "note: no policy is for the pods of any of the {count} workloads"
                ));
            }
        }
    }
    let mut rendered = Vec::new();
    for (file, document) in documents(&files) {
        rendered.push(render(
            file,
            document,
            namespace,
            &known.set,
            args.verbose,
            &mut report.stderr,
        )?);
    }
    report.stdout = match format {
        RenderFormat::Yaml => as_yaml(&files, &rendered, &mut report.stderr),
        RenderFormat::Json => as_json(&rendered),
        RenderFormat::Diff => as_diff(&rendered),
        RenderFormat::Patch => as_patches(&rendered)?,
    };
    report.coloured = format == RenderFormat::Diff;
    Ok(report)
}

/// Whether any of the workloads has a policy.
fn any_policy(workloads: &[Workload<'_>], set: &PolicySet) -> anyhow::Result<bool> {
    for workload in workloads {
        if !workload.matching(set, &workload.pod()?)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The files to read. Helm, for one, gives a post-renderer nothing but standard input.
fn inputs(args: &InputArgs) -> anyhow::Result<Vec<PathBuf>> {
    let files = match args.files.as_slice() {
        [] if io::stdin().is_terminal() => {
            return Err(Usage("give manifests with -f FILE, or on standard input").into());
        }
        [] => vec![PathBuf::from("-")],
        files => files.to_vec(),
    };
    read_stdin_once(files.iter().chain(&args.policies.policies))?;
    Ok(files)
}

fn documents(files: &[File]) -> impl Iterator<Item = (&File, &Document)> {
    files
        .iter()
        .flat_map(|file| file.documents.iter().map(move |document| (file, document)))
}

/// A document as its pods would be admitted.
struct Rendered<'f> {
    file: &'f File,
    document: &'f Document,
    /// Its author's text, part by part.
    tree: OnceCell<Option<Node>>,
    /// What it then says.
    after: Value,
    changes: Vec<Change<'f>>,
}

/// An object that changes.
struct Change<'f> {
    workload: Workload<'f>,
    patch: Patch,
}

fn render<'f>(
    file: &'f File,
    document: &'f Document,
    namespace: &str,
    set: &PolicySet,
    verbose: bool,
    notes: &mut Vec<String>,
) -> anyhow::Result<Rendered<'f>> {
    let mut after = document.manifest.value.clone();
    let mut changes = Vec::new();
    for workload in workloads(std::slice::from_ref(&document.manifest), namespace) {
        let Some(patch) = patch_of(&workload, set, verbose, notes)? else {
            continue;
        };
        let object = after
            .pointer_mut(&workload.object.pointer)
            .context("an object is where it was read")?;
        json_patch::patch(object, &patch).with_context(|| workload.title())?;
        changes.push(Change { workload, patch });
    }
    Ok(Rendered {
        file,
        document,
        tree: OnceCell::new(),
        after,
        changes,
    })
}

/// The patch of a workload's object; `None`: its pods need nothing.
fn patch_of(
    workload: &Workload<'_>,
    set: &PolicySet,
    verbose: bool,
    notes: &mut Vec<String>,
) -> anyhow::Result<Option<json_patch::Patch>> {
    let pod = workload.pod()?;
    let matching = workload.matching(set, &pod)?;
    if verbose && matching.is_empty() {
        notes.push(format!(
            "note: {}: no policy is for its pods",
            workload.title()
        ));
    }
    let plan = plan(&matching, &pod);
    tell(workload, &plan, verbose, notes);
    if plan.is_empty() {
        return Ok(None);
    }
    Ok(Some(workload.patch_of_object(&plan.to_patch())?))
}

/// Says what is not filled in: by policies in mode Audit, and because of guards.
fn tell(workload: &Workload<'_>, plan: &Plan<'_>, verbose: bool, notes: &mut Vec<String>) {
    let mut audited: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for fill in &plan.audited {
        audited
            .entry(fill.policy.to_string())
            .or_default()
            .push(with_value(fill));
    }
    for (policy, fills) in audited {
        let title = workload.title();
        notes.push(format!(
            "note: {title}: {policy}, in mode Audit, would fill in {}",
            fills.join(", ")
        ));
    }
    for held in &plan.withheld {
        let below = held.guard.leaves_pod_below_policy();
        if below || verbose {
            let severity = if below { "warning" } else { "note" };
            notes.push(format!(
                "{severity}: {}: {}: not filled in by {} ({}): {}",
                workload.title(),
                held.path(),
                held.policy,
                held.guard.name(),
                held.reason()
            ));
        }
    }
}

fn with_value(fill: &Fill<'_>) -> String {
    format!("{}: {}", fill.path(), fill.value_json())
}

// --- yaml ---

/// The files' text one after the other, with the changes in it.
fn as_yaml(files: &[File], rendered: &[Rendered<'_>], notes: &mut Vec<String>) -> String {
    let mut out = String::new();
    for file in files {
        let of_file = rendered
            .iter()
            .filter(|document| std::ptr::eq(document.file, file));
        let text = match file.format {
            Format::Yaml => edited(file, of_file, notes),
            Format::Json => of_file
                .map(Rendered::anew)
                .collect::<Vec<_>>()
                .join("---\n"),
        };
        if !out.is_empty() && !text.is_empty() {
            if !out.ends_with('\n') {
                out.push('\n');
            }
            if !begins_with_separator(&text) {
                out.push_str("---\n");
            }
        }
        out.push_str(&text);
    }
    out
}

fn edited<'f>(
    file: &File,
    documents: impl Iterator<Item = &'f Rendered<'f>>,
    notes: &mut Vec<String>,
) -> String {
    let mut out = String::with_capacity(file.text.len() + 1024);
    let mut copied = 0;
    for document in documents.filter(|document| !document.changes.is_empty()) {
        let bytes = &document.document.bytes;
        out.push_str(file.text.get(copied..bytes.start).unwrap_or_default());
        match document.edited() {
            Some(text) => out.push_str(&text),
            None => {
                let source = &document.document.manifest.source;
                notes.push(format!(
                    "note: {source}: written anew, without its comments and anchors"
                ));
                out.push_str(&document.anew());
            }
        }
        copied = bytes.end;
    }
    out.push_str(file.text.get(copied..).unwrap_or_default());
    out
}

/// Whether the text's first line that says something separates documents.
fn begins_with_separator(text: &str) -> bool {
    let says_something = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    text.lines()
        .find(says_something)
        .is_some_and(|line| line.starts_with("---") || line.starts_with('%'))
}

impl Rendered<'_> {
    fn text(&self) -> &str {
        self.file
            .text
            .get(self.document.bytes.clone())
            .unwrap_or_default()
    }

    fn tree(&self) -> Option<&Node> {
        self.tree.get_or_init(|| Node::parse(self.text())).as_ref()
    }

    /// The author's text with the changes in it, where that can be done.
    fn edited(&self) -> Option<String> {
        yaml::edit(self.text(), &self.document.manifest.value, &self.after)
    }

    /// The document in YAML of our own.
    fn anew(&self) -> String {
        yaml::block(&self.after, self.tree())
    }
}

// --- json ---

/// One document as itself, several as a List, as kubectl prints them.
fn as_json(rendered: &[Rendered<'_>]) -> String {
    if let [document] = rendered {
        return yaml::json(&document.after, document.tree()) + "\n";
    }
    let after: Vec<Manifest> = rendered
        .iter()
        .map(|document| Manifest {
            value: document.after.clone(),
            ..document.document.manifest.clone()
        })
        .collect();
    let mut items = Vec::new();
    for (manifest, document) in after.iter().zip(rendered) {
        for object in objects(std::slice::from_ref(manifest)) {
            let tree = document.tree().and_then(|tree| tree.at(&object.pointer));
            items.push((object.value, tree));
        }
    }
    yaml::json_list(&items) + "\n"
}

// --- diff ---

fn as_diff(rendered: &[Rendered<'_>]) -> String {
    let mut out = String::new();
    for document in rendered {
        for change in &document.changes {
            let (before, after) = document.texts(change);
            let (source, name) = (&change.workload.object.source, change.workload.name());
            out += &diff::unified(
                &before,
                &after,
                &format!("{name} ({source})"),
                &format!("{name} (as admitted)"),
            );
        }
    }
    out
}

impl Rendered<'_> {
    /// An object's text before and after: the author's, where the object is a document of its own, else
    /// ours, so that a difference is one in substance.
    fn texts(&self, change: &Change<'_>) -> (String, String) {
        let object = &change.workload.object;
        if object.pointer.is_empty()
            && self.file.format == Format::Yaml
            && let Some(edited) = self.edited()
        {
            return (self.text().to_owned(), edited);
        }
        let tree = self.tree().and_then(|tree| tree.at(&object.pointer));
        let after = self.after.pointer(&object.pointer).unwrap_or(&Value::Null);
        (yaml::block(object.value, tree), yaml::block(after, tree))
    }
}

// --- patch ---

fn as_patches(rendered: &[Rendered<'_>]) -> anyhow::Result<String> {
    let mut patches = Vec::new();
    for change in rendered.iter().flat_map(|document| &document.changes) {
        let Workload {
            object, namespace, ..
        } = &change.workload;
        patches.push(json!({
            "source": object.source.to_string(),
            "apiVersion": object.api_version,
            "kind": object.kind,
            "namespace": namespace,
            "name": object.name(),
            "patch": serde_json::to_value(&change.patch)?,
        }));
    }
    Ok(serde_json::to_string_pretty(&patches)? + "\n")
}

#[cfg(test)]
mod tests {
    use hardening_engine::pod_template;
    use hardening_manifests::{parse, parse_file, policy_set};
    use proptest::prelude::*;

    use super::*;
    use crate::yaml::authors::{Hand, hands};

    const POLICIES: &str = r#"
apiVersion: podhardening.dev/v1alpha1
kind: PodHardeningPolicy
metadata: {name: hardened, namespace: default}
spec: {profile: Hardened}
---
apiVersion: podhardening.dev/v1alpha1
kind: ClusterPodHardeningPolicy
metadata: {name: more}
spec:
  listMerge: Union
  pod:
    hostUsers: false
    securityContext:
      supplementalGroups: [7]
      sysctls: [{name: net.ipv4.tcp_syncookies, value: "0"}]
  containers:
    securityContext: {capabilities: {drop: [NET_RAW]}}
    writablePaths: [{path: /var/cache, medium: Memory}]
---
apiVersion: podhardening.dev/v1alpha1
kind: ClusterPodHardeningPolicy
metadata: {name: trial}
spec: {mode: Audit, pod: {shareProcessNamespace: false}}
"#;

    /// One of some values, or nothing.
    fn maybe(values: &Value) -> impl Strategy<Value = Option<Value>> + use<> {
        prop::option::of(prop::sample::select(values.as_array().unwrap().clone()))
    }

    fn object(members: Vec<(&str, Option<Value>)>) -> Value {
        let given = members
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Value::Object(given.collect())
    }

    fn containers() -> impl Strategy<Value = Value> {
        let capabilities = json!([null, {}, {"drop": []}, {"drop": ["ALL"]}, {"add": ["NET_RAW"]}, {"add": ["SYS_ADMIN"]}]);
        let container = (
            maybe(&json!([0, 1000])),
            maybe(&json!([true, false, null])),
            maybe(&capabilities),
            maybe(
                &json!([[], [{"name": "v", "mountPath": "/tmp"}], [{"name": "v", "mountPath": "/var"}]]),
            ),
            maybe(&json!([null, {}])),
            maybe(&json!([["yes", "a: b", "#"], ["set -e\necho  x\n"]])),
        );
        let container =
            container.prop_map(|(user, privileged, capabilities, mounts, empty, args)| {
                let context = object(vec![
                    ("runAsUser", user),
                    ("privileged", privileged),
                    ("capabilities", capabilities),
                    ("newer", Some(json!({"y": "no"}))),
                ]);
                object(vec![
                    ("name", Some("app".into())),
                    ("securityContext", empty.or(Some(context))),
                    ("volumeMounts", mounts),
                    ("args", args),
                ])
            });
        prop::collection::vec(container, 1..4).prop_map(|mut containers| {
            for (index, container) in containers.iter_mut().enumerate() {
                container["name"] = format!("c{index}").into();
            }
            Value::Array(containers)
        })
    }

    fn pods() -> impl Strategy<Value = Value> {
        (
            maybe(&json!([null, {}, {"labels": {"y": "on"}}, {"annotations": {}}, {"annotations": {"a": "{}"}}])),
            maybe(&json!([null, {}, {"runAsUser": 5}, {"supplementalGroups": [5]}, {"sysctls": []}])),
            maybe(&json!([[], [{"name": "v", "emptyDir": {}}], null])),
            maybe(&json!([true, false])),
            containers(),
            prop::option::of(containers()),
        )
            .prop_map(|(metadata, context, volumes, network, containers, init)| {
                let spec = object(vec![
                    ("securityContext", context),
                    ("volumes", volumes),
                    ("hostNetwork", network),
                    ("initContainers", init),
                    ("containers", Some(containers)),
                ]);
                object(vec![("metadata", metadata), ("spec", Some(spec))])
            })
    }

    /// An object of each kind around a pod, or none of those that make pods.
    fn documents() -> impl Strategy<Value = Value> {
        let kinds = prop::sample::select(vec![
            ("v1", "Pod"),
            ("v1", "PodTemplate"),
            ("v1", "ReplicationController"),
            ("apps/v1", "Deployment"),
            ("batch/v1", "CronJob"),
            ("v1", "ConfigMap"),
        ]);
        (kinds, pods()).prop_map(|((api_version, kind), pod)| {
            let pointer = pod_template::pointer(kind).unwrap_or("/data");
            let around = pointer.split('/').skip(1).collect::<Vec<_>>();
            let mut value = around
                .into_iter()
                .rev()
                .fold(pod, |inner, key| json!({key: inner}));
            value["apiVersion"] = api_version.into();
            value["kind"] = kind.into();
            value
        })
    }

    /// What rendering gives: the documents, in each of the formats.
    struct Formats {
        yaml: String,
        json: String,
        patches: Vec<Value>,
    }

    fn rendered(text: &str) -> Formats {
        let (set, problems) = policy_set(&parse("p", POLICIES.as_bytes()).unwrap(), "default");
        assert_eq!(problems, []);
        let files = [parse_file("f", text.as_bytes()).unwrap()];
        let rendered: Vec<Rendered<'_>> = documents_of(&files, &set);
        let mut notes = Vec::new();
        let yaml = as_yaml(&files, &rendered, &mut notes);
        assert_eq!(notes, [""; 0], "{text}");
        Formats {
            yaml,
            json: as_json(&rendered),
            patches: serde_json::from_str(&as_patches(&rendered).unwrap()).unwrap(),
        }
    }

    fn documents_of<'f>(files: &'f [File], set: &PolicySet) -> Vec<Rendered<'f>> {
        let each = super::documents(files);
        each.map(|(file, document)| {
            render(file, document, "default", set, true, &mut Vec::new()).unwrap()
        })
        .collect()
    }

    fn values(text: &str) -> Vec<Value> {
        parse("f", text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|manifest| manifest.value)
            .collect()
    }

    /// Whether all that `before` says, `after` says too. What is empty is as good as absent.
    fn keeps(before: &Value, after: &Value) -> bool {
        match (before, after) {
            (Value::Null, _) => true,
            (Value::Object(members), _) if members.is_empty() => true,
            (Value::Object(members), Value::Object(after)) => members
                .iter()
                .all(|(key, value)| after.get(key).is_some_and(|after| keeps(value, after))),
            (Value::Array(items), Value::Array(after)) => {
                items.len() <= after.len()
                    && items
                        .iter()
                        .zip(after)
                        .all(|(item, after)| keeps(item, after))
            }
            (before, after) => before == after,
        }
    }

    fn written(documents: &[Value], hands: &[Hand]) -> String {
        let texts = documents.iter().zip(hands.iter().cycle());
        texts
            .map(|(document, hand)| hand.write(document).0)
            .collect::<Vec<_>>()
            .join("---\n")
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
        #[test]
        fn every_format_says_the_input_plus_the_fills(
            documents in prop::collection::vec(documents(), 1..5),
            hands in prop::collection::vec(hands(), 1..3),
        ) {
            let text = written(&documents, &hands);
            let formats = rendered(&text);

            let after = values(&formats.yaml);
            prop_assert_eq!(after.len(), documents.len());
            for (before, after) in documents.iter().zip(&after) {
                prop_assert!(keeps(before, after), "{}\n{}", before, after);
            }

            let json: Value = serde_json::from_str(&formats.json).unwrap();
            let from_json = match documents.len() {
                1 => vec![json],
                _ => json["items"].as_array().unwrap().clone(),
            };
            prop_assert_eq!(&from_json, &after);

            let mut patched = documents;
            for patch in &formats.patches {
                let source = patch["source"].as_str().unwrap();
                let number = source.strip_prefix("f, document ").map_or(1, |number| number.parse().unwrap());
                let patch: Patch = serde_json::from_value(patch["patch"].clone()).unwrap();
                json_patch::patch(&mut patched[number - 1], &patch).unwrap();
            }
            prop_assert_eq!(&patched, &after);

            let again = rendered(&formats.yaml);
            prop_assert_eq!(again.patches, Vec::<Value>::new());
            prop_assert_eq!(again.yaml, formats.yaml);
        }
    }
}
