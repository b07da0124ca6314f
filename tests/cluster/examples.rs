//! Every example, as kubectl hands it to a real API server.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::support::api::{Api, namespace, shared};
use super::support::crds;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

/// As dry runs, with kubectl's strict check of every field: the policies must not act on other tests' pods.
#[tokio::test]
async fn the_api_server_takes_every_example() {
    let api = Api::admin().await;
    crds::install(&api).await;
    let namespaces = kubectl(
        &["apply", "--dry-run=server", "--output=name"],
        "namespaces.yaml",
    )
    .await;
    let namespaces: Vec<&str> = namespaces
        .lines()
        .filter_map(|line| line.strip_prefix("namespace/"))
        .collect();
    assert!(namespaces.len() > 3, "{namespaces:?}");
    // Without their labels, as Pod Security would refuse the pods: nothing is filled in here.
    for name in namespaces {
        namespace(&api, name, &json!({})).await;
    }
    for folder in ["policies", "workloads"] {
        let taken = kubectl(
            &["apply", "--dry-run=server", "--recursive", "--output=name"],
            folder,
        )
        .await;
        assert!(taken.lines().count() > 9, "{folder}: {taken}");
    }
}

/// What kubectl prints when it is given a file or folder of the examples.
async fn kubectl(arguments: &[&str], path: &str) -> String {
    let control_plane = shared().await;
    let output = Command::new(control_plane.kubectl().unwrap())
        .args(arguments)
        .arg("--validate=strict")
        .arg("--filename")
        .arg(Path::new(EXAMPLES).join(path))
        .env("KUBECONFIG", control_plane.kubeconfig_path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "kubectl {arguments:?} {path}: {said}"
    );
    String::from_utf8(output.stdout).unwrap()
}
