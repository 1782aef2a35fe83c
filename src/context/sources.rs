//! The streams that a job begins with.

use std::marker::PhantomData;
use std::path::PathBuf;

use crate::context::StreamingContext;
use crate::dstream::DStream;
use crate::record::{Data, Text};
use crate::source::{
    BinaryRecordsSource, Decode, Decoded, DecodedSocketReceiver, DirectorySource, ReceiverError,
    decode_raw_frame,
};

impl StreamingContext {
    /// The lines of the files that appear in a directory, each file taken exactly once; see
    /// [`DirectorySource`]. For a choice of files, give [`file_stream`](Self::file_stream) a source of your own.
    pub fn text_file_stream(&self, name: &str, directory: impl Into<PathBuf>) -> DStream<Text> {
        self.file_stream(name, DirectorySource::new(directory))
    }

    /// The lines of the files that appear in a directory, chosen as the source says.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// use millpond::DirectorySource;
    ///
    /// let orders = DirectorySource::new("/var/spool/orders").filter(|name| name.ends_with(".csv"));
    /// context.file_stream("orders", orders.new_files_only()).print(10);
    /// # Ok(()) }
    /// ```
    pub fn file_stream(&self, name: &str, source: DirectorySource) -> DStream<Text> {
        self.replayable_stream(name, source)
    }

    /// The records of `length` bytes each in the files that appear in a directory, each file taken exactly once;
    /// see [`BinaryRecordsSource`].
    pub fn binary_records_stream(
        &self,
        name: &str,
        directory: impl Into<PathBuf>,
        length: usize,
    ) -> DStream<Vec<u8>> {
        self.replayable_stream(name, BinaryRecordsSource::new(directory, length))
    }

    /// The records that `decode` cuts out of the bytes that a TCP server sends.
    ///
    /// `decode` is given the bytes from the begin of the next record on. It pushes the records that are complete
    /// and returns how many bytes they took, or 0 when more has to come first. When it fails or panics, or a
    /// record does not end within a block (1 MiB), the connection is closed and made anew, as it is when the
    /// server ends it: after 100 ms, doubling up to 10 s. Records are logged before they count; while the job
    /// is behind, nothing is read from the socket. What was not durable when the job was killed is lost.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// // Temperatures as big-endian numbers of two bytes.
    /// let readings = context.socket_stream("readings", "127.0.0.1:9999", |bytes, readings: &mut Vec<i16>| {
    ///     let whole = bytes.chunks_exact(2);
    ///     readings.extend(whole.map(|pair| i16::from_be_bytes([pair[0], pair[1]])));
    ///     Ok(bytes.len() / 2 * 2)
    /// });
    /// readings.print(10);
    /// # Ok(()) }
    /// ```
    pub fn socket_stream<T: Data>(
        &self,
        name: &str,
        address: &str,
        decode: impl Fn(&[u8], &mut Vec<T>) -> Result<usize, ReceiverError> + Send + Sync + 'static,
    ) -> DStream<T> {
        self.decoded_stream(name, address, self.components.settings.block_bytes_max, decode)
    }

    /// The records in the frames that a TCP server sends, each made by
    /// [`encode_raw_frame`](crate::encode_raw_frame). Every archive is validated before it is logged. A frame that
    /// is not sound, or larger than a block (1 MiB), closes the connection, which is then made anew; otherwise as
    /// [`socket_stream`](Self::socket_stream).
    pub fn raw_socket_stream<T: Data>(&self, name: &str, address: &str) -> DStream<T> {
        let frame_bytes_max = self.components.settings.block_bytes_max;
        self.decoded_stream(name, address, frame_bytes_max + 4, move |bytes, records| {
            decode_raw_frame(bytes, frame_bytes_max, records)
        })
    }

    fn decoded_stream<T: Data>(
        &self,
        name: &str,
        address: &str,
        record_bytes_max: usize,
        decode: impl Decode<T>,
    ) -> DStream<T> {
        let receiver = DecodedSocketReceiver { address: address.to_owned(), record_bytes_max, decode };
        self.receiver_stream(name, Decoded { receiver, records: PhantomData })
    }
}
