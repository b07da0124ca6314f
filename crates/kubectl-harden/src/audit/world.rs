//! What pods are looked at with, from manifests.

use std::collections::BTreeMap;

use hardening_api::PolicyKind;
use hardening_api::policy::Mode;
use hardening_engine::{Field, KubernetesVersion, PolicySet};
use hardening_manifests::{Manifest, Object, objects, policy_set};
use pod_security_standards::Version;
use serde_json::Value;

use super::look::World;
use super::reason::History;
use crate::source::uses;

/// The world that manifests describe, and what is wrong with the policies among them. `input` are manifests
/// that say more about the cluster, but whose policies do not count. `kubernetes` is the version of the API
/// server, if it is known: whose standards count, and which fields there are.
pub(crate) fn world(
    known: &[Manifest],
    input: &[Manifest],
    namespace: &str,
    kubernetes: Option<KubernetesVersion>,
    registrations_known: bool,
) -> (World, Vec<String>) {
    let (mut set, problems) = policy_set(known, namespace);
    set.set_kubernetes_version(kubernetes);
    let is_audited = set.policies().any(|policy| policy.mode() == Mode::Audit);
    let enforcing = is_audited.then(|| {
        let (mut set, _) = policy_set(&enforced(known), namespace);
        set.set_kubernetes_version(kubernetes);
        set
    });
    let mut history = History::new(registrations_known);
    let mut bindings = BTreeMap::new();
    for manifests in [known, input] {
        history.read(manifests);
        for object in objects(manifests) {
            bind(&mut bindings, &object);
        }
    }
    let world = World {
        set,
        enforcing,
        version: kubernetes.map_or(Version::Latest, |kubernetes| {
            Version::Minor(u64::from(kubernetes.minor()))
        }),
        history,
        bindings,
    };
    (world, problems.iter().map(ToString::to_string).collect())
}

impl World {
    /// From now on a RuntimeClass that was not among the manifests does not exist.
    pub(crate) fn know_all_runtime_classes(&mut self) {
        self.set.know_all_runtime_classes();
        if let Some(set) = &mut self.enforcing {
            set.know_all_runtime_classes();
        }
    }
}

/// Whether policies, in whatever mode, may take tokens away.
pub(crate) fn asks_for_tokens(set: &PolicySet) -> bool {
    uses(set, Field::AutomountServiceAccountToken)
}

pub(crate) fn is_policy(object: &Object<'_>) -> bool {
    PolicyKind::of(object.api_version, object.kind).is_some()
}

/// Every policy in mode Enforce.
fn enforced(manifests: &[Manifest]) -> Vec<Manifest> {
    let mut manifests = manifests.to_vec();
    for manifest in &mut manifests {
        let pointers: Vec<String> = objects(std::slice::from_ref(manifest))
            .filter(is_policy)
            .map(|object| object.pointer)
            .collect();
        for pointer in pointers {
            let mode = manifest.value.pointer_mut(&format!("{pointer}/spec/mode"));
            if let Some(mode) = mode.filter(|mode| *mode == "Audit") {
                *mode = Value::from("Enforce");
            }
        }
    }
    manifests
}

/// Notes which service accounts a binding names.
fn bind(bindings: &mut BTreeMap<(String, String), Vec<String>>, object: &Object<'_>) {
    let is_rbac = object.api_version.starts_with("rbac.authorization.k8s.io/");
    if !is_rbac || !matches!(object.kind, "RoleBinding" | "ClusterRoleBinding") {
        return;
    }
    let subjects = object.value.get("subjects").and_then(Value::as_array);
    for subject in subjects.into_iter().flatten() {
        let text = |key| subject.get(key).and_then(Value::as_str);
        let namespace = text("namespace").or(object.namespace());
        if let (Some("ServiceAccount"), Some(name), Some(namespace)) =
            (text("kind"), text("name"), namespace)
        {
            let account = (namespace.to_owned(), name.to_owned());
            bindings
                .entry(account)
                .or_default()
                .push(object.to_string());
        }
    }
}
