//! What the types cannot say: rules that refuse a policy which could never work, or may not be written.
//!
//! One table. Each row is CEL for the API server (it becomes an `x-kubernetes-validations` entry of the
//! CRD, so no second webhook is needed) and the same rule in Rust for policies that come from files.
//! That the two agree is tested against a real API server.

use serde_json::Value;

use crate::crd::PolicyKind;

/// A rule about one place of the schema.
pub struct Rule {
    /// The place: property names from the object's root, `[]` for a list's items.
    pub at: Vec<String>,
    /// True where the value at the place obeys the rule; `self` is that value.
    pub cel: String,
    /// What is wrong, for people.
    pub message: String,
    /// The field below the place that the message is about, as CRDs spell it (`.a.b`); empty: the place.
    pub field_path: String,
    /// The rule in Rust: true where the value obeys it. It gets values that fit the schema.
    pub holds: Box<dyn Fn(&Value) -> bool + Send + Sync>,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule")
            .field("at", &self.at)
            .field("cel", &self.cel)
            .finish_non_exhaustive()
    }
}

const POD_CONTEXT: &str = "spec.pod.securityContext";
const CONTAINER_CONTEXT: &str = "spec.containers.securityContext";

/// All rules of a kind. `defaults` are the paths, below `spec`, of the fields that give a default.
pub(crate) fn rules(kind: PolicyKind, defaults: &[Leaf]) -> Vec<Rule> {
    let mut rules = vec![no_default(defaults)];
    for context in [POD_CONTEXT, CONTAINER_CONTEXT] {
        rules.push(rule(
            context,
            "!(has(self.runAsNonRoot) && self.runAsNonRoot && has(self.runAsUser) && self.runAsUser == 0)",
            "runAsNonRoot: true contradicts runAsUser: 0",
            |sc| !(sc["runAsNonRoot"] == true && sc["runAsUser"] == 0),
        ));
        for profile in ["seccompProfile", "appArmorProfile"] {
            rules.push(rule(
                &format!("{context}.{profile}"),
                "(self.type == 'Localhost') == has(self.localhostProfile)",
                "localhostProfile must be set with type Localhost, and only then",
                |profile| (profile["type"] == "Localhost") != profile["localhostProfile"].is_null(),
            ));
        }
        rules.push(rule(
            &format!("{context}.seccompProfile.localhostProfile"),
            "!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')",
            "must be a relative path without '..'",
            |path| {
                text(path, |p| {
                    !p.starts_with('/') && p.split('/').all(|segment| segment != "..")
                })
            },
        ));
    }
    for list in ["drop", "add"] {
        rules.push(rule(
            &format!("{CONTAINER_CONTEXT}.capabilities.{list}.[]"),
            "!self.startsWith('CAP_')",
            "must be a capability's name without the CAP_ prefix",
            |name| text(name, |n| !n.starts_with("CAP_")),
        ));
    }
    rules.push(rule(
        "spec.containers.writablePaths.[].path",
        "!self.matches('/[.][.]?(/|$)')",
        "must not contain '.' or '..' as a path segment",
        |path| {
            text(path, |p| {
                p.split('/')
                    .all(|segment| segment != "." && segment != "..")
            })
        },
    ));
    rules.extend(selector_rules("spec.podSelector"));
    if kind == PolicyKind::Cluster {
        rules.extend(selector_rules("spec.namespaceSelector"));
    }
    rules.extend(weakening().into_iter().map(|weak| weak.into_rule(kind)));
    rules
}

/// A path below `spec` whose presence is a default, and whether an empty value counts as absent.
pub(crate) struct Leaf {
    pub(crate) path: Vec<String>,
    pub(crate) is_list: bool,
}

fn rule(
    at: &str,
    cel: &str,
    message: &str,
    holds: impl Fn(&Value) -> bool + Send + Sync + 'static,
) -> Rule {
    Rule {
        at: at.split('.').map(str::to_owned).collect(),
        cel: cel.to_owned(),
        message: message.to_owned(),
        field_path: String::new(),
        holds: Box::new(holds),
    }
}

/// The value at a place below another.
fn at<'a>(value: &'a Value, steps: &[String]) -> Option<&'a Value> {
    steps.iter().try_fold(value, |value, step| value.get(step))
}

fn text(value: &Value, holds: impl Fn(&str) -> bool) -> bool {
    value.as_str().is_none_or(holds)
}

