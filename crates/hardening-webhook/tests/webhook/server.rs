//! The server on real sockets: both protocols, its limits, and its end.

use std::sync::Arc;
use std::time::Duration;

use hardening_webhook::{Limits, ServeError, Shutdown};
use hyper::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{
    Client, PROTOCOLS, PanicsFor, Protocol, Setup, as_sent, create_review, eventually, recorded,
    tls, within,
};

#[tokio::test]
async fn both_protocols_are_served_and_connections_are_kept() {
    let server = Setup::new().start().await;
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol).await;
        for _ in 0..10 {
            let answer = client.create_pod().await;
            assert!(answer.is_patched(), "{protocol:?}: {answer:?}");
        }
    }
    assert_eq!(
        server
            .metric("podhardening_reviews_total{outcome=\"patched\"}")
            .await,
        20.0
    );
    server.until_metric("podhardening_connections", 0.0).await;
    server.end().await;
}

#[tokio::test]
async fn a_large_review_does_not_stall() {
    let mut review = create_review();
    review["request"]["object"]["metadata"]["annotations"]["large"] = json!("x".repeat(6 << 20));
    let server = Setup::new().start().await;
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol).await;
        let answer = within(client.post(as_sent(&review))).await.unwrap();
        assert!(answer.is_patched(), "{protocol:?}");
        // Too large is said, and not cut off, though the client sends all of it first.
        let answer = within(client.post(vec![b' '; 8 << 20])).await.unwrap();
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{protocol:?}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_panic_leaves_the_connection_as_it_is() {
    let server = Setup {
        decide: Arc::new(PanicsFor("unlucky")),
        ..Setup::new()
    }
    .start()
    .await;
    let mut unlucky = create_review();
    unlucky["request"]["object"]["metadata"]["labels"]["unlucky"] = json!("");
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol).await;
        for _ in 0..3 {
            let answer = within(client.post(as_sent(&unlucky))).await.unwrap();
            assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
            assert!(client.create_pod().await.is_patched());
        }
    }
    server.end().await;
}

#[tokio::test]
async fn the_other_port_tells_how_it_is() {
    let server = Setup::new().start().await;
    let policies = server.readiness.condition("policies");
    let ready = || async { server.page("/readyz").await.status == StatusCode::OK };

    eventually("the certificate's condition", || async {
        String::from_utf8_lossy(&server.page("/readyz").await.body).contains("[+]certificate ok")
    })
    .await;
    let page = server.page("/readyz").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        String::from_utf8_lossy(&page.body),
        "[+]serving ok\n[+]certificate ok\n[-]policies failed: not yet\nreadyz check failed\n"
    );
    policies.met();
    assert!(ready().await);
    policies.unmet("no watch for 60 s");
    assert!(!ready().await);
    // Alive it is whatever happens.
    assert_eq!(server.page("/livez").await.status, StatusCode::OK);
    assert_eq!(server.page("/mutate").await.status, StatusCode::NOT_FOUND);

    let metrics = server.page("/metrics").await;
    assert_eq!(
        metrics.headers["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(metrics.body.ends_with(b"# EOF\n"));
    assert_eq!(server.metric("podhardening_policies").await, 3.0);
    assert_eq!(server.metric("podhardening_namespaces").await, 2.0);
    server.end().await;
}

#[tokio::test]
async fn a_change_of_policy_is_in_force_at_once() {
    let server = Setup::new().start().await;
    let mut client = server.connect(Protocol::Http1).await;
    assert!(client.create_pod().await.is_patched());
    server.policies.send_modify(|policies| {
        let policies = Arc::make_mut(policies);
        let keys: Vec<_> = policies
            .policies()
            .map(|policy| policy.key().clone())
            .collect();
        for key in keys {
            policies.remove_policy(&key);
        }
    });
    server.until_metric("podhardening_policies", 0.0).await;
    assert_eq!(client.create_pod().await.patch(), None);
    server.end().await;
}

// === starting ===

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_the_address() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = (taken.local_addr().unwrap(), taken);
    let free = "127.0.0.1:0".parse().unwrap();
    for (listen, metrics, purpose) in [
        (taken.0, free, "reviews"),
        (free, taken.0, "health and metrics"),
    ] {
        let (webhook, _policies) = Setup::new().webhook();
        let error = webhook.bind(listen, metrics).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("listen on {} for {purpose}", taken.0)
        );
        assert!(
            std::error::Error::source(&error)
                .unwrap()
                .to_string()
                .contains("in use")
        );
    }
}

