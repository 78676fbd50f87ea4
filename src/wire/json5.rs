//! JSON5 respelled as JSON, value for value, without understanding numbers.

/// Why a text is not JSON5.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Json5Error {
    /// What was found or missing.
    pub what: &'static str,
    /// Where, in bytes from the start.
    pub at: usize,
}

/// Respells one JSON5 value as JSON.
pub fn to_json(text: &str) -> Result<String, Json5Error> {
    let _ = text;
    Err(Json5Error { what: "nothing understood", at: 0 })
}
