//! What the ServiceAccounts may do, and that each program works with just that.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use test_control_plane::Program;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::api::until;
use crate::support::chart::{
    CHART, MANAGER, NAMESPACE, RELEASE, WEBHOOK, objects_of, of_kind, printed, render, with_values,
};
use crate::support::cluster::{Cluster, SHOP};
use crate::support::files::expect_file;

/// What the golden file begins with.
const HEAD: &str = "\
# What each ServiceAccount of the chart may do that not every ServiceAccount may, as
# `kubectl auth can-i --list` says. Written by `make generate`.
";

/// What whoever steals a token of ours could do, as the API server has it: in our namespace, and in any other.
#[tokio::test]
async fn each_service_account_may_do_just_what_it_must() {
    let cluster = &Cluster::start().await;
    let mut all = HEAD.to_owned();
    let renderings = [
        ("default", &[][..]),
        (
            "cert-manager, no reports",
            &["tls.mode=certManager", "missedPods.enabled=false"],
        ),
        ("compiled", &["compile.enabled=true"]),
    ];
    for (name, values) in renderings {
        let objects = objects_of(&render(values));
        let rights = ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
        let rights = objects
            .iter()
            .filter(|object| rights.contains(&object["kind"].as_str().unwrap()));
        let rights =
            json!({"apiVersion": "v1", "kind": "List", "items": rights.collect::<Vec<_>>()})
                .to_string();
        printed(cluster.kubectl(&["create", "--filename=-"], &rights));
        for account in [WEBHOOK, MANAGER] {
            for namespace in [NAMESPACE, SHOP] {
                let anybody = may(cluster, "anybody", namespace);
                let may = may(cluster, account, namespace);
                all += &format!("\n# {name}: {account}, in namespace {namespace}\n");
                for line in may.difference(&anybody) {
                    all += line;
                    all.push('\n');
                }
            }
        }
        printed(cluster.kubectl(&["delete", "--filename=-"], &rights));
    }
    expect_file("tests/chart/expect/rights.txt", &all);
}

fn may(cluster: &Cluster, account: &str, namespace: &str) -> BTreeSet<String> {
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
    let namespace = format!("--namespace={namespace}");
    let arguments = [
        "auth",
        "can-i",
        "--list",
        "--no-headers",
        &account,
        &namespace,
    ];
    let listed = printed(cluster.kubectl(&arguments, ""));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    listed.lines().map(words).collect()
}

/// What makes the programs do all that they can.
const ALL: &[&str] = &["compile.enabled=true"];

/// The programs as the chart starts them, each as its ServiceAccount: the manager makes a certificate and writes its
/// CA into the registration that Helm has made, and the webhook takes the certificate into use. And a policy is
/// compiled, until it is gone.
#[tokio::test]
async fn each_program_works_with_just_that() {
    let cluster = &Cluster::start().await;
    printed(cluster.helm(&with_values(&["install", RELEASE, CHART], ALL)));
    let (webhook, webhook_probes) = start(cluster, WEBHOOK);
    // Alive from the start, so that no kubelet ends it, and not ready while there is no certificate.
    until("the webhook is alive", async || {
        (status(webhook_probes, "/livez").await == Some(200)).then_some(())
    })
    .await;
    assert_eq!(status(webhook_probes, "/readyz").await, Some(503));
    let (manager, manager_probes) = start(cluster, MANAGER);
    for (name, probes) in [(WEBHOOK, webhook_probes), (MANAGER, manager_probes)] {
        until(&format!("{name} is ready"), async || {
            (status(probes, "/readyz").await == Some(200)).then_some(())
        })
        .await;
    }
    until("the registration has a CA", async || {
        let ca_bundles = cluster.ca_bundles().await;
        ca_bundles.iter().all(Value::is_string).then_some(())
    })
    .await;
    let api = cluster.api();
    let policies = "/apis/podhardening.dev/v1alpha1/clusterpodhardeningpolicies";
    let policy = json!({
        "apiVersion": "podhardening.dev/v1alpha1", "kind": "ClusterPodHardeningPolicy",
        "metadata": {"name": "restricted"}, "spec": {"profile": "Restricted"},
    });
    api.post(policies, &policy).await.unwrap();
    let compiled = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
    let compiled = async || {
        let list = api.get(compiled).await.unwrap();
        list["items"].as_array().unwrap().len()
    };
    until("the policy is compiled, and says so", async || {
        let stored = api.get(&format!("{policies}/restricted")).await.unwrap();
        let mut conditions = stored["status"]["conditions"].as_array()?.iter();
        let is_applied = conditions.any(|one| one["type"] == "Compiled" && one["status"] == "True");
        (is_applied && compiled().await > 0).then_some(())
    })
    .await;
    api.delete(&format!("{policies}/restricted")).await;
    let gone = async || (compiled().await == 0).then_some(());
    until("nothing is compiled any more", gone).await;
    for program in [webhook, manager] {
        let log = std::fs::read_to_string(program.log_path()).unwrap();
        assert!(!log.contains("forbidden"), "{log}");
        program.terminate(Duration::from_secs(30)).await.unwrap();
    }
}

/// Starts the program of a Deployment with the arguments and the ServiceAccount that it has, but on this machine, and
/// tells where its probes are answered.
fn start(cluster: &Cluster, name: &str) -> (Program, SocketAddr) {
    let objects = objects_of(&render(ALL));
    let deployments = of_kind(&objects, "Deployment");
    let deployment = deployments
        .iter()
        .find(|object| object["metadata"]["name"] == name);
    let pod = &deployment.unwrap()["spec"]["template"]["spec"];
    let account = pod["serviceAccountName"].as_str().unwrap();
    let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
    let kubeconfig = cluster
        .control_plane
        .kubeconfig_for(&user, Some("system:serviceaccounts"));
    let file = cluster
        .control_plane
        .directory()
        .join(format!("{name}.kubeconfig"));
    std::fs::write(&file, kubeconfig.unwrap()).unwrap();

    let [listen, probes] = [0, 1]
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .map(|free| free.local_addr().unwrap());
    let arguments = pod["containers"][0]["args"].as_array().unwrap().iter();
    let mut arguments: Vec<String> = arguments
        .map(
            |argument| match argument.as_str().unwrap().split_once('=') {
                Some(("--listen", _)) => format!("--listen={listen}"),
                Some(("--metrics-listen", _)) => format!("--metrics-listen={probes}"),
                _ => argument.as_str().unwrap().to_owned(),
            },
        )
        .collect();
    arguments.push(format!("--kubeconfig={}", file.display()));
    if arguments.iter().any(|argument| argument == "manage") {
        // In the cluster its own namespace is known; by a kubeconfig it is not.
        arguments.push("--lease=pod-hardening-system/pod-hardening-manager".to_owned());
    }
    let path = Path::new(env!("CARGO_BIN_EXE_controller-under-test"));
    (
        cluster.control_plane.run(name, path, &arguments).unwrap(),
        probes,
    )
}

/// What the port for probes answers; `None` where nobody does.
async fn status(probes: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(probes).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split_whitespace().nth(1)?.parse().ok()
}
