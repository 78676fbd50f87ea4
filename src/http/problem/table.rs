//! THE table of problems: every code a caller can meet, its status, and what to do about it.
//!
//! The same rows make the answers, the pages at `/problems/{code}` and the OpenAPI document, so none of the three can
//! say something the others do not. A code is a promise to programs: it is never renamed and never reused.

use super::proxy_error::ProxyError;

/// One row: what a code means.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The stable name, the last segment of the problem's `type`.
    pub code: &'static str,
    /// The HTTP status it is answered with.
    pub status: u16,
    /// A few words for people, the same at every occurrence.
    pub title: &'static str,
    /// Whether the same request, with the same `Idempotency-Key` where it has one, is safe to repeat and may succeed.
    pub retryable: bool,
    /// Whether its answers have a `Retry-After`.
    pub has_retry_after: bool,
    /// Whether the command was sent, or was not for lack of points: its answers then have the `RateLimit` fields.
    pub touches_budget: bool,
    /// What `Proxy-Status` says where the bridge refused.
    pub proxy_error: ProxyError,
    /// What happened, in plain words.
    pub explanation: &'static str,
    /// What the caller can do about it.
    pub advice: &'static str,
    /// The operations of the OpenAPI document that list it.
    pub operations: Operations,
}

/// Operations of the OpenAPI document, by what they have in common or by their ids. A response lists its problems in the
/// order of these variants, and within one in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operations {
    /// None: no operation of the document can meet the problem.
    None,
    Every,
    WithPathParameter(&'static str),
    WithBody,
    /// Those that send a command to the gateway.
    Commands,
    CommandsExcept(&'static str),
    Named(&'static [&'static str]),
    /// Reads that may be answered from a copy.
    ReadsFromCopies,
}

