//! A borrowed, read-only view of a pod's raw JSON: just the fields that matter.
//!
//! The raw object is never turned into a typed Pod or a tree: fields that this program has never heard of
//! must survive, and a tree costs five times as much. A member that is null, or an empty list or object,
//! is as good as absent.

use serde::Deserialize;

use crate::annotations::{Annotations, LegacyProfile};
use crate::field::{Field, FieldSet};
use crate::json::{Lenient, Names, NodeSelector, Pairs, Presence, Text};
use crate::token::Projected;

/// Why a pod could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: not what a pod has there")]
pub struct InvalidPod {
    /// The field, as `spec.containers[0].securityContext.runAsUser`.
    pub path: String,
    #[source]
    cause: serde_json::Error,
}

/// A pod, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub struct Pod<'a> {
    #[serde(borrow, default)]
    pub(crate) metadata: Option<Metadata<'a>>,
    #[serde(borrow, default)]
    pub(crate) spec: Option<Spec<'a>>,
    /// The names of the ephemeral containers that the running pod already has; `None` for a pod that is
    /// being created.
    #[serde(skip)]
    pub(crate) running: Option<Vec<Text<'a>>>,
}

// A kind of container, and so a list of the pod's spec.
pub(crate) use hardening_api::policy::ContainerKind;

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Metadata<'a> {
    #[serde(borrow, default)]
    pub(crate) labels: Option<Pairs<'a>>,
    #[serde(borrow, default)]
    pub(crate) annotations: Option<Annotations<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec<'a> {
    #[serde(default)]
    automount_service_account_token: Presence,
    #[serde(default)]
    pub(crate) host_users: Option<bool>,
    #[serde(default)]
    runtime_class_name: Presence,
    #[serde(default)]
    share_process_namespace: Presence,
    #[serde(borrow, default)]
    pub(crate) security_context: Option<PodSecurityContext<'a>>,

    #[serde(default)]
    pub(crate) host_network: Option<bool>,
    #[serde(default, rename = "hostPID")]
    pub(crate) host_pid: Option<bool>,
    #[serde(default, rename = "hostIPC")]
    pub(crate) host_ipc: Option<bool>,
    #[serde(borrow, default)]
    os: Option<Os<'a>>,
    #[serde(borrow, default)]
    pub(crate) node_selector: Option<NodeSelector<'a>>,
    #[serde(borrow, default)]
    service_account_name: Option<Text<'a>>,
    /// The deprecated alias, which the API server still honours.
    #[serde(borrow, default)]
    service_account: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) volumes: Option<Vec<Volume<'a>>>,
    #[serde(borrow, default)]
    pub(crate) containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    pub(crate) init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    pub(crate) ephemeral_containers: Option<Vec<Container<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Os<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodSecurityContext<'a> {
    #[serde(default)]
    pub(crate) run_as_user: Option<i64>,
    #[serde(default)]
    pub(crate) run_as_non_root: Option<bool>,
    #[serde(default)]
    pub(crate) run_as_group: Option<i64>,
    #[serde(default)]
    pub(crate) fs_group: Option<i64>,
    #[serde(default)]
    fs_group_change_policy: Presence,
    #[serde(default)]
    pub(crate) supplemental_groups: Option<Vec<i64>>,
    #[serde(default)]
    supplemental_groups_policy: Presence,
    #[serde(default)]
    seccomp_profile: Presence,
    #[serde(default)]
    app_armor_profile: Presence,
    #[serde(default)]
    se_linux_options: Presence,
    #[serde(default)]
    se_linux_change_policy: Presence,
    #[serde(borrow, default)]
    pub(crate) sysctls: Option<Vec<Sysctl<'a>>>,
    #[serde(borrow, default)]
    windows_options: Option<WindowsOptions<'a>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Sysctl<'a> {
    #[serde(borrow, default)]
    pub(crate) name: Text<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WindowsOptions<'a> {
    #[serde(borrow, default)]
    run_as_user_name: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container<'a> {
    #[serde(borrow, default)]
    pub(crate) name: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) security_context: Option<SecurityContext<'a>>,
    #[serde(borrow, default)]
    pub(crate) volume_mounts: Option<Vec<VolumeMount<'a>>>,
    #[serde(borrow, default)]
    pub(crate) volume_devices: Option<Vec<VolumeDevice<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecurityContext<'a> {
    #[serde(default)]
    pub(crate) run_as_user: Option<i64>,
    #[serde(default)]
    pub(crate) run_as_non_root: Option<bool>,
    #[serde(default)]
    pub(crate) run_as_group: Option<i64>,
    #[serde(default)]
    pub(crate) allow_privilege_escalation: Option<bool>,
    #[serde(default)]
    pub(crate) privileged: Option<bool>,
    #[serde(default)]
    read_only_root_filesystem: Presence,
    #[serde(default)]
    proc_mount: Presence,
    #[serde(borrow, default)]
    pub(crate) capabilities: Option<Capabilities<'a>>,
    #[serde(default)]
    seccomp_profile: Presence,
    #[serde(default)]
    app_armor_profile: Presence,
    #[serde(default)]
    se_linux_options: Presence,
    #[serde(borrow, default)]
    windows_options: Option<WindowsOptions<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Capabilities<'a> {
    #[serde(borrow, default)]
    pub(crate) drop: Option<Names<'a>>,
    #[serde(borrow, default)]
    pub(crate) add: Option<Names<'a>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Volume<'a> {
    #[serde(borrow, default)]
    pub(crate) name: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) projected: Option<Projected<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeMount<'a> {
    #[serde(borrow, default)]
    pub(crate) name: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) mount_path: Text<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeDevice<'a> {
    #[serde(borrow, default)]
    pub(crate) device_path: Text<'a>,
}

