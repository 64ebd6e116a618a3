//! A store in a few lines: what is committed, and what a read sees.
//!
//! Two states: `view` has every write, `disk` only the committed ones; a crash leaves `disk`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::record::{
    DropReason, Lease, LeaseState, Message, Portion, Presence, ReaderId, Restored, RestoredSession, Row,
    Rows, Seq, SessionRecord, Ticket, Want, Write,
};

#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) rows: BTreeMap<ReaderId, BTreeMap<Seq, (Arc<Message>, Want)>>,
    pub(super) sessions: BTreeMap<ReaderId, Arc<SessionRecord>>,
    pub(super) leases: BTreeMap<(ReaderId, Seq), Lease>,
    pub(super) inward: BTreeSet<(ReaderId, u16)>,
    pub(super) retained: BTreeMap<String, Arc<Message>>,
    pub(super) last_seq: Seq,
    pub(super) last_reader: u32,
    /// Rows that a limit, an expiry or a size took.
    pub(super) taken: BTreeSet<(ReaderId, Seq)>,
    /// How many of them went since a queue was full.
    pub(super) over: u64,
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) disk: State,
    pub(super) view: State,
    pub(super) pending: VecDeque<Write>,
    pub(super) committed: Ticket,
}

impl State {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Message { seq, message, audience, retained, inward } => {
                assert_eq!(seq.0, self.last_seq.0 + 1, "order numbers are dense");
                assert!(audience.is_sorted_by_key(|want| want.reader), "an audience is sorted");
                self.last_seq = *seq;
                for want in audience.iter() {
                    self.rows.entry(want.reader).or_default().insert(*seq, (message.clone(), want.clone()));
                }
                if *retained && message.payload.is_empty() {
                    self.retained.remove(&*message.topic);
                } else if *retained {
                    self.retained.insert(message.topic.to_string(), message.clone());
                }
                self.inward.extend(*inward);
            }
            Write::Unretained { topic } => drop(self.retained.remove(&**topic)),
            Write::Inward { reader, packet_id } => {
                self.inward.insert((*reader, *packet_id));
            }
            Write::InwardReleased { reader, packet_id } => {
                assert!(self.inward.remove(&(*reader, *packet_id)), "only a held id is released");
            }
            Write::Session(record) => {
                self.last_reader = self.last_reader.max(record.reader.0);
                self.sessions.insert(record.reader, record.clone());
            }
            Write::SessionEnded { reader, ended } => {
                if let Some(record) = self.sessions.get_mut(reader) {
                    Arc::make_mut(record).ended = Some(*ended);
                }
            }
            Write::SessionRemoved { reader } | Write::SessionLapsed { reader } => {
                self.sessions.remove(reader);
                self.rows.remove(reader);
                self.leases.retain(|(owner, _), _| owner != reader);
                self.inward.retain(|(owner, _)| owner != reader);
            }
            Write::Leased { .. }
            | Write::LeaseSent { .. }
            | Write::Unleased { .. }
            | Write::LeaseReceived { .. } => self.lease(write),
            Write::Settled { reader, seq } => {
                self.end(*reader, *seq);
                self.leases.remove(&(*reader, *seq));
            }
            Write::Dropped { reader, seq, reason } => {
                if self.has(*reader, *seq) {
                    self.taken.insert((*reader, *seq));
                    self.over += u64::from(*reason == DropReason::QueueFull);
                }
                self.end(*reader, *seq);
            }
            Write::Shed { .. } => {}
            Write::DropOldest { reader, after, count } => {
                let leased = |seq: &Seq| self.leases.contains_key(&(*reader, *seq));
                let rows = self.rows.get(reader).into_iter().flatten().map(|(seq, _)| *seq);
                let oldest: Vec<Seq> = rows
                    .filter(|seq| seq > after && !leased(seq))
                    .take(usize::try_from(*count).unwrap())
                    .collect();
                assert_eq!(oldest.len() as u64, *count, "there are as many rows as the limit takes");
                self.over += count;
                for seq in oldest {
                    self.end(*reader, seq);
                    self.taken.insert((*reader, seq));
                }
            }
        }
    }

    /// How a QoS 2 exchange goes on.
    fn lease(&mut self, write: &Write) {
        match write {
            Write::Leased { reader, seq, packet_id, holder } => {
                let owner = holder.unwrap_or(*reader);
                let twice = self.leases.iter().any(|(key, lease)| {
                    lease.holder.unwrap_or(key.0) == owner && lease.packet_id == *packet_id
                });
                assert!(owner == ReaderId(0) || !twice, "packet id {packet_id} of {owner:?} is leased twice");
                // Where the store has lost the row meanwhile, the packet id is taken all the same.
                let (seq, packet_id, holder) = (*seq, *packet_id, *holder);
                let lease = Lease { seq, packet_id, state: LeaseState::Begun, holder, has_row: true };
                let former = self.leases.insert((*reader, seq), lease);
                assert_eq!(former, None, "a row is leased to one at a time");
            }
            Write::LeaseSent { reader, seq } => {
                let lease = self.leases.get_mut(&(*reader, *seq)).expect("what is leased is sent");
                assert_eq!(lease.state, LeaseState::Begun, "a message is found to be sent once");
                lease.state = LeaseState::Sent;
            }
            Write::Unleased { reader, seq } => {
                let lease = self.leases.remove(&(*reader, *seq)).expect("what is leased is given back");
                assert_eq!(lease.state, LeaseState::Begun, "what was sent is not given back");
                assert_ne!(lease.holder, Some(ReaderId(0)), "for such a one it was sent");
            }
            Write::LeaseReceived { reader, seq } => {
                self.leases.get_mut(&(*reader, *seq)).expect("PUBREC answers a lease").state =
                    LeaseState::Received;
            }
            other => panic!("{other:?} is of no exchange"),
        }
    }

    fn has(&self, reader: ReaderId, seq: Seq) -> bool {
        self.rows.get(&reader).is_some_and(|rows| rows.contains_key(&seq))
    }

    fn end(&mut self, reader: ReaderId, seq: Seq) {
        self.rows.entry(reader).or_default().remove(&seq);
    }
}

