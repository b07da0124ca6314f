//! The objects: a `MutatingAdmissionPolicy` and its binding.

use hardening_engine::Policy;
use hardening_engine::cel::Mutation;
use serde_json::{Value, json};

use crate::group::{Group, Reach};
use crate::{CompiledPolicy, Options};

/// The API version of what is compiled.
pub const VERSION: &str = "admissionregistration.k8s.io/v1";
/// The label of what is compiled, by which it is found again.
pub const LABEL: &str = "podhardening.dev/compiled";
/// Its value.
pub const LABEL_VALUE: &str = "true";
/// The annotation with the policies that something was compiled from.
pub const SOURCES: &str = "podhardening.dev/compiled-from";

/// The label that each namespace has with its own name.
const NAMESPACE: &str = "kubernetes.io/metadata.name";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What becomes of a pod for which an expression fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// It is refused.
    #[default]
    Fail,
    /// It is admitted as it is.
    Ignore,
}

/// The objects for a group's policies, which may be fewer than the group has.
pub(crate) fn compiled(
    policies: &[&Policy],
    mutation: &Mutation,
    group: &Group<'_>,
    options: &Options,
) -> CompiledPolicy {
    let sources: Vec<String> = policies
        .iter()
        .map(|policy| policy.reference().to_string())
        .collect();
    let name = name(policies, group);
    let metadata = json!({
        "name": name,
        "labels": {LABEL: LABEL_VALUE},
        "annotations": {SOURCES: sources.join(", ")},
    });
    let variables: Vec<Value> = mutation
        .variables
        .iter()
        .map(|variable| json!({"name": variable.name, "expression": variable.expression}))
        .collect();
    let rule = |operation: &str, resource: &str| {
        json!({
            "apiGroups": [""], "apiVersions": ["v1"], "operations": [operation],
            "resources": [resource], "scope": "Namespaced",
        })
    };
    let failure_policy = match options.failure_policy {
        FailurePolicy::Fail => "Fail",
        FailurePolicy::Ignore => "Ignore",
    };
    let not_mirror = format!("!('{MIRROR}' in object.metadata.?annotations.orValue({{}}))");
    let policy = json!({
        "apiVersion": VERSION,
        "kind": "MutatingAdmissionPolicy",
        "metadata": metadata,
        "spec": {
            "failurePolicy": failure_policy,
            // A sidecar that a webhook injects gets its defaults as well.
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "resourceRules": [rule("CREATE", "pods"), rule("UPDATE", "pods/ephemeralcontainers")],
            },
            "matchConditions": [{"name": "not-a-mirror-pod", "expression": not_mirror}],
            "variables": variables,
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": mutation.patch}}],
        },
    });
    let (operator, namespaces) = match &group.reach {
        Reach::Others(all_but) => ("NotIn", json!(all_but)),
        Reach::Known(_) | Reach::Unlabelled(_) => ("In", json!(group.namespaces())),
    };
    let binding = json!({
        "apiVersion": VERSION,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": metadata,
        "spec": {
            "policyName": name,
            "matchResources": {"namespaceSelector": {"matchExpressions": [
                {"key": NAMESPACE, "operator": operator, "values": namespaces},
            ]}},
        },
    });
    CompiledPolicy {
        name,
        sources: policies.iter().map(|policy| policy.key().clone()).collect(),
        policy,
        binding,
    }
}

/// The same for the same policies, whatever their contents and however many namespaces have them.
fn name(policies: &[&Policy], group: &Group<'_>) -> String {
    if let Reach::Others(_) = group.reach {
        return "pod-hardening-other-namespaces".to_owned();
    }
    let keys = policies.iter().map(|policy| {
        let key = policy.key();
        format!(
            "{}/{};",
            key.namespace.as_deref().unwrap_or_default(),
            key.name
        )
    });
    let text: String = keys.collect();
    // FNV-1a: stable over versions of Rust, and no secret hangs on it.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("pod-hardening-{hash:016x}")
}