// === impl Pod ===

impl<'a> Pod<'a> {
    /// Reads a pod that is being created, or a pod template: an object with `metadata` and `spec`.
    ///
    /// # Errors
    ///
    /// Where a field that matters has a value of a type that no pod has there.
    pub fn from_json(json: &'a str) -> Result<Self, InvalidPod> {
        match serde_json::from_str::<Lenient<Self>>(json) {
            Ok(pod) => Ok(pod.0),
            // Only now is it worth knowing where.
            Err(cause) => Err(InvalidPod {
                path: failing_path(json),
                cause,
            }),
        }
    }

    /// Reads a running pod to which ephemeral containers are being added: those that `old`, the pod as it
    /// was, does not have.
    ///
    /// # Errors
    ///
    /// As [`Pod::from_json`], for both.
    pub fn with_new_ephemeral_containers(json: &'a str, old: &'a str) -> Result<Self, InvalidPod> {
        let before = Self::from_json(old)?;
        let names = before
            .spec
            .and_then(|spec| spec.ephemeral_containers)
            .unwrap_or_default();
        let running = Some(names.into_iter().map(|container| container.name).collect());
        Ok(Self {
            running,
            ..Self::from_json(json)?
        })
    }

    /// Whether this is the API server's copy of a pod that a kubelet runs from a file, which nothing may
    /// change.
    #[must_use]
    pub fn is_mirror(&self) -> bool {
        self.annotations()
            .is_some_and(|annotations| annotations.mirror)
    }

    /// The name of the service account that the pod runs as; `default` when the author named none.
    #[must_use]
    pub fn service_account_name(&self) -> &str {
        let spec = self.spec.as_ref();
        let named = spec.and_then(|spec| {
            spec.service_account_name
                .as_ref()
                .or(spec.service_account.as_ref())
        });
        named
            .map(Text::as_str)
            .filter(|name| !name.is_empty())
            .unwrap_or("default")
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.as_ref()?.labels.as_ref()?.get(key)
    }

    pub(crate) fn annotations(&self) -> Option<&Annotations<'a>> {
        self.metadata.as_ref()?.annotations.as_ref()
    }

    pub(crate) fn legacy_profile(&self, kind: LegacyProfile, container: &str) -> Option<&str> {
        let legacy = &self.annotations()?.legacy;
        let found = legacy
            .iter()
            .find(|(k, name, _)| *k == kind && name.as_str() == container);
        found.map(|(_, _, profile)| profile.as_str())
    }

    /// A container, by its list and its place in it.
    pub(crate) fn container(&self, kind: ContainerKind, index: usize) -> Option<&Container<'a>> {
        self.containers_of(kind).get(index)
    }

    fn containers_of(&self, kind: ContainerKind) -> &[Container<'a>] {
        let list = self.spec.as_ref().and_then(|spec| match kind {
            ContainerKind::InitContainer => spec.init_containers.as_deref(),
            ContainerKind::Container => spec.containers.as_deref(),
            ContainerKind::EphemeralContainer => spec.ephemeral_containers.as_deref(),
        });
        list.unwrap_or_default()
    }

    /// All containers, in the order of the pod's start: kind, index in its list, container.
    pub(crate) fn containers(
        &self,
    ) -> impl Iterator<Item = (ContainerKind, usize, &Container<'a>)> {
        let kinds = [
            ContainerKind::InitContainer,
            ContainerKind::Container,
            ContainerKind::EphemeralContainer,
        ];
        kinds.into_iter().flat_map(|kind| {
            self.containers_of(kind)
                .iter()
                .enumerate()
                .map(move |(i, container)| (kind, i, container))
        })
    }
}

fn failing_path(json: &str) -> String {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let failed = serde_path_to_error::deserialize::<_, Lenient<Pod<'_>>>(&mut deserializer);
    failed.err().map_or_else(
        || "the document".to_owned(),
        |error| error.path().to_string(),
    )
}

