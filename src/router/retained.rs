//! The last retained message of each topic, as a tree of levels.
//!
//! Read in chunks: a walk says where it stopped and goes on from there, whatever has changed in between,
//! so that a broad filter never needs all its messages at once. Expiry is the caller's to judge.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytestring::ByteString;

use super::filter::split_level;
use crate::record::Message;

/// Retained messages by topic.
#[derive(Default)]
pub struct Retained {
    root: Node,
    count: usize,
    weight: usize,
}

#[derive(Default)]
struct Node {
    message: Option<Arc<Message>>,
    children: BTreeMap<ByteString, Node>,
}

impl Retained {
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
        self.weight += message.weight();
        let mut node = &mut self.root;
        for level in message.topic.split('/') {
            if !node.children.contains_key(level) {
                self.weight += place_weight(level, node.children.len());
                node.children.insert(ByteString::from(level), Node::default());
            }
            node = node.children.get_mut(level).expect("the level stands or was just inserted");
        }
        match node.message.replace(message) {
            Some(former) => self.weight -= former.weight(),
            None => self.count += 1,
        }
    }

    /// Forgets a topic's message; false where there was none.
    pub fn clear(&mut self, topic: &str) -> bool {
        let Some(gone) = clear(&mut self.root, topic, &mut self.weight) else { return false };
        self.count -= 1;
        self.weight -= gone.weight();
        true
    }

    /// The message of one topic.
    pub fn of(&self, topic: &str) -> Option<&Arc<Message>> {
        let mut node = &self.root;
        for level in topic.split('/') {
            node = node.children.get(level)?;
        }
        node.message.as_ref()
    }

    /// The first `limit` messages under the filter that come after the topic `after`, in the order of
    /// the tree.
    pub fn find(&self, filter: &str, after: Option<&str>, limit: usize) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        if limit > 0 {
            let from = after.map_or(From::Here, |topic| From::After(Some(topic)));
            let mut walk = Walk { found: &mut found, limit };
            walk.filtered(&self.root, filter, from, true);
        }
        found
    }
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
    found: &'a mut Vec<Arc<Message>>,
    limit: usize,
}

impl Walk<'_> {
    fn full(&self) -> bool {
        self.found.len() >= self.limit
    }

    fn take(&mut self, node: &Node, from: From<'_>) {
        if let (From::Here, Some(message), false) = (from, &node.message, self.full()) {
            self.found.push(message.clone());
        }
    }

    /// The node is where `path` of the filter starts.
    fn filtered(&mut self, node: &Node, path: &str, from: From<'_>, root: bool) {
        let (wanted, rest) = split_level(path);
        match wanted {
            "#" => self.all(node, from, root),
            "+" => self.children(node, from, root, |walk, child, from| walk.ended(child, rest, from)),
            level => {
                let Some(child) = node.children.get(level) else { return };
                let from = match from {
                    From::After(Some(place)) => match split_level(place) {
                        (head, _) if head < level => From::Here,
                        (head, below) if head == level => From::After(below),
                        _ => return,
                    },
                    From::Here | From::After(None) => From::Here,
                };
                self.ended(child, rest, from);
            }
        }
    }

    /// The filter may end at this node.
    fn ended(&mut self, node: &Node, rest: Option<&str>, from: From<'_>) {
        match rest {
            Some(rest) => self.filtered(node, rest, from, false),
            None => self.take(node, from),
        }
    }

    fn all(&mut self, node: &Node, from: From<'_>, root: bool) {
        self.take(node, from);
        self.children(node, from, root, |walk, child, from| walk.all(child, from, false));
    }

    fn children(
        &mut self,
        node: &Node,
        from: From<'_>,
        root: bool,
        mut visit: impl FnMut(&mut Self, &Node, From<'_>),
    ) {
        let start = match from {
            From::After(Some(place)) => split_level(place),
            From::Here | From::After(None) => ("", None),
        };
        for (level, child) in node.children.range::<str, _>((Bound::Included(start.0), Bound::Unbounded)) {
            if self.full() {
                return;
            }
            // [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
            if root && level.starts_with('$') {
                continue;
            }
            let inside = matches!(from, From::After(Some(_))) && **level == *start.0;
            visit(self, child, if inside { From::After(start.1) } else { From::Here });
        }
    }
}

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
        fn a_walk_in_chunks_finds_what_the_rule_says(
            topics in proptest::collection::vec(proptest::collection::vec(level(), 1..5), 0..40),
            cleared in proptest::collection::vec(proptest::collection::vec(level(), 1..5), 0..10),
            filter in proptest::collection::vec(prop_oneof![4 => level(), 2 => Just("+"), 1 => Just("#")], 1..5),
            chunk in 1_usize..5,
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
            let mut found: Vec<String> = Vec::new();
            loop {
                let more = retained.find(&filter, found.last().map(String::as_str), chunk);
                if more.is_empty() {
                    break;
                }
                found.extend(more.iter().map(|message| message.topic.to_string()));
            }
            let mut sorted = found.clone();
            sorted.sort();
            let expected: Vec<String> = naive.into_iter().filter(|topic| filter::matches(&filter, topic)).collect();
            prop_assert_eq!(sorted, expected);
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
