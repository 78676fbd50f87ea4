//! Which frame ends which exchange. Pure: frames in, decisions out, no socket and no clock.
//!
//! The gateway has no request ids, answers in any order, and its errors name nothing. So a connection carries one
//! command at a time, and after every frame that ended one, a ping must come back before the next may start: what the
//! gateway still had to say about the first command then finds nobody. One thing cannot be told apart even so: a
//! second frame for a finished command that the gateway sends only after it answered that ping, while the next
//! command waits for a frame of the same name.

use crate::wire::{Body, Command, Frame, GatewayError, Kind};

use super::error::Ending;

/// What the waiter of an exchange waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// The command's name: a `ratelimit` that names another is not its answer.
    pub command: String,
    /// The event that answers it.
    pub reply_event: String,
    /// Whether its late reply is worth listening for.
    pub kind: Kind,
}

impl From<&Command> for Expect {
    fn from(command: &Command) -> Self {
        Self {
            command: command.name.clone().into_owned(),
            reply_event: command.reply_event.clone().into_owned(),
            kind: command.kind,
        }
    }
}

/// What a frame means for the connection.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// It ends the exchange: hand it to the waiter, then send the ping of [`Exchange::settle`].
    Ends(Ending),
    /// It is the late reply of the command for which this connection was set aside: pass it on and close.
    Late(Ending),
    /// A broadcast: hand it up.
    Up {
        /// The broadcast's name or text.
        message: String,
        /// What it carries.
        parameters: Body,
    },
    /// An event nobody waits for: count and drop it.
    Stray,
    /// A frame that would end an exchange, with nobody waiting: this connection can no longer be trusted.
    Close(Untrusted),
}

/// Why a connection can no longer be trusted to carry a command.
#[derive(Debug, PartialEq)]
pub enum Untrusted {
    /// A reply to nothing: its event.
    Reply(String),
    /// An error about nothing.
    Error(GatewayError),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// A ping with this payload must be answered before the next command.
    Settling(u64),
    Idle,
    Waiting(Expect),
    /// The waiter gave up; only the late reply matters now.
    SetAside(Expect),
}

/// The state of one connection.
#[derive(Debug)]
pub struct Exchange {
    state: State,
    pings: u64,
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}

impl Exchange {
    /// A fresh connection, on which nothing waits.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Idle, pings: 0 }
    }

    /// Whether a command may start.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether a command waits for its reply.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }

    /// Registers the waiter; to be called before the command is written. False where a command may not start now.
    #[must_use]
    pub fn start(&mut self, expect: Expect) -> bool {
        let may_start = self.is_idle();
        if may_start {
            self.state = State::Waiting(expect);
        }
        may_start
    }

    /// Closes the door until the ping whose payload this returns is answered.
    pub fn settle(&mut self) -> u64 {
        self.pings += 1;
        self.state = State::Settling(self.pings);
        self.pings
    }

    /// The payload of a ping that only asks whether the gateway is there; commands may go on.
    pub fn probe(&mut self) -> u64 {
        self.pings += 1;
        self.pings
    }

    /// A ping was answered. True when the next command may start.
    pub fn pong(&mut self, payload: u64) -> bool {
        let settled = self.state == State::Settling(payload);
        if settled {
            self.state = State::Idle;
        }
        settled
    }

    /// The waiter gave up. Returns whether the connection is worth listening to for a late reply: a payment's is, any
    /// other is to be closed.
    #[must_use]
    pub fn give_up(&mut self) -> bool {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Waiting(expect) if expect.kind == Kind::Payment => {
                self.state = State::SetAside(expect);
                true
            }
            _ => false,
        }
    }

    /// Takes one frame. After [`Step::Ends`] the caller must [`settle`](Self::settle).
    pub fn frame(&mut self, frame: Frame) -> Step {
        let frame = match frame {
            Frame::Broadcast { message, parameters } => return Step::Up { message, parameters },
            Frame::Command => return Step::Stray,
            other => other,
        };
        match &self.state {
            State::Waiting(expect) => ending(frame, expect).map_or(Step::Stray, Step::Ends),
            State::SetAside(expect) => ending(frame, expect).map_or(Step::Stray, Step::Late),
            State::Idle | State::Settling(_) => unexpected(frame),
        }
    }
}

/// The ending in `frame`, if it ends what `expect` waits for.
fn ending(frame: Frame, expect: &Expect) -> Option<Ending> {
    match frame {
        Frame::Event { event, parameters } if event == expect.reply_event => Some(Ending::Reply(parameters)),
        Frame::Error(error) if !error.is_rate_limit_of_another(&expect.command) => Some(Ending::Error(error)),
        _ => None,
    }
}

