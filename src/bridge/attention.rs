//! What needs an operator's attention, judged from the state of the bridge. PURE.
//!
//! The one place that decides it, and in which words: the page, `GET /v1/bridge`, the metrics and the alerts show what is found
//! here. A finding lasts as long as what it tells of; a rate is that of the last minute.

mod cluster;
mod finding;

use std::collections::BTreeMap;

pub use self::finding::{Finding, Severity};
use self::finding::{count, ended, finding};
use super::access::{AccessDenied, Denial};
use super::status::{BridgeStatus, CallerStatus, DiskStatus, InstanceStatus, IssuerKeys, PaymentCounts, ServiceState};
use crate::gateway::{FaultKind, LinkState, ShardStatus};

/// Less than this on the disk of the journal is told: a festival's journal grows by some hundred megabytes.
const LITTLE_SPACE: u64 = 256 << 20;
/// Sales that have to be refused within a minute before it is more than a moment's trouble.
const REFUSED_SALES: u64 = 3;
/// Exchanges without a reply, or slow ones, within a minute before the gateway counts as slow.
const SLOW_EXCHANGES: u64 = 3;
/// Reads that have to be refused for points within a minute.
const REFUSED_READS: u64 = 10;
/// Requests that a caller has to have refused for its own limit within a minute.
const LIMITED_REQUESTS: u64 = 30;
/// Attempts from blocked addresses within a minute.
const GUESSES: u64 = 30;

/// Everything that needs attention, the gravest first.
#[must_use]
pub fn findings(status: &BridgeStatus) -> Vec<Finding> {
    let mut found = of_the_whole(status);
    found.extend(status.callers.iter().flat_map(of_callers));
    // Who stops gives its lease back.
    let cluster = status.cluster.as_ref().filter(|_| status.state != ServiceState::Draining);
    found.extend(cluster.into_iter().flat_map(cluster::findings));
    found.extend(status.instances.iter().flat_map(of_instance));
    found.sort_by_key(|one| one.severity);
    found
}

/// How many findings there are of an instance, a code and a severity.
#[must_use]
pub fn counts(found: &[Finding]) -> BTreeMap<(Option<&str>, &'static str, &'static str), u64> {
    let mut counts = BTreeMap::new();
    for Finding { instance, code, severity, .. } in found {
        *counts.entry((instance.as_deref(), *code, severity.name())).or_default() += 1;
    }
    counts
}

fn of_the_whole(status: &BridgeStatus) -> Vec<Finding> {
    let mut found = Vec::new();
    if status.state == ServiceState::Draining {
        found.push(finding(Severity::Critical, "draining", "The bridge is stopping: it accepts nothing new."));
    }
    found.extend(status.disk.iter().flat_map(of_disk));
    found.extend(status.payments_by_instance.iter().flat_map(|(instance, payments)| of_payments(instance, payments)));
    found
}

/// Of an instance that may be no longer served.
fn of_payments(instance: &str, payments: &PaymentCounts) -> Vec<Finding> {
    let mut found = Vec::new();
    let PaymentCounts { unknown, unreadable, .. } = *payments;
    if unknown > 0 {
        let words = format!(
            "{} of unknown outcome of {instance}: settle {}.",
            count(unknown, "payment", "payments"),
            them(unknown)
        );
        found.push(finding(Severity::Critical, "payments-unknown", words));
    }
    if unreadable > 0 {
        let records = count(unreadable, "record of a payment", "records of payments");
        let words = format!("{records} of {instance} cannot be read: settle {}.", them(unreadable));
        found.push(finding(Severity::Critical, "payments-unreadable", words));
    }
    for one in &mut found {
        one.instance = Some(instance.to_owned());
    }
    found
}

fn of_disk(disk: &DiskStatus) -> Vec<Finding> {
    let mut found = Vec::new();
    if !disk.journal_available {
        let words = match &disk.journal_fault {
            _ if disk.journal_damaged => "The payment journal is damaged: no payment is sent.".to_owned(),
            Some(fault) => format!("The payment journal cannot be written, so no payment is sent: {}.", ended(fault)),
            None => "The payment journal cannot be written, so no payment is sent.".to_owned(),
        };
        found.push(finding(Severity::Critical, "journal-unavailable", words).since(disk.journal_fault_since_ms));
    }
    if let Some(ms) = disk.slow_commit_ms {
        let words =
            format!("The disk of the payment journal is slow: a write took {ms} ms, and each sale waits for two.");
        found.push(finding(Severity::Warning, "disk-slow", words));
    }
    if let Some(bytes) = disk.free_bytes.filter(|bytes| *bytes < LITTLE_SPACE) {
        let words = format!("The disk of the payment journal is nearly full: {} MiB are left.", bytes >> 20);
        found.push(finding(Severity::Warning, "disk-nearly-full", words));
    }
    if let Some(fault) = &disk.copies_fault {
        let words = format!("Copies cannot be kept on disk: {}. A restart begins with older ones.", ended(fault));
        found.push(finding(Severity::Warning, "copies-unwritable", words).since(disk.copies_fault_since_ms));
    }
    if let Some(ms) = disk.clock_step_ms {
        let (by, direction) = (ms.unsigned_abs().saturating_add(500) / 1000, if ms > 0 { "forward" } else { "back" });
        let words = format!(
            "The wall clock of the machine was set {direction} by {by} s: times before and after it do not compare."
        );
        found.push(finding(Severity::Warning, "clock-step", words).since(disk.clock_step_at_ms));
    }
    found
}

