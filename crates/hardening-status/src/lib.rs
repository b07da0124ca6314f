//! What is written into the cluster: policies' status, the certificates that the replicas share, reports of
//! pods that were missed. Answering reviews needs none of it.
//!
//! [`certificates`] are kept by every process. What only one may do at a time runs in the [`Election`] that it
//! takes part in:
//!
//! - [`PolicyStatuses`] writes what is said of each policy into its status;
//! - [`CompiledPolicies`] keeps what they compile to applied;
//! - [`MissedPods`] looks for pods that lack what today's policies would fill in.

pub mod certificates;
mod compiled;
mod condition;
mod error;
mod lease;
mod metrics;
mod missed;
mod policies;
mod state;

use std::sync::Arc;

use hardening_engine::PolicySet;
use tokio::sync::watch;

pub use compiled::CompiledPolicies;
pub use condition::{Judgement, Truth};
pub use lease::{Election, ElectionError};
pub use metrics::Metrics;
pub use missed::{MissedPods, Schedule};
pub use policies::{
    AdditionalConditions, Additions, Events, PolicyStatuses, Sources, additional_conditions,
};

/// Waits until the policies of the cluster are known; whether they are, as whoever publishes them may have ended.
async fn are_known(policies: &mut watch::Receiver<Arc<PolicySet>>) -> bool {
    // Every cluster has namespaces, and a set is published once everything was listed.
    let is_known = |set: &Arc<PolicySet>| set.namespace_count() > 0;
    policies.wait_for(is_known).await.is_ok()
}
