//! `kubectl harden render` as a filter: what comes in unchanged goes out unchanged, whatever it is.

use std::fs;
use std::io::Write as _;
use std::process::{Command as Plain, Output, Stdio};

use assert_cmd::Command;

const POLICY: &str = "\
apiVersion: podhardening.dev/v1alpha1
kind: PodHardeningPolicy
metadata: {name: p}
spec:
  pod: {hostUsers: false}
";

const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: app\n";
const FILLED: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n    podhardening.dev/filled: '{\"default/p@1\":[\"spec.hostUsers\"]}'\nspec:\n  containers:\n  - name: app\n  hostUsers: false\n";

/// Renders standard input.
fn render(input: impl Into<Vec<u8>>, options: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, POLICY).unwrap();
    Command::cargo_bin("kubectl-harden")
        .unwrap()
        .args(["render", "--policies"])
        .arg(&policy)
        .args(options)
        .write_stdin(input)
        .output()
        .unwrap()
}

#[track_caller]
fn check(input: impl Into<Vec<u8>>, expected: &str) {
    let output = render(input, &[]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert!(output.status.success());
}

#[test]
fn what_is_no_workload_goes_through_byte_for_byte() {
    let all_sorts = "\
# on top
%YAML 1.1
---   # first
kind:   ConfigMap
data: {on: \"on\", y: 'y', n: null, t: ~, e: 1e3, h: 0x1F, o: 0644, huge: 123456789012345678901234567890, ünï: 😀}
text: |+
  trailing   \n  \ttab and colon: # no comment


--- # empty

---
# only a comment
---
a: &x {k: 1}
b: *x
b: {<<: *x}
\"c\":
- 'it''s'   # a comment

...
";
    for text in [
        "",
        "\n",
        "# nothing\n",
        "---\n",
        "---\n---\n",
        "null\n",
        "a: 1",
        "{}",
        all_sorts,
    ] {
        let text = if text == "{}" { "- {}" } else { text };
        check(text, text);
        check(text.replace('\n', "\r\n"), &text.replace('\n', "\r\n"));
    }
}

#[test]
fn a_workload_changes_and_its_neighbours_do_not() {
    check(POD, FILLED);
    check(POD.replace('\n', "\r\n"), &FILLED.replace('\n', "\r\n"));
    check(
        format!("# a\n---\n{POD}# b\n---\nc: 0644\n"),
        &format!("# a\n---\n{FILLED}# b\n---\nc: 0644\n"),
    );
    check(
        format!("a: 1\n---\n{}", POD.trim_end()),
        &format!("a: 1\n---\n{}", FILLED.trim_end()),
    );
}

#[test]
fn a_long_stream_keeps_its_order() {
    let document = |pod: &str, i: usize| match i % 3 {
        0 => pod.replace("name: a\n", &format!("name: a{i}\n")),
        _ => format!("# {i}\nkind: ConfigMap\ndata: {{i: '{i}', ö: \"\\u00e4\"}}\n"),
    };
    let stream = |pod: &str| {
        (0..50)
            .map(|i| document(pod, i))
            .collect::<Vec<_>>()
            .join("---\n")
    };
    check(stream(POD), &stream(FILLED));
}

#[test]
fn a_byte_order_mark_and_utf_16_are_read_and_not_written() {
    check(format!("\u{feff}{POD}"), FILLED);
    let utf16 = format!("\u{feff}{POD}");
    check(
        utf16
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<_>>(),
        FILLED,
    );
}

#[test]
fn a_second_pass_changes_nothing() {
    check(FILLED, FILLED);
}

#[test]
fn a_document_that_cannot_be_edited_is_written_anew_and_says_so() {
    // What the anchor stands for is to be different in the two places.
    let shared = "\
kind: List
apiVersion: v1
items:
- {kind: Pod, apiVersion: v1, metadata: {name: a}, spec: &spec {hostNetwork: false, containers: [{name: app}]}} # one
- {kind: Pod, apiVersion: v1, metadata: {name: b, namespace: elsewhere}, spec: *spec}
";
    let output = render(shared, &[]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "\
kind: List
apiVersion: v1
items:
- kind: Pod
  apiVersion: v1
  metadata:
    name: a
    annotations:
      podhardening.dev/filled: '{\"default/p@1\":[\"spec.hostUsers\"]}'
  spec:
    hostNetwork: false
    containers:
    - name: app
    hostUsers: false
- kind: Pod
  apiVersion: v1
  metadata:
    name: b
    namespace: elsewhere
  spec:
    containers:
    - name: app
    hostNetwork: false
"
    );
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "note: standard input: written anew, without its comments and anchors\n"
    );
}

#[test]
fn json_with_keys_of_any_order_comes_out_as_it_went_in() {
    let json = "{\n  \"kind\": \"ConfigMap\",\n  \"apiVersion\": \"v1\",\n  \"data\": {\n    \"z\": \"0x1F\",\n    \"a\": \"~\"\n  }\n}\n";
    let output = render(json, &["-o", "json"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), json);
    check(
        json,
        "kind: ConfigMap\napiVersion: v1\ndata:\n  z: \"0x1F\"\n  a: \"~\"\n",
    );
}

#[test]
fn files_are_joined_as_documents() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("a.yaml", "a: 1"),
        ("b.json", "{\"b\": 1}{\"c\": 2}"),
        ("c.yml", "---\nd: 1\n"),
        ("d.yaml", "# nothing\n"),
        ("e.yaml", "# e\ne: 1\n"),
        ("not.txt", "["),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let output = render("", &["-f", folder.path().to_str().unwrap()]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "a: 1\n---\nb: 1\n---\nc: 2\n---\nd: 1\n---\n# nothing\n---\n# e\ne: 1\n"
    );
}

