//! The kinds of whatever creates pods.

use serde_json::{Value, json};

/// Each kind, with its version.
pub(crate) const KINDS: [(&str, &str); 5] = [
    ("Deployment", "apps/v1"),
    ("StatefulSet", "apps/v1"),
    ("DaemonSet", "apps/v1"),
    ("Job", "batch/v1"),
    ("CronJob", "batch/v1"),
];

/// An object of a kind that creates pods of this template, which the template's labels select.
pub(crate) fn workload(kind: &str, version: &str, name: &str, mut template: Value) -> Value {
    let ends = ["Job", "CronJob"].contains(&kind);
    template["spec"]["restartPolicy"] = if ends { "Never" } else { "Always" }.into();
    let selector = json!({"matchLabels": template["metadata"]["labels"]});
    let spec = match kind {
        "Deployment" | "DaemonSet" => json!({"selector": selector, "template": template}),
        "StatefulSet" => {
            json!({"selector": selector, "serviceName": "none", "template": template})
        }
        "Job" => json!({"template": template}),
        _ => json!({
            // One pod at a time.
            "schedule": "@every 2s", "concurrencyPolicy": "Forbid",
            "jobTemplate": {"spec": {"template": template}},
        }),
    };
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}
