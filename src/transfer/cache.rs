//! The cache: where files end up whole and verified, and where they wait until they are.
//!
//! ```text
//! CACHE_PATH/cadastre.roads.db                                   whole and verified
//! CACHE_PATH/.incoming/arrived/<md5>-cadastre.roads.db           whole, not yet verified
//! CACHE_PATH/.incoming/borg@master/var/borg/…/.rsync-partial/…   begun
//! ```
//!
//! A file gets its final name by one rename, so that a slave that feeds on this one, or the next run
//! after a power cut, never takes half a file for a whole one.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::checksum::Md5;
use super::location::Peer;
use crate::error::{Error, ErrorKind, Result, io_error};
use crate::name::file_name;

/// Longest name of a cached file in bytes: `NAME_MAX` (255) less a checksum and a dash.
const NAME_BYTES: usize = 255 - 33;

/// Where `rsync` keeps what it has of a file when the connection breaks, beside the file.
pub(super) const PARTIAL_DIR: &str = ".rsync-partial";

/// The name of a file in the cache, which is also its name on a slave that feeds others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheName {
    name: String,
    older: Vec<String>,
    is_large: bool,
}

impl CacheName {
    /// A layer's dump: `<workspace>.<name>.<extension>`, the extension being `db` or `tar`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] for another extension, [`ErrorKind::Document`] when the names are too
    /// long for a file name.
    pub fn dump(workspace: &str, name: &str, extension: &str) -> Result<Self> {
        let other = match extension {
            "db" => "tar",
            "tar" => "db",
            _ => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("a dump ending in {extension:?} cannot be restored"),
                )
                .subject(format!("{workspace}.{name}"))
                .hint("dumps are made by pg_dump in custom format (.db) or tar format (.tar); publish again"));
            }
        };
        let dump = Self::new(
            &format!("{workspace}.{name}.{extension}"),
            &[format!("{name}.{extension}"), format!("{workspace}.{name}.{other}"), format!("{name}.{other}")],
        )?;
        Ok(Self { is_large: true, ..dump })
    }

    /// A job's metadata: `<workspace>.<name>.meta.json`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] when the names are too long for a file name.
    pub fn meta(workspace: &str, name: &str) -> Result<Self> {
        Self::new(&format!("{workspace}.{name}.meta.json"), &[format!("{name}.meta.json")])
    }

    /// A style: `<workspace>.<name>.<style>.sld`, or `<workspace>.<name>.sld` for the style `builtin`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] when the names are too long for a file name.
    pub fn style(workspace: &str, name: &str, style: &str) -> Result<Self> {
        let suffix = if style == "builtin" { String::new() } else { format!(".{style}") };
        Self::new(&format!("{workspace}.{name}{suffix}.sld"), &[format!("{name}{suffix}.sld")])
    }

    fn new(name: &str, older: &[String]) -> Result<Self> {
        let safe = file_name(name);
        if safe.len() > NAME_BYTES {
            return Err(Error::new(
                ErrorKind::Document,
                format!("the names are too long: {safe:?} is longer than {NAME_BYTES} bytes"),
            )
            .hint("shorten the names of the layer or its styles on the master"));
        }
        Ok(Self { name: safe, older: older.iter().map(|older| file_name(older)).collect(), is_large: false })
    }

    /// The file's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// A kind of file that can fill a disk.
    pub(super) fn is_large(&self) -> bool {
        self.is_large
    }

    /// The names that slaves of other versions give the same file, likeliest first. They may give them to another
    /// workspace's file as well.
    pub(super) fn older(&self) -> &[String] {
        &self.older
    }
}

/// The directories of the cache.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    root: PathBuf,
}

impl Cache {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where a verified file is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn incoming(&self) -> PathBuf {
        self.root.join(".incoming")
    }

    /// Where a whole file waits for its verification; the wanted checksum keeps different contents of
    /// one name apart.
    pub(super) fn arrived(&self, name: &str, wanted: Option<Md5>) -> PathBuf {
        let prefix = wanted.map_or_else(|| "any".to_owned(), |sum| sum.to_string());
        self.incoming().join("arrived").join(format!("{prefix}-{name}"))
    }

    /// Where files of `peer` are received, under their full path there.
    pub(super) fn staging(&self, peer: &Peer) -> PathBuf {
        let name = file_name(&peer.to_string());
        let name = if name.len() > 200 { Md5::of(name.as_bytes()).to_string() } else { name };
        self.incoming().join(name)
    }

