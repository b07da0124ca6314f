//! The cluster that the faults are done to: a control plane, a node, and the chart installed by Helm, with the image
//! that `make image` builds.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, stream};
use kube::Client;
use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions, Node, Relay};
use tokio::{process::Command, task};

use crate::{
    direct::Replica,
    loader, memory,
    report::Direct,
    support::{
        api::{Api, namespace},
        go_tool::go_tool,
    },
};

/// The names that the chart gives.
pub(crate) const NAMESPACE: &str = "pod-hardening-system";
pub(crate) const WEBHOOK: &str = "pod-hardening";
const SECRETS: [&str; 2] = ["pod-hardening-tls", "pod-hardening-ca"];

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const CHART: &str = "charts/pod-hardening";

/// How many replicas there are when all is well.
const REPLICAS: usize = 3;
/// How long the suite waits for anything before it gives up.
const DEADLINE: Duration = Duration::from_secs(300);
/// How often what is waited for is looked at.
const POLL: Duration = Duration::from_millis(100);

/// A namespace for many policies, and how many requests make them at once.
const MANY: &str = "many";
const AT_ONCE: usize = 50;

const POLICIES: &str = "/apis/podhardening.dev/v1alpha1/namespaces/many/podhardeningpolicies";
const CLUSTER_POLICY: &str = "/apis/podhardening.dev/v1alpha1/clusterpodhardeningpolicies/load";
const CRD: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/podhardeningpolicies.podhardening.dev";

/// A cluster with the product installed, and what is needed to break it.
pub(crate) struct Cluster {
    // Fields are dropped in this order: what uses others first.
    api: Api,
    relay: Relay,
    node: Node,
    control_plane: ControlPlane,
    client: Client,
    helm: PathBuf,
    /// Which replica the next signal is for.
    turn: usize,
    /// The container that was frozen last.
    frozen: String,
    /// The CRD as it was before it was deleted or changed.
    crd: Value,
    direct: Direct,
}

/// A pod of the product's.
#[derive(Debug)]
struct ProductPod {
    address: String,
    container: String,
    is_ready: bool,
    restarts: u64,
}

// === impl Cluster: life ===

impl Cluster {
    /// Builds what is installed, starts everything, and installs it with `failurePolicy: Fail`, so that a call that
    /// fails is seen.
    pub(crate) async fn start() -> Self {
        let helm =
            task::spawn_blocking(|| go_tool("tests/helm", "helm", "helm.sh/helm/v4/cmd/helm", &[]));
        let archive = task::spawn_blocking(image);
        let (helm, archive) = (helm.await.unwrap(), archive.await.unwrap());
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await;
        let control_plane =
            control_plane.unwrap_or_else(|error| panic!("no control plane: {error}"));
        let node = Node::start(&control_plane).await;
        let node = node.unwrap_or_else(|error| panic!("no node: {error}"));
        task::block_in_place(|| node.import(&archive)).unwrap();
        let relay = Relay::start(&control_plane).unwrap();
        let mut cluster = Self {
            api: Api::of(&control_plane),
            client: control_plane.client().unwrap(),
            relay,
            node,
            control_plane,
            helm,
            turn: 0,
            frozen: String::new(),
            crd: Value::Null,
            direct: Direct::default(),
        };
        for name in [loader::NAMESPACE, MANY] {
            namespace(&cluster.api, name, &json!({})).await;
        }
        cluster.install().await;
        cluster.crd = cluster.api.get(CRD).await.unwrap();
        cluster
    }

    /// Ends everything.
    pub(crate) async fn stop(self) {
        let Self {
            relay,
            node,
            control_plane,
            ..
        } = self;
        drop(relay);
        task::block_in_place(|| node.stop()).unwrap();
        control_plane.stop().await.unwrap();
    }

    /// A client with all rights.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Installs the product as its documentation says, first with `Ignore`, and waits until it fills pods.
    pub(crate) async fn install(&mut self) {
        self.helm_upgrade(Path::new(CHART), &["failurePolicy=Ignore"])
            .await;
        // As `kubectl apply` does, and again, where it was kept by an uninstall.
        let policy = json!({
            "apiVersion": "podhardening.dev/v1alpha1", "kind": "ClusterPodHardeningPolicy",
            "metadata": {"name": "load"},
            "spec": {"profile": "Restricted", "namespaceSelector": {
                "matchLabels": {"kubernetes.io/metadata.name": loader::NAMESPACE},
            }},
        });
        let applied = self.api.apply(CLUSTER_POLICY, &policy).await;
        applied.ok().unwrap_or_else(|refusal| panic!("{refusal}"));
        self.until_whole().await;
        self.helm_upgrade(Path::new(CHART), &[]).await;
    }

