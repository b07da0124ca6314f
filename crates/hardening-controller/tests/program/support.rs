//! Running the program, and talking to it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// No wait in these tests is longer, on a machine that has much else to do.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The program, with nothing from this process's environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardening-controller"));
    command.env_clear();
    command
}

/// What the program prints until it ends, which it must do by itself.
pub(crate) fn output(command: &mut Command, line: &str) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It prints less than a pipe holds.
    let deadline = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it goes on: {line}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// A program that serves; killed with its scope.
pub(crate) struct Server {
    child: Child,
    log: Receiver<Value>,
    pub(crate) address: SocketAddr,
    pub(crate) metrics_address: SocketAddr,
}

impl Server {
    /// Starts the program on any free ports, and waits until it serves. With `files` it may at first open only
    /// so many.
    pub(crate) fn start(files: Option<usize>, args: &[&str]) -> Self {
        let command = match files {
            None => program(),
            Some(files) => {
                let mut shell = Command::new("sh");
                shell
                    .env_clear()
                    .args(["-c", "ulimit -S -n \"$1\"; shift; exec \"$@\"", "sh"])
                    .arg(files.to_string())
                    .arg(env!("CARGO_BIN_EXE_hardening-controller"));
                shell
            }
        };
        Self::launch(command, args)
    }

    /// As [`Self::start`], with a command that is the program.
    pub(crate) fn launch(mut command: Command, args: &[&str]) -> Self {
        let mut child = command
            .args(args)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--metrics-listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = channel();
        // It ends with the program, whose standard error it reads.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self {
            child,
            log,
            address: unbound,
            metrics_address: unbound,
        };
        let serving = server.until_logged("serving");
        let address = |field: &str| serving[field].as_str().unwrap().parse().unwrap();
        (server.address, server.metrics_address) = (address("address"), address("metrics_address"));
        server
    }

    /// The next log line with this message.
    pub(crate) fn until_logged(&self, message: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        loop {
            match self
                .log
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) if line["message"] == message => return line,
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{message:?} was not logged, but {seen:#?}");
                }
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn terminate(&self) {
        let killed = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(killed.success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the program did not end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The API server's question about a pod of a namespace.
pub(crate) fn review_of(namespace: &str) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "app",
            "namespace": namespace,
            "operation": "CREATE",
            "object": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "app", "namespace": namespace},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            },
        },
    })
}

pub(crate) type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// A connection for HTTP/1.1 that trusts this CA.
pub(crate) async fn tls(address: SocketAddr, ca: &Path) -> std::io::Result<TlsStream> {
    tls_with(&connector(ca, &[]), address).await
}

/// What makes connections that trust this CA, for these protocols by their names in ALPN.
pub(crate) fn connector(ca: &Path, protocols: &[&[u8]]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

pub(crate) async fn tls_with(
    connector: &TlsConnector,
    address: SocketAddr,
) -> std::io::Result<TlsStream> {
    let tcp = TcpStream::connect(address).await?;
    // As every API server does: without it a request waits for the server to acknowledge the handshake.
    tcp.set_nodelay(true)?;
    connector.connect(ServerName::from(address.ip()), tcp).await
}

/// A connection for HTTP/1.1 on which the webhook is asked, again and again.
pub(crate) struct Caller {
    sender: http1::SendRequest<Full<Bytes>>,
    _connection: AbortOnDropHandle<()>,
}

impl Caller {
    pub(crate) async fn connect(address: SocketAddr, ca: &Path) -> Self {
        let io = TokioIo::new(tls(address, ca).await.unwrap());
        let (sender, connection) = http1::handshake(io).await.unwrap();
        let connection = async move {
            // How it ends shows in what is sent on it.
            let _ = connection.await;
        };
        Self {
            sender,
            _connection: AbortOnDropHandle::new(tokio::spawn(connection)),
        }
    }

    /// Asks about a pod of namespace `shop`, and gives the answer's patch.
    pub(crate) async fn review(&mut self) -> Value {
        let review = review_of("shop");
        let request = request(Method::POST, "/mutate").body(review.to_string().into());
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request.unwrap()).await.unwrap();
        let (status, body) = read(response).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        assert_eq!(answer["response"]["allowed"], true);
        answer["response"]["patch"].clone()
    }
}

/// Asks about a pod of namespace `shop`, and gives the answer's patch.
pub(crate) async fn review(address: SocketAddr, ca: &Path) -> Value {
    Caller::connect(address, ca).await.review().await
}

/// Asks the port for probes.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (StatusCode, String) {
    let tcp = TcpStream::connect(address).await.unwrap();
    let request = request(Method::GET, path).body(Full::default());
    send(TokioIo::new(tcp), request.unwrap()).await
}

/// A request that wants for its body.
pub(crate) fn request(method: Method, path: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
}

pub(crate) async fn send<I>(io: I, request: Request<Full<Bytes>>) -> (StatusCode, String)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    let exchange = async move {
        let response = sender.send_request(request).await.unwrap();
        read(response).await
    };
    // The connection carries the exchange, and may end with it.
    tokio::join!(exchange, connection).0
}

async fn read(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
