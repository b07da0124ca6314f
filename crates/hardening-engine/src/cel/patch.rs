//! The JSON Patch in CEL: `patch.rs` for the API server. Lists are written whole, as an `add` at a place that
//! is there replaces what is there.

use crate::field::{FIELDS, Field, FieldRow, Shape};
use crate::patch::{CUT_CONTAINER, MAX_NAME, NAME_MARK};
use crate::record::{ANNOTATIONS_LIMIT, FILLED, WITHHELD};

use super::Compiler;
use super::rows::{of_containers, of_pod, spread};
use super::text::{any, concatenated, text};

const CONTEXT: &str = "securityContext.";

impl Compiler<'_> {
    /// The patch, and the variables that it needs besides.
    pub(super) fn patch(&mut self) -> String {
        let pod = self.pod_operations();
        let volumes = self.volumes();
        let containers = self.container_operations(!volumes.is_empty());
        let annotations = self.annotations();
        concatenated(
            [pod, containers, volumes, annotations]
                .into_iter()
                .flatten(),
        )
    }

    // --- fields ---

    fn pod_operations(&self) -> Vec<String> {
        let rows: Vec<&FieldRow> = FIELDS
            .iter()
            .filter(|row| row.pod.is_some() && self.has(&of_pod(row.field)))
            .collect();
        let path = |row: &FieldRow| row.pod.unwrap_or_default();
        let mut operations = Vec::new();
        let in_context: Vec<&str> = rows
            .iter()
            .map(|row| path(row))
            .filter(|path| path.starts_with(CONTEXT))
            .collect();
        if !in_context.is_empty() {
            operations.push(
                r#"(has(object.spec.securityContext) || variables.running ? [] : [JSONPatch{op: "add", path: "/spec/securityContext", value: {}}])"#.to_owned(),
            );
        }
        for row in rows {
            let name = of_pod(row.field);
            let at = format!("/spec/{}", path(row).replace('.', "/"));
            operations.push(match is_list(row) {
                false => format!(
                    r#"(has(variables.{name}.value) ? [JSONPatch{{op: "add", path: "{at}", value: variables.{name}.value}}] : [])"#
                ),
                true => {
                    let member = path(row).strip_prefix(CONTEXT).unwrap_or_default();
                    format!(
                        r#"(variables.{name}.exists(fill, has(fill.value)) ? [JSONPatch{{op: "add", path: "{at}", value: variables.podContext.?{member}.orValue([]) + variables.{name}.filter(fill, has(fill.value)).map(fill, fill.value)}}] : [])"#
                    )
                }
            });
        }
        operations
    }

    fn container_operations(&mut self, with_mounts: bool) -> Vec<String> {
        let mut in_context = Vec::new();
        let mut in_capabilities = Vec::new();
        let mut operations = Vec::new();
        let rows = FIELDS
            .iter()
            .filter(|row| row.field != Field::WritablePaths);
        for row in rows {
            let path = row.container.unwrap_or_default();
            let names = [of_containers(row.field), spread(row.field)];
            for name in names.into_iter().filter(|name| self.has(name)) {
                let at = path.replace('.', "/");
                let fill = format!("variables.{name}[i]");
                let (condition, value) = match is_list(row) {
                    false => (format!("has({fill}.value)"), format!("{fill}.value")),
                    true => {
                        let member = path.rsplit('.').next().unwrap_or_default();
                        (
                            format!("{fill}.exists(fill, has(fill.value))"),
                            format!(
                                "n.context.?capabilities.?{member}.orValue([]) + {fill}.filter(fill, has(fill.value)).map(fill, fill.value)"
                            ),
                        )
                    }
                };
                in_context.push(condition.clone());
                if is_list(row) {
                    in_capabilities.push(condition.clone());
                }
                operations.push(format!(
                    r#"({condition} ? [JSONPatch{{op: "add", path: n.at + "/{at}", value: {value}}}] : [])"#
                ));
            }
        }
        let mut each = Vec::new();
        if !operations.is_empty() {
            each.push(format!(
                r#"(!has(n.it.securityContext) && {} ? [JSONPatch{{op: "add", path: n.at + "/securityContext", value: {{}}}}] : [])"#,
                any(in_context)
            ));
        }
        if !in_capabilities.is_empty() {
            each.push(format!(
                r#"(!has(n.context.capabilities) && {} ? [JSONPatch{{op: "add", path: n.at + "/securityContext/capabilities", value: {{}}}}] : [])"#,
                any(in_capabilities)
            ));
        }
        each.extend(operations);
        if with_mounts {
            each.push(
                r#"(variables.mountsOfContainers[i] != n.it.?volumeMounts.orValue([]) ? [JSONPatch{op: "add", path: n.at + "/volumeMounts", value: variables.mountsOfContainers[i]}] : [])"#.to_owned(),
            );
        }
        match each.is_empty() {
            true => Vec::new(),
            false => vec![format!(
                "variables.containers.transformList(i, n, {}).flatten()",
                concatenated(each)
            )],
        }
    }

    // --- the token and writable paths ---

    /// The operation on the pod's volumes; none where no policy touches them.
    fn volumes(&mut self) -> Vec<String> {
        let (token, paths) = (
            of_pod(Field::AutomountServiceAccountToken),
            of_containers(Field::WritablePaths),
        );
        if !self.has(&token) && !self.has(&paths) {
            return Vec::new();
        }
        let removed = match self.has(&token) {
            true => {
                format!("variables.{token}.?value.orValue(true) ? [] : variables.injectedTokens")
            }
            false => "[]".to_owned(),
        };
        self.variable("removedVolumes", removed);
        let added = match self.has(&paths) {
            true => self.writable(&paths),
            false => "[]".to_owned(),
        };
        let mounts = "n.it.?volumeMounts.orValue([]).filter(mount, !(mount.name in variables.removedVolumes))";
        let volumes = "object.spec.?volumes.orValue([]).filter(volume, !(volume.name in variables.removedVolumes))";
        let (mounts, volumes) = match added.as_str() {
            "[]" => (mounts.to_owned(), volumes.to_owned()),
            added => (
                format!(
                    r#"{mounts} + {added}.filter(volume, volume.of == i).map(volume, dyn({{"mountPath": volume.path, "name": volume.name}}))"#
                ),
                format!(
                    r#"{volumes} + {added}.map(volume, dyn({{"emptyDir": dyn(volume.emptyDir), "name": dyn(volume.name)}}))"#
                ),
            ),
        };
        self.variable(
            "mountsOfContainers",
            format!("variables.containers.transformList(i, n, {mounts})"),
        );
        self.variable("volumes", volumes);
        vec![
            r#"(variables.volumes != object.spec.?volumes.orValue([]) ? [JSONPatch{op: "add", path: "/spec/volumes", value: variables.volumes}] : [])"#.to_owned(),
        ]
    }

    /// The volumes to add: each with the index of its container, its mount's path, its emptyDir and its name.
    fn writable(&mut self, paths: &str) -> String {
        let mark = text(NAME_MARK);
        let full = self.variable(
            "writable",
            format!(
                r#"variables.{paths}.transformList(i, fills, fills.filter(fill, has(fill.value)).map(fill, {{"of": dyn(i), "path": dyn(fill.key), "emptyDir": fill.value, "base": dyn({mark} + variables.containers[i].it.name + fill.name), "short": dyn({mark} + variables.containers[i].it.name.substring(0, variables.containers[i].it.name.size() < {CUT_CONTAINER} ? variables.containers[i].it.name.size() : {CUT_CONTAINER}) + fill.hash)}})).flatten().map(volume, {{"of": volume.of, "path": volume.path, "emptyDir": volume.emptyDir, "base": volume.base.size() > {MAX_NAME} ? volume.short : volume.base}})"#,
            ),
        );
        // The first free one of NAME, NAME-2, NAME-3 and so on.
        let suffixes = (2..=9).map(|n| format!("-{n}")).collect::<Vec<_>>();
        let room = MAX_NAME - 2;
        let names = format!(
            r#"([string(volume.base)] + {}.map(suffix, string(volume.base).substring(0, volume.base.size() < {room} ? volume.base.size() : {room}) + suffix)).filter(name, !object.spec.?volumes.orValue([]).exists(there, there.name == name))[{full}.transformList(earlier, other, earlier < number && other.base == volume.base, other).size()]"#,
            super::text::texts(suffixes.iter().map(String::as_str)),
        );
        self.variable(
            "writableVolumes",
            format!(
                r#"{full}.transformList(number, volume, {{"of": volume.of, "path": volume.path, "emptyDir": volume.emptyDir, "name": dyn({names})}})"#
            ),
        )
    }

    // --- the record ---

    fn annotations(&mut self) -> Vec<String> {
        let records = [("filled", FILLED), ("withheld", WITHHELD)];
        let room = records.map(|(name, key)| {
            format!(
                r#"(variables.{name}Record == "{{}}" ? 0 : {} + size(bytes(variables.{name}Record)))"#,
                key.len()
            )
        });
        self.variable(
            "recorded",
            format!(
                "!variables.running && variables.filled != [] && variables.annotations.transformList(key, value, size(bytes(key)) + size(bytes(value))).sum() + {} <= {ANNOTATIONS_LIMIT}",
                room.join(" + ")
            ),
        );
        let operation = |(name, key): (&str, &str)| {
            format!(
                r#"(variables.{name}Record != "{{}}" ? [JSONPatch{{op: "add", path: "/metadata/annotations/{}", value: variables.{name}Record}}] : [])"#,
                key.replace('/', "~1")
            )
        };
        let [filled, withheld] = records.map(operation);
        vec![format!(
            r#"(variables.recorded ? (has(object.metadata.annotations) ? [] : [JSONPatch{{op: "add", path: "/metadata/annotations", value: {{}}}}]) + {filled} + {withheld} : [])"#
        )]
    }
}

/// Whether the field's value is a list of items.
fn is_list(row: &FieldRow) -> bool {
    row.shape != Shape::Single
}
