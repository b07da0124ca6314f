//! A PodSecurityPolicy compiled: the object is what was typed, this is what it meant.
//!
//! Compiling is where 1.24 could fail, and did so silently: a policy that its admission could not build was
//! skipped, and only the log said so.

use std::collections::BTreeSet;
use std::fmt;

use crate::psp::{
    APP_ARMOR_ALLOWED, APP_ARMOR_DEFAULT, AllowedHostPath, HostPortRange, IdRange, IdStrategy,
    Metadata, PodSecurityPolicy, PodSecurityPolicySpec, SECCOMP_ALLOWED, SECCOMP_DEFAULT,
    SeLinuxOptions, SeLinuxStrategy,
};
use crate::seccomp;

/// What stands for "anything" in the lists of a PSP.
pub(crate) const ANY: &str = "*";

/// A reason why a PSP could never be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Unusable {
    /// The field, as `spec.runAsUser.ranges`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A PodSecurityPolicy compiled.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) name: String,
    pub(crate) privileged: bool,
    pub(crate) host_network: bool,
    pub(crate) host_pid: bool,
    pub(crate) host_ipc: bool,
    pub(crate) host_ports: Vec<HostPortRange>,
    pub(crate) volumes: BTreeSet<String>,
    pub(crate) allowed_host_paths: Vec<AllowedHostPath>,
    /// Empty: all.
    pub(crate) allowed_flex_drivers: BTreeSet<String>,
    /// Empty: all.
    pub(crate) allowed_csi_drivers: BTreeSet<String>,
    /// Never empty.
    pub(crate) proc_mounts: BTreeSet<String>,
    pub(crate) allowed_unsafe_sysctls: Vec<String>,
    pub(crate) forbidden_sysctls: Vec<String>,
    pub(crate) default_add: BTreeSet<String>,
    pub(crate) required_drop: Vec<String>,
    pub(crate) allowed_capabilities: BTreeSet<String>,
    /// What is filled in where a container says nothing.
    pub(crate) default_escalation: Option<bool>,
    pub(crate) allow_escalation: bool,
    pub(crate) read_only_root: bool,
    pub(crate) user: UserRule,
    pub(crate) group: GroupRule,
    pub(crate) fs_group: GroupRule,
    pub(crate) supplemental_groups: GroupRule,
    /// `None`: anything.
    pub(crate) se_linux: Option<SeLinuxOptions>,
    pub(crate) default_runtime_class: Option<String>,
    /// `None`: any RuntimeClass.
    pub(crate) runtime_classes: Option<BTreeSet<String>>,
    pub(crate) seccomp: seccomp::Rule,
    /// Empty: none.
    pub(crate) default_app_armor: String,
    /// `None`: any profile.
    pub(crate) app_armor: Option<AppArmorRule>,
}

/// The AppArmor profiles that containers may have.
#[derive(Clone, Debug)]
pub(crate) struct AppArmorRule {
    pub(crate) allowed: BTreeSet<String>,
}

/// At least one range of ids.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    pub(crate) first: IdRange,
    pub(crate) all: Vec<IdRange>,
}

/// Who containers may run as.
#[derive(Clone, Debug)]
pub(crate) enum UserRule {
    Any,
    NonRoot,
    MustRunAs(Ranges),
}

/// Which groups they may have.
#[derive(Clone, Debug)]
pub(crate) enum GroupRule {
    Any,
    MayRunAs(Ranges),
    MustRunAs(Ranges),
}

// === impl Policy ===

