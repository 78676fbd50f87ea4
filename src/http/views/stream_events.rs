//! What the event stream sends, for the documents alone: it is written by `response/sse.rs`.

#![expect(dead_code, reason = "read by the documents alone")]

use utoipa::ToSchema;

use super::spelled::BroadcastParameters;

/// A broadcast of the gateway.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"message": "updatepos", "parameters": {}, "received_at": "2026-06-08T02:47:58.120Z"})))]
pub struct Broadcast {
    /// Its name, or the text that an administrator typed.
    pub message: String,
    /// What it carries, as the gateway sent it.
    pub parameters: BroadcastParameters,
    /// When it first came.
    #[schema(format = DateTime)]
    pub received_at: String,
    /// `true` where it may be another copy of an earlier one.
    #[schema(required = false)]
    pub maybe_duplicate: bool,
}

/// Where the stream is.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"id": "k3f9x0aq-41"})))]
pub struct StreamPosition {
    /// The id to resume after.
    pub id: String,
}

/// Broadcasts may be missing here: fetch afresh.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"id": "k3f9x0aq-43", "reason": "no-connection", "from": "2026-06-08T02:47:58.120Z",
    "to": "2026-06-08T02:48:03.000Z"})))]
pub struct Gap {
    /// The id to resume after.
    pub id: String,
    /// Why they may be missing.
    pub reason: GapReason,
    /// From when on (RFC 3339); of `history` the id after which entries are missing.
    pub from: String,
    /// Until when; of `history` the id up to which they are.
    pub to: String,
}

/// Why broadcasts may be missing.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum GapReason {
    /// No connection to the gateway was certain to receive them.
    NoConnection,
    /// A message came that may have been one, and could not be read.
    Unreadable,
    /// More came than could wait while the database was away.
    NotStored,
    /// They are older than what the bridge keeps.
    History,
}

/// The stream cannot be served now: come back after `retry`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"reason": "draining"})))]
pub struct Overload {
    /// Why not.
    pub reason: OverloadReason,
}

/// Why a stream cannot be served.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum OverloadReason {
    /// The bridge has as many streams as it serves.
    Full,
    /// The caller is beyond its own limits.
    CallerLimited,
    /// The bridge, or the instance, is stopping.
    Draining,
    /// No replica serves the instance at this moment.
    NoOwner,
}
