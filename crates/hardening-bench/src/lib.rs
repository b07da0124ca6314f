//! What the benches share, so that instructions and time are those of the same work: pods of three
//! sizes as an API server sends them, the policy that fills them in, and the handler that answers.

mod review;

pub mod audit;
pub mod cluster;
pub mod contender;
pub mod load;
pub mod plot;
pub mod report;
pub mod scale;
pub mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hardening_engine::{Policy, PolicySet, UnknownNamespaces};
use hardening_webhook::{Decide, Handler, Metrics, Policies};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use review::{Size, Written, pod, review};

/// How long a program or an API server may take to do what it was just told.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The namespace of every pod here.
pub const NAMESPACE: &str = "shop";

/// One policy for the whole cluster, that sets what most do: the profile Restricted, a user and a group.
#[must_use]
pub fn policy() -> Value {
    json!({
        "apiVersion": "podhardening.dev/v1alpha1",
        "kind": "ClusterPodHardeningPolicy",
        "metadata": {"name": "baseline", "generation": 7},
        "spec": {
            "profile": "Restricted",
            "pod": {"securityContext": {"runAsUser": 10_001, "fsGroup": 10_001}},
        },
    })
}

/// The policies in force, with the namespace and the service account of every pod here.
///
/// # Errors
///
/// Where the policy is no policy any more, because the API has changed.
pub fn policies() -> Result<PolicySet> {
    let baseline = serde_json::from_value(policy()).context("read the policy")?;
    let mut policies = PolicySet::new(UnknownNamespaces::NotYetSeen);
    policies.know_all_runtime_classes();
    policies.insert_policy(Policy::cluster(&baseline)?);
    policies.insert_namespace(NAMESPACE, &BTreeMap::new());
    policies.insert_service_account(NAMESPACE, "default", None);
    Ok(policies)
}

/// All of the webhook but its connections: a body in, a body out, decided by `decide`.
///
/// # Errors
///
/// As [`policies`].
pub fn handler(decide: Arc<dyn Decide>) -> Result<Handler> {
    let (_, receiver) = watch::channel(Arc::new(policies()?));
    let metrics = Metrics::register(&mut Registry::default(), "bench");
    let patience = Duration::from_millis(500);
    Ok(Handler::new(
        Policies::new(receiver),
        decide,
        metrics,
        patience,
    ))
}

/// Waits until the program is `what`, as `met` tells, which is asked every `poll`.
///
/// # Errors
///
/// As `met`; and where it takes longer than [`PATIENCE`].
pub(crate) fn wait(
    poll: Duration,
    what: &str,
    mut met: impl FnMut() -> Result<bool>,
) -> Result<()> {
    wait_for(poll, what, || Ok(met()?.then_some(())))
}

/// Waits until the program is `what`, and for what then is there, as `found` tells, which is asked every `poll`.
///
/// # Errors
///
/// As [`wait`].
pub(crate) fn wait_for<T>(
    poll: Duration,
    what: &str,
    mut found: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found()? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "the program is not {what}");
        thread::sleep(poll);
    }
}
