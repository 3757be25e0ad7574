//! Layer groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::layer::Tiled;
use super::{Ctx, Event, JobEnd, Shown, Step, StepEnd, Stepped, succeeded};
use crate::error::{Error, ErrorKind, Result};
use crate::geoserver::{GeoServer, LayerGroup, Member};
use crate::job::{GroupMember, LayerGroupJob, MemberKind};
use crate::name::GeoName;

/// The target under which the journal keeps which members a group was published without, by its job file:
/// `workspace.name`, separated by commas.
pub const INCOMPLETE_GROUPS: &str = "incomplete groups";

/// The target under which the journal keeps which members a group has lost since it was published, because they
/// were removed: `workspace.name`, by the group's job file, a slash and the member.
pub const LEFT_GROUPS: &str = "groups left by members";

impl Ctx<'_> {
    /// Publishes a layer group with those of its members that are there.
    pub(super) async fn publish_group(&self, job: &LayerGroupJob) -> Result<JobEnd> {
        self.note_purge(&job.workspace, &job.name).await?;
        let all_absent = Mutex::new(BTreeSet::new());
        let is_somewhere = AtomicBool::new(false);
        let absent = self
            .on_each(&self.unfinished_geoservers(), |server| {
                let (all_absent, is_somewhere) = (&all_absent, &is_somewhere);
                async move {
                self.after_rules().await;
                let target = Some(server.name());
                self.step(Step::Workspace, target, Box::pin(self.shared_workspace(server, &job.workspace))).await?;
                let (members, absent) =
                    self.step(Step::LayerGroup, target, Box::pin(self.group_on(server, job))).await?;
                let stems = absent.iter().map(|member| format!("{}.{}", member.workspace, member.name));
                all_absent.lock().unwrap_or_else(PoisonError::into_inner).extend(stems);
                if members.is_empty() {
                    return Ok(absent);
                }
                is_somewhere.store(true, Ordering::Relaxed);
                let tiled = Tiled {
                    workspace: &job.workspace,
                    name: &job.name,
                    setting: &job.geoserver_setting,
                    vector_formats: false,
                    content: content(&members),
                    is_new: false,
                };
                self.step(Step::TileLayer, target, Box::pin(self.tile_layer(server, &tiled))).await?;
                let missing: Vec<&GroupMember> = absent.iter().copied().filter(|member| !self.is_explained(member)).collect();
                if missing.is_empty() {
                    return Ok(absent);
                }
                Err(Error::new(
                    ErrorKind::Dependency,
                    format!("the layer group is published without {}: not published here", names(&missing)),
                )
                .subject(format!("{}:{}", job.workspace, job.name))
                .hint("see why they are missing with `borg-slave status`; the group follows with the run that brings them"))
            }})
            .await;
        self.keep_absent(&all_absent.into_inner().unwrap_or_else(PoisonError::into_inner));
        let absent: BTreeMap<String, &GroupMember> =
            absent?.into_iter().flatten().map(|member| (names(&[member]), member)).collect();
        self.forget_who_left().await?;
        let (filtered, for_later): (Vec<&GroupMember>, Vec<&GroupMember>) =
            absent.into_values().partition(|member| self.refused(member));
        if !for_later.is_empty() {
            return Ok(JobEnd::Waiting(format!(
                "for later are {}: the settings (such as SKIP_DB) leave out what they need; the run that brings them completes the group",
                names(&for_later)
            )));
        }
        if !filtered.is_empty() && !is_somewhere.into_inner() {
            // GeoServer has no groups without members; groups that hold this one go on without it.
            self.leave_out();
            return Ok(JobEnd::Filtered(format!(
                "this slave's filters take none of its members: {}",
                names(&filtered)
            )));
        }
        let note = (!filtered.is_empty())
            .then(|| format!("published without {}: this slave's filters do not take them", names(&filtered)));
        let mut notes: Vec<String> = note.into_iter().collect();
        self.purge(&job.workspace, &job.name, &mut notes).await;
        Ok(succeeded(&notes))
    }

    /// Keeps what the group lacks, so that it is published again with what comes.
    pub(super) fn keep_absent(&self, absent: &BTreeSet<String>) {
        let (target, key) = (INCOMPLETE_GROUPS.to_owned(), self.file.path.clone());
        let value = (!absent.is_empty()).then(|| absent.iter().cloned().collect::<Vec<_>>().join(","));
        if self.run.background.facts.get(&target, &key) != value {
            self.run.emit(Event::Fact { target, key, value });
        }
    }

    /// Notes that a layer is about to leave the groups of one GeoServer that hold it, so that they are published
    /// again when it comes back. Gives their names.
    pub(super) async fn note_who_leaves(
        &self,
        server: &GeoServer,
        workspace: &GeoName,
        layer: &GeoName,
    ) -> Result<Vec<GeoName>> {
        let jobs = &self.run.background.group_files;
        let prefix = format!("{workspace}.");
        if !jobs.keys().any(|stem| stem.starts_with(&prefix)) {
            return Ok(Vec::new());
        }
        let groups = server.groups_with_member(&Member::Layer(workspace.clone(), layer.clone())).await?;
        let stem = format!("{workspace}.{layer}");
        let job_files = groups.iter().filter_map(|group| jobs.get(&format!("{workspace}.{group}"))).flatten();
        let keys: Vec<String> = job_files.map(|job_file| format!("{job_file}/{stem}")).collect();
        for key in keys {
            self.note(LEFT_GROUPS, &key, stem.clone()).await?;
        }
        Ok(groups)
    }

    /// The group is as its document says, or is gone.
    pub(super) async fn forget_who_left(&self) -> Result<()> {
        for key in self.run.background.facts.keys(LEFT_GROUPS) {
            if key.rsplit_once('/').is_some_and(|(job_file, _)| job_file == self.file.path) {
                self.forget_of(LEFT_GROUPS, &key).await?;
            }
        }
        Ok(())
    }

    async fn group_on<'j>(
        &self,
        server: &GeoServer,
        job: &'j LayerGroupJob,
    ) -> Result<Stepped<(Vec<Member>, Vec<&'j GroupMember>)>> {
        let members: Vec<Member> = job.members.iter().map(member).collect();
        let is_there = server.existing_members(&members).await?;
        let absent: Vec<&GroupMember> =
            job.members.iter().zip(&is_there).filter(|(_, there)| !**there).map(|(member, _)| member).collect();
        let members: Vec<Member> =
            members.into_iter().zip(&is_there).filter(|(_, there)| **there).map(|(member, _)| member).collect();
        let for_later =
            absent.iter().all(|member| self.is_explained(member)) && absent.iter().any(|member| !self.refused(member));
        let message = (!absent.is_empty()).then(|| format!("without {}", names(&absent)));
        if members.is_empty() && absent.iter().all(|member| self.is_explained(member)) {
            return Ok(((members, absent), StepEnd::Skipped, message));
        }
        if members.is_empty() {
            return Err(Error::new(
                ErrorKind::Dependency,
                format!("none of the layer group's members is published here: {}", names(&absent)),
            )
            .subject(format!("{}:{}", job.workspace, job.name))
            .hint("publish its members first"));
        }
        let group = LayerGroup {
            workspace: job.workspace.clone(),
            name: job.name.clone(),
            title: job.description.title.clone(),
            abstract_text: job.description.abstract_text.clone(),
            srs: job.srs.clone(),
            members: members.clone(),
        };
        self.layer_rules(server, &job.workspace, &job.name).await?;
        self.forget_places_in(server, &job.workspace, &job.name).await?;
        self.tiles_may_be_old(server, &job.workspace, &job.name, &content(&members)).await?;
        let change = server.publish_layer_group(&group).await?;
        let end = if for_later {
            StepEnd::Skipped
        } else if absent.iter().all(|member| self.refused(member)) {
            super::layer::step_end(change)
        } else {
            StepEnd::Failed
        };
        Ok(((members, absent), end, message))
    }

    /// It is no failure that the member is not there.
    fn is_explained(&self, member: &GroupMember) -> bool {
        self.refused(member) || self.is_for_later(&shown(member))
    }

    /// This slave's filters do not take the member.
    fn refused(&self, member: &GroupMember) -> bool {
        self.is_filtered(&shown(member))
    }
}

