//! `healthcheck`: whether a running bridge is ready, for a container that has neither shell nor curl.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::config::DEFAULT_LISTEN;
use crate::settings::Settings;

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
    let address = flags.address.map_or_else(configured, Ok)?;
    let path = if flags.live { "/livez" } else { "/readyz" };
    let status = ask_any(&reachable(address), path).with_context(|| format!("http://{address}{path}"))?;
    if status == "200" {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("http://{address}{path} answered {status}");
    Ok(ExitCode::FAILURE)
}

/// Where a bridge with this environment listens, read as the bridge itself reads it.
fn configured() -> anyhow::Result<SocketAddr> {
    let mut settings = Settings::load(None, std::env::vars_os())?;
    let mut root = settings.root();
    let mut server = root.section("server");
    let before = server.errors();
    let admin = server.optional("admin_listen");
    let listen = server.get("listen", DEFAULT_LISTEN);
    anyhow::ensure!(
        server.errors() == before,
        "BRIDGE_SERVER__LISTEN or BRIDGE_SERVER__ADMIN_LISTEN is no address with a port"
    );
    Ok(admin.unwrap_or(listen))
}

/// Where to ask one who listens on `address`: on all addresses means on loopback, of IPv4 too where there is no IPv6.
fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    let (port, v4) = (address.port(), SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())));
    match address {
        SocketAddr::V4(any) if any.ip().is_unspecified() => vec![v4],
        SocketAddr::V6(any) if any.ip().is_unspecified() => vec![(Ipv6Addr::LOCALHOST, port).into(), v4],
        other => vec![other],
    }
}

/// The answer of the first that can be connected to.
fn ask_any(addresses: &[SocketAddr], path: &str) -> anyhow::Result<String> {
    let mut answer = Err(anyhow::anyhow!("there is no address"));
    for address in addresses {
        answer = ask(*address, path);
        if answer.is_ok() {
            break;
        }
    }
    answer
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_on_all_addresses_is_asked_on_loopback_of_both_kinds() {
        let asked = |text: &str| reachable(text.parse().unwrap()).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(asked("0.0.0.0:80"), ["127.0.0.1:80"]);
        assert_eq!(asked("[::]:80"), ["[::1]:80", "127.0.0.1:80"]);
        assert_eq!(asked("192.0.2.1:80"), ["192.0.2.1:80"]);
    }
}
