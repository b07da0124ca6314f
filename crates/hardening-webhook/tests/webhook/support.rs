//! What the tests share: policies, a webhook without a socket, and one with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hardening_engine::{Pod, Policy, PolicySet, UnknownNamespaces, Unseen};
use hardening_webhook::decision::Decision;
use hardening_webhook::{
    BoundWebhook, Callers, Certificates, Decide, Engine, Handler, Limits, Metrics, Policies,
    Readiness, Router, ServeError, Shutdown, Webhook,
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::registry::Registry;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The namespace `shop` has a Hardened policy of its own, `staging` one in Audit mode; every namespace has a
/// Restricted baseline.
pub(crate) fn policies() -> PolicySet {
    let mut policies = PolicySet::new(UnknownNamespaces::NotYetSeen);
    let namespaced = [
        json!({"metadata": {"name": "hardened", "namespace": "shop", "generation": 3}, "spec": {"profile": "Hardened"}}),
        json!({"metadata": {"name": "try", "namespace": "staging", "generation": 1},
               "spec": {"mode": "Audit", "profile": "Hardened"}}),
    ];
    for mut object in namespaced {
        object["apiVersion"] = json!("podhardening.dev/v1alpha1");
        object["kind"] = json!("PodHardeningPolicy");
        let object = serde_json::from_value(object).unwrap();
        policies.insert_policy(Policy::namespaced(&object).unwrap());
    }
    let baseline = json!({
        "apiVersion": "podhardening.dev/v1alpha1",
        "kind": "ClusterPodHardeningPolicy",
        "metadata": {"name": "baseline", "generation": 7},
        "spec": {"profile": "Restricted"}
    });
    policies.insert_policy(Policy::cluster(&serde_json::from_value(baseline).unwrap()).unwrap());
    for namespace in ["shop", "staging"] {
        add_namespace(&mut policies, namespace);
    }
    policies
}

pub(crate) fn add_namespace(policies: &mut PolicySet, name: &str) {
    policies.insert_namespace(name, &BTreeMap::new());
    policies.insert_service_account(name, "default", None);
}

/// A recorded review.
pub(crate) fn recorded(name: &str) -> Vec<u8> {
    std::fs::read(reviews().join(format!("{name}.json"))).unwrap()
}

pub(crate) fn reviews() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/webhook/reviews")
}

pub(crate) fn create_review() -> Value {
    serde_json::from_slice(&recorded("create-deployment-pod")).unwrap()
}

/// The text of a review, with what stands around the pod in the order in which an API server writes it, and what that does
/// not have at the end.
pub(crate) fn as_sent(review: &Value) -> String {
    const ORDER: [&str; 18] = [
        "group",
        "version",
        "uid",
        "kind",
        "apiVersion",
        "request",
        "resource",
        "subResource",
        "requestKind",
        "requestResource",
        "requestSubResource",
        "name",
        "namespace",
        "operation",
        "userInfo",
        "object",
        "oldObject",
        "dryRun",
    ];
    let Value::Object(members) = review else {
        return review.to_string();
    };
    let mut members: Vec<_> = members.iter().collect();
    let place = |name: &str| ORDER.iter().position(|other| *other == name);
    members.sort_by_key(|(name, _)| place(name).unwrap_or(ORDER.len()));
    let members = members.iter().map(|(name, value)| {
        // An object that a cluster has is written as it comes.
        let value = match name.as_str() {
            "object" | "oldObject" => value.to_string(),
            _ => as_sent(value),
        };
        format!("{}:{value}", json!(name))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// A decision that goes wrong for pods that have a label, and is the engine's for all others.
#[derive(Debug)]
pub(crate) struct PanicsFor(pub(crate) &'static str);

impl Decide for PanicsFor {
    fn decide(
        &self,
        policies: &PolicySet,
        namespace: &str,
        pod: &Pod<'_>,
    ) -> Result<Decision, Unseen> {
        // A message that quotes the pod, as those of string functions do.
        assert_eq!(pod.label(self.0), None, "a defect, for this test");
        Engine.decide(policies, namespace, pod)
    }
}

// === without a socket ===

/// A webhook without a socket.
pub(crate) struct Service {
    pub(crate) router: Router,
    pub(crate) registry: Arc<Registry>,
    pub(crate) policies: watch::Sender<Arc<PolicySet>>,
}

impl Service {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default(), Arc::new(Engine))
    }

    pub(crate) fn with(limits: Limits, decide: Arc<dyn Decide>) -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, "0.0.0");
        let (sender, receiver) = watch::channel(Arc::new(policies()));
        let handler = Handler::new(
            Policies::new(receiver),
            decide,
            metrics.clone(),
            limits.unseen,
        );
        let router = Router::new(handler, limits, metrics, None);
        Self {
            router,
            registry: Arc::new(registry),
            policies: sender,
        }
    }

    pub(crate) async fn post(&self, body: impl Into<Bytes>) -> Answer {
        self.send(post(Full::new(body.into()))).await
    }

    pub(crate) async fn send<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Answer::of(self.router.respond(request).await).await
    }

    /// The value of a series of `/metrics`.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        metric(&page, series)
    }
}

