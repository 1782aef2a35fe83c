//! Lines from a TCP server.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::error::Result;
use crate::format::block::BlockEncoding;
use crate::receive_log::BlockBuffers;
use crate::source::receiver::{Inlet, ReceiverError, stopped};
use crate::store::extents::{BLOCK_DATA_AT, block_buffer};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to `address` and cuts what it sends into blocks of whole lines.
pub(crate) struct SocketReceiver {
    pub(crate) address: String,
    pub(crate) inlet: Inlet,
}

/// Connects, or gives up after a while.
pub(super) async fn connect(address: &str) -> Result<TcpStream, ReceiverError> {
    Ok(tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??)
}

impl SocketReceiver {
    /// One connection, until it ends, fails or the job stops. An end is an error here: the supervisor
    /// connects again.
    pub(crate) async fn receive(self) -> Result<(), ReceiverError> {
        let mut stop = self.inlet.stop.clone();
        let socket = tokio::select! {
            socket = connect(&self.address) => socket?,
            () = stopped(&mut stop) => return Ok(()),
        };
        tracing::info!(stream = &*self.inlet.name, address = self.address, "connected");
        self.read(socket).await
    }

    async fn read(self, mut socket: TcpStream) -> Result<(), ReceiverError> {
        let mut stop = self.inlet.stop.clone();
        let mut block = LineBlock::new(self.inlet.block_bytes, self.inlet.log.buffers().clone());
        let mut due: Option<Instant> = None;
        loop {
            let at = due.unwrap_or_else(far_future);
            tokio::select! {
                read = socket.read_buf(&mut block.frame) => match read {
                    Ok(0) => {
                        self.submit(block.take_all()).await?;
                        return Err("the server closed the connection".into());
                    }
                    Ok(_) => {
                        self.inlet.log.activity().note();
                        due = due.or_else(|| Some(deadline(self.inlet.block_interval)));
                        if block.is_full() {
                            due = None;
                            self.submit(block.take_full()).await?;
                        }
                    }
                    Err(cause) => {
                        self.submit(block.take_lines()).await?;
                        if !block.is_empty() {
                            tracing::warn!(stream = &*self.inlet.name, bytes = block.len(), "the connection broke within a line, which is dropped");
                        }
                        return Err(cause.into());
                    }
                },
                () = tokio::time::sleep_until(at), if due.is_some() => {
                    due = None;
                    self.submit(block.take_lines()).await?;
                }
                () = stopped(&mut stop) => {
                    self.submit(block.take_lines()).await?;
                    return Ok(());
                }
            }
        }
    }

    async fn submit(&self, frame: Option<Vec<u8>>) -> Result<()> {
        let mut rest = frame;
        while let Some(mut frame) = rest {
            // A job that stops takes what was read as it is.
            let stops = *self.inlet.stop.borrow();
            let lines_max = if stops { usize::MAX } else { self.inlet.admission.block_records_max() };
            rest = split_lines(&mut frame, lines_max);
            if self.inlet.admission.rate().is_some() {
                self.inlet.admit(count_lines(&frame)).await;
            }
            self.inlet.log.submit(self.inlet.header(BlockEncoding::Lines, 0), frame).await?;
            self.inlet.note_stored();
        }
        Ok(())
    }
}

fn count_lines(frame: &[u8]) -> usize {
    let ends = memchr::memchr_iter(b'\n', &frame[BLOCK_DATA_AT..]).count();
    ends + usize::from(frame.last() != Some(&b'\n'))
}

/// Cuts a block after `most` lines and returns what follows them.
fn split_lines(frame: &mut Vec<u8>, most: usize) -> Option<Vec<u8>> {
    if most == usize::MAX {
        return None;
    }
    let end = memchr::memchr_iter(b'\n', &frame[BLOCK_DATA_AT..]).nth(most.saturating_sub(1))?;
    let end = BLOCK_DATA_AT + end + 1;
    if end == frame.len() {
        return None;
    }
    let mut rest = block_buffer(frame.len() - end);
    rest.extend_from_slice(&frame[end..]);
    frame.truncate(end);
    Some(rest)
}

fn deadline(after: Duration) -> Instant {
    #[allow(
        clippy::disallowed_methods,
        reason = "when a block is cut is real time, and decides nothing that is replayed"
    )]
    let now = Instant::now();
    now + after
}

fn far_future() -> Instant {
    deadline(Duration::from_secs(86_400))
}

/// Bytes of lines on their way to becoming a block.
struct LineBlock {
    frame: Vec<u8>,
    block_bytes: usize,
    buffers: BlockBuffers,
}

impl LineBlock {
    fn new(block_bytes: usize, buffers: BlockBuffers) -> Self {
        LineBlock { frame: buffers.take(block_bytes), block_bytes, buffers }
    }

    fn len(&self) -> usize {
        self.frame.len() - BLOCK_DATA_AT
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_full(&self) -> bool {
        self.len() >= self.block_bytes
    }

    /// The whole lines, leaving what follows the last line end.
    fn take_lines(&mut self) -> Option<Vec<u8>> {
        let end = memchr::memrchr(b'\n', &self.frame[BLOCK_DATA_AT..])? + 1;
        let mut next = self.buffers.take(self.block_bytes);
        next.extend_from_slice(&self.frame[BLOCK_DATA_AT + end..]);
        self.frame.truncate(BLOCK_DATA_AT + end);
        Some(std::mem::replace(&mut self.frame, next))
    }

    /// The whole lines of a full block, or all of it when one line fills it.
    fn take_full(&mut self) -> Option<Vec<u8>> {
        self.take_lines().or_else(|| self.take_all())
    }

    /// Everything, a last line without an end included.
    fn take_all(&mut self) -> Option<Vec<u8>> {
        if self.is_empty() {
            return None;
        }
        Some(std::mem::replace(&mut self.frame, self.buffers.take(self.block_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(frame: Option<Vec<u8>>) -> Option<String> {
        frame.map(|frame| String::from_utf8(frame[BLOCK_DATA_AT..].to_vec()).unwrap())
    }

    #[test]
    fn blocks_hold_whole_lines_and_long_lines_are_cut() {
        let mut block = LineBlock::new(16, BlockBuffers::default());
        block.frame.extend_from_slice(b"one\ntwo\nthr");
        assert_eq!(text(block.take_lines()), Some("one\ntwo\n".into()));
        assert_eq!(text(block.take_lines()), None);
        block.frame.extend_from_slice(b"ee and a half and more");
        assert!(block.is_full());
        assert_eq!(text(block.take_full()), Some("three and a half and more".into()));
        assert_eq!(text(block.take_all()), None);
        block.frame.extend_from_slice(b"end");
        assert_eq!(text(block.take_all()), Some("end".into()));
    }

    #[test]
    fn a_block_is_split_after_so_many_lines_and_none_is_lost() {
        for whole in ["a\nbb\n\nc\n", "a\nbb\n\nc", "a"] {
            for most in 1..6 {
                let mut frame = block_buffer(0);
                frame.extend_from_slice(whole.as_bytes());
                let (mut rest, mut parts) = (Some(frame), String::new());
                while let Some(mut frame) = rest {
                    rest = split_lines(&mut frame, most);
                    assert!(rest.is_none() || count_lines(&frame) == most);
                    assert!((1..=most).contains(&count_lines(&frame)));
                    parts.push_str(&text(Some(frame)).unwrap());
                }
                assert_eq!(parts, whole);
            }
        }
    }
}
