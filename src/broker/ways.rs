//! What was found for a message that goes from hand to hand, kept for the next one like it.
//!
//! Who may publish to a topic, and who takes what is published there, is the same from message to message until
//! somebody subscribes, comes, goes, or the rules change: then every way is closed. A way is kept once a topic is
//! seen a second time, where its publisher and all who take it are network clients without a mount point, and nobody
//! keeps it, counts by credit, or is to be sent more or less than its publisher has said. At QoS 1 and 2 only who is
//! answered at once goes it; his message waits for a taker whose window is full.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use bytestring::ByteString;
use foldhash::fast::FixedState;

use super::client::Client;
use super::connection::Connection;
use super::fan::NOBODY;
use super::publish::INWARD_BYTES;
use super::{Broker, ConnectionId, Effect, Taker, Turn};
use crate::codec::{Plain, QoS, Version};
use crate::record::{Identifiers, Message, Now, Seq, Ticket, Want};
use crate::router::Match;
use crate::session::{Parcel, Stage, Verbatim, Waited, weight_of};

/// Who takes what one connection publishes to one topic at one QoS.
#[derive(Debug)]
pub struct Way {
    /// Each is sent what its publisher has said, in the order of this list.
    pub legs: Box<[Leg]>,
    topic: Box<str>,
    publisher: ConnectionId,
    qos: QoS,
    /// The state of the house that it was found in.
    as_of: u64,
    mark: u32,
}

/// The end of a way at one taker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// The taker.
    pub connection: ConnectionId,
    /// Its session.
    client: u32,
    /// The exchange of the message that goes there now; 0 at QoS 0, and where it waits.
    pub packet_id: u16,
    /// How surely it is sent.
    pub qos: QoS,
}

