//! Who creates pods all the time, and counts what becomes of them.
//!
//! Most creations are server-side dry runs, which go through admission like any other and cost the store nothing;
//! every tenth pod is really created, and deleted again.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval_at, timeout},
};

/// Where the pods are created.
pub(crate) const NAMESPACE: &str = "load";

/// How many creations are under way at most.
const WORKERS: u32 = 16;
/// One pod of so many is really created.
const REAL: u64 = 10;
/// After so long without an answer the API server is taken to be away.
const PATIENCE: Duration = Duration::from_secs(40);
/// How many failures are kept to be told.
const KEPT: usize = 5;

/// Pods that are created all the time while this value lives.
pub(crate) struct Loader {
    counts: Arc<Mutex<Counts>>,
    _workers: JoinSet<()>,
}

/// What became of the calls so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Pods that the API server answered for, one way or the other.
    pub(crate) calls: u64,
    /// Refused, as no replica could be asked.
    pub(crate) failed: u64,
    /// Created as their author wrote them.
    pub(crate) unhardened: u64,
    /// Without an answer by the API server, or with one that has nothing to do with a webhook.
    pub(crate) unanswered: u64,
    /// When the last call that failed was begun.
    pub(crate) last_failure: Option<Instant>,
    /// What came instead of answers, the latest of it.
    pub(crate) told: VecDeque<String>,
}

/// What became of one call.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Hardened,
    Unhardened,
    Failed(String),
    Unanswered(String),
}

// === impl Loader ===

impl Loader {
    /// Creates so many pods a second, or as many as the machine can.
    pub(crate) fn start(client: &Client, per_second: u32) -> Self {
        let counts = Arc::new(Mutex::new(Counts::default()));
        // What an earlier loader could not delete is in nobody's way.
        let number = Arc::new(AtomicU64::new(fastrand::u64(..1 << 40)));
        let mut workers = JoinSet::new();
        // One after another, as calls that come in a crowd fail in a crowd.
        let (pause, begun) = (Duration::from_secs(1) / per_second, Instant::now());
        for worker in 0..WORKERS {
            let first = begun + pause * worker;
            let (client, counts, number) = (client.clone(), counts.clone(), number.clone());
            workers.spawn(async move {
                let mut ticks = interval_at(first.into(), pause * WORKERS);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let begun = Instant::now();
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    let outcome = create(&client, number).await;
                    counts.lock().unwrap().add(begun, outcome);
                }
            });
        }
        Self {
            counts,
            _workers: workers,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.lock().unwrap().clone()
    }
}

// === impl Counts ===

impl Counts {
    fn add(&mut self, begun: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Hardened => self.calls += 1,
            Outcome::Unhardened => {
                self.calls += 1;
                self.unhardened += 1;
            }
            Outcome::Failed(why) => {
                self.calls += 1;
                self.failed += 1;
                self.last_failure = self.last_failure.max(Some(begun));
                self.tell(why);
            }
            Outcome::Unanswered(why) => {
                self.unanswered += 1;
                self.tell(why);
            }
        }
    }

    fn tell(&mut self, why: String) {
        if self.told.len() == KEPT {
            self.told.pop_front();
        }
        self.told.push_back(why);
    }
}

/// Creates a pod, and tells what became of it.
async fn create(client: &Client, number: u64) -> Outcome {
    let is_real = number.is_multiple_of(REAL);
    let query = if is_real { "" } else { "?dryRun=All" };
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let name = format!("load-{number}");
    let (status, pod) = match send(client, "POST", &format!("{path}{query}"), &pod(&name)).await {
        Ok(answer) => answer,
        Err(why) => return Outcome::Unanswered(why),
    };
    if is_real && status < 300 {
        // What is not deleted, as the API server is away, goes with the cluster.
        let options = json!({"gracePeriodSeconds": 0});
        let _ = send(client, "DELETE", &format!("{path}/{name}"), &options).await;
    }
    judge(status, &pod)
}

/// A pod that no scheduler takes, and whose author says nothing of security.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "schedulerName": "none",
            "containers": [{"name": "app", "image": "registry.example/app:1"}],
        },
    })
}

fn judge(status: u16, body: &Value) -> Outcome {
    let message = || format!("{status}: {}", body["message"].as_str().unwrap_or_default());
    if status < 300 {
        let is_filled = body["metadata"]["annotations"]["podhardening.dev/filled"].is_string();
        let privileges =
            &body["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"];
        return match is_filled && *privileges == json!(false) {
            true => Outcome::Hardened,
            false => Outcome::Unhardened,
        };
    }
    if message().contains("webhook") {
        return Outcome::Failed(message());
    }
    Outcome::Unanswered(message())
}

/// Sends a request; what came instead of an answer is an error.
async fn send(
    client: &Client,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<(u16, Value), String> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(serde_json::to_vec(body).unwrap()))
        .unwrap();
    let answer = async {
        let response = client
            .send(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    };
    timeout(PATIENCE, answer)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}
