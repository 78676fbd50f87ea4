//! What a bench found, in rows: each a figure, beside the ceiling that was measured in the same run and the aim.
//!
//! A report prints its rows as a table, and appends them as lines of JSON to the file that `BENCH_ROWS` names, from which
//! `benches/report` makes the one table of all benches.

use std::io::Write;

use serde_json::{Value, json};

/// Names the file to which rows are appended.
const ROWS: &str = "BENCH_ROWS";

/// What a row's ratio has to reach, or its value where it has none.
#[derive(Clone, Copy)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    fn is_reached(self, by: f64) -> bool {
        match self {
            Self::AtLeast(least) => by >= least,
            Self::AtMost(most) => by <= most,
        }
    }
}

/// One figure.
pub(crate) struct Row {
    name: &'static str,
    figure: String,
    value: f64,
    unit: &'static str,
    ceiling: Option<(String, f64)>,
    ratio: Option<f64>,
    aim: Option<Aim>,
}

impl Row {
    /// `name` is what the page on performance calls this row by, and is the same for ever; `figure` is what people read.
    pub(crate) fn new(name: &'static str, figure: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name, figure: figure.into(), value, unit, ceiling: None, ratio: None, aim: None }
    }

    /// What the figure stands beside, in the same unit.
    pub(crate) fn beside(mut self, ceiling: impl Into<String>, value: f64) -> Self {
        self.ceiling = Some((ceiling.into(), value));
        self
    }

    /// The figure over its ceiling, where that is what is judged; given, since it is taken within a round.
    pub(crate) fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = Some(ratio);
        self
    }

    pub(crate) fn aim(mut self, aim: Aim) -> Self {
        self.aim = Some(aim);
        self
    }

    fn json(&self) -> Value {
        let judged = self.ratio.unwrap_or(self.value);
        json!({
            "name": self.name,
            "figure": self.figure,
            "value": self.value,
            "unit": self.unit,
            "ceiling": self.ceiling.as_ref().map(|(name, value)| json!({ "name": name, "value": value })),
            "ratio": self.ratio,
            "aim": self.aim.map(|aim| match aim {
                Aim::AtLeast(least) => json!({ "at_least": least }),
                Aim::AtMost(most) => json!({ "at_most": most }),
            }),
            "reached": self.aim.map(|aim| aim.is_reached(judged)),
        })
    }

    fn line(&self) -> String {
        let ceiling = self.ceiling.as_ref();
        let ceiling = ceiling.map_or(String::new(), |(name, value)| format!("{name}: {}", readable(*value)));
        let aim = match self.aim {
            None => String::new(),
            Some(Aim::AtLeast(least)) => format!("≥ {least}"),
            Some(Aim::AtMost(most)) => format!("≤ {most}"),
        };
        let ratio = self.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
        format!("| {} | {} {} | {ceiling} | {ratio} | {aim} |", self.figure, readable(self.value), self.unit)
    }
}

/// Whole numbers, and two places where a figure is so small that they tell something.
fn readable(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The rows of one bench.
pub(crate) struct Report(Vec<Row>);

impl Report {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.0.push(row);
    }

    /// Prints the rows, and hands them to whoever collects.
    pub(crate) fn tell(self) {
        println!("| figure | bridge | ceiling | ratio | to reach |");
        println!("|---|---|---|---|---|");
        for row in &self.0 {
            println!("{}", row.line());
        }
        let Some(path) = std::env::var_os(ROWS) else { return };
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        for row in &self.0 {
            writeln!(file, "{}", row.json()).unwrap();
        }
    }
}
