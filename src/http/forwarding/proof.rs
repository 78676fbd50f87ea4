//! How replicas prove to each other that they know the cluster's secret, which itself is never sent. Pure.
//!
//! A request that is passed on carries a [`Ticket`] with an HMAC over it, the method, and the path with its query; the answer
//! an HMAC over that one, the status, and what is said of it. So an answer belongs to one request, and a request that is
//! recorded can be repeated by who recorded it only at the same replica and within [`TOLERANCE`].

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use actix_web::http::header::HeaderName;
use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;

/// The field of a request that is passed on, and of its answer.
pub(super) const FIELD: HeaderName = HeaderName::from_static("bridge-forwarded");

/// The form of both fields. A replica refuses any other one.
const FORMAT: &str = "1";

/// By how much the wall clocks of two replicas may differ, and for how long a recorded request could be repeated.
pub(super) const TOLERANCE: Duration = Duration::from_secs(30);

/// What else than letters and digits stands in a name as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b':').remove(b'[').remove(b']');

/// Names without a value.
const NONE: &str = "-";

/// What replicas prove to know.
#[derive(Clone)]
pub(super) struct Key(Hmac<Sha256>);

/// The key is a secret.
impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key")
    }
}

/// One HMAC.
type Code = [u8; 32];

impl Key {
    /// An error where there is no secret.
    pub(super) fn new(secret: &str) -> Result<Self, String> {
        let empty = || "the secret of the cluster is empty".to_owned();
        if secret.is_empty() {
            return Err(empty());
        }
        Hmac::new_from_slice(secret.as_bytes()).map(Self).map_err(|_| empty())
    }

    /// Over the parts in their order, each with its length, so that no two lists of parts are one text.
    fn over(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    fn sign(&self, parts: &[&[u8]]) -> Code {
        self.over(parts).finalize().into_bytes().into()
    }

    /// In constant time.
    fn verify(&self, parts: &[&[u8]], code: &str) -> Option<Code> {
        let code: Code = HEX.decode(code.as_bytes()).ok()?.try_into().ok()?;
        self.over(parts).verify_slice(&code).is_ok().then_some(code)
    }
}

/// What a replica says of a request that it passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) time_ms: i64,
    pub(super) nonce: [u8; 16],
    /// The epoch of the owner for which the request is meant.
    pub(super) epoch: i64,
    /// How often it was passed on, with this time.
    pub(super) hops: u8,
    /// What is left of its deadline.
    pub(super) left_ms: u64,
    /// The caller's.
    pub(super) address: IpAddr,
    /// The name of the replica that passes it on.
    pub(super) from: String,
    /// Where the other replica takes what is passed on.
    pub(super) to: String,
}

/// A ticket as it is sent, and what its answer is proved with.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub(super) text: String,
    code: Code,
}

/// A ticket that was proved, and what its answer is proved with.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    pub(super) ticket: Ticket,
    code: Code,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Missing,
    Malformed,
    /// Made with another secret, or for another request.
    Wrong,
    /// The clocks differ by this many milliseconds.
    Clock(i64),
    /// It is meant for another replica.
    Elsewhere,
}

impl Refusal {
    /// For people.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Missing => "it has no proof of the cluster's secret",
            Self::Malformed => "its proof is not understood: the other replica may be of another version",
            Self::Wrong => "its proof is wrong: cluster.secret_file differs",
            Self::Clock(_) => "the clocks of the two replicas differ too much, or it was repeated",
            Self::Elsewhere => "it is meant for another replica: two of them may have one cluster.advertise",
        }
    }
}

fn encoded(name: &str) -> String {
    if name.is_empty() { NONE.to_owned() } else { utf8_percent_encode(name, KEPT).to_string() }
}

fn decoded(name: &str) -> Option<String> {
    percent_decode_str(name).decode_utf8().ok().map(Into::into)
}

impl Ticket {
    /// As it is sent with a request of this method, and this path with its query.
    pub(super) fn seal(&self, key: &Key, method: &str, target: &str) -> Sealed {
        let Self { time_ms, epoch, hops, left_ms, address, .. } = self;
        let (nonce, from, to) = (HEX.encode(&self.nonce), encoded(&self.from), encoded(&self.to));
        let said = format!("{FORMAT} {time_ms} {nonce} {epoch} {hops} {left_ms} {address} {from} {to}");
        let code = key.sign(&parts_of_request(&said, method, target));
        Sealed { text: [&said, " ", &HEX.encode(&code)].concat(), code }
    }

