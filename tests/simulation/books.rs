//! What the store should hold: an account that is kept beside it and never asks it.
//!
//! Two states. `view` has everything that was ordered, `disk` what a commit holds; between them stands what
//! is pending, in its order. A power cut leaves `disk`, and perhaps what a commit under way has added.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::record::{
    DropReason, LeaseState, Message, ReaderId, Restored, RestoredSession, SessionRecord, Write,
};
use crate::store::ReaderStatus;

/// One thing that the store was told.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Write(Write),
    /// Rows of a reader are over: delivered, or taken for a reason.
    End {
        reader: ReaderId,
        seqs: Vec<u64>,
        reason: Option<DropReason>,
    },
    Route(ReaderId),
}

/// One reader as it should be.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reader {
    /// Row to number; 0 where it has none.
    pub(super) wanted: BTreeMap<u64, u64>,
    pub(super) leases: BTreeMap<u64, Held>,
    pub(super) inward: BTreeSet<u16>,
    is_route: bool,
    numbered: u64,
    received: u64,
    delivered: u64,
    expired: u64,
    dropped: BTreeMap<DropReason, u64>,
}

/// A QoS 2 exchange outward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Held {
    pub(super) packet_id: u16,
    pub(super) state: LeaseState,
    pub(super) holder: Option<ReaderId>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) readers: BTreeMap<ReaderId, Reader>,
    pub(super) sessions: BTreeMap<ReaderId, Arc<SessionRecord>>,
    pub(super) retained: BTreeMap<String, Arc<Message>>,
    pub(super) last_seq: u64,
    /// Rows that a limit, an expiry, a refusal or a removal took.
    pub(super) taken: BTreeSet<(ReaderId, u64)>,
}

#[derive(Default)]
pub(super) struct Books {
    pub(super) disk: State,
    pub(super) view: State,
    /// When each came, and what it is.
    pending: VecDeque<(u64, Order)>,
    /// Every message with a row, by its order number.
    pub(super) messages: BTreeMap<u64, Arc<Message>>,
    /// When each payload was first seen, by the true time.
    since: BTreeMap<Vec<u8>, u64>,
    /// The true time, in milliseconds.
    pub(super) truth: u64,
}

/// Where a commit may stand when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// None is under way, or it has not been synced.
    None,
    /// One was synced and nobody was told.
    Commit,
}

impl Books {
    /// The broker has written this; it is not yet with the store.
    pub(super) fn on_write(&mut self, write: &Write) {
        match write {
            Write::Message { seq, message, audience, .. } => {
                assert_eq!(seq.0, self.view.last_seq + 1, "order numbers are dense");
                assert!(audience.is_sorted_by_key(|want| want.reader), "an audience is sorted");
                self.messages.insert(seq.0, message.clone());
                self.see(&message.payload);
            }
            Write::Dropped { seq, reason: DropReason::Expired, .. } => self.check_expired(seq.0),
            Write::Leased { reader, packet_id, holder, .. } => {
                let owner = holder.unwrap_or(*reader);
                let taken = self.view.is_leased(owner, *packet_id);
                assert!(owner == ReaderId(0) || !taken, "packet id {packet_id} of {owner:?} is leased twice");
            }
            _ => {}
        }
        self.view.apply(&Order::Write(write.clone()));
    }

    /// A message has come: its time runs, also while it waits for room.
    pub(super) fn see(&mut self, payload: &[u8]) {
        self.since.entry(payload.to_vec()).or_insert(self.truth);
    }

    /// Nothing ends before its time, whatever the clocks did meanwhile.
    pub(super) fn check_expired(&self, seq: u64) {
        let message = &self.messages[&seq];
        let lived = self.truth - self.since[&message.payload.to_vec()];
        let expiry = message.expiry.map(|seconds| u64::from(seconds) * 1_000);
        assert!(
            expiry.is_some_and(|expiry| lived >= expiry),
            "row {seq} of {expiry:?} ends after {lived} ms"
        );
    }

    /// Rows are over, by the word of a route or of the store itself.
    pub(super) fn on_end(&mut self, order: &Order) {
        self.view.apply(order);
    }

    /// The store has it in its batch.
    pub(super) fn enter(&mut self, order: Order, now: u64) {
        self.pending.push_back((now, order));
    }

    /// A commit holds the first of them.
    pub(super) fn commit(&mut self, count: usize) {
        for (_, order) in self.pending.drain(..count) {
            self.disk.apply(&order);
        }
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// When the oldest of them came.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.pending.front().map(|(since, _)| *since)
    }

