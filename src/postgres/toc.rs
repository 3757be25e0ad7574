//! The table of contents of an archive, read without `pg_restore`.
//!
//! A pass looks into hundreds of dumps, and two runs of a program for each cost more than the restore of a
//! small table. The format is that of `pg_backup_archiver.c`, `pg_backup_custom.c` and `pg_backup_tar.c` in PostgreSQL, whose
//! versions 1.12 to 1.16 were written by `pg_dump` 9.0 to 18. What is not understood is left to `pg_restore`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use super::archive::Format;

/// The versions of the format (major, minor) that are understood.
const VERSIONS: std::ops::RangeInclusive<(u8, u8)> = (1, 12)..=(1, 16);

/// What every machine writes that PostgreSQL runs on.
const INT_BYTES: u8 = 4;
const OFFSET_BYTES: u8 = 8;

/// No string of a table of contents may be longer, in bytes.
const LONGEST: usize = 64 << 20;

/// The table of contents is the first member of a tar archive.
const TAR_HEADER: u64 = 512;

/// The dump of one table has some dozens.
const MOST_ENTRIES: usize = 100_000;

/// Kinds that set up the session: `pg_restore` runs them whatever is chosen, and does not list them.
const OF_SESSION: [&str; 3] = ["ENCODING", "STDSTRINGS", "SEARCHPATH"];

/// What a table of contents says.
#[derive(Debug)]
pub(super) struct Contents {
    /// The entries as `pg_restore -l` lists them, but for its remarks.
    pub(super) listing: String,
    /// What `pg_restore --no-privileges` would send to the server at a time, without the rows. Each piece holds
    /// whole statements, or is not as `pg_dump` writes it.
    pub(super) statements: Vec<String>,
    /// The rows come as statements (`pg_dump --inserts`), which were not read.
    pub(super) rows_are_statements: bool,
}

/// What could be read.
#[derive(Debug)]
pub(super) enum Reading {
    /// All of it.
    Whole(Contents),
    /// The archive is damaged, or `pg_dump` would not have written it.
    Odd,
    /// The version of the format is not understood.
    Unknown,
}

/// Reads the table of contents of `path`, which begins as an archive of `format` does.
pub(super) fn read(path: &Path, format: Format) -> Reading {
    let Ok(mut file) = File::open(path) else { return Reading::Odd };
    if format == Format::Tar && file.seek(SeekFrom::Start(TAR_HEADER)).is_err() {
        return Reading::Odd;
    }
    contents(BufReader::new(file), format)
}

fn contents(source: impl Read, format: Format) -> Reading {
    match Archive::open(source, format) {
        Some(mut archive) => archive.contents().map_or(Reading::Odd, Reading::Whole),
        None => Reading::Unknown,
    }
}

struct Entry {
    id: i32,
    has_rows: bool,
    catalog: String,
    object: String,
    name: String,
    kind: String,
    definition: String,
    copy: String,
    schema: Option<String>,
    owner: String,
}

impl Entry {
    /// What `pg_restore` leaves out, and does not list, unless it makes the database (`--create`).
    fn is_of_database(&self) -> bool {
        match self.kind.as_str() {
            "DATABASE" | "DATABASE PROPERTIES" => true,
            "ACL" | "COMMENT" | "SECURITY LABEL" => self.name.starts_with("DATABASE "),
            _ => false,
        }
    }

    fn add_to(self, contents: &mut Contents) {
        use std::fmt::Write as _;
        let kind = self.kind.as_str();
        if self.is_of_database() {
            return;
        }
        if !OF_SESSION.contains(&kind) {
            // Line ends in names become blanks, as pg_restore has it.
            let shown = |name: &str| name.replace(['\n', '\r'], " ");
            let schema = self.schema.as_deref().map_or_else(|| "-".to_owned(), shown);
            let (name, owner) = (shown(&self.name), shown(&self.owner));
            let _ = writeln!(
                contents.listing,
                "{}; {} {} {kind} {schema} {name} {owner}",
                self.id, self.catalog, self.object
            );
        }
        if !matches!(kind, "ACL" | "STATISTICS DATA") {
            contents.statements.push(self.definition);
        }
        if self.has_rows {
            // Empty when the rows are statements themselves.
            contents.rows_are_statements |= self.copy.is_empty();
            contents.statements.push(self.copy);
        }
    }
}

