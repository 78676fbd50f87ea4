//! `status`: the bridge at this moment.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;

use super::client::{Client, Connection, HELP, Media};
use super::common::Failure;
use super::node::{NOTHING, Node, local_time};
use super::terminal::{Table, one_line};

/// States of payments that somebody has to look into, first.
const STATES: [&str; 7] = ["unknown", "unreadable", "dispatching", "reserved", "booked", "released", "settled"];

/// Flags of `status`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Status {
    #[command(flatten)]
    connection: Connection,
    /// Show the shards and budgets of this instance; with one instance they are shown anyway
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    instance: Option<String>,
}

pub(super) fn run(flags: &Status) -> Result<ExitCode, Failure> {
    let client = Client::new(&flags.connection)?;
    let answer = client.get(&["v1", "bridge"], &[], Media::Json)?;
    let status = answer.node()?;
    let instances = status.items("instances");
    let detailed = match (&flags.instance, instances) {
        (Some(name), _) => match instances.iter().find(|instance| instance.text("instance") == Some(name)) {
            Some(instance) => Some(instance),
            None => {
                return Err(Failure::Other(anyhow!(
                    "the bridge serves no instance `{}` to this token",
                    one_line(name)
                )));
            }
        },
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    client.show(&answer, |_| [overview(&status), detailed.map(details).unwrap_or_default()].concat())?;
    Ok(ExitCode::SUCCESS)
}

/// What is told of the bridge, and a line for each instance.
fn overview(status: &Node) -> String {
    let mut out = String::new();
    let uptime = humantime::format_duration(Duration::from_secs(status.number("uptime_seconds").unwrap_or_default()));
    let (version, state) = (one_line(status.shown("version")), one_line(status.shown("state")));
    let _ = writeln!(out, "concertpos-bridge {version}, {state}, up {uptime}");
    attention(status, &mut out);
    if let Some(payments) = status.get("payments") {
        let counts =
            STATES.iter().filter_map(|state| Some((state, payments.number(state)?))).filter(|(_, count)| *count > 0);
        let counts: Vec<_> = counts.map(|(state, count)| format!("{count} {state}")).collect();
        let _ = writeln!(out, "payments: {}", if counts.is_empty() { "none".to_owned() } else { counts.join(", ") });
    } else if status.is_true("whole") {
        let _ = writeln!(out, "payments: the journal cannot be read");
    }
    if let Some(cache) = status.get("cache") {
        let _ = writeln!(out, "copies: {}, {} bytes", one_line(cache.shown("copies")), one_line(cache.shown("bytes")));
    }
    if let Some(subscribers) = status.text("subscribers") {
        let _ = writeln!(out, "event streams: {}", one_line(subscribers));
    }
    let mut table = Table::new(["INSTANCE", "LINKS", "WAITING", "LEAST BUDGET", "SHARDS"].map(|name| (name, 0)));
    for instance in status.items("instances") {
        let links: usize = instance.items("shards").iter().map(|shard| shard.items("links").len()).sum();
        table.row([
            instance.shown("instance"),
            &links.to_string(),
            instance.shown("waiting"),
            &least_budget(instance),
            &instance.items("shards").iter().map(shard_in_short).collect::<Vec<_>>().join(", "),
        ]);
    }
    let _ = write!(out, "\n{table}");
    out
}

/// What the bridge says has to be looked into, in its order: the gravest first.
fn attention(status: &Node, out: &mut String) {
    if status.get("attention").is_none() {
        return;
    }
    let mut table =
        Table::new(["SEVERITY", "INSTANCE", "ABOUT", "SINCE", "WORDS"].map(|name| (name, 0))).without_head();
    for item in status.items("attention") {
        let about = item.text("subject").or_else(|| item.text("code")).unwrap_or(NOTHING);
        let since = item.text("since").map_or_else(|| NOTHING.to_owned(), local_time);
        table.row([item.shown("severity"), item.shown("instance"), about, &since, item.shown("words")]);
    }
    if table.is_empty() {
        let _ = writeln!(out, "needs attention: nothing");
        return;
    }
    let _ = writeln!(out, "\nneeds attention:");
    for line in table.to_string().lines() {
        let _ = writeln!(out, "  {line}");
    }
    out.push('\n');
}

fn shard_in_short(shard: &Node) -> String {
    format!("{} {}", shard.shown("shard"), health(shard))
}

fn health(shard: &Node) -> &'static str {
    if shard.is_true("cordoned") {
        "taken out"
    } else if !shard.is_true("good") {
        "failing"
    } else if shard.is_true("in_doubt") {
        "in doubt"
    } else {
        "good"
    }
}

/// Points of a window that are left.
fn left(window: &Node) -> u64 {
    window
        .number("capacity_points")
        .unwrap_or_default()
        .saturating_sub(window.number("used_points").unwrap_or_default())
}

