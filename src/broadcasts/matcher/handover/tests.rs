//! One entry a broadcast, or a gap, over handovers at any moment and losses, whatever the connections of both owners do.

use proptest::prelude::*;

use super::super::tests::{Life, Log, Made, PATIENCE_MS, SKEW_MS, What, body, deliveries, history, life, made, steady};
use super::*;

const SKEW: Duration = Duration::from_millis(SKEW_MS);
const PATIENCE: Duration = Duration::from_millis(PATIENCE_MS);

/// When the next owner was ready, the old one told what it knew, and the next had received it; in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Handover {
    ready: u64,
    told: u64,
    received: u64,
}

fn handover() -> impl Strategy<Value = Handover> {
    (2000..20_000_u64, 0..1500_u64, 0..500_u64).prop_map(|(ready, told, received)| Handover {
        ready,
        told: ready + told,
        received: ready + told + received,
    })
}

/// When something was last heard on links of the old owner, each at its last ping before it told.
fn last_heard(lives: &[Life], events: &[(u64, usize, What)], told_ms: u64, start: Instant) -> HashMap<u64, Instant> {
    let heard = lives.iter().enumerate().map(|(link, life)| {
        let pinged = told_ms.min(life.opened_ms + life.lasts_ms).saturating_sub(life.silent_ms);
        let brought = events.iter().filter(|(_, of, what)| *of == link && matches!(what, What::Heard { .. }));
        let last = brought.map(|(at_ms, ..)| *at_ms).filter(|at_ms| *at_ms < told_ms).max();
        (link as u64, start + Duration::from_millis(last.unwrap_or_default().max(pinged).max(life.opened_ms)))
    });
    heard.collect()
}

fn play(old: &[Life], new: &[Life], made: &[Made], begin_ms: u64, handover: Handover) -> Log {
    let start = Instant::now();
    let at = |at_ms: u64| start + Duration::from_millis(at_ms);
    let delivered = deliveries(made, begin_ms);
    let mut log = Log::of(made, &delivered);
    let mut matcher = Matcher::new(SKEW, PATIENCE, start);
    let events: Vec<_> = history(old, &delivered).into_iter().filter(|(at_ms, ..)| *at_ms < handover.told).collect();
    for event in &events {
        log.feed(&mut matcher, *event, start);
    }
    log.take(matcher.tick(at(handover.told)), start);
    let carried = matcher.carried(at(handover.told), &last_heard(old, &events, handover.told, start));
    let text = serde_json::to_string(&carried).unwrap();
    let carried: Carried = serde_json::from_str(&text).unwrap();
    let now = at(handover.received);
    let away = Away { now, at_most: Duration::from_millis(handover.received - handover.ready) };
    let events = history(new, &delivered);
    let first = events.first().map_or(handover.received, |(at_ms, ..)| *at_ms);
    let mut matcher = Matcher::resume((SKEW, PATIENCE), carried, away, at(first));
    for event in events {
        log.feed(&mut matcher, event, start);
    }
    log.end(&mut matcher, start);
    log
}

/// Whether there is no more than one unmarked entry a broadcast, and an entry of each that lies in no gap.
fn is_once_or_in_a_gap(log: &Log) -> bool {
    let in_a_gap = |made_ms: u64| log.gaps_ms.iter().any(|(from, to)| (*from..=*to).contains(&made_ms));
    [0, 1].into_iter().all(|text| {
        let ([certain, marked], heard) = (log.entries[text], log.heard(text));
        let outside = log.truths.iter().filter(|truth| truth.text == text && !in_a_gap(truth.made_ms)).count();
        certain <= heard && outside as u64 <= certain + marked
    })
}

