//! Which connections to open and to close. Pure: a view of the pool in, a plan out.
//!
//! Broadcasts come only over open connections, so `min_links` stay open, on as many shards as possible. A link carries one
//! command at a time, so waiting commands are a reason to open another, up to `max_links`. A failing gateway must not be
//! flooded with attempts. A new connection is opened before an old one is closed. A shard that failed is probed now and then
//! even when no connection to it is needed, so that the status and the next caller know that it is back: a probe costs no
//! points, and its link is closed once it has been idle.

use std::time::Duration;

use tokio::time::Instant;

/// How long a link above `min_links` may have nothing to do before it is given up.
pub const IDLE_PATIENCE: Duration = Duration::from_secs(30);

/// One shard as the planner sees it.
#[derive(Debug, Clone, Default)]
pub struct ShardView {
    /// Open links in service, free or busy; those set aside do not count.
    pub links: usize,
    /// Attempts to connect under way.
    pub dialling: usize,
    /// Whether it is bad and another instance tries it.
    pub on_trial: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Commands in a row that were not answered in time.
    pub timeouts: u32,
    /// When it may be dialled; `None` for at once.
    pub retry_at: Option<Instant>,
    /// When to look whether it is back, for one that failed or lost a connection.
    pub probe_at: Option<Instant>,
    pub cordoned: bool,
    /// When its longest idle link became free, where one is.
    pub idle_since: Option<Instant>,
}

/// The pool as the planner sees it.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// By index of the shard.
    pub shards: Vec<ShardView>,
    /// Links that carry a command or settle after one.
    pub busy: usize,
    /// Commands waiting for a link.
    pub waiting: usize,
    /// Those of them that are payments.
    pub payments: usize,
    /// Links kept open even when idle.
    pub min_links: usize,
    /// Links never exceeded, but by one while connections move between shards, and by one for a payment where it is 1.
    pub max_links: usize,
}

impl View {
    /// Links that may be open while nothing moves. One of several is always left to payments; a payment that waits for the
    /// only one opens a second, which is closed once it has been idle.
    fn ceiling(&self) -> usize {
        self.max_links.max(2)
    }

    /// Links wanted for commands under way and waiting.
    fn wanted(&self) -> usize {
        let all = (self.busy + self.waiting).min(self.max_links);
        let payments = if self.payments > 0 { (self.busy + self.payments).min(self.ceiling()) } else { 0 };
        self.min_links.max(all).max(payments)
    }
}

/// What to do now, and when to look again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Shards to dial, one entry an attempt.
    pub dial: Vec<usize>,
    /// Shards of which the longest idle link is to be given up.
    pub give_up: Vec<usize>,
    /// When the picture may ask for something new without any event.
    pub look_again: Option<Instant>,
}

#[must_use]
pub fn plan(view: &View, now: Instant) -> Plan {
    let mut shards = view.shards.clone();
    let mut plan = Plan::default();
    while let Some(next) = next_dial(view, &mut shards, now, &mut plan.look_again) {
        plan.dial.push(next);
    }
    if plan.dial.is_empty() {
        plan.dial.extend(probe(view, now, &mut plan.look_again));
    }
    if let Some(spare) = spare(view, &view.shards, now, &mut plan.look_again) {
        plan.give_up.push(spare);
    }
    plan
}

/// The next shard to dial, counted as dialling from then on.
fn next_dial(view: &View, shards: &mut [ShardView], now: Instant, look_again: &mut Option<Instant>) -> Option<usize> {
    let serving: Vec<&ShardView> = shards.iter().filter(|shard| !shard.cordoned).collect();
    let open: usize = serving.iter().map(|shard| shard.links + shard.dialling).sum();
    let covered = serving.iter().filter(|shard| shard.links + shard.dialling > 0).count();
    let wanted = view.wanted();
    let spread = view.min_links.min(serving.len());
    let (lacks_links, lacks_spread) = (open < wanted, covered < spread);
    // Moving to another shard may exceed the maximum by one, so that the new link exists before the old one goes.
    let may_move = lacks_spread && open <= view.max_links;
    if !(lacks_links || may_move) {
        return None;
    }
    let mut best: Option<(usize, (bool, usize, u32))> = None;
    for (index, shard) in shards.iter().enumerate() {
        let taken = shard.links + shard.dialling;
        if shard.cordoned || shard.on_trial || (!lacks_links && taken > 0) || (shard.failures > 0 && shard.dialling > 0)
        {
            continue;
        }
        if let Some(at) = shard.retry_at.filter(|at| *at > now) {
            earliest(look_again, at);
            continue;
        }
        let rank = (shard.failures > 0 || shard.timeouts > 0, taken, shard.failures);
        if best.is_none_or(|(_, known)| rank < known) {
            best = Some((index, rank));
        }
    }
    let (index, _) = best?;
    shards.get_mut(index)?.dialling += 1;
    Some(index)
}

