use std::sync::Arc;

use crate::dstream::event_time::EventStream;
use crate::rdd::{Emitter, Record};
use crate::record::{Data, Key};

impl<T: Record> EventStream<T> {
    /// Each record turned into another of the same time. Lazy, narrow.
    pub fn map<U: Record>(&self, each: impl Fn(T) -> U + Send + Sync + 'static) -> EventStream<U> {
        self.with_timed(self.timed.map(move |(time_ms, record)| (time_ms, each(record))))
    }

    /// The records for which `keep` holds. Lazy, narrow. The others still move the watermark.
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> EventStream<T> {
        self.with_timed(self.timed.filter(move |(_, record)| keep(record)))
    }

    /// Each record turned into any number of others of the same time, without an allocation for each. Lazy,
    /// narrow.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # use std::time::Duration;
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let (orders, _queue) = context.queue_stream::<(u64, Vec<String>)>("orders");
    /// # let watermarks = millpond::Watermarks::bounded("orders", Duration::from_secs(10));
    /// let orders = orders.with_event_time(watermarks, |(time_ms, _)| *time_ms);
    /// let articles = orders.flat_map(|(_, articles), out| articles.into_iter().for_each(|one| out.emit(one)));
    /// articles.with_times().print(10);
    /// # Ok(()) }
    /// ```
    pub fn flat_map<U: Record>(
        &self,
        each: impl Fn(T, &mut Emitter<'_, U>) + Send + Sync + 'static,
    ) -> EventStream<U> {
        let each = Arc::new(each);
        self.with_timed(self.timed.derive("flat_map", move |rdd, _| {
            let each = each.clone();
            Ok(rdd.by_chunk("flat_map", move |chunk, out| {
                let mut made = Vec::new();
                for (time_ms, record) in chunk.drain(..) {
                    Emitter::gather(&mut made, |made| each(record, made));
                    made.drain(..).for_each(|record| out.emit((time_ms, record)));
                }
            }))
        }))
    }

    /// Each record with a key, for what goes by one. Lazy, narrow.
    pub fn key_by<K: Key>(&self, key_of: impl Fn(&T) -> K + Send + Sync + 'static) -> EventStream<(K, T)> {
        self.map(move |record| (key_of(&record), record))
    }
}

impl<K: Key, V: Data> EventStream<(K, V)> {
    /// Each value turned into another of the same key and time. Lazy, narrow.
    pub fn map_values<W: Data>(&self, each: impl Fn(V) -> W + Send + Sync + 'static) -> EventStream<(K, W)> {
        self.map(move |(key, value)| (key, each(value)))
    }
}
