//! A private `sshd` on a free loopback port, and a proxy that breaks connections to it.
//!
//! The server has its own host keys and one user key; it lets the user in who runs the tests. It ends
//! when the [`Sshd`] is dropped.
#![allow(clippy::unwrap_used, reason = "what cannot be set up ends the test")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use borg_slave::process::Cmd;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How long a service may take to do what a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the server differs from an ordinary one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Knobs {
    /// Commands find `sh`, `cat`, `tail` and `md5sum` on their `PATH`, and no `rsync`.
    pub(crate) without_rsync: bool,
    /// No key is let in.
    pub(crate) refuse_keys: bool,
}

/// A running server.
pub(crate) struct Sshd {
    dir: TempDir,
    port: u16,
    log: Arc<Log>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grew: Notify,
}

impl Sshd {
    /// Starts an ordinary server.
    pub(crate) async fn start() -> Self {
        Self::start_with(Knobs::default()).await
    }

    /// Starts a server that differs by `knobs`, and waits until it listens.
    pub(crate) async fn start_with(knobs: Knobs) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["host_key", "user_key", "other_key"] {
            let keygen = Cmd::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(name));
            keygen.run().await.unwrap().success().unwrap();
        }
        let rsa = Cmd::new("ssh-keygen").args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"]).arg(path("host_rsa"));
        rsa.run().await.unwrap().success().unwrap();
        let allowed = if knobs.refuse_keys { "other_key.pub" } else { "user_key.pub" };
        std::fs::copy(path(allowed), path("authorized_keys")).unwrap();
        // The one thing that sshd wants outside of its own directory when root runs it.
        let _ = std::fs::create_dir_all("/run/sshd");
        let search_path = if knobs.without_rsync {
            let bin = path("bin");
            std::fs::create_dir(&bin).unwrap();
            for name in ["sh", "cat", "tail", "md5sum"] {
                std::os::unix::fs::symlink(Path::new("/usr/bin").join(name), bin.join(name)).unwrap();
            }
            format!(" PATH={}", bin.display())
        } else {
            String::new()
        };
        // What the shell's start-up files of whoever runs the tests do and print is none of their business.
        let home = path("home");
        std::fs::create_dir(&home).unwrap();
        // Another process may take the port between our looking and sshd's binding: it is tried again.
        for _ in 0..5 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let at = dir.path().display();
            let config = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host_key\nHostKey {at}/host_rsa\n\
                 AuthorizedKeysFile {at}/authorized_keys\nPidFile none\nStrictModes no\nUsePAM no\n\
                 PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                 LogLevel VERBOSE\nMaxStartups 100\nSubsystem sftp internal-sftp\n\
                 SetEnv HOME={home}{search_path}\n",
                home = home.display()
            );
            std::fs::write(path("sshd_config"), config).unwrap();
            let log = Arc::new(Log::default());
            // sshd insists on being started by its absolute path.
            let script = "exec /usr/sbin/sshd -D -e -f \"$0\" 2>&1";
            let mut running = Cmd::new("sh").args(["-c", script]).arg(path("sshd_config")).start().unwrap();
            let reader_log = Arc::clone(&log);
            let reader = tokio::spawn(async move {
                let mut lines = BufReader::new(running.stdout()).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    reader_log.lines.lock().unwrap().push(line);
                    reader_log.grew.notify_waiters();
                }
                reader_log.lines.lock().unwrap().push("(sshd has ended)".to_owned());
                reader_log.grew.notify_waiters();
            });
            log.wait_for(|line| line.contains("Server listening") || line.contains("ended")).await;
            if log.count("(sshd has ended)") == 0 {
                let sshd = Self { dir, port, log, reader };
                sshd.know_host(port, "host_key.pub");
                return sshd;
            }
        }
        panic!("sshd does not start");
    }

    /// Who is let in: the user who runs the tests.
    pub(crate) fn user() -> String {
        let root = rustix::process::getuid().is_root();
        if root { "root".to_owned() } else { std::env::var("USER").unwrap() }
    }

    /// `user@127.0.0.1:path`, as a job file has it.
    pub(crate) fn location(&self, path: impl AsRef<Path>) -> String {
        format!("{}@127.0.0.1:{}", Self::user(), path.as_ref().display())
    }

    /// The SSH command that gets in, knowing the host's key and asking for it.
    pub(crate) fn ssh_command(&self) -> Vec<String> {
        self.ssh_command_to(self.port)
    }

    /// The SSH command that gets in through `proxy`.
    pub(crate) fn ssh_command_via(&self, proxy: &Proxy) -> Vec<String> {
        self.know_host(proxy.port, "host_key.pub");
        self.ssh_command_to(proxy.port)
    }

    /// Makes the known hosts file name another key for this server than the one it has.
    pub(crate) fn change_known_key(&self) {
        std::fs::remove_file(self.known_hosts()).unwrap();
        self.know_host(self.port, "other_key.pub");
    }

    /// How often somebody has logged in.
    pub(crate) fn connections(&self) -> usize {
        self.log.count("Accepted publickey")
    }

    /// The server's port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn ssh_command_to(&self, port: u16) -> Vec<String> {
        let known_hosts = format!("UserKnownHostsFile={}", self.known_hosts().display());
        let key = self.dir.path().join("user_key").display().to_string();
        let words = ["ssh", "-F", "none", "-p", &port.to_string(), "-i", &key, "-o", &known_hosts];
        let more = ["-o", "StrictHostKeyChecking=yes", "-oIdentitiesOnly=yes", "-oConnectTimeout=10"];
        words.iter().chain(&more).map(|word| (*word).to_owned()).collect()
    }

    fn known_hosts(&self) -> PathBuf {
        self.dir.path().join("known_hosts")
    }

    fn know_host(&self, port: u16, key: &str) {
        use std::io::Write as _;
        let key = std::fs::read_to_string(self.dir.path().join(key)).unwrap();
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.known_hosts()).unwrap();
        writeln!(file, "[127.0.0.1]:{port} {}", key.trim()).unwrap();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // The task owns the server, which is ended with it.
        self.reader.abort();
    }
}

