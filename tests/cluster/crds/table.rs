//! Good policies, and bad ones of which each breaks one rule: the field that is named is the one that a
//! person looks for.

use std::collections::BTreeSet;

use hardening_api::{PolicyKind, crds, violations};
use serde_json::{Value, json};

use super::{CLUSTER, NAMESPACED, policy, post};
use crate::support::api::Api;
use crate::support::crds::install;
use crate::support::tell::tell;

#[tokio::test]
async fn good_policies_are_taken_and_bad_ones_refused_with_the_fields_name() {
    let api = Api::admin().await;
    install(&api).await;
    let good = good();
    for (kind, spec) in &good {
        let policy = policy(*kind, "good", spec);
        assert_eq!(violations(*kind, &policy), [], "{spec}");
        let answer = post(&api, *kind, &policy).await;
        assert_eq!(answer.status, 201, "{spec}: {answer:?}");
        assert_eq!(answer.warnings, [""; 0], "{spec}");
    }
    let bad = bad();
    for Bad {
        kind,
        spec,
        field,
        words,
    } in &bad
    {
        let policy = policy(*kind, "bad", spec);
        let found = violations(*kind, &policy);
        let is_named = found
            .iter()
            .any(|violation| violation.path == *field && violation.message.contains(words));
        assert!(is_named, "{spec}: {field}: {words}: {found:?}");
        let answer = post(&api, *kind, &policy).await;
        let message = answer.body["message"].as_str().unwrap();
        assert_eq!(answer.status, 422, "{spec}: {message}");
        assert!(message.contains(field), "{spec}: {field}: {message}");
        assert!(message.contains(words), "{spec}: {words}: {message}");
    }
    let mut rules = 0;
    for kind in PolicyKind::ALL {
        for (field, message) in rules_of(kind) {
            rules += 1;
            let breaks = |case: &&Bad| {
                case.kind == kind
                    && case.field.replace("[0]", "[]") == field
                    && message.contains(case.words)
            };
            assert!(
                bad.iter().any(|case| breaks(&case)),
                "{}: no case breaks the rule about {field}: {message}",
                kind.name()
            );
        }
    }
    tell(&format!(
        "crds: {} good policies taken, {} bad ones refused, which break each of {rules} rules",
        good.len(),
        bad.len()
    ));
}

/// A policy that breaks one rule.
struct Bad {
    kind: PolicyKind,
    spec: Value,
    field: &'static str,
    words: &'static str,
}

fn good() -> Vec<(PolicyKind, Value)> {
    vec![
        (NAMESPACED, json!({"profile": "Restricted"})),
        (
            NAMESPACED,
            json!({"profile": "Hardened", "mode": "Audit", "priority": -5, "listMerge": "Union"}),
        ),
        (
            NAMESPACED,
            json!({"profile": "Restricted", "podSelector": {}, "serviceAccountNames": []}),
        ),
        (
            NAMESPACED,
            json!({"pod": {"automountServiceAccountToken": true}}),
        ),
        (
            NAMESPACED,
            json!({"pod": {"securityContext": {"runAsGroup": 0}}}),
        ),
        (
            NAMESPACED,
            json!({"pod": {"securityContext": {"runAsNonRoot": true, "runAsUser": 1}}}),
        ),
        // At different levels it is no contradiction.
        (
            CLUSTER,
            json!({
                "allowWeakening": true,
                "pod": {"securityContext": {"runAsNonRoot": true}},
                "containers": {"securityContext": {"runAsUser": 0}},
            }),
        ),
        (
            NAMESPACED,
            json!({"pod": {"securityContext": {"seccompProfile": {
                "type": "Localhost", "localhostProfile": "..profiles/a..b/..c",
            }}}}),
        ),
        (
            NAMESPACED,
            json!({"containers": {"securityContext": {"appArmorProfile": {
                "type": "Localhost", "localhostProfile": "k8s nginx//sub",
            }}}}),
        ),
        (
            NAMESPACED,
            json!({"containers": {"writablePaths": [
                {"path": "/tmp"}, {"path": "/var/...", "sizeLimit": "1.5Gi", "medium": "Memory"},
            ]}}),
        ),
        (
            NAMESPACED,
            json!({"containers": {
                "kinds": ["InitContainer"], "securityContext": {"capabilities": {"drop": ["ALL", "KILL"]}},
            }}),
        ),
        (
            NAMESPACED,
            json!({"profile": "Restricted", "podSelector": {
                "matchLabels": {"app": "web"},
                "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["b"]}, {"key": "a", "operator": "Exists"},
                    {"key": "a", "operator": "NotIn", "values": ["b"]}, {"key": "a", "operator": "DoesNotExist"},
                ],
            }}),
        ),
        (
            CLUSTER,
            json!({"tier": "Admin", "namespaceSelector": {}, "profile": "Hardened"}),
        ),
        (
            CLUSTER,
            json!({"allowWeakening": true, "pod": {"hostUsers": true}}),
        ),
        (
            CLUSTER,
            json!({"allowWeakening": false, "profile": "Restricted"}),
        ),
        largest(),
    ]
}

