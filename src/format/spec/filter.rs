//! The example of a filter, made by the document's rules.

use super::decoder::{rows, section};
use crate::format::filter::filter_of;
use crate::format::frame::{FrameKind, encode_frame};
use crate::record::hash_of;

/// The filter of a part of `cat` and `the`, as the code writes it, and its words by the document.
pub(super) fn example() -> (Vec<u8>, String) {
    let hashes = [hash_of(b"cat"), hash_of(b"the")];
    let frame = encode_frame(FrameKind::Filter, 18, &filter_of(&hashes)).unwrap();
    let rows = rows(section("#### `EntryHeader`"));
    let salts = rows.iter().find(|row| row[0] == "s").unwrap();
    let word = |salt: &String| {
        let salt = u64::from_str_radix(salt, 16).unwrap();
        let word =
            hashes.iter().fold(0_u32, |word, hash| word | 1 << ((((hash >> 32) * salt) & 0xffff_ffff) >> 27));
        word.to_string()
    };
    let words: Vec<String> = salts[1..].iter().map(word).collect();
    (frame, words.join(" "))
}
