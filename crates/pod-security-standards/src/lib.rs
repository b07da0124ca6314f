//! Kubernetes' Pod Security Standards, as its API server holds pods against them.
//!
#![doc = include_str!("../README.md")]

mod check;
mod checks;
mod evaluation;
mod json;
mod level;
mod offenders;
mod pod;
mod text;
mod version;

pub use checks::kernel::baseline_sysctls;
pub use checks::privileges::BASELINE_CAPABILITIES;
pub use checks::profiles::baseline_se_linux_types;

pub use check::{CHECKS, Check, CheckId, Exemption};
pub use evaluation::{Allowed, Evaluation, FieldViolation, Standing, Violation};
pub use evaluation::{evaluate, standing};
pub use level::{InvalidLevel, Level};
pub use pod::{InvalidPod, Pod};
pub use version::{InvalidVersion, Version};
