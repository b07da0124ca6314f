//! Real control planes: that they work as asked, and above all that they end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what helps a test may fail as a test does"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{
    Container, Namespace, Pod, PodSpec, Service, ServicePort, ServiceSpec,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use test_control_plane::{ControlPlane, ControlPlaneOptions, Error, Tool};

/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(60);

// === that it works ===

#[tokio::test]
async fn a_pod_is_accepted_with_the_defaults() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let pods = Api::<Pod>::namespaced(control_plane.client().unwrap(), "default");
    let pod = pods
        .create(
            &PostParams {
                dry_run: true,
                ..PostParams::default()
            },
            &pod("accepted"),
        )
        .await
        .unwrap();
    assert_eq!(
        pod.spec.unwrap().service_account_name.as_deref(),
        Some("default")
    );
}

#[tokio::test]
async fn the_control_plane_is_shared() {
    let (one, other) = tokio::join!(ControlPlane::shared(), ControlPlane::shared());
    assert!(std::ptr::eq(one.unwrap(), other.unwrap()));
}

#[tokio::test]
async fn the_programs_say_the_version_they_were_built_of() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let server = control_plane
        .client()
        .unwrap()
        .apiserver_version()
        .await
        .unwrap();
    let kubectl = Command::new(control_plane.kubectl().unwrap())
        .args(["version", "--client"])
        .output()
        .unwrap();
    let kubectl = String::from_utf8(kubectl.stdout).unwrap();
    assert!(
        kubectl.contains(&server.git_version),
        "kubectl: {kubectl:?}, API server: {server:?}"
    );
    assert_ne!(server.git_version, "v0.0.0-master+$Format:%H$");
}

#[tokio::test]
async fn kubectl_reads_the_kubeconfig_anywhere() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("config");
    fs::write(&copy, control_plane.kubeconfig()).unwrap();
    for kubeconfig in [&copy, control_plane.kubeconfig_path()] {
        let output = Command::new(control_plane.kubectl().unwrap())
            .args([
                "get",
                "namespace",
                "default",
                "--output=name",
                "--kubeconfig",
            ])
            .arg(kubeconfig)
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "namespace/default\n",
            "{output:?}"
        );
    }
}

#[tokio::test]
async fn another_user_has_the_rights_of_that_user() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let whoami = |kubeconfig: String| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        fs::write(&path, kubeconfig).unwrap();
        let output = Command::new(control_plane.kubectl().unwrap())
            .args([
                "auth",
                "whoami",
                "--output=jsonpath={.status.userInfo.username} {.status.userInfo.groups}",
            ])
            .arg("--kubeconfig")
            .arg(&path)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        whoami(control_plane.kubeconfig_for("ann", None).unwrap()),
        r#"ann ["system:authenticated"]"#
    );
    assert_eq!(
        whoami(
            control_plane
                .kubeconfig_for("system:node:one", Some("system:nodes"))
                .unwrap()
        ),
        r#"system:node:one ["system:nodes","system:authenticated"]"#
    );
}

