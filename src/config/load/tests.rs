//! What a load accepts, refuses and says.

use super::*;
use secrecy::ExposeSecret as _;
use std::collections::BTreeMap;
use std::fs;
use tempfile::TempDir;

/// A clone, and variables to load there.
struct Clone {
    dir: TempDir,
    env: BTreeMap<String, String>,
}

impl Clone {
    fn new(env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".hg")).unwrap();
        let mut env: BTreeMap<_, _> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        env.entry("SLAVE_NAME".into()).or_insert("slave".into());
        Self { dir, env }
    }

    fn file(self, path: &str, text: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self
    }

    fn load(&self) -> Result<Loaded> {
        load(&self.env, &Place { env_file: None, working_directory: self.dir.path().into() })
    }

    fn settings(&self) -> Settings {
        self.load().unwrap_or_else(|error| panic!("{}", error.paragraph())).settings
    }

    /// The text with the clone's path as `<clone>`.
    fn neutral(&self, text: &str) -> String {
        text.replace(self.dir.path().to_str().unwrap(), "<clone>")
    }

    fn error(&self) -> String {
        self.neutral(&self.load().map(|_| ()).unwrap_err().paragraph())
    }

    fn warnings(&self) -> String {
        self.neutral(&self.load().unwrap().warnings.join("\n"))
    }
}

fn error(env: &[(&str, &str)]) -> String {
    Clone::new(env).error()
}