impl Log {
    fn count(&self, text: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    async fn wait_for(&self, fits: impl Fn(&str) -> bool) {
        let wait = async {
            loop {
                let grew = self.grew.notified();
                tokio::pin!(grew);
                grew.as_mut().enable();
                if self.lines.lock().unwrap().iter().any(|line| fits(line)) {
                    return;
                }
                grew.await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, wait).await;
        assert!(in_time.is_ok(), "sshd said only: {:?}", self.lines.lock().unwrap());
    }
}

/// What happens to one connection through a [`Proxy`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// After so many bytes from the server the connection ends.
    Cut(u64),
    /// After so many bytes from the server nothing comes any more, and the connection stays.
    Stall(u64),
}

/// A TCP proxy that does as it is told to the connections that go through it.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<ProxyShared>,
    acceptor: JoinHandle<()>,
}

#[derive(Default)]
struct ProxyShared {
    fates: Mutex<VecDeque<Fate>>,
    bytes: AtomicU64,
    fulfilled: Notify,
}

impl Proxy {
    /// Starts a proxy to `port`; its first connections get `fates`, in order, and later ones live.
    pub(crate) async fn start(port: u16, fates: impl IntoIterator<Item = Fate>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let shared = Arc::new(ProxyShared { fates: Mutex::new(fates.into_iter().collect()), ..ProxyShared::default() });
        let acceptor_shared = Arc::clone(&shared);
        let acceptor = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let fate = acceptor_shared.fates.lock().unwrap().pop_front();
                connections.spawn(carry(client, port, fate, Arc::clone(&acceptor_shared)));
            }
        });
        Self { port: own_port, shared, acceptor }
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Bytes that came from the server so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// Waits until a connection has met its fate.
    pub(crate) async fn fulfilled(&self) {
        tokio::time::timeout(PATIENCE, self.shared.fulfilled.notified()).await.expect("a connection meets its fate");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn carry(client: TcpStream, port: u16, fate: Option<Fate>, shared: Arc<ProxyShared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    let down = async {
        let mut left = match fate {
            Some(Fate::Cut(bytes) | Fate::Stall(bytes)) => bytes,
            None => u64::MAX,
        };
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            let count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= count as u64;
            shared.bytes.fetch_add(count as u64, Ordering::SeqCst);
            if to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            if left == 0 {
                shared.fulfilled.notify_one();
                if matches!(fate, Some(Fate::Cut(_))) {
                    // What was sent before the cut still arrives: a reset would discard it.
                    let _ = to_client.shutdown().await;
                }
                // The client hangs up, or waits as long as it likes.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = up => {}
        () = down => {}
    }
}
