//! What a dump holds, read from its table of contents before anything of it runs.
//!
//! A dump may hold any SQL, and restoring runs it. Therefore the kinds of entries are checked against
//! a list, and the statements themselves against the table that they may touch.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::script::{self, Statement, Token};
use super::toc::{self, Contents, Reading};
use super::{Table, failure, programs};
use crate::error::{Error, ErrorKind, Result, io_error};
use crate::process::Cmd;

/// How long reading a table of contents may take.
const LIST_LIMIT: Duration = Duration::from_secs(300);

/// From this size of a dump on, in bytes, indexes are built two at a time: below, the sessions that it
/// takes cost more than they save.
const PARALLEL_BYTES: u64 = 1 << 20;

/// What `pg_restore -l` calls the entries that a dump of one table may hold; longer names first.
const KINDS: [&str; 14] = [
    "SEQUENCE OWNED BY",
    "STATISTICS DATA",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "SEQUENCE SET",
    "TABLE DATA",
    "CONSTRAINT",
    "STATISTICS",
    "SEQUENCE",
    "DEFAULT",
    "COMMENT",
    "INDEX",
    "TABLE",
    "ACL",
];

/// Kinds whose entries are named after the table.
const OF_TABLE: [&str; 6] = ["TABLE", "TABLE DATA", "DEFAULT", "CONSTRAINT", "FK CONSTRAINT", "CHECK CONSTRAINT"];

/// What a dump sets for its own session.
const SETTINGS: [&str; 13] = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
    "client_encoding",
    "standard_conforming_strings",
    "check_function_bodies",
    "xmloption",
    "client_min_messages",
    "row_security",
    "default_tablespace",
    "default_table_access_method",
    "default_with_oids",
];

/// The format of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Custom,
    Tar,
}

/// A foreign key that the dump brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// The constraint's name.
    pub constraint: String,
    /// Schema and name of the table that it points to.
    pub references: (String, String),
    /// The statement that adds it.
    pub(super) sql: String,
}

/// A dump that holds one table and nothing that it may not hold.
#[derive(Debug, Clone)]
pub struct Archive {
    path: PathBuf,
    format: Format,
    bytes: u64,
    list: String,
    foreign_keys: Vec<ForeignKey>,
    md5: Option<String>,
    check: Option<Check>,
}

/// Tells whether a dump is still the file that it was.
#[derive(Clone)]
struct Check(Arc<dyn Fn() -> Result<()> + Send + Sync>);

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Check")
    }
}

impl Archive {
    /// Reads the table of contents of the dump at `path`, which shall be one of `table`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Archive`] when the file is no custom or tar archive of `pg_dump`, is damaged, or
    /// holds more than the table, its data, sequences, defaults, constraints, indexes, statistics and
    /// comments; [`ErrorKind::Process`] when `pg_restore` is missing.
    pub async fn inspect(path: &Path, table: &Table, stop: &CancellationToken) -> Result<Self> {
        let (format, bytes) = format_of(path)?;
        let reading = toc::read(path, format);
        let is_odd = matches!(reading, Reading::Odd);
        let contents = match reading {
            Reading::Whole(contents) => contents,
            // It says best what is damaged.
            Reading::Odd | Reading::Unknown => told_by_pg_restore(path, format, stop).await?,
        };
        let refuse = |reason: String| {
            Error::new(ErrorKind::Archive, reason)
                .subject(path.display().to_string())
                .hint("publish the layer again on the master, as a dump of that one table (pg_dump -t)")
        };
        if is_odd {
            return Err(refuse("the dump's table of contents is not as pg_dump writes it".to_owned()));
        }
        if contents.rows_are_statements {
            return Err(refuse("the dump's rows are statements (pg_dump --inserts), which may do anything".to_owned()));
        }
        let list = allowed_entries(&contents.listing, table).map_err(refuse)?;
        let foreign_keys = statements(&contents)
            .and_then(|statements| foreign_keys(&statements, table))
            .map_err(|reason| refuse(format!("the dump is refused: {reason}")))?;
        let list = list.lines().filter(|line| !is_foreign_key(line, table)).map(|line| format!("{line}\n")).collect();
        Ok(Self { path: path.to_owned(), format, bytes, list, foreign_keys, md5: None, check: None })
    }

    /// Tells which content this is. With it, a table that was loaded by an earlier run but not
    /// published is not loaded again.
    #[must_use]
    pub fn with_md5(mut self, md5: impl Into<String>) -> Self {
        self.md5 = Some(md5.into());
        self
    }

