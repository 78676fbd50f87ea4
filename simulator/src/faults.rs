//! What can go wrong, on demand.
//!
//! A fault says where it strikes (which command, which shard, which point of sale), how often, and what it does. The
//! first fault in the list that fits and whose dice fall strikes, and only that one, so that a test knows what it got.
//! Faults are made in Rust, as JSON for the control endpoint, and as one word for the command line.

use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// More than any test has needed; what a caller can make the simulator remember has an end.
const MOST_FAULTS: usize = 1_000;

/// What a garbage frame is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Garbage {
    /// A text message that is neither JSON nor JSON5.
    #[default]
    Text,
    /// A binary message that is not even UTF-8.
    Binary,
    /// A text message that is not UTF-8, which the WebSocket protocol forbids.
    NotUtf8,
    /// The first half of the reply.
    Truncated,
}

/// What a fault does. Those about connecting strike when a connection is made, all others when a command arrives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Applies the command at once and answers later.
    Latency {
        /// Milliseconds.
        ms: u64,
    },
    /// Applies the command late and answers then.
    Late {
        /// Milliseconds.
        ms: u64,
    },
    /// Neither applies nor answers the command.
    Hang,
    /// Applies the command and never answers.
    HangAfterApply,
    /// Answers twice.
    Duplicate,
    /// Resets the connection without applying the command.
    CutBeforeApply,
    /// Applies the command and resets the connection instead of answering.
    CutAfterApply,
    /// Sends something that is no frame.
    Garbage {
        /// What it is made of.
        #[serde(default)]
        kind: Garbage,
        /// Whether it takes the place of the reply; otherwise it comes just before.
        #[serde(default)]
        instead: bool,
    },
    /// Sends an event that nobody asked for, just before the reply.
    Unasked {
        /// Its name.
        event: String,
    },
    /// Answers with an error, without applying the command.
    Error {
        /// The error's word.
        word: String,
        /// The error's code; 0 where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<serde_json::Value>,
        /// Whether the server carries on all the same: the command is applied and its reply follows the error.
        #[serde(default)]
        and_reply: bool,
    },
    /// Answers with these frames, one after the other. The command is applied with the first of them that is a reply.
    Script {
        /// The frames.
        frames: Vec<Scripted>,
    },
    /// Applies the command and answers with an error.
    ErrorAfterApply {
        /// The error's word.
        word: String,
    },
    /// Keeps the connection, but reads and answers nothing any more, not even pings.
    HalfOpen,
    /// Closes the connection properly, without applying the command.
    CloseFrame {
        /// The status code of the close frame.
        code: u16,
    },
    /// Resets a new connection once its request was read.
    RefuseConnect,
    /// Accepts a new connection and never answers its upgrade.
    HangConnect,
    /// Sends an error right after connecting.
    ConnectError {
        /// The error's word.
        word: String,
    },
}

/// One frame of a [`Action::Script`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scripted {
    /// Milliseconds after the frame before it.
    #[serde(default)]
    pub after_ms: u64,
    /// What it says.
    pub say: Say,
}

/// What a scripted frame says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Say {
    /// The reply.
    Reply {
        /// What it carries instead of what it should.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parameters: Option<serde_json::Value>,
    },
    /// An error.
    Error {
        /// The error's word.
        word: String,
        /// The error's code; 0 where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<serde_json::Value>,
    },
    /// This text, whatever it is.
    Text(String),
}

impl Action {
    fn is_about_connecting(&self) -> bool {
        matches!(self, Self::RefuseConnect | Self::HangConnect | Self::ConnectError { .. })
    }
}

/// Something that goes wrong. Made by [`Fault::new`] and narrowed from there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The command it strikes; any where none is named. Faults about connecting ignore it.
    #[serde(default)]
    pub command: Option<String>,
    /// The shard it strikes; any where none is named.
    #[serde(default)]
    pub shard: Option<String>,
    /// The point of sale it strikes; any where none is named. Faults about connecting ignore it.
    #[serde(default)]
    pub pos_id: Option<i64>,
    /// How often it strikes; until cleared where not given.
    #[serde(default)]
    pub times: Option<u32>,
    /// The chance of striking each time it fits, from 0 to 1.
    #[serde(default = "certain")]
    pub probability: f64,
    /// What it does.
    pub action: Action,
}

