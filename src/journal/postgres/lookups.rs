//! Keys that are looked up at the same time share a round trip: whoever's turn it is looks up all that wait.

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, oneshot};

use super::rows::Row;
use super::statements;
use crate::database::{Connection, Error, Statement, Type};
use crate::journal::sale::Key;

/// Keys in one look.
const AT_ONCE: usize = 512;

type Found = Result<Option<Row>, Error>;
type Asked = (Key, oneshot::Sender<Found>);

/// Those that wait: as many at most as there are callers.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    waiting: Mutex<Vec<Asked>>,
    turn: Turn<()>,
}

impl Lookups {
    /// The attempt that decides under this key.
    pub(crate) async fn find(&self, reader: &Connection, key: Key) -> Found {
        let mut heard = self.ask(&key);
        loop {
            let _turn = self.turn.lock().await;
            match heard.try_recv() {
                Ok(found) => return found,
                // Whose turn it was went away before it answered.
                Err(oneshot::error::TryRecvError::Closed) => heard = self.ask(&key),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let asked = self.take();
            let found = look(reader, &asked).await;
            for (key, reply) in asked {
                let of_key = found.as_ref().map(|rows| rows.iter().find(|row| row.key == key).cloned());
                let _ = reply.send(of_key.map_err(Clone::clone));
            }
        }
    }

    fn ask(&self, key: &Key) -> oneshot::Receiver<Found> {
        let (reply, heard) = oneshot::channel();
        self.waiting.lock().push((key.clone(), reply));
        heard
    }

    /// The next ones whose callers still wait.
    fn take(&self) -> Vec<Asked> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|(_, reply)| !reply.is_closed());
        let ready = waiting.len().min(AT_ONCE);
        waiting.drain(..ready).collect()
    }
}

async fn look(reader: &Connection, asked: &[Asked]) -> Result<Vec<Row>, Error> {
    let part = |part: fn(&Key) -> &String| asked.iter().map(|(key, _)| part(key).clone()).collect::<Vec<_>>();
    let wanted = current_of(part(|key| &key.instance), part(|key| &key.caller), part(|key| &key.idempotency_key));
    reader.read(&[wanted]).await?.iter().flatten().map(Row::of).collect()
}

/// Asks for the attempts that decide under many keys.
pub(crate) fn current_of(instances: Vec<String>, callers: Vec<String>, keys: Vec<String>) -> Statement {
    Statement::new(statements::CURRENT_OF_MANY)
        .bind(instances, Type::TEXT_ARRAY)
        .bind(callers, Type::TEXT_ARRAY)
        .bind(keys, Type::TEXT_ARRAY)
}