    /// Waits until all replicas are ready, no other pod of theirs is left, and each answers by a policy that is
    /// changed just now.
    pub(crate) async fn until_whole(&mut self) {
        let number = i64::from(rand());
        let changed = self.until_some("the policy can be changed", async |cluster| {
            let priority = json!({"spec": {"priority": number}});
            cluster
                .api
                .merge(CLUSTER_POLICY, &priority)
                .await
                .map_err(|error| error.to_string())
        });
        let changed = changed.await;
        let generation = format!("load@{}", changed["metadata"]["generation"]);
        self.until_some(
            "every replica answers by the newest policy",
            async |cluster| {
                cluster
                    .all_answer(loader::NAMESPACE, "app", &generation)
                    .await
            },
        )
        .await;
    }

    /// Whether each of all the replicas is ready, and its answer for such a pod has this in it.
    async fn all_answer(&self, namespace: &str, app: &str, expected: &str) -> Result<(), String> {
        let pods = self.pods("webhook").await?;
        if pods.len() != REPLICAS || pods.iter().any(|pod| !pod.is_ready) {
            return Err(format!("{pods:?}"));
        }
        let ca = self.ca().await?;
        for pod in pods {
            let replica = Replica::at(&pod.address, &ca).await;
            let patch = replica.patch(namespace, app).await?;
            if !patch.contains(expected) {
                return Err(format!("{}: {patch}", pod.address));
            }
        }
        Ok(())
    }

    /// How many containers of the product's that run now were started again.
    pub(crate) async fn restarts(&self) -> u64 {
        let mut restarts = 0;
        for component in ["webhook", "manager"] {
            let pods = self.pods(component).await.unwrap_or_default();
            restarts += pods.iter().map(|pod| pod.restarts).sum::<u64>();
        }
        restarts
    }

    /// The most memory that a replica has now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        memory::largest_replica(self.node.directory())
    }

    /// The calls past the API server since this was asked last.
    pub(crate) fn take_direct(&mut self) -> Direct {
        std::mem::take(&mut self.direct)
    }
}

// === impl Cluster: faults ===

impl Cluster {
    pub(crate) async fn roll(&mut self) {
        self.kubectl(&["rollout", "restart", "deployment", WEBHOOK])
            .await;
        self.kubectl(&["rollout", "status", "deployment", WEBHOOK])
            .await;
    }

    pub(crate) async fn scale(&mut self, replicas: usize) {
        let number = format!("--replicas={replicas}");
        self.kubectl(&["scale", "deployment", WEBHOOK, &number])
            .await;
        self.until_some("as many replicas as were asked for", async |cluster| {
            let pods = cluster.pods("webhook").await?;
            let is_so = pods.len() == replicas && pods.iter().all(|pod| pod.is_ready);
            is_so.then_some(()).ok_or_else(|| format!("{pods:?}"))
        })
        .await;
    }

    pub(crate) async fn signal_replica(&mut self, signal: &str) {
        let pods = self.pods("webhook").await.unwrap();
        self.turn += 1;
        self.frozen = pods[self.turn % pods.len()].container.clone();
        self.signal_frozen(signal).await;
    }

    pub(crate) async fn signal_manager(&mut self, signal: &str) {
        let pods = self.pods("manager").await.unwrap();
        self.frozen = pods[0].container.clone();
        self.signal_frozen(signal).await;
    }

    /// Signals the container that was signalled before.
    pub(crate) async fn signal_frozen(&mut self, signal: &str) {
        task::block_in_place(|| self.node.signal(&self.frozen, signal)).unwrap();
    }

    /// Stops a replica as a debugger would, and waits until it is out of rotation, and some time more in which calls
    /// must find the others.
    pub(crate) async fn freeze_replica(&mut self) {
        let frozen = Instant::now();
        self.signal_replica("SIGSTOP").await;
        self.until_some("the replica is out of rotation", async |cluster| {
            let pods = cluster.pods("webhook").await?;
            let is_out = pods
                .iter()
                .any(|pod| pod.container == cluster.frozen && !pod.is_ready);
            is_out.then_some(()).ok_or_else(|| format!("{pods:?}"))
        })
        .await;
        tokio::time::sleep_until((frozen + Duration::from_secs(22)).into()).await;
    }

