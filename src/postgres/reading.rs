//! How far a program has read a file, as the kernel tells it.

use std::fs;
use std::path::Path;

/// The farthest that process `pid`, or a child of it, has come in the file at `path`, in bytes; nothing
/// when it has not opened it or this cannot be seen.
pub(super) fn position(pid: u32, path: &Path) -> Option<u64> {
    let path = path.canonicalize().ok()?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
    std::iter::once(pid).chain(children).filter_map(|pid| position_of(pid, &path)).max()
}

fn position_of(pid: u32, path: &Path) -> Option<u64> {
    let opened = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let same = opened.flatten().filter(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path));
    same.filter_map(|fd| {
        // proc(5): `pos:` and the offset, in decimal.
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.file_name().to_str()?)).ok()?;
        info.lines().find_map(|line| line.strip_prefix("pos:")?.trim().parse().ok())
    })
    .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, SeekFrom};

    #[test]
    fn the_offset_of_an_open_file_is_seen() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        file.seek(SeekFrom::Start(4321)).unwrap();
        let _second = fs::File::open(&path).unwrap();
        assert_eq!(position(std::process::id(), &path), Some(4321));
        assert_eq!(position(std::process::id(), Path::new("/no/such/file")), None);
    }
}
