//! What the webhook counts, for `/metrics`.
//!
//! Every label's values are known beforehand, so the number of series is fixed however many pods, namespaces
//! and policies there are, nothing of a pod can get into a label, and counting takes no lock. Every series
//! is there from the start: a rate over one that appears with its first event would miss that event.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hardening_engine::{FIELDS, Field, Guard, PolicySet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::cert::Validity;

/// The prefix of every metric's name.
pub const PREFIX: &str = "podhardening";

/// How a review ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Allowed, with a patch.
    Patched,
    /// Allowed as it is: no policy had anything to add.
    Unchanged,
    /// Allowed as it is: not a request that policies are for (an UPDATE or DELETE of a pod, for instance).
    NotApplicable,
    /// Answered with an HTTP error because the request was bad.
    Refused,
    /// Answered with an HTTP error because no decision could be made; the API server's `failurePolicy`
    /// decided.
    Failed,
}

impl Outcome {
    const ALL: [Self; 5] = [
        Self::Patched,
        Self::Unchanged,
        Self::NotApplicable,
        Self::Refused,
        Self::Failed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Patched => "patched",
            Self::Unchanged => "unchanged",
            Self::NotApplicable => "not-applicable",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Why a review was answered with an HTTP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not an HTTP request that this server serves: path, method, or headers.
    Http,
    /// A body beyond the limit.
    TooLarge,
    /// A body that broke off.
    Body,
    /// A body that is not an AdmissionReview of a pod.
    Review,
    /// A pod that could not be read.
    Pod,
    /// A namespace or service account that the watch did not show in time.
    Unseen,
    /// A body that did not arrive in time.
    Deadline,
    /// More requests at once than the limit.
    Overload,
    /// A defect of this program.
    Panic,
}

impl ErrorKind {
    const ALL: [Self; 9] = [
        Self::Http,
        Self::TooLarge,
        Self::Body,
        Self::Review,
        Self::Pod,
        Self::Unseen,
        Self::Deadline,
        Self::Overload,
        Self::Panic,
    ];

    /// The kind's name, in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::TooLarge => "too-large",
            Self::Body => "body",
            Self::Review => "review",
            Self::Pod => "pod",
            Self::Unseen => "unseen",
            Self::Deadline => "deadline",
            Self::Overload => "overload",
            Self::Panic => "panic",
        }
    }
}

/// Why a connection was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionError {
    /// The TLS handshake failed.
    Handshake,
    /// The caller showed no certificate, or none that is allowed to call.
    ClientCertificate,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// The head of a request took too long.
    HeaderTimeout,
    /// The connection broke, or the peer did not speak HTTP.
    Broken,
    /// A defect of this program.
    Panic,
}

impl ConnectionError {
    const ALL: [Self; 6] = [
        Self::Handshake,
        Self::ClientCertificate,
        Self::HandshakeTimeout,
        Self::HeaderTimeout,
        Self::Broken,
        Self::Panic,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::ClientCertificate => "client-certificate",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::HeaderTimeout => "header-timeout",
            Self::Broken => "broken",
            Self::Panic => "panic",
        }
    }
}

/// What came of looking for a new certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    Loaded,
    Refused,
}

/// The webhook's metrics. Clones count into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    reviews: Counters<Outcome>,
    errors: Counters<ErrorKind>,
    fills: Counters<Field>,
    audited_fills: Counters<Field>,
    withheld: Counters<Guard>,
    duration: Histogram,
    /// Reviews being answered now.
    pub(crate) in_flight: Gauge,
    /// Connections to the webhook open now.
    pub(crate) connections: Gauge,
    connection_errors: Counters<ConnectionError>,
    policies: Gauge,
    namespaces: Gauge,
    serving: Times,
    ca: Times,
    certificate_reloads: Counters<Reload>,
}

/// From when and until when a certificate holds.
#[derive(Clone, Debug)]
struct Times {
    start: Time,
    expiry: Time,
}

type Time = Gauge<f64, AtomicU64>;

