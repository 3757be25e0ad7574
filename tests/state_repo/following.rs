//! Pulling: what is new, what goes wrong on the way, and which hooks run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use borg_slave::error::ErrorKind;
use borg_slave::state_repo::{PullHooks, Revision, StateRepo};

use super::{Vcs, changes, content, on_both, open, options};
use crate::support::vcs::Master;

on_both!(
    a_pull_brings_what_is_new,
    an_empty_master_is_nothing_new,
    the_first_commit_reaches_a_clone_of_nothing,
    hooks_of_ours_are_skipped_when_we_pull,
    a_branch_that_the_master_lacks_is_a_setting_to_correct,
    a_clone_without_master_says_how_to_name_it,
    a_master_that_does_not_answer_is_unreachable,
    an_address_without_repository_is_named,
    a_password_in_the_address_is_never_shown,
    the_ssh_command_keeps_its_words,
    a_hanging_master_is_given_up,
    only_the_followed_branch_comes,
);

async fn a_pull_brings_what_is_new(vcs: Vcs) {
    let master = Master::new(vcs);
    let old = master.write("a", "1").commit("first");
    let mut repo = open(&master.clone_to("clone")).await;
    let nothing = repo.pull(PullHooks::Skip).await.unwrap();
    assert_eq!((&nothing.before, &nothing.after), (&old, &old));

    master.write("a", "2").commit("second");
    let new = master.write("b", "1").commit("third");
    let outcome = repo.pull(PullHooks::Skip).await.unwrap();
    assert_eq!((&outcome.before, &outcome.after), (&old, &new));
    assert!(!outcome.recovered && !outcome.rewritten);
    assert_eq!(repo.tip().await.unwrap(), new);
    assert_eq!(changes(&mut repo, &old, &new).await, ["M a", "A b"]);
    assert_eq!(content(&mut repo, &new, "a").await.unwrap(), b"2");
}

async fn an_empty_master_is_nothing_new(vcs: Vcs) {
    let master = Master::new(vcs);
    let clone = master.clone_to("clone");
    for branch in [None, Some(master.branch().to_owned())] {
        let mut options = options(&clone);
        options.branch = branch;
        let outcome = StateRepo::open(options).await.unwrap().pull(PullHooks::Skip).await.unwrap();
        assert_eq!((outcome.before, outcome.after), (Revision::null(), Revision::null()));
    }
}

async fn the_first_commit_reaches_a_clone_of_nothing(vcs: Vcs) {
    let master = Master::new(vcs);
    let clone = master.clone_to("clone");
    let first = master.write("a", "1").commit("first");
    let mut options = options(&clone);
    options.branch = Some(master.branch().to_owned());
    let outcome = StateRepo::open(options).await.unwrap().pull(PullHooks::Skip).await.unwrap();
    assert_eq!((outcome.before, outcome.after), (Revision::null(), first));
}

async fn hooks_of_ours_are_skipped_when_we_pull(vcs: Vcs) {
    let master = Master::new(vcs);
    master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    let mut repo = open(&clone).await;
    repo.tip().await.unwrap();
    let log = master.beside("log");
    let said = |words: &str| format!("echo {words} $BORG_SLAVE_PULLS >> {}", log.display());
    match vcs {
        Vcs::Hg => {
            // Written after the command server has started, which reads its configuration once.
            let hooks = format!(
                "pretxnchangegroup.borg = {} # borg-slave hook pretxnchangegroup\nchangegroup.theirs = {}\n",
                said("ours"),
                said("theirs")
            );
            append(&clone.join(".hg/hgrc"), &format!("\n[hooks]\n{hooks}"));
        }
        Vcs::Git => script(&clone.join(".git/hooks/post-merge"), &format!("#!/bin/sh\n{}\n", said("ours"))),
    }
    master.write("a", "2").commit("second");
    repo.pull(PullHooks::Skip).await.unwrap();
    let skipped = if vcs == Vcs::Hg { "theirs 1\n" } else { "" };
    assert_eq!(fs::read_to_string(&log).unwrap_or_default(), skipped);

    fs::write(&log, "").unwrap();
    master.write("a", "3").commit("third");
    repo.pull(PullHooks::Run).await.unwrap();
    let run = if vcs == Vcs::Hg { "ours\ntheirs\n" } else { "ours\n" };
    assert_eq!(fs::read_to_string(&log).unwrap(), run);
}