    fn parse(said: &str) -> Option<Self> {
        let mut words = said.split(' ');
        let mut next = || words.next();
        if next()? != FORMAT {
            return None;
        }
        let ticket = Self {
            time_ms: next()?.parse().ok()?,
            nonce: HEX.decode(next()?.as_bytes()).ok()?.try_into().ok()?,
            epoch: next()?.parse().ok()?,
            hops: next()?.parse().ok()?,
            left_ms: next()?.parse().ok()?,
            address: next()?.parse().ok()?,
            from: decoded(next()?)?,
            to: decoded(next()?)?,
        };
        // A newer replica may say more.
        Some(ticket)
    }
}

fn parts_of_request<'a>(said: &'a str, method: &'a str, target: &'a str) -> [&'a [u8]; 4] {
    [b"request", said.as_bytes(), method.as_bytes(), target.as_bytes()]
}

/// The ticket of a request that came to `me` at `now_ms` by the wall clock.
pub(super) fn open(
    key: &Key,
    (method, target): (&str, &str),
    field: Option<&str>,
    (me, now_ms): (&str, i64),
) -> Result<Verified, Refusal> {
    let (said, code) = field.ok_or(Refusal::Missing)?.rsplit_once(' ').ok_or(Refusal::Malformed)?;
    if !said.starts_with(FORMAT) {
        return Err(Refusal::Malformed);
    }
    let code = key.verify(&parts_of_request(said, method, target), code).ok_or(Refusal::Wrong)?;
    let ticket = Ticket::parse(said).ok_or(Refusal::Malformed)?;
    let difference = now_ms.saturating_sub(ticket.time_ms);
    if u128::from(difference.unsigned_abs()) > TOLERANCE.as_millis() {
        return Err(Refusal::Clock(difference));
    }
    if ticket.to != me {
        return Err(Refusal::Elsewhere);
    }
    Ok(Verified { ticket, code })
}

/// What a replica says of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// Whether it is the owner's. Otherwise nothing was begun, and the request may go elsewhere, whatever it asks for.
    pub(super) is_served: bool,
    /// The name of the caller, if one was admitted.
    pub(super) caller: Option<String>,
}

const SERVED: &str = "served";
const ELSEWHERE: &str = "elsewhere";

impl Said {
    /// As it is sent with the answer, of this status, to that request.
    pub(super) fn seal(&self, key: &Key, request: &Verified, status: u16) -> String {
        let caller = self.caller.as_deref().map_or_else(|| NONE.to_owned(), |name| format!("={}", encoded(name)));
        let said = format!("{FORMAT} {} {caller}", if self.is_served { SERVED } else { ELSEWHERE });
        let code = key.sign(&parts_of_answer(&said, &request.code, &status.to_be_bytes()));
        [&said, " ", &HEX.encode(&code)].concat()
    }

    /// What is said of the answer to `request`; none where it is not proved.
    pub(super) fn open(key: &Key, request: &Sealed, status: u16, field: Option<&str>) -> Option<Self> {
        let (said, code) = field?.rsplit_once(' ')?;
        key.verify(&parts_of_answer(said, &request.code, &status.to_be_bytes()), code)?;
        let mut words = said.split(' ');
        if words.next()? != FORMAT {
            return None;
        }
        let is_served = words.next()? == SERVED;
        let caller = words.next()?.strip_prefix('=').and_then(decoded);
        Some(Self { is_served, caller })
    }
}

