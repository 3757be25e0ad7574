//! What jobs are chosen by: the channels and the filters, as they were in the last pass and as they are now.

use std::collections::BTreeSet;

use crate::config::Settings;
use crate::error::Result;
use crate::journal::Journal;
use crate::plan::hex_md5;

/// The target under which the journal keeps the channels whose job files were all taken.
const CHANNELS: &str = "channels";

/// The target, and the key, under which the journal keeps what the filters were when they were last asked.
const FILTERS: (&str, &str) = ("filters", "md5");

/// How the choice of jobs differs from that of the last pass.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The channels of the settings.
    channels: BTreeSet<String>,
    /// The channels on record.
    taken: BTreeSet<String>,
    filters: String,
    filters_differ: bool,
}

impl Standing {
    /// Compares the settings with what is on record; reads a few lines.
    pub(super) fn read(settings: &Settings, journal: &Journal) -> Result<Self> {
        let filters = hex_md5(crate::wire::filters_text(settings)?.as_bytes());
        Ok(Self {
            channels: settings.channels.iter().cloned().collect(),
            taken: journal.marker_keys(CHANNELS)?.into_iter().collect(),
            filters_differ: journal.marker(FILTERS.0, FILTERS.1)?.as_ref() != Some(&filters),
            filters,
        })
    }

    /// Channels of which only what changes from now on would be taken. Where no channel is on record, all of them
    /// were listened to from the beginning.
    pub(super) fn new_channels(&self) -> BTreeSet<&str> {
        let news = self.channels.iter().filter(|channel| !self.taken.is_empty() && !self.taken.contains(*channel));
        news.map(String::as_str).collect()
    }

    /// The filters were never asked, or were other ones when they were.
    pub(super) fn filters_differ(&self) -> bool {
        self.filters_differ
    }

    /// All job files of the channels were taken.
    pub(super) fn channels_are_taken(&self, journal: &Journal) -> Result<()> {
        for channel in self.channels.difference(&self.taken) {
            journal.set_marker(CHANNELS, channel, "taken")?;
        }
        // Whoever listens to it again has missed what happened meanwhile.
        self.taken.difference(&self.channels).try_for_each(|channel| journal.clear_marker(CHANNELS, channel))
    }

    /// The filters were asked about all that they had left out.
    pub(super) fn filters_were_asked(&self, journal: &Journal) -> Result<()> {
        if self.filters_differ { journal.set_marker(FILTERS.0, FILTERS.1, &self.filters) } else { Ok(()) }
    }
}
