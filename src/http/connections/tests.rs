use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::*;

const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const UPGRADED_WRITE_TIMEOUT: Duration = Duration::from_secs(10);

fn register(most: usize) -> Arc<Connections> {
    Arc::new(Connections::new(most, WRITE_TIMEOUT, UPGRADED_WRITE_TIMEOUT))
}

fn pass(register: &Connections, seconds: u32) {
    for _ in 0..seconds {
        register.second.fetch_add(1, Ordering::Relaxed);
        for _ in 0..CHECKS_A_SECOND {
            register.check_some();
        }
    }
}

#[test]
fn a_head_that_does_not_come_in_time_closes_its_connection_kept_alive_or_not() {
    let register = register(9);
    let [silent, slow, kept] = [(); 3].map(|()| register.enter().unwrap());
    slow.received();
    kept.received();
    drop(kept.request());
    pass(&register, HEAD_TIMEOUT_S);
    assert_eq!([&silent, &slow, &kept].map(|one| one.is_closing()), [false, false, false]);
    pass(&register, 1);
    assert_eq!([&silent, &slow, &kept].map(|one| one.is_closing()), [false, true, false]);
    // A second head, a byte at a time.
    for _ in 0..=HEAD_TIMEOUT_S {
        kept.received();
        pass(&register, 1);
    }
    assert!(kept.is_closing());
    assert_eq!(register.timed_out.get(), 2);
}

#[test]
fn a_connection_without_a_request_is_closed_after_a_while_and_one_with_a_request_is_not() {
    let register = register(9);
    let [silent, busy] = [(); 2].map(|()| register.enter().unwrap());
    let request = busy.request();
    busy.received();
    pass(&register, IDLE_TIMEOUT_S + 1);
    assert_eq!([&silent, &busy].map(|one| one.is_closing()), [true, false]);
    drop(request);
    pass(&register, IDLE_TIMEOUT_S + 1);
    assert!(busy.is_closing());
}

#[test]
fn the_oldest_anonymous_connection_is_evicted_then_the_oldest_idle_one_and_none_with_a_request() {
    let register = register(4);
    let [known, working] = [(); 2].map(|()| register.enter().unwrap());
    drop(known.request());
    let request = working.request();
    assert!(known.claim("one") && working.claim("other"));
    let [first, second] = [(); 2].map(|()| register.enter().unwrap());
    assert_eq!(register.count(), (2, 2));
    let third = register.enter().unwrap();
    assert_eq!(
        [&known, &working, &first, &second, &third].map(|one| one.is_closing()),
        [false, false, true, false, false]
    );
    let (one, two) = (second.request(), third.request());
    assert!(register.enter().is_none(), "the only one without a request had one just now");
    pass(&register, 2);
    assert!(register.enter().is_some());
    assert!(known.is_closing() && !working.is_closing());
    assert_eq!((register.evicted.get(), register.refused.get()), (2, 1));
    drop((one, two, request));
}

#[test]
fn a_closed_socket_makes_room() {
    let register = register(1);
    let connection = register.enter().unwrap();
    let _request = connection.request();
    assert!(register.enter().is_none());
    connection.leave();
    assert!(register.enter().is_some());
}

#[test]
fn of_many_overdue_connections_few_are_closed_at_once_and_all_in_the_end() {
    let register = register(2_000);
    let slow: Vec<_> = (0..1_000).map(|_| register.enter().unwrap()).collect();
    for one in &slow {
        one.received();
    }
    register.second.fetch_add(HEAD_TIMEOUT_S + 1, Ordering::Relaxed);
    let over = || slow.iter().filter(|one| one.is_closing()).count();
    register.check_some();
    assert_eq!(over(), MAX_CLOSED_AT_ONCE);
    for _ in 0..slow.len() {
        register.check_some();
    }
    assert_eq!(over(), slow.len());
}

#[tokio::test(start_paused = true)]
async fn a_few_connections_are_checked_as_often_as_many() {
    for count in [1, 3, 250] {
        let register = register(1_000);
        let watching = tokio::spawn(Arc::clone(&register).watch());
        tokio::task::yield_now().await;
        let slow: Vec<_> = (0..count).map(|_| register.enter().unwrap()).collect();
        for one in &slow {
            one.received();
        }
        let over = || slow.iter().filter(|one| one.is_closing()).count();
        sleep(Duration::from_secs(u64::from(HEAD_TIMEOUT_S))).await;
        assert_eq!(over(), 0, "of {count}");
        // One second until the first check of these, and one or two in which all are checked.
        sleep(Duration::from_secs(4)).await;
        assert_eq!(over(), count);
        watching.abort();
    }
}

#[test]
fn anonymous_connections_have_three_quarters_of_all_room_and_then_the_oldest_is_evicted_request_or_not() {
    let register = register(8);
    let anonymous: Vec<_> = (0..6).map(|_| register.enter().unwrap()).collect();
    let requests: Vec<_> = anonymous.iter().map(Connection::request).collect();
    let newcomer = register.enter().unwrap();
    assert!(anonymous[0].is_closing() && anonymous[0].is_aborted());
    assert!(!anonymous[1].is_closing() && !newcomer.is_closing());
    assert_eq!(register.count(), (6, 0));
    drop(requests);
}

