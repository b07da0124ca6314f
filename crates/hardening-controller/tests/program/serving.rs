//! `serve`: reviews answered by policies from files, and how it ends.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{DEADLINE, Server, get, review};

const POLICY: &str = "apiVersion: podhardening.dev/v1alpha1
kind: PodHardeningPolicy
metadata: {name: a, namespace: shop}
spec: {pod: {securityContext: {runAsNonRoot: true}}}
";

/// A folder with a policy in `policies/`, and a server of it with its CA in `ca.crt`.
fn serve(more: &[&str]) -> (TempDir, Server) {
    serve_with(None, more)
}

/// As [`serve`], with few file descriptors at first.
pub(crate) fn serve_with(files: Option<usize>, more: &[&str]) -> (TempDir, Server) {
    in_folder(|args| Server::start(files, &[args, more].concat()))
}

/// A folder as [`serve`] has it, and what `start` starts with the arguments for it.
pub(crate) fn in_folder(start: impl FnOnce(&[&str]) -> Server) -> (TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("a.yaml"), POLICY).unwrap();
    let ca = folder.path().join("ca.crt");
    let server = start(&[
        "serve",
        "--policies",
        policies.to_str().unwrap(),
        "--write-ca",
        ca.to_str().unwrap(),
    ]);
    (folder, server)
}

pub(crate) fn ca(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("ca.crt")
}

/// Asks until the answer has a patch, or has none.
async fn until_patched(server: &Server, ca: &Path, patched: bool) {
    let start = Instant::now();
    while review(server.address, ca).await.is_null() == patched {
        assert!(
            start.elapsed() < DEADLINE,
            "still {}",
            if patched { "unpatched" } else { "patched" }
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn reviews_are_answered_by_the_files_as_they_are_now() {
    let (folder, server) = serve(&[]);
    let ca = ca(&folder);
    assert_eq!(
        get(server.metrics_address, "/livez").await.0,
        StatusCode::OK
    );
    let (ready, page) = get(server.metrics_address, "/readyz").await;
    assert_eq!(ready, StatusCode::OK, "{page}");
    assert_ne!(review(server.address, &ca).await, Value::Null);

    let file = folder.path().join("policies/a.yaml");
    let replace = |text: &str| {
        let new = folder.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &file).unwrap();
    };
    replace(&POLICY.replace("namespace: shop", "namespace: other"));
    until_patched(&server, &ca, false).await;
    replace(POLICY);
    until_patched(&server, &ca, true).await;

    replace(&POLICY.replace("runAsNonRoot: true", "runAsNonRoot: perhaps"));
    let line =
        server.until_logged("the policy files are not valid: the policies before stay in force");
    let error = line["error"].as_str().unwrap();
    let problem = "a.yaml: PodHardeningPolicy shop/a: spec.pod.securityContext.runAsNonRoot: \
                   must be of type boolean, not string";
    assert!(error.ends_with(problem), "{error}");
    assert_ne!(review(server.address, &ca).await, Value::Null);
}

#[tokio::test]
async fn after_sigterm_it_is_unready_at_once_and_serves_on_for_a_while() {
    let (folder, mut server) = serve(&["--shutdown-delay", "3s"]);
    server.terminate();
    let terminated = Instant::now();
    server.until_logged("shutting down");
    let (ready, page) = get(server.metrics_address, "/readyz").await;
    assert_eq!(ready, StatusCode::SERVICE_UNAVAILABLE, "{page}");
    assert_eq!(
        get(server.metrics_address, "/livez").await.0,
        StatusCode::OK
    );
    assert_ne!(review(server.address, &ca(&folder)).await, Value::Null);
    assert!(server.wait().success());
    assert!(terminated.elapsed() >= Duration::from_secs(3));
}

#[tokio::test]
async fn a_second_signal_ends_it_without_waiting() {
    let (_folder, mut server) = serve(&["--shutdown-delay", "1h"]);
    server.terminate();
    server.until_logged("shutting down");
    server.terminate();
    assert_eq!(server.wait().code(), Some(1));
}

#[tokio::test]
async fn metrics_tell_of_policies_and_reviews() {
    let (folder, server) = serve(&[]);
    review(server.address, &ca(&folder)).await;
    let (status, page) = get(server.metrics_address, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for series in [
        "podhardening_policies 1",
        "podhardening_reviews_total{outcome=\"patched\"} 1",
    ] {
        assert!(page.lines().any(|line| line == series), "{series}\n{page}");
    }
}
