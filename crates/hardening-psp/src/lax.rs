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
            && self.has_ports_of(other)
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

    fn has_ports_of(&self, other: &Self) -> bool {
        let mut theirs = other.host_ports.iter();
        theirs.all(|theirs| {
            let mut own = self.host_ports.iter();
            theirs.min > theirs.max
                || own.any(|own| is_within((theirs.min, theirs.max), (own.min, own.max)))
        })
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

fn is_within<T: PartialOrd>((min, max): (T, T), (own_min, own_max): (T, T)) -> bool {
    own_min <= min && max <= own_max
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
            .all(|range| own.iter().any(|own| is_within(*range, *own))),
    }
}

fn is_seccomp_as_lax(own: &seccomp::Rule, theirs: &seccomp::Rule) -> bool {
    own.any || (own.allows("") && !theirs.any && theirs.allowed.iter().all(|one| own.allows(one)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::generate::pair;
    use crate::psp::PodSecurityPolicy;

    fn policy(psp: &Value) -> Option<Policy> {
        Policy::compile(&PodSecurityPolicy::read(psp).unwrap()).ok()
    }

    fn admits(policy: &Policy, pod: &Value) -> Option<Value> {
        let mut mutated = pod.clone();
        policy.mutate(&mut mutated).unwrap();
        let denials = policy.validate(&mutated).unwrap();
        denials.is_empty().then_some(mutated)
    }

    /// A PSP that fills in nothing, and has some of its limits taken away.
    fn opened(psp: &Value, seed: u64) -> Value {
        let mut psp = psp.clone();
        let keys = [
            "seLinux",
            "runAsUser",
            "fsGroup",
            "supplementalGroups",
            "runAsGroup",
        ];
        for key in keys {
            if psp["spec"][key]["rule"] != "MayRunAs" {
                psp["spec"][key] = json!({"rule": "RunAsAny"});
            }
        }
        let spec = psp["spec"].as_object_mut().unwrap();
        for key in [
            "defaultAddCapabilities",
            "requiredDropCapabilities",
            "readOnlyRootFilesystem",
            "defaultAllowPrivilegeEscalation",
            "allowPrivilegeEscalation",
        ] {
            spec.remove(key);
        }
        let optional = [
            "allowedHostPaths",
            "allowedCSIDrivers",
            "runtimeClass",
            "forbiddenSysctls",
        ];
        for (bit, key) in optional.into_iter().enumerate() {
            if seed >> bit & 1 == 0 {
                spec.remove(key);
            }
        }
        if seed >> 4 & 1 == 0 {
            spec.insert("allowedCapabilities".to_owned(), json!(["*"]));
            spec.insert("volumes".to_owned(), json!(["*"]));
        }
        let allowed = ["*", "runtime/default,localhost/a", ""];
        psp["metadata"]["annotations"] = json!({
            "seccomp.security.alpha.kubernetes.io/allowedProfileNames": allowed[(seed % 3) as usize],
        });
        psp
    }

    #[test]
    fn what_supersedes_another_psp_admits_its_pods_as_they_are() {
        let (mut superseded, mut admitted) = (0, 0);
        for seed in 0..20_000 {
            let generated = pair(seed);
            let Some(other) = policy(&generated.psp) else {
                continue;
            };
            let Some(own) = policy(&opened(&generated.psp, seed)) else {
                continue;
            };
            if !own.supersedes(&other) {
                continue;
            }
            superseded += 1;
            for pod in [&generated.pod, &pair(seed + 1).pod] {
                if admits(&other, pod).is_some() {
                    admitted += 1;
                    let mut as_it_was = pod.clone();
                    // With a profile in its field every PSP wrote the annotation that says the same.
                    policy(&opened(&json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy", "spec": {}}), 0))
                        .unwrap()
                        .mutate(&mut as_it_was)
                        .unwrap();
                    let about = format!("seed {seed}\n{pod}\n{}", generated.psp);
                    assert_eq!(admits(&own, pod), Some(as_it_was), "{about}");
                }
            }
        }
        assert!(
            superseded > 1_000 && admitted > 300,
            "{superseded} {admitted}"
        );
    }
}
