//! What filters can say, and what they cannot do.

use serde_json::json;

use super::*;

fn facts() -> Map<String, Value> {
    let facts = json!({
        "workspace": "cadastre", "name": "roads", "auth_level": 1, "keywords": ["Road", "Swan"], "crs": null,
        "spatial_data": true, "height": 1.0, "huge": u64::MAX, "title": "Roads of the Swan",
        "geoserver_setting": {"create_cache_layer": true},
        "channel": "geoserver", "job_type": "feature", "job_file": "geoserver/layers/cadastre.roads.json",
    });
    match facts {
        Value::Object(facts) => facts,
        _ => panic!(),
    }
}

fn compile(text: &str) -> Result<Filter> {
    Filter::compile("FEATURE_FILTER", FilterText::Expression(text))
}

fn compile_file(text: &str) -> Result<Filter> {
    Filter::compile("FEATURE_FILTER", FilterText::File(Path::new("/etc/f.rhai"), text))
}

fn ask(filter: Result<Filter>) -> String {
    match filter.and_then(|filter| filter.accepts(&facts())) {
        Ok(Verdict::Taken) => "taken".into(),
        Ok(Verdict::Refused { reason }) => format!("refused: {reason}"),
        Err(error) => error.paragraph(),
    }
}

fn kind(filter: Result<Filter>) -> ErrorKind {
    filter.and_then(|filter| filter.accepts(&facts())).unwrap_err().kind()
}

#[test]
fn expressions_and_closures_decide() {
    for taken in [
        "true",
        "job.auth_level in [0, 1]",
        "|job| job.auth_level in [0, 1]",
        "|j| j.name == \"roads\"",
        "  job.auth_level <= 1 && job.workspace != \"internal\"  // with a comment",
        "job.workspace in [\"cadastre\", \"fire\"]",
        "\"name\" in job && !(\"crs\" in job)",
        "has(job, \"name\") && !has(job, \"crs\") && !has(job, \"nothing\")",
        "get(job, \"crs\", \"none\") == \"none\" && job.get(\"auth_level\", -1) == 1",
        "job.keywords.some(|word| word.to_lower() == \"swan\")",
        "job.keywords.contains(\"Road\") && \"Swan\" in job.title",
        "job.title.starts_with(\"Roads\") && job.title.ends_with(\"Swan\") && job.name.to_upper() == \"ROADS\"",
        "job.geoserver_setting.create_cache_layer",
        "get(job.geoserver_setting, \"server_cache_expire\", 0) == 0",
        "job.height == 1 && job.auth_level == 1.0 && job.huge > 1",
        "if job.auth_level == 1 { true } else { false }",
        "switch job.workspace { \"cadastre\" => true, _ => false }",
        "job.title.split(\" \").len == 4",
        "get(job, \"crs\", ()) == () && job.get(\"name\") != ()",
    ] {
        assert_eq!(ask(compile(taken)), "taken", "{taken}");
    }
    assert_eq!(ask(compile("job.auth_level == 2")), "refused: FEATURE_FILTER refuses it");
    assert_eq!(ask(compile_file("job.auth_level == 2")), "refused: FEATURE_FILTER (/etc/f.rhai) refuses it");
}

#[test]
fn a_job_bigger_than_the_bounds_can_be_asked_about() {
    let mut facts = facts();
    facts.insert("abstract".into(), "x".repeat(1 << 20).into());
    facts.insert("many".into(), vec![1; 20_000].into());
    for taken in [
        "|job| job.auth_level == 1",
        "job.get(\"auth_level\", 2) == 1",
        "job.abstract.len == 1048576 && job.many.len() == 20000 && 1 in job.many",
    ] {
        assert_eq!(compile(taken).unwrap().accepts(&facts).unwrap(), Verdict::Taken, "{taken}");
    }
}

#[test]
fn a_file_may_hold_functions_and_statements() {
    let file = "const OPEN = 1;\nfn open(job) { job.auth_level <= 1 }\nlet name = job.name;\n\
                for word in job.keywords { if word == \"Never\" { return false; } }\nopen(job) && name != \"x\"";
    assert_eq!(ask(compile_file(file)), "taken");
    assert_eq!(ask(compile_file("fn open(job) { job.auth_level <= 1 }\n|job| open(job)")), "taken");
}

