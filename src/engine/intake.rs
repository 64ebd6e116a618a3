//! Reading: whose turn it is, how much, and into what.
//!
//! All connections read into one buffer. What does not go straight from there is copied to memory that is shared, so
//! payloads are slices of it and an idle connection holds none. Who says little, which is sixteen packets and 8 KB at a
//! time at most, is served first. Who had more to say last time, or meant much by it, is new, or goes, stands in a
//! second lane, of which a turn serves so much and no more: what thousands of them want keeps nobody waiting. What a
//! turn brings goes to the broker in shares that begin small, so that the broker's words for it are few when one packet
//! means many of them.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::socket::{Served, Socket};
use super::table::Table;
use super::turn::{Engine, LONG_WORK_MAX};
use super::work;
use crate::broker::{ConnectionId, Effect, Event};
use crate::record::Now;

/// The connections that may have something, and the buffer that they read into.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// Who says little.
    brief: VecDeque<ConnectionId>,
    /// All others.
    long: VecDeque<ConnectionId>,
    pub(super) buffer: ReadBuffer,
}

/// Where a connection waits to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// It has come in, and had little to say when it was last served.
    Brief,
    /// It had much to say then, or what meant much to others, has not said anything whole yet, or goes.
    Long,
}

/// What one connection may take when it is served.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Bytes to read.
    pub(super) bytes: usize,
    /// Bytes that it has read.
    read: usize,
    /// Packets to decode, by their work: one that wants or gives up many filters counts for as many.
    pub(super) packets: usize,
    /// Packets that it has decoded, or that have gone straight.
    pub(super) decoded: u64,
    /// The work of those that the broker is told of.
    pub(super) done: usize,
    /// Packets that may go straight.
    pub(super) straight: usize,
    /// Work that those took.
    pub(super) work: usize,
    /// Work that the broker was asked for before them: of what others have said, too.
    pub(super) asked: usize,
    /// What comes next was found not to go straight.
    pub(super) is_missed: bool,
}

/// How much a connection has said, in however many servings. Beyond what these hold it is no more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    /// Packets, or their work where that is more.
    packets: u8,
    /// Bytes that were read: not always in the serving in which their packets are decoded.
    bytes: u16,
}

/// What a share of a lane may take, and what it took.
#[derive(Debug)]
pub(super) struct Share {
    /// Whether the lane was not served before in this turn.
    pub(super) is_first: bool,
    /// Packets that the broker is told of, by their work.
    pub(super) packets: usize,
    /// Work that is left.
    pub(super) left: usize,
    /// Work done.
    pub(super) done: usize,
    /// Who was served last, and how many were.
    pub(super) served: (Option<ConnectionId>, usize),
}

/// Memory to read into.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    /// What is read stands here until the next read: the same memory each time, which the processor has at hand.
    room: Vec<u8>,
    /// For what is kept longer; nobody has a share in it.
    chunk: BytesMut,
}

