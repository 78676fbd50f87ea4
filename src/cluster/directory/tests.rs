use std::time::Duration;

use super::*;

fn session() -> SessionId {
    SessionId::random().unwrap()
}

fn member(session: SessionId, instances: &[&str]) -> Member {
    let listed = |name: &&str| Listed { name: (*name).into(), slug: format!("{name}-slug").into(), digest: "".into() };
    Member {
        session,
        name: "bridge-1".into(),
        address: "10.0.0.1:9191".into(),
        version: "1".into(),
        format: 1,
        draining: false,
        silent: Duration::ZERO,
        instances: instances.iter().map(listed).collect(),
    }
}

fn owned(instance: &str, session: SessionId, epoch: i64) -> (Arc<str>, Owner) {
    (instance.into(), Owner { session: Some(session), epoch })
}

#[test]
fn a_request_goes_to_the_owner_and_to_nobody_else() {
    let (me, other, gone) = (session(), session(), session());
    let instances = ["mine", "theirs", "orphan", "new"];
    let owners = vec![owned("mine", me, 3), owned("theirs", other, 5), owned("orphan", gone, 7)];
    let directory = Directory::fixed(me, vec![member(me, &instances), member(other, &instances)], owners);
    assert_eq!(directory.route("mine"), Route::Here(3));
    assert!(matches!(directory.route("theirs"), Route::Other(peer) if peer.session == other && peer.epoch == 5));
    assert_eq!(directory.route("orphan"), Route::Nobody);
    assert_eq!(directory.route("new"), Route::Nobody);
    assert_eq!(directory.route("elsewhere"), Route::Unknown);
    assert_eq!(directory.by_slug("new-slug").as_deref(), Some("new"));
}

#[test]
fn an_instance_that_no_live_session_lists_any_more_is_unknown() {
    let (me, other) = (session(), session());
    let directory = Directory::fixed(me, vec![member(me, &[]), member(other, &["one"])], Vec::new());
    assert_eq!(directory.route("one"), Route::Nobody);
    directory.show_members(Some(me), vec![member(me, &[])]);
    assert_eq!((directory.route("one"), directory.by_slug("one-slug")), (Route::Unknown, None));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_a_higher_epoch_and_with_nothing_less() {
    let (me, other) = (session(), session());
    let directory =
        Directory::fixed(me, vec![member(me, &["one"]), member(other, &["one"])], vec![owned("one", other, 4)]);
    let waiting = directory.clone();
    let wait = tokio::spawn(async move { waiting.newer("one", 4, Instant::now() + Duration::from_mins(1)).await });
    tokio::task::yield_now().await;
    directory.show_owners(vec![("one".into(), Owner { session: None, epoch: 4 })]);
    tokio::task::yield_now().await;
    assert!(!wait.is_finished());
    directory.show_owners(vec![owned("one", me, 5)]);
    assert_eq!(wait.await.unwrap(), Route::Here(5));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_an_owner_has_an_end() {
    let me = session();
    let directory = Directory::fixed(me, vec![member(me, &["one"])], Vec::new());
    let begun = Instant::now();
    assert_eq!(directory.newer("one", 0, begun + Duration::from_secs(2)).await, Route::Nobody);
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
}