/// An archive whose header has been read.
struct Archive<R> {
    source: R,
    format: Format,
    version: (u8, u8),
}

impl<R: Read> Archive<R> {
    fn open(mut source: R, archive_format: Format) -> Option<Self> {
        let mut head = [0; 11];
        source.read_exact(&mut head).ok()?;
        let [b'P', b'G', b'D', b'M', b'P', major, minor, _revision, int_bytes, offset_bytes, format] = head else {
            return None;
        };
        let expected = match archive_format {
            Format::Custom => 1,
            Format::Tar => 3,
        };
        // Of an integer and of a position in the file. pg_restore takes others, and cuts them to its own.
        if (format, int_bytes, offset_bytes) != (expected, INT_BYTES, OFFSET_BYTES) {
            return None;
        }
        let mut archive = Self { source, format: archive_format, version: (major, minor) };
        if !VERSIONS.contains(&archive.version) {
            return None;
        }
        if archive.version >= (1, 15) {
            archive.byte()?;
        } else {
            archive.int()?;
        }
        // Second, minute, hour, day, month, year, daylight saving.
        for _ in 0..7 {
            archive.int()?;
        }
        // The database, and the versions of server and pg_dump.
        for _ in 0..3 {
            archive.text()?;
        }
        Some(archive)
    }

    fn contents(&mut self) -> Option<Contents> {
        let count = usize::try_from(self.int()?).ok().filter(|count| *count <= MOST_ENTRIES)?;
        let mut contents = Contents { listing: String::new(), statements: Vec::new(), rows_are_statements: false };
        let mut ids = HashSet::new();
        for _ in 0..count {
            let entry = self.entry()?;
            // Entries are chosen by their number.
            if !ids.insert(entry.id) {
                return None;
            }
            entry.add_to(&mut contents);
        }
        Some(contents)
    }

