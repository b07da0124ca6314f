//! What pods lack, folded by namespace. Pure: pods and policies in, figures and reports out.

use std::collections::BTreeMap;

use hardening_engine::running::{History, Lacking, renew};
use hardening_engine::{Fill, Pod, PolicySet, plan};
use k8s_openapi::api::core::v1::ObjectReference;
use policy_report::{PolicyReport, PolicyReportResult, PolicyResult, PolicyResultSeverity};
use serde_json::Value;

/// How many namespaces have figures of their own; what is in the others is counted together.
const NAMESPACES: usize = 200;
/// The namespace that stands for those. It is no name that a namespace can have.
pub(crate) const OTHERS: &str = "(others)";
/// How many results a namespace's report has at most: an object must fit into etcd, and nobody reads more.
const RESULTS: usize = 200;
/// How many fields a result names.
const FIELDS: usize = 10;

/// The name of the reports, one in each namespace that has something to report.
pub(super) const REPORT: &str = "pod-hardening-missed-pods";
/// By which the reports are known to be this program's.
pub(super) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "pod-hardening");
/// Who says so, in the reports.
const SOURCE: &str = "pod-hardening";

/// Why pods lack something, in so many words as can be acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// The webhook was to be asked about the pod, and was not or could not answer.
    Missed,
    /// The pod is older than what the policies say today: it has it once it is made anew.
    Older,
    /// The webhook is not asked about such pods.
    Excluded,
    /// It cannot be told.
    Unknown,
}

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Running pods that were looked at.
    pub(super) pods: usize,
    /// Pods that could not be judged: no pods as we know them, or of a namespace that is not known yet.
    pub(super) unreadable: usize,
    namespaces: BTreeMap<String, Found>,
}

/// What was found in a namespace.
#[derive(Debug, Default)]
struct Found {
    counts: BTreeMap<Why, usize>,
    results: Vec<PolicyReportResult>,
}

// === impl Findings ===

impl Findings {
    /// Looks at a pod, as the API server writes it.
    pub(super) fn look(&mut self, json: &str, policies: &PolicySet, history: &History) {
        match self.try_look(json, policies, history) {
            Some(()) => {}
            None => self.unreadable += 1,
        }
    }

    fn try_look(&mut self, json: &str, policies: &PolicySet, history: &History) -> Option<()> {
        let mut object: Value = serde_json::from_str(json).ok()?;
        if is_over(&object) {
            return Some(());
        }
        renew(&mut object);
        let text = object.to_string();
        let pod = Pod::from_json(&text).ok()?;
        let namespace = object.pointer("/metadata/namespace")?.as_str()?;
        let matching = policies.matching(namespace, &pod).ok()?;
        self.pods += 1;
        let plan = plan(&matching, &pod);
        let mut by_policy: BTreeMap<String, (Lacking, Vec<&Fill<'_>>)> = BTreeMap::new();
        for fill in &plan.fills {
            let found = by_policy.entry(fill.policy.to_string()).or_insert_with(|| {
                let label = policies.namespace_label(namespace);
                let why = history.reason(namespace, label, &object, fill.policy);
                (why, Vec::new())
            });
            found.1.push(fill);
        }
        // What can be acted upon soonest counts, where policies differ in why.
        let Some(why) = by_policy.values().map(|(why, _)| Why::from(*why)).min() else {
            return Some(());
        };
        let found = self.namespaces.entry(namespace.to_owned()).or_default();
        *found.counts.entry(why).or_default() += 1;
        for (policy, (why, fills)) in by_policy {
            if found.results.len() < RESULTS {
                found.results.push(result(&object, &policy, why, &fills));
            }
        }
        Some(())
    }

    /// How many pods lack something for this reason.
    pub(super) fn count(&self, why: Why) -> usize {
        let counts = self.namespaces.values().map(|found| found.counts.get(&why));
        counts.map(|count| count.copied().unwrap_or(0)).sum()
    }

    /// How many pods lack something, by namespace and why, for so many namespaces as a metric may have.
    pub(super) fn by_namespace(&self) -> impl Iterator<Item = (&str, &'static str, usize)> {
        let mut namespaces: Vec<(&String, &Found)> = self.namespaces.iter().collect();
        // The worst first, and those alike by name.
        namespaces
            .sort_by_key(|(_, found)| std::cmp::Reverse(found.counts.values().sum::<usize>()));
        let mut figures: BTreeMap<(&str, Why), usize> = BTreeMap::new();
        for (at, (name, found)) in namespaces.into_iter().enumerate() {
            let name = if at < NAMESPACES { name } else { OTHERS };
            for (why, count) in &found.counts {
                *figures.entry((name, *why)).or_default() += count;
            }
        }
        figures
            .into_iter()
            .map(|((name, why), count)| (name, why.name(), count))
    }

    /// The reports of the namespaces in which something was found.
    pub(super) fn reports(&self) -> impl Iterator<Item = PolicyReport> {
        self.namespaces.iter().map(|(namespace, found)| {
            let mut results = found.results.clone();
            // The API server lists pods by name, and policies come by theirs: the same pods make the same
            // report.
            results.sort_by_key(|result| result.result);
            let mut report = PolicyReport::new(namespace, REPORT, results);
            let (key, value) = MANAGED_BY;
            let labels = [(key.to_owned(), value.to_owned())];
            report.metadata.labels = Some(labels.into());
            report
        })
    }
}

/// Whether a pod has run, or is about to go.
fn is_over(pod: &Value) -> bool {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str);
    matches!(phase, Some("Succeeded" | "Failed"))
        || pod.pointer("/metadata/deletionTimestamp").is_some()
}

