//! Privileges, and the capabilities that they are made of.

use crate::check::Finding;
use crate::evaluation::Allowed;
use crate::offenders::Offenders;
use crate::pod::Pod;
use crate::text::quoted;
use crate::version::Version;

/// The capabilities that "baseline" lets containers add: what they have by default, but for NET_RAW.
pub const BASELINE_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub(crate) fn privileged(pod: &Pod, _: Version) -> Option<Finding> {
    let field = "securityContext.privileged";
    let bad = pod
        .containers()
        .filter(|place| place.context().privileged == Some(true))
        .map(|place| (place, true));
    let offenders = Offenders::of(bad, field, &Allowed::unset_or(&["false"]));
    (!offenders.is_empty()).then(|| Finding {
        reason: "privileged",
        detail: format!("{} must not set {field}=true", offenders.containers()),
        fields: offenders.fields,
    })
}

pub(crate) fn escalation(pod: &Pod, _: Version) -> Option<Finding> {
    let field = "securityContext.allowPrivilegeEscalation";
    let allowed = Allowed::only(&["false"]);
    let mut offenders = Offenders::default();
    for place in pod.containers() {
        let value = place.context().allow_privilege_escalation;
        if value != Some(false) {
            offenders.add(place, field, value.map(Into::into), &allowed);
        }
    }
    (!offenders.is_empty()).then(|| Finding {
        reason: "allowPrivilegeEscalation != false",
        detail: format!("{} must set {field}=false", offenders.containers()),
        fields: offenders.fields,
    })
}

pub(crate) fn added_capabilities(pod: &Pod, _: Version) -> Option<Finding> {
    let (detail, offenders) = adding_others_than(&BASELINE_CAPABILITIES, pod)?;
    Some(Finding {
        reason: "non-default capabilities",
        detail,
        fields: offenders.fields,
    })
}

pub(crate) fn capabilities(pod: &Pod, _: Version) -> Option<Finding> {
    let (mut details, mut fields) = (Vec::new(), Vec::new());
    let keeping = keeping_any(pod);
    if !keeping.is_empty() {
        let who = keeping.containers();
        details.push(format!("{who} must set {DROP}=[\"ALL\"]"));
        fields.extend(keeping.fields);
    }
    if let Some((detail, adding)) = adding_others_than(&["NET_BIND_SERVICE"], pod) {
        details.push(detail);
        fields.extend(adding.fields);
    }
    (!details.is_empty()).then(|| Finding {
        reason: "unrestricted capabilities",
        detail: details.join("; "),
        fields,
    })
}

const ADD: &str = "securityContext.capabilities.add";
const DROP: &str = "securityContext.capabilities.drop";

fn adding_others_than<'p>(good: &[&'static str], pod: &'p Pod) -> Option<(String, Offenders<'p>)> {
    let allowed = Allowed::unset_or(good);
    let mut offenders = Offenders::default();
    for place in pod.containers() {
        for (index, name) in place.context().capabilities.add.iter().enumerate() {
            if !good.contains(&name.as_str()) {
                let field = format!("{ADD}[{index}]");
                offenders.add(place, &field, Some(name.as_str().into()), &allowed);
            }
        }
    }
    (!offenders.is_empty()).then(|| {
        let detail = format!(
            "{} must not include {} in {ADD}",
            offenders.containers(),
            quoted(offenders.values())
        );
        (detail, offenders)
    })
}

/// The containers that do not drop all.
fn keeping_any(pod: &Pod) -> Offenders<'_> {
    let allowed = Allowed::only(&["a list with ALL"]);
    let mut offenders = Offenders::default();
    for place in pod.containers() {
        let dropped = &place.context().capabilities.drop;
        if !dropped.iter().any(|name| name == "ALL") {
            let value = (!dropped.is_empty()).then(|| dropped.clone().into());
            offenders.add(place, DROP, value, &allowed);
        }
    }
    offenders
}

#[cfg(test)]
mod tests {
    use crate::check::Exemption;
    use crate::checks::support::{check, exempt};

