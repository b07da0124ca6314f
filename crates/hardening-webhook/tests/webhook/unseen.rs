//! A namespace that was just created: it is waited for, and never taken for one without labels.

use std::sync::Arc;
use std::time::Duration;

use hardening_engine::PolicySet;
use hardening_webhook::{Engine, Limits};
use hyper::StatusCode;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{Answer, Service, add_namespace, as_sent, create_review};

fn review() -> String {
    let mut review = create_review();
    review["request"]["namespace"] = json!("brand-new");
    review["request"]["object"]["metadata"]["namespace"] = json!("brand-new");
    as_sent(&review)
}

/// Sends a review of a namespace nobody has seen, lets the time pass, and then changes what is known.
async fn check(
    service: &Service,
    after: Duration,
    change: impl FnOnce(&mut PolicySet),
) -> (Answer, Duration) {
    let started = Instant::now();
    let changing = async {
        tokio::time::sleep(after).await;
        service
            .policies
            .send_modify(|policies| change(Arc::make_mut(policies)));
    };
    let answering = async {
        let answer = service.post(review()).await;
        (answer, started.elapsed())
    };
    tokio::join!(answering, changing).0
}

const SOON: Duration = Duration::from_millis(499);

#[tokio::test(start_paused = true)]
async fn it_is_answered_as_soon_as_it_is_seen() {
    let service = Service::new();
    let (answer, took) = check(&service, SOON, |policies| {
        add_namespace(policies, "brand-new");
    })
    .await;
    assert!(answer.is_patched(), "{answer:?}");
    assert_eq!(took, SOON);
}

#[tokio::test(start_paused = true)]
async fn a_service_account_is_waited_for_too() {
    let service = Service::new();
    let hardened = |policies: &mut PolicySet| {
        let policy = json!({
            "apiVersion": "podhardening.dev/v1alpha1",
            "kind": "PodHardeningPolicy",
            "metadata": {"name": "no-token", "namespace": "brand-new"},
            "spec": {"pod": {"automountServiceAccountToken": false}}
        });
        let policy = serde_json::from_value(policy).unwrap();
        policies.insert_policy(hardening_engine::Policy::namespaced(&policy).unwrap());
        policies.insert_namespace("brand-new", &std::collections::BTreeMap::new());
    };
    service
        .policies
        .send_modify(|policies| hardened(Arc::make_mut(policies)));
    let (answer, took) = check(&service, SOON, |policies| {
        policies.insert_service_account("brand-new", "default", None);
    })
    .await;
    assert!(answer.is_patched(), "{answer:?}");
    assert_eq!(took, SOON);
}

#[tokio::test(start_paused = true)]
async fn it_is_not_waited_for_longer_than_half_a_second() {
    let service = Service::new();
    let late = Duration::from_millis(501);
    let (answer, took) = check(&service, late, |policies| {
        add_namespace(policies, "brand-new");
    })
    .await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(took, Duration::from_millis(500));
    let status = answer.json();
    assert_eq!(status["reason"], "InternalError");
    assert_eq!(status["details"]["uid"], create_review()["request"]["uid"]);
    let message = status["message"].as_str().unwrap();
    assert_eq!(
        message,
        "the namespace is not in the cache yet, after waiting 500 ms for it"
    );
    assert_eq!(
        service.metric("podhardening_errors_total{kind=\"unseen\"}"),
        1.0
    );
    assert_eq!(
        service.metric("podhardening_reviews_total{outcome=\"failed\"}"),
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn changes_of_something_else_do_not_end_the_wait() {
    let service = Service::new();
    let other = |policies: &mut PolicySet| add_namespace(policies, "another");
    let (answer, took) = check(&service, Duration::from_millis(10), other).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(took, Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_with_the_time_for_the_whole_request() {
    let limits = Limits {
        request: Duration::from_millis(200),
        ..Limits::default()
    };
    let service = Service::with(limits, Arc::new(Engine));
    let (answer, took) = check(&service, SOON, |policies| {
        add_namespace(policies, "brand-new");
    })
    .await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(took, Duration::from_millis(200));
}
