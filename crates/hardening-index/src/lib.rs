//! The cluster as far as decisions need it: policies, namespaces' labels, what service accounts say about
//! their token, RuntimeClasses, and the API server's version, kept in memory and published as
//! [`PolicySet`](hardening_engine::PolicySet)s that never change.
//!
//! - [`PolicyIndex`] is the one writer: synchronous, without a client, driven by changes;
//! - [`watch()`] drives it with the API server's watches, and says whether what it knows is fresh;
//! - [`events()`] is any other resource's watch, for whoever keeps something else of it.
//!
//! Readers hold a `tokio::sync::watch::Receiver<Arc<PolicySet>>` and take no lock that is held over work.

mod freshness;
mod index;
mod metrics;
mod object;
mod stream;
mod version;
mod watch;

pub use index::PolicyIndex;
pub use metrics::Metrics;
pub use object::{Key, Object, Watched};
pub use stream::events;
pub use version::server_version;
pub use watch::{PolicyWatch, Status, client, watch};
