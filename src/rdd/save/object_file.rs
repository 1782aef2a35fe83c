use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::format::block::for_each_record;
use crate::format::object::{
    OBJECT_HEADER_BYTES, ObjectFrame, ObjectHeader, ObjectKind, name_without_paths, object_frame,
};
use crate::rdd::save::part::{PartFile, part_path};
use crate::rdd::{Rdd, Record};
use crate::record::{Data, DataBuffer, append_record};

/// A frame of records is closed at this size.
const FRAME_BYTES: usize = 1 << 20;

const EXTENSION: &str = ".object";

fn header_of<T: Data>(partition: usize, partitions: usize) -> ObjectHeader {
    ObjectHeader {
        partition: partition as u32,
        partitions: partitions as u32,
        width: T::archived_width() as u32,
        record_type: name_without_paths(std::any::type_name::<T>()),
    }
}

impl<T: Record + Data> Rdd<T> {
    /// Writes the RDD to the directory `path`, as [`read_object_file`] reads it back: a file
    /// `part-00000.object` and so on per partition, with the records' archives in checked frames. An action; the
    /// directory is replaced as by [`save_as_text_file`](Rdd::save_as_text_file).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("counts");
    /// # millpond::doc::run_batch(["a", "bc"], |lines| {
    /// lines.map(|line| (line.to_string(), 1u64)).save_as_object_file(&path)?;
    /// # Ok(()) });
    /// let mut partitions = millpond::read_object_file::<(String, u64)>(&path).unwrap();
    /// assert_eq!(partitions.next().unwrap().unwrap(), [("a".to_owned(), 1), ("bc".to_owned(), 1)]);
    /// ```
    ///
    /// # Errors
    /// As [`save_as_text_file`](Rdd::save_as_text_file).
    pub fn save_as_object_file(&self, path: impl AsRef<Path>) -> Result<()> {
        let partitions = self.partitions();
        self.save_parts("save_as_object_file", path.as_ref(), EXTENSION, |partition, part, compute| {
            let mut frames = Frames { part, next: 0 };
            frames.append(ObjectKind::Header, &header_of::<T>(partition, partitions).to_bytes())?;
            let (mut buffer, mut records, mut count) = (DataBuffer::default(), Vec::new(), 0u64);
            compute(&mut |chunk| {
                for record in chunk.iter() {
                    append_record(record, &mut records, &mut buffer)?;
                    count += 1;
                    if records.len() >= FRAME_BYTES {
                        frames.append(ObjectKind::Records, &records)?;
                        records.clear();
                    }
                }
                Ok(())
            })?;
            if !records.is_empty() {
                frames.append(ObjectKind::Records, &records)?;
            }
            frames.append(ObjectKind::End, &count.to_le_bytes())?;
            frames.part.finish()
        })
    }
}

/// Writes frames one after the other.
struct Frames {
    part: PartFile,
    next: u64,
}

impl Frames {
    fn append(&mut self, kind: ObjectKind, payload: &[u8]) -> Result<()> {
        let header = object_frame(kind, self.next, payload)?;
        let written = self.part.write_all(&header).and_then(|()| self.part.write_all(payload));
        written.map_err(|cause| self.part.error(cause))?;
        self.next += 1;
        Ok(())
    }
}

/// The partitions of what [`Rdd::save_as_object_file`] or
/// [`DStream::save_as_object_files`](crate::DStream::save_as_object_files) wrote, in their order; see
/// [`read_object_file`].
#[derive(Debug)]
pub struct ObjectFile<T> {
    path: PathBuf,
    partition: usize,
    partitions: usize,
    records: PhantomData<fn() -> T>,
}

/// Reads an object file back: the iterator gives the records of one partition after the other, each held in
/// memory as a whole.
///
/// Every byte is checked before it is used. After an error there is nothing more.
///
/// ```no_run
/// # fn main() -> millpond::Result<()> {
/// for partition in millpond::read_object_file::<(String, u64)>("counts-1000.objects")? {
///     for (word, count) in partition? {
///         eprintln!("{word} {count}");
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// Here and from the iterator, naming the file:
/// * [`ErrorKind::Io`] when there is no such directory or it cannot be read.
/// * [`ErrorKind::Incompatible`] when it holds records of another type, or is of a newer version.
/// * [`ErrorKind::Corrupt`] when bytes are damaged or missing, a whole file included.
pub fn read_object_file<T: Data>(path: impl AsRef<Path>) -> Result<ObjectFile<T>> {
    let path = path.as_ref().to_owned();
    let io = |cause| Error::io(format!("list {}", path.display()), cause);
    let mut files = 0;
    for entry in std::fs::read_dir(&path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let name = name.to_string_lossy();
        // What else lies there (a copy, a note) does not count.
        let number = name.strip_prefix(super::directory::PART).and_then(|n| n.strip_suffix(EXTENSION));
        files += usize::from(number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())));
    }
    let mut found = ObjectFile { path, partition: 0, partitions: files, records: PhantomData };
    if files > 0 {
        // The first file tells how many there were.
        let (file, header) = found.open()?;
        drop(file);
        found.partitions = header.partitions as usize;
    }
    if found.partitions != files {
        let message = format!(
            "{} has {files} partitions, of {} that were written",
            found.path.display(),
            found.partitions
        );
        return Err(Error::corrupt(message));
    }
    Ok(found)
}

