//! Policies as the webhook holds them, from their manifests and what is known of the cluster.

use std::collections::BTreeMap;

use hardening_api::PolicyKind;
use hardening_engine::{Policy, PolicySet, UnknownNamespaces};
use serde_json::Value;

/// A policy set that knows nothing of a cluster yet, for a cluster that hides nothing.
pub(crate) fn of_cluster() -> PolicySet {
    let mut set = PolicySet::new(UnknownNamespaces::NotYetSeen);
    set.know_all_runtime_classes();
    set
}

/// Inserts policies, which must be valid.
pub(crate) fn insert(set: &mut PolicySet, policies: &[Value]) {
    for object in policies {
        let kind = object["kind"].as_str().unwrap();
        let policy = match PolicyKind::of(hardening_api::API_VERSION, kind).unwrap() {
            PolicyKind::Namespaced => {
                Policy::namespaced(&serde_json::from_value(object.clone()).unwrap())
            }
            PolicyKind::Cluster => {
                Policy::cluster(&serde_json::from_value(object.clone()).unwrap())
            }
        };
        set.insert_policy(policy.unwrap_or_else(|error| panic!("{error}\n{object:#}")));
    }
}

/// Labels as the policy set takes them.
pub(crate) fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}
