//! `kubectl harden convert | kubectl apply`: the API server takes whatever PSPs become, and has no warning for it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::api::{Api, namespace, shared};
use crate::support::crds;
use crate::support::program::program;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/psp");

/// The List that the PSPs of the examples become.
fn convert(options: &[&str]) -> String {
    let output = Command::new(program("kubectl-harden"))
        .args(["convert", "--output", "json", "--filename"])
        .arg(Path::new(EXAMPLES))
        .args(options)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{options:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// As a dry run: the policies must not act on other tests' pods.
async fn apply(manifests: &str) -> String {
    let control_plane = shared().await;
    let mut kubectl = Command::new(control_plane.kubectl().unwrap())
        .args(["apply", "--dry-run=server", "--validate=strict"])
        .args(["--output=name", "--filename=-"])
        .env("KUBECONFIG", control_plane.kubeconfig_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = kubectl.stdin.take().unwrap();
    stdin.write_all(manifests.as_bytes()).unwrap();
    drop(stdin);
    let output = kubectl.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("Warning: spec"), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_api_server_takes_what_the_examples_become() {
    let api = Api::admin().await;
    crds::install(&api).await;
    for options in [&[][..], &["--rbac"], &["--rbac", "--mode", "Audit"]] {
        let manifests = convert(options);
        let list: Value = serde_json::from_str(&manifests).unwrap();
        let items = list["items"].as_array().unwrap();
        for item in items {
            if let Some(name) = item["metadata"]["namespace"].as_str() {
                namespace(&api, name, &json!({})).await;
            }
        }
        let taken = apply(&manifests).await;
        assert_eq!(taken.lines().count(), items.len(), "{options:?}: {taken}");
        assert!(items.len() > 1, "{options:?}");
    }
}
