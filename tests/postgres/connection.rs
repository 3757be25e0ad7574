//! Connecting: what an operator reads when it does not work.

use borg_slave::config::{Place, load};
use borg_slave::{report, wire};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::support::postgres::{PASSWORD, ROLE};
use crate::support::world::program;

async fn preflight(options: ConnectOptions) -> Result<(), Error> {
    Database::new(options, 2, CancellationToken::new())?.preflight().await.map(|_| ())
}

#[tokio::test]
async fn what_is_wrong_with_a_connection_is_said() {
    let db = PrivatePostgres::start().database().await;
    preflight(db.options()).await.unwrap();
    let with = |change: &dyn Fn(&mut ConnectOptions)| {
        let mut options = db.options();
        change(&mut options);
        options
    };
    let cases = [
        (with(&|o| o.port = 1), ErrorKind::Unreachable, "127.0.0.1:1", "GEOSERVER_PGSQL_HOST"),
        (
            with(&|o| o.host = "no-such-host.invalid".into()),
            ErrorKind::Unreachable,
            "no-such-host",
            "GEOSERVER_PGSQL_HOST",
        ),
        (
            with(&|o| o.host = "/no/socket".into()),
            ErrorKind::Unreachable,
            "/no/socket/.s.PGSQL.",
            "GEOSERVER_PGSQL_HOST",
        ),
        (
            with(&|o| o.password = Some("wrong".into())),
            ErrorKind::Denied,
            "password authentication failed",
            "GEOSERVER_PGSQL_PASSWORD",
        ),
        (with(&|o| o.password = None), ErrorKind::Denied, "asks for a password", "GEOSERVER_PGSQL_PASSWORD"),
        (with(&|o| o.database = "nowhere".into()), ErrorKind::Settings, "nowhere", "GEOSERVER_PGSQL_DATABASE"),
        (with(&|o| o.ssl_mode = SslMode::Require), ErrorKind::Denied, "does not offer it", "ssl = on"),
        (with(&|o| o.ssl_mode = SslMode::VerifyFull), ErrorKind::Settings, "needs a root certificate", "PEM"),
    ];
    for (options, kind, said, hint) in cases {
        let error = preflight(options).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{said}: {}", error.paragraph());
        assert!(error.to_string().contains(said), "{said}: {}", error.paragraph());
        assert!(error.hint_text().unwrap().contains(hint), "{said}: {}", error.paragraph());
        assert!(!error.paragraph().contains("s3cr"), "{}", error.paragraph());
    }
    preflight(with(&|o| o.ssl_mode = SslMode::Prefer)).await.unwrap();
}

#[tokio::test]
async fn nothing_connects_before_the_first_use() {
    let mut options = PrivatePostgres::start().database().await.options();
    options.port = 1;
    Database::new(options, 2, CancellationToken::new()).unwrap();
}

#[tokio::test]
async fn a_lost_connection_is_replaced() {
    let world = World::new().await;
    let roads = table("roads");
    world.publish(&Dump::new("roads"), &roads).await.unwrap();
    let sessions = "from pg_stat_activity where datname = current_database() and usename = 'borg'";
    world.text(&format!("select count(pg_terminate_backend(pid))::text {sessions}")).await;
    while world.text(&format!("select count(*)::text {sessions}")).await != "0" {}
    // The driver learns of it by reading from the socket, which the first use may come before.
    let mut outcome = world.publish(&Dump::new("roads").version(2), &roads).await;
    if let Err(error) = &outcome {
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", error.paragraph());
        outcome = world.publish(&Dump::new("roads").version(2), &roads).await;
    }
    outcome.unwrap();
    assert_eq!(world.seen(&roads).await, (2, 10));
}

/// A server that hangs behind a connection that lives: nothing that was sent is answered, and who comes new is
/// taken and never heard.
#[tokio::test]
async fn a_server_that_falls_silent_holds_nobody_for_ever() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, upstream) = (listener.local_addr().unwrap().port(), world.db.options().port);
    let frozen = CancellationToken::new();
    let freezes = frozen.clone();
    let proxy = tokio::spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let frozen = freezes.clone();
            open.spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
                tokio::select! {
                    biased;
                    () = frozen.cancelled() => std::future::pending().await,
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                }
            });
        }
    });
    let options = ConnectOptions { port, ..world.db.options() };
    let patience = Duration::from_millis(400);
    let database = Database::with_patience(options, 4, CancellationToken::new(), patience).unwrap();
    let roads = table("roads");
    publish(&database, &world.archive(&Dump::new("roads"), &roads).await, &roads, "1").await.unwrap();
    frozen.cancel();
    let asked = tokio::time::timeout(Duration::from_secs(30), database.published_md5(&roads)).await;
    let error = asked.expect("nobody waits for a server that is silent").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", error.paragraph());
    let asked = tokio::time::timeout(Duration::from_secs(5), database.published_md5(&roads)).await;
    let error = asked.expect("and it is not asked again").unwrap_err();
    assert!(error.message().contains("did not answer in time"), "{}", error.paragraph());
    proxy.abort();
}