#[tokio::test]
async fn without_updates_of_its_policies_it_does_not_live_on() {
    let server = Setup::new().start().await;
    drop(server.policies);
    let ended = within(server.running).await.unwrap();
    assert!(matches!(ended, Err(ServeError::PoliciesEnded)), "{ended:?}");
}

// === slow and greedy clients ===

fn quick() -> Limits {
    let short = Duration::from_millis(50);
    Limits {
        handshake: short,
        header: short,
        ..Limits::default()
    }
}

/// Reads until the server hangs up.
async fn until_closed(mut stream: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut read = Vec::new();
    // A reset is a way to hang up, too.
    let _ = within(stream.read_to_end(&mut read)).await;
    read
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_cut_off() {
    let server = Setup {
        limits: quick(),
        ..Setup::new()
    }
    .start()
    .await;
    for hello in [&b""[..], &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(hello).await.unwrap();
        assert!(until_closed(stream).await.is_empty());
    }
    assert_eq!(
        server
            .metric("podhardening_connection_errors_total{reason=\"handshake-timeout\"}")
            .await,
        2.0
    );
    server.end().await;
}

#[tokio::test]
async fn what_is_not_tls_is_cut_off() {
    let server = Setup::new().start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"POST /mutate HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    until_closed(stream).await;
    server
        .until_metric(
            "podhardening_connection_errors_total{reason=\"handshake\"}",
            1.0,
        )
        .await;
    server.end().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off_on_a_new_connection_and_on_a_used_one() {
    let server = Setup {
        limits: quick(),
        ..Setup::new()
    }
    .start()
    .await;
    let ca = server.ca_pem.clone().unwrap();
    let whole = b"POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    for before in [&b""[..], whole] {
        let mut stream = tls(server.address, Protocol::Http1, &ca).await.unwrap();
        stream.write_all(before).await.unwrap();
        if !before.is_empty() {
            let mut answer = [0; 12];
            within(stream.read_exact(&mut answer)).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 415");
        }
        stream
            .write_all(b"POST /mutate HTTP/1.1\r\nhost")
            .await
            .unwrap();
        until_closed(stream).await;
    }
    assert_eq!(
        server
            .metric("podhardening_connection_errors_total{reason=\"header-timeout\"}")
            .await,
        2.0
    );
    server.end().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_good_order() {
    let limits = Limits {
        idle: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Setup {
        limits,
        ..Setup::new()
    }
    .start()
    .await;
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol).await;
        assert!(client.create_pod().await.is_patched());
        within(client.connection).await.unwrap().unwrap();
    }
    server.until_metric("podhardening_connections", 0.0).await;
    for reason in ["header-timeout", "broken"] {
        let series = format!("podhardening_connection_errors_total{{reason=\"{reason}\"}}");
        assert_eq!(server.metric(&series).await, 0.0);
    }
    server.end().await;
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_their_turn() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let server = Setup {
        limits,
        ..Setup::new()
    }
    .start()
    .await;
    let ca = server.ca_pem.clone().unwrap();
    let mut first = server.connect(Protocol::Http1).await;
    let mut second = server.connect(Protocol::Http2).await;
    let address = server.address;
    let third = tokio::spawn(async move { Client::connect(address, Protocol::Http1, &ca).await });
    for _ in 0..20 {
        assert!(first.create_pod().await.is_patched());
        assert!(second.create_pod().await.is_patched());
    }
    assert!(!third.is_finished());
    assert_eq!(server.metric("podhardening_connections").await, 2.0);
    drop(first);
    let mut third = within(third).await.unwrap().unwrap();
    assert!(third.create_pod().await.is_patched());
    server.end().await;
}

#[tokio::test]
async fn many_reviews_at_once_on_one_connection_are_all_answered() {
    let server = Setup::new().start().await;
    let stream = tls(
        server.address,
        Protocol::Http2,
        server.ca_pem.as_deref().unwrap(),
    )
    .await
    .unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let answers = futures::future::join_all((0..600).map(|_| {
        let mut sender = sender.clone();
        let mut request = crate::support::post(http_body_util::Full::<hyper::body::Bytes>::from(
            recorded("create-deployment-pod"),
        ));
        *request.uri_mut() = "https://localhost/mutate".parse().unwrap();
        async move {
            sender.ready().await.unwrap();
            crate::support::Answer::of(sender.send_request(request).await.unwrap()).await
        }
    }));
    assert!(
        within(answers)
            .await
            .iter()
            .all(crate::support::Answer::is_patched)
    );
    drop(sender);
    within(connection).await.unwrap().unwrap();
    server.end().await;
}

// === ending ===

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn after_the_signal_it_is_unready_and_serves_on() {
    let server = Setup {
        shutdown: Shutdown {
            serve_on: LONG,
            drain: LONG,
        },
        ..Setup::new()
    }
    .start()
    .await;
    server.readiness.until_ready().await;
    let mut http1 = server.connect(Protocol::Http1).await;
    let mut http2 = server.connect(Protocol::Http2).await;
    assert!(http1.create_pod().await.is_patched());
    assert!(http2.create_pod().await.is_patched());

    server.shutdown.cancel();
    eventually("unreadiness", || async { !server.readiness.is_ready() }).await;
    let page = server.page("/readyz").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8_lossy(&page.body).contains("[-]serving failed: shutting down"));

    // An answer over HTTP/1.1 ends its connection, ...
    let answer = http1.create_pod().await;
    assert!(answer.is_patched());
    assert_eq!(answer.headers["connection"], "close");
    within(http1.connection).await.unwrap().unwrap();
    // ... a connection of HTTP/2 is told to end, ...
    within(http2.connection).await.unwrap().unwrap();
    // ... and those who come anew are served.
    for protocol in PROTOCOLS {
        assert!(
            server
                .connect(protocol)
                .await
                .create_pod()
                .await
                .is_patched()
        );
    }
    assert!(!server.running.is_finished());
    server.running.abort();
}