#[test]
fn nothing_is_written_where_a_later_document_is_broken() {
    let output = render(format!("{POD}---\na: 1\n---\nb: [\n---\nc: 1\n"), &[]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.starts_with("error: standard input, document 3: not valid YAML: "),
        "{error}"
    );
    assert_eq!((error.lines().count(), output.status.code()), (1, Some(1)));
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, POLICY).unwrap();
    let mut child = Plain::new(assert_cmd::cargo::cargo_bin("kubectl-harden"))
        .args(["render", "--policies"])
        .arg(&policy)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Gone before the first byte can be there: it is printed only when all of the input is read.
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all("a: 1\n---\n".repeat(50_000).as_bytes())
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn colours_are_for_terminals() {
    let diff = |variable: &str| {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.yaml");
        fs::write(&policy, POLICY).unwrap();
        let output = Command::cargo_bin("kubectl-harden")
            .unwrap()
            .args(["render", "-o", "diff", "--policies"])
            .arg(&policy)
            .env(variable, "1")
            .write_stdin(POD)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!diff("UNRELATED").contains('\u{1b}'));
    let coloured = diff("CLICOLOR_FORCE");
    assert!(
        coloured.contains("\u{1b}[32m+  hostUsers: false\u{1b}[0m"),
        "{coloured:?}"
    );
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = Command::cargo_bin("kubectl-harden")
            .unwrap()
            .args(["completions", shell])
            .output()
            .unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        for word in ["kubectl-harden", "render", "explain", "lint", "policies"] {
            assert!(script.contains(word), "{shell} {word}");
        }
        assert!(output.status.success());
    }
}

#[test]
fn the_version_is_the_packages() {
    let output = Command::cargo_bin("kubectl-harden")
        .unwrap()
        .arg("--version")
        .output()
        .unwrap();
    let version = format!("kubectl-harden {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), version);
}

#[test]
fn every_command_gets_its_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("share/man1");
    let run = |arguments: &[&str]| {
        let output = Command::cargo_bin("kubectl-harden")
            .unwrap()
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&["man", folder.to_str().unwrap()]), "");
    let help = run(&["--help"]);
    let commands = help.split("Commands:\n").nth(1).unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let commands = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands: Vec<&str> = commands.filter(|command| !command.is_empty()).collect();
    assert!(commands.contains(&"render"), "{commands:?}");
    for command in commands {
        let page = fs::read_to_string(folder.join(format!("kubectl-harden-{command}.1"))).unwrap();
        assert!(page.contains(".TH"), "{page}");
        // The flags of the command, as roff writes them.
        for flag in run(&[command, "--help"]).split_whitespace() {
            if let Some(flag) = flag
                .strip_prefix("--")
                .filter(|flag| flag.chars().all(|c| c.is_ascii_lowercase()))
            {
                assert!(
                    page.contains(&format!("\\-\\-{flag}")),
                    "{command} --{flag}"
                );
            }
        }
    }
    let page = fs::read_to_string(folder.join("kubectl-harden.1")).unwrap();
    assert!(page.contains("render"), "{page}");
}
