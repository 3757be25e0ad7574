//! The connection: options as libpq understands them, one lazy pool, TLS.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;
use postgres_openssl::MakeTlsConnector;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Mutex, OnceCell};
use tokio_util::sync::CancellationToken;

use super::failure;
use super::preflight::Versions;
use super::pulse::{Pulse, Sessions};
use crate::error::{Context, Error, ErrorKind, Result};

/// What every session sets before it is used.
pub(super) const SESSION_SQL: &str = include_str!("sql/session.sql");

/// How long data that was sent may stay unacknowledged before the connection counts as lost.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(120);

/// How long the server may take to hear that a statement is no longer wanted.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// How long the short transactions of a replacement go on trying to get their locks.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the connection is protected; the meaning is libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS when the server offers it, without looking at its certificate.
    Prefer,
    /// TLS; the certificate is looked at only when a root certificate is given.
    Require,
    /// TLS, and the certificate comes from a trusted authority.
    VerifyCa,
    /// TLS, and the certificate comes from a trusted authority and names the host.
    VerifyFull,
}

impl SslMode {
    /// The word libpq uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Where the database is and who connects to it.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Host name, address, or (when it begins with `/`) the directory of a Unix socket.
    pub host: String,
    /// TCP port, or the number in the Unix socket's name.
    pub port: u16,
    /// Database name.
    pub database: String,
    /// Role; without it the name of the operating system's user.
    pub username: Option<String>,
    /// Password of the role.
    pub password: Option<SecretString>,
    /// Whether and how TLS is used. A Unix socket never uses it.
    pub ssl_mode: SslMode,
    /// PEM file with the authorities to trust; the verifying modes need it.
    pub ssl_root_cert: Option<PathBuf>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// What `pg_stat_activity` shows.
    pub application_name: String,
}

impl ConnectOptions {
    /// Whether the host is the directory of a Unix socket.
    fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// TLS mode after what the transport allows.
    fn effective_ssl_mode(&self) -> SslMode {
        if self.is_socket() { SslMode::Disable } else { self.ssl_mode }
    }

