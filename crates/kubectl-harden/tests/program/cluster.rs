//! What is asked of a cluster, and what comes of the answers. The API server is a few lines here; that a
//! real one answers so is the cluster tests' business.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

const POLICIES: &str = "/apis/podhardening.dev/v1alpha1/clusterpodhardeningpolicies";
const OWN_POLICIES: &str = "/apis/podhardening.dev/v1alpha1/namespaces/shop/podhardeningpolicies";
const NAMESPACE: &str = "/api/v1/namespaces/shop";
const ACCOUNT: &str = "/api/v1/namespaces/shop/serviceaccounts/default";
const RUNTIME_CLASSES: &str = "/apis/node.k8s.io/v1/runtimeclasses";
const VERSION: &str = "/version";
const POD: &str = "/api/v1/namespaces/shop/pods/web";

const MANIFEST: &str =
    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: app\n";

/// An API server that has an answer for some paths, and remembers what it was asked.
pub(crate) struct Cluster {
    folder: TempDir,
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    serving: Option<JoinHandle<()>>,
}

impl Cluster {
    pub(crate) fn new(answers: &[(&str, u16, Value)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers: BTreeMap<String, (u16, Value)> = answers
            .iter()
            .map(|(path, code, body)| ((*path).to_owned(), (*code, body.clone())))
            .collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&asked);
        let serving = thread::spawn(move || {
            for stream in listener.incoming() {
                let path = answer(stream.unwrap(), &answers);
                if path == END {
                    break;
                }
                remembered.lock().unwrap().push(path);
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "shop"}}],
            "clusters": [{"name": "here", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "me", "user": {}}],
        });
        fs::write(folder.path().join("config"), kubeconfig.to_string()).unwrap();
        fs::write(folder.path().join("web.yaml"), MANIFEST).unwrap();
        Self {
            folder,
            address,
            asked,
            serving: Some(serving),
        }
    }

    /// Runs a command: what it prints on standard output and on standard error, and its exit code. The
    /// server's address, which is another each time, reads CLUSTER.
    pub(crate) fn run(&self, command: &str) -> (String, String, Option<i32>) {
        let output = Command::cargo_bin("kubectl-harden")
            .unwrap()
            .current_dir(self.folder.path())
            .env("KUBECONFIG", "config")
            .args(command.split(' '))
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes)
                .unwrap()
                .replace(&format!("http://{}", self.address), "CLUSTER")
        };
        (
            text(output.stdout),
            text(output.stderr),
            output.status.code(),
        )
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Stops answering.
    fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            let mut stream = TcpStream::connect(&self.address).unwrap();
            stream
                .write_all(format!("GET {END} HTTP/1.1\r\n\r\n").as_bytes())
                .unwrap();
            serving.join().unwrap();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

const END: &str = "/end";

/// Answers the one request of a connection, and says for which path it was.
fn answer(stream: TcpStream, answers: &BTreeMap<String, (u16, Value)>) -> String {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let path = line.split(' ').nth(1).unwrap().to_owned();
    let mut header = String::new();
    while reader.read_line(&mut header).unwrap() > 2 {
        header.clear();
    }
    let missing = (
        404,
        status(
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
    );
    let (code, body) = answers.get(&path).unwrap_or(&missing);
    let body = body
        .as_str()
        .map_or_else(|| body.to_string(), str::to_owned);
    let head = format!(
        "HTTP/1.1 {code} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    reader
        .get_mut()
        .write_all(format!("{head}{body}").as_bytes())
        .unwrap();
    path
}

pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

fn list(kind: &str, items: &[Value]) -> Value {
    let api_version = if kind == "RuntimeClassList" {
        "node.k8s.io/v1"
    } else {
        "podhardening.dev/v1alpha1"
    };
    json!({"kind": kind, "apiVersion": api_version, "metadata": {"resourceVersion": "7"}, "items": items})
}

fn cluster_policies(items: &[Value]) -> (&'static str, u16, Value) {
    (POLICIES, 200, list("ClusterPodHardeningPolicyList", items))
}

fn own_policies(items: &[Value]) -> (&'static str, u16, Value) {
    (OWN_POLICIES, 200, list("PodHardeningPolicyList", items))
}

fn namespace() -> (&'static str, u16, Value) {
    (
        NAMESPACE,
        200,
        json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop", "labels": {"tier": "web"}}}),
    )
}

fn policy(spec: &Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "shop", "generation": 4, "managedFields": [{}]}, "spec": spec, "status": {"conditions": []}})
}

