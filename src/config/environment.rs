//! Settings from the environment: `TIDEGATE_<SECTION>__<KEY>` and `TIDEGATE_<LIST>__<NAME>__<KEY>`.
//!
//! A variable is looked up in the schema and in the entries that the files gave, dashes as underscores.
//! One that could mean two settings is refused, and so is one that means none; one without two
//! underscores, which the surroundings may set for purposes of their own, is warned of. Its value takes the type
//! of its key, so a password 0123 stays text.

use adapter_api::schema::{Key, Kind};
use figment::value::{Dict, Value};

use super::place::{Place, Report};
use super::similar::suggestion;
use super::value::{Found, check, expected};

/// Sets what the variables say in the merged configuration.
pub(super) fn apply(variables: &[(String, String)], schema: &[Key], merged: &mut Dict, report: &mut Report) {
    for (variable, text) in variables {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        let parts: Vec<&str> = rest.split("__").collect();
        if parts.len() < 2 {
            let near = as_if_meant(schema, rest);
            report
                .warnings
                .push(format!("environment {variable} names no section and key, so it sets nothing{near}"));
            continue;
        }
        let mut targets = Vec::new();
        find(schema, Some(merged), &parts, &mut Vec::new(), &mut targets);
        let place = Place::Variable(variable.clone());
        match targets.as_slice() {
            [target] => set(target, text, place, merged, report),
            [] => report.wrong_source(place, unknown(schema, merged, &parts)),
            [one, other, ..] => {
                let text = format!("could mean {} or {}, so it is refused", one.show(), other.show());
                report.wrong_source(place, text);
            }
        }
    }
}

/// A setting that a variable may mean.
struct Target {
    steps: Vec<Step>,
    name: String,
    kind: Kind,
}

#[derive(Clone)]
enum Step {
    Key(String),
    /// An entry of a list, with its name.
    Entry(usize, String),
}

