//! Traces: where a request spent its time, told to a collector over OTLP where one is configured.
//!
//! A request that carries a `traceparent` is part of its caller's trace; any other begins one. Spans leave in batches
//! from a thread of their own, and are dropped where the collector cannot keep up: no request ever waits for it. They
//! carry routes, commands and outcomes, and nothing that a caller or the gateway wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::post::Post;
use super::trace_context::TraceParent;

/// How long what is still to be told may take when the program ends.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Where OTLP over HTTP takes traces, below the endpoint.
const PATH: &str = "/v1/traces";

/// Whether spans are wanted by anybody. Logging is the process's, and so is this.
static WANTED: AtomicBool = AtomicBool::new(false);

/// Whether spans are wanted by anybody; where they are not, making them is a waste.
#[must_use]
pub fn are_wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}

/// Tells spans to a collector until it is ended.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Begins to tell the collector at `endpoint`, such as `http://localhost:4318`.
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

    /// Tells what is still to be told. Waits for the network: not for an async thread.
    pub fn end(self) {
        if let Err(fault) = self.0.shutdown_with_timeout(LAST_WORDS) {
            tracing::warn!(%fault, "the last traces could not be told");
        }
    }
}

/// The span of a request.
#[must_use]
pub fn request(request_id: &str, method: &str, parent: Option<TraceParent<'_>>) -> Span {
    let span = tracing::info_span!(
        "request",
        request_id,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = Empty,
        http.response.status_code = Empty,
    );
    if let Some(context) = parent.and_then(context_of) {
        // Fails only where the span is wanted by nobody.
        let _ = span.set_parent(Context::new().with_remote_span_context(context));
    }
    span
}

/// What became of a request.
pub fn request_ended(span: &Span, method: &str, route: &str, status: u16) {
    // By the span itself: once somebody has asked for its trace, a recorded `otel.name` is passed over.
    span.context().span().update_name(format!("{method} {route}"));
    span.record("http.route", route);
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// The id of the trace that a span belongs to.
#[must_use]
pub fn id_of(span: &Span) -> Option<String> {
    let context = span.context();
    let id = context.span().span_context().trace_id();
    (id != TraceId::INVALID).then(|| id.to_string())
}

fn context_of(parent: TraceParent<'_>) -> Option<SpanContext> {
    let (trace, span) = (TraceId::from_hex(parent.trace_id).ok()?, SpanId::from_hex(parent.parent_id).ok()?);
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    Some(SpanContext::new(trace, span, flags, true, TraceState::default()))
}
