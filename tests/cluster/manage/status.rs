//! What is said of policies in their status.

use std::process::Command;

use serde_json::{Value, json};

use super::{
    condition, control_plane, manager, path_of, put_policy, until_condition, until_observed, user,
};
use crate::support::api::{Api, bare_namespace, until};
use crate::support::crds::{collection, crd_path};

/// What `kubectl get` shows.
const SHOWN: &str = include_str!("get.txt");
/// So many policies that one of them is lost among them.
const MANY: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_says_whether_it_is_accepted_and_what_it_overlaps_with() {
    let control_plane = control_plane().await;
    let api = Api::of(&control_plane);
    bare_namespace(&api, "shop", &json!({"team": "red"})).await;
    bare_namespace(&api, "bank", &json!({"team": "blue"})).await;
    let manager = manager(&control_plane, "manager", &["--missed-pods-interval=0"]).await;

    let team = |mut spec: Value, team: &str| {
        spec["namespaceSelector"] = json!({"matchLabels": {"team": team}});
        spec
    };
    let apps = |mut spec: Value, app: &str| {
        spec["podSelector"] = json!({"matchLabels": {"app": app}});
        spec
    };
    let told = |mut spec: Value| {
        spec["mode"] = "Audit".into();
        spec
    };
    let high = |mut spec: Value| {
        spec["priority"] = 5.into();
        spec
    };
    let policies = [
        ("shop/first", user(1001)),
        ("shop/second", user(1002)),
        ("shop/same", high(user(1001))),
        ("shop/told", told(user(1003))),
        (
            "shop/web",
            apps(
                json!({"containers": {"securityContext": {"readOnlyRootFilesystem": true}}}),
                "web",
            ),
        ),
        (
            "shop/db",
            apps(
                json!({"containers": {"securityContext": {"readOnlyRootFilesystem": false}}}),
                "db",
            ),
        ),
        ("bank/alone", user(1004)),
        ("red-team", team(user(1001), "red")),
        ("green-team", team(user(1009), "green")),
    ];
    for (policy, spec) in &policies {
        put_policy(&api, policy, spec).await;
    }
    for (policy, other) in [
        ("shop/first", Some("shop/second")),
        ("shop/second", Some("shop/same")),
        ("shop/same", Some("shop/second")),
        ("shop/told", None),
        ("shop/web", None),
        ("shop/db", None),
        ("bank/alone", None),
        ("red-team", Some("shop/second")),
        ("green-team", None),
    ] {
        let status = if other.is_some() { "True" } else { "False" };
        let stored = until_condition(&api, policy, "Overlapping", status).await;
        assert_eq!(condition(&stored, "Accepted")["status"], "True", "{policy}");
        let message = condition(&stored, "Overlapping")["message"]
            .as_str()
            .unwrap();
        if let Some(other) = other {
            assert!(
                message.contains(policy) && message.contains(other),
                "{policy}: {message}"
            );
            assert!(
                message.starts_with("spec.pod.securityContext.runAsUser: "),
                "{message}"
            );
        }
    }

    // As people see it. Ages differ from run to run.
    let kubectl = control_plane.kubectl().unwrap();
    let shown = Command::new(kubectl)
        .args(["get", "php,cphp", "--all-namespaces", "--kubeconfig"])
        .arg(control_plane.kubeconfig_path())
        .output()
        .unwrap();
    assert!(
        shown.status.success(),
        "{}",
        String::from_utf8_lossy(&shown.stderr)
    );
    let shown = without_ages(&String::from_utf8(shown.stdout).unwrap());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/manage/get.txt");
        std::fs::write(path, shown).unwrap();
    } else {
        assert_eq!(shown, SHOWN, "UPDATE_EXPECT=1 takes it over");
    }

    // A change of labels is a change of what is for the same pods.
    let blue = json!({"metadata": {"labels": {"team": "blue"}}});
    api.merge("/api/v1/namespaces/shop", &blue).await.unwrap();
    until_condition(&api, "red-team", "Overlapping", "False").await;

    // What another says of a policy stays, and so does the time of what is still true.
    let theirs = json!({
        "apiVersion": hardening_api::API_VERSION, "kind": "PodHardeningPolicy",
        "metadata": {"name": "alone", "namespace": "bank"},
        "status": {"conditions": [{
            "type": "Theirs", "status": "True", "reason": "So", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    });
    let status = format!("{}/status", path_of("bank/alone"));
    let answer = api.apply(&status, &theirs).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let accepted_at = |policy: &Value| condition(policy, "Accepted")["lastTransitionTime"].clone();
    let since = accepted_at(&answer.body);
    // The clock of the API server and of the manager is the same one, and it has seconds.
    until("another second", async || {
        let now = k8s_openapi::jiff::Timestamp::now().as_second();
        let since: k8s_openapi::jiff::Timestamp = since.as_str().unwrap().parse().unwrap();
        (now > since.as_second()).then_some(())
    })
    .await;
    put_policy(&api, "bank/alone", &user(1005)).await;
    let stored = until_observed(&api, "bank/alone").await;
    assert_eq!(accepted_at(&stored), since);
    assert_eq!(condition(&stored, "Accepted")["observedGeneration"], 2);
    assert_eq!(condition(&stored, "Theirs")["status"], "True");

    // The API server holds a status to the version that it was meant for.
    let mut outdated = theirs;
    outdated["metadata"]["resourceVersion"] = answer.body["metadata"]["resourceVersion"].clone();
    let answer = api.apply(&status, &outdated).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    // And makes no object of a status alone.
    outdated["metadata"] = json!({"name": "nobody", "namespace": "bank"});
    let nobody = format!("{}/status", path_of("bank/nobody"));
    let answer = api.apply(&nobody, &outdated).await;
    assert_eq!(answer.status, 404, "{answer:?}");

    manager.terminate().await;
    control_plane.stop().await.unwrap();
}

/// The table without its last column, and without spaces at the ends of lines.
fn without_ages(table: &str) -> String {
    let age = regex::Regex::new(r"(?m) +(AGE|[0-9smh]+)$").unwrap();
    let table = age.replace_all(table, "");
    let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

/// One that an older schema let in, or that was put past the schema.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_policy_says_what_is_wrong_and_one_change_of_many_is_one_write() {
    let control_plane = control_plane().await;
    let api = Api::of(&control_plane);
    bare_namespace(&api, "shop", &json!({})).await;
    let manager = manager(&control_plane, "manager", &["--missed-pods-interval=0"]).await;
    let leads = async || (manager.metric("podhardening_leading").await == 1.0).then_some(());
    until("it leads", leads).await;
    for i in 0..MANY {
        let spec = json!({"profile": "Restricted", "priority": i});
        put_policy(&api, &format!("shop/p{i}"), &spec).await;
    }
    let written = async || {
        manager
            .metric("podhardening_status_writes_total{result=\"done\"}")
            .await
    };
    // What is written is seen before the answer has told the manager that it is.
    let has_written = async |count: usize| {
        let is_so = async || (written().await >= count as f64).then_some(());
        until(&format!("{count} writes"), is_so).await;
        assert_eq!(written().await, count as f64);
    };
    for i in 0..MANY {
        until_observed(&api, &format!("shop/p{i}")).await;
    }
    has_written(MANY).await;
    put_policy(
        &api,
        "shop/p7",
        &json!({"profile": "Restricted", "priority": 1000}),
    )
    .await;
    until_observed(&api, "shop/p7").await;
    has_written(MANY + 1).await;
    // A change of nothing that is said: the metadata alone.
    let labels = json!({"metadata": {"labels": {"any": "label"}}});
    api.merge(&path_of("shop/p8"), &labels).await.unwrap();

    let [mut crd, _] = hardening_api::crds();
    let original = crd.clone();
    let spec = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
    *spec.unwrap() = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let path = crd_path(&crd);
    assert_eq!(api.apply(&path, &crd).await.status, 200);
    let broken = json!({"profile": "Restrictive"});
    until("the looser schema is served", async || {
        let object = json!({
            "apiVersion": hardening_api::API_VERSION, "kind": "PodHardeningPolicy",
            "metadata": {"name": "broken", "namespace": "shop"}, "spec": broken,
        });
        api.post(&collection("shop"), &object).await.ok()
    })
    .await;
    assert_eq!(api.apply(&path, &original).await.status, 200);
    let stored = until_condition(&api, "shop/broken", "Accepted", "False").await;
    let accepted = condition(&stored, "Accepted");
    assert_eq!(accepted["reason"], "Invalid");
    assert_eq!(
        accepted["message"],
        "spec.profile: Restrictive is not one of Restricted, Hardened"
    );
    assert_eq!(condition(&stored, "Overlapping")["status"], "Unknown");
    // It harmed no other: theirs were not written again.
    has_written(MANY + 2).await;

    put_policy(&api, "shop/broken", &json!({"profile": "Restricted"})).await;
    until_condition(&api, "shop/broken", "Accepted", "True").await;
    assert_eq!(
        manager
            .metric("podhardening_status_writes_total{result=\"failed\"}")
            .await,
        0.0
    );
    manager.terminate().await;
    control_plane.stop().await.unwrap();
}
