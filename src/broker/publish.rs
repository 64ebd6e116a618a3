//! A PUBLISH from a client: is it valid, is it allowed, who wants it, when is it answered.
//!
//! Answers of one connection leave in the order of its requests; one that waits for a commit holds back
//! those behind it. [MQTT5-4.6.0-2] [MQTT5-4.6.0-3] Where there is no store, a publish that asks for an answer
//! gets none: its client keeps it, and sends it again once the house has started with a store.

use std::mem;
use std::sync::Arc;

use adapter_api::reading;
use bytestring::ByteString;

use super::client::ClientKey;
use super::connection::{Answer, Connection, Held, Pending, Phase};
use super::depart::Cause;
use super::fan::{Pressure, Routed};
use super::ledger::Step;
use super::pace::Kind;
use super::rights::mounted_topic;
use super::words::Said;
use super::{Broker, ConnectionId, Effect, Turn};
use crate::codec::{Ack, Brief, Packet, Properties, Publish, QoS, Reason, Version, Word};
use crate::record::{DropReason, Message, ReaderId, Ticket, Write};
use crate::router::filter::{self, NotATopic};

impl Broker {
    pub(super) fn on_publish(&mut self, id: ConnectionId, mut publish: Publish, turn: &mut Turn<'_>) {
        let topic = match self.topic_of(id, &mut publish) {
            Ok(topic) => topic,
            Err(Unusable::Wrong(reason)) => return self.expel(id, reason, turn),
            Err(Unusable::TooLong(topic)) => return self.turn_away(id, &publish, &topic, turn),
        };
        let is_answered = publish.qos > QoS::AtMostOnce;
        if is_answered && self.is_nothing_new(id, &publish, turn) {
            return;
        }
        let Some(connection) = self.connections.get(id) else { return };
        let Some(source) = connection.client else { return };
        let (is_house, is_device) = (connection.is_house(), connection.is_device());
        let may_refuse = is_answered && connection.version == Version::V5;
        if !self.clients.get(source).is_some_and(|client| self.may_publish(client, &topic)) {
            return self.deny(id, &publish, &topic, turn);
        }
        let (properties, expiry) = if publish.properties.is_empty() {
            (Properties::new(), None)
        } else {
            (publish.properties.travelling(), publish.properties.message_expiry())
        };
        let unclocked = is_device && reading::is_unclocked(&publish.payload);
        let message = Arc::new(Message {
            qos: if is_volatile(&topic) { QoS::AtMostOnce } else { publish.qos },
            topic,
            // Moved, since each share of the read buffer is counted by two locked instructions; given back to a
            // publish that is to be handled once more.
            payload: mem::take(&mut publish.payload),
            retain: publish.retain && self.config.limits.retain,
            properties,
            expiry,
            received: turn.now.house,
            unclocked,
        });
        if may_refuse && message.retain && self.lacks_to_retain(&message).is_some() {
            self.counters.not_accepted += 1;
            return self.turn_down(id, &publish, Reason::QuotaExceeded, turn);
        }
        let bytes = message.payload.len() as u64;
        let inward = self.inward_of(id, &publish);
        // What the house says of itself is little, and wanted most when something is full.
        let pressure = if is_house { Pressure::Insist } else { Pressure::Wait };
        let looks = self.router.looks() + self.member_looks;
        match self.route(message, Some(source.slot), inward, pressure, turn) {
            Routed::Refused(message) => {
                publish.payload = message.payload.clone();
                self.refuse_publish(id, publish, &message.topic, turn);
            }
            Routed::Busy(message) => {
                publish.payload = message.payload.clone();
                self.wait_for_store(id, Packet::Publish(publish), turn);
            }
            Routed::Unkept => {
                self.count_received(bytes);
                if is_house {
                    // It knows, and publishes its states anew at every start.
                    self.acknowledge(id, &publish, None, true, turn);
                } else {
                    self.leave_unanswered(id, &publish);
                }
            }
            Routed::Done { ticket, wanted } => {
                self.count_received(bytes);
                if is_answered {
                    self.acknowledge(id, &publish, ticket, wanted, turn);
                }
            }
        }
        self.rest(id, self.router.looks() + self.member_looks - looks, turn);
    }

