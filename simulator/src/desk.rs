//! From one message to what is done about it: checks, limit, fault, data, answer.
//!
//! Each command goes its own way, so two on one connection may be answered in either order. One that has nothing to wait
//! for is done on the spot, which keeps the simulator out of the way of benchmarks; any other becomes a task, and goes on
//! even if its connection is gone, as the real server's handler does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::{Bytes, Utf8Bytes};

use super::commands::{Refusal, Reply, Verb, execute};
use super::faults::{Action, Garbage, Occasion, Say, Scripted};
use super::printer::{Format, message};
use super::reader::read;
use super::sale::Sale;
use super::value::Value;
use super::world::World;

/// One thing for a connection to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// A text message of these bytes, whatever they are.
    RawText(Bytes),
    /// Reset the connection.
    Reset,
    /// Close the connection with this code.
    Close(u16),
    /// Read and answer nothing any more.
    Freeze,
}

/// What a message leads to.
pub(super) enum Course {
    Now(Vec<Step>),
    /// Has to wait for something: to be carried out in a task.
    Later(Box<Order>),
}

/// Where the messages of one connection are dealt with.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) world: Arc<World>,
    pub(super) shard: usize,
    /// Nothing where the URL names an instance that does not exist.
    pub(super) instance: Option<usize>,
    pub(super) format: Format,
    pub(super) in_progress: Arc<AtomicUsize>,
}

impl Desk {
    /// Deals with one message, at the moment it was read.
    pub(super) fn receive(&self, text: &str) -> Course {
        let Some(frame) = read(text, self.format) else {
            self.world.counters.unreadable();
            let word = if self.format == Format::Json { "invalid_json" } else { "invalid_json5" };
            return Course::Now(vec![self.error(&Refusal::new(word, 0))]);
        };
        let Some(command) = frame.get("command").and_then(Value::as_str).map(str::to_owned) else {
            self.world.counters.unreadable();
            return Course::Now(vec![self.error(&Refusal::new("missing_parameter_command", 3))]);
        };
        let parameters = frame.get("parameters").cloned().unwrap_or(Value::Null);
        let in_progress = self.in_progress.fetch_add(1, Ordering::AcqRel) + 1;
        self.world.counters.received(&command, in_progress);
        let verb = Verb::parse(&command);
        if verb == Some(Verb::PayItems) {
            self.world.counters.received_sale(&Sale::of(&parameters));
        }
        let identified = self.identify(&parameters);
        let action = identified.as_ref().ok().and_then(|_| self.strike(&command, &parameters));
        let order = Order {
            waits: self.waits(action.as_ref()),
            desk: self.clone(),
            command,
            verb,
            parameters,
            identified,
            action,
        };
        if order.takes_time() { Course::Later(Box::new(order)) } else { Course::Now(order.at_once()) }
    }

    /// Which instance may be asked, by the key that came with the command.
    fn identify(&self, parameters: &Value) -> Result<usize, Refusal> {
        let instance = self.instance.ok_or_else(|| Refusal::new("invalid_instance", 0))?;
        let given = parameters.given("api_key").ok_or_else(|| Refusal::new("missing_parameter_api", 3))?;
        let is_right = self.world.is_api_key(instance, given.as_str());
        if is_right { Ok(instance) } else { Err(Refusal::new("api_key_mismatch", -1)) }
    }

    fn strike(&self, command: &str, parameters: &Value) -> Option<Action> {
        let pos_id = parameters.get("POSID").and_then(Value::as_integer);
        let occasion = Occasion { shard: self.world.shard_name(self.shard), command: Some((command, pos_id)) };
        self.world.faults.strike(&occasion, || self.world.chance())
    }

    fn waits(&self, action: Option<&Action>) -> Waits {
        let config = &self.world.config;
        let (least, most) = config.latency;
        let mut waits = Waits {
            arrival: self.world.between(Duration::ZERO, config.arrival_jitter),
            application: Duration::ZERO,
            answer: self.world.between(least, most),
        };
        match action {
            Some(Action::Late { ms }) => waits.application += Duration::from_millis(*ms),
            Some(Action::Latency { ms }) => waits.answer += Duration::from_millis(*ms),
            _ => {}
        }
        waits
    }

    pub(super) fn event(&self, name: &str, parameters: &Value) -> Step {
        self.text("event", &[("event", &Value::from(name.to_owned())), ("parameters", parameters)])
    }

    pub(super) fn error(&self, refusal: &Refusal) -> Step {
        self.text("error", &[("error", &Value::String(refusal.word.clone())), ("code", &refusal.code)])
    }

