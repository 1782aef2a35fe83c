//! Arbitrary bytes as the payload of a segment's page, of its trailer, and of a block.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| millpond::fuzzing::segment_page(bytes));
