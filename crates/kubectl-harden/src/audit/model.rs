//! What an audit found: the one thing that all outputs are made of. Its JSON names are stable: programs read
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::{Error as _, Serializer};
use serde_json::Value;

/// All that was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Audit {
    /// Whether nothing is missing from it; the notices say what is.
    pub(crate) complete: bool,
    pub(crate) notices: Vec<Notice>,
    /// Whose Pod Security Standards the levels are of: `v1.36`, or `latest`.
    pub(crate) standards: String,
    pub(crate) total: Counts,
    /// By name.
    pub(crate) namespaces: Vec<Namespace>,
    /// By namespace, kind and name.
    pub(crate) workloads: Vec<Workload>,
}

/// What could not be found out, and what that leaves unsaid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Notice {
    /// One line; where a right is missing it names the verb and the resource.
    pub(crate) text: String,
    /// What may be wrong or missing for it.
    pub(crate) affects: Vec<Subject>,
}

/// A part of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Subject {
    /// Some pods were not seen at all.
    Pods,
    Owners,
    Missing,
    /// Why a field is missing.
    Reasons,
    Levels,
    Risks,
}

/// How much was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counts {
    pub(crate) workloads: usize,
    pub(crate) pods: usize,
    /// Fields that pods lack, each once for a workload; and the workloads that have such.
    pub(crate) missing: usize,
    pub(crate) workloads_missing: usize,
    /// Risks, each once for a workload; and the workloads that have such.
    pub(crate) risks: usize,
    pub(crate) workloads_at_risk: usize,
    /// Workloads by level.
    pub(crate) today: ByLevel,
    pub(crate) after: ByLevel,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ByLevel {
    pub(crate) privileged: usize,
    pub(crate) baseline: usize,
    pub(crate) restricted: usize,
}

/// A level of the Pod Security Standards; what is greater allows less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A namespace, with all of its workloads that were looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Namespace {
    pub(crate) name: String,
    /// What its label `pod-security.kubernetes.io/enforce` says; `None`: nothing, or its labels are not known.
    pub(crate) enforced: Option<String>,
    /// The strictest level that it could be labelled with today: the lowest of its workloads'.
    pub(crate) level_today: Level,
    /// The same once every pod has what the policies fill in.
    pub(crate) level_after: Level,
    #[serde(flatten)]
    pub(crate) counts: Counts,
}

/// The pods of one top owner: a Deployment, a CronJob, or a pod that nobody owns.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Workload {
    pub(crate) namespace: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Whether the owner is told by names alone, as the objects between could not be read.
    pub(crate) owner_by_name: bool,
    /// How many pods; 0: a template in a file that has no pods there.
    pub(crate) pods: usize,
    /// The pod that was looked at first; its template's object, where there are no pods.
    pub(crate) example: String,
    /// Where it was read from: a file, or the API server.
    pub(crate) source: String,
    /// The policies for its pods, in order, as `namespace/name@generation`.
    #[serde(serialize_with = "texts")]
    pub(crate) policies: Vec<Arc<str>>,
    /// What the policies would fill in if the pods were created now, and the pods lack.
    pub(crate) missing: Vec<Found<Missing>>,
    /// What policies in mode Audit would fill in besides.
    pub(crate) audited: Vec<Found<Fill>>,
    /// What guards hold back.
    pub(crate) withheld: Vec<Found<Withheld>>,
    /// The lowest level of its pods.
    pub(crate) level_today: Level,
    /// The same once they have what is missing.
    pub(crate) level_after: Level,
    /// The next level above `levelAfter`; `None` at the top.
    pub(crate) next_level: Option<Level>,
    /// What still stands in its way.
    pub(crate) obstacles: Vec<Found<Obstacle>>,
    /// What may stop working once the policies fill in what is missing, those in mode Audit included.
    pub(crate) risks: Vec<Found<Risk>>,
}

/// Something that some of a workload's pods have. What is the same in many workloads is kept once.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase", bound = "T: Serialize")]
pub(crate) struct Found<T> {
    /// In how many of the workload's pods; 1 for a template that has none.
    pub(crate) pods: usize,
    #[serde(flatten, serialize_with = "shared")]
    pub(crate) what: Arc<T>,
}

/// A default of a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fill {
    /// The whole path: `spec.containers[app].securityContext.allowPrivilegeEscalation`.
    pub(crate) path: String,
    /// The name of the field, as in docs/reference/fields.md: `allowPrivilegeEscalation`.
    pub(crate) field: &'static str,
    /// The container's name; `None`: the pod's field.
    pub(crate) container: Option<String>,
    /// The value that would be filled in; of a list, the items that would be added. It is JSON.
    #[serde(serialize_with = "as_json")]
    pub(crate) value: String,
    /// The policy, as `namespace/name@generation`.
    pub(crate) policy: String,
}

/// A default that today's policies have and a running pod lacks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Missing {
    #[serde(flatten)]
    pub(crate) fill: Fill,
    pub(crate) reason: Reason,
}

/// Why a field is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Reason {
    /// The pod is older than the policy.
    BeforePolicy,
    /// The webhook filled in what the policies said then; they say something else now.
    PolicyChanged,
    /// The webhook is not asked about pods of this namespace.
    NamespaceExcluded,
    /// The webhook is not asked about pods with these labels.
    PodExcluded,
    /// No webhook is registered.
    NotRegistered,
    /// The webhook is asked and has not seen this pod: it was down, or not yet registered, or the policy
    /// came to be for the pod later.
    NotSeen,
    /// It is a template, of which no pod was made yet.
    Template,
    /// What was read does not say.
    Unknown,
}

/// A default that a guard holds back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Withheld {
    pub(crate) path: String,
    pub(crate) policy: String,
    pub(crate) guard: &'static str,
    pub(crate) reason: String,
}

