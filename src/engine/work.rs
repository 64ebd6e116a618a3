//! What the engine's doings cost, so that a turn of its loop can be bounded by what it takes.
//!
//! The unit is about a tenth of a microsecond of the optimised program on a common processor. The weights need
//! not be exact: they say what is much beside what.

/// A connection is looked at: mostly a read.
pub(super) const SERVE: usize = 15;

/// A packet is taken apart and handled, or one of its filters.
pub(super) const PACKET: usize = 6;

/// Something that the broker says is carried out.
pub(super) const EFFECT: usize = 2;

/// A packet goes straight, or what comes of it does, to one connection; or it is kept for one more reader.
pub(super) const STRAIGHT: usize = 1;

/// A connection is let in.
pub(super) const ACCEPT: usize = 150;

/// A connection is closed.
pub(super) const CLOSE: usize = 80;

/// What waits for a connection is written.
pub(super) const FLUSH: usize = 60;

/// Bytes are read, or gathered to be written.
pub(super) fn of_bytes(bytes: usize) -> usize {
    bytes / BYTES
}

/// How many bytes can be read with so much work; some in any case.
pub(super) fn bytes_within(work: usize) -> usize {
    (work * BYTES).max(BYTES_MIN)
}

/// Bytes of one unit.
const BYTES: usize = 128;

/// A smaller read is not worth its call.
const BYTES_MIN: usize = 4 << 10;
