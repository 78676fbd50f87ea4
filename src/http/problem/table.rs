//! THE table of problems: every code a caller can meet, its status, and what to do about it.
//!
//! The same rows make the answers, the pages at `/problems/{code}` and the OpenAPI document, so none of the three can
//! say something the others do not. A code is a promise to programs: it is never renamed and never reused.

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
    /// What happened, in plain words.
    pub explanation: &'static str,
    /// What the caller can do about it.
    pub advice: &'static str,
}

const fn row(code: &'static str, status: u16, title: &'static str, words: [&'static str; 2]) -> Entry {
    let [explanation, advice] = words;
    Entry { code, status, title, retryable: false, explanation, advice }
}

impl Entry {
    const fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }
}

/// The request is malformed: its path, query, headers or body.
pub static INVALID_REQUEST: Entry = row(
    "invalid-request",
    400,
    "The request is not valid",
    [
        "Something in the path, the query, the headers or the body is missing or has a wrong form. Nothing was sent.",
        "Correct what `detail` and `errors` point at; repeating the request unchanged fails again.",
    ],
);
/// A payment without a usable `Idempotency-Key`.
pub static IDEMPOTENCY_KEY_MISSING: Entry = row(
    "idempotency-key-missing",
    400,
    "The Idempotency-Key is missing or malformed",
    [
        "A payment needs an `Idempotency-Key` header of 1 to 255 visible ASCII characters, so that repeating it can \
         never book it twice. Nothing was sent.",
        "Make one key for each sale (a UUID does well), keep it, and send it with every repetition of that sale.",
    ],
);
/// The gateway misses a parameter.
pub static GATEWAY_REJECTED_PARAMETERS: Entry = row(
    "gateway-rejected-parameters",
    400,
    "The gateway rejected the parameters",
    [
        "The gateway says that a parameter is missing; `gateway.error` names it. The command did nothing.",
        "Add the parameter to the body and send the request again.",
    ],
);
/// No token, or none that is known.
pub static UNAUTHENTICATED: Entry = row(
    "unauthenticated",
    401,
    "A valid token is required",
    [
        "The request carries no token, or one that the bridge does not know.",
        "Send `Authorization: Bearer TOKEN`. The bridge's operator issues tokens.",
    ],
);
/// A known caller who may not do this.
pub static FORBIDDEN: Entry = row(
    "forbidden",
    403,
    "This caller may not do that",
    [
        "The token is valid but has no right to this instance or lacks the scope this route needs, or the bridge runs \
         without tokens and the request comes from elsewhere than this machine.",
        "Ask the bridge's operator for the right; repeating the request unchanged fails again.",
    ],
);
/// The gateway refused the password of the point of sale.
pub static POS_PASSWORD_REJECTED: Entry = row(
    "pos-password-rejected",
    403,
    "The password of the point of sale was rejected",
    [
        "This point of sale needs a password, and the one given is wrong or absent. The command did nothing.",
        "Obtain the password (a password-check returns it) and send it as `X-POS-Password`.",
    ],
);
/// No such path.
pub static NOT_FOUND: Entry = row(
    "not-found",
    404,
    "There is nothing at this path",
    ["No route of the bridge has this path.", "Compare the path with the document at `/openapi.json`."],
);
/// No such instance.
pub static UNKNOWN_INSTANCE: Entry = row(
    "unknown-instance",
    404,
    "This instance is not configured",
    [
        "The bridge has no instance of this name.",
        "`GET /v1/instances` lists the instances this token may use; the operator configures others.",
    ],
);
/// No such payment record.
pub static UNKNOWN_PAYMENT: Entry = row(
    "unknown-payment",
    404,
    "There is no record of this payment",
    [
        "No payment with this id is on record for this caller: it never was, or its time to be kept has passed.",
        "`GET …/payments?idempotency_key=…` finds a payment by its key.",
    ],
);
/// The path exists, the method on it does not.
pub static METHOD_NOT_ALLOWED: Entry = row(
    "method-not-allowed",
    405,
    "This path does not answer this method",
    [
        "The path exists, but not with this method: `Allow` names those it has.",
        "The `Allow` header lists the methods the path answers.",
    ],
);
/// The caller accepts nothing the route can answer with.
pub static NOT_ACCEPTABLE: Entry = row(
    "not-acceptable",
    406,
    "No acceptable form of the answer",
    [
        "The `Accept` or `Accept-Encoding` header excludes every form this route can answer in. Nothing was sent.",
        "Accept `application/json`, or leave the header out.",
    ],
);
/// Still being worked on.
pub static PAYMENT_IN_PROGRESS: Entry = row(
    "payment-in-progress",
    409,
    "This payment is still in progress",
    [
        "An earlier request with the same key is still being worked on. This one sent nothing.",
        "Repeat with the same key after `Retry-After`; the answer will be that of the first request.",
    ],
)
.retryable();
/// Settling against what is known.
pub static OUTCOME_CONFLICT: Entry = row(
    "outcome-conflict",
    409,
    "The payment's outcome is known already",
    [
        "Only a payment whose outcome is unknown can be settled by hand, and this one has an outcome.",
        "Fetch the payment's record and go by what it says.",
    ],
);
/// `If-Match` does not match.
pub static PRECONDITION_FAILED: Entry = row(
    "precondition-failed",
    412,
    "The record has changed",
    [
        "`If-Match` names another version of the record than the present one. Nothing was changed.",
        "Fetch the record, judge it afresh, and send its present `ETag` as `If-Match`.",
    ],
);
/// More bytes than the bridge takes.
pub static TOO_LARGE: Entry = row(
    "too-large",
    413,
    "The body is too large",
    [
        "The body is larger than the bridge accepts. Nothing was sent.",
        "Send a smaller body; the operator can raise `server.max_body`.",
    ],
);
/// Not JSON.
pub static UNSUPPORTED_MEDIA_TYPE: Entry = row(
    "unsupported-media-type",
    415,
    "The body must be JSON",
    [
        "The body's `Content-Type` is not JSON in UTF-8, or it has a `Content-Encoding`. Nothing was sent.",
        "Send `Content-Type: application/json` and an uncompressed body.",
    ],
);
/// The same key for another sale.
pub static IDEMPOTENCY_KEY_REUSED: Entry = row(
    "idempotency-key-reused",
    422,
    "This Idempotency-Key belongs to another sale",
    [
        "The key was used before, for a sale with another point of sale, payment method or products. Nothing was sent.",
        "Use a new key for a new sale; to repeat the old sale send it as it was.",
    ],
);
/// The gateway's points are spent.
pub static RATE_LIMITED: Entry = row(
    "rate-limited",
    429,
    "The gateway's budget for this command is spent",
    [
        "The gateway takes only so many commands in 30 seconds. Nothing was sent, or the gateway refused it.",
        "Repeat after `Retry-After`; it is exact where the bridge counted, and the gateway's word where it refused.",
    ],
)
.retryable();
/// The caller's own allowance is spent.
pub static CALLER_LIMITED: Entry = row(
    "caller-limited",
    429,
    "This token sends too much",
    [
        "The token has more requests a second, or more at once, than its operator allows it. Nothing was sent.",
        "Repeat after `Retry-After`, and send less at once.",
    ],
)
.retryable();
/// A defect of the bridge.
pub static INTERNAL_ERROR: Entry = row(
    "internal-error",
    500,
    "The bridge failed",
    [
        "The bridge came upon something it was not built for: a defect of the bridge, not of the request.",
        "Give `request_id` to the bridge's operator, whose log has more. A payment may be repeated with its own key.",
    ],
);
/// The gateway said a word that means a failure.
pub static GATEWAY_ERROR: Entry = row(
    "gateway-error",
    502,
    "The gateway answered with an error",
    [
        "The gateway did not do the command; `gateway` holds its own words.",
        "Repeat a little later where `retryable` says so; if it lasts, ask those who run ConcertPOS.",
    ],
)
.retryable();
/// The bridge's key is refused.
pub static GATEWAY_CREDENTIALS_REJECTED: Entry = row(
    "gateway-credentials-rejected",
    502,
    "The gateway rejected the bridge's key",
    [
        "The gateway does not take the API key the bridge is configured with for this instance.",
        "Nothing a caller can mend: the operator must correct the instance's `api_key`.",
    ],
);
/// The licence.
pub static LICENSE_INVALID: Entry = row(
    "license-invalid",
    502,
    "The instance's licence is invalid",
    [
        "The gateway says that the licence of this ConcertPOS instance is invalid.",
        "The instance's administrator must check its licence key.",
    ],
);
/// An answer that is none.
pub static GATEWAY_PROTOCOL_VIOLATION: Entry = row(
    "gateway-protocol-violation",
    502,
    "The gateway's answer was not understood",
    [
        "The gateway answered with something that is no answer to this command.",
        "Repeat a little later; if it lasts, give `request_id` to the bridge's operator.",
    ],
)
.retryable();
/// No connection.
pub static GATEWAY_UNAVAILABLE: Entry = row(
    "gateway-unavailable",
    503,
    "No connection to the gateway",
    [
        "No shard of the gateway can be reached at the moment, and nothing was sent; or a read was sent, and the connection was lost each time before its reply came.",
        "Repeat after `Retry-After`.",
    ],
)
.retryable();
/// The bridge's own queue is full.
pub static OVERLOADED: Entry = row(
    "overloaded",
    503,
    "Too many requests wait for the gateway",
    ["More requests wait for the gateway than it can take in time. Nothing was sent.", "Repeat after `Retry-After`."],
)
.retryable();
/// Draining.
pub static SHUTTING_DOWN: Entry = row(
    "shutting-down",
    503,
    "The bridge is shutting down",
    ["The bridge is starting or stopping and takes no new work. Nothing was sent.", "Repeat after `Retry-After`."],
)
.retryable();
/// No durable record, no payment.
pub static JOURNAL_UNAVAILABLE: Entry = row(
    "journal-unavailable",
    503,
    "Payments cannot be recorded",
    [
        "The bridge cannot write its record of payments, and sends none without it. Nothing was sent.",
        "Repeat with the same key after `Retry-After`; the operator should look at the journal's disk.",
    ],
)
.retryable();
/// A read without an answer.
pub static GATEWAY_TIMEOUT: Entry = row(
    "gateway-timeout",
    504,
    "The gateway did not answer in time",
    [
        "The command was sent and no answer came in time. Where `retryable` is false it may have taken effect.",
        "Repeat where `retryable` is true; otherwise find out first what became of it.",
    ],
)
.retryable();
/// A payment without an answer.
pub static PAYMENT_OUTCOME_UNKNOWN: Entry = row(
    "payment-outcome-unknown",
    504,
    "It is not known whether this payment was booked",
    [
        "The payment was sent, and no answer came that says whether it was booked. The bridge never sends it again.",
        "Repeat with the same key to learn what became of it. Never repeat it with a new key: that may book it twice.",
    ],
)
.retryable();
/// `only-if-cached` without a copy.
pub static NOT_CACHED: Entry = row(
    "not-cached",
    504,
    "There is no copy to answer with",
    [
        "The request said `only-if-cached`, and the bridge holds no copy it may answer with. Nothing was sent.",
        "Repeat without `only-if-cached`.",
    ],
);