/// A field that must change for the next level.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Obstacle {
    /// The check, as Kubernetes' own code names it: `allowPrivilegeEscalation`.
    pub(crate) check: &'static str,
    /// What is forbidden, in the API server's words.
    pub(crate) text: String,
    /// Where: `spec.containers[0].securityContext.privileged`.
    pub(crate) path: String,
    /// What it holds, as JSON; `null`: it is not set.
    #[serde(serialize_with = "as_json")]
    pub(crate) value: String,
    /// What it may hold.
    pub(crate) allowed: String,
}

/// What may stop working.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Risk {
    /// Which one: the `id` of a row of the table in `risk.rs`.
    pub(crate) id: &'static str,
    /// What may happen, in one sentence.
    pub(crate) text: &'static str,
    /// The field that shows it, with the container's name in place of its index.
    pub(crate) path: String,
    /// What it holds, or what else shows it.
    pub(crate) evidence: String,
}

/// What is kept as JSON's text, so that it can be compared.
fn as_json<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let value: Value = serde_json::from_str(text).map_err(S::Error::custom)?;
    value.serialize(serializer)
}

fn shared<T: Serialize, S: Serializer>(one: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    one.as_ref().serialize(serializer)
}

fn texts<S: Serializer>(texts: &[Arc<str>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(texts.iter().map(|text| &**text))
}

// === impl Audit ===

impl Audit {
    /// Sums up workloads. `enforced` says what namespaces' labels enforce.
    pub(crate) fn new(
        mut workloads: Vec<Workload>,
        enforced: &BTreeMap<String, String>,
        standards: String,
        notices: Vec<Notice>,
    ) -> Self {
        workloads.sort_by(|a, b| a.key().cmp(&b.key()));
        let mut total = Counts::default();
        let mut namespaces: BTreeMap<&str, Namespace> = BTreeMap::new();
        for workload in &workloads {
            total.add(workload);
            let name = workload.namespace.as_str();
            let namespace = namespaces.entry(name).or_insert_with(|| Namespace {
                name: name.to_owned(),
                enforced: enforced.get(name).cloned(),
                level_today: Level::Restricted,
                level_after: Level::Restricted,
                counts: Counts::default(),
            });
            namespace.level_today = namespace.level_today.min(workload.level_today);
            namespace.level_after = namespace.level_after.min(workload.level_after);
            namespace.counts.add(workload);
        }
        let namespaces = namespaces.into_values().collect();
        Self {
            complete: notices.is_empty(),
            notices,
            standards,
            total,
            namespaces,
            workloads,
        }
    }
}

impl Counts {
    fn add(&mut self, workload: &Workload) {
        self.workloads += 1;
        self.pods += workload.pods;
        self.missing += workload.missing.len();
        self.workloads_missing += usize::from(!workload.missing.is_empty());
        self.risks += workload.risks.len();
        self.workloads_at_risk += usize::from(!workload.risks.is_empty());
        self.today.add(workload.level_today);
        self.after.add(workload.level_after);
    }
}

impl ByLevel {
    pub(crate) fn add(&mut self, level: Level) {
        *match level {
            Level::Privileged => &mut self.privileged,
            Level::Baseline => &mut self.baseline,
            Level::Restricted => &mut self.restricted,
        } += 1;
    }

    pub(crate) fn of(&self, level: Level) -> usize {
        match level {
            Level::Privileged => self.privileged,
            Level::Baseline => self.baseline,
            Level::Restricted => self.restricted,
        }
    }
}

// === impl Workload ===

impl Workload {
    fn key(&self) -> (&str, &str, &str) {
        (&self.namespace, &self.kind, &self.name)
    }
}

// === impl Level ===

impl Level {
    /// All, the one that allows most first.
    pub(crate) const ALL: [Self; 3] = [Self::Privileged, Self::Baseline, Self::Restricted];

    /// As namespaces' labels have it.
    pub(crate) fn name(self) -> &'static str {
        pod_security_standards::Level::from(self).name()
    }
}

impl From<Level> for pod_security_standards::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Privileged => Self::Privileged,
            Level::Baseline => Self::Baseline,
            Level::Restricted => Self::Restricted,
        }
    }
}

impl From<pod_security_standards::Level> for Level {
    fn from(level: pod_security_standards::Level) -> Self {
        match level {
            pod_security_standards::Level::Privileged => Self::Privileged,
            pod_security_standards::Level::Baseline => Self::Baseline,
            pod_security_standards::Level::Restricted => Self::Restricted,
        }
    }
}

// === impl Subject ===

impl Subject {
    /// In words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Pods => "which pods there are",
            Self::Owners => "whose they are",
            Self::Missing => "what they lack",
            Self::Reasons => "why they lack it",
            Self::Levels => "their levels",
            Self::Risks => "their risks",
        }
    }
}

// === impl Reason ===

impl Reason {
    /// All.
    pub(crate) const ALL: [Self; 8] = [
        Self::BeforePolicy,
        Self::PolicyChanged,
        Self::NamespaceExcluded,
        Self::PodExcluded,
        Self::NotRegistered,
        Self::NotSeen,
        Self::Template,
        Self::Unknown,
    ];

    /// In words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::BeforePolicy => "created before the policy",
            Self::PolicyChanged => "created before the policies became what they are",
            Self::NamespaceExcluded => "the webhook is not asked about this namespace",
            Self::PodExcluded => "the webhook is not asked about pods with these labels",
            Self::NotRegistered => "no webhook is registered",
            Self::NotSeen => "the webhook did not see it, or the policy came to be for it later",
            Self::Template => "a template, of which no pod is here",
            Self::Unknown => "why is not known",
        }
    }
}
