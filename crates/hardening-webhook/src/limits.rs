//! How much the server takes on, and for how long.

use std::time::Duration;

/// What one client, or all of them together, can ask for. The defaults suit three API servers that each
/// have 200 requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest body, in bytes. An API server takes 3 MiB at most, and an UPDATE carries the object twice.
    pub body: usize,
    /// All bodies in memory at once, in bytes. None may be larger than what the others leave, so a single one must
    /// fit in twice.
    pub buffered: usize,
    /// Reviews in flight.
    pub in_flight: usize,
    /// Open connections to the webhook.
    pub connections: usize,
    /// Open connections to the health and metrics port.
    pub metrics_connections: usize,
    /// The time for a TLS handshake.
    pub handshake: Duration,
    /// The time from the first byte of a request to the end of its head.
    pub header: Duration,
    /// The time for a whole request. Below the 3 s that the API server waits.
    pub request: Duration,
    /// How long a connection is kept without a request. An API server keeps an idle connection for 90 s, and
    /// does not repeat a review that met a connection just being closed: so it must be the one to close it.
    pub idle: Duration,
    /// How long a review waits for a namespace that the watch has not shown yet.
    pub unseen: Duration,
}

/// How the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long it serves on after it has become unready, until nobody sends it reviews any more.
    pub serve_on: Duration,
    /// How long it then waits for answers that are under way.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 7 << 20,
            buffered: 16 << 20,
            in_flight: 1024,
            connections: 2048,
            metrics_connections: 64,
            handshake: Duration::from_secs(5),
            header: Duration::from_secs(5),
            request: Duration::from_millis(2500),
            idle: Duration::from_secs(120),
            unseen: Duration::from_millis(500),
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            serve_on: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}
