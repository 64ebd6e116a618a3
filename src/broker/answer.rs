//! A client's answers to what it was sent, and what their commits allow.
//!
//! For a kept session each answer is a write: the row is settled (lazily), a PUBREC is recorded before
//! PUBREL leaves, and a QoS 2 packet id is free only once the end of its exchange is committed. Nor is it free
//! because the message is gone: whoever has had PUBLISH would take the next one under it for a repeat.

use super::backlog::pubrel;
use super::client::{Client, ClientKey};
use super::ledger::Step;
use super::outlet::Label;
use super::share::Groups;
use super::{Broker, ConnectionId, Effect, Note, Turn};
use crate::codec::{Ack, Brief, QoS, Reason, Word};
use crate::record::{DropReason, ReaderId, Seq, Write};
use crate::session::{Exchange, Held, Sending, Stage};

impl Broker {
    fn client_of(&self, id: ConnectionId) -> Option<ClientKey> {
        self.connections.get(id)?.client
    }

    pub(super) fn on_puback(&mut self, id: ConnectionId, ack: &Ack, turn: &mut Turn<'_>) {
        let Some(key) = self.client_of(id) else { return };
        let Some(client) = self.clients.get_mut(key) else { return };
        let known = client
            .session
            .flight
            .find(ack.packet_id)
            .is_some_and(|exchange| exchange.qos == QoS::AtLeastOnce && exchange.sending.repeats());
        match known {
            true if ack.reason.is_error() => self.complete_refused(key, ack, turn),
            true => self.complete(key, ack.packet_id, turn),
            false => {}
        }
    }

    /// A client refuses a message: it is over with that, and not delivered.
    fn complete_refused(&mut self, key: ClientKey, ack: &Ack, turn: &mut Turn<'_>) {
        // No client says this; the engine does where a packet turns out to be too large for its client.
        let reason = if ack.reason == Reason::PacketTooLarge {
            DropReason::TooLarge
        } else {
            self.note_refused(key, ack, turn);
            DropReason::RefusedBySubscriber
        };
        self.end_exchange(key, ack.packet_id, Some(reason), turn);
        self.pump(key, turn);
    }

    fn note_refused(&self, key: ClientKey, ack: &Ack, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get(key) else { return };
        let words = ack.properties.reason_string().unwrap_or_default();
        turn.effects.push(Effect::Note(Note::RefusedMessage {
            client_id: client.session.client_id.clone(),
            reason: ack.reason,
            words: words.chars().take(WORDS_MAX).collect(),
        }));
    }

    pub(super) fn on_pubrec(&mut self, id: ConnectionId, ack: &Ack, turn: &mut Turn<'_>) {
        let Some(key) = self.client_of(id) else { return };
        let Some(client) = self.clients.get_mut(key) else { return };
        let packet_id = ack.packet_id;
        let exchange =
            client.session.flight.find(packet_id).filter(|exchange| exchange.qos == QoS::ExactlyOnce);
        let Some(exchange) = exchange else {
            let packet = pubrel(packet_id, Reason::PacketIdentifierNotFound);
            return turn.effects.push(Effect::Send { connection: id, packet });
        };
        let own = client.session.backlog.as_ref().map(|backlog| backlog.reader);
        let leased_by = leased_by(exchange, own, &self.groups);
        match exchange.stage {
            Stage::Sent if ack.reason.is_error() => self.complete_refused(key, ack, turn), // [MQTT5-4.3.3-4]
            Stage::Sent => match leased_by {
                Some(reader) => {
                    exchange.stage = Stage::Recording;
                    let row = (reader, exchange.seq);
                    self.record_release(key, packet_id, row, turn.effects);
                }
                None => {
                    exchange.stage = Stage::Released;
                    release(id, packet_id, turn);
                }
            },
            Stage::Released => release(id, packet_id, turn),
            // Not yet sent, not yet recorded, or over: nothing to say.
            Stage::Leasing | Stage::Recording | Stage::Ended => {}
        }
    }

    pub(super) fn on_pubcomp(&mut self, id: ConnectionId, packet_id: u16, turn: &mut Turn<'_>) {
        let Some(key) = self.client_of(id) else { return };
        let Some(client) = self.clients.get_mut(key) else { return };
        let released =
            client.session.flight.find(packet_id).is_some_and(|exchange| exchange.stage == Stage::Released);
        if released {
            self.complete(key, packet_id, turn);
        }
    }

    /// An exchange is over, and another may begin.
    pub(super) fn complete(&mut self, key: ClientKey, packet_id: u16, turn: &mut Turn<'_>) {
        self.end_exchange(key, packet_id, None, turn);
        self.pump(key, turn);
    }

