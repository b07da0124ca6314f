//! A pod, as far as the standards look at it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::checks::volumes::{ALLOWED, RESTRICTED};
use crate::json::{Object, list, object, objects, optional, or_default, strings};

/// Why a pod could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: not what a pod has there")]
pub struct InvalidPod {
    /// The field, as `spec.containers[0].securityContext.runAsUser`.
    pub path: String,
    #[source]
    cause: serde_json::Error,
}

/// A pod, or a pod template: what has `metadata` and `spec`.
///
/// Fields that no check looks at are passed over, whatever they hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    #[serde(deserialize_with = "object")]
    metadata: Metadata,
    #[serde(deserialize_with = "object")]
    pub(crate) spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(deserialize_with = "strings")]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    #[serde(deserialize_with = "object")]
    pub(crate) security_context: PodSecurityContext,
    #[serde(deserialize_with = "or_default")]
    pub(crate) host_network: bool,
    #[serde(rename = "hostPID", deserialize_with = "or_default")]
    pub(crate) host_pid: bool,
    #[serde(rename = "hostIPC", deserialize_with = "or_default")]
    pub(crate) host_ipc: bool,
    host_users: Option<bool>,
    #[serde(deserialize_with = "object")]
    os: Os,
    #[serde(deserialize_with = "objects")]
    pub(crate) volumes: Vec<Volume>,
    #[serde(deserialize_with = "objects")]
    init_containers: Vec<Container>,
    #[serde(deserialize_with = "objects")]
    containers: Vec<Container>,
    #[serde(deserialize_with = "objects")]
    ephemeral_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Os {
    #[serde(deserialize_with = "or_default")]
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSecurityContext {
    pub(crate) run_as_user: Option<i64>,
    pub(crate) run_as_non_root: Option<bool>,
    #[serde(deserialize_with = "optional")]
    pub(crate) seccomp_profile: Option<Profile>,
    #[serde(deserialize_with = "optional")]
    pub(crate) app_armor_profile: Option<Profile>,
    #[serde(deserialize_with = "optional")]
    pub(crate) se_linux_options: Option<SeLinuxOptions>,
    #[serde(deserialize_with = "object")]
    pub(crate) windows_options: WindowsOptions,
    #[serde(deserialize_with = "objects")]
    pub(crate) sysctls: Vec<Sysctl>,
}

/// Seccomp's and AppArmor's alike.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Profile {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(crate) kind: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SeLinuxOptions {
    #[serde(deserialize_with = "or_default")]
    pub(crate) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) role: String,
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(crate) kind: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WindowsOptions {
    #[serde(deserialize_with = "or_default")]
    pub(crate) host_process: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Sysctl {
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
}

/// A volume, and where it comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volume {
    pub(crate) name: String,
    /// Whether one of its sources is of a kind that every level allows.
    pub(crate) is_allowed_kind: bool,
    /// Its other sources, by kind. More than one is refused by the API server before any check.
    pub(crate) restricted: BTreeMap<&'static str, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "object")]
    pub(crate) security_context: SecurityContext,
    #[serde(deserialize_with = "objects")]
    pub(crate) ports: Vec<Port>,
    #[serde(deserialize_with = "object")]
    pub(crate) liveness_probe: Handler,
    #[serde(deserialize_with = "object")]
    pub(crate) readiness_probe: Handler,
    #[serde(deserialize_with = "object")]
    pub(crate) startup_probe: Handler,
    #[serde(deserialize_with = "object")]
    pub(crate) lifecycle: Lifecycle,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SecurityContext {
    pub(crate) run_as_user: Option<i64>,
    pub(crate) run_as_non_root: Option<bool>,
    pub(crate) privileged: Option<bool>,
    pub(crate) allow_privilege_escalation: Option<bool>,
    pub(crate) proc_mount: Option<String>,
    #[serde(deserialize_with = "object")]
    pub(crate) capabilities: Capabilities,
    #[serde(deserialize_with = "optional")]
    pub(crate) seccomp_profile: Option<Profile>,
    #[serde(deserialize_with = "optional")]
    pub(crate) app_armor_profile: Option<Profile>,
    #[serde(deserialize_with = "optional")]
    pub(crate) se_linux_options: Option<SeLinuxOptions>,
    #[serde(deserialize_with = "object")]
    pub(crate) windows_options: WindowsOptions,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Capabilities {
    #[serde(deserialize_with = "list")]
    pub(crate) add: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub(crate) drop: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    #[serde(deserialize_with = "or_default")]
    pub(crate) host_port: i32,
    #[serde(deserialize_with = "or_default")]
    pub(crate) container_port: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Lifecycle {
    #[serde(deserialize_with = "object")]
    pub(crate) post_start: Handler,
    #[serde(deserialize_with = "object")]
    pub(crate) pre_stop: Handler,
}

/// What a probe, or a step in a container's life, does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Handler {
    #[serde(deserialize_with = "object")]
    pub(crate) http_get: Action,
    #[serde(deserialize_with = "object")]
    pub(crate) tcp_socket: Action,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Action {
    #[serde(deserialize_with = "or_default")]
    pub(crate) host: String,
}

/// A container and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'p> {
    list: List,
    index: usize,
    pub(crate) container: &'p Container,
}

/// A list of containers. They are in the order in which the API server walks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum List {
    Init,
    Main,
    /// Those that are added to a running pod, which the API server does not complete as it does others.
    Ephemeral,
}

/// Whose a setting is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'p> {
    /// The pod's, for all its containers.
    Pod,
    /// A container's own.
    Container(Place<'p>),
}

// === impl Pod ===

impl Pod {
    /// Reads a pod's JSON.
    ///
    /// # Errors
    ///
    /// Where a field that a check looks at has a value of a type that no pod has there.
    pub fn from_json(json: &str) -> Result<Self, InvalidPod> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let pod = Self::read(&mut deserializer)?;
        deserializer.end().map_err(|cause| InvalidPod {
            path: "after the pod".to_owned(),
            cause,
        })?;
        Ok(pod)
    }

    /// As [`Pod::from_json`], where the JSON has been read before.
    ///
    /// # Errors
    ///
    /// As [`Pod::from_json`].
    pub fn from_value(value: &Value) -> Result<Self, InvalidPod> {
        Self::read(value)
    }

    fn read<'de, D>(deserializer: D) -> Result<Self, InvalidPod>
    where
        D: Deserializer<'de, Error = serde_json::Error>,
    {
        let pod = serde_path_to_error::deserialize::<_, Option<Object<Self>>>(deserializer);
        pod.map(|pod| pod.map(|object| object.0).unwrap_or_default())
            .map_err(|error| InvalidPod {
                path: place_of(error.path()),
                cause: error.into_inner(),
            })
    }

    pub(crate) fn context(&self) -> &PodSecurityContext {
        &self.spec.security_context
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.get(key).map(String::as_str)
    }

    /// Annotations whose keys begin like this, in the order of their keys.
    pub(crate) fn annotations(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let all = self.metadata.annotations.iter();
        all.filter(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// All containers, in the order in which the API server walks them.
    pub(crate) fn containers(&self) -> impl Iterator<Item = Place<'_>> {
        let lists = [
            (List::Init, &self.spec.init_containers),
            (List::Main, &self.spec.containers),
            (List::Ephemeral, &self.spec.ephemeral_containers),
        ];
        lists.into_iter().flat_map(|(list, containers)| {
            let containers = containers.iter().enumerate();
            containers.map(move |(index, container)| Place {
                list,
                index,
                container,
            })
        })
    }

    /// A setting that the pod and each of its containers may have: the pod's first.
    pub(crate) fn settings<'p, T: 'p>(
        &'p self,
        of_pod: impl FnOnce(&'p PodSecurityContext) -> Option<T>,
        of_container: impl Fn(&'p SecurityContext) -> Option<T>,
    ) -> impl Iterator<Item = (Owner<'p>, T)> {
        let of_pod = of_pod(self.context()).map(|value| (Owner::Pod, value));
        let of_containers = self
            .containers()
            .filter_map(move |place| Some((Owner::from(place), of_container(place.context())?)));
        of_pod.into_iter().chain(of_containers)
    }

    /// Whether it says that it is for Windows. A node selector does not count.
    pub(crate) fn is_windows(&self) -> bool {
        self.spec.os.name == "windows"
    }

    pub(crate) fn has_user_namespace(&self) -> bool {
        self.spec.host_users == Some(false)
    }
}

fn place_of(path: &serde_path_to_error::Path) -> String {
    match path.to_string().as_str() {
        "." => "the document".to_owned(),
        place => place.to_owned(),
    }
}

// === impl Volume ===

impl<'de> Deserialize<'de> for Volume {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(VolumeVisitor)
    }
}

struct VolumeVisitor;

impl<'de> Visitor<'de> for VolumeVisitor {
    type Value = Volume;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a volume")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Volume, A::Error> {
        let mut volume = Volume::default();
        while let Some(key) = members.next_key::<String>()? {
            if key == "name" {
                volume.name = members.next_value::<Option<String>>()?.unwrap_or_default();
            } else if ALLOWED.contains(&key.as_str()) {
                let source = members.next_value::<Option<BTreeMap<String, IgnoredAny>>>()?;
                volume.is_allowed_kind |= source.is_some();
            } else if let Some(kind) = RESTRICTED.iter().find(|kind| **kind == key) {
                let source = members.next_value::<Option<Map<String, Value>>>()?;
                let source = source.map(|source| (*kind, Value::Object(source)));
                volume.restricted.extend(source);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(volume)
    }
}

// === impl Place ===

impl<'p> Place<'p> {
    pub(crate) fn context(&self) -> &'p SecurityContext {
        &self.container.security_context
    }

    pub(crate) fn is_ephemeral(&self) -> bool {
        self.list == List::Ephemeral
    }
}

// === impl Owner ===

impl<'p> From<Place<'p>> for Owner<'p> {
    fn from(place: Place<'p>) -> Self {
        Self::Container(place)
    }
}

impl<'p> Owner<'p> {
    /// A field, from the top of the pod.
    pub(crate) fn path(&self, field: &str) -> String {
        match self {
            Self::Pod => format!("spec.{field}"),
            Self::Container(place) => {
                let list = match place.list {
                    List::Init => "initContainers",
                    List::Main => "containers",
                    List::Ephemeral => "ephemeralContainers",
                };
                format!("spec.{list}[{}].{field}", place.index)
            }
        }
    }

    /// The container's name.
    pub(crate) fn name(&self) -> Option<&'p str> {
        match self {
            Self::Pod => None,
            Self::Container(place) => Some(&place.container.name),
        }
    }

    pub(crate) fn is(&self, other: &Owner<'_>) -> bool {
        self.order() == other.order()
    }

    /// Where it comes among the others.
    pub(crate) fn order(&self) -> impl Ord + use<> {
        match self {
            Self::Pod => None,
            Self::Container(place) => Some((place.list, place.index)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_wrong_type_is_named_with_its_place() {
        for (json, path) in [
            (r#"[]"#, "the document"),
            (r#""pod""#, "the document"),
            (r#"{"spec": 1}"#, "spec"),
            (r#"{"spec": {"hostPID": "yes"}}"#, "spec.hostPID"),
            (r#"{"spec": {"volumes": {}}}"#, "spec.volumes"),
            (
                r#"{"spec": {"volumes": [{"nfs": 1}]}}"#,
                "spec.volumes[0].nfs",
            ),
            (
                r#"{"spec": {"volumes": [{"name": []}]}}"#,
                "spec.volumes[0].name",
            ),
            (
                r#"{"spec": {"containers": [{}, {"securityContext": {"runAsUser": "1000"}}]}}"#,
                "spec.containers[1].securityContext.runAsUser",
            ),
            (
                r#"{"spec": {"initContainers": [{"ports": [{"hostPort": 1.5}]}]}}"#,
                "spec.initContainers[0].ports[0].hostPort",
            ),
            (
                r#"{"metadata": {"annotations": {"a/b": true}}}"#,
                "metadata.annotations.a/b",
            ),
            (r#"{"spec": {}} {}"#, "after the pod"),
            (r#"{"spec": "#, "spec"),
        ] {
            let error = Pod::from_json(json).unwrap_err();
            assert_eq!(error.path, path, "{json}");
            if let Ok(value) = serde_json::from_str(json) {
                assert_eq!(Pod::from_value(&value).unwrap_err().path, path, "{json}");
            }
        }
    }

    #[test]
    fn null_is_as_good_as_absent_and_the_unknown_is_passed_over() {
        for json in [
            "null",
            r#"{"kind": "Pod", "metadata": null, "spec": null, "status": {"phase": 7}}"#,
            r#"{"metadata": {"annotations": {"a": null}, "labels": 1}, "spec": {"volumes": [null], "containers": [null],
                "securityContext": {"sysctls": [null], "windowsOptions": {"hostProcess": null}}, "new": [1]}}"#,
            r#"{"spec": {"initContainers": [{"ports": [null], "lifecycle": {"preStop": null},
                "securityContext": {"capabilities": {"add": [null]}, "procMount": null}}]}}"#,
        ] {
            Pod::from_json(json).unwrap();
        }
    }
}