fn cluster_policy(spec: &Value) -> Value {
    json!({"metadata": {"name": "c", "generation": 9}, "spec": spec})
}

fn filled(policy: &str, field: &str) -> String {
    format!("podhardening.dev/filled: '{{\"{policy}\":[\"{field}\"]}}'")
}

#[test]
fn the_clusters_policies_are_in_force() {
    let cluster = Cluster::new(&[
        cluster_policies(&[cluster_policy(
            &json!({"namespaceSelector": {"matchLabels": {"tier": "web"}}, "pod": {"hostUsers": false}}),
        )]),
        own_policies(&[policy(
            &json!({"mode": "Audit", "pod": {"shareProcessNamespace": false}}),
        )]),
        namespace(),
    ]);
    let (stdout, stderr, code) = cluster.run("render -f web.yaml");
    let annotation = filled("c@9", "spec.hostUsers");
    let expected = MANIFEST.replace(
        "  name: web\n",
        &format!("  name: web\n  annotations:\n    {annotation}\n"),
    ) + "  hostUsers: false\n";
    assert_eq!(stdout, expected);
    assert_eq!(
        stderr,
        "note: web.yaml: Pod shop/web: shop/p@4, in mode Audit, would fill in spec.shareProcessNamespace: false\n"
    );
    assert_eq!(code, Some(0));
    // Which API servers keep hostUsers hangs on their version.
    assert_eq!(
        cluster.asked(),
        [POLICIES, OWN_POLICIES, NAMESPACE, VERSION]
    );
}

#[test]
fn service_accounts_and_runtime_classes_are_asked_for_where_a_policy_needs_them() {
    let cluster = Cluster::new(&[
        cluster_policies(&[]),
        own_policies(&[policy(
            &json!({"pod": {"automountServiceAccountToken": false, "runtimeClassName": "gvisor"}}),
        )]),
        namespace(),
        (
            ACCOUNT,
            200,
            json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default", "namespace": "shop"}, "automountServiceAccountToken": true}),
        ),
        (
            RUNTIME_CLASSES,
            200,
            list(
                "RuntimeClassList",
                &[json!({"metadata": {"name": "kata"}, "handler": "kata"})],
            ),
        ),
    ]);
    let (stdout, stderr, code) = cluster.run("render -f web.yaml -o diff");
    assert_eq!((stdout.as_str(), code), ("", Some(0)));
    let guards = ["(runtime-class)", "(service-account)"];
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    for (line, guard) in stderr.lines().zip(guards) {
        assert!(line.contains(guard), "{line}");
    }
    assert_eq!(
        cluster.asked(),
        [POLICIES, OWN_POLICIES, NAMESPACE, ACCOUNT, RUNTIME_CLASSES]
    );
}

#[test]
fn a_cluster_is_not_asked_where_nothing_hangs_on_it() {
    let cluster = Cluster::new(&[]);
    let output = cluster.run("render -f config");
    assert_eq!((output.1.as_str(), output.2), ("", Some(0)));
    assert_eq!(cluster.asked(), [""; 0]);
}

#[test]
fn a_broken_policy_is_told_of_and_harms_no_other() {
    let cluster = Cluster::new(&[
        cluster_policies(&[cluster_policy(&json!({"pod": {"hostUsers": "no"}}))]),
        own_policies(&[policy(&json!({"pod": {"hostUsers": false}}))]),
        namespace(),
    ]);
    let (stdout, stderr, code) = cluster.run("render -f web.yaml");
    assert!(stdout.contains("hostUsers: false"), "{stdout}");
    assert_eq!(
        stderr,
        "warning: CLUSTER: ClusterPodHardeningPolicy c: spec.pod.hostUsers: must be of type boolean, not string\n"
    );
    assert_eq!(code, Some(0));
}

