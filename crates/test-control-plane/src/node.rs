//! A node: a kubelet, containerd and a scheduler, which really start the containers of pods.
//!
//! A control plane alone says whether a pod is accepted. Only a node says whether it runs, and what the process
//! in a container then sees.
//!
//! The kubelet, containerd and everything that they start are in namespaces of their own, whose first process
//! is watched as every other program here is (`process.rs`). When it ends, in whatever way, the kernel ends the
//! rest: containers, mounts, and with them the pods' network namespaces. What the kernel leaves, cgroups and
//! the folder, the janitor removes (`workspace.rs`).
//!
//! A node can be made to suffer what nodes suffer: [`signal`](Node::signal) goes to a container's process, and
//! the [kubelet](Node::restart_kubelet) can be killed and comes again.

mod files;
mod image;
mod requirements;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::{Api, Client};
use tokio::{task, time::Instant};

pub use self::image::{Image, NAMED_USER};
use self::requirements::Requirements;
pub use self::requirements::Unsupported;
use crate::{
    ControlPlane, Error, Progress, Tool,
    process::{self, Program},
    workspace::Workspace,
};

/// The first process of the node.
const SCRIPT: &str = include_str!("node/node.sh");

/// The node's name in the API, at which the API server also finds the kubelet: it listens on loopback, whose
/// address may not be a node's.
const NAME: &str = "localhost";

/// Where the node's first process takes orders, which `node.sh` knows too.
const ORDERS: &str = "orders";

/// How long a node may take until it takes pods.
const START: Duration = Duration::from_secs(120);

/// How often what is waited for is looked at.
const POLL: Duration = Duration::from_millis(100);

/// A running node of a [`ControlPlane`]. It ends when this value is dropped, and when the process ends, in
/// whatever way; let it end before its control plane.
#[derive(Debug)]
pub struct Node {
    // Fields are dropped in this order.
    scheduler: Program,
    machine: Program,
    workspace: Workspace,
    /// The client of the container runtime.
    ctr: PathBuf,
}

impl Node {
    /// Why this machine cannot run a node, if it cannot: what is missing, and how to get it.
    #[must_use]
    pub fn unsupported() -> Option<Unsupported> {
        Requirements::find().err()
    }

    /// Adds a node to a control plane, with the [images](Image::ALL), and waits until it takes pods.
    ///
    /// # Errors
    ///
    /// With [`Error::NoNode`] where this machine [cannot run one](Self::unsupported).
    pub async fn start(control_plane: &ControlPlane) -> Result<Self, Error> {
        let has = Requirements::find().map_err(Error::NoNode)?;
        let binaries = control_plane.binaries().clone();
        let binaries = task::spawn_blocking(move || binaries.with_node(Progress::auto()))
            .await
            .map_err(Error::Interrupted)??;

        let workspace = Workspace::create_with_cgroups()?;
        prepare(control_plane, &workspace, &has)?;
        let machine = Program::spawn(
            &Tool::Kubelet,
            Path::new("/usr/bin/env"),
            &arguments(&workspace, &has, &binaries.path(Tool::Kubelet)?),
            &workspace,
        )?;
        let scheduler = workspace.write(
            "scheduler.kubeconfig",
            &control_plane.kubeconfig_for("system:kube-scheduler", None)?,
        )?;
        let scheduler = Program::spawn(
            &Tool::KubeScheduler,
            &binaries.path(Tool::KubeScheduler)?,
            &[
                format!("--kubeconfig={}", scheduler.display()),
                "--secure-port=0".to_owned(),
                "--leader-elect=false".to_owned(),
            ],
            &workspace,
        )?;
        let mut node = Self {
            scheduler,
            machine,
            workspace,
            ctr: has.ctr,
        };
        node.until_ready(control_plane.client()?).await?;
        Ok(node)
    }

    /// Ends the node, containers and all, and removes everything that it left.
    pub fn stop(self) -> Result<(), Error> {
        let Self {
            scheduler,
            machine,
            workspace,
            ctr: _,
        } = self;
        scheduler.kill();
        machine.kill();
        workspace.remove()
    }

