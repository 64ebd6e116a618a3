//! Subscriptions by filter, and who of them wants a topic.
//!
//! Filters without a wildcard are found by one look into a map, whatever their number; the others hang
//! in a tree of levels whose edges are one map for the whole tree. A subscriber with several matching
//! filters is found once, with the highest QoS and every identifier. What is found is put into a list
//! that the caller reuses.

use std::hash::{Hash, Hasher};

use bytestring::ByteString;
use foldhash::quality::FixedState;
use hashbrown::{Equivalent, HashMap};

use crate::codec::{QoS, octets};
use crate::record::Identifiers;

/// A number for whoever subscribes; small and dense, given by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subscriber(pub u32);

/// How a subscription wants its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// Highest QoS.
    pub qos: QoS,
    /// Not the subscriber's own messages.
    pub no_local: bool,
    /// RETAIN stays as it was published.
    pub retain_as_published: bool,
    /// Subscription identifier.
    pub identifier: Option<u32>,
    /// Where in a topic `$` hides it from the filter: behind the mount point of a client whose own words begin
    /// with a wildcard there. 0 for others, whose topics begin where the tree does.
    pub dollar_at: u16,
}

/// One subscriber that wants the topic, over all its filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Who.
    pub subscriber: Subscriber,
    /// The highest QoS among its matching filters.
    pub qos: QoS,
    /// Whether one of them keeps RETAIN as published.
    pub retain_as_published: bool,
    /// Their identifiers.
    pub identifiers: Identifiers,
}

/// Every subscription.
pub struct Router {
    /// Every list of entries is sorted by subscriber.
    exact: HashMap<ByteString, Vec<Entry>, FixedState>,
    edges: HashMap<Edge, u32, FixedState>,
    nodes: Vec<Node>,
    free: Vec<u32>,
    /// Wildcard subscriptions; the tree is not walked while there is none.
    wildcards: usize,
    total: usize,
    /// Bytes of the filters' texts.
    text: usize,
    stamps: Vec<Stamp>,
    turn: u64,
    /// Places of the tree that were looked at so far.
    looks: u64,
    /// How often a message might go elsewhere from then on.
    changes: u64,
}

/// Marks where in the list a subscriber already stands, so that no set is needed.
#[derive(Debug, Clone, Copy, Default)]
struct Stamp {
    turn: u64,
    place: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    subscriber: Subscriber,
    interest: Interest,
}

/// What an entry is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    /// Its subscriber had none there.
    New,
    /// It is in place of another.
    Other,
    /// It was there.
    Same,
}

#[derive(Debug, Default)]
struct Node {
    parent: u32,
    level: ByteString,
    /// Filters that end here.
    ends: Vec<Entry>,
    /// Filters that end in `#` below here.
    multi: Vec<Entry>,
    plus: Option<u32>,
    /// Those with a name, and the one of `+`.
    children: u32,
}

#[derive(Debug, PartialEq, Eq)]
struct Edge {
    parent: u32,
    level: ByteString,
}

struct EdgeRef<'a> {
    parent: u32,
    level: &'a [u8],
}

impl Hash for Edge {
    fn hash<H: Hasher>(&self, state: &mut H) {
        EdgeRef { parent: self.parent, level: self.level.as_bytes() }.hash(state);
    }
}

impl Hash for EdgeRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.parent);
        // It ends there, so no byte has to say where.
        state.write(self.level);
    }
}

impl Equivalent<Edge> for EdgeRef<'_> {
    fn equivalent(&self, edge: &Edge) -> bool {
        self.parent == edge.parent && *self.level == *edge.level.as_bytes()
    }
}

impl Router {
    /// Empty; the seed keeps clients from choosing names that collide.
    pub fn new(seed: u64) -> Router {
        Router {
            exact: HashMap::with_hasher(FixedState::with_seed(seed)),
            edges: HashMap::with_hasher(FixedState::with_seed(seed.rotate_left(32))),
            nodes: vec![Node::default()],
            free: Vec::new(),
            wildcards: 0,
            total: 0,
            text: 0,
            stamps: Vec::new(),
            turn: 0,
            looks: 0,
            changes: 0,
        }
    }

