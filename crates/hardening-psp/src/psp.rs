//! The resource as it was typed: `policy/v1beta1` (and, before 1.16, `extensions/v1beta1`)
//! PodSecurityPolicy.
//!
//! Own types, because no library has them any more. Rules and profiles stay text here: a policy with an
//! unknown rule can still be read, and is refused with its field when it is compiled.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Annotation of a PSP: the seccomp profile that pods without one get.
pub const SECCOMP_DEFAULT: &str = "seccomp.security.alpha.kubernetes.io/defaultProfileName";
/// Annotation of a PSP: the seccomp profiles that pods may have, with commas between.
pub const SECCOMP_ALLOWED: &str = "seccomp.security.alpha.kubernetes.io/allowedProfileNames";
/// Annotation of a PSP: the AppArmor profile that containers without one get.
pub const APP_ARMOR_DEFAULT: &str = "apparmor.security.beta.kubernetes.io/defaultProfileName";
/// Annotation of a PSP: the AppArmor profiles that containers may have, with commas between.
pub const APP_ARMOR_ALLOWED: &str = "apparmor.security.beta.kubernetes.io/allowedProfileNames";

/// Why an object could not be read as a PodSecurityPolicy.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPsp {
    /// It is another kind of object.
    #[error(
        "not a PodSecurityPolicy of policy/v1beta1 or extensions/v1beta1, but a {kind} of {api_version}"
    )]
    OtherKind {
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
    },
    /// A field has a value of a type that no PSP has there.
    #[error("{path}: not what a PodSecurityPolicy has there")]
    Field {
        /// The field, as `spec.runAsUser.ranges[0].min`.
        path: String,
        /// What is wrong.
        #[source]
        cause: serde_json::Error,
    },
}

/// A PodSecurityPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurityPolicy {
    /// Its name and annotations.
    #[serde(default)]
    pub metadata: Metadata,
    /// What it says.
    #[serde(default)]
    pub spec: PodSecurityPolicySpec,
}

/// As much of an object's metadata as matters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The object's name.
    #[serde(default)]
    pub name: String,
    /// Its annotations.
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
}

/// Every field of the spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the names and meanings are Kubernetes' own")]
pub struct PodSecurityPolicySpec {
    #[serde(deserialize_with = "null_is_default")]
    pub privileged: bool,
    #[serde(deserialize_with = "null_is_default")]
    pub default_add_capabilities: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub required_drop_capabilities: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub allowed_capabilities: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub volumes: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub host_network: bool,
    #[serde(deserialize_with = "null_is_default")]
    pub host_ports: Vec<HostPortRange>,
    #[serde(rename = "hostPID", deserialize_with = "null_is_default")]
    pub host_pid: bool,
    #[serde(rename = "hostIPC", deserialize_with = "null_is_default")]
    pub host_ipc: bool,
    #[serde(deserialize_with = "null_is_default")]
    pub se_linux: SeLinuxStrategy,
    #[serde(deserialize_with = "null_is_default")]
    pub run_as_user: IdStrategy,
    pub run_as_group: Option<IdStrategy>,
    #[serde(deserialize_with = "null_is_default")]
    pub supplemental_groups: IdStrategy,
    #[serde(deserialize_with = "null_is_default")]
    pub fs_group: IdStrategy,
    #[serde(deserialize_with = "null_is_default")]
    pub read_only_root_filesystem: bool,
    pub default_allow_privilege_escalation: Option<bool>,
    /// The API server made this true where it was left out.
    pub allow_privilege_escalation: Option<bool>,
    #[serde(deserialize_with = "null_is_default")]
    pub allowed_host_paths: Vec<AllowedHostPath>,
    #[serde(deserialize_with = "null_is_default")]
    pub allowed_flex_volumes: Vec<AllowedFlexVolume>,
    #[serde(rename = "allowedCSIDrivers", deserialize_with = "null_is_default")]
    pub allowed_csi_drivers: Vec<AllowedCsiDriver>,
    #[serde(deserialize_with = "null_is_default")]
    pub allowed_unsafe_sysctls: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub forbidden_sysctls: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub allowed_proc_mount_types: Vec<String>,
    pub runtime_class: Option<RuntimeClassStrategy>,
}

/// A range of host ports, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostPortRange {
    /// The lowest.
    pub min: i32,
    /// The highest.
    pub max: i32,
}

/// `80`, `8000-9000`
impl fmt::Display for HostPortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, max } = self;
        match min == max {
            true => write!(f, "{min}"),
            false => write!(f, "{min}-{max}"),
        }
    }
}

/// A range of user or group ids, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdRange {
    /// The lowest.
    pub min: i64,
    /// The highest.
    pub max: i64,
}

/// A rule about user or group ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdStrategy {
    /// RunAsAny, MustRunAs, MayRunAs (groups) or MustRunAsNonRoot (users).
    #[serde(deserialize_with = "null_is_default")]
    pub rule: String,
    /// The ids that the rule is about.
    #[serde(deserialize_with = "null_is_default")]
    pub ranges: Vec<IdRange>,
}

/// A rule about SELinux labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SeLinuxStrategy {
    /// RunAsAny or MustRunAs.
    #[serde(deserialize_with = "null_is_default")]
    pub rule: String,
    /// The labels that MustRunAs is about.
    pub se_linux_options: Option<SeLinuxOptions>,
}

/// SELinux labels; a label left out is the same as an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names and meanings are Kubernetes' own")]
pub struct SeLinuxOptions {
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    #[serde(deserialize_with = "null_is_default")]
    pub role: String,
    #[serde(rename = "type", deserialize_with = "null_is_default")]
    pub type_: String,
    #[serde(deserialize_with = "null_is_default")]
    pub level: String,
}

