use super::*;

fn register(most: usize) -> Arc<Connections> {
    Arc::new(Connections::new(most))
}

fn pass(register: &Connections, seconds: u32) {
    for _ in 0..seconds {
        register.second.fetch_add(1, Ordering::Relaxed);
        for _ in 0..PARTS {
            register.look_on();
        }
    }
}

#[test]
fn a_head_that_has_begun_has_to_come_on_a_kept_connection_too() {
    let register = register(9);
    let [silent, slow, kept] = [(); 3].map(|()| register.enter().unwrap());
    slow.heard();
    kept.heard();
    drop(kept.request(false));
    pass(&register, HEAD_S);
    assert_eq!([&silent, &slow, &kept].map(|one| one.is_over()), [false, false, false]);
    pass(&register, 1);
    assert_eq!([&silent, &slow, &kept].map(|one| one.is_over()), [false, true, false]);
    // A second head, a byte at a time.
    for _ in 0..=HEAD_S {
        kept.heard();
        pass(&register, 1);
    }
    assert!(kept.is_over());
    assert_eq!(register.slow.get(), 2);
}

#[test]
fn a_request_under_way_has_all_the_time_and_nothing_at_all_has_not() {
    let register = register(9);
    let [silent, busy, framed] = [(); 3].map(|()| register.enter().unwrap());
    let request = busy.request(false);
    busy.heard();
    drop(framed.request(true));
    framed.heard();
    pass(&register, IDLE_S + 1);
    assert_eq!([&silent, &busy, &framed].map(|one| one.is_over()), [true, false, false]);
    drop(request);
    pass(&register, IDLE_S + 1);
    assert!(busy.is_over());
}

#[test]
fn the_oldest_stranger_gives_way_then_the_oldest_known_that_is_idle_and_nobody_with_a_request() {
    let register = register(4);
    let [known, working, first, second] = [(); 4].map(|()| register.enter().unwrap());
    known.request(false).is_of_somebody_known();
    let request = working.request(false);
    request.is_of_somebody_known();
    assert_eq!(register.count(), (2, 2));
    let third = register.enter().unwrap();
    assert_eq!(
        [&known, &working, &first, &second, &third].map(|one| one.is_over()),
        [false, false, true, false, false]
    );
    let (one, two) = (second.request(false), third.request(false));
    assert!(register.enter().is_none(), "the only one without a request had one just now");
    pass(&register, 2);
    assert!(register.enter().is_some());
    assert!(known.is_over() && !working.is_over());
    assert_eq!((register.gave_way.get(), register.turned_away.get()), (2, 1));
    drop((one, two, request));
}

#[test]
fn a_closed_socket_gives_its_place_back() {
    let register = register(1);
    let connection = register.enter().unwrap();
    let _request = connection.request(false);
    assert!(register.enter().is_none());
    connection.closed();
    assert!(register.enter().is_some());
}

#[test]
fn of_many_that_are_overdue_few_end_at_once_and_all_in_the_end() {
    let register = register(2_000);
    let slow: Vec<_> = (0..1_000).map(|_| register.enter().unwrap()).collect();
    for one in &slow {
        one.heard();
    }
    register.second.fetch_add(HEAD_S + 1, Ordering::Relaxed);
    let over = || slow.iter().filter(|one| one.is_over()).count();
    register.look_on();
    assert_eq!(over(), ENDED_AT_ONCE);
    for _ in 0..slow.len() {
        register.look_on();
    }
    assert_eq!(over(), slow.len());
}

#[tokio::test(start_paused = true)]
async fn few_are_looked_at_as_often_as_many() {
    for count in [1, 3, 250] {
        let register = register(1_000);
        let watching = tokio::spawn(Arc::clone(&register).watch());
        tokio::task::yield_now().await;
        let slow: Vec<_> = (0..count).map(|_| register.enter().unwrap()).collect();
        for one in &slow {
            one.heard();
        }
        let over = || slow.iter().filter(|one| one.is_over()).count();
        sleep(Duration::from_secs(u64::from(HEAD_S))).await;
        assert_eq!(over(), 0, "of {count}");
        // One to begin with, where nobody was there a moment ago, and one or two in which all are looked at.
        sleep(Duration::from_secs(4)).await;
        assert_eq!(over(), count);
        watching.abort();
    }
}
