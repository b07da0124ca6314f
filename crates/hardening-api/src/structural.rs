//! The checks that the API server makes of an object, for objects that come from files: its structural
//! schema (types, enums, ranges, patterns, limits, list keys, and, as `kubectl` asks for it, unknown
//! fields) and our [`rules`](crate::rules).

use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Number, Value};

use crate::crd::{PolicyKind, Schema};

/// Something that the API server would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, in the API's own spelling, as `spec.containers.writablePaths[0].path`.
    pub path: String,
    /// The rule it breaks.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// What a structural schema says of a value, as far as our kinds' schemas say anything: read once, as each of ten
/// thousand policies is held to it at a start. What is absent is no demand.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Structure {
    #[serde(rename = "type")]
    of: Option<Type>,
    #[serde(rename = "enum")]
    allowed: Option<Vec<Value>>,
    /// In characters, as [`Self::min_length`].
    max_length: Option<usize>,
    min_length: Option<usize>,
    pattern: Option<Pattern>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    max_items: Option<usize>,
    items: Option<Box<Self>>,
    /// What no two items may have in common.
    #[serde(rename = "x-kubernetes-list-map-keys")]
    list_map_keys: Option<Vec<String>>,
    #[serde(rename = "x-kubernetes-list-type")]
    list_type: Option<String>,
    min_properties: Option<usize>,
    max_properties: Option<usize>,
    required: Vec<String>,
    /// `None`: any.
    properties: Option<HashMap<String, Self>>,
    additional_properties: Option<Box<Self>>,
}

/// A type that one of our fields has.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    String,
    Integer,
    Boolean,
    Array,
    Object,
}

/// A regular expression, compiled when a text is first held to it.
#[derive(Debug, Deserialize)]
#[serde(from = "String")]
struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

/// All that is wrong with a policy, given as the JSON of the whole object. Empty: the API server would
/// take it.
#[must_use]
pub fn violations(kind: PolicyKind, object: &Value) -> Vec<Violation> {
    let Schema { spec, rules, .. } = kind.schema();
    let mut found = Vec::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        match name.as_str() {
            // The same for every kind, and no policy's business.
            "apiVersion" | "kind" | "metadata" | "status" => {}
            "spec" if value.is_null() => {}
            "spec" => check(spec, value, &mut "spec".to_owned(), &mut found),
            unknown => found.push(violation(unknown, "is not a known field")),
        }
    }
    if object.get("spec").is_none_or(Value::is_null) {
        found.push(violation("spec", "is required"));
    }
    if found.is_empty() {
        for rule in rules {
            visit(object, &rule.at, &mut Vec::new(), &mut |value, items| {
                if !(rule.holds)(value) {
                    let path = path_of(&rule.at, items) + &rule.field_path;
                    found.push(violation(&path, &rule.message));
                }
            });
        }
    }
    found
}

fn violation(path: &str, message: &str) -> Violation {
    Violation {
        path: path.to_owned(),
        message: message.to_owned(),
    }
}

/// Runs `f` on each value at the place that `at` names, as rules do; and on which item it is in of each list on the way.
fn visit(
    value: &Value,
    at: &[String],
    items: &mut Vec<usize>,
    f: &mut impl FnMut(&Value, &[usize]),
) {
    let Some((step, rest)) = at.split_first() else {
        return f(value, items);
    };
    if step == "[]" {
        for (i, item) in value.as_array().into_iter().flatten().enumerate() {
            items.push(i);
            visit(item, rest, items, f);
            items.pop();
        }
    } else if let Some(child) = value.get(step).filter(|child| !child.is_null()) {
        visit(child, rest, items, f);
    }
}

/// The path of a value that was visited.
fn path_of(at: &[String], items: &[usize]) -> String {
    let mut path = String::new();
    let mut items = items.iter();
    for step in at {
        if step != "[]" {
            push_field(&mut path, step);
        } else if let Some(i) = items.next() {
            path.push_str(&format!("[{i}]"));
        }
    }
    path
}

fn push_field(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

fn check(schema: &Structure, value: &Value, path: &mut String, found: &mut Vec<Violation>) {
    let mut wrong = |message: String| found.push(violation(path, &message));
    if let Some(allowed) = &schema.allowed
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(plain).collect();
        return wrong(format!(
            "{} is not one of {}",
            plain(value),
            allowed.join(", ")
        ));
    }
    match (schema.of, value) {
        (Some(Type::String), Value::String(text)) => check_text(schema, text, wrong),
        (Some(Type::Integer), Value::Number(number)) if number.is_i64() || number.is_u64() => {
            check_number(schema, number, wrong);
        }
        (Some(Type::Boolean), Value::Bool(_)) => {}
        (Some(Type::Array), Value::Array(items)) => check_list(schema, items, path, found),
        (Some(Type::Object), Value::Object(fields)) => check_object(schema, fields, path, found),
        (Some(expected), other) => wrong(format!(
            "must be of type {}, not {}",
            expected.name(),
            type_name(other)
        )),
        (None, _) => {}
    }
}

