//! `payments`: records of payments, and settling those of unknown outcome.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::client::{Answer, Client, Connection, HELP, InInstance, Media};
use super::common::{Failure, as_csv, as_json, print_more};
use super::node::{NOTHING, Node, local_time};
use super::terminal::{Table, one_line};

/// Records in a page, at most.
const MOST_IN_PAGE: u64 = 1000;

/// How many are listed where nothing is said.
const USUAL: u64 = 100;

/// Payments at one instance.
#[derive(Debug, Subcommand)]
pub(super) enum Payments {
    /// List payments, newest first: those of the token's own name, or all of them with scope `operate`
    #[command(after_help = HELP)]
    List(List),
    /// Show all that is known of one payment
    #[command(after_help = HELP)]
    Show(Show),
    /// Decide what became of a payment of unknown outcome; needs scope `operate`
    #[command(after_help = HELP)]
    Settle(Settle),
}

/// Flags of `payments list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = USUAL, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// All there are; with --json, each page of the bridge is a line
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Go on where an earlier list ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Print the bridge's CSV; docs/payments.md names the columns
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    instance: InInstance,
}

/// Which payments are listed. The bridge judges the values.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
struct Wanted {
    /// Only those in this state: unknown, unreadable, booked, released, settled, dispatching or reserved
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only those of this point of sale
    #[arg(long, value_name = "ID")]
    pos_id: Option<String>,
    /// Only those created at this time or later: RFC 3339, or a date, perhaps with a time, as the clock here shows it
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<String>,
    /// Only those created before this time
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: Option<String>,
    /// Only those that the token of this name asked for
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Only those under this `Idempotency-Key`
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

/// Flags of `payments show`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Id of the payment
    id: String,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    instance: InInstance,
}

/// Flags of `payments settle`.
#[derive(Debug, Args)]
pub(super) struct Settle {
    /// Id of the payment
    id: String,
    /// What it was found to be
    #[arg(long, value_enum)]
    outcome: Outcome,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The `revision` of the record as it was seen; without it, the record as it is now
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    instance: InInstance,
}

/// What a payment of unknown outcome was found to be.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Outcome {
    /// The gateway has it
    Booked,
    /// The gateway does not have it: its key is free again
    NotBooked,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Booked => "booked",
            Self::NotBooked => "not-booked",
        }
    }
}

pub(super) fn run(command: &Payments) -> Result<ExitCode, Failure> {
    match command {
        Payments::List(flags) => list(flags),
        Payments::Show(flags) => show(flags),
        Payments::Settle(flags) => settle(flags),
    }
}

/// A time as RFC 3339. A date without a time is its midnight here.
fn instant(text: &str) -> Result<String, String> {
    if text.parse::<Timestamp>().is_ok() {
        return Ok(text.to_owned());
    }
    let local = text.parse::<DateTime>().and_then(|local| local.to_zoned_datetime(TimeZone::system()));
    let local = local.map_err(|_| "use 2026-06-08, 2026-06-08T14:30 or 2026-06-08T14:30:00Z".to_owned())?;
    Ok(local.timestamp().to_string())
}

