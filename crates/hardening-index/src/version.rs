//! Which version of Kubernetes the API servers have, asked for again and again.
//!
//! Behind one address there may be several API servers, and while a cluster is upgraded, or its upgrade taken
//! back, they differ. Each asks the webhook by itself, and one that does not know a field drops it without a
//! word. So what counts is the lowest version that any of them has told lately.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hardening_engine::KubernetesVersion;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::Client;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::stream::backoff;

/// How often an API server is asked.
const EVERY: Duration = Duration::from_secs(60);

/// How long a version counts after it was last told: longer than the API servers of a cluster take, one after
/// the other, to come back from an upgrade.
const LATELY: Duration = Duration::from_secs(600);

/// What is known of the API servers' version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerVersion {
    /// The lowest that was told lately.
    Known(KubernetesVersion),
    /// The API server does not tell: it refuses, or says what is no version.
    Untold,
}

/// The version from the first answer on, and again after each. Errors are part of it: after each the stream
/// pauses, then asks again.
pub(crate) fn versions(client: Client) -> BoxStream<'static, Result<ServerVersion, kube::Error>> {
    let state = (client, Told::default(), Duration::ZERO, backoff());
    stream::unfold(state, async |(client, mut told, pause, mut pauses)| {
        sleep(pause).await;
        let answer = match client.apiserver_version().await {
            Ok(info) => Ok(told.now(version(&info), Instant::now())),
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                Ok(told.now(None, Instant::now()))
            }
            Err(error) => Err(error),
        };
        let pause = match &answer {
            Ok(_) => {
                pauses = backoff();
                EVERY
            }
            Err(_) => pauses.next().unwrap_or(EVERY),
        };
        Some((answer, (client, told, pause, pauses)))
    })
    .boxed()
}

/// The version that the API server which answers acts as, asked until one does; `None`: it does not tell.
pub async fn server_version(client: &Client) -> Option<KubernetesVersion> {
    let mut versions = versions(client.clone());
    loop {
        match versions.next().await {
            Some(Ok(ServerVersion::Known(version))) => return Some(version),
            Some(Ok(ServerVersion::Untold)) | None => return None,
            Some(Err(error)) => {
                debug!(%error, "the API server cannot be asked for its version yet");
            }
        }
    }
}

/// The version that an API server acts as: one can be told to act as an older one than it is.
fn version(info: &Info) -> Option<KubernetesVersion> {
    let emulated = info
        .emulation_major
        .as_ref()
        .zip(info.emulation_minor.as_ref());
    let (major, minor) = emulated.unwrap_or((&info.major, &info.minor));
    format!("{major}.{minor}").parse().ok()
}

/// The versions that were told, and when.
#[derive(Debug, Default)]
struct Told(VecDeque<(Instant, KubernetesVersion)>);

impl Told {
    /// Takes an answer in; what counts with it.
    fn now(&mut self, version: Option<KubernetesVersion>, now: Instant) -> ServerVersion {
        self.0.extend(version.map(|version| (now, version)));
        self.0
            .retain(|(when, _)| now.duration_since(*when) < LATELY);
        let lowest = self.0.iter().map(|(_, version)| *version).min();
        lowest.map_or(ServerVersion::Untold, ServerVersion::Known)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_lowest_version_that_was_told_lately_counts() {
        let start = Instant::now();
        let mut told = Told::default();
        for (second, answer, expected) in [
            (0, None, None),
            (60, Some(34), Some(34)),
            (120, Some(33), Some(33)), // the server that was upgraded last
            (180, Some(34), Some(33)),
            (719, Some(34), Some(33)),
            (720, Some(34), Some(34)),
            (780, None, Some(34)), // one that does not tell says nothing against it
            (840, Some(32), Some(32)),
            (9999, None, None),
        ] {
            let answer = answer.map(KubernetesVersion::v1);
            let expected = expected.map_or(ServerVersion::Untold, |minor| {
                ServerVersion::Known(KubernetesVersion::v1(minor))
            });
            let counts = told.now(answer, start + Duration::from_secs(second));
            assert_eq!(counts, expected, "at {second} s");
        }
    }

    #[test]
    fn what_an_api_server_acts_as_is_its_version() {
        for (major, minor, emulated, expected) in [
            ("1", "36", None, Some("1.36")),
            ("1", "33+", None, Some("1.33")),
            ("1", "36", Some(("1", "34")), Some("1.34")),
            ("", "", None, None),
        ] {
            let mut info = json!({
                "major": major, "minor": minor, "gitVersion": "", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
            });
            if let Some((major, minor)) = emulated {
                info["emulationMajor"] = major.into();
                info["emulationMinor"] = minor.into();
            }
            let info: Info = serde_json::from_value(info).unwrap();
            let found = version(&info).map(|version| version.to_string());
            assert_eq!(found.as_deref(), expected, "{major}.{minor}");
        }
    }
}
