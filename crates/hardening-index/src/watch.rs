//! Drives the index with the API server's watches.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use hardening_engine::PolicySet;
use kube::runtime::watcher;
use kube::{Client, Config};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::freshness::{CONNECT_TIMEOUT, Clock, READ_TIMEOUT, stale_after};
use crate::index::PolicyIndex;
use crate::metrics::Metrics;
use crate::object::Watched;
use crate::stream::{Change, changes};
use crate::version::{ServerVersion, versions};

/// Whether decisions may be made by what the index knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The first lists of these resources are not complete yet.
    Syncing(Vec<Watched>),
    /// The API server has not told yet which version it is.
    AskingVersion,
    /// All is known, and the API server was heard from lately.
    Fresh,
    /// All was known, but about this resource nothing has been heard for too long.
    Stale(Watched),
}

/// The watches of all resources, as something to run.
pub struct PolicyWatch {
    index: PolicyIndex,
    changes: Vec<BoxStream<'static, Seen>>,
    versions: BoxStream<'static, Result<ServerVersion, kube::Error>>,
    resources: [WatchedResource; Watched::ALL.len()],
    status: watch::Sender<Status>,
    stale_after: Duration,
    metrics: Metrics,
}

/// What a watch says, and which.
type Seen = (Watched, Result<Change, watcher::Error>);

/// How many changes are handed over at once, where so many are there: or each of a list's ten thousand objects would wake
/// the index.
const AT_ONCE: usize = 64;
/// How many times so many may wait for the index.
const WAITING: usize = 4;

struct WatchedResource {
    watched: Watched,
    clock: Clock,
    /// What is wrong at present, since when.
    failing: Option<(String, Instant)>,
}

/// A client for [`watch()`] and other calls that may not hang.
///
/// kube's own defaults let a call wait forever on a connection that died without a word, and try a failed
/// one again up to fifteen times without telling.
///
/// # Errors
///
/// Where the configuration's certificates or credentials are unusable.
pub fn client(mut config: Config) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    config.default_retry = false;
    Client::try_from(config)
}

/// Watches everything that decisions depend on: what to [run](PolicyWatch::run), where the policy sets
/// appear, and whether they may be relied on.
#[must_use]
pub fn watch(
    client: &Client,
    metrics: Metrics,
) -> (
    PolicyWatch,
    watch::Receiver<Arc<PolicySet>>,
    watch::Receiver<Status>,
) {
    let (index, policies) = PolicyIndex::new();
    let (status, status_seen) = watch::channel(Status::Syncing(Watched::ALL.to_vec()));
    let resources = Watched::ALL.map(|watched| WatchedResource {
        watched,
        clock: Clock::new(),
        failing: None,
    });
    let changes = resources.each_ref().map(
        |WatchedResource {
             watched,
             clock,
             failing: _,
         }| {
            let watched = *watched;
            changes(watched, clock.client(client))
                .map(move |change| (watched, change))
                .boxed()
        },
    );
    let watch = PolicyWatch {
        index,
        changes: changes.into(),
        versions: versions(client.clone()),
        resources,
        status,
        stale_after: stale_after(),
        metrics,
    };
    (watch, policies, status_seen)
}

// === impl PolicyWatch ===