#[tokio::test]
async fn two_run_side_by_side() {
    let (one, other) = tokio::join!(
        ControlPlane::shared(),
        ControlPlane::start(without_controller_manager())
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(one.server_url(), other.server_url());
    assert_ne!(one.ca_pem(), other.ca_pem());

    let name = "only-in-the-other";
    namespaces(other.client().unwrap())
        .create(&PostParams::default(), &namespace(name))
        .await
        .unwrap();
    assert!(
        namespaces(one.client().unwrap())
            .get_opt(name)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn the_apiserver_comes_back_with_its_data_on_its_port() {
    let mut control_plane = ControlPlane::start(without_controller_manager())
        .await
        .unwrap();
    let client = control_plane.client().unwrap(); // the same one before and after
    namespaces(client.clone())
        .create(&PostParams::default(), &namespace("kept"))
        .await
        .unwrap();

    control_plane.stop_apiserver();
    namespaces(client.clone())
        .get_opt("kept")
        .await
        .expect_err("the API server still answers");

    control_plane.start_apiserver().await.unwrap();
    let kept = || async { namespaces(client.clone()).get_opt("kept").await };
    assert!(kept().await.unwrap().is_some());

    control_plane.restart_etcd().await.unwrap();
    assert!(kept().await.unwrap().is_some());
}

#[tokio::test]
async fn options_reach_the_programs() {
    let control_plane = ControlPlane::start(ControlPlaneOptions {
        feature_gates: BTreeMap::from([("AllAlpha".to_owned(), false)]),
        runtime_config: BTreeMap::from([("batch/v1".to_owned(), false)]),
        disable_admission_plugins: vec!["ServiceAccount".to_owned()],
        enable_admission_plugins: vec!["AlwaysPullImages".to_owned()],
        admission_configuration: Some(ENFORCE_BASELINE.to_owned()),
        audit_policy: Some(AUDIT_METADATA.to_owned()),
        apiserver_args: vec!["--service-cluster-ip-range=10.9.0.0/24".to_owned()],
        ..without_controller_manager()
    })
    .await
    .unwrap();
    let client = control_plane.client().unwrap();
    let pods = Api::<Pod>::namespaced(client.clone(), "default");

    // Without a controller manager there is no ServiceAccount, so this only works with its plugin
    // disabled.
    let created = pods
        .create(&PostParams::default(), &pod("audited"))
        .await
        .unwrap();
    assert_eq!(
        created.spec.unwrap().containers[0]
            .image_pull_policy
            .as_deref(),
        Some("Always")
    );

    let mut privileged = pod("privileged");
    privileged.spec.as_mut().unwrap().host_network = Some(true);
    let refusal = pods
        .create(&PostParams::default(), &privileged)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("violates PodSecurity \"baseline:latest\""),
        "{refusal}"
    );

    let groups = client.list_api_groups().await.unwrap().groups;
    assert!(
        !groups.iter().any(|group| group.name == "batch"),
        "batch is served"
    );

    let log = fs::read_to_string(control_plane.audit_log_path().unwrap()).unwrap();
    assert!(log.contains("/api/v1/namespaces/default/pods"), "{log}");

    // The range is also set by the crate: the last one counts.
    let services = Api::<Service>::namespaced(client, "default");
    let service = services
        .create(&PostParams::default(), &service("addressed"))
        .await
        .unwrap();
    let address = service.spec.unwrap().cluster_ip.unwrap();
    assert!(address.starts_with("10.9.0."), "{address}");
}

// === that it ends ===

#[tokio::test]
async fn stopping_ends_everything_gracefully() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default())
        .await
        .unwrap();
    let directory = control_plane.directory().to_owned();
    assert_eq!(
        programs_of(&directory),
        ["etcd", "kube-apiserver", "kube-controller-manager"]
    );
    control_plane.stop().await.unwrap();
    assert_eq!(programs_of(&directory), [""; 0]);
    assert!(!directory.exists());
}

#[tokio::test]
async fn dropping_ends_everything() {
    let control_plane = ControlPlane::start(without_controller_manager())
        .await
        .unwrap();
    let directory = control_plane.directory().to_owned();
    assert_eq!(programs_of(&directory), ["etcd", "kube-apiserver"]);
    drop(control_plane);
    assert_eq!(programs_of(&directory), [""; 0]);
    assert!(!directory.exists());
}

#[tokio::test]
async fn what_runs_beside_it_logs_and_ends_with_its_value() {
    let control_plane = ControlPlane::start(without_controller_manager())
        .await
        .unwrap();
    let arguments = ["-c", "echo in \"$PWD\"; exec sleep 1000"].map(str::to_owned);
    let mut program = control_plane
        .run("guest", Path::new("/bin/sh"), &arguments)
        .unwrap();
    let said = format!("in {}\n", control_plane.directory().display());
    until("it has logged", || {
        fs::read_to_string(program.log_path()).unwrap() == said
    });
    program.check().unwrap();
    drop(program);
    // The folder can only be removed when nothing runs in it any more.
    control_plane.stop().await.unwrap();
}

#[tokio::test]
async fn a_panic_ends_everything() {
    let (sender, directory) = std::sync::mpsc::channel();
    let panics = tokio::spawn(async move {
        let control_plane = ControlPlane::start(without_controller_manager())
            .await
            .unwrap();
        sender.send(control_plane.directory().to_owned()).unwrap();
        panic!("as a failed assertion would");
    });
    assert!(panics.await.unwrap_err().is_panic());
    let directory = directory.recv().unwrap();
    assert_eq!(programs_of(&directory), [""; 0]);
    assert!(!directory.exists());
}

