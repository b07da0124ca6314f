//! A real node: that pods run on it, and above all that it ends with all that it started.
//!
//! Where this machine cannot run one, the tests of the product on a node say so, and in CI fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what helps a test may fail as a test does"
)]

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Once,
    thread,
    time::{Duration, Instant},
};

use container_image::{Architecture, Archive, Attributes, Compression, Layer};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_control_plane::{ControlPlane, ControlPlaneOptions, Error, Image, Node, Relay};

/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(90);

// === that it works ===

#[tokio::test]
async fn pods_run_on_it_and_say_what_they_see() {
    let Some((control_plane, node)) = start().await else {
        return;
    };
    let script = "id >/dev/termination-log; echo said";
    let pods = create(control_plane.client().unwrap(), "ends", script).await;
    let ended = until_phase(&pods, "ends", "Succeeded").await;
    let status = &ended["status"]["containerStatuses"][0];
    assert_eq!(
        status["state"]["terminated"]["message"],
        "uid=0(root) gid=0(root) groups=0(root)\n"
    );
    assert_eq!(ended["spec"]["nodeName"], node.name());

    create(control_plane.client().unwrap(), "stays", WAIT).await;
    until_phase(&pods, "stays", "Running").await;
    let kubectl = |arguments: &[&str]| {
        let output = Command::new(control_plane.kubectl().unwrap())
            .args(arguments)
            .env("KUBECONFIG", control_plane.kubeconfig_path())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(kubectl(&["logs", "ends"]), "said\n");
    assert_eq!(
        kubectl(&["exec", "stays", "--", "echo", "inside"]),
        "inside\n"
    );
    node.stop().unwrap();
    control_plane.stop().await.unwrap();
}

#[tokio::test]
async fn each_image_does_what_it_says() {
    let Some((control_plane, node)) = start().await else {
        return;
    };
    let pods = Api::<Pod>::default_namespaced(control_plane.client().unwrap());
    let images: Vec<(String, Image)> = Image::ALL
        .into_iter()
        .map(|image| (image.name.replace(['.', '/', ':'], "-"), image))
        .collect();
    for (name, image) in &images {
        let probe = match *image {
            Image::WRITER => json!({"exec": {"command": ["cat", "/data/cache", "/tmp/scratch"]}}),
            Image::PORT_80 => json!({"httpGet": {"port": 80, "path": "/index.html"}}),
            image => {
                let user = if image.user.is_none() { "0" } else { "1234" };
                json!({"exec": {"command": ["sh", "-c", format!("[ $(id -u) = {user} ]")]}})
            }
        };
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{
            "name": "only", "image": image.name, "imagePullPolicy": "Never", "readinessProbe": probe,
        }]}});
        let pod = serde_json::from_value(pod).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }
    for (name, _) in &images {
        until(&pods, name, "is ready", |pod| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        })
        .await;
    }
    node.stop().unwrap();
    control_plane.stop().await.unwrap();
}

#[tokio::test]
async fn two_run_side_by_side_and_the_end_of_one_is_nothing_to_the_other() {
    let (Some(one), Some(other)) = tokio::join!(start(), start()) else {
        return;
    };
    let mut addresses = Vec::new();
    for (control_plane, _) in [&one, &other] {
        let pods = create(control_plane.client().unwrap(), "stays", WAIT).await;
        let pod = until_phase(&pods, "stays", "Running").await;
        addresses.push(pod["status"]["podIP"].as_str().unwrap().to_owned());
    }
    assert_ne!(addresses[0], addresses[1]);

    let (control_plane, node) = one;
    let traces = Traces::of(node.directory());
    assert!(!traces.found().is_empty());
    node.stop().unwrap();
    assert_eq!(traces.found(), [""; 0]);
    control_plane.stop().await.unwrap();

    let (control_plane, node) = other;
    let traces = Traces::of(node.directory());
    let pods = create(control_plane.client().unwrap(), "ends", "exit 0").await;
    until_phase(&pods, "ends", "Succeeded").await;
    drop(node);
    assert_eq!(traces.found(), [""; 0]);
    control_plane.stop().await.unwrap();
}

#[tokio::test]
async fn pods_reach_the_api_server_where_they_look_for_it() {
    let Some((control_plane, node)) = start().await else {
        return;
    };
    let relay = Relay::start(&control_plane).unwrap();
    // What a server of HTTPS says to who speaks HTTP: busybox has no TLS.
    let script = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 60 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT \
        | tail -n 1 >/dev/termination-log";
    let pods = create(control_plane.client().unwrap(), "asks", script).await;
    let ended = until_phase(&pods, "asks", "Succeeded").await;
    let status = &ended["status"]["containerStatuses"][0];
    assert_eq!(
        status["state"]["terminated"]["message"],
        "Client sent an HTTP request to an HTTPS server.\n"
    );
    drop(relay);
    node.stop().unwrap();
    control_plane.stop().await.unwrap();
}

