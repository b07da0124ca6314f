//! Several PSPs for the same pods, of which any one admits; for whom they are; and pods of every size.

use std::collections::BTreeSet;

use hardening_psp::generate::{Pair, pair};
use hardening_psp::{Action, Candidate, Names, Policy, Requesters};
use serde_json::{Value, json};

use super::rules::psp;
use super::{CONTROL, InForce, all_heeded, create, for_all, plain, sendable, settled};
use crate::psp::levels::Converted;
use crate::support::api::{Api, bare_namespace};
use crate::support::generate::{base_seed, cases};
use crate::support::tell::tell;

const ALICE: &str = "psp-alice";
/// Groups of PSPs, and pods for each.
const GROUPS: usize = 10;
const PODS: usize = 30;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Of three PSPs, one is for all, one for a user and one for a group in which nobody is.
fn candidates(policies: &[Policy]) -> Vec<Candidate<'_>> {
    let requesters = [
        None,
        Some(Requesters {
            users: names(&[ALICE]),
            ..Requesters::default()
        }),
        Some(Requesters {
            groups: names(&["psp-nobody"]),
            ..Requesters::default()
        }),
    ];
    policies
        .iter()
        .zip(requesters)
        .map(|(policy, requesters)| Candidate { policy, requesters })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_admitted_where_any_psp_that_was_usable_admits_it() {
    let admin = Api::admin().await;
    let alice = Api::administrator(ALICE).await;
    super::runtime_classes(&admin).await;
    bare_namespace(&admin, CONTROL, &json!({})).await;
    let first = base_seed() + 500_000;
    let mut seeds = first..;
    let (mut admitted, mut denied, mut thanks_to_alice) = (0, 0, 0);
    let mut groups = Vec::new();
    for index in 0..GROUPS {
        let policies: Vec<Policy> = seeds
            .by_ref()
            .filter_map(|seed| Some(Converted::of(&pair(seed).psp)?.policy))
            .take(3)
            .collect();
        let name = format!("psp-group-{index}");
        let in_force = InForce::put(&admin, &name, &candidates(&policies)).await;
        groups.push((policies, in_force));
    }
    all_heeded(&admin, "psp-groups").await;
    for (index, (policies, in_force)) in groups.iter().enumerate() {
        assert_eq!(in_force.warnings(&admin).await, Value::Null);
        for number in 0..cases(PODS) as u64 {
            let Pair { pod, .. } = pair(first + 1_000_000 * (index as u64 + 1) + number);
            let Ok(arrived) = create(&admin, CONTROL, &settled(&pod)).await else {
                continue;
            };
            let arrived = sendable(&arrived);
            let admits = |policy: &Policy| policy.denials_today(&arrived).unwrap().is_empty();
            for (api, usable) in [(&admin, &policies[..1]), (&alice, &policies[..2])] {
                let verdict = in_force.verdict(api, &arrived).await.unwrap();
                let expected = usable.iter().any(admits);
                assert_eq!(verdict.is_none(), expected, "{verdict:?}\n{arrived}");
                match expected {
                    true => admitted += 1,
                    false => denied += 1,
                }
                thanks_to_alice +=
                    usize::from(usable.len() == 2 && expected && !admits(&usable[0]));
            }
        }
    }
    for (_, in_force) in groups {
        in_force.end(&admin).await;
    }
    tell(&format!(
        "PSPs' denials: of groups of 3 PSPs, {admitted} pods admitted and {denied} denied"
    ));
    assert!(admitted > 0 && denied > 0 && thanks_to_alice > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_of_the_pods_own_namespace_counts_there_and_nowhere_else() {
    let admin = Api::admin().await;
    let maker = Api::administrator("system:serviceaccount:psp-own-a:maker").await;
    let policy = psp(&json!({}));
    let candidates = [Candidate {
        policy: &policy,
        requesters: Some(Requesters {
            own_accounts: names(&["maker"]),
            ..Requesters::default()
        }),
    }];
    let own = InForce::put(&admin, "psp-own-a", &candidates).await;
    let other = InForce::put(&admin, "psp-own-b", &candidates).await;
    all_heeded(&admin, "psp-owns").await;
    for (in_force, api, admits) in [
        (&own, &maker, true),
        (&own, &admin, false),
        (&other, &maker, false),
    ] {
        let verdict = in_force.verdict(api, &plain()).await.unwrap();
        assert_eq!(verdict.is_none(), admits, "{verdict:?}");
        assert_eq!(in_force.warnings(&admin).await, Value::Null);
    }
    own.end(&admin).await;
    other.end(&admin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pods_in_scope_are_judged_and_a_trial_only_warns() {
    let api = Api::admin().await;
    let strict = psp(&json!({"spec": {"readOnlyRootFilesystem": true}}));
    let strict = [for_all(&strict)];
    let accounts = |accounts: &[&str]| names(accounts);
    let put = async |name: &'static str, scope, action| {
        InForce::put_for(&api, name, &strict, scope, action).await
    };
    let deny = Action::Deny;
    let in_force = [
        put("psp-scope-only", Names::Only(accounts(&["builder"])), deny).await,
        put("psp-scope-but", Names::AllBut(accounts(&["builder"])), deny).await,
        put("psp-trial", Names::All, Action::WarnAndAudit).await,
    ];
    all_heeded(&api, "psp-scopes").await;
    for (in_force, account, is_denied) in [
        (&in_force[0], "default", false),
        (&in_force[0], "builder", true),
        (&in_force[1], "default", true),
        (&in_force[1], "builder", false),
        (&in_force[2], "default", false),
    ] {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts", in_force.name);
        let object =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}});
        api.ensure(&path, &object).await;
        let mut pod = plain();
        pod["spec"]["serviceAccountName"] = account.into();
        let verdict = in_force.verdict(&api, &pod).await.unwrap();
        assert_eq!(verdict.is_some(), is_denied, "{} {account}", in_force.name);
    }
    let path = "/api/v1/namespaces/psp-trial/pods?dryRun=All";
    let answer = api.send("POST", path, Some(&plain())).await;
    let warned = answer.warnings.iter().any(|warning| {
        warning.contains(
            "spec.containers[app].securityContext.readOnlyRootFilesystem: not set: must be true",
        )
    });
    assert!(warned, "{answer:?}");
    for in_force in in_force {
        in_force.end(&api).await;
    }
}

