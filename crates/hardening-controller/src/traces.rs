//! OpenTelemetry traces of reviews, in a build with the feature `otel`; without it none.

#[cfg(feature = "otel")]
pub(crate) use exported::{REVIEW, Traces, subscribe};
#[cfg(not(feature = "otel"))]
pub(crate) use none::{REVIEW, Traces, subscribe};

#[cfg(not(feature = "otel"))]
mod none {
    use hardening_webhook::ReviewSpan;
    use tracing_subscriber::Registry;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::Layered;
    use tracing_subscriber::prelude::*;

    use crate::log::Lines;

    /// Reviews have no spans.
    pub(crate) const REVIEW: Option<ReviewSpan> = None;

    /// What is to be ended: nothing.
    pub(crate) struct Traces;

    /// Writes log lines from now on. The filter is for all that is said, so that what the libraries say of each
    /// request costs nothing; and nothing fails.
    #[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
    pub(crate) fn subscribe(
        filter: Targets,
        lines: Lines<Layered<Targets, Registry>>,
    ) -> anyhow::Result<Traces> {
        // It fails only where a subscriber is set already, and this is the one place that sets it.
        let _ = tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init();
        Ok(Traces)
    }

    impl Traces {
        #[expect(
            clippy::unused_self,
            reason = "with the feature there is something to end"
        )]
        pub(crate) fn end(self) {}
    }
}

#[cfg(feature = "otel")]
mod exported {
    use anyhow::Context as _;
    use hardening_webhook::ReviewSpan;
    use http::HeaderMap;
    use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_otlp::SpanExporter;
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::{Span, Subscriber};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::prelude::*;
    use tracing_subscriber::registry::LookupSpan;
    use tracing_subscriber::{Layer, Registry};

    use crate::log::Lines;
    use crate::webhook::VERSION;

    /// Each review has a span.
    pub(crate) const REVIEW: Option<ReviewSpan> = Some(review);

    /// The variables that say where traces go, by OpenTelemetry's specification; without them none are made. The
    /// sampler, the service's name and more are said by variables, too.
    const ENDPOINTS: [&str; 2] = [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ];
    /// What is traced: reviews, and what is said while they are answered.
    const TARGET: &str = "hardening_webhook";

    /// What sends spans, if any are to be sent.
    pub(crate) struct Traces(Option<SdkTracerProvider>);

    /// The headers of a request.
    struct Headers<'a>(&'a HeaderMap);

    /// Writes log lines, and sends the spans of reviews, from now on.
    pub(crate) fn subscribe(filter: Targets, lines: Lines<Registry>) -> anyhow::Result<Traces> {
        let (spans, traces) = spans()?;
        // It fails only where a subscriber is set already, and this is the one place that sets it.
        let _ = tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .with(spans)
            .try_init();
        Ok(traces)
    }

    /// What sends spans by OTLP over gRPC.
    fn spans<S>() -> anyhow::Result<(Option<impl Layer<S>>, Traces)>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if ENDPOINTS
            .iter()
            .all(|name| std::env::var_os(name).is_none())
        {
            return Ok((None, Traces(None)));
        }
        let exporter = SpanExporter::builder()
            .with_tonic()
            .build()
            .with_context(|| format!("send traces to {}", ENDPOINTS.join(" or ")))?;
        let resource = Resource::builder()
            .with_service_name("pod-hardening")
            .with_attribute(opentelemetry::KeyValue::new("service.version", VERSION))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(exporter)
            .build();
        let tracer = provider.tracer("pod-hardening");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::DEBUG));
        Ok((Some(layer), Traces(Some(provider))))
    }

    /// A span of the trace that the API server names in the headers of its request (W3C Trace Context), so that it is
    /// sampled where that is; of a new trace where it names none.
    fn review(headers: &HeaderMap) -> Span {
        let span = tracing::debug_span!(target: TARGET, "review", otel.kind = "server");
        if !span.is_disabled() {
            let caller = TraceContextPropagator::new().extract(&Headers(headers));
            // It fails only where no layer would take the span.
            let _ = span.set_parent(caller);
        }
        span
    }

    impl Traces {
        /// Sends what has not been sent.
        pub(crate) fn end(self) {
            let ended = self.0.map(|provider| provider.shutdown());
            if let Some(Err(error)) = ended {
                tracing::warn!(%error, "the last traces were not sent");
            }
        }
    }

    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(http::HeaderName::as_str).collect()
        }
    }
}
