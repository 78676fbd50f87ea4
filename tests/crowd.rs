//! A crowd at the door: connections that say little, or too slowly, leave room for those who have something to ask.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod running;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use running::{PROGRAM, Running, free_address, wait_until};

/// A head that is not complete, as the second of a connection.
const HALF_A_HEAD: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-";
const WHOLE_HEAD: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
const KEY: &str = "demo-key";

/// A bridge that may have so many files open, and a folder for its records. Its gateway is nowhere.
fn bridge(files: u32) -> (Running, String, tempfile::TempDir) {
    let (listen, folder) = (free_address(), tempfile::tempdir().unwrap());
    let mut command = Command::new("bash");
    command.args(["-c", &format!("ulimit -n {files}; exec {PROGRAM} serve")]);
    command.env("BRIDGE_SERVER__LISTEN", &listen).env("BRIDGE_GATEWAY__URL", "ws://127.0.0.1:9/{shard}/{instance}");
    command.env("BRIDGE_PAYMENTS__JOURNAL", folder.path().join("journal")).env("BRIDGE_CACHE__STORE", "");
    command.env("BRIDGE_INSTANCES__DEMO__API_KEY", KEY).env("BRIDGE_TELEMETRY__LOG", "error");
    let bridge = Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    wait_until("it listens", || TcpStream::connect(&listen).is_ok());
    (bridge, listen, folder)
}

fn connect(listen: &str) -> TcpStream {
    let stream = TcpStream::connect(listen).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream
}

/// Asks on a connection as it is. The status, if an answer comes.
fn ask(stream: &mut TcpStream, head: &[u8]) -> Option<u16> {
    stream.write_all(head).ok()?;
    let mut answer = [0; 8192];
    let length = stream.read(&mut answer).ok()?;
    String::from_utf8_lossy(&answer[..length]).split(' ').nth(1)?.parse().ok()
}

fn is_ended(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let ended = !matches!((&*stream).read(&mut [0; 64]), Err(why) if why.kind() == std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    ended
}

#[test]
fn a_second_head_has_to_come_as_the_first_one_has() {
    let (_bridge, listen, _folder) = bridge(256);
    let mut slow = connect(&listen);
    assert_eq!(ask(&mut slow, WHOLE_HEAD), Some(200));
    let begun = Instant::now();
    slow.write_all(HALF_A_HEAD).unwrap();
    // A byte now and then is what keeps every clock of the socket's from running out.
    while slow.write_all(b"a").is_ok() && !is_ended(&slow) {
        assert!(begun.elapsed() < Duration::from_secs(12), "half a head holds the connection");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(begun.elapsed() > Duration::from_secs(4), "it had no time: {:?}", begun.elapsed());
    assert_eq!(ask(&mut connect(&listen), WHOLE_HEAD), Some(200));
}

#[test]
fn where_there_is_no_room_the_silent_give_way_to_whoever_asks() {
    let (_bridge, listen, _folder) = bridge(256);
    let mine = format!("GET /v1/instances HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    let mut known = connect(&listen);
    assert_eq!(ask(&mut known, mine.as_bytes()), Some(200));
    let mut slow = connect(&listen);
    slow.write_all(HALF_A_HEAD).unwrap();
    // Of 256 files half are for connections.
    let silent: Vec<_> = (0..200).map(|_| connect(&listen)).collect();
    for _ in 0..20 {
        assert_eq!(ask(&mut connect(&listen), mine.as_bytes()), Some(200));
    }
    wait_until("the oldest strangers have given way", || is_ended(&slow) && is_ended(&silent[0]));
    // Three quarters of the places are theirs, less those who asked and have not left yet.
    let left = silent.iter().filter(|one| !is_ended(one)).count();
    assert!(left >= 70, "and no more of them than had to: {left} are left");
    assert_eq!(ask(&mut known, mine.as_bytes()), Some(200), "who is known stays");
}
