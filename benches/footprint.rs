//! What the program takes before anybody calls: memory, time to its first answer, room on the disk.
//!
//! As an operator would start it: the defaults, one instance, a gateway that is there. The time is from the start of the
//! process to the first connection that its port takes; the median of some starts is told, the first, for which the
//! program may have to come from the disk, among them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench")]

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{Aim, PROGRAM, Report, Row, Scene, free_address, median, serve};

const STARTS: usize = 9;
/// After it nothing of the start is under way any more: links are open, the licence is fetched, the allocator has given
/// back what it keeps for a moment.
const SETTLED: Duration = Duration::from_secs(8);

/// Milliseconds until the port takes connections.
fn time_to_listening(gateway: &str) -> f64 {
    let (address, data) = (free_address(), tempfile::tempdir().unwrap());
    let begun = Instant::now();
    let _program = serve(&address, gateway, data.path(), &[]);
    while TcpStream::connect(&address).is_err() {
        std::thread::sleep(Duration::from_micros(200));
    }
    begun.elapsed().as_secs_f64() * 1e3
}

#[tokio::main]
async fn main() {
    let scene = Scene::set(&[], &[]).await;
    tokio::time::sleep(SETTLED).await;
    let mut report = Report::new();
    let resident = scene.bridge.process.resident_mib();
    report.add(Row::new("idle-memory", "idle resident memory", resident, "MiB").aim(Aim::AtMost(25.0)));
    let starts = (0..STARTS).map(|_| time_to_listening(&scene.gateway)).collect();
    report.add(Row::new("listening", "time to listening", median(starts), "ms").aim(Aim::AtMost(100.0)));
    #[allow(clippy::cast_precision_loss, reason = "a file of some MiB")]
    let size = std::fs::metadata(PROGRAM).unwrap().len() as f64 / 1024.0 / 1024.0;
    report.add(Row::new("binary", "release binary", size, "MiB").aim(Aim::AtMost(20.0)));
    report.tell();
}
