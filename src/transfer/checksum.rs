//! MD5 checksums: the form in which jobs promise a file's content.
//!
//! They tell files apart and find broken transfers; they are no defence against somebody who forges
//! content, which is why the connection itself is SSH.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use md5::{Digest as _, Md5 as Hasher};

use crate::error::{Error, ErrorKind, Result, io_error};

/// How much of a file is read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// The MD5 checksum of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Md5([u8; 16]);

impl Md5 {
    /// Reads the 32 hexadecimal digits that `md5sum` prints and job files carry, in either case.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] when `text` is anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = || {
            Error::new(ErrorKind::Document, format!("{text:?} is no MD5 checksum: 32 hexadecimal digits are expected"))
                .hint("publish the layer again on the master")
        };
        let digits = text.trim().as_bytes();
        if digits.len() != 32 {
            return Err(refuse());
        }
        let mut sum = [0; 16];
        for (byte, pair) in sum.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refuse())?;
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refuse())?;
        }
        Ok(Self(sum))
    }

    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Hasher::digest(bytes).into())
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Md5({self})")
    }
}

/// The checksum and length of the file at `path`, read in pieces on a thread of its own.
///
/// # Errors
///
/// [`ErrorKind::Io`] when it cannot be read, [`ErrorKind::Missing`] when it is not there.
pub(super) async fn of_file(path: &Path) -> Result<(Md5, u64)> {
    let path = path.to_owned();
    super::blocking(move || of_file_now(&path)).await
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(ErrorKind::Missing, "the file is not there").subject(path.display().to_string()).source(source)
        }
        _ => io_error(path, "cannot open the file", source),
    })
}

/// As [`of_file`], on the calling thread.
pub(super) fn of_file_now(path: &Path) -> Result<(Md5, u64)> {
    let mut file = open(path)?;
    let failed = |source| io_error(path, "cannot read the file", source);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::new(ErrorKind::Missing, "this is no regular file").subject(path.display().to_string()));
    }
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
            Err(source) if source.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(failed(source)),
        }
    }
    Ok((Md5(hasher.finalize().into()), bytes))
}

/// What tells a file from the one that has its name later, without its content being read once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl Stamp {
    /// The stamp of the file at `path`.
    ///
    /// # Errors
    ///
    /// As [`of_file`].
    pub(super) fn of(path: &Path) -> Result<Self> {
        // A file of NFS that is opened is asked about; a mere look is answered from memory for up to a minute.
        let about = open(path)?.metadata().map_err(|source| io_error(path, "cannot read the file", source))?;
        Ok(Self {
            device: about.dev(),
            inode: about.ino(),
            bytes: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_md5sum_prints_is_read_back_and_nothing_else_is() {
        let sum = Md5::of(b"roads\n");
        assert_eq!(Md5::parse(&sum.to_string().to_uppercase()).unwrap(), sum);
        assert_eq!(Md5::of(b"").to_string(), "d41d8cd98f00b204e9800998ecf8427e");
        for bad in ["", "d41d8cd98f00b204e9800998ecf8427", "+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1", "é1é1é1é1é1é1é1é1é1é1é"]
        {
            assert!(Md5::parse(bad).is_err(), "{bad}");
        }
    }
}
