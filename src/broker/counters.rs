//! What the broker has counted since its start.
//!
//! Only what the store cannot count: rows and what became of them are the store's figures.

use std::collections::BTreeMap;

use crate::codec::Reason;
use crate::record::DropReason;

/// Figures of one moment; those that only grow say so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// Clients connected, ports too.
    pub clients: u64,
    /// Those of them that are a part of the house: its adapters and bridges.
    pub house_clients: u64,
    /// The most others that were connected at once.
    pub most_guests: u64,
    /// Sessions, connected or not.
    pub sessions: u64,
    /// Sessions that outlive their connections.
    pub kept_sessions: u64,
    /// Subscriptions of clients.
    pub subscriptions: u64,
    /// Those of them that are shared.
    pub shared_subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    /// Clients accepted; grows.
    pub connections_accepted: u64,
    /// Clients turned away; grows.
    pub connections_refused: u64,
    /// Sessions that ended because nobody came for them; grows.
    pub sessions_expired: u64,
    /// Sessions that ended since others needed their places; grows.
    pub sessions_displaced: u64,
    /// PUBLISH packets taken; grows.
    pub received: u64,
    /// Bytes of their payloads; grows.
    pub received_bytes: u64,
    /// PUBLISH packets sent, repeats too; grows.
    pub sent: u64,
    /// Bytes of their payloads; grows.
    pub sent_bytes: u64,
    /// Messages that wait for sessions.
    pub queued: u64,
    /// What these weigh, in bytes.
    pub queued_bytes: u64,
    /// Publishes that were refused and routed to nobody; grows.
    pub not_accepted: u64,
    /// Of these, those that a stored route would have had but for a full destination, by its name; grow.
    pub not_accepted_by_route: BTreeMap<String, u64>,
    /// Publishes that came faster than `max_publish_rate` and had to wait, and those whose readers were so much work
    /// to find that what came behind had to; grows.
    pub slowed: u64,
    /// Copies that ran out of time before their client could take them; grows.
    pub expired: u64,
    /// Publishes or copies that a limit or a rule took, rows of kept sessions too; grows.
    pub dropped: BTreeMap<DropReason, u64>,
    /// The sessions that lost most by a full queue (by their client id), and how much; each number grows
    /// while its session lasts.
    pub lost_by_session: BTreeMap<String, u64>,
    /// Parts of the house that the broker does not let in or has put out, and why, until they are back.
    pub turned_away: BTreeMap<String, Reason>,
    /// Bytes that are held in RAM for clients.
    pub memory: u64,
    /// Messages handed to the store and not yet committed.
    pub uncommitted: u64,
    /// Connections whose reading waits for the store.
    pub paused: u64,
    /// Connections whose publishes are held for want of room.
    pub waiting_for_room: u64,
}

impl Counters {
    /// Counts what was dropped.
    pub(super) fn drop(&mut self, reason: DropReason, count: u64) {
        if count > 0 {
            *self.dropped.entry(reason).or_default() += count;
        }
    }
}
