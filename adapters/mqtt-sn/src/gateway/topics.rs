//! The topic ids of one client.
//!
//! Ids are the client's own: what another client calls 1 is another topic. Knows for each id whether the
//! client was told, so that a REGISTER goes ahead of the first PUBLISH, and under which form a topic was
//! subscribed, so that its messages come under the same. The table has a limit in ids and in octets; ids
//! that only a wildcard brought make room for others, the longest unused first.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::TopicId;

#[derive(Debug, Default)]
pub(super) struct Topics {
    by_id: BTreeMap<u16, Entry>,
    by_name: BTreeMap<Arc<str>, u16>,
    /// How plain topics were subscribed; at most as many as there may be ids.
    subscribed: BTreeMap<String, Form>,
    memory: Memory,
    last_id: u16,
    uses: u64,
    /// Of all names together.
    octets: usize,
}

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    known: Known,
    origin: Origin,
    /// Value of `uses` when it was last used.
    used: u64,
}

/// What the client knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Told,
    Untold,
    /// It refused the REGISTER.
    Declined,
}

/// Who wanted an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The client, by REGISTER or SUBSCRIBE: stays until the session ends.
    Client,
    /// A message that matches a wildcard: may make room.
    Match,
}

/// How a client subscribed to a plain topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Name,
    Predefined(u16),
    Short,
}

/// Whether all subscriptions of the session were made before our eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Memory {
    #[default]
    Whole,
    /// The broker kept a session that we do not remember: a restart lies between.
    Partial,
}

/// How a message for a topic goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Send(TopicId),
    /// The client must first be told this id.
    Register(u16),
    /// The client does not want it.
    Declined,
    /// There is no id left.
    Full,
}

impl Topics {
    /// The topic of an id that was assigned to this client.
    pub(super) fn name(&self, id: u16) -> Option<&str> {
        self.by_id.get(&id).map(|entry| &*entry.name)
    }

    /// The id of a topic, a new one where it has none. // [SN-6.5] The same name has the same id.
    pub(super) fn assign(&mut self, name: &str, origin: Origin, limit: usize) -> Option<u16> {
        self.uses += 1;
        if let Some(&id) = self.by_name.get(name) {
            if let Some(entry) = self.by_id.get_mut(&id) {
                entry.used = self.uses;
                if origin == Origin::Client {
                    entry.origin = Origin::Client;
                }
            }
            return Some(id);
        }
        while self.by_id.len() >= limit || self.octets + name.len() > OCTETS_MAX {
            self.evict()?;
        }
        self.octets += name.len();
        let id = self.free_id();
        let name: Arc<str> = name.into();
        self.by_name.insert(Arc::clone(&name), id);
        self.by_id.insert(id, Entry { name, known: Known::Untold, origin, used: self.uses });
        Some(id)
    }

    /// The client knows this id now.
    pub(super) fn tell(&mut self, id: u16) {
        self.mark(id, Known::Told);
    }

    /// The client does not want the topic of this id. // [SN-6.10]
    pub(super) fn decline(&mut self, id: u16) {
        self.mark(id, Known::Declined);
    }

    /// Takes an id back that the client was never told.
    pub(super) fn retract(&mut self, id: u16) {
        if self.by_id.get(&id).is_some_and(|entry| entry.known == Known::Untold) {
            self.remove(id);
        }
    }

    /// The client does not know this topic as we thought: it is registered before the next message.
    pub(super) fn distrust(&mut self, topic: TopicId, name: &str) {
        match topic {
            TopicId::Normal(id) => self.mark(id, Known::Untold),
            _ => {
                self.subscribed.insert(name.to_owned(), Form::Name);
            }
        }
    }

    /// [SN-6.5] After a reconnection ids are told again before they are used.
    pub(super) fn forget_told(&mut self) {
        for entry in self.by_id.values_mut() {
            entry.known = Known::Untold;
        }
    }

    /// The broker has a session that was not made before our eyes.
    pub(super) fn memory_is_partial(&mut self) {
        self.memory = Memory::Partial;
    }

    /// The broker has no subscription of this client.
    pub(super) fn forget_subscriptions(&mut self) {
        self.subscribed.clear();
        self.memory = Memory::Whole;
    }

    /// Notes how a plain topic is subscribed; `Err` where there is no room.
    pub(super) fn subscribe(&mut self, name: &str, form: Form, limit: usize) -> Result<(), NoRoom> {
        if self.subscribed.len() >= limit && !self.subscribed.contains_key(name) {
            return Err(NoRoom);
        }
        self.subscribed.insert(name.to_owned(), form);
        Ok(())
    }

    /// Whether it was subscribed.
    pub(super) fn unsubscribe(&mut self, name: &str) -> Option<Form> {
        self.subscribed.remove(name)
    }

    /// How a message for this topic goes out.
    pub(super) fn route(&mut self, name: &str, predefined: &BTreeMap<u16, String>, limit: usize) -> Route {
        match self.subscribed.get(name) {
            // [SN-6.7] Under the form under which it was subscribed.
            Some(Form::Predefined(id)) => return Route::Send(TopicId::Predefined(*id)),
            Some(Form::Name) => {}
            Some(Form::Short) | None => {
                if let Some(topic) = self.unregistered(name, predefined) {
                    return Route::Send(topic);
                }
            }
        }
        let Some(id) = self.assign(name, Origin::Match, limit) else { return Route::Full };
        match self.by_id.get(&id).map(|entry| entry.known) {
            Some(Known::Told) => Route::Send(TopicId::Normal(id)),
            Some(Known::Declined) => Route::Declined,
            Some(Known::Untold) | None => Route::Register(id),
        }
    }

