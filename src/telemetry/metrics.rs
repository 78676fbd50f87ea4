//! What the metrics of all rooms share: histograms, families, and the page that Prometheus scrapes.
//!
//! A room counts in a `Metrics` of its own, one for each instance where it has instances: counters of prometheus-client
//! and [`Histogram`]s, held where they are recorded, so that recording is a few atomic operations, and gone with their
//! instance. The same file says how they are shown, by prometheus-client's encoders.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

pub use prometheus_text::CONTENT_TYPE;

/// Before every name, with an underscore.
const PREFIX: &str = "concertpos_bridge";

/// Upper bounds of a histogram's buckets, in microseconds: from an answer out of memory to the deadline of any answer.
const BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Durations by length. That of prometheus-client takes a lock and adds up binary fractions with each duration.
///
/// A scrape that reads while others record may see a duration in the sum and not yet in its bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By [`BOUNDS_US`]; what is longer than all of them is in [`Self::longer`].
    buckets: [AtomicU64; BOUNDS_US.len()],
    longer: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().zip(&self.buckets).find(|(bound, _)| us <= **bound);
        bucket.map_or(&self.longer, |(_, bucket)| bucket).fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let seconds = |us| Duration::from_micros(us).as_secs_f64();
        let buckets: Vec<_> =
            BOUNDS_US.iter().zip(&self.buckets).map(|(bound, count)| (seconds(*bound), read(count))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum::<u64>() + read(&self.longer);
        encoder.encode_histogram::<NoLabelSet>(seconds(read(&self.sum_us)), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Begins families of series on a page.
pub trait Families {
    /// A family of `MetricType::Counter`; `_total` is added to its name.
    fn counter(&mut self, name: &'static str, help: &str) -> Result<MetricEncoder<'_>, fmt::Error>;
    fn gauge(&mut self, name: &'static str, help: &str) -> Result<MetricEncoder<'_>, fmt::Error>;
    /// A family of durations; its name ends in `_seconds`.
    fn histogram(&mut self, name: &'static str, help: &str) -> Result<MetricEncoder<'_>, fmt::Error>;
}

impl Families for DescriptorEncoder<'_> {
    fn counter(&mut self, name: &'static str, help: &str) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.encode_descriptor(name, help, None, MetricType::Counter)
    }

    fn gauge(&mut self, name: &'static str, help: &str) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.encode_descriptor(name, help, None, MetricType::Gauge)
    }

    fn histogram(&mut self, name: &'static str, help: &str) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.encode_descriptor(name, help, None, MetricType::Histogram)
    }
}

/// The page of what `collector` shows, in the text format of Prometheus.
pub fn page(collector: impl Collector) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(collector));
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = prometheus_text::encode(&mut page, &registry);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Shown(Histogram);

    impl Collector for Shown {
        fn encode(&self, mut page: DescriptorEncoder<'_>) -> fmt::Result {
            let labels = [("pos_instance", "x\"\\\n"), ("class", "payment")];
            self.0.encode(page.histogram("wait_seconds", "Wait.")?.encode_family(&labels)?)?;
            page.counter("things", "Things.")?.encode_counter::<NoLabelSet, u64, u64>(&3, None)
        }
    }

    #[test]
    fn a_histogram_has_every_bucket_a_sum_and_a_count_and_labels_are_escaped() {
        let histogram = Histogram::default();
        for us in [0, 100, 101, 300, 10_000_000, 10_000_001] {
            histogram.record(Duration::from_micros(us));
        }
        let text = page(Shown(histogram));
        let series = "concertpos_bridge_wait_seconds";
        let labels = r#"pos_instance="x\"\\\n",class="payment""#;
        let counts = [2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5];
        let bounds = [
            "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5",
            "1", "2.5", "5", "10",
        ];
        let buckets: Vec<_> = bounds
            .iter()
            .zip(counts)
            .map(|(bound, count)| format!("{series}_bucket{{{labels},le=\"{bound}\"}} {count}\n"))
            .collect();
        let expected = [
            &format!("# HELP {series} Wait.\n# TYPE {series} histogram\n"),
            buckets.concat().as_str(),
            &format!("{series}_bucket{{{labels},le=\"+Inf\"}} 6\n{series}_sum{{{labels}}} 20.000502\n"),
            &format!("{series}_count{{{labels}}} 6\n"),
            "# HELP concertpos_bridge_things_total Things.\n# TYPE concertpos_bridge_things_total counter\n",
            "concertpos_bridge_things_total 3\n",
        ]
        .concat();
        assert_eq!(text, expected);
    }
}