/// A PSP with every rule, and long lists in each.
fn elaborate() -> Policy {
    let ranges: Vec<Value> = (1..=50)
        .map(|n| json!({"min": n * 1000, "max": n * 1000 + 9}))
        .collect();
    let many = |prefix: &str| -> Vec<String> { (0..50).map(|n| format!("{prefix}{n}")).collect() };
    let ids = |rule: &str| json!({"rule": rule, "ranges": ranges});
    let paths: Vec<Value> = many("/path/")
        .iter()
        .map(|path| json!({"pathPrefix": path, "readOnly": true}))
        .collect();
    psp(&json!({
        "metadata": {"annotations": {
            "seccomp.security.alpha.kubernetes.io/allowedProfileNames": many("localhost/").join(","),
            "apparmor.security.beta.kubernetes.io/allowedProfileNames": many("localhost/").join(","),
        }},
        "spec": {
            "privileged": false, "hostPID": false, "hostIPC": false, "hostNetwork": false,
            "volumes": ["hostPath", "secret", "configMap"], "allowedHostPaths": paths, "hostPorts": ranges,
            "allowedCapabilities": many("CAP"), "requiredDropCapabilities": many("DROP"),
            "allowedUnsafeSysctls": many("kernel."), "forbiddenSysctls": many("net."),
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "runAsUser": ids("MustRunAs"), "runAsGroup": ids("MustRunAs"), "fsGroup": ids("MustRunAs"),
            "supplementalGroups": ids("MustRunAs"), "runtimeClass": {"allowedRuntimeClassNames": many("class")},
            "seLinux": {"rule": "MustRunAs", "seLinuxOptions": {"level": "s0:c1,c2,c3,c4,c5", "user": "u", "role": "r", "type": "t"}},
        },
    }))
}

/// Fifty containers and fifty volumes that each container mounts, all well but for the last container's user.
fn large(last_user: i64) -> Value {
    let labels = json!({"level": "s0:c5,c4,c3,c2,c1", "user": "u", "role": "r", "type": "t"});
    let profile = json!({"type": "Localhost", "localhostProfile": "49"});
    let drop: Vec<String> = (0..50).map(|n| format!("DROP{n}")).collect();
    let mounts: Vec<Value> = (0..50)
        .map(|n| json!({"name": format!("v{n}"), "mountPath": format!("/m/{n}"), "readOnly": true}))
        .collect();
    let volumes: Vec<Value> = (0..50)
        .map(|n| json!({"name": format!("v{n}"), "hostPath": {"path": format!("/path/{n}/below")}}))
        .collect();
    let containers: Vec<Value> = (0..50)
        .map(|n| {
            json!({
                "name": format!("c{n}"), "image": "registry.example/app", "volumeMounts": mounts,
                "securityContext": {
                    "runAsUser": if n == 49 { last_user } else { 50_000 }, "runAsGroup": 50_000, "seLinuxOptions": labels,
                    "seccompProfile": profile, "appArmorProfile": profile, "readOnlyRootFilesystem": true,
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": drop, "add": ["CAP49"]},
                },
            })
        })
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "large"},
        "spec": {
            "containers": containers, "volumes": volumes,
            "securityContext": {"fsGroup": 50_000, "supplementalGroups": [50_000], "seLinuxOptions": labels,
                "seccompProfile": profile, "sysctls": [{"name": "kernel.49", "value": "1"}]},
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_pod_under_an_elaborate_psp_costs_no_more_than_the_api_server_allows() {
    let api = Api::admin().await;
    let policy = elaborate();
    let candidates = [for_all(&policy), for_all(&policy), for_all(&policy)];
    let in_force = InForce::put(&api, "psp-large", &candidates).await;
    all_heeded(&api, "psp-last-large").await;
    assert_eq!(in_force.warnings(&api).await, Value::Null);
    let verdict = in_force.verdict(&api, &large(50_000)).await.unwrap();
    assert_eq!(verdict, None);
    let verdict = in_force.verdict(&api, &large(1)).await.unwrap().unwrap();
    assert!(
        verdict
            .contains("spec.containers[c49].securityContext.runAsUser: 1: must be in 1000-1009, "),
        "{verdict}"
    );
    in_force.end(&api).await;
}