#[track_caller]
pub(crate) fn metric(page: &str, series: &str) -> f64 {
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no series {series}:\n{page}"))
        .parse()
        .unwrap()
}

pub(crate) fn post<B>(body: B) -> Request<B> {
    Request::post("/mutate?timeout=3s")
        .header("content-type", "application/json")
        .body(body)
        .unwrap()
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn of<B: Body<Data = Bytes>>(response: Response<B>) -> Self
    where
        B::Error: std::fmt::Debug,
    {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn is_patched(&self) -> bool {
        self.status == StatusCode::OK && self.json()["response"]["patchType"] == "JSONPatch"
    }

    /// The patch, decoded.
    pub(crate) fn patch(&self) -> Option<json_patch::Patch> {
        use base64::Engine as _;
        let json = self.json();
        let patch = json["response"]["patch"].as_str()?;
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(patch)
            .unwrap();
        Some(serde_json::from_slice(&decoded).unwrap())
    }
}

// === with a socket ===

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) metrics_address: SocketAddr,
    pub(crate) ca_pem: Option<String>,
    pub(crate) policies: watch::Sender<Arc<PolicySet>>,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: tokio::task::JoinHandle<Result<(), ServeError>>,
}

/// How a server is set up.
pub(crate) struct Setup {
    pub(crate) certificates: Certificates,
    pub(crate) callers: Option<Callers>,
    pub(crate) limits: Limits,
    pub(crate) shutdown: Shutdown,
    pub(crate) decide: Arc<dyn Decide>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self {
            certificates: Certificates::self_signed(&[
                "localhost".to_owned(),
                "127.0.0.1".to_owned(),
            ])
            .unwrap(),
            callers: None,
            limits: Limits::default(),
            shutdown: Shutdown {
                serve_on: Duration::ZERO,
                drain: Duration::from_secs(5),
            },
            decide: Arc::new(Engine),
        }
    }

    pub(crate) fn webhook(self) -> (Webhook, watch::Sender<Arc<PolicySet>>) {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, "0.0.0");
        let (sender, receiver) = watch::channel(Arc::new(policies()));
        let webhook = Webhook {
            policies: receiver,
            decide: self.decide,
            certificates: self.certificates,
            callers: self.callers,
            certificate_interval: Duration::from_millis(20),
            readiness: Readiness::new(),
            metrics,
            registry: Arc::new(registry),
            span: None,
            limits: self.limits,
            shutdown: self.shutdown,
        };
        (webhook, sender)
    }

    pub(crate) async fn start(self) -> Server {
        let (webhook, policies) = self.webhook();
        let readiness = webhook.readiness.clone();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let bound: BoundWebhook = webhook.bind(any, any).await.unwrap();
        let shutdown = CancellationToken::new();
        Server {
            address: bound.address(),
            metrics_address: bound.metrics_address(),
            ca_pem: bound.ca_pem(),
            policies,
            readiness,
            running: tokio::spawn(bound.run(shutdown.clone())),
            shutdown,
        }
    }
}

