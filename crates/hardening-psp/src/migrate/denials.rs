//! The denying half of everything: for each part of the pods one policy, which admits what any of the PSPs usable
//! there admitted.

use std::collections::BTreeMap;

use hardening_api::policy::Mode;

use crate::deny::{Action, Candidate, binding, deny, notes};
use crate::migrate::names::Taken;
use crate::migrate::usable::{Segment, Usable};
use crate::migrate::{Input, KUBE_SYSTEM, Migration, Remark};
use crate::note::Note;
use crate::scope::{Names, PodScope};

/// The ending of the names of bindings that only warn in `kube-system`.
const IN_KUBE_SYSTEM: &str = "-kube-system";

/// How many characters of PSPs' names make a policy's name.
const LONGEST: usize = 100;

/// Adds the ValidatingAdmissionPolicies and their bindings.
pub(super) fn add(migration: &mut Migration, input: &Input<'_>) {
    let mut taken = Taken::default();
    let mut objects = Vec::new();
    let mut closed = Vec::new();
    for segment in &migration.segments {
        let Segment { scope, usable, .. } = segment;
        let candidates = candidates(usable, migration);
        let names: Vec<&str> = candidates.keys().copied().collect();
        let name = taken.name(&joined(&names), &[IN_KUBE_SYSTEM]);
        // Where 1.24 admitted nothing at all, few clusters rely on it, and some have never noticed.
        let action = match (input.mode, candidates.is_empty()) {
            (Mode::Enforce, false) => Action::Deny,
            (Mode::Enforce, true) | (Mode::Audit, _) => Action::WarnAndAudit,
        };
        if candidates.is_empty() {
            closed.push((scope.clone(), name.clone()));
        }
        let candidates: Vec<Candidate<'_>> = candidates.into_values().collect();
        let (rest, unfilled) = match action {
            Action::Deny => migration.apart(segment),
            Action::WarnAndAudit => (Some(scope.clone()), None),
        };
        match (rest, unfilled) {
            (Some(rest), unfilled) => {
                objects.extend(deny(&name, &candidates, &rest, action));
                objects.extend(unfilled.map(|namespaces| {
                    let ending = format!("{name}{IN_KUBE_SYSTEM}");
                    binding(&ending, &name, &namespaces, Action::WarnAndAudit)
                }));
            }
            (None, _) => {
                objects.extend(deny(&name, &candidates, scope, Action::WarnAndAudit));
            }
        }
    }
    migration.admission = objects;
    for (name, psp) in &migration.psps {
        let usable = migration.segments.iter().map(|segment| &segment.usable);
        let notes = match usable.into_iter().any(|usable| usable.has(name)) {
            true => notes(&psp.policy),
            false => vec![Note::new(
                "metadata.name",
                "by the roles and bindings that are given, nobody could use it, so nothing is made of it",
                "give the roles and bindings that are missing, if any are",
            )],
        };
        migration
            .remarks
            .extend(notes.into_iter().map(|note| Remark {
                psp: Some(name.clone()),
                scopes: Vec::new(),
                note,
            }));
    }
    migration.remarks.extend(closed.into_iter().map(|(scope, name)| Remark {
        psp: None,
        scopes: vec![scope],
        note: Note::new(
            "spec",
            format!(
                "no PSP was usable there, so every pod was denied; the ValidatingAdmissionPolicy {name} only warns of such pods and has them audited"
            ),
            "change validationActions of its binding to [Deny] where that was meant so",
        ),
    }));
}

impl Migration {
    /// Whether something would have to be filled in there, and the webhook is not asked to.
    #[must_use]
    pub fn is_left_unfilled(&self, namespace: &str, service_account: &str) -> bool {
        let segment = self.segment(namespace, service_account);
        namespace == KUBE_SYSTEM && segment.is_some_and(|segment| self.fills_in(segment))
    }

    fn fills_in(&self, segment: &Segment) -> bool {
        let chosen = segment.chosen.as_ref().and_then(|psp| self.psps.get(psp));
        chosen.is_some_and(|psp| !psp.fills_nothing())
    }

