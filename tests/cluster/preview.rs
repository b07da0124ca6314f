//! What people are shown before is what happens then. Generated manifests go through `kubectl harden render`, `diff`
//! and `explain`, which ask the cluster for its policies, and the same ones to the API server, which asks the
//! webhook: what is rendered is what is stored, the diff leads from the one to the other, and the explanation says
//! of every field what the webhook tells of it. Pods that then run are explained by what is written on them, and so
//! are the ones that controllers make of templates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use hardening_engine::{FILLED, WITHHELD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api::{Api, namespace, until};
use crate::support::compare::{differences, normalised};
use crate::support::crds::{CLUSTER_POLICIES, collection};
use crate::support::generate::pod::alone;
use crate::support::generate::policy::NAMESPACES;
use crate::support::generate::{self, Random};
use crate::support::kinds::{KINDS, workload};
use crate::support::lab::{Lab, policy_set};
use crate::support::policies;
use crate::support::program::program;
use crate::support::tell::tell;
use crate::support::told::{Record, Told, recording, told, without_items};
use crate::support::webhook::{Asked, RunningWebhook};

const USER: &str = "preview";
/// So many manifests with each of so many sets of policies.
const PODS: usize = 30;
const ROUNDS: usize = 20;
/// Of the manifests of a round, so many become pods that stay and are explained.
const LIVE: usize = 5;

/// A manifest that the API server admits, and what it stores with us.
struct Case {
    manifest: Value,
    path: String,
    with_us: Value,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shown_of_manifests_is_what_the_webhook_does() {
    let lab = Lab::open_in(recording().await, USER).await;
    let seed = generate::base_seed();
    let (mut pods, mut changed, mut live, mut audited) = (0, 0, 0, 0);
    for round in 0..generate::cases(PODS * ROUNDS).div_ceil(PODS) {
        let context = format!("round {round} of HARDENING_TEST_SEED={seed}");
        let random = &mut Random::of(seed, "previewed policies", round);
        let policies = generate::policy::set(random);
        let (stored, paths) = put_into_cluster(&lab.admin, &policies).await;
        lab.put_in_force(&stored);
        let cases = admitted(&lab, seed, round).await;
        let names = cases.iter().map(Case::name).collect();
        let told = told(USER, &names).await;
        let folder = written(&cases).await;
        let rendered = rendered(&folder);
        let diffs = diffs(&folder);
        let explained = explained(&folder, "-f manifests");
        for (i, case) in cases.iter().enumerate() {
            let told = &told[&case.name()];
            let context = format!("{context}: {}\n{:#}", case.name(), case.manifest);
            check_rendered(&lab, case, &rendered[i], &context).await;
            check_diff(
                &folder,
                i,
                diffs.get(&case.name()),
                &rendered[i],
                told,
                &context,
            );
            assert_eq!(&says(&explained[i]), told, "{context}");
            changed += usize::from(!told.filled.is_empty());
            audited += usize::from(!told.audited.is_empty());
        }
        for case in cases.iter().take(LIVE) {
            live += usize::from(check_live(&lab, case, &folder, &context).await);
        }
        pods += cases.len();
        for path in paths {
            lab.admin.delete(&path).await;
        }
    }
    lab.close().await;
    tell(&format!(
        "previews: {pods} manifests rendered, compared and explained as the webhook then does, {changed} of them changed, \
         {audited} with policies in mode Audit; {live} explained as they run, seed {seed}"
    ));
    assert!(
        changed > 0 && changed < pods && audited > 0 && live > 0,
        "{changed} of {pods}"
    );
}

impl Case {
    fn name(&self) -> String {
        let part = |name: &str| self.manifest["metadata"][name].as_str().unwrap();
        format!("{}/{}", part("namespace"), part("name"))
    }
}

/// Creates policies; as they are stored, and where.
async fn put_into_cluster(api: &Api, policies: &[Value]) -> (Vec<Value>, Vec<String>) {
    let (mut stored, mut paths) = (Vec::new(), Vec::new());
    for policy in policies {
        let path = match policy["metadata"]["namespace"].as_str() {
            Some(namespace) => collection(namespace),
            None => CLUSTER_POLICIES.to_owned(),
        };
        stored.push(api.post(&path, policy).await.unwrap());
        let name = policy["metadata"]["name"].as_str().unwrap();
        paths.push(format!("{path}/{name}"));
    }
    (stored, paths)
}

/// The manifests of a round that the API server admits without us.
async fn admitted(lab: &Lab, seed: u64, round: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for i in 0..PODS {
        let random = &mut Random::of(seed, "previewed", round * PODS + i);
        let namespace = random.pick(&NAMESPACES).0;
        let name = format!("previewed-{round}-{i}");
        let mut manifest = alone(generate::pod::pod(random, &name), &name, "preview");
        manifest["metadata"]["namespace"] = namespace.into();
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let dry = format!("{path}?dryRun=All");
        if lab.without_us.post(&dry, &manifest).await.is_ok() {
            let with_us = lab.with_us.post(&dry, &manifest).await.unwrap();
            cases.push(Case {
                manifest,
                path,
                with_us,
            });
        }
    }
    cases
}

/// The manifests in a folder, each in a file of its own, in the cases' order: in YAML, and every third in JSON.
async fn written(cases: &[Case]) -> TempDir {
    let folder = folder().await;
    fs::create_dir(folder.path().join("manifests")).unwrap();
    for (i, case) in cases.iter().enumerate() {
        let text = if i % 3 == 2 {
            case.manifest.to_string()
        } else {
            serde_saphyr::to_string(&case.manifest).unwrap()
        };
        fs::write(folder.path().join(file(i)), text).unwrap();
    }
    folder
}

fn file(i: usize) -> String {
    let extension = if i % 3 == 2 { "json" } else { "yaml" };
    format!("manifests/{i:03}.{extension}")
}

// --- what the commands say ---

/// A folder with the cluster's kubeconfig.
async fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    fs::copy(recording().await.kubeconfig_path(), path).unwrap();
    folder
}