    /// An exchange is over: the client has the message, or it is dropped.
    pub(super) fn end_exchange(
        &mut self,
        key: ClientKey,
        packet_id: u16,
        dropped: Option<DropReason>,
        turn: &mut Turn<'_>,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if let Some(id) = client.session.flight.find(packet_id).and_then(|exchange| exchange.group) {
            return self.end_shared(key, id, packet_id, dropped, turn);
        }
        match &mut client.session.backlog {
            Some(backlog) => {
                let Some(exchange) = client.session.flight.find(packet_id) else { return };
                backlog.finish(exchange.seq);
                let row = (backlog.reader, exchange.seq);
                let ticket = self.ledger.end_row(row, exchange.qos, dropped, turn.effects);
                if exchange.qos == QoS::ExactlyOnce {
                    client.session.flight.end(packet_id);
                    self.ledger.after(ticket, Step::End(key, packet_id));
                } else {
                    client.session.flight.remove(packet_id);
                }
            }
            None => {
                client.session.flight.remove(packet_id);
            }
        }
        if let Some(reason) = dropped {
            self.counters.drop(reason, 1);
        }
    }

    /// The message of an exchange can never be sent again: a rule or a limit takes it for this reason, or has
    /// taken it before. Where its client may hold a packet id of QoS 2, PUBREL ends the exchange at both sides:
    /// whoever knows nothing of it answers that, too. [MQTT5-4.3.3-11] [MQTT311-4.3.3-2]
    pub(super) fn abandon(
        &mut self,
        key: ClientKey,
        packet_id: u16,
        dropped: Option<DropReason>,
        turn: &mut Turn<'_>,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let own = client.session.backlog.as_ref().map(|backlog| backlog.reader);
        let Some(exchange) = client.session.flight.find(packet_id) else { return };
        let Some(reader) = leased_by(exchange, own, &self.groups) else {
            return self.end_exchange(key, packet_id, dropped, turn);
        };
        let (seq, may_be_held) = (exchange.seq, exchange.sending.repeats());
        if may_be_held {
            exchange.stage = Stage::Recording;
            // It has its place in the window as if PUBLISH had been sent.
            client.session.flight.resume(packet_id);
        }
        if let Some(reason) = dropped {
            self.ledger.write(Write::Dropped { reader, seq, reason }, turn.effects);
            self.counters.drop(reason, 1);
        }
        if may_be_held {
            self.record_release(key, packet_id, (reader, seq), turn.effects);
        } else {
            self.end_exchange(key, packet_id, None, turn);
        }
    }

    /// PUBREL is to leave for an exchange in [`Stage::Recording`].
    pub(super) fn record_release(
        &mut self,
        key: ClientKey,
        packet_id: u16,
        (reader, seq): (ReaderId, Seq),
        effects: &mut Vec<Effect>,
    ) {
        let ticket = self.ledger.write(Write::LeaseReceived { reader, seq }, effects);
        self.ledger.after(ticket, Step::Release(key, packet_id));
    }

    /// Message and packet id of a QoS 2 exchange are committed: PUBLISH leaves.
    pub(super) fn on_leased(&mut self, key: ClientKey, packet_id: u16, turn: &mut Turn<'_>) {
        if self.restricted && self.refuse_leased(key, packet_id, turn) {
            return;
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        let Client { session, outlet, .. } = client;
        let Some(exchange) = session.flight.find(packet_id) else { return };
        if exchange.stage != Stage::Leasing {
            return;
        }
        exchange.stage = Stage::Sent;
        // Without a parcel the client is away, or the row is still to be read again.
        if let (Some(outlet), Some(held)) = (outlet, exchange.parcel.take()) {
            let Held { parcel, .. } = *held;
            exchange.sending = Sending::Surely;
            let (seq, group) = (exchange.seq, exchange.group);
            let label = Label::of(&parcel.want, packet_id);
            outlet.deliver(parcel.message, label, &turn.now, &mut self.counters, turn.effects);
            if let Some(id) = group {
                self.note_sent(id, seq, turn);
            }
        }
    }

    /// What was to leave does not where the rules forbid it by now; what is a group's goes to another of it. Says
    /// whether that is so.
    fn refuse_leased(&mut self, key: ClientKey, packet_id: u16, turn: &mut Turn<'_>) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return false };
        let Some(exchange) = client.session.flight.find(packet_id) else { return false };
        let Some(held) = exchange.parcel.as_ref().filter(|_| exchange.stage == Stage::Leasing) else {
            return false;
        };
        let (topic, group) = (held.parcel.message.topic.clone(), exchange.group);
        if client.may_read(&topic) {
            return false;
        }
        match group {
            Some(id) => {
                self.return_drawn(key, packet_id, id, turn);
                self.pump_group(id, turn);
                self.pump(key, turn);
            }
            None => self.abandon(key, packet_id, Some(DropReason::Denied), turn),
        }
        true
    }

    /// PUBREC is committed: PUBREL leaves.
    pub(super) fn on_recorded(&mut self, key: ClientKey, packet_id: u16, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Client { session, outlet, .. } = client;
        let Some(exchange) = session.flight.find(packet_id) else { return };
        if exchange.stage != Stage::Recording {
            return;
        }
        exchange.stage = Stage::Released;
        if let Some(outlet) = outlet {
            let packet = pubrel(packet_id, Reason::Success);
            turn.effects.push(Effect::Send { connection: outlet.connection, packet });
            session.flight.resume(packet_id);
        }
    }

    /// The end of a QoS 2 exchange is committed: its packet id is free.
    pub(super) fn on_ended(&mut self, key: ClientKey, packet_id: u16, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let ended =
            client.session.flight.find(packet_id).is_some_and(|exchange| exchange.stage == Stage::Ended);
        if ended {
            client.session.flight.remove(packet_id);
            self.pump(key, turn);
        }
    }
}

/// Says PUBREL to who has said PUBREC.
fn release(id: ConnectionId, packet_id: u16, turn: &mut Turn<'_>) {
    if !turn.answer(Brief { word: Word::PubRel, packet_id }) {
        turn.effects.push(Effect::Send { connection: id, packet: pubrel(packet_id, Reason::Success) });
    }
}

/// The reader with the lease of a QoS 2 exchange. What is in no log, or whose client ends with its connection, has
/// nothing to be recorded.
fn leased_by(exchange: &Exchange, own: Option<ReaderId>, groups: &Groups) -> Option<ReaderId> {
    own.filter(|_| exchange.qos == QoS::ExactlyOnce && exchange.seq > Seq(0))?;
    match exchange.group {
        None => own,
        Some(id) => Some(groups.get(id)?.backlog.as_ref()?.reader),
    }
}

/// Characters of a client's reason that the log shows.
const WORDS_MAX: usize = 200;
