//! Namespaces by controls: in how many of a namespace's workloads a field is missing or held back, and which
//! checks of the Pod Security Standards still stand in the way of the next level.

use std::collections::{BTreeMap, BTreeSet};

use hardening_engine::FIELDS;

use crate::audit::model::{Audit, Workload};

/// The table.
#[derive(Debug)]
pub(super) struct Matrix<'a> {
    /// Fields that any workload lacks or is denied, in the order of the table of fields.
    pub(super) fields: Vec<&'static str>,
    /// Checks that any workload fails, by name.
    pub(super) checks: Vec<&'static str>,
    /// By the namespaces' names.
    pub(super) rows: Vec<Row<'a>>,
}

#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) namespace: &'a str,
    /// One for each field, then one for each check.
    pub(super) cells: Vec<Cell>,
}

/// A control in a namespace, in numbers of workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    /// Those that lack the field.
    pub(super) missing: usize,
    /// Those where a guard holds it back.
    pub(super) withheld: usize,
    /// Those that fail the check even after hardening.
    pub(super) failing: usize,
}

type Cells = BTreeMap<&'static str, Cell>;

impl<'a> Matrix<'a> {
    pub(super) fn of(audit: &'a Audit) -> Self {
        let mut fields: BTreeMap<&str, Cells> = BTreeMap::new();
        let mut checks: BTreeMap<&str, Cells> = BTreeMap::new();
        for workload in &audit.workloads {
            let namespace = workload.namespace.as_str();
            count_fields(workload, fields.entry(namespace).or_default());
            let failing: BTreeSet<_> = workload
                .obstacles
                .iter()
                .map(|found| found.what.check)
                .collect();
            for check in failing {
                let cells = checks.entry(namespace).or_default();
                cells.entry(check).or_default().failing += 1;
            }
        }
        let seen = |cells: &BTreeMap<&str, Cells>| -> BTreeSet<&'static str> {
            cells
                .values()
                .flat_map(|cells| cells.keys().copied())
                .collect()
        };
        let seen_fields = seen(&fields);
        let names = FIELDS.iter().map(|row| row.field.name());
        let field_names: Vec<_> = names.filter(|name| seen_fields.contains(name)).collect();
        let check_names: Vec<_> = seen(&checks).into_iter().collect();
        let rows = audit.namespaces.iter().map(|namespace| {
            let cell = |cells: &BTreeMap<&str, Cells>, name: &&'static str| {
                let cells = cells.get(namespace.name.as_str());
                cells
                    .and_then(|cells| cells.get(name))
                    .copied()
                    .unwrap_or_default()
            };
            let of_fields = field_names.iter().map(|name| cell(&fields, name));
            let of_checks = check_names.iter().map(|name| cell(&checks, name));
            Row {
                namespace: &namespace.name,
                cells: of_fields.chain(of_checks).collect(),
            }
        });
        let rows = rows.collect();
        Self {
            fields: field_names,
            checks: check_names,
            rows,
        }
    }
}

/// Counts a workload once for each field, however many of its containers lack it.
fn count_fields(workload: &Workload, cells: &mut Cells) {
    let missing: BTreeSet<_> = workload
        .missing
        .iter()
        .map(|found| found.what.fill.field)
        .collect();
    let withheld: BTreeSet<_> = workload
        .withheld
        .iter()
        .filter_map(|found| field_of(&found.what.path))
        .collect();
    for field in missing {
        cells.entry(field).or_default().missing += 1;
    }
    for field in withheld {
        cells.entry(field).or_default().withheld += 1;
    }
}

/// The field that a path leads to: `spec.containers[app].securityContext.procMount` to `procMount`.
fn field_of(path: &str) -> Option<&'static str> {
    let in_container = path.split_once("].").map(|(_, rest)| rest);
    let row = FIELDS.iter().find(|row| match in_container {
        Some(rest) => row.container == Some(rest),
        None => path
            .strip_prefix("spec.")
            .is_some_and(|rest| row.pod == Some(rest)),
    })?;
    Some(row.field.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_its_field_at_both_levels() {
        for (path, expected) in [
            ("spec.securityContext.runAsNonRoot", Some("runAsNonRoot")),
            (
                "spec.containers[a.b].securityContext.runAsNonRoot",
                Some("runAsNonRoot"),
            ),
            (
                "spec.containers[app].securityContext.capabilities.drop",
                Some("capabilities.drop"),
            ),
            ("spec.hostUsers", Some("hostUsers")),
            ("spec.containers[app].writablePaths", Some("writablePaths")),
            ("spec.nodeName", None),
        ] {
            assert_eq!(field_of(path), expected, "{path}");
        }
    }
}