    /// Asks `check` whenever the dump was read, and takes nothing from one that has changed meanwhile.
    #[must_use]
    pub fn with_check(mut self, check: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        self.check = Some(Check(Arc::new(check)));
        self
    }

    /// Fails when the dump is no longer the file that was inspected, as far as that can be known.
    pub(super) fn check(&self) -> Result<()> {
        self.check.as_ref().map_or(Ok(()), |check| check.0())
    }

    /// The foreign keys that the dump brings.
    #[must_use]
    pub fn foreign_keys(&self) -> &[ForeignKey] {
        &self.foreign_keys
    }

    pub(super) fn md5(&self) -> Option<&str> {
        self.md5.as_deref()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many sessions shall build its indexes and constraints, once table and rows are there. Only a custom
    /// archive can be read by several.
    pub(super) fn jobs(&self) -> u32 {
        let indexes = self.list.lines().filter(|line| entry(line).is_some_and(|entry| entry.starts_with("INDEX ")));
        if self.format == Format::Custom && self.bytes >= PARALLEL_BYTES && indexes.count() > 1 { 2 } else { 1 }
    }

    /// The table of contents without the foreign keys.
    pub(super) fn list_file(&self) -> Result<tempfile::NamedTempFile> {
        list_file(&self.list)
    }

    /// The option that tells `pg_restore` the format.
    pub(super) fn format_option(&self) -> &'static str {
        self.format.option()
    }
}

impl Format {
    fn option(self) -> &'static str {
        match self {
            Self::Custom => "--format=custom",
            Self::Tar => "--format=tar",
        }
    }
}

fn list_file(list: &str) -> Result<tempfile::NamedTempFile> {
    let dir = std::env::temp_dir();
    let failed = |source| io_error(&dir, "cannot write the list of entries to restore", source);
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    std::io::Write::write_all(&mut file, list.as_bytes()).map_err(failed)?;
    Ok(file)
}

/// Format and size. The format by the file's first bytes: custom archives begin with `PGDMP`, tar archives of `pg_dump`
/// with the member `toc.dat`.
fn format_of(path: &Path) -> Result<(Format, u64)> {
    let mut head = Vec::new();
    let failed = |source| io_error(path, "cannot read the dump", source);
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    file.take(512).read_to_end(&mut head).map_err(failed)?;
    if head.starts_with(b"PGDMP") {
        Ok((Format::Custom, bytes))
    } else if head.starts_with(b"toc.dat\0") && head.get(257..262) == Some(b"ustar") {
        Ok((Format::Tar, bytes))
    } else {
        Err(Error::new(ErrorKind::Archive, "this is no custom or tar archive of pg_dump")
            .subject(path.display().to_string())
            .hint("publish the layer again on the master (pg_dump -F c or -F t)"))
    }
}

/// What `pg_restore` says of a dump that is not read here.
async fn told_by_pg_restore(path: &Path, format: Format, stop: &CancellationToken) -> Result<Contents> {
    // Both read no more than the table of contents, which is as quick as the programs start.
    let (listing, script) = tokio::try_join!(
        pg_restore(path, format, stop, |cmd| cmd.arg("-l")),
        pg_restore(path, format, stop, |cmd| {
            cmd.args(["--schema-only", "--no-owner", "--no-privileges", "--no-tablespaces", "-f", "-"])
        })
    )?;
    Ok(Contents { listing, statements: vec![script], rows_are_statements: false })
}

/// All statements of a dump, each from one piece: what begins in one and ends in the next would not run as
/// it reads.
fn statements(contents: &Contents) -> std::result::Result<Vec<Statement>, String> {
    let mut all = Vec::new();
    for piece in &contents.statements {
        all.extend(script::statements(piece)?);
    }
    Ok(all)
}

async fn pg_restore(
    path: &Path,
    format: Format,
    stop: &CancellationToken,
    arguments: impl FnOnce(Cmd) -> Cmd,
) -> Result<String> {
    let cmd = arguments(Cmd::new(programs::pg_restore(stop).await).arg(format.option()));
    let finished = cmd.arg("--").arg(path).time_limit(LIST_LIMIT).stop(stop).run().await?;
    if finished.status.success() {
        Ok(finished.stdout_text())
    } else {
        let subject = path.display().to_string();
        Err(failure::restore(&finished.stderr, "cannot read the dump's table of contents", &subject))
    }
}

