//! Ignores `Upgrade` offers of unknown protocols, such as the `Upgrade: h2c` that Java's client sends with every request.
//!
//! A server answers as if an unknown offer had not been made (RFC 9110, section 7.8). actix-http answers, but takes `upgrade`
//! among the options of `Connection` for the end of the connection, whatever is offered, and no answer can change that. So
//! that option is replaced by a meaningless one of the same length before the head is parsed. No byte is added or removed and
//! no field about the length of a body is touched, so even where this misreads what comes, requests end where they did.

/// A meaningless option of `Connection`, as long as `upgrade`.
const IGNORED: &[u8; 7] = b"ignored";

/// The option that is replaced.
const UPGRADE: &[u8; 7] = b"upgrade";

/// The one protocol that is known.
const KNOWN: &[u8] = b"websocket";

/// Whether a connection makes offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Offers {
    /// Nothing was read yet.
    #[default]
    Unread,
    /// Its first request made one, so the next ones may too.
    Made,
    /// Its first request made none, so the next ones are not searched.
    None,
}

impl Offers {
    /// Removes an unknown offer from what was just read, if that begins with a whole head.
    pub(super) fn ignore(&mut self, read: &mut [u8]) {
        if *self == Self::None {
            return;
        }
        let is_made = head_of(read).is_some_and(ignore);
        if *self == Self::Unread {
            *self = if is_made { Self::Made } else { Self::None };
        }
    }
}

/// The head of HTTP/1.1 at the beginning of `read`.
fn head_of(read: &mut [u8]) -> Option<&mut [u8]> {
    let end = read.windows(4).position(|four| four == b"\r\n\r\n")?;
    let line = read.split(|byte| *byte == b'\r').next()?;
    if line.ends_with(b" HTTP/1.1") { read.get_mut(..end) } else { None }
}

/// Removes an unknown offer from a head. Returns whether there was one.
fn ignore(head: &mut [u8]) -> bool {
    let mut offered = false;
    for line in head.split(|byte| *byte == b'\n') {
        let Some(value) = field(line, b"upgrade") else { continue };
        if value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(KNOWN)) {
            return false;
        }
        offered = true;
    }
    if !offered {
        return false;
    }
    for line in head.split_mut(|byte| *byte == b'\n').filter(|line| field(line, b"connection").is_some()) {
        let options = line.split_mut(|byte| matches!(byte, b',' | b':' | b' ' | b'\t' | b'\r'));
        for option in options.filter(|option| option.eq_ignore_ascii_case(UPGRADE)) {
            option.copy_from_slice(IGNORED);
        }
    }
    true
}

/// The value of a line if it is a field of this name.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    if start.eq_ignore_ascii_case(name) { rest.strip_prefix(b":") } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed(offers: &mut Offers, read: &str) -> String {
        let mut bytes = read.as_bytes().to_vec();
        offers.ignore(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_unknown_offer_is_removed_from_each_request_and_nothing_else_changes() {
        let java = "GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: a\r\nHTTP2-Settings: AAE\r\nUpgrade: h2c\r\n\r\n";
        let ignored = java.replace("Upgrade, HTTP2", "ignored, HTTP2");
        let mut offers = Offers::default();
        assert_eq!(passed(&mut offers, java), ignored);
        assert_eq!(passed(&mut offers, java), ignored, "and of the next");
        let with_body = java.replace("\r\n\r\n", "\r\nContent-Length: 22\r\n\r\n{\"Connection: Upgrade\"}");
        let body = with_body.split("\r\n\r\n").nth(1).unwrap();
        assert!(passed(&mut offers, &with_body).ends_with(body));
        let spelled = "POST /a HTTP/1.1\r\nupgrade: irc/6.9, h2c\r\nCONNECTION:keep-alive,UPGRADE\r\n\r\n";
        assert!(passed(&mut Offers::default(), spelled).contains("CONNECTION:keep-alive,ignored\r\n"));
    }

    #[test]
    fn a_known_offer_and_an_incomplete_head_are_left_alone() {
        for text in [
            "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c, WebSocket\r\n\r\n",
            "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nConnection: Upgrade\r\n\r\n",
            "GET / HTTP/1.1\r\nX-Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
            "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            "",
        ] {
            assert_eq!(passed(&mut Offers::default(), text), text);
        }
        let mut offers = Offers::default();
        passed(&mut offers, "GET / HTTP/1.1\r\n\r\n");
        assert_eq!(offers, Offers::None, "not searched again");
    }

    proptest! {
        #[test]
        fn only_options_of_connection_change(
            lines in prop::collection::vec(prop_oneof![
                "(?i)connection: ?(upgrade|keep-alive|x)?(, ?upgrade)?",
                "(?i)upgrade: ?(h2c|websocket|irc)?",
                "[a-z-]{1,12}: [ -~]{0,12}",
                "[ -~\n]{0,20}",
            ], 0..8),
            body in "[ -~\r\n]{0,40}",
        ) {
            let text = format!("POST / HTTP/1.1\r\n{}\r\n\r\n{body}", lines.join("\r\n"));
            let after = passed(&mut Offers::default(), &text);
            prop_assert_eq!(after.len(), text.len());
            for (before, after) in text.split('\n').zip(after.split('\n')) {
                let is_connection = before.to_ascii_lowercase().starts_with("connection:");
                prop_assert!(before == after || is_connection, "{} {}", before, after);
            }
        }
    }
}
