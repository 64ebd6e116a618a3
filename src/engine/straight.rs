//! What goes straight from one connection's bytes into the outboxes of others.
//!
//! A message that is a topic and a payload, and goes the way of one before it, is not taken apart: the broker
//! counts it and says to whom it goes, and its bytes are copied. Nor is a word on an exchange that is a packet id.
//! They overtake nothing: the broker is told first of all that has happened before. Of a message that is kept the
//! store is told as of any other.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::intake::Allowance;
use super::turn::Engine;
use super::work;
use crate::broker::{ConnectionId, Copy, Due, Effect, Leg, Level, Way};
use crate::codec::{Brief, Plain, QoS, Version, Word};
use crate::record::{Identifiers, Message, Now};

/// A message on its way.
struct Passing<'a> {
    plain: Plain<'a>,
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
        let (version, max_packet) = (socket.version, socket.max_packet());
        let mut bytes = socket.lend_undecoded();
        while left.straight > 0 && left.all_work() < most {
            let gone = match Plain::read(&bytes, version, max_packet) {
                Some(plain) => self.send_on(id, plain, version, effects, now),
                None => Brief::read(&bytes).and_then(|brief| self.hear(id, brief, effects, now)),
            };
            let Some(Gone { size, work }) = gone else {
                left.is_missed = !bytes.is_empty();
                break;
            };
            left.straight -= 1;
            left.decoded += 1;
            self.counters.passed += 1;
            left.work += work;
            bytes.advance(size);
        }
        if left.straight == 0 || left.all_work() >= most {
            left.packets = 0;
        }
        if let Some(socket) = self.table.socket(id) {
            // Not merely advanced: an empty slice would still pin the read buffer.
            socket.give_undecoded_back(if bytes.is_empty() { Bytes::new() } else { bytes });
        }
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
            let mut passing = Passing { plain, version, received: now.house, message: None };
            legs.iter().filter(|leg| leg.is_sent()).for_each(|leg| self.pass_to(*leg, &mut passing));
        }
        self.legs = legs;
        let mut work = 1 + many * work::EFFECT + work::of_bytes(size.saturating_mul(many));
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
        let (mut said, gathered) = (effects.len(), self.courier.gathered);
        if let Some(answer) = heard.answer {
            self.say(id, answer);
            said += 1;
        }
        if !effects.is_empty() {
            self.carry_out(effects, now);
        }
        if matches!(brief.word, Word::PubAck | Word::PubComp) {
            said += self.send_waiting(id, effects, now);
        }
        let bytes = self.courier.gathered.saturating_sub(gathered);
        Some(Gone { size: Brief::BYTES, work: 1 + (1 + said) * work::EFFECT + work::of_bytes(bytes) })
    }

    /// Sends who has answered what waits for that. How much it was.
    fn send_waiting(&mut self, id: ConnectionId, effects: &mut Vec<Effect>, now: Now) -> usize {
        let mut sent = 0;
        let mut words = std::mem::take(&mut self.words);
        while let Some(due) = self.broker.take_waiting(id, &mut words, &now, effects) {
            let Due { plain, version, received, leg } = due;
            self.pass_to(leg, &mut Passing { plain, version, received, message: None });
            sent += 1;
        }
        self.words = words;
        if !effects.is_empty() {
            sent += effects.len();
            self.carry_out(effects, now);
        }
        sent
    }

    fn say(&mut self, id: ConnectionId, brief: Brief) {
        if let Some(socket) = self.table.socket(id).filter(|socket| socket.is_open()) {
            socket.buffer(&mut self.courier.pool).extend_from_slice(&brief.bytes());
            self.counters.packets_out += 1;
            self.courier.mark_answered(id, socket);
        }
    }

    fn pass_to(&mut self, leg: Leg, passing: &mut Passing<'_>) {
        if self.courier.gathered > 2 * self.gathered_max() {
            // As where one is delivered.
            self.flush_all();
        }
        let (limit, size) = (self.limits.max_send_buffer, passing.plain.bytes.len());
        // One message may be much for many.
        let level = self.courier.memory.max(Level::of(self.table.held(), self.limits.max_memory));
        let courier = &mut self.courier;
        let Leg { connection, packet_id, qos, .. } = leg;
        if level == Level::Ample
            && let Some(socket) = self.table.socket(connection)
            && socket.takes_as_it_is(passing.version, size, limit)
        {
            passing.plain.put(qos, packet_id, socket.buffer(&mut courier.pool));
            courier.gathered += size;
            self.counters.packets_out += 1;
            return courier.mark_dirty(connection, socket);
        }
        let Some(message) = passing.message() else { return };
        self.deliver(Copy {
            connection,
            message,
            packet_id,
            qos,
            dup: false,
            retain: false,
            expiry: None,
            subscription_ids: Identifiers::default(),
            hidden: 0,
        });
    }
}

impl Passing<'_> {
    /// `None` where its topic is none, which what has found a way has shown.
    fn message(&mut self) -> Option<Arc<Message>> {
        if self.message.is_none() {
            self.message = Message::of_plain(&self.plain, self.received, None).map(Arc::new);
        }
        self.message.clone()
    }
}
