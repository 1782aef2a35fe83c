//! Lines of a block of text, as slices of it.

use std::sync::Arc;

use crate::error::Result;
use crate::rdd::Emitter;
use crate::record::Text;

/// Emits the lines of `block` from byte `start` on, each without its `\n` or `\r\n`. A last line without an
/// end counts. Returns how many there were.
pub(crate) fn emit_lines(block: &Arc<Vec<u8>>, start: usize, out: &mut Emitter<'_, Text>) -> Result<u64> {
    let mut lines = 0;
    let mut from = start;
    for end in memchr::memchr_iter(b'\n', &block[start..]) {
        let end = start + end;
        out.emit(line(block, from, end));
        from = end + 1;
        lines += 1;
    }
    if from < block.len() {
        out.emit(line(block, from, block.len()));
        lines += 1;
    }
    out.check()?;
    Ok(lines)
}

#[inline]
fn line(block: &Arc<Vec<u8>>, start: usize, end: usize) -> Text {
    let end = if end > start && block[end - 1] == b'\r' { end - 1 } else { end };
    Text::slice_of(block, start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
