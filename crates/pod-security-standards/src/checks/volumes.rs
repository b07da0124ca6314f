//! What a pod mounts.

use std::collections::BTreeSet;

use crate::check::Finding;
use crate::evaluation::{Allowed, FieldViolation};
use crate::pod::{Pod, Volume};
use crate::text::{plural, quoted};
use crate::version::Version;

/// The kinds of volume that every level allows.
pub(crate) const ALLOWED: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The others. A volume with several sources, which only validation would refuse, is of the kind that comes
/// first here.
pub(crate) const RESTRICTED: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub(crate) fn host_paths(pod: &Pod, _: Version) -> Option<Finding> {
    let volumes = pod.spec.volumes.iter().enumerate();
    let on_host: Vec<(usize, &Volume)> = volumes
        .filter(|(_, volume)| volume.restricted.contains_key("hostPath"))
        .collect();
    let names: Vec<&str> = on_host.iter().map(|(_, volume)| &*volume.name).collect();
    let fields = on_host
        .iter()
        .map(|(i, volume)| field(*i, volume, "hostPath"));
    (!names.is_empty()).then(|| Finding {
        reason: "hostPath volumes",
        detail: format!(
            "{} {}",
            plural("volume", "volumes", names.len()),
            quoted(&names)
        ),
        fields: fields.collect(),
    })
}

pub(crate) fn kinds(pod: &Pod, _: Version) -> Option<Finding> {
    let mut names = Vec::new();
    let mut kinds = BTreeSet::new();
    let mut fields = Vec::new();
    for (index, volume) in pod.spec.volumes.iter().enumerate() {
        if let Some(kind) = restricted_kind(volume) {
            names.push(&volume.name);
            kinds.insert(kind);
            fields.push(field(index, volume, kind));
        }
    }
    (!names.is_empty()).then(|| Finding {
        reason: "restricted volume types",
        detail: format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", names.len()),
            quoted(&names),
            plural("uses", "use", names.len()),
            plural(
                "restricted volume type",
                "restricted volume types",
                kinds.len()
            ),
            quoted(&kinds),
        ),
        fields,
    })
}

/// The kind of a volume that is not of an allowed one. Without a source that is known a volume is an empty
/// directory.
fn restricted_kind(volume: &Volume) -> Option<&'static str> {
    if volume.is_allowed_kind {
        return None;
    }
    let is_source = |kind: &&'static str| volume.restricted.contains_key(kind);
    RESTRICTED.into_iter().find(is_source)
}

fn field(index: usize, volume: &Volume, kind: &str) -> FieldViolation {
    FieldViolation {
        path: format!("spec.volumes[{index}].{kind}"),
        value: volume.restricted.get(kind).cloned(),
        allowed: Allowed::unset_or(&[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::support::check;

    #[test]
    fn nothing_of_the_node_may_be_mounted() {
        check(
            "hostPathVolumes",
            "latest",
            r#"{"volumes": [{"name": "a", "nfs": {}}, {"name": "b", "hostPath": null}, {"name": "c"}]}"#,
            None,
        );
        check(
            "hostPathVolumes",
            "latest",
            r#"{"volumes": [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "emptyDir": {}}, {"name": "c", "hostPath": {}}]}"#,
            Some((
                r#"hostPath volumes (volumes "a", "c")"#,
                &[
                    r#"spec.volumes[0].hostPath: {"path":"/"}, must be not set"#,
                    "spec.volumes[2].hostPath: {}, must be not set",
                ],
            )),
        );
    }

    #[test]
    fn every_kind_is_allowed_or_told() {
        for kind in ALLOWED {
            let spec = format!(r#"{{"volumes": [{{"name": "a", "{kind}": {{}}}}]}}"#);
            check("restrictedVolumes", "v1.0", &spec, None);
        }
        for kind in RESTRICTED {
            let spec = format!(r#"{{"volumes": [{{"name": "a", "{kind}": {{}}}}]}}"#);
            let text = format!(
                r#"restricted volume types (volume "a" uses restricted volume type "{kind}")"#
            );
            let field = format!("spec.volumes[0].{kind}: {{}}, must be not set");
            check("restrictedVolumes", "v1.0", &spec, Some((&text, &[&field])));
        }
    }

    #[test]
    fn kinds_are_told_once_and_the_unknown_is_an_empty_directory() {
        check(
            "restrictedVolumes",
            "latest",
            r#"{"volumes": [{"name": "a", "nfs": {}, "cephfs": {}}, {"name": "b", "fc": {}}, {"name": "c", "fc": {}},
                {"name": "d", "fc": {}, "secret": {}}, {"name": "e"}, {"name": "f", "newer": {}}]}"#,
            Some((
                r#"restricted volume types (volumes "a", "b", "c" use restricted volume types "fc", "nfs")"#,
                &[
                    "spec.volumes[0].nfs: {}, must be not set",
                    "spec.volumes[1].fc: {}, must be not set",
                    "spec.volumes[2].fc: {}, must be not set",
                ],
            )),
        );
    }
}
