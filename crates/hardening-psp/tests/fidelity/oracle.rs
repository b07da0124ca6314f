//! The oracle: PodSecurityPolicy's own code of Kubernetes 1.24, as a program that answers JSON lines.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::thread;

use serde::Deserialize;
use serde_json::Value;

/// What the oracle says about a policy and a pod.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(crate) struct Answer {
    /// What is wrong with the request.
    pub(crate) bad: Option<String>,
    /// Why the API server would not have stored the policy.
    pub(crate) refused: Vec<Fault>,
    /// Why admission skipped it.
    pub(crate) unusable: Option<String>,
    pub(crate) mutated: Value,
    pub(crate) errors: Vec<Fault>,
    pub(crate) stored: Value,
    /// Why the API server's own validation would have refused the mutated pod.
    pub(crate) invalid: Vec<Fault>,
    pub(crate) model: Value,
}

/// An error without its text.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) field: String,
}

impl Answer {
    /// Whether PodSecurityPolicy admitted the pod.
    pub(crate) fn admits(&self) -> bool {
        self.unusable.is_none() && self.errors.is_empty()
    }
}

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(build);

/// Builds the oracle: minutes the first time, about a second once Go has it in its cache.
fn build() -> PathBuf {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/psp-oracle");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("psp-oracle");
    eprintln!("building PodSecurityPolicy's own code; the first time takes about three minutes");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .env("CGO_ENABLED", "0")
        .current_dir(&module)
        .output()
        .unwrap_or_else(|error| {
            panic!("the oracle is Kubernetes' own code and needs Go 1.26 or newer (https://go.dev/dl/): run go: {error}")
        });
    assert!(
        built.status.success(),
        "go build in tests/psp-oracle failed:\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    program
}

/// Asks the oracle, and hands every answer to `judge` together with what the request was made of, in order.
pub(crate) fn ask<T: Send>(
    requests: impl Iterator<Item = (T, String)> + Send,
    mut judge: impl FnMut(T, Answer),
) {
    let mut child = Command::new(&*PROGRAM)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the oracle");
    let mut stdin = BufWriter::new(child.stdin.take().unwrap());
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (send, asked) = std::sync::mpsc::sync_channel(256);
    thread::scope(|scope| {
        scope.spawn(move || {
            for (about, line) in requests {
                assert!(!line.contains('\n'));
                // Whichever end fails first ends both; the judge's side tells why.
                if writeln!(stdin, "{line}").is_err() || send.send(about).is_err() {
                    break;
                }
            }
        });
        let mut answers = stdout.lines();
        for about in asked {
            let line = answers
                .next()
                .expect("the oracle ended before it answered")
                .unwrap();
            judge(about, serde_json::from_str(&line).unwrap());
        }
        assert!(answers.next().is_none(), "an answer that nobody asked for");
    });
    assert!(child.wait().unwrap().success());
}

fn check_bad(lines: &[&str], expected: &[Option<&str>]) {
    let requests = lines.iter().map(|line| ((), (*line).to_owned()));
    let mut found = Vec::new();
    ask(requests, |(), answer| found.push(answer.bad));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        match (found, expected) {
            (Some(found), Some(expected)) => {
                assert!(found.starts_with(expected), "{found}: not {expected}");
            }
            (found, expected) => assert!(found.is_none() && expected.is_none(), "{found:?}"),
        }
    }
}

#[test]
fn a_bad_line_is_answered_with_what_is_wrong_and_harms_no_other() {
    const GOOD: &str = r#"{"psp": {"spec": {"runAsUser": {"rule": "RunAsAny"}, "seLinux": {"rule": "RunAsAny"}, "fsGroup": {"rule": "RunAsAny"}, "supplementalGroups": {"rule": "RunAsAny"}}}, "pod": {"spec": {"containers": []}}}"#;
    check_bad(
        &[
            GOOD,
            "nonsense",
            "{}",
            r#"{"psp": {}}"#,
            r#"{"psp": {"spec": {"privileged": "yes"}}, "pod": {}}"#,
            r#"{"psp": {}, "pod": {"spec": {"containerz": []}}}"#,
            r#"{"psp": {}, "pod": []}"#,
            GOOD,
        ],
        &[
            None,
            Some("request: "),
            Some("psp: missing"),
            Some("pod: missing"),
            Some("psp: "),
            Some("pod: "),
            Some("pod: "),
            None,
        ],
    );
}
