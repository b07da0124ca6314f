//! Policies of both kinds that the CRDs accept.

use hardening_api::{PolicyKind, violations};
use serde_json::{Map, Value, json};

use super::values::{self, CAPABILITIES, PATHS, RUNTIME_CLASSES, SERVICE_ACCOUNTS};
use super::{Member, Random};

/// The namespaces that policies are for, and pods come to, with their labels.
pub(crate) const NAMESPACES: [(&str, &[(&str, &str)]); 2] = [
    ("shop", &[("team", "web"), ("env", "prod")]),
    ("lab", &[("env", "dev")]),
];

/// A set of policies that a cluster may have at one time.
pub(crate) fn set(random: &mut Random) -> Vec<Value> {
    let count = random.number(1..=6);
    // Now and then everybody weakens, so that weakening defaults are the first to be asked.
    let weak = random.chance(0.2);
    (0..count).map(|i| policy(random, i, weak)).collect()
}

fn policy(random: &mut Random, number: usize, weak: bool) -> Value {
    loop {
        let kind = *random.pick(&PolicyKind::ALL);
        let weakens = kind == PolicyKind::Cluster && (weak || random.chance(0.3));
        let spec = spec(random, kind, weakens);
        // The first letter decides between policies of one rank.
        let name = format!("{}-{number}", random.word(3));
        let mut metadata = json!({"name": name, "generation": random.number(1..=3), "uid": format!("uid-{number}")});
        if kind == PolicyKind::Namespaced {
            metadata["namespace"] = random.pick(&NAMESPACES).0.into();
        }
        let object = json!({
            "apiVersion": hardening_api::API_VERSION, "kind": kind.name(), "metadata": metadata, "spec": spec,
        });
        // Contradictions, and specs without any default, are drawn again.
        if violations(kind, &object).is_empty() {
            return object;
        }
    }
}

fn spec(random: &mut Random, kind: PolicyKind, weakens: bool) -> Value {
    let mut spec = random.object(&[
        ("mode", 0.3, |r| {
            (*r.pick(&["Enforce", "Enforce", "Audit"])).into()
        }),
        ("priority", 0.4, |r| (*r.pick(&[-1, 0, 5, 5, 100])).into()),
        ("podSelector", 0.25, |r| selector(r, &POD_LABELS)),
        ("serviceAccountNames", 0.1, |r| {
            r.some(&SERVICE_ACCOUNTS, 1..=2).into()
        }),
        ("profile", 0.3, |r| {
            (*r.pick(&["Restricted", "Hardened"])).into()
        }),
        ("listMerge", 0.5, |r| (*r.pick(&["Keep", "Union"])).into()),
    ]);
    if random.chance(0.8) {
        let pod = pod(random, weakens);
        spec.insert("pod".to_owned(), pod);
    }
    if random.chance(0.8) {
        let containers = containers(random, weakens);
        spec.insert("containers".to_owned(), containers);
    }
    if kind == PolicyKind::Cluster {
        spec.extend(random.object(&[
            ("namespaceSelector", 0.3, |r| selector(r, &NAMESPACE_LABELS)),
            ("tier", 0.6, |r| (*r.pick(&["Admin", "Baseline"])).into()),
        ]));
        if weakens {
            spec.insert("allowWeakening".to_owned(), true.into());
        }
    }
    spec.into()
}

const POD_LABELS: [(&str, &str); 3] = [("app", "web"), ("app", "db"), ("tier", "front")];
const NAMESPACE_LABELS: [(&str, &str); 4] = [
    ("team", "web"),
    ("env", "prod"),
    ("env", "dev"),
    ("kubernetes.io/metadata.name", "shop"),
];

