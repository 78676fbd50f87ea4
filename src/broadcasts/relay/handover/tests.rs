//! What listeners hear over handovers and losses: each broadcast once, or a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::FutureExt;
use proptest::prelude::*;
use serde_json::value::RawValue;
use tokio::time::advance;

use super::*;
use crate::broadcasts::{Broadcasts, Epoch, Item, Since, SubscriberLimit};
use crate::cache::{Cache, Config};
use crate::protocol::Body;
use crate::tenure::Tenure;

const SKEW: Duration = Duration::from_secs(2);
const HISTORY: usize = 1000;

/// One owner with two links, whose ids are those of its number.
struct Owner {
    relay: Arc<Relay>,
    broadcasts: Broadcasts,
    links: [u64; 2],
}

impl Owner {
    fn new(number: u64) -> Self {
        let rules = BTreeMap::new();
        let cache = Arc::new(Cache::new(Config { max_size: 1 << 20, min_age: Duration::ZERO, rules, store: None }));
        let broadcasts = Broadcasts::new(Epoch::new(number), HISTORY, SubscriberLimit::new(9, 9));
        let relay =
            Relay::new(Tenure::unlimited(), ("demo", "demo"), cache, broadcasts.clone(), SKEW, Duration::from_mins(1));
        Self { relay, broadcasts, links: [2 * number, 2 * number + 1] }
    }

    fn open(&self) {
        for link in self.links {
            self.relay.take(&LinkEvent::Opened { link, at: Instant::now() });
        }
    }

    fn hear(&self, message: &str, link: usize) {
        let parameters = Body::from(&*RawValue::from_string("{}".to_owned()).unwrap());
        let (link, message) = (self.links[link], message.to_owned());
        self.relay.take(&LinkEvent::Broadcast { link, at: Instant::now(), message, parameters });
    }

    /// Both of its links have just been heard.
    fn heard(&self) -> HashMap<u64, Instant> {
        self.links.map(|link| (link, Instant::now())).into()
    }

    fn hand_over(&self) -> Carried {
        serde_json::from_str(&serde_json::to_string(&self.relay.hand_over(&self.heard())).unwrap()).unwrap()
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A broadcast of this text, and how long it takes until the next replica hears it too.
    Broadcast(u8, u64),
    Pass(u64),
    HandOver {
        opening: Vec<(u8, u64)>,
        during: Vec<u8>,
        told_ms: u64,
        between: Vec<u8>,
        fails: bool,
    },
    Lose {
        gone_ms: u64,
        missed: Vec<u8>,
    },
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..3_u8, 0..4)
}

fn step(loses: bool) -> impl Strategy<Value = Step> {
    let opening = prop::collection::vec((0..3_u8, 0..1500_u64), 0..6);
    let hand_over = (opening, texts(), 0..1500_u64, texts(), prop::bool::weighted(0.2)).prop_map(
        |(opening, during, told_ms, between, fails)| Step::HandOver { opening, during, told_ms, between, fails },
    );
    // The lease of a lost owner outlasts it for longer than shards differ.
    let lose = (2000..5000_u64, texts()).prop_map(|(gone_ms, missed)| Step::Lose { gone_ms, missed });
    prop_oneof![
        6 => (0..3_u8, 0..1500_u64).prop_map(|(text, delay_ms)| Step::Broadcast(text, delay_ms)),
        3 => (0..30_000_u64).prop_map(Step::Pass),
        2 => hand_over,
        if loses { 2 } else { 0 } => lose,
    ]
}

struct Festival {
    owner: Owner,
    owners: u64,
    /// Every broadcast that there was, by text, each with a number.
    made: Vec<u8>,
    /// What a listener heard that always came back with its last id: texts and whether they were marked, or gaps.
    told: Vec<Option<(u8, bool)>>,
    last: Option<String>,
}

impl Festival {
    async fn new() -> Self {
        let owner = Owner::new(1);
        owner.open();
        advance(SKEW * 3).await;
        Self { owner, owners: 1, made: Vec::new(), told: Vec::new(), last: None }
    }

    async fn pass(&self, ms: u64) {
        // In pieces, so that what is due in between is decided.
        for _ in 0..ms.div_ceil(250) {
            advance(Duration::from_millis(250.min(ms))).await;
            let mut state = self.owner.relay.state.lock();
            if state.kept.is_none() {
                let outcome = state.matcher.tick(Instant::now());
                self.owner.relay.log(outcome);
            }
        }
    }

    async fn broadcast(&mut self, text: u8, delay_ms: u64, next: Option<&Owner>) {
        let message = text.to_string();
        self.made.push(text);
        self.owner.hear(&message, 0);
        self.pass(delay_ms / 2).await;
        self.owner.hear(&message, 1);
        self.pass(delay_ms / 2).await;
        if let Some(next) = next {
            next.hear(&message, 0);
            next.hear(&message, 1);
        }
    }

