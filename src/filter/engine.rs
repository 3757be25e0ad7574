//! The bounded script engines that filters run in.

use std::sync::LazyLock;

use rhai::packages::{ArithmeticPackage, BasicArrayPackage, BasicMapPackage, LogicPackage, MoreStringPackage, Package};
use rhai::{Dynamic, Engine, EvalAltResult, FuncRegistration, ImmutableString, Map, OptimizationLevel, Position};
use serde_json::Value;

/// Steps of one evaluation; a filter of four terms takes about thirty.
const OPERATIONS: u64 = 50_000;
/// Bytes of a text, and of all texts of one list or map together. With [`ARRAY_ITEMS`] this bounds what a
/// native function that makes a list can allocate before its result is measured: 64 MiB.
const STRING_BYTES: usize = 64 * 1024;
/// Members of a list, those of lists inside it included.
const ARRAY_ITEMS: usize = 1_000;
/// Members of a map, those of maps inside it included.
const MAP_ITEMS: usize = 1_000;
const VARIABLES: usize = 64;
const FUNCTIONS: usize = 64;
/// The library's own defaults differ between debug and release builds; a filter must not.
const CALL_LEVELS: usize = 12;
const EXPRESSION_DEPTH: usize = 48;
const FUNCTION_EXPRESSION_DEPTH: usize = 32;

/// Compiles and runs single expressions and closures: without assignments and statements, so that `=`
/// written for `==` does not compile.
pub(super) static EXPRESSION: LazyLock<Engine> = LazyLock::new(|| {
    let mut engine = bounded(Size::default());
    let assignments = ["=", "+=", "-=", "*=", "/=", "%=", "**=", "<<=", ">>=", "&=", "|=", "^="];
    let statements = ["let", "const", "fn", "while", "loop", "do", "for", "return", "throw", "try", ";"];
    for symbol in assignments.into_iter().chain(statements) {
        engine.disable_symbol(symbol);
    }
    engine
});

/// Compiles and runs `.rhai` files: functions and statements that end in an expression or a closure.
pub(super) static SCRIPT: LazyLock<Engine> = LazyLock::new(|| bounded(Size::default()));

/// What a value takes of the bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Bytes of all texts.
    bytes: usize,
    /// Members of all lists and objects.
    items: usize,
}

impl Size {
    pub(super) fn of(object: &serde_json::Map<String, Value>) -> Self {
        let mut size = Self::default();
        for (name, value) in object {
            size.bytes += name.len();
            size.add(value);
        }
        size
    }

