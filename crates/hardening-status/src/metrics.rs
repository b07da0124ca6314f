//! What is counted, for `/metrics`.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::missed::{OTHERS, Why};

/// What this crate counts. Clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    leading: Gauge,
    writes: Family<[(&'static str, &'static str); 1], Counter>,
    pending: Gauge,
    compiled: Gauge,
    passes: Family<[(&'static str, &'static str); 1], Counter>,
    missed: Family<[(&'static str, String); 2], Gauge>,
    scanned: Gauge,
    unreadable: Gauge,
    scan_time: Gauge<f64, std::sync::atomic::AtomicU64>,
    last_scan: Gauge,
    scans: Family<[(&'static str, &'static str); 1], Counter>,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed,
}

const OUTCOMES: [Outcome; 2] = [Outcome::Done, Outcome::Failed];

// === impl Metrics ===

impl Metrics {
    /// Registers the metrics; their names begin with the registry's prefix.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        // Every series is there from the start: a rate over one that appears with its first event would
        // miss that event.
        for outcome in OUTCOMES {
            metrics.writes.get_or_create_owned(&label(outcome));
            metrics.scans.get_or_create_owned(&label(outcome));
            metrics.passes.get_or_create_owned(&label(outcome));
        }
        metrics.none_missed();
        registry.register(
            "leading",
            "1 where this process is the one that writes status and looks for missed pods",
            metrics.leading.clone(),
        );
        registry.register(
            "status_writes",
            "Writes of policies' status",
            metrics.writes.clone(),
        );
        registry.register(
            "status_pending",
            "Policies whose status is still to be looked at",
            metrics.pending.clone(),
        );
        registry.register(
            "compiled_policies",
            "MutatingAdmissionPolicies that the policies compile to",
            metrics.compiled.clone(),
        );
        registry.register(
            "compiled_passes",
            "Passes in which the cluster was made to have what the policies compile to",
            metrics.passes.clone(),
        );
        registry.register(
            "missed_pods",
            "Running pods that lack what today's policies would fill in, by namespace and by why they lack it",
            metrics.missed.clone(),
        );
        registry.register(
            "missed_pods_scans",
            "Scans for missed pods",
            metrics.scans.clone(),
        );
        registry.register(
            "missed_pods_scanned",
            "Pods that the last scan looked at",
            metrics.scanned.clone(),
        );
        registry.register(
            "missed_pods_unreadable",
            "Pods that the last scan could not judge",
            metrics.unreadable.clone(),
        );
        registry.register_with_unit(
            "missed_pods_scan_duration",
            "How long the last scan took",
            Unit::Seconds,
            metrics.scan_time.clone(),
        );
        registry.register_with_unit(
            "missed_pods_last_scan_timestamp",
            "When the last scan that saw all pods ended, in seconds since 1970; 0: none did yet",
            Unit::Seconds,
            metrics.last_scan.clone(),
        );
        metrics
    }

    pub(crate) fn leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
        if !leading {
            // What another process finds from now on is its to tell.
            self.none_missed();
            self.pending.set(0);
            self.compiled.set(0);
        }
    }

    pub(crate) fn wrote(&self, outcome: Outcome) {
        self.writes.get_or_create_owned(&label(outcome)).inc();
    }

    pub(crate) fn pending(&self, count: usize) {
        self.pending.set(number(count));
    }

    /// The policies compile to so many objects, and they are all in the cluster or not.
    pub(crate) fn compiled(&self, objects: usize, are_all_there: bool) {
        self.compiled.set(number(objects));
        let outcome = match are_all_there {
            true => Outcome::Done,
            false => Outcome::Failed,
        };
        self.passes.get_or_create_owned(&label(outcome)).inc();
    }

    /// No pod lacks anything: only the namespace that stands for all others has its series then.
    fn none_missed(&self) {
        self.missed.clear();
        for why in Why::ALL {
            self.missed.get_or_create_owned(&series(OTHERS, why.name()));
        }
    }

    pub(crate) fn scan_failed(&self) {
        self.scans
            .get_or_create_owned(&label(Outcome::Failed))
            .inc();
    }

    /// A scan saw all pods. `missed` is by namespace and reason.
    pub(crate) fn scanned<'a>(
        &self,
        missed: impl Iterator<Item = (&'a str, &'static str, usize)>,
        (pods, unreadable): (usize, usize),
        took: Duration,
        at: i64,
    ) {
        self.missed.clear();
        for (namespace, reason, count) in missed {
            let series = series(namespace, reason);
            self.missed.get_or_create_owned(&series).set(number(count));
        }
        self.scans.get_or_create_owned(&label(Outcome::Done)).inc();
        self.scanned.set(number(pods));
        self.unreadable.set(number(unreadable));
        self.scan_time.set(took.as_secs_f64());
        self.last_scan.set(at);
    }
}

/// The labels of missed pods.
fn series(namespace: &str, reason: &str) -> [(&'static str, String); 2] {
    [
        ("namespace", namespace.to_owned()),
        ("reason", reason.to_owned()),
    ]
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn label(outcome: Outcome) -> [(&'static str, &'static str); 1] {
    let result = match outcome {
        Outcome::Done => "done",
        Outcome::Failed => "failed",
    };
    [("result", result)]
}