async fn a_branch_that_the_master_lacks_is_a_setting_to_correct(vcs: Vcs) {
    let master = Master::new(vcs);
    master.write("a", "1").commit("first");
    let mut options = options(&master.clone_to("clone"));
    options.branch = Some("production".to_owned());
    let error = StateRepo::open(options).await.unwrap().pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Settings, "the master has no such branch"));
}

async fn a_clone_without_master_says_how_to_name_it(vcs: Vcs) {
    let master = Master::new(vcs);
    master.write("a", "1").commit("first");
    let error = open(&master.path()).await.pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Repository, "{error:?}");
    let remedy = if vcs == Vcs::Hg { "[paths]" } else { "git remote add origin" };
    assert!(error.hint_text().unwrap().contains(remedy), "{error:?}");
}

async fn a_master_that_does_not_answer_is_unreachable(vcs: Vcs) {
    let master = Master::new(vcs);
    let tip = master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    // Port 1 of this machine: nobody listens there.
    point_to(&master, &clone, "ssh://borg@127.0.0.1:1/state");
    let mut options = options(&clone);
    options.ssh = ["ssh", "-F", "none", "-o", "BatchMode=yes"].map(str::to_owned).into();
    let mut repo = StateRepo::open(options).await.unwrap();
    let error = repo.pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    assert!(error.one_line().contains("Connection refused"), "{}", error.one_line());
    assert_eq!(repo.tip().await.unwrap(), tip, "the clone is read on");
}

async fn an_address_without_repository_is_named(vcs: Vcs) {
    let master = Master::new(vcs);
    master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    let nowhere = master.beside("nowhere");
    point_to(&master, &clone, nowhere.to_str().unwrap());
    let error = open(&clone).await.pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Repository, "{error:?}");
    assert_eq!(error.message(), "there is no repository at the master's address", "{error:?}");
    assert!(error.one_line().contains("nowhere"), "{}", error.one_line());
}

async fn a_password_in_the_address_is_never_shown(vcs: Vcs) {
    let master = Master::new(vcs);
    master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    point_to(&master, &clone, "https://borg:s3cret@127.0.0.1:1/state");
    let error = open(&clone).await.pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    assert!(!format!("{} {error:?}", error.paragraph()).contains("s3cret"), "{error:?}");
}

async fn the_ssh_command_keeps_its_words(vcs: Vcs) {
    let master = Master::new(vcs);
    master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    point_to(&master, &clone, "ssh://borg@master.example.org/state");
    let (tools, log) = (master.beside("my tools"), master.beside("words"));
    fs::create_dir(&tools).unwrap();
    let ssh = tools.join("ssh");
    script(&ssh, &format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > {}\nexit 255\n", log.display()));
    let mut options = options(&clone);
    options.ssh = [ssh.to_str().unwrap(), "-o", "ProxyCommand=nc '%h' %p", "-oBatchMode=no"].map(str::to_owned).into();
    let error = StateRepo::open(options).await.unwrap().pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    let words = fs::read_to_string(log).unwrap();
    // Of an option given twice, ssh takes the first; nobody is there to be asked for a password.
    assert!(words.starts_with("-oBatchMode=yes\n-o\nProxyCommand=nc '%h' %p\n-oBatchMode=no\n"), "{words}");
    assert!(words.contains("borg@master.example.org\n"), "{words}");
}

async fn a_hanging_master_is_given_up(vcs: Vcs) {
    let master = Master::new(vcs);
    master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    point_to(&master, &clone, "ssh://borg@master.example.org/state");
    let ssh = master.beside("ssh");
    script(&ssh, "#!/bin/sh\nexec sleep 600\n");
    let mut options = options(&clone);
    options.ssh = vec![ssh.to_str().unwrap().to_owned()];
    options.time_limit = Duration::from_secs(10);
    let mut repo = StateRepo::open(options).await.unwrap();
    let started = Instant::now();
    let error = repo.pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(60), "the sleeping ssh was waited for");
}

