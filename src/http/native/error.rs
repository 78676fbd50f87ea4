//! Error frames in the gateway's words, and the table from the bridge's errors to them ([`ErrorReply::of`]). Pure.
//!
//! A till knows certain words and ignores all others, so each error becomes the known word with the right consequence. Two
//! of them decide about money. `ratelimit` is the only word by which a till knows that nothing happened and when to try
//! again: it is used for whatever was provably not done, and for nothing else. `error_exec` is used for every payment
//! whose outcome is unknown, so that no cashier is told to sell again what may be booked.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::bridge::Error;
use crate::protocol::{GatewayError, Kind};

/// The gateway's code for a parameter that is missing.
const MISSING: i64 = 3;

/// The gateway's code for a failure.
const FAILED: i64 = -1;

/// An error frame's `result`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ErrorReply {
    pub(super) error: Cow<'static, str>,
    /// Usually a number; an object for `ratelimit`.
    pub(super) code: Code,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Code {
    Number(i64),
    Value(serde_json::Value),
    /// The gateway's own, unchanged.
    Said(Raw),
}

/// Raw JSON that is compared as text.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(super) struct Raw(Box<serde_json::value::RawValue>);

impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl ErrorReply {
    const fn word(error: &'static str, code: i64) -> Self {
        Self { error: Cow::Borrowed(error), code: Code::Number(code) }
    }

    /// No key came with the command.
    pub(super) const NO_KEY: Self = Self::word("missing_parameter_api", MISSING);
    /// The key is unknown, or has no right to this instance or command. Which of them is not told.
    pub(super) const WRONG_KEY: Self = Self::word("api_key_mismatch", FAILED);
    pub(super) const NO_INSTANCE: Self = Self::word("invalid_instance", 0);
    pub(super) const CONTENT_TYPE: Self = Self::word("invalid_content_type", 0);
    /// Malformed, on a connection in JSON.
    pub(super) const JSON: Self = Self::word("invalid_json", 0);
    /// Malformed, on a connection in JSON5.
    pub(super) const JSON5: Self = Self::word("invalid_json5", 0);
    /// A password that is not text.
    pub(super) const PASSWORD: Self = Self::word("invalid_password", 0);
    /// The outcome of the command is unknown.
    pub(super) const UNKNOWN: Self = Self::word("error_exec", FAILED);
    /// The command failed and changed nothing.
    pub(super) const FAILURE: Self = Self::word("server_error", FAILED);

    /// A parameter is missing or unusable.
    pub(super) fn missing(parameter: &str) -> Self {
        Self { error: Cow::Owned(format!("missing_parameter_{parameter}")), code: Code::Number(MISSING) }
    }

    /// Nothing was done; the command may be tried again after this long, rounded up so that it is not too early.
    pub(super) fn later(command: &str, retry_after: Duration) -> Self {
        let retry_after_ms = u64::try_from(retry_after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1);
        let code = json!({"command": command, "retry_after": retry_after_ms});
        Self { error: Cow::Borrowed("ratelimit"), code: Code::Value(code) }
    }

    /// Whether the command failed, or may have; everything else is a refusal.
    pub(super) fn is_failure(&self) -> bool {
        [&Self::UNKNOWN, &Self::FAILURE].iter().any(|failure| failure.error == self.error)
    }

    fn said(words: GatewayError) -> Self {
        Self { error: Cow::Owned(words.error), code: Code::Said(Raw(words.code)) }
    }

    /// The table: the answer to a command that ended in `error`.
    pub(super) fn of(error: Error, command: &str, kind: Kind) -> Self {
        match error {
            // No points, or the gateway's own `ratelimit`: nothing was done.
            Error::RateLimited { retry_after, .. }
            // Nothing was sent. The gateway has no words for these, and only `ratelimit` says that nothing happened and
            // when to try again.
            | Error::Unavailable { retry_after }
            | Error::Overloaded { retry_after }
            | Error::ShuttingDown { retry_after }
            | Error::NotOwner { retry_after }
            | Error::JournalUnavailable { retry_after } => Self::later(command, retry_after),
            Error::UnknownInstance => Self::NO_INSTANCE,
            Error::Refused(words) => Self::said(words),
            // What the gateway says about a command that the bridge does not know. Its `ratelimit` may be another
            // command's, so it does not prove that this one was not done.
            Error::OutcomeUnknown { gateway: Some(words), .. } if kind == Kind::Raw && words.error != "ratelimit" => {
                Self::said(words)
            }
            // Each native payment has a key of its own, so the last four do not occur.
            Error::OutcomeUnknown { .. }
            | Error::PaymentInProgress { .. }
            | Error::KeyReused
            | Error::UnknownPayment
            | Error::Unsettled(_) => Self::UNKNOWN,
            // Only of reads, which change nothing.
            Error::Timeout | Error::Lost { .. } | Error::NotCached | Error::Violation(_) => Self::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    const SOON: Duration = Duration::from_micros(1_500_400);

    fn told(outcome: Error, kind: Kind) -> String {
        serde_json::to_string(&ErrorReply::of(outcome, "payitems", kind)).unwrap()
    }

    fn words(error: &str, code: &str) -> GatewayError {
        GatewayError { error: error.to_owned(), code: RawValue::from_string(code.to_owned()).unwrap() }
    }

    #[test]
    fn ratelimit_is_said_of_what_was_not_done_and_of_nothing_else() {
        let not_done = [
            Error::RateLimited { retry_after: SOON, gateway: None },
            Error::RateLimited { retry_after: SOON, gateway: Some(words("ratelimit", "7")) },
            Error::Unavailable { retry_after: SOON },
            Error::Overloaded { retry_after: SOON },
            Error::ShuttingDown { retry_after: SOON },
            Error::NotOwner { retry_after: SOON },
            Error::JournalUnavailable { retry_after: SOON },
        ];
        for outcome in not_done {
            let frame = r#"{"error":"ratelimit","code":{"command":"payitems","retry_after":1501}}"#;
            assert_eq!(told(outcome, Kind::Payment), frame);
        }
        let done_perhaps = [
            Error::OutcomeUnknown { gateway: None, payment: None },
            Error::OutcomeUnknown { gateway: Some(words("ratelimit", "{}")), payment: None },
            Error::OutcomeUnknown { gateway: Some(words("server_error", "-1")), payment: Some("p".into()) },
            Error::PaymentInProgress { retry_after: SOON },
            Error::KeyReused,
            Error::UnknownPayment,
        ];
        for outcome in done_perhaps {
            assert_eq!(told(outcome, Kind::Payment), r#"{"error":"error_exec","code":-1}"#);
        }
    }

    #[test]
    fn the_gateway_s_refusals_are_passed_on_with_their_codes_as_they_were_spelled() {
        for (word, code) in [("invalid_password", "0"), ("getlicense", "1.50"), ("api_key_expired", r#"{"a": [1e2]}"#)]
        {
            let frame = format!(r#"{{"error":"{word}","code":{code}}}"#);
            assert_eq!(told(Error::Refused(words(word, code)), Kind::Payment), frame);
        }
        let unknown = |kind, word| {
            ErrorReply::of(Error::OutcomeUnknown { gateway: Some(words(word, "0")), payment: None }, "newthing", kind)
        };
        assert_eq!(unknown(Kind::Raw, "invalid_command").error, "invalid_command");
        assert_eq!(unknown(Kind::Raw, "ratelimit"), ErrorReply::UNKNOWN);
        assert_eq!(unknown(Kind::Payment, "invalid_command"), ErrorReply::UNKNOWN);
    }

    #[test]
    fn a_read_that_failed_is_a_server_error_and_the_reason_stays_here() {
        let lost = Error::Lost { retry_after: SOON };
        for outcome in [Error::Timeout, lost, Error::NotCached, Error::Violation("secret-looking".into())] {
            assert_eq!(told(outcome, Kind::Read), r#"{"error":"server_error","code":-1}"#);
        }
        assert_eq!(told(Error::UnknownInstance, Kind::Read), r#"{"error":"invalid_instance","code":0}"#);
        assert_eq!(ErrorReply::missing("POSID").error, "missing_parameter_POSID");
    }

    #[test]
    fn retry_after_is_never_zero() {
        assert_eq!(ErrorReply::later("x", Duration::ZERO), ErrorReply::later("x", Duration::from_millis(1)));
    }
}
