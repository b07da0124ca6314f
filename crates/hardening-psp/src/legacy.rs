//! Seccomp and AppArmor annotations as the fields that replaced them.

use serde_json::Value;

use crate::app_armor;
use crate::mutate::set;
use crate::pod::{InvalidPod, Pod};
use crate::seccomp;

/// Writes the fields that say the same as the pod's seccomp and AppArmor annotations, and takes those
/// annotations out. A field that is there already stays. An annotation that no field can say is dropped: servers
/// since 1.27 (seccomp) and 1.30 (AppArmor) give it no meaning.
///
/// Seccomp is what 1.24 did itself when it stored a pod; AppArmor is what 1.30 does.
///
/// # Errors
///
/// Where a field that matters has a value of a type that no pod has there.
pub fn modernise(pod: &mut Value) -> Result<(), InvalidPod> {
    let given = Pod::read(pod)?;
    let context = given.context();
    if context.is_none_or(|context| context.seccomp_profile.is_none())
        && let Some(field) = given
            .annotation(seccomp::POD_ANNOTATION)
            .and_then(seccomp::field)
    {
        set(pod, &["spec", "securityContext", "seccompProfile"], field);
    }
    remove(pod, seccomp::POD_ANNOTATION);
    for place in given.containers() {
        let name = &place.container.name;
        let seccomp_key = format!("{}{name}", seccomp::CONTAINER_ANNOTATION);
        let app_armor_key = app_armor::annotation(name);
        let own = place.container.context();
        let seccomp = given.annotation(&seccomp_key).and_then(seccomp::field);
        let seccomp = seccomp.filter(|_| own.is_none_or(|own| own.seccomp_profile.is_none()));
        let app_armor = given.annotation(&app_armor_key).and_then(app_armor::field);
        let app_armor = app_armor.filter(|_| own.is_none_or(|own| own.app_armor_profile.is_none()));
        let pointer = format!("/spec/{}/{}", place.list, place.index);
        if let Some(container) = pod.pointer_mut(&pointer) {
            for (field, value) in [("seccompProfile", seccomp), ("appArmorProfile", app_armor)] {
                if let Some(value) = value {
                    set(container, &["securityContext", field], value);
                }
            }
        }
        remove(pod, &seccomp_key);
        remove(pod, &app_armor_key);
    }
    Ok(())
}

/// As [`modernise`], as far as today's API servers do it themselves when they store a pod: AppArmor's
/// annotations become fields, and seccomp's mean nothing.
pub(crate) fn store_today(pod: &mut Value) -> Result<(), InvalidPod> {
    let annotations = pod.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.retain(|key, _| {
            key != seccomp::POD_ANNOTATION && !key.starts_with(seccomp::CONTAINER_ANNOTATION)
        });
    }
    modernise(pod)
}

fn remove(pod: &mut Value, annotation: &str) {
    let annotations = pod.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(annotation);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_become_fields_and_fields_stay() {
        let mut pod = json!({
            "metadata": {"annotations": {
                "team": "shop",
                "seccomp.security.alpha.kubernetes.io/pod": "docker/default",
                "container.seccomp.security.alpha.kubernetes.io/a": "localhost/p.json",
                "container.apparmor.security.beta.kubernetes.io/a": "localhost/x",
                "container.apparmor.security.beta.kubernetes.io/b": "nonsense",
            }},
            "spec": {"containers": [
                {"name": "a", "securityContext": {"seccompProfile": {"type": "Unconfined"}}},
                {"name": "b", "securityContext": null},
            ]},
        });
        modernise(&mut pod).unwrap();
        let expected = json!({
            "metadata": {"annotations": {"team": "shop"}},
            "spec": {
                "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {"name": "a", "securityContext": {"seccompProfile": {"type": "Unconfined"},
                        "appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}}},
                    {"name": "b", "securityContext": null},
                ],
            },
        });
        assert_eq!(pod, expected);
    }
}
