//! Transfers against a real `sshd` and `rsync`.
#![allow(clippy::unwrap_used, reason = "what cannot be set up ends the test")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use borg_slave::error::ErrorKind;
use borg_slave::process::Cmd;
use borg_slave::transfer::{
    CacheName, Destination, Fetched, Location, Md5, Options, Origin, Request, SyncServer, Transfer,
};
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::sshd::{Fate, Knobs, Proxy, Sshd};

mod ahead;
mod sending;
mod sources;

/// Master's directory, slave's cache, and what fetches between them.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("master")).unwrap();
        Self { dir }
    }

    fn master(&self, name: &str) -> PathBuf {
        self.dir.path().join("master").join(name)
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// Puts a file on the master.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> Md5 {
        let path = self.master(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content.as_ref()).unwrap();
        Md5::of(content.as_ref())
    }

    fn options(&self, ssh: Vec<String>) -> Options {
        Options {
            ssh,
            cache_path: self.cache(),
            parallel: 4,
            ahead: u64::MAX,
            sync_server: None,
            share_layer_data: false,
            idle_timeout: Duration::from_secs(20),
            time_limit: Duration::from_secs(120),
            stop: CancellationToken::new(),
            progress: None,
        }
    }

    /// What lies in the cache under a final name.
    fn cached(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.cache()) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != ".incoming").collect();
        names.sort();
        names
    }
}

fn request(location: &str, name: &str, md5: Option<Md5>) -> Request {
    Request {
        location: Location::parse(location).unwrap(),
        cache_name: CacheName::dump("ws", name, "db").unwrap(),
        md5,
        what: "dump".to_owned(),
        durable: false,
    }
}

/// Bytes that do not repeat, so that nothing can shorten their way.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn assert_whole(fetched: &Fetched, content: &[u8]) {
    assert_eq!(std::fs::read(&fetched.path).unwrap(), content);
    assert_eq!((fetched.md5, fetched.bytes), (Md5::of(content), content.len() as u64));
}

#[tokio::test]
async fn three_hundred_files_travel_over_one_connection() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let files: Vec<_> = (0..300_u64).map(|n| noise(2_000 + usize::try_from(n).unwrap(), n + 1)).collect();
    let sums: Vec<_> = files.iter().enumerate().map(|(n, file)| place.put(&format!("{n}/l{n}.db"), file)).collect();
    let transfer = Transfer::new(place.options(sshd.ssh_command())).unwrap();
    let started = Instant::now();
    let wanted = sums.iter().enumerate().map(|(n, sum)| {
        let location = sshd.location(place.master(&format!("{n}/l{n}.db")));
        transfer.fetch(request(&location, &format!("l{n}"), Some(*sum)))
    });
    let fetched = join_all(wanted).await;
    println!("300 files: {:?}", started.elapsed());
    for (fetched, file) in fetched.iter().zip(&files) {
        let fetched = fetched.as_ref().unwrap();
        assert_eq!(fetched.from, Origin::Master);
        assert_whole(fetched, file);
    }
    assert_eq!(place.cached().len(), 300);
    assert!(sshd.connections() <= 3, "{} connections", sshd.connections());
    transfer.close().await;
}

#[tokio::test]
async fn a_missing_and_an_unreadable_file_do_not_disturb_the_others() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let good = place.put("good.db", "good");
    std::fs::create_dir(place.master("dir.db")).unwrap();
    let transfer = Transfer::new(place.options(sshd.ssh_command())).unwrap();
    let fetch = |file: &str, name: &str| transfer.fetch(request(&sshd.location(place.master(file)), name, Some(good)));
    let (missing, first, no_dir, dir, second) = tokio::join!(
        fetch("no such \"file\" é.db", "a"),
        fetch("good.db", "b"),
        fetch("no/such/dir.db", "c"),
        fetch("dir.db", "d"),
        fetch("good.db", "e"),
    );
    assert_whole(&first.unwrap(), b"good");
    assert_whole(&second.unwrap(), b"good");
    for error in [missing, no_dir, dir].map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::Missing, "{}", error.paragraph());
        assert!(error.subject_text().unwrap().starts_with("dump "), "{}", error.paragraph());
    }
    assert_eq!(place.cached(), ["ws.b.db", "ws.e.db"]);
}