/// Every row, in order of status.
pub static TABLE: [&Entry; 31] = [
    &INVALID_REQUEST,
    &IDEMPOTENCY_KEY_MISSING,
    &GATEWAY_REJECTED_PARAMETERS,
    &UNAUTHENTICATED,
    &FORBIDDEN,
    &POS_PASSWORD_REJECTED,
    &NOT_FOUND,
    &UNKNOWN_INSTANCE,
    &UNKNOWN_PAYMENT,
    &METHOD_NOT_ALLOWED,
    &NOT_ACCEPTABLE,
    &PAYMENT_IN_PROGRESS,
    &OUTCOME_CONFLICT,
    &PRECONDITION_FAILED,
    &TOO_LARGE,
    &UNSUPPORTED_MEDIA_TYPE,
    &IDEMPOTENCY_KEY_REUSED,
    &RATE_LIMITED,
    &CALLER_LIMITED,
    &INTERNAL_ERROR,
    &GATEWAY_ERROR,
    &GATEWAY_CREDENTIALS_REJECTED,
    &LICENSE_INVALID,
    &GATEWAY_PROTOCOL_VIOLATION,
    &GATEWAY_UNAVAILABLE,
    &OVERLOADED,
    &SHUTTING_DOWN,
    &JOURNAL_UNAVAILABLE,
    &GATEWAY_TIMEOUT,
    &PAYMENT_OUTCOME_UNKNOWN,
    &NOT_CACHED,
];

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
        (503, &["gateway-unavailable", "overloaded", "shutting-down", "journal-unavailable"]),
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
        for entry in TABLE.iter().filter(|entry| matches!(entry.status, 429 | 503)) {
            assert!(entry.retryable, "{}", entry.code);
        }
    }
}
