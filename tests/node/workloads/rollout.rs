//! A Deployment that is rolled over, followed by a watch on its pods: how many are ready after every event, and
//! what each one's process reports as it ends.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{WatchEvent, WatchParams};
use serde_json::{Value, json};
use test_control_plane::{ControlPlane, Image};

use crate::support::bench::Bench;
use crate::support::case::working;
use crate::support::observe::observe;
use crate::support::report::{Report, SCRIPT, WAIT};

const REPLICAS: usize = 3;
const NAME: &str = "web";
/// How long one step may take.
const DEADLINE: Duration = Duration::from_secs(90);
/// When, with no event, the Deployment is looked at.
const QUIET: Duration = Duration::from_millis(300);

type Events = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Pod>>> + Send>>;

/// A Deployment and what has been seen of its pods.
pub(super) struct Rollout<'b> {
    bench: &'b Bench,
    path: String,
    events: Events,
    /// The pods that there are, by name.
    pods: BTreeMap<String, Value>,
    /// What the processes of pods said at their end, by round and pod.
    reports: BTreeMap<(String, String), Report>,
    /// Whether there must be enough ready pods from now on.
    serves: bool,
}

impl<'b> Rollout<'b> {
    /// Creates the Deployment, and waits until all replicas are ready.
    pub(super) async fn start(bench: &'b Bench, round: &str) -> Self {
        let path = bench.path("apis/apps/v1", "deployments");
        let labels = json!({"case": NAME});
        let mut container = working("app", Image::ROOT);
        container["command"] = json!(["sh", "-c", format!("{SCRIPT}\n{WAIT}")]);
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME},
            "spec": {
                "replicas": REPLICAS, "selector": {"matchLabels": labels},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {
                    "metadata": {"labels": labels, "annotations": {"round": round}},
                    "spec": {"containers": [container], "terminationGracePeriodSeconds": 10},
                },
            },
        });
        let client = ControlPlane::shared().await.unwrap().client().unwrap();
        let pods = kube::Api::<Pod>::namespaced(client, bench.topic);
        let events = pods
            .watch(&WatchParams::default().labels(&format!("case={NAME}")), "0")
            .await
            .unwrap();
        bench.api.post(&path, &deployment).await.unwrap();
        let mut rollout = Self {
            bench,
            path: format!("{path}/{NAME}"),
            events: events.boxed(),
            pods: BTreeMap::new(),
            reports: BTreeMap::new(),
            serves: false,
        };
        rollout.until_rolled_out(round).await;
        rollout.serves = true;
        rollout
    }

    /// Has all pods replaced, and waits until they are.
    pub(super) async fn roll_over(&mut self, round: &str) {
        self.replace(round).await;
        self.until_rolled_out(round).await;
    }

    /// Has all pods replaced by such as do not start, and waits until the first of them says so.
    pub(super) async fn roll_over_in_vain(&mut self, round: &str, status: &str) {
        self.replace(round).await;
        self.follow(&format!("a pod of round {round}: {status}"), |pods| {
            let of_round = pods.values().map(|pod| (pod, observe(pod, &[]).trouble));
            let mut troubles =
                of_round.filter(|(pod, _)| pod["metadata"]["annotations"]["round"] == round);
            troubles.any(|(_, trouble)| trouble.is_some_and(|(is, _)| is == status))
        })
        .await;
    }

    /// Ends all pods.
    pub(super) async fn end(&mut self) {
        self.serves = false;
        let none = json!({"spec": {"replicas": 0}});
        self.bench.api.merge(&self.path, &none).await.unwrap();
        self.follow("all pods have ended", |pods| pods.is_empty())
            .await;
    }

    /// That each pod of a round saw this.
    pub(super) fn assert_saw(&self, round: &str, expected: &[(&str, &str)]) {
        let of_round = self.reports.iter().filter(|((of, _), _)| of == round);
        let reports: Vec<&Report> = of_round.map(|(_, report)| report).collect();
        assert_eq!(reports.len(), REPLICAS, "of round {round}: {reports:#?}");
        for report in reports {
            for (name, value) in expected {
                let seen = report.get(*name).map(String::as_str);
                assert_eq!(seen, Some(*value), "{name} in round {round}: {report:#?}");
            }
        }
    }

    async fn replace(&self, round: &str) {
        let template =
            json!({"spec": {"template": {"metadata": {"annotations": {"round": round}}}}});
        self.bench.api.merge(&self.path, &template).await.unwrap();
    }

    async fn until_rolled_out(&mut self, round: &str) {
        let what = format!("all {REPLICAS} pods are of round {round}, and ready");
        self.follow(&what, |pods| {
            let of_round = |pod: &Value| pod["metadata"]["annotations"]["round"] == round;
            pods.len() == REPLICAS && pods.values().all(|pod| of_round(pod) && serves(pod))
        })
        .await;
    }

    /// Takes events until it is so.
    async fn follow(&mut self, what: &str, is_so: impl Fn(&BTreeMap<String, Value>) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so(&self.pods) {
            let states: Vec<&Value> = self.pods.values().map(|pod| &pod["status"]).collect();
            assert!(
                Instant::now() < deadline,
                "not within {DEADLINE:?}: {what}; pods: {states:#?}"
            );
            if let Ok(event) = tokio::time::timeout(QUIET, self.events.next()).await {
                self.take(event.unwrap().unwrap());
            }
        }
    }

    fn take(&mut self, event: WatchEvent<Pod>) {
        let (pod, is_gone) = match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, false),
            WatchEvent::Deleted(pod) => (pod, true),
            WatchEvent::Bookmark(_) => return,
            WatchEvent::Error(error) => panic!("{error:?}"),
        };
        let pod = serde_json::to_value(pod).unwrap();
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let round = pod["metadata"]["annotations"]["round"].as_str().unwrap();
        if let Some(report) = observe(&pod, &[]).reports.remove("app") {
            self.reports
                .insert((round.to_owned(), name.clone()), report);
        }
        if is_gone {
            self.pods.remove(&name);
        } else {
            self.pods.insert(name, pod);
        }
        let ready = self.pods.values().filter(|pod| serves(pod)).count();
        assert!(
            ready >= REPLICAS || !self.serves,
            "only {ready} pods are ready: {:#?}",
            self.pods
        );
    }
}

/// Whether a Service would send requests to this pod.
fn serves(pod: &Value) -> bool {
    observe(pod, &[]).is_ready && pod["metadata"]["deletionTimestamp"].is_null()
}
