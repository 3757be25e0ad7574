//! Are the server and the client programs fit for the work?

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::connect::Database;
use super::{failure, programs};
use crate::error::{Error, ErrorKind, Result};
use crate::process::Cmd;

/// The oldest server that is supported, as in `server_version_num`.
const OLDEST_SERVER: u32 = 120_000;

/// How long a client program may take to print its version.
const VERSION_LIMIT: Duration = Duration::from_secs(30);

/// From these versions on `pg_restore` withstands a crafted archive (CVE-2026-116314).
const PATCHED: [(u32, u32); 5] = [(18, 7), (17, 12), (16, 16), (15, 20), (14, 25)];

/// From this version on `pg_restore` sets `transaction_timeout`, which servers before this version refuse.
const SETS_TRANSACTION_TIMEOUT: u32 = 17;

/// The version of a client program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolVersion {
    /// Number before the dot.
    pub major: u32,
    /// Number after the dot; 0 for a beta.
    pub minor: u32,
}

impl fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl ToolVersion {
    /// Reads what `pg_restore --version` prints: `pg_restore (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)`.
    pub(super) fn parse(printed: &str) -> Option<Self> {
        let number = printed.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let major = parts.next()?.ok()?;
        Some(Self { major, minor: parts.next().and_then(std::result::Result::ok).unwrap_or(0) })
    }
}

/// What the slave works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// The server's version as it prints it.
    pub server: String,
    /// The server's version as a number: 150020 is 15.20.
    pub server_num: u32,
    /// The version of the PostGIS extension in the database, when it is there.
    pub postgis: Option<String>,
    /// The `pg_restore` that loads.
    pub pg_restore: ToolVersion,
    /// Where that is, if it is not the one on `PATH`.
    pub(super) loader: Option<PathBuf>,
    /// `psql` on `PATH`; only roles need it.
    pub psql: Option<ToolVersion>,
}

impl Versions {
    /// Whether the server understands what `pg_restore` sends it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when it does not.
    pub fn check_loading(&self) -> Result<()> {
        if !is_too_new(&self.pg_restore, self.server_num) {
            return Ok(());
        }
        let newest = SETS_TRANSACTION_TIMEOUT - 1;
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "pg_restore {} cannot load into PostgreSQL {}, which does not know the setting transaction_timeout",
                self.pg_restore, self.server
            ),
        )
        .hint(format!(
            "install postgresql-client-{newest} beside it (https://apt.postgresql.org has it; below {} it is found), or upgrade the server",
            programs::DEBIAN_VERSIONS
        )))
    }

    /// What works today but wants an operator's attention, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let server_major = self.server_num / 10_000;
        if self.pg_restore.major < server_major {
            warnings.push(format!(
                "pg_restore {} is older than the server ({}): it may not read dumps of newer masters; install postgresql-client-{server_major}",
                self.pg_restore, self.server
            ));
        }
        if let Some(psql) = self.psql.as_ref().filter(|psql| psql.major < server_major) {
            warnings.push(format!(
                "psql {psql} is older than the server ({}): a script of roles may use what it does not know; install postgresql-client-{server_major}",
                self.server
            ));
        }
        let patched = PATCHED.iter().find(|(major, _)| *major == self.pg_restore.major);
        let safe = match patched {
            Some((_, minor)) => self.pg_restore.minor >= *minor,
            None => self.pg_restore.major > PATCHED[0].0,
        };
        if !safe {
            warnings.push(format!(
                "pg_restore {} can be made to run code by a crafted dump (CVE-2026-116314); install the latest minor version",
                self.pg_restore
            ));
        }
        warnings
    }
}

fn is_too_new(pg_restore: &ToolVersion, server_num: u32) -> bool {
    pg_restore.major >= SETS_TRANSACTION_TIMEOUT && server_num / 10_000 < SETS_TRANSACTION_TIMEOUT
}

impl Database {
    /// Looks at the server and the client programs, once; later calls return what was found then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unreachable`] or [`ErrorKind::Denied`] when there is no connection,
    /// [`ErrorKind::Unsupported`] for a server older than PostgreSQL 12, [`ErrorKind::Process`] when
    /// `pg_restore` is missing.
    pub async fn preflight(&self) -> Result<Versions> {
        self.shared.versions.get_or_try_init(|| self.look()).await.cloned()
    }

