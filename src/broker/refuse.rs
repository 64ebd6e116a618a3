//! A publish that a full destination refuses (`when_full = "refuse"`).
//!
//! Decided for all destinations before any routing, so that nobody has half of it. MQTT 5 is told (0x97),
//! QoS 0 is dropped and counted. Older versions know no refusal: of such a client publishes are held,
//! unanswered and unrouted, in a queue of their own, beside which its other packets go on. Bounded in bytes
//! and in time: beyond either the connection is closed, so that the client sends again.

use std::collections::{BTreeMap, VecDeque};

use super::connection::{Connection, Held, Phase};
use super::depart::Cause;
use super::rights::mounted_topic;
use super::timers::Timer;
use super::{Broker, ConnectionId, Turn};
use crate::codec::{Packet, Publish, QoS, Reason, Version};
use crate::record::{DropReason, Full, Message, Policy, ReaderId, Want};
use crate::router::filter;

/// Who refuses what it has no room for, and what comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals {
    /// The policy of sessions and of the retained store.
    pub policy: Policy,
    /// The policies of stored routes that have one of their own.
    pub routes: BTreeMap<ReaderId, Policy>,
    /// Milliseconds that a client which knows no refusal may wait.
    pub timeout: u64,
    /// Bytes of messages that may wait for their commit where somebody refuses.
    pub in_flight: usize,
    /// Bytes that retained messages may take on disk.
    pub retained: usize,
}

/// What is held of a client that knows no refusal.
#[derive(Debug)]
pub(super) struct Refused {
    /// Publishes of QoS 1 and 2, in their order.
    publishes: VecDeque<Held>,
    /// Monotonic; beyond it the connection is closed.
    pub(super) until: u64,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals {
            policy: Policy::DropOldest,
            routes: BTreeMap::new(),
            timeout: 30_000,
            in_flight: super::ledger::UNCOMMITTED_BYTES_MAX,
            retained: usize::MAX,
        }
    }
}

impl Refusals {
    /// Whether anybody refuses.
    pub(super) fn is_any(&self) -> bool {
        self.policy == Policy::Refuse || self.routes.values().any(|policy| *policy == Policy::Refuse)
    }

    fn of(&self, reader: ReaderId) -> Policy {
        self.routes.get(&reader).copied().unwrap_or(self.policy)
    }
}

impl Refused {
    /// Bytes that are held.
    pub(super) fn weight(&self) -> usize {
        self.publishes.iter().map(Held::weight).sum()
    }

    /// Bytes beyond the publishes that a client may have under way in any case.
    fn beyond(&self, inflight: usize) -> usize {
        self.publishes.iter().skip(inflight).map(Held::weight).sum()
    }
}

impl Broker {
    /// Somebody is full, or is no longer.
    pub(super) fn on_full(&mut self, full: Full, turn: &mut Turn<'_>) {
        self.full = full;
        let mut waiting: Vec<_> = self.refused.iter().map(|(id, refused)| (refused.until, *id)).collect();
        // Who has waited longest has the first of the room.
        waiting.sort_unstable();
        for (_, id) in waiting {
            self.offer_refused(id, turn);
        }
    }

    /// Whether one of the durable destinations of a message refuses it.
    pub(super) fn is_refused(&self, message: &Message, audience: &[Want], retains: bool) -> bool {
        if self.full.is_nobody() {
            return false;
        }
        let refusals = &self.config.refusals;
        // What clears a topic needs no room.
        let stays = retains && !message.payload.is_empty();
        let refuses = |reader| {
            refusals.of(reader) == Policy::Refuse && (self.full.store || self.full.routes.contains(&reader))
        };
        (stays && self.full.store && refusals.policy == Policy::Refuse)
            || audience.iter().any(|want| refuses(want.reader))
    }

    /// Answers a publish that is refused, or holds it.
    pub(super) fn refuse_publish(
        &mut self,
        id: ConnectionId,
        publish: Publish,
        topic: &str,
        turn: &mut Turn<'_>,
    ) {
        let v5 = self.connections.get(id).is_some_and(|connection| connection.version == Version::V5);
        match publish.qos {
            QoS::AtMostOnce => {
                self.counters.drop(DropReason::StoreFull, 1);
                for reader in self.stored_routes_of(topic) {
                    *self.shed.entry((reader, DropReason::StoreFull)).or_default() += 1;
                }
            }
            _ if v5 => {
                self.count_not_accepted(topic);
                self.turn_down(id, &publish, Reason::QuotaExceeded, turn);
            }
            _ => self.hold_refused(id, publish, turn),
        }
    }

    /// Whether a publish has to wait behind others of its client that are held.
    pub(super) fn is_behind_refused(&self, id: ConnectionId, publish: &Publish) -> bool {
        publish.qos > QoS::AtMostOnce && self.refused.contains_key(&id)
    }