    /// Committed rows that a reader wants after a place, save those that the batch ends: row and number.
    pub(super) fn readable(&self, reader: ReaderId, after: u64) -> Vec<(u64, u64)> {
        let ended = self.ended(reader);
        let rows = self.disk.readers.get(&reader).map(|reader| &reader.wanted).into_iter().flatten();
        rows.filter(|(seq, _)| **seq > after && !ended.contains(*seq)).map(|(a, b)| (*a, *b)).collect()
    }

    /// Rows that a reader wants by all that was ordered. What a full store gives away while an order to drop the
    /// oldest is on its way makes the order take others than it seemed to, so of what is committed the disk knows.
    pub(super) fn waiting(&self, reader: ReaderId) -> u64 {
        let committed = self.disk.readers.get(&reader).map(|reader| &reader.wanted);
        let is_over = |seq: u64| {
            seq <= self.disk.last_seq && committed.is_some_and(|wanted| !wanted.contains_key(&seq))
        };
        self.view.readers[&reader].wanted.keys().filter(|seq| !is_over(**seq)).count() as u64
    }

    fn ended(&self, of: ReaderId) -> BTreeSet<u64> {
        let mut ended = BTreeSet::new();
        for (_, order) in &self.pending {
            match order {
                Order::Write(Write::Settled { reader, seq } | Write::Dropped { reader, seq, .. })
                    if *reader == of =>
                {
                    ended.insert(seq.0);
                }
                Order::End { reader, seqs, .. } if *reader == of => ended.extend(seqs),
                _ => {}
            }
        }
        ended
    }

    /// Takes over what the store has dropped because it is full: the oldest, up to one place for all.
    pub(super) fn take_over(&mut self, lines: &BTreeMap<ReaderId, ReaderStatus>) {
        for (reader, rows) in self.disk.take_over(lines) {
            for seq in rows {
                self.view.end(reader, seq, Some(DropReason::StoreFull));
            }
        }
    }

    /// Rows that a full store has given away.
    pub(super) fn full(&self) -> u64 {
        let readers = self.disk.readers.values();
        readers.filter_map(|reader| reader.dropped.get(&DropReason::StoreFull)).sum()
    }

    /// Rows that ran out of time.
    pub(super) fn expired(&self) -> u64 {
        self.disk.readers.values().map(|reader| reader.expired).sum()
    }

    /// The store's conservation lines are ours.
    pub(super) fn compare(&self, lines: &BTreeMap<ReaderId, ReaderStatus>) {
        if let Some(difference) = self.disk.differs_in_lines(lines) {
            panic!("{difference}");
        }
    }

    /// The power is gone, and a start has found this.
    pub(super) fn restart(
        &mut self,
        found: &Restored,
        lines: &BTreeMap<ReaderId, ReaderStatus>,
        doubt: Doubt,
    ) {
        loop {
            let mut candidate = self.disk.clone();
            candidate.take_over(lines);
            let Some(difference) = candidate.differs(found).or_else(|| candidate.differs_in_lines(lines))
            else {
                self.disk = candidate;
                break;
            };
            match self.pending.pop_front() {
                Some((_, order)) if doubt == Doubt::Commit => self.disk.apply(&order),
                _ => panic!("a start finds something else than was committed: {difference}"),
            }
        }
        self.pending.clear();
        self.view = self.disk.clone();
        self.messages.retain(|seq, _| *seq <= self.disk.last_seq);
    }
}

impl State {
    fn apply(&mut self, order: &Order) {
        match order {
            Order::Write(write) => self.write(write),
            Order::End { reader, seqs, reason } => {
                seqs.iter().for_each(|seq| self.end(*reader, *seq, *reason));
            }
            Order::Route(reader) => self.readers.entry(*reader).or_default().is_route = true,
        }
    }

