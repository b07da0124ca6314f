//! `hardening-controller run`: the webhook by the policies of a cluster.

use std::fs;
use std::pin::Pin;

use anyhow::Context as _;
use hardening_index::{PolicyWatch, Status};
use hardening_status::certificates::{ServingPair, ServingSecret};
use hardening_webhook::metrics::PREFIX;
use hardening_webhook::{BoundWebhook, Certificates, PemPair, Readiness, ReadyCondition};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::{RunArgs, ServiceName, Tls};
use crate::kubernetes::{self, Connection};
use crate::registration::{Registrar, Registration};
use crate::supervise::{Signals, Tasks};
use crate::webhook::{self, Parts, VERSION};

/// Runs until a signal.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let signals = Signals::new()?;
    let (certificates, pairs) = certificates(&args).await?;
    let Connection {
        client,
        own_namespace,
    } = kubernetes::connect(args.kubeconfig.as_deref()).await?;
    let secret = pairs
        .map(|pairs| pairs.of_secret(&args.tls_secret, client.clone()))
        .transpose()?;

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
        secret,
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

/// What follows the Secret of a certificate, for ever.
type Following = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The parts of the program that run side by side.
struct Running {
    policy_watch: PolicyWatch,
    status: watch::Receiver<Status>,
    known: ReadyCondition,
    secret: Option<Following>,
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
            secret,
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
        if let Some(secret) = secret {
            tasks.spawn_until("certificate Secret", last.clone(), secret);
        }
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
                known.unmet(unknown.to_string());
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// The certificate to serve with; and, if it comes from a Secret, where to hand over what is read there.
async fn certificates(args: &RunArgs) -> anyhow::Result<(Certificates, Option<Pairs>)> {
    if let (Tls::SelfManaged, Some(service)) = (args.server.tls()?, &args.service) {
        let (sender, pairs) = watch::channel(None);
        let service = service.clone();
        let pairs_of = Pairs { service, sender };
        return Ok((Certificates::published(pairs), Some(pairs_of)));
    }
    let host = args.webhook_url.iter().map(|url| url.host());
    let names = host
        .chain(webhook::local_names(args.server.listen.ip()))
        .collect::<Vec<_>>();
    let certificates = webhook::certificates(&args.server, &names).await?;
    if let Some(service) = &args.service {
        webhook::check_name(&certificates, service)?;
    }
    Ok((certificates, None))
}

/// Certificates for a Service, handed over to the webhook.
struct Pairs {
    service: ServiceName,
    sender: watch::Sender<Option<PemPair>>,
}

impl Pairs {
    /// What hands over those that appear in this Secret. It never ends.
    fn of_secret(self, secret: &str, client: Client) -> anyhow::Result<Following> {
        let Self { service, sender } = self;
        let name = service.dns_name();
        let secret = ServingSecret::new(client, &service.namespace, secret, &name)
            .with_context(|| format!("--service {name}"))?;
        let hand_over = move |ServingPair { chain, key, ca }| {
            sender.send_replace(Some(PemPair { chain, key, ca }));
        };
        Ok(Box::pin(secret.follow(hand_over)))
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
