//! `hardening-controller run`: the webhook by the policies of a cluster.

use std::fs;

use anyhow::Context as _;
use hardening_index::{PolicyWatch, Status};
use hardening_webhook::metrics::PREFIX;
use hardening_webhook::{BoundWebhook, Readiness, ReadyCondition};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::RunArgs;
use crate::kubernetes::{self, Connection};
use crate::registration::{Registrar, Registration};
use crate::supervise::{Signals, Tasks};
use crate::webhook::{self, Parts, VERSION};

/// Runs until a signal.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let signals = Signals::new()?;
    let host = args.webhook_url.iter().map(|url| url.host());
    let names = host
        .chain(webhook::local_names(args.server.listen.ip()))
        .collect::<Vec<_>>();
    let certificates = webhook::certificates(&args.server, &names).await?;
    if let Some(service) = &args.service {
        webhook::check_name(&certificates, service)?;
    }
    let Connection {
        client,
        own_namespace,
    } = kubernetes::connect(args.kubeconfig.as_deref()).await?;

    let mut registry = Registry::default();
    let metrics = hardening_index::Metrics::register(registry.sub_registry_with_prefix(PREFIX));
    let (policy_watch, policies, status) = hardening_index::watch(&client, metrics);
    let readiness = Readiness::new();
    let known = readiness.condition("policies");
    let parts = Parts {
        policies,
        certificates,
        readiness: readiness.clone(),
        registry,
        shutdown_delay: args.shutdown_delay,
    };
    let webhook = webhook::bind(&args.server, parts).await?;
    tracing::info!(version = VERSION, "watching the cluster's policies");

    let registration = registration(&args, own_namespace, &webhook)?;
    let registrar = registration.map(|registration| Registrar::new(client, registration));
    let parts = Running {
        policy_watch,
        status,
        known,
        readiness,
        webhook,
        registrar: registrar.clone(),
    };
    let result = parts.until(signals).await;
    // Whatever ended the program, the API server must not go on calling it.
    if let Some(registrar) = registrar {
        registrar.unregister().await;
    }
    result
}

/// The parts of the program that run side by side.
struct Running {
    policy_watch: PolicyWatch,
    status: watch::Receiver<Status>,
    known: ReadyCondition,
    readiness: Readiness,
    webhook: BoundWebhook,
    registrar: Option<Registrar>,
}

impl Running {
    async fn until(self, signals: Signals) -> anyhow::Result<()> {
        let Self {
            policy_watch,
            status,
            known,
            readiness,
            webhook,
            registrar,
        } = self;
        let shutdown = CancellationToken::new();
        // The webhook needs policies for as long as it answers.
        let last = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn_until("policy watch", last.clone(), policy_watch.run());
        tasks.spawn_until("readiness", last.clone(), follow(status, known));
        if let Some(registrar) = registrar {
            tasks.spawn("registration", registrar.run(readiness, shutdown.clone()));
        }
        tasks.spawn("webhook", async move {
            webhook.run(shutdown).await?;
            last.cancel();
            Ok(())
        });
        tasks.run(signals).await
    }
}

/// Makes readiness follow what the watches know. It ends when they do.
async fn follow(mut status: watch::Receiver<Status>, known: ReadyCondition) {
    loop {
        match &*status.borrow_and_update() {
            Status::Fresh => known.met(),
            unknown @ (Status::Syncing(_) | Status::AskingVersion | Status::Stale(_)) => {
                known.unmet(unknown.to_string())
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// What to register, if the program is to do it itself.
fn registration(
    args: &RunArgs,
    own_namespace: Option<String>,
    webhook: &BoundWebhook,
) -> anyhow::Result<Option<Registration>> {
    let Some(url) = &args.webhook_url else {
        return Ok(None);
    };
    let ca = match (&args.tls_ca, webhook.ca_pem()) {
        (Some(file), _) => {
            Some(fs::read(file).with_context(|| format!("read the CA {}", file.display()))?)
        }
        (None, made) => made.map(String::into_bytes),
    };
    Ok(Some(Registration {
        name: args.registration_name.clone(),
        url: url.to_string(),
        ca,
        failure_policy: args.failure_policy,
        excluded_namespaces: own_namespace
            .into_iter()
            .chain(args.exclude_namespaces.clone())
            .collect(),
    }))
}