    /// Makes the directories for arrivals and for `peer`; nobody else may look in or write there.
    pub(super) fn prepare(&self, peer: Option<&Peer>) -> Result<()> {
        let make =
            |path: &Path, mode: u32| {
                std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|source| {
                    io_error(path, "cannot make the directory for incoming files (CACHE_PATH)", source)
                })
            };
        make(&self.root, 0o777)?;
        make(&self.incoming().join("arrived"), 0o700)?;
        peer.map_or(Ok(()), |peer| make(&self.staging(peer), 0o700))
    }

    /// Gives a verified arrival its final name, which replaces what was there. `durable` files are on the
    /// disk before they have that name.
    pub(super) fn place(&self, arrived: &Path, name: &str, durable: bool) -> Result<PathBuf> {
        let path = self.path(name);
        let failed = |source| io_error(&path, "cannot put the file into the cache", source);
        if durable {
            std::fs::File::open(arrived).and_then(|file| file.sync_all()).map_err(failed)?;
        }
        std::fs::rename(arrived, &path).map_err(failed)?;
        if durable {
            std::fs::File::open(&self.root).and_then(|dir| dir.sync_all()).map_err(failed)?;
        }
        Ok(path)
    }

    /// Removes what was begun or arrived and has not changed for `keep`; answers how many bytes that freed.
    pub(super) fn sweep(&self, keep: Duration) -> Result<u64> {
        let oldest = SystemTime::now().checked_sub(keep).unwrap_or(UNIX_EPOCH);
        let oldest = oldest.duration_since(UNIX_EPOCH).unwrap_or_default();
        let incoming = self.incoming();
        match sweep_dir(&incoming, oldest) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error(&incoming, "cannot remove old incoming files", source))
            }
            freed => Ok(freed.unwrap_or(0)),
        }
    }
}

fn sweep_dir(dir: &Path, oldest: Duration) -> std::io::Result<u64> {
    let mut freed = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // The entry itself, not what a link points to.
        let about = entry.metadata()?;
        // rsync gives files the modification time of the source; the change time is ours.
        let changed =
            Duration::new(u64::try_from(about.ctime()).unwrap_or(0), u32::try_from(about.ctime_nsec()).unwrap_or(0));
        if about.is_dir() {
            freed += sweep_dir(&entry.path(), oldest)?;
            if changed < oldest {
                // Fails, as it should, when something is left in it.
                let _ = std::fs::remove_dir(entry.path());
            }
        } else if changed < oldest {
            std::fs::remove_file(entry.path())?;
            freed += about.len();
        }
    }
    Ok(freed)
}

/// Where `rsync` keeps the begun part of the staged file `path`.
pub(super) fn partial_of(path: &Path) -> Option<PathBuf> {
    Some(path.parent()?.join(PARTIAL_DIR).join(path.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn names_are_those_that_other_slaves_know() {
        assert_eq!(CacheName::dump("cadastre", "roads", "db").unwrap().as_str(), "cadastre.roads.db");
        assert_eq!(
            CacheName::dump("cadastre", "roads", "db").unwrap().older(),
            ["roads.db", "cadastre.roads.tar", "roads.tar"]
        );
        assert_eq!(CacheName::style("c", "roads", "builtin").unwrap().as_str(), "c.roads.sld");
        assert_eq!(CacheName::style("c", "roads", "night").unwrap().as_str(), "c.roads.night.sld");
        assert_eq!(CacheName::meta("c", "../roads").unwrap().as_str(), "c...%2Froads.meta.json");
        assert_eq!(CacheName::dump("c", "r", "sql").unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(CacheName::meta("c", &"r".repeat(250)).unwrap_err().kind(), ErrorKind::Document);
    }

    #[test]
    fn sweeping_takes_the_old_and_leaves_the_young_and_the_verified() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("dumps"));
        let peer = Peer::parse("borg@master").unwrap();
        assert_eq!(cache.sweep(Duration::ZERO).unwrap(), 0);
        cache.prepare(Some(&peer)).unwrap();
        let mode = std::fs::metadata(cache.staging(&peer)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let begun = cache.staging(&peer).join("f");
        std::fs::write(&begun, "12345").unwrap();
        std::fs::write(cache.path("c.r.db"), "verified").unwrap();
        assert_eq!(cache.sweep(Duration::from_secs(3600)).unwrap(), 0);
        assert!(begun.exists());
        assert_eq!(cache.sweep(Duration::ZERO).unwrap(), 5);
        assert!(!begun.exists() && cache.path("c.r.db").exists());
    }
}
