//! The way of one file: found in the cache, or brought here, verified and given its name.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::checksum::{Stamp, of_file, of_file_now};
use super::complaint::Failure;
use super::dispatch::{Engine, serve};
use super::location::{Location, Peer, Remote};
use super::room::Place;
use super::waiting::Item;
use super::{Fetched, Inner, Md5, Origin, Request, blocking, remote_shell};
use crate::error::{Error, ErrorKind, Result, io_error};

/// A whole file that has not got its name yet.
struct Arrival {
    path: PathBuf,
    md5: Md5,
    bytes: u64,
    place: Option<Arc<Place>>,
}

/// What became of a file that another slave was asked for.
enum FromServer {
    Delivered(Arrival),
    /// It has a file of that name, but not this content.
    HasOther,
    HasNone,
    Failed(Error),
}

impl Inner {
    pub(super) async fn fetch(&self, request: Request) -> Result<Fetched> {
        if self.engine.stop.is_cancelled() {
            return Err(Error::new(ErrorKind::Stopped, "the run was asked to stop").subject(&request.what));
        }
        if self.share_layer_data {
            return shared(&request).await;
        }
        let name = request.cache_name.as_str();
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        if let Some(found) = self.cached(&request).await? {
            return Ok(found);
        }
        let arrived = self.engine.cache.arrived(name, request.md5);
        // A run that was killed between receiving and verifying left it.
        if request.md5.is_some()
            && let Ok((md5, bytes)) = of_file(&arrived).await
            && request.md5 == Some(md5)
        {
            return self.place(&request, Arrival { path: arrived, md5, bytes, place: None }, Origin::Cache).await;
        }
        let mut asked_first = None;
        if let Some((peer, dir)) = &self.sync_server {
            asked_first = Some(match self.ask_sync_server(&request, peer, dir, &arrived).await? {
                FromServer::Delivered(arrival) => return self.place(&request, arrival, Origin::SyncServer).await,
                FromServer::HasOther => format!("it has other content under the name {name}"),
                FromServer::HasNone => self.sync_server_lacks(&request, dir),
                FromServer::Failed(failure) => {
                    tracing::warn!(what = %request.what, reason = %failure.one_line(), "SYNC_SERVER did not deliver; the job's own location is asked");
                    failure.one_line()
                }
            });
        }
        let arrival = self.ask_location(&request, &arrived).await.map_err(|error| match asked_first {
            // Without the master both failures matter: the operator has set SYNC_SERVER for a reason.
            Some(said) => {
                let hint = error.hint_text().unwrap_or("see the cause").to_owned();
                error.hint(format!("{hint}. SYNC_SERVER was asked first: {said}"))
            }
            None => error,
        });
        let origin = match request.location {
            Location::Remote(_) => Origin::Master,
            Location::Local(_) => Origin::Local,
        };
        self.place(&request, arrival?, origin).await
    }

