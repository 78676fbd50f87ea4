//! An answer of the bridge that is an error, as its problem document says it.

use std::fmt::{self, Write};

use super::node::Node;
use super::terminal::{self, one_line};

/// The media type of the bridge's errors.
const PROBLEM: &str = "application/problem+json";

/// How much is shown of an answer that is not the bridge's.
const MOST_SHOWN: usize = 200;

/// An answer with an error status.
#[derive(Debug, thiserror::Error)]
pub(super) struct Refusal {
    /// Its status.
    pub(super) status: u16,
    /// The address that was asked.
    url: String,
    body: String,
    is_problem: bool,
    /// Whether the document is shown as it came.
    as_json: bool,
    /// What the operator may do.
    hint: Option<String>,
}

impl Refusal {
    /// An answer with this status, media type and body.
    pub(super) fn new(url: String, status: u16, media_type: &str, body: String) -> Self {
        let is_problem = media_type.starts_with(PROBLEM);
        Self { status, url, body, is_problem, as_json: false, hint: None }
    }

    /// Shows the document as it came.
    pub(super) fn shown_as_json(mut self, as_json: bool) -> Self {
        self.as_json = as_json && self.is_problem;
        self
    }

    /// Says what the operator may do, where the problem has this code.
    pub(super) fn hint(mut self, code: &str, hint: impl FnOnce() -> String) -> Self {
        if self.is_problem && Node::parse(&self.body).is_ok_and(|document| document.text("code") == Some(code)) {
            self.hint = Some(hint());
        }
        self
    }

    fn explain(&self, document: &Node) -> String {
        let mut out = format!("{}: {}", one_line(document.shown("title")), one_line(document.shown("detail")));
        for fault in document.items("errors") {
            let _ = write!(out, "\n  {}: {}", one_line(fault.shown("pointer")), one_line(fault.shown("detail")));
        }
        if let Some(gateway) = document.get("gateway") {
            let _ = write!(out, "\n  the gateway said: {}", one_line(gateway.shown("error")));
        }
        let _ = write!(out, "\n  {} {}", self.status, one_line(document.shown("code")));
        if let Some(seconds) = document.text("retry_after") {
            let _ = write!(out, ", to be repeated after {} s", one_line(seconds));
        }
        if let Some(id) = document.text("request_id") {
            let _ = write!(out, ", request {}", one_line(id));
        }
        out
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.as_json {
            return formatter.write_str(&terminal::json(self.body.trim_end()));
        }
        match Node::parse(&self.body) {
            Ok(document) if self.is_problem => formatter.write_str(&self.explain(&document))?,
            _ => {
                let begin: String = self.body.chars().take(MOST_SHOWN).collect();
                let (url, begin) = (&self.url, one_line(begin.trim()));
                write!(formatter, "{url} answered {}, and not as a bridge does: {begin}", self.status)?;
            }
        }
        match &self.hint {
            Some(hint) => write!(formatter, "\n{hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(media_type: &str, body: &str) -> Refusal {
        Refusal::new("http://bridge".to_owned(), 412, media_type, body.to_owned())
    }

    #[test]
    fn a_problem_is_told_by_its_title_detail_and_faults_without_a_way_to_steer_the_terminal() {
        let body = r#"{"title":"Precondition failed","detail":"changed \u001b[2J","code":"precondition-failed",
            "errors":[{"pointer":"/reason","detail":"is missing"}],"gateway":{"error":"ratelimit"},"retry_after":3,
            "request_id":"r-1"}"#;
        assert_eq!(
            told(PROBLEM, body).hint("precondition-failed", || "Look again.".to_owned()).to_string(),
            "Precondition failed: changed \\u{1b}[2J\n  /reason: is missing\n  the gateway said: ratelimit\n  \
             412 precondition-failed, to be repeated after 3 s, request r-1\nLook again."
        );
        assert_eq!(told(PROBLEM, body).shown_as_json(true).to_string(), body);
        assert!(!told(PROBLEM, body).hint("other", || "Look again.".to_owned()).to_string().contains("Look"));
    }

    #[test]
    fn an_answer_of_something_else_says_so_and_shows_how_it_begins() {
        let shown = told("text/html", "<html>\u{1b}").shown_as_json(true).to_string();
        assert_eq!(shown, "http://bridge answered 412, and not as a bridge does: <html>\\u{1b}");
        assert!(told("text/plain", &"a".repeat(9999)).to_string().len() < 300);
    }
}
