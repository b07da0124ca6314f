//! The program as its users run it: what it prints for which command, and how it ends.
//!
//! The cases stand in `tests/cmd/*.txt`, beside the files that they use: a line `$ kubectl harden ...`, what
//! that prints on standard output (`| `) and on standard error (`! `), and its exit code (`= `) where it
//! fails. Lines that begin with `#` are comments. `SNAPSHOTS=overwrite` writes anew what is expected.

use std::fmt::Write as _;
use std::fs;

use assert_cmd::Command;
use snapbox::Data;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cmd");

#[test]
fn commands_print_what_they_should() {
    let mut cases = 0;
    for file in fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if file.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let mut actual = String::new();
        for line in fs::read_to_string(&file).unwrap().lines() {
            if let Some(command) = line.strip_prefix("$ kubectl harden ") {
                cases += 1;
                actual += &format!("{line}\n{}", transcript(command));
            } else if line.is_empty() || line.starts_with('#') {
                actual += &format!("{line}\n");
            }
        }
        snapbox::Assert::new()
            .action_env("SNAPSHOTS")
            .eq(actual, Data::read_from(&file, None).raw());
    }
    assert!(cases > 30, "{cases}");
}

/// What a command prints, line by line.
fn transcript(command: &str) -> String {
    let output = Command::cargo_bin("kubectl-harden")
        .unwrap()
        .current_dir(FOLDER)
        .args(command.split(' '))
        .output()
        .unwrap();
    let mut lines = String::new();
    for (sign, text) in [('!', output.stderr), ('|', output.stdout)] {
        let text = String::from_utf8(text).unwrap();
        for line in text.lines() {
            let space = if line.is_empty() { "" } else { " " };
            writeln!(lines, "{sign}{space}{line}").unwrap();
        }
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "{command}: {text:?}"
        );
    }
    match output.status.code() {
        Some(0) => {}
        code => writeln!(lines, "= {}", code.unwrap()).unwrap(),
    }
    lines
}
