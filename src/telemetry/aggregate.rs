//! The page without the label of the ConcertPOS instance, for hosts of so many that nobody looks at single ones. PURE.

use std::collections::HashMap;
use std::fmt::Write;

/// The label that is left out.
const LABEL: &str = "pos_instance=\"";

/// How the values of several instances become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Sum,
    Least,
    Greatest,
}

impl Rule {
    /// What is no number of things: whether all are good, and how long something takes at most.
    fn of(series: &str) -> Self {
        let name = series.split('{').next().unwrap_or_default();
        match name.strip_prefix("concertpos_bridge_").unwrap_or_default() {
            "shard_good" => Self::Least,
            "shard_cordoned" | "shard_round_trip_seconds" | "budget_closed_seconds" => Self::Greatest,
            _ => Self::Sum,
        }
    }

    fn apply(self, known: f64, other: f64) -> f64 {
        match self {
            Self::Sum => known + other,
            Self::Least => known.min(other),
            Self::Greatest => known.max(other),
        }
    }
}

/// The page with one series in place of those that differ in the instance alone, in the order of the first of them. Counters and
/// what is counted are added up; of the rest, `shard_good` is the least, and durations are the greatest.
#[must_use]
pub fn without_instances(page: &str) -> String {
    let mut lines: Vec<Line<'_>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for line in page.lines() {
        let Some((series, value)) = sample(line) else {
            lines.push(Line::Kept(line));
            continue;
        };
        let (place, rule) = (places.get(&series).copied(), Rule::of(&series));
        if let Some(Line::Joined(_, known)) = place.and_then(|place| lines.get_mut(place)) {
            *known = rule.apply(*known, value);
        } else {
            places.insert(series.clone(), lines.len());
            lines.push(Line::Joined(series, value));
        }
    }
    let mut joined = String::new();
    for line in lines {
        // Writing to a string cannot fail.
        let _ = match line {
            Line::Kept(line) => writeln!(joined, "{line}"),
            Line::Joined(series, value) => writeln!(joined, "{series} {value}"),
        };
    }
    joined
}

enum Line<'p> {
    Kept(&'p str),
    Joined(String, f64),
}

/// The series of a sample without the label, and its value; none where the line has no such label.
fn sample(line: &str) -> Option<(String, f64)> {
    let (before, rest) = line.split_once(LABEL)?;
    // A label is preceded by a brace or a comma: not the end of another label's name, nor a part of a value.
    if !before.ends_with(['{', ',']) || before.starts_with('#') {
        return None;
    }
    let end = end_of_value(rest)?;
    let (labels, value) = rest.get(end..)?.strip_prefix('"')?.rsplit_once("} ")?;
    let labels = labels.strip_prefix(',').unwrap_or(labels);
    let before = if labels.is_empty() { before.trim_end_matches(',') } else { before };
    let series = format!("{before}{labels}}}");
    Some((series.replace("{}", ""), value.trim().parse().ok()?))
}

/// Where the value of a label ends: at the first quote that is not escaped.
fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, letter)| {
        let ends = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_that_differ_in_the_instance_alone_become_one_and_the_others_stay() {
        let page = concat!(
            "# HELP concertpos_bridge_exchanges Commands.\n# TYPE concertpos_bridge_exchanges counter\n",
            "concertpos_bridge_exchanges_total{pos_instance=\"a\",command=\"x\"} 2\n",
            "concertpos_bridge_exchanges_total{pos_instance=\"b\",command=\"x\"} 3\n",
            "concertpos_bridge_exchanges_total{pos_instance=\"b\",command=\"y\"} 1\n",
            "concertpos_bridge_link_waiting{pos_instance=\"a\\\"} 9\"} 1\n",
            "concertpos_bridge_link_waiting{pos_instance=\"b\"} 1\n",
            "concertpos_bridge_shard_good{pos_instance=\"a\",shard=\"exon\"} 1\n",
            "concertpos_bridge_shard_good{pos_instance=\"b\",shard=\"exon\"} 0\n",
            "concertpos_bridge_shard_round_trip_seconds{pos_instance=\"a\",shard=\"exon\"} 0.25\n",
            "concertpos_bridge_shard_round_trip_seconds{pos_instance=\"b\",shard=\"exon\"} 0.5\n",
            "concertpos_bridge_draining 0\n",
        );
        let expected = concat!(
            "# HELP concertpos_bridge_exchanges Commands.\n# TYPE concertpos_bridge_exchanges counter\n",
            "concertpos_bridge_exchanges_total{command=\"x\"} 5\n",
            "concertpos_bridge_exchanges_total{command=\"y\"} 1\n",
            "concertpos_bridge_link_waiting 2\n",
            "concertpos_bridge_shard_good{shard=\"exon\"} 0\n",
            "concertpos_bridge_shard_round_trip_seconds{shard=\"exon\"} 0.5\n",
            "concertpos_bridge_draining 0\n",
        );
        assert_eq!(without_instances(page), expected);
    }
}
