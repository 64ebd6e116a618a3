//! Messages that go straight from one connection's bytes into the outboxes of others.
//!
//! A message of QoS 0 that is a topic and a payload, and goes the way of one before it, is not taken apart: the broker
//! counts it and says to whom it goes, and its bytes are copied. It overtakes nothing: the broker is told first of all
//! that has happened before.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::intake::Allowance;
use super::turn::Engine;
use super::work;
use crate::broker::{ConnectionId, Copy, Effect, Level, Way};
use crate::codec::{Plain, Properties, QoS, Version};
use crate::record::{Identifiers, Message, Now};

/// A message on its way.
struct Passing<'a> {
    plain: Plain<'a>,
    version: Version,
    way: &'a Way,
    received: u64,
    /// For who takes it in other words; made once.
    message: Option<Arc<Message>>,
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
            left.work += self.ask_broker(effects, now);
            left.is_missed = !self.events.is_empty();
            return;
        }
        let Some(socket) = self.table.socket(id) else { return };
        let (version, max_packet) = (socket.version, socket.max_packet());
        let mut bytes = socket.lend_undecoded();
        while left.straight > 0 && left.work < most {
            let Some(plain) = Plain::read(&bytes, version, max_packet) else {
                left.is_missed = !bytes.is_empty();
                break;
            };
            let Some(way) = self.broker.set_out(id, plain.topic, plain.payload.len(), &now) else {
                left.is_missed = true;
                break;
            };
            let size = plain.bytes.len();
            self.pass(plain, version, &way, now);
            left.straight -= 1;
            left.decoded += 1;
            self.counters.passed += 1;
            left.work += 1 + way.takers.len() * work::EFFECT + work::of_bytes(size * way.takers.len());
            self.broker.come_back(way);
            bytes.advance(size);
        }
        if left.straight == 0 || left.work >= most {
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
        plain.is_some_and(|plain| self.broker.knows_way(id, plain.topic))
    }

    fn pass(&mut self, plain: Plain<'_>, version: Version, way: &Way, now: Now) {
        let mut passing = Passing { plain, version, way, received: now.house, message: None };
        for &taker in &way.takers {
            self.pass_to(taker, &mut passing);
        }
    }

    fn pass_to(&mut self, taker: ConnectionId, passing: &mut Passing<'_>) {
        if self.courier.gathered > 2 * self.gathered_max() {
            // As where one is delivered.
            self.flush_all();
        }
        let (limit, bytes) = (self.limits.max_send_buffer, passing.plain.bytes);
        // One message may be much for many.
        let level = self.courier.memory.max(Level::of(self.table.held(), self.limits.max_memory));
        let courier = &mut self.courier;
        if level == Level::Ample
            && let Some(socket) = self.table.socket(taker)
            && socket.takes_as_it_is(passing.version, bytes.len(), limit)
        {
            socket.buffer(&mut courier.pool).extend_from_slice(bytes);
            courier.gathered += bytes.len();
            self.counters.packets_out += 1;
            return courier.mark_dirty(taker, socket);
        }
        let message = passing.message();
        self.deliver(Copy {
            connection: taker,
            message,
            packet_id: 0,
            qos: QoS::AtMostOnce,
            dup: false,
            retain: false,
            expiry: None,
            subscription_ids: Identifiers::default(),
            hidden: 0,
        });
    }
}

impl Passing<'_> {
    fn message(&mut self) -> Arc<Message> {
        let made = self.message.get_or_insert_with(|| {
            Arc::new(Message {
                topic: self.way.topic.clone(),
                payload: Bytes::copy_from_slice(self.plain.payload),
                qos: QoS::AtMostOnce,
                retain: false,
                properties: Properties::new(),
                expiry: None,
                received: self.received,
                unclocked: false,
            })
        });
        made.clone()
    }
}
