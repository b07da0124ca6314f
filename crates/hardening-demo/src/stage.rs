//! What the demonstration is played on: a control plane, the controller beside it, and `kubectl` with the
//! plugin, all of them the real ones.

use std::{
    env,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use kube::Client;
use test_control_plane::{ControlPlane, ControlPlaneOptions, Node, Program, Unsupported};
use tokio::{process::Command, time::Instant};

/// How long anything may take that usually takes a second.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often what is waited for is looked at.
const POLL: Duration = Duration::from_millis(50);
/// What the controller gets to take its registration back.
const GRACE: Duration = Duration::from_secs(20);

/// The repository, which commands are run in: so that they name the examples as their reader would.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The control plane, and how to talk to it.
pub(crate) struct Stage {
    /// Ends before its control plane.
    node: Result<Node, Unsupported>,
    control_plane: ControlPlane,
    pub(crate) client: Client,
    /// Where `hardening-controller` and `kubectl-harden` are, and `kubectl`.
    folders: [PathBuf; 2],
}

/// The controller that runs beside the control plane.
#[derive(Debug)]
pub(crate) struct Controller {
    program: Program,
    arguments: Vec<String>,
}

impl Stage {
    /// Starts the control plane, with a node where one can run; builds them first where they never were.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let programs = env::current_exe().context("find this program")?;
        let programs = programs.parent().context("this program has no folder")?;
        for name in ["hardening-controller", "kubectl-harden"] {
            ensure!(
                programs.join(name).is_file(),
                "{name} is not beside this program in {}: `make demo` builds it",
                programs.display()
            );
        }
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
        let node = match Node::unsupported() {
            None => Ok(Node::start(&control_plane).await?),
            Some(why) => Err(why),
        };
        let kubectl = control_plane.kubectl()?;
        let kubectl = kubectl.parent().context("kubectl has no folder")?;
        Ok(Self {
            client: control_plane.client()?,
            folders: [programs.to_owned(), kubectl.to_owned()],
            node,
            control_plane,
        })
    }

    pub(crate) fn has_node(&self) -> bool {
        self.node.is_ok()
    }

    /// Why there is no node, if there is none.
    pub(crate) fn why_no_node(&self) -> Option<&Unsupported> {
        self.node.as_ref().err()
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        self.control_plane.kubeconfig_path()
    }

    /// What belongs at the front of the `PATH`, so that `kubectl harden` is found.
    pub(crate) fn programs(&self) -> String {
        self.folders
            .each_ref()
            .map(|folder| folder.display().to_string())
            .join(":")
    }

    /// Runs a command line, words separated by spaces, in the repository, and gives what it wrote on
    /// standard output.
    pub(crate) async fn run(&self, command: &str) -> anyhow::Result<String> {
        let output = self.output(command).await?;
        ensure!(
            output.status.success(),
            "{command}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8(output.stdout)
            .with_context(|| format!("{command}: its output is not text"))
    }

    async fn output(&self, command: &str) -> anyhow::Result<Output> {
        let mut words = command.split_whitespace();
        let program = words.next().context("an empty command")?;
        let found = self
            .folders
            .iter()
            .map(|folder| folder.join(program))
            .find(|file| file.is_file())
            .with_context(|| format!("{program} is in none of {}", self.programs()))?;
        // kubectl looks for its plugins on the PATH.
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path = self
            .folders
            .iter()
            .cloned()
            .chain(env::split_paths(&inherited));
        Command::new(found)
            .args(words)
            .current_dir(ROOT)
            .env(
                "PATH",
                env::join_paths(path).context("put the programs on the PATH")?,
            )
            .env("KUBECONFIG", self.kubeconfig())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("run {command}"))
    }

    /// Starts the controller, and waits until it says that it is ready.
    pub(crate) async fn start_controller(&self) -> anyhow::Result<Controller> {
        let [webhook, metrics] = free_ports()?;
        let url = format!("https://127.0.0.1:{webhook}");
        let arguments = [
            "run".to_owned(),
            format!("--kubeconfig={}", self.kubeconfig().display()),
            format!("--webhook-url={url}"),
            format!("--listen=127.0.0.1:{webhook}"),
            format!("--metrics-listen=127.0.0.1:{metrics}"),
            "--shutdown-delay=0s".to_owned(),
        ];
        let path = self.folders[0].join("hardening-controller");
        let program = self
            .control_plane
            .run("hardening-controller", &path, &arguments)?;
        let mut controller = Controller {
            program,
            arguments: arguments.to_vec(),
        };
        until("the controller is ready", async || {
            controller.program.check()?;
            Ok(is_ready(metrics).await.then_some(()))
        })
        .await?;
        Ok(controller)
    }

    /// Ends the controller, and makes sure that the API server no longer calls it.
    pub(crate) async fn end_controller(&self, controller: Controller) -> anyhow::Result<()> {
        controller.program.terminate(GRACE).await?;
        let left = self
            .run("kubectl get mutatingwebhookconfigurations -o name")
            .await?;
        ensure!(
            left.is_empty(),
            "the controller left its registration behind: {left}"
        );
        Ok(())
    }

    /// Ends the node and the control plane, and makes sure that their files are gone.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        if let Ok(node) = self.node {
            node.stop()?;
        }
        Ok(self.control_plane.stop().await?)
    }
}

impl Controller {
    /// The command line that it was started with.
    pub(crate) fn command_line(&self) -> String {
        let listen = self
            .arguments
            .iter()
            .filter(|argument| !argument.starts_with("--kubeconfig"));
        format!(
            "hardening-controller {}",
            listen.cloned().collect::<Vec<_>>().join(" ")
        )
    }

    /// Returns, with the end of its log, when the controller ends by itself.
    pub(crate) async fn until_it_ends(&mut self) -> anyhow::Error {
        loop {
            if let Err(ended) = self.program.check() {
                return ended.into();
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Where its log is.
    pub(crate) fn log_path(&self) -> &Path {
        self.program.log_path()
    }
}

/// Looks again and again until there is something, for as long as [`DEADLINE`].
pub(crate) async fn until<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await.with_context(|| format!("wait until {what}"))? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("not within {}s: {what}", DEADLINE.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Ports that nobody listens on now.
fn free_ports() -> anyhow::Result<[u16; 2]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port");
    // Both held until both are known, so that they differ.
    let (one, other) = (bind()?, bind()?);
    Ok([one.local_addr()?.port(), other.local_addr()?.port()])
}

/// What `/readyz` answers, as plain HTTP needs no client.
async fn is_ready(port: u16) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let ask = async {
        let mut connection = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        connection
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    // Not there yet is not ready.
    ask.await
        .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}
