//! How the fields of a log line are written: `name=value`, with the value in quotes only where it would not be one word without
//! them, whatever its type. No value can end a line or begin a field.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// The field that holds what a line says.
const MESSAGE: &str = "message";

/// Fields of this prefix tell where a line of another library's log came from.
const OF_OTHER_LIBRARIES: &str = "log.";

#[derive(Debug)]
pub(super) struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Visitor { writer, is_first: true, written: Ok(()) };
        fields.record(&mut visitor);
        visitor.written
    }
}

struct Visitor<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    written: fmt::Result,
}

impl Visitor<'_> {
    fn write(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        if name == MESSAGE {
            return Escaped { writer: &mut self.writer, quotes: false }.write_fmt(value);
        }
        write!(self.writer, "{name}=")?;
        let mut look = Look { is_empty: true, is_word: true };
        look.write_fmt(value)?;
        if look.is_word && !look.is_empty {
            return self.writer.write_fmt(value);
        }
        self.writer.write_char('"')?;
        Escaped { writer: &mut self.writer, quotes: true }.write_fmt(value)?;
        self.writer.write_char('"')
    }
}

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.written.is_ok() && !field.name().starts_with(OF_OTHER_LIBRARIES) {
            self.written = self.write(field.name(), format_args!("{value:?}"));
        }
    }
}

/// Sees whether a value is one word.
struct Look {
    is_empty: bool,
    is_word: bool,
}

impl Write for Look {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.is_empty &= text.is_empty();
        self.is_word &= text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\=".contains(&byte));
        Ok(())
    }
}

/// Writes control characters, and within quotes what would end them, as escapes.
struct Escaped<'a, W> {
    writer: &'a mut W,
    quotes: bool,
}

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if letter.is_control() || (self.quotes && matches!(letter, '"' | '\\')) {
                write!(self.writer, "{}", letter.escape_default())?;
            } else {
                self.writer.write_char(letter)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn values_of_all_types_are_quoted_alike_and_none_breaks_a_line() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer().fmt_fields(Fields).with_ansi(false).without_time();
        let layer = layer.with_target(false).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let said = io::Error::other("refused: \"no\"");
            tracing::info!(text = "one", shown = %"two", debugged = ?Some(3), number = 4, none = None::<&str>, "it works");
            tracing::info!(text = "a b", shown = %said, empty = "", line = "x\ny\\z", equals = "a=b", "two\nlines");
        });
        let written = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = written.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "INFO it works text=one shown=two debugged=Some(3) number=4",
                r#"INFO two\nlines text="a b" shown="refused: \"no\"" empty="" line="x\ny\\z" equals="a=b""#,
            ]
        );
    }
}
