//! What goes straight from one connection's bytes into the outboxes of others.
//!
//! A message that is a topic and a payload, and goes the way of one before it, is not taken apart: the broker
//! counts it and says to whom it goes, and its bytes are copied. Nor is a word on an exchange that is a packet id.
//! They overtake nothing: the broker is told first of all that has happened before. Of a message that is kept the
//! store is told as of any other.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::carry::Courier;
use super::intake::Allowance;
use super::table::Table;
use super::turn::Engine;
use super::{Limits, work};
use crate::broker::{ConnectionId, Copy, Due, Effect, Leg, Level, Way};
use crate::codec::{Brief, Plain, QoS, Version, Word};
use crate::record::{Identifiers, Message, Now};

/// A message on its way.
struct Passing<'a> {
    plain: &'a Plain<'a>,
    version: Version,
    received: u64,
    /// For who takes it in other words; made once.
    message: Option<Arc<Message>>,
}

/// What a packet that has gone straight took.
struct Gone {
    /// Its bytes.
    size: usize,
    work: usize,
}

impl Engine {
    /// Sends on what a connection has said that can go straight, until something comes that cannot, or so much is done.
    pub(super) fn go_straight(
        &mut self,
        id: ConnectionId,
        left: &mut Allowance,
        most: usize,
        effects: &mut Vec<Effect>,
        now: Now,
    ) {
        if !self.events.is_empty() {
            left.is_missed = !self.knows_way(id);
            if left.is_missed {
                return;
            }
            // What it says may concern the one who is served as well, and have happened by that.
            left.asked += self.tell_broker(effects, now);
            left.is_missed = !self.events.is_empty();
            return;
        }
        let Some(socket) = self.table.socket(id) else { return };
        let mut bytes = socket.lend_undecoded();
        bytes.advance(self.send_all(id, &bytes, left, most, effects, now));
        if let Some(socket) = self.table.socket(id) {
            // Not merely advanced: an empty slice would still pin the read buffer.
            socket.give_undecoded_back(if bytes.is_empty() { Bytes::new() } else { bytes });
        }
    }

    /// The same of so many bytes that were just read: only what is left of them is kept.
    pub(super) fn go_fresh(
        &mut self,
        id: ConnectionId,
        bytes: usize,
        left: &mut Allowance,
        most: usize,
        effects: &mut Vec<Effect>,
        now: Now,
    ) {
        let mut gone = 0;
        // What has happened before is told first.
        if self.events.is_empty() {
            let room = self.intake.buffer.lend();
            let read = room.get(..bytes).unwrap_or_default();
            gone = self.send_all(id, read, left, most, effects, now);
            self.intake.buffer.give_back(room);
        }
        if gone < bytes
            && let Some(socket) = self.table.socket(id)
        {
            socket.feed(self.intake.buffer.keep(gone..bytes));
        }
    }

    /// Sends on what can go straight from the start of these bytes; how many of them that was.
    fn send_all(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        left: &mut Allowance,
        most: usize,
        effects: &mut Vec<Effect>,
        now: Now,
    ) -> usize {
        let Some(socket) = self.table.socket(id) else { return 0 };
        let (version, max_packet) = (socket.version, socket.max_packet());
        let mut rest = bytes;
        while left.straight > 0 && left.all_work() < most {
            let gone = match Plain::read(rest, version, max_packet) {
                Some(plain) => self.send_on(id, plain, version, effects, now),
                None => Brief::read(rest).and_then(|brief| self.hear(id, brief, effects, now)),
            };
            let Some(Gone { size, work }) = gone else {
                left.is_missed = !rest.is_empty();
                break;
            };
            left.straight -= 1;
            left.decoded += 1;
            self.counters.passed += 1;
            left.work += work;
            rest = rest.get(size..).unwrap_or_default();
        }
        if left.straight == 0 || left.all_work() >= most {
            left.packets = 0;
        }
        bytes.len() - rest.len()
    }

    /// Whether what a connection says next would go straight.
    fn knows_way(&mut self, id: ConnectionId) -> bool {
        let Some(socket) = self.table.socket(id) else { return false };
        let plain = Plain::read(socket.undecoded(), socket.version, socket.max_packet());
        plain.is_some_and(|plain| self.broker.knows_way(id, &plain))
    }

    /// Sends a message to all who take it, and answers it, or has it kept and answered then.
    fn send_on(
        &mut self,
        id: ConnectionId,
        plain: Plain<'_>,
        version: Version,
        effects: &mut Vec<Effect>,
        now: Now,
    ) -> Option<Gone> {
        let mut legs = std::mem::take(&mut self.legs);
        let way = self.broker.set_out(id, &plain, &now, &mut legs, effects);
        let (size, many) = (plain.bytes.len(), legs.len());
        if way.is_some() {
            let mut passing = Passing { plain: &plain, version, received: now.house, message: None };
            legs.iter().filter(|leg| leg.is_sent()).for_each(|leg| self.pass_to(leg, &mut passing));
        }
        self.legs = legs;
        let mut work = (1 + many) * work::STRAIGHT + work::of_bytes(size.saturating_mul(many));
        match (way?, plain.qos) {
            (Way::Kept, _) => work += self.keep(id, effects, now),
            (Way::Straight, QoS::AtMostOnce) => {}
            (Way::Straight, QoS::AtLeastOnce) => self.say(id, Word::PubAck.on(plain.packet_id)),
            (Way::Straight, QoS::ExactlyOnce) => self.say(id, Word::PubRec.on(plain.packet_id)),
        }
        Some(Gone { size, work })
    }

