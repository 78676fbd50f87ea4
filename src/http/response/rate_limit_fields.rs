//! What is left of a command's budget, in the header fields of the IETF draft "`RateLimit` header fields for HTTP".
//!
//! Counted in requests, since callers know nothing of points: `q` fit into one window of `w` seconds, `r` could be
//! granted now, and in `t` seconds there could be one more.

use std::cell::RefCell;

use actix_web::HttpResponse;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::web::BytesMut;

use crate::budget::Quota;
use crate::http::problem::Problem;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The two fields that speak of `command`.
fn fields(command: &str, quota: Quota) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let Quota { requests, window_secs, remaining, more_in_secs } = quota;
    let policy = policy(command, [requests, window_secs]);
    let limit = item(command, [(";r=", remaining), (";t=", more_in_secs)]);
    [(POLICY, policy), (LIMIT, limit)].into_iter().filter_map(|(name, value)| Some((name, value?)))
}

/// More than there are commands.
const MOST_POLICIES: usize = 64;

/// What was last said of a command.
struct KnownPolicy {
    command: Box<str>,
    numbers: [u64; 2],
    value: HeaderValue,
}

thread_local! {
    static POLICIES: RefCell<Vec<KnownPolicy>> = const { RefCell::new(Vec::new()) };
}

/// The command with its requests and their window in seconds. These rarely change, so the text is kept.
fn policy(command: &str, numbers: [u64; 2]) -> Option<HeaderValue> {
    POLICIES.with_borrow_mut(|policies| {
        let has_room = policies.len() < MOST_POLICIES;
        let known = policies.iter_mut().find(|known| *known.command == *command);
        if let Some(known) = known.as_deref().filter(|known| known.numbers == numbers) {
            return Some(known.value.clone());
        }
        let [requests, window_secs] = numbers;
        let value = item(command, [(";q=", requests), (";w=", window_secs)])?;
        let policy = KnownPolicy { command: command.into(), numbers, value: value.clone() };
        match known {
            Some(known) => *known = policy,
            None if has_room => policies.push(policy),
            None => {}
        }
        Some(value)
    })
}

/// The command with two numbers of it.
fn item(command: &str, parameters: [(&str, u64); 2]) -> Option<HeaderValue> {
    // Long enough for every command that is documented.
    let mut text = BytesMut::with_capacity(64);
    let mut digits = itoa::Buffer::new();
    text.extend_from_slice(b"\"");
    text.extend_from_slice(command.as_bytes());
    text.extend_from_slice(b"\"");
    for (name, number) in parameters {
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(digits.format(number).as_bytes());
    }
    // Commands are named with lower-case letters, digits and `_`, so it is visible ASCII.
    HeaderValue::from_maybe_shared(text.freeze()).ok()
}

/// Adds the fields to an answer.
fn tell(headers: &mut HeaderMap, command: &str, quota: Quota) {
    for (name, value) in fields(command, quota) {
        headers.insert(name, value);
    }
}

/// Adds the fields to what came of a command that was asked for: to its answer, and to a problem that touched the
/// budget, since the command was sent, or would have been.
pub fn add_to(
    outcome: Result<HttpResponse, Problem>,
    command: &str,
    quota: Option<Quota>,
) -> Result<HttpResponse, Problem> {
    let Some(quota) = quota else { return outcome };
    match outcome {
        Ok(mut response) => {
            tell(response.headers_mut(), command, quota);
            Ok(response)
        }
        Err(problem) if touched_the_budget(&problem) => {
            Err(fields(command, quota).fold(problem, |problem, (name, value)| problem.header(name, value)))
        }
        problem => problem,
    }
}

fn touched_the_budget(problem: &Problem) -> bool {
    problem.is_the_gateway_s() || problem.entry().touches_budget
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::problem::table;

    const QUOTA: Quota = Quota { requests: 4, window_secs: 31, remaining: 1, more_in_secs: 12 };

    fn value<'a>(response: &'a HttpResponse, name: &str) -> Option<&'a str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn answers_and_problems_that_touched_the_budget_speak_of_it_and_others_do_not() {
        let answer = add_to(Ok(HttpResponse::Ok().finish()), "getconfig", Some(QUOTA)).unwrap();
        assert_eq!(value(&answer, "ratelimit-policy"), Some(r#""getconfig";q=4;w=31"#));
        assert_eq!(value(&answer, "ratelimit"), Some(r#""getconfig";r=1;t=12"#));
        let limited = Problem::new(&table::RATE_LIMITED).retry_after(Duration::from_secs(12));
        let limited = add_to(Err(limited), "getconfig", Some(QUOTA)).unwrap_err().render("", None);
        assert_eq!(value(&limited, "ratelimit"), Some(r#""getconfig";r=1;t=12"#));
        assert_eq!(value(&limited, "retry-after"), Some("12"));
        let unknown = add_to(Err(Problem::new(&table::UNKNOWN_INSTANCE)), "getconfig", Some(QUOTA));
        assert_eq!(value(&unknown.unwrap_err().render("", None), "ratelimit"), None);
    }

    #[test]
    fn a_policy_that_was_kept_is_that_of_the_command_and_of_its_numbers() {
        for round in 0..3 {
            for number in 0..2 * MOST_POLICIES as u64 {
                let told = policy(&format!("command{number}"), [number, round]).unwrap();
                assert_eq!(told, format!(r#""command{number}";q={number};w={round}"#));
            }
        }
        POLICIES.with_borrow(|policies| assert_eq!(policies.len(), MOST_POLICIES));
    }
}
