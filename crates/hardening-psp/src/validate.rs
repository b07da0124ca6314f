//! What PodSecurityPolicy refused (`ValidatePod` of 1.24), in its order.

use std::fmt;

use serde_json::Value;

use crate::app_armor;
use crate::pod::{InvalidPod, Place, Pod};
use crate::policy::{ANY, GroupRule, Policy, Ranges, UserRule};
use crate::psp::SeLinuxOptions;
use crate::seccomp;
use crate::volumes;

/// What kind of error a denial is, by the API's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DenialType {
    /// The value is not allowed.
    Invalid,
    /// There must be a value.
    Required,
    /// Such a thing may not be set.
    Forbidden,
}

/// A reason why PodSecurityPolicy denied a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What kind of error.
    pub type_: DenialType,
    /// The field, as 1.24 named it, which is not always where it stands in the pod.
    pub field: String,
    /// The value that is refused, and what is allowed.
    pub detail: String,
}

impl DenialType {
    /// The name in the API's error lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::Forbidden => "FieldValueForbidden",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.detail)
    }
}

/// Denials as they come up.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    list: Vec<Denial>,
}

impl Denials {
    pub(crate) fn add(
        &mut self,
        type_: DenialType,
        field: impl Into<String>,
        detail: impl Into<String>,
    ) {
        self.list.push(Denial {
            type_,
            field: field.into(),
            detail: detail.into(),
        });
    }

    pub(crate) fn invalid(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.add(DenialType::Invalid, field, detail);
    }
}

const CONTEXT: &str = "spec.securityContext";

/// Sysctls that need no permission, in 1.24.
pub(crate) const SAFE_SYSCTLS: [&str; 5] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
];

impl Policy {
    /// Why 1.24 would have denied the pod under this PSP; empty: it would not. The pod is one that
    /// [`Policy::mutate`] has been through.
    ///
    /// # Errors
    ///
    /// Where a field that matters has a value of a type that no pod has there.
    pub fn validate(&self, pod: &Value) -> Result<Vec<Denial>, InvalidPod> {
        let pod = Pod::read(pod)?;
        let mut denials = Denials::default();
        self.validate_pod_level(&pod, &mut denials);
        for place in pod.containers() {
            self.validate_container(&pod, place, &mut denials);
        }
        Ok(denials.list)
    }

    fn validate_pod_level(&self, pod: &Pod, denials: &mut Denials) {
        let context = pod.context().cloned().unwrap_or_default();
        let fs_group: Vec<i64> = context.fs_group.into_iter().collect();
        self.fs_group
            .validate(&fs_group, &format!("{CONTEXT}.fsGroup"), denials);
        self.supplemental_groups.validate(
            context.supplemental_groups.as_deref().unwrap_or_default(),
            &format!("{CONTEXT}.supplementalGroups"),
            denials,
        );
        let annotation = format!("pod.metadata.annotations[{}]", seccomp::POD_ANNOTATION);
        self.validate_seccomp(&pod.seccomp(), annotation, denials);
        self.validate_se_linux(
            context.se_linux_options.as_ref(),
            &format!("{CONTEXT}.seLinuxOptions"),
            denials,
        );
        let allowed = [self.host_network, self.host_pid, self.host_ipc];
        for ((name, used), allowed) in pod.host_namespaces().into_iter().zip(allowed) {
            if used && !allowed {
                denials.invalid(format!("{CONTEXT}.{name}"), "true: not allowed");
            }
        }
        self.validate_sysctls(pod, denials);
        volumes::validate(self, pod, denials);
        if let (Some(name), Some(allowed)) = (pod.runtime_class_name(), &self.runtime_classes)
            && !allowed.contains(name)
            && !allowed.contains(ANY)
        {
            let detail = format!("{name}: allowed are {}", names(allowed));
            denials.invalid("spec.runtimeClassName", detail);
        }
    }