    pub(crate) async fn restart_kubelet(&mut self) {
        let path = self.node.directory().join("kubelet.pid");
        let before = fs::read_to_string(&path).unwrap();
        self.node.restart_kubelet().unwrap();
        self.until_some("another kubelet", async |_| {
            let now = fs::read_to_string(&path).unwrap();
            (now != before).then_some(()).ok_or(now)
        })
        .await;
    }

    /// Ends the API server, and asks each replica for 20 s meanwhile.
    pub(crate) async fn lose_api_server(&mut self) {
        let ca = self.ca().await.unwrap();
        let mut replicas = Vec::new();
        for pod in self.pods("webhook").await.unwrap() {
            replicas.push(Replica::at(&pod.address, &ca).await);
        }
        task::block_in_place(|| self.control_plane.stop_apiserver());
        let end = Instant::now() + Duration::from_secs(20);
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        while Instant::now() < end {
            ticks.tick().await;
            for replica in &replicas {
                match replica.patch(loader::NAMESPACE, "app").await {
                    Ok(patch) if patch.contains("load@") => self.direct.answered += 1,
                    _ => self.direct.failed += 1,
                }
            }
        }
        assert!(self.direct.answered + self.direct.failed > 0);
    }

    pub(crate) async fn restore_api_server(&mut self) {
        self.control_plane.start_apiserver().await.unwrap();
    }

    pub(crate) async fn restart_etcd(&mut self) {
        self.control_plane.restart_etcd().await.unwrap();
    }

    pub(crate) async fn cut_watches(&mut self) {
        self.relay.cut();
    }

    pub(crate) async fn silence_watches(&mut self, time: Duration) {
        self.relay.silence();
        tokio::time::sleep(time).await;
    }

    pub(crate) async fn heal_watches(&mut self) {
        self.relay.heal();
    }

