use proptest::prelude::*;

use super::*;

fn moment(boot_ms: u64, wall_ms: i64) -> Moment {
    Moment { boot_id: Some("one".into()), boot_ms, wall_ms }
}

fn saved(now: &Moment, drift: &Drift) -> Snapshot {
    let windows = [("listpm".to_owned(), Spent { in_flight: 20, ended: vec![(20, 1500)], closed_for_ms: 0 })];
    let spending = Spending { scope: CounterScope::Command, windows: windows.into() };
    Snapshot::new(false, now, drift, BTreeMap::from([("demo".to_owned(), spending)]))
}

#[test]
fn a_file_is_one_line_of_json_and_is_read_as_it_was_written() {
    let saved = saved(&moment(70, 10_000), &Drift::default());
    let bytes = saved.encode().unwrap();
    assert_eq!(
        String::from_utf8(bytes.clone()).unwrap(),
        concat!(
            r#"{"version":3,"clean":false,"boot_id":"one","boot_ms":70,"wall_ms":10000,"wall_ahead_ms":9930,"#,
            r#""instances":{"demo":{"scope":"command","windows":"#,
            r#"{"listpm":{"in_flight":20,"ended":[[20,1500]],"closed_for_ms":0}}}}}"#,
            "\n"
        )
    );
    assert_eq!(Snapshot::decode(&bytes), Ok(saved));
    let later = String::from_utf8(bytes.clone()).unwrap().replace("\"version\":3", "\"version\":4,\"more\":1");
    assert_eq!(Snapshot::decode(later.as_bytes()), Err("version 4 is not known".to_owned()));
    for cut in 0..bytes.len() - 1 {
        assert!(Snapshot::decode(&bytes[..cut]).is_err(), "{cut}");
    }
}

proptest! {
    /// However the wall clock is set while payments are sent and while nothing runs, no payment is taken to be older than
    /// it is; and where it was not set while they were sent, each is as old as it is.
    #[test]
    fn no_payment_is_taken_to_be_older_than_it_is(
        seconds in prop::collection::vec((any::<bool>(), prop_oneof![9 => Just(0_i64), 1 => -5_000_000..5_000_000_i64]), 1..60),
        away_ms in 0..60_000_u64,
        set_meanwhile in -5_000_000..5_000_000_i64,
    ) {
        let mut now = moment(5_000, 1_800_000_000_000);
        let mut drift = Drift::begin(&now, None);
        let mut sent = Vec::new();
        for (pays, set) in &seconds {
            now = moment(now.boot_ms + 1_000, now.wall_ms + 1_000 + set);
            drift.note(&now);
            if *pays {
                sent.push(now.clone());
            }
        }
        let saved = saved(&now, &drift);
        let start = moment(now.boot_ms + away_ms, now.wall_ms + i64::try_from(away_ms).unwrap() + set_meanwhile);
        let dating = Dating::new(&start, Some(&saved));
        for payment in sent {
            let age = dating.age(payment.wall_ms);
            let truly = Duration::from_millis(start.boot_ms - payment.boot_ms);
            prop_assert!(age <= truly);
            prop_assert!(dating.date_ms(truly) <= payment.wall_ms, "it would not be asked for");
            if seconds.iter().all(|(_, set)| *set == 0) {
                prop_assert_eq!(age, truly);
            }
        }
    }
}
