//! A pod's annotations: legacy profiles, records that look like this product's own, and many bytes.

use serde_json::{Map, Value};

use crate::support::generate::Random;

/// What all annotations of an object may have together, in bytes.
const LIMIT: usize = 256 * 1024;

pub(super) fn annotations(random: &mut Random, containers: &[String]) -> Map<String, Value> {
    let mut annotations = random.object(&[
        ("example.com/note", 0.3, |_| {
            "\"quoted\"\n\tü \u{1F980}".into()
        }),
        ("seccomp.security.alpha.kubernetes.io/pod", 0.06, |r| {
            seccomp(r).into()
        }),
        // As when a pod was read from a cluster and is posted again.
        ("podhardening.dev/filled", 0.05, |r| {
            (*r.pick(&RECORDS)).into()
        }),
        ("podhardening.dev/withheld", 0.02, |_| {
            r#"{"runs-as-root":["spec.securityContext.runAsNonRoot"]}"#.into()
        }),
    ]);
    for container in containers {
        if random.chance(0.04) {
            let key = format!("container.seccomp.security.alpha.kubernetes.io/{container}");
            annotations.insert(key, seccomp(random).into());
        }
        if random.chance(0.06) {
            let key = format!("container.apparmor.security.beta.kubernetes.io/{container}");
            annotations.insert(key, (*random.pick(&APP_ARMOR)).into());
        }
    }
    if random.chance(0.03) {
        fill_up(random, &mut annotations);
    }
    annotations
}

/// All that the API server lets pass, the useless ones included.
const APP_ARMOR: [&str; 7] = [
    "runtime/default",
    "unconfined",
    "localhost/k8s-nginx",
    "localhost/k8s nginx//sub",
    "localhost/",
    "localhost/ padded",
    "",
];

const RECORDS: [&str; 5] = [
    r#"{"shop/abc-0@1":["spec.securityContext.runAsNonRoot","spec.securityContext.seccompProfile"]}"#,
    r#"{"abc@2":["spec.securityContext.runAsUser","spec.containers[app].securityContext.privileged"]}"#,
    r#"{"abc@2":"spec.securityContext.runAsUser"}"#,
    "by hand",
    "",
];

fn seccomp(random: &mut Random) -> &'static str {
    *random.pick(&[
        "runtime/default",
        "docker/default",
        "unconfined",
        "localhost/audit.json",
    ])
}

/// Leaves room for a record, for none, or for a part of it.
fn fill_up(random: &mut Random, annotations: &mut Map<String, Value>) {
    let key = "example.com/padding";
    let used: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.as_str().unwrap().len())
        .sum();
    let left = *random.pick(&[0, 1, 22, 100, 300, 600, 1000, 5000]);
    let padding = LIMIT.saturating_sub(used + key.len() + left);
    annotations.insert(key.to_owned(), "x".repeat(padding).into());
}