    /// How many places of the tree were looked at so far: what all matching has cost.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// How often what a topic leads to may have changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.total
    }

    /// Bytes that all subscriptions take, about; a level that several filters share is there once.
    pub fn weight(&self) -> usize {
        // The root is always there.
        let nodes = self.nodes.len() - self.free.len() - 1;
        self.text + self.total * ENTRY_BYTES + self.exact.len() * EXACT_BYTES + nodes * NODE_BYTES
    }

    /// What one subscription takes where nobody shares any of it: all together take no more than their sum.
    pub fn weight_alone(filter: &str) -> usize {
        if is_exact(filter) {
            return filter.len() + EXACT_BYTES + ENTRY_BYTES;
        }
        let levels = filter.split('/').filter(|level| *level != "#");
        levels.map(|level| level.len() + NODE_BYTES).sum::<usize>() + ENTRY_BYTES
    }

    /// Whether nobody subscribes to anything.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Adds a subscription, or replaces the one of this subscriber with this filter; true where it is new.
    pub fn subscribe(&mut self, filter: &ByteString, subscriber: Subscriber, interest: Interest) -> bool {
        let entry = Entry { subscriber, interest };
        let put = if is_exact(filter) {
            match self.exact.get_mut(&**filter) {
                Some(entries) => put(entries, entry),
                None => {
                    self.text += filter.len();
                    self.exact.insert(ByteString::from(&**filter), vec![entry]);
                    Put::New
                }
            }
        } else {
            let (node, multi) = self.reach(filter);
            let put = self.entries(node, multi).map_or(Put::Same, |entries| put(entries, entry));
            self.wildcards += usize::from(put == Put::New);
            put
        };
        self.changes += u64::from(put != Put::Same);
        self.total += usize::from(put == Put::New);
        put == Put::New
    }

    /// Takes a subscription back; false where there was none.
    pub fn unsubscribe(&mut self, filter: &str, subscriber: Subscriber) -> bool {
        let gone = if is_exact(filter) {
            let Some(entries) = self.exact.get_mut(filter) else { return false };
            let gone = take(entries, subscriber);
            if entries.is_empty() {
                self.exact.remove(filter);
                self.text -= filter.len();
            }
            gone
        } else {
            let Some((node, multi)) = self.find(filter) else { return false };
            let gone = self.entries(node, multi).is_some_and(|entries| take(entries, subscriber));
            self.wildcards -= usize::from(gone);
            self.prune(node);
            gone
        };
        self.changes += u64::from(gone);
        self.total -= usize::from(gone);
        gone
    }

    /// Whether this subscriber has a subscription with this filter.
    pub fn has(&self, filter: &str, subscriber: Subscriber) -> bool {
        let entries = if is_exact(filter) {
            self.exact.get(filter)
        } else {
            self.find(filter).and_then(|(node, multi)| {
                let node = self.nodes.get(node as usize)?;
                Some(match multi {
                    Multi::Yes => &node.multi,
                    Multi::No => &node.ends,
                })
            })
        };
        entries.is_some_and(|entries| place(entries, subscriber).is_ok())
    }

    /// Fills `found` with everybody who wants the topic when `publisher` publishes it.
    pub fn matches(&mut self, topic: &str, publisher: Option<Subscriber>, found: &mut Vec<Match>) {
        found.clear();
        let exact = self.exact.get(topic).map_or(&[][..], Vec::as_slice);
        if self.wildcards == 0 {
            // Nobody stands in one list twice.
            let wanted = exact.iter().filter(|entry| entry.is_for(topic, publisher));
            return found.extend(wanted.map(Match::from));
        }
        self.turn += 1;
        let mut finder =
            Finder { turn: self.turn, topic, publisher, stamps: &mut self.stamps, found, looks: 0 };
        finder.take(exact);
        walk(&self.nodes, &self.edges, ROOT, topic.as_bytes(), &mut finder);
        self.looks += finder.looks;
    }

    fn entries(&mut self, node: u32, multi: Multi) -> Option<&mut Vec<Entry>> {
        let node = self.nodes.get_mut(node as usize)?;
        Some(match multi {
            Multi::Yes => &mut node.multi,
            Multi::No => &mut node.ends,
        })
    }

    fn find(&self, filter: &str) -> Option<(u32, Multi)> {
        let mut node = ROOT;
        for level in filter.split('/') {
            node = match level {
                "#" => return Some((node, Multi::Yes)),
                "+" => self.nodes.get(node as usize)?.plus?,
                level => *self.edges.get(&EdgeRef { parent: node, level: level.as_bytes() })?,
            };
        }
        Some((node, Multi::No))
    }

    fn reach(&mut self, filter: &str) -> (u32, Multi) {
        let mut node = ROOT;
        for level in filter.split('/') {
            if level == "#" {
                return (node, Multi::Yes);
            }
            let next = match level {
                "+" => self.nodes.get(node as usize).and_then(|node| node.plus),
                level => self.edges.get(&EdgeRef { parent: node, level: level.as_bytes() }).copied(),
            };
            node = next.unwrap_or_else(|| self.grow(node, level));
        }
        (node, Multi::No)
    }

    fn grow(&mut self, parent: u32, level: &str) -> u32 {
        self.text += level.len();
        let level = ByteString::from(level);
        let node = Node { parent, level: level.clone(), ..Node::default() };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.nodes.push(Node::default());
                u32::try_from(self.nodes.len() - 1).expect("subscriptions fit into memory, so into 32 bits")
            }
        };
        if let Some(place) = self.nodes.get_mut(index as usize) {
            *place = node;
        }
        if let Some(parent) = self.nodes.get_mut(parent as usize) {
            parent.children += 1;
            if &*level == "+" {
                parent.plus = Some(index);
                return index;
            }
        }
        self.edges.insert(Edge { parent, level }, index);
        index
    }

    /// Removes a node that serves nothing, and those above it that then serve nothing either.
    fn prune(&mut self, mut index: u32) {
        while index != ROOT {
            let Some(node) = self.nodes.get_mut(index as usize) else { return };
            if node.children > 0 || !node.ends.is_empty() || !node.multi.is_empty() {
                return;
            }
            let Node { parent, level, .. } = std::mem::take(node);
            self.free.push(index);
            self.text -= level.len();
            if let Some(above) = self.nodes.get_mut(parent as usize) {
                above.children -= 1;
                if &*level == "+" {
                    above.plus = None;
                } else {
                    self.edges.remove(&EdgeRef { parent, level: level.as_bytes() });
                }
            }
            index = parent;
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Multi {
    Yes,
    No,
}

struct Finder<'a> {
    turn: u64,
    topic: &'a str,
    publisher: Option<Subscriber>,
    stamps: &'a mut Vec<Stamp>,
    found: &'a mut Vec<Match>,
    looks: u64,
}

impl Finder<'_> {
    #[inline]
    fn take(&mut self, entries: &[Entry]) {
        for entry in entries {
            if entry.is_for(self.topic, self.publisher) {
                self.add(entry);
            }
        }
    }

    fn add(&mut self, entry: &Entry) {
        let index = entry.subscriber.0 as usize;
        if self.stamps.len() <= index {
            self.stamps.resize(index + 1, Stamp::default());
        }
        let Some(stamp) = self.stamps.get_mut(index) else { return };
        if stamp.turn == self.turn {
            // [MQTT5-3.3.4-2] [MQTT311-3.3.5-1] [MQTT5-3.3.4-4]
            if let Some(seen) = self.found.get_mut(stamp.place) {
                let interest = &entry.interest;
                seen.qos = seen.qos.max(interest.qos);
                seen.retain_as_published |= interest.retain_as_published;
                interest.identifier.into_iter().for_each(|identifier| seen.identifiers.push(identifier));
            }
            return;
        }
        *stamp = Stamp { turn: self.turn, place: self.found.len() };
        self.found.push(Match::from(entry));
    }
}