/// The part of a listing's line that tells what the entry is: `TABLE DATA ws_data roads owner`.
///
/// A line is `dumpId; catalogId objectId KIND schema name owner`; comments begin with `;`.
fn entry(line: &str) -> Option<&str> {
    let (id, rest) = line.split_once("; ")?;
    id.parse::<u32>().ok()?;
    rest.splitn(3, ' ').nth(2)
}

/// Kind and remainder (name and owner) of an entry in the table's schema, when the kind is allowed.
fn allowed<'a>(entry: &'a str, table: &Table) -> Option<(&'static str, &'a str)> {
    let schema = printed(table.data_schema.as_str());
    let name = printed(table.name.as_str());
    KINDS.into_iter().find_map(|kind| {
        let rest = entry.strip_prefix(kind)?.strip_prefix(' ')?.strip_prefix(schema.as_str())?.strip_prefix(' ')?;
        if OF_TABLE.contains(&kind) && !rest.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(' ')) {
            return None;
        }
        Some((kind, rest))
    })
}

/// A name as the listing prints it: line ends become blanks.
fn printed(name: &str) -> String {
    name.replace(['\n', '\r'], " ")
}

fn is_foreign_key(line: &str, table: &Table) -> bool {
    entry(line).and_then(|entry| allowed(entry, table)).is_some_and(|(kind, _)| kind == "FK CONSTRAINT")
}

/// The lines of the listing that are restored, or the reason for refusal.
fn allowed_entries(listing: &str, table: &Table) -> std::result::Result<String, String> {
    let mut list = String::new();
    let mut tables = 0_u32;
    for line in listing.lines().filter(|line| !line.starts_with(';') && !line.trim().is_empty()) {
        let entry = entry(line).ok_or_else(|| format!("cannot understand the entry `{line}`"))?;
        let Some((kind, _)) = allowed(entry, table) else {
            return Err(format!(
                "the dump holds more than table {}.{}, its data, sequences, defaults, constraints, indexes and comments: `{entry}`",
                table.data_schema, table.name
            ));
        };
        tables += u32::from(kind == "TABLE");
        // Privileges are the slave's own affair, and statistics are collected after loading.
        if kind != "ACL" && kind != "STATISTICS DATA" {
            list.push_str(line);
            list.push('\n');
        }
    }
    if tables == 1 {
        Ok(list)
    } else {
        Err(format!("the dump does not hold table {}.{}", table.data_schema, table.name))
    }
}

/// Checks each statement and picks the foreign keys.
fn foreign_keys(statements: &[Statement], table: &Table) -> std::result::Result<Vec<ForeignKey>, String> {
    let own = (table.data_schema.as_str(), table.name.as_str());
    let mut keys = Vec::new();
    let mut created = 0_u32;
    let mut sequences: Vec<(&str, &str)> = Vec::new();
    for statement in statements {
        let refused = || format!("it may not hold `{}`", statement.beginning());
        let in_schema = |index| statement.qualified(index).filter(|(schema, _)| *schema == own.0);
        let ok = if statement.begins(&["create", "table"]) {
            created += 1;
            statement.qualified(2) == Some(own)
                && statement.find("inherits", 0).is_none()
                && statement.find("partition", 0).is_none()
        } else if statement.begins(&["alter", "table"]) {
            let at = if statement.begins(&["alter", "table", "only"]) { 3 } else { 2 };
            if let Some(key) = foreign_key(statement, at) {
                keys.push(key);
            }
            statement.qualified(at) == Some(own)
        } else if statement.begins(&["create", "sequence"]) {
            sequences.extend(statement.qualified(2));
            in_schema(2).is_some()
        } else if statement.begins(&["alter", "sequence"]) {
            let owner = statement.find("owned", 5).map(|owned| owned + 2);
            if let Some(name) = statement.qualified(2) {
                sequences.retain(|other| *other != name);
            }
            in_schema(2).is_some() && owner.is_some_and(|owner| statement.qualified(owner) == Some(own))
        } else if statement.begins(&["create", "index"]) || statement.begins(&["create", "unique", "index"]) {
            statement.find("on", 0).is_some_and(|on| {
                let only = statement.tokens.get(on + 1).is_some_and(|token| token.is("only"));
                statement.qualified(on + 1 + usize::from(only)) == Some(own)
            })
        } else if statement.begins(&["create", "statistics"]) {
            statement.find("from", 0).is_some_and(|from| statement.qualified(from + 1) == Some(own))
        } else if statement.begins(&["copy"]) {
            let from = statement.find("from", 0);
            statement.qualified(1) == Some(own)
                && from.is_some_and(|from| matches!(&statement.tokens[from + 1..], [source] if source.is("stdin")))
        } else if statement.begins(&["select", "pg_catalog"]) {
            // One call, whose arguments are constants.
            let calls = statement.tokens.iter().filter(|token| **token == Token::Symbol('(')).count();
            calls == 1
                && match (statement.name(3), statement.tokens.get(5)) {
                    (Some("set_config"), Some(Token::Text(setting))) => setting == "search_path",
                    (Some("setval"), Some(Token::Text(sequence))) => {
                        script::qualified(sequence).is_some_and(|(schema, _)| schema == own.0)
                    }
                    _ => false,
                }
        } else if statement.begins(&["set"]) {
            statement.name(1).is_some_and(|setting| SETTINGS.contains(&setting))
                && (statement.name(1) != Some("standard_conforming_strings")
                    || statement
                        .tokens
                        .last()
                        .is_some_and(|value| value.is("on") || *value == Token::Text("on".into())))
        } else if statement.begins(&["alter", "index"]) || statement.begins(&["alter", "statistics"]) {
            in_schema(2).is_some()
        } else {
            let comment = |kind| statement.begins(&["comment", "on", kind]);
            ["table", "column", "index", "sequence", "constraint", "statistics"].into_iter().any(comment)
        };
        if !ok {
            return Err(refused());
        }
    }
    if let Some((_, name)) = sequences.first() {
        return Err(format!("sequence {name} belongs to no column of the table, so it would outlive it"));
    }
    if created == 1 { Ok(keys) } else { Err(format!("it does not create table {}.{}", own.0, own.1)) }
}

