//! Files of rules: what is read, what is refused, what is written, and the order of additions.

use std::collections::BTreeMap;

use insta::assert_snapshot;
use proptest::prelude::*;

use super::rules::{AccessMode, AccessRules, CatalogMode, Place, Roles, Rule, RuleKey, ShownRules};
use super::write_access_rules_file;
use crate::error::ErrorKind;

fn rules(text: &str) -> AccessRules {
    AccessRules::parse(text).unwrap()
}

fn refused(text: &str) -> String {
    let error = AccessRules::parse(text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Document);
    error.paragraph()
}

#[test]
fn a_stand_in_is_protected_as_its_layer_is() {
    let mut rules = rules("*.*.r=*\na.roads.r=STAFF\na.roads.w=ADMIN\na.other.r=ADMIN\nb.roads.r=ADMIN\n");
    rules.protect_stand_in("a", "roads", "roads__new");
    let file = rules.properties(None);
    let of_it: Vec<&str> = file.lines().filter(|line| line.contains("__new")).collect();
    assert_eq!(of_it, ["a.roads__new.r=STAFF", "a.roads__new.w=ADMIN"]);
}

#[test]
fn a_file_is_read_and_written_in_one_order_and_in_ascii() {
    let read = rules(
        "# rule structure is namespace.layer.operation=role1,role2,...\n\
         *.*.r=*\r\n\
         *.*.w : ADMIN, GROUP_ADMIN\n\
         kmi\\ .\\\t*.r STAFF\n\
         kmi.roads.r=B,,A, \\\n  B\n\
         kmi.roads\\\\.night.r=*,A\n\
         kmi.strassen_\\u00fc.w=Ä\n\
         kmi.old\\ roads.r=A\n\
         overview.r=STAFF\n\
         kmi.*.a=KMI_ADMIN\n\
         mode=challenge\n\
         filesystemSandbox=/data/of/the/master\n\
         kmi.roads.r=A,B\n",
    );
    assert_eq!((read.count(), read.mode()), (9, CatalogMode::Challenge));
    let written = read.properties(None);
    assert_snapshot!(written, @r#"
    mode=CHALLENGE
    kmi.old\ roads.r=A
    kmi.roads.r=A,B
    kmi.roads\\.night.r=*
    kmi.strassen_\u00FC.w=\u00C4
    kmi.*.r=STAFF
    kmi.*.a=KMI_ADMIN
    overview.r=STAFF
    *.*.r=*
    *.*.w=ADMIN,GROUP_ADMIN
    "#);
    assert_eq!(rules(&written).properties(None), written);
    assert_eq!(rules("a.b.r=X").mode(), CatalogMode::Hide);
}

#[test]
fn a_servers_own_sandbox_stays_in_its_file() {
    let data_dir = tempfile::tempdir().unwrap();
    let security = data_dir.path().join("security");
    std::fs::create_dir(&security).unwrap();
    let file = security.join("layers.properties");
    let rules = rules("*.*.r=*\nfilesystemSandbox=/of/the/master");
    write_access_rules_file(data_dir.path(), &rules).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mode=HIDE\n*.*.r=*\n");
    std::fs::write(&file, "filesystemSandbox=C:\\\\data\n").unwrap();
    write_access_rules_file(data_dir.path(), &rules).unwrap();
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(written, "mode=HIDE\nfilesystemSandbox=C\\:\\\\data\n*.*.r=*\n");
    assert_eq!(std::fs::read_dir(&security).unwrap().count(), 1);
}

#[test]
fn every_line_that_geoserver_would_skip_is_refused() {
    let told: Vec<String> = [
        "kmi=STAFF",
        "kmi.roads.x=STAFF",
        "kmi.roads.R=STAFF",
        "kmi.roads.night.r=STAFF",
        "*.roads.r=STAFF",
        "*.r=STAFF",
        ".roads.r=STAFF",
        "kmi.roads.a=STAFF",
        "overview.a=STAFF",
        "kmi.roads.r=",
        "kmi.roads.r= , ,",
        "mode=OPEN",
        "kmi.roads.r=\\u12",
        "kmi.roads.r=STAFF\n\nkmi.roads.r=*",
        "mode=HIDE\nmode=MIXED\n*.*.r=*",
        "",
        "# nothing\nmode=HIDE\n",
    ]
    .into_iter()
    .map(refused)
    .collect();
    assert_snapshot!(told.join("\n"), @r#"
    Error: line 1 is no access rule: `kmi=STAFF`: it has no dots
      Hint: write workspace.layer.mode=roles, or group.mode=roles for a global group; a rule that GeoServer does not understand protects nothing
    Error: line 1 is no access rule: `kmi.roads.x=STAFF`: "x" is no access mode
      Hint: the last part is r (read), w (write) or a (administer); a rule that GeoServer does not understand protects nothing
    Error: line 1 is no access rule: `kmi.roads.R=STAFF`: "R" is no access mode
      Hint: the last part is r (read), w (write) or a (administer); a rule that GeoServer does not understand protects nothing
    Error: line 1 is no access rule: `kmi.roads.night.r=STAFF`: it has more than three parts
      Hint: write workspace.layer.mode=roles, and a dot that belongs to a name as \\. (two backslashes and the dot); a rule that GeoServer does not understand protects nothing
    Error: line 1 is no access rule: `*.roads.r=STAFF`: with * for the workspace, the layer must be * too
      Hint: name the workspace; a rule that GeoServer does not understand protects nothing
    Error: line 1 is no access rule: `*.r=STAFF`: with * for the workspace, the layer must be * too
      Hint: name the workspace; a rule that GeoServer does not understand protects nothing
    Error: line 1 is no access rule: `.roads.r=STAFF`: a name is empty
      Hint: write workspace.layer.mode=roles; a rule that GeoServer does not understand protects nothing
    Error: line 1 is no access rule: `kmi.roads.a=STAFF`: only whole workspaces can be administered
      Hint: write workspace.*.a=roles; a rule that GeoServer does not understand protects nothing
    Error: line 1 is no access rule: `overview.a=STAFF`: only whole workspaces can be administered
      Hint: write workspace.*.a=roles; a rule that GeoServer does not understand protects nothing
    Error: line 1 is no access rule: `kmi.roads.r=`: it names no role
      Hint: name the roles that may, separated by commas, * for everybody, or ADMIN for administrators only; a rule that GeoServer does not understand protects nothing
    Error: line 1 is no access rule: `kmi.roads.r=, ,`: it names no role
      Hint: name the roles that may, separated by commas, * for everybody, or ADMIN for administrators only; a rule that GeoServer does not understand protects nothing
    Error: line 1: mode is "OPEN"
      Hint: write mode=HIDE, mode=MIXED or mode=CHALLENGE
    Error: line 1: no four hexadecimal digits follow \u in `\u12`
      Hint: write \u with the four hexadecimal digits of a character, or the character itself
    Error: line 3 says kmi.roads.r=*, but line 1 says kmi.roads.r=STAFF
      Hint: GeoServer would take the last one without a word; leave only the right line, on the master
    Error: line 2 says mode=MIXED, but line 1 says mode=HIDE
      Hint: GeoServer would take the last one without a word; leave only the right line, on the master
    Error: the file of access rules holds no rule
      Hint: GeoServer would hide every layer from everybody but its administrators. Publish the rules again on the master; to open all layers, write the rule *.*.r=*
    Error: the file of access rules holds no rule
      Hint: GeoServer would hide every layer from everybody but its administrators. Publish the rules again on the master; to open all layers, write the rule *.*.r=*
    "#);
}

#[test]
fn all_wrong_lines_are_named_together() {
    let told = refused("*.*.r=*\na.b=C\nd.e.r=\nmode=X");
    for line in ["line 2", "line 3", "line 4"] {
        assert!(told.contains(line), "{told}");
    }
}

#[test]
fn files_of_several_channels_are_one_set() {
    let (one, two) = (rules("*.*.r=*\nkmi.*.r=STAFF\nmode=MIXED"), rules("# 1\n*.*.r=*\n\ncddp.*.r=STAFF"));
    let all = AccessRules::merged([("a/layers.properties", &one), ("b/layers.properties", &two)]).unwrap();
    assert_eq!(all.properties(None), "mode=MIXED\ncddp.*.r=STAFF\nkmi.*.r=STAFF\n*.*.r=*\n");

    let other = rules("mode=HIDE\n\n\nkmi.*.r=*");
    let error = AccessRules::merged([("a/layers.properties", &one), ("b/layers.properties", &other)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Document);
    assert_snapshot!(error.paragraph(), @r#"
    Error: 2 things failed: two files of access rules contradict each other: a/layers.properties line 2 says kmi.*.r=STAFF, b/layers.properties line 4 says kmi.*.r=*; two files of access rules contradict each other: a/layers.properties says mode=MIXED, b/layers.properties says mode=HIDE
      Hint: GeoServer has one set of rules for all channels; make the two say the same, on the master
    "#);
    assert!(AccessRules::merged([]).is_err());
}

#[test]
fn what_geoserver_shows_is_compared_by_meaning() {
    let wanted = rules("*.*.r=*\nkmi.roads.r=A,B\na\\\\.b.c.r=X\na.b\\\\.c.r=Y");
    let shown = |text: &str| wanted.is_shown(&ShownRules::read(&serde_json::from_str(text).unwrap()));
    assert!(shown(r#"{"*.*.r":"*","kmi.roads.r":"B,A","a.b.c.r":"X"}"#));
    assert!(shown(r#"{"*.*.r":"*","kmi.roads.r":"B,A","a.b.c.r":"Y"}"#));
    assert!(!shown(r#"{"*.*.r":"*","kmi.roads.r":"B,A","a.b.c.r":"Z"}"#));
    assert!(!shown(r#"{"*.*.r":"*","kmi.roads.r":"B","a.b.c.r":"X"}"#));
    assert!(!shown(r#"{"*.*.r":"","kmi.roads.r":"A,B","a.b.c.r":"X"}"#));
    assert!(!shown(r#"{"*.*.r":"*","kmi.roads.r":"A,B","a.b.c.r":"X","more.*.r":"*"}"#));
}

/// Who may, as GeoServer decides: the narrowest rule; when there is none, everybody.
fn decided(rules: &BTreeMap<String, Roles>, workspace: &str, layer: &str, mode: &str) -> Roles {
    [format!("{workspace}.{layer}.{mode}"), format!("{workspace}.*.{mode}"), format!("*.*.{mode}")]
        .iter()
        .find_map(|key| rules.get(key).cloned())
        .unwrap_or(Roles::Everybody)
}

fn some_rules() -> impl Strategy<Value = BTreeMap<String, &'static str>> {
    let place = prop_oneof![
        ("[kc]", "[abcd]").prop_map(|(workspace, layer)| format!("{workspace}.{layer}")),
        "[kc]".prop_map(|workspace| format!("{workspace}.*")),
        Just("*.*".to_owned()),
    ];
    let key = (place, "[rw]").prop_map(|(place, mode)| format!("{place}.{mode}"));
    prop::collection::btree_map(key, prop::sample::select(vec!["*", "A", "B", "A,B"]), 1..14)
}

proptest! {
    /// Whatever part of what is added at once a request sees, and in whatever order: who may do what with
    /// a layer is as before or as afterwards.
    #[test]
    fn additions_open_nothing(
        held in some_rules(),
        wanted in some_rules(),
        shuffle in prop::collection::vec(any::<prop::sample::Index>(), 20),
    ) {
        let text: String = wanted.iter().map(|(key, roles)| format!("{key}={roles}\n")).collect();
        let wanted = rules(&text);
        let before: BTreeMap<_, _> = held.iter().map(|(key, roles)| (key.clone(), Roles::from_list(roles))).collect();
        let shown = ShownRules { rules: before.clone() };
        let steps = wanted.lacking("k", "a", &shown);
        let mut after = before.clone();
        after.extend(steps.iter().flatten().map(|(key, rule)| (key.shown(), rule.roles.clone())));
        if !steps.is_empty() {
            for key in wanted.rules.keys().filter(|key| key.workspace() == Some("k")) {
                prop_assert!(after.contains_key(&key.shown()));
            }
        }
        let mut now = before.clone();
        let mut shuffle = shuffle.iter();
        for mut step in steps {
            while !step.is_empty() {
                let at = shuffle.next().unwrap().index(step.len());
                let (key, rule) = step.swap_remove(at);
                now.insert(key.shown(), rule.roles.clone());
                for (workspace, layer, mode) in
                    ["k", "c"].iter().flat_map(|w| ["a", "b", "c", "d", "e"].map(|l| (*w, l))).flat_map(|(w, l)| [(w, l, "r"), (w, l, "w")])
                {
                    let is = decided(&now, workspace, layer, mode);
                    prop_assert!(
                        is == decided(&before, workspace, layer, mode) || is == decided(&after, workspace, layer, mode),
                        "{workspace}.{layer}.{mode} is {is} after {now:?}"
                    );
                }
            }
        }
        prop_assert_eq!(now, after);
    }

    #[test]
    fn what_is_written_is_read_again(
        places in prop::collection::btree_map(("[a-z.ü#= :]{0,4}[a-z]", "[a-z.道!\\\\ ]{0,4}[a-z]"), "[A-Z_]{1,4}", 1..6),
    ) {
        let set = places.iter().map(|((workspace, layer), role)| {
            // GeoServer itself takes no name that begins with white space or holds it at a dot.
            let plain = |name: &str| name.replace([' ', '\\'], "_");
            let key = RuleKey { place: Place::Layer(plain(workspace), plain(layer)), mode: AccessMode::Read };
            (key, Rule { roles: Roles::from_list(role), line: 0 })
        });
        let rules = AccessRules { rules: set.collect(), mode: Some(CatalogMode::Mixed) };
        let read = AccessRules::parse(&rules.properties(None)).unwrap();
        let plain = |rules: &AccessRules| rules.rules.iter().map(|(key, rule)| (key.clone(), rule.roles.clone())).collect::<Vec<_>>();
        prop_assert_eq!(plain(&read), plain(&rules));
    }
}
