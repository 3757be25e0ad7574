//! Tips, changes and contents.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use borg_slave::error::ErrorKind;
use borg_slave::state_repo::{OpenOptions, Revision, StateRepo};

use super::{Vcs, changes, content, on_both, open, options};
use crate::support::vcs::Master;

on_both!(
    odd_file_names_are_read_exactly,
    a_name_that_is_not_utf8_hides_no_other,
    a_pattern_is_a_name_like_any_other,
    only_the_net_difference_counts,
    from_null_everything_is_added,
    an_empty_repository_has_the_null_tip,
    what_reaches_the_tip_through_a_merge_counts,
    other_branches_do_not_count,
    a_missing_branch_is_named_with_those_that_exist,
    revisions_are_resolved,
    a_forgotten_revision_is_an_error_that_says_what_to_do,
    a_huge_file_arrives_whole,
    thousands_of_files_in_one_call,
    a_commit_after_opening_is_seen,
    a_folder_inside_is_told_where_the_root_is,
    a_stopped_run_reads_nothing,
);

async fn odd_file_names_are_read_exactly(vcs: Vcs) {
    let mut names = vec![
        "layers/with space.json",
        "layers/trailing ",
        "quo\"te'd.json",
        "Stra\u{df}e-\u{e9}.json",
        "Stra\u{df}e-e\u{301}.json",
        "-leading-dash",
        "[glob]*.json",
        "glob.json",
        "back\\slash",
        "tab\there",
        "path:x",
        "re:.*",
        ":(glob)y",
        "#{node}%20$HOME",
        "\u{1f5fa}/map.json",
    ];
    if vcs == Vcs::Git {
        // Mercurial refuses such a name.
        names.push("new\nline");
    }
    names.sort_unstable();
    let master = Master::new(vcs);
    for name in &names {
        master.write(name, format!("content of {name}"));
    }
    let tip = master.commit("odd names");
    let mut repo = open(&master.path()).await;

    assert_eq!(repo.files(&tip).await.unwrap(), names);
    let added: Vec<_> = names.iter().map(|name| format!("A {name}")).collect();
    assert_eq!(changes(&mut repo, &Revision::null(), &tip).await, added);
    // The answers stand in the order of the questions, also when one is asked twice.
    let mut asked: Vec<String> = names.iter().rev().map(|&name| name.to_owned()).collect();
    asked.push(names[0].to_owned());
    let contents = repo.contents(&tip, &asked).await.unwrap();
    for (name, content) in asked.iter().zip(contents) {
        assert_eq!(String::from_utf8(content.unwrap()).unwrap(), format!("content of {name}"));
    }
    repo.close().await;
}

async fn a_name_that_is_not_utf8_hides_no_other(vcs: Vcs) {
    let master = Master::new(vcs);
    master.write(Path::new(OsStr::from_bytes(b"bad\xff.json")), "bad").write("good.json", "good");
    let tip = master.commit("a Latin-1 name");
    let mut repo = open(&master.path()).await;
    let added = changes(&mut repo, &Revision::null(), &tip).await;
    assert_eq!(added, ["A bad\u{fffd}.json", "A good.json"]);
    let contents = repo.contents(&tip, &["bad\u{fffd}.json".to_owned(), "good.json".to_owned()]).await.unwrap();
    assert_eq!(contents, [None, Some(b"good".to_vec())]);
}

async fn a_pattern_is_a_name_like_any_other(vcs: Vcs) {
    let master = Master::new(vcs);
    let tip = master.write("a/b.json", "1").write("c.json", "2").commit("two");
    let mut repo = open(&master.path()).await;
    for name in ["*", "**", "", ".", "/", "a", "a/", "re:.*", "glob:**", "a/./b.json", "../c.json", "c.json\0", "x"] {
        assert_eq!(content(&mut repo, &tip, name).await, None, "{name:?}");
    }
    assert_eq!(content(&mut repo, &tip, "a/b.json").await.unwrap(), b"1");
}

