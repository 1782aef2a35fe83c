//! Keyed state: live tables over archived segments.
//!
//! An operator's state is split into key groups. Each group is a [`table::StateTable`] of the keys that were
//! touched, over the parts of segments that a restart found; an entry moves into the table when its key comes
//! up, and the whole group does when that is cheaper. What a table holds that is newer than the last
//! checkpoint is its **delta**. Keys and values are bytes: nothing here depends on their types.

mod changes;
mod frozen;
mod group;
mod index;
mod memory;
mod merge;
mod operator;
mod order;
mod policy;
mod rows;
mod table;
mod upgrade;

pub(crate) use changes::ChangeSums;
pub(crate) use group::{GroupChanges, KeyGroup};
pub(crate) use memory::StateMemory;
pub(crate) use operator::{KnownSchema, OperatorState, StateType, check_schemas};
pub(crate) use policy::{SEGMENTS_MAX, oldest_to_keep};
pub(crate) use table::StateTable;
pub(crate) use upgrade::{Convert, Origins, Upgrade};
