//! Reading: whose turn it is, how much, and into what.
//!
//! All connections read into one buffer. What was read is cut off and shared, so payloads are slices of
//! it and an idle connection holds none. Each turn has a limit on bytes and packets, in all and for each
//! connection; who has more is served again in the next turn, after the others.

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
}

/// What is left of a turn.
#[derive(Debug)]
pub(super) struct Budget {
    /// Bytes to read.
    pub(super) bytes: usize,
    /// Packets to decode.
    pub(super) packets: usize,
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

    /// Serves every listed connection once, as far as the turn's limits go.
    pub(super) fn serve(&mut self, table: &mut Table, events: &mut Vec<Event>, counters: &mut Counters) {
        let mut budget = Budget { bytes: TURN_BYTES_MAX, packets: TURN_PACKETS_MAX };
        for _ in 0..self.ready.len() {
            if budget.bytes == 0 || budget.packets == 0 {
                break;
            }
            let Some(id) = self.ready.pop_front() else { break };
            let Some(socket) = table.socket(id) else { continue };
            let before = budget.bytes;
            let served = socket.serve(id, &mut self.buffer, &mut budget, events);
            counters.bytes_in += (before - budget.bytes) as u64;
            match served {
                Served::Again => self.ready.push_back(id),
                Served::Idle => {}
                Served::Malformed => counters.malformed += 1,
                Served::Lost => {
                    events.push(Event::Lost { connection: id });
                    table.remove(id);
                }
                Served::Ended => table.remove(id),
            }
        }
        counters.packets_in += (TURN_PACKETS_MAX - budget.packets) as u64;
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

/// What all connections may read in one turn together.
const TURN_BYTES_MAX: usize = 512 << 10;

/// Packets of one turn: they are events in memory at once, and the turn's length is everybody's latency.
const TURN_PACKETS_MAX: usize = 2_048;

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
