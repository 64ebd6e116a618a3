//! The stream of writes to the store: tickets, order numbers, and what waits for a commit.
//!
//! The tail holds the newest messages of the log in RAM: all that are not committed, and a bounded
//! number that are, so that a session that keeps up never reads the disk. Invariant: a step that waits
//! for a ticket is handed out once, after [`Ledger::commit`] has covered it, in the order of tickets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytestring::ByteString;

use super::client::ClientKey;
use super::memory::record_weight;
use super::refuse::Refusals;
use super::{ConnectionId, Effect};
use crate::codec::QoS;
use crate::record::{DropReason, Message, ReaderId, Seq, Ticket, Want, Write};
use crate::session::{GroupId, Parcel};

pub(super) struct Ledger {
    issued: Ticket,
    committed: Ticket,
    last_seq: Seq,
    /// The newest messages; the front has the order number `first`, and there is no gap.
    tail: VecDeque<TailRow>,
    first: Seq,
    /// How many at the back of the tail are not committed, and what they weigh.
    uncommitted: usize,
    uncommitted_weight: usize,
    /// What the committed ones weigh.
    committed_weight: usize,
    /// Sessions that are not committed, and what they weigh: each is a list of all that it subscribes to.
    sessions: VecDeque<(Ticket, usize)>,
    sessions_weight: usize,
    /// Clients whose sessions are thrown away by a write that is not committed.
    thrown_away: BTreeMap<ByteString, Ticket>,
    steps: VecDeque<(Ticket, Step)>,
    /// [`TAIL_MESSAGES`] and [`UNCOMMITTED_MESSAGES_MAX`], which tests narrow.
    tail_messages: usize,
    uncommitted_max: usize,
    /// [`UNCOMMITTED_BYTES_MAX`], or less where the store must not grow beyond a place.
    uncommitted_bytes_max: usize,
}

struct TailRow {
    ticket: Ticket,
    message: Arc<Message>,
    /// Often that of the row before, and then the same one.
    audience: Arc<[Want]>,
    /// What it takes here: of rows that share an audience the first has its weight.
    weight: usize,
}

/// What is done once a write is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// CONNACK of a kept session, or after one that is thrown away.
    Open(ConnectionId),
    /// The next answers of a connection.
    Answer(ConnectionId),
    /// A QoS 2 PUBLISH.
    Lease(ClientKey, u16),
    /// A PUBREL.
    Release(ClientKey, u16),
    /// A packet id is free.
    End(ClientKey, u16),
    /// The log may be read.
    Pump(ClientKey),
    /// The same for a group.
    PumpGroup(GroupId),
}

impl Ledger {
    /// Writes that are not committed.
    pub(super) fn owed(&self) -> u64 {
        self.issued.0.saturating_sub(self.committed.0)
    }

    pub(super) fn new(last_seq: Seq, refusals: &Refusals) -> Ledger {
        Ledger {
            issued: Ticket(0),
            committed: Ticket(0),
            last_seq,
            tail: VecDeque::new(),
            first: Seq(last_seq.0 + 1),
            uncommitted: 0,
            uncommitted_weight: 0,
            committed_weight: 0,
            sessions: VecDeque::new(),
            sessions_weight: 0,
            thrown_away: BTreeMap::new(),
            steps: VecDeque::new(),
            tail_messages: TAIL_MESSAGES,
            uncommitted_max: UNCOMMITTED_MESSAGES_MAX,
            uncommitted_bytes_max: if refusals.is_any() {
                refusals.in_flight.min(UNCOMMITTED_BYTES_MAX)
            } else {
                UNCOMMITTED_BYTES_MAX
            },
        }
    }

    /// Narrower limits, so that few messages reach them.
    #[cfg(test)]
    pub(super) fn bound(&mut self, tail_messages: usize, uncommitted_max: usize) {
        (self.tail_messages, self.uncommitted_max) = (tail_messages, uncommitted_max);
    }

    /// Hands a write to the store.
    pub(super) fn write(&mut self, write: Write, effects: &mut Vec<Effect>) -> Ticket {
        self.issued.0 += 1;
        if let Write::Session(record) = &write {
            let weight = record_weight(record);
            self.sessions_weight += weight;
            self.sessions.push_back((self.issued, weight));
        }
        effects.push(Effect::Write(write));
        self.issued
    }