    /// Does what it takes to keep a message of this client's, who may wait for that. How much it was.
    fn keep(&mut self, id: ConnectionId, effects: &mut Vec<Effect>, now: Now) -> usize {
        if let Some(socket) = self.table.socket(id) {
            socket.leave_undrained();
        }
        self.do_as_told(effects, now)
    }

    /// Has the broker take a word on an exchange, and does what comes of it.
    fn hear(&mut self, id: ConnectionId, brief: Brief, effects: &mut Vec<Effect>, now: Now) -> Option<Gone> {
        let heard = self.broker.take_word(id, brief, &now, effects)?;
        let (mut work, gathered) = (work::STRAIGHT + effects.len() * work::EFFECT, self.courier.gathered);
        if let Some(answer) = heard.answer {
            self.say(id, answer);
            work += work::STRAIGHT;
        }
        if !effects.is_empty() {
            self.carry_out(effects, now);
        }
        if matches!(brief.word, Word::PubAck | Word::PubComp) {
            work += self.send_waiting(id, effects, now);
        }
        let bytes = self.courier.gathered.saturating_sub(gathered);
        Some(Gone { size: Brief::BYTES, work: work + work::of_bytes(bytes) })
    }

    /// Sends who has answered what waits for that. How much work that was, beside that of its bytes.
    fn send_waiting(&mut self, id: ConnectionId, effects: &mut Vec<Effect>, now: Now) -> usize {
        let mut work = 0;
        loop {
            self.make_room();
            let Some(due) = self.broker.take_waiting(id, &now, effects) else { break };
            work += work::STRAIGHT;
            let Due { plain, version, received, leg } = &due;
            if self.courier.copy(plain, *version, leg, &mut self.table, &self.limits) {
                self.counters.packets_out += 1;
            } else if let Some(message) = Message::of_plain(plain, *received, None) {
                let copy = copy_of(Arc::new(message), leg);
                self.deliver(copy);
            }
        }
        if !effects.is_empty() {
            work += effects.len() * work::EFFECT;
            self.carry_out(effects, now);
        }
        work
    }

    fn say(&mut self, id: ConnectionId, brief: Brief) {
        if let Some(socket) = self.table.socket(id).filter(|socket| socket.is_open()) {
            socket.buffer(&mut self.courier.pool).extend_from_slice(&brief.bytes());
            self.counters.packets_out += 1;
            self.courier.mark_answered(id, socket);
        }
    }

    fn pass_to(&mut self, leg: &Leg, passing: &mut Passing<'_>) {
        self.make_room();
        if self.courier.copy(passing.plain, passing.version, leg, &mut self.table, &self.limits) {
            self.counters.packets_out += 1;
        } else if let Some(message) = passing.message() {
            self.deliver(copy_of(message, leg));
        }
    }

    /// As where one is delivered.
    fn make_room(&mut self) {
        if self.courier.gathered > 2 * self.gathered_max() {
            self.flush_all();
        }
    }
}

impl Courier {
    /// Copies a message to who takes it as it is; whether he does.
    fn copy(
        &mut self,
        plain: &Plain<'_>,
        version: Version,
        leg: &Leg,
        table: &mut Table,
        limits: &Limits,
    ) -> bool {
        // One message may be much for many.
        let level = self.memory.max(Level::of(table.held(), limits.max_memory));
        let size = plain.bytes.len();
        let Some(socket) = table.socket(leg.connection).filter(|socket| {
            level == Level::Ample && socket.takes_as_it_is(version, size, limits.max_send_buffer)
        }) else {
            return false;
        };
        plain.put(leg.qos, leg.packet_id, socket.buffer(&mut self.pool));
        self.gathered += size;
        self.mark_dirty(leg.connection, socket);
        true
    }
}

impl Passing<'_> {
    /// `None` where its topic is none, which what has found a way has shown.
    fn message(&mut self) -> Option<Arc<Message>> {
        if self.message.is_none() {
            self.message = Message::of_plain(self.plain, self.received, None).map(Arc::new);
        }
        self.message.clone()
    }
}

/// What goes that way.
fn copy_of(message: Arc<Message>, leg: &Leg) -> Copy {
    Copy {
        connection: leg.connection,
        message,
        packet_id: leg.packet_id,
        qos: leg.qos,
        dup: false,
        retain: false,
        expiry: None,
        subscription_ids: Identifiers::default(),
        hidden: 0,
    }
}
