//! What a window came to.

/// What a window came to for one key.
///
/// It can be stored and cross a shuffle where key and value are data.
#[crate::data]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowResult<K, A> {
    /// The key.
    pub key: K,
    /// The window's begin, in milliseconds since the Unix epoch.
    pub start_ms: u64,
    /// The first millisecond after the window.
    pub end_ms: u64,
    /// What the values of the key in the window came to.
    pub value: A,
    /// 0 when the window is emitted for the first time; one more each time that late records have changed it.
    /// A session with a revision above 0 takes the place of every earlier result of the key that lies within it.
    pub revision: u32,
}
