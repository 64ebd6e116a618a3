//! Keys that are given twice in one table: which ones, and where first.
//!
//! The parser says of a key that it is a duplicate and nothing more. Under another name it takes its
//! place beside the first one, so the text is parsed once more with every duplicate renamed.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::walk::join;

/// A key that its table has already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Twice {
    /// Its path; entries of the root's lists are counted over all files.
    pub(super) path: String,
    /// Where it stands, in bytes.
    pub(super) at: usize,
    /// Where the first one stands.
    pub(super) first: usize,
}

/// Whether the parser complains of a key that is there already.
pub(super) fn is_meant(error: &Error) -> bool {
    error.message() == "duplicate key" && error.span().is_some()
}

/// Every duplicate among these keys of the text. `counts` says how many entries the files before it gave to
/// each list of the root.
pub(super) fn find(text: &str, mut spans: Vec<Range<usize>>, counts: &BTreeMap<String, usize>) -> Vec<Twice> {
    if spans.is_empty() {
        return Vec::new();
    }
    spans.sort_by_key(|span| span.start);
    let mut mark = "twice-".to_owned();
    while text.contains(&mark) {
        mark.push('-');
    }
    let (mut renamed, mut end, mut keys) = (String::new(), 0, Vec::new());
    for span in spans {
        // The parser may stumble over one key more than once.
        let (Some(before), Some(written)) = (text.get(end..span.start), text.get(span.clone())) else {
            continue;
        };
        renamed.push_str(before);
        renamed.push_str(&format!("{mark}{}", keys.len()));
        end = span.end;
        keys.push(Renamed { name: decoded(written), span, behind: renamed.len() });
    }
    renamed.push_str(text.get(end..).unwrap_or_default());
    let (table, _) = DeTable::parse_recoverable(&renamed);
    let mut search = Search { mark: &mark, keys: &keys, counts, found: Vec::new() };
    search.table(table.get_ref(), "", 0);
    search.found
}

/// A duplicate under its other name.
struct Renamed {
    name: String,
    /// Where it stands in the text.
    span: Range<usize>,
    /// Where it ends in the renamed text.
    behind: usize,
}

struct Search<'a> {
    mark: &'a str,
    /// In their order; the number behind the mark counts them.
    keys: &'a [Renamed],
    counts: &'a BTreeMap<String, usize>,
    found: Vec<Twice>,
}

impl<'a> Search<'a> {
    fn table(&mut self, table: &DeTable<'_>, path: &str, depth: usize) {
        for (name, value) in table {
            if let Some(key) = self.renamed(name.get_ref())
                && let Some((first, _)) = table.get_key_value(key.name.as_str())
            {
                let first = self.original(first.span().start);
                self.found.push(Twice { path: join(path, &key.name), at: key.span.start, first });
            }
            self.value(value.get_ref(), &join(path, name.get_ref()), depth + 1);
        }
    }

    fn value(&mut self, value: &DeValue<'_>, path: &str, depth: usize) {
        match value {
            // The schema is not as deep, and the stack is finite.
            _ if depth > DEPTH_MAX => {}
            DeValue::Table(table) => self.table(table, path, depth),
            DeValue::Array(entries) => {
                let before = self.counts.get(path).copied().unwrap_or(0);
                for (index, entry) in entries.iter().enumerate() {
                    self.value(entry.get_ref(), &format!("{path}[{}]", before + index), depth + 1);
                }
            }
            _ => {}
        }
    }

    fn renamed(&self, name: &str) -> Option<&'a Renamed> {
        self.keys.get(name.strip_prefix(self.mark)?.parse::<usize>().ok()?)
    }

    /// Where in the text the byte at this place of the renamed text stands.
    fn original(&self, place: usize) -> usize {
        let before = self.keys.iter().rev().find(|key| key.behind <= place);
        before.map_or(place, |key| key.span.end + (place - key.behind))
    }
}

/// A key without its quotes.
fn decoded(written: &str) -> String {
    let line = format!("{written} = 0");
    let (table, _) = DeTable::parse_recoverable(&line);
    let first = table.get_ref().iter().next().map(|(name, _)| name.get_ref().clone().into_owned());
    first.unwrap_or_else(|| written.to_owned())
}

/// Tables and lists in each other that are searched.
const DEPTH_MAX: usize = 16;