/// As much as the schema takes of everything that rules go over: their cost must stay within the API
/// server's budget when they run, too.
fn largest() -> (PolicyKind, Value) {
    let expressions: Vec<Value> = (0..256)
        .map(|i| json!({"key": format!("{i}{}", "k".repeat(300)), "operator": "In", "values": vec!["v"; 256]}))
        .collect();
    let names = |prefix: &str, count: usize| -> Vec<String> {
        (0..count).map(|i| format!("{prefix}{i}")).collect()
    };
    let paths: Vec<Value> = (0..64)
        .map(|i| json!({"path": format!("/{i}/{}", "p/".repeat(500) + "p"), "sizeLimit": "1Gi"}))
        .collect();
    let sysctls: Vec<Value> = (0..64)
        .map(|i| json!({"name": format!("net.ipv4.s{i}"), "value": "v".repeat(1024)}))
        .collect();
    let local = json!({"type": "Localhost", "localhostProfile": "a/".repeat(2047) + "a"});
    let spec = json!({
        "allowWeakening": true,
        "podSelector": {"matchExpressions": expressions},
        "namespaceSelector": {"matchExpressions": expressions},
        "serviceAccountNames": names("account-", 256),
        "pod": {"securityContext": {
            "seccompProfile": local, "sysctls": sysctls, "supplementalGroups": (0..64).collect::<Vec<i64>>(),
        }},
        "containers": {
            "securityContext": {
                "capabilities": {"drop": names("DROP_", 64), "add": names("ADD_", 64)},
                "seccompProfile": local,
            },
            "writablePaths": paths,
        },
    });
    (CLUSTER, spec)
}

fn bad() -> Vec<Bad> {
    let mut bad = Vec::new();
    for kind in PolicyKind::ALL {
        let mut refuse = |spec, field, words| {
            bad.push(Bad {
                kind,
                spec,
                field,
                words,
            });
        };
        let nothing = "the policy sets no default";
        for spec in [
            json!({}),
            json!({"mode": "Audit"}),
            json!({"pod": {}}),
            json!({"pod": {"securityContext": {}}, "containers": {"securityContext": {"capabilities": {}}}}),
            json!({"pod": {"securityContext": {"supplementalGroups": [], "sysctls": []}}}),
            json!({"containers": {"kinds": ["Container"], "writablePaths": []}}),
        ] {
            refuse(spec, "spec", nothing);
        }
        contradictions(&mut refuse);
        selectors(kind, &mut refuse);
        weakening(kind, &mut refuse);
    }
    bad
}

type Refuse<'r> = &'r mut dyn FnMut(Value, &'static str, &'static str);