    /// The form that needs no REGISTER, for a topic that the client does not call by an id.
    fn unregistered(&self, name: &str, predefined: &BTreeMap<u16, String>) -> Option<TopicId> {
        let told = self.by_name.get(name).and_then(|id| self.by_id.get(id));
        if told.is_some_and(|entry| entry.known != Known::Untold) {
            return None;
        }
        if let Ok(short) = <[u8; 2]>::try_from(name.as_bytes()) {
            return Some(TopicId::Short(short));
        }
        // A client that uses predefined ids may not understand REGISTER; one that does not know the id
        // refuses it, and is then told another.
        if self.memory == Memory::Partial {
            let known = predefined.iter().find(|(_, topic)| *topic == name);
            return known.map(|(id, _)| TopicId::Predefined(*id));
        }
        None
    }

    fn mark(&mut self, id: u16, known: Known) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.known = known;
        }
    }

    /// Makes room; `None` where every id is one that the client asked for.
    fn evict(&mut self) -> Option<()> {
        let matches = self.by_id.iter().filter(|(_, entry)| entry.origin == Origin::Match);
        let oldest = matches.min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id)?;
        self.remove(oldest);
        Some(())
    }

    fn remove(&mut self, id: u16) {
        if let Some(entry) = self.by_id.remove(&id) {
            self.by_name.remove(&entry.name);
            self.octets -= entry.name.len();
        }
    }

    /// The next id that is not in use; there is one, since the limit is below their number.
    fn free_id(&mut self) -> u16 {
        loop {
            // [SN-5.3.11] 0x0000 and 0xFFFF are reserved.
            self.last_id = if self.last_id >= LAST_ID { FIRST_ID } else { self.last_id + 1 };
            if !self.by_id.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    pub(super) fn is_consistent(&self, limit: usize) -> bool {
        self.by_id.len() == self.by_name.len()
            && self.by_id.len() <= limit
            && self.octets <= OCTETS_MAX
            && self.octets == self.by_name.keys().map(|name| name.len()).sum::<usize>()
            && self.by_name.iter().all(|(name, id)| self.name(*id) == Some(name))
            && !self.by_id.contains_key(&0)
            && !self.by_id.contains_key(&u16::MAX)
    }
}

/// The table of subscriptions is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

/// Octets of one client's topic names. Beyond: as with the limit of ids.
const OCTETS_MAX: usize = 16 * 1_024;

const FIRST_ID: u16 = 0x0001;
const LAST_ID: u16 = 0xFFFE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_are_reserved_ones_and_come_round() {
        let mut topics = Topics { last_id: LAST_ID - 1, ..Topics::default() };
        assert_eq!(topics.assign("a", Origin::Client, 9), Some(LAST_ID));
        assert_eq!(topics.assign("b", Origin::Client, 9), Some(FIRST_ID));
        assert_eq!(topics.assign("a", Origin::Client, 9), Some(LAST_ID));
    }

    #[test]
    fn a_full_table_gives_up_the_longest_unused_match_and_nothing_else() {
        let none = BTreeMap::new();
        let mut topics = Topics::default();
        topics.assign("mine", Origin::Client, 3);
        assert_eq!(topics.route("one", &none, 3), Route::Register(2));
        assert_eq!(topics.route("two", &none, 3), Route::Register(3));
        assert_eq!(topics.route("one", &none, 3), Route::Register(2));
        assert_eq!(topics.route("three", &none, 3), Route::Register(4));
        assert_eq!(topics.name(3), None);
        assert_eq!(topics.name(2), Some("one"));
        assert_eq!(topics.assign("four", Origin::Client, 3), Some(5));
        assert_eq!(topics.assign("five", Origin::Client, 3), Some(6));
        assert_eq!(topics.assign("six", Origin::Client, 3), None);
        assert_eq!(topics.route("seven", &none, 3), Route::Full);
        assert!(topics.is_consistent(3));
    }

    #[test]
    fn names_have_a_limit_in_octets() {
        let mut topics = Topics::default();
        let name = |number: u8| format!("{number}{}", "x".repeat(8_191));
        assert_eq!(topics.route(&name(1), &BTreeMap::new(), 9), Route::Register(1));
        assert_eq!(topics.assign(&name(2), Origin::Client, 9), Some(2));
        assert_eq!(topics.assign(&name(3), Origin::Client, 9), Some(3));
        assert_eq!(topics.assign(&name(4), Origin::Client, 9), None);
        assert_eq!((topics.name(1), topics.octets), (None, OCTETS_MAX));
        assert!(topics.is_consistent(9));
    }

    #[test]
    fn a_forgotten_session_is_served_by_predefined_ids_until_they_are_refused() {
        let predefined = BTreeMap::from([(7, "long/name".to_owned())]);
        let mut topics = Topics::default();
        topics.memory_is_partial();
        assert_eq!(topics.route("long/name", &predefined, 9), Route::Send(TopicId::Predefined(7)));
        topics.distrust(TopicId::Predefined(7), "long/name");
        assert_eq!(topics.route("long/name", &predefined, 9), Route::Register(1));
    }
}
