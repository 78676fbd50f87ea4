//! One entry a broadcast, whatever connections come and go: by example, and over random histories.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

pub(super) const SKEW_MS: u64 = 1000;
pub(super) const PATIENCE_MS: u64 = 8000;

pub(super) fn body() -> Body {
    Body::from(&*RawValue::from_string("{}".to_owned()).unwrap())
}

/// What one report led to, in short: `+` an entry, `?` a marked one, `gap`, and `.` where nothing may have changed.
fn told(outcome: &Matched) -> String {
    let entries = outcome.decisions.iter().map(|decision| match decision {
        Decision::Broadcast(broadcast) if broadcast.maybe_duplicate => "?",
        Decision::Broadcast(_) => "+",
        Decision::Gap(_) => "gap",
        Decision::Unreadable(_) => "unreadable",
    });
    entries.collect::<String>() + if outcome.news { "" } else { "." }
}

struct Times(Instant, Matcher);

impl Times {
    /// With these links open for a long time.
    fn with(links: &[u64]) -> Self {
        let start = Instant::now();
        let matcher = Matcher::new(Duration::from_millis(SKEW_MS), Duration::from_millis(PATIENCE_MS), start);
        let mut times = Self(start, matcher);
        for link in links {
            times.1.opened(*link, start);
        }
        times.0 += Duration::from_mins(1);
        times
    }

    fn at(&self, at_ms: u64) -> Instant {
        self.0 + Duration::from_millis(at_ms)
    }

    fn open(&mut self, link: u64, at_ms: u64) -> String {
        told(&self.1.opened(link, self.at(at_ms)))
    }

    fn close(&mut self, link: u64, last_heard_ms: u64) -> String {
        told(&self.1.closed(link, self.at(last_heard_ms)))
    }

    fn hear(&mut self, link: u64, at_ms: u64) -> String {
        told(&self.1.heard(link, self.at(at_ms), "updatepos", &body(), Timestamp::UNIX_EPOCH))
    }

    fn wait(&mut self, at_ms: u64) -> String {
        told(&self.1.tick(self.at(at_ms)))
    }
}

#[test]
fn copies_of_a_message_that_cannot_be_read_are_one_gap_and_each_other_message_is_another() {
    let mut times = Times::with(&[1, 2]);
    let mut hear = |link, at_ms, digest| {
        let at = times.at(at_ms);
        told(&times.1.heard_unreadable(link, at, digest, Timestamp::UNIX_EPOCH))
    };
    assert_eq!(hear(1, 0, 7), "unreadable");
    assert_eq!(hear(2, 10, 7), ".", "the same over another connection");
    assert_eq!(hear(2, 20, 8), "unreadable");
    assert_eq!(hear(1, 30, 7), "unreadable", "again over the same connection");
    assert_eq!(times.hear(1, 40), "+");
}

#[test]
fn two_connections_within_the_skew_mean_one_and_the_same_one_twice_means_two() {
    let mut times = Times::with(&[1, 2, 3]);
    assert_eq!(times.hear(1, 10), "+");
    assert_eq!(times.hear(2, 20), ".");
    assert_eq!(times.hear(1, 30), "+");
    assert_eq!(times.hear(3, 40), ".");
    assert_eq!(times.hear(3, 50), ".");
    assert_eq!(times.hear(3, 60), "+");
    assert_eq!(times.hear(2, 70), ".");
    assert_eq!(times.1.due(), None);
}

#[test]
fn a_copy_later_than_the_skew_is_marked_and_swallows_nothing() {
    let mut times = Times::with(&[1, 2]);
    assert_eq!(times.hear(1, 0), "+");
    assert_eq!(times.hear(2, 1500), "?");
    assert_eq!(times.hear(1, 1600), "+", "it matches nothing");
    assert_eq!(times.hear(2, 1700), ".");
    assert_eq!(times.hear(2, 20_000), "+");
}

