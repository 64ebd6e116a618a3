//! Places for sessions that outlive their connections, ten for each of `max_connections`.
//!
//! One that ends with its connection needs none: `max_connections` bounds those, so whoever has left cannot
//! keep out who leaves nothing behind. Where all places are taken the session that has been absent for longest
//! gives way, if nothing waits in it; so nothing that was acknowledged goes with it.

use super::client::ClientKey;
use super::connection::Connection;
use super::depart::Removal;
use super::rights::is_port_of_the_house;
use super::{Broker, ConnectionId, Effect, Note, Turn};

impl Broker {
    /// Whether there is a place for the session of this client id that is to outlive its connection; another
    /// may end for it.
    pub(super) fn make_place(&mut self, id: ConnectionId, client_id: &str, turn: &mut Turn<'_>) -> bool {
        let former = self.clients.named(client_id).and_then(|key| self.clients.get(key));
        let has_one = former.is_some_and(|client| client.session.backlog.is_some());
        let is_house = self.connections.get(id).is_some_and(Connection::is_of_the_house);
        let places = u64::from(self.config.limits.max_connections) * PLACES_PER_CONNECTION;
        if has_one || is_house || (self.clients.kept() as u64) < places {
            return true;
        }
        while let Some(key) = self.clients.next_absent() {
            if !self.may_give_way(key) {
                continue;
            }
            if let Some(client) = self.clients.get(key) {
                let client_id = client.session.client_id.clone();
                turn.effects.push(Effect::Note(Note::GaveWay { client_id }));
            }
            self.counters.sessions_displaced += 1;
            self.end_session(key, Removal::Lapsed, turn);
            return true;
        }
        false
    }

    /// Whether nothing waits in a session, nor in a group that it may be the last of, and it is no part of
    /// the house.
    fn may_give_way(&self, key: ClientKey) -> bool {
        let Some(client) = self.clients.get(key) else { return false };
        let groups = || client.groups.iter().filter_map(|id| self.groups.get(*id));
        client.session.waiting().0 == 0
            && client.session.flight.is_empty()
            && !is_port_of_the_house(&client.session.client_id)
            && groups().all(|group| !group.has_waiting())
    }
}

/// Sessions that outlive their connections, for each of `max_connections`.
const PLACES_PER_CONNECTION: u64 = 10;
