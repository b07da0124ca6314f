//! An audit as PolicyReports, for the tools that show these: one for each namespace, with a result for each
//! field of a workload.
//!
//! | found | policy | rule | result |
//! |---|---|---|---|
//! | a field is missing although the webhook was there | the policy | the field | `fail` |
//! | a field is missing for another reason | the policy | the field | `warn` |
//! | a policy in mode Audit would fill it in | the policy | the field | `warn` |
//! | a guard holds it back | the policy | the guard | `skip` |
//! | nothing of all this, for a policy of the workload | the policy | none | `pass` |
//! | what is in the way of the next level | `pod-security-standards` | the check | `warn` |
//! | what may stop working | `pod-hardening-risks` | the risk | `warn` |

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ObjectReference;
use policy_report::{PolicyReport, PolicyReportResult, PolicyResult, PolicyResultSeverity};

use super::model::{Audit, Found, Reason, Workload};

/// The name of the reports.
const NAME: &str = "pod-hardening-audit";
/// Who says so, in the reports.
const SOURCE: &str = "pod-hardening";
const POLICIES: &str = "Pod Hardening";
/// On a report: what could not be seen, where that is not all.
const INCOMPLETE: &str = "podhardening.dev/incomplete";

/// Of all namespaces, by name.
pub(crate) fn reports(audit: &Audit) -> impl Iterator<Item = PolicyReport> {
    let notices: Vec<_> = audit.notices.iter().map(|one| one.text.as_str()).collect();
    let incomplete = (!audit.complete).then(|| notices.join("\n"));
    let mut workloads = BTreeMap::<&str, Vec<&Workload>>::new();
    for workload in &audit.workloads {
        let own = workloads.entry(&workload.namespace).or_default();
        own.push(workload);
    }
    audit.namespaces.iter().map(move |namespace| {
        let own = workloads.get(&*namespace.name).into_iter().flatten();
        let results = own.flat_map(|workload| results(workload)).collect();
        let mut report = PolicyReport::new(&namespace.name, NAME, results);
        let by = [("app.kubernetes.io/managed-by".to_owned(), SOURCE.to_owned())];
        report.metadata.labels = Some(by.into());
        report.metadata.annotations = incomplete
            .clone()
            .map(|text| [(INCOMPLETE.to_owned(), text)].into());
        report
    })
}

fn results(workload: &Workload) -> Vec<PolicyReportResult> {
    let mut results = Vec::new();
    let mut told = BTreeSet::new();
    for found in &workload.missing {
        let fill = &found.what.fill;
        told.insert(fill.policy.as_str());
        let (result, severity) = weight(found.what.reason);
        let message = format!(
            "{}: {}, missing in {}: {}",
            fill.field,
            fill.value,
            part(found, workload),
            found.what.reason.text()
        );
        let line = Line::new(&fill.policy, fill.field, POLICIES, result, severity);
        results.push(line.of(workload, &fill.path, message));
    }
    for found in &workload.audited {
        let fill = &found.what;
        told.insert(fill.policy.as_str());
        let message = format!(
            "{}: {}, missing in {}: the policy is in mode Audit",
            fill.field,
            fill.value,
            part(found, workload)
        );
        let line = Line::warning(&fill.policy, fill.field, POLICIES);
        results.push(line.of(workload, &fill.path, message));
    }
    for found in &workload.withheld {
        let held = &found.what;
        told.insert(held.policy.as_str());
        let message = format!("{}: {}", part(found, workload), held.reason);
        let (result, severity) = (PolicyResult::Skip, PolicyResultSeverity::Info);
        let line = Line::new(&held.policy, held.guard, POLICIES, result, severity);
        results.push(line.of(workload, &held.path, message));
    }
    for policy in &workload.policies {
        if !told.contains(&**policy) {
            results.push(PolicyReportResult {
                category: Some(POLICIES.to_owned()),
                resources: vec![reference(workload)],
                ..PolicyReportResult::new(SOURCE, policy, PolicyResult::Pass)
            });
        }
    }
    for found in &workload.obstacles {
        let obstacle = &found.what;
        let message = format!(
            "{}: {}; must be {}",
            part(found, workload),
            obstacle.text,
            obstacle.allowed
        );
        let line = Line::warning(
            "pod-security-standards",
            obstacle.check,
            "Pod Security Standards",
        );
        let mut result = line.of(workload, &obstacle.path, message);
        if let Some(level) = workload.next_level {
            result
                .properties
                .insert("level".to_owned(), level.name().to_owned());
        }
        results.push(result);
    }
    for found in &workload.risks {
        let risk = &found.what;
        let message = format!(
            "{}: {}: {}",
            part(found, workload),
            risk.evidence,
            risk.text
        );
        let line = Line::warning("pod-hardening-risks", risk.id, "Risks of enforcing");
        results.push(line.of(workload, &risk.path, message));
    }
    results
}

/// How much it matters that a field is missing: as the reports of `manage` have it.
fn weight(reason: Reason) -> (PolicyResult, PolicyResultSeverity) {
    match reason {
        Reason::NotSeen => (PolicyResult::Fail, PolicyResultSeverity::Medium),
        Reason::BeforePolicy
        | Reason::PolicyChanged
        | Reason::NamespaceExcluded
        | Reason::PodExcluded
        | Reason::NotRegistered
        | Reason::Template
        | Reason::Unknown => (PolicyResult::Warn, PolicyResultSeverity::Low),
    }
}

/// Whom it is about: `2 of 3 pods`.
fn part<T>(found: &Found<T>, workload: &Workload) -> String {
    match (found.pods, workload.pods) {
        (_, 0) => "the template".to_owned(),
        (some, all) => format!("{some} of {all} pods"),
    }
}

/// The workload. Of which API its kind is, is not known: owners are told by kind and name.
fn reference(workload: &Workload) -> ObjectReference {
    ObjectReference {
        kind: Some(workload.kind.clone()),
        namespace: Some(workload.namespace.clone()),
        name: Some(workload.name.clone()),
        ..ObjectReference::default()
    }
}

/// What is said of a field, but for the field.
struct Line<'a> {
    policy: &'a str,
    rule: &'a str,
    category: &'static str,
    result: PolicyResult,
    severity: PolicyResultSeverity,
}

impl<'a> Line<'a> {
    fn new(
        policy: &'a str,
        rule: &'a str,
        category: &'static str,
        result: PolicyResult,
        severity: PolicyResultSeverity,
    ) -> Self {
        Self {
            policy,
            rule,
            category,
            result,
            severity,
        }
    }

    fn warning(policy: &'a str, rule: &'a str, category: &'static str) -> Self {
        Self::new(
            policy,
            rule,
            category,
            PolicyResult::Warn,
            PolicyResultSeverity::Low,
        )
    }

    fn of(&self, workload: &Workload, path: &str, message: String) -> PolicyReportResult {
        PolicyReportResult {
            rule: Some(self.rule.to_owned()),
            category: Some(self.category.to_owned()),
            severity: Some(self.severity),
            resources: vec![reference(workload)],
            message: Some(message),
            properties: [("path".to_owned(), path.to_owned())].into(),
            ..PolicyReportResult::new(SOURCE, self.policy, self.result)
        }
    }
}
