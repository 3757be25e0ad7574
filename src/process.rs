//! The one door through which child processes start.
//!
//! Every child gets a fixed locale, its own process group, both output pipes drained, and a time
//! limit. It is asked to end (`TERM`) and then ended (`KILL`) when the limit passes, the run is
//! stopped, or the future that waits for it is dropped; and the kernel ends it when this process
//! dies, so that an orphaned `pg_restore` never races the next run. The environment that a VCS hook
//! exports (`GIT_*`, `HG_*`) is removed; who must see the pending changesets is told of them by name.
//!
//! The same door leads out: [`replace_by`] puts another program in the place of this one.

mod fork;
mod replace;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio_util::sync::CancellationToken;

pub use self::replace::{inherited, replace_by};
use crate::error::{Error, ErrorKind, Result};

/// How much of a child's standard error is kept for the message, in bytes, unless
/// [`Cmd::stderr_tail`] says otherwise.
const STDERR_TAIL_BYTES: usize = 8 * 1024;

/// How much standard output [`Cmd::run`] collects before it gives up, in bytes.
const STDOUT_LIMIT_BYTES: usize = 256 * 1024 * 1024;

/// How long a child has between `TERM` and `KILL`.
const GRACE: Duration = Duration::from_secs(5);

/// A child process to be started.
#[derive(Debug, Clone)]
#[must_use]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    stdin: Vec<u8>,
    time_limit: Option<Duration>,
    stderr_tail: usize,
    stop: CancellationToken,
    pid: Arc<OnceLock<u32>>,
}

/// A child that has ended.
#[derive(Debug)]
pub struct Finished {
    program: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output, unless that was consumed line by line.
    pub stdout: Vec<u8>,
    /// The end of what it wrote to standard error: 8 KiB, or what [`Cmd::stderr_tail`] set.
    pub stderr: String,
}