    /// Listens until there is nothing more to hear for now.
    fn listen(&mut self) {
        let since = self.last.as_deref().map_or(Since::Now, Since::After);
        let mut subscription = self.owner.broadcasts.subscribe("shop", since).unwrap();
        while let Some(Ok(item)) = subscription.next().now_or_never() {
            match item {
                Item::Entry(entry) => match &entry.event {
                    Event::Broadcast(told) => {
                        self.told.push(Some((told.message.parse().unwrap(), told.maybe_duplicate)));
                    }
                    Event::Gap(_) => self.told.push(None),
                },
                Item::Reset | Item::Lost { .. } => panic!("{item:?}"),
            }
        }
        self.last = Some(subscription.cursor().to_string());
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Broadcast(text, delay_ms) => self.broadcast(text, delay_ms, None).await,
            Step::Pass(ms) => self.pass(ms).await,
            Step::HandOver { opening, during, told_ms, between, fails } => {
                // What is broadcast while a link opens may or may not reach it.
                self.pass(4000).await;
                let next = self.next();
                next.relay.keep();
                next.open();
                for (text, delay_ms) in opening {
                    self.broadcast(text, delay_ms, Some(&next)).await;
                }
                self.pass(4000).await;
                for text in during {
                    self.broadcast(text, 600, Some(&next)).await;
                }
                let ready = next.relay.until_listening().await;
                self.pass(told_ms).await;
                let carried = self.owner.hand_over();
                for text in between {
                    self.broadcast(text, 0, Some(&next)).await;
                }
                if fails {
                    self.owner.relay.go_on();
                    return;
                }
                next.broadcasts.resume(self.owner.broadcasts.carried());
                assert!(next.relay.resume(carried, ready, Instant::now()));
                self.listen();
                self.owner = next;
            }
            Step::Lose { gone_ms, missed } => {
                let covered = self.owner.relay.logged_until(&self.owner.heard());
                assert!(covered.is_some());
                let next = self.next();
                next.relay.keep();
                next.broadcasts.resume(self.owner.broadcasts.carried());
                self.made.extend(missed);
                advance(Duration::from_millis(gone_ms)).await;
                let gone_for = Duration::from_millis(gone_ms);
                let entries = next.broadcasts.carried().entries;
                let left = Left {
                    covered_ago: covered.map(|at| {
                        gone_for + Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default()
                    }),
                    logged_ago: entries.into_iter().map(|(offset, _)| (offset, gone_for)).collect(),
                };
                next.relay.resume_after_loss(&left, gone_for);
                next.open();
                self.owner = next;
            }
        }
        self.listen();
    }

    fn next(&mut self) -> Owner {
        self.owners += 1;
        Owner::new(self.owners)
    }

    async fn run(steps: Vec<Step>) -> Self {
        let mut festival = Self::new().await;
        festival.listen();
        for step in steps {
            festival.take(step).await;
        }
        festival.pass(60_000).await;
        festival.listen();
        festival
    }
}

/// Whether what was told is what was made, with any left out where there is a gap. What is marked may be one more.
fn is_once_or_in_a_gap(Festival { told, made, .. }: &Festival) -> bool {
    // How many of those that were made may be accounted for, and whether some may be left out before the next.
    let mut states = BTreeSet::from([(0, false)]);
    for told in told {
        let next = |(at, in_gap): &(usize, bool)| -> Vec<(usize, bool)> {
            let Some((text, marked)) = told else { return vec![(*at, true)] };
            let left = made.iter().enumerate().skip(*at).take(if *in_gap { made.len() } else { 1 });
            let found = left.filter(|(_, made)| *made == text).map(|(found, _)| (found + 1, false));
            found.chain(marked.then_some((*at, *in_gap))).collect()
        };
        states = states.iter().flat_map(next).collect();
    }
    states.iter().any(|(at, in_gap)| *at == made.len() || *in_gap)
}

fn in_test<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        advance(Duration::from_hours(1)).await;
        test.await
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn over_handovers_each_listener_hears_each_broadcast_once_and_no_gap(
        steps in prop::collection::vec(step(false), 1..12),
    ) {
        let festival = in_test(Festival::run(steps));
        let made: Vec<_> = festival.made.iter().map(|text| Some((*text, false))).collect();
        prop_assert_eq!(festival.told, made);
    }

    #[test]
    fn over_handovers_and_losses_each_listener_hears_each_broadcast_once_or_a_gap(
        steps in prop::collection::vec(step(true), 1..12),
    ) {
        let festival = in_test(Festival::run(steps));
        prop_assert!(is_once_or_in_a_gap(&festival), "{:?} of {:?}", festival.told, festival.made);
    }
}

#[test]
fn too_long_a_way_is_no_handover() {
    in_test(async {
        let (old, new) = (Owner::new(1), Owner::new(2));
        old.open();
        new.relay.keep();
        new.open();
        let ready = new.relay.until_listening().await;
        let carried = old.hand_over();
        advance(SKEW * 2 + Duration::from_millis(1)).await;
        assert!(!new.relay.resume(carried, ready, Instant::now()));
    });
}
