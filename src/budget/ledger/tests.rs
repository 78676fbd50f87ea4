use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::{advance, timeout_at};

use super::*;

const HOLD: Duration = Duration::from_millis(30_500);
const LONG: Duration = Duration::from_mins(5);

fn ledger() -> Ledger {
    Ledger::new(Config::default())
}

fn shared_window() -> Ledger {
    Ledger::new(Config { scope: CounterScope::Instance, ..Config::default() })
}

fn ask<'a>(command: &'a str, class: Class<'a>, patience: Duration) -> Ask<'a> {
    Ask { command, class, deadline: Instant::now() + patience }
}

/// A caller's ask that is answered now or not at all.
async fn read_now(ledger: &Ledger, command: &str) -> Result<Permit, Denied> {
    ledger.acquire(ask(command, Class::Caller("shop"), Duration::ZERO)).await
}

async fn pay_now(ledger: &Ledger) -> Result<Permit, Denied> {
    ledger.acquire(ask("payitems", Class::Payment, Duration::ZERO)).await
}

/// Sends `times` commands that end at once.
async fn spend(ledger: &Ledger, command: &str, times: usize) {
    for _ in 0..times {
        read_now(ledger, command).await.unwrap().ended();
    }
}

/// An ask in a task of its own, which says who it was once it has a permit, and ends its command then.
fn queue_up(
    ledger: &Ledger,
    command: &'static str,
    class: Class<'static>,
    served: &Arc<Mutex<Vec<&'static str>>>,
    name: &'static str,
) -> JoinHandle<Result<(), Denied>> {
    let (ledger, served) = (ledger.clone(), Arc::clone(served));
    tokio::spawn(async move {
        let permit = ledger.acquire(ask(command, class, LONG)).await?;
        served.lock().push(name);
        permit.ended();
        Ok(())
    })
}

fn waiting(ledger: &Ledger) -> usize {
    let lengths = |window: WindowStatus| window.waiting_payments + window.waiting_callers + window.waiting_refreshes;
    ledger.status().into_iter().map(lengths).sum()
}

async fn until_waiting(ledger: &Ledger, count: usize) {
    while waiting(ledger) != count {
        tokio::task::yield_now().await;
    }
}

fn used(ledger: &Ledger, command: &str) -> u64 {
    ledger.status().into_iter().find(|window| window.command == command).map_or(0, |window| window.used_points)
}

fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    matches!(std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

#[tokio::test(start_paused = true)]
async fn a_window_that_was_never_used_is_told_as_empty_and_one_that_was_stays_told_as_used() {
    let told = |ledger: &Ledger, command: &str| {
        let window = ledger.status().into_iter().find(|window| window.command == command).unwrap();
        (window.was_used, window.capacity_points, window.used_points)
    };
    for (ledger, name) in [(ledger(), "getconfig"), (shared_window(), ALL_COMMANDS)] {
        let is_shared = name == ALL_COMMANDS;
        assert_eq!(told(&ledger, name), (is_shared, 100, 0));
        assert_eq!(ledger.status().len(), if is_shared { 1 } else { Config::default().cost.len() });
        let unused = ledger.budget("getconfig");
        spend(&ledger, "getconfig", 1).await;
        assert_eq!(told(&ledger, name), (true, 100, 25));
        assert_eq!(ledger.budget("getconfig").remaining, unused.remaining - 1);
        advance(HOLD).await;
        assert_eq!(told(&ledger, name), (true, 100, 0));
        assert_eq!(ledger.budget("getconfig"), unused);
        assert!(ledger.open("getdeposit").is_some_and(|window| window.used_points == 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_fifth_getconfig_of_a_window_is_denied_at_once_with_the_exact_wait_and_then_granted() {
    let ledger = ledger();
    spend(&ledger, "getconfig", 4).await;
    advance(Duration::from_secs(10)).await;
    let start = Instant::now();
    let denied = ledger.acquire(ask("getconfig", Class::Caller("shop"), Duration::from_secs(2))).await.unwrap_err();
    assert_eq!(denied.retry_after, Duration::from_millis(20_500));
    assert_eq!(Instant::now(), start, "it was made to wait in vain");

    advance(Duration::from_millis(20_499)).await;
    assert_eq!(read_now(&ledger, "getconfig").await.unwrap_err().retry_after, Duration::from_millis(1));
    advance(Duration::from_millis(1)).await;
    read_now(&ledger, "getconfig").await.unwrap().ended();
}

#[tokio::test(start_paused = true)]
async fn each_command_has_a_window_of_its_own() {
    let ledger = ledger();
    spend(&ledger, "getconfig", 4).await;
    spend(&ledger, "listproducts", 4).await;
    spend(&ledger, "something_raw", 10).await;
    assert!(read_now(&ledger, "something_raw").await.is_err());
    spend(&ledger, "another_raw", 10).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_the_moment_the_points_are_free() {
    let ledger = ledger();
    let start = Instant::now();
    spend(&ledger, "version", 2).await;
    ledger.acquire(ask("version", Class::Caller("shop"), HOLD)).await.unwrap().ended();
    assert_eq!(Instant::now() - start, HOLD);
}

#[tokio::test(start_paused = true)]
async fn points_in_flight_are_held_however_long_it_takes() {
    let ledger = ledger();
    let mut flying = vec![read_now(&ledger, "version").await.unwrap(), read_now(&ledger, "version").await.unwrap()];
    flying.iter_mut().for_each(Permit::written);
    advance(10 * HOLD).await;
    assert_eq!(read_now(&ledger, "version").await.unwrap_err().retry_after, HOLD);
    drop(flying);
    assert_eq!(read_now(&ledger, "version").await.unwrap_err().retry_after, HOLD);
    advance(HOLD).await;
    read_now(&ledger, "version").await.unwrap().ended();
}

/// In real time: a clock that stands still while anything is to be done hides a waiter that never comes to rest.
#[tokio::test]
async fn who_waits_for_a_command_in_flight_leaves_the_thread_to_the_one_that_ends_it() {
    let hold = Duration::from_millis(40);
    let ledger = Ledger::new(Config { window: hold, guard: Duration::ZERO, ..Config::default() });
    let mut flying = vec![read_now(&ledger, "version").await.unwrap(), read_now(&ledger, "version").await.unwrap()];
    flying.iter_mut().for_each(Permit::written);
    let start = Instant::now();
    let reply = tokio::spawn(async move {
        tokio::time::sleep(hold / 4).await;
        let heard = start.elapsed();
        drop(flying);
        heard
    });
    // On the same thread, as everything here.
    let patience = Duration::from_secs(5);
    ledger.acquire(ask("version", Class::Caller("shop"), patience)).await.unwrap().ended();
    let heard = reply.await.unwrap();
    assert!(heard < patience / 2, "the reply was heard after {heard:?} only");
    assert!(start.elapsed() >= heard + hold);
}

#[tokio::test(start_paused = true)]
async fn a_permit_dropped_before_it_was_written_serves_the_next_at_once_and_after_it_does_not() {
    let ledger = ledger();
    spend(&ledger, "version", 1).await;
    let served = Arc::default();
    let start = Instant::now();

    let unwritten = read_now(&ledger, "version").await.unwrap();
    let next = queue_up(&ledger, "version", Class::Caller("a"), &served, "a");
    until_waiting(&ledger, 1).await;
    drop(unwritten);
    next.await.unwrap().unwrap();
    assert_eq!(Instant::now(), start);

    let ended = queue_up(&ledger, "version", Class::Caller("a"), &served, "b");
    ended.await.unwrap().unwrap();
    assert_eq!(Instant::now() - start, HOLD);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_goes_away_frees_its_place_and_the_points_it_was_granted() {
    let ledger = ledger();
    let half = read_now(&ledger, "version").await.unwrap();
    let other = read_now(&ledger, "version").await.unwrap();
    let mut first = Box::pin(ledger.acquire(ask("version", Class::Caller("a"), LONG)));
    let mut second = Box::pin(ledger.acquire(ask("version", Class::Caller("b"), LONG)));
    assert!(is_pending(&mut first) && is_pending(&mut second));
    drop(first);
    assert_eq!(waiting(&ledger), 1);

    drop(half);
    assert_eq!((waiting(&ledger), used(&ledger, "version")), (0, 100), "the second was not granted in its absence");
    drop(second);
    assert_eq!(used(&ledger, "version"), 50);
    drop(other);
    assert_eq!(used(&ledger, "version"), 0);
}

#[tokio::test(start_paused = true)]
async fn when_the_first_in_the_queue_leaves_the_next_is_still_served_on_time() {
    let ledger = ledger();
    let start = Instant::now();
    spend(&ledger, "version", 2).await;
    let mut first = Box::pin(ledger.acquire(ask("version", Class::Caller("a"), LONG)));
    assert!(is_pending(&mut first));
    let served = Arc::default();
    let next = queue_up(&ledger, "version", Class::Caller("b"), &served, "b");
    until_waiting(&ledger, 2).await;
    drop(first);
    next.await.unwrap().unwrap();
    assert_eq!(Instant::now() - start, HOLD);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_as_soon_as_it_is_in_vain() {
    let ledger = ledger();
    let wait = |patience| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.acquire(ask("version", Class::Caller("a"), patience)).await.map(drop) })
    };
    let second = Duration::from_secs(1);
    let mut all = [read_now(&ledger, "version").await.unwrap(), read_now(&ledger, "version").await.unwrap()];
    all.iter_mut().for_each(Permit::written);

    // It could be served if the commands in flight ended now; they end two seconds later.
    let task = wait(HOLD + second);
    until_waiting(&ledger, 1).await;
    advance(2 * second).await;
    let start = Instant::now();
    drop(all);
    assert_eq!(task.await.unwrap(), Err(Denied { retry_after: HOLD }));
    assert_eq!(Instant::now(), start);

    let task = wait(HOLD + second);
    until_waiting(&ledger, 1).await;
    advance(2 * second).await;
    let start = Instant::now();
    ledger.closed_by_gateway("version", Some(2 * HOLD));
    assert_eq!(task.await.unwrap(), Err(Denied { retry_after: HOLD }));
    assert_eq!(Instant::now(), start);
}

#[tokio::test(start_paused = true)]
async fn payments_go_before_callers_and_callers_in_turns_before_refreshes_the_longest_stale_first() {
    let ledger = Ledger::new(Config { scope: CounterScope::Instance, pay_reserve: 0, ..Config::default() });
    let all = [read_now(&ledger, "version").await.unwrap(), read_now(&ledger, "version").await.unwrap()];
    let served = Arc::default();
    let refresh = |secs| Class::Refresh { staleness: Duration::from_secs(secs) };
    let asks = [
        ("getdeposit", refresh(1), "fresher"),
        ("getdeposit", refresh(9), "staler"),
        ("getdeposit", Class::Caller("greedy"), "greedy 1"),
        ("getdeposit", Class::Caller("greedy"), "greedy 2"),
        ("getdeposit", Class::Caller("modest"), "modest"),
        ("payitems", Class::Payment, "payment"),
    ];
    let mut tasks = Vec::new();
    for (count, (command, class, name)) in asks.into_iter().enumerate() {
        tasks.push(queue_up(&ledger, command, class, &served, name));
        until_waiting(&ledger, count + 1).await;
    }
    drop(all);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    // All were granted in one pass; their tasks ran in the order in which they were called.
    assert_eq!(*served.lock(), ["payment", "greedy 1", "modest", "greedy 2", "staler", "fresher"]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_never_takes_points_that_a_caller_waits_for_and_need_not_wait_itself() {
    let ledger = Ledger::new(Config { scope: CounterScope::Instance, pay_reserve: 0, ..Config::default() });
    let half = read_now(&ledger, "version").await.unwrap();
    let stale = Class::Refresh { staleness: LONG };
    spend(&ledger, "getdeposit", 1).await;
    let mut caller = Box::pin(ledger.acquire(ask("version", Class::Caller("a"), LONG)));
    assert!(is_pending(&mut caller));
    let start = Instant::now();
    let denied = ledger.acquire(ask("getdeposit", stale, Duration::ZERO)).await;
    assert!(denied.is_err(), "40 points were free, and somebody waited for 50");
    assert_eq!(Instant::now(), start);
    drop((caller, half));
    ledger.acquire(ask("getdeposit", stale, Duration::ZERO)).await.unwrap().ended();
}

#[tokio::test(start_paused = true)]
async fn where_all_share_one_window_the_reserve_is_kept_for_payments() {
    let ledger = shared_window();
    spend(&ledger, "getdeposit", 8).await;
    assert!(read_now(&ledger, "listtransactions").await.is_err());
    assert!(read_now(&ledger, "a_raw_one").await.is_err());
    for _ in 0..20 {
        pay_now(&ledger).await.unwrap().ended();
    }
    assert_eq!(pay_now(&ledger).await.unwrap_err().retry_after, HOLD);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_of_the_gateway_closes_its_command_and_no_other() {
    let ledger = ledger();
    ledger.closed_by_gateway("listpm", Some(Duration::from_millis(1234)));
    assert_eq!(read_now(&ledger, "listpm").await.unwrap_err().retry_after, Duration::from_millis(1234));
    read_now(&ledger, "getdeposit").await.unwrap().ended();
    advance(Duration::from_millis(1234)).await;
    read_now(&ledger, "listpm").await.unwrap().ended();

    ledger.closed_by_gateway("listpm", None);
    assert_eq!(read_now(&ledger, "listpm").await.unwrap_err().retry_after, HOLD);
    ledger.closed_by_gateway("listpm", Some(Duration::MAX));
    assert_eq!(read_now(&ledger, "listpm").await.unwrap_err().retry_after, HOLD);
    assert_eq!(ledger.closed_for("listpm"), HOLD, "callers are told what is held");

    let shared = shared_window();
    shared.closed_by_gateway("listpm", Some(Duration::from_secs(1)));
    assert_eq!(pay_now(&shared).await.unwrap_err().retry_after, Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn after_a_rate_limit_one_payment_probes_and_the_others_follow_its_answer() {
    let ledger = ledger();
    ledger.closed_by_gateway("payitems", Some(Duration::from_secs(3)));
    advance(Duration::from_secs(3)).await;
    let mut probe = pay_now(&ledger).await.unwrap();
    probe.written();
    assert!(pay_now(&ledger).await.is_err());
    assert!(ledger.status().iter().any(|window| window.command == "payitems" && window.probing));
    let mut other = Box::pin(ledger.acquire(ask("payitems", Class::Payment, Duration::from_secs(5))));
    assert!(is_pending(&mut other));
    advance(Duration::from_secs(1)).await;
    probe.answered();
    other.await.unwrap().answered();
    pay_now(&ledger).await.unwrap().answered();
}

#[tokio::test(start_paused = true)]
async fn a_closed_command_is_opened_by_hand_by_the_name_that_the_status_shows() {
    let ledger = ledger();
    ledger.closed_by_gateway("payitems", None);
    ledger.closed_by_gateway("a_raw_one", None);
    for command in ["payitems", "a_raw_one"] {
        let open = ledger.open(command).unwrap();
        assert_eq!((open.command.as_str(), open.closed_for_ms, open.probing), (command, 0, false));
        read_now(&ledger, command).await.unwrap().answered();
    }
    assert_eq!(ledger.open("never_used"), None);
    let shared = shared_window();
    for name in ["*", "payitems"] {
        shared.closed_by_gateway("listpm", None);
        assert_eq!(shared.open(name).unwrap().command, "*");
        pay_now(&shared).await.unwrap().answered();
    }
    assert_eq!(shared.open("never_used"), None);
}

#[tokio::test(start_paused = true)]
async fn payments_that_ask_are_stopped_by_the_gateway_alone() {
    let ledger = Ledger::new(Config { payments: Payments::Ask, ..Config::default() });
    for _ in 0..150 {
        pay_now(&ledger).await.unwrap().ended();
    }
    assert_eq!(used(&ledger, "payitems"), 150);
    spend(&ledger, "getconfig", 4).await;
    assert!(read_now(&ledger, "getconfig").await.is_err(), "only payments may pass the count");
    ledger.closed_by_gateway("payitems", Some(Duration::from_secs(3)));
    let start = Instant::now();
    ledger.acquire(ask("payitems", Class::Payment, Duration::from_secs(5))).await.unwrap().ended();
    assert_eq!(Instant::now() - start, Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn the_quota_counts_requests_and_names_the_second_at_which_there_is_one_more() {
    let ledger = ledger();
    let quota = |remaining, more_in_secs| Quota { requests: 4, window_secs: 31, remaining, more_in_secs };
    assert_eq!(ledger.budget("getconfig"), quota(4, 0));
    spend(&ledger, "getconfig", 1).await;
    advance(Duration::from_secs(10)).await;
    spend(&ledger, "getconfig", 2).await;
    advance(Duration::from_secs(9)).await;
    assert_eq!(ledger.budget("getconfig"), quota(1, 12));
    spend(&ledger, "getconfig", 1).await;
    assert_eq!(ledger.budget("getconfig"), quota(0, 12));
    ledger.closed_by_gateway("getconfig", Some(Duration::from_mins(1)));
    assert_eq!(ledger.budget("getconfig"), quota(0, 31));
    assert_eq!(ledger.budget("never_used").requests, 10);

    let shared = shared_window();
    assert_eq!((shared.budget("getdeposit").requests, shared.budget("payitems").requests), (8, 100));
}

#[tokio::test(start_paused = true)]
async fn the_quota_leaves_out_what_others_wait_for_already() {
    let ledger = Ledger::new(Config { scope: CounterScope::Instance, ..Config::default() });
    let half = read_now(&ledger, "version").await.unwrap();
    let mut caller = Box::pin(ledger.acquire(ask("version", Class::Caller("a"), LONG)));
    assert!(is_pending(&mut caller));
    assert_eq!(ledger.budget("getdeposit").remaining, 0, "30 points are free, and somebody waits for 50");
    assert_eq!(ledger.budget("payitems").remaining, 50, "a payment goes before whoever waits");
    drop((caller, half));
    assert_eq!(ledger.budget("getdeposit").remaining, 8);
}

#[tokio::test(start_paused = true)]
async fn invented_commands_are_bounded_make_room_when_idle_and_never_shut_out_a_known_one() {
    let ledger = ledger();
    for number in 0..MAX_OTHERS {
        read_now(&ledger, &format!("raw_{number}")).await.unwrap().ended();
    }
    assert!(read_now(&ledger, "one_more").await.is_err());
    read_now(&ledger, "raw_0").await.unwrap().ended();
    pay_now(&ledger).await.unwrap().ended();
    advance(HOLD).await;
    let (about_to_be_used, _) = ledger.gate("raw_1").unwrap();
    read_now(&ledger, "one_more").await.unwrap().ended();
    assert_eq!(ledger.others().gates.len(), 2);
    assert!(Arc::ptr_eq(&about_to_be_used, &ledger.gate("raw_1").unwrap().0), "raw_1 has two windows now");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_process_had_in_flight_counts_as_ended_at_the_start() {
    let first = ledger();
    let mut flying = read_now(&first, "version").await.unwrap();
    flying.written();
    spend(&first, "version", 1).await;
    advance(Duration::from_secs(5)).await;
    let spending = first.spent();
    let second = ledger();
    second.restore(&spending, Duration::from_secs(10));
    assert_eq!(read_now(&second, "version").await.unwrap_err().retry_after, Duration::from_millis(15_500));
    advance(Duration::from_millis(15_500)).await;
    spend(&second, "version", 1).await;
    assert_eq!(read_now(&second, "version").await.unwrap_err().retry_after, Duration::from_secs(15));
}

/// One caller in a crowd.
#[derive(Debug, Clone)]
struct Visit {
    arrives_ms: u64,
    class: Class<'static>,
    command: &'static str,
    patience_ms: u64,
    /// Leaves by itself after this long, served or not.
    leaves_after_ms: Option<u64>,
    flight_ms: u64,
    written: bool,
}

fn visit() -> impl Strategy<Value = Visit> {
    let class = prop_oneof![
        Just(Class::Payment),
        prop::sample::select(&["a", "b", "c"]).prop_map(Class::Caller),
        (0..5_u64).prop_map(|secs| Class::Refresh { staleness: Duration::from_secs(secs) }),
    ];
    let command = prop::sample::select(&["version", "getconfig", "getdeposit"]);
    let times = (0..60_000_u64, 0..90_000_u64, prop::option::of(0..60_000_u64), 0..20_000_u64);
    (class, command, times, any::<bool>()).prop_map(
        |(class, command, (arrives_ms, patience_ms, leaves_after_ms, flight_ms), written)| Visit {
            arrives_ms,
            class,
            command,
            patience_ms,
            leaves_after_ms,
            flight_ms,
            written,
        },
    )
}

/// Plays one visit; `Err` where it was not decided by its deadline.
async fn play(ledger: Ledger, visit: Visit) -> Result<(), String> {
    let ms = Duration::from_millis;
    tokio::time::sleep(ms(visit.arrives_ms)).await;
    let deadline = Instant::now() + ms(visit.patience_ms);
    let asking = ledger.acquire(Ask { command: visit.command, class: visit.class, deadline });
    let leaves_at = visit.leaves_after_ms.map_or(deadline + LONG, |after| Instant::now() + ms(after));
    let Ok(answer) = timeout_at(leaves_at, asking).await else {
        return if Instant::now() > deadline { Err(format!("{visit:?} was forgotten")) } else { Ok(()) };
    };
    if Instant::now() > deadline {
        return Err(format!("{visit:?} was answered after its deadline"));
    }
    match answer {
        Ok(mut permit) if visit.written => {
            permit.written();
            tokio::time::sleep(ms(visit.flight_ms)).await;
            permit.ended();
        }
        Ok(permit) => {
            tokio::time::sleep(ms(visit.flight_ms)).await;
            drop(permit);
        }
        Err(denied) if denied.retry_after.is_zero() => return Err(format!("{visit:?} was told to come back now")),
        Err(_) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_ask_is_decided_by_its_deadline_whoever_comes_and_goes(
        shared in any::<bool>(),
        visits in prop::collection::vec(visit(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let outcome: Result<(), String> = runtime.block_on(async {
            let ledger = if shared { shared_window() } else { ledger() };
            let tasks: Vec<_> = visits.into_iter().map(|visit| tokio::spawn(play(ledger.clone(), visit))).collect();
            for task in tasks {
                task.await.unwrap()?;
            }
            advance(HOLD).await;
            let left = ledger.status().into_iter().find(|window| window.used_points > 0);
            left.map_or(Ok(()), |window| Err(format!("points were lost: {window:?}")))
        });
        prop_assert_eq!(outcome, Ok(()));
    }
}
