//! From an error of the bridge to a problem: the one place where the two are matched.

use std::time::Duration;

use super::document::Problem;
use super::proxy_error::ProxyError;
use super::table;
use crate::bridge::Error;
use crate::journal::Rejection;
use crate::protocol::{GatewayError, Meaning};

/// How long a caller waits where the gateway refused for its limit without saying until when: its whole window, after
/// which everything counted before is forgotten (`protocol.md`).
const WHOLE_WINDOW: Duration = Duration::from_secs(30);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::UnknownInstance => Self::new(&table::UNKNOWN_INSTANCE),
            Error::Unavailable { retry_after } => Self::new(&table::GATEWAY_UNAVAILABLE).retry_after(retry_after),
            Error::Overloaded { retry_after } => Self::new(&table::OVERLOADED).retry_after(retry_after),
            Error::ShuttingDown { retry_after } => Self::new(&table::SHUTTING_DOWN).retry_after(retry_after),
            Error::NotOwner { retry_after } => Self::new(&table::SHUTTING_DOWN)
                .detail("No replica of the bridge serves this instance at this moment. Nothing was sent.")
                .retry_after(retry_after),
            Error::RateLimited { retry_after, gateway } => {
                Self::new(&table::RATE_LIMITED).retry_after(retry_after).gateway(gateway)
            }
            Error::Refused(words) => refused(words),
            Error::Lost { retry_after } => Self::new(&table::GATEWAY_UNAVAILABLE)
                .detail("The connection to the gateway was lost before it answered, each time that it was asked.")
                .proxy_error(ProxyError::ConnectionTerminated)
                .retry_after(retry_after),
            Error::Timeout => Self::new(&table::GATEWAY_TIMEOUT),
            Error::NotCached => Self::new(&table::NOT_CACHED),
            Error::Violation(reason) => {
                tracing::warn!(%reason, "the gateway's answer was not understood");
                Self::new(&table::GATEWAY_PROTOCOL_VIOLATION)
            }
            Error::OutcomeUnknown { gateway, .. } => Self::new(&table::PAYMENT_OUTCOME_UNKNOWN).gateway(gateway),
            Error::PaymentInProgress { retry_after } => Self::new(&table::PAYMENT_IN_PROGRESS).retry_after(retry_after),
            Error::KeyReused => Self::new(&table::IDEMPOTENCY_KEY_REUSED),
            Error::UnknownPayment => Self::new(&table::UNKNOWN_PAYMENT),
            Error::Unsettled(Rejection::Stale(_)) => Self::new(&table::PRECONDITION_FAILED),
            Error::Unsettled(why @ Rejection::TooEarly { seconds }) => Self::new(&table::OUTCOME_CONFLICT)
                .detail(format!("Nothing was changed: {why}."))
                .retry_after(Duration::from_secs(seconds)),
            Error::Unsettled(why) => Self::new(&table::OUTCOME_CONFLICT).detail(format!("Nothing was changed: {why}.")),
            Error::JournalUnavailable { retry_after } => {
                Self::new(&table::JOURNAL_UNAVAILABLE).retry_after(retry_after)
            }
        }
    }
}

/// The problem of a raw command. Where its outcome is unknown there is no key to repeat it under, so the problem is not
/// retryable.
#[must_use]
pub fn of_raw_command(error: Error) -> Problem {
    match error {
        Error::OutcomeUnknown { gateway: None, .. } => Problem::new(&table::GATEWAY_TIMEOUT)
            .detail("The command was sent and no answer came in time. Whether it took effect is not known.")
            .not_retryable(),
        Error::OutcomeUnknown { gateway: Some(words), .. } => Problem::new(&table::GATEWAY_ERROR)
            .detail("The gateway answered with an error. Whether the command took effect is not known.")
            .gateway(words)
            .not_retryable(),
        other => other.into(),
    }
}

