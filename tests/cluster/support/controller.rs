//! The controller, as a program beside a control plane.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use test_control_plane::{ControlPlane, Program};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::api::{Api, until};

/// What it gets to end by itself.
const GRACE: Duration = Duration::from_secs(20);

/// The name of what the controller registers.
pub(crate) const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/pod-hardening-self-registered";

/// `hardening-controller`, most often `run` registered by its URL. It ends with this value.
pub(crate) struct Controller {
    program: Program,
    metrics: SocketAddr,
}

impl Controller {
    /// Starts it, and waits until it is ready and the API server asks it.
    pub(crate) async fn start(control_plane: &ControlPlane, name: &str) -> Self {
        Self::start_at(control_plane, name, free_addresses(), &[]).await
    }

    /// As [`Self::start`], at these addresses for reviews and for probes, and with more arguments.
    pub(crate) async fn start_at(
        control_plane: &ControlPlane,
        name: &str,
        [listen, metrics]: [SocketAddr; 2],
        more: &[String],
    ) -> Self {
        let mut arguments = vec![
            "run".to_owned(),
            format!("--kubeconfig={}", control_plane.kubeconfig_path().display()),
            format!("--webhook-url=https://{listen}"),
            format!("--listen={listen}"),
            format!("--metrics-listen={metrics}"),
            "--shutdown-delay=0s".to_owned(),
        ];
        if !more.iter().any(|flag| flag.starts_with("--log-format")) {
            arguments.push("--log-format=json".to_owned());
        }
        arguments.extend_from_slice(more);
        let mut controller = Self::run(control_plane, name, metrics, &arguments);
        controller.until_ready().await;
        let api = Api::of(control_plane);
        until("the controller is registered", async || {
            let registration = api.get(REGISTRATION).await.ok()?;
            let url = registration["webhooks"][0]["clientConfig"]["url"].as_str()?;
            url.contains(&listen.to_string()).then_some(())
        })
        .await;
        controller
    }

    /// Starts the program with these arguments, by which it answers probes at `metrics`.
    pub(crate) fn run(
        control_plane: &ControlPlane,
        name: &str,
        metrics: SocketAddr,
        arguments: &[String],
    ) -> Self {
        let path = Path::new(env!("CARGO_BIN_EXE_controller-under-test"));
        let program = control_plane.run(name, path, arguments).unwrap();
        Self { program, metrics }
    }

    /// Waits until it is ready.
    pub(crate) async fn until_ready(&mut self) {
        until("the controller is ready", async || {
            self.program.check().unwrap();
            (self.get("/readyz").await?.0 == 200).then_some(())
        })
        .await;
    }

    /// What its port for probes and scrapes answers: status and body; `None` where nobody listens.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.metrics).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split_whitespace().nth(1)?.parse().ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        Some((status, body.to_owned()))
    }

    /// The value of a metric, summed over its labels; or of one series, given with its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, page) = self.get("/metrics").await.unwrap();
        let of_metric = page.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let values = of_metric.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        values.sum()
    }

    /// All that it has logged, as it stands in the file.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.program.log_path()).unwrap()
    }

    /// The lines that it has logged.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.log_text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| line.into()))
            .collect()
    }

    /// Ends it as Kubernetes does.
    pub(crate) async fn terminate(self) {
        self.program.terminate(GRACE).await.unwrap();
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(self) {
        self.program.kill();
    }
}

/// Addresses that were free a moment ago.
pub(crate) fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [0, 1].map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}
