//! The engine against a model of its documentation (`docs/concepts.md`): written again, by another hand, over
//! plain JSON, slowly and without an index, a patch or a guard. What the engine holds back it must say; all
//! else is where the model says, with the value that the model says, and nothing else is.

use std::collections::BTreeMap;

use hardening_engine::{FIELDS, Field, FieldRow, Guard, Pod, Shape, WITHHELD, plan};
use serde_json::{Value, json};

use crate::support::generate;
use crate::support::generate::Random;
use crate::support::generate::policy::NAMESPACES;
use crate::support::lab::policy_set;
use crate::support::tell::tell;

const CASES: usize = 3000;

#[test]
fn every_default_comes_from_the_policy_that_the_documentation_says() {
    let seed = generate::base_seed();
    let (mut looked_at, mut set) = (0, 0);
    let cases = generate::cases(CASES);
    for number in 0..cases {
        let mut random = Random::of(seed, "model", number);
        let policies = generate::policy::set(&mut random);
        let (namespace, labels) = *random.pick(&NAMESPACES);
        let mut pod = generate::pod::pod(&mut random, "modelled");
        if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
            // What looks like a record, or is a mirror pod, is another story.
            let others = [
                "podhardening.dev/filled",
                WITHHELD,
                "kubernetes.io/config.mirror",
            ];
            annotations.retain(|key, _| !others.contains(&key.as_str()));
        }
        let case = Case::run(&policies, (namespace, labels), &pod);
        let (looked, found) = case.check().unwrap_or_else(|what| {
            panic!(
                "case {number} of HARDENING_TEST_SEED={seed}: {what}\nthe pod\n{pod:#}\nin {namespace}, with\n{policies:#?}"
            )
        });
        looked_at += looked;
        set += found;
    }
    tell(&format!(
        "model: {looked_at} places of fields in {cases} pods, a default in {set} of them, seed {seed}"
    ));
    assert!(set > cases, "{set}");
}

struct Case<'c> {
    /// The policies that count, the first one first.
    policies: Vec<&'c Value>,
    before: &'c Value,
    after: Value,
    /// What was held back: the path, or the path and an item.
    withheld: BTreeMap<(String, Option<String>), Guard>,
}

impl<'c> Case<'c> {
    fn run(
        policies: &'c [Value],
        (namespace, labels): (&str, &[(&str, &str)]),
        pod: &'c Value,
    ) -> Self {
        let text = pod.to_string();
        let view = Pod::from_json(&text).unwrap();
        let set = policy_set(policies);
        let plan = plan(&set.matching(namespace, &view).unwrap(), &view);
        let mut after = pod.clone();
        json_patch::patch(&mut after, &plan.to_patch()).unwrap();
        let withheld = plan
            .withheld
            .iter()
            .map(|held| ((held.path(), held.item.map(str::to_owned)), held.guard));
        Self {
            policies: in_order(policies, namespace, labels, pod),
            before: pod,
            withheld: withheld.collect(),
            after,
        }
    }

    /// How many places were looked at, and in how many of them there is a default.
    fn check(&self) -> Result<(usize, usize), String> {
        let (mut looked_at, mut set) = (0, 0);
        for row in &FIELDS {
            for (what, expected, found) in self.places(row) {
                if expected != found {
                    return Err(format!("{what} is {found}, and should be {expected}"));
                }
                looked_at += 1;
                set += usize::from(!found.is_null());
            }
        }
        Ok((looked_at, set))
    }

    /// Every place of a field that its author left open: which, what should be there, and what is.
    fn places(&self, row: &FieldRow) -> Vec<(String, Value, Value)> {
        match row.shape {
            Shape::Single => self.single(row),
            Shape::List => self.list(row),
            Shape::Paths => self.paths(row),
        }
    }

    fn single(&self, row: &FieldRow) -> Vec<(String, Value, Value)> {
        let mut places = Vec::new();
        let written = row.pod.map(|path| said(&self.before["spec"], path));
        let pod_level = row.pod.map(|path| {
            let default = self
                .policies
                .iter()
                .find_map(|policy| first(policy, "pod", path, ""));
            (path, default)
        });
        let mut fallback = false;
        if let Some((path, default)) = &pod_level {
            let what = format!("spec.{path}");
            let held = self.withheld.get(&(what.clone(), None));
            // What cannot be at pod level stands on each container that can have it.
            fallback = held.is_some_and(|guard| {
                [
                    Guard::RunsAsRoot,
                    Guard::NonRootDemanded,
                    Guard::GroupWithoutUser,
                ]
                .contains(guard)
            });
            let default = default.clone().filter(|_| held.is_none());
            let own = written.clone().flatten();
            let expected = own.or(default).unwrap_or_default();
            places.push((
                what,
                expected,
                said(&self.after["spec"], path).unwrap_or_default(),
            ));
        }
        let Some(path) = row.container else {
            return places;
        };
        for (list, kind, i, container) in self.containers() {
            let what = format!(
                "spec.{list}[{}].{path}",
                container["name"].as_str().unwrap()
            );
            let decision = self.policies.iter().find_map(|policy| {
                let own = first(policy, "containers", path, kind).map(|value| (value, true));
                let of_pod = || Some((first(policy, "pod", row.pod?, "")?, false));
                own.or_else(of_pod)
            });
            let spoken_for = written.as_ref().is_some_and(Option::is_some);
            let expected = match (said(container, path), decision) {
                (Some(own), _) => own,
                _ if spoken_for || self.withheld.contains_key(&(what.clone(), None)) => Value::Null,
                (None, Some((value, true))) => value,
                (None, Some((value, false))) if fallback => value,
                (None, _) => Value::Null,
            };
            let found = said(&self.after["spec"][list][i], path).unwrap_or_default();
            places.push((what, expected, found));
        }
        places
    }