#[tokio::test]
async fn a_file_replaced_on_the_master_is_told_from_a_broken_transfer() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let promised = Md5::of(b"what the job was written for");
    let newer = place.put("it's \\ $(replaced).db", "newer");
    let location = sshd.location(place.master("it's \\ $(replaced).db"));
    let transfer = Transfer::new(place.options(sshd.ssh_command())).unwrap();
    let error = transfer.fetch(request(&location, "a", Some(promised))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Checksum);
    assert!(error.message().contains("replaced"), "{}", error.paragraph());
    assert!(error.message().contains(&newer.to_string()) && error.message().contains(&promised.to_string()));
    assert!(place.cached().is_empty());
    // One login by the program for rsync, one by the library for the checksum.
    assert_eq!(sshd.connections(), 2);

    // The master's own md5sum says what the job says, and other bytes arrive: twice, then it is told.
    let wrapper = place.dir.path().join("ssh");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *md5sum*) echo '{promised}  x';; *) exec {} \"$@\";; esac\n",
        "/usr/bin/ssh"
    );
    std::fs::write(&wrapper, script).unwrap();
    make_executable(&wrapper);
    let mut ssh = sshd.ssh_command();
    ssh[0] = wrapper.display().to_string();
    // Makes the program be used instead of the library.
    ssh.push("-oCiphers=aes128-ctr".to_owned());
    let transfer = Transfer::new(place.options(ssh)).unwrap();
    let error = transfer.fetch(request(&location, "a", Some(promised))).await.unwrap_err();
    assert!(error.message().contains("damaged twice"), "{}", error.paragraph());
    assert!(place.cached().is_empty());
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_ended() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let content = noise(20_000_000, 7);
    let sum = place.put("big.db", &content);
    let proxy = Proxy::start(sshd.port(), [Fate::Cut(15_000_000)]).await;
    let transfer = Transfer::new(place.options(sshd.ssh_command_via(&proxy))).unwrap();
    let fetched = transfer.fetch(request(&sshd.location(place.master("big.db")), "big", Some(sum))).await.unwrap();
    assert_whole(&fetched, &content);
    assert_eq!(sshd.connections(), 2);
    let second = proxy.bytes() - 15_000_000;
    assert!(second < 12_000_000, "{second} bytes the second time");
}

#[tokio::test]
async fn small_files_that_arrived_before_the_break_are_not_fetched_again() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let files: Vec<_> = (0..40).map(|n| noise(500_000, n + 1)).collect();
    let sums: Vec<_> = files.iter().enumerate().map(|(n, file)| place.put(&format!("{n}.db"), file)).collect();
    let proxy = Proxy::start(sshd.port(), [Fate::Cut(12_000_000)]).await;
    let mut options = place.options(sshd.ssh_command_via(&proxy));
    options.parallel = 1;
    let transfer = Transfer::new(options).unwrap();
    let wanted = sums.iter().enumerate().map(|(n, sum)| {
        transfer.fetch(request(&sshd.location(place.master(&format!("{n}.db"))), &format!("l{n}"), Some(*sum)))
    });
    for (fetched, file) in join_all(wanted).await.iter().zip(&files) {
        assert_whole(fetched.as_ref().unwrap(), file);
    }
    // What is on its way in the buffers of ssh is lost; without what had arrived it were 32,000,000.
    assert!(proxy.bytes() < 26_000_000, "{} bytes for 20,000,000", proxy.bytes());
}

#[tokio::test]
async fn without_rsync_there_files_come_by_sftp_and_are_resumed() {
    let (place, sshd) = (Place::new(), Sshd::start_with(Knobs { without_rsync: true, ..Knobs::default() }).await);
    let content = noise(12_000_000, 3);
    let sum = place.put("big $(x).db", &content);
    let small = place.put("small.db", "small");
    // The first connection finds that there is no rsync; the second, by the library, is cut.
    let proxy = Proxy::start(sshd.port(), [Fate::Cut(u64::MAX), Fate::Cut(8_000_000)]).await;
    let transfer = Transfer::new(place.options(sshd.ssh_command_via(&proxy))).unwrap();
    let (big, little, missing) = tokio::join!(
        transfer.fetch(request(&sshd.location(place.master("big $(x).db")), "big", Some(sum))),
        transfer.fetch(request(&sshd.location(place.master("small.db")), "small", Some(small))),
        transfer.fetch(request(&sshd.location(place.master("missing.db")), "missing", Some(small))),
    );
    assert_whole(&big.unwrap(), &content);
    assert_whole(&little.unwrap(), b"small");
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::Missing);
    // What was asked for ahead is lost with the connection; without what had arrived it were 20,000,000.
    assert!(proxy.bytes() < 17_000_000, "{} bytes for 12,000,000", proxy.bytes());
}

