//! The order of jobs: who waits for whom.
//!
//! A job waits only for jobs that stand before it in the plan, so nobody can wait in a circle.

use std::collections::{HashMap, HashSet};

use super::{PlannedJob, Work};
use crate::error::{Error, ErrorKind};
use crate::job::{Action, Companion, Job, JobKind, LayerGroupJob, MemberKind};

/// What a job is about: jobs with the same subject never run at the same time.
pub(super) type Subject = (JobKind, String);

/// The subject of a job.
pub(super) fn subject(job: &PlannedJob) -> Subject {
    (job.file.kind, job.file.stem.clone())
}

/// Stages of a pass. Rules stand before the layers they protect; what goes, goes after what comes, groups
/// before layers before stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    Roles,
    Workspaces,
    AccessRules,
    /// Removals of stores whose name a store of another kind takes.
    Making,
    Stores,
    Features,
    OtherLayers,
    Groups,
    GroupRemovals,
    LayerRemovals,
    StoreRemovals,
}

fn stage(job: &PlannedJob, freed: &HashSet<Subject>) -> Stage {
    let kind = job.file.kind;
    if job.action == Some(Action::Remove) {
        return match kind {
            _ if freed.contains(&subject(job)) => Stage::Making,
            JobKind::LayerGroup => Stage::GroupRemovals,
            JobKind::WmsStore | JobKind::LiveStore => Stage::StoreRemovals,
            _ => Stage::LayerRemovals,
        };
    }
    match kind {
        JobKind::Auth => Stage::Roles,
        JobKind::Workspace => Stage::Workspaces,
        JobKind::AccessRules => Stage::AccessRules,
        JobKind::WmsStore | JobKind::LiveStore => Stage::Stores,
        JobKind::Feature => Stage::Features,
        JobKind::WmsLayer | JobKind::LiveLayer => Stage::OtherLayers,
        JobKind::LayerGroup => Stage::Groups,
    }
}

/// Sorts the jobs and says for each which others must have ended before it begins.
pub(super) fn arrange(jobs: &mut [PlannedJob]) {
    let groups = groups(jobs);
    let freed = freed(jobs);
    let depths = depths(&groups);
    refuse_circles(jobs, &groups, &depths);
    jobs.sort_by_cached_key(|job| {
        let depth = depths.get(&job.file.stem).copied().flatten().unwrap_or(0);
        let companion = match job.file.companion {
            None => 0,
            Some(Companion::Meta) => 1,
            Some(Companion::EmptyGwc) => 2,
        };
        let depth = if job.file.kind == JobKind::LayerGroup { depth } else { 0 };
        (stage(job, &freed), depth, job.file.stem.clone(), companion, job.file.path.clone())
    });
    let stages: Vec<Stage> = jobs.iter().map(|job| stage(job, &freed)).collect();
    let mut of_stage: HashMap<Stage, Vec<usize>> = HashMap::new();
    let mut of_subject: HashMap<Subject, usize> = HashMap::new();
    let mut freeing: HashMap<String, Vec<usize>> = HashMap::new();
    let mut publishing: HashMap<String, Vec<usize>> = HashMap::new();
    for index in 0..jobs.len() {
        let job = &jobs[index];
        let mut after: Vec<usize> = of_subject.get(&subject(job)).copied().into_iter().collect();
        let mut all_of = |stage: Stage, wanted: &dyn Fn(&PlannedJob) -> bool| {
            let earlier = of_stage.get(&stage).into_iter().flatten().copied();
            after.extend(earlier.filter(|&earlier| wanted(&jobs[earlier])));
        };
        let neighbour = |other: &PlannedJob| workspace(other) == workspace(job);
        match stages[index] {
            Stage::OtherLayers => all_of(Stage::Stores, &neighbour),
            Stage::Groups => {
                let members = groups.get(&job.file.stem).map(members).unwrap_or_default();
                for stage in [Stage::Features, Stage::OtherLayers, Stage::Groups] {
                    all_of(stage, &|other| members.contains(&subject(other)));
                }
            }
            // A group holds layers and groups of its own workspace only. Which ones it held before it is published
            // again, its document does not tell.
            Stage::GroupRemovals => all_of(Stage::Groups, &neighbour),
            Stage::LayerRemovals => {
                for stage in [Stage::Groups, Stage::GroupRemovals] {
                    all_of(stage, &neighbour);
                }
            }
            Stage::StoreRemovals => {
                for stage in [Stage::OtherLayers, Stage::Groups, Stage::GroupRemovals, Stage::LayerRemovals] {
                    all_of(stage, &neighbour);
                }
            }
            _ => {}
        }
        if job.action != Some(Action::Remove) {
            if is_store(job.file.kind) {
                after.extend(freeing.get(&job.file.stem).into_iter().flatten());
            }
        } else if is_layer(job.file.kind) {
            // They bear its name from then on, or leave it to it where the filters do not take them.
            after.extend(publishing.get(&job.file.stem).into_iter().flatten());
        }
        if job.action == Some(Action::Publish) && is_layer(job.file.kind) {
            publishing.entry(job.file.stem.clone()).or_default().push(index);
        }
        if stages[index] == Stage::Making {
            freeing.entry(job.file.stem.clone()).or_default().push(index);
        }
        of_stage.entry(stages[index]).or_default().push(index);
        of_subject.insert(subject(job), index);
        after.sort_unstable();
        after.dedup();
        jobs[index].after = after;
    }
}

