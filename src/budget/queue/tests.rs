use proptest::prelude::*;

use super::*;

const PRICE: Price = Price { points: 1, limit: 100 };
const DEADLINE: Tick = Tick(1_000);

fn push(queue: &mut Queue, class: Class<'_>) -> Rank {
    queue.push(Tick(0), class, PRICE, DEADLINE).unwrap()
}

fn serve(queue: &mut Queue) -> Option<Rank> {
    let first = queue.first()?.0;
    queue.decide(|rank, _| if rank == first { Fate::Served } else { Fate::Waits });
    Some(first)
}

fn order(queue: &mut Queue) -> Vec<Rank> {
    std::iter::from_fn(|| serve(queue)).collect()
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
    assert_eq!(order(&mut queue), [greedy[0], modest, other[0], greedy[1], other[1], greedy[2]]);
}

#[test]
fn a_token_that_returns_at_once_does_not_overtake_one_that_waits() {
    let mut queue = Queue::default();
    push(&mut queue, Class::Caller("patient"));
    let waiting = push(&mut queue, Class::Caller("patient"));
    push(&mut queue, Class::Caller("eager"));
    serve(&mut queue);
    serve(&mut queue);
    push(&mut queue, Class::Caller("eager"));
    assert_eq!(serve(&mut queue), Some(waiting));
}

#[test]
fn a_turn_that_was_not_taken_is_not_held_against_its_token() {
    let mut queue = Queue::default();
    let kept = push(&mut queue, Class::Caller("a"));
    let left = push(&mut queue, Class::Caller("a"));
    let others: Vec<_> = (0..3).map(|_| push(&mut queue, Class::Caller("b"))).collect();
    queue.remove(left);
    let again = push(&mut queue, Class::Caller("a"));
    assert_eq!(order(&mut queue), [kept, others[0], others[1], again, others[2]]);
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
    #[test]
    fn whoever_waits_sees_no_other_token_served_more_than_twice_before_it(
        asks in prop::collection::vec((0..5_usize, any::<bool>()), 1..120),
    ) {
        const TOKENS: [&str; 5] = ["a", "b", "c", "d", "e"];
        let mut queue = Queue::default();
        // Since when each token has been waiting without being served: how often each other was served meanwhile.
        let mut served_since = [[0_u32; 5]; 5];
        let mut waiting = [0_u32; 5];
        for (token, then_serve) in asks {
            if queue.push(Tick(0), Class::Caller(TOKENS[token]), PRICE, DEADLINE).is_ok() {
                if waiting[token] == 0 {
                    served_since[token] = [0; 5];
                }
                waiting[token] += 1;
            }
            if then_serve {
                let first = queue.first().and_then(|(_, waiter)| waiter.token.clone()).unwrap();
                let who = TOKENS.iter().position(|name| **name == *first).unwrap();
                serve(&mut queue);
                waiting[who] -= 1;
                served_since[who] = [0; 5];
                for other in (0..5).filter(|&other| other != who && waiting[other] > 0) {
                    served_since[other][who] += 1;
                    prop_assert!(served_since[other][who] <= 2, "{} starves behind {}", TOKENS[other], TOKENS[who]);
                }
            }
        }
        prop_assert_eq!(queue.tally.tokens.len(), waiting.iter().filter(|&&waiting| waiting > 0).count());
    }
}
