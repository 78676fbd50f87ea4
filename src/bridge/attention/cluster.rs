//! What needs attention where several replicas serve. PURE.

use super::finding::{Finding, Severity, count, ended, finding};
use crate::bridge::status::{ClusterStatus, DatabaseStatus, ReplicaStatus};

pub(super) fn findings(cluster: &ClusterStatus) -> Vec<Finding> {
    let mut found: Vec<_> = of_the_lease(cluster).into_iter().collect();
    found.extend(of_the_database(&cluster.database));
    found.extend(of_ownership(cluster));
    found.extend(cluster.replicas.iter().filter_map(|replica| of_replica(cluster, replica)));
    found.extend(cluster.settings_differ.iter().map(|instance| of_settings(instance)));
    found
}

fn of_the_lease(cluster: &ClusterStatus) -> Option<Finding> {
    if cluster.lease_left_ms.is_some() {
        return None;
    }
    let words = format!(
        "The lease of {} is over: it sends nothing to the gateway and serves old replies until the database acknowledges a renewal.",
        cluster.replica
    );
    Some(finding(Severity::Critical, "lease-lost", words).since(cluster.database.fault_since_ms))
}

fn of_the_database(database: &DatabaseStatus) -> Option<Finding> {
    let Some(fault) = &database.fault else {
        let is_alone = database.has_standby == Some(false);
        let words = "synchronous_standby_names of the database is empty: what it acknowledged is lost with its disk.";
        return is_alone.then(|| finding(Severity::Info, "standby-none", words));
    };
    let (code, words) = if database.reads && database.has_standby == Some(true) {
        let words = "The database answers reads and acknowledges no commit, so its synchronous standby is away: no payment is sent";
        ("standby-away", format!("{words}. It says: {}.", ended(fault)))
    } else {
        ("database-away", format!("The database cannot be used, so no payment is sent: {}.", ended(fault)))
    };
    Some(finding(Severity::Critical, code, words).since(database.fault_since_ms))
}

fn of_ownership(cluster: &ClusterStatus) -> Option<Finding> {
    let unowned: Vec<_> = cluster.owners.iter().filter(|owner| owner.replica.is_none()).collect();
    let first = unowned.first()?;
    let number = unowned.len() as u64;
    let words = format!(
        "{} no replica owns, so that nothing can be sold there; the first is {}.",
        count(number, "instance that", "instances that"),
        first.instance
    );
    Some(finding(Severity::Warning, "instances-unowned", words))
}

fn of_replica(cluster: &ClusterStatus, replica: &ReplicaStatus) -> Option<Finding> {
    // Half of a lease is several renewals; this one's own are judged by its lease.
    let is_silent = replica.silent_ms * 2 >= cluster.lease_ms && Some(&replica.session) != cluster.session.as_ref();
    let words = format!(
        "{} has not renewed its lease for {} s: its instances go to other replicas soon.",
        replica.name,
        replica.silent_ms / 1000
    );
    is_silent.then(|| finding(Severity::Warning, "replica-silent", words).about(&replica.name))
}

fn of_settings(instance: &str) -> Finding {
    let words = format!(
        "The settings of {instance} are not the same at all replicas: what callers are told depends on which one owns it."
    );
    Finding { instance: Some(instance.to_owned()), ..finding(Severity::Warning, "settings-differ", words) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::status::OwnerStatus;

    fn replica(name: &str) -> ReplicaStatus {
        ReplicaStatus { name: name.to_owned(), session: format!("session of {name}"), ..ReplicaStatus::default() }
    }

    fn well() -> ClusterStatus {
        let owner = OwnerStatus { instance: "fest".to_owned(), replica: Some("one".to_owned()), epoch: Some(3) };
        ClusterStatus {
            replica: "one".to_owned(),
            session: Some("session of one".to_owned()),
            lease_left_ms: Some(4_000),
            lease_ms: 6_000,
            database: DatabaseStatus { has_standby: Some(true), ..DatabaseStatus::default() },
            replicas: vec![replica("one"), replica("two")],
            owners: vec![owner],
            ..ClusterStatus::default()
        }
    }

    fn told(change: impl FnOnce(&mut ClusterStatus)) -> Vec<(&'static str, Severity)> {
        let mut cluster = well();
        change(&mut cluster);
        findings(&cluster).into_iter().map(|one| (one.code, one.severity)).collect()
    }

    fn fault(reads: bool, has_standby: Option<bool>) -> DatabaseStatus {
        let fault = Some("connection refused".to_owned());
        DatabaseStatus { fault, fault_since_ms: Some(7), reads, has_standby }
    }

    #[test]
    fn replicas_that_renew_and_agree_need_no_attention() {
        assert!(told(|_| {}).is_empty());
    }

    #[test]
    fn a_lease_that_is_over_is_critical_and_says_since_when() {
        let mut cluster = well();
        cluster.lease_left_ms = None;
        cluster.database = fault(false, None);
        let found = findings(&cluster);
        assert_eq!((found[0].code, found[0].severity, found[0].since_ms), ("lease-lost", Severity::Critical, Some(7)));
        assert!(found[0].words.starts_with("The lease of one is over"), "{}", found[0].words);
    }

    #[test]
    fn a_standby_that_is_away_is_told_from_a_database_that_is() {
        let away = [("database-away", Severity::Critical)];
        assert_eq!(told(|cluster| cluster.database = fault(true, Some(true))), [("standby-away", Severity::Critical)]);
        assert_eq!(told(|cluster| cluster.database = fault(false, Some(true))), away);
        assert_eq!(told(|cluster| cluster.database = fault(true, Some(false))), away);
        assert_eq!(told(|cluster| cluster.database = fault(true, None)), away);
    }

    #[test]
    fn a_database_that_waits_for_no_standby_is_mentioned() {
        assert_eq!(told(|cluster| cluster.database.has_standby = Some(false)), [("standby-none", Severity::Info)]);
        assert!(told(|cluster| cluster.database.has_standby = None).is_empty());
    }

    #[test]
    fn instances_of_nobody_are_counted_and_one_is_named() {
        let mut cluster = well();
        cluster.owners.push(OwnerStatus { instance: "stage".to_owned(), replica: None, epoch: Some(4) });
        let found = findings(&cluster);
        assert_eq!(found[0].code, "instances-unowned");
        assert!(found[0].words.starts_with("1 instance that no replica owns"), "{}", found[0].words);
        assert!(found[0].words.contains("stage"));
    }

    #[test]
    fn another_replica_that_is_silent_for_half_of_a_lease_is_named() {
        let mut cluster = well();
        cluster.replicas[1].silent_ms = 3_000;
        let found = findings(&cluster);
        assert_eq!((found[0].code, found[0].subject.as_deref()), ("replica-silent", Some("two")));
        assert!(told(|cluster| cluster.replicas[1].silent_ms = 2_999).is_empty());
        assert!(told(|cluster| cluster.replicas[0].silent_ms = 60_000).is_empty(), "its own lease tells of itself");
    }

    #[test]
    fn settings_that_differ_name_the_instance() {
        let mut cluster = well();
        cluster.settings_differ = vec!["fest".to_owned()];
        let found = findings(&cluster);
        assert_eq!((found[0].code, found[0].instance.as_deref()), ("settings-differ", Some("fest")));
    }
}