#[tokio::test]
async fn giving_up_a_start_ends_everything() {
    let mark = format!(
        "--external-hostname=given-up-{}.invalid",
        std::process::id()
    );
    let mut start = Box::pin(ControlPlane::start(ControlPlaneOptions {
        apiserver_args: vec![mark.clone()],
        ..without_controller_manager()
    }));
    while programs_with(&mark).is_empty() {
        let more = Duration::from_millis(10);
        tokio::time::timeout(more, &mut start)
            .await
            .expect_err("the start ended before it was given up");
    }
    drop(start);
    assert_eq!(programs_with(&mark), [""; 0]);
}

#[test]
fn sigkill_of_the_test_process_ends_everything() {
    a_signal_ends_everything("KILL");
}

#[test]
fn ctrl_c_ends_everything() {
    a_signal_ends_everything("INT");
}

#[tokio::test]
async fn a_program_that_cannot_start_is_named_with_its_log() {
    let options = ControlPlaneOptions {
        apiserver_args: vec!["--no-such-flag".to_owned()],
        ..without_controller_manager()
    };
    let error = ControlPlane::start(options).await.unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Ended { program, .. } if program == "kube-apiserver"
        ),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("unknown flag: --no-such-flag"),
        "{error}"
    );
}

#[tokio::test]
async fn a_start_that_takes_too_long_is_an_error() {
    let options = ControlPlaneOptions {
        start_timeout: Duration::ZERO,
        ..without_controller_manager()
    };
    let error = ControlPlane::start(options).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotReady {
                tool: Tool::KubeApiserver,
                ..
            }
        ),
        "{error:?}"
    );
}

// === support ===

const ENFORCE_BASELINE: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline}
";

const AUDIT_METADATA: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules: [{level: Metadata}]
";

/// Sends a signal to a process that holds a control plane.
fn a_signal_ends_everything(signal: &str) {
    let mut holder = Command::new(env!("CARGO_BIN_EXE_test-control-plane"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let kubeconfig = PathBuf::from(line.trim().strip_prefix("export KUBECONFIG=").unwrap());
    let directory = kubeconfig.parent().unwrap();
    assert_eq!(
        programs_of(directory),
        ["etcd", "kube-apiserver", "kube-controller-manager"]
    );

    let sent = Command::new("kill")
        .args(["-s", signal, &holder.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    assert!(!holder.wait().unwrap().success());
    until("the programs have ended", || {
        programs_of(directory).is_empty()
    });
    until("the folder is gone", || !directory.exists());
}

/// The programs that run in the folder of a control plane.
fn programs_of(directory: &Path) -> Vec<String> {
    programs_with(directory.to_str().unwrap())
}

/// The sorted names of the programs of control planes that run with that text among their
/// arguments.
fn programs_with(text: &str) -> Vec<String> {
    let listed = Command::new("ps")
        .args(["-e", "-ww", "-o", "args="])
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout);
    let mut names: Vec<String> = listed
        .lines()
        .filter(|line| line.contains(text))
        .filter_map(|line| {
            Path::new(line.split_whitespace().next()?)
                .file_name()?
                .to_str()
                .map(str::to_owned)
        })
        // Not their supervisors, among whose arguments it is too.
        .filter(|name| name == "etcd" || name.starts_with("kube-"))
        .collect();
    names.sort();
    names
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn without_controller_manager() -> ControlPlaneOptions {
    ControlPlaneOptions {
        controller_manager: false,
        ..ControlPlaneOptions::default()
    }
}

fn namespaces(client: Client) -> Api<Namespace> {
    Api::all(client)
}

fn namespace(name: &str) -> Namespace {
    Namespace {
        metadata: named(name),
        ..Namespace::default()
    }
}

fn pod(name: &str) -> Pod {
    let container = Container {
        name: "only".to_owned(),
        image: Some("image.invalid/only".to_owned()),
        ..Container::default()
    };
    let spec = PodSpec {
        containers: vec![container],
        ..PodSpec::default()
    };
    Pod {
        metadata: named(name),
        spec: Some(spec),
        ..Pod::default()
    }
}

fn service(name: &str) -> Service {
    let port = ServicePort {
        port: 80,
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    };
    Service {
        metadata: named(name),
        spec: Some(spec),
        ..Service::default()
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}
