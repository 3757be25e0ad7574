//! A session with a host by the SSH library, and single commands run there.
//!
//! The library honours the SSH command of the settings as far as [`SshCommand`] understands it: keys,
//! agent, port, time limits and the policy for host keys. The `ssh` program does the rest.

use std::io::Read as _;
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ssh2::{CheckResult, HostKeyType, KnownHostFileKind, MethodType, Session};
use tokio_util::sync::CancellationToken;

use super::checksum::Md5;
use super::complaint::{Failure, ssh_failure};
use super::connection::stopped;
use super::location::Peer;
use super::ssh_command::{Family, HostKeyPolicy, SshCommand};
use crate::error::{ErrorKind, Result};
use crate::process::Cmd;

/// How long one attempt to connect may take, whatever the SSH command allows.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Longest answer of a command that is kept, in bytes.
const ANSWER_BYTES: u64 = 64 * 1024;

/// Key types in the order in which OpenSSH prefers them, with their names in `known_hosts` and on the wire.
const KEY_TYPES: [(HostKeyType, &str, &str); 6] = [
    (HostKeyType::Ed25519, "ssh-ed25519", "ssh-ed25519"),
    (HostKeyType::Ecdsa256, "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
    (HostKeyType::Ecdsa384, "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"),
    (HostKeyType::Ecdsa521, "ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521"),
    (HostKeyType::Rsa, "ssh-rsa", "rsa-sha2-512,rsa-sha2-256,ssh-rsa"),
    (HostKeyType::Dss, "ssh-dss", "ssh-dss"),
];

/// Asks `peer` for the checksum of its file `path`.
pub(super) async fn md5sum(
    ssh: &Arc<SshCommand>,
    peer: &Peer,
    path: &str,
    link_options: &[String],
    idle: Duration,
    stop: &CancellationToken,
) -> Result<Md5, Failure> {
    let script = format!("md5sum -- {}", shell_words::quote(path));
    let answer = if ssh.needs_program.is_none() {
        let line = script.clone();
        let answer = with_session(ssh, peer, idle, stop, move |session, _| exec(session, &line, idle)).await;
        match answer {
            // What the library cannot do (an algorithm, a kind of key), the program may.
            Err(failure) if failure.kind == ErrorKind::Unsupported => {
                tracing::debug!(host = %peer, reason = %failure.message, "the ssh program is used instead of the library");
                by_program(ssh, peer, &script, link_options, idle, stop).await?
            }
            other => other?,
        }
    } else {
        by_program(ssh, peer, &script, link_options, idle, stop).await?
    };
    let said = String::from_utf8_lossy(&answer.stdout);
    if answer.status == 0 {
        // A backslash in front says that the name is printed escaped.
        let sum = said.trim_start_matches('\\').get(..32).unwrap_or_default();
        return Md5::parse(sum).map_err(|_| {
            Failure::new(ErrorKind::Process, "md5sum there prints no checksum").detail(said.trim().to_owned())
        });
    }
    let stderr = answer.stderr.trim();
    let (kind, message) = if stderr.contains("No such file") {
        (ErrorKind::Missing, "the file is not there any more".to_owned())
    } else if stderr.contains("Permission denied") {
        (ErrorKind::Denied, "the other side's user may not read the file".to_owned())
    } else {
        (ErrorKind::Process, format!("md5sum there fails (exit status {})", answer.status))
    };
    Err(Failure::new(kind, message).detail(stderr))
}

/// How a command ended there.
pub(super) struct Answer {
    pub(super) status: i32,
    stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// Runs `script` on `peer` by the `ssh` program.
pub(super) async fn by_program(
    ssh: &SshCommand,
    peer: &Peer,
    script: &str,
    link_options: &[String],
    idle: Duration,
    stop: &CancellationToken,
) -> Result<Answer, Failure> {
    let mut cmd = Cmd::new(ssh.program()).args(ssh.remote_arguments(link_options, peer, script)).stop(stop);
    if !idle.is_zero() {
        cmd = cmd.time_limit(idle);
    }
    let finished = cmd.run().await.map_err(Failure::from)?;
    let status = finished.status.code().unwrap_or(255);
    if status == 255 {
        return Err(ssh_failure(&finished.stderr).unwrap_or_else(|| {
            Failure::new(ErrorKind::Unreachable, "the SSH connection failed").detail(finished.stderr.clone())
        }));
    }
    Ok(Answer { status, stdout: finished.stdout, stderr: finished.stderr })
}

fn exec(session: &Session, script: &str, idle: Duration) -> Result<Answer, Failure> {
    let broken = |source: ssh2::Error| library_failure("the command cannot be run there", &source);
    let mut channel = session.channel_session().map_err(broken)?;
    channel.exec(script).map_err(broken)?;
    // A checksum of a large dump is silent for long: the server is probed meanwhile.
    session.set_timeout(1_000);
    let started = std::time::Instant::now();
    let mut stdout = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match channel.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if (stdout.len() as u64) < ANSWER_BYTES => stdout.extend_from_slice(&buffer[..count]),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                session.keepalive_send().map_err(broken)?;
                if !idle.is_zero() && started.elapsed() > idle {
                    return Err(Failure::new(ErrorKind::Unreachable, "the command there did not end in time"));
                }
            }
            Err(error) => {
                return Err(Failure::new(ErrorKind::Unreachable, "the SSH connection broke").detail(error.to_string()));
            }
        }
    }
    session.set_timeout(milliseconds(idle));
    let mut stderr = Vec::new();
    let _ = channel.stderr().take(ANSWER_BYTES).read_to_end(&mut stderr);
    channel.wait_close().map_err(broken)?;
    let status = channel.exit_status().map_err(broken)?;
    Ok(Answer { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
}

/// Runs `work` with a session, on a thread of its own; stopping the run cuts the connection.
pub(super) async fn with_session<T: Send + 'static>(
    ssh: &Arc<SshCommand>,
    peer: &Peer,
    idle: Duration,
    stop: &CancellationToken,
    work: impl FnOnce(&Session, &CancellationToken) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let stream_slot: Arc<Mutex<Option<TcpStream>>> = Arc::default();
    let (ssh, peer, slot, token) = (Arc::clone(ssh), peer.clone(), Arc::clone(&stream_slot), stop.clone());
    let mut thread = tokio::task::spawn_blocking(move || {
        let session = connect(&ssh, &peer, idle, &slot, &token)?;
        let result = work(&session, &token);
        let _ = session.disconnect(None, "done", None);
        result
    });
    let joined = tokio::select! {
        joined = &mut thread => joined,
        () = stop.cancelled() => {
            if let Some(stream) = stream_slot.lock().unwrap_or_else(PoisonError::into_inner).take() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            return Err(stopped());
        }
    };
    joined.unwrap_or_else(|panic| {
        Err(Failure::new(ErrorKind::Bug, "the SSH session ended unexpectedly").detail(panic.to_string()))
    })
}