#[test]
fn what_does_not_compile_is_refused_at_start() {
    let texts = [
        "",
        "  // nothing",
        "job.auth_level = 0",
        "|job| job.auth_level = 0",
        "job.auth_level == 0 and job.spatial_data",
        "auth_level == 0",
        "jbo.auth_level == 0",
        "|job| jbo.auth_level == 0",
        "job.name == 'roads'",
        "job.name == \"roads",
        "eval(\"true\")",
        "import \"x\" as y; true",
        "let x = 1; true",
        "true;",
        "while true {}",
        "job.auth_level in [0, 1",
        "lambda job: job.get('auth_level', -1) in [0, 1]",
    ];
    let shown: Vec<_> = texts
        .iter()
        .map(|text| match compile(text) {
            Ok(_) => format!("{text} => compiles"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Settings);
                format!("{text} => {}\n   {}", error.one_line(), error.hint_text().unwrap_or_default())
            }
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
         => FEATURE_FILTER: the filter is empty
           unset it, or write an expression such as `job.auth_level in [0, 1]`
          // nothing => FEATURE_FILTER: the filter is empty
           unset it, or write an expression such as `job.auth_level in [0, 1]`
        job.auth_level = 0 => FEATURE_FILTER: the filter does not compile at line 1, column 16: Unknown operator: '='
           compare with `==`
        |job| job.auth_level = 0 => FEATURE_FILTER: the filter does not compile at line 1, column 22: Unknown operator: '='
           compare with `==`
        job.auth_level == 0 and job.spatial_data => FEATURE_FILTER: the filter does not compile at line 1, column 21: Expecting ';' to terminate this statement
           filters are written in Rhai: `==`, `&&`, `||`, `!`, `true`, `"text"`, `|job| …`; see examples/filters
        auth_level == 0 => FEATURE_FILTER: the filter does not compile at line 1, column 1: Undefined variable: auth_level
           the job's fields belong to `job`: write `job.auth_level`; a text stands in double quotes
        jbo.auth_level == 0 => FEATURE_FILTER: the filter does not compile at line 1, column 1: Undefined variable: jbo
           did you mean `job`?
        |job| jbo.auth_level == 0 => FEATURE_FILTER: the filter does not compile at line 1, column 7: Undefined variable: jbo
           did you mean `job`?
        job.name == 'roads' => FEATURE_FILTER: the filter does not compile at line 1, column 13: Invalid character: 'roads'
           a text stands in double quotes, single quotes hold one character
        job.name == "roads => FEATURE_FILTER: the filter does not compile at line 1, column 13: Open string is not terminated
           a text stands in double quotes, single quotes hold one character
        eval("true") => FEATURE_FILTER: the filter does not compile at line 1, column 1: reserved keyword 'eval' is disabled
           filters cannot do that
        import "x" as y; true => FEATURE_FILTER: the filter does not compile at line 1, column 1: reserved keyword 'import' is disabled
           filters cannot do that
        let x = 1; true => FEATURE_FILTER: the filter does not compile at line 1, column 1: 'let' is a reserved keyword
           a setting holds one expression or closure; write statements into a .rhai file and set its path
        true; => FEATURE_FILTER: the filter does not compile at line 1, column 5: Unknown operator: ';'
           a setting holds one expression or closure; write statements into a .rhai file and set its path
        while true {} => FEATURE_FILTER: the filter does not compile at line 1, column 1: 'while' is a reserved keyword
           a setting holds one expression or closure; write statements into a .rhai file and set its path
        job.auth_level in [0, 1 => FEATURE_FILTER: the filter does not compile at line 1, column 24: Expecting ']' to end this array literal
           filters are written in Rhai: `==`, `&&`, `||`, `!`, `true`, `"text"`, `|job| …`; see examples/filters
        lambda job: job.get('auth_level', -1) in [0, 1] => FEATURE_FILTER: the filter does not compile at line 1, column 1: Undefined variable: lambda
           filters are written in Rhai: `==`, `&&`, `||`, `!`, `true`, `"text"`, `|job| …`; see examples/filters
        "#);
    let error = compile_file("let a = 1;\njob.name = \"x\";\n(").unwrap_err();
    insta::assert_snapshot!(error.paragraph(), @r#"
        Error: FEATURE_FILTER (/etc/f.rhai): the filter does not compile at line 3, column 2
          Caused by: Script is incomplete
          Hint: filters are written in Rhai: `==`, `&&`, `||`, `!`, `true`, `"text"`, `|job| …`; see examples/filters
        "#);
}

#[test]
fn what_fails_says_which_job_and_where() {
    let shown = [
        ask(compile("job.auth_lvl in [0, 1]")),
        ask(compile("|job| true && job.auth_lvl == 1")),
        ask(compile("job.crs == \"EPSG:4283\"")),
        ask(compile("job.nothing_like_it == 1")),
        ask(compile("job.auth_level")),
        ask(compile("job.name")),
        ask(compile("!job.auth_level")),
        ask(compile("job.auth_level && true")),
        ask(compile("|a, b| true")),
        ask(compile("|job| |job| true")),
        ask(compile("job.auth_level != \"2\"")),
        ask(compile("job.auth_level in [\"0\", \"1\"]")),
        ask(compile("job.get(\"auth_lvl\") != 2")),
        ask(compile("!(job.get(\"auth_lvl\") in [2])")),
        ask(compile("job.name > 1 || job.spatial_data == 1")),
        ask(compile("job.remove(\"name\") == \"roads\"")),
        ask(compile("sleep(1)")),
        ask(compile("print(job.name)")),
        ask(compile_file("fn f(job) {\n  job.auth_lvl == 1\n}\nf(job)")),
        ask(compile_file("job.auth_level = 0;\ntrue")),
        ask(compile_file("let x = 1;")),
        ask(compile_file("throw \"no\"")),
    ]
    .join("\n\n");
    insta::assert_snapshot!(shown, @r#"
        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 5
          Caused by: Property not found: auth_lvl
          Hint: did you mean `auth_level`? Otherwise ask for a field that a job may lack with get(job, "auth_lvl", default) or has(job, "auth_lvl")

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 19
          Caused by: Property not found: auth_lvl
          Hint: did you mean `auth_level`? Otherwise ask for a field that a job may lack with get(job, "auth_lvl", default) or has(job, "auth_lvl")

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 5
          Caused by: Property not found: crs
          Hint: ask for a field that a job may lack with get(job, "crs", default) or has(job, "crs")

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 5
          Caused by: Property not found: nothing_like_it
          Hint: ask for a field that a job may lack with get(job, "nothing_like_it", default) or has(job, "nothing_like_it")

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, must answer true or false and answers an integer
          Hint: compare the value with something: there is no truthiness as in Python

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, must answer true or false and answers a text
          Hint: compare the value with something: there is no truthiness as in Python

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 1
          Caused by: Function not found: ! (i64)
          Hint: correct the filter, then run again

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 4
          Caused by: Data type incorrect: i64 (expecting bool)
          Hint: correct the filter, then run again

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails
          Caused by: the closure does not take one argument
          Hint: a closure takes one argument, the job: |job| …

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, must answer true or false and answers a function
          Hint: compare the value with something: there is no truthiness as in Python

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 16
          Caused by: a number is compared with a text
          Hint: correct the filter, then run again

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 16
          Caused by: a text is compared with a number
          Hint: correct the filter, then run again

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 5
          Caused by: Property not found: auth_lvl
          Hint: did you mean `auth_level`? Otherwise ask for a field that a job may lack with get(job, "auth_lvl", default) or has(job, "auth_lvl")

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 7
          Caused by: Property not found: auth_lvl
          Hint: did you mean `auth_level`? Otherwise ask for a field that a job may lack with get(job, "auth_lvl", default) or has(job, "auth_lvl")

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 10
          Caused by: a text is compared with a number
          Hint: correct the filter, then run again

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 5
          Caused by: Non-pure method 'remove' cannot be called on constant
          Hint: correct the filter, then run again

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 1
          Caused by: Function not found: sleep (i64)
          Hint: correct the filter, then run again

        Error: FEATURE_FILTER: the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 1
          Caused by: Function not found: print (&str | ImmutableString | String)
          Hint: correct the filter, then run again

        Error: FEATURE_FILTER (/etc/f.rhai): the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 2, column 7
          Caused by: Property not found: auth_lvl
          Hint: did you mean `auth_level`? Otherwise ask for a field that a job may lack with get(job, "auth_lvl", default) or has(job, "auth_lvl")

        Error: FEATURE_FILTER (/etc/f.rhai): the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 1
          Caused by: Cannot modify constant job
          Hint: correct the filter, then run again

        Error: FEATURE_FILTER (/etc/f.rhai): the filter, asked about geoserver/layers/cadastre.roads.json, must answer true or false and answers nothing
          Hint: compare the value with something: there is no truthiness as in Python

        Error: FEATURE_FILTER (/etc/f.rhai): the filter, asked about geoserver/layers/cadastre.roads.json, fails at line 1, column 1
          Caused by: no
          Hint: correct the filter, then run again
        "#);
}

#[test]
fn no_filter_runs_away() {
    for endless in [
        "loop {}",
        "let x = 0; while true { x += 1; } true",
        "fn f(x) { f(x + 1) } f(0)",
        "fn f(x) { [1].some(|y| f(y)) } f(0)",
        "fn f(x) { g(x) } fn g(x) { f(x) } f(1) == 2",
        "let s = \"xxxxxxxxxxxxxxxx\"; loop { s += s; }",
        "let s = \"xxxxxxxxxxxxxxxx\"; loop { s = `${s}${s}`; }",
        "let a = [1, 2]; loop { a += a; }",
        "let a = []; loop { a.push(a); }",
        "let a = []; a.pad(100000000, 1); true",
        "let s = \"\"; s.pad(1000000000, \"x\"); true",
        "let m = #{}; let i = 0; loop { m[`k${i}`] = 1; i += 1; }",
        "let s = \"\"; s.pad(60000, \"x\"); s.replace(\"x\", s); true",
        "let s = \"\"; s.pad(60000, \"x\"); let a = []; a.pad(900, 1); a.map(|x| s + x); true",
    ] {
        let started = std::time::Instant::now();
        assert_eq!(kind(compile_file(endless)), ErrorKind::Filter, "{endless}");
        assert!(started.elapsed().as_secs() < 20, "{endless}");
    }
    let deep = format!("{}true{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(compile(&deep).unwrap_err().kind(), ErrorKind::Settings);
    for link in [" && true", " == true", " || false"] {
        let long = format!("true{}", link.repeat(5000));
        let verdict = compile(&long).and_then(|filter| filter.accepts(&facts()));
        assert!(matches!(verdict.map_err(|error| error.kind()), Ok(Verdict::Taken) | Err(ErrorKind::Settings)));
    }
    let text = "x".repeat(1 << 17);
    assert!(compile(&format!("job.name == \"{text}\"")).is_err());
}

#[test]
fn nothing_outside_is_reachable() {
    for call in
        ["sleep(0.1)", "timestamp()", "print(1)", "debug(1)", "exit(0)", "open(\"/etc/passwd\")", "parse_json(\"1\")"]
    {
        assert!(matches!(kind(compile(call)), ErrorKind::Filter | ErrorKind::Settings), "{call}");
        assert!(matches!(kind(compile_file(call)), ErrorKind::Filter | ErrorKind::Settings), "{call}");
    }
    for symbol in ["eval(\"true\")", "Fn(\"f\")", "import \"/etc/passwd\" as p; true"] {
        assert_eq!(kind(compile_file(symbol)), ErrorKind::Settings, "{symbol}");
    }
}

#[test]
fn asking_changes_nothing_and_works_from_many_threads() {
    let filter =
        compile_file("let job2 = job; job2.auth_level = 9; job2.auth_level == 9 && job.auth_level == 1").unwrap();
    let facts = facts();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(filter.accepts(&facts).unwrap(), Verdict::Taken);
                }
            });
        }
    });
}

