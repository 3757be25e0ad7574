//! The SSH command of the settings, understood.
//!
//! `rsync` runs the command as it is. The SSH library reads no configuration file and knows no jump
//! hosts, so the command's options are read here into a typed form, and whatever the library could not
//! honour is named as the reason why the `ssh` program itself must be used.
//! The options are those of ssh(1) and ssh_config(5) of OpenSSH 9.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::location::Peer;
use crate::error::{Error, ErrorKind, Result};

/// Options of ssh(1) that take a value.
const WITH_VALUE: &str = "BbcDEeFIiJLlmOoPpQRSWw";
/// Options of ssh(1) that take none.
const WITHOUT_VALUE: &str = "46AaCfGgKkMNnqsTtVvXxYy";

/// Keywords of ssh_config(5), in lower case, that the library can leave aside.
const HARMLESS: &[&str] = &[
    "batchmode",
    "checkhostip",
    "compression",
    "escapechar",
    "exitonforwardfailure",
    "forwardagent",
    "forwardx11",
    "gssapiauthentication",
    "hashknownhosts",
    "ipqos",
    "kbdinteractiveauthentication",
    "challengeresponseauthentication",
    "keepalive",
    "tcpkeepalive",
    "loglevel",
    "numberofpasswordprompts",
    "passwordauthentication",
    "preferredauthentications",
    "pubkeyauthentication",
    "requesttty",
    "serveralivecountmax",
    "updatehostkeys",
    "visualhostkey",
    "rekeylimit",
    "addkeystoagent",
    "sendenv",
];

/// What to do with a host whose key is not known, or not the known one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Refuse both; also what `ask` comes to, because nobody is there to be asked.
    Strict,
    /// Take a new host, refuse a changed key.
    AcceptNew,
    /// Take both.
    Any,
}

