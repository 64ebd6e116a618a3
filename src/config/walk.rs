//! One file's text, with its lines, against the schema.
//!
//! Reports every syntax error, unknown key, wrong value and missing key with its line, and hands on what
//! is left, so that one mistake does not hide the next. It reads no file and merges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use adapter_api::schema::{Key, Kind};
use figment::value::{Dict, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::place::{Place, Report};
use super::similar::suggestion;
use super::twice;
use super::value::{Found, check, expected};

/// Walks one file. `counts` says how many entries the files before it gave to each list of the root, and
/// is moved on.
pub(super) fn walk(
    file: &Arc<str>,
    text: &str,
    schema: &[Key],
    counts: &mut BTreeMap<String, usize>,
    report: &mut Report,
) -> Dict {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let (twice, errors): (Vec<_>, Vec<_>) = errors.into_iter().partition(twice::is_meant);
    let found = twice::find(text, twice.iter().filter_map(Error::span).collect(), counts);
    // One that is not found is told as the parser tells it.
    let is_found =
        |error: &Error| found.iter().any(|key| error.span().is_some_and(|span| span.start == key.at));
    let unfound = twice.into_iter().filter(|error| !is_found(error));
    let mut broken = BTreeSet::new();
    for error in errors.into_iter().chain(unfound) {
        let line = lines.line(error.span().map_or(0, |span| span.start));
        // The parser may stumble over one fault more than once.
        if broken.insert(line) {
            report.broken(Place::Line(file.clone(), line), error.message().to_owned());
        }
    }
    let mut walk = Walk { file, lines, broken, counts, report };
    let dict = walk.table(schema, table.get_ref(), "", 0);
    for key in found {
        let text = format!("found a second time, expected once: {} has it already", walk.place(key.first));
        walk.report.also_wrong_at(walk.place(key.at), &key.path, text);
    }
    dict
}

struct Walk<'a> {
    file: &'a Arc<str>,
    lines: Lines,
    /// Lines with syntax errors: what was recovered there is not worth a second complaint.
    broken: BTreeSet<usize>,
    counts: &'a mut BTreeMap<String, usize>,
    report: &'a mut Report,
}