fn of_callers(callers: &CallerStatus) -> Vec<Finding> {
    let mut found = Vec::new();
    if callers.turned_away > 0 {
        let words = format!(
            "{} turned away within the last minute: there are as many as the bridge takes.",
            count(callers.turned_away, "connection was", "connections were")
        );
        found.push(finding(Severity::Critical, "connections-turned-away", words));
    }
    if callers.blocked_attempts >= GUESSES {
        let words = format!(
            "{} requests came within the last minute from addresses that are blocked for unknown tokens.",
            callers.blocked_attempts
        );
        found.push(finding(Severity::Warning, "tokens-guessed", words));
    }
    found.extend(callers.issuer_keys.as_ref().and_then(of_issuer_keys));
    for (caller, refused) in callers.limited.iter().filter(|(_, refused)| *refused >= LIMITED_REQUESTS) {
        let words = format!(
            "{refused} requests of the caller {caller} were refused within the last minute for its own limits."
        );
        found.push(finding(Severity::Warning, "caller-limited", words).about(caller));
    }
    found
}

fn of_issuer_keys(status: &IssuerKeys) -> Option<Finding> {
    let IssuerKeys { issuer, keys, .. } = status;
    let fault = ended(status.fault.as_deref()?);
    let (severity, words) = match keys {
        0 => (
            Severity::Critical,
            format!("The keys of the issuer {issuer} cannot be fetched, so none of its tokens is accepted: {fault}."),
        ),
        _ => (
            Severity::Warning,
            format!(
                "The keys of the issuer {issuer} cannot be fetched: {fault}. The {keys} that are known stay in force."
            ),
        ),
    };
    Some(finding(severity, "issuer-keys", words).since(status.fault_since_ms))
}

fn of_instance(instance: &InstanceStatus) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(instance.denied.as_ref().map(|denied| of_access(&instance.instance, denied)));
    found.extend(of_sales(instance));
    found.extend(of_links(instance));
    found.extend(of_the_gateway(instance));
    if instance.contradictions > 0 {
        let words = format!(
            "The gateway contradicted the record of a payment of {}, {} since the start: look for “contradicts the record” in the log.",
            instance.instance,
            count(instance.contradictions, "time", "times"),
        );
        found.push(finding(Severity::Critical, "payments-contradicted", words));
    }
    for one in &mut found {
        one.instance = Some(instance.instance.clone());
    }
    found
}

fn of_access(instance: &str, denied: &AccessDenied) -> Finding {
    let AccessDenied { word, command, .. } = denied;
    let (code, what, mend) = match denied.denial {
        Denial::Key => ("key-refused", "key", "set its api_key and reload"),
        Denial::License => ("license-invalid", "licence", "ask the vendor"),
    };
    let words =
        format!("The gateway refuses the {what} of {instance} (`{word}` to {command}): nothing can be sold; {mend}.");
    finding(Severity::Critical, code, words).since(Some(crate::clock::unix_ms_at(denied.since)))
}

fn of_sales(status: &InstanceStatus) -> Vec<Finding> {
    let (mut found, name, sales) = (Vec::new(), &status.instance, &status.sales);
    if sales.refused > 0 {
        let all = sales.refused + sales.booked + sales.unknown;
        let is_most = sales.refused >= REFUSED_SALES && sales.refused * 2 >= all;
        let severity = if is_most { Severity::Critical } else { Severity::Warning };
        let reason = sales.refused_as.map_or(String::new(), |code| format!(", mostly as `{code}`"));
        let words = if sales.refused == all {
            format!("Every sale of {name} within the last minute was refused ({all}){reason}.")
        } else {
            format!("{} of {all} sales of {name} within the last minute were refused{reason}.", sales.refused)
        };
        found.push(finding(severity, "sales-refused", words));
    }
    let waiting: usize = status.budgets.iter().map(|window| window.waiting_payments).sum();
    if waiting > 0 || status.asks.payments_waited > 0 {
        let waited = status.asks.payments_waited;
        let words = format!(
            "Sales of {name} wait for points: {waiting} now, and {waited} waited for a second or more within the last minute."
        );
        found.push(finding(Severity::Warning, "sales-waiting", words));
    }
    if status.asks.callers_denied >= REFUSED_READS {
        let words = format!(
            "{} reads of {name} got no points within the last minute: callers ask for more than the gateway grants.",
            status.asks.callers_denied
        );
        found.push(finding(Severity::Warning, "reads-refused", words));
    }
    found
}