impl SeLinuxOptions {
    /// As a pod writes them.
    pub(crate) fn to_json(&self) -> Value {
        let labels = [
            ("user", &self.user),
            ("role", &self.role),
            ("type", &self.type_),
            ("level", &self.level),
        ];
        let set = labels.into_iter().filter(|(_, label)| !label.is_empty());
        set.map(|(name, label)| (name.to_owned(), Value::from(label.as_str())))
            .collect()
    }
}

/// A host path that pods may mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedHostPath {
    /// The path, or what it is below.
    #[serde(deserialize_with = "null_is_default")]
    pub path_prefix: String,
    /// Whether every mount of it must be read-only.
    #[serde(deserialize_with = "null_is_default")]
    pub read_only: bool,
}

/// A FlexVolume driver that pods may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllowedFlexVolume {
    /// The driver's name.
    #[serde(deserialize_with = "null_is_default")]
    pub driver: String,
}

/// A CSI driver that pods may use inline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllowedCsiDriver {
    /// The driver's name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
}

/// The RuntimeClasses that pods may ask for, and the one that others get.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeClassStrategy {
    /// Names, or `*` alone.
    #[serde(deserialize_with = "null_is_default")]
    pub allowed_runtime_class_names: Vec<String>,
    /// The one that pods without any get.
    pub default_runtime_class_name: Option<String>,
}

/// As in Kubernetes' own reading, null is as good as nothing.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl PodSecurityPolicy {
    /// Reads an object.
    ///
    /// # Errors
    ///
    /// Where it is of another kind, or a field has a value of another type.
    pub fn read(object: &Value) -> Result<Self, InvalidPsp> {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if !Self::is_kind(api_version, kind) {
            return Err(InvalidPsp::OtherKind {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
            });
        }
        serde_path_to_error::deserialize(object).map_err(|error| InvalidPsp::Field {
            path: error.path().to_string(),
            cause: error.into_inner(),
        })
    }

    /// Whether an object of this `apiVersion` and `kind` is a PodSecurityPolicy.
    #[must_use]
    pub fn is_kind(api_version: &str, kind: &str) -> bool {
        kind == "PodSecurityPolicy"
            && matches!(api_version, "policy/v1beta1" | "extensions/v1beta1")
    }

    /// The paths of the fields of an object's spec that no PodSecurityPolicy had: most likely misspelled,
    /// and the API server ignored them.
    #[must_use]
    pub fn unknown_fields(object: &Value) -> Vec<String> {
        let mut unknown = Vec::new();
        if let Ok(policy) = Self::read(object)
            && let Ok(known) = serde_json::to_value(&policy.spec)
            && let Some(spec) = object.get("spec")
        {
            note_unknown("spec", spec, &known, &mut unknown);
        }
        unknown
    }
}

/// `known` is the same thing as these types write it, which is with every field they have.
fn note_unknown(path: &str, given: &Value, known: &Value, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let path = format!("{path}.{key}");
                match known.get(key) {
                    Some(known) => note_unknown(&path, value, known, unknown),
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                note_unknown(&format!("{path}[{index}]"), given, known, unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_groups_are_read_and_nothing_else() {
        for (api_version, kind, is_psp) in [
            ("policy/v1beta1", "PodSecurityPolicy", true),
            ("extensions/v1beta1", "PodSecurityPolicy", true),
            ("policy/v1", "PodSecurityPolicy", false),
            ("policy/v1beta1", "PodDisruptionBudget", false),
            ("", "", false),
        ] {
            let object = json!({"apiVersion": api_version, "kind": kind, "spec": {}});
            assert_eq!(PodSecurityPolicy::read(&object).is_ok(), is_psp, "{object}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused_with_its_path() {
        for (spec, path) in [
            (
                json!({"runAsUser": {"ranges": [{"min": "1"}]}}),
                "spec.runAsUser.ranges[0].min",
            ),
            (json!({"privileged": "yes"}), "spec.privileged"),
            (json!({"volumes": "*"}), "spec.volumes"),
            (
                json!({"hostPorts": [{"max": 1.5}]}),
                "spec.hostPorts[0].max",
            ),
        ] {
            let object =
                json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy", "spec": spec});
            let error = PodSecurityPolicy::read(&object).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("{path}: not what a PodSecurityPolicy has there")
            );
        }
    }

    #[test]
    fn null_is_as_good_as_nothing() {
        let object = json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy",
            "metadata": {"name": "x", "annotations": null},
            "spec": {"privileged": null, "volumes": null, "runAsUser": null, "seLinux": {"seLinuxOptions": null}}});
        let policy = PodSecurityPolicy::read(&object).unwrap();
        assert_eq!(policy.spec, PodSecurityPolicySpec::default());
    }

    #[test]
    fn fields_that_no_psp_had_are_named() {
        let object = json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy",
            "spec": {"readOnlyRootFileSystem": true, "privileged": false,
                "allowedHostPaths": [{"pathPrefix": "/a"}, {"pathPrefix": "/b", "readonly": true}],
                "seLinux": {"rule": "MustRunAs", "seLinuxOptions": {"level": "s0", "lvl": "x"}}}});
        assert_eq!(
            PodSecurityPolicy::unknown_fields(&object),
            [
                "spec.allowedHostPaths[1].readonly",
                "spec.readOnlyRootFileSystem",
                "spec.seLinux.seLinuxOptions.lvl"
            ]
        );
    }
}
