//! Memory does not grow with the size of a dump. `BIG_DUMP_MEGABYTES=1100` makes the dump that big.

use std::io::Read as _;
use std::process::{Command, Stdio};

use borg_slave::state_repo::Vcs;

use crate::support::world::{Layer, World, outcome};

/// What the process may take at most, in KiB, however big the dump is.
const MOST_KIB: u64 = 100 * 1024;

/// Runs a command to its end; answers the most memory it ever had (`VmHWM`), in KiB.
fn peak_memory(command: &mut Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut said = String::new();
        pipe.read_to_string(&mut said).unwrap();
        said
    });
    let (status_file, mut peak) = (format!("/proc/{}/status", child.id()), 0);
    loop {
        let status = std::fs::read_to_string(&status_file).unwrap_or_default();
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak = peak.max(high.map_or(0, |high| high.trim().parse().unwrap()));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{}", said.join().unwrap());
            return peak;
        }
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_dump_passes_with_little_memory() {
    let world = World::start(Vcs::Hg).await;
    let megabytes: u32 = std::env::var("BIG_DUMP_MEGABYTES").map_or(40, |text| text.parse().unwrap());
    // Two megabytes pass through the same programs and buffers.
    let (few, _) = pass(&world, "snapshots", 2).await;
    let (many, bytes) = pass(&world, "photos", megabytes).await;
    println!("a dump of {} MiB took {} MiB at most, one of 2 MiB {} MiB", bytes >> 20, many >> 10, few >> 10);
    assert!(many < MOST_KIB, "{many} KiB for a dump of {bytes} bytes");
    // What a program takes varies; a dump in its memory would add all of its length.
    let more = many.saturating_sub(few);
    assert!(more < bytes / 1024 / 3, "{few} KiB for 2 MiB, and {many} KiB for a dump of {bytes} bytes");
}

/// Publishes a layer of so many megabytes; answers the most memory in KiB that it took, and the dump's length.
async fn pass(world: &World, name: &str, megabytes: u32) -> (u64, u64) {
    // 64 KiB of noise a row, which no compression makes smaller.
    let noise = format!(
        "alter table {{}} add noise bytea; update {{}} as row set noise = piece from (select n, string_agg(\
         sha512(convert_to(n || '-' || m, 'utf8')), '') as piece from generate_series(1, {0}) as n, \
         generate_series(1, 1024) as m group by n) as pieces where pieces.n = row.id",
        megabytes * 16
    );
    let files = world.publish(&Layer::new("parks", name).dump(|dump| dump.rows(megabytes * 16).sql(&noise))).await;
    let bytes = std::fs::metadata(&files.dump).unwrap().len();
    assert!(bytes >= u64::from(megabytes) << 20, "{bytes}");
    world.commit(name);
    let pull = ["pull", "-q", "--config", "hooks.pretxnchangegroup.borg="];
    outcome(&mut world.master.command(&world.clone, [&["hg"], &pull[..]].concat())).succeeded();
    let peak = peak_memory(&mut world.slave_command(&["sync"]));
    (peak, bytes)
}
