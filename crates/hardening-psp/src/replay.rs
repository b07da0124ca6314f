//! What PodSecurityPolicy made of a pod, and where what takes its place differs.
//!
//! [`Migration::judge`] is 1.24's admission of a new pod: of the PSPs usable for it, by name, the first that
//! admits it as it is, else the first that admits it once it has filled it in. [`differences`] are between the
//! pod that 1.24 stored and the one that the converted policies harden.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::legacy::{modernise, store_today};
use crate::level::Level;
use crate::migrate::{Migration, Usable};
use crate::pod::{InvalidPod, LISTS};
use crate::policy::Policy;
use crate::scope::Requesters;
use crate::validate::Denial;

/// Why PSPs denied a pod, each by its name.
pub type Denials = BTreeMap<String, Vec<Denial>>;

/// What PodSecurityPolicy made of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// It was admitted.
    Admitted {
        /// The PSP that admitted it.
        by: String,
        /// The pod as that PSP filled it in.
        pod: Value,
    },
    /// Every usable PSP denied it.
    Denied(Denials),
}

/// A security field that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field, as `spec.containers[web].securityContext.runAsGroup`.
    pub field: String,
    /// What 1.24 stored, if anything.
    pub stored: Option<Value>,
    /// What the converted policies give, if anything.
    pub hardened: Option<Value>,
}

impl Migration {
    /// What 1.24 made of a pod that `requester` created; `None` for one of whom nothing is known, for whom only
    /// what the pod's service account could use counts. The pod is as [`as_created`](crate::as_created) leaves it.
    ///
    /// # Errors
    ///
    /// Where a field that matters has a value of a type that no pod has there.
    pub fn judge(
        &self,
        namespace: &str,
        service_account: &str,
        requester: Option<&Requesters>,
        pod: &Value,
    ) -> Result<Judgement, InvalidPod> {
        let mut filled_in = None;
        let mut denied = BTreeMap::new();
        for (name, policy) in self.candidates(namespace, service_account, requester) {
            let mut mutated = pod.clone();
            policy.mutate(&mut mutated)?;
            let denials = policy.validate(&mutated)?;
            let admitted = |pod| Judgement::Admitted {
                by: name.to_owned(),
                pod,
            };
            if !denials.is_empty() {
                denied.insert(name.to_owned(), denials);
            } else if mutated == *pod {
                return Ok(admitted(mutated));
            } else if filled_in.is_none() {
                filled_in = Some(admitted(mutated));
            }
        }
        Ok(filled_in.unwrap_or(Judgement::Denied(denied)))
    }
}

impl Migration {
    /// Why the denying half denies a hardened pod that `requester` creates; `None`: it admits it, as any one of
    /// the PSPs that were usable for it does, or only warns of it, as [nothing is filled in](Self::is_left_unfilled)
    /// there.
    ///
    /// # Errors
    ///
    /// Where a field that matters has a value of a type that no pod has there.
    pub fn denials(
        &self,
        namespace: &str,
        service_account: &str,
        requester: Option<&Requesters>,
        pod: &Value,
    ) -> Result<Option<Denials>, InvalidPod> {
        if self.is_left_unfilled(namespace, service_account) {
            return Ok(None);
        }
        let mut stored = pod.clone();
        store_today(&mut stored)?;
        let mut denied = BTreeMap::new();
        for (name, policy) in self.candidates(namespace, service_account, requester) {
            let denials = policy.denials_today(&stored)?;
            if denials.is_empty() {
                return Ok(None);
            }
            denied.insert(name.to_owned(), denials);
        }
        Ok(Some(denied))
    }

    /// The level that the pods of a namespace are held to.
    #[must_use]
    pub fn level(&self, namespace: &str) -> Level {
        let named = |object: &&Value| {
            object.pointer("/metadata/name").and_then(Value::as_str) == Some(namespace)
        };
        let enforced = self.namespaces.iter().find(named).and_then(|object| {
            object.pointer("/metadata/labels/pod-security.kubernetes.io~1enforce")
        });
        let name = enforced.and_then(Value::as_str);
        name.and_then(|name| name.parse().ok())
            .unwrap_or(Level::Privileged)
    }

