//! What 1.24's API server refused to store, as far as the spec and the profile annotations go.
//!
//! A PSP that breaks one of these rules was never in a cluster of 1.24. Tests hold this against 1.24's own
//! validation.

use crate::policy::{ANY, Unusable};
use crate::psp::{
    APP_ARMOR_ALLOWED, APP_ARMOR_DEFAULT, IdRange, IdStrategy, PodSecurityPolicy,
    PodSecurityPolicySpec, RuntimeClassStrategy, SECCOMP_ALLOWED, SECCOMP_DEFAULT,
};
use crate::volumes;

/// The violations, with their fields. Rules without ranges are not here but with the reasons why a policy
/// cannot be compiled.
pub(crate) fn violations(psp: &PodSecurityPolicy) -> Vec<Unusable> {
    let mut found = Violations::default();
    found.annotations(psp);
    found.spec(&psp.spec);
    found.list
}

/// What is wrong with a PSP's name, which other objects are named after.
pub(crate) fn name(name: &str) -> Option<Unusable> {
    let reason = match name.is_empty() {
        true => "is required".to_owned(),
        false => format!("{name} is no name of an object"),
    };
    (!is_name(name)).then(|| Unusable {
        field: "metadata.name".to_owned(),
        reason,
    })
}

/// Whether the API server takes a name of an object; namespaces and service accounts too have such names.
pub(crate) fn is_name(name: &str) -> bool {
    let is_inner = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
    let is_label = |label: &str| {
        !label.is_empty()
            && label.chars().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

#[derive(Default)]
struct Violations {
    list: Vec<Unusable>,
}

impl Violations {
    fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.list.push(Unusable {
            field: field.into(),
            reason: reason.into(),
        });
    }

    fn add_unless(&mut self, holds: bool, field: impl Into<String>, reason: impl Into<String>) {
        if !holds {
            self.add(field, reason);
        }
    }

    fn annotations(&mut self, psp: &PodSecurityPolicy) {
        for (key, is_list, is_valid) in [
            (APP_ARMOR_DEFAULT, false, is_app_armor as fn(&str) -> bool),
            (APP_ARMOR_ALLOWED, true, is_app_armor),
            (SECCOMP_DEFAULT, false, is_seccomp),
            (SECCOMP_ALLOWED, true, |one| one == ANY || is_seccomp(one)),
        ] {
            let text = psp
                .metadata
                .annotations
                .get(key)
                .filter(|text| !text.is_empty());
            let Some(text) = text else {
                continue;
            };
            let profiles: Vec<&str> = match is_list {
                true => text.split(',').collect(),
                false => vec![text],
            };
            for profile in profiles.into_iter().filter(|profile| !is_valid(profile)) {
                let field = format!("metadata.annotations[{key}]");
                self.add(field, format!("\"{profile}\" is no profile"));
            }
        }
    }

    fn spec(&mut self, spec: &PodSecurityPolicySpec) {
        self.ranges("spec.runAsUser", &spec.run_as_user);
        if let Some(group) = &spec.run_as_group {
            if group.rule == "RunAsAny" && !group.ranges.is_empty() {
                self.add("spec.runAsGroup.ranges", "must be empty with rule RunAsAny");
            } else {
                self.ranges("spec.runAsGroup", group);
            }
        }
        self.ranges("spec.fsGroup", &spec.fs_group);
        self.ranges("spec.supplementalGroups", &spec.supplemental_groups);
        self.volumes(spec);
        self.capabilities(spec);
        let contradicts = spec.default_allow_privilege_escalation == Some(true)
            && spec.allow_privilege_escalation == Some(false);
        self.add_unless(
            !contradicts,
            "spec.defaultAllowPrivilegeEscalation",
            "must not be true where allowPrivilegeEscalation is false",
        );
        for (index, mount) in spec.allowed_proc_mount_types.iter().enumerate() {
            let field = format!("spec.allowedProcMountTypes[{index}]");
            let known = mount == "Default" || mount == "Unmasked";
            self.add_unless(known, field, "must be Default or Unmasked");
        }
        self.sysctls("spec.allowedUnsafeSysctls", &spec.allowed_unsafe_sysctls);
        self.sysctls("spec.forbiddenSysctls", &spec.forbidden_sysctls);
        for (index, allowed) in spec.allowed_unsafe_sysctls.iter().enumerate() {
            for forbidden in spec
                .forbidden_sysctls
                .iter()
                .filter(|one| overlap(allowed, one))
            {
                let field = format!("spec.allowedUnsafeSysctls[{index}]");
                self.add(
                    field,
                    format!("{allowed} overlaps with the forbidden {forbidden}"),
                );
            }
        }
        if let Some(class) = &spec.runtime_class {
            self.runtime_class(class);
        }
    }

    fn ranges(&mut self, field: &str, strategy: &IdStrategy) {
        for (index, IdRange { min, max }) in strategy.ranges.iter().enumerate() {
            let field = format!("{field}.ranges[{index}]");
            if *min < 0 || *max < 0 {
                self.add(field, format!("{min} to {max}: must not be negative"));
            } else if min > max {
                self.add(field, format!("min {min} is greater than max {max}"));
            }
        }
    }

    fn volumes(&mut self, spec: &PodSecurityPolicySpec) {
        for (index, kind) in spec.volumes.iter().enumerate() {
            let known = kind == ANY || volumes::KINDS.iter().any(|(_, name)| name == kind);
            let field = format!("spec.volumes[{index}]");
            self.add_unless(known, field, format!("{kind} is no kind of volume"));
        }
        for (index, path) in spec.allowed_host_paths.iter().enumerate() {
            let field = format!("spec.allowedHostPaths[{index}].pathPrefix");
            self.add_unless(!path.path_prefix.is_empty(), field.as_str(), "must be set");
            let climbs = path.path_prefix.split('/').any(|segment| segment == "..");
            self.add_unless(!climbs, field, "must not contain '..'");
        }
        for (index, volume) in spec.allowed_flex_volumes.iter().enumerate() {
            let field = format!("spec.allowedFlexVolumes[{index}].driver");
            self.add_unless(!volume.driver.is_empty(), field, "must be set");
        }
        for (index, driver) in spec.allowed_csi_drivers.iter().enumerate() {
            let field = format!("spec.allowedCSIDrivers[{index}].name");
            let valid = driver.name.len() <= 63 && is_subdomain(&driver.name.to_lowercase());
            self.add_unless(valid, field, "must be a CSI driver's name");
        }
    }

    fn capabilities(&mut self, spec: &PodSecurityPolicySpec) {
        let required = &spec.required_drop_capabilities;
        if !required.is_empty() && spec.allowed_capabilities.iter().any(|name| name == ANY) {
            self.add(
                "spec.requiredDropCapabilities",
                "must be empty where allowedCapabilities has *",
            );
        }
        for (field, names) in [
            (
                "spec.defaultAddCapabilities",
                &spec.default_add_capabilities,
            ),
            ("spec.allowedCapabilities", &spec.allowed_capabilities),
        ] {
            for name in names.iter().filter(|name| required.contains(name)) {
                self.add(field, format!("{name} is in requiredDropCapabilities too"));
            }
        }
    }

    fn sysctls(&mut self, field: &str, patterns: &[String]) {
        for (index, pattern) in patterns.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let valid = is_sysctl_pattern(pattern);
            self.add_unless(
                valid,
                field,
                format!("\"{pattern}\" is no sysctl's name or pattern"),
            );
        }
        let all = patterns.iter().any(|pattern| pattern.starts_with('*'));
        self.add_unless(!all || patterns.len() == 1, field, "* must stand alone");
    }

    fn runtime_class(&mut self, class: &RuntimeClassStrategy) {
        let field = "spec.runtimeClass.allowedRuntimeClassNames";
        let allowed = &class.allowed_runtime_class_names;
        for (index, name) in allowed.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let valid = name == ANY || is_subdomain(name);
            self.add_unless(
                valid,
                field.as_str(),
                format!("\"{name}\" is no RuntimeClass's name"),
            );
            let repeated = allowed.iter().take(index).any(|other| other == name);
            self.add_unless(!repeated, field, format!("{name} is there twice"));
        }
        let any = allowed.iter().any(|name| name == ANY);
        self.add_unless(!any || allowed.len() == 1, field, "* must stand alone");
        if let Some(name) = &class.default_runtime_class_name {
            let own = "spec.runtimeClass.defaultRuntimeClassName";
            let valid = is_subdomain(name);
            self.add_unless(valid, own, format!("\"{name}\" is no RuntimeClass's name"));
            let listed = any || allowed.contains(name);
            self.add_unless(listed, field, format!("must have the default, {name}"));
        }
    }
}

