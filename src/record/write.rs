//! The stream of writes, and what a reader or a start gets back.
//!
//! Every change that must survive is one [`Write`]; the broker emits them in order, the store applies
//! and commits them in that order. Lazy ones ([`Write::is_lazy`]) may wait up to a second for company.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::{Message, ReaderId, Seq, Want};
use crate::codec::{Properties, QoS, SubscriptionOptions};

/// One durable change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A message that somebody durable wants, or that is retained (or clears what is: empty payload).
    Message {
        /// Its order number; also given where nobody but the retained store wants it.
        seq: Seq,
        /// The message, compact.
        message: Arc<Message>,
        /// Who wants it; sorted by reader; may be empty.
        audience: Arc<[Want]>,
        /// Whether the retained store takes it.
        retained: bool,
        /// The kept session and packet id of a QoS 2 publish, committed with the message so that
        /// a repeat after a crash is known.
        inward: Option<(ReaderId, u16)>,
    },
    /// A QoS 2 packet id of a kept session whose message nobody durable wants.
    Inward {
        /// The publisher's session.
        reader: ReaderId,
        /// Packet id.
        packet_id: u16,
    },
    /// A kept session's PUBREL was handled: the packet id is free. Committed before our PUBCOMP leaves, so
    /// that a crash does not take the client's next message under it for a repeat.
    InwardReleased {
        /// The publisher's session.
        reader: ReaderId,
        /// Packet id.
        packet_id: u16,
    },
    /// A topic's retained message has run out of time.
    Unretained {
        /// Topic name.
        topic: ByteString,
    },
    /// A session that outlives its connection was made or has changed; the whole of it. Does not touch
    /// its rows.
    Session(Arc<SessionRecord>),
    /// A session was found connected at a start: when its connection ended at the latest. Nothing where it is gone.
    SessionEnded {
        /// Whose.
        reader: ReaderId,
        /// A stamp, as [`SessionRecord::ended`].
        ended: u64,
    },
    /// A session is gone since its client wants none of it any more: what it still had is dropped (counted as
    /// purged). The client is told that it is gone after the commit, so that a crash does not bring it back.
    SessionRemoved {
        /// Whose.
        reader: ReaderId,
    },
    /// The same of a session whose time is over, or which others need the place of, and of a group without members.
    SessionLapsed {
        /// Whose.
        reader: ReaderId,
    },
    /// QoS 2 outward: committed before our PUBLISH leaves, where its client outlives its connection.
    Leased {
        /// Whose.
        reader: ReaderId,
        /// Which row.
        seq: Seq,
        /// Under which packet id.
        packet_id: u16,
        /// Whose packet id it is, where the reader is a group of sessions: one of them, or reader 0 for one
        /// that ends with its connection and whose PUBLISH left with this write. `None`: the reader's own.
        holder: Option<ReaderId>,
    },
    /// QoS 2 outward, of a group: PUBLISH has left. Without it a start cannot tell a message that was sent
    /// from one that only was to be.
    LeaseSent {
        /// Whose.
        reader: ReaderId,
        /// Which row.
        seq: Seq,
    },
    /// QoS 2 outward, of a group: the row was leased and not sent, and is the group's again.
    Unleased {
        /// Whose.
        reader: ReaderId,
        /// Which row.
        seq: Seq,
    },
    /// QoS 2 outward: PUBREC came, or PUBLISH can never be sent again; committed before our PUBREL leaves.
    LeaseReceived {
        /// Whose.
        reader: ReaderId,
        /// Which row.
        seq: Seq,
    },
    /// The reader has the message (PUBACK, PUBCOMP), or has refused it after [`Write::Dropped`]: its row is no
    /// longer wanted by it, and is not counted where it was gone before. Its lease ends.
    Settled {
        /// Whose.
        reader: ReaderId,
        /// Which row.
        seq: Seq,
    },
    /// A limit or a rule took one row from the reader; says nothing of a row that it no longer wants. Its lease
    /// stays, as with every row that goes unsettled: the client may hold its packet id.
    Dropped {
        /// Whose.
        reader: ReaderId,
        /// Which row.
        seq: Seq,
        /// Why.
        reason: DropReason,
    },
    /// A session's queue is over its limit: its oldest unleased rows after one go. Those up to it are
    /// under way. The session is not read again before it is committed.
    DropOldest {
        /// Whose.
        reader: ReaderId,
        /// Only rows after this one.
        after: Seq,
        /// How many.
        count: u64,
    },
    /// A rule or a limit took publishes from a reader before they had rows, and their publishers were told
    /// nothing of it: they count as received and as dropped.
    Shed {
        /// Whose.
        reader: ReaderId,
        /// Why.
        reason: DropReason,
        /// How many.
        count: u64,
    },
}