    /// The PSPs that such a pod could be admitted by, by name.
    fn candidates(
        &self,
        namespace: &str,
        service_account: &str,
        requester: Option<&Requesters>,
    ) -> impl Iterator<Item = (&str, &Policy)> {
        let usable = self.usable(namespace, service_account);
        let names = usable.map(|usable| usable.for_requester(namespace, requester));
        names.into_iter().flatten().filter_map(|name| {
            let conversion = self.psps.get(name)?;
            Some((name, &conversion.policy))
        })
    }
}

impl Usable {
    /// The PSPs that a pod of the namespace could be admitted by when `requester` creates it, by name.
    pub(crate) fn for_requester(
        &self,
        namespace: &str,
        requester: Option<&Requesters>,
    ) -> BTreeSet<&str> {
        let full = |account: &String| format!("system:serviceaccount:{namespace}:{account}");
        let is_among = |requesters: &Requesters| {
            let mut own = requesters.own_accounts.iter().map(full);
            requester.is_some_and(|one| {
                !requesters.users.is_disjoint(&one.users)
                    || !requesters.groups.is_disjoint(&one.groups)
                    || own.any(|account| one.users.contains(&account))
            })
        };
        let further = self.by_requester.iter();
        let further = further.filter(|(_, requesters)| is_among(requesters));
        let own = self.by_account.iter();
        own.chain(further.map(|(name, _)| name))
            .map(String::as_str)
            .collect()
    }
}

impl Requesters {
    /// Who creates the pods of a kind of workload: its controller, which has a service account of its own, or
    /// in a few clusters none but the controller manager's. A node creates the mirrors of its static pods.
    /// `None`: nobody does for the kind.
    #[must_use]
    pub fn controller_of(kind: &str) -> Option<Self> {
        let groups = |names: &[&str]| names.iter().copied().map(str::to_owned).collect();
        let controller = match kind {
            "Node" => {
                return Some(Self {
                    groups: groups(&["system:authenticated", "system:nodes"]),
                    ..Self::default()
                });
            }
            "Deployment" | "ReplicaSet" => "replicaset-controller",
            "StatefulSet" => "statefulset-controller",
            "DaemonSet" => "daemon-set-controller",
            "Job" | "CronJob" => "job-controller",
            "ReplicationController" => "replication-controller",
            _ => return None,
        };
        let own = format!("system:serviceaccount:kube-system:{controller}");
        Some(Self {
            users: BTreeSet::from([own, "system:kube-controller-manager".to_owned()]),
            groups: groups(&[
                "system:authenticated",
                "system:serviceaccounts",
                "system:serviceaccounts:kube-system",
            ]),
            own_accounts: BTreeSet::new(),
        })
    }
}

/// Where two pods differ in their security fields, legacy annotations being the fields that replaced them. What
/// is null or empty is as good as absent, and lists of capabilities are sets.
///
/// # Errors
///
/// Where a field that matters has a value of a type that no pod has there.
pub fn differences(stored: &Value, hardened: &Value) -> Result<Vec<Difference>, InvalidPod> {
    let (stored, hardened) = (security(stored)?, security(hardened)?);
    let paths: BTreeSet<&String> = stored.keys().chain(hardened.keys()).collect();
    let differences = paths.into_iter().filter_map(|path| {
        let (stored, hardened) = (stored.get(path), hardened.get(path));
        (stored != hardened).then(|| Difference {
            field: path.clone(),
            stored: stored.cloned(),
            hardened: hardened.cloned(),
        })
    });
    Ok(differences.collect())
}

