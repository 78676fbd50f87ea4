//! Which frame ends which exchange. Pure: frames in, decisions out, no socket and no clock.
//!
//! The gateway has no request ids, answers in any order, and its errors name nothing. So a connection carries one
//! command at a time, and after every frame that ended one, a ping must be answered before the next may start: further
//! frames for the first command then arrive while no command waits. One case cannot be recognized: a second frame for a
//! finished command that the gateway sends only after it answered that ping, while the next command waits for a frame of
//! the same name.
//!
//! The gateway may send an error and book all the same: its handlers send an error and carry on. So an error never ends a
//! payment by itself. It begins a *doubt*: a ping is sent, and only once that was answered and silence followed
//! ([`Exchange::conclude`]) does the payment end with the error. A reply that comes before that wins. After the error the
//! connection is set aside, because a reply that comes on it later belongs to that payment and to no other.

use std::borrow::Cow;

use crate::protocol::{Body, Command, Frame, GatewayError, Kind};

use super::error::Ending;

/// What the waiter of an exchange waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// The command's name: a `ratelimit` that names another is not its answer.
    pub command: Cow<'static, str>,
    /// The event that answers it.
    pub reply_event: Cow<'static, str>,
    /// Decides whether its late reply is listened for.
    pub kind: Kind,
}

impl From<&Command> for Expect {
    fn from(command: &Command) -> Self {
        Self { command: command.name.clone(), reply_event: command.reply_event.clone(), kind: command.kind }
    }
}

/// What a frame means for the connection.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// It ends the exchange: hand it to the waiter, then send the ping of [`Exchange::settle`].
    Ends(Ending),
    /// It is an error about a payment, which ends nothing yet: send a ping with this payload.
    Doubted(u64),
    /// It is the late reply of the payment for which this connection was set aside: pass it on and close.
    Late(Body),
    /// A broadcast: hand it up.
    Up { message: String, parameters: Body },
    /// An event that no command waits for: drop it.
    Stray,
    /// A frame that would end an exchange while no command waits: this connection can no longer be trusted.
    Close(Untrusted),
}

/// Why a connection can no longer be trusted to carry a command.
#[derive(Debug, PartialEq)]
pub enum Untrusted {
    /// A reply to nothing: its event.
    Reply(String),
    Error(GatewayError),
}

/// What an answered ping means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pong {
    /// The next command may start.
    Settled,
    /// The ping after a payment's error was answered: the silence counts from now on.
    Doubted,
    /// Only that the connection is alive.
    Alive,
}

/// What a payment in doubt ended with, after the silence.
#[derive(Debug, PartialEq)]
pub struct Conclusion {
    pub error: GatewayError,
    /// Whether every error that came proves a refusal.
    pub refuses: bool,
}

/// An error came for a payment, and what follows it is waited for.
#[derive(Debug, PartialEq)]
struct Doubt {
    error: GatewayError,
    refuses: bool,
    /// The payload of the ping that was sent after the last error.
    ping: u64,
    answered: bool,
}

impl Doubt {
    /// The doubt after one more error: of several, the one that proves least is kept. `unproven` where an error before the
    /// last silence proved nothing: a later error that proves a refusal does not change that.
    fn with(before: Option<Self>, error: GatewayError, unproven: bool, ping: u64) -> Self {
        let refuses = error.refuses_payment() && !unproven;
        match before {
            Some(before) if !before.refuses || refuses => Self { ping, answered: false, ..before },
            _ => Self { error, refuses, ping, answered: false },
        }
    }
}

#[derive(Debug, PartialEq)]
enum State {
    /// A ping with this payload must be answered before the next command.
    Settling(u64),
    Idle,
    Waiting(Expect, Option<Doubt>),
    /// The waiter was answered; only a late frame of this payment matters.
    SetAside(Expect, Option<Doubt>),
}