impl Cmd {
    /// A child that runs `program`, found on `PATH`.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            stdin: Vec::new(),
            time_limit: None,
            stderr_tail: STDERR_TAIL_BYTES,
            stop: CancellationToken::new(),
            pid: Arc::default(),
        }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable; the place for secrets, which must not stand among the arguments.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Gives the child these bytes on standard input; without them it reads end of file.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Ends the child when it runs longer than `limit`.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Ends the child when `stop` is cancelled.
    pub fn stop(mut self, stop: &CancellationToken) -> Self {
        self.stop = stop.clone();
        self
    }

    /// Keeps the last `bytes` of standard error, for children that complain about each of many files.
    pub fn stderr_tail(mut self, bytes: usize) -> Self {
        self.stderr_tail = bytes;
        self
    }

    /// Where the child's process id is to be read once it runs.
    #[must_use]
    pub fn pid(&self) -> Arc<OnceLock<u32>> {
        Arc::clone(&self.pid)
    }

    /// Runs the child to its end and collects its standard output.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Process`] when it cannot be started or passes its time limit, and
    /// [`ErrorKind::Stopped`] when the run is stopped. An exit status other than 0 is no error here:
    /// see [`Finished::success`].
    pub async fn run(self) -> Result<Finished> {
        let mut stdout = Vec::new();
        let mut overflow = false;
        let mut finished = self
            .drive(|chunk| {
                if stdout.len() + chunk.len() > STDOUT_LIMIT_BYTES {
                    overflow = true;
                } else {
                    stdout.extend_from_slice(chunk);
                }
            })
            .await?;
        if overflow {
            return Err(
                Error::new(ErrorKind::Process, "the program printed more than 256 MiB").subject(finished.program)
            );
        }
        finished.stdout = stdout;
        Ok(finished)
    }

    /// Runs the child to its end and hands each line of its standard output to `line`, without the
    /// line's end. A carriage return ends a line as well: progress meters use it.
    ///
    /// # Errors
    ///
    /// As [`Cmd::run`].
    pub async fn run_lines(self, mut line: impl FnMut(&[u8])) -> Result<Finished> {
        let mut pending: Vec<u8> = Vec::new();
        let finished = self
            .drive(|chunk| {
                for &byte in chunk {
                    if byte == b'\n' || byte == b'\r' {
                        if !pending.is_empty() {
                            line(&pending);
                            pending.clear();
                        }
                    } else if pending.len() < STDERR_TAIL_BYTES {
                        pending.push(byte);
                    }
                }
            })
            .await?;
        if !pending.is_empty() {
            line(&pending);
        }
        Ok(finished)
    }

    /// Starts a child that is talked to over its pipes, such as `hg serve`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Process`] when it cannot be started.
    pub fn start(self) -> Result<Running> {
        let program = self.program.to_string_lossy().into_owned();
        let tail = self.stderr_tail;
        let mut child = self.spawn(Stdio::piped())?;
        let group = Group::of(&child);
        let stdin = child.stdin.take().ok_or_else(|| no_pipe(&program))?;
        let stdout = child.stdout.take().ok_or_else(|| no_pipe(&program))?;
        let stderr = child.stderr.take().ok_or_else(|| no_pipe(&program))?;
        let stderr = tokio::spawn(read_tail(stderr, tail));
        Ok(Running { program, child, group, stdin: Some(stdin), stdout, stderr })
    }

    async fn drive(self, mut on_stdout: impl FnMut(&[u8])) -> Result<Finished> {
        let program = self.program.to_string_lossy().into_owned();
        let stop = self.stop.clone();
        let limit = self.time_limit;
        let input = self.stdin.clone();
        let tail = self.stderr_tail;
        let pid = self.pid();
        if stop.is_cancelled() {
            return Err(stopped(&program));
        }
        let mut child = self.spawn(if input.is_empty() { Stdio::null() } else { Stdio::piped() })?;
        let mut group = Group::of(&child);
        if let Some(id) = child.id() {
            let _ = pid.set(id);
        }
        let stdin = child.stdin.take();
        let mut stdout = child.stdout.take().ok_or_else(|| no_pipe(&program))?;
        let stderr = child.stderr.take().ok_or_else(|| no_pipe(&program))?;

        let feed = async {
            if let Some(mut pipe) = stdin {
                // A child that ends without reading its input says why by its exit status.
                let _ = pipe.write_all(&input).await;
            }
        };
        let read = async {
            let mut buffer = vec![0_u8; 64 * 1024];
            loop {
                match stdout.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => on_stdout(&buffer[..count]),
                }
            }
        };
        let leader = group.0;
        let work = async {
            let mut kept = VecDeque::new();
            let status = {
                let pipes = async { tokio::join!(feed, read, keep_tail(stderr, tail, &mut kept)) };
                tokio::pin!(pipes);
                tokio::select! {
                    _ = &mut pipes => child.wait().await,
                    status = child.wait() => {
                        // A grandchild may hold the pipes: an ssh whose connection hangs outlives the
                        // rsync that gave up, and a process in the background lives on.
                        if tokio::time::timeout(GRACE, &mut pipes).await.is_err() {
                            if let Some(leader) = leader {
                                let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
                            }
                            let _ = tokio::time::timeout(GRACE, &mut pipes).await;
                        }
                        status
                    }
                }
            };
            (status, tail_text(&mut kept))
        };
        tokio::pin!(work);
        let deadline = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let reason = tokio::select! {
            (status, stderr) = &mut work => {
                group.ended();
                let status = status.map_err(|source| {
                    Error::new(ErrorKind::Process, "cannot learn how the program ended").subject(&program).source(source)
                })?;
                return Ok(Finished { program, status, stdout: Vec::new(), stderr });
            }
            () = stop.cancelled() => stopped(&program),
            () = deadline => Error::new(
                ErrorKind::Process,
                format!("the program was ended: it ran longer than {} s", limit.unwrap_or_default().as_secs()),
            )
            .subject(&program),
        };
        group.terminate();
        if tokio::time::timeout(GRACE, &mut work).await.is_err() {
            group.kill();
            let _ = tokio::time::timeout(GRACE, &mut work).await;
        }
        group.ended();
        Err(reason)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn spawn(self, stdin: Stdio) -> Result<Child> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command.env("LC_ALL", "C.UTF-8").env_remove("LANGUAGE");
        for name in vcs_variables(std::env::vars_os().map(|(name, _)| name)) {
            command.env_remove(name);
        }
        for (name, value) in &self.env {
            command.env(name, value);
        }
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        die_with_parent(&mut command);
        fork::spawn(command).map_err(|source| {
            let name = self.program.to_string_lossy();
            let missing = source.kind() == std::io::ErrorKind::NotFound;
            let error = Error::new(ErrorKind::Process, "cannot start the program").subject(name.clone()).source(source);
            if missing {
                error.hint(format!("install `{name}` or put it on PATH of the user that runs borg-slave"))
            } else {
                error
            }
        })
    }
}

