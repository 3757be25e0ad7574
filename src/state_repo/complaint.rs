//! What hg, git and ssh complain about when a clone cannot follow its master, and what to do.
//!
//! The words are those of Mercurial 6, Git 2 and OpenSSH 9 in the C locale.

use std::path::Path;
use std::time::Duration;

use super::Vcs;
use crate::error::{Error, ErrorKind};

/// Words that a program's complaint holds, and what we make of it.
struct Complaint {
    /// Any of these; `…` stands for whatever is between two parts.
    words: &'static [&'static str],
    kind: ErrorKind,
    message: &'static str,
    hint: &'static str,
}

/// Looked through in order: ssh's reason stands before what hg and git make of the broken pipe.
const COMPLAINTS: &[Complaint] = &[
    // First of all: what the hook itself printed may hold any of the words below.
    Complaint {
        words: &["hook exited with status", "hook killed by signal", "hook failed"],
        kind: ErrorKind::Repository,
        message: "a hook of the clone refuses the new changesets",
        hint: "its own messages stand above; `borg-slave status --failed` lists the jobs that failed",
    },
    Complaint {
        words: &["requires features unknown to this Mercurial"],
        kind: ErrorKind::Repository,
        message: "the clone was made by a newer Mercurial than the one on this machine",
        hint: "upgrade Mercurial here",
    },
    Complaint {
        words: &["Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED"],
        kind: ErrorKind::Denied,
        message: "the master's SSH host key is unknown or has changed",
        hint: "if the master was reinstalled, replace its line in known_hosts; else find out who answers at its address",
    },
    Complaint {
        words: &[
            "Permission denied (",
            "Authentication failed",
            "authorization failed",
            "could not read Username",
            "could not read Password",
            "HTTP Error 401",
            "HTTP Error 403",
            "http authorization required",
            "error: 403",
            "Too many authentication failures",
        ],
        kind: ErrorKind::Denied,
        message: "the master refuses the login",
        hint: "check the key or password: BORG_SSH names the SSH command, and the user that runs borg-slave must be able to read its key; of Mercurial's [auth], only that in the clone's .hg/hgrc counts",
    },
    Complaint {
        words: &[
            "Could not resolve host",
            "Name or service not known",
            "Temporary failure in name resolution",
            "nodename nor servname",
            "Connection refused",
            "Connection timed out",
            "No route to host",
            "Network is unreachable",
            "Connection reset",
            "Connection closed by",
            "Operation timed out",
            "error: timed out",
            "Failed to connect",
            "Could not connect",
            "unable to connect",
            "kex_exchange_identification",
            "early EOF",
            "the remote end hung up",
            "stream ended unexpectedly",
            "HTTP Error 50",
            "error: 50",
        ],
        kind: ErrorKind::Unreachable,
        message: "the master cannot be reached",
        hint: "check that the master is up and that this machine reaches it; the next run tries again",
    },
    Complaint {
        words: &["repository default not found", "repository default does not exist"],
        kind: ErrorKind::Repository,
        message: "the clone does not know where to pull from",
        hint: "write the master's URL into the clone's .hg/hgrc, as `default = …` under [paths]",
    },
    Complaint {
        words: &["repository is unrelated"],
        kind: ErrorKind::Repository,
        message: "the master's repository has no changeset in common with this clone",
        hint: "check [paths] default in .hg/hgrc; if the master was made anew, clone it again beside this one and swap the directories",
    },
    Complaint {
        words: &["dubious ownership"],
        kind: ErrorKind::Denied,
        message: "the repository belongs to another user, so git refuses it",
        hint: "run borg-slave as the owner, or as its user: git config --global --add safe.directory <the clone>",
    },
    Complaint {
        words: &["unknown branch '", "couldn't find remote ref"],
        kind: ErrorKind::Settings,
        message: "the master has no such branch",
        hint: "correct STATE_BRANCH",
    },
    Complaint {
        words: &[
            "does not appear to be a git repository",
            "repository not found",
            "not a git repository",
            "HTTP Error 404",
            "There is no Mercurial repository here",
            "abort: repository … not found",
            "no such repository",
        ],
        kind: ErrorKind::Repository,
        message: "there is no repository at the master's address",
        hint: "check the address: `hg paths default` or `git remote -v` shows it",
    },
    Complaint {
        words: &[
            "would be overwritten by merge",
            "not uptodate. Cannot merge",
            "untracked working tree files would be",
        ],
        kind: ErrorKind::Repository,
        message: "files in the clone's work tree were changed by hand",
        hint: "`git status` shows them; `git stash -u` or `git reset --hard` puts them aside",
    },
    Complaint {
        words: &[".lock': File exists"],
        kind: ErrorKind::Busy,
        message: "another git works in the clone, or one was killed there",
        hint: "when no git runs on this clone (`fuser -v <the lock file>`), remove the lock file that the message names",
    },
    Complaint {
        words: &["No space left on device", "Disk quota exceeded"],
        kind: ErrorKind::Io,
        message: "the disk of the clone is full",
        hint: "free space on that file system (df -h shows it); the next run tries again",
    },
    Complaint {
        words: &["ermission denied", "Read-only file system"],
        kind: ErrorKind::Io,
        message: "the clone cannot be written",
        hint: "give the user that runs borg-slave the right to write there",
    },
    // What is left when ssh said nothing that we know.
    Complaint {
        words: &["no suitable response from remote hg", "Could not read from remote repository"],
        kind: ErrorKind::Unreachable,
        message: "the master does not answer as a repository",
        hint: "try the SSH command of BORG_SSH by hand, and check that hg or git is on the PATH that it gives there",
    },
];

