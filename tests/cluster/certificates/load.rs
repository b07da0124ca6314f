//! Calls that must not fail, all the time: pods that are created, and new connections to each replica by a
//! client that trusts what the configuration said a moment ago.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fleet::{CONFIGURATION, Fleet, SHOP};
use crate::support::api::{Api, Refusal, until};

/// An API server that is late: how long it goes by an old configuration. Less than managers wait for.
const LATE: Duration = Duration::from_millis(500);

pub(super) struct Load {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    counts: Arc<Counts>,
    /// What was counted when [`Load::go_on`] looked last.
    seen: usize,
}

#[derive(Default)]
pub(super) struct Counts {
    pods: AtomicUsize,
    connections: AtomicUsize,
    /// How often the webhook's URL was moved to another replica.
    moves: AtomicUsize,
    failures: std::sync::Mutex<Vec<String>>,
}

impl Load {
    pub(super) async fn start(fleet: &Fleet) -> Self {
        let counts = Arc::new(Counts::default());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let api = &fleet.api;
        until("the API server asks the webhook", async || {
            create(api).await.ok()
        })
        .await;
        let until_stopped = |task: futures::future::BoxFuture<'static, ()>| {
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(task).await;
            }
        };
        for _ in 0..2 {
            let (api, counts) = (fleet.api.clone(), Arc::clone(&counts));
            tasks.spawn(until_stopped(Box::pin(create_pods(api, counts))));
        }
        let (api, urls) = (fleet.api.clone(), fleet.urls.clone());
        tasks.spawn(until_stopped(Box::pin(connect(
            api,
            urls,
            Arc::clone(&counts),
        ))));
        let (api, urls) = (fleet.api.clone(), fleet.urls.clone());
        tasks.spawn(until_stopped(Box::pin(move_about(
            api,
            urls,
            Arc::clone(&counts),
        ))));
        Self {
            tasks,
            stop,
            counts,
            seen: 0,
        }
    }

    /// Waits until a pod more was created, so that whoever looks in a loop looks while there is load.
    pub(super) async fn go_on(&mut self) {
        let seen = self.seen;
        self.seen = until("pods are being created", async || {
            let pods = self.counts.pods.load(Ordering::Relaxed);
            let failed = !self.counts.failures.lock().unwrap().is_empty();
            (failed || pods > seen).then_some(pods)
        })
        .await;
        self.counts.assert_none_failed();
    }

    /// A review over a new connection, by a client that trusts this CA alone.
    pub(super) async fn call(&self, url: &str, ca: &str) -> Result<Value, String> {
        review(url, ca.as_bytes()).await
    }

    pub(super) async fn end(self) -> Arc<Counts> {
        let Self {
            tasks,
            stop,
            counts,
            seen: _,
        } = self;
        stop.cancel();
        tasks.join_all().await;
        counts
    }
}

impl Counts {
    fn fail(&self, what: String) {
        self.failures.lock().unwrap().push(what);
    }

    pub(super) fn assert_none_failed(&self) {
        let failures = self.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{} calls failed: {failures:#?}",
            failures.len()
        );
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [pods, connections, moves] =
            [&self.pods, &self.connections, &self.moves].map(|count| count.load(Ordering::Relaxed));
        let failed = self.failures.lock().unwrap().len();
        write!(
            f,
            "{pods} pods created, {connections} new connections, {moves} moves to another replica, {failed} calls failed"
        )
    }
}

async fn create_pods(api: Api, counts: Arc<Counts>) {
    loop {
        match create(&api).await {
            Ok(()) => {
                counts.pods.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => counts.fail(error),
        }
    }
}

/// Creates a pod, which must come out hardened.
async fn create(api: &Api) -> Result<(), String> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "a-"},
        "spec": {"containers": [{"name": "a", "image": "registry.example/a"}]},
    });
    let created = api
        .post(&format!("/api/v1/namespaces/{SHOP}/pods"), &pod)
        .await;
    let created = created.map_err(|refusal: Refusal| format!("a pod was refused: {refusal}"))?;
    if created["spec"]["hostUsers"] == false {
        Ok(())
    } else {
        Err("a pod came to be unhardened".to_owned())
    }
}

/// Connects anew to each replica in turn, as an API server would that is late.
async fn connect(api: Api, urls: Vec<String>, counts: Arc<Counts>) {
    loop {
        let read = Instant::now();
        let ca = decoded(&bundle(&api).await);
        while read.elapsed() < LATE {
            for url in &urls {
                match review(url, ca.as_bytes()).await {
                    Ok(_) => {
                        counts.connections.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => counts.fail(format!("{url}: {error}")),
                }
            }
        }
    }
}

/// Sends the API server to another replica again and again, so that it has to connect anew, too.
async fn move_about(api: Api, urls: Vec<String>, counts: Arc<Counts>) {
    for url in urls.iter().cycle() {
        let patch = json!([
            {"op": "replace", "path": "/webhooks/0/clientConfig/url", "value": format!("{url}/mutate")},
        ]);
        let content = [("content-type", "application/json-patch+json")];
        let answer = api
            .request("PATCH", CONFIGURATION, &content, Some(&patch))
            .await;
        if answer.status == 200 {
            counts.moves.fetch_add(1, Ordering::Relaxed);
        } else {
            counts.fail(format!("the webhook cannot be moved: {answer:?}"));
        }
        // The pace of the load, not a wait for anything.
        tokio::time::interval_at(tokio::time::Instant::now() + LATE, LATE)
            .tick()
            .await;
    }
}

async fn bundle(api: &Api) -> Value {
    let configuration = api.get(CONFIGURATION).await.unwrap();
    configuration["webhooks"][0]["clientConfig"]["caBundle"].clone()
}

/// A review over a new connection.
async fn review(url: &str, ca: &[u8]) -> Result<Value, String> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "a", "namespace": SHOP, "operation": "CREATE",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
                "spec": {"containers": [{"name": "a", "image": "a"}]}},
        },
    });
    let webhook = Api::at(url, ca).await;
    let answer = webhook.try_post("/mutate", &review).await?;
    if answer["response"]["allowed"] == true {
        Ok(answer)
    } else {
        Err(answer.to_string())
    }
}

/// Text that the API server gives in base64.
pub(super) fn decoded(value: &Value) -> String {
    let text = base64::engine::general_purpose::STANDARD
        .decode(value.as_str().unwrap())
        .unwrap();
    String::from_utf8(text).unwrap()
}