fn connect(
    ssh: &SshCommand,
    peer: &Peer,
    idle: Duration,
    slot: &Mutex<Option<TcpStream>>,
    stop: &CancellationToken,
) -> Result<Session, Failure> {
    let port = ssh.port.unwrap_or(22);
    let stream = dial(ssh, peer, port, stop)?;
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = stream.try_clone().ok();
    let failed = |source: ssh2::Error| library_failure("the SSH session cannot be started", &source);
    let mut session = Session::new().map_err(failed)?;
    session.set_timeout(milliseconds(idle));
    if ssh.host_keys != HostKeyPolicy::Any {
        // Ask for a key of a type that is known, as OpenSSH does; another type would look like a change.
        let known = known_types(ssh, &session, peer, port)?;
        if !known.is_empty() {
            let _ = session.method_pref(MethodType::HostKey, &known.join(","));
        }
    }
    session.set_tcp_stream(stream);
    session.handshake().map_err(failed)?;
    check_host_key(ssh, &session, peer, port)?;
    log_in(ssh, &session, peer)?;
    let interval = ssh.server_alive_interval.unwrap_or(Duration::from_secs(15)).as_secs();
    session.set_keepalive(true, u32::try_from(interval).unwrap_or(u32::MAX));
    Ok(session)
}

