//! `hardening-controller serve`: the webhook by policies from files.

use std::fs;

use anyhow::Context as _;
use hardening_webhook::Readiness;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::args::ServeArgs;
use crate::policy_files::PolicyFiles;
use crate::supervise::{Signals, Tasks};
use crate::webhook::{self, Parts, VERSION};

/// Serves until a signal.
pub(crate) async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let ServeArgs {
        policies,
        server,
        tls_names,
        write_ca,
        shutdown_delay,
        log: _,
    } = args;
    let signals = Signals::new()?;
    let (files, policies) = PolicyFiles::read(policies)?;
    let names = [webhook::local_names(server.listen.ip()), tls_names].concat();
    let parts = Parts {
        policies,
        certificates: webhook::certificates(&server, &names).await?,
        readiness: Readiness::new(),
        registry: Registry::default(),
        shutdown_delay,
    };
    let count = parts.policies.borrow().policy_count();
    let webhook = webhook::bind(&server, parts).await?;
    if let Some((file, ca)) = write_ca.zip(webhook.ca_pem()) {
        fs::write(&file, ca).with_context(|| format!("write the CA to {}", file.display()))?;
    }
    tracing::info!(
        version = VERSION,
        policies = count,
        "policies read from files"
    );

    let shutdown = CancellationToken::new();
    let last = CancellationToken::new();
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("policy files", {
        let last = last.clone();
        async move {
            last.run_until_cancelled(files.follow())
                .await
                .unwrap_or(Ok(()))
        }
    });
    tasks.spawn("webhook", async move {
        webhook.run(shutdown).await?;
        last.cancel();
        Ok(())
    });
    tasks.run(signals).await
}