    fn text(&self, kind: &str, result: &[(&str, &Value)]) -> Step {
        Step::Text(Utf8Bytes::from(message(kind, result, self.format)))
    }
}

/// The times one command has to wait, in their order.
#[derive(Clone, Copy)]
struct Waits {
    /// Before the limiter sees it.
    arrival: Duration,
    /// Before it is applied.
    application: Duration,
    /// Before it is answered.
    answer: Duration,
}

impl Waits {
    fn any(self) -> bool {
        !(self.arrival.is_zero() && self.application.is_zero() && self.answer.is_zero())
    }
}

/// An error of this word and code; 0 where none is given.
fn refusal(word: &str, code: Option<&serde_json::Value>) -> Refusal {
    let code = code.and_then(|code| read(&code.to_string(), Format::Json));
    Refusal { word: word.to_owned().into(), code: code.unwrap_or_else(|| 0.into()) }
}

/// Sleeps, but not for nothing: the shortest sleep of the runtime is a millisecond.
async fn pause(length: Duration) {
    if !length.is_zero() {
        sleep(length).await;
    }
}

/// One command, with everything already decided that is decided on arrival.
pub(super) struct Order {
    desk: Desk,
    command: String,
    verb: Option<Verb>,
    parameters: Value,
    identified: Result<usize, Refusal>,
    action: Option<Action>,
    waits: Waits,
}

/// What came of a command, and whether that is an answer. What is never answered stays in progress.
struct Outcome {
    steps: Vec<Step>,
    answered: bool,
}

impl Order {
    fn at_once(&self) -> Vec<Step> {
        let outcome = match self.admit() {
            Ok(instance) => self.act(instance),
            Err(refusal) => self.refused(&refusal),
        };
        self.finish(outcome)
    }

    fn takes_time(&self) -> bool {
        self.waits.any() || matches!(self.action, Some(Action::Script { .. }))
    }

    /// Carries the command out in its own time. Where the connection is gone, so is whoever would hear the answer.
    pub(super) async fn in_time(self, answer: &mpsc::Sender<Vec<Step>>) {
        pause(self.waits.arrival).await;
        let outcome = match self.admit() {
            Ok(instance) => {
                pause(self.waits.application).await;
                if let Some(Action::Script { frames }) = &self.action {
                    return self.play(instance, frames, answer).await;
                }
                self.act(instance)
            }
            Err(refusal) => self.refused(&refusal),
        };
        pause(self.waits.answer).await;
        let _ = answer.send(self.finish(outcome)).await;
    }

    /// Says one frame after the other; those without a pause between them leave together.
    async fn play(&self, instance: usize, frames: &[Scripted], answer: &mpsc::Sender<Vec<Step>>) {
        let (mut reply, mut together, mut answered) = (None, Vec::new(), false);
        for (at, Scripted { after_ms, say }) in frames.iter().enumerate() {
            pause(Duration::from_millis(*after_ms)).await;
            together.push(match say {
                Say::Reply { parameters } => {
                    let reply = reply.get_or_insert_with(|| self.applied(instance)).clone();
                    let instead = parameters.as_ref().and_then(|value| read(&value.to_string(), Format::Json));
                    let event = self.verb.map_or("", Verb::reply_event);
                    instead.map_or(reply, |parameters| self.desk.event(event, &parameters))
                }
                Say::Error { word, code } => self.desk.error(&refusal(word, code.as_ref())),
                Say::Text(text) => Step::Text(text.into()),
            });
            if frames.get(at + 1).is_some_and(|next| next.after_ms == 0) {
                continue;
            }
            let steps = std::mem::take(&mut together);
            let steps = self.finish(Outcome { steps, answered: !std::mem::replace(&mut answered, true) });
            let _ = answer.send(steps).await;
        }
    }

    /// The answer of a server that has no room for another command.
    pub(super) fn turned_away(&self) -> Vec<Step> {
        self.finish(self.refused(&Refusal::new("server_error", -1)))
    }

    /// Key, then limit. A refused command is not counted into the window.
    fn admit(&self) -> Result<usize, Refusal> {
        let instance = match &self.identified {
            Ok(instance) => *instance,
            Err(refusal) => return Err(Refusal { word: refusal.word.clone(), code: refusal.code.clone() }),
        };
        let world = &self.desk.world;
        let Some(verb) = self.verb else { return Ok(instance) };
        match world.limiter.admit(instance, verb, Instant::now().into_std()) {
            Ok(points) => {
                world.counters.admitted(&self.command, points);
                Ok(instance)
            }
            Err(wait) => {
                world.counters.rate_limited(&self.command);
                // Rounded up: whoever waits exactly as long as told has to be let in.
                let retry_after = i64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
                let code =
                    Value::object([("command", Value::string(verb.name())), ("retry_after", retry_after.into())]);
                Err(Refusal { word: "ratelimit".into(), code })
            }
        }
    }