#[tokio::test]
async fn tls_is_what_its_mode_says_for_sessions_and_restores() {
    let dir = tempfile::tempdir().unwrap();
    let cert = certificate(dir.path(), "server");
    let other = certificate(dir.path(), "other");
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", cert.display()),
        format!("ssl_key_file={}", cert.with_extension("key").display()),
    ];
    let server = PrivatePostgres::start_with(&settings);
    let db = server.database().await;
    let with = |host: &str, mode, root: Option<&Path>| ConnectOptions {
        host: host.into(),
        ssl_mode: mode,
        ssl_root_cert: root.map(Path::to_owned),
        ..db.options()
    };
    for (host, mode, root, fine) in [
        ("127.0.0.1", SslMode::Require, None, true),
        ("127.0.0.1", SslMode::Require, Some(&cert), true),
        ("127.0.0.1", SslMode::Require, Some(&other), false),
        ("127.0.0.1", SslMode::VerifyCa, Some(&cert), true),
        ("127.0.0.1", SslMode::VerifyCa, Some(&other), false),
        ("localhost", SslMode::VerifyFull, Some(&cert), true),
        ("127.0.0.1", SslMode::VerifyFull, Some(&cert), false),
    ] {
        let outcome = preflight(with(host, mode, root.map(PathBuf::as_path))).await;
        assert_eq!(outcome.is_ok(), fine, "{host} {mode:?} {root:?}: {outcome:?}");
        if let Err(error) = outcome {
            assert!(error.message().contains("certificate is not trusted"), "{}", error.paragraph());
        }
    }
    reports_keep_to_it(&db, &cert, &other).await;
    only_the_named_authority_counts(&db, &cert, &other);
    let database =
        Database::new(with("localhost", SslMode::VerifyFull, Some(&cert)), 2, CancellationToken::new()).unwrap();
    let roads = table("roads");
    database.ensure_schemas(&[&roads.schema, &roads.data_schema, &roads.outdated_schema]).await.unwrap();
    let file = Dump::new("roads").write(dir.path()).await;
    let archive = inspect(&file, &roads).await.unwrap();
    publish(&database, &archive, &roads, "x").await.unwrap();
}

/// What the settings of the master's database say of TLS, the same server being the master's.
async fn reports_keep_to_it(db: &TestDatabase, cert: &Path, other: &Path) {
    db.client().await.batch_execute(include_str!("../report/django.sql")).await.unwrap();
    let clone = tempfile::tempdir().unwrap();
    std::fs::create_dir(clone.path().join(".hg")).unwrap();
    let port = db.options().port.to_string();
    for (host, root, trouble) in [
        ("localhost", Some(cert), None),
        ("localhost", Some(other), Some("certificate is not trusted")),
        ("localhost", None, Some("needs a root certificate")),
        ("127.0.0.1", Some(cert), Some("certificate is not trusted")),
    ] {
        let mut settings: std::collections::BTreeMap<String, String> = [
            ("STATE_REPOSITORY_ROOT", clone.path().to_str().unwrap()),
            ("MASTER_PGSQL_HOST", host),
            ("MASTER_PGSQL_PORT", &port),
            ("MASTER_PGSQL_DATABASE", db.name()),
            ("MASTER_PGSQL_USERNAME", ROLE),
            ("MASTER_PGSQL_PASSWORD", PASSWORD),
            ("MASTER_PGSQL_SSLMODE", "verify-full"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        settings.extend(root.map(|root| ("MASTER_PGSQL_SSLROOTCERT".to_owned(), root.display().to_string())));
        let place = Place { env_file: None, working_directory: clone.path().into() };
        let settings = load(&settings, &place).unwrap_or_else(|error| panic!("{}", error.paragraph())).settings;
        let outcome = report::check(&wire::master(&settings).unwrap()).await;
        match (outcome, trouble) {
            (Ok(_), None) => {}
            (Err(error), Some(trouble)) => {
                assert!(error.message().contains(trouble), "{}", error.paragraph());
                let hint = error.hint_text().unwrap();
                assert!(hint.contains("MASTER_PGSQL_SSL") && !hint.contains("GEOSERVER"), "{}", error.paragraph());
            }
            (outcome, _) => panic!("{host} {root:?}: {outcome:?}"),
        }
    }
}

/// Whom the whole machine trusts has no say where the settings name an authority, as with libpq.
fn only_the_named_authority_counts(db: &TestDatabase, cert: &Path, other: &Path) {
    let clone = tempfile::tempdir().unwrap();
    std::fs::create_dir(clone.path().join(".hg")).unwrap();
    for (root, trusted) in [(other, false), (cert, true)] {
        let output = command(&program())
            .args(["check"])
            .env_clear()
            .envs([("PATH", std::env::var("PATH").unwrap()), ("SKIP_DB", "true".into()), ("SKIP_GS", "true".into())])
            .env("STATE_REPOSITORY_ROOT", clone.path())
            .envs([("MASTER_PGSQL_HOST", "127.0.0.1"), ("MASTER_PGSQL_SSLMODE", "verify-ca")])
            .env("MASTER_PGSQL_PORT", db.options().port.to_string())
            .envs([("MASTER_PGSQL_DATABASE", db.name()), ("MASTER_PGSQL_USERNAME", ROLE)])
            .envs([("MASTER_PGSQL_PASSWORD", PASSWORD)])
            .env("MASTER_PGSQL_SSLROOTCERT", root)
            .env("SSL_CERT_FILE", cert)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("master"), "{said}");
        assert_eq!(said.contains("certificate is not trusted"), !trusted, "{said}");
    }
}

/// A self-signed certificate for `localhost`, readable by the server's user.
fn certificate(dir: &Path, name: &str) -> PathBuf {
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    let output = command(Path::new("openssl"))
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-out"])
        .arg(&cert)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    succeed(&output, "openssl");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    if rustix::process::geteuid().is_root() {
        succeed(&command(Path::new("chown")).arg("postgres").arg(&key).output().unwrap(), "chown");
    }
    cert
}
