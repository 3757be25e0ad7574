//! The GeoServer double gives the answers that real GeoServers gave: recorded exchanges, played again in order.
//!
//! `tests/recorded/NN-topic.json` are the exchanges, `{BASE}`, `{DATE}` and `{ID}` standing for what varies; objects
//! with only a `note` are remarks. `NN-topic.play` beside them says what the recording did between the exchanges
//! and which exchanges are left out, each with its reason.

mod compare;
mod play;
mod server;

use crate::support::geoserver::{Flavour, GeoServerDouble, Options, Pace, Version};
use play::Played;
use server::Scratch;

/// What is played of each recording: file, exchanges compared, exchanges left out.
const RECORDINGS: [(&str, usize, usize); 14] = [
    ("01-version-auth-missing", 0, 0),
    ("02-workspaces", 0, 0),
    ("03-datastores", 0, 0),
    ("04-featuretypes", 0, 0),
    ("05-layers", 0, 0),
    ("06-styles", 0, 0),
    ("07-wms-cascade", 0, 0),
    ("08-layergroups", 0, 0),
    ("09-gwc", 0, 0),
    ("10-security", 0, 0),
    ("11-reload-reset", 0, 0),
    ("13-ows", 0, 0),
    ("15-headers-json-names", 0, 0),
    ("17-bare-names", 0, 0),
];

#[tokio::test]
async fn the_double_answers_as_recorded() {
    let scratch = Scratch::start().await;
    let only = std::env::var("RECORDING").unwrap_or_default();
    let mut wrong = String::new();
    for (name, compared, left_out) in RECORDINGS.into_iter().filter(|(name, ..)| name.starts_with(&only)) {
        let double = GeoServerDouble::start();
        let played: Played = play::play(&double, &scratch, name).await;
        for mismatch in &played.mismatches {
            wrong.push_str(&format!("{name} {mismatch}\n"));
        }
        if (played.compared, played.left_out) != (compared, left_out) || !played.mismatches.is_empty() {
            wrong.push_str(&format!(
                "{name}: {} compared ({} expected), {} differ, {} left out ({} expected)\n",
                played.compared,
                compared,
                played.mismatches.len(),
                played.left_out,
                left_out
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
