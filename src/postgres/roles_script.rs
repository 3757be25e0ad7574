//! The roles of the whole organisation: a script that runs through `psql`, because it changes databases.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::connect::Database;
use super::psql_script::{Refusal, Script, Statement};
use super::{failure, programs};
use crate::error::{Error, ErrorKind, Result};
use crate::process::Cmd;

/// How long a script of roles may run.
const TIME_LIMIT: Duration = Duration::from_secs(15 * 60);

/// From this server version on a session ends its work when its client has died.
const CHECKS_CONNECTION: u32 = 140_000;

/// How much of what `psql` says is kept besides the statement that it repeats, in bytes.
const COMPLAINT_BYTES: usize = 64 * 1024;

/// Advice for a script that is not such that it can run twice.
const TWICE_HINT: &str = "the script runs again whenever it changes: on the master, make what may exist conditional \
     (do $$ begin if not exists … end $$)";

impl Database {
    /// Runs a script of roles, `\connect` included, and stops at the first error. `file` is how messages
    /// name the script. What was done before the error stays: such scripts change databases, and with
    /// them transactions.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] naming the line, before anything ran, when the script holds what makes
    /// `psql` do more than send SQL to this server; otherwise the kind of what the database refused, as
    /// [`ErrorKind::Denied`] or [`ErrorKind::Database`], naming the statement and its line;
    /// [`ErrorKind::Process`] when `psql` is missing or takes longer than 15 minutes,
    /// [`ErrorKind::Stopped`] when the run was stopped.
    pub async fn run_roles_script(&self, sql: &str, file: &str) -> Result<()> {
        let script = Script::read(sql).map_err(|refusal| refused(&refusal, file))?;
        if script.statements.is_empty() {
            return Ok(());
        }
        let shared = &self.shared;
        let mut session = "-c client_min_messages=warning".to_owned();
        if self.preflight().await?.server_num >= CHECKS_CONNECTION {
            session.push_str(" -c client_connection_check_interval=1000");
        }
        let mut cmd = Cmd::new(programs::psql(&shared.stop).await)
            .args(["--no-psqlrc", "--quiet", "--no-password", "--echo-errors", "--output=/dev/null"])
            .args(["-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-v", "SHOW_CONTEXT=errors"])
            .arg("-d")
            .arg(shared.options.conninfo("borg-slave roles", &session))
            // Over standard input no file with passwords is ever written.
            .args(["-f", "-"])
            // By which bytes psql tells texts from commands.
            .env("PGCLIENTENCODING", "UTF8")
            .stdin(script.text.clone())
            .stderr_tail(COMPLAINT_BYTES + script.text.len())
            .time_limit(TIME_LIMIT)
            .stop(&shared.stop);
        if let Some(password) = &shared.options.password {
            cmd = cmd.env("PGPASSWORD", password.expose_secret());
        }
        let finished = tokio::select! {
            finished = cmd.run_lines(|_| ()) => finished?,
            () = shared.silence.cancelled() => return Err(self.fell_silent()),
        };
        if finished.status.success() {
            return Ok(());
        }
        Err(failed(&finished.stderr, &script, file))
    }
}

fn refused(refusal: &Refusal, file: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the script was not run: {}", refusal.reason))
        .subject(format!("{file}, line {}", refusal.line))
        .hint("correct the script on the master; nothing of it has run")
}

/// What `psql` said, as an error about the statement.
fn failed(stderr: &str, script: &Script, file: &str) -> Error {
    let complaint = Complaint::read(stderr);
    let said = script.censored(&complaint.said());
    let connecting = said.contains("connection to server");
    let (kind, hint) = match complaint.state {
        Some(state) => failure::printed_state(state),
        None if connecting => match failure::printed_connection(&said) {
            (ErrorKind::Settings, _) => (
                ErrorKind::Database,
                Some("create the database on this server, or take its part out of the script on the master"),
            ),
            other => other,
        },
        None => (ErrorKind::Database, None),
    };
    // 42710: the object exists already.
    let hint = if complaint.state == Some("42710") { Some(TWICE_HINT) } else { hint };
    let statement = complaint.line.and_then(|line| statement_at(script, line, stderr));
    let (line, message) = match (statement, complaint.line) {
        (Some(statement), _) if complaint.is_statement => {
            (Some(statement.first_line), format!("the script stopped at `{}`", script.censored(&statement.shown)))
        }
        (_, line) => (line, "the script stopped".to_owned()),
    };
    let subject = line.map_or_else(|| file.to_owned(), |line| format!("{file}, line {line}"));
    let error = Error::new(kind, message).subject(subject).source(said);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The statement that ends on `line`; of several the one that `psql` repeats.
fn statement_at<'a>(script: &'a Script, line: usize, stderr: &str) -> Option<&'a Statement> {
    let mut there = script.statements.iter().filter(|statement| statement.last_line == line);
    let first = there.next();
    let Some(second) = there.next() else {
        return first.or_else(|| script.statements.iter().find(|statement| statement.last_line > line));
    };
    let (_, repeated) = stderr.split_once("STATEMENT:  ")?;
    let repeated = Script::read(repeated).ok()?;
    let shown = &repeated.statements.first()?.shown;
    first.into_iter().chain([second]).chain(there).find(|statement| statement.shown == *shown)
}

