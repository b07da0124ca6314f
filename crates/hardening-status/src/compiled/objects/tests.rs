//! Which writes, in which order, with an API server of two kinds of objects.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;

use super::*;

/// An API server that keeps the objects, as far as labels and owners of names go.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// By kind, as in the path, and name.
    objects: BTreeMap<(String, String), Value>,
    /// What was done.
    log: Vec<String>,
    /// The name of an object that nobody may write.
    refuses: Option<String>,
}

impl Server {
    fn objects(&self) -> Objects {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (status, answer) = server.answer(&head.method, head.uri.path(), &body);
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        });
        Objects::new(&Client::new(service, "default"))
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let mut kept = self.0.lock().unwrap();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let [_, _, _, kind, name @ ..] = parts.as_slice() else {
            panic!("{path}");
        };
        let short = kind.trim_start_matches("mutatingadmissionpolic");
        let [name] = name else {
            let of_kind = kept.objects.iter().filter(|((of, _), _)| of == kind);
            let items: Vec<&Value> = of_kind.map(|(_, object)| object).collect();
            return (
                200,
                json!({"apiVersion": VERSION, "kind": "List", "metadata": {}, "items": items}),
            );
        };
        let key = ((*kind).to_owned(), (*name).to_owned());
        if kept.refuses.as_deref() == Some(*name) {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                "reason": "Forbidden", "message": "not you"});
            return (403, status);
        }
        if *method == Method::DELETE {
            kept.log.push(format!("-{short} {name}"));
            return (200, kept.objects.remove(&key).unwrap());
        }
        let mut object: Value = serde_json::from_slice(body).unwrap();
        let selects = Selected::of(&object);
        let selects = selects.map_or(String::new(), |selects| format!(" {}", shown(&selects)));
        kept.log.push(format!("+{short} {name}{selects}"));
        // As the API server does, it adds what the object does not say.
        object["spec"]["added"] = "by the API server".into();
        object["metadata"]["uid"] = (*name).into();
        kept.objects.insert(key, object.clone());
        (200, object)
    }

    /// One that has these compiled policies, and nothing in its log.
    async fn with<const N: usize>(compiled_policies: [(&str, &str, &str); N]) -> Self {
        let server = Self::default();
        let wanted = compiled_policies.map(|(name, text, names)| compiled(name, text, names));
        server.objects().apply(&wanted).await.unwrap();
        server.take_log();
        server
    }

    fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().log)
    }
}

fn shown(selected: &Selected) -> String {
    let (operator, names) = match selected {
        Selected::In(names) => ("in", names),
        Selected::NotIn(names) => ("not in", names),
    };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    format!("{operator} {}", names.join(" "))
}

/// A compiled policy of a name, with a text in it that can change, and its namespaces; with `!` all but these.
fn compiled(name: &str, text: &str, namespaces: &str) -> CompiledPolicy {
    let metadata = json!({"name": name, "labels": {LABEL: LABEL_VALUE}});
    let (operator, names) = match namespaces.strip_prefix('!') {
        Some(names) => ("NotIn", names),
        None => ("In", namespaces),
    };
    let names: Vec<&str> = names.split(' ').collect();
    let expression =
        json!({"key": "kubernetes.io/metadata.name", "operator": operator, "values": names});
    CompiledPolicy {
        name: name.to_owned(),
        sources: Vec::new(),
        policy: json!({
            "apiVersion": VERSION, "kind": "MutatingAdmissionPolicy", "metadata": metadata,
            "spec": {"variables": [{"name": "text", "expression": text}]},
        }),
        binding: json!({
            "apiVersion": VERSION, "kind": "MutatingAdmissionPolicyBinding", "metadata": metadata,
            "spec": {"matchResources": {"namespaceSelector": {"matchExpressions": [expression]}}},
        }),
    }
}