    /// The pods of a segment that are filled in as they should be, and the namespaces of the others.
    fn apart(&self, segment: &Segment) -> (Option<PodScope>, Option<Names>) {
        let Segment { scope, .. } = segment;
        let has_others = scope.namespaces.contains(KUBE_SYSTEM);
        if !has_others || !self.fills_in(segment) {
            return (Some(scope.clone()), None);
        }
        let rest = scope.namespaces.without(KUBE_SYSTEM);
        let rest = rest.map(|namespaces| PodScope {
            namespaces,
            service_accounts: scope.service_accounts.clone(),
        });
        (rest, Some(Names::Only([KUBE_SYSTEM.to_owned()].into())))
    }
}

/// The PSPs that may admit pods, by name.
fn candidates<'a>(
    usable: &'a Usable,
    migration: &'a Migration,
) -> BTreeMap<&'a str, Candidate<'a>> {
    let by_account = usable.by_account.iter().map(|psp| (psp, None));
    let by_requester = usable.by_requester.iter();
    let by_requester = by_requester.map(|(psp, requesters)| (psp, Some(requesters.clone())));
    by_account
        .chain(by_requester)
        .filter_map(|(name, requesters)| {
            let policy = &migration.psps.get(name)?.policy;
            Some((name.as_str(), Candidate { policy, requesters }))
        })
        .collect()
}

/// `a`, `a-or-b`, or, where that grows long, `a-or-7-others`.
fn joined(psps: &[&str]) -> String {
    match psps {
        [] => "none".to_owned(),
        [first, others @ ..] => {
            let all = psps.join("-or-");
            match all.len() <= LONGEST || others.is_empty() {
                true => all,
                false => format!("{first}-or-{}-others", others.len()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::migrate::{Given, migrate};

    use super::*;

    /// The bindings that a PSP becomes which is usable everywhere: operator and namespaces, and what they do.
    fn bindings(spec: &Value) -> Vec<(String, Value, Value)> {
        let mut psp = json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy",
            "metadata": {"name": "p"}, "spec": {"seLinux": {"rule": "RunAsAny"}, "runAsUser": {"rule": "RunAsAny"},
            "fsGroup": {"rule": "RunAsAny"}, "supplementalGroups": {"rule": "RunAsAny"}}});
        for (field, value) in spec.as_object().into_iter().flatten() {
            psp["spec"][field] = value.clone();
        }
        let input = Input {
            psps: vec![Given {
                origin: "here".to_owned(),
                object: &psp,
            }],
            rbac: None,
            namespaces: BTreeMap::new(),
            service_accounts: None,
            mode: Mode::Enforce,
        };
        let objects = migrate(&input).admission;
        objects
            .iter()
            .filter(|object| object["kind"] == "ValidatingAdmissionPolicyBinding")
            .map(|binding| {
                let of = "/spec/matchResources/namespaceSelector/matchExpressions/0";
                let requirement = binding.pointer(of);
                let scope = requirement.map_or(Value::Null, |requirement| {
                    json!([requirement["operator"], requirement["values"]])
                });
                let name = binding["metadata"]["name"].as_str().unwrap().to_owned();
                (name, scope, binding["spec"]["validationActions"].clone())
            })
            .collect()
    }

    #[test]
    fn nothing_is_denied_in_kube_system_for_want_of_what_nobody_fills_in() {
        let name = |ending: &str| format!("psp-p{ending}");
        assert_eq!(
            bindings(&json!({"privileged": false})),
            [(name(""), Value::Null, json!(["Deny"]))]
        );
        assert_eq!(
            bindings(&json!({"readOnlyRootFilesystem": true})),
            [
                (name(""), json!(["NotIn", ["kube-system"]]), json!(["Deny"])),
                (
                    name("-kube-system"),
                    json!(["In", ["kube-system"]]),
                    json!(["Warn", "Audit"])
                ),
            ]
        );
    }
}
