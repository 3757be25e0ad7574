//! Another program takes the place of this one, in the same process.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind};

/// Puts another program in the place of this one: the process and its number stay, and so do its standard streams,
/// its working directory and its environment. `kept` stays open; [`inherited`] finds it there under the name
/// `variable`. `arguments` begin with the name that the program is called by.
///
/// Comes back only when that fails, with everything as it was.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn replace_by(program: &Path, arguments: &[OsString], variable: &str, kept: BorrowedFd<'_>) -> Error {
    use std::os::unix::process::CommandExt as _;

    let mut command = std::process::Command::new(program);
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    command.env(variable, format!("{}:{}", std::process::id(), kept.as_raw_fd()));
    let failed = |source: std::io::Error| {
        Error::new(ErrorKind::Process, "cannot take the place of this program")
            .subject(program.display().to_string())
            .source(source)
    };
    if let Err(error) = rustix::io::fcntl_setfd(kept, rustix::io::FdFlags::empty()) {
        return failed(error.into());
    }
    // Until the new program listens, two of these would end it; what they ask for it does when it begins. The third is
    // what `exec` resets also when it fails, and then a closed pipe would end this program.
    let signals = [libc::SIGHUP, libc::SIGUSR1, libc::SIGPIPE].map(|signal| (signal, Disposition::ignore(signal)));
    let source = command.exec();
    for (signal, before) in signals {
        before.restore(signal);
    }
    let _ = rustix::io::fcntl_setfd(kept, rustix::io::FdFlags::CLOEXEC);
    failed(source)
}

/// What a signal does to this process.
struct Disposition(libc::sigaction);

impl Disposition {
    /// Lets a signal do nothing; says what it did before.
    #[expect(unsafe_code, reason = "only the kernel's interface tells a new program to ignore a signal")]
    fn ignore(signal: libc::c_int) -> Self {
        // SAFETY: all-zero bytes are a valid sigaction (no handler, empty mask), both structures live as long as the
        // call, and no code of ours runs in a handler.
        unsafe {
            let mut ignore: libc::sigaction = std::mem::zeroed();
            let mut before: libc::sigaction = std::mem::zeroed();
            ignore.sa_sigaction = libc::SIG_IGN;
            libc::sigaction(signal, &raw const ignore, &raw mut before);
            Self(before)
        }
    }

    #[expect(unsafe_code, reason = "puts back what `ignore` has taken away")]
    fn restore(self, signal: libc::c_int) {
        // SAFETY: the structure is the one that the kernel has filled.
        unsafe {
            libc::sigaction(signal, &raw const self.0, std::ptr::null_mut());
        }
    }
}

/// The file that [`replace_by`] has kept open for this program, if it was started so.
#[must_use]
#[expect(unsafe_code, reason = "a number that an environment variable names becomes an open file")]
pub fn inherited(variable: &str) -> Option<File> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let value = std::env::var(variable).ok()?;
    let (pid, number) = value.split_once(':')?;
    let number: i32 = number.parse().ok()?;
    // A child has the variable too, but neither this process's number nor the file.
    let is_ours = pid.parse() == Ok(std::process::id()) && number > 2;
    if !is_ours || TAKEN.swap(true, Ordering::Relaxed) || !Path::new(&format!("/proc/self/fd/{number}")).exists() {
        return None;
    }
    // SAFETY: `replace_by`, in this very process, has left this number open for nobody but the caller, who is the
    // first and only one.
    let file = unsafe { File::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::process::Cmd;

    /// What signals do to this process, and whether its children inherit `file`.
    fn state(file: &File) -> String {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let of_this_process = ["SigBlk", "SigIgn", "SigCgt"];
        let signals: Vec<&str> =
            status.lines().filter(|line| of_this_process.iter().any(|name| line.starts_with(name))).collect();
        format!("{signals:?} {:?}", rustix::io::fcntl_getfd(file).unwrap())
    }

    #[tokio::test]
    async fn a_program_that_cannot_take_over_leaves_everything_as_it_was() {
        // In a process of its own: what signals do is one for all tests.
        let name = "process::replace::tests::a_program_that_cannot_take_over_leaves_everything_as_it_was";
        if std::env::var_os("BORG_SLAVE_TEST_PART").is_none() {
            let own = Cmd::new(std::env::current_exe().unwrap()).args([name, "--exact", "--nocapture"]);
            let finished = own.env("BORG_SLAVE_TEST_PART", "1").run().await.unwrap();
            assert!(finished.status.success(), "{}{}", finished.stdout_text(), finished.stderr);
            assert!(finished.stdout_text().contains("1 passed"), "{}", finished.stdout_text());
            return;
        }
        let file = tempfile::tempfile().unwrap();
        let _listens = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
        let before = state(&file);
        let error = replace_by(Path::new("/no/such/program"), &["x".into()], "BORG_SLAVE_TEST", file.as_fd());
        assert_eq!(error.kind(), ErrorKind::Process, "{error}");
        assert_eq!(state(&file), before);
        // The number that stands there is that of another process, or of no open file.
        assert!(inherited("BORG_SLAVE_TEST").is_none());
    }
}
