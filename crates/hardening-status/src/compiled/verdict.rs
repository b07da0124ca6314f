//! What is said of each policy. Pure: what was compiled and applied in, conditions out.

use std::collections::HashMap;

use hardening_api::policy::Mode;
use hardening_api::status::{condition, reason};
use hardening_compile::Compiled;
use hardening_engine::{PolicyKey, PolicySet};

use super::objects::{ListError, Outcome};
use crate::{Judgement, Truth};

/// The condition `Compiled` of each policy of the set. Its words do not tell how many objects there are: each namespace
/// that comes may change that.
pub(super) fn verdicts(
    set: &PolicySet,
    compiled: &Compiled,
    outcome: &Result<Outcome, ListError>,
) -> Vec<(PolicyKey, Judgement)> {
    let failed = |name: &str| outcome.as_ref().ok()?.failed.get(name);
    // By policy: why one of the objects that it is in is not as it is to be, if so.
    let mut compiled_in: HashMap<&PolicyKey, Option<&String>> = HashMap::new();
    for object in &compiled.objects {
        for key in &object.sources {
            let why = compiled_in.entry(key).or_default();
            *why = why.or_else(|| failed(&object.name));
        }
    }
    let verdict = |key: &PolicyKey, mode| {
        if mode == Mode::Audit {
            let message = "the policy is in mode Audit: it fills in nothing";
            return (Truth::False, reason::AUDIT, message.to_owned());
        }
        if let Some(refusal) = compiled.refused.get(key) {
            return (Truth::False, reason::TOO_LARGE, refusal.to_string());
        }
        if let Err(error) = outcome {
            return (
                Truth::Unknown,
                reason::NOT_APPLIED,
                crate::error::chain(error),
            );
        }
        match compiled_in.get(key) {
            None => {
                let message = "the policy is for namespaces only that are excluded";
                (Truth::False, reason::EXCLUDED, message.to_owned())
            }
            Some(Some(why)) => (Truth::False, reason::NOT_APPLIED, (*why).clone()),
            Some(None) => {
                let message = "the API server gives pods the policy's defaults by itself, too";
                (Truth::True, reason::APPLIED, message.to_owned())
            }
        }
    };
    set.policies()
        .map(|policy| {
            let (truth, reason, message) = verdict(policy.key(), policy.mode());
            let judgement = Judgement {
                type_: condition::COMPILED,
                truth,
                reason: reason.to_owned(),
                message,
                generation: Some(policy.reference().generation),
            };
            (policy.key().clone(), judgement)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hardening_api::PolicyKind;
    use hardening_compile::{Options, compile};
    use hardening_engine::{Policy, UnknownNamespaces};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_came_of_the_objects_that_a_policy_is_in_is_said_of_it() {
        let mut set = PolicySet::new(UnknownNamespaces::NotYetSeen);
        set.insert_namespace("shop", &BTreeMap::default());
        let policy = json!({
            "apiVersion": hardening_api::API_VERSION, "kind": PolicyKind::Cluster.name(),
            "metadata": {"name": "all", "generation": 7}, "spec": {"profile": "Restricted"},
        });
        set.insert_policy(Policy::from_object(PolicyKind::Cluster, &policy).unwrap());
        let compiled = compile(&set, &Options::default());
        let [first, ..] = compiled.objects.as_slice() else {
            panic!("nothing is compiled");
        };
        let failed = Outcome {
            failed: BTreeMap::from([(first.name.clone(), "too busy".to_owned())]),
            ..Outcome::default()
        };
        let unlisted = ListError("bindings", kube::Error::LinesCodecMaxLineLengthExceeded);
        for (outcome, truth, reason, message) in [
            (
                Ok(Outcome::default()),
                Truth::True,
                reason::APPLIED,
                "by itself",
            ),
            (Ok(failed), Truth::False, reason::NOT_APPLIED, "too busy"),
            (
                Err(unlisted),
                Truth::Unknown,
                reason::NOT_APPLIED,
                "cannot list bindings",
            ),
        ] {
            let said = verdicts(&set, &compiled, &outcome);
            let [(key, judgement)] = said.as_slice() else {
                panic!("{said:?}");
            };
            assert_eq!((&*key.name, judgement.generation), ("all", Some(7)));
            assert_eq!((judgement.truth, &*judgement.reason), (truth, reason));
            assert!(judgement.message.contains(message), "{}", judgement.message);
        }
    }
}
