//! What the checks find in a pod.

use std::fmt;

use serde_json::Value;

use crate::check::{CHECKS, CheckId};
use crate::level::Level;
use crate::pod::Pod;
use crate::version::Version;

/// What stands between a pod and a level.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The level.
    pub level: Level,
    /// Whose level.
    pub version: Version,
    /// The checks that failed, in the order in which the API server tells them.
    pub violations: Vec<Violation>,
}

/// A check that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The check.
    pub check: CheckId,
    /// What is forbidden, in the API server's words: `hostPath volumes`.
    pub reason: &'static str,
    /// Who does it, in the API server's words: `volume "logs"`.
    pub detail: String,
    /// The fields that must change. A field that the API server does not name, because others come first, is
    /// not here either.
    pub fields: Vec<FieldViolation>,
}

/// A field that must change.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldViolation {
    /// Where it is: `spec.containers[0].securityContext.privileged`, `metadata.annotations[example.com/key]`.
    pub path: String,
    /// What it holds; `None` where nothing is set.
    pub value: Option<Value>,
    /// What it may hold.
    pub allowed: Allowed,
}

/// What a field may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Whether it may be left out.
    pub unset: bool,
    /// Its values as YAML writes them, or in words that describe them. `*` stands for any text.
    pub values: Vec<&'static str>,
}

/// How high a pod stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The highest level that it meets.
    pub level: Level,
    /// What stands in the way of the next one; `None` at the top.
    pub next: Option<Evaluation>,
}

/// Checks a pod against a level of a version.
#[must_use]
pub fn evaluate(level: Level, version: Version, pod: &Pod) -> Evaluation {
    let checks = CHECKS
        .iter()
        .filter(|check| check.is_part_of(level, version));
    Evaluation {
        level,
        version,
        violations: checks.filter_map(|check| check.run(version, pod)).collect(),
    }
}

/// The highest level of a version that a pod meets, and what stands in the way of the next one.
#[must_use]
pub fn standing(version: Version, pod: &Pod) -> Standing {
    let mut next = None;
    for level in [Level::Restricted, Level::Baseline] {
        let evaluation = evaluate(level, version, pod);
        if evaluation.is_allowed() {
            return Standing { level, next };
        }
        next = Some(evaluation);
    }
    Standing {
        level: Level::Privileged,
        next,
    }
}

// === impl Evaluation ===

impl Evaluation {
    /// Whether the pod meets the level.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.violations.is_empty()
    }

    /// What the API server says when it refuses the pod, after `pods "name" is forbidden: `.
    #[must_use]
    pub fn denial(&self) -> Option<String> {
        self.told_with("violates")
    }

    /// What the API server says in a warning or in the audit log, where the level is not enforced.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.told_with("would violate")
    }

    fn told_with(&self, verb: &str) -> Option<String> {
        let violations: Vec<String> = self.violations.iter().map(Violation::to_string).collect();
        (!violations.is_empty()).then(|| {
            let Self { level, version, .. } = self;
            let violations = violations.join(", ");
            format!("{verb} PodSecurity \"{level}:{version}\": {violations}")
        })
    }
}

// === impl Violation ===

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.detail)
    }
}

// === impl Allowed ===

impl Allowed {
    pub(crate) fn only(values: &[&'static str]) -> Self {
        Self {
            unset: false,
            values: values.to_vec(),
        }
    }

    pub(crate) fn unset_or(values: &[&'static str]) -> Self {
        Self {
            unset: true,
            ..Self::only(values)
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unset = self.unset.then_some("not set");
        let all: Vec<&str> = unset
            .into_iter()
            .chain(self.values.iter().copied())
            .collect();
        match all.split_last() {
            Some((last, [])) => f.write_str(last),
            Some((last, others)) => write!(f, "{} or {last}", others.join(", ")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARDENED: &str = r#""securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]"#;

    fn pod(members: &str) -> Pod {
        Pod::from_json(&format!("{{\"spec\": {{{members}}}}}")).unwrap()
    }

    #[test]
    fn a_pod_stands_at_the_highest_level_that_it_meets() {
        for (members, expected, in_the_way) in [
            (HARDENED, Level::Restricted, None),
            (
                r#""containers": [{"name": "a"}]"#,
                Level::Baseline,
                Some((Level::Restricted, 4)),
            ),
            (
                r#""hostIPC": true, "containers": [{"name": "a"}]"#,
                Level::Privileged,
                Some((Level::Baseline, 1)),
            ),
            (
                r#""containers": [{"name": "a"}], "hostUsers": false"#,
                Level::Baseline,
                Some((Level::Restricted, 3)),
            ),
        ] {
            let Standing { level, next } = standing(Version::Latest, &pod(members));
            let next = next.map(|next| (next.level, next.violations.len()));
            assert_eq!((level, next), (expected, in_the_way), "{members}");
        }
    }

    #[test]
    fn everything_meets_privileged_and_nothing_is_told_of_what_is_allowed() {
        let privileged = pod(r#""hostPID": true"#);
        for evaluation in [
            evaluate(Level::Privileged, Version::Latest, &privileged),
            evaluate(Level::Restricted, Version::Latest, &pod(HARDENED)),
        ] {
            assert!(evaluation.is_allowed());
            assert_eq!(evaluation.denial(), None);
            assert_eq!(evaluation.warning(), None);
        }
    }

    #[test]
    fn checks_are_told_one_after_the_other_baseline_first() {
        let pod = pod(&format!(
            "\"hostPID\": true, \"volumes\": [{{\"name\": \"v\", \"hostPath\": {{}}}}], {HARDENED}"
        ));
        let evaluation = evaluate(Level::Restricted, Version::Minor(33), &pod);
        let told = r#"PodSecurity "restricted:v1.33": host namespaces (hostPID=true), restricted volume types (volume "v" uses restricted volume type "hostPath")"#;
        assert_eq!(evaluation.denial(), Some(format!("violates {told}")));
        assert_eq!(evaluation.warning(), Some(format!("would violate {told}")));
    }
}