async fn only_the_net_difference_counts(vcs: Vcs) {
    let master = Master::new(vcs);
    master.write("kept", "1").write("changed", "1").write("gone", "was here").write("old name", "moves");
    let first = master.write("back and forth", "1").commit("first");
    master.write("short-lived", "1").write("changed", "2").write("back and forth", "2").commit("second");
    master.remove("short-lived").remove("gone").write("back and forth", "1").write("new", "1");
    let last = master.rename("old name", "new name").commit("third");
    let mut repo = open(&master.path()).await;

    let net = ["M changed", "R gone", "A new", "A new name", "R old name"];
    assert_eq!(changes(&mut repo, &first, &last).await, net);
    let back = ["M changed", "A gone", "R new", "R new name", "A old name"];
    assert_eq!(changes(&mut repo, &last, &first).await, back);
    assert_eq!(changes(&mut repo, &last, &last).await, Vec::<String>::new());
    assert_eq!(content(&mut repo, &last, "gone").await, None);
    assert_eq!(content(&mut repo, &first, "gone").await.unwrap(), b"was here");
}

async fn from_null_everything_is_added(vcs: Vcs) {
    let master = Master::new(vcs);
    let first = master.write("a", "1").commit("first");
    let last = master.write("b", "1").commit("second");
    let mut repo = open(&master.path()).await;
    assert_eq!(changes(&mut repo, &Revision::null(), &last).await, ["A a", "A b"]);
    assert_eq!(changes(&mut repo, &last, &Revision::null()).await, ["R a", "R b"]);
    assert_eq!(repo.first_parent(&last).await.unwrap(), first);
    assert_eq!(repo.first_parent(&first).await.unwrap(), Revision::null());
    assert_eq!(repo.first_parent(&Revision::null()).await.unwrap(), Revision::null());
    assert_eq!(content(&mut repo, &Revision::null(), "a").await, None);
    assert_eq!(repo.files(&Revision::null()).await.unwrap(), Vec::<String>::new());
}

async fn an_empty_repository_has_the_null_tip(vcs: Vcs) {
    let master = Master::new(vcs);
    for branch in [None, Some(master.branch().to_owned())] {
        let mut options = options(&master.path());
        options.branch = branch;
        let mut repo = StateRepo::open(options).await.unwrap();
        assert_eq!(repo.tip().await.unwrap(), Revision::null());
        assert_eq!(repo.vcs(), vcs);
    }
    // A revision may be empty too.
    master.write("a", "1").commit("a");
    let emptied = master.remove("a").commit("nothing left");
    let mut repo = open(&master.path()).await;
    assert_eq!(repo.files(&emptied).await.unwrap(), Vec::<String>::new());
    assert_eq!(content(&mut repo, &emptied, "a").await, None);
}

async fn what_reaches_the_tip_through_a_merge_counts(vcs: Vcs) {
    let master = Master::new(vcs);
    let base = master.write("base", "1").commit("base");
    master.start_branch("side").write("side", "1").write("both", "side");
    let side = master.commit("side");
    master.update(master.branch()).write("trunk", "1").write("both", "trunk");
    let trunk = master.commit("trunk");
    let merged = master.merge("side");
    let mut repo = open(&master.path()).await;

    assert_eq!(repo.tip().await.unwrap(), merged);
    assert_eq!(repo.first_parent(&merged).await.unwrap(), trunk);
    assert_eq!(changes(&mut repo, &base, &merged).await, ["A both", "A side", "A trunk"]);
    assert_eq!(changes(&mut repo, &trunk, &merged).await, ["A side"]);
    assert_eq!(changes(&mut repo, &side, &merged).await, ["M both", "A trunk"]);
    assert_eq!(content(&mut repo, &merged, "both").await.unwrap(), b"trunk");
}

async fn other_branches_do_not_count(vcs: Vcs) {
    let master = Master::new(vcs);
    let trunk = master.write("a", "1").commit("trunk");
    let side = master.start_branch("side").write("b", "1").commit("side");
    master.update(master.branch());
    assert_eq!(open(&master.path()).await.tip().await.unwrap(), trunk);
    let mut options = options(&master.path());
    options.branch = Some("side".to_owned());
    assert_eq!(StateRepo::open(options).await.unwrap().tip().await.unwrap(), side);
}

async fn a_missing_branch_is_named_with_those_that_exist(vcs: Vcs) {
    let master = Master::new(vcs);
    master.write("a", "1").commit("trunk");
    let mut options = options(&master.path());
    options.branch = Some("production".to_owned());
    let error = StateRepo::open(options).await.unwrap().tip().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
    assert_eq!(error.message(), "the clone has no branch `production`");
    assert!(error.hint_text().unwrap().ends_with(&format!("one that it has: {}", master.branch())), "{error:?}");
}