/// The error for a failed `hg` or `git` that said `stderr`.
pub(super) fn explain(vcs: Vcs, root: &Path, doing: &str, stderr: &str) -> Error {
    let known = COMPLAINTS.iter().find(|known| known.words.iter().any(|words| holds(stderr, words)));
    let error = match known {
        // A hgrc that Mercurial does not trust has no paths and no hooks.
        _ if distrusts_hgrc_of(root, stderr) => {
            Error::new(ErrorKind::Denied, "the clone's .hg/hgrc belongs to another user, so Mercurial ignores it")
                .hint("give the clone to the user that runs borg-slave (chown -R), or run borg-slave as its owner")
        }
        Some(known) => Error::new(known.kind, known.message).hint(known.hint),
        None => Error::new(ErrorKind::Repository, format!("{} failed", doing)).hint(match vcs {
            Vcs::Hg => "run `hg pull` in the clone by hand; `hg verify` tells whether the clone is damaged",
            Vcs::Git => "run `git fetch` in the clone by hand; `git fsck` tells whether the clone is damaged",
        }),
    };
    let error = error.subject(root.display().to_string());
    if stderr.is_empty() { error } else { error.source(mask_credentials(stderr)) }
}

/// Whether Mercurial said so of the clone's own hgrc: that of a repository beside it that is pulled from, which belongs
/// to another user as a rule, is none of the clone's business.
fn distrusts_hgrc_of(root: &Path, stderr: &str) -> bool {
    let file = root.join(".hg/hgrc");
    let real = file.canonicalize().unwrap_or_else(|_| file.clone());
    let named =
        stderr.lines().filter_map(|line| line.strip_prefix("not trusting file ")?.split_once(" from untrusted "));
    named.map(|(named, _)| Path::new(named)).any(|named| named == file || named == real)
}

fn holds(stderr: &str, words: &str) -> bool {
    words.split('…').all(|part| stderr.contains(part))
}

/// The error for a pull that was ended because it took too long.
pub(super) fn too_slow(root: &Path, doing: &str, limit: Duration, source: Error) -> Error {
    Error::new(ErrorKind::Unreachable, format!("{doing} was ended: it took longer than {} s", limit.as_secs()))
        .subject(root.display().to_string())
        .hint("the master or the network hangs, or another program holds the clone; the next run tries again")
        .source(source)
}

