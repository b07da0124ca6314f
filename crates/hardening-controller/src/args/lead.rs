//! The arguments for what only one `manage` of several does at a time.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::{ServiceName, duration};

/// Who does what only one may do, and how.
#[derive(Debug, ClapArgs)]
pub(crate) struct LeadArgs {
    /// The Lease by which one of several processes is chosen to write policies' status and to look for missed
    /// pods. Without it: pod-hardening-manager, in the namespace that this runs in, or, with --kubeconfig, in
    /// that of its context.
    #[arg(long, env = "HARDENING_LEASE", value_name = "NAMESPACE/NAME")]
    pub(crate) lease: Option<ServiceName>,

    /// How often to look for running pods that lack what today's policies would fill in: all pods are listed,
    /// page by page, and none is kept. They are told by the metric podhardening_missed_pods and, where the
    /// cluster has wgpolicyk8s.io, in PolicyReports. 0: never.
    #[arg(
        long,
        env = "HARDENING_MISSED_PODS_INTERVAL",
        value_name = "TIME",
        default_value = "15m",
        value_parser = duration
    )]
    pub(crate) missed_pods_interval: Duration,
}