    /// Lets certificates live for minutes, until there were so many others. Those that are there are deleted, as
    /// they would live on.
    pub(crate) async fn rotate(&mut self, leaves: usize, authorities: usize) {
        let short = "manager.extraArgs={--tls-leaf-lifetime=1m,--tls-ca-lifetime=3m}";
        self.helm_upgrade(Path::new(CHART), &[short]).await;
        self.delete_certificates().await;
        let deadline =
            Instant::now() + Duration::from_secs(60) * u32::try_from(leaves).unwrap() + DEADLINE;
        let mut seen = [Vec::new(), Vec::new()];
        while seen[0].len() <= leaves || seen[1].len() <= authorities {
            assert!(Instant::now() < deadline, "too few certificates: {seen:?}");
            for (name, seen) in SECRETS.iter().zip(&mut seen) {
                let version = self.secret(name).await.unwrap_or_default();
                if seen.last() != Some(&version) {
                    seen.push(version);
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Lets certificates live as long as they do by default.
    pub(crate) async fn rotate_no_more(&mut self) {
        self.helm_upgrade(Path::new(CHART), &[]).await;
    }

    pub(crate) async fn delete_certificates(&mut self) {
        for name in SECRETS {
            let before = self.secret(name).await.unwrap();
            self.api.delete(&secret(name)).await;
            self.until_some("the Secret is made again", async |cluster| {
                let now = cluster.secret(name).await?;
                (now != before).then_some(()).ok_or(now)
            })
            .await;
        }
    }

    pub(crate) async fn delete_namespaced_crd(&mut self) {
        self.api.delete(CRD).await;
        self.until_some("the CRD is gone", async |cluster| {
            match cluster.api.get(CRD).await {
                Err(refusal) if refusal.status == 404 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Applies the CRD again, and waits until policies of its kind are in force again.
    pub(crate) async fn restore_namespaced_crd(&mut self) {
        self.apply_crd().await;
        self.create_policies(1).await;
        self.delete_many_policies().await;
    }

    /// Applies the CRD in Helm's name, so that the next upgrade finds it as Helm left it.
    async fn apply_crd(&mut self) {
        let path = format!("{CRD}?fieldManager=helm&force=true");
        let content = [("content-type", "application/apply-patch+yaml")];
        let crd = bare(&self.crd);
        let applied = self.api.request("PATCH", &path, &content, Some(&crd)).await;
        applied.ok().unwrap_or_else(|refusal| panic!("{refusal}"));
    }

    /// Creates policies in a namespace, all at once, each for another pod, and waits until the last is in force.
    pub(crate) async fn create_policies(&mut self, number: usize) {
        let api = &self.api;
        stream::iter(0..number)
            .for_each_concurrent(AT_ONCE, async |number| {
                let deadline = Instant::now() + DEADLINE;
                // A kind that was made just now is not served yet.
                while let Err(refusal) = api.post(POLICIES, &policy(number)).await {
                    assert!(Instant::now() < deadline, "policy {number}: {refusal}");
                    tokio::time::sleep(POLL).await;
                }
            })
            .await;
        let last = number - 1;
        self.until_in_force(last, 1).await;
    }

    /// Has the API server store a policy that no version of ours can read, among good ones, and waits until a change
    /// of one of those is in force.
    pub(crate) async fn store_broken_policy_among(&mut self, number: usize) {
        let mut lax = self.api.get(CRD).await.unwrap();
        lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({
            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        });
        self.api
            .put(CRD, &lax)
            .await
            .unwrap_or_else(|refusal| panic!("{refusal}"));
        let mut broken = policy(number);
        broken["spec"] = json!({"profile": 5, "pod": "none"});
        self.until_some("a broken policy is stored", async |cluster| {
            let stored = cluster.api.post(POLICIES, &broken).await;
            stored.map_err(|error| error.to_string())
        })
        .await;
        self.create_policies(number - 1).await;
        let path = format!("{POLICIES}/policy-7");
        let change = json!({"spec": {"priority": 7}});
        self.api
            .merge(&path, &change)
            .await
            .unwrap_or_else(|refusal| panic!("{refusal}"));
        self.until_in_force(7, 2).await;
    }

    async fn until_in_force(&mut self, number: usize, generation: u32) {
        let expected = format!("many/policy-{number}@{generation}");
        self.until_some("the policy is in force everywhere", async |cluster| {
            cluster
                .all_answer(MANY, &format!("app-{number}"), &expected)
                .await
        })
        .await;
    }

    /// Deletes all those policies, and puts the CRD back as it was.
    pub(crate) async fn delete_many_policies(&mut self) {
        self.api.delete(POLICIES).await;
        self.apply_crd().await;
    }

    /// Changes a policy every second.
    pub(crate) async fn change_policy(&mut self, times: i64) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        for number in 0..times {
            seconds.tick().await;
            let priority = json!({"spec": {"priority": number}});
            let changed = self.api.merge(CLUSTER_POLICY, &priority).await;
            changed.unwrap_or_else(|refusal| panic!("{refusal}"));
        }
    }

    /// Installs the chart's previous version. As there is none yet, it is this one under a lower number, with pods
    /// that differ.
    pub(crate) async fn downgrade(&mut self) {
        let previous = self.control_plane.directory().join("previous");
        copy(&Path::new(ROOT).join(CHART), &previous);
        let path = previous.join("Chart.yaml");
        let chart = fs::read_to_string(&path).unwrap();
        let chart: Vec<_> = chart
            .lines()
            .map(|line| match line.starts_with("version:") {
                true => "version: 0.0.1",
                false => line,
            })
            .collect();
        fs::write(&path, chart.join("\n")).unwrap();
        let values = [
            "webhook.podAnnotations.release=previous",
            "manager.podAnnotations.release=previous",
        ];
        self.helm_upgrade(&previous, &values).await;
    }

    pub(crate) async fn upgrade(&mut self) {
        self.helm_upgrade(Path::new(CHART), &[]).await;
    }

    pub(crate) async fn uninstall(&mut self) {
        self.helm(&["uninstall", WEBHOOK, "--wait", "--timeout=5m"])
            .await;
    }
}

// === impl Cluster: how ===

impl Cluster {
    async fn helm_upgrade(&self, chart: &Path, values: &[&str]) {
        let chart = chart.display().to_string();
        let mut arguments = vec![
            "upgrade",
            "--install",
            WEBHOOK,
            &chart,
            "--create-namespace",
            "--wait",
            "--timeout=5m",
            "--set=image.pullPolicy=Never",
            "--set=failurePolicy=Fail",
        ];
        // A later value goes before an earlier one.
        for value in values {
            arguments.extend(["--set", value]);
        }
        self.helm(&arguments).await;
    }

    async fn helm(&self, arguments: &[&str]) {
        let arguments = [arguments, &["--namespace", NAMESPACE]].concat();
        self.run(&self.helm, &arguments).await;
    }

    async fn kubectl(&self, arguments: &[&str]) {
        let kubectl = self.control_plane.kubectl().unwrap();
        let arguments = [arguments, &["--namespace", NAMESPACE]].concat();
        self.run(&kubectl, &arguments).await;
    }

    async fn run(&self, program: &Path, arguments: &[&str]) {
        let output = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("HOME", self.control_plane.directory())
            .env("KUBECONFIG", self.control_plane.kubeconfig_path())
            .current_dir(ROOT)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let pods = self
                .api
                .get(&format!("/api/v1/namespaces/{NAMESPACE}/pods"))
                .await;
            let status: Vec<_> = pods
                .iter()
                .flat_map(|pods| pods["items"].as_array())
                .flatten()
                .map(|pod| pod["status"].to_string())
                .collect();
            panic!(
                "{} {arguments:?}: {said}\n{}",
                program.display(),
                status.join("\n")
            );
        }
    }

    /// The product's pods of a component, also those that are about to go.
    async fn pods(&self, component: &str) -> Result<Vec<ProductPod>, String> {
        let selector = format!("app.kubernetes.io%2Fcomponent%3D{component}");
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={selector}");
        let pods = self.get(&path).await?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        Ok(pods.iter().map(ProductPod::of).collect())
    }

    /// The CAs that the API server trusts the webhook by.
    async fn ca(&self) -> Result<String, String> {
        let path =
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/pod-hardening";
        let registration = self.get(path).await?;
        let bundle = &registration["webhooks"][0]["clientConfig"]["caBundle"];
        let bundle = bundle.as_str().ok_or("no caBundle yet")?;
        let ca = STANDARD.decode(bundle).map_err(|error| error.to_string())?;
        String::from_utf8(ca).map_err(|error| error.to_string())
    }

    /// What a Secret holds, as text that tells it from another.
    async fn secret(&self, name: &str) -> Result<String, String> {
        let found = self.get(&secret(name)).await?;
        Ok(found["data"].to_string())
    }

    /// An object; what came instead, be it of the API server or of the network, is an error.
    async fn get(&self, path: &str) -> Result<Value, String> {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        let answer = self.client.request::<Value>(request);
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
        answer
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }

    /// Looks again and again until it is there; says what was seen last where it never is.
    async fn until_some<T>(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut(&Self) -> Result<T, String>,
    ) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let seen = match look(self).await {
                Ok(found) => return found,
                Err(seen) => seen,
            };
            assert!(
                Instant::now() < deadline,
                "not within {DEADLINE:?}: {what}: {seen}"
            );
            tokio::time::sleep(POLL).await;
        }
    }
}

impl ProductPod {
    fn of(pod: &Value) -> Self {
        let status = &pod["status"];
        let container = &status["containerStatuses"][0];
        let is_going = pod["metadata"]["deletionTimestamp"].is_string();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            address: text(&status["podIP"]),
            container: text(&container["containerID"]).replace("containerd://", ""),
            is_ready: container["ready"] == json!(true) && !is_going,
            restarts: container["restartCount"].as_u64().unwrap_or(0),
        }
    }
}

/// The image of this machine's architecture, built now if it never was.
fn image() -> PathBuf {
    let architecture = container_image::Architecture::of_this_machine();
    let architecture = architecture.expect("images are made for this architecture");
    let output = std::process::Command::new(Path::new(ROOT).join("hack/image"))
        .args(["--platform", architecture.name()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "no image: {said}");
    let name = format!("hardening-controller-{}.tar", env!("CARGO_PKG_VERSION"));
    Path::new(ROOT).join("target/image").join(name)
}

fn secret(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
}

/// A policy for pods that are labelled with its number.
fn policy(number: usize) -> Value {
    json!({
        "apiVersion": "podhardening.dev/v1alpha1", "kind": "PodHardeningPolicy",
        "metadata": {"name": format!("policy-{number}"), "namespace": MANY},
        "spec": {"profile": "Restricted", "podSelector": {"matchLabels": {"app": format!("app-{number}")}}},
    })
}

/// An object without what only the API server gives it.
fn bare(object: &Value) -> Value {
    let mut bare = object.clone();
    let bare_object = bare.as_object_mut().unwrap();
    bare_object.remove("status");
    let metadata = bare["metadata"].as_object_mut().unwrap();
    metadata.retain(|name, _| ["name", "labels", "annotations"].contains(&name.as_str()));
    bare
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Another number each time, so that a change is one.
fn rand() -> u16 {
    fastrand::u16(..)
}
