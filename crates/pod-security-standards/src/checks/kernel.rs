//! What a pod does to the kernel's own settings.

use crate::check::Finding;
use crate::evaluation::{Allowed, FieldViolation};
use crate::offenders::Offenders;
use crate::pod::Pod;
use crate::text::quoted;
use crate::version::Version;

/// Sysctls that reach no further than the pod, and since which minor version they are allowed.
const SAFE_SYSCTLS: [(&str, u64); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

/// The sysctls that "baseline" lets pods set in that version.
#[must_use]
pub fn baseline_sysctls(version: Version) -> Vec<&'static str> {
    version.known(&SAFE_SYSCTLS)
}

pub(crate) fn sysctls(pod: &Pod, version: Version) -> Option<Finding> {
    let safe = baseline_sysctls(version);
    let sysctls = pod.context().sysctls.iter().enumerate();
    let unsafe_ones: Vec<(usize, &str)> = sysctls
        .map(|(index, sysctl)| (index, sysctl.name.as_str()))
        .filter(|(_, name)| !safe.contains(name))
        .collect();
    // As often as they are there, and in their order.
    let names: Vec<&str> = unsafe_ones.iter().map(|(_, name)| *name).collect();
    let field = |(index, name): &(usize, &str)| FieldViolation {
        path: format!("spec.securityContext.sysctls[{index}].name"),
        value: Some((*name).into()),
        allowed: Allowed::only(&safe),
    };
    (!names.is_empty()).then(|| Finding {
        reason: "forbidden sysctls",
        detail: names.join(", "),
        fields: unsafe_ones.iter().map(field).collect(),
    })
}

pub(crate) fn proc_mount(pod: &Pod, _: Version) -> Option<Finding> {
    let field = "securityContext.procMount";
    let bad = pod.containers().filter_map(|place| {
        let value = place.context().proc_mount.as_deref()?;
        (value != "Default").then_some((place, value))
    });
    let offenders = Offenders::of(bad, field, &Allowed::unset_or(&["Default"]));
    (!offenders.is_empty()).then(|| Finding {
        reason: "procMount",
        detail: format!(
            "{} must not set {field} to {}",
            offenders.containers(),
            quoted(offenders.values())
        ),
        fields: offenders.fields,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Exemption;
    use crate::checks::support::{check, exempt};

    #[test]
    fn only_safe_sysctls_may_be_set_and_every_version_knows_more() {
        for (name, since) in SAFE_SYSCTLS {
            let spec = format!(r#"{{"securityContext": {{"sysctls": [{{"name": "{name}"}}]}}}}"#);
            check("sysctls", &format!("v1.{since}"), &spec, None);
            check("sysctls", "latest", &spec, None);
            if since > 0 {
                let pod = Pod::from_json(&format!("{{\"spec\": {spec}}}")).unwrap();
                let before = sysctls(&pod, Version::Minor(since - 1)).unwrap();
                assert_eq!(before.detail, name);
            }
        }
    }

    #[test]
    fn other_sysctls_are_told_one_by_one_and_spelled_as_they_are() {
        check(
            "sysctls",
            "v1.26",
            r#"{"securityContext": {"sysctls": [{"name": "vm.max_map_count"}, {"name": "net.ipv4.tcp_syncookies"},
                {"name": "net/ipv4/tcp_syncookies"}, {"name": "vm.max_map_count"}]}}"#,
            Some((
                "forbidden sysctls (vm.max_map_count, net/ipv4/tcp_syncookies, vm.max_map_count)",
                &[
                    r#"spec.securityContext.sysctls[0].name: "vm.max_map_count", must be kernel.shm_rmid_forced, net.ipv4.ip_local_port_range, net.ipv4.ip_unprivileged_port_start, net.ipv4.ping_group_range or net.ipv4.tcp_syncookies"#,
                    r#"spec.securityContext.sysctls[2].name: "net/ipv4/tcp_syncookies", must be kernel.shm_rmid_forced, net.ipv4.ip_local_port_range, net.ipv4.ip_unprivileged_port_start, net.ipv4.ping_group_range or net.ipv4.tcp_syncookies"#,
                    r#"spec.securityContext.sysctls[3].name: "vm.max_map_count", must be kernel.shm_rmid_forced, net.ipv4.ip_local_port_range, net.ipv4.ip_unprivileged_port_start, net.ipv4.ping_group_range or net.ipv4.tcp_syncookies"#,
                ],
            )),
        );
    }

    #[test]
    fn proc_is_masked_except_with_a_user_namespace_at_baseline_since_1_35() {
        let spec = r#"{"containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}},
            {"name": "b", "securityContext": {"procMount": "Default"}}, {"name": "c", "securityContext": {"procMount": ""}}]}"#;
        let expected = Some((
            r#"procMount (containers "a", "c" must not set securityContext.procMount to "", "Unmasked")"#,
            &[
                r#"spec.containers[0].securityContext.procMount: "Unmasked", must be not set or Default"#,
                r#"spec.containers[2].securityContext.procMount: "", must be not set or Default"#,
            ][..],
        ));
        check("procMount", "v1.0", spec, expected);
        check("procMount", "latest", spec, expected);
        check("procMount_restricted", "v1.34", spec, None);
        check("procMount_restricted", "v1.35", spec, expected);
        exempt("procMount", spec, Exemption::UserNamespace, 35);
    }
}
