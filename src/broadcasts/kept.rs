//! What connections report while an instance changes its owner, kept to be matched later. Pure; bounded: what does not fit is as
//! if the connections had opened after it.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::gateway::LinkEvent;

/// How many reports are kept.
const MOST_REPORTS: usize = 4096;

/// The most that they may take, in bytes.
const MOST_BYTES: usize = 4 << 20;

/// A report and when it came.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) event: LinkEvent,
    pub(super) received_at: Timestamp,
    at: Instant,
}

impl Report {
    /// When it came.
    pub(super) fn at(&self) -> Instant {
        match &self.event {
            LinkEvent::Opened { at, .. } | LinkEvent::Broadcast { at, .. } | LinkEvent::Unreadable { at, .. } => *at,
            LinkEvent::Closed { .. } => self.at,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Connections that opened before the first report, and since when what they bring is kept.
    open: BTreeMap<u64, Instant>,
    reports: VecDeque<Report>,
    bytes: usize,
    overflowed: bool,
}

impl Kept {
    /// Nothing yet, with these connections open.
    pub(super) fn new(open: impl IntoIterator<Item = (u64, Instant)>) -> Self {
        Self { open: open.into_iter().collect(), ..Self::default() }
    }

    pub(super) fn push(&mut self, event: &LinkEvent, at: Instant) {
        self.bytes += size(event);
        self.reports.push_back(Report { event: event.clone(), received_at: Timestamp::now(), at });
        if self.reports.len() > MOST_REPORTS || self.bytes > MOST_BYTES {
            self.overflowed = true;
            self.forget_until(at);
        }
    }

    /// Whether something was forgotten.
    pub(super) fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    /// Everything up to `until` is as if it had not been heard: connections that were open then opened then.
    pub(super) fn forget_until(&mut self, until: Instant) {
        while let Some(report) = self.reports.pop_front_if(|report| report.at <= until) {
            self.bytes -= size(&report.event);
            note_opened(&mut self.open, &report.event);
        }
        self.open.values_mut().for_each(|since| *since = (*since).max(until));
    }

    /// Since when the connection has been open that opened first of those which are.
    pub(super) fn open_since(&self) -> Option<Instant> {
        let mut open = self.open.clone();
        for report in &self.reports {
            note_opened(&mut open, &report.event);
        }
        open.into_values().min()
    }

    /// Connections that were open before the first report, and the reports.
    pub(super) fn taken(self) -> (Vec<(u64, Instant)>, VecDeque<Report>) {
        let mut open: Vec<_> = self.open.into_iter().collect();
        open.sort_by_key(|(_, since)| *since);
        (open, self.reports)
    }
}

fn note_opened(open: &mut BTreeMap<u64, Instant>, event: &LinkEvent) {
    match event {
        LinkEvent::Opened { link, at } => {
            open.insert(*link, *at);
        }
        LinkEvent::Closed { link, .. } => {
            open.remove(link);
        }
        LinkEvent::Broadcast { .. } | LinkEvent::Unreadable { .. } => {}
    }
}

fn size(event: &LinkEvent) -> usize {
    match event {
        LinkEvent::Broadcast { message, parameters, .. } => message.len() + parameters.as_str().len(),
        LinkEvent::Opened { .. } | LinkEvent::Unreadable { .. } | LinkEvent::Closed { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_forgotten_leaves_connections_that_opened_after_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut kept = Kept::new([(1, at(0))]);
        kept.push(&LinkEvent::Opened { link: 2, at: at(1) }, at(1));
        kept.push(&LinkEvent::Closed { link: 1, last_heard: at(0) }, at(2));
        kept.push(&LinkEvent::Opened { link: 3, at: at(8) }, at(8));
        assert_eq!(kept.open_since(), Some(at(1)));
        kept.forget_until(at(5));
        assert_eq!(kept.open_since(), Some(at(5)));
        let (open, reports) = kept.taken();
        assert_eq!((open, reports.len()), (vec![(2, at(5))], 1));
    }

    #[test]
    fn reports_are_bounded_and_those_that_do_not_fit_are_forgotten() {
        let now = Instant::now();
        let mut kept = Kept::new([(1, now)]);
        for _ in 0..=MOST_REPORTS {
            assert!(!kept.has_overflowed());
            kept.push(&LinkEvent::Unreadable { link: 1, at: now, digest: 7 }, now);
        }
        assert!(kept.has_overflowed() && kept.reports.is_empty() && kept.bytes == 0);
    }
}