fn parts_of_answer<'a>(said: &'a str, request: &'a Code, status: &'a [u8]) -> [&'a [u8]; 4] {
    [b"answer", said.as_bytes(), request, status]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ME: &str = "10.0.0.5:9191";
    const NOW: i64 = 1_790_000_000_000;

    fn ticket() -> Ticket {
        Ticket {
            time_ms: NOW,
            nonce: [7; 16],
            epoch: 41,
            hops: 1,
            left_ms: 14_000,
            address: "2001:db8::7".parse().unwrap(),
            from: "bridge 0".to_owned(),
            to: ME.to_owned(),
        }
    }

    fn key(secret: &str) -> Key {
        Key::new(secret).unwrap()
    }

    fn opened(field: Option<&str>, secret: &str, method: &str, target: &str, now_ms: i64) -> Result<Ticket, Refusal> {
        open(&key(secret), (method, target), field, (ME, now_ms)).map(|verified| verified.ticket)
    }

    #[test]
    fn a_ticket_is_taken_for_its_own_request_alone() {
        let sealed = ticket().seal(&key("s"), "POST", "/v1/a?b=c").text;
        assert!(!sealed.contains("secret") && sealed.is_ascii());
        let open = |secret, method, target| opened(Some(&sealed), secret, method, target, NOW);
        assert_eq!(open("s", "POST", "/v1/a?b=c"), Ok(ticket()));
        assert_eq!(open("t", "POST", "/v1/a?b=c"), Err(Refusal::Wrong));
        assert_eq!(open("s", "GET", "/v1/a?b=c"), Err(Refusal::Wrong));
        assert_eq!(open("s", "POST", "/v1/a?b=d"), Err(Refusal::Wrong));
        assert_eq!(opened(None, "s", "POST", "/v1/a?b=c", NOW), Err(Refusal::Missing));
        for malformed in ["", "1", "2 x", "1 x"] {
            let refusal = opened(Some(malformed), "s", "POST", "/v1/a?b=c", NOW).unwrap_err();
            assert!(matches!(refusal, Refusal::Malformed | Refusal::Wrong), "{malformed}: {refusal:?}");
        }
    }

    #[test]
    fn a_ticket_is_taken_at_its_time_and_place_alone() {
        let sealed = ticket().seal(&key("s"), "GET", "/").text;
        let tolerance = i64::try_from(TOLERANCE.as_millis()).unwrap();
        for apart in [0, tolerance, -tolerance] {
            assert!(opened(Some(&sealed), "s", "GET", "/", NOW + apart).is_ok(), "{apart}");
        }
        for apart in [tolerance + 1, -tolerance - 1] {
            assert_eq!(opened(Some(&sealed), "s", "GET", "/", NOW + apart), Err(Refusal::Clock(apart)));
        }
        let elsewhere = Ticket { to: "10.0.0.6:9191".to_owned(), ..ticket() }.seal(&key("s"), "GET", "/").text;
        assert_eq!(opened(Some(&elsewhere), "s", "GET", "/", NOW), Err(Refusal::Elsewhere));
    }

    /// As the first release spells both: replicas of two releases serve together while they are upgraded.
    #[test]
    fn what_a_newer_replica_adds_is_passed_over_and_another_form_is_refused() {
        let key = key("s");
        let said = "1 1790000000000 07070707070707070707070707070707 41 1 14000 2001:db8::7 bridge%200 10.0.0.5:9191";
        let sealed = |said: &str| {
            let code = key.sign(&parts_of_request(said, "GET", "/"));
            [said, " ", &HEX.encode(&code)].concat()
        };
        assert_eq!(ticket().seal(&key, "GET", "/").text, sealed(said));
        for more in ["", " added", " added=1 more"] {
            assert_eq!(opened(Some(&sealed(&[said, more].concat())), "s", "GET", "/", NOW), Ok(ticket()), "{more}");
        }
        let another = sealed(&said.replacen('1', "2", 1));
        assert_eq!(opened(Some(&another), "s", "GET", "/", NOW), Err(Refusal::Malformed));
        let (request, of_answer) = (ticket().seal(&key, "GET", "/"), Said { is_served: true, caller: None });
        for (said, expected) in
            [("1 served -", Some(&of_answer)), ("1 served - added", Some(&of_answer)), ("2 served -", None)]
        {
            let code = key.sign(&parts_of_answer(said, &request.code, &200_u16.to_be_bytes()));
            let text = [said, " ", &HEX.encode(&code)].concat();
            assert_eq!(Said::open(&key, &request, 200, Some(&text)).as_ref(), expected, "{said}");
        }
    }

    #[test]
    fn an_answer_is_believed_for_its_own_request_and_status_alone() {
        let (key, other) = (key("s"), key("t"));
        let sealed = ticket().seal(&key, "GET", "/");
        let verified = open(&key, ("GET", "/"), Some(&sealed.text), (ME, NOW)).unwrap();
        for caller in [None, Some("shop".to_owned()), Some("-".to_owned()), Some("a b=\u{e4}".to_owned())] {
            for is_served in [true, false] {
                let said = Said { is_served, caller: caller.clone() };
                let text = said.seal(&key, &verified, 200);
                assert!(text.is_ascii());
                assert_eq!(Said::open(&key, &sealed, 200, Some(&text)), Some(said));
                assert_eq!(Said::open(&key, &sealed, 201, Some(&text)), None);
                assert_eq!(Said::open(&other, &sealed, 200, Some(&text)), None);
                let another = Ticket { nonce: [8; 16], ..ticket() }.seal(&key, "GET", "/");
                assert_eq!(Said::open(&key, &another, 200, Some(&text)), None);
            }
        }
        assert_eq!(Said::open(&key, &sealed, 200, None), None);
    }

    #[test]
    fn an_empty_secret_is_none() {
        assert!(Key::new("").is_err());
        assert!(!format!("{:?}", key("hush")).contains("hush"));
    }

    proptest! {
        #[test]
        fn whatever_changes_on_the_way_is_refused(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let sealed = ticket().seal(&key("s"), "GET", "/");
            let mut bytes = sealed.text.into_bytes();
            let at = at.index(bytes.len());
            prop_assume!(!bytes[at].eq_ignore_ascii_case(&to));
            bytes[at] = to;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            prop_assert!(opened(Some(&text), "s", "GET", "/", NOW).is_err());
        }

        #[test]
        fn no_text_panics_it(text in "\\PC{0,200}") {
            let _ = opened(Some(&text), "s", "GET", "/", NOW);
        }
    }
}