#[tokio::test]
async fn without_rsync_and_without_the_library_files_come_through_the_program() {
    let (place, sshd) = (Place::new(), Sshd::start_with(Knobs { without_rsync: true, ..Knobs::default() }).await);
    let content = noise(3_000_000, 5);
    let sum = place.put("it's $(big).db", &content);
    let mut ssh = sshd.ssh_command();
    ssh.push("-oCiphers=aes128-ctr".to_owned());
    let transfer = Transfer::new(place.options(ssh)).unwrap();
    let (big, missing) = tokio::join!(
        transfer.fetch(request(&sshd.location(place.master("it's $(big).db")), "big", Some(sum))),
        transfer.fetch(request(&sshd.location(place.master("-n")), "missing", Some(sum))),
    );
    assert_whole(&big.unwrap(), &content);
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::Missing);
}

#[tokio::test]
async fn a_changed_host_key_is_refused_once_and_explained() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let sum = place.put("a.db", "a");
    sshd.change_known_key();
    let transfer = Transfer::new(place.options(sshd.ssh_command())).unwrap();
    let error = transfer.fetch(request(&sshd.location(place.master("a.db")), "a", Some(sum))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.paragraph());
    assert!(error.message().contains("another key"), "{}", error.paragraph());
    assert!(error.hint_text().unwrap().contains("ssh-keygen -R"), "{}", error.paragraph());
    assert_eq!(sshd.connections(), 0);
}

#[tokio::test]
async fn a_refused_key_is_not_tried_again_and_explained() {
    let (place, sshd) = (Place::new(), Sshd::start_with(Knobs { refuse_keys: true, ..Knobs::default() }).await);
    let sum = place.put("a.db", "a");
    let proxy = Proxy::start(sshd.port(), []).await;
    let transfer = Transfer::new(place.options(sshd.ssh_command_via(&proxy))).unwrap();
    let error = transfer.fetch(request(&sshd.location(place.master("a.db")), "a", Some(sum))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.paragraph());
    assert!(error.hint_text().unwrap().contains("authorized_keys"), "{}", error.paragraph());
    assert!(proxy.bytes() < 20_000, "it was tried again");
}