fn workspace(job: &PlannedJob) -> &str {
    job.file.named_after().map_or(&job.file.stem, |(workspace, _)| workspace)
}

/// Whether jobs of this kind make layers, of which GeoServer has one by each name.
pub(super) fn is_layer(kind: JobKind) -> bool {
    matches!(kind, JobKind::Feature | JobKind::WmsLayer | JobKind::LiveLayer)
}

fn is_store(kind: JobKind) -> bool {
    matches!(kind, JobKind::WmsStore | JobKind::LiveStore)
}

/// The removals of stores whose name is published as a store of another kind: they must go first, or GeoServer
/// refuses the name. A layer of another kind takes the place of the one that bears its name.
fn freed(jobs: &[PlannedJob]) -> HashSet<Subject> {
    let published: HashSet<Subject> =
        jobs.iter().filter(|job| job.action == Some(Action::Publish)).map(subject).collect();
    let removals = jobs.iter().filter(|job| job.action == Some(Action::Remove)).map(subject);
    removals
        .filter(|(kind, stem)| {
            published
                .iter()
                .any(|(other, other_stem)| other != kind && other_stem == stem && is_store(*other) && is_store(*kind))
        })
        .collect()
}

/// The groups that are published, by `workspace.name`.
fn groups(jobs: &[PlannedJob]) -> HashMap<String, LayerGroupJob> {
    let publishing = jobs.iter().filter(|job| {
        job.file.kind == JobKind::LayerGroup && job.file.companion.is_none() && job.action == Some(Action::Publish)
    });
    publishing
        .filter_map(|job| match &job.work {
            // A group carries all its fields itself. One that cannot be read fails when it is run.
            Work::Run(document) => match document.as_ref().clone().complete(None).ok()?.job {
                Job::LayerGroup(group) => Some((job.file.stem.clone(), group)),
                _ => None,
            },
            Work::Superseded(_) | Work::Invalid(_) => None,
        })
        .collect()
}

/// The jobs that a group waits for.
fn members(group: &LayerGroupJob) -> HashSet<Subject> {
    let layers = group.members.iter().flat_map(|member| {
        let stem = format!("{}.{}", member.workspace, member.name);
        match member.kind {
            // A layer may become one of another kind, and its groups stay as they are.
            MemberKind::WmsLayer | MemberKind::Feature => {
                vec![(JobKind::Feature, stem.clone()), (JobKind::LiveLayer, stem.clone()), (JobKind::WmsLayer, stem)]
            }
            MemberKind::Group => vec![(JobKind::LayerGroup, stem)],
        }
    });
    layers.chain(inner_groups(group).map(|stem| (JobKind::LayerGroup, stem))).collect()
}