/// A shard to dial only to see whether it is back. Like a move, this may exceed the maximum by one.
fn probe(view: &View, now: Instant, look_again: &mut Option<Instant>) -> Option<usize> {
    let open: usize = view.shards.iter().map(|shard| shard.links + shard.dialling).sum();
    let unseen = |shard: &&ShardView| !shard.cordoned && !shard.on_trial && shard.links + shard.dialling == 0;
    let (index, at) = view
        .shards
        .iter()
        .enumerate()
        .filter(|(_, shard)| unseen(shard))
        .filter_map(|(index, shard)| Some((index, shard.probe_at.max(shard.retry_at)?)))
        .min_by_key(|(_, at)| *at)?;
    if at > now {
        earliest(look_again, at);
        return None;
    }
    (open <= view.max_links).then_some(index)
}

/// A shard whose longest idle link is not needed.
fn spare(view: &View, shards: &[ShardView], now: Instant, look_again: &mut Option<Instant>) -> Option<usize> {
    let serving = |shard: &&ShardView| !shard.cordoned;
    let open: usize = shards.iter().filter(serving).map(|shard| shard.links).sum();
    let covered = shards.iter().filter(serving).filter(|shard| shard.links > 0).count();
    let spread = view.min_links.min(shards.iter().filter(serving).count());
    if let Some(index) = shards.iter().position(|shard| shard.cordoned && shard.idle_since.is_some()) {
        // A cordoned shard loses its links as soon as others carry the load.
        return (open >= view.min_links).then_some(index);
    }
    let crowded = shards
        .iter()
        .enumerate()
        .filter(|(_, shard)| !shard.cordoned && (shard.links > 1 || covered > spread))
        .filter_map(|(index, shard)| shard.idle_since.map(|since| (index, shard.links, since)))
        .max_by_key(|(_, links, since)| (*links, std::cmp::Reverse(*since)));
    let (index, _, since) = crowded?;
    // Also while shards are missing: one too many stands in the way of moving to the next of them.
    if open > view.ceiling() {
        return Some(index);
    }
    // A link that is kept for payments while others wait is not idle for nothing.
    if open > view.min_links.max(view.busy + view.waiting) {
        let idle_until = since + IDLE_PATIENCE;
        if idle_until <= now {
            return Some(index);
        }
        earliest(look_again, idle_until);
    }
    None
}

