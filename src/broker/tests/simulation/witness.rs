//! What the simulation makes of each effect, and what must be true of it.
//!
//! Some of it is asserted at once, as that an answer leaves after its commit; the rest when all is drained.

use std::collections::BTreeSet;

use super::super::client::{Client, Duty};
use super::{World, is_group};
use crate::broker::{ConnectionId, Copy, Effect};
use crate::codec::{Packet, QoS};
use crate::record::{DropReason, LeaseState, Portion, ReaderId, Seq, Write};
use crate::router::filter;

impl World {
    pub(super) fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Write(write) => self.on_write(&write),
            Effect::Read { reader, after, limit } => {
                assert!(limit.rows > 0, "a question has an answer");
                match self.asked.iter().position(|known| *known == (reader, after, Portion::default())) {
                    Some(answered) => drop(self.asked.remove(answered)),
                    None => self.asked.push((reader, after, limit)),
                }
            }
            Effect::Close { connection } => {
                let client = &mut self.clients[connection.slot as usize];
                if client.connection() == connection {
                    client.go();
                }
            }
            Effect::Deliver(copy) => self.on_copy(&copy),
            Effect::Send { connection, packet } => self.on_packet(connection, packet),
            _ => {}
        }
    }

    fn on_write(&mut self, write: &Write) {
        match write {
            Write::SessionRemoved { reader } | Write::SessionLapsed { reader } => {
                self.on_session_removed(*reader);
            }
            Write::Dropped { reader, seq, reason: DropReason::Purged } => self.on_purged(*reader, *seq),
            Write::Leased { seq, holder: Some(ReaderId(0)), .. } => {
                // One that ends with its connection has just been sent it.
                let (payload, slot) = self.newest_given.clone().expect("it was sent");
                let given = self.given.entry(payload).or_default();
                given.remove(&(slot, Seq(0)));
                given.insert((slot, *seq));
            }
            Write::LeaseSent { reader, seq } => {
                let payload = self.payload_of(*reader, *seq).expect("a row is sent");
                self.unwritten.remove(&payload);
            }
            _ => {}
        }
        let ticket = self.model.write(write);
        self.written += 1;
        assert_eq!(ticket.0, self.written, "tickets count writes");
        self.is_kept_now |= matches!(write, Write::Session(record) if is_group(record));
        let Write::Message { seq, message, audience, .. } = write else { return };
        let payload = String::from_utf8_lossy(&message.payload).into_owned();
        let waited = self.is_kept_now && !self.heard.contains(&payload);
        if message.topic.starts_with("s/") && (waited || self.rowless.contains(&payload)) {
            self.late.insert(payload.clone());
        }
        self.copies.entry(payload.clone()).or_default().insert(*seq);
        let known = self.rows.get(&payload).is_some_and(|(known, _)| known != seq);
        self.rows.entry(payload.clone()).or_insert((*seq, ticket));
        if known {
            // A publisher's repeat: which of its rows arrives cannot be told.
            let (first, _) = self.rows[&payload];
            self.revived.insert(first);
        }
        // The audience is what the plain rule says.
        let mut expected = BTreeSet::new();
        for (reader, record) in &self.model.view.sessions {
            let best = record
                .subscriptions
                .iter()
                .filter(|known| filter::matches(&known.filter, &message.topic))
                .map(|known| known.options.qos.min(message.qos))
                .max();
            if best.is_some_and(|qos| qos > QoS::AtMostOnce) {
                expected.insert(*reader);
                if is_group(record) {
                    self.wanted.entry(payload.clone()).or_default().insert(GROUP);
                    if message.qos == QoS::ExactlyOnce && self.group_qos == "q2" {
                        self.once.insert(payload.clone());
                    }
                    continue;
                }
                let slot =
                    self.clients.iter().position(|client| client.id == *record.client_id).expect("a client");
                self.wanted.entry(payload.clone()).or_default().insert(slot);
            }
        }
        let named: BTreeSet<ReaderId> =
            audience.iter().map(|want| want.reader).filter(|reader| *reader != ReaderId(1)).collect();
        assert_eq!(named, expected, "seed {}: audience of {payload}", self.course.seed);
    }

    /// What waits for a session that ends is nobody's.
    fn on_session_removed(&mut self, reader: ReaderId) {
        let Some(record) = self.model.view.sessions.get(&reader) else { return };
        if is_group(record) {
            let rows = self.model.view.rows.get(&reader).into_iter().flatten();
            for payload in rows.map(|(_, (message, _))| String::from_utf8_lossy(&message.payload)) {
                self.promised_to_group.remove(&*payload);
            }
            for wanted in self.wanted.values_mut() {
                wanted.remove(&GROUP);
            }
            return;
        }
        let Some(slot) = self.clients.iter().position(|client| client.id == *record.client_id) else {
            return;
        };
        for wanted in self.wanted.values_mut().chain(self.promised.values_mut()) {
            wanted.remove(&slot);
        }
        self.excuse(slot);
    }

    /// Only what was sent to a member is over with that member's session. [MQTT5-4.8.2-5]
    fn on_purged(&mut self, reader: ReaderId, seq: Seq) {
        let Some(payload) = self.payload_of(reader, seq) else { return };
        let given = self.given.get(&payload).is_some_and(|given| given.iter().any(|(_, row)| *row == seq));
        assert!(given, "seed {}: {payload} is purged and was sent to nobody", self.course.seed);
    }

    fn payload_of(&self, reader: ReaderId, seq: Seq) -> Option<String> {
        let (message, _) = self.model.view.rows.get(&reader)?.get(&seq)?;
        Some(String::from_utf8_lossy(&message.payload).into_owned())
    }

    fn on_copy(&mut self, copy: &Copy) {
        let seed = self.course.seed;
        let slot = copy.connection.slot as usize;
        let payload = String::from_utf8_lossy(&copy.message.payload).into_owned();
        let client = &mut self.clients[slot];
        assert_eq!(client.connection(), copy.connection, "seed {seed}: a copy for a connection that is gone");
        if copy.qos == QoS::ExactlyOnce && client.kept {
            let leased = self.model.disk.leases.iter().any(|(key, lease)| {
                lease.packet_id == copy.packet_id
                    && self
                        .model
                        .disk
                        .sessions
                        .get(&lease.holder.unwrap_or(key.0))
                        .is_some_and(|record| *record.client_id == *client.id)
            });
            assert!(leased, "seed {seed}: {payload} left before its packet id was committed");
        }
        if !self.copies.contains_key(&payload) {
            self.rowless.insert(payload.clone());
        }
        if copy.qos == QoS::ExactlyOnce && copy.message.topic.starts_with("s/") {
            let leased = self.model.view.leases.iter().find(|(key, lease)| {
                let holder = self.model.view.sessions.get(&lease.holder.unwrap_or(key.0));
                lease.packet_id == copy.packet_id
                    && holder.is_some_and(|record| *record.client_id == *client.id)
            });
            let seq = leased.map_or(Seq(0), |(key, _)| key.1);
            self.newest_given = Some((payload.clone(), slot));
            self.given.entry(payload.clone()).or_default().insert((slot, seq));
        }
        let row = self.rows.get(&payload).map(|(seq, _)| *seq).filter(|seq| !self.revived.contains(seq));
        client.on_copy(copy, &payload, row, seed);
    }

    fn on_packet(&mut self, connection: ConnectionId, packet: Packet) {
        let seed = self.course.seed;
        let client = &mut self.clients[connection.slot as usize];
        assert_eq!(client.connection(), connection, "seed {seed}: {packet:?} for a connection that is gone");
        let reader = self
            .model
            .disk
            .sessions
            .values()
            .find(|record| *record.client_id == *client.id)
            .map(|record| record.reader);
        let kept = client.kept;
        let id = client.id.clone();
        match client.duty(&packet) {
            Duty::Acknowledged(payload, packet_id) => {
                if let Some((_, ticket)) = self.rows.get(&payload) {
                    assert!(
                        *ticket <= self.model.committed || self.late.contains(&payload),
                        "seed {seed}: {payload} acknowledged before its commit"
                    );
                }
                if let Some(packet_id) = packet_id.filter(|_| kept) {
                    let held =
                        reader.is_some_and(|reader| self.model.disk.inward.contains(&(reader, packet_id)));
                    assert!(held, "seed {seed}: PUBREC {packet_id} of {id} before its commit");
                }
                if !client_is_deaf(&self.clients, connection) {
                    let mut wanted = self.wanted.get(&payload).cloned().unwrap_or_default();
                    if wanted.remove(&GROUP) {
                        self.promised_to_group.insert(payload.clone());
                    }
                    self.promised.entry(payload).or_default().extend(wanted);
                }
            }
            Duty::Freed(packet_id) if kept => {
                let held = reader.is_some_and(|reader| self.model.disk.inward.contains(&(reader, packet_id)));
                assert!(!held, "seed {seed}: PUBCOMP {packet_id} of {id} before its commit");
            }
            Duty::Released(packet_id) if kept => {
                let received = self.model.disk.leases.iter().any(|(key, lease)| {
                    Some(lease.holder.unwrap_or(key.0)) == reader
                        && lease.packet_id == packet_id
                        && lease.state == LeaseState::Received
                });
                assert!(received, "seed {seed}: PUBREL {packet_id} to {id} before its commit");
            }
            Duty::Stands if kept => {
                assert!(reader.is_some(), "seed {seed}: CONNACK of {id} before its commit")
            }
            Duty::Subscribed if kept => {
                let known = reader.and_then(|reader| self.model.disk.sessions.get(&reader));
                assert!(
                    known.is_some_and(|record| !record.subscriptions.is_empty()),
                    "seed {seed}: SUBACK of {id} before its commit"
                );
            }
            _ => {}
        }
        self.clients[connection.slot as usize].on_packet(&packet, seed);
    }

    pub(super) fn nothing_is_missing(&self) {
        let seed = self.course.seed;
        for (payload, wanted) in &self.promised {
            for slot in wanted {
                let client = &self.clients[*slot];
                let taken = self.model.view.taken.iter().any(|(reader, row)| {
                    self.copies.get(payload).is_some_and(|rows| rows.contains(row))
                        && self
                            .model
                            .view
                            .sessions
                            .get(reader)
                            .is_some_and(|record| *record.client_id == *client.id)
                });
                let got = client.got.get(payload).copied().unwrap_or(0);
                assert!(
                    got > 0 || taken || !client.kept,
                    "seed {seed}: {payload} is missing at {}",
                    client.id
                );
            }
        }
        let got = |payload: &str| {
            self.clients.iter().filter_map(|client| client.got.get(payload)).copied().sum::<u32>()
        };
        for payload in &self.promised_to_group {
            let rows = self.copies.get(payload);
            let taken = |(_, row): &(ReaderId, Seq)| rows.is_some_and(|rows| rows.contains(row));
            let taken = self.model.view.taken.iter().any(taken);
            assert!(got(payload) > 0 || taken, "seed {seed}: {payload} is missing at every member");
        }
        for payload in self.once.difference(&self.excused) {
            assert!(
                got(payload) <= 1,
                "seed {seed}: {payload} of QoS 2 went to the group {} times",
                got(payload)
            );
        }
        for (reader, rows) in &self.model.view.rows {
            if *reader != ReaderId(1) {
                assert!(
                    rows.is_empty(),
                    "seed {seed}: {reader:?} still has {:?}",
                    rows.keys().collect::<Vec<_>>()
                );
            }
        }
        let leases = &self.model.view.leases;
        assert!(leases.is_empty(), "seed {seed}: exchanges that never end: {leases:?}");
        assert_eq!(self.broker.counters().paused, 0, "seed {seed}: somebody waits for ever");
        let counters = self.broker.counters();
        assert!(counters.not_accepted == 0 || self.course.refuses);
        assert_eq!(counters.waiting_for_room, 0, "seed {seed}: somebody waits for room for ever");
        // A start begins to count anew.
        if !self.course.crashes {
            let counted = self.broker.counters().dropped.get(&DropReason::QueueFull).copied();
            let taken = self.model.view.over;
            assert_eq!(counted.unwrap_or(0), taken, "seed {seed}: rows that a limit took");
        }
    }
}

fn client_is_deaf(clients: &[Client], connection: ConnectionId) -> bool {
    clients[connection.slot as usize].deaf
}

/// Stands for the group among the slots that want a message.
const GROUP: usize = usize::MAX;
