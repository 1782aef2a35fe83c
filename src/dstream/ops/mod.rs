//! One operation, one file. The stateless ones do to every batch what the [`Rdd`](crate::Rdd) operation of
//! the same name does.

mod cache;
mod cogroup;
mod combine_by_key;
mod count;
mod count_by_value;
mod fallible;
mod filter;
mod flat_map;
mod flat_map_values;
mod full_outer_join;
mod glom;
mod group_by_key;
mod join;
mod left_outer_join;
mod map;
mod map_partitions;
mod map_values;
mod map_with_state;
mod persist;
mod reduce;
mod reduce_by_key;
mod repartition;
mod right_outer_join;
mod transform;
mod transform_with;
mod transform_with_state;
mod union;
mod union_all;
mod update_state_by_key;

pub use fallible::Fallible;
pub use map_with_state::{MapWithState, State};
pub use transform_with_state::{KeyContext, Timer};
