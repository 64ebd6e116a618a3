//! What one client may read and write.
//!
//! Made once, when the client connects; asked for every message, so it allocates nothing: lines without
//! a wildcard are found by a binary search, the others are tried in turn.

use std::sync::Arc;

use super::filters::{covers, overlap};
use super::names::Names;
use crate::router::filter::matches;

/// The rules as they stand for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The lines of its user, which it shares with that user's other clients.
    own: Arc<Section>,
    /// The patterns, which it shares with every client.
    patterns: Arc<[Line]>,
    /// What stands in their places, where some have one.
    names: Option<Box<Names>>,
    scope: Scope,
}

/// Whom the operator's rules limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// It may do what a line grants it.
    Granted,
    /// It may do everything that no rule of the house forbids: an adapter that no line names.
    Free,
}

/// The lines of one user, or those before the first `user`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Section {
    /// Topics without a wildcard, in order, each with all that its lines say.
    exact: Vec<(Box<str>, Rights)>,
    wild: Vec<Line>,
}

/// One line: what it says of the topics under its filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) filter: Box<str>,
    pub(super) rights: Rights,
}

/// What lines say, put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights(u8);

impl Rights {
    pub(super) const NONE: Rights = Rights(0);
    pub(super) const READ: Rights = Rights(1);
    pub(super) const WRITE: Rights = Rights(2);
    pub(super) const BOTH: Rights = Rights(3);
    pub(super) const DENY: Rights = Rights(4);
    /// The line as it is written names a `…/set` topic.
    const SET: Rights = Rights(8);

    /// Those of a line with this filter, before names are put into it.
    pub(super) fn of_line(self, filter: &str) -> Rights {
        if filter.ends_with("/set") { self.with(Rights::SET) } else { self }
    }

    fn with(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }

    /// Whether this is granted and nothing denies it.
    fn grants(self, need: Rights) -> bool {
        self.0 & (need.0 | Rights::DENY.0) == need.0
    }

    pub(super) fn denies(self) -> bool {
        self.has(Rights::DENY)
    }

    fn has(self, other: Rights) -> bool {
        self.0 & other.0 != 0
    }
}

impl Section {
    pub(super) fn add(&mut self, line: Line) {
        if line.filter.contains(['+', '#']) {
            return self.wild.push(line);
        }
        match self.exact.binary_search_by(|(topic, _)| topic.cmp(&line.filter)) {
            Ok(place) => {
                if let Some((_, rights)) = self.exact.get_mut(place) {
                    *rights = rights.with(line.rights);
                }
            }
            Err(place) => self.exact.insert(place, (line.filter, line.rights)),
        }
    }

    fn exact(&self, topic: &str) -> Rights {
        let found = self.exact.binary_search_by(|(known, _)| (**known).cmp(topic)).ok();
        found.and_then(|place| self.exact.get(place)).map_or(Rights::NONE, |(_, rights)| *rights)
    }

    /// Every line, those without a wildcard first.
    fn lines(&self) -> impl Iterator<Item = (&str, Rights)> {
        let exact = self.exact.iter().map(|(topic, rights)| (&**topic, *rights));
        exact.chain(self.wild.iter().map(|line| (&*line.filter, line.rights)))
    }
}

impl Access {
    pub(super) fn new(
        own: Arc<Section>,
        patterns: Arc<[Line]>,
        names: Option<Box<Names>>,
        scope: Scope,
    ) -> Access {
        Access { own, patterns, names, scope }
    }

    /// Whether a message of this topic may be given to the client.
    pub fn may_read(&self, topic: &str) -> bool {
        self.scope == Scope::Free || self.rights(topic).grants(Rights::READ)
    }

    /// Whether the client may publish to this topic.
    pub fn may_write(&self, topic: &str) -> bool {
        self.scope == Scope::Free || self.rights(topic).grants(Rights::WRITE)
    }

    /// Whether a line names this `…/set` topic as such for writing: its filter ends in `set` too, as it is
    /// written. Neither a broad `#` nor a client that calls itself `set` turns a valve.
    pub fn may_set(&self, topic: &str) -> bool {
        let mut rights = self.own.exact(topic);
        for line in self.wild(topic) {
            let named = line.rights.has(Rights::SET) || line.rights.denies();
            rights = if named { rights.with(line.rights) } else { rights };
        }
        rights.grants(Rights::WRITE)
    }

    /// Whether a subscription to this filter can ever bring a message that may be read.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        if self.scope == Scope::Free {
            return true;
        }
        let mut granted = false;
        let mut allows = |line: &str, rights: Rights| {
            granted |= rights.grants(Rights::READ) && overlap(line, filter);
            !(rights.denies() && covers(line, filter))
        };
        let patterns = self.patterns.iter().filter_map(|line| match &self.names {
            Some(names) => names.put_into(line),
            None => Some(line.clone()),
        });
        let allowed = self.own.lines().all(|(line, rights)| allows(line, rights))
            && patterns.into_iter().all(|line| allows(&line.filter, line.rights));
        allowed && granted
    }

    fn rights(&self, topic: &str) -> Rights {
        let of_lines = self.wild(topic).map(|line| line.rights);
        of_lines.fold(self.own.exact(topic), Rights::with)
    }

    /// The lines about this topic, those without a wildcard apart.
    fn wild(&self, topic: &str) -> impl Iterator<Item = &Line> {
        let own = self.own.wild.iter().filter(move |line| matches(&line.filter, topic));
        let patterns = self.patterns.iter().filter(move |line| match &self.names {
            Some(names) => names.fit(line, topic),
            None => matches(&line.filter, topic),
        });
        own.chain(patterns)
    }
}
