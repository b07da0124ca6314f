//! Chromium without a window, told what to do by its DevTools protocol through a pair of pipes: no port is
//! opened, and a browser ends with its value.

use std::env;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Once;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::tell::tell;

/// Within what the browser answers, and what a page promises comes true. No measure: a machine may be slow.
const DEADLINE: Duration = Duration::from_secs(60);

const PROGRAM: &str = "chromium";

/// A browser with one page.
pub(crate) struct Page {
    child: Child,
    to: Option<ChildStdin>,
    from: Receiver<Value>,
    reader: Option<JoinHandle<()>>,
    /// Of the last call.
    id: u64,
    session: String,
    url: String,
    /// What the page wrote to the console, and what broke in it.
    complaints: Vec<String>,
    /// What it asked of the network or of the disk.
    requests: Vec<String>,
    /// What the browser keeps; removed after the browser's end.
    _profile: TempDir,
}

impl Page {
    /// Opens a file in a window of this width. `None` where there is no Chromium: said once. In CI that is a
    /// failure.
    pub(crate) fn open(file: &Path, width: u32) -> Option<Self> {
        let mut page = Self::start()?;
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = page.call("Target.attachToTarget", attach);
        attached["sessionId"]
            .as_str()
            .unwrap()
            .clone_into(&mut page.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        let window =
            json!({"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": false});
        page.call("Emulation.setDeviceMetricsOverride", window);
        page.url = format!("file://{}", file.to_str().unwrap());
        let gone = page.call("Page.navigate", json!({"url": page.url}));
        assert!(gone.get("errorText").is_none(), "{gone}");
        page.until(&format!(
            "location.href === {} && document.readyState === 'complete'",
            json!(page.url)
        ));
        Some(page)
    }

    fn start() -> Option<Self> {
        if Command::new(PROGRAM).arg("--version").output().is_err() {
            return Self::absent();
        }
        let profile = tempfile::tempdir().unwrap();
        // The browser reads its third and writes its fourth file; a shell hands our pipes over as these.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
            ])
            .args([PROGRAM, "--headless=new", "--remote-debugging-pipe"])
            // Tests run as root in containers, where the browser's own sandbox does not start; shared memory
            // is scarce there. It opens nothing but our own files.
            .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-background-networking"])
            .args([
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take();
        let (sender, from) = channel();
        let output = child.stdout.take().unwrap();
        let reader = spawn(move || read(output, &|message| sender.send(message).is_ok()));
        Some(Self {
            child,
            to,
            from,
            reader: Some(reader),
            id: 0,
            session: String::new(),
            url: String::new(),
            complaints: Vec::new(),
            requests: Vec::new(),
            _profile: profile,
        })
    }

    fn absent() -> Option<Self> {
        static SAID: Once = Once::new();
        let line = format!("NO BROWSER TEST RUNS HERE: there is no program {PROGRAM}");
        assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{line}");
        SAID.call_once(|| {
            // Past the test harness, which shows nothing of tests that pass.
            let mut stderr = std::io::stderr();
            writeln!(stderr, "{line}").unwrap();
            tell(&line);
        });
        None
    }

    /// Calls a method of the protocol, and returns its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.id += 1;
        let mut message = json!({"id": self.id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to.as_mut().unwrap().write_all(&text).unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.from.recv_timeout(left);
            let answer = answer.unwrap_or_else(|error| panic!("{method}: no answer: {error}"));
            if answer["id"] == self.id {
                assert!(
                    answer.get("error").is_none(),
                    "{method}: {}",
                    answer["error"]
                );
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Runtime.consoleAPICalled" => self.complaints.push(params["args"].to_string()),
            "Runtime.exceptionThrown" => {
                self.complaints.push(params["exceptionDetails"].to_string());
            }
            "Log.entryAdded" => self.complaints.push(params["entry"].to_string()),
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                self.requests.push(url.to_owned());
            }
            _ => {}
        }
    }

    /// What an expression of JavaScript is in the page.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", params);
        let details = answer.get("exceptionDetails");
        assert!(details.is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    pub(crate) fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.eval(expression) != true {
            assert!(Instant::now() < deadline, "never became true: {expression}");
            // The page's own clock gives it time to go on.
            self.eval("new Promise((done) => setTimeout(done, 10))");
        }
    }

    /// The texts of what a selector finds.
    pub(crate) fn texts(&mut self, selector: &str) -> Vec<String> {
        let found = self.eval(&format!(
            "Array.from(document.querySelectorAll({}), (one) => one.textContent.trim())",
            json!(selector)
        ));
        let found = found.as_array().unwrap().iter();
        found
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    }

    /// Presses and releases a key, as `KeyboardEvent.key` names it.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            " " => (32, " "),
            _ => panic!("what is the code of {key}?"),
        };
        let event = |kind| json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", event("keyDown"));
        let mut up = event("keyUp");
        up["text"] = json!("");
        self.call("Input.dispatchKeyEvent", up);
    }

    /// The page as a picture, down to this height.
    pub(crate) fn picture(&mut self, width: u32, height: u32) -> Vec<u8> {
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let params = json!({"format": "png", "clip": clip, "captureBeyondViewport": true});
        let answer = self.call("Page.captureScreenshot", params);
        let data = answer["data"].as_str().unwrap();
        base64::engine::general_purpose::STANDARD
            .decode(data)
            .unwrap()
    }

    /// What the page complained of, and what it asked for besides itself, line by line.
    pub(crate) fn misdeeds(&mut self) -> String {
        // What happened before this answer has been told before it.
        self.eval("new Promise((done) => setTimeout(done))");
        let mut found = String::new();
        for complaint in &self.complaints {
            writeln!(found, "complains: {complaint}").unwrap();
        }
        for request in self.requests.iter().filter(|request| **request != self.url) {
            writeln!(found, "asks for {request}").unwrap();
        }
        found
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Killed, not asked: it keeps nothing that matters, and its helpers end with its pipes.
        drop(self.to.take());
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
    }
}

/// Hands over each message until there are no more, or nobody wants them.
fn read(output: ChildStdout, sink: &dyn Fn(Value) -> bool) {
    let messages = BufReader::new(output).split(0).map_while(Result::ok);
    for message in messages {
        let Ok(message) = serde_json::from_slice(&message) else {
            return;
        };
        if !sink(message) {
            return;
        }
    }
}