impl Policy {
    /// Compiles a PSP.
    ///
    /// # Errors
    ///
    /// With every reason why 1.24's admission could not use it.
    pub fn compile(object: &PodSecurityPolicy) -> Result<Self, Vec<Unusable>> {
        let PodSecurityPolicy {
            metadata: Metadata { name, annotations },
            spec,
        } = object;
        let PodSecurityPolicySpec {
            privileged,
            default_add_capabilities,
            required_drop_capabilities,
            allowed_capabilities,
            volumes,
            host_network,
            host_ports,
            host_pid,
            host_ipc,
            se_linux,
            run_as_user,
            run_as_group,
            supplemental_groups,
            fs_group,
            read_only_root_filesystem,
            default_allow_privilege_escalation,
            allow_privilege_escalation,
            allowed_host_paths,
            allowed_flex_volumes,
            allowed_csi_drivers,
            allowed_unsafe_sysctls,
            forbidden_sysctls,
            allowed_proc_mount_types,
            runtime_class,
        } = spec;
        let mut unusable = Vec::new();
        let user = user_rule(run_as_user, &mut unusable);
        let group = match run_as_group {
            Some(strategy) => group_rule("spec.runAsGroup", strategy, &mut unusable),
            None => GroupRule::Any,
        };
        let se_linux = se_linux_rule(se_linux, &mut unusable);
        let fs_group = group_rule("spec.fsGroup", fs_group, &mut unusable);
        let supplemental_groups = group_rule(
            "spec.supplementalGroups",
            supplemental_groups,
            &mut unusable,
        );
        if !unusable.is_empty() {
            return Err(unusable);
        }

        let annotation = |key: &str| annotations.get(key).map(String::as_str);
        let allow_escalation = allow_privilege_escalation.unwrap_or(true);
        let forbidden = (!allow_escalation).then_some(false);
        Ok(Self {
            name: name.clone(),
            privileged: *privileged,
            host_network: *host_network,
            host_pid: *host_pid,
            host_ipc: *host_ipc,
            host_ports: host_ports.clone(),
            volumes: set(volumes),
            allowed_host_paths: allowed_host_paths.clone(),
            allowed_flex_drivers: allowed_flex_volumes
                .iter()
                .map(|volume| volume.driver.clone())
                .collect(),
            allowed_csi_drivers: allowed_csi_drivers
                .iter()
                .map(|driver| driver.name.clone())
                .collect(),
            proc_mounts: match allowed_proc_mount_types.is_empty() {
                true => BTreeSet::from(["Default".to_owned()]),
                false => set(allowed_proc_mount_types),
            },
            allowed_unsafe_sysctls: allowed_unsafe_sysctls.clone(),
            forbidden_sysctls: forbidden_sysctls.clone(),
            default_add: set(default_add_capabilities),
            required_drop: required_drop_capabilities.clone(),
            allowed_capabilities: set(allowed_capabilities),
            default_escalation: default_allow_privilege_escalation.or(forbidden),
            allow_escalation,
            read_only_root: *read_only_root_filesystem,
            user,
            group,
            fs_group,
            supplemental_groups,
            se_linux,
            default_runtime_class: runtime_class
                .as_ref()
                .and_then(|class| class.default_runtime_class_name.clone()),
            runtime_classes: runtime_class
                .as_ref()
                .map(|class| set(&class.allowed_runtime_class_names)),
            seccomp: seccomp::Rule::new(annotation(SECCOMP_DEFAULT), annotation(SECCOMP_ALLOWED)),
            default_app_armor: annotation(APP_ARMOR_DEFAULT).unwrap_or_default().to_owned(),
            app_armor: annotation(APP_ARMOR_ALLOWED).map(|allowed| AppArmorRule {
                allowed: allowed.split(',').map(str::to_owned).collect(),
            }),
        })
    }

    /// The PSP's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn set(names: &[String]) -> BTreeSet<String> {
    names.iter().cloned().collect()
}

fn user_rule(strategy: &IdStrategy, unusable: &mut Vec<Unusable>) -> UserRule {
    match strategy.rule.as_str() {
        "RunAsAny" => UserRule::Any,
        "MustRunAsNonRoot" => UserRule::NonRoot,
        "MustRunAs" => match ranges("spec.runAsUser", strategy, unusable) {
            Some(ranges) => UserRule::MustRunAs(ranges),
            None => UserRule::Any,
        },
        _ => {
            let known = "RunAsAny, MustRunAs, MustRunAsNonRoot";
            unusable.push(unknown_rule("spec.runAsUser", &strategy.rule, known));
            UserRule::Any
        }
    }
}

