//! One SSH connection for each host, shared by everything that goes there.
//!
//! A master process per host is started once (`ControlMaster`), and each `rsync` opens a channel in it,
//! which costs a round trip instead of a key exchange. Where the SSH command is not OpenSSH, shares
//! connections by itself, or sharing fails, every process makes its own connection.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use super::complaint::{Failure, ssh_failure};
use super::location::Peer;
use super::ssh_command::SshCommand;
use crate::error::{ErrorKind, Result, io_error};
use crate::process::{Cmd, Running};

/// What the master prints once it is logged in and listens for others.
const READY: &str = "borg-connection-up";

/// How long making a connection may take when silence is allowed for ever.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// The longest directory in which a control socket still fits: its path, with what `ssh` appends while it
/// makes the socket, must stay below 108 bytes (`sun_path`).
const SOCKET_DIR_BYTES: usize = 60;

/// The shared connections.
pub(super) struct Connections {
    ssh: Arc<SshCommand>,
    idle: Duration,
    stop: CancellationToken,
    dir: Mutex<Option<TempDir>>,
    hosts: Mutex<HashMap<Peer, Arc<tokio::sync::Mutex<Host>>>>,
}

#[derive(Default)]
struct Host {
    state: State,
    /// Counts masters, so that a late complaint about an old one does not end its successor.
    generation: u64,
}

#[derive(Default)]
enum State {
    #[default]
    Untried,
    Up(Box<Running>, PathBuf),
    /// Sharing does not work with this host.
    Alone,
}

/// How a process reaches a host.
pub(super) struct Link {
    /// Options for the SSH command.
    pub(super) options: Vec<String>,
    generation: u64,
}

impl Connections {
    pub(super) fn new(ssh: Arc<SshCommand>, idle: Duration, stop: CancellationToken) -> Self {
        Self { ssh, idle, stop, dir: Mutex::default(), hosts: Mutex::default() }
    }

