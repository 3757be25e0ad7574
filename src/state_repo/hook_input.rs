//! What Mercurial and Git tell a hook: their environment variables, arguments and standard input.
//!
//! Sources: `hg help config.hooks` and githooks(5).

use std::fmt;

use super::Revision;
use crate::error::{Error, ErrorKind, Result};

/// The part of the environment that Mercurial (`HG_*`) or Git (`GIT_*`) set for a hook.
///
/// `Debug` shows the names only: `HG_URL` may hold a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HookEnv(Vec<(String, String)>);

impl HookEnv {
    /// Takes what belongs to a hook out of `variables`.
    pub fn new<N: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        let ours = |name: &str| name.starts_with("HG_") || name.starts_with("GIT_");
        let pairs = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(pairs.filter(|(name, _): &(String, String)| ours(name)).collect())
    }

    /// The environment of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        // A value that is not UTF-8 is nothing that these VCSs set: hashes, and the path of a clone that
        // the settings name in UTF-8 as well.
        Self::new(std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?))))
    }

    /// The value of a variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for HookEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// What `pretxnchangegroup` was called for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HgHook {
    /// The first of the new changesets (`HG_NODE`).
    pub first: Revision,
    /// The last of them (`HG_NODE_LAST`); Mercurial before 3.7 does not tell.
    pub last: Option<Revision>,
    /// How they come: `pull`, `push`, `unbundle`, `serve` … (`HG_SOURCE`).
    pub source: String,
    /// Whether they are still pending, so that our failure rolls them back (`HG_PENDING`).
    pub pending: bool,
}

impl HgHook {
    /// Reads the variables that Mercurial sets for `pretxnchangegroup`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] when this is not the environment of such a hook.
    pub fn parse(env: &HookEnv) -> Result<Self> {
        let node = env.get("HG_NODE").ok_or_else(|| {
            Error::new(ErrorKind::Usage, "HG_NODE is not set: Mercurial did not call this hook")
                .hint("put it into the clone's .hg/hgrc as hooks.pretxnchangegroup; by hand, use `borg-slave sync`")
        })?;
        Ok(Self {
            first: hash("HG_NODE", node)?,
            last: env.get("HG_NODE_LAST").map(|node| hash("HG_NODE_LAST", node)).transpose()?,
            source: env.get("HG_SOURCE").unwrap_or_default().to_owned(),
            pending: env.get("HG_PENDING").is_some(),
        })
    }
}

/// One line of what `pre-receive` and `post-receive` read: a ref and its two values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefUpdate {
    /// What the ref pointed to; null when it is created.
    pub old: Revision,
    /// What it is to point to; null when it is deleted.
    pub new: Revision,
    /// The ref's full name, such as `refs/heads/main`.
    pub reference: String,
}

impl RefUpdate {
    /// Reads all lines of standard input.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] when a line is not `old new ref`.
    pub fn parse_all(stdin: &[u8]) -> Result<Vec<Self>> {
        // A ref name need not be UTF-8; a branch that the settings name is.
        String::from_utf8_lossy(stdin).lines().filter(|line| !line.is_empty()).map(Self::parse).collect()
    }

    fn parse(line: &str) -> Result<Self> {
        let mut words = line.splitn(3, ' ');
        let (Some(old), Some(new), Some(reference)) = (words.next(), words.next(), words.next()) else {
            return Err(Error::new(ErrorKind::Usage, format!("standard input holds {line:?}, not `old new ref`"))
                .hint("git calls this hook itself; by hand, use `borg-slave sync`"));
        };
        Ok(Self { old: hash("the old value", old)?, new: hash("the new value", new)?, reference: reference.to_owned() })
    }

    /// Picks the update of `branch`; `None` when the push is about other refs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Repository`] when the push deletes the branch: what it published would have no source
    /// any more, and removing it all is never what was meant.
    pub fn of_branch(updates: &[Self], branch: &str) -> Result<Option<Self>> {
        let wanted = if branch.starts_with("refs/") { branch.to_owned() } else { format!("refs/heads/{branch}") };
        let update = updates.iter().find(|update| update.reference == wanted);
        if update.is_some_and(|update| update.new.is_null()) {
            return Err(Error::new(ErrorKind::Repository, "this push deletes the branch that the slave follows")
                .subject(wanted)
                .hint("push the branch again; to follow another one, change STATE_BRANCH first"));
        }
        Ok(update.cloned())
    }
}

