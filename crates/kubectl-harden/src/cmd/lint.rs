//! `kubectl harden lint`.

use anyhow::bail;
use hardening_api::PolicyKind;
use hardening_manifests::{File, Manifest, Object, Problem, objects, policy_set, read_files};
use serde_json::{Value, json};

use super::read_stdin_once;
use crate::args::{LintArgs, ReportFormat};
use crate::lint::{Finding, Linted, Namespaces, Severity, lint};
use crate::output::{Report, names, one_line};
use crate::yaml::Node;

pub(crate) fn run(args: &LintArgs) -> anyhow::Result<Report> {
    read_stdin_once(&args.files)?;
    let files = read_files(&args.files)?;
    let namespace = args.namespace.namespace.as_deref().unwrap_or("default");
    let documents = files.iter().flat_map(|file| &file.documents);
    let manifests: Vec<Manifest> = documents
        .map(|document| document.manifest.clone())
        .collect();
    let (_, problems) = policy_set(&manifests, namespace);
    let found = policies(&manifests, namespace, &problems)?;
    let given = objects(&manifests)
        .filter(|object| kind(object).is_some())
        .count();
    if given == 0 && problems.is_empty() {
        let [namespaced, cluster] = PolicyKind::ALL.map(PolicyKind::name);
        bail!(
            "{}: nothing to check: no {namespaced} or {cluster}",
            names(&args.files)
        );
    }
    let mut findings: Vec<Finding> = problems.into_iter().map(refused).collect();
    findings.extend(files.iter().flat_map(repeated_keys));
    findings.extend(lint(&found, &namespaces(&manifests)));
    // Within a policy as found; errors of all policies first.
    findings.sort_by_key(|finding| finding.severity);
    let worst = findings.first().map(|finding| finding.severity);
    Ok(Report {
        stdout: match args.output {
            ReportFormat::Text => as_text(given, &findings),
            ReportFormat::Json => as_json(given, &findings)?,
        },
        failed: worst == Some(Severity::Error) || (args.strict && worst == Some(Severity::Warning)),
        ..Report::default()
    })
}

fn kind(object: &Object<'_>) -> Option<PolicyKind> {
    PolicyKind::of(object.api_version, object.kind)
}

/// The policies that have no problem.
fn policies(
    manifests: &[Manifest],
    namespace: &str,
    problems: &[Problem],
) -> anyhow::Result<Vec<Linted>> {
    let mut policies = Vec::new();
    for object in objects(manifests) {
        let Some(kind) = kind(&object) else { continue };
        if problems
            .iter()
            .any(|problem| problem.source == object.source)
        {
            continue;
        }
        let (source, title) = (object.source.to_string(), object.to_string());
        // The kind is the list's business where the object is an item of one.
        let value = object.value.clone();
        policies.push(match kind {
            PolicyKind::Namespaced => {
                Linted::namespaced(source, title, serde_json::from_value(value)?, namespace)?
            }
            PolicyKind::Cluster => Linted::cluster(source, title, &serde_json::from_value(value)?)?,
        });
    }
    Ok(policies)
}

/// The labels of the Namespaces among the manifests.
fn namespaces(manifests: &[Manifest]) -> Namespaces {
    let namespaces = objects(manifests)
        .filter(|object| (object.api_version, object.kind) == ("v1", "Namespace"));
    namespaces
        .filter_map(|namespace| {
            let labels = namespace
                .value
                .pointer("/metadata/labels")
                .and_then(Value::as_object);
            let labels = labels.into_iter().flatten();
            let labels =
                labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
            Some((namespace.name()?.to_owned(), labels.collect()))
        })
        .collect()
}

fn refused(problem: Problem) -> Finding {
    let Problem {
        source,
        object,
        field,
        message,
    } = problem;
    Finding {
        severity: Severity::Error,
        source: source.to_string(),
        object,
        field,
        message,
    }
}

/// Keys that are given twice, of which kubectl lets the last one win without a word.
fn repeated_keys(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in &file.documents {
        let text = file.text.get(document.bytes.clone()).unwrap_or_default();
        let repeated = Node::parse(text)
            .map(|tree| tree.repeated_keys())
            .unwrap_or_default();
        for object in objects(std::slice::from_ref(&document.manifest))
            .filter(|object| kind(object).is_some())
        {
            let within = |path: &&String| path.starts_with(&format!("{}/", object.pointer));
            for path in repeated.iter().filter(within) {
                let field = path
                    .get(object.pointer.len() + 1..)
                    .unwrap_or_default()
                    .replace('/', ".");
                findings.push(Finding {
                    severity: Severity::Warning,
                    source: object.source.to_string(),
                    object: object.to_string(),
                    field,
                    message: "is given twice, and only the last one counts".to_owned(),
                });
            }
        }
    }
    findings
}

// --- output ---

fn as_text(policies: usize, findings: &[Finding]) -> String {
    let count = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let summary = format!(
        "{}: {}, {}, {}",
        number(policies, "policy", "policies"),
        number(count(Severity::Error), "error", "errors"),
        number(count(Severity::Warning), "warning", "warnings"),
        number(count(Severity::Note), "note", "notes")
    );
    let lines = findings.iter().map(ToString::to_string).chain([summary]);
    lines.map(|line| one_line(&line) + "\n").collect()
}

fn number(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

fn as_json(policies: usize, findings: &[Finding]) -> anyhow::Result<String> {
    let findings: Vec<Value> = findings
        .iter()
        .map(
            |Finding {
                 severity,
                 source,
                 object,
                 field,
                 message,
             }| {
                json!({
                    "severity": severity.name(),
                    "source": source,
                    "object": object,
                    "field": field,
                    "message": message,
                })
            },
        )
        .collect();
    Ok(serde_json::to_string_pretty(&json!({"policies": policies, "findings": findings}))? + "\n")
}