async fn revisions_are_resolved(vcs: Vcs) {
    let master = Master::new(vcs);
    let first = master.write("a", "1").commit("first");
    let last = master.write("a", "2").commit("second");
    let mut repo = open(&master.path()).await;
    for spec in [last.as_str(), last.short(), master.branch()] {
        assert_eq!(repo.resolve(spec).await.unwrap().as_ref(), Some(&last), "{spec}");
    }
    assert_eq!(repo.resolve(first.short()).await.unwrap(), Some(first));
    assert_eq!(repo.resolve("null").await.unwrap(), Some(Revision::null()));
    for unknown in ["no-such-tag", "feedfacefeedface", &"f".repeat(40), "all() and public()", "\"", "\\"] {
        let resolved = repo.resolve(unknown).await;
        // libgit2 calls some of these malformed, which is as good an answer.
        assert!(
            matches!(&resolved, Ok(None)) || resolved.as_ref().is_err_and(|e| e.kind() == ErrorKind::Usage),
            "{unknown}: {resolved:?}"
        );
    }
    for refused in ["", "-r0", "--config=a.b=c"] {
        assert_eq!(repo.resolve(refused).await.unwrap_err().kind(), ErrorKind::Usage, "{refused}");
    }
}

async fn a_forgotten_revision_is_an_error_that_says_what_to_do(vcs: Vcs) {
    let master = Master::new(vcs);
    let tip = master.write("a", "1").commit("first");
    let mut repo = open(&master.path()).await;
    let forgotten = Revision::parse(&"ab".repeat(20)).unwrap();
    let errors = [
        repo.changes(&forgotten, &tip).await.unwrap_err(),
        repo.changes(&tip, &forgotten).await.unwrap_err(),
        repo.first_parent(&forgotten).await.unwrap_err(),
        repo.files(&forgotten).await.unwrap_err(),
        repo.contents(&forgotten, &["a".to_owned()]).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.message(), "the clone does not have this revision", "{error:?}");
        assert!(error.hint_text().unwrap().contains("--from null"));
    }
}

