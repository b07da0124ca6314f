//! The arguments of `hardening-controller manage`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueHint};

use super::{LeadArgs, LogArgs, SERVING_SECRET, ServiceName, duration};
use crate::error::Usage;

/// Write what the product keeps in a cluster.
///
/// `run` answers reviews and only reads; this is what writes, with rights of its own. It answers no reviews:
/// while it is down they are answered all the same. Any number of these may run side by side.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  # In a cluster
  hardening-controller manage --service pod-hardening-system/pod-hardening

  # Where the certificates are somebody else's, cert-manager's for instance
  hardening-controller manage")]
pub(crate) struct ManageArgs {
    /// How to reach the API server. Without it: the service account of the pod that this runs in.
    #[arg(long, env = "HARDENING_KUBECONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) certificates: CertificateArgs,

    /// Where to answer probes and scrapes: /livez, /readyz and /metrics.
    #[arg(
        long,
        env = "HARDENING_METRICS_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8080"
    )]
    pub(crate) metrics_listen: SocketAddr,

    #[command(flatten)]
    pub(crate) lead: LeadArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// Which certificates are kept, and where.
#[derive(Debug, ClapArgs)]
pub(crate) struct CertificateArgs {
    /// The Service by which the API server reaches the webhook: a certificate is kept for its name, in its
    /// namespace. Without it no certificate is kept.
    #[arg(long, env = "HARDENING_SERVICE", value_name = "NAMESPACE/NAME")]
    pub(crate) service: Option<ServiceName>,

    /// The MutatingWebhookConfiguration that says whom the API server trusts: the `caBundle` of each webhook
    /// in it whose name ends in .podhardening.dev is written, and nothing else.
    #[arg(
        long,
        env = "HARDENING_WEBHOOK_CONFIGURATION",
        value_name = "NAME",
        default_value = "pod-hardening",
        requires = "service"
    )]
    pub(crate) webhook_configuration: String,

    /// The Secret with the certificate, for `run`: a name in the Service's namespace.
    #[arg(
        long,
        env = "HARDENING_TLS_SECRET",
        value_name = "NAME",
        default_value = SERVING_SECRET,
        requires = "service"
    )]
    pub(crate) tls_secret: String,

    /// The Secret with the CA that issues it, in the same namespace.
    #[arg(
        long,
        env = "HARDENING_TLS_CA_SECRET",
        value_name = "NAME",
        default_value = "pod-hardening-ca",
        requires = "service"
    )]
    pub(crate) tls_ca_secret: String,

    /// More names and addresses that the certificate is for, besides the Service's.
    #[arg(
        long,
        env = "HARDENING_TLS_NAMES",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "service"
    )]
    pub(crate) tls_names: Vec<String>,

    /// How long a certificate lives. It is renewed when two thirds of that are over.
    #[arg(
        long,
        env = "HARDENING_TLS_LEAF_LIFETIME",
        value_name = "TIME",
        default_value = "90d",
        value_parser = lifetime,
        requires = "service"
    )]
    pub(crate) tls_leaf_lifetime: Duration,

    /// How long a CA lives. It is renewed when two thirds of that are over; both CAs are trusted meanwhile.
    #[arg(
        long,
        env = "HARDENING_TLS_CA_LIFETIME",
        value_name = "TIME",
        default_value = "365d",
        value_parser = lifetime,
        requires = "service"
    )]
    pub(crate) tls_ca_lifetime: Duration,
}

impl ManageArgs {
    /// Whether the flags make sense together, as far as `clap` does not see to it.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let CertificateArgs {
            tls_leaf_lifetime,
            tls_ca_lifetime,
            tls_secret,
            tls_ca_secret,
            ..
        } = &self.certificates;
        let message = if *tls_ca_lifetime < 2 * *tls_leaf_lifetime {
            "--tls-ca-lifetime must be at least twice --tls-leaf-lifetime"
        } else if tls_secret == tls_ca_secret {
            "--tls-secret and --tls-ca-secret must differ: what reads the one must not read the other"
        } else {
            return Ok(());
        };
        Err(Usage(message.to_owned()).into())
    }
}

/// The shortest that leaves seconds to renew in.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(10);
/// Ten years: longer than any certificate should live, and far from where dates end.
const LONGEST_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    if (SHORTEST_LIFETIME..=LONGEST_LIFETIME).contains(&lifetime) {
        Ok(lifetime)
    } else {
        Err("it must be between 10s and 3650d".to_owned())
    }
}
