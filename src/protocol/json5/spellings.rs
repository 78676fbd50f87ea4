//! Texts to try this room on, for property tests here and for the comparison with the library of npm.
//!
//! JSON5 comes in two kinds: respelled values, which are always right and use every freedom of the grammar, and soups
//! of its tokens, which are nearly always wrong, and wrong at every place where a reader could be too kind.

use proptest::collection::vec;
use proptest::prelude::*;

/// JSON on one line without white space, with numbers in any spelling, and strings as `serde_json` prints them.
pub(super) fn json() -> impl Strategy<Value = String> {
    let number = "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?";
    nested(prop_oneof![Just("null".into()), Just("true".into()), number, json_string()], json_string())
}

/// JSON as JavaScript itself prints it, which leaves the library no choice: no number that it would spell otherwise,
/// no keys that it would sort, drop, or print otherwise.
pub(super) fn plain_json() -> impl Strategy<Value = String> {
    let number = "0|-?[1-9][0-9]{0,14}|-?[1-9][0-9]{0,5}\\.[0-9]{0,4}[1-9]";
    // Keys that are ASCII: the library prints other identifiers bare, the bridge quotes them.
    let key = (characters(), "[a-z]{6}")
        .prop_map(|(start, unique)| quoted(&(start.chars().filter(char::is_ascii).collect::<String>() + &unique)));
    nested(prop_oneof![Just("null".into()), Just("false".into()), number, json_string()], key)
}

/// One JSON5 value in any of its spellings.
pub(super) fn json5() -> impl Strategy<Value = String> {
    let decimal = "[+-]?((0|[1-9][0-9]{0,15})(\\.[0-9]{0,9})?|\\.[0-9]{1,9})([eE][+-]?[0-9]{1,2})?";
    let number = prop_oneof![3 => decimal, 1 => "[+-]?0[xX][0-9a-fA-F]{1,13}"];
    let scalar = prop_oneof![Just("null".into()), Just("true".into()), number, json5_string()];
    let key = prop_oneof!["[a-zA-Z$_ªßΩ名][a-zA-Z0-9$_٣‿]{0,4}", "\\\\u006[1-9]\\\\u00[67][1-9]", json5_string()];
    let spaced = (blank(), scalar, blank()).prop_map(|(before, scalar, after)| format!("{before}{scalar}{after}"));
    let keyed = (blank(), key, blank()).prop_map(|(before, key, after)| format!("{before}{key}{after}"));
    nested(spaced, keyed).prop_flat_map(|text| prop_oneof![3 => Just(text.clone()), 1 => Just(trailing(&text))])
}

/// Tokens and pieces of tokens in any order.
pub(super) fn soup() -> impl Strategy<Value = String> {
    let tokens = [
        "{", "}", "[", "]", ":", ",", "'", "\"", "\\", "\\u", "\\x", "0041", "41", "d83d", "/", "/*", "*/", "//", "\n",
        "\r", "\u{2028}", " ", "\u{a0}", "\u{85}", "\u{200d}", "\0", "+", "-", ".", "0", "1", "9", "0x", "e", "E", "f",
        "null", "true", "false", "Infinity", "NaN", "a", "$", "u", "é", "😀", "𐊧", "\u{300}",
    ];
    let token = prop::sample::select(tokens.to_vec());
    let loose = vec(token.clone(), 0..8).prop_map(|tokens| tokens.concat());
    let few = vec(token, 0..4).prop_map(|tokens| tokens.concat());
    prop_oneof![
        2 => loose,
        1 => few.clone().prop_map(|few| format!("[{few}]")),
        1 => few.clone().prop_map(|few| format!("{{{few}:1}}")),
        1 => few.clone().prop_map(|few| format!("{{a:{few}}}")),
        2 => few.clone().prop_map(|few| format!("'{few}'")),
        1 => few.prop_map(|few| format!("1{few}")),
    ]
}

/// Arrays and objects of `scalar` under `key`.
fn nested(
    scalar: impl Strategy<Value = String> + 'static,
    key: impl Strategy<Value = String> + 'static,
) -> impl Strategy<Value = String> {
    let key = key.boxed();
    scalar.prop_recursive(4, 24, 5, move |item| {
        let member = (key.clone(), item.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
        prop_oneof![
            vec(item, 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

/// The value in an array, with a trailing comma.
fn trailing(text: &str) -> String {
    format!("[{text},]")
}

fn blank() -> impl Strategy<Value = String> {
    let white = "[ \t\n\r\u{a0}\u{feff}\u{2003}]{1,2}";
    let to_line_end = "//[^\n\r\u{2028}\u{2029}]{0,3}\n";
    let to_its_end = "/\\*[^*]{0,3}\\*\\*/";
    prop_oneof![6 => Just(String::new()), 2 => white, 1 => to_line_end, 1 => to_its_end]
}

/// Characters that a reader or a printer may treat apart, among any others.
fn characters() -> impl Strategy<Value = String> {
    let special = "[\0-\x1f\x7f-\u{a0}\u{200c}\u{2028}\u{2029}\u{feff}]";
    let pieces = prop_oneof![4 => "[a-z0-9$_ '\"\\\\]", 2 => special, 1 => "."];
    vec(pieces, 0..7).prop_map(|pieces| pieces.concat())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn json_string() -> impl Strategy<Value = String> {
    characters().prop_map(|text| quoted(&text))
}

/// A string with either quote, its characters bare, escaped for no reason, or spelled as escapes.
fn json5_string() -> impl Strategy<Value = String> {
    let escape = "\\\\(['\"\\\\bfnrtvacé/]|0[a-z]|\n|\r\n|\u{2028})";
    let coded = "\\\\(x[0-9a-fA-F]{2}|u[0-9a-cA-C][0-9a-fA-F]{3})";
    let pieces = prop_oneof!["[a-z .€😀\t\0]", escape, coded];
    (vec(pieces, 0..6), prop::sample::select(vec!['\'', '"']))
        .prop_map(|(pieces, quote)| format!("{quote}{}{quote}", pieces.concat()))
}
