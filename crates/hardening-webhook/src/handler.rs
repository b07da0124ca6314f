//! From the bytes of a request to the bytes of its answer.
//!
//! Bytes, envelope, view of the pod, matching policies, plan, answer: all from memory, with no call and no
//! lock that a writer holds. The only thing ever waited for is a namespace (or service account) that the
//! watch has not shown yet, and that not for long.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use hardening_engine::{Pod, PolicySet, Unseen};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::decision::{Decide, Decision};
use crate::metrics::{Metrics, Outcome};
use crate::policies::Policies;
use crate::refusal::{Refusal, Refused};
use crate::review::Review;

/// Answers reviews.
#[derive(Debug)]
pub struct Handler {
    policies: Policies,
    decide: Arc<dyn Decide>,
    metrics: Metrics,
    /// How long a review waits for what the watch has not shown yet.
    patience: Duration,
}

/// Why nothing was decided.
enum Undecided {
    /// Something that matters has not been seen.
    Unseen(Unseen),
    /// The decision panicked.
    Panic,
}

impl Handler {
    /// A handler that decides with `decide`.
    #[must_use]
    pub fn new(
        policies: Policies,
        decide: Arc<dyn Decide>,
        metrics: Metrics,
        patience: Duration,
    ) -> Self {
        Self {
            policies,
            decide,
            metrics,
            patience,
        }
    }

    /// Answers one review; `deadline` is when the API server stops waiting.
    ///
    /// # Errors
    ///
    /// Where the body is not a review of a pod, or nothing can be decided.
    pub async fn answer(
        &self,
        body: &[u8],
        deadline: Instant,
    ) -> Result<(Vec<u8>, Outcome), Refused> {
        let started = Instant::now();
        let review = self.decide.read(body)?;
        let decided = match &review.pod {
            Some(pod) => self.decide(&review.namespace, pod, deadline).await,
            None => Ok(Decision::default()),
        };
        let decision = decided.map_err(|undecided| Refused {
            uid: Some(review.uid.clone().into_owned()),
            why: match undecided {
                Undecided::Unseen(unseen) => Refusal::Unseen {
                    unseen,
                    waited: started.elapsed(),
                },
                Undecided::Panic => Refusal::Panic,
            },
        })?;
        let answer = Answer {
            patch: &decision.patch,
            audit_annotations: &decision.audit_annotations,
            warning: decision.warning.as_deref(),
        };
        let outcome = match review.pod {
            None => Outcome::NotApplicable,
            Some(_) if decision.patch.is_empty() => Outcome::Unchanged,
            Some(_) => Outcome::Patched,
        };
        let json = answer.to_json(&review.uid);
        self.record(&review, &decision, started);
        Ok((json, outcome))
    }

    async fn decide(
        &self,
        namespace: &str,
        pod: &Pod<'_>,
        deadline: Instant,
    ) -> Result<Decision, Undecided> {
        match self.attempt(&self.policies.current(), namespace, pod) {
            Err(Undecided::Unseen(_)) => self.wait(namespace, pod, deadline).await,
            decided => decided,
        }
    }

    /// Decides as soon as what was not known is known.
    async fn wait(
        &self,
        namespace: &str,
        pod: &Pod<'_>,
        deadline: Instant,
    ) -> Result<Decision, Undecided> {
        let deadline = deadline.min(Instant::now() + self.patience);
        let mut updates = self.policies.updates();
        loop {
            let policies = Arc::clone(&updates.borrow_and_update());
            match self.attempt(&policies, namespace, pod) {
                Err(Undecided::Unseen(unseen)) => {
                    let changed = tokio::time::timeout_at(deadline, updates.changed()).await;
                    if !matches!(changed, Ok(Ok(()))) {
                        return Err(Undecided::Unseen(unseen));
                    }
                }
                decided => return decided,
            }
        }
    }

    /// Decides with these policies. A panic is one review's: what the decision reads it cannot change, so
    /// nothing is left half-done.
    fn attempt(
        &self,
        policies: &PolicySet,
        namespace: &str,
        pod: &Pod<'_>,
    ) -> Result<Decision, Undecided> {
        let decide = || self.decide.decide(policies, namespace, pod);
        match catch_unwind(AssertUnwindSafe(decide)) {
            Ok(decided) => decided.map_err(Undecided::Unseen),
            Err(_) => Err(Undecided::Panic),
        }
    }

    fn record(&self, review: &Review<'_>, decision: &Decision, started: Instant) {
        let Decision {
            filled,
            audited,
            withheld,
            ..
        } = decision;
        self.metrics.filled(filled);
        self.metrics.audited(audited);
        self.metrics.withheld(withheld);
        tracing::debug!(
            uid = &*review.uid,
            namespace = &*review.namespace,
            operation = review.operation.name(),
            dry_run = review.dry_run,
            filled = filled.len(),
            withheld = withheld.len(),
            audited = audited.len(),
            micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            "reviewed"
        );
    }
}