/// A message that has waited and is to be sent.
#[derive(Debug)]
pub struct Due<'a> {
    /// Its publisher's words.
    pub plain: Plain<'a>,
    /// The version that they are said in.
    pub version: Version,
    /// When it came, on the house's clock.
    pub received: u64,
    /// To whom it goes.
    pub leg: Leg,
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
    /// Takes a message that goes the way of one before it: it is counted, its exchanges are begun, and it is to be
    /// sent to each taker and answered. `None`: it is to be handled like any other. The way is to be given back.
    #[inline]
    pub fn set_out(&mut self, id: ConnectionId, plain: &Plain<'_>, now: &Now) -> Option<Box<Way>> {
        let as_of = self.as_of();
        let connection = self.connections.get_mut(id).filter(|connection| connection.is_at_ease())?;
        connection.heard = now.mono;
        let version = connection.version;
        if !self.is_answered_at_once(id, plain) {
            return None;
        }
        let mut way = self.ways.take(id, plain, as_of)?;
        let mut copies = way.legs.len() as u64;
        if plain.qos > QoS::AtMostOnce {
            if !self.have_room(&way, plain) {
                self.ways.put(way);
                return None;
            }
            copies -= self.begin(&mut way, plain, version, now);
        }
        if plain.qos == QoS::ExactlyOnce {
            self.hold_at_once(id, plain.packet_id);
        }
        let bytes = plain.payload.len() as u64;
        self.counters.received += 1;
        self.counters.received_bytes += bytes;
        self.counters.sent += copies;
        self.counters.sent_bytes += copies * bytes;
        Some(way)
    }

    /// Whether such a message would go the way of one before it.
    pub fn knows_way(&self, id: ConnectionId, plain: &Plain<'_>) -> bool {
        self.connections.get(id).is_some_and(Connection::is_at_ease)
            && self.is_answered_at_once(id, plain)
            && self.ways.knows(id, plain, self.as_of())
    }

    /// Whether what a client publishes is not held back, and answered at once if at all.
    #[inline]
    fn is_answered_at_once(&self, id: ConnectionId, plain: &Plain<'_>) -> bool {
        plain.qos == QoS::AtMostOnce
            || self.connections.get(id).is_some_and(|connection| {
                connection.answers.is_empty()
                    && !self.refused.contains_key(&id)
                    && !self.is_too_many(connection, plain.qos)
                    && (plain.qos == QoS::AtLeastOnce || self.is_new_to(connection, plain.packet_id))
            })
    }

    /// Whether this packet id of QoS 2 is not held for a client that has no place in the log.
    fn is_new_to(&self, connection: &Connection, packet_id: u16) -> bool {
        let session = connection.client.and_then(|key| self.clients.get(key)).map(|client| &client.session);
        session.is_some_and(|session| session.backlog.is_none() && session.inward.of(packet_id).is_none())
    }

    /// Whether each taker can be sent a message, or has room for it to wait.
    fn have_room(&self, way: &Way, plain: &Plain<'_>) -> bool {
        let weight = weight_of(plain);
        way.exchanges().all(|leg| {
            let Some(client) = self.clients.in_slot(leg.client) else { return false };
            let waiting = client.session.line.weight();
            client.outlet.is_some() && waiting + weight <= self.config.limits.max_send_buffer
        })
    }

    /// Begins the exchanges of a message; where one cannot begin now, the message waits. How many do.
    fn begin(&mut self, way: &mut Way, plain: &Plain<'_>, version: Version, now: &Now) -> u64 {
        let mut message: Option<Arc<Message>> = None;
        let mut waiting = 0;
        let Way { legs, topic, .. } = way;
        for leg in legs.iter_mut().filter(|leg| leg.qos > QoS::AtMostOnce) {
            let Some(Client { session, outlet: Some(outlet), .. }) = self.clients.in_slot_mut(leg.client)
            else {
                continue;
            };
            let is_ready = session.line.is_empty() && outlet.has_room(&session.flight);
            let begun = if is_ready { session.flight.begin(Seq(0), leg.qos, Stage::Sent) } else { None };
            leg.packet_id = begun.map_or(0, |exchange| exchange.packet_id);
            if is_ready {
                continue;
            }
            waiting += 1;
            self.memory.queues += if plain.bytes.len() <= VERBATIM_BYTES_MAX {
                let verbatim = Verbatim { version, qos: leg.qos, received: now.house };
                session.line.push_verbatim(plain, verbatim)
            } else {
                let message = message
                    .get_or_insert_with(|| {
                        Arc::new(Message::of_plain(ByteString::from(&**topic), plain, now.house))
                    })
                    .clone();
                session.line.push(Parcel { message, want: want_of(leg.qos) })
            };
        }
        waiting
    }

    /// The next message that waits for a client, where it does so in its publisher's words, which are put in place of
    /// `words`, and is to be sent now. `None` when there is no other: what else there is room for is an effect by then.
    pub fn take_waiting<'a>(
        &mut self,
        id: ConnectionId,
        words: &'a mut Vec<u8>,
        now: &Now,
        effects: &mut Vec<Effect>,
    ) -> Option<Due<'a>> {
        let key = self.connections.get(id)?.client?;
        let Client { session, outlet: Some(outlet), .. } = self.clients.get_mut(key)? else { return None };
        if session.line.is_empty() || !outlet.has_room(&session.flight) {
            return None;
        }
        if !session.line.is_next_verbatim() {
            self.pump(key, &mut Turn::of_words(now, effects));
            return None;
        }
        let (Waited::Verbatim(verbatim), weight) = session.line.pop(words)? else { return None };
        self.memory.queues -= weight;
        let plain = Plain::read(words, verbatim.version, usize::MAX)?;
        let exchange = session.flight.begin(Seq(0), verbatim.qos, Stage::Sent)?;
        let leg = Leg { connection: id, client: key.slot, packet_id: exchange.packet_id, qos: verbatim.qos };
        self.counters.sent += 1;
        self.counters.sent_bytes += plain.payload.len() as u64;
        let Verbatim { version, received, .. } = verbatim;
        Some(Due { plain, version, received, leg })
    }

    /// Remembers the packet id of a publisher of QoS 2, who is answered with PUBREC.
    fn hold_at_once(&mut self, id: ConnectionId, packet_id: u16) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.unanswered += 1;
        if let Some(client) = connection.client.and_then(|key| self.clients.get_mut(key))
            && client.session.inward.hold(packet_id, Ticket::default())
        {
            self.memory.inward += INWARD_BYTES;
        }
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
        let is_plain =
            !message.unclocked && message.expiry.is_none() && message.topic.len() <= TOPIC_BYTES_MAX;
        if !is_plain || matches.len() > LEGS_MAX || self.config.limits.max_publish_rate.is_some() {
            return;
        }
        let Some(publisher) = self.plain_publisher(source, message.qos, matches) else { return };
        let topic = message.topic.as_bytes();
        let as_of = self.as_of();
        let Some(mark) = self.ways.due(publisher, message.qos, topic, as_of) else { return };
        let Some(legs) = self.plain_legs(message.qos, matches) else { return };
        let topic = (&*message.topic).into();
        self.ways.keep(Way { legs, topic, publisher, qos: message.qos, as_of, mark });
    }

    /// The connection of a publisher whose topics are as the house names them, and who is answered in the fewest
    /// words.
    fn plain_publisher(&self, source: Option<u32>, qos: QoS, matches: &[Match]) -> Option<ConnectionId> {
        let client = self.clients.in_slot(source?)?;
        let connection = self.connections.get(client.connection?)?;
        let is_plain = !connection.is_port() && connection.peer.terms.mount.is_none();
        // In MQTT 5 it is told that there is nobody, if it takes an answer at all.
        let is_told = connection.version == Version::V5 && matches.is_empty();
        let is_brief = qos == QoS::AtMostOnce || (connection.maximum_packet_size.is_none() && !is_told);
        (is_plain && is_brief).then_some(connection.id)
    }

    /// The ways to those who take it in its publisher's own words; `None` where somebody does not.
    fn plain_legs(&self, qos: QoS, matches: &[Match]) -> Option<Box<[Leg]>> {
        let mut legs = Vec::with_capacity(matches.len());
        for found in matches {
            let Taker::Client(slot) = self.taker(found.subscriber) else { return None };
            let client = self.clients.in_slot(slot)?;
            // Who is not here misses it.
            let Some(outlet) = client.outlet.as_ref() else { continue };
            let qos = found.qos.min(qos);
            let is_plain = outlet.credit.is_none()
                && outlet.mount.is_none()
                && outlet.maximum_packet_size == u32::MAX
                && found.identifiers.is_empty()
                && (qos == QoS::AtMostOnce || client.session.backlog.is_none());
            if !is_plain {
                return None;
            }
            legs.push(Leg { connection: outlet.connection, client: slot, packet_id: 0, qos });
        }
        Some(legs.into())
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

    fn mark(&self, publisher: ConnectionId, qos: QoS, topic: &[u8]) -> u32 {
        let mut hasher = self.hash.build_hasher();
        let publisher = u64::from(publisher.slot) << 32 | u64::from(publisher.generation);
        hasher.write_u64(publisher ^ (qos as u64) << 62);
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

    fn knows(&self, publisher: ConnectionId, plain: &Plain<'_>, as_of: u64) -> bool {
        let place = self.place(self.mark(publisher, plain.qos, plain.topic));
        let way = self.slots.get(place).and_then(|slot| slot.way.as_ref());
        way.is_some_and(|way| way.is_for(publisher, plain.qos, plain.topic, as_of))
    }

    fn take(&mut self, publisher: ConnectionId, plain: &Plain<'_>, as_of: u64) -> Option<Box<Way>> {
        if self.slots.is_empty() {
            return None;
        }
        let mark = self.mark(publisher, plain.qos, plain.topic);
        let slot = self.slot(mark)?;
        let way = slot.way.take_if(|way| way.is_for(publisher, plain.qos, plain.topic, as_of))?;
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
    fn due(&mut self, publisher: ConnectionId, qos: QoS, topic: &[u8], as_of: u64) -> Option<u32> {
        if self.slots.is_empty() && self.has_room_for(SLOTS_MIN) {
            self.slots.resize_with(SLOTS_MIN, Slot::default);
        }
        let mark = self.mark(publisher, qos, topic);
        let slot = self.slot(mark)?;
        if slot.way.as_ref().is_some_and(|way| way.is_for(publisher, qos, topic, as_of)) {
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

impl Leg {
    /// Whether the message is sent now, and does not wait.
    pub fn is_sent(&self) -> bool {
        self.qos == QoS::AtMostOnce || self.packet_id > 0
    }
}

impl Way {
    /// The ends at which an exchange begins.
    fn exchanges(&self) -> impl Iterator<Item = &Leg> {
        self.legs.iter().filter(|leg| leg.qos > QoS::AtMostOnce)
    }

    fn is_for(&self, publisher: ConnectionId, qos: QoS, topic: &[u8], as_of: u64) -> bool {
        self.as_of == as_of
            && self.publisher == publisher
            && self.qos == qos
            && self.topic.as_bytes() == topic
    }

    fn weight(&self) -> usize {
        size_of::<Way>() + self.topic.len() + size_of_val(&*self.legs)
    }
}

/// A message that waits in its publisher's words, like any other that waits.
pub(super) fn parcel_of(words: &[u8], verbatim: Verbatim) -> Option<Parcel> {
    let plain = Plain::read(words, verbatim.version, usize::MAX)?;
    let topic = ByteString::try_from(plain.topic).ok()?;
    let message = Arc::new(Message::of_plain(topic, &plain, verbatim.received));
    Some(Parcel { message, want: want_of(verbatim.qos) })
}

/// What somebody wants who comes by a way.
fn want_of(qos: QoS) -> Want {
    Want { reader: NOBODY, qos, retain: false, subscription_ids: Identifiers::default() }
}

/// A longer topic has no way.
const TOPIC_BYTES_MAX: usize = 512;

/// Nor has one that more take.
const LEGS_MAX: usize = 4_096;

/// A longer message that waits for many is there once for all of them.
const VERBATIM_BYTES_MAX: usize = 512;

/// Slots at first, and at any time a power of four.
const SLOTS_MIN: usize = 256;

/// Bytes that all take, however much memory there is.
const BYTES_MAX: usize = 16 << 20;
