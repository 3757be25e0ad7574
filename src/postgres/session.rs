//! A single connection to a database that is not the slave's own, such as the master's: options, TLS and
//! errors are those of the slave's own database.

use std::fmt;

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::connect::{ConnectOptions, SESSION_SQL};
use super::failure;
use crate::error::{Error, ErrorKind, Result};

/// How the variables of the slave's own database begin, in advice.
const OWN_VARIABLES: &str = "GEOSERVER_PGSQL";

/// One connection; it ends when this is dropped. The `search_path` is empty.
pub struct Session {
    client: Client,
    variables: &'static str,
    driver: JoinHandle<()>,
}

impl Session {
    /// Connects. Advice in errors names variables that begin with `variables`, such as `MASTER_PGSQL`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] when the TLS settings cannot be used, [`ErrorKind::Unreachable`] when the
    /// server does not answer within the options' time, [`ErrorKind::Denied`] when it refuses the login.
    pub async fn connect(options: &ConnectOptions, variables: &'static str) -> Result<Self> {
        let advise = |error| advise(error, variables);
        let tls = options.tls().map_err(advise)?;
        let config = options.driver_config();
        let connecting = async {
            let (client, connection) = config.connect(tls).await?;
            let driver = tokio::spawn(async move {
                // What ends the connection, the next statement tells.
                let _ = connection.await;
            });
            let session = Self { client, variables, driver };
            session.client.batch_execute(SESSION_SQL).await?;
            Ok(session)
        };
        // A server may accept the connection and then say nothing.
        match tokio::time::timeout(options.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| advise(failure::connecting(error, options.place()))),
            Err(_) => Err(advise(failure::silent(options))),
        }
    }

    /// The driver's client.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// What makes errors of statements.
    #[must_use]
    pub fn advice(&self) -> Advice {
        Advice(self.variables)
    }
}

/// Turns what the driver says into errors that name the right variables.
#[derive(Debug, Clone, Copy)]
pub struct Advice(&'static str);

impl Advice {
    /// The error of a statement that failed while `what` was done to `subject`.
    #[must_use]
    pub fn failed(self, error: tokio_postgres::Error, what: &str, subject: &str) -> Error {
        advise(failure::statement(error, what, subject), self.0)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

fn advise(error: Error, variables: &str) -> Error {
    let hint = match error.hint_text() {
        // What is said of tables under replacement is not about this database.
        Some(_) if error.kind() == ErrorKind::Database => {
            return error.hint("look into the log of that database server");
        }
        Some(hint) => hint.replace(OWN_VARIABLES, variables),
        None => return error,
    };
    error.hint(hint)
}
