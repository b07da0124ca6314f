//! Running pods, or dumps of them, held against today's policies and against the Pod Security Standards: what
//! they lack, where they stand, and what may stop working.
//!
//! Start reading at the [`model`]: what comes out. [`live`] and [`dump`] bring pods, a page or a file at a
//! time; [`look`] looks at one pod, and [`tally`] folds it into its workload.

mod container;
mod dump;
pub(crate) mod html;
mod live;
mod look;
pub(crate) mod model;
mod owner;
mod policyreport;
mod probe;
mod reason;
mod report;
mod risk;
mod selector;
mod tally;
mod world;

pub(crate) use dump::dump;
pub(crate) use live::live;
pub(crate) use policyreport::reports;
pub(crate) use report::write_text;
pub(crate) use selector::Labels;

use hardening_engine::KubernetesVersion;

/// Which pods are looked at, and as pods of which Kubernetes.
#[derive(Debug)]
pub(crate) struct Scope {
    /// `None`: those of all namespaces.
    pub(crate) namespace: Option<String>,
    /// By their labels.
    pub(crate) selector: Option<Labels>,
    /// `None`: the cluster's, where one is asked.
    pub(crate) kubernetes: Option<KubernetesVersion>,
}

/// An audit, and what went wrong on the way.
pub(crate) struct Audited {
    pub(crate) audit: model::Audit,
    /// For standard error.
    pub(crate) warnings: Vec<String>,
    /// Pods that could not be read; each is told in one line.
    pub(crate) errors: Vec<String>,
}
