//! The header `traceparent` (W3C Trace Context): which trace of the caller's a request belongs to. Pure.
//!
//! What does not keep to the letter of it is no trace, so that nothing a caller writes reaches a log but 32 hexadecimal
//! digits.

/// The trace that a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent<'a> {
    /// The trace's id: 32 lower-case hexadecimal digits, not all zero.
    pub trace_id: &'a str,
    /// The caller's own part in it: 16 digits, not all zero.
    pub parent_id: &'a str,
    /// Whether the caller records it.
    pub sampled: bool,
}

impl<'a> TraceParent<'a> {
    /// Reads the header. A later version than 00 may have more at its end.
    #[must_use]
    pub fn parse(header: &'a str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace_id) = (parts.next()?, parts.next()?);
        let (parent_id, flags) = (parts.next()?, parts.next()?);
        let whole = version != "00" || parts.next().is_none();
        let fits = is_hex(version, 2) && is_hex(trace_id, 32) && is_hex(parent_id, 16) && is_hex(flags, 2);
        let named = trace_id.bytes().any(|digit| digit != b'0') && parent_id.bytes().any(|digit| digit != b'0');
        let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        (whole && fits && named && version != "ff").then_some(Self { trace_id, parent_id, sampled })
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_traceparent_is_one() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let parsed = |text: &str| TraceParent::parse(text).map(|one| (one.trace_id.to_owned(), one.sampled));
        assert_eq!(parsed(&format!("00-{trace}-{parent}-01")), Some((trace.to_owned(), true)));
        assert_eq!(parsed(&format!("00-{trace}-{parent}-00")), Some((trace.to_owned(), false)));
        assert_eq!(parsed(&format!("cc-{trace}-{parent}-01-more")), Some((trace.to_owned(), true)));
        for wrong in [
            String::new(),
            format!("00-{trace}-{parent}"),
            format!("00-{trace}-{parent}-01-more"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}x-{parent}-01"),
        ] {
            assert_eq!(parsed(&wrong), None, "{wrong}");
        }
    }
}
