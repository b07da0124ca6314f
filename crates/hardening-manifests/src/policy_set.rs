//! From manifests to a policy set.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use hardening_api::{ClusterPodHardeningPolicy, GROUP, PodHardeningPolicy, PolicyKind, violations};
use hardening_engine::{InvalidPolicy, Policy, PolicySet, UnknownNamespaces};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::object::{Object, objects};
use crate::read::{Manifest, Source};

/// Something wrong with an object. Displayed in one line:
/// `policies.yaml, document 2: PodHardeningPolicy shop/restricted: spec.mode: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the object stands.
    pub source: Source,
    /// The object, as its kind, namespace and name.
    pub object: String,
    /// The field, in the API's own spelling; empty: the object as a whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            object,
            field,
            message,
        } = self;
        write!(f, "{source}: {object}: ")?;
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        f.write_str(message)
    }
}

/// The policy set that the manifests make: policies of both kinds, Namespaces, ServiceAccounts and
/// RuntimeClasses; objects of other kinds are passed over. `namespace` is the one of objects that name
/// none.
///
/// An object with a problem is left out of the set. A namespace that is not among the manifests has just
/// its name as a label, and a RuntimeClass that is not is taken to exist.
#[must_use]
pub fn policy_set(manifests: &[Manifest], namespace: &str) -> (PolicySet, Vec<Problem>) {
    let mut builder = Builder {
        set: PolicySet::new(UnknownNamespaces::OnlyNameLabel),
        problems: Vec::new(),
        seen: HashMap::new(),
        namespace,
    };
    for object in objects(manifests) {
        builder.insert(&object);
    }
    (builder.set, builder.problems)
}

struct Builder<'a> {
    set: PolicySet,
    problems: Vec<Problem>,
    seen: HashMap<Key<'a>, Source>,
    namespace: &'a str,
}

#[derive(PartialEq, Eq, Hash)]
struct Key<'a> {
    kind: Kind,
    namespace: Option<&'a str>,
    name: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Policy(PolicyKind),
    Namespace,
    ServiceAccount,
    RuntimeClass,
}

impl<'a> Builder<'a> {
    fn insert(&mut self, object: &Object<'a>) {
        let Some(kind) = self.kind(object) else {
            return;
        };
        // In YAML as kubectl reads it `namespace: n` is not a name but false.
        for field in ["name", "namespace"] {
            let value = object.value.pointer(&format!("/metadata/{field}"));
            if value.is_some_and(|value| !value.is_null() && !value.is_string()) {
                let path = format!("metadata.{field}");
                return self.report(object, &path, "must be of type string");
            }
        }
        let Some(name) = object.name() else {
            return self.report(object, "metadata.name", "is required");
        };
        let namespace = match kind {
            Kind::Policy(PolicyKind::Namespaced) | Kind::ServiceAccount => {
                Some(object.namespace().unwrap_or(self.namespace))
            }
            Kind::Policy(PolicyKind::Cluster) | Kind::Namespace | Kind::RuntimeClass => None,
        };
        // `kubectl apply` would let the last one win, which of two policies in a folder nobody can see.
        let key = Key {
            kind,
            namespace,
            name,
        };
        if let Some(first) = self.seen.get(&key) {
            let message = format!("is given twice, first in {first}");
            return self.report(object, "", &message);
        }
        self.seen.insert(key, object.source.clone());
        match kind {
            Kind::Policy(PolicyKind::Namespaced) => {
                self.insert_policy(
                    object,
                    PolicyKind::Namespaced,
                    |mut policy: PodHardeningPolicy| {
                        policy.metadata.namespace = namespace.map(str::to_owned);
                        Policy::namespaced(&policy)
                    },
                );
            }
            Kind::Policy(PolicyKind::Cluster) => {
                self.insert_policy(
                    object,
                    PolicyKind::Cluster,
                    |policy: ClusterPodHardeningPolicy| Policy::cluster(&policy),
                );
            }
            Kind::Namespace => {
                if let Some(labels) = self.strings(object, "metadata.labels") {
                    self.set.insert_namespace(name, &labels);
                }
            }
            Kind::ServiceAccount => match object.value.get("automountServiceAccountToken") {
                None | Some(Value::Null) => {
                    self.set
                        .insert_service_account(namespace.unwrap_or_default(), name, None);
                }
                Some(Value::Bool(automount)) => {
                    self.set.insert_service_account(
                        namespace.unwrap_or_default(),
                        name,
                        Some(*automount),
                    );
                }
                Some(_) => {
                    self.report(
                        object,
                        "automountServiceAccountToken",
                        "must be of type boolean",
                    );
                }
            },
            Kind::RuntimeClass => {
                if let Some(labels) = self.strings(object, "scheduling.nodeSelector") {
                    self.set.insert_runtime_class(name, &labels);
                }
            }
        }
    }

