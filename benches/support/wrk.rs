//! The load generator `wrk`, with one thread and 64 kept connections.

use std::process::Command;

use super::KEY;

/// What it found.
pub(crate) struct Load {
    pub(crate) requests: f64,
    pub(crate) per_second: f64,
}

/// Loads `url`, or what a script of `wrk` in `further` asks for there. Each request must be answered with a success.
pub(crate) fn load(url: &str, seconds: u64, further: &[&str]) -> Load {
    let output = Command::new("wrk")
        .args(["-t1", "-c64", &format!("-d{seconds}s"), "-H", &format!("Authorization: Bearer {KEY}")])
        .args(further)
        .arg(url)
        .output()
        .expect("wrk, from Debian's package of that name");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let (_, requests) = text.split_once("requests in").map(|(before, _)| before.rsplit_once('\n').unwrap()).unwrap();
    let per_second = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).unwrap();
    Load { requests: requests.trim().parse().unwrap(), per_second: per_second.trim().parse().unwrap() }
}