fn dial(ssh: &SshCommand, peer: &Peer, port: u16, stop: &CancellationToken) -> Result<TcpStream, Failure> {
    let unreachable = |detail: String| {
        Failure::new(ErrorKind::Unreachable, format!("port {port} of the host cannot be reached"))
            .hint("check its name, the network and that sshd runs there")
            .detail(detail)
    };
    let addresses: Vec<SocketAddr> = (peer.host.as_str(), port)
        .to_socket_addrs()
        .map_err(|error| unreachable(error.to_string()))?
        .filter(|address| match ssh.address_family {
            Some(Family::V4) => address.is_ipv4(),
            Some(Family::V6) => address.is_ipv6(),
            None => true,
        })
        .collect();
    let limit = ssh.connect_timeout.unwrap_or(CONNECT_LIMIT).clamp(Duration::from_secs(1), CONNECT_LIMIT);
    let mut last = "the name has no address".to_owned();
    for _ in 0..ssh.connection_attempts.min(5) {
        for address in &addresses {
            if stop.is_cancelled() {
                return Err(stopped());
            }
            match TcpStream::connect_timeout(address, limit) {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = error.to_string(),
            }
        }
    }
    Err(unreachable(last))
}

/// The lines of the known hosts files about keys of one type.
fn known_lines(ssh: &SshCommand, key_type: &str) -> Result<Vec<String>, Failure> {
    let mut files = ssh.known_hosts_files.clone();
    if files.is_empty() {
        files.extend(std::env::home_dir().map(|home| home.join(".ssh/known_hosts")));
    }
    files.push(PathBuf::from("/etc/ssh/ssh_known_hosts"));
    let mut lines = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with('@') {
                // The library would take a revoked key for a known one.
                return Err(Failure::new(
                    ErrorKind::Unsupported,
                    format!("{} holds markers (@cert-authority, @revoked)", file.display()),
                ));
            }
            if line.split_ascii_whitespace().nth(1) == Some(key_type) {
                lines.push(line.to_owned());
            }
        }
    }
    Ok(lines)
}

fn look_up(
    ssh: &SshCommand,
    session: &Session,
    peer: &Peer,
    port: u16,
    key_type: &str,
    key: &[u8],
) -> Result<CheckResult, Failure> {
    let failed = |source: ssh2::Error| library_failure("the known hosts cannot be read", &source);
    let mut known = session.known_hosts().map_err(failed)?;
    for line in known_lines(ssh, key_type)? {
        // A line that the library does not understand is one about no host.
        let _ = known.read_str(&line, KnownHostFileKind::OpenSSH);
    }
    Ok(known.check_port(&peer.host, port, key))
}

/// The wire names of the key types under which the host is known.
fn known_types(ssh: &SshCommand, session: &Session, peer: &Peer, port: u16) -> Result<Vec<&'static str>, Failure> {
    let mut known = Vec::new();
    for (_, name, wire) in KEY_TYPES {
        // No key is empty: a mismatch says that there is one of this type.
        if matches!(look_up(ssh, session, peer, port, name, b"?")?, CheckResult::Mismatch) {
            known.push(wire);
        }
    }
    Ok(known)
}

