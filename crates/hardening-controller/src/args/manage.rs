//! The arguments of `hardening-controller manage`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueHint};

use super::{LeadArgs, LogArgs};

/// Write what the product keeps in a cluster.
///
/// `run` answers reviews and only reads; this is what writes, with rights of its own. It answers no reviews:
/// while it is down they are answered all the same. Any number of these may run side by side.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  # In a cluster
  hardening-controller manage")]
pub(crate) struct ManageArgs {
    /// How to reach the API server. Without it: the service account of the pod that this runs in.
    #[arg(long, env = "HARDENING_KUBECONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,

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