#[test]
fn a_namespace_that_is_still_to_be_made_has_its_name_as_a_label() {
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": "shop"}});
    let cluster = Cluster::new(&[
        cluster_policies(&[cluster_policy(
            &json!({"namespaceSelector": selector, "pod": {"hostUsers": false}}),
        )]),
        own_policies(&[]),
    ]);
    let (stdout, stderr, code) = cluster.run("render -f web.yaml");
    assert!(stdout.contains("hostUsers: false"), "{stdout}");
    assert!(
        stderr.starts_with("warning: CLUSTER: there is no namespace shop yet: "),
        "{stderr}"
    );
    assert_eq!(code, Some(0));
}

#[test]
fn what_the_cluster_denies_or_lacks_is_named() {
    let forbidden = status(
        403,
        "Forbidden",
        "clusterpodhardeningpolicies.podhardening.dev is forbidden: User \"me\" cannot list it",
    );
    let cases: &[(&str, u16, Value, &str)] = &[
        (
            POLICIES,
            403,
            forbidden,
            "cannot list ClusterPodHardeningPolicy objects: clusterpodhardeningpolicies.podhardening.dev is forbidden: User \"me\" cannot list it",
        ),
        (
            POLICIES,
            404,
            json!("404 page not found"),
            "the custom resource ClusterPodHardeningPolicy is not installed in this cluster",
        ),
        (
            OWN_POLICIES,
            403,
            status(403, "Forbidden", "no"),
            "cannot list PodHardeningPolicy objects in namespace shop: no",
        ),
        (
            NAMESPACE,
            403,
            status(403, "Forbidden", "no"),
            "cannot get namespace shop: no",
        ),
        (
            NAMESPACE,
            503,
            json!("<html>"),
            "cannot get namespace shop: ",
        ),
        (
            NAMESPACE,
            200,
            json!("<html>"),
            "cannot get namespace shop: ",
        ),
    ];
    for (path, code, body, message) in cases {
        let mut answers = vec![cluster_policies(&[]), own_policies(&[]), namespace()];
        answers.push((path, *code, body.clone()));
        let (stdout, stderr, exit) = Cluster::new(&answers).run("render -f web.yaml");
        assert!(
            stderr.starts_with(&format!("error: CLUSTER: {message}")),
            "{stderr}"
        );
        assert_eq!(
            (stdout.as_str(), stderr.lines().count(), exit),
            ("", 1, Some(1)),
            "{stderr}"
        );
    }
}

#[test]
fn a_cluster_that_is_not_there_is_an_error_of_one_line() {
    let mut cluster = Cluster::new(&[]);
    cluster.stop();
    let (stdout, stderr, code) = cluster.run("render -f web.yaml");
    assert!(
        stderr.starts_with("error: CLUSTER: cannot list ClusterPodHardeningPolicy objects: "),
        "{stderr}"
    );
    assert!(stderr.contains("refused"), "{stderr}");
    assert_eq!(
        (stdout.as_str(), stderr.lines().count(), code),
        ("", 1, Some(1))
    );
}

#[test]
fn a_context_that_is_not_there_is_an_error_of_one_line() {
    let (stdout, stderr, code) = Cluster::new(&[]).run("explain web --context elsewhere");
    assert!(
        stderr.starts_with("error: the kubeconfig cannot be used: ")
            && stderr.contains("elsewhere"),
        "{stderr}"
    );
    assert_eq!(
        (stdout.as_str(), stderr.lines().count(), code),
        ("", 1, Some(1))
    );
}

const PSP: &str = "\
apiVersion: policy/v1beta1
kind: PodSecurityPolicy
metadata: {name: tight}
spec:
  runAsUser: {rule: MustRunAs, ranges: [{min: 5, max: 9}]}
  seLinux: {rule: RunAsAny}
  fsGroup: {rule: RunAsAny}
  supplementalGroups: {rule: RunAsAny}
";