    fn add(&mut self, value: &Value) {
        self.items += 1;
        match value {
            Value::String(text) => self.bytes += text.len(),
            Value::Array(values) => values.iter().for_each(|value| self.add(value)),
            Value::Object(object) => {
                let inner = Self::of(object);
                self.bytes += inner.bytes;
                self.items += inner.items;
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn is_small(self) -> bool {
        self.bytes <= STRING_BYTES / 4 && self.items <= ARRAY_ITEMS.min(MAP_ITEMS) / 4
    }
}

/// An engine of its own for a job that would by itself exhaust the common bounds, such as one with a long
/// abstract: its size is added to them. `None` for all others, which use the common engines.
pub(super) fn for_big_job(size: Size) -> Option<Engine> {
    (!size.is_small()).then(|| bounded(size))
}

/// An engine whose bounds leave room for a job of this size.
fn bounded(job: Size) -> Engine {
    // A raw engine can neither print nor sleep nor tell the time nor load modules.
    let mut engine = Engine::new_raw();
    LogicPackage::new().register_into_engine(&mut engine);
    ArithmeticPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    BasicArrayPackage::new().register_into_engine(&mut engine);
    BasicMapPackage::new().register_into_engine(&mut engine);
    // `eval` runs text as script; the others call functions by name or in a roundabout way, which filters
    // do not need and recursion could hide behind.
    for symbol in ["eval", "Fn", "call", "curry", "import", "export"] {
        engine.disable_symbol(symbol);
    }
    engine
        // The optimiser turns a constant map's unknown property into (), past the guard below, and panics
        // on an assignment to one.
        .set_optimization_level(OptimizationLevel::None)
        .set_fail_on_invalid_map_property(true)
        // With them the library compares unlike values by itself, past `refuse_unlike`.
        .set_fast_operators(false)
        .set_strict_variables(true)
        .set_max_operations(OPERATIONS)
        .set_max_string_size(STRING_BYTES + 2 * job.bytes)
        .set_max_array_size(ARRAY_ITEMS + 2 * job.items)
        .set_max_map_size(MAP_ITEMS + 2 * job.items)
        .set_max_variables(VARIABLES)
        .set_max_functions(FUNCTIONS)
        .set_max_call_levels(CALL_LEVELS)
        .set_max_expr_depths(EXPRESSION_DEPTH, FUNCTION_EXPRESSION_DEPTH);
    FuncRegistration::new("has").with_purity(true).register_into_engine(&mut engine, has);
    FuncRegistration::new("get").with_purity(true).register_into_engine(&mut engine, get);
    FuncRegistration::new("get").with_purity(true).register_into_engine(&mut engine, get_strictly);
    refuse_replace(&mut engine);
    refuse_unlike(&mut engine);
    engine
}

/// Whether the map has the field and it is not null.
fn has(map: &mut Map, field: &str) -> bool {
    map.get(field).is_some_and(|value| !value.is_unit())
}

/// The map's field, or `default` when it is absent or null.
fn get(map: &mut Map, field: &str, default: Dynamic) -> Dynamic {
    map.get(field).filter(|value| !value.is_unit()).cloned().unwrap_or(default)
}

/// The map's field, which must be there: the library answers nothing for an absent one, so that
/// `!(job.get("auth_lvl") in [2])` would be true for every job.
fn get_strictly(map: &mut Map, field: &str) -> Result<Dynamic, Box<EvalAltResult>> {
    let value = map.get(field).filter(|value| !value.is_unit());
    value.cloned().ok_or_else(|| EvalAltResult::ErrorPropertyNotFound(field.to_owned(), Position::NONE).into())
}

/// The library's `replace` builds its result before anybody measures it: two texts of the greatest allowed
/// size make four gigabytes.
fn refuse_replace(engine: &mut Engine) {
    fn refused() -> Result<(), Box<EvalAltResult>> {
        Err("`replace` is not available in filters".into())
    }
    engine.register_fn("replace", |_: &mut ImmutableString, _: ImmutableString, _: ImmutableString| refused());
    engine.register_fn("replace", |_: &mut ImmutableString, _: char, _: ImmutableString| refused());
}

/// Comparing values of different kinds is an error. The library answers "not equal", and `!=` on a number
/// and a text, or on nothing and a number, would let every layer in. Whether something is nothing may be
/// asked with nothing on the right: `links[0] == ()`.
fn refuse_unlike(engine: &mut Engine) {
    macro_rules! refuse {
        ($($left:ty => $($right:ty)*;)*) => {$($(
            for operator in ["==", "!=", "<", "<=", ">", ">="] {
                engine.register_fn(operator, |_: $left, _: $right| unlike(stringify!($left), stringify!($right)));
            }
        )*)*};
    }
    refuse! {
        i64 => bool ImmutableString;
        f64 => bool ImmutableString;
        bool => i64 f64 ImmutableString;
        ImmutableString => i64 f64 bool;
        () => i64 f64 bool ImmutableString;
    }
}

fn unlike(left: &str, right: &str) -> Result<bool, Box<EvalAltResult>> {
    let word = |name: &str| match name {
        "i64" | "f64" => "a number",
        "bool" => "a boolean",
        "()" => "nothing",
        _ => "a text",
    };
    Err(format!("{} is compared with {}", word(left), word(right)).into())
}

/// A JSON value as the scripts see it; null members of objects are left out, so that asking for them is the
/// same error as asking for a field that does not exist.
pub(super) fn to_dynamic(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(value) => Dynamic::from_bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Dynamic::from_int(integer),
            None => Dynamic::from_float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => Dynamic::from_array(values.iter().map(to_dynamic).collect()),
        Value::Object(object) => to_map(object).into(),
    }
}

/// An object as the scripts see it.
pub(super) fn to_map(object: &serde_json::Map<String, Value>) -> Map {
    let members = object.iter().filter(|(_, value)| !value.is_null());
    members.map(|(name, value)| (name.as_str().into(), to_dynamic(value))).collect()
}
