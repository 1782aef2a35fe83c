//! A record that could not be processed.

use std::fmt::{self, Display, Write};

/// A record that a fallible operation could not process, with the reason and where it came from.
///
/// It can be stored, shuffled and saved like any record whose `T` can. It displays as one line, `origin: error:
/// record`, with control characters escaped.
///
/// ```
/// let letter = millpond::DeadLetter {
///     record: "x1\ny2".to_owned(),
///     error: "not a number".to_owned(),
///     origin: "block 17 of `lines`, record 12".to_owned(),
/// };
/// assert_eq!(letter.to_string(), r"block 17 of `lines`, record 12: not a number: x1\ny2");
/// ```
#[crate::data]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter<T> {
    /// The record as the operation was given it.
    pub record: T,
    /// What the closure returned, or `panicked: ` and the panic's message. At most about 1,000 bytes.
    pub error: String,
    /// The block or range that the record was read from, or the partition of a shuffle, and its place, counted
    /// from 1, among the records that the operation was given from there. The same whenever the batch is
    /// computed again.
    pub origin: String,
}

impl<T: Display> Display for DeadLetter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(OneLine(f), "{}: {}: {}", self.origin, self.error, self.record)
    }
}

/// Escapes what would end the line.
struct OneLine<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c.is_control() {
            true => write!(self.0, "{}", c.escape_default()),
            false => self.0.write_char(c),
        })
    }
}
