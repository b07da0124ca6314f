//! Who could use which PSP: the `use` permissions that Roles, ClusterRoles and their bindings grant.
//!
//! A PSP applied to a pod where the pod's service account, or whoever created the pod, was allowed to `use` it
//! in the pod's namespace. So a grant to a service account counts twice: for its pods, and for the pods that it
//! creates.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::check::is_name;
use crate::note::Note;

/// How the user that a service account is begins.
const ACCOUNT: &str = "system:serviceaccount:";
/// How the group of a namespace's service accounts begins.
const ACCOUNTS: &str = "system:serviceaccounts:";

/// That pods may use a PSP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The PSP's name.
    pub psp: String,
    /// The namespace of the pods; `None`: every namespace.
    pub namespace: Option<String>,
    /// Which of the pods there.
    pub grantee: Grantee,
}

/// Whose grant it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grantee {
    /// Every pod's.
    Everyone,
    /// That of the pods with this service account.
    ServiceAccount(String),
    /// That of the user who creates a pod.
    User(String),
    /// That of the users of a group.
    Group(String),
}

/// Who could use what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Each once, sorted.
    pub grants: BTreeSet<Grant>,
    /// What could not be told, each with the object that it is about in place of a PSP's field.
    pub notes: Vec<Note>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    kind: String,
    metadata: Metadata,
    rules: Option<Vec<Rule>>,
    aggregation_rule: Option<Value>,
    role_ref: RoleRef,
    subjects: Option<Vec<Subject>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    verbs: Option<Vec<String>>,
    api_groups: Option<Vec<String>>,
    resources: Option<Vec<String>>,
    resource_names: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: Option<String>,
}

/// Whether an object of this `apiVersion` and `kind` has a say in who may use what.
#[must_use]
pub fn is_rbac(api_version: &str, kind: &str) -> bool {
    api_version.starts_with("rbac.authorization.k8s.io/")
        && ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"].contains(&kind)
}

/// Works out who could use which of these PSPs.
#[must_use]
pub fn grants<'a>(psps: &[&str], objects: impl IntoIterator<Item = &'a Value>) -> Grants {
    let mut grants = Grants::default();
    let mut roles = BTreeMap::new();
    let mut bindings = Vec::new();
    for value in objects {
        let object = match Object::deserialize(value) {
            Ok(object) => object,
            Err(error) => {
                let name = value.pointer("/metadata/name").and_then(Value::as_str);
                let field = name.unwrap_or("an object without a name").to_owned();
                let why = format!("is no role or binding that can be read ({error})");
                grants.note(field, why, "correct it, and convert again");
                continue;
            }
        };
        match object.kind.as_str() {
            "Role" | "ClusterRole" => {
                let key = (object.namespace("Role"), object.metadata.name.clone());
                roles.insert(key, object);
            }
            _ => bindings.push(object),
        }
    }
    for binding in &bindings {
        grants.add_binding(psps, &roles, binding);
    }
    grants
}

impl Grants {
    fn note(&mut self, field: impl Into<String>, why: impl Into<String>, advice: &str) {
        self.notes.push(Note::new(field, why, advice));
    }

    fn add_binding(
        &mut self,
        psps: &[&str],
        roles: &BTreeMap<(Option<String>, String), Object>,
        binding: &Object,
    ) {
        let bound = binding.namespace("RoleBinding");
        let RoleRef { kind, name } = &binding.role_ref;
        let of_role = match kind.as_str() {
            "Role" => bound.clone(),
            _ => None,
        };
        let about = format!("{} {}", binding.kind, binding.metadata.name);
        if let Some(namespace) = bound.as_deref().filter(|name| !is_name(name)) {
            let why = format!("{namespace} is no name of a namespace");
            self.note(about, why, "correct it, and convert again");
            return;
        }
        let Some(role) = roles.get(&(of_role, name.clone())) else {
            let why =
                format!("its {kind} {name} is not given, so whether it grants a PSP is not known");
            self.note(about, why, "give the role too, and convert again");
            return;
        };
        if role.aggregation_rule.is_some() && role.rules.as_ref().is_none_or(Vec::is_empty) {
            let why = format!("the rules of {name} are made by aggregation and not given");
            self.note(
                about.as_str(),
                why,
                "export the role from the cluster, where it has its rules",
            );
        }
        let missing = role.named().filter(|name| !psps.contains(name));
        let missing: BTreeSet<&str> = missing.collect();
        for psp in missing {
            let why = format!(
                "it lets one use PodSecurityPolicy {psp}, which is not among those that are converted"
            );
            self.note(about.as_str(), why, "give that too, unless it is gone");
        }
        let granted: Vec<&str> = psps
            .iter()
            .copied()
            .filter(|psp| role.grants(psp))
            .collect();
        if granted.is_empty() {
            return;
        }
        for subject in binding.subjects.iter().flatten() {
            if !subject.can_be() {
                let why = format!("{} {} can be nobody's name", subject.kind, subject.name);
                self.note(about.as_str(), why, "correct it, and convert again");
                continue;
            }
            for (namespace, grantee) in subject.grantees(bound.as_deref()) {
                self.grants.extend(granted.iter().map(|psp| Grant {
                    psp: (*psp).to_owned(),
                    namespace: namespace.clone(),
                    grantee: grantee.clone(),
                }));
            }
        }
    }
}