fn selector(random: &mut Random, labels: &[(&str, &str)]) -> Value {
    let (key, value) = *random.pick(labels);
    let (_, other) = *random.pick(labels);
    match random.number(0..=5) {
        0 => json!({}),
        1 => json!({"matchLabels": {key: value}}),
        2 => {
            json!({"matchExpressions": [{"key": key, "operator": "In", "values": [value, other]}]})
        }
        3 => json!({"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]}]}),
        4 => json!({"matchExpressions": [{"key": key, "operator": "Exists"}]}),
        _ => json!({"matchExpressions": [{"key": key, "operator": "DoesNotExist"}]}),
    }
}

const POD: [Member; 4] = [
    ("automountServiceAccountToken", 0.25, |r| {
        r.chance(0.2).into()
    }),
    ("hostUsers", 0.2, |_| false.into()),
    ("runtimeClassName", 0.15, |r| {
        (*r.pick(&RUNTIME_CLASSES)).into()
    }),
    ("shareProcessNamespace", 0.15, |_| false.into()),
];

const POD_CONTEXT: [Member; 12] = [
    ("runAsNonRoot", 0.3, |_| true.into()),
    ("runAsUser", 0.25, strong_user),
    ("runAsGroup", 0.25, values::user),
    ("fsGroup", 0.2, values::user),
    ("fsGroupChangePolicy", 0.15, values::fs_group_change_policy),
    ("supplementalGroups", 0.25, values::groups),
    (
        "supplementalGroupsPolicy",
        0.15,
        values::supplemental_groups_policy,
    ),
    ("seccompProfile", 0.25, |r| {
        strong(r, values::seccomp_profile)
    }),
    ("appArmorProfile", 0.25, |r| {
        strong(r, values::app_armor_profile)
    }),
    ("seLinuxOptions", 0.15, values::se_linux_options),
    ("seLinuxChangePolicy", 0.15, |r| {
        (*r.pick(&["MountOption", "Recursive"])).into()
    }),
    ("sysctls", 0.25, values::sysctls),
];

const CONTAINER_CONTEXT: [Member; 10] = [
    ("allowPrivilegeEscalation", 0.4, |_| false.into()),
    ("privileged", 0.25, |_| false.into()),
    ("readOnlyRootFilesystem", 0.4, |r| r.chance(0.8).into()),
    ("procMount", 0.2, |_| "Default".into()),
    ("runAsNonRoot", 0.2, |_| true.into()),
    ("runAsUser", 0.2, strong_user),
    ("runAsGroup", 0.2, values::user),
    ("seccompProfile", 0.2, |r| {
        strong(r, values::seccomp_profile)
    }),
    ("appArmorProfile", 0.2, |r| {
        strong(r, values::app_armor_profile)
    }),
    ("seLinuxOptions", 0.15, values::se_linux_options),
];

/// What only a cluster policy that may weaken says.
const WEAK_POD: [Member; 1] = [("hostUsers", 0.2, |_| true.into())];
const WEAK_CONTEXT: [Member; 4] = [
    ("runAsNonRoot", 0.1, |_| false.into()),
    ("runAsUser", 0.3, |_| 0.into()),
    ("seccompProfile", 0.15, |_| json!({"type": "Unconfined"})),
    ("appArmorProfile", 0.15, |_| json!({"type": "Unconfined"})),
];
const WEAK_CONTAINER_CONTEXT: [Member; 2] = [
    ("allowPrivilegeEscalation", 0.15, |_| true.into()),
    ("procMount", 0.3, |_| "Unmasked".into()),
];

fn strong_user(random: &mut Random) -> Value {
    let user = values::user(random);
    if user == 0 { 1000.into() } else { user }
}

fn strong(random: &mut Random, profile: fn(&mut Random) -> Value) -> Value {
    let profile = profile(random);
    if profile["type"] == "Unconfined" {
        json!({"type": "RuntimeDefault"})
    } else {
        profile
    }
}

fn pod(random: &mut Random, weakens: bool) -> Value {
    let mut pod = random.object(&POD);
    let mut context = random.object(&POD_CONTEXT);
    if weakens {
        pod.extend(random.object(&WEAK_POD));
        context.extend(random.object(&WEAK_CONTEXT));
    }
    if !context.is_empty() {
        pod.insert("securityContext".to_owned(), context.into());
    }
    pod.into()
}

fn containers(random: &mut Random, weakens: bool) -> Value {
    let mut containers = random.object(&[
        ("kinds", 0.2, |r| {
            r.some(&["Container", "InitContainer", "EphemeralContainer"], 1..=2)
                .into()
        }),
        ("writablePaths", 0.5, |r| {
            let paths = r.some(&PATHS, 1..=3);
            paths
                .into_iter()
                .map(|path| writable_path(r, path))
                .collect()
        }),
    ]);
    let mut context = random.object(&CONTAINER_CONTEXT);
    if weakens {
        context.extend(random.object(&WEAK_CONTEXT));
        context.extend(random.object(&WEAK_CONTAINER_CONTEXT));
    }
    let capabilities = capabilities(random, weakens);
    if !capabilities.is_empty() {
        context.insert("capabilities".to_owned(), capabilities.into());
    }
    if !context.is_empty() {
        containers.insert("securityContext".to_owned(), context.into());
    }
    containers.into()
}

fn capabilities(random: &mut Random, weakens: bool) -> Map<String, Value> {
    let mut capabilities = random.object(&[("drop", 0.4, |r| r.some(&CAPABILITIES, 1..=3).into())]);
    if weakens && random.chance(0.4) {
        let added = random.some(&CAPABILITIES[1..], 1..=2);
        capabilities.insert("add".to_owned(), added.into());
    }
    capabilities
}

fn writable_path(random: &mut Random, path: &str) -> Value {
    let mut writable = random.object(&[
        ("sizeLimit", 0.4, |r| {
            // The last two are not how the API server writes a quantity.
            (*r.pick(&["64Mi", "1Gi", "500M", "1024Ki", "0.5Gi"])).into()
        }),
        ("medium", 0.2, |_| "Memory".into()),
    ]);
    writable.insert("path".to_owned(), path.into());
    writable.into()
}

/// Gives all policies of a set one mode.
pub(crate) fn set_mode(policies: &mut [Value], mode: &str) {
    for policy in policies {
        policy["spec"]["mode"] = mode.into();
    }
}