    /// The node's name, as in a pod's `spec.nodeName`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// The folder that goes with this value, with the logs of the node's programs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.workspace.path()
    }

    /// Adds an image from an archive, so that pods can run it with `imagePullPolicy: Never`. Blocks meanwhile.
    pub fn import(&self, archive: &Path) -> Result<(), Error> {
        let archive = archive.display().to_string();
        self.ctr("import an image", &["images", "import", &archive])
    }

    /// Sends a signal such as `SIGKILL` to the first process of a container, which is named by its id, as a
    /// pod's status has it after `containerd://`. Blocks meanwhile.
    pub fn signal(&self, container: &str, signal: &str) -> Result<(), Error> {
        let arguments = ["tasks", "kill", "--signal", signal, container];
        self.ctr("signal a container", &arguments)
    }

    /// Kills the kubelet, as a crash would, and has it started again. Containers go on.
    pub fn restart_kubelet(&self) -> Result<(), Error> {
        let path = self.workspace.path().join(ORDERS);
        let order = || {
            OpenOptions::new()
                .write(true)
                .open(&path)?
                .write_all(b"restart-kubelet\n")
        };
        order().map_err(Error::file("write", &path))
    }

    fn ctr(&self, what: &'static str, arguments: &[&str]) -> Result<(), Error> {
        let socket = self.workspace.path().join("containerd.sock");
        let output = Command::new(&self.ctr)
            .arg("--address")
            .arg(socket)
            .args(["--namespace", "k8s.io"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| Error::Spawn {
                what: self.ctr.display().to_string(),
                source,
            })?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Runtime {
            what,
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    async fn until_ready(&mut self, client: Client) -> Result<(), Error> {
        let nodes = Api::<NodeObject>::all(client);
        let deadline = Instant::now() + START;
        loop {
            let met = match nodes.get_opt(NAME).await {
                Ok(Some(node)) if takes_pods(&node) => return Ok(()),
                Ok(_) => None,
                Err(error) => Some(Box::new(error)),
            };
            self.machine.check()?;
            self.scheduler.check()?;
            if Instant::now() >= deadline {
                return Err(Error::NotReady {
                    what: "a ready node",
                    tool: Tool::Kubelet,
                    waited: START,
                    log: process::log_tail(&self.workspace, Tool::Kubelet),
                    source: met,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Whether the node is ready and nothing keeps pods away.
fn takes_pods(node: &NodeObject) -> bool {
    let conditions = node.status.iter().flat_map(|status| &status.conditions);
    let is_ready = conditions
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let spec = node.spec.as_ref();
    is_ready && spec.is_none_or(|spec| spec.taints.as_ref().is_none_or(Vec::is_empty))
}

/// Writes everything that the node's programs read.
fn prepare(
    control_plane: &ControlPlane,
    workspace: &Workspace,
    has: &Requirements,
) -> Result<(), Error> {
    let folder = workspace.path();
    // Users of containers must pass through to what is mounted for them; the names in it are not secret.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711))
        .map_err(Error::file("open to all", folder))?;
    for name in ["images", "network", "cgroup"] {
        let path = folder.join(name);
        fs::create_dir(&path).map_err(Error::file("create", &path))?;
    }
    for (index, image) in [Image::PAUSE].iter().chain(&Image::ALL).enumerate() {
        image.write(&has.busybox, &folder.join(format!("images/{index}.tar")))?;
    }
    let ca = workspace.write("ca.crt", &control_plane.ca_pem())?;
    let network = files::network(folder, control_plane.network());
    let kubelet = files::kubelet(folder, &ca, free_port()?);
    let user = format!("system:node:{NAME}");
    let kubeconfig = control_plane.kubeconfig_for(&user, Some("system:nodes"))?;
    workspace.write("node.sh", SCRIPT)?;
    workspace.write("containerd.toml", &files::containerd(folder, has))?;
    workspace.write("network/pods.conflist", &network)?;
    workspace.write("kubelet.yaml", &kubelet)?;
    workspace.write("kubelet.kubeconfig", &kubeconfig)?;
    Ok(())
}

/// What `env` is told: the script's variables, and the script.
fn arguments(workspace: &Workspace, has: &Requirements, kubelet: &Path) -> Vec<String> {
    let folder = workspace.path();
    let variables = [
        ("FOLDER", folder),
        ("CONTAINERD", &has.containerd),
        ("CTR", &has.ctr),
        ("KUBELET", kubelet),
        ("NAME", Path::new(NAME)),
    ];
    let variables = variables
        .into_iter()
        .map(|(name, value)| format!("NODE_{name}={}", value.display()));
    let script = folder.join("node.sh").display().to_string();
    variables
        .chain(["/bin/sh".to_owned(), script, "join".to_owned()])
        .chain(workspace.cgroup().map(str::to_owned))
        .collect()
}

/// A port of loopback that is free at this moment; the kubelet takes none that it is not told.
fn free_port() -> Result<u16, Error> {
    let port = || {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()
            .map(|address| address.port())
    };
    port().map_err(Error::Port)
}
