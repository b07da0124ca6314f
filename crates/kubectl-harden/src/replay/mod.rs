//! Pods once more, under the PSPs of old and under what they are converted to: what each fills in, and whether
//! it admits them.

mod live;
mod progress;
mod report;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use hardening_engine::{Plan, PolicySet, plan};
use hardening_manifests::{Manifest, Object, Source, policy_set};
use hardening_psp::level::Level;
use hardening_psp::{
    Denials, Difference, Gap, InvalidPod, Judgement, Migration, Requesters, as_created,
    differences, gaps,
};
use serde_json::Value;

use crate::workload::{Workload, workloads};

pub(crate) use live::workloads as live_workloads;
pub(crate) use progress::Progress;
pub(crate) use report::{as_json, as_markdown, as_text};

/// The annotation in which PodSecurityPolicy wrote which PSP had admitted a pod.
const ADMITTED_BY: &str = "/metadata/annotations/kubernetes.io~1psp";

/// A workload's pods under both.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) source: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// Which PSP admitted it, or why none did.
    pub(crate) before: Result<String, Denials>,
    /// Why what takes their place denies it; empty: it does not.
    pub(crate) refusals: Vec<String>,
    /// Where the pods differ, if both admit them.
    pub(crate) fields: Vec<Field>,
    /// What will be refused from a later version on, or how the pod was looked at.
    pub(crate) notes: Vec<String>,
}

/// A field that is not the same, and why, where that is known.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) difference: Difference,
    pub(crate) why: Option<String>,
}

/// How two worlds judge a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Both admit it, and it is the same.
    Same,
    /// Both admit it, but fields differ.
    Fields,
    /// Both deny it.
    BothDeny,
    /// Only one of them does.
    Verdict,
}

/// Replays the pods in manifests. `namespace` is the one of objects that name none. What is wrong with any of
/// them is told in a line of its own, and the others are still replayed.
pub(crate) fn replay(
    migration: &Migration,
    manifests: &[Manifest],
    namespace: &str,
    progress: &Progress,
) -> anyhow::Result<(Vec<Replayed>, Vec<String>)> {
    let set = converted(migration, namespace)?;
    let found = workloads(manifests, namespace);
    let there: BTreeSet<Key<'_>> = found.iter().map(Key::of).collect();
    let alone = found.iter().filter(|workload| {
        !owners(&workload.object, &workload.namespace).any(|key| there.contains(&key))
    });
    let alone: Vec<_> = alone.collect();
    progress.begin(alone.len());
    let (mut replayed, mut errors) = (Vec::new(), Vec::new());
    let replay = Replay {
        migration,
        set: &set,
    };
    for workload in alone {
        progress.step(&workload.name());
        match replay.one(workload) {
            Ok(one) => replayed.push(one),
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    progress.end();
    Ok((replayed, errors))
}

/// The mutating half, as the webhook would hold it.
fn converted(migration: &Migration, namespace: &str) -> anyhow::Result<PolicySet> {
    let source = Source {
        file: Arc::from("the converted policies"),
        document: None,
        item: None,
    };
    let manifest = |value| Manifest {
        source: source.clone(),
        value,
    };
    let manifests: Vec<Manifest> = migration.manifests().into_iter().map(manifest).collect();
    let (set, problems) = policy_set(&manifests, namespace);
    match problems.first() {
        Some(problem) => Err(anyhow!("{problem}")),
        None => Ok(set),
    }
}

/// An object by kind, namespace and name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a>(&'a str, &'a str, &'a str);

impl<'a> Key<'a> {
    fn of(workload: &'a Workload<'_>) -> Self {
        let object = &workload.object;
        Self(
            object.kind,
            &workload.namespace,
            object.name().unwrap_or_default(),
        )
    }
}

/// What an object belongs to: what is replayed with its owner is not replayed for itself.
fn owners<'a>(object: &Object<'a>, namespace: &'a str) -> impl Iterator<Item = Key<'a>> {
    let owners = object.value.pointer("/metadata/ownerReferences");
    let owners = owners.and_then(Value::as_array).into_iter().flatten();
    owners.filter_map(move |owner| {
        let text = |key| owner.get(key).and_then(Value::as_str);
        Some(Key(text("kind")?, namespace, text("name")?))
    })
}

/// Why nothing is filled in.
const UNFILLED: &str = "the webhook is not asked about pods of kube-system";

/// One workload's turn.
struct Replay<'a> {
    migration: &'a Migration,
    set: &'a PolicySet,
}

impl Replay<'_> {
    fn one(&self, workload: &Workload<'_>) -> anyhow::Result<Replayed> {
        // Says what is wrong with it better than any of the steps below.
        let account = workload.pod()?.service_account_name().to_owned();
        let created = as_created(workload.pod);
        let located = |error: InvalidPod| anyhow!("{}: {error}", workload.title());
        let requester = requester(&workload.object);
        let namespace = workload.namespace.as_str();
        let judged = self
            .migration
            .judge(namespace, &account, requester.as_ref(), &created)
            .map_err(located)?;

        let text = created.to_string();
        let view = hardening_engine::Pod::from_json(&text).with_context(|| workload.title())?;
        let matching = workload.matching(self.set, &view)?;
        let plan = plan(&matching, &view);
        let is_unfilled = self.migration.is_left_unfilled(namespace, &account);
        let mut hardened = created;
        if !is_unfilled {
            json_patch::patch(&mut hardened, &plan.to_patch()).with_context(|| workload.title())?;
        }
        let denied = self
            .migration
            .denials(namespace, &account, requester.as_ref(), &hardened)
            .map_err(located)?;
        let level = self.migration.level(namespace);
        let gaps = gaps(level, &hardened).map_err(located)?;

        let refusals = refusals(denied.as_ref(), &gaps, level);
        let (before, fields) = match judged {
            Judgement::Denied(reasons) => (Err(reasons), Vec::new()),
            Judgement::Admitted { by, .. } if !refusals.is_empty() => (Ok(by), Vec::new()),
            Judgement::Admitted { by, pod } => {
                let chosen = self.chosen(namespace, &account).filter(|one| *one != by);
                let found = differences(&pod, &hardened).map_err(located)?;
                let field = |difference| Field {
                    why: match is_unfilled {
                        true => Some(UNFILLED.to_owned()),
                        false => why(&difference, &plan, &by, chosen),
                    },
                    difference,
                };
                let fields = found.into_iter().map(field).collect();
                (Ok(by), fields)
            }
        };
        Ok(Replayed {
            source: workload.object.source.to_string(),
            name: workload.name(),
            namespace: workload.namespace.clone(),
            before,
            refusals,
            fields,
            notes: notes(workload, requester.is_none(), &gaps),
        })
    }

    /// The PSP whose defaults the converted policies give a pod.
    fn chosen(&self, namespace: &str, account: &str) -> Option<&str> {
        let segment = self.migration.segment(namespace, account)?;
        segment.chosen.as_deref()
    }
}

