//! The record of what was done, in the pod's annotations, byte for byte as `record.rs` writes it.

use crate::field::FieldRow;

use super::Compiler;
use super::text::{concatenated, text, texts};

/// A variable with outcomes, and how the record says where they stand.
pub(super) enum Segment {
    /// One outcome, and the path.
    Pod(String, String),
    /// An outcome for each container, and the path below it.
    Containers(String, String),
    /// A list of outcomes.
    PodItems(String, String),
    /// A list of outcomes for each container.
    ContainerItems(String, String),
}

impl Segment {
    pub(super) fn pod(row: &FieldRow, name: String) -> Self {
        Self::Pod(name, in_pod(row))
    }

    pub(super) fn containers(row: &FieldRow, name: String) -> Self {
        Self::Containers(name, below(row))
    }

    pub(super) fn pod_items(row: &FieldRow, name: String) -> Self {
        Self::PodItems(name, in_pod(row))
    }

    pub(super) fn container_items(row: &FieldRow, name: String) -> Self {
        Self::ContainerItems(name, below(row))
    }

    /// Pairs of a policy and a path that it filled in.
    fn filled(&self) -> String {
        match self {
            Self::Pod(name, path) => {
                format!("(has(variables.{name}.by) ? [[string(variables.{name}.by), {path}]] : [])")
            }
            Self::Containers(name, path) => format!(
                "variables.{name}.transformList(i, fill, has(fill.by), [string(fill.by), string(variables.containers[i].name) + {path}])"
            ),
            Self::PodItems(name, path) => format!(
                "variables.{name}.filter(fill, has(fill.by)).map(fill, string(fill.by)).distinct().map(by, [by, {path}])"
            ),
            Self::ContainerItems(name, path) => format!(
                "variables.{name}.transformList(i, fills, fills.filter(fill, has(fill.by)).map(fill, string(fill.by)).distinct().map(by, [by, string(variables.containers[i].name) + {path}])).flatten()"
            ),
        }
    }

    /// Pairs of a guard and a path that it held back.
    fn withheld(&self) -> String {
        let item = r#""[" + string(held.item) + "]""#;
        match self {
            Self::Pod(name, path) => {
                format!(
                    "(has(variables.{name}.held) ? [[string(variables.{name}.held), {path}]] : [])"
                )
            }
            Self::Containers(name, path) => format!(
                "variables.{name}.transformList(i, held, has(held.held), [string(held.held), string(variables.containers[i].name) + {path}])"
            ),
            Self::PodItems(name, path) => format!(
                "variables.{name}.filter(held, has(held.held)).map(held, [string(held.held), {path} + {item}])"
            ),
            Self::ContainerItems(name, path) => format!(
                "variables.{name}.transformList(i, items, items.filter(held, has(held.held)).map(held, [string(held.held), string(variables.containers[i].name) + {path} + {item}])).flatten()"
            ),
        }
    }
}

fn in_pod(row: &FieldRow) -> String {
    text(&format!("spec.{}", row.pod.unwrap_or_default()))
}

fn below(row: &FieldRow) -> String {
    text(&format!(".{}", row.container.unwrap_or_default()))
}

/// What a record looks like that was written here: no spaces, and no character that JSON escapes.
const RECORD: &str = r#"^\\{\"[^\"\\\\]+\":\\[\"[^\"\\\\]+\"(,\"[^\"\\\\]+\")*\\](,\"[^\"\\\\]+\":\\[\"[^\"\\\\]+\"(,\"[^\"\\\\]+\")*\\])*\\}$"#;

impl Compiler<'_> {
    pub(super) fn record(&mut self) {
        let mut policies: Vec<String> = self
            .policies
            .iter()
            .map(|(policy, _)| policy.reference().to_string())
            .collect();
        policies.sort_unstable();
        let mut guards: Vec<&str> = crate::guard::Guard::ALL.map(|guard| guard.name()).to_vec();
        guards.sort_unstable();
        let filled = concatenated(self.segments.iter().map(Segment::filled));
        let withheld = concatenated(self.segments.iter().map(Segment::withheld));
        for (name, pairs, keys) in [
            ("filled", filled, texts(policies.iter().map(String::as_str))),
            ("withheld", withheld, texts(guards)),
        ] {
            self.variable(name, pairs);
            self.variable(
                &format!("{name}Earlier"),
                format!(
                    r#"(variables.{name}Before.matches("{RECORD}") ? [variables.{name}Before] : []).map(record, record.substring(2, record.size() - 3).split("\"],\"")).flatten().map(entry, entry.split("\":[\"")).transformMapEntry(i, entry, {{entry[0]: entry[1].split("\",\"")}})"#
                ),
            );
            // Mostly nothing is held back, and then none of it need be put together.
            self.variable(
                &format!("{name}Record"),
                format!(
                    r#"variables.{name} == [] && variables.{name}Before == "" ? "{{}}" : "{{" + ({keys} + variables.{name}Earlier.map(key, key)).distinct().sort().map(key, {{"key": dyn(key), "before": dyn(variables.{name}Earlier[?key].orValue([])), "now": dyn(variables.{name}.filter(pair, pair[0] == key).map(pair, pair[1]))}}).map(entry, {{"key": entry.key, "paths": dyn(entry.before + entry.now.filter(path, !(path in entry.before)))}}).filter(entry, entry.paths != []).map(entry, "\"" + string(entry.key) + "\":[\"" + entry.paths.map(path, string(path)).join("\",\"") + "\"]").join(",") + "}}""#
                ),
            );
        }
    }
}
