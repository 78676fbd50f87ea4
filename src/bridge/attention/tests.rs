use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::bridge::sales::RecentSales;
use crate::bridge::status::{ClusterStatus, PaymentCounts, ServiceState};
use crate::budget::WindowStatus;
use crate::budget::metrics::RecentAsks;
use crate::gateway::metrics::RecentExchanges;
use crate::gateway::{Fault, LinkState, LinkStatus};

fn shard(name: &str, links: usize) -> ShardStatus {
    ShardStatus {
        shard: name.to_owned(),
        good: true,
        in_doubt: false,
        cordoned: false,
        failures: 0,
        round_trip_us: None,
        last_fault: None,
        links: (0..links)
            .map(|link| LinkStatus { link: link as u64, state: LinkState::Free, open_seconds: 1 })
            .collect(),
    }
}

fn instance() -> InstanceStatus {
    InstanceStatus {
        instance: "fest".to_owned(),
        waiting: 0,
        shards: vec![shard("exon", 1), shard("cyton", 1), shard("zeus", 0)],
        budgets: Vec::new(),
        contradictions: 0,
        unlinked_since_ms: None,
        denied: None,
        sales: RecentSales::default(),
        asks: RecentAsks::default(),
        exchanges: RecentExchanges::default(),
        in_use: true,
    }
}

fn well() -> BridgeStatus {
    BridgeStatus {
        version: "0",
        uptime_seconds: 1,
        state: ServiceState::Serving,
        whole: true,
        instances: vec![instance()],
        cache: None,
        payments: Some(PaymentCounts::default()),
        payments_by_instance: BTreeMap::new(),
        disk: Some(DiskStatus { journal_available: true, free_bytes: Some(1 << 40), ..DiskStatus::default() }),
        callers: Some(CallerStatus::default()),
        cluster: None,
        subscribers: Some(0),
    }
}

fn changed(change: impl FnOnce(&mut InstanceStatus)) -> Vec<Finding> {
    let mut status = well();
    change(&mut status.instances[0]);
    findings(&status)
}

fn on_disk(change: impl FnOnce(&mut DiskStatus)) -> Vec<Finding> {
    let mut status = well();
    change(status.disk.as_mut().unwrap());
    findings(&status)
}

