//! Everything at once: PSPs, with who could use them, become hardening policies, ValidatingAdmissionPolicies and
//! Pod Security labels.
//!
//! First all pods are divided by the PSPs that were usable for them ([`Segment`]). Then each segment gets the
//! defaults of the PSP that 1.24 put first, and a ValidatingAdmissionPolicy that admits what any of its PSPs
//! admitted. What that does otherwise than 1.24 is in the remarks, with the pods concerned.

mod choice;
mod defaults;
mod denials;
mod labels;
mod names;
mod usable;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hardening_api::policy::Mode;
use serde_json::Value;

use crate::convert::{Conversion, HardeningPolicy, Refused, convert};
use crate::migrate::choice::{Choice, Doubt, choose};
use crate::migrate::usable::{Cells, are_controllers, are_masters, divide};
use crate::note::Note;
use crate::rbac::{Grant, Grantee, grants};
use crate::scope::{PodScope, Requesters};

pub use crate::migrate::usable::{Segment, Usable};

/// The namespace whose pods the webhook never sees.
const KUBE_SYSTEM: &str = "kube-system";

/// What is known of a cluster.
#[derive(Debug)]
pub struct Input<'a> {
    /// The PSPs.
    pub psps: Vec<Given<'a>>,
    /// Roles, ClusterRoles and their bindings; `None`: every PSP is usable for every pod.
    pub rbac: Option<Vec<&'a Value>>,
    /// The labels of the namespaces, by their names; those that bindings name need not be given.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// The names of the service accounts, by namespace; `None`: not known.
    pub service_accounts: Option<BTreeMap<String, BTreeSet<String>>>,
    /// Whether what comes out is to change and deny, or only to record and warn.
    pub mode: Mode,
}

/// An object, and where it stands.
#[derive(Clone, Debug)]
pub struct Given<'a> {
    /// For messages.
    pub origin: String,
    /// What may be a PSP.
    pub object: &'a Value,
}

/// What a cluster's PSPs become.
#[derive(Debug, Default)]
pub struct Migration {
    /// Each PSP that could be used, by name.
    pub psps: BTreeMap<String, Conversion>,
    /// All pods, each in one of these.
    pub segments: Vec<Segment>,
    /// Namespaces, with their labels and nothing else.
    pub namespaces: Vec<Value>,
    /// The mutating half.
    pub policies: Vec<HardeningPolicy>,
    /// The denying half: each ValidatingAdmissionPolicy with its binding after it.
    pub admission: Vec<Value>,
    /// What is not carried over exactly.
    pub remarks: Vec<Remark>,
    /// What is not carried over at all.
    pub refused: Vec<Refusal>,
}

/// Something that is not carried over exactly. Displayed in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The PSP, where it is about one.
    pub psp: Option<String>,
    /// The pods; empty: all that the PSP was usable for.
    pub scopes: Vec<PodScope>,
    /// What, why, and what to do.
    pub note: Note,
}

/// A PSP that is not converted. Displayed in one line.
#[derive(Debug)]
pub struct Refusal {
    /// Where it stands.
    pub origin: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Why.
    pub reason: NotConverted,
}

/// Why a PSP is not converted beside the others.
#[derive(Debug, thiserror::Error)]
pub enum NotConverted {
    /// It could not be by itself.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// One of the same name was there already.
    #[error("is given twice, first in {0}")]
    Twice(String),
}

