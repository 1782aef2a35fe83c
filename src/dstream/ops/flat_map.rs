use std::sync::Arc;

use crate::dstream::DStream;
use crate::rdd::{Emitter, Record};

impl<T: Record> DStream<T> {
    /// Each record turned into any number of others without an allocation for each; see
    /// [`Rdd::flat_map`](crate::Rdd::flat_map).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let words = lines.flat_map(|line, out| line.words().for_each(|word| out.emit(word)));
    /// words.print(10);
    /// # Ok(()) }
    /// ```
    pub fn flat_map<U: Record>(
        &self,
        each: impl Fn(T, &mut Emitter<'_, U>) + Send + Sync + 'static,
    ) -> DStream<U> {
        let each = Arc::new(each);
        self.derive("flat_map", move |rdd, _| {
            let each = each.clone();
            Ok(rdd.flat_map(move |record, out: &mut Emitter<'_, U>| each(record, out)))
        })
    }
}
