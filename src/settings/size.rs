//! Sizes in bytes, written with their unit.

use super::value::{Setting, Value, quoted};

/// A number of bytes. Written `"64MiB"`: a bare number would leave open what is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// From the largest, and binary before decimal, so that a size is shown in the fewest digits.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

impl Size {
    /// So many bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many units of 1024 · 1024 bytes.
    #[must_use]
    pub const fn mib(mib: u32) -> Self {
        Self((mib as u64) << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn in_bytes(self) -> u64 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.len() - text.trim_start_matches(|digit: char| digit.is_ascii_digit()).len();
        let (number, unit) = text.split_at_checked(digits)?;
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
        number.parse::<u64>().ok()?.checked_mul(*length).map(Self)
    }
}

impl Setting for Size {
    fn read(value: &Value) -> Result<Self, String> {
        let wanted = "must be a size with its unit, like \"512KiB\" or \"64MiB\"";
        value.text().and_then(|text| Self::parse(text.trim())).ok_or_else(|| wanted.to_owned())
    }

    fn show(&self) -> String {
        let fitting = UNITS.iter().find(|(_, length)| self.0 != 0 && self.0.is_multiple_of(*length));
        let (unit, length) = fitting.copied().unwrap_or(("B", 1));
        quoted(&format!("{}{unit}", self.0 / length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_size_wants_its_unit() {
        let read = |text: &str| Size::read(&Value::Text(text.into()));
        assert_eq!(read("1MiB"), Ok(Size::bytes(1_048_576)));
        assert_eq!(read("64 KiB"), Ok(Size::bytes(64 * 1024)));
        assert_eq!(read("5MB"), Ok(Size::bytes(5_000_000)));
        for wrong in ["", "1", "MiB", "-1MiB", "1.5MiB", "1mib", "99999999999GiB"] {
            assert!(read(wrong).is_err(), "{wrong:?} was read");
        }
        assert!(Size::read(&Value::Whole(1024)).is_err());
    }

    proptest! {
        #[test]
        fn a_size_shown_is_read_as_itself(bytes: u64) {
            let shown = Size::bytes(bytes).show();
            let read = Size::read(&Value::Text(shown.trim_matches('"').to_owned()));
            prop_assert_eq!(read, Ok(Size::bytes(bytes)));
        }
    }
}
