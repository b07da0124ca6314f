//! Who could use which PSP: the `use` permissions that Roles, ClusterRoles and their bindings grant.
//!
//! A PSP applied to a pod where the pod's service account, or whoever created the pod, was allowed to `use` it
//! in the pod's namespace. Defaults can be chosen by namespace and service account; who asks for a pod cannot be
//! known beforehand, so grants to people become notes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::note::Note;

/// That pods may use a PSP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The PSP's name.
    pub psp: String,
    /// The namespace of the pods; `None`: every namespace.
    pub namespace: Option<String>,
    /// The pods' service account; `None`: every one.
    pub service_account: Option<String>,
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
pub fn grants(psps: &[&str], objects: &[Value]) -> Grants {
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
    /// The PSPs that a pod of this namespace and service account could use, by name.
    #[must_use]
    pub fn usable(&self, namespace: &str, service_account: &str) -> BTreeSet<&str> {
        let covers =
            |limit: &Option<String>, name: &str| limit.as_deref().is_none_or(|one| one == name);
        self.grants
            .iter()
            .filter(|grant| {
                covers(&grant.namespace, namespace)
                    && covers(&grant.service_account, service_account)
            })
            .map(|grant| grant.psp.as_str())
            .collect()
    }

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
        let granted: Vec<&str> = psps
            .iter()
            .copied()
            .filter(|psp| role.grants(psp))
            .collect();
        if granted.is_empty() {
            return;
        }
        for subject in binding.subjects.iter().flatten() {
            match subject.pods(bound.as_deref()) {
                Some((namespace, service_account)) => {
                    self.grants.extend(granted.iter().map(|psp| Grant {
                        psp: (*psp).to_owned(),
                        namespace: namespace.clone(),
                        service_account: service_account.clone(),
                    }));
                }
                None => self.note(
                    about.as_str(),
                    format!(
                        "{} {} could use {} for the pods it created itself; whoever creates a pod does not decide its defaults",
                        subject.kind,
                        subject.name,
                        granted.join(", ")
                    ),
                    "select those pods by namespace or label if they need defaults of their own",
                ),
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

    /// Whether the role lets one `use` the PSP, in either of the groups that PSPs were in.
    fn grants(&self, psp: &str) -> bool {
        let has = |list: &Option<Vec<String>>, names: &[&str]| {
            list.iter()
                .flatten()
                .any(|one| one == "*" || names.contains(&one.as_str()))
        };
        self.rules.iter().flatten().any(|rule| {
            let names = rule.resource_names.as_deref().unwrap_or_default();
            has(&rule.verbs, &["use"])
                && has(&rule.api_groups, &["policy", "extensions"])
                && has(&rule.resources, &["podsecuritypolicies"])
                && (names.is_empty() || names.iter().any(|name| name == psp))
        })
    }
}

impl Subject {
    /// The namespace and the service account of the pods that the subject stands for, each `None` for all;
    /// `None` where it stands for no pods. `bound` is the namespace in which the grant holds.
    fn pods(&self, bound: Option<&str>) -> Option<(Option<String>, Option<String>)> {
        const ACCOUNT: &str = "system:serviceaccount:";
        const ACCOUNTS: &str = "system:serviceaccounts:";
        let (own, account) = match self.kind.as_str() {
            "ServiceAccount" => (self.namespace.as_deref(), Some(self.name.as_str())),
            "User" => {
                let (namespace, name) = self.name.strip_prefix(ACCOUNT)?.split_once(':')?;
                (Some(namespace), Some(name))
            }
            "Group" => match self.name.as_str() {
                "system:serviceaccounts" | "system:authenticated" => (None, None),
                name => (Some(name.strip_prefix(ACCOUNTS)?), None),
            },
            _ => return None,
        };
        // A pod's service account is of the pod's own namespace.
        let namespace = match (own, bound) {
            (Some(own), Some(bound)) if own != bound => return None,
            (own, bound) => own.or(bound),
        };
        Some((namespace.map(str::to_owned), account.map(str::to_owned)))
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

    /// Expected: psp, namespace, service account, with `*` for all.
    fn check(
        kind: &str,
        role_name: &str,
        names: &Value,
        subject: &Value,
        expected: &[&str],
        notes: usize,
    ) {
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
        let all = |limit: &Option<String>| limit.clone().unwrap_or("*".to_owned());
        let listed: Vec<String> = found
            .grants
            .iter()
            .map(|grant| {
                format!(
                    "{} {} {}",
                    grant.psp,
                    all(&grant.namespace),
                    all(&grant.service_account)
                )
            })
            .collect();
        assert_eq!(listed, expected, "{kind} {subject}");
        assert_eq!(found.notes.len(), notes, "{:?}", found.notes);
    }

    #[test]
    fn a_grant_reaches_the_pods_that_its_subject_stands_for_where_it_is_bound() {
        let account = json!({"kind": "ServiceAccount", "name": "till", "namespace": "shop"});
        let other = json!({"kind": "ServiceAccount", "name": "till", "namespace": "bank"});
        let user = json!({"kind": "User", "name": "system:serviceaccount:shop:till"});
        let everyone = json!({"kind": "Group", "name": "system:serviceaccounts"});
        let authenticated = json!({"kind": "Group", "name": "system:authenticated"});
        let of_bank = json!({"kind": "Group", "name": "system:serviceaccounts:bank"});
        let person = json!({"kind": "User", "name": "alice"});
        let tight = json!(["tight"]);
        check(
            "RoleBinding",
            "role",
            &tight,
            &account,
            &["tight shop till"],
            0,
        );
        check(
            "RoleBinding",
            "cluster",
            &tight,
            &user,
            &["tight shop till"],
            0,
        );
        check(
            "ClusterRoleBinding",
            "cluster",
            &tight,
            &other,
            &["tight bank till"],
            0,
        );
        check(
            "RoleBinding",
            "role",
            &json!([]),
            &everyone,
            &["open shop *", "tight shop *"],
            0,
        );
        check(
            "ClusterRoleBinding",
            "cluster",
            &tight,
            &authenticated,
            &["tight * *"],
            0,
        );
        check(
            "ClusterRoleBinding",
            "cluster",
            &tight,
            &of_bank,
            &["tight bank *"],
            0,
        );
        // Neither is a pod's own service account there.
        check("RoleBinding", "role", &tight, &other, &[], 1);
        check("RoleBinding", "role", &tight, &of_bank, &[], 1);
        check("ClusterRoleBinding", "cluster", &tight, &person, &[], 1);
        check("RoleBinding", "role", &json!(["other"]), &person, &[], 0);
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
            assert_eq!(found.usable("any", "any").len(), expected, "{rule}");
        }
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
        assert_eq!(found.usable("shop", "till"), BTreeSet::from(["open"]));
        assert_eq!(found.usable("bank", "till"), BTreeSet::new());
    }
}