/// With nobody waiting, an error or the reply of any known command is one frame too many.
fn unexpected(frame: Frame) -> Step {
    match frame {
        Frame::Error(error) => Step::Close(Untrusted::Error(error)),
        Frame::Event { event, .. } if crate::wire::command::TABLE.iter().any(|spec| spec.reply_event == event) => {
            Step::Close(Untrusted::Reply(event))
        }
        _ => Step::Stray,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::Format;
    use crate::wire::frame::decode;

    fn expect(name: &str, kind: Kind) -> Expect {
        Expect { command: name.into(), reply_event: name.into(), kind }
    }

    fn event(name: &str, tag: usize) -> Frame {
        let text = format!(r#"{{"type":"event","result":{{"event":"{name}","parameters":{{"tag":{tag}}}}}}}"#);
        decode(&text, Format::Json).unwrap()
    }

    fn rate_limit(command: &str) -> Frame {
        let code = format!(r#"{{"command":"{command}","retry_after":5}}"#);
        let text = format!(r#"{{"type":"error","result":{{"error":"ratelimit","code":{code}}}}}"#);
        decode(&text, Format::Json).unwrap()
    }

    fn waiting(name: &str, kind: Kind) -> Exchange {
        let mut exchange = Exchange::new();
        assert!(exchange.start(expect(name, kind)));
        exchange
    }

    #[test]
    fn another_event_does_not_end_an_exchange_and_its_own_does() {
        let mut exchange = waiting("listpm", Kind::Read);
        assert_eq!(exchange.frame(event("session", 0)), Step::Stray);
        assert_eq!(exchange.frame(event("listproducts", 0)), Step::Stray);
        assert!(matches!(exchange.frame(event("listpm", 1)), Step::Ends(Ending::Reply(_))));
    }

    #[test]
    fn a_rate_limit_of_another_command_is_stray_and_its_own_is_the_answer() {
        let mut exchange = waiting("listpm", Kind::Read);
        assert_eq!(exchange.frame(rate_limit("version")), Step::Stray);
        assert!(matches!(exchange.frame(rate_limit("listpm")), Step::Ends(Ending::Error(_))));
    }

    #[test]
    fn nothing_starts_before_the_ping_is_answered_by_its_own_pong() {
        let mut exchange = waiting("listpm", Kind::Read);
        let payload = exchange.settle();
        assert!(!exchange.start(expect("listpm", Kind::Read)));
        assert!(!exchange.pong(payload + 1));
        assert!(exchange.pong(payload));
        assert!(exchange.start(expect("listpm", Kind::Read)));
    }

    #[test]
    fn an_ending_frame_with_nobody_waiting_closes_the_link_whether_settling_or_idle() {
        let mut exchange = waiting("listpm", Kind::Read);
        let payload = exchange.settle();
        assert!(matches!(exchange.frame(event("listpm", 1)), Step::Close(_)));
        exchange.pong(payload);
        assert!(matches!(exchange.frame(Frame::Error(GatewayError::word("invalid_instance"))), Step::Close(_)));
        assert_eq!(exchange.frame(event("session", 1)), Step::Stray);
    }

    #[test]
    fn only_a_payment_is_worth_listening_for_and_its_late_reply_is_recognised() {
        assert!(!waiting("listpm", Kind::Read).give_up());
        assert!(!waiting("anything", Kind::Raw).give_up());
        let mut exchange = waiting("payitem", Kind::Payment);
        assert!(exchange.give_up());
        assert!(!exchange.start(expect("listpm", Kind::Read)));
        assert!(matches!(exchange.frame(event("payitem", 1)), Step::Late(Ending::Reply(_))));
    }

    /// What a gateway may put on the wire for one command, before it answers the ping that follows.
    #[derive(Debug, Clone)]
    struct Turn {
        command: &'static str,
        unasked: Vec<&'static str>,
        error_instead: bool,
        second_frame: bool,
    }

    fn turn() -> impl Strategy<Value = Turn> {
        let name = prop::sample::select(vec!["listpm", "listproducts", "getconfig"]);
        let unasked = prop::collection::vec(prop::sample::select(vec!["session", "hello", "version"]), 0..3);
        (name, unasked, any::<bool>(), any::<bool>()).prop_map(|(command, unasked, error_instead, second_frame)| Turn {
            command,
            unasked,
            error_instead,
            second_frame,
        })
    }

    proptest! {
        /// Whatever the gateway adds before it answers the settling ping, each command gets its own first ending
        /// frame or the link is closed: a frame of one command never reaches the next.
        #[test]
        fn a_frame_of_one_command_never_ends_another(turns in prop::collection::vec(turn(), 1..20)) {
            let mut exchange = Exchange::new();
            'turns: for (tag, turn) in turns.iter().enumerate() {
                prop_assert!(exchange.start(expect(turn.command, Kind::Read)));
                let mut wire: VecDeque<Frame> = turn.unasked.iter().map(|name| event(name, 999)).collect();
                let error = Frame::Error(GatewayError { error: tag.to_string(), ..GatewayError::word("x") });
                let reply = event(turn.command, tag);
                let endings = if turn.error_instead { [error, reply] } else { [reply, error] };
                wire.extend(endings.into_iter().take(1 + usize::from(turn.second_frame)));
                let mut ping = None;
                for frame in wire {
                    match exchange.frame(frame) {
                        Step::Ends(ending) => {
                            prop_assert!(ping.is_none(), "ended twice");
                            match ending {
                                Ending::Reply(body) => prop_assert_eq!(body.as_str(), format!(r#"{{"tag":{tag}}}"#)),
                                Ending::Error(error) => prop_assert_eq!(error.error, tag.to_string()),
                            }
                            ping = Some(exchange.settle());
                        }
                        Step::Close(_) => break 'turns,
                        Step::Stray => {}
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                prop_assert!(ping.is_some_and(|payload| exchange.pong(payload)));
            }
        }
    }
}