fn earliest(known: &mut Option<Instant>, at: Instant) {
    *known = Some(known.map_or(at, |known| known.min(at)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn view(shards: Vec<ShardView>) -> View {
        View { shards, min_links: 2, max_links: 8, ..View::default() }
    }

    fn bad(retry_in: Duration) -> ShardView {
        ShardView { failures: 3, retry_at: Some(Instant::now() + retry_in), ..ShardView::default() }
    }

    #[test]
    fn with_all_links_on_one_shard_the_others_get_theirs_one_after_the_other() {
        let now = Instant::now();
        let crowded = |links| ShardView { links, idle_since: Some(now), ..ShardView::default() };
        let full = |shards| View { min_links: 3, ..view(shards) };
        let moved = plan(&full(vec![crowded(8), ShardView::default(), ShardView::default()]), now);
        assert_eq!((moved.dial.len(), moved.give_up.len()), (1, 0));
        let one_too_many = plan(&full(vec![crowded(8), crowded(1), ShardView::default()]), now);
        assert_eq!((one_too_many.dial, one_too_many.give_up), (vec![], vec![0]));
        let next = plan(&full(vec![crowded(7), crowded(1), ShardView::default()]), now);
        assert_eq!((next.dial, next.give_up), (vec![2], vec![]));
    }

    #[test]
    fn at_start_the_minimum_is_opened_on_different_shards() {
        let plan = plan(&view(vec![ShardView::default(); 3]), Instant::now());
        assert_eq!(plan.dial, [0, 1]);
    }

    #[test]
    fn whoever_waits_is_a_reason_to_open_up_to_the_maximum() {
        let open = ShardView { links: 1, ..ShardView::default() };
        let mut view = view(vec![open.clone(), open, ShardView::default()]);
        view.busy = 2;
        view.waiting = 100;
        let plan = plan(&view, Instant::now());
        assert_eq!(plan.dial.len(), 6);
        let on_third = plan.dial.iter().filter(|shard| **shard == 2).count();
        assert!(on_third >= 2, "spread over the shards: {plan:?}");
    }

    #[test]
    fn no_more_are_opened_than_there_are_commands() {
        let open = ShardView { links: 1, ..ShardView::default() };
        let view = View { busy: 2, waiting: 1, ..view(vec![open.clone(), open, ShardView::default()]) };
        assert_eq!(plan(&view, Instant::now()).dial, [2]);
    }

    #[test]
    fn a_shard_that_failed_or_was_silent_is_dialled_after_every_good_one() {
        let now = Instant::now();
        let open = ShardView { links: 1, ..ShardView::default() };
        let failed = ShardView { failures: 1, retry_at: Some(now), ..ShardView::default() };
        let silent = ShardView { timeouts: 1, ..ShardView::default() };
        for doubtful in [failed, silent] {
            let view = |shards| View { busy: 1, waiting: 1, min_links: 1, ..view(shards) };
            assert_eq!(plan(&view(vec![doubtful.clone(), open.clone()]), now).dial, [1], "{doubtful:?}");
            let both = View { min_links: 2, ..view(vec![doubtful, ShardView::default()]) };
            assert_eq!(plan(&both, now).dial, [1, 1, 0]);
        }
    }

    #[test]
    fn where_a_missing_shard_may_not_be_dialled_nothing_moves() {
        let crowded = ShardView { links: 2, ..ShardView::default() };
        let plan = plan(&view(vec![crowded, bad(Duration::from_secs(1))]), Instant::now());
        assert!(plan.dial.is_empty(), "{plan:?}");
    }

    #[test]
    fn the_last_link_on_a_shard_goes_only_where_enough_other_shards_have_one() {
        let later = Instant::now() + IDLE_PATIENCE * 2;
        let idle = ShardView { links: 1, idle_since: Some(Instant::now()), ..ShardView::default() };
        let busy = ShardView { links: 2, ..ShardView::default() };
        let needed = plan(&view(vec![busy, idle.clone(), ShardView::default()]), later);
        assert!(needed.give_up.is_empty(), "{needed:?}");
        assert_eq!(plan(&view(vec![idle.clone(), idle.clone(), idle]), later).give_up.len(), 1);
    }

    #[test]
    fn an_idle_link_that_is_kept_for_payments_while_reads_wait_stays() {
        let both = ShardView { links: 2, idle_since: Some(Instant::now()), ..ShardView::default() };
        let view = View { min_links: 1, max_links: 2, busy: 1, waiting: 1, ..view(vec![both]) };
        let plan = plan(&view, Instant::now() + IDLE_PATIENCE * 2);
        assert!(plan.give_up.is_empty(), "{plan:?}");
    }

    #[test]
    fn where_one_link_is_all_a_waiting_payment_opens_a_second_and_a_waiting_read_does_not() {
        let now = Instant::now();
        let only =
            View { min_links: 1, max_links: 1, busy: 1, ..view(vec![ShardView { links: 1, ..ShardView::default() }]) };
        assert!(plan(&View { waiting: 5, ..only.clone() }, now).dial.is_empty());
        assert_eq!(plan(&View { waiting: 5, payments: 1, ..only.clone() }, now).dial, [0]);
        let both = ShardView { links: 2, idle_since: Some(now), ..ShardView::default() };
        let both = View { shards: vec![both], payments: 1, waiting: 5, busy: 2, ..only.clone() };
        assert!(plan(&both, now).dial.is_empty(), "never a third");
        let idle = View { payments: 0, waiting: 0, busy: 1, ..both };
        assert!(plan(&idle, now).give_up.is_empty(), "the next payment may need it");
        assert_eq!(plan(&idle, now + IDLE_PATIENCE).give_up, [0]);
    }

    #[test]
    fn a_bad_shard_is_left_alone_until_its_pause_is_over_and_then_tried_once() {
        let now = Instant::now();
        let shards = vec![bad(Duration::from_secs(1)), bad(Duration::from_secs(2))];
        let waiting = plan(&view(shards.clone()), now);
        assert!(waiting.dial.is_empty());
        assert_eq!(waiting.look_again, shards[0].retry_at);
        let later = plan(&view(shards), now + Duration::from_secs(5));
        assert_eq!(later.dial, [0, 1]);
    }

    #[test]
    fn when_a_shard_returns_a_link_moves_there_and_only_then_the_old_one_goes() {
        let now = Instant::now();
        let crowded = ShardView { links: 2, idle_since: Some(now), ..ShardView::default() };
        let mut view = view(vec![crowded, ShardView::default()]);
        let first = plan(&view, now);
        assert_eq!((first.dial.as_slice(), first.give_up.len()), (&[1][..], 0));
        view.shards[1] = ShardView { links: 1, idle_since: Some(now), ..ShardView::default() };
        let later = plan(&view, now + IDLE_PATIENCE);
        assert_eq!(later.give_up, [0]);
    }

    #[test]
    fn a_shard_that_failed_is_looked_at_now_and_then_though_no_link_is_wanted() {
        let now = Instant::now();
        let open = ShardView { links: 1, ..ShardView::default() };
        let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(9));
        let down = ShardView { probe_at: Some(late), ..bad(Duration::from_secs(1)) };
        let doubted = ShardView { probe_at: Some(late), retry_at: Some(soon), ..ShardView::default() };
        for gone in [down, doubted] {
            let mut view = view(vec![open.clone(), open.clone(), gone]);
            let waiting = plan(&view, soon);
            assert_eq!((waiting.dial.len(), waiting.look_again), (0, Some(late)));
            assert_eq!(plan(&view, late).dial, [2]);
            view.shards[2].dialling = 1;
            assert!(plan(&view, late).dial.is_empty(), "one at a time");
            view.shards[2] = ShardView { cordoned: true, dialling: 0, ..view.shards[2].clone() };
            assert_eq!(plan(&view, late), Plan::default(), "nobody asks after one that was taken out");
        }
    }

    #[test]
    fn a_cordoned_shard_is_not_dialled_and_loses_its_links_once_others_carry_the_load() {
        let now = Instant::now();
        let out = ShardView { links: 1, cordoned: true, idle_since: Some(now), ..ShardView::default() };
        let other = ShardView { links: 1, idle_since: Some(now), ..ShardView::default() };
        let mut view = view(vec![out, other, ShardView::default()]);
        let first = plan(&view, now);
        assert_eq!((first.dial.as_slice(), first.give_up.len()), (&[2][..], 0));
        view.shards[2].links = 1;
        assert_eq!(plan(&view, now).give_up, [0]);
    }

    fn any_shard(now: Instant) -> impl Strategy<Value = ShardView> {
        (0..4_usize, 0..2_usize, 0..4_u32, 0..9_u64, any::<bool>(), proptest::option::of(0..90_u64)).prop_map(
            move |(links, dialling, failures, retry, cordoned, idle)| ShardView {
                links,
                dialling,
                on_trial: failures > 0 && retry == 3,
                failures,
                timeouts: 0,
                retry_at: (failures > 0).then(|| now + Duration::from_secs(retry)),
                probe_at: (failures > 0).then(|| now + Duration::from_secs(retry / 2)),
                cordoned,
                idle_since: idle.filter(|_| links > 0).map(|ago| now + Duration::from_secs(100 - ago)),
            },
        )
    }

    proptest! {
        #[test]
        fn no_plan_breaks_the_rules(
            shards in proptest::collection::vec(any_shard(Instant::now()), 1..5),
            busy in 0..10_usize, waiting in 0..50_usize, payments in 0..9_usize, min_links in 1..4_usize, extra in 0..6_usize,
        ) {
            let now = Instant::now() + Duration::from_secs(5);
            let payments = payments.min(waiting);
            let view = View { shards, busy, waiting, payments, min_links, max_links: min_links + extra };
            let plan = plan(&view, now);
            let serving = |shard: &&ShardView| !shard.cordoned;
            let before: usize = view.shards.iter().filter(serving).map(|s| s.links + s.dialling).sum();
            prop_assert!(plan.dial.is_empty() || before + plan.dial.len() <= view.max_links + 1);
            for index in &plan.dial {
                let shard = &view.shards[*index];
                prop_assert!(!shard.cordoned && !shard.on_trial);
                prop_assert!(shard.retry_at.is_none_or(|at| at <= now), "a pause is kept");
                let attempts = plan.dial.iter().filter(|other| *other == index).count() + shard.dialling;
                prop_assert!(shard.failures == 0 || attempts == 1, "a bad shard gets a single trial");
            }
            for index in &plan.give_up {
                let open: usize = view.shards.iter().filter(serving).map(|s| s.links).sum();
                prop_assert!(view.shards[*index].idle_since.is_some());
                prop_assert!(view.shards[*index].cordoned && open >= min_links || open > min_links);
            }
        }
    }
}