fn inner_groups(group: &LayerGroupJob) -> impl Iterator<Item = String> + '_ {
    let members = group.members.iter().filter(|member| member.kind == MemberKind::Group);
    let members = members.map(|member| format!("{}.{}", member.workspace, member.name));
    members.chain(group.dependent_groups.iter().map(|group| format!("{}.{}", group.workspace, group.name)))
}

/// How deep each group is nested: 0 for one that holds no group of the plan; None for one that holds itself.
fn depths(groups: &HashMap<String, LayerGroupJob>) -> HashMap<String, Option<usize>> {
    let mut depths: HashMap<String, Option<usize>> = HashMap::new();
    // A group is settled once all those are that it holds; what never settles runs in a circle.
    loop {
        let before = depths.len();
        for (name, group) in groups {
            if depths.contains_key(name) {
                continue;
            }
            let inner: Vec<String> = inner_groups(group).filter(|inner| groups.contains_key(inner)).collect();
            let known: Vec<usize> = inner.iter().filter_map(|inner| depths.get(inner).copied().flatten()).collect();
            if known.len() == inner.len() {
                depths.insert(name.clone(), Some(known.iter().max().map_or(0, |deepest| deepest + 1)));
            }
        }
        if depths.len() == before {
            break;
        }
    }
    groups.keys().map(|name| (name.clone(), depths.get(name).copied().flatten())).collect()
}

