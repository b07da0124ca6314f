//! The API token that the API server mounts into a pod before any webhook is asked.

use hardening_api::policy::ContainerKind;

use crate::pod::{Pod, TOKEN_MOUNT_PATH};

/// Where the injected token stands: what a patch takes out.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Indices into `spec.volumes`.
    pub(crate) volumes: Vec<usize>,
    /// Container kind, index of the container, index of the mount.
    pub(crate) mounts: Vec<(ContainerKind, usize, usize)>,
}

/// The volumes that the API server injected, and their mounts.
pub(crate) fn injected(pod: &Pod<'_>) -> Places {
    let names: Vec<&str> = injected_volumes(pod).map(|(_, name)| name).collect();
    let mounts = pod.containers().flat_map(|(kind, index, container)| {
        let mounts = container.mounts().iter().enumerate();
        let injected = mounts.filter(|(_, mount)| names.contains(&mount.name.as_str()));
        injected
            .map(move |(i, _)| (kind, index, i))
            .collect::<Vec<_>>()
    });
    Places {
        volumes: injected_volumes(pod).map(|(i, _)| i).collect(),
        mounts: mounts.collect(),
    }
}

/// Whether a container mounts an injected volume at a path of its own, which only an author can have
/// asked for.
pub(crate) fn is_used_elsewhere(pod: &Pod<'_>) -> bool {
    injected_volumes(pod).any(|(_, name)| {
        let mut mounts = pod
            .containers()
            .flat_map(|(_, _, container)| container.mounts());
        mounts.any(|mount| {
            mount.name.as_str() == name && mount.mount_path.as_str() != TOKEN_MOUNT_PATH
        })
    })
}

fn injected_volumes<'p>(pod: &'p Pod<'_>) -> impl Iterator<Item = (usize, &'p str)> {
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    let injected = volumes
        .iter()
        .enumerate()
        .filter(|(_, volume)| volume.is_injected_token());
    injected.map(|(i, volume)| (i, volume.name.as_str()))
}
