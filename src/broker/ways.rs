//! What was found for a message of QoS 0 that goes from hand to hand, kept for the next one like it.
//!
//! Who may publish to a topic, and who takes what is published there, is the same from message to message until
//! somebody subscribes, comes, goes, or the rules change: then every way is closed. A way is kept once a topic is
//! seen a second time, where its publisher and all who take it are network clients without a mount point, and nobody
//! keeps it, counts by credit, or is to be sent more or less than its publisher has said.

use std::hash::{BuildHasher as _, Hasher as _};

use bytestring::ByteString;
use foldhash::fast::FixedState;

use super::connection::Phase;
use super::{Broker, ConnectionId, Taker};
use crate::codec::QoS;
use crate::record::{Message, Now};
use crate::router::Match;

/// Who takes what one connection publishes to one topic.
#[derive(Debug)]
pub struct Way {
    /// Each is sent the bytes of its publisher's packet, in the order of this list.
    pub takers: Vec<ConnectionId>,
    /// The topic.
    pub topic: ByteString,
    publisher: ConnectionId,
    /// The state of the house that it was found in.
    as_of: u64,
    mark: u32,
}

/// The ways that are kept: one for each mark, which several topics may have.
pub(super) struct Ways {
    slots: Vec<Slot>,
    hash: FixedState,
    /// How often all were closed, by what is no subscription.
    closed: u64,
    /// Topics that were seen where another was seen before, since there last was room for more.
    crowded: usize,
    /// Bytes that they take, slots apart.
    pub(super) weight: usize,
    /// Bytes that both may take: slots a quarter of it.
    most: usize,
}

#[derive(Debug, Default)]
struct Slot {
    way: Option<Box<Way>>,
    /// The topic that was seen last and has no way; it gets one when it is seen once more.
    seen: u32,
}

impl Broker {
    /// Takes a message of QoS 0 that goes the way of one before it: it is counted, and its bytes are to be sent to each
    /// taker. `None`: it is to be handled like any other. The way is to be given back.
    #[inline]
    pub fn set_out(&mut self, id: ConnectionId, topic: &[u8], payload: usize, now: &Now) -> Option<Box<Way>> {
        let as_of = self.as_of();
        let connection = self.connections.get_mut(id)?;
        // Of who waits for a commit it is to be known whether he has said all that he may.
        if !matches!(connection.phase, Phase::Open) || connection.rhythm.waits() {
            return None;
        }
        let way = self.ways.take(id, topic, as_of)?;
        connection.heard = now.mono;
        let (copies, bytes) = (way.takers.len() as u64, payload as u64);
        self.counters.received += 1;
        self.counters.received_bytes += bytes;
        self.counters.sent += copies;
        self.counters.sent_bytes += copies * bytes;
        Some(way)
    }

    /// Whether such a message would go the way of one before it.
    pub fn knows_way(&self, id: ConnectionId, topic: &[u8]) -> bool {
        self.ways.knows(id, topic, self.as_of())
    }

    /// The message has gone: the way is there for the next one.
    #[inline]
    pub fn come_back(&mut self, way: Box<Way>) {
        self.ways.put(way);
    }

    /// Grows with whatever may change where a message goes.
    fn as_of(&self) -> u64 {
        self.router.changes() + self.ways.closed
    }

    /// Keeps what was found for a message, if the next one like it can go the same way.
    pub(super) fn learn_way(&mut self, source: Option<u32>, message: &Message, matches: &[Match]) {
        let is_plain = message.qos == QoS::AtMostOnce
            && !message.unclocked
            && message.expiry.is_none()
            && message.topic.len() <= TOPIC_BYTES_MAX;
        if !is_plain || matches.len() > TAKERS_MAX || self.config.limits.max_publish_rate.is_some() {
            return;
        }
        let Some(publisher) = self.plain_publisher(source) else { return };
        let topic = message.topic.as_bytes();
        let as_of = self.as_of();
        let Some(mark) = self.ways.due(publisher, topic, as_of) else { return };
        let Some(takers) = self.plain_takers(matches) else { return };
        self.ways.keep(Way { takers, topic: ByteString::from(&*message.topic), publisher, as_of, mark });
    }

    /// The connection of a publisher whose topics are as the house names them.
    fn plain_publisher(&self, source: Option<u32>) -> Option<ConnectionId> {
        let client = self.clients.in_slot(source?)?;
        let connection = self.connections.get(client.connection?)?;
        let is_plain = !connection.is_port() && connection.peer.terms.mount.is_none();
        is_plain.then_some(connection.id)
    }

    /// The connections of those who take it in its publisher's own words; `None` where somebody does not.
    fn plain_takers(&self, matches: &[Match]) -> Option<Vec<ConnectionId>> {
        let mut takers = Vec::with_capacity(matches.len());
        for found in matches {
            let Taker::Client(slot) = self.taker(found.subscriber) else { return None };
            // Who is not here misses it.
            let Some(outlet) = self.clients.in_slot(slot)?.outlet.as_ref() else { continue };
            let is_plain = outlet.credit.is_none()
                && outlet.mount.is_none()
                && outlet.maximum_packet_size == u32::MAX
                && found.identifiers.is_empty();
            if !is_plain {
                return None;
            }
            takers.push(outlet.connection);
        }
        Some(takers)
    }
}