/// An SSH command and what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshCommand {
    argv: Vec<String>,
    /// Private keys to offer, in this order.
    pub identity_files: Vec<PathBuf>,
    /// Whether only these keys, and none of an agent, are offered.
    pub identities_only: bool,
    /// Port of the server.
    pub port: Option<u16>,
    /// Whom to log in as when the location does not say.
    pub user: Option<String>,
    /// What to do about unknown and changed host keys.
    pub host_keys: HostKeyPolicy,
    /// Files with the keys of known hosts; empty: those of OpenSSH's defaults.
    pub known_hosts_files: Vec<PathBuf>,
    /// How long one attempt to connect may take.
    pub connect_timeout: Option<Duration>,
    /// How often a silent connection is probed.
    pub server_alive_interval: Option<Duration>,
    /// How many attempts to connect are made.
    pub connection_attempts: u32,
    /// Only IPv4 or only IPv6 addresses.
    pub address_family: Option<Family>,
    /// Why the `ssh` program must be used instead of the library.
    pub needs_program: Option<String>,
    open_ssh: bool,
    own_multiplexing: bool,
    batch_mode: bool,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl SshCommand {
    /// Reads an argument vector such as `["ssh", "-i", "/etc/key", "-oConnectTimeout=10"]`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] when it is empty, an option lacks its value or has a wrong one, or a host
    /// is named (the job files name the hosts).
    pub fn parse(argv: &[String]) -> Result<Self> {
        let (program, options) = argv.split_first().ok_or_else(|| wrong("it is empty"))?;
        let mut command = Self {
            argv: argv.to_vec(),
            identity_files: Vec::new(),
            identities_only: false,
            port: None,
            user: None,
            host_keys: HostKeyPolicy::Strict,
            known_hosts_files: Vec::new(),
            connect_timeout: None,
            server_alive_interval: None,
            connection_attempts: 1,
            address_family: None,
            needs_program: None,
            open_ssh: Path::new(program).file_name().is_some_and(|name| name == "ssh"),
            own_multiplexing: false,
            batch_mode: false,
        };
        if command.open_ssh {
            command.read(options)?;
        } else {
            command.needs(format!("`{program}` is not OpenSSH's ssh"));
        }
        Ok(command)
    }

    fn read(&mut self, options: &[String]) -> Result<()> {
        let mut seen = Vec::new();
        let mut config_off = false;
        let mut rest = options.iter();
        while let Some(word) = rest.next() {
            let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
                return Err(wrong(&format!("{word:?} is no option; hosts are named by the job files")));
            };
            for (at, letter) in letters.char_indices() {
                if WITHOUT_VALUE.contains(letter) {
                    self.flag(letter);
                } else if WITH_VALUE.contains(letter) {
                    let glued = &word[1 + at + letter.len_utf8()..];
                    let value = if glued.is_empty() {
                        rest.next().ok_or_else(|| wrong(&format!("-{letter} lacks its value")))?.as_str()
                    } else {
                        glued
                    };
                    if letter == 'F' && matches!(value, "none" | "/dev/null") {
                        config_off = true;
                    } else {
                        self.option(letter, value, &mut seen)?;
                    }
                    break;
                } else {
                    return Err(wrong(&format!("ssh has no option -{letter}")));
                }
            }
        }
        if !config_off && expand("~/.ssh/config").is_some_and(|path| path.exists()) {
            self.needs("~/.ssh/config exists, and only the program reads it".to_owned());
        }
        if !config_off && let Some(reason) = system_config(Path::new("/etc/ssh")) {
            self.needs(reason);
        }
        Ok(())
    }

    fn flag(&mut self, letter: char) {
        match letter {
            '4' => self.address_family = Some(Family::V4),
            '6' => self.address_family = Some(Family::V6),
            'M' => {
                self.own_multiplexing = true;
                self.needs("-M shares a connection".to_owned());
            }
            _ => {}
        }
    }

    fn option(&mut self, letter: char, value: &str, seen: &mut Vec<String>) -> Result<()> {
        match letter {
            'i' => self.keyword("identityfile", value),
            'p' => self.once("port", value, seen),
            'l' => self.once("user", value, seen),
            'o' => {
                // `Key=Value`, `Key Value` and `Key = Value` are all allowed.
                let (key, value) = value
                    .split_once(|c: char| c == '=' || c.is_whitespace())
                    .ok_or_else(|| wrong(&format!("-o {value:?} lacks its value")))?;
                let value = value.trim_start_matches(|c: char| c == '=' || c.is_whitespace()).trim_end();
                let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
                self.once(&key.to_ascii_lowercase(), value, seen)
            }
            'e' | 'E' => Ok(()),
            'S' => self.keyword("controlpath", value),
            other => {
                self.needs(format!("-{other} is used"));
                Ok(())
            }
        }
    }

    /// The first value of a keyword counts, but for those that add up.
    fn once(&mut self, key: &str, value: &str, seen: &mut Vec<String>) -> Result<()> {
        if !matches!(key, "identityfile" | "certificatefile") {
            if seen.iter().any(|known| known == key) {
                return Ok(());
            }
            seen.push(key.to_owned());
        }
        self.keyword(key, value)
    }

    fn keyword(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "identityfile" => {
                if let Some(path) = self.path(value) {
                    self.identity_files.push(path);
                }
            }
            "identitiesonly" => self.identities_only = value.eq_ignore_ascii_case("yes"),
            "batchmode" => self.batch_mode = ["yes", "true"].iter().any(|on| value.eq_ignore_ascii_case(on)),
            "port" => self.port = Some(number(key, value)?),
            "user" => self.user = Some(value.to_owned()),
            "stricthostkeychecking" => {
                self.host_keys = match value.to_ascii_lowercase().as_str() {
                    "no" | "off" => HostKeyPolicy::Any,
                    "accept-new" => HostKeyPolicy::AcceptNew,
                    "yes" | "ask" => HostKeyPolicy::Strict,
                    _ => return Err(wrong(&format!("StrictHostKeyChecking is {value:?}: yes, no, accept-new or ask"))),
                }
            }
            "userknownhostsfile" => {
                for file in value.split_whitespace() {
                    if let Some(path) = self.path(file) {
                        self.known_hosts_files.push(path);
                    }
                }
            }
            "connecttimeout" => self.connect_timeout = Some(Duration::from_secs(number(key, value)?)),
            "serveraliveinterval" => self.server_alive_interval = Some(Duration::from_secs(number(key, value)?)),
            "connectionattempts" => self.connection_attempts = number::<u32>(key, value)?.max(1),
            "addressfamily" => {
                self.address_family = match value.to_ascii_lowercase().as_str() {
                    "inet" => Some(Family::V4),
                    "inet6" => Some(Family::V6),
                    _ => None,
                }
            }
            "controlmaster" | "controlpath" | "controlpersist" => {
                self.own_multiplexing = true;
                self.needs(format!("{key} shares a connection"));
            }
            "proxyjump" | "proxycommand" if value.eq_ignore_ascii_case("none") => {}
            harmless if HARMLESS.contains(&harmless) => {}
            other => self.needs(format!("-o {other} is used")),
        }
        Ok(())
    }

    fn path(&mut self, value: &str) -> Option<PathBuf> {
        if value.contains('%') || value.contains("${") {
            self.needs(format!("{value:?} is to be expanded"));
            return None;
        }
        expand(value)
    }

    fn needs(&mut self, reason: String) {
        self.needs_program.get_or_insert(reason);
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.argv[0]
    }

    /// Whether it takes the options of OpenSSH.
    pub(super) fn is_open_ssh(&self) -> bool {
        self.open_ssh
    }

    /// Whether one connection of ours can be shared: it is OpenSSH, and the command does not share
    /// connections by itself.
    pub(super) fn can_multiplex(&self) -> bool {
        self.open_ssh && !self.own_multiplexing
    }

    /// The arguments without the program, made sure never to ask anybody, and then `more`.
    pub(super) fn arguments(&self, more: &[String]) -> Vec<String> {
        let mut arguments = Vec::new();
        if self.open_ssh && !self.batch_mode {
            // Before the command's own, of which one may say the contrary: ssh takes the first.
            arguments.push("-oBatchMode=yes".to_owned());
        }
        arguments.extend_from_slice(&self.argv[1..]);
        arguments.extend_from_slice(more);
        arguments
    }

    /// The arguments that run `script` on `peer` by the program. Only `script` is seen by a shell.
    pub(super) fn remote_arguments(&self, more: &[String], peer: &Peer, script: &str) -> Vec<String> {
        let mut arguments = self.arguments(more);
        if let Some(user) = &peer.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        arguments.push(peer.host.clone());
        arguments.push(script.to_owned());
        arguments
    }

    /// The command as the value of rsync's `-e`, with `more` options at its end.
    ///
    /// rsync splits it by itself: at spaces, with single and double quotes, without backslashes, a quote
    /// inside quotes being doubled (rsync(1), `--rsh`).
    pub(super) fn for_rsync(&self, more: &[String]) -> String {
        let mut words = vec![self.argv[0].clone()];
        words.extend(self.arguments(more));
        words.iter().map(|word| rsync_word(word)).collect::<Vec<_>>().join(" ")
    }
}

