//! The report that `test --junit` writes, as a CI server reads it.

use std::fs;

use assert_cmd::Command;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cmd");

#[test]
fn the_junit_report_has_every_case_and_what_failed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.xml");
    let output = Command::cargo_bin("kubectl-harden")
        .unwrap()
        .current_dir(FOLDER)
        .args(["test", "unit.yaml", "--junit"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = quick_junit::Report::deserialize_from_str(&fs::read_to_string(file).unwrap());
    let report = report.unwrap();
    assert_eq!((report.tests, report.failures, report.errors), (3, 1, 0));
    let mut cases = Vec::new();
    for suite in &report.test_suites {
        for case in &suite.test_cases {
            let description = match &case.status {
                quick_junit::TestCaseStatus::Success { .. } => None,
                quick_junit::TestCaseStatus::NonSuccess { description, .. } => {
                    Some(description.as_ref().unwrap().to_string())
                }
                skipped @ quick_junit::TestCaseStatus::Skipped { .. } => panic!("{skipped:?}"),
            };
            cases.push((suite.name.to_string(), case.name.to_string(), description));
        }
    }
    let failed: Vec<_> = cases.iter().filter(|case| case.2.is_some()).collect();
    let [(suite, name, Some(diff))] = failed.as_slice() else {
        panic!("{failed:?}");
    };
    assert_eq!(suite, "unit.yaml, document 3: wrong");
    assert_eq!(name, "nothing is as it is thought to be");
    assert!(
        diff.contains("\n-spec.hostNetwork: absent\n+spec.hostNetwork: true"),
        "{diff}"
    );
    assert!(!diff.contains('\u{1b}'), "{diff:?}");
}