fn group_rule(field: &str, strategy: &IdStrategy, unusable: &mut Vec<Unusable>) -> GroupRule {
    let rule = match strategy.rule.as_str() {
        "RunAsAny" => None,
        "MayRunAs" => ranges(field, strategy, unusable).map(GroupRule::MayRunAs),
        "MustRunAs" => ranges(field, strategy, unusable).map(GroupRule::MustRunAs),
        _ => {
            let known = "RunAsAny, MayRunAs, MustRunAs";
            unusable.push(unknown_rule(field, &strategy.rule, known));
            None
        }
    };
    rule.unwrap_or(GroupRule::Any)
}

fn ranges(field: &str, strategy: &IdStrategy, unusable: &mut Vec<Unusable>) -> Option<Ranges> {
    let first = strategy.ranges.first().copied();
    if first.is_none() {
        unusable.push(Unusable {
            field: format!("{field}.ranges"),
            reason: format!("rule {} needs at least one range", strategy.rule),
        });
    }
    first.map(|first| Ranges {
        first,
        all: strategy.ranges.clone(),
    })
}

fn se_linux_rule(
    strategy: &SeLinuxStrategy,
    unusable: &mut Vec<Unusable>,
) -> Option<SeLinuxOptions> {
    match (strategy.rule.as_str(), &strategy.se_linux_options) {
        ("RunAsAny", _) => None,
        ("MustRunAs", Some(options)) => Some(options.clone()),
        ("MustRunAs", None) => {
            unusable.push(Unusable {
                field: "spec.seLinux.seLinuxOptions".to_owned(),
                reason: "rule MustRunAs needs the options".to_owned(),
            });
            None
        }
        (rule, _) => {
            unusable.push(unknown_rule("spec.seLinux", rule, "RunAsAny, MustRunAs"));
            None
        }
    }
}

fn unknown_rule(field: &str, rule: &str, known: &str) -> Unusable {
    Unusable {
        field: format!("{field}.rule"),
        reason: match rule {
            "" => format!("missing; it is one of {known}"),
            rule => format!("unknown rule {rule}; it is one of {known}"),
        },
    }
}

// === impl Ranges ===

impl Ranges {
    pub(crate) fn contains(&self, id: i64) -> bool {
        self.all
            .iter()
            .any(|range| range.min <= id && id <= range.max)
    }
}

/// `1-9, 100`
impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, IdRange { min, max }) in self.all.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            if min == max {
                write!(f, "{comma}{min}")?;
            } else {
                write!(f, "{comma}{min}-{max}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(change: &Value, expected: &[&str]) {
        let mut object = json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy", "spec": {
            "runAsUser": {"rule": "RunAsAny"}, "seLinux": {"rule": "RunAsAny"},
            "fsGroup": {"rule": "RunAsAny"}, "supplementalGroups": {"rule": "RunAsAny"}}});
        for (key, value) in change.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        let reasons = match Policy::compile(&PodSecurityPolicy::read(&object).unwrap()) {
            Ok(_) => Vec::new(),
            Err(reasons) => reasons.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(reasons, expected, "{change}");
    }

    #[test]
    fn a_psp_that_could_never_be_used_is_refused_with_every_reason() {
        check(&json!({}), &[]);
        check(
            &json!({"runAsUser": {"rule": "MustRunAs"}}),
            &["spec.runAsUser.ranges: rule MustRunAs needs at least one range"],
        );
        check(
            &json!({"fsGroup": {"rule": "MayRunAs"}, "supplementalGroups": {"rule": "MustRunAs", "ranges": []}}),
            &[
                "spec.fsGroup.ranges: rule MayRunAs needs at least one range",
                "spec.supplementalGroups.ranges: rule MustRunAs needs at least one range",
            ],
        );
        check(
            &json!({"runAsGroup": {}}),
            &["spec.runAsGroup.rule: missing; it is one of RunAsAny, MayRunAs, MustRunAs"],
        );
        check(
            &json!({"seLinux": {"rule": "MustRunAs"}}),
            &["spec.seLinux.seLinuxOptions: rule MustRunAs needs the options"],
        );
        check(
            &json!({"runAsUser": {"rule": "MayRunAs", "ranges": [{"min": 1, "max": 2}]}}),
            &[
                "spec.runAsUser.rule: unknown rule MayRunAs; it is one of RunAsAny, MustRunAs, MustRunAsNonRoot",
            ],
        );
    }
}