    /// What the object is to a policy set, if anything. What claims to be of our group and is not is a
    /// mistake that would otherwise go unnoticed.
    fn kind(&mut self, object: &Object<'_>) -> Option<Kind> {
        match (object.api_version, object.kind) {
            ("v1", "Namespace") => Some(Kind::Namespace),
            ("v1", "ServiceAccount") => Some(Kind::ServiceAccount),
            ("node.k8s.io/v1", "RuntimeClass") => Some(Kind::RuntimeClass),
            (api_version, kind) => {
                let ours = PolicyKind::of(api_version, kind).map(Kind::Policy);
                let claims = api_version.split('/').next() == Some(GROUP);
                let named = PolicyKind::ALL.iter().any(|ours| ours.name() == kind);
                if ours.is_none() && (claims || named) {
                    let message = format!("there is no kind {kind:?} in version {api_version:?}");
                    self.report(object, "", &message);
                }
                ours
            }
        }
    }

    fn insert_policy<P: DeserializeOwned>(
        &mut self,
        object: &Object<'_>,
        kind: PolicyKind,
        compile: impl FnOnce(P) -> Result<Policy, InvalidPolicy>,
    ) {
        let mut wrong = violations(kind, object.value);
        if wrong.is_empty() {
            match serde_json::from_value(typed(object)).map(compile) {
                Ok(Ok(policy)) => return self.set.insert_policy(policy),
                Ok(Err(invalid)) => wrong = invalid.violations,
                Err(error) => return self.report(object, "", &error.to_string()),
            }
        }
        for violation in wrong {
            self.report(object, &violation.path, &violation.message);
        }
    }

    /// The map of strings at a path, empty where there is none; or a problem.
    fn strings(&mut self, object: &Object<'_>, path: &str) -> Option<BTreeMap<String, String>> {
        let empty = Map::new();
        let pointer = format!("/{}", path.replace('.', "/"));
        let map = match object.value.pointer(&pointer) {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(map)) => map,
            Some(_) => {
                self.report(object, path, "must be of type object");
                return None;
            }
        };
        let mut strings = BTreeMap::new();
        for (key, value) in map {
            let Some(text) = value.as_str() else {
                self.report(object, &format!("{path}[{key}]"), "must be of type string");
                return None;
            };
            strings.insert(key.clone(), text.to_owned());
        }
        Some(strings)
    }

    fn report(&mut self, object: &Object<'_>, field: &str, message: &str) {
        self.problems.push(Problem {
            source: object.source.clone(),
            object: object.to_string(),
            field: field.to_owned(),
            message: message.to_owned(),
        });
    }
}

