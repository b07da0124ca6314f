//! What one client, or all of them, can make the server do at most; and what a defect costs.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::channel::mpsc;
use futures::{StreamExt as _, poll};
use hardening_webhook::{Engine, Limits};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body, Bytes, Frame};
use hyper::{Request, StatusCode, Version};
use serde_json::json;
use tokio::time::Instant;

use crate::support::{PanicsFor, Service, as_sent, create_review, post, recorded};

/// A body that arrives when the test sends it.
fn sent_later() -> (
    mpsc::UnboundedSender<Bytes>,
    impl Body<Data = Bytes, Error = std::io::Error>,
) {
    let (sender, pieces) = mpsc::unbounded();
    (
        sender,
        StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))),
    )
}

#[tokio::test]
async fn reviews_beyond_the_cap_are_sent_away_and_told_when_to_come_back() {
    let limits = Limits {
        in_flight: 2,
        ..Limits::default()
    };
    let service = Service::with(limits, Arc::new(Engine));
    let ((first, one), (second, two)) = (sent_later(), sent_later());
    let (mut one, mut two) = (pin!(service.send(post(one))), pin!(service.send(post(two))));
    assert!(poll!(&mut one).is_pending() && poll!(&mut two).is_pending());
    assert_eq!(service.metric("podhardening_reviews_in_flight"), 2.0);

    let refused = service.post(recorded("create-deployment-pod")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.json()["reason"], "ServiceUnavailable");
    // Its body was read, so the connection can be used again.
    assert!(!refused.headers.contains_key("connection"));
    assert_eq!(
        service.metric("podhardening_errors_total{kind=\"overload\"}"),
        1.0
    );
    assert_eq!(
        service.metric("podhardening_reviews_total{outcome=\"failed\"}"),
        1.0
    );

    for (sender, answer) in [(first, one), (second, two)] {
        sender
            .unbounded_send(recorded("create-deployment-pod").into())
            .unwrap();
        drop(sender);
        assert!(answer.await.is_patched());
    }
    assert!(
        service
            .post(recorded("create-deployment-pod"))
            .await
            .is_patched()
    );
}

