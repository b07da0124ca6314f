//! The documentation: links lead somewhere, and what its pages show is what the programs print.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::{Client, Config};
use serde_json::Value;

use crate::support::{expect_file, files_below, none_wrong, program, root, text};

/// Every page of documentation.
fn pages() -> Vec<String> {
    let mut pages = files_below("");
    pages.retain(|file| file.ends_with(".md"));
    assert!(pages.len() > 5, "{pages:?}");
    pages
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let folder = Path::new(&page).parent().unwrap();
        for link in links(&text(&page)) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            if path.contains("://") {
                continue;
            }
            let target = match path {
                "" => page.clone(),
                path => folder.join(path).to_str().unwrap().to_owned(),
            };
            if !root().join(&target).exists() {
                wrong.push(format!("{page}: there is no {link}"));
            } else if !anchor.is_empty() && !anchors(&text(&target)).contains(&anchor.to_owned()) {
                wrong.push(format!("{page}: there is no heading for {link}"));
            }
        }
    }
    none_wrong(&wrong);
}

/// What stands in `[text](here)`.
fn links(page: &str) -> Vec<String> {
    let targets = page.split("](").skip(1);
    targets
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
        .collect()
}

/// The anchors of a page's headings, as GitHub and others make them.
pub(crate) fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    headings
        .map(|heading| {
            heading
                .trim_start_matches('#')
                .trim()
                .chars()
                .filter(kept)
                .collect::<String>()
        })
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect()
}

#[test]
fn the_readme_has_one_command_to_show_it_and_one_to_prove_it() {
    let readme = text("README.md");
    for command in ["make demo", "make test"] {
        assert!(
            readme.contains(command),
            "README.md does not name {command:?}"
        );
    }
}

/// What a page that people write calls by name is in the pages that are generated.
#[test]
fn every_flag_and_metric_that_is_named_is_there() {
    let (commands, metrics) = (
        text("docs/reference/commands.md"),
        text("docs/reference/metrics.md"),
    );
    let mut wrong = Vec::new();
    for page in [
        "README.md",
        "docs/concepts.md",
        "docs/migration.md",
        "docs/operations.md",
    ] {
        for word in text(page).split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_') {
            let is_flag = word.starts_with("--") && !word.trim_start_matches('-').is_empty();
            let known = match word {
                // Flags of kubectl, Helm, curl, cargo and kube-apiserver.
                "--admission-control-config-file" | "--as" | "--raw" => true,
                "--data" | "--header" | "--insecure" => true,
                "--create-namespace" | "--filename" | "--namespace" | "--set" | "--wait" => true,
                "--kustomize" | "--list" | "--take-ownership" => true,
                "--all-namespaces" | "--for" => true,
                "--features" | "--package" | "--release" => true,
                "--dry-run" | "--image" | "--overwrite" | "--server-side" => true,
                _ if is_flag => {
                    commands.contains(&format!("{word} <"))
                        || commands.contains(&format!("{word} [<"))
                        || commands.lines().any(|line| line.trim() == word)
                }
                _ if word.starts_with("podhardening_") => {
                    metrics.contains(&format!("`{word}`")) || word.ends_with("_bucket")
                }
                _ => true,
            };
            if !known {
                wrong.push(format!("{page}: {word}"));
            }
        }
    }
    none_wrong(&wrong);
}

/// Blocks of YAML are read as manifests, and their policies obey the schema.
#[test]
fn every_manifest_that_is_shown_is_valid() {
    let mut manifests = 0;
    for page in pages() {
        let page_text = text(&page);
        for (index, block) in page_text.split("```yaml\n").skip(1).enumerate() {
            let yaml = block.split("```").next().unwrap();
            let name = format!("{page}, block {}", index + 1);
            let read = hardening_manifests::parse(&name, yaml.as_bytes());
            let read = read.unwrap_or_else(|error| panic!("{name}: {error}"));
            let (_, problems) = hardening_manifests::policy_set(&read, "default");
            none_wrong(&problems.iter().map(ToString::to_string).collect::<Vec<_>>());
            let kinds =
                hardening_manifests::objects(&read).filter(|object| !object.kind.is_empty());
            manifests += kinds.count();
        }
    }
    assert!(manifests >= 3, "only {manifests} manifests are shown");
}

// === what the programs print ===

/// Runs what stands behind `$ ` in blocks of kind `console`, and holds the lines below to what is printed.
#[test]
fn what_the_pages_show_is_what_the_programs_print() {
    let mut commands = 0;
    for page in pages() {
        let shown = text(&page);
        let mut made = String::new();
        let mut lines = shown.lines().peekable();
        while let Some(line) = lines.next() {
            made.push_str(line);
            made.push('\n');
            let Some(command) = line.strip_prefix("$ ").filter(|_| in_console(&made)) else {
                continue;
            };
            commands += 1;
            let mut expected = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("$ ") && *line != "```") {
                expected.push(line);
            }
            let printed = run(command);
            let actual: Vec<&str> = printed.lines().collect();
            let result = if matches(&expected, &actual) {
                expected
            } else {
                actual
            };
            made.extend(result.iter().flat_map(|line| [line, "\n"]));
        }
        expect_file(&page, &made);
    }
    assert!(commands >= 3, "only {commands} commands are shown");
}