    fn validate_sysctls(&self, pod: &Pod, denials: &mut Denials) {
        for (index, sysctl) in pod.sysctls().iter().enumerate() {
            let name = sysctl.name.as_str();
            let matches =
                |patterns: &[String]| patterns.iter().any(|pattern| covers(pattern, name));
            let detail = if matches(&self.forbidden_sysctls) {
                format!("{name}: forbidden by forbiddenSysctls")
            } else if SAFE_SYSCTLS.contains(&name) || matches(&self.allowed_unsafe_sysctls) {
                continue;
            } else {
                format!("{name}: unsafe, and not in allowedUnsafeSysctls")
            };
            let field = format!("pod.spec.securityContext.sysctls[{index}]");
            denials.add(DenialType::Forbidden, field, detail);
        }
    }

    fn validate_container(&self, pod: &Pod, place: Place<'_>, denials: &mut Denials) {
        let Place {
            list,
            index,
            container,
        } = place;
        let path = format!("spec.{list}[{index}]");
        let context = format!("{path}.securityContext");
        let own = container.context().cloned().unwrap_or_default();

        self.validate_user(pod, place, &context, denials);
        let group: Vec<i64> = pod.group(container).into_iter().collect();
        self.group.validate(&group, &context, denials);
        let labels = pod.se_linux(container);
        self.validate_se_linux(labels, &format!("{context}.seLinuxOptions"), denials);
        self.validate_app_armor(pod, &container.name, denials);
        let annotation = format!(
            "pod.metadata.annotations[{}{}]",
            seccomp::CONTAINER_ANNOTATION,
            container.name
        );
        self.validate_seccomp(&pod.container_seccomp(container), annotation, denials);
        if own.privileged == Some(true) && !self.privileged {
            denials.invalid(format!("{context}.privileged"), "true: not allowed");
        }
        let proc_mount = own.proc_mount.as_deref().unwrap_or("Default");
        if !self.proc_mounts.contains(proc_mount) {
            let detail = format!("{proc_mount}: allowed are {}", names(&self.proc_mounts));
            denials.invalid(format!("{context}.procMount"), detail);
        }
        self.validate_capabilities(place, &format!("{context}.capabilities"), denials);
        for port in container.host_ports() {
            let allowed = |range: &crate::psp::HostPortRange| {
                i64::from(range.min) <= port && port <= i64::from(range.max)
            };
            if !self.host_ports.iter().any(allowed) {
                denials.invalid(format!("{path}.hostPort"), format!("{port}: not allowed"));
            }
        }
        if self.read_only_root && own.read_only_root_filesystem != Some(true) {
            denials.invalid(format!("{context}.readOnlyRootFilesystem"), "must be true");
        }
        if !self.allow_escalation && own.allow_privilege_escalation != Some(false) {
            denials.invalid(
                format!("{context}.allowPrivilegeEscalation"),
                "must be false",
            );
        }
    }

    fn validate_user(&self, pod: &Pod, place: Place<'_>, context: &str, denials: &mut Denials) {
        let user = pod.user(place.container);
        let user_field = format!("{context}.runAsUser");
        match (&self.user, user) {
            (UserRule::Any, _) => {}
            (UserRule::MustRunAs(ranges), None) => {
                let detail = format!("must be in {ranges}");
                denials.add(DenialType::Required, user_field, detail);
            }
            (UserRule::MustRunAs(ranges), Some(user)) => {
                if !ranges.contains(user) {
                    denials.invalid(user_field, format!("{user}: must be in {ranges}"));
                }
            }
            (UserRule::NonRoot, user) => {
                let field = format!("{context}.runAsNonRoot");
                match (pod.non_root(place.container), user) {
                    (None, None) => denials.add(DenialType::Required, field, "must be true"),
                    (Some(false), _) => denials.invalid(field, "false: must be true"),
                    (_, Some(0)) => denials.invalid(user_field, "0: root is not allowed"),
                    _ => {}
                }
            }
        }
    }

