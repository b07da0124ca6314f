//! Keeps the CA, the serving certificate and the API servers' trust in them.
//!
//! Any number of processes do this side by side, without a leader: each looks at what is there, does the
//! [next step](super::step), and looks again. What it writes is bound to the version that it saw, so that of
//! two that do the same step one is refused, and goes on from what the other wrote.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::authority::{Authority, CaCertificate, CertificateError, ServingPair, server_name};
use super::error_text::one_line;
use super::metrics::{Metrics, Written};
use super::step::{Rules, Seen, Step, next_step};
use super::stored::{Authorities, Foreign, Purpose};
use super::trigger::{self, Changes};
use super::trust::Bundle;
use super::validity::{Jitter, Validity};

/// Where certificates are kept, what for, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The namespace of both Secrets.
    pub namespace: String,
    /// The Secret with the CA.
    pub ca_secret: String,
    /// The Secret with the serving certificate.
    pub serving_secret: String,
    /// The MutatingWebhookConfiguration whose `caBundle`s are written.
    pub webhook_configuration: String,
    /// The DNS names and addresses that the serving certificate is for.
    pub names: Vec<String>,
    /// How long a CA lives.
    pub ca_lifetime: Duration,
    /// How long a serving certificate lives.
    pub leaf_lifetime: Duration,
}

/// Whether certificates are being kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not been looked yet.
    Starting,
    /// All is as it should be, or about to be.
    Kept,
    /// It is not, and why.
    Failing(String),
}