impl<T: Data> Iterator for ObjectFile<T> {
    type Item = Result<Vec<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.partition >= self.partitions {
            return None;
        }
        let read = self.read();
        self.partition = if read.is_ok() { self.partition + 1 } else { self.partitions };
        Some(read)
    }
}

impl<T: Data> ObjectFile<T> {
    fn part(&self) -> PathBuf {
        part_path(&self.path, self.partition, EXTENSION)
    }

    fn open(&self) -> Result<(FrameReader, ObjectHeader)> {
        let path = self.part();
        let within = |error: Error| error.within(path.display());
        let mut file = FrameReader::open(&path)?;
        let header = file.next(ObjectKind::Header).and_then(|payload| ObjectHeader::parse(&payload));
        let header = header.map_err(within)?;
        let asked = header_of::<T>(self.partition, self.partitions);
        if (header.width, &header.record_type) != (asked.width, &asked.record_type) {
            let message = format!(
                "it holds records of {} ({} bytes), not of {} ({} bytes)",
                header.record_type, header.width, asked.record_type, asked.width
            );
            return Err(within(Error::new(ErrorKind::Incompatible, message)));
        }
        if header.partition != asked.partition {
            return Err(within(Error::corrupt(format!("it is partition {}", header.partition))));
        }
        Ok((file, header))
    }

    fn read(&self) -> Result<Vec<T>> {
        let (mut file, header) = self.open()?;
        let mut records = Vec::new();
        let read = || -> Result<()> {
            if header.partitions as usize != self.partitions {
                let message =
                    format!("it is of {} partitions, not of {}", header.partitions, self.partitions);
                return Err(Error::corrupt(message));
            }
            let mut buffer = DataBuffer::default();
            loop {
                let (kind, payload) = file.read()?;
                match kind {
                    ObjectKind::Records => for_each_record(&payload, |bytes| {
                        records.push(T::decode(bytes, &mut buffer)?);
                        Ok(())
                    })?,
                    ObjectKind::End => return file.end(&payload, records.len()),
                    ObjectKind::Header => return Err(Error::corrupt("a second header")),
                }
            }
        };
        let mut read = read;
        read().map_err(|error| error.within(self.part().display()))?;
        Ok(records)
    }
}

/// Reads frames one after the other.
struct FrameReader {
    file: BufReader<File>,
    /// What the file has from here on.
    left: u64,
    frame: u32,
}

impl FrameReader {
    fn open(path: &Path) -> Result<Self> {
        let open = || {
            let file = File::open(path)?;
            Ok(FrameReader { left: file.metadata()?.len(), file: BufReader::new(file), frame: 0 })
        };
        open().map_err(|cause| Error::io(format!("open {}", path.display()), cause))
    }

    fn bytes(&mut self, into: &mut [u8]) -> Result<()> {
        self.file.read_exact(into).map_err(|cause| Error::io("read", cause))?;
        self.left -= into.len() as u64;
        Ok(())
    }

    fn read(&mut self) -> Result<(ObjectKind, Vec<u8>)> {
        let mut header = [0; OBJECT_HEADER_BYTES];
        let frame = self.frame;
        let cut = || Error::corrupt(format!("the file ends in frame {frame}"));
        if self.left < OBJECT_HEADER_BYTES as u64 {
            return Err(cut());
        }
        self.bytes(&mut header)?;
        let header = ObjectFrame::parse(&header)?;
        // Before anything is allocated for it.
        if self.left < u64::from(header.length) {
            return Err(cut());
        }
        let mut payload = vec![0; header.length as usize];
        self.bytes(&mut payload)?;
        header.check(&payload).map_err(|error| error.within(format!("frame {frame}")))?;
        if header.frame != frame {
            return Err(Error::corrupt(format!("frame {} in the place of frame {frame}", header.frame)));
        }
        self.frame += 1;
        Ok((header.kind, payload))
    }

    fn next(&mut self, expected: ObjectKind) -> Result<Vec<u8>> {
        let (kind, payload) = self.read()?;
        if kind != expected {
            return Err(Error::corrupt(format!("expected a {expected:?} frame, found {kind:?}")));
        }
        Ok(payload)
    }

    /// The last frame says how many records there are, and nothing comes after it.
    fn end(&self, payload: &[u8], records: usize) -> Result<()> {
        if payload != (records as u64).to_le_bytes() {
            return Err(Error::corrupt(format!("it has {records} records, not as many as its end says")));
        }
        if self.left > 0 {
            return Err(Error::corrupt(format!("{} bytes after the end", self.left)));
        }
        Ok(())
    }
}
