//! What the commands print: help, `check`, `filter`, `status`, a pass as log, as JSON and on a terminal.

use borg_slave::state_repo::Vcs;
use serde_json::json;

use super::look::{normal, normal_text};
use crate::support::sshd::Sshd;
use crate::support::world::{Layer, Outcome, World, outcome};

/// A clone that holds a good layer, a filtered one, and one whose dump is gone; nothing is applied.
async fn mixed() -> World {
    let world = World::start(Vcs::Hg).await;
    world.set("FEATURE_FILTER", "job.auth_level < 2");
    world.publish(&Layer::new("parks", "tracks")).await;
    world.publish(&Layer::new("parks", "secret").auth_level(2)).await;
    let gone = world.publish(&Layer::new("parks", "lost")).await;
    std::fs::remove_file(gone.dump).unwrap();
    world.publish_workspace("parks", 0);
    world.commit("publish");
    let arguments = ["hg", "pull", "--config", "hooks.pretxnchangegroup.borg="];
    outcome(&mut world.master.command(&world.clone, arguments)).succeeded();
    world
}

/// Lines in an order that does not depend on which job was faster: the middle, where jobs end, sorted.
fn settled(text: &str, is_job: impl Fn(&str) -> bool) -> String {
    let mut jobs: Vec<&str> = text.lines().filter(|line| is_job(line)).collect();
    jobs.sort_unstable();
    let mut jobs = jobs.into_iter();
    text.lines()
        .map(|line| if is_job(line) { jobs.next().unwrap_or_default() } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Another pg_dump writes a few bytes more or less.
fn without_sizes(text: &str) -> String {
    let line = |line: &str| match line.split_once("dump: ") {
        Some((before, _)) => format!("{before}dump: <n> bytes"),
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn help_shows_examples_and_fits_a_terminal() {
    for words in [
        &["--help"][..],
        &["hook", "--help"],
        &["sync", "--help"],
        &["status", "--help"],
        &["status", "forget", "--help"],
        &["poll", "--help"],
        &["report", "--help"],
        &["check", "--help"],
        &["filter", "--help"],
        &["import-status", "--help"],
        &["completions", "--help"],
    ] {
        let mut command = crate::support::postgres::command(&crate::support::world::program());
        let outcome = outcome(command.args(words).env("COLUMNS", "100"));
        assert_eq!(outcome.code, Some(0), "{}", outcome.text());
        insta::assert_snapshot!(format!("help_{}", words.join("_").replace("--", "")), outcome.stdout);
    }
}

#[test]
fn the_version_is_one_line() {
    let mut command = crate::support::postgres::command(&crate::support::world::program());
    let outcome = outcome(command.arg("--version")).succeeded();
    let said = outcome.stdout.strip_suffix('\n').unwrap();
    // A program that was not built from a checkout has no commit to tell.
    let commit = said.strip_prefix(&format!("borg-slave {}", env!("CARGO_PKG_VERSION"))).unwrap();
    let of_commit = |text: &str| {
        let (hash, date) = text.strip_prefix(" (")?.strip_suffix(')')?.split_once(' ')?;
        (hash.len() >= 7 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) && date.len() == 10).then_some(())
    };
    assert!(commit.is_empty() || of_commit(commit).is_some(), "{said:?}");
}

#[test]
fn completions_and_manual_pages_need_no_settings() {
    let dir = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let mut command = crate::support::postgres::command(&crate::support::world::program());
        outcome(command.args(words).current_dir(dir.path())).succeeded().stdout
    };
    for (shell, own) in
        [("bash", "complete -F _borg__slave"), ("zsh", "#compdef borg-slave"), ("fish", "complete -c borg-slave")]
    {
        let text = run(&["completions", shell]);
        assert!(text.contains(own) && text.contains("import-status") && text.contains("dry-run"), "{text}");
    }
    assert!(run(&["manpage"]).contains(".TH borg-slave 1"));
    run(&["manpage", "man"]);
    let pages: std::collections::BTreeSet<_> =
        std::fs::read_dir(dir.path().join("man")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    for page in ["borg-slave.1", "borg-slave-sync.1", "borg-slave-status-forget.1", "borg-slave-import-status.1"] {
        assert!(pages.contains(std::ffi::OsStr::new(page)), "{pages:?}");
    }
    let sync = std::fs::read_to_string(dir.path().join("man/borg-slave-sync.1")).unwrap();
    assert!(sync.contains("null") && sync.contains("Examples:"), "{sync}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_is_told_and_can_be_looked_up() {
    let world = mixed().await;
    insta::assert_snapshot!("filter", normal(&world, &world.slave(&["filter"])));
    insta::assert_snapshot!("dry_run", normal(&world, &world.slave(&["sync", "--dry-run"])));
    let plain = normal(&world, &world.slave(&["sync"]));
    insta::assert_snapshot!(
        "pass_as_log",
        settled(&plain, |line| (line.contains(" geoserver/") && !line.contains("not applied"))
            || line.contains("the roles of"))
    );
    insta::assert_snapshot!("status", times_out(&normal(&world, &world.slave(&["status"]))));
    insta::assert_snapshot!("status_failed", times_out(&normal(&world, &world.slave(&["status", "--failed"]))));
    let one = world.slave(&["status", "geoserver/layers/parks.tracks.json"]);
    let one = settled(&times_out(&normal(&world, &one)), |line| line.contains(" <n> ms  "));
    insta::assert_snapshot!("status_of_one", without_sizes(&one));
    insta::assert_snapshot!(
        "status_forget",
        normal(&world, &world.slave(&["status", "forget", "--failed", "nothing.json"]))
    );
    let json = world.slave(&["--log-format", "json", "sync"]);
    let mut lines: Vec<serde_json::Value> = json
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{}", json.text())))
        .collect();
    for line in &mut lines {
        line["timestamp"] = "<time>".into();
        assert!(line.get("took_ms").is_none_or(serde_json::Value::is_u64), "{line}");
        for (field, value) in [("took_ms", "<n>"), ("from", "<hash>"), ("to", "<hash>")] {
            if line.get(field).is_some() {
                line[field] = value.into();
            }
        }
    }
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(
        "pass_as_json",
        normal_text(&world, &settled(&lines.join("\n"), |line| line.contains("\"job\"")))
    );
}

/// Dates, times and durations of `status`.
fn times_out(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let mut line = line.to_owned();
        for word in words {
            let digits = word.chars().filter(char::is_ascii_digit).count();
            if (word.len() == 10 && word.starts_with("20") && digits == 8)
                || (word.len() == 8 && word.contains(':') && digits == 6)
            {
                line = line.replace(word, &"-".repeat(word.len()));
            }
        }
        if let Some((before, after)) = line.split_once(" ms ") {
            line = format!("{} <n> ms {after}", before.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' '));
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// Runs a command under a terminal of its own; answers what the terminal got.
fn on_a_terminal(world: &World, arguments: &[&str], env: &[(&str, &str)]) -> Outcome {
    let program = crate::support::world::program();
    let words = std::iter::once(program.to_str().unwrap()).chain(arguments.iter().copied());
    let line = format!("stty cols 100; exec {}", shell_words::join(words));
    let mut command = world.master.command(&world.clone, ["script", "-qec", &line, "/dev/null"]);
    command.env("TERM", "xterm-256color").envs(env.iter().copied()).stdin(std::process::Stdio::null());
    outcome(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_a_line_per_job_and_a_summary() {
    let world = mixed().await;
    let coloured = on_a_terminal(&world, &["sync"], &[]);
    assert_eq!(coloured.code, Some(1), "{}", coloured.text());
    assert!(coloured.stdout.contains("\u{1b}[31mFAILED"), "{:?}", coloured.stdout);
    assert!(coloured.stdout.contains("/4 jobs"), "there is a bar: {:?}", coloured.stdout);
    let plain = on_a_terminal(&world, &["sync"], &[("NO_COLOR", "1")]);
    for colour in ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[36m", "\u{1b}[33m"] {
        assert!(!plain.stdout.contains(colour), "{:?}", plain.stdout);
    }
    // The display is drawn over many times; what a job came to is drawn once.
    for line in [
        "  filtered  geoserver/layers/parks.secret.json  (FEATURE_FILTER refuses it)",
        "  FAILED    geoserver/layers/parks.lost.json",
    ] {
        assert_eq!(plain.stdout.matches(line).count(), 1, "{line:?} in {:?}", plain.stdout);
    }
    let end = plain.stdout.rsplit("\u{1b}[2K").next().unwrap_or_default().replace("\r\n", "\n");
    insta::assert_snapshot!("summary_on_a_terminal", normal_text(&world, &end));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tries_everything_and_says_what_to_mend() {
    let world = mixed().await;
    let previews = world.download().join("previews");
    world.publish(&Layer::new("parks", "drawn").field("preview_path", json!(world.sshd.location(&previews)))).await;
    let arguments = ["hg", "pull", "--config", "hooks.pretxnchangegroup.borg="];
    world.commit("a layer with a preview");
    outcome(&mut world.master.command(&world.clone, arguments)).succeeded();
    // Whoever listens answers.
    let cdn = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cdn_address = cdn.local_addr().unwrap().to_string();
    world.set("FASTLY_PURGE_URL", &format!("http://{cdn_address}/service/{{}}/purge/{{}}"));
    world.set("FASTLY_SERVICEID", "SU1");
    world.set("FASTLY_API_TOKEN", "0123456789");
    world.set("FASTLY_SURROGATE_KEY", "{}:{}");
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut asked, _) = cdn.accept().unwrap();
        let _ = asked.read(&mut [0; 4096]);
        let _ = asked.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let known = |text: String| -> String {
        // Versions and free space are this machine's.
        let keep = |line: &str| {
            let line = line.split(" free").next().unwrap_or_default();
            let cut = line.rfind(", ").filter(|_| line.contains("can be written"));
            let line = cut.map_or(line, |at| &line[..at]);
            match line.split_once(": ") {
                Some((what @ ("ok       rsync" | "ok       ssh" | "ok       pg_restore" | "ok       psql"), _)) => {
                    format!("{what}: <version>")
                }
                Some((what, about)) if about.starts_with("rsync  version") => format!("{what}: <version>"),
                Some((what, about)) if about.contains(" has PostgreSQL ") => {
                    let (place, rest) = about.split_once(" has PostgreSQL ").unwrap_or_default();
                    let rights = rest.rsplit_once(", ").map(|(_, rights)| rights).unwrap_or_default();
                    format!("{what}: {place} has PostgreSQL <version>, {rights}")
                }
                _ => line.to_owned(),
            }
        };
        let text = text.replace(&cdn_address, "<cdn>");
        text.lines().filter(|line| !line.starts_with("note")).map(keep).collect::<Vec<_>>().join("\n")
    };
    let good = world.slave(&["check"]);
    assert_eq!(good.code, Some(0), "{}", good.text());
    insta::assert_snapshot!("check_good", known(normal(&world, &good)));

    world.geoserver().stop();
    let bad = outcome(world.slave_command(&["check"]).envs([
        ("GEOSERVER_PGSQL_PASSWORD", "wrong"),
        ("CACHE_PATH", "/sys/borg"),
        ("BORGCOLLECTOR_SSH", "ssh -F none -p 1 -o StrictHostKeyChecking=no"),
    ]));
    insta::assert_snapshot!("check_bad", known(normal(&world, &bad)));
    let empty = crate::support::postgres::PrivatePostgres::start().empty_database().await;
    std::fs::write(&previews, "no directory").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    // What hg does by hand is not what it does for the daemon.
    let of_user = world.master.beside("hgrc");
    std::fs::write(&of_user, "[hooks]\npre-identify = false\n[auth]\nm.prefix = *\nm.password = hunter2\n").unwrap();
    let bad = outcome(world.slave_command(&["check"]).envs([
        ("GEOSERVER_PGSQL_DATABASE", empty.name()),
        ("STATUS_LISTEN", &listen),
        ("HGRCPATH", of_user.to_str().unwrap()),
        ("SYNC_SERVER", &format!("{}@127.0.0.1", Sshd::user())),
        ("SYNC_PATH", "/no/such dir"),
    ]));
    assert!(!bad.text().contains("hunter2"), "{}", bad.text());
    let bad =
        bad.says("ok       the repository it pulls from: answers").says("auth.m.prefix, auth.m.password stand outside");
    let bad =
        bad.failed().says("create extension postgis").says("PROBLEM  status page").says("another process listens");
    let bad =
        bad.says("PROBLEM  SYNC_PATH: ").says("/no/such dir: the directory is not there").says("the CACHE_PATH of");
    bad.says("PROBLEM  previews to ").says("the directory cannot be written there");
}
