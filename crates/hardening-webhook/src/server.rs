//! The two servers and what keeps them current, from the first address bound to the last answer given.
//!
//! States are types: [`Webhook`] is what to serve, [`BoundWebhook`] has its addresses, and
//! [`BoundWebhook::run`] ends with the program. Every task is joined there, and one that ends before its time
//! ends the program with its name: a server that lives on without its policies would be worse than none.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hardening_engine::PolicySet;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::Admin;
use crate::callers::Callers;
use crate::decision::Decide;
use crate::handler::Handler;
use crate::health::{Readiness, ReadyCondition};
use crate::limits::{Limits, Shutdown};
use crate::listener::{WebhookConnections, accept};
use crate::log_limit::LogLimit;
use crate::metrics::{ConnectionError, Metrics};
use crate::policies::Policies;
use crate::probes::BoundProbes;
use crate::router::{ReviewSpan, Router};
use crate::tls::{Certificates, TlsError};

/// Why the server cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("listen on {address} for {purpose}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("prepare TLS")]
    Tls(#[from] TlsError),
    /// Whoever publishes policies has gone.
    #[error("the policies are no longer updated")]
    PoliciesEnded,
    /// A task ended by a panic.
    #[error("the task {task} failed")]
    Panicked {
        /// Which.
        task: &'static str,
        /// How.
        source: JoinError,
    },
}

/// What to serve.
#[derive(Debug)]
pub struct Webhook {
    /// The policies, and every change of them.
    pub policies: watch::Receiver<Arc<PolicySet>>,
    /// What decides: [`Engine`](crate::decision::Engine).
    pub decide: Arc<dyn Decide>,
    /// The certificate.
    pub certificates: Certificates,
    /// Who may call; `None`: whoever can.
    pub callers: Option<Callers>,
    /// How often a new certificate, and a new CA of callers, is looked for.
    pub certificate_interval: Duration,
    /// What is shown at `/readyz`. The server adds its own conditions.
    pub readiness: Readiness,
    /// The webhook's metrics, registered in `registry`.
    pub metrics: Metrics,
    /// What is shown at `/metrics`.
    pub registry: Arc<Registry>,
    /// What makes a span for each review, of the trace that the request's headers name; `None`: no spans.
    pub span: Option<ReviewSpan>,
    /// How much is taken on.
    pub limits: Limits,
    /// How it ends.
    pub shutdown: Shutdown,
}

/// What to serve, with the addresses to serve it on.
#[derive(Debug)]
pub struct BoundWebhook {
    webhook: Webhook,
    tls: Arc<ServerConfig>,
    listener: TcpListener,
    address: SocketAddr,
    probes: BoundProbes,
    serving: ReadyCondition,
    certificate: ReadyCondition,
}

// === impl Webhook ===

/// How often a new certificate is looked for, unless one says otherwise.
pub const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);

impl Webhook {
    /// Binds both addresses: `listen` for reviews over TLS, `metrics_listen` for probes and scrapes. Port 0
    /// takes any port that is free.
    ///
    /// # Errors
    ///
    /// Where an address cannot be had, or TLS cannot be set up.
    pub async fn bind(
        self,
        listen: SocketAddr,
        metrics_listen: SocketAddr,
    ) -> Result<BoundWebhook, ServeError> {
        let tls = Arc::new(self.certificates.server_config(self.callers.as_ref())?);
        let (listener, address) = bind(listen, "reviews").await?;
        let admin = Admin::new(self.readiness.clone(), Arc::clone(&self.registry));
        let probes = BoundProbes::bind(metrics_listen, admin).await?;
        let serving = self.readiness.condition("serving");
        let certificate = self.readiness.condition("certificate");
        Ok(BoundWebhook {
            webhook: self,
            tls,
            listener,
            address,
            probes,
            serving,
            certificate,
        })
    }
}

/// Binds an address; the error says what for.
pub(crate) async fn bind(
    address: SocketAddr,
    purpose: &'static str,
) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Bind {
        address,
        purpose,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

// === impl BoundWebhook ===

impl BoundWebhook {
    /// Where reviews are answered.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where probes and scrapes are answered.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.probes.address()
    }

    /// The CA that clients must trust, where the certificate is made in memory.
    #[must_use]
    pub fn ca_pem(&self) -> Option<String> {
        self.webhook.certificates.ca_pem()
    }

    /// Serves until `shutdown`: then it is unready at once, serves on while others notice, and ends when the
    /// answers under way are given.
    ///
    /// # Errors
    ///
    /// Where a part of it ends that must not.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let Self {
            webhook,
            tls,
            listener,
            address,
            probes,
            serving,
            certificate,
        } = self;
        let Webhook {
            policies,
            decide,
            certificates,
            callers,
            certificate_interval,
            readiness: _,
            metrics,
            registry: _,
            limits,
            span,
            shutdown: ending,
        } = webhook;
        let phases = Phases::default();
        let policies = Policies::new(policies);
        let handler = Handler::new(policies.clone(), decide, metrics.clone(), limits.unseen);
        let router = Router::new(handler, limits, metrics.clone(), span);
        let reviews = Arc::new(WebhookConnections {
            tls: TlsAcceptor::from(tls),
            router: router.clone(),
            limits,
            metrics: metrics.clone(),
            draining: phases.draining.clone(),
            stop: phases.stop.clone(),
            streams: TaskTracker::new(),
            log: LogLimit::new(),
        });
        let following = follow(
            policies,
            metrics.clone(),
            shutdown.clone(),
            phases.last.clone(),
        );
        let renewing = keep_current(
            certificates,
            certificate_interval,
            metrics.clone(),
            certificate,
            phases.last.clone(),
        );

        serving.met();
        tracing::info!(%address, metrics_address = %probes.address(), "serving");
        let mut tasks = Tasks::default();
        tasks.spawn("policies", following);
        tasks.spawn("certificate", renewing);
        if let Some(callers) = callers {
            tasks.spawn(
                "callers' CA",
                judge(
                    callers,
                    certificate_interval,
                    metrics.clone(),
                    phases.last.clone(),
                ),
            );
        }
        tasks.spawn(
            "health and metrics",
            serve_probes(probes, limits, ending, phases.last.clone(), metrics),
        );
        tasks.spawn(
            "shutdown",
            shut_down(shutdown, phases.clone(), serving, router, ending.serve_on),
        );
        tasks.spawn(
            "reviews",
            serve_reviews(listener, reviews, ending.drain, phases.last),
        );
        tasks.join().await
    }
}