impl Target {
    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.steps {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => path.push_str(&format!(".{key}")),
                Step::Entry(index, _) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    fn show(&self) -> String {
        let mut shown = String::new();
        for step in &self.steps {
            match step {
                Step::Key(key) if shown.is_empty() => shown.push_str(key),
                Step::Key(key) => shown.push_str(&format!(".{key}")),
                Step::Entry(_, name) => shown.push_str(&format!("[{name}]")),
            }
        }
        shown
    }
}

/// Finds every setting that the parts may mean. A name may itself hold two underscores, so every way to
/// cut is tried.
fn find(keys: &[Key], dict: Option<&Dict>, parts: &[&str], steps: &mut Vec<Step>, targets: &mut Vec<Target>) {
    for take in 1..=parts.len() {
        let (head, rest) = parts.split_at(take);
        let head = head.join("__");
        for key in keys.iter().filter(|key| as_variable(key.name) == head) {
            let value = dict.and_then(|dict| dict.get(key.name));
            steps.push(Step::Key(key.name.to_owned()));
            match key.kind {
                Kind::Table(below) if !rest.is_empty() => {
                    find(below, value.and_then(Value::as_dict), rest, steps, targets);
                }
                Kind::Tables(below) => find_entry(below, value, rest, steps, targets),
                Kind::Map if !rest.is_empty() => {
                    let name = rest.join("__").to_ascii_lowercase();
                    steps.push(Step::Key(name.clone()));
                    targets.push(Target { steps: steps.clone(), name, kind: Kind::Text });
                    steps.pop();
                }
                kind if rest.is_empty() => {
                    targets.push(Target { steps: steps.clone(), name: key.name.to_owned(), kind });
                }
                _ => {}
            }
            steps.pop();
        }
    }
}

fn find_entry(
    keys: &[Key],
    list: Option<&Value>,
    parts: &[&str],
    steps: &mut Vec<Step>,
    targets: &mut Vec<Target>,
) {
    for (index, entry) in list.and_then(Value::as_array).unwrap_or_default().iter().enumerate() {
        let Some(dict) = entry.as_dict() else { continue };
        let Some(name) = dict.get("name").and_then(Value::as_str) else { continue };
        for take in 1..parts.len() {
            let (head, rest) = parts.split_at(take);
            if as_variable(name) == head.join("__") {
                steps.push(Step::Entry(index, name.to_owned()));
                find(keys, Some(dict), rest, steps, targets);
                steps.pop();
            }
        }
    }
}

fn set(target: &Target, text: &str, place: Place, merged: &mut Dict, report: &mut Report) {
    let path = target.path();
    match typed(target.kind, &target.name, text) {
        Ok(value) => {
            report.overridden(&path, place);
            put(merged, &target.steps, value);
        }
        Err(complaint) => report.wrong_at(place, &path, complaint),
    }
}

/// A text as the type that its key takes.
fn typed(kind: Kind, name: &str, text: &str) -> Result<Value, String> {
    let found = match kind {
        Kind::NotYet => return Err("not in this version".to_owned()),
        Kind::Texts => {
            return Ok(Value::from(text.split(',').map(str::trim).map(Value::from).collect::<Vec<_>>()));
        }
        Kind::Table(_) | Kind::Tables(_) | Kind::Map => {
            return Err(format!("{}, which no variable can set: name a key in it", expected(kind)));
        }
        Kind::Integer(..) => text.parse().map_or(Found::Text(text), Found::Integer),
        Kind::Number => text.parse().map_or(Found::Text(text), Found::Float),
        Kind::Boolean => text.parse().map_or(Found::Text(text), Found::Boolean),
        _ => Found::Text(text),
    };
    check(kind, name, found)
}

fn put(dict: &mut Dict, steps: &[Step], value: Value) {
    let Some((Step::Key(key), rest)) = steps.split_first() else { return };
    match rest {
        [] => {
            dict.insert(key.clone(), value);
        }
        [Step::Entry(index, _), rest @ ..] => {
            let entry = match dict.get_mut(key) {
                Some(Value::Array(_, entries)) => entries.get_mut(*index),
                _ => None,
            };
            if let Some(Value::Dict(_, entry)) = entry {
                put(entry, rest, value);
            }
        }
        rest => {
            let below = dict.entry(key.clone()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, below) = below {
                put(below, rest, value);
            }
        }
    }
}

/// Why no setting is meant.
fn unknown(schema: &[Key], merged: &Dict, parts: &[&str]) -> String {
    let section = parts.first().copied().unwrap_or_default();
    let Some(key) = schema.iter().find(|key| as_variable(key.name) == section) else {
        let known: Vec<String> = schema.iter().map(|key| as_variable(key.name)).collect();
        return format!("unknown section{}", suggestion(section, known.iter().map(String::as_str)));
    };
    match key.kind {
        Kind::NotYet => "not in this version".to_owned(),
        Kind::Tables(_) => {
            let entries = merged.get(key.name).and_then(Value::as_array).unwrap_or_default();
            let names: Vec<&str> =
                entries.iter().filter_map(|entry| entry.as_dict()?.get("name")?.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            format!("no key of a [[{}]] has this name; the entries are: {names}", key.name)
        }
        Kind::Table(keys) => {
            let known: Vec<String> = keys.iter().map(|key| as_variable(key.name)).collect();
            let near =
                suggestion(&parts.get(1..).unwrap_or_default().join("__"), known.iter().map(String::as_str));
            format!("unknown key of [{}]{near}", key.name)
        }
        _ => "unknown key".to_owned(),
    }
}

/// What a variable without two underscores may mean: `STORE_MAX_SIZE` names a section and a key of it.
fn as_if_meant(schema: &[Key], rest: &str) -> String {
    for key in schema {
        let section = as_variable(key.name);
        let Some(name) = rest.strip_prefix(&section).and_then(|rest| rest.strip_prefix('_')) else {
            continue;
        };
        match key.kind {
            Kind::Table(keys) if keys.iter().any(|key| as_variable(key.name) == name) => {
                return format!(" (did you mean {PREFIX}{section}__{name}?)");
            }
            Kind::Tables(keys)
                if keys.iter().any(|key| name.ends_with(&format!("_{}", as_variable(key.name)))) =>
            {
                return format!(" (did you mean {PREFIX}{section}__NAME__KEY?)");
            }
            _ => {}
        }
    }
    String::new()
}

/// A name as it stands in a variable: `line-1` becomes `LINE_1`.
fn as_variable(name: &str) -> String {
    name.chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' })
        .collect()
}

const PREFIX: &str = "TIDEGATE_";
