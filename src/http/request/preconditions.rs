//! Preconditions: the tags that a request names, compared with the one that an answer has (RFC 9110, section 13). PURE.
//!
//! Only tags are looked at: no answer has a modification date, and without one the conditions on dates are to be
//! ignored.

use actix_web::http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};

/// What a field such as `If-Match` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags<'a> {
    /// `*`: whatever there is.
    Any,
    /// These.
    These(Vec<Tag<'a>>),
}

/// An entity tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag<'a> {
    is_weak: bool,
    /// With its quotes.
    opaque: &'a [u8],
}

/// A field holds something else than tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What the preconditions of a GET come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The answer is to be sent.
    Send,
    /// The client has it already.
    NotModified,
    /// It is not what was asked for.
    Failed,
}

/// Judges the preconditions of a GET whose answer has this tag. A field that is malformed holds for nothing.
#[must_use]
pub fn verdict(request: &HeaderMap, etag: &[u8]) -> Verdict {
    let (matching, other) = (tags(request, &IF_MATCH), tags(request, &IF_NONE_MATCH));
    if matching.is_none() && other.is_none() {
        return Verdict::Send;
    }
    let Some(etag) = Tag::read(etag) else { return Verdict::Send };
    let fails = |wanted: Result<Tags<'_>, Malformed>| !wanted.is_ok_and(|tags| tags.have(&etag));
    if matching.is_some_and(fails) {
        return Verdict::Failed;
    }
    let knows = |known: Result<Tags<'_>, Malformed>| known.is_ok_and(|tags| tags.have_alike(&etag));
    if other.is_some_and(knows) { Verdict::NotModified } else { Verdict::Send }
}

/// The tags that a field of the request names; none where it has no such field.
#[must_use]
pub fn tags<'a>(request: &'a HeaderMap, name: &HeaderName) -> Option<Result<Tags<'a>, Malformed>> {
    let mut lines = request.get_all(name).map(|line| line.as_bytes().trim_ascii()).peekable();
    lines.peek()?;
    let lines: Vec<&[u8]> = lines.collect();
    if lines == [b"*"] {
        return Some(Ok(Tags::Any));
    }
    let listed: Result<Vec<_>, _> = lines.into_iter().map(list).collect();
    Some(listed.map(|lines| Tags::These(lines.concat())))
}

fn list(mut line: &[u8]) -> Result<Vec<Tag<'_>>, Malformed> {
    let mut tags = Vec::new();
    loop {
        // Empty elements are allowed (RFC 9110, section 5.6.1).
        while let [b',' | b' ' | b'\t', rest @ ..] = line {
            line = rest;
        }
        if line.is_empty() {
            return Ok(tags);
        }
        let (tag, rest) = Tag::begin(line).ok_or(Malformed)?;
        tags.push(tag);
        line = rest.trim_ascii_start();
        if !matches!(line, [] | [b',', ..]) {
            return Err(Malformed);
        }
    }
}

impl<'a> Tag<'a> {
    /// Reads a whole field that is one tag.
    fn read(text: &'a [u8]) -> Option<Self> {
        Self::begin(text).filter(|(_, rest)| rest.is_empty()).map(|(tag, _)| tag)
    }

    /// Reads the tag that a text begins with.
    fn begin(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (is_weak, quoted) = text.strip_prefix(b"W/").map_or((false, text), |quoted| (true, quoted));
        let inner = quoted.strip_prefix(b"\"")?;
        let length = inner.iter().position(|byte| !matches!(byte, 0x21 | 0x23..=0x7e | 0x80..))?;
        if inner.get(length) != Some(&b'"') {
            return None;
        }
        let (opaque, rest) = quoted.split_at_checked(length + 2)?;
        Some((Self { is_weak, opaque }, rest))
    }

    /// What stands between its quotes.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        self.opaque.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or_default()
    }
}

