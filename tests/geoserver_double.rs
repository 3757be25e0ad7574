//! The GeoServer double gives the answers that real GeoServers gave: recorded exchanges, played again in order.
//!
//! `tests/recorded/NN-topic.json` are the exchanges, `{BASE}`, `{DATE}` and `{ID}` standing for what varies; objects
//! with only a `note` are remarks. `NN-topic.play` beside them says what the recording did between the exchanges
//! and which exchanges are left out, each with its reason.

mod compare;
mod own;
mod play;
mod server;

use crate::support::geoserver::GeoServerDouble;
use play::Played;
use server::Scratch;

/// A recording and what is made of it.
struct Recording {
    name: &'static str,
    /// Exchanges whose status, headers and body are compared.
    compared: usize,
    /// Exchanges of which only status and headers are compared.
    heads: usize,
    /// Exchanges that are not played.
    left_out: usize,
}

const fn recording(name: &'static str, compared: usize, heads: usize, left_out: usize) -> Recording {
    Recording { name, compared, heads, left_out }
}

/// Not here: GeoTIFF coverages, which the double does not have; measurements of speed; and the lists of what
/// differed on Tomcat and in 2.18.2, single exchanges without those between them (see [`own`]).
const RECORDINGS: [Recording; 14] = [
    recording("01-version-auth-missing", 95, 1, 0),
    recording("02-workspaces", 45, 0, 0),
    recording("03-datastores", 71, 1, 3),
    recording("04-featuretypes", 153, 2, 0),
    recording("05-layers", 76, 1, 0),
    recording("06-styles", 182, 1, 0),
    recording("07-wms-cascade", 97, 7, 30),
    recording("08-layergroups", 130, 2, 4),
    recording("09-gwc", 117, 13, 5),
    recording("10-security", 96, 0, 2),
    recording("11-reload-reset", 8, 0, 0),
    recording("13-ows", 31, 4, 0),
    recording("15-headers-json-names", 288, 2, 12),
    recording("17-bare-names", 68, 0, 0),
];

#[tokio::test]
async fn the_double_answers_as_recorded() {
    let scratch = Scratch::start().await;
    let mut wrong = String::new();
    for Recording { name, compared, heads, left_out } in RECORDINGS {
        let double = GeoServerDouble::start();
        let played: Played = play::play(&double, &scratch, name).await;
        for mismatch in &played.mismatches {
            wrong.push_str(&format!("{name} {mismatch}\n"));
        }
        let counts = (played.compared, played.heads, played.left_out);
        if counts != (compared, heads, left_out) {
            wrong.push_str(&format!("{name}: played {counts:?} instead of {:?}\n", (compared, heads, left_out)));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
