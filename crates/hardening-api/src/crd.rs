//! The CRDs: derived from the types, with the [`rules`](crate::rules) written in.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::policy::{ClusterPodHardeningPolicy, PodHardeningPolicy};
use crate::rules::{Leaf, Rule, rules};
use crate::structural::Structure;

/// Which of the two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// `PodHardeningPolicy`.
    Namespaced,
    /// `ClusterPodHardeningPolicy`.
    Cluster,
}

impl PolicyKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Namespaced, Self::Cluster];

    /// The kind's name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaced => "PodHardeningPolicy",
            Self::Cluster => "ClusterPodHardeningPolicy",
        }
    }

    /// The kind that an `apiVersion` and a `kind` name, if they name one of ours.
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        (api_version == crate::API_VERSION).then_some(())?;
        Self::ALL.into_iter().find(|ours| ours.name() == kind)
    }

    /// The kind's schema and rules, built once.
    pub(crate) fn schema(self) -> &'static Schema {
        static NAMESPACED: LazyLock<Schema> =
            LazyLock::new(|| Schema::build(PolicyKind::Namespaced));
        static CLUSTER: LazyLock<Schema> = LazyLock::new(|| Schema::build(PolicyKind::Cluster));
        match self {
            Self::Namespaced => &NAMESPACED,
            Self::Cluster => &CLUSTER,
        }
    }
}

/// The two CustomResourceDefinitions as JSON, namespaced kind first: what `crds/` holds.
#[must_use]
pub fn crds() -> [Value; 2] {
    PolicyKind::ALL.map(|kind| kind.schema().crd())
}

/// A kind's CRD and what it refuses.
pub(crate) struct Schema {
    /// Without what stands at [`OPEN_API`].
    crd: Value,
    /// The schema of the whole object.
    open_api: Value,
    /// What it says of `spec`.
    pub(crate) spec: Structure,
    pub(crate) rules: Vec<Rule>,
}

impl Schema {
    fn build(kind: PolicyKind) -> Self {
        let derived: CustomResourceDefinition = match kind {
            PolicyKind::Namespaced => PodHardeningPolicy::crd(),
            PolicyKind::Cluster => ClusterPodHardeningPolicy::crd(),
        };
        // A CustomResourceDefinition is plain data: it cannot fail to become JSON, and if it did, the
        // test that compares it with `crds/` would say so.
        let mut crd = serde_json::to_value(derived).unwrap_or_default();
        let mut open_api = crd
            .pointer_mut(OPEN_API)
            .map(Value::take)
            .unwrap_or_default();
        tidy(&mut open_api);
        let spec = open_api.pointer("/properties/spec").unwrap_or(&Value::Null);
        let rules = rules(kind, &defaults(spec));
        // As above: the tests of what is refused would say so.
        let spec = Structure::deserialize(spec).unwrap_or_default();
        rules
            .iter()
            .for_each(|rule| write_rule(&mut open_api, rule));
        Self {
            crd,
            open_api,
            spec,
            rules,
        }
    }

    fn crd(&self) -> Value {
        let mut crd = self.crd.clone();
        if let Some(place) = crd.pointer_mut(OPEN_API) {
            *place = self.open_api.clone();
        }
        crd
    }
}

const OPEN_API: &str = "/spec/versions/0/schema/openAPIV3Schema";

/// `null` is never a value of ours, and lists and maps without a limit would make CEL rules over them
/// too expensive for the API server's budget.
fn tidy(schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else {
        return;
    };
    node.remove("nullable");
    if node.get("type").is_some_and(|t| t == "array") && !node.contains_key("maxItems") {
        node.insert("maxItems".to_owned(), json!(256));
    }
    if node.contains_key("additionalProperties") && !node.contains_key("maxProperties") {
        node.insert("maxProperties".to_owned(), json!(256));
    }
    for key in ["minimum", "maximum"] {
        // The API's own type for a bound is a float, and `2147483647.0` is not how anybody writes one.
        if let Some(bound) = node.get_mut(key)
            && let Some(whole) = bound.as_f64()
        {
            *bound = json!(whole as i64);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = node.get_mut(key) {
            tidy(child);
        }
    }
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        properties.values_mut().for_each(tidy);
    }
}

/// The fields of `pod` and `containers` that give a default, read off the schema so that a new field
/// cannot be forgotten.
fn defaults(spec: &Value) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    let properties = &spec["properties"];
    collect_leaves(&properties["pod"], &mut vec!["pod".to_owned()], &mut leaves);
    collect_leaves(
        &properties["containers"],
        &mut vec!["containers".to_owned()],
        &mut leaves,
    );
    leaves.retain(|leaf| leaf.path != ["containers", "kinds"]);
    leaves
}

fn collect_leaves(schema: &Value, path: &mut Vec<String>, leaves: &mut Vec<Leaf>) {
    // A profile (its type is required) and seLinuxOptions (never empty) are values, not containers of
    // fields.
    let is_value = schema["required"].is_array() || !schema["minProperties"].is_null();
    match schema["properties"].as_object() {
        Some(properties) if !is_value => {
            for (name, child) in properties {
                path.push(name.clone());
                collect_leaves(child, path, leaves);
                path.pop();
            }
        }
        _ => leaves.push(Leaf {
            path: path.clone(),
            is_list: schema["type"] == "array",
        }),
    }
}

fn write_rule(root: &mut Value, rule: &Rule) {
    let place = rule
        .at
        .iter()
        .try_fold(root, |schema, step| match step.as_str() {
            "[]" => schema.get_mut("items"),
            name => schema.get_mut("properties")?.get_mut(name),
        });
    let Some(Value::Object(place)) = place else {
        return;
    };
    let mut entry = serde_json::Map::new();
    entry.insert("rule".to_owned(), json!(rule.cel));
    entry.insert("message".to_owned(), json!(rule.message));
    if !rule.field_path.is_empty() {
        entry.insert("fieldPath".to_owned(), json!(rule.field_path));
    }
    let entries = place
        .entry("x-kubernetes-validations")
        .or_insert_with(|| json!([]));
    if let Some(entries) = entries.as_array_mut() {
        entries.push(Value::Object(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_place_in_the_schema() {
        for kind in PolicyKind::ALL {
            let schema = kind.schema();
            let written = schema.crd().to_string().matches("\"rule\":").count();
            assert_eq!(written, schema.rules.len(), "{kind:?}");
        }
    }

    #[test]
    fn every_default_is_known_to_the_rule_against_empty_policies() {
        let schema = PolicyKind::Namespaced.schema();
        let leaves = defaults(&schema.open_api["properties"]["spec"]);
        // 4 pod fields, 12 of the pod's security context, 12 of the containers' (capabilities are two
        // lists), and the writable paths.
        assert_eq!(leaves.len(), 4 + 12 + 12 + 1);
    }

    #[test]
    fn the_schema_sets_no_default_so_that_gitops_tools_see_no_drift() {
        for crd in crds() {
            assert!(!crd.to_string().contains("\"default\":"));
        }
    }
}
