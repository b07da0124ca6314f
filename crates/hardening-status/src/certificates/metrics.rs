//! What is counted while certificates are kept.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The metrics of whoever keeps certificates. Clones count into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    serving_expiry: Expiry,
    ca_expiry: Expiry,
    ca_made: Counter,
    trusted: Counter,
    promoted: Counter,
    issued: Counter,
    /// Attempts that failed.
    pub(super) failures: Counter,
}

type Expiry = Gauge<f64, AtomicU64>;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    NextCa,
    Trust,
    Promotion,
    Certificate,
}

impl Metrics {
    /// Registers the metrics.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let expiry = Family::<[(&str, &str); 1], Expiry>::default();
        let [serving_expiry, ca_expiry] = ["serving", "ca"].map(|certificate| {
            let gauge = expiry.get_or_create_owned(&[("certificate", certificate)]);
            // Not known yet, and no reason for an alert.
            gauge.set(f64::NAN);
            gauge
        });
        // Under the name by which those who serve with it tell the same.
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the serving certificate, and the CA it is issued by, expire (Unix time; NaN: not known)",
            Unit::Seconds,
            expiry,
        );
        let writes = Family::<[(&str, &str); 1], Counter>::default();
        let written = |what: &'static str| writes.get_or_create_owned(&[("what", what)]);
        let metrics = Self {
            serving_expiry,
            ca_expiry,
            ca_made: written("next-ca"),
            trusted: written("ca-bundle"),
            promoted: written("ca"),
            issued: written("certificate"),
            failures: Counter::default(),
        };
        registry.register(
            "certificate_writes",
            "Steps of keeping certificates that this process took: a new CA, trust in it (caBundle), its taking over, a serving certificate",
            writes,
        );
        registry.register(
            "certificate_failures",
            "Attempts to keep certificates that failed; they are repeated",
            metrics.failures.clone(),
        );
        metrics
    }

    pub(super) fn written(&self, what: Written) {
        let counter = match what {
            Written::NextCa => &self.ca_made,
            Written::Trust => &self.trusted,
            Written::Promotion => &self.promoted,
            Written::Certificate => &self.issued,
        };
        counter.inc();
    }

    /// When they expire, as Unix time.
    pub(super) fn expiry(&self, serving: Option<i64>, ca: Option<i64>) {
        // Seconds are far from where whole numbers have gaps.
        #[expect(clippy::cast_precision_loss, reason = "see above")]
        let seconds = |expiry: Option<i64>| expiry.map_or(f64::NAN, |expiry| expiry as f64);
        self.serving_expiry.set(seconds(serving));
        self.ca_expiry.set(seconds(ca));
    }
}
