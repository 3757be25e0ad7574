//! The table of contents of a custom archive, read without `pg_restore`.
//!
//! A pass looks into hundreds of dumps, and two runs of a program for each cost more than the restore of a
//! small table. The format is that of `pg_backup_archiver.c` and `pg_backup_custom.c` in PostgreSQL, whose
//! versions 1.12 to 1.16 were written by `pg_dump` 9.0 to 18. What is not understood is left to `pg_restore`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// The versions of the format (major, minor) that are understood.
const VERSIONS: std::ops::RangeInclusive<(u8, u8)> = (1, 12)..=(1, 16);

/// No string of a table of contents may be longer, in bytes.
const LONGEST: usize = 64 << 20;

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
}

/// Reads the table of contents of `path`; `None` when this is no custom archive of a version that is
/// understood, or is damaged.
pub(super) fn read(path: &Path) -> Option<Contents> {
    let file = File::open(path).ok()?;
    contents(BufReader::new(file))
}

fn contents(source: impl Read) -> Option<Contents> {
    let mut archive = Archive::open(source)?;
    let count = usize::try_from(archive.int()?).ok().filter(|count| *count <= MOST_ENTRIES)?;
    let mut contents = Contents { listing: String::new(), statements: Vec::new() };
    for _ in 0..count {
        archive.entry()?.add_to(&mut contents);
    }
    Some(contents)
}

struct Entry {
    id: i64,
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
            contents.statements.push(self.copy);
        }
    }
}

/// An archive whose header has been read.
struct Archive<R> {
    source: R,
    version: (u8, u8),
    /// Bytes of an integer, and of a position in the file.
    int_bytes: usize,
    offset_bytes: usize,
}

impl<R: Read> Archive<R> {
    fn open(mut source: R) -> Option<Self> {
        let mut head = [0; 11];
        source.read_exact(&mut head).ok()?;
        let [b'P', b'G', b'D', b'M', b'P', major, minor, _revision, int_bytes, offset_bytes, format] = head else {
            return None;
        };
        const CUSTOM: u8 = 1;
        let sizes = 1..=8;
        if format != CUSTOM || !sizes.contains(&int_bytes) || !sizes.contains(&offset_bytes) {
            return None;
        }
        let (int_bytes, offset_bytes) = (usize::from(int_bytes), usize::from(offset_bytes));
        let mut archive = Self { source, version: (major, minor), int_bytes, offset_bytes };
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
        self.skip(1 + self.offset_bytes)?;
        Some(Entry { id, has_rows, catalog, object, name, kind, definition, copy, schema, owner })
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.source.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    /// A sign, then the lowest byte first.
    fn int(&mut self) -> Option<i64> {
        let negative = self.byte()? != 0;
        let mut bytes = [0; 8];
        self.source.read_exact(bytes.get_mut(..self.int_bytes)?).ok()?;
        let value = i64::try_from(u64::from_le_bytes(bytes)).ok()?;
        Some(if negative { -value } else { value })
    }

    /// Its length, negative where there is none, then the text.
    fn text(&mut self) -> Option<Option<String>> {
        let Ok(length) = usize::try_from(self.int()?) else { return Some(None) };
        if length > LONGEST {
            return None;
        }
        let mut bytes = Vec::new();
        self.source.by_ref().take(length as u64).read_to_end(&mut bytes).ok()?;
        (bytes.len() == length).then(|| Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn known(&mut self) -> Option<String> {
        self.text()?
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        (0..bytes).try_for_each(|_| self.byte().map(drop))
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

    async fn pg_restore(arguments: &[&str]) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, ROADS).unwrap();
        let told = Cmd::new("pg_restore").args(arguments).arg(file.path()).run().await.unwrap();
        told.success().unwrap().stdout_text()
    }

    #[tokio::test]
    async fn the_list_is_that_of_pg_restore() {
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().filter(|line| !line.starts_with(';')).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&contents(ROADS).unwrap().listing), sorted(&pg_restore(&["-l"]).await));
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
        assert_eq!(texts(&contents(ROADS).unwrap().statements.concat()), texts(&told));
    }

    #[test]
    fn what_is_not_understood_is_left_to_pg_restore() {
        let with = |at: usize, byte: u8| {
            let mut bytes = ROADS.to_vec();
            bytes[at] = byte;
            contents(bytes.as_slice())
        };
        assert!(with(6, ROADS[6]).is_some());
        for (at, byte) in [(0, b'X'), (5, 2), (6, 11), (6, 17), (8, 0), (8, 9), (10, 3)] {
            assert!(with(at, byte).is_none(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_archive_is_no_reason_to_crash(cut in 0..ROADS.len(), at in 0..ROADS.len(), byte: u8) {
            let _ = contents(&ROADS[..cut]);
            let mut bytes = ROADS.to_vec();
            bytes[at] = byte;
            let _ = contents(bytes.as_slice());
        }
    }
}
