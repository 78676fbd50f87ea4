use proptest::prelude::*;

use super::super::shares::GRACE;
use super::*;

const PRICE: Price = Price { points: 1, limit: 100 };
const DEADLINE: Tick = Tick(1_000);
const HOLD: u64 = 30_500_000;

fn push(queue: &mut Queue, class: Class<'_>) -> Rank {
    queue.push(Tick(0), class, PRICE, DEADLINE).unwrap()
}

/// Serves the first, and counts what its token was given.
fn serve(queue: &mut Queue, shares: &mut Shares, now: Tick) -> Option<Rank> {
    let order = queue.order(shares).into_iter().filter_map(|next| match next {
        Next::Waiter(rank) => Some(rank),
        Next::Expected(_) => None,
    });
    let first = order.chain(queue.refreshes()).next()?;
    let waiter = queue.remove(first)?;
    if let Some(token) = waiter.token {
        shares.granted(now, &token, waiter.price);
    }
    Some(first)
}

fn order(queue: &mut Queue) -> Vec<Rank> {
    let mut shares = Shares::new(HOLD);
    std::iter::from_fn(|| serve(queue, &mut shares, Tick(0))).collect()
}

fn token(name: &str) -> Arc<str> {
    Arc::from(name)
}

#[test]
fn payments_go_first_then_callers_then_refreshes_the_longest_stale_first() {
    let mut queue = Queue::default();
    let fresher = push(&mut queue, Class::Refresh { staleness: Duration::from_secs(1) });
    let staler = push(&mut queue, Class::Refresh { staleness: Duration::from_secs(9) });
    let caller = push(&mut queue, Class::Caller("a"));
    let first = push(&mut queue, Class::Payment);
    let second = push(&mut queue, Class::Payment);
    assert_eq!(order(&mut queue), [first, second, caller, staler, fresher]);
}

#[test]
fn a_token_that_asks_much_delays_each_other_by_one_ask() {
    let mut queue = Queue::default();
    let greedy: Vec<_> = (0..3).map(|_| push(&mut queue, Class::Caller("greedy"))).collect();
    let modest = push(&mut queue, Class::Caller("modest"));
    let other: Vec<_> = (0..2).map(|_| push(&mut queue, Class::Caller("other"))).collect();
    let expected = [greedy[0], modest, other[0], greedy[1], other[1], greedy[2]];
    let whole: Vec<_> = expected.iter().copied().map(Next::Waiter).collect();
    assert_eq!(queue.order(&Shares::new(HOLD)), whole, "as it is foreseen");
    assert_eq!(order(&mut queue), expected, "as it is served");
}

#[test]
fn who_was_given_less_in_the_window_goes_first_until_that_has_lapsed() {
    let (mut queue, mut shares) = (Queue::default(), Shares::new(HOLD));
    shares.granted(Tick(0), &token("loud"), Price { points: 3, limit: 100 });
    shares.granted(Tick(5), &token("quiet"), Price { points: 2, limit: 100 });
    let loud = push(&mut queue, Class::Caller("loud"));
    let quiet = push(&mut queue, Class::Caller("quiet"));
    let waiters = |queue: &Queue, shares: &Shares| {
        let order = queue.order(shares).into_iter();
        order.filter(|next| matches!(next, Next::Waiter(_))).collect::<Vec<_>>()
    };
    assert_eq!(waiters(&queue, &shares), [Next::Waiter(quiet), Next::Waiter(loud)]);
    shares.advance(Tick(HOLD));
    assert_eq!(waiters(&queue, &shares), [Next::Waiter(loud), Next::Waiter(quiet)]);
}

#[test]
fn who_was_denied_is_expected_in_its_order_and_who_waits_is_not_expected_besides() {
    let (mut queue, mut shares) = (Queue::default(), Shares::new(HOLD));
    shares.granted(Tick(0), &token("loud"), PRICE);
    shares.denied(&token("quiet"), 1, PRICE, Tick(70));
    let loud = push(&mut queue, Class::Caller("loud"));
    let claim = Claim { price: PRICE, from: Tick(70), until: Tick(70 + GRACE), denied: Some(1) };
    assert_eq!(queue.order(&shares), [Next::Expected(claim), Next::Waiter(loud)]);
    let quiet = push(&mut queue, Class::Caller("quiet"));
    assert_eq!(queue.order(&shares), [Next::Waiter(quiet), Next::Waiter(loud)]);
    queue.remove(quiet);
    shares.advance(Tick(70 + GRACE));
    assert_eq!(queue.order(&shares), [Next::Waiter(loud)]);
}

#[test]
fn every_class_and_token_has_a_bound_of_its_own() {
    let mut queue = Queue::default();
    let stale = Class::Refresh { staleness: Duration::ZERO };
    let mut fill = |class: Class<'_>| {
        (0..2 * MAX_PAYMENTS).take_while(|_| queue.push(Tick(0), class, PRICE, DEADLINE).is_ok()).count()
    };
    assert_eq!(fill(Class::Caller("a")), MAX_PER_TOKEN);
    let others: usize = (0..MAX_CALLERS).map(|token| fill(Class::Caller(&token.to_string()))).sum();
    assert_eq!(others, MAX_CALLERS - MAX_PER_TOKEN);
    assert_eq!(fill(stale), MAX_REFRESHES);
    assert_eq!(fill(Class::Payment), MAX_PAYMENTS);
}

proptest! {
    /// Whoever is served was given no more in the window than anybody else who waits, and came before who was given as
    /// much; and the order that is foreseen is the one that is kept.
    #[test]
    fn whoever_is_served_was_given_no_more_than_any_other_who_waits(
        asks in prop::collection::vec((0..5_usize, any::<bool>(), 0..HOLD / 4), 1..120),
    ) {
        const TOKENS: [&str; 5] = ["a", "b", "c", "d", "e"];
        let (mut queue, mut shares, mut now) = (Queue::default(), Shares::new(HOLD), Tick(0));
        let mut given: Vec<(usize, u64)> = Vec::new();
        let mut waiting: Vec<(usize, Rank)> = Vec::new();
        for (who, then_serve, pause) in asks {
            now = now.after(pause);
            shares.advance(now);
            if let Ok(rank) = queue.push(now, Class::Caller(TOKENS[who]), PRICE, DEADLINE) {
                waiting.push((who, rank));
            }
            if then_serve {
                let counted = |who: usize| given.iter().filter(|(to, at)| *to == who && now.0 < at + HOLD).count();
                let next = waiting.iter().min_by_key(|(who, rank)| (counted(*who), *rank)).copied().unwrap();
                prop_assert_eq!(serve(&mut queue, &mut shares, now), Some(next.1));
                given.push((next.0, now.0));
                waiting.retain(|waiter| *waiter != next);
            }
        }
        let waiting: std::collections::BTreeSet<_> = waiting.iter().map(|(who, _)| *who).collect();
        prop_assert_eq!(queue.tally.tokens.len(), waiting.len());
    }
}
