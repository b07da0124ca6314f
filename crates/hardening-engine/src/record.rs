//! Where people look: the record of a decision on the pod, in the API server's audit log, and in the
//! client's terminal. The same input gives the same bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ptr;

use smallvec::SmallVec;

use crate::field::Field;
use crate::guard::Guard;
use crate::json::Text;
use crate::patch::Operations;
use crate::plan::{Fill, Plan, Target, Withheld, push_path};
use crate::policy::PolicyRef;
use crate::write::{push, write_list, write_nested_string};

/// On the pod: policy (`namespace/name@generation`, or `name@generation`) to the fields it filled in.
pub const FILLED: &str = "podhardening.dev/filled";
/// On the pod: guard to the fields that it held back.
pub const WITHHELD: &str = "podhardening.dev/withheld";

/// What both begin with.
const DOMAIN: &str = "podhardening.dev/";

/// The most bytes that all annotations of an object may have together; beyond it the API server refuses
/// the object.
pub(crate) const ANNOTATIONS_LIMIT: usize = 256 * 1024;
/// The most characters of a warning that every client shows whole.
const WARNING_LIMIT: usize = 120;

/// What a plan did and why: each is an object whose keys are policies or guards, in order, and whose values are lists
/// of fields. As a JSON string that holds the object's JSON, quotes and escapes included, since that is what it becomes
/// wherever it goes. Empty text where there is nothing to say.
#[derive(Debug, Default)]
pub struct Records {
    /// Policy (`namespace/name@generation`, or `name@generation` for a cluster policy) to the fields that it
    /// fills in.
    pub filled: String,
    /// Guard to the fields that it held back.
    pub withheld: String,
    /// Policy in mode Audit to the fields that it would fill in.
    pub audited: String,
}

impl Records {
    /// What the API server's audit log gets: names without a prefix, and JSON strings.
    #[must_use]
    pub fn into_audit_annotations(self) -> Vec<(&'static str, String)> {
        let records = [
            ("filled", self.filled),
            ("withheld", self.withheld),
            ("audited", self.audited),
        ];
        let said = records.into_iter().filter(|(_, json)| !json.is_empty());
        said.collect()
    }
}

impl Plan<'_> {
    /// What there is to record of the plan.
    #[must_use]
    pub fn records(&self) -> Records {
        Records {
            filled: filled(&self.fills),
            withheld: withheld(&self.withheld),
            audited: filled(&self.audited),
        }
    }

    /// One short line for the client: where a policy in mode Audit would fill something in, and where a
    /// guard leaves the pod below its policy.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let below = |w: &&Withheld<'_>| w.guard.leaves_pod_below_policy();
        let mut guards: Vec<&str> = self
            .withheld
            .iter()
            .filter(below)
            .map(|w| w.guard.name())
            .collect();
        guards.sort_unstable();
        guards.dedup();
        let held_back = self.withheld.iter().filter(below).count();
        let mut parts = Vec::new();
        if !self.audited.is_empty() {
            parts.push(format!(
                "{} in Audit mode would be filled",
                count(self.audited.len())
            ));
        }
        if held_back > 0 {
            parts.push(format!(
                "{} not filled ({})",
                count(held_back),
                guards.join(", ")
            ));
        }
        if parts.is_empty() {
            return None;
        }
        let mut warning = format!("pod-hardening: {}", parts.join("; "));
        if warning.len() > WARNING_LIMIT {
            // ASCII throughout, so that any place to cut is a good one.
            warning.truncate(WARNING_LIMIT - 3);
            warning.push_str("...");
        }
        Some(warning)
    }
}

fn count(defaults: usize) -> String {
    if defaults == 1 {
        "1 default".to_owned()
    } else {
        format!("{defaults} defaults")
    }
}

/// Writes the annotations that record a plan, on top of what an earlier round recorded.
pub(crate) fn write(ops: &mut Operations<'_>, plan: &Plan<'_>, records: &Records) {
    // An ephemeral containers request changes nothing but ephemeral containers; the audit log has it.
    if plan.pod.running.is_some() {
        return;
    }
    let annotations = plan.pod.annotations();
    let (filled, withheld) = annotations.map_or((None, None), |annotations| {
        (annotations.filled.as_ref(), annotations.withheld.as_ref())
    });
    let records = [
        (FILLED, on_top_of(filled, &records.filled)),
        (WITHHELD, on_top_of(withheld, &records.withheld)),
    ];
    let records = records.iter().filter(|(_, json)| !json.is_empty());
    let written = annotations.map_or(0, |annotations| annotations.bytes);
    let bytes = |of: fn(&str) -> usize| {
        let added = records.clone().map(|(key, json)| key.len() + of(json));
        written + plan.app_armor_bytes + added.sum::<usize>()
    };
    // Escapes do not count, but only near the limit does that matter.
    if bytes(str::len) > ANNOTATIONS_LIMIT && bytes(len_unescaped) > ANNOTATIONS_LIMIT {
        return;
    }
    let object = |out: &mut Vec<u8>| {
        out.push(b'{');
        for (i, (key, json)) in records.clone().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            push(out, ["\"", key, "\":", json]);
        }
        out.push(b'}');
    };
    match (&plan.pod.metadata, annotations) {
        (None, _) => ops.add(["/metadata"], |out| {
            out.extend_from_slice(b"{\"annotations\":");
            object(out);
            out.push(b'}');
        }),
        (Some(_), None) => ops.add(["/metadata/annotations"], object),
        (Some(_), Some(_)) => {
            for (key, json) in records {
                let name = key.strip_prefix(DOMAIN).unwrap_or_default();
                ops.add(["/metadata/annotations/podhardening.dev~1", name], |out| {
                    push(out, [json]);
                });
            }
        }
    }
}

