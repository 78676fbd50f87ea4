//! What one thing that needs attention is told as.

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Sales are lost, or money is: somebody must act now.
    Critical,
    Warning,
    /// As it was ordered; to be remembered.
    Info,
}

impl Severity {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// One thing that needs attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub code: &'static str,
    pub severity: Severity,
    /// The instance that it concerns; none where it concerns the whole bridge.
    pub instance: Option<String>,
    /// The shard or the caller, where it concerns one.
    pub subject: Option<String>,
    pub words: String,
    /// Since when, where that is known, in milliseconds since 1970.
    pub since_ms: Option<i64>,
}

pub(super) fn finding(severity: Severity, code: &'static str, words: impl Into<String>) -> Finding {
    Finding { code, severity, instance: None, subject: None, words: words.into(), since_ms: None }
}

impl Finding {
    pub(super) fn since(self, since_ms: Option<i64>) -> Self {
        Self { since_ms, ..self }
    }

    pub(super) fn about(self, subject: &str) -> Self {
        Self { subject: Some(subject.to_owned()), ..self }
    }
}

pub(super) fn count(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// Words that a sentence can go on from.
pub(super) fn ended(words: &str) -> &str {
    words.trim().trim_end_matches('.')
}
