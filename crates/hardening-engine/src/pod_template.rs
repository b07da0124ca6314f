//! Where a pod stands in the objects that make pods.

/// The JSON pointer of the pod, or of the pod template, in an object of a kind; `None` for a kind that has
/// none.
#[must_use]
pub fn pointer(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "PodTemplate" => Some("/template"),
        "Deployment"
        | "ReplicaSet"
        | "StatefulSet"
        | "DaemonSet"
        | "Job"
        | "ReplicationController" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}