/// Converts PSPs.
#[must_use]
pub fn migrate(input: &Input<'_>) -> Migration {
    let mut migration = Migration::default();
    migration.read(&input.psps);
    if migration.psps.is_empty() {
        return migration;
    }
    let grants = migration.grants(input);
    let mut namespaces: BTreeSet<String> = input.namespaces.keys().cloned().collect();
    namespaces.extend(grants.iter().filter_map(|grant| grant.namespace.clone()));

    let mut doubts = Cells::new(&namespaces);
    for (scope, usable) in divide(&grants, &namespaces) {
        let choice = choose(&usable.for_defaults(), &migration.psps);
        if let Some(Choice {
            psp,
            doubt: Some(doubt),
        }) = &choice
        {
            doubts.add_scope(&(psp.clone(), doubt.clone()), &scope);
        }
        migration.segments.push(Segment {
            scope,
            usable,
            chosen: choice.map(|choice| choice.psp),
        });
    }
    migration.remark_on_doubts(doubts.into_scopes());
    migration.remark_on_requesters(&namespaces);
    defaults::add(&mut migration, input, &namespaces);
    denials::add(&mut migration, input);
    labels::add(&mut migration, input, &namespaces);
    // By PSP, and what is about none in particular last.
    let place = |remark: &Remark| (remark.psp.is_none(), remark.psp.clone());
    migration.remarks.sort_by_key(place);
    migration
}

// === impl Migration ===

impl Migration {
    /// The part of all pods that such a pod is in.
    #[must_use]
    pub fn segment(&self, namespace: &str, service_account: &str) -> Option<&Segment> {
        let mut segments = self.segments.iter();
        segments.find(|segment| segment.scope.contains(namespace, service_account))
    }

    /// The PSPs that a pod could be admitted by.
    #[must_use]
    pub fn usable(&self, namespace: &str, service_account: &str) -> Option<&Usable> {
        let segment = self.segment(namespace, service_account);
        segment.map(|segment| &segment.usable)
    }

    /// All that is to be applied, in this order: namespaces, which policies may be in, then what fills in, and what
    /// denies last.
    #[must_use]
    pub fn manifests(&self) -> Vec<Value> {
        let policies = self.policies.iter().map(HardeningPolicy::to_json);
        let namespaces = self.namespaces.iter().cloned();
        let admission = self.admission.iter().cloned();
        namespaces.chain(policies).chain(admission).collect()
    }

