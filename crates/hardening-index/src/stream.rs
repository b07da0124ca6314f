//! One resource's watch as a stream of changes that never ends.

use std::fmt::Debug;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use hardening_api::{ClusterPodHardeningPolicy, PodHardeningPolicy};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::freshness::WATCH_TIMEOUT;
use crate::object::{Key, Namespace, Object, RawPolicy, RuntimeClass, ServiceAccount, Watched};

/// What happened to a resource's objects.
pub(crate) enum Change {
    ListBegins,
    Listed(Object),
    ListEnds,
    Applied(Object),
    Deleted(Key),
}

/// What happens to the objects of a resource, from their first list on. Errors are part of it: after each
/// the stream pauses, then goes on where it was.
pub(crate) fn changes(
    watched: Watched,
    client: Client,
) -> BoxStream<'static, Result<Change, watcher::Error>> {
    match watched {
        Watched::PodHardeningPolicies => {
            let api = Api::<RawPolicy<PodHardeningPolicy>>::all(client);
            objects(api, Object::policy, Key::of_policy)
        }
        Watched::ClusterPodHardeningPolicies => {
            let api = Api::<RawPolicy<ClusterPodHardeningPolicy>>::all(client);
            objects(api, Object::policy, Key::of_policy)
        }
        Watched::Namespaces => {
            let api = Api::<Namespace>::all(client);
            objects(api, Object::namespace, Key::of_namespace)
        }
        Watched::ServiceAccounts => {
            let api = Api::<ServiceAccount>::all(client);
            objects(api, Object::service_account, Key::of_service_account)
        }
        Watched::RuntimeClasses => {
            let api = Api::<RuntimeClass>::all(client);
            objects(api, Object::runtime_class, Key::of_runtime_class)
        }
    }
}

fn objects<K>(
    api: Api<K>,
    object: fn(K) -> Object,
    key: fn(&K) -> Key,
) -> BoxStream<'static, Result<Change, watcher::Error>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let changes = events(api).map_ok(move |event| match event {
        Event::Init => Change::ListBegins,
        Event::InitApply(listed) => Change::Listed(object(listed)),
        Event::InitDone => Change::ListEnds,
        Event::Apply(applied) => Change::Applied(object(applied)),
        Event::Delete(deleted) => Change::Deleted(key(&deleted)),
    });
    changes.boxed()
}

/// What happens to the objects of a resource, from their first list on, without end. Errors are part of it:
/// after each the stream pauses, then goes on where it was.
pub fn events<K>(api: Api<K>) -> BoxStream<'static, Result<Event<K>, watcher::Error>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    pausing(watcher(api, config())).boxed()
}

/// Lists are paged, and read what is true now: "any" version, which a server could answer from its cache,
/// might be older than what this process, or the one before it, has already acted on.
fn config() -> watcher::Config {
    let seconds = u32::try_from(WATCH_TIMEOUT.as_secs()).unwrap_or(u32::MAX);
    watcher::Config::default().timeout(seconds).page_size(500)
}

/// Pauses after each error, longer each time, until something is heard again.
///
/// Not kube's own `default_backoff`: that one takes the announcement of a list, which comes before the
/// first byte was sent, for a success, and so never gets beyond its shortest pause; and its longest is
/// longer than a recovery may take.
fn pausing<K: Send + 'static>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send {
    // In a box, as it is handed on with each event.
    let state = Box::new(Pausing {
        events: events.boxed(),
        backoff: backoff(),
        pause: None,
    });
    stream::unfold(state, async |mut state| {
        let item = state.next().await?;
        Some((item, state))
    })
}

struct Pausing<K> {
    events: BoxStream<'static, Result<Event<K>, watcher::Error>>,
    backoff: ExponentialBackoff,
    pause: Option<Duration>,
}

impl<K> Pausing<K> {
    async fn next(&mut self) -> Option<Result<Event<K>, watcher::Error>> {
        if let Some(pause) = self.pause.take() {
            tokio::time::sleep(pause).await;
        }
        let item = self.events.next().await?;
        match &item {
            Err(_) => self.pause = self.backoff.next(),
            Ok(Event::Init) => {}
            Ok(Event::InitApply(_) | Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                self.backoff = backoff();
            }
        }
        Some(item)
    }
}

/// Half a second, doubled up to two seconds, and up to twice that by jitter: so that policies are fresh within ten
/// seconds of the API server's return, however long it was away.
pub(crate) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
        .build()
}