#[test]
fn what_a_newcomer_brings_is_held_until_one_who_was_there_has_spoken() {
    let mut times = Times::with(&[1]);
    assert_eq!(times.hear(1, 0), "+");
    times.open(2, 100);
    assert_eq!(times.hear(2, 200), "", "held, and not surely a copy");
    assert_eq!(times.hear(1, 900), "+", "it was new, or the next one is");
    assert_eq!(times.wait(9000), ".", "and is not logged again");
    let mut times = Times::with(&[1]);
    assert_eq!(times.hear(1, 0), "+");
    times.open(2, 100);
    assert_eq!(times.hear(2, 200), "");
    assert_eq!(times.wait(1200), ".", "one who was there has brought no other: it was a copy");
    assert_eq!(times.hear(2, 1300), "+", "so this is another");
    assert_eq!(times.hear(1, 1400), ".");
}

#[test]
fn where_nobody_was_there_all_along_it_is_logged_and_marked() {
    let mut times = Times::with(&[1]);
    assert_eq!(times.hear(1, 0), "+");
    times.open(2, 100);
    assert_eq!(times.hear(2, 200), "");
    assert_eq!(times.close(1, 300), "gap", "it may have missed what the newcomer missed too");
    assert_eq!(times.wait(1200), "?.");
}

#[test]
fn where_all_have_just_opened_the_one_that_brings_the_most_tells_how_many_there_were() {
    let both = || {
        let mut times = Times::with(&[]);
        times.open(1, 0);
        times.open(2, 50);
        assert_eq!(times.hear(1, 100), "+");
        assert_eq!(times.hear(2, 110), "", "held: it may have missed the other's, and the other this one");
        times
    };
    let mut times = both();
    assert_eq!(times.wait(1110), ".", "it would have brought the other's too, or the other this one");
    assert_eq!(times.close(1, 1200), ".", "who was there until then has said enough");
    for last_heard_ms in [600, 1109] {
        let mut times = both();
        assert_eq!(times.wait(1110), ".");
        assert!(times.close(1, last_heard_ms).starts_with('?'), "one of them was deaf");
    }
    let mut times = both();
    assert!(times.close(1, 600).ends_with("gap"));
    assert_eq!(times.wait(1110), "?.", "one of them is gone");
    let mut times = both();
    assert_eq!(times.hear(2, 120), "+");
    assert_eq!(times.hear(1, 130), "", "either may be a third");
    assert_eq!(times.wait(1500), ".", "and is not");
}

#[test]
fn a_word_is_taken_back_by_one_that_was_deaf() {
    for (last_heard_ms, told) in [(300, "?gap"), (1500, ".")] {
        let mut times = Times::with(&[1]);
        assert_eq!(times.hear(1, 0), "+");
        times.open(2, 100);
        assert_eq!(times.hear(2, 200), "");
        assert_eq!(times.wait(1200), ".");
        assert_eq!(times.close(1, last_heard_ms), told, "{last_heard_ms}");
    }
}

#[test]
fn the_last_one_s_going_may_have_missed_something_and_the_gap_is_told_when_it_ends() {
    let mut times = Times::with(&[1]);
    assert_eq!(times.close(1, 0), "");
    assert_eq!(times.open(2, 2000), "gap");
}

#[test]
fn what_is_remembered_is_bounded_and_what_was_forgotten_too_early_is_marked() {
    let mut times = Times::with(&[1, 2]);
    let hear = |times: &mut Times, link, at_ms: u64, text: &str| {
        let at = times.at(at_ms);
        told(&times.1.heard(link, at, text, &body(), Timestamp::UNIX_EPOCH))
    };
    for number in 0..=MOST_PAYLOADS {
        assert_eq!(hear(&mut times, 1, 0, &number.to_string()), "+");
    }
    assert_eq!(times.1.payloads.len(), MOST_PAYLOADS);
    assert_eq!(hear(&mut times, 2, 1, "0"), "?");
    assert_eq!(hear(&mut times, 2, 1, "1"), ".");
    times.wait(10_002);
    assert_eq!((times.1.payloads.len(), times.1.bytes, times.1.added.len()), (0, 0, 0));
    let large = "x".repeat(MOST_BYTES);
    for number in 0..3 {
        assert_eq!(
            hear(&mut times, 1, 99_000, &format!("{large}{number}")).chars().next(),
            Some(['+', '+', '?'][number])
        );
    }
    assert!(times.1.payloads.len() <= 1);
}

