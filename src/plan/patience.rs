//! What a daemon leaves for later: failed jobs whose time has not come.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::order::{Subject, subject};
use super::{Plan, PlannedJob};
use crate::journal::{Known, State};

/// How long somebody who comes back by himself lets failed jobs rest.
#[derive(Debug, Clone)]
pub struct Patience {
    /// The pause after the first failure of a job, the second, and so on; the last one goes on. Never empty.
    pub pauses: Vec<Duration>,
    /// Failed jobs rest until their time has come; otherwise all are tried now.
    pub failed_rest: bool,
    /// What the settings left out before is left out again: they have not changed since.
    pub settings_stand: bool,
    /// What earlier runs left that no single job is about is left once more.
    pub leave_loose_ends: bool,
}

impl Patience {
    /// When a job that has failed `attempts` times is to be tried again.
    #[must_use]
    pub fn next_try(&self, now: Timestamp, attempts: u32) -> Timestamp {
        let last = self.pauses.len().saturating_sub(1);
        let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(last).min(last);
        now.checked_add(self.pauses.get(index).copied().unwrap_or_default()).unwrap_or(Timestamp::MAX)
    }

    /// Whether the job's time has not come.
    fn rests(&self, known: &Known, now: Timestamp) -> bool {
        match known.state {
            State::Failed => known.next_try.filter(|_| self.failed_rest).is_some_and(|at| {
                let longest = self.pauses.iter().max().copied().unwrap_or_default();
                // A time beyond all pauses was noted by a clock that has been set back since.
                at > now && now.checked_add(longest).is_ok_and(|latest| at <= latest)
            }),
            State::Filtered | State::Waiting => self.settings_stand,
            State::Succeeded | State::Running | State::Interrupted | State::Forgotten => false,
        }
    }
}