fn certain() -> f64 {
    1.0
}

impl Fault {
    /// A fault that always strikes, everywhere, until cleared.
    #[must_use]
    pub fn new(action: Action) -> Self {
        Self { command: None, shard: None, pos_id: None, times: None, probability: certain(), action }
    }

    /// The same, for one command only.
    #[must_use]
    pub fn on(mut self, command: &str) -> Self {
        self.command = Some(command.to_owned());
        self
    }

    /// The same, on one shard only.
    #[must_use]
    pub fn at(mut self, shard: &str) -> Self {
        self.shard = Some(shard.to_owned());
        self
    }

    /// The same, `times` times only.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Says what is wrong with it, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(format!("a probability is between 0 and 1, not {}", self.probability));
        }
        match self.action {
            // 1005, 1006 and 1015 are reserved by RFC 6455, 7.4.1, and may not be sent.
            Action::CloseFrame { code: 1005 | 1006 | 1015 | 0..1000 | 5000.. } => {
                Err("a close frame's code is between 1000 and 4999 and not reserved".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn fits(&self, occasion: &Occasion<'_>) -> bool {
        let shard_fits = self.shard.as_deref().is_none_or(|shard| shard == occasion.shard);
        shard_fits
            && match occasion.command {
                None => self.action.is_about_connecting(),
                Some((command, pos_id)) => {
                    !self.action.is_about_connecting()
                        && self.command.as_deref().is_none_or(|named| named == command)
                        && (self.pos_id.is_none() || self.pos_id == pos_id)
                }
            }
    }
}

/// `COMMAND[@SHARD]:ACTION[=ARGUMENT][:PROBABILITY[:TIMES]]`, with `*` for any command.
impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (target, action) = (parts.next().unwrap_or_default(), parts.next().ok_or("a fault needs an action")?);
        let mut fault = Self::new(parse_action(action)?);
        let (command, shard) = target.split_once('@').map_or((target, None), |(command, shard)| (command, Some(shard)));
        fault.command = (!matches!(command, "*" | "")).then(|| command.to_owned());
        fault.shard = shard.map(str::to_owned);
        if let Some(probability) = parts.next() {
            fault.probability = probability.parse().map_err(|_| format!("{probability:?} is no probability"))?;
        }
        if let Some(times) = parts.next() {
            fault.times = Some(times.parse().map_err(|_| format!("{times:?} is no number of times"))?);
        }
        match parts.next() {
            Some(more) => Err(format!("{more:?} is one part too many")),
            None => fault.check().map(|()| fault),
        }
    }
}

/// What can stand for an action on the command line.
pub const ACTIONS: &str = "latency=MS, late=MS, hang, hang_after_apply, duplicate, cut_before_apply, cut_after_apply, \
    garbage[=text|binary|not_utf8|truncated], unasked=EVENT, error=WORD, error_after_apply=WORD, half_open, close_frame[=CODE], \
    refuse_connect, hang_connect, connect_error=WORD";

fn unknown_action(name: &str) -> String {
    format!("{name:?} is no action; there are {ACTIONS}")
}

