//! Why a text could not be respelled.

/// Why a text could not be respelled. Safe to log: it holds none of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Json5Error {
    /// What was found or missing.
    pub what: &'static str,
    /// Where, in bytes from the start.
    pub at: usize,
}