    /// A row is over for its reader: it has it, or does not get it for this reason. At QoS 2 nobody holds its
    /// packet id any more then, so its lease ends in either case, which only a settled row says.
    pub(super) fn end_row(
        &mut self,
        (reader, seq): (ReaderId, Seq),
        qos: QoS,
        dropped: Option<DropReason>,
        effects: &mut Vec<Effect>,
    ) -> Ticket {
        if let Some(reason) = dropped {
            let ticket = self.write(Write::Dropped { reader, seq, reason }, effects);
            if qos < QoS::ExactlyOnce || seq == Seq(0) {
                return ticket;
            }
        }
        self.write(Write::Settled { reader, seq }, effects)
    }

    /// Hands a message to the store under the next order number.
    pub(super) fn append(
        &mut self,
        message: Arc<Message>,
        audience: &[Want],
        retained: bool,
        inward: Option<(ReaderId, u16)>,
        effects: &mut Vec<Effect>,
    ) -> (Seq, Ticket) {
        self.last_seq.0 += 1;
        let seq = self.last_seq;
        let before = self.tail.back().map(|row| &row.audience).filter(|before| ***before == *audience);
        let (audience, own) = match before {
            Some(before) => (before.clone(), 0),
            None => {
                let weight = audience_weight(audience);
                (audience.into(), weight)
            }
        };
        let weight = message.weight() + own;
        self.uncommitted += 1;
        self.uncommitted_weight += weight;
        let write =
            Write::Message { seq, message: message.clone(), audience: audience.clone(), retained, inward };
        let ticket = self.write(write, effects);
        self.tail.push_back(TailRow { ticket, message, audience, weight });
        (seq, ticket)
    }

    /// The topic of the newest message that is here.
    pub(super) fn newest_topic(&self) -> Option<&ByteString> {
        self.tail.back().map(|row| &row.message.topic)
    }

    /// Lets a step wait for a write.
    pub(super) fn after(&mut self, ticket: Ticket, step: Step) {
        // Nearly always the newest ticket; a repeated QoS 2 publish may wait for an older one.
        let place = match self.steps.back() {
            Some((newest, _)) if *newest > ticket => {
                self.steps.partition_point(|(known, _)| *known <= ticket)
            }
            _ => self.steps.len(),
        };
        self.steps.insert(place, (ticket, step));
    }

    /// The store has committed up to here.
    pub(super) fn commit(&mut self, through: Ticket) {
        self.committed = self.committed.max(through.min(self.issued));
        while self.uncommitted > 0
            && let Some(row) = self.tail.get(self.tail.len() - self.uncommitted)
            && row.ticket <= self.committed
        {
            self.uncommitted -= 1;
            self.uncommitted_weight -= row.weight;
            self.committed_weight += row.weight;
        }
        while let Some((_, weight)) = self.sessions.pop_front_if(|(ticket, _)| *ticket <= self.committed) {
            self.sessions_weight -= weight;
        }
        self.thrown_away.retain(|_, ticket| *ticket > self.committed);
        while (self.tail.len() - self.uncommitted > self.tail_messages || self.committed_weight > TAIL_BYTES)
            && self.tail.len() > self.uncommitted
            && let Some(row) = self.tail.pop_front()
        {
            self.committed_weight -= row.weight;
            self.first.0 += 1;
            self.bequeath(&row.audience);
        }
    }

    /// The row before the first is gone; what it shared with that one is there all the same.
    fn bequeath(&mut self, audience: &Arc<[Want]>) {
        let all_wait = self.tail.len() == self.uncommitted;
        if let Some(heir) = self.tail.front_mut().filter(|heir| Arc::ptr_eq(&heir.audience, audience)) {
            let weight = audience_weight(audience);
            heir.weight += weight;
            *(if all_wait { &mut self.uncommitted_weight } else { &mut self.committed_weight }) += weight;
        }
    }