fn check_host_key(ssh: &SshCommand, session: &Session, peer: &Peer, port: u16) -> Result<(), Failure> {
    if ssh.host_keys == HostKeyPolicy::Any {
        return Ok(());
    }
    let (key, key_type) = session
        .host_key()
        .ok_or_else(|| Failure::new(ErrorKind::Unsupported, "the host shows no key that the library knows"))?;
    let same = |known: &HostKeyType| std::mem::discriminant(known) == std::mem::discriminant(&key_type);
    let name = KEY_TYPES.iter().find(|(known, ..)| same(known)).map(|(_, name, _)| *name).ok_or_else(|| {
        Failure::new(ErrorKind::Unsupported, "the host shows a key of a type that the library does not know")
    })?;
    match look_up(ssh, session, peer, port, name, key)? {
        CheckResult::Match => Ok(()),
        CheckResult::NotFound if ssh.host_keys == HostKeyPolicy::AcceptNew => {
            if known_types(ssh, session, peer, port)?.is_empty() { Ok(()) } else { Err(host_key_changed()) }
        }
        CheckResult::NotFound => Err(Failure::new(ErrorKind::Denied, "the host's key is not known here")
            .hint("connect once by hand as the user that runs borg-slave and compare the fingerprint")),
        CheckResult::Mismatch => Err(host_key_changed()),
        CheckResult::Failure => Err(Failure::new(ErrorKind::Unsupported, "the library cannot compare the host's key")),
    }
}

fn host_key_changed() -> Failure {
    Failure::new(
        ErrorKind::Denied,
        "the host shows another key than the known one: it was replaced, or somebody poses as it",
    )
    .hint("ask its administrator for the new fingerprint; if it is right, remove the old key with `ssh-keygen -R HOST`")
}

fn log_in(ssh: &SshCommand, session: &Session, peer: &Peer) -> Result<(), Failure> {
    let user = peer.user.clone().or_else(|| ssh.user.clone()).or_else(|| std::env::var("USER").ok());
    let user = user.ok_or_else(|| Failure::new(ErrorKind::Unsupported, "it is not known whom to log in as"))?;
    let by_agent = || {
        let Ok(mut agent) = session.agent() else { return };
        if agent.connect().is_err() || agent.list_identities().is_err() {
            return;
        }
        for identity in agent.identities().unwrap_or_default() {
            if agent.userauth(&user, &identity).is_ok() {
                return;
            }
        }
    };
    let by_files = |files: &[PathBuf]| {
        for file in files.iter().filter(|file| file.exists()) {
            if session.userauth_pubkey_file(&user, None, file, None).is_ok() {
                return;
            }
        }
    };
    if ssh.identity_files.is_empty() {
        by_agent();
        if !session.authenticated() {
            by_files(&default_identities());
        }
    } else {
        by_files(&ssh.identity_files);
        if !session.authenticated() && !ssh.identities_only {
            by_agent();
        }
    }
    if session.authenticated() {
        return Ok(());
    }
    // The library does not know every kind of key; whether the key is refused, the program tells.
    Err(Failure::new(ErrorKind::Unsupported, "the library could not log in with the keys it was given"))
}

fn default_identities() -> Vec<PathBuf> {
    let home = std::env::home_dir().unwrap_or_default();
    ["id_ed25519", "id_ecdsa", "id_rsa"].iter().map(|name| home.join(Path::new(".ssh")).join(name)).collect()
}

/// Sorts a complaint of the library: a broken connection, or something that it cannot do.
pub(super) fn library_failure(message: &str, source: &ssh2::Error) -> Failure {
    // libssh2's error numbers: socket send, disconnect, timeout, socket receive and none at all, bad socket.
    const NETWORK: [i32; 6] = [-7, -13, -9, -30, -43, -45];
    let network = matches!(source.code(), ssh2::ErrorCode::Session(code) if NETWORK.contains(&code));
    let kind = if network { ErrorKind::Unreachable } else { ErrorKind::Unsupported };
    Failure::new(kind, message).detail(source.to_string())
}

/// The library's form of a time limit; 0 is for ever there too.
fn milliseconds(limit: Duration) -> u32 {
    u32::try_from(limit.as_millis()).unwrap_or(u32::MAX)
}
