use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result};
use crate::store::private_tempfile;

/// Bytes in a temporary file without a name: it is gone when it is dropped, and after a crash.
pub(super) struct Spill {
    file: File,
    length: usize,
    crc: u32,
}

impl Spill {
    pub(super) fn write(bytes: &[u8]) -> Result<Self> {
        let write = || {
            let mut file = private_tempfile()?;
            file.write_all(bytes)?;
            Ok(file)
        };
        let file = write().map_err(|cause| Error::io("write a partition to a temporary file", cause))?;
        Ok(Spill { file, length: bytes.len(), crc: crc32fast::hash(bytes) })
    }

    /// The bytes as they were written, or an error.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.length];
        let read = self.file.read_exact_at(&mut bytes, 0);
        read.map_err(|cause| Error::io("read a partition from its temporary file", cause))?;
        match crc32fast::hash(&bytes) == self.crc {
            true => Ok(bytes),
            false => Err(Error::corrupt("the temporary file of a partition fails its checksum")),
        }
    }

    #[cfg(test)]
    pub(super) fn flip_a_bit(&self) {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, self.length as u64 / 2).unwrap();
        self.file.write_all_at(&[byte[0] ^ 4], self.length as u64 / 2).unwrap();
    }

    #[cfg(test)]
    pub(super) fn shorten(&self) {
        self.file.set_len(self.length as u64 - 1).unwrap();
    }
}