impl Model {
    /// Takes a write over; its ticket.
    pub(super) fn write(&mut self, write: &Write) -> Ticket {
        self.view.apply(write);
        self.pending.push_back(write.clone());
        Ticket(self.committed.0 + self.pending.len() as u64)
    }

    /// The store is full, or a row is damaged: it goes without a word to the broker.
    pub(super) fn lose(&mut self, reader: ReaderId, seq: Seq) {
        for state in [&mut self.disk, &mut self.view] {
            assert!(state.has(reader, seq), "only what is there is lost");
            state.end(reader, seq);
        }
    }

    /// Commits the next `count` writes.
    pub(super) fn commit(&mut self, count: usize) -> Ticket {
        for write in self.pending.drain(..count.min(self.pending.len())) {
            self.disk.apply(&write);
            self.committed.0 += 1;
        }
        self.committed
    }

    /// Committed rows, save those that a write which is not yet committed names as done.
    pub(super) fn read(&self, reader: ReaderId, after: Seq, limit: Portion) -> Rows {
        let newest = self.disk.last_seq;
        let (mut through, mut left) = (newest, 0);
        let mut rows = Vec::new();
        let ends = |write: &Write, row: Seq| match write {
            Write::Settled { reader: owner, seq } | Write::Dropped { reader: owner, seq, .. } => {
                *owner == reader && *seq == row
            }
            _ => false,
        };
        for (seq, (message, want)) in self.disk.rows.get(&reader).into_iter().flatten() {
            if *seq <= after || self.pending.iter().any(|write| ends(write, *seq)) {
                continue;
            }
            let weight: usize = rows.iter().map(|row: &Row| row.message.weight()).sum();
            let heavy = !rows.is_empty() && weight >= limit.bytes as usize;
            if rows.len() >= limit.rows as usize || heavy {
                through = rows.last().map_or(after, |row: &Row| row.seq);
                left += u64::from(!self.disk.leases.contains_key(&(reader, *seq)));
                continue;
            }
            rows.push(Row { seq: *seq, number: 0, message: message.clone(), want: want.clone() });
        }
        Rows { reader, rows, through, newest, left }
    }

    /// Power is lost: what a start then finds.
    pub(super) fn crash(&mut self) -> Restored {
        let disk = self.disk.clone();
        *self = Model { view: disk.clone(), disk: disk.clone(), ..Model::default() };
        let sessions = disk.sessions.values().map(|record| {
            let rows = disk.rows.get(&record.reader);
            let cursor =
                rows.and_then(|rows| rows.keys().next()).map_or(disk.last_seq, |first| Seq(first.0 - 1));
            let leases = disk.leases.iter().filter(|(key, _)| key.0 == record.reader);
            let leases = leases.map(|(key, lease)| Lease { has_row: disk.has(key.0, key.1), ..*lease });
            RestoredSession {
                record: SessionRecord::clone(record),
                cursor,
                last: rows.and_then(|rows| rows.keys().next_back()).copied().unwrap_or(cursor),
                queued: rows.map_or(0, |rows| rows.len() as u64),
                queued_bytes: rows.into_iter().flatten().map(|(_, row)| row.0.weight() as u64).sum(),
                leases: leases.collect(),
                inward: disk
                    .inward
                    .iter()
                    .filter(|held| held.0 == record.reader)
                    .map(|held| held.1)
                    .collect(),
            }
        });
        Restored {
            store: Presence::There,
            last_seq: disk.last_seq,
            last_reader: disk.last_reader,
            sessions: sessions.collect(),
            retained: disk.retained.values().cloned().collect(),
            alive: 0,
        }
    }
}
