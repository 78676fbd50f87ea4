//! Who is connected, to which shard, for which instance; and which shards are alive.
//!
//! Broadcasts and shard deaths reach connections through here, and only through bounded means: each connection has a
//! queue of broadcasts, and one that does not read its queue is cut, as a server under pressure would do.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::printer::Format;

/// Broadcasts waiting for one connection. Beyond it the connection is cut.
const WAITING_BROADCASTS: usize = 4_096;

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Live,
    /// Reads and answers nothing any more.
    Frozen,
    /// Is reset.
    Cut,
}

/// A broadcast on its way to one connection.
pub(super) struct Delivery {
    pub(super) due: Instant,
    pub(super) text: Utf8Bytes,
}

/// A connection's own end of the roster.
pub(super) struct Seat {
    pub(super) id: u64,
    pub(super) deliveries: mpsc::Receiver<Delivery>,
    pub(super) fate: watch::Receiver<Fate>,
}

struct Member {
    shard: usize,
    instance: Option<usize>,
    format: Format,
    deliveries: mpsc::Sender<Delivery>,
    fate: watch::Sender<Fate>,
}

struct State {
    alive: Vec<bool>,
    last_id: u64,
    /// In order, so that one seed gives each the same jitter again.
    members: BTreeMap<u64, Member>,
}

/// The roster, behind one lock: it is taken for connections and broadcasts, never for commands.
pub(super) struct Roster(Mutex<State>);

impl Roster {
    pub(super) fn new(shards: usize) -> Self {
        Self(Mutex::new(State { alive: vec![true; shards], last_id: 0, members: BTreeMap::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seats a new connection; nothing where its shard is dead.
    pub(super) fn join(&self, shard: usize, instance: Option<usize>, format: Format) -> Option<Seat> {
        let mut state = self.lock();
        if !state.alive.get(shard).copied().unwrap_or_default() {
            return None;
        }
        let (deliver, deliveries) = mpsc::channel(WAITING_BROADCASTS);
        let (decide, fate) = watch::channel(Fate::Live);
        state.last_id += 1;
        let id = state.last_id;
        state.members.insert(id, Member { shard, instance, format, deliveries: deliver, fate: decide });
        Some(Seat { id, deliveries, fate })
    }

    pub(super) fn leave(&self, id: u64) {
        self.lock().members.remove(&id);
    }

    pub(super) fn is_alive(&self, shard: usize) -> bool {
        self.lock().alive.get(shard).copied().unwrap_or_default()
    }

    /// Brings a shard to life, or kills it and cuts its connections.
    pub(super) fn set_alive(&self, shard: usize, alive: bool) {
        if let Some(state) = self.lock().alive.get_mut(shard) {
            *state = alive;
        }
        if !alive {
            self.decide(shard, Fate::Cut);
        }
    }

    /// Decides over the connections that a shard has now; later ones are not concerned.
    pub(super) fn decide(&self, shard: usize, fate: Fate) {
        for member in self.lock().members.values().filter(|member| member.shard == shard) {
            // The dead stay dead: what was cut cannot be frozen.
            member.fate.send_if_modified(|now| *now != Fate::Cut && std::mem::replace(now, fate) != fate);
        }
    }

    /// Hands a broadcast to every connection of `instance`, each at its own time, and returns how many there are.
    pub(super) fn broadcast(
        &self,
        instance: usize,
        mut text: impl FnMut(Format) -> Utf8Bytes,
        mut due: impl FnMut() -> Instant,
    ) -> usize {
        let state = self.lock();
        let hears = |member: &&Member| member.instance == Some(instance) && *member.fate.borrow() != Fate::Cut;
        let listeners = state.members.values().filter(hears);
        let mut copies = 0;
        for member in listeners {
            let delivery = Delivery { due: due(), text: text(member.format) };
            if member.deliveries.try_send(delivery).is_ok() {
                copies += 1;
            } else {
                member.fate.send_replace(Fate::Cut);
            }
        }
        copies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shout(roster: &Roster, instance: usize) -> usize {
        roster.broadcast(instance, |_| Utf8Bytes::from_static("x"), Instant::now)
    }

    #[test]
    fn broadcasts_reach_the_instance_on_every_shard_and_nobody_else() {
        let roster = Roster::new(2);
        let mut seats: Vec<_> = [(0, Some(0)), (1, Some(0)), (1, Some(1)), (0, None)]
            .map(|(shard, instance)| roster.join(shard, instance, Format::Json).unwrap())
            .into();
        assert_eq!(shout(&roster, 0), 2);
        assert_eq!(seats.iter_mut().map(|seat| seat.deliveries.len()).collect::<Vec<_>>(), [1, 1, 0, 0]);
        roster.leave(seats[0].id);
        assert_eq!(shout(&roster, 0), 1);
    }

    #[test]
    fn a_dead_shard_cuts_its_connections_and_takes_no_new_ones() {
        let roster = Roster::new(2);
        let seats = [0, 1].map(|shard| roster.join(shard, None, Format::Json).unwrap());
        roster.set_alive(0, false);
        assert_eq!(seats.each_ref().map(|seat| *seat.fate.borrow()), [Fate::Cut, Fate::Live]);
        assert!(roster.join(0, None, Format::Json).is_none());
        roster.decide(0, Fate::Frozen);
        assert_eq!(*seats[0].fate.borrow(), Fate::Cut);
        roster.set_alive(0, true);
        assert!(roster.join(0, None, Format::Json).is_some());
    }

    #[test]
    fn a_connection_that_does_not_read_its_broadcasts_is_cut() {
        let roster = Roster::new(1);
        let seat = roster.join(0, Some(0), Format::Json).unwrap();
        for _ in 0..WAITING_BROADCASTS {
            assert_eq!(shout(&roster, 0), 1);
        }
        assert_eq!(*seat.fate.borrow(), Fate::Live);
        assert_eq!(shout(&roster, 0), 0);
        assert_eq!(*seat.fate.borrow(), Fate::Cut);
    }
}
