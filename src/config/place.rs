//! Where a setting stands, and what is wrong with it.
//!
//! A key's path in the merged configuration (`bridge[0].forward[1].filter`) leads back to the line or
//! the variable that set it. [`Report`] collects everything that is wrong, one complaint a path, so that
//! the operator mends his file once and not five times.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use adapter_api::schema::Problem;

/// Where a setting stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of a file, counted from 1.
    Line(Arc<str>, usize),
    /// A file as a whole.
    File(Arc<str>),
    /// An environment variable.
    Variable(String),
    /// Nowhere: a default.
    Default,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wrong {
    /// Where.
    pub place: Place,
    /// The key as the operator knows it, entries by their names; empty where no key is meant.
    pub key: String,
    /// What was found and what was expected.
    pub text: String,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Everything that is wrong with it, by place.
    pub wrongs: Vec<Wrong>,
    /// What is allowed and perhaps not meant.
    pub warnings: Vec<String>,
}

/// Everything wrong so far, what deserves a warning, and where every key stands.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What is wrong, in the order found.
    wrongs: Vec<Wrong>,
    /// What is allowed and perhaps not meant.
    pub(super) warnings: Vec<String>,
    /// Files that are named and cannot be used.
    unready: Vec<Wrong>,
    /// Whether a source could not be read to its end, so that what is missing means nothing.
    pub(super) torn: bool,
    /// Paths that were complained of.
    blamed: BTreeSet<String>,
    places: BTreeMap<String, Place>,
    names: BTreeMap<String, String>,
}

impl Report {
    /// Remembers where a path was set; the last one to set it wins, as its value does.
    pub(super) fn stands(&mut self, path: &str, place: Place) {
        self.places.insert(path.to_owned(), place);
    }

    /// Remembers that a variable has set a path: nothing of what stood there before holds, and a table
    /// around it that no file has stands there too.
    pub(super) fn overridden(&mut self, path: &str, place: Place) {
        self.places.retain(|known, _| known == path || !is_within(known, path));
        let mut around = path;
        while let Some(shorter) = around.rfind(['.', '[']).and_then(|end| around.get(..end)) {
            self.places.entry(shorter.to_owned()).or_insert_with(|| place.clone());
            around = shorter;
        }
        self.stands(path, place);
    }

    /// Remembers the name of a list's entry.
    pub(super) fn named(&mut self, entry: &str, name: &str) {
        self.names.insert(entry.to_owned(), name.to_owned());
    }

