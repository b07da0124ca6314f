//! What policies compile to, kept applied by a manager: pods get their defaults also when nothing of ours runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions};
use tokio::task::JoinSet;

use super::{condition, control_plane, manager, path_of, put_policy, until_condition, user};
use crate::support::api::{Api, bare_namespace, until};
use crate::support::controller::{Controller, free_addresses};
use crate::support::tell::tell;
use crate::support::version::{BINDINGS, POLICIES, can_compile};

/// Pods that are created after every process of ours was killed, at least.
const PODS: usize = 2000;
/// Pods that are created before that; and as many more may be while it happens.
const BEFORE: usize = 200;
const ALL: usize = PODS + 2 * BEFORE;
/// Who creates them at once.
const CREATORS: usize = 8;

const COMPILE: [&str; 2] = ["--missed-pods-interval=0", "--compile"];

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app"}]},
    })
}

fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

/// A pod as it would be stored.
async fn stored(api: &Api, namespace: &str) -> Value {
    let path = format!("{}?dryRun=All", pods(namespace));
    api.post(&path, &pod("dry-run")).await.unwrap()
}

/// Waits until a pod gets this user.
async fn until_user(api: &Api, namespace: &str, id: Option<i64>) {
    let what = format!("pods of {namespace} get the user {id:?}");
    until(&what, async || {
        let user = stored(api, namespace).await["spec"]["securityContext"]["runAsUser"].as_i64();
        (user == id).then_some(())
    })
    .await;
}

