//! Where people look: the record of a decision on the pod, in the API server's audit log, and in the
//! client's terminal. The same input gives the same bytes.

use std::collections::BTreeMap;

use crate::patch::{Operations, write_string};
use crate::plan::{Fill, Plan, Withheld};

/// On the pod: policy (`namespace/name@generation`, or `name@generation`) to the fields it filled in.
pub const FILLED: &str = "podhardening.dev/filled";
/// On the pod: guard to the fields that it held back.
pub const WITHHELD: &str = "podhardening.dev/withheld";

/// The most bytes that all annotations of an object may have together; beyond it the API server refuses
/// the object.
pub(crate) const ANNOTATIONS_LIMIT: usize = 256 * 1024;
/// The most characters of a warning that every client shows whole.
const WARNING_LIMIT: usize = 120;

type Record = BTreeMap<String, Vec<String>>;

impl Plan<'_> {
    /// What the API server's audit log gets: names without a prefix, and JSON.
    #[must_use]
    pub fn audit_annotations(&self) -> Vec<(&'static str, String)> {
        let records = [
            ("filled", filled(&self.fills)),
            ("withheld", withheld(&self.withheld)),
            ("audited", filled(&self.audited)),
        ];
        let said = records.into_iter().filter(|(_, record)| !record.is_empty());
        said.map(|(name, record)| (name, to_json(&record)))
            .collect()
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
        let mut warning = format!("pod-hardening: {}", parts.join("; "));
        if warning.len() > WARNING_LIMIT {
            // ASCII throughout, so that any place to cut is a good one.
            warning.truncate(WARNING_LIMIT - 3);
            warning.push_str("...");
        }
        (!parts.is_empty()).then_some(warning)
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
pub(crate) fn write(ops: &mut Operations<'_>, plan: &Plan<'_>) {
    // An ephemeral containers request changes nothing but ephemeral containers; the audit log has it.
    if plan.pod.running.is_some() {
        return;
    }
    let annotations = plan.pod.annotations();
    let earlier = |text: Option<&str>| {
        text.and_then(|text| serde_json::from_str::<Record>(text).ok())
            .unwrap_or_default()
    };
    let mut fields = earlier(
        annotations
            .and_then(|a| a.filled.as_ref())
            .map(|text| text.as_str()),
    );
    merge(&mut fields, filled(&plan.fills));
    let mut held = earlier(
        annotations
            .and_then(|a| a.withheld.as_ref())
            .map(|text| text.as_str()),
    );
    merge(&mut held, withheld(&plan.withheld));

    let mut records = vec![(FILLED, to_json(&fields))];
    if !held.is_empty() {
        records.push((WITHHELD, to_json(&held)));
    }
    let added: usize = records
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if annotations.map_or(0, |annotations| annotations.bytes) + added > ANNOTATIONS_LIMIT {
        return;
    }
    let object = |out: &mut Vec<u8>| {
        out.push(b'{');
        for (i, (key, value)) in records.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write_string(out, key);
            out.push(b':');
            write_string(out, value);
        }
        out.push(b'}');
    };
    match (&plan.pod.metadata, annotations) {
        (None, _) => ops.add(format_args!("/metadata"), |out| {
            out.extend_from_slice(b"{\"annotations\":");
            object(out);
            out.push(b'}');
        }),
        (Some(_), None) => ops.add(format_args!("/metadata/annotations"), object),
        (Some(_), Some(_)) => {
            for (key, value) in &records {
                let key = key.replace('/', "~1");
                ops.add(format_args!("/metadata/annotations/{key}"), |out| {
                    write_string(out, value);
                });
            }
        }
    }
}

fn filled(fills: &[Fill<'_>]) -> Record {
    let mut record = Record::new();
    for fill in fills {
        push(&mut record, fill.policy.to_string(), fill.path());
    }
    record
}

fn withheld(withheld: &[Withheld<'_>]) -> Record {
    let mut record = Record::new();
    for held in withheld {
        let path = match held.item {
            Some(item) => format!("{}[{item}]", held.path()),
            None => held.path(),
        };
        push(&mut record, held.guard.name().to_owned(), path);
    }
    record
}

fn merge(record: &mut Record, more: Record) {
    for (key, paths) in more {
        for path in paths {
            push(record, key.clone(), path);
        }
    }
}

fn push(record: &mut Record, key: String, path: String) {
    let paths = record.entry(key).or_default();
    if !paths.contains(&path) {
        paths.push(path);
    }
}

fn to_json(record: &Record) -> String {
    // Strings in maps cannot fail to become JSON.
    serde_json::to_string(record).unwrap_or_default()
}
