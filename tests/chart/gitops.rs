//! deploy/install.yaml applied again and again, as people and GitOps tools do: nothing changes, and what the
//! manager wrote into the registration is neither taken away nor seen as drift.

use std::process::Command;

use test_control_plane::{Binaries, Progress, Tool};

use crate::support::chart::{objects_of, of_kind, printed, text};
use crate::support::cluster::Cluster;

/// Applies it, and again after the manager has written the CA.
async fn check(apply: &[&str]) {
    let cluster = Cluster::start().await;
    let manifests = text("deploy/install.yaml");
    let with = |verb: &'static str| [&[verb, "--filename=-"], apply].concat();
    printed(cluster.kubectl(&with("apply"), &manifests));
    cluster.write_ca_bundle().await;
    let (versions, written) = (cluster.versions(&manifests), cluster.ca_bundles().await);
    assert_eq!(versions.lines().count(), objects_of(&manifests).len());
    assert!(written.iter().all(|ca| ca.is_string()), "{written:?}");

    let drift = printed(cluster.kubectl(&with("diff"), &manifests));
    assert_eq!(drift, "");
    printed(cluster.kubectl(&with("apply"), &manifests));
    assert_eq!(cluster.versions(&manifests), versions);
    assert_eq!(cluster.ca_bundles().await, written);
}

#[tokio::test]
async fn kubectl_apply_changes_nothing_the_second_time() {
    check(&[]).await;
}

#[tokio::test]
async fn server_side_apply_changes_nothing_the_second_time() {
    check(&["--server-side"]).await;
}

/// As Argo CD and Flux apply: by server-side apply under a name of their own, whoever else owns a field.
#[tokio::test]
async fn a_gitops_tool_sees_no_drift() {
    check(&[
        "--server-side",
        "--force-conflicts",
        "--field-manager=gitops",
    ])
    .await;
}

#[test]
fn the_kustomization_that_the_documentation_shows_puts_another_image_in() {
    let page = text("docs/operations.md");
    let (_, rest) = page.split_once("# deploy/kustomization.yaml\n").unwrap();
    let (kustomization, _) = rest.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("kustomization.yaml", kustomization);
    write("install.yaml", &text("deploy/install.yaml"));
    let binaries = Binaries::locate_or_build(Progress::auto()).unwrap();
    let built = Command::new(binaries.path(Tool::Kubectl).unwrap())
        .arg("kustomize")
        .arg(folder.path())
        .output()
        .unwrap();
    for deployment in of_kind(&objects_of(&printed(built)), "Deployment") {
        let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
        let image = image.as_str().unwrap();
        assert!(
            image.starts_with("registry.example/hardening-controller:"),
            "{image}"
        );
    }
}