/// Whether a text ends within a block of kind `console`.
fn in_console(text: &str) -> bool {
    let fences: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("```"))
        .collect();
    fences.len() % 2 == 1 && fences.last() == Some(&"```console")
}

/// What a command line prints, on both streams as in a terminal.
fn run(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let (name, arguments) = match words.as_slice() {
        ["kubectl", "harden", arguments @ ..] => ("kubectl-harden", arguments),
        [name @ "hardening-controller", arguments @ ..] => (*name, arguments),
        _ => {
            panic!("{command}: only the product's own programs are run; make it a block of kind sh")
        }
    };
    let output = Command::new(program(name))
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        .env("KUBECONFIG", "/dev/null")
        .output()
        .unwrap();
    String::from_utf8([output.stderr, output.stdout].concat()).unwrap()
}

/// Whether lines are as expected, where `...` stands for any lines, and `[..]` for anything in a line.
fn matches(expected: &[&str], actual: &[&str]) -> bool {
    match expected {
        [] => actual.is_empty(),
        ["...", rest @ ..] => (0..=actual.len()).any(|skipped| matches(rest, &actual[skipped..])),
        [first, rest @ ..] => actual
            .split_first()
            .is_some_and(|(line, others)| line_matches(first, line) && matches(rest, others)),
    }
}

fn line_matches(expected: &str, actual: &str) -> bool {
    match expected.split_once("[..]") {
        None => expected == actual,
        Some((before, after)) => actual.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| &rest[at..])
                .chain([""])
                .any(|rest| line_matches(after, rest))
        }),
    }
}

#[test]
fn dots_stand_for_what_is_left_out() {
    for (expected, actual, is_match) in [
        ("a\nb", "a\nb", true),
        ("a\nb", "a\nb\nc", false),
        ("a\n...", "a\nb\nc", true),
        ("...\nc", "a\nb\nc", true),
        ("a\n...\nc", "a\nc", true),
        ("a\n...\nc", "a\nb", false),
        ("a[..]c", "abc", true),
        ("a[..]c", "abd", false),
        ("[..]", "", true),
    ] {
        let lines = |text: &'static str| text.lines().collect::<Vec<_>>();
        let (wanted, given) = (
            lines(expected),
            if actual.is_empty() {
                vec![""]
            } else {
                lines(actual)
            },
        );
        assert_eq!(
            matches(&wanted, &given),
            is_match,
            "{expected:?} against {actual:?}"
        );
    }
}

// === serve and curl ===

/// The try-out of the README: its `serve` command, on other ports, answers what its `curl` command sends.
#[tokio::test]
async fn the_try_out_with_curl_answers_with_a_patch() {
    // A command goes on on the next line after a backslash.
    let readme = text("README.md").replace("\\\n", " ");
    let line = |start: &str| {
        let line = readme.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("README.md has no command {start}"))
    };
    let serve = line("hardening-controller serve ");
    let review = line("curl ").split("--data @").nth(1).unwrap();

    let [webhook, metrics] = free_ports();
    let arguments = serve
        .split_whitespace()
        .skip_while(|word| *word != "serve")
        .map(|word| {
            word.replace("127.0.0.1:9443", &format!("127.0.0.1:{webhook}"))
                .replace("127.0.0.1:8080", &format!("127.0.0.1:{metrics}"))
        });
    let server = Server(
        Command::new(program("hardening-controller"))
            .args(arguments)
            .current_dir(root())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );

    let mut config = Config::new(format!("https://127.0.0.1:{webhook}").parse().unwrap());
    config.accept_invalid_certs = true; // the curl command says --insecure
    let client = Client::try_from(config).unwrap();
    let body = fs::read(root().join(review)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let answer = loop {
        let request = http::Request::post("/mutate").header("content-type", "application/json");
        match client
            .request::<Value>(request.body(body.clone()).unwrap())
            .await
        {
            Ok(answer) => break answer,
            Err(error) => assert!(Instant::now() < deadline, "no answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    drop(server);

    let response = &answer["response"];
    assert_eq!(response["allowed"], true, "{answer}");
    let patch = STANDARD
        .decode(response["patch"].as_str().unwrap())
        .unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let mut pod = review["request"]["object"].clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    assert_eq!(
        pod["spec"]["securityContext"]["runAsNonRoot"], true,
        "{pod}"
    );
}

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Whatever it answers, the process is this test's own, and is gone after this.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [0, 0].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
