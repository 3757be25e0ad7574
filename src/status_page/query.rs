//! What callers ask for behind the `?`: the same on pages and in `/api/`.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::journal::{Order, State};

/// How many jobs stand on a page unless the caller says otherwise.
const PER_PAGE: u32 = 50;

/// How many jobs stand on a page at most.
const MOST_PER_PAGE: u32 = 500;

/// The longest text that is searched for, in bytes.
const MOST_SEARCHED: usize = 200;

/// What stays as it is in an address.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    state: Option<String>,
    q: Option<String>,
    sort: Option<String>,
    page: Option<u64>,
    per_page: Option<u32>,
}

/// As understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct JobQuery {
    /// In one of these states; in any when empty.
    pub(super) states: Vec<State>,
    pub(super) search: String,
    pub(super) order: Order,
    /// From 1.
    pub(super) page: u64,
    pub(super) per_page: u32,
}

impl TryFrom<Asked> for JobQuery {
    type Error = String;

    fn try_from(asked: Asked) -> Result<Self, String> {
        let words = asked.state.unwrap_or_default();
        let states: Result<Vec<State>, String> = words
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(|word| State::from_word(word).ok_or_else(|| format!("{word:?} is no state of a job")))
            .collect();
        let order = match asked.sort.as_deref() {
            None | Some("" | "newest") => Order::Newest,
            Some("name") => Order::File,
            Some(other) => return Err(format!("jobs are sorted by `newest` or `name`, not by {other:?}")),
        };
        let search = asked.q.unwrap_or_default().trim().to_owned();
        if search.len() > MOST_SEARCHED {
            return Err(format!("texts of up to {MOST_SEARCHED} bytes are searched for"));
        }
        Ok(Self {
            states: states?,
            search,
            order,
            page: asked.page.unwrap_or(1).max(1),
            per_page: asked.per_page.unwrap_or(PER_PAGE).clamp(1, MOST_PER_PAGE),
        })
    }
}

impl JobQuery {
    /// How many jobs stand on earlier pages.
    pub(super) fn skip(&self) -> u64 {
        (self.page - 1).saturating_mul(self.per_page.into())
    }

    /// How many pages `found` jobs fill; at least one.
    pub(super) fn pages(&self, found: u64) -> u64 {
        found.div_ceil(self.per_page.into()).max(1)
    }

    /// The address of another page of the same.
    pub(super) fn address(&self, path: &str, page: u64) -> String {
        let mut address = path.to_owned();
        let mut sign = '?';
        let mut add = |name: &str, value: &str| {
            // A `String` takes every write.
            let _ = write!(address, "{sign}{name}={}", utf8_percent_encode(value, PLAIN));
            sign = '&';
        };
        if !self.states.is_empty() {
            add("state", &self.states.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(","));
        }
        if !self.search.is_empty() {
            add("q", &self.search);
        }
        if self.order == Order::File {
            add("sort", "name");
        }
        if self.per_page != PER_PAGE {
            add("per_page", &self.per_page.to_string());
        }
        if page > 1 {
            add("page", &page.to_string());
        }
        address
    }

    /// The same with another choice of states, from its first page.
    pub(super) fn with_states(&self, states: &[State]) -> Self {
        Self { states: states.to_vec(), page: 1, ..self.clone() }
    }
}

/// The address of what is known of a job below `root`; slashes stay, everything odd is encoded.
pub(super) fn job_address(root: &str, job_file: &str) -> String {
    let segments: Vec<String> =
        job_file.split('/').map(|segment| utf8_percent_encode(segment, PLAIN).to_string()).collect();
    format!("{root}/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(state: &str, q: &str, page: u64) -> Asked {
        Asked { state: Some(state.into()), q: Some(q.into()), page: Some(page), ..Asked::default() }
    }

    #[test]
    fn states_and_orders_are_words_of_a_list() {
        let query = JobQuery::try_from(asked("failed, interrupted", " röads ", 0)).unwrap();
        assert_eq!(query.states, [State::Failed, State::Interrupted]);
        assert_eq!((query.search.as_str(), query.page, query.skip(), query.per_page), ("röads", 1, 0, 50));
        assert!(JobQuery::try_from(asked("broken", "", 1)).unwrap_err().contains("broken"));
        let sorted = Asked { sort: Some("size".into()), per_page: Some(0), ..Asked::default() };
        assert!(JobQuery::try_from(sorted).is_err());
        let most = Asked { per_page: Some(u32::MAX), page: Some(u64::MAX), ..Asked::default() };
        let most = JobQuery::try_from(most).unwrap();
        assert_eq!((most.per_page, most.skip()), (500, u64::MAX));
    }

    #[test]
    fn pages_are_counted_from_one_and_never_none() {
        let query = JobQuery::try_from(asked("", "", 3)).unwrap();
        assert_eq!((query.skip(), query.pages(0), query.pages(50), query.pages(51)), (100, 1, 1, 2));
        let odd = JobQuery::try_from(asked("failed", "a&b=c#d <x>", 2)).unwrap();
        assert_eq!(odd.address("/jobs", 2), "/jobs?state=failed&q=a%26b%3Dc%23d%20%3Cx%3E&page=2");
        assert_eq!(odd.with_states(&[]).address("/jobs", 1), "/jobs?q=a%26b%3Dc%23d%20%3Cx%3E");
    }

    proptest! {
        #[test]
        fn an_address_leads_back_to_its_job(name in "\\PC{1,30}") {
            let job_file = format!("geoserver/layers/{name}.json");
            let url = url::Url::parse(&format!("http://h{}", job_address("/jobs", &job_file))).unwrap();
            let path = percent_encoding::percent_decode_str(url.path()).decode_utf8().unwrap().into_owned();
            prop_assume!(!name.split('/').any(|part| part == "." || part == ".."));
            prop_assert_eq!(path, format!("/jobs/{job_file}"));
            prop_assert!(url.query().is_none() && url.fragment().is_none());
        }
    }
}