impl PolicyWatch {
    /// Watches. It returns only where the watches end, which they never should.
    pub async fn run(mut self) {
        // Lists are read, and policies compiled, side by side: at a start all replicas wait for that.
        let mut watches = JoinSet::new();
        let (sender, mut changes) = mpsc::channel(WAITING);
        for watch in mem::take(&mut self.changes) {
            watches.spawn(hand_over(watch, sender.clone()));
        }
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = watches.join_next() => return,
                seen = changes.recv() => match seen {
                    Some(seen) => seen.into_iter().for_each(|seen| self.see(seen)),
                    None => return,
                },
                version = self.versions.next() => match version {
                    Some(Ok(version)) => {
                        self.index.set_version(version);
                        self.observe();
                    }
                    // The watches tell of a server that does not answer.
                    Some(Err(error)) => debug!(error = chain(&error), "cannot ask for the version"),
                    None => return,
                },
                _ = tick.tick() => self.observe(),
            }
        }
    }

    fn see(&mut self, (watched, change): Seen) {
        match change {
            Ok(change) => self.change(watched, change),
            Err(error) => self.fail(watched, &error),
        }
    }

    fn change(&mut self, watched: Watched, change: Change) {
        match change {
            Change::ListBegins => self.index.begin_list(watched),
            Change::Listed(object) => self.index.list(watched, object),
            Change::ListEnds => {
                self.index.end_list(watched);
                self.observe();
            }
            Change::Applied(object) => self.index.apply(object),
            Change::Deleted(key) => self.index.delete(&key),
        }
        self.metrics.invalid_policies(self.index.invalid_policies());
    }

    /// Counts the error, and logs it where it is news.
    fn fail(&mut self, watched: Watched, error: &watcher::Error) {
        if is_expired(error) {
            // The server no longer has the versions since ours: part of normal life, and a list follows.
            return debug!(resource = %watched, "the watch is too far behind: listing again");
        }
        self.metrics.error(watched);
        let text = describe(watched, error);
        let resource = self
            .resources
            .iter_mut()
            .find(|resource| resource.watched == watched);
        let Some(WatchedResource { failing, .. }) = resource else {
            return;
        };
        match failing {
            Some((known, _)) if *known == text => debug!(resource = %watched, error = text),
            _ => {
                warn!(resource = %watched, error = text, "cannot watch; trying again until it works");
            }
        }
        *failing = Some((text, Instant::now()));
    }

    /// Looks at the clocks.
    fn observe(&mut self) {
        for WatchedResource {
            watched,
            clock,
            failing,
        } in &mut self.resources
        {
            self.metrics.age(*watched, clock.touched().elapsed());
            if failing
                .take_if(|(_, since)| clock.touched() > *since)
                .is_some()
            {
                info!(resource = %watched, "watching again");
            }
        }
        let status = self.current_status();
        self.status.send_if_modified(|known| {
            let changed = *known != status;
            if changed {
                match &status {
                    Status::Stale(_) => warn!("{status}"),
                    Status::Syncing(_) | Status::AskingVersion => debug!("{status}"),
                    Status::Fresh => info!("{status}"),
                }
                *known = status;
            }
            changed
        });
    }

    fn current_status(&self) -> Status {
        let unsynced: Vec<Watched> = self.index.unsynced().collect();
        let stale =
            |resource: &&WatchedResource| resource.clock.touched().elapsed() >= self.stale_after;
        match self.resources.iter().find(stale) {
            _ if !unsynced.is_empty() => Status::Syncing(unsynced),
            _ if !self.index.has_asked_for_version() => Status::AskingVersion,
            Some(resource) => Status::Stale(resource.watched),
            None => Status::Fresh,
        }
    }
}

impl fmt::Debug for PolicyWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyWatch")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// Hands over what a watch says, until it ends or nobody listens.
async fn hand_over(watch: BoxStream<'static, Seen>, changes: mpsc::Sender<Vec<Seen>>) {
    let mut watch = watch.ready_chunks(AT_ONCE);
    while let Some(seen) = watch.next().await {
        if changes.send(seen).await.is_err() {
            return;
        }
    }
}

fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

/// The error in a line, and what to do about the one that everybody meets.
fn describe(watched: Watched, error: &watcher::Error) -> String {
    let client_error = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Some(error),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    };
    match client_error {
        // Of a resource that does not exist the server says so in plain text, without a reason.
        Some(kube::Error::Api(status)) if status.code == 404 && watched.is_policy() => format!(
            "the cluster has no CustomResourceDefinition {watched}; \
             `hardening-controller crds | kubectl apply -f -` installs it"
        ),
        Some(kube::Error::Api(status)) => status.message.clone(),
        Some(error) => chain(error),
        None => error.to_string(),
    }
}

