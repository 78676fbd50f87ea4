//! One entry of the log, and how it is named.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::{Body, Format};

/// What tells one run of the program's log from every other: random, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u64);

/// As many random bits as make eight digits of base 36: enough that no two runs of one bridge share an epoch.
const EPOCH_VALUES: u64 = 36_u64.pow(8);

impl Epoch {
    /// One that was never used before.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        Ok(Self::new(u64::from_be_bytes(random)))
    }

    /// The epoch that is spelled so.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let epoch = Self(u64::from_str_radix(text, 36).ok()?);
        (epoch.to_string() == text).then_some(epoch)
    }

    /// The epoch that these random bits name.
    #[must_use]
    pub fn new(random: u64) -> Self {
        Self(random % EPOCH_VALUES)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |place: u32| char::from_digit(u32::try_from(self.0 / 36_u64.pow(place) % 36).ok()?, 36);
        (0..8).rev().filter_map(digit).try_for_each(|digit| fmt::Write::write_char(formatter, digit))
    }
}

/// Names an entry: `EPOCH-OFFSET`, of `0` to `9`, `a` to `z` and `-` alone. Offset 0 is the beginning, before any entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id {
    /// The log it belongs to.
    pub epoch: Epoch,
    /// Its place there. Offsets have no holes.
    pub offset: u64,
}

impl Id {
    /// The offset that `text` names in `epoch`, if it is spelled exactly as the bridge would.
    #[must_use]
    pub fn offset_in(epoch: Epoch, text: &str) -> Option<u64> {
        let offset = text.rsplit_once('-')?.1.parse().ok()?;
        (Self { epoch, offset }.to_string() == text).then_some(offset)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.epoch, self.offset)
    }
}

/// A broadcast of the gateway, once, however many connections brought it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broadcast {
    /// Its name, or the text that an administrator typed.
    pub message: Arc<str>,
    /// What it carries, as the gateway sent it.
    pub parameters: Body,
    /// When it first came.
    #[serde(with = "super::timestamp")]
    pub received_at: Timestamp,
    /// Whether it may be another copy of an earlier entry.
    pub maybe_duplicate: bool,
}

/// Why broadcasts may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No connection was certain to receive them.
    NoConnection,
    /// A message came that may have been one, and could not be read.
    Unreadable,
    /// More came than could wait while the database was away.
    NotStored,
}

/// A time in which broadcasts may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    #[serde(with = "super::timestamp")]
    pub from: Timestamp,
    #[serde(with = "super::timestamp")]
    pub to: Timestamp,
    pub reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Broadcast(Broadcast),
    /// Broadcasts may be missing here.
    Gap(Gap),
}

impl Event {
    /// What it takes in the log, in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Broadcast(broadcast) => broadcast.message.len() + broadcast.parameters.as_str().len(),
            Self::Gap(_) => 0,
        }
    }

    /// When it began and ended.
    pub(super) fn times(&self) -> (Timestamp, Timestamp) {
        match self {
            Self::Broadcast(broadcast) => (broadcast.received_at, broadcast.received_at),
            Self::Gap(gap) => (gap.from, gap.to),
        }
    }
}

/// How an entry can be written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A block of an event stream.
    EventStream,
    /// A frame of the gateway's protocol.
    Frame(Format),
}

/// One event in its place. Written out at most once in each form, for all listeners together.
#[derive(Debug)]
pub struct Entry {
    pub id: Id,
    pub event: Event,
    written: [OnceLock<Bytes>; 3],
}

impl Entry {
    pub(super) fn new(id: Id, event: Event) -> Self {
        Self { id, event, written: Default::default() }
    }

    /// The entry as `write` writes it in `form`; the first caller's is kept.
    pub fn written(&self, form: Form, write: impl FnOnce(&Self) -> Bytes) -> Bytes {
        let [event_stream, json, json5] = &self.written;
        let place = match form {
            Form::EventStream => event_stream,
            Form::Frame(Format::Json) => json,
            Form::Frame(Format::Json5) => json5,
        };
        place.get_or_init(|| write(self)).clone()
    }
}
