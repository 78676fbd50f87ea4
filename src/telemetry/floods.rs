//! Many equal lines in a short time are one fact: of each kind the first few are logged, and the rest counted and told in one
//! line.
//!
//! A kind is a place in the code, an instance and the code of a problem. Only warnings and refusals are counted so: an ERROR,
//! what becomes of a payment, and the line of a request that succeeded are never left out. Entry points: [`Floods::tell`], and
//! `Guarded` around the format of lines.

use std::collections::HashMap;
use std::fmt::{self, Debug, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What was left out is told this often.
const WINDOW: Duration = Duration::from_secs(5);

/// Lines of one kind that are logged within a window: enough to see what they have in common.
const LOGGED: u64 = 10;

/// Kinds that are told apart within a window. Any more are one kind for each place in the code, whose number is bounded.
const MOST_KINDS: usize = 1024;

/// The field that lines of refused requests have.
const CODE: &str = "code";

/// The field that lines about one payment have.
const PAYMENT: &str = "payment";

/// The field of the line that tells how many were left out, which is never left out itself.
const LEFT_OUT: &str = "left_out";

/// The kinds of lines of this window. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Floods(Arc<Mutex<HashMap<Kind, Count>>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    place: Identifier,
    instance: String,
    code: String,
}

#[derive(Debug)]
struct Count {
    since: Instant,
    lines: u64,
    level: Level,
    message: String,
}

impl Count {
    fn left_out(&self) -> u64 {
        self.lines.saturating_sub(LOGGED)
    }
}

impl Floods {
    /// Logs after each window how many lines it left out, for as long as it is polled.
    pub async fn tell(self) {
        let mut windows = interval(WINDOW);
        windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            windows.tick().await;
            self.tell_now();
        }
    }

    /// Logs how many lines were left out since this was last told.
    pub fn tell_now(&self) {
        let ended = std::mem::take(&mut *self.0.lock());
        for (Kind { instance, code, .. }, count) in ended {
            let (left_out, line) = (count.left_out(), count.message.as_str());
            if left_out == 0 {
                continue;
            }
            let (instance, code) = (some(&instance), some(&code));
            let within = count.since.elapsed();
            if count.level == Level::WARN {
                tracing::warn!(line, instance, code, left_out, ?within, "similar lines were left out");
            } else {
                tracing::info!(line, instance, code, left_out, ?within, "similar lines were left out");
            }
        }
    }

    /// Whether a line is to be logged; it is counted if not.
    fn admits(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        if !may_be_left_out(metadata) {
            return true;
        }
        let mut marks = Marks::default();
        event.record(&mut marks);
        let is_refusal = marks.has_code || !has(metadata, CODE);
        let is_of_payment = marks.has_payment && *metadata.level() == Level::WARN;
        if is_of_payment || !is_refusal {
            return true;
        }
        let mut words = Words::default();
        event.record(&mut words);
        let Words { instance, code, message } = words;
        let mut kinds = self.0.lock();
        let mut kind = Kind { place: metadata.callsite(), instance, code };
        if kinds.len() >= MOST_KINDS && !kinds.contains_key(&kind) {
            (kind.instance, kind.code) = Default::default();
        }
        let count =
            kinds.entry(kind).or_insert_with(|| Count { since: now, lines: 0, level: *metadata.level(), message });
        count.lines += 1;
        count.lines <= LOGGED
    }
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn has(metadata: &Metadata<'_>, field: &str) -> bool {
    metadata.fields().field(field).is_some()
}

/// By its place alone: warnings, and what may be the line of a refused request.
fn may_be_left_out(metadata: &Metadata<'_>) -> bool {
    let is_counted = *metadata.level() == Level::WARN || (*metadata.level() == Level::INFO && has(metadata, CODE));
    is_counted && !has(metadata, LEFT_OUT)
}

/// Which of the fields that decide have a value. Nothing is copied: most lines are of requests that succeeded.
#[derive(Default)]
struct Marks {
    has_code: bool,
    has_payment: bool,
}

impl Visit for Marks {
    fn record_debug(&mut self, field: &Field, _: &dyn Debug) {
        self.has_code |= field.name() == CODE;
        self.has_payment |= field.name() == PAYMENT;
    }
}

#[derive(Default)]
struct Words {
    instance: String,
    code: String,
    message: String,
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let word = match field.name() {
            "instance" => &mut self.instance,
            "message" => &mut self.message,
            CODE => &mut self.code,
            _ => return,
        };
        // Cannot fail: it is a string.
        let _ = write!(word, "{value:?}");
    }
}

/// A format of lines under which floods are summarised.
#[derive(Debug)]
pub(super) struct Guarded<F> {
    pub(super) format: F,
    /// `None` leaves nothing out.
    pub(super) floods: Option<Floods>,
}

impl<S, N, F> FormatEvent<S, N> for Guarded<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.floods.as_ref().is_none_or(|floods| floods.admits(event, Instant::now())) {
            return self.format.format_event(context, writer, event);
        }
        Ok(())
    }
}
