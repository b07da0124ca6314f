//! How authors who know the standards write their pods.

use serde_json::{Value, json};

use crate::support::generate::Random;

/// Takes out of a pod whatever the restricted level forbids, and puts in what it asks for.
pub(super) fn harden(random: &mut Random, pod: &mut Value, is_windows: bool) {
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|key, _| !key.contains("seccomp") && !key.contains("apparmor"));
    }
    let spec = &mut pod["spec"];
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        spec.as_object_mut().unwrap().remove(shared);
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        if !volume["hostPath"].is_null() {
            *volume = json!({"name": volume["name"], "emptyDir": {}});
        }
    }
    // Said once for all containers, or in each of them.
    let in_pod = random.flip();
    spec["securityContext"] = match (in_pod, is_windows) {
        (true, true) => json!({"runAsNonRoot": true}),
        (true, false) => {
            json!({"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": seccomp(random)})
        }
        (false, _) => json!({}),
    };
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let mut context = security_context(random, is_windows);
            if in_pod && random.chance(0.8) {
                let members = context.as_object_mut().unwrap();
                members.remove("runAsNonRoot");
                members.remove("seccompProfile");
            }
            container["securityContext"] = context;
        }
    }
}

/// A container's.
pub(super) fn security_context(random: &mut Random, is_windows: bool) -> Value {
    if is_windows {
        return json!({"runAsNonRoot": true});
    }
    let mut capabilities = json!({"drop": ["ALL"]});
    if random.chance(0.2) {
        capabilities["add"] = json!(["NET_BIND_SERVICE"]);
    }
    json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": capabilities, "seccompProfile": seccomp(random),
    })
}

fn seccomp(random: &mut Random) -> Value {
    random
        .pick(&[
            json!({"type": "RuntimeDefault"}),
            json!({"type": "Localhost", "localhostProfile": "audit.json"}),
        ])
        .clone()
}