fn is_app_armor(profile: &str) -> bool {
    matches!(profile, "" | "runtime/default" | "unconfined") || profile.starts_with("localhost/")
}

fn is_seccomp(profile: &str) -> bool {
    matches!(profile, "runtime/default" | "docker/default" | "unconfined")
        || profile.strip_prefix("localhost/").is_some_and(|path| {
            !path.starts_with('/') && path.split('/').all(|segment| segment != "..")
        })
}

/// `kernel.msg*`: segments with dots between, the last of which may end in `*`.
fn is_sysctl_pattern(pattern: &str) -> bool {
    const LONGEST: usize = 253;
    let inner = |c: char| c == '-' || c == '_' || is_alphanumeric(c);
    let (before, last) = pattern
        .rsplit_once('.')
        .map_or((None, pattern), |(before, last)| (Some(before), last));
    let segment = |text: &str| {
        text.starts_with(is_alphanumeric)
            && text.ends_with(is_alphanumeric)
            && text.chars().all(inner)
    };
    let tail = match last.strip_suffix('*') {
        Some("") => true,
        Some(head) => head.starts_with(is_alphanumeric) && head.chars().all(inner),
        None => segment(last),
    };
    pattern.len() <= LONGEST && tail && before.is_none_or(|before| before.split('.').all(segment))
}

/// A DNS subdomain, as most names of objects are.
fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        label.starts_with(is_alphanumeric)
            && label.ends_with(is_alphanumeric)
            && label.chars().all(|c| c == '-' || is_alphanumeric(c))
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn is_alphanumeric(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn overlap(a: &str, b: &str) -> bool {
    match (a.strip_suffix('*'), b.strip_suffix('*')) {
        (Some(a), Some(b)) => a.starts_with(b) || b.starts_with(a),
        (Some(a), None) => b.starts_with(a),
        (None, Some(b)) => a.starts_with(b),
        (None, None) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_patterns_are_told_from_other_text() {
        for (pattern, expected) in [
            ("*", true),
            ("kernel.*", true),
            ("kernel.msg*", true),
            ("net.core.somaxconn", true),
            ("net.ipv4.tcp_tw_reuse", true),
            ("", false),
            ("kernel.", false),
            ("kernel.*.x", false),
            ("kernel._x", false),
            ("Kernel.x", false),
            ("net/core", false),
        ] {
            assert_eq!(is_sysctl_pattern(pattern), expected, "{pattern}");
        }
    }
}
