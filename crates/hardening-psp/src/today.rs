//! What a PSP would deny of a pod as today's API has it: the one definition of what the converted denying half
//! says, which tests hold its CEL against.
//!
//! The pod is put into 1.24's words, and 1.24's rules ([`Policy::validate`]) judge it. Seccomp and AppArmor
//! profiles are fields, of the pod or of a container, and no longer annotations.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::app_armor;
use crate::capability;
use crate::mutate::set;
use crate::pod::{Capabilities, Container, InvalidPod, LISTS, Pod};
use crate::policy::{ANY, GroupRule, Policy, UserRule};
use crate::seccomp;
use crate::validate::Denial;
use crate::volumes::KINDS;

impl Policy {
    /// Why the converted denying half denies the creation of a pod as today's API server stores it; empty: it
    /// does not. Fields are as today's pods have them. Ephemeral containers, which no pod is created with, are
    /// judged as well; the denying half never sees any.
    ///
    /// # Errors
    ///
    /// Where a field that matters has a value of a type that no pod has there.
    pub fn denials_today(&self, pod: &Value) -> Result<Vec<Denial>, InvalidPod> {
        let mut pod = pod.clone();
        self.as_in_1_24(&mut pod)?;
        let read = Pod::read(&pod)?;
        let mut denials = self.validate(&pod)?;
        for denial in &mut denials {
            denial.field = today(&denial.field, &read);
        }
        Ok(denials)
    }

    fn as_in_1_24(&self, pod: &mut Value) -> Result<(), InvalidPod> {
        let given = Pod::read(pod)?;
        if let Some(annotations) = pod
            .pointer_mut("/metadata/annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.retain(|key, _| {
                key != seccomp::POD_ANNOTATION
                    && !key.starts_with(seccomp::CONTAINER_ANNOTATION)
                    && !key.starts_with(&app_armor::annotation(""))
            });
        }
        for (place, profile) in given.containers().zip(profiles(pod)) {
            let key = app_armor::annotation(&place.container.name);
            set(pod, &["metadata", "annotations", &key], profile.into());
            let pointer = format!("/spec/{}/{}", place.list, place.index);
            if let Some(container) = pod.pointer_mut(&pointer) {
                self.spell_capabilities(container);
                self.fill_what_guards_withhold(&given, place.container, container);
            }
        }
        // Labels that are all empty are none.
        let labels = given
            .context()
            .and_then(|context| context.se_linux_options.as_ref());
        if self.se_linux.is_some() && labels.is_none() {
            set(
                pod,
                &["spec", "securityContext", "seLinuxOptions"],
                json!({}),
            );
        }
        if let Some(sysctls) = array(pod, "/spec/securityContext/sysctls") {
            for name in sysctls
                .iter_mut()
                .filter_map(|sysctl| sysctl.get_mut("name"))
            {
                if let Some(dotted) = name.as_str().map(dotted) {
                    *name = dotted.into();
                }
            }
        }
        if self.volumes.contains(ANY)
            && let Some(volumes) = array(pod, "/spec/volumes")
        {
            volumes.retain(|volume| {
                let has = |field| volume.get(field).is_some_and(|source| !source.is_null());
                KINDS.iter().any(|(field, _)| has(*field))
            });
        }
        Ok(())
    }

    /// Writes what 1.24 filled in and the hardening policies do not, as it would be of no effect or keep the pod
    /// from starting.
    fn fill_what_guards_withhold(&self, pod: &Pod, given: &Container, container: &mut Value) {
        if let GroupRule::MustRunAs(ranges) = &self.group
            && pod.group(given).is_none()
            && pod.user(given).is_none()
        {
            let group = ranges.first.min;
            set(container, &["securityContext", "runAsGroup"], group.into());
        }
        if let UserRule::MustRunAs(ranges) = &self.user
            && ranges.first.min == 0
            && pod.user(given).is_none()
            && pod.non_root(given) == Some(true)
        {
            set(container, &["securityContext", "runAsUser"], 0.into());
        }
        let own = given.context().cloned().unwrap_or_default();
        let adds = given
            .capabilities()
            .map(Capabilities::add)
            .unwrap_or_default();
        if !self.allow_escalation
            && own.allow_privilege_escalation.is_none()
            && own.privileged != Some(true)
            && adds.iter().any(|name| name == "SYS_ADMIN")
        {
            set(
                container,
                &["securityContext", "allowPrivilegeEscalation"],
                false.into(),
            );
        }
    }

    /// Names the capabilities as the PSP does where the container means the same ones.
    fn spell_capabilities(&self, container: &mut Value) {
        let of = |container: &Value, field: &str| -> Vec<String> {
            let names = container.pointer(&format!("/securityContext/capabilities/{field}"));
            let names = names.and_then(Value::as_array).into_iter().flatten();
            names.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let same = |one: &str, other: &str| capability::spelled(one).as_deref() == Some(other);
        let add: Vec<String> = of(container, "add")
            .into_iter()
            .map(|name| {
                let is_listed =
                    self.allowed_capabilities.contains(&name) || self.default_add.contains(&name);
                let default = self.default_add.iter().find(|default| same(default, &name));
                default.filter(|_| !is_listed).cloned().unwrap_or(name)
            })
            .collect();
        let mut drop = of(container, "drop");
        // What the container adds is not dropped, in whatever spelling.
        let dropped: BTreeSet<String> = drop
            .iter()
            .chain(&of(container, "add"))
            .filter_map(|name| capability::spelled(name))
            .collect();
        // What is no name of a capability is in no hardening policy, and no runtime took it.
        drop.extend(self.required_drop.iter().filter_map(|name| {
            let is_dropped = capability::spelled(name).is_none_or(|name| dropped.contains(&name));
            is_dropped.then(|| name.clone())
        }));
        let mut capabilities = Map::new();
        capabilities.insert("add".to_owned(), add.into());
        capabilities.insert("drop".to_owned(), drop.into());
        set(
            container,
            &["securityContext", "capabilities"],
            capabilities.into(),
        );
    }
}

