//! The last retained message of each topic, as a tree of levels.
//!
//! Read step by step: a walk says where it stopped and goes on from there, whatever has changed in between.
//! So a broad filter never needs all its messages at once, and one that matches little never the whole tree.
//! Which one runs out of time next is known, and the caller's to act on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytestring::ByteString;

use super::filter::split_level;
use crate::record::{Mend, Message};

/// Retained messages by topic.
#[derive(Default)]
pub struct Retained {
    root: Node,
    count: usize,
    weight: usize,
    size: usize,
    /// When those that expire do, in the house's time.
    expiring: BTreeSet<(u64, ByteString)>,
    mend: Mend,
}

#[derive(Default)]
struct Node {
    message: Option<Arc<Message>>,
    children: BTreeMap<ByteString, Node>,
}

impl Retained {
    /// Nothing is retained; `mend` is what is known of stamps.
    pub fn new(mend: Mend) -> Retained {
        Retained { mend, ..Retained::default() }
    }

    /// Stamps say something else from now on.
    pub fn mend(&mut self, mend: Mend) {
        self.mend = mend;
        for (_, topic) in std::mem::take(&mut self.expiring) {
            if let Some(due) = self.of(&topic).and_then(|message| self.due(message)) {
                self.expiring.insert((due, topic));
            }
        }
    }

    /// When the next one runs out of time, in the house's time.
    pub fn next_due(&self) -> Option<u64> {
        self.expiring.first().map(|(due, _)| *due)
    }

    /// The topic of one that has by this time.
    pub fn next_expired(&self, house: u64) -> Option<ByteString> {
        self.expiring.first().filter(|(due, _)| *due <= house).map(|(_, topic)| topic.clone())
    }

    fn due(&self, message: &Message) -> Option<u64> {
        let millis = u64::from(message.expiry?) * 1_000;
        Some(self.mend.stamp(message.received).saturating_add(millis))
    }

    /// What a message weighs among them, without the places of its topic.
    pub fn weight_of(message: &Message) -> usize {
        message.weight() + if message.expiry.is_some() { EXPIRY_BYTES } else { 0 }
    }

    /// Bytes of all of them on disk, about.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many messages are retained.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is retained.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of all of them and of their places.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// What the places of a topic would take that are not there yet.
    pub fn places_for(&self, topic: &str) -> usize {
        let mut node = Some(&self.root);
        let places = topic.split('/').map(|level| {
            let others = node.map_or(0, |node| node.children.len());
            node = node.and_then(|node| node.children.get(level));
            if node.is_some() { 0 } else { place_weight(level, others) }
        });
        places.sum()
    }

    /// Retains a message in place of its topic's last one.
    pub fn set(&mut self, message: Arc<Message>) {
        self.weight += Retained::weight_of(&message);
        self.size += message.size_retained();
        let expires = self.due(&message);
        self.expiring.extend(expires.map(|due| (due, message.topic.clone())));
        let mut node = &mut self.root;
        for level in message.topic.split('/') {
            if !node.children.contains_key(level) {
                self.weight += place_weight(level, node.children.len());
                node.children.insert(ByteString::from(level), Node::default());
            }
            node = node.children.get_mut(level).expect("the level stands or was just inserted");
        }
        match node.message.replace(message) {
            Some(former) => self.forget(&former, expires),
            None => self.count += 1,
        }
    }

    /// Forgets a topic's message; false where there was none.
    pub fn clear(&mut self, topic: &str) -> bool {
        let Some(gone) = clear(&mut self.root, topic, &mut self.weight) else { return false };
        self.count -= 1;
        self.forget(&gone, None);
        true
    }

    /// A message is not there any more; one that expires then has taken its place, if any does.
    fn forget(&mut self, gone: &Message, then: Option<u64>) {
        self.weight -= Retained::weight_of(gone);
        self.size -= gone.size_retained();
        if let Some(due) = self.due(gone)
            && then != Some(due)
        {
            self.expiring.remove(&(due, gone.topic.clone()));
        }
    }

