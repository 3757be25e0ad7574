//! Where a file is taken from: the cache, another slave, this machine, a mounted directory.

use std::os::unix::fs::MetadataExt as _;

use super::*;

#[tokio::test]
async fn what_is_in_the_cache_is_not_fetched() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let sum = place.put("a.db", "content");
    let wanted = request(&sshd.location(place.master("a.db")), "a", Some(sum));
    let transfer = Transfer::new(place.options(sshd.ssh_command())).unwrap();
    let first = transfer.fetch(wanted.clone()).await.unwrap();
    std::fs::remove_file(place.master("a.db")).unwrap();
    let second = transfer.fetch(wanted.clone()).await.unwrap();
    assert_eq!((second.from, &second.path), (Origin::Cache, &first.path));
    // A damaged file in the cache does not count.
    std::fs::write(&first.path, "c0ntent").unwrap();
    assert_eq!(transfer.fetch(wanted.clone()).await.unwrap_err().kind(), ErrorKind::Missing);
    place.put("a.db", "content");
    let third = transfer.fetch(wanted).await.unwrap();
    assert_eq!(third.from, Origin::Master);
    transfer.discard(&third).unwrap();
    assert!(place.cached().is_empty());
}

#[tokio::test]
async fn two_contents_that_share_a_name_do_not_replace_each_other_while_in_use() {
    let place = Place::new();
    let (one, two) = (place.put("1.db", "one"), place.put("2.db", "two"));
    let transfer = Transfer::new(place.options(vec!["ssh".to_owned()])).unwrap();
    let fetch = |file: &str, sum| transfer.fetch(request(place.master(file).to_str().unwrap(), "a", Some(sum)));
    let (first, second) = tokio::join!(fetch("1.db", one), fetch("2.db", two));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_whole(&first, b"one");
    assert_whole(&second, b"two");
    assert_eq!(first.from, Origin::Local);
    drop((first, second));
    assert_eq!(fetch("2.db", two).await.unwrap().path, place.cache().join("ws.a.db"));
}

#[tokio::test]
async fn files_come_from_another_slave_first_under_any_of_its_names() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let peer_dir = place.dir.path().join("peer");
    std::fs::create_dir(&peer_dir).unwrap();
    let peer = |name: &str, content: &str| std::fs::write(peer_dir.join(name), content).unwrap();
    peer("ws.new.db", "new");
    peer("old.db", "old");
    peer("ws.tarred.db", "something else");
    peer("tarred.tar", "tarred");
    peer("ws.stale.db", "stale");
    let fresh = place.put("stale.db", "fresh");
    peer("ws.open.db", "any of this workspace");
    peer("unsure.db", "perhaps another workspace's");
    place.put("unsure.db", "unsure");
    let options = Options {
        sync_server: Some(SyncServer {
            remote: format!("{}@127.0.0.1", Sshd::user()),
            path: format!("{}/", peer_dir.display()),
        }),
        ..place.options(sshd.ssh_command())
    };
    let transfer = Transfer::new(options).unwrap();
    let ask = |name: &str, sum| transfer.fetch(request(&sshd.location(place.master(&format!("{name}.db"))), name, sum));
    let fetch = |name: &str, sum| ask(name, Some(sum));
    let (new, old, tarred, stale) = tokio::join!(
        fetch("new", Md5::of(b"new")),
        fetch("old", Md5::of(b"old")),
        fetch("tarred", Md5::of(b"tarred")),
        fetch("stale", fresh),
    );
    for (fetched, content) in [(new, "new"), (old, "old"), (tarred, "tarred")] {
        let fetched = fetched.unwrap();
        assert_eq!(fetched.from, Origin::SyncServer, "{content}");
        assert_whole(&fetched, content.as_bytes());
    }
    let stale = stale.unwrap();
    assert_eq!(stale.from, Origin::Master);
    assert_whole(&stale, b"fresh");
    // Without a checksum only the name with the workspace tells whose file it is.
    let (open, unsure) = tokio::join!(ask("open", None), ask("unsure", None));
    assert_whole(&open.unwrap(), b"any of this workspace");
    assert_whole(&unsure.unwrap(), b"unsure");
    let error = fetch("nowhere", fresh).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing, "{}", error.paragraph());
    assert!(error.hint_text().unwrap().contains("SYNC_SERVER was asked first: it has ws.nowhere.db under none of its"));
    std::fs::remove_file(place.master("stale.db")).unwrap();
    std::fs::remove_dir_all(place.cache()).unwrap();
    let error = fetch("stale", fresh).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("other content under the name ws.stale.db"), "{}", error.paragraph());
}