impl Intake {
    /// Notes that a connection may have something to read or to decode.
    pub(super) fn list(&mut self, table: &mut Table, id: ConnectionId) {
        if let Some(socket) = table.socket(id)
            && let Some(lane) = socket.enlist()
        {
            self.lane(lane).push_back(id);
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut VecDeque<ConnectionId> {
        match lane {
            Lane::Brief => &mut self.brief,
            Lane::Long => &mut self.long,
        }
    }

    /// Whether somebody is to be served.
    pub(super) fn is_ready(&self) -> bool {
        !self.brief.is_empty() || self.is_long()
    }

    /// Whether somebody has more to say than a few words.
    pub(super) fn is_long(&self) -> bool {
        !self.long.is_empty()
    }
}

impl Engine {
    /// Serves those of a lane in turn until the share is taken.
    pub(super) fn serve_lane(&mut self, lane: Lane, share: &mut Share, effects: &mut Vec<Effect>, now: Now) {
        while share.packets > 0 && share.left > 0 {
            let Some(id) = self.intake.lane(lane).pop_front() else { return };
            if self.table.socket(id).is_none() {
                continue;
            }
            share.served = (Some(id), share.served.1 + 1);
            let mut left = Allowance::of(lane, share);
            let served = self.serve_one(id, &mut left, share.left, effects, now);
            let went_straight = left.work > 0;
            // The first share is a single packet beside those that go straight.
            let has_had_his = left.straight == 0 || (went_straight && left.done == 0);
            if let Some(socket) = self.table.socket(id) {
                // Reading may have made the stream itself answer.
                if socket.wants_write() {
                    self.courier.mark_answered(id, socket);
                }
                if left.work > LONG_WORK_MAX {
                    socket.step_back();
                }
            }
            self.table.weigh(id);
            self.counters.bytes_in += left.read as u64;
            self.counters.packets_in += left.decoded;
            // What goes straight is bounded by its work.
            share.packets = share.packets.saturating_sub(left.done.max(usize::from(!went_straight)));
            share.take(work::SERVE + work::of_bytes(left.read) + left.done * work::PACKET + left.all_work());
            match served {
                Served::Again if share.is_first && lane == Lane::Brief && !has_had_his => {
                    self.intake.brief.push_back(id);
                }
                Served::Again => self.intake.long.push_back(id),
                Served::Idle | Served::Straight | Served::Fresh(_) => {}
                Served::Malformed => self.counters.malformed += 1,
                Served::Lost | Served::Ended => {
                    self.let_go(id, served);
                    share.take(work::CLOSE);
                }
            }
        }
    }

    /// Forgets one who is gone.
    fn let_go(&mut self, id: ConnectionId, served: Served) {
        if served == Served::Lost {
            self.table.socket(id).into_iter().for_each(Socket::answer_end);
            self.events.push(Event::Lost { connection: id });
        }
        self.table.remove(id);
    }

    fn serve_one(
        &mut self,
        id: ConnectionId,
        left: &mut Allowance,
        most: usize,
        effects: &mut Vec<Effect>,
        now: Now,
    ) -> Served {
        loop {
            let Some(socket) = self.table.socket(id) else { return Served::Idle };
            match socket.serve(id, &mut self.intake.buffer, left, &mut self.events) {
                Served::Straight => self.go_straight(id, left, most, effects, now),
                Served::Fresh(bytes) => self.go_fresh(id, bytes, left, most, effects, now),
                served => return served,
            }
        }
    }
}

impl Allowance {
    fn of(lane: Lane, share: &Share) -> Allowance {
        match lane {
            Lane::Brief => {
                Allowance::new(BRIEF_BYTES_MAX, BRIEF_PACKETS_MAX.min(share.packets), BRIEF_PACKETS_MAX)
            }
            Lane::Long => {
                let bytes = work::bytes_within(share.left).min(CONNECTION_BYTES_MAX);
                Allowance::new(bytes, share.packets, usize::MAX)
            }
        }
    }

    pub(super) fn new(bytes: usize, packets: usize, straight: usize) -> Allowance {
        Allowance {
            bytes,
            read: 0,
            packets,
            decoded: 0,
            done: 0,
            straight,
            work: 0,
            asked: 0,
            is_missed: false,
        }
    }

    /// So many bytes were read; a stream may have read more than it was asked to.
    pub(super) fn take(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.read += bytes;
    }

    /// Work that was done while it was served, beside that of reading.
    pub(super) fn all_work(&self) -> usize {
        self.work + self.asked
    }
}

impl Said {
    /// More than anybody may say of whom it is little.
    pub(super) const MUCH: Said = Said { packets: u8::MAX, bytes: 0 };

    /// Adds what one serving took.
    pub(super) fn add(&mut self, taken: &Allowance) {
        let packets = taken.decoded.max(taken.done as u64);
        self.packets = self.packets.saturating_add(u8::try_from(packets).unwrap_or(u8::MAX));
        self.bytes = self.bytes.saturating_add(u16::try_from(taken.read).unwrap_or(u16::MAX));
    }

    /// Whether it is nothing at all.
    pub(super) fn is_nothing(self) -> bool {
        (self.packets, self.bytes) == (0, 0)
    }

    /// Whether it is more than little.
    pub(super) fn is_much(self) -> bool {
        usize::from(self.packets) > BRIEF_PACKETS_MAX || usize::from(self.bytes) > BRIEF_BYTES_MAX
    }
}

impl Share {
    pub(super) fn new(is_first: bool, packets: usize, left: usize) -> Share {
        Share { is_first, packets, left, done: 0, served: (None, 0) }
    }

    /// Who has taken all of it, if it was one.
    pub(super) fn only(&self) -> Option<ConnectionId> {
        self.served.0.filter(|_| self.served.1 == 1)
    }

    /// So much of it is done.
    pub(super) fn take(&mut self, work: usize) {
        self.done += work;
        self.left = self.left.saturating_sub(work);
    }
}

impl ReadBuffer {
    /// Room for one read, at most this much.
    pub(super) fn room(&mut self, most: usize) -> &mut [u8] {
        if self.room.is_empty() {
            self.room.resize(CONNECTION_BYTES_MAX, 0);
        }
        let size = most.min(self.room.len());
        self.room.get_mut(..size).unwrap_or_default()
    }

    /// Gives the room with what was read out of hand for a while.
    pub(super) fn lend(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.room)
    }

    /// Takes it back.
    pub(super) fn give_back(&mut self, room: Vec<u8>) {
        self.room = room;
    }

    /// Keeps a part of what was read.
    pub(super) fn keep(&mut self, part: Range<usize>) -> Bytes {
        let part = self.room.get(part).unwrap_or_default();
        if self.chunk.capacity() < part.len() {
            // Takes the old memory again where nobody has kept a slice of it.
            self.chunk.reserve(CHUNK_BYTES);
        }
        self.chunk.extend_from_slice(part);
        self.chunk.split().freeze()
    }
}

/// What one connection may read at once; more waits until others were served.
pub(super) const CONNECTION_BYTES_MAX: usize = 64 << 10;

/// What one of the first lane may read in one serving; more is served in the second.
const BRIEF_BYTES_MAX: usize = 8 << 10;

/// Packets that one of the first lane may send in one serving; more are served in the second.
const BRIEF_PACKETS_MAX: usize = 16;

/// What a slice that is kept for long can pin, at worst.
const CHUNK_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_is_more_than_the_first_lane_takes_in_however_many_servings() {
        // Packets, their work, and bytes that were read for them.
        for (servings, expected) in [
            (&[(16, 16, 8_192)][..], false),
            (&[(17, 0, 100)], true),
            (&[(9, 0, 100), (7, 0, 100)], false),
            (&[(9, 9, 100), (8, 8, 100)], true),
            (&[(1, 17, 100)], true),
            (&[(1, 1, 8_192), (0, 0, 1)], true),
            (&[(1, 1, 4_000), (8, 8, 0), (1, 1, 0)], false),
            (&[(5_000, 0, 65_536), (1, 0, 0)], true),
        ] {
            let mut said = Said::default();
            for (decoded, done, read) in servings {
                let mut left = Allowance { decoded: *decoded, done: *done, ..Allowance::new(4_096, 16, 16) };
                left.take(*read);
                assert_eq!((left.bytes, left.read), (4_096_usize.saturating_sub(*read), *read));
                said.add(&left);
            }
            assert_eq!(said.is_much(), expected, "{servings:?}");
        }
    }

    #[test]
    fn memory_is_used_again_once_nobody_keeps_a_slice_of_it() {
        let mut buffer = ReadBuffer::default();
        let mut addresses = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            assert_eq!(buffer.room(usize::MAX).len(), CONNECTION_BYTES_MAX);
            let slice = buffer.keep(0..10_000);
            assert_eq!(slice.len(), 10_000);
            addresses.insert(slice.as_ptr() as usize / CHUNK_BYTES);
        }
        assert!(addresses.len() <= 2, "one chunk, wherever it begins: {addresses:?}");
    }

    #[test]
    fn a_slice_that_is_kept_stays_as_it_was() {
        let mut buffer = ReadBuffer::default();
        let mut kept = Vec::new();
        for round in 0..100_u8 {
            buffer.room(CONNECTION_BYTES_MAX)[1_000..6_000].fill(round);
            kept.push(buffer.keep(1_000..6_000));
        }
        for (round, slice) in kept.iter().enumerate() {
            assert!(slice.len() == 5_000 && slice.iter().all(|byte| usize::from(*byte) == round));
        }
    }
}
