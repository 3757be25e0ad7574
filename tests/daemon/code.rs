//! The program follows its own branch.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use borg_slave::state_repo::Revision;

use super::*;
use crate::support::vcs::Master;
use crate::support::world::program;

/// Where the program is developed, and the checkout that a slave runs it from.
struct Code {
    origin: Master,
    checkout: PathBuf,
}

impl Code {
    /// The first revision's build leaves the program as it is.
    fn start(world: &World) -> Self {
        let origin = Master::git();
        origin.write("build.sh", "echo first >> built\n").write(".gitignore", "built\n/borg-slave*\n").commit("first");
        let code = Self { checkout: origin.clone_to("checkout"), origin };
        fs::copy(program(), code.program()).unwrap();
        world.set("CODE_BRANCH", code.origin.branch());
        world.set("CODE_PATH", code.checkout.to_str().unwrap());
        world.set("CODE_BUILD", "sh build.sh");
        code
    }

    fn program(&self) -> PathBuf {
        self.checkout.join("borg-slave")
    }

    /// A new revision whose build says `name` and then does `lines`.
    fn push(&self, name: &str, lines: &str) -> Revision {
        self.origin.write("build.sh", format!("echo {name} >> built\n{lines}\n")).commit(name)
    }

    /// A new revision whose build makes a program that is another file, but works as this one does.
    fn push_program(&self, name: &str) -> Revision {
        let program = shell_words::quote(program().to_str().unwrap()).into_owned();
        // What follows the end of an executable is nobody's business.
        let lines =
            format!("cp {program} borg-slave.new && echo {name} >> borg-slave.new && mv borg-slave.new borg-slave");
        self.push(name, &lines)
    }

    /// What was built, in order.
    fn built(&self) -> String {
        fs::read_to_string(self.checkout.join("built"))
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The command of a daemon that sleeps between its rounds, run from the checkout.
    fn daemon(&self, world: &World) -> std::process::Command {
        let program = self.program();
        let words = [program.to_str().unwrap(), "poll", "--verbose", "--interval", "3600"];
        world.master.command(&world.clone, words)
    }
}

/// Everything that a service manager hears from now on: its queue is short.
fn hear_all(manager: Manager) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&heard);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count) = manager.socket.recv(&mut buffer) {
            all.lock().unwrap().push(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
    });
    heard
}

