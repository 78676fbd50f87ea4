//! Copies at another owner: as fresh as they were after a handover, none fresh after a loss.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::value::RawValue;
use tokio::time::advance;

use super::*;
use crate::cache::{Config, Freshness, PasswordKey};
use crate::protocol::Retention;

const COMMANDS: [&str; 4] = ["listproducts", "getlicense", "listtransactions", "listpm"];

fn cache() -> Cache {
    let rule = Retention { fresh: Duration::from_mins(1), stale: Duration::from_mins(10) };
    let rules = COMMANDS.map(|name| (name.to_owned(), rule));
    Cache::new(Config { max_size: 1 << 20, min_age: Duration::ZERO, rules: BTreeMap::from(rules), store: None })
}

fn key(command: &'static str, pos_id: i64) -> Key {
    let password = PasswordKey::derived(&"key".into()).hash("backstage");
    Key { instance: "demo".into(), command, pos_id: Some(pos_id), further: Vec::new(), password: Some(password) }
}

fn body(number: usize) -> Body {
    Body::from(&*RawValue::from_string(format!(r#"{{"Number": {number}.50}}"#)).unwrap())
}

#[derive(Debug, Clone)]
enum Step {
    Keep(usize, i64),
    Pass(u64),
    Updatepos,
    Sold(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..COMMANDS.len(), 0..3_i64).prop_map(|(command, pos_id)| Step::Keep(command, pos_id)),
        3 => (0..40_000_u64).prop_map(Step::Pass),
        1 => Just(Step::Updatepos),
        1 => (0..3_i64).prop_map(Step::Sold),
    ];
    prop::collection::vec(step, 0..60)
}

async fn run(cache: &Cache, steps: &[Step]) {
    let demo = Arc::from("demo");
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Keep(command, pos_id) => {
                let key = key(COMMANDS[*command], *pos_id);
                let epoch = cache.epoch(command::find(key.command).unwrap(), &key);
                cache.keep(&key, CachedReply::new(body(number), Instant::now(), epoch));
            }
            Step::Pass(ms) => advance(Duration::from_millis(*ms)).await,
            Step::Updatepos => cache.catalogue_changed(&demo),
            Step::Sold(pos_id) => cache.sold(&demo, *pos_id),
        }
    }
}

/// What callers see of each copy.
fn seen(cache: &Cache) -> Vec<(Body, Freshness, Duration)> {
    let keys = COMMANDS.iter().flat_map(|command| (0..3).map(|pos_id| key(command, pos_id)));
    let now = Instant::now();
    let copies = keys.filter_map(|key| Some((cache.copy(&key)?, key)));
    let seen = copies.map(|(copy, key)| {
        let freshness = cache.freshness(command::find(key.command).unwrap(), &key, &copy, now);
        (copy.body.clone(), freshness, now.saturating_duration_since(copy.written))
    });
    seen.collect()
}

fn in_test<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
        // No copy is older than the clock.
        advance(Duration::from_hours(1)).await;
        test.await
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn after_a_handover_callers_see_the_same_now_and_whatever_comes(before in steps(), own in steps(), after in steps()) {
        in_test(async {
            let (old, new) = (cache(), cache());
            run(&new, &own).await;
            run(&old, &before).await;
            new.take_over("demo", old.carried("demo"), Duration::ZERO);
            prop_assert_eq!(seen(&new), seen(&old));
            let after: Vec<_> = after.into_iter().filter(|step| !matches!(step, Step::Keep(..))).collect();
            for step in after {
                run(&old, std::slice::from_ref(&step)).await;
                if !matches!(step, Step::Pass(_)) {
                    run(&new, &[step]).await;
                }
                prop_assert_eq!(seen(&new), seen(&old));
            }
            Ok(())
        })?;
    }

    #[test]
    fn time_on_the_way_makes_copies_older_and_none_fresher(before in steps(), away_ms in 0..5000_u64) {
        in_test(async {
            let (old, new, away) = (cache(), cache(), Duration::from_millis(away_ms));
            run(&old, &before).await;
            let carried = old.carried("demo");
            advance(away).await;
            new.take_over("demo", carried, away);
            let is_fresh = |one: &(Body, Freshness, Duration)| matches!(one.1, Freshness::Fresh { .. });
            for (one, other) in seen(&new).iter().zip(seen(&old)) {
                prop_assert_eq!(&one.0, &other.0);
                prop_assert!(one.2 >= other.2 && (is_fresh(&other) || !is_fresh(one)));
            }
            Ok(())
        })?;
    }

    #[test]
    fn after_a_loss_none_is_fresh_and_none_of_its_own_is_left(before in steps(), own in steps()) {
        in_test(async {
            let (old, new) = (cache(), cache());
            run(&new, &own).await;
            run(&old, &before).await;
            let copies = old.carried("demo").into_iter();
            let copies: Vec<_> =
                copies.map(|copy| (copy.key, copy.body, Duration::from_millis(copy.age_ms))).collect();
            new.begin_with_former("demo", copies);
            let fresh = seen(&new).iter().filter(|one| matches!(one.1, Freshness::Fresh { .. })).count();
            prop_assert_eq!(fresh, 0);
            prop_assert!(seen(&new).len() <= seen(&old).len());
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn an_owner_with_another_api_key_finds_no_copy_that_a_password_opened() {
    let (old, new) = (cache(), cache());
    run(&old, &[Step::Keep(0, 1)]).await;
    new.take_over("demo", old.carried("demo"), Duration::ZERO);
    let hash = |api_key: &str| PasswordKey::derived(&api_key.into()).hash("backstage");
    assert!(new.copy(&Key { password: Some(hash("key")), ..key("listproducts", 1) }).is_some());
    assert!(new.copy(&Key { password: Some(hash("another")), ..key("listproducts", 1) }).is_none());
}

#[tokio::test]
async fn changes_are_told_once_and_again_where_they_could_not_be_written() {
    let cache = cache();
    run(&cache, &[Step::Keep(0, 1)]).await;
    assert!(cache.changed().is_empty(), "nobody asked for them");
    cache.note_changes();
    run(&cache, &[Step::Keep(0, 1), Step::Keep(1, 1)]).await;
    cache.until_changed().await;
    let changed = cache.changed();
    assert_eq!(changed.len(), 2);
    assert!(changed.iter().all(|(_, copy)| copy.is_some()) && cache.changed().is_empty());
    cache.note_again(changed.into_iter().map(|(key, _)| key));
    cache.delete(&key("listproducts", 1));
    assert_eq!(cache.changed().iter().filter(|(_, copy)| copy.is_none()).count(), 1);
}