    /// `host:port`, as messages name the server.
    pub(super) fn address(&self) -> String {
        if self.is_socket() {
            format!("{}/.s.PGSQL.{}", self.host.trim_end_matches('/'), self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// How messages name the database.
    #[must_use]
    pub fn place(&self) -> String {
        format!("database {} at {}", self.database, self.address())
    }

    pub(super) fn driver_config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .dbname(&self.database)
            .application_name(&self.application_name)
            .connect_timeout(self.connect_timeout)
            .keepalives_idle(Duration::from_secs(60))
            .tcp_user_timeout(ACKNOWLEDGED_WITHIN)
            .ssl_mode(match self.effective_ssl_mode() {
                SslMode::Disable => tokio_postgres::config::SslMode::Disable,
                SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
            });
        if let Some(username) = &self.username {
            config.user(username);
        }
        if let Some(password) = &self.password {
            config.password(password.expose_secret());
        }
        config
    }

    pub(super) fn tls(&self) -> Result<MakeTlsConnector> {
        let failed = "cannot prepare TLS for the database";
        let mut builder = SslConnector::builder(SslMethod::tls_client()).context(ErrorKind::Settings, failed)?;
        let mode = self.effective_ssl_mode();
        if mode != SslMode::Disable
            && let Some(file) = &self.ssl_root_cert
        {
            // Whom everybody trusts has no say here, as with libpq: without a look at the host's name each of
            // their certificates would do.
            let nobody = X509StoreBuilder::new().context(ErrorKind::Settings, failed)?.build();
            builder.set_cert_store(nobody);
            builder.set_ca_file(file).map_err(|source| {
                Error::new(ErrorKind::Settings, "cannot read the root certificate of the database connection")
                    .subject(file.display().to_string())
                    .source(source)
                    .hint("name a readable PEM file")
            })?;
        }
        // libpq: `require` verifies like `verify-ca` once a root certificate is there.
        let verify = match mode {
            SslMode::Disable | SslMode::Prefer => false,
            SslMode::Require => self.ssl_root_cert.is_some(),
            SslMode::VerifyCa | SslMode::VerifyFull => true,
        };
        if mode >= SslMode::VerifyCa && self.ssl_root_cert.is_none() {
            return Err(Error::new(
                ErrorKind::Settings,
                format!("sslmode {} needs a root certificate for the database connection", mode.as_str()),
            )
            .subject(self.address())
            .hint(
                "set GEOSERVER_PGSQL_SSLROOTCERT to the PEM file of the authority that signed the server's certificate",
            ));
        }
        builder.set_verify(if verify { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
        let mut connector = MakeTlsConnector::new(builder.build());
        if mode != SslMode::VerifyFull {
            connector.set_callback(|connect, _| {
                connect.set_verify_hostname(false);
                Ok(())
            });
        }
        Ok(connector)
    }

    /// The connection string for `pg_restore`. Every parameter is given, so that no `PG*` variable
    /// or service file of the host redirects the restore; the password travels by `PGPASSWORD`.
    pub(super) fn conninfo(&self, application_name: &str, options: &str) -> String {
        let seconds = self.connect_timeout.as_secs().max(2).to_string();
        let port = self.port.to_string();
        let root = self.ssl_root_cert.as_ref().map(|path| path.display().to_string());
        let mode = self.effective_ssl_mode();
        let mut pairs = vec![
            ("host", self.host.as_str()),
            ("hostaddr", ""),
            ("port", &port),
            ("dbname", &self.database),
            ("sslmode", mode.as_str()),
            ("gssencmode", "disable"),
            ("connect_timeout", &seconds),
            ("application_name", application_name),
            ("options", options),
        ];
        if let Some(username) = &self.username {
            pairs.push(("user", username));
        }
        if mode == SslMode::Disable || mode == SslMode::Prefer {
            // Without a file libpq would look into the home directory.
        } else if let Some(root) = &root {
            pairs.push(("sslrootcert", root));
        } else if mode == SslMode::Require {
            pairs.push(("sslrootcert", "/nonexistent"));
        }
        pairs
            .iter()
            .map(|(key, value)| format!("{key}='{}'", value.replace('\\', r"\\").replace('\'', r"\'")))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// How long one restore may take unless somebody says otherwise.
const RESTORE_LIMIT: Duration = Duration::from_secs(12 * 3600);

/// The slave's database. Clones share one pool; nothing connects before the first use.
#[derive(Clone)]
pub struct Database {
    pub(super) shared: Arc<Shared>,
    pub(super) restore_limit: Duration,
}

pub(super) struct Shared {
    pub(super) options: ConnectOptions,
    pub(super) stop: CancellationToken,
    pub(super) patience: Duration,
    /// The session that holds the advisory locks of tables under replacement.
    pub(super) locks: Mutex<super::lock::LockSession>,
    pub(super) versions: OnceCell<Versions>,
    pub(super) bookkeeping: OnceCell<()>,
    /// Cancelled when the server has fallen silent.
    pub(super) silence: CancellationToken,
    /// Watches for that while there is work.
    pulse: OnceLock<Pulse>,
    pool: Pool,
    tls: MakeTlsConnector,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Database {
    /// A database with at most `max_connections` pooled sessions (one more holds locks). Work ends
    /// with [`ErrorKind::Stopped`] once `stop` is cancelled.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] when the TLS settings cannot be used.
    pub fn new(options: ConnectOptions, max_connections: usize, stop: CancellationToken) -> Result<Self> {
        Self::with_patience(options, max_connections, stop, PATIENCE)
    }

    /// As [`Database::new`], and the short transactions of a replacement, as well as the wait for
    /// another session that works on the same table, give up after `patience` (otherwise a minute).
    ///
    /// # Errors
    ///
    /// As [`Database::new`].
    pub fn with_patience(
        options: ConnectOptions,
        max_connections: usize,
        stop: CancellationToken,
        patience: Duration,
    ) -> Result<Self> {
        let tls = options.tls()?;
        let silence = CancellationToken::new();
        let manager = Manager::from_connect(
            options.driver_config(),
            Sessions { tls: tls.clone(), silence: silence.clone() },
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        // TLS and authentication take their time beyond the TCP connection that the driver limits.
        let create = options.connect_timeout.saturating_mul(2);
        let pool = Pool::builder(manager)
            .max_size(max_connections.max(1))
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts { wait: None, create: Some(create), recycle: Some(options.connect_timeout) })
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move { client.batch_execute(SESSION_SQL).await.map_err(HookError::Backend) })
            }))
            .build()
            .context(ErrorKind::Bug, "cannot build the connection pool")?;
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                stop,
                patience,
                locks: Mutex::new(super::lock::LockSession { client: None, held: HashSet::new() }),
                versions: OnceCell::new(),
                bookkeeping: OnceCell::new(),
                silence,
                pulse: OnceLock::new(),
                pool,
                tls,
            }),
            restore_limit: RESTORE_LIMIT,
        })
    }

    /// Ends a restore that runs longer than `limit`, instead of 12 hours.
    #[must_use]
    pub fn with_restore_limit(mut self, limit: Duration) -> Self {
        self.restore_limit = limit;
        self
    }

    /// A session from the pool; with an empty `search_path`.
    pub(super) async fn client(&self) -> Result<Object> {
        let shared = &self.shared;
        let watch = || Pulse::start(&shared.options, &shared.tls, shared.patience, &shared.silence);
        shared.pulse.get_or_init(watch);
        tokio::select! {
            client = shared.pool.get() => client.map_err(|error| failure::pool(error, &shared.options)),
            () = shared.stop.cancelled() => Err(stopped()),
            () = shared.silence.cancelled() => Err(self.fell_silent()),
        }
    }

    /// The error of what waited for the server when it fell silent.
    pub(super) fn fell_silent(&self) -> Error {
        failure::silent(&self.shared.options)
    }

    /// Runs one statement that may take long, and cancels it on the server when the run is stopped.
    pub(super) async fn run_long(&self, sql: &str, what: &str, subject: &str) -> Result<()> {
        let client = self.client().await?;
        let cancel = client.cancel_token();
        tokio::select! {
            done = client.batch_execute(sql) => return done.map_err(|error| failure::statement(error, what, subject)),
            () = self.shared.stop.cancelled() => {}
            () = tokio::time::sleep(self.restore_limit) => {}
        }
        // The statement ends anyway once its session notices that nobody listens.
        let _ = tokio::time::timeout(CANCEL_LIMIT, cancel.cancel_query(self.shared.tls.clone())).await;
        drop(Object::take(client));
        if self.shared.stop.is_cancelled() {
            return Err(stopped());
        }
        Err(Error::new(ErrorKind::Database, what)
            .subject(subject)
            .source(Error::new(ErrorKind::Busy, format!("the statement did not end within {:?}", self.restore_limit)))
            .hint("look on the database server at what holds the statement up (pg_stat_activity), then run again"))
    }
}

