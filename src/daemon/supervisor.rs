//! Tells systemd how the daemon is: the protocol of `sd_notify(3)`, datagrams to `NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// The service manager, if there is one.
#[derive(Debug, Clone)]
pub(super) struct Supervisor(Option<Arc<(UnixDatagram, SocketAddr)>>);

impl Supervisor {
    /// The one that the environment names.
    pub(super) fn of_this_process() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET");
        Self(name.and_then(|name| connect(&name)).map(Arc::new))
    }

    /// The daemon works.
    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    /// The daemon reads its settings again; [`Supervisor::ready`] ends it.
    pub(super) fn reloading(&self) {
        self.send("RELOADING=1");
    }

    /// The daemon is about to end.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=ending");
    }

    /// One line for `systemctl status`.
    pub(super) fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// Tells from now on that the process lives, twice as often as the service manager asks for.
    pub(super) fn keep_watchdog_content(&self) {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let Some(limit) = number("WATCHDOG_USEC").filter(|limit| *limit > 0 && is_ours && self.0.is_some()) else {
            return;
        };
        let supervisor = self.clone();
        // A pass may take hours; what is told is that the runtime still serves its timers.
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_micros(limit / 2).max(Duration::from_millis(1)));
            loop {
                ticks.tick().await;
                supervisor.send("WATCHDOG=1");
            }
        });
    }

    fn send(&self, text: &str) {
        if let Some(connection) = &self.0 {
            let (socket, address) = connection.as_ref();
            // A service manager that does not listen is no reason to stop.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

fn connect(name: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    // A full queue must not hold up the daemon.
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let abstract_name = format!("borg-slave-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (listening, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{abstract_name}")),
        ] {
            let supervisor = Supervisor(connect(OsStr::new(&name)).map(Arc::new));
            supervisor.status("one\nline");
            let mut buffer = [0; 100];
            let count = listening.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"STATUS=one line");
        }
        assert!(connect(OsStr::new("tcp:1")).is_none());
    }
}
