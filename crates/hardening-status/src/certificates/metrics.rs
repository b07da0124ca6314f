//! What is counted while certificates are kept.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::validity::Validity;

/// The metrics of whoever keeps certificates. Clones count into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    serving: Times,
    ca: Times,
    ca_made: Counter,
    trusted: Counter,
    promoted: Counter,
    issued: Counter,
    /// Attempts that failed.
    pub(super) failures: Counter,
}

/// From when and until when a certificate holds.
#[derive(Clone, Debug)]
struct Times {
    start: Time,
    expiry: Time,
}

type Time = Gauge<f64, AtomicU64>;

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
        let [start, expiry] = [(); 2].map(|()| Family::<[(&str, &str); 1], Time>::default());
        let [serving, ca] = ["serving", "ca"].map(|certificate| {
            let [start, expiry] = [&start, &expiry].map(|family| {
                let gauge = family.get_or_create_owned(&[("certificate", certificate)]);
                // Not known yet, and no reason for an alert.
                gauge.set(f64::NAN);
                gauge
            });
            Times { start, expiry }
        });
        // Under the names by which those who serve with it tell the same.
        registry.register_with_unit(
            "certificate_start_timestamp",
            "When the serving certificate, and the CA it is issued by, began to hold (Unix time; NaN: not known)",
            Unit::Seconds,
            start,
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the serving certificate, and the CA it is issued by, expire (Unix time; NaN: not known)",
            Unit::Seconds,
            expiry,
        );
        let writes = Family::<[(&str, &str); 1], Counter>::default();
        let written = |what: &'static str| writes.get_or_create_owned(&[("what", what)]);
        let metrics = Self {
            serving,
            ca,
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

    /// How long they hold, where there are any.
    pub(super) fn certificates(&self, serving: Option<Validity>, ca: Option<Validity>) {
        self.serving.set(serving);
        self.ca.set(ca);
    }
}

// === impl Times ===

impl Times {
    fn set(&self, validity: Option<Validity>) {
        // Seconds are far from where whole numbers have gaps.
        #[expect(clippy::cast_precision_loss, reason = "see above")]
        let seconds = |time: Option<i64>| time.map_or(f64::NAN, |time| time as f64);
        self.start.set(seconds(validity.map(|it| it.not_before)));
        self.expiry.set(seconds(validity.map(|it| it.not_after)));
    }
}
