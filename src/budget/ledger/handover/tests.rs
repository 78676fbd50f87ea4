//! What the next owner counts: after a handover what the one before it did, after its death no less than it can have spent.

use proptest::prelude::*;
use tokio::time::{Instant, advance};

use super::*;
use crate::budget::{Ask, Class, Config, CounterScope, Denied, Permit, WindowStatus};

const REQUEST: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(1);

fn ledger(scope: CounterScope) -> Ledger {
    Ledger::new(Config { scope, ..Config::default() })
}

fn scopes() -> [CounterScope; 2] {
    [CounterScope::Command, CounterScope::Instance]
}

async fn ask(ledger: &Ledger, command: &str) -> Result<Permit, Denied> {
    let class = if command == "payitems" { Class::Payment } else { Class::Caller("shop") };
    ledger.acquire(Ask { command, class, deadline: Instant::now() }).await
}

/// What operators see of it, but for times that were rounded up.
fn seen(ledger: &Ledger) -> Vec<WindowStatus> {
    let used = ledger.status().into_iter().filter(|window| window.used_points > 0 || window.closed_for_ms > 0);
    let rounded = used.map(|window| WindowStatus {
        in_flight_points: 0,
        closed_for_ms: window.closed_for_ms.div_ceil(2),
        ..window
    });
    rounded.collect()
}

fn carry(from: &Ledger) -> Carried {
    serde_json::from_str(&serde_json::to_string(&from.carried()).unwrap()).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Send(&'static str),
    Pass(u64),
    Close(&'static str, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let command = || prop::sample::select(vec!["getconfig", "listpm", "payitems", "newthing"]);
    let step = prop_oneof![
        5 => command().prop_map(Step::Send),
        2 => (0..8000_u64).prop_map(Step::Pass),
        1 => (command(), 0..40_u64).prop_map(|(command, seconds)| Step::Close(command, seconds)),
    ];
    prop::collection::vec(step, 0..40)
}

async fn run(ledger: &Ledger, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Send(command) => drop(ask(ledger, command).await.map(Permit::answered)),
            Step::Pass(ms) => advance(Duration::from_millis(*ms)).await,
            Step::Close(command, seconds) => {
                ledger.closed_by_gateway(command, Some(Duration::from_secs(*seconds)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn an_owner_that_takes_over_counts_what_the_one_before_it_did_whatever_it_remembers_itself(
        before in steps(),
        own in steps(),
        at_instance in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let scope = scopes()[usize::from(at_instance)];
            let (old, new) = (ledger(scope), ledger(scope));
            let own: Vec<_> = own.into_iter().filter(|step| !matches!(step, Step::Close(..))).collect();
            run(&new, &own).await;
            run(&old, &before).await;
            prop_assert!(new.take_over(&carry(&old), REQUEST));
            prop_assert_eq!(seen(&new), seen(&old));
            advance(old.hold() + Duration::from_millis(1)).await;
            prop_assert!(new.carried().windows.values().all(|window| window.held.is_empty()));
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_in_flight_is_held_for_as_long_as_its_exchange_may_last_and_a_window_longer() {
    for scope in scopes() {
        let (old, new) = (ledger(scope), ledger(scope));
        let mut flying = ask(&old, "getconfig").await.unwrap();
        flying.written();
        assert!(new.take_over(&carry(&old), REQUEST));
        drop(flying);
        let used = || new.status().iter().map(|window| window.used_points).sum::<u64>();
        advance((REQUEST + new.hold()).saturating_sub(MOMENT)).await;
        assert_eq!(used(), 25, "it may have reached the gateway at the end of its exchange");
        advance(MOMENT).await;
        assert_eq!(used(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_handed_on_at_once_holds_as_long() {
    let (first, second, third) = (ledger(scopes()[0]), ledger(scopes()[0]), ledger(scopes()[0]));
    let mut flying = ask(&first, "getconfig").await.unwrap();
    flying.written();
    assert!(second.take_over(&carry(&first), REQUEST));
    assert!(third.take_over(&carry(&second), REQUEST));
    advance((REQUEST + third.hold()).saturating_sub(MOMENT)).await;
    assert_eq!(third.budget("getconfig").remaining, 3);
}

#[tokio::test(start_paused = true)]
async fn after_a_death_all_but_payments_is_full_for_longer_and_payments_are_those_of_the_journal() {
    let most = REQUEST + Config::default().hold();
    for (scope, left) in [(CounterScope::Command, 98), (CounterScope::Instance, 0)] {
        let new = ledger(scope);
        run(&new, &[Step::Send("getconfig"), Step::Send("payitems")]).await;
        let sent = SentPayments { ended: vec![Duration::from_secs(5)], in_flight: 1 };
        let was_closed = ledger(scope);
        was_closed.closed_by_gateway("listpm", None);
        new.assume_spent_by_former(Some(&carry(&was_closed)), Some(&sent), REQUEST);
        assert_eq!(new.budget("payitems").remaining, left);
        for command in ["getconfig", "newthing"] {
            assert!(ask(&new, command).await.is_err(), "{command}");
        }
        assert!(!new.closed_for("listpm").is_zero(), "what the gateway had closed stays closed");
        advance((most).saturating_sub(MOMENT)).await;
        for command in ["getconfig", "newthing"] {
            assert!(ask(&new, command).await.is_err(), "{command}");
        }
        advance(MOMENT).await;
        for command in ["getconfig", "newthing", "payitems"] {
            assert!(ask(&new, command).await.is_ok(), "{command}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_window_for_all_the_reserve_is_left_to_payments_and_without_the_journal_there_is_none() {
    let new = ledger(CounterScope::Instance);
    new.assume_spent_by_former(None, Some(&SentPayments::default()), REQUEST);
    assert!(ask(&new, "listpm").await.is_err());
    assert!(ask(&new, "payitems").await.is_ok());
    for scope in scopes() {
        let new = ledger(scope);
        new.assume_spent_by_former(None, None, REQUEST);
        advance((REQUEST + new.hold()).saturating_sub(MOMENT)).await;
        assert!(ask(&new, "payitems").await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_in_another_scope_says_nothing() {
    let [command, instance] = scopes().map(ledger);
    assert!(!command.take_over(&carry(&instance), REQUEST));
}
