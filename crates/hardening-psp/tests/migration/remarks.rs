//! What is said of a conversion, and of which pods.

use std::collections::BTreeMap;

use hardening_api::policy::Mode;
use hardening_psp::migrate::Given;
use hardening_psp::{Input, Migration, migrate};
use serde_json::{Value, json};

/// As strict as Pod Security's baseline.
fn psp(name: &str, user: &Value) -> Value {
    json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy",
        "metadata": {"name": name, "annotations": {
            "apparmor.security.beta.kubernetes.io/allowedProfileNames": "runtime/default"}},
        "spec": {"volumes": ["secret"], "runAsUser": user, "fsGroup": {"rule": "RunAsAny"},
            "seLinux": {"rule": "MustRunAs", "seLinuxOptions": {"level": "s0"}},
            "supplementalGroups": {"rule": "RunAsAny"}}})
}

/// A PSP, `*` for all; the namespace of a binding; its subject.
type Granted = (&'static str, Option<&'static str>, Value);

/// A role and a binding that let a subject use a PSP, of the name `*` for all.
fn grant(psp: &str, namespace: Option<&str>, subject: &Value) -> [Value; 2] {
    let names = if psp == "*" { json!([]) } else { json!([psp]) };
    let kind = namespace.map_or("ClusterRoleBinding", |_| "RoleBinding");
    let name = format!("{psp}-{namespace:?}-{subject}");
    [
        json!({"kind": "ClusterRole", "metadata": {"name": name}, "rules": [{"apiGroups": ["policy"],
            "resources": ["podsecuritypolicies"], "resourceNames": names, "verbs": ["use"]}]}),
        json!({"kind": kind, "metadata": {"name": "b", "namespace": namespace}, "subjects": [subject],
            "roleRef": {"kind": "ClusterRole", "name": name}}),
    ]
}

/// PSPs `a` and `b`, with different users.
fn psps() -> [Value; 2] {
    [("a", 1), ("b", 2)].map(|(name, id)| {
        psp(
            name,
            &json!({"rule": "MustRunAs", "ranges": [{"min": id, "max": 9}]}),
        )
    })
}

fn converted(psps: &[Value], grants: &[Granted], labels: &[(&str, &str)], mode: Mode) -> Migration {
    let rbac: Vec<Value> = grants
        .iter()
        .flat_map(|(psp, namespace, subject)| grant(psp, *namespace, subject))
        .collect();
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    migrate(&Input {
        psps: psps
            .iter()
            .map(|object| Given {
                origin: "psps.yaml".to_owned(),
                object,
            })
            .collect(),
        rbac: Some(rbac.iter().collect()),
        namespaces: BTreeMap::from([("shop".to_owned(), labels.collect())]),
        service_accounts: None,
        mode,
    })
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "name": name})
}

#[test]
fn a_remark_names_the_pods_that_it_is_about_and_why() {
    let everyone = || group("system:serviceaccounts");
    let till = json!({"kind": "ServiceAccount", "name": "till", "namespace": "shop"});
    let cases: &[(&[Granted], &[&str])] = &[
        (
            &[("a", None, everyone())],
            &[
                "PodSecurityPolicy b: metadata.name: by the roles and bindings that are given, nobody could use it",
            ],
        ),
        (
            &[("*", Some("shop"), everyone())],
            &[
                "PodSecurityPolicy a: pods in namespace shop: spec: each of a, b was usable: ",
                "pods in every namespace but shop: spec: no PSP was usable there",
                "pods in namespace shop: spec: every PSP that was usable there is at least as strict as Pod Security's baseline",
            ],
        ),
        (
            &[("a", None, everyone()), ("b", None, group("people"))],
            &[
                "PodSecurityPolicy b: pods in every namespace: spec: it was usable there for the pods that group people created: the",
            ],
        ),
        (
            &[("b", None, group("system:serviceaccounts:kube-system"))],
            &[
                "PodSecurityPolicy b: pods in every namespace but kube-system: spec: it was usable there for the pods that group system:serviceaccounts:kube-system created, controllers among them",
            ],
        ),
        (
            &[
                ("a", None, everyone()),
                ("*", None, group("system:masters")),
            ],
            &["spec: system:masters could use every PSP for the pods that it creates itself"],
        ),
        (
            &[("a", None, everyone()), ("b", Some("shop"), till)],
            &[
                "PodSecurityPolicy a: pods of service account till in namespace shop: spec: each of a, b was usable: ",
                "PodSecurityPolicy b: pods of every service account but till in namespace shop: spec: it was usable there for the pods that the namespace's service account till created: the",
            ],
        ),
    ];
    for (grants, expected) in cases {
        let migration = converted(&psps(), grants, &[], Mode::Enforce);
        let found: Vec<String> = migration.remarks.iter().map(ToString::to_string).collect();
        for start in *expected {
            let is_there = found.iter().any(|remark| remark.starts_with(start));
            assert!(is_there, "{start}\n{found:#?}");
        }
    }
}

#[test]
fn a_namespace_gets_the_level_of_its_laxest_psp_and_a_persons_label_is_not_passed_over() {
    let everyone = [("a", None, group("system:serviceaccounts"))];
    let key = "pod-security.kubernetes.io/enforce";
    for (labels, mode, enforced, disagrees) in [
        (&[][..], Mode::Enforce, json!("baseline"), false),
        (
            &[(key, "baseline")],
            Mode::Enforce,
            json!("baseline"),
            false,
        ),
        (
            &[(key, "restricted")],
            Mode::Enforce,
            json!("baseline"),
            true,
        ),
        (&[], Mode::Audit, Value::Null, false),
    ] {
        let migration = converted(&psps(), &everyone, labels, mode);
        let [namespace] = migration.namespaces.as_slice() else {
            panic!("{:?}", migration.namespaces)
        };
        let given = &namespace["metadata"]["labels"];
        assert_eq!(given[key], enforced, "{labels:?} {mode:?}");
        assert_eq!(given["pod-security.kubernetes.io/warn"], "baseline");
        let mut remarks = migration.remarks.iter();
        let found = remarks.any(|remark| remark.note.why.contains("enforces restricted already"));
        assert_eq!(found, disagrees, "{labels:?} {mode:?}");
    }
    let [strict, mut lax] = psps();
    lax["spec"]["hostNetwork"] = true.into();
    let people = ("b", None, group("people"));
    let both = [everyone[0].clone(), people];
    let migration = converted(&[strict, lax], &both, &[], Mode::Enforce);
    assert_eq!(migration.namespaces, [json!(null); 0]);
}
