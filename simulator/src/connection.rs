//! One connection, from its upgrade to its end: one task that reads, writes, and meets its fate.
//!
//! Like Node's `ws`, it answers pings by itself and ends without ceremony. It never has more than [`MOST_IN_PROGRESS`]
//! commands in progress: it stops reading until one is answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::desk::{Course, Desk, Step};
use super::roster::{Delivery, Fate, Seat};

/// A client that keeps the protocol has one command in progress; a benchmark without manners may have some more.
const MOST_IN_PROGRESS: usize = 256;

/// Answers on their way from tasks to the connection; full, it makes the tasks wait.
const WAITING_ANSWERS: usize = 64;

/// How long a write may take before the client counts as gone.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a close frame may go unanswered.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a half-open connection is kept: longer than any test, so that only clients end it.
const HALF_OPEN_PATIENCE: Duration = Duration::from_mins(10);

/// How a connection ends.
enum Ending {
    /// The client went.
    Gone,
    Reset,
    Frozen,
    Close(u16),
}

/// Runs the connection until its end. Dropping the future ends it as a server that is switched off would.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    desk: Desk,
    mut socket: WebSocketStream<S>,
    mut seat: Seat,
    greeting: Vec<Step>,
    reset: fn(&S),
) {
    match serve(&desk, &mut socket, &mut seat, greeting).await {
        Ending::Gone => {}
        Ending::Reset => reset(socket.get_ref()),
        Ending::Frozen => ignore(socket.into_inner(), &mut seat.fate, reset).await,
        Ending::Close(code) => {
            let frame = CloseFrame { code: code.into(), reason: Utf8Bytes::default() };
            let closing = async {
                // Whether the client still listens changes nothing about the end.
                let _ = socket.close(Some(frame)).await;
                while socket.next().await.is_some_and(|message| message.is_ok()) {}
            };
            let _ = timeout(CLOSE_PATIENCE, closing).await;
        }
    }
}

/// Makes the coming end of `stream` a TCP reset.
pub(super) fn reset(stream: &TcpStream) {
    // Where this fails the client sees an ordinary end, and there is nobody to tell.
    let _ = stream.set_zero_linger();
}

/// Keeps a connection on which nothing is answered any more, until the client gives it up or it is cut. What comes is
/// thrown away rather than left unread, since that is the only way to notice the client's end.
pub(super) async fn ignore<S: AsyncRead + Unpin>(mut stream: S, fate: &mut watch::Receiver<Fate>, reset: fn(&S)) {
    let mut waste = [0; 4_096];
    let patience = sleep(HALF_OPEN_PATIENCE);
    tokio::pin!(patience);
    loop {
        if *fate.borrow_and_update() == Fate::Cut {
            return reset(&stream);
        }
        tokio::select! {
            () = &mut patience => return,
            changed = fate.changed() => if changed.is_err() { return },
            read = stream.read(&mut waste) => if !matches!(read, Ok(1..)) { return },
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    desk: &Desk,
    socket: &mut WebSocketStream<S>,
    seat: &mut Seat,
    greeting: Vec<Step>,
) -> Ending {
    let (answer, mut answers) = mpsc::channel(WAITING_ANSWERS);
    let mut next_delivery = None;
    let mut steps = greeting;
    loop {
        match *seat.fate.borrow_and_update() {
            Fate::Live => {}
            Fate::Frozen => return Ending::Frozen,
            Fate::Cut => return Ending::Reset,
        }
        if !steps.is_empty() {
            // A cut or a freeze must not wait for a client that does not read; what it interrupts is lost with it.
            let performed = tokio::select! {
                biased;
                performed = timeout(WRITE_PATIENCE, perform(socket, std::mem::take(&mut steps))) => performed,
                _ = seat.fate.changed() => continue,
            };
            if let Err(ending) = performed.unwrap_or(Err(Ending::Reset)) {
                return ending;
            }
        }
        let has_room = desk.in_progress.load(Ordering::Acquire) < MOST_IN_PROGRESS;
        // In a fixed order, so that one seed does the same again. None can starve the next: answers and broadcasts are few.
        steps = tokio::select! {
            biased;
            _ = seat.fate.changed() => Vec::new(),
            // This task keeps a sender, so the channel never closes.
            answered = answers.recv() => answered.unwrap_or_default(),
            text = due(&mut next_delivery, &mut seat.deliveries) => vec![Step::Text(text)],
            message = socket.next(), if has_room => match message {
                Some(Ok(Message::Text(text))) => deal(desk, &text, &answer),
                Some(Ok(Message::Binary(bytes))) => deal(desk, &String::from_utf8_lossy(&bytes), &answer),
                Some(Ok(_)) => Vec::new(),
                Some(Err(_)) | None => return Ending::Gone,
            },
        };
    }
}

/// What is to be done about one message right away. What has to wait goes into a task of its own.
fn deal(desk: &Desk, text: &str, answer: &mpsc::Sender<Vec<Step>>) -> Vec<Step> {
    match desk.receive(text) {
        Course::Now(steps) => steps,
        Course::Later(order) => match Arc::clone(&desk.world.waiting).try_acquire_owned() {
            Ok(room) => {
                let (stop, answer) = (desk.world.stop.clone(), answer.clone());
                desk.world.tasks.spawn(async move {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = order.in_time(&answer) => {}
                    }
                    drop(room);
                });
                Vec::new()
            }
            Err(_) => order.turned_away(),
        },
    }
}

async fn perform<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    steps: Vec<Step>,
) -> Result<(), Ending> {
    for step in steps {
        let message = match step {
            Step::Text(text) => Message::Text(text),
            Step::Binary(bytes) => Message::Binary(bytes),
            Step::RawText(bytes) => Message::Frame(Frame::message(bytes, OpCode::Data(Data::Text), true)),
            end => {
                // What was said before the end is still said.
                let _ = socket.flush().await;
                return Err(match end {
                    Step::Close(code) => Ending::Close(code),
                    Step::Freeze => Ending::Frozen,
                    _ => Ending::Reset,
                });
            }
        };
        socket.feed(message).await.map_err(|_| Ending::Gone)?;
    }
    socket.flush().await.map_err(|_| Ending::Gone)
}

/// The next broadcast, when its time has come. Cancel safe: what was taken from the queue waits in `next`.
async fn due(next: &mut Option<Delivery>, deliveries: &mut mpsc::Receiver<Delivery>) -> Utf8Bytes {
    loop {
        if let Some(delivery) = next {
            sleep_until(delivery.due).await;
            let text = delivery.text.clone();
            *next = None;
            return text;
        }
        match deliveries.recv().await {
            Some(delivery) => *next = Some(delivery),
            // The seat was taken away; its fate has been decided.
            None => std::future::pending().await,
        }
    }
}