/// Asks the kernel to send the child `TERM` when the thread that forks it ends, which is the one of [`fork`] and so
/// ends with the process.
#[expect(unsafe_code, reason = "the request must be made between fork and exec; prctl is async-signal-safe")]
fn die_with_parent(command: &mut tokio::process::Command) {
    let parent = std::process::id();
    // SAFETY: the closure calls only prctl, getppid and _exit, which are async-signal-safe, and
    // allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // The parent may have died before the request was made.
            if u32::try_from(libc::getppid()).ok() != Some(parent) {
                libc::_exit(1);
            }
            Ok(())
        });
    }
}

/// Which of `names` a VCS hook exports and a child must not inherit.
fn vcs_variables(names: impl Iterator<Item = OsString>) -> Vec<OsString> {
    // These configure how git reaches a server and belong to the operator, not to the hook.
    const OPERATORS: [&str; 3] = ["GIT_SSH", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL"];
    names
        .filter(|name| {
            let text = name.to_string_lossy();
            (text.starts_with("GIT_") && !OPERATORS.contains(&text.as_ref()))
                || text.starts_with("HG_")
                || text == "HGPLAIN"
        })
        .collect()
}

fn stopped(program: &str) -> Error {
    Error::new(ErrorKind::Stopped, "the run was asked to stop").subject(program)
}

fn no_pipe(program: &str) -> Error {
    Error::new(ErrorKind::Bug, "the child has no pipe").subject(program)
}

/// Reads `pipe` to its end and answers the last part of it.
async fn read_tail(pipe: impl AsyncRead + Unpin, limit: usize) -> String {
    let mut kept = VecDeque::new();
    keep_tail(pipe, limit, &mut kept).await;
    tail_text(&mut kept)
}

/// Reads `pipe` to its end and keeps the last part of it.
async fn keep_tail(mut pipe: impl AsyncRead + Unpin, limit: usize, kept: &mut VecDeque<u8>) {
    let mut buffer = vec![0_u8; 4096];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                kept.extend(&buffer[..count]);
                let surplus = kept.len().saturating_sub(limit);
                kept.drain(..surplus);
            }
        }
    }
}

fn tail_text(kept: &mut VecDeque<u8>) -> String {
    String::from_utf8_lossy(kept.make_contiguous()).trim_end().to_owned()
}

