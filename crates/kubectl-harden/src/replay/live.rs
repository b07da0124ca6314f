//! What runs in a cluster, to be replayed.

use hardening_manifests::Manifest;

use crate::source::Cluster;

use super::Progress;

/// Every kind that is a pod or makes pods, where its list is.
const LISTS: [(&str, &str); 8] = [
    ("/apis/apps/v1/deployments", "Deployments"),
    ("/apis/apps/v1/statefulsets", "StatefulSets"),
    ("/apis/apps/v1/daemonsets", "DaemonSets"),
    ("/apis/apps/v1/replicasets", "ReplicaSets"),
    ("/api/v1/replicationcontrollers", "ReplicationControllers"),
    ("/apis/batch/v1/cronjobs", "CronJobs"),
    ("/apis/batch/v1/jobs", "Jobs"),
    ("/api/v1/pods", "Pods"),
];

/// All workloads and pods of a cluster.
pub(crate) fn workloads(cluster: &Cluster, progress: &Progress) -> anyhow::Result<Vec<Manifest>> {
    let mut found = Vec::new();
    progress.begin(LISTS.len());
    for (path, kinds) in LISTS {
        progress.step(kinds);
        found.extend(cluster.pages(path, &format!("list {kinds}"))?);
    }
    Ok(found)
}