fn contradictions(refuse: Refuse<'_>) {
    let pod = |context: Value| json!({"pod": {"securityContext": context}});
    let container = |context: Value| json!({"containers": {"securityContext": context}});
    // The user is one that no other rule refuses where this one is broken, too.
    let root = json!({"runAsNonRoot": true, "runAsUser": 0});
    let words = "runAsNonRoot: true contradicts runAsUser: 0";
    refuse(pod(root.clone()), "spec.pod.securityContext", words);
    refuse(container(root), "spec.containers.securityContext", words);

    let words = "localhostProfile must be set with type Localhost, and only then";
    for profile in [
        json!({"type": "Localhost"}),
        json!({"type": "RuntimeDefault", "localhostProfile": "a"}),
    ] {
        let seccomp = json!({"seccompProfile": profile});
        let app_armor = json!({"appArmorProfile": profile});
        refuse(
            pod(seccomp.clone()),
            "spec.pod.securityContext.seccompProfile",
            words,
        );
        refuse(
            container(seccomp),
            "spec.containers.securityContext.seccompProfile",
            words,
        );
        refuse(
            pod(app_armor.clone()),
            "spec.pod.securityContext.appArmorProfile",
            words,
        );
        refuse(
            container(app_armor),
            "spec.containers.securityContext.appArmorProfile",
            words,
        );
    }
    let words = "must be a relative path without '..'";
    for path in ["/etc/profile", "..", "../a", "a/../b", "a/.."] {
        let context = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": path}});
        let field = "spec.pod.securityContext.seccompProfile.localhostProfile";
        refuse(pod(context.clone()), field, words);
        let field = "spec.containers.securityContext.seccompProfile.localhostProfile";
        refuse(container(context), field, words);
    }
    let words = "without the CAP_ prefix";
    refuse(
        container(json!({"capabilities": {"drop": ["CAP_KILL"]}})),
        "spec.containers.securityContext.capabilities.drop[0]",
        words,
    );
    refuse(
        container(json!({"capabilities": {"add": ["CAP_KILL"]}})),
        "spec.containers.securityContext.capabilities.add[0]",
        words,
    );
    for path in ["/..", "/.", "/a/../b", "/a/./b", "/a/.."] {
        refuse(
            json!({"containers": {"writablePaths": [{"path": path}]}}),
            "spec.containers.writablePaths[0].path",
            "must not contain '.' or '..' as a path segment",
        );
    }
}

fn selectors(kind: PolicyKind, refuse: Refuse<'_>) {
    let operator = "operator must be one of In, NotIn, Exists, DoesNotExist";
    let values = "values must be given with the operators In and NotIn, and only then";
    for (expression, words) in [
        (json!({"key": "a", "operator": "Is"}), operator),
        (
            json!({"key": "a", "operator": "in", "values": ["b"]}),
            operator,
        ),
        (json!({"key": "a", "operator": "In"}), values),
        (
            json!({"key": "a", "operator": "NotIn", "values": []}),
            values,
        ),
        (
            json!({"key": "a", "operator": "Exists", "values": ["b"]}),
            values,
        ),
        (
            json!({"key": "a", "operator": "DoesNotExist", "values": ["b"]}),
            values,
        ),
    ] {
        let selector = json!({"matchExpressions": [expression]});
        refuse(
            json!({"profile": "Restricted", "podSelector": selector}),
            "spec.podSelector.matchExpressions[0]",
            words,
        );
        if kind == CLUSTER {
            refuse(
                json!({"profile": "Restricted", "namespaceSelector": selector}),
                "spec.namespaceSelector.matchExpressions[0]",
                words,
            );
        }
    }
}

