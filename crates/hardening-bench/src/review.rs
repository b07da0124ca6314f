//! Reviews as kube-apiserver 1.36 sends them for the pods of a Deployment: defaults filled in, the service
//! account's token mounted, and nearly half of the bytes `metadata.managedFields`.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use hardening_engine::{Pod, plan};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{NAMESPACE, policies};

/// How large a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// One container.
    Small,
    /// Four, one of them an init container: a review of 8 KB.
    Typical,
    /// Forty, four of them init containers: a review of 55 KB.
    Large,
}

/// What the pod's author has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Written {
    /// None of the fields.
    Nothing,
    /// All that the policy would fill in: a second pass, or an author who left nothing open.
    Everything,
}

/// The body of a review.
///
/// # Errors
///
/// As [`pod`].
pub fn review(size: Size, written: Written) -> Result<Vec<u8>> {
    let object = as_sent(pod(size, written)?)?;
    Ok(
        [BEFORE_NAMESPACE, NAMESPACE, BEFORE_POD, &object, BEHIND_POD]
            .concat()
            .into_bytes(),
    )
}

// What stands around the pod, member for member as an API server writes it.
const BEFORE_NAMESPACE: &str = concat!(
    r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"#,
    r#""uid":"9b7f9f1c-0d5c-4d4e-9a43-7c1d4f6f3b52","#,
    r#""kind":{"group":"","version":"v1","kind":"Pod"},"#,
    r#""resource":{"group":"","version":"v1","resource":"pods"},"#,
    r#""requestKind":{"group":"","version":"v1","kind":"Pod"},"#,
    r#""requestResource":{"group":"","version":"v1","resource":"pods"},"#,
    r#""namespace":""#,
);
const BEFORE_POD: &str = concat!(
    r#"","operation":"CREATE","#,
    r#""userInfo":{"username":"system:serviceaccount:kube-system:replicaset-controller","#,
    r#""uid":"5a1e3c52-6a4e-4d3a-8f0f-6f3c8b8a4a11","#,
    r#""groups":["system:serviceaccounts","system:serviceaccounts:kube-system","system:authenticated"]},"#,
    r#""object":"#,
);
const BEHIND_POD: &str = r#","oldObject":null,"dryRun":false,"options":{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}}}"#;

/// The pod's text as an API server writes it: `managedFields` last in its `metadata`, and not by the alphabet.
fn as_sent(mut pod: Value) -> Result<String> {
    let metadata = pod.get_mut("metadata").and_then(Value::as_object_mut);
    let metadata = metadata.context("the pod has metadata")?;
    let managed = metadata.remove("managedFields").unwrap_or_default();
    let others = Value::Object(std::mem::take(metadata)).to_string();
    let others = others.strip_suffix('}').unwrap_or_default();
    let text = pod.to_string();
    let (before, after) = text
        .split_once("\"metadata\":{}")
        .context("the pod has metadata")?;
    Ok(format!(
        "{before}\"metadata\":{others},\"managedFields\":{managed}}}{after}"
    ))
}

/// The pod of a review.
///
/// # Errors
///
/// Where the engine cannot read it, or its own patch does not apply.
pub fn pod(size: Size, written: Written) -> Result<Value> {
    let mut object = open_pod(size);
    if written == Written::Everything {
        let json = object.to_string();
        let pod = Pod::from_json(&json)?;
        let policies = policies()?;
        let patch = plan(&policies.matching(NAMESPACE, &pod)?, &pod).to_patch();
        json_patch::patch(&mut object, &patch).context("apply the patch")?;
    }
    Ok(object)
}

impl Size {
    /// All sizes, smallest first.
    pub const ALL: [Self; 3] = [Self::Small, Self::Typical, Self::Large];

    /// How many init containers and containers it has.
    fn containers(self) -> (usize, usize) {
        match self {
            Self::Small => (0, 1),
            Self::Typical => (1, 3),
            Self::Large => (4, 36),
        }
    }

    /// What it is called in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Typical => "typical",
            Self::Large => "large",
        }
    }
}

impl Written {
    /// What it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Everything => "everything",
        }
    }
}

/// The pod with the fields left open.
fn open_pod(size: Size) -> Value {
    let (init, regular) = size.containers();
    let list = |kind: &str, count: usize| -> Vec<Value> {
        (0..count)
            .map(|i| container(&format!("{kind}-{i}")))
            .collect()
    };
    let mut object = json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "generateName": "checkout-6c7d9f5b8d-",
            "namespace": NAMESPACE,
            "creationTimestamp": null,
            "labels": {"app": "checkout", "pod-template-hash": "6c7d9f5b8d"},
            "annotations": {"prometheus.io/scrape": "true"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout-6c7d9f5b8d",
                "uid": "0c1b7a58-6f65-4f3d-8f1c-3f6f4be1f0a7", "controller": true, "blockOwnerDeletion": true,
            }],
            "managedFields": [{
                "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                "time": "2026-11-22T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": managed(init, regular),
            }],
        },
        "spec": {
            "volumes": [{
                "name": "kube-api-access-x7k2p",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef":
                            {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
                    ],
                    "defaultMode": 420,
                },
            }],
            "containers": list("service", regular),
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "serviceAccount": "default",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            ],
            "priority": 0,
            "enableServiceLinks": true,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {},
    });
    // The API server leaves an empty list out.
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
        && init > 0
    {
        spec.insert("initContainers".to_owned(), list("prepare", init).into());
    }
    object
}

