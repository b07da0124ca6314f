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

pub use compiled::CompiledPolicies;
pub use condition::{Judgement, Truth};
pub use lease::{Election, ElectionError};
pub use metrics::Metrics;
pub use missed::{MissedPods, Schedule};
pub use policies::{
    AdditionalConditions, Additions, Events, PolicyStatuses, Sources, additional_conditions,
};