fn check_text(schema: &Structure, text: &str, mut wrong: impl FnMut(String)) {
    let length = text.chars().count();
    if let Some(max) = schema.max_length.filter(|max| length > *max) {
        wrong(format!("must have at most {max} characters"));
    } else if schema.min_length.is_some_and(|min| length < min) {
        wrong("must not be empty".to_owned());
    } else if let Some(pattern) = &schema.pattern
        && !pattern.matches(text)
    {
        wrong(format!("{text:?} must match the pattern {}", pattern.text));
    }
}

fn check_number(schema: &Structure, number: &Number, mut wrong: impl FnMut(String)) {
    let (Some(min), Some(max)) = (schema.minimum, schema.maximum) else {
        return;
    };
    let (min, max) = (bound(min), bound(max));
    if number.as_i64().is_none_or(|n| n < min || n > max) {
        wrong(format!("{number} must be from {min} to {max}"));
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the schema's bounds are whole numbers of 32 bits"
)]
fn bound(bound: f64) -> i64 {
    bound as i64
}

fn check_list(schema: &Structure, items: &[Value], path: &mut String, found: &mut Vec<Violation>) {
    if let Some(max) = schema.max_items.filter(|max| items.len() > *max) {
        found.push(violation(path, &format!("must have at most {max} items")));
        return;
    }
    let identity = |item: &Value| match &schema.list_map_keys {
        Some(keys) => keys.iter().map(|key| item[key].clone()).collect(),
        None => vec![item.clone()],
    };
    let is_set = schema.list_type.as_deref() == Some("set");
    let unique = schema.list_map_keys.is_some() || is_set;
    let length = path.len();
    for (i, item) in items.iter().enumerate() {
        path.push_str(&format!("[{i}]"));
        if let Some(schema) = &schema.items {
            check(schema, item, path, found);
        }
        if unique
            && items
                .iter()
                .take(i)
                .any(|earlier| identity(earlier) == identity(item))
        {
            let names: Vec<String> = identity(item).iter().map(plain).collect();
            found.push(violation(
                path,
                &format!("{} is given twice", names.join(", ")),
            ));
        }
        path.truncate(length);
    }
}

fn check_object(
    schema: &Structure,
    fields: &Map<String, Value>,
    path: &mut String,
    found: &mut Vec<Violation>,
) {
    // The API server drops null members before it looks: they are as good as absent.
    let said = fields.values().filter(|child| !child.is_null()).count();
    if schema.min_properties.is_some_and(|min| said < min) {
        found.push(violation(path, "must not be empty"));
    }
    if let Some(max) = schema.max_properties.filter(|max| said > *max) {
        let message = format!("must have at most {max} members");
        found.push(violation(path, &message));
        return;
    }
    for required in &schema.required {
        if fields.get(required).is_none_or(Value::is_null) {
            let mut full = path.clone();
            push_field(&mut full, required);
            found.push(violation(&full, "is required"));
        }
    }
    let length = path.len();
    for (name, child) in fields {
        push_field(path, name);
        let properties = schema.properties.as_ref();
        let known = properties.and_then(|properties| properties.get(name));
        if let Some(known) = known.or(schema.additional_properties.as_deref()) {
            if !child.is_null() {
                check(known, child, path, found);
            }
        } else if properties.is_some() {
            found.push(violation(path, "is not a known field"));
        }
        path.truncate(length);
    }
}

// === impl Type, Pattern ===

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Self {
            text,
            compiled: OnceLock::new(),
        }
    }
}

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&self.text).ok());
        compiled.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

