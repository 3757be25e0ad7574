//! What the slave sees while a VCS hook runs it, and what a killed hg leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use borg_slave::error::ErrorKind;
use borg_slave::state_repo::hook_input::{HgHook, HookEnv, RefUpdate};
use borg_slave::state_repo::{PullHooks, StateRepo};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::{changes, content, open, options};
use crate::support::vcs::Master;

/// Longer than any step of these tests takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A hook that tells when it is called, keeps its environment and its input, and waits to be let go.
struct HeldHook {
    dir: PathBuf,
    called: pipe::Receiver,
    answer: pipe::Sender,
}

impl HeldHook {
    fn new(dir: PathBuf) -> Self {
        fs::create_dir(&dir).unwrap();
        let place = dir.display();
        let script = format!(
            "#!/bin/sh\n{{ [ \"$1\" = stdin ] && cat; }} > {place}/stdin\nenv -0 > {place}/env\n\
             echo > {place}/called\nread answer < {place}/answer\nexit \"$answer\"\n"
        );
        fs::write(dir.join("hook"), script).unwrap();
        fs::set_permissions(dir.join("hook"), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["called", "answer"] {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, dir.join(name), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }
        // Open at both ends, so that neither side waits for the other to open it.
        let called = pipe::OpenOptions::new().read_write(true).open_receiver(dir.join("called")).unwrap();
        let answer = pipe::OpenOptions::new().read_write(true).open_sender(dir.join("answer")).unwrap();
        Self { dir, called, answer }
    }

    fn script(&self) -> PathBuf {
        self.dir.join("hook")
    }

    /// Waits until the VCS calls the hook, and returns the environment that it got.
    async fn called(&mut self) -> HookEnv {
        let mut byte = [0_u8];
        tokio::time::timeout(PATIENCE, self.called.read_exact(&mut byte)).await.expect("the hook is called").unwrap();
        let env = fs::read_to_string(self.dir.join("env")).unwrap();
        HookEnv::new(env.split('\0').filter_map(|pair| pair.split_once('=')))
    }

    fn stdin(&self) -> Vec<u8> {
        fs::read(self.dir.join("stdin")).unwrap()
    }

    fn let_go(&self, status: u8) {
        self.answer.try_write(format!("{status}\n").as_bytes()).unwrap();
    }
}

/// A VCS command that runs beside the test; its whole group ends with the test.
struct Beside(Child);

impl Beside {
    fn start(mut command: Command) -> Self {
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn kill_leader(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    async fn ended(mut self) -> ExitStatus {
        let task = tokio::task::spawn_blocking(move || self.0.wait().unwrap());
        tokio::time::timeout(PATIENCE, task).await.expect("the command ends").unwrap()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

fn install(hook: &HeldHook, clone: &Path) {
    let mut hgrc = fs::read_to_string(clone.join(".hg/hgrc")).unwrap_or_default();
    hgrc.push_str(&format!("\n[hooks]\npretxnchangegroup.held = {}\n", hook.script().display()));
    fs::write(clone.join(".hg/hgrc"), hgrc).unwrap();
}

async fn open_in_hook(root: &Path, env: HookEnv) -> StateRepo {
    let mut options = options(root);
    options.hook_env = Some(env);
    StateRepo::open(options).await.unwrap()
}

#[tokio::test]
async fn pretxnchangegroup_sees_the_pending_changesets_and_nobody_else_does() {
    let master = Master::hg();
    let old = master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    let mut hook = HeldHook::new(master.beside("hook"));
    install(&hook, &clone);
    let first = master.write("a", "2").commit("second");
    let last = master.write("b", "3").commit("third");

    let pull = Beside::start(master.command(&clone, ["hg", "pull", "-q"]));
    let env = hook.called().await;
    let input = HgHook::parse(&env).unwrap();
    assert_eq!((&input.first, input.last.as_ref()), (&first, Some(&last)));
    assert!(input.pending);
    assert_eq!(input.source, "pull");

    let mut inside = open_in_hook(&clone, env).await;
    assert_eq!(inside.tip().await.unwrap(), last);
    assert_eq!(inside.first_parent(&input.first).await.unwrap(), old);
    assert_eq!(inside.resolve(first.short()).await.unwrap(), Some(first));
    assert_eq!(changes(&mut inside, &old, &last).await, ["M a", "A b"]);
    assert_eq!(content(&mut inside, &last, "b").await.unwrap(), b"3");
    assert_eq!(inside.pull(PullHooks::Skip).await.unwrap_err().kind(), ErrorKind::Bug);

    let mut outside = open(&clone).await;
    assert_eq!(outside.tip().await.unwrap(), old);
    assert_eq!(outside.resolve(last.as_str()).await.unwrap(), None);

    hook.let_go(1);
    assert!(!pull.ended().await.success(), "the hook's refusal fails the pull");
    assert_eq!(outside.tip().await.unwrap(), old);
}

#[tokio::test]
async fn a_share_sees_the_pending_changesets_too() {
    let master = Master::hg();
    let old = master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    let sharing = ["hg", "--config=extensions.share=", "share", "-q"];
    master.run_in(&master.beside("."), sharing.iter().chain(&["clone", "share"]));
    master.run_in(&master.beside("."), sharing.iter().chain(&["--relative", "clone", "other"]));
    let (share, other) = (master.beside("share"), master.beside("other"));
    let mut hook = HeldHook::new(master.beside("hook"));
    install(&hook, &share);
    let new = master.write("a", "2").commit("second");

    let from = master.path();
    let words = ["hg".as_ref(), "pull".as_ref(), "-q".as_ref(), from.as_os_str()];
    let pull = Beside::start(master.command(&share, words));
    let mut inside = open_in_hook(&share, hook.called().await).await;
    assert_eq!(inside.tip().await.unwrap(), new);
    assert_eq!(changes(&mut inside, &old, &new).await, ["M a"]);
    for root in [&clone, &share, &other] {
        assert!(open(root).await.is_being_written(), "{}", root.display());
    }
    let mut impatient = options(&other);
    impatient.lock_wait = Duration::from_secs(1);
    let error = StateRepo::open(impatient).await.unwrap().pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.message(), format!("process {} holds the clone's lock", pull.0.id()));
    hook.let_go(0);
    assert!(pull.ended().await.success());
    assert!(!open(&other).await.is_being_written());
    assert_eq!(open(&clone).await.tip().await.unwrap(), new);
}

#[tokio::test]
async fn pre_receive_sees_the_quarantined_commits_and_nobody_else_does() {
    let master = Master::git();
    let old = master.write("a", "1").commit("first");
    let slave = master.clone_bare_to("slave.git");
    let mut hook = HeldHook::new(master.beside("hook"));
    let script = format!("#!/bin/sh\nexec {} stdin\n", hook.script().display());
    fs::write(slave.join("hooks/pre-receive"), script).unwrap();
    fs::set_permissions(slave.join("hooks/pre-receive"), fs::Permissions::from_mode(0o755)).unwrap();
    let last = master.write("a", "2").write("b", "3").commit("second");

    let words = ["git".as_ref(), "push".as_ref(), "-q".as_ref(), slave.as_os_str(), "main".as_ref()];
    let push = Beside::start(master.command(&master.path(), words));
    let env = hook.called().await;
    assert!(env.get("GIT_QUARANTINE_PATH").is_some(), "git quarantines");
    let updates = RefUpdate::parse_all(&hook.stdin()).unwrap();
    let update = RefUpdate::of_branch(&updates, "main").unwrap().unwrap();
    assert_eq!((&update.old, &update.new), (&old, &last));

    let mut inside = open_in_hook(&slave, env).await;
    assert_eq!(changes(&mut inside, &update.old, &update.new).await, ["M a", "A b"]);
    assert_eq!(content(&mut inside, &update.new, "b").await.unwrap(), b"3");
    assert_eq!(inside.first_parent(&update.new).await.unwrap(), old);
    assert_eq!(inside.tip().await.unwrap(), old, "the branch moves after the hook");
    assert_eq!(inside.pull(PullHooks::Skip).await.unwrap_err().kind(), ErrorKind::Bug);

    let mut outside = open(&slave).await;
    assert_eq!(outside.resolve(last.as_str()).await.unwrap(), None);

    hook.let_go(0);
    assert!(push.ended().await.success());
    assert_eq!(outside.tip().await.unwrap(), last);
    assert_eq!(content(&mut outside, &last, "b").await.unwrap(), b"3");
}

#[tokio::test]
async fn a_pull_killed_in_the_middle_is_rolled_back_and_repeated() {
    let master = Master::hg();
    let old = master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    let mut hook = HeldHook::new(master.beside("hook"));
    install(&hook, &clone);
    let new = master.write("a", "2").commit("second");
    let mut killed = Beside::start(master.command(&clone, ["hg", "pull", "-q"]));
    hook.called().await;
    killed.kill_leader();
    // The pull that follows shall not be held again.
    hook.let_go(1);
    hook.let_go(0);

    let mut repo = open(&clone).await;
    let outcome = repo.pull(PullHooks::Run).await.unwrap();
    assert!(outcome.recovered);
    assert_eq!((outcome.before, outcome.after), (old, new.clone()));
    assert_eq!(content(&mut repo, &new, "a").await.unwrap(), b"2");
    assert!(!repo.recover().await.unwrap(), "nothing is left to recover");
}

#[tokio::test]
async fn a_lock_that_a_living_pull_holds_is_waited_for_and_then_named() {
    let master = Master::hg();
    master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    let mut hook = HeldHook::new(master.beside("hook"));
    install(&hook, &clone);
    master.write("a", "2").commit("second");
    let pull = Beside::start(master.command(&clone, ["hg", "pull", "-q"]));
    hook.called().await;

    let mut impatient = options(&clone);
    impatient.lock_wait = Duration::from_secs(1);
    let mut repo = StateRepo::open(impatient).await.unwrap();
    let error = repo.pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.paragraph());
    assert_eq!(error.message(), format!("process {} holds the clone's lock", pull.0.id()));
    hook.let_go(0);
    assert!(pull.ended().await.success());
}
