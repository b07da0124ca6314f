//! PodSecurityPolicy as it was, and what takes its place.
//!
//! - [`PodSecurityPolicy`] is the resource as it was typed, [`Policy`] what it meant.
//! - [`Policy::mutate`] and [`Policy::validate`] do to a pod what Kubernetes 1.24 did. Tests hold both against
//!   1.24's own code, on generated policies and pods.
//! - [`convert()`] makes hardening policies of a PSP's defaults, and notes of what they cannot say.
//! - [`deny()`] makes a ValidatingAdmissionPolicy of what PSPs denied; [`Policy::denials_today`] is the same in
//!   Rust.
//! - [`Policy::standing`] says which Pod Security Standard a PSP is as strict as, and what stands in the way of more.
//! - [`grants()`] works out who could use which PSP, and [`migrate()`] does all of it for a whole cluster.
//! - [`Migration::judge`] is what 1.24 made of a new pod, [`differences`] where a hardened pod is not the same.
//! - [`modernise`] turns what 1.24 wrote as annotations into the fields that replaced them.
//!
//! No I/O, no clock, no logging, nothing asynchronous.

mod app_armor;
mod capability;
mod check;
pub mod convert;
mod created;
pub mod deny;
pub mod gap;
#[cfg(feature = "testing")]
pub mod generate;
mod lax;
mod legacy;
pub mod level;
pub mod migrate;
mod mutate;
pub mod note;
mod pod;
mod policy;
pub mod psp;
pub mod rbac;
mod remarks;
pub mod replay;
pub mod scope;
mod seccomp;
mod today;
mod validate;
mod volumes;

pub use convert::{Conversion, HardeningPolicy, Refused, Target, convert};
pub use created::as_created;
pub use deny::{Action, Candidate, deny};
pub use gap::{Gap, gaps};
pub use legacy::modernise;
pub use level::{Level, Obstacle, Standing};
pub use migrate::{Input, Migration, migrate};
pub use note::Note;
pub use pod::InvalidPod;
pub use policy::{Policy, Unusable};
pub use psp::{InvalidPsp, PodSecurityPolicy};
pub use rbac::{Grant, Grantee, Grants, grants};
pub use replay::{Denials, Difference, Judgement, differences};
pub use scope::{Names, PodScope, Requesters};
pub use validate::{Denial, DenialType};
