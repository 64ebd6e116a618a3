//! What the broker tells the store, and what it hears back.
//!
//! The words that both sides share: messages, their order numbers, who wants them, and the stream of
//! [`Write`]s whose place in it ([`Ticket`]) is what acknowledgements wait for. Values only: the broker
//! decides, the store keeps, and neither needs to know the other.

mod identifiers;
mod message;
mod now;
mod policy;
mod survey;
mod timeline;
mod write;
#[cfg(test)]
pub(crate) mod machine;
#[cfg(test)]
mod jumps;

pub use identifiers::Identifiers;
pub use message::{Message, Want};
pub use now::{Mend, Now, Span};
pub use policy::{Bounds, Full, Keep, Policy};
pub use survey::{ReaderStatus, Survey};
pub use timeline::{HEARTBEAT, Kept, Known, MENDS_MAX, OFF_MAX, Reading, Timeline};
pub use write::{
    DropReason, Lease, LeaseState, Mount, Portion, Presence, Restored, RestoredSession, Row, Rows,
    SessionRecord, SessionWill, StoredSubscription, Write,
};

/// Order number of a message in the log; the first is 1. Given by the broker, dense over everything
/// that is stored, never used twice, not even after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

/// Who reads the log: a route or a session that outlives its connection. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(pub u32);

/// The place of a [`Write`] in the stream from the broker to the store; the first since start is 1.
/// Once the store says that a ticket is committed, so is every one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);