/// The state of one connection.
#[derive(Debug)]
pub struct Exchange {
    state: State,
    /// Whether a word that proves nothing was concluded for the payment that this connection is set aside for.
    unproven: bool,
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
        Self { state: State::Idle, unproven: false, pings: 0 }
    }

    /// Whether a command may start.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Registers the waiter; to be called before the command is written. False where a command may not start now.
    #[must_use]
    pub fn start(&mut self, expect: Expect) -> bool {
        let may_start = self.is_idle();
        if may_start {
            self.state = State::Waiting(expect, None);
            self.unproven = false;
        }
        may_start
    }

    /// Lets no command start until the ping whose payload this returns is answered.
    pub fn settle(&mut self) -> u64 {
        self.pings += 1;
        self.state = State::Settling(self.pings);
        self.pings
    }

    /// The payload of a ping that only asks whether the connection is alive; commands may go on.
    pub fn probe(&mut self) -> u64 {
        self.pings += 1;
        self.pings
    }

    pub fn pong(&mut self, payload: u64) -> Pong {
        match &mut self.state {
            State::Settling(ping) if *ping == payload => {
                self.state = State::Idle;
                Pong::Settled
            }
            State::Waiting(_, Some(doubt)) | State::SetAside(_, Some(doubt))
                if doubt.ping == payload && !doubt.answered =>
            {
                doubt.answered = true;
                Pong::Doubted
            }
            _ => Pong::Alive,
        }
    }

    /// The waiter gave up. Returns whether to listen for a late reply: after a payment; any other connection is to be
    /// closed.
    #[must_use]
    pub fn give_up(&mut self) -> bool {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Waiting(expect, doubt) if expect.kind == Kind::Payment => {
                self.state = State::SetAside(expect, doubt);
                true
            }
            _ => false,
        }
    }

    /// The silence after an error is over: what the payment ended with. The connection is set aside from now on. `None`
    /// where no payment is in doubt, or the ping that follows its last error was not answered.
    pub fn conclude(&mut self) -> Option<Conclusion> {
        let (State::Waiting(_, doubt) | State::SetAside(_, doubt)) = &mut self.state else { return None };
        let Doubt { error, refuses, .. } = doubt.take_if(|doubt| doubt.answered)?;
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Waiting(expect, doubt) => State::SetAside(expect, doubt),
            state => state,
        };
        self.unproven |= !refuses;
        Some(Conclusion { error, refuses })
    }

    /// The error of a payment that is in doubt at this moment.
    #[must_use]
    pub fn doubted(&self) -> Option<&GatewayError> {
        match &self.state {
            State::Waiting(_, Some(doubt)) | State::SetAside(_, Some(doubt)) => Some(&doubt.error),
            _ => None,
        }
    }

    /// Takes one frame. After [`Step::Ends`] the caller must [`settle`](Self::settle).
    pub fn frame(&mut self, frame: Frame) -> Step {
        let frame = match frame {
            Frame::Broadcast { message, parameters } => return Step::Up { message, parameters },
            Frame::Command => return Step::Stray,
            other => other,
        };
        let waits = matches!(self.state, State::Waiting(..));
        match &mut self.state {
            State::Waiting(expect, doubt) | State::SetAside(expect, doubt) => match ending(frame, expect) {
                None => Step::Stray,
                Some(Ending::Error(error)) if expect.kind == Kind::Payment => {
                    self.pings += 1;
                    *doubt = Some(Doubt::with(doubt.take(), error, self.unproven, self.pings));
                    Step::Doubted(self.pings)
                }
                Some(Ending::Reply(body)) if !waits => Step::Late(body),
                Some(ending) => Step::Ends(ending),
            },
            State::Idle | State::Settling(_) => unexpected(frame),
        }
    }
}

/// The ending in `frame`, if it ends what `expect` waits for.
fn ending(frame: Frame, expect: &Expect) -> Option<Ending> {
    match frame {
        Frame::Event { event, parameters } if event == expect.reply_event => {
            let may_be_failure = expect.kind == Kind::Payment;
            let failure = may_be_failure.then(|| GatewayError::of_failed_reply(&event, &parameters)).flatten();
            Some(failure.map_or(Ending::Reply(parameters), Ending::Error))
        }
        Frame::Error(error) if !error.is_rate_limit_of_another(&expect.command, &expect.reply_event) => {
            Some(Ending::Error(error))
        }
        _ => None,
    }
}