    async fn look(&self) -> Result<Versions> {
        let subject = self.shared.options.address();
        let client = self.client().await?;
        let row = client
            .query_one(include_str!("sql/versions.sql"), &[])
            .await
            .map_err(failure::doing("cannot ask the server for its version", &subject))?;
        let server: String = row.get(0);
        let server_num = u32::try_from(row.get::<_, i32>(1)).unwrap_or(0);
        if server_num < OLDEST_SERVER {
            return Err(Error::new(ErrorKind::Unsupported, format!("PostgreSQL {server} is too old"))
                .subject(subject)
                .hint("upgrade the database server to PostgreSQL 12 or later"));
        }
        let pg_restore = self.tool("pg_restore").await.map_err(|error| {
            if error.kind() == ErrorKind::Process {
                error.hint(format!(
                    "install postgresql-client-{} and put pg_restore on PATH of the user that runs borg-slave",
                    server_num / 10_000
                ))
            } else {
                error
            }
        })?;
        let (loader, pg_restore) = self.loader(pg_restore, server_num).await?;
        let psql = self.tool("psql").await.ok();
        Ok(Versions { server, server_num, postgis: row.get(2), pg_restore, loader, psql })
    }

    /// An older `pg_restore` than `usual`, the one on `PATH`, where the server needs it and there is one.
    async fn loader(&self, usual: ToolVersion, server_num: u32) -> Result<(Option<PathBuf>, ToolVersion)> {
        if is_too_new(&usual, server_num)
            && let Some(older) = programs::pg_restore_before(SETS_TRANSACTION_TIMEOUT)
        {
            let version = self.tool(&older.to_string_lossy()).await?;
            return Ok((Some(older), version));
        }
        Ok((None, usual))
    }

    async fn tool(&self, program: &str) -> Result<ToolVersion> {
        let finished = Cmd::new(program)
            .arg("--version")
            .time_limit(VERSION_LIMIT)
            .stop(&self.shared.stop)
            .run()
            .await?
            .success()?;
        let printed = finished.stdout_text();
        ToolVersion::parse(&printed).ok_or_else(|| {
            Error::new(ErrorKind::Process, "the program does not print a version").subject(program).source(printed)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        let read = |text| ToolVersion::parse(text).map(|version| version.to_string());
        assert_eq!(read("pg_restore (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"), Some("15.20".into()));
        assert_eq!(read("pg_restore (PostgreSQL) 19beta1"), Some("19.0".into()));
        assert_eq!(read("pg_restore"), None);
    }

    #[test]
    fn old_and_unpatched_programs_are_warned_about() {
        let with = |major, minor| Versions {
            server: "16.4".into(),
            server_num: 160_004,
            postgis: None,
            pg_restore: ToolVersion { major, minor },
            loader: None,
            psql: None,
        };
        assert_eq!(with(16, 16).warnings(), Vec::<String>::new());
        assert_eq!(with(19, 0).warnings(), Vec::<String>::new());
        assert_eq!(with(16, 15).warnings().len(), 1);
        assert_eq!(with(13, 22).warnings().len(), 2);
        let old_psql = Versions { psql: Some(ToolVersion { major: 15, minor: 20 }), ..with(16, 16) };
        assert!(old_psql.warnings()[0].starts_with("psql 15.20 is older than the server (16.4)"));
    }

    #[test]
    fn a_newer_pg_restore_cannot_load_into_a_server_before_17() {
        let with = |server_num, major| {
            let pg_restore = ToolVersion { major, minor: 5 };
            let server = format!("{}.4", server_num / 10_000);
            Versions { server, server_num, postgis: None, pg_restore, loader: None, psql: None }.check_loading()
        };
        for (server_num, major) in [(150_004, 15), (120_004, 16), (170_004, 17), (170_004, 18)] {
            with(server_num, major).unwrap();
        }
        insta::assert_snapshot!(with(160_004, 17).unwrap_err().paragraph(), @"
        Error: pg_restore 17.5 cannot load into PostgreSQL 16.4, which does not know the setting transaction_timeout
          Hint: install postgresql-client-16 beside it (https://apt.postgresql.org has it; below /usr/lib/postgresql it is found), or upgrade the server
        ");
    }
}
