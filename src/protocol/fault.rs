//! The gateway's error words and what each means.
//!
//! An error frame names neither the command it belongs to nor, reliably, its cause; the word is all there is. Which
//! words prove that a payment was not booked is a promise to callers and is decided here, in one place.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::body::Body;
use super::command;

/// An error as the gateway said it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GatewayError {
    pub error: String,
    /// Usually a number; an object for `ratelimit`. Kept as it came.
    #[serde(default = "null", skip_serializing_if = "is_null")]
    pub code: Box<RawValue>,
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

// serde wants the field's own type here.
#[expect(clippy::borrowed_box)]
fn is_null(code: &Box<RawValue>) -> bool {
    code.get() == "null"
}

impl PartialEq for GatewayError {
    fn eq(&self, other: &Self) -> bool {
        self.error == other.error && self.code.get() == other.code.get()
    }
}

/// What a word means to the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// A command's points are spent.
    RateLimit {
        /// The command whose points are spent, where the gateway named it.
        command: Option<String>,
        /// How long the gateway asks to wait, where it said so.
        retry_after: Option<Duration>,
    },
    /// The bridge's own key was refused; no caller can change that.
    Credentials,
    /// The instance does not exist at the gateway.
    UnknownInstance,
    /// The password of the point of sale is wrong.
    PosPassword,
    License,
    /// The gateway did not understand the frame at all.
    NotUnderstood,
    MissingParameter,
    /// The command failed while it ran: it may have taken effect.
    Failed,
    /// A word that is not documented.
    Other,
}

impl GatewayError {
    /// An error of the given word without a code.
    #[must_use]
    pub fn word(error: &str) -> Self {
        Self { error: error.to_owned(), code: null() }
    }

    /// What the word means.
    #[must_use]
    pub fn meaning(&self) -> Meaning {
        match self.error.as_str() {
            "ratelimit" => self.rate_limit(),
            "missing_parameter_api" | "no_api_key" => Meaning::Credentials,
            "invalid_instance" => Meaning::UnknownInstance,
            "invalid_password" => Meaning::PosPassword,
            "getlicense" => Meaning::License,
            "invalid_content_type" => Meaning::NotUnderstood,
            "error_exec" | "server_error" => Meaning::Failed,
            word if word.starts_with("api_key_") => Meaning::Credentials,
            word if word.starts_with("invalid_json") => Meaning::NotUnderstood,
            word if word.starts_with("missing_parameter_") => Meaning::MissingParameter,
            _ => Meaning::Other,
        }
    }

    fn rate_limit(&self) -> Meaning {
        /// Each member by itself, so that one that is not understood hides none of the others.
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Code<'a> {
            #[serde(borrow)]
            command: Option<&'a RawValue>,
            #[serde(borrow)]
            retry_after: Option<&'a RawValue>,
        }
        let code: Code<'_> = serde_json::from_str(self.code.get()).unwrap_or_default();
        Meaning::RateLimit {
            command: code.command.and_then(|name| serde_json::from_str(name.get()).ok()),
            retry_after: code.retry_after.and_then(milliseconds),
        }
    }

    /// The reply to a payment that says itself that it failed: an error under the reply's own name. `None` for any other.
    #[must_use]
    pub fn of_failed_reply(event: &str, parameters: &Body) -> Option<Self> {
        #[derive(Deserialize)]
        struct Success<'a> {
            #[serde(borrow)]
            success: &'a RawValue,
        }
        let Success { success } = serde_json::from_str(parameters.as_str()).ok()?;
        let failed = matches!(success.get(), "false" | "\"false\"" | "0" | "\"0\"" | "null");
        let code = || RawValue::from_string(parameters.as_str().to_owned()).ok();
        if failed { Some(Self { error: event.to_owned(), code: code()? }) } else { None }
    }

    /// Whether this word proves that a `payitems` was not booked, if its reply does not come all the same. Every other word leaves its outcome unknown.
    #[must_use]
    pub fn refuses_payment(&self) -> bool {
        match self.meaning() {
            Meaning::RateLimit { command: Some(name), .. } => {
                name == command::PAYITEMS.name || name == command::PAYITEMS.reply_event
            }
            Meaning::Credentials
            | Meaning::PosPassword
            | Meaning::License
            | Meaning::NotUnderstood
            | Meaning::MissingParameter => true,
            Meaning::RateLimit { command: None, .. } | Meaning::UnknownInstance | Meaning::Failed | Meaning::Other => {
                false
            }
        }
    }

    /// Whether this is a `ratelimit` that names another command than this one, and so cannot be its answer. A command goes
    /// by its reply event too.
    #[must_use]
    pub fn is_rate_limit_of_another(&self, command: &str, reply_event: &str) -> bool {
        let named = match self.meaning() {
            Meaning::RateLimit { command, .. } => command,
            _ => None,
        };
        named.is_some_and(|named| named != command && named != reply_event)
    }
}