fn run(folder: &TempDir, command: &str) -> Output {
    Command::new(program("kubectl-harden"))
        .args(command.split(' '))
        .env("KUBECONFIG", "kubeconfig")
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn stdout(output: Output, command: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The manifests as they would be admitted, in order.
fn rendered(folder: &TempDir) -> Vec<Value> {
    let command = "render -f manifests -o json";
    let list: Value = serde_json::from_str(&stdout(run(folder, command), command)).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// The diffs, by the pods' names.
fn diffs(folder: &TempDir) -> BTreeMap<String, String> {
    let output = run(folder, "diff -f manifests");
    let text = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some((!text.is_empty()).into()),
        "{said}"
    );
    let mut diffs: BTreeMap<String, String> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("--- Pod ") {
            last = title.split(' ').next().unwrap().to_owned();
        } else if !line.starts_with("+++ Pod ") {
            let diff = diffs.entry(last.clone()).or_default();
            diff.push_str(line);
            diff.push('\n');
        }
    }
    diffs
}

/// The explanations of an object, or of all manifests, in order.
fn explained(folder: &TempDir, what: &str) -> Vec<Value> {
    let command = format!("explain {what} -o json");
    let explained: Value = serde_json::from_str(&stdout(run(folder, &command), &command)).unwrap();
    explained["pods"].as_array().unwrap().clone()
}

/// What an explanation says, as the webhook tells it.
fn says(explained: &Value) -> Told {
    let record = |list: &str, who: &str| {
        let mut record = Record::new();
        for field in explained["fields"].as_array().unwrap() {
            for said in field[list].as_array().unwrap() {
                if let Some(who) = said[who].as_str() {
                    record
                        .entry(who.to_owned())
                        .or_default()
                        .insert(path(field));
                }
            }
        }
        record
    };
    Told {
        filled: record("setBy", "policy"),
        withheld: record("withheld", "guard"),
        audited: record("audited", "policy"),
    }
}

/// A field's path in the pod.
fn path(field: &Value) -> String {
    let text = |name: &str| field[name].as_str().unwrap_or_default();
    let list = match text("level") {
        "Pod" => return format!("spec.{}", text("field")),
        "Container" => "containers",
        "InitContainer" => "initContainers",
        level => panic!("{level}"),
    };
    format!("spec.{list}[{}].{}", text("container"), text("field"))
}

// --- what they are held to ---

/// What is rendered is stored without us as what was written is with us.
async fn check_rendered(lab: &Lab, case: &Case, rendered: &Value, context: &str) {
    let dry = format!("{}?dryRun=All", case.path);
    let stored = lab.without_us.post(&dry, rendered).await;
    let stored = stored.unwrap_or_else(|refusal| panic!("{refusal}: {rendered:#}\n{context}"));
    let stored = ordered(normalised(&stored, rendered));
    let expected = ordered(normalised(&without_taken_volume(case), &case.manifest));
    let differences = differences(&expected, &stored);
    assert!(differences.is_empty(), "{differences:#?}\n{context}");
}

/// Where an author has a volume of a name such as the API server draws for its token's, it mounts that one, unless
/// `automountServiceAccountToken` is false in what is posted. When the webhook fills that in it is done.
fn without_taken_volume(case: &Case) -> Value {
    let mut pod = case.with_us.clone();
    let is_taken = |volume: &Value| {
        volume["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("kube-api-access-"))
    };
    let volumes = case.manifest["spec"]["volumes"].as_array();
    let is_off = pod["spec"]["automountServiceAccountToken"] == false;
    if !is_off || !volumes.is_some_and(|volumes| volumes.iter().any(is_taken)) {
        return pod;
    }
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"][list].as_array_mut().into_iter().flatten();
        for (i, container) in containers.enumerate() {
            let wrote = case.manifest["spec"][list][i]["volumeMounts"].as_array();
            let paths: Vec<&Value> = wrote
                .into_iter()
                .flatten()
                .map(|mount| &mount["mountPath"])
                .collect();
            if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                mounts.retain(|mount| !is_taken(mount) || paths.contains(&&mount["mountPath"]));
            }
        }
    }
    pod
}

