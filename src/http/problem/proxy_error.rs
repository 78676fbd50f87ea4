//! Why the bridge makes an answer of its own, in the words of RFC 9209.

/// Why the bridge made an answer of its own: the types of the RFC's registry that are true of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyError {
    /// It has no next hop for this request.
    DestinationNotFound,
    /// It considers the gateway, or the replica that owns the instance, as unavailable.
    DestinationUnavailable,
    /// The connection was closed before the reply came.
    ConnectionTerminated,
    /// The request is not one that the gateway could be asked.
    HttpRequestError,
    /// Its configuration or a limit forbids the request.
    HttpRequestDenied,
    /// A reply did not come whole, for one reason or another.
    HttpResponseIncomplete,
    /// No reply came in time.
    HttpResponseTimeout,
    /// The reply was not understood.
    HttpProtocolError,
    /// It answered without asking the gateway.
    ProxyInternalResponse,
    /// It failed by itself.
    ProxyInternalError,
    ProxyConfigurationError,
}

impl ProxyError {
    /// Its name in the registry.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DestinationNotFound => "destination_not_found",
            Self::DestinationUnavailable => "destination_unavailable",
            Self::ConnectionTerminated => "connection_terminated",
            Self::HttpRequestError => "http_request_error",
            Self::HttpRequestDenied => "http_request_denied",
            Self::HttpResponseIncomplete => "http_response_incomplete",
            Self::HttpResponseTimeout => "http_response_timeout",
            Self::HttpProtocolError => "http_protocol_error",
            Self::ProxyInternalResponse => "proxy_internal_response",
            Self::ProxyInternalError => "proxy_internal_error",
            Self::ProxyConfigurationError => "proxy_configuration_error",
        }
    }
}