fn parse_action(text: &str) -> Result<Action, String> {
    fn number<T: FromStr>(argument: &str) -> Result<T, String> {
        argument.parse().map_err(|_| format!("{argument:?} is no number that fits here"))
    }
    let (name, argument) = text.split_once('=').map_or((text, None), |(name, argument)| (name, Some(argument)));
    let needed = || argument.ok_or_else(|| format!("{name} needs an argument: {name}=…"));
    Ok(match name {
        "latency" => Action::Latency { ms: number(needed()?)? },
        "late" => Action::Late { ms: number(needed()?)? },
        "close_frame" => Action::CloseFrame { code: argument.map_or(Ok(1000), number)? },
        "garbage" => {
            let kind = match argument {
                None | Some("text") => Garbage::Text,
                Some("binary") => Garbage::Binary,
                Some("not_utf8") => Garbage::NotUtf8,
                Some("truncated") => Garbage::Truncated,
                Some(other) => return Err(format!("garbage is text, binary, not_utf8 or truncated, not {other:?}")),
            };
            Action::Garbage { kind, instead: true }
        }
        "unasked" => Action::Unasked { event: needed()?.to_owned() },
        "error" => Action::Error { word: needed()?.to_owned(), code: None, and_reply: false },
        "error_after_apply" => Action::ErrorAfterApply { word: needed()?.to_owned() },
        "connect_error" => Action::ConnectError { word: needed()?.to_owned() },
        plain => {
            let action = serde_json::from_value(serde_json::Value::from(plain)).map_err(|_| unknown_action(plain))?;
            if argument.is_some() {
                return Err(format!("{plain} takes no argument"));
            }
            action
        }
    })
}

/// A moment at which a fault may strike: a command, with its point of sale, or a new connection.
pub(super) struct Occasion<'a> {
    pub(super) shard: &'a str,
    pub(super) command: Option<(&'a str, Option<i64>)>,
}

/// The faults in force.
#[derive(Default)]
pub(super) struct Faults {
    listed: Mutex<Listed>,
    /// How many are listed, so that a gateway without faults takes no lock for each command.
    count: AtomicUsize,
}

#[derive(Default)]
struct Listed {
    last_id: u64,
    faults: Vec<(u64, Fault)>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a fault behind the others and returns its number. Beyond [`MOST_FAULTS`] the oldest is forgotten.
    pub(super) fn add(&self, fault: Fault) -> u64 {
        let mut listed = self.lock();
        listed.last_id += 1;
        let id = listed.last_id;
        if listed.faults.len() >= MOST_FAULTS {
            listed.faults.remove(0);
        }
        listed.faults.push((id, fault));
        self.count.store(listed.faults.len(), Ordering::Release);
        id
    }

    /// Removes one fault, and says whether it was there.
    pub(super) fn remove(&self, id: u64) -> bool {
        let mut listed = self.lock();
        let before = listed.faults.len();
        listed.faults.retain(|(listed, _)| *listed != id);
        self.count.store(listed.faults.len(), Ordering::Release);
        listed.faults.len() < before
    }

    pub(super) fn clear(&self) {
        let mut listed = self.lock();
        listed.faults.clear();
        self.count.store(0, Ordering::Release);
    }