/// The object with the apiVersion and kind that an item of a typed list has only by its list, and without
/// its null members: the API server drops them before it looks.
fn typed(object: &Object<'_>) -> Value {
    let mut value = object.value.clone();
    drop_nulls(&mut value);
    if let Value::Object(fields) = &mut value {
        fields.insert("apiVersion".to_owned(), object.api_version.into());
        fields.insert("kind".to_owned(), object.kind.into());
    }
    value
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    const POLICY: &str = "
apiVersion: podhardening.dev/v1alpha1
kind: PodHardeningPolicy
metadata: {name: a, namespace: shop}
spec: {profile: Restricted}
";

    fn read(text: &str) -> (PolicySet, Vec<String>) {
        let manifests = parse("f.yaml", text.as_bytes()).unwrap();
        let (set, problems) = policy_set(&manifests, "default");
        (set, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn policies_and_what_they_select_by_are_picked_out() {
        let (set, problems) = read(&format!(
            "{POLICY}---
apiVersion: v1
kind: List
items:
- apiVersion: podhardening.dev/v1alpha1
  kind: ClusterPodHardeningPolicy
  metadata: {{name: b}}
  spec: {{profile: Hardened}}
---
apiVersion: podhardening.dev/v1alpha1
kind: PodHardeningPolicyList
items:
- metadata: {{name: c}}
  spec: {{profile: Hardened}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: shop, labels: {{team: a}}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: robot}}
automountServiceAccountToken: true
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {{name: gvisor}}
handler: runsc
---
apiVersion: apps/v1
kind: Deployment
"
        ));
        assert_eq!(problems, [""; 0]);
        let mut policies: Vec<String> = set
            .policies()
            .map(|policy| policy.reference().to_string())
            .collect();
        policies.sort();
        assert_eq!(policies, ["b@1", "default/c@1", "shop/a@1"]);
        assert_eq!(set.namespace_count(), 1);
    }

    #[test]
    fn what_is_null_is_as_good_as_absent() {
        let (set, problems) = read(
            "apiVersion: podhardening.dev/v1alpha1
kind: PodHardeningPolicy
metadata: {name: a}
spec:
  profile: Restricted
  podSelector: {matchExpressions: null}
  serviceAccountNames: null
  pod: null
  containers: {kinds: null, writablePaths: null}
",
        );
        assert_eq!(problems, [""; 0]);
        assert_eq!(set.policy_count(), 1);
    }

    #[test]
    fn a_problem_names_file_document_object_and_field() {
        let cases: &[(&str, &[&str])] = &[
            (
                "apiVersion: podhardening.dev/v1alpha1\nkind: PodHardeningPolicy\nmetadata: {name: a, namespace: ns}\nspec: {mode: Enforced, profile: Restricted}",
                &[
                    "f.yaml: PodHardeningPolicy ns/a: spec.mode: Enforced is not one of Enforce, Audit",
                ],
            ),
            (
                "apiVersion: podhardening.dev/v1alpha1\nkind: PodHardeningPolicy\nmetadata: {namespace: ns}\nspec: {profile: Restricted}",
                &["f.yaml: PodHardeningPolicy: metadata.name: is required"],
            ),
            (
                "apiVersion: podhardening.dev/v1alpha1\nkind: PodHardeningPolicy\nmetadata: {name: a, namespace: n}\nspec: {profile: Restricted}",
                &["f.yaml: PodHardeningPolicy a: metadata.namespace: must be of type string"],
            ),
            (
                "apiVersion: v1\nkind: Namespace\nmetadata: {name: 123}",
                &["f.yaml: Namespace: metadata.name: must be of type string"],
            ),
            (
                "apiVersion: podhardening.dev/v1\nkind: PodHardeningPolicy\nmetadata: {name: a}",
                &[
                    "f.yaml: PodHardeningPolicy a: there is no kind \"PodHardeningPolicy\" in version \"podhardening.dev/v1\"",
                ],
            ),
            (
                "apiVersion: podhardening.dev/v1alpha1\nkind: PodHardenPolicy\nmetadata: {name: a}",
                &[
                    "f.yaml: PodHardenPolicy a: there is no kind \"PodHardenPolicy\" in version \"podhardening.dev/v1alpha1\"",
                ],
            ),
            (
                "kind: ClusterPodHardeningPolicy\nmetadata: {name: a}",
                &[
                    "f.yaml: ClusterPodHardeningPolicy a: there is no kind \"ClusterPodHardeningPolicy\" in version \"\"",
                ],
            ),
            (
                "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {v: 1}}",
                &["f.yaml: Namespace a: metadata.labels[v]: must be of type string"],
            ),
            (
                "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\nautomountServiceAccountToken: 'no'",
                &[
                    "f.yaml: ServiceAccount a: automountServiceAccountToken: must be of type boolean",
                ],
            ),
            (
                "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: a}\nscheduling: {nodeSelector: [a]}",
                &["f.yaml: RuntimeClass a: scheduling.nodeSelector: must be of type object"],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text).1, *expected, "{text}");
        }
    }

    #[test]
    fn an_object_given_twice_is_a_problem_and_the_first_is_used() {
        let (set, problems) = read(&format!("{POLICY}---{POLICY}"));
        assert_eq!(set.policy_count(), 1);
        assert_eq!(
            problems,
            [
                "f.yaml, document 2: PodHardeningPolicy shop/a: is given twice, first in f.yaml, document 1"
            ]
        );
    }

    #[test]
    fn a_broken_policy_is_left_out_and_harms_no_other() {
        let broken = POLICY
            .replace("name: a", "name: b")
            .replace("Restricted", "Restrictive");
        let (set, problems) = read(&format!("{broken}---{POLICY}"));
        assert_eq!((set.policy_count(), problems.len()), (1, 1));
    }
}
