//! All clients: by address, by client id, by port, and by what is due next.
//!
//! Finds the client that an event is for, opens and closes its port, and decides who gives way when two
//! claim one address or one client id. At [`Checked::max_clients`](crate::Checked) the client that has
//! been away longest is forgotten; when all are connected, a new one is told "congestion".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use adapter_api::{FromPort, Refusal, ToPort};
use bytes::Bytes;

use super::client::{Client, Ears, Fate, Life};
use super::inward::connack_code;
use super::pace::Pace;
use super::strangers::{Departed, Unconnected};
use super::{Effect, Lost, Note, Peer, PortNumber, Turn};
use crate::codec::{Connect, Malformed, Message, Publish, QosField, ReturnCode, decode};

#[derive(Default)]
pub(super) struct Clients {
    table: BTreeMap<Slot, Client>,
    by_peer: BTreeMap<Peer, Slot>,
    by_name: BTreeMap<String, Slot>,
    by_port: BTreeMap<PortNumber, Slot>,
    /// One entry at most for each client; may be early, is never late.
    alarms: BTreeSet<(Duration, Slot)>,
    departed: Departed,
    unconnected: Unconnected,
    pace: Pace,
    /// The last slot or port number.
    last: u64,
}

/// A client's place in the table, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slot(u64);

impl Clients {
    pub(super) fn datagram(&mut self, from: Peer, octets: &Bytes, turn: &mut Turn<'_>) {
        turn.counters.received += 1;
        if !self.pace.hears(&from, turn.now, turn.settings) {
            turn.counters.ignored_too_fast += 1;
            return;
        }
        if octets.len() > turn.settings.max_packet {
            turn.counters.ignored_too_large += 1;
            return;
        }
        match decode(octets) {
            Ok(message) => self.message(from, message, turn),
            Err(Malformed::ReservedType(_)) => turn.counters.ignored_reserved += 1,
            Err(_) => turn.counters.ignored_malformed += 1,
        }
    }

    fn message(&mut self, from: Peer, message: Message, turn: &mut Turn<'_>) {
        match message {
            Message::Publish(publish) if publish.qos == QosField::MinusOne => self.unconnected(publish, turn),
            Message::SearchGw { .. } => {
                // [SN-6.1] To the asker; a network that needs the broadcast has ADVERTISE.
                let gateway_id = turn.settings.gateway_id;
                turn.answer(&from, &Message::GwInfo { gateway_id, address: Bytes::new() });
            }
            Message::Connect(connect) => self.connect(from, connect, turn),
            Message::Encapsulated { .. } => turn.counters.ignored_encapsulated += 1,
            // What only gateways send; two of them that face each other must not talk for ever.
            Message::Advertise { .. }
            | Message::GwInfo { .. }
            | Message::ConnAck(_)
            | Message::WillTopicReq
            | Message::WillMsgReq
            | Message::SubAck { .. }
            | Message::UnsubAck(_)
            | Message::WillTopicResp(_)
            | Message::WillMsgResp(_) => turn.counters.ignored_unexpected += 1,
            other => {
                if let Message::PingReq(Some(name)) = &other {
                    self.follow(name, &from);
                }
                match self.by_peer.get(&from) {
                    Some(&slot) => self.serve(slot, from, other, turn),
                    None => self.stranger(&from, &other, turn),
                }
            }
        }
    }

    /// A sleeper that wakes up at another address, as behind a NAT, is known by its client id: as sure a
    /// sign as CONNECT has. One that is active is not moved.
    fn follow(&mut self, name: &str, from: &Peer) {
        let Some(&slot) = self.by_name.get(name) else { return };
        if self.by_peer.contains_key(from) || !self.table.get(&slot).is_some_and(Client::is_sleeping) {
            return;
        }
        self.unbind(slot);
        if let Some(client) = self.table.get_mut(&slot) {
            client.peer = from.clone();
            self.by_peer.insert(from.clone(), slot);
            self.departed.forget(from);
        }
    }

    fn serve(&mut self, slot: Slot, from: Peer, message: Message, turn: &mut Turn<'_>) {
        let Some(client) = self.table.get_mut(&slot) else { return };
        if let Message::PingReq(Some(name)) = &message
            && *name != client.connect.client_id
        {
            // Somebody else speaks from this address now, and has no connection.
            return self.stranger(&from, &message, turn);
        }
        let fate = client.receive(message, turn);
        self.settle(slot, fate, turn);
    }

