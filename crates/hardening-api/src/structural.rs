//! The checks that the API server makes of an object, for objects that come from files: its structural
//! schema (types, enums, ranges, patterns, limits, list keys, and, as `kubectl` asks for it, unknown
//! fields) and our [`rules`](crate::rules).

use std::collections::HashMap;
use std::fmt;
use std::sync::{LazyLock, RwLock};

use regex::Regex;
use serde_json::Value;

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

/// All that is wrong with a policy, given as the JSON of the whole object. Empty: the API server would
/// take it.
#[must_use]
pub fn violations(kind: PolicyKind, object: &Value) -> Vec<Violation> {
    let Schema {
        open_api, rules, ..
    } = kind.schema();
    let mut found = Vec::new();
    let properties = &open_api["properties"];
    for (name, value) in object.as_object().into_iter().flatten() {
        match name.as_str() {
            // The same for every kind, and no policy's business.
            "apiVersion" | "kind" | "metadata" | "status" => {}
            "spec" if value.is_null() => {}
            "spec" => check(
                &properties["spec"],
                value,
                &mut "spec".to_owned(),
                &mut found,
            ),
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

fn check(schema: &Value, value: &Value, path: &mut String, found: &mut Vec<Violation>) {
    let mut wrong = |message: String| found.push(violation(path, &message));
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(plain).collect();
        return wrong(format!(
            "{} is not one of {}",
            plain(value),
            allowed.join(", ")
        ));
    }
    match (schema["type"].as_str(), value) {
        (Some("string"), Value::String(text)) => check_text(schema, text, wrong),
        (Some("integer"), Value::Number(number)) if number.is_i64() || number.is_u64() => {
            check_number(schema, number, wrong);
        }
        (Some("boolean"), Value::Bool(_)) => {}
        (Some("array"), Value::Array(items)) => check_list(schema, items, path, found),
        (Some("object"), Value::Object(_)) => check_object(schema, value, path, found),
        (Some(expected), other) => wrong(format!(
            "must be of type {expected}, not {}",
            type_name(other)
        )),
        (None, _) => {}
    }
}

fn check_text(schema: &Value, text: &str, mut wrong: impl FnMut(String)) {
    let length = text.chars().count() as u64;
    if schema["maxLength"].as_u64().is_some_and(|max| length > max) {
        wrong(format!(
            "must have at most {} characters",
            schema["maxLength"]
        ));
    } else if schema["minLength"].as_u64().is_some_and(|min| length < min) {
        wrong("must not be empty".to_owned());
    } else if let Some(pattern) = schema["pattern"].as_str()
        && !matches(pattern, text)
    {
        wrong(format!("{text:?} must match the pattern {pattern}"));
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    // The patterns are the schema's own, a dozen of them; each is compiled once.
    static COMPILED: LazyLock<RwLock<HashMap<String, Option<Regex>>>> =
        LazyLock::new(RwLock::default);
    if let Some(regex) = COMPILED
        .read()
        .unwrap_or_else(|e| e.into_inner())
        .get(pattern)
    {
        return regex.as_ref().is_none_or(|regex| regex.is_match(text));
    }
    let mut compiled = COMPILED.write().unwrap_or_else(|e| e.into_inner());
    let regex = compiled
        .entry(pattern.to_owned())
        .or_insert_with(|| Regex::new(pattern).ok());
    regex.as_ref().is_none_or(|regex| regex.is_match(text))
}

fn check_number(schema: &Value, number: &serde_json::Number, mut wrong: impl FnMut(String)) {
    let (Some(min), Some(max)) = (bound(schema, "minimum"), bound(schema, "maximum")) else {
        return;
    };
    if number.as_i64().is_none_or(|n| n < min || n > max) {
        wrong(format!("{number} must be from {min} to {max}"));
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the schema's bounds are whole numbers of 32 bits"
)]
fn bound(schema: &Value, name: &str) -> Option<i64> {
    schema[name].as_f64().map(|bound| bound as i64)
}

fn check_list(schema: &Value, items: &[Value], path: &mut String, found: &mut Vec<Violation>) {
    if schema["maxItems"]
        .as_u64()
        .is_some_and(|max| items.len() as u64 > max)
    {
        found.push(violation(
            path,
            &format!("must have at most {} items", schema["maxItems"]),
        ));
        return;
    }
    let keys = schema["x-kubernetes-list-map-keys"].as_array();
    let identity = |item: &Value| match keys {
        Some(keys) => keys
            .iter()
            .filter_map(Value::as_str)
            .map(|key| item[key].clone())
            .collect(),
        None => vec![item.clone()],
    };
    let unique = keys.is_some() || schema["x-kubernetes-list-type"] == "set";
    let length = path.len();
    for (i, item) in items.iter().enumerate() {
        path.push_str(&format!("[{i}]"));
        check(&schema["items"], item, path, found);
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

fn check_object(schema: &Value, value: &Value, path: &mut String, found: &mut Vec<Violation>) {
    let Some(fields) = value.as_object() else {
        return;
    };
    // The API server drops null members before it looks: they are as good as absent.
    let said = fields.values().filter(|child| !child.is_null()).count() as u64;
    if schema["minProperties"]
        .as_u64()
        .is_some_and(|min| said < min)
    {
        found.push(violation(path, "must not be empty"));
    }
    if schema["maxProperties"]
        .as_u64()
        .is_some_and(|max| said > max)
    {
        let message = format!("must have at most {} members", schema["maxProperties"]);
        found.push(violation(path, &message));
        return;
    }
    for required in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if fields.get(required).is_none_or(Value::is_null) {
            let mut full = path.clone();
            push_field(&mut full, required);
            found.push(violation(&full, "is required"));
        }
    }
    let length = path.len();
    for (name, child) in fields {
        push_field(path, name);
        let known = schema["properties"].get(name);
        if let Some(known) = known.or_else(|| schema.get("additionalProperties")) {
            if !child.is_null() {
                check(known, child, path, found);
            }
        } else if schema["properties"].is_object() {
            found.push(violation(path, "is not a known field"));
        }
        path.truncate(length);
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
