//! QoS 2 packet ids that a client has used and not yet released.
//!
//! While an id stands here, another PUBLISH under it is a repeat and is not routed again. For a kept
//! session each id remembers the write that keeps it, since PUBREC waits for that.

use std::collections::BTreeMap;

use crate::record::Ticket;

/// The ids of one session.
#[derive(Debug, Default)]
pub struct Inward {
    ids: BTreeMap<u16, Ticket>,
}

impl Inward {
    /// Notes an id; `ticket` is 0 where nothing has to be committed. Whether it was not held before.
    pub fn hold(&mut self, packet_id: u16, ticket: Ticket) -> bool {
        self.ids.insert(packet_id, ticket).is_none()
    }

    /// The write that keeps the id, if the id is held.
    pub fn of(&self, packet_id: u16) -> Option<Ticket> {
        self.ids.get(&packet_id).copied()
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Frees an id; false where it was not held.
    pub fn release(&mut self, packet_id: u16) -> bool {
        self.ids.remove(&packet_id).is_some()
    }
}
