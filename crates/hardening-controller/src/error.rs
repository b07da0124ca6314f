//! How an error reaches people: one line on standard error, and an exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

/// The program was asked for something that it does not do: exit code 2, as for an unknown flag.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Tells what went wrong.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // `hardening-controller crds | head` is no failure.
    let is_broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_broken_pipe) {
        return ExitCode::SUCCESS;
    }
    // If standard error is gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "error: {}", one_line(error));
    match error.is::<Usage>() {
        true => ExitCode::from(2),
        false => ExitCode::FAILURE,
    }
}

/// The error and its causes in one line. Some libraries repeat the cause in their own text: it is said once.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn causes_follow_each_other_in_one_line_and_none_is_said_twice() {
        let cases = [
            (anyhow!("a"), "a"),
            (anyhow!("b").context("a"), "a: b"),
            (anyhow!("b").context("a: b"), "a: b"),
            (anyhow!("b\n  c").context("a"), "a: b c"),
        ];
        for (error, line) in cases {
            assert_eq!(one_line(&error), line);
        }
    }

    #[test]
    fn wrong_usage_has_an_exit_code_of_its_own() {
        let usage = anyhow::Error::from(Usage("no".to_owned()));
        assert_eq!(report(&usage), ExitCode::from(2));
        assert_eq!(report(&anyhow!("no")), ExitCode::FAILURE);
        let pipe: io::Result<()> = Err(io::ErrorKind::BrokenPipe.into());
        assert_eq!(
            report(&pipe.context("print").unwrap_err()),
            ExitCode::SUCCESS
        );
    }
}
