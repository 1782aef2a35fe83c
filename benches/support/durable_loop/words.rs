//! Where words begin and end, and their hashes.

/// A word in a block, with the hash that decides both its owner and its place
/// in the owner's table.
#[derive(Clone, Copy)]
pub(super) struct Word {
    pub(super) hash: u64,
    pub(super) start: u32,
    pub(super) len: u32,
}

/// Appends where words begin and end in `range` of a padded buffer. `in_word`
/// is 1 if the byte before the range belongs to a word; returns the same for
/// the end of the range.
pub(super) fn find_edges(
    buffer: &[u8],
    range: std::ops::Range<usize>,
    mut in_word: u64,
    edges: &mut Vec<u32>,
) -> u64 {
    let end = range.end;
    for at in range.step_by(64) {
        let mut space = whitespace_mask(&load(buffer, at));
        if end - at < 64 {
            // What follows the range is not part of it.
            space |= u64::MAX << (end - at);
        }
        // A bit is set where a byte differs in kind from the byte before it.
        let word = !space;
        let mut changes = word ^ (word << 1 | in_word);
        in_word = word >> 63;
        while changes != 0 {
            edges.push(at as u32 + changes.trailing_zeros());
            changes &= changes - 1;
        }
    }
    in_word
}

/// Sorts the words between pairs of edges by owner. The edge of a word that
/// has not ended is left for the next call.
pub(super) fn hash_words(buffer: &[u8], edges: &mut Vec<u32>, words: &mut [Vec<Word>]) {
    let owners = words.len() as u64;
    let mut pairs = edges.chunks_exact(2);
    for pair in &mut pairs {
        let (start, len) = (pair[0], pair[1] - pair[0]);
        let hash = hash_word(buffer, start as usize, len as usize);
        let word = Word { hash, start, len };
        // The owner comes from the lower half of the hash, the place in its
        // table from the upper half, so that one says nothing about the other.
        let owner = ((hash & 0xffff_ffff) * owners) >> 32;
        words[owner as usize].push(word);
    }
    let open = pairs.remainder().first().copied();
    edges.clear();
    edges.extend(open);
}

pub(super) fn load<const N: usize>(buffer: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&buffer[at..at + N]);
    bytes
}

/// A bit for every byte that is ASCII whitespace: 32, or 9 to 13.
#[inline(always)]
fn whitespace_mask(bytes: &[u8; 64]) -> u64 {
    // One byte of 0 or 1 each: the compiler does this with vector instructions.
    let mut space = [0; 64];
    for (space, byte) in space.iter_mut().zip(bytes) {
        *space = u8::from(*byte == 32) | u8::from(byte.wrapping_sub(9) < 5);
    }
    // Eight of them become eight bits by one multiplication.
    let mut mask = 0;
    for (index, eight) in space.chunks_exact(8).enumerate() {
        let bits = u64::from_le_bytes(load(eight, 0)).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= bits << (8 * index);
    }
    mask
}

/// Words up to this length are handled as one integer.
pub(super) const SHORT: usize = 16;

/// `SHORT_MASKS[len]` keeps the first `len` bytes of a little-endian integer.
static SHORT_MASKS: [u128; SHORT + 1] = {
    let mut masks = [0; SHORT + 1];
    let mut len = 1;
    while len <= SHORT {
        masks[len] = u128::MAX >> (128 - 8 * len);
        len += 1;
    }
    masks
};

/// A short word as an integer, filled up with zeros.
pub(super) fn short_key(buffer: &[u8], start: usize, len: usize) -> u128 {
    u128::from_le_bytes(load(buffer, start)) & SHORT_MASKS[len]
}

fn hash_word(buffer: &[u8], start: usize, len: usize) -> u64 {
    if len > SHORT {
        return xxhash_rust::xxh3::xxh3_64(&buffer[start..start + len]);
    }
    // One multiplication of the two halves, folded. The constants are digits
    // of pi; the length tells words apart that differ in trailing zeros.
    let key = short_key(buffer, start, len);
    let low = key as u64 ^ 0x243f_6a88_85a3_08d3;
    let high = (key >> 64) as u64 ^ 0x1319_8a2e_0370_7344 ^ len as u64;
    let product = u128::from(low) * u128::from(high);
    product as u64 ^ (product >> 64) as u64
}
