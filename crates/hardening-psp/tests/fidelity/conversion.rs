//! Convert, then harden: what the converted policies fill in is what 1.24 stored.
//!
//! The exceptions are those that the product's guards demand, and one besides: `runAsNonRoot: true` is filled in
//! beside a user that is not 0 too, where the PSP left it out. It means the same there, and without it no PSP
//! would lead to the Pod Security Standard "restricted", which asks for it in every container. Each exception is
//! told by what the pod itself shows, not by what the engine says about it, and is counted.

use std::collections::BTreeSet;

use hardening_engine::{Pod, Policy, PolicySet, UnknownNamespaces, plan};
use hardening_psp::generate::{Pair, pair};
use hardening_psp::{Conversion, HardeningPolicy, Refused, Target, convert, modernise};
use serde_json::{Map, Value, json};

use crate::figures::{Figures, is_full, seeds};
use crate::oracle::{Answer, ask};

/// The pod as the converted policies harden it.
pub(crate) fn harden(conversion: &Conversion, pod: &Value) -> Value {
    let mut set = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
    for policy in conversion.policies(&Target::all("psp")) {
        // By way of a manifest, as a person would apply it.
        let manifest = policy.to_json();
        if manifest["spec"]["allowWeakening"] == true {
            let mut strong = manifest.clone();
            strong["spec"]["allowWeakening"] = false.into();
            let strong = serde_json::from_value(strong).unwrap();
            assert!(
                Policy::cluster(&strong).is_err(),
                "allowWeakening is not needed: {manifest}"
            );
        }
        set.insert_policy(match policy {
            HardeningPolicy::Namespaced(_) => {
                Policy::namespaced(&serde_json::from_value(manifest).unwrap()).unwrap()
            }
            HardeningPolicy::Cluster(_) => {
                Policy::cluster(&serde_json::from_value(manifest).unwrap()).unwrap()
            }
        });
    }
    let text = pod.to_string();
    let view = Pod::from_json(&text).unwrap();
    let matching = set.matching("shop", &view).unwrap();
    let mut hardened = pod.clone();
    json_patch::patch(&mut hardened, &plan(&matching, &view).to_patch()).unwrap();
    hardened
}

/// One place that has security fields: the pod or a container.
struct Place {
    path: String,
    fields: Map<String, Value>,
}

/// The security fields, place by place; what is null or empty is absent, and lists of capabilities are sets.
fn security(pod: &Value) -> Vec<Place> {
    let mut fields = fields_of(&pod["spec"]["securityContext"]);
    if let Some(class) = pod["spec"].get("runtimeClassName") {
        fields.insert("runtimeClassName".to_owned(), class.clone());
    }
    let mut places = vec![Place {
        path: "spec".to_owned(),
        fields,
    }];
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        places.extend(containers.enumerate().map(|(index, container)| Place {
            path: format!("spec.{list}[{index}]"),
            fields: fields_of(&container["securityContext"]),
        }));
    }
    places
}

fn fields_of(context: &Value) -> Map<String, Value> {
    let mut fields = Map::new();
    for (name, value) in context.as_object().into_iter().flatten() {
        match name.as_str() {
            "capabilities" => {
                for list in ["add", "drop"] {
                    let names: BTreeSet<&str> = value[list]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .collect();
                    fields.insert(format!("capabilities.{list}"), json!(names));
                }
            }
            // 1.24 took it out before storing the pod, because its feature gate was off.
            "procMount" => {}
            name => {
                fields.insert(name.to_owned(), value.clone());
            }
        }
    }
    let is_empty = |value: &Value| *value == json!([]) || *value == json!({}) || value.is_null();
    fields.retain(|_, value| !is_empty(value));
    fields
}

/// A field that 1.24 stored and the converted policies do not give, or the other way round.
struct Difference<'a> {
    field: &'a str,
    stored: &'a Place,
    stored_pod: &'a Place,
    hardened: &'a Place,
    hardened_pod: &'a Place,
    /// The author's place.
    written: &'a Place,
    written_pod: &'a Place,
    annotations: &'a Value,
    container: Option<&'a str>,
}

