//! The guards that only a kubelet and a runtime decide: with the guard the pod does what it is there for; with
//! the default filled in all the same, by hand, it does not, and they say why. So each is known to be needed.

use hardening_engine::{Guard, WITHHELD};
use serde_json::{Value, json};
use test_control_plane::Image;

use crate::support::bench::{Bench, KEEPS_TOKEN};
use crate::support::case::{
    Case, Outcome, case, merge, pod, reporter, reporting, running, sees, stops, with, with_app,
};

/// A pod that works, a policy's default, and what would come of filling it in.
struct Guarded {
    name: &'static str,
    guard: Guard,
    policy: Value,
    pod: Value,
    /// What comes of it with the guard.
    works: Outcome,
    /// The pod with the default filled in by hand, and what comes of that.
    naive: Value,
    breaks: Outcome,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_guard_is_needed_and_enough() {
    let Some(bench) = Bench::open("guards").await else {
        return;
    };
    let host = bench.cluster.node.directory().join("settings");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("port"), "8080").unwrap();
    let mounts = mounts(host.to_str().unwrap());
    let all: Vec<Guarded> = users()
        .into_iter()
        .chain(capabilities_and_the_token())
        .chain(mounts)
        .collect();
    let mut cases: Vec<Case> = all.iter().flat_map(Guarded::cases).collect();
    cases.extend(the_token_taken_out());
    let created = bench.run(&cases).await;
    for (guarded, pods) in all.iter().zip(created.chunks(2)) {
        let withheld = pods[0]["metadata"]["annotations"][WITHHELD].as_str();
        assert!(
            withheld.is_some_and(|withheld| withheld.contains(guarded.guard.name())),
            "{}: withheld {withheld:?}",
            guarded.name
        );
    }
    let guards: std::collections::BTreeSet<Guard> = all.iter().map(|case| case.guard).collect();
    bench
        .close(&format!(
            "{} cases of {} guards, each with it and without",
            cases.len(),
            guards.len()
        ))
        .await;
}

impl Guarded {
    /// With the guard, and without.
    fn cases(&self) -> [Case; 2] {
        let Self {
            name,
            guard: _,
            policy,
            pod,
            works,
            naive,
            breaks,
        } = self;
        // What is held back stands on a pod only where something is filled in.
        let something = json!({"containers": {"securityContext": {"procMount": "Default"}}});
        let policy = with(policy.clone(), something);
        [
            case(name, policy, pod.clone(), works.clone()),
            Case {
                name: format!("{name}-naive"),
                policy: None,
                pod: naive.clone(),
                outcome: breaks.clone(),
            },
        ]
    }
}

const BREAKS_NON_ROOT: &str = "container's runAsUser breaks non-root policy";
const GROUP_ALONE: &str = "user group \"3000\" is specified without user";

/// The token is not guarded but taken out, as the field alone comes too late: when webhooks are asked, the API
/// server has mounted the token already. So: a pod as the API server hands it on, with the field filled in by
/// hand, and by a policy.
fn the_token_taken_out() -> [Case; 2] {
    let volume = json!({"name": "kube-api-access-x7x7x", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}});
    let mount = json!({
        "name": "kube-api-access-x7x7x", "readOnly": true,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    });
    let mounted = with_app(reporting(Image::ROOT), json!({"volumeMounts": [mount]}));
    let mounted = with(mounted, json!({"volumes": [volume]}));
    let field = json!({"automountServiceAccountToken": false});
    [
        Case {
            policy: None,
            ..case(
                "the-field-alone",
                json!({}),
                with(mounted.clone(), field.clone()),
                sees(&[("token", "yes")]),
            )
        },
        case(
            "the-token-taken-out",
            json!({"pod": field}),
            mounted,
            sees(&[("token", "no")]),
        ),
    ]
}

/// The guards of users and groups.
fn users() -> Vec<Guarded> {
    let root = || reporting(Image::ROOT);
    let as_user = |user: u32| json!({"securityContext": {"runAsUser": user}});
    let non_root = json!({"securityContext": {"runAsNonRoot": true}});
    let group = json!({"securityContext": {"runAsGroup": 3000}});
    let two = |first: Value, second: Value| {
        let mut containers = json!([reporter("app", Image::ROOT), reporter("other", Image::ROOT)]);
        merge(&mut containers[0], first);
        merge(&mut containers[1], second);
        pod(containers)
    };
    let both = |app: &'static str, other: &'static str, name: &str| {
        let pair = |value: &str| vec![(name.to_owned(), value.to_owned())];
        Outcome::Reports(vec![("app", pair(app)), ("other", pair(other))])
    };
    vec![
        Guarded {
            name: "a-container-is-root",
            guard: Guard::RunsAsRoot,
            policy: json!({"pod": non_root}),
            pod: with_app(root(), as_user(0)),
            works: sees(&[("uid", "0")]),
            naive: with(with_app(root(), as_user(0)), non_root.clone()),
            breaks: stops("CreateContainerConfigError", BREAKS_NON_ROOT),
        },
        Guarded {
            name: "one-of-two-is-root",
            guard: Guard::RunsAsRoot,
            policy: json!({"pod": non_root}),
            pod: two(as_user(0), as_user(1000)),
            works: both("0", "1000", "uid"),
            naive: with(two(as_user(0), as_user(1000)), non_root.clone()),
            breaks: stops("CreateContainerConfigError", BREAKS_NON_ROOT),
        },
        Guarded {
            name: "the-pod-is-root",
            guard: Guard::RunsAsRoot,
            policy: json!({"pod": non_root}),
            pod: with(two(json!({}), as_user(1000)), as_user(0)),
            works: both("0", "1000", "uid"),
            naive: with(
                two(json!({}), as_user(1000)),
                with(as_user(0), non_root.clone()),
            ),
            breaks: stops("CreateContainerConfigError", BREAKS_NON_ROOT),
        },
        Guarded {
            name: "root-is-excluded",
            guard: Guard::NonRootDemanded,
            policy: json!({"containers": as_user(0)}),
            pod: with_app(reporting(Image::NUMERIC_USER), non_root.clone()),
            works: sees(&[("uid", "1234")]),
            naive: with_app(
                reporting(Image::NUMERIC_USER),
                with(as_user(0), non_root.clone()),
            ),
            breaks: stops("CreateContainerConfigError", BREAKS_NON_ROOT),
        },
        Guarded {
            name: "a-group-without-a-user",
            guard: Guard::GroupWithoutUser,
            policy: json!({"pod": group}),
            pod: root(),
            works: sees(&[("gid", "0")]),
            naive: with(root(), group.clone()),
            breaks: stops("ContainerCreating", GROUP_ALONE),
        },
        // A container's user does not help the sandbox; the group goes to that container.
        Guarded {
            name: "a-group-beside-a-containers-user",
            guard: Guard::GroupWithoutUser,
            policy: json!({"pod": group}),
            pod: two(as_user(1000), json!({})),
            works: both("3000", "0", "gid"),
            naive: with(two(as_user(1000), json!({})), group.clone()),
            breaks: stops("ContainerCreating", GROUP_ALONE),
        },
    ]
}

