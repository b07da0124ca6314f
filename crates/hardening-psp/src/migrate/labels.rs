//! Pod Security labels: for each namespace the strictest standard that none of its PSPs was laxer than.

use std::collections::{BTreeMap, BTreeSet};

use hardening_api::policy::Mode;
use serde_json::{Map, Value, json};

use crate::level::{self, Level};
use crate::migrate::usable::{Usable, are_masters};
use crate::migrate::{Input, Migration, Remark};
use crate::note::Note;
use crate::scope::{Names, PodScope};

const PREFIX: &str = "pod-security.kubernetes.io";

/// Adds the namespaces that get labels, and says why others get none.
pub(super) fn add(migration: &mut Migration, input: &Input<'_>, namespaces: &BTreeSet<String>) {
    let levels = levels(migration);
    remark_on_obstacles(migration);
    let mut labelled: BTreeMap<Level, BTreeSet<String>> = BTreeMap::new();
    for namespace in namespaces {
        let segments = migration.segments.iter();
        let here = segments.filter(|segment| segment.scope.namespaces.contains(namespace));
        let usable = here.flat_map(|segment| names(&segment.usable));
        let weakest = usable.filter_map(|psp| levels.get(psp)).min();
        if let Some(level) = weakest.filter(|level| **level > Level::Privileged) {
            labelled
                .entry(*level)
                .or_default()
                .insert(namespace.clone());
        }
    }
    for (level, names) in labelled {
        let manifests = names.iter().map(|name| manifest(name, level, input.mode));
        migration.namespaces.extend(manifests);
        migration.remarks.extend(disagreeing(level, &names, input));
        migration.remarks.push(Remark {
            psp: None,
            scopes: vec![in_namespaces(names)],
            note: note_on(level, input.mode),
        });
    }
    let can_be_labelled = levels.values().any(|level| *level > Level::Privileged);
    if input.namespaces.is_empty() && can_be_labelled {
        migration.remarks.push(Remark {
            psp: None,
            scopes: Vec::new(),
            note: Note::new(
                "spec",
                "the namespaces of the cluster are not given: only those that bindings name can get Pod Security labels",
                "convert with --namespaces",
            ),
        });
    }
}

/// Of the PSPs, the standard that each is as strict as.
fn levels(migration: &Migration) -> BTreeMap<String, Level> {
    let psps = migration.psps.iter();
    psps.map(|(name, psp)| (name.clone(), psp.policy.standing().level()))
        .collect()
}

/// The PSPs that count. Those who may do everything anyway could use every PSP in every cluster, and no label would be
/// left.
fn names(usable: &Usable) -> impl Iterator<Item = &str> {
    let others = usable.by_requester.iter();
    let others = others.filter(|(_, requesters)| !are_masters(requesters));
    let by_account = usable.by_account.iter();
    by_account
        .chain(others.map(|(psp, _)| psp))
        .map(String::as_str)
}

fn manifest(name: &str, level: Level, mode: Mode) -> Value {
    let mut labels = Map::new();
    let mut label = |mode: &str, version: &str| {
        labels.insert(format!("{PREFIX}/{mode}"), level.name().into());
        labels.insert(format!("{PREFIX}/{mode}-version"), version.into());
    };
    label("audit", "latest");
    if mode == Mode::Enforce {
        label("enforce", level::VERSION);
    }
    label("warn", "latest");
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    })
}

fn in_namespaces(names: BTreeSet<String>) -> PodScope {
    PodScope {
        namespaces: Names::Only(names),
        service_accounts: Names::All,
    }
}

fn note_on(level: Level, mode: Mode) -> Note {
    let labels = match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "warn of for now, and are to enforce",
    };
    let odd = match level {
        Level::Restricted => {
            ", and so are pods of which every container overrides runAsNonRoot: false or runAsUser: 0 of the pod, and other shapes that hardly anyone writes"
        }
        Level::Baseline | Level::Privileged => "",
    };
    Note::new(
        "spec",
        format!(
            "every PSP that was usable there is at least as strict as Pod Security's {level} at {}, which the namespace's labels {labels}{odd}; from v1.34 on a host in a probe or lifecycle handler is refused too, which no PSP did",
            level::VERSION
        ),
        "raise enforce-version once the warnings show no such pods",
    )
}

/// What a person has labelled already is a decision of theirs.
fn disagreeing(level: Level, names: &BTreeSet<String>, input: &Input<'_>) -> Vec<Remark> {
    let key = format!("{PREFIX}/enforce");
    let mut remarks = Vec::new();
    for name in names {
        let labels = input.namespaces.get(name);
        let Some(given) = labels.and_then(|labels| labels.get(&key)) else {
            continue;
        };
        if given != level.name() {
            remarks.push(Remark {
                psp: None,
                scopes: vec![in_namespaces(BTreeSet::from([name.clone()]))],
                note: Note::new(
                    "spec",
                    format!("the namespace enforces {given} already, and its PSPs come to {level}"),
                    "decide which it is to be before the namespace is applied",
                ),
            });
        }
    }
    remarks
}

/// What keeps each PSP from a stricter standard.
fn remark_on_obstacles(migration: &mut Migration) {
    let mut remarks = Vec::new();
    for (name, psp) in &migration.psps {
        let standing = psp.policy.standing();
        let level = standing.level();
        let next = Level::ALL.into_iter().find(|one| *one > level);
        let Some(next) = next else { continue };
        let obstacles = standing.in_the_way_of(next);
        let obstacles: Vec<String> = obstacles.map(ToString::to_string).collect();
        remarks.push(Remark {
            psp: Some(name.clone()),
            scopes: Vec::new(),
            note: Note::new(
                "spec",
                format!(
                    "of the Pod Security Standards it is as strict as {level}; {next} is out of its reach: {}",
                    obstacles.join("; ")
                ),
                "nothing: the ValidatingAdmissionPolicy denies what the PSP denied",
            ),
        });
    }
    migration.remarks.extend(remarks);
}