#[test]
fn the_portable_default_opens_nothing_restricted() {
    let file = include_str!("../../examples/filters/portable.rhai");
    let example = Filter::compile("FEATURE_FILTER", FilterText::File(Path::new("portable.rhai"), file)).unwrap();
    for (fields, taken) in [
        (json!({"auth_level": 0}), true),
        (json!({"auth_level": 1}), true),
        (json!({"auth_level": 2}), false),
        (json!({"auth_level": null}), false),
        (json!({"auth_level": -1}), false),
        (json!({"auth_level": "1"}), false),
        (json!({"allow_authenticated": true}), true),
        (json!({"allow_authenticated": false}), false),
        (json!({"allow_authenticated": "true"}), false),
        (json!({"allow_authenticated": null, "auth_level": 1}), true),
        (json!({}), false),
    ] {
        let facts = fields.as_object().unwrap();
        for filter in [&example, &Filter::portable_default()] {
            let verdict = filter.accepts(facts);
            assert_eq!(matches!(verdict, Ok(Verdict::Taken)), taken, "{filter:?} {fields}");
        }
    }
}

#[test]
fn the_examples_do_what_they_say() {
    let example = |text: &'static str| Filter::compile("F", FilterText::File(Path::new("f.rhai"), text)).unwrap();
    let takes = |filter: &Filter, facts: Value| {
        filter.accepts(facts.as_object().unwrap()).unwrap_or_else(|e| panic!("{}", e.paragraph())) == Verdict::Taken
    };
    let region = example(include_str!("../../examples/filters/region.rhai"));
    let layer = |workspace: &str, name: &str, keywords: Value, level: i64| json!({"channel": "geoserver", "workspace": workspace, "name": name, "keywords": keywords, "auth_level": level});
    assert!(takes(&region, layer("fire", "scars", json!([]), 0)));
    assert!(takes(&region, layer("birds", "nests", json!(["Swan"]), 1)));
    assert!(takes(&region, layer("birds", "nests", json!("nest, Perth Hills"), 1)));
    assert!(!takes(&region, layer("birds", "nests", json!(["emu"]), 1)));
    assert!(!takes(&region, layer("fire", "scars", json!([]), 2)));
    assert!(!takes(&region, layer("fire", "scars_draft", json!([]), 0)));
    assert!(!takes(&region, json!({"channel": "experiments", "workspace": "fire", "auth_level": 0})));
    assert!(takes(&region, json!({"channel": "geoserver", "schema": "fire", "auth_level": 1})));

    let wms = example(include_str!("../../examples/filters/public_wms.rhai"));
    assert!(takes(&wms, json!({"job_type": "wms_store"})));
    assert!(takes(&wms, json!({"job_type": "wms_layer", "auth_level": 0})));
    assert!(!takes(&wms, json!({"job_type": "wms_layer", "auth_level": 1})));
    assert!(!takes(&wms, json!({"job_type": "wms_layer"})));
}