/// Replaces passwords and tokens in the URLs that a text holds.
///
/// Of an SSH URL the user stays, which is no secret and helps; of others all of `user:password` goes, because
/// a token may stand alone where the user would.
pub(crate) fn mask_credentials(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        masked.push_str(before);
        let end =
            after.find(|c: char| c.is_whitespace() || ['/', '\'', '"', '<', '>'].contains(&c)).unwrap_or(after.len());
        // What follows is looked at again from the host on: it may be the scheme of another URL.
        rest = match after[..end].rsplit_once('@') {
            Some((user, _)) => {
                match user.split_once(':') {
                    _ if !before.ends_with("ssh://") => masked.push_str("***"),
                    Some((name, _)) => masked.extend([name, ":***"]),
                    None => masked.push_str(user),
                }
                &after[user.len()..]
            }
            None => after,
        };
    }
    masked.push_str(rest);
    masked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(stderr: &str) -> ErrorKind {
        explain(Vcs::Hg, Path::new("/clone"), "hg pull", stderr).kind()
    }

    #[test]
    fn ssh_has_the_first_word() {
        assert_eq!(
            kind("remote: borg@master: Permission denied (publickey).\nabort: no suitable response from remote hg"),
            ErrorKind::Denied
        );
        assert_eq!(
            kind(
                "remote: ssh: connect to host master port 22: Connection refused\nabort: no suitable response from remote hg"
            ),
            ErrorKind::Unreachable
        );
        assert_eq!(
            kind("Host key verification failed.\nfatal: Could not read from remote repository."),
            ErrorKind::Denied
        );
        assert_eq!(kind("abort: no suitable response from remote hg"), ErrorKind::Unreachable);
    }

    #[test]
    fn a_hook_that_complains_of_its_database_does_not_blame_the_master() {
        let stderr = "Error: connecting failed: Connection refused\ntransaction abort!\nrollback completed\n\
                      abort: pretxnchangegroup.borg hook exited with status 1";
        assert_eq!(kind(stderr), ErrorKind::Repository);
    }

    #[test]
    fn only_the_clones_own_hgrc_can_be_to_blame() {
        let abort = "abort: no suitable response from remote hg";
        for (whose, expected) in [("/clone", ErrorKind::Denied), ("/srv/master", ErrorKind::Unreachable)] {
            let stderr = format!("not trusting file {whose}/.hg/hgrc from untrusted user root, group root\n{abort}");
            assert_eq!(kind(&stderr), expected, "{whose}");
        }
    }

    #[test]
    fn an_unknown_complaint_is_kept_and_masked() {
        let error = explain(Vcs::Git, Path::new("/clone"), "git fetch", "fatal: 'https://borg:s3cret@master/x' is odd");
        insta::assert_snapshot!(error.paragraph(), @r"
        Error: /clone: git fetch failed
          Caused by: fatal: 'https://***@master/x' is odd
          Hint: run `git fetch` in the clone by hand; `git fsck` tells whether the clone is damaged
        ");
    }

    #[test]
    fn credentials_are_masked_and_ssh_users_are_not() {
        insta::assert_snapshot!(
            mask_credentials("a https://u:p@h/x, ssh://borg@m:22/s ssh://borg:pw@m http://token@h:80 https://h/a@b"),
            @"a https://***@h/x, ssh://borg@m:22/s ssh://borg:***@m http://***@h:80 https://h/a@b"
        );
    }

    proptest! {
        #[test]
        fn no_password_survives(user in "[a-z]{0,5}", password in "[A-Z@:%!]{5,9}", before in "[a-z :/]{0,9}") {
            let text = format!("{before}https://{user}:{password}@host/path");
            prop_assert!(!mask_credentials(&text).contains(&password));
        }

        #[test]
        fn text_without_credentials_stays(text in "[a-z:/ .\n]{0,60}") {
            prop_assert_eq!(mask_credentials(&text), text);
        }
    }
}
