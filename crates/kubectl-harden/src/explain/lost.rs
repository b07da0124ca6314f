//! Policies that have a default for a field and do not decide it, and why.

use hardening_api::policy::{ContainerKind, Mode};
use hardening_engine::{Field, Matching, Mismatch, Plan, Pod, Policy, PolicySet, Shape};

use super::{Line, Scope, SetBy};

/// A policy that has a default for a field, and another one, or nobody, decides.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) policy: String,
    /// Its default, as JSON.
    pub(crate) value: String,
    pub(crate) because: Because,
    /// Why, in one sentence.
    pub(crate) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Because {
    /// The author said something.
    Author,
    /// Another policy goes before it.
    Policy,
    /// All of its items are there already.
    Present,
    /// A guard held back what would have come of it.
    Guard,
    /// What it is about does not arise in this place.
    NotNeeded,
    /// It is not for this pod.
    NotForPod,
}

/// What policies say of a pod at the moment.
pub(crate) struct Today<'t, 'a> {
    pub(crate) set: &'t PolicySet,
    pub(crate) matching: &'t Matching<'a>,
    pub(crate) plan: &'t Plan<'a>,
    pub(crate) pod: &'t Pod<'a>,
    pub(crate) namespace: &'t str,
}

/// Fills in, line by line, which policies lost.
pub(crate) fn tell(lines: &mut [Line], today: &Today<'_, '_>) {
    let mut mismatched: Vec<(&Policy, Mismatch)> = today
        .set
        .policies()
        .filter_map(|policy| {
            let mismatch = today.set.mismatch(policy, today.namespace, today.pod)?;
            Some((policy, mismatch))
        })
        .filter(|(_, mismatch)| *mismatch != Mismatch::Namespace)
        .collect();
    mismatched.sort_by_key(|(policy, _)| policy.key().clone());
    let all: Vec<Vec<Lost>> = lines
        .iter()
        .map(|line| {
            let place = Contest {
                line,
                pods: pods_line(lines, line),
                today,
                read_only: made_read_only(lines, line),
            };
            let matching = today.matching.policies();
            let losers = matching.filter_map(|policy| place.loser(policy));
            let others = mismatched
                .iter()
                .filter_map(|(policy, mismatch)| place.stranger(policy, *mismatch));
            losers.chain(others).collect()
        })
        .collect();
    for (line, lost) in lines.iter_mut().zip(all) {
        line.lost = lost;
    }
}

/// The pod's own line for the field of a container.
fn pods_line<'l>(lines: &'l [Line], line: &Line) -> Option<&'l Line> {
    let is_containers = line.scope != Scope::Pod && line.field.row().is_two_level();
    let mut lines = lines.iter();
    is_containers
        .then(|| lines.find(|other| other.scope == Scope::Pod && other.field == line.field))?
}

/// Whether a policy makes the root filesystem of the line's container read-only.
fn made_read_only(lines: &[Line], line: &Line) -> bool {
    let mut of_container = lines.iter().filter(|other| other.scope == line.scope);
    of_container.any(|other| {
        other.field == Field::ReadOnlyRootFilesystem
            && other.value == Some(true.into())
            && matches!(other.set_by.as_slice(), [SetBy::Policy { .. }])
    })
}

/// The policies that have something to say about one line.
struct Contest<'l, 't, 'a> {
    line: &'l Line,
    pods: Option<&'l Line>,
    today: &'t Today<'t, 'a>,
    read_only: bool,
}

