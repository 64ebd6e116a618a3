//! Promises of the shipped files: `config/tidegate.toml` is the defaults and names every key, each key
//! of it changes something, and the examples are right.
//!
//! The lists of the shipped file are comments; without their `#` they are one large example.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use adapter_api::schema::{Key, Kind};
use toml::{Table, Value};

use super::*;

const SHIPPED: &str = include_str!("../../config/tidegate.toml");

/// The shipped file with its settings uncommented: those lines begin with `#` and no space.
fn uncommented() -> String {
    let setting = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
        _ => line,
    };
    SHIPPED.lines().map(setting).collect::<Vec<_>>().join("\n")
}

fn load_text(text: &str) -> Result<Loaded, Vec<String>> {
    let surroundings = gateway::Surroundings { host_name: Some("barn".to_owned()), ..Default::default() };
    let sources =
        Sources { files: vec![("x.toml".into(), text.to_owned())], variables: Vec::new(), surroundings };
    from_sources(&sources).map_err(|refused| refused.wrongs.iter().map(Wrong::to_string).collect())
}

fn show(loaded: &Loaded) -> String {
    format!("{loaded:#?}")
}

#[test]
fn the_shipped_file_is_the_defaults() {
    let shipped = load_text(SHIPPED).expect("right");
    assert_eq!(show(&shipped), show(&load_text("").expect("right")));
}

#[test]
fn the_examples_are_right() {
    load_text(&uncommented()).expect("the shipped file without its comment signs");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let text = fs::read_to_string(entry.path()).expect("readable");
        load_text(&text).unwrap_or_else(|wrongs| panic!("{}: {wrongs:#?}", entry.path().display()));
        count += 1;
    }
    assert!(count > 0, "there are examples");
}

#[test]
fn every_key_stands_in_the_shipped_file_and_none_that_is_not_built() {
    let table: Table = uncommented().parse().expect("TOML");
    let mut missing = Vec::new();
    each_leaf(schema::ROOT, "", &mut |path, kind| {
        let given = !find(&Value::Table(table.clone()), path).is_empty();
        match kind {
            Kind::NotYet => assert!(!given, "{path} is not built and stands in the shipped file"),
            _ if !given => missing.push(path.to_owned()),
            _ => {}
        }
    });
    assert!(missing.is_empty(), "not in the shipped file: {missing:?}");
}

#[test]
fn each_key_has_a_word_of_why_above_it_or_its_table() {
    let lines: Vec<&str> = SHIPPED.lines().collect();
    let setting = |line: &str| line.contains(" = ") && !line.starts_with("# ");
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| setting(line)) {
        // Keys that stand together share the words above the first.
        let before = lines.iter().take(index).rev().find(|line| !setting(line));
        assert!(before.is_some_and(|line| line.starts_with('#')), "nothing says why: {line}");
    }
}

#[test]
fn a_setting_that_is_not_the_default_says_what_is() {
    let lines: Vec<&str> = SHIPPED.lines().collect();
    let before = show(&load_text(&uncommented()).expect("right"));
    let is_setting = |line: &str| line.contains(" = ") && !line.starts_with("# ");
    let mut silent = Vec::new();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| is_setting(line)) {
        let mut without = uncommented().lines().map(str::to_owned).collect::<Vec<_>>();
        let setting = without.get_mut(index).map(std::mem::take).expect("a line");
        // What is needed has no default, and a name is its owner's.
        let Ok(loaded) = load_text(&without.join("\n")) else { continue };
        if show(&loaded) == before || setting.starts_with("name = ") {
            continue;
        }
        let above = lines.iter().take(index).rev().copied();
        let above = above.skip_while(|line| is_setting(line) || line.starts_with("#["));
        let words: Vec<&str> = above.take_while(|line| line.starts_with("# ")).collect();
        let words = words.into_iter().rev().collect::<Vec<_>>().join(" ").to_lowercase();
        let says = ["not given", "without", "default"];
        if !says.iter().any(|word| words.contains(word)) {
            silent.push(*line);
        }
    }
    assert!(silent.is_empty(), "without these lines it is otherwise, and nothing says how: {silent:#?}");
}

#[test]
fn each_key_changes_something() {
    let table: Table = uncommented().parse().expect("TOML");
    let before = show(&load_text(&uncommented()).expect("right"));
    let mut idle = Vec::new();
    each_leaf(schema::ROOT, "", &mut |path, kind| {
        if matches!(kind, Kind::NotYet) {
            return;
        }
        let root = Value::Table(table.clone());
        let changed = find(&root, path).into_iter().any(|steps| {
            let old = steps.iter().try_fold(&root, |value, step| step.of(value)).expect("just found");
            others(path, kind, old).into_iter().any(|new| {
                let mut root = root.clone();
                put(&mut root, &steps, new);
                for (_, other) in BESIDE.iter().filter(|(key, _)| *key == path) {
                    find(&root.clone(), other).iter().for_each(|steps| remove(&mut root, steps));
                }
                let text = toml::to_string(&root).expect("TOML");
                load_text(&text).is_ok_and(|loaded| show(&loaded) != before)
            })
        });
        if changed == ONE_VALUE.contains(&path) {
            idle.push(path.to_owned());
        }
    });
    assert!(
        idle.is_empty(),
        "no other value of these keys (or, for keys of one value, another one) is taken and changes anything: {idle:?}"
    );
}