/// The old owner is lost at an instant, and the new one begins so long after it with the log alone.
fn play_loss(old: &[Life], new: &[Life], made: &[Made], lost_ms: u64, gone_ms: u64) -> Log {
    let start = Instant::now();
    let at = |at_ms: u64| start + Duration::from_millis(at_ms);
    let delivered = deliveries(made, 500);
    let mut log = Log::of(made, &delivered);
    let mut matcher = Matcher::new(SKEW, PATIENCE, start);
    let events: Vec<_> = history(old, &delivered).into_iter().filter(|(at_ms, ..)| *at_ms < lost_ms).collect();
    for event in &events {
        log.feed(&mut matcher, *event, start);
    }
    let logged_until = matcher.logged_until(at(lost_ms), &last_heard(old, &events, lost_ms, start));
    let began_ms = lost_ms + gone_ms;
    // All that is known is that it was logged, and that the owner has been gone for so long.
    let logged = log.entries.iter().zip(["a", "b"]).flat_map(|(counts, text)| {
        let payload = Payload::Read { message: text.into(), parameters: body() };
        let earliest = at(began_ms).checked_sub(SKEW * LATE_SKEWS).unwrap_or(start);
        vec![(payload, at(lost_ms), earliest); usize::try_from(counts[0] + counts[1]).unwrap()]
    });
    let mut matcher = Matcher::resume_after_loss((SKEW, PATIENCE), logged.collect(), logged_until, at(began_ms));
    let lives: Vec<Life> = new.iter().map(|life| Life { opened_ms: began_ms + life.opened_ms, ..*life }).collect();
    for event in history(&lives, &delivered) {
        log.feed(&mut matcher, event, start);
    }
    log.end(&mut matcher, start);
    log
}

#[test]
fn a_frame_that_was_held_when_its_owner_was_lost_lies_in_the_gap_from_when_it_can_have_been_delivered_elsewhere() {
    let lives = [(0, 3077), (1240, 6618)].map(|(opened_ms, lasts_ms)| Life { opened_ms, lasts_ms, ..steady(1) });
    let made = [(0, 1, 0), (1391, 0, 0), (632, 1, 554)];
    let made = made.map(|(pause_ms, text, delay_ms)| Made { pause_ms, text, delays_ms: [0, delay_ms, 0] });
    let log = play_loss(&lives, &[], &made, 3524, 0);
    assert!(is_once_or_in_a_gap(&log), "{log:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_handover_loses_nothing_without_a_word_and_no_copy_passes_for_another_broadcast(
        old in prop::collection::vec(life(), 0..5),
        new in prop::collection::vec(life(), 0..5),
        made in prop::collection::vec(made(SKEW_MS), 1..25),
        handover in handover(),
    ) {
        // What was heard by then of the new owner's links is no older than what the old one remembers.
        let new: Vec<Life> = new.into_iter().map(|life| {
            let opened_ms = life.opened_ms.max(handover.ready.saturating_sub(7 * SKEW_MS));
            Life { opened_ms, ..life }
        }).collect();
        let log = play(&old, &new, &made, 500, handover);
        prop_assert!(is_once_or_in_a_gap(&log), "{log:?}");
    }

    #[test]
    fn with_connections_that_stay_there_is_exactly_one_entry_a_broadcast_and_no_gap(
        old in prop::collection::vec(life(), 0..4),
        new in prop::collection::vec(life(), 0..4),
        shards in (0..3_usize, 0..3_usize),
        made in prop::collection::vec(made(SKEW_MS), 1..25),
        (told_ms, received_ms) in (0..1000_u64, 0..400_u64),
        begin_ms in 0..3000_u64,
    ) {
        // Ready a little more than a skew after it began to listen; its links opened before there was anything to miss.
        let handover = Handover { ready: 5000, told: 5000 + told_ms, received: 5000 + told_ms + received_ms };
        let old: Vec<Life> = old.into_iter().chain([steady(shards.0)]).collect();
        let listening = Life { opened_ms: 1000, ..steady(shards.1) };
        let new = new.into_iter().map(|life| Life { opened_ms: 1000, ..life });
        let new: Vec<Life> = new.chain([listening]).collect();
        let log = play(&old, &new, &made, 1000 + 2 * SKEW_MS + 1500 + begin_ms, handover);
        for text in [0, 1] {
            prop_assert_eq!(log.entries[text], [log.heard(text), 0], "{:?}", log);
        }
        prop_assert!(log.truths.iter().all(|truth| truth.heard && truth.was_news));
        prop_assert!(log.gaps_ms.iter().all(|(from, to)| *to == 0 || *from > 900_000), "{:?}", log);
    }

    #[test]
    fn after_a_loss_what_was_logged_is_not_logged_again_and_what_was_not_lies_in_the_gap(
        old in prop::collection::vec(life(), 0..5),
        new in prop::collection::vec(life(), 0..5),
        made in prop::collection::vec(made(SKEW_MS), 1..25),
        lost_ms in 500..20_000_u64,
        gone_ms in 0..3 * SKEW_MS,
    ) {
        let log = play_loss(&old, &new, &made, lost_ms, gone_ms);
        prop_assert!(is_once_or_in_a_gap(&log), "{log:?}");
    }
}