/// One connection's life.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) shard: usize,
    pub(super) opened_ms: u64,
    pub(super) lasts_ms: u64,
    /// For how long it is half-open before its end is noticed.
    pub(super) deaf_ms: u64,
    /// How long before it fell silent it answered its last ping.
    pub(super) silent_ms: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) pause_ms: u64,
    pub(super) text: usize,
    pub(super) delays_ms: [u64; 3],
}

pub(super) fn life() -> impl Strategy<Value = Life> {
    let deaf = prop_oneof![3 => Just(0), 1 => 0..PATIENCE_MS];
    (0..3_usize, 0..20_000_u64, 1..12_000_u64, deaf, 0..3000_u64).prop_map(
        |(shard, opened_ms, lasts_ms, deaf_ms, silent_ms)| Life { shard, opened_ms, lasts_ms, deaf_ms, silent_ms },
    )
}

pub(super) fn made(most_delay_ms: u64) -> impl Strategy<Value = Made> {
    let pause = prop_oneof![Just(0), 0..300_u64, 0..4000_u64];
    (pause, prop_oneof![3 => Just(0), 1 => Just(1)], prop::array::uniform3(0..most_delay_ms))
        .prop_map(|(pause_ms, text, delays_ms)| Made { pause_ms, text, delays_ms })
}

/// A connection that is there from long before to long after.
pub(super) fn steady(shard: usize) -> Life {
    Life { shard, opened_ms: 0, lasts_ms: 1_000_000, deaf_ms: 0, silent_ms: 0 }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Opened,
    Heard { broadcast: usize },
    Closed { last_heard_ms: u64 },
}

/// What really happened to one broadcast.
#[derive(Debug, Clone)]
pub(super) struct Truth {
    pub(super) text: usize,
    /// The first moment at which any shard delivered it.
    pub(super) made_ms: u64,
    pub(super) heard: bool,
    /// Whether it was reported as possible news when it was first heard.
    pub(super) was_news: bool,
}

/// What the matcher made of a history.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) truths: Vec<Truth>,
    /// Unmarked and marked entries by text.
    pub(super) entries: [[u64; 2]; 2],
    pub(super) gaps_ms: Vec<(u64, u64)>,
    /// An unmarked entry that was one more than had been broadcast by then.
    invented: bool,
}

/// Deliveries on each shard, in order: a later broadcast never overtakes an earlier one.
pub(super) fn deliveries(made: &[Made], begin_ms: u64) -> Vec<[u64; 3]> {
    let (mut now_ms, mut last) = (begin_ms, [0; 3]);
    let deliver = |one: &Made| {
        now_ms += one.pause_ms;
        for (last, delay) in last.iter_mut().zip(one.delays_ms) {
            *last = (*last).max(now_ms + delay);
        }
        last
    };
    made.iter().map(deliver).collect()
}

pub(super) fn history(lives: &[Life], delivered: &[[u64; 3]]) -> Vec<(u64, usize, What)> {
    let mut events = Vec::new();
    for (link, life) in lives.iter().enumerate() {
        let deaf_from_ms = life.opened_ms + life.lasts_ms;
        events.push((life.opened_ms, link, What::Opened));
        let mut last_heard_ms = life.opened_ms.max(deaf_from_ms.saturating_sub(life.silent_ms));
        for (broadcast, shards) in delivered.iter().enumerate() {
            let at_ms = shards[life.shard];
            if (life.opened_ms..deaf_from_ms).contains(&at_ms) {
                events.push((at_ms, link, What::Heard { broadcast }));
                last_heard_ms = last_heard_ms.max(at_ms);
            }
        }
        events.push((deaf_from_ms + life.deaf_ms, link, What::Closed { last_heard_ms }));
    }
    // By time; what one connection does at the same moment stays in its order.
    events.sort_by_key(|(at_ms, link, _)| (*at_ms, *link));
    events
}

