//! Values as they stand in the configuration, and the types that can be read from them.
//!
//! A file gives a value a type; the environment has only text. One [`Value`] carries both, and each type reads either, so
//! that every key can be set from every source. An error never quotes the value, as serde's errors do: it may be a secret
//! in the wrong place.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A value found in the configuration. Its `Debug` tells the kind and nothing more.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// A string of the file.
    Text(String),
    /// A whole number of the file.
    Whole(i128),
    /// `true` or `false` in the file.
    Truth(bool),
    /// An array of the file.
    List(Vec<Value>),
    /// Something of the file that no setting is made of: a number with a fraction, a date, a table within an array.
    Foreign(&'static str),
    /// Text of the environment, which may be meant as any of the above.
    Untyped(String),
}

impl Value {
    /// The text, wherever it came from.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Some(text),
            _ => None,
        }
    }

    /// Whether this is a variable set to nothing, by which the environment takes back an optional key.
    pub(super) fn is_blank(&self) -> bool {
        matches!(self, Self::Untyped(text) if text.trim().is_empty())
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Untyped(_) => "text",
            Self::Whole(_) => "a whole number",
            Self::Truth(_) => "true or false",
            Self::List(_) => "a list",
            Self::Foreign(kind) => kind,
        }
    }

    fn text_for(&self, wanted: &str) -> Result<&str, String> {
        self.text().ok_or_else(|| format!("must be {wanted}, not {}", self.kind()))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "({})", self.kind())
    }
}

/// A type that a setting can have.
pub trait Setting: Sized {
    /// Reads the value, or says what it must be, as a clause that follows the key's name. Never quotes the value.
    fn read(value: &Value) -> Result<Self, String>;

    /// The value as it would be written in TOML.
    fn show(&self) -> String;
}

/// Text as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Setting for bool {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Truth(truth) => Ok(*truth),
            Value::Untyped(text) => match text.trim() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err("must be true or false".to_owned()),
            },
            other => Err(format!("must be true or false, not {}", other.kind())),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

fn whole<T: TryFrom<i128>>(value: &Value, greatest: impl fmt::Display) -> Result<T, String> {
    let number = match value {
        Value::Whole(number) => Some(*number),
        Value::Untyped(text) => text.trim().parse().ok(),
        other => return Err(format!("must be a whole number, not {}", other.kind())),
    };
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("must be a whole number from 0 to {greatest}"))
}

macro_rules! whole_numbers {
    ($($number:ty),+) => {$(
        impl Setting for $number {
            fn read(value: &Value) -> Result<Self, String> {
                whole(value, Self::MAX)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

whole_numbers!(u32, u64, usize);

impl Setting for String {
    fn read(value: &Value) -> Result<Self, String> {
        value.text_for("text in quotes").map(str::to_owned)
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for PathBuf {
    fn read(value: &Value) -> Result<Self, String> {
        value.text_for("a path in quotes").map(Self::from)
    }

    fn show(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Setting for SocketAddr {
    fn read(value: &Value) -> Result<Self, String> {
        let wanted = "an address with a port, like \"127.0.0.1:8080\" or \"[::]:8080\"";
        value.text_for(wanted)?.trim().parse().map_err(|_| format!("must be {wanted}"))
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

/// The longest duration accepted, about a century: adding it to any instant cannot overflow, and nobody waits longer.
const LONGEST: Duration = Duration::from_hours(36_500 * 24);

/// Units from the longest, each with its length in milliseconds.
const UNITS: [(&str, u128); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Setting for Duration {
    fn read(value: &Value) -> Result<Self, String> {
        let wanted = "a duration with its unit, like \"500ms\", \"30s\", \"5m\", \"24h\" or \"30d\"";
        let text = value.text_for(wanted)?.trim();
        let duration = humantime::parse_duration(text).map_err(|_| format!("must be {wanted}"))?;
        if duration > LONGEST { Err("must be at most 36500d".to_owned()) } else { Ok(duration) }
    }

    fn show(&self) -> String {
        let (millis, rest) = (self.as_millis(), self.subsec_nanos() % 1_000_000);
        if rest != 0 {
            return quoted(&humantime::format_duration(*self).to_string());
        }
        if millis == 0 {
            return quoted("0s");
        }
        let fitting = UNITS.iter().find(|(_, length)| millis.is_multiple_of(*length));
        let (unit, length) = fitting.copied().unwrap_or(("ms", 1));
        quoted(&format!("{}{unit}", millis / length))
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn read(value: &Value) -> Result<Self, String> {
        let items = match value {
            Value::List(items) => items.clone(),
            Value::Untyped(text) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::Untyped(item.to_owned()))
                .collect(),
            other => return Err(format!("must be a list, not {}", other.kind())),
        };
        let read = |(index, item)| T::read(item).map_err(|message| format!("item {} {message}", index + 1));
        items.iter().enumerate().map(read).collect()
    }

    fn show(&self) -> String {
        let items: Vec<_> = self.iter().map(Setting::show).collect();
        format!("[{}]", items.join(", "))
    }
}

/// A type of a few named values. Every such type is a [`Setting`].
pub trait EnumSetting: Copy + PartialEq + 'static {
    /// Every value under the name it has in the configuration.
    const ALL: &'static [(&'static str, Self)];

    /// The name of this value.
    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

impl<T: EnumSetting> Setting for T {
    fn read(value: &Value) -> Result<Self, String> {
        let names: Vec<_> = Self::ALL.iter().map(|(name, _)| quoted(name)).collect();
        let wanted = names.join(" or ");
        let text = value.text_for(&wanted)?.trim();
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| format!("must be {wanted}"))
    }

    fn show(&self) -> String {
        quoted(self.name())
    }
}
