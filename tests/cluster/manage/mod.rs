//! `hardening-controller manage` beside a real API server: policies' status, what they compile to, who leads, and
//! missed pods.

mod compiled;
mod leader;
mod missed;
mod status;

use std::net::SocketAddr;

use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions};

use crate::support::api::{Api, until};
use crate::support::controller::{Controller, free_addresses};
use crate::support::crds::{CLUSTER_POLICIES, collection, install};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases/pod-hardening-manager";

/// A control plane with our CRDs, where nothing happens that a test does not do.
async fn control_plane() -> ControlPlane {
    let control_plane = ControlPlane::start(ControlPlaneOptions {
        controller_manager: false,
        ..ControlPlaneOptions::default()
    });
    let control_plane = control_plane.await.unwrap();
    install(&Api::of(&control_plane)).await;
    control_plane
}

/// A manager, with more arguments, once it is ready.
async fn manager(control_plane: &ControlPlane, name: &str, more: &[&str]) -> Controller {
    let [_, metrics]: [SocketAddr; 2] = free_addresses();
    let mut arguments = vec![
        "manage".to_owned(),
        format!("--kubeconfig={}", control_plane.kubeconfig_path().display()),
        format!("--metrics-listen={metrics}"),
        "--log-format=json".to_owned(),
    ];
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    let mut manager = Controller::run(control_plane, name, metrics, &arguments);
    manager.until_ready().await;
    manager
}

/// Where a policy is, from `namespace/name` or `name`.
fn path_of(policy: &str) -> String {
    match policy.split_once('/') {
        Some((namespace, name)) => format!("{}/{name}", collection(namespace)),
        None => format!("{CLUSTER_POLICIES}/{policy}"),
    }
}

/// Creates a policy, or gives it a new spec.
async fn put_policy(api: &Api, policy: &str, spec: &Value) -> Value {
    let (namespace, name, kind) = match policy.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name, "PodHardeningPolicy"),
        None => (None, policy, "ClusterPodHardeningPolicy"),
    };
    let path = path_of(policy);
    let mut object = json!({
        "apiVersion": hardening_api::API_VERSION, "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    });
    match api.get(&path).await {
        Ok(stored) => {
            object["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
            api.put(&path, &object).await.unwrap()
        }
        Err(_) => {
            let (collection, _) = path.rsplit_once('/').unwrap();
            api.post(collection, &object).await.unwrap()
        }
    }
}

/// The policy, once its status speaks of what it is now.
async fn until_observed(api: &Api, policy: &str) -> Value {
    let path = path_of(policy);
    until(&format!("the status of {policy}"), async || {
        let stored = api.get(&path).await.unwrap();
        let generation = &stored["metadata"]["generation"];
        (stored["status"]["observedGeneration"] == *generation).then_some(stored)
    })
    .await
}

/// A condition of a policy's.
fn condition<'p>(policy: &'p Value, type_: &str) -> &'p Value {
    let conditions = policy["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|one| one["type"] == type_);
    found.unwrap_or_else(|| panic!("no {type_} in {policy:#}"))
}

/// The policy, once a condition is so.
async fn until_condition(api: &Api, policy: &str, type_: &str, status: &str) -> Value {
    let path = path_of(policy);
    until(&format!("{type_} of {policy} is {status}"), async || {
        let stored = api.get(&path).await.unwrap();
        let conditions = stored["status"]["conditions"].as_array()?;
        let is = |one: &Value| one["type"] == type_ && one["status"] == status;
        conditions.iter().any(is).then_some(stored)
    })
    .await
}

fn user(id: i64) -> Value {
    json!({"pod": {"securityContext": {"runAsUser": id}}})
}
