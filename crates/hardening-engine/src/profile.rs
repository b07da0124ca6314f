//! The profiles: named sets of defaults. Their contents never change within an API version.

use std::sync::LazyLock;

use hardening_api::PodHardeningPolicySpec;
use hardening_api::policy::{
    Capabilities, ContainerDefaults, PodDefaults, PodSecurityContext, ProcMount, Profile,
    ProfileType, SeccompProfile, SecurityContext, WritablePath,
};

use crate::defaults::{self, PolicyDefault};

/// The user and group of profile Hardened: the number that distroless images call `nonroot`.
const NONROOT: i64 = 65532;

/// What a profile stands for, written as a policy would write it.
#[must_use]
pub fn spec(profile: Profile) -> PodHardeningPolicySpec {
    let restricted_pod = PodSecurityContext {
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile {
            type_: ProfileType::RuntimeDefault,
            localhost_profile: None,
        }),
        ..Default::default()
    };
    let restricted_container = SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: vec!["ALL".to_owned()],
            add: Vec::new(),
        }),
        ..Default::default()
    };
    let (pod, containers) = match profile {
        Profile::Restricted => (
            PodDefaults {
                security_context: Some(restricted_pod),
                ..Default::default()
            },
            ContainerDefaults {
                security_context: Some(restricted_container),
                ..Default::default()
            },
        ),
        Profile::Hardened => (
            PodDefaults {
                automount_service_account_token: Some(false),
                security_context: Some(PodSecurityContext {
                    run_as_user: Some(NONROOT),
                    run_as_group: Some(NONROOT),
                    fs_group: Some(NONROOT),
                    ..restricted_pod
                }),
                ..Default::default()
            },
            ContainerDefaults {
                security_context: Some(SecurityContext {
                    read_only_root_filesystem: Some(true),
                    proc_mount: Some(ProcMount::Default),
                    ..restricted_container
                }),
                writable_paths: vec![WritablePath {
                    path: "/tmp".to_owned(),
                    size_limit: None,
                    medium: None,
                }],
                ..Default::default()
            },
        ),
    };
    PodHardeningPolicySpec {
        pod: Some(pod),
        containers: Some(containers),
        ..Default::default()
    }
}

pub(crate) fn compiled(profile: Profile) -> &'static [PolicyDefault] {
    static RESTRICTED: LazyLock<Box<[PolicyDefault]>> =
        LazyLock::new(|| defaults::compile(&spec(Profile::Restricted), Some(Profile::Restricted)));
    static HARDENED: LazyLock<Box<[PolicyDefault]>> =
        LazyLock::new(|| defaults::compile(&spec(Profile::Hardened), Some(Profile::Hardened)));
    match profile {
        Profile::Restricted => &RESTRICTED,
        Profile::Hardened => &HARDENED,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_contents_of_the_profiles_never_change() {
        assert_eq!(
            serde_json::to_value(spec(Profile::Restricted)).unwrap(),
            json!({
                "pod": {"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}},
                "containers": {"securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}},
            })
        );
        assert_eq!(
            serde_json::to_value(spec(Profile::Hardened)).unwrap(),
            json!({
                "pod": {
                    "automountServiceAccountToken": false,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                },
                "containers": {
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": true, "procMount": "Default",
                    },
                    "writablePaths": [{"path": "/tmp"}],
                },
            })
        );
    }
}
