//! Installed, upgraded and uninstalled by Helm, on a cluster where no image ever starts: at no step is there a
//! webhook that keeps pods out, but where it is told to.

use crate::support::api::until;
use crate::support::chart::{CHART, NAMESPACE, RELEASE, objects_of, printed, with_values};
use crate::support::cluster::{Cluster, REGISTRATION, SHOP};

/// `helm upgrade`, as people have it who do not know whether it is there.
const UPGRADE: [&str; 4] = ["upgrade", "--install", RELEASE, CHART];

const POLICY: &str = r#"{
    "apiVersion": "podhardening.dev/v1alpha1", "kind": "PodHardeningPolicy",
    "metadata": {"name": "restricted", "namespace": "shop"}, "spec": {"profile": "Restricted"}
}"#;

#[tokio::test]
async fn helm_installs_and_uninstalls_it_without_keeping_pods_out() {
    let cluster = Cluster::start().await;
    let notes = printed(cluster.helm(&["install", RELEASE, CHART]));
    before(
        &cluster.written_by_helm(&["create", "patch"]),
        "deployments",
        "mutatingwebhookconfigurations",
    );
    cluster.create_pod(SHOP).await.unwrap();
    // What it tells to do next can be done.
    let (_, policy) = notes.split_once("<<EOF\n").unwrap();
    let (policy, _) = policy.split_once("  EOF").unwrap();
    let tried = printed(cluster.kubectl(&["create", "--dry-run=server", "--filename=-"], policy));
    assert!(
        tried.contains("podhardeningpolicy.podhardening.dev/restricted created"),
        "{tried}"
    );
    printed(cluster.kubectl(&["create", "--filename=-"], POLICY));

    printed(cluster.helm(&["uninstall", RELEASE]));
    let deleted = cluster.written_by_helm(&["delete"]);
    for server in ["services", "deployments"] {
        before(&deleted, "mutatingwebhookconfigurations", server);
    }
    cluster.create_pod(SHOP).await.unwrap();
    // Policies outlive it, and it can come back to them.
    let policies = ["get", "php", "--namespace", SHOP, "--output=name"];
    assert!(printed(cluster.kubectl(&policies, "")).contains("restricted"));
    let other = with_values(&["install", "other", CHART], &["crds.keep=false"]);
    let refused = cluster.helm(&other);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("invalid ownership metadata"),
        "{said}"
    );
    printed(cluster.helm(&[&other[..], &["--take-ownership"]].concat()));
    assert!(printed(cluster.kubectl(&policies, "")).contains("restricted"));

    // Unless one wants them gone.
    printed(cluster.helm(&["uninstall", "other", "--wait"]));
    let crds = printed(cluster.kubectl(&["get", "crds", "--output=name"], ""));
    assert!(!crds.contains("podhardening.dev"), "{crds}");
}

/// Past Pod Security, the quota and the priority class.
#[tokio::test]
async fn controllers_can_make_its_pods() {
    let cluster = Cluster::with_controllers(true).await;
    printed(cluster.helm(&["install", RELEASE, CHART]));
    let api = cluster.api();
    until(
        "there are 3 pods of the webhook and 2 of the manager",
        async || {
            let count = async |component: &str| {
                let selector = format!("labelSelector=app.kubernetes.io/component%3D{component}");
                let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?{selector}");
                api.get(&path).await.unwrap()["items"]
                    .as_array()
                    .unwrap()
                    .len()
            };
            ((count("webhook").await, count("manager").await) == (3, 2)).then_some(())
        },
    )
    .await;
}

/// Both ways in which Helm has done it: by server-side apply, and by a patch of its own.
#[tokio::test]
async fn an_upgrade_keeps_the_ca_that_the_manager_wrote() {
    let cluster = Cluster::start().await;
    for server_side in ["--server-side=true", "--server-side=false"] {
        let upgrade = [&UPGRADE[..], &[server_side]].concat();
        printed(cluster.helm(&upgrade));
        cluster.write_ca_bundle().await;
        let written = cluster.ca_bundles().await;
        assert!(written.iter().all(|ca| ca.is_string()), "{written:?}");

        for excluded in ["{backup}", "{backup,archive}"] {
            let changed = format!("excludedNamespaces={excluded}");
            printed(cluster.helm(&with_values(&upgrade, &[&changed, "webhook.replicas=4"])));
            assert_eq!(cluster.ca_bundles().await, written, "{server_side}");
        }
        // And where there is nothing to change, nothing is written.
        let manifest = printed(cluster.helm(&["get", "manifest", RELEASE]));
        let before = cluster.versions(&manifest);
        assert_eq!(before.lines().count(), objects_of(&manifest).len());
        printed(cluster.helm(&[&upgrade[..], &["--reuse-values"]].concat()));
        assert_eq!(cluster.versions(&manifest), before, "{server_side}");
        printed(cluster.helm(&["uninstall", RELEASE]));
    }
}

#[tokio::test]
async fn with_fail_the_cluster_can_still_start_it_and_one_command_ends_it() {
    let cluster = Cluster::start().await;
    let fail = with_values(
        &UPGRADE,
        &["failurePolicy=Fail", "excludedNamespaces={backup}"],
    );
    printed(cluster.helm(&fail));
    let refusal = loop {
        // The API server learns of a registration a moment later.
        if let Err(refusal) = cluster.create_pod(SHOP).await {
            break refusal;
        }
        tokio::task::yield_now().await;
    };
    assert!(
        refusal.message.contains("failed calling webhook"),
        "{refusal}"
    );
    for namespace in ["kube-system", NAMESPACE] {
        cluster.create_pod(namespace).await.unwrap();
    }

    let recover = ["delete", "mutatingwebhookconfiguration", "pod-hardening"];
    printed(cluster.kubectl(&recover, ""));
    assert!(cluster.api().get(REGISTRATION).await.is_err());
    until("pods can be created again", async || {
        cluster.create_pod(SHOP).await.ok()
    })
    .await;
    // Helm brings it back.
    printed(cluster.helm(&with_values(&UPGRADE, &["failurePolicy=Ignore"])));
    cluster.create_pod(SHOP).await.unwrap();
    cluster.api().get(REGISTRATION).await.unwrap();
}

/// Holds the order of two resources to what the API server was asked.
#[track_caller]
fn before(asked: &[String], first: &str, second: &str) {
    let place = |resource: &str| {
        let place = asked.iter().position(|asked| asked == resource);
        place.unwrap_or_else(|| panic!("no {resource} in {asked:?}"))
    };
    assert!(place(first) < place(second), "{asked:?}");
}
