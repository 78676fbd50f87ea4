//! Copies across a restart: what is kept, what is left out, and who may read it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::tempdir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cache::{Config, Freshness, PasswordKey};
use crate::protocol::Retention;
use crate::protocol::command::{GETLICENSE, LISTPRODUCTS};

const HOUR: Duration = Duration::from_hours(1);

fn cache(folder: &Path) -> Arc<Cache> {
    let rule = Retention { fresh: HOUR, stale: HOUR };
    let rules = ["listproducts", "getlicense"].map(|name| (name.to_owned(), rule));
    let store = Some(folder.to_owned());
    Arc::new(Cache::new(Config { max_size: 1 << 20, min_age: Duration::ZERO, rules: BTreeMap::from(rules), store }))
}

fn key(command: &'static str, pos_id: Option<i64>) -> Key {
    let password = PasswordKey::derived(&"key".into()).hash("backstage");
    Key { instance: "demo".into(), command, pos_id, further: Vec::new(), password: Some(password) }
}

fn body(text: &str) -> Body {
    Body::from(serde_json::from_str::<&RawValue>(text).unwrap())
}

fn put(cache: &Cache, key: &Key, text: &str, age: Duration) {
    let written = Instant::now().checked_sub(age).unwrap();
    cache.keep(key, CachedReply::new(body(text), written, cache.epoch(&LISTPRODUCTS, key)));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|suffix| suffix == SUFFIX)).collect()
}

/// Writes what changed in `cache`, as at the end of a run.
async fn stop(folder: &Path, cache: &Arc<Cache>) {
    let stop = CancellationToken::new();
    stop.cancel();
    Store::open(folder).unwrap().keep(Arc::clone(cache), stop.cancelled_owned()).await;
}