#[tokio::test]
async fn containers_are_signalled_and_survive_their_kubelet() {
    let Some((control_plane, node)) = start().await else {
        return;
    };
    let pods = create(control_plane.client().unwrap(), "stays", WAIT).await;
    let running = until_phase(&pods, "stays", "Running").await;

    let kubelet = || fs::read_to_string(node.directory().join("kubelet.pid")).unwrap();
    let killed = kubelet();
    node.restart_kubelet().unwrap();
    let deadline = Instant::now() + DEADLINE;
    while kubelet() == killed {
        assert!(Instant::now() < deadline, "no other kubelet");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let script = "exit 0";
    create(control_plane.client().unwrap(), "later", script).await;
    until_phase(&pods, "later", "Succeeded").await;
    let id = |pod: &Value| {
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str();
        id.unwrap().trim_start_matches("containerd://").to_owned()
    };
    let still = until_phase(&pods, "stays", "Running").await;
    assert_eq!(id(&still), id(&running));

    node.signal(&id(&running), "SIGKILL").unwrap();
    let ended = until_phase(&pods, "stays", "Failed").await;
    let state = &ended["status"]["containerStatuses"][0]["state"];
    assert_eq!(state["terminated"]["exitCode"], 137, "{state:#}");
    let error = node.signal("unknown", "SIGKILL").unwrap_err();
    assert!(error.to_string().starts_with("cannot signal a container: "));
    node.stop().unwrap();
    control_plane.stop().await.unwrap();
}

#[tokio::test]
async fn an_image_can_be_added_while_it_runs() {
    let Some((control_plane, node)) = start().await else {
        return;
    };
    let busybox = fs::read("/bin/busybox").unwrap();
    let mut layer = Layer::new();
    layer
        .file("busybox", Attributes::program(), &busybox)
        .unwrap();
    let architecture = Architecture::of_this_machine().unwrap();
    let mut image = container_image::Image::new(architecture);
    image.user = Some("65532".to_owned());
    image.entrypoint = vec!["/busybox".to_owned(), "true".to_owned()];
    image.layers.push(layer.finish(Compression::Gzip).unwrap());
    let other = match architecture {
        Architecture::Amd64 => Architecture::Arm64,
        Architecture::Arm64 => Architecture::Amd64,
    };
    let mut images = [image.clone(), image];
    images[0].architecture = other;

    let archive = node.directory().join("added.tar");
    Archive::new("test.example/added:1", &images)
        .unwrap()
        .write(fs::File::create(&archive).unwrap())
        .unwrap();
    node.import(&archive).unwrap();
    let pods = Api::<Pod>::default_namespaced(control_plane.client().unwrap());
    let pod = json!({"metadata": {"name": "added"}, "spec": {"restartPolicy": "Never", "containers": [{
        "name": "only", "image": "test.example/added:1", "imagePullPolicy": "Never",
        "securityContext": {"runAsNonRoot": true},
    }]}});
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    until_phase(&pods, "added", "Succeeded").await;
    node.stop().unwrap();
    control_plane.stop().await.unwrap();
}

// === that it ends ===

#[tokio::test]
async fn sigkill_of_the_test_process_leaves_nothing_while_pods_run() {
    let Some(mut holder) = Holder::start() else {
        return;
    };
    let kubeconfig = holder.until_ready();
    let config = Kubeconfig::read_from(&kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(config, &options).await;
    let client = Client::try_from(config.unwrap()).unwrap();
    let pods = create(client, "stays", WAIT).await;
    until_phase(&pods, "stays", "Running").await;
    let traces = Traces::of(&holder.node().unwrap());
    let found = traces.found();
    for kind in ["process", "mount", "cgroup", "cable", "folder"] {
        assert!(
            found.iter().any(|line| line.starts_with(kind)),
            "no {kind}: {found:#?}"
        );
    }
    holder.kill();
    traces.until_gone();
}

/// Killed at three moments of a start; what runs next finds no trace of it.
#[test]
fn sigkill_of_the_test_process_leaves_nothing_while_the_node_starts() {
    for moment in ["node.sh", "containerd.sock", "kubelet/pods"] {
        let Some(mut holder) = Holder::start() else {
            return;
        };
        let deadline = Instant::now() + DEADLINE;
        let folder = loop {
            match holder.node() {
                Some(folder) if folder.join(moment).exists() => break folder,
                _ => {}
            }
            assert!(Instant::now() < deadline, "no {moment} within {DEADLINE:?}");
            thread::sleep(Duration::from_millis(5));
        };
        let traces = Traces::of(&folder);
        holder.kill();
        traces.until_gone();
    }
}

// === support ===

/// What a container runs that goes on.
const WAIT: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

/// A control plane with its node; `None`, and a line that says so, where this machine cannot run one.
async fn start() -> Option<(ControlPlane, Node)> {
    if cannot() {
        return None;
    }
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await;
    let control_plane = control_plane.unwrap();
    let node = Node::start(&control_plane).await;
    let node = node.unwrap_or_else(|error: Error| panic!("{error}"));
    Some((control_plane, node))
}

/// Whether this machine cannot run a node, which is said once, past the test harness.
fn cannot() -> bool {
    static SAID: Once = Once::new();
    let Some(why) = Node::unsupported() else {
        return false;
    };
    SAID.call_once(|| {
        let mut stderr = io::stderr();
        writeln!(stderr, "NO NODE TEST RUNS HERE: {why}").unwrap();
    });
    assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
    true
}

/// Creates a pod that runs a script once.
async fn create(client: Client, name: &str, script: &str) -> Api<Pod> {
    let pods = Api::<Pod>::namespaced(client, "default");
    let pod = json!({"metadata": {"name": name}, "spec": {"restartPolicy": "Never", "containers": [{
        "name": "only", "image": Image::ROOT.name, "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
    }]}});
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    pods
}

async fn until_phase(pods: &Api<Pod>, name: &str, phase: &str) -> Value {
    until(pods, name, phase, |pod| pod["status"]["phase"] == phase).await
}

async fn until(pods: &Api<Pod>, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let pod = serde_json::to_value(pods.get(name).await.unwrap()).unwrap();
        if is_so(&pod) {
            return pod;
        }
        assert!(
            Instant::now() < deadline,
            "{name}: not within {DEADLINE:?}: {what}: {:#}",
            pod["status"]
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A process that holds a node, in a temporary folder of its own.
struct Holder {
    folder: TempDir,
    process: Child,
}

impl Holder {
    fn start() -> Option<Self> {
        if cannot() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_test-control-plane"))
            .arg("--node")
            .env("TMPDIR", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Self { folder, process })
    }

    /// Waits until the node is ready; where the kubeconfig is.
    fn until_ready(&mut self) -> PathBuf {
        let mut lines = BufReader::new(self.process.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let second = lines.next().unwrap().unwrap();
        assert_eq!(second, "# the node is ready");
        PathBuf::from(first.strip_prefix("export KUBECONFIG=").unwrap())
    }

    /// The node's folder, once there is one.
    fn node(&self) -> Option<PathBuf> {
        let mut entries = fs::read_dir(self.folder.path()).unwrap();
        entries.find_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?;
            name.starts_with("node-").then_some(path)
        })
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// What a node can leave behind.
struct Traces {
    folder: PathBuf,
    /// The cgroups' name.
    cgroup: String,
    /// How the pods' addresses begin, if the node came so far.
    subnet: Option<String>,
}

impl Traces {
    fn of(folder: &Path) -> Self {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let network = fs::read_to_string(folder.join("network/pods.conflist"));
        let network: Option<Value> = network
            .ok()
            .and_then(|network| serde_json::from_str(&network).ok());
        let subnet = network.map(|network| {
            let subnet = &network["plugins"][0]["ipam"]["ranges"][0][0]["subnet"];
            let subnet = subnet.as_str().unwrap();
            subnet.strip_suffix("0/24").unwrap().to_owned()
        });
        Self {
            folder: folder.to_owned(),
            cgroup: format!("test-{name}"),
            subnet,
        }
    }

    /// What there is of it, one a line.
    fn found(&self) -> Vec<String> {
        let mut found = Vec::new();
        for process in fs::read_dir("/proc").unwrap() {
            let process = process.unwrap().path();
            // Processes come and go, and then have no files.
            let read = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
            // What has ended stays in the list until its parent takes note, which is the machine's affair.
            let has_ended = ["State:\tZ", "State:\tX"].map(|state| read("status").contains(state));
            if read("cgroup").contains(&self.cgroup) && has_ended == [false; 2] {
                found.push(format!(
                    "process {}: {}",
                    process.display(),
                    read("cmdline")
                ));
            }
            let folder = self.folder.to_str().unwrap();
            if read("mountinfo").contains(folder) {
                found.push(format!("mount, seen by {}", process.display()));
            }
        }
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap();
        let hierarchies = hierarchies.map(|entry| entry.unwrap().path());
        for cgroup in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let cgroup = cgroup.join(&self.cgroup);
            if cgroup.exists() {
                found.push(format!("cgroup {}", cgroup.display()));
            }
        }
        // This machine's end of the cable to a pod, whose other end is in the pod's network namespace.
        let addresses = fs::read_to_string("/proc/net/fib_trie").unwrap();
        let ours = |subnet: &String| addresses.contains(subnet.as_str());
        if self.subnet.as_ref().is_some_and(ours) {
            found.push(format!("cable to {:?}", self.subnet));
        }
        if self.folder.exists() {
            found.push(format!("folder {}", self.folder.display()));
        }
        found
    }

    fn until_gone(&self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.found();
            if found.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "still there after {DEADLINE:?}: {found:#?}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}
