//! The end of a connection and of a session, and the will that either leaves behind.
//!
//! A will is published when its delay is over or its session ends, whichever is first, and never when
//! the client has said goodbye or is back in time.

use std::sync::Arc;

use bytestring::ByteString;

use super::client::{Client, ClientKey};
use super::connect::due_after;
use super::connection::{Connection, Held, Phase};
use super::fan::Pressure;
use super::memory::{Level, will_weight};
use super::publish::{INWARD_BYTES, is_volatile};
use super::repeat::Ending;
use super::{Broker, ConnectionId, Effect, Note, Turn, Verdict};
use crate::codec::{Connect, Disconnect, Packet, Properties, QoS, Reason, Version};
use crate::record::{DropReason, Message, Now, SessionWill, Ticket, Write};

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// DISCONNECT, without the will.
    Goodbye,
    /// DISCONNECT that asks for the will.
    GoodbyeWithWill,
    /// It broke.
    Lost,
    /// We end it.
    Expelled(Reason),
    /// Its client connected anew and goes on with the session.
    TakenOver,
    /// Its client connected anew and wants none of the session.
    Replaced,
    /// The service stops.
    Stopping,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// Its client wants none of it any more.
    Asked,
    /// Its time is over, or another needs its place.
    Lapsed,
}

impl Cause {
    /// Why a session ends that ends with the connection.
    fn removal(self) -> Removal {
        match self {
            Cause::Goodbye | Cause::GoodbyeWithWill | Cause::Replaced => Removal::Asked,
            Cause::Lost | Cause::Expelled(_) | Cause::TakenOver | Cause::Stopping => Removal::Lapsed,
        }
    }

    /// What DISCONNECT says where the server sends it.
    fn told(self) -> Option<Reason> {
        match self {
            Cause::Goodbye | Cause::GoodbyeWithWill | Cause::Lost => None,
            Cause::Expelled(reason) => Some(reason),
            Cause::TakenOver | Cause::Replaced => Some(Reason::SessionTakenOver), // [MQTT5-3.1.4-3]
            Cause::Stopping => Some(Reason::ServerShuttingDown),
        }
    }

    /// What the log says of it.
    fn note(self, client_id: ByteString, peer: String) -> Note {
        let reason = match (self, self.told()) {
            (Cause::Lost, _) => return Note::Lost { client_id, peer },
            (_, Some(reason)) => reason,
            (Cause::GoodbyeWithWill, None) => Reason::DisconnectWithWill,
            (_, None) => Reason::Success,
        };
        Note::Disconnected { client_id, peer, reason }
    }
}

impl Broker {
    pub(super) fn on_disconnect(&mut self, id: ConnectionId, disconnect: &Disconnect, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get(id) else { return };
        let Some(key) = connection.client else { return };
        if connection.version == Version::V5
            && let Some(expiry) = disconnect.properties.session_expiry()
            && let Some(client) = self.clients.get_mut(key)
        {
            // [MQTT5-3.14.2.2.2]
            if client.session.expiry == 0 && expiry > 0 {
                return self.expel(id, Reason::ProtocolError, turn);
            }
            client.session.expiry = expiry.min(self.config.limits.max_session_expiry);
        }
        let cause = match disconnect.reason {
            Reason::Success => Cause::Goodbye, // [MQTT5-3.14.4-3] [MQTT311-3.14.4-3]
            _ => Cause::GoodbyeWithWill,
        };
        self.part(id, cause, turn);
    }

