//! The custom resources of Pod Hardening for Kubernetes.
//!
//! - [`PodHardeningPolicy`] (namespaced) gives defaults to the pods of its namespace,
//! - [`ClusterPodHardeningPolicy`] to the pods of the namespaces it selects.
//!
//! Types, schema and rules, and nothing else: no client, no I/O. What a policy *means* for a pod is
//! `hardening-engine`'s business.
//!
//! The schema is derived from the types, and the rules that a type cannot express stand in one table
//! ([`rules`]), each as CEL for the API server and as Rust for everyone who reads policies from files.
//! [`violations`] applies both to an object that no API server has seen.

pub mod crd;
pub mod policy;
pub mod rules;
pub mod status;
mod structural;

pub use crd::{PolicyKind, crds};
pub use policy::{
    ClusterPodHardeningPolicy, ClusterPodHardeningPolicySpec, PodHardeningPolicy,
    PodHardeningPolicySpec,
};
pub use structural::{Violation, violations};

/// The API group of both kinds.
pub const GROUP: &str = "podhardening.dev";
/// The one version of [`GROUP`].
pub const VERSION: &str = "v1alpha1";
/// [`GROUP`] and [`VERSION`] as an object's `apiVersion` spells them.
pub const API_VERSION: &str = "podhardening.dev/v1alpha1";
