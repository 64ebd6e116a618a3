//! What was found for a message that goes from hand to hand, kept for the next one like it.
//!
//! Who may publish to a topic, and who takes what is published there, is the same from message to message until
//! somebody subscribes, comes, goes, or the rules change: then every way is closed. A way is kept once a topic is
//! seen a second time, where its publisher and all who take it are network clients without a mount point, and nobody
//! counts by credit, or is to be sent more or less than its publisher has said. At QoS 1 and 2 only who is answered at
//! once goes it; his message waits for a taker whose window is full. What somebody keeps goes a way too, and is
//! answered once it is committed: see [`super::stops`].

use std::sync::Arc;

use super::atlas::Origin;
use super::client::Client;
use super::connection::Connection;
use super::fan::NOBODY;
use super::publish::INWARD_BYTES;
use super::{Broker, ConnectionId, Effect, Taker, Turn, WhenFull};
use crate::codec::{Plain, QoS, Version};
use crate::record::{Identifiers, Message, Now, ReaderId, Seq, Ticket, Want};
use crate::router::Match;
use crate::session::{Line, Parcel, Stage, Verbatim, weight_of};

/// How a message goes that goes the way of one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From hand to hand: its publisher is answered at once.
    Straight,
    /// Somebody keeps it: its publisher is answered once that is committed.
    Kept,
}

/// The end of a way at one taker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// The taker.
    pub connection: ConnectionId,
    /// Its session.
    pub(super) client: u32,
    /// The exchange of the message that goes there now; 0 at QoS 0, and where it waits.
    pub packet_id: u16,
    /// How surely it is sent.
    pub qos: QoS,
}

/// The end of a way in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    /// Who reads it there.
    pub(super) reader: ReaderId,
    /// Its session; `None` where it is a route.
    pub(super) client: Option<u32>,
    /// How surely it is sent.
    pub(super) qos: QoS,
}

/// An end of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Leg(Leg),
    Stop(Stop),
}

/// All ends of a way.
pub(super) struct Ends<'a> {
    pub(super) legs: &'a mut Vec<Leg>,
    pub(super) stops: &'a mut Vec<Stop>,
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

impl Broker {
    /// Takes a message that goes the way of one before it: it is counted, its exchanges are begun, and it is to be
    /// sent to each of `legs`. Where it is kept, what that takes is in `effects`, else its publisher is to be answered.
    /// `None`: it is to be handled like any other.
    #[inline]
    pub fn set_out(
        &mut self,
        id: ConnectionId,
        plain: &Plain<'_>,
        now: &Now,
        legs: &mut Vec<Leg>,
        effects: &mut Vec<Effect>,
    ) -> Option<Way> {
        let as_of = self.as_of();
        let connection = self.connections.get_mut(id).filter(|connection| connection.is_plainly_open())?;
        connection.heard = now.mono;
        let (version, is_at_ease) = (connection.version, !connection.rhythm.waits());
        if !self.is_heard(id, plain) {
            return None;
        }
        let Broker { atlas, stops, .. } = self;
        let way = atlas.find(Origin::of(id, plain), as_of, Ends { legs, stops })?;
        let is_open = match way {
            Way::Straight => is_at_ease && self.is_answered_at_once(id, plain),
            Way::Kept => self.may_keep(id, plain.qos),
        };
        if !is_open {
            return None;
        }
        let mut copies = legs.len() as u64;
        if plain.qos > QoS::AtMostOnce {
            if !self.have_room(legs, plain) {
                return None;
            }
            copies -= self.begin(legs, plain, version, now);
        }
        if plain.qos == QoS::ExactlyOnce {
            self.hold_at_once(id, plain.packet_id);
        }
        let bytes = plain.payload.len() as u64;
        self.counters.received += 1;
        self.counters.received_bytes += bytes;
        self.counters.sent += copies;
        self.counters.sent_bytes += copies * bytes;
        self.atlas.count_gone();
        if way == Way::Kept {
            self.keep_at_stops(id, plain, now, effects);
        }
        Some(way)
    }

