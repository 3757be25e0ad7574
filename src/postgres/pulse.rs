//! A server that falls silent in the middle of a run.
//!
//! A server whose disk or machine hangs keeps its connections: TCP goes on being acknowledged, and statements
//! do not end, nor does the server's own `statement_timeout` end them. So while there is work, a new session
//! asks for something small now and then. When nobody answers twice in a row, all sessions end, and with them
//! what waits for an answer. A server that refuses the session has answered.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use deadpool_postgres::Connect;
use postgres_openssl::MakeTlsConnector;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;

use super::connect::ConnectOptions;

/// After so many questions in a row without an answer the server counts as silent.
const SILENCE: u32 = 2;

/// Makes the sessions of the pool; they end when the server has fallen silent.
pub(super) struct Sessions {
    pub(super) tls: MakeTlsConnector,
    pub(super) silence: CancellationToken,
}

/// What [`Connect`] gives: a session, and the task that drives it.
type Connected = Result<(Client, JoinHandle<()>), Error>;

impl Connect for Sessions {
    fn connect(&self, config: &tokio_postgres::Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move {
            let (client, connection) = config.connect(self.tls.clone()).await?;
            let silence = self.silence.clone();
            let driver = tokio::spawn(async move {
                tokio::select! {
                    // What ends the connection, the next statement tells.
                    _ = connection => {}
                    () = silence.cancelled() => {}
                }
            });
            Ok((client, driver))
        })
    }
}

/// Asks now and then whether the server is there, until it is dropped.
pub(super) struct Pulse(JoinHandle<()>);

impl Pulse {
    /// Asks twice within `patience`, which is also how long each answer may take, and cancels `silence` when
    /// nobody answers.
    pub(super) fn start(
        options: &ConnectOptions,
        tls: &MakeTlsConnector,
        patience: Duration,
        silence: &CancellationToken,
    ) -> Self {
        let (config, place, tls) = (options.driver_config(), options.place(), tls.clone());
        let silence = silence.clone();
        Self(tokio::spawn(async move {
            let mut unanswered = 0;
            while unanswered < SILENCE {
                tokio::time::sleep(patience / 2).await;
                if tokio::time::timeout(patience, ask(&config, tls.clone())).await.is_ok() {
                    unanswered = 0;
                } else {
                    unanswered += 1;
                    tracing::warn!("{place} has not answered for {} s", patience.as_secs_f64());
                }
            }
            silence.cancel();
        }))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns once the server has answered, whatever it says, or is known not to be there: who is connected
/// learns of that by himself.
async fn ask(config: &tokio_postgres::Config, tls: MakeTlsConnector) {
    let Ok((client, connection)) = config.connect(tls).await else { return };
    let asked = async {
        let _ = client.batch_execute("select 1").await;
    };
    tokio::select! {
        _ = connection => {}
        () = asked => {}
    }
}