fn member(member: &GroupMember) -> Member {
    let (workspace, name) = (member.workspace.clone(), member.name.clone());
    match member.kind {
        MemberKind::WmsLayer | MemberKind::Feature => Member::Layer(workspace, name),
        MemberKind::Group => Member::Group(workspace, name),
    }
}

fn shown(member: &GroupMember) -> Shown {
    let stem = format!("{}.{}", member.workspace, member.name);
    match member.kind {
        MemberKind::WmsLayer | MemberKind::Feature => Shown::Layer(stem),
        MemberKind::Group => Shown::Group(stem),
    }
}

/// What there is to say of a layer that was in these groups and is removed.
pub(super) fn taken_out_of(groups: &[GeoName]) -> Option<String> {
    let word = if groups.len() == 1 { "group" } else { "groups" };
    let names = groups.iter().map(GeoName::as_str).collect::<Vec<_>>().join(", ");
    (!groups.is_empty()).then(|| format!("taken out of the layer {word} {names}"))
}

/// Identifies what maps of a group of these members show.
fn content(members: &[Member]) -> String {
    crate::plan::hex_md5(format!("{members:?}").as_bytes())
}

fn names(members: &[&GroupMember]) -> String {
    members.iter().map(|member| format!("{}:{}", member.workspace, member.name)).collect::<Vec<_>>().join(", ")
}