#[test]
fn who_could_use_a_psp_is_asked_of_the_cluster() {
    let group = "/apis/rbac.authorization.k8s.io/v1";
    let paths = [
        "roles",
        "clusterroles",
        "rolebindings",
        "clusterrolebindings",
    ]
    .map(|kind| format!("{group}/{kind}"));
    let lists = |kind: &str, items: &[Value]| json!({"kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1", "items": items});
    let role = json!({"metadata": {"name": "use"}, "rules": [
        {"apiGroups": ["policy"], "resources": ["podsecuritypolicies"], "verbs": ["use"]}]});
    let binding = json!({"metadata": {"name": "use", "namespace": "shop"},
        "subjects": [{"kind": "ServiceAccount", "name": "till", "namespace": "shop"}],
        "roleRef": {"kind": "ClusterRole", "name": "use"}});
    let names =
        |kind: &str, names: &[Value]| json!({"kind": kind, "apiVersion": "v1", "items": names});
    let cluster = Cluster::new(&[
        (&paths[0], 200, lists("RoleList", &[])),
        (&paths[1], 200, lists("ClusterRoleList", &[role])),
        (&paths[2], 200, lists("RoleBindingList", &[binding])),
        (&paths[3], 200, lists("ClusterRoleBindingList", &[])),
        (
            "/api/v1/namespaces",
            200,
            names("NamespaceList", &[json!({"metadata": {"name": "shop"}})]),
        ),
        (
            "/api/v1/serviceaccounts",
            200,
            names(
                "ServiceAccountList",
                &[json!({"metadata": {"name": "till", "namespace": "shop"}})],
            ),
        ),
    ]);
    fs::write(cluster.folder.path().join("psp.yaml"), PSP).unwrap();
    let (stdout, stderr, code) = cluster.run("convert -f psp.yaml --rbac --namespaces");
    assert_eq!(code, Some(0), "{stderr}");
    let policy = "kind: PodHardeningPolicy\nmetadata:\n  name: psp-tight\n  namespace: shop\nspec:\n  containers:\n    securityContext:\n      runAsUser: 5\n  serviceAccountNames:\n  - till\n";
    assert!(stdout.contains(policy), "{stdout}");
    let mut asked = paths.to_vec();
    asked.extend(["/api/v1/namespaces", "/api/v1/serviceaccounts"].map(str::to_owned));
    assert_eq!(cluster.asked(), asked);

    let cluster = Cluster::new(&[(&paths[0], 403, status(403, "Forbidden", "no"))]);
    fs::write(cluster.folder.path().join("psp.yaml"), PSP).unwrap();
    let (stdout, stderr, code) = cluster.run("convert -f psp.yaml --rbac");
    assert_eq!(
        (stdout.as_str(), stderr.as_str(), code),
        ("", "error: CLUSTER: cannot list roles: no\n", Some(1))
    );
}

/// The lines of an explanation for a field, without the field and what lines it up.
fn said_of(stdout: &str, field: &str) -> Vec<String> {
    let of_field = stdout
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.first() == Some(&field));
    of_field.map(|words| words[1..].join(" ")).collect()
}

fn running_pod() -> Value {
    let filled = json!({"shop/p@3": ["spec.securityContext.runAsUser"]}).to_string();
    let withheld = json!({"runs-as-root": ["spec.securityContext.runAsNonRoot"]}).to_string();
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "web", "namespace": "shop", "annotations": {
            "podhardening.dev/filled": filled, "podhardening.dev/withheld": withheld}},
        "spec": {
            "securityContext": {"runAsUser": 10001},
            "containers": [{"name": "app", "securityContext": {"privileged": false, "runAsUser": 0}}],
        },
    })
}

#[test]
fn a_running_pod_is_explained_by_what_is_recorded_on_it_and_by_the_policies_of_today() {
    let ids = json!({"runAsUser": 10001, "runAsNonRoot": true});
    let cluster = Cluster::new(&[
        (POD, 200, running_pod()),
        cluster_policies(&[cluster_policy(
            &json!({"pod": {"securityContext": {"runAsUser": 9}, "shareProcessNamespace": false}}),
        )]),
        own_policies(&[policy(&json!({"pod": {"securityContext": ids}}))]),
        namespace(),
    ]);
    let asked = [POD, POLICIES, OWN_POLICIES, NAMESPACE];
    for name in ["web", "pod/web"] {
        let (stdout, stderr, code) = cluster.run(&format!("explain {name}"));
        assert_eq!((stderr.as_str(), code), ("", Some(0)));
        let heading = "Pod shop/web (CLUSTER)\nPolicies, in order: shop/p@4, c@9\n";
        assert!(stdout.starts_with(heading), "{stdout}");
        assert_eq!(
            said_of(&stdout, "securityContext.runAsUser"),
            ["10001 shop/p@3", "0 author"]
        );
        assert_eq!(
            said_of(&stdout, "securityContext.privileged"),
            ["false author"]
        );
        for told in [
            "not c@9 (9): shop/p@3 goes before it: tier Admin goes first, then the policies of the namespace, then tier Baseline",
            "not c@9 (9): the author's value stays",
            "withheld from shop/p@4 (runs-as-root)",
            "c@9 would set false if the pod were created now",
        ] {
            assert!(stdout.contains(told), "{told}: {stdout}");
        }
    }
    assert_eq!(cluster.asked(), [asked, asked].concat());
}