#[tokio::test]
async fn an_unreachable_host_is_named() {
    let place = Place::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ssh = ["ssh", "-Fnone", "-p", &port.to_string()].map(str::to_owned).to_vec();
    let transfer = Transfer::new(place.options(ssh)).unwrap();
    let error = transfer.fetch(request("borg@127.0.0.1:/a.db", "a", None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", error.paragraph());
    assert!(error.one_line().contains("Connection refused"), "{}", error.paragraph());
    // The host is what is wrong, whichever file was asked for.
    assert_eq!(error.subject_text(), Some("borg@127.0.0.1"));
}

#[tokio::test]
async fn a_stopped_run_leaves_the_cache_without_half_files_and_the_next_run_resumes() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let content = noise(6_000_000, 9);
    let sum = place.put("big.db", &content);
    let proxy = Proxy::start(sshd.port(), [Fate::Stall(5_000_000)]).await;
    let options = place.options(sshd.ssh_command_via(&proxy));
    let (transfer, stop) = (Transfer::new(options.clone()).unwrap(), options.stop.clone());
    let wanted = request(&sshd.location(place.master("big.db")), "big", Some(sum));
    let (result, ()) = tokio::join!(transfer.fetch(wanted.clone()), async {
        proxy.fulfilled().await;
        stop.cancel();
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Stopped);
    transfer.close().await;
    assert!(place.cached().is_empty());

    let options = Options { stop: CancellationToken::new(), ..options };
    let before = proxy.bytes();
    assert_whole(&Transfer::new(options).unwrap().fetch(wanted).await.unwrap(), &content);
    assert!(proxy.bytes() - before < 4_000_000, "{} bytes the second time", proxy.bytes() - before);
}

#[tokio::test]
async fn a_silent_connection_is_given_up_and_made_anew() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let content = noise(4_000_000, 11);
    let sum = place.put("big.db", &content);
    let proxy = Proxy::start(sshd.port(), [Fate::Stall(2_000_000)]).await;
    let options = Options { idle_timeout: Duration::from_secs(2), ..place.options(sshd.ssh_command_via(&proxy)) };
    let wanted = request(&sshd.location(place.master("big.db")), "big", Some(sum));
    assert_whole(&Transfer::new(options).unwrap().fetch(wanted).await.unwrap(), &content);
}

#[tokio::test]
async fn names_are_neither_options_nor_patterns_nor_shell_text() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let touched = place.dir.path().join("touched");
    let names = [
        format!("a;touch {}", touched.display().to_string().replace('/', "\u{2215}")),
        "$(touch touched).db".to_owned(),
        "`touch touched`".to_owned(),
        "two  words 'and' \"quotes\"".to_owned(),
        "*?[a-z]{b,c}~".to_owned(),
        "道路 é 🙂".to_owned(),
        "-e sh".to_owned(),
        "--rsync-path=touch".to_owned(),
        "#comment".to_owned(),
        ";comment".to_owned(),
        "\\#101".to_owned(),
        "a\\".to_owned(),
        "%h:x".to_owned(),
        "a & b | c > d".to_owned(),
    ];
    // Would be taken by a pattern.
    place.put("xyz", "not wanted");
    let transfer = Transfer::new(place.options(sshd.ssh_command())).unwrap();
    let wanted = names.iter().enumerate().map(|(n, name)| {
        let sum = place.put(name, name);
        transfer.fetch(request(&sshd.location(place.master(name)), &format!("l{n}"), Some(sum)))
    });
    for (fetched, name) in join_all(wanted).await.into_iter().zip(&names) {
        assert_whole(&fetched.unwrap_or_else(|error| panic!("{name}: {}", error.paragraph())), name.as_bytes());
    }
    // The command that asks for a checksum is the only one that a remote shell sees.
    let evil = place.master("x';touch touched;'");
    std::fs::write(&evil, "newer").unwrap();
    let error = transfer.fetch(request(&sshd.location(&evil), "evil", Some(Md5::of(b"")))).await.unwrap_err();
    assert!(error.message().contains(&Md5::of(b"newer").to_string()), "{}", error.paragraph());
    let home = std::env::home_dir().unwrap();
    assert!(!touched.exists() && !home.join("touched").exists());
}

#[tokio::test]
async fn a_full_disk_is_named_with_the_remedy_and_left_with_room() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let sum = place.put("big.db", noise(3_000_000, 13));
    let small = place.put("a.db", "small");
    let _disk = SmallDisk::mount(&place.cache()).await;
    let transfer = Transfer::new(place.options(sshd.ssh_command())).unwrap();
    let error = transfer.fetch(request(&sshd.location(place.master("big.db")), "big", Some(sum))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{}", error.paragraph());
    assert!(error.hint_text().unwrap().contains("free space"), "{}", error.paragraph());
    assert!(place.cached().is_empty());
    // What could not be finished does not keep the next file out.
    let fetched = transfer.fetch(request(&sshd.location(place.master("a.db")), "a", Some(small))).await.unwrap();
    assert_whole(&fetched, b"small");
    let local = transfer.fetch(request(place.master("big.db").to_str().unwrap(), "l", Some(sum))).await.unwrap_err();
    assert!(local.hint_text().unwrap().contains("free space"), "{}", local.paragraph());
    transfer.close().await;
}

/// A file system of one megabyte.
struct SmallDisk(PathBuf);

impl SmallDisk {
    async fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mount = Cmd::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(at);
        mount.run().await.unwrap().success().expect("this test mounts a small tmpfs, which needs root");
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let umount = Cmd::new("umount").arg("-l").arg(&self.0);
        let unmounted = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(umount.run()).unwrap().success().unwrap();
        });
        let _ = unmounted.join();
    }
}

#[tokio::test]
async fn large_files_report_how_far_they_are() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let content = noise(5_000_000, 17);
    let sum = place.put("big.db", &content);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let options = Options {
        progress: Some(Arc::new(move |progress| sink.lock().unwrap().push(progress))),
        ..place.options(sshd.ssh_command())
    };
    let wanted = request(&sshd.location(place.master("big.db")), "big", Some(sum));
    Transfer::new(options).unwrap().fetch(wanted).await.unwrap();
    let seen = seen.lock().unwrap();
    let last = seen.last().unwrap();
    assert_eq!((last.what.as_str(), last.bytes, last.total), ("dump", 5_000_000, Some(5_000_000)));
    assert!(last.arrived.is_some() && seen.iter().any(|progress| progress.rate.is_some()));
}
