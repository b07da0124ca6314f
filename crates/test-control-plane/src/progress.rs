//! Telling the one who waits that something happens.
//!
//! A first build takes minutes, inside what looks like an ordinary test run. It reports on standard
//! error, which the test harness does not capture when written to directly.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is written where there is no spinner.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// How to show what [`Binaries::locate_or_build`](crate::Binaries::locate_or_build) does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A spinner, for a terminal.
    Spinner,
    /// A line now and then, for a log.
    Lines,
    /// Nothing.
    Silent,
}

impl Progress {
    /// A spinner if standard error is a terminal, lines if not.
    pub fn auto() -> Self {
        if io::stderr().is_terminal() {
            Self::Spinner
        } else {
            Self::Lines
        }
    }
}

/// Shows one piece of work, step by step.
#[derive(Debug)]
pub(crate) struct Reporter {
    kind: Kind,
    started: Instant,
}

#[derive(Debug)]
enum Kind {
    Spinner(ProgressBar),
    Lines { step: String, written: Instant },
    Silent,
}

impl Reporter {
    pub(crate) fn new(progress: Progress) -> Self {
        let started = Instant::now();
        let kind = match progress {
            Progress::Spinner => Kind::Spinner(spinner()),
            Progress::Lines => Kind::Lines {
                step: String::new(),
                written: started,
            },
            Progress::Silent => Kind::Silent,
        };
        Self { kind, started }
    }

    /// Says something that stays to be read.
    pub(crate) fn say(&self, text: &str) {
        match &self.kind {
            Kind::Spinner(bar) => bar.println(text),
            Kind::Lines { .. } => write_line(text),
            Kind::Silent => {}
        }
    }

    /// Names the step that begins.
    pub(crate) fn step(&mut self, text: String) {
        match &mut self.kind {
            Kind::Spinner(bar) => bar.set_message(text),
            Kind::Lines { step, written } => {
                write_line(&text);
                *step = text;
                *written = Instant::now();
            }
            Kind::Silent => {}
        }
    }

    /// To be called about every second while a step lasts, with what it is at.
    pub(crate) fn tick(&mut self, detail: &str) {
        match &mut self.kind {
            Kind::Spinner(bar) => bar.set_prefix(detail.to_owned()),
            Kind::Lines { step, written } if written.elapsed() >= LINE_EVERY => {
                *written = Instant::now();
                write_line(&format!(
                    "{step}: {}s so far, at {detail}",
                    self.started.elapsed().as_secs()
                ));
            }
            Kind::Lines { .. } | Kind::Silent => {}
        }
    }

    /// Says how it ended, with the time it took.
    pub(crate) fn finish(self, text: &str) {
        self.say(&format!("{text} ({}s)", self.started.elapsed().as_secs()));
        if let Kind::Spinner(bar) = self.kind {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    // The template is a constant; were it wrong, the default style would do.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}] {prefix:.dim}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn write_line(text: &str) {
    // There is no better place to say that standard error cannot be written.
    let _ = writeln!(io::stderr(), "{text}");
}