impl Write {
    /// Whether nobody waits for it: cursors, acknowledgements, removals and counts. These ride on the next
    /// commit, or make one of their own after 1 s or 1,000 of them.
    pub fn is_lazy(&self) -> bool {
        matches!(
            self,
            Write::Settled { .. }
                | Write::Dropped { .. }
                | Write::LeaseSent { .. }
                | Write::Unleased { .. }
                | Write::SessionEnded { .. }
                | Write::SessionLapsed { .. }
                | Write::Shed { .. }
                | Write::Unretained { .. }
        )
    }
}

/// Why a message was dropped; the word stands in status and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// The session's or the route's queue was full.
    QueueFull,
    /// The store was full.
    StoreFull,
    /// The store did not answer in time for a QoS 0 message.
    StoreBusy,
    /// Over the receiver's Maximum Packet Size.
    TooLarge,
    /// Its session or route was removed.
    Purged,
    /// An access rule.
    Denied,
    /// A damaged row.
    Damaged,
    /// A later message for the same topic took its place.
    Superseded,
    /// Upstream refused it for good.
    Refused,
    /// The link was down and the route keeps nothing (`store = false`).
    LinkDown,
    /// Memory was at its limit.
    MemoryFull,
    /// Its Message Expiry Interval has passed; counted as expired, not as dropped.
    Expired,
    /// The subscriber has answered it with an error.
    RefusedBySubscriber,
    /// A QoS 0 message found its connection's send buffer full.
    SendBufferFull,
}

impl DropReason {
    /// The word in status and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::StoreFull => "store_full",
            DropReason::StoreBusy => "store_busy",
            DropReason::TooLarge => "too_large",
            DropReason::Purged => "purged",
            DropReason::Denied => "denied",
            DropReason::Damaged => "damaged",
            DropReason::Superseded => "superseded",
            DropReason::Refused => "refused",
            DropReason::LinkDown => "link_down",
            DropReason::MemoryFull => "memory_full",
            DropReason::Expired => "expired",
            DropReason::RefusedBySubscriber => "refused_by_subscriber",
            DropReason::SendBufferFull => "send_buffer_full",
        }
    }
}

/// A session that outlives its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its reader id.
    pub reader: ReaderId,
    /// Client id.
    pub client_id: ByteString,
    /// User name at its last connection.
    pub user: Option<ByteString>,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub expiry: u32,
    /// When its connection ended: a stamp of the house's time, in milliseconds; `None` while connected.
    pub ended: Option<u64>,
    /// Subscriptions, in the order of their making.
    pub subscriptions: Vec<StoredSubscription>,
    /// Will that is still to be published.
    pub will: Option<SessionWill>,
    /// Where it was made.
    pub mount: Mount,
}

/// The mount point of the listener through which a session was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mount {
    /// It is not said: a group's, or a session of a store of version 2.
    #[default]
    Unknown,
    /// None.
    None,
    /// This stands before all of its topics.
    At(ByteString),
}

/// One subscription of a stored session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSubscription {
    /// Filter, as subscribed.
    pub filter: ByteString,
    /// Options.
    pub options: SubscriptionOptions,
    /// Subscription identifier.
    pub identifier: Option<u32>,
}