/// A policy that gives no default does nothing and is most likely a mistake.
fn no_default(defaults: &[Leaf]) -> Rule {
    let mut alternatives = vec!["has(self.profile)".to_owned()];
    alternatives.extend(defaults.iter().map(|leaf| {
        let present = presence(&leaf.path);
        match leaf.is_list {
            true => format!("({present} && size(self.{}) > 0)", leaf.path.join(".")),
            false => format!("({present})"),
        }
    }));
    rule(
        "spec",
        &alternatives.join(" || "),
        "the policy sets no default: give a profile, or a field in pod or containers",
        |spec| {
            let containers = &spec["containers"];
            !spec["profile"].is_null()
                || says_something(&spec["pod"])
                || says_something(&containers["securityContext"])
                || says_something(&containers["writablePaths"])
        },
    )
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => fields.values().any(says_something),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// `has(self.a) && has(self.a.b)` for the path `a.b`.
fn presence(path: &[String]) -> String {
    let steps = (1..=path.len()).filter_map(|end| path.get(..end));
    steps
        .map(|step| format!("has(self.{})", step.join(".")))
        .collect::<Vec<_>>()
        .join(" && ")
}

fn selector_rules(selector: &str) -> [Rule; 2] {
    let at = format!("{selector}.matchExpressions.[]");
    [
        rule(
            &at,
            "self.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist']",
            "operator must be one of In, NotIn, Exists, DoesNotExist",
            |e| {
                text(&e["operator"], |o| {
                    matches!(o, "In" | "NotIn" | "Exists" | "DoesNotExist")
                })
            },
        ),
        rule(
            &at,
            "self.operator in ['In', 'NotIn'] == (has(self.values) && size(self.values) > 0)",
            "values must be given with the operators In and NotIn, and only then",
            |e| {
                let takes_values = e["operator"] == "In" || e["operator"] == "NotIn";
                takes_values
                    == e["values"]
                        .as_array()
                        .is_some_and(|values| !values.is_empty())
            },
        ),
    ]
}

/// A default that leaves a pod weaker than Kubernetes itself would.
struct Weakening {
    path: &'static str,
    is: Weak,
}

enum Weak {
    Value(Value),
    NonEmpty,
}

fn weakening() -> Vec<Weakening> {
    let value = |path, value| Weakening {
        path,
        is: Weak::Value(value),
    };
    vec![
        value("pod.hostUsers", true.into()),
        value("pod.securityContext.runAsUser", 0.into()),
        value("pod.securityContext.runAsNonRoot", false.into()),
        value(
            "pod.securityContext.seccompProfile.type",
            "Unconfined".into(),
        ),
        value(
            "pod.securityContext.appArmorProfile.type",
            "Unconfined".into(),
        ),
        value(
            "containers.securityContext.allowPrivilegeEscalation",
            true.into(),
        ),
        value("containers.securityContext.procMount", "Unmasked".into()),
        Weakening {
            path: "containers.securityContext.capabilities.add",
            is: Weak::NonEmpty,
        },
        value("containers.securityContext.runAsUser", 0.into()),
        value("containers.securityContext.runAsNonRoot", false.into()),
        value(
            "containers.securityContext.seccompProfile.type",
            "Unconfined".into(),
        ),
        value(
            "containers.securityContext.appArmorProfile.type",
            "Unconfined".into(),
        ),
    ]
}

impl Weakening {
    fn into_rule(self, kind: PolicyKind) -> Rule {
        let steps: Vec<String> = self.path.split('.').map(str::to_owned).collect();
        let (test, what) = match &self.is {
            Weak::Value(Value::String(text)) => {
                (format!("self.{} == '{text}'", self.path), text.clone())
            }
            Weak::Value(value) => (format!("self.{} == {value}", self.path), value.to_string()),
            Weak::NonEmpty => (
                format!("size(self.{}) > 0", self.path),
                "an added capability".to_owned(),
            ),
        };
        let strong = format!("!({} && {test})", presence(&steps));
        let is_weak = move |spec: &Value| match (&self.is, at(spec, &steps)) {
            (Weak::Value(weak), Some(value)) => weak == value,
            (Weak::NonEmpty, Some(value)) => {
                value.as_array().is_some_and(|items| !items.is_empty())
            }
            (_, None) => false,
        };
        let field_path = format!(".{}", self.path);
        match kind {
            PolicyKind::Namespaced => Rule {
                field_path,
                ..rule(
                    "spec",
                    &strong,
                    &format!("{what} weakens pods: a namespace's policy can only harden"),
                    move |spec| !is_weak(spec),
                )
            },
            PolicyKind::Cluster => Rule {
                field_path,
                ..rule(
                    "spec",
                    &format!("(has(self.allowWeakening) && self.allowWeakening) || {strong}"),
                    &format!("{what} weakens pods: it needs spec.allowWeakening: true"),
                    move |spec| spec["allowWeakening"] == true || !is_weak(spec),
                )
            },
        }
    }
}
