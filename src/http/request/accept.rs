//! The `Accept` field, by RFC 9110: the most specific range that covers a type decides, and 0 excludes it.

use actix_web::http::header::{ACCEPT, HeaderMap};

/// Whether `Accept` allows `media_type` (`type/subtype`, lower case). Without the header, or with an empty one, everything
/// is accepted.
#[must_use]
pub fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    ranges(headers).next().is_none() || quality(headers, media_type) > 0.0
}

/// Whether `Accept` names `text/html` itself, as browsers do, and likes it no less than JSON.
#[must_use]
pub fn prefers_html(headers: &HeaderMap) -> bool {
    let names_html = ranges(headers).any(|(range, _)| range.eq_ignore_ascii_case("text/html"));
    names_html && quality(headers, "text/html") >= quality(headers, "application/json")
}

/// Whether `Accept` likes CSV better than JSON: of two that are liked alike JSON is the usual one.
#[must_use]
pub fn prefers_csv(headers: &HeaderMap) -> bool {
    quality(headers, "text/csv") > quality(headers, "application/json")
}

fn quality(headers: &HeaderMap, media_type: &str) -> f32 {
    let family = media_type.split('/').next().unwrap_or_default();
    ranges(headers)
        .filter_map(|(range, quality)| {
            let specificity = match range.split_once('/')? {
                ("*", "*") => 0,
                (name, "*") if name.eq_ignore_ascii_case(family) => 1,
                _ if range.eq_ignore_ascii_case(media_type) => 2,
                _ => return None,
            };
            Some((specificity, quality))
        })
        .max_by(|(a, a_quality), (b, b_quality)| a.cmp(b).then(a_quality.total_cmp(b_quality)))
        .map_or(0.0, |(_, quality)| quality)
}

fn ranges(headers: &HeaderMap) -> impl Iterator<Item = (&str, f32)> {
    headers
        .get_all(ACCEPT)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            (name, quality.map_or(1.0, |quality| quality.parse().unwrap_or(1.0)))
        })
        .filter(|(name, _)| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, HeaderValue::from_str(accept).unwrap());
        headers
    }

    #[test]
    fn the_most_specific_range_decides() {
        let json = "application/json";
        let takes = [
            json,
            "*/*",
            "application/*",
            "text/html, */*;q=0.1",
            "application/json; charset=utf-8",
            "*/*;q=0, application/json",
        ];
        for accept in takes {
            assert!(accepts(&headers(accept), json), "{accept}");
        }
        for accept in ["text/html", "application/xml", "application/json;q=0", "*/*, application/json;q=0", "*/*;q=0.0"]
        {
            assert!(!accepts(&headers(accept), json), "{accept}");
        }
        assert!(accepts(&HeaderMap::new(), json));
        for empty in ["", " \t", ",", " , "] {
            assert!(accepts(&headers(empty), json), "{empty:?}");
        }
    }

    #[test]
    fn browsers_get_a_page_and_programs_do_not() {
        assert!(prefers_html(&headers("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")));
        for accept in ["*/*", "application/json", "text/html;q=0.5, application/json"] {
            assert!(!prefers_html(&headers(accept)), "{accept}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }

    #[test]
    fn csv_is_for_who_likes_it_better_than_json() {
        for accept in ["text/csv", "text/*", "text/csv, */*;q=0.1", "application/json;q=0.5, text/csv"] {
            assert!(prefers_csv(&headers(accept)), "{accept}");
        }
        for accept in ["*/*", "application/json", "application/json, text/csv", "text/csv;q=0.5, */*"] {
            assert!(!prefers_csv(&headers(accept)), "{accept}");
        }
        assert!(!prefers_csv(&HeaderMap::new()));
    }
}
