//! One reader of the log: a route, or a session that outlives its connection.
//!
//! It is a cursor (every row of it up to there is settled) and the little that is settled or in flight
//! ahead of it, which its window bounds. Its counters change in the transaction of what they count.
//! What is stored is one packed blob, kept twice; the spans are found again at each start.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::pack::{Unpack, put_number};
use super::runs::Runs;
use super::tally::Tally;
use crate::record::{Bounds, DropReason, LeaseState, ReaderId, ReaderStatus};

/// One reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reader {
    /// Route or session.
    pub(super) kind: Kind,
    /// The route's name; the client id.
    pub(super) name: String,
    /// What is stored.
    pub(super) state: State,
    /// Where its rows are: first row of it in a segment, to the segment. Only segments of which it still
    /// wants a row.
    pub(super) spans: BTreeMap<u64, Span>,
    /// The key of its span in the open segment.
    pub(super) open_span: Option<u64>,
    /// What it still wants, in all segments.
    pub(super) waiting: Tally,
    /// Rows of a route that are on their way to upstream or about to be, and what they weigh. A page of them
    /// and the route's window at most, since it reads on only then; a new connection reads them again.
    pub(super) handed: BTreeMap<u64, u64>,
    /// How much may wait, and what gives way.
    pub(super) bounds: Bounds,
    /// Whether it has reached bounds of its own and not yet gone well below them.
    pub(super) is_full: bool,
    /// What waited when it last had no room for a message, where that is dropped; `None` since one found room.
    pub(super) turned_away: Option<Tally>,
    /// Its newest row by topic, where one supersedes the other; `None` until that is first asked for.
    pub(super) latest: Option<HashMap<Box<str>, u64>>,
    /// Its oldest row and when that was received, wall clock.
    pub(super) oldest: Option<(u64, u64)>,
}

/// What a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Numbers its messages.
    Route,
    /// Does not.
    Session,
}

/// The rows of one reader in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Which segment.
    pub(super) segment: u32,
    /// The last row of it there.
    pub(super) last: u64,
}

/// What is stored of a reader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct State {
    /// Every row up to here is settled.
    pub(super) cursor: u64,
    /// Ranges ahead of the cursor in which every row of the reader is settled. As many as there are gaps
    /// between rows in flight, so the reader's window bounds them.
    pub(super) ahead: Runs,
    /// The number that its latest message was given.
    pub(super) numbered: u64,
    /// Conservation.
    pub(super) counters: Counters,
    /// QoS 2 exchanges outward, by row; at most the receiver's Receive Maximum, for a group those of its
    /// members, and beside them such as have lost their rows to a limit: those rows are settled.
    pub(super) leases: BTreeMap<u64, Held>,
    /// QoS 2 packet ids inward; at most our Receive Maximum.
    pub(super) inward: BTreeSet<u16>,
}

/// A QoS 2 exchange outward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// Its packet id.
    pub(super) packet_id: u16,
    /// How far it is.
    pub(super) state: LeaseState,
    /// Whose packet id it is; `None`: the reader's own.
    pub(super) holder: Option<ReaderId>,
}

/// All of a conservation line that cannot be counted from rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Counters {
    /// Messages that it was an audience of.
    pub(super) received: u64,
    /// Settled.
    pub(super) delivered: u64,
    /// Run out of time.
    pub(super) expired: u64,
    /// By reason.
    pub(super) dropped: BTreeMap<DropReason, u64>,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The reader has it.
    Delivered,
    /// The reader will not have it.
    Dropped(DropReason),
}

impl Reader {
    /// A reader of what comes after `cursor`.
    pub(super) fn new(kind: Kind, name: String, cursor: u64) -> Reader {
        let state = State { cursor, ..State::default() };
        Reader::restored(kind, name, state)
    }

    /// A reader as it was stored.
    pub(super) fn restored(kind: Kind, name: String, state: State) -> Reader {
        Reader {
            kind,
            name,
            state,
            spans: BTreeMap::new(),
            open_span: None,
            waiting: Tally::default(),
            handed: BTreeMap::new(),
            bounds: Bounds::default(),
            is_full: false,
            turned_away: None,
            latest: None,
            oldest: None,
        }
    }

    /// Notes a row in the open segment.
    pub(super) fn extend_open(&mut self, segment: u32, seq: u64) {
        if let Some(mut newest) = self.spans.last_entry()
            && self.open_span == Some(*newest.key())
            && *newest.key() < seq
        {
            let span = newest.get_mut();
            *span = Span { segment, last: span.last.max(seq) };
            return;
        }
        let key = self.open_span.map_or(seq, |key| key.min(seq));
        let before = self.open_span.and_then(|key| self.spans.remove(&key));
        let last = before.map_or(seq, |span| span.last.max(seq));
        self.spans.insert(key, Span { segment, last });
        self.open_span = Some(key);
    }

