//! Which session should own an instance: rendezvous hashing, by which a session that comes or goes moves only what it gains
//! or had.
//!
//! Sessions are told apart by the name of their replica, so that a restarted replica gets back what it had; only where two
//! have the same name, by their ids.

use std::cmp::Reverse;

use twox_hash::XxHash3_128;

use super::reading::Session;
use crate::tenure::SessionId;

/// The sessions that may own `instance`, the best first: those that list it and do not drain. Last come those that do not reach
/// the gateway.
#[must_use]
pub fn ranking<'a>(
    instance: &str,
    sessions: impl Iterator<Item = (&'a SessionId, &'a Session)> + Clone,
) -> Vec<SessionId> {
    let mut ranked: Vec<_> = sessions
        .filter(|(_, session)| session.takes(instance))
        .map(|(id, session)| (!session.reaches, Reverse(weight(instance, *id, session)), *id))
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(.., id)| id).collect()
}

fn weight(instance: &str, id: SessionId, session: &Session) -> u128 {
    let own = if session.shares_its_name { id.to_string() } else { String::new() };
    // Lengths first: no two lists of texts have the same bytes.
    let mut bytes = Vec::with_capacity(16 + instance.len() + session.name.len() + own.len());
    for text in [instance, &session.name, &own] {
        bytes.extend_from_slice(&text.len().to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    XxHash3_128::oneshot(&bytes)
}
