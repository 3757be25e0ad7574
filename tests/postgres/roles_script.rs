//! The script of roles, through a real `psql`.

use super::*;

/// A database, and a session that sees what became of the roles.
async fn open() -> (TestDatabase, Database, Client) {
    let db = PrivatePostgres::start().database().await;
    let (database, admin) = (db.open(), db.admin().await);
    (db, database, admin)
}

async fn count(admin: &Client, sql: &str) -> i64 {
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn roles_are_made_in_every_database_and_the_script_runs_again() {
    let (db, database, admin) = open().await;
    let other = PrivatePostgres::start().database().await;
    let script = format!(
        "-- the organisation's roles: ü 道\n\\set ON_ERROR_STOP off\nSET client_encoding = 'UTF8';\n\
         do $$ begin\n  if not exists (select 1 from pg_roles where rolname = 'script_reader') then\n    \
         create role script_reader login password 'it''s \\ sekret';\n  end if;\nend $$;\n\
         comment on role script_reader is 'ü; \\! \"道';\n\
         \\connect {}\ncreate schema if not exists \"made Here\";\ngrant usage on schema \"made Here\" to script_reader;\n\
         \\echo back\n\\c \"{}\"\nselect pg_sleep(0); create schema if not exists at_home",
        other.name(),
        db.name()
    );
    database.run_roles_script(&script, "slave_roles.sql").await.unwrap();
    database.run_roles_script(&script, "slave_roles.sql").await.unwrap();
    assert_eq!(count(&admin, "select count(*) from pg_roles where rolname = 'script_reader' and rolcanlogin").await, 1);
    assert_eq!(count(&admin, "select count(*) from pg_namespace where nspname in ('made Here', 'at_home')").await, 1);
    let there = other.admin().await;
    let granted = "select count(*) from pg_namespace where nspname = 'made Here' and has_schema_privilege('script_reader', oid, 'usage')";
    assert_eq!(count(&there, granted).await, 1);
    let comment: String = admin
        .query_one("select shobj_description(oid, 'pg_authid') from pg_roles where rolname = 'script_reader'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(comment, "ü; \\! \"道");
    // The password is the one that was meant.
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(PrivatePostgres::start().port()).dbname(db.name());
    let _session =
        config.user("script_reader").password("it's \\ sekret").connect(tokio_postgres::NoTls).await.unwrap();
}

#[tokio::test]
async fn a_failing_statement_stops_the_script_and_is_named_with_its_line_but_not_its_password() {
    let (_db, database, admin) = open().await;
    let script = "create role script_first;\n\n\
        alter role script_absent\n  with password 'hunter2 & co'; create role script_never;\ncreate role script_later;\n";
    let error = database.run_roles_script(script, "slave_roles.sql").await.unwrap_err();
    insta::assert_snapshot!(error.paragraph(), @r#"
        Error: slave_roles.sql, line 3: the script stopped at `alter role script_absent with password '…'`
          Caused by: role "script_absent" does not exist
        "#);
    assert_eq!(
        count(&admin, "select count(*) from pg_roles where rolname in ('script_never', 'script_later')").await,
        0
    );
    // What was done before stays, and running it again says so.
    let error = database.run_roles_script(script, "slave_roles.sql").await.unwrap_err();
    insta::assert_snapshot!(error.paragraph(), @r#"
        Error: slave_roles.sql, line 1: the script stopped at `create role script_first`
          Caused by: role "script_first" already exists
          Hint: the script runs again whenever it changes: on the master, make what may exist conditional (do $$ begin if not exists … end $$)
        "#);

    for (script, line) in [
        ("select 1;\ncreate role script_x\n  login pasword 'hunter2';", "line 2"),
        ("\n\ncreate role script_x pasword 'hunter2 has no end", "line 3"),
        ("alter role script_absent password hunter2;", "line 1"),
        ("do $$ begin execute 'alter role script_absent password ''hunter2'''; end $$;", "line 1"),
        ("select 1; select 2; alter role script_absent password $p$hunter2$p$; select 3;", "line 1"),
    ] {
        let error = database.run_roles_script(script, "slave_roles.sql").await.unwrap_err();
        let told = format!("{} {error:?}", error.paragraph());
        assert!(!told.contains("hunter2") && told.contains(line), "{told}");
    }
}

#[tokio::test]
async fn refused_commands_run_nothing_at_all() {
    let (_db, database, admin) = open().await;
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    for command in [
        format!("\\! touch {}", trace.display()),
        format!("\\copy (select 1) to program 'touch {}'", trace.display()),
        format!("\\o |touch {}", trace.display()),
        format!("\\echo `touch {}`", trace.display()),
        format!("select 1 \\g {}", trace.display()),
        "\\connect \"host=127.0.0.1 port=1\"".to_owned(),
    ] {
        let script = format!("create role script_refused;\n{command}\n");
        let error = database.run_roles_script(&script, "slave_roles.sql").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{command}");
        assert_eq!(error.subject_text(), Some("slave_roles.sql, line 2"), "{command}");
    }
    assert!(!trace.exists());
    assert_eq!(count(&admin, "select count(*) from pg_roles where rolname = 'script_refused'").await, 0);
}

#[tokio::test]
async fn missing_rights_databases_and_servers_are_told_apart() {
    let (db, database, _admin) = open().await;
    let denied = database.run_roles_script("create role script_super superuser;", "r.sql").await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "{}", denied.paragraph());
    let missing = database.run_roles_script("select 1;\n\\connect nosuchdb\n", "r.sql").await.unwrap_err();
    insta::assert_snapshot!(missing.paragraph().replace(&PrivatePostgres::start().port().to_string(), "PORT"), @r#"
        Error: r.sql, line 2: the script stopped
          Caused by: \connect: connection to server at "127.0.0.1", port PORT failed: FATAL:  database "nosuchdb" does not exist
          Hint: create the database on this server, or take its part out of the script on the master
        "#);
    let wrong = ConnectOptions { password: Some("wrong".into()), ..db.options() };
    let wrong = Database::new(wrong, 1, CancellationToken::new()).unwrap();
    let error = wrong.run_roles_script("select 1;", "r.sql").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.paragraph());
}

#[tokio::test]
async fn a_stopped_run_ends_psql_and_its_statement() {
    let (db, _, admin) = open().await;
    let stop = CancellationToken::new();
    let database = Database::new(db.options(), 2, stop.clone()).unwrap();
    let run = tokio::spawn(async move { database.run_roles_script("select pg_sleep(600);", "r.sql").await });
    let sleeping = "select count(*) from pg_stat_activity where query like 'select pg_sleep(600)%' \
                    and application_name = 'borg-slave roles'";
    let waited = Instant::now();
    while count(&admin, sleeping).await == 0 {
        assert!(waited.elapsed() < Duration::from_secs(30), "psql does not begin");
    }
    stop.cancel();
    assert_eq!(run.await.unwrap().unwrap_err().kind(), ErrorKind::Stopped);
    while count(&admin, sleeping).await > 0 {
        assert!(waited.elapsed() < Duration::from_secs(60), "the statement goes on");
    }
}