#[tokio::test]
async fn an_answer_under_way_is_given_before_the_end() {
    let server = Setup::new().start().await;
    let ca = server.ca_pem.clone().unwrap();
    let review = recorded("create-deployment-pod");
    let (begin, rest) = review.split_at(1000);
    let head = format!(
        "POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        review.len()
    );
    let mut stream = tls(server.address, Protocol::Http1, &ca).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(begin).await.unwrap();
    server
        .until_metric("podhardening_reviews_in_flight", 1.0)
        .await;

    server.shutdown.cancel();
    let refused = || async { TcpStream::connect(server.address).await.is_err() };
    eventually("the end of accepting", refused).await;
    assert!(!server.running.is_finished());
    stream.write_all(rest).await.unwrap();
    let answer = String::from_utf8(until_closed(stream).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.ends_with("}}"), "{answer}");
    within(server.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_under_way_over_http2_is_given_before_the_end() {
    let server = Setup::new().start().await;
    let mut client = server.connect(Protocol::Http2).await;
    let mut review = create_review();
    review["request"]["namespace"] = json!("brand-new");
    let answering = tokio::spawn(async move { client.post(as_sent(&review)).await });
    server
        .until_metric("podhardening_reviews_in_flight", 1.0)
        .await;
    server.shutdown.cancel();
    eventually("the end of accepting", || async {
        TcpStream::connect(server.address).await.is_err()
    })
    .await;
    server.policies.send_modify(|policies| {
        crate::support::add_namespace(Arc::make_mut(policies), "brand-new");
    });
    assert!(within(answering).await.unwrap().unwrap().is_patched());
    within(server.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_does_not_end_is_cut_off() {
    let limits = Limits {
        request: LONG,
        ..Limits::default()
    };
    let shutdown = Shutdown {
        serve_on: Duration::ZERO,
        drain: Duration::from_millis(50),
    };
    let server = Setup {
        limits,
        shutdown,
        ..Setup::new()
    }
    .start()
    .await;
    let ca = server.ca_pem.clone().unwrap();
    let mut stream = tls(server.address, Protocol::Http1, &ca).await.unwrap();
    let head = b"POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n";
    stream.write_all(head).await.unwrap();
    server
        .until_metric("podhardening_reviews_in_flight", 1.0)
        .await;
    server.end().await;
    until_closed(stream).await;
}

#[tokio::test]
async fn at_the_end_the_policies_may_go_first() {
    let serve_on = Duration::from_millis(100);
    let shutdown = Shutdown {
        serve_on,
        drain: LONG,
    };
    let server = Setup {
        shutdown,
        ..Setup::new()
    }
    .start()
    .await;
    server.shutdown.cancel();
    drop(server.policies);
    within(server.running).await.unwrap().unwrap();
}
