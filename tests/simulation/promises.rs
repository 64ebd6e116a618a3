//! What was promised to whom, and whether it was kept.
//!
//! A promise is made by an acknowledgement that leaves, so it is checked when it leaves: what it says must
//! be on disk by then. It is kept when the message has arrived at each who wanted it, or is counted as taken.

use std::collections::{BTreeMap, BTreeSet};

use super::books::State;
use super::cloud::Mood;
use super::world::{World, payload_of};
use crate::broker::tests::client::Duty;
use crate::broker::{ConnectionId, Copy, Event};
use crate::codec::{Packet, QoS};
use crate::record::{LeaseState, Message, ReaderId, Seq, SessionRecord, Want, Write};
use crate::router::filter;

#[derive(Default)]
pub(super) struct Promises {
    /// Payload to every row that holds it.
    pub(super) copies: BTreeMap<String, BTreeSet<Seq>>,
    /// Payloads that were acknowledged, and who must get them.
    promised: BTreeMap<String, BTreeSet<Who>>,
    /// Who wants a row.
    wanted: BTreeMap<Seq, BTreeSet<Who>>,
    /// Rows whose place in the order does not count.
    revived: BTreeSet<Seq>,
    /// Payloads for the group that were in RAM when it got its place in the log: they were for nobody durable
    /// when they came, so their acknowledgement waits for nothing.
    late: BTreeSet<String>,
    /// Payloads that were sent when they were in no row.
    rowless: BTreeSet<String>,
    /// What was published in this call of the broker.
    heard: BTreeSet<String>,
    /// Who was given a message in this call.
    given: BTreeSet<ReaderId>,
    /// The group has got its place in the log by this call.
    is_kept_now: bool,
    /// What has happened so far, counted.
    pub(super) moved: u64,
}

/// Somebody durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Client(usize),
    Group,
    Route(usize),
}

impl Promises {
    /// The broker is called.
    pub(super) fn begin(&mut self, events: &[Event]) {
        let heard = events.iter().filter_map(|event| match event {
            Event::Packet { packet: Packet::Publish(publish), .. } => Some(&publish.payload),
            _ => None,
        });
        self.heard = heard.map(|payload| String::from_utf8_lossy(payload).into_owned()).collect();
        self.is_kept_now = false;
    }

    /// The row that decides when a message may come, where there is one.
    pub(super) fn place_of(&self, payload: &str) -> Option<Seq> {
        let first = self.copies.get(payload)?.first()?;
        Some(*first).filter(|seq| !self.revived.contains(seq))
    }
}

impl World {
    /// The broker hands a write over.
    pub(super) fn on_write(&mut self, write: &Write) {
        self.promises.moved += 1;
        match write {
            Write::Session(record) => self.promises.is_kept_now |= is_group(record),
            Write::SessionRemoved { reader } | Write::SessionLapsed { reader } => {
                self.on_session_removed(*reader);
            }
            Write::Message { seq, message, audience, .. } => self.on_message(*seq, message, audience),
            _ => {}
        }
        self.books.on_write(write);
    }

    fn on_message(&mut self, seq: Seq, message: &Message, audience: &[Want]) {
        let payload = payload_of(message);
        let promises = &mut self.promises;
        let waited = promises.is_kept_now && !promises.heard.contains(&payload);
        if message.topic.starts_with("s/") && (waited || promises.rowless.contains(&payload)) {
            promises.late.insert(payload.clone());
        }
        let copies = promises.copies.entry(payload.clone()).or_default();
        copies.insert(seq);
        if let Some(first) = copies.first().filter(|_| copies.len() > 1) {
            // A publisher's repeat: which of its rows arrives cannot be told.
            promises.revived.insert(*first);
        }
        let again = copies.len() > 1;
        let named: BTreeSet<ReaderId> = audience.iter().map(|want| want.reader).collect();
        promises.given.extend(&named);
        // The audience is what the plain rule says.
        let wanting = self.wanting(message);
        let expected: BTreeSet<ReaderId> = wanting.iter().map(|(reader, _)| *reader).collect();
        if again && !message.topic.starts_with("t/") && named.len() == 1 && named.is_subset(&expected) {
            // The retained store gives it to one who has subscribed; or a group that now has a place in the log
            // puts there what it had in RAM.
            return;
        }
        assert_eq!(named, expected, "audience of {payload}");
        self.promises.wanted.insert(seq, wanting.into_iter().map(|(_, who)| who).collect());
    }

