//! What can be said about policies without a cluster and without a pod. Pure: policies in, findings out.
//!
//! What the API server would refuse is `hardening-manifests`' business, and comes in as problems; here are
//! [`overlap`]s and likely [`mistake`]s.

mod mistake;
mod overlap;
mod policy;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hardening_engine::overlap::Overlaps;

pub(crate) use policy::Linted;

/// The labels of the namespaces that are known, by name.
pub(crate) type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// Something to say about a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// Where the policy stands.
    pub(crate) source: String,
    /// The policy, as its kind, namespace and name.
    pub(crate) object: String,
    /// The field; empty: the policy as a whole.
    pub(crate) field: String,
    pub(crate) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// The API server would refuse it.
    Error,
    /// Likely a mistake.
    Warning,
    /// Good to know.
    Note,
}

/// All there is to say about policies that the API server would take.
pub(crate) fn lint(policies: &[Linted], namespaces: &Namespaces) -> Vec<Finding> {
    let mut overlaps = Overlaps::default();
    for (name, labels) in namespaces {
        overlaps.insert_namespace(name, labels);
    }
    for policy in policies {
        overlaps.insert_policy(Arc::clone(&policy.policy));
    }
    let by_key = policies.iter().enumerate();
    let by_key = by_key.map(|(at, policy)| (policy.policy.key(), (at, policy)));
    let by_key = by_key.collect();
    let mut findings = Vec::new();
    for policy in policies {
        mistake::find(policy, &overlaps, &mut findings);
        overlap::find(policy, &by_key, &overlaps, &mut findings);
    }
    findings
}

impl Severity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            severity,
            source,
            object,
            field,
            message,
        } = self;
        write!(f, "{}: {source}: {object}: ", severity.name())?;
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        f.write_str(message)
    }
}
