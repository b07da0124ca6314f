//! The strictest Pod Security Standard that a PSP is at least as strict as.
//!
//! A PSP is as strict as a level when every pod that it admitted, hardened by what it is converted to, passes
//! that level. What a PSP leaves open against a level is an [`Obstacle`], by the PSP's field. A few shapes of
//! pod no PSP could refuse, whatever its fields, and a level does: each is a [`Gap`](crate::Gap), which a pod shows.
//!
//! Levels are those of [`VERSION`]. From v1.34 on they also refuse hosts in probes, which no PSP could; else
//! they have only become laxer.

use std::fmt;

pub use pod_security_standards::Level;
use pod_security_standards::{
    BASELINE_CAPABILITIES, Version, baseline_se_linux_types, baseline_sysctls,
};

use crate::policy::{ANY, Policy, UserRule};
use crate::psp::{APP_ARMOR_ALLOWED, SECCOMP_ALLOWED};
use crate::seccomp;

/// The version of the levels that a PSP is held against: the last before hosts in probes were refused.
pub const VERSION: &str = "v1.33";
/// The same, for `pod-security-standards`.
const STANDARDS: Version = Version::Minor(33);

/// What a PSP leaves open, and a level refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The laxest level that refuses it; stricter ones do too.
    pub level: Level,
    /// The PSP's field, as `spec.hostPorts`.
    pub field: String,
    /// What the PSP allows, and the level does not.
    pub why: String,
}

/// How a PSP stands against the levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it leaves open, laxest level first.
    pub obstacles: Vec<Obstacle>,
}

// === impl Standing ===

impl Standing {
    /// The strictest level that nothing stands in the way of.
    #[must_use]
    pub fn level(&self) -> Level {
        let open = |level: &Level| self.obstacles.iter().all(|one| one.level > *level);
        let reached = Level::ALL.into_iter().rev().find(open);
        reached.unwrap_or(Level::Privileged)
    }