    /// The message of one topic.
    pub fn of(&self, topic: &str) -> Option<&Arc<Message>> {
        let mut node = &self.root;
        for level in topic.split('/') {
            node = node.children.get(level)?;
        }
        node.message.as_ref()
    }

    /// One step of a walk: the next message under the filter that comes after the place `after`, in the
    /// order of the tree. `looks` is how many levels' places may be looked at, and is left with what the step
    /// did not need; those on the way back to `after` count, and one more is looked at in any case.
    pub fn find(&self, filter: &str, after: Option<&str>, looks: &mut u32) -> Found {
        let from = after.map_or(From::Here, |place| From::After(Some(place)));
        let mut walk = Walk { trail: Vec::new(), looks, gone_on: false };
        match walk.filtered(&self.root, 0, filter, from) {
            ControlFlow::Break(found) => found,
            ControlFlow::Continue(()) => Found::Nothing,
        }
    }
}

/// What a step of a walk has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The next message; the walk goes on after its topic.
    Message(Arc<Message>),
    /// It has looked at as much as it may, and goes on after this place.
    Pause(ByteString),
    /// There is no other.
    Nothing,
}

/// Takes a topic's message; places that nobody needs any more go, and their weight.
fn clear(node: &mut Node, path: &str, weight: &mut usize) -> Option<Arc<Message>> {
    let (level, rest) = split_level(path);
    let child = node.children.get_mut(level)?;
    let gone = match rest {
        Some(rest) => clear(child, rest, weight),
        None => child.message.take(),
    };
    if child.message.is_none() && child.children.is_empty() {
        node.children.remove(level);
        *weight -= place_weight(level, node.children.len());
    }
    gone
}

/// Bytes of a level's place beside so many others: the first one brings room for more.
fn place_weight(level: &str, others: usize) -> usize {
    level.len() + if others == 0 { FIRST_PLACE_BYTES } else { PLACE_BYTES }
}

/// Where a walk goes on, seen from a node.
#[derive(Clone, Copy)]
enum From<'a> {
    /// With the node itself.
    Here,
    /// After the place so far below the node; `None` is the node itself.
    After(Option<&'a str>),
}

struct Walk<'a> {
    /// The levels of the place that was looked at last.
    trail: Vec<&'a str>,
    looks: &'a mut u32,
    /// Whether a place was looked at that is not on the way back.
    gone_on: bool,
}

/// Breaks with what was found; depth is bounded by the levels of the filter and of a topic.
type Go = ControlFlow<Found>;

impl<'a> Walk<'a> {
    /// The node, `depth` levels below the root, is where `path` of the filter starts.
    fn filtered(&mut self, node: &'a Node, depth: usize, path: &str, from: From<'_>) -> Go {
        let (wanted, rest) = split_level(path);
        match wanted {
            "#" => self.all(node, depth, from),
            "+" => {
                self.children(node, depth, from, |walk, child, from| walk.ended(child, depth + 1, rest, from))
            }
            wanted => {
                let Some((level, child)) = node.children.get_key_value(wanted) else {
                    return Go::Continue(());
                };
                let from = match from {
                    From::After(Some(place)) => match split_level(place) {
                        (head, _) if head < wanted => From::Here,
                        (head, below) if head == wanted => From::After(below),
                        _ => return Go::Continue(()),
                    },
                    From::Here | From::After(None) => From::Here,
                };
                self.step(level, depth, from)?;
                self.ended(child, depth + 1, rest, from)
            }
        }
    }

    /// The filter may end at this node.
    fn ended(&mut self, node: &'a Node, depth: usize, rest: Option<&str>, from: From<'_>) -> Go {
        match rest {
            Some(rest) => self.filtered(node, depth, rest, from),
            None => take(node, from),
        }
    }