    fn read(&mut self, given: &[Given<'_>]) {
        let mut origins: BTreeMap<String, &str> = BTreeMap::new();
        for Given { origin, object } in given {
            let name = object.pointer("/metadata/name").and_then(Value::as_str);
            let converted = match name.and_then(|name| origins.get(name)) {
                Some(first) => Err(NotConverted::Twice((*first).to_owned())),
                None => convert(object).map_err(NotConverted::from),
            };
            match converted {
                Ok(conversion) => {
                    let name = conversion.policy.name.clone();
                    let notes = conversion.notes.iter();
                    self.remarks.extend(notes.map(|note| Remark {
                        psp: Some(name.clone()),
                        scopes: Vec::new(),
                        note: note.clone(),
                    }));
                    origins.insert(name.clone(), origin);
                    self.psps.insert(name, conversion);
                }
                Err(reason) => self.refused.push(Refusal {
                    origin: origin.clone(),
                    name: name.map(str::to_owned),
                    reason,
                }),
            }
        }
    }

    fn grants(&mut self, input: &Input<'_>) -> BTreeSet<Grant> {
        let names: Vec<&str> = self.psps.keys().map(String::as_str).collect();
        if let Some(objects) = &input.rbac {
            let found = grants(&names, objects.iter().copied());
            self.remarks
                .extend(found.notes.into_iter().map(|note| Remark {
                    psp: None,
                    scopes: Vec::new(),
                    note,
                }));
            return found.grants;
        }
        if names.len() > 1 {
            self.remarks.push(Remark {
                psp: None,
                scopes: Vec::new(),
                note: Note::new(
                    "spec",
                    "who could use which PSP is not taken into account: each is taken to be usable for every pod",
                    "convert with --rbac",
                ),
            });
        }
        let everyone = |name: &&str| Grant {
            psp: (*name).to_owned(),
            namespace: None,
            grantee: Grantee::Everyone,
        };
        names.iter().map(everyone).collect()
    }

    fn remark_on_doubts(&mut self, doubts: Vec<(PodScope, (String, Doubt))>) {
        let mut scopes: BTreeMap<(String, Doubt), Vec<PodScope>> = BTreeMap::new();
        for (scope, doubt) in doubts {
            scopes.entry(doubt).or_default().push(scope);
        }
        for ((psp, doubt), scopes) in scopes {
            let Doubt {
                psps,
                fields,
                is_unfilled,
            } = doubt;
            let outcome = match is_unfilled {
                true => format!(
                    "here nothing is filled in, as {psp} fills in nothing: also not in a pod that it denied and another one would have admitted once filled in"
                ),
                false => format!(
                    "here it is what {psp} says that is filled in, also in a pod that it denied, or that another one admitted as it was"
                ),
            };
            let why = format!(
                "each of {} was usable: PodSecurityPolicy tried them pod by pod and took the first that admitted the pod as it was, else the first that admitted it once filled in; {outcome}; it may differ in {}",
                words::list(&psps),
                words::list(&fields)
            );
            self.remarks.push(Remark {
                psp: Some(psp),
                scopes,
                note: Note::new(
                    "spec",
                    why,
                    "leave one of them usable for these pods, and convert again; or compare with --replay",
                ),
            });
        }
    }

    /// Defaults cannot know who creates a pod.
    fn remark_on_requesters(&mut self, namespaces: &BTreeSet<String>) {
        let mut found: BTreeMap<(&String, bool), (Requesters, Cells<'_, ()>)> = BTreeMap::new();
        let mut masters = false;
        for Segment { scope, usable, .. } in &self.segments {
            for (psp, requesters) in &usable.by_requester {
                if are_masters(requesters) {
                    masters = true;
                    continue;
                }
                let key = (psp, are_controllers(requesters));
                let (all, cells) = found
                    .entry(key)
                    .or_insert_with(|| (Requesters::default(), Cells::new(namespaces)));
                all.users.extend(requesters.users.iter().cloned());
                all.groups.extend(requesters.groups.iter().cloned());
                all.own_accounts
                    .extend(requesters.own_accounts.iter().cloned());
                cells.add_scope(&(), scope);
            }
        }
        let mut remarks = Vec::new();
        if masters {
            remarks.push(Remark {
                psp: None,
                scopes: Vec::new(),
                note: Note::new(
                    "spec",
                    "system:masters could use every PSP for the pods that it creates itself: the ValidatingAdmissionPolicies admit those as it did, but labels take no account of it, and defaults cannot",
                    "nothing, or exempt its users in Pod Security Admission's configuration",
                ),
            });
        }
        for ((psp, are_controllers), (requesters, cells)) in found {
            let who = words::requesters(&requesters);
            let (why, advice) = match are_controllers {
                true => (
                    format!(
                        "it was usable there for the pods that {who} created, controllers among them, which create the pods of most workloads: when it comes to defaults, it is taken as usable for every pod; the ValidatingAdmissionPolicy looks who creates the pod"
                    ),
                    "nothing, unless people create pods there themselves",
                ),
                false => (
                    format!(
                        "it was usable there for the pods that {who} created: the ValidatingAdmissionPolicy admits those as it did, but its defaults are not filled in, because a default cannot depend on who creates a pod"
                    ),
                    "write its defaults into those pods, if they rely on them",
                ),
            };
            let scopes = cells.into_scopes();
            remarks.push(Remark {
                psp: Some(psp.clone()),
                scopes: scopes.into_iter().map(|(scope, ())| scope).collect(),
                note: Note::new("spec", why, advice),
            });
        }
        self.remarks.extend(remarks);
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { psp, scopes, note } = self;
        if let Some(psp) = psp {
            write!(f, "PodSecurityPolicy {psp}: ")?;
        }
        if !scopes.is_empty() {
            write!(f, "{}: ", words::pods(scopes))?;
        }
        note.fmt(f)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            origin,
            name,
            reason,
        } = self;
        let name = name.as_deref().unwrap_or("without a name");
        write!(f, "{origin}: PodSecurityPolicy {name}: {reason}")
    }
}
