//! How each shape of field is filled, row by row: `fill.rs` in CEL.

use crate::check::cel::{Asked, Place, held_item, held_value};
use crate::defaults::{Item, Level, PolicyDefault};
use crate::field::{FIELDS, Field, FieldRow, Shape};
use crate::fill::Candidate;
use crate::guard::Guard;
use crate::patch::{name_part, path_hash};
use crate::policy::Policy;

use super::choose::{by_kind, pick};
use super::record::Segment;
use super::text::{all, any, concatenated, either, not, text};
use super::{Compiler, Note, filled};

/// What holds back a pod's value, and then lets it stand on the containers.
const SPREAD: [Guard; 3] = [
    Guard::RunsAsRoot,
    Guard::NonRootDemanded,
    Guard::GroupWithoutUser,
];

impl<'a> Compiler<'a> {
    pub(super) fn rows(&mut self) {
        for row in &FIELDS {
            match (row.shape, row.is_two_level(), row.pod.is_some()) {
                (Shape::Single, true, _) => self.two_levels(row),
                (Shape::Single, false, true) => self.pod_single(row),
                (Shape::Single, false, false) => self.container_single(row),
                (Shape::List, _, true) => self.pod_list(row),
                (Shape::List | Shape::Paths, ..) => self.container_list(row),
            }
        }
    }

    // --- single values ---

    fn pod_single(&mut self, row: &FieldRow) {
        let choices = self.pod_choices(row.field);
        if choices.is_empty() {
            return;
        }
        for (_, candidate) in &choices {
            let note = Note::of(self, candidate);
            self.notes.extend(note);
        }
        let value = pick(&choices, "{}", |candidate| {
            self.outcome(Place::Pod, candidate)
        });
        let closed = any(["variables.running".to_owned(), written_in_pod(row)]);
        let name = of_pod(row.field);
        self.variable(&name, format!("{closed} ? {{}} : {value}"));
        self.segments.push(Segment::pod(row, name));
    }

    fn container_single(&mut self, row: &FieldRow) {
        let value = by_kind(|kind| {
            pick(
                &self.container_choices(row.field, kind),
                "{}",
                |candidate| self.outcome(Place::Container, candidate),
            )
        });
        self.of_containers(row, &written(row), &value);
    }

    fn two_levels(&mut self, row: &FieldRow) {
        let field = row.field;
        let authors = authors(row);
        let at_level = |level: Level| {
            by_kind(|kind| {
                pick(&self.decisions(field, kind), "{}", |candidate| {
                    match candidate.default.level == level {
                        true => self.outcome(Place::Container, candidate),
                        false => "{}".to_owned(),
                    }
                })
            })
        };
        let (own, spread) = (at_level(Level::Container), at_level(Level::Pod));
        self.of_containers(row, &any([written(row), authors]), &own);
        self.pod_single(row);
        let name = of_pod(field);
        if !self.has(&name) || !row.guards.iter().any(|guard| SPREAD.contains(guard)) {
            return;
        }
        let guards: Vec<String> = SPREAD.iter().map(|guard| text(guard.name())).collect();
        let spreads = format!(
            r#"variables.{name}.?held.orValue("") in [{}]"#,
            guards.join(", ")
        );
        let value = either(&self.inherits(row), spread, "{}".to_owned());
        let spread_name = self::spread(field);
        self.variable(
            &spread_name,
            format!(
                "{spreads} ? variables.containers.transformList(i, n, {value}) : variables.containers.map(n, {{}})"
            ),
        );
        self.segments.push(Segment::containers(row, spread_name));
    }

    fn of_containers(&mut self, row: &FieldRow, closed: &str, value: &str) {
        if value == "{}" {
            return;
        }
        let name = of_containers(row.field);
        self.variable(
            &name,
            format!("variables.containers.transformList(i, n, {closed} ? {{}} : {value})"),
        );
        self.segments.push(Segment::containers(row, name));
    }

    /// A candidate's value, or the guard that holds it back.
    fn outcome(&self, place: Place, candidate: &Candidate<'a>) -> String {
        let asked = Asked {
            compiler: self,
            place,
            candidate,
        };
        let mut value = Vec::new();
        candidate.default.value.write_json(&mut value);
        let fill = filled(candidate, &String::from_utf8(value).unwrap_or_default());
        held(held_value(&asked), fill)
    }

