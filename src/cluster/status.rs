//! The replicas as operators see them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::{Directory, Member, Owner};
use crate::bridge::status::{ClusterStatus, DatabaseStatus, OwnerStatus, ReplicaStatus};
use crate::clock::whole_ms;
use crate::tenure::{SessionId, boot_time};

/// The replicas at this moment, as the one of this name knows them. Instances for which `wanted` is false are left out.
#[must_use]
pub fn status(directory: &Directory, name: &str, lease: Duration, wanted: impl Fn(&str) -> bool) -> ClusterStatus {
    let (standing, members) = (directory.standing(), directory.members());
    let owners: HashMap<Arc<str>, Owner> = directory.owners().into_iter().collect();
    let left = standing.lease.as_ref().map(|lease| lease.until().saturating_sub(boot_time()));
    let mut replicas: Vec<_> = members.iter().map(|member| replica(member, &owners)).collect();
    replicas.sort_by(|one, other| (&one.name, &one.session).cmp(&(&other.name, &other.session)));
    let names: HashMap<_, _> = members.iter().map(|member| (member.session, &member.name)).collect();
    let listed = directory.listed().into_iter().filter(|instance| wanted(instance));
    let shown = listed.map(|instance| owner(&instance, owners.get(&instance), &names)).collect();
    let settings_differ = differing(&members).into_iter().filter(|instance| wanted(instance));
    ClusterStatus {
        replica: name.to_owned(),
        session: directory.me().map(|session| session.to_string()),
        lease_left_ms: left.filter(|left| !left.is_zero()).map(whole_ms),
        lease_ms: whole_ms(lease),
        database: DatabaseStatus {
            fault_since_ms: standing.fault.as_ref().map(|fault| fault.since_ms),
            reads: standing.fault.as_ref().is_some_and(|fault| fault.reads),
            fault: standing.fault.map(|fault| fault.words),
            has_standby: standing.has_standby,
        },
        replicas,
        owners: shown,
        settings_differ: settings_differ.map(|instance| instance.to_string()).collect(),
        owner_changes: directory.moves(),
        sessions_begun: standing.sessions_begun,
    }
}

fn replica(member: &Member, owners: &HashMap<Arc<str>, Owner>) -> ReplicaStatus {
    let Member { session, name, address, version, format, draining, silent, instances } = member;
    let owns = owners.values().filter(|owner| owner.session == Some(*session)).count();
    ReplicaStatus {
        name: name.to_string(),
        session: session.to_string(),
        address: address.to_string(),
        version: version.to_string(),
        format: *format,
        draining: *draining,
        silent_ms: whole_ms(*silent),
        lists: instances.len() as u64,
        owns: owns as u64,
    }
}

/// Who owned it and has ended owns nothing.
fn owner(instance: &str, owner: Option<&Owner>, names: &HashMap<SessionId, &Arc<str>>) -> OwnerStatus {
    let replica = owner.and_then(|owner| names.get(&owner.session?)).map(|name| (**name).to_string());
    OwnerStatus { instance: instance.to_owned(), replica, epoch: owner.map(|owner| owner.epoch) }
}

/// Instances that members list with settings that are not the same.
fn differing(members: &[Member]) -> BTreeSet<Arc<str>> {
    let (mut digests, mut differ) = (BTreeMap::new(), BTreeSet::new());
    for listed in members.iter().flat_map(|member| member.instances.iter()) {
        if *digests.entry(&listed.name).or_insert(&listed.digest) != &listed.digest {
            differ.insert(Arc::clone(&listed.name));
        }
    }
    differ
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Listed;
    use crate::tenure::Lease;

    fn member(session: SessionId, name: &str, listed: &[(&str, &str)]) -> Member {
        let listed = listed.iter().map(|(name, digest)| Listed {
            name: (*name).into(),
            slug: (*name).into(),
            digest: (*digest).into(),
        });
        Member {
            session,
            name: name.into(),
            address: "10.0.0.1:9191".into(),
            version: "1".into(),
            format: 1,
            draining: false,
            silent: Duration::from_millis(250),
            instances: listed.collect(),
        }
    }

    fn owned(instance: &str, session: SessionId, epoch: i64) -> (Arc<str>, Owner) {
        (instance.into(), Owner { session: Some(session), epoch })
    }

    const LEASE: Duration = Duration::from_secs(6);

    #[test]
    fn members_owners_and_settings_that_differ_are_told_in_order() {
        let [me, other, gone] = [(); 3].map(|()| SessionId::random().unwrap());
        let members = vec![
            member(other, "two", &[("stage", "a"), ("fest", "b")]),
            member(me, "one", &[("fest", "b"), ("stage", "c"), ("last", "d")]),
        ];
        let directory =
            Directory::fixed(me, members, vec![owned("fest", me, 3), owned("stage", other, 4), owned("last", gone, 5)]);
        let told = status(&directory, "one", LEASE, |_| true);
        assert_eq!(told.replicas.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(told.replicas.iter().map(|one| (one.lists, one.owns)).collect::<Vec<_>>(), [(3, 1), (2, 1)]);
        let owners: Vec<_> =
            told.owners.iter().map(|one| (one.instance.as_str(), one.replica.as_deref(), one.epoch)).collect();
        assert_eq!(
            owners,
            [("fest", Some("one"), Some(3)), ("last", None, Some(5)), ("stage", Some("two"), Some(4))],
            "a session that has ended owns nothing"
        );
        assert_eq!(told.settings_differ, ["stage"]);
        let told = status(&directory, "one", LEASE, |instance| instance == "fest");
        assert_eq!((told.owners.len(), told.settings_differ.len()), (1, 0), "of others a token learns nothing");
    }

    #[test]
    fn the_lease_is_told_while_it_lasts_and_a_fault_since_it_began() {
        let me = SessionId::random().unwrap();
        let directory = Directory::fixed(me, vec![member(me, "one", &[])], Vec::new());
        assert_eq!(status(&directory, "one", LEASE, |_| true).lease_left_ms, None);
        let lease = Lease::of(me);
        directory.note(|standing| standing.lease = Some(lease.clone()));
        assert_eq!(status(&directory, "one", LEASE, |_| true).lease_left_ms, None, "never renewed");
        lease.extend_to(boot_time() + Duration::from_mins(1));
        assert!(status(&directory, "one", LEASE, |_| true).lease_left_ms > Some(50_000));
        directory.note(|standing| standing.failed("it is away".to_owned(), true, 7));
        directory.note(|standing| standing.failed("it is still away".to_owned(), false, 9));
        let told = status(&directory, "one", LEASE, |_| true).database;
        assert_eq!(
            (told.fault.as_deref(), told.fault_since_ms, told.reads),
            (Some("it is still away"), Some(7), false)
        );
    }

    #[test]
    fn changes_of_owner_are_counted_but_not_those_of_before() {
        let [me, other] = [(); 2].map(|()| SessionId::random().unwrap());
        let directory = Directory::fixed(me, Vec::new(), vec![owned("fest", me, 3)]);
        assert_eq!(directory.moves(), 0);
        directory.show_owners(vec![("fest".into(), Owner { session: None, epoch: 3 })]);
        directory.show_owners(vec![owned("fest", other, 4)]);
        directory.show_owners(vec![owned("fest", other, 4)]);
        assert_eq!(directory.moves(), 1);
    }
}
