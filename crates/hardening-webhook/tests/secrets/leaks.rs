//! Not into a log line at any level, a metric, an audit annotation, or an error.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{PROTOCOLS, PanicsFor, Setup, create_review, within};

const SECRET: &str = "correct-horse-battery-staple";

/// A review whose pod has the secret wherever a pod may keep one.
fn review() -> Value {
    let mut review = create_review();
    let pod = &mut review["request"]["object"];
    pod["metadata"]["annotations"]["example.com/note"] = json!(SECRET);
    pod["metadata"]["annotations"][SECRET] = json!("");
    pod["metadata"]["labels"]["note"] = json!(SECRET);
    for container in pod["spec"]["containers"].as_array_mut().unwrap() {
        container["env"] = json!([{"name": "PASSWORD", "value": SECRET}]);
        container["args"] = json!([format!("--password={SECRET}")]);
        container["command"] = json!([SECRET]);
        container["image"] = json!(format!("registry.example.com/{SECRET}"));
    }
    review
}

fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut review = review();
    change(&mut review);
    review.to_string().into_bytes()
}

/// A body that ends in the middle of the secret.
fn broken_off() -> Vec<u8> {
    let mut body = changed(|_| {});
    let secret = body
        .windows(SECRET.len())
        .rposition(|window| window == SECRET.as_bytes());
    body.truncate(secret.unwrap() + SECRET.len() - 1);
    body
}

#[tokio::test]
async fn what_a_pod_keeps_to_itself_stays_there() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    hardening_webhook::panics::report_by_place();

    let bodies: Vec<Vec<u8>> = vec![
        changed(|_| {}),
        // Values of the wrong type, which a parser would show.
        changed(|review| review["request"]["object"]["spec"]["containers"] = json!(SECRET)),
        changed(|review| review["request"]["object"]["metadata"]["annotations"] = json!(SECRET)),
        changed(|review| review["request"]["object"]["spec"]["hostUsers"] = json!(SECRET)),
        changed(|review| review["request"]["object"] = json!(SECRET)),
        changed(|review| review["request"]["dryRun"] = json!(SECRET)),
        broken_off(),
        // A pod in place of a review.
        changed(|review| *review = review["request"]["object"].take()),
        // A defect, while the pod is looked at.
        changed(|review| {
            review["request"]["object"]["metadata"]["labels"]["unlucky"] = json!(SECRET);
        }),
    ];
    let server = Setup {
        decide: Arc::new(PanicsFor("unlucky")),
        ..Setup::new()
    }
    .start()
    .await;
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol).await;
        for (i, body) in bodies.iter().enumerate() {
            let answer = within(client.post(body.clone())).await.unwrap();
            assert_eq!(answer.is_patched(), i == 0, "{i}: {answer:?}");
            let shown = format!(
                "{:?} {} {:?}",
                answer.headers,
                String::from_utf8_lossy(&answer.body),
                answer.is_patched().then(|| answer.patch())
            );
            assert!(!shown.contains(SECRET), "{shown}");
        }
    }
    let metrics = server.page("/metrics").await;
    assert!(!String::from_utf8_lossy(&metrics.body).contains(SECRET));
    server.end().await;

    let log = log.text();
    assert!(
        log.contains("reviewed") && log.contains(r#"namespace="shop""#),
        "{log}"
    );
    for said in ["the pod cannot be read", "the program panicked"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    let leaks: Vec<&str> = log.lines().filter(|line| line.contains(SECRET)).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
