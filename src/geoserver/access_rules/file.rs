//! `security/layers.properties` in a data directory on this machine.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

use super::{AccessRules, sandbox};

/// Access of a file that is new: its owner reads and writes, the group reads.
const NEW_FILE: u32 = 0o640;

/// Replaces `security/layers.properties` of the data directory `data_dir` by `rules`, at once and
/// durably: at every moment the file holds all old rules or all new ones. Owner and permissions stay,
/// and so does the line `filesystemSandbox`, a setting of that server. GeoServer reads the file again
/// within a second.
///
/// # Errors
///
/// [`ErrorKind::Settings`] when `data_dir` is not the data directory of a GeoServer on this machine;
/// [`ErrorKind::Io`] when the file cannot be written.
pub fn write_access_rules_file(data_dir: &Path, rules: &AccessRules) -> Result<()> {
    let security = data_dir.join("security");
    let path = security.join("layers.properties");
    let directory = fs::metadata(&security).ok().filter(fs::Metadata::is_dir).ok_or_else(|| {
        Error::new(ErrorKind::Settings, "this is not the data directory of a GeoServer on this machine")
            .subject(security.display().to_string())
            .hint("set GEOSERVER_DATA_DIR to where this machine has GeoServer's data directory")
    })?;
    let failed = |source: io::Error| {
        Error::new(ErrorKind::Io, "cannot write GeoServer's access rules")
            .subject(path.display().to_string())
            .source(source)
            .hint("the slave's user needs to write in this directory, and to be the file's owner or root")
    };
    let before = match fs::read(&path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let (mode, owner) = match fs::metadata(&path) {
        Ok(file) => (file.mode() & 0o7777, (file.uid(), file.gid())),
        Err(_) => (NEW_FILE, (directory.uid(), directory.gid())),
    };
    let text = rules.properties(before.as_deref().and_then(sandbox).as_deref());
    let mut next = tempfile::Builder::new().prefix(".layers.properties-").tempfile_in(&security).map_err(failed)?;
    next.write_all(text.as_bytes()).map_err(failed)?;
    let is_so = next.as_file().metadata().map(|file| (file.uid(), file.gid()) == owner).map_err(failed)?;
    if !is_so {
        chown(next.path(), Some(owner.0), Some(owner.1)).map_err(failed)?;
    }
    next.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    next.as_file().sync_all().map_err(failed)?;
    next.persist(&path).map_err(|error| failed(error.error))?;
    File::open(&security).and_then(|directory| directory.sync_all()).map_err(failed)
}
