//! The output without what differs from run to run.

use crate::support::postgres::PrivatePostgres;
use crate::support::sshd::Sshd;
use crate::support::world::{Outcome, World};

/// Exit status and output, standard output first.
pub(super) fn normal(world: &World, outcome: &Outcome) -> String {
    let text = format!("[exit status {}]\n{}{}", outcome.code.unwrap_or(-1), outcome.stdout, outcome.stderr);
    normal_text(world, &text)
}

/// `text` with names for paths, addresses, revisions, times and versions.
pub(super) fn normal_text(world: &World, text: &str) -> String {
    let mut text = text.to_owned();
    for double in &world.doubles {
        text = text.replace(&double.url(), "<geoserver>");
    }
    for (what, name) in [
        (world.clone.display().to_string(), "<clone>"),
        (world.master.path().display().to_string(), "<master>"),
        (world.download().display().to_string(), "<download>"),
        (format!("127.0.0.1:{}", PrivatePostgres::start().port()), "<database server>"),
        (format!("127.0.0.1]:{}", world.sshd.port()), "127.0.0.1]:<ssh port>"),
        (format!("port {}", world.sshd.port()), "port <ssh port>"),
        (format!("{}@127.0.0.1", Sshd::user()), "<user>@127.0.0.1"),
    ] {
        text = text.replace(&what, name);
    }
    // The name of a database is a word of its own: test_1 begins test_10.
    let database = world.database.name();
    text.split('\n').map(|line| normal_line(line, database)).collect::<Vec<_>>().join("\n")
}

fn normal_line(line: &str, database: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    for index in 0..words.len() {
        let word = words[index].clone();
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let new = if is_time(&word) {
            "<time>".to_owned()
        } else if bare == database {
            "<database>".to_owned()
        } else if bare.len() >= 12 && bare.chars().all(|c| c.is_ascii_hexdigit()) && bare.contains(char::is_numeric) {
            "<hash>".to_owned()
        } else if bare.starts_with("tmp/") || bare.starts_with("/tmp/") {
            "<path>".to_owned()
        } else if bare.parse::<f64>().is_ok() && index > 0 && words[index - 1] == "in" {
            "<n>".to_owned()
        } else if let Some((name @ ("took_ms" | "from" | "to" | "changes"), _)) = word.split_once('=') {
            words[index] = format!("{name}=<…>");
            continue;
        } else {
            continue;
        };
        words[index] = word.replace(if new == "<time>" { &word } else { bare }, &new).replace("/<path>", "<path>");
    }
    words.join(" ").trim_end().to_owned()
}

/// The three layers by the order in which they come: which job ends first is chance.
pub(super) fn any_order(text: &str) -> String {
    let names = ["cadastre.roads", "cadastre.lots", "parks.tracks", "parks.photos"];
    let mut met: Vec<&str> = Vec::new();
    for line in text.lines().filter(|line| line.contains("ERROR") || line.contains("succeeded")) {
        let mut here: Vec<_> = names.iter().filter_map(|name| Some((line.find(name)?, *name))).collect();
        here.sort_unstable();
        for (_, name) in here {
            if !met.contains(&name) {
                met.push(name);
            }
        }
    }
    let mut text = text.to_owned();
    for (index, name) in met.iter().enumerate() {
        text = text.replace(name, &format!("layer.{}", ["one", "two", "three", "four"][index]));
    }
    let mut lines: Vec<&str> = text.lines().collect();
    // Of each run of lines about jobs or roles only what stands there counts.
    let is_loose =
        |line: &&str| line.contains("changed the roles") || line.contains(" succeeded") && !line.contains("=");
    let mut loose: Vec<&str> = lines.iter().copied().filter(|line| is_loose(line)).collect();
    loose.sort_unstable();
    let mut loose = loose.into_iter();
    for line in &mut lines {
        if is_loose(line) {
            *line = loose.next().unwrap_or_default();
        }
    }
    lines.join("\n")
}

fn is_time(word: &str) -> bool {
    word.len() > 20 && word.starts_with("20") && word.contains('T') && word.ends_with('Z')
}
