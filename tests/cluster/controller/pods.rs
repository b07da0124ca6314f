//! What pods get from the controller, beyond a plain creation.

use std::sync::Arc;

use hardening_engine::{Pod, PolicySet, UnknownNamespaces, Unseen};
use hardening_webhook::{Decide, decision::Decision};
use serde_json::{Value, json};

use super::{Cluster, dry_run, filled_by, plain_pod, put_policy, until_stored};
use crate::support::api::{Api, bare_namespace, until};
use crate::support::compare::mounts_token;
use crate::support::webhook::{Asked, RunningWebhook};

#[tokio::test]
async fn ephemeral_containers_are_filled_in_as_they_are_added() {
    let api = Cluster::shared().await.api();
    let namespace = "debugged";
    bare_namespace(&api, namespace, &json!({})).await;
    // A pod from before there was a policy.
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let mut older = plain_pod();
    older["metadata"]["name"] = "older".into();
    let running = api.post(&pods, &older).await.unwrap();
    put_policy(
        &api,
        Some(namespace),
        "strict",
        &json!({"profile": "Restricted"}),
    )
    .await;
    until_stored(&api, namespace, "the policy is in force", |pod| {
        !filled_by(pod).is_empty()
    })
    .await;

    let added = add_ephemeral(&api, &pods, "first").await;
    let contexts = &added["spec"]["ephemeralContainers"];
    let strict = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    assert_eq!(
        contexts[0]["securityContext"]["allowPrivilegeEscalation"],
        false
    );
    assert_eq!(
        contexts[0]["securityContext"]["capabilities"],
        strict["capabilities"]
    );
    assert_eq!(added["spec"]["containers"], running["spec"]["containers"]);
    assert_eq!(added["spec"]["securityContext"], json!({}));

    // What is there already stays, whatever the policy says now.
    let weaker = json!({"containers": {"securityContext": {"readOnlyRootFilesystem": true}}});
    put_policy(&api, Some(namespace), "strict", &weaker).await;
    until_stored(&api, namespace, "the change is in force", |pod| {
        pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] == true
    })
    .await;
    let again = add_ephemeral(&api, &pods, "second").await;
    let again = &again["spec"]["ephemeralContainers"];
    assert_eq!(again[0], contexts[0]);
    assert_eq!(
        again[1]["securityContext"],
        json!({"readOnlyRootFilesystem": true})
    );
}

async fn add_ephemeral(api: &Api, pods: &str, name: &str) -> Value {
    let path = format!("{pods}/older");
    let mut pod = api.get(&path).await.unwrap();
    let container = json!({"name": name, "image": "registry.example/tools"});
    match &mut pod["spec"]["ephemeralContainers"] {
        Value::Array(there) => there.push(container),
        none => *none = json!([container]),
    }
    api.put(&format!("{path}/ephemeralcontainers"), &pod)
        .await
        .unwrap()
}

/// Injects a container, as a service mesh does.
#[derive(Debug)]
struct Injector;

