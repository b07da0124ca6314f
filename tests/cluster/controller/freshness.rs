//! How soon a change counts.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::{Cluster, dry_run, filled_by, plain_pod, put_policy, until_stored};
use crate::support::api::{Api, bare_namespace, until};
use crate::support::crds::{CLUSTER_POLICIES, collection};
use crate::support::tell::tell;

/// What is promised between the API server's acknowledgement and a change being in force.
const PROMISE: Duration = Duration::from_secs(1);

const ROUNDS: usize = 20;
const NAMESPACES: usize = 500;
/// Namespaces that are created at one time.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_policy_is_in_force_within_a_second() {
    let api = Cluster::shared().await.api();
    let namespace = "changes";
    bare_namespace(&api, namespace, &json!({"changes": "yes"})).await;
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        let user = 1000 + round;
        let spec = json!({"pod": {"securityContext": {"runAsUser": user}}});
        put_policy(&api, Some(namespace), "changing", &spec).await;
        let is_user = |pod: &Value| pod["spec"]["securityContext"]["runAsUser"] == user;
        waits.push(time_to(&api, namespace, "changed", is_user).await);

        let mut spec =
            json!({"tier": "Admin", "namespaceSelector": {"matchLabels": {"changes": "yes"}}});
        spec["pod"] = json!({"securityContext": {"fsGroup": user}});
        put_policy(&api, None, "changing", &spec).await;
        let is_group = |pod: &Value| pod["spec"]["securityContext"]["fsGroup"] == user;
        waits.push(time_to(&api, namespace, "changed", is_group).await);

        api.delete(&format!("{}/changing", collection(namespace)))
            .await;
        let no_user = |pod: &Value| pod["spec"]["securityContext"]["runAsUser"].is_null();
        waits.push(time_to(&api, namespace, "deleted", no_user).await);

        api.delete(&format!("{CLUSTER_POLICIES}/changing")).await;
        let plain = |pod: &Value| filled_by(pod).is_empty();
        waits.push(time_to(&api, namespace, "deleted", plain).await);
    }
    waits.sort();
    tell(&format!(
        "controller: {} changes of policies in force within {:.0?} of the acknowledgement, half of them within {:.0?}",
        waits.len(),
        waits[waits.len() - 1],
        waits[waits.len() / 2],
    ));
}

/// How long it takes, from now, until a pod is answered like this, its own round trip included; and that it
/// stays so.
async fn time_to(api: &Api, namespace: &str, what: &str, is: impl Fn(&Value) -> bool) -> Duration {
    let acknowledged = Instant::now();
    until("the change is in force", async || {
        let stored = dry_run(api, namespace, &plain_pod()).await.unwrap();
        is(&stored).then_some(())
    })
    .await;
    let waited = acknowledged.elapsed();
    assert!(
        waited < PROMISE,
        "a {what} policy is in force after {waited:?}"
    );
    let stored = dry_run(api, namespace, &plain_pod()).await.unwrap();
    assert!(
        is(&stored),
        "a {what} policy was in force for a moment: {stored:#}"
    );
    waited
}

/// The watch may show a namespace later than the API server shows its first pod. Such a pod waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_in_a_namespace_just_created_is_never_missed() {
    let cluster = Cluster::shared().await;
    let api = cluster.api();
    // The profile looks at the service account, too, which is as new as its namespace.
    let spec =
        json!({"profile": "Hardened", "namespaceSelector": {"matchLabels": {"tenant": "yes"}}});
    put_policy(&api, None, "tenants", &spec).await;
    bare_namespace(&api, "first-tenant", &json!({"tenant": "yes"})).await;
    until_stored(&api, "first-tenant", "the policy is in force", |pod| {
        filled_by(pod) == ["tenants"]
    })
    .await;

    let started = Instant::now();
    let missed: Vec<String> = stream::iter(0..NAMESPACES)
        .map(async |i| {
            let (name, is_tenant) = (format!("new-{i}"), i % 10 != 9);
            let labels = if is_tenant {
                json!({"tenant": "yes"})
            } else {
                json!({"tenant": "no"})
            };
            bare_namespace(&api, &name, &labels).await;
            let stored = dry_run(&api, &name, &plain_pod()).await;
            let filled = stored.map(|stored| filled_by(&stored));
            let expected: &[&str] = if is_tenant { &["tenants"] } else { &[] };
            match filled {
                Ok(filled) if filled == expected => None,
                other => Some(format!("{name} {labels}: {other:?}")),
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(async |missed| missed)
        .collect()
        .await;
    assert!(missed.is_empty(), "{} missed: {missed:#?}", missed.len());
    tell(&format!(
        "controller: {NAMESPACES} namespaces with a pod at once, none missed, in {:.1?}",
        started.elapsed()
    ));
    api.delete(&format!("{CLUSTER_POLICIES}/tenants")).await;
}