    fn list(&self, row: &FieldRow) -> Vec<(String, Value, Value)> {
        if let Some(path) = row.pod {
            let what = format!("spec.{path}");
            let expected = self.combined(&what, row.field, &self.before["spec"], ("pod", path, ""));
            let found = said(&self.after["spec"], path).unwrap_or_default();
            return vec![(what, expected, found)];
        }
        let path = row.container.unwrap();
        let containers = self.containers().into_iter();
        containers
            .map(|(list, kind, i, container)| {
                let what = format!(
                    "spec.{list}[{}].{path}",
                    container["name"].as_str().unwrap()
                );
                let place = ("containers", path, kind);
                let expected = self.combined(&what, row.field, container, place);
                let found = said(&self.after["spec"][list][i], path).unwrap_or_default();
                (what, expected, found)
            })
            .collect()
    }

    /// The author's items, and then those of each policy, first policy first.
    fn combined(
        &self,
        what: &str,
        field: Field,
        holder: &Value,
        (level, path, kind): (&str, &str, &str),
    ) -> Value {
        let written = said(holder, path);
        let mut items = match &written {
            Some(Value::Array(items)) => items.clone(),
            _ => Vec::new(),
        };
        for policy in &self.policies {
            if written.is_some() && policy["spec"]["listMerge"] != "Union" {
                continue;
            }
            for default in all(policy, level, path, kind) {
                for item in default.as_array().unwrap() {
                    let key = key(field, item);
                    let held = self
                        .withheld
                        .contains_key(&(what.to_owned(), Some(key.clone())));
                    if !held && !items.iter().any(|there| self::key(field, there) == key) {
                        items.push(item.clone());
                    }
                }
            }
        }
        if items.is_empty() {
            Value::Null
        } else {
            items.into()
        }
    }

    /// Mounts of the volumes that keep paths writable, with what the volumes are made of.
    fn paths(&self, row: &FieldRow) -> Vec<(String, Value, Value)> {
        let read_only = "securityContext.readOnlyRootFilesystem";
        let containers = self.containers().into_iter();
        containers
            .map(|(list, kind, i, container)| {
                let what = format!(
                    "spec.{list}[{}].writablePaths",
                    container["name"].as_str().unwrap()
                );
                let now = &self.after["spec"][list][i];
                let made = said(container, read_only).is_none()
                    && said(now, read_only) == Some(true.into());
                let expected = match made {
                    true => self.combined(
                        &what,
                        row.field,
                        &Value::Null,
                        ("containers", "writablePaths", kind),
                    ),
                    false => Value::Null,
                };
                let mounts = now["volumeMounts"].as_array().cloned().unwrap_or_default();
                let there = container["volumeMounts"].as_array().map_or(0, Vec::len);
                let added: Vec<Value> = mounts[there..]
                    .iter()
                    .map(|mount| self.writable(mount))
                    .collect();
                let found = if added.is_empty() {
                    Value::Null
                } else {
                    added.into()
                };
                (what, expected, found)
            })
            .collect()
    }

    /// A mount and its volume, written as a policy writes them.
    fn writable(&self, mount: &Value) -> Value {
        let volumes = self.after["spec"]["volumes"].as_array().unwrap();
        let mut named = volumes
            .iter()
            .filter(|volume| volume["name"] == mount["name"]);
        let (Some(volume), None) = (named.next(), named.next()) else {
            return json!("not one volume");
        };
        let mut path = volume["emptyDir"].clone();
        path["path"] = mount["mountPath"].clone();
        path
    }

    /// The list that it stands in, its kind, its place there, and the container.
    fn containers(&self) -> Vec<(&'static str, &'static str, usize, &Value)> {
        let lists = [
            ("initContainers", "InitContainer"),
            ("containers", "Container"),
        ];
        let of_list = |(list, kind): (&'static str, &'static str)| {
            let containers = self.before["spec"][list].as_array().into_iter().flatten();
            containers
                .enumerate()
                .map(move |(i, container)| (list, kind, i, container))
        };
        lists.into_iter().flat_map(of_list).collect()
    }
}