#[tokio::test]
async fn when_the_other_slave_refuses_the_master_delivers_or_both_are_named() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let sum = place.put("a.db", "a");
    let options = Options {
        sync_server: Some(SyncServer { remote: "no-such-user@127.0.0.1".to_owned(), path: "/dumps".to_owned() }),
        ..place.options(sshd.ssh_command())
    };
    let transfer = Transfer::new(options).unwrap();
    let fetched = transfer.fetch(request(&sshd.location(place.master("a.db")), "a", Some(sum))).await.unwrap();
    assert_eq!(fetched.from, Origin::Master);
    let error = transfer.fetch(request(&sshd.location(place.master("b.db")), "b", Some(sum))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(error.hint_text().unwrap().contains("SYNC_SERVER"), "{}", error.paragraph());
}

#[tokio::test]
async fn local_files_are_copied_and_checked_and_left_alone() {
    let place = Place::new();
    let sum = place.put("a.db", "local");
    let transfer = Transfer::new(place.options(vec!["ssh".to_owned()])).unwrap();
    let fetch = |file: &str, sum| transfer.fetch(request(place.master(file).to_str().unwrap(), "a", Some(sum)));
    let fetched = fetch("a.db", sum).await.unwrap();
    assert_whole(&fetched, b"local");
    assert_ne!(std::fs::metadata(&fetched.path).unwrap().ino(), std::fs::metadata(place.master("a.db")).unwrap().ino());
    transfer.discard(&fetched).unwrap();
    let replaced = fetch("a.db", Md5::of(b"older")).await.unwrap_err();
    assert!(replaced.message().contains("replaced"), "{}", replaced.paragraph());
    assert_eq!(fetch("missing.db", sum).await.unwrap_err().kind(), ErrorKind::Missing);
    assert_eq!(std::fs::read(place.master("a.db")).unwrap(), b"local");
    assert!(place.cached().is_empty());
}

#[tokio::test]
async fn shared_data_are_read_in_place_and_stay_untouched() {
    let place = Place::new();
    let sum = place.put("a.db", "shared");
    let before = std::fs::metadata(place.master("a.db")).unwrap();
    let options = Options { share_layer_data: true, ..place.options(vec!["ssh".to_owned()]) };
    let transfer = Transfer::new(options).unwrap();
    let location = format!("borg@no-such-host:{}", place.master("a.db").display());
    let fetched = transfer.fetch(request(&location, "a", Some(sum))).await.unwrap();
    assert_eq!((fetched.from, &fetched.path), (Origin::Shared, &place.master("a.db")));
    transfer.discard(&fetched).unwrap();
    let after = std::fs::metadata(place.master("a.db")).unwrap();
    assert_eq!((before.ino(), before.ctime_nsec(), before.nlink()), (after.ino(), after.ctime_nsec(), after.nlink()));
    assert!(!place.cache().exists());
    let error = transfer.fetch(request(&location, "a", Some(Md5::of(b"other")))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Checksum);
    // The master may write into it, put another one in its place, or delete it while it is read.
    fetched.check_unchanged().unwrap();
    let path = place.master("a.db");
    let changes: [&dyn Fn(); 3] = [
        &|| std::fs::write(&path, "written").unwrap(),
        &|| {
            std::fs::write(place.master("new"), "shared").unwrap();
            std::fs::rename(place.master("new"), &path).unwrap();
        },
        &|| std::fs::remove_file(&path).unwrap(),
    ];
    for change in changes {
        place.put("a.db", "shared");
        let fetched = transfer.fetch(request(&location, "a", Some(sum))).await.unwrap();
        change();
        let error = fetched.check_unchanged().unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Checksum, "the file was changed while it was read"));
    }
}