impl Tags<'_> {
    /// Whether the very bytes that `etag` names are among them: strong comparison.
    fn have(&self, etag: &Tag<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|tag| !tag.is_weak && !etag.is_weak && tag.opaque == etag.opaque),
        }
    }

    /// Whether something as good as what `etag` names is among them: weak comparison.
    fn have_alike(&self, etag: &Tag<'_>) -> bool {
        self.have_text(etag.text())
    }

    /// Whether a tag with this text is among them, weak or not.
    #[must_use]
    pub fn have_text(&self, text: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|tag| tag.text() == text),
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn request(fields: &[(HeaderName, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.clone(), HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn known(lines: &[&str], etag: &str) -> bool {
        let fields: Vec<_> = lines.iter().map(|line| (IF_NONE_MATCH, line.as_bytes())).collect();
        verdict(&request(&fields), etag.as_bytes()) == Verdict::NotModified
    }

    #[test]
    fn a_known_tag_is_found_in_a_list_however_it_is_spelled_and_nothing_else_is() {
        for lines in [
            &["\"a\""][..],
            &["W/\"a\""],
            &["\"x\",\"a\""],
            &[" , ,\"x\"\t,  W/\"a\" ,"],
            &["\"x\"", "\"a\""],
            &["\"b,c\", \"a\""],
            &["*"],
            &[" * "],
        ] {
            assert!(known(lines, "\"a\""), "{lines:?}");
            assert!(known(lines, "W/\"a\""), "{lines:?}");
        }
        for lines in [
            &["\"b\""][..],
            &["\"x,\\\"a\\\"\""],
            &["\"*\""],
            &["\"x\", *"],
            &["*", "*"],
            &["**"],
            &["a"],
            &["\"a"],
            &["w/\"a\""],
            &["W/ \"a\""],
            &["\"x\" \"a\""],
            &["\"x y\", \"a\""],
            &["\"a\"x"],
            &[""],
            &[],
        ] {
            assert!(!known(lines, "\"a\""), "{lines:?}");
        }
        assert!(known(&["\"b\", \"a,*\""], "\"a,*\""), "commas and stars between quotes are letters");
        assert!(!known(&["\"a,*\""], "\"a\"") && !known(&["\"a,*\""], "\"*\""));
    }

    #[test]
    fn a_strong_comparison_takes_no_other_bytes() {
        let wants = |line: &str, etag: &str| verdict(&request(&[(IF_MATCH, line.as_bytes())]), etag.as_bytes());
        assert_eq!(wants("\"x\", \"a\"", "\"a\""), Verdict::Send);
        assert_eq!(wants("*", "W/\"a\""), Verdict::Send);
        for (line, etag) in
            [("\"b\"", "\"a\""), ("W/\"a\"", "\"a\""), ("\"a\"", "W/\"a\""), ("a", "\"a\""), ("", "\"a\"")]
        {
            assert_eq!(wants(line, etag), Verdict::Failed, "{line} of {etag}");
        }
        let both = |wanted: &'static [u8]| request(&[(IF_MATCH, wanted), (IF_NONE_MATCH, b"\"a\"")]);
        assert_eq!(verdict(&both(b"\"b\""), b"\"a\""), Verdict::Failed, "it comes first");
        assert_eq!(verdict(&both(b"\"a\""), b"\"a\""), Verdict::NotModified);
    }

    #[test]
    fn bytes_beyond_ascii_are_letters_of_a_tag() {
        let headers = request(&[(IF_NONE_MATCH, b"\"\xfc\", \"a\"")]);
        assert_eq!(verdict(&headers, b"\"a\""), Verdict::NotModified);
        assert_eq!(verdict(&headers, b"\"\xfc\""), Verdict::NotModified);
    }

    proptest! {
        #[test]
        fn a_tag_is_known_if_and_only_if_it_was_listed(
            listed in prop::collection::vec(("[!#-~]{0,4}", any::<bool>()), 1..6),
            asked in "[!#-~]{0,4}",
            blanks in "[ \t,]{0,3}",
        ) {
            let spell = |(text, weak): &(String, bool)| format!("{}\"{text}\"", if *weak { "W/" } else { "" });
            let line: Vec<String> = listed.iter().map(spell).collect();
            let line = format!("{blanks}{}{blanks}", line.join(&format!(",{blanks}")));
            let is_listed = listed.iter().any(|(text, _)| *text == asked);
            prop_assert_eq!(known(&[&line], &format!("\"{asked}\"")), is_listed, "{}", line);
        }

        #[test]
        fn no_field_panics(line in prop::collection::vec(prop_oneof![32..=126u8, 128..=255u8, Just(9u8)], 0..40)) {
            let _ = verdict(&request(&[(IF_MATCH, &line), (IF_NONE_MATCH, &line)]), b"\"a\"");
        }
    }
}
