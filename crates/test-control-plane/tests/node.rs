//! A real node: that pods run on it, and above all that it ends with all that it started.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what helps a test may fail as a test does"
)]

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde_json::json;
use test_control_plane::{ControlPlane, ControlPlaneOptions, Image, Node};

#[tokio::test]
async fn a_pod_runs() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default())
        .await
        .unwrap();
    let node = Node::start(&control_plane).await.unwrap();
    eprintln!("node ready");
    let pods = Api::<Pod>::namespaced(control_plane.client().unwrap(), "default");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"restartPolicy": "Never", "containers": [{
        "name": "c", "image": Image::ROOT.name, "imagePullPolicy": "Never",
        "command": ["sh", "-c", "(id; cat /proc/self/status | grep -E 'Cap|Secc|NoNew'; ls -l /dev/termination-log) > /dev/termination-log"]}]}});
    pods.create(
        &PostParams::default(),
        &serde_json::from_value(pod).unwrap(),
    )
    .await
    .unwrap();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let p = pods.get("p").await.unwrap();
        let s = p.status.unwrap();
        if s.phase.as_deref() != Some("Pending") && s.phase.as_deref() != Some("Running") {
            eprintln!("{s:#?}");
            break;
        }
    }
    let pod = json!({"metadata": {"name": "q"}, "spec": {"containers": [{
        "name": "c", "image": Image::ROOT.name, "imagePullPolicy": "Never",
        "command": ["sh", "-c", "id; sleep 1000"]}]}});
    pods.create(
        &PostParams::default(),
        &serde_json::from_value(pod).unwrap(),
    )
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    for args in [vec!["logs", "q"], vec!["exec", "q", "--", "id"]] {
        let out = std::process::Command::new(control_plane.kubectl().unwrap())
            .args(args)
            .env("KUBECONFIG", control_plane.kubeconfig_path())
            .output()
            .unwrap();
        eprintln!("{out:?}");
    }
    eprintln!(
        "{:?}",
        std::process::Command::new("find")
            .arg(node.directory().join("pod-logs"))
            .output()
    );
    node.stop().unwrap();
    control_plane.stop().await.unwrap();
}
