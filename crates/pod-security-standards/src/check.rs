//! The table of checks.

use std::fmt;

use crate::checks::{host, kernel, privileges, profiles, users, volumes, windows};
use crate::evaluation::{FieldViolation, Violation};
use crate::level::Level;
use crate::pod::Pod;
use crate::version::Version;

/// A check of the standards.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Which one.
    pub id: CheckId,
    /// The level that it came for. What is forbidden at [`Level::Baseline`] is forbidden at
    /// [`Level::Restricted`] too, except for checks in whose place a stricter one stands there.
    pub level: Level,
    /// The first minor version of Kubernetes whose standards have it.
    pub since: u64,
    /// The check of a lower level in whose place it stands.
    pub replaces: Option<CheckId>,
    /// Pods for which it does not count, and since which minor version.
    pub exempt: Option<(Exemption, u64)>,
    find: fn(&Pod, Version) -> Option<Finding>,
}

/// Pods for which some checks do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// Those with `spec.os.name: windows`, for which the API server refuses the fields in question.
    Windows,
    /// Those with `spec.hostUsers: false`, whose root is nobody on the node.
    UserNamespace,
}

/// What a check found.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    pub(crate) fields: Vec<FieldViolation>,
}

macro_rules! check_ids {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// The name of a check, the same as Kubernetes' own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CheckId {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl CheckId {
            /// As Kubernetes' own code names it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

check_ids! {
    /// Privileges may not be escalated, as by set-user-ID programs.
    AllowPrivilegeEscalation = "allowPrivilegeEscalation",
    /// No AppArmor profile may be switched off.
    AppArmorProfile = "appArmorProfile",
    /// No capability may be added that containers do not have by default.
    CapabilitiesBaseline = "capabilities_baseline",
    /// All capabilities must be dropped; only NET_BIND_SERVICE may be added.
    CapabilitiesRestricted = "capabilities_restricted",
    /// Network, processes and IPC of the node may not be shared.
    HostNamespaces = "hostNamespaces",
    /// Nothing of the node's file system may be mounted.
    HostPathVolumes = "hostPathVolumes",
    /// No port of the node may be used.
    HostPorts = "hostPorts",
    /// The kubelet may not be made to call other hosts.
    HostProbesAndHostLifecycle = "hostProbesAndHostLifecycle",
    /// Nothing may be privileged.
    Privileged = "privileged",
    /// What hides parts of /proc must stay.
    ProcMount = "procMount",
    /// The same, for pods with a user namespace of their own too.
    ProcMountRestricted = "procMount_restricted",
    /// Only some kinds of volume may be used.
    RestrictedVolumes = "restrictedVolumes",
    /// It must be said that nothing runs as root.
    RunAsNonRoot = "runAsNonRoot",
    /// No user may be root.
    RunAsUser = "runAsUser",
    /// Only some SELinux types may be set, and neither user nor role.
    SeLinuxOptions = "seLinuxOptions",
    /// Seccomp may not be switched off.
    SeccompProfileBaseline = "seccompProfile_baseline",
    /// A seccomp profile must be set.
    SeccompProfileRestricted = "seccompProfile_restricted",
    /// Only sysctls that reach no further than the pod may be set.
    Sysctls = "sysctls",
    /// Nothing may run as a process of a Windows node.
    WindowsHostProcess = "windowsHostProcess",
}

/// All checks, in the order in which the API server tells of them: those of each level by name.
pub const CHECKS: [Check; 19] = [
    Check::baseline(CheckId::AppArmorProfile, profiles::app_armor),
    Check::baseline(
        CheckId::CapabilitiesBaseline,
        privileges::added_capabilities,
    ),
    Check::baseline(CheckId::HostNamespaces, host::namespaces),
    Check::baseline(CheckId::HostPathVolumes, volumes::host_paths),
    Check::baseline(CheckId::HostPorts, host::ports),
    Check::baseline(CheckId::HostProbesAndHostLifecycle, host::probes).since(34),
    Check::baseline(CheckId::Privileged, privileges::privileged),
    Check::baseline(CheckId::ProcMount, kernel::proc_mount).not_for(Exemption::UserNamespace, 35),
    Check::baseline(CheckId::SeLinuxOptions, profiles::se_linux),
    Check::baseline(CheckId::SeccompProfileBaseline, profiles::seccomp),
    Check::baseline(CheckId::Sysctls, kernel::sysctls),
    Check::baseline(CheckId::WindowsHostProcess, windows::host_process),
    Check::restricted(CheckId::AllowPrivilegeEscalation, privileges::escalation)
        .since(8)
        .not_for(Exemption::Windows, 25),
    Check::restricted(CheckId::CapabilitiesRestricted, privileges::capabilities)
        .since(22)
        .in_place_of(CheckId::CapabilitiesBaseline)
        .not_for(Exemption::Windows, 25),
    Check::restricted(CheckId::ProcMountRestricted, kernel::proc_mount)
        .since(35)
        .in_place_of(CheckId::ProcMount),
    Check::restricted(CheckId::RestrictedVolumes, volumes::kinds)
        .in_place_of(CheckId::HostPathVolumes),
    Check::restricted(CheckId::RunAsNonRoot, users::non_root).not_for(Exemption::UserNamespace, 35),
    Check::restricted(CheckId::RunAsUser, users::root)
        .since(23)
        .not_for(Exemption::UserNamespace, 35),
    Check::restricted(CheckId::SeccompProfileRestricted, profiles::seccomp_set)
        .since(19)
        .in_place_of(CheckId::SeccompProfileBaseline)
        .not_for(Exemption::Windows, 25),
];

// === impl Check ===

impl Check {
    const fn baseline(id: CheckId, find: fn(&Pod, Version) -> Option<Finding>) -> Self {
        Self {
            id,
            level: Level::Baseline,
            since: 0,
            replaces: None,
            exempt: None,
            find,
        }
    }

    const fn restricted(id: CheckId, find: fn(&Pod, Version) -> Option<Finding>) -> Self {
        Self {
            level: Level::Restricted,
            ..Self::baseline(id, find)
        }
    }

    const fn since(self, minor: u64) -> Self {
        Self {
            since: minor,
            ..self
        }
    }

    const fn in_place_of(self, check: CheckId) -> Self {
        Self {
            replaces: Some(check),
            ..self
        }
    }

    const fn not_for(self, exemption: Exemption, minor: u64) -> Self {
        Self {
            exempt: Some((exemption, minor)),
            ..self
        }
    }

    /// Whether a level of a version has the check.
    #[must_use]
    pub fn is_part_of(&self, level: Level, version: Version) -> bool {
        let is_there = |check: &Self| check.level <= level && version.has(check.since);
        let is_replaced = CHECKS
            .iter()
            .any(|other| other.replaces == Some(self.id) && is_there(other));
        is_there(self) && !is_replaced
    }

    /// What the check finds wrong with a pod.
    #[must_use]
    pub fn run(&self, version: Version, pod: &Pod) -> Option<Violation> {
        let is_exempt = self
            .exempt
            .is_some_and(|(exemption, since)| version.has(since) && exemption.covers(pod));
        if is_exempt {
            return None;
        }
        let Finding {
            reason,
            detail,
            fields,
        } = (self.find)(pod, version)?;
        Some(Violation {
            check: self.id,
            reason,
            detail,
            fields,
        })
    }
}

impl Exemption {
    fn covers(self, pod: &Pod) -> bool {
        match self {
            Self::Windows => pod.is_windows(),
            Self::UserNamespace => pod.has_user_namespace(),
        }
    }
}

impl fmt::Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_in_which_the_api_server_tells() {
        let keys: Vec<_> = CHECKS
            .iter()
            .map(|check| (check.level, check.id.name()))
            .collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
    }

    #[test]
    fn a_stricter_check_stands_in_the_place_of_another_at_its_own_level_only() {
        for check in &CHECKS {
            let Some(replaced) = check.replaces else {
                continue;
            };
            let replaced = CHECKS.iter().find(|other| other.id == replaced).unwrap();
            let since = Version::Minor(check.since);
            assert!(replaced.is_part_of(Level::Baseline, since));
            assert!(!replaced.is_part_of(Level::Restricted, since));
            assert!(check.is_part_of(Level::Restricted, since));
            assert!(!check.is_part_of(Level::Baseline, Version::Latest));
            if let Some(before) = check.since.checked_sub(1).map(Version::Minor) {
                assert!(replaced.is_part_of(Level::Restricted, before));
                assert!(!check.is_part_of(Level::Restricted, before));
            }
        }
        assert!(
            CHECKS
                .iter()
                .all(|check| !check.is_part_of(Level::Privileged, Version::Latest))
        );
    }
}