/// Counters of one name, one for each value of its label.
struct Counters<K>(Arc<[(K, Counter)]>);

/// Registers the metric that tells which version is running, which every program of the product shows.
pub fn register_build(registry: &mut Registry, version: &'static str) {
    registry.sub_registry_with_prefix(PREFIX).register(
        "build",
        "The version that is running",
        Info::new([("version", version)]),
    );
}

// === impl Metrics ===

/// From a no-op to the deadline: a review takes tens of microseconds.
const DURATION_BUCKETS: [f64; 12] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.5, 2.5,
];

impl Metrics {
    /// Registers the webhook's metrics.
    #[must_use]
    pub fn register(registry: &mut Registry, version: &'static str) -> Self {
        register_build(registry, version);
        let registry = registry.sub_registry_with_prefix(PREFIX);
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

        let fields = || FIELDS.iter().map(|row| (row.field, row.field.name()));
        let metrics = Self {
            reviews: Counters::register(
                registry,
                "reviews",
                "Reviews by how they ended",
                "outcome",
                Outcome::ALL.map(|outcome| (outcome, outcome.name())),
            ),
            errors: Counters::register(
                registry,
                "errors",
                "Reviews that were answered with an HTTP error",
                "kind",
                ErrorKind::ALL.map(|kind| (kind, kind.name())),
            ),
            fills: Counters::register(registry, "fills", "Values filled in", "field", fields()),
            audited_fills: Counters::register(
                registry,
                "audited_fills",
                "Values that policies in Audit mode would have filled in",
                "field",
                fields(),
            ),
            withheld: Counters::register(
                registry,
                "withheld",
                "Values held back because they would have broken the pod",
                "guard",
                Guard::ALL.map(|guard| (guard, guard.name())),
            ),
            duration: Histogram::new(DURATION_BUCKETS),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            connection_errors: Counters::register(
                registry,
                "connection_errors",
                "Connections to the webhook that were given up",
                "reason",
                ConnectionError::ALL.map(|error| (error, error.name())),
            ),
            policies: Gauge::default(),
            namespaces: Gauge::default(),
            serving,
            ca,
            certificate_reloads: Counters::register(
                registry,
                "certificate_reloads",
                "Changed serving certificates, and CAs of callers, that were taken into use, or refused",
                "result",
                [(Reload::Loaded, "loaded"), (Reload::Refused, "refused")],
            ),
        };
        metrics.register_gauges(registry);
        metrics
    }

    fn register_gauges(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "review_duration",
            "Time from a request's head to its answer",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "reviews_in_flight",
            "Reviews being answered",
            self.in_flight.clone(),
        );
        registry.register(
            "connections",
            "Open connections to the webhook",
            self.connections.clone(),
        );
        registry.register("policies", "Policies in force", self.policies.clone());
        registry.register("namespaces", "Namespaces known", self.namespaces.clone());
    }

    pub(crate) fn reviewed(&self, outcome: Outcome, took: Duration) {
        self.reviews.inc(outcome);
        self.duration.observe(took.as_secs_f64());
    }

    pub(crate) fn error(&self, kind: ErrorKind) {
        self.errors.inc(kind);
    }

    pub(crate) fn filled(&self, fields: &[Field]) {
        fields.iter().for_each(|field| self.fills.inc(*field));
    }

    pub(crate) fn audited(&self, fields: &[Field]) {
        fields
            .iter()
            .for_each(|field| self.audited_fills.inc(*field));
    }

    pub(crate) fn withheld(&self, guards: &[Guard]) {
        guards.iter().for_each(|guard| self.withheld.inc(*guard));
    }

    pub(crate) fn connection_error(&self, error: ConnectionError) {
        self.connection_errors.inc(error);
    }

    pub(crate) fn policies(&self, policies: &PolicySet) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.policies.set(count(policies.policy_count()));
        self.namespaces.set(count(policies.namespace_count()));
    }

    /// How long the serving certificate and its CA hold.
    pub(crate) fn certificate(&self, serving: Validity, ca: Option<Validity>) {
        self.serving.set(Some(serving));
        self.ca.set(ca);
    }

    pub(crate) fn certificate_reload(&self, reload: Reload) {
        self.certificate_reloads.inc(reload);
    }
}

