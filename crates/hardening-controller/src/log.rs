//! Where log lines go, and which.

use std::io::{self, IsTerminal as _};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::registry::LookupSpan;

use crate::args::{LogArgs, LogFormat, LogLevel};
use crate::traces::{self, Traces};

/// Logs to standard error from now on.
///
/// The level is for this product. Of the libraries only warnings are of use to an operator, and below them
/// some would log what they send and receive. kube warns of what `hardening-index` says in one line.
///
/// With the feature `otel`, reviews are traced as well, whatever the level: what is returned ends that.
///
/// # Errors
///
/// Where traces are asked for and cannot be sent.
pub(crate) fn init(args: &LogArgs) -> anyhow::Result<Traces> {
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
    let traces = traces::subscribe(filter, lines(args.log_format))?;
    hardening_webhook::panics::report_by_place();
    Ok(traces)
}

/// Where log lines are written, by whichever subscriber.
pub(crate) type Lines<S> = Box<dyn Layer<S> + Send + Sync>;

fn lines<S>(format: LogFormat) -> Lines<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    match format {
        LogFormat::Text => fmt::layer()
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(io::stderr)
            .boxed(),
    }
}
