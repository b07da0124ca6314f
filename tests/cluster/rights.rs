//! What `kubectl harden` makes of a cluster that does not tell it everything: the roles that
//! docs/reference/rights.md shows are enough, each right in them is needed by one of the commands that they are
//! for, and whoever lacks one reads which, in one line, and never takes a part for the whole.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use hardening_manifests::{objects, parse};
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions};

use crate::support::api::{Api, bare_namespace, until};
use crate::support::crds::{CLUSTER_POLICIES, install};
use crate::support::program::program;
use crate::support::tell::tell;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/rights.md");
const NAMESPACE: &str = "rights";
const BAD_INPUT: i32 = 1;
/// As kubectl diff has it, where 1 says that there is a difference.
const BAD_INPUT_OF_DIFF: i32 = 2;

/// A command, the roles of the page that are for it, and its exit code where it can show nothing.
type Case = (&'static str, &'static [&'static str], i32);

const PREVIEW: &[&str] = &["kubectl-harden-preview"];
const EXPLAIN: &[&str] = &["kubectl-harden-preview", "kubectl-harden-explain"];
const AUDIT: &[&str] = &["kubectl-harden-audit"];

const CASES: [Case; 16] = [
    ("render -f pod.json -n rights", PREVIEW, BAD_INPUT),
    ("diff -f pod.json -n rights", PREVIEW, BAD_INPUT_OF_DIFF),
    ("explain -f pod.json -n rights -o json", PREVIEW, BAD_INPUT),
    ("explain web -n rights -o json", EXPLAIN, BAD_INPUT),
    ("explain web -n rights", EXPLAIN, BAD_INPUT),
    ("explain deploy/web -n rights -o json", EXPLAIN, BAD_INPUT),
    ("explain rs/web -n rights -o json", EXPLAIN, BAD_INPUT),
    ("explain sts/web -n rights -o json", EXPLAIN, BAD_INPUT),
    ("explain ds/web -n rights -o json", EXPLAIN, BAD_INPUT),
    ("explain cj/web -n rights -o json", EXPLAIN, BAD_INPUT),
    ("explain job/web -n rights -o json", EXPLAIN, BAD_INPUT),
    ("explain rc/web -n rights -o json", EXPLAIN, BAD_INPUT),
    (
        "explain podtemplate/web -n rights -o json",
        EXPLAIN,
        BAD_INPUT,
    ),
    ("audit -A -o json", AUDIT, BAD_INPUT),
    ("audit -n rights -o json", AUDIT, BAD_INPUT),
    ("audit -n rights", AUDIT, BAD_INPUT),
];

/// A verb, an API group and a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: String,
    group: String,
    resource: String,
}

/// What a command printed, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    stdout: String,
    stderr: String,
    code: i32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rights_are_enough_and_a_missing_one_is_named() {
    let control_plane = ControlPlane::start(ControlPlaneOptions {
        controller_manager: false,
        ..ControlPlaneOptions::default()
    });
    let control_plane = control_plane.await.unwrap();
    let api = Api::of(&control_plane);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pod.json"), pod(None).to_string()).unwrap();
    nobody_answers(&control_plane, folder.path());
    no_policies_are_known(&control_plane, folder.path());
    install(&api).await;
    fill(&api).await;

    let mut missing = 0;
    for roles in [PREVIEW, EXPLAIN, AUDIT] {
        let cases: Vec<&Case> = CASES.iter().filter(|(_, of, _)| *of == roles).collect();
        let rights = documented(roles);
        let name = format!("all-of-{}", roles.len());
        let all = user(
            &control_plane,
            &api,
            &format!("{name}-{}", roles[0]),
            &rights,
        )
        .await;
        let whole: Vec<Said> = cases
            .iter()
            .map(|(command, _, _)| run(command, &all, folder.path()))
            .collect();
        for ((command, _, _), said) in cases.iter().zip(&whole) {
            assert_eq!(said.stderr, "", "{command}");
            assert!(
                !said.stdout.is_empty() && !is_part(said),
                "{command}: {said:?}"
            );
        }
        for right in &rights {
            let others: BTreeSet<Right> = rights.iter().filter(|r| r != &right).cloned().collect();
            let name = format!("{}-but-{}-{}", roles.join("-"), right.verb, right.resource);
            let someone = user(&control_plane, &api, &name, &others).await;
            let mut matters = false;
            for ((command, _, failure), whole) in cases.iter().zip(&whole) {
                let said = run(command, &someone, folder.path());
                if said != *whole {
                    matters = true;
                    check(command, *failure, right, &said);
                }
            }
            assert!(
                matters,
                "{roles:?} have a right that makes no difference: {right:?}"
            );
            missing += 1;
        }
    }
    tell(&format!(
        "rights: {} commands with just the documented rights, and without each of {missing}",
        CASES.len()
    ));
}

/// Holds what a command says without a right to what it should: one line names it, and nothing is shown, or
/// it is called a part.
fn check(command: &str, failure: i32, right: &Right, said: &Said) {
    let context = format!("{command} without {right:?}: {said:#?}");
    let lines: Vec<&str> = said.stderr.lines().collect();
    let [line] = lines.as_slice() else {
        panic!("not one line: {context}");
    };
    let words = format!("cannot {} resource \"{}\"", right.verb, right.resource);
    assert!(line.contains(&words), "{words}: {context}");
    if said.stdout.is_empty() {
        assert!(line.starts_with("error: "), "{context}");
        assert_eq!(said.code, failure, "{context}");
    } else {
        assert!(line.starts_with("warning: "), "{context}");
        assert_eq!(said.code, 0, "{context}");
        assert!(is_part(said), "{context}");
    }
}

/// Whether what is shown says of itself that it is not all.
fn is_part(said: &Said) -> bool {
    match serde_json::from_str::<Value>(&said.stdout) {
        Ok(shown) => {
            shown["complete"] == false || shown["pods"][0].get("policies") == Some(&Value::Null)
        }
        Err(_) => ["\nThis is not all:\n", "\nThe policies are not known: "]
            .iter()
            .any(|words| said.stdout.contains(words)),
    }
}

/// Whoever cannot be reached, and whoever does not know the user, says so in one line.
fn nobody_answers(control_plane: &ControlPlane, folder: &Path) {
    let text = control_plane.kubeconfig_for("somebody", None).unwrap();
    let with = |path: &str, value: Value| {
        let kubeconfig = Kubeconfig::from_yaml(&text).unwrap();
        let mut kubeconfig = serde_json::to_value(kubeconfig).unwrap();
        *kubeconfig.pointer_mut(path).unwrap() = value;
        kubeconfig.to_string()
    };
    let nowhere = with("/clusters/0/cluster/server", json!("https://127.0.0.1:1"));
    let stranger = with("/users/0/user", json!({"token": "no-such-token"}));
    for (kubeconfig, why) in [
        (nowhere, "Connection refused"),
        (stranger, "Unauthorized"),
        ("nonsense".to_owned(), "the kubeconfig"),
    ] {
        for (command, _, failure) in CASES {
            let said = run(command, &kubeconfig, folder);
            let context = format!("{command}: {said:#?}");
            assert_eq!(
                (said.stdout.as_str(), said.code),
                ("", failure),
                "{context}"
            );
            assert!(said.stderr.starts_with("error: "), "{context}");
            assert!(said.stderr.contains(why), "{why}: {context}");
            assert_eq!(said.stderr.lines().count(), 1, "{context}");
        }
    }
}

/// In a cluster without our CRDs nothing is known of policies, which is another thing than that there are none.
fn no_policies_are_known(control_plane: &ControlPlane, folder: &Path) {
    let kubeconfig = control_plane
        .kubeconfig_for("first", Some("system:masters"))
        .unwrap();
    let kind = "the custom resource ClusterPodHardeningPolicy is not installed in this cluster";
    for (command, roles, failure) in CASES {
        let said = run(command, &kubeconfig, folder);
        let context = format!("{command}: {said:#?}");
        if roles == AUDIT {
            assert!(said.code == 0 && is_part(&said), "{context}");
            assert!(said.stderr.contains(kind), "{context}");
        } else {
            // Of what is named there is nothing yet.
            let what = if roles == PREVIEW {
                kind
            } else {
                "there is no "
            };
            assert_eq!(
                (said.stdout.as_str(), said.code),
                ("", failure),
                "{context}"
            );
            assert!(said.stderr.contains(what), "{context}");
            assert_eq!(said.stderr.lines().count(), 1, "{context}");
        }
    }
}

/// A policy for which all has to be asked, and one of each kind that has pods.
async fn fill(api: &Api) {
    bare_namespace(api, NAMESPACE, &json!({})).await;
    let policy = json!({
        "apiVersion": hardening_api::API_VERSION, "kind": "ClusterPodHardeningPolicy",
        "metadata": {"name": "asks-for-all"},
        "spec": {"pod": {"automountServiceAccountToken": false, "runtimeClassName": "sandboxed"}},
    });
    api.ensure(CLUSTER_POLICIES, &policy).await;
    let class = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "sandboxed"},
        "handler": "sandbox",
    });
    api.ensure("/apis/node.k8s.io/v1/runtimeclasses", &class)
        .await;
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": pod(None)["spec"]});
    let selected = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template});
    let mut ending = template.clone();
    ending["spec"]["restartPolicy"] = "Never".into();
    let mut set = selected.clone();
    set["serviceName"] = "none".into();
    let counted = json!({"selector": {"app": "web"}, "template": template});
    let scheduled = json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": ending}}});
    for (version, kind, spec) in [
        ("apps/v1", "Deployment", &selected),
        ("apps/v1", "ReplicaSet", &selected),
        ("apps/v1", "StatefulSet", &set),
        ("apps/v1", "DaemonSet", &selected),
        ("batch/v1", "Job", &json!({"template": ending})),
        ("batch/v1", "CronJob", &scheduled),
        ("v1", "ReplicationController", &counted),
    ] {
        let object = json!({
            "apiVersion": version, "kind": kind, "metadata": {"name": "web"}, "spec": spec,
        });
        let prefix = if version == "v1" { "api" } else { "apis" };
        let plural = format!("{}s", kind.to_lowercase());
        let path = format!("/{prefix}/{version}/namespaces/{NAMESPACE}/{plural}");
        api.ensure(&path, &object).await;
    }
    let object = json!({
        "apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "web"}, "template": template,
    });
    let core = format!("/api/v1/namespaces/{NAMESPACE}");
    api.ensure(&format!("{core}/podtemplates"), &object).await;
    for pod in [pod(None), pod(Some("ReplicaSet")), pod(Some("Job"))] {
        api.ensure(&format!("{core}/pods"), &pod).await;
    }
}