async fn a_huge_file_arrives_whole(vcs: Vcs) {
    let master = Master::new(vcs);
    let huge: Vec<u8> = (0..50_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let tip = master.write("huge", &huge).write("zero", "").commit("huge");
    let mut repo = open(&master.path()).await;
    let contents = repo.contents(&tip, &["zero".to_owned(), "huge".to_owned()]).await.unwrap();
    assert_eq!(contents[0].as_deref(), Some(b"".as_slice()));
    assert!(contents[1].as_deref() == Some(huge.as_slice()), "the huge file differs");
}

async fn thousands_of_files_in_one_call(vcs: Vcs) {
    let master = Master::new(vcs);
    let names: Vec<String> = (0..3000).map(|i| format!("channel/layers/workspace{}.layer{i}.json", i % 7)).collect();
    for (i, name) in names.iter().enumerate() {
        master.write(name, format!("{{\"job_id\": {i}}}"));
    }
    let tip = master.commit("many");
    let mut repo = open(&master.path()).await;
    let contents = repo.contents(&tip, &names).await.unwrap();
    for (i, content) in contents.into_iter().enumerate() {
        assert_eq!(content.unwrap(), format!("{{\"job_id\": {i}}}").into_bytes());
    }
    assert_eq!(repo.changes(&Revision::null(), &tip).await.unwrap().len(), 3000);
}

async fn a_commit_after_opening_is_seen(vcs: Vcs) {
    let master = Master::new(vcs);
    let first = master.write("a", "1").commit("first");
    let mut repo = open(&master.path()).await;
    assert_eq!(repo.tip().await.unwrap(), first);
    let second = master.write("a", "2").commit("second");
    assert_eq!(repo.tip().await.unwrap(), second);
    assert_eq!(content(&mut repo, &second, "a").await.unwrap(), b"2");
}

async fn a_folder_inside_is_told_where_the_root_is(vcs: Vcs) {
    let master = Master::new(vcs);
    master.write("channel/a", "1").commit("first");
    let error = StateRepo::open(options(&master.path().join("channel"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
    let root = master.path().canonicalize().unwrap();
    let hint = format!("the repository's root is {}: set STATE_REPOSITORY_ROOT to it", root.display());
    assert_eq!(error.hint_text().unwrap(), hint);
}

async fn a_stopped_run_reads_nothing(vcs: Vcs) {
    let master = Master::new(vcs);
    let options = options(&master.path());
    let stop = options.stop.clone();
    let mut repo = StateRepo::open(options).await.unwrap();
    stop.cancel();
    assert_eq!(repo.tip().await.unwrap_err().kind(), ErrorKind::Stopped);
}

#[tokio::test]
async fn a_place_without_repository_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    for place in [dir.path().to_owned(), dir.path().join("missing")] {
        let error = StateRepo::open(OpenOptions::new(place)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Settings);
        assert!(error.hint_text().unwrap().contains("hg clone"), "{error:?}");
    }
}

#[tokio::test]
async fn the_newest_open_head_is_the_tip_of_a_branch_with_several() {
    let master = Master::hg();
    let base = master.write("base", "1").commit("base");
    let first = master.write("first", "1").commit("first head");
    master.update(base.as_str());
    let second = master.write("second", "1").commit("second head");
    let mut repo = open(&master.path()).await;
    assert_eq!(repo.tip().await.unwrap(), second);
    assert_eq!(changes(&mut repo, &base, &second).await, ["A second"]);
    // The second head is given up.
    master.run(["hg", "commit", "-q", "--close-branch", "-m", "close"]);
    assert_eq!(repo.tip().await.unwrap(), first);
    master.update(first.as_str()).run(["hg", "commit", "-q", "--close-branch", "-m", "close"]);
    let closed = master.head();
    assert_eq!(repo.tip().await.unwrap(), closed);
}

#[tokio::test]
async fn a_command_server_that_dies_is_replaced() {
    let master = Master::hg();
    let tip = master.write("a", "1").commit("first");
    let mut repo = open(&master.path()).await;
    assert_eq!(repo.tip().await.unwrap(), tip);
    let server = server_in(&master.path()).expect("the command server runs");
    assert_eq!(repo.tip().await.unwrap(), tip);
    assert_eq!(server_in(&master.path()), Some(server), "one server answers all");
    rustix::process::kill_process(server, rustix::process::Signal::KILL).unwrap();
    assert_eq!(repo.tip().await.unwrap(), tip);
    assert_ne!(server_in(&master.path()), Some(server));
    repo.close().await;
    assert_eq!(server_in(&master.path()), None);
}

/// The `hg serve` that works in `dir`.
fn server_in(dir: &Path) -> Option<rustix::process::Pid> {
    let dir = dir.canonicalize().unwrap();
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut servers = pids.filter(|pid| {
        let at_work = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir);
        let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        at_work && String::from_utf8_lossy(&args).contains("--cmdserver")
    });
    servers.next().and_then(rustix::process::Pid::from_raw)
}

#[tokio::test]
async fn aliases_and_defaults_do_not_change_what_is_read() {
    let master = Master::hg();
    let tip = master.write("a", "1").commit("first");
    // Aliases and defaults are switched off wherever they stand, so the file that is read shows it.
    master.write(
        ".hg/hgrc",
        "[alias]\nlog = log --limit 0\nstatus = status --unknown\n[ui]\nverbose = true\n[defaults]\nlog = -v\n",
    );
    let mut repo = open(&master.path()).await;
    assert_eq!(repo.tip().await.unwrap(), tip);
    assert_eq!(changes(&mut repo, &Revision::null(), &tip).await, ["A a"]);
}

#[tokio::test]
async fn a_submodule_is_no_file_and_a_link_is() {
    let master = Master::git();
    std::os::unix::fs::symlink("target", master.path().join("link")).unwrap();
    let commit = "1".repeat(40);
    master.write("a", "1").run(["git", "update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
    master.run(["git", "add", "a", "link"]);
    master.run(["git", "commit", "-q", "-m", "first"]);
    let tip = master.head();
    let mut repo = open(&master.path()).await;
    assert_eq!(repo.files(&tip).await.unwrap(), ["a", "link"]);
    assert_eq!(changes(&mut repo, &Revision::null(), &tip).await, ["A a", "A link"]);
    assert_eq!(content(&mut repo, &tip, "sub").await, None);
    assert_eq!(content(&mut repo, &tip, "link").await.unwrap(), b"target");
}

#[tokio::test]
async fn a_head_without_branch_names_those_that_exist() {
    let master = Master::git();
    master.write("a", "1").commit("first");
    master.run(["git", "symbolic-ref", "HEAD", "refs/heads/elsewhere"]);
    let error = open(&master.path()).await.tip().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
    assert_eq!(error.hint_text(), Some("set STATE_BRANCH to one that it has: main"));
}
