//! The series of the API server that alerts are made of: that they are there, under these names and with these
//! labels, when what they tell of happens.

use std::sync::Arc;

use hardening_engine::{Pod, PolicySet, UnknownNamespaces, Unseen};
use hardening_webhook::{Decide, decision::Decision};
use serde_json::{Value, json};

use crate::support::api::{Api, Refusal, bare_namespace, until};
use crate::support::webhook::{Asked, RunningWebhook};

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// Registers a webhook at which nobody listens, for the pods of one namespace.
async fn register_nobody(api: &Api, name: &str, failure_policy: &str) {
    bare_namespace(api, name, &json!({})).await;
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{
            "name": format!("pods.{name}.podhardening.dev"),
            // The port of discard, below those that are handed out.
            "clientConfig": {"url": "https://127.0.0.1:9/mutate"},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            "failurePolicy": failure_policy, "timeoutSeconds": 3, "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }],
    });
    api.post(CONFIGURATIONS, &configuration).await.unwrap();
}

async fn create(api: &Api, namespace: &str) -> Result<Value, Refusal> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "a-"},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app"}]},
    });
    api.post(&format!("/api/v1/namespaces/{namespace}/pods"), &pod)
        .await
}

/// The value of the API server's series that has all these labels; 0 where there is none.
async fn value(api: &Api, series: &str, labels: &[String]) -> f64 {
    let page = api.get("/metrics").await.unwrap();
    let page = page.as_str().unwrap();
    let of_series = page.lines().filter(|line| {
        line.strip_prefix(series)
            .is_some_and(|rest| rest.starts_with('{'))
            && labels.iter().all(|label| line.contains(label.as_str()))
    });
    of_series
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// Answers with a patch that cannot be applied.
#[derive(Debug)]
struct Broken;

impl Decide for Broken {
    fn decide(&self, _: &PolicySet, _: &str, _: &Pod<'_>) -> Result<Decision, Unseen> {
        let patch = json!([{"op": "add", "path": "/spec/nowhere/to/be/found", "value": 1}]);
        Ok(Decision {
            patch: patch.to_string().into_bytes(),
            ..Decision::default()
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_counts_what_the_alerts_ask_it_about() {
    let api = Api::admin().await;
    let webhook = |name: &str| format!("name=\"pods.{name}.podhardening.dev\"");

    // Pods slip through.
    let ignored = "alerts-ignored";
    register_nobody(&api, ignored, "Ignore").await;
    until("the API server fails open", async || {
        create(&api, ignored).await.unwrap();
        let series = "apiserver_admission_webhook_fail_open_count";
        (value(&api, series, &[webhook(ignored)]).await > 0.0).then_some(())
    })
    .await;

    // Pods are kept out.
    let kept_out = "alerts-kept-out";
    register_nobody(&api, kept_out, "Fail").await;
    let refusal = until("the API server fails closed", async || {
        create(&api, kept_out).await.err()
    })
    .await;
    assert!(
        refusal.message.contains("failed calling webhook"),
        "{refusal}"
    );
    let rejections = "apiserver_admission_webhook_rejection_count";
    let error = |kind: &str| format!("error_type=\"{kind}\"");
    let calling = [webhook(kept_out), error("calling_webhook_error")];
    assert!(value(&api, rejections, &calling).await > 0.0);

    // An answer cannot be used: no failure policy helps.
    let broken = "alerts-broken";
    bare_namespace(&api, broken, &json!({"webhook": broken})).await;
    let nothing = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
    let (asked, decide) = (Asked::ForNamespaces, Arc::new(Broken));
    let running =
        RunningWebhook::start_deciding(&api, broken, asked, "Never", nothing, decide).await;
    until("the API server cannot apply the patch", async || {
        create(&api, broken).await.err()
    })
    .await;
    running.stop(&api).await;
    let internal = [webhook(broken), error("apiserver_internal_error")];
    assert!(value(&api, rejections, &internal).await > 0.0);

    // What is asked, and how long it takes.
    for series in [
        "apiserver_admission_webhook_request_total",
        "apiserver_admission_webhook_admission_duration_seconds_bucket",
    ] {
        assert!(
            value(&api, series, &[webhook(broken)]).await > 0.0,
            "{series}"
        );
    }
    let created = [
        r#"resource="pods""#,
        r#"subresource="""#,
        r#"verb="POST""#,
        r#"code="201""#,
    ];
    let created = created.map(str::to_owned);
    assert!(value(&api, "apiserver_request_total", &created).await > 0.0);

    for name in [ignored, kept_out] {
        api.delete(&format!("{CONFIGURATIONS}/{name}")).await;
    }
}
