//! A secret that pods carry wherever they may carry one: it goes nowhere that this program writes to.

use base64::Engine as _;
use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions};

use super::{put_policy, review, until_stored};
use crate::support::api::{Api, bare_namespace};
use crate::support::controller::{Controller, REGISTRATION, free_addresses};
use crate::support::crds::install;
use crate::support::told::AUDIT_NEW_PODS;

/// In small letters, so that it can stand in every kind of name.
const CANARY: &str = "correct-horse-battery-staple";
const NAMESPACE: &str = "canary";

/// A pod that has the secret in all that its author writes, but for its name.
fn pod(name: &str) -> Value {
    let secret = |prefix: &str| format!("{prefix}{CANARY}");
    let container = |name: &str| {
        json!({
            "name": name, "image": secret("registry.example/"), "workingDir": secret("/"),
            "command": [secret("--")], "args": [secret("--password=")],
            "env": [{"name": "PASSWORD", "value": CANARY}],
            // A guard has something to hold back here.
            "securityContext": {"runAsUser": 0},
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "labels": {"note": CANARY, CANARY: ""},
            "annotations": {"example.com/note": CANARY, secret("example.com/"): ""},
        },
        "spec": {"containers": [container("app")], "initContainers": [container("first")]},
    })
}

/// Requests that end with an error, and its status.
fn bad_requests() -> Vec<(u16, Vec<u8>)> {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut review = review(NAMESPACE, pod("bad"));
        change(&mut review["request"]["object"]);
        review.to_string().into_bytes()
    };
    let mut broken_off = with(&|_| {});
    let secret = broken_off
        .windows(CANARY.len())
        .rposition(|window| window == CANARY.as_bytes());
    broken_off.truncate(secret.unwrap() + CANARY.len() - 1);
    vec![
        (400, CANARY.into()),
        (400, broken_off),
        (400, with(&|pod| *pod = json!(CANARY))),
        (400, with(&|pod| pod["spec"]["containers"] = json!(CANARY))),
        (400, with(&|pod| pod["spec"]["hostUsers"] = json!(CANARY))),
        (
            400,
            with(&|pod| pod["metadata"]["annotations"] = json!([CANARY])),
        ),
        (400, pod("no-review").to_string().into_bytes()),
        // A namespace that nobody has seen.
        (500, review("nowhere", pod("bad")).to_string().into_bytes()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pods_keep_to_themselves_is_nowhere_that_this_writes_to() {
    let control_plane = ControlPlane::start(ControlPlaneOptions {
        controller_manager: false,
        audit_policy: Some(AUDIT_NEW_PODS.to_owned()),
        ..ControlPlaneOptions::default()
    });
    let control_plane = control_plane.await.unwrap();
    let api = Api::of(&control_plane);
    install(&api).await;
    bare_namespace(&api, NAMESPACE, &json!({})).await;
    let strict = json!({"profile": "Hardened"});
    put_policy(&api, Some(NAMESPACE), "strict", &strict).await;
    let tried = json!({"mode": "Audit", "pod": {"securityContext": {"fsGroup": 5}}});
    put_policy(&api, Some(NAMESPACE), "tried", &tried).await;

    for format in ["json", "text"] {
        let more = [
            format!("--log-format={format}"),
            "--log-level=trace".to_owned(),
        ];
        let controller =
            Controller::start_at(&control_plane, format, free_addresses(), &more).await;
        until_stored(&api, NAMESPACE, "the webhook is asked", |stored| {
            stored["metadata"]["annotations"][hardening_engine::FILLED].is_string()
        })
        .await;
        let mut told = reviews(&api, format).await;
        told.extend(errors(&api).await);
        for page in ["/metrics", "/readyz", "/livez"] {
            told.push(controller.get(page).await.unwrap().1);
        }
        let log = controller.log_text();
        // It says something, of reviews and of errors, so its silence about the rest means something.
        for said in ["reviewed", "the pod cannot be read", "unseen"] {
            assert!(log.contains(said), "{said}: {log}");
        }
        let is_json = log
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()));
        assert_eq!(is_json, format == "json", "{log}");
        told.push(log);
        controller.terminate().await;
        for text in told {
            assert!(!text.contains(CANARY), "{format}: {text}");
        }
    }

    let audit = std::fs::read_to_string(control_plane.audit_log_path().unwrap()).unwrap();
    assert!(audit.contains("pods.podhardening.dev/withheld"), "{audit}");
    assert!(!audit.contains(CANARY), "{audit}");
    for path in ["/api/v1/events", "/apis/events.k8s.io/v1/events"] {
        let events = api.get(path).await.unwrap();
        assert!(!events.to_string().contains(CANARY), "{events:#}");
    }
    control_plane.stop().await.unwrap();
}

/// What is written on a pod that is created, and told to who creates it.
async fn reviews(api: &Api, name: &str) -> Vec<String> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let answer = api.send("POST", &path, Some(&pod(name))).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(!answer.warnings.is_empty(), "{answer:?}");
    let annotations = answer.body["metadata"]["annotations"].as_object().unwrap();
    let ours = annotations
        .iter()
        .filter(|(name, _)| name.starts_with("podhardening.dev/"));
    let ours: Vec<String> = ours
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    assert_eq!(ours.len(), 2, "{ours:?}");
    [ours, answer.warnings].concat()
}

/// What is answered to requests that end with an error.
async fn errors(api: &Api) -> Vec<String> {
    let registration = api.get(REGISTRATION).await.unwrap();
    let client = &registration["webhooks"][0]["clientConfig"];
    let ca = base64::engine::general_purpose::STANDARD
        .decode(client["caBundle"].as_str().unwrap())
        .unwrap();
    let url = client["url"].as_str().unwrap();
    let webhook = Api::at(url.strip_suffix("/mutate").unwrap(), &ca).await;
    let json = [("content-type", "application/json")];
    let mut told = Vec::new();
    for (status, body) in bad_requests() {
        let answer = webhook.request_bytes("POST", "/mutate", &json, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        told.push(answer.body.to_string());
    }
    // And in what is not the body.
    let header = [("content-type", CANARY)];
    let body = review(NAMESPACE, pod("bad")).to_string().into_bytes();
    let path = format!("/{CANARY}?{CANARY}={CANARY}");
    for (path, status) in [("/mutate", 415), (path.as_str(), 404)] {
        let answer = webhook
            .request_bytes("POST", path, &header, body.clone())
            .await;
        assert_eq!(answer.status, status, "{answer:?}");
        told.push(answer.body.to_string());
    }
    told
}