/// A body may be as large as what those beside it leave: large ones are sent away before they take all.
#[tokio::test]
async fn bodies_beyond_what_memory_is_set_aside_for_are_sent_away() {
    let review = recorded("create-deployment-pod");
    let limits = Limits {
        buffered: 40 * review.len(),
        ..Limits::default()
    };
    let service = Service::with(limits, Arc::new(Engine));
    let (sender, body) = sent_later();
    let mut held = pin!(service.send(post(body)));
    // It does not announce its length, so it counts as four.
    let half = vec![b' '; 5 * review.len()];
    sender.unbounded_send(half.clone().into()).unwrap();
    assert!(poll!(&mut held).is_pending());

    // Of what is left, half is for one.
    let announced = Full::from(vec![b' '; 11 * review.len()]);
    let refused = service.send(post(announced)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(service.post(review.clone()).await.is_patched());
    // It may not grow on either.
    sender.unbounded_send(Bytes::from_static(b" ")).unwrap();
    drop(sender);
    assert_eq!(held.await.status, StatusCode::SERVICE_UNAVAILABLE);

    // What was held is given back.
    for _ in 0..10 {
        assert_eq!(
            service.post(half.clone()).await.status,
            StatusCode::BAD_REQUEST
        );
        assert!(service.post(review.clone()).await.is_patched());
    }
}

#[tokio::test]
async fn a_body_in_many_pieces_is_one_body() {
    let service = Service::new();
    let review = recorded("create-deployment-pod");
    for size in [1, 7, 1000, review.len() - 1, review.len()] {
        let (sender, body) = sent_later();
        for piece in review.chunks(size) {
            sender
                .unbounded_send(Bytes::copy_from_slice(piece))
                .unwrap();
        }
        drop(sender);
        assert!(service.send(post(body)).await.is_patched(), "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_slow_is_given_up() {
    let service = Service::new();
    let (sender, body) = sent_later();
    sender.unbounded_send(Bytes::from_static(b"{")).unwrap();
    let started = Instant::now();
    let answer = service.send(post(body)).await;
    assert_eq!(started.elapsed(), Duration::from_millis(2500));
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(
        answer.json()["message"],
        "the body did not arrive within 2500 ms"
    );
    assert_eq!(answer.headers["connection"], "close");
    assert_eq!(
        service.metric("podhardening_errors_total{kind=\"deadline\"}"),
        1.0
    );
    drop(sender);
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_before_it_sends() {
    let service = Service::new();
    let (sender, body) = sent_later();
    let mut request = post(body);
    request
        .headers_mut()
        .insert("expect", "100-continue".parse().unwrap());
    request
        .headers_mut()
        .insert("content-type", "text/plain".parse().unwrap());
    let answer = service.send(request).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(answer.headers["connection"], "close");
    drop(sender);
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_read_to_its_end_but_not_for_ever() {
    let service = Service::new();
    for (megabytes, close) in [(10, false), (100, true)] {
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let pieces = futures::stream::iter(0..megabytes).map(move |_| {
            counted.fetch_add(1 << 20, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b' '; 1 << 20])))
        });
        let answer = service.send(post(StreamBody::new(pieces))).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(
            answer.headers.contains_key("connection"),
            close,
            "{megabytes} MiB"
        );
        assert!(read.load(Ordering::Relaxed) <= 24 << 20, "{megabytes} MiB");
    }
}

#[tokio::test]
async fn a_panic_costs_one_review() {
    let service = Service::with(Limits::default(), Arc::new(PanicsFor("unlucky")));
    let mut unlucky = create_review();
    unlucky["request"]["object"]["metadata"]["labels"]["unlucky"] = json!("");
    let lucky = recorded("create-deployment-pod");
    let answers = futures::future::join_all((0..100).map(|i| {
        let body = if i % 10 == 3 {
            as_sent(&unlucky).into_bytes()
        } else {
            lucky.clone()
        };
        service.post(body)
    }));
    for (i, answer) in answers.await.into_iter().enumerate() {
        if i % 10 == 3 {
            assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(
                answer.json()["details"]["uid"],
                create_review()["request"]["uid"]
            );
            assert_eq!(answer.json()["reason"], "InternalError");
        } else {
            assert!(answer.is_patched(), "{i}: {answer:?}");
        }
    }
    assert_eq!(
        service.metric("podhardening_errors_total{kind=\"panic\"}"),
        10.0
    );
    assert_eq!(service.metric("podhardening_reviews_in_flight"), 0.0);
}

#[tokio::test]
async fn a_panic_outside_the_decision_costs_one_review_too() {
    let service = Service::new();
    let panics = futures::stream::once(async { panic!("a defect, for this test") });
    let body = StreamBody::new(panics.map(|()| Ok::<_, std::io::Error>(Frame::data(Bytes::new()))));
    let answer = service.send(post(body)).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.headers["connection"], "close");
    assert_eq!(service.metric("podhardening_reviews_in_flight"), 0.0);
    assert!(
        service
            .post(recorded("create-deployment-pod"))
            .await
            .is_patched()
    );
}

#[tokio::test]
async fn while_draining_every_answer_asks_the_client_to_go_elsewhere() {
    let service = Service::new();
    let requests = || {
        let good = || Full::from(recorded("create-deployment-pod")).boxed_unsync();
        let mut http2 = post(good());
        *http2.version_mut() = Version::HTTP_2;
        let mut http2_refused: Request<_> = post(Full::from("{}").boxed_unsync());
        *http2_refused.version_mut() = Version::HTTP_2;
        [
            (post(good()), true),
            (post(Full::from("{}").boxed_unsync()), true),
            // HTTP/2 forbids the header.
            (http2, false),
            (http2_refused, false),
        ]
    };
    for (request, _) in requests() {
        assert!(
            !service
                .send(request)
                .await
                .headers
                .contains_key("connection")
        );
    }
    service.router.drain();
    for (request, closes) in requests() {
        let answer = service.send(request).await;
        let connection = answer
            .headers
            .get("connection")
            .map(|value| value.to_str().unwrap());
        assert_eq!(connection, closes.then_some("close"));
    }
}
