//! One operation, one file.

mod cache;
pub(super) mod collection;
mod filter;
mod flat_map;
mod group_by_key;
mod join;
mod keyed;
mod map;
mod map_partitions;
mod map_values;
mod reduce_by_key;
mod repartition;
mod summary;
mod try_filter;
mod try_flat_map;
mod try_map;
mod try_map_values;
mod union;