#[test]
fn each_kind_has_its_filter_and_rules_and_roles_have_none() {
    let filters = Filters { feature: Filter::all(), wms: Filter::none(), layergroup: compile("false").unwrap() };
    let taken = |kind| filters.accepts(kind, &facts()).unwrap() == Verdict::Taken;
    for kind in [JobKind::Feature, JobKind::LiveStore, JobKind::LiveLayer, JobKind::Workspace] {
        assert!(taken(kind));
    }
    assert!(!taken(JobKind::WmsStore) && !taken(JobKind::WmsLayer) && !taken(JobKind::LayerGroup));
    let filters = Filters { feature: Filter::none(), wms: Filter::none(), layergroup: Filter::none() };
    assert!(filters.accepts(JobKind::AccessRules, &facts()).unwrap() == Verdict::Taken);
    assert!(filters.accepts(JobKind::Auth, &facts()).unwrap() == Verdict::Taken);
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_compiler_or_engine(text in "([|]job[|] )?(job|[.]|auth_level|[()\\[\\]{}]|==|&&|!|in|[0-9]|\"|[|]|,|-| |fn|let|=|;|.){0,12}") {
        for filter in [compile(&text), compile_file(&text)] {
            if let Err(error) = filter.and_then(|filter| filter.accepts(&facts())) {
                proptest::prop_assert!(!error.message().contains("breaks"), "{text:?}: {error}");
            }
        }
    }
}
