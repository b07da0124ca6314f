//! Where cases run: a namespace of a topic's own, with a webhook whose policies are the cases', all at once.

use std::time::{Duration, Instant};

use futures::future::join_all;
use hardening_engine::PolicySet;
use serde_json::{Value, json};

use super::api::{Api, namespace};
use super::case::Case;
use super::cluster::{Cluster, Machine};
use super::observe::observe;
use super::policies;
use super::tell::tell;
use super::webhook::{Asked, RunningWebhook};

/// How long it may take until all cases of a topic have come out.
const DEADLINE: Duration = Duration::from_secs(150);
/// How often all pods of a topic are looked at.
const POLL: Duration = Duration::from_millis(250);

/// A topic's namespace and webhook.
pub(crate) struct Bench {
    pub(crate) api: Api,
    pub(crate) cluster: &'static Cluster,
    /// The name of namespace and webhook.
    pub(crate) topic: &'static str,
    webhook: RunningWebhook,
}

impl Bench {
    /// `None` where this machine cannot run a node.
    pub(crate) async fn open(topic: &'static str) -> Option<Self> {
        let cluster = Cluster::shared().await?;
        let api = Api::admin().await;
        namespace(&api, topic, &json!({"webhook": topic})).await;
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": KEEPS_TOKEN},
            "automountServiceAccountToken": true,
        });
        let accounts = format!("/api/v1/namespaces/{topic}/serviceaccounts");
        api.ensure(&accounts, &account).await;
        for (name, handler) in RUNTIME_CLASSES {
            let class = json!({
                "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name},
                "handler": handler,
            });
            api.ensure("/apis/node.k8s.io/v1/runtimeclasses", &class)
                .await;
        }
        let first = [policy("first", None, &json!({"profile": "Restricted"}))];
        let first = policy_set(topic, &first);
        let webhook = RunningWebhook::start(&api, topic, Asked::ForNamespaces, first).await;
        webhook.until_asked(&api, topic).await;
        let bench = Self {
            api,
            cluster,
            topic,
            webhook,
        };
        bench.put_in_force(&[]);
        Some(bench)
    }

    pub(crate) fn machine(&self) -> Machine {
        self.cluster.machine
    }

    /// The path of this topic's objects of a kind.
    pub(crate) fn path(&self, version: &str, kind: &str) -> String {
        format!("/{version}/namespaces/{}/{kind}", self.topic)
    }

    /// Puts these cluster policies in force, and no others.
    pub(crate) fn put_in_force(&self, policies: &[Value]) {
        self.webhook.put_in_force(policy_set(self.topic, policies));
    }

    /// Puts the cases' policies in force, each for the pods that have the case's name as their label.
    pub(crate) fn put_cases_in_force(&self, cases: &[Case]) {
        let policies = cases
            .iter()
            .filter_map(|case| Some(policy(&case.name, Some(&case.name), case.policy.as_ref()?)));
        self.put_in_force(&policies.collect::<Vec<Value>>());
    }

    /// Runs cases side by side, and fails with all that came out otherwise. The pods that were created, in
    /// the order of the cases.
    pub(crate) async fn run(&self, cases: &[Case]) -> Vec<Value> {
        self.put_cases_in_force(cases);
        let pods = self.path("api/v1", "pods");
        let created = join_all(cases.iter().map(async |case| {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": case.name, "labels": {"case": case.name}},
                "spec": case.pod,
            });
            let created = self.api.post(&pods, &pod).await;
            created.unwrap_or_else(|refusal| panic!("{}: {refusal}", case.name))
        }))
        .await;
        self.until_met(cases).await;
        join_all(cases.iter().map(async |case| {
            self.api.delete(&format!("{pods}/{}", case.name)).await;
        }))
        .await;
        created
    }

    /// Waits for the outcomes of the pods that have the cases' names as their label, and fails with all that
    /// came out otherwise.
    pub(crate) async fn until_met(&self, cases: &[Case]) {
        let deadline = Instant::now() + DEADLINE;
        let mut wrong = Vec::new();
        let mut open: Vec<&Case> = cases.iter().collect();
        while !open.is_empty() {
            let pods = self.list("pods").await;
            let events = self.list("events").await;
            let is_late = Instant::now() >= deadline;
            open.retain(|case| {
                let pod = pods
                    .iter()
                    .find(|pod| pod["metadata"]["labels"]["case"] == case.name);
                let observed = observe(pod.unwrap_or(&Value::Null), &events);
                match case.outcome.is_met(&observed) {
                    Ok(true) => return false,
                    Ok(false) if !is_late => return true,
                    Ok(false) => wrong.push(format!(
                        "{}: not {:?} within {DEADLINE:?}, but {observed:#?}",
                        case.name, case.outcome
                    )),
                    Err(why) => wrong.push(format!("{}: {why}", case.name)),
                }
                false
            });
            tokio::time::sleep(POLL).await;
        }
        assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n\n"));
    }

    /// This topic's objects of a kind of the core.
    pub(crate) async fn list(&self, kind: &str) -> Vec<Value> {
        let list = self.api.get(&self.path("api/v1", kind)).await.unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Tells how many cases ran, and ends.
    pub(crate) async fn close(self, shown: &str) {
        tell(&format!("node, {}: {shown}", self.topic));
        let path = format!("/api/v1/namespaces/{}", self.topic);
        self.webhook.stop(&self.api).await;
        self.api.delete(&path).await;
    }
}

/// A cluster policy; with a case, for that case's pods only.
pub(crate) fn policy(name: &str, case: Option<&str>, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["allowWeakening"] = true.into();
    if let Some(case) = case {
        spec["podSelector"] = json!({"matchLabels": {"case": case}});
    }
    json!({
        "apiVersion": hardening_api::API_VERSION, "kind": "ClusterPodHardeningPolicy",
        "metadata": {"name": name}, "spec": spec,
    })
}

/// What a service account of each topic says about its token.
pub(crate) const KEEPS_TOKEN: &str = "keeps-token";

/// These policies, and what is known of the cluster.
fn policy_set(topic: &str, policies: &[Value]) -> PolicySet {
    let mut set = policies::of_cluster();
    set.insert_namespace(topic, &policies::labels(&[("webhook", topic)]));
    set.insert_service_account(topic, "default", None);
    set.insert_service_account(topic, KEEPS_TOKEN, Some(true));
    for (name, _) in RUNTIME_CLASSES {
        set.insert_runtime_class(name, &policies::labels(&[]));
    }
    policies::insert(&mut set, policies);
    set
}

/// Runtime classes, each with its handler: one that containerd has, and one that it lacks.
pub(crate) const RUNTIME_CLASSES: [(&str, &str); 2] = [("plain", "runc"), ("sandboxed", "missing")];
