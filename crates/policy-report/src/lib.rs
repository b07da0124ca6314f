//! Kubernetes' `PolicyReport` and `ClusterPolicyReport`, `wgpolicyk8s.io/v1alpha2`: the form that the policy
//! working group gave to what policy engines find, so that one set of tools can show it.
//!
//! Types and nothing else. They are resources as `k8s-openapi`'s own are, so that any client can be used with
//! them. What a report says of an object is a [`PolicyReportResult`]; how much of each it says, its
//! [`PolicyReportSummary`], is counted by the constructors, so that the two agree.
//!
//! ```
//! use policy_report::{PolicyReport, PolicyReportResult, PolicyResult};
//!
//! let mut found = PolicyReportResult::new("pod-hardening", "shop/restricted", PolicyResult::Fail);
//! found.message = Some("lacks runAsNonRoot".to_owned());
//! let report = PolicyReport::new("shop", "missed", vec![found]);
//! assert_eq!(report.summary.fail, 1);
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::{ClusterResourceScope, Metadata, NamespaceResourceScope, Resource};
use serde::{Deserialize, Serialize};

/// The API group.
pub const GROUP: &str = "wgpolicyk8s.io";
/// The version of [`GROUP`] that these types are of.
pub const VERSION: &str = "v1alpha2";
/// [`GROUP`] and [`VERSION`] as an object's `apiVersion` spells them.
pub const API_VERSION: &str = "wgpolicyk8s.io/v1alpha2";

/// What policies found in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReport {
    /// `wgpolicyk8s.io/v1alpha2`.
    pub api_version: String,
    /// `PolicyReport`.
    pub kind: String,
    /// Its name and namespace.
    pub metadata: ObjectMeta,
    /// What the report is about, where that is one object; absent: the results say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ObjectReference>,
    /// What the report is about, by labels; only where `scope` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_selector: Option<LabelSelector>,
    /// How many results there are of each kind.
    #[serde(default)]
    pub summary: PolicyReportSummary,
    /// What was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<PolicyReportResult>,
}

/// What policies found in objects without a namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPolicyReport {
    /// `wgpolicyk8s.io/v1alpha2`.
    pub api_version: String,
    /// `ClusterPolicyReport`.
    pub kind: String,
    /// Its name.
    pub metadata: ObjectMeta,
    /// As [`PolicyReport::scope`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ObjectReference>,
    /// As [`PolicyReport::scope_selector`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_selector: Option<LabelSelector>,
    /// How many results there are of each kind.
    #[serde(default)]
    pub summary: PolicyReportSummary,
    /// What was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<PolicyReportResult>,
}

/// How many results there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReportSummary {
    /// Objects that meet the policy.
    #[serde(default)]
    pub pass: i64,
    /// Objects that do not.
    #[serde(default)]
    pub fail: i64,
    /// Objects that do not meet a policy that need not be met.
    #[serde(default)]
    pub warn: i64,
    /// Policies that could not be tried.
    #[serde(default)]
    pub error: i64,
    /// Policies that are not for the object after all.
    #[serde(default)]
    pub skip: i64,
}

/// What a policy found in one or more objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReportResult {
    /// The program that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The policy.
    pub policy: String,
    /// The rule within the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What kind of policy it is, in the words of whoever wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// How much it matters that the policy is not met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<PolicyResultSeverity>,
    /// When it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// What came of it.
    pub result: PolicyResult,
    /// Whether it counts in scores that others make of reports.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scored: bool,
    /// The objects, where they are few enough to be named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ObjectReference>,
    /// The objects by labels, where they are not named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_selector: Option<LabelSelector>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// More, in texts. Readers show them as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// A time, as these reports write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970, UTC.
    pub seconds: i64,
    /// And nanoseconds, 0 to 999,999,999.
    pub nanos: i32,
}

/// What came of a policy.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PolicyResult {
    /// It is met.
    #[default]
    Pass,
    /// It is not met.
    Fail,
    /// It is not met, and need not be.
    Warn,
    /// It could not be tried.
    Error,
    /// It is not for the object.
    Skip,
}

/// How much it matters that a policy is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are all that the API says of them")]
pub enum PolicyResultSeverity {
    Critical,
    High,
    Medium,
    Low,
    Info,
}

// === impl PolicyReport, ClusterPolicyReport ===

impl PolicyReport {
    /// A report with these results, and as many in its summary.
    #[must_use]
    pub fn new(namespace: &str, name: &str, results: Vec<PolicyReportResult>) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: Self::KIND.to_owned(),
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            summary: PolicyReportSummary::of(&results),
            results,
            ..Self::default()
        }
    }
}

impl ClusterPolicyReport {
    /// A report with these results, and as many in its summary.
    #[must_use]
    pub fn new(name: &str, results: Vec<PolicyReportResult>) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: Self::KIND.to_owned(),
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            summary: PolicyReportSummary::of(&results),
            results,
            ..Self::default()
        }
    }
}

impl Resource for PolicyReport {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "PolicyReport";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "policyreports";
    type Scope = NamespaceResourceScope;
}

impl Metadata for PolicyReport {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Resource for ClusterPolicyReport {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "ClusterPolicyReport";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "clusterpolicyreports";
    type Scope = ClusterResourceScope;
}

impl Metadata for ClusterPolicyReport {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

// === impl PolicyReportSummary ===

impl PolicyReportSummary {
    /// How many there are of each kind.
    #[must_use]
    pub fn of(results: &[PolicyReportResult]) -> Self {
        let mut summary = Self::default();
        for result in results {
            let count = match result.result {
                PolicyResult::Pass => &mut summary.pass,
                PolicyResult::Fail => &mut summary.fail,
                PolicyResult::Warn => &mut summary.warn,
                PolicyResult::Error => &mut summary.error,
                PolicyResult::Skip => &mut summary.skip,
            };
            *count = count.saturating_add(1);
        }
        summary
    }
}

// === impl PolicyReportResult ===

impl PolicyReportResult {
    /// What a program says came of a policy, and nothing else yet.
    #[must_use]
    pub fn new(source: &str, policy: &str, result: PolicyResult) -> Self {
        Self {
            source: Some(source.to_owned()),
            policy: policy.to_owned(),
            result,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_what_it_says_and_leaves_out_what_it_does_not() {
        let results = [PolicyResult::Fail, PolicyResult::Warn, PolicyResult::Fail];
        let results = results.map(|result| PolicyReportResult::new("here", "p", result));
        let report = PolicyReport::new("shop", "missed", results.into());
        let result =
            |result: &str| serde_json::json!({"source": "here", "policy": "p", "result": result});
        let expected = serde_json::json!({
            "apiVersion": "wgpolicyk8s.io/v1alpha2",
            "kind": "PolicyReport",
            "metadata": {"name": "missed", "namespace": "shop"},
            "summary": {"pass": 0, "fail": 2, "warn": 1, "error": 0, "skip": 0},
            "results": [result("fail"), result("warn"), result("fail")],
        });
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
        assert_eq!(
            serde_json::from_value::<PolicyReport>(expected).unwrap(),
            report
        );
    }
}
