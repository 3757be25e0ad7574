//! Where a job says a file is: `user@host:/path` on another machine, or a plain path on this one.
//!
//! The value comes from a document that somebody else wrote, and parts of it reach the argument
//! vectors of `ssh` and `rsync`. What is parsed here can therefore never be read as an option, a
//! pattern, another host or another directory.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Longest path of Linux in bytes (`PATH_MAX` - 1).
const PATH_BYTES: usize = 4095;
/// Longest component of a path in bytes (`NAME_MAX`).
const COMPONENT_BYTES: usize = 255;
/// Longest host name in bytes (RFC 1035).
const HOST_BYTES: usize = 253;

/// Where a file is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// On a machine that is reached over SSH.
    Remote(Remote),
    /// On this machine.
    Local(PathBuf),
}

/// A file on a machine that is reached over SSH.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Whom to log in as; without it SSH decides.
    pub user: Option<String>,
    /// Host name or address; an IPv6 address without its brackets.
    pub host: String,
    /// Absolute path without `.`, `..` and empty components.
    pub path: String,
}

/// A machine and whom to log in as there: what one SSH connection serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Peer {
    /// Whom to log in as; without it SSH decides.
    pub(super) user: Option<String>,
    /// Host name or address; an IPv6 address without its brackets.
    pub(super) host: String,
}

impl Remote {
    /// `user@host`, as SSH takes it.
    #[must_use]
    pub fn login(&self) -> String {
        match &self.user {
            Some(user) => format!("{user}@{}", self.host),
            None => self.host.clone(),
        }
    }
}

impl Location {
    /// Reads `user@host:/path`, `host:/path` or `/path`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] naming the value when it is anything else: a relative path, `..`, control
    /// characters, a host or user that is none or that begins with a dash.
    pub fn parse(value: &str) -> Result<Self> {
        let refuse = |reason: &str| {
            Error::new(ErrorKind::Document, format!("{value:?} does not say where a file is: {reason}"))
                .hint("expected is user@host:/path or /path; publish again on the master")
        };
        if value.chars().any(char::is_control) {
            return Err(refuse("it holds a control character"));
        }
        if value.starts_with('/') {
            return Ok(Self::Local(normal_path(value).map_err(|reason| refuse(&reason))?.into()));
        }
        if value.contains("://") {
            return Err(refuse("it is a URL"));
        }
        let (peer, path) = split_peer(value).ok_or_else(|| refuse("it is neither absolute nor has it a host"))?;
        let path = normal_path(path).map_err(|reason| refuse(&reason))?;
        let Peer { user, host } = Peer::parse(peer).map_err(|reason| refuse(&reason))?;
        Ok(Self::Remote(Remote { user, host, path }))
    }

    /// The path on the machine it is on.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Remote(remote) => Path::new(&remote.path),
            Self::Local(path) => path,
        }
    }
}

impl Remote {
    /// The machine, without the path.
    pub(super) fn peer(&self) -> Peer {
        Peer { user: self.user.clone(), host: self.host.clone() }
    }
}

impl Peer {
    /// Reads `user@host` or `host`, an IPv6 address in brackets.
    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        let (user, host) = match text.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, text),
        };
        if let Some(user) = user {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
            if user.is_empty() || user.starts_with('-') || user.len() > 64 || !user.chars().all(fits) {
                return Err(format!("{user:?} is no user name"));
            }
        }
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => {
                // The zone of a link-local address is a network interface: fe80::1%eth0.
                let (address, zone) = address.split_once('%').unwrap_or((address, ""));
                let zone_fits = zone.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
                if address.parse::<std::net::Ipv6Addr>().is_err() || !zone_fits {
                    return Err(format!("{address:?} is no IPv6 address"));
                }
                if zone.is_empty() { address.to_owned() } else { format!("{address}%{zone}") }
            }
            None => {
                let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                let starts_well = host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
                if !starts_well || host.len() > HOST_BYTES || !host.chars().all(fits) {
                    return Err(format!("{host:?} is no host name"));
                }
                host.to_owned()
            }
        };
        Ok(Self { user: user.map(str::to_owned), host })
    }

    /// The host as `rsync` and URLs write it: an IPv6 address in brackets.
    pub(super) fn bracketed_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.bracketed_host())
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.peer(), self.path)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(remote) => remote.fmt(f),
            Self::Local(path) => path.display().fmt(f),
        }
    }
}