    fn entry(&mut self) -> Option<Entry> {
        let id = self.int()?;
        let has_rows = self.int()? != 0;
        let (catalog, object) = (self.known()?, self.known()?);
        let (name, kind) = (self.known()?, self.known()?);
        let _section = self.int()?;
        let definition = self.text()?.unwrap_or_default();
        let _drop = self.text()?;
        let copy = self.text()?.unwrap_or_default();
        let schema = self.text()?;
        let _tablespace = self.text()?;
        if self.version >= (1, 14) {
            let _access_method = self.text()?;
        }
        if self.version >= (1, 16) {
            let _relation_kind = self.int()?;
        }
        let owner = self.text()?.unwrap_or_default();
        let _with_oids = self.text()?;
        while self.text()?.is_some() {}
        match self.format {
            // Where its rows begin, and whether that is known.
            Format::Custom => self.source.read_exact(&mut [0; 1 + OFFSET_BYTES as usize]).ok()?,
            // The member that holds them.
            Format::Tar => drop(self.text()?),
        }
        Some(Entry { id, has_rows, catalog, object, name, kind, definition, copy, schema, owner })
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.source.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    /// A sign, then the lowest byte first.
    fn int(&mut self) -> Option<i32> {
        let negative = self.byte()? != 0;
        let mut bytes = [0; INT_BYTES as usize];
        self.source.read_exact(&mut bytes).ok()?;
        // What does not fit is another number to pg_restore.
        let value = i32::try_from(u32::from_le_bytes(bytes)).ok()?;
        Some(if negative { -value } else { value })
    }

    /// Its length, -1 where there is none, then the text.
    fn text(&mut self) -> Option<Option<String>> {
        let length = match self.int()? {
            -1 => return Some(None),
            length => usize::try_from(length).ok().filter(|length| *length <= LONGEST)?,
        };
        let mut bytes = Vec::new();
        self.source.by_ref().take(length as u64).read_to_end(&mut bytes).ok()?;
        // To pg_restore a text ends at the first zero.
        let is_whole = bytes.len() == length && !bytes.contains(&0);
        is_whole.then(|| Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn known(&mut self) -> Option<String> {
        self.text()?
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::script;
    use super::*;
    use crate::process::Cmd;

    /// Written by `pg_dump` 15: a table with a sequence, an index, a foreign key, comments and rights.
    const ROADS: &[u8] = include_bytes!("toc/roads.db");
    /// The same as a tar archive.
    const TAR: &[u8] = include_bytes!("toc/roads.tar");

    fn whole(reading: Reading) -> Contents {
        match reading {
            Reading::Whole(contents) => contents,
            other => panic!("{other:?}"),
        }
    }

    fn both() -> [Contents; 2] {
        let tar = TAR.get(TAR_HEADER as usize..).unwrap();
        [contents(ROADS, Format::Custom), contents(tar, Format::Tar)].map(whole)
    }

    async fn pg_restore(arguments: &[&str]) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, ROADS).unwrap();
        let told = Cmd::new("pg_restore").args(arguments).arg(file.path()).run().await.unwrap();
        told.success().unwrap().stdout_text()
    }

    #[tokio::test]
    async fn the_list_is_that_of_pg_restore() {
        let told = pg_restore(&["-l"]).await;
        // In this order what is listed is restored.
        let told: Vec<_> = told.lines().filter(|line| !line.starts_with(';')).collect();
        for contents in both() {
            assert_eq!(contents.listing.lines().collect::<Vec<_>>(), told);
        }
    }

    #[tokio::test]
    async fn the_statements_are_those_of_pg_restore() {
        let told = pg_restore(&["--no-owner", "--no-privileges", "--no-tablespaces", "-f", "-"]).await;
        // Without the rows, which only the script has; what it sets for its session is not in the list.
        let (before, rows) = told.split_once("FROM stdin;\n").unwrap();
        let told = format!("{before}FROM stdin;\n{}", rows.split_once("\\.\n").unwrap().1);
        let texts = |script: &str| {
            let statements = script::statements(script).unwrap().into_iter().map(|statement| statement.text);
            let mut texts: Vec<_> = statements.filter(|text| !text.starts_with("SET ")).collect();
            texts.sort();
            texts
        };
        for contents in both() {
            assert_eq!(texts(&contents.statements.concat()), texts(&told));
            assert!(!contents.rows_are_statements);
        }
    }

    #[test]
    fn another_version_is_left_to_pg_restore_and_what_it_would_not_have_written_is_odd() {
        let with = |changes: &[(usize, u8)]| {
            let mut bytes = ROADS.to_vec();
            changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
            contents(bytes.as_slice(), Format::Custom)
        };
        assert!(matches!(with(&[]), Reading::Whole(_)));
        for (at, byte) in [(0, b'X'), (5, 2), (6, 11), (6, 17), (8, 8), (9, 4), (10, 3)] {
            assert!(matches!(with(&[(at, byte)]), Reading::Unknown), "byte {at}");
        }
        let kind = ROADS.windows(9).position(|bytes| bytes == b"\x05\0\0\0TABLE").unwrap();
        // A text that ends early, and those whose length is another to pg_restore or less than none.
        assert!(matches!(with(&[(kind + 6, 0)]), Reading::Odd));
        assert!(matches!(with(&[(kind + 3, 0x80)]), Reading::Odd));
        assert!(matches!(with(&[(kind - 1, 1)]), Reading::Odd));
        assert!(matches!(contents(&ROADS[..200], Format::Custom), Reading::Odd));
    }

    proptest! {
        #[test]
        fn a_damaged_archive_is_no_reason_to_crash(cut in 0..ROADS.len(), at in 0..ROADS.len(), byte: u8) {
            let _ = contents(&ROADS[..cut], Format::Custom);
            let mut bytes = ROADS.to_vec();
            bytes[at] = byte;
            let _ = contents(bytes.as_slice(), Format::Custom);
        }
    }
}