/// `ALTER TABLE [ONLY] t ADD CONSTRAINT name FOREIGN KEY (…) REFERENCES schema.table(…) …`
fn foreign_key(statement: &Statement, table_at: usize) -> Option<ForeignKey> {
    let add = table_at + 3;
    if !(statement.tokens.get(add)?.is("add") && statement.tokens.get(add + 1)?.is("constraint")) {
        return None;
    }
    statement.tokens.get(add + 3).filter(|token| token.is("foreign"))?;
    let (schema, name) = statement.qualified(statement.find("references", add)? + 1)?;
    Some(ForeignKey {
        constraint: statement.name(add + 2)?.to_owned(),
        references: (schema.to_owned(), name.to_owned()),
        sql: statement.text.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::PgIdent;

    fn table(name: &str) -> Table {
        let ident = |name: &str| PgIdent::new("name", name).unwrap();
        Table {
            schema: ident("ws"),
            data_schema: ident("ws_data"),
            outdated_schema: ident("ws_outdated"),
            name: ident(name),
        }
    }

    const LISTING: &str = "\
;
; Archive created at 2026-01-01 00:00:00 UTC
;     Format: CUSTOM
;
215; 1259 16390 TABLE ws_data roads postgres
216; 1259 16395 SEQUENCE ws_data roads_id_seq postgres
4242; 0 0 SEQUENCE OWNED BY ws_data roads_id_seq postgres
4100; 2604 16396 DEFAULT ws_data roads id postgres
4235; 0 16390 TABLE DATA ws_data roads postgres
4243; 0 0 ACL ws_data TABLE roads postgres
4110; 2606 16399 FK CONSTRAINT ws_data roads roads_town_fkey postgres
";

    #[test]
    fn entries_of_one_table_pass_and_privileges_fall_away() {
        let list = allowed_entries(LISTING, &table("roads")).unwrap();
        assert_eq!(list.lines().count(), 6);
        assert!(!list.contains("ACL"));
        assert_eq!(list.lines().filter(|line| is_foreign_key(line, &table("roads"))).count(), 1);
    }

    #[tokio::test]
    async fn a_dump_and_its_foreign_keys_pass_whoever_reads_them() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/postgres/toc/roads.db"));
        let stop = CancellationToken::new();
        let Reading::Whole(read) = toc::read(path, Format::Custom) else { panic!("it is not read") };
        let told = told_by_pg_restore(path, Format::Custom, &stop).await.unwrap();
        for contents in [read, told] {
            let keys = foreign_keys(&statements(&contents).unwrap(), &table("roads")).unwrap();
            assert_eq!(keys.len(), 1);
            assert_eq!(keys[0].references, ("ws_data".to_owned(), "Towns".to_owned()));
        }
        let archive = Archive::inspect(path, &table("roads"), &stop).await.unwrap();
        assert_eq!((archive.foreign_keys.len(), archive.list.lines().count()), (1, 10));
        assert!(Archive::inspect(path, &table("Towns"), &stop).await.is_err());
        let inserts = path.with_file_name("inserts.db");
        let error = Archive::inspect(&inserts, &table("roads"), &stop).await.unwrap_err();
        assert!(error.message().contains("--inserts"), "{error}");
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for (entry, table_name) in [
            ("9; 1255 1 FUNCTION ws_data evil() postgres", "roads"),
            ("9; 2620 1 TRIGGER ws_data roads evil postgres", "roads"),
            ("9; 0 0 DEFAULT ACL ws_data DEFAULT PRIVILEGES FOR TABLES postgres", "roads"),
            ("9; 1259 1 TABLE ws_data rivers postgres", "roads"),
            ("9; 1259 1 TABLE other roads postgres", "roads"),
            ("9; 0 0 COMMENT - EXTENSION postgis ", "roads"),
        ] {
            let error = allowed_entries(&format!("{LISTING}{entry}\n"), &table(table_name)).unwrap_err();
            assert!(error.contains(entry.splitn(4, ' ').nth(3).unwrap()), "{error}");
        }
        assert!(allowed_entries(LISTING, &table("road")).is_err());
        assert!(allowed_entries("; nothing\n", &table("roads")).unwrap_err().contains("does not hold"));
    }

    #[test]
    fn a_statement_that_goes_on_in_the_next_entry_is_refused() {
        let pieces = ["CREATE TABLE ws_data.roads (id integer);", "COMMENT ON TABLE ws_data.roads IS", "DROP TABLE t;"];
        let of = |pieces: &[&str]| {
            let statements = pieces.iter().map(|piece| (*piece).to_owned()).collect();
            super::statements(&Contents { listing: String::new(), statements, rows_are_statements: false })
        };
        assert!(of(&pieces).unwrap_err().contains("has no end"));
        assert_eq!(of(&pieces[..1]).unwrap().len(), 1);
    }

    #[test]
    fn statements_that_touch_something_else_are_refused() {
        let check = |more: &str| {
            let script = format!("SET lock_timeout = 0;CREATE TABLE ws_data.roads (id integer);{more};");
            foreign_keys(&script::statements(&script).unwrap(), &table("roads"))
        };
        for bad in [
            "DROP TABLE ws_data.rivers",
            "ALTER TABLE ws_data.rivers ADD COLUMN x integer",
            "ALTER TABLE ONLY other.roads ADD COLUMN x integer",
            "CREATE INDEX x ON ws_data.rivers USING btree (id)",
            "CREATE SEQUENCE ws_data.lonely",
            "CREATE SEQUENCE other.seq",
            "SELECT pg_catalog.pg_read_file('/etc/passwd')",
            "SELECT pg_catalog.set_config('search_path', pg_read_file('/etc/passwd'), false)",
            "SELECT pg_catalog.setval('other.seq', 1, true)",
            "SELECT pg_catalog.setval('ws_data.seq', evil(), true)",
            "COPY ws_data.rivers (id) FROM stdin",
            "COPY ws_data.roads (id) TO stdout",
            "CREATE TABLE ws_data.rivers (id integer)",
            "COPY ws_data.roads FROM PROGRAM 'sh'",
            "SET standard_conforming_strings = off",
            "SET ROLE postgres",
            "ALTER INDEX other.idx RENAME TO x",
            "CREATE FUNCTION ws_data.f() RETURNS integer LANGUAGE sql AS $$ select 1; $$",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        let keys = check(
            "COPY ws_data.roads (id, \"from\") FROM stdin;SELECT pg_catalog.setval('ws_data.\"S\"', 4, true);\
             CREATE SEQUENCE ws_data.s START WITH 1;ALTER SEQUENCE ws_data.s OWNED BY ws_data.roads.id;\
             ALTER TABLE ONLY ws_data.roads ADD CONSTRAINT \"To town\" FOREIGN KEY (id) REFERENCES ws_data.\"Towns\"(id) ON DELETE CASCADE",
        )
        .unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].constraint, "To town");
        assert_eq!(keys[0].references, ("ws_data".to_owned(), "Towns".to_owned()));
    }
}