const fn row(code: &'static str, status: u16, title: &'static str, words: [&'static str; 2]) -> Entry {
    let [explanation, advice] = words;
    Entry {
        code,
        status,
        title,
        retryable: false,
        has_retry_after: matches!(status, 429 | 503),
        touches_budget: false,
        proxy_error: ProxyError::HttpRequestError,
        explanation,
        advice,
        operations: Operations::None,
    }
}

impl Entry {
    /// Whether nothing was begun because the instance is not served here.
    #[must_use]
    pub fn is_not_begun(&self) -> bool {
        [&UNKNOWN_INSTANCE, &SHUTTING_DOWN, &INSTANCE_UNAVAILABLE].iter().any(|entry| entry.code == self.code)
    }

    const fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    const fn with_retry_after(mut self) -> Self {
        self.has_retry_after = true;
        self
    }

    const fn touching_budget(mut self) -> Self {
        self.touches_budget = true;
        self
    }

    const fn told_as(mut self, proxy_error: ProxyError) -> Self {
        self.proxy_error = proxy_error;
        self
    }

    const fn met_by(mut self, operations: Operations) -> Self {
        self.operations = operations;
        self
    }
}

macro_rules! table {
    ($($name:ident = $entry:expr;)*) => {
        $(pub static $name: Entry = $entry;)*

        /// Every row, in order of status.
        pub static TABLE: &[&Entry] = &[$(&$name),*];
    };
}

table! {
    INVALID_REQUEST = row(
        "invalid-request",
        400,
        "The request is not valid",
        [
            "Something in the path, the query, the headers or the body is missing or has a wrong form. Nothing was sent.",
            "Correct what `detail` and `errors` point at; repeating the request unchanged fails again.",
        ],
    )
    .met_by(Operations::Every);
    IDEMPOTENCY_KEY_MISSING = row(
        "idempotency-key-missing",
        400,
        "The Idempotency-Key is missing or malformed",
        [
            "A payment needs an `Idempotency-Key` header of 1 to 255 visible ASCII characters, so that repeating it can \
             never book it twice. Nothing was sent.",
            "Make one key for each sale (a UUID does well), keep it, and send it with every repetition of that sale.",
        ],
    )
    .met_by(Operations::Named(&["payItems"]));
    GATEWAY_REJECTED_PARAMETERS = row(
        "gateway-rejected-parameters",
        400,
        "The gateway rejected the parameters",
        [
            "The gateway says that a parameter is missing; `gateway.error` names it. The command did nothing.",
            "Add the parameter to the body and send the request again.",
        ],
    )
    .met_by(Operations::Commands);
    UNAUTHENTICATED = row(
        "unauthenticated",
        401,
        "A valid token is required",
        [
            "The request carries no token, or one that the bridge does not know.",
            "Send `Authorization: Bearer TOKEN`. The bridge's operator issues tokens.",
        ],
    )
    .told_as(ProxyError::HttpRequestDenied)
    .met_by(Operations::Every);
    FORBIDDEN = row(
        "forbidden",
        403,
        "This caller may not do that",
        [
            "The token is valid but has no right to this instance or lacks the scope this route needs, or the bridge runs \
             without tokens and the request comes from elsewhere than this machine.",
            "Ask the bridge's operator for the right; repeating the request unchanged fails again.",
        ],
    )
    .told_as(ProxyError::HttpRequestDenied)
    .met_by(Operations::Every);
    POS_PASSWORD_REJECTED = row(
        "pos-password-rejected",
        403,
        "The password of the point of sale was rejected",
        [
            "This point of sale needs a password, and the one given is wrong or absent. The command did nothing.",
            "Obtain the password (a password-check returns it) and send it as `X-POS-Password`.",
        ],
    )
    .told_as(ProxyError::HttpRequestDenied)
    .met_by(Operations::Commands);
    NOT_FOUND = row(
        "not-found",
        404,
        "There is nothing at this path",
        ["No route of the bridge has this path.", "Compare the path with the document at `/openapi.json`."],
    )
    .met_by(Operations::WithPathParameter("shard"));
    UNKNOWN_INSTANCE = row(
        "unknown-instance",
        404,
        "This instance is not configured",
        [
            "The bridge has no instance of this name, or has it no more.",
            "`GET /v1/instances` lists the instances this token may use; the operator configures others.",
        ],
    )
    .told_as(ProxyError::DestinationNotFound)
    .met_by(Operations::WithPathParameter("instance"));
    UNKNOWN_PAYMENT = row(
        "unknown-payment",
        404,
        "There is no record of this payment",
        [
            "No payment with this id is on record for this caller: it never was, or its time to be kept has passed.",
            "`GET …/payments?idempotency_key=…` finds a payment by its key.",
        ],
    )
    .told_as(ProxyError::ProxyInternalResponse)
    .met_by(Operations::Named(&["getPayment", "settlePayment"]));
    METHOD_NOT_ALLOWED = row(
        "method-not-allowed",
        405,
        "This path does not answer this method",
        [
            "The path exists, but not with this method: `Allow` names those it has.",
            "The `Allow` header lists the methods the path answers.",
        ],
    );
    NOT_ACCEPTABLE = row(
        "not-acceptable",
        406,
        "No acceptable form of the answer",
        [
            "The `Accept` or `Accept-Encoding` header excludes every form this route can answer in. Nothing was sent.",
            "Accept `application/json`, or leave the header out.",
        ],
    )
    .met_by(Operations::Every);
    PAYMENT_IN_PROGRESS = row(
        "payment-in-progress",
        409,
        "This payment is still in progress",
        [
            "An earlier request with the same key is still being worked on. This one sent nothing.",
            "Repeat with the same key after `Retry-After`; the answer will be that of the first request. With `Prefer: wait=N` \
             the repeat waits for it up to N seconds.",
        ],
    )
    .told_as(ProxyError::ProxyInternalResponse)
    .retryable()
    .with_retry_after()
    .met_by(Operations::Named(&["payItems"]));
    OUTCOME_CONFLICT = row(
        "outcome-conflict",
        409,
        "The payment's outcome is known already",
        [
            "Only a payment whose outcome is unknown can be settled by hand, and this one has an outcome.",
            "Fetch the payment's record and go by what it says.",
        ],
    )
    .told_as(ProxyError::ProxyInternalResponse)
    .met_by(Operations::Named(&["settlePayment"]));
    PRECONDITION_FAILED = row(
        "precondition-failed",
        412,
        "The record has changed",
        [
            "`If-Match` names another version of the record than the present one. Nothing was changed.",
            "Fetch the record, judge it afresh, and send its present `ETag` as `If-Match`.",
        ],
    )
    .told_as(ProxyError::ProxyInternalResponse)
    .met_by(Operations::Named(&["settlePayment"]));
    TOO_LARGE = row(
        "too-large",
        413,
        "The body is too large",
        [
            "The body is larger than the bridge accepts. Nothing was sent.",
            "Send a smaller body; the operator can raise `server.max_body`.",
        ],
    )
    .met_by(Operations::WithBody);
    UNSUPPORTED_MEDIA_TYPE = row(
        "unsupported-media-type",
        415,
        "The body must be JSON",
        [
            "The body's `Content-Type` is not JSON in UTF-8, or it has a `Content-Encoding`. Nothing was sent.",
            "Send `Content-Type: application/json` and an uncompressed body.",
        ],
    )
    .met_by(Operations::WithBody);
    IDEMPOTENCY_KEY_REUSED = row(
        "idempotency-key-reused",
        422,
        "This Idempotency-Key belongs to another sale",
        [
            "The key was used before, for a sale with another point of sale, payment method or products. Nothing was sent.",
            "Use a new key for a new sale; to repeat the old sale send it as it was.",
        ],
    )
    .told_as(ProxyError::ProxyInternalResponse)
    .met_by(Operations::Named(&["payItems"]));
    RATE_LIMITED = row(
        "rate-limited",
        429,
        "The gateway's budget for this command is spent",
        [
            "The gateway takes only so many commands in 30 seconds. Nothing was sent, or the gateway refused it.",
            "Repeat after `Retry-After`; it is exact where the bridge counted, and the gateway's word where it refused.",
        ],
    )
    .told_as(ProxyError::HttpRequestDenied)
    .retryable()
    .touching_budget()
    .met_by(Operations::Commands);
    CALLER_LIMITED = row(
        "caller-limited",
        429,
        "This token sends too much",
        [
            "The token has more requests a second, or more at once, than its operator allows it. Nothing was sent.",
            "Repeat after `Retry-After`, and send less at once.",
        ],
    )
    .told_as(ProxyError::HttpRequestDenied)
    .retryable()
    .met_by(Operations::Every);
    INTERNAL_ERROR = row(
        "internal-error",
        500,
        "The bridge failed",
        [
            "The bridge came upon something it was not built for: a defect of the bridge, not of the request.",
            "Give `request_id` to the bridge's operator, whose log has more. A payment may be repeated with its own key.",
        ],
    )
    .told_as(ProxyError::ProxyInternalError)
    .met_by(Operations::Every);
    GATEWAY_ERROR = row(
        "gateway-error",
        502,
        "The gateway answered with an error",
        [
            "The gateway did not do the command; `gateway` holds its own words.",
            "Repeat a little later where `retryable` says so; if it lasts, ask those who run ConcertPOS.",
        ],
    )
    .told_as(ProxyError::HttpProtocolError)
    .retryable()
    .touching_budget()
    .met_by(Operations::Commands);
    GATEWAY_CREDENTIALS_REJECTED = row(
        "gateway-credentials-rejected",
        502,
        "The gateway rejected the bridge's key",
        [
            "The gateway does not take the API key the bridge is configured with for this instance.",
            "Nothing a caller can mend: the operator must correct the instance's `api_key`.",
        ],
    )
    .told_as(ProxyError::ProxyConfigurationError)
    .met_by(Operations::Commands);
    LICENSE_INVALID = row(
        "license-invalid",
        502,
        "The instance's licence is invalid",
        [
            "The gateway says that the licence of this ConcertPOS instance is invalid.",
            "The instance's administrator must check its licence key.",
        ],
    )
    .told_as(ProxyError::DestinationUnavailable)
    .met_by(Operations::Commands);
    GATEWAY_PROTOCOL_VIOLATION = row(
        "gateway-protocol-violation",
        502,
        "The gateway's answer was not understood",
        [
            "The gateway answered with something that is no answer to this command.",
            "Repeat a little later; if it lasts, give `request_id` to the bridge's operator.",
        ],
    )
    .told_as(ProxyError::HttpProtocolError)
    .retryable()
    .touching_budget()
    .met_by(Operations::Commands);
    GATEWAY_UNAVAILABLE = row(
        "gateway-unavailable",
        503,
        "No connection to the gateway",
        [
            "No shard of the gateway can be reached at the moment, and nothing was sent; or a read was sent, and the connection was lost each time before its reply came.",
            "Repeat after `Retry-After`.",
        ],
    )
    .told_as(ProxyError::DestinationUnavailable)
    .retryable()
    .met_by(Operations::Commands);
    OVERLOADED = row(
        "overloaded",
        503,
        "Too many requests wait for the gateway",
        ["More requests wait for the gateway than it can take in time. Nothing was sent.", "Repeat after `Retry-After`."],
    )
    .told_as(ProxyError::ProxyInternalResponse)
    .retryable()
    .met_by(Operations::Commands);
    SHUTTING_DOWN = row(
        "shutting-down",
        503,
        "The bridge is shutting down",
        ["The bridge, or this instance, is starting or stopping and takes no new work. Nothing was sent.", "Repeat after `Retry-After`."],
    )
    .told_as(ProxyError::ProxyInternalResponse)
    .retryable()
    .met_by(Operations::Commands);
    INSTANCE_UNAVAILABLE = row(
        "instance-unavailable",
        503,
        "No replica serves this instance now",
        [
            "The replica that serves this instance is gone or cannot be reached, and none has taken over yet. Nothing was sent.",
            "Repeat after `Retry-After`, a payment with the same key.",
        ],
    )
    .told_as(ProxyError::DestinationUnavailable)
    .retryable()
    .met_by(Operations::WithPathParameter("instance"));
    JOURNAL_UNAVAILABLE = row(
        "journal-unavailable",
        503,
        "Payments cannot be recorded",
        [
            "The bridge cannot write its record of payments, and sends none without it. Nothing was sent.",
            "Repeat with the same key after `Retry-After`; the operator should look at the journal's disk.",
        ],
    )
    .told_as(ProxyError::ProxyInternalError)
    .retryable()
    .met_by(Operations::Named(&["payItems", "listPayments", "getPayment", "settlePayment"]));
    GATEWAY_TIMEOUT = row(
        "gateway-timeout",
        504,
        "The gateway did not answer in time",
        [
            "The command was sent and no answer came in time. Where `retryable` is false it may have taken effect.",
            "Repeat where `retryable` is true; otherwise find out first what became of it.",
        ],
    )
    .told_as(ProxyError::HttpResponseTimeout)
    .retryable()
    .touching_budget()
    .met_by(Operations::CommandsExcept("payItems"));
    PAYMENT_OUTCOME_UNKNOWN = row(
        "payment-outcome-unknown",
        504,
        "It is not known whether this payment was booked",
        [
            "The payment was sent, and no answer came that says whether it was booked. The bridge never sends it again.",
            "Repeat with the same key to learn what became of it. Never repeat it with a new key: that may book it twice.",
        ],
    )
    .told_as(ProxyError::HttpResponseIncomplete)
    .retryable()
    .touching_budget()
    .met_by(Operations::Named(&["payItems"]));
    NOT_CACHED = row(
        "not-cached",
        504,
        "There is no copy to answer with",
        [
            "The request said `only-if-cached`, and the bridge holds no copy it may answer with. Nothing was sent.",
            "Repeat without `only-if-cached`.",
        ],
    )
    .told_as(ProxyError::ProxyInternalResponse)
    .met_by(Operations::ReadsFromCopies);
}

/// The row of `code`, if there is one.
#[must_use]
pub fn find(code: &str) -> Option<&'static Entry> {
    TABLE.iter().copied().find(|entry| entry.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract's table, written out a second time on purpose.
    const PROMISED: [(u16, &[&str]); 16] = [
        (400, &["invalid-request", "idempotency-key-missing", "gateway-rejected-parameters"]),
        (401, &["unauthenticated"]),
        (403, &["forbidden", "pos-password-rejected"]),
        (404, &["not-found", "unknown-instance", "unknown-payment"]),
        (405, &["method-not-allowed"]),
        (406, &["not-acceptable"]),
        (409, &["payment-in-progress", "outcome-conflict"]),
        (412, &["precondition-failed"]),
        (413, &["too-large"]),
        (415, &["unsupported-media-type"]),
        (422, &["idempotency-key-reused"]),
        (429, &["rate-limited", "caller-limited"]),
        (500, &["internal-error"]),
        (502, &["gateway-error", "gateway-credentials-rejected", "license-invalid", "gateway-protocol-violation"]),
        (503, &["gateway-unavailable", "overloaded", "shutting-down", "instance-unavailable", "journal-unavailable"]),
        (504, &["gateway-timeout", "payment-outcome-unknown", "not-cached"]),
    ];

    #[test]
    fn the_table_holds_exactly_the_promised_codes_with_their_statuses() {
        let promised: Vec<_> =
            PROMISED.iter().flat_map(|(status, codes)| codes.iter().map(|code| (*code, *status))).collect();
        let held: Vec<_> = TABLE.iter().map(|entry| (entry.code, entry.status)).collect();
        assert_eq!(held, promised);
    }

    #[test]
    fn a_problem_that_says_when_to_come_back_is_retryable() {
        for entry in TABLE.iter().filter(|entry| entry.has_retry_after) {
            assert!(entry.retryable, "{}", entry.code);
        }
    }
}
