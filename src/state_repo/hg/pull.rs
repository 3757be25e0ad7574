//! `hg pull` and `hg recover`.

use std::time::Instant;

use super::HgRepo;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Cmd, Finished};
use crate::state_repo::complaint::{explain, too_slow};
use crate::state_repo::{PULLED_BY_SLAVE, PullHooks, PullOutcome, Revision, Vcs, inside_a_hook, unattended};

/// What hg says when the last pull was killed in the middle.
const ABANDONED: &str = "abandoned transaction found";

/// What a pull may need of Mercurial's configuration: logins, certificates, proxies, and whose hgrc counts.
const OF_THE_WAY: [&str; 6] = ["auth", "hostsecurity", "hostfingerprints", "http_proxy", "trusted", "web.cacerts"];

impl HgRepo {
    pub(in crate::state_repo) async fn pull(&mut self, hooks: PullHooks) -> Result<PullOutcome> {
        if self.options.hook_env.is_some() {
            return Err(inside_a_hook());
        }
        let mut outcome = PullOutcome {
            before: self.tip_if_any().await?,
            after: Revision::null(),
            recovered: false,
            rewritten: false,
        };
        let mut finished = self.pull_once(hooks).await?;
        if !finished.status.success() && finished.stderr.contains(ABANDONED) {
            outcome.recovered = self.recover().await?;
            outcome.before = self.tip_if_any().await?;
            finished = self.pull_once(hooks).await?;
        }
        if !finished.status.success() && !self.is_of_an_empty_master(&finished).await? {
            return Err(self.failed("hg pull", &finished));
        }
        outcome.after = self.tip().await?;
        Ok(outcome)
    }

    pub(in crate::state_repo) async fn recover(&mut self) -> Result<bool> {
        // It holds what the rollback takes away.
        self.server = None;
        let finished = self.write(vec!["recover".to_owned()], "hg recover", &[]).await?;
        match finished.status.code() {
            Some(0) => {
                tracing::warn!(clone = %self.options.root.display(), "rolled back what an interrupted hg pull had left");
                Ok(true)
            }
            // "no interrupted transaction available"
            Some(1) => Ok(false),
            _ => Err(self.failed("hg recover", &finished)),
        }
    }

    /// The tip, or null where the branch is yet to come.
    async fn tip_if_any(&mut self) -> Result<Revision> {
        Ok(self.branch_tip().await?.unwrap_or_else(Revision::null))
    }

    async fn pull_once(&mut self, hooks: PullHooks) -> Result<Finished> {
        let mut args = vec!["pull".to_owned(), "--quiet".to_owned()];
        args.extend(self.ssh_option());
        if let Some(branch) = &self.options.branch {
            args.push(format!("--branch={branch}"));
        }
        if hooks == PullHooks::Run {
            return self.write(args, "hg pull", &[]).await;
        }
        for hook in self.hooks_of_ours().await? {
            args.push(format!("--config=hooks.{hook}="));
        }
        self.write(args, "hg pull", &[(PULLED_BY_SLAVE, "1")]).await
    }

    fn ssh_option(&self) -> Option<String> {
        (!self.options.ssh.is_empty()).then(|| format!("--ssh={}", unattended(&self.options.ssh)))
    }

    /// The names of the hooks that call this program.
    async fn hooks_of_ours(&mut self) -> Result<Vec<String>> {
        let reply = self.ask(&["config", "hooks", "-T", "{name}\\0{value}\\0"]).await?;
        // 1: there are no hooks.
        if reply.code > 1 {
            return Err(self.refused("reading the hooks", &reply));
        }
        let mut fields = reply.output.split(|&byte| byte == 0);
        let mut ours = Vec::new();
        while let (Some(name), Some(command)) = (fields.next(), fields.next()) {
            if String::from_utf8_lossy(command).contains("borg-slave") {
                let name = String::from_utf8_lossy(name);
                ours.push(name.strip_prefix("hooks.").unwrap_or(&name).to_owned());
            }
        }
        Ok(ours)
    }

    pub(in crate::state_repo) async fn master_answers(&mut self) -> Result<bool> {
        if self.ask(&["paths", "-q", "default"]).await?.code != 0 {
            return Ok(false);
        }
        let finished = self.identify_master(&[]).await?;
        if finished.status.success() { Ok(true) } else { Err(self.failed("hg identify", &finished)) }
    }

    /// What hg knows when it runs by hand, and not when it runs for us.
    pub(in crate::state_repo) async fn unread_settings(&mut self) -> Result<Vec<String>> {
        let mut show = vec!["config"];
        show.extend(OF_THE_WAY);
        show.extend(["-T", "{name}={value}\\0"]);
        let ours = self.ask(&show).await?;
        // 1: there are none.
        if ours.code > 1 {
            return Err(self.refused("reading the configuration", &ours));
        }
        let by_hand = Cmd::new("hg").env("HGPLAIN", "1").cwd(&self.options.root).args(&show);
        let Ok(by_hand) = by_hand.time_limit(self.options.time_limit).stop(&self.options.stop).run().await else {
            return Ok(Vec::new());
        };
        let is_read = |setting: &[u8]| super::nul_separated(&ours.output).any(|ours| ours == setting);
        let unread = super::nul_separated(&by_hand.stdout).filter(|setting| !is_read(setting));
        let unread = unread.map(|setting| String::from_utf8_lossy(setting).into_owned());
        // What Debian sets is what Python takes by itself.
        let unread = unread.filter(|setting| setting != "web.cacerts=/etc/ssl/certs/ca-certificates.crt");
        Ok(unread.filter_map(|setting| Some(setting.split_once('=')?.0.to_owned())).collect())
    }

    async fn identify_master(&mut self, more: &[&str]) -> Result<Finished> {
        let mut args: Vec<String> = ["identify", "--id"].iter().chain(more).map(|word| (*word).to_owned()).collect();
        args.extend(self.ssh_option());
        args.push("default".to_owned());
        self.write(args, "hg identify", &[]).await
    }

    /// Whether the pull failed only because a master without any changeset has no branches either.
    async fn is_of_an_empty_master(&mut self, finished: &Finished) -> Result<bool> {
        if !finished.stderr.contains("unknown branch") {
            return Ok(false);
        }
        let identified = self.identify_master(&["--debug"]).await?;
        let empty = Revision::parse(identified.stdout_text().trim()).is_ok_and(|tip| tip.is_null());
        Ok(identified.status.success() && empty)
    }

    /// Runs an hg that may take the lock or talk to the master.
    async fn write(&mut self, args: Vec<String>, doing: &str, env: &[(&str, &str)]) -> Result<Finished> {
        let limit = self.options.time_limit;
        let wait = self.options.lock_wait.as_secs().max(1);
        let mut command = self.hg().args(args).arg(format!("--config=ui.timeout={wait}"));
        for (name, value) in env {
            command = command.env(name, value);
        }
        let started = Instant::now();
        let finished = match command.time_limit(limit).stop(&self.options.stop).run().await {
            Err(error) if error.kind() == ErrorKind::Process && started.elapsed() >= limit => {
                return Err(too_slow(&self.options.root, doing, limit, error));
            }
            finished => finished?,
        };
        if finished.stderr.contains("timed out waiting for lock") {
            return Err(super::lock::held(&self.options.root, &finished.stderr));
        }
        Ok(finished)
    }

    fn failed(&self, doing: &str, finished: &Finished) -> Error {
        explain(Vcs::Hg, &self.options.root, doing, &finished.stderr)
    }
}