    /// [SN-6.12] Who needs a connection and has none is told so.
    fn stranger(&mut self, from: &Peer, message: &Message, turn: &mut Turn<'_>) {
        turn.counters.ignored_strangers += 1;
        let answer = match message {
            // A gateway answers DISCONNECT only to those whose connection it has ended itself.
            Message::Disconnect(_) => self.departed.may_answer(from, turn.now),
            Message::PingResp => false,
            _ => true,
        };
        if answer {
            turn.answer(from, &Message::Disconnect(None));
        }
    }

    fn unconnected(&mut self, publish: Publish, turn: &mut Turn<'_>) {
        let fresh = PortNumber(self.last + 1);
        if self.unconnected.publish(publish, fresh, turn) == super::strangers::Opened::Now {
            self.last = fresh.0;
        }
    }

    fn connect(&mut self, from: Peer, connect: Connect, turn: &mut Turn<'_>) {
        if self.is_repeated(&from, &connect, turn) {
            return;
        }
        if let Err(code) = self.admit(&connect, turn) {
            turn.counters.refused_connects += 1;
            return turn.answer(&from, &Message::ConnAck(code));
        }
        // One address, one client: who spoke from here before is not reached any more.
        if let Some(&old) = self.by_peer.get(&from)
            && self.table.get(&old).is_some_and(|client| client.connect.client_id != connect.client_id)
        {
            self.lose(old, Lost::Displaced, turn);
        }
        let slot = self.slot_of(&from, &connect, turn.now);
        let roused = self.table.get(&slot).is_some_and(|client| client.is_roused_by(&connect));
        if !roused {
            // [SN-6.3] A CONNECT deletes or replaces a will, it does not publish it.
            self.close_port(slot, turn);
        }
        self.unbind(slot);
        let Some(client) = self.table.get_mut(&slot) else { return };
        self.by_peer.insert(from.clone(), slot);
        self.departed.forget(&from);
        let fate = if roused {
            client.rouse(connect, from, turn);
            Fate::Stays
        } else {
            client.end(turn);
            client.begin(connect, from, turn)
        };
        self.settle(slot, fate, turn);
    }

    /// A CONNECT word for word like the last one, before the client has gone on, is a repetition.
    fn is_repeated(&mut self, from: &Peer, connect: &Connect, turn: &mut Turn<'_>) -> bool {
        let Some(client) = self.by_peer.get(from).and_then(|slot| self.table.get_mut(slot)) else {
            return false;
        };
        let unheard = client.life == Life::Active && client.ears == Ears::Quiet;
        let repeated = client.connect == *connect && (client.is_opening() || unheard);
        if repeated {
            turn.counters.repeated += 1;
            client.heard = turn.now;
            client.ask_again(turn);
        }
        repeated
    }

    /// Whether a CONNECT can be served, and makes room where somebody has to give way.
    fn admit(&mut self, connect: &Connect, turn: &mut Turn<'_>) -> Result<(), ReturnCode> {
        let length = connect.client_id.chars().count();
        if connect.protocol_id != PROTOCOL_ID
            || !(1..=CLIENT_ID_MAX).contains(&length)
            || self.unconnected.owns(&connect.client_id, turn.settings)
        {
            return Err(ReturnCode::NotSupported);
        }
        if self.table.values().filter(|client| client.is_opening()).count() >= HANDSHAKES_MAX {
            return Err(ReturnCode::Congestion);
        }
        if self.by_name.contains_key(&connect.client_id) {
            return Ok(());
        }
        if !self.pace.admits_newcomer(turn.now, turn.settings) {
            turn.counters.refused_newcomers += 1;
            return Err(ReturnCode::Congestion);
        }
        if self.table.len() < turn.settings.max_clients {
            return Ok(());
        }
        let away = self.table.iter().filter(|(_, client)| client.is_away());
        let longest = away.min_by_key(|(_, client)| client.since).map(|(slot, _)| *slot);
        self.remove(longest.ok_or(ReturnCode::Congestion)?);
        Ok(())
    }

    fn slot_of(&mut self, from: &Peer, connect: &Connect, now: Duration) -> Slot {
        if let Some(slot) = self.by_name.get(&connect.client_id) {
            return *slot;
        }
        self.last += 1;
        let slot = Slot(self.last);
        self.by_name.insert(connect.client_id.clone(), slot);
        self.table.insert(slot, Client::new(connect.clone(), from.clone(), now));
        slot
    }

    fn settle(&mut self, slot: Slot, fate: Fate, turn: &mut Turn<'_>) {
        match fate {
            Fate::Stays => {}
            Fate::Opens => self.open(slot, turn),
            Fate::Refused(code) => {
                turn.counters.refused_connects += 1;
                self.tell(slot, &Message::ConnAck(code), turn);
                self.part(slot, turn);
            }
            Fate::Leaves => {
                // [SN-6.12] Answered without a duration; the will is not published.
                self.tell(slot, &Message::Disconnect(None), turn);
                if let Some(client) = self.table.get(&slot) {
                    self.departed.remember(client.peer.clone(), turn.now, turn.settings);
                }
                self.part(slot, turn);
            }
            Fate::GivesUp => self.part(slot, turn),
            Fate::Lost(why) => self.lose(slot, why, turn),
        }
        self.set_alarm(slot, turn);
    }