/// What is neither absent nor null nor empty.
fn said(object: &Value, path: &str) -> Option<Value> {
    let pointer = format!("/{}", path.replace('.', "/"));
    let value = object.pointer(&pointer)?;
    let says_something = match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    };
    says_something.then(|| value.clone())
}

/// A policy's defaults for a field: what it spells out, then what its profile says.
fn all(policy: &Value, level: &str, path: &str, kind: &str) -> Vec<Value> {
    // MountOption is a value that no pod may have.
    if path.ends_with("seLinuxChangePolicy") {
        let value = said(&policy["spec"][level], path);
        return value.into_iter().collect();
    }
    let kinds = policy["spec"]["containers"]["kinds"].as_array();
    let is_for = |kinds: &Vec<Value>| kinds.is_empty() || kinds.iter().any(|one| one == kind);
    let counts = level == "pod" || kinds.is_none_or(is_for);
    let spelled_out = said(&policy["spec"][level], path).filter(|_| counts);
    let profile = match policy["spec"]["profile"].as_str() {
        Some("Restricted") => said(&restricted()[level], path),
        Some("Hardened") => said(&hardened()[level], path),
        _ => None,
    };
    spelled_out.into_iter().chain(profile).collect()
}

fn first(policy: &Value, level: &str, path: &str, kind: &str) -> Option<Value> {
    all(policy, level, path, kind).into_iter().next()
}

fn restricted() -> Value {
    json!({
        "pod": {"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}},
        "containers": {"securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}},
    })
}

fn hardened() -> Value {
    json!({
        "pod": {
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"},
                "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            },
        },
        "containers": {
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true, "procMount": "Default",
            },
            "writablePaths": [{"path": "/tmp"}],
        },
    })
}

/// What makes an item the same as another.
fn key(field: Field, item: &Value) -> String {
    match field {
        Field::Sysctls => {
            let name = item["name"].as_str().unwrap();
            let slashes_first =
                name.find('/') < name.find('.') && name.contains('/') || !name.contains('.');
            let swap = |c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            };
            if slashes_first {
                name.chars().map(swap).collect()
            } else {
                name.to_owned()
            }
        }
        Field::WritablePaths => item["path"].as_str().unwrap().to_owned(),
        Field::CapabilitiesAdd | Field::CapabilitiesDrop => {
            let name = item.as_str().unwrap().to_uppercase();
            name.strip_prefix("CAP_")
                .map_or(name.clone(), str::to_owned)
        }
        _ => item.to_string(),
    }
}

/// The enforced policies that are for the pod, the first one first.
fn in_order<'p>(
    policies: &'p [Value],
    namespace: &str,
    labels: &[(&str, &str)],
    pod: &Value,
) -> Vec<&'p Value> {
    let mut namespace_labels = json!({"kubernetes.io/metadata.name": namespace});
    for (key, value) in labels {
        namespace_labels[*key] = (*value).into();
    }
    let spec = &pod["spec"];
    let accounts = [&spec["serviceAccountName"], &spec["serviceAccount"]];
    let account = accounts
        .into_iter()
        .find_map(Value::as_str)
        .unwrap_or("default");
    let is_for = |policy: &&Value| {
        let own = match policy["metadata"]["namespace"].as_str() {
            Some(own) => own == namespace,
            None => selects(&policy["spec"]["namespaceSelector"], &namespace_labels),
        };
        let accounts = policy["spec"]["serviceAccountNames"].as_array();
        own && policy["spec"]["mode"] != "Audit"
            && selects(&policy["spec"]["podSelector"], &pod["metadata"]["labels"])
            && accounts
                .is_none_or(|names| names.is_empty() || names.iter().any(|name| name == account))
    };
    let mut policies: Vec<&Value> = policies.iter().filter(is_for).collect();
    policies.sort_by_key(|policy| {
        let tier = match (
            policy["metadata"]["namespace"].as_str(),
            policy["spec"]["tier"].as_str(),
        ) {
            (None, Some("Admin")) => 0,
            (Some(_), _) => 1,
            (None, _) => 2,
        };
        let priority = policy["spec"]["priority"].as_i64().unwrap_or(0);
        (
            tier,
            -priority,
            policy["metadata"]["name"].as_str().unwrap(),
        )
    });
    policies
}

/// `metav1.LabelSelector`.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object().into_iter().flatten();
    let expressions = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    wanted.into_iter().all(|(key, value)| labels[key] == *value)
        && expressions.into_iter().all(|expression| {
            let label = &labels[expression["key"].as_str().unwrap()];
            let values = expression["values"].as_array();
            let is_among = values.is_some_and(|values| values.contains(label));
            match expression["operator"].as_str().unwrap() {
                "In" => is_among,
                "NotIn" => !is_among,
                "Exists" => !label.is_null(),
                _ => label.is_null(),
            }
        })
}