/// Why the program must be used, when the system's own configuration in `dir` says more than Debian's does
/// as it comes.
fn system_config(dir: &Path) -> Option<String> {
    let included =
        std::fs::read_dir(dir.join("ssh_config.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let included = included.filter(|path| path.extension().is_some_and(|extension| extension == "conf"));
    [dir.join("ssh_config")].into_iter().chain(included).find_map(|path| {
        let text = std::fs::read_to_string(&path).ok()?;
        let keywords = text.lines().filter_map(|line| {
            let line = line.trim_start();
            let keyword = line.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
            let is_one = !keyword.is_empty() && !keyword.starts_with('#');
            let is_own_folder = keyword.eq_ignore_ascii_case("include") && line.ends_with("/ssh_config.d/*.conf");
            (is_one && !is_own_folder).then(|| keyword.to_ascii_lowercase())
        });
        let mut unknown = keywords.filter(|keyword| keyword != "host" && !HARMLESS.contains(&keyword.as_str()));
        let first = unknown.next()?;
        Some(format!("{} sets {first}, and only the program reads it", path.display()))
    })
}

fn rsync_word(word: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && c != '\'' && c != '"';
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "''"))
}

/// Expands a leading `~/`.
fn expand(value: &str) -> Option<PathBuf> {
    match value.strip_prefix("~/") {
        Some(rest) => std::env::home_dir().map(|home| home.join(rest)),
        None => Some(PathBuf::from(value)),
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| wrong(&format!("{key} is {value:?}, a number is expected")))
}

