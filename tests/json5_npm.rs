//! The bridge's JSON5 against the library that the gateway reads and prints with.
//!
//! Everything `protocol::json5` promises is measured by what the `json5` package of npm does, so the package itself is
//! asked, by Node, in both directions and for every character. Cases are drawn at random: half of them from a seed that
//! stays, half from one of this run, which a failing test prints. `JSON5_SEED=…` draws from that again, and
//! `JSON5_CASES=…` so many times the cases.
//!
//! Node and the package are needed: without them these tests fail and say what is missing, for a comparison that is
//! skipped compares nothing. The package is installed by npm from `tests/json5` where it is not there yet.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests, helpers included")]
#![allow(clippy::print_stdout, reason = "a test that fails says from which seed")]

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use concertpos_bridge::internals::protocol::json5::{from_json, to_json};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[path = "../src/protocol/json5/spellings.rs"]
mod spellings;

/// What `tests/json5/library.js` can be asked.
const READ_JSON5: &str = "read5";
const READ_JSON: &str = "read";
const PRINT: &str = "print";
const IDENTIFIERS: &str = "identifiers";

/// The folder with the installed package. Tests may run in processes of their own, hence the lock on a file.
fn library() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/json5");
    let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("json5-npm.lock")).unwrap();
    lock.lock().unwrap();
    if !folder.join("node_modules/json5/package.json").exists() {
        let install = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .output()
            .expect("npm is needed to compare with the json5 package: install Node");
        let words = String::from_utf8_lossy(&install.stderr);
        assert!(install.status.success(), "`npm ci` in tests/json5 could not install the json5 package: {words}");
    }
    folder
}

/// The library's answers to one question about each text; nothing for a text that it refuses.
fn ask(question: &str, texts: &[String]) -> Vec<Option<String>> {
    let mut node = Command::new("node")
        .arg("library.js")
        .current_dir(library())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is needed to compare with the json5 package: install Node");
    let questions: Vec<_> = texts.iter().map(|text| (question, text)).collect();
    // Node reads all of it before it answers, so this cannot wait for us to read.
    node.stdin.take().unwrap().write_all(&serde_json::to_vec(&questions).unwrap()).unwrap();
    let answers = node.wait_with_output().unwrap();
    assert!(answers.status.success(), "node failed: its words are above");
    serde_json::from_slice(&answers.stdout).unwrap()
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// So many texts of a kind, half of them the same ones each time.
fn some(count: usize, kind: impl Strategy<Value = String>) -> Vec<String> {
    let seed = from_environment("JSON5_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 32 | now_ns());
    println!("JSON5_SEED={seed}");
    let count = count * usize::try_from(from_environment("JSON5_CASES").unwrap_or(1)).unwrap();
    let mut lasting = TestRunner::deterministic();
    let bytes = [seed.to_le_bytes(); 4].concat();
    let of_this_run = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut of_this_run = TestRunner::new_with_rng(Config::default(), of_this_run);
    let mut draw = |half: usize| {
        let runner = if half == 0 { &mut lasting } else { &mut of_this_run };
        kind.new_tree(runner).unwrap().current()
    };
    (0..count).map(|index| draw(index % 2)).collect()
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into()
}

/// Texts that are one slip away from a right one: a character too many, too few, or another one.
fn slips() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        prop::sample::select("{}[]:,'\"\\/*+-.0123456789aefnuxEINX \n\u{2028}\u{feff}é😀".chars().collect::<Vec<_>>()),
        any::<char>(),
    ];
    (spellings::json5(), any::<prop::sample::Index>(), character, 0..3).prop_map(|(text, place, character, slip)| {
        let mut characters: Vec<char> = text.chars().collect();
        let place = place.index(characters.len());
        match slip {
            0 => characters.insert(place, character),
            1 => characters[place] = character,
            _ => drop(characters.remove(place)),
        }
        characters.into_iter().collect()
    })
}

