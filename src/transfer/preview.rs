//! Where the picture of a layer is kept: `<slave>/<channel>/<workspace>/<name>.<extension>`.
//!
//! The master knows this path and shows what lies there, so the names stand in it as they are; names that
//! would lead elsewhere are refused.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::blocking;
use crate::error::{Error, ErrorKind, Result, io_error};

/// Endings that pictures may have; of a layer's files only the one with the newest picture stays.
const EXTENSIONS: [&str; 9] = ["png", "jpg", "jpeg", "gif", "webp", "tif", "tiff", "svg", "bmp"];

/// Longest component of a path in bytes (`NAME_MAX`).
const COMPONENT_BYTES: usize = 255;

/// Everybody may read a preview: the master's web server shows it.
const MODE: u32 = 0o644;

/// The place of a layer's preview, without the ending that its content decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PreviewName {
    dir: PathBuf,
    name: String,
}

impl PreviewName {
    /// The place for the layer `name`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] when one of the names is no name of a file.
    pub fn new(slave: &str, channel: &str, workspace: &str, name: &str) -> Result<Self> {
        let mut dir = PathBuf::new();
        for (what, part) in [("slave", slave), ("channel", channel), ("workspace", workspace)] {
            dir.push(component(what, part, 0)?);
        }
        // A dot and the longest of the endings.
        Ok(Self { dir, name: component("layer", name, 5)?.to_owned() })
    }

    /// The path below `PREVIEW_PATH` of a file with this ending.
    #[must_use]
    pub fn relative(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", self.name))
    }

    /// The directory below `PREVIEW_PATH` that it is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The paths below `PREVIEW_PATH` that it can have, with their endings; at most one of them is there.
    pub fn candidates(&self) -> impl Iterator<Item = (PathBuf, &'static str)> {
        EXTENSIONS.iter().map(|extension| (self.relative(extension), *extension))
    }

    /// Keeps `picture` below `root` and answers its path there. The file appears whole; one that has the
    /// same content already is left alone, and those with other endings are removed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the disk fails or is full, [`ErrorKind::Bug`] for an unknown ending.
    pub async fn place(&self, root: &Path, picture: Vec<u8>, extension: &'static str) -> Result<PathBuf> {
        if !EXTENSIONS.contains(&extension) {
            return Err(Error::new(ErrorKind::Bug, format!("{extension:?} is no ending of a picture")));
        }
        let (root, this) = (root.to_owned(), self.clone());
        blocking(move || this.write(&root, &picture, extension)).await
    }

    fn write(&self, root: &Path, picture: &[u8], extension: &str) -> Result<PathBuf> {
        let relative = self.relative(extension);
        let path = root.join(&relative);
        if std::fs::read(&path).is_ok_and(|known| known == picture) {
            self.remove_others(root, extension)?;
            return Ok(relative);
        }
        let dir = root.join(&self.dir);
        std::fs::create_dir_all(&dir).map_err(|source| io_error(&dir, "cannot make the directory", source))?;
        write_whole(&path, picture)?;
        self.remove_others(root, extension)?;
        Ok(relative)
    }

    /// Removes the layer's pictures below `root`; none is success.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the disk refuses.
    pub async fn remove(&self, root: &Path) -> Result<()> {
        let (root, this) = (root.to_owned(), self.clone());
        blocking(move || this.remove_others(&root, "")).await
    }

    fn remove_others(&self, root: &Path, extension: &str) -> Result<()> {
        for other in EXTENSIONS.iter().filter(|other| **other != extension) {
            let path = root.join(self.relative(other));
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io_error(&path, "cannot remove the old preview", source));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes a file that readers see whole or not at all.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let failed = |source| io_error(path, "cannot write the file", source);
    let dir = path.parent().unwrap_or(path);
    let mut file = tempfile::Builder::new()
        .prefix(".incoming-")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(dir)
        .map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// `part` when it is one component of a path that leaves room for `more` bytes.
fn component<'a>(what: &str, part: &'a str, more: usize) -> Result<&'a str> {
    let reason = if part.is_empty() {
        "it is empty"
    } else if part == "." || part == ".." {
        "it is a directory"
    } else if part.contains('/') || part.chars().any(char::is_control) {
        "it holds a slash or a control character"
    } else if part.len() + more > COMPONENT_BYTES {
        "it is too long"
    } else {
        return Ok(part);
    };
    Err(Error::new(ErrorKind::Document, format!("{what} {part:?} cannot be part of a preview's path: {reason}"))
        .hint("correct the name on the master (the slave's with SLAVE_NAME) and publish again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> PreviewName {
        PreviewName::new("slave 1", "dpaw", "cadastre", "röads $(x)").unwrap()
    }

    #[tokio::test]
    async fn the_newest_picture_is_the_only_one() {
        let root = tempfile::tempdir().unwrap();
        let files = || {
            let mut names: Vec<_> = std::fs::read_dir(root.path().join("slave 1/dpaw/cadastre"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let neighbour = PreviewName::new("slave 1", "dpaw", "cadastre", "röads $(x).jpg").unwrap();
        neighbour.place(root.path(), b"other".to_vec(), "png").await.unwrap();
        let relative = name().place(root.path(), b"jpeg".to_vec(), "jpg").await.unwrap();
        assert_eq!(relative, Path::new("slave 1/dpaw/cadastre/röads $(x).jpg"));
        name().place(root.path(), b"first".to_vec(), "png").await.unwrap();
        let relative = name().place(root.path(), b"second".to_vec(), "png").await.unwrap();
        assert_eq!(files(), ["röads $(x).jpg.png", "röads $(x).png"]);
        let path = root.path().join(relative);
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        // The same again does not touch it.
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        name().place(root.path(), b"second".to_vec(), "png").await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", ".", "..", "a/b", "../x", "a\nb", "a\0b", &"x".repeat(256)] {
            let error = PreviewName::new("slave", bad, "ws", "x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Document, "{bad:?}");
        }
        assert!(PreviewName::new("s", "c", "w", &"x".repeat(251)).is_err());
    }

    proptest! {
        #[test]
        fn a_preview_stays_below_its_root(slave in ".{1,8}", channel in ".{1,8}", workspace in ".{1,8}", name in ".{1,8}") {
            if let Ok(place) = PreviewName::new(&slave, &channel, &workspace, &name) {
                let path = place.relative("png");
                let normal = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
                prop_assert!(path.components().all(normal) && path.components().count() == 4);
            }
        }
    }
}
