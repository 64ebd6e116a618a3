//! Whose a session is: the user's who made it, under the mount point where it was made, until it ends.
//!
//! Nobody else resumes it, ends it or pushes its connection out, whatever client id he gives: what waits in
//! it is not for him. A session that was made without a user name is anybody's, and becomes that of
//! the first user who takes it over.

use std::sync::Arc;

use bytestring::ByteString;

use super::client::Client;
use super::effect::Party;
use super::{Broker, ConnectionId, Effect, Note, Turn};
use crate::record::Mount;

impl Broker {
    /// Whether the session of this client id is somebody else's; the operator reads whose.
    pub(super) fn is_foreign(
        &self,
        id: ConnectionId,
        user: Option<&ByteString>,
        client_id: &ByteString,
        turn: &mut Turn<'_>,
    ) -> bool {
        let Some(connection) = self.connections.get(id) else { return false };
        let Some(client) = self.clients.named(client_id).and_then(|key| self.clients.get(key)) else {
            return false;
        };
        let claimant = Party { user: user.cloned(), mount: connection.peer.terms.mount.clone() };
        if client.is_open_to(&claimant) {
            return false;
        }
        let owner = Party { user: client.session.user.clone(), mount: client.mount.clone() };
        let (client_id, peer) = (client_id.clone(), connection.peer.name.clone());
        turn.effects.push(Effect::Note(Note::Foreign { client_id, peer, claimant, owner }));
        true
    }
}

impl Client {
    fn is_open_to(&self, claimant: &Party) -> bool {
        let users = self.session.user.is_none() || self.session.user == claimant.user;
        users && (self.origin == Origin::Unknown || self.mount == claimant.mount)
    }

    /// Where it was made, for the store.
    pub(super) fn mount_record(&self) -> Mount {
        match (self.origin, &self.mount) {
            (Origin::Unknown, _) => Mount::Unknown,
            (Origin::Known, None) => Mount::None,
            (Origin::Known, Some(mount)) => Mount::At(ByteString::from(&**mount)),
        }
    }

    /// As the store has it.
    pub(super) fn restore_mount(&mut self, mount: Mount) {
        self.origin = if mount == Mount::Unknown { Origin::Unknown } else { Origin::Known };
        self.mount = match mount {
            Mount::Unknown | Mount::None => None,
            Mount::At(mount) => Some(Arc::from(&*mount)),
        };
    }
}

/// Whether the mount point through which a session was made is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is the client's.
    Known,
    /// A store of version 2 did not say it: whoever comes first with the right user has the session.
    Unknown,
}
