//! The text format in which Prometheus reads metrics, version 0.0.4, to the letter.
//!
//! Every name gets the prefix of the bridge. Labels are given in order; their values are escaped, and it is for whoever
//! names them to see that there is only a bounded number.

use std::fmt::{Display, Write};

use super::meter::{BOUNDS_US, Read};

/// The media type of the text.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every name begins with.
const PREFIX: &str = "concertpos_bridge_";

/// Labels of one sample, in order.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// A text that grows by families of samples.
#[derive(Debug, Default)]
pub struct Exposition(String);

/// One family: samples of one name.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a family whose samples only grow. The name ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    /// Begins a family whose samples come and go.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    /// Begins a family of durations. The name ends in `_seconds`.
    pub fn histogram(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, "histogram", help)
    }

    fn family(&mut self, name: &'static str, kind: &'static str, help: &'static str) -> Family<'_> {
        // Writing to a string cannot fail, here and below.
        let _ = write!(self.0, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n");
        Family { text: &mut self.0, name }
    }

    /// The whole text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// One sample of a duration in microseconds, told in seconds.
    pub fn micros(&mut self, labels: Labels<'_>, us: u64) -> &mut Self {
        self.sample(labels, Seconds(us))
    }

    /// All samples of one histogram.
    pub fn durations(&mut self, labels: Labels<'_>, read: &Read) -> &mut Self {
        for (bound, count) in BOUNDS_US.iter().zip(read.up_to) {
            self.line("_bucket", labels, Some(&Seconds(*bound).to_string()), count);
        }
        self.line("_bucket", labels, Some("+Inf"), read.count);
        self.line("_sum", labels, None, Seconds(read.sum_us));
        self.line("_count", labels, None, read.count);
        self
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: impl Display) {
        let _ = write!(self.text, "{PREFIX}{}{suffix}", self.name);
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (name, value) in all {
            let _ = write!(self.text, "{separator}{name}=\"{}\"", Escaped(value));
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Microseconds, shown as seconds without passing through binary floating point.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if rest == 0 {
            return write!(formatter, "{whole}");
        }
        let rest = format!("{rest:06}");
        write!(formatter, "{whole}.{}", rest.trim_end_matches('0'))
    }
}

/// A label's value with what would end it taken out of the way.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => formatter.write_str("\\\\")?,
                '"' => formatter.write_str("\\\"")?,
                '\n' => formatter.write_str("\\n")?,
                other => formatter.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::meter::Durations;

    #[test]
    fn samples_are_written_as_prometheus_reads_them() {
        let mut page = Exposition::default();
        page.counter("things_total", "Things.").sample(&[], 3).sample(&[("a", "x\"\\\n"), ("b", "y")], 4);
        page.gauge("age_seconds", "Age.").micros(&[], 1_500_000).micros(&[("a", "0")], 2_000_000);
        assert_eq!(
            page.into_text(),
            "# HELP concertpos_bridge_things_total Things.\n# TYPE concertpos_bridge_things_total counter\n\
             concertpos_bridge_things_total 3\nconcertpos_bridge_things_total{a=\"x\\\"\\\\\\n\",b=\"y\"} 4\n\
             # HELP concertpos_bridge_age_seconds Age.\n# TYPE concertpos_bridge_age_seconds gauge\n\
             concertpos_bridge_age_seconds 1.5\nconcertpos_bridge_age_seconds{a=\"0\"} 2\n"
        );
    }

    #[test]
    fn a_histogram_has_every_bucket_a_sum_and_a_count() {
        let durations = Durations::default();
        durations.note(Duration::from_micros(300));
        let mut page = Exposition::default();
        page.histogram("wait_seconds", "Wait.").durations(&[("class", "payment")], &durations.read());
        let text = page.into_text();
        for line in [
            "wait_seconds_bucket{class=\"payment\",le=\"0.00025\"} 0\n",
            "wait_seconds_bucket{class=\"payment\",le=\"0.0005\"} 1\n",
            "wait_seconds_bucket{class=\"payment\",le=\"+Inf\"} 1\n",
            "wait_seconds_sum{class=\"payment\"} 0.0003\n",
            "wait_seconds_count{class=\"payment\"} 1\n",
        ] {
            assert!(text.contains(&format!("{PREFIX}{line}")), "{line} in {text}");
        }
    }
}