fn of_links(status: &InstanceStatus) -> Vec<Finding> {
    let (mut found, name) = (Vec::new(), &status.instance);
    let linked: Vec<_> = status.shards.iter().filter(|shard| serves(shard)).collect();
    let faults = || status.shards.iter().filter_map(|shard| shard.last_fault.as_ref().map(|fault| (shard, fault)));
    // At a start there is none either, and nothing is wrong until an attempt has failed.
    let is_cut_off = linked.is_empty() && faults().next().is_some();
    if is_cut_off {
        let newest = faults().max_by_key(|(_, fault)| fault.at);
        let reason =
            newest.map_or(String::new(), |(shard, fault)| format!(" {} says: {}.", shard.shard, ended(&fault.words)));
        let words =
            format!("No link to the gateway for {name}: nothing can be sold; old replies are still served.{reason}");
        found.push(finding(Severity::Critical, "no-links", words).since(status.unlinked_since_ms));
    } else if let [only] = linked.as_slice() {
        let words = format!("Only {} has links for {name}: if it fails, broadcasts are missed.", only.shard);
        found.push(finding(Severity::Warning, "one-shard", words));
    }
    found.extend(of_faults(status));
    found.extend(status.shards.iter().filter_map(|shard| of_shard(name, shard)));
    found
}

/// What somebody has to mend, beside what the shards say.
fn of_faults(status: &InstanceStatus) -> Vec<Finding> {
    let name = &status.instance;
    let of_kind = |kind| {
        status.shards.iter().filter(move |shard| shard.last_fault.as_ref().is_some_and(|fault| fault.kind == kind))
    };
    let told = |kind, code, what: &str| {
        let shards: Vec<_> = of_kind(kind).map(|shard| shard.shard.as_str()).collect();
        let fault = of_kind(kind).filter_map(|shard| shard.last_fault.as_ref()).min_by_key(|fault| fault.at)?;
        let words = format!("{what} of {} for {name}: {}.", shards.join(", "), ended(&fault.words));
        Some(finding(Severity::Critical, code, words).since(Some(crate::clock::unix_ms_at(fault.at))))
    };
    let name_fault = told(FaultKind::Name, "gateway-name", "The host name cannot be resolved");
    let certificate = told(FaultKind::Certificate, "gateway-certificate", "The certificate is not accepted");
    name_fault.into_iter().chain(certificate).collect()
}

fn of_shard(instance: &str, status: &ShardStatus) -> Option<Finding> {
    let (shard, is_linked) = (&status.shard, serves(status));
    let (severity, code, words) = if status.cordoned {
        (Severity::Info, "shard-cordoned", format!("{shard} is taken out by hand for {instance}."))
    } else if !status.good && is_linked {
        (Severity::Warning, "shard-failing", format!("{shard} is failing for {instance}: new links cannot be opened."))
    } else if !status.good {
        (
            Severity::Warning,
            "shard-unreachable",
            format!("{shard} could not be reached for {instance} when it was last tried."),
        )
    } else if status.in_doubt && !is_linked {
        (Severity::Warning, "shard-lost", format!("{shard} lost its links for {instance} and has not been tried yet."))
    } else {
        return None;
    };
    let since_ms = status.last_fault.as_ref().map(|fault| crate::clock::unix_ms_at(fault.at));
    Some(finding(severity, code, words).about(shard).since(since_ms))
}

fn serves(shard: &ShardStatus) -> bool {
    shard.links.iter().any(|link| link.state != LinkState::SetAside)
}

fn of_the_gateway(status: &InstanceStatus) -> Vec<Finding> {
    let (mut found, name, exchanges) = (Vec::new(), &status.instance, &status.exchanges);
    // A fifth: a shard of three that is slow is a third of them.
    if exchanges.slow >= SLOW_EXCHANGES && exchanges.slow * 5 >= exchanges.ended {
        let words = format!(
            "The gateway is slow for {name}: {} of {} commands within the last minute took a second or more, and {} got no reply.",
            exchanges.slow, exchanges.ended, exchanges.unanswered,
        );
        found.push(finding(Severity::Warning, "gateway-slow", words));
    }
    let closed: Vec<_> =
        status.budgets.iter().filter(|window| window.closed_for_ms > 0).map(|window| window.command.as_str()).collect();
    if !closed.is_empty() {
        let words = format!("The gateway closed commands for a while for {name}: {}.", closed.join(", "));
        found.push(finding(Severity::Warning, "budget-closed", words));
    }
    found
}

fn them(number: u64) -> &'static str {
    if number == 1 { "it" } else { "them" }
}

#[cfg(test)]
mod tests;
