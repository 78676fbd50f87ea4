//! What holds for every text, and the tables' two ways of asking.

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{from_json, spellings, to_json};

/// Each JSON5 text is respelled as the JSON beside it.
pub(super) fn agree(cases: &[(&str, &str)]) {
    for (json5, json) in cases {
        assert_eq!(to_json(json5).as_deref(), Ok(*json), "{json5}");
    }
}

/// None of the texts is JSON5.
pub(super) fn refuse(texts: &[&str]) {
    for text in texts {
        assert!(to_json(text).is_err(), "{text} was read as {:?}", to_json(text));
    }
}

/// Whether two values are one, but for the last bits of numbers: `serde_json` does not always find the nearest float.
fn alike(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(ours), Value::Number(theirs)) => {
            let (ours, theirs) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
            (ours - theirs).abs() <= ours.abs() * 1e-14
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| alike(ours, theirs))
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().all(|(key, ours)| theirs.get(key).is_some_and(|theirs| alike(ours, theirs)))
        }
        _ => ours == theirs,
    }
}

proptest! {
    #[test]
    fn json_printed_as_json5_reads_back_to_the_byte(json in spellings::json()) {
        let json5 = from_json(&json).unwrap();
        prop_assert_eq!(to_json(&json5), Ok(json));
    }

    #[test]
    fn json_is_its_own_spelling(json in spellings::json()) {
        prop_assert_eq!(to_json(&json), Ok(json));
    }

    #[test]
    fn the_json5_crate_reads_the_same_values(text in spellings::json5()) {
        let json = to_json(&text).unwrap();
        let ours: Value = serde_json::from_str(&json).unwrap();
        let theirs: Value = ::json5::from_str(&text).unwrap();
        prop_assert!(alike(&ours, &theirs), "{} and {}", ours, theirs);
    }

    #[test]
    fn the_json5_crate_reads_what_is_printed(json in spellings::plain_json()) {
        let ours: Value = serde_json::from_str(&json).unwrap();
        let theirs: Value = ::json5::from_str(&from_json(&json).unwrap()).unwrap();
        prop_assert!(alike(&ours, &theirs), "{} and {}", ours, theirs);
    }

    #[test]
    fn a_second_respelling_changes_nothing(text in spellings::json5()) {
        let json = to_json(&text).unwrap();
        prop_assert_eq!(to_json(&json), Ok(json));
    }

    #[test]
    fn whatever_is_read_is_json_and_can_be_printed_again(text in spellings::soup()) {
        if let Ok(json) = to_json(&text) {
            prop_assert!(serde_json::from_str::<&RawValue>(&json).is_ok(), "{} became {}", text, json);
            let json5 = from_json(&json).unwrap();
            prop_assert_eq!(to_json(&json5), Ok(json));
        }
    }

    #[test]
    fn no_text_panics_and_no_error_lies_outside_it(text in ".{0,60}|[{}\\[\\]:,'\"\\\\/*+.\\-0-9a-fxuEIN\n ]{0,60}") {
        for outcome in [to_json(&text), from_json(&text)] {
            if let Err(error) = outcome {
                prop_assert!(error.at <= text.len(), "{}", error);
            }
        }
    }
}
