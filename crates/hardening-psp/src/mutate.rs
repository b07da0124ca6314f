//! What PodSecurityPolicy filled in (`MutatePod` of 1.24).
//!
//! The steps stand in 1.24's order. Each looks at the pod as it came, because no step's outcome depends on
//! an earlier one but where it says so.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::app_armor;
use crate::pod::{Container, InvalidPod, Place, Pod};
use crate::policy::{GroupRule, Policy, UserRule};
use crate::seccomp;

impl Policy {
    /// Fills in what the PSP's defaults are, as 1.24 did: seccomp and AppArmor as annotations.
    ///
    /// What the PSP has nothing to say about stays as it is, fields that no type knows included.
    ///
    /// # Errors
    ///
    /// Where a field that matters has a value of a type that no pod has there; the pod is then unchanged.
    pub fn mutate(&self, pod: &mut Value) -> Result<(), InvalidPod> {
        let given = Pod::read(pod)?;
        self.mutate_pod_level(&given, pod);
        for place in given.containers() {
            self.mutate_container(&given, place, pod);
        }
        Ok(())
    }

    fn mutate_pod_level(&self, given: &Pod, pod: &mut Value) {
        let context = given.context().cloned().unwrap_or_default();
        let mut fill =
            |field: &str, value: Value| set(pod, &["spec", "securityContext", field], value);
        if let (None, GroupRule::MustRunAs(ranges)) =
            (&context.supplemental_groups, &self.supplemental_groups)
        {
            fill("supplementalGroups", json!([ranges.first.min]));
        }
        if let (None, GroupRule::MustRunAs(ranges)) = (context.fs_group, &self.fs_group) {
            fill("fsGroup", ranges.first.min.into());
        }
        if let (None, Some(options)) = (&context.se_linux_options, &self.se_linux) {
            fill("seLinuxOptions", options.to_json());
        }
        let profile = match context.seccomp_profile {
            Some(profile) => profile.annotation(),
            None => self.seccomp.default.clone(),
        };
        annotate(given, pod, seccomp::POD_ANNOTATION, &profile);
        if let (None, Some(name)) = (given.runtime_class_name(), &self.default_runtime_class) {
            set(pod, &["spec", "runtimeClassName"], name.as_str().into());
        }
    }

    fn mutate_container(&self, given: &Pod, place: Place<'_>, pod: &mut Value) {
        let Place {
            list,
            index,
            container,
        } = place;
        let own = container.context().cloned().unwrap_or_default();
        let key = app_armor::annotation(&container.name);
        annotate(given, pod, &key, &self.default_app_armor);

        let Some(target) = pod.pointer_mut(&format!("/spec/{list}/{index}")) else {
            return;
        };
        let mut fill = |field: &str, value: Value| set(target, &["securityContext", field], value);
        let user = given.user(container);
        if let (None, UserRule::MustRunAs(ranges)) = (user, &self.user) {
            fill("runAsUser", ranges.first.min.into());
        }
        if let (None, GroupRule::MustRunAs(ranges)) = (given.group(container), &self.group) {
            fill("runAsGroup", ranges.first.min.into());
        }
        let says_nothing = given.non_root(container).is_none() && user.is_none();
        if matches!(self.user, UserRule::NonRoot) && says_nothing {
            fill("runAsNonRoot", true.into());
        }
        if let Some(capabilities) = self.capabilities_of(container) {
            fill("capabilities", capabilities);
        }
        if self.read_only_root && own.read_only_root_filesystem.is_none() {
            fill("readOnlyRootFilesystem", true.into());
        }
        if let (None, Some(escalation)) = (own.allow_privilege_escalation, self.default_escalation)
        {
            fill("allowPrivilegeEscalation", escalation.into());
        }
    }

    /// The container's capabilities with the PSP's added; `None` where that changes nothing.
    ///
    /// Names are compared as they are written: `ALL` in `drop` does not cover the others.
    fn capabilities_of(&self, container: &Container) -> Option<Value> {
        let names = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
        let own = container.capabilities();
        let own_add = names(own.map(|own| own.add()).unwrap_or_default());
        let own_drop = names(own.map(|own| own.drop()).unwrap_or_default());
        let defaults = self.default_add.difference(&own_drop).cloned();
        let add: BTreeSet<String> = own_add.iter().cloned().chain(defaults).collect();
        let required = self.required_drop.iter().cloned();
        let drop: BTreeSet<String> = own_drop.iter().cloned().chain(required).collect();
        if add.len() == own_add.len() && drop.len() == own_drop.len() {
            return None;
        }
        let mut capabilities = Map::new();
        for (field, names) in [("add", add), ("drop", drop)] {
            if !names.is_empty() {
                capabilities.insert(field.to_owned(), names.into_iter().collect());
            }
        }
        Some(capabilities.into())
    }
}

/// Writes an annotation unless the pod has one that is not empty, or there is nothing to write.
fn annotate(given: &Pod, pod: &mut Value, key: &str, value: &str) {
    let has_one = given
        .annotation(key)
        .is_some_and(|annotation| !annotation.is_empty());
    if !has_one && !value.is_empty() {
        set(pod, &["metadata", "annotations", key], value.into());
    }
}

/// Sets a field, and makes the objects on the way to it where they are absent or null.
pub(crate) fn set(object: &mut Value, path: &[&str], value: Value) {
    let mut place = object;
    for key in path {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        let Some(fields) = place.as_object_mut() else {
            return;
        };
        place = fields.entry(*key).or_insert(Value::Null);
    }
    *place = value;
}
