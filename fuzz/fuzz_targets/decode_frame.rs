//! Arbitrary bytes as a frame, and as the archive of every stored record.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| millpond::fuzzing::decode_frame(bytes));