    /// Every durable destination of a message.
    fn wanting(&mut self, message: &Message) -> Vec<(ReaderId, Who)> {
        let routes = self.process().routes.clone();
        let matched = ["t/#", "+/0"].map(|route| filter::matches(route, &message.topic));
        let mut wanting: Vec<(ReaderId, Who)> = routes
            .into_iter()
            .enumerate()
            .filter(|(route, _)| matched[*route])
            .map(|(route, reader)| (reader, Who::Route(route)))
            .collect();
        for (reader, record) in &self.books.view.sessions {
            let covering =
                record.subscriptions.iter().filter(|known| filter::matches(&known.filter, &message.topic));
            let best = covering.map(|known| known.options.qos.min(message.qos)).max();
            if best.is_some_and(|qos| qos > QoS::AtMostOnce) {
                wanting.push((*reader, self.who(record).expect("a client of ours")));
            }
        }
        wanting
    }

    fn who(&self, record: &SessionRecord) -> Option<Who> {
        if is_group(record) {
            return Some(Who::Group);
        }
        let slot = self.clients.iter().position(|client| client.id == *record.client_id)?;
        Some(Who::Client(slot))
    }

    /// What waits for a session that ends is nobody's.
    fn on_session_removed(&mut self, reader: ReaderId) {
        let Some(record) = self.books.view.sessions.get(&reader) else { return };
        let who = self.who(record);
        let promises = &mut self.promises;
        if who == Some(Who::Group) {
            // Those that were sent are the members' by now.
            let rows =
                self.books.view.readers.get(&reader).map(|reader| &reader.wanted).into_iter().flatten();
            for payload in rows.map(|(seq, _)| payload_of(&self.books.messages[seq])) {
                if let Some(promised) = promises.promised.get_mut(&payload) {
                    promised.remove(&Who::Group);
                }
            }
            promises.wanted.values_mut().for_each(|wanted| {
                wanted.remove(&Who::Group);
            });
        } else if let Some(who) = who {
            let both = promises.wanted.values_mut().chain(promises.promised.values_mut());
            both.for_each(|list| {
                list.remove(&who);
            });
        }
    }

    pub(super) fn on_copy(&mut self, copy: &Copy) {
        self.promises.moved += 1;
        let payload = payload_of(&copy.message);
        let place = self.promises.place_of(&payload);
        let client = &mut self.clients[copy.connection.slot as usize];
        assert_eq!(client.connection(), copy.connection, "a copy for a connection that is gone");
        if copy.qos == QoS::ExactlyOnce && client.kept {
            let owner = self.books.disk.session_of(&client.id).map(|record| record.reader);
            let lease = owner.and_then(|owner| self.books.disk.lease_of(owner, copy.packet_id));
            let same = lease.is_some_and(|(seq, _)| {
                self.books.messages.get(&seq).map(|m| payload_of(m)) == Some(payload.clone())
            });
            assert!(same, "{payload} left before its packet id {} was committed", copy.packet_id);
        }
        if !self.promises.copies.contains_key(&payload) {
            self.promises.rowless.insert(payload.clone());
        }
        client.on_copy(copy, &payload, place, SEED);
    }

