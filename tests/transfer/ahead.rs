//! Dumps come ahead of their use, but not all of them at once.

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::timeout;

use super::*;

/// A file that is no dump.
fn small(location: &str, md5: Md5) -> Request {
    Request {
        cache_name: CacheName::meta("ws", "m").unwrap(),
        what: "metadata".to_owned(),
        ..request(location, "m", Some(md5))
    }
}

#[tokio::test]
async fn dumps_wait_for_room_and_hold_up_nothing_else() {
    for without_rsync in [false, true] {
        let sshd = Sshd::start_with(Knobs { without_rsync, ..Knobs::default() }).await;
        let place = Place::new();
        let sums: Vec<Md5> = (0..8).map(|n| place.put(&format!("{n}.db"), noise(1_000_000, n))).collect();
        // It stands behind the dumps wherever files are sorted.
        let meta = place.put("z.json", "{}");
        let transfer = Transfer::new(Options { ahead: 1_500_000, ..place.options(sshd.ssh_command()) }).unwrap();
        let mut dumps: FuturesUnordered<_> = sums
            .iter()
            .enumerate()
            .map(|(n, sum)| {
                transfer.fetch(request(&sshd.location(place.master(&format!("{n}.db"))), &n.to_string(), Some(*sum)))
            })
            .collect();
        let metadata = transfer.fetch(small(&sshd.location(place.master("z.json")), meta));
        tokio::pin!(metadata);
        // Nothing is used until the metadata are here.
        let mut here = Vec::new();
        loop {
            tokio::select! {
                Some(dump) = dumps.next() => here.push(dump.unwrap()),
                found = &mut metadata => break transfer.discard(&found.unwrap()).unwrap(),
            }
        }
        while !here.is_empty() || !dumps.is_empty() {
            for used in here.drain(..) {
                transfer.discard(&used).unwrap();
            }
            here.extend(dumps.next().await.map(Result::unwrap));
        }
        assert_eq!(place.cached(), [""; 0]);
        transfer.close().await;
    }
}

#[tokio::test]
async fn who_keeps_a_dump_can_let_others_come_and_the_largest_comes_alone() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let sums = ["a", "b"].map(|name| place.put(&format!("{name}.db"), noise(1_000_000, 1)));
    let transfer = Transfer::new(Options { ahead: 1000, ..place.options(sshd.ssh_command()) }).unwrap();
    let dump =
        |name: &str, sum| transfer.fetch(request(&sshd.location(place.master(&format!("{name}.db"))), name, Some(sum)));
    let first = dump("a", sums[0]).await.unwrap();
    let ((), second) = tokio::join!(async { first.lets_others_come() }, dump("b", sums[1]));
    second.unwrap();
    // Files of this machine are no others.
    let third = transfer.fetch(request(place.master("a.db").to_str().unwrap(), "c", Some(sums[0])));
    third.await.unwrap();
    assert_eq!(place.cached().len(), 3);
    transfer.close().await;
}

#[tokio::test]
async fn a_full_disk_waits_for_what_is_in_use() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let sums = [1, 2].map(|n| place.put(&format!("{n}.db"), noise(700_000, n)));
    let _disk = SmallDisk::mount(&place.cache()).await;
    let transfer = Transfer::new(place.options(sshd.ssh_command())).unwrap();
    let dump = |n: usize| {
        let location = sshd.location(place.master(&format!("{n}.db")));
        transfer.fetch(request(&location, &n.to_string(), Some(sums[n - 1])))
    };
    let first = dump(1).await.unwrap();
    let second = dump(2);
    tokio::pin!(second);
    assert!(timeout(Duration::from_millis(500), &mut second).await.is_err(), "it waits, or has not come that far");
    transfer.discard(&first).unwrap();
    drop(first);
    assert_whole(&second.await.unwrap(), &noise(700_000, 2));
    transfer.close().await;
}
