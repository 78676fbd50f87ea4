//! A broadcast as far as it can be told from others.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::Body;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Payload {
    Read {
        message: Arc<str>,
        parameters: Body,
    },
    /// One that cannot be read, by a digest of the whole message.
    Unreadable(u64),
}

impl Payload {
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Read { message, parameters } => message.len() + parameters.as_str().len(),
            Self::Unreadable(digest) => size_of_val(digest),
        }
    }
}
