//! What the index counts, for `/metrics`.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::object::Watched;

type ByResource<M> = Family<[(&'static str, &'static str); 1], M>;

/// The index's metrics. Clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    invalid_policies: Gauge,
    errors: ByResource<Counter>,
    age: ByResource<Gauge>,
}

impl Metrics {
    /// Registers the index's metrics; their names begin with the registry's prefix.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        // Every series is there from the start: a rate over one that appears with its first event would
        // miss that event.
        for watched in Watched::ALL {
            metrics.errors.get_or_create_owned(&label(watched));
            metrics.age.get_or_create_owned(&label(watched));
        }
        registry.register(
            "invalid_policies",
            "Policies whose latest version is invalid; the last good version of each, if it had one, is in force",
            metrics.invalid_policies.clone(),
        );
        registry.register(
            "watch_errors",
            "Failed list and watch requests to the API server",
            metrics.errors.clone(),
        );
        registry.register_with_unit(
            "watch_age",
            "Time since the API server last answered a list or watch request; 0 to 30 where all is well",
            Unit::Seconds,
            metrics.age.clone(),
        );
        metrics
    }

    pub(crate) fn invalid_policies(&self, count: usize) {
        self.invalid_policies
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn error(&self, watched: Watched) {
        self.errors.get_or_create_owned(&label(watched)).inc();
    }

    pub(crate) fn age(&self, watched: Watched, age: Duration) {
        let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        self.age.get_or_create_owned(&label(watched)).set(seconds);
    }
}

fn label(watched: Watched) -> [(&'static str, &'static str); 1] {
    [("resource", watched.resource())]
}