/// Other values that a key might take.
fn others(path: &str, kind: Kind, old: &Value) -> Vec<Value> {
    let text = old.as_str().unwrap_or_default();
    match kind {
        Kind::Boolean => vec![Value::Boolean(!old.as_bool().unwrap_or_default())],
        Kind::Integer(low, high) => {
            let number = old.as_integer().unwrap_or_default();
            [number + 1, number - 1, low, high].map(Value::Integer).to_vec()
        }
        Kind::Number => vec![Value::Float(7.5)],
        Kind::Choice(words) => {
            words.iter().filter(|word| **word != text).map(|word| (*word).into()).collect()
        }
        Kind::Duration(..) | Kind::DurationOr(_) => ["2s", "7s", "9ms", "1d"].map(Value::from).to_vec(),
        Kind::Size(..) | Kind::SizeOr(_) => ["2MB", "500KB", "900B"].map(Value::from).to_vec(),
        Kind::RateOr(_) => ["7/s", "9/m"].map(Value::from).to_vec(),
        Kind::Texts => vec![Value::Array(vec!["mqtts://other.example.com:8883".into()])],
        Kind::Map => vec![Value::Table([("7".to_owned(), Value::from("another"))].into_iter().collect())],
        _ => {
            let known = TEXTS.iter().filter(|(known, _)| *known == path).map(|(_, text)| (*text).to_owned());
            known.chain([format!("{text}x")]).map(Value::from).collect()
        }
    }
}

/// Keys that take one value in this version, or beside the others of the example: another is refused, and
/// not ignored.
const ONE_VALUE: &[&str] =
    &["bridge.forward.store", "serial.frame.kind", "serial.checksum.kind", "mqtt_sn.allow_anonymous"];

/// Keys whose other value goes together with less than the example has: the other key must go with it.
const BESIDE: &[(&str, &str)] = &[("bridge.protocol", "bridge.session_expiry")];

/// Other texts for keys whose text must mean something.
const TEXTS: &[(&str, &str)] = &[
    ("listener.bind", "127.0.0.1:1999"),
    ("listener.mount_point", "barn-3/"),
    ("bridge.forward.filter", "others/#"),
    ("bridge.receive.filter", "others/#"),
    ("modbus.device.point.register", "input:7"),
    ("modbus.tcp", "192.0.2.21:502"),
    ("serial.parse.kind", "raw"),
    ("mqtt_sn.bind", "127.0.0.1:10001"),
    ("log.level", "warn"),
];

/// Visits every key that takes a value, by its path without indexes.
fn each_leaf(keys: &[Key], path: &str, visit: &mut dyn FnMut(&str, Kind)) {
    let mut seen = BTreeSet::new();
    for key in keys {
        assert!(seen.insert(key.name), "{path}.{} stands twice in the schema", key.name);
        let here = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        match key.kind {
            Kind::Table(below) | Kind::Tables(below) => each_leaf(below, &here, visit),
            kind => visit(&here, kind),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Entry(usize),
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        match self {
            Step::Key(key) => value.get(key),
            Step::Entry(index) => value.get(index),
        }
    }
}

/// Everywhere that a path without indexes leads to.
fn find(value: &Value, path: &str) -> Vec<Vec<Step>> {
    if let Value::Array(entries) = value {
        if path.is_empty() {
            return vec![Vec::new()];
        }
        let below = entries.iter().enumerate();
        return below.flat_map(|(index, entry)| behind(Step::Entry(index), find(entry, path))).collect();
    }
    if path.is_empty() {
        return vec![Vec::new()];
    }
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    match value.get(name) {
        Some(below) => behind(Step::Key(name.to_owned()), find(below, rest)),
        None => Vec::new(),
    }
}

fn behind(first: Step, found: Vec<Vec<Step>>) -> Vec<Vec<Step>> {
    found.into_iter().map(|rest| [vec![first.clone()], rest].concat()).collect()
}

fn put(root: &mut Value, steps: &[Step], new: Value) {
    match steps {
        [] => *root = new,
        [Step::Key(key), rest @ ..] => put(root.get_mut(key).expect("just found"), rest, new),
        [Step::Entry(index), rest @ ..] => put(root.get_mut(*index).expect("just found"), rest, new),
    }
}

fn remove(root: &mut Value, steps: &[Step]) {
    match steps {
        [Step::Key(key)] => drop(root.as_table_mut().expect("just found").remove(key)),
        [Step::Key(key), rest @ ..] => remove(root.get_mut(key).expect("just found"), rest),
        [Step::Entry(index), rest @ ..] => remove(root.get_mut(*index).expect("just found"), rest),
        [] => {}
    }
}
