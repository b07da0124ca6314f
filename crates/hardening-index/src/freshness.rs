//! How fresh what is known is.
//!
//! A watch on which nothing happens looks like one that is dead. So the server is asked to end each watch
//! after [`WATCH_TIMEOUT`], and a new one is begun: every answer to a list or watch request is a sign of
//! life, and there is one at least that often. Without one for a minute readiness ends.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;
use tower::service_fn;

/// How long the server keeps a watch. A connection that died without a word is noticed five seconds
/// later, and a list that stalls after [`READ_TIMEOUT`].
pub(crate) const WATCH_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest silence on a connection while an answer is awaited: above what an idle watch has.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(40);

/// How long a connection may take to be made.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long nothing may be heard before what is known counts as stale.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(60);

/// Replicas that lost the same API server at the same moment become unready one after the other, and not
/// all at once for a blip that is about to pass.
const JITTER: Duration = Duration::from_secs(15);

/// When the API server last answered. Clones are the same clock.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    base: Instant,
    /// Milliseconds from `base`.
    touched: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that was touched just now.
    pub(crate) fn new() -> Self {
        Self {
            base: Instant::now(),
            touched: Arc::default(),
        }
    }

    pub(crate) fn touch(&self) {
        let millis = self.base.elapsed().as_millis();
        self.touched
            .store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When it was touched last.
    pub(crate) fn touched(&self) -> Instant {
        self.base + Duration::from_millis(self.touched.load(Ordering::Relaxed))
    }

    /// A client whose successful requests touch the clock.
    pub(crate) fn client(&self, client: &Client) -> Client {
        let (clock, inner) = (self.clone(), client.clone());
        let service = service_fn(move |request| {
            let (clock, inner) = (clock.clone(), inner.clone());
            async move {
                let response = inner.send(request).await?;
                if response.status().is_success() {
                    clock.touch();
                }
                Ok::<_, kube::Error>(response)
            }
        });
        Client::new(service, client.default_namespace())
    }
}

/// [`STALE_AFTER`], and something that differs from process to process.
pub(crate) fn stale_after() -> Duration {
    let random = RandomState::new().build_hasher().finish();
    let jitter = u64::try_from(JITTER.as_millis()).unwrap_or(u64::MAX);
    STALE_AFTER + Duration::from_millis(random % jitter)
}