/// Each container's AppArmor profile as an annotation said it, its own or the pod's; empty: none. In the order
/// of [`Pod::containers`].
fn profiles(pod: &Value) -> Vec<String> {
    let at = |place: &Value| place.pointer("/securityContext/appArmorProfile").cloned();
    let of_pod = pod.get("spec").and_then(at);
    let lists = LISTS.map(|list| {
        pod.pointer(&format!("/spec/{list}"))
            .and_then(Value::as_array)
    });
    lists
        .into_iter()
        .flatten()
        .flatten()
        .map(|container| {
            let own = at(container).filter(|profile| !profile.is_null());
            let profile = own.or_else(|| of_pod.clone()).unwrap_or_default();
            serde_json::from_value::<seccomp::Profile>(profile)
                .map(|profile| profile.annotation())
                .unwrap_or_default()
        })
        .collect()
}

/// A sysctl's name with dots, as Kubernetes reads one with slashes: where a slash comes first, the two change
/// places.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.get(first..).is_some_and(|rest| rest.starts_with('/')) => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn array<'a>(pod: &'a mut Value, pointer: &str) -> Option<&'a mut Vec<Value>> {
    pod.pointer_mut(pointer)?.as_array_mut()
}

/// Where today's pods have a field that 1.24 named.
fn today(field: &str, pod: &Pod) -> String {
    let key = field
        .strip_prefix("pod.metadata.annotations[")
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(key) = key {
        if key == seccomp::POD_ANNOTATION {
            return "spec.securityContext.seccompProfile".to_owned();
        }
        let kinds = [
            (seccomp::CONTAINER_ANNOTATION.to_owned(), "seccompProfile"),
            (app_armor::annotation(""), "appArmorProfile"),
        ];
        let named = kinds
            .iter()
            .find_map(|(prefix, name)| Some((key.strip_prefix(prefix.as_str())?, *name)));
        if let Some((container, name)) = named {
            let place = pod
                .containers()
                .find(|place| place.container.name == container);
            if let Some(place) = place {
                return format!(
                    "spec.{}[{}].securityContext.{name}",
                    place.list, place.index
                );
            }
        }
    }
    let field = field.strip_prefix("pod.").unwrap_or(field);
    match field {
        "spec.securityContext.hostNetwork" => "spec.hostNetwork".to_owned(),
        "spec.securityContext.hostPID" => "spec.hostPID".to_owned(),
        "spec.securityContext.hostIPC" => "spec.hostIPC".to_owned(),
        _ => match field.strip_suffix(".hostPort") {
            Some(container) => format!("{container}.ports.hostPort"),
            None => field.replace(".hostPath.pathPrefix", ".hostPath.path"),
        },
    }
}