/// Why a step could not be taken.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("{action} {object}")]
    Call {
        action: &'static str,
        object: String,
        source: kube::Error,
    },
    #[error("no answer from the API server in time")]
    NoAnswer,
    #[error(transparent)]
    Foreign(#[from] Foreign),
    #[error("make a certificate")]
    Make(#[from] CertificateError),
}

/// Keeps certificates.
pub struct Keeper {
    settings: Settings,
    client: Client,
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    jitter: Jitter,
    metrics: Metrics,
    state: watch::Sender<State>,
    /// A CA that has yet to issue, and since when every webhook of ours was seen to trust it.
    awaited: Option<(CaCertificate, Instant)>,
    /// When the latest steps were taken, the oldest first.
    steps: VecDeque<Instant>,
}

/// What there is, as the API server has it.
struct Objects {
    ca: Option<Secret>,
    serving: Option<Secret>,
    configuration: Option<MutatingWebhookConfiguration>,
}

/// What came of a look.
enum Looked {
    /// Something was done: there may be more to do.
    Stepped,
    /// Somebody else was first.
    Beaten,
    /// Nothing is to be done for so long.
    Quiet(Duration),
}

/// A webhook whose name ends so is ours; one in the same configuration that does not is somebody else's.
const OUR_WEBHOOKS: &str = ".podhardening.dev";
/// The owner of the fields that are written.
const FIELD_MANAGER: &str = "hardening-controller";
/// How long one look may take, its step included.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is looked although no change was told of.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long the API servers get to hear whom to trust. They watch their webhooks, and hear within
/// milliseconds; one that does not hear of it within a minute can create no pods either. CAs that live for
/// minutes cannot wait so long.
const KNOWN_AFTER: Duration = Duration::from_secs(60);
/// At most so many steps in [`STEPS_WITHIN`]: far above what renewals take, so that processes that were told
/// to keep different certificates under one name do not keep the API server busy.
const MOST_STEPS: usize = 60;
const STEPS_WITHIN: Duration = Duration::from_secs(60);
/// Pauses after failures, each twice as long as the one before.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

// === impl Keeper ===

impl Keeper {
    /// Will keep what `settings` say; and where its state appears.
    ///
    /// # Errors
    ///
    /// Where no certificate can be for one of the names.
    pub fn new(
        client: Client,
        settings: Settings,
        metrics: Metrics,
    ) -> Result<(Self, watch::Receiver<State>), CertificateError> {
        for name in &settings.names {
            server_name(name)?;
        }
        let (state, seen) = watch::channel(State::Starting);
        let keeper = Self {
            secrets: Api::namespaced(client.clone(), &settings.namespace),
            configurations: Api::all(client.clone()),
            client,
            settings,
            jitter: Jitter::new(fastrand::u8(0..=Jitter::MOST)),
            metrics,
            state,
            awaited: None,
            steps: VecDeque::new(),
        };
        Ok((keeper, seen))
    }

    /// Keeps them. It never ends.
    pub async fn run(mut self) {
        let mut changes = self.changes();
        let mut pause = SHORTEST_PAUSE;
        loop {
            let looked = timeout(PATIENCE, self.look()).await;
            let wait = match looked.unwrap_or(Err(KeepError::NoAnswer)) {
                Ok(looked) => {
                    self.state.send_replace(State::Kept);
                    pause = SHORTEST_PAUSE;
                    match looked {
                        Looked::Stepped => {
                            tokio::time::sleep(self.until_next_step()).await;
                            continue;
                        }
                        Looked::Beaten => SHORTEST_PAUSE,
                        Looked::Quiet(wait) => wait.min(INTERVAL),
                    }
                }
                Err(error) => {
                    self.fail(&error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            // Neither the end of the time nor the end of the watches is a reason not to look again.
            let _ = timeout(wait, changes.next()).await;
        }
    }

    fn changes(&self) -> Changes {
        let Settings {
            namespace,
            ca_secret,
            serving_secret,
            webhook_configuration,
            ..
        } = &self.settings;
        let secret = |name| {
            let api = Api::namespaced(self.client.clone(), namespace);
            trigger::changes::<Secret>(api, name)
        };
        let configurations = Api::all(self.client.clone());
        trigger::any([
            secret(ca_secret),
            secret(serving_secret),
            trigger::changes::<MutatingWebhookConfiguration>(configurations, webhook_configuration),
        ])
    }

    fn fail(&self, error: &KeepError) {
        self.metrics.failures.inc();
        let text = one_line(error);
        let failing = State::Failing(text.clone());
        let is_news = self.state.send_if_modified(|state| {
            let is_news = *state != failing;
            *state = failing;
            is_news
        });
        if is_news {
            tracing::warn!(error = text, "certificates cannot be kept");
        }
    }

    /// How long the next step has to wait for those before it.
    fn until_next_step(&mut self) -> Duration {
        let now = Instant::now();
        self.steps.push_back(now);
        if self.steps.len() <= MOST_STEPS {
            return Duration::ZERO;
        }
        let first = self.steps.pop_front().unwrap_or(now);
        (first + STEPS_WITHIN).saturating_duration_since(now)
    }

    /// Looks at what is there, and takes the next step.
    async fn look(&mut self) -> Result<Looked, KeepError> {
        let objects = self.objects().await?;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let authorities = objects.authorities()?;
        let serving = objects.serving()?;
        let trusted = objects.trusted();
        self.show(&authorities, serving.as_ref());

        let known_in = self.known_in(&authorities, &trusted);
        let seen = Seen {
            authorities: &authorities,
            serving: serving.as_ref(),
            trusted: &trusted,
            next_is_known: known_in == Some(Duration::ZERO),
        };
        let rules = Rules {
            names: &self.settings.names,
            jitter: self.jitter,
        };
        let step = next_step(&seen, &rules, now);
        let written = match step {
            Step::Wait(until) => {
                let until = until.map(|until| u64::try_from(until - now).unwrap_or_default());
                let until = until.map(Duration::from_secs);
                return Ok(Looked::Quiet(
                    until.into_iter().chain(known_in).min().unwrap_or(INTERVAL),
                ));
            }
            Step::MakeNext => self.make_next(objects.ca, authorities).await?,
            Step::Trust(bundles) => self.trust(objects.configuration, &bundles).await?,
            Step::Promote => self.promote(objects.ca, authorities).await?,
            Step::Issue => self.issue(objects.serving, &authorities, now).await?,
        };
        Ok(match written {
            Some(written) => {
                self.metrics.written(written);
                Looked::Stepped
            }
            None => Looked::Beaten,
        })
    }

    async fn objects(&self) -> Result<Objects, KeepError> {
        let Settings {
            ca_secret,
            serving_secret,
            webhook_configuration,
            ..
        } = &self.settings;
        let (ca, serving, configuration) = tokio::try_join!(
            self.read_secret(ca_secret),
            self.read_secret(serving_secret),
            async {
                let read = self.configurations.get_opt(webhook_configuration).await;
                read.map_err(|source| {
                    self.failed(
                        "read",
                        "MutatingWebhookConfiguration",
                        webhook_configuration,
                        source,
                    )
                })
            },
        )?;
        Ok(Objects {
            ca,
            serving,
            configuration,
        })
    }

    async fn read_secret(&self, name: &str) -> Result<Option<Secret>, KeepError> {
        let read = self.secrets.get_opt(name).await;
        read.map_err(|source| self.failed("read", "Secret", name, source))
    }

    fn show(&self, authorities: &Authorities, serving: Option<&ServingPair>) {
        let current = authorities
            .current
            .as_ref()
            .map(|ca| ca.certificate.validity);
        let serving = serving.and_then(|pair| pair.validity().ok());
        self.metrics.certificates(serving, current);
    }

    /// In what time every API server will know the next CA; `None` where there is none, or not every webhook
    /// of ours trusts it.
    fn known_in(&mut self, authorities: &Authorities, trusted: &[Bundle]) -> Option<Duration> {
        let next = authorities.next.as_ref().map(|next| &next.certificate);
        let next = next.filter(|next| trusted.iter().all(|bundle| bundle.holds(next)));
        let Some(next) = next else {
            self.awaited = None;
            return None;
        };
        let since = match &self.awaited {
            Some((awaited, since)) if awaited == next => *since,
            _ => {
                let now = Instant::now();
                self.awaited = Some((next.clone(), now));
                now
            }
        };
        let known = since + known_after(next.validity);
        Some(known.saturating_duration_since(Instant::now()))
    }

    fn failed(
        &self,
        action: &'static str,
        kind: &str,
        name: &str,
        source: kube::Error,
    ) -> KeepError {
        let object = if kind == "Secret" {
            format!("{kind} {}/{name}", self.settings.namespace)
        } else {
            format!("{kind} {name}")
        };
        KeepError::Call {
            action,
            object,
            source,
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// How long after it was trusted a CA may issue.
fn known_after(ca: Validity) -> Duration {
    KNOWN_AFTER.min(ca.life() / 20)
}

// === steps ===

/// What was written, or `None` where somebody else was first.
type Stepped = Result<Option<Written>, KeepError>;

impl Keeper {
    async fn make_next(&self, secret: Option<Secret>, authorities: Authorities) -> Stepped {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let next = Authority::make(now, self.settings.ca_lifetime)?;
        let expiry = next.certificate.validity.not_after;
        let authorities = Authorities {
            next: Some(next),
            ..authorities
        };
        let written = self.put_authorities(secret, &authorities).await?;
        if written {
            tracing::info!(expiry, "made a CA, which issues once it is trusted");
        }
        Ok(written.then_some(Written::NextCa))
    }

    async fn promote(&self, secret: Option<Secret>, authorities: Authorities) -> Stepped {
        let written = self
            .put_authorities(secret, &authorities.promoted())
            .await?;
        if written {
            tracing::info!("the new CA issues from now on");
        }
        Ok(written.then_some(Written::Promotion))
    }

    async fn issue(&self, secret: Option<Secret>, authorities: &Authorities, now: i64) -> Stepped {
        let Some(ca) = &authorities.current else {
            return Ok(None);
        };
        let Settings {
            names,
            leaf_lifetime,
            serving_secret,
            ..
        } = &self.settings;
        let pair = ca.issue(names, now, *leaf_lifetime)?;
        let expiry = pair.validity()?.not_after;
        let data = pair.data();
        let written = self
            .put(Purpose::Serving, serving_secret, secret, data)
            .await?;
        if written {
            tracing::info!(expiry, "issued a certificate");
        }
        Ok(written.then_some(Written::Certificate))
    }

    async fn put_authorities(
        &self,
        secret: Option<Secret>,
        authorities: &Authorities,
    ) -> Result<bool, KeepError> {
        let name = &self.settings.ca_secret;
        self.put(Purpose::Ca, name, secret, authorities.data())
            .await
    }

    /// Creates a Secret, or replaces the contents of the one that was seen; whether nobody else was first.
    async fn put(
        &self,
        purpose: Purpose,
        name: &str,
        seen: Option<Secret>,
        data: BTreeMap<String, ByteString>,
    ) -> Result<bool, KeepError> {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let was_there = seen.is_some();
        let (action, put) = match seen {
            // Its resourceVersion goes along, and with it the condition that it is still the same.
            Some(secret) => {
                let secret = Secret {
                    data: Some(data),
                    ..secret
                };
                (
                    "replace",
                    self.secrets.replace(name, &params, &secret).await,
                )
            }
            None => {
                let secret = purpose.new_secret(name, data);
                ("create", self.secrets.create(&params, &secret).await)
            }
        };
        match put {
            Ok(_) => Ok(true),
            Err(error) if is_conflict(&error) || (was_there && is_gone(&error)) => Ok(false),
            Err(source) => Err(self.failed(action, "Secret", name, source)),
        }
    }

    /// Writes the `caBundle` of our webhooks, and nothing else of the configuration.
    async fn trust(
        &self,
        configuration: Option<MutatingWebhookConfiguration>,
        bundles: &[Bundle],
    ) -> Stepped {
        let Some(configuration) = configuration else {
            return Ok(None);
        };
        let name = &self.settings.webhook_configuration;
        let patch = Patch::Strategic(trust_patch(&configuration, bundles));
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match self.configurations.patch(name, &params, &patch).await {
            Ok(_) => {
                tracing::info!(
                    configuration = name,
                    "wrote whom the API servers are to trust"
                );
                Ok(Some(Written::Trust))
            }
            Err(error) if is_conflict(&error) || is_gone(&error) => Ok(None),
            Err(source) => Err(self.failed("patch", "MutatingWebhookConfiguration", name, source)),
        }
    }
}

/// A strategic merge: webhooks are told apart by their names, and the version makes it a precondition that
/// they are still those that were seen.
fn trust_patch(configuration: &MutatingWebhookConfiguration, bundles: &[Bundle]) -> Value {
    let webhooks = our_webhooks(configuration)
        .zip(bundles)
        .map(|(webhook, bundle)| {
            let pem = ByteString(bundle.to_pem().into_bytes());
            json!({"name": webhook.name, "clientConfig": {"caBundle": pem}})
        });
    let webhooks: Vec<Value> = webhooks.collect();
    let version = &configuration.metadata.resource_version;
    json!({"metadata": {"resourceVersion": version}, "webhooks": webhooks})
}

fn our_webhooks(
    configuration: &MutatingWebhookConfiguration,
) -> impl Iterator<Item = &MutatingWebhook> {
    let webhooks = configuration.webhooks.iter().flatten();
    webhooks.filter(|webhook| webhook.name.ends_with(OUR_WEBHOOKS))
}

/// It was created or changed since it was looked at.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

// === impl Objects ===

impl Objects {
    fn authorities(&self) -> Result<Authorities, KeepError> {
        let Some(secret) = &self.ca else {
            return Ok(Authorities::default());
        };
        Purpose::Ca.check(secret)?;
        let (authorities, unreadable) = Authorities::read(secret);
        for unreadable in unreadable {
            let name = secret.metadata.name.as_deref().unwrap_or_default();
            let error: &dyn std::error::Error = &unreadable;
            tracing::warn!(secret = name, error, "passing over what cannot be read");
        }
        Ok(authorities)
    }

    fn serving(&self) -> Result<Option<ServingPair>, KeepError> {
        let Some(secret) = &self.serving else {
            return Ok(None);
        };
        Purpose::Serving.check(secret)?;
        Ok(Some(ServingPair::read(secret)))
    }

    /// Whom each webhook of ours trusts.
    fn trusted(&self) -> Vec<Bundle> {
        let webhooks = self.configuration.iter().flat_map(our_webhooks);
        webhooks
            .map(|webhook| {
                let pem = webhook.client_config.ca_bundle.as_ref();
                pem.map_or_else(Bundle::default, |pem| Bundle::read(&pem.0))
            })
            .collect()
    }
}
