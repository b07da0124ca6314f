//! Keeps what policies compile to applied, so that pods get their defaults also while nothing of this product runs.
//!
//! The objects stay when this ends: that is what they are for. No moment is without defaults either: what a namespace is
//! to have is there before what it had goes.

mod objects;
mod verdict;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hardening_compile::{Compiled, Options, compile};
use hardening_engine::PolicySet;
use kube::Client;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use self::objects::Objects;
use crate::{Additions, Metrics};

/// How long to wait for more after a change, since they come in groups and each means compiling all.
const GATHER: Duration = Duration::from_secs(1);
/// How often it is looked whether all is there as it is to be: somebody may have changed or deleted something.
const EVERY: Duration = Duration::from_secs(60);
/// The pause after a pass in which something failed.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Compiles policies, and keeps the result applied.
pub struct CompiledPolicies {
    policies: watch::Receiver<Arc<PolicySet>>,
    options: Options,
    objects: Objects,
    additions: Additions,
    metrics: Metrics,
}

// === impl CompiledPolicies ===

impl CompiledPolicies {
    /// Of these policies, as `options` say. Whether each is compiled is said by `additions`.
    #[must_use]
    pub fn new(
        client: &Client,
        policies: watch::Receiver<Arc<PolicySet>>,
        options: Options,
        additions: Additions,
        metrics: Metrics,
    ) -> Self {
        Self {
            policies,
            options,
            objects: Objects::new(client),
            additions,
            metrics,
        }
    }

    /// Keeps them applied, for as long as it is polled. It returns only where the policies end, which they never
    /// should.
    pub async fn run(&self) {
        let mut policies = self.policies.clone();
        if !crate::are_known(&mut policies).await {
            return;
        }
        let mut told = String::new();
        loop {
            let set = Arc::clone(&policies.borrow_and_update());
            let is_done = self.pass(set, &mut told).await;
            let pause = if is_done { EVERY } else { AFTER_FAILURE };
            tokio::select! {
                changed = policies.changed() => match changed {
                    Ok(()) => sleep(GATHER).await,
                    Err(_) => return,
                },
                () = sleep(pause) => {}
            }
        }
    }

    /// Makes the cluster have what a set compiles to, and says of each policy whether it has. Whether all of it
    /// went well; what did not is told when it is news.
    async fn pass(&self, set: Arc<PolicySet>, told: &mut String) -> bool {
        let Some(compiled) = self.compile(Arc::clone(&set)).await else {
            return false;
        };
        let outcome = self.objects.apply(&compiled.objects).await;
        let said = verdict::verdicts(&set, &compiled, &outcome);
        self.additions.set(said);
        let objects = compiled.objects.len();
        let error = match outcome {
            Ok(outcome) => {
                let (written, deleted) = (outcome.written, outcome.deleted);
                if written + deleted > 0 {
                    info!(objects, written, deleted, "compiled policies applied");
                }
                outcome.failed.into_values().next()
            }
            Err(error) => Some(crate::error::chain(&error)),
        };
        self.metrics.compiled(objects, error.is_none());
        if let Some(error) = error.as_ref().filter(|error| told != *error) {
            warn!(
                error,
                "not all compiled policies are as they are to be; trying again until they are"
            );
        }
        *told = error.unwrap_or_default();
        told.is_empty()
    }

    /// Compiles elsewhere: with thousands of namespaces it takes seconds, and other tasks have their turn meanwhile.
    /// `None`: the program is ending.
    async fn compile(&self, set: Arc<PolicySet>) -> Option<Compiled> {
        let options = self.options.clone();
        tokio::task::spawn_blocking(move || compile(&set, &options))
            .await
            .ok()
    }
}

impl fmt::Debug for CompiledPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledPolicies")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