/// The guards of capabilities and of the token.
fn capabilities_and_the_token() -> Vec<Guarded> {
    let adds = json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}});
    let drops = json!({"securityContext": {"capabilities": {"drop": ["NET_ADMIN"]}}});
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let reads = || {
        pod(json!([running(
            "app",
            Image::ROOT,
            &format!("cat {token}")
        )]))
    };
    let asks = json!({"serviceAccountName": KEEPS_TOKEN});
    let without = json!({"automountServiceAccountToken": false});
    vec![
        Guarded {
            name: "a-capability-that-is-needed",
            guard: Guard::CapabilityAdded,
            policy: json!({"containers": drops}),
            pod: with_app(reporting(Image::ROOT), adds.clone()),
            works: sees(&[("CapEff", "00000000a80435fb")]),
            naive: with_app(reporting(Image::ROOT), with(adds, drops)),
            breaks: sees(&[("CapEff", "00000000a80425fb")]),
        },
        Guarded {
            name: "a-token-that-is-asked-for",
            guard: Guard::ServiceAccount,
            policy: json!({"pod": without}),
            pod: with(reads(), asks.clone()),
            works: Outcome::Ends,
            naive: with(reads(), with(asks, without)),
            breaks: stops(
                "Error",
                format!("can't open '{token}': No such file or directory"),
            ),
        },
    ]
}

/// The guard of writable paths, at and below what the author mounts; `host` is a folder of the node's.
fn mounts(host: &str) -> Vec<Guarded> {
    let writable = |path: &str| {
        json!({"containers": {
            "securityContext": {"readOnlyRootFilesystem": true}, "writablePaths": [{"path": path}],
        }})
    };
    let read_only = |nested: &[&str]| {
        let settings = json!({"name": "settings", "mountPath": "/settings", "readOnly": true});
        let scratch = nested
            .iter()
            .map(|path| json!({"name": "scratch", "mountPath": path}));
        let mounts: Vec<Value> = [settings].into_iter().chain(scratch).collect();
        let reads = running("app", Image::ROOT, "cat /settings/port");
        let volumes = json!([
            {"name": "settings", "hostPath": {"path": host}}, {"name": "scratch", "emptyDir": {}},
        ]);
        let app = with(reads, json!({"volumeMounts": mounts}));
        with(pod(json!([app])), json!({"volumes": volumes}))
    };
    vec![
        Guarded {
            name: "a-path-in-a-read-only-volume",
            guard: Guard::AlreadyMounted,
            policy: writable("/settings/cache"),
            pod: read_only(&[]),
            works: Outcome::Ends,
            naive: read_only(&["/settings/cache"]),
            breaks: stops("StartError", "read-only file system"),
        },
        Guarded {
            name: "a-path-in-a-volume-with-files",
            guard: Guard::AlreadyMounted,
            policy: writable("/shared/made"),
            pod: made_before(&[]),
            works: Outcome::Ends,
            naive: made_before(&["/shared/made"]),
            breaks: stops(
                "Error",
                "can't open '/shared/made/file': No such file or directory",
            ),
        },
    ]
}

/// A pod whose container reads what its init container made, with scratch space of its own at these paths.
fn made_before(scratch: &[&str]) -> Value {
    let shared = json!({"name": "shared", "mountPath": "/shared"});
    let scratch = scratch
        .iter()
        .map(|path| json!({"name": "scratch", "mountPath": path}));
    let mounts: Vec<Value> = [shared.clone()].into_iter().chain(scratch).collect();
    let makes = running(
        "init",
        Image::ROOT,
        "mkdir /shared/made && echo made >/shared/made/file",
    );
    let reads = running("app", Image::ROOT, "cat /shared/made/file");
    let pod = pod(json!([with(reads, json!({"volumeMounts": mounts}))]));
    with(
        pod,
        json!({
            "initContainers": [with(makes, json!({"volumeMounts": [shared]}))],
            "volumes": [{"name": "shared", "emptyDir": {}}, {"name": "scratch", "emptyDir": {}}],
        }),
    )
}