    /// Whether such a message would go the way of one before it.
    pub fn knows_way(&self, id: ConnectionId, plain: &Plain<'_>) -> bool {
        let connection = self.connections.get(id).filter(|connection| connection.is_plainly_open());
        connection.is_some_and(|connection| {
            let is_open = |way| match way {
                Way::Straight => !connection.rhythm.waits() && self.is_answered_at_once(id, plain),
                Way::Kept => self.may_keep(id, plain.qos),
            };
            self.is_heard(id, plain)
                && self.atlas.way(Origin::of(id, plain), self.as_of()).is_some_and(is_open)
        })
    }

    /// Whether what a client publishes is not held back, and answered if it is to be.
    #[inline]
    fn is_heard(&self, id: ConnectionId, plain: &Plain<'_>) -> bool {
        plain.qos == QoS::AtMostOnce
            || self.connections.get(id).is_some_and(|connection| {
                !self.refused.contains_key(&id)
                    && !self.is_too_many(connection, plain.qos)
                    && (plain.qos == QoS::AtLeastOnce || self.is_new_to(connection, plain.packet_id))
            })
    }

    /// Whether nothing stands before its answer, if it is answered.
    #[inline]
    fn is_answered_at_once(&self, id: ConnectionId, plain: &Plain<'_>) -> bool {
        plain.qos == QoS::AtMostOnce
            || self.connections.get(id).is_some_and(|connection| connection.answers.is_empty())
    }

    /// Whether this packet id of QoS 2 is not held for a client that has no place in the log.
    fn is_new_to(&self, connection: &Connection, packet_id: u16) -> bool {
        let session = connection.client.and_then(|key| self.clients.get(key)).map(|client| &client.session);
        session.is_some_and(|session| session.backlog.is_none() && session.inward.of(packet_id).is_none())
    }

    /// Whether each taker can be sent a message, or has room for it to wait.
    fn have_room(&self, legs: &[Leg], plain: &Plain<'_>) -> bool {
        let weight = weight_of(plain);
        legs.iter().filter(|leg| leg.qos > QoS::AtMostOnce).all(|leg| {
            let Some(client) = self.clients.in_slot(leg.client) else { return false };
            let waiting = client.session.line.weight();
            client.outlet.is_some() && waiting + weight <= self.config.limits.max_send_buffer
        })
    }

    /// Begins the exchanges of a message; where one cannot begin now, the message waits. How many do.
    fn begin(&mut self, legs: &mut [Leg], plain: &Plain<'_>, version: Version, now: &Now) -> u64 {
        let mut message: Option<Arc<Message>> = None;
        let mut waiting = 0;
        for leg in legs.iter_mut().filter(|leg| leg.qos > QoS::AtMostOnce) {
            let Some(Client { session, outlet: Some(outlet), .. }) = self.clients.in_slot_mut(leg.client)
            else {
                continue;
            };
            let is_ready = session.line.is_empty() && outlet.has_room(&session.flight);
            let begun = if is_ready { session.flight.begin(Seq(0), leg.qos, Stage::Sent) } else { None };
            leg.packet_id = begun.map_or(0, |exchange| exchange.packet_id);
            // It waits as well where every packet id is taken.
            if leg.is_sent() {
                continue;
            }
            waiting += 1;
            if plain.bytes.len() <= VERBATIM_BYTES_MAX {
                let verbatim = Verbatim { version, qos: leg.qos, received: now.house };
                self.memory.queues += session.line.push_verbatim(plain, verbatim);
                continue;
            }
            if message.is_none() {
                message = Message::of_plain(plain, now.house, None).map(Arc::new);
            }
            let parcel = |message| Parcel { message, want: want_of(leg.qos) };
            self.memory.queues += message.clone().map_or(0, |message| session.line.push(parcel(message)));
        }
        waiting
    }

