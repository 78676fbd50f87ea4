//! A way to a replica that can break at each point of a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Where the way breaks. A connection begins with a greeting and its answer, which pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    Nowhere,
    /// Each connection is closed as it comes.
    Connecting,
    /// The next request is not passed on.
    Request,
    /// The next request is passed on, and nothing of its answer passes back.
    Answer,
    /// All of it does but its last byte.
    MostOfAnswer,
    /// The connection stays open and silent, from the next request on.
    Silent,
}

struct Shared {
    breaks: Mutex<Break>,
    to: Mutex<Option<SocketAddr>>,
    broken: AtomicUsize,
}

pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    running: JoinHandle<()>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Gate {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (breaks, to) = (Mutex::new(Break::Nowhere), Mutex::new(None));
        let shared = Arc::new(Shared { breaks, to, broken: AtomicUsize::new(0) });
        let for_task = Arc::clone(&shared);
        let running = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                if *for_task.breaks.lock() == Break::Connecting {
                    continue;
                }
                let to = for_task.to.lock().unwrap();
                let Ok(there) = TcpStream::connect(to).await else { continue };
                let ((asked, answering), (answered, asking)) = (socket.into_split(), there.into_split());
                let greeted = Arc::new(AtomicBool::new(false));
                let (shared, is_greeted) = (Arc::clone(&for_task), Arc::clone(&greeted));
                let requests = pass(asked, asking, move |_| shared.next_request(is_greeted.load(Ordering::SeqCst)));
                let shared = Arc::clone(&for_task);
                let answers =
                    pass(answered, answering, move |_| shared.next_answer(greeted.swap(true, Ordering::SeqCst)));
                // The end of one way is the end of both.
                tokio::spawn(async move {
                    tokio::select! { () = requests => {} () = answers => {} }
                });
            }
        });
        Self { address, shared, running }
    }

    pub(crate) fn leads_to(&self, address: SocketAddr) {
        *self.shared.to.lock() = Some(address);
    }

    pub(crate) fn breaks(&self, at: Break) {
        *self.shared.breaks.lock() = at;
    }

    /// How often it broke.
    pub(crate) fn broken(&self) -> usize {
        self.shared.broken.load(Ordering::SeqCst)
    }
}

enum Passes {
    Whole,
    AlmostAll,
    Nothing,
    Waits,
}

impl Shared {
    fn broke(&self) {
        self.broken.fetch_add(1, Ordering::SeqCst);
        *self.breaks.lock() = Break::Nowhere;
    }

    fn next_request(&self, is_greeted: bool) -> Passes {
        let at = *self.breaks.lock();
        match at {
            Break::Request if is_greeted => {
                self.broke();
                Passes::Nothing
            }
            Break::Silent if is_greeted => {
                self.broke();
                Passes::Waits
            }
            _ => Passes::Whole,
        }
    }

    fn next_answer(&self, is_greeted: bool) -> Passes {
        let at = *self.breaks.lock();
        match at {
            Break::Answer if is_greeted => {
                self.broke();
                Passes::Nothing
            }
            Break::MostOfAnswer if is_greeted => {
                self.broke();
                Passes::AlmostAll
            }
            _ => Passes::Whole,
        }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, how: impl Fn(&[u8]) -> Passes) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let length = match how(&piece[..length]) {
            Passes::Whole => length,
            Passes::AlmostAll => {
                let _ = to.write_all(&piece[..length - 1]).await;
                return;
            }
            Passes::Nothing => return,
            Passes::Waits => std::future::pending().await,
        };
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