    /// Where a path was set; that of the table around it, where it was not set itself.
    pub(super) fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return place.clone();
            }
            match path.rfind(['.', '[']).and_then(|end| path.get(..end)) {
                Some(shorter) => path = shorter,
                None => return Place::Default,
            }
        }
    }

    /// Complains of a path where it stands.
    pub(super) fn wrong(&mut self, path: &str, text: impl Into<String>) {
        let place = self.place(path);
        self.wrong_at(place, path, text);
    }

    /// Complains of a path at a given place.
    pub(super) fn wrong_at(&mut self, place: Place, path: &str, text: impl Into<String>) {
        if self.blamed.insert(path.to_owned()) {
            let key = self.show(path);
            self.wrongs.push(Wrong { place, key, text: text.into() });
        }
    }

    /// Complains of a path at a given place, whatever else is wrong with it.
    pub(super) fn also_wrong_at(&mut self, place: Place, path: &str, text: impl Into<String>) {
        let key = self.show(path);
        self.wrongs.push(Wrong { place, key, text: text.into() });
    }

    /// Takes no complaint of a path: what is wrong with it follows from what is told already.
    pub(super) fn excuse(&mut self, path: &str) {
        self.blamed.insert(path.to_owned());
    }

    /// Complains of a file that is named there and cannot be used, which does not keep the service from
    /// starting.
    pub(super) fn unready(&mut self, path: &str, text: impl Into<String>) {
        self.unready.push(Wrong { place: self.place(path), key: self.show(path), text: text.into() });
    }

    /// Warns of a path where it stands.
    pub(super) fn warn(&mut self, path: &str, text: impl Into<String>) {
        let wrong = Wrong { place: self.place(path), key: self.show(path), text: text.into() };
        self.warnings.push(wrong.to_string());
    }

    /// What was said of files so far.
    pub(super) fn take_unready(&mut self) -> Vec<Wrong> {
        std::mem::take(&mut self.unready)
    }

    /// Complains of a source that could not be read, there or at all.
    pub(super) fn broken(&mut self, place: Place, text: impl Into<String>) {
        self.torn = true;
        self.wrong_source(place, text);
    }

    /// Complains of a file or variable as such.
    pub(super) fn wrong_source(&mut self, place: Place, text: impl Into<String>) {
        self.wrongs.push(Wrong { place, key: String::new(), text: text.into() });
    }

    /// Takes a room's complaints about its table at `path`, save those of keys already complained of.
    pub(super) fn problems(&mut self, path: &str, problems: Vec<Problem>) {
        for problem in problems {
            let key =
                if problem.key.is_empty() { path.to_owned() } else { format!("{path}.{}", problem.key) };
            let text = format!("{}{}", problem.text, self.variables_in(path, &key, &problem.text));
            self.wrong(&key, text);
        }
    }

    /// The variables that have set other keys below a table of which a complaint speaks.
    fn variables_in(&self, table: &str, blamed: &str, complaint: &str) -> String {
        let mut told = String::new();
        let below = self.places.range(table.to_owned()..).take_while(|(path, _)| path.starts_with(table));
        for (path, place) in below.filter(|(path, _)| is_within(path, table) && !is_within(blamed, path)) {
            let Place::Variable(variable) = place else { continue };
            let key = path.rsplit('.').next().unwrap_or_default();
            let mut words = complaint.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            if words.any(|word| word == key) {
                told.push_str(&format!(" ({key} is set by environment {variable})"));
            }
        }
        told
    }

    /// Whether a path or anything below it was complained of.
    pub(super) fn is_blamed(&self, path: &str) -> bool {
        self.blamed.range(path.to_owned()..).next().is_some_and(|next| is_within(next, path))
    }

    /// Whether all is well.
    pub(super) fn is_clean(&self) -> bool {
        self.wrongs.is_empty()
    }

    /// Everything wrong, by place: files that cannot be used are no less so because something else is wrong.
    pub(super) fn into_refused(mut self) -> Refused {
        self.wrongs.append(&mut self.unready);
        self.wrongs.sort();
        self.wrongs.dedup();
        Refused { wrongs: self.wrongs, warnings: self.warnings }
    }

    /// A path with its entries by name: `bridge[cloud].forward[0].filter`.
    pub(super) fn show(&self, path: &str) -> String {
        let mut shown = String::new();
        let mut rest = path;
        while let Some(end) = rest.find(']') {
            let (head, tail) = rest.split_at(end + 1);
            let before = path.len() - tail.len();
            let entry = path.get(..before).unwrap_or(path);
            match (self.names.get(entry), head.rfind('[').and_then(|open| head.get(..open))) {
                (Some(name), Some(list)) => shown.push_str(&format!("{list}[{name}]")),
                _ => shown.push_str(head),
            }
            rest = tail;
        }
        shown + rest
    }
}

/// Whether a path is this one or lies below it.
fn is_within(path: &str, around: &str) -> bool {
    path.strip_prefix(around).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(file, line) => write!(formatter, "{file}:{line}"),
            Place::File(file) => formatter.write_str(file),
            Place::Variable(name) => write!(formatter, "environment {name}"),
            Place::Default => formatter.write_str("defaults"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(formatter, "warning: {warning}")?;
        }
        for wrong in &self.wrongs {
            writeln!(formatter, "{wrong}")?;
        }
        let count = self.wrongs.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(formatter, "tidegate: {count} mistake{plural} in the configuration")
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.is_empty() {
            true => write!(formatter, "{}: {}", self.place, self.text),
            false => write!(formatter, "{}: {}: {}", self.place, self.key, self.text),
        }
    }
}