    /// Forgets a span.
    pub(super) fn remove_span(&mut self, key: u64) {
        self.spans.remove(&key);
        if self.open_span == Some(key) {
            self.open_span = None;
        }
    }

    /// A QoS 2 packet id inward is in use.
    pub(super) fn take_inward(&mut self, packet_id: u16) {
        self.state.inward.insert(packet_id);
    }

    /// A QoS 2 packet id inward is free.
    pub(super) fn release_inward(&mut self, packet_id: u16) {
        self.state.inward.remove(&packet_id);
    }

    /// The newest row that it may still want; the cursor where it wants none.
    pub(super) fn last(&self) -> u64 {
        self.spans.values().map(|span| span.last).max().unwrap_or(self.state.cursor)
    }
}

impl State {
    /// Whether the row is settled already.
    pub(super) fn is_settled(&self, seq: u64) -> bool {
        seq <= self.cursor || self.ahead.contains(seq)
    }

    /// Appends it, packed.
    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        put_number(out, self.cursor);
        put_number(out, self.numbered);
        self.counters.pack(out);
        self.ahead.pack(out);
        put_number(out, self.leases.len() as u64);
        for (seq, held) in &self.leases {
            put_number(out, *seq);
            // The packet id, and above it whether PUBLISH is known to have been sent.
            let sent = if held.state == LeaseState::Sent { SENT } else { 0 };
            put_number(out, u64::from(held.packet_id) | sent);
            // The lowest bit is PUBREC's, the others the holder's number and one; 0 is the reader's own.
            let holder = held.holder.map_or(0, |holder| u64::from(holder.0) + 1);
            put_number(out, holder << 1 | u64::from(held.state == LeaseState::Received));
        }
        put_number(out, self.inward.len() as u64);
        for packet_id in &self.inward {
            put_number(out, u64::from(*packet_id));
        }
    }

    /// Reads what [`State::pack`] wrote.
    pub(super) fn unpack(blob: &[u8]) -> Option<State> {
        let mut unpack = Unpack::new(blob);
        let cursor = unpack.number()?;
        let numbered = unpack.number()?;
        let counters = Counters::unpack(&mut unpack)?;
        let ahead = Runs::unpack(&mut unpack)?;
        let mut leases = BTreeMap::new();
        for _ in 0..unpack.number()? {
            let seq = unpack.number()?;
            let first = unpack.number()?;
            let packet_id = u16::try_from(first & !SENT).ok()?;
            let number = unpack.number()?;
            let state = match (number & 1, first & SENT) {
                (0, 0) => LeaseState::Begun,
                (0, _) => LeaseState::Sent,
                _ => LeaseState::Received,
            };
            let holder = match (number >> 1).checked_sub(1) {
                Some(holder) => Some(ReaderId(u32::try_from(holder).ok()?)),
                None => None,
            };
            leases.insert(seq, Held { packet_id, state, holder });
        }
        let mut inward = BTreeSet::new();
        for _ in 0..unpack.number()? {
            inward.insert(unpack.number16()?);
        }
        unpack.is_empty().then_some(State { cursor, ahead, numbered, counters, leases, inward })
    }
}

impl Counters {
    /// Counts what its audience includes the reader.
    pub(super) fn receive(&mut self, messages: u64) {
        #[cfg(test)]
        if fault::is_planted(None) {
            return;
        }
        self.received += messages;
    }

    /// Counts the end of rows, or of messages that had none.
    pub(super) fn count(&mut self, fate: Fate, rows: u64) {
        #[cfg(test)]
        if fault::is_planted(Some(fate)) {
            return;
        }
        match fate {
            _ if rows == 0 => {}
            Fate::Delivered => self.delivered += rows,
            Fate::Dropped(DropReason::Expired) => self.expired += rows,
            Fate::Dropped(reason) => *self.dropped.entry(reason).or_default() += rows,
        }
    }

    /// Those of which something has become.
    pub(super) fn ended(&self) -> u64 {
        self.delivered + self.expired + self.dropped.values().sum::<u64>()
    }

    /// Adds what another reader has counted.
    pub(super) fn add(&mut self, other: &Counters) {
        self.received += other.received;
        self.delivered += other.delivered;
        self.expired += other.expired;
        for (reason, count) in &other.dropped {
            *self.dropped.entry(*reason).or_default() += count;
        }
    }

    /// Takes back that so many rows were lost to damage, or as many as were. Returns how many.
    pub(super) fn recover(&mut self, rows: u64) -> u64 {
        let Some(damaged) = self.dropped.get_mut(&DropReason::Damaged) else { return 0 };
        let found = rows.min(*damaged);
        *damaged -= found;
        if *damaged == 0 {
            self.dropped.remove(&DropReason::Damaged);
        }
        found
    }

