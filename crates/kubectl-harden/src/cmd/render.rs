//! `kubectl harden render`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hardening_engine::{Fill, Plan, PolicySet, plan};
use hardening_manifests::{Document, File, Format, Manifest, objects, read_files};
use json_patch::Patch;
use serde_json::{Value, json};

use crate::args::{RenderArgs, RenderFormat};
use crate::diff;
use crate::output::{Report, Usage};
use crate::source::Policies;
use crate::workload::{Workload, workloads};
use crate::yaml::{self, Node};

pub(crate) fn run(args: &RenderArgs) -> anyhow::Result<Report> {
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
    let known = policies.for_workloads(&found, &manifests, namespace)?;
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
    report.stdout = match args.output {
        RenderFormat::Yaml => as_yaml(&files, &rendered, &mut report.stderr),
        RenderFormat::Json => as_json(&rendered),
        RenderFormat::Diff => as_diff(&rendered),
        RenderFormat::Patch => as_patches(&rendered)?,
    };
    report.coloured = args.output == RenderFormat::Diff;
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
fn inputs(args: &RenderArgs) -> anyhow::Result<Vec<PathBuf>> {
    let files = match args.files.as_slice() {
        [] if io::stdin().is_terminal() => {
            return Err(Usage("give manifests with -f FILE, or on standard input").into());
        }
        [] => vec![PathBuf::from("-")],
        files => files.to_vec(),
    };
    let stdin = files
        .iter()
        .chain(&args.policies.policies)
        .filter(|path| *path == Path::new("-"));
    if stdin.count() > 1 {
        return Err(Usage("standard input (-) can be read only once").into());
    }
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
        let pod = workload.pod()?;
        let matching = workload.matching(set, &pod)?;
        if verbose && matching.is_empty() {
            notes.push(format!(
                "note: {}: no policy is for its pods",
                workload.title()
            ));
        }
        let plan = plan(&matching, &pod);
        tell(&workload, &plan, verbose, notes);
        if plan.is_empty() {
            continue;
        }
        let patch = workload.patch_of_object(&plan.to_patch())?;
        let object = after
            .pointer_mut(&workload.object.pointer)
            .context("an object is where it was read")?;
        json_patch::patch(object, &patch).with_context(|| workload.title())?;
        changes.push(Change { workload, patch });
    }
    Ok(Rendered {
        file,
        document,
        after,
        changes,
    })
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

    /// The author's text with the changes in it, where that can be done.
    fn edited(&self) -> Option<String> {
        yaml::edit(self.text(), &self.document.manifest.value, &self.after)
    }

    /// The document in YAML of our own.
    fn anew(&self) -> String {
        yaml::block(&self.after, Node::parse(self.text()).as_ref())
    }
}

// --- json ---

/// One document as itself, several as a List, as kubectl prints them.
fn as_json(rendered: &[Rendered<'_>]) -> String {
    let trees: Vec<Option<Node>> = rendered
        .iter()
        .map(|document| Node::parse(document.text()))
        .collect();
    if let ([document], [tree]) = (rendered, trees.as_slice()) {
        return yaml::json(&document.after, tree.as_ref()) + "\n";
    }
    let after: Vec<Manifest> = rendered
        .iter()
        .map(|document| Manifest {
            value: document.after.clone(),
            ..document.document.manifest.clone()
        })
        .collect();
    let mut items = Vec::new();
    for (manifest, tree) in after.iter().zip(&trees) {
        for object in objects(std::slice::from_ref(manifest)) {
            items.push((
                object.value,
                tree.as_ref().and_then(|tree| tree.at(&object.pointer)),
            ));
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
        let tree = Node::parse(self.text());
        let tree = tree.as_ref().and_then(|tree| tree.at(&object.pointer));
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
