//! All of an operator's state as a stream.

use std::sync::Arc;

use crate::dstream::batch_rows::{BatchRows, RowsSlot};
use crate::dstream::keyed::row::RowParts;
use crate::error::Result;
use crate::rdd::shuffle::{decode_key, groups_of_partition};
use crate::record::{Data, DataBuffer, Key};
use crate::state::OperatorState;

/// Every key and its state, as of each batch.
pub(crate) type Snapshots<K, S> = RowsSlot<(K, S)>;

/// The state as the batch in progress has left it.
pub(crate) fn snapshot<K: Key, S: Data>(
    state: &Arc<OperatorState>,
    partitions: usize,
) -> Arc<BatchRows<(K, S)>> {
    let state = state.clone();
    BatchRows::new(partitions, move |partition| read(&state, groups_of_partition(partition, partitions)))
}

fn read<K: Key, S: Data>(state: &OperatorState, groups: std::ops::Range<usize>) -> Result<Vec<(K, S)>> {
    let mut rows = Vec::new();
    let mut buffer = DataBuffer::default();
    for group in groups {
        let mut group = state.group(group);
        group.load()?;
        let table = group.table();
        for at in table.live() {
            let Some(row) = table.value(at as usize) else { continue };
            if let Some(state) = RowParts::of(row)?.state(&mut buffer)? {
                rows.push((decode_key(table.key(at as usize))?, state));
            }
        }
    }
    Ok(rows)
}
