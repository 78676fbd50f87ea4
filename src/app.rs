//! The composition root: knows everybody, builds upward, drains downward.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use anyhow::Context;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
