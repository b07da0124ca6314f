//! Generated clusters, and who could use what in them.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use serde_json::{Value, json};

pub(crate) const NAMESPACES: [&str; 4] = ["kube-system", "shop", "bank", "elsewhere"];
pub(crate) const ACCOUNTS: [&str; 4] = ["default", "till", "robot", "guest"];

/// Who may create a pod.
pub(crate) struct Creator {
    pub(crate) user: &'static str,
    pub(crate) groups: &'static [&'static str],
}

pub(crate) const CREATORS: [Creator; 5] = [
    Creator {
        user: "alice",
        groups: &["people", "system:authenticated"],
    },
    Creator {
        user: "bob",
        groups: &["system:authenticated"],
    },
    Creator {
        user: "system:serviceaccount:kube-system:replicaset-controller",
        groups: &[
            "system:serviceaccounts",
            "system:serviceaccounts:kube-system",
            "system:authenticated",
        ],
    },
    Creator {
        user: "system:serviceaccount:shop:till",
        groups: &[
            "system:serviceaccounts",
            "system:serviceaccounts:shop",
            "system:authenticated",
        ],
    },
    Creator {
        user: "system:serviceaccount:bank:robot",
        groups: &[
            "system:serviceaccounts",
            "system:serviceaccounts:bank",
            "system:authenticated",
        ],
    },
];

/// A cluster's PSPs, and the permissions to use them.
pub(crate) struct Cluster {
    pub(crate) psps: Vec<Value>,
    pub(crate) rbac: Vec<Value>,
    /// PSP, the binding's namespace, subject.
    bindings: Vec<(String, Option<&'static str>, Value)>,
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) service_accounts: Option<BTreeMap<String, BTreeSet<String>>>,
}

fn psp(name: &str, spec: &Value) -> Value {
    let mut object = json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy",
        "metadata": {"name": name, "annotations": {"seccomp.security.alpha.kubernetes.io/allowedProfileNames": "*"}},
        "spec": {"volumes": ["*"], "allowedUnsafeSysctls": ["*"], "runAsUser": {"rule": "RunAsAny"}, "seLinux": {"rule": "RunAsAny"},
        "fsGroup": {"rule": "RunAsAny"}, "supplementalGroups": {"rule": "RunAsAny"}}});
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

/// PSPs with defaults of many kinds, with none, and with the same.
fn some_psps(rng: &mut Rng) -> Vec<Value> {
    let user = |id: i64| json!({"rule": "MustRunAs", "ranges": [{"min": id, "max": 65535}]});
    let mut kinds = vec![
        json!({}),
        json!({"privileged": true, "hostNetwork": true, "hostPID": true, "hostIPC": true,
            "hostPorts": [{"min": 0, "max": 65535}], "allowedCapabilities": ["*"]}),
        json!({"hostNetwork": true, "fsGroup": {"rule": "MayRunAs", "ranges": [{"min": 1, "max": 9}]}}),
        json!({"runAsUser": user(1000)}),
        json!({"runAsUser": user(1000), "hostPID": true}),
        json!({"runAsUser": user(2000), "readOnlyRootFilesystem": true}),
        json!({"requiredDropCapabilities": ["ALL"], "supplementalGroups": user(7), "volumes": ["configMap", "secret"]}),
        json!({"allowPrivilegeEscalation": false, "runAsUser": {"rule": "MustRunAsNonRoot"}}),
    ];
    rng.shuffle(&mut kinds);
    kinds.truncate(rng.usize(1..=4));
    let names = ["a", "b.c", "d", "z"];
    names
        .iter()
        .zip(&kinds)
        .map(|(name, spec)| psp(name, spec))
        .collect()
}