/// Refused in the namespaced kind whatever it says, and in the cluster kind unless it says
/// `allowWeakening: true`.
fn weakening(kind: PolicyKind, refuse: Refuse<'_>) {
    let unconfined = json!({"type": "Unconfined"});
    let pod = |context: Value| json!({"pod": {"securityContext": context}});
    let container = |context: Value| json!({"containers": {"securityContext": context}});
    let words = |what: [&'static str; 2]| what[usize::from(kind == CLUSTER)];
    let is_true = words([
        "true weakens pods: a namespace's policy can only harden",
        "true weakens pods: it needs spec.allowWeakening: true",
    ]);
    let is_false = words([
        "false weakens pods: a namespace's",
        "false weakens pods: it needs",
    ]);
    let is_root = words(["0 weakens pods: a namespace's", "0 weakens pods: it needs"]);
    let is_open = words([
        "Unconfined weakens pods: a namespace's",
        "Unconfined weakens pods: it needs",
    ]);
    let unmasked = words([
        "Unmasked weakens pods: a namespace's",
        "Unmasked weakens pods: it needs",
    ]);
    let added = words([
        "an added capability weakens pods: a namespace's",
        "an added capability weakens pods: it needs",
    ]);
    for (spec, field, words) in [
        (
            json!({"pod": {"hostUsers": true}}),
            "spec.pod.hostUsers",
            is_true,
        ),
        (
            pod(json!({"runAsUser": 0})),
            "spec.pod.securityContext.runAsUser",
            is_root,
        ),
        (
            pod(json!({"runAsNonRoot": false})),
            "spec.pod.securityContext.runAsNonRoot",
            is_false,
        ),
        (
            pod(json!({"seccompProfile": unconfined})),
            "spec.pod.securityContext.seccompProfile.type",
            is_open,
        ),
        (
            pod(json!({"appArmorProfile": unconfined})),
            "spec.pod.securityContext.appArmorProfile.type",
            is_open,
        ),
        (
            container(json!({"allowPrivilegeEscalation": true})),
            "spec.containers.securityContext.allowPrivilegeEscalation",
            is_true,
        ),
        (
            container(json!({"procMount": "Unmasked"})),
            "spec.containers.securityContext.procMount",
            unmasked,
        ),
        (
            container(json!({"capabilities": {"add": ["KILL"]}})),
            "spec.containers.securityContext.capabilities.add",
            added,
        ),
        (
            container(json!({"runAsUser": 0})),
            "spec.containers.securityContext.runAsUser",
            is_root,
        ),
        (
            container(json!({"runAsNonRoot": false})),
            "spec.containers.securityContext.runAsNonRoot",
            is_false,
        ),
        (
            container(json!({"seccompProfile": unconfined})),
            "spec.containers.securityContext.seccompProfile.type",
            is_open,
        ),
        (
            container(json!({"appArmorProfile": unconfined})),
            "spec.containers.securityContext.appArmorProfile.type",
            is_open,
        ),
    ] {
        if kind == CLUSTER {
            let mut refused = spec.clone();
            refused["allowWeakening"] = false.into();
            refuse(refused, field, words);
        }
        refuse(spec, field, words);
    }
}

/// The fields that a kind's rules are about, `[]` for any item, and their messages.
fn rules_of(kind: PolicyKind) -> BTreeSet<(String, String)> {
    let [namespaced, cluster] = crds();
    let crd = match kind {
        PolicyKind::Namespaced => namespaced,
        PolicyKind::Cluster => cluster,
    };
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut rules = BTreeSet::new();
    collect_rules(&schema["properties"]["spec"], "spec", &mut rules);
    assert!(rules.len() > 20, "{rules:?}");
    rules
}

fn collect_rules(schema: &Value, path: &str, rules: &mut BTreeSet<(String, String)>) {
    let own = schema["x-kubernetes-validations"].as_array();
    for rule in own.into_iter().flatten() {
        let below = rule["fieldPath"].as_str().unwrap_or_default();
        let message = rule["message"].as_str().unwrap();
        rules.insert((format!("{path}{below}"), message.to_owned()));
    }
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        collect_rules(child, &format!("{path}.{name}"), rules);
    }
    if schema["items"].is_object() {
        collect_rules(&schema["items"], &format!("{path}[]"), rules);
    }
}