/// A pod that nobody owns, or that one of that kind does.
fn pod(owner: Option<&str>) -> Value {
    let mut metadata = json!({"name": "web"});
    if let Some(kind) = owner {
        let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        metadata = json!({
            "name": format!("of-{}", kind.to_lowercase()),
            "ownerReferences": [{
                "apiVersion": version, "kind": kind, "name": "web", "uid": "some", "controller": true,
            }],
        });
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"containers": [{"name": "app", "image": "registry.example/app"}]},
    })
}

/// The rights that these roles of the page give.
fn documented(roles: &[&str]) -> BTreeSet<Right> {
    let page = fs::read_to_string(PAGE).unwrap();
    let blocks = page.split("```yaml\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let yaml = blocks.collect::<Vec<_>>().join("---\n");
    let manifests = parse("rights.md", yaml.as_bytes()).unwrap();
    let mut rights = BTreeSet::new();
    for role in roles {
        let mut named = objects(&manifests).filter(|object| object.name() == Some(role));
        let found = named
            .next()
            .unwrap_or_else(|| panic!("no {role} on the page"));
        for rule in found.value["rules"].as_array().unwrap() {
            for (verb, group, resource) in flat(rule) {
                rights.insert(Right {
                    verb,
                    group,
                    resource,
                });
            }
        }
    }
    rights
}

fn flat(rule: &Value) -> Vec<(String, String, String)> {
    let list = |name: &str| {
        let items = rule[name].as_array().unwrap().iter();
        let items = items.map(|item| item.as_str().unwrap().to_owned());
        items.collect::<Vec<_>>()
    };
    let (verbs, resources) = (list("verbs"), list("resources"));
    let [group] = &list("apiGroups")[..] else {
        panic!("a rule of one group: {rule}");
    };
    let each = verbs.iter().flat_map(|verb| {
        let resources = resources.iter();
        resources.map(|resource| (verb.clone(), group.clone(), resource.clone()))
    });
    each.collect()
}

/// The kubeconfig of a user who has just these rights, as soon as they are in force.
async fn user(
    control_plane: &ControlPlane,
    api: &Api,
    name: &str,
    rights: &BTreeSet<Right>,
) -> String {
    let group = "rbac.authorization.k8s.io";
    let rule = |right: &Right| {
        let Right {
            verb,
            group,
            resource,
        } = right;
        json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
    };
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": name},
        "rules": rights.iter().map(rule).collect::<Vec<_>>(),
    });
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": name}],
    });
    api.ensure(&format!("/apis/{group}/v1/clusterroles"), &role)
        .await;
    api.ensure(&format!("/apis/{group}/v1/clusterrolebindings"), &binding)
        .await;
    for Right {
        verb,
        group,
        resource,
    } in rights
    {
        let asked = json!({"verb": verb, "group": group, "resource": resource});
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": name, "resourceAttributes": asked},
        });
        until(&format!("{name} may {verb} {resource}"), async || {
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let answer = api.post(path, &review).await.unwrap();
            (answer["status"]["allowed"] == true).then_some(())
        })
        .await;
    }
    control_plane.kubeconfig_for(name, None).unwrap()
}

fn run(command: &str, kubeconfig: &str, folder: &Path) -> Said {
    let path = folder.join("kubeconfig");
    fs::write(&path, kubeconfig).unwrap();
    let output = Command::new(program("kubectl-harden"))
        .args(command.split(' '))
        .env("KUBECONFIG", path)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said {
        stdout: text(output.stdout),
        stderr: text(output.stderr),
        code: output.status.code().unwrap(),
    }
}
