//! Profiles that confine what runs: AppArmor, seccomp and SELinux.

use std::collections::BTreeSet;

use crate::check::Finding;
use crate::evaluation::Allowed;
use crate::offenders::{Inherited, Offenders};
use crate::pod::{Owner, Place, Pod, Profile, SeLinuxOptions};
use crate::text::{go_literal, plural, quoted};
use crate::version::Version;

/// The types of both AppArmor's and seccomp's profiles that confine at all.
const CONFINING: [&str; 2] = ["RuntimeDefault", "Localhost"];

fn is_confining(kind: &str) -> bool {
    CONFINING.contains(&kind)
}

/// The profiles that do not confine, by their owners.
fn loose<'p>(
    profiles: impl Iterator<Item = (Owner<'p>, &'p Profile)>,
) -> impl Iterator<Item = (Owner<'p>, &'p str)> {
    profiles
        .map(|(owner, profile)| (owner, profile.kind.as_str()))
        .filter(|(_, kind)| !is_confining(kind))
}

// === AppArmor ===

/// An annotation with this before a container's name was its AppArmor profile before there was a field.
const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const UNCONFINED: &str = "Unconfined";

pub(crate) fn app_armor(pod: &Pod, _: Version) -> Option<Finding> {
    let profiles = pod.settings(
        |context| context.app_armor_profile.as_ref(),
        |context| context.app_armor_profile.as_ref(),
    );
    let by_field = loose(profiles).map(|(owner, kind)| (owner, Some(kind)));
    let by_annotation = pod.containers().filter_map(|place| {
        takes_unconfined_from_annotation(pod, &place).then_some((place.into(), None))
    });
    let mut found: Vec<(Owner<'_>, Option<&str>)> = by_field.chain(by_annotation).collect();
    found.sort_by_key(|(owner, _)| owner.order());

    let mut offenders = Offenders::default();
    let mut kinds = BTreeSet::new();
    for (owner, kind) in found {
        kinds.insert(kind.unwrap_or(UNCONFINED).to_owned());
        match kind {
            Some(kind) => {
                let field = "securityContext.appArmorProfile.type";
                let allowed = Allowed::unset_or(&CONFINING);
                offenders.add(owner, field, Some(kind.into()), &allowed);
            }
            None => offenders.add_owner(owner),
        }
    }
    let mut who = offenders.parts();
    let mut profiles: Vec<String> = kinds.into_iter().collect();
    let annotations = loose_app_armor_annotations(pod);
    if !annotations.is_empty() {
        let word = plural("annotation", "annotations", annotations.len());
        who.push(word.to_owned());
        profiles.extend(add_annotations(
            &mut offenders,
            annotations,
            &["\"\"", "runtime/default", "localhost/*"],
        ));
    }
    (!who.is_empty()).then(|| Finding {
        reason: plural(
            "forbidden AppArmor profile",
            "forbidden AppArmor profiles",
            profiles.len(),
        ),
        detail: format!(
            "{} must not set AppArmor profile type to {}",
            who.join(" and "),
            quoted(profiles)
        ),
        fields: offenders.fields,
    })
}

/// The API server makes a field of a new container's annotation, unless that says the same as the pod.
fn takes_unconfined_from_annotation(pod: &Pod, place: &Place<'_>) -> bool {
    let key = format!("{APP_ARMOR_ANNOTATION}{}", place.container.name);
    let of_pod = pod.context().app_armor_profile.as_ref();
    pod.annotation(&key) == Some("unconfined")
        && place.context().app_armor_profile.is_none()
        && of_pod.is_none_or(|profile| profile.kind != UNCONFINED)
        && !place.is_ephemeral()
        && !pod.is_windows()
}

fn loose_app_armor_annotations(pod: &Pod) -> Vec<(&str, &str)> {
    let is_loose = |value: &str| {
        !value.is_empty() && value != "runtime/default" && !value.starts_with("localhost/")
    };
    pod.annotations(APP_ARMOR_ANNOTATION)
        .filter(|(_, value)| is_loose(value))
        .collect()
}

/// Notes annotations, and puts them into words: `key="value"`, sorted.
fn add_annotations(
    offenders: &mut Offenders<'_>,
    annotations: Vec<(&str, &str)>,
    allowed: &[&'static str],
) -> Vec<String> {
    let allowed = Allowed::unset_or(allowed);
    let mut told = BTreeSet::new();
    for (key, value) in annotations {
        told.insert(format!("{key}={}", go_literal(value)));
        let path = format!("metadata.annotations[{key}]");
        offenders.add_field(path, Some(value.into()), &allowed);
    }
    told.into_iter().collect()
}

// === seccomp ===

/// The minor version since which the field counts, and no longer the annotations before it.
const SECCOMP_FIELD: u64 = 19;
const SECCOMP_POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";
const SECCOMP_TYPE: &str = "securityContext.seccompProfile.type";

pub(crate) fn seccomp(pod: &Pod, version: Version) -> Option<Finding> {
    if !version.has(SECCOMP_FIELD) {
        return seccomp_annotations(pod);
    }
    let profiles = pod.settings(
        |context| context.seccomp_profile.as_ref(),
        |context| context.seccomp_profile.as_ref(),
    );
    let allowed = Allowed::unset_or(&CONFINING);
    let offenders = Offenders::of(loose(profiles), SECCOMP_TYPE, &allowed);
    (!offenders.is_empty()).then(|| loose_seccomp(offenders))
}

pub(crate) fn seccomp_set(pod: &Pod, _: Version) -> Option<Finding> {
    let kind = |profile: &'_ Option<Profile>| profile.as_ref().map(|profile| profile.kind.clone());
    let Inherited { said, unsaid } = Inherited::of(
        pod,
        SECCOMP_TYPE,
        |context| kind(&context.seccomp_profile),
        |context| kind(&context.seccomp_profile),
        |kind| is_confining(kind),
        &Allowed::only(&CONFINING),
    );
    if !said.is_empty() {
        return Some(loose_seccomp(said));
    }
    (!unsaid.is_empty()).then(|| Finding {
        reason: "seccompProfile",
        detail: format!(
            "pod or {} must set {SECCOMP_TYPE} to \"RuntimeDefault\" or \"Localhost\"",
            unsaid.containers()
        ),
        fields: unsaid.fields,
    })
}

fn loose_seccomp(offenders: Offenders<'_>) -> Finding {
    let (who, kinds) = (offenders.all(), quoted(offenders.values()));
    Finding {
        reason: "seccompProfile",
        detail: format!("{who} must not set {SECCOMP_TYPE} to {kinds}"),
        fields: offenders.fields,
    }
}

fn seccomp_annotations(pod: &Pod) -> Option<Finding> {
    let of_containers = pod
        .containers()
        .map(|place| format!("{SECCOMP_ANNOTATION}{}", place.container.name));
    let keys: Vec<String> = [SECCOMP_POD_ANNOTATION.to_owned()]
        .into_iter()
        .chain(of_containers)
        .collect();
    let is_loose = |value: &str| {
        !["runtime/default", "docker/default"].contains(&value) && !value.starts_with("localhost/")
    };
    let annotations: Vec<(&str, &str)> = keys
        .iter()
        .filter_map(|key| Some((key.as_str(), pod.annotation(key)?)))
        .filter(|(_, value)| is_loose(value))
        .collect();
    let mut offenders = Offenders::default();
    let allowed = ["runtime/default", "docker/default", "localhost/*"];
    let told = add_annotations(&mut offenders, annotations, &allowed);
    (!told.is_empty()).then(|| Finding {
        reason: "seccompProfile",
        detail: format!(
            "forbidden {} {}",
            plural("annotation", "annotations", told.len()),
            told.join(", ")
        ),
        fields: offenders.fields,
    })
}

// === SELinux ===

/// The types that may be set, and since which minor version.
const SE_LINUX_TYPES: [(&str, u64); 4] = [
    ("container_t", 0),
    ("container_init_t", 0),
    ("container_kvm_t", 0),
    ("container_engine_t", 31),
];

/// The SELinux types that "baseline" lets pods and containers set in that version, besides none.
#[must_use]
pub fn baseline_se_linux_types(version: Version) -> Vec<&'static str> {
    version.known(&SE_LINUX_TYPES)
}

pub(crate) fn se_linux(pod: &Pod, version: Version) -> Option<Finding> {
    let types = baseline_se_linux_types(version);
    let (type_allowed, unset) = (Allowed::unset_or(&types), Allowed::unset_or(&[]));
    let mut bad_types = BTreeSet::new();
    let (mut sets_user, mut sets_role) = (false, false);
    let mut offenders = Offenders::default();
    let all = pod.settings(
        |context| context.se_linux_options.as_ref(),
        |context| context.se_linux_options.as_ref(),
    );
    for (owner, options) in all {
        let SeLinuxOptions { user, role, kind } = options;
        let mut add = |member: &str, value: &str, allowed: &Allowed| {
            let field = format!("securityContext.seLinuxOptions.{member}");
            offenders.add(owner, &field, Some(value.into()), allowed);
        };
        if !kind.is_empty() && !types.contains(&kind.as_str()) {
            bad_types.insert(kind);
            add("type", kind, &type_allowed);
        }
        if !user.is_empty() {
            sets_user = true;
            add("user", user, &unset);
        }
        if !role.is_empty() {
            sets_role = true;
            add("role", role, &unset);
        }
    }
    let word = plural("type", "types", bad_types.len());
    let types = (!bad_types.is_empty()).then(|| format!("{word} {}", quoted(bad_types)));
    let user = sets_user.then(|| "user may not be set".to_owned());
    let role = sets_role.then(|| "role may not be set".to_owned());
    let what: Vec<String> = types.into_iter().chain(user).chain(role).collect();
    (!what.is_empty()).then(|| Finding {
        reason: "seLinuxOptions",
        detail: format!(
            "{} set forbidden securityContext.seLinuxOptions: {}",
            offenders.all(),
            what.join("; ")
        ),
        fields: offenders.fields,
    })
}

#[cfg(test)]
mod tests {
    use crate::check::Exemption;
    use crate::checks::support::{check, check_pod, exempt};

    #[test]
    fn app_armor_may_not_be_switched_off_by_field_or_annotation() {
        let id = "appArmorProfile";
        let pod = |annotations: &str, of_pod: &str, of_b: &str| {
            format!(
                r#"{{"metadata": {{"annotations": {{{annotations}}}}}, "spec": {{"securityContext": {{"appArmorProfile": {of_pod}}},
                "containers": [{{"name": "a"}}, {{"name": "b", "securityContext": {{"appArmorProfile": {of_b}}}}}]}}}}"#
            )
        };
        let key = |name: &str, value: &str| {
            format!(r#""container.apparmor.security.beta.kubernetes.io/{name}": "{value}""#)
        };
        let unconfined = r#"{"type": "Unconfined"}"#;
        let local = r#"{"type": "Localhost", "localhostProfile": "x"}"#;
        let good = format!("{}, {}", key("a", "localhost/x"), key("b", ""));
        check_pod(id, "latest", &pod(&good, local, "null"), None);
        check_pod(
            id,
            "latest",
            &pod("", unconfined, "{}"),
            Some((
                r#"forbidden AppArmor profiles (pod and container "b" must not set AppArmor profile type to "", "Unconfined")"#,
                &[
                    r#"spec.securityContext.appArmorProfile.type: "Unconfined", must be not set, RuntimeDefault or Localhost"#,
                    r#"spec.containers[1].securityContext.appArmorProfile.type: "", must be not set, RuntimeDefault or Localhost"#,
                ],
            )),
        );
        // What the API server makes of the annotation breaks the rule a second time.
        check_pod(
            id,
            "latest",
            &pod(&key("a", "unconfined"), "null", unconfined),
            Some((
                r#"forbidden AppArmor profiles (containers "a", "b" and annotation must not set AppArmor profile type to "Unconfined", "container.apparmor.security.beta.kubernetes.io/a="unconfined"")"#,
                &[
                    r#"spec.containers[1].securityContext.appArmorProfile.type: "Unconfined", must be not set, RuntimeDefault or Localhost"#,
                    r#"metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]: "unconfined", must be not set, "", runtime/default or localhost/*"#,
                ],
            )),
        );
        check_pod(
            id,
            "latest",
            &pod(
                &format!("{}, {}", key("z", "un\\\"known"), key("a", "unconfined")),
                unconfined,
                "null",
            ),
            Some((
                r#"forbidden AppArmor profiles (pod and annotations must not set AppArmor profile type to "Unconfined", "container.apparmor.security.beta.kubernetes.io/a="unconfined"", "container.apparmor.security.beta.kubernetes.io/z="un\"known"")"#,
                &[
                    r#"spec.securityContext.appArmorProfile.type: "Unconfined", must be not set, RuntimeDefault or Localhost"#,
                    r#"metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]: "unconfined", must be not set, "", runtime/default or localhost/*"#,
                    r#"metadata.annotations[container.apparmor.security.beta.kubernetes.io/z]: "un\"known", must be not set, "", runtime/default or localhost/*"#,
                ],
            )),
        );
    }

    #[test]
    fn annotations_become_no_fields_of_windows_and_ephemeral_containers() {
        let annotation = r#""container.apparmor.security.beta.kubernetes.io/a": "unconfined""#;
        let told = r#"forbidden AppArmor profile (annotation must not set AppArmor profile type to "container.apparmor.security.beta.kubernetes.io/a="unconfined"")"#;
        let field = r#"metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]: "unconfined", must be not set, "", runtime/default or localhost/*"#;
        for spec in [
            r#"{"os": {"name": "windows"}, "containers": [{"name": "a"}]}"#,
            r#"{"ephemeralContainers": [{"name": "a"}]}"#,
        ] {
            let pod =
                format!(r#"{{"metadata": {{"annotations": {{{annotation}}}}}, "spec": {spec}}}"#);
            check_pod("appArmorProfile", "latest", &pod, Some((told, &[field])));
        }
    }

    #[test]
    fn seccomp_may_not_be_switched_off_since_1_19() {
        let spec = r#"{"securityContext": {"seccompProfile": {"type": "Unconfined"}}, "containers": [
            {"name": "a", "securityContext": {"seccompProfile": {"type": "Other"}}},
            {"name": "b", "securityContext": {"seccompProfile": {"type": "Localhost"}}}]}"#;
        check("seccompProfile_baseline", "v1.18", spec, None);
        let text = r#"seccompProfile (pod and container "a" must not set securityContext.seccompProfile.type to "Other", "Unconfined")"#;
        let baseline = [
            r#"spec.securityContext.seccompProfile.type: "Unconfined", must be not set, RuntimeDefault or Localhost"#,
            r#"spec.containers[0].securityContext.seccompProfile.type: "Other", must be not set, RuntimeDefault or Localhost"#,
        ];
        check(
            "seccompProfile_baseline",
            "v1.19",
            spec,
            Some((text, &baseline)),
        );
        let restricted = baseline.map(|field| field.replace("not set, ", ""));
        check(
            "seccompProfile_restricted",
            "v1.19",
            spec,
            Some((text, &restricted.each_ref().map(String::as_str))),
        );
    }

    #[test]
    fn a_seccomp_profile_must_be_set_since_1_19() {
        let good = r#"{"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}, "containers": [{"name": "a"}]}"#;
        let spec = r#"{"securityContext": {"seccompProfile": null}, "containers": [{"name": "a"},
            {"name": "b", "securityContext": {"seccompProfile": {"type": "Localhost"}}}]}"#;
        let id = "seccompProfile_restricted";
        check(id, "latest", good, None);
        check(id, "v1.18", spec, None);
        check(
            id,
            "v1.19",
            spec,
            Some((
                r#"seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
                &[
                    "spec.containers[0].securityContext.seccompProfile.type: not set, must be RuntimeDefault or Localhost",
                ],
            )),
        );
        exempt(id, spec, Exemption::Windows, 25);
    }

    #[test]
    fn before_1_19_seccomp_was_a_matter_of_annotations() {
        let pod = r#"{"metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined",
            "container.seccomp.security.alpha.kubernetes.io/a": "", "container.seccomp.security.alpha.kubernetes.io/b": "docker/default",
            "container.seccomp.security.alpha.kubernetes.io/gone": "unconfined"}},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}]}}"#;
        let id = "seccompProfile_baseline";
        check_pod(id, "v1.19", pod, None);
        check_pod(
            id,
            "v1.18",
            pod,
            Some((
                r#"seccompProfile (forbidden annotations container.seccomp.security.alpha.kubernetes.io/a="", seccomp.security.alpha.kubernetes.io/pod="unconfined")"#,
                &[
                    r#"metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: "unconfined", must be not set, runtime/default, docker/default or localhost/*"#,
                    r#"metadata.annotations[container.seccomp.security.alpha.kubernetes.io/a]: "", must be not set, runtime/default, docker/default or localhost/*"#,
                ],
            )),
        );
    }

    #[test]
    fn se_linux_types_are_few_and_neither_user_nor_role_may_be_set() {
        let id = "seLinuxOptions";
        let good = r#"{"securityContext": {"seLinuxOptions": {"level": "s0", "type": "container_kvm_t", "user": "", "role": null}}}"#;
        check(id, "v1.0", good, None);
        let engine = r#"{"containers": [{"name": "a", "securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}}]}"#;
        check(id, "v1.31", engine, None);
        check(
            id,
            "v1.30",
            engine,
            Some((
                r#"seLinuxOptions (container "a" set forbidden securityContext.seLinuxOptions: type "container_engine_t")"#,
                &[
                    r#"spec.containers[0].securityContext.seLinuxOptions.type: "container_engine_t", must be not set, container_t, container_init_t or container_kvm_t"#,
                ],
            )),
        );
        check(
            id,
            "latest",
            r#"{"securityContext": {"seLinuxOptions": {"role": "r"}}, "initContainers": [{"name": "a", "securityContext": {"seLinuxOptions": {"type": "z_t", "user": "u"}}}],
                "containers": [{"name": "b", "securityContext": {"seLinuxOptions": {"type": "a_t"}}}]}"#,
            Some((
                r#"seLinuxOptions (pod and containers "a", "b" set forbidden securityContext.seLinuxOptions: types "a_t", "z_t"; user may not be set; role may not be set)"#,
                &[
                    r#"spec.securityContext.seLinuxOptions.role: "r", must be not set"#,
                    r#"spec.initContainers[0].securityContext.seLinuxOptions.type: "z_t", must be not set, container_t, container_init_t, container_kvm_t or container_engine_t"#,
                    r#"spec.initContainers[0].securityContext.seLinuxOptions.user: "u", must be not set"#,
                    r#"spec.containers[0].securityContext.seLinuxOptions.type: "a_t", must be not set, container_t, container_init_t, container_kvm_t or container_engine_t"#,
                ],
            )),
        );
    }
}
