//! How far it is, for someone who waits at a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error; nothing where that is no terminal.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn on_stderr() -> Self {
        // A target that is no terminal is never drawn on.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg}");
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    pub(crate) fn begin(&self, length: usize) {
        self.0.set_position(0);
        self.0.set_length(u64::try_from(length).unwrap_or(u64::MAX));
    }

    pub(crate) fn step(&self, what: &str) {
        self.0.set_message(crate::output::one_line(what));
        self.0.inc(1);
    }

    /// So many are done, of so many that are known of.
    pub(crate) fn at(&self, done: u64, known: u64) {
        self.0.set_length(known);
        self.0.set_position(done);
    }

    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