impl Ways {
    /// None yet; they never take more bytes than that.
    pub(super) fn new(seed: u64, most: usize) -> Ways {
        let most = most.min(BYTES_MAX);
        Ways { slots: Vec::new(), hash: FixedState::with_seed(seed), closed: 0, crowded: 0, weight: 0, most }
    }

    /// What a message finds may be something else from now on.
    pub(super) fn close(&mut self) {
        self.closed += 1;
    }

    /// Bytes that ways and slots take.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.weight + self.slots.len() * size_of::<Slot>()
    }

    fn mark(&self, publisher: ConnectionId, topic: &[u8]) -> u32 {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u64(u64::from(publisher.slot) << 32 | u64::from(publisher.generation));
        hasher.write(topic);
        // Half of it is as good, and 0 stands for none.
        (hasher.finish() >> 32) as u32 | 1
    }

    fn place(&self, mark: u32) -> usize {
        (mark >> 1) as usize & self.slots.len().wrapping_sub(1)
    }

    fn slot(&mut self, mark: u32) -> Option<&mut Slot> {
        let place = self.place(mark);
        self.slots.get_mut(place)
    }

    fn knows(&self, publisher: ConnectionId, topic: &[u8], as_of: u64) -> bool {
        let place = self.place(self.mark(publisher, topic));
        let way = self.slots.get(place).and_then(|slot| slot.way.as_ref());
        way.is_some_and(|way| way.is_for(publisher, topic, as_of))
    }

    fn take(&mut self, publisher: ConnectionId, topic: &[u8], as_of: u64) -> Option<Box<Way>> {
        if self.slots.is_empty() {
            return None;
        }
        let mark = self.mark(publisher, topic);
        let slot = self.slot(mark)?;
        let way = slot.way.take_if(|way| way.is_for(publisher, topic, as_of))?;
        slot.seen = 0;
        Some(way)
    }

    fn put(&mut self, way: Box<Way>) {
        if let Some(slot) = self.slot(way.mark) {
            slot.way = Some(way);
        }
    }

    /// The mark of a topic that is to have a way: it has none, and was the last that was seen in its place. From now
    /// on it was.
    fn due(&mut self, publisher: ConnectionId, topic: &[u8], as_of: u64) -> Option<u32> {
        if self.slots.is_empty() && self.has_room_for(SLOTS_MIN) {
            self.slots.resize_with(SLOTS_MIN, Slot::default);
        }
        let mark = self.mark(publisher, topic);
        let slot = self.slot(mark)?;
        if slot.way.as_ref().is_some_and(|way| way.is_for(publisher, topic, as_of)) {
            return None;
        }
        let former = std::mem::replace(&mut slot.seen, mark);
        self.crowded += usize::from(former != mark && former != 0);
        if self.crowded > self.slots.len() && self.has_room_for(self.slots.len() * 4) {
            self.grow();
        }
        (former == mark).then_some(mark)
    }

    fn keep(&mut self, way: Way) {
        let most = self.most / 4 * 3;
        if way.weight() > most {
            return;
        }
        if self.weight + way.weight() > most {
            self.slots.iter_mut().for_each(|slot| slot.way = None);
            self.weight = 0;
        }
        self.settle(Box::new(way));
    }

    /// Gives a way its place.
    fn settle(&mut self, way: Box<Way>) {
        let weight = way.weight();
        let Some(slot) = self.slot(way.mark) else { return };
        slot.seen = 0;
        let former = slot.way.replace(way);
        self.weight += weight;
        self.weight -= former.map_or(0, |former| former.weight());
    }

    fn has_room_for(&self, slots: usize) -> bool {
        slots * size_of::<Slot>() <= self.most / 4
    }

    fn grow(&mut self) {
        let more = self.slots.len() * 4;
        let ways: Vec<Box<Way>> = self.slots.drain(..).filter_map(|slot| slot.way).collect();
        self.slots.resize_with(more, Slot::default);
        (self.crowded, self.weight) = (0, 0);
        for way in ways {
            self.settle(way);
        }
    }
}

impl Way {
    fn is_for(&self, publisher: ConnectionId, topic: &[u8], as_of: u64) -> bool {
        self.as_of == as_of && self.publisher == publisher && self.topic.as_bytes() == topic
    }

    fn weight(&self) -> usize {
        size_of::<Way>() + self.topic.len() + self.takers.capacity() * size_of::<ConnectionId>()
    }
}

/// A longer topic has no way.
const TOPIC_BYTES_MAX: usize = 512;

/// Nor has one that more take.
const TAKERS_MAX: usize = 4_096;

/// Slots at first, and at any time a power of four.
const SLOTS_MIN: usize = 256;

/// Bytes that all take, however much memory there is.
const BYTES_MAX: usize = 2 << 20;