fn wrong(reason: &str) -> Error {
    Error::new(ErrorKind::Settings, format!("the SSH command cannot be used: {reason}"))
        .subject("BORG_SSH")
        .hint("write it as on a command line, without a host: ssh -i /etc/id_rsa_borg -o ConnectTimeout=10")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<SshCommand> {
        SshCommand::parse(&shell_words::split(line).unwrap())
    }

    #[test]
    fn the_default_command_of_the_old_slave_needs_no_program() {
        let command = parse(
            "ssh -F none -i /etc/id_rsa_borg -o StrictHostKeyChecking=no -o KeepAlive=yes -o ServerAliveInterval=30 \
             -o ConnectTimeout=3600 -o ConnectionAttempts=5",
        )
        .unwrap();
        assert_eq!(command.needs_program, None);
        assert_eq!(command.identity_files, [PathBuf::from("/etc/id_rsa_borg")]);
        assert_eq!(command.host_keys, HostKeyPolicy::Any);
        assert_eq!(command.connect_timeout, Some(Duration::from_secs(3600)));
        assert_eq!(command.connection_attempts, 5);
        assert!(command.can_multiplex());
    }

    #[test]
    fn a_system_configuration_that_says_more_than_debians_needs_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let debian = "# as it comes\nInclude /etc/ssh/ssh_config.d/*.conf\nHost *\n    SendEnv LANG LC_*\n    HashKnownHosts yes\n    GSSAPIAuthentication yes\n";
        assert_eq!(system_config(dir.path()), None);
        std::fs::write(dir.path().join("ssh_config"), debian).unwrap();
        assert_eq!(system_config(dir.path()), None);
        std::fs::create_dir(dir.path().join("ssh_config.d")).unwrap();
        let own = dir.path().join("ssh_config.d/site.conf");
        std::fs::write(&own, "Host master\n ProxyJump=gate\n").unwrap();
        assert!(system_config(dir.path()).unwrap().contains("site.conf sets proxyjump"));
    }

    #[test]
    fn every_spelling_of_an_option_is_understood_and_the_first_value_counts() {
        let command = parse(
            r#"/usr/bin/ssh -Fnone -4Cp 2222 -lborg -oport=1 -o "Port 2" -o 'UserKnownHostsFile = "/a /b"' -ik1 -o IdentityFile=k2"#,
        )
        .unwrap();
        assert_eq!((command.port, command.user.as_deref()), (Some(2222), Some("borg")));
        assert_eq!(command.known_hosts_files, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(command.identity_files, [PathBuf::from("k1"), PathBuf::from("k2")]);
        assert_eq!(command.address_family, Some(Family::V4));
        assert_eq!(command.needs_program, None);
    }

    #[test]
    fn nobody_is_ever_asked() {
        let arguments = |line| parse(line).unwrap().arguments(&[]).join(" ");
        assert_eq!(arguments("ssh -p 22"), "-oBatchMode=yes -p 22");
        // Of an option given twice, ssh takes the first.
        assert_eq!(arguments("ssh -oBatchMode=no -oBatchMode=yes"), "-oBatchMode=yes -oBatchMode=no -oBatchMode=yes");
        assert_eq!(arguments("ssh -o 'BatchMode yes' -p 22"), "-o BatchMode yes -p 22");
        assert_eq!(arguments("plink -batch"), "-batch");
    }

    #[test]
    fn what_the_library_cannot_do_is_named() {
        for line in [
            "ssh -J jump",
            "ssh -F /etc/borg_ssh_config",
            "ssh -o ProxyCommand='nc %h %p'",
            "ssh -oCertificateFile=/c",
            "ssh -S /run/ssh.sock",
            "ssh -oControlPath=/x",
            "ssh -M",
            "ssh -o Ciphers=aes128-ctr",
            "ssh -i /keys/%u",
            "plink -batch",
        ] {
            assert!(parse(line).unwrap().needs_program.is_some(), "{line}");
        }
        assert!(!parse("ssh -o ControlMaster=auto").unwrap().can_multiplex());
        assert!(!parse("plink -batch").unwrap().can_multiplex());
        assert!(parse("ssh -F none -J x").unwrap().can_multiplex());
    }

    #[test]
    fn nonsense_is_refused_at_start() {
        for line in [
            "",
            "ssh -p",
            "ssh -p many",
            "ssh master",
            "ssh -",
            "ssh -o Port",
            "ssh -oStrictHostKeyChecking=maybe",
            "ssh --help",
        ] {
            assert_eq!(parse(line).unwrap_err().kind(), ErrorKind::Settings, "{line}");
        }
    }

    #[test]
    fn rsync_splits_what_was_joined_for_it_as_it_was() {
        let command = parse(r#"ssh -i "/etc/my key" -o "ProxyCommand=nc '%h' \\x" -F ''"#).unwrap();
        insta::assert_snapshot!(command.for_rsync(&["-oControlPath=/tmp/a b".into()]), @r"ssh -oBatchMode=yes -i '/etc/my key' -o 'ProxyCommand=nc ''%h'' \x' -F '' '-oControlPath=/tmp/a b'");
    }
}