fn a_subject(rng: &mut Rng) -> Value {
    let account = |rng: &mut Rng| {
        let namespace = NAMESPACES[rng.usize(0..3)];
        (namespace, ACCOUNTS[rng.usize(0..3)])
    };
    match rng.u8(0..9) {
        0..3 => {
            let (namespace, name) = account(rng);
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
        3 => {
            let (namespace, name) = account(rng);
            json!({"kind": "User", "name": format!("system:serviceaccount:{namespace}:{name}")})
        }
        4 => json!({"kind": "User", "name": CREATORS[rng.usize(0..3)].user}),
        5 => json!({"kind": "Group", "name": "people"}),
        6 => json!({"kind": "Group", "name": "system:serviceaccounts:kube-system"}),
        7 => {
            let namespace = NAMESPACES[rng.usize(0..3)];
            json!({"kind": "Group", "name": format!("system:serviceaccounts:{namespace}")})
        }
        _ => {
            let name = ["system:serviceaccounts", "system:authenticated"][rng.usize(0..2)];
            json!({"kind": "Group", "name": name})
        }
    }
}

/// A pod that sets some of what the PSPs fill in, and little that they deny.
pub(crate) fn pod(seed: u64) -> Value {
    let mut rng = Rng::with_seed(seed);
    let mut context = json!({});
    for (field, values) in [
        ("runAsUser", vec![json!(1000), json!(2500)]),
        ("runAsNonRoot", vec![json!(true)]),
        ("readOnlyRootFilesystem", vec![json!(true), json!(false)]),
        ("allowPrivilegeEscalation", vec![json!(false)]),
        ("capabilities", vec![json!({"drop": ["ALL"]})]),
    ] {
        if rng.bool() {
            context[field] = values[rng.usize(0..values.len())].clone();
        }
    }
    json!({"metadata": {"name": "p"}, "spec": {"hostNetwork": rng.u8(0..4) == 0,
        "containers": [{"name": "c", "securityContext": context}]}})
}

// === impl Cluster ===

impl Cluster {
    pub(crate) fn generate(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let psps = some_psps(rng);
        let mut rbac = Vec::new();
        let mut bindings = Vec::new();
        for index in 0..rng.usize(0..12) {
            let psp = psps[rng.usize(0..psps.len())]["metadata"]["name"]
                .as_str()
                .unwrap();
            let role = format!("use-{index}");
            let bound = rng.bool().then(|| NAMESPACES[rng.usize(0..3)]);
            let subject = a_subject(rng);
            rbac.push(
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": role}, "rules": [{"apiGroups": ["policy"],
                "resources": ["podsecuritypolicies"], "resourceNames": [psp], "verbs": ["use"]}]}),
            );
            let kind = bound.map_or("ClusterRoleBinding", |_| "RoleBinding");
            rbac.push(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
                "metadata": {"name": role, "namespace": bound}, "subjects": [subject],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}}));
            bindings.push((psp.to_owned(), bound, subject));
        }
        rng.shuffle(&mut rbac);
        let given = NAMESPACES.iter().take(rng.usize(0..4));
        let namespaces: BTreeMap<_, _> = given
            .map(|name| ((*name).to_owned(), BTreeMap::new()))
            .collect();
        let accounts = || {
            ACCOUNTS
                .iter()
                .take(3)
                .map(|name| (*name).to_owned())
                .collect()
        };
        let of_namespaces = NAMESPACES
            .iter()
            .map(|name| ((*name).to_owned(), accounts()));
        Self {
            psps,
            rbac,
            bindings,
            namespaces,
            service_accounts: rng.bool().then(|| of_namespaces.collect()),
        }
    }

    /// The PSPs that this user could use in a namespace, by RBAC's rules.
    pub(crate) fn may_use(&self, namespace: &str, user: &str, groups: &[&str]) -> BTreeSet<&str> {
        let is_subject = |subject: &Value, bound: Option<&str>| {
            let name = subject["name"].as_str().unwrap();
            match subject["kind"].as_str().unwrap() {
                "User" => name == user,
                "Group" => groups.contains(&name),
                _ => {
                    let own = subject["namespace"].as_str().or(bound).unwrap();
                    format!("system:serviceaccount:{own}:{name}") == user
                }
            }
        };
        let bindings = self.bindings.iter();
        bindings
            .filter(|(_, bound, subject)| {
                bound.is_none_or(|bound| bound == namespace) && is_subject(subject, *bound)
            })
            .map(|(psp, ..)| psp.as_str())
            .collect()
    }

    /// The PSPs that a pod's service account could use.
    pub(crate) fn of_account(&self, namespace: &str, name: &str) -> BTreeSet<&str> {
        let own = format!("system:serviceaccounts:{namespace}");
        let groups = ["system:serviceaccounts", &own, "system:authenticated"];
        let user = format!("system:serviceaccount:{namespace}:{name}");
        self.may_use(namespace, &user, &groups)
    }
}