// === making the records ===

fn filled(fills: &[Fill<'_>]) -> String {
    let mut policies: SmallVec<[&PolicyRef; 4]> = SmallVec::new();
    for fill in fills {
        if !policies.iter().any(|policy| ptr::eq(*policy, fill.policy)) {
            policies.push(fill.policy);
        }
    }
    let mut policies: SmallVec<[(String, &PolicyRef); 4]> = policies
        .into_iter()
        .map(|policy| (policy.to_string(), policy))
        .collect();
    policies.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let policies = policies.iter().map(|(key, policy)| {
        let of_policy = fills.iter().filter(|fill| ptr::eq(fill.policy, *policy));
        // What a policy spells out of a list and what its profile says are two fills, one after the other.
        let mut before = None;
        let places = of_policy.filter_map(move |fill| {
            let place: Place<'_> = (fill.target, fill.field, None);
            (before.replace(place) != Some(place)).then_some(place)
        });
        (key.as_str(), places)
    });
    to_json_string(policies)
}

fn withheld(withheld: &[Withheld<'_>]) -> String {
    let mut guards: Vec<Guard> = withheld.iter().map(|held| held.guard).collect();
    guards.sort_unstable_by_key(|guard| guard.name());
    guards.dedup();
    let guards = guards.iter().map(|guard| {
        let mut places = Vec::new();
        for held in withheld.iter().filter(|held| held.guard == *guard) {
            let place = (held.target, held.field, held.item);
            // Several policies may have wanted to fill in the same.
            if !places.contains(&place) {
                places.push(place);
            }
        }
        (guard.name(), places.into_iter())
    });
    to_json_string(guards)
}

/// A field at its place, and the item of it that is meant, if it is one.
type Place<'a> = (Target<'a>, Field, Option<&'a str>);

fn to_json_string<'a, P: Iterator<Item = Place<'a>>>(
    lists: impl ExactSizeIterator<Item = (&'a str, P)>,
) -> String {
    if lists.len() == 0 {
        return String::new();
    }
    let mut out = Vec::with_capacity(RECORD_CAPACITY);
    out.extend_from_slice(b"\"{");
    for (i, (key, places)) in lists.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_nested_string(&mut out, |out| push(out, [key]));
        out.push(b':');
        write_list(&mut out, places, |out, (target, field, item)| {
            write_nested_string(out, |out| {
                push_path(out, target, field);
                if let Some(item) = item {
                    push(out, ["[", item, "]"]);
                }
            });
        });
    }
    out.extend_from_slice(b"}\"");
    // Made of text alone.
    String::from_utf8(out).unwrap_or_default()
}

/// Room for the record of a pod with a few containers.
const RECORD_CAPACITY: usize = 1024;

/// What an earlier round recorded, with what this one, a JSON string, adds to it; likewise.
fn on_top_of<'r>(earlier: Option<&Text<'_>>, json: &'r str) -> Cow<'r, str> {
    let Some(earlier) = earlier else {
        return Cow::Borrowed(json);
    };
    // What is not a record of ours is written over.
    let read = |json: &str| serde_json::from_str::<Record>(json).unwrap_or_default();
    let mut record = read(earlier.as_str());
    for (key, paths) in read(&unescaped(json)) {
        let known = record.entry(key).or_default();
        for path in paths {
            if !known.contains(&path) {
                known.push(path);
            }
        }
    }
    if record.is_empty() {
        return Cow::Borrowed("");
    }
    // Strings in maps cannot fail to become JSON, nor JSON a string.
    let record = serde_json::to_string(&record).unwrap_or_default();
    Cow::Owned(serde_json::to_string(&record).unwrap_or_default())
}

fn unescaped(json: &str) -> String {
    serde_json::from_str(json).unwrap_or_default()
}

fn len_unescaped(json: &str) -> usize {
    unescaped(json).len()
}

type Record = BTreeMap<String, Vec<String>>;

#[cfg(test)]
mod tests {
    use hardening_api::PodHardeningPolicy;
    use serde_json::json;

    use crate::{Pod, Policy, PolicySet, UnknownNamespaces, plan};

    #[test]
    fn a_list_that_a_policy_and_its_profile_add_to_is_recorded_once() {
        let policy: PodHardeningPolicy = serde_json::from_value(json!({
            "apiVersion": "podhardening.dev/v1alpha1", "kind": "PodHardeningPolicy",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"profile": "Hardened", "containers": {"writablePaths": [{"path": "/var/run"}]}},
        }))
        .unwrap();
        let mut set = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
        set.insert_policy(Policy::namespaced(&policy).unwrap());
        let pod = Pod::from_json(r#"{"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}"#);
        let pod = pod.unwrap();
        let records = plan(&set.matching("shop", &pod).unwrap(), &pod).records();
        let recorded = |path: &str| records.filled.matches(path).count();
        assert_eq!(recorded("spec.containers[a].writablePaths"), 1);
        assert_eq!(recorded("spec.containers[b].writablePaths"), 1);
    }
}