/// How far the end has come.
#[derive(Clone, Debug, Default)]
struct Phases {
    /// Clients are asked to go elsewhere.
    draining: CancellationToken,
    /// No connection to the webhook is accepted any more, and those that are open end.
    stop: CancellationToken,
    /// No answer is under way any more.
    last: CancellationToken,
}

async fn shut_down(
    shutdown: CancellationToken,
    phases: Phases,
    serving: ReadyCondition,
    router: Router,
    serve_on: Duration,
) -> Result<(), ServeError> {
    shutdown.cancelled().await;
    serving.unmet("shutting down");
    router.drain();
    phases.draining.cancel();
    // Said once it is so, for whoever acts on it.
    tracing::info!("shutting down");
    tokio::time::sleep(serve_on).await;
    phases.stop.cancel();
    Ok(())
}

async fn keep_current(
    certificates: Certificates,
    interval: Duration,
    metrics: Metrics,
    condition: ReadyCondition,
    last: CancellationToken,
) -> Result<(), ServeError> {
    certificates
        .keep_current(interval, metrics, condition, last)
        .await;
    Ok(())
}

async fn judge(
    callers: Callers,
    interval: Duration,
    metrics: Metrics,
    last: CancellationToken,
) -> Result<(), ServeError> {
    callers.keep_current(interval, metrics, last).await;
    Ok(())
}

async fn follow(
    policies: Policies,
    metrics: Metrics,
    shutdown: CancellationToken,
    last: CancellationToken,
) -> Result<(), ServeError> {
    let followed = last.run_until_cancelled(policies.follow(metrics)).await;
    match followed {
        Some(()) if !shutdown.is_cancelled() => Err(ServeError::PoliciesEnded),
        // Whoever publishes them may end first when everything ends; the last ones stay in force.
        _ => Ok(()),
    }
}

async fn serve_reviews(
    listener: TcpListener,
    reviews: Arc<WebhookConnections>,
    drain: Duration,
    last: CancellationToken,
) -> Result<(), ServeError> {
    let (stop, metrics, streams) = (
        reviews.stop.clone(),
        reviews.metrics.clone(),
        reviews.streams.clone(),
    );
    let most = reviews.limits.connections;
    let panicked = || metrics.connection_error(ConnectionError::Panic);
    accept(listener, most, drain, &stop, panicked, |stream| {
        Arc::clone(&reviews).serve(stream)
    })
    .await;
    // Requests of connections that had to be cut off end by their own deadline.
    streams.close();
    streams.wait().await;
    // What is left is only there for reviews.
    last.cancel();
    Ok(())
}

async fn serve_probes(
    probes: BoundProbes,
    limits: Limits,
    ending: Shutdown,
    last: CancellationToken,
    metrics: Metrics,
) -> Result<(), ServeError> {
    let panicked = || metrics.connection_error(ConnectionError::Panic);
    probes.serve(limits, ending, last, panicked).await;
    Ok(())
}

// === tasks ===

/// Tasks with names, of which none is left behind.
#[derive(Debug, Default)]
struct Tasks {
    set: JoinSet<Result<(), ServeError>>,
    names: Vec<(Id, &'static str)>,
}

impl Tasks {
    fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), ServeError>> + Send + 'static,
    ) {
        self.names.push((self.set.spawn(task).id(), name));
    }

    /// Waits for all of them; the first that fails ends the others.
    async fn join(mut self) -> Result<(), ServeError> {
        while let Some(joined) = self.set.join_next().await {
            joined.map_err(|source| {
                let name = self.names.iter().find(|(id, _)| *id == source.id());
                ServeError::Panicked {
                    task: name.map_or("", |(_, name)| name),
                    source,
                }
            })??;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends only when it is dropped, and tells.
    async fn endless(ended: tokio::sync::oneshot::Sender<()>) -> Result<(), ServeError> {
        let _ended = ended;
        std::future::pending().await
    }

    #[tokio::test]
    async fn a_task_that_panics_or_fails_ends_the_others_and_is_named() {
        let panics = async { panic!("a defect, for this test") };
        let fails = async { Err(ServeError::PoliciesEnded) };
        let cases: [(_, futures::future::BoxFuture<'static, _>); 2] = [
            ("the task certificate failed", Box::pin(panics)),
            ("the policies are no longer updated", Box::pin(fails)),
        ];
        for (message, task) in cases {
            let mut tasks = Tasks::default();
            let (sender, other_ended) = tokio::sync::oneshot::channel();
            tasks.spawn("reviews", endless(sender));
            tasks.spawn("certificate", task);
            assert_eq!(tasks.join().await.unwrap_err().to_string(), message);
            assert!(other_ended.await.is_err(), "{message}");
        }
    }
}
