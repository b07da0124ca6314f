//! The webhook with what both modes give it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use hardening_engine::PolicySet;
use hardening_webhook::{
    BoundWebhook, CERTIFICATE_INTERVAL, Callers, CertificateFiles, Certificates, Engine, Limits,
    Metrics, Readiness, Shutdown, Webhook,
};
use prometheus_client::registry::Registry;
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use tokio::sync::watch;

use crate::args::{ServerArgs, ServiceName, Tls};
use crate::traces;

/// What the two modes differ in.
pub(crate) struct Parts {
    pub(crate) policies: watch::Receiver<Arc<PolicySet>>,
    pub(crate) certificates: Certificates,
    pub(crate) readiness: Readiness,
    pub(crate) registry: Registry,
    pub(crate) shutdown_delay: Duration,
}

/// The version in logs and metrics.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The certificate that the arguments ask for. One made in memory is for `names`.
pub(crate) async fn certificates(
    server: &ServerArgs,
    names: &[String],
) -> anyhow::Result<Certificates> {
    Ok(match server.tls()? {
        Tls::SelfManaged => Certificates::self_signed(names)?,
        Tls::Files { certificate, key } => {
            Certificates::from_files(CertificateFiles { certificate, key }).await?
        }
    })
}

/// Who may call, if not everybody.
async fn callers(server: &ServerArgs) -> anyhow::Result<Option<Callers>> {
    Ok(match &server.client_ca {
        Some(file) => Some(Callers::from_file(file.clone(), server.client_name.clone()).await?),
        None => None,
    })
}

/// The names by which a program on this machine can call a server on this address.
pub(crate) fn local_names(address: IpAddr) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    if !address.is_unspecified() && !address.is_loopback() {
        names.push(address.to_string());
    }
    names
}

/// Whether an API server that calls the Service will accept the certificate. If not it would only show as
/// failed calls, pod by pod.
pub(crate) fn check_name(certificates: &Certificates, service: &ServiceName) -> anyhow::Result<()> {
    let name = service.dns_name();
    let server_name =
        ServerName::try_from(name.as_str()).with_context(|| format!("--service {name}"))?;
    let leaf = certificates
        .current()
        .and_then(|current| current.chain().first())
        .ok_or_else(|| anyhow!("there is no certificate"))?;
    let parsed = ParsedCertificate::try_from(leaf).context("read the certificate")?;
    verify_server_name(&parsed, &server_name).with_context(|| {
        format!("the certificate is not for {name}, by which the API server calls")
    })
}

/// Binds the webhook's addresses.
pub(crate) async fn bind(server: &ServerArgs, parts: Parts) -> anyhow::Result<BoundWebhook> {
    let Parts {
        policies,
        certificates,
        readiness,
        mut registry,
        shutdown_delay,
    } = parts;
    let metrics = Metrics::register(&mut registry, VERSION);
    let webhook = Webhook {
        policies,
        decide: Arc::new(Engine),
        certificates,
        callers: callers(server).await?,
        certificate_interval: CERTIFICATE_INTERVAL,
        readiness,
        metrics,
        registry: Arc::new(registry),
        span: traces::REVIEW,
        limits: Limits::default(),
        shutdown: Shutdown {
            serve_on: shutdown_delay,
            ..Shutdown::default()
        },
    };
    Ok(webhook.bind(server.listen, server.metrics_listen).await?)
}
