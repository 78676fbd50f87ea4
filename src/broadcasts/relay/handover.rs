//! Broadcasts while an instance changes its owner.
//!
//! The next owner opens its connections and keeps what they bring ([`Relay::keep`]). The old one stops logging and says what it
//! knows ([`Relay::hand_over`]); if it stays the owner after all, it goes on ([`Relay::go_on`]). The new one matches what it kept
//! against that ([`Relay::resume`]). Where nothing was handed over, what came in the meantime is a gap
//! ([`Relay::resume_after_loss`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::{Relay, State};
use crate::broadcasts::carried::{Away, Carried, Left};
use crate::broadcasts::entry::Event;
use crate::broadcasts::kept::{Kept, Report};
use crate::broadcasts::matcher::{LATE_SKEWS, Matcher};
use crate::broadcasts::payload::Payload;
use crate::gateway::LinkEvent;

/// For how many skews, and for how long beside them, the next owner listens before it is ready. What a connection brings in its first
/// skew, and in another until all have it, may be equal to something that it missed. By then, if the old owner has asked its
/// links and everything was passed on within the time beside the skews, it has certainly received all that, up to a skew ago.
const LISTENS_SKEWS: u32 = 3;
const LISTENS: Duration = Duration::from_secs(2);

/// A handover that may have taken longer is none: occurrences that it would need are forgotten by then.
const MOST_AWAY_SKEWS: u32 = 2;

/// What the next owner heard longer ago than this before it was ready does not count.
const KEPT_SKEWS: u32 = LATE_SKEWS - MOST_AWAY_SKEWS - 1;

impl Relay {
    /// How long a connection has to be open for a handover without a gap, with this skew.
    #[must_use]
    pub fn listens_after(skew: Duration) -> Duration {
        skew * LISTENS_SKEWS + LISTENS
    }

    /// From now on only keeps what connections report.
    pub fn keep(&self) {
        let mut state = self.state.lock();
        if state.kept.is_none() {
            state.kept = Some(Kept::new(state.matcher.open_links()));
        }
    }

    /// Returns once a connection has been open for long enough for a handover without a gap; and when that was.
    pub async fn until_listening(&self) -> Instant {
        let least = Self::listens_after(self.skew);
        loop {
            let since = self.state.lock().kept.as_ref().and_then(Kept::open_since);
            let now = Instant::now();
            match since.map(|since| since + least) {
                Some(ready) if ready <= now => return now,
                Some(ready) => {
                    tokio::select! {
                        () = sleep_until(ready) => {}
                        () = self.opened.notified() => {}
                    }
                }
                None => self.opened.notified().await,
            }
        }
    }

    /// Logs nothing from now on, and says what the next owner has to know. `heard`: when something last came on the links
    /// that are open.
    #[must_use]
    pub fn hand_over(&self, heard: &HashMap<u64, Instant>) -> Carried {
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.kept.is_none() {
            // What is due is decided here, where the links are known that brought it.
            let outcome = state.matcher.tick(now);
            self.log(outcome);
            state.matcher.heard_on(heard);
            state.kept = Some(Kept::new(state.matcher.open_links()));
        }
        state.matcher.carried(now, heard)
    }

    /// It was not handed over: matches and logs what was kept meanwhile.
    pub fn go_on(&self) {
        let mut state = self.state.lock();
        let Some(kept) = state.kept.take() else { return };
        let overflowed = kept.has_overflowed();
        let (open, reports) = kept.taken();
        if overflowed {
            for (link, since) in open {
                self.match_report(&mut state.matcher, &LinkEvent::Closed { link, last_heard: since }, Timestamp::now());
                self.match_report(&mut state.matcher, &LinkEvent::Opened { link, at: since }, Timestamp::now());
            }
        }
        self.match_kept(&mut state.matcher, reports);
    }