#[tokio::test]
async fn a_restart_begins_with_the_last_copies_and_calls_none_of_them_fresh() {
    let folder = tempdir().unwrap();
    let before = cache(folder.path());
    let (products, license) = (key("listproducts", Some(7)), key("getlicense", None));
    put(&before, &products, r#"{"Price": 1.50}"#, Duration::ZERO);
    put(&before, &products, r#"{"Price": 2.50}"#, Duration::ZERO);
    put(&before, &license, r#"{"License":{}}"#, Duration::from_mins(5));
    stop(folder.path(), &before).await;

    let after = cache(folder.path());
    assert_eq!(Store::open(folder.path()).unwrap().load(&after), 2);
    let copy = after.copy(&products).unwrap();
    assert_eq!(copy.body.as_str(), r#"{"Price": 2.50}"#);
    assert_eq!(copy.etag, before.copy(&products).unwrap().etag, "a caller's tag is still good");
    for (spec, key) in [(&LISTPRODUCTS, &products), (&GETLICENSE, &license)] {
        let freshness = after.freshness(spec, key, &after.copy(key).unwrap(), Instant::now());
        assert!(matches!(freshness, Freshness::Invalidated { .. }), "{freshness:?}");
    }
    let Freshness::Invalidated { by } =
        after.freshness(&GETLICENSE, &license, &after.copy(&license).unwrap(), Instant::now())
    else {
        panic!("not ended");
    };
    assert!(by >= Duration::from_mins(5), "what was known last is that age: {by:?}");
}

#[tokio::test]
async fn a_file_that_an_earlier_release_named_otherwise_is_renamed_so_that_its_copy_is_replaced_by_the_next() {
    let folder = tempdir().unwrap();
    let before = cache(folder.path());
    let products = key("listproducts", Some(7));
    put(&before, &products, r#"{"Price":1}"#, Duration::ZERO);
    stop(folder.path(), &before).await;
    let [named] = files(folder.path()).try_into().unwrap();
    fs::rename(&named, folder.path().join("otherwise.copy")).unwrap();

    let after = cache(folder.path());
    assert_eq!(Store::open(folder.path()).unwrap().load(&after), 1);
    assert_eq!(files(folder.path()), [named]);
}

#[tokio::test]
async fn a_deleted_copy_does_not_come_back() {
    let folder = tempdir().unwrap();
    let before = cache(folder.path());
    let gone = key("listproducts", Some(7));
    put(&before, &gone, "{}", Duration::ZERO);
    stop(folder.path(), &before).await;
    assert_eq!(files(folder.path()).len(), 1);
    before.delete(&gone);
    // The cache tells of removals at its own upkeep.
    let _ = before.size();
    stop(folder.path(), &before).await;
    assert_eq!(files(folder.path()).len(), 0);
}

#[tokio::test]
async fn an_instance_that_is_forgotten_leaves_nothing_in_memory_or_on_disk_and_takes_nothing_of_others() {
    let folder = tempdir().unwrap();
    let cache = cache(folder.path());
    let (gone, stays) =
        (key("listproducts", Some(7)), Key { instance: "other".into(), ..key("listproducts", Some(7)) });
    for key in [&gone, &stays] {
        cache.catalogue_changed(&key.instance);
        put(&cache, key, "{}", Duration::ZERO);
        cache.refuse(key.clone(), crate::protocol::GatewayError::word("no_api_key"), 0);
    }
    stop(folder.path(), &cache).await;
    assert_eq!(files(folder.path()).len(), 2);
    let epoch = cache.epoch(&LISTPRODUCTS, &stays);
    cache.forget("demo");
    stop(folder.path(), &cache).await;
    assert_eq!(files(folder.path()).len(), 1);
    assert_eq!([&gone, &stays].map(|key| cache.copy(key).is_some()), [false, true]);
    assert_eq!([&gone, &stays].map(|key| cache.refusal(key, 0, tokio::time::Instant::now()).is_some()), [false, true]);
    assert_eq!(cache.epoch(&LISTPRODUCTS, &stays), epoch);
    assert_eq!(cache.epoch(&LISTPRODUCTS, &gone), crate::cache::Epoch::FIRST);
}

#[tokio::test]
async fn only_its_owner_may_read_a_copy_and_no_password_stands_in_it() {
    let (parent, cache_key) = (tempdir().unwrap(), key("listproducts", Some(7)));
    let folder = parent.path().join("made");
    let before = cache(&folder);
    put(&before, &cache_key, "{}", Duration::ZERO);
    stop(&folder, &before).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let written = files(&folder);
    assert_eq!((mode(&folder), mode(&written[0])), (0o700, 0o600));
    assert!(!String::from_utf8_lossy(&fs::read(&written[0]).unwrap()).contains("backstage"));
}

#[tokio::test]
async fn what_is_torn_too_old_or_not_known_is_removed_and_what_is_foreign_is_left() {
    let folder = tempdir().unwrap();
    let before = cache(folder.path());
    put(&before, &key("listproducts", Some(1)), r#"{"Products":[1,2,3]}"#, Duration::ZERO);
    put(&before, &key("listproducts", Some(2)), "{}", Duration::from_hours(2));
    put(&before, &key("listpos", None), "{}", Duration::ZERO);
    stop(folder.path(), &before).await;
    let torn = folder.path().join(format!("torn.{SUFFIX}"));
    let whole =
        encode(&key("listproducts", Some(3)), &before.copy(&key("listproducts", Some(1))).unwrap(), SystemTime::now());
    let whole = whole.unwrap();
    fs::write(&torn, &whole[..whole.len() - 1]).unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    assert_eq!(Store::open(folder.path()).unwrap().load(&cache(folder.path())), 1);
    assert_eq!(files(folder.path()).len(), 1);
    assert!(folder.path().join("notes.txt").exists());
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempdir().unwrap();
    let _first = Store::open(folder.path()).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(OpenError::InUse { .. })));
}

proptest! {
    #[test]
    fn no_file_that_was_cut_short_or_is_noise_is_taken_for_a_copy(noise in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..200) {
        let copy = CachedReply::new(body(r#"{"Products":[{"ID":1,"Price":2.50}]}"#), Instant::now(), crate::cache::Epoch::FORMER);
        let whole = encode(&key("listproducts", Some(1)), &copy, SystemTime::now()).unwrap();
        prop_assert!(decode(&whole, SystemTime::now()).is_some());
        prop_assert!(decode(&whole[..whole.len().saturating_sub(cut + 1)], SystemTime::now()).is_none());
        prop_assert!(decode(&noise, SystemTime::now()).is_none());
    }
}