fn in_force<'a>(place: &'a Place, pod: &'a Place, field: &str) -> &'a Value {
    let own = place.fields.get(field).or_else(|| pod.fields.get(field));
    own.unwrap_or(&Value::Null)
}

fn has(place: &Place, list: &str, name: &str) -> bool {
    place.fields.get(list).is_some_and(|names| {
        let names = names.as_array().unwrap();
        names.iter().any(|one| one == name)
    })
}

impl Difference<'_> {
    /// The reason for which the product's design demands it, if one does.
    fn reason(&self) -> Option<&'static str> {
        let expected = self.stored.fields.get(self.field);
        let found = self.hardened.fields.get(self.field);
        let is = |value: Option<&Value>, wanted: Value| value == Some(&wanted);
        let user = in_force(self.hardened, self.hardened_pod, "runAsUser");
        let escalates = is(self.written.fields.get("privileged"), json!(true))
            || has(self.written, "capabilities.add", "SYS_ADMIN");
        let empty_annotation = |key: String| self.annotations[key] == "";
        match (self.field, expected, found) {
            ("runAsGroup", Some(_), None) if user.is_null() => {
                Some("guard 4: runAsGroup without a user")
            }
            ("runAsUser", Some(user), None)
                if user == 0 && *in_force(self.stored, self.stored_pod, "runAsNonRoot") == true =>
            {
                Some("guard 3: runAsUser 0 where runAsNonRoot is true")
            }
            ("allowPrivilegeEscalation", Some(expected), None)
                if expected == false && escalates =>
            {
                Some(
                    "guard 1: allowPrivilegeEscalation false where the container is privileged or adds SYS_ADMIN",
                )
            }
            ("capabilities.add", ..)
                if missing(expected, found) == ["SYS_ADMIN"]
                    && is(
                        self.hardened.fields.get("allowPrivilegeEscalation"),
                        json!(false),
                    ) =>
            {
                Some("guard 5: SYS_ADMIN where allowPrivilegeEscalation is false")
            }
            ("appArmorProfile", Some(_), None)
                if empty_annotation(format!(
                    "container.apparmor.security.beta.kubernetes.io/{}",
                    self.container?
                )) =>
            {
                Some("guard 13: an AppArmor annotation that is there, but empty")
            }
            ("runAsNonRoot", None, Some(found))
                if found == true && is_non_root_already(self.written, self.written_pod) =>
            {
                Some(NON_ROOT_ALREADY)
            }
            _ => None,
        }
    }
}

/// The one exception that no guard demands.
const NON_ROOT_ALREADY: &str = "no guard: runAsNonRoot true beside a user that is not 0";

/// Whether a PSP's rule was satisfied by the author's user, so that it filled in nothing.
fn is_non_root_already(written: &Place, written_pod: &Place) -> bool {
    let user = in_force(written, written_pod, "runAsUser").as_i64();
    user.is_some_and(|user| user != 0) && in_force(written, written_pod, "runAsNonRoot").is_null()
}

/// Whether today's API server refuses the pod, however it is hardened: no seccomp annotation may be empty.
pub(crate) fn is_refused_today(pod: &Value) -> bool {
    let annotations = pod["metadata"]["annotations"].as_object();
    annotations
        .into_iter()
        .flatten()
        .any(|(key, value)| key.contains("seccomp.security.alpha.kubernetes.io/") && value == "")
}

/// The names that are expected and not found; nothing else may differ.
fn missing(expected: Option<&Value>, found: Option<&Value>) -> Vec<String> {
    let names = |list: Option<&Value>| -> BTreeSet<String> {
        serde_json::from_value(list.cloned().unwrap_or(json!([]))).unwrap()
    };
    let (expected, found) = (names(expected), names(found));
    assert!(found.is_subset(&expected));
    expected.difference(&found).cloned().collect()
}