pub(super) fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "the run was asked to stop")
}

/// Decides whether a short transaction that met a lock is tried again, and waits before that.
pub(super) struct Attempts {
    until: tokio::time::Instant,
    stop: CancellationToken,
    round: u32,
}

impl Attempts {
    pub(super) fn new(database: &Database) -> Self {
        Self {
            until: tokio::time::Instant::now() + database.shared.patience,
            stop: database.shared.stop.clone(),
            round: 0,
        }
    }

    pub(super) fn may_retry(&self, error: &Error) -> bool {
        error.kind() == ErrorKind::Busy && tokio::time::Instant::now() < self.until
    }

    /// Waits 50 ms to 1 s: longer from round to round, and never twice the same, so that two
    /// sessions that met in a deadlock do not meet again.
    pub(super) async fn pause(&mut self) -> Result<()> {
        self.round = self.round.saturating_add(1);
        let ceiling = 100_u64.saturating_mul(u64::from(self.round)).min(950);
        let jitter = u64::from(jiff::Timestamp::now().subsec_nanosecond().unsigned_abs()) / 1000 % ceiling;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50 + jitter)) => Ok(()),
            () = self.stop.cancelled() => Err(stopped()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ConnectOptions {
        ConnectOptions {
            host: "db.example".into(),
            port: 5432,
            database: "it's".into(),
            username: Some("slave".into()),
            password: Some("hunter2".into()),
            ssl_mode: SslMode::Require,
            ssl_root_cert: None,
            connect_timeout: Duration::from_secs(10),
            application_name: "borg-slave".into(),
        }
    }

    #[test]
    fn the_connection_string_is_complete_quoted_and_without_secret() {
        insta::assert_snapshot!(options().conninfo("restore", "-c a=b"), @r"host='db.example' hostaddr='' port='5432' dbname='it\'s' sslmode='require' gssencmode='disable' connect_timeout='10' application_name='restore' options='-c a=b' user='slave' sslrootcert='/nonexistent'");
    }

    #[test]
    fn debug_output_holds_no_password() {
        let database = Database::new(options(), 1, CancellationToken::new()).unwrap();
        assert!(!format!("{database:?} {:?}", options()).contains("hunter2"));
    }

    #[test]
    fn an_unreadable_root_certificate_is_named() {
        let options = ConnectOptions { ssl_root_cert: Some("/no/such.pem".into()), ..options() };
        let error = Database::new(options, 1, CancellationToken::new()).unwrap_err();
        assert_eq!((error.kind(), error.subject_text()), (ErrorKind::Settings, Some("/no/such.pem")));
    }
}