/// The error and its causes, each said once: kube's errors repeat their cause in their own text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

// === impl Status ===

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syncing(unsynced) => {
                let names: Vec<&str> = unsynced.iter().map(|watched| watched.resource()).collect();
                write!(f, "waiting for the first list of {}", names.join(", "))
            }
            Self::AskingVersion => f.write_str("waiting for the API server's version"),
            Self::Fresh => f.write_str("policies and cluster are known and watched"),
            Self::Stale(watched) => {
                write!(
                    f,
                    "the API server has not answered about {watched} for a minute"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;
    use std::fmt::Display;
    use std::sync::Mutex;

    use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
    use futures::stream::{self, Stream};
    use http::{Request, Response, StatusCode};
    use http_body_util::StreamBody;
    use http_body_util::combinators::UnsyncBoxBody;
    use hyper::body::{Bytes, Frame};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;
    use crate::freshness::{STALE_AFTER, WATCH_TIMEOUT};

    /// An API server that lists what it was given, page by page, and sends watch events that it is told.
    #[derive(Clone, Default)]
    struct ApiServer(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        resources: HashMap<&'static str, Vec<Value>>,
        watches: HashMap<&'static str, UnboundedSender<Value>>,
        down: bool,
        /// Its minor version; `None`: it does not answer when it is asked.
        minor: Option<&'static str>,
        requests: Vec<String>,
    }

    const PATHS: [(Watched, &str); 5] = [
        (
            Watched::PodHardeningPolicies,
            "/apis/podhardening.dev/v1alpha1/podhardeningpolicies",
        ),
        (
            Watched::ClusterPodHardeningPolicies,
            "/apis/podhardening.dev/v1alpha1/clusterpodhardeningpolicies",
        ),
        (Watched::Namespaces, "/api/v1/namespaces"),
        (Watched::ServiceAccounts, "/api/v1/serviceaccounts"),
        (
            Watched::RuntimeClasses,
            "/apis/node.k8s.io/v1/runtimeclasses",
        ),
    ];

    fn path(watched: Watched) -> &'static str {
        PATHS.iter().find(|(known, _)| *known == watched).unwrap().1
    }

    type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

    impl ApiServer {
        /// One that has all resources, without objects.
        fn empty() -> Self {
            let server = Self::default();
            server.tell_minor(Some("36"));
            for (watched, _) in PATHS {
                server.serve(watched, &[]);
            }
            server
        }

        fn tell_minor(&self, minor: Option<&'static str>) {
            self.0.lock().unwrap().minor = minor;
        }

        fn serve(&self, watched: Watched, objects: &[Value]) {
            self.0
                .lock()
                .unwrap()
                .resources
                .insert(path(watched), objects.to_vec());
        }

        fn is_down(&self, down: bool) {
            self.0.lock().unwrap().down = down;
        }

        /// A watch begins after its list.
        async fn until_watched(&self, watched: Watched) {
            let watched = async {
                while !self.0.lock().unwrap().watches.contains_key(path(watched)) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(5), watched).await.unwrap();
        }

        fn send(&self, watched: Watched, event: Value) {
            self.0.lock().unwrap().watches[path(watched)]
                .unbounded_send(event)
                .unwrap();
        }

        /// `None`: the connection is refused.
        fn answer(&self, request: &Request<Body>) -> Option<Answer> {
            let mut state = self.0.lock().unwrap();
            let query = request.uri().query().unwrap_or_default().to_owned();
            state
                .requests
                .push(format!("{}?{query}", request.uri().path()));
            if state.down {
                return None;
            }
            if request.uri().path() == "/version" {
                let version = json!({
                    "major": "1", "minor": state.minor?, "gitVersion": "", "gitCommit": "", "gitTreeState": "",
                    "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
                });
                return Some(answer(StatusCode::OK, stream::iter([version])));
            }
            let known = PATHS.iter().map(|(_, path)| *path);
            let path = known
                .into_iter()
                .find(|path| *path == request.uri().path())?;
            let Some(objects) = state.resources.get(path) else {
                return Some(answer(
                    StatusCode::NOT_FOUND,
                    stream::iter(["404 page not found"]),
                ));
            };
            if query.contains("watch=true") {
                let (sender, events) = unbounded();
                state.watches.insert(path, sender);
                return Some(answer(StatusCode::OK, until_timeout(events)));
            }
            // Two objects a page, whatever was asked for.
            let start: usize = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("continue="))
                .map_or(0, |at| at.parse().unwrap());
            let page: Vec<Value> = objects.iter().skip(start).take(2).cloned().collect();
            let end = start + page.len();
            let more = (end < objects.len()).then(|| end.to_string());
            let list = json!({"kind": "List", "apiVersion": "v1",
                "metadata": {"resourceVersion": "1", "continue": more}, "items": page});
            Some(answer(StatusCode::OK, stream::iter([list])))
        }

        fn client(&self) -> Client {
            let server = self.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move {
                    let refused = || std::io::Error::other("connection refused");
                    server.answer(&request).ok_or_else(refused)
                }
            });
            Client::new(service, "default")
        }
    }

    fn answer<L>(status: StatusCode, lines: impl Stream<Item = L> + Send + 'static) -> Answer
    where
        L: Display,
    {
        let lines = lines.map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n")))));
        let body = UnsyncBoxBody::new(StreamBody::new(lines));
        Response::builder().status(status).body(body).unwrap()
    }

    /// A real server ends a watch when its time is up.
    fn until_timeout(events: UnboundedReceiver<Value>) -> impl Stream<Item = Value> {
        events.take_until(tokio::time::sleep(WATCH_TIMEOUT))
    }

    /// What `watch` gives, running, for as long as this is in scope.
    struct Running {
        task: JoinHandle<()>,
        policies: watch::Receiver<Arc<PolicySet>>,
        status: watch::Receiver<Status>,
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    fn run(server: &ApiServer) -> Running {
        let (watch, policies, status) = watch(&server.client(), Metrics::default());
        Running {
            task: tokio::spawn(watch.run()),
            policies,
            status,
        }
    }

    impl Running {
        async fn until(&mut self, status: Status) {
            let reached = self.status.wait_for(|now| *now == status);
            let reached = timeout(Duration::from_secs(200), reached)
                .await
                .map(|seen| seen.is_ok());
            assert_eq!(
                reached,
                Ok(true),
                "not {status:?} but {:?}",
                *self.status.borrow()
            );
        }

        async fn until_version(&mut self, expected: &str) {
            let version = |set: &PolicySet| set.kubernetes_version().map(|known| known.to_string());
            let reached = self
                .policies
                .wait_for(|set| version(set).as_deref() == Some(expected));
            let reached = timeout(Duration::from_secs(1000), reached)
                .await
                .map(|seen| seen.is_ok());
            assert_eq!(
                reached,
                Ok(true),
                "not {expected} but {:?}",
                version(&self.policies.borrow())
            );
        }

        async fn until_policies(&mut self, expected: &[&str]) {
            let in_force = |set: &PolicySet| {
                let mut policies: Vec<String> = set
                    .policies()
                    .map(|policy| policy.reference().to_string())
                    .collect();
                policies.sort();
                policies
            };
            let reached = self.policies.wait_for(|set| in_force(set) == expected);
            let reached = timeout(Duration::from_secs(5), reached)
                .await
                .map(|seen| seen.is_ok());
            assert_eq!(
                reached,
                Ok(true),
                "not {expected:?} but {:?}",
                in_force(&self.policies.borrow())
            );
        }
    }

    fn policy(name: &str, profile: &str) -> Value {
        json!({"apiVersion": "podhardening.dev/v1alpha1", "kind": "PodHardeningPolicy",
            "metadata": {"name": name, "namespace": "shop", "generation": 1, "resourceVersion": "2"},
            "spec": {"profile": profile}})
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_fresh_once_every_page_of_every_list_is_there() {
        let server = ApiServer::empty();
        let listed = ["a", "b", "c", "d", "e"]
            .map(|name| policy(name, if name == "c" { "None" } else { "Hardened" }));
        server.serve(Watched::PodHardeningPolicies, &listed);
        let mut running = run(&server);
        assert_eq!(
            *running.status.borrow(),
            Status::Syncing(Watched::ALL.to_vec())
        );
        assert_eq!(running.policies.borrow().policy_count(), 0);
        running.until(Status::Fresh).await;
        // The one that is broken harms neither its page nor the pages after.
        running
            .until_policies(&["shop/a@1", "shop/b@1", "shop/d@1", "shop/e@1"])
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_fresh_before_the_version_is_known() {
        let server = ApiServer::empty();
        server.tell_minor(None);
        server.serve(Watched::PodHardeningPolicies, &[policy("a", "Restricted")]);
        let mut running = run(&server);
        running.until(Status::AskingVersion).await;
        assert_eq!(running.policies.borrow().policy_count(), 0);
        server.tell_minor(Some("33"));
        running.until(Status::Fresh).await;
        running.until_version("1.33").await;
        running.until_policies(&["shop/a@1"]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_version_counts_at_once_and_a_newer_one_when_the_older_was_not_told_for_long()
    {
        let server = ApiServer::empty();
        server.tell_minor(Some("34"));
        let mut running = run(&server);
        running.until_version("1.34").await;
        server.tell_minor(Some("33"));
        running.until_version("1.33").await;
        let older = Instant::now();
        server.tell_minor(Some("34"));
        running.until_version("1.34").await;
        let lasted = older.elapsed();
        assert!(lasted >= Duration::from_secs(600), "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_published_as_they_come() {
        let server = ApiServer::empty();
        let mut running = run(&server);
        running.until(Status::Fresh).await;
        server.until_watched(Watched::PodHardeningPolicies).await;
        let send = |kind: &str, name: &str| {
            let event = json!({"type": kind, "object": policy(name, "Restricted")});
            server.send(Watched::PodHardeningPolicies, event);
        };
        send("ADDED", "a");
        running.until_policies(&["shop/a@1"]).await;
        send("ADDED", "b");
        running.until_policies(&["shop/a@1", "shop/b@1"]).await;
        send("DELETED", "a");
        running.until_policies(&["shop/b@1"]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_too_far_behind_lists_again() {
        let server = ApiServer::empty();
        server.serve(Watched::PodHardeningPolicies, &[policy("a", "Restricted")]);
        let mut running = run(&server);
        running.until_policies(&["shop/a@1"]).await;
        server.until_watched(Watched::PodHardeningPolicies).await;
        server.serve(Watched::PodHardeningPolicies, &[policy("b", "Restricted")]);
        let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": "too old resource version", "reason": "Expired", "code": 410});
        server.send(
            Watched::PodHardeningPolicies,
            json!({"type": "ERROR", "object": gone}),
        );
        running.until_policies(&["shop/b@1"]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_definition_it_waits_for_it() {
        let server = ApiServer::empty();
        server
            .0
            .lock()
            .unwrap()
            .resources
            .remove(path(Watched::PodHardeningPolicies));
        let mut running = run(&server);
        running
            .until(Status::Syncing(vec![Watched::PodHardeningPolicies]))
            .await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(
            *running.status.borrow(),
            Status::Syncing(vec![Watched::PodHardeningPolicies])
        );
        server.serve(Watched::PodHardeningPolicies, &[]);
        running.until(Status::Fresh).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_stays_fresh_on_a_quiet_cluster() {
        let server = ApiServer::empty();
        let mut running = run(&server);
        running.until(Status::Fresh).await;
        running.status.mark_unchanged();
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(
            !running.status.has_changed().unwrap(),
            "{:?}",
            *running.status.borrow()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_stale_after_a_minute_without_the_api_server_and_keeps_what_it_knows() {
        let server = ApiServer::empty();
        server.serve(Watched::PodHardeningPolicies, &[policy("a", "Restricted")]);
        let mut running = run(&server);
        running.until(Status::Fresh).await;
        server.is_down(true);
        let down = Instant::now();
        let stale = running
            .status
            .wait_for(|status| matches!(status, Status::Stale(_)));
        timeout(Duration::from_secs(200), stale)
            .await
            .unwrap()
            .unwrap();
        // The last sign of life is at most as old as a watch when the server goes down.
        let lasted = down.elapsed();
        let expected = STALE_AFTER - WATCH_TIMEOUT..STALE_AFTER + Duration::from_secs(17);
        assert!(expected.contains(&lasted), "{lasted:?}");
        running.until_policies(&["shop/a@1"]).await;

        server.is_down(false);
        let up = Instant::now();
        running.until(Status::Fresh).await;
        assert!(
            up.elapsed() <= Duration::from_secs(30),
            "{:?}",
            up.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_is_asked_ever_more_seldom() {
        let server = ApiServer::empty();
        server.is_down(true);
        let running = run(&server);
        tokio::time::sleep(Duration::from_secs(600)).await;
        let namespaces = path(Watched::Namespaces);
        let asked = server
            .0
            .lock()
            .unwrap()
            .requests
            .iter()
            .filter(|path| path.starts_with(namespaces))
            .count();
        // Pauses of 2 to 4 seconds, after the first few.
        assert!((150..310).contains(&asked), "{asked}");
        drop(running);
    }

    #[tokio::test(start_paused = true)]
    async fn lists_are_paged_and_never_answered_from_a_cache_of_any_age() {
        let server = ApiServer::empty();
        let mut running = run(&server);
        running.until(Status::Fresh).await;
        let requests = server.0.lock().unwrap().requests.clone();
        let lists: Vec<&String> = requests
            .iter()
            .filter(|r| !r.contains("watch=true") && !r.starts_with("/version"))
            .collect();
        assert_eq!(lists.len(), Watched::ALL.len(), "{lists:?}");
        for list in lists {
            assert!(
                list.contains("limit=500") && !list.contains("resourceVersion"),
                "{list}"
            );
        }
    }

    #[test]
    fn errors_say_what_is_missing() {
        let status = |code: u16, reason: &str, message: &str| {
            let status =
                json!({"status": "Failure", "code": code, "reason": reason, "message": message});
            kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
        };
        let cases = [
            (
                Watched::PodHardeningPolicies,
                status(
                    404,
                    "NotFound",
                    "the server could not find the requested resource",
                ),
                "the cluster has no CustomResourceDefinition podhardeningpolicies.podhardening.dev; \
                 `hardening-controller crds | kubectl apply -f -` installs it",
            ),
            (
                Watched::RuntimeClasses,
                status(
                    403,
                    "Forbidden",
                    "runtimeclasses.node.k8s.io is forbidden: User \"x\" cannot list",
                ),
                "runtimeclasses.node.k8s.io is forbidden: User \"x\" cannot list",
            ),
            (
                Watched::Namespaces,
                kube::Error::Service(Box::new(std::io::Error::other("connection refused"))),
                "ServiceError: connection refused",
            ),
        ];
        for (watched, error, expected) in cases {
            let error = watcher::Error::InitialListFailed(error);
            assert_eq!(describe(watched, &error), expected);
        }
    }
}