    #[test]
    fn nothing_may_be_privileged() {
        let spec = |value: &str| {
            format!(
                r#"{{"containers": [{{"name": "a"}}], "ephemeralContainers": [{{"name": "b", "securityContext": {{"privileged": {value}}}}}]}}"#
            )
        };
        check("privileged", "v1.0", &spec("false"), None);
        check("privileged", "v1.0", &spec("null"), None);
        check(
            "privileged",
            "v1.0",
            &spec("true"),
            Some((
                r#"privileged (container "b" must not set securityContext.privileged=true)"#,
                &[
                    "spec.ephemeralContainers[0].securityContext.privileged: true, must be not set or false",
                ],
            )),
        );
    }

    #[test]
    fn escalation_must_be_ruled_out_since_1_8() {
        let spec = r#"{"initContainers": [{"name": "a"}], "containers": [
            {"name": "b", "securityContext": {"allowPrivilegeEscalation": true}},
            {"name": "c", "securityContext": {"allowPrivilegeEscalation": false}}]}"#;
        check("allowPrivilegeEscalation", "v1.7", spec, None);
        check(
            "allowPrivilegeEscalation",
            "v1.8",
            spec,
            Some((
                r#"allowPrivilegeEscalation != false (containers "a", "b" must set securityContext.allowPrivilegeEscalation=false)"#,
                &[
                    "spec.initContainers[0].securityContext.allowPrivilegeEscalation: not set, must be false",
                    "spec.containers[0].securityContext.allowPrivilegeEscalation: true, must be false",
                ],
            )),
        );
        exempt("allowPrivilegeEscalation", spec, Exemption::Windows, 25);
    }

    #[test]
    fn capabilities_beyond_the_default_ones_may_not_be_added() {
        let spec = r#"{"containers": [
            {"name": "a", "securityContext": {"capabilities": {"add": ["CHOWN", "SYS_TIME", "chown", "NET_RAW"]}}},
            {"name": "b", "securityContext": {"capabilities": {"add": ["KILL"], "drop": ["NET_RAW"]}}}]}"#;
        check(
            "capabilities_baseline",
            "latest",
            spec,
            Some((
                r#"non-default capabilities (container "a" must not include "NET_RAW", "SYS_TIME", "chown" in securityContext.capabilities.add)"#,
                &[
                    r#"spec.containers[0].securityContext.capabilities.add[1]: "SYS_TIME", must be not set, AUDIT_WRITE, CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, MKNOD, NET_BIND_SERVICE, SETFCAP, SETGID, SETPCAP, SETUID or SYS_CHROOT"#,
                    r#"spec.containers[0].securityContext.capabilities.add[2]: "chown", must be not set, AUDIT_WRITE, CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, MKNOD, NET_BIND_SERVICE, SETFCAP, SETGID, SETPCAP, SETUID or SYS_CHROOT"#,
                    r#"spec.containers[0].securityContext.capabilities.add[3]: "NET_RAW", must be not set, AUDIT_WRITE, CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, MKNOD, NET_BIND_SERVICE, SETFCAP, SETGID, SETPCAP, SETUID or SYS_CHROOT"#,
                ],
            )),
        );
    }

    #[test]
    fn all_capabilities_must_be_dropped_since_1_22() {
        let good = r#"{"containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["KILL", "ALL"]}}}]}"#;
        check("capabilities_restricted", "latest", good, None);
        let spec = r#"{"containers": [{"name": "a"},
            {"name": "b", "securityContext": {"capabilities": {"add": ["KILL"], "drop": ["all"]}}},
            {"name": "c", "securityContext": {"capabilities": {"add": ["CHOWN"], "drop": ["ALL"]}}}]}"#;
        check("capabilities_restricted", "v1.21", spec, None);
        check(
            "capabilities_restricted",
            "v1.22",
            spec,
            Some((
                r#"unrestricted capabilities (containers "a", "b" must set securityContext.capabilities.drop=["ALL"]; containers "b", "c" must not include "CHOWN", "KILL" in securityContext.capabilities.add)"#,
                &[
                    "spec.containers[0].securityContext.capabilities.drop: not set, must be a list with ALL",
                    r#"spec.containers[1].securityContext.capabilities.drop: ["all"], must be a list with ALL"#,
                    r#"spec.containers[1].securityContext.capabilities.add[0]: "KILL", must be not set or NET_BIND_SERVICE"#,
                    r#"spec.containers[2].securityContext.capabilities.add[0]: "CHOWN", must be not set or NET_BIND_SERVICE"#,
                ],
            )),
        );
        exempt("capabilities_restricted", spec, Exemption::Windows, 25);
    }
}
