//! The lists of statements, and the list of exceptions from them.
//!
//! A list says in its head how many statements it has, so that none is lost unseen.

use std::collections::BTreeMap;

/// A numbered statement.
pub(crate) struct Clause {
    /// As marks name it, `MQTT5-3.1.0-2`.
    pub(crate) name: String,
    pub(crate) binds: Binds,
    /// What it asks.
    pub(crate) words: String,
}

/// Whom a statement binds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binds {
    Server,
    Client,
    Both,
}

impl Binds {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Binds::Server => "server",
            Binds::Client => "client",
            Binds::Both => "both",
        }
    }
}

/// The statements of one version.
pub(crate) struct List {
    pub(crate) prefix: String,
    pub(crate) clauses: Vec<Clause>,
    pub(crate) faults: Vec<String>,
}

impl List {
    pub(crate) fn read(prefix: &str, text: &str) -> List {
        let mut list = List { prefix: prefix.to_owned(), clauses: Vec::new(), faults: Vec::new() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match clause(prefix, line) {
                Some(clause) if list.clauses.iter().any(|known| known.name == clause.name) => {
                    let number = &clause.name[prefix.len() + 1..];
                    list.faults.push(format!("{prefix}: {number} stands twice"));
                    list.clauses.push(clause);
                }
                Some(clause) => list.clauses.push(clause),
                None => list.faults.push(format!("{prefix}: cannot read {line:?}")),
            }
        }
        let (said, found) = (number(text, "# statements: "), list.clauses.len());
        if said != Some(found) {
            let said = said.map_or("no number of".to_owned(), |said| said.to_string());
            list.faults.push(format!("{prefix}: says {said} statements and lists {found}"));
        }
        list
    }
}

fn clause(prefix: &str, line: &str) -> Option<Clause> {
    let (number, rest) = line.split_once(' ')?;
    let (binds, words) = rest.trim_start().split_once(' ')?;
    let binds = match binds {
        "server" => Binds::Server,
        "client" => Binds::Client,
        "both" => Binds::Both,
        _ => return None,
    };
    Some(Clause { name: format!("{prefix}-{number}"), binds, words: words.trim().to_owned() })
}

/// The number behind these words.
fn number(text: &str, words: &str) -> Option<usize> {
    text.lines().find_map(|line| line.strip_prefix(words)?.trim().parse().ok())
}

/// How a statement is not obeyed, and why.
pub(crate) enum Exception {
    /// Its feature is not built.
    Missing(String),
    /// It is obeyed save for this.
    Deviates(String),
}

/// Every exception, by statement.
pub(crate) struct Exceptions {
    pub(crate) of: BTreeMap<String, Exception>,
    pub(crate) faults: Vec<String>,
}

impl Exceptions {
    pub(crate) fn read(text: &str) -> Exceptions {
        let mut exceptions = Exceptions { of: BTreeMap::new(), faults: Vec::new() };
        for line in text.lines().filter(|line| line.starts_with('[')) {
            match exception(line) {
                Some((name, exception)) => {
                    exceptions.of.insert(name, exception);
                }
                None => exceptions.faults.push(format!("exceptions.txt: cannot read {line:?}")),
            }
        }
        let missing = |exception: &&Exception| matches!(exception, Exception::Missing(_));
        let (said, found) = (number(text, "# missing: "), exceptions.of.values().filter(missing).count());
        if said != Some(found) {
            let said = said.map_or("no number of".to_owned(), |said| said.to_string());
            exceptions.faults.push(format!("exceptions.txt: says {said} missing and lists {found}"));
        }
        exceptions
    }
}

fn exception(line: &str) -> Option<(String, Exception)> {
    let (name, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (kind, why) = rest.split_once(": ")?;
    let why = why.trim().to_owned();
    let exception = match kind {
        "missing" => Exception::Missing(why),
        "deviates" => Exception::Deviates(why),
        _ => return None,
    };
    Some((name.to_owned(), exception))
}
