//! `Prefer: wait=N` (RFC 7240). What is malformed is ignored, as the RFC says, and so is every other preference.

use actix_web::http::header::{HeaderMap, HeaderName};

/// What callers prefer.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// For how many seconds the caller prefers to wait.
#[must_use]
pub fn wait(headers: &HeaderMap) -> Option<u64> {
    let lines = headers.get_all(PREFER).filter_map(|line| line.to_str().ok());
    // The first of two with the same name is the one that counts, even if it is malformed.
    let (_, value) =
        lines.flat_map(|line| parts(line, ',')).filter_map(preference).find(|(name, _)| *name == "wait")?;
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than fit are a wait without end.
    is_number.then(|| value.parse().unwrap_or(u64::MAX))
}

/// The name of one preference, in lower case, and its value; its parameters mean nothing here.
fn preference(text: &str) -> Option<(String, &str)> {
    let text = parts(text, ';').next()?;
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some((name, unquoted.unwrap_or(value)))
}

/// The parts of a text between separators that are not in a quoted string.
fn parts(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |found: char| {
        let ends = found == separator && !is_quoted;
        is_quoted ^= found == '"' && !is_escaped;
        is_escaped = found == '\\' && is_quoted && !is_escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn wished(lines: &[&str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(PREFER, HeaderValue::from_str(line).unwrap());
        }
        wait(&headers)
    }

    #[test]
    fn the_wait_is_found_among_other_preferences_however_it_is_spelled() {
        for lines in [
            &["wait=7"][..],
            &["Wait = 7"],
            &["wait=\"7\""],
            &["respond-async, wait=7"],
            &["respond-async", "wait=7"],
            &["return=minimal; foo=\"a,wait=1;b\", wait=7"],
            &["foo=\"\\\", wait=1\", , wait=7 ; x=y"],
            &["wait=7, wait=1"],
            &["wait=007"],
        ] {
            assert_eq!(wished(lines), Some(7), "{lines:?}");
        }
        assert_eq!(wished(&["wait=0"]), Some(0));
        assert_eq!(wished(&["wait=99999999999999999999999"]), Some(u64::MAX));
    }

    #[test]
    fn what_is_malformed_or_says_nothing_of_a_wait_is_ignored() {
        for lines in [
            &[][..],
            &[""],
            &["wait"],
            &["wait="],
            &["wait=-1"],
            &["wait=+1"],
            &["wait=1.5"],
            &["wait=soon"],
            &["wait=1s"],
            &["wait=\"7"],
            &["wait=soon, wait=7"],
            &["waiting=7"],
            &["foo; wait=7"],
            &["return=minimal, =, ;;, \""],
            &["foo=\"wait=7"],
        ] {
            assert_eq!(wished(lines), None, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_read_back_from_among_any_other_preferences(
            before in prop::collection::vec("[a-v][a-z]{0,5}(=([a-z]{1,4}|\"[ -!#-\\[\\]-~]{0,8}\"))?(; [a-z]{1,3}=[0-9]{1,2})?", 0..5),
            seconds in any::<u32>(),
        ) {
            let mut preferences = before;
            preferences.push(format!("wait={seconds}"));
            prop_assert_eq!(wished(&[&preferences.join(", ")]), Some(seconds.into()));
        }

        #[test]
        fn no_field_panics(line in prop::collection::vec(prop_oneof![32..=126u8, 128..=255u8, Just(9u8)], 0..40)) {
            let mut headers = HeaderMap::new();
            headers.append(PREFER, HeaderValue::from_bytes(&line).unwrap());
            let _ = wait(&headers);
        }
    }
}
