//! The renderings on a real API server.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use hardening_engine::{Pod, Policy, PolicySet, UnknownNamespaces, plan};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::support::api::until;
use crate::support::chart::{
    CHART, MANAGER, NAMESPACE, RELEASE, RENDERINGS, WEBHOOK, helm, objects_of, of_kind, printed,
    render, with_values,
};
use crate::support::cluster::{Cluster, REGISTRATION, SHOP};

/// One for these tests, which leave nothing in it that others see.
async fn cluster() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED
        .get_or_init(async || {
            let cluster = Cluster::start().await;
            cluster.install_crds_of_others().await;
            cluster
        })
        .await
}

#[tokio::test]
async fn the_api_server_takes_every_rendering() {
    let cluster = cluster().await;
    let ca = cluster.control_plane.directory().join("ca.crt");
    let ca = format!("tls.files.caBundle={}", ca.display());
    let arguments = [
        "template",
        RELEASE,
        CHART,
        "--namespace",
        NAMESPACE,
        "--set-file",
        &ca,
    ];
    let files = ["tls.mode=files", "tls.files.secretName=of-mine"];
    let with_ca = printed(helm(None, &with_values(&arguments, &files)));
    assert!(with_ca.contains("caBundle: "), "{with_ca}");
    let renderings = RENDERINGS.map(|(name, values)| (name, render(values)));
    for (name, yaml) in renderings.into_iter().chain([("own CA", with_ca)]) {
        let arguments = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "--filename=-",
        ];
        let output = cluster.kubectl(&arguments, &yaml);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {said}");
        // Of fields that nobody knows, and of pods that Pod Security would refuse.
        assert_eq!(said, "", "{name}");
        assert_eq!(
            printed(output).lines().count(),
            objects_of(&yaml).len(),
            "{name}"
        );
    }
}

/// The pods of the Deployments, and a profile that would fill in all that is missing.
#[tokio::test]
async fn our_own_pods_pass_the_strictest_standard_and_lack_nothing() {
    let api = cluster().await.api();
    for account in [WEBHOOK, MANAGER] {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}});
        api.ensure(&path, &account).await;
    }
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All");
    for (name, values) in RENDERINGS {
        for deployment in of_kind(&objects_of(&render(values)), "Deployment") {
            let pod = pod_of(deployment);
            let answer = api.send("POST", &path, Some(&pod)).await;
            assert_eq!(answer.warnings, Vec::<String>::new(), "{name}");
            let stored = answer
                .ok()
                .unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
            for pod in [&pod, &stored] {
                assert_eq!(lacks(pod), json!([]), "{name}: {pod:#}");
            }

            // Neither judge says so of every pod.
            let mut lax = pod.clone();
            let container = &mut lax["spec"]["containers"][0];
            container["securityContext"]["allowPrivilegeEscalation"].take();
            let refusal = api.post(&path, &lax).await.unwrap_err();
            assert!(refusal.message.contains("restricted"), "{refusal}");
            assert_ne!(lacks(&lax), json!([]));
        }
    }
}

fn pod_of(deployment: &Value) -> Value {
    let template = &deployment["spec"]["template"];
    let mut metadata = template["metadata"].clone();
    metadata["name"] = "of-ours".into();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// What our own webhook would add to a pod under the profile Hardened, as a JSON Patch.
fn lacks(pod: &Value) -> Value {
    let policy = json!({
        "apiVersion": hardening_api::API_VERSION, "kind": "ClusterPodHardeningPolicy",
        "metadata": {"name": "hardened"}, "spec": {"profile": "Hardened"},
    });
    let mut policies = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
    let policy = serde_json::from_value(policy).unwrap();
    policies.insert_policy(Policy::cluster(&policy).unwrap());
    let text = pod.to_string();
    let pod = Pod::from_json(&text).unwrap();
    let plan = plan(&policies.matching(NAMESPACE, &pod).unwrap(), &pod);
    serde_json::to_value(plan.to_patch()).unwrap()
}

/// What the chart registers is what the program registers by itself, but for how it is reached.
#[tokio::test]
async fn the_registration_is_the_one_that_the_program_makes() {
    let cluster = cluster().await;
    let api = cluster.api();
    let crds = hardening_api::crds();
    for crd in &crds {
        let name = crd["metadata"]["name"].as_str().unwrap();
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        assert!(api.apply(&path, crd).await.status < 300);
    }
    for failure_policy in ["Ignore", "Fail"] {
        let value = format!("failurePolicy={failure_policy}");
        let rendered = objects_of(&render(&[&value, "excludedNamespaces={shop}"]));
        let [rendered] = of_kind(&rendered, "MutatingWebhookConfiguration")[..] else {
            panic!("{rendered:#?}");
        };
        assert!(api.apply(REGISTRATION, rendered).await.status < 300);
        let ours = webhooks(&api.get(REGISTRATION).await.unwrap());
        api.delete(REGISTRATION).await;

        let program = registering(cluster, failure_policy);
        let own = format!("{REGISTRATION}-self-registered");
        let made = until("the program has registered itself", async || {
            api.get(&own).await.ok()
        })
        .await;
        program.terminate(Duration::from_secs(20)).await.unwrap();
        assert_eq!(ours, webhooks(&made), "{failure_policy}");
    }
}

/// The program, which registers itself.
fn registering(cluster: &Cluster, failure_policy: &str) -> test_control_plane::Program {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let kubeconfig = cluster.control_plane.kubeconfig_path();
    let arguments = [
        "run".to_owned(),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--webhook-url=https://{address}"),
        format!("--listen={address}"),
        "--metrics-listen=127.0.0.1:0".to_owned(),
        "--shutdown-delay=0s".to_owned(),
        format!("--failure-policy={failure_policy}"),
        format!("--exclude-namespaces={NAMESPACE},{SHOP}"),
    ];
    let path = Path::new(env!("CARGO_BIN_EXE_controller-under-test"));
    let name = format!("controller-{failure_policy}");
    cluster.control_plane.run(&name, path, &arguments).unwrap()
}

/// The entries of a registration, without how they are reached.
fn webhooks(registration: &Value) -> Value {
    let mut webhooks = registration["webhooks"].clone();
    for webhook in webhooks.as_array_mut().unwrap() {
        webhook.as_object_mut().unwrap().remove("clientConfig");
    }
    webhooks
}
