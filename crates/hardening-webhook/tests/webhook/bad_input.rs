//! Requests that are not reviews of pods: each gets a clear HTTP error, harms nobody else, and leaves
//! nothing behind.

use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::Request;
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};

use crate::support::{Service, as_sent, create_review, recorded};

type AnyBody = UnsyncBoxBody<Bytes, std::io::Error>;

struct Case {
    name: &'static str,
    request: Request<AnyBody>,
    status: u16,
    reason: &'static str,
    /// Part of the message.
    message: &'static str,
    /// Whether the request's uid must be in the answer.
    uid: bool,
}

const UID: &str = "5f1c0a52-3c1b-4a83-9d0e-1e8f5b1f7a10";

fn whole(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body whose size is not announced.
fn pieces(
    pieces: impl IntoIterator<Item = Result<Bytes, std::io::Error>, IntoIter: Send + 'static>,
) -> AnyBody {
    let frames = pieces.into_iter().map(|piece| piece.map(Frame::data));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: AnyBody) -> Request<AnyBody> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Not a request for a review at all.
fn http(
    name: &'static str,
    (method, path, headers): (&str, &str, &[(&str, &str)]),
    (status, reason, message): (u16, &'static str, &'static str),
) -> Case {
    let request = request(
        method,
        path,
        headers,
        whole(recorded("create-deployment-pod")),
    );
    Case {
        name,
        request,
        status,
        reason,
        message,
        uid: false,
    }
}

/// A body that is not a review.
fn body(name: &'static str, bytes: impl Into<Bytes>, uid: bool, message: &'static str) -> Case {
    let request = request("POST", "/mutate", JSON, whole(bytes));
    Case {
        name,
        request,
        status: 400,
        reason: "BadRequest",
        message,
        uid,
    }
}

/// A review of which one member was changed.
fn review(
    name: &'static str,
    pointer: &str,
    value: Value,
    uid: bool,
    message: &'static str,
) -> Case {
    let mut review = create_review();
    *review.pointer_mut(pointer).unwrap() = value;
    body(name, as_sent(&review), uid, message)
}

/// A review of which one member was taken out.
fn without(name: &'static str, pointer: &str, uid: bool, message: &'static str) -> Case {
    let mut review = create_review();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    review
        .pointer_mut(parent)
        .unwrap()
        .as_object_mut()
        .unwrap()
        .remove(key)
        .unwrap();
    body(name, as_sent(&review), uid, message)
}

fn http_cases() -> Vec<Case> {
    let path = (404, "NotFound", "reviews are answered at /mutate");
    let method = (405, "MethodNotAllowed", "by POST only");
    let media = (415, "UnsupportedMediaType", "must be application/json");
    let encoding = (
        415,
        "UnsupportedMediaType",
        "no Content-Encoding is accepted",
    );
    let encoded = |encoding| [JSON[0], ("content-encoding", encoding)];
    let too_large = |name, body, message| Case {
        name,
        request: request("POST", "/mutate", JSON, body),
        status: 413,
        reason: "RequestEntityTooLarge",
        message,
        uid: false,
    };
    let (whole_limit, unannounced_limit) =
        ("larger than 7340032 bytes", "larger than 1835008 bytes");
    vec![
        http("another path", ("POST", "/validate", JSON), path),
        http("the root", ("POST", "/", JSON), path),
        http("a slash too many", ("POST", "/mutate/", JSON), path),
        http(
            "a path that is taken apart",
            ("POST", "/x/../mutate", JSON),
            path,
        ),
        http("GET", ("GET", "/mutate", JSON), method),
        http("PUT", ("PUT", "/mutate", JSON), method),
        http(
            "a method of somebody's own",
            ("HARDEN", "/mutate", JSON),
            method,
        ),
        http("no content type", ("POST", "/mutate", &[]), media),
        http(
            "plain text",
            ("POST", "/mutate", &[("content-type", "text/plain")]),
            media,
        ),
        http(
            "a relative of JSON",
            (
                "POST",
                "/mutate",
                &[("content-type", "application/json-patch+json")],
            ),
            media,
        ),
        http(
            "protobuf",
            (
                "POST",
                "/mutate",
                &[("content-type", "application/vnd.kubernetes.protobuf")],
            ),
            media,
        ),
        http("gzip", ("POST", "/mutate", &encoded("gzip")), encoding),
        http(
            "two encodings",
            ("POST", "/mutate", &encoded("identity, br")),
            encoding,
        ),
        too_large("8 MiB, announced", whole(vec![b' '; 8 << 20]), whole_limit),
        too_large(
            "8 MiB, not announced",
            pieces((0..128).map(|_| Ok(Bytes::from(vec![b' '; 64 << 10])))),
            unannounced_limit,
        ),
        too_large(
            "one byte too many",
            whole(vec![b' '; (7 << 20) + 1]),
            whole_limit,
        ),
        too_large(
            "without an end",
            pieces(std::iter::repeat_with(|| {
                Ok(Bytes::from_static(&[b' '; 64 << 10]))
            })),
            unannounced_limit,
        ),
        Case {
            request: request(
                "POST",
                "/mutate",
                JSON,
                pieces([Ok(Bytes::from("{")), Err(std::io::Error::other("reset"))]),
            ),
            ..body("a body that breaks off", "", false, "the body broke off")
        },
    ]
}

fn text_cases() -> Vec<Case> {
    let text = String::from_utf8(recorded("create-deployment-pod")).unwrap();
    let until = |part: &str| text[..text.find(part).unwrap()].to_owned();
    let deep = |open: &str| open.repeat(100_000);
    let closed = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    vec![
        body("no body", "", false, "the body is empty"),
        body("white space", " \n\t", false, "it breaks off"),
        body("text", "hello", false, "it is not JSON"),
        body("HTML", "<html></html>", false, "it is not JSON"),
        body("YAML", "kind: AdmissionReview", false, "it is not JSON"),
        body(
            "not UTF-8",
            [b"{\"kind\":\"", &[0xff, 0xfe][..], b"\"}"].concat(),
            false,
            "not UTF-8 text, from byte 9 on",
        ),
        body(
            "UTF-16",
            [0xff, 0xfe, b'{', 0, b'}', 0].to_vec(),
            false,
            "not UTF-8",
        ),
        body(
            "a byte order mark",
            format!("\u{feff}{text}"),
            false,
            "it is not JSON (line 1, column 1)",
        ),
        body("null", "null", false, "of the wrong type"),
        body("a list", "[]", false, "of the wrong type"),
        body(
            "a string",
            "\"AdmissionReview\"",
            false,
            "of the wrong type",
        ),
        body("an empty object", "{}", false, "kind is missing"),
        body(
            "broken off in the pod",
            until(r#""containers""#),
            true,
            "it breaks off",
        ),
        body(
            "broken off in the uid",
            until("-9d0e-"),
            false,
            "it breaks off",
        ),
        body(
            "broken off before the request",
            until(r#""request""#),
            false,
            "it breaks off",
        ),
        body(
            "broken off at the last brace",
            text.trim_end()[..text.trim_end().len() - 1].to_owned(),
            true,
            "it breaks off",
        ),
        body(
            "something after the end",
            format!("{text}x"),
            true,
            "it is not JSON",
        ),
        body(
            "two reviews",
            format!("{text}{text}"),
            true,
            "it is not JSON",
        ),
        body(
            "NaN",
            with(r#""priority":0"#, r#""priority":NaN"#),
            true,
            "it is not JSON",
        ),
        body(
            "a comma too many",
            with(r#""priority":0,"#, r#""priority":0,,"#),
            true,
            "it is not JSON",
        ),
        body(
            "a raw control character",
            with("log-shipper", "log\u{1}shipper"),
            true,
            "it is not JSON",
        ),
        body(
            "half a surrogate pair in the uid",
            with(UID, "\\ud800"),
            false,
            "it is not JSON",
        ),
        body("100,000 lists", deep("["), false, "of the wrong type"),
        body("100,000 objects", deep("{\"a\":"), false, "it breaks off"),
        body(
            "100,000 lists, closed",
            closed(100_000),
            false,
            "of the wrong type",
        ),
        body(
            "a request of 100,000 lists",
            with(
                r#""request":{"#,
                &format!(r#""request":{},"x":{{"#, closed(100_000)),
            ),
            false,
            "of the wrong type",
        ),
        body(
            "a pod of 100,000 lists",
            with(
                r#""object":{"#,
                &format!(r#""object":{},"x":{{"#, closed(100_000)),
            ),
            true,
            "request.object is not an object",
        ),
        body(
            "a pod of 100,000 lists without an end",
            format!(
                "{}{}",
                until(r#"{"kind":"Pod","apiVersion":"v1","metadata""#),
                deep("[")
            ),
            true,
            "it breaks off",
        ),
        body(
            "a security context of 100,000 objects",
            with(
                r#""securityContext":{"allowPrivilegeEscalation":true}"#,
                &format!(
                    r#""securityContext":{{"capabilities":{}1{}}}"#,
                    deep("{\"drop\":"),
                    deep("}")
                ),
            ),
            true,
            "the pod cannot be read",
        ),
        body(
            "two uids",
            with(UID, &format!(r#"{UID}","uid":"second"#)),
            true,
            "given twice",
        ),
        body(
            "two objects",
            with(r#""object":"#, r#""object":{},"object":"#),
            true,
            "given twice",
        ),
        body(
            "two specs",
            with(r#""spec":"#, r#""spec":{},"spec":"#),
            true,
            "the pod cannot be read",
        ),
    ]
}

fn review_cases() -> Vec<Case> {
    let string = || json!("x");
    let long = || json!("x".repeat(10_000));
    vec![
        without("no kind", "/kind", true, "kind is missing"),
        without(
            "no apiVersion",
            "/apiVersion",
            true,
            "apiVersion is missing",
        ),
        review(
            "a pod",
            "/kind",
            json!("Pod"),
            true,
            "kind must be AdmissionReview, not \"Pod\"",
        ),
        review(
            "a kind that is a number",
            "/kind",
            json!(1),
            true,
            "of the wrong type",
        ),
        review(
            "v1beta1",
            "/apiVersion",
            json!("admission.k8s.io/v1beta1"),
            true,
            "apiVersion must be admission.k8s.io/v1, not \"admission.k8s.io/v1beta1\"",
        ),
        review(
            "an endless apiVersion",
            "/apiVersion",
            long(),
            true,
            "xxxx\"…",
        ),
        without("no request", "/request", false, "request is missing"),
        review(
            "a request that is null",
            "/request",
            json!(null),
            false,
            "request is missing",
        ),
        review(
            "a request that is a string",
            "/request",
            string(),
            false,
            "of the wrong type",
        ),
        without("no uid", "/request/uid", false, "request.uid is missing"),
        review(
            "an empty uid",
            "/request/uid",
            json!(""),
            false,
            "request.uid is missing",
        ),
        review(
            "a uid that is a number",
            "/request/uid",
            json!(7),
            false,
            "of the wrong type",
        ),
        review(
            "an endless uid",
            "/request/uid",
            long(),
            false,
            "request.uid is not a valid name",
        ),
        without(
            "no resource",
            "/request/resource",
            true,
            "request.resource is missing",
        ),
        review(
            "deployments",
            "/request/resource",
            json!({"group": "apps", "version": "v1", "resource": "deployments"}),
            true,
            "request.resource.group must be the core group, \"\", not \"apps\"",
        ),
        review(
            "services",
            "/request/resource/resource",
            json!("services"),
            true,
            "request.resource.resource must be pods, not \"services\"",
        ),
        review(
            "pods of another version",
            "/request/resource/version",
            json!("v2"),
            true,
            "request.resource.version must be v1, not \"v2\"",
        ),
        without(
            "no operation",
            "/request/operation",
            true,
            "request.operation is missing",
        ),
        review(
            "an operation of somebody's own",
            "/request/operation",
            json!("HARDEN"),
            true,
            "request.operation must be CREATE, UPDATE, DELETE or CONNECT, not \"HARDEN\"",
        ),
        review(
            "an operation in lower case",
            "/request/operation",
            json!("create"),
            true,
            "not \"create\"",
        ),
        without(
            "no namespace",
            "/request/namespace",
            true,
            "request.namespace is missing",
        ),
        review(
            "an empty namespace",
            "/request/namespace",
            json!(""),
            true,
            "request.namespace is missing",
        ),
        review(
            "a namespace that cannot be",
            "/request/namespace",
            json!("../shop"),
            true,
            "request.namespace is not a valid name",
        ),
        review(
            "an endless namespace",
            "/request/namespace",
            long(),
            true,
            "request.namespace is not a valid name",
        ),
        without(
            "no kind of the object",
            "/request/kind",
            true,
            "request.kind is missing",
        ),
        review(
            "a Deployment as a pod",
            "/request/kind/kind",
            json!("Deployment"),
            true,
            "request.kind.kind must be Pod, not \"Deployment\"",
        ),
        without(
            "no object",
            "/request/object",
            true,
            "request.object is missing",
        ),
        review(
            "an object that is null",
            "/request/object",
            json!(null),
            true,
            "request.object is missing",
        ),
        review(
            "an object that is a list",
            "/request/object",
            json!([[]]),
            true,
            "request.object is not an object",
        ),
        review(
            "an object that is a string",
            "/request/object",
            string(),
            true,
            "request.object is not an object",
        ),
        review(
            "a spec that is a string",
            "/request/object/spec",
            string(),
            true,
            "the pod cannot be read: spec: ",
        ),
        review(
            "containers that are a map",
            "/request/object/spec/containers",
            json!({"a": 1}),
            true,
            "spec.containers: ",
        ),
        review(
            "a container that is a number",
            "/request/object/spec/containers/0",
            json!(1),
            true,
            "spec.containers[0]: ",
        ),
        review(
            "a user that is a name",
            "/request/object/spec/securityContext",
            json!({"runAsUser": "root"}),
            true,
            "spec.securityContext.runAsUser: ",
        ),
        review(
            "labels that are a list",
            "/request/object/metadata/labels",
            json!(["a"]),
            true,
            "metadata.labels: ",
        ),
        review(
            "an ephemeral container without the old pod",
            "/request",
            {
                let mut review: Value =
                    serde_json::from_slice(&recorded("update-ephemeral-containers")).unwrap();
                review["request"]["uid"] = json!(UID);
                review["request"]["oldObject"] = json!(null);
                review["request"].take()
            },
            true,
            "request.oldObject is missing",
        ),
    ]
}

#[tokio::test]
async fn each_gets_a_clear_error_and_harms_nobody_else() {
    let cases: Vec<Case> = [http_cases(), text_cases(), review_cases()]
        .into_iter()
        .flatten()
        .collect();
    assert!(cases.len() >= 80, "only {} cases", cases.len());
    let service = Service::new();
    let refused = cases.len();
    for Case {
        name,
        request,
        status,
        reason,
        message,
        uid,
    } in cases
    {
        let answer = service.send(request).await;
        let body = answer.json();
        assert_eq!(answer.status.as_u16(), status, "{name}: {body}");
        assert_eq!(answer.headers["content-type"], "application/json", "{name}");
        let said = body["message"].as_str().unwrap_or_default().to_owned();
        assert!(
            said.contains(message),
            "{name}: expected {message:?}, found {said:?}"
        );
        assert!(said.len() < 300, "{name}: {said}");
        let details = if uid {
            json!({"uid": UID})
        } else {
            json!(null)
        };
        assert_eq!(
            body,
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": said, "reason": reason, "code": status
            })
            .with("details", details),
            "{name}"
        );
        assert!(
            service
                .post(recorded("create-deployment-pod"))
                .await
                .is_patched(),
            "after {name}"
        );
    }
    let refused = f64::from(u32::try_from(refused).unwrap());
    assert_eq!(
        service.metric("podhardening_reviews_total{outcome=\"refused\"}"),
        refused
    );
    assert_eq!(service.metric("podhardening_reviews_in_flight"), 0.0);
}

trait With {
    /// With a member, unless it is null.
    fn with(self, key: &str, value: Value) -> Self;
}

impl With for Value {
    fn with(mut self, key: &str, value: Value) -> Self {
        if !value.is_null() {
            self[key] = value;
        }
        self
    }
}