/// Whether a process runs what a file holds now.
fn runs(pid: u32, file: &std::path::Path) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == file.canonicalize().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_program_takes_the_place_of_the_daemon_and_what_goes_wrong_leaves_the_old_one() {
    let (world, roads) = world(Vcs::Git).await;
    let code = Code::start(&world);
    // Nobody is there: what is to be told waits.
    world.set("MASTER_PGSQL_HOST", "127.0.0.1");
    world.set("MASTER_PGSQL_PORT", "1");
    world.set("MASTER_PGSQL_DATABASE", "master");
    let manager = Manager::start(&world);
    let mut command = code.daemon(&world);
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "400000");
    let heard = hear_all(manager);
    let daemon = Daemon { running: Running::start(command) };
    let pid = daemon.running.pid();
    daemon.rounds(1);
    becomes(&world, &roads, "succeeded");
    daemon.says("the build has left the program as it was", 1);
    // Somebody waits for the daemon to end, and would take its place at once.
    let waiting = Daemon::start(&world, &["--interval", "3600"]);
    waiting.says("another daemon works on this clone", 1);

    // New code and a new layer come with the same round: the new program makes it.
    code.push_program("second");
    let lakes = Layer::new("cadastre", "lakes");
    world.publish(&lakes).await;
    world.commit("lakes");
    daemon.signal(Signal::USR1);
    daemon.says("a new program takes over", 1);
    daemon.says("the daemon begins", 2);
    becomes(&world, &lakes, "succeeded");
    daemon.rounds(2);
    assert!(runs(pid, &code.program()), "{}", daemon.running.stderr());
    assert_eq!(world.state(&lakes.job_file())["attempts"], 1);
    assert_eq!(world.state(&roads.job_file())["attempts"], 1);
    assert_eq!(code.built(), "first second");
    assert_eq!(waiting.count("why="), 0, "{}", waiting.running.stderr());
    let told = || heard.lock().unwrap().clone();
    let mut after = 0;
    for text in ["STATUS=building", "STATUS=a new program takes over", "READY=1", "WATCHDOG=1"] {
        let find = || told()[after..].iter().position(|said| said.starts_with(text));
        until(|| find().is_some(), || format!("{text} is not told after {after}: {:?}", told()));
        after += find().unwrap();
    }
    assert!(!told().iter().any(|text| text.starts_with("STOPPING")), "{:?}", told());

    // A build that fails is told once and not tried with every round, which goes on with the old program.
    code.push("third", "echo 'a semicolon is missing in https://me:hunter2@example.org/x' >&2; exit 3");
    daemon.signal(Signal::USR1);
    daemon.rounds(3);
    daemon.signal(Signal::USR1);
    daemon.rounds(4);
    assert_eq!(code.built(), "first second third");
    assert_eq!(daemon.count("a semicolon is missing"), 1, "{}", daemon.running.stderr());
    let complaint = "STATUS=everything is applied; the program could not be built from";
    until(|| told().iter().any(|text| text.starts_with(complaint)), || format!("{:?}", told()));

    let status = world.slave(&["status"]).says("the program is not brought up to date").says("a semicolon is missing");
    let said = format!("{}{}", status.text(), daemon.running.stderr());
    assert!(!said.contains("hunter2"), "{said}");
    let journal = rusqlite::Connection::open(world.clone.join("code/.sync_status/journal.sqlite3")).unwrap();
    let told_master = || -> String {
        journal.query_row("select payload from report where subject = 'run'", [], |row| row.get(0)).unwrap()
    };
    assert!(told_master().contains("a semicolon is missing"), "{}", told_master());

    // Neither does a program that does not start take over; nor one that refuses the settings.
    code.push("fourth", "printf '#!/bin/sh\\necho no such library >&2; exit 127\\n' > borg-slave.new && chmod 755 borg-slave.new && mv borg-slave.new borg-slave");
    daemon.signal(Signal::USR1);
    daemon.says("no such library", 1);
    daemon.rounds(5);
    code.push("fifth", "printf '#!/bin/sh\\n[ \"$1\" = --version ] && echo borg-slave 9 && exit\\necho \"refused: $*\" >&2; exit 2\\n' > borg-slave.new && chmod 755 borg-slave.new && mv borg-slave.new borg-slave");
    daemon.signal(Signal::USR1);
    daemon.says("refused: poll --verbose --interval 3600 --can-start", 1);
    daemon.rounds(6);

    // What somebody has changed in the checkout stays, and the rounds go on.
    let woods = Layer::new("cadastre", "woods");
    world.publish(&woods).await;
    world.commit("woods");
    fs::write(code.checkout.join("build.sh"), "echo mine\n").unwrap();
    code.push_program("sixth");
    daemon.signal(Signal::USR1);
    daemon.says("changed by hand: build.sh", 1);
    daemon.rounds(7);
    assert_eq!(world.state(&woods.job_file())["state"], "succeeded");
    assert_eq!(fs::read_to_string(code.checkout.join("build.sh")).unwrap(), "echo mine\n");
    code.origin.run_in(&code.checkout, ["git", "commit", "-qam", "mine"]);
    daemon.signal(Signal::USR1);
    daemon.says("has commits that the remote lacks", 1);
    daemon.rounds(8);
    code.origin.run_in(&code.checkout, ["git", "reset", "-q", "--hard", "HEAD~1"]);

    // All is well again.
    daemon.signal(Signal::USR1);
    daemon.says("the daemon begins", 3);
    daemon.rounds(9);
    assert_eq!(daemon.running.pid(), pid);
    assert!(runs(pid, &code.program()));
    assert!(!world.slave(&["status"]).text().contains("not brought up to date"));
    assert!(told_master().contains("the program is up to date again"), "{}", told_master());
    assert_eq!(code.built(), "first second third fourth fifth sixth");
    assert_eq!(waiting.count("why="), 0, "{}", waiting.running.stderr());
    daemon.end();
    waiting.rounds(1);
    waiting.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_elsewhere_is_switched_and_one_that_is_missing_or_away_stops_no_round() {
    let (world, roads) = world(Vcs::Git).await;
    let code = Code::start(&world);
    let own = "a branch of my own";
    for words in [&["git", "checkout", "-q", "-b", "own"][..], &["git", "commit", "-q", "--allow-empty", "-m", own]] {
        code.origin.run_in(&code.checkout, words);
    }
    // The remote's history is written anew: nothing of that was made here.
    code.push("second", "");
    code.origin.run_in(&code.checkout, ["git", "fetch", "-q"]);
    code.origin.run_in(&code.checkout, ["git", "branch", "-q", "-f", "main", "origin/main"]);
    code.origin.run(["git", "reset", "-q", "--hard", "HEAD~1"]);
    let rewritten = code.push("third", "");
    // It is reached as the state repository and the files are.
    let url = world.sshd.location(code.origin.path());
    code.origin.run_in(&code.checkout, ["git", "remote", "set-url", "origin", &url]);
    // The first checkout is killed in the middle.
    let (filter, once) = (code.origin.beside("filter"), code.origin.beside("once"));
    fs::write(&filter, format!("#!/bin/sh\nmkdir {} 2>/dev/null && kill -KILL $PPID\nexec cat\n", once.display()))
        .unwrap();
    fs::set_permissions(&filter, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(code.checkout.join(".git/info/attributes"), "build.sh filter=test\n").unwrap();
    code.origin.run_in(&code.checkout, ["git", "config", "filter.test.smudge", filter.to_str().unwrap()]);
    let daemon = Daemon { running: Running::start(code.daemon(&world)) };
    daemon.says("git checkout failed", 1);
    daemon.rounds(1);
    assert!(code.checkout.join(".git/index.lock").exists() && !code.checkout.join("build.sh").exists());
    daemon.signal(Signal::USR1);
    daemon.says("removed the lock of a git that was killed", 1);
    daemon.rounds(2);
    let head = |name: &str| code.origin.run_in(&code.checkout, ["git", "rev-parse", name]).trim().to_owned();
    assert_eq!(head("HEAD"), rewritten.as_str(), "{}", daemon.running.stderr());
    assert_eq!(code.origin.run_in(&code.checkout, ["git", "log", "-1", "--format=%s", "own"]).trim(), own);
    assert_eq!(code.built(), "third");
    // A branch that is not there, a checkout that is none, and a remote that is away: told, and the rounds go on.
    world.slave(&["check"]).says("ok       the program's checkout").says("of origin; the daemon has built");
    world.set("CODE_BRANCH", "trunk");
    world.slave(&["check"]).says("PROBLEM  the program's checkout").says("has no branch `trunk`");
    daemon.says("the remote has no branch `trunk`", 1);
    world.set("CODE_BRANCH", code.origin.branch());
    daemon.says("why=Settings", 2);
    let away = code.origin.beside("away");
    fs::rename(code.origin.path(), &away).unwrap();
    daemon.signal(Signal::USR1);
    daemon.says("cannot be fetched", 1);
    world.set("CODE_PATH", "nowhere");
    daemon.says("why=Settings", 3);
    daemon.signal(Signal::USR1);
    daemon.says("cannot be opened as a Git repository", 1);
    assert_eq!(world.state(&roads.job_file())["state"], "succeeded");
    let outcome = daemon.end();
    assert_eq!(outcome.stderr.matches("the daemon begins").count(), 1, "{}", outcome.text());
}
