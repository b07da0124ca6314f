//! A pod as 1.24's admission saw it: what the API server had filled in before PodSecurityPolicy was asked.

use serde_json::{Value, json};

use crate::mutate::set;
use crate::volumes;

/// Where the token of a pod's service account is mounted.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const LISTS: [&str; 2] = ["initContainers", "containers"];

/// Does to a pod, or a pod template, what the API server did to a new pod as far as PodSecurityPolicy looked at
/// it: host ports under `hostNetwork`, the kind of a volume that names none, and the volume with the service
/// account's token. Ephemeral containers are taken out: no pod is created with them.
#[must_use]
pub fn as_created(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return pod;
    };
    spec.remove("ephemeralContainers");
    let on_host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    let takes_token = spec.get("automountServiceAccountToken") != Some(&Value::Bool(false));
    for volume in items(spec.get_mut("volumes")) {
        name_kind(volume);
        complete_field_refs(volume);
    }
    let mut lacks_token = false;
    for list in LISTS {
        for container in items(spec.get_mut(list)) {
            if on_host {
                items(container.get_mut("ports")).for_each(claim_host_port);
            }
            let mut mounts = items(container.get_mut("volumeMounts"));
            lacks_token |= !mounts.any(|mount| {
                let path = mount.get("mountPath").and_then(Value::as_str);
                path.is_some_and(|path| path.trim_end_matches('/') == TOKEN_PATH)
            });
        }
    }
    if takes_token && lacks_token {
        mount_token(&mut pod);
    }
    pod
}

fn items(list: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    list.and_then(Value::as_array_mut).into_iter().flatten()
}

fn name_kind(volume: &mut Value) {
    let has_kind = |field: &str| volume.get(field).is_some_and(|source| !source.is_null());
    // A kind newer than 1.24 is one too.
    let known = volumes::KINDS.iter().any(|(field, _)| has_kind(field));
    let others = volume.as_object().is_some_and(|fields| fields.len() > 1);
    if !known && !others {
        set(volume, &["emptyDir"], json!({}));
    }
}

fn complete_field_refs(volume: &mut Value) {
    let sources = items(volume.pointer_mut("/projected/sources"));
    for source in sources {
        for item in items(source.pointer_mut("/downwardAPI/items")) {
            if let Some(field) = item.get_mut("fieldRef").filter(|field| field.is_object())
                && field.get("apiVersion").is_none_or(Value::is_null)
            {
                set(field, &["apiVersion"], "v1".into());
            }
        }
    }
}

fn claim_host_port(port: &mut Value) {
    let claimed = port.get("hostPort").and_then(Value::as_i64);
    if claimed.unwrap_or_default() == 0
        && let Some(own) = port.get("containerPort").cloned()
    {
        set(port, &["hostPort"], own);
    }
}

/// Adds the volume; its mounts say nothing that a PSP asked about, as they are read-only and of no host path.
fn mount_token(pod: &mut Value) {
    let token = json!({"name": "kube-api-access-xxxxx", "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    match pod
        .pointer_mut("/spec/volumes")
        .and_then(Value::as_array_mut)
    {
        Some(volumes) => volumes.push(token),
        None => set(pod, &["spec", "volumes"], json!([token])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: &Value, pointer: &str, expected: &Value) {
        let created = as_created(&json!({ "spec": spec }));
        let found = created.pointer(pointer).unwrap_or(&Value::Null);
        assert_eq!(found, expected, "{pointer} of {created}");
    }

    #[test]
    fn what_came_before_admission_is_there() {
        let port = |port: Value| json!([{"name": "a", "ports": [port]}]);
        let container_port = json!({"containerPort": 80, "hostPort": 0});
        check(
            &json!({"hostNetwork": true, "containers": port(container_port.clone())}),
            "/spec/containers/0/ports/0/hostPort",
            &json!(80),
        );
        check(
            &json!({"containers": port(container_port)}),
            "/spec/containers/0/ports/0/hostPort",
            &json!(0),
        );
        check(
            &json!({"hostNetwork": true, "initContainers": port(json!({"containerPort": 80, "hostPort": 90}))}),
            "/spec/initContainers/0/ports/0/hostPort",
            &json!(90),
        );
        check(
            &json!({"volumes": [{"name": "v"}]}),
            "/spec/volumes/0/emptyDir",
            &json!({}),
        );
        check(
            &json!({"volumes": [{"name": "v", "image": {"reference": "x"}}]}),
            "/spec/volumes/0/emptyDir",
            &Value::Null,
        );
        let item = json!({"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}});
        check(
            &json!({"volumes": [{"name": "v", "projected": {"sources": [{"downwardAPI": {"items": [item]}}]}}]}),
            "/spec/volumes/0/projected/sources/0/downwardAPI/items/0/fieldRef/apiVersion",
            &json!("v1"),
        );
        check(
            &json!({"ephemeralContainers": [{"name": "debug"}]}),
            "/spec/ephemeralContainers",
            &Value::Null,
        );
    }

    #[test]
    fn a_token_is_mounted_unless_it_is_there_or_unwanted() {
        let container = json!({"name": "a"});
        let mounted =
            json!({"name": "a", "volumeMounts": [{"name": "t", "mountPath": TOKEN_PATH}]});
        let name = "/spec/volumes/0/name";
        let token = json!("kube-api-access-xxxxx");
        check(&json!({ "containers": [container] }), name, &token);
        check(&json!({ "containers": [mounted, container] }), name, &token);
        check(&json!({ "containers": [mounted] }), name, &Value::Null);
        let unwanted = json!({"containers": [container], "automountServiceAccountToken": false});
        check(&unwanted, name, &Value::Null);
        check(
            &json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [container]}),
            "/spec/volumes/1/name",
            &token,
        );
    }
}
