//! Holds the code to `checkpoint-format.md`: what is written there is read from it and tried.
//!
//! Records are decoded by nothing but the document's own tables and rules, in this module and in no other
//! way, and the result is compared with the record that the code had encoded. The hex blocks of the worked
//! example are regenerated from the code; a test that finds one out of date prints it as it should be.

mod database;
mod decoder;
#[cfg(test)]
mod filter;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::{Debug, Write as _};
    use std::path::Path;

    use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

    use super::database::read_database;
    use super::decoder::{SPEC, crc32_by_the_book, hex_blocks, kinds, read_frame, rows, schemas, section};
    use crate::config::KEY_GROUPS;
    use crate::format::block::{BlockEncoding, BlockHeader};
    use crate::format::features::Features;
    use crate::format::frame::{FrameHeader, FrameKind, encode_frame};
    use crate::format::records::*;
    use crate::format::segment::{Entry, entry_bytes};
    use crate::id::{EpochId, ExtentId, SegmentId, StreamId};
    use crate::record::{Data, DataBuffer, Key, Schema, group_of, hash_of, schema_hash};
    use crate::source::Position;
    use crate::state::{ChangeSums, KnownSchema, OperatorState, StateType};
    use crate::store::catalog::{Catalog, EpochStart, list_epochs, read_epoch};
    use crate::store::extents::{ExtentIndex, ExtentWriter, LogEnd, block_buffer};
    use crate::store::log_scan::scan_log;
    use crate::store::segments::{
        EncodedGroup, EncodedOperator, EncodedState, LiveSize, Segment, list_segments, write_segment,
    };
    use crate::store::{Disk, Identity, StorePaths};

    const STORE: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    /// A frame of the example: what the document calls it, its bytes, and the record that is in it.
    type Example = Vec<(&'static str, Vec<u8>, String)>;

    fn archive<T: Data>(value: &T) -> Vec<u8> {
        let mut buffer = DataBuffer::default();
        value.encode(&mut buffer).unwrap();
        buffer.as_bytes().to_vec()
    }

    fn frames_of(file: &Path) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(file).unwrap();
        let (mut frames, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let end = at + FrameHeader::parse(&bytes[at..]).unwrap().frame_bytes() as usize;
            frames.push(bytes[at..end].to_vec());
            at = end;
        }
        frames
    }

    /// `millpond.id` and the receive log.
    fn example_log(paths: &StorePaths, example: &mut Example) -> Vec<BlockRef> {
        let identity = encode_frame(FrameKind::Identity, 0, &[&STORE[..], b"counts"].concat()).unwrap();
        std::fs::write(paths.identity(), &identity).unwrap();
        let read = Identity::read(paths).unwrap().unwrap();
        assert_eq!(read, Identity { store: STORE, job: "counts".to_owned() });
        example.push(("identity", identity, String::new()));

        let end = LogEnd { next_extent: ExtentId(1), previous: (0, 0), next_block: 1 };
        let disk = Disk::default();
        let mut writer = ExtentWriter::new(disk, paths.clone(), STORE, ExtentIndex::default(), end);
        let lines = BlockHeader {
            stream: StreamId::of("lines"),
            encoding: BlockEncoding::Lines,
            records: 0,
            schema: 0,
        };
        let mut buffer = block_buffer(0);
        buffer.extend_from_slice(b"the cat\nthe end");
        let first = writer.append(&mut buffer, lines).unwrap();
        let schema = schema_hash("u64");
        let numbers = BlockHeader {
            stream: StreamId::of("numbers"),
            encoding: BlockEncoding::Records,
            records: 2,
            schema,
        };
        let mut buffer = block_buffer(0);
        for number in [7u64, 8] {
            buffer.extend_from_slice(&8u32.to_le_bytes());
            buffer.extend_from_slice(&archive(&number));
        }
        let second = writer.append(&mut buffer, numbers).unwrap();
        writer.sync().unwrap();
        let found = scan_log(paths, STORE, 1).unwrap();
        assert_eq!(found.blocks.iter().map(|block| block.block).collect::<Vec<_>>(), [first, second]);

        let header = ExtentHeader { store: STORE, previous: 0, previous_length: 0, first_block: 1 };
        let shown = |BlockHeader { stream, encoding, records, schema }: BlockHeader| {
            let (stream, encoding) = (stream.0, encoding as u32);
            format!(
                "BlockHeader {{ stream: {stream}, encoding: {encoding}, records: {records}, schema: {schema} }}"
            )
        };
        let records = [format!("{header:?}"), shown(lines), shown(numbers)];
        let names = ["extent-header", "block-lines", "block-records"];
        let frames = frames_of(&paths.log().join("1.extent"));
        example.extend(names.into_iter().zip(frames).zip(records).map(|((n, f), r)| (n, f, r)));
        let witness = std::fs::read(paths.log().join("witness")).unwrap();
        let length = found.end.previous.1.to_string();
        example.push(("log-witness", witness, length));
        vec![first, second]
    }

    /// The entries of one key group with what `{:?}` makes of them.
    fn group(base: bool, keys_left: u64, key: &str, value: Option<Vec<u8>>) -> (EncodedGroup, String) {
        let hash = hash_of(key.as_bytes());
        let entry = Entry { hash, key: key.as_bytes(), value: value.as_deref() };
        let bytes = keys_left * entry_bytes(entry.key, entry.value) as u64;
        let live = LiveSize { keys: keys_left, bytes };
        let group = EncodedGroup::encode(group_of(hash), base, live, std::iter::once(entry)).unwrap();
        (group, format!("{hash:016x} {:?} {value:?}", key.as_bytes()))
    }

    /// Segments 1 and 2: `cat` is counted in the first checkpoint and removed in the second.
    fn example_segments(paths: &StorePaths, example: &mut Example) -> Vec<SegmentRef> {
        let position = Position { offset: 12, size: 12, stamp: 1_700_000_000_000_000_000 };
        let one = Some(archive(&1u64));
        let first =
            vec![(("totals", "u64"), vec![group(false, 1, "cat", one.clone()), group(false, 1, "the", one)])];
        let second = vec![
            (
                ("totals", "u64"),
                vec![group(false, 0, "cat", None), group(true, 1, "the", Some(archive(&3u64)))],
            ),
            (("accumulator blank", "u64"), vec![group(false, 1, "", Some(archive(&2u64)))]),
            (
                ("positions of files", "position"),
                vec![group(false, 1, "a.txt", Some(position.to_bytes().to_vec()))],
            ),
        ];
        let mut written = Vec::new();
        let names = [
            &["segment-header-1", "page-1", "page-2", "directory-1", "trailer-1"][..],
            &["segment-header-2", "page-3", "page-4", "page-5", "page-6", "directory-2", "trailer-2"][..],
        ];
        for ((segment, operators), names) in (1..).zip([first, second]).zip(names) {
            let (mut state, mut pages) = (EncodedState::default(), Vec::new());
            for ((name, schema), groups) in operators {
                let mut groups = groups;
                groups.sort_by_key(|(_, shown)| group_of(u64::from_str_radix(&shown[..16], 16).unwrap()));
                let (groups, shown): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
                let (name, schema) = (name.to_owned(), schema.into());
                state.operators.push(EncodedOperator { name, schema, groups });
                pages.extend(shown);
            }
            let header = SegmentHeader { store: STORE, checkpoint: segment };
            let place = write_segment(&Disk::default(), paths, SegmentId(segment), &header, &state).unwrap();
            let opened = std::sync::Arc::new(Segment::open(paths, STORE, &place).unwrap());
            opened.verify().unwrap();
            let frames = frames_of(&paths.state().join(format!("{segment}.segment")));
            let directory = &frames[frames.len() - 2];
            let at: usize = frames[..frames.len() - 2].iter().map(Vec::len).sum();
            let listing = format!("{:?}", Directory::from_frame(directory).unwrap().1);
            let end = format!("Trailer {{ offset: {at}, length: {} }}", directory.len());
            let shown = [format!("{header:?}")].into_iter().chain(pages).chain([listing, end]);
            let rows = names.iter().zip(frames).zip(shown);
            example.extend(rows.map(|((name, frame), shown)| (*name, frame, shown)));
            written.push(place);
        }
        written
    }

    /// A text whose length does not fit the low bits of its word.
    const LONG_TYPE: &str = "(millpond::record::text::Text, alloc::collections::vec_deque::VecDeque<u64>)";

    fn example_lineage() -> Vec<LineageNode> {
        let node = |id: u32, operation: &str, name: &str, record_type: &str, parents: Vec<u32>| LineageNode {
            id,
            operation: operation.to_owned(),
            name: name.to_owned(),
            record_type: record_type.to_owned(),
            wide: id == 1,
            parents,
        };
        vec![
            node(0, "socket_text_stream", "lines", "Text", vec![]),
            node(1, "update_state_by_key", "totals", LONG_TYPE, vec![0]),
        ]
    }

    fn checkpoint(number: u64, next_block: u64, segments: &[SegmentRef]) -> CheckpointRecord {
        let operator = |name: &str, types: [&str; 2], value_width: u32, keys: u64| OperatorRef {
            name: name.to_owned(),
            key_type: types[0].to_owned(),
            value_type: types[1].to_owned(),
            value_width,
            schema: schema_hash(types[1]),
            keys,
        };
        CheckpointRecord {
            checkpoint: number,
            batch: number,
            time_ms: 1_700_000_000_000 + number * 1_000,
            next_block,
            fingerprint: 0x1122_3344_5566_7788,
            segments: segments.to_vec(),
            operators: vec![
                operator("totals", ["bytes", "u64"], 8, 3 - number),
                operator("accumulator blank", ["()", "u64"], 8, number - 1),
                operator("positions of files", ["utf8", "position"], 24, number - 1),
            ],
        }
    }

    /// By the rules of the document, and as the code has it.
    fn changes(batch: u64) -> Vec<OperatorChanges> {
        let changes: [(&str, Option<Vec<u8>>); 2] = match batch {
            1 => [("cat", Some(archive(&1u64))), ("the", Some(archive(&1u64)))],
            _ => [("cat", None), ("the", Some(archive(&3u64)))],
        };
        let mut by_the_book = vec![StratumSums { sum: 0, weighted: 0 }; 16];
        let mut sums = ChangeSums::default();
        for (key, value) in &changes {
            let hash = hash_of(key.as_bytes());
            sums.add(hash, value.as_deref());
            let change = match value {
                Some(value) => xxh3_64_with_seed(value, hash),
                None => xxh3_64_with_seed(b"", hash ^ 0x9e37_79b9_7f4a_7c15),
            };
            let stratum = &mut by_the_book[hash.trailing_zeros().min(15) as usize];
            stratum.sum = stratum.sum.wrapping_add(change);
            stratum.weighted = stratum.weighted.wrapping_add(change.wrapping_mul(hash));
        }
        while by_the_book.last().is_some_and(|last| last.sum == 0) {
            by_the_book.pop();
        }
        let bytes = by_the_book.iter().flat_map(|stratum| [stratum.sum, stratum.weighted]);
        let hash = xxh3_64(&bytes.flat_map(u64::to_le_bytes).collect::<Vec<_>>());
        let operator = xxh3_64(format!("totals\0bytes\0u64\0{}\x0016", schema_hash("u64")).as_bytes());
        let types = StateType {
            key: "bytes".to_owned(),
            value: "u64".to_owned(),
            value_width: 8,
            schema: KnownSchema::of::<u64>(),
        };
        assert_eq!(OperatorState::new("totals", types).id(16), operator);
        assert_eq!((sums.strata(), sums.hash()), (by_the_book.clone(), hash));
        vec![OperatorChanges { operator, hash, strata: by_the_book }]
    }

    fn job() -> JobRecord {
        let stream = |name: &str, schema: &str| StreamRef {
            stream: StreamId::of(name).0,
            name: name.to_owned(),
            schema: schema.to_owned(),
        };
        JobRecord {
            job: "counts".to_owned(),
            version: "0.1.0".to_owned(),
            started_ms: 1_700_000_000_250,
            batch_interval_ms: 1_000,
            checkpoint_every_batches: 1,
            partitions: 16,
            threads: 2,
            fingerprint: 0x1122_3344_5566_7788,
            streams: vec![stream("lines", ""), stream("numbers", "u64"), stream("files", "")],
            lineage: example_lineage(),
        }
    }

    fn plans(blocks: &[BlockRef]) -> [PlanRecord; 2] {
        let input = |name: &str, blocks: &[BlockRef]| InputPlan {
            stream: StreamId::of(name).0,
            blocks: blocks.to_vec(),
            ranges: vec![],
        };
        let mut files = input("files", &[]);
        let stamp = 1_700_000_000_000_000_000;
        files.ranges.push(RangeRef { partition: "a.txt".to_owned(), start: 0, end: 12, size: 12, stamp });
        let plan = |batch: u64, inputs| PlanRecord {
            batch,
            time_ms: 1_700_000_000_000 + batch * 1_000,
            next_block: 3,
            inputs,
        };
        [plan(1, vec![input("lines", &blocks[..1]), input("numbers", &blocks[1..])]), plan(2, vec![files])]
    }

    fn epoch() -> EpochRecord {
        EpochRecord { store: STORE, continues_after: 0, compatible: 0, incompatible: 0 }
    }

    fn epoch_start(job: Option<JobRecord>) -> EpochStart {
        let features = Features::default();
        EpochStart { store: STORE, epoch: EpochId(1), continues_after: 0, first_seq: 1, features, job }
    }

    fn append(example: &mut Example, name: &'static str, catalog: &mut Catalog, record: impl Record + Debug) {
        let seq = catalog.append(&record).unwrap();
        example.push((name, record.to_frame(seq).unwrap(), format!("{record:?}")));
    }

    /// The catalog's records, appended to a real one.
    fn example_catalog(
        paths: &StorePaths,
        example: &mut Example,
        blocks: &[BlockRef],
        segments: &[SegmentRef],
    ) {
        let mut catalog = Catalog::begin(Disk::default(), paths.clone(), epoch_start(Some(job()))).unwrap();
        example.push(("epoch", epoch().to_frame(1).unwrap(), format!("{:?}", epoch())));
        example.push(("job", job().to_frame(2).unwrap(), format!("{:?}", job())));
        let done = |batch: u64, records: u64, bytes: u64| DoneRecord {
            batch,
            records,
            bytes,
            processing_us: 850,
            outputs: vec!["print totals".to_owned()],
            changes: changes(batch),
        };
        let [first, second] = plans(blocks);
        append(example, "run", &mut catalog, RunRecord { started_ms: 1_700_000_000_260 });
        append(example, "plan-1", &mut catalog, first);
        append(example, "done-1", &mut catalog, done(1, 4, 71));
        append(example, "checkpoint-1", &mut catalog, checkpoint(1, 3, &segments[..1]));
        append(example, "plan-2", &mut catalog, second);
        let blank = TallyDelta {
            name: "accumulator blank".to_owned(),
            schema: "u64".to_owned(),
            archive: archive(&2u64),
        };
        let tallies = TalliesRecord { batch: 2, part: 0, parts: 1, deltas: vec![blank] };
        append(example, "tallies-2", &mut catalog, tallies);
        append(example, "done-2", &mut catalog, done(2, 2, 12));
        append(example, "checkpoint-2", &mut catalog, checkpoint(2, 3, segments));
        let back = checkpoint(3, 3, &segments[..1]);
        let back = RollbackRecord { target: 1, target_batch: 1, next_batch: 3, checkpoint: back };
        append(example, "rollback", &mut catalog, back);
        let read = read_epoch(paths, STORE, EpochId(1)).unwrap();
        assert_eq!((read.records.len(), read.witness, read.damage.len()), (11, Some(11), 0));
        let witness = std::fs::read(paths.epochs().join("1/witness")).unwrap();
        example.push(("epoch-witness", witness, String::new()));
        let pin = checkpoint(1, 3, &segments[..1]);
        let (name, pinned_ms) = ("before-upgrade".to_owned(), 1_700_000_003_000);
        let pin = PinRecord { store: STORE, name, pinned_ms, checkpoint: pin };
        example.push(("pin", pin.to_frame(1).unwrap(), format!("{pin:?}")));
    }

    /// Every frame of the example's store, written by the code that writes stores.
    fn example(root: &Path) -> Example {
        let paths = StorePaths::new(root);
        for dir in [paths.log(), paths.state(), paths.epochs()] {
            std::fs::create_dir(dir).unwrap();
        }
        let mut example = Example::new();
        let blocks = example_log(&paths, &mut example);
        let segments = example_segments(&paths, &mut example);
        let (filter, words) = super::filter::example();
        example.push(("filter", filter, words));
        example_catalog(&paths, &mut example, &blocks, &segments);
        example
    }

    #[test]
    fn every_hex_block_is_what_the_code_writes() {
        let dir = tempfile::tempdir().unwrap();
        let (schemas, blocks) = (schemas(), hex_blocks());
        let mut wrong = String::new();
        let example = example(dir.path());
        for (name, frame, _) in &example {
            let expected = read_frame(&schemas, frame).0;
            if blocks.get(name) != Some(&&*expected) {
                let _ = write!(wrong, "```hex name={name}\n{expected}```\n\n");
            }
        }
        assert!(wrong.is_empty(), "these blocks of checkpoint-format.md are out of date:\n\n{wrong}");
        let known: BTreeSet<&str> = example.iter().map(|(name, ..)| *name).collect();
        assert_eq!(blocks.into_keys().collect::<BTreeSet<_>>(), known);
        let shown: BTreeSet<u8> = example.iter().map(|(_, frame, _)| frame[6]).collect();
        assert_eq!(shown.len(), kinds().len(), "a frame of each kind");
    }

    #[test]
    fn decoding_the_hex_by_the_document_gives_the_records() {
        let dir = tempfile::tempdir().unwrap();
        let (schemas, blocks) = (schemas(), hex_blocks());
        for (name, _, record) in example(dir.path()) {
            let block = blocks[name];
            let bytes = block.lines().flat_map(|line| {
                let hex = line.split(';').next().unwrap().split_once(':').unwrap().1;
                hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(read_frame(&schemas, &bytes.collect::<Vec<_>>()).1, record, "{name}");
        }
    }

    #[test]
    fn the_tables_have_the_sizes_of_the_archived_types() {
        let schemas = schemas();
        macro_rules! assert_sizes {
            ($($name:literal: $archived:ty,)*) => { $(
                let schema = &schemas[$name];
                assert_eq!((schema.size, schema.align), (size_of::<$archived>(), align_of::<$archived>()), $name);
            )* };
        }
        assert_sizes! {
            "EpochRecord": ArchivedEpochRecord, "JobRecord": ArchivedJobRecord, "StreamRef": ArchivedStreamRef, "RunRecord": ArchivedRunRecord,
            "LineageNode": ArchivedLineageNode, "PlanRecord": ArchivedPlanRecord,
            "InputPlan": ArchivedInputPlan, "BlockRef": ArchivedBlockRef, "RangeRef": ArchivedRangeRef,
            "TalliesRecord": ArchivedTalliesRecord, "TallyDelta": ArchivedTallyDelta,
            "DoneRecord": ArchivedDoneRecord, "OperatorChanges": ArchivedOperatorChanges,
            "StratumSums": ArchivedStratumSums, "CheckpointRecord": ArchivedCheckpointRecord,
            "SegmentRef": ArchivedSegmentRef, "OperatorRef": ArchivedOperatorRef,
            "ExtentHeader": ArchivedExtentHeader, "SegmentHeader": ArchivedSegmentHeader,
            "Directory": ArchivedDirectory, "OperatorDirectory": ArchivedOperatorDirectory,
            "GroupDirectory": ArchivedGroupDirectory, "PageRef": ArchivedPageRef,
            "RollbackRecord": ArchivedRollbackRecord, "PinRecord": ArchivedPinRecord,
        }
    }

    #[test]
    fn the_kinds_of_frames_are_those_of_the_code() {
        let mut known = BTreeMap::new();
        for kind in 0..=u16::MAX {
            let mut header = encode_frame(FrameKind::Done, 0, &[]).unwrap();
            header[6..8].copy_from_slice(&kind.to_le_bytes());
            if let Ok(header) = FrameHeader::parse(&header) {
                known.insert(kind, format!("{:?}", header.kind));
            }
        }
        assert_eq!(kinds(), known);
    }

    #[test]
    fn the_constants_are_those_of_the_code() {
        let number = |text: &str| -> u64 {
            let term = |term: &str| term.trim().replace('_', "").parse::<u64>().unwrap();
            text.split_once("<<").map_or_else(|| term(text), |(value, shift)| term(value) << term(shift))
        };
        let rows = rows(section("### Constants"));
        assert!(rows.len() > 15);
        for row in &rows[1..] {
            let [name, value, path, ..] = &row[..] else { panic!("{row:?}") };
            let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
            let at =
                source.find(&format!("const {name}:")).unwrap_or_else(|| panic!("{name} is not in {path}"));
            let code = source[at..].split_once('=').unwrap().1.split_once(';').unwrap().0.trim();
            if let Some(text) = code.strip_prefix("*b\"") {
                assert_eq!(text.trim_end_matches('"'), value.as_str(), "{name}");
            } else {
                assert_eq!(number(code), value.parse::<u64>().unwrap(), "{name}");
            }
        }
    }

    #[test]
    fn the_examples_of_keys_and_values_are_those_of_the_code() {
        fn hex(bytes: &[u8]) -> String {
            let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            if hex.is_empty() { "none".to_owned() } else { hex.join(" ") }
        }
        fn key<K: Key>(shown: &str, key: K) -> String {
            let mut bytes = Vec::new();
            key.encode_key(&mut bytes);
            let hash = hash_of(&bytes);
            format!(
                "| `{}` | {shown} | `{}` | `{hash:016x}` | {} |",
                K::key_type(),
                hex(&bytes),
                group_of(hash)
            )
        }
        fn value<T: Data>(rust: &str, value: T) -> String {
            format!("| `{rust}` | {} | `{}` |", T::archived_width(), hex(&archive(&value)))
        }
        fn schema<T: Data>() -> String {
            let schema = Schema::of::<T>();
            format!("| `{}` | `{:016x}` |", schema.text(), schema.hash())
        }
        let expected = [
            key("`the`", b"the".to_vec()),
            key("`caf\u{e9}`", "caf\u{e9}".to_owned()),
            key("258", 258u32),
            key("-2", -2i64),
            key("true", true),
            key("`a`", 'a'),
            key("()", ()),
            key("none", None::<u16>),
            key("some 7", Some(7u16)),
            key("(`ab`, 7)", ("ab".to_owned(), 7u32)),
            value("7u64", 7u64),
            value("-2i32", -2i32),
            value("1.5f64", 1.5f64),
            value("true", true),
            value("\"short\"", "short".to_owned()),
            value("\"exactly8\"", "exactly8".to_owned()),
            value("\"nine bytes\"", "nine bytes".to_owned()),
            value("Some(7u32)", Some(7u32)),
            value("None::<u32>", None::<u32>),
            value("(\"a\", 7u64)", ("a".to_owned(), 7u64)),
            value("vec![1u16, 2]", vec![1u16, 2]),
            value("Vec::<u16>::new()", Vec::<u16>::new()),
            schema::<u64>(),
            schema::<Vec<(String, Option<u32>)>>(),
        ];
        let missing: Vec<_> = expected.into_iter().filter(|row| !SPEC.contains(&**row)).collect();
        assert!(missing.is_empty(), "the document should have these rows:\n{}", missing.join("\n"));
        assert_eq!(KEY_GROUPS, 256);
    }

    #[test]
    fn a_database_is_readable_by_the_appendix() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StorePaths::new(dir.path());
        let mut catalog = Catalog::begin(Disk::default(), paths.clone(), epoch_start(None)).unwrap();
        let mut frames = vec![epoch().to_frame(1).unwrap()];
        for length in [100, 40_000, 9, 70_000].into_iter().chain([500; 90]) {
            let mut record = job();
            record.version = "v".repeat(length);
            let seq = catalog.append(&record).unwrap();
            frames.push(record.to_frame(seq).unwrap());
        }
        assert_eq!(catalog.epoch(), EpochId(1));
        assert!(read_epoch(&paths, STORE, EpochId(1)).unwrap().damage.is_empty());
        let pairs = read_database(&std::fs::read(paths.epochs().join("1/db")).unwrap());
        let mut joined: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (key, part) in pairs {
            let seq = u64::from_be_bytes(key[..8].try_into().unwrap());
            joined.entry(seq).or_default().extend(part);
        }
        assert_eq!(joined.into_values().collect::<Vec<_>>(), frames);
    }

    #[test]
    fn the_checksum_is_the_ieee_one() {
        assert_eq!(crc32_by_the_book(b"123456789"), 0xcbf4_3926);
        assert!(SPEC.contains("`cbf43926`"));
    }

    #[test]
    fn other_names_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StorePaths::new(dir.path());
        drop(example(dir.path()));
        for path in
            [paths.log().join("x.extent"), paths.log().join("2.extent.bak"), paths.state().join("notes")]
        {
            std::fs::write(path, "not ours").unwrap();
        }
        std::fs::create_dir(paths.epochs().join("old")).unwrap();
        let found = scan_log(&paths, STORE, 1).unwrap();
        assert_eq!((found.blocks.len(), found.extents.len(), found.damage.len()), (2, 1, 0));
        assert_eq!(list_segments(&paths).unwrap(), [SegmentId(1), SegmentId(2)]);
        assert_eq!(list_epochs(&paths).unwrap(), [EpochId(1)]);
    }

    #[test]
    fn every_requirement_has_a_test_that_exists() {
        let (text, index) = SPEC.split_once("\n## 16.").unwrap();
        let numbers = |text: &str| -> Vec<String> {
            let found =
                text.match_indices("R-").map(|(at, _)| text[at..].chars().take(4).collect::<String>());
            found.filter(|number| number[2..].bytes().all(|b| b.is_ascii_digit())).collect()
        };
        let stated: Vec<String> =
            text.match_indices("**R-").flat_map(|(at, _)| numbers(&text[at..at + 6])).collect();
        let in_order: Vec<String> = (1..=stated.len()).map(|number| format!("R-{number:02}")).collect();
        assert_eq!(stated, in_order, "requirements are stated once and in order");
        let rows = rows(index);
        let indexed: Vec<&str> =
            rows.iter().map(|row| &*row[0]).filter(|number| number.starts_with("R-")).collect();
        assert_eq!(indexed, in_order);
        for row in rows.iter().filter(|row| row[0].starts_with("R-")) {
            for test in row[1].split(", ").filter(|test| *test != "none yet") {
                let (path, name) = test.split_once("::").unwrap();
                let source =
                    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
                assert!(source.contains(&format!("fn {name}(")), "{}: {test} does not exist", row[0]);
            }
        }
    }
}
