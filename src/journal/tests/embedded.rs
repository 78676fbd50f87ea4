//! What the embedded store promises beside what every store does.

use std::task::Poll;

use futures_util::future;

use super::*;

#[tokio::test]
async fn payments_under_way_together_share_their_syncs() {
    let (disk, journal) = on_new_disk();
    let first = reserve(&journal, "first").await;
    let names: Vec<_> = (0..64).map(|number| number.to_string()).collect();
    let others = future::join_all(names.iter().map(|name| reserve(&journal, name))).await;
    disk.hold_syncs();
    let mut first = Box::pin(journal.dispatch(first));
    assert!(future::poll_immediate(&mut first).await.is_none());
    until("the first commit is under way", || disk.has_hanging_sync()).await;
    let mut others = Box::pin(future::join_all(others.into_iter().map(|reservation| journal.dispatch(reservation))));
    assert!(future::poll_fn(|context| Poll::Ready(others.as_mut().poll(context).is_pending())).await);
    let before = disk.syncs();
    disk.release_syncs();
    let dispatched = (first.await, others.await);
    assert!(dispatched.0.is_ok() && dispatched.1.iter().all(Result::is_ok));
    // Two commits of two syncs, and some more where the file grows; each for itself would take 130.
    let syncs = disk.syncs() - before;
    assert!(syncs < 10, "{syncs} syncs for 65 payments");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_disk_that_hangs_while_a_key_is_looked_up_holds_up_no_thread_that_serves() {
    let disk = Disk::default();
    disk.without_cache();
    let journal = open(&disk, &Arc::default());
    // So many that looking at a record reads further pages than the first.
    let names: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    future::join_all(names.iter().map(|name| pay(&journal, name, booked()))).await;
    disk.hold_reads();
    let looking = tokio::spawn({
        let journal = journal.clone();
        async move { matches!(journal.reserve(key("0"), sale(1)).await, Reserve::Replay(_)) }
    });
    until("the disk hangs", || disk.has_hanging_read()).await;
    let served = tokio::time::timeout(Duration::from_secs(4), tokio::spawn(async {})).await;
    disk.release_reads();
    assert!(served.is_ok(), "nobody else is served");
    assert!(looking.await.unwrap());
}