/// The versions of all objects that policies are compiled to.
async fn versions(api: &Api) -> Vec<(String, String)> {
    let mut versions = Vec::new();
    for path in [POLICIES, BINDINGS] {
        let list = api.get(path).await.unwrap();
        for object in list["items"].as_array().unwrap() {
            let [name, version] = ["name", "resourceVersion"].map(|key| &object["metadata"][key]);
            versions.push((format!("{path}/{name}"), version.to_string()));
        }
    }
    versions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_every_process_killed_under_load_each_pod_is_hardened_all_the_same() {
    let control_plane = control_plane().await;
    let api = Api::of(&control_plane);
    if !can_compile(&api).await {
        return;
    }
    bare_namespace(&api, "shop", &json!({})).await;
    put_policy(&api, "shop/user", &user(1001)).await;
    put_policy(&api, "restricted", &json!({"profile": "Restricted"})).await;
    let leader = manager(&control_plane, "manager", &COMPILE).await;
    for policy in ["shop/user", "restricted"] {
        until_condition(&api, policy, "Compiled", "True").await;
    }
    // An API server loads what it has been given about once a second. Seen before there is a webhook.
    until_user(&api, "shop", Some(1001)).await;
    let replica = Controller::start(&control_plane, "replica").await;

    let created = Arc::new(AtomicUsize::new(0));
    let mut creators = JoinSet::new();
    for _ in 0..CREATORS {
        let (api, created) = (Api::of(&control_plane), Arc::clone(&created));
        creators.spawn(async move {
            loop {
                let number = created.fetch_add(1, Ordering::Relaxed);
                if number >= ALL {
                    return;
                }
                let pod = pod(&format!("pod-{number}"));
                api.post(&pods("shop"), &pod).await.unwrap();
            }
        });
    }
    until("pods are being created", async || {
        (created.load(Ordering::Relaxed) >= BEFORE).then_some(())
    })
    .await;
    replica.kill();
    leader.kill();
    let before = created.load(Ordering::Relaxed);
    while let Some(ended) = creators.join_next().await {
        ended.unwrap();
    }

    let list = api.get(&pods("shop")).await.unwrap();
    let all = list["items"].as_array().unwrap();
    assert_eq!(all.len(), ALL);
    let after = ALL - before;
    assert!(after >= PODS, "{after}");
    let missed = all.iter().filter(|pod| {
        let context = &pod["spec"]["containers"][0]["securityContext"];
        pod["spec"]["securityContext"]["runAsUser"] != 1001
            || context["allowPrivilegeEscalation"] != false
            || context["capabilities"]["drop"] != json!(["ALL"])
    });
    assert_eq!(missed.count(), 0);
    tell(&format!(
        "compiled policies: of {after} pods that were created after every replica and manager was killed none was missed"
    ));

    // Nobody carries the change out; the first who comes back does.
    put_policy(&api, "shop/user", &user(1002)).await;
    assert_eq!(
        stored(&api, "shop").await["spec"]["securityContext"]["runAsUser"],
        1001
    );
    let leader = manager(&control_plane, "back", &COMPILE).await;
    until_user(&api, "shop", Some(1002)).await;
    leader.terminate().await;
    control_plane.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_has_what_the_policies_compile_to_and_each_says_whether_it_is_among_it() {
    let control_plane = control_plane().await;
    let api = Api::of(&control_plane);
    if !can_compile(&api).await {
        return;
    }
    for namespace in ["shop", "bank", "left-out"] {
        bare_namespace(&api, namespace, &json!({})).await;
    }
    let sysctls = |policy: usize| {
        let sysctl =
            |i| json!({"name": format!("net.ipv4.conf.eth{policy}-{i}.rp_filter"), "value": "1"});
        let sysctls: Vec<Value> = (0..64).map(sysctl).collect();
        json!({"listMerge": "Union", "pod": {"securityContext": {"sysctls": sysctls}}})
    };
    put_policy(&api, "shop/user", &user(1001)).await;
    put_policy(
        &api,
        "shop/told",
        &json!({"mode": "Audit", "profile": "Restricted"}),
    )
    .await;
    put_policy(&api, "left-out/user", &user(1003)).await;
    // Together they are more than the API server takes.
    for policy in 0..20 {
        put_policy(&api, &format!("bank/many-{policy:02}"), &sysctls(policy)).await;
    }
    let arguments = [&COMPILE[..], &["--exclude-namespaces=left-out"]].concat();
    let leader = manager(&control_plane, "manager", &arguments).await;
    for (policy, status, reason) in [
        ("shop/user", "True", "Applied"),
        ("shop/told", "False", "Audit"),
        ("left-out/user", "False", "Excluded"),
        ("bank/many-00", "True", "Applied"),
        ("bank/many-19", "False", "TooLarge"),
    ] {
        let stored = until_condition(&api, policy, "Compiled", status).await;
        assert_eq!(condition(&stored, "Compiled")["reason"], reason, "{policy}");
    }
    until_user(&api, "shop", Some(1001)).await;

    // What the API server adds to the objects is no difference: a pass that changes one leaves the others.
    let before = versions(&api).await;
    assert!(before.len() >= 4, "{before:?}");
    put_policy(&api, "shop/user", &user(1002)).await;
    until("the change is said to be applied", async || {
        let stored = api.get(&path_of("shop/user")).await.unwrap();
        (condition(&stored, "Compiled")["observedGeneration"] == 2).then_some(())
    })
    .await;
    let after = versions(&api).await;
    let written = after.iter().filter(|version| !before.contains(version));
    // Both name the version of the policy.
    assert_eq!(written.count(), 2, "{before:?} {after:?}");

    until_user(&api, "shop", Some(1002)).await;

    // Somebody else's of a wanted name stays, and says so; a deleted one comes back.
    let list = api.get(POLICIES).await.unwrap();
    let name = |of: &str| {
        let items = list["items"].as_array().unwrap().iter();
        let mut names = items.filter(|object| {
            let sources =
                object["metadata"]["annotations"]["podhardening.dev/compiled-from"].as_str();
            sources.is_some_and(|sources| sources.starts_with(of))
        });
        names.next().unwrap()["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (shop, bank) = (name("shop/"), name("bank/"));
    let theirs = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody-else"}}});
    api.merge(&format!("{POLICIES}/{shop}"), &theirs)
        .await
        .unwrap();
    api.delete(&format!("{POLICIES}/{bank}")).await;
    put_policy(&api, "shop/user", &user(1003)).await;
    let stored = until_condition(&api, "shop/user", "Compiled", "False").await;
    let compiled = condition(&stored, "Compiled");
    assert_eq!(compiled["reason"], "NotApplied");
    let message = compiled["message"].as_str().unwrap();
    assert_eq!(
        message,
        format!("MutatingAdmissionPolicy {shop} is there and is not this program's")
    );
    until("what was deleted is there again", async || {
        api.get(&format!("{POLICIES}/{bank}")).await.ok()
    })
    .await;
    until_user(&api, "shop", Some(1002)).await;
    let ours = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "pod-hardening"}}});
    api.merge(&format!("{POLICIES}/{shop}"), &ours)
        .await
        .unwrap();
    until_user(&api, "shop", Some(1003)).await;

    // What is no policy any more is not compiled any more; what is not ours is left.
    api.delete(&path_of("shop/user")).await;
    until_user(&api, "shop", None).await;
    let gone = async || {
        api.get(&format!("{POLICIES}/{shop}"))
            .await
            .is_err()
            .then_some(())
    };
    until("the compiled policy is gone too", gone).await;
    leader.terminate().await;

    // Without --compile nothing is said of it, and what was compiled stays.
    let leader = manager(&control_plane, "without", &COMPILE[..1]).await;
    until("nothing is said of compiled policies", async || {
        let stored = api.get(&path_of("bank/many-00")).await.unwrap();
        let conditions = stored["status"]["conditions"].as_array().unwrap();
        conditions
            .iter()
            .all(|one| one["type"] != "Compiled")
            .then_some(())
    })
    .await;
    api.get(&format!("{POLICIES}/{bank}")).await.unwrap();
    leader.terminate().await;
    control_plane.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_api_server_is_refused_with_its_version() {
    let older = ControlPlane::start(ControlPlaneOptions {
        controller_manager: false,
        apiserver_args: vec!["--emulated-version=1.35".to_owned()],
        ..ControlPlaneOptions::default()
    });
    let api = Api::admin().await;
    if !can_compile(&api).await {
        return;
    }
    let older = older.await.unwrap();
    let [_, metrics] = free_addresses();
    let arguments = [
        "manage".to_owned(),
        format!("--kubeconfig={}", older.kubeconfig_path().display()),
        format!("--metrics-listen={metrics}"),
        "--compile".to_owned(),
    ];
    let manager = Controller::run(&older, "manager", metrics, &arguments);
    until("it says why it ends", async || {
        let why = "--compile needs Kubernetes 1.36 or later, and the API server is 1.35";
        manager.log_text().contains(why).then_some(())
    })
    .await;
    older.stop().await.unwrap();
}
