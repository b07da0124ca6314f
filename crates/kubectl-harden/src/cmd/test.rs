//! `kubectl harden test`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use hardening_manifests::read;
use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use super::read_stdin_once;
use crate::args::TestArgs;
use crate::output::{Report, names, one_line};
use crate::policy_test::{self, Suite};

pub(crate) fn run(args: &TestArgs) -> anyhow::Result<Report> {
    read_stdin_once(&args.files)?;
    let suites = policy_test::run(&read(&args.files)?)?;
    if suites.is_empty() {
        bail!("{}: no PolicyTest in it", names(&args.files));
    }
    let mut report = Report {
        coloured: true,
        ..Report::default()
    };
    let (mut passed, mut failed) = (0, 0);
    for suite in &suites {
        for case in &suite.cases {
            let name = one_line(&format!("{}: {}", suite.name, case.name));
            match &case.failure {
                None => {
                    passed += 1;
                    report.stdout += &format!("ok    {name}\n");
                }
                Some(diff) => {
                    failed += 1;
                    report.stdout += &format!("FAIL  {name}\n{diff}");
                }
            }
        }
    }
    let cases = passed + failed;
    let s = if cases == 1 { "" } else { "s" };
    report.stdout += &format!("{cases} case{s}: {passed} passed, {failed} failed\n");
    report.failed = failed > 0;
    if let Some(file) = &args.junit {
        write_junit(&suites, file)?;
    }
    Ok(report)
}

fn write_junit(suites: &[Suite], file: &Path) -> anyhow::Result<()> {
    let mut junit = Junit::new("kubectl-harden");
    for suite in suites {
        let mut cases = TestSuite::new(suite.name.as_str());
        for case in &suite.cases {
            let status = match &case.failure {
                None => TestCaseStatus::success(),
                Some(diff) => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    status.set_message("the pod is not as expected");
                    // Without the escapes for colour.
                    status.set_description(anstream::adapter::strip_str(diff).to_string());
                    status
                }
            };
            let mut case = TestCase::new(case.name.as_str(), status);
            case.set_classname(suite.name.as_str());
            cases.add_test_case(case);
        }
        junit.add_test_suite(cases);
    }
    let xml = junit.to_string()?;
    fs::write(file, xml).with_context(|| format!("{}: cannot be written", file.display()))
}
