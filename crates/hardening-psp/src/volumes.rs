//! Which volumes PodSecurityPolicy refused.

use serde::Deserialize;
use serde_json::Value;

use crate::pod::{Pod, Volume};
use crate::policy::{ANY, Policy};
use crate::psp::AllowedHostPath;
use crate::validate::Denials;

/// The kinds of volume: the field in a pod, and the kind's name in a PSP. A volume with several sources, which
/// only validation would refuse, is of the kind that comes first here.
pub(crate) const KINDS: [(&str, &str); 29] = [
    ("hostPath", "hostPath"),
    ("emptyDir", "emptyDir"),
    ("gcePersistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("gitRepo", "gitRepo"),
    ("secret", "secret"),
    ("nfs", "nfs"),
    ("iscsi", "iscsi"),
    ("glusterfs", "glusterfs"),
    ("persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd"),
    ("flexVolume", "flexVolume"),
    ("cinder", "cinder"),
    ("cephfs", "cephFS"),
    ("flocker", "flocker"),
    ("downwardAPI", "downwardAPI"),
    ("fc", "fc"),
    ("azureFile", "azureFile"),
    ("configMap", "configMap"),
    ("vsphereVolume", "vsphereVolume"),
    ("quobyte", "quobyte"),
    ("azureDisk", "azureDisk"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("storageos", "storageos"),
    ("projected", "projected"),
    ("portworxVolume", "portworxVolume"),
    ("scaleIO", "scaleIO"),
    ("csi", "csi"),
    ("ephemeral", "ephemeral"),
];

pub(crate) fn validate(policy: &Policy, pod: &Pod, denials: &mut Denials) {
    for (index, volume) in pod.volumes().iter().enumerate() {
        validate_one(policy, pod, index, volume, denials);
    }
}

fn validate_one(policy: &Policy, pod: &Pod, index: usize, volume: &Volume, denials: &mut Denials) {
    let path = format!("spec.volumes[{index}]");
    let source = |field: &str| volume.sources.get(field).filter(|source| !source.is_null());
    let found = KINDS
        .iter()
        .find_map(|(field, kind)| source(field).map(|source| (*kind, source)));
    let Some((kind, source)) = found else {
        denials.invalid(path, "unknown kind of volume");
        return;
    };
    let allowed = policy.volumes.contains(ANY)
        || policy.volumes.contains(kind)
        || (kind == "projected" && policy.volumes.contains("secret") && is_token(source));
    if !allowed {
        denials.invalid(
            path,
            format!("{kind}: volumes of this kind are not allowed"),
        );
        return;
    }
    let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default();
    match kind {
        "hostPath" => host_path(policy, pod, &path, &volume.name, text("path"), denials),
        "flexVolume" => {
            let (drivers, driver) = (&policy.allowed_flex_drivers, text("driver"));
            if !drivers.is_empty() && !drivers.contains(driver) {
                denials.invalid(format!("{path}.driver"), format!("{driver}: not allowed"));
            }
        }
        "csi" => {
            let (drivers, driver) = (&policy.allowed_csi_drivers, text("driver"));
            if !drivers.is_empty() && !drivers.contains(driver) {
                let detail = format!("{driver}: not allowed");
                denials.invalid(format!("{path}.csi.driver"), detail);
            }
        }
        _ => {}
    }
}

fn host_path(
    policy: &Policy,
    pod: &Pod,
    path: &str,
    volume: &str,
    host_path: &str,
    denials: &mut Denials,
) {
    if policy.allowed_host_paths.is_empty() {
        return;
    }
    let covers = |allowed: &&AllowedHostPath| is_below(host_path, &allowed.path_prefix);
    let matching: Vec<_> = policy.allowed_host_paths.iter().filter(covers).collect();
    if matching.is_empty() {
        let detail = format!("{host_path}: not allowed");
        denials.invalid(format!("{path}.hostPath.pathPrefix"), detail);
    } else if matching.iter().all(|allowed| allowed.read_only) {
        for place in pod.containers() {
            for (mount_index, mount) in place.container.mounts().iter().enumerate() {
                if mount.name == volume && !mount.is_read_only() {
                    let field = format!(
                        "spec.{}[{}].volumeMounts[{mount_index}].readOnly",
                        place.list, place.index
                    );
                    denials.invalid(field, format!("{host_path}: must be mounted read-only"));
                }
            }
        }
    }
}

/// Whether a path is the prefix or below it, segment by segment, after one slash is taken off the end of both.
pub(crate) fn is_below(path: &str, prefix: &str) -> bool {
    let trim = |path| str::strip_suffix(path, "/").unwrap_or(path);
    trim(path)
        .strip_prefix(trim(prefix))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Projected {
    sources: Option<Vec<Source>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Source {
    service_account_token: Option<Token>,
    config_map: Option<ConfigMap>,
    #[serde(rename = "downwardAPI")]
    downward_api: Option<DownwardApi>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Token {
    path: Option<String>,
    audience: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigMap {
    name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DownwardApi {
    items: Option<Vec<DownwardItem>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DownwardItem {
    path: Option<String>,
    field_ref: Option<FieldRef>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FieldRef {
    api_version: Option<String>,
    field_path: Option<String>,
}

/// Whether a projected volume holds nothing but what the ServiceAccount admission mounts, which 1.22 changed
/// from a secret to a projected volume. Policies that allowed secrets went on to allow it.
fn is_token(source: &Value) -> bool {
    Projected::deserialize(source)
        .is_ok_and(|projected| projected.sources.iter().flatten().all(Source::is_token))
}

impl Source {
    fn is_token(&self) -> bool {
        let is = |text: &Option<String>, expected: &str| text.as_deref() == Some(expected);
        let known = self.service_account_token.is_some()
            || self.config_map.is_some()
            || self.downward_api.is_some();
        let token = self.service_account_token.iter().all(|token| {
            is(&token.path, "token") && token.audience.as_deref().unwrap_or_default().is_empty()
        });
        let config_map = self
            .config_map
            .iter()
            .all(|config_map| is(&config_map.name, "kube-root-ca.crt"));
        let items = self
            .downward_api
            .iter()
            .flat_map(|api| api.items.iter().flatten());
        let downward = items.into_iter().all(|item| {
            is(&item.path, "namespace")
                && item.field_ref.as_ref().is_some_and(|field| {
                    is(&field.api_version, "v1") && is(&field.field_path, "metadata.namespace")
                })
        });
        known && token && config_map && downward
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_are_compared_by_segments() {
        for (path, prefix, expected) in [
            ("/foo", "/foo", true),
            ("/foo/", "/foo", true),
            ("/foo/bar", "/foo/", true),
            ("/foobar", "/foo", false),
            ("/foo", "/foo/bar", false),
            ("/anything", "/", true),
            ("relative", "/", false),
            ("//foo", "/foo", false),
        ] {
            assert_eq!(is_below(path, prefix), expected, "{path} {prefix}");
        }
    }
}