fn compare(about: &str, pair: &Pair, hardened: &Value, stored: &Value, figures: &mut Figures) {
    let written_places = security(&pair.pod);
    let (hardened, stored) = (security(hardened), security(stored));
    assert_eq!(hardened.len(), stored.len());
    let mut same = true;
    for ((written, hardened_place), stored_place) in
        written_places.iter().zip(&hardened).zip(&stored)
    {
        assert_eq!(hardened_place.path, stored_place.path);
        let names: BTreeSet<&String> = hardened_place
            .fields
            .keys()
            .chain(stored_place.fields.keys())
            .collect();
        let container = pair
            .pod
            .pointer(&format!(
                "/{}/name",
                written.path.replace(['.', '['], "/").replace(']', "")
            ))
            .and_then(Value::as_str);
        for field in names {
            if hardened_place.fields.get(field) == stored_place.fields.get(field) {
                figures.count("fields: equal");
                continue;
            }
            let difference = Difference {
                field,
                stored: stored_place,
                stored_pod: &stored[0],
                hardened: hardened_place,
                hardened_pod: &hardened[0],
                written,
                written_pod: &written_places[0],
                annotations: &pair.pod["metadata"]["annotations"],
                container,
            };
            same = false;
            let Some(reason) = difference.reason() else {
                panic!(
                    "{}.{field}: 1.24 stored {:?}, hardened to {:?}\n{about}",
                    written.path,
                    stored_place.fields.get(field),
                    hardened_place.fields.get(field),
                );
            };
            figures.count(format!("fields: {reason}"));
        }
    }
    figures.count(if same {
        "pods: equal"
    } else {
        "pods: different, by the exceptions"
    });
}

fn judge(
    seed: u64,
    pair: &Pair,
    answer: &Answer,
    figures: &mut Figures,
    non_root_already: &mut usize,
) {
    let about = format!("seed {seed}\npsp {}\npod {}", pair.psp, pair.pod);
    assert_eq!(answer.bad, None, "{about}");
    let was_possible = answer.unusable.is_none() && answer.refused.is_empty();
    let conversion = match convert(&pair.psp) {
        Ok(conversion) => conversion,
        Err(Refused::Invalid(error)) => panic!("{error}\n{about}"),
        Err(Refused::Unusable(reasons)) => {
            assert!(!was_possible, "refused: {reasons:?}\n{about}");
            figures.count("policies: refused, as 1.24 could not store or use them");
            return;
        }
    };
    assert!(
        was_possible,
        "converted, but {:?} {:?}\n{about}",
        answer.refused, answer.unusable
    );
    figures.count("policies: converted");
    if answer.admits() && is_refused_today(&pair.pod) {
        figures.count("pods: refused by today's API server, for an empty seccomp annotation");
    } else if answer.admits() {
        let non_root = pair.psp["spec"]["runAsUser"]["rule"] == "MustRunAsNonRoot";
        let places = security(&pair.pod);
        let already = places.iter().skip(1);
        let already = already.filter(|place| non_root && is_non_root_already(place, &places[0]));
        *non_root_already += already.count();
        let mut stored = answer.stored.clone();
        modernise(&mut stored).unwrap();
        // Annotations that stand for fields turned into those, as in what is compared with it.
        let mut hardened = harden(&conversion, &pair.pod);
        modernise(&mut hardened).unwrap();
        compare(&about, pair, &hardened, &stored, figures);
    }
}

#[test]
fn converted_policies_fill_in_what_1_24_stored() {
    let requests = seeds().map(|seed| {
        let pair = pair(seed);
        let request = json!({"psp": pair.psp, "pod": pair.pod});
        ((seed, pair), request.to_string())
    });
    let mut figures = Figures::default();
    let mut non_root_already = 0;
    ask(requests, |(seed, pair), answer| {
        judge(seed, &pair, &answer, &mut figures, &mut non_root_already);
    });
    figures.print("Converted policies against what 1.24 stored");
    // It is there wherever its rule says, and nowhere else.
    let found = figures.of(&format!("fields: {NON_ROOT_ALREADY}"));
    assert_eq!(found, non_root_already);
    if is_full() {
        assert!(figures.of("pods: equal") > 3_000);
        assert!(figures.of("policies: converted") > 10_000);
    }
}