/// What is written to get from one set of compiled policies to another one; and that nothing is after that.
async fn check(server: &Server, wanted: &[(&str, &str, &str)], expected: &[&str]) -> Outcome {
    let wanted: Vec<CompiledPolicy> = wanted
        .iter()
        .map(|(name, text, namespaces)| compiled(name, text, namespaces))
        .collect();
    let objects = server.objects();
    let outcome = objects.apply(&wanted).await.unwrap();
    assert_eq!(server.take_log(), expected);
    let again = objects.apply(&wanted).await.unwrap();
    assert_eq!(server.take_log(), [""; 0], "written again");
    assert_eq!(again.failed, outcome.failed);
    outcome
}

#[tokio::test(start_paused = true)]
async fn only_what_differs_is_written_and_what_is_not_wanted_goes() {
    let server = Server::default();
    let first = [("a", "1", "x y"), ("b", "1", "z"), ("rest", "1", "!x y z")];
    let outcome = check(
        &server,
        &first,
        &[
            "+ies a",
            "+ies b",
            "+ies rest",
            "+ybindings a in x y",
            "+ybindings b in z",
            "+ybindings rest not in x y z",
        ],
    )
    .await;
    let made = Outcome {
        written: 6,
        ..Outcome::default()
    };
    assert_eq!(outcome, made);
    let second = [("a", "2", "x y"), ("b", "1", "z"), ("rest", "1", "!x y z")];
    check(&server, &second, &["+ies a"]).await;
    let third = [("a", "2", "x y"), ("rest", "1", "!x y z")];
    check(&server, &third, &["-ybindings b", "-ies b"]).await;
    check(
        &server,
        &[],
        &["-ybindings a", "-ybindings rest", "-ies a", "-ies rest"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_goes_from_one_to_another_has_both_for_a_moment_and_never_none() {
    let server = Server::with([("a", "1", "x y"), ("b", "1", "z"), ("rest", "1", "!x y z")]).await;
    // `y` goes to b, `z` to a, and `w`, of which nothing was known, to b.
    let after = [
        ("a", "1", "x z"),
        ("b", "1", "w y"),
        ("rest", "1", "!w x y z"),
    ];
    check(
        &server,
        &after,
        &[
            "+ybindings a in x y z",
            "+ybindings b in w y z",
            "+ybindings a in x z",
            "+ybindings b in w y",
            "+ybindings rest not in w x y z",
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_has_made_stays_and_so_does_what_its_namespaces_had() {
    let server = Server::with([("a", "1", "x"), ("b", "1", "y")]).await;
    let theirs = compiled("c", "theirs", "x");
    let kinds = [
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    ];
    for (kind, object) in kinds.into_iter().zip([theirs.policy, theirs.binding]) {
        let key = (kind.to_owned(), "c".to_owned());
        server.0.lock().unwrap().objects.insert(key, object);
    }
    // `a` is not wanted any more, but what x is to have instead is not there.
    let outcome = check(&server, &[("c", "1", "x")], &["-ybindings b", "-ies b"]).await;
    let why = "MutatingAdmissionPolicy c is there and is not this program's";
    assert_eq!(
        outcome.failed,
        BTreeMap::from([("c".to_owned(), why.to_owned())])
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_applied_harms_no_other_and_leaves_its_namespaces_what_they_had() {
    let server = Server::with([("a", "1", "x y"), ("b", "1", "z")]).await;
    server.0.lock().unwrap().refuses = Some("new".to_owned());
    let wanted = [("a", "2", "x"), ("new", "1", "y")];
    let wanted = wanted.map(|(n, t, s)| compiled(n, t, s));
    let outcome = server.objects().apply(&wanted).await.unwrap();
    assert_eq!(server.take_log(), ["+ies a", "-ybindings b", "-ies b"]);
    assert_eq!(
        outcome.failed,
        BTreeMap::from([("new".to_owned(), "new: not you".to_owned())])
    );
    server.0.lock().unwrap().refuses = None;
    server.objects().apply(&wanted).await.unwrap();
    assert_eq!(
        server.take_log(),
        ["+ies new", "+ybindings new in y", "+ybindings a in x"]
    );
}
