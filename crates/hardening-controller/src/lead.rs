//! What only one `manage` of several does at a time: whoever holds the Lease.

use anyhow::bail;
use hardening_api::{ClusterPodHardeningPolicy, PodHardeningPolicy};
use hardening_compile::{LOWEST_VERSION, Options};
use hardening_status::{
    AdditionalConditions, Additions, CompiledPolicies, Election, MissedPods, PolicyStatuses,
    Schedule, Sources,
};
use hardening_webhook::metrics::PREFIX;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, Resource};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::args::LeadArgs;

/// What is needed to lead.
pub(crate) struct Lead {
    election: Election,
    work: Work,
}

/// What is done by whoever leads.
struct Work {
    client: Client,
    missed_pods: Option<Schedule>,
    compiled: Option<Options>,
    metrics: hardening_status::Metrics,
    index_metrics: hardening_index::Metrics,
    /// What is said of policies beside what [`PolicyStatuses`] says, and where that is seen.
    additional: (Additions, AdditionalConditions),
}

/// The Lease's name, unless the arguments say otherwise.
const LEASE: &str = "pod-hardening-manager";

// === impl Lead ===

impl Lead {
    /// `own_namespace` is where the program runs, if that is in a cluster.
    pub(crate) fn new(
        args: LeadArgs,
        client: Client,
        own_namespace: Option<String>,
        registry: &mut Registry,
    ) -> Self {
        let LeadArgs {
            lease,
            missed_pods_interval: every,
            compiled,
        } = args;
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let metrics = hardening_status::Metrics::register(registry);
        let index_metrics = hardening_index::Metrics::register(registry);
        let compiled = compiled.options(own_namespace.as_deref());
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
        let work = Work {
            client,
            missed_pods: (!every.is_zero()).then_some(Schedule { every }),
            compiled,
            metrics,
            index_metrics,
            additional: hardening_status::additional_conditions(),
        };
        Self { election, work }
    }

    /// Leads whenever it is this process's turn, until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { election, work } = self;
        match shutdown.run_until_cancelled(work.check()).await {
            Some(checked) => checked?,
            None => return Ok(()),
        }
        Ok(election.run(shutdown, || work.run()).await?)
    }
}

// === impl Work ===

impl Work {
    /// Whether this cluster can do what is asked of it.
    async fn check(&self) -> anyhow::Result<()> {
        if self.compiled.is_none() {
            return Ok(());
        }
        match hardening_index::server_version(&self.client).await {
            Some(version) if version < LOWEST_VERSION => bail!(
                "--compile needs Kubernetes {LOWEST_VERSION} or later, and the API server is {version}"
            ),
            Some(_) | None => Ok(()),
        }
    }

    /// Works, for as long as it is polled. None of its parts has an end of its own.
    async fn run(&self) {
        tokio::select! {
            () = self.write_statuses() => {}
            () = self.follow_policies() => {}
        }
    }

    /// Writes policies' status.
    async fn write_statuses(&self) {
        let client = &self.client;
        let sources = Sources {
            namespaced: hardening_index::events(policies::<PodHardeningPolicy>(client)),
            cluster: hardening_index::events(policies::<ClusterPodHardeningPolicy>(client)),
            namespaces: hardening_index::events(Api::all(client.clone())),
        };
        let (_, additional) = &self.additional;
        PolicyStatuses::new(client.clone(), self.metrics.clone(), additional.clone())
            .run(sources)
            .await;
    }

    /// Does what is done by the policies that are in force: looks for missed pods, and keeps what they compile to
    /// applied, as far as that is wanted.
    async fn follow_policies(&self) {
        let (additions, _) = &self.additional;
        if self.compiled.is_none() {
            // Nobody says more of policies.
            additions.set([]);
        }
        if self.missed_pods.is_none() && self.compiled.is_none() {
            return std::future::pending().await;
        }
        let client = &self.client;
        let (watch, policies, _) = hardening_index::watch(client, self.index_metrics.clone());
        let missed = self.missed_pods.map(|schedule| {
            MissedPods::new(
                client.clone(),
                policies.clone(),
                schedule,
                self.metrics.clone(),
            )
        });
        let compiled = self.compiled.clone().map(|options| {
            let (additions, metrics) = (additions.clone(), self.metrics.clone());
            CompiledPolicies::new(client, policies, options, additions, metrics)
        });
        tokio::select! {
            () = watch.run() => {}
            () = if_wanted(missed.as_ref().map(MissedPods::run)) => {}
            () = if_wanted(compiled.as_ref().map(CompiledPolicies::run)) => {}
        }
    }
}

/// Works, if that is wanted; without work it never ends.
async fn if_wanted(work: Option<impl Future<Output = ()>>) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// Policies as they are, and not as their type: a broken one has a status too.
fn policies<K: Resource<DynamicType = ()>>(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
}
