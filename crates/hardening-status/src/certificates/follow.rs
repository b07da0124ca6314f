//! The serving certificate as those see it who serve with it: they read one Secret, and write nothing.

use std::fmt;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::time::timeout;

use super::authority::{CertificateError, ServingPair, server_name};
use super::error_text::one_line;
use super::stored::{Foreign, Purpose};
use super::trigger;

/// Follows the Secret that holds the serving certificate.
pub struct ServingSecret {
    client: Client,
    namespace: String,
    secret: String,
    /// The name that the certificate must be for.
    name: String,
}

/// Why there is nothing to serve with in the Secret.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("read Secret {secret}")]
    Read { secret: String, source: kube::Error },
    #[error("read Secret {0}: no answer in time")]
    NoAnswer(String),
    #[error("there is no Secret {0}; `hardening-controller manage` makes it")]
    Absent(String),
    #[error(transparent)]
    Foreign(#[from] Foreign),
    #[error("Secret {secret} holds no certificate to serve with")]
    Invalid {
        secret: String,
        source: CertificateError,
    },
}

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked for although no change was told of.
const INTERVAL: Duration = Duration::from_secs(10);
/// The pause after each look, however many changes are told of.
const PAUSE: Duration = Duration::from_millis(100);

impl ServingSecret {
    /// The Secret of that name, whose certificate must be for `name`.
    ///
    /// # Errors
    ///
    /// Where no certificate can be for `name`.
    pub fn new(
        client: Client,
        namespace: &str,
        secret: &str,
        name: &str,
    ) -> Result<Self, CertificateError> {
        server_name(name)?;
        Ok(Self {
            client,
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Hands over every new pair, from the first one on. A Secret that is gone, or holds nothing to serve
    /// with, is passed over: the pair before it stays in use. It never ends.
    pub async fn follow(self, mut publish: impl FnMut(ServingPair) + Send) {
        let metadata = Api::namespaced(self.client.clone(), &self.namespace);
        let mut changes = trigger::changes::<Secret>(metadata, &self.secret);
        let mut published = None;
        let mut told = None;
        loop {
            match self.read().await {
                Ok(pair) => {
                    told = None;
                    if published.as_ref() != Some(&pair) {
                        publish(pair.clone());
                        published = Some(pair);
                    }
                }
                Err(error) => tell(&error, &mut told),
            }
            tokio::time::sleep(PAUSE).await;
            // Neither the end of the time nor the end of the watch is a reason not to look again.
            let _ = timeout(INTERVAL, changes.next()).await;
        }
    }

    async fn read(&self) -> Result<ServingPair, Unusable> {
        let secret = || format!("{}/{}", self.namespace, self.secret);
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let found = timeout(PATIENCE, api.get_opt(&self.secret))
            .await
            .map_err(|_| Unusable::NoAnswer(secret()))?
            .map_err(|source| Unusable::Read {
                secret: secret(),
                source,
            })?;
        let found = found.ok_or_else(|| Unusable::Absent(secret()))?;
        Purpose::Serving.check(&found)?;
        let pair = ServingPair::read(&found);
        pair.check_name(&self.name)
            .map_err(|source| Unusable::Invalid {
                secret: secret(),
                source,
            })?;
        Ok(pair)
    }
}

impl fmt::Debug for ServingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingSecret").finish_non_exhaustive()
    }
}

/// Once, until it is another one.
fn tell(error: &Unusable, told: &mut Option<String>) {
    let text = one_line(error);
    if told.as_ref() != Some(&text) {
        tracing::warn!(
            error = text,
            "no new certificate: the one in use, if any, stays"
        );
        *told = Some(text);
    }
}
