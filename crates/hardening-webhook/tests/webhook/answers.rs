//! What a review is answered with, held against recorded reviews, and applied as the API server applies it.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Service, as_sent, recorded, reviews};

/// Sends a recorded review and compares the answer, its patch decoded, with the file beside it.
/// `UPDATE_EXPECT=1` writes the file anew.
async fn check(name: &str) -> Answer {
    let answer = Service::new().post(recorded(name)).await;
    let mut shown = answer.json();
    if let Some(patch) = answer.patch() {
        shown["response"]["patch"] = serde_json::to_value(patch).unwrap();
    }
    let shown = format!(
        "{:#}\n",
        json!({"status": answer.status.as_u16(), "body": shown})
    );
    let file = reviews().join(format!("{name}.answer.json"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        shown == expected,
        "{}: expected\n{expected}\nfound\n{shown}",
        file.display()
    );
    assert_eq!(answer.headers["content-type"], "application/json");
    answer
}

#[tokio::test]
async fn a_deployments_pod_is_filled_in_and_its_token_taken_out() {
    check("create-deployment-pod").await;
}

#[tokio::test]
async fn a_pod_that_lacks_nothing_gets_no_patch() {
    let answer = check("create-complete-pod").await;
    assert_eq!(answer.patch(), None);
}

#[tokio::test]
async fn new_ephemeral_containers_are_filled_in_and_nothing_else_is() {
    check("update-ephemeral-containers").await;
}

#[tokio::test]
async fn a_mirror_pod_is_left_alone() {
    check("create-mirror-pod").await;
}

#[tokio::test]
async fn an_audit_policy_warns_and_the_baseline_fills() {
    check("create-dry-run-root-pod").await;
}

#[tokio::test]
async fn whatever_else_happens_to_a_pod_is_allowed_as_it_is() {
    for name in ["update-pod", "delete-pod", "connect-exec"] {
        let answer = check(name).await;
        let sent: Value = serde_json::from_slice(&recorded(name)).unwrap();
        assert_eq!(
            answer.json(),
            json!({
                "kind": "AdmissionReview",
                "apiVersion": "admission.k8s.io/v1",
                "response": {"uid": sent["request"]["uid"], "allowed": true}
            }),
            "{name}"
        );
    }
}

#[tokio::test]
async fn fields_that_nobody_knows_yet_survive() {
    let answer = check("create-future-fields").await;
    let sent: Value = serde_json::from_slice(&recorded("create-future-fields")).unwrap();
    let before = &sent["request"]["object"];
    let mut after = before.clone();
    json_patch::patch(&mut after, &answer.patch().unwrap()).unwrap();
    assert_ne!(before, &after);
    assert_kept("", &without_token(before), &without_token(&after));
}

/// A pod without what the API server injected for its token, which is taken out again.
fn without_token(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let keep = |item: &Value| {
        !item["name"]
            .as_str()
            .unwrap_or_default()
            .starts_with("kube-api-access-")
    };
    let lists = [
        "/spec/volumes",
        "/spec/containers/0/volumeMounts",
        "/spec/containers/1/volumeMounts",
        "/spec/initContainers/0/volumeMounts",
    ];
    for list in lists {
        if let Some(Value::Array(items)) = pod.pointer_mut(list) {
            items.retain(keep);
        }
    }
    pod
}

/// Whatever was there is still there, with the same value; lists may have grown at their end.
fn assert_kept(path: &str, before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                let path = format!("{path}/{key}");
                assert_kept(
                    &path,
                    value,
                    after.get(key).unwrap_or_else(|| panic!("{path} is gone")),
                );
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            assert!(before.len() <= after.len(), "{path} has become shorter");
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                assert_kept(&format!("{path}/{i}"), before, after);
            }
        }
        _ => assert_eq!(before, after, "{path}"),
    }
}

#[tokio::test]
async fn what_is_sent_twice_is_answered_alike_and_the_second_pass_adds_nothing() {
    let service = Service::new();
    let first = service.post(recorded("create-deployment-pod")).await;
    assert_eq!(
        first.body,
        service.post(recorded("create-deployment-pod")).await.body
    );

    let mut review: Value = serde_json::from_slice(&recorded("create-deployment-pod")).unwrap();
    json_patch::patch(&mut review["request"]["object"], &first.patch().unwrap()).unwrap();
    let second = service.post(as_sent(&review)).await;
    assert_eq!(second.status, StatusCode::OK);
    assert_eq!(second.patch(), None);
}

