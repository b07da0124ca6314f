//! The cluster that the faults are done to: a control plane, a node, and the chart installed by Helm, with the image
//! that `make image` builds.

mod inflict;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::Client;
use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions, Node, Relay};
use tokio::{process::Command, task};

use crate::{
    Selection,
    direct::Replica,
    loader, process,
    report::SeenInside,
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
    /// The pod that a fault was for last.
    chosen: ProductPod,
    /// The CRD as it was before it was deleted or changed.
    crd: Value,
    /// How long a soak takes.
    soak: Duration,
    seen: SeenInside,
}

/// A pod of the product's.
#[derive(Clone, Debug, Default)]
struct ProductPod {
    name: String,
    address: String,
    container: String,
    is_ready: bool,
    restarts: u64,
}

// === impl Cluster: life ===

impl Cluster {
    /// Builds what is installed, starts everything, and installs it with `failurePolicy: Fail`, so that a call that
    /// fails is seen.
    pub(crate) async fn start(selection: &Selection) -> Self {
        let helm =
            task::spawn_blocking(|| go_tool("tests/helm", "helm", "helm.sh/helm/v4/cmd/helm", &[]));
        let archive = match selection.image.clone() {
            Some(archive) => archive,
            None => task::spawn_blocking(image).await.unwrap(),
        };
        let helm = helm.await.unwrap();
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
            chosen: ProductPod::default(),
            crd: Value::Null,
            soak: selection.soak,
            seen: SeenInside::default(),
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
        process::largest_replica(self.node.directory())
    }

    /// What faults saw themselves since this was asked last.
    pub(crate) fn take_seen(&mut self) -> SeenInside {
        std::mem::take(&mut self.seen)
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
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
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
            name: text(&pod["metadata"]["name"]),
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

/// Another number each time, so that a change is one.
fn rand() -> u16 {
    fastrand::u16(..)
}
