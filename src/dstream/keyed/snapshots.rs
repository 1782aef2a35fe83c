//! All of an operator's state as a stream.

use std::sync::Arc;

use crate::dstream::batch_rows::{BatchRows, RowsSlot, live_rows};
use crate::dstream::keyed::row::RowParts;
use crate::rdd::shuffle::groups_of_partition;
use crate::record::{Data, Key};
use crate::state::OperatorState;

/// Every key and its state, as of each batch.
pub(crate) type Snapshots<K, S> = RowsSlot<(K, S)>;

/// The state as the batch in progress has left it.
pub(crate) fn snapshot<K: Key, S: Data>(
    state: &Arc<OperatorState>,
    partitions: usize,
) -> Arc<BatchRows<(K, S)>> {
    let state = state.clone();
    BatchRows::new(partitions, move |partition| {
        let groups = groups_of_partition(partition, partitions);
        live_rows(&state, groups, |row, buffer| RowParts::of(row)?.state(buffer))
    })
}