#[tokio::test]
async fn the_namespace_is_the_requests_and_not_the_objects() {
    let service = Service::new();
    for object_namespace in [json!(null), json!(""), json!("staging")] {
        let mut review: Value = serde_json::from_slice(&recorded("create-deployment-pod")).unwrap();
        review["request"]["object"]["metadata"]["namespace"] = object_namespace.clone();
        let answer = service.post(as_sent(&review)).await;
        let filled = &answer.json()["response"]["auditAnnotations"]["filled"];
        assert!(
            filled.as_str().unwrap().contains("shop/hardened@3"),
            "{object_namespace}: {filled}"
        );
    }
}

#[tokio::test]
async fn escapes_in_what_is_repeated_are_escaped_again() {
    let mut review: Value = serde_json::from_slice(&recorded("create-deployment-pod")).unwrap();
    review["request"]["uid"] = json!("a\"b\\c\u{7}é");
    let answer = Service::new().post(as_sent(&review)).await;
    assert_eq!(answer.json()["response"]["uid"], "a\"b\\c\u{7}é");
    assert!(answer.is_patched());
}

#[tokio::test]
async fn what_json_allows_is_taken() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = String::from_utf8(recorded("create-deployment-pod")).unwrap();
    let cases = [
        (
            "a made-up field 100,000 levels deep in the pod",
            text.replacen(r#""spec":{"#, &format!(r#""spec":{{"x":{deep},"#), 1),
        ),
        (
            "one beside the object",
            text.replacen(r#""request":{"#, &format!(r#""request":{{"x":{deep},"#), 1),
        ),
        (
            "a number beyond every type",
            text.replacen(r#""spec":{"#, r#""spec":{"x":-1e99999,"#, 1),
        ),
        ("white space throughout", format!("\r\n\t {text}\n\n")),
        (
            "names written with escapes",
            text.replacen(r#""uid""#, r#""\u0075id""#, 1),
        ),
        (
            "a large pod",
            text.replacen(
                r#""name":"DATABASE_URL""#,
                &format!(r#""x":"{}""#, "x".repeat(6 << 20)),
                1,
            ),
        ),
        ("many containers", {
            let one = r#"{"name":"log-shipper","image":"registry"#;
            let more: String = (0..500)
                .map(|i| format!(r#"{{"name":"c{i}","image":"x"}},"#))
                .collect();
            text.replacen(one, &format!("{more}{one}"), 1)
        }),
    ];
    let service = Service::new();
    for (name, body) in cases {
        assert_ne!(body, text, "{name}");
        let answer = service.post(body).await;
        assert!(answer.is_patched(), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn every_spelling_of_the_media_type_is_taken() {
    let service = Service::new();
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON ;x=y",
    ] {
        let mut request = crate::support::post(http_body_util::Full::from(recorded(
            "create-deployment-pod",
        )));
        request
            .headers_mut()
            .insert("content-type", content_type.parse().unwrap());
        request
            .headers_mut()
            .insert("content-encoding", "identity".parse().unwrap());
        assert!(service.send(request).await.is_patched(), "{content_type}");
    }
}

#[tokio::test]
async fn answers_are_counted_by_what_they_did() {
    let service = Service::new();
    for name in [
        "create-deployment-pod",
        "create-complete-pod",
        "delete-pod",
        "create-dry-run-root-pod",
    ] {
        assert_eq!(service.post(recorded(name)).await.status, StatusCode::OK);
    }
    service.post("{}").await;
    for (series, value) in [
        ("podhardening_reviews_total{outcome=\"patched\"}", 2.0),
        ("podhardening_reviews_total{outcome=\"unchanged\"}", 1.0),
        (
            "podhardening_reviews_total{outcome=\"not-applicable\"}",
            1.0,
        ),
        ("podhardening_reviews_total{outcome=\"refused\"}", 1.0),
        ("podhardening_reviews_total{outcome=\"failed\"}", 0.0),
        ("podhardening_errors_total{kind=\"review\"}", 1.0),
        ("podhardening_fills_total{field=\"capabilities.drop\"}", 4.0),
        ("podhardening_withheld_total{guard=\"runs-as-root\"}", 2.0),
        (
            "podhardening_audited_fills_total{field=\"readOnlyRootFilesystem\"}",
            1.0,
        ),
        ("podhardening_review_duration_seconds_count", 5.0),
        ("podhardening_reviews_in_flight", 0.0),
    ] {
        assert_eq!(service.metric(series), value, "{series}");
    }
}
