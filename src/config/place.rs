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
            self.wrong(&key, problem.text);
        }
    }

    /// Whether a path or anything below it was complained of.
    pub(super) fn is_blamed(&self, path: &str) -> bool {
        self.blamed.range(path.to_owned()..).next().is_some_and(|next| {
            next.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// Whether all is well.
    pub(super) fn is_clean(&self) -> bool {
        self.wrongs.is_empty()
    }

    /// Everything wrong, by place.
    pub(super) fn into_wrongs(mut self) -> Vec<Wrong> {
        self.wrongs.sort();
        self.wrongs.dedup();
        self.wrongs
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

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.is_empty() {
            true => write!(formatter, "{}: {}", self.place, self.text),
            false => write!(formatter, "{}: {}: {}", self.place, self.key, self.text),
        }
    }
}