    fn host(&self, peer: &Peer) -> Arc<tokio::sync::Mutex<Host>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(peer.clone()).or_default())
    }

    /// The connection to `peer`, made now if there is none.
    pub(super) async fn up(&self, peer: &Peer) -> Result<Link, Failure> {
        let host = self.host(peer);
        let mut host = host.lock().await;
        if matches!(host.state, State::Untried) {
            host.state = if self.ssh.can_multiplex() { self.start(peer).await? } else { State::Alone };
            host.generation += 1;
        }
        let options = match &host.state {
            State::Up(_, socket) => vec!["-oControlMaster=no".to_owned(), control_path(socket)],
            State::Untried | State::Alone if self.ssh.is_open_ssh() => self.probes().into(),
            State::Untried | State::Alone => Vec::new(),
        };
        Ok(Link { options, generation: host.generation })
    }

    /// Gives up the connection of `link`, which broke; the next one is made anew.
    pub(super) async fn lost(&self, peer: &Peer, link: &Link) {
        let host = self.host(peer);
        let mut host = host.lock().await;
        if host.generation == link.generation && matches!(host.state, State::Up(..)) {
            // Dropping the master ends it.
            host.state = State::Untried;
        }
    }

    /// Ends all connections.
    pub(super) async fn close(&self) {
        let hosts = std::mem::take(&mut *self.hosts.lock().unwrap_or_else(PoisonError::into_inner));
        for (peer, host) in hosts {
            let mut host = host.lock().await;
            if let State::Up(master, socket) = std::mem::take(&mut host.state) {
                let goodbye = Cmd::new(self.ssh.program())
                    .args(["-O".to_owned(), "exit".to_owned(), control_path(&socket)])
                    .arg(&peer.host)
                    .time_limit(Duration::from_secs(5));
                if goodbye.run().await.is_ok() {
                    let _ = master.finish().await;
                }
            }
        }
        *self.dir.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn start(&self, peer: &Peer) -> Result<State, Failure> {
        let socket = self.socket(peer)?;
        // Of an option given twice ssh takes the first, so ours stand before the command's.
        let mut arguments: Vec<String> =
            ["-M", "-N", "-T", "-oControlPersist=no", "-oPermitLocalCommand=yes"].map(str::to_owned).into();
        arguments.push(format!("-oLocalCommand=echo {READY}"));
        arguments.push(control_path(&socket));
        arguments.extend(self.probes());
        arguments.extend(self.ssh.arguments(&[]));
        if let Some(user) = &peer.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        arguments.push(peer.host.clone());
        let connect_limit = if self.idle.is_zero() { CONNECT_LIMIT } else { self.idle };
        let mut master = Cmd::new(self.ssh.program()).args(&arguments).start().map_err(Failure::from)?;
        let ready = tokio::select! {
            ready = tokio::time::timeout(connect_limit, wait_ready(&mut master)) => ready,
            () = self.stop.cancelled() => return Err(stopped()),
        };
        match ready {
            Ok(true) => Ok(State::Up(Box::new(master), socket)),
            Ok(false) => {
                let stderr = master.finish().await.map_err(Failure::from)?.stderr;
                match ssh_failure(&stderr) {
                    Some(failure) => Err(failure),
                    None => {
                        tracing::warn!(host = %peer, ssh = %stderr, "cannot share one SSH connection; each transfer makes its own");
                        Ok(State::Alone)
                    }
                }
            }
            Err(_) => Err(Failure::new(
                ErrorKind::Unreachable,
                format!("the host did not answer over SSH within {} s", connect_limit.as_secs()),
            )
            .hint("check the network and that sshd runs there")),
        }
    }

    /// Options that make `ssh` notice a dead connection within the time that it may be silent.
    ///
    /// rsync's own `--timeout` does not: on the receiving side the generator decides, and as long as it
    /// can write its keep-alives into the socket's buffer, it takes the connection for alive.
    fn probes(&self) -> [String; 2] {
        let seconds = if self.idle.is_zero() { CONNECT_LIMIT } else { self.idle }.as_secs();
        let interval = (seconds / 4).clamp(1, 30);
        let count = seconds.div_ceil(interval).max(2);
        [format!("-oServerAliveInterval={interval}"), format!("-oServerAliveCountMax={count}")]
    }

    /// A short path for the control socket of `peer`, in a directory that only we may enter.
    fn socket(&self, peer: &Peer) -> Result<PathBuf, Failure> {
        let mut dir = self.dir.lock().unwrap_or_else(PoisonError::into_inner);
        if dir.is_none() {
            let parent = std::env::temp_dir();
            let parent = if parent.as_os_str().len() > SOCKET_DIR_BYTES { Path::new("/tmp") } else { &parent };
            let made = tempfile::Builder::new().prefix("borg-ssh-").tempdir_in(parent);
            *dir = Some(made.map_err(|source| {
                Failure::from(io_error(parent, "cannot make the directory for SSH control sockets", source))
            })?);
        }
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let number = hosts.len();
        hosts.entry(peer.clone()).or_default();
        let name = format!("{number}-{}", &super::Md5::of(peer.to_string().as_bytes()).to_string()[..8]);
        let socket = dir.as_ref().map(|dir| dir.path().join(name)).unwrap_or_default();
        // Left behind by a master that was killed.
        let _ = std::fs::remove_file(&socket);
        Ok(socket)
    }
}

fn control_path(socket: &Path) -> String {
    format!("-oControlPath={}", socket.display())
}

pub(super) fn stopped() -> Failure {
    Failure::new(ErrorKind::Stopped, "the run was asked to stop")
}

/// Whether the master said that it is up, before it ended.
async fn wait_ready(master: &mut Running) -> bool {
    let mut said = Vec::new();
    let mut buffer = [0; 256];
    while let Ok(count @ 1..) = master.stdout().read(&mut buffer).await {
        said.extend_from_slice(&buffer[..count]);
        if String::from_utf8_lossy(&said).contains(READY) {
            return true;
        }
    }
    false
}
