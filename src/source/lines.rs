//! Lines of a block of text, as slices of it.

use std::sync::Arc;

use crate::error::Result;
use crate::rdd::Emitter;
use crate::record::Text;
use crate::record::mask::{WINDOW_BYTES, mask_of};

/// Emits the lines of `block` from byte `start` on, each without its `\n` or `\r\n`. A last line without an
/// end counts. Returns how many there were.
pub(crate) fn emit_lines(block: &Arc<Vec<u8>>, start: usize, out: &mut Emitter<'_, Text>) -> Result<u64> {
    let (mut lines, mut from, mut window) = (0, start, start);
    // Where the next line begins.
    let mut emit = |from, end| {
        with_line(block, from, end, |line| out.emit(line));
        lines += 1;
        end + 1
    };
    while let Some(bytes) = block[window..].first_chunk::<WINDOW_BYTES>() {
        let mut ends = mask_of(bytes, |byte| byte == b'\n');
        while ends != 0 {
            from = emit(from, window + ends.trailing_zeros() as usize);
            ends &= ends - 1;
        }
        window += WINDOW_BYTES;
    }
    for end in memchr::memchr_iter(b'\n', &block[window..]) {
        from = emit(from, window + end);
    }
    if from < block.len() {
        emit(from, block.len());
    }
    out.check()?;
    Ok(lines)
}

#[inline(always)]
fn with_line(block: &Arc<Vec<u8>>, start: usize, end: usize, with: impl FnOnce(Text)) {
    let end = if end > start && block[end - 1] == b'\r' { end - 1 } else { end };
    Text::with_slice_of(block, start, end, with);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines_of(bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut collect = |chunk: &mut Vec<Text>| {
            lines.extend(chunk.drain(..).map(|line| line.to_string()));
            Ok(())
        };
        let mut emitter = Emitter::new(&mut collect);
        let count = emit_lines(&Arc::new(bytes.to_vec()), 0, &mut emitter).unwrap();
        emitter.finish().unwrap();
        assert_eq!(count, lines.len() as u64);
        lines
    }

    #[test]
    fn lines_end_at_newlines_with_or_without_a_carriage_return() {
        assert_eq!(lines_of(b"one\r\ntwo\n\nfour\r\r\nlast"), ["one", "two", "", "four\r", "last"]);
        assert_eq!(lines_of(b""), Vec::<String>::new());
        assert_eq!(lines_of(b"\n"), [""]);
        assert_eq!(lines_of(b"nul\0byte\xff\n"), ["nul\0byte\u{fffd}"]);
    }

    proptest! {
        #[test]
        fn lines_are_what_is_between_newlines(
            lines in prop::collection::vec(prop_oneof!["[a\r]{0,3}", "[a-z\r]{0,200}"], 0..60), ends in any::<bool>(),
        ) {
            let text = lines.join("\n") + if ends && !lines.is_empty() { "\n" } else { "" };
            let mut model: Vec<_> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
            // What follows the last end is a line if it is anything.
            if text.is_empty() || text.ends_with('\n') {
                model.pop();
            }
            prop_assert_eq!(lines_of(text.as_bytes()), model);
        }
    }
}
