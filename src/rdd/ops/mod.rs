//! One operation, one file.

mod cache;
mod collection;
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
mod union;
