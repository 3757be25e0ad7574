//! Which layers have a picture. A picture is found by the name of a job that the journal knows, never by a
//! path that a caller gives.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

use super::site::About;
use crate::error::{Result, io_error};
use crate::job::classify;
use crate::transfer::PreviewName;

/// Longest picture that is served, in bytes.
const MOST_BYTES: u64 = 32 << 20;

/// A picture on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) path: PathBuf,
    pub(super) media_type: &'static str,
    pub(super) drawn: Timestamp,
}

/// The pictures of the slave's layers.
#[derive(Debug)]
pub(super) struct Shelf<'a> {
    about: &'a About,
    /// The files in each directory that was looked into, with their times.
    known: HashMap<PathBuf, HashMap<String, SystemTime>>,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(about: &'a About) -> Self {
        Self { about, known: HashMap::new() }
    }

    /// The picture of the layer that `job_file` is about.
    pub(super) fn picture(&mut self, job_file: &str) -> Option<Picture> {
        let name = name_of(job_file, self.about)?;
        let root = &self.about.preview_path;
        let dir = root.join(name.dir());
        let files = self.known.entry(dir.clone()).or_insert_with(|| files_in(&dir));
        let (path, extension, drawn) = name.candidates().find_map(|(relative, extension)| {
            let file = relative.file_name()?.to_str()?;
            Some((root.join(&relative), extension, *files.get(file)?))
        })?;
        let drawn = Timestamp::try_from(drawn).ok()?;
        Some(Picture { path, media_type: media_type(extension), drawn })
    }
}

impl Picture {
    /// Its content; nothing when it is gone or no plain file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the disk fails.
    pub(super) fn read(&self) -> Result<Option<Vec<u8>>> {
        let failed = |source| io_error(&self.path, "cannot read the preview", source);
        match std::fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_file() && metadata.len() <= MOST_BYTES => {}
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(failed(source)),
            _ => return Ok(None),
        }
        match std::fs::read(&self.path) {
            Ok(content) => Ok(Some(content)),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed(source)),
        }
    }
}

fn name_of(job_file: &str, about: &About) -> Option<PreviewName> {
    let file = classify(job_file, &about.channels).filter(|file| file.companion.is_none())?;
    let (workspace, name) = file.named_after()?;
    PreviewName::new(&about.slave_name, file.channel.as_deref()?, workspace, name).ok()
}

/// Plain files of a directory; none when there is no directory.
fn files_in(dir: &Path) -> HashMap<String, SystemTime> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let file = |entry: std::fs::DirEntry| {
        let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some((entry.file_name().into_string().ok()?, metadata.modified().ok()?))
    };
    entries.filter_map(file).collect()
}

/// What a picture with this ending is.
fn media_type(extension: &str) -> &'static str {
    match extension {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "tif" | "tiff" => "image/tiff",
        "svg" => "image/svg+xml",
        "bmp" => "image/bmp",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_found_by_the_name_of_its_job_only() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("slave/geoserver/cadastre");
        std::fs::create_dir_all(dir.join("lots.png")).unwrap();
        std::fs::write(dir.join("roads & <ways>.jpg"), b"picture").unwrap();
        std::fs::write(root.path().join("secret.png"), b"secret").unwrap();
        std::os::unix::fs::symlink(root.path().join("secret.png"), dir.join("link.png")).unwrap();
        let about = About {
            slave_name: "slave".into(),
            channels: vec!["geoserver".into()],
            preview_path: root.path().to_owned(),
            ..About::default()
        };
        let mut shelf = Shelf::new(&about);
        let found = shelf.picture("geoserver/layers/cadastre.roads & <ways>.json").unwrap();
        assert_eq!((found.media_type, found.read().unwrap()), ("image/jpeg", Some(b"picture".to_vec())));
        for other in [
            "geoserver/layers/cadastre.lots.json",
            "geoserver/layers/cadastre.link.json",
            "geoserver/layers/cadastre.roads & <ways>.meta.json",
            "geoserver/layers/cadastre.../../../secret.json",
            "geoserver/layers/...secret.json",
            "other/layers/cadastre.roads & <ways>.json",
            "../secret.png",
            "",
        ] {
            assert_eq!(shelf.picture(other), None, "{other}");
        }
        // A link that has come since it was looked.
        std::fs::remove_file(&found.path).unwrap();
        std::os::unix::fs::symlink(root.path().join("secret.png"), &found.path).unwrap();
        assert_eq!(found.read().unwrap(), None);
    }
}
