//! What of a batch's input reaches one key of an operator.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::Batch;
use crate::dstream::DStream;
use crate::error::Result;
use crate::format::records::LineageNode;
use crate::id::StreamId;
use crate::record::{Data, DataBuffer, Key};

/// Operations whose records in a batch follow from the batch's input alone, so that they can be computed from a part of
/// it beside the batch. Any other one is taken to keep something.
const WITHOUT_STATE: [&str; 24] = [
    "cache",
    "cogroup",
    "combine_by_key",
    "count",
    "count_by_value",
    "filter",
    "flat_map",
    "flat_map_values",
    "full_outer_join",
    "glom",
    "group_by_key",
    "join",
    "left_outer_join",
    "map",
    "map_partitions",
    "map_values",
    "persist",
    "reduce",
    "reduce_by_key",
    "repartition",
    "right_outer_join",
    "transform",
    "union",
    "union_all",
];

/// The archives of the values that a keyed stream has for a key in a batch, in their order.
pub(crate) fn values_for<K: Key, V: Data>(
    stream: &DStream<(K, V)>,
    batch: &Batch,
    key: &[u8],
) -> Result<Vec<Vec<u8>>> {
    let wanted = key.to_vec();
    let of_key = stream.rdd(batch)?.filter(move |(key, _): &(K, V)| {
        let mut scratch = Vec::new();
        key.with_key_bytes(&mut scratch, |bytes| bytes == wanted)
    });
    let mut buffer = DataBuffer::default();
    let archive = |(_, value): (K, V)| {
        value.encode(&mut buffer)?;
        Ok(buffer.as_bytes().to_vec())
    };
    of_key.collect()?.into_iter().map(archive).collect()
}

/// The input streams that an operator is computed from, when there is nothing that keeps state between it and them.
pub(crate) fn inputs_without_state(nodes: &[LineageNode], operator: &str) -> Option<BTreeSet<StreamId>> {
    let by_id: BTreeMap<u32, &LineageNode> = nodes.iter().map(|node| (node.id, node)).collect();
    let node = nodes.iter().find(|node| node.name == operator && !node.parents.is_empty())?;
    let (mut open, mut seen, mut inputs) = (node.parents.clone(), BTreeSet::new(), BTreeSet::new());
    while let Some(id) = open.pop() {
        let node = by_id.get(&id)?;
        if !seen.insert(id) {
            continue;
        }
        if node.parents.is_empty() {
            inputs.insert(StreamId::of(&node.name));
        } else if !node.name.is_empty() || !WITHOUT_STATE.contains(&&*node.operation) {
            return None;
        }
        open.extend(&node.parents);
    }
    Some(inputs)
}