/// A value as people write it: strings without quotes.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(kind: PolicyKind, spec: &Value, expected: &[&str]) {
        let object = json!({"apiVersion": crate::API_VERSION, "kind": kind.name(), "metadata": {"name": "x"}, "spec": spec});
        let found: Vec<String> = violations(kind, &object)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, expected, "{spec}");
    }

    #[test]
    fn what_the_api_server_takes_is_taken() {
        use PolicyKind::{Cluster, Namespaced};
        check(Namespaced, &json!({"profile": "Restricted"}), &[]);
        check(
            Namespaced,
            &json!({"pod": {"securityContext": {"runAsGroup": 5}}}),
            &[],
        );
        check(
            Namespaced,
            &json!({"containers": {"writablePaths": [{"path": "/tmp", "sizeLimit": "64Mi"}]}}),
            &[],
        );
        check(
            Cluster,
            &json!({"tier": "Admin", "namespaceSelector": {}, "profile": "Hardened"}),
            &[],
        );
        check(
            Cluster,
            &json!({"allowWeakening": true, "containers": {"securityContext": {"runAsUser": 0}}}),
            &[],
        );
        check(
            Namespaced,
            &json!({"mode": null, "profile": "Restricted", "pod": null, "containers": {"kinds": null}}),
            &[],
        );
    }

    #[test]
    fn what_is_refused_is_named_by_field_and_rule() {
        use PolicyKind::{Cluster, Namespaced};
        let none =
            "spec: the policy sets no default: give a profile, or a field in pod or containers";
        check(Namespaced, &json!({}), &[none]);
        check(
            Namespaced,
            &json!({"pod": {"securityContext": {"supplementalGroups": []}}}),
            &[none],
        );
        check(
            Namespaced,
            &json!({"containers": {"kinds": ["Container"]}}),
            &[none],
        );
        check(Namespaced, &json!({"profile": null}), &[none]);
        check(
            Namespaced,
            &json!({"pod": {"securityContext": {"seLinuxOptions": {"level": null}, "sysctls": [{"name": null}]}}}),
            &[
                "spec.pod.securityContext.seLinuxOptions: must not be empty",
                "spec.pod.securityContext.sysctls[0].name: is required",
                "spec.pod.securityContext.sysctls[0].value: is required",
            ],
        );
        let labels: serde_json::Map<String, Value> =
            (0..257).map(|i| (format!("l{i}"), "v".into())).collect();
        check(
            Namespaced,
            &json!({"profile": "Restricted", "podSelector": {"matchLabels": labels}}),
            &["spec.podSelector.matchLabels: must have at most 256 members"],
        );
        check(
            Namespaced,
            &json!({"profil": "Restricted", "profile": "restricted"}),
            &[
                "spec.profil: is not a known field",
                "spec.profile: restricted is not one of Restricted, Hardened",
            ],
        );
        check(
            Namespaced,
            &json!({"tier": "Admin"}),
            &["spec.tier: is not a known field"],
        );
        check(
            Namespaced,
            &json!({"pod": {"securityContext": {"runAsUser": 2147483648_i64, "fsGroup": -1, "runAsGroup": "x"}}}),
            &[
                "spec.pod.securityContext.fsGroup: -1 must be from 0 to 2147483647",
                "spec.pod.securityContext.runAsGroup: must be of type integer, not string",
                "spec.pod.securityContext.runAsUser: 2147483648 must be from 0 to 2147483647",
            ],
        );
        check(
            Cluster,
            &json!({"allowWeakening": true, "pod": {"securityContext": {"runAsUser": 0, "runAsNonRoot": true}}}),
            &["spec.pod.securityContext: runAsNonRoot: true contradicts runAsUser: 0"],
        );
        check(
            Namespaced,
            &json!({"containers": {"securityContext": {"privileged": true, "capabilities": {"drop": ["CAP_SYS_ADMIN", "all"]}}}}),
            &[
                "spec.containers.securityContext.capabilities.drop[1]: \"all\" must match the pattern ^[A-Z][A-Z0-9_]*$",
                "spec.containers.securityContext.privileged: true is not one of false",
            ],
        );
        check(
            Namespaced,
            &json!({"containers": {"securityContext": {"capabilities": {"drop": ["CAP_SYS_ADMIN"], "add": ["CHOWN"]}}}}),
            &[
                "spec.containers.securityContext.capabilities.drop[0]: must be a capability's name without the CAP_ prefix",
                "spec.containers.securityContext.capabilities.add: an added capability weakens pods: a namespace's policy can only harden",
            ],
        );
        check(
            Namespaced,
            &json!({"containers": {"writablePaths": [{"path": "tmp"}, {"path": "/a"}, {"path": "/a"}, {}]}}),
            &[
                "spec.containers.writablePaths[0].path: \"tmp\" must match the pattern ^(/[^/:]+)+$",
                "spec.containers.writablePaths[2]: /a is given twice",
                "spec.containers.writablePaths[3].path: is required",
            ],
        );
        check(
            Namespaced,
            &json!({"containers": {"writablePaths": [{"path": "/a/../b"}]}}),
            &[
                "spec.containers.writablePaths[0].path: must not contain '.' or '..' as a path segment",
            ],
        );
        check(
            Cluster,
            &json!({"profile": "Restricted", "namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            &[
                "spec.namespaceSelector.matchExpressions[0]: values must be given with the operators In and NotIn, and only then",
            ],
        );
        check(
            Cluster,
            &json!({"pod": {"hostUsers": true, "securityContext": {"seccompProfile": {"type": "Localhost"}}}}),
            &[
                "spec.pod.securityContext.seccompProfile: localhostProfile must be set with type Localhost, and only then",
                "spec.pod.hostUsers: true weakens pods: it needs spec.allowWeakening: true",
            ],
        );
    }
}
