//! Plain workloads, whose authors wrote nothing about security, in namespaces that enforce the Pod Security
//! Standard "restricted": their pods, created by the real controllers, come to be with us and do not without.

use serde_json::{Value, json};

use crate::support::api::{Api, namespace, until};
use crate::support::kinds::{KINDS, workload};
use crate::support::policies;
use crate::support::tell::tell;
use crate::support::webhook::{Asked, RunningWebhook};

const WEBHOOK: &str = "workloads";
/// The namespaces, and the profile that each one's policy names.
const PROFILES: [(&str, &str); 2] = [
    ("with-restricted", "Restricted"),
    ("with-hardened", "Hardened"),
];
const WITHOUT: &str = "without-a-policy";
const NODE: &str = "node-of-daemon-sets";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_pods_of_every_workload_kind_pass_pod_security_restricted_with_a_profile() {
    let api = Api::admin().await;
    // A DaemonSet needs a node, if only on paper.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
    api.ensure("/api/v1/nodes", &node).await;
    let webhook = RunningWebhook::start(&api, WEBHOOK, Asked::ForNamespaces, policy_set()).await;
    for (name, _) in PROFILES {
        namespace(&api, name, &labels(WEBHOOK)).await;
    }
    namespace(&api, WITHOUT, &labels("none")).await;
    webhook.until_asked(&api, PROFILES[0].0).await;

    let namespaces = PROFILES.map(|(name, _)| name).into_iter().chain([WITHOUT]);
    for namespace in namespaces.clone() {
        for (kind, version) in KINDS {
            let path = format!(
                "/apis/{version}/namespaces/{namespace}/{}s",
                kind.to_lowercase()
            );
            let name = format!("plain-{}", kind.to_lowercase());
            let workload = workload(kind, version, &name, template(kind));
            api.post(&path, &workload).await.unwrap();
        }
    }
    for (namespace, profile) in PROFILES {
        for (kind, _) in KINDS {
            pod_is_created(&api, namespace, profile, kind).await;
        }
        let bare = api
            .post(&format!("/api/v1/namespaces/{namespace}/pods"), &bare_pod())
            .await;
        bare.unwrap();
    }
    for (kind, _) in KINDS {
        pod_is_refused(&api, kind).await;
    }
    let bare = api
        .post(&format!("/api/v1/namespaces/{WITHOUT}/pods"), &bare_pod())
        .await;
    assert!(bare.unwrap_err().message.contains(VIOLATES));

    tell(&format!(
        "workloads: pods of {} kinds and bare ones, with {} profiles and without",
        KINDS.len(),
        PROFILES.len()
    ));
    for namespace in namespaces {
        api.delete(&format!("/api/v1/namespaces/{namespace}")).await;
    }
    webhook.stop(&api).await;
}

const VIOLATES: &str = "violates PodSecurity \"restricted:latest\"";

/// Waits for a pod of that kind of workload, which Pod Security has let pass.
async fn pod_is_created(api: &Api, namespace: &str, profile: &str, kind: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector=of={kind}");
    let pod = until(
        &format!("a pod of a {kind} with profile {profile}"),
        async || {
            let list = api.get(&path).await.unwrap();
            list["items"].get(0).cloned()
        },
    )
    .await;
    let record = pod["metadata"]["annotations"][hardening_engine::FILLED].as_str();
    assert!(
        record.is_some_and(|record| record.contains(namespace)),
        "{record:?}"
    );
    let volumes = pod["spec"]["volumes"].as_array();
    let names = volumes
        .into_iter()
        .flatten()
        .map(|volume| volume["name"].as_str().unwrap());
    let has_token = names
        .into_iter()
        .any(|name| name.starts_with("kube-api-access-"));
    assert_eq!(has_token, profile == "Restricted", "{:#}", pod["spec"]);
}

/// Waits until whoever creates the pods of that kind of workload says that Pod Security refuses them.
async fn pod_is_refused(api: &Api, kind: &str) {
    // A Deployment's pods are its ReplicaSet's, a CronJob's its Job's.
    let creator = match kind {
        "Deployment" => "ReplicaSet",
        "CronJob" => "Job",
        other => other,
    };
    let selector = format!("involvedObject.kind={creator},reason=FailedCreate");
    let path = format!("/api/v1/namespaces/{WITHOUT}/events?fieldSelector={selector}");
    let prefix = format!("plain-{}", kind.to_lowercase());
    until(
        &format!("an event about the refused pods of a {kind}"),
        async || {
            let list = api.get(&path).await.unwrap();
            let events = list["items"].as_array().cloned().unwrap_or_default();
            let tells = |event: &Value| {
                let about = event["involvedObject"]["name"].as_str().unwrap();
                about.starts_with(&prefix) && event["message"].as_str().unwrap().contains(VIOLATES)
            };
            events.iter().any(tells).then_some(())
        },
    )
    .await;
    let pods = format!("/api/v1/namespaces/{WITHOUT}/pods?labelSelector=of={kind}");
    let list = api.get(&pods).await.unwrap();
    assert_eq!(list["items"], json!([]));
}

fn labels(webhook: &str) -> Value {
    json!({"webhook": webhook, "pod-security.kubernetes.io/enforce": "restricted"})
}

fn policy_set() -> hardening_engine::PolicySet {
    let mut set = policies::of_cluster();
    for (namespace, profile) in PROFILES {
        set.insert_namespace(namespace, &policies::labels(&[("webhook", WEBHOOK)]));
        set.insert_service_account(namespace, "default", None);
        let policy = json!({
            "apiVersion": hardening_api::API_VERSION, "kind": "PodHardeningPolicy",
            "metadata": {"name": "plain", "namespace": namespace}, "spec": {"profile": profile},
        });
        policies::insert(&mut set, &[policy]);
    }
    set
}

fn bare_pod() -> Value {
    let mut pod = template("Pod");
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = "plain".into();
    pod
}

/// A pod template that says nothing about security.
fn template(kind: &str) -> Value {
    json!({
        "metadata": {"labels": {"of": kind}},
        "spec": {
            "initContainers": [
                {"name": "prepare", "image": "registry.example/app"},
                {"name": "sidecar", "image": "registry.example/app", "restartPolicy": "Always"},
            ],
            "containers": [{"name": "app", "image": "registry.example/app"}],
        },
    })
}