async fn only_the_followed_branch_comes(vcs: Vcs) {
    let master = Master::new(vcs);
    let old = master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    let side = master.start_branch("side").write("b", "1").commit("side");
    let mut options = options(&clone);
    options.branch = Some(master.branch().to_owned());
    let mut repo = StateRepo::open(options).await.unwrap();
    let outcome = repo.pull(PullHooks::Skip).await.unwrap();
    assert_eq!(outcome.after, old);
    assert_eq!(repo.resolve(side.as_str()).await.unwrap(), None);
}

#[tokio::test]
async fn a_lock_of_another_container_is_not_broken_but_explained() {
    let master = Master::hg();
    master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    let lock = clone.join(".hg/store/lock");
    std::os::unix::fs::symlink("old-container/f0000001:17", &lock).unwrap();
    let mut impatient = options(&clone);
    impatient.lock_wait = Duration::from_secs(1);
    master.write("a", "2").commit("second");
    let error = StateRepo::open(impatient).await.unwrap().pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert!(error.message().contains("(old-container/f0000001)"), "{error:?}");
    assert!(error.hint_text().unwrap().contains("hg debuglocks --force-free-lock --force-free-wlock"));
    assert!(lock.symlink_metadata().is_ok(), "the lock is still there");
}

#[tokio::test]
async fn a_hook_that_refuses_is_named_and_nothing_has_come() {
    let master = Master::hg();
    let old = master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    append(&clone.join(".hg/hgrc"), "\n[hooks]\npretxnchangegroup.borg = echo Connection refused >&2; exit 1\n");
    let new = master.write("a", "2").commit("second");
    let mut repo = open(&clone).await;
    let error = repo.pull(PullHooks::Run).await.unwrap_err();
    assert_eq!(error.message(), "a hook of the clone refuses the new changesets", "{error:?}");
    assert_eq!(repo.tip().await.unwrap(), old);
    assert_eq!(repo.resolve(new.as_str()).await.unwrap(), None);
}

#[tokio::test]
async fn a_clone_of_a_newer_mercurial_is_explained() {
    let master = Master::hg();
    master.write("a", "1").commit("first");
    append(&master.path().join(".hg/requires"), "from-the-future\n");
    let error = open(&master.path()).await.tip().await.unwrap_err();
    assert_eq!(error.hint_text(), Some("upgrade Mercurial here"), "{error:?}");
}

#[tokio::test]
async fn an_unrelated_master_is_refused() {
    let (master, other) = (Master::hg(), Master::hg());
    master.write("a", "1").commit("first");
    other.write("b", "1").commit("other first");
    let clone = master.clone_to("clone");
    point_to(&master, &clone, other.path().to_str().unwrap());
    let error = open(&clone).await.pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.message(), "the master's repository has no changeset in common with this clone", "{error:?}");
}

#[tokio::test]
async fn a_hgrc_of_another_user_is_explained() {
    let master = Master::hg();
    master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    give_away(&clone.join(".hg/hgrc"));
    let error = open(&clone).await.pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert_eq!(error.message(), "the clone's .hg/hgrc belongs to another user, so Mercurial ignores it");
}

#[tokio::test]
async fn a_git_clone_of_another_user_is_explained() {
    let master = Master::git();
    master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    give_away(&clone);
    give_away(&clone.join(".git"));
    let error = StateRepo::open(options(&clone)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.hint_text().unwrap().contains("safe.directory"));
}

