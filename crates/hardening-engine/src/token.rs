//! The API token that the API server mounts into a pod before any webhook is asked.

use hardening_api::policy::ContainerKind;

use serde::Deserialize;

use crate::json::{Presence, Text};
use crate::pod::{Pod, Volume};

/// Where the injected token stands: what a patch takes out.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Indices into `spec.volumes`.
    pub(crate) volumes: Vec<usize>,
    /// Container kind, index of the container, index of the mount.
    pub(crate) mounts: Vec<(ContainerKind, usize, usize)>,
}

/// A projected volume, as far as it tells the one that the API server injects.
#[derive(Debug, Deserialize)]
pub(crate) struct Projected<'a> {
    #[serde(borrow, default)]
    sources: Option<Vec<ProjectedSource<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProjectedSource<'a> {
    #[serde(borrow, default)]
    service_account_token: Option<TokenSource<'a>>,
    #[serde(default)]
    config_map: Presence,
    #[serde(default, rename = "downwardAPI")]
    downward_api: Presence,
    #[serde(default)]
    secret: Presence,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenSource<'a> {
    #[serde(borrow, default)]
    audience: Option<Text<'a>>,
    #[serde(default)]
    expiration_seconds: Option<i64>,
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
        mounts.any(|mount| mount.name.as_str() == name && mount.mount_path.as_str() != MOUNT_PATH)
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

// === impl Volume ===

/// Where the API server mounts the token that it injects.
pub(crate) const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

impl Volume<'_> {
    /// Whether the API server's ServiceAccount admission made this volume: told by its generated name, and
    /// by its sources, which are one token of that admission's own lifetime and without an audience, the
    /// cluster's CA (a distribution may add more) and the namespace.
    fn is_injected_token(&self) -> bool {
        let sources = self
            .projected
            .as_ref()
            .and_then(|projected| projected.sources.as_deref());
        let sources = sources.unwrap_or_default();
        let count = |is: fn(&ProjectedSource<'_>) -> bool| {
            sources.iter().filter(|source| is(source)).count()
        };
        let generated = self.name.as_str().strip_prefix("kube-api-access-");
        generated.is_some_and(|suffix| suffix.len() == 5)
            && count(|source| {
                source
                    .service_account_token
                    .as_ref()
                    .is_some_and(TokenSource::is_injected)
            }) == 1
            && count(|source| source.service_account_token.is_some()) == 1
            && count(|source| source.config_map.0) >= 1
            && count(|source| source.downward_api.0) == 1
            && count(|source| source.secret.0) == 0
    }
}

impl TokenSource<'_> {
    fn is_injected(&self) -> bool {
        // An hour and seven seconds: a lifetime that nobody else asks for.
        self.expiration_seconds == Some(3607)
            && self.audience.as_ref().is_none_or(|a| a.as_str().is_empty())
    }
}
