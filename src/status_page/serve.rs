//! The listener: where the page is, connections within bounds, and the end.

use std::net::{SocketAddr, TcpListener as BlockingListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access::{Access, Door};
use super::monitor::Monitor;
use super::routes;
use super::site::Site;
use super::{About, Options};
use crate::error::{Error, ErrorKind, Result};

/// How long after an address could not be listened on it is tried again: whoever is there may go.
const AGAIN: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(30) };

/// Connections at the same time; more wait to be accepted.
const CONNECTIONS: usize = 64;

/// How long a caller may take to send the head of a request, or say nothing between two.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// How long one connection is kept; browsers make a new one without anybody noticing.
const CONNECTION_LIMIT: Duration = Duration::from_secs(120);

/// How long requests that are being answered may go on at the end.
const GRACE: Duration = Duration::from_secs(2);

/// The pause after a connection could not be accepted, as when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The daemon's status page, served in the background.
#[derive(Debug)]
pub struct StatusPage {
    wanted: watch::Sender<Option<Options>>,
    stop: CancellationToken,
    host: JoinHandle<()>,
}

impl StatusPage {
    /// Serves the page as `options` say; nothing is served without any, until [`StatusPage::follow`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the address cannot be listened on.
    pub fn start(options: Option<Options>, monitor: Arc<Monitor>) -> Result<Self> {
        let about = options.as_ref().map_or_else(About::default, |options| options.about.clone());
        let site = Arc::new(Site::new(about, monitor));
        let place = options.as_ref().map(|options| Place::open(options, &site)).transpose()?;
        let (wanted, changes) = watch::channel(options);
        let stop = CancellationToken::new();
        let host = Host { site, changes, stop: stop.clone(), place, trouble: None };
        Ok(Self { wanted, stop, host: tokio::spawn(host.serve()) })
    }

    /// Serves the page as other settings say. An address that cannot be listened on is logged and tried again now and
    /// then, and the page stays where it was until that works.
    pub fn follow(&self, options: Option<Options>) {
        self.wanted.send_replace(options);
    }

    /// Ends it; answers that are under way have two seconds.
    pub async fn end(self) {
        self.stop.cancel();
        // It has limits of its own; one that crashed has ended as well.
        let _ = self.host.await;
    }
}

/// Where the page is served.
struct Place {
    listener: TcpListener,
    /// What the settings ask for; port 0 stands for any.
    asked: SocketAddr,
    /// What callers there must present.
    door: Arc<Door>,
    router: Router,
    /// Ends the connections that came in here.
    closing: CancellationToken,
}

impl Place {
    fn open(options: &Options, site: &Arc<Site>) -> Result<Self> {
        let asked = options.listen;
        let refused = |source| refused(asked, source);
        let listener = bind(asked).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let token = if options.token.is_some() { "with a token" } else { "to this machine" };
        tracing::info!("the status page is served {token} at http://{address}/");
        let door = Arc::new(Door::new(Access::of(options.token.as_ref())));
        let router = routes::router(site, &door);
        Ok(Self { listener, asked, door, router, closing: CancellationToken::new() })
    }
}

/// Accepts connections, and follows the settings.
struct Host {
    site: Arc<Site>,
    changes: watch::Receiver<Option<Options>>,
    stop: CancellationToken,
    place: Option<Place>,
    /// Why the page is not where the settings want it.
    trouble: Option<String>,
}

impl Host {
    async fn serve(mut self) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        let mut serving = JoinSet::new();
        let mut again = Instant::now();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = self.changes.changed() => match changed {
                    Ok(()) => {
                        self.change();
                        again = Instant::now() + AGAIN;
                    }
                    Err(_) => break,
                },
                () = tokio::time::sleep_until(again), if self.trouble.is_some() => {
                    self.change();
                    again = Instant::now() + AGAIN;
                }
                accepted = accept(self.place.as_ref(), &connections) => {
                    if let (Some((stream, permit)), Some(place)) = (accepted, &self.place) {
                        serving.spawn(connection(stream, place.router.clone(), place.closing.clone(), permit));
                    }
                }
                Some(_) = serving.join_next() => {}
            }
        }
        if let Some(place) = self.place.take() {
            place.closing.cancel();
        }
        let ended = async { while serving.join_next().await.is_some() {} };
        // What is left is dropped with the set.
        let _ = tokio::time::timeout(GRACE, ended).await;
    }

    /// Takes over other settings.
    fn change(&mut self) {
        let wanted = self.changes.borrow_and_update().clone();
        let trouble = self.trouble.take();
        let Some(options) = wanted else {
            if let Some(place) = self.place.take() {
                place.closing.cancel();
                tracing::info!("the status page is no longer served");
            }
            return;
        };
        self.site.set_about(options.about.clone());
        if let Some(place) = self.place.as_ref().filter(|place| place.asked == options.listen) {
            place.door.change(Access::of(options.token.as_ref()));
            return;
        }
        match self.open(&options) {
            Ok(place) => {
                if let Some(old) = self.place.replace(place) {
                    old.closing.cancel();
                }
            }
            // Who could get in there still needs what was needed there.
            Err(error) => {
                let text = error.paragraph();
                if trouble.as_ref() != Some(&text) {
                    tracing::error!("the status page stays where it was. {text}");
                }
                self.trouble = Some(text);
            }
        }
    }

    /// Listens at a new place; the port may be the one that the page has itself, at another address.
    fn open(&mut self, options: &Options) -> Result<Place> {
        let own = self.place.take_if(|place| place.asked.port() == options.listen.port() && place.asked.port() != 0);
        let Some(Place { listener, asked, door, router, closing }) = own else {
            return Place::open(options, &self.site);
        };
        drop(listener);
        let opened = Place::open(options, &self.site);
        if opened.is_ok() {
            closing.cancel();
            return opened;
        }
        match bind(asked) {
            Ok(listener) => self.place = Some(Place { listener, asked, door, router, closing }),
            Err(source) => tracing::error!(%asked, %source, "the status page could not go back to where it was"),
        }
        opened
    }
}

/// Whether the page could be served there: nobody else is there, and it is an address of this machine.
///
/// # Errors
///
/// [`ErrorKind::Io`] when it could not.
pub fn is_free(asked: SocketAddr) -> Result<()> {
    BlockingListener::bind(asked).map(drop).map_err(|source| refused(asked, source))
}

fn refused(asked: SocketAddr, source: std::io::Error) -> Error {
    let hint = if source.kind() == std::io::ErrorKind::AddrInUse {
        format!(
            "another process listens there (`ss -ltnp 'sport = :{}'` names it): end it, or choose another port",
            asked.port()
        )
    } else {
        "choose an address of this machine and a port from 1024 on, or 127.0.0.1:0 for a free one".to_owned()
    };
    Error::new(ErrorKind::Io, format!("the status page cannot be served at {asked}"))
        .subject("STATUS_LISTEN")
        .source(source)
        .hint(hint)
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = BlockingListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The next connection, once there is room for it; never where nothing is listened on.
async fn accept(place: Option<&Place>, room: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let Some(place) = place else { return std::future::pending().await };
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match place.listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::debug!(%error, "a connection to the status page could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(stream: TcpStream, router: Router, closing: CancellationToken, _permit: OwnedSemaphorePermit) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => Some(ended),
        () = closing.cancelled() => None,
        () = tokio::time::sleep(CONNECTION_LIMIT) => None,
    };
    if ended.is_none() {
        served.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(GRACE, served).await;
    }
}
