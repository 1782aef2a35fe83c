//! Arbitrary frames, and arbitrary bytes, as the file of an object file.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Piece {
    Bytes(Vec<u8>),
    /// A frame whose checksum is right, with the number that it should have or another.
    Frame {
        kind: u8,
        number: Option<u8>,
        payload: Vec<u8>,
    },
    /// The first frame as it should be.
    Header,
    /// Records of this many elements each, and the end after them.
    Records(Vec<u8>),
}

type Row = (String, Vec<u64>);

fuzz_target!(|pieces: Vec<Piece>| {
    let mut bytes = Vec::new();
    let mut next = 0;
    let mut expected: Vec<Row> = Vec::new();
    let mut sound = true;
    for piece in &pieces {
        match piece {
            Piece::Bytes(more) => {
                bytes.extend_from_slice(more);
                sound &= more.is_empty();
            }
            Piece::Frame { kind, number, payload } => {
                let number = number.map_or(next, u64::from);
                bytes.extend(millpond::fuzzing::object_frame_of(u16::from(*kind), number as u32, payload));
                next += 1;
                sound = false;
            }
            Piece::Header => {
                sound &= next == 0;
                bytes.extend(millpond::fuzzing::object_header::<Row>());
                next += 1;
            }
            Piece::Records(sizes) => {
                sound &= next == 1;
                let rows: Vec<Row> = sizes
                    .iter()
                    .map(|size| ("x".repeat((*size).into()), vec![7; usize::from(*size) % 5]))
                    .collect();
                bytes.extend(millpond::fuzzing::object_records(&rows, &mut next));
                expected.extend(rows);
            }
        }
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("part-00000.object"), bytes).expect("a file");
    let read = millpond::read_object_file::<Row>(dir.path())
        .and_then(|mut file| file.next().expect("one partition"));
    match read {
        Ok(rows) => assert!(!sound || rows == expected, "other rows than were written"),
        Err(error) => assert!(!sound || next < 3, "a sound file is refused: {error}"),
    }
});