fn refused(words: GatewayError) -> Problem {
    let problem = match words.meaning() {
        Meaning::RateLimit { retry_after, .. } => {
            Problem::new(&table::RATE_LIMITED).retry_after(retry_after.unwrap_or(WHOLE_WINDOW))
        }
        Meaning::Credentials => Problem::new(&table::GATEWAY_CREDENTIALS_REJECTED),
        Meaning::PosPassword => Problem::new(&table::POS_PASSWORD_REJECTED),
        Meaning::License => Problem::new(&table::LICENSE_INVALID),
        Meaning::MissingParameter => Problem::new(&table::GATEWAY_REJECTED_PARAMETERS),
        Meaning::UnknownInstance => Problem::new(&table::GATEWAY_ERROR)
            .detail("The gateway knows no instance of this name; the bridge's operator must correct its slug.")
            .not_retryable(),
        Meaning::NotUnderstood => Problem::new(&table::GATEWAY_ERROR)
            .detail("The gateway did not understand what the bridge sent it.")
            .not_retryable(),
        Meaning::Failed | Meaning::Other => Problem::new(&table::GATEWAY_ERROR),
    };
    problem.gateway(words)
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    async fn body_of(problem: Problem) -> Value {
        let body = to_bytes(problem.render("", None).into_body()).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[actix_web::test]
    async fn each_outcome_has_its_code() {
        let retry_after = Duration::from_millis(1200);
        let rows = [
            (Error::UnknownInstance, "unknown-instance", None),
            (Error::Unavailable { retry_after }, "gateway-unavailable", Some(2)),
            (Error::Overloaded { retry_after }, "overloaded", Some(2)),
            (Error::ShuttingDown { retry_after }, "shutting-down", Some(2)),
            (Error::NotOwner { retry_after }, "shutting-down", Some(2)),
            (Error::RateLimited { retry_after, gateway: None }, "rate-limited", Some(2)),
            (Error::Lost { retry_after }, "gateway-unavailable", Some(2)),
            (Error::Timeout, "gateway-timeout", None),
            (Error::Violation("a number".into()), "gateway-protocol-violation", None),
            (Error::OutcomeUnknown { gateway: None, payment: None }, "payment-outcome-unknown", None),
        ];
        for (error, code, seconds) in rows {
            let body = body_of(error.into()).await;
            assert_eq!(body["code"], code);
            assert_eq!(body["retry_after"].as_u64(), seconds, "{code}");
        }
    }

    #[actix_web::test]
    async fn each_of_the_gateway_s_words_has_its_code_and_is_passed_on() {
        let rows = [
            ("missing_parameter_POSID", "gateway-rejected-parameters", false),
            ("missing_parameter_api", "gateway-credentials-rejected", false),
            ("api_key_mismatch", "gateway-credentials-rejected", false),
            ("no_api_key", "gateway-credentials-rejected", false),
            ("invalid_password", "pos-password-rejected", false),
            ("getlicense", "license-invalid", false),
            ("invalid_instance", "gateway-error", false),
            ("invalid_json", "gateway-error", false),
            ("error_exec", "gateway-error", true),
            ("something_new", "gateway-error", true),
        ];
        for (word, code, retryable) in rows {
            let body = body_of(Error::Refused(GatewayError::word(word)).into()).await;
            assert_eq!(body["code"], code, "{word}");
            assert_eq!(body["retryable"], retryable, "{word}");
            assert_eq!(body["gateway"]["error"], word);
        }
    }

    #[actix_web::test]
    async fn a_rate_limit_in_the_gateway_s_words_says_when_and_is_never_silent_about_it() {
        let code = RawValue::from_string(r#"{"command":"listpm","retry_after":1500}"#.into()).unwrap();
        let body = body_of(Error::Refused(GatewayError { error: "ratelimit".into(), code }).into()).await;
        assert_eq!((body["code"].as_str(), body["retry_after"].as_u64()), (Some("rate-limited"), Some(2)));
        assert_eq!(body["gateway"]["code"]["retry_after"], 1500);
        let body = body_of(Error::Refused(GatewayError::word("ratelimit")).into()).await;
        assert_eq!(body["retry_after"], 30);
    }

    #[actix_web::test]
    async fn a_raw_command_of_unknown_outcome_is_not_called_a_payment_nor_retryable() {
        let body = body_of(of_raw_command(Error::OutcomeUnknown { gateway: None, payment: None })).await;
        assert_eq!((body["code"].as_str(), body["retryable"].as_bool()), (Some("gateway-timeout"), Some(false)));
        let gateway = Some(GatewayError::word("error_exec"));
        let body = body_of(of_raw_command(Error::OutcomeUnknown { gateway, payment: None })).await;
        assert_eq!((body["code"].as_str(), body["retryable"].as_bool()), (Some("gateway-error"), Some(false)));
    }

    #[actix_web::test]
    async fn the_words_of_a_violation_are_for_the_log_only() {
        let body = body_of(Error::Violation("secret-looking".into()).into()).await;
        assert!(!body.to_string().contains("secret-looking"));
    }
}
