//! An API server on loopback that has what the program watches, many times, and sends it events: all made
//! beforehand, so that what is measured is the program.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::stream::{self, BoxStream, StreamExt as _};
use hardening_webhook::Certificates;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::{NAMESPACE, policy};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Resource {
    Policies,
    ClusterPolicies,
    Namespaces,
    ServiceAccounts,
    RuntimeClasses,
}

/// The server; it ends with this value.
pub(super) struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    count: u32,
    /// Each resource's list, by pages.
    pages: HashMap<Resource, Vec<Bytes>>,
    watching: Mutex<Watching>,
}

#[derive(Default)]
struct Watching {
    /// Who watches now.
    open: HashMap<Resource, UnboundedSender<Bytes>>,
    /// How many watches there were.
    begun: usize,
    /// The last version of any object.
    version: u64,
}

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// As many as the program asks for at once.
const PAGE: usize = 500;

// === impl Resource ===

impl Resource {
    pub(super) const ALL: [Self; 5] = [
        Self::Policies,
        Self::ClusterPolicies,
        Self::Namespaces,
        Self::ServiceAccounts,
        Self::RuntimeClasses,
    ];

    fn path(self) -> &'static str {
        match self {
            Self::Policies => "/apis/podhardening.dev/v1alpha1/podhardeningpolicies",
            Self::ClusterPolicies => "/apis/podhardening.dev/v1alpha1/clusterpodhardeningpolicies",
            Self::Namespaces => "/api/v1/namespaces",
            Self::ServiceAccounts => "/api/v1/serviceaccounts",
            Self::RuntimeClasses => "/apis/node.k8s.io/v1/runtimeclasses",
        }
    }

    /// The program's metric of how many it knows.
    pub(super) fn gauge(self) -> &'static str {
        match self {
            Self::Policies | Self::ClusterPolicies => "podhardening_policies",
            Self::Namespaces | Self::ServiceAccounts | Self::RuntimeClasses => {
                "podhardening_namespaces"
            }
        }
    }

    /// The `i`-th object, in some version. The first namespace is the one that is measured in, with the one cluster
    /// policy; every other has a policy of its own.
    fn object(self, i: u32, version: u64) -> Value {
        let namespace = if i == 0 {
            NAMESPACE.to_owned()
        } else {
            format!("team-{i}")
        };
        let version = version.to_string();
        match self {
            Self::Policies => json!({
                "apiVersion": "podhardening.dev/v1alpha1", "kind": "PodHardeningPolicy",
                "metadata": {"name": "own", "namespace": namespace, "resourceVersion": version, "uid": version,
                    "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"profile": "Restricted", "pod": {"securityContext": {"runAsUser": 20_000 + i}}},
            }),
            Self::ClusterPolicies => policy(),
            Self::Namespaces => json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": namespace, "resourceVersion": version, "uid": version,
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                    "labels": {"kubernetes.io/metadata.name": namespace, "team": version}},
            }),
            Self::ServiceAccounts => json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": namespace, "resourceVersion": version, "uid": version,
                    "creationTimestamp": "2026-01-01T00:00:00Z"},
            }),
            Self::RuntimeClasses => json!({}),
        }
    }

    fn pages(self, count: u32) -> Vec<Bytes> {
        let indices: Vec<u32> = match self {
            Self::Policies => (1..count).collect(),
            Self::ClusterPolicies => vec![0],
            Self::Namespaces | Self::ServiceAccounts => (0..count).collect(),
            Self::RuntimeClasses => Vec::new(),
        };
        let pages = indices.len().div_ceil(PAGE).max(1);
        let page = |n: usize| {
            let items: Vec<Value> = indices
                .iter()
                .skip(n * PAGE)
                .take(PAGE)
                .map(|i| self.object(*i, 1))
                .collect();
            let next = (n + 1 < pages).then(|| (n + 1).to_string());
            let list = json!({"kind": "List", "apiVersion": "v1",
                "metadata": {"resourceVersion": "1", "continue": next}, "items": items});
            Bytes::from(list.to_string())
        };
        (0..pages).map(page).collect()
    }
}

// === impl ApiServer ===