impl Walk<'_> {
    fn table(&mut self, keys: &[Key], table: &DeTable<'_>, path: &str, header: usize) -> Dict {
        let mut dict = Dict::new();
        for (name, value) in table {
            let here = join(path, name.get_ref());
            let at = name.span().start;
            let Some(key) = keys.iter().find(|key| key.name == name.get_ref().as_ref()) else {
                let near = suggestion(name.get_ref(), keys.iter().map(|key| key.name));
                self.wrong(&here, at, format!("unknown key{near}"));
                continue;
            };
            self.report.stands(&here, self.place(at));
            if let Some(value) = self.value(*key, value, &here, at) {
                dict.insert(key.name.to_owned(), value);
            }
        }
        // Where the syntax is broken, the key may well stand on the broken line.
        let is_stood_for =
            |name| keys.iter().any(|other| other.instead_of == Some(name) && table.contains_key(other.name));
        let missing = keys.iter().filter(|key| key.required && !table.contains_key(key.name));
        let missing = missing.filter(|key| !is_stood_for(key.name));
        for key in missing.filter(|_| self.broken.is_empty()).collect::<Vec<_>>() {
            self.wrong(&join(path, key.name), header, format!("missing, expected {}", expected(key.kind)));
        }
        dict
    }

    fn value(&mut self, key: Key, value: &Spanned<DeValue<'_>>, path: &str, at: usize) -> Option<Value> {
        match (key.kind, value.get_ref()) {
            (Kind::NotYet, _) => {
                self.wrong(path, at, "not in this version");
                if let Some(other) = key.instead_of {
                    let table = path.rsplit_once('.').map_or("", |(table, _)| table);
                    self.report.excuse(&join(table, other));
                }
                None
            }
            (Kind::Table(keys), DeValue::Table(table)) => Some(self.table(keys, table, path, at).into()),
            (Kind::Tables(keys), DeValue::Array(entries)) => {
                let entries = self.tables(keys, entries.iter(), path, at);
                Some(Value::from(entries))
            }
            (Kind::Tables(_), DeValue::Table(_)) => {
                let name = key.name;
                self.wrong(path, at, format!("found a table [{name}], expected a list of tables [[{name}]]"));
                None
            }
            (Kind::Map, DeValue::Table(table)) => Some(self.map(table, path).into()),
            (Kind::Texts, DeValue::Array(entries)) => {
                let texts = entries.iter().enumerate().filter_map(|(index, entry)| {
                    let (here, start) = (format!("{path}[{index}]"), entry.span().start);
                    self.report.stands(&here, self.place(start));
                    self.plain(Kind::Text, key.name, entry, &here, start)
                });
                Some(Value::from(texts.collect::<Vec<Value>>()))
            }
            (kind, _) => self.plain(kind, key.name, value, path, at),
        }
    }

    fn tables<'i>(
        &mut self,
        keys: &[Key],
        entries: impl Iterator<Item = &'i Spanned<DeValue<'i>>>,
        path: &str,
        at: usize,
    ) -> Vec<Value> {
        let first = self.counts.get(path).copied().unwrap_or(0);
        let mut values = Vec::new();
        for (offset, entry) in entries.enumerate() {
            let here = format!("{path}[{}]", first + offset);
            let start = entry.span().start;
            self.report.stands(&here, self.place(start));
            let dict = match entry.get_ref() {
                DeValue::Table(table) => {
                    if let Some(name) = table.get("name").and_then(|name| name.get_ref().as_str()) {
                        self.report.named(&here, name);
                    }
                    self.table(keys, table, &here, start)
                }
                other => {
                    self.wrong(&here, start, format!("found {}, expected a table", name_of(other)));
                    Dict::new()
                }
            };
            // A wrong entry keeps its place, so that the paths of those behind it stay true.
            values.push(dict.into());
        }
        if !path.contains(['.', '[']) {
            self.counts.insert(path.to_owned(), first + values.len());
            self.report.stands(path, self.place(at));
        }
        values
    }

    fn map(&mut self, table: &DeTable<'_>, path: &str) -> Dict {
        let mut dict = Dict::new();
        for (name, value) in table {
            let here = join(path, name.get_ref());
            let at = name.span().start;
            self.report.stands(&here, self.place(at));
            if let Some(value) = self.plain(Kind::Text, name.get_ref(), value, &here, at) {
                dict.insert(name.get_ref().clone().into_owned(), value);
            }
        }
        dict
    }

    fn plain(
        &mut self,
        kind: Kind,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        at: usize,
    ) -> Option<Value> {
        let result = match value.get_ref() {
            // A number that no i64 holds is quoted as it stands.
            DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(number) => check(kind, key, Found::Integer(number)),
                Err(_) => Err(format!("found {digits}, expected {}", expected(kind))),
            },
            other => check(kind, key, found(other)),
        };
        result.map_err(|text| self.wrong(path, at, text)).ok()
    }

    fn wrong(&mut self, path: &str, at: usize, text: impl Into<String>) {
        if !self.broken.contains(&self.lines.line(at)) {
            self.report.wrong_at(self.place(at), path, text);
        }
    }

    fn place(&self, at: usize) -> Place {
        Place::Line(self.file.clone(), self.lines.line(at))
    }
}

fn found<'a>(value: &'a DeValue<'_>) -> Found<'a> {
    match value {
        DeValue::String(text) => Found::Text(text),
        DeValue::Float(digits) => digits.as_str().parse().map_or(Found::Other("a number"), Found::Float),
        DeValue::Boolean(value) => Found::Boolean(*value),
        other => Found::Other(name_of(other)),
    }
}

fn name_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The path of a table's key.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Byte offsets to line numbers.
struct Lines {
    ends: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Lines {
        Lines {
            ends: text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect(),
        }
    }

    fn line(&self, at: usize) -> usize {
        self.ends.partition_point(|end| *end < at) + 1
    }
}