    fn validate_se_linux(
        &self,
        labels: Option<&SeLinuxOptions>,
        field: &str,
        denials: &mut Denials,
    ) {
        let Some(wanted) = &self.se_linux else {
            return;
        };
        let Some(labels) = labels else {
            denials.add(DenialType::Required, field, "must be set");
            return;
        };
        let pairs = [
            ("level", &labels.level, &wanted.level),
            ("role", &labels.role, &wanted.role),
            ("type", &labels.type_, &wanted.type_),
            ("user", &labels.user, &wanted.user),
        ];
        for (name, label, wanted) in pairs {
            if !(label == wanted || (name == "level" && same_level(label, wanted))) {
                let detail = format!("\"{label}\": must be \"{wanted}\"");
                denials.invalid(format!("{field}.{name}"), detail);
            }
        }
    }

    fn validate_app_armor(&self, pod: &Pod, container: &str, denials: &mut Denials) {
        let Some(rule) = &self.app_armor else {
            return;
        };
        let key = app_armor::annotation(container);
        let profile = pod.annotation(&key).unwrap_or_default();
        let detail = if profile.is_empty() {
            "must be set".to_owned()
        } else if rule.allowed.contains(profile) {
            return;
        } else {
            format!("{profile}: allowed are {}", names(&rule.allowed))
        };
        let field = format!("pod.metadata.annotations[{key}]");
        denials.add(DenialType::Forbidden, field, detail);
    }

    fn validate_seccomp(&self, profile: &str, field: String, denials: &mut Denials) {
        if !self.seccomp.allows(profile) {
            let detail = if self.seccomp.allowed.is_empty() {
                format!("{profile}: no seccomp profile may be set")
            } else {
                format!(
                    "\"{profile}\": allowed are {}",
                    names(&self.seccomp.allowed)
                )
            };
            denials.add(DenialType::Forbidden, field, detail);
        }
    }

    fn validate_capabilities(&self, place: Place<'_>, field: &str, denials: &mut Denials) {
        let Some(own) = place.container.capabilities() else {
            if !self.default_add.is_empty() || !self.required_drop.is_empty() {
                denials.invalid(field, "must be set");
            }
            return;
        };
        if self.allowed_capabilities.contains(ANY) {
            return;
        }
        for name in own.add() {
            if !self.default_add.contains(name) && !self.allowed_capabilities.contains(name) {
                denials.invalid(format!("{field}.add"), format!("{name}: may not be added"));
            }
        }
        for name in &self.required_drop {
            if !own.drop().contains(name) {
                denials.invalid(format!("{field}.drop"), format!("{name}: must be dropped"));
            }
        }
    }
}

impl GroupRule {
    fn validate(&self, groups: &[i64], field: &str, denials: &mut Denials) {
        let ranges: &Ranges = match self {
            Self::Any => return,
            Self::MayRunAs(ranges) => ranges,
            Self::MustRunAs(ranges) => {
                if groups.is_empty() {
                    denials.invalid(field, format!("must be set, in {ranges}"));
                }
                ranges
            }
        };
        for group in groups {
            if !ranges.contains(*group) {
                denials.invalid(field, format!("{group}: must be in {ranges}"));
            }
        }
    }
}

/// Whether a sysctl pattern, a name or a prefix with `*` after it, covers a name.
pub(crate) fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// Levels are the same when their sensitivities are, and their categories in whatever order.
pub(crate) fn same_level(a: &str, b: &str) -> bool {
    let (Some((sensitivity, categories)), Some((other, others))) =
        (a.split_once(':'), b.split_once(':'))
    else {
        return a == b;
    };
    let sorted = |categories: &str| {
        let mut categories: Vec<String> = categories.split(',').map(str::to_owned).collect();
        categories.sort_unstable();
        categories
    };
    sensitivity == other && sorted(categories) == sorted(others)
}

fn names<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}
