//! The pure core: policies and a pod in, a plan and a JSON Patch out.
//!
//! No I/O, no clock, no logging, nothing asynchronous; and planning cannot fail.
//!
//! ```
//! use hardening_engine::{Pod, Policy, PolicySet, UnknownNamespaces, plan};
//!
//! let policy = serde_json::from_str(r#"{
//!     "apiVersion": "podhardening.dev/v1alpha1",
//!     "kind": "PodHardeningPolicy",
//!     "metadata": {"name": "no-root", "namespace": "shop"},
//!     "spec": {"pod": {"securityContext": {"runAsNonRoot": true}}}
//! }"#)?;
//! let mut policies = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
//! policies.insert_policy(Policy::namespaced(&policy)?);
//!
//! let pod = Pod::from_json(r#"{"metadata": {"annotations": {}}, "spec": {"containers": [{"name": "app"}]}}"#)?;
//! let matching = policies.matching("shop", &pod)?;
//! let plan = plan(&matching, &pod);
//!
//! let patch = serde_json::to_value(plan.to_patch())?;
//! assert_eq!(patch[0]["path"], "/spec/securityContext");
//! assert_eq!(patch[0]["value"]["runAsNonRoot"], true);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start reading at [`plan()`], then one field of the table in [`FIELDS`].

mod annotations;
pub mod cel;
mod check;
mod defaults;
mod field;
mod fill;
mod guard;
mod json;
mod kubernetes;
mod offer;
pub mod overlap;
mod patch;
mod plan;
mod pod;
pub mod pod_template;
mod policy;
mod policy_set;
pub mod profile;
mod record;
pub mod running;
mod selector;
mod state;
mod token;
mod write;

pub use field::{FIELDS, Field, FieldRow, Shape};
pub use guard::Guard;
pub use kubernetes::{InvalidKubernetesVersion, KubernetesVersion};
pub use offer::{Mismatch, Precedence};
pub use plan::{Fill, Plan, Target, Withheld, plan};
pub use pod::{InvalidPod, Pod};
pub use policy::{InvalidPolicy, Policy, PolicyKey, PolicyRef};
pub use policy_set::{Matching, PolicySet, UnknownNamespaces, Unseen};
pub use record::{FILLED, Records, WITHHELD};
pub use write::write_string;
