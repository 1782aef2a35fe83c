use crate::dstream::DStream;
use crate::dstream::shared::Dataset;
use crate::record::{Data, Key, group_of};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// Every value with the data set's row of its key; values without one are left out.
    ///
    /// Lazy; one shuffle of this stream, none where it is partitioned by key already, and none of the data
    /// set, whose rows are looked up where they are kept. A batch sees one version of the data set, and sees
    /// it again when it is replayed. An RDD that is kept and computed after its batch reads the rows of that
    /// time.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// use millpond::Reload;
    ///
    /// let (orders, _queue) = context.queue_stream::<(String, u64)>("orders");
    /// let prices = context.dataset("prices", Reload::once(), || Ok(vec![("tea".to_owned(), 3u64)]));
    /// let costs = orders.join_dataset(&prices).map_values(|(pieces, price)| pieces * price);
    /// costs.print(10);
    /// # Ok(()) }
    /// ```
    pub fn join_dataset<W: Data>(&self, dataset: &Dataset<K, W>) -> DStream<(K, (V, W))> {
        self.left_join_dataset(dataset).flat_map(|(key, (value, row)), out| {
            if let Some(row) = row {
                out.emit((key, (value, row)));
            }
        })
    }

    /// Every value with the data set's row of its key, if there is one; otherwise as
    /// [`join_dataset`](DStream::join_dataset).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # use millpond::Reload;
    /// let (orders, _queue) = context.queue_stream::<(String, u64)>("orders");
    /// let prices = context.dataset("prices", Reload::once(), || Ok(vec![("tea".to_owned(), 3u64)]));
    /// let unknown = orders.left_join_dataset(&prices).filter(|(_, (_, price))| price.is_none());
    /// unknown.print(10);
    /// # Ok(()) }
    /// ```
    pub fn left_join_dataset<W: Data>(&self, dataset: &Dataset<K, W>) -> DStream<(K, (V, Option<W>))> {
        let rows = dataset.rows.clone();
        self.derive_wide(
            "left_join_dataset",
            &[dataset.upstream(self.slide_ms)],
            move |rdd, _, partitions| {
                let rows = rows.clone();
                Ok(rdd.look_up_into("left_join_dataset", partitions, move |hash, key, buffer| {
                    let mut group = rows.group(group_of(hash));
                    group.value(hash, key)?.map(|row| W::decode(&row, buffer)).transpose()
                }))
            },
        )
    }
}
