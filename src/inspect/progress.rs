//! How far a verb is, for whoever waits for it.

use std::cell::RefCell;
use std::sync::Arc;

/// Is told how far a verb is. Verbs work on several threads and tell it from all of them.
pub trait Progress: Send + Sync {
    /// A part of the work begins and the one before it is over: `what` is a few words such as "read the state",
    /// `total_bytes` what there is to do, 0 when that is not known.
    fn begin(&self, what: &str, total_bytes: u64);

    /// So much more of the part is done. Beside a running job it may come to more than was said.
    fn advance(&self, bytes: u64);
}

thread_local! {
    static WATCHING: RefCell<Option<Arc<dyn Progress>>> = const { RefCell::new(None) };
}

/// Calls `verb`, which tells `progress` how far it is: every verb of this module does that where it takes long.
///
/// ```
/// use std::sync::Arc;
/// use millpond::inspect::{self, Progress};
///
/// struct Log;
/// impl Progress for Log {
///     fn begin(&self, what: &str, total_bytes: u64) {
///         eprintln!("{what}: {total_bytes} bytes");
///     }
///     fn advance(&self, _: u64) {}
/// }
/// let report = inspect::watched(Arc::new(Log), || inspect::verify("no-such-store".as_ref()));
/// assert!(report.is_err());
/// ```
pub fn watched<T>(progress: Arc<dyn Progress>, verb: impl FnOnce() -> T) -> T {
    let before = Restore(WATCHING.replace(Some(progress)));
    let outcome = verb();
    drop(before);
    outcome
}

/// Puts back who was told before, also when the verb panics.
struct Restore(Option<Arc<dyn Progress>>);

impl Drop for Restore {
    fn drop(&mut self) {
        WATCHING.replace(self.0.take());
    }
}

/// Tells whoever watched the verb when its store was opened.
#[derive(Clone)]
pub(crate) struct Steps(Option<Arc<dyn Progress>>);

impl Steps {
    /// Of the verb that this thread runs.
    pub(crate) fn of_verb() -> Self {
        Steps(WATCHING.with_borrow(Clone::clone))
    }

    pub(crate) fn begin(&self, what: &str, total_bytes: u64) {
        if let Some(progress) = &self.0 {
            progress.begin(what, total_bytes);
        }
    }

    pub(crate) fn advance(&self, bytes: u64) {
        if let Some(progress) = &self.0 {
            progress.advance(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Told(Mutex<Vec<(String, u64)>>);

    impl Progress for Told {
        fn begin(&self, what: &str, total_bytes: u64) {
            self.0.lock().unwrap().push((what.to_owned(), total_bytes));
        }

        fn advance(&self, bytes: u64) {
            self.0.lock().unwrap().last_mut().unwrap().1 -= bytes;
        }
    }

    #[test]
    fn only_the_watched_verb_tells() {
        let told = Arc::new(Told::default());
        Steps::of_verb().begin("unseen", 1);
        let steps = watched(told.clone(), || {
            let steps = Steps::of_verb();
            steps.begin("read", 10);
            steps
        });
        std::thread::spawn(move || steps.advance(4)).join().unwrap();
        Steps::of_verb().begin("unseen", 1);
        assert_eq!(*told.0.lock().unwrap(), [("read".to_owned(), 6)]);
    }
}