    /// The next message that waits for a client, where it does so in its publisher's words and is to be sent now. `None`
    /// when there is no other: what else there is room for is an effect by then.
    pub fn take_waiting(
        &mut self,
        id: ConnectionId,
        now: &Now,
        effects: &mut Vec<Effect>,
    ) -> Option<Due<'_>> {
        let key = self.connections.get(id)?.client?;
        let Client { session, outlet: Some(outlet), .. } = self.clients.get(key)? else { return None };
        if session.line.is_empty() || !outlet.has_room(&session.flight) {
            return None;
        }
        if !session.line.is_next_verbatim() {
            self.pump(key, &mut Turn::of_words(now, effects));
            return None;
        }
        let Client { session, .. } = self.clients.get_mut(key)?;
        let (plain, Verbatim { version, received, qos }) = session.line.pop_verbatim(&mut self.emptied)?;
        let packet_id = session.flight.begin(Seq(0), qos, Stage::Sent)?.packet_id;
        self.memory.queues -= weight_of(&plain);
        self.counters.sent += 1;
        self.counters.sent_bytes += plain.payload.len() as u64;
        let leg = Leg { connection: id, client: key.slot, packet_id, qos };
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

    /// Grows with whatever may change where a message goes.
    fn as_of(&self) -> u64 {
        self.router.changes() + self.atlas.closed()
    }

    /// Keeps what was found for a message that so many keep, if the next one like it can go the same way.
    pub(super) fn learn_way(
        &mut self,
        source: Option<u32>,
        message: &Message,
        matches: &[Match],
        kept: usize,
    ) {
        let is_plain =
            !message.unclocked && message.expiry.is_none() && message.topic.len() <= TOPIC_BYTES_MAX;
        let limits = &self.config.limits;
        // Whether it is kept depends on how much each of them keeps already, or on what else is said at QoS 2.
        let is_other =
            kept > 0 && (limits.when_queue_full == WhenFull::DropNewest || message.qos == QoS::ExactlyOnce);
        if !is_plain || is_other || matches.len() > LEGS_MAX || limits.max_publish_rate.is_some() {
            return;
        }
        let Some(publisher) = self.plain_publisher(source, message.qos, matches) else { return };
        let origin = Origin { publisher, qos: message.qos, topic: message.topic.as_bytes() };
        let as_of = self.as_of();
        if self.atlas.is_due(origin, as_of)
            && self.atlas.is_worth_a_look(origin, matches.len())
            && let Some(ends) = self.plain_ends(message.qos, matches)
            && ends.iter().filter(|end| matches!(end, End::Stop(_))).count() == kept
            && let Some(place) = self.atlas.place_for(origin, ends.len())
        {
            self.atlas.keep(place, origin, as_of, &ends);
        }
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

    /// Where it is kept, and the ways to those who take it in its publisher's own words; `None` where somebody does not.
    fn plain_ends(&self, qos: QoS, matches: &[Match]) -> Option<Vec<End>> {
        let (mut ends, mut legs) = (Vec::with_capacity(matches.len()), Vec::new());
        for found in matches {
            if let Some(stop) = self.stop_of(found, qos) {
                ends.push(End::Stop(stop));
                continue;
            }
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
            legs.push(End::Leg(Leg { connection: outlet.connection, client: slot, packet_id: 0, qos }));
        }
        ends.append(&mut legs);
        Some(ends)
    }
}

impl Leg {
    /// Whether the message is sent now, and does not wait.
    pub fn is_sent(&self) -> bool {
        self.qos == QoS::AtMostOnce || self.packet_id > 0
    }
}

/// Takes the message of a line that has waited longest, and takes it apart where it waits in its publisher's words.
pub(super) fn next_of(line: &mut Line) -> Option<Parcel> {
    if let Some(parcel) = line.pop_parcel() {
        return Some(parcel);
    }
    let mut emptied = Line::default();
    let (plain, verbatim) = line.pop_verbatim(&mut emptied)?;
    let message = Arc::new(Message::of_plain(&plain, verbatim.received, None)?);
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
