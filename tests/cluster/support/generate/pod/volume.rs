//! A pod's volumes.

use serde_json::{Value, json};

use crate::support::generate::Random;

/// Some volumes, with names that differ.
pub(super) fn volumes(random: &mut Random) -> Vec<Value> {
    let count = match random.number(0..=9) {
        0..=3 => 0,
        4..=8 => random.number(1..=3),
        _ => random.number(4..=9),
    };
    (0..count)
        .map(|i| {
            let mut volume = source(random);
            volume["name"] = match random.number(0..=11) {
                // A name that this product would choose, and one of the greatest length.
                0 if i == 0 => "writable-app-tmp".into(),
                1 if i == 0 => format!("v{}", "0".repeat(62)).into(),
                // As the API server names the volume that it injects; it then mounts this one.
                2 if i == 0 && volume["projected"].is_object() => {
                    format!("kube-api-access-{}", random.word(5)).into()
                }
                _ => format!("v{i}").into(),
            };
            volume
        })
        .collect()
}

fn source(random: &mut Random) -> Value {
    match random.number(0..=8) {
        0 => json!({"emptyDir": {}}),
        1 => json!({"emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}),
        2 => json!({"configMap": {"name": "settings", "optional": true}}),
        3 => json!({"secret": {"secretName": "key", "defaultMode": 256}}),
        4 => json!({"hostPath": {"path": "/var/log", "type": "Directory"}}),
        5 => json!({"persistentVolumeClaim": {"claimName": "data"}}),
        6 => {
            json!({"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}})
        }
        _ => projected_token(random),
    }
}

/// A token that the author asks for: each differs in one thing from the volume that the API server injects.
fn projected_token(random: &mut Random) -> Value {
    let mut token = json!({"path": "token", "expirationSeconds": 3607});
    let ca = json!({"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}});
    let namespace = json!({"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}});
    let mut others = vec![ca, namespace];
    match random.number(0..=3) {
        0 => token["audience"] = "vault".into(),
        1 => token["expirationSeconds"] = 7200.into(),
        2 => {
            others.pop();
        }
        _ => others.push(json!({"secret": {"name": "more", "optional": true}})),
    }
    let mut sources = vec![json!({"serviceAccountToken": token})];
    sources.extend(others);
    json!({"projected": {"sources": sources}})
}