/// Which part of a window's points is left, in thousandths.
fn part_left(window: &Node) -> u64 {
    left(window).saturating_mul(1000) / window.number("capacity_points").unwrap_or(1).max(1)
}

/// The window with the smallest part left.
fn least_budget(instance: &Node) -> String {
    let Some(least) = instance.items("budgets").iter().min_by_key(|window| part_left(window)) else {
        return NOTHING.to_owned();
    };
    format!("{} {} of {}", least.shown("command"), left(least), least.shown("capacity_points"))
}

/// The shards and budgets of one instance.
fn details(instance: &Node) -> String {
    let mut out = format!("\n{}\n", one_line(instance.shown("instance")));
    if let Some(count) = instance.number("contradictions").filter(|count| *count > 0) {
        let _ = writeln!(out, "contradictions since the start: {count}");
    }
    let heads = ["SHARD", "STATE", "LINKS", "FAILURES", "ROUND TRIP", "LAST FAULT"];
    let mut shards = Table::new(heads.map(|name| (name, 0)));
    for shard in instance.items("shards") {
        let round_trip = shard.number("round_trip_us").map(Duration::from_micros);
        shards.row([
            shard.shown("shard"),
            health(shard),
            &links(shard),
            shard.shown("failures"),
            &round_trip.map_or_else(|| NOTHING.to_owned(), |time| humantime::format_duration(time).to_string()),
            shard.shown("last_fault"),
        ]);
    }
    let _ = write!(out, "\n{shards}");
    budgets(instance, &mut out);
    out
}

/// Windows with the least left first; those that nothing uses are only counted.
fn budgets(instance: &Node, out: &mut String) {
    let (mut used, unused): (Vec<_>, Vec<_>) = instance.items("budgets").iter().partition(|window| is_used(window));
    used.sort_by_key(|window| part_left(window));
    let mut table = Table::new(["COMMAND", "LEFT", "OF", "IN FLIGHT", "WAITING", "CLOSED"].map(|name| (name, 0)));
    for window in used {
        table.row([
            window.shown("command"),
            &left(window).to_string(),
            window.shown("capacity_points"),
            window.shown("in_flight_points"),
            &waiting(window).to_string(),
            &closed(window),
        ]);
    }
    if !table.is_empty() {
        let _ = write!(out, "\n{table}");
    }
    if !unused.is_empty() {
        let _ = writeln!(out, "\nfull budgets: {}", unused.len());
    }
}

/// Commands that wait for points.
fn waiting(window: &Node) -> u64 {
    let counts = ["waiting_payments", "waiting_callers", "waiting_refreshes"].iter();
    counts.filter_map(|name| window.number(name)).fold(0, u64::saturating_add)
}

fn is_used(window: &Node) -> bool {
    window.number("used_points") != Some(0) || waiting(window) > 0 || closed(window) != NOTHING
}

/// Links by their state.
fn links(shard: &Node) -> String {
    let links = shard.items("links");
    let set_aside = links.iter().filter(|link| link.text("state") == Some("set-aside")).count();
    if set_aside > 0 { format!("{}, {set_aside} set aside", links.len()) } else { links.len().to_string() }
}

fn closed(window: &Node) -> String {
    match window.number("closed_for_ms").filter(|ms| *ms > 0) {
        Some(ms) => format!("for {}", humantime::format_duration(Duration::from_secs(ms.div_ceil(1000)))),
        None if window.is_true("probing") => "probing".to_owned(),
        None => NOTHING.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_attention_comes_first_and_in_the_bridge_s_order() {
        let status = |attention: &str| {
            let json = format!(
                r#"{{"version":"0.1.0","uptime_seconds":61,"state":"serving","whole":true{attention},"instances":[]}}"#
            );
            overview(&Node::parse(&json).unwrap())
        };
        let item = r#"{"code":"no-links","severity":"critical","instance":"demo","subject":null,"words":"No link \u001b.","since":null}"#;
        let other = r#"{"code":"slow","severity":"warning","instance":null,"subject":"exon","words":"Slow."}"#;
        assert_eq!(
            status(&format!(r#","attention":[{item},{other}],"payments":{{"unknown":2,"booked":0}}"#))
                .split("\n\nINSTANCE")
                .next()
                .unwrap(),
            "concertpos-bridge 0.1.0, serving, up 1m 1s\n\nneeds attention:\n  \
             critical  demo  no-links  -  No link \\u{1b}.\n  \
             warning   -     exon      -  Slow.\n\npayments: 2 unknown"
        );
        assert!(
            status(r#","attention":[]"#).contains("needs attention: nothing\npayments: the journal cannot be read")
        );
        assert!(!status("").contains("attention"), "an earlier bridge");
    }
}