    pub(super) fn on_packet(&mut self, connection: ConnectionId, packet: Packet) {
        self.promises.moved += 1;
        let client = &self.clients[connection.slot as usize];
        assert_eq!(client.connection(), connection, "{packet:?} for a connection that is gone");
        let session = self.books.disk.session_of(&client.id);
        let reader = session.map(|record| record.reader);
        let held = |packet_id| {
            let reader = reader.and_then(|reader| self.books.disk.readers.get(&reader));
            reader.is_some_and(|reader| reader.inward.contains(&packet_id))
        };
        let (kept, id) = (client.kept, &client.id);
        match client.duty(&packet) {
            Duty::Acknowledged(payload, packet_id) => {
                if let Some(packet_id) = packet_id.filter(|_| kept) {
                    assert!(held(packet_id), "PUBREC {packet_id} of {id} before its commit");
                }
                let deaf = client.deaf;
                self.on_acknowledged(&payload, deaf);
            }
            Duty::Freed(packet_id) if kept => {
                assert!(!held(packet_id), "PUBCOMP {packet_id} of {id} before its commit");
            }
            Duty::Released(packet_id) if kept => {
                let lease = reader.and_then(|reader| self.books.disk.lease_of(reader, packet_id));
                let received = lease.is_some_and(|(_, held)| held.state == LeaseState::Received);
                assert!(received, "PUBREL {packet_id} to {id} before its commit");
            }
            Duty::Stands if kept => assert!(reader.is_some(), "CONNACK of {id} before its commit"),
            Duty::Subscribed if kept => {
                let known = session.is_some_and(|record| !record.subscriptions.is_empty());
                assert!(known, "SUBACK of {id} before its commit");
            }
            _ => {}
        }
        self.clients[connection.slot as usize].on_packet(&packet, SEED);
    }

    /// PUBACK or PUBREC leaves: what a durable destination wants is on disk.
    fn on_acknowledged(&mut self, payload: &str, is_lost: bool) {
        self.tally.acknowledged += 1;
        let last = Seq(self.books.disk.last_seq);
        let copies = self.promises.copies.get(payload);
        let committed = copies.is_none_or(|copies| copies.first().is_some_and(|first| *first <= last));
        assert!(
            committed || self.promises.late.contains(payload),
            "{payload} acknowledged before its commit"
        );
        if !is_lost {
            let promises = &mut self.promises;
            let rows = promises.copies.get(payload).into_iter().flatten().filter(|seq| **seq <= last);
            let wanted = rows.filter_map(|seq| promises.wanted.get(seq)).flatten().copied();
            promises.promised.entry(payload.to_owned()).or_default().extend(wanted);
        }
    }

    /// A command is acknowledged upward.
    pub(super) fn on_acknowledged_above(&mut self, payload: &str) {
        assert!(self.promises.copies.contains_key(payload), "a route wants {payload}, and it is in no row");
        self.on_acknowledged(payload, false);
    }

    /// Who was given a message by this call has no more waiting than its limit and its window allow; save while
    /// its rows are read or are to be counted, when nobody knows which of them the answer has.
    pub(super) fn check_bounds(&mut self, reading: &BTreeSet<ReaderId>) {
        let most = self.course.most_queued + WINDOW;
        let still = self.process().reading.clone();
        let given = std::mem::take(&mut self.promises.given);
        let now = self.now.mono;
        for reader in given.difference(reading).filter(|reader| !still.contains(reader)) {
            if self.process().broker.is_to_count(*reader, now) {
                continue;
            }
            let Some(record) = self.books.view.sessions.get(reader).filter(|record| !is_group(record)) else {
                continue;
            };
            let waiting = self.books.waiting(*reader);
            assert!(waiting <= most, "{} has {waiting} waiting and under way", record.client_id);
        }
    }

