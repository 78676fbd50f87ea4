//! What a cached read costs that another replica passes on to the owner, beside the same read at the owner.
//!
//! Both replicas are processes of this program that know each other from the start, without a database. They are loaded in turn
//! by the same `wrk` with one thread and 64 connections; a round's ratios are taken within the round.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench"
)]

mod support;

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use concertpos_bridge::internals::app::{Among, App};
use concertpos_bridge::internals::cluster::{self, Directory, Forwarding, Listed, Member, Owner, SessionId};
use concertpos_bridge::internals::config::Config;
use concertpos_bridge::internals::shutdown::Shutdown;
use support::{Aim, KEY, Report, Row, Running, free_address, gateway_url, median, simulate, until_answered, wrk};
use uuid::Uuid;

const PATH: &str = "/v1/instances/demo/points-of-sale/1/products";
const ROUNDS: usize = 5;
/// Says to this program that it is a replica: its number, and where all of them listen for each other.
const REPLICA: &str = "BENCH_REPLICA";

/// The replica of this number, of which the first owns the instance.
async fn serve(setup: &str) {
    let mut words = setup.split(' ');
    let me: u128 = words.next().unwrap().parse().unwrap();
    let addresses: Vec<&str> = words.collect();
    let member = |(number, address): (u128, &&str)| Member {
        session: SessionId::from(Uuid::from_u128(number)),
        name: number.to_string().into(),
        address: (**address).into(),
        version: "0".into(),
        format: 1,
        draining: false,
        silent: Duration::ZERO,
        instances: Arc::new([Listed { name: "demo".into(), slug: "demo".into(), digest: "0".into() }]),
    };
    let members: Vec<_> = (0..).zip(&addresses).map(member).collect();
    let listener = TcpListener::bind(addresses[usize::try_from(me).unwrap()]).unwrap();
    let settings = cluster::Config {
        listen: listener.local_addr().unwrap(),
        advertise: listener.local_addr().unwrap().to_string(),
        secret: "one for all".into(),
        tls: None,
        name: me.to_string(),
        lease: Duration::from_secs(6),
        migrate: false,
    };
    let (session, owner) = (members[usize::try_from(me).unwrap()].session, members[0].session);
    let owners = vec![("demo".into(), Owner { session: Some(owner), epoch: 1 })];
    let forwarding = Forwarding::new(&settings, Directory::fixed(session, members, owners)).unwrap();
    let (config, _) = Config::load(None, std::env::vars_os()).unwrap_or_else(|faults| panic!("{faults}"));
    let served = if me == 0 { vec!["demo".to_owned()] } else { Vec::new() };
    let among = Some(Among { cluster: listener, forwarding, owned: served });
    App::build_among(config, Shutdown::new(), among).unwrap().run().await.unwrap();
}

#[tokio::main]
async fn main() {
    if let Ok(setup) = std::env::var(REPLICA) {
        return serve(&setup).await;
    }
    let gateway = free_address();
    let _gateway = simulate(&gateway, &["--limits", "off"]);
    let data = tempfile::tempdir().unwrap();
    let (callers, replicas) = ([free_address(), free_address()], [free_address(), free_address()]);
    let start = |number: usize| {
        let folder = data.path().join(number.to_string());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env(REPLICA, format!("{number} {} {}", replicas[0], replicas[1]))
            .env("BRIDGE_SERVER__LISTEN", &callers[number])
            .env("BRIDGE_GATEWAY__URL", gateway_url(&gateway))
            .env("BRIDGE_INSTANCES__DEMO__API_KEY", KEY)
            .env("BRIDGE_TELEMETRY__LOG", "warn")
            .env("BRIDGE_AUTH__GATEWAY_KEY__MAX_IN_FLIGHT", "1000000")
            .env("BRIDGE_AUTH__GATEWAY_KEY__PER_SECOND", "1000000000")
            .env("BRIDGE_PAYMENTS__JOURNAL", folder.join("journal"))
            .env("BRIDGE_CACHE__STORE", folder.join("cache"))
            .env("BRIDGE_CACHE__LISTPRODUCTS__FRESH", "1h");
        Running::start(&mut command)
    };
    let running = [start(0), start(1)];
    until_answered(&format!("http://{}/readyz?require=gateway", callers[0])).await;
    let http = reqwest::Client::new();
    let mut bodies = Vec::new();
    for address in &callers {
        until_answered(&format!("http://{address}/livez")).await;
        let answer = http.get(format!("http://{address}{PATH}")).bearer_auth(KEY).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        bodies.push(answer.bytes().await.unwrap());
    }
    assert_eq!(bodies[0], bodies[1], "both serve the same");
    measure(&callers, &running).tell();
}

/// Loads both in turn.
fn measure(callers: &[String; 2], running: &[Running; 2]) -> Report {
    let rate = |address: &str, seconds| wrk::load(&format!("http://{address}{PATH}"), seconds, &[]).per_second;
    let used = || running.iter().map(Running::processor_seconds).sum::<f64>();
    let (mut rounds, mut costs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let seconds = if round == 0 { 1 } else { 3 };
        let length = f64::from(u32::try_from(seconds).unwrap());
        let mut figures = [(0.0, 0.0); 2];
        for (address, figure) in callers.iter().zip(&mut figures) {
            let before = used();
            let per_second = rate(address, seconds);
            *figure = (per_second, (used() - before) / (per_second * length));
        }
        // The first round warms all up.
        if round > 0 {
            rounds.push([figures[0].0, figures[1].0]);
            costs.push([figures[0].1, figures[1].1]);
        }
    }
    let of = |figures: &[[f64; 2]], which: usize| median(figures.iter().map(|pair| pair[which]).collect());
    let ratio = |figures: &[[f64; 2]]| median(figures.iter().map(|pair| pair[1] / pair[0]).collect());
    let mut report = Report::new();
    let row = Row::new("forwarded", "cached read through another replica, requests a second", of(&rounds, 1), "/s");
    report.add(row.beside("at the owner", of(&rounds, 0)).ratio(ratio(&rounds)).aim(Aim::AtLeast(0.2)));
    let [direct, passed] = [0, 1].map(|which| 1e6 * of(&costs, which));
    let row = Row::new("forwarded-cost", "… processor time of both replicas a read", passed, "µs");
    report.add(row.beside("at the owner", direct).ratio(ratio(&costs)));
    report
}