// === impl Spec ===

impl Spec<'_> {
    /// Whether the pod is for Windows, as far as the spec says.
    pub(crate) fn is_windows(&self) -> bool {
        match self
            .os
            .as_ref()
            .and_then(|os| os.name.as_ref())
            .filter(|name| !name.as_str().is_empty())
        {
            Some(name) => name.as_str() == "windows",
            None => {
                let selected = self
                    .node_selector
                    .as_ref()
                    .and_then(|labels| labels.get("kubernetes.io/os"));
                selected == Some("windows")
            }
        }
    }

    /// The pod-level fields that are set.
    pub(crate) fn written(&self) -> FieldSet {
        let mut set = FieldSet::default();
        let mut put = |field, present: bool| {
            if present {
                set.insert(field);
            }
        };
        put(
            Field::AutomountServiceAccountToken,
            self.automount_service_account_token.0,
        );
        put(Field::HostUsers, self.host_users.is_some());
        put(Field::RuntimeClassName, self.runtime_class_name.0);
        put(Field::ShareProcessNamespace, self.share_process_namespace.0);
        if let Some(context) = &self.security_context {
            put(Field::RunAsUser, context.run_as_user.is_some());
            put(Field::RunAsNonRoot, context.run_as_non_root.is_some());
            put(Field::RunAsGroup, context.run_as_group.is_some());
            put(Field::FsGroup, context.fs_group.is_some());
            put(Field::FsGroupChangePolicy, context.fs_group_change_policy.0);
            put(
                Field::SupplementalGroups,
                not_empty(context.supplemental_groups.as_deref()),
            );
            put(
                Field::SupplementalGroupsPolicy,
                context.supplemental_groups_policy.0,
            );
            put(Field::SeccompProfile, context.seccomp_profile.0);
            put(Field::AppArmorProfile, context.app_armor_profile.0);
            put(Field::SeLinuxOptions, context.se_linux_options.0);
            put(Field::SeLinuxChangePolicy, context.se_linux_change_policy.0);
            put(Field::Sysctls, not_empty(context.sysctls.as_deref()));
        }
        set
    }

    pub(crate) fn windows_user(&self) -> Option<&str> {
        windows_user(self.security_context.as_ref()?.windows_options.as_ref())
    }
}

// === impl Container ===

impl Container<'_> {
    /// The fields that are set on the container.
    pub(crate) fn written(&self) -> FieldSet {
        let mut set = FieldSet::default();
        let Some(context) = &self.security_context else {
            return set;
        };
        let mut put = |field, present: bool| {
            if present {
                set.insert(field);
            }
        };
        put(Field::RunAsUser, context.run_as_user.is_some());
        put(Field::RunAsNonRoot, context.run_as_non_root.is_some());
        put(Field::RunAsGroup, context.run_as_group.is_some());
        put(Field::SeccompProfile, context.seccomp_profile.0);
        put(Field::AppArmorProfile, context.app_armor_profile.0);
        put(Field::SeLinuxOptions, context.se_linux_options.0);
        put(
            Field::AllowPrivilegeEscalation,
            context.allow_privilege_escalation.is_some(),
        );
        put(Field::Privileged, context.privileged.is_some());
        put(Field::ProcMount, context.proc_mount.0);
        put(
            Field::ReadOnlyRootFilesystem,
            context.read_only_root_filesystem.0,
        );
        put(Field::CapabilitiesDrop, not_empty(self.drops()));
        put(Field::CapabilitiesAdd, not_empty(self.adds()));
        set
    }

    pub(crate) fn drops(&self) -> Option<&[Text<'_>]> {
        let capabilities = self.security_context.as_ref()?.capabilities.as_ref()?;
        capabilities.drop.as_ref().map(|names| names.0.as_slice())
    }

    pub(crate) fn adds(&self) -> Option<&[Text<'_>]> {
        let capabilities = self.security_context.as_ref()?.capabilities.as_ref()?;
        capabilities.add.as_ref().map(|names| names.0.as_slice())
    }

    pub(crate) fn windows_user(&self) -> Option<&str> {
        windows_user(self.security_context.as_ref()?.windows_options.as_ref())
    }

    pub(crate) fn mounts(&self) -> &[VolumeMount<'_>] {
        self.volume_mounts.as_deref().unwrap_or_default()
    }

    pub(crate) fn devices(&self) -> &[VolumeDevice<'_>] {
        self.volume_devices.as_deref().unwrap_or_default()
    }
}

fn not_empty<T>(list: Option<&[T]>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

fn windows_user<'a>(options: Option<&'a WindowsOptions<'_>>) -> Option<&'a str> {
    options?.run_as_user_name.as_ref().map(Text::as_str)
}
