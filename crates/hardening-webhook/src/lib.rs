//! The admission webhook: HTTPS, AdmissionReview, certificates, limits, metrics and health.
//!
//! It answers from the [`PolicySet`](hardening_engine::PolicySet) that it is handed over a watch channel, and
//! has no Kubernetes client among its dependencies: that answering a review makes no call is a fact of the
//! build.
//!
//! ```text
//! connection -> router -> body -> handler -> review -> decision (engine) -> answer
//! ```
//!
//! Whatever cannot be decided is an HTTP error, so that the API server's `failurePolicy` decides and its
//! metrics show it; never a quiet "allowed", and never a denial.

pub mod answer;
pub mod decision;
pub mod handler;
pub mod health;
pub mod limits;
pub mod metrics;
pub mod panics;
pub mod policies;
pub mod probes;
pub mod refusal;
pub mod review;
pub mod router;
pub mod server;
pub mod tls;

mod admin;
mod body;
mod callers;
mod cert;
mod connection;
mod envelope;
mod json;
mod listener;
mod log_limit;
mod managed_fields;
mod new_pod;

pub use admin::Admin;
pub use callers::{Callers, CallersError};
pub use cert::{InvalidCertificate, IssueError, ServingCertificate};
pub use decision::{Decide, Engine};
pub use handler::Handler;
pub use health::{Readiness, ReadyCondition};
pub use limits::{Limits, Shutdown};
pub use metrics::Metrics;
pub use policies::Policies;
pub use probes::BoundProbes;
pub use router::{ReviewSpan, Router};
pub use server::{BoundWebhook, CERTIFICATE_INTERVAL, ServeError, Webhook};
pub use tls::{CertificateFiles, Certificates, PemPair, TlsError};