/// A number of milliseconds, or a text that spells one: the gateway is loose about which it sends. More than can be
/// counted is as long as can be; less than none, and what is no number, is nothing said.
fn milliseconds(raw: &RawValue) -> Option<Duration> {
    let text: Option<String> = serde_json::from_str(raw.get()).ok();
    let ms: f64 = text.as_deref().unwrap_or(raw.get()).trim().parse().ok()?;
    (ms >= 0.0).then(|| Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratelimit(code: &str) -> GatewayError {
        GatewayError { error: "ratelimit".into(), code: RawValue::from_string(code.into()).unwrap() }
    }

    #[test]
    fn a_rate_limit_carries_its_command_and_milliseconds() {
        assert_eq!(
            ratelimit(r#"{"command":"listpm","retry_after":1500}"#).meaning(),
            Meaning::RateLimit { command: Some("listpm".into()), retry_after: Some(Duration::from_millis(1500)) }
        );
    }

    #[test]
    fn absurd_rate_limit_codes_are_survived() {
        for code in ["0", "null", r#"{"retry_after":-1}"#, "[]", r#"{"command":7}"#, r#"{"retry_after":null}"#] {
            assert!(
                matches!(ratelimit(code).meaning(), Meaning::RateLimit { command: None, retry_after: None }),
                "{code}"
            );
        }
    }

    #[test]
    fn a_rate_limit_s_time_may_be_a_text_and_a_strange_one_does_not_hide_the_command() {
        let rows = [
            ("500", Some(Duration::from_millis(500))),
            (r#""500""#, Some(Duration::from_millis(500))),
            (r#"" 1.5e3 ""#, Some(Duration::from_millis(1500))),
            ("0", Some(Duration::ZERO)),
            ("1e300", Some(Duration::MAX)),
            (r#""Infinity""#, Some(Duration::MAX)),
            ("-1", None),
            (r#""-1""#, None),
            (r#""NaN""#, None),
            (r#""soon""#, None),
            ("null", None),
            ("[1]", None),
            (r#"{"ms":1}"#, None),
        ];
        for (spelled, retry_after) in rows {
            let error = ratelimit(&format!(r#"{{"command":"payitems","retry_after":{spelled}}}"#));
            let command = Some("payitems".into());
            assert_eq!(error.meaning(), Meaning::RateLimit { command, retry_after }, "{spelled}");
            assert!(error.refuses_payment(), "{spelled}");
        }
    }

    #[test]
    fn only_the_promised_words_prove_that_a_payment_was_refused() {
        let refusals = [
            "missing_parameter_api",
            "missing_parameter_POSID",
            "api_key_mismatch",
            "api_key_expired",
            "no_api_key",
            "invalid_password",
            "getlicense",
            "invalid_json",
            "invalid_json5",
            "invalid_content_type",
        ];
        for word in refusals {
            assert!(GatewayError::word(word).refuses_payment(), "{word}");
        }
        for word in
            ["error_exec", "server_error", "invalid_instance", "ratelimit", "whatever", "", "missing", "api_key"]
        {
            assert!(!GatewayError::word(word).refuses_payment(), "{word}");
        }
        for own in ["payitems", "payitem"] {
            assert!(ratelimit(&format!(r#"{{"command":"{own}","retry_after":1}}"#)).refuses_payment(), "{own}");
        }
        assert!(!ratelimit(r#"{"command":"listpm","retry_after":1}"#).refuses_payment());
    }
}