/// The API server's own volume comes before ours in the one pod and after them in the other.
fn ordered(mut pod: Value) -> Value {
    let sort = |list: &mut Value| {
        if let Some(list) = list.as_array_mut() {
            list.sort_by_key(ToString::to_string);
        }
    };
    sort(&mut pod["spec"]["volumes"]);
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            sort(&mut container["volumeMounts"]);
        }
    }
    pod
}

/// There is a diff where the webhook fills something in, and it makes of the text that was read what is rendered.
fn check_diff(
    folder: &TempDir,
    i: usize,
    diff: Option<&String>,
    rendered: &Value,
    told: &Told,
    context: &str,
) {
    assert_eq!(
        diff.is_some(),
        !told.filled.is_empty(),
        "{diff:?}\n{context}"
    );
    // Of JSON the diff shows YAML that nobody wrote.
    if let Some(diff) = diff
        && Path::new(&file(i)).extension().unwrap() == "yaml"
    {
        let before = fs::read_to_string(folder.path().join(file(i))).unwrap();
        let after = applied(&before, diff);
        let manifests = hardening_manifests::parse("after", after.as_bytes()).unwrap();
        assert_eq!(&manifests[0].value, rendered, "{diff}\n{context}");
    }
}

/// A text with a unified diff of it applied.
fn applied(before: &str, diff: &str) -> String {
    let mut old = before.lines();
    let (mut new, mut taken) = (Vec::new(), 0);
    for line in diff.lines() {
        if let Some(hunk) = line.strip_prefix("@@ -") {
            let start: usize = hunk.split([',', ' ']).next().unwrap().parse().unwrap();
            new.extend(old.by_ref().take(start - 1 - taken));
            taken = start - 1;
            continue;
        }
        let (sign, text) = line.split_at(1);
        if sign != "+" {
            assert_eq!(old.next(), Some(text), "{diff}");
            taken += 1;
        }
        if sign != "-" {
            new.push(text);
        }
    }
    new.extend(old);
    new.join("\n") + "\n"
}

/// A pod that runs is explained by what is written on it, and lacks nothing. Whether there is any such.
async fn check_live(lab: &Lab, case: &Case, folder: &TempDir, context: &str) -> bool {
    let live = lab.with_us.post(&case.path, &case.manifest).await.unwrap();
    let name = case.name();
    let (namespace, pod) = name.split_once('/').unwrap();
    let explained = explained(folder, &format!("{pod} -n {namespace}"));
    lab.admin.delete(&format!("{}/{pod}", case.path)).await;
    let context = format!("{context}: {name} as it runs\n{live:#}");
    check_explained_by_record(&explained[0], &live, &context)
}