impl Object {
    /// The object's namespace, if it is of the kind that has one: `default` where it says none, as for kubectl.
    fn namespace(&self, namespaced: &str) -> Option<String> {
        let own = self.metadata.namespace.as_deref().unwrap_or("default");
        (self.kind == namespaced).then(|| own.to_owned())
    }

    /// Whether the role lets one `use` the PSP.
    fn grants(&self, psp: &str) -> bool {
        let mut rules = self.rules();
        rules.any(|names| names.is_empty() || names.iter().any(|name| name == psp))
    }

    /// The PSPs that the role names.
    fn named(&self) -> impl Iterator<Item = &str> {
        self.rules().flatten().map(String::as_str)
    }

    /// Of each rule that lets one `use` PSPs, in either of the groups that PSPs were in, their names; empty: all.
    fn rules(&self) -> impl Iterator<Item = &[String]> {
        let has = |list: &Option<Vec<String>>, names: &[&str]| {
            let mut list = list.iter().flatten();
            list.any(|one| one == "*" || names.contains(&one.as_str()))
        };
        let rules = self.rules.iter().flatten().filter(move |rule| {
            has(&rule.verbs, &["use"])
                && has(&rule.api_groups, &["policy", "extensions"])
                && has(&rule.resources, &["podsecuritypolicies"])
        });
        rules.map(|rule| rule.resource_names.as_deref().unwrap_or_default())
    }
}

impl Subject {
    /// Whether a service account, if it is one, has names that it can have.
    fn can_be(&self) -> bool {
        let of = |prefix: &str| self.name.strip_prefix(prefix);
        match self.kind.as_str() {
            "ServiceAccount" => {
                is_name(&self.name) && self.namespace.as_deref().is_none_or(is_name)
            }
            "User" => of(ACCOUNT).is_none_or(|name| {
                let parts = name.split_once(':');
                parts.is_some_and(|(namespace, name)| is_name(namespace) && is_name(name))
            }),
            "Group" => of(ACCOUNTS).is_none_or(is_name),
            _ => true,
        }
    }

