//! AppArmor profiles: in 1.24 nothing but annotations, one for each container.

use serde_json::{Value, json};

/// The annotation that holds a container's AppArmor profile.
pub(crate) fn annotation(container: &str) -> String {
    format!("container.apparmor.security.beta.kubernetes.io/{container}")
}

/// The `appArmorProfile` that says the same as an annotation, if one does.
pub(crate) fn field(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        other => match other.strip_prefix("localhost/") {
            Some(profile) if !profile.is_empty() => {
                Some(json!({"type": "Localhost", "localhostProfile": profile}))
            }
            _ => None,
        },
    }
}