    pub(super) fn on_lost(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        self.take_slowed(id, turn);
        let has_room = self.level() == Level::Ample;
        let Some(connection) = self.connections.get_mut(id) else { return };
        match connection.phase {
            // It counts as said by whoever it turns out to be. Of QoS 1 and 2 the client keeps it.
            Phase::Verifying(_) if has_room && connection.held.iter().any(Held::is_once) => {
                return self.connections.outlive(id);
            }
            // Its session is there, whether that is on disk yet or not.
            Phase::Opening(_) => self.take_held(id, turn),
            _ => {}
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        // What waits for the store and was not answered is forgotten; only its goodbye counts.
        let place =
            connection.held.iter().position(|held| matches!(held, Held::Packet(Packet::Disconnect(_))));
        let goodbye = place.and_then(|place| connection.held.remove(place));
        self.memory.held -= goodbye.as_ref().map_or(0, Held::weight);
        match goodbye {
            Some(Held::Packet(Packet::Disconnect(disconnect))) if connection.client.is_some() => {
                self.on_disconnect(id, &disconnect, turn);
            }
            _ => self.part(id, Cause::Lost, turn),
        }
    }

    /// The client was gone before its password was compared: what it has said is taken as if it had gone after.
    /// Whoever has come under its client id since is let alone.
    pub(super) fn on_verified_late(
        &mut self,
        id: ConnectionId,
        connect: Connect,
        verdict: Verdict,
        turn: &mut Turn<'_>,
    ) {
        let former = self.clients.named(&connect.client_id).and_then(|key| self.clients.get(key));
        let is_back = former.is_some_and(|client| client.connection.is_some());
        let accepted = verdict == Verdict::Accepted && !is_back && self.objection(id, &connect).is_none();
        let before = turn.effects.len();
        if accepted {
            self.admit(id, connect, turn);
            self.on_lost(id, turn);
        } else {
            self.drop_connection(id, turn);
        }
        // There is nobody to be told anything.
        let said = turn.effects.split_off(before);
        turn.effects.extend(said.into_iter().filter(|effect| effect.connection() != Some(id)));
    }

    /// Forgets what a connection that is over held and waited for.
    pub(super) fn forget_held(&mut self, connection: &mut Connection) {
        self.pace.forget(&mut connection.rhythm);
        self.memory.unproven -= connection.unproven();
        self.forget_refused(connection);
        let mut lost = 0;
        for held in connection.held.drain(..) {
            self.memory.held -= held.weight();
            lost += u64::from(held.is_once());
        }
        self.memory.held -= connection.answers.drain(..).map(|pending| pending.weight).sum::<usize>();
        self.memory.held -= std::mem::take(&mut connection.connect) as usize;
        self.memory.aliases -= connection.aliases.take().map_or(0, |aliases| aliases.weight());
        // Of QoS 1 and 2 the client keeps what was not answered.
        match connection.phase {
            Phase::Waiting | Phase::Opening(_) => self.counters.drop(DropReason::StoreBusy, lost),
            // It had taken too much memory, else they would have been taken.
            Phase::Slowed(_) => self.counters.drop(DropReason::MemoryFull, lost),
            Phase::Fresh | Phase::Verifying(_) | Phase::Authenticating(_) | Phase::Open | Phase::Ending => {
                self.counters.not_accepted += lost;
            }
        }
    }

    /// Ends a connection for a reason that an MQTT 5 client is told.
    pub(super) fn expel(&mut self, id: ConnectionId, reason: Reason, turn: &mut Turn<'_>) {
        if self.refuse_unproven(id, reason, turn) {
            return;
        }
        let Some(connection) = self.connections.get(id) else { return };
        if matches!(connection.phase, Phase::Fresh) && connection.client.is_none() {
            // [MQTT5-3.1.2-2] [MQTT311-3.1.2-2]
            if reason == Reason::UnsupportedProtocolVersion {
                turn.effects.push(Effect::Speak {
                    connection: id,
                    version: Version::V311,
                    maximum_packet_size: None,
                    topic_alias_maximum: 0,
                });
                return self.refuse(id, Default::default(), reason, turn);
            }
            return self.drop_connection(id, turn);
        }
        self.part(id, Cause::Expelled(reason), turn);
    }

    /// Closes a connection that never had a session.
    pub(super) fn drop_connection(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        let is_gone = self.connections.is_gone(id);
        if let Some(mut connection) = self.connections.remove(id) {
            self.forget_held(&mut connection);
            self.counters.connections_refused += 1;
            if !is_gone {
                turn.effects.push(Effect::Close { connection: id });
            }
        }
    }

    /// Ends a connection; its session goes on alone, or ends too.
    pub(super) fn part(&mut self, id: ConnectionId, cause: Cause, turn: &mut Turn<'_>) {
        // Whoever is expelled is so in the middle of another's publish.
        if !matches!(cause, Cause::Expelled(_)) {
            self.take_slowed(id, turn);
        }
        let is_gone = self.connections.is_gone(id);
        let Some(mut connection) = self.connections.remove(id) else { return };
        self.forget_held(&mut connection);
        if let Phase::Waiting = connection.phase {
            self.waiting.retain(|waiting| *waiting != id);
        }
        if cause != Cause::Lost && !is_gone {
            if let (Some(reason), Version::V5, true) =
                (cause.told(), connection.version, connection.is_open())
            {
                let packet = Packet::Disconnect(Disconnect { reason, properties: Properties::new() });
                Broker::say(&connection, packet, turn.effects);
            }
            turn.effects.push(Effect::Close { connection: id });
        }
        let Some(key) = connection.client else { return };
        self.network_clients -= u32::from(!connection.is_port());
        self.counters.clients -= 1;
        self.counters.house_clients -= u64::from(connection.is_of_the_house());
        if let (Some(client), Some(reason), true) =
            (self.clients.get(key), cause.told(), connection.is_of_the_house())
        {
            self.turned_away.insert(client.session.client_id.clone(), reason);
        }
        self.leave(key, cause, connection.peer.name, turn);
    }

    /// The session is without a connection.
    fn leave(&mut self, key: ClientKey, cause: Cause, peer: String, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.connection = None;
        client.outlet = None;
        if !client.session.subscriptions.is_empty() {
            self.atlas.close();
        }
        let ends = client.session.ends_with_connection();
        if !ends {
            self.release_shared(key, Ending::Connection, turn);
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        client.session.detach();
        let client_id = client.session.client_id.clone();
        turn.effects.push(Effect::Note(cause.note(client_id, peer)));
        if cause == Cause::Goodbye {
            self.memory.wills -= client.set_will(None); // [MQTT311-3.1.2-10] [MQTT5-3.1.2-10]
        }
        let expiry = client.session.expiry;
        if ends {
            return self.end_session(key, cause.removal(), turn);
        }
        let delay =
            client.will.as_ref().and_then(|will| will.properties.will_delay()).unwrap_or(0).min(expiry);
        client.ends = due_after(turn.now.mono, 0, expiry);
        client.will_due = client.will.as_ref().and_then(|_| due_after(turn.now.mono, 0, delay));
        self.clients.set_ended(key, Some(turn.now.house));
        if delay == 0 {
            self.publish_will(key, turn);
        }
        self.write_session(key, turn);
        self.arm_client(key);
    }

    /// A limit ends a connection: what its client was to have is lost where the session ends with it, and counted. A
    /// group gives what is its own to another.
    pub(super) fn count_lost(&mut self, key: ClientKey, reason: DropReason) {
        let Some(Client { session, .. }) = self.clients.get(key) else { return };
        if session.ends_with_connection() {
            self.counters.drop(reason, session.waiting().0 + session.flight.unanswered() as u64);
        }
    }

    /// Whoever is here under this client id goes, and with a clean start the session, too. What the store had of it is
    /// gone with the write of this ticket: it would be back after a crash, and its client told that there is none.
    pub(super) fn supersede(&mut self, client_id: &str, connect: &Connect, turn: &mut Turn<'_>) -> Ticket {
        // [MQTT311-3.1.4-2] [MQTT5-3.1.4-3]
        if let Some(connection) =
            self.clients.named(client_id).and_then(|key| self.clients.get(key)?.connection)
        {
            let cause = if connect.clean_start { Cause::Replaced } else { Cause::TakenOver };
            self.part(connection, cause, turn);
        }
        if connect.clean_start
            && let Some(key) = self.clients.named(client_id)
        {
            self.end_session(key, Removal::Asked, turn); // [MQTT311-3.1.2-6] [MQTT5-3.1.2-4]
        }
        self.ledger.gone_with(client_id)
    }

    /// The session is over; its will, if one is left, is due. [MQTT5-3.1.2-8]
    pub(super) fn end_session(&mut self, key: ClientKey, removal: Removal, turn: &mut Turn<'_>) {
        self.publish_will(key, turn);
        self.leave_groups(key, turn);
        let Some(client) = self.clients.remove(key) else { return };
        self.leave_rate(&client, turn.now.mono);
        self.memory.names -= client.names as usize;
        self.memory.inward -= client.session.inward.len() * INWARD_BYTES;
        self.memory.queues -= client.session.line.weight();
        let subscriber = self.subscriber(key.slot);
        for subscription in &client.session.subscriptions {
            self.router.unsubscribe(&subscription.filter, subscriber);
        }
        if let Some(backlog) = client.session.backlog {
            let reader = backlog.reader;
            match removal {
                Removal::Asked => self.ledger.throw_away(client.session.client_id, reader, turn.effects),
                Removal::Lapsed => _ = self.ledger.write(Write::SessionLapsed { reader }, turn.effects),
            }
        }
    }

    fn publish_will(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.will_due = None;
        let Some(will) = client.will.take() else { return };
        self.memory.wills -= will_weight(&will);
        let SessionWill { qos, retain, topic, payload, properties } = *will;
        if !self.clients.get(key).is_some_and(|client| self.may_publish(client, &topic)) {
            return self.count_withheld(&topic, DropReason::Denied);
        }
        let message = Message {
            qos: if is_volatile(&topic) { QoS::AtMostOnce } else { qos },
            topic,
            payload,
            retain: retain && self.config.limits.retain,
            properties: properties.travelling(),
            expiry: properties.message_expiry(),
            received: turn.now.house,
            unclocked: false,
        };
        self.route(Arc::new(message), Some(key.slot), None, Pressure::Force, turn);
    }

    /// The clock was set, and tells how long the machine had been off: who has been away since before that
    /// has been away for longer than it seemed.
    pub(super) fn age_sessions(&mut self, now: Now) {
        self.mend = now.span.mend;
        self.retained.mend(self.mend);
        self.arm_retained(now);
        for key in self.clients.keys() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            let Some(ended) = client.ended else { continue };
            let (passed, expiry) = (now.age(ended), client.session.expiry);
            client.ends = due_after(now.mono, passed, expiry);
            if client.will_due.is_some() {
                let will = client.will.as_ref();
                let delay = will.and_then(|will| will.properties.will_delay()).unwrap_or(0).min(expiry);
                client.will_due = due_after(now.mono, passed, delay);
            }
            self.arm_client(key);
        }
    }

    /// A will's delay or a session's expiry may be over.
    pub(super) fn on_client_due(&mut self, key: ClientKey, armed: u64, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.armed != armed {
            return;
        }
        client.armed = u64::MAX;
        let is_over = |due: Option<u64>| due.is_some_and(|due| due <= turn.now.mono);
        if client.connection.is_some() {
            return;
        }
        if is_over(client.ends) {
            self.counters.sessions_expired += 1;
            return self.end_session(key, Removal::Lapsed, turn);
        }
        if is_over(client.will_due) {
            self.publish_will(key, turn);
            self.write_session(key, turn);
        }
        self.arm_client(key);
    }

    /// The service stops: what was held back first, since it came before; then wills, while there is somebody
    /// to hear them; then every client.
    pub(super) fn on_stop(&mut self, turn: &mut Turn<'_>) {
        for id in self.connections.ids() {
            self.take_slowed(id, turn);
        }
        for key in self.clients.keys() {
            let leaves_now = self.clients.get(key).is_some_and(|client| {
                let delayed =
                    client.will.as_ref().is_some_and(|will| will.properties.will_delay().unwrap_or(0) > 0);
                client.connection.is_some() && !(delayed && client.session.backlog.is_some())
            });
            if leaves_now {
                self.publish_will(key, turn);
            }
        }
        for id in self.connections.ids() {
            self.part(id, Cause::Stopping, turn);
        }
    }
}
