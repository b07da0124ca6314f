//! `hardening-controller run` beside a real API server: what its users see, from the moment that the API
//! server has acknowledged a change.

mod callers;
mod canary;
mod freshness;
mod outages;
mod pods;

use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions};
use tokio::sync::OnceCell;

use crate::support::api::{Api, Refusal, until};
use crate::support::controller::Controller;
use crate::support::crds::{CLUSTER_POLICIES, collection, install};
use crate::support::told::AUDIT_NEW_PODS;

/// A control plane with our CRDs, and a controller.
struct Cluster {
    control_plane: ControlPlane,
    controller: Controller,
}

impl Cluster {
    /// One for the tests that leave it as they found it, each in namespaces of its own.
    async fn shared() -> &'static Self {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        // Without a controller manager, so that namespaces and service accounts come to be when a test says
        // so and at no other time.
        let control_plane = ControlPlane::start(ControlPlaneOptions {
            controller_manager: false,
            audit_policy: Some(AUDIT_NEW_PODS.to_owned()),
            ..ControlPlaneOptions::default()
        });
        let control_plane = control_plane.await.unwrap();
        install(&Api::of(&control_plane)).await;
        let controller = Controller::start(&control_plane, "controller").await;
        Self {
            control_plane,
            controller,
        }
    }

    fn api(&self) -> Api {
        Api::of(&self.control_plane)
    }
}

/// A pod with one container, whose author wrote nothing about security.
fn plain_pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app"}]},
    })
}

/// What an API server asks about a pod.
fn review(namespace: &str, pod: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "b6f0c7a0-0f5e-4d4c-9a59-0c6f3f7b6a11",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": namespace, "operation": "CREATE", "userInfo": {"username": "admin"},
            "object": pod, "oldObject": null, "dryRun": false, "options": {},
        },
    })
}

/// What the API server would store.
async fn dry_run(api: &Api, namespace: &str, pod: &Value) -> Result<Value, Refusal> {
    api.post(
        &format!("/api/v1/namespaces/{namespace}/pods?dryRun=All"),
        pod,
    )
    .await
}

/// The policies that filled something in: what the record on the pod names, without generations.
fn filled_by(pod: &Value) -> Vec<String> {
    let record = pod["metadata"]["annotations"][hardening_engine::FILLED].as_str();
    let record: Value = serde_json::from_str(record.unwrap_or("{}")).unwrap();
    let policies = record.as_object().unwrap().keys();
    policies
        .map(|policy| policy.split('@').next().unwrap().to_owned())
        .collect()
}

/// Waits until a plain pod would be stored like this.
async fn until_stored(
    api: &Api,
    namespace: &str,
    what: &str,
    is: impl Fn(&Value) -> bool,
) -> Value {
    until(what, async || {
        let stored = dry_run(api, namespace, &plain_pod()).await.unwrap();
        is(&stored).then_some(stored)
    })
    .await
}

/// Creates or replaces a policy of a namespace, or without one a cluster policy.
async fn put_policy(api: &Api, namespace: Option<&str>, name: &str, spec: &Value) {
    let (path, kind) = match namespace {
        Some(namespace) => (collection(namespace), "PodHardeningPolicy"),
        None => (CLUSTER_POLICIES.to_owned(), "ClusterPodHardeningPolicy"),
    };
    let object = json!({
        "apiVersion": hardening_api::API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    let answer = api.apply(&format!("{path}/{name}"), &object).await;
    assert!(answer.status < 300, "{answer:?}");
}
