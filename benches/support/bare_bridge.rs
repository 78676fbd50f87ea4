//! A bridge without promises: an actix-web handler that takes one of some bare sockets, sends the command, waits for the
//! event and answers with its text; then the socket is pinged, as the gateway demands, and put back. It has no callers to
//! know, no budget, no copies, no deadline and no second try. That is the least that a bridge can do for a read.

use std::cell::RefCell;
use std::rc::Rc;

use actix_web::http::header::ContentType;
use actix_web::web::Bytes;
use actix_web::{App, HttpResponse, HttpServer, web};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{Bare, KEY, Running, until_answered, wrapped};

/// Says to a bench that it is to be this bridge, and where: its address, the gateway's, how many sockets, and
/// their read buffers.
const SETUP: &str = "BENCH_BARE_BRIDGE";

const WORKERS: usize = 2;

/// The sockets of one worker thread.
#[derive(Clone)]
struct Sockets {
    free: Rc<RefCell<Vec<Bare>>>,
    /// One for each that is free.
    count: Rc<Semaphore>,
}

impl Sockets {
    async fn open(gateway: &str, count: usize, read_buffer: usize) -> Self {
        let mut free = Vec::new();
        for _ in 0..count {
            free.push(Bare::buffered(gateway, read_buffer).await);
        }
        Self { free: Rc::new(RefCell::new(free)), count: Rc::new(Semaphore::new(count)) }
    }

    async fn ask(&self, command: &str) -> Utf8Bytes {
        self.count.acquire().await.unwrap().forget();
        let mut socket = self.free.borrow_mut().pop().unwrap();
        let reply = socket.reply_to(command).await;
        let sockets = self.clone();
        // The answer does not wait for the ping.
        actix_web::rt::spawn(async move {
            socket.settle().await;
            sockets.free.borrow_mut().push(socket);
            sockets.count.add_permits(1);
        });
        reply
    }
}

async fn transactions(pos_id: web::Path<i64>, sockets: web::Data<Sockets>) -> HttpResponse {
    let reply = sockets.ask(&command(*pos_id)).await;
    HttpResponse::Ok().content_type(ContentType::json()).body(Bytes::from(reply))
}

/// The read, asked of the gateway without a bridge.
pub(crate) fn command(pos_id: i64) -> String {
    format!(r#"{{"command":"listtransactions","parameters":{{"POSID":{pos_id},"Limit":1,"api_key":"{KEY}"}}}}"#)
}

/// Where a bridge, or this one, answers the read.
pub(crate) fn path(pos_id: i64) -> String {
    format!("/v1/instances/demo/points-of-sale/{pos_id}/transactions?limit=1")
}

/// Whether this process was to be the bridge without promises; if so, it has served until it was stopped.
#[must_use]
pub(crate) fn has_served() -> bool {
    let Ok(setup) = std::env::var(SETUP) else { return false };
    let [listen, gateway, links, read_buffer] = setup.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let each = links.parse::<usize>().unwrap() / WORKERS;
    let read_buffer: usize = read_buffer.parse().unwrap();
    let gateway = gateway.to_owned();
    let server = HttpServer::new(move || {
        let gateway = gateway.clone();
        App::new()
            .data_factory(move || {
                let gateway = gateway.clone();
                async move { Ok::<_, ()>(Sockets::open(&gateway, each, read_buffer).await) }
            })
            .route("/v1/instances/demo/points-of-sale/{pos_id}/transactions", web::get().to(transactions))
    });
    let listen = listen.to_owned();
    actix_web::rt::System::new().block_on(async { server.workers(WORKERS).bind(listen).unwrap().run().await.unwrap() });
    true
}

/// Starts it as a process of its own, with `links` sockets to the gateway, each with a read buffer of so many bytes; under
/// `wrapper`, where there is one.
pub(crate) async fn start(listen: &str, gateway: &str, links: usize, read_buffer: usize, wrapper: &[&str]) -> Running {
    let itself = std::env::current_exe().unwrap();
    let mut command = wrapped(wrapper, itself.to_str().unwrap());
    let running = Running::start(command.env(SETUP, format!("{listen} {gateway} {links} {read_buffer}")));
    until_answered(&format!("http://{listen}{}", path(1))).await;
    running
}