#[test]
fn one_caller_has_three_quarters_of_all_places_and_then_only_its_own_give_way() {
    let register = register(8);
    let own: Vec<_> = (0..6).map(|_| register.enter().unwrap()).collect();
    assert!(own.iter().all(|one| one.claim("greedy")));
    let requests: Vec<_> = own.iter().map(Connection::request).collect();
    let (more, other) = (register.enter().unwrap(), register.enter().unwrap());
    assert!(!more.claim("greedy"), "all its others have a request");
    assert!(other.claim("quiet"));
    drop(requests);
    pass(&register, 2);
    assert!(more.claim("greedy"));
    assert!(own[0].is_closing() && !own[1].is_closing() && !other.is_closing());
    assert_eq!(register.count(), (0, 7));
    own[1].leave();
    assert!(register.enter().unwrap().claim("greedy"), "a place given back is free");
}

#[test]
fn a_peer_that_reads_nothing_is_cut_off_in_time_and_one_that_reads_is_not() {
    let register = register(9);
    let [slow, till, lively] = [(); 3].map(|()| register.enter().unwrap());
    let requests = [&slow, &till, &lively].map(Connection::request);
    till.upgrade();
    for one in [&slow, &till, &lively] {
        one.write_blocked(Waker::noop());
    }
    lively.write_done();
    pass(&register, 11);
    assert_eq!([&slow, &till, &lively].map(|one| one.is_aborted()), [false, true, false]);
    pass(&register, 20);
    assert_eq!([&slow, &till, &lively].map(|one| one.is_aborted()), [true, true, false]);
    assert_eq!(register.timed_out.get(), 2);
    drop(requests);
}

/// What can be read of a stream at once; `None` where it has to wait.
fn read_now(stream: &mut Bounded<tokio::io::DuplexStream>) -> Option<String> {
    let (mut space, mut context) = (vec![0; 64 * 1024], Context::from_waker(Waker::noop()));
    let mut buffer = ReadBuf::new(&mut space);
    match Pin::new(stream).poll_read(&mut context, &mut buffer) {
        Poll::Ready(read) => read.map(|()| String::from_utf8(buffer.filled().to_vec()).unwrap()).ok(),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn of_all_that_an_anonymous_peer_sends_the_server_gets_one_head_at_a_time() {
    let connection = register(9).enter().unwrap();
    let (mut peer, ours) = tokio::io::duplex(64 * 1024);
    let mut stream = Bounded::new(ours, Arc::clone(&connection));
    let sent = ["GET /1 HTTP/1.1\r\n\r\n", "GET /2 HTTP/1.1\nX: y\n\n", "POST / HTTP/1.1\r\n\r\n"];
    let body = "a\r\n\r\nb\r\n\r\n".repeat(2000);
    peer.write_all((sent.concat() + &body).as_bytes()).await.unwrap();
    for head in &sent[..2] {
        assert_eq!(read_now(&mut stream).as_deref(), Some(*head));
        assert_eq!(read_now(&mut stream), None, "others go first");
        let request = connection.request();
        assert_eq!(read_now(&mut stream), None, "its request is in progress");
        drop(request);
    }
    assert_eq!(read_now(&mut stream).as_deref(), Some(sent[2]));
    let _request = connection.request();
    assert_eq!(read_now(&mut stream), None);
    assert!(connection.claim("one"));
    let mut rest = String::new();
    while let Some(more) = read_now(&mut stream) {
        rest += &more;
    }
    assert!(rest == body, "it comes whole once its caller has authenticated: {} of {}", rest.len(), body.len());
}

#[tokio::test]
async fn an_anonymous_upgraded_connection_is_read_only_once_the_last_piece_was_handled() {
    let connection = register(9).enter().unwrap();
    let (mut peer, ours) = tokio::io::duplex(512 * 1024);
    let mut stream = Bounded::new(ours, Arc::clone(&connection));
    let head = "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    peer.write_all((head.to_owned() + &"x".repeat(400_000)).as_bytes()).await.unwrap();
    assert_eq!(read_now(&mut stream).as_deref(), Some(head));
    let _request = connection.request();
    connection.upgrade();
    for _ in 0..20 {
        assert_eq!(read_now(&mut stream), None);
        connection.allow_read();
        let piece = read_now(&mut stream).unwrap();
        assert!(!piece.is_empty() && piece.len() <= 1024, "{}", piece.len());
    }
    assert_eq!(read_now(&mut stream), None);
    connection.discard();
    for _ in 0..100 {
        match read_now(&mut stream) {
            None => {}
            Some(end) => return assert_eq!(end, ""),
        }
    }
    panic!("what is discarded is read without end");
}