#[tokio::test]
async fn a_rewritten_history_is_followed_and_the_old_one_kept() {
    for bare in [false, true] {
        let master = Master::git();
        let base = master.write("a", "1").commit("base");
        let old = master.write("b", "1").commit("to be rewritten");
        let clone = if bare { master.clone_bare_to("bare.git") } else { master.clone_to("clone") };
        master.run(["git", "reset", "-q", "--hard", base.as_str()]);
        let new = master.write("c", "1").commit("instead");

        let mut repo = open(&clone).await;
        let outcome = repo.pull(PullHooks::Skip).await.unwrap();
        assert!(outcome.rewritten);
        assert_eq!((&outcome.before, &outcome.after), (&old, &new));
        assert_eq!(repo.tip().await.unwrap(), new);
        assert_eq!(changes(&mut repo, &old, &new).await, ["R b", "A c"]);
        assert_eq!(repo.resolve("refs/borg-slave/before-rewrite").await.unwrap(), Some(old));
        if !bare {
            assert_eq!(master.run_in(&clone, ["git", "status", "--porcelain"]), "");
        }
        assert!(!repo.pull(PullHooks::Skip).await.unwrap().rewritten);
    }
}

#[tokio::test]
async fn changes_by_hand_are_never_thrown_away() {
    let master = Master::git();
    let base = master.write("a", "1").commit("base");
    let old = master.write("a", "2").commit("to be rewritten");
    let clone = master.clone_to("clone");
    master.run(["git", "reset", "-q", "--hard", base.as_str()]);
    master.write("a", "3").commit("instead");
    fs::write(clone.join("a"), "by hand").unwrap();
    let mut repo = open(&clone).await;
    let error = repo.pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Repository);
    assert!(error.hint_text().unwrap().contains("git reset --hard refs/remotes/origin/main"), "{error:?}");
    assert_eq!(fs::read_to_string(clone.join("a")).unwrap(), "by hand");
    assert_eq!(repo.tip().await.unwrap(), old);

    // The same when the history goes on.
    master.run(["git", "reset", "-q", "--hard", old.as_str()]);
    master.write("a", "4").commit("third");
    let error = repo.pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.message(), "files in the clone's work tree were changed by hand", "{error:?}");
    assert_eq!(fs::read_to_string(clone.join("a")).unwrap(), "by hand");
}

#[tokio::test]
async fn a_lock_file_of_a_killed_git_is_named() {
    let master = Master::git();
    master.write("a", "1").commit("first");
    let clone = master.clone_to("clone");
    fs::write(clone.join(".git/index.lock"), "").unwrap();
    let new = master.write("a", "2").commit("second");
    let mut repo = open(&clone).await;
    let error = repo.pull(PullHooks::Skip).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert!(error.one_line().contains("index.lock"), "{}", error.one_line());
    fs::remove_file(clone.join(".git/index.lock")).unwrap();
    assert_eq!(repo.pull(PullHooks::Skip).await.unwrap().after, new);
}

/// Lets the clone's `git` run `lines` when it writes the file `b` for the first time.
fn when_b_is_written(master: &Master, clone: &Path, lines: &str) {
    let (filter, once) = (master.beside("filter"), master.beside("once"));
    script(&filter, &format!("#!/bin/sh\nif mkdir {} 2>/dev/null; then\n{lines}\nfi\nexec cat\n", once.display()));
    fs::create_dir_all(clone.join(".git/info")).unwrap();
    fs::write(clone.join(".git/info/attributes"), "b filter=test\n").unwrap();
    master.run_in(clone, ["git", "config", "filter.test.smudge", filter.to_str().unwrap()]);
}