#[test]
fn a_running_pod_tells_what_is_recorded_on_it_to_those_who_may_not_see_policies() {
    let denied = status(403, "Forbidden", "no");
    let cluster = Cluster::new(&[(POD, 200, running_pod()), (POLICIES, 403, denied)]);
    let (stdout, stderr, code) = cluster.run("explain web");
    assert_eq!(
        stderr,
        "warning: only what is recorded on the pod is shown, for the policies are not known: CLUSTER: cannot list ClusterPodHardeningPolicy objects: no\n"
    );
    assert_eq!(
        said_of(&stdout, "securityContext.runAsUser"),
        ["10001 shop/p@3", "0 author"]
    );
    assert_eq!(
        said_of(&stdout, "hostUsers"),
        ["- nobody; Kubernetes' default: true"]
    );
    assert!(stdout.contains("withheld (runs-as-root)"), "{stdout}");
    assert_eq!(code, Some(0));
}

#[test]
fn what_makes_pods_is_named_as_kubectl_has_it() {
    let path = "/apis/apps/v1/namespaces/shop/deployments/web";
    // Of a single object the API server says its kind; of a list's items it does not.
    let deployment = json!({"metadata": {"name": "web", "namespace": "shop"},
        "spec": {"template": {"spec": {"containers": [{"name": "app"}]}}}});
    let answers = [
        (path, 200, deployment),
        cluster_policies(&[]),
        own_policies(&[policy(&json!({"pod": {"hostUsers": false}}))]),
        namespace(),
    ];
    for name in ["deploy/web", "deployments.apps/web", "Deployment/web"] {
        let cluster = Cluster::new(&answers);
        let (stdout, stderr, code) = cluster.run(&format!("explain {name} --why hostUsers"));
        assert_eq!((stderr.as_str(), code), ("", Some(0)));
        let expected = "Deployment shop/web (CLUSTER)\nPolicies, in order: shop/p@4\npod: hostUsers: false\n  shop/p@4\n\n";
        assert!(stdout.starts_with(expected), "{stdout}");
        assert_eq!(
            cluster.asked(),
            [path, POLICIES, OWN_POLICIES, NAMESPACE, VERSION]
        );
    }

    // Nothing is recorded on what makes pods, so that without the policies there is nothing to see.
    let denied = status(403, "Forbidden", "no");
    let mut answers = answers.to_vec();
    answers.push((POLICIES, 403, denied));
    let (stdout, stderr, code) = Cluster::new(&answers).run("explain deploy/web");
    let message = "error: CLUSTER: cannot list ClusterPodHardeningPolicy objects: no\n";
    assert_eq!(
        (stdout.as_str(), stderr.as_str(), code),
        ("", message, Some(1))
    );
}

#[test]
fn a_pod_that_is_not_there_is_an_error() {
    let cluster = Cluster::new(&[]);
    for (command, message) in [
        ("explain web", "there is no pod shop/web"),
        ("explain web -n bank", "there is no pod bank/web"),
        ("explain deploy/web", "there is no deployment shop/web"),
        (
            "explain svc/web",
            "\"svc\" is none of the types that make pods: pods, deployments, replicasets, statefulsets, daemonsets, cronjobs, jobs, replicationcontrollers, podtemplates",
        ),
        (
            "explain ../secrets/web",
            "\"../secrets/web\" is no name of a Kubernetes object",
        ),
    ] {
        let (stdout, stderr, code) = cluster.run(command);
        assert_eq!(
            (stdout.as_str(), stderr, code),
            ("", format!("error: {message}\n"), Some(1))
        );
    }
    let deployment = "/apis/apps/v1/namespaces/shop/deployments/web";
    assert_eq!(
        cluster.asked(),
        [POD, "/api/v1/namespaces/bank/pods/web", deployment]
    );
}
