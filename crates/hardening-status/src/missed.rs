//! Looks for running pods that lack what today's policies would fill in: those that were created before a
//! policy, and those that the webhook missed.
//!
//! Pods are listed in pages, one at a time, and nothing is kept of a pod but what it lacks: memory follows
//! namespaces and not pods. What is told of them is names, fields and policies, never what stands in a pod's
//! env, args or annotations.

mod finding;
mod pods;
mod reports;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hardening_engine::PolicySet;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::Metrics;
use finding::Findings;

pub(crate) use finding::{OTHERS, Why};

/// The longest pause before the first scan: a process that has just become the leader has more urgent
/// things to do, and those who restart all leaders at once want no herd of scans.
const FIRST_WITHIN: Duration = Duration::from_secs(10);

/// The search for missed pods.
pub struct MissedPods {
    client: Client,
    policies: watch::Receiver<Arc<PolicySet>>,
    schedule: Schedule,
    metrics: Metrics,
}

/// When to look.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// From the end of one scan to the start of the next; up to a tenth more, by chance.
    pub every: Duration,
}

/// A step of a scan that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("cannot list {0}")]
    List(&'static str, #[source] kube::Error),
    #[error("cannot write the PolicyReport of namespace {0}")]
    Report(String, #[source] kube::Error),
}

// === impl MissedPods ===

impl MissedPods {
    /// A search by these policies, and what they know of the cluster.
    #[must_use]
    pub fn new(
        client: Client,
        policies: watch::Receiver<Arc<PolicySet>>,
        schedule: Schedule,
        metrics: Metrics,
    ) -> Self {
        Self {
            client,
            policies,
            schedule,
            metrics,
        }
    }

    /// Looks again and again, for as long as it is polled. It returns only where the policies end, which
    /// they never should.
    pub async fn run(&self) {
        let mut policies = self.policies.clone();
        if !crate::are_known(&mut policies).await {
            return;
        }
        sleep(
            self.schedule
                .every
                .min(FIRST_WITHIN)
                .mul_f64(fastrand::f64()),
        )
        .await;
        loop {
            self.scan_and_tell().await;
            let every = self.schedule.every;
            sleep(every.mul_f64(1.0 + fastrand::f64() / 10.0)).await;
        }
    }

    async fn scan_and_tell(&self) {
        let started = Instant::now();
        let found = match self.scan().await {
            Ok(found) => found,
            Err(error) => {
                self.metrics.scan_failed();
                let error = crate::error::chain(&error);
                return warn!(
                    error,
                    "no scan for missed pods; the next one comes at its time"
                );
            }
        };
        let counts = (found.pods, found.unreadable);
        self.metrics.scanned(
            found.by_namespace(),
            counts,
            started.elapsed(),
            Timestamp::now().as_second(),
        );
        info!(
            pods = found.pods,
            missed = found.count(Why::Missed),
            older = found.count(Why::Older),
            excluded = found.count(Why::Excluded),
            unreadable = found.unreadable,
            "looked for pods that lack what policies fill in"
        );
        if let Err(error) = reports::write(&self.client, &found).await {
            let error = crate::error::chain(&error);
            warn!(error, "the reports of missed pods are not up to date");
        }
    }

    async fn scan(&self) -> Result<Findings, ScanError> {
        let history = pods::history(&self.client).await?;
        let mut found = Findings::default();
        pods::each(&self.client, |pod| {
            // The latest one for each pod: a set is not kept alive for as long as a scan takes.
            let policies = Arc::clone(&self.policies.borrow());
            found.look(pod, &policies, &history);
        })
        .await?;
        Ok(found)
    }
}

impl fmt::Debug for MissedPods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MissedPods")
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}
