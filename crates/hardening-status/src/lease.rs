//! One process of several is the leader, by a Lease (`coordination.k8s.io/v1`) that it holds and renews.
//!
//! Judged as client-go does it, without trusting anybody's clock but one's own: a lease is abandoned when
//! this process has not seen it change for as long as its holder promised to need at most. The times that
//! stand in the lease are for people. (The crates that exist compare those times with the local clock, so
//! that two machines whose clocks differ can both lead; which is why this is not one of them.)
//!
//! The holder stops working well before anybody else may begin: its time runs from before its last renewal
//! was sent, theirs from after they have seen it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::Metrics;

/// How long a lease lasts from its last renewal, as others see it.
const DURATION: Duration = Duration::from_secs(15);
/// How long the holder goes on without having renewed it. The difference is for what was already sent.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// Pauses between attempts to get it, or to renew it; some more by chance.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the way out may wait for the API server.
const FAREWELL: Duration = Duration::from_secs(3);

/// Takes part in the election of a leader.
#[derive(Debug)]
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    metrics: Metrics,
    /// The lease as it was seen last, and since when it is known like that.
    seen: Option<(LeaseSpec, Instant)>,
    /// The lease as this process wrote it last, with its version.
    held: Option<Lease>,
}

/// Why a process no longer takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElectionError {
    /// What only the leader does has no end of its own.
    #[error("the leader's work ended by itself")]
    WorkEnded,
}

// === impl Election ===

impl Election {
    /// An election by the Lease of this namespace and name. `host` names this process to people, and need
    /// not be unique.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, host: &str, metrics: Metrics) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: format!("{host}_{:016x}", fastrand::u64(..)),
            metrics,
            seen: None,
            held: None,
        }
    }

    /// Waits until this process is the leader, and runs `work` for as long as it is; again and again, until
    /// `shutdown`. Work is dropped where it stands when the lease was not renewed in time, and before the
    /// lease is given up.
    ///
    /// # Errors
    ///
    /// Where the work ends by itself.
    pub async fn run<W: Future<Output = ()>>(
        mut self,
        shutdown: CancellationToken,
        mut work: impl FnMut() -> W,
    ) -> Result<(), ElectionError> {
        while let Some(since) = shutdown.run_until_cancelled(self.until_leader()).await {
            info!(lease = self.name, identity = self.identity, "leading");
            self.metrics.leading(true);
            // In this order: a process that was stopped for a while must look at its lease before anything
            // else.
            let ended = tokio::select! {
                biased;
                () = shutdown.cancelled() => Some(Ok(())),
                () = self.keep(since) => None,
                () = work() => Some(Err(ElectionError::WorkEnded)),
            };
            self.metrics.leading(false);
            match ended {
                Some(result) => {
                    self.release().await;
                    return result;
                }
                None => {
                    self.held = None;
                    warn!(lease = self.name, "no longer leading");
                }
            }
        }
        Ok(())
    }

    /// Tries until this process holds the lease; since when it does.
    async fn until_leader(&mut self) -> Instant {
        let mut failing = false;
        loop {
            let started = Instant::now();
            match timeout(RENEW_WITHIN, self.try_acquire()).await {
                Ok(Ok(true)) => return started,
                Ok(Ok(false)) => failing = false,
                Ok(Err(error)) => self.tell(&mut failing, &error),
                Err(elapsed) => self.tell(&mut failing, &elapsed),
            }
            sleep(jittered(PAUSE)).await;
        }
    }

    /// Renews the lease for as long as that succeeds in time.
    async fn keep(&mut self, mut renewed: Instant) {
        let mut failing = false;
        loop {
            sleep(jittered(PAUSE)).await;
            let (started, deadline) = (Instant::now(), renewed + RENEW_WITHIN);
            match timeout_at(deadline, self.try_acquire()).await {
                Ok(Ok(true)) => (renewed, failing) = (started, false),
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => self.tell(&mut failing, &error),
            }
        }
    }

    /// An error is told when it is news.
    fn tell(&self, failing: &mut bool, error: &(dyn std::error::Error + 'static)) {
        let error = crate::error::chain(error);
        match std::mem::replace(failing, true) {
            false => warn!(lease = self.name, error, "cannot get or renew the lease"),
            true => debug!(lease = self.name, error, "cannot get or renew the lease"),
        }
    }

    /// Whether the lease is this process's now: gets it where it is free, and renews it where it was got.
    async fn try_acquire(&mut self) -> Result<bool, kube::Error> {
        if let Some(held) = self.held.take() {
            match self.write(&held).await? {
                Some(written) => {
                    self.held = Some(written);
                    return Ok(true);
                }
                // Somebody changed it: it may be another's now, or only have a label more.
                None => debug!(lease = self.name, "the lease was changed by another"),
            }
        }
        let claimed = match self.api.get_opt(&self.name).await? {
            None => {
                let lease = self.new_lease();
                let created = self.api.create(&PostParams::default(), &lease).await;
                unless(&[409], created)?
            }
            Some(lease) if self.is_free(&lease) => self.write(&lease).await?,
            Some(_) => None,
        };
        self.held = claimed;
        Ok(self.held.is_some())
    }

    /// Writes the lease as this process's, if it is still in the version that was read; `None`: it is not.
    async fn write(&self, lease: &Lease) -> Result<Option<Lease>, kube::Error> {
        let mut lease = lease.clone();
        let before = lease.spec.take().unwrap_or_default();
        lease.spec = Some(self.claim(before));
        let params = PostParams::default();
        // Changed by another, or deleted.
        unless(
            &[404, 409],
            self.api.replace(&self.name, &params, &lease).await,
        )
    }

    fn new_lease(&self) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(self.claim(LeaseSpec::default())),
        }
    }

    /// The lease as this process's.
    fn claim(&self, before: LeaseSpec) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let is_ours = before.holder_identity.as_ref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            acquire_time: if is_ours {
                before.acquire_time
            } else {
                now.clone()
            },
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            lease_transitions: Some(transitions.saturating_add(i32::from(!is_ours))),
            renew_time: now,
            ..before
        }
    }

    /// Whether a lease that was just read may be taken.
    fn is_free(&mut self, lease: &Lease) -> bool {
        let spec = lease.spec.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == spec => *since,
            _ => Instant::now(),
        };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let promised = spec.lease_duration_seconds;
        let promised = promised.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = promised.map_or(DURATION, Duration::from_secs);
        let is_free = holder.is_empty() || holder == self.identity || since.elapsed() >= lasts;
        self.seen = Some((spec, since));
        is_free
    }

    /// Gives the lease up, so that another need not wait.
    async fn release(&mut self) {
        let Some(mut held) = self.held.take() else {
            return;
        };
        if let Some(spec) = &mut held.spec {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let params = PostParams::default();
        match timeout(FAREWELL, self.api.replace(&self.name, &params, &held)).await {
            Ok(Ok(_)) => info!(lease = self.name, "gave up the lease"),
            Ok(Err(error)) => {
                let error = crate::error::chain(&error);
                debug!(lease = self.name, error, "could not give up the lease");
            }
            Err(_) => debug!(lease = self.name, "could not give up the lease in time"),
        }
    }
}

/// What was written; `None` where the API server answered with one of these codes.
fn unless<T>(codes: &[u16], written: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match written {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if codes.contains(&status.code) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Up to a fifth more, so that processes do not ask all at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + fastrand::f64() / 5.0)
}

#[cfg(test)]
mod tests;
