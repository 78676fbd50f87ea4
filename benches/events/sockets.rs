//! Bare sockets, in a process of their own: the least that it can cost to send the same bytes to each of a crowd.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Running;

/// Says to this program that it is the bare sockets, how many, and where.
pub(crate) const SOCKETS: &str = "BENCH_BARE_SOCKETS";

/// The bare sockets as they are seen from outside.
pub(crate) struct Sockets {
    _process: Running,
    orders: TcpStream,
}

impl Sockets {
    /// Starts to accept `count` connections at `address`.
    pub(crate) async fn start(address: &str, count: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let process = Running::start(command.env(SOCKETS, format!("{address} {count}")));
        let orders = loop {
            match TcpStream::connect(address).await {
                Ok(orders) => break orders,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        Self { _process: process, orders }
    }

    /// Waits until all are connected.
    pub(crate) async fn until_connected(&mut self) {
        self.orders.read_u8().await.unwrap();
    }

    /// Writes this to each.
    pub(crate) async fn tell(&mut self, bytes: &[u8]) {
        self.orders.write_all(bytes).await.unwrap();
    }
}

/// What the process does: writes to all whatever comes on the first connection, by two threads.
pub(crate) fn be_sockets(setup: &str) {
    let (address, count) = setup.split_once(' ').unwrap();
    let listener = TcpListener::bind(address).unwrap();
    rustix::net::listen(&listener, 4096).unwrap();
    let (mut orders, _) = listener.accept().unwrap();
    let count: usize = count.parse().unwrap();
    let mut sockets: Vec<_> = (0..count).map(|_| listener.accept().unwrap().0).collect();
    for socket in &sockets {
        socket.set_nodelay(true).unwrap();
    }
    orders.write_all(b"\n").unwrap();
    let mut told = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = orders.read(&mut told) {
        let (one, other) = sockets.split_at_mut(count / 2);
        std::thread::scope(|scope| {
            for half in [one, other] {
                let told = &told[..length];
                scope.spawn(move || half.iter_mut().for_each(|socket| socket.write_all(told).unwrap()));
            }
        });
    }
}
