//! One operation, one file. The stateless ones do to every batch what the [`Rdd`](crate::Rdd) operation of
//! the same name does.

mod map_with_state;
mod pairs;
mod stateless;
mod transform;
mod transform_with_state;
mod update_state_by_key;

pub use map_with_state::{MapWithState, State};
pub use transform_with_state::{KeyContext, Timer};