impl ApiServer {
    /// One with `count` policies and as many namespaces.
    pub(super) async fn start(count: u32) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("find a free port")?;
        let address = listener.local_addr().context("find a free port")?;
        let pages = Resource::ALL.map(|resource| (resource, resource.pages(count)));
        let shared = Arc::new(Shared {
            count,
            pages: pages.into(),
            watching: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            accepting: accepting.abort_handle(),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How a client gets here. A CA is given, as in a cluster: or it would read all that this machine trusts.
    pub(super) fn kubeconfig(&self) -> Result<String> {
        let ca = Certificates::self_signed(&[]).context("make a CA")?;
        let ca = BASE64.encode(ca.ca_pem().unwrap_or_default());
        let server = format!("http://{}", self.address);
        let cluster = json!({"name": "bench", "cluster": {"server": server, "certificate-authority-data": ca}});
        let context = json!({"name": "bench", "context": {"cluster": "bench", "user": "bench"}});
        let user = json!({"name": "bench", "user": {}});
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "users": [user],
            "current-context": "bench",
        });
        Ok(kubeconfig.to_string())
    }

    /// The paths of all lists, page by page.
    pub(super) fn pages(&self) -> Vec<String> {
        let pages = self.shared.pages.iter().flat_map(|(resource, pages)| {
            (0..pages.len()).map(|n| format!("{}?continue={n}", resource.path()))
        });
        pages.collect()
    }

    /// How many watches there were.
    pub(super) fn watches(&self) -> usize {
        self.shared.watching().begun
    }

    /// Sends word that the `i`-th object, or one of those that there are, has changed.
    pub(super) fn change(&self, resource: Resource, i: u32) {
        let own = u32::from(resource == Resource::Policies);
        let among = self.shared.count.saturating_sub(own).max(1);
        self.send(resource, "MODIFIED", own + i % among);
    }

    /// Sends word of an object that was not there.
    pub(super) fn add(&self, resource: Resource) {
        self.send(resource, "ADDED", self.shared.count + 1);
    }

    fn send(&self, resource: Resource, event: &str, i: u32) {
        let mut watching = self.shared.watching();
        watching.version += 1;
        let object = resource.object(i, watching.version + 1);
        let line = format!("{}\n", json!({"type": event, "object": object}));
        if let Some(watcher) = watching.open.get(&resource) {
            // Whoever is gone asks again, and is told by the list.
            let _ = watcher.unbounded_send(line.into());
        }
    }

    /// Tells all who watch that they are too far behind, so that they list anew.
    pub(super) fn expire(&self) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "too old", "reason": "Expired", "code": 410});
        let line = Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status})));
        for (_, watcher) in self.shared.watching().open.drain() {
            let _ = watcher.unbounded_send(line.clone());
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

// === answering ===

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| {
            let answer = shared.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(connection);
    }
}

impl Shared {
    /// A panic elsewhere leaves nothing half-done here.
    fn watching(&self) -> MutexGuard<'_, Watching> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let (path, query) = (
            request.uri().path(),
            request.uri().query().unwrap_or_default(),
        );
        if path == "/version" {
            let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "",
                "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
            return whole(StatusCode::OK, version.to_string().into());
        }
        if path.starts_with("/apis/admissionregistration.k8s.io/") {
            // The program registers itself. Nobody is going to call it but the bench.
            let registered = json!({"apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration", "metadata": {"name": "pod-hardening-self-registered", "annotations": {"podhardening.dev/registered-by": "bench"}}});
            return whole(StatusCode::OK, registered.to_string().into());
        }
        let Some(resource) = Resource::ALL
            .into_iter()
            .find(|resource| resource.path() == path)
        else {
            return whole(
                StatusCode::NOT_FOUND,
                Bytes::from_static(b"404 page not found"),
            );
        };
        let of_query = |key: &str| {
            let mut pairs = query.split('&');
            pairs.find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
        };
        if of_query("watch") == Some("true") {
            let (sender, events) = unbounded();
            let mut watching = self.watching();
            watching.open.insert(resource, sender);
            watching.begun += 1;
            return answer(StatusCode::OK, events.boxed());
        }
        let page: usize = of_query("continue")
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        let pages = self.pages.get(&resource);
        let page = pages.and_then(|pages| pages.get(page)).cloned();
        whole(StatusCode::OK, page.unwrap_or_default())
    }
}

fn whole(status: StatusCode, body: Bytes) -> Response<Body> {
    answer(status, stream::iter([body]).boxed())
}

fn answer(status: StatusCode, parts: BoxStream<'static, Bytes>) -> Response<Body> {
    let frames = parts.map(|part| Ok(Frame::data(part)));
    let mut response = Response::new(StreamBody::new(frames.boxed()));
    *response.status_mut() = status;
    response
}