impl Contest<'_, '_, '_> {
    fn offer(&self, policy: &Policy) -> Option<String> {
        policy.offer(self.line.field, self.container())
    }

    fn container(&self) -> Option<ContainerKind> {
        match &self.line.scope {
            Scope::Pod => None,
            Scope::Container { kind, .. } => Some(*kind),
        }
    }

    fn stranger(&self, policy: &Policy, mismatch: Mismatch) -> Option<Lost> {
        let Today { pod, namespace, .. } = self.today;
        let reason = match mismatch {
            Mismatch::Namespace => format!("it is not for namespace {namespace}"),
            Mismatch::NamespaceSelector => {
                format!("its namespaceSelector does not select namespace {namespace}")
            }
            Mismatch::ServiceAccountNames => {
                let account = pod.service_account_name();
                format!("its serviceAccountNames do not name the pod's service account {account}")
            }
            Mismatch::PodSelector => "its podSelector does not select the pod".to_owned(),
        };
        Some(Lost {
            policy: policy.reference().to_string(),
            value: self.offer(policy)?,
            because: Because::NotForPod,
            reason,
        })
    }

    fn loser(&self, policy: &Policy) -> Option<Lost> {
        let value = self.offer(policy)?;
        let line = self.line;
        let name = policy.reference().to_string();
        let holds = line
            .withheld
            .iter()
            .any(|held| held.policy.as_ref() == Some(&name));
        let would = |all: &[super::Would]| all.iter().any(|would| would.policy == name);
        if self.deciders().iter().any(|decider| same(decider, &name))
            || holds
            || would(&line.audited)
            || would(&line.missing)
        {
            return None;
        }
        let (because, reason) = self.why(policy, &name);
        Some(Lost {
            policy: name,
            value,
            because,
            reason,
        })
    }

    /// Who set what is in force here.
    fn set_by(&self) -> &[SetBy] {
        match (self.line.set_by.as_slice(), self.pods) {
            ([SetBy::Pod], Some(pods)) => &pods.set_by,
            (set_by, _) => set_by,
        }
    }

    fn deciders(&self) -> Vec<&str> {
        let policies = self.set_by().iter().filter_map(|set_by| match set_by {
            SetBy::Policy { policy, .. } => Some(policy.as_str()),
            SetBy::Author | SetBy::Pod => None,
        });
        policies.collect()
    }

    fn why(&self, policy: &Policy, name: &str) -> (Because, String) {
        let is_list = self.line.field.row().shape == Shape::List;
        if self.line.field == Field::WritablePaths && !self.read_only {
            let reason =
                "only a container whose root filesystem a policy makes read-only gets paths";
            return (Because::NotNeeded, reason.to_owned());
        }
        if let Some(guard) = self.held_for_the_pod(name) {
            let reason = format!("its default is for the pod, where {guard} withheld it");
            return (Because::Guard, reason);
        }
        let deciders = self.deciders();
        let is_authors = self.set_by().contains(&SetBy::Author);
        if is_list && is_authors && !policy.adds_to_lists() {
            let reason = "the author wrote the list, and it has not listMerge: Union";
            return (Because::Author, reason.to_owned());
        }
        if self.line.value.is_some() && (is_list || self.line.field == Field::WritablePaths) {
            return (
                Because::Present,
                "all of its items are there already".to_owned(),
            );
        }
        if is_authors {
            let whose = match self.line.set_by.as_slice() {
                [SetBy::Pod] => "the author's value for the pod stays",
                _ => "the author's value stays",
            };
            return (Because::Author, whose.to_owned());
        }
        if let Some(decider) = deciders.first() {
            return (Because::Policy, self.against(policy, decider));
        }
        let held = self
            .line
            .withheld
            .iter()
            .chain(self.pods.iter().flat_map(|pods| &pods.withheld));
        let holders = held.filter_map(|held| held.policy.as_deref());
        let would = self.line.audited.iter().map(|would| would.policy.as_str());
        match holders.chain(would).next() {
            Some(first) => (Because::Policy, self.against(policy, first)),
            None => (Because::NotNeeded, "nothing here needs it".to_owned()),
        }
    }

    /// The guard that held back, at pod level, what a policy has for the containers too.
    fn held_for_the_pod(&self, name: &str) -> Option<&'static str> {
        let held = self.pods?.withheld.iter();
        let mut of_policy = held.filter(|held| held.policy.as_deref() == Some(name));
        of_policy.next().map(|held| held.guard)
    }

    /// Why a policy does not decide where another one does.
    fn against(&self, policy: &Policy, winner: &str) -> String {
        let mut matching = self.today.matching.policies();
        let known = matching.find(|other| same(winner, &other.reference().to_string()));
        let rule = known.map(|other| (other, other.goes_before(policy)));
        match rule {
            Some((other, _)) if policy.mode() == Mode::Audit && other.mode() == Mode::Enforce => {
                format!("{winner} fills in, and it, in mode Audit, only tells")
            }
            Some((_, Some(precedence))) => {
                format!("{winner} goes before it: {}", precedence.rule())
            }
            Some((_, None)) | None => format!("{winner} set it when the pod was created"),
        }
    }
}

/// Whether two references are to the same policy, in whichever version.
fn same(one: &str, other: &str) -> bool {
    let key = |name: &str| name.rsplit_once('@').map(|(key, _)| key.to_owned());
    key(one) == key(other)
}
