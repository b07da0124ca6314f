//! What is measured side by side: the webhook, and two servers on the same stack that do less. The difference
//! is what the webhook's own work costs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use hardening_engine::{Pod, PolicySet, Unseen, plan};
use hardening_webhook::decision::Decision;
use hardening_webhook::refusal::Refused;
use hardening_webhook::review::{Operation, Review};
use hardening_webhook::{
    CERTIFICATE_INTERVAL, Certificates, Decide, Engine, Limits, Metrics, Readiness, Shutdown,
    Webhook,
};
use prometheus_client::registry::Registry;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{NAMESPACE, Size, Written, pod, policies, policy, wait};

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// Reads the request's uid and allows the pod: the least that a webhook can do.
    Noop,
    /// The same, with the patch that the webhook gives, made beforehand: the practical limit of the job.
    Fixed,
    /// The webhook.
    Hardening,
}

/// A server that answers, as a process of its own; it ends with this value.
#[derive(Debug)]
pub struct Running {
    process: Child,
    /// Where it answers reviews.
    pub address: SocketAddr,
    /// Its CA, and the webhook's policies.
    folder: tempfile::TempDir,
}

/// What decides for a server with one answer for all.
#[derive(Debug)]
struct Constant {
    patch: Vec<u8>,
}

// === impl Contender ===

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Noop => "no-op",
            Self::Fixed => "fixed patch",
            Self::Hardening => "webhook",
        })
    }
}

impl Contender {
    /// What decides, for pods of this size.
    ///
    /// # Errors
    ///
    /// As [`pod`].
    pub fn decide(self, size: Size, written: Written) -> Result<Arc<dyn Decide>> {
        Ok(match self {
            Self::Noop => Arc::new(Constant { patch: Vec::new() }),
            Self::Fixed => Arc::new(Constant {
                patch: patch(size, written)?,
            }),
            Self::Hardening => Arc::new(Engine),
        })
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    ///
    /// Where a program is missing, or does not come up.
    pub fn start(self, size: Size, written: Written) -> Result<Running> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let own = std::env::current_exe().context("find this program")?;
        let address = free_address()?;
        let (listen, metrics) = (address.to_string(), free_address()?.to_string());
        let mut command = match self {
            Self::Noop | Self::Fixed => {
                let name = self
                    .to_possible_value()
                    .map(|value| value.get_name().to_owned());
                let mut command = Command::new(&own);
                command
                    .args(["serve", &name.unwrap_or_default(), "--size", size.name()])
                    .args(["--written", written.name()]);
                command
            }
            Self::Hardening => {
                let policies = folder.path().join("policies.json");
                fs::write(&policies, policy().to_string()).context("write the policy")?;
                let mut command = Command::new(sibling(&own, "hardening-controller")?);
                command
                    .arg("serve")
                    .arg("--policies")
                    .arg(policies)
                    // A client that ends in the middle of a request is worth a warning, but not here, where all do.
                    .args(["--log-level", "error"]);
                command
            }
        };
        command.args(["--listen", &listen, "--metrics-listen", &metrics]);
        command.arg("--write-ca").arg(folder.path().join(CA));
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let mut running = Running {
            process,
            address,
            folder,
        };
        running.wait()?;
        Ok(running)
    }
}

fn sibling(own: &Path, name: &str) -> Result<PathBuf> {
    let path = own.with_file_name(name);
    ensure!(
        path.exists(),
        "{} is not built: make bench builds it",
        path.display()
    );
    Ok(path)
}

fn free_address() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    listener.local_addr().context("find a free port")
}

// === impl Running ===

/// The file in which a server's CA is.
const CA: &str = "ca.pem";

/// How long a server may take to come up.
const STARTUP: Duration = Duration::from_secs(20);