#[test]
fn nothing_set_gives_the_documented_defaults() {
    let clone = Clone::new(&[("PARALLEL_RESTORES", "3")]);
    let shown: Vec<_> = clone
        .settings()
        .effective()
        .into_iter()
        .filter(|(_, value)| value != "(not set)")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    insta::assert_snapshot!(clone.neutral(&shown.join("\n")), @"
    SLAVE_NAME=slave
    LISTEN_CHANNELS=geoserver
    HOOK_ON_FAILURE=refuse
    POLL_INTERVAL=60
    DEBUG=false
    ROLLBACK=false
    STATE_REPOSITORY_ROOT=<clone>
    CODE_BUILD=cargo build --release --locked
    BORG_SSH=ssh -i /etc/id_rsa_borg -o StrictHostKeyChecking=no -o KeepAlive=yes -o ServerAliveInterval=30 -o ConnectTimeout=3600 -o ConnectionAttempts=5
    BORG_STATE_SSH=ssh -i /etc/id_rsa_borg -o StrictHostKeyChecking=no -o KeepAlive=yes -o ServerAliveInterval=30 -o ConnectTimeout=3600 -o ConnectionAttempts=5
    BORGCOLLECTOR_SSH=ssh -i /etc/id_rsa_borg -o StrictHostKeyChecking=no -o KeepAlive=yes -o ServerAliveInterval=30 -o ConnectTimeout=3600 -o ConnectionAttempts=5
    CACHE_PATH=<clone>/code/dumps
    SYNC_STATUS_PATH=<clone>/code/.sync_status
    PREVIEW_PATH=<clone>/code/previews
    SHARE_LAYER_DATA=false
    SHARE_PREVIEW_DATA=false
    KEEP_CACHED_FILES=false
    PARALLEL_DOWNLOADS=2
    DOWNLOAD_AHEAD=20
    TRANSFER_TIMEOUT=60
    STEP_TIMEOUT=21600
    GEOSERVER_URL=http://localhost:8080/geoserver
    GEOSERVER_USERNAME=admin
    GEOSERVER_PASSWORD=(set)
    GEOSERVER_DATA_DIR=/opt/geoserver/data_dir
    GEOSERVER_SHARING_DATA_DIR=false
    GEOSERVER_CREATE_GRIDSETS=false
    GEOSERVER_WORKSPACE_NAMESPACE=http://{}.dpaw.wa.gov.au
    GEOSERVER_DATASTORE_NAMESPACE={}_ds
    GEOSERVER_DEFAULT_CRS=EPSG:4326
    GEOSERVER_TIMEOUT=120
    GEOSERVER_PGSQL_HOST=localhost
    GEOSERVER_PGSQL_PORT=5432
    GEOSERVER_PGSQL_DATABASE=borg_slave
    GEOSERVER_PGSQL_SSLMODE=prefer
    PARALLEL_RESTORES=3
    SKIP_AUTH=false
    SKIP_RULES=false
    SKIP_DB=false
    SKIP_GS=false
    ");
    assert_eq!(clone.warnings(), "");
}

#[test]
fn effective_shows_every_variable_in_the_order_of_the_table() {
    let shown: Vec<_> = Clone::new(&[]).settings().effective().into_iter().map(|(name, _)| name).collect();
    let known: Vec<_> = v::VARIABLES.iter().map(|variable| variable.name).collect();
    assert_eq!(shown, known);
}

#[test]
fn all_problems_are_told_together() {
    let clone = Clone::new(&[
        ("POLL_INTERVAL", "0"),
        ("SKIP_DB", "maybe"),
        ("GEOSERVER_URL", "ftp://admin:hunter2@gs/geoserver, http://gs/geoserver/rest"),
        ("MASTER_PGSQL_HOST", "master"),
        ("SYNC_SERVER", "-oProxyCommand=x@host"),
        ("BORG_SSH", "ssh -i 'key"),
        ("GEOSERVER_DATASTORE_NAMESPACE", "store"),
        ("GEOSERVER_DEFAULT_CRS", "4326"),
        ("FEATURE_FILTER", "missing.rhai"),
        ("GEOSERVER_PGSQL_SSLMODE", "always"),
        ("MASTER_PGSQL_DATABSE", "borgcollector"),
    ])
    .file(".env", "PARALLEL_DOWNLOADS=40\nGEOSERVER_PGSQL_PORT=70000\nHOOK_ON_FAILURE=ignore me\n");
    insta::assert_snapshot!(clone.error(), @r#"
    Error: 14 settings cannot be used:
      HOOK_ON_FAILURE (<clone>/.env:3): a value with spaces stands in single quotes: NAME='a value'
      SYNC_SERVER (environment): "-oProxyCommand=x@host" is not user@host; allowed: user@host
      BORG_SSH (environment): "ssh -i 'key" has a quote that is not closed; allowed: a command such as `ssh -i /etc/id_rsa_borg -o BatchMode=yes -o ConnectTimeout=10`
      GEOSERVER_URL (environment): "ftp://(hidden)@gs/geoserver" is neither http nor https; allowed: http(s)://host[:port]/path, several joined by commas
      GEOSERVER_URL (environment): "http://gs/geoserver/rest" ends in /rest; the address of GeoServer itself ends before that; allowed: http(s)://host[:port]/path, several joined by commas
      GEOSERVER_DATASTORE_NAMESPACE (environment): "store" has no `{}`, so that all workspaces would get the same; allowed: a text with `{}` where the workspace goes
      GEOSERVER_DEFAULT_CRS (environment): "4326" is no reference system; allowed: EPSG:<number>
      GEOSERVER_PGSQL_PORT (<clone>/.env:2): "70000" is out of range; allowed: a whole number from 1 to 65535
      GEOSERVER_PGSQL_SSLMODE (environment): "always" is not known; allowed: disable, prefer, require, verify-ca, verify-full
      MASTER_PGSQL_DATABASE: is not set, and MASTER_PGSQL_HOST is (environment); allowed: the name of the database there
      SKIP_DB (environment): "maybe" is neither true nor false; allowed: true, yes, on, 1 or false, no, off, 0
      FEATURE_FILTER (environment): there is no file <clone>/missing.rhai; a relative path counts from the clone
      POLL_INTERVAL (environment): "0" is out of range; allowed: a whole number of seconds from 1 to 604800
      PARALLEL_DOWNLOADS (<clone>/.env:1): "40" is out of range; allowed: a whole number from 1 to 16
      warning: MASTER_PGSQL_DATABSE (environment) is not a setting; did you mean MASTER_PGSQL_DATABASE?
      Hint: correct what is named above, then start again; docs/settings.md explains every setting
    "#);
}

#[test]
fn one_problem_is_told_in_one_line() {
    insta::assert_snapshot!(error(&[("POLL_INTERVAL", "soon")]), @r#"
    Error: POLL_INTERVAL (environment): "soon" is no whole number; allowed: a whole number of seconds from 1 to 604800
      Hint: correct what is named above, then start again; docs/settings.md explains every setting
    "#);
}

#[test]
fn a_lambda_of_old_is_answered_with_rhai_even_unquoted() {
    let clone = Clone::new(&[]).file("code/.env", "\nFEATURE_FILTER=lambda job: job.get('auth_level', -1) in [0, 1]\n");
    insta::assert_snapshot!(clone.error(), @r#"
    Error: FEATURE_FILTER (<clone>/code/.env:2): filters are written in Rhai, not as a Python lambda; write instead
        FEATURE_FILTER='get(job, "auth_level", -1) in [0, 1]'
      Hint: correct what is named above, then start again; docs/settings.md explains every setting
    "#);
}

#[test]
fn the_environment_wins_over_the_file_and_empty_is_unset() {
    let clone = Clone::new(&[("POLL_INTERVAL", "5"), ("DEBUG", "")])
        .file(".env", "POLL_INTERVAL=7\nDEBUG=Yes\nROLLBACK=\nSKIP_GS=on\n")
        .file("code/.env", "SKIP_DB=1\n");
    let before = std::env::var_os("SKIP_GS");
    let loaded = clone.load().unwrap();
    assert_eq!(loaded.settings.poll_interval, Duration::from_secs(5));
    assert!(loaded.settings.debug && !loaded.settings.rollback);
    assert_eq!(loaded.settings.skip, Skip { gs: true, ..Skip::default() }, "only the first file is read");
    assert_eq!(loaded.env_file, Some(clone.dir.path().join(".env")));
    assert_eq!(std::env::var_os("SKIP_GS"), before, "the process environment is left alone");
}

#[test]
fn a_named_file_can_say_where_the_clone_is() {
    let clone = Clone::new(&[]).file("elsewhere/slave.env", "STATE_REPOSITORY_ROOT=..\n").file(".env", "DEBUG=1\n");
    let working_directory = clone.dir.path().join("elsewhere");
    let place = Place { env_file: Some("slave.env".into()), working_directory: working_directory.clone() };
    let loaded = load(&clone.env, &place).unwrap();
    assert_eq!(loaded.settings.state_repository_root, clone.dir.path().canonicalize().unwrap());
    assert_eq!(loaded.env_file, Some(working_directory.join("slave.env")));
    assert!(!loaded.settings.debug, "only the named file is read");

    let missing = Place { env_file: Some("none.env".into()), ..place };
    let error = load(&clone.env, &missing).unwrap_err();
    assert!(error.to_string().ends_with("none.env: cannot read the file of settings"), "{error}");
}

#[test]
fn outside_a_repository_the_remedy_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place { env_file: None, working_directory: dir.path().into() };
    let text = load(&BTreeMap::new(), &place).map(|_| ()).unwrap_err().paragraph();
    insta::assert_snapshot!(text.replace(dir.path().to_str().unwrap(), "<dir>"), @"
    Error: <dir>: no state repository at or above the working directory
      Hint: start borg-slave inside the clone of the state repository, or set STATE_REPOSITORY_ROOT to it, in the environment or in a file given with --env-file
    ");
    let env = BTreeMap::from([("STATE_REPOSITORY_ROOT".to_owned(), ".".to_owned())]);
    let error = load(&env, &place).unwrap_err();
    assert!(error.message().contains("is no Mercurial or Git repository"), "{error}");
}

#[test]
fn each_geoserver_gets_its_own_login() {
    let settings = Clone::new(&[
        ("GEOSERVER_URL", "http://a:80/geoserver/, https://b"),
        ("GEOSERVER_USERNAME", "one"),
        ("GEOSERVER_PASSWORD", "p1, p2"),
        ("GEOSERVER_DATA_DIR", "/a,/b,"),
    ])
    .settings();
    let found: Vec<_> = settings
        .geoservers
        .iter()
        .map(|gs| {
            format!("{} {} {} {}", gs.address("/rest"), gs.username, gs.password.expose_secret(), gs.data_dir.display())
        })
        .collect();
    assert_eq!(found, ["http://a/geoserver/rest one p1 /a", "https://b/rest one p2 /b"]);
    let comma = Clone::new(&[("GEOSERVER_PASSWORD", "a,b ")]).settings();
    assert_eq!(comma.geoservers[0].password.expose_secret(), "a,b ");
}

#[test]
fn a_status_page_that_others_can_reach_needs_a_token() {
    let page = |listen: &str, token: &str| Clone::new(&[("STATUS_LISTEN", listen), ("STATUS_TOKEN", token)]);
    let token = "0123456789abcdef";
    for (listen, token, taken) in [
        ("127.0.0.1:8081", "", "127.0.0.1:8081"),
        ("localhost:0", "", "127.0.0.1:0"),
        ("[::1]:8081", token, "[::1]:8081"),
        ("[::ffff:127.0.0.1]:1", "", "[::ffff:127.0.0.1]:1"),
        ("0.0.0.0:8081", token, "0.0.0.0:8081"),
    ] {
        let settings = page(listen, token).settings().status_page.unwrap();
        assert_eq!((settings.listen.to_string().as_str(), settings.token.is_some()), (taken, !token.is_empty()));
    }
    let refusals: Vec<_> = [
        page("0.0.0.0:8081", ""),
        page("[::]:8081", ""),
        page("8081", ""),
        page("slave.example.org:8081", token),
        page("127.0.0.1:8081", "0123456789 abcdef"),
        page("127.0.0.1:8081", "short"),
    ]
    .iter()
    .map(|clone| clone.error().lines().next().unwrap().to_owned())
    .collect();
    insta::assert_snapshot!(refusals.join("\n"), @r#"
        Error: STATUS_LISTEN (environment): "0.0.0.0:8081" can be reached from other machines, and STATUS_TOKEN is not set; allowed: an address of this machine alone, such as 127.0.0.1:8081, or any with a STATUS_TOKEN (`openssl rand -hex 24` makes one)
        Error: STATUS_LISTEN (environment): "[::]:8081" can be reached from other machines, and STATUS_TOKEN is not set; allowed: an address of this machine alone, such as 127.0.0.1:8081, or any with a STATUS_TOKEN (`openssl rand -hex 24` makes one)
        Error: STATUS_LISTEN (environment): "8081" is no address with a port; allowed: an address and a port, as 127.0.0.1:8081, [::1]:8081 or 0.0.0.0:8081
        Error: STATUS_LISTEN (environment): "slave.example.org:8081" is no address with a port; allowed: an address and a port, as 127.0.0.1:8081, [::1]:8081 or 0.0.0.0:8081
        Error: STATUS_TOKEN (environment): the value (not shown) holds white space or what is not ASCII; allowed: at least 16 letters, digits and signs without white space; `openssl rand -hex 24` makes one
        Error: STATUS_TOKEN (environment): the value (not shown) is too short; allowed: at least 16 letters, digits and signs without white space; `openssl rand -hex 24` makes one
        "#);
    let alone = Clone::new(&[("STATUS_TOKEN", token)]);
    assert!(alone.settings().status_page.is_none());
    assert_eq!(alone.warnings(), "STATUS_TOKEN has no effect without STATUS_LISTEN: no status page is served");
}

#[test]
fn lists_that_do_not_match_the_geoservers_are_refused() {
    let text = error(&[
        ("GEOSERVER_URL", "http://a,http://b,http://c"),
        ("GEOSERVER_USERNAME", "x,,z"),
        ("GEOSERVER_PASSWORD", "hunter1,hunter2"),
        ("GEOSERVER_DATA_DIR", "data"),
    ]);
    insta::assert_snapshot!(text, @r#"
    Error: 3 settings cannot be used:
      GEOSERVER_USERNAME (environment): "x,,z" is empty for GeoServer 2 of 3; allowed: one for all, or one for each GeoServer
      GEOSERVER_PASSWORD (environment): the value (not shown) has 2 entries for 3 in GEOSERVER_URL; allowed: one for all, or one for each GeoServer, joined by commas
      GEOSERVER_DATA_DIR (environment): "data" is relative; allowed: an absolute path
      Hint: correct what is named above, then start again; docs/settings.md explains every setting
    "#);
    let twice = error(&[("GEOSERVER_URL", "http://a/geoserver,http://A:80/geoserver/")]);
    assert!(twice.contains("stands there twice"), "{twice}");
}

#[test]
fn ssh_commands_are_split_like_a_shell_and_inherit() {
    let settings = Clone::new(&[("BORG_SSH", "ssh -i '/my keys/id'"), ("BORGCOLLECTOR_SSH", "ssh -p 2222")]).settings();
    assert_eq!(settings.state_ssh, ["ssh", "-i", "/my keys/id"]);
    assert_eq!(settings.file_ssh, ["ssh", "-p", "2222"]);
}

#[test]
fn remotes_that_ssh_could_misread_are_refused() {
    for bad in
        ["host", "a@b@c", "@host", "user@", "-u@host", "u@-host", "u@ho st", "u@h;id", "u@h:22", "u@[::1", "u@$(id)"]
    {
        let text = error(&[("SYNC_SERVER", bad)]);
        assert!(text.contains("SYNC_SERVER") && text.contains("user@host"), "{bad}: {text}");
    }
    for good in ["borg@slave-1.example.org", "borg@10.0.0.1", "b_x@[fe80::1]"] {
        let server = Clone::new(&[("SYNC_SERVER", good)]).settings().sync_server.unwrap();
        assert_eq!((server.remote.as_str(), server.path.as_str()), (good, "/opt/dpaw-borg-state/code/dumps"));
    }
}

#[test]
fn working_directories_count_from_the_clone() {
    let clone = Clone::new(&[("CACHE_PATH", "cache"), ("PREVIEW_PATH", "/mnt/previews"), ("WMS_FILTER", "wms.rhai")])
        .file("wms.rhai", "true");
    let settings = clone.settings();
    assert_eq!(settings.cache_path, clone.dir.path().join("cache"));
    assert_eq!(settings.preview_path, Path::new("/mnt/previews"));
    assert_eq!(settings.filters.wms, Some(FilterSource::File(clone.dir.path().join("wms.rhai"))));
}

#[test]
fn odd_settings_are_warned_about() {
    let clone = Clone::new(&[
        ("GEOSERVER_USER", "x"),
        ("GEOSERVER_HOME", "/opt/geoserver"),
        ("FASTLY_SERVICEID", "abc"),
        ("MASTER_PGSQL_DATABASE", "borg"),
        ("GEOSERVER_PGSQL_SCHEMA", "publish"),
        ("SYNC_PATH", "/x"),
    ])
    .file(".env", "TZ=Australia/Perth\nDEBUGG=1\nDEBUG=1\nDEBUG=0\nGEOSERVER_PASSWORD=pa$word\n");
    insta::assert_snapshot!(clone.warnings(), @"
    GEOSERVER_USER (environment) is not a setting; did you mean GEOSERVER_USERNAME?
    DEBUG (<clone>/.env:4) stands on lines 3, 4; the last one counts
    GEOSERVER_PASSWORD (<clone>/.env:5): `$` and the name after it were replaced by the value of that variable; when the `$` is meant as itself, put the value in single quotes
    TZ (<clone>/.env:1) is not a setting and has no effect: the file is read for settings only
    DEBUGG (<clone>/.env:2) is not a setting; did you mean DEBUG?
    SYNC_PATH has no effect without SYNC_SERVER
    GEOSERVER_PGSQL_SCHEMA has no effect: jobs name their schemas, or these follow from the workspace
    MASTER_PGSQL_DATABASE has no effect without MASTER_PGSQL_HOST: nothing is reported to the master
    the CDN is not purged, not set: FASTLY_PURGE_URL, FASTLY_API_TOKEN, FASTLY_SURROGATE_KEY
    ");
    fs::set_permissions(clone.dir.path().join(".env"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(clone.warnings().contains("<clone>/.env holds a secret and everybody on this machine can read it"));
}

#[test]
fn no_secret_is_ever_printed() {
    let secrets: Vec<_> = v::VARIABLES.iter().filter(|variable| variable.secret).collect();
    assert!(secrets.len() >= 4);
    let mut env: Vec<(&str, &str)> = secrets.iter().map(|variable| (variable.name, "hunter2-and-hunter2")).collect();
    env.extend([
        ("MASTER_PGSQL_HOST", "master"),
        ("MASTER_PGSQL_DATABASE", "borg"),
        ("STATUS_LISTEN", "127.0.0.1:8081"),
    ]);
    env.extend([v::FASTLY_PURGE_URL, v::FASTLY_SERVICEID, v::FASTLY_SURROGATE_KEY].map(|var| (var.name, var.example)));
    let settings = Clone::new(&env).settings();
    assert_eq!(settings.fastly.as_ref().unwrap().api_token.expose_secret(), "hunter2-and-hunter2");
    let effective = settings.effective();
    for variable in secrets {
        assert!(effective.contains(&(variable.name, "(set)".into())), "{}", variable.name);
    }
    assert!(!format!("{settings:?}{settings:#?}{effective:?}").contains("hunter2"));
}

#[test]
fn a_value_that_is_no_text_is_refused() {
    struct Broken;
    impl Env for Broken {
        fn get(&self, name: &str) -> Option<std::ffi::OsString> {
            use std::os::unix::ffi::OsStringExt as _;
            (name == "SLAVE_NAME").then(|| std::ffi::OsString::from_vec(vec![b'a', 0xff]))
        }
        fn names(&self) -> Vec<String> {
            vec!["SLAVE_NAME".into()]
        }
    }
    let clone = Clone::new(&[]);
    let place = Place { env_file: None, working_directory: clone.dir.path().into() };
    insta::assert_snapshot!(load(&Broken, &place).unwrap_err().to_string(), @"SLAVE_NAME (environment): the value is not UTF-8; set it again from a terminal with a UTF-8 locale");
}

proptest::proptest! {
    /// Whatever stands in a variable, the load answers, and no secret gets out.
    #[test]
    fn any_value_is_accepted_or_refused_with_its_name(
        index in 0..v::VARIABLES.len(),
        value in "[ -~é\n]{1,30}",
    ) {
        let variable = &v::VARIABLES[index];
        let value = if variable.secret { format!("hunter2{value}") } else { value };
        let clone = Clone::new(&[(variable.name, value.as_str())]);
        match clone.load() {
            Ok(loaded) => {
                let shown = format!("{loaded:?}");
                proptest::prop_assert!(!shown.contains("hunter2"), "{}", shown);
            }
            Err(error) => {
                let text = error.paragraph();
                proptest::prop_assert!(text.contains(variable.name) && !text.contains("hunter2"), "{}", text);
            }
        }
    }
}