/// Who creates the pods: a controller, unless they are made by hand.
fn requester(object: &Object<'_>) -> Option<Requesters> {
    let owner = object.value.pointer("/metadata/ownerReferences/0/kind");
    match (object.kind, owner.and_then(Value::as_str)) {
        ("Pod", Some(owner)) => Requesters::controller_of(owner),
        (kind, _) => Requesters::controller_of(kind),
    }
}

/// Why what takes the PSPs' place denies a pod.
fn refusals(denied: Option<&Denials>, gaps: &[Gap], level: Level) -> Vec<String> {
    let mut refusals = Vec::new();
    match denied {
        Some(denied) if denied.is_empty() => {
            refusals.push(
                "no PSP was usable for it, and nothing is admitted in their place".to_owned(),
            );
        }
        Some(denied) => refusals.extend(reasons(denied)),
        None => {}
    }
    let now = gaps.iter().filter(|gap| gap.from_version.is_none());
    refusals.extend(now.map(|gap| format!("Pod Security {level}: {}: {}", gap.field, gap.why)));
    refusals
}

/// PSP by PSP, why a pod was denied.
pub(crate) fn reasons(denied: &Denials) -> impl Iterator<Item = String> {
    let reasons = denied.iter();
    reasons.flat_map(|(psp, denials)| denials.iter().map(move |denial| format!("{psp}: {denial}")))
}

fn notes(workload: &Workload<'_>, by_hand: bool, gaps: &[Gap]) -> Vec<String> {
    let mut notes = Vec::new();
    if by_hand {
        notes.push(
            "who created it is not known: only what its service account could use is taken into account".to_owned(),
        );
    }
    if workload.pod.pointer(ADMITTED_BY).is_some() {
        notes.push(
            "PodSecurityPolicy has filled it in already, so that little is left to differ: replay what it was created from too".to_owned(),
        );
    }
    for Gap {
        field,
        why,
        from_version,
    } in gaps
    {
        if let Some(version) = from_version {
            notes.push(format!(
                "{field}: refused by Pod Security from {version} on: {why}"
            ));
        }
    }
    notes
}

/// Why a field differs.
fn why(difference: &Difference, plan: &Plan<'_>, by: &str, chosen: Option<&str>) -> Option<String> {
    let held = plan
        .withheld
        .iter()
        .find(|held| held.path() == difference.field);
    if let (Some(held), None) = (held, &difference.hardened) {
        return Some(held.reason().into_owned());
    }
    if let Some(chosen) = chosen {
        return Some(format!(
            "{by} admitted it, but the defaults of {chosen} are filled in for these pods"
        ));
    }
    let is_non_root = difference.field.ends_with(".runAsNonRoot") && difference.stored.is_none();
    is_non_root.then(|| {
        "means the same beside a runAsUser that is not 0, and Pod Security asks for it".to_owned()
    })
}

impl Replayed {
    pub(crate) fn outcome(&self) -> Outcome {
        match (&self.before, self.refusals.is_empty()) {
            (Ok(_), true) if self.fields.is_empty() => Outcome::Same,
            (Ok(_), true) => Outcome::Fields,
            (Err(_), false) => Outcome::BothDeny,
            (Ok(_), false) | (Err(_), true) => Outcome::Verdict,
        }
    }
}
