//! One error type for the whole crate; its kind says what the caller can do about it.

use std::fmt;
use std::io;

/// What went wrong, by what the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is out of its range: change the configuration.
    InvalidConfig,
    /// The job cannot run as it is defined: change the job.
    InvalidGraph,
    /// Another process holds the store: stop it, or use another directory.
    Locked,
    /// The directory is no millpond store, comes from a newer version, or holds state that the job
    /// would drop or cannot read: nothing was changed.
    Incompatible,
    /// Stored bytes are damaged. The message names the file, the place and what to do.
    Corrupt,
    /// The disk is full. The job waits and goes on when space returns; only a stop while it waits
    /// reports this.
    DiskFull,
    /// The operating system refused an operation on a file or a socket.
    Io,
    /// An input cannot be read or a receiver failed for good.
    Source,
    /// A user's closure panicked or returned an error on every attempt.
    UserCode,
    /// A batch that is computed again changed the state in another way than before: a closure does not depend on its
    /// arguments alone, or the code has changed.
    Nondeterministic,
    /// The job is stopped, or stops: nothing more is taken.
    Stopped,
}

/// The error of every fallible operation of the crate.
///
/// The message is one line that names what, where and, where there is one, the remedy; only a start that is refused
/// adds its [plan](crate::UpgradePlan) in the lines after it. The cause is in
/// [`source`](std::error::Error::source) and not repeated in the message.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of every fallible operation of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with a one-line message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), source: None }
    }

    /// The same error with its cause attached.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// An operating-system error met while doing `what`; a full disk gets a kind of its own.
    pub(crate) fn io(what: impl fmt::Display, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
            _ => ErrorKind::Io,
        };
        Error::new(kind, what.to_string()).caused_by(source)
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Corrupt, message)
    }

    /// Puts the place where an error surfaced in front of it.
    pub(crate) fn within(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The message followed by the messages of its causes, for logs and command lines.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_a_kind_of_its_own() {
        let full = Error::io("append to log", io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.kind(), ErrorKind::DiskFull);
        let other = Error::io("append to log", io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(other.kind(), ErrorKind::Io);
    }

    #[test]
    fn the_cause_is_in_the_chain_and_not_in_the_message() {
        let error = Error::io("read x", io::Error::other("cable pulled")).within("batch 3");
        assert_eq!(error.to_string(), "batch 3: read x");
        assert_eq!(error.chain(), "batch 3: read x: cable pulled");
    }
}