    /// Whose grant it is, and the namespaces of the pods, `None` for all. `bound` is the namespace in which the
    /// grant holds.
    fn grantees(&self, bound: Option<&str>) -> Vec<(Option<String>, Grantee)> {
        let bound_to = bound.map(str::to_owned);
        // A pod's service account is of the pod's own namespace.
        let pods_of = |own: &str, grantee: Grantee| {
            let holds = bound.is_none_or(|bound| bound == own);
            holds.then(|| (Some(own.to_owned()), grantee))
        };
        let account = |own: &str, name: &str, user: String| {
            let pods = pods_of(own, Grantee::ServiceAccount(name.to_owned()));
            let created = (bound_to.clone(), Grantee::User(user));
            pods.into_iter().chain([created]).collect()
        };
        match self.kind.as_str() {
            // Of no namespace at all it is nobody.
            "ServiceAccount" => match self.namespace.as_deref().or(bound) {
                Some(own) => {
                    let user = format!("{ACCOUNT}{own}:{}", self.name);
                    account(own, &self.name, user)
                }
                None => Vec::new(),
            },
            "User" => {
                let name = self.name.strip_prefix(ACCOUNT);
                match name.and_then(|name| name.split_once(':')) {
                    Some((own, name)) => account(own, name, self.name.clone()),
                    None => vec![(bound_to, Grantee::User(self.name.clone()))],
                }
            }
            "Group" => match self.name.as_str() {
                "system:serviceaccounts" | "system:authenticated" => {
                    vec![(bound_to, Grantee::Everyone)]
                }
                name => {
                    let of = name.strip_prefix(ACCOUNTS);
                    let pods = of.and_then(|own| pods_of(own, Grantee::Everyone));
                    let created = (bound_to, Grantee::Group(name.to_owned()));
                    pods.into_iter().chain([created]).collect()
                }
            },
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PSPS: [&str; 2] = ["open", "tight"];

    fn role(kind: &str, name: &str, names: &Value) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name, "namespace": if kind == "Role" { json!("shop") } else { json!(null) }},
            "rules": [{"verbs": ["use"], "apiGroups": ["policy"], "resources": ["podsecuritypolicies"], "resourceNames": names}]})
    }

    fn binding(kind: &str, role: &str, subject: &Value) -> Value {
        let namespace = if kind == "RoleBinding" {
            json!("shop")
        } else {
            json!(null)
        };
        let role_kind = if role.starts_with("cluster") {
            "ClusterRole"
        } else {
            "Role"
        };
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"name": "b", "namespace": namespace},
            "roleRef": {"kind": role_kind, "name": role}, "subjects": [subject]})
    }

    fn shown(found: &Grants) -> Vec<String> {
        let grants = found.grants.iter();
        grants
            .map(|grant| {
                let namespace = grant.namespace.as_deref().unwrap_or("*");
                format!("{} {namespace} {:?}", grant.psp, grant.grantee)
            })
            .collect()
    }

    fn check(kind: &str, role_name: &str, names: &Value, subject: &Value, expected: &[&str]) {
        let role_kind = if role_name.starts_with("cluster") {
            "ClusterRole"
        } else {
            "Role"
        };
        let objects = [
            role(role_kind, role_name, names),
            binding(kind, role_name, subject),
        ];
        let found = grants(&PSPS, &objects);
        assert_eq!(shown(&found), expected, "{kind} {subject}");
        assert_eq!(found.notes, []);
    }

    #[test]
    fn a_grant_reaches_its_subjects_pods_and_the_pods_that_it_creates() {
        let account = |namespace: &str| json!({"kind": "ServiceAccount", "name": "till", "namespace": namespace});
        let user = |name: &str| json!({"kind": "User", "name": name});
        let group = |name: &str| json!({"kind": "Group", "name": name});
        let created_by_till = "tight shop User(\"system:serviceaccount:shop:till\")";
        let cases: &[(&str, Value, &[&str])] = &[
            (
                "RoleBinding",
                account("shop"),
                &["tight shop ServiceAccount(\"till\")", created_by_till],
            ),
            (
                "RoleBinding",
                json!({"kind": "ServiceAccount", "name": "till"}),
                &["tight shop ServiceAccount(\"till\")", created_by_till],
            ),
            (
                "RoleBinding",
                user("system:serviceaccount:shop:till"),
                &["tight shop ServiceAccount(\"till\")", created_by_till],
            ),
            // Of another namespace, it is no pod's own service account there.
            (
                "RoleBinding",
                account("bank"),
                &["tight shop User(\"system:serviceaccount:bank:till\")"],
            ),
            (
                "ClusterRoleBinding",
                account("bank"),
                &[
                    "tight * User(\"system:serviceaccount:bank:till\")",
                    "tight bank ServiceAccount(\"till\")",
                ],
            ),
            (
                "ClusterRoleBinding",
                json!({"kind": "ServiceAccount", "name": "till"}),
                &[],
            ),
            (
                "RoleBinding",
                user("alice"),
                &["tight shop User(\"alice\")"],
            ),
            (
                "ClusterRoleBinding",
                user("alice"),
                &["tight * User(\"alice\")"],
            ),
            (
                "RoleBinding",
                group("system:serviceaccounts"),
                &["tight shop Everyone"],
            ),
            (
                "ClusterRoleBinding",
                group("system:authenticated"),
                &["tight * Everyone"],
            ),
            (
                "ClusterRoleBinding",
                group("system:serviceaccounts:bank"),
                &[
                    "tight * Group(\"system:serviceaccounts:bank\")",
                    "tight bank Everyone",
                ],
            ),
            (
                "RoleBinding",
                group("system:serviceaccounts:bank"),
                &["tight shop Group(\"system:serviceaccounts:bank\")"],
            ),
            (
                "RoleBinding",
                group("people"),
                &["tight shop Group(\"people\")"],
            ),
        ];
        for (kind, subject, expected) in cases {
            check(kind, "cluster", &json!(["tight"]), subject, expected);
        }
        let everyone = group("system:serviceaccounts");
        let all = ["open shop Everyone", "tight shop Everyone"];
        check("RoleBinding", "role", &json!([]), &everyone, &all);
        let found = grants(
            &PSPS,
            &[
                role("Role", "role", &json!(["other", "tight"])),
                binding("RoleBinding", "role", &everyone),
            ],
        );
        assert_eq!(shown(&found), ["tight shop Everyone"]);
        let why: Vec<&str> = found.notes.iter().map(|note| note.why.as_str()).collect();
        assert_eq!(
            why,
            [
                "it lets one use PodSecurityPolicy other, which is not among those that are converted"
            ]
        );
    }

    #[test]
    fn wildcards_and_the_older_group_grant_too_and_other_verbs_do_not() {
        for (rule, expected) in [
            (
                json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
                2,
            ),
            (
                json!({"verbs": ["use"], "apiGroups": ["extensions"], "resources": ["podsecuritypolicies"]}),
                2,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": ["policy"], "resources": ["podsecuritypolicies"]}),
                0,
            ),
            (
                json!({"verbs": ["use"], "apiGroups": [""], "resources": ["podsecuritypolicies"]}),
                0,
            ),
            (
                json!({"verbs": ["use"], "apiGroups": ["policy"], "resources": ["secrets"]}),
                0,
            ),
        ] {
            let mut role = role("ClusterRole", "cluster", &json!([]));
            role["rules"] = json!([rule]);
            let everyone = json!({"kind": "Group", "name": "system:serviceaccounts"});
            let found = grants(
                &PSPS,
                &[role, binding("ClusterRoleBinding", "cluster", &everyone)],
            );
            assert_eq!(found.grants.len(), expected, "{rule}");
        }
    }

    #[test]
    fn what_can_be_no_name_is_nobodys_and_said() {
        let of = |subject: Value| {
            grants(
                &PSPS,
                &[
                    role("ClusterRole", "cluster", &json!([])),
                    binding("ClusterRoleBinding", "cluster", &subject),
                ],
            )
        };
        for subject in [
            json!({"kind": "ServiceAccount", "name": "till", "namespace": "../shop"}),
            json!({"kind": "ServiceAccount", "name": "*", "namespace": "shop"}),
            json!({"kind": "User", "name": "system:serviceaccount:shop"}),
            json!({"kind": "User", "name": "system:serviceaccount:a/b:till"}),
            json!({"kind": "Group", "name": "system:serviceaccounts:"}),
        ] {
            let found = of(subject.clone());
            assert_eq!(
                (shown(&found).len(), found.notes.len()),
                (0, 1),
                "{subject}"
            );
        }
        let everyone = json!({"kind": "Group", "name": "system:serviceaccounts"});
        let mut elsewhere = binding("RoleBinding", "cluster", &everyone);
        elsewhere["metadata"]["namespace"] = json!("../shop");
        let found = grants(
            &PSPS,
            &[role("ClusterRole", "cluster", &json!([])), elsewhere],
        );
        assert_eq!((shown(&found).len(), found.notes.len()), (0, 1));
    }

    #[test]
    fn what_is_missing_or_unreadable_is_noted_and_harms_nothing_else() {
        let everyone = json!({"kind": "Group", "name": "system:serviceaccounts"});
        let found = grants(
            &PSPS,
            &[
                json!({"kind": "Role", "metadata": {"name": "bad"}, "rules": "all"}),
                binding("RoleBinding", "gone", &everyone),
                role("Role", "role", &json!(["open"])),
                binding("RoleBinding", "role", &everyone),
            ],
        );
        let about: Vec<&str> = found.notes.iter().map(|note| note.field.as_str()).collect();
        assert_eq!(about, ["bad", "RoleBinding b"]);
        assert_eq!(shown(&found), ["open shop Everyone"]);
    }
}
