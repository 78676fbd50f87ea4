//! Refusals in the gateway's own words, and THE table from what the bridge says to them. Pure.
//!
//! A till understands the words that its maker knew and ignores all others, so each outcome is told by the known word
//! whose consequence is the right one. Two of them carry money. `ratelimit` is the only word by which a till knows that
//! nothing happened and when to try again: it stands for everything that was provably not done, and for nothing else.
//! `error_exec` means that nobody knows: it stands for every payment whose outcome is not known, so that no cashier is
//! told to sell again what may be booked already.

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
    /// The word.
    pub(super) error: Cow<'static, str>,
    /// Usually a number; an object for `ratelimit`.
    pub(super) code: Code,
}

/// What stands beside the word.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Code {
    /// A number of the gateway's.
    Number(i64),
    /// Made here.
    Value(serde_json::Value),
    /// What the gateway itself said, as it said it.
    Said(Raw),
}

/// Raw JSON that compares by its spelling.
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
    /// The key is not known, not for this instance, or not for this command. Which of them is nobody's business.
    pub(super) const WRONG_KEY: Self = Self::word("api_key_mismatch", FAILED);
    /// There is no such instance here.
    pub(super) const NO_INSTANCE: Self = Self::word("invalid_instance", 0);
    /// The URL asks for a format that does not exist.
    pub(super) const CONTENT_TYPE: Self = Self::word("invalid_content_type", 0);
    /// A frame that is no JSON, on a connection that prints JSON.
    pub(super) const JSON: Self = Self::word("invalid_json", 0);
    /// A frame that is not even JSON5, on a connection that prints JSON5.
    pub(super) const JSON5: Self = Self::word("invalid_json5", 0);
    /// A password that is no text.
    pub(super) const PASSWORD: Self = Self::word("invalid_password", 0);
    /// The bridge does not know what became of the command.
    pub(super) const UNKNOWN: Self = Self::word("error_exec", FAILED);
    /// The command failed and changed nothing.
    pub(super) const FAILURE: Self = Self::word("server_error", FAILED);

    /// A parameter is missing or unusable.
    pub(super) fn missing(parameter: &str) -> Self {
        Self { error: Cow::Owned(format!("missing_parameter_{parameter}")), code: Code::Number(MISSING) }
    }

    /// Nothing was done; it may be tried again after this long. Rounded up, so that whoever waits exactly as long as
    /// told is let in.
    pub(super) fn later(command: &str, retry_after: Duration) -> Self {
        let retry_after_ms = u64::try_from(retry_after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1);
        let code = json!({"command": command, "retry_after": retry_after_ms});
        Self { error: Cow::Borrowed("ratelimit"), code: Code::Value(code) }
    }

    /// What the gateway said.
    fn said(words: GatewayError) -> Self {
        Self { error: Cow::Owned(words.error), code: Code::Said(Raw(words.code)) }
    }

    /// THE table: what a command that ended in `outcome` is answered with.
    pub(super) fn of(outcome: Error, command: &str, kind: Kind) -> Self {
        match outcome {
            // Points are spent at the bridge, or the gateway refused for its limit: either way nothing was done.
            Error::RateLimited { retry_after, .. }
            // Nothing was written: no connection, no place in the queue, on the way out, no record to be had. No word
            // of the gateway means these; only `ratelimit` says both that nothing happened and when to come again.
            | Error::Unavailable { retry_after }
            | Error::Overloaded { retry_after }
            | Error::ShuttingDown { retry_after }
            | Error::JournalUnavailable { retry_after } => Self::later(command, retry_after),
            Error::UnknownInstance => Self::NO_INSTANCE,
            // The gateway's refusal is the till's: it hears what it would have heard without a bridge.
            Error::Refused(words) => Self::said(words),
            // Of a command that nobody knows the gateway's word is all there is, and its caller speaks its language. A
            // limit that it names there proves nothing about this command.
            Error::OutcomeUnknown { gateway: Some(words), .. } if kind == Kind::Raw && words.error != "ratelimit" => {
                Self::said(words)
            }
            // A key is used once here, so the last four cannot be; were they, the careful word would be right.
            Error::OutcomeUnknown { .. }
            | Error::PaymentInProgress { .. }
            | Error::KeyReused
            | Error::UnknownPayment
            | Error::Unsettled(_) => Self::UNKNOWN,
            // Reads only, which change nothing however far they got.
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
    fn nobody_is_told_to_come_back_at_once() {
        assert_eq!(ErrorReply::later("x", Duration::ZERO), ErrorReply::later("x", Duration::from_millis(1)));
    }
}