impl Wanted {
    fn query(&self) -> Vec<(&'static str, String)> {
        let Self { state, pos_id, from, to, caller, key } = self;
        let given = [
            ("state", state),
            ("pos_id", pos_id),
            ("from", from),
            ("to", to),
            ("caller", caller),
            ("idempotency_key", key),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

fn list(flags: &List) -> Result<ExitCode, Failure> {
    let client = Client::new(&flags.connection)?;
    let instance = client.instance(&flags.instance)?;
    let wanted = flags.wanted.query();
    let form = Form::of(flags);
    let media = if form == Form::Csv { Media::Csv } else { Media::Json };
    let (mut cursor, mut left) = (flags.cursor.clone(), if flags.all { u64::MAX } else { flags.limit });
    let mut listing = Listing::default();
    loop {
        let mut query = wanted.clone();
        query.push(("limit", left.min(MOST_IN_PAGE).to_string()));
        query.extend(cursor.iter().map(|cursor| ("cursor", cursor.clone())));
        let answer = client.get(&["v1", "instances", &instance, "payments"], &query, media)?;
        let page = listing.page(&answer, form)?;
        if !print_more(&page.text).context("standard output")? {
            return Ok(ExitCode::SUCCESS);
        }
        left = left.saturating_sub(u64::try_from(page.count).unwrap_or(u64::MAX));
        // A cursor that leads back to where it stands would be followed for ever.
        let next = page.next.filter(|next| cursor.as_ref() != Some(next));
        let is_last = next.is_none() || left == 0;
        cursor = next;
        if is_last {
            if form != Form::Json {
                listing.end(cursor.as_deref());
            }
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Json,
    Csv,
}

impl Form {
    fn of(flags: &List) -> Self {
        match (flags.csv, flags.connection.json) {
            (true, _) => Self::Csv,
            (_, true) => Self::Json,
            _ => Self::Table,
        }
    }
}

/// A page of a list as it is printed.
#[derive(Debug)]
struct Page {
    text: String,
    count: usize,
    /// The cursor of the page after it.
    next: Option<String>,
}

/// The records of CSV after its first line, and that line: line breaks within quotes end no record.
fn csv_records(text: &str) -> usize {
    let (mut quoted, mut lines) = (false, 0_usize);
    for byte in text.bytes() {
        quoted ^= byte == b'"';
        lines += usize::from(byte == b'\n' && !quoted);
    }
    lines.saturating_sub(1)
}

/// The cursor in `<…cursor=…>; rel="next"`.
fn cursor_in(link: &str) -> Option<String> {
    let (place, _) = link.strip_prefix('<')?.split_once(">; rel=\"next\"")?;
    let (_, after) = place.rsplit_once("cursor=")?;
    Some(after.split('&').next()?.to_owned())
}

/// Marks a state that the gateway contradicts.
const CONTRADICTED: &str = "*";

/// A list of payments as it is printed, page by page.
#[derive(Debug, Default)]
struct Listing {
    begun: bool,
    contradicted: bool,
}

impl Listing {
    fn page(&mut self, answer: &Answer, form: Form) -> anyhow::Result<Page> {
        if form == Form::Csv {
            return Ok(self.csv(answer));
        }
        let node = answer.node()?;
        let payments = node.items("payments");
        let text = if form == Form::Json { as_json(&answer.body) } else { self.table(payments) };
        Ok(Page { text, count: payments.len(), next: node.text("next").map(str::to_owned) })
    }

    /// Only the first page has the names of the columns.
    fn csv(&mut self, answer: &Answer) -> Page {
        let rows = answer.body.split_once('\n').map_or("", |(_, rows)| rows);
        let text = as_csv(if self.begun { rows } else { &answer.body });
        self.begun = true;
        Page { text, count: csv_records(&answer.body), next: answer.link.as_deref().and_then(cursor_in) }
    }

    fn table(&mut self, payments: &[Node]) -> String {
        // Wide enough for usual values, so that the pages stand under one heading.
        let columns = [
            ("ID", 36),
            ("STATE", 11),
            ("CREATED", 26),
            ("POS", 4),
            ("METHOD", 6),
            ("ITEMS", 5),
            ("SUM", 8),
            ("CALLER", 10),
            ("KEY", 0),
        ];
        let mut table = Table::new(columns);
        for payment in payments {
            let contradicted = !payment.items("contradictions").is_empty();
            self.contradicted |= contradicted;
            table.row([
                payment.shown("id"),
                &format!("{}{}", payment.shown("state"), if contradicted { CONTRADICTED } else { "" }),
                &local_time(payment.shown("created_at")),
                payment.shown("POSID"),
                payment.shown("PaymentMethod"),
                &pieces(payment),
                payment.shown("sum"),
                payment.shown("caller"),
                payment.shown("idempotency_key"),
            ]);
        }
        if self.begun {
            return table.without_head().to_string();
        }
        self.begun = !table.is_empty();
        if self.begun { table.to_string() } else { String::new() }
    }

    /// Says on standard error what the list itself does not.
    fn end(&self, next: Option<&str>) {
        if !self.begun {
            eprintln!("No payments.");
        }
        if self.contradicted {
            eprintln!("{CONTRADICTED} The gateway contradicts the record: `payments show ID` tells how.");
        }
        if let Some(cursor) = next {
            eprintln!("There may be more: --all, or --cursor {}", one_line(cursor));
        }
    }
}

/// How many pieces were sold.
fn pieces(payment: &Node) -> String {
    if payment.get("Products").is_none() {
        return NOTHING.to_owned();
    }
    let amounts = payment.items("Products").iter().filter_map(|product| product.number("Amount"));
    amounts.fold(0_u64, u64::saturating_add).to_string()
}

fn show(flags: &Show) -> Result<ExitCode, Failure> {
    let client = Client::new(&flags.connection)?;
    let instance = client.instance(&flags.instance)?;
    let record = client.get(&["v1", "instances", &instance, "payments", &flags.id], &[], Media::Json)?;
    client.show(&record, Node::outline)?;
    Ok(ExitCode::SUCCESS)
}

fn settle(flags: &Settle) -> Result<ExitCode, Failure> {
    if !flags.yes && !io::stdin().is_terminal() {
        return Err(Failure::Usage("standard input is no terminal to confirm at: give --yes".to_owned()));
    }
    let client = Client::new(&flags.connection)?;
    let instance = client.instance(&flags.instance)?;
    let path = ["v1", "instances", &instance, "payments", &flags.id];
    let record = client.get(&path, &[], Media::Json)?;
    if !flags.yes && !confirmed(&record.node()?, flags)? {
        return Err(Failure::Other(anyhow!("nothing was changed")));
    }
    let seen = match flags.revision {
        Some(revision) => format!("\"{revision}\""),
        None => record.etag.context("the answer has no ETag")?,
    };
    let decision = serde_json::json!({ "outcome": flags.outcome.name(), "reason": flags.reason }).to_string();
    let path = ["v1", "instances", &instance, "payments", &flags.id, "outcome"];
    let settled = client.put(&path, Some(&seen), &decision).map_err(|error| {
        error.hint("precondition-failed", || {
            "The record is not as it was seen, and nothing was changed: look at it again with `payments show`."
                .to_owned()
        })
    })?;
    client.show(&settled, |record| {
        let (id, outcome) = (one_line(record.shown("id")), flags.outcome.name());
        format!("payment {id} is {} as {outcome}\n", one_line(record.shown("state")))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the record and asks. Both on standard error: standard output is for what was asked to be printed.
fn confirmed(record: &Node, flags: &Settle) -> Result<bool, Failure> {
    let question = format!("Settle it as {}? [y/N] ", flags.outcome.name());
    let mut terminal = io::stderr().lock();
    let asked = write!(terminal, "{}\n{question}", record.outline()).and_then(|()| terminal.flush());
    asked.context("standard error")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("standard input")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_csv_are_counted_whatever_they_hold_and_the_cursor_is_found() {
        assert_eq!(csv_records("id,why\r\n"), 0);
        assert_eq!(csv_records("id,why\r\n1,\"a\r\n\"\"b\"\"\r\n\"\r\n2,c\r\n"), 2);
        let link = "<https://bridge/v1/instances/demo/payments?from=a%3Db&cursor=x-1>; rel=\"next\"";
        assert_eq!(cursor_in(link).as_deref(), Some("x-1"));
        assert_eq!(cursor_in("<https://bridge/>; rel=\"prev\""), None);
    }

    #[test]
    fn a_time_is_rfc_3339_or_a_local_date_and_nothing_else() {
        let given = "2026-06-08T02:47:58.120+02:00";
        assert_eq!(instant(given).unwrap(), given);
        let midnight = "2026-06-08T00:00".parse::<DateTime>().unwrap().to_zoned_datetime(TimeZone::system()).unwrap();
        assert_eq!(instant("2026-06-08").unwrap(), midnight.timestamp().to_string());
        assert_eq!(instant("2026-06-08T00:00").unwrap(), midnight.timestamp().to_string());
        for wrong in ["", "yesterday", "2026-13-01", "12:00"] {
            assert!(instant(wrong).is_err(), "{wrong}");
        }
    }
}
