//! When the API server goes, when a policy is broken, when the controller goes: pods come to be all the same.

use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use super::{Cluster, dry_run, filled_by, plain_pod, put_policy, review, until_stored};
use crate::support::api::{Api, bare_namespace, until};
use crate::support::controller::{Controller, REGISTRATION};
use crate::support::crds::{collection, crd_path};
use crate::support::tell::tell;

/// What the API server waits for a webhook at most, and then some for a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const NAMESPACE: &str = "outages";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_to_be_whatever_goes() {
    let mut cluster = Cluster::start().await;
    let api = cluster.api();
    bare_namespace(&api, NAMESPACE, &json!({})).await;
    put_user(&api, 1000).await;
    until_user(&api, Some(1000)).await;

    the_api_server_restarts(&mut cluster, &api).await;
    a_policy_is_broken(&cluster, &api).await;
    let Cluster {
        control_plane,
        controller,
    } = cluster;

    // It crashes, and leaves its registration behind.
    controller.kill();
    api.get(REGISTRATION).await.unwrap();
    let started = Instant::now();
    let plain = dry_run(&api, NAMESPACE, &plain_pod()).await.unwrap();
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    assert_eq!(filled_by(&plain), [""; 0]);

    // The next one takes over.
    let controller = Controller::start(&control_plane, "next-controller").await;
    until_user(&api, Some(3000)).await;

    // It ends in order, and takes its registration back.
    controller.terminate().await;
    let gone = api.get(REGISTRATION).await.unwrap_err();
    assert_eq!(gone.status, 404);
    let plain = dry_run(&api, NAMESPACE, &plain_pod()).await.unwrap();
    assert_eq!(filled_by(&plain), [""; 0]);
    control_plane.stop().await.unwrap();
    tell("controller: the API server restarted, a policy broken, the controller killed and ended");
}

/// Answers go on meanwhile, and afterwards the watches show what changes.
async fn the_api_server_restarts(cluster: &mut Cluster, api: &Api) {
    let registration = api.get(REGISTRATION).await.unwrap();
    let client = &registration["webhooks"][0]["clientConfig"];
    let ca = base64::engine::general_purpose::STANDARD
        .decode(client["caBundle"].as_str().unwrap())
        .unwrap();
    let url = client["url"].as_str().unwrap();
    let webhook = Api::at(url.strip_suffix("/mutate").unwrap(), &ca).await;

    cluster.control_plane.stop_apiserver();
    for _ in 0..10 {
        let answer = webhook
            .post("/mutate?timeout=3s", &review(NAMESPACE, plain_pod()))
            .await
            .unwrap();
        assert_eq!(answer["response"]["allowed"], true, "{answer:#}");
        assert_eq!(answer["response"]["patchType"], "JSONPatch", "{answer:#}");
    }
    assert_eq!(cluster.controller.get("/livez").await.unwrap().0, 200);
    assert_eq!(cluster.controller.get("/readyz").await.unwrap().0, 200);

    cluster.control_plane.start_apiserver().await.unwrap();
    let restarted = Instant::now();
    until_user(api, Some(1000)).await;
    put_user(api, 2000).await;
    until_user(api, Some(2000)).await;
    tell(&format!(
        "controller: watching again {:?} after the API server is back",
        restarted.elapsed()
    ));
    assert_eq!(cluster.controller.get("/readyz").await.unwrap().0, 200);
}

/// The CRD refuses a broken policy; a CRD of another version may not.
async fn a_policy_is_broken(cluster: &Cluster, api: &Api) {
    let [crd, _] = hardening_api::crds();
    let mut lax = crd.clone();
    lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let answer = api.apply(&crd_path(&crd), &lax).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // Until the laxer schema is the one in force, the policy is refused.
    let broken = json!({"spec": {"pod": {"securityContext": {"runAsUser": "root"}}}});
    let path = format!("{}/user", collection(NAMESPACE));
    until("the broken policy is taken", async || {
        api.merge(&path, &broken).await.ok()
    })
    .await;
    until("the controller has seen it", async || {
        (cluster.controller.metric(INVALID).await == 1.0).then_some(())
    })
    .await;
    let log = cluster.controller.log();
    let named = log.iter().map(Value::to_string).any(|line| {
        line.contains("spec.pod.securityContext.runAsUser") && line.contains("outages/user")
    });
    assert!(named, "{log:#?}");
    // The version before is in force, and other policies are as they were.
    until_user(api, Some(2000)).await;
    put_policy(
        api,
        Some(NAMESPACE),
        "other",
        &json!({"pod": {"hostUsers": false}}),
    )
    .await;
    until_stored(api, NAMESPACE, "another policy is in force", |pod| {
        pod["spec"]["hostUsers"] == false && user(pod) == Some(2000)
    })
    .await;

    // Deleted while it is broken, it is gone.
    api.delete(&path).await;
    until_user(api, None).await;
    assert_eq!(cluster.controller.metric(INVALID).await, 0.0);
    // Created broken, it never counts; repaired, it does.
    let collection = collection(NAMESPACE);
    let object = json!({
        "apiVersion": hardening_api::API_VERSION, "kind": "PodHardeningPolicy",
        "metadata": {"name": "user"}, "spec": broken["spec"],
    });
    api.post(&collection, &object).await.unwrap();
    until("the controller has seen it", async || {
        (cluster.controller.metric(INVALID).await == 1.0).then_some(())
    })
    .await;
    until_user(api, None).await;
    put_user(api, 3000).await;
    until_user(api, Some(3000)).await;
    assert_eq!(cluster.controller.metric(INVALID).await, 0.0);
    let answer = api.apply(&crd_path(&crd), &crd).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

const INVALID: &str = "podhardening_invalid_policies";

async fn put_user(api: &Api, user: i64) {
    let spec = json!({"pod": {"securityContext": {"runAsUser": user}}});
    put_policy(api, Some(NAMESPACE), "user", &spec).await;
}

async fn until_user(api: &Api, expected: Option<i64>) {
    let what = format!("the user is {expected:?}");
    until_stored(api, NAMESPACE, &what, |pod| user(pod) == expected).await;
}

fn user(pod: &Value) -> Option<i64> {
    pod["spec"]["securityContext"]["runAsUser"].as_i64()
}