// === impl Raised ===

/// Holds a gauge one higher than it was, and lets it down again whatever ends the holder, a cancelled task
/// included.
#[derive(Debug)]
pub(crate) struct Raised(Gauge);

impl Raised {
    /// With what the gauge showed before.
    pub(crate) fn by_one(gauge: &Gauge) -> (Self, i64) {
        (Self(gauge.clone()), gauge.inc())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.dec();
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

// === impl Counters ===

impl<K: Copy + PartialEq> Counters<K> {
    fn register(
        registry: &mut Registry,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (K, &'static str)>,
    ) -> Self {
        let family = Family::<[(&'static str, &'static str); 1], Counter>::default();
        let counter = |(key, value)| (key, family.get_or_create_owned(&[(label, value)]));
        let counters = values.into_iter().map(counter).collect();
        registry.register(name, help, family);
        Self(counters)
    }

    fn inc(&self, key: K) {
        if let Some((_, counter)) = self.0.iter().find(|(k, _)| *k == key) {
            counter.inc();
        }
    }
}

impl<K> Clone for Counters<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: fmt::Debug> fmt::Debug for Counters<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.0.iter().map(|(key, counter)| (key, counter.get()));
        f.debug_map().entries(values).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn page(registry: &Registry) -> String {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, registry).unwrap();
        page
    }

    #[test]
    fn every_series_is_there_before_the_first_event() {
        let mut registry = Registry::default();
        let _metrics = Metrics::register(&mut registry, "1.2.3");
        let page = page(&registry);
        for series in [
            "podhardening_reviews_total{outcome=\"patched\"} 0",
            "podhardening_errors_total{kind=\"panic\"} 0",
            "podhardening_fills_total{field=\"capabilities.drop\"} 0",
            "podhardening_withheld_total{guard=\"runs-as-root\"} 0",
            "podhardening_connection_errors_total{reason=\"handshake\"} 0",
            "podhardening_review_duration_seconds_count 0",
            "podhardening_reviews_in_flight 0",
            "podhardening_certificate_start_timestamp_seconds{certificate=\"serving\"} NaN",
            "podhardening_certificate_expiry_timestamp_seconds{certificate=\"serving\"} NaN",
            "podhardening_certificate_expiry_timestamp_seconds{certificate=\"ca\"} NaN",
            "podhardening_build_info{version=\"1.2.3\"} 1",
        ] {
            assert!(page.lines().any(|line| line == series), "{series}\n{page}");
        }
    }

    #[test]
    fn each_event_counts_into_its_own_series_and_adds_none() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, "1.2.3");
        let names = |page: &str| -> BTreeSet<String> {
            page.lines()
                .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
                .collect()
        };
        let before = page(&registry);
        Outcome::ALL
            .iter()
            .for_each(|outcome| metrics.reviewed(*outcome, Duration::from_micros(40)));
        ErrorKind::ALL.iter().for_each(|kind| metrics.error(*kind));
        ConnectionError::ALL
            .iter()
            .for_each(|error| metrics.connection_error(*error));
        let fields: Vec<Field> = FIELDS.iter().map(|row| row.field).collect();
        metrics.filled(&fields);
        metrics.audited(&fields);
        metrics.withheld(&Guard::ALL);
        let validity = Validity {
            not_before: 1,
            not_after: 2,
        };
        metrics.certificate(validity, Some(validity));
        let after = page(&registry);
        assert_eq!(names(&before), names(&after));
        let untouched: Vec<&str> = after
            .lines()
            .filter(|line| {
                line.contains("_total{") && !line.contains("certificate") && line.ends_with(" 0")
            })
            .collect();
        assert!(untouched.is_empty(), "{untouched:?}");
    }
}