impl Server {
    pub(crate) async fn connect(&self, protocol: Protocol) -> Client {
        Client::connect(self.address, protocol, self.ca_pem.as_deref().unwrap())
            .await
            .unwrap()
    }

    /// A page of the other port.
    pub(crate) async fn page(&self, path: &str) -> Answer {
        let stream = TcpStream::connect(self.metrics_address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let request = Request::get(path)
            .header("host", "localhost")
            .body(Full::<Bytes>::default())
            .unwrap();
        let connection = tokio::spawn(connection);
        let answer = Answer::of(sender.send_request(request).await.unwrap()).await;
        drop(sender);
        connection.await.unwrap().unwrap();
        answer
    }

    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let page = self.page("/metrics").await;
        metric(std::str::from_utf8(&page.body).unwrap(), series)
    }

    /// Waits for a series to have a value.
    pub(crate) async fn until_metric(&self, series: &str, value: f64) {
        eventually(series, || async { self.metric(series).await == value }).await;
    }

    /// Ends the server, and fails if that takes longer than it may.
    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        within(self.running).await.unwrap().unwrap();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// A client on one connection, as an API server is one.
pub(crate) struct Client {
    sender: Sender,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) connection: tokio::task::JoinHandle<Result<(), hyper::Error>>,
}

enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

/// A certificate to show, and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A TLS connection that trusts one CA.
pub(crate) async fn tls(
    address: SocketAddr,
    protocol: Protocol,
    ca_pem: &str,
) -> std::io::Result<TlsStream> {
    tls_as(address, protocol, ca_pem, None).await
}

/// As [`tls`], showing a certificate.
async fn tls_as(
    address: SocketAddr,
    protocol: Protocol,
    ca_pem: &str,
    shown: Option<&Pair>,
) -> std::io::Result<TlsStream> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(Pair { certificate, key }) => {
            let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            let chain = chain.collect::<Result<_, _>>().unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    let stream = TcpStream::connect(address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
}

impl Client {
    pub(crate) async fn connect(
        address: SocketAddr,
        protocol: Protocol,
        ca_pem: &str,
    ) -> std::io::Result<Self> {
        Self::connect_as(address, protocol, ca_pem, None).await
    }

    pub(crate) async fn connect_as(
        address: SocketAddr,
        protocol: Protocol,
        ca_pem: &str,
        shown: Option<&Pair>,
    ) -> std::io::Result<Self> {
        let stream = tls_as(address, protocol, ca_pem, shown).await?;
        let session = stream.get_ref().1;
        let certificate = session.peer_certificates().unwrap()[0].clone().into_owned();
        let agreed = session.alpn_protocol().map(<[u8]>::to_vec);
        let io = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                assert_eq!(agreed.as_deref(), Some(&b"http/1.1"[..]));
                let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                let connection = tokio::spawn(connection);
                Ok(Self {
                    sender: Sender::Http1(sender),
                    certificate,
                    connection,
                })
            }
            Protocol::Http2 => {
                assert_eq!(agreed.as_deref(), Some(&b"h2"[..]));
                let (sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                        .await
                        .unwrap();
                let connection = tokio::spawn(connection);
                Ok(Self {
                    sender: Sender::Http2(sender),
                    certificate,
                    connection,
                })
            }
        }
    }

    pub(crate) async fn post(&mut self, body: impl Into<Bytes>) -> Result<Answer, hyper::Error> {
        let mut request = post(Full::new(body.into()));
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                request
                    .headers_mut()
                    .insert("host", "localhost".parse().unwrap());
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                *request.uri_mut() = "https://localhost/mutate?timeout=3s".parse().unwrap();
                sender.send_request(request).await?
            }
        };
        Ok(Answer::of(response).await)
    }

    pub(crate) async fn create_pod(&mut self) -> Answer {
        within(self.post(recorded("create-deployment-pod")))
            .await
            .unwrap()
    }
}

// === waiting ===

/// The time that anything may take before a test takes it for stuck.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn within<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("it took too long")
}

/// Waits until a condition holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(DEADLINE, waiting).await.is_err() {
        panic!("{what} did not come about");
    }
}