    /// Whether the container `n` leaves a field to its pod.
    pub(crate) fn inherits(&self, row: &FieldRow) -> String {
        let own = of_containers(row.field);
        let has_own = match self.has(&own) {
            true => format!("has(variables.{own}[i].value)"),
            false => "false".to_owned(),
        };
        not(&any([written(row), has_own]))
    }

    // --- lists ---

    fn pod_list(&mut self, row: &FieldRow) {
        let field = row.field;
        let base = base(field);
        let present = match field {
            Field::Sysctls => SYSCTL_KEYS.to_owned(),
            _ => "variables.podContext.?supplementalGroups.orValue([]).map(group, string(group))"
                .to_owned(),
        };
        let present_name = format!("{base}There");
        let items = self.items(
            row,
            &format!("variables.{present_name}"),
            Place::Pod,
            |policy| policy.pod_defaults(field).collect(),
        );
        if items == "[]" {
            return;
        }
        self.variable(&present_name, present);
        let name = of_pod(field);
        self.variable(&name, format!("variables.running ? [] : {items}"));
        self.segments.push(Segment::pod_items(row, name));
    }

    fn container_list(&mut self, row: &FieldRow) {
        let field = row.field;
        let paths = row.shape == Shape::Paths;
        let there = format!("{}There", base(field));
        let present = match paths {
            true => "[]".to_owned(),
            false => format!("variables.{there}[i]"),
        };
        let items = self.items(row, &present, Place::Container, |policy| {
            policy.defaults_of_containers(field).collect()
        });
        if items == "[]" {
            return;
        }
        if !paths {
            let member = if field == Field::CapabilitiesDrop {
                "drop"
            } else {
                "add"
            };
            self.variable(
                &there,
                format!(
                    r#"variables.containers.map(n, n.context.?capabilities.?{member}.orValue([]).map(name, name.upperAscii()).map(name, name.startsWith("CAP_") ? name.substring(4) : name))"#
                ),
            );
        }
        let open = match paths {
            true => {
                let made = of_containers(Field::ReadOnlyRootFilesystem);
                if !self.has(&made) {
                    return;
                }
                all([
                    "!variables.running".to_owned(),
                    format!("variables.{made}[i].?value.orValue(false)"),
                ])
            }
            false => "true".to_owned(),
        };
        let value = either(&open, items, "[]".to_owned());
        let name = of_containers(field);
        self.variable(
            &name,
            format!("variables.containers.transformList(i, n, {value})"),
        );
        self.segments.push(Segment::container_items(row, name));
    }