/// Reads every text here and there. Both refuse it, or both find the same value in it. Only what holds an identifier of
/// a newer Unicode may be refused there and read here.
fn read_alike(texts: &[String]) {
    let ours: Vec<_> = texts.iter().map(|text| to_json(text).ok()).collect();
    let accepted: Vec<_> = ours.iter().flatten().cloned().collect();
    let mut values = ask(READ_JSON, &accepted).into_iter();
    for ((text, theirs), ours) in texts.iter().zip(ask(READ_JSON5, texts)).zip(ours) {
        if ours.is_some() && theirs.is_none() && text.chars().any(|letter| NEWER.contains(&letter)) {
            values.next();
            continue;
        }
        let value = ours.as_ref().map(|json| values.next().unwrap().unwrap_or_else(|| format!("no JSON: {json}")));
        assert_eq!(value, theirs, "{text:?} became {ours:?}");
    }
}

#[test]
fn every_spelling_of_a_value_is_read_as_the_library_reads_it() {
    let texts = some(600, spellings::json5());
    assert!(texts.iter().all(|text| to_json(text).is_ok()));
    read_alike(&texts);
}

#[test]
fn what_the_library_refuses_is_refused_and_what_it_reads_is_read() {
    let texts = some(4000, spellings::soup());
    let accepted = texts.iter().filter(|text| to_json(text).is_ok()).count();
    assert!(
        (200..3800).contains(&(accepted * 4000 / texts.len())),
        "{accepted} of the texts say nothing about one of the two sides"
    );
    read_alike(&texts);
}

#[test]
fn a_text_that_is_one_slip_away_is_read_or_refused_as_by_the_library() {
    let texts = some(2000, slips());
    let accepted = texts.iter().filter(|text| to_json(text).is_ok()).count();
    assert!((100..1900).contains(&(accepted * 2000 / texts.len())), "{accepted} of {}", texts.len());
    read_alike(&texts);
}

#[test]
fn what_the_library_prints_is_read_as_the_value_that_it_was() {
    let values = some(600, spellings::json());
    let printed: Vec<_> = ask(PRINT, &values).into_iter().map(Option::unwrap).collect();
    // What it has made of the numbers is its own affair, and is what the gateway sends.
    read_alike(&printed);
    assert!(printed.iter().all(|text| to_json(text).is_ok()));
}

#[test]
fn hard_cases_are_read_as_the_library_reads_them() {
    #[rustfmt::skip] // One line a subject, instead of one line a case.
    let texts = [
        "", " ", "nulll", "null null", "tru", "true1", "undefined", "\u{feff}1", "\u{a0}1\u{3000}", "\u{85}1",
        "01", "-00", "+1", "+-1", "--1", "5.", ".5", ".", "5.e1", "1e", "1e5.", "0x", "0xFf", "-0x10", "0x1.", "0x1e+1",
        "Infinity", "-Infinity", "+NaN", "nan", "+ 1", "- /**/1", "9007199254740993", "1e400", "-0",
        "0xfffffffffffffffff",
        "// x", "1 // x", "/**/", "1/*", "/*/1", "1/**/2", "{a/**/:/**/1}", "[1/**/,2]", "/***/1",
        "//\u{2028}1", "//\u{85}1",
        "{}", "[,]", "{,}", "[1,]", "[1,,]", "{a:1,}", "{a:1,,}", "{'a':1,\"a\":2}", "{__proto__:{a:1}}", "{2:1}",
        r"'\0'", r"'\00'", r"'\08'", r"'\1'", r"'\x0'", r"'\xa0'", r"'\u12'", r"'\u{1}'", r"'\a\'\/'", r"'\8'",
        r"'\", r"'\x",
        "'\\\r\n'", "'\\\n\r'", "'\n'", "'\u{2028}'", "'\\\u{2029}'", "'\0\t\u{1f}\u{7f}'",
        r"'\ud800'", r"'\ud83d\ude00'", r"'\ude00\ud83d'", "'\\ud83d\\\n\\ude00'", r"'\uD83D😀'", r"{'\udfff':1}",
        r"{\u0061b:1}", r"{a\u0062:1}", r"{\u0031:1}", r"{a\u0031:1}", r"{\ud83d\ude00:1}", "{\u{200c}:1}",
    ];
    read_alike(&texts.map(String::from));
}