impl Entry {
    /// Whether it wants this topic of its filter's.
    fn is_for(&self, topic: &str, publisher: Option<Subscriber>) -> bool {
        let Entry { subscriber, interest } = self;
        // [MQTT5-3.8.3-3]
        let is_own = interest.no_local && publisher == Some(*subscriber);
        // [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
        let is_hidden =
            interest.dollar_at > 0 && topic.as_bytes().get(usize::from(interest.dollar_at)) == Some(&b'$');
        !is_own && !is_hidden
    }
}

impl From<&Entry> for Match {
    fn from(entry: &Entry) -> Match {
        Match {
            subscriber: entry.subscriber,
            qos: entry.interest.qos,
            retain_as_published: entry.interest.retain_as_published,
            identifiers: entry.interest.identifier.into_iter().collect(),
        }
    }
}

/// `path` is what is left of the topic below the node. Depth is bounded by the levels of the topic.
fn walk(
    nodes: &[Node],
    edges: &HashMap<Edge, u32, FixedState>,
    at: u32,
    path: &[u8],
    finder: &mut Finder<'_>,
) {
    let Some(node) = nodes.get(at as usize) else { return };
    // [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
    let hidden = at == ROOT && path.starts_with(b"$");
    if !hidden {
        finder.take(&node.multi);
    }
    let end = octets::find(b'/', path);
    let level = path.get(..end.unwrap_or(path.len())).unwrap_or_default();
    let rest = end.and_then(|end| path.get(end + 1..));
    let mut go_on = |next: u32| {
        finder.looks += 1;
        match (rest, nodes.get(next as usize)) {
            (Some(rest), _) => walk(nodes, edges, next, rest, finder),
            (None, Some(last)) => {
                finder.take(&last.ends);
                finder.take(&last.multi);
            }
            (None, None) => {}
        }
    };
    // Where no child has a name, no name is looked for.
    let named = node.children > u32::from(node.plus.is_some());
    if named && let Some(next) = edges.get(&EdgeRef { parent: at, level }) {
        go_on(*next);
    }
    if !hidden && let Some(next) = node.plus {
        go_on(next);
    }
}