fn container(name: &str) -> Value {
    json!({
        "name": name,
        "image": format!("registry.example/shop/{name}:1.42.0"),
        "args": ["--listen=:8080"],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": [
            {"name": "LOG_LEVEL", "value": "info"},
            {"name": "DATABASE", "value": "postgres://db.shop.svc/checkout?sslmode=verify-full"},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
        ],
        "resources": {"limits": {"memory": "128Mi"}, "requests": {"cpu": "50m", "memory": "128Mi"}},
        "volumeMounts": [{
            "name": "kube-api-access-x7k2p", "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    })
}

/// Who owns which field, as the API server keeps it: a key for every member that was ever written.
fn managed(init: usize, regular: usize) -> Value {
    let owned = || json!({});
    let list = |kind: &str, count: usize| -> Value {
        let entries = (0..count).map(|i| {
            let key = format!("k:{{\"name\":\"{kind}-{i}\"}}");
            let entry = json!({
                ".": owned(), "f:args": owned(),
                "f:env": {
                    ".": owned(),
                    "k:{\"name\":\"LOG_LEVEL\"}": {".": owned(), "f:name": owned(), "f:value": owned()},
                    "k:{\"name\":\"DATABASE\"}": {".": owned(), "f:name": owned(), "f:value": owned()},
                    "k:{\"name\":\"POD_IP\"}": {".": owned(), "f:name": owned(), "f:valueFrom": {".": owned(), "f:fieldRef": owned()}},
                },
                "f:image": owned(), "f:imagePullPolicy": owned(), "f:name": owned(),
                "f:ports": {".": owned(), "k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":
                    {".": owned(), "f:containerPort": owned(), "f:name": owned(), "f:protocol": owned()}},
                "f:resources": {".": owned(), "f:limits": {".": owned(), "f:memory": owned()},
                    "f:requests": {".": owned(), "f:cpu": owned(), "f:memory": owned()}},
                "f:terminationMessagePath": owned(), "f:terminationMessagePolicy": owned(),
            });
            (key, entry)
        });
        Value::Object(entries.collect::<Map<_, _>>())
    };
    json!({
        "f:metadata": {
            "f:annotations": {".": owned(), "f:prometheus.io/scrape": owned()},
            "f:generateName": owned(),
            "f:labels": {".": owned(), "f:app": owned(), "f:pod-template-hash": owned()},
            "f:ownerReferences": {".": owned(), "k:{\"uid\":\"0c1b7a58-6f65-4f3d-8f1c-3f6f4be1f0a7\"}": owned()},
        },
        "f:spec": {
            "f:containers": list("service", regular),
            "f:initContainers": list("prepare", init),
            "f:dnsPolicy": owned(), "f:enableServiceLinks": owned(), "f:restartPolicy": owned(),
            "f:schedulerName": owned(), "f:securityContext": owned(), "f:terminationGracePeriodSeconds": owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviews_are_as_large_as_they_are_said_to_be() {
        for (size, bytes) in [
            (Size::Small, 2_000..5_000),
            (Size::Typical, 7_500..8_700),
            (Size::Large, 54_000..57_000),
        ] {
            let length = review(size, Written::Nothing).unwrap().len();
            assert!(bytes.contains(&length), "{}: {length} bytes", size.name());
        }
    }

    #[test]
    fn a_review_is_json_with_the_pod_in_it() {
        for size in Size::ALL {
            let body = review(size, Written::Nothing).unwrap();
            let review: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                review["request"]["object"],
                pod(size, Written::Nothing).unwrap()
            );
        }
    }

    #[test]
    fn the_policy_fills_in_what_was_left_open_and_nothing_more() {
        for (size, expected) in [(Size::Small, 6), (Size::Typical, 12), (Size::Large, 84)] {
            for (written, expected) in [(Written::Nothing, expected), (Written::Everything, 0)] {
                let json = pod(size, written).unwrap().to_string();
                let pod = Pod::from_json(&json).unwrap();
                let policies = policies().unwrap();
                let plan = plan(&policies.matching(NAMESPACE, &pod).unwrap(), &pod);
                assert_eq!(plan.fills.len(), expected, "{size:?}, {written:?} written");
            }
        }
    }
}
