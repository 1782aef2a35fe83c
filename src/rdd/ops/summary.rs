use std::sync::Arc;

use crate::rdd::{Rdd, Record};
use crate::record::Data;

impl<T: Record> Rdd<T> {
    /// An RDD with one record: how many there are, 0 for none.
    pub(crate) fn counted(&self) -> Rdd<u64> {
        let none = Rdd::of_collection(&self.executor, vec![Arc::new(vec![((), 0u64)])]);
        let counts = self.narrow("count", |task, partition, parent, out| {
            let mut records = 0u64;
            parent.compute(task, partition, &mut |chunk| {
                records += chunk.len() as u64;
                Ok(())
            })?;
            out.emit(((), records));
            Ok(())
        });
        counts.union(&none).reduce_by_key_into(1, Arc::new(|a, b| a + b)).map(|((), count)| count)
    }
}

impl<T: Data> Rdd<T> {
    /// An RDD with one record merged from all, or none when there are none.
    pub(crate) fn reduced<F>(&self, merge: Arc<F>) -> Rdd<T>
    where
        F: Fn(T, T) -> T + Send + Sync + 'static,
    {
        self.map(|record| ((), record)).reduce_by_key_into(1, merge).map(|((), record)| record)
    }
}