    /// The policies' items, first policy first, each with what must hold for it to be added.
    fn items(
        &self,
        row: &FieldRow,
        present: &str,
        place: Place,
        defaults: impl Fn(&'a Policy) -> Vec<&'a PolicyDefault>,
    ) -> String {
        let mut offered: Vec<(&'a Item, String)> = Vec::new();
        let mut lists = Vec::new();
        for (rank, (policy, condition)) in self.policies.iter().enumerate() {
            for default in defaults(policy) {
                let candidate = Candidate {
                    rank,
                    policy,
                    default,
                };
                let of_kind = match place {
                    Place::Pod => "true".to_owned(),
                    Place::Container => by_kind(|kind| {
                        let mut of_kind = policy.container_defaults(row.field, kind);
                        of_kind.any(|one| std::ptr::eq(one, default)).to_string()
                    }),
                };
                for item in default.value.items() {
                    let open = match (row.shape, policy.union) {
                        (Shape::Paths, _) => "true".to_owned(),
                        (_, true) => format!("!({} in {present})", text(&item.key)),
                        (_, false) => format!("{present} == []"),
                    };
                    let offers = all([condition.clone(), of_kind.clone(), open]);
                    let earlier = offered.iter().filter(|(other, _)| other.key == item.key);
                    let first = earlier.map(|(_, offers)| not(offers));
                    let is_added = all(first.chain([offers.clone()]));
                    let outcome = self.item_outcome(place, &candidate, item);
                    lists.push(either(&is_added, format!("[{outcome}]"), "[]".to_owned()));
                    offered.push((item, offers));
                }
            }
        }
        concatenated(lists)
    }

    fn item_outcome(&self, place: Place, candidate: &Candidate<'a>, item: &'a Item) -> String {
        let asked = Asked {
            compiler: self,
            place,
            candidate,
        };
        let key = text(&item.key);
        // The parts of a name for the volume of a path.
        let names = match candidate.default.field {
            Field::WritablePaths => format!(
                r#", "name": dyn({}), "hash": dyn({})"#,
                text(name_part(&item.key).trim_end_matches('-')),
                text(&format!("-{}", path_hash(&item.key))),
            ),
            _ => String::new(),
        };
        let fill = format!(
            r#"{{"by": dyn({}), "key": dyn({key}), "value": dyn({}){names}}}"#,
            super::policy_name(candidate.policy.reference()),
            item.json
        );
        // As the record says it, which is JSON.
        let recorded = text(key.get(1..key.len() - 1).unwrap_or_default());
        let guards = held_item(&asked, item);
        guards
            .into_iter()
            .rev()
            .fold(fill, |otherwise, (guard, condition)| {
                let name = text(guard.name());
                let held = format!(r#"{{"held": dyn({name}), "item": dyn({recorded})}}"#);
                either(&condition, held, otherwise)
            })
    }
}

/// The sysctls' names with dots between their parts: as `fill::sysctl_key`.
const SYSCTL_KEYS: &str = r#"variables.podContext.?sysctls.orValue([]).map(sysctl, sysctl.name.indexOf("/") >= 0 && (sysctl.name.indexOf(".") < 0 || sysctl.name.indexOf("/") < sysctl.name.indexOf(".")) ? sysctl.name.replace("/", " ").replace(".", "/").replace(" ", ".") : sysctl.name)"#;

/// The first guard that holds a value back, or the value.
fn held(guards: Vec<(Guard, String)>, fill: String) -> String {
    guards
        .into_iter()
        .rev()
        .fold(fill, |otherwise, (guard, condition)| {
            let held = format!(r#"{{"held": dyn({})}}"#, text(guard.name()));
            either(&condition, held, otherwise)
        })
}

/// A field's name as part of a variable's: `capabilitiesDrop`.
pub(crate) fn base(field: Field) -> String {
    let mut parts = field.name().split('.');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut name, part| {
        let mut letters = part.chars();
        name.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        name.extend(letters);
        name
    })
}

/// The variable with a field's outcome for the pod.
pub(crate) fn of_pod(field: Field) -> String {
    format!("{}OfPod", base(field))
}

/// The variable with a field's outcome for each container.
pub(crate) fn of_containers(field: Field) -> String {
    format!("{}OfContainers", base(field))
}

/// The variable with a field's outcome for each container, where it cannot stand at pod level.
pub(crate) fn spread(field: Field) -> String {
    format!("{}Spread", base(field))
}

/// Whether the pod has the field.
pub(crate) fn written_in_pod(row: &FieldRow) -> String {
    let path = row.pod.unwrap_or_default();
    match path.strip_prefix("securityContext.") {
        Some(member) => is_said(row.field, "variables.podContext", member),
        None => is_said(row.field, "object.spec", path),
    }
}

/// Whether the container `n` has the field.
pub(crate) fn written(row: &FieldRow) -> String {
    let path = row.container.unwrap_or_default();
    let member = path.strip_prefix("securityContext.").unwrap_or(path);
    is_said(row.field, "n.context", member)
}

/// An object with nothing in it says nothing.
fn is_said(field: Field, holder: &str, member: &str) -> String {
    match field {
        Field::SeccompProfile | Field::AppArmorProfile | Field::SeLinuxOptions => {
            format!("{holder}.?{member}.orValue({{}}) != {{}}")
        }
        _ => format!("has({holder}.{member})"),
    }
}

/// Whether the pod's author wrote a field of both levels at pod level: our own fill must not pass for the
/// author's word when a container is added later.
pub(crate) fn authors(row: &FieldRow) -> String {
    let recorded = text(&format!("\"spec.{}\"", row.pod.unwrap_or_default()));
    all([
        written_in_pod(row),
        format!("!variables.filledBefore.contains({recorded})"),
    ])
}