/// Takes out of the plan what is to rest. A changed job never does, nor one that follows a job that
/// runs, has failed for want of another, or is about the same as one that runs.
pub(super) fn postpone(plan: &mut Plan, known: &HashMap<String, Known>, patience: &Patience, now: Timestamp) {
    let of = |job: &PlannedJob| known.get(&job.file.path).filter(|known| job.is_of(known));
    let mut rests: Vec<bool> =
        plan.jobs.iter().map(|job| of(job).is_some_and(|known| patience.rests(known, now))).collect();
    loop {
        let running: HashSet<Subject> =
            plan.jobs.iter().zip(&rests).filter(|(_, rests)| !**rests).map(|(job, _)| subject(job)).collect();
        if running.is_empty() {
            break;
        }
        // What a removal leaves to another job, that one must be asked.
        let asked = plan.jobs.iter().zip(&rests).filter(|(_, rests)| !**rests);
        let asked: HashSet<usize> = asked.flat_map(|(job, _)| &job.replaced_by).map(|&(other, _)| other).collect();
        let woken: Vec<usize> = (0..plan.jobs.len())
            .filter(|&index| {
                let job = &plan.jobs[index];
                rests[index]
                    && (running.contains(&subject(job))
                        || asked.contains(&index)
                        || of(job).is_some_and(|known| {
                            known.state == State::Failed
                                && (known.waits_for_others || job.after.iter().any(|&before| !rests[before]))
                        }))
            })
            .collect();
        if woken.is_empty() {
            break;
        }
        for index in woken {
            rests[index] = false;
        }
    }
    let mut place = 0;
    let places: Vec<Option<usize>> = rests
        .iter()
        .map(|rests| {
            let own = (!rests).then_some(place);
            place += usize::from(!rests);
            own
        })
        .collect();
    for (mut job, rests) in std::mem::take(&mut plan.jobs).into_iter().zip(rests) {
        if rests {
            let has_failed = of(&job).is_some_and(|known| known.state == State::Failed);
            let list = if has_failed { &mut plan.postponed } else { &mut plan.done };
            list.push(job.file.path);
        } else {
            job.after = job.after.iter().filter_map(|&before| places[before]).collect();
            // None of these rests: they are about the same as this one, which runs.
            for others in [&mut job.unless, &mut job.replaced_by] {
                others.retain_mut(|(other, _)| places[*other].map(|place| *other = place).is_some());
            }
            plan.jobs.push(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Again, Candidate, hex_md5, plan};
    use super::*;
    use crate::job;

    const PUBLISH: &str = r#"{"job_id": 1, "meta": {"file": "m:/a.json", "md5": "0cc175b9c0f1b6a831c399e269772661"}}"#;
    const GROUP: &str = r#"{"name": "g", "workspace": "w", "title": "", "abstract": "", "srs": "EPSG:4326",
        "layers": [{"type": "publish", "name": "a", "workspace": "w"}], "dependent_groups": []}"#;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn after(seconds: u64) -> Timestamp {
        NOW + Duration::from_secs(seconds)
    }

    fn patience() -> Patience {
        Patience {
            pauses: vec![Duration::from_secs(60), Duration::from_secs(120)],
            failed_rest: true,
            settings_stand: true,
            leave_loose_ends: false,
        }
    }

    /// Of jobs of this content, with the state and time of each: which run, and which rest.
    fn split(
        jobs: &[(&str, &str, State, Option<Timestamp>, bool)],
        changed: &str,
        now: Timestamp,
    ) -> (Vec<String>, Vec<String>) {
        let candidate = |path: &str, content: &str| Candidate {
            file: job::classify(path, &["geoserver".to_owned()]).unwrap(),
            deleted: false,
            content: content.into(),
            revision: "f00".into(),
        };
        let known = jobs.iter().map(|(path, content, state, next_try, waits_for_others)| {
            let known = Known {
                content_md5: if *path == changed { String::new() } else { hex_md5(content.as_bytes()) },
                action: "publish".into(),
                state: *state,
                attempts: 1,
                next_try: *next_try,
                waits_for_others: *waits_for_others,
            };
            ((*path).to_owned(), known)
        });
        let known = known.collect();
        let candidates = jobs.iter().map(|(path, content, ..)| candidate(path, content)).collect();
        let mut plan = plan(candidates, &known, Again::Never);
        plan.postpone(&known, &patience(), now);
        for job in &plan.jobs {
            assert!(job.after.iter().all(|&before| before < plan.jobs.len()), "{:?}", job.after);
        }
        plan.postponed.extend(plan.done);
        (plan.jobs.into_iter().map(|job| job.file.path).collect(), plan.postponed)
    }

    const A: &str = "geoserver/layers/w.a.json";
    const B: &str = "geoserver/layers/w.b.json";
    const G: &str = "geoserver/layergroups/w.g.json";

    #[test]
    fn pauses_grow_and_the_last_one_goes_on() {
        let patience = patience();
        let next: Vec<_> = (0..5).map(|attempts| patience.next_try(NOW, attempts)).collect();
        assert_eq!(next, [after(60), after(60), after(120), after(120), after(120)]);
    }

    #[test]
    fn a_failed_job_rests_until_its_time_and_a_changed_one_does_not() {
        let failed =
            [(A, PUBLISH, State::Failed, Some(after(60)), false), (B, PUBLISH, State::Failed, Some(after(90)), false)];
        assert_eq!(split(&failed, "", after(30)), (vec![], vec![A.into(), B.into()]));
        assert_eq!(split(&failed, "", after(60)), (vec![A.into()], vec![B.into()]));
        assert_eq!(split(&failed, B, after(30)), (vec![B.into()], vec![A.into()]));
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_no_job_waiting() {
        let failed = [(A, PUBLISH, State::Failed, Some(after(10_000)), false)];
        assert_eq!(split(&failed, "", NOW).0, [A]);
    }

    #[test]
    fn what_failed_for_want_of_another_is_tried_with_it() {
        let group = (G, GROUP, State::Failed, Some(after(100)), false);
        let member = (A, PUBLISH, State::Failed, Some(after(60)), false);
        assert_eq!(split(&[group, member], "", after(60)).0, [A, G]);
        assert_eq!(split(&[group, member], "", after(30)).1, [A, G]);
        // Another layer, by a foreign key that the plan does not know of.
        let referrer = (B, PUBLISH, State::Failed, Some(after(100)), true);
        assert_eq!(split(&[referrer, member], "", after(60)).0, [A, B]);
    }

    #[test]
    fn what_the_settings_left_out_stays_so_while_they_stand() {
        let left = [(A, PUBLISH, State::Filtered, None, false), (B, PUBLISH, State::Interrupted, None, false)];
        assert_eq!(split(&left, "", NOW), (vec![B.into()], vec![A.into()]));
    }
}