    /// The next step whose write is committed.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        match self.steps.front() {
            Some((ticket, _)) if *ticket <= self.committed => self.steps.pop_front().map(|(_, step)| step),
            _ => None,
        }
    }

    pub(super) fn is_committed(&self, ticket: Ticket) -> bool {
        ticket <= self.committed
    }

    /// A client wants none of its session any more.
    pub(super) fn throw_away(&mut self, client_id: ByteString, reader: ReaderId, effects: &mut Vec<Effect>) {
        let ticket = self.write(Write::SessionRemoved { reader }, effects);
        self.thrown_away.insert(client_id, ticket);
    }

    /// The write with which what a client has thrown away is gone.
    pub(super) fn gone_with(&self, client_id: &str) -> Ticket {
        self.thrown_away.get(client_id).copied().unwrap_or_default()
    }

    /// The newest write.
    pub(super) fn newest(&self) -> Ticket {
        self.issued
    }

    pub(super) fn last_seq(&self) -> Seq {
        self.last_seq
    }

    /// Bytes of the tail.
    pub(super) fn weight(&self) -> usize {
        self.uncommitted_weight + self.committed_weight
    }

    /// Bytes of the sessions that are not committed.
    pub(super) fn sessions_weight(&self) -> usize {
        self.sessions_weight
    }

    pub(super) fn uncommitted(&self) -> usize {
        self.uncommitted
    }

    /// Whether the store owes so much that nothing more is handed to it for now.
    pub(super) fn is_busy(&self) -> bool {
        self.uncommitted >= self.uncommitted_max
            || self.uncommitted_weight >= self.uncommitted_bytes_max
            || self.issued.0 - self.committed.0 >= UNCOMMITTED_WRITES_MAX
    }

    /// Whether wills, which cannot wait, have brought a quarter more than that, and more than a message of so many bytes
    /// could: until it is committed nobody comes in who would leave another. A busy store alone keeps nobody out.
    pub(super) fn is_overdrawn(&self, message_max: usize) -> bool {
        let bytes = self.uncommitted_bytes_max;
        self.uncommitted > self.uncommitted_max + self.uncommitted_max / 4
            || self.uncommitted_weight > bytes + message_max.max(bytes / 4)
    }

    /// Whether the store has caught up so far that those who wait may go on.
    pub(super) fn is_relaxed(&self) -> bool {
        self.uncommitted <= self.uncommitted_max / 2
            && self.uncommitted_weight <= self.uncommitted_bytes_max / 2
            && self.issued.0 - self.committed.0 <= UNCOMMITTED_WRITES_MAX / 2
    }

    /// Whether every row after this one is in the tail.
    pub(super) fn tail_covers(&self, after: Seq) -> bool {
        after.0 + 1 >= self.first.0
    }

    /// The reader's next row in the tail.
    pub(super) fn next_row(&self, reader: ReaderId, after: Seq) -> Option<(Seq, Parcel)> {
        self.rows(reader, after)
            .next()
            .map(|(seq, message, want)| (seq, Parcel { message: message.clone(), want: want.clone() }))
    }

    /// The reader's rows in the tail after this one.
    pub(super) fn seqs(&self, reader: ReaderId, after: Seq) -> Vec<Seq> {
        self.rows(reader, after).map(|(seq, _, _)| seq).collect()
    }

    fn rows(&self, reader: ReaderId, after: Seq) -> impl Iterator<Item = (Seq, &Arc<Message>, &Want)> {
        let from = usize::try_from((after.0 + 1).saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        let first = self.first.0;
        self.tail.iter().enumerate().skip(from).filter_map(move |(place, row)| {
            let found = row.audience.binary_search_by_key(&reader, |want| want.reader).ok()?;
            Some((Seq(first + place as u64), &row.message, row.audience.get(found)?))
        })
    }
}

/// What an audience takes; one reader's part is in the message's own weight.
fn audience_weight(audience: &[Want]) -> usize {
    let identifiers: usize = audience.iter().map(|want| want.subscription_ids.weight()).sum();
    audience.len().saturating_sub(1) * size_of::<Want>() + identifiers
}

/// Messages that may wait for a commit; beyond, who publishes more is not read.
const UNCOMMITTED_MESSAGES_MAX: usize = 8_192;
/// The same in bytes.
pub(super) const UNCOMMITTED_BYTES_MAX: usize = 4_000_000;
/// The same for writes of every kind.
const UNCOMMITTED_WRITES_MAX: u64 = 65_536;
/// Committed messages that stay in RAM for sessions that are a little late; older ones are read.
const TAIL_MESSAGES: usize = 1_024;
/// The same in bytes.
const TAIL_BYTES: usize = 1_000_000;