    fn write(&mut self, write: &Write) {
        match write {
            Write::Message { seq, message, audience, retained, inward } => {
                self.last_seq = seq.0;
                for want in audience.iter() {
                    let Some(reader) = self.readers.get_mut(&want.reader) else { continue };
                    reader.received += 1;
                    reader.numbered += u64::from(reader.is_route);
                    reader.wanted.insert(seq.0, if reader.is_route { reader.numbered } else { 0 });
                }
                if *retained && message.payload.is_empty() {
                    self.retained.remove(&*message.topic);
                } else if *retained {
                    self.retained.insert(message.topic.to_string(), message.clone());
                }
                if let Some((reader, packet_id)) = inward {
                    self.change(*reader, |reader| {
                        reader.inward.insert(*packet_id);
                    });
                }
            }
            Write::Unretained { topic } => drop(self.retained.remove(&**topic)),
            Write::Inward { reader, packet_id } => {
                self.change(*reader, |reader| {
                    reader.inward.insert(*packet_id);
                });
            }
            Write::InwardReleased { reader, packet_id } => {
                self.change(*reader, |reader| {
                    reader.inward.remove(packet_id);
                });
            }
            Write::Session(record) => {
                self.sessions.insert(record.reader, record.clone());
                self.readers.entry(record.reader).or_default();
            }
            Write::SessionEnded { reader, ended } => {
                if let Some(record) = self.sessions.get_mut(reader) {
                    Arc::make_mut(record).ended = Some(*ended);
                }
            }
            Write::SessionRemoved { reader } | Write::SessionLapsed { reader } => {
                self.sessions.remove(reader);
                self.readers.remove(reader);
            }
            Write::Settled { reader, seq } => {
                self.end(*reader, seq.0, None);
                self.change(*reader, |reader| {
                    reader.leases.remove(&seq.0);
                });
            }
            Write::Dropped { reader, seq, reason } => self.end(*reader, seq.0, Some(*reason)),
            Write::DropOldest { reader, after, count } => self.drop_oldest(*reader, after.0, *count),
            Write::Shed { reader, reason, count } => self.change(*reader, |reader| {
                reader.received += count;
                *reader.dropped.entry(*reason).or_default() += count;
            }),
            Write::Leased { .. }
            | Write::LeaseSent { .. }
            | Write::Unleased { .. }
            | Write::LeaseReceived { .. } => self.lease(write),
        }
    }

    fn lease(&mut self, write: &Write) {
        match write {
            Write::Leased { reader, seq, packet_id, holder } => self.change(*reader, |reader| {
                let held = Held { packet_id: *packet_id, state: LeaseState::Begun, holder: *holder };
                reader.leases.insert(seq.0, held);
            }),
            Write::LeaseSent { reader, seq } => self.advance(*reader, seq.0, LeaseState::Sent),
            Write::LeaseReceived { reader, seq } => self.advance(*reader, seq.0, LeaseState::Received),
            Write::Unleased { reader, seq } => {
                self.change(*reader, |reader| {
                    reader.leases.remove(&seq.0);
                });
            }
            other => panic!("{other:?} is of no exchange"),
        }
    }

    fn change(&mut self, reader: ReaderId, change: impl FnOnce(&mut Reader)) {
        if let Some(reader) = self.readers.get_mut(&reader) {
            change(reader);
        }
    }

    fn advance(&mut self, reader: ReaderId, seq: u64, state: LeaseState) {
        self.change(reader, |reader| {
            if let Some(held) = reader.leases.get_mut(&seq) {
                held.state = held.state.max(state);
            }
        });
    }