/// A will that is kept with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionWill {
    /// QoS.
    pub qos: QoS,
    /// Retain.
    pub retain: bool,
    /// Topic name.
    pub topic: ByteString,
    /// Payload.
    pub payload: Bytes,
    /// Will properties, as sent.
    pub properties: Properties,
}

/// One row for one reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Order number.
    pub seq: Seq,
    /// The reader's own dense number of it, from 1, given at commit (routes; 0 for sessions).
    pub number: u64,
    /// The message.
    pub message: Arc<Message>,
    /// How the reader wants it.
    pub want: Want,
}

/// How much one read brings at most: it ends with the row that reaches the one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Portion {
    /// So many rows.
    pub rows: u32,
    /// So many bytes of messages. The first row comes whatever it weighs.
    pub bytes: u32,
}

impl Portion {
    /// Bytes that no read goes beyond by more than its last row.
    pub const BYTES_MAX: u32 = 1 << 20;
}

impl From<u32> for Portion {
    /// So many rows, whatever they weigh.
    fn from(rows: u32) -> Portion {
        Portion { rows, bytes: Portion::BYTES_MAX }
    }
}

/// What one read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// Whose.
    pub reader: ReaderId,
    /// Unsettled rows after the asked place, in order, committed ones only.
    pub rows: Vec<Row>,
    /// Every unsettled committed row up to here is in `rows` or was before the asked place: the next
    /// read starts after it.
    pub through: Seq,
    /// The newest committed row of the log when this was read.
    pub newest: Seq,
    /// Rows of a session after `through`, up to `newest`, that it still wants and that are in no QoS 2
    /// exchange: the store ends some without a word to the broker. 0 for a route.
    pub left: u64,
}

/// What the store had when it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    /// Whether there was a store to open.
    pub store: Presence,
    /// The highest order number ever given.
    pub last_seq: Seq,
    /// The highest reader id ever given.
    pub last_reader: u32,
    /// Sessions.
    pub sessions: Vec<RestoredSession>,
    /// Retained messages.
    pub retained: Vec<Arc<Message>>,
    /// No connection of the process before lived longer than this stamp of the house's time; 0 where that
    /// is not known.
    pub alive: u64,
}

/// Whether there is a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Presence {
    /// What must be kept is kept.
    #[default]
    There,
    /// It could not be opened. Nothing is kept, and nobody knows which sessions it has.
    Absent,
}

/// A session as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredSession {
    /// The session.
    pub record: SessionRecord,
    /// Every row of it up to here is settled.
    pub cursor: Seq,
    /// The newest row that it wants; the cursor where it wants none.
    pub last: Seq,
    /// Rows that it still wants.
    pub queued: u64,
    /// What they weigh, about: each as much as its own rows of the same segment on the average.
    pub queued_bytes: u64,
    /// QoS 2 exchanges outward.
    pub leases: Vec<Lease>,
    /// QoS 2 packet ids inward, not yet released.
    pub inward: Vec<u16>,
}

impl RestoredSession {
    /// Rows that are in no exchange, and what they weigh, about.
    pub fn waiting(&self) -> (u64, u64) {
        let leased = self.leases.iter().filter(|lease| lease.has_row).count() as u64;
        let waiting = self.queued.saturating_sub(leased);
        (waiting, self.queued_bytes / self.queued.max(1) * waiting)
    }
}

/// A QoS 2 exchange outward that was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Which row.
    pub seq: Seq,
    /// Under which packet id.
    pub packet_id: u16,
    /// How far.
    pub state: LeaseState,
    /// Whose packet id it is; see [`Write::Leased`].
    pub holder: Option<ReaderId>,
    /// Whether there is something to send again: a limit may have taken the row, which frees no packet id.
    pub has_row: bool,
}

/// How far a QoS 2 exchange outward is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseState {
    /// PUBLISH may have been sent: it is repeated with DUP.
    Begun,
    /// PUBLISH was sent; said of groups only.
    Sent,
    /// PUBREC came, or is waited for no longer: PUBREL is repeated.
    Received,
}