    /// Opens the session, or waits until the broker has closed the client's last port.
    fn open(&mut self, slot: Slot, turn: &mut Turn<'_>) {
        let Some(client) = self.table.get_mut(&slot) else { return };
        if client.life != Life::Opening {
            client.enter(Life::Opening, turn.now);
        }
        if client.leaving.is_none() {
            self.last += 1;
            let port = PortNumber(self.last);
            client.port = Some(port);
            self.by_port.insert(port, slot);
            turn.effects.push(Effect::Open { port, hello: client.hello(turn.settings) });
        }
    }

    fn tell(&mut self, slot: Slot, message: &Message, turn: &mut Turn<'_>) {
        if let Some(client) = self.table.get(&slot) {
            turn.answer(&client.peer, message);
        }
    }

    /// Closes the port cleanly; the broker's confirmation is awaited.
    fn close_port(&mut self, slot: Slot, turn: &mut Turn<'_>) {
        let Some(client) = self.table.get_mut(&slot) else { return };
        if let Some(port) = client.port.take() {
            client.leaving = Some(port);
            turn.ask(port, FromPort::Close);
        }
    }

    /// The connection has ended well, or never began.
    fn part(&mut self, slot: Slot, turn: &mut Turn<'_>) {
        self.close_port(slot, turn);
        self.disconnect(slot, turn);
    }

    /// [SN-6.14] The client is lost: its port is dropped, so that the broker publishes its will.
    fn lose(&mut self, slot: Slot, why: Lost, turn: &mut Turn<'_>) {
        let Some(client) = self.table.get_mut(&slot) else { return };
        turn.counters.lost += 1;
        let client_id = client.connect.client_id.clone();
        turn.effects.push(Effect::Note(Note::Lost { client_id, why }));
        if let Some(port) = client.port.take() {
            self.by_port.remove(&port);
            turn.effects.push(Effect::Drop { port });
        }
        self.disconnect(slot, turn);
    }

    /// The client has no connection any more; without anything to keep it is forgotten.
    fn disconnect(&mut self, slot: Slot, turn: &mut Turn<'_>) {
        let Some(client) = self.table.get_mut(&slot) else { return };
        client.end(turn);
        self.unbind(slot);
        self.forget_if_over(slot);
    }

    /// Takes the client's address from it, unless it is another's already.
    fn unbind(&mut self, slot: Slot) {
        if let Some(client) = self.table.get(&slot)
            && self.by_peer.get(&client.peer) == Some(&slot)
        {
            self.by_peer.remove(&client.peer);
        }
    }