/// What `psql` complained about.
#[derive(Debug, Default)]
struct Complaint<'a> {
    /// The line on which the statement ends, counted from 1.
    line: Option<usize>,
    state: Option<&'a str>,
    message: &'a str,
    /// Detail, hint, and the place in a function. What repeats the source is left out.
    more: Vec<&'a str>,
    /// Whether it is the server's complaint about a statement.
    is_statement: bool,
}

impl<'a> Complaint<'a> {
    /// Reads `psql:<stdin>:5: ERROR:  42704: role "x" does not exist` and what follows it.
    fn read(stderr: &'a str) -> Self {
        let mut complaint = Self::default();
        let mut lines = stderr.lines();
        for line in lines.by_ref() {
            let Some((place, said)) = line.strip_prefix("psql:").and_then(|rest| rest.split_once(": ")) else {
                continue;
            };
            let level = ["ERROR:  ", "FATAL:  ", "PANIC:  "].iter().find_map(|level| said.strip_prefix(level));
            let own = said.strip_prefix("error: ").or_else(|| line.strip_prefix("psql: error: "));
            let Some(message) = level.or(own) else { continue };
            complaint.line = place.rsplit_once(':').and_then(|(_, number)| number.parse().ok());
            complaint.is_statement = level.is_some();
            complaint.message = message;
            if let Some((state, rest)) = message.split_once(": ")
                && level.is_some()
                && state.len() == 5
            {
                complaint.state = Some(state);
                complaint.message = rest;
            }
            break;
        }
        for line in lines.take_while(|line| !line.starts_with("psql:")) {
            let kept = ["DETAIL:  ", "HINT:  "].iter().find_map(|label| line.strip_prefix(label));
            let place = line.strip_prefix("CONTEXT:  ").unwrap_or(line);
            complaint.more.extend(kept.or_else(|| place.starts_with("PL/pgSQL function").then_some(place)));
        }
        if complaint.message.is_empty() {
            complaint.message = stderr.lines().next_back().unwrap_or_default();
        }
        complaint
    }

    fn said(&self) -> String {
        let mut said = self.message.to_owned();
        for more in &self.more {
            said.push_str("; ");
            said.push_str(more);
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaint_is_condensed_and_repeats_no_secret() {
        let script = Script::read(
            "\n\ndo $$\nbegin\n  execute 'alter role nosuch password ''sekret''';\nend $$; alter role x pasword 'geheim';",
        )
        .unwrap();
        let stderr = "psql:<stdin>:1: WARNING:  01000: nothing\n\
            psql:<stdin>:6: ERROR:  42704: role \"nosuch\" does not exist\n\
            CONTEXT:  SQL statement \"alter role nosuch password 'sekret'\"\n\
            PL/pgSQL function inline_code_block line 3 at EXECUTE\n\
            LOCATION:  get_rolespec_tuple, acl.c:5277\n\
            psql:<stdin>:6: STATEMENT:  do $$\nbegin\n  execute 'alter role nosuch password ''sekret''';\nend $$;\n";
        insta::assert_snapshot!(failed(stderr, &script, "slave_roles.sql").paragraph(), @r#"
        Error: slave_roles.sql, line 3: the script stopped at `do '…'`
          Caused by: role "nosuch" does not exist; PL/pgSQL function inline_code_block line 3 at EXECUTE
        "#);
        let stderr = "psql:<stdin>:6: ERROR:  42601: syntax error at or near \"'geheim'\"\n\
            LINE 1: alter role x pasword 'geheim';\n                      ^\nLOCATION:  scanner_yyerror, scan.l:1176\n\
            psql:<stdin>:6: STATEMENT:  alter role x pasword 'geheim';\n";
        insta::assert_snapshot!(failed(stderr, &script, "slave_roles.sql").paragraph(), @r#"
        Error: slave_roles.sql, line 6: the script stopped at `alter role x pasword '…'`
          Caused by: syntax error at or near "'…'"
        "#);
    }

    #[test]
    fn a_lost_server_and_a_missing_database_are_told_apart() {
        let script = Script::read("select 1;").unwrap();
        let of = |stderr: &str| {
            let error = failed(stderr, &script, "r.sql");
            format!("{:?}: {}", error.kind(), error.one_line())
        };
        insta::assert_snapshot!([
            of("psql:<stdin>:2: error: \\connect: connection to server at \"h\" (1.2.3.4), port 5432 failed: FATAL:  database \"nosuch\" does not exist"),
            of("psql: error: connection to server at \"h\", port 1 failed: Connection refused\n\tIs the server running?"),
            of("psql: error: connection to server at \"h\", port 1 failed: FATAL:  password authentication failed for user \"x\""),
            of("psql:<stdin>:1: FATAL:  57P01: terminating connection due to administrator command\npsql:<stdin>:1: server closed the connection unexpectedly"),
            of("psql:<stdin>:1: error: connection to server was lost"),
        ].join("\n"), @r#"
        Database: r.sql, line 2: the script stopped: \connect: connection to server at "h" (1.2.3.4), port 5432 failed: FATAL:  database "nosuch" does not exist
        Unreachable: r.sql: the script stopped: connection to server at "h", port 1 failed: Connection refused
        Denied: r.sql: the script stopped: connection to server at "h", port 1 failed: FATAL:  password authentication failed for user "x"
        Unreachable: r.sql, line 1: the script stopped at `select 1`: terminating connection due to administrator command
        Unreachable: r.sql, line 1: the script stopped: connection to server was lost
        "#);
    }
}
