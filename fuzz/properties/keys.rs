//! Idempotency keys: every text is one key or none, and both its spellings are the same one.

use concertpos_bridge::internals::http::request::idempotency_key::IdempotencyKey;

pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(key) = IdempotencyKey::parse(&text) else {
        // What is plainly a key is never refused.
        let plain = (1..=255).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
            && !text.starts_with('"');
        assert!(!plain, "a key was refused: {text:?}");
        return;
    };
    let spelled = key.as_str();
    assert!((1..=255).contains(&spelled.len()) && spelled.bytes().all(|byte| byte.is_ascii_graphic()), "{spelled:?}");
    let quoted = format!("\"{}\"", spelled.replace('\\', "\\\\").replace('"', "\\\""));
    assert_eq!(IdempotencyKey::parse(&quoted).as_ref(), Some(&key), "{quoted:?}");
    assert_eq!(IdempotencyKey::parse(&format!(" \t{quoted}\t ")).as_ref(), Some(&key), "{quoted:?}");
    if !spelled.starts_with('"') {
        assert_eq!(IdempotencyKey::parse(spelled).as_ref(), Some(&key), "{spelled:?}");
    }
}