fn result(pod: &Value, policy: &str, why: Lacking, fills: &[&Fill<'_>]) -> PolicyReportResult {
    let text = |pointer: &str| pod.pointer(pointer)?.as_str().map(str::to_owned);
    let mut paths: Vec<String> = fills.iter().map(|fill| fill.path()).collect();
    let more = paths.len().saturating_sub(FIELDS);
    paths.truncate(FIELDS);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (result, severity) = match Why::from(why) {
        Why::Missed => (PolicyResult::Fail, PolicyResultSeverity::Medium),
        Why::Older | Why::Excluded | Why::Unknown => {
            (PolicyResult::Warn, PolicyResultSeverity::Low)
        }
    };
    PolicyReportResult {
        rule: Some("filled".to_owned()),
        category: Some("Pod Hardening".to_owned()),
        severity: Some(severity),
        resources: vec![ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            uid: text("/metadata/uid"),
            ..ObjectReference::default()
        }],
        message: Some(format!("lacks {}{more}: {}", paths.join(", "), words(why))),
        properties: [("why".to_owned(), Why::from(why).name().to_owned())].into(),
        ..PolicyReportResult::new(SOURCE, policy, result)
    }
}

fn words(why: Lacking) -> &'static str {
    match why {
        Lacking::BeforePolicy => "the pod is older than the policy",
        Lacking::PolicyChanged => "the pod is older than what the policies say now",
        Lacking::NamespaceExcluded => "the webhook is not asked about this namespace",
        Lacking::PodExcluded => "the webhook is not asked about pods with these labels",
        Lacking::NotRegistered => "no webhook is registered",
        Lacking::NotSeen => "the webhook did not see it, or the policy came to be for it later",
        Lacking::Unknown => "why is not known",
    }
}

// === impl Why ===

impl Why {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Missed, Self::Older, Self::Excluded, Self::Unknown];

    /// In a metric and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Older => "older",
            Self::Excluded => "excluded",
            Self::Unknown => "unknown",
        }
    }
}

impl From<Lacking> for Why {
    fn from(lacking: Lacking) -> Self {
        match lacking {
            Lacking::NotSeen => Self::Missed,
            Lacking::BeforePolicy | Lacking::PolicyChanged => Self::Older,
            Lacking::NamespaceExcluded | Lacking::PodExcluded | Lacking::NotRegistered => {
                Self::Excluded
            }
            Lacking::Unknown => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