fn is_exact(filter: &str) -> bool {
    !filter.bytes().any(|byte| byte == b'+' || byte == b'#')
}

fn put(entries: &mut Vec<Entry>, entry: Entry) -> Put {
    match place(entries, entry.subscriber) {
        Ok(known) => match entries.get_mut(known).filter(|known| **known != entry) {
            Some(known) => {
                *known = entry;
                Put::Other
            }
            None => Put::Same,
        },
        Err(place) => {
            entries.insert(place, entry);
            Put::New
        }
    }
}

fn take(entries: &mut Vec<Entry>, subscriber: Subscriber) -> bool {
    let place = place(entries, subscriber);
    place.map(|place| entries.remove(place)).is_ok()
}

/// Where a subscriber stands, or would stand: thousands may have one filter.
fn place(entries: &[Entry], subscriber: Subscriber) -> Result<usize, usize> {
    entries.binary_search_by(|known| {
        look();
        known.subscriber.cmp(&subscriber)
    })
}

/// A subscriber of a filter is looked at, as it comes or leaves.
fn look() {
    #[cfg(test)]
    LOOKED.with(|count| count.set(count.get() + 1));
}

#[cfg(test)]
thread_local! {
    /// Looks of this thread.
    pub(crate) static LOOKED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

const ROOT: u32 = 0;

/// What one subscriber to a filter takes.
const ENTRY_BYTES: usize = 32;
/// What a filter without a wildcard takes beside its text: its place in the map, and a list.
const EXACT_BYTES: usize = 96;
/// What a level of the others takes beside its text: a node, its edge, and their lists.
const NODE_BYTES: usize = 192;

#[cfg(test)]
mod tests {
    use super::super::filter;
    use super::*;
    use proptest::prelude::*;

    fn interest(qos: QoS) -> Interest {
        Interest { qos, no_local: false, retain_as_published: false, identifier: None, dollar_at: 0 }
    }

    fn found(router: &mut Router, topic: &str) -> Vec<u32> {
        let mut list = Vec::new();
        router.matches(topic, None, &mut list);
        let mut list: Vec<u32> = list.iter().map(|found| found.subscriber.0).collect();
        list.sort_unstable();
        list
    }

    // [MQTT5-3.3.4-2] [MQTT5-3.3.4-3] [MQTT5-3.3.4-4] [MQTT311-3.3.5-1]
    #[test]
    fn overlapping_filters_of_one_subscriber_are_found_once() {
        let mut router = Router::new(1);
        for (filter, qos, identifier) in
            [("a/b", QoS::AtMostOnce, 1), ("a/+", QoS::ExactlyOnce, 2), ("#", QoS::AtLeastOnce, 3)]
        {
            let interest = Interest { identifier: Some(identifier), ..interest(qos) };
            assert!(router.subscribe(&filter.into(), Subscriber(7), interest));
        }
        let mut list = Vec::new();
        router.matches("a/b", None, &mut list);
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].qos, QoS::ExactlyOnce);
        let mut identifiers = list[0].identifiers.to_vec();
        identifiers.sort_unstable();
        assert_eq!(identifiers, [1, 2, 3]);
    }

    #[test]
    fn what_is_taken_back_weighs_nothing_and_what_is_shared_weighs_once() {
        let mut router = Router::new(1);
        let empty = router.weight();
        let filters = ["a/b/c", "+/#", "long/name/+/x", "long/name/+/y/#", "$share/x/+"];
        for filter in filters {
            let before = router.weight();
            router.subscribe(&filter.into(), Subscriber(1), interest(QoS::AtMostOnce));
            let first = router.weight() - before;
            assert!(first >= filter.len(), "{filter}");
            let mut alone = Router::new(1);
            alone.subscribe(&filter.into(), Subscriber(1), interest(QoS::AtMostOnce));
            assert_eq!(Router::weight_alone(filter), alone.weight(), "{filter}");
            assert!(first <= alone.weight(), "{filter}");
            let changes = router.changes();
            router.subscribe(&filter.into(), Subscriber(1), interest(QoS::AtLeastOnce));
            assert_eq!(router.weight() - before, first, "{filter}: replaced");
            router.subscribe(&filter.into(), Subscriber(1), interest(QoS::AtLeastOnce));
            assert_eq!(router.changes() - changes, 1, "{filter}: said again");
            router.subscribe(&filter.into(), Subscriber(2), interest(QoS::AtMostOnce));
            assert_eq!(router.weight() - before, first + ENTRY_BYTES, "{filter}: shared");
        }
        for filter in filters {
            for subscriber in [1, 2] {
                assert!(router.unsubscribe(filter, Subscriber(subscriber)));
            }
        }
        assert_eq!(router.weight(), empty);
    }

    // [MQTT5-3.8.3-3]
    #[test]
    fn no_local_spares_the_publisher_alone() {
        let mut router = Router::new(1);
        let local = Interest { no_local: true, ..interest(QoS::AtMostOnce) };
        router.subscribe(&"a".into(), Subscriber(1), local);
        router.subscribe(&"a".into(), Subscriber(2), local);
        let mut list = Vec::new();
        router.matches("a", Some(Subscriber(1)), &mut list);
        assert_eq!(list.iter().map(|found| found.subscriber.0).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn the_tree_shrinks_to_nothing() {
        let mut router = Router::new(1);
        for filter in ["a/+/c", "a/+/#", "#", "+", "a/b", "x/y/z/+"] {
            router.subscribe(&filter.into(), Subscriber(1), interest(QoS::AtMostOnce));
        }
        for filter in ["a/+/c", "a/+/#", "#", "+", "a/b", "x/y/z/+"] {
            assert!(router.unsubscribe(filter, Subscriber(1)), "{filter}");
            assert!(!router.unsubscribe(filter, Subscriber(1)), "{filter}");
        }
        assert!(router.is_empty() && router.edges.is_empty() && router.exact.is_empty());
        assert_eq!(router.free.len() + 1, router.nodes.len());
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just(""), Just("$c")]
    }

    fn filters() -> impl Strategy<Value = String> {
        let wild = prop_oneof![4 => level(), 2 => Just("+"), 1 => Just("#")];
        proptest::collection::vec(wild, 1..5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        // [MQTT5-3.3.2-3] [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.2-1] [MQTT311-3.3.2-3]
        // [MQTT311-4.7.1-2] [MQTT311-4.7.1-3] [MQTT311-4.7.2-1]
        #[test]
        fn the_tree_agrees_with_the_rule(
            changes in proptest::collection::vec((any::<bool>(), 0_u32..6, filters()), 0..60),
            topics in proptest::collection::vec(proptest::collection::vec(level(), 1..5), 1..20),
            seed in any::<u64>(),
        ) {
            let mut router = Router::new(seed);
            let mut naive: Vec<(u32, String)> = Vec::new();
            for (add, subscriber, filter) in changes {
                if filter::check_filter(&filter).is_err() {
                    continue;
                }
                let known = naive.iter().position(|known| known.0 == subscriber && known.1 == filter);
                if add {
                    let before = router.changes();
                    let new = router.subscribe(&filter.as_str().into(), Subscriber(subscriber), interest(QoS::AtMostOnce));
                    prop_assert_eq!(router.changes() > before, new);
                    prop_assert_eq!(new, known.is_none());
                    if new {
                        naive.push((subscriber, filter));
                    }
                } else {
                    let before = router.changes();
                    prop_assert_eq!(router.unsubscribe(&filter, Subscriber(subscriber)), known.is_some());
                    prop_assert_eq!(router.changes() > before, known.is_some());
                    known.map(|place| naive.remove(place));
                }
            }
            prop_assert_eq!(router.len(), naive.len());
            for topic in topics {
                let topic = topic.join("/");
                let mut expected: Vec<u32> =
                    naive.iter().filter(|known| filter::matches(&known.1, &topic)).map(|known| known.0).collect();
                expected.sort_unstable();
                expected.dedup();
                prop_assert_eq!(found(&mut router, &topic), expected, "{}", topic);
            }
        }
    }
}