impl std::str::FromStr for Location {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        Self::parse(value)
    }
}

/// Splits at the colon that ends the host, which is not one inside brackets.
pub(super) fn split_peer(value: &str) -> Option<(&str, &str)> {
    let colon = match value.find('[') {
        Some(open) if !value[..open].contains(':') => {
            let close = open + value[open..].find(']')?;
            value[close..].starts_with("]:").then_some(close + 1)?
        }
        _ => value.find(':')?,
    };
    Some((&value[..colon], &value[colon + 1..]))
}

/// Checks an absolute path and takes `.` and empty components out of it.
pub(super) fn normal_path(path: &str) -> std::result::Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("the path {path:?} is not absolute"));
    }
    if path.len() > PATH_BYTES {
        return Err(format!("the path is longer than {PATH_BYTES} bytes"));
    }
    if path.ends_with('/') {
        return Err("the path is a directory".to_owned());
    }
    let mut normal = String::with_capacity(path.len());
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => return Err("the path holds `..`".to_owned()),
            long if long.len() > COMPONENT_BYTES => {
                return Err(format!("a name in the path is longer than {COMPONENT_BYTES} bytes"));
            }
            name => {
                normal.push('/');
                normal.push_str(name);
            }
        }
    }
    if normal.is_empty() {
        return Err("the path is a directory".to_owned());
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn remote_and_local_places_are_told_apart() {
        let remote = |value: &str| match Location::parse(value).unwrap() {
            Location::Remote(remote) => (remote.user, remote.host, remote.path),
            Location::Local(path) => panic!("local: {}", path.display()),
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            remote("borg@master-001:/var/./borg//41/roads.db"),
            (some("borg"), "master-001".into(), "/var/borg/41/roads.db".into())
        );
        assert_eq!(remote("m:/a b'$(c);`d`*?[x]:é"), (None, "m".into(), "/a b'$(c);`d`*?[x]:é".into()));
        assert_eq!(remote("u@[fe80::1%eth0]:/a"), (some("u"), "fe80::1%eth0".into(), "/a".into()));
        assert_eq!(Location::parse("/var/a:b@c").unwrap(), Location::Local("/var/a:b@c".into()));
        assert_eq!(Location::parse("u@[::1]:/a").unwrap().to_string(), "u@[::1]:/a");
    }

    #[test]
    fn what_could_be_read_as_something_else_is_refused() {
        for bad in [
            "",
            "roads.db",
            "dir/roads.db",
            "./a",
            "-e:/a",
            "-u@h:/a",
            "u@-h:/a",
            "h:a",
            "h:",
            "h:/",
            "h:/a/",
            "h::/a",
            "h:/a/../b",
            "h:/a\n",
            "h:/a\0",
            "C:\\dumps\\a.db",
            "\\\\server\\share",
            "u@h@x:/a",
            "u u@h:/a",
            "h;x:/a",
            "rsync://h/a",
            "[::1]/a",
            "[::g]:/a",
            "[::1:/a",
            "$(x)@h:/a",
            "/",
            "/a/",
            "/../a",
            "@h:/a",
            ":/a",
            "h\u{7f}:/a",
        ] {
            assert_eq!(Location::parse(bad).unwrap_err().kind(), ErrorKind::Document, "{bad:?}");
        }
    }

    #[test]
    fn the_refusal_names_the_value_and_the_reason() {
        insta::assert_snapshot!(Location::parse("borg@master:dumps/roads.db").unwrap_err().paragraph(), @r#"
        Error: "borg@master:dumps/roads.db" does not say where a file is: the path "dumps/roads.db" is not absolute
          Hint: expected is user@host:/path or /path; publish again on the master
        "#);
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_written_as_it_is_read(value in "([a-z-]{0,3}@)?[-a-z\\[\\]:.0-9]{0,6}:?/[-a/.: ]{0,8}") {
            if let Ok(location) = Location::parse(&value) {
                prop_assert_eq!(Location::parse(&location.to_string()).unwrap(), location.clone());
                prop_assert!(!location.to_string().starts_with('-'));
                let path = location.path().to_str().unwrap();
                prop_assert!(path.starts_with('/') && path.split('/').all(|part| part != ".."));
            }
        }
    }
}
