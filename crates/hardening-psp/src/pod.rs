//! A pod, as far as PodSecurityPolicy looked at it.
//!
//! A field that is null is as good as absent; an empty list or object is not, because PodSecurityPolicy
//! told the two apart.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::psp::SeLinuxOptions;
use crate::seccomp;

/// Why a pod could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: not what a pod has there")]
pub struct InvalidPod {
    /// The field, as `spec.containers[0].securityContext.runAsUser`.
    pub path: String,
    #[source]
    cause: serde_json::Error,
}

/// A pod, or a pod template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub(crate) security_context: Option<PodSecurityContext>,
    host_network: Option<bool>,
    #[serde(rename = "hostPID")]
    host_pid: Option<bool>,
    #[serde(rename = "hostIPC")]
    host_ipc: Option<bool>,
    pub(crate) runtime_class_name: Option<String>,
    volumes: Option<Vec<Volume>>,
    init_containers: Option<Vec<Container>>,
    containers: Option<Vec<Container>>,
    ephemeral_containers: Option<Vec<Container>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSecurityContext {
    pub(crate) run_as_user: Option<i64>,
    pub(crate) run_as_group: Option<i64>,
    pub(crate) run_as_non_root: Option<bool>,
    pub(crate) fs_group: Option<i64>,
    pub(crate) supplemental_groups: Option<Vec<i64>>,
    pub(crate) se_linux_options: Option<SeLinuxOptions>,
    pub(crate) seccomp_profile: Option<seccomp::Profile>,
    sysctls: Option<Vec<Sysctl>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Sysctl {
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Volume {
    pub(crate) name: String,
    /// Its source, by its field's name.
    #[serde(flatten)]
    pub(crate) sources: Map<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) security_context: Option<SecurityContext>,
    ports: Option<Vec<Port>>,
    volume_mounts: Option<Vec<VolumeMount>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SecurityContext {
    pub(crate) run_as_user: Option<i64>,
    pub(crate) run_as_group: Option<i64>,
    pub(crate) run_as_non_root: Option<bool>,
    pub(crate) se_linux_options: Option<SeLinuxOptions>,
    pub(crate) seccomp_profile: Option<seccomp::Profile>,
    /// Newer than PodSecurityPolicy, which knew annotations only.
    pub(crate) app_armor_profile: Option<Value>,
    pub(crate) privileged: Option<bool>,
    pub(crate) proc_mount: Option<String>,
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) read_only_root_filesystem: Option<bool>,
    pub(crate) allow_privilege_escalation: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Capabilities {
    add: Option<Vec<String>>,
    drop: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    host_port: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VolumeMount {
    pub(crate) name: String,
    read_only: Option<bool>,
}

/// The lists of containers, in the order in which PodSecurityPolicy walked them.
pub(crate) const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A container and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) list: &'static str,
    pub(crate) index: usize,
    pub(crate) container: &'a Container,
}

// === impl InvalidPod ===

impl InvalidPod {
    /// Reads what stands under a key of a pod.
    pub(crate) fn under<T: DeserializeOwned>(key: &str, value: &Value) -> Result<T, Self> {
        serde_path_to_error::deserialize(value).map_err(|error| Self {
            path: format!("{key}.{}", error.path()),
            cause: error.into_inner(),
        })
    }
}

// === impl Pod ===

impl Pod {
    pub(crate) fn read(pod: &Value) -> Result<Self, InvalidPod> {
        serde_path_to_error::deserialize(pod).map_err(|error| InvalidPod {
            path: error.path().to_string(),
            cause: error.into_inner(),
        })
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        let annotations = self.metadata.as_ref()?.annotations.as_ref()?;
        let value = annotations.get(key)?;
        Some(value.as_deref().unwrap_or_default())
    }

    pub(crate) fn context(&self) -> Option<&PodSecurityContext> {
        self.spec.as_ref()?.security_context.as_ref()
    }

    pub(crate) fn runtime_class_name(&self) -> Option<&str> {
        self.spec.as_ref()?.runtime_class_name.as_deref()
    }

    /// hostNetwork, hostPID and hostIPC, by name.
    pub(crate) fn host_namespaces(&self) -> [(&'static str, bool); 3] {
        let uses =
            |flag: fn(&Spec) -> Option<bool>| self.spec.as_ref().and_then(flag) == Some(true);
        [
            ("hostNetwork", uses(|spec| spec.host_network)),
            ("hostPID", uses(|spec| spec.host_pid)),
            ("hostIPC", uses(|spec| spec.host_ipc)),
        ]
    }

    pub(crate) fn sysctls(&self) -> &[Sysctl] {
        let sysctls = self
            .context()
            .and_then(|context| context.sysctls.as_deref());
        sysctls.unwrap_or_default()
    }

    pub(crate) fn volumes(&self) -> &[Volume] {
        let volumes = self.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
        volumes.unwrap_or_default()
    }

    /// All containers, init containers first and ephemeral ones last.
    pub(crate) fn containers(&self) -> impl Iterator<Item = Place<'_>> {
        let of = |list: fn(&Spec) -> &Option<Vec<Container>>| {
            let list = self.spec.as_ref().and_then(|spec| list(spec).as_deref());
            list.unwrap_or_default()
        };
        let lists = [
            of(|spec| &spec.init_containers),
            of(|spec| &spec.containers),
            of(|spec| &spec.ephemeral_containers),
        ];
        LISTS.into_iter().zip(lists).flat_map(|(list, containers)| {
            containers
                .iter()
                .enumerate()
                .map(move |(index, container)| Place {
                    list,
                    index,
                    container,
                })
        })
    }

    // What is in force in a container: its own value, else the pod's.

    pub(crate) fn user(&self, container: &Container) -> Option<i64> {
        let own = container.context().and_then(|context| context.run_as_user);
        own.or_else(|| self.context()?.run_as_user)
    }

    pub(crate) fn group(&self, container: &Container) -> Option<i64> {
        let own = container.context().and_then(|context| context.run_as_group);
        own.or_else(|| self.context()?.run_as_group)
    }

    pub(crate) fn non_root(&self, container: &Container) -> Option<bool> {
        let own = container
            .context()
            .and_then(|context| context.run_as_non_root);
        own.or_else(|| self.context()?.run_as_non_root)
    }

    pub(crate) fn se_linux<'a>(&'a self, container: &'a Container) -> Option<&'a SeLinuxOptions> {
        let own = container
            .context()
            .and_then(|context| context.se_linux_options.as_ref());
        own.or_else(|| self.context()?.se_linux_options.as_ref())
    }

    /// The pod's own seccomp profile as an annotation says it; empty: none.
    pub(crate) fn seccomp(&self) -> String {
        match self.annotation(seccomp::POD_ANNOTATION) {
            Some(annotation) if !annotation.is_empty() => annotation.to_owned(),
            _ => self.seccomp_field().unwrap_or_default(),
        }
    }

    fn seccomp_field(&self) -> Option<String> {
        let profile = self.context()?.seccomp_profile.as_ref()?;
        Some(profile.annotation())
    }

    /// As [`Self::seccomp`], for a container.
    pub(crate) fn container_seccomp(&self, container: &Container) -> String {
        let own = container
            .context()
            .and_then(|context| context.seccomp_profile.as_ref());
        let annotation = |key: &str| self.annotation(key).map(str::to_owned);
        own.map(seccomp::Profile::annotation)
            .or_else(|| {
                annotation(&format!(
                    "{}{}",
                    seccomp::CONTAINER_ANNOTATION,
                    container.name
                ))
            })
            .or_else(|| self.seccomp_field())
            .or_else(|| annotation(seccomp::POD_ANNOTATION))
            .unwrap_or_default()
    }
}

// === impl Container ===

impl Container {
    pub(crate) fn context(&self) -> Option<&SecurityContext> {
        self.security_context.as_ref()
    }

    pub(crate) fn capabilities(&self) -> Option<&Capabilities> {
        self.context()?.capabilities.as_ref()
    }

    pub(crate) fn host_ports(&self) -> impl Iterator<Item = i64> {
        let ports = self.ports.as_deref().unwrap_or_default();
        let ports = ports.iter().filter_map(|port| port.host_port);
        ports.filter(|port| *port > 0)
    }

    pub(crate) fn mounts(&self) -> &[VolumeMount] {
        self.volume_mounts.as_deref().unwrap_or_default()
    }
}

impl Capabilities {
    pub(crate) fn add(&self) -> &[String] {
        self.add.as_deref().unwrap_or_default()
    }

    pub(crate) fn drop(&self) -> &[String] {
        self.drop.as_deref().unwrap_or_default()
    }
}

impl VolumeMount {
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only == Some(true)
    }
}
