//! What the broker says of its clients, as records of the log.
//!
//! A crowd that comes and goes must not flood the journal: of each kind only so many are written in ten
//! seconds, the others are counted and the count is written.

use tracing::{info, warn};

use crate::broker::Note;
pub(super) use crate::listener::Limiter;

/// The limits of the kinds.
#[derive(Debug, Default)]
pub(super) struct Notes {
    connected: Limiter,
    refused: Limiter,
    disconnected: Limiter,
    foreign: Limiter,
    gave_way: Limiter,
    refused_message: Limiter,
}

impl Notes {
    /// Writes a note, or counts it.
    pub(super) fn write(&mut self, note: &Note, now: u64) {
        let limiter = match note {
            Note::Connected { .. } => &mut self.connected,
            Note::Refused { .. } => &mut self.refused,
            Note::Lost { .. } | Note::Disconnected { .. } => &mut self.disconnected,
            Note::Foreign { .. } => &mut self.foreign,
            Note::GaveWay { .. } => &mut self.gave_way,
            Note::RefusedMessage { .. } => &mut self.refused_message,
        };
        let Some(missed) = limiter.admit(now) else { return };
        if missed > 0 {
            info!(missed, "more of the next kind were not written");
        }
        match note {
            Note::Connected { client_id, peer } => {
                info!(client_id = %client_id, peer = %peer, "client connected");
            }
            Note::Refused { client_id, peer, reason } => {
                warn!(client_id = %client_id, peer = %peer, reason = ?reason, "client refused");
            }
            Note::Foreign { client_id, peer, claimant, owner } => {
                warn!(
                    client_id = %client_id, peer = %peer, user = %claimant, owner = %owner,
                    "client refused: the session of its client id belongs to another user until it ends"
                );
            }
            Note::GaveWay { client_id } => {
                warn!(
                    client_id = %client_id,
                    "session ended: nothing waited in it, it was absent for longest, and another needed its place"
                );
            }
            Note::RefusedMessage { client_id, reason, words } => {
                warn!(
                    client_id = %client_id, reason = ?reason, words = ?words,
                    "client has refused a message, which is dropped for it"
                );
            }
            Note::Lost { client_id, peer } => {
                info!(client_id = %client_id, peer = %peer, "connection lost without DISCONNECT");
            }
            Note::Disconnected { client_id, peer, reason } => {
                info!(client_id = %client_id, peer = %peer, reason = ?reason, "client disconnected");
            }
        }
    }
}