    fn count_received(&mut self, bytes: u64) {
        self.counters.received += 1;
        self.counters.received_bytes += bytes;
    }

    /// Answers a publish that is routed to nobody. Older versions know no refusal, so theirs is
    /// acknowledged.
    pub(super) fn turn_down(
        &mut self,
        id: ConnectionId,
        publish: &Publish,
        reason: Reason,
        turn: &mut Turn<'_>,
    ) {
        let v5 = self.connections.get(id).is_some_and(|connection| connection.version == Version::V5);
        let reason = if v5 { reason } else { Reason::Success };
        self.count_unanswered(id, publish.qos);
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                self.answer(id, None, Kind::Publish, Answer::PubAck(publish.packet_id, reason), turn);
            }
            QoS::ExactlyOnce => {
                // What is acknowledged is known again; after a refusal the packet id is free.
                let ticket = if v5 { None } else { self.hold_id(id, publish, None, turn) };
                self.answer(id, ticket, Kind::Publish, Answer::PubRec(publish.packet_id, reason), turn);
            }
        }
    }

    /// Turns away a publish to a topic of more levels or bytes than there may be. Its name is a valid one, so
    /// that the connection stands.
    fn turn_away(&mut self, id: ConnectionId, publish: &Publish, topic: &str, turn: &mut Turn<'_>) {
        if publish.qos > QoS::AtMostOnce && self.is_nothing_new(id, publish, turn) {
            return;
        }
        self.withhold(id, publish, topic, (DropReason::TooLarge, Reason::TopicNameInvalid), turn);
    }

    /// Whether a publish of QoS 1 or 2 repeats one that was taken, or is one too many and ends its connection.
    fn is_nothing_new(&mut self, id: ConnectionId, publish: &Publish, turn: &mut Turn<'_>) -> bool {
        if self.repeats(id, publish, turn) {
            return true;
        }
        let connection = self.connections.get(id);
        let too_many = connection.is_some_and(|connection| self.is_too_many(connection, publish.qos));
        if too_many {
            self.expel(id, Reason::ReceiveMaximumExceeded, turn);
        }
        too_many
    }

    /// The topic by name or alias, as the house knows it, or what is wrong with the packet. Moved out of a publish of
    /// QoS 0, which is never to be handled once more.
    fn topic_of(&mut self, id: ConnectionId, publish: &mut Publish) -> Result<ByteString, Unusable> {
        let limits = &self.config.limits;
        let Some(connection) = self.connections.get_mut(id) else {
            return Err(Reason::UnspecifiedError.into());
        };
        let mut topic = match publish.qos {
            QoS::AtMostOnce => mem::take(&mut publish.topic),
            _ => publish.topic.clone(),
        };
        if publish.properties.is_empty() || connection.version != Version::V5 {
            if topic.is_empty() && connection.version == Version::V5 {
                return Err(Reason::ProtocolError.into());
            }
        } else {
            let properties = &publish.properties;
            // [MQTT5-3.3.4-6]
            if properties.subscription_identifiers().next().is_some() {
                return Err(Reason::ProtocolError.into());
            }
            // [MQTT5-3.3.2-14]
            if properties.response_topic().is_some_and(|topic| filter::check_topic(&topic).is_err()) {
                return Err(Reason::ProtocolError.into());
            }
            if let Some(alias) = properties.topic_alias() {
                let aliases = connection.aliases.get_or_insert_default();
                self.memory.aliases -= aliases.weight();
                let named = aliases.topic(alias, limits.max_topic_alias, &topic);
                self.memory.aliases += aliases.weight();
                topic = named?;
            }
            if topic.is_empty() {
                return Err(Reason::ProtocolError.into());
            }
        }
        let checked = filter::check_topic(&topic);
        if matches!(checked, Err(NotATopic::Empty | NotATopic::Character)) {
            return Err(Reason::TopicNameInvalid.into());
        }
        // What the house says of itself is then said once.
        let is_asked = publish.retain && !connection.is_of_the_house();
        if connection.version == Version::V5 && is_asked && !limits.retain {
            return Err(Reason::RetainNotSupported.into()); // [MQTT5-3.2.2-14]
        }
        match (checked, &connection.peer.terms.mount) {
            (Ok(()), None) => Ok(topic),
            (Ok(()), Some(_)) => {
                mounted_topic(connection.peer.terms.mount.as_ref(), topic).map_err(Unusable::TooLong)
            }
            (Err(_), _) => Err(Unusable::TooLong(topic)),
        }
    }

    /// Whether a publish of QoS 1 or 2 is one more than the client may have under way, or leave unreleased.
    pub(super) fn is_too_many(&self, connection: &Connection, qos: QoS) -> bool {
        if connection.is_port() {
            return false;
        }
        // [MQTT5-3.3.4-9]
        let full = connection.version == Version::V5
            && connection.unanswered >= u32::from(self.config.limits.max_inflight);
        full || (qos == QoS::ExactlyOnce && connection.client.is_some_and(|key| !self.may_hold_inward(key)))
    }

    /// A QoS 2 packet id that is not yet released is answered again and not routed.
    /// [MQTT5-4.3.3-10] [MQTT311-4.3.3-2]
    fn repeats(&mut self, id: ConnectionId, publish: &Publish, turn: &mut Turn<'_>) -> bool {
        if publish.qos != QoS::ExactlyOnce {
            return false;
        }
        let Some(connection) = self.connections.get(id) else { return false };
        let (key, is_port) = (connection.client, connection.is_port());
        let held = key
            .and_then(|key| self.clients.get(key))
            .and_then(|client| client.session.inward.of(publish.packet_id));
        let Some(ticket) = held else { return false };
        if ticket == NEVER {
            return true;
        }
        if is_port {
            // A port never repeats: its ids begin anew with it, and this one was left by an earlier port.
            self.release_inward(id, publish.packet_id, turn);
            return false;
        }
        let ticket = (!self.ledger.is_committed(ticket)).then_some(ticket);
        self.answer(id, ticket, Kind::Publish, Answer::PubRec(publish.packet_id, Reason::Success), turn);
        true
    }

    /// The kept session and packet id that are committed together with a QoS 2 publish.
    fn inward_of(&self, id: ConnectionId, publish: &Publish) -> Option<(ReaderId, u16)> {
        if publish.qos != QoS::ExactlyOnce {
            return None;
        }
        let key = self.connections.get(id)?.client?;
        let reader = self.clients.get(key)?.session.backlog.as_ref()?.reader;
        Some((reader, publish.packet_id))
    }

    fn acknowledge(
        &mut self,
        id: ConnectionId,
        publish: &Publish,
        ticket: Option<Ticket>,
        wanted: bool,
        turn: &mut Turn<'_>,
    ) {
        let reason = if wanted { Reason::Success } else { Reason::NoMatchingSubscribers };
        self.count_unanswered(id, publish.qos);
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                self.answer(id, ticket, Kind::Publish, Answer::PubAck(publish.packet_id, reason), turn);
            }
            QoS::ExactlyOnce => {
                let ticket = self.hold_id(id, publish, ticket, turn);
                self.answer(id, ticket, Kind::Publish, Answer::PubRec(publish.packet_id, reason), turn);
            }
        }
    }

    /// Remembers the packet id of a QoS 2 publish that is acknowledged, whatever became of it; the write to wait
    /// for, if its session outlives the connection.
    fn hold_id(
        &mut self,
        id: ConnectionId,
        publish: &Publish,
        ticket: Option<Ticket>,
        turn: &mut Turn<'_>,
    ) -> Option<Ticket> {
        let ticket = ticket.or_else(|| {
            let (reader, packet_id) = self.inward_of(id, publish)?;
            Some(self.ledger.write(Write::Inward { reader, packet_id }, turn.effects))
        });
        let key = self.connections.get(id).and_then(|connection| connection.client);
        self.hold_inward(key, publish.packet_id, ticket.unwrap_or_default());
        ticket
    }

    /// Nothing waits here for a publish that was not kept: what bounds it is the client's own window, and
    /// the connection goes on being read.
    fn leave_unanswered(&mut self, id: ConnectionId, publish: &Publish) {
        self.count_unanswered(id, publish.qos);
        if publish.qos == QoS::ExactlyOnce {
            let key = self.connections.get(id).and_then(|connection| connection.client);
            self.hold_inward(key, publish.packet_id, NEVER);
        }
    }

    /// Remembers a packet id of a publisher until it is released.
    fn hold_inward(&mut self, key: Option<ClientKey>, packet_id: u16, ticket: Ticket) {
        if let Some(key) = key
            && let Some(client) = self.clients.get_mut(key)
            && client.session.inward.hold(packet_id, ticket)
        {
            self.memory.inward += INWARD_BYTES;
        }
    }

    pub(super) fn count_unanswered(&mut self, id: ConnectionId, qos: QoS) {
        if let Some(connection) = self.connections.get_mut(id)
            && qos > QoS::AtMostOnce
        {
            connection.unanswered += 1;
        }
    }

    /// The packet, and all that comes after it, waits until the store has caught up.
    pub(super) fn wait_for_store(&mut self, id: ConnectionId, packet: Packet, turn: &mut Turn<'_>) {
        self.give_rate_back(id, &packet);
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.phase = Phase::Waiting;
        let held = Held::of(packet);
        self.memory.held += held.weight();
        connection.held.push_front(held);
        if !std::mem::replace(&mut connection.paused, true) {
            turn.effects.push(Effect::Pause { connection: id });
        }
        self.waiting.push_back(id);
    }

    /// Sends an answer, once `ticket` is committed and every answer before it has left.
    pub(super) fn answer(
        &mut self,
        id: ConnectionId,
        ticket: Option<Ticket>,
        kind: Kind,
        answer: Answer,
        turn: &mut Turn<'_>,
    ) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let before = connection.answers.back().map(|pending| pending.ticket);
        let Some(due) = ticket.or(before) else {
            return self.send_answer(id, answer, turn);
        };
        let waits = ticket.map(|_| kind);
        let pending = Pending {
            ticket: before.map_or(due, |before| due.max(before)),
            waits,
            weight: answer.weight(),
            answer,
        };
        self.memory.held += pending.weight;
        connection.answers.push_back(pending);
        if ticket.is_some() {
            self.pace.begin(&mut connection.rhythm, kind, due);
            self.ledger.after(due, Step::Answer(id));
        }
    }

    /// Sends the answers whose writes are committed.
    pub(super) fn send_answers(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        while let Some(connection) = self.connections.get_mut(id)
            && connection.answers.front().is_some_and(|pending| self.ledger.is_committed(pending.ticket))
            && let Some(pending) = connection.answers.pop_front()
        {
            self.memory.held -= pending.weight;
            if let Some(kind) = pending.waits {
                self.pace.end(&mut connection.rhythm, kind);
            }
            self.send_answer(id, pending.answer, turn);
        }
    }

    fn send_answer(&mut self, id: ConnectionId, answer: Answer, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        // Nobody takes so little that this were too large, but for who says so.
        if let Answer::PubComp(packet_id, Reason::Success) = answer
            && connection.maximum_packet_size.is_none()
            && turn.answer(Brief { word: Word::PubComp, packet_id })
        {
            connection.unanswered = connection.unanswered.saturating_sub(1);
            return;
        }
        let ack = |packet_id, reason| Ack { packet_id, reason, properties: Properties::new() };
        let (packet, ends) = match answer {
            Answer::PubAck(packet_id, reason) => (Packet::PubAck(ack(packet_id, reason)), true),
            Answer::PubRec(packet_id, reason) => (Packet::PubRec(ack(packet_id, reason)), reason.is_error()),
            // One for an id that no publish has used ends none. [MQTT5-3.3.4-7]
            Answer::PubComp(packet_id, reason) => {
                (Packet::PubComp(ack(packet_id, reason)), !reason.is_error())
            }
            Answer::Other(packet) => (*packet, false),
        };
        if ends {
            connection.unanswered = connection.unanswered.saturating_sub(1);
        }
        let subscribed = matches!(packet, Packet::SubAck(_));
        let key = connection.client;
        if Broker::say(connection, packet, turn.effects) == Said::TooLarge {
            // The client would wait for it for ever.
            return self.part(id, Cause::Expelled(Reason::PacketTooLarge), turn);
        }
        if let Some(key) = key
            && subscribed
        {
            self.pump(key, turn);
        }
    }

    /// The client's second word on a QoS 2 publish: the packet id is free.
    pub(super) fn on_pubrel(&mut self, id: ConnectionId, packet_id: u16, turn: &mut Turn<'_>) {
        let held = self
            .connections
            .get(id)
            .and_then(|connection| self.clients.get(connection.client?)?.session.inward.of(packet_id));
        if held == Some(NEVER) {
            return; // It had no PUBREC, so it must not take the message for delivered.
        }
        let (known, ticket) = self.release_inward(id, packet_id, turn);
        let reason = if known { Reason::Success } else { Reason::PacketIdentifierNotFound };
        self.answer(id, ticket, Kind::Publish, Answer::PubComp(packet_id, reason), turn);
    }

    /// Frees a packet id of the publisher: whether it was held, and the write to wait for.
    fn release_inward(
        &mut self,
        id: ConnectionId,
        packet_id: u16,
        turn: &mut Turn<'_>,
    ) -> (bool, Option<Ticket>) {
        let key = self.connections.get(id).and_then(|connection| connection.client);
        let Some(key) = key else { return (false, None) };
        let Some(client) = self.clients.get_mut(key) else { return (false, None) };
        let known = client.session.inward.release(packet_id);
        // Committed before PUBCOMP: else a crash would bring the id back, and the client's next message
        // under it would pass for a repeat.
        let ticket = match &client.session.backlog {
            Some(backlog) if known => {
                let write = Write::InwardReleased { reader: backlog.reader, packet_id };
                Some(self.ledger.write(write, turn.effects))
            }
            _ => None,
        };
        self.memory.inward -= if known { INWARD_BYTES } else { 0 };
        (known, ticket)
    }
}

/// Why the topic of a publish cannot be used.
enum Unusable {
    /// Its packet breaks the rules, and ends the connection.
    Wrong(Reason),
    /// It has more levels or bytes than a topic may have here; as far as it can be said.
    TooLong(ByteString),
}

impl From<Reason> for Unusable {
    fn from(reason: Reason) -> Unusable {
        Unusable::Wrong(reason)
    }
}

/// What a packet id weighs that its publisher has not released.
pub(super) const INWARD_BYTES: usize = 24;

/// The write of a QoS 2 publish that was not kept: it is never committed.
const NEVER: Ticket = Ticket(u64::MAX);

/// Whether only the house itself publishes to this topic.
pub(super) fn is_reserved(topic: &str) -> bool {
    is_volatile(topic) || is_below(topic, "tidegate")
}

/// Whether the topic is never stored.
pub(super) fn is_volatile(topic: &str) -> bool {
    is_below(topic, "$SYS")
}

/// Whether the topic is this one, or one below it.
fn is_below(topic: &str, top: &str) -> bool {
    topic.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
