//! From what PostgreSQL and its programs say to an error that names the remedy.

use deadpool_postgres::{HookError, PoolError, TimeoutType};
use tokio_postgres::error::{DbError, SqlState};

use super::connect::ConnectOptions;
use crate::error::{Error, ErrorKind, root_cause};

/// Advice for a server that does not answer.
const UNREACHABLE_HINT: &str = "check that PostgreSQL runs and listens there, and the variables GEOSERVER_PGSQL_HOST, \
     GEOSERVER_PGSQL_PORT and GEOSERVER_PGSQL_DATABASE";

/// Advice for a full disk.
const DISK_FULL_HINT: &str =
    "free space on the database server (df -h there), then run again: the old table is still published";

/// Advice for missing rights.
const RIGHTS_HINT: &str =
    "give the role in GEOSERVER_PGSQL_USERNAME the missing right, or make it the owner of the object";

/// A connection that could not be had from the pool.
pub(super) fn pool(error: PoolError, options: &ConnectOptions) -> Error {
    let database = options.place();
    match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => connecting(error, database),
        PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => silent(options),
        other => Error::new(ErrorKind::Bug, "the connection pool failed").subject(database).source(other),
    }
}

/// A server that accepts a connection and then says nothing.
pub(super) fn silent(options: &ConnectOptions) -> Error {
    Error::new(ErrorKind::Unreachable, "the server did not answer in time")
        .subject(options.place())
        .hint(UNREACHABLE_HINT)
}

pub(super) fn connecting(error: tokio_postgres::Error, database: String) -> Error {
    if let Some(db) = error.as_db_error() {
        return server_side(db, "cannot connect").subject(database);
    }
    let text = chain(&error);
    if text.contains("does not support TLS") {
        return Error::new(ErrorKind::Denied, "TLS is required, but the server does not offer it")
            .subject(database)
            .source(error)
            .hint("switch TLS on at the server (ssl = on), or allow an unprotected connection in the TLS mode of the database");
    }
    if text.contains("certificate") {
        return Error::new(ErrorKind::Denied, "the server's certificate is not trusted")
            .subject(database)
            .source(error)
            .hint("GEOSERVER_PGSQL_SSLROOTCERT has to hold the certificate that the server's is signed with; for GEOSERVER_PGSQL_SSLMODE=verify-full it also has to name the host");
    }
    if text.contains("password missing") {
        return Error::new(ErrorKind::Denied, "the server asks for a password and none is set")
            .subject(database)
            .source(error)
            .hint("set GEOSERVER_PGSQL_PASSWORD");
    }
    Error::new(ErrorKind::Unreachable, "cannot connect")
        .subject(database)
        .source(root_cause(&error))
        .hint(UNREACHABLE_HINT)
}

/// A statement that failed while `what` was done to `subject`.
pub(super) fn statement(error: tokio_postgres::Error, what: &str, subject: &str) -> Error {
    match error.as_db_error() {
        Some(db) => server_side(db, what).subject(subject),
        None if error.is_closed() || chain(&error).contains("connection") => {
            Error::new(ErrorKind::Unreachable, format!("{what}: the connection was lost"))
                .subject(subject)
                .source(error)
                .hint(UNREACHABLE_HINT)
        }
        None => Error::new(ErrorKind::Database, what).subject(subject).source(error),
    }
}

/// Makes statement failures of one action read as one word at the call.
pub(super) fn doing<'a>(what: &'a str, subject: &'a str) -> impl Fn(tokio_postgres::Error) -> Error + Copy + 'a {
    move |error| statement(error, what, subject)
}