    /// The lock that lets one fetch at a time work on a name.
    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, turn| turn.strong_count() > 0);
        let known = names.get(name).and_then(std::sync::Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            names.insert(name.to_owned(), Arc::downgrade(&turn));
            turn
        })
    }

    /// The file in the cache, when it has the wanted content.
    async fn cached(&self, request: &Request) -> Result<Option<Fetched>> {
        let Some(wanted) = request.md5 else { return Ok(None) };
        let (name, lease) = self.lease(request.cache_name.as_str(), wanted);
        let path = self.engine.cache.path(&name);
        match of_file(&path).await {
            Ok((md5, bytes)) if md5 == wanted => Ok(Some(Fetched {
                path,
                md5,
                bytes,
                from: Origin::Cache,
                lease: Some(lease),
                place: None,
                stamp: None,
            })),
            // Unreadable or other content: it is replaced.
            _ => Ok(None),
        }
    }

    /// The file name for this content, and the right to keep it there.
    ///
    /// `a.b` + `c` and `a` + `b.c` share a name in the cache. While one content is in use, the other
    /// gets a name of its own.
    fn lease(&self, name: &str, md5: Md5) -> (String, Arc<()>) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|_, (_, lease)| lease.strong_count() > 0);
        if let Some((leased, lease)) = leases.get(name)
            && let Some(lease) = lease.upgrade()
        {
            if *leased == md5 {
                return (name.to_owned(), lease);
            }
            let lease = Arc::new(());
            let own_name = format!("{md5}-{name}");
            leases.insert(own_name.clone(), (md5, Arc::downgrade(&lease)));
            return (own_name, lease);
        }
        let lease = Arc::new(());
        leases.insert(name.to_owned(), (md5, Arc::downgrade(&lease)));
        (name.to_owned(), lease)
    }

    async fn place(&self, request: &Request, arrival: Arrival, from: Origin) -> Result<Fetched> {
        let (name, lease) = self.lease(request.cache_name.as_str(), arrival.md5);
        let (cache, durable, arrived) = (self.engine.cache.clone(), request.durable, arrival.path);
        let path = blocking(move || cache.place(&arrived, &name, durable)).await?;
        let Arrival { md5, bytes, place, .. } = arrival;
        Ok(Fetched { path, md5, bytes, from, lease: Some(lease), place, stamp: None })
    }

    /// Tries the names that slaves give the file. What is an error here the master cannot make good.
    async fn ask_sync_server(&self, request: &Request, peer: &Peer, dir: &str, arrived: &Path) -> Result<FromServer> {
        let name = &request.cache_name;
        // The older names lack the workspace, so that only a checksum tells whose file it is.
        let older = if request.md5.is_some() { name.older() } else { &[] };
        let mut answer = FromServer::HasNone;
        for file in std::iter::once(name.as_str()).chain(older.iter().map(String::as_str)) {
            let remote = Remote { user: peer.user.clone(), host: peer.host.clone(), path: format!("{dir}/{file}") };
            match self.receive(&remote, request, arrived).await {
                Ok(arrival) if request.md5.is_none_or(|wanted| wanted == arrival.md5) => {
                    return Ok(FromServer::Delivered(arrival));
                }
                Ok(other) => {
                    remove(&other.path)?;
                    answer = FromServer::HasOther;
                }
                Err(error) => match error.kind() {
                    ErrorKind::Missing => {}
                    ErrorKind::Stopped | ErrorKind::Io => return Err(error),
                    _ => return Ok(FromServer::Failed(error)),
                },
            }
        }
        Ok(answer)
    }

    /// What is to be said of a file that the other slave does not have; a log is told once, since one may lack all.
    fn sync_server_lacks(&self, request: &Request, dir: &str) -> String {
        let file = request.cache_name.as_str();
        let said = format!("it has {file} under none of its names in SYNC_PATH ({dir})");
        // Metadata of a layer that is removed are gone there as a rule, and have no checksum.
        if request.md5.is_some() && !self.lack_is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                what = %request.what,
                "SYNC_SERVER was asked first: {said}; the job's own location is asked. This is said once for all files: \
                 see to it that SYNC_PATH is that slave's CACHE_PATH and that KEEP_CACHED_FILES=true is set there"
            );
        }
        said
    }

    /// Takes the file from where the job says it is.
    async fn ask_location(&self, request: &Request, arrived: &Path) -> Result<Arrival> {
        match &request.location {
            Location::Remote(remote) => self.ask_master(request, remote, arrived).await,
            Location::Local(path) => self.copy_from_here(request, path, arrived).await,
        }
    }

    async fn ask_master(&self, request: &Request, remote: &Remote, arrived: &Path) -> Result<Arrival> {
        let mut last_try = false;
        loop {
            let arrival = self.receive(remote, request, arrived).await?;
            let Some(wanted) = request.md5.filter(|wanted| *wanted != arrival.md5) else { return Ok(arrival) };
            remove(&arrival.path)?;
            let engine = &self.engine;
            let peer = remote.peer();
            let there = match engine.connections.up(&peer).await {
                Ok(link) => {
                    remote_shell::md5sum(&engine.ssh, &peer, &remote.path, &link.options, engine.idle, &engine.stop)
                        .await
                }
                Err(failure) => Err(failure),
            };
            match there {
                Ok(sum) if sum != wanted => return Err(replaced(request, wanted, sum)),
                Err(failure) if failure.kind == ErrorKind::Stopped => return Err(failure.error(&request.what)),
                Ok(_) | Err(_) if !last_try => {
                    tracing::warn!(what = %request.what, file = %remote, "the file arrived damaged; it is fetched once more, whole");
                    last_try = true;
                }
                Ok(_) => return Err(damaged(request, wanted, arrival.md5)),
                Err(failure) => {
                    return Err(Error::new(
                        ErrorKind::Checksum,
                        format!("the {} has other content than the job promises: md5 is {}, the job says {wanted}; the master could not be asked for the file's own checksum", request.what, arrival.md5),
                    )
                    .subject(remote.to_string())
                    .hint("wait for the master's next job for this layer, or publish it again")
                    .source(failure.error(remote.to_string())));
                }
            }
        }
    }

    /// Copies a file of this machine; in place the master could replace it while it is read.
    async fn copy_from_here(&self, request: &Request, path: &Path, arrived: &Path) -> Result<Arrival> {
        self.engine.cache.prepare(None)?;
        let mut last_try = false;
        loop {
            let place = self.place_for(request, path).await?;
            let (from, to, durable) = (path.to_owned(), arrived.to_owned(), request.durable);
            blocking(move || copy_file(&from, &to, durable)).await?;
            let (md5, bytes) = of_file(arrived).await?;
            let arrival = Arrival { path: arrived.to_owned(), md5, bytes, place };
            let Some(wanted) = request.md5.filter(|wanted| *wanted != md5) else { return Ok(arrival) };
            remove(arrived)?;
            let (there, _) = of_file(path).await?;
            if there != wanted {
                return Err(replaced(request, wanted, there));
            }
            if last_try {
                return Err(damaged(request, wanted, md5));
            }
            last_try = true;
        }
    }

    /// Waits for room for a file of this machine, when it needs any.
    async fn place_for(&self, request: &Request, path: &Path) -> Result<Option<Arc<Place>>> {
        if !request.cache_name.is_large() {
            return Ok(None);
        }
        // One that is not there fails when it is copied.
        let bytes = std::fs::metadata(path).map_or(0, |about| about.len());
        let Engine { room, stop, .. } = &*self.engine;
        loop {
            if let Some(place) = room.take(bytes) {
                return Ok(Some(place));
            }
            tokio::select! {
                () = room.has_room_for(bytes) => {}
                () = stop.cancelled() => {
                    return Err(Error::new(ErrorKind::Stopped, "the run was asked to stop").subject(&request.what));
                }
            }
        }
    }

    /// Receives a file of another machine, whatever its content is.
    async fn receive(&self, remote: &Remote, request: &Request, arrived: &Path) -> Result<Arrival> {
        let (reply, answer) = oneshot::channel();
        let item = Item {
            path: remote.path.clone(),
            arrived: arrived.to_owned(),
            what: request.what.clone(),
            is_large: request.cache_name.is_large(),
            is_checked: request.md5.is_some(),
            reply,
        };
        self.enqueue(remote.peer(), item);
        let received = answer.await.unwrap_or_else(|_| Err(Failure::new(ErrorKind::Bug, "the transfer was lost")));
        let place = received.map_err(|failure| failure.error(format!("{} {remote}", request.what)))?;
        let (md5, bytes) = of_file(arrived).await?;
        Ok(Arrival { path: arrived.to_owned(), md5, bytes, place })
    }

    fn enqueue(&self, peer: Peer, item: Item) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(peer.clone()).or_insert_with(|| {
            let (send, receive) = mpsc::unbounded_channel();
            tokio::spawn(serve(Arc::clone(&self.engine), peer, receive));
            send
        });
        // It is served as long as its sender lives; should that end, the reply is dropped with the item.
        let _ = queue.send(item);
    }
}