fn play(lives: &[Life], made: &[Made], begin_ms: u64) -> Log {
    let start = Instant::now();
    let mut matcher = Matcher::new(Duration::from_millis(SKEW_MS), Duration::from_millis(PATIENCE_MS), start);
    let delivered = deliveries(made, begin_ms);
    let mut log = Log::of(made, &delivered);
    for event in history(lives, &delivered) {
        log.feed(&mut matcher, event, start);
    }
    // Somebody comes in the end, so that the last hole is told.
    log.end(&mut matcher, start);
    log
}

impl Log {
    pub(super) fn of(made: &[Made], delivered: &[[u64; 3]]) -> Self {
        let truth = |(one, shards): (&Made, &[u64; 3])| {
            let made_ms = shards.iter().copied().min().unwrap_or_default();
            Truth { text: one.text, made_ms, heard: false, was_news: false }
        };
        Self { truths: made.iter().zip(delivered).map(truth).collect(), ..Self::default() }
    }

    /// Lets the matcher hear one event of a history.
    pub(super) fn feed(&mut self, matcher: &mut Matcher, (at_ms, link, what): (u64, usize, What), start: Instant) {
        let at = |at_ms: u64| start + Duration::from_millis(at_ms);
        while let Some(due) = matcher.due().filter(|due| *due <= at(at_ms)) {
            self.take(matcher.tick(due), start);
        }
        let link = link as u64;
        let outcome = match what {
            What::Opened => matcher.opened(link, at(at_ms)),
            What::Closed { last_heard_ms } => matcher.closed(link, at(last_heard_ms)),
            What::Heard { broadcast } => {
                let text = self.truths[broadcast].text;
                let outcome = matcher.heard(link, at(at_ms), ["a", "b"][text], &body(), Timestamp::UNIX_EPOCH);
                // An equal one that was made later and heard earlier stood for this one too.
                let mut later = self.truths[broadcast + 1..].iter();
                let stood_for = later.any(|later| later.text == text && later.was_news);
                let truth = &mut self.truths[broadcast];
                let first = !std::mem::replace(&mut truth.heard, true);
                truth.was_news |= first && (outcome.news || stood_for);
                outcome
            }
        };
        self.take(outcome, start);
    }

    pub(super) fn end(&mut self, matcher: &mut Matcher, start: Instant) {
        let end = start + Duration::from_secs(2000);
        self.take(matcher.tick(end), start);
        self.take(matcher.opened(u64::MAX, end), start);
        assert!(matcher.held.is_empty() && matcher.payloads.is_empty() && matcher.bytes == 0);
    }

    pub(super) fn take(&mut self, outcome: Matched, start: Instant) {
        let ms = |at: Instant| u64::try_from((at - start).as_millis()).unwrap();
        for decision in outcome.decisions {
            match decision {
                Decision::Unreadable(_) => unreachable!("all that is broadcast here can be read"),
                Decision::Gap(hole) => self.gaps_ms.push((ms(hole.from), ms(hole.to))),
                Decision::Broadcast(broadcast) => {
                    let text = usize::from(&*broadcast.message == "b");
                    self.entries[text][usize::from(broadcast.maybe_duplicate)] += 1;
                    self.invented |= self.entries[text][0] > self.heard(text);
                }
            }
        }
    }

    /// Whether nothing was lost without an entry or a gap, and no copy is an unmarked entry of its own.
    pub(super) fn is_whole(&self) -> bool {
        let counts = [0, 1].into_iter().all(|text| {
            let ([certain, marked], heard) = (self.entries[text], self.heard(text));
            certain <= heard && heard <= certain + marked
        });
        let told = |made_ms| self.gaps_ms.iter().any(|(from, to)| (*from..=*to).contains(&made_ms));
        let mut truths = self.truths.iter();
        !self.invented && counts && truths.all(|truth| if truth.heard { truth.was_news } else { told(truth.made_ms) })
    }

