//! The fuzzer's properties without the fuzzer: every input that it was given or found, and simple mutations of each.
//!
//! The fuzzer itself needs a nightly compiler and builds everything a second time, so it is not part of the gate:
//! `scripts/fuzz` runs it for as long as one likes. What it finds is put into `fuzz/corpus`, and from then on is tried
//! here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a property that does not hold has failed"
)]

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

#[path = "../fuzz/properties/events.rs"]
mod events;
#[path = "../fuzz/properties/frames.rs"]
mod frames;
#[path = "../fuzz/properties/keys.rs"]
mod keys;
#[path = "../fuzz/properties/native.rs"]
mod native;
#[path = "../fuzz/properties/settings.rs"]
mod settings;

/// Bytes that mean something to one reader or another.
const SPECIAL: &[u8] = b"{}[]:,'\"\\/*-+.0159aeux= \n\r\0\x80\xff";

/// Mutations of each input.
const MUTATIONS: usize = 50;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let inputs: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(inputs.len() >= 8, "{} inputs in {}", inputs.len(), folder.display());
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for (path, input) in paths.iter().zip(&inputs) {
        tried(check, input, &path.display().to_string());
        for _ in 0..MUTATIONS {
            let other = &inputs[random.random_range(0..inputs.len())];
            tried(check, &mutated(input, other, &mut random), &path.display().to_string());
        }
    }
}

fn tried(check: fn(&[u8]), input: &[u8], from: &str) {
    let held = catch_unwind(|| check(input)).is_ok();
    assert!(held, "{from}, or what was made of it: {:?}, as bytes {input:?}", String::from_utf8_lossy(input));
}

/// One to three slips: a byte changed, put in or taken out, a piece doubled, or the end of another input.
fn mutated(input: &[u8], other: &[u8], random: &mut TestRng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..=3) {
        let place = random.random_range(0..=bytes.len());
        let byte = SPECIAL[random.random_range(0..SPECIAL.len())];
        match random.random_range(0..5) {
            0 => bytes.insert(place, byte),
            1 if place < bytes.len() => bytes[place] = byte,
            2 if place < bytes.len() => drop(bytes.remove(place)),
            3 => bytes.extend_from_within(place..),
            _ => {
                bytes.truncate(place);
                bytes.extend_from_slice(&other[random.random_range(0..=other.len())..]);
            }
        }
        bytes.truncate(16 * 1024);
    }
    bytes
}

#[test]
fn frames_are_read_as_they_are_printed() {
    replay("frames", frames::check);
}

#[test]
fn a_stream_of_events_is_read_as_it_was_meant() {
    replay("events", events::check);
}

#[test]
fn a_key_has_two_spellings_and_no_text_is_two_keys() {
    replay("keys", keys::check);
}

#[test]
fn any_configuration_is_settings_or_faults_and_shows_no_secret() {
    replay("settings", settings::check);
}

#[test]
fn whatever_a_till_sends_is_answered_in_a_frame() {
    replay("native", native::check);
}
