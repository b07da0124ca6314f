//! The arguments for what only one `manage` of several does at a time.

use std::time::Duration;

use clap::Args as ClapArgs;
use hardening_compile::Options;

use super::{FailurePolicy, ServiceName, duration};

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

    #[command(flatten)]
    pub(crate) compiled: CompileArgs,
}

/// Whether policies are compiled, and how.
#[derive(Debug, ClapArgs)]
pub(crate) struct CompileArgs {
    /// Keep what the policies compile to in the cluster, as MutatingAdmissionPolicies: the API server gives pods their
    /// defaults by itself then, also while nothing of this product runs. For Kubernetes 1.36 and later. They stay
    /// when this ends; the label podhardening.dev/compiled=true finds them.
    #[arg(long, env = "HARDENING_COMPILE")]
    pub(crate) compile: bool,

    /// What becomes of a pod for which an expression of a compiled policy fails: it is created as its author wrote
    /// it, or refused.
    #[arg(
        long,
        env = "HARDENING_FAILURE_POLICY",
        value_enum,
        value_name = "POLICY",
        default_value_t = FailurePolicy::Ignore,
        requires = "compile"
    )]
    pub(crate) failure_policy: FailurePolicy,

    /// Namespaces whose pods compiled policies do not touch, besides kube-system and the program's own: those that
    /// the webhook is not asked about.
    #[arg(
        long,
        env = "HARDENING_EXCLUDE_NAMESPACES",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        requires = "compile"
    )]
    pub(crate) exclude_namespaces: Vec<String>,
}

impl CompileArgs {
    /// How policies are compiled, if they are. `own_namespace` is where the program runs, if that is in a cluster.
    pub(crate) fn options(self, own_namespace: Option<&str>) -> Option<Options> {
        let Self {
            compile,
            failure_policy,
            exclude_namespaces,
        } = self;
        let own = own_namespace.map(str::to_owned);
        compile.then(|| Options {
            failure_policy: match failure_policy {
                FailurePolicy::Fail => hardening_compile::FailurePolicy::Fail,
                FailurePolicy::Ignore => hardening_compile::FailurePolicy::Ignore,
            },
            excluded_namespaces: exclude_namespaces.into_iter().chain(own).collect(),
        })
    }
}
