//! One operation, one file. The stateless ones do to every batch what the [`Rdd`](crate::Rdd) operation of
//! the same name does.

mod pairs;
mod stateless;
mod transform;
mod update_state_by_key;

pub use update_state_by_key::{StateSpec, Visit};