#[tokio::test]
async fn a_move_that_was_cut_short_is_done_by_the_next_pull() {
    for (signal, rewritten) in [("KILL", false), ("TERM", true), ("KILL", true)] {
        let master = Master::git();
        let base = master.write("kept", "1").commit("base");
        let old = master.write("a", "1").write("b", "1").write("gone", "1").commit("first");
        let clone = master.clone_to("clone");
        when_b_is_written(&master, &clone, &format!("kill -{signal} $PPID"));
        if rewritten {
            master.run(["git", "reset", "-q", "--hard", base.as_str()]);
        } else {
            master.remove("gone");
            fs::write(clone.join("kept"), "by hand").unwrap();
        }
        let new = master.write("a", "2").write("a.d/new", "1").write("b", "2").commit("second");
        let mut repo = open(&clone).await;
        repo.pull(PullHooks::Skip).await.unwrap_err();
        assert_eq!(repo.tip().await.unwrap(), old);
        assert_eq!(fs::read_to_string(clone.join("a")).unwrap(), "2", "it was cut short in the middle");
        assert!(clone.join("a.d/new").exists() && !clone.join("gone").exists());

        let lock = clone.join(".git/index.lock");
        assert_eq!(lock.exists(), signal == "KILL");
        if signal == "KILL" {
            let _held = fs::File::open(&lock).unwrap();
            let error = repo.pull(PullHooks::Skip).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
        }
        fs::write(clone.join("a"), "by hand").unwrap();
        let error = repo.pull(PullHooks::Skip).await.unwrap_err();
        assert!(error.message().ends_with("changed by hand since: a"), "{error:?}");
        assert_eq!(fs::read_to_string(clone.join("a")).unwrap(), "by hand");

        // Cut short while it was written.
        fs::write(clone.join("a"), "").unwrap();
        let outcome = repo.pull(PullHooks::Skip).await.unwrap();
        assert_eq!((&outcome.before, &outcome.after, outcome.rewritten), (&old, &new, rewritten));
        let by_hand = if rewritten { "" } else { " M kept\n" };
        assert_eq!(master.run_in(&clone, ["git", "status", "--porcelain"]), by_hand);
        assert_eq!(fs::read_to_string(clone.join("a")).unwrap(), "2");
        assert!(!lock.exists());

        // From now on it is as ever.
        fs::write(clone.join("a"), "").unwrap();
        master.write("a", "3").commit("third");
        let error = repo.pull(PullHooks::Skip).await.unwrap_err();
        assert!(error.message().contains("changed by hand"), "{error:?}");
    }
}

#[tokio::test]
async fn a_move_is_not_cut_short_when_the_run_is_stopped() {
    let master = Master::git();
    master.write("a", "1").write("b", "1").commit("first");
    let clone = master.clone_to("clone");
    let (called, go) = (master.beside("once"), master.beside("go"));
    when_b_is_written(&master, &clone, &format!("while [ ! -e {} ]; do sleep 0.02; done", go.display()));
    let new = master.write("a", "2").write("b", "2").commit("second");
    let options = options(&clone);
    let stop = options.stop.clone();
    let pull = tokio::spawn(async move { StateRepo::open(options).await.unwrap().pull(PullHooks::Skip).await });
    while !called.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    fs::write(go, "").unwrap();
    assert_eq!(pull.await.unwrap().unwrap().after, new);
    assert_eq!(master.run_in(&clone, ["git", "status", "--porcelain"]), "");
}

#[tokio::test]
async fn a_branch_that_is_not_checked_out_is_followed_without_touching_files() {
    let master = Master::git();
    master.write("a", "1").commit("first");
    master.start_branch("live");
    let live = master.write("b", "1").commit("live");
    let clone = master.clone_to("clone");
    master.run_in(&clone, ["git", "checkout", "-q", "main"]);
    let mut options = options(&clone);
    options.branch = Some("live".to_owned());
    let mut repo = StateRepo::open(options).await.unwrap();
    let newer = master.write("b", "2").commit("newer");
    let outcome = repo.pull(PullHooks::Skip).await.unwrap();
    assert_eq!((outcome.before, outcome.after), (live, newer));
    assert!(!clone.join("b").exists());
    assert_eq!(master.run_in(&clone, ["git", "status", "--porcelain"]), "");
}

fn point_to(master: &Master, clone: &Path, url: &str) {
    match master.vcs() {
        Vcs::Hg => fs::write(clone.join(".hg/hgrc"), format!("[paths]\ndefault = {url}\n")).unwrap(),
        Vcs::Git => {
            master.run_in(clone, ["git", "remote", "set-url", "origin", url]);
        }
    }
}

fn append(file: &Path, text: &str) {
    let old = fs::read_to_string(file).unwrap();
    fs::write(file, old + text).unwrap();
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Makes `nobody` the owner, which only root can.
fn give_away(path: &Path) {
    std::os::unix::fs::chown(path, Some(65534), Some(65534)).expect("these tests run as root");
}