/// The codes that are found, and the words of the first.
fn told(found: &[Finding]) -> (Vec<(&'static str, Severity)>, &str) {
    let codes = found.iter().map(|one| (one.code, one.severity)).collect();
    (codes, found.first().map_or("", |one| one.words.as_str()))
}

fn fault(kind: FaultKind, words: &str) -> Fault {
    Fault { words: words.to_owned(), kind, at: Instant::now() }
}

use Severity::{Critical, Info, Warning};

#[test]
fn a_bridge_that_is_well_needs_no_attention() {
    assert_eq!(findings(&well()), []);
}

#[test]
fn a_start_at_which_no_attempt_has_failed_yet_needs_no_attention_and_one_that_failed_does() {
    let start = |last_fault: Option<Fault>| {
        changed(|one| {
            one.shards = vec![shard("exon", 0)];
            one.shards[0].last_fault = last_fault;
            one.unlinked_since_ms = Some(5);
        })
    };
    assert_eq!(start(None), []);
    let found = start(Some(fault(FaultKind::Other, "Connection refused (os error 111)")));
    assert_eq!(
        found[0].words,
        "No link to the gateway for fest: nothing can be sold; old replies are still served. exon says: Connection refused (os error 111)."
    );
    assert_eq!((found[0].code, found[0].since_ms, found[0].instance.as_deref()), ("no-links", Some(5), Some("fest")));
}

#[test]
fn a_refused_key_and_a_refused_licence_are_critical_and_name_the_gateways_word() {
    for (denial, code, what) in [(Denial::Key, "key-refused", "key"), (Denial::License, "license-invalid", "licence")] {
        let (word, command) = ("some_word".to_owned(), "payitems".to_owned());
        let found = changed(|one| one.denied = Some(AccessDenied { denial, word, command, since: Instant::now() }));
        let (codes, words) = told(&found);
        assert_eq!(codes, [(code, Critical)]);
        assert!(
            words.starts_with(&format!("The gateway refuses the {what} of fest (`some_word` to payitems)")),
            "{words}"
        );
    }
}

#[test]
fn one_refused_sale_is_a_warning_and_where_most_are_refused_it_is_critical() {
    let sales = |booked, refused| {
        changed(|one| one.sales = RecentSales { booked, refused, unknown: 0, refused_as: Some("rate-limited") })
    };
    assert_eq!(told(&sales(60, 1)).0, [("sales-refused", Warning)]);
    assert_eq!(told(&sales(60, 59)).0, [("sales-refused", Warning)]);
    assert_eq!(told(&sales(60, 60)).0, [("sales-refused", Critical)]);
    assert_eq!(told(&sales(0, 2)).0, [("sales-refused", Warning)]);
    let all = sales(0, 57);
    assert_eq!(
        told(&all),
        (
            vec![("sales-refused", Critical)],
            "Every sale of fest within the last minute was refused (57), mostly as `rate-limited`."
        )
    );
}

#[test]
fn sales_that_wait_for_points_and_reads_that_get_none_are_told() {
    let window = WindowStatus { command: "payitems".to_owned(), waiting_payments: 2, ..WindowStatus::default() };
    assert_eq!(told(&changed(|one| one.budgets = vec![window])).0, [("sales-waiting", Warning)]);
    assert_eq!(told(&changed(|one| one.asks.payments_waited = 1)).0, [("sales-waiting", Warning)]);
    assert_eq!(told(&changed(|one| one.asks.callers_denied = 9)).0, []);
    assert_eq!(told(&changed(|one| one.asks.callers_denied = 10)).0, [("reads-refused", Warning)]);
}

#[test]
fn shards_are_told_by_what_is_the_matter_with_them() {
    let bad = |good, in_doubt, cordoned, links| {
        changed(|one| {
            one.shards = vec![shard("exon", 1), shard("cyton", 1), shard("zeus", links)];
            let zeus = &mut one.shards[2];
            (zeus.good, zeus.in_doubt, zeus.cordoned) = (good, in_doubt, cordoned);
        })
    };
    assert_eq!(told(&bad(true, false, false, 0)).0, [], "it stands by");
    assert_eq!(told(&bad(false, false, false, 0)).0, [("shard-unreachable", Warning)]);
    assert_eq!(told(&bad(false, false, false, 1)).0, [("shard-failing", Warning)]);
    assert_eq!(told(&bad(true, true, false, 0)).0, [("shard-lost", Warning)]);
    assert_eq!(told(&bad(true, true, false, 1)).0, []);
    assert_eq!(told(&bad(false, false, true, 0)).0, [("shard-cordoned", Info)]);
    assert_eq!(bad(false, false, true, 0)[0].subject.as_deref(), Some("zeus"));
    assert_eq!(
        told(&changed(|one| one.shards = vec![shard("exon", 2), shard("cyton", 0)])).0,
        [("one-shard", Warning)]
    );
}

#[test]
fn a_name_that_does_not_resolve_and_a_certificate_that_is_not_accepted_are_told_by_themselves() {
    for (kind, code) in [(FaultKind::Name, "gateway-name"), (FaultKind::Certificate, "gateway-certificate")] {
        let found = changed(|one| {
            for shard in &mut one.shards {
                shard.links.clear();
                shard.good = false;
                shard.last_fault = Some(fault(kind, "the reason"));
            }
        });
        let codes: BTreeSet<_> = found.iter().map(|one| one.code).collect();
        assert!(codes.contains(code) && codes.contains("no-links"), "{codes:?}");
        let words = &found.iter().find(|one| one.code == code).unwrap().words;
        assert!(words.contains("exon, cyton, zeus for fest: the reason."), "{words}");
    }
}

#[test]
fn a_link_that_only_listens_for_a_late_reply_is_none() {
    let found = changed(|one| {
        for shard in &mut one.shards {
            shard.links.iter_mut().for_each(|link| link.state = LinkState::SetAside);
            shard.last_fault = Some(fault(FaultKind::Other, "gone"));
        }
    });
    assert_eq!(found[0].code, "no-links");
}

#[test]
fn a_gateway_that_is_slow_to_a_fifth_of_the_commands_is_told() {
    let exchanges =
        |ended, slow, unanswered| changed(|one| one.exchanges = RecentExchanges { ended, slow, unanswered });
    assert_eq!(told(&exchanges(10, 2, 2)).0, []);
    assert_eq!(told(&exchanges(16, 3, 0)).0, []);
    assert_eq!(told(&exchanges(15, 3, 0)).0, [("gateway-slow", Warning)]);
}

#[test]
fn a_command_that_the_gateway_closed_and_a_contradiction_are_told() {
    let window = WindowStatus { command: "listpm".to_owned(), closed_for_ms: 1, ..WindowStatus::default() };
    assert_eq!(told(&changed(|one| one.budgets = vec![window])).0, [("budget-closed", Warning)]);
    assert_eq!(told(&changed(|one| one.contradictions = 1)).0, [("payments-contradicted", Critical)]);
}

#[test]
fn a_disk_is_told_by_what_is_the_matter_with_it() {
    let down = on_disk(|disk| {
        disk.journal_available = false;
        disk.journal_fault = Some("No space left on device (os error 28)".to_owned());
        disk.journal_fault_since_ms = Some(7);
    });
    assert_eq!(
        told(&down),
        (
            vec![("journal-unavailable", Critical)],
            "The payment journal cannot be written, so no payment is sent: No space left on device (os error 28)."
        )
    );
    assert_eq!(down[0].since_ms, Some(7));
    let damaged = on_disk(|disk| (disk.journal_available, disk.journal_damaged) = (false, true));
    assert_eq!(told(&damaged).1, "The payment journal is damaged: no payment is sent.");
    assert_eq!(told(&on_disk(|disk| disk.slow_commit_ms = Some(900))).0, [("disk-slow", Warning)]);
    assert_eq!(told(&on_disk(|disk| disk.free_bytes = Some(LITTLE_SPACE - 1))).0, [("disk-nearly-full", Warning)]);
    assert_eq!(told(&on_disk(|disk| disk.free_bytes = None)).0, []);
    assert_eq!(told(&on_disk(|disk| disk.copies_fault = Some("gone".to_owned()))).0, [("copies-unwritable", Warning)]);
    let step = on_disk(|disk| disk.clock_step_ms = Some(-3_600_400));
    assert_eq!(
        told(&step),
        (
            vec![("clock-step", Warning)],
            "The wall clock of the machine was set back by 3600 s: times before and after it do not compare."
        )
    );
}

#[test]
fn callers_that_are_refused_are_told_once_there_are_many() {
    let mut status = well();
    let limited = vec![("shop".to_owned(), LIMITED_REQUESTS), ("quiet".to_owned(), LIMITED_REQUESTS - 1)];
    status.callers =
        Some(CallerStatus { turned_away: 1, blocked_attempts: GUESSES, limited, ..CallerStatus::default() });
    let found = findings(&status);
    let expected = [("connections-turned-away", Critical), ("tokens-guessed", Warning), ("caller-limited", Warning)];
    assert_eq!(told(&found).0, expected);
    assert_eq!(found[2].subject.as_deref(), Some("shop"));
}

#[test]
fn keys_of_an_issuer_that_cannot_be_fetched_are_told_and_how_many_stay_in_force() {
    let mut status = well();
    let of = |keys, fault: Option<&str>| {
        let fault = fault.map(str::to_owned);
        let issuer_keys = IssuerKeys { issuer: "https://id.example".into(), keys, fault, ..IssuerKeys::default() };
        Some(CallerStatus { issuer_keys: Some(issuer_keys), ..CallerStatus::default() })
    };
    for (keys, fault, expected) in [
        (2, None, vec![]),
        (2, Some("refused"), vec![("issuer-keys", Warning)]),
        (0, Some("refused"), vec![("issuer-keys", Critical)]),
    ] {
        status.callers = of(keys, fault);
        assert_eq!(told(&findings(&status)).0, expected);
    }
    status.callers = of(2, Some("refused."));
    assert!(told(&findings(&status)).1.ends_with("refused. The 2 that are known stay in force."));
}

#[test]
fn payments_that_wait_for_a_person_are_told() {
    let mut status = well();
    let counts = PaymentCounts { unknown: 2, unreadable: 1, booked: 7, ..PaymentCounts::default() };
    status.payments_by_instance.insert("gone".to_owned(), counts);
    let found = findings(&status);
    assert_eq!(
        told(&found),
        (
            vec![("payments-unknown", Critical), ("payments-unreadable", Critical)],
            "2 payments of unknown outcome of gone: settle them."
        )
    );
    assert_eq!(found[1].words, "1 record of a payment of gone cannot be read: settle it.");
}

#[test]
fn findings_of_one_kind_are_counted_together() {
    let found = changed(|one| {
        for shard in &mut one.shards[1..] {
            shard.cordoned = true;
            shard.links.clear();
        }
    });
    let counts = counts(&found);
    assert_eq!(counts.get(&(Some("fest"), "shard-cordoned", "info")), Some(&2));
    assert_eq!(counts.get(&(Some("fest"), "one-shard", "warning")), Some(&1));
}

proptest! {
    /// Whatever is found of an instance names it, and the gravest comes first.
    #[test]
    fn every_finding_of_an_instance_names_it_in_its_words(
        (booked, refused, ended, slow, denied, linked) in
            (0..9_u64, 0..9_u64, 0..9_u64, 0..9_u64, any::<bool>(), 0..4_usize),
        cordoned in any::<[bool; 3]>(), good in any::<[bool; 3]>(), in_doubt in any::<[bool; 3]>(),
    ) {
        let found = changed(|one| {
            one.sales = RecentSales { booked, refused, unknown: 0, refused_as: None };
            one.exchanges = RecentExchanges { ended, slow, unanswered: 0 };
            one.asks = RecentAsks { payments_denied: 0, callers_denied: ended * 2, payments_waited: slow };
            one.contradictions = booked;
            let since = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
            one.denied = denied.then(|| AccessDenied { denial: Denial::Key, word: "w".into(), command: "c".into(), since });
            for (index, shard) in one.shards.iter_mut().enumerate() {
                (shard.cordoned, shard.good, shard.in_doubt) = (cordoned[index], good[index], in_doubt[index]);
                shard.links.truncate(usize::from(index < linked));
                shard.last_fault = (!shard.good).then(|| fault(FaultKind::Name, "x"));
            }
        });
        for one in &found {
            prop_assert_eq!(one.instance.as_deref(), Some("fest"));
            prop_assert!(one.words.contains("fest") && one.words.ends_with('.'), "{}", one.words);
        }
        prop_assert!(found.is_sorted_by_key(|one| one.severity));
        prop_assert_eq!(counts(&found).values().sum::<u64>(), found.len() as u64);
    }
}

#[test]
fn a_replica_that_stops_is_not_blamed_for_its_lease() {
    let mut status = well();
    status.cluster = Some(ClusterStatus::default());
    assert_eq!(told(&findings(&status)).0, [("lease-lost", Severity::Critical)]);
    status.state = ServiceState::Draining;
    assert_eq!(told(&findings(&status)).0, [("draining", Severity::Critical)]);
}
