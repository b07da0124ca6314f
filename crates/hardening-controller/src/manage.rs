//! `hardening-controller manage`: what writes into the cluster, so that what answers reviews need not.
//!
//! Each thing that is written is a task of its own, in [`manage`]. One that only one process may do at a time
//! sees to that itself.

use std::sync::Arc;

use hardening_webhook::{Admin, BoundProbes, Readiness, metrics};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::args::ManageArgs;
use crate::kubernetes::{self, Connection};
use crate::lead::Lead;
use crate::supervise::{Signals, Tasks};
use crate::webhook::VERSION;

/// Runs until a signal.
pub(crate) async fn manage(args: ManageArgs) -> anyhow::Result<()> {
    let ManageArgs {
        kubeconfig,
        metrics_listen,
        lead,
        log: _,
    } = args;
    let signals = Signals::new()?;
    let Connection {
        client,
        own_namespace,
    } = kubernetes::connect(kubeconfig.as_deref()).await?;

    let mut registry = Registry::default();
    metrics::register_build(&mut registry, VERSION);
    let readiness = Readiness::new();
    let shutdown = CancellationToken::new();
    let mut tasks = Tasks::new(shutdown.clone());

    // Nobody says more of policies yet.
    let (_additions, additional) = hardening_status::additional_conditions();
    let lead = Lead::new(lead, client, own_namespace, additional, &mut registry);
    tasks.spawn("leader election", lead.run(shutdown.clone()));

    let admin = Admin::new(readiness, Arc::new(registry));
    let probes = BoundProbes::bind(metrics_listen, admin).await?;
    tracing::info!(version = VERSION, metrics_address = %probes.address(), "managing");
    tasks.spawn("health and metrics", async move {
        probes.run(shutdown).await;
        Ok(())
    });
    tasks.run(signals).await
}