/// A process group that is killed when nobody waits for it any more.
#[derive(Debug)]
struct Group(Option<rustix::process::Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw))
    }

    fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    fn kill(&self) {
        self.signal(rustix::process::Signal::KILL);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) = self.0 {
            // The group may have ended by itself in the meantime.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }

    /// The leader has been waited for: its number may be given to another process.
    fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Finished {
    /// The child itself, when it exited with 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Process`] with the tail of standard error as its source.
    pub fn success(self) -> Result<Self> {
        if self.status.success() { Ok(self) } else { Err(self.failure()) }
    }

    /// The error that says how this child failed.
    #[must_use]
    pub fn failure(&self) -> Error {
        let error =
            Error::new(ErrorKind::Process, format!("the program failed ({})", self.status)).subject(&self.program);
        if self.stderr.is_empty() { error } else { error.source(self.stderr.clone()) }
    }

    /// Standard output as text.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A child that is running and talked to over its pipes.
#[derive(Debug)]
pub struct Running {
    program: String,
    child: Child,
    group: Group,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: tokio::task::JoinHandle<String>,
}

impl Running {
    /// The pipe into the child's standard input.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Bug`] when it was closed already.
    pub fn stdin(&mut self) -> Result<&mut ChildStdin> {
        let program = &self.program;
        self.stdin.as_mut().ok_or_else(|| no_pipe(program))
    }

    /// The pipe from the child's standard output.
    pub fn stdout(&mut self) -> &mut ChildStdout {
        &mut self.stdout
    }

    /// Closes the child's standard input and waits for it to end, `GRACE` long; then ends it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Process`] when its end cannot be learned.
    pub async fn finish(mut self) -> Result<Finished> {
        self.stdin = None;
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
            self.group.kill();
        }
        let status = self.child.wait().await.map_err(|source| {
            Error::new(ErrorKind::Process, "cannot learn how the program ended").subject(&self.program).source(source)
        })?;
        self.group.ended();
        let stderr = tokio::time::timeout(GRACE, &mut self.stderr).await;
        let stderr = stderr.ok().and_then(std::result::Result::ok).unwrap_or_default();
        Ok(Finished { program: self.program.clone(), status, stdout: Vec::new(), stderr })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_child_is_named_with_the_tail_of_its_complaint() {
        let finished = Cmd::new("sh").args(["-c", "echo out; echo 'no such table' >&2; exit 3"]).run().await.unwrap();
        assert_eq!(finished.stdout, b"out\n");
        let error = finished.success().unwrap_err();
        assert_eq!(error.one_line(), "sh: the program failed (exit status: 3): no such table");
    }

    #[tokio::test]
    async fn input_reaches_the_child_and_both_pipes_are_drained() {
        let megabyte = vec![b'x'; 1 << 20];
        let finished = Cmd::new("sh").args(["-c", "tee /dev/stderr"]).stdin(megabyte.clone()).run().await.unwrap();
        assert_eq!(finished.stdout.len(), megabyte.len());
        assert_eq!(finished.stderr.len(), STDERR_TAIL_BYTES);
    }

    #[tokio::test]
    async fn the_whole_group_ends_when_the_time_limit_passes() {
        let error = Cmd::new("sh")
            .args(["-c", "sleep 600 & echo $!; wait"])
            .time_limit(Duration::from_millis(200))
            .run()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Process);
    }

    #[tokio::test]
    async fn a_stopped_run_ends_its_children() {
        let stop = CancellationToken::new();
        let child = tokio::spawn(Cmd::new("sleep").arg("600").stop(&stop).run());
        stop.cancel();
        assert_eq!(child.await.unwrap().unwrap_err().kind(), ErrorKind::Stopped);
    }

    #[tokio::test]
    async fn a_grandchild_that_holds_the_pipes_is_not_waited_for() {
        let started = std::time::Instant::now();
        let finished = Cmd::new("sh").args(["-c", "echo gone >&2; sleep 600 & exit 4"]).run().await.unwrap();
        assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(4), "gone"));
        assert!(started.elapsed() < GRACE * 3);
    }

    #[tokio::test]
    async fn a_missing_program_is_named_with_the_remedy() {
        let error = Cmd::new("no-such-program-here").run().await.unwrap_err();
        assert_eq!(error.subject_text(), Some("no-such-program-here"));
        assert!(error.hint_text().unwrap().contains("PATH"));
    }

    #[tokio::test]
    async fn lines_end_at_newline_and_carriage_return() {
        let mut lines = Vec::new();
        Cmd::new("printf").arg("a\rb\nc").run_lines(|line| lines.push(line.to_vec())).await.unwrap();
        assert_eq!(lines, [b"a", b"b", b"c"]);
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let asked = std::thread::spawn(move || {
            let _inside = handle.enter();
            (std::fs::read_link("/proc/thread-self").unwrap(), Cmd::new("cat").start().unwrap())
        });
        let (thread, mut child) = asked.join().unwrap();
        // It is waited for before the kernel has told its children.
        while std::path::Path::new("/proc").join(&thread).exists() {
            std::thread::yield_now();
        }
        runtime.block_on(async {
            child.stdin().unwrap().write_all(b"still here").await.unwrap();
            let mut said = [0; 10];
            let read = child.stdout().read_exact(&mut said).await;
            assert_eq!((read.ok(), &said), (Some(10), b"still here"));
            assert!(child.finish().await.unwrap().status.success());
        });
    }

    #[tokio::test]
    async fn a_child_ends_with_the_process() {
        let name = "process::tests::a_child_ends_with_the_process";
        if std::env::var_os("BORG_SLAVE_TEST_PART").is_some() {
            let child = Cmd::new("sleep").arg("600").start().unwrap();
            println!("child {}", child.group.0.unwrap().as_raw_nonzero());
            std::process::abort();
        }
        let own = Cmd::new(std::env::current_exe().unwrap()).args([name, "--exact", "--nocapture"]);
        let said = own.env("BORG_SLAVE_TEST_PART", "1").run().await.unwrap().stdout_text();
        let pid = said.lines().find_map(|line| Some(line.split_once("child ")?.1.to_owned())).expect("a child");
        let program = format!("/proc/{}/exe", pid.trim());
        let gone = async {
            // What is dead but not waited for has a number and no program.
            while std::fs::read_link(&program).is_ok_and(|program| program.ends_with("sleep")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(GRACE, gone).await.expect("the child ends");
    }

    #[test]
    fn the_environment_of_hooks_is_not_inherited() {
        let names = ["GIT_DIR", "GIT_QUARANTINE_PATH", "HG_NODE", "HGPLAIN", "PATH", "GIT_SSH_COMMAND"];
        let removed = vcs_variables(names.iter().map(OsString::from));
        assert_eq!(removed, ["GIT_DIR", "GIT_QUARANTINE_PATH", "HG_NODE", "HGPLAIN"]);
    }
}