    /// What strikes on `occasion`, if anything. `dice` gives a number from 0 up to 1.
    pub(super) fn strike(&self, occasion: &Occasion<'_>, mut dice: impl FnMut() -> f64) -> Option<Action> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut listed = self.lock();
        let struck = listed
            .faults
            .iter()
            .position(|(_, fault)| fault.times != Some(0) && fault.fits(occasion) && dice() < fault.probability)?;
        let (_, fault) = listed.faults.get_mut(struck)?;
        let action = fault.action.clone();
        if let Some(times) = &mut fault.times {
            *times -= 1;
            if *times == 0 {
                listed.faults.remove(struck);
                self.count.store(listed.faults.len(), Ordering::Release);
            }
        }
        Some(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(command: &'static str) -> Occasion<'static> {
        Occasion { shard: "exon", command: Some((command, Some(7))) }
    }

    #[test]
    fn a_fault_strikes_where_it_fits_and_only_so_often() {
        let faults = Faults::default();
        faults.add(Fault::new(Action::Hang).on("payitems").at("exon").times(2));
        assert_eq!(faults.strike(&on("listpm"), || 0.0), None);
        assert_eq!(faults.strike(&Occasion { shard: "zeus", ..on("payitems") }, || 0.0), None);
        assert_eq!(faults.strike(&Occasion { shard: "exon", command: None }, || 0.0), None);
        assert_eq!(faults.strike(&on("payitems"), || 0.0), Some(Action::Hang));
        assert_eq!(faults.strike(&on("payitems"), || 0.0), Some(Action::Hang));
        assert_eq!(faults.strike(&on("payitems"), || 0.0), None);
    }

    #[test]
    fn faults_about_connecting_strike_only_there() {
        let faults = Faults::default();
        faults.add(Fault::new(Action::RefuseConnect));
        assert_eq!(faults.strike(&on("payitems"), || 0.0), None);
        assert_eq!(faults.strike(&Occasion { shard: "zeus", command: None }, || 0.0), Some(Action::RefuseConnect));
        faults.clear();
        assert_eq!(faults.strike(&Occasion { shard: "zeus", command: None }, || 0.0), None);
    }

    #[test]
    fn the_dice_and_the_point_of_sale_decide() {
        let faults = Faults::default();
        faults.add(Fault { probability: 0.1, ..Fault::new(Action::Hang) });
        faults.add(Fault { pos_id: Some(8), ..Fault::new(Action::Duplicate) });
        assert_eq!(faults.strike(&on("payitems"), || 0.1), None);
        assert_eq!(faults.strike(&on("payitems"), || 0.09), Some(Action::Hang));
        let other = Occasion { shard: "exon", command: Some(("payitems", Some(8))) };
        assert_eq!(faults.strike(&other, || 0.5), Some(Action::Duplicate));
    }

    #[test]
    fn the_command_line_spells_faults_in_one_word() {
        let fault: Fault = "payitems:cut_after_apply:0.1".parse().unwrap();
        assert_eq!(fault, Fault { probability: 0.1, ..Fault::new(Action::CutAfterApply).on("payitems") });
        let fault: Fault = "*@zeus:late=250:1:3".parse().unwrap();
        assert_eq!(fault, Fault::new(Action::Late { ms: 250 }).at("zeus").times(3));
        let fault: Fault = "*:error=error_exec".parse().unwrap();
        assert_eq!(fault.action, Action::Error { word: "error_exec".into(), code: None, and_reply: false });
        for wrong in [
            "payitems",
            "payitems:nope",
            "*:hang=1",
            "*:late",
            "*:late=x",
            "*:hang:2",
            "*:hang:NaN",
            "*:hang:1:x",
            "*:hang:1:1:1",
            "*:close_frame=1006",
            "*:garbage=odd",
        ] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_actions_that_are_listed_are_those_there_are() {
        for listed in ACTIONS.split(", ") {
            let plain = listed.split(['[', '=']).next().unwrap();
            let spelled = match listed.split_once('=') {
                Some((name, "MS")) => format!("*:{name}=1"),
                Some((name, _)) if !name.contains('[') => format!("*:{name}=word"),
                _ => format!("*:{plain}"),
            };
            assert!(spelled.parse::<Fault>().is_ok(), "{spelled}");
        }
        let told = "*:bogus".parse::<Fault>().unwrap_err();
        assert!(told.contains("cut_after_apply"), "{told}");
        assert_eq!("*:hang=1".parse::<Fault>().unwrap_err(), "hang takes no argument");
    }

    #[test]
    fn json_spells_faults_with_little_ado() {
        let fault: Fault = serde_json::from_str(r#"{"command":"payitems","action":"cut_after_apply"}"#).unwrap();
        assert_eq!(fault, Fault::new(Action::CutAfterApply).on("payitems"));
        let fault: Fault =
            serde_json::from_str(r#"{"times":1,"action":{"error":{"word":"x","code":{"a":1},"and_reply":true}}}"#)
                .unwrap();
        let code = Some(serde_json::json!({"a": 1}));
        assert_eq!(fault.action, Action::Error { word: "x".into(), code, and_reply: true });
        assert!(serde_json::from_str::<Fault>(r#"{"acton":"hang"}"#).is_err());
    }
}
