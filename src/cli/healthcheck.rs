//! `healthcheck`: whether a running bridge is ready, for a container that has neither shell nor curl.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

/// A bridge that needs longer than this to say that it is ready is not.
const PATIENCE: Duration = Duration::from_secs(3);

/// Flags of `healthcheck`.
#[derive(Debug, Args)]
pub(super) struct Healthcheck {
    /// Where the bridge listens; by default what `BRIDGE_SERVER__ADMIN_LISTEN` says, else `BRIDGE_SERVER__LISTEN`, else
    /// 127.0.0.1:8080
    #[arg(long, value_name = "ADDR")]
    address: Option<SocketAddr>,
    /// Ask whether it is alive, not whether it is ready
    #[arg(long)]
    live: bool,
}

pub(super) fn run(flags: &Healthcheck) -> anyhow::Result<ExitCode> {
    // The operator's listener first: it never speaks TLS, which this check does not.
    let names = ["BRIDGE_SERVER__ADMIN_LISTEN", "BRIDGE_SERVER__LISTEN"];
    let configured = names.into_iter().find_map(|name| std::env::var(name).ok().map(|text| (name, text)));
    let address = match (flags.address, configured) {
        (Some(address), _) => address,
        (None, Some((name, text))) => text.parse().context(name)?,
        (None, None) => SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
    };
    let path = if flags.live { "/livez" } else { "/readyz" };
    let status = ask(reachable(address), path).with_context(|| format!("http://{address}{path}"))?;
    if status == "200" {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("http://{address}{path} answered {status}");
    Ok(ExitCode::FAILURE)
}

/// Who listens on all addresses is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        other => other,
    }
}

fn ask(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 64];
    let length = stream.read(&mut head)?;
    let head = String::from_utf8_lossy(head.get(..length).unwrap_or_default()).into_owned();
    head.split(' ').nth(1).map(str::to_owned).context("the answer is no HTTP")
}