    fn refused(&self, refusal: &Refusal) -> Outcome {
        Outcome { steps: vec![self.desk.error(refusal)], answered: true }
    }

    /// Does what the command asks for, or what the fault that struck makes of it.
    fn act(&self, instance: usize) -> Outcome {
        let answer = |steps| Outcome { steps, answered: true };
        let silence = |steps| Outcome { steps, answered: false };
        let applied = || self.applied(instance);
        match &self.action {
            // The first two do all they do by waiting, a script is played; those about connecting never strike a command.
            None
            | Some(
                Action::Latency { .. }
                | Action::Late { .. }
                | Action::Script { .. }
                | Action::RefuseConnect
                | Action::HangConnect
                | Action::ConnectError { .. },
            ) => answer(vec![applied()]),
            Some(Action::Hang) => silence(Vec::new()),
            Some(Action::HangAfterApply) => {
                applied();
                silence(Vec::new())
            }
            Some(Action::Duplicate) => {
                let reply = applied();
                answer(vec![reply.clone(), reply])
            }
            Some(Action::CutBeforeApply) => silence(vec![Step::Reset]),
            Some(Action::CutAfterApply) => {
                applied();
                silence(vec![Step::Reset])
            }
            Some(Action::Garbage { kind, instead }) => {
                let reply = applied();
                let garbage = self.garbage(*kind, &reply);
                if *instead { silence(vec![garbage]) } else { answer(vec![garbage, reply]) }
            }
            Some(Action::Unasked { event }) => answer(vec![self.desk.event(event, &Value::object([])), applied()]),
            Some(Action::Error { word, code, and_reply }) => {
                let mut steps = vec![self.desk.error(&refusal(word, code.as_ref()))];
                if *and_reply {
                    steps.push(applied());
                }
                answer(steps)
            }
            Some(Action::ErrorAfterApply { word }) => {
                applied();
                answer(vec![self.desk.error(&Refusal::new(word.clone(), 0))])
            }
            Some(Action::HalfOpen) => silence(vec![Step::Freeze]),
            Some(Action::CloseFrame { code }) => silence(vec![Step::Close(*code)]),
        }
    }

    /// Applies the command and gives its answer.
    fn applied(&self, instance: usize) -> Step {
        let outcome = match (self.verb, self.desk.world.store.lock(instance)) {
            (Some(verb), Some(mut data)) => execute(verb, &self.parameters, &mut data, Timestamp::now()),
            // The vendor documents no word for a command that does not exist.
            _ => Err(Refusal::new("invalid_command", 0)),
        };
        match outcome {
            Ok(Reply { event, parameters, booked }) => {
                if let Some((sale, products)) = booked.filter(|(_, products)| !products.is_empty()) {
                    let slug = self.desk.world.config.instances.get(instance).map_or("", |instance| &instance.slug);
                    self.desk.world.counters.booked(slug, self.desk.shard, sale, products);
                }
                self.desk.event(event, &parameters)
            }
            Err(refusal) => self.desk.error(&refusal),
        }
    }

    fn garbage(&self, kind: Garbage, reply: &Step) -> Step {
        match (kind, reply) {
            (Garbage::Binary, _) => Step::Binary(Bytes::from_static(&[0xff, 0x00, 0xfe, b'}'])),
            (Garbage::NotUtf8, _) => Step::RawText(Bytes::from_static(b"{\"type\":\"event\",\"result\":{\xff")),
            (Garbage::Truncated, Step::Text(text)) => {
                let half = text.chars().count() / 2;
                Step::Text(text.chars().take(half).collect::<String>().into())
            }
            _ => Step::Text(self.desk.world.gibberish().into()),
        }
    }

    /// Ends the command. It is no longer in progress once its answer may be on the way, because the client may send
    /// another as soon as it has it.
    fn finish(&self, outcome: Outcome) -> Vec<Step> {
        if outcome.answered {
            self.desk.world.counters.answered(&self.command);
            self.desk.in_progress.fetch_sub(1, Ordering::AcqRel);
        }
        outcome.steps
    }
}
