//! Writes what is said of each policy into its status.
//!
//! Through the status subresource, by server-side apply: what others say of a policy, in conditions of other
//! types, stays. A write names the version of the object that it was worked out from, so that one that was
//! changed, deleted or made anew meanwhile is not touched.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{BoxStream, FuturesUnordered};
use hardening_api::{API_VERSION, ClusterPodHardeningPolicy, PodHardeningPolicy, PolicyKind};
use hardening_engine::PolicyKey;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::Metrics;
use crate::metrics::Outcome;
use crate::state::{Additional, State, Write, Written, kind_of};

/// The owner of the fields, for server-side apply.
const FIELD_MANAGER: &str = "pod-hardening-status";
/// How many writes may be on their way at once.
const AT_ONCE: usize = 4;
/// The pause from one write to the next: at most fifty a second, however many policies there are.
const PAUSE: Duration = Duration::from_millis(20);
/// How long to wait for more after the first change, since they come in groups.
const GATHER: Duration = Duration::from_millis(100);
/// The pause after a write that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// How many policies are looked at before the other work of the process has its turn.
const IN_ONE_GO: usize = 64;

/// What happens to a resource, without end; errors among it.
pub type Events<K> = BoxStream<'static, Result<Event<K>, watcher::Error>>;

/// Where policies and namespaces come from.
pub struct Sources {
    /// `PodHardeningPolicies`, as they are.
    pub namespaced: Events<DynamicObject>,
    /// `ClusterPodHardeningPolicies`, as they are.
    pub cluster: Events<DynamicObject>,
    /// Namespaces: their labels.
    pub namespaces: Events<PartialObjectMeta<Namespace>>,
}

/// The writer of policies' status.
pub struct PolicyStatuses {
    client: Client,
    metrics: Metrics,
    additional: AdditionalConditions,
}

/// What other tasks say of policies, as [`PolicyStatuses`] sees it. Clones see the same.
#[derive(Clone, Debug)]
pub struct AdditionalConditions(watch::Receiver<Option<Arc<Additional>>>);

/// Says something of policies, which [`PolicyStatuses`] writes beside what it says itself.
#[derive(Clone, Debug)]
pub struct Additions(watch::Sender<Option<Arc<Additional>>>);

/// Where other tasks say something of policies, and where that is seen. No status is written before they have.
#[must_use]
pub fn additional_conditions() -> (Additions, AdditionalConditions) {
    let (sender, receiver) = watch::channel(None);
    (Additions(sender), AdditionalConditions(receiver))
}

/// What happened.
enum Happened {
    Policy(PolicyKind, Event<DynamicObject>),
    Namespace(Event<PartialObjectMeta<Namespace>>),
    /// The watch goes on by itself, after a pause.
    Error(watcher::Error),
}

// === impl Additions ===

impl Additions {
    /// Says this, in place of all that was said before. A policy that is not among it has no such condition.
    pub fn set(&self, judgements: impl IntoIterator<Item = (PolicyKey, crate::Judgement)>) {
        let said = judgements.into_iter().collect();
        self.0.send_replace(Some(Arc::new(said)));
    }
}

// === impl PolicyStatuses ===

impl PolicyStatuses {
    /// A writer that writes nothing yet.
    #[must_use]
    pub fn new(client: Client, metrics: Metrics, additional: AdditionalConditions) -> Self {
        Self {
            client,
            metrics,
            additional,
        }
    }