/// The security fields of a pod, by path.
fn security(pod: &Value) -> Result<BTreeMap<String, Value>, InvalidPod> {
    let mut pod = pod.clone();
    modernise(&mut pod)?;
    let mut fields = BTreeMap::new();
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    add_context("spec", spec, &mut fields);
    if let Some(class) = spec
        .get("runtimeClassName")
        .filter(|class| !class.is_null())
    {
        fields.insert("spec.runtimeClassName".to_owned(), class.clone());
    }
    for list in LISTS {
        let containers = spec.get(list).and_then(Value::as_array);
        for container in containers.into_iter().flatten() {
            let name = container.get("name").and_then(Value::as_str);
            let path = format!("spec.{list}[{}]", name.unwrap_or_default());
            add_context(&path, container, &mut fields);
        }
    }
    Ok(fields)
}

fn add_context(path: &str, owner: &Value, fields: &mut BTreeMap<String, Value>) {
    let context = owner.get("securityContext").and_then(Value::as_object);
    for (name, value) in context.into_iter().flatten() {
        let path = format!("{path}.securityContext.{name}");
        let mut add = |path: String, value: Value| {
            if !is_empty(&value) {
                fields.insert(path, value);
            }
        };
        if name == "capabilities" {
            for list in ["add", "drop"] {
                let names = value.get(list).and_then(Value::as_array);
                let names = names.into_iter().flatten().filter_map(Value::as_str);
                let names: BTreeSet<&str> = names.collect();
                add(format!("{path}.{list}"), json!(names));
            }
        } else {
            add(path, value.clone());
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => Map::is_empty(members),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::{Given, Input, migrate};

    /// A PSP that allows all but what is changed.
    fn psp(name: &str, change: &Value) -> Value {
        let mut psp = json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy",
            "metadata": {"name": name, "annotations": {"seccomp.security.alpha.kubernetes.io/allowedProfileNames": "*"}},
            "spec": {"privileged": true, "volumes": ["*"], "allowedCapabilities": ["*"],
            "runAsUser": {"rule": "RunAsAny"}, "seLinux": {"rule": "RunAsAny"},
            "fsGroup": {"rule": "RunAsAny"}, "supplementalGroups": {"rule": "RunAsAny"}}});
        for (key, value) in change.as_object().into_iter().flatten() {
            psp["spec"][key] = value.clone();
        }
        psp
    }

    /// Lets a subject use PSPs in all namespaces.
    fn binding(psps: &[&str], subject: &Value) -> [Value; 2] {
        let name = psps.join("-");
        [
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
                "rules": [{"apiGroups": ["policy"], "resources": ["podsecuritypolicies"],
                    "resourceNames": psps, "verbs": ["use"]}]}),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": [subject]}),
        ]
    }

    fn migration(psps: &[Value], rbac: &[Value]) -> Migration {
        migrate(&Input {
            psps: psps
                .iter()
                .map(|object| Given {
                    origin: "test".to_owned(),
                    object,
                })
                .collect(),
            rbac: Some(rbac.iter().collect()),
            namespaces: BTreeMap::new(),
            service_accounts: None,
            mode: hardening_api::policy::Mode::Enforce,
        })
    }

    fn pod(change: &Value) -> Value {
        let mut container = json!({"name": "app", "image": "x"});
        container["securityContext"] = change.clone();
        json!({"metadata": {}, "spec": {"containers": [container]}})
    }

    /// By whom a pod is admitted, or by whom it is denied.
    fn check(
        migration: &Migration,
        requester: Option<&str>,
        pod: &Value,
        expected: Result<&str, &[&str]>,
    ) {
        let requester = requester.and_then(Requesters::controller_of);
        let judged = migration.judge("shop", "default", requester.as_ref(), pod);
        let judged = judged.unwrap();
        let found = match &judged {
            Judgement::Admitted { by, .. } => Ok(by.as_str()),
            Judgement::Denied(denied) => Err(denied.keys().map(String::as_str).collect::<Vec<_>>()),
        };
        assert_eq!(found, expected.map_err(<[_]>::to_vec), "{pod}");
    }

    #[test]
    fn the_first_that_changes_nothing_goes_before_the_first_that_fills_in() {
        let psps = [
            psp(
                "a-denies",
                &json!({"privileged": false, "readOnlyRootFilesystem": true}),
            ),
            psp("b-fills-in", &json!({"readOnlyRootFilesystem": true})),
            psp(
                "c-fills-in",
                &json!({"defaultAllowPrivilegeEscalation": true}),
            ),
            psp(
                "d-leaves-alone",
                &json!({"runAsUser": {"rule": "MustRunAs", "ranges": [{"min": 1, "max": 5}]}}),
            ),
        ];
        let names = ["a-denies", "b-fills-in", "c-fills-in", "d-leaves-alone"];
        let everyone = json!({"kind": "Group", "name": "system:authenticated"});
        let all = migration(&psps, &binding(&names, &everyone));
        let privileged = |user: Value| pod(&json!({"privileged": true, "runAsUser": user}));
        check(&all, None, &privileged(json!(3)), Ok("d-leaves-alone"));
        check(&all, None, &privileged(json!(9)), Ok("b-fills-in"));
        let read_only = pod(&json!({"readOnlyRootFilesystem": true, "runAsUser": 9}));
        check(&all, None, &read_only, Ok("a-denies"));
        let some = migration(&psps, &binding(&names[..1], &everyone));
        check(&some, None, &privileged(json!(3)), Err(&["a-denies"]));
    }

    #[test]
    fn a_psp_is_usable_by_the_account_or_by_who_creates_the_pod() {
        let psps = [psp("one", &json!({}))];
        let check = |subject: &Value, expected: [Result<&str, &[&str]>; 4]| {
            let migration = migration(&psps, &binding(&["one"], subject));
            let requesters = [None, Some("Deployment"), Some("DaemonSet"), Some("Node")];
            for (requester, expected) in requesters.into_iter().zip(expected) {
                check(&migration, requester, &pod(&json!({})), expected);
            }
        };
        let none: Result<&str, &[&str]> = Err(&[]);
        let account = |name| json!({"kind": "ServiceAccount", "name": name, "namespace": "shop"});
        check(&account("default"), [Ok("one"); 4]);
        check(&account("other"), [none; 4]);
        let group = |name| json!({"kind": "Group", "name": name});
        check(&group("system:serviceaccounts:shop"), [Ok("one"); 4]);
        check(
            &group("system:serviceaccounts:kube-system"),
            [none, Ok("one"), Ok("one"), none],
        );
        check(
            &json!({"kind": "ServiceAccount", "name": "replicaset-controller", "namespace": "kube-system"}),
            [none, Ok("one"), none, none],
        );
        check(
            &json!({"kind": "User", "name": "system:kube-controller-manager"}),
            [none, Ok("one"), Ok("one"), none],
        );
        check(&group("system:nodes"), [none, none, none, Ok("one")]);
        check(&group("developers"), [none; 4]);
    }

    #[test]
    fn pods_differ_by_what_their_fields_mean() {
        let check = |stored: &Value, hardened: &Value, expected: &[&str]| {
            let found = differences(stored, hardened).unwrap();
            let fields: Vec<&str> = found.iter().map(|one| one.field.as_str()).collect();
            assert_eq!(fields, expected, "{stored} {hardened}");
        };
        let capabilities = |names: Value| pod(&json!({"capabilities": {"drop": names, "add": []}}));
        check(
            &capabilities(json!(["A", "B"])),
            &capabilities(json!(["B", "A", "A"])),
            &[],
        );
        let drop = "spec.containers[app].securityContext.capabilities.drop";
        check(&capabilities(json!(["A"])), &pod(&json!({})), &[drop]);
        let mut annotated = pod(&Value::Null);
        annotated["metadata"]["annotations"] =
            json!({"seccomp.security.alpha.kubernetes.io/pod": "runtime/default"});
        let mut with_field = pod(&json!({}));
        with_field["spec"]["securityContext"] =
            json!({"seccompProfile": {"type": "RuntimeDefault"}, "supplementalGroups": []});
        check(&annotated, &with_field, &[]);
        with_field["spec"]["runtimeClassName"] = "gvisor".into();
        check(&annotated, &with_field, &["spec.runtimeClassName"]);
    }
}
