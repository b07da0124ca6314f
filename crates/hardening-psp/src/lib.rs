//! PodSecurityPolicy as it was, and what takes its place.
//!
//! - [`PodSecurityPolicy`] is the resource as it was typed, [`Policy`] what it meant.
//! - [`Policy::mutate`] and [`Policy::validate`] do to a pod what Kubernetes 1.24 did. Tests hold both against
//!   1.24's own code, on generated policies and pods.
//! - [`modernise`] turns what 1.24 wrote as annotations into the fields that replaced them.
//!
//! No I/O, no clock, no logging, nothing asynchronous.

mod app_armor;
#[cfg(feature = "testing")]
pub mod generate;
mod legacy;
mod mutate;
mod pod;
mod policy;
pub mod psp;
mod seccomp;
mod validate;
mod volumes;

pub use legacy::modernise;
pub use pod::InvalidPod;
pub use policy::{Policy, Unusable};
pub use psp::{InvalidPsp, PodSecurityPolicy};
pub use validate::{Denial, DenialType};
