//! What the translation gives, and that Rhai agrees with what Python would have said.

use super::*;
use rhai::packages::{ArithmeticPackage, BasicArrayPackage, BasicMapPackage, LogicPackage, MoreStringPackage, Package};
use rhai::{Dynamic, Engine, Map, OptimizationLevel, Scope};

fn rhai(python: &str) -> String {
    translate(python).unwrap().rhai
}

fn fault(python: &str) -> String {
    translate(python).unwrap_err()
}

/// Evaluates with the two functions that filters have.
fn evaluate(rhai: &str, job: &str) -> bool {
    let mut engine = Engine::new_raw();
    ArithmeticPackage::new().register_into_engine(&mut engine);
    LogicPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    BasicArrayPackage::new().register_into_engine(&mut engine);
    BasicMapPackage::new().register_into_engine(&mut engine);
    engine.set_optimization_level(OptimizationLevel::None);
    engine.register_fn("get", |map: Map, key: &str, default: Dynamic| map.get(key).cloned().unwrap_or(default));
    engine.register_fn("has", |map: Map, key: &str| map.contains_key(key));
    let mut scope = Scope::new();
    let job: serde_json::Value = serde_json::from_str(job).unwrap();
    scope.push("job", rhai::serde::to_dynamic(job).unwrap());
    engine.eval_expression_with_scope::<bool>(&mut scope, rhai).unwrap_or_else(|error| panic!("{rhai}: {error}"))
}

#[test]
fn common_shapes_are_translated() {
    insta::assert_snapshot!(
        rhai("lambda job: job.get('allow_authenticated', False) == True or job.get('auth_level', -1) in [0,1]"),
        @r#"get(job, "allow_authenticated", false) == true || get(job, "auth_level", -1) in [0, 1]"#
    );
    insta::assert_snapshot!(rhai("lambda job: False"), @"false");
    insta::assert_snapshot!(rhai("(lambda j: j['workspace'] == u'cadastre')"), @r#"job["workspace"] == "cadastre""#);
    insta::assert_snapshot!(
        rhai("lambda job: not (job['a'] == 'x' or 'b' in job) and job.get(\"c\") is not None"),
        @r#"!(job["a"] == "x" || has(job, "b")) && get(job, "c", ()) != ()"#
    );
    insta::assert_snapshot!(
        rhai("lambda job: (job['a'] == 1 or job['b'] == 2) and job['workspace'] not in ('x', 'it\\'s \"y\"')"),
        @r#"(job["a"] == 1 || job["b"] == 2) && !(job["workspace"] in ["x", "it's \"y\""])"#
    );
    insta::assert_snapshot!(
        rhai("lambda job: job['name'].lower().startswith('roads') if job.has_key('name') else len(job.get('styles', {})) > 0"),
        @r#"if has(job, "name") { job["name"].to_lower().starts_with("roads") } else { len(get(job, "styles", #{})) > 0 }"#
    );
}

#[test]
fn values_taken_for_booleans_are_compared_and_told() {
    let translation = translate("lambda job: job.get('spatial_data') and not job['hidden']").unwrap();
    insta::assert_snapshot!(translation.rhai, @r#"get(job, "spatial_data", ()) == true && !(job["hidden"] == true)"#);
    assert_eq!(translation.assumed_boolean, [r#"get(job, "spatial_data", ())"#, r#"job["hidden"]"#]);
}

#[test]
fn what_cannot_be_translated_is_named() {
    insta::assert_snapshot!(fault("lambda job: re.match('a', job['name'])"), @"the name `re` is not known in filters");
    insta::assert_snapshot!(fault("lambda job: 0 < job['a'] < 2"), @"it compares three values at once; compare them two by two, joined by `and`");
    insta::assert_snapshot!(fault("lambda job: (job.get('a') or 'x') == 'x'"), @"`and` or `or` chooses a value, which Rhai's `&&` and `||` do not");
    insta::assert_snapshot!(fault("lambda job: job['a'].split(',')"), @"the method `.split()` has no counterpart in filters");
    insta::assert_snapshot!(fault("lambda job: any(x for x in job)"), @"the name `any` is not known in filters");
    insta::assert_snapshot!(fault("lambda job: job['a"), @"a text is not closed");
    insta::assert_snapshot!(fault("lambda job: r'a' == job['a']"), @"a text with the prefix `r` is not known in filters");
}

#[test]
fn rhai_agrees_with_python() {
    // The expected column is what Python 3 answers.
    for (python, job, expected) in [
        ("lambda job: job.get('auth_level',-1) in [0,1]", r#"{"auth_level": 1}"#, true),
        ("lambda job: job.get('auth_level',-1) in [0,1]", "{}", false),
        ("lambda job: not job.get('a') == 1 and 'b' in job", r#"{"b": null}"#, true),
        ("lambda job: 'b' not in job or job['b'] is None", r#"{"b": null}"#, true),
        ("lambda job: job['a'] in ('x',) and True", r#"{"a": "x"}"#, true),
        ("lambda job: 'roads' in job.get('keywords', [])", r#"{"keywords": ["rail"]}"#, false),
        ("lambda job: job['name'].endswith('s')", r#"{"name": "roads"}"#, true),
        ("lambda job: job['a'] - 1 - 1 == 2 * (1 + 0)", r#"{"a": 4}"#, true),
        ("lambda job: True or False and False", "{}", true),
        ("lambda job: not (True and False) or False", "{}", true),
        ("lambda job: (False if 'a' in job else True) and True", "{}", true),
    ] {
        assert_eq!(evaluate(&rhai(python), job), expected, "{python} → {}", rhai(python));
    }
}

#[test]
fn lambdas_are_told_from_expressions() {
    assert!(is_lambda(" lambda job: True") && is_lambda("(lambda  j : True)") && is_lambda("lambda: 1"));
    assert!(!is_lambda("lambda_x == 1") && !is_lambda("job.lambda") && !is_lambda("true"));
}

proptest::proptest! {
    /// Whatever follows `lambda job:`, the answer is a translation that Rhai can parse, or a reason.
    #[test]
    fn a_translation_always_compiles(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "job", "job", ".get(", "'a'", "['b']", ",", "1", "-", "+", "==", "<", "in", "not", "not in", "and", "or",
                "is", "None", "True", "(", ")", "[", "]", "if", "else", "len(", ".lower()", "{", "}",
            ]),
            1..9,
        ),
    ) {
        if let Ok(translation) = translate(&format!("lambda job: {}", words.join(" "))) {
            let mut engine = Engine::new_raw();
            engine.set_max_expr_depths(64, 64);
            let compiled = engine.compile_expression(&translation.rhai);
            proptest::prop_assert!(compiled.is_ok(), "{:?} → {}: {:?}", words, translation.rhai, compiled.err());
        }
    }
}
