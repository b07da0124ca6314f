//! The certificates of `--tls self-managed`: a CA and a serving certificate in two Secrets, and the API
//! servers' trust in them.
//!
//! - [`Keeper`] makes and renews them, in the program that writes: [`step`] says what is next;
//! - [`ServingSecret`] reads the serving certificate, in the program that serves.
//!
//! The key of the CA is in a Secret that what serves need not be able to read.

mod authority;
mod error_text;
mod follow;
mod keeper;
mod metrics;
mod step;
mod stored;
mod trigger;
mod trust;
mod validity;

pub use authority::{CertificateError, ServingPair};
pub use follow::ServingSecret;
pub use keeper::{Keeper, Settings, State};
pub use metrics::Metrics;
pub use stored::LABEL;