#[test]
fn values_are_printed_as_the_library_prints_them() {
    let hard = [
        r#"{"":0,"a":1,"a b":2,"a-b":3,"$":4,"_9":5,"null":6}"#,
        r#"["'","\"","'\"","''\"","'\"\"","\\","\/"]"#,
        r#"["\u00000","\u0000","\u0000a","\u0000\u0000","\u0001\u001f\u007f\u0085\u000b\b\f\n\r\t"]"#,
        r#"["\u2028\u2029\ufeff\u00a0","😀","\ud83d\ude00"]"#,
    ];
    let texts: Vec<_> = hard.map(String::from).into_iter().chain(some(600, spellings::plain_json())).collect();
    for (text, theirs) in texts.iter().zip(ask(PRINT, &texts)) {
        assert_eq!(from_json(text).ok(), theirs, "{text:?}");
    }
}

#[test]
fn what_is_printed_is_the_same_value_to_the_library() {
    let hard = [
        r#"{"\ud800":"\ude00\ud83d"}"#,
        r#"["\ud83d\u0000\u0031"]"#,
        r#"{"𐊧":1,"𐊧a":2,"a𐊧":3,"𐊧𐊧":4,"größe":5,"a\u200c":6,"\u200c":7,"\u2118":8,"\u0560":9}"#,
    ];
    let texts: Vec<_> = hard.map(String::from).into_iter().chain(some(600, spellings::json())).collect();
    let printed: Vec<_> = texts.iter().map(|text| from_json(text).unwrap()).collect();
    for ((text, before), after) in texts.iter().zip(ask(READ_JSON, &texts)).zip(ask(READ_JSON5, &printed)) {
        assert!(before.is_some());
        assert_eq!(after, before, "{text:?}");
    }
}

#[test]
fn a_key_may_hold_each_character_where_the_library_lets_it_and_none_but_identifiers_of_newer_unicode() {
    let [starts, continues] = identifiers();
    for letter in '\0'..=char::MAX {
        let is_newer = NEWER.contains(&letter);
        assert!(!is_newer || !letter.is_ascii(), "{letter:?}");
        let starting = to_json(&format!("{{{letter}:1}}")).is_ok();
        assert!(
            starting == starts.contains(&letter.into()) || (starting && is_newer),
            "{letter:?} at the start of a key"
        );
        let continuing = may_continue(letter);
        assert!(
            continuing == continues.contains(&letter.into()) || (continuing && is_newer),
            "{letter:?} further on in a key"
        );
    }
    let printed = from_json(r#"{"\u0560":1,"größe":2}"#);
    assert_eq!(printed.as_deref(), Ok("{'\u{560}':1,'größe':2}"), "what a reader may not know is quoted");
}

fn may_continue(letter: char) -> bool {
    // More of the key follows, for white space may end one.
    to_json(&format!("{{a{letter}a:1}}")).is_ok()
}

/// The characters that the library lets a key start with, and go on with.
fn identifiers() -> [HashSet<u32>; 2] {
    let answer = ask(IDENTIFIERS, &[String::new()]).remove(0).unwrap();
    serde_json::from_str(&answer).unwrap()
}

/// The characters that a key may hold here and not at the library, which knows the identifiers of Unicode 10.
static NEWER: LazyLock<HashSet<char>> = LazyLock::new(|| {
    let [starts, continues] = identifiers();
    let newer = |letter: &char| {
        let starting = to_json(&format!("{{{letter}:1}}")).is_ok();
        (starting && !starts.contains(&u32::from(*letter)))
            || (may_continue(*letter) && !continues.contains(&u32::from(*letter)))
    };
    ('\0'..=char::MAX).filter(newer).collect()
});
