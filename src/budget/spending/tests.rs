use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn saved(windows: &[(&str, Spent)]) -> Saved {
    let windows = windows.iter().map(|(name, spent)| ((*name).to_owned(), spent.clone())).collect();
    let spending = Spending { scope: Scope::Command, windows };
    Saved::new(BTreeMap::from([("demo".to_owned(), spending)]), at(10_000))
}

fn held(points: u64) -> Spent {
    Spent { in_flight: points, ..Spent::default() }
}

fn file(lines: &[Line]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.encode().unwrap()).collect()
}

fn spent(window: &str, points: u64) -> Line {
    Line::Spent { instance: "demo".to_owned(), window: window.to_owned(), points }
}

fn closed(window: &str, for_ms: u64, at_ms: u64) -> Line {
    Line::Closed { instance: "demo".to_owned(), window: window.to_owned(), for_ms, at_ms }
}

#[test]
fn a_file_is_lines_of_json() {
    let windows = [("listpm", Spent { in_flight: 20, ended: vec![(20, 1500)], closed_for_ms: 0 })];
    let lines = [Line::Saved(saved(&windows)), spent("getconfig", 25), closed("getconfig", 700, 11_000)];
    assert_eq!(
        String::from_utf8(file(&lines)).unwrap(),
        concat!(
            r#"{"saved":{"version":2,"written_at_ms":10000,"instances":{"demo":{"scope":"command","windows":"#,
            r#"{"listpm":{"in_flight":20,"ended":[[20,1500]],"closed_for_ms":0}}}}}}"#,
            "\n",
            r#"{"spent":{"instance":"demo","window":"getconfig","points":25}}"#,
            "\n",
            r#"{"closed":{"instance":"demo","window":"getconfig","for_ms":700,"at_ms":11000}}"#,
            "\n"
        )
    );
}

#[test]
fn every_line_since_the_beginning_is_counted() {
    let finished = file(&[
        spent("getconfig", 25),
        Line::Saved(saved(&[("listpm", held(20))])),
        spent("getconfig", 25),
        spent("listpm", 20),
        closed("payitems", 700, 11_000),
    ]);
    let begun = file(&[spent("listpm", 20)]);
    let read = Saved::read(&finished, &begun).unwrap();
    let closed = Spent { closed_for_ms: 1700, ..Spent::default() };
    assert_eq!(read, saved(&[("getconfig", held(50)), ("listpm", held(60)), ("payitems", closed)]));
}

#[test]
fn a_file_that_was_finished_and_not_yet_put_in_place_stands_for_both() {
    let finished = file(&[Line::Saved(saved(&[("listpm", held(20))])), spent("listpm", 20)]);
    let begun = file(&[spent("getconfig", 25), Line::Saved(saved(&[("listpm", held(40))]))]);
    let read = Saved::read(&finished, &begun).unwrap();
    assert_eq!(read, saved(&[("getconfig", held(25)), ("listpm", held(40))]));
}

#[test]
fn what_cannot_be_counted_is_refused_in_words() {
    let good = file(&[Line::Saved(saved(&[]))]);
    let refused = |bytes: &[u8]| Saved::read(bytes, &[]).unwrap_err();
    assert_eq!(refused(b""), "it does not say what was spent before it");
    assert_eq!(refused(&file(&[spent("listpm", 20)])), "it does not say what was spent before it");
    let later = String::from_utf8(good.clone()).unwrap().replace("\"version\":2", "\"version\":3");
    assert_eq!(refused(later.as_bytes()), "version 3 is not known");
    assert_eq!(
        refused(&[good.as_slice(), &file(&[spent("*", 20)])].concat()),
        "it was written by bridges that counted differently"
    );
    assert_eq!(refused(&[good.as_slice(), &good].concat()), "it was written by bridges that counted differently");
    assert!(Saved::read(&[good.as_slice(), b"{\n", &file(&[spent("listpm", 20)])].concat(), &[]).is_err());
}

proptest! {
    /// Wherever the end of the process cuts the file off, every whole line counts, and half of one does not.
    #[test]
    fn a_file_cut_off_anywhere_tells_of_all_whole_lines(points in prop::collection::vec(1_u64..50, 0..8), cut in 0_usize..200) {
        let head = file(&[Line::Saved(saved(&[]))]);
        let lines: Vec<_> = points.iter().map(|&points| spent("listpm", points)).collect();
        let all = [head.clone(), file(&lines)].concat();
        let end = (head.len() + cut).min(all.len());
        let whole = all[head.len()..end].split(|&byte| byte == b'\n').count() - 1;
        let expected: u64 = points[..whole].iter().sum();
        let read = Saved::read(&all[..end], &[]).unwrap();
        prop_assert_eq!(read.instances["demo"].windows.get("listpm").map_or(0, |spent| spent.in_flight), expected);
    }
}