    /// Writes, for as long as it is polled: it begins with what the sources show first. It returns only
    /// where the sources end, which they never should.
    pub async fn run(&self, sources: Sources) {
        let mut additional = self.additional.0.clone();
        let mut happening = happenings(sources);
        let mut writes = FuturesUnordered::new();
        let mut state = State::default();
        take_in(&mut additional, &mut state);
        let mut not_before = Instant::now();
        let mut told = String::new();
        loop {
            self.metrics.pending(state.marked());
            let may_look = state.has_work() && writes.len() < AT_ONCE;
            tokio::select! {
                happened = happening.next() => {
                    if !state.has_work() {
                        not_before = not_before.max(Instant::now() + GATHER);
                    }
                    match happened {
                        Some(Happened::Policy(kind, event)) => state.policy(kind, event),
                        Some(Happened::Namespace(event)) => state.namespace(event),
                        Some(Happened::Error(error)) => tell(&mut told, &error),
                        None => return,
                    }
                }
                Ok(()) = additional.changed() => {
                    take_in(&mut additional, &mut state);
                }
                Some((key, written)) = writes.next(), if !writes.is_empty() => {
                    let outcome = self.outcome(&key, written);
                    if let Written::Failed = outcome {
                        not_before = Instant::now() + AFTER_FAILURE;
                    }
                    state.written(&key, outcome);
                }
                () = sleep_until(not_before), if may_look => {
                    let now = Time(Timestamp::now());
                    // All that need not be written costs no pause.
                    let write = std::iter::from_fn(|| state.look(&now)).take(IN_ONE_GO).flatten().next();
                    if let Some(write) = write {
                        writes.push(self.write(write));
                        not_before = Instant::now() + PAUSE;
                    }
                }
            }
        }
    }

    /// What came of a write, told and counted.
    fn outcome(&self, key: &PolicyKey, written: Result<DynamicObject, kube::Error>) -> Written {
        let name = match &key.namespace {
            Some(namespace) => format!("{} {namespace}/{}", kind_of(key).name(), key.name),
            None => format!("{} {}", kind_of(key).name(), key.name),
        };
        match written {
            Ok(object) => {
                self.metrics.wrote(Outcome::Done);
                Written::Done(Box::new(object))
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                let error = status.message;
                debug!(
                    policy = name,
                    error, "the policy changed before its status was written"
                );
                Written::Outdated
            }
            Err(error) => {
                self.metrics.wrote(Outcome::Failed);
                let error = crate::error::chain(&error);
                warn!(
                    policy = name,
                    error, "the status was not written: trying again"
                );
                Written::Failed
            }
        }
    }

    async fn write(&self, write: Write) -> (PolicyKey, Result<DynamicObject, kube::Error>) {
        let Write {
            key,
            version,
            status,
        } = write;
        let kind = kind_of(&key);
        let object: Value = json!({
            "apiVersion": API_VERSION,
            "kind": kind.name(),
            "metadata": {"name": key.name, "namespace": key.namespace, "resourceVersion": version},
            "status": status,
        });
        // What this program says of a policy nobody else may say.
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.api(kind, key.namespace.as_deref());
        let patch = Patch::Apply(&object);
        let written = api.patch_status(&key.name, &params, &patch).await;
        (key, written)
    }

    fn api(&self, kind: PolicyKind, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = match kind {
            PolicyKind::Namespaced => ApiResource::erase::<PodHardeningPolicy>(&()),
            PolicyKind::Cluster => ApiResource::erase::<ClusterPodHardeningPolicy>(&()),
        };
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }
}

/// Takes in what others say, once they have said something.
fn take_in(additional: &mut watch::Receiver<Option<Arc<Additional>>>, state: &mut State) {
    if let Some(said) = &*additional.borrow_and_update() {
        state.additional(Arc::clone(said));
    }
}

/// An error of a watch is told when it is news.
fn tell(told: &mut String, error: &watcher::Error) {
    let error = crate::error::chain(error);
    if *told == error {
        debug!(
            error,
            "cannot watch what status is said of; trying again until it works"
        );
    } else {
        warn!(
            error,
            "cannot watch what status is said of; trying again until it works"
        );
        *told = error;
    }
}

fn happenings(sources: Sources) -> futures::stream::SelectAll<BoxStream<'static, Happened>> {
    let Sources {
        namespaced,
        cluster,
        namespaces,
    } = sources;
    let policies = |kind, events: Events<DynamicObject>| {
        let happened = events.map(move |event| match event {
            Ok(event) => Happened::Policy(kind, event),
            Err(error) => Happened::Error(error),
        });
        happened.boxed()
    };
    let namespaces = namespaces.map(|event| match event {
        Ok(event) => Happened::Namespace(event),
        Err(error) => Happened::Error(error),
    });
    futures::stream::select_all([
        policies(PolicyKind::Namespaced, namespaced),
        policies(PolicyKind::Cluster, cluster),
        namespaces.boxed(),
    ])
}

impl fmt::Debug for PolicyStatuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyStatuses").finish_non_exhaustive()
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}