/// While no command waits, an error or the reply of any known command is one frame too many.
fn unexpected(frame: Frame) -> Step {
    match frame {
        Frame::Error(error) => Step::Close(Untrusted::Error(error)),
        Frame::Event { event, .. } if crate::protocol::command::TABLE.iter().any(|spec| spec.reply_event == event) => {
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
    use crate::protocol::Format;
    use crate::protocol::frame::decode;

    fn expect(name: &str, kind: Kind) -> Expect {
        Expect { command: name.to_owned().into(), reply_event: name.to_owned().into(), kind }
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
        assert_eq!(exchange.pong(payload + 1), Pong::Alive);
        assert_eq!(exchange.pong(payload), Pong::Settled);
        assert!(exchange.start(expect("listpm", Kind::Read)));
    }

    #[test]
    fn no_ping_has_the_payload_of_another_so_that_a_late_pong_settles_nothing() {
        let mut exchange = Exchange::new();
        let payloads = [exchange.settle(), exchange.probe(), exchange.probe(), exchange.settle()];
        assert!((1..payloads.len()).all(|at| !payloads[..at].contains(&payloads[at])), "{payloads:?}");
        for earlier in &payloads[..3] {
            assert_eq!(exchange.pong(*earlier), Pong::Alive);
        }
        assert_eq!(exchange.pong(payloads[3]), Pong::Settled);
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
        assert!(matches!(exchange.frame(event("payitem", 1)), Step::Late(_)));
    }

    fn payment() -> Exchange {
        let mut exchange = Exchange::new();
        let expect = Expect { command: "payitems".into(), reply_event: "payitem".into(), kind: Kind::Payment };
        assert!(exchange.start(expect));
        exchange
    }

    fn error(word: &str) -> Frame {
        Frame::Error(GatewayError::word(word))
    }

    fn doubted(exchange: &mut Exchange, frame: Frame) -> u64 {
        match exchange.frame(frame) {
            Step::Doubted(ping) => ping,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_error_ends_a_payment_only_once_its_ping_was_answered_and_silence_followed() {
        let mut exchange = payment();
        let ping = doubted(&mut exchange, rate_limit("payitems"));
        assert_eq!(exchange.conclude(), None, "the ping was not answered");
        assert_eq!(exchange.pong(ping + 1), Pong::Alive);
        assert_eq!(exchange.pong(ping), Pong::Doubted);
        assert!(exchange.conclude().is_some_and(|conclusion| conclusion.refuses));
        assert!(!exchange.start(expect("listpm", Kind::Read)), "it is set aside");
        assert!(matches!(exchange.frame(event("payitem", 1)), Step::Late(_)), "what comes later is its own");
    }

    #[test]
    fn a_reply_after_the_error_wins() {
        for answered in [false, true] {
            let mut exchange = payment();
            let ping = doubted(&mut exchange, error("invalid_password"));
            if answered {
                exchange.pong(ping);
            }
            assert!(matches!(exchange.frame(event("payitem", 1)), Step::Ends(Ending::Reply(_))));
            let settling = exchange.settle();
            assert_eq!(exchange.pong(ping), Pong::Alive, "the first ping settles nothing");
            assert_eq!(exchange.pong(settling), Pong::Settled);
        }
    }

    #[test]
    fn of_several_errors_the_one_that_proves_least_is_told_and_each_begins_the_silence_anew() {
        for words in [["invalid_password", "error_exec"], ["error_exec", "invalid_password"]] {
            let mut exchange = payment();
            let first = doubted(&mut exchange, error(words[0]));
            exchange.pong(first);
            let second = doubted(&mut exchange, error(words[1]));
            assert_eq!(exchange.conclude(), None, "the second ping was not answered");
            assert_eq!(exchange.pong(first), Pong::Alive);
            assert_eq!(exchange.pong(second), Pong::Doubted);
            let conclusion = Conclusion { error: GatewayError::word("error_exec"), refuses: false };
            assert_eq!(exchange.conclude(), Some(conclusion));
        }
    }

    #[test]
    fn of_several_errors_that_prove_as_much_the_first_is_told() {
        for words in [["invalid_password", "getlicense"], ["error_exec", "server_error"]] {
            let mut exchange = payment();
            doubted(&mut exchange, error(words[0]));
            let second = doubted(&mut exchange, error(words[1]));
            exchange.pong(second);
            assert_eq!(exchange.conclude().unwrap().error, GatewayError::word(words[0]));
        }
    }

    #[test]
    fn a_refusal_after_a_word_that_proves_nothing_proves_nothing_however_much_later_it_comes() {
        let mut exchange = payment();
        let first = doubted(&mut exchange, error("error_exec"));
        exchange.pong(first);
        assert!(exchange.conclude().is_some_and(|conclusion| !conclusion.refuses));
        let second = doubted(&mut exchange, error("getlicense"));
        exchange.pong(second);
        assert!(exchange.conclude().is_some_and(|conclusion| !conclusion.refuses));
    }

    #[test]
    fn a_reply_that_says_it_failed_proves_nothing() {
        let frame = |parameters: &str| {
            let text = format!(r#"{{"type":"event","result":{{"event":"payitem","parameters":{parameters}}}}}"#);
            decode(&text, Format::Json).unwrap()
        };
        let mut exchange = payment();
        let ping = doubted(&mut exchange, frame(r#"{"success":false,"Items":1}"#));
        exchange.pong(ping);
        assert!(exchange.conclude().is_some_and(|conclusion| !conclusion.refuses));
        assert!(matches!(payment().frame(frame(r#"{"success":true,"Items":1}"#)), Step::Ends(_)));
    }

    #[test]
    fn a_limit_that_names_the_reply_event_is_the_payments_own() {
        let mut exchange = payment();
        let ping = doubted(&mut exchange, rate_limit("payitem"));
        exchange.pong(ping);
        assert!(exchange.conclude().is_some_and(|conclusion| conclusion.refuses));
        assert_eq!(payment().frame(rate_limit("listpm")), Step::Stray);
    }

    /// What may happen on a connection that carries a payment.
    #[derive(Debug, Clone, Copy)]
    enum Happening {
        Refusal,
        Unclear,
        Reply,
        /// The newest ping is answered.
        Pong,
        /// The silence is over.
        Silence,
        Timeout,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        use Happening::{Pong, Refusal, Reply, Silence, Timeout, Unclear};
        prop::sample::select(vec![Refusal, Unclear, Reply, Pong, Pong, Silence, Silence, Timeout])
    }

    proptest! {
        /// A payment is told refused only where each frame for it so far is a refusal, the ping after the last of them
        /// was answered, and nothing came between that and the silence.
        #[test]
        fn only_refusals_an_answered_ping_and_silence_prove_a_refusal(
            happenings in prop::collection::vec(happening(), 1..12)
        ) {
            let mut exchange = payment();
            let (mut newest, mut answered, mut refusals_only, mut waits) = (0, false, true, true);
            for happening in happenings {
                match happening {
                    Happening::Refusal | Happening::Unclear => {
                        let word = if matches!(happening, Happening::Refusal) { "getlicense" } else { "error_exec" };
                        refusals_only &= word == "getlicense";
                        (newest, answered) = (doubted(&mut exchange, error(word)), false);
                    }
                    Happening::Reply => {
                        let step = exchange.frame(event("payitem", 1));
                        let is_right = if waits { matches!(step, Step::Ends(_)) } else { matches!(step, Step::Late(_)) };
                        prop_assert!(is_right, "{step:?}");
                        return Ok(());
                    }
                    Happening::Pong => {
                        let pong = exchange.pong(newest);
                        prop_assert_eq!(pong == Pong::Doubted, newest > 0 && !answered);
                        answered = newest > 0;
                    }
                    Happening::Silence => {
                        let in_doubt = exchange.doubted().is_some();
                        let conclusion = exchange.conclude();
                        prop_assert_eq!(conclusion.is_some(), in_doubt && answered);
                        if let Some(conclusion) = conclusion {
                            prop_assert_eq!(conclusion.refuses, refusals_only);
                            (waits, newest, answered) = (false, 0, false);
                        }
                    }
                    Happening::Timeout if waits => {
                        prop_assert!(exchange.give_up());
                        waits = false;
                    }
                    Happening::Timeout => {}
                }
                prop_assert!(!exchange.is_idle());
            }
        }
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
                prop_assert!(ping.is_some_and(|payload| exchange.pong(payload) == Pong::Settled));
            }
        }
    }
}