    pub(super) fn heard(&self, text: usize) -> u64 {
        self.truths.iter().filter(|truth| truth.heard && truth.text == text).count() as u64
    }
}

/// Broadcasts of one text: the pause before each, and its delay on each shard.
fn equal(broadcasts: &[(u64, [u64; 3])]) -> Vec<Made> {
    broadcasts
        .iter()
        .map(|(pause_ms, delays_ms)| Made { pause_ms: *pause_ms, text: 0, delays_ms: *delays_ms })
        .collect()
}

/// Random histories are seldom like these, in which something goes wrong where it is not looked at what another
/// connection may have missed.
#[test]
fn what_one_connection_brings_tells_what_another_may_have_missed() {
    let lives = [(1, 2872), (0, 0)].map(|(shard, opened_ms)| Life { opened_ms, ..steady(shard) });
    let made = [(2761, [111, 0, 0]), (0, [0; 3]), (0, [0, 111, 0]), (716, [0, 395, 0]), (0, [0; 3])];
    let log = play(&lives, &equal(&made), 0);
    assert_eq!(log.entries[0], [log.heard(0), 0], "{log:?}");

    let lives = [(0, 1545, 5249), (0, 309, 3808), (2, 637, 6668)].map(|(shard, opened_ms, lasts_ms)| Life {
        opened_ms,
        lasts_ms,
        ..steady(shard)
    });
    let made = [
        (0, [46, 0, 0]),
        (328, [0; 3]),
        (196, [0; 3]),
        (1143, [0; 3]),
        (274, [0; 3]),
        (787, [0; 3]),
        (244, [645, 0, 0]),
    ];
    let log = play(&lives, &equal(&made), 500);
    assert!(log.is_whole(), "{log:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn nothing_is_lost_without_a_word_and_no_copy_passes_for_another_broadcast(
        lives in prop::collection::vec(life(), 1..9),
        made in prop::collection::vec(made(SKEW_MS), 1..25),
    ) {
        let log = play(&lives, &made, 500);
        prop_assert!(log.is_whole(), "{log:?}");
    }

    #[test]
    fn with_one_connection_there_all_along_there_is_exactly_one_entry_a_broadcast_and_no_gap(
        lives in prop::collection::vec(life(), 0..9),
        made in prop::collection::vec(made(SKEW_MS), 1..25),
        shard in 0..3_usize,
    ) {
        let lives: Vec<Life> = lives.into_iter().chain([steady(shard)]).collect();
        let log = play(&lives, &made, 2 * SKEW_MS);
        for text in [0, 1] {
            prop_assert_eq!(log.entries[text], [log.heard(text), 0], "{:?}", log);
        }
        // Before the first connection, and after the last.
        prop_assert!(log.gaps_ms.iter().all(|(from, to)| *to == 0 || *from > 900_000), "{:?}", log);
    }

    #[test]
    fn with_connections_that_open_at_any_time_and_stay_there_is_exactly_one_entry_for_all_that_was_heard(
        opened_ms in prop::collection::vec((0..3_usize, 0..4 * SKEW_MS), 1..6),
        made in prop::collection::vec(made(SKEW_MS), 1..25),
    ) {
        let lives: Vec<Life> =
            opened_ms.into_iter().map(|(shard, opened_ms)| Life { opened_ms, ..steady(shard) }).collect();
        let log = play(&lives, &made, 0);
        for text in [0, 1] {
            prop_assert_eq!(log.entries[text], [log.heard(text), 0], "{:?}", log);
        }
    }

    #[test]
    fn shards_that_differ_by_more_than_the_skew_cost_marked_entries_and_nothing_else(
        made in prop::collection::vec(made(9 * SKEW_MS), 1..25),
    ) {
        let log = play(&[steady(0), steady(1), steady(2)], &made, 2 * SKEW_MS);
        for text in [0, 1] {
            prop_assert_eq!(log.entries[text][0], log.heard(text), "{:?}", log);
        }
        prop_assert!(log.truths.iter().all(|truth| truth.was_news));
    }
}