    /// After a cut: nothing that was acknowledged is missing on the disk.
    pub(super) fn on_restart(&mut self, before: &State) {
        let last = Seq(self.books.disk.last_seq);
        for client in &mut self.clients {
            client.forget_rows_after(last);
        }
        self.cloud.forget_rows_after(last.0);
        // What a limit took without a commit is wanted again, after what was sent in its place.
        let promises = &mut self.promises;
        promises.revived.extend(before.taken.difference(&self.books.disk.taken).map(|(_, seq)| Seq(*seq)));
        promises.revived.retain(|seq| *seq <= last);
        for copies in promises.copies.values_mut() {
            copies.retain(|seq| *seq <= last);
        }
        promises.copies.retain(|_, copies| !copies.is_empty());
        promises.wanted.retain(|seq, _| *seq <= last);
        for (payload, promised) in &self.promises.promised {
            let has_row = self.promises.copies.contains_key(payload);
            let late = self.promises.late.contains(payload);
            assert!(
                has_row || late || promised.iter().all(|who| self.has(payload, *who)),
                "{payload} was acknowledged and is gone after a cut"
            );
        }
    }

    /// Everybody comes back, everything is answered, read and committed.
    pub(super) fn drain(&mut self) {
        self.settle_down();
        for slot in 0..self.clients.len() {
            if self.clients[slot].deaf {
                self.go(slot);
            }
            self.come(slot);
        }
        let mut quiet = 0;
        for _ in 0..20_000 {
            let before = self.promises.moved;
            self.reach();
            for slot in 0..self.clients.len() {
                let mut events = Vec::new();
                self.flush(slot, &mut events);
                while let Some(packet) = self.clients[slot].next_answer() {
                    self.send(slot, packet, &mut events);
                }
                self.handle(events);
            }
            self.serve(usize::MAX);
            self.tell_all();
            self.pass_on(64);
            self.answer_from_above(64, Mood::Kind);
            self.turn_link(usize::MAX);
            self.publish_commands();
            let still = self.promises.moved == before && self.is_idle();
            self.pass_time(if still { 1_100 } else { 25 });
            quiet = if still { quiet + 1 } else { 0 };
            if quiet > 3 {
                self.tally.repeats = self.cloud.repeats;
                self.tally.full = self.books.full();
                self.tally.expired = self.books.expired();
                return;
            }
        }
        panic!("it never comes to rest");
    }

    pub(super) fn nothing_is_missing(&mut self) {
        for (payload, promised) in &self.promises.promised {
            for who in promised {
                assert!(self.has(payload, *who), "{payload} is missing at {who:?}");
            }
        }
        for (reader, state) in &self.books.disk.readers {
            let rows: Vec<&u64> = state.wanted.keys().collect();
            assert!(rows.is_empty(), "{reader:?} still has {rows:?}");
        }
        let counters = self.process().broker.counters();
        assert_eq!(counters.paused, 0, "somebody waits for ever");
        assert_eq!(counters.not_accepted, 0);
    }

    /// Whether somebody has a message, or it is counted that he has not.
    fn has(&self, payload: &str, who: Who) -> bool {
        let rows = self.promises.copies.get(payload);
        let is_taken = |of: &dyn Fn(ReaderId) -> bool| {
            let mut taken = self.books.disk.taken.iter().filter(|(reader, _)| of(*reader));
            rows.is_some_and(|rows| taken.any(|(_, seq)| rows.contains(&Seq(*seq))))
        };
        match who {
            Who::Client(slot) => {
                let client = &self.clients[slot];
                let of = |reader: ReaderId| {
                    let record = self.books.view.sessions.get(&reader);
                    record.is_some_and(|record| *record.client_id == *client.id)
                };
                client.got.contains_key(payload) || !client.kept || is_taken(&of)
            }
            Who::Group => {
                self.clients.iter().any(|client| client.got.contains_key(payload)) || is_taken(&|_| true)
            }
            Who::Route(route) => {
                let reader = self.route(route);
                self.cloud.got.contains_key(&(route, payload.to_owned())) || is_taken(&|of| of == reader)
            }
        }
    }
}

fn is_group(record: &SessionRecord) -> bool {
    record.client_id.starts_with('\0')
}

/// Messages that may be under way to a client: the broker's own limit.
const WINDOW: u64 = 8;

/// The run's own message names the seed.
const SEED: u64 = 0;
