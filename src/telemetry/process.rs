//! What the system says of this process, under the names that every Prometheus client uses for it, without our prefix.

use std::fmt::Write;
use std::fs;

/// Of the times in `/proc/PID/stat`, a second: what Linux shows to programs, whatever it uses itself.
const TICKS_A_SECOND: f64 = 100.0;

/// What is shown of the process.
#[derive(Debug, Default, PartialEq)]
struct Process {
    cpu_seconds: Option<f64>,
    start_time_seconds: Option<f64>,
    resident_memory_bytes: Option<u64>,
    virtual_memory_bytes: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
}

/// The page of what can be read; empty where the system has no `/proc`. Reads files: not for an async thread.
#[must_use]
pub fn page() -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
    let mut process = Process::of(&read("self/stat"), &read("self/status"), &read("self/limits"), &read("stat"));
    // The one that lists them is not counted.
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
    process.open_fds = open.map(|open| open.saturating_sub(1));
    process.page()
}

impl Process {
    fn of(stat: &str, status: &str, limits: &str, system: &str) -> Self {
        // After the name of the program, which may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |index: usize| -> Option<f64> { fields.get(index)?.parse().ok() };
        let seconds = |ticks: f64| ticks / TICKS_A_SECOND;
        let bytes = |name: &str| -> Option<u64> {
            let kib: u64 = value(status, name)?.parse().ok()?;
            Some(kib.saturating_mul(1024))
        };
        let booted: Option<f64> = value(system, "btime").and_then(|at| at.parse().ok());
        Self {
            cpu_seconds: ticks(11).zip(ticks(12)).map(|(user, system)| seconds(user + system)),
            start_time_seconds: ticks(19).zip(booted).map(|(started, booted)| booted + seconds(started)),
            resident_memory_bytes: bytes("VmRSS:"),
            virtual_memory_bytes: bytes("VmSize:"),
            open_fds: None,
            max_fds: limits
                .lines()
                .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok()),
        }
    }

    fn page(&self) -> String {
        let mut page = String::new();
        let mut show = |name: &str, kind: &str, help: &str, value: Option<String>| {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = writeln!(
                    page,
                    "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}"
                );
            }
        };
        let text = |value: Option<u64>| value.map(|value| value.to_string());
        let cpu = self.cpu_seconds.map(|value| value.to_string());
        show("cpu_seconds_total", "counter", "User and system processor time of the process.", cpu);
        show("resident_memory_bytes", "gauge", "Resident memory of the process.", text(self.resident_memory_bytes));
        show("virtual_memory_bytes", "gauge", "Virtual memory of the process.", text(self.virtual_memory_bytes));
        show("open_fds", "gauge", "Open files, sockets included.", text(self.open_fds));
        show("max_fds", "gauge", "How many may be open.", text(self.max_fds));
        let started = self.start_time_seconds.map(|value| value.to_string());
        show("start_time_seconds", "gauge", "When the process began, in seconds since 1970.", started);
        page
    }
}

/// The first word after a name at the beginning of a line.
fn value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_system_are_read_whatever_the_program_is_called() {
        let stat =
            "7 (a ) b (c) S 1 7 7 0 -1 4194560 99 0 0 0 150 50 0 0 20 0 5 0 12345 1000 250 18446744073709551615 1";
        let status = "Name:\ta\nVmSize:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        let expected = Process {
            cpu_seconds: Some(2.0),
            start_time_seconds: Some(1_000_123.45),
            resident_memory_bytes: Some(1 << 20),
            virtual_memory_bytes: Some(2 << 20),
            open_fds: None,
            max_fds: Some(1024),
        };
        assert_eq!(Process::of(stat, status, limits, "cpu 1\nbtime 1000000\n"), expected);
        assert_eq!(Process::of("", "", "Max open files unlimited unlimited files", ""), Process::default());
    }

    #[test]
    fn this_process_is_shown_under_the_standard_names() {
        let page = page();
        for name in [
            "cpu_seconds_total",
            "resident_memory_bytes",
            "virtual_memory_bytes",
            "open_fds",
            "max_fds",
            "start_time_seconds",
        ] {
            let line = page.lines().find_map(|line| line.strip_prefix(&format!("process_{name} ")));
            assert!(line.is_some_and(|value| value.parse::<f64>().is_ok_and(|value| value >= 0.0)), "{name}\n{page}");
        }
    }
}