impl Running {
    /// Starts the webhook by the cluster that a kubeconfig names, on a policy's every change; and where it answers
    /// probes. It need not be ready yet.
    ///
    /// # Errors
    ///
    /// Where the program is missing, or cannot be started.
    pub fn by_cluster(kubeconfig: &str) -> Result<(Self, SocketAddr)> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let file = folder.path().join("kubeconfig");
        fs::write(&file, kubeconfig).context("write the kubeconfig")?;
        let (address, probes) = (free_address()?, free_address()?);
        let own = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(sibling(&own, "hardening-controller")?);
        command
            .arg("run")
            .arg("--kubeconfig")
            .arg(file)
            .args(["--webhook-url", &format!("https://{address}/mutate")])
            .args(["--listen", &address.to_string()])
            .args(["--metrics-listen", &probes.to_string()])
            .args(["--shutdown-delay", "0s"])
            .args(["--log-level", "error"]);
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let running = Self {
            process,
            address,
            folder,
        };
        Ok((running, probes))
    }

    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The certificate of its CA, as PEM.
    ///
    /// # Errors
    ///
    /// Where it is not written.
    pub fn ca(&self) -> Result<String> {
        fs::read_to_string(self.folder.path().join(CA)).context("read the server's CA")
    }

    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + STARTUP;
        while std::net::TcpStream::connect(self.address).is_err() {
            let ended = self.process.try_wait().context("look after the server")?;
            ensure!(ended.is_none(), "the server ended: {ended:?}");
            ensure!(
                Instant::now() < deadline,
                "the server does not answer at {}",
                self.address
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked, and not killed at once: one that counts what it does, for a profile, writes it when it ends.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = wait(Duration::from_millis(10), "ended", || {
            Ok(self.process.try_wait()?.is_some())
        });
        // It has ended by now, or will not.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// === the servers that do less ===

/// Serves as `contender` until SIGTERM.
///
/// # Errors
///
/// Where an address cannot be had.
pub async fn serve(
    contender: Contender,
    (size, written): (Size, Written),
    (listen, metrics_listen): (SocketAddr, SocketAddr),
    write_ca: &Path,
) -> Result<()> {
    let (_sender, policies) = watch::channel(Arc::new(policies()?));
    let mut registry = Registry::default();
    let webhook = Webhook {
        policies,
        decide: contender.decide(size, written)?,
        certificates: Certificates::self_signed(&[listen.ip().to_string()])?,
        callers: None,
        certificate_interval: CERTIFICATE_INTERVAL,
        readiness: Readiness::new(),
        metrics: Metrics::register(&mut registry, "bench"),
        registry: Arc::new(registry),
        span: None,
        limits: Limits::default(),
        shutdown: Shutdown::default(),
    };
    // Whoever connects finds it.
    fs::write(write_ca, webhook.certificates.ca_pem().unwrap_or_default())
        .context("write the CA")?;
    let bound = webhook.bind(listen, metrics_listen).await?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        ended = bound.run(CancellationToken::new()) => ended?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// The patch that the webhook gives this pod.
fn patch(size: Size, written: Written) -> Result<Vec<u8>> {
    let json = pod(size, written)?.to_string();
    let (policies, pod) = (policies()?, Pod::from_json(&json)?);
    let matching = policies.matching(NAMESPACE, &pod)?;
    let plan = plan(&matching, &pod);
    let mut patch = Vec::new();
    if !plan.is_empty() {
        plan.write_patch(&plan.records(), &mut patch);
    }
    Ok(patch)
}

impl Decide for Constant {
    fn decide(&self, _: &PolicySet, _: &str, _: &Pod<'_>) -> Result<Decision, Unseen> {
        Ok(Decision {
            patch: self.patch.clone(),
            ..Decision::default()
        })
    }

    fn read<'b>(&self, body: &'b [u8]) -> Result<Review<'b>, Refused> {
        #[derive(Deserialize)]
        struct Envelope<'b> {
            #[serde(borrow)]
            request: Request<'b>,
        }
        #[derive(Deserialize)]
        struct Request<'b> {
            uid: &'b str,
        }
        let Ok(Envelope { request }) = serde_json::from_slice(body) else {
            // To be told what is wrong with it.
            return Review::from_json(body);
        };
        Ok(Review {
            uid: request.uid.into(),
            namespace: NAMESPACE.into(),
            operation: Operation::Create,
            dry_run: false,
            pod: Pod::from_json("{}").ok().map(Box::new),
        })
    }
}
