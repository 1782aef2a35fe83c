use crate::error::Result;
use crate::rdd::ops::keyed::GroupsNode;
use crate::rdd::shuffle::decode_key;
use crate::rdd::{NodeInfo, Rdd};
use crate::record::{Data, DataBuffer, Key, KeyHash};

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// Every value with what `find` has for its key, asked once for each key. One shuffle, none where the
    /// pairs are partitioned by key already.
    pub(crate) fn look_up_into<W: Data>(
        &self,
        operation: &'static str,
        partitions: usize,
        find: impl Fn(KeyHash, &[u8], &mut DataBuffer) -> Result<Option<W>> + Send + Sync + 'static,
    ) -> Rdd<(K, (V, Option<W>))> {
        let keyed = self.keyed(operation);
        let info = NodeInfo::new(&self.executor, operation, partitions);
        let node = GroupsNode::new(info, keyed.dependencies(), move |group, out| {
            let grouped = keyed.grouped(group)?;
            let mut buffer = DataBuffer::default();
            for at in 0..grouped.keys.len() {
                let found = find(grouped.keys.hash(at), grouped.keys.key(at), &mut buffer)?;
                let key: K = decode_key(grouped.keys.key(at))?;
                for value in grouped.values(at) {
                    out.emit((key.clone(), (value.clone(), found.clone())));
                }
            }
            out.check()
        });
        Rdd::new(&self.executor, node)
    }
}