/// What is explained of a running pod is what is written on it; whether anything is.
fn check_explained_by_record(explained: &Value, live: &Value, context: &str) -> bool {
    let says = says(explained);
    assert_eq!(says.filled, record(live, FILLED), "{context}");
    let withheld = without_items(&record(live, WITHHELD));
    for (guard, paths) in &withheld {
        assert!(
            says.withheld
                .get(guard)
                .is_some_and(|told| told.is_superset(paths)),
            "{guard}: {context}"
        );
    }
    for field in explained["fields"].as_array().unwrap() {
        assert_eq!(field["missing"], json!([]), "{field:#} {context}");
    }
    !says.filled.is_empty()
}

fn record(pod: &Value, name: &str) -> Record {
    let text = pod["metadata"]["annotations"][name].as_str();
    text.map_or_else(Record::new, |text| serde_json::from_str(text).unwrap())
}

// --- templates, and the pods that controllers make of them ---

const WORKLOADS: &str = "previewed-workloads";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_explained_of_a_template_is_written_on_the_pods_that_controllers_make_of_it() {
    let api = Api::of(recording().await);
    // A DaemonSet needs a node, if only on paper.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": WORKLOADS}});
    api.ensure("/api/v1/nodes", &node).await;
    let labels = json!({"webhook": WORKLOADS});
    namespace(&api, WORKLOADS, &labels).await;
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": hardening_api::API_VERSION, "kind": "PodHardeningPolicy",
            "metadata": {"name": name, "namespace": WORKLOADS}, "spec": spec,
        })
    };
    let written = [
        policy("all", json!({"profile": "Hardened"})),
        policy(
            "next",
            json!({"mode": "Audit", "pod": {"hostUsers": false}}),
        ),
    ];
    let (stored, _) = put_into_cluster(&api, &written).await;
    let mut set = policy_set(&stored);
    set.insert_namespace(WORKLOADS, &policies::labels(&[("webhook", WORKLOADS)]));
    set.insert_service_account(WORKLOADS, "default", None);
    let webhook = RunningWebhook::start(&api, WORKLOADS, Asked::ForNamespaces, set).await;
    webhook.until_asked(&api, WORKLOADS).await;

    let folder = folder().await;
    // Those of the other test are in the cluster too.
    let list = json!({"apiVersion": "v1", "kind": "List", "items": stored});
    fs::write(folder.path().join("policies.json"), list.to_string()).unwrap();
    let explained = |what: &str| {
        let what = format!("{what} -n {WORKLOADS} --policies policies.json");
        explained(&folder, &what).remove(0)
    };
    for (kind, version) in KINDS {
        let lower = kind.to_lowercase();
        let name = format!("made-by-{lower}");
        let template = json!({
            "metadata": {"labels": {"of": kind}},
            "spec": {
                "initContainers": [{"name": "first", "image": "registry.example/first"}],
                // A guard has something to hold back.
                "containers": [
                    {"name": "app", "image": "registry.example/app"},
                    {"name": "root", "image": "registry.example/root", "securityContext": {"runAsUser": 0}},
                ],
            },
        });
        let object = workload(kind, version, &name, template);
        let path = format!("/apis/{version}/namespaces/{WORKLOADS}/{lower}s");
        api.post(&path, &object).await.unwrap();
        let pods = format!("/api/v1/namespaces/{WORKLOADS}/pods?labelSelector=of={kind}");
        let live = until(&format!("a pod of a {kind}"), async || {
            let list = api.get(&pods).await.unwrap();
            list["items"].get(0).cloned()
        })
        .await;
        let foretold = says(&explained(&format!("{lower}/{name}")));
        assert_eq!(foretold.filled, record(&live, FILLED), "{kind}");
        assert_eq!(
            foretold.withheld,
            without_items(&record(&live, WITHHELD)),
            "{kind}"
        );
        let audited = BTreeSet::from(["spec.hostUsers".to_owned()]);
        let by_policy = Record::from([(format!("{WORKLOADS}/next@1"), audited)]);
        assert_eq!(foretold.audited, by_policy, "{kind}");

        let pod = live["metadata"]["name"].as_str().unwrap();
        let explained = explained(pod);
        assert!(check_explained_by_record(&explained, &live, kind));
        assert_eq!(says(&explained).audited, by_policy, "{kind}");
    }
    api.delete(&format!("/api/v1/namespaces/{WORKLOADS}")).await;
    api.delete(&format!("/api/v1/nodes/{WORKLOADS}")).await;
    webhook.stop(&api).await;
    tell(&format!(
        "previews: templates of {} kinds, and the pods of them",
        KINDS.len()
    ));
}