    /// Holds a publish, unanswered and unrouted.
    pub(super) fn hold_refused(&mut self, id: ConnectionId, publish: Publish, turn: &mut Turn<'_>) {
        let inflight = usize::from(self.config.limits.max_inflight);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Phase::Ending = connection.phase {
            // Its client sends again what was not answered.
            let topic = mounted_topic(connection.peer.terms.mount.as_ref(), publish.topic);
            return topic.into_iter().for_each(|topic| self.count_not_accepted(&topic));
        }
        let until = turn.now.mono + self.config.refusals.timeout;
        let is_first = !self.refused.contains_key(&id);
        let made = || Refused { publishes: VecDeque::new(), until };
        let refused = self.refused.entry(id).or_insert_with(made);
        if publish.dup && refused.publishes.iter().any(|held| is_same(held, &publish)) {
            // Sent again for want of an answer; the first one will have it.
            return;
        }
        let held = Held::of(Packet::Publish(publish));
        let beyond = refused.beyond(inflight);
        let is_too_much = beyond > 0 && beyond + held.weight() > BEYOND_BYTES_MAX;
        self.memory.held += held.weight();
        refused.publishes.push_back(held);
        if is_too_much {
            return self.expel_refused(id, turn);
        }
        if is_first {
            self.remind(until, Timer::Refused(id));
        }
    }

    /// What is held of a client may have been held too long.
    pub(super) fn on_refused_due(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        match self.refused.get(&id).map(|refused| refused.until) {
            None => {}
            Some(until) if until > turn.now.mono => self.remind(until, Timer::Refused(id)),
            Some(_) => self.expel_refused(id, turn),
        }
    }

    /// The store has had no room for what a client says for too long, or it is too much.
    fn expel_refused(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        if let Some(key) = self.connections.get(id).and_then(|connection| connection.client) {
            self.count_lost(key, DropReason::StoreFull);
        }
        self.part(id, Cause::Expelled(Reason::QuotaExceeded), turn);
    }

    /// There may be room for what is held of a client.
    pub(super) fn offer_refused(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        // One that waits for the store to catch up is looked at again then.
        let waits = |connection: &Connection| matches!(connection.phase, Phase::Waiting);
        if self.connections.get(id).is_none_or(waits) {
            return;
        }
        let Some(mut refused) = self.refused.remove(&id) else { return };
        let (until, count) = (refused.until, refused.publishes.len());
        while let Some(Held::Packet(Packet::Publish(publish))) = refused.publishes.pop_front() {
            self.memory.held -= Held::weight_of_publish(&publish);
            self.on_publish(id, publish, turn);
            let Some(connection) = self.connections.get(id) else {
                self.memory.held -= refused.weight();
                self.counters.not_accepted += refused.publishes.len() as u64;
                return;
            };
            if waits(connection) {
                return self.hand_over_refused(id, &mut refused.publishes);
            }
            if let Some(again) = self.refused.get_mut(&id) {
                again.publishes.append(&mut refused.publishes);
                // Its time begins anew only where some of it has found room.
                if again.publishes.len() == count {
                    again.until = until;
                    self.remind(until, Timer::Refused(id));
                }
                return;
            }
        }
    }

    /// The first of what was held waits for the store to catch up: the others wait behind it, as whatever comes.
    fn hand_over_refused(&mut self, id: ConnectionId, publishes: &mut VecDeque<Held>) {
        for held in publishes.iter() {
            if let Held::Packet(packet) = held {
                self.give_rate_back(id, packet);
            }
        }
        if let Some(connection) = self.connections.get_mut(id) {
            for (place, held) in publishes.drain(..).enumerate() {
                connection.held.insert(place + 1, held);
            }
        }
    }

    /// A connection ends whose publishes were held: nobody has them, and their client knows.
    pub(super) fn forget_refused(&mut self, connection: &mut Connection) {
        let Some(refused) = self.refused.remove(&connection.id) else { return };
        self.memory.held -= refused.weight();
        for held in &refused.publishes {
            let Held::Packet(Packet::Publish(publish)) = held else { continue };
            if let Ok(topic) = mounted_topic(connection.peer.terms.mount.as_ref(), publish.topic.clone()) {
                self.count_not_accepted(&topic);
            }
        }
    }

    /// Counts a publish that nobody has and whose publisher knows it: in all, and for the routes that would
    /// have had it.
    fn count_not_accepted(&mut self, topic: &str) {
        self.counters.not_accepted += 1;
        for reader in self.stored_routes_of(topic) {
            *self.not_accepted_by_route.entry(reader).or_default() += 1;
        }
    }

    /// The stored routes that want what is published there.
    pub(super) fn stored_routes_of(&self, topic: &str) -> Vec<ReaderId> {
        let stored = self.config.routes.iter().filter(|route| route.store);
        stored.filter(|route| filter::matches(&route.filter, topic)).map(|route| route.reader).collect()
    }
}

fn is_same(held: &Held, publish: &Publish) -> bool {
    matches!(held, Held::Packet(Packet::Publish(known)) if known.packet_id == publish.packet_id)
}

/// Bytes that are held of one client beyond its first `max_inflight` publishes; one packet may be larger.
const BEYOND_BYTES_MAX: usize = 64_000;
