//! The policies as a review sees them: a snapshot that is swapped in whole.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use hardening_engine::PolicySet;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// The policies in force, for any number of readers. Clones share them.
///
/// A watch channel's value is behind a lock that its sender takes, so readers get their own place to look:
/// an answer never waits for whoever publishes policies.
#[derive(Clone, Debug)]
pub struct Policies {
    current: Arc<ArcSwap<PolicySet>>,
    updates: watch::Receiver<Arc<PolicySet>>,
}

impl Policies {
    /// Starts with the policies published last.
    #[must_use]
    pub fn new(updates: watch::Receiver<Arc<PolicySet>>) -> Self {
        let current = Arc::new(ArcSwap::new(Arc::clone(&updates.borrow())));
        Self { current, updates }
    }

    /// The policies in force.
    pub(crate) fn current(&self) -> Guard<Arc<PolicySet>> {
        self.current.load()
    }

    /// The updates themselves, for a review that must wait for one.
    pub(crate) fn updates(&self) -> watch::Receiver<Arc<PolicySet>> {
        self.updates.clone()
    }

    /// Puts each update in force; returns when there will be no more.
    pub(crate) async fn follow(self, metrics: Metrics) {
        let Self {
            current,
            mut updates,
        } = self;
        loop {
            let policies = Arc::clone(&updates.borrow_and_update());
            metrics.policies(&policies);
            current.store(policies);
            if updates.changed().await.is_err() {
                return;
            }
        }
    }
}
