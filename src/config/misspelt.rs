//! Variables that look like settings but are none.

use super::variables::{VARIABLES, find};

/// First parts of names that mark a variable of the environment as probably meant for this program.
const PREFIXES: &[&str] = &[
    "BORGCOLLECTOR_",
    "BORG_",
    "CACHE_",
    "CODE_",
    "FASTLY_",
    "FEATURE_",
    "GEOSERVER_",
    "HOOK_",
    "KEEP_",
    "LAYERGROUP_",
    "LISTEN_",
    "MASTER_PGSQL_",
    "PARALLEL_",
    "POLL_",
    "PREVIEW_",
    "SHARE_",
    "SKIP_",
    "SLAVE_",
    "STATE_",
    "STEP_",
    "SYNC_",
    "TRANSFER_",
    "WMS_",
];

/// The warning that a variable of the environment deserves: only one that is close to a setting.
pub(super) fn in_environment(name: &str) -> Option<String> {
    if find(name).is_some() || !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    nearest(name).map(|meant| format!("{name} (environment) is not a setting; did you mean {meant}?"))
}

/// The warning that an assignment of a `.env` file deserves: nobody else reads that file.
pub(super) fn in_file(name: &str, place: &str) -> Option<String> {
    if find(name).is_some() {
        return None;
    }
    Some(match nearest(name) {
        Some(meant) => format!("{name} ({place}) is not a setting; did you mean {meant}?"),
        None => format!("{name} ({place}) is not a setting and has no effect: the file is read for settings only"),
    })
}

/// The setting that `name` is probably meant to be.
fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase();
    // One slip in a short name, one more for each six further letters.
    let slips = (name.len() / 6).clamp(1, 4);
    VARIABLES
        .iter()
        .map(|variable| (strsim::damerau_levenshtein(&name, variable.name), variable.name))
        .filter(|(distance, known)| *distance <= slips || is_cut_short(&name, known))
        .min()
        .map(|(_, known)| known)
}

/// `GEOSERVER_USER` for `GEOSERVER_USERNAME`: the last word has lost its end.
fn is_cut_short(name: &str, known: &str) -> bool {
    let last_word = name.rsplit('_').next().unwrap_or_default();
    last_word.len() >= 3 && known.strip_prefix(name).is_some_and(|rest| !rest.starts_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_met_with_the_name_meant() {
        for (written, meant) in [
            ("GEOSERVER_URLS", "GEOSERVER_URL"),
            ("GEOSERVER_USER", "GEOSERVER_USERNAME"),
            ("GEOSERVER_PASS", "GEOSERVER_PASSWORD"),
            ("GEOSERVER_PSQL_HOST", "GEOSERVER_PGSQL_HOST"),
            ("SKIP_RULE", "SKIP_RULES"),
            ("LISTEN_CHANELS", "LISTEN_CHANNELS"),
            ("SYNC_SEVRER", "SYNC_SERVER"),
            ("STATE_REPO_ROOT", ""),
        ] {
            let warning = in_environment(written);
            assert_eq!(warning.is_none(), meant.is_empty(), "{warning:?}");
            assert!(warning.unwrap_or_default().ends_with(&format!("did you mean {meant}?")) || meant.is_empty());
        }
        assert!(in_file("debug", ".env:1").unwrap().contains("did you mean DEBUG?"));
    }

    #[test]
    fn what_belongs_to_others_is_left_alone() {
        for name in ["GEOSERVER_HOME", "GEOSERVER_TEST_URL", "GEOSERVER_OPTS", "JAVA_HOME", "DEBUGS", "GEOSERVER_URL"] {
            assert_eq!(in_environment(name), None);
        }
        assert!(in_file("JAVA_HOME", ".env:1").unwrap().contains("no effect"));
    }
}