/// Groups that hold themselves, and those that hold them, fail by name.
fn refuse_circles(
    jobs: &mut [PlannedJob],
    groups: &HashMap<String, LayerGroupJob>,
    depths: &HashMap<String, Option<usize>>,
) {
    for job in jobs.iter_mut() {
        if job.file.kind != JobKind::LayerGroup || depths.get(&job.file.stem) != Some(&None) {
            continue;
        }
        let Some(group) = groups.get(&job.file.stem) else { continue };
        let circle: Vec<String> = inner_groups(group).filter(|inner| depths.get(inner) == Some(&None)).collect();
        job.work = Work::Invalid(
            Error::new(
                ErrorKind::Document,
                format!("the layer group holds groups that hold each other in a circle: {}", circle.join(", ")),
            )
            .subject(&job.file.path)
            .hint("take one of them out of the other on the master and publish both again"),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap as Map;

    use super::super::{Again, Candidate, Plan, plan};
    use super::*;
    use crate::job::classify;

    fn candidate(path: &str, content: &str) -> Candidate {
        let (path, deleted) = path.strip_prefix('-').map_or((path, false), |path| (path, true));
        let file = classify(&format!("geoserver/{path}"), &["geoserver".to_owned()]).unwrap();
        Candidate { file, deleted, content: content.into(), revision: "f00".into() }
    }

    fn thin() -> String {
        r#"{"job_id": 1, "meta": {"file": "m:/a.json", "md5": "0cc175b9c0f1b6a831c399e269772661"}}"#.into()
    }

    fn group(name: &str, members: &[(&str, &str)]) -> (String, String) {
        let layers: Vec<_> = members
            .iter()
            .map(|(kind, name)| serde_json::json!({"type": kind, "workspace": "a", "name": name}))
            .collect();
        let content = serde_json::json!({"action": "publish", "name": name, "workspace": "a", "title": name,
            "abstract": "", "srs": "EPSG:4326", "layers": layers});
        (format!("layergroups/a.{name}.json"), content.to_string())
    }

    fn show(files: &[(String, String)]) -> String {
        let candidates = files.iter().map(|(path, content)| candidate(path, content)).collect();
        let Plan { jobs, .. } = plan(candidates, &Map::new(), Again::Never);
        let line = |(index, job): (usize, &PlannedJob)| {
            let what = job.file.path.trim_start_matches("geoserver/");
            let trouble =
                if let Work::Invalid(error) = &job.work { format!(" !{}", error.one_line()) } else { String::new() };
            format!("{index} {} {what} after {:?}{trouble}", job.action_name(), job.after)
        };
        jobs.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn stores_layers_groups_and_the_other_way_round() {
        let file = |path: &str| (path.to_owned(), thin());
        let shown = show(&[
            group("outer", &[("group", "inner"), ("publish", "roads")]),
            group("inner", &[("wms_layer", "photo"), ("publish", "live")]),
            file("wms_layers/a.photo.json"),
            file("live_layers/a.live.json"),
            file("layers/a.roads.json"),
            file("layers/a.roads.meta.json"),
            file("wms_stores/a.upstream.json"),
            file("wms_stores/b.elsewhere.json"),
            file("live_stores/a.db.json"),
            file("layers.properties"),
            file("-layers/a.gone.json"),
            file("-wms_layers/a.gone_too.json"),
            file("-layers/b.elsewhere.json"),
            file("-wms_stores/a.gone_store.json"),
            ("-layergroups/a.gone_group.json".into(), group("gone_group", &[("publish", "gone")]).1),
        ]);
        insta::assert_snapshot!(shown, @r#"
        0 publish layers.properties after []
        1 publish live_stores/a.db.json after []
        2 publish wms_stores/a.upstream.json after []
        3 publish wms_stores/b.elsewhere.json after []
        4 publish layers/a.roads.json after []
        5 meta layers/a.roads.meta.json after [4]
        6 publish live_layers/a.live.json after [1, 2]
        7 publish wms_layers/a.photo.json after [1, 2]
        8 publish layergroups/a.inner.json after [6, 7]
        9 publish layergroups/a.outer.json after [4, 5, 8]
        10 remove layergroups/a.gone_group.json after [8, 9]
        11 remove layers/a.gone.json after [8, 9, 10]
        12 remove wms_layers/a.gone_too.json after [8, 9, 10]
        13 remove layers/b.elsewhere.json after []
        14 remove wms_stores/a.gone_store.json after [6, 7, 8, 9, 10, 11, 12]
        "#);
    }

    #[test]
    fn a_layer_goes_after_the_one_of_another_kind_that_takes_its_name_and_a_store_before() {
        let file = |path: &str| (path.to_owned(), thin());
        let shown = show(&[
            file("wms_layers/a.photo.json"),
            file("-layers/a.photo.json"),
            group("g", &[("publish", "photo")]),
            file("layers/a.towns.json"),
            file("-wms_layers/a.towns.json"),
            group("h", &[("wms_layer", "towns")]),
            file("-wms_stores/a.db.json"),
            file("live_stores/a.db.json"),
        ]);
        insta::assert_snapshot!(shown, @r#"
        0 remove wms_stores/a.db.json after []
        1 publish live_stores/a.db.json after [0]
        2 publish layers/a.towns.json after []
        3 publish wms_layers/a.photo.json after [1]
        4 publish layergroups/a.g.json after [3]
        5 publish layergroups/a.h.json after [2]
        6 remove layers/a.photo.json after [3, 4, 5]
        7 remove wms_layers/a.towns.json after [2, 4, 5]
        "#);
    }

    #[test]
    fn groups_in_a_circle_fail_by_name() {
        let shown = show(&[
            group("a", &[("group", "b")]),
            group("b", &[("group", "a")]),
            group("outside", &[("group", "fine")]),
            group("fine", &[("publish", "roads")]),
        ]);
        insta::assert_snapshot!(shown, @r#"
        0 publish layergroups/a.a.json after [] !geoserver/layergroups/a.a.json: the layer group holds groups that hold each other in a circle: a.b
        1 publish layergroups/a.b.json after [0] !geoserver/layergroups/a.b.json: the layer group holds groups that hold each other in a circle: a.a
        2 publish layergroups/a.fine.json after []
        3 publish layergroups/a.outside.json after [2]
        "#);
    }
}