/// What `post-merge` was called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostMerge {
    /// A squash merge leaves its result uncommitted, so that there is nothing to apply yet.
    pub squash: bool,
}

impl PostMerge {
    /// Reads the hook's one argument. The merged range is `ORIG_HEAD` to `HEAD`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] when the argument is neither `0` nor `1`.
    pub fn parse(argument: &str) -> Result<Self> {
        match argument {
            "0" => Ok(Self { squash: false }),
            "1" => Ok(Self { squash: true }),
            other => Err(Error::new(ErrorKind::Usage, format!("post-merge takes 0 or 1, not {other:?}"))
                .hint("let the hook pass its argument on: borg-slave hook post-merge \"$@\"")),
        }
    }
}

fn hash(what: &str, text: &str) -> Result<Revision> {
    Revision::parse(text)
        .map_err(|error| Error::new(ErrorKind::Usage, "not a changeset hash").subject(what).source(error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rev(digit: &str) -> Revision {
        Revision::parse(&digit.repeat(40)).unwrap()
    }

    #[test]
    fn the_environment_of_pretxnchangegroup() {
        let env = HookEnv::new([
            ("HG_NODE", "a".repeat(40)),
            ("HG_NODE_LAST", "b".repeat(40)),
            ("HG_SOURCE", "pull".to_owned()),
            ("HG_URL", "https://borg:secret@master/state".to_owned()),
            ("HG_PENDING", "/clone".to_owned()),
            ("PATH", "/bin".to_owned()),
        ]);
        assert!(!format!("{env:?}").contains("secret"));
        assert_eq!(env.get("PATH"), None);
        insta::assert_debug_snapshot!(HgHook::parse(&env).unwrap(), @r#"
        HgHook {
            first: Revision(
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            ),
            last: Some(
                Revision(
                    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
                ),
            ),
            source: "pull",
            pending: true,
        }
        "#);
    }

    #[test]
    fn outside_a_hook_the_remedy_is_named() {
        let error = HgHook::parse(&HookEnv::default()).unwrap_err();
        insta::assert_snapshot!(error.paragraph(), @r"
        Error: HG_NODE is not set: Mercurial did not call this hook
          Hint: put it into the clone's .hg/hgrc as hooks.pretxnchangegroup; by hand, use `borg-slave sync`
        ");
    }

    #[test]
    fn only_the_watched_branch_counts() {
        let input = format!(
            "{a} {b} refs/heads/other\n{a} {c} refs/heads/main\n{z} {b} refs/tags/main\n",
            a = "a".repeat(40),
            b = "b".repeat(40),
            c = "c".repeat(40),
            z = "0".repeat(40),
        );
        let updates = RefUpdate::parse_all(input.as_bytes()).unwrap();
        let update = RefUpdate::of_branch(&updates, "main").unwrap().unwrap();
        assert_eq!((update.old, update.new), (rev("a"), rev("c")));
        assert!(updates[2].old.is_null());
        assert_eq!(RefUpdate::of_branch(&updates, "mai").unwrap(), None);
    }

    #[test]
    fn deleting_the_watched_branch_is_refused_and_another_is_not() {
        let input = format!("{} {} refs/heads/main\n", "a".repeat(40), "0".repeat(40));
        let updates = RefUpdate::parse_all(input.as_bytes()).unwrap();
        let error = RefUpdate::of_branch(&updates, "main").unwrap_err();
        assert_eq!(error.to_string(), "refs/heads/main: this push deletes the branch that the slave follows");
        assert_eq!(RefUpdate::of_branch(&updates, "production").unwrap(), None);
    }

    #[test]
    fn post_merge_tells_a_squash_apart() {
        assert!(PostMerge::parse("1").unwrap().squash);
        assert!(!PostMerge::parse("0").unwrap().squash);
        assert!(PostMerge::parse("").is_err());
    }

    proptest! {
        #[test]
        fn any_input_is_read_or_refused(input: Vec<u8>) {
            let _ = RefUpdate::parse_all(&input);
        }

        #[test]
        fn a_ref_name_may_hold_spaces(name in "[a-z][a-z /]{0,20}[a-z]") {
            let line = format!("{} {} refs/heads/{name}\n", "1".repeat(40), "2".repeat(40));
            let updates = RefUpdate::parse_all(line.as_bytes()).unwrap();
            prop_assert!(RefUpdate::of_branch(&updates, &name).unwrap().is_some());
        }
    }
}