fn server_side(db: &DbError, what: &str) -> Error {
    let code = db.code();
    let said = match db.detail() {
        // The detail names the objects: "view a depends on view b", "Key (x)=(1) is not present in table t".
        Some(detail) => format!("{what}: {} ({})", db.message(), detail.replace('\n', "; ")),
        None => format!("{what}: {}", db.message()),
    };
    let (kind, hint) = classify(code);
    let error = Error::new(kind, said);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The one table from SQLSTATE to kind and advice.
fn classify(code: &SqlState) -> (ErrorKind, Option<&'static str>) {
    let text = code.code();
    match text {
        "3D000" => (ErrorKind::Settings, Some("create the database (createdb) or correct GEOSERVER_PGSQL_DATABASE")),
        "53100" => (ErrorKind::Database, Some(DISK_FULL_HINT)),
        "53200" => (
            ErrorKind::Database,
            Some(
                "the database server is out of memory: lower work_mem, maintenance_work_mem or the number of parallel restores",
            ),
        ),
        "53300" => (
            ErrorKind::Busy,
            Some("raise max_connections on the database server or lower the number of connections here"),
        ),
        "55P03" | "40P01" | "40001" => (
            ErrorKind::Busy,
            Some(
                "another session holds the table; pg_stat_activity shows which (wait_event_type = 'Lock', pg_blocking_pids)",
            ),
        ),
        "55006" => (ErrorKind::Busy, None),
        "57P01" | "57P02" | "57P03" => {
            (ErrorKind::Unreachable, Some("the database server is starting or stopping; wait until it is up"))
        }
        "42501" => (ErrorKind::Denied, Some(RIGHTS_HINT)),
        "2BP01" => (
            ErrorKind::Database,
            Some(
                "drop or change the named objects by hand, then run again: nothing that the slave did not make is dropped",
            ),
        ),
        "23503" => (
            ErrorKind::Database,
            Some(
                "the data of the two tables do not fit together; publish the other table again as well, then run again",
            ),
        ),
        _ if text.starts_with("28") => (
            ErrorKind::Denied,
            Some("check GEOSERVER_PGSQL_USERNAME, GEOSERVER_PGSQL_PASSWORD and the server's pg_hba.conf"),
        ),
        _ if text.starts_with("08") => (ErrorKind::Unreachable, Some(UNREACHABLE_HINT)),
        _ => (ErrorKind::Database, None),
    }
}

/// Kind and advice for a SQLSTATE that a program printed.
pub(super) fn printed_state(code: &str) -> (ErrorKind, Option<&'static str>) {
    classify(&SqlState::from_code(code))
}

/// Kind and advice for what libpq says when it cannot connect: such complaints carry no SQLSTATE.
pub(super) fn printed_connection(said: &str) -> (ErrorKind, Option<&'static str>) {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["FATAL:  database "]) {
        return classify(&SqlState::INVALID_CATALOG_NAME);
    }
    if has(&["permission denied for database"]) {
        return classify(&SqlState::INSUFFICIENT_PRIVILEGE);
    }
    if has(&["authentication failed", "pg_hba.conf", "no password supplied", "FATAL:  role "]) {
        return classify(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    }
    (ErrorKind::Unreachable, Some(UNREACHABLE_HINT))
}

/// What `pg_restore` said, condensed to its error, as an error about `subject`.
pub(super) fn restore(stderr: &str, what: &str, subject: &str) -> Error {
    let lines = complaint(stderr);
    let lower = lines.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let error = |kind, message: String| Error::new(kind, message).subject(subject).source(lines.clone());
    if has(&["no space left on device", "could not extend file"]) {
        return error(ErrorKind::Database, format!("{what}: the database server's disk is full")).hint(DISK_FULL_HINT);
    }
    if has(&["connection to server", "server closed the connection", "terminating connection", "could not connect"]) {
        return error(ErrorKind::Unreachable, format!("{what}: the connection was lost")).hint(UNREACHABLE_HINT);
    }
    if has(&["deadlock detected", "lock timeout"]) {
        return error(ErrorKind::Busy, format!("{what}: another session holds the table"));
    }
    if has(&["permission denied", "must be owner"]) {
        return error(ErrorKind::Denied, format!("{what}: the right is missing")).hint(RIGHTS_HINT);
    }
    if has(&[
        "end of file",
        "could not read from input file",
        "input file",
        "not a valid archive",
        "does not appear to be",
        "corrupt",
        "tar header",
        "could not uncompress",
        "could not find header",
        "unsupported version",
        "invalid compressed data",
        "data could be read",
    ]) {
        return error(ErrorKind::Archive, format!("{what}: the dump is damaged or of a newer version")).hint(
            "publish the layer again on the master; if only this slave fails, install a newer postgresql-client",
        );
    }
    error(ErrorKind::Archive, format!("{what}: pg_restore failed"))
        .hint("the old table is still published; correct the layer on the master and publish it again")
}

/// Whether `pg_restore` failed because a table came into being under its hands.
pub(super) fn is_clash(stderr: &str) -> bool {
    stderr.contains("already exists") || stderr.contains("duplicate key value violates unique constraint \"pg_")
}

/// The name of the relation that was there already, when that is what `pg_restore` complains of.
pub(super) fn taken_name(stderr: &str) -> Option<&str> {
    let rest = stderr.split_once("relation \"")?.1;
    let line = rest.split_once('\n').map_or(rest, |(line, _)| line);
    Some(line.rsplit_once("\" already exists")?.0)
}

/// The lines of `pg_restore`'s complaint that tell the cause; the statement, which may hold a whole
/// table definition, is left out.
fn complaint(stderr: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut in_statement = false;
    for line in stderr.lines().map(str::trim_end) {
        if line.starts_with("Command was:") {
            in_statement = true;
        } else if line.starts_with("pg_restore:") || line.contains("ERROR:") || line.contains("FATAL:") {
            in_statement = false;
        }
        let noise = line.contains("while PROCESSING TOC") || line.contains("warning: errors ignored");
        if !in_statement && !noise && !line.is_empty() {
            kept.push(line.trim_start_matches("pg_restore: error: ").trim_start_matches("pg_restore: "));
        }
    }
    kept.truncate(6);
    kept.join("; ")
}

/// An error and its causes as text, to recognise what has no code.
fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_restore_is_condensed_to_the_cause() {
        let stderr = "pg_restore: while PROCESSING TOC:\n\
            pg_restore: from TOC entry 4231; 0 16390 TABLE DATA ws_data roads postgres\n\
            pg_restore: error: COPY failed for table \"roads\": ERROR:  invalid input syntax for type integer: \"x\"\n\
            CONTEXT:  COPY roads, line 7, column id: \"x\"\n\
            Command was: COPY ws_data.roads (id)\nFROM stdin;\n";
        let error = restore(stderr, "cannot load the dump", "ws.roads");
        insta::assert_snapshot!(error.one_line(), @r#"ws.roads: cannot load the dump: pg_restore failed: from TOC entry 4231; 0 16390 TABLE DATA ws_data roads postgres; COPY failed for table "roads": ERROR:  invalid input syntax for type integer: "x"; CONTEXT:  COPY roads, line 7, column id: "x""#);
    }

    #[test]
    fn what_pg_restore_says_decides_the_kind() {
        for (said, kind) in [
            ("pg_restore: error: could not read from input file: end of file", ErrorKind::Archive),
            (
                "pg_restore: error: connection to server at \"::1\", port 1 failed: Connection refused",
                ErrorKind::Unreachable,
            ),
            ("pg_restore: error: could not execute query: ERROR:  permission denied for schema x", ErrorKind::Denied),
            ("ERROR:  could not extend file \"base/1/2\": No space left on device", ErrorKind::Database),
        ] {
            assert_eq!(restore(said, "x", "y").kind(), kind, "{said}");
        }
    }

    #[test]
    fn locks_are_retried_and_rights_are_not() {
        assert_eq!(classify(&SqlState::LOCK_NOT_AVAILABLE).0, ErrorKind::Busy);
        assert_eq!(classify(&SqlState::T_R_DEADLOCK_DETECTED).0, ErrorKind::Busy);
        assert_eq!(classify(&SqlState::INSUFFICIENT_PRIVILEGE).0, ErrorKind::Denied);
        assert_eq!(classify(&SqlState::INVALID_PASSWORD).0, ErrorKind::Denied);
    }
}