    fn all(&mut self, node: &'a Node, depth: usize, from: From<'_>) -> Go {
        take(node, from)?;
        self.children(node, depth, from, |walk, child, from| walk.all(child, depth + 1, from))
    }

    fn children(
        &mut self,
        node: &'a Node,
        depth: usize,
        from: From<'_>,
        mut visit: impl FnMut(&mut Self, &'a Node, From<'_>) -> Go,
    ) -> Go {
        let place = match from {
            From::After(Some(place)) => Some(split_level(place)),
            From::Here | From::After(None) => None,
        };
        let start = Bound::Included(place.map_or("", |(head, _)| head));
        for (level, child) in node.children.range::<str, _>((start, Bound::Unbounded)) {
            let from = match place {
                Some((head, below)) if **level == *head => From::After(below),
                _ => From::Here,
            };
            self.step(level, depth, from)?;
            // [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
            if depth > 0 || !level.starts_with('$') {
                visit(self, child, from)?;
            }
        }
        Go::Continue(())
    }

    /// Comes to a place below one of this depth, if it still may.
    fn step(&mut self, level: &'a str, depth: usize, from: From<'_>) -> Go {
        if let From::Here = from {
            if *self.looks == 0 && self.gone_on {
                return Go::Break(Found::Pause(self.trail.join("/").into()));
            }
            self.gone_on = true;
        }
        *self.looks = self.looks.saturating_sub(1);
        self.trail.truncate(depth);
        self.trail.push(level);
        Go::Continue(())
    }
}

/// Breaks with a node's message, unless that is one of those before.
fn take(node: &Node, from: From<'_>) -> Go {
    match (from, &node.message) {
        (From::Here, Some(message)) => Go::Break(Found::Message(message.clone())),
        _ => Go::Continue(()),
    }
}

/// What it takes to know when a message expires, about.
const EXPIRY_BYTES: usize = 64;

/// What a node of the map takes, about.
const FIRST_PLACE_BYTES: usize = 720;