    /// Goes on where another owner stopped. `ready`: when [`Self::until_listening`] returned, before which nothing was handed
    /// over; `now`: when what was handed over had been received. False where too much time lies between for that: say
    /// [`Self::resume_after_loss`] then.
    #[must_use]
    pub fn resume(&self, carried: Carried, ready: Instant, now: Instant) -> bool {
        let away = Away { now, at_most: now.saturating_duration_since(ready) };
        let mut state = self.state.lock();
        if away.at_most > self.skew * MOST_AWAY_SKEWS {
            return false;
        }
        let mut kept = state.take_kept();
        if let Some(horizon) = ready.checked_sub(self.skew * KEPT_SKEWS) {
            kept.forget_until(horizon);
        }
        let (open, reports) = kept.taken();
        let known_until = away.earliest(carried.covered_us);
        let first = open.first().map(|(_, since)| *since).or_else(|| reports.front().map(Report::at));
        let begin = first.unwrap_or(now);
        state.matcher = Matcher::resume((self.skew, self.patience), carried, away, begin);
        for (link, at) in open {
            self.match_report(&mut state.matcher, &LinkEvent::Opened { link, at }, Timestamp::now());
        }
        let (known, mut reports): (VecDeque<_>, VecDeque<_>) =
            reports.into_iter().partition(|report| known_frame(report, known_until).is_some());
        let mut frames: HashMap<Payload, HashMap<u64, Vec<Instant>>> = HashMap::new();
        for report in &known {
            if let Some((link, payload)) = known_frame(report, known_until) {
                frames.entry(payload).or_default().entry(link).or_default().push(report.at());
            }
        }
        let after = reports.split_off(reports.partition_point(|report| report.at() <= known_until));
        self.match_kept(&mut state.matcher, reports);
        state.matcher.brought_known(known_until, &frames);
        self.match_kept(&mut state.matcher, after);
        true
    }

    /// Begins after an owner that handed nothing over and `left` this, and received nothing any more for `gone_for` at least. What
    /// it logged last may still come again.
    pub fn resume_after_loss(&self, left: &Left, gone_for: Duration) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let late = self.skew * LATE_SKEWS;
        let before = |ago: Duration| Away { now, at_most: Duration::ZERO }.latest_before(ago);
        // Whatever was logged was delivered everywhere before this owner's connections opened, if they opened that late.
        let may_come_again = gone_for < self.skew;
        let is_recent = |offset| may_come_again && left.logged_ago.get(&offset).is_some_and(|ago| *ago <= late);
        let entries = self.broadcasts.carried().entries.into_iter().filter(|(offset, _)| is_recent(*offset));
        let logged = entries.filter_map(|(_, event)| match event {
            Event::Broadcast(told) => {
                let payload = Payload::Read { message: told.message, parameters: told.parameters };
                Some((payload, before(gone_for), before(gone_for.max(late))))
            }
            Event::Gap(_) => None,
        });
        // A gap, however short: nobody listened.
        let covered = left.covered_ago.unwrap_or_default().max(gone_for).max(Duration::from_millis(1));
        let mut kept = state.take_kept();
        kept.forget_until(now);
        state.matcher = Matcher::resume_after_loss((self.skew, self.patience), logged.collect(), before(covered), now);
        for (link, at) in kept.taken().0 {
            self.match_report(&mut state.matcher, &LinkEvent::Opened { link, at }, Timestamp::now());
        }
        self.held.notify_one();
    }

    /// Until when broadcasts were certainly received and are logged; none while they are only kept.
    #[must_use]
    pub fn logged_until(&self, heard: &HashMap<u64, Instant>) -> Option<Timestamp> {
        let state = self.state.lock();
        if state.kept.is_some() {
            return None;
        }
        let until = super::wall_clock(state.matcher.logged_until(Instant::now(), heard));
        let not_yet = [self.broadcasts.oldest_unwritten(), *self.unlogged.lock()];
        Some(not_yet.into_iter().flatten().fold(until, Timestamp::min))
    }

    /// No more than this is missing of what [`Self::logged_until`] says while a link is open.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        self.skew * 2 + self.patience
    }

    fn match_kept(&self, matcher: &mut Matcher, reports: impl IntoIterator<Item = Report>) {
        for report in reports {
            self.match_report(matcher, &report.event, report.received_at);
        }
        self.held.notify_one();
    }
}

/// What a connection brought by then, where it is that.
fn known_frame(report: &Report, until: Instant) -> Option<(u64, Payload)> {
    match &report.event {
        LinkEvent::Broadcast { link, at, message, parameters } if *at <= until => {
            let (message, parameters) = (Arc::from(message.as_str()), parameters.clone());
            Some((*link, Payload::Read { message, parameters }))
        }
        LinkEvent::Unreadable { link, at, digest } if *at <= until => Some((*link, Payload::Unreadable(*digest))),
        _ => None,
    }
}

impl State {
    fn take_kept(&mut self) -> Kept {
        self.kept.take().unwrap_or_else(|| Kept::new(self.matcher.open_links()))
    }
}

#[cfg(test)]
mod tests;
