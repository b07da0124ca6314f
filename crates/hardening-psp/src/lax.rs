//! Whether one PSP makes no difference beside another: 1.24 preferred the PSP that admitted a pod as it was.

use std::collections::BTreeSet;

use crate::policy::{ANY, GroupRule, Policy, Ranges, UserRule};
use crate::seccomp;

impl Policy {
    /// Whether it leaves every pod as it is.
    pub(crate) fn fills_nothing(&self) -> bool {
        let fills_group = |rule: &GroupRule| matches!(rule, GroupRule::MustRunAs(_));
        matches!(self.user, UserRule::Any)
            && ![&self.group, &self.fs_group, &self.supplemental_groups]
                .into_iter()
                .any(fills_group)
            && self.se_linux.is_none()
            && self.default_escalation.is_none()
            && !self.read_only_root
            && self.default_add.is_empty()
            && self.required_drop.is_empty()
            && self.default_runtime_class.is_none()
            && self.seccomp.default.is_empty()
            && self.default_app_armor.is_empty()
    }

    /// Whether this PSP leaves every pod as it is, and admits so each one that the other admits, whatever that
    /// fills in. It may be so and not be seen: lists and ranges are compared one by one.
    pub(crate) fn supersedes(&self, other: &Self) -> bool {
        let flags = [
            (self.privileged, other.privileged),
            (self.host_network, other.host_network),
            (self.host_pid, other.host_pid),
            (self.host_ipc, other.host_ipc),
        ];
        self.fills_nothing()
            && flags.into_iter().all(|(own, theirs)| own || !theirs)
            && other.host_ports.iter().all(|theirs| {
                let holds = |own: &&_| is_within((theirs.min, theirs.max), own);
                let own: Vec<(i32, i32)> = self
                    .host_ports
                    .iter()
                    .map(|own| (own.min, own.max))
                    .collect();
                theirs.min > theirs.max || own.iter().any(|own| holds(&own))
            })
            && self.has_volumes_of(other)
            && other.proc_mounts.is_subset(&self.proc_mounts)
            && self.has_sysctls_of(other)
            && self.has_capabilities_of(other)
            && is_group_as_lax(&self.group, &other.group)
            && is_group_as_lax(&self.fs_group, &other.fs_group)
            && is_group_as_lax(&self.supplemental_groups, &other.supplemental_groups)
            && match (&self.runtime_classes, &other.runtime_classes) {
                (None, _) => true,
                (Some(own), Some(theirs)) => is_list_as_lax(own, theirs),
                (Some(own), None) => own.contains(ANY),
            }
            && is_seccomp_as_lax(&self.seccomp, &other.seccomp)
            && self.app_armor.is_none()
    }

    fn has_volumes_of(&self, other: &Self) -> bool {
        let uses = |kind: &str| other.volumes.contains(ANY) || other.volumes.contains(kind);
        // Of drivers, an empty list is all.
        let has_drivers = |own: &BTreeSet<String>, theirs: &BTreeSet<String>| {
            own.is_empty() || (!theirs.is_empty() && theirs.is_subset(own))
        };
        let (own, theirs) = (&self.allowed_host_paths, &other.allowed_host_paths);
        let has_paths =
            own.is_empty() || (!theirs.is_empty() && theirs.iter().all(|path| own.contains(path)));
        is_list_as_lax(&self.volumes, &other.volumes)
            && (has_paths || !uses("hostPath"))
            && (has_drivers(&self.allowed_flex_drivers, &other.allowed_flex_drivers)
                || !uses("flexVolume"))
            && (has_drivers(&self.allowed_csi_drivers, &other.allowed_csi_drivers) || !uses("csi"))
    }

    fn has_sysctls_of(&self, other: &Self) -> bool {
        let has = |list: &[String], pattern: &String| list.contains(pattern);
        let any = self.allowed_unsafe_sysctls.iter().any(|one| one == ANY);
        let allowed = &other.allowed_unsafe_sysctls;
        let forbidden = &self.forbidden_sysctls;
        (any || allowed
            .iter()
            .all(|one| has(&self.allowed_unsafe_sysctls, one)))
            && forbidden
                .iter()
                .all(|one| has(&other.forbidden_sysctls, one))
    }

    fn has_capabilities_of(&self, other: &Self) -> bool {
        let theirs = &other.allowed_capabilities | &other.default_add;
        is_list_as_lax(&self.allowed_capabilities, &theirs)
    }
}

fn is_within<T: PartialOrd>((min, max): (T, T), (own_min, own_max): &(T, T)) -> bool {
    *own_min <= min && max <= *own_max
}

fn is_list_as_lax(own: &BTreeSet<String>, theirs: &BTreeSet<String>) -> bool {
    own.contains(ANY) || theirs.is_subset(own)
}

fn is_group_as_lax(own: &GroupRule, theirs: &GroupRule) -> bool {
    let ranges = |rule: &GroupRule| -> Option<Vec<(i64, i64)>> {
        match rule {
            GroupRule::Any => None,
            GroupRule::MayRunAs(Ranges { all, .. }) | GroupRule::MustRunAs(Ranges { all, .. }) => {
                Some(all.iter().map(|range| (range.min, range.max)).collect())
            }
        }
    };
    match (ranges(own), ranges(theirs)) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(own), Some(theirs)) => theirs
            .iter()
            .all(|range| own.iter().any(|own| is_within(*range, own))),
    }
}

fn is_seccomp_as_lax(own: &seccomp::Rule, theirs: &seccomp::Rule) -> bool {
    own.any || (own.allows("") && !theirs.any && theirs.allowed.iter().all(|one| own.allows(one)))
}
