//! Topic aliases that are given on one connection: which topics get one, and whose place they take.
//!
//! A topic gets a number when it is first sent, while there are free ones. After that a hand goes round
//! over the numbers, one at each message that has none, and takes the first that was not used for long:
//! so topics that come often keep theirs, however many others come once. What is sent is the caller's to
//! decide: [`Aliases::look`] changes nothing, [`Aliases::sent`] says that the bytes will leave.

use std::collections::BTreeMap;

use bytestring::ByteString;

/// The aliases of one connection, outward.
#[derive(Debug)]
pub struct Aliases {
    /// Numbers that the peer takes. [MQTT5-3.1.2-26]
    most: u16,
    numbers: BTreeMap<ByteString, u16>,
    /// By number, from 1.
    places: Vec<Place>,
    /// The place that is next looked at.
    hand: usize,
    /// Messages sent.
    messages: u64,
    /// Bytes of all topics.
    bytes: usize,
}

#[derive(Debug)]
struct Place {
    topic: ByteString,
    /// Which message used it last.
    used: u64,
}

/// How a PUBLISH names its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alias {
    /// By name.
    #[default]
    None,
    /// By name, and the number stands for it from now on.
    Gives(u16),
    /// By number.
    Stands(u16),
}

impl Alias {
    /// The number.
    pub fn number(self) -> Option<u16> {
        match self {
            Alias::None => None,
            Alias::Gives(number) | Alias::Stands(number) => Some(number),
        }
    }
}

impl Aliases {
    /// None given yet; at most so many.
    pub fn new(most: u16) -> Aliases {
        Aliases { most, numbers: BTreeMap::new(), places: Vec::new(), hand: 0, messages: 0, bytes: 0 }
    }

    /// Bytes that they take, about.
    pub fn held(&self) -> usize {
        self.bytes + self.places.len() * PLACE_BYTES
    }

    /// How the next message names this topic.
    pub fn look(&self, topic: &str) -> Alias {
        if topic.len() <= PROPERTY_BYTES {
            return Alias::None;
        }
        if let Some(number) = self.numbers.get(topic) {
            return Alias::Stands(*number);
        }
        let Some(taken) = self.place_for_another() else { return Alias::None };
        let freed = self.places.get(usize::from(taken) - 1).map_or(0, |place| place.topic.len());
        if self.bytes - freed + topic.len() > TOPICS_BYTES_MAX {
            return Alias::None;
        }
        Alias::Gives(taken)
    }

    /// A message of this topic leaves, named as [`Aliases::look`] said or by name.
    pub fn sent(&mut self, topic: &str, alias: Alias) {
        self.messages += 1;
        let used = self.messages;
        match alias {
            Alias::Stands(number) => {
                if let Some(place) = self.places.get_mut(usize::from(number) - 1) {
                    place.used = used;
                }
            }
            Alias::Gives(number) => {
                // Its own bytes: it must not keep the buffer in which the topic came.
                let topic = ByteString::from(topic);
                self.bytes += topic.len();
                self.numbers.insert(topic.clone(), number);
                let place = Place { topic, used };
                match self.places.get_mut(usize::from(number) - 1) {
                    Some(known) => {
                        let former = std::mem::replace(known, place);
                        self.bytes -= former.topic.len();
                        self.numbers.remove(&former.topic);
                        self.go_round();
                    }
                    None => self.places.push(place),
                }
            }
            Alias::None => self.go_round(),
        }
    }

    fn place_for_another(&self) -> Option<u16> {
        if self.places.len() < usize::from(self.most) {
            return u16::try_from(self.places.len() + 1).ok();
        }
        let idle = self.messages - self.places.get(self.hand)?.used;
        (idle >= u64::from(self.most) * IDLE_ROUNDS).then(|| u16::try_from(self.hand + 1).ok())?
    }

    fn go_round(&mut self) {
        self.hand = (self.hand + 1) % self.places.len().max(1);
    }
}

/// What the alias itself takes: a topic that is no longer gains nothing.
const PROPERTY_BYTES: usize = 3;

/// What a place and its entry in the map take beside the topic.
const PLACE_BYTES: usize = 128;

/// Bytes of topics that one connection remembers; a topic that would be over it is sent by name.
const TOPICS_BYTES_MAX: usize = 4_096;

/// A number is taken away when it was not used for so many messages, times the numbers that there are.
const IDLE_ROUNDS: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn send(aliases: &mut Aliases, topic: &str) -> Alias {
        let alias = aliases.look(topic);
        aliases.sent(topic, alias);
        alias
    }

    #[test]
    fn a_topic_is_named_once_and_then_by_its_number() {
        let mut aliases = Aliases::new(2);
        let said: Vec<Alias> =
            ["up/a", "up/b", "up/a", "up/c"].iter().map(|topic| send(&mut aliases, topic)).collect();
        assert_eq!(said, [Alias::Gives(1), Alias::Gives(2), Alias::Stands(1), Alias::None]);
        assert_eq!(send(&mut Aliases::new(0), "up/a"), Alias::None);
    }

    #[test]
    fn what_did_not_leave_is_not_remembered() {
        let mut aliases = Aliases::new(2);
        assert_eq!(aliases.look("up/a"), Alias::Gives(1));
        assert_eq!(send(&mut aliases, "up/b"), Alias::Gives(1));
        assert_eq!(aliases.look("up/a"), Alias::Gives(2));
    }

    #[test]
    fn a_short_topic_is_cheaper_by_name() {
        assert_eq!(send(&mut Aliases::new(9), "a/b"), Alias::None);
    }

    #[test]
    fn topics_that_come_often_keep_their_numbers() {
        let mut aliases = Aliases::new(2);
        let mut known: BTreeMap<u16, String> = BTreeMap::new();
        let mut by_number = 0;
        for round in 0..1_000 {
            for topic in ["often/1".to_owned(), "often/2".to_owned(), format!("once/{round}")] {
                match send(&mut aliases, &topic) {
                    Alias::Gives(number) => drop(known.insert(number, topic)),
                    Alias::Stands(number) => {
                        assert_eq!(known.get(&number), Some(&topic));
                        by_number += 1;
                    }
                    Alias::None => {}
                }
            }
        }
        assert_eq!(by_number, 1_998);
    }

    #[test]
    fn a_number_that_is_no_longer_used_is_given_to_another() {
        let mut aliases = Aliases::new(2);
        for topic in ["old/1", "old/2"] {
            send(&mut aliases, topic);
        }
        let mut given = 0;
        for _ in 0..100 {
            for topic in ["new/1", "new/2"] {
                given += usize::from(matches!(send(&mut aliases, topic), Alias::Gives(_)));
            }
        }
        assert_eq!(given, 2);
        assert_eq!(aliases.look("old/1"), Alias::None);
        assert_eq!(aliases.numbers.len(), 2);
    }

    #[test]
    fn long_topics_are_not_remembered_without_end() {
        let mut aliases = Aliases::new(100);
        for round in 0..10_000 {
            send(&mut aliases, &format!("{}/{round}", "x".repeat(round % 2_000)));
        }
        assert!(aliases.bytes <= TOPICS_BYTES_MAX);
        assert_eq!(aliases.bytes, aliases.places.iter().map(|place| place.topic.len()).sum::<usize>());
        assert!(aliases.held() > aliases.bytes && Aliases::new(100).held() == 0);
    }
}
