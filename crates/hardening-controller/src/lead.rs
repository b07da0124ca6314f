//! What only one `manage` of several does at a time: whoever holds the Lease.

use hardening_api::{ClusterPodHardeningPolicy, PodHardeningPolicy};
use hardening_status::{
    AdditionalConditions, Election, MissedPods, PolicyStatuses, Schedule, Sources,
};
use hardening_webhook::metrics::PREFIX;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, Resource};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::args::LeadArgs;

/// What is needed to lead.
pub(crate) struct Lead {
    client: Client,
    election: Election,
    missed_pods: Option<Schedule>,
    metrics: hardening_status::Metrics,
    index_metrics: hardening_index::Metrics,
    additional: AdditionalConditions,
}

/// The Lease's name, unless the arguments say otherwise.
const LEASE: &str = "pod-hardening-manager";

// === impl Lead ===

impl Lead {
    /// `own_namespace` is where the program runs, if that is in a cluster. What other tasks say of policies
    /// is seen by `additional`.
    pub(crate) fn new(
        args: LeadArgs,
        client: Client,
        own_namespace: Option<String>,
        additional: AdditionalConditions,
        registry: &mut Registry,
    ) -> Self {
        let LeadArgs {
            lease,
            missed_pods_interval: every,
        } = args;
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let metrics = hardening_status::Metrics::register(registry);
        let index_metrics = hardening_index::Metrics::register(registry);
        let (namespace, name) = match lease {
            Some(lease) => (lease.namespace, lease.name),
            None => {
                let default = || client.default_namespace().to_owned();
                (own_namespace.unwrap_or_else(default), LEASE.to_owned())
            }
        };
        // In a pod it is the pod's name.
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "manager".to_owned());
        let election = Election::new(client.clone(), &namespace, &name, &host, metrics.clone());
        Self {
            client,
            election,
            missed_pods: (!every.is_zero()).then_some(Schedule { every }),
            metrics,
            index_metrics,
            additional,
        }
    }

    /// Leads whenever it is this process's turn, until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self {
            client,
            election,
            missed_pods,
            metrics,
            index_metrics,
            additional,
        } = self;
        // None of these has an end of its own.
        let work = || async {
            tokio::select! {
                () = statuses(&client, &metrics, &additional) => {}
                () = missed(&client, missed_pods, &metrics, &index_metrics) => {}
            }
        };
        Ok(election.run(shutdown, work).await?)
    }
}

/// Writes policies' status.
async fn statuses(
    client: &Client,
    metrics: &hardening_status::Metrics,
    additional: &AdditionalConditions,
) {
    let sources = Sources {
        namespaced: hardening_index::events(policies::<PodHardeningPolicy>(client)),
        cluster: hardening_index::events(policies::<ClusterPodHardeningPolicy>(client)),
        namespaces: hardening_index::events(Api::all(client.clone())),
    };
    PolicyStatuses::new(client.clone(), metrics.clone(), additional.clone())
        .run(sources)
        .await;
}

/// Policies as they are, and not as their type: a broken one has a status too.
fn policies<K: Resource<DynamicType = ()>>(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
}

/// Looks for missed pods, if that is wanted.
async fn missed(
    client: &Client,
    schedule: Option<Schedule>,
    metrics: &hardening_status::Metrics,
    index_metrics: &hardening_index::Metrics,
) {
    let Some(schedule) = schedule else {
        return std::future::pending().await;
    };
    let (watch, policies, _) = hardening_index::watch(client, index_metrics.clone());
    let search = MissedPods::new(client.clone(), policies, schedule, metrics.clone());
    tokio::select! {
        () = watch.run() => {}
        () = search.run() => {}
    }
}