impl Decide for Injector {
    fn decide(&self, _: &PolicySet, _: &str, _: &Pod<'_>) -> Result<Decision, Unseen> {
        let sidecar = json!({"name": "mesh", "image": "registry.example/mesh"});
        let patch = json!([{"op": "add", "path": "/spec/containers/-", "value": sidecar}]);
        Ok(Decision {
            patch: patch.to_string().into_bytes(),
            ..Decision::default()
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_a_later_webhook_injects_is_filled_in_too() {
    let api = Cluster::shared().await.api();
    // API servers ask webhooks in the order of their names.
    let name = "zz-mesh";
    bare_namespace(&api, name, &json!({"webhook": name})).await;
    put_policy(&api, Some(name), "strict", &json!({"profile": "Hardened"})).await;
    until_stored(&api, name, "the policy is in force", |pod| {
        !filled_by(pod).is_empty()
    })
    .await;

    let nothing = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
    // It would inject again if it were asked again.
    let (asked, injector) = (Asked::ForNamespaces, Arc::new(Injector));
    let mesh = RunningWebhook::start_deciding(&api, name, asked, "Never", nothing, injector).await;
    let stored = until_stored(&api, name, "the mesh is asked", |pod| {
        pod["spec"]["containers"].as_array().unwrap().len() > 1
    })
    .await;

    let containers = stored["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 2, "{containers:#?}");
    assert_eq!(containers[1]["name"], "mesh");
    assert_eq!(
        containers[0]["securityContext"],
        containers[1]["securityContext"]
    );
    let mounts = |container: &Value| container["volumeMounts"][0]["mountPath"].clone();
    assert_eq!(
        [mounts(&containers[0]), mounts(&containers[1])],
        ["/tmp", "/tmp"]
    );
    assert!(!mounts_token(&stored));
    let volumes = stored["spec"]["volumes"].as_array().unwrap();
    let names: Vec<&str> = volumes
        .iter()
        .map(|volume| volume["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["writable-app-tmp", "writable-mesh-tmp"]);
    let record = stored["metadata"]["annotations"][hardening_engine::FILLED]
        .as_str()
        .unwrap();
    for container in ["app", "mesh"] {
        let path = format!("spec.containers[{container}].securityContext.readOnlyRootFilesystem");
        assert_eq!(record.matches(&path).count(), 1, "{record}");
    }
    mesh.stop(&api).await;
}

#[tokio::test]
async fn a_service_account_that_asks_for_its_token_keeps_it() {
    let api = Cluster::shared().await.api();
    let namespace = "tokens";
    bare_namespace(&api, namespace, &json!({})).await;
    let spec = json!({"pod": {"automountServiceAccountToken": false}});
    put_policy(&api, Some(namespace), "no-token", &spec).await;
    until_stored(&api, namespace, "the token is taken out", |pod| {
        !mounts_token(pod)
    })
    .await;

    let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
    let asks = json!({"automountServiceAccountToken": true});
    api.merge(&account, &asks).await.unwrap();
    let kept = until_stored(&api, namespace, "the token is left in", mounts_token).await;
    assert_eq!(kept["spec"]["automountServiceAccountToken"], Value::Null);

    let says_nothing = json!({"automountServiceAccountToken": null});
    api.merge(&account, &says_nothing).await.unwrap();
    until_stored(&api, namespace, "the token is taken out again", |pod| {
        !mounts_token(pod)
    })
    .await;
}

#[tokio::test]
async fn a_runtime_class_counts_as_long_as_there_is_one() {
    let api = Cluster::shared().await.api();
    let namespace = "sandboxes";
    bare_namespace(&api, namespace, &json!({})).await;
    let spec = json!({"pod": {"runtimeClassName": "coming-and-going", "hostUsers": false}});
    put_policy(&api, Some(namespace), "sandboxed", &spec).await;
    let class = |pod: &Value| pod["spec"]["runtimeClassName"].clone();

    let without = until_stored(&api, namespace, "the policy is in force", |pod| {
        pod["spec"]["hostUsers"] == false
    })
    .await;
    assert_eq!(class(&without), Value::Null);
    let withheld = &without["metadata"]["annotations"][hardening_engine::WITHHELD];
    assert_eq!(*withheld, r#"{"runtime-class":["spec.runtimeClassName"]}"#);

    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    let object = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
        "metadata": {"name": "coming-and-going"}, "handler": "runsc",
    });
    api.post(classes, &object).await.unwrap();
    until_stored(&api, namespace, "the class is filled in", |pod| {
        class(pod) == "coming-and-going"
    })
    .await;
    api.delete(&format!("{classes}/coming-and-going")).await;
    // In between the API server may know no more of the class while the controller still does.
    until("the class is no longer filled in", async || {
        let stored = dry_run(&api, namespace, &plain_pod()).await.ok()?;
        class(&stored).is_null().then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_client_and_the_audit_log_are_told_of_guards_and_of_mode_audit() {
    let cluster = Cluster::shared().await;
    let api = cluster.api();
    let namespace = "told";
    bare_namespace(&api, namespace, &json!({})).await;
    put_policy(
        &api,
        Some(namespace),
        "strict",
        &json!({"profile": "Restricted"}),
    )
    .await;
    let audit = json!({"mode": "Audit", "pod": {"securityContext": {"fsGroup": 5}}});
    put_policy(&api, Some(namespace), "tried", &audit).await;
    let mut pod = plain_pod();
    pod["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 0});
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    // runAsNonRoot can stand neither at pod level nor on the one container.
    let expected = "299 - \"pod-hardening: 1 default in Audit mode would be filled; 2 defaults not filled (runs-as-root)\"";
    until("both policies are in force", async || {
        let answer = api.send("POST", &path, Some(&pod)).await;
        (answer.warnings == [expected]).then_some(())
    })
    .await;
    let stored = dry_run(&api, namespace, &pod).await.unwrap();
    assert_eq!(filled_by(&stored), ["told/strict"]);
    assert_eq!(stored["spec"]["securityContext"]["fsGroup"], Value::Null);

    let log = std::fs::read_to_string(cluster.control_plane.audit_log_path().unwrap()).unwrap();
    let events = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_pod = events.filter(|event| event["objectRef"]["namespace"] == namespace);
    let annotations = of_pod.last().unwrap()["annotations"].clone();
    let told = |name: &str| annotations[format!("pods.podhardening.dev/{name}")].clone();
    let audited = r#"{"told/tried@1":["spec.securityContext.fsGroup"]}"#;
    assert_eq!(told("audited"), audited, "{annotations:#}");
    assert!(
        told("filled")
            .as_str()
            .unwrap()
            .starts_with(r#"{"told/strict@1":["#)
    );
    assert!(
        told("withheld")
            .as_str()
            .unwrap()
            .starts_with(r#"{"runs-as-root":["#)
    );
}