    fn forget_if_over(&mut self, slot: Slot) {
        let over = |client: &Client| client.is_away() && client.connect.clean_session;
        if self.table.get(&slot).is_some_and(over) {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: Slot) {
        let Some(client) = self.table.remove(&slot) else { return };
        self.by_name.remove(&client.connect.client_id);
        if let Some(alarm) = client.alarm {
            self.alarms.remove(&(alarm, slot));
        }
    }

    pub(super) fn word(&mut self, port: PortNumber, word: ToPort, turn: &mut Turn<'_>) {
        let Some(&slot) = self.by_port.get(&port) else {
            return self.unconnected.word(port, &word, turn);
        };
        let Some(client) = self.table.get_mut(&slot).filter(|client| client.port == Some(port)) else {
            // The client has left; what the broker still had to say is of no use.
            return;
        };
        match word {
            ToPort::Connected { session_present } if client.life == Life::Opening => {
                client.connected(session_present, turn);
            }
            ToPort::Connected { .. } => {}
            ToPort::Published(acknowledgement) => client.published(&acknowledgement, turn),
            ToPort::Subscribed { id, result } => client.subscribed(id, result, turn),
            ToPort::Unsubscribed { id } => client.unsubscribed(id, turn),
            ToPort::Message(delivery) => client.deliver(delivery, turn),
            ToPort::Drained => client.drained(turn),
            ToPort::Closed(refusal) => self.closed(slot, refusal, turn),
        }
        self.set_alarm(slot, turn);
    }

    /// The broker has ended the client's session or refused it.
    fn closed(&mut self, slot: Slot, refusal: Refusal, turn: &mut Turn<'_>) {
        let Some(client) = self.table.get_mut(&slot) else { return };
        if let Some(port) = client.port.take() {
            self.by_port.remove(&port);
            turn.effects.push(Effect::Drop { port });
        }
        if client.life == Life::Opening {
            turn.counters.refused_connects += 1;
            turn.answer(&client.peer, &Message::ConnAck(connack_code(refusal)));
        } else {
            turn.answer(&client.peer, &Message::Disconnect(None));
        }
        self.disconnect(slot, turn);
    }

    pub(super) fn gone(&mut self, port: PortNumber, turn: &mut Turn<'_>) {
        let Some(slot) = self.by_port.remove(&port) else { return self.unconnected.gone(port) };
        let Some(client) = self.table.get_mut(&slot) else { return };
        if client.leaving == Some(port) {
            client.leaving = None;
            match client.life {
                Life::Opening => self.open(slot, turn),
                _ => self.forget_if_over(slot),
            }
        } else if client.port == Some(port) {
            self.closed(slot, Refusal::ShuttingDown, turn);
        }
        self.set_alarm(slot, turn);
    }

    /// A port takes no more requests: the client is lost to the broker, and the other way round.
    pub(super) fn choked(&mut self, port: PortNumber, turn: &mut Turn<'_>) {
        if let Some(&slot) = self.by_port.get(&port) {
            self.tell(slot, &Message::Disconnect(None), turn);
            self.lose(slot, Lost::Choked, turn);
        }
    }

    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        while let Some((due, slot)) = self.alarms.first().copied().filter(|(due, _)| *due <= turn.now) {
            self.alarms.remove(&(due, slot));
            let Some(client) = self.table.get_mut(&slot) else { continue };
            client.alarm = None;
            let fate = client.overdue(turn);
            self.settle(slot, fate, turn);
        }
    }

    /// Every client is told; sessions end cleanly.
    pub(super) fn stop(&mut self, turn: &mut Turn<'_>) {
        let connected: Vec<Slot> = self.by_peer.values().copied().collect();
        for slot in connected {
            self.tell(slot, &Message::Disconnect(None), turn);
            self.part(slot, turn);
        }
    }

    fn set_alarm(&mut self, slot: Slot, turn: &Turn<'_>) {
        let Some(client) = self.table.get_mut(&slot) else { return };
        let Some(due) = client.due(turn.settings) else { return };
        match client.alarm {
            // An early alarm sets the next one when it rings: no message has to move it.
            Some(alarm) if alarm <= due => return,
            Some(alarm) => self.alarms.remove(&(alarm, slot)),
            None => false,
        };
        client.alarm = Some(due);
        self.alarms.insert((due, slot));
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.alarms.first().map(|(due, _)| *due)
    }

    /// Clients that have an address, those of them that sleep, and all that are known.
    pub(super) fn census(&self) -> (u64, u64, u64) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let sleeping = self.table.values().filter(|client| client.is_sleeping()).count();
        (count(self.by_peer.len()), count(sleeping), count(self.table.len()))
    }

    pub(super) fn is_consistent(&self, settings: &crate::Checked) -> bool {
        let mut clients = self.table.iter();
        self.table.len() <= settings.max_clients
            && self.by_name.len() == self.table.len()
            && self.by_peer.values().all(|slot| self.table.contains_key(slot))
            && self.by_port.values().all(|slot| self.table.contains_key(slot))
            && self
                .alarms
                .iter()
                .all(|(due, slot)| self.table.get(slot).is_some_and(|c| c.alarm == Some(*due)))
            && clients.all(|(slot, client)| {
                let bound = self.by_peer.get(&client.peer) == Some(slot);
                bound == (client.life != Life::Disconnected)
                    && self.by_name.get(&client.connect.client_id) == Some(slot)
                    && client
                        .port
                        .iter()
                        .chain(&client.leaving)
                        .all(|port| self.by_port.get(port) == Some(slot))
                    && (client.port.is_none() || client.leaving.is_none())
                    && (client.life == Life::Active) <= client.port.is_some()
                    && client.topics.is_consistent(settings.max_topics)
                    && client.due(settings).is_none_or(|due| client.alarm.is_some_and(|alarm| alarm <= due))
            })
    }
}

/// [SN-5.3.8] MQTT-SN 1.2.
const PROTOCOL_ID: u8 = 0x01;

/// [SN-5.3.1] says 23 characters; real clients use more, and nothing here depends on it. Beyond: refused.
const CLIENT_ID_MAX: usize = 64;

/// Handshakes that may be open at a time. Beyond: "congestion"; each ends by itself after as long as a
/// client would repeat its CONNECT.
const HANDSHAKES_MAX: usize = 64;