    pub(super) fn end(&mut self, id: ReaderId, seq: u64, reason: Option<DropReason>) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        if reader.wanted.remove(&seq).is_none() {
            return;
        }
        match reason {
            None => reader.delivered += 1,
            Some(DropReason::Expired) => reader.expired += 1,
            Some(reason) => *reader.dropped.entry(reason).or_default() += 1,
        }
        if reason.is_some() {
            self.taken.insert((id, seq));
        }
    }

    fn drop_oldest(&mut self, id: ReaderId, after: u64, count: u64) {
        let Some(reader) = self.readers.get(&id) else { return };
        let free = reader.wanted.keys().filter(|seq| **seq > after && !reader.leases.contains_key(*seq));
        let oldest: Vec<u64> = free.take(count as usize).copied().collect();
        for seq in oldest {
            self.end(id, seq, Some(DropReason::QueueFull));
        }
    }

    /// Whether a session has this packet id under way outward.
    pub(super) fn is_leased(&self, owner: ReaderId, packet_id: u16) -> bool {
        self.lease_of(owner, packet_id).is_some()
    }

    /// The exchange outward that a session has under this packet id.
    pub(super) fn lease_of(&self, owner: ReaderId, packet_id: u16) -> Option<(u64, Held)> {
        let of = |(id, reader): (&ReaderId, &Reader)| {
            let id = *id;
            let found = reader
                .leases
                .iter()
                .find(|(_, held)| held.packet_id == packet_id && held.holder.unwrap_or(id) == owner);
            found.map(|(seq, held)| (*seq, *held))
        };
        self.readers.iter().find_map(of)
    }

    /// The session of a client.
    pub(super) fn session_of(&self, client_id: &str) -> Option<&Arc<SessionRecord>> {
        self.sessions.values().find(|record| *record.client_id == *client_id)
    }

    pub(super) fn wants(&self, reader: ReaderId, seq: u64) -> bool {
        self.readers.get(&reader).is_some_and(|reader| reader.wanted.contains_key(&seq))
    }

    fn take_over(&mut self, lines: &BTreeMap<ReaderId, ReaderStatus>) -> BTreeMap<ReaderId, Vec<u64>> {
        let mut gone = BTreeMap::new();
        for (id, line) in lines {
            let Some(reader) = self.readers.get(id) else { continue };
            let full = line.dropped.get(&DropReason::StoreFull).copied().unwrap_or(0);
            let known = reader.dropped.get(&DropReason::StoreFull).copied().unwrap_or(0);
            let news = full.saturating_sub(known);
            let rows: Vec<u64> = reader.wanted.keys().copied().take(news as usize).collect();
            for seq in &rows {
                self.end(*id, *seq, Some(DropReason::StoreFull));
            }
            gone.insert(*id, rows);
        }
        gone
    }

    fn differs_in_lines(&self, lines: &BTreeMap<ReaderId, ReaderStatus>) -> Option<String> {
        if !lines.keys().eq(self.readers.keys()) {
            return Some(format!("readers {:?}, not {:?}", lines.keys(), self.readers.keys()));
        }
        for (id, line) in lines {
            let dropped: u64 = line.dropped.values().sum();
            let accounted = line.delivered + line.queued + line.expired + dropped;
            if line.received != accounted {
                return Some(format!("the line of {id:?} does not add up: {line:?}"));
            }
            let reader = &self.readers[id];
            let queued = reader.wanted.len() as u64;
            let ours = (reader.received, reader.delivered, queued, reader.expired, &reader.dropped);
            let found = (line.received, line.delivered, line.queued, line.expired, &line.dropped);
            if ours != found {
                return Some(format!("the line of {id:?} is {found:?}, not {ours:?}"));
            }
        }
        None
    }

    /// What a start has found and should not have, or the other way round.
    fn differs(&self, found: &Restored) -> Option<String> {
        if found.last_seq.0 != self.last_seq {
            return Some(format!("last row {:?}, not {}", found.last_seq, self.last_seq));
        }
        let is_kept = |message: &Arc<Message>| {
            self.retained.get(&*message.topic).is_some_and(|ours| is_same(message, ours))
        };
        if found.retained.len() != self.retained.len() || !found.retained.iter().all(is_kept) {
            return Some(format!("retained {:?}, not {:?}", found.retained, self.retained));
        }
        if found.sessions.len() != self.sessions.len() {
            return Some(format!("{} sessions, not {}", found.sessions.len(), self.sessions.len()));
        }
        found.sessions.iter().find_map(|session| self.differs_in_session(session))
    }

    fn differs_in_session(&self, found: &RestoredSession) -> Option<String> {
        let id = found.record.reader;
        let (Some(record), Some(reader)) = (self.sessions.get(&id), self.readers.get(&id)) else {
            return Some(format!("a session {id:?} that ended"));
        };
        let leases: BTreeMap<u64, Held> = found
            .leases
            .iter()
            .map(|lease| {
                let held = Held { packet_id: lease.packet_id, state: lease.state, holder: lease.holder };
                (lease.seq.0, held)
            })
            .collect();
        if leases != reader.leases {
            return Some(format!("exchanges of {id:?} {leases:?}, not {:?}", reader.leases));
        }
        for lease in &found.leases {
            if lease.has_row != reader.wanted.contains_key(&lease.seq.0) {
                return Some(format!("exchanges of {id:?}: {lease:?}, of rows {:?}", reader.wanted.keys()));
            }
        }
        let inward: BTreeSet<u16> = found.inward.iter().copied().collect();
        if inward != reader.inward {
            return Some(format!("packet ids inward of {id:?} {inward:?}, not {:?}", reader.inward));
        }
        let queued = reader.wanted.len() as u64;
        let is_later =
            record.ended.is_none_or(|ended| found.record.ended.is_some_and(|found| found >= ended));
        let unmended = SessionRecord { ended: record.ended, ..found.record.clone() };
        if found.queued != queued || unmended != **record || !is_later {
            return Some(format!("{found:?}, not {queued} rows of {record:?}"));
        }
        None
    }
}

/// Whether the store gives back what it was given; its stamp may have been mended, which makes it younger.
pub(super) fn is_same(found: &Message, ours: &Message) -> bool {
    let unmended = Message { received: ours.received, ..found.clone() };
    unmended == *ours && found.received >= ours.received
}
