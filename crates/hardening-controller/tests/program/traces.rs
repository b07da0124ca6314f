//! With the feature `otel`: what a collector of traces is sent, by a server that speaks OTLP over gRPC as far as it must.

use std::convert::Infallible;
use std::net::SocketAddr;

use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::serving::{ca, in_folder};
use crate::support::{DEADLINE, Server, program, request, review_of, send, tls};

/// Ids of a trace and of a span in it, as the API server sends them (W3C Trace Context), sampled or not.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const UNSAMPLED: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "b7ad6b7169203331";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_review_is_a_span_of_the_trace_that_the_api_server_names() {
    let (collector, mut exports) = collector().await;
    let (folder, mut server) = in_folder(|args| {
        let mut command = program();
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"));
        Server::launch(command, &[args, &["--shutdown-delay", "0s"]].concat())
    });
    let ca = ca(&folder);
    for (trace, flags) in [(UNSAMPLED, "00"), (TRACE, "01")] {
        let stream = tls(server.address, &ca).await.unwrap();
        let mut review = review_of("shop");
        review["request"]["object"]["metadata"]["annotations"] = serde_json::json!({"a": "canary"});
        let request = request(Method::POST, "/mutate")
            .header("traceparent", format!("00-{trace}-{SPAN}-{flags}"))
            .body(review.to_string().into());
        let (status, _) = send(TokioIo::new(stream), request.unwrap()).await;
        assert_eq!(status, StatusCode::OK);
    }
    // Ending sends what has not been sent.
    server.terminate();
    assert!(server.wait().success());

    let export = tokio::time::timeout(DEADLINE, exports.next()).await;
    let (path, message) = export.unwrap().unwrap();
    assert_eq!(
        path,
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    );
    let has = |part: &[u8]| message.windows(part.len()).any(|window| window == part);
    for part in [id(TRACE), id(SPAN)] {
        assert!(has(&part), "{message:?}");
    }
    for text in ["pod-hardening", "review", "reviewed", "micros", "shop"] {
        assert!(has(text.as_bytes()), "{text}: {message:?}");
    }
    assert!(!has(&id(UNSAMPLED)), "the API server does not sample it");
    assert!(!has(b"canary"), "{message:?}");
}

/// An id as it stands in a message.
fn id(hex: &str) -> Vec<u8> {
    let number = u128::from_str_radix(hex, 16).unwrap().to_be_bytes();
    number[16 - hex.len() / 2..].to_vec()
}

/// A collector that takes whatever it is sent; the path and the body of each call.
async fn collector() -> (SocketAddr, UnboundedReceiver<(String, Bytes)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (exports, received) = unbounded();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let exports = exports.clone();
            let service = service_fn(move |request| take(request, exports.clone()));
            let connection = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, received)
}

async fn take(
    request: Request<Incoming>,
    exports: UnboundedSender<(String, Bytes)>,
) -> Result<
    Response<StreamBody<impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>>>>,
    hyper::Error,
> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    exports.unbounded_send((path, body)).unwrap();
    // An empty message, not compressed, and the status that all is well.
    let mut status = HeaderMap::new();
    status.insert("grpc-status", HeaderValue::from_static("0"));
    let answer = [
        Frame::data(Bytes::from_static(&[0; 5])),
        Frame::trailers(status),
    ];
    let mut response = Response::new(StreamBody::new(stream::iter(answer.map(Ok))));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    Ok(response)
}
