//! `hardening-controller manage`: what writes into the cluster, so that what answers reviews need not.
//!
//! Each thing that is written is a task of its own, in [`manage`]. One that only one process may do at a time
//! sees to that itself.

use std::sync::Arc;

use anyhow::Context as _;
use hardening_status::certificates::{self, Keeper, Settings};
use hardening_webhook::metrics::{self, PREFIX};
use hardening_webhook::{Admin, BoundProbes, Readiness, ReadyCondition};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::{CertificateArgs, ManageArgs};
use crate::kubernetes::{self, Connection};
use crate::lead::Lead;
use crate::supervise::{Signals, Tasks};
use crate::webhook::VERSION;

/// Runs until a signal.
pub(crate) async fn manage(args: ManageArgs) -> anyhow::Result<()> {
    let ManageArgs {
        kubeconfig,
        certificates,
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

    if let Some((keeper, state)) = keeper(certificates, client.clone(), &mut registry)? {
        let kept = readiness.condition("certificates");
        tasks.spawn_until("certificates", shutdown.clone(), keeper.run());
        tasks.spawn_until(
            "certificates' readiness",
            shutdown.clone(),
            follow(state, kept),
        );
    }
    let lead = Lead::new(lead, client, own_namespace, &mut registry);
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

/// What keeps certificates, if the program is to do it.
fn keeper(
    args: CertificateArgs,
    client: Client,
    registry: &mut Registry,
) -> anyhow::Result<Option<(Keeper, watch::Receiver<certificates::State>)>> {
    let CertificateArgs {
        service,
        webhook_configuration,
        tls_secret,
        tls_ca_secret,
        tls_names,
        tls_leaf_lifetime,
        tls_ca_lifetime,
    } = args;
    let Some(service) = service else {
        return Ok(None);
    };
    let names = [vec![service.dns_name()], tls_names].concat();
    let settings = Settings {
        namespace: service.namespace,
        ca_secret: tls_ca_secret,
        serving_secret: tls_secret,
        webhook_configuration,
        names,
        ca_lifetime: tls_ca_lifetime,
        leaf_lifetime: tls_leaf_lifetime,
    };
    let metrics = certificates::Metrics::register(registry.sub_registry_with_prefix(PREFIX));
    let keeper = Keeper::new(client, settings, metrics).context("--service and --tls-names")?;
    Ok(Some(keeper))
}

/// Makes readiness follow whether certificates are being kept. It ends when that does.
async fn follow(mut state: watch::Receiver<certificates::State>, kept: ReadyCondition) {
    loop {
        match &*state.borrow_and_update() {
            certificates::State::Starting => {}
            certificates::State::Kept => kept.met(),
            certificates::State::Failing(why) => kept.unmet(why.clone()),
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}