    /// The conservation line of a reader of which so many rows wait.
    pub(super) fn line(&self, name: &str, route: bool, queued: u64) -> ReaderStatus {
        ReaderStatus {
            name: name.to_owned(),
            route,
            received: self.received,
            delivered: self.delivered,
            queued,
            expired: self.expired,
            dropped: self.dropped.clone(),
            full: false,
        }
    }

    /// Appends them, packed.
    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        put_number(out, self.received);
        put_number(out, self.delivered);
        put_number(out, self.expired);
        put_number(out, self.dropped.len() as u64);
        for (reason, count) in &self.dropped {
            put_number(out, pack_reason(*reason));
            put_number(out, *count);
        }
    }

    /// Reads what [`Counters::pack`] wrote.
    pub(super) fn unpack(unpack: &mut Unpack<'_>) -> Option<Counters> {
        let received = unpack.number()?;
        let delivered = unpack.number()?;
        let expired = unpack.number()?;
        let mut dropped = BTreeMap::new();
        for _ in 0..unpack.number()? {
            let reason = unpack_reason(unpack.number()?)?;
            dropped.insert(reason, unpack.number()?);
        }
        Some(Counters { received, delivered, expired, dropped })
    }
}

/// Lets a test leave one counter as it is, to see that conservation does not hold then.
#[cfg(test)]
pub(super) mod fault {
    use std::cell::Cell;

    use super::Fate;

    thread_local! {
        /// Which; a fate, or for `Some(None)` what was received.
        pub(in crate::store) static PLANTED: Cell<Option<Option<Fate>>> = const { Cell::new(None) };
    }

    pub(super) fn is_planted(counter: Option<Fate>) -> bool {
        PLANTED.get() == Some(counter)
    }
}

/// The bit of a lease's first number that says that PUBLISH was sent.
const SENT: u64 = 1 << 16;

/// The number of a reason on disk: never given another meaning.
fn pack_reason(reason: DropReason) -> u64 {
    match reason {
        DropReason::QueueFull => 1,
        DropReason::StoreFull => 2,
        DropReason::StoreBusy => 3,
        DropReason::TooLarge => 4,
        DropReason::Purged => 5,
        DropReason::Denied => 6,
        DropReason::Damaged => 7,
        DropReason::Superseded => 8,
        DropReason::Refused => 9,
        DropReason::LinkDown => 10,
        DropReason::Expired => 11,
        DropReason::MemoryFull => 12,
        DropReason::RefusedBySubscriber => 13,
        DropReason::SendBufferFull => 14,
    }
}

fn unpack_reason(number: u64) -> Option<DropReason> {
    REASONS.into_iter().find(|reason| pack_reason(*reason) == number)
}

pub(super) const REASONS: [DropReason; 14] = [
    DropReason::QueueFull,
    DropReason::StoreFull,
    DropReason::StoreBusy,
    DropReason::TooLarge,
    DropReason::Purged,
    DropReason::Denied,
    DropReason::Damaged,
    DropReason::Superseded,
    DropReason::Refused,
    DropReason::LinkDown,
    DropReason::Expired,
    DropReason::MemoryFull,
    DropReason::RefusedBySubscriber,
    DropReason::SendBufferFull,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_read_as_it_was_written() {
        let mut state = State { cursor: 5, numbered: 900, ..State::default() };
        state.ahead.insert_range(7, 9);
        let held =
            |packet_id, state, holder: Option<u32>| Held { packet_id, state, holder: holder.map(ReaderId) };
        state.leases.insert(6, held(17, LeaseState::Received, None));
        state.leases.insert(10, held(18, LeaseState::Sent, None));
        state.leases.insert(11, held(18, LeaseState::Received, Some(0)));
        state.leases.insert(12, held(u16::MAX, LeaseState::Sent, Some(u32::MAX)));
        state.leases.insert(13, held(u16::MAX, LeaseState::Begun, Some(7)));
        state.inward.insert(65_535);
        state.counters.received = 300;
        state.counters.count(Fate::Delivered, 2);
        for reason in REASONS {
            state.counters.count(Fate::Dropped(reason), pack_reason(reason));
        }
        let mut blob = Vec::new();
        state.pack(&mut blob);
        assert_eq!(State::unpack(&blob), Some(state));
        blob.push(0);
        assert_eq!(State::unpack(&blob), None);
    }

    #[test]
    fn a_row_below_the_cursor_or_ahead_is_settled() {
        let mut state = State { cursor: 5, ..State::default() };
        state.ahead.insert(7);
        let settled: Vec<bool> = (4..9).map(|seq| state.is_settled(seq)).collect();
        assert_eq!(settled, [true, true, false, true, false]);
    }
}
