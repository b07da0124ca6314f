//! Who leads, with an API server of one Lease and a clock that the tests move.

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;

/// An API server that keeps one Lease, as far as versions and conflicts go.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    lease: Option<Value>,
    version: u64,
    /// It does not answer at all.
    silent: bool,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                if server.0.lock().unwrap().silent {
                    pending::<()>().await;
                }
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (status, answer) = server.answer(&head.method, &body);
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, body: &[u8]) -> (u16, Value) {
        let mut kept = self.0.lock().unwrap();
        let refused = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "code": code, "reason": reason, "message": reason});
            (code, status)
        };
        let sent = || serde_json::from_slice::<Value>(body).unwrap();
        match (method.as_str(), &kept.lease) {
            ("GET", Some(lease)) => (200, lease.clone()),
            ("GET" | "PUT", None) => refused(404, "NotFound"),
            ("POST", Some(_)) => refused(409, "AlreadyExists"),
            ("PUT", Some(lease))
                if sent()["metadata"]["resourceVersion"]
                    != lease["metadata"]["resourceVersion"] =>
            {
                refused(409, "Conflict")
            }
            _ => {
                let mut lease = sent();
                kept.version += 1;
                lease["metadata"]["resourceVersion"] = kept.version.to_string().into();
                kept.lease = Some(lease.clone());
                (200, lease)
            }
        }
    }

    /// Somebody else, whose clock may be any, writes the lease.
    fn put(&self, spec: &Value) {
        let mut kept = self.0.lock().unwrap();
        kept.version += 1;
        kept.lease = Some(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "manager", "resourceVersion": kept.version.to_string()},
            "spec": spec,
        }));
    }

    fn spec(&self) -> Value {
        self.0.lock().unwrap().lease.as_ref().unwrap()["spec"].clone()
    }

    fn is_silent(&self, silent: bool) {
        self.0.lock().unwrap().silent = silent;
    }
}

/// A process that takes part.
struct Candidate {
    leads: Arc<AtomicBool>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ElectionError>>,
}

/// Says, for as long as it exists, that its process leads.
struct Leading(Arc<AtomicBool>);

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Candidate {
    fn start(server: &Server, host: &str) -> Self {
        let (leads, shutdown) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let election = Election::new(
            server.client(),
            "default",
            "manager",
            host,
            Metrics::default(),
        );
        let says = Arc::clone(&leads);
        let work = move || {
            let says = Arc::clone(&says);
            async move {
                says.store(true, Ordering::SeqCst);
                let _leading = Leading(says);
                pending::<()>().await;
            }
        };
        let task = tokio::spawn(election.run(shutdown.clone(), work));
        Self {
            leads,
            shutdown,
            task,
        }
    }

    fn leads(&self) -> bool {
        self.leads.load(Ordering::SeqCst)
    }

    /// How long it takes until it leads, or no longer does.
    async fn until(&self, leads: bool) -> Duration {
        let started = Instant::now();
        while self.leads() != leads {
            assert!(started.elapsed() < Duration::from_secs(600), "never");
            sleep(Duration::from_millis(10)).await;
        }
        started.elapsed()
    }
}

/// The time that is `seconds` from now, as it stands in a lease.
fn time(seconds: i64) -> Value {
    let now = Timestamp::now().as_second();
    let time = MicroTime(Timestamp::from_second(now + seconds).unwrap());
    serde_json::to_value(time).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_first_to_come_leads_and_the_second_follows_when_it_goes() {
    let server = Server::default();
    let first = Candidate::start(&server, "first");
    first.until(true).await;
    let second = Candidate::start(&server, "second");
    sleep(Duration::from_secs(300)).await;
    assert!(first.leads() && !second.leads());

    first.shutdown.cancel();
    first.task.await.unwrap().unwrap();
    // It was given up, so that nobody waits for it to be abandoned.
    assert!(second.until(true).await < DURATION / 2);
    let holder = server.spec()["holderIdentity"].as_str().unwrap().to_owned();
    assert!(holder.starts_with("second_"), "{holder}");
    assert_eq!(server.spec()["leaseTransitions"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_abandoned_when_it_was_not_seen_to_change_whatever_times_stand_in_it() {
    for skew in [-86_400, 0, 86_400] {
        let server = Server::default();
        server.put(
            &json!({"holderIdentity": "gone", "leaseDurationSeconds": 15, "renewTime": time(skew)}),
        );
        let candidate = Candidate::start(&server, "candidate");
        let waited = candidate.until(true).await;
        let expected = DURATION..DURATION + Duration::from_secs(5);
        assert!(expected.contains(&waited), "{skew}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_renews_keeps_its_lease_whatever_its_clock_says() {
    let server = Server::default();
    let candidate = Candidate::start(&server, "candidate");
    candidate.until(true).await;
    // Another one has it now, and its clock is a day behind.
    for renewal in 0..30 {
        server.put(&json!({"holderIdentity": "slow", "leaseDurationSeconds": 15, "renewTime": time(renewal * 5 - 86_400)}));
        sleep(Duration::from_secs(5)).await;
        assert!(!candidate.leads(), "{renewal}");
    }
}

#[tokio::test(start_paused = true)]
async fn work_ends_before_anybody_else_could_begin_it() {
    let server = Server::default();
    let candidate = Candidate::start(&server, "candidate");
    candidate.until(true).await;
    server.is_silent(true);
    let lasted = candidate.until(false).await;
    assert!(
        lasted <= RENEW_WITHIN && RENEW_WITHIN < DURATION,
        "{lasted:?}"
    );
    // And begins anew when the API server is back.
    server.is_silent(false);
    candidate.until(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_labels_or_deletes_is_kept() {
    let server = Server::default();
    let candidate = Candidate::start(&server, "candidate");
    candidate.until(true).await;
    server.put(&server.spec());
    sleep(Duration::from_secs(30)).await;
    assert!(candidate.leads());
    server.0.lock().unwrap().lease = None;
    sleep(Duration::from_secs(30)).await;
    assert!(candidate.leads());
}

#[tokio::test(start_paused = true)]
async fn work_that_ends_by_itself_ends_the_election() {
    let server = Server::default();
    let election = Election::new(
        server.client(),
        "default",
        "manager",
        "host",
        Metrics::default(),
    );
    let ended = election.run(CancellationToken::new(), || async {}).await;
    assert_eq!(ended, Err(ElectionError::WorkEnded));
    assert!(server.spec().get("holderIdentity").is_none());
}
