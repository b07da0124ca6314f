//! Being told that an object has changed.
//!
//! What the objects say is never taken from here: whoever is told asks the API server for what is true now.
//! So a watch that is late, broken or dead costs time and nothing else, and whoever waits for it asks again
//! after a while all the same.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Yields each time that something may have changed. It never ends.
pub(super) type Changes = Pin<Box<dyn Stream<Item = ()> + Send>>;

/// How long the API server keeps a watch, in seconds: below what the client takes for a dead connection.
const WATCH_SECONDS: u32 = 30;
/// After an error. Whoever waits asks on its own account meanwhile.
const PAUSE: Duration = Duration::from_secs(5);

/// The changes of the object of that name, asked for in a way that RBAC's `resourceNames` can allow.
pub(super) fn changes<K>(api: Api<PartialObjectMeta<K>>, name: &str) -> Changes
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default()
        .fields(&format!("metadata.name={name}"))
        .timeout(WATCH_SECONDS);
    let events = watcher(api, config).filter_map(async |event| match event {
        Ok(watcher::Event::Init) => None,
        Ok(_) => Some(()),
        Err(error) => {
            tracing::debug!(%error, "a watch failed");
            tokio::time::sleep(PAUSE).await;
            None
        }
    });
    events.boxed()
}

/// The changes of any of these.
pub(super) fn any<const N: usize>(changes: [Changes; N]) -> Changes {
    stream::select_all(changes).boxed()
}
