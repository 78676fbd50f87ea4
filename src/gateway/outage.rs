//! Since when an instance has no link, and whether that is news: its begin and its end are told once each. PURE.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Outage {
    since: Option<Instant>,
    is_told: bool,
}

/// What is to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OutageNews {
    /// No link is in service, and none is about to be.
    Begun,
    /// A link is in service again, after so long.
    Ended(Duration),
}

impl Outage {
    /// An instance begins without links.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: Some(now), is_told: false }
    }

    /// Since when no link is in service.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Takes note of whether a link is in service, and whether one may be soon: a link that is replaced at once is no news.
    pub(super) fn observe(&mut self, is_linked: bool, has_prospect: bool, now: Instant) -> Option<OutageNews> {
        if is_linked {
            let since = self.since.take();
            let was_told = std::mem::take(&mut self.is_told);
            return since.filter(|_| was_told).map(|since| OutageNews::Ended(now.saturating_duration_since(since)));
        }
        self.since.get_or_insert(now);
        if has_prospect || self.is_told {
            return None;
        }
        self.is_told = true;
        Some(OutageNews::Begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_and_its_end_once_with_how_long_it_was() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut outage = Outage::new(start);
        assert_eq!(outage.observe(false, true, at(1)), None, "a link is about to open");
        assert_eq!(outage.since(), Some(start));
        assert_eq!(outage.observe(true, true, at(2)), None, "nothing was told");
        assert_eq!(outage.since(), None);
        assert_eq!(outage.observe(false, true, at(3)), None);
        assert_eq!(outage.observe(false, false, at(4)), Some(OutageNews::Begun));
        for second in 5..9 {
            assert_eq!(outage.observe(false, second % 2 == 0, at(second)), None);
        }
        assert_eq!(outage.since(), Some(at(3)));
        assert_eq!(outage.observe(true, true, at(10)), Some(OutageNews::Ended(Duration::from_secs(7))));
        assert_eq!(outage.observe(true, true, at(11)), None);
        assert_eq!(outage.observe(false, false, at(12)), Some(OutageNews::Begun));
    }
}