/// Reads the master's file in place, where the master may replace it at any time.
async fn shared(request: &Request) -> Result<Fetched> {
    let path = request.location.path().to_owned();
    let read = {
        let path = path.clone();
        // In this order: what is changed after the first look is noticed.
        blocking(move || Ok((Stamp::of(&path)?, of_file_now(&path)?)))
    };
    let (stamp, (md5, bytes)) = read.await.map_err(|error| match error.kind() {
        ErrorKind::Missing => error.hint(
            "SHARE_LAYER_DATA is set: mount the master's directory here at the same path, or take the setting away",
        ),
        _ => error,
    })?;
    match request.md5 {
        Some(wanted) if wanted != md5 => Err(replaced(request, wanted, md5)),
        _ => Ok(Fetched { path, md5, bytes, from: Origin::Shared, lease: None, place: None, stamp: Some(stamp) }),
    }
}

fn copy_file(from: &Path, to: &Path, durable: bool) -> Result<()> {
    let mut source = std::fs::File::open(from).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(ErrorKind::Missing, "the file is not there")
            .subject(from.display().to_string())
            .hint("the master has removed or replaced it since; publish the layer again if no newer job follows")
            .source(error),
        _ => io_error(from, "cannot open the file", error),
    })?;
    if !source.metadata().is_ok_and(|about| about.is_file()) {
        return Err(Error::new(ErrorKind::Missing, "this is no regular file").subject(from.display().to_string()));
    }
    let copied = std::fs::File::create(to).and_then(|mut target| {
        // Shares the blocks where the file system can.
        std::io::copy(&mut source, &mut target)?;
        if durable { target.sync_all() } else { Ok(()) }
    });
    copied.map_err(|error| {
        // What cannot be finished shall not fill the disk.
        let _ = std::fs::remove_file(to);
        io_error(to, "cannot copy the file into the cache", error)
    })
}

fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path).map_err(|source| io_error(path, "cannot remove the file with the wrong content", source))
}

fn replaced(request: &Request, wanted: Md5, there: Md5) -> Error {
    Error::new(
        ErrorKind::Checksum,
        format!(
            "the master has replaced the {} since the job was written: its md5 is {there}, the job says {wanted}",
            request.what
        ),
    )
    .subject(request.location.to_string())
    .hint("a newer job for it normally follows with the next pull; if none does, publish the layer again on the master")
}

fn damaged(request: &Request, wanted: Md5, here: Md5) -> Error {
    Error::new(
        ErrorKind::Checksum,
        format!(
            "the {} arrived damaged twice: md5 is {here} here and {wanted} on the master, as the job says",
            request.what
        ),
    )
    .subject(request.location.to_string())
    .hint("check memory and disk of this machine (dmesg) and what stands between it and the master, then run again")
}
