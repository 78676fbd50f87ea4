//! The log itself. Pure: entries in, entries out, bounded in number and in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::carried::CarriedLog;
use super::entry::{Entry, Epoch, Event, Id};

/// The most that the events of one log may take. A broadcast is a hundred bytes; this bounds what strange ones cost.
pub(super) const MOST_BYTES: usize = 16 << 20;

/// The newest entries of one epoch.
#[derive(Debug)]
pub(super) struct Log {
    epoch: Epoch,
    history: usize,
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    newest: u64,
}

impl Log {
    pub(super) fn new(epoch: Epoch, history: usize) -> Self {
        Self { epoch, history, entries: VecDeque::new(), bytes: 0, newest: 0 }
    }

    /// A log that goes on with the newest entries of another, as many as it may hold.
    pub(super) fn resume(carried: CarriedLog, history: usize) -> Self {
        let newest = carried.newest;
        let mut log =
            Self { newest: newest.saturating_sub(carried.entries.len() as u64), ..Self::new(carried.epoch, history) };
        // Offsets have no holes: what does not end with the newest is left out.
        let whole = carried.entries.iter().map(|(offset, _)| *offset).eq(log.newest + 1..=newest);
        if whole {
            for (_, event) in carried.entries {
                log.append(event);
            }
        }
        log.newest = newest;
        log
    }

    /// What is here, for [`Self::resume`].
    pub(super) fn carried(&self) -> CarriedLog {
        let entries = self.entries.iter().map(|entry| (entry.id.offset, entry.event.clone()));
        CarriedLog { epoch: self.epoch, newest: self.newest, entries: entries.collect() }
    }

    /// Appends an event and drops the oldest entries beyond the bounds, but never the newest, which no subscription has read.
    pub(super) fn append(&mut self, event: Event) -> Id {
        self.newest += 1;
        let id = self.cursor();
        self.bytes += event.size();
        self.entries.push_back(Arc::new(Entry::new(id, event)));
        while self.entries.len() > 1 && (self.entries.len() > self.history || self.bytes > MOST_BYTES) {
            if let Some(oldest) = self.entries.pop_front() {
                self.bytes -= oldest.event.size();
            }
        }
        id
    }

    /// How many entries it holds at most.
    pub(super) fn history(&self) -> usize {
        self.history
    }

    /// The id of the newest entry.
    pub(super) fn cursor(&self) -> Id {
        self.id(self.newest)
    }

    pub(super) fn id(&self, offset: u64) -> Id {
        Id { epoch: self.epoch, offset }
    }

    /// The entry that `text` names, if it is or was in this log.
    pub(super) fn find(&self, text: &str) -> Option<Id> {
        let offset = Id::offset_in(self.epoch, text).filter(|offset| *offset <= self.newest)?;
        Some(self.id(offset))
    }

    /// The offset of the oldest entry that is still here; the next one's where there is none.
    pub(super) fn oldest(&self) -> u64 {
        self.entries.front().map_or(self.newest + 1, |entry| entry.id.offset)
    }

    /// The entry at `offset`, if it is still here, or already.
    pub(super) fn get(&self, offset: u64) -> Option<&Arc<Entry>> {
        let place = offset.checked_sub(self.oldest())?;
        self.entries.get(usize::try_from(place).ok()?)
    }
}
