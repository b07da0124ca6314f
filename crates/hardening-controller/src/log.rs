//! Where log lines go, and which.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use crate::args::{LogArgs, LogFormat, LogLevel};

/// Logs to standard error from now on.
///
/// The level is for this product. Of the libraries only warnings are of use to an operator, and below them
/// some would log what they send and receive. kube warns of what `hardening-index` says in one line.
pub(crate) fn init(args: &LogArgs) {
    let level = match args.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let filter = Targets::new()
        .with_default(LevelFilter::WARN.min(level))
        .with_target("kube_runtime", LevelFilter::ERROR)
        .with_target("kube_client", LevelFilter::OFF)
        .with_target("hardening", level);
    let registry = tracing_subscriber::registry().with(filter);
    // It fails only where a subscriber is set already, and this is the one place that sets it.
    let _ = match args.log_format {
        LogFormat::Text => registry
            .with(
                fmt::layer()
                    .with_ansi(io::stderr().is_terminal())
                    .with_writer(io::stderr),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(io::stderr),
            )
            .try_init(),
    };
}