/// What one more entry takes, about.
const PLACE_BYTES: usize = 100;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::filter;
    use super::*;
    use crate::codec::{Properties, QoS};

    fn message(topic: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: Bytes::from_static(b"x"),
            qos: QoS::AtMostOnce,
            retain: true,
            properties: Properties::new(),
            expiry: None,
            received: 0,
            unclocked: false,
        })
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just(""), Just("$c")]
    }

    proptest! {
        #[test]
        fn a_walk_in_steps_finds_what_the_rule_says(
            topics in proptest::collection::vec(proptest::collection::vec(level(), 1..5), 0..40),
            cleared in proptest::collection::vec(proptest::collection::vec(level(), 1..5), 0..10),
            filter in proptest::collection::vec(prop_oneof![4 => level(), 2 => Just("+"), 1 => Just("#")], 1..5),
            looks in 1_u32..9,
        ) {
            let filter = filter.join("/");
            prop_assume!(filter::check_filter(&filter).is_ok());
            let mut retained = Retained::default();
            let mut naive = std::collections::BTreeSet::new();
            for topic in topics {
                let topic = topic.join("/");
                let former = retained.of(&topic).map_or(0, |former| former.weight());
                let expected =
                    retained.weight() - former + message(&topic).weight() + retained.places_for(&topic);
                retained.set(message(&topic));
                prop_assert_eq!(retained.weight(), expected, "known before it is there");
                naive.insert(topic);
            }
            for topic in cleared {
                let topic = topic.join("/");
                prop_assert_eq!(retained.clear(&topic), naive.remove(&topic));
            }
            prop_assert_eq!(retained.len(), naive.len());
            let mut fresh = Retained::default();
            naive.iter().for_each(|topic| fresh.set(message(topic)));
            prop_assert_eq!(retained.weight(), fresh.weight(), "what has gone weighs nothing");
            let messages: usize = naive.iter().map(|topic| message(topic).weight()).sum();
            prop_assert!(retained.weight() >= messages);
            prop_assert_eq!(retained.weight() > 0, !naive.is_empty());
            let mut found = walk(&retained, &filter, looks);
            prop_assert_eq!(&found, &walk(&retained, &filter, u32::MAX), "in one order");
            found.sort();
            let expected: Vec<String> = naive.into_iter().filter(|topic| filter::matches(&filter, topic)).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_walk_finds_what_stays_once_whatever_comes_and_goes(
            stays in proptest::collection::btree_set(topic(), 1..20),
            moves in proptest::collection::vec((any::<bool>(), topic()), 1..60),
            filter in prop_oneof![Just("#"), Just("+/+"), Just("+/a/#"), Just("a/#"), Just("a/+/b"), Just("+/b")],
            looks in 1_u32..6,
        ) {
            let mut retained = Retained::default();
            stays.iter().for_each(|topic| retained.set(message(topic)));
            let mut moves = moves.into_iter();
            let mut found = Vec::new();
            let mut after = None;
            while let Some(place) = step(&retained, filter, after, looks, &mut found) {
                match moves.next() {
                    Some((true, topic)) => retained.set(message(&topic)),
                    Some((false, topic)) if !stays.contains(&topic) => drop(retained.clear(&topic)),
                    _ => {}
                }
                after = Some(place);
            }
            let mut once = found.clone();
            once.sort();
            once.dedup();
            prop_assert_eq!(once.len(), found.len(), "{:?}", found);
            for topic in stays {
                prop_assert_eq!(filter::matches(filter, &topic), once.contains(&topic), "{}", topic);
            }
        }
    }

    fn topic() -> impl Strategy<Value = String> {
        proptest::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/"))
    }

    fn walk(retained: &Retained, filter: &str, looks: u32) -> Vec<String> {
        let (mut found, mut after) = (Vec::new(), None);
        while let Some(place) = step(retained, filter, after, looks, &mut found) {
            after = Some(place);
        }
        found
    }

    /// One step; where the next goes on.
    fn step(
        retained: &Retained,
        filter: &str,
        after: Option<ByteString>,
        looks: u32,
        found: &mut Vec<String>,
    ) -> Option<ByteString> {
        match retained.find(filter, after.as_deref(), &mut { looks }) {
            Found::Message(message) => {
                found.push(message.topic.to_string());
                Some(message.topic.clone())
            }
            Found::Pause(place) => Some(place),
            Found::Nothing => None,
        }
    }

    #[test]
    fn a_step_looks_at_no_more_than_it_may() {
        let mut retained = Retained::default();
        for number in 0..100 {
            retained.set(message(&format!("$hidden{number}")));
            retained.set(message(&format!("a/{number:02}/b/c")));
        }
        for (filter, places) in [("+/+/b/d", 301), ("a/+/x", 101), ("#", 401), ("b", 0), ("a/07/b/c/d", 4)] {
            let (mut after, mut steps, mut looked) = (None, 0, 0);
            loop {
                let mut looks = 10;
                let found = retained.find(filter, after.as_deref(), &mut looks);
                steps += 1;
                looked += 10 - looks;
                after = match found {
                    Found::Message(message) => Some(message.topic.clone()),
                    Found::Pause(place) => Some(place),
                    Found::Nothing => break,
                };
            }
            // The way back is at most four levels.
            assert!(looked >= places && looked <= places + 4 * steps, "{filter}: {looked} in {steps}");
            assert!(steps > places / 10, "{filter}: {looked} in {steps}");
        }
    }

    #[test]
    fn only_the_last_message_of_a_topic_is_kept() {
        let mut retained = Retained::default();
        retained.set(message("a/b"));
        retained.set(message("a/b"));
        assert_eq!(
            (retained.len(), retained.of("a/b").is_some(), retained.of("a").is_some()),
            (1, true, false)
        );
        assert!(retained.clear("a/b") && !retained.clear("a/b") && retained.is_empty());
        assert!(retained.root.children.is_empty());
    }
}
