//! The status of the bridge with what other replicas tell of the instances that they serve. Pure.

use serde_json::Value;

/// Severities, the gravest first.
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

/// Adds the instances of `others`, and what needs attention there, to one replica's own status.
#[must_use]
pub fn merged(mut own: Value, others: Vec<Value>) -> Value {
    for mut other in others {
        append(&mut own, &mut other, "instances", |one, other| one["instance"] == other["instance"]);
        append(&mut own, &mut other, "attention", |one, other| {
            ["code", "instance", "subject"].iter().all(|part| one[part] == other[part])
        });
    }
    sort(&mut own, "instances", |one| one["instance"].as_str().unwrap_or_default().to_owned());
    sort(&mut own, "attention", |one| SEVERITIES.iter().position(|severity| one["severity"] == **severity));
    own
}

/// Adds what `own` does not have.
fn append(own: &mut Value, other: &mut Value, list: &str, is_same: impl Fn(&Value, &Value) -> bool) {
    let (Some(Value::Array(own)), Some(Value::Array(other))) = (own.get_mut(list), other.get_mut(list)) else { return };
    for more in other.drain(..) {
        if !own.iter().any(|known| is_same(known, &more)) {
            own.push(more);
        }
    }
}

fn sort<K: Ord>(own: &mut Value, list: &str, key: impl FnMut(&Value) -> K) {
    if let Some(Value::Array(own)) = own.get_mut(list) {
        own.sort_by_key(key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_serve_is_added_once_in_order_and_nothing_else_changes() {
        let own = json!({
            "uptime_seconds": 7,
            "instances": [{"instance": "b", "links": 1}],
            "attention": [{"code": "x", "severity": "info", "instance": null, "subject": null, "words": "own"}],
        });
        let other = json!({
            "uptime_seconds": 9,
            "instances": [{"instance": "a"}, {"instance": "b", "links": 9}],
            "attention": [
                {"code": "x", "severity": "info", "instance": null, "subject": null, "words": "its own"},
                {"code": "y", "severity": "critical", "instance": "a", "subject": null},
            ],
        });
        let merged = merged(own.clone(), vec![other, json!([]), json!({"instances": 1})]);
        assert_eq!(merged["uptime_seconds"], 7);
        assert_eq!(merged["instances"], json!([{"instance": "a"}, {"instance": "b", "links": 1}]));
        let codes: Vec<_> = merged["attention"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
        assert_eq!(codes, ["y", "x"]);
        assert_eq!(super::merged(own.clone(), Vec::new()), own);
    }
}
