//! `hook`: what the VCS calls.

use std::io::Read;

use super::args::HookName;
use super::{Session, exit, say, sync};
use crate::config::HookOnFailure;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::state_repo::hook_input::{HgHook, HookEnv, PostMerge, RefUpdate};
use crate::state_repo::{Revision, StateRepo};
use crate::sync::{Request, Summary};

/// What `hook deny` tells somebody who commits in a slave's clone.
pub(super) const DENY_TEXT: &str = "\
borg-slave: this clone belongs to a slave: it only follows the master, and a local commit would keep it from pulling.
  Make the change on the master and publish it there; the slave takes it with the next pull.
  To throw the local change away: `hg update --clean` (Mercurial) or `git checkout -- .` (Git).";

pub(super) async fn run(session: &Session, hook: HookName, arguments: &[String]) -> Result<u8> {
    if hook == HookName::PostMerge
        && let Some(argument) = arguments.first()
        && PostMerge::parse(argument)?.squash
    {
        return Ok(exit::APPLIED);
    }
    // Read before anything else can fail: Git would otherwise be told that its pipe broke.
    let input = match hook {
        HookName::PreReceive | HookName::PostReceive => read_input()?,
        _ => Vec::new(),
    };
    let Some(lock) = sync::lock(session, &format!("hook {}", hook.as_str())).await? else { return Ok(exit::LOCKED) };
    let mut repository = sync::open_repository(session, Some(HookEnv::of_this_process())).await?;
    let outcome = pass(session, &mut repository, hook, &input).await;
    repository.close().await;
    drop(lock);
    Ok(match outcome? {
        Some(summary) => verdict(session, hook, &summary),
        None => exit::APPLIED,
    })
}

/// `None`: the VCS changed nothing that the slave follows.
async fn pass(session: &Session, repository: &mut StateRepo, hook: HookName, input: &[u8]) -> Result<Option<Summary>> {
    let mut request = Request { trigger: format!("hook {}", hook.as_str()), ..Request::default() };
    match hook {
        HookName::Pretxnchangegroup => {
            let hg = HgHook::parse(&HookEnv::of_this_process())?;
            request.begin = Some(repository.first_parent(&hg.first).await?);
        }
        HookName::PreReceive | HookName::PostReceive => {
            let branch = repository.branch().await?;
            let updates = RefUpdate::parse_all(input)?;
            let Some(update) = RefUpdate::of_branch(&updates, &branch)? else {
                let is_there = repository.resolve(&branch).await?.is_some();
                return nothing_followed(&branch, &updates, is_there, session.settings.state_branch.is_some());
            };
            // Another push may have come while this hook waited for the run lock.
            if hook == HookName::PreReceive {
                let at = repository.resolve(&branch).await?.unwrap_or_else(Revision::null);
                if at != update.old {
                    return Err(has_moved(&branch, &at));
                }
                request.to = Some(update.new.as_str().to_owned());
            }
            // After the push it is the branch that counts, and not how far this push has brought it.
            request.begin = Some(update.old);
        }
        HookName::PostMerge => request.begin = repository.resolve("ORIG_HEAD").await?,
        HookName::Deny => return Err(Error::new(ErrorKind::Bug, "`deny` makes no pass")),
    }
    sync::pass(session, repository, &request).await.map(Some)
}

/// A push that brings nothing to the branch that is followed. Where there is no such branch, none may ever come.
fn nothing_followed(branch: &str, updates: &[RefUpdate], is_there: bool, is_set: bool) -> Result<Option<Summary>> {
    let pushed: Vec<&str> = updates
        .iter()
        .filter(|update| !update.new.is_null())
        .filter_map(|update| update.reference.strip_prefix("refs/heads/"))
        .collect();
    let because = if is_set { "STATE_BRANCH says so" } else { "HEAD names it, STATE_BRANCH being unset" };
    let Some(first) = pushed.first().filter(|_| !is_there) else {
        say(&format!(
            "borg-slave: nothing to do: this push is not about {branch}, which the slave follows ({because})"
        ));
        return Ok(None);
    };
    Err(Error::new(ErrorKind::Settings, format!("the slave follows a branch that is not here ({because})"))
        .subject(branch)
        .hint(format!(
            "to follow what was pushed, set STATE_BRANCH={first}; else push the branch that is followed first"
        )))
}

/// Git takes no push that begins where the branch no longer is, but looks only after the hook.
fn has_moved(branch: &str, to: &Revision) -> Error {
    Error::new(ErrorKind::Busy, format!("the branch has moved while this push waited; it is now at {}", to.short()))
        .subject(branch)
        .hint("fetch, and push again")
}

/// Whether the VCS keeps the changesets.
fn verdict(session: &Session, hook: HookName, summary: &Summary) -> u8 {
    let settings = &session.settings;
    if settings.rollback || !settings.include.is_empty() {
        let name = if settings.rollback { "ROLLBACK" } else { "INCLUDE" };
        say(&match hook {
            HookName::PostReceive | HookName::PostMerge => format!(
                "borg-slave: {name} is set, but Git keeps the commits: they do not count as applied, and the next run without it does what is missing"
            ),
            _ => format!("borg-slave: the changesets are refused because {name} is set"),
        });
        return exit::FAILED;
    }
    if summary.failed.is_empty() {
        // A pull that is refused for it would help nobody: what was applied is there.
        for (what, error) in &summary.due {
            say(&format!("borg-slave: {what}; the next run tries again: {}", error.one_line()));
        }
        return exit::APPLIED;
    }
    let failed = summary.failed.len();
    let (jobs, these) = if failed == 1 { ("job", "it") } else { ("jobs", "them") };
    if settings.hook_on_failure == HookOnFailure::Accept && !summary.was_stopped() {
        say(&format!(
            "borg-slave: {failed} {jobs} failed; the changesets are kept, `borg-slave sync --retry-failed` tries {these} again"
        ));
        return exit::APPLIED;
    }
    match hook {
        HookName::PostReceive | HookName::PostMerge => say(&format!(
            "borg-slave: {failed} {jobs} failed; Git keeps the commits, the next run does what is missing"
        )),
        _ => say(&format!(
            "borg-slave: {failed} {jobs} failed; the changesets are refused, the next pull does only what is missing"
        )),
    }
    exit::FAILED
}

fn read_input() -> Result<Vec<u8>> {
    let mut input = Vec::new();
    std::io::stdin()
        .read_to_end(&mut input)
        .context(ErrorKind::Usage, "cannot read what Git says on standard input")?;
    Ok(input)
}
