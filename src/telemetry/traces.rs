//! Traces: where a request spent its time, exported over OTLP where a collector is configured.
//!
//! A request with a `traceparent` joins its caller's trace; any other begins one. Spans are exported in batches by a
//! thread of their own, and dropped if the collector cannot keep up: no request waits for it. They hold routes, commands
//! and outcomes, and nothing that a caller or the gateway wrote.
//!
//! Entry points: [`Traces::to`], [`request`], [`request_ended`], [`parent_of`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceId, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::post::Post;

/// How long the last export may take when the program ends.
const LAST_EXPORT: Duration = Duration::from_secs(3);

/// Where OTLP over HTTP takes traces, below the endpoint.
const PATH: &str = "/v1/traces";

/// Whether spans are exported. Of the process, as logging is.
static WANTED: AtomicBool = AtomicBool::new(false);

/// Whether spans are exported; if not, making them is wasted time.
#[must_use]
pub fn are_wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}

/// Exports spans until it is ended.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Begins to export to the collector at `endpoint`, such as `http://localhost:4318`.
    pub fn to(endpoint: &str, tls: Arc<rustls::ClientConfig>) -> Result<Self, String> {
        let endpoint = endpoint.trim_end_matches('/');
        let url = if endpoint.ends_with(PATH) { endpoint.to_owned() } else { [endpoint, PATH].concat() };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Post::new(tls))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .build()
            .map_err(|fault| fault.to_string())?;
        let resource = Resource::builder()
            .with_service_name("concertpos-bridge")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        WANTED.store(true, Ordering::Relaxed);
        Ok(Self(provider))
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.0.tracer("concertpos-bridge")
    }

    /// Exports what is left. Blocks on the network: not for an async thread.
    pub fn end(self) {
        if let Err(fault) = self.0.shutdown_with_timeout(LAST_EXPORT) {
            tracing::warn!(%fault, "the last traces could not be exported");
        }
    }
}

#[must_use]
pub fn request(request_id: &str, method: &str, parent: Option<SpanContext>) -> Span {
    let span = tracing::info_span!(
        "request",
        request_id,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = Empty,
        http.response.status_code = Empty,
    );
    if let Some(context) = parent {
        // Fails only where the span is not exported.
        let _ = span.set_parent(Context::new().with_remote_span_context(context));
    }
    span
}

pub fn request_ended(span: &Span, method: &str, route: &str, status: u16) {
    // Through the context: after `id_of` a recorded `otel.name` is ignored.
    span.context().span().update_name(format!("{method} {route}"));
    span.record("http.route", route);
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// The header `traceparent` for what is asked of others within the current span; none where spans are not exported.
#[must_use]
pub fn header_of_current() -> Option<String> {
    if !are_wanted() {
        return None;
    }
    let context = Span::current().context();
    let (span, mut headers) = (context.span(), std::collections::HashMap::new());
    TraceContextPropagator::new().inject_context(&context, &mut headers);
    span.span_context().is_valid().then(|| headers.remove(TRACE_PARENT)).flatten()
}

/// The id of the trace that a span belongs to.
#[must_use]
pub fn id_of(span: &Span) -> Option<String> {
    let context = span.context();
    let id = context.span().span_context().trace_id();
    (id != TraceId::INVALID).then(|| id.to_string())
}

/// The caller's trace in a header `traceparent` (W3C Trace Context), if it holds one.
#[must_use]
pub fn parent_of(header: &str) -> Option<SpanContext> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &TraceParent(header));
    let parent = context.span().span_context().clone();
    parent.is_valid().then_some(parent)
}

const TRACE_PARENT: &str = "traceparent";

/// Gives the propagator this header alone: `tracestate` is text of the caller's.
struct TraceParent<'a>(&'a str);

impl Extractor for TraceParent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACE_PARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACE_PARENT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_traceparent_is_one() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let parsed = |text: &str| parent_of(text).map(|one| (one.trace_id().to_string(), one.is_sampled()));
        assert_eq!(parsed(&format!("00-{trace}-{parent}-01")), Some((trace.to_owned(), true)));
        assert_eq!(parsed(&format!("00-{trace}-{parent}-00")), Some((trace.to_owned(), false)));
        assert_eq!(parsed(&format!("00-{trace}-{parent}-03")), Some((trace.to_owned(), true)));
        assert_eq!(parsed(&format!("cc-{trace}-{parent}-01-more")), Some((trace.to_owned(), true)));
        for wrong in [
            String::new(),
            format!("00-{trace}-{parent}"),
            format!("00-{trace}-{parent}-01-more"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}x-{parent}-01"),
        ] {
            assert_eq!(parsed(&wrong), None, "{wrong}");
        }
    }
}
