//! Reading: whose turn it is, how much, and into what.
//!
//! All connections read into one buffer. What was read is cut off and shared, so payloads are slices of
//! it and an idle connection holds none. Each turn has a limit on bytes and packets, in all and for each
//! connection; who has more is served again in the next turn, after the others. What a turn brings goes to
//! the broker in slices, so that the broker's words for it never fill the memory.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::counters::Counters;
use super::socket::Served;
use super::table::Table;
use crate::broker::{ConnectionId, Event};

/// The connections that may have something, and the buffer that they read into.
#[derive(Debug, Default)]
pub(super) struct Intake {
    ready: VecDeque<ConnectionId>,
    buffer: ReadBuffer,
    /// How many of `ready` are still to be served in this turn.
    unserved: usize,
    /// What is left of this turn.
    bytes: usize,
    packets: usize,
}

/// What one connection may take of a turn.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Bytes to read.
    pub(super) bytes: usize,
    /// Packets to decode, by their work: one that wants or gives up many filters counts for as many.
    pub(super) packets: usize,
    /// Packets that it has decoded.
    pub(super) decoded: u64,
}

/// Whether a turn has more for the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slice {
    /// Somebody has not had his turn.
    Full,
    /// Everybody has, or the turn's limits are reached.
    Last,
}

/// Memory to read into.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    /// Initialized bytes that nobody has a share in.
    chunk: BytesMut,
}

impl Intake {
    /// Notes that a connection may have something to read or to decode.
    pub(super) fn list(&mut self, table: &mut Table, id: ConnectionId) {
        if let Some(socket) = table.socket(id)
            && socket.enlist()
        {
            self.ready.push_back(id);
        }
    }

    /// Whether somebody is to be served.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Begins a turn: everybody who is listed now may be served once.
    pub(super) fn begin_turn(&mut self) {
        self.unserved = self.ready.len();
        self.bytes = TURN_BYTES_MAX;
        self.packets = TURN_PACKETS_MAX;
    }

    /// Serves listed connections until the broker has enough for one call. Puts into `dirty` those that
    /// have to be flushed.
    pub(super) fn serve(
        &mut self,
        table: &mut Table,
        events: &mut Vec<Event>,
        dirty: &mut Vec<ConnectionId>,
        counters: &mut Counters,
    ) -> Slice {
        while self.unserved > 0 && self.bytes > 0 && self.packets > 0 {
            if events.len() >= SLICE_EVENTS {
                return Slice::Full;
            }
            self.unserved -= 1;
            let Some(id) = self.ready.pop_front() else { break };
            let Some(socket) = table.socket(id) else { continue };
            let granted = (CONNECTION_BYTES_MAX.min(self.bytes), CONNECTION_PACKETS_MAX.min(self.packets));
            let mut left = Allowance { bytes: granted.0, packets: granted.1, decoded: 0 };
            let served = socket.serve(id, &mut self.buffer, &mut left, events);
            // Reading may have made the stream itself answer.
            if socket.wants_write() && socket.mark_dirty() {
                dirty.push(id);
            }
            table.weigh(id);
            self.bytes -= granted.0 - left.bytes;
            self.packets -= granted.1 - left.packets;
            counters.bytes_in += (granted.0 - left.bytes) as u64;
            counters.packets_in += left.decoded;
            match served {
                Served::Again => self.ready.push_back(id),
                Served::Idle => {}
                Served::Malformed => counters.malformed += 1,
                Served::Lost => {
                    if let Some(socket) = table.socket(id) {
                        socket.answer_end();
                    }
                    events.push(Event::Lost { connection: id });
                    table.remove(id);
                }
                Served::Ended => table.remove(id),
            }
        }
        Slice::Last
    }
}

impl ReadBuffer {
    /// Room for one read, at most this much.
    pub(super) fn room(&mut self, most: usize) -> &mut [u8] {
        if self.chunk.len() < READ_BYTES_MIN {
            // Takes the old memory again where nobody has kept a slice of it.
            self.chunk.clear();
            self.chunk.resize(CHUNK_BYTES, 0);
        }
        let size = most.min(self.chunk.len());
        self.chunk.get_mut(..size).unwrap_or_default()
    }

    /// Cuts off what a read has filled.
    pub(super) fn take(&mut self, count: usize) -> Bytes {
        self.chunk.split_to(count).freeze()
    }
}

/// What one connection may read in one turn; more waits for the next.
pub(super) const CONNECTION_BYTES_MAX: usize = 64 << 10;

/// Packets that one connection may send in one turn; more waits for the next.
const CONNECTION_PACKETS_MAX: usize = 256;

/// The broker is called when it has so many events: one message may go to thousands, and all that the
/// broker says of one call is in memory at once.
const SLICE_EVENTS: usize = 128;

/// What all connections may read in one turn together.
const TURN_BYTES_MAX: usize = 512 << 10;

/// Packets of one turn: its length is everybody's latency, since what is said leaves at its end.
const TURN_PACKETS_MAX: usize = 4_096;

/// A new chunk is begun where less than this is left of the old one.
const READ_BYTES_MIN: usize = 16 << 10;

/// What a slice that is kept for long can pin, at worst.
const CHUNK_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_once_nobody_keeps_a_slice_of_it() {
        let mut buffer = ReadBuffer::default();
        let mut addresses = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let room = buffer.room(CONNECTION_BYTES_MAX);
            assert!(room.len() >= READ_BYTES_MIN);
            addresses.insert(room.as_ptr() as usize / CHUNK_BYTES);
            drop(buffer.take(10_000));
        }
        assert!(addresses.len() <= 2, "one chunk, wherever it begins: {addresses:?}");
    }

    #[test]
    fn a_slice_that_is_kept_stays_as_it_was() {
        let mut buffer = ReadBuffer::default();
        let mut kept = Vec::new();
        for round in 0..100_u8 {
            buffer.room(CONNECTION_BYTES_MAX)[..5_000].fill(round);
            kept.push(buffer.take(5_000));
        }
        for (round, slice) in kept.iter().enumerate() {
            assert!(slice.iter().all(|byte| usize::from(*byte) == round));
        }
    }
}
