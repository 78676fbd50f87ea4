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
fn a_head_that_has_begun_has_to_come_on_a_kept_connection_too() {
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
fn a_request_under_way_has_all_the_time_and_nothing_at_all_has_not() {
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
fn the_oldest_stranger_gives_way_then_the_oldest_known_that_is_idle_and_nobody_with_a_request() {
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
fn a_closed_socket_gives_its_place_back() {
    let register = register(1);
    let connection = register.enter().unwrap();
    let _request = connection.request();
    assert!(register.enter().is_none());
    connection.leave();
    assert!(register.enter().is_some());
}

#[test]
fn of_many_that_are_overdue_few_end_at_once_and_all_in_the_end() {
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
async fn few_are_looked_at_as_often_as_many() {
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
        // One to begin with, where nobody was there a moment ago, and one or two in which all are looked at.
        sleep(Duration::from_secs(4)).await;
        assert_eq!(over(), count);
        watching.abort();
    }
}

#[test]
fn strangers_have_three_quarters_of_all_places_and_the_oldest_gives_way_whatever_it_carries() {
    let register = register(8);
    let strangers: Vec<_> = (0..6).map(|_| register.enter().unwrap()).collect();
    let requests: Vec<_> = strangers.iter().map(Connection::request).collect();
    let newcomer = register.enter().unwrap();
    assert!(strangers[0].is_closing() && strangers[0].is_aborted());
    assert!(!strangers[1].is_closing() && !newcomer.is_closing());
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
    assert!(!more.claim("greedy"), "all its others have something to do");
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
fn who_takes_nothing_of_what_is_written_is_cut_in_time_and_who_takes_it_is_not() {
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

/// What is read now of a stranger's stream; nothing where it has to wait.
fn read_now(stream: &mut Bounded<tokio::io::DuplexStream>) -> Option<String> {
    let (mut space, mut context) = (vec![0; 64 * 1024], Context::from_waker(Waker::noop()));
    let mut buffer = ReadBuf::new(&mut space);
    match Pin::new(stream).poll_read(&mut context, &mut buffer) {
        Poll::Ready(read) => read.map(|()| String::from_utf8(buffer.filled().to_vec()).unwrap()).ok(),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn of_all_that_a_stranger_sends_the_server_gets_one_head_at_a_time() {
    let connection = register(9).enter().unwrap();
    let (mut peer, ours) = tokio::io::duplex(64 * 1024);
    let mut stream = Bounded::new(ours, Arc::clone(&connection));
    let sent = ["GET /1 HTTP/1.1\r\n\r\n", "GET /2 HTTP/1.1\nX: y\n\n", "POST / HTTP/1.1\r\n\r\n"];
    let body = "a\r\n\r\nb\r\n\r\n".repeat(2000);
    peer.write_all((sent.concat() + &body).as_bytes()).await.unwrap();
    for head in &sent[..2] {
        assert_eq!(read_now(&mut stream).as_deref(), Some(*head));
        assert_eq!(read_now(&mut stream), None, "others have their turn");
        let request = connection.request();
        assert_eq!(read_now(&mut stream), None, "it is under way");
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
    assert!(rest == body, "it comes whole once it is known whose it is: {} of {}", rest.len(), body.len());
}

#[tokio::test]
async fn of_another_protocol_a_stranger_s_next_piece_is_read_when_the_last_one_has_been_dealt_with() {
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
    panic!("what nobody looks at is read without end");
}