    /// What stands in the way of a level.
    pub fn in_the_way_of(&self, level: Level) -> impl Iterator<Item = &Obstacle> {
        self.obstacles.iter().filter(move |one| one.level <= level)
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

// === impl Policy ===

/// The one capability that "restricted" lets containers add.
const RESTRICTED_CAPABILITY: &str = "NET_BIND_SERVICE";

const HOST_PATH: &str = "hostPath";

/// Kinds of volume that "restricted" allows, by their names in a PSP.
const RESTRICTED_VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

impl Policy {
    /// How the PSP stands against the Pod Security Standards.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let mut found = Obstacles::default();
        self.host(&mut found);
        self.against_capabilities(&mut found);
        self.against_volumes(&mut found);
        self.against_profiles(&mut found);
        self.against_labels(&mut found);
        self.against_users(&mut found);
        found.list.sort_by_key(|one| one.level);
        Standing {
            obstacles: found.list,
        }
    }

    /// What of the host pods may use: its namespaces, its ports, its kernel.
    fn host(&self, found: &mut Obstacles) {
        // A Windows HostProcess container needs hostNetwork, so that the PSP refused it with that.
        for (field, allowed) in [
            ("spec.privileged", self.privileged),
            ("spec.hostNetwork", self.host_network),
            ("spec.hostPID", self.host_pid),
            ("spec.hostIPC", self.host_ipc),
        ] {
            if allowed {
                found.baseline(field, "allowed by the PSP");
            }
        }
        let ports = self.host_ports.iter();
        for range in ports.filter(|range| range.min <= range.max) {
            if range.max >= 1 && range.min <= i32::from(u16::MAX) {
                let why = format!("host ports {}-{} are allowed", range.min, range.max);
                found.baseline("spec.hostPorts", why);
            }
        }
        let patterns = self.allowed_unsafe_sysctls.iter();
        let known = baseline_sysctls(STANDARDS);
        let others = patterns.filter(|pattern| !known.contains(&pattern.as_str()));
        found.names(Level::Baseline, "spec.allowedUnsafeSysctls", others);
        let mounts = self.proc_mounts.iter().filter(|mount| *mount != "Default");
        found.names(Level::Baseline, "spec.allowedProcMountTypes", mounts);
    }

    fn against_capabilities(&self, found: &mut Obstacles) {
        for (field, names) in [
            ("spec.allowedCapabilities", &self.allowed_capabilities),
            ("spec.defaultAddCapabilities", &self.default_add),
        ] {
            let is_baseline = |name: &&String| BASELINE_CAPABILITIES.contains(&name.as_str());
            let above = names.iter().filter(|name| !is_baseline(name));
            found.names(Level::Baseline, field, above);
            let rest = names.iter().filter(is_baseline);
            let above = rest.filter(|name| *name != RESTRICTED_CAPABILITY);
            found.names(Level::Restricted, field, above);
        }
        if !self.required_drop.iter().any(|name| name == "ALL") {
            let field = "spec.requiredDropCapabilities";
            found.restricted(field, "containers need not drop ALL");
        }
    }

    fn against_volumes(&self, found: &mut Obstacles) {
        let field = "spec.volumes";
        let is_path = |kind: &&String| *kind == HOST_PATH || *kind == ANY;
        found.names(Level::Baseline, field, self.volumes.iter().filter(is_path));
        let others = self
            .volumes
            .iter()
            .filter(|kind| !is_path(kind) && !RESTRICTED_VOLUMES.contains(&kind.as_str()));
        found.names(Level::Restricted, field, others);
    }

    fn against_profiles(&self, found: &mut Obstacles) {
        let field = format!("metadata.annotations[{SECCOMP_ALLOWED}]");
        let allows = |profile: &str| self.seccomp.any || self.seccomp.allowed.contains(profile);
        if allows(seccomp::UNCONFINED) {
            found.baseline(&field, "pods may be unconfined");
        } else if self.seccomp.allows("") {
            found.restricted(&field, "pods need no seccomp profile");
        }
        let unconfined =
            |allowed: &crate::policy::AppArmorRule| allowed.allowed.contains(seccomp::UNCONFINED);
        if self.app_armor.as_ref().is_none_or(unconfined) {
            let field = format!("metadata.annotations[{APP_ARMOR_ALLOWED}]");
            found.baseline(&field, "containers may be unconfined");
        }
    }

    fn against_labels(&self, found: &mut Obstacles) {
        let Some(labels) = &self.se_linux else {
            found.baseline("spec.seLinux.rule", "any labels are allowed");
            return;
        };
        let field = "spec.seLinux.seLinuxOptions";
        let type_ = labels.type_.as_str();
        if !type_.is_empty() && !baseline_se_linux_types(STANDARDS).contains(&type_) {
            found.baseline(format!("{field}.type"), format!("{type_} is set"));
        }
        for (name, label) in [("user", &labels.user), ("role", &labels.role)] {
            if !label.is_empty() {
                found.baseline(format!("{field}.{name}"), format!("{label} is set"));
            }
        }
    }

    fn against_users(&self, found: &mut Obstacles) {
        if self.allow_escalation {
            let field = "spec.allowPrivilegeEscalation";
            found.restricted(field, "containers may escalate");
        }
        let field = "spec.runAsUser.rule";
        match &self.user {
            UserRule::Any => found.restricted(field, "containers may run as root"),
            UserRule::MustRunAs(ranges) if ranges.contains(0) => {
                found.restricted(field, "containers may run as root");
            }
            UserRule::MustRunAs(_) => found.restricted(
                field,
                "the level asks for runAsNonRoot: true even where the user is not root, and only MustRunAsNonRoot is converted to it",
            ),
            UserRule::NonRoot => {}
        }
    }
}

#[derive(Debug, Default)]
struct Obstacles {
    list: Vec<Obstacle>,
}

impl Obstacles {
    fn add(&mut self, level: Level, field: impl Into<String>, why: impl Into<String>) {
        self.list.push(Obstacle {
            level,
            field: field.into(),
            why: why.into(),
        });
    }

    fn baseline(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.add(Level::Baseline, field, why);
    }

    fn restricted(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.add(Level::Restricted, field, why);
    }

    /// That a list allows these, if they are any.
    fn names<'a>(&mut self, level: Level, field: &str, names: impl Iterator<Item = &'a String>) {
        let names: Vec<&str> = names.map(String::as_str).collect();
        if !names.is_empty() {
            self.add(level, field, format!("allowed: {}", names.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_same_for_labels_and_for_the_standards() {
        assert_eq!(STANDARDS.to_string(), VERSION);
    }

    #[test]
    fn a_policy_reaches_the_strictest_level_that_is_free_of_obstacles() {
        use Level::{Baseline, Privileged, Restricted};
        for (levels, expected) in [
            (vec![], Restricted),
            (vec![Restricted], Baseline),
            (vec![Baseline], Privileged),
            (vec![Baseline, Restricted], Privileged),
        ] {
            let obstacles = levels.iter().map(|level| Obstacle {
                level: *level,
                field: "spec".to_owned(),
                why: String::new(),
            });
            let standing = Standing {
                obstacles: obstacles.collect(),
            };
            assert_eq!(standing.level(), expected, "{levels:?}");
            let count = standing.in_the_way_of(Restricted).count();
            assert_eq!(count, levels.len(), "{levels:?}");
            assert_eq!(standing.in_the_way_of(Privileged).count(), 0, "{levels:?}");
        }
    }
}
