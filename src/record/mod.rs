//! What flows through a job: text that is a slice of its block, keys as bytes, values as archives.

mod data;
mod dead_letter;
mod described;
pub(crate) mod growth;
mod key;
mod key_table;
mod key_text;
pub(crate) mod mask;
mod nested;
mod text;
mod window_result;
mod words;

pub use data::{Data, DataBuffer};
pub(crate) use data::{append_encoded, append_record};
pub use dead_letter::DeadLetter;
pub(crate) use described::schema_hash;
pub use described::{Described, Fields, Schema, Variants};
pub use key::Key;
pub(crate) use key::{KeyHash, group_of, hash_of, without_group};
pub(crate) use key_table::KeyTable;
pub(crate) use key_text::key_text;
#[cfg(feature = "testkit")]
pub(crate) use key_text::known_key_text;
#[cfg(any(feature = "tool", feature = "testkit"))]
pub(crate) use key_text::outermost;
pub(crate) use nested::Nested;
pub use text::Text;
pub use window_result::WindowResult;
pub use words::Words;
