//! Who is connected: sockets and in-process ports, in one space of numbers.
//!
//! A slot is used again, its generation is not: an effect for somebody who has left finds nobody.

use slab::Slab;

use super::port::Port;
use super::socket::Socket;
use crate::broker::{ConnectionId, Level};
use crate::listener::{Address, Guests, Objection, Stay, Way};

/// Every connection.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Slab<Entry>,
    generation: u32,
    sockets: usize,
    /// Sockets by listener and address.
    guests: Guests,
    /// What all sockets hold in memory, as it was last weighed.
    held: usize,
    /// What they take whatever they do.
    resting: usize,
    /// The most that one of them holds, and which.
    heaviest: Option<(ConnectionId, usize)>,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    /// The broker waits until no more bytes than this wait to leave; [`NOTHING_AWAITED`] where it does not.
    awaited: u32,
    link: Link,
    /// What it holds in memory, as it was last weighed.
    held: usize,
}

/// What stands behind a connection.
#[derive(Debug)]
pub(super) enum Link {
    Socket(Socket),
    Port(Box<Port>),
}

impl Table {
    /// Nobody yet.
    pub(super) fn new(guests: Guests) -> Table {
        Table { guests, ..Table::default() }
    }

    /// Whether one more may come in; see [`Guests::admit`].
    pub(super) fn admit(
        &mut self,
        door: usize,
        address: Option<Address>,
        way: Way,
        now: u64,
    ) -> Result<Stay, Objection> {
        self.guests.admit(door, address, way, now)
    }

    /// Takes in who was admitted and has shaken hands; see [`Guests::enter`].
    pub(super) fn enter(&mut self, stay: Stay) -> Result<Stay, Objection> {
        self.guests.enter(stay)
    }

    /// One who was admitted has not come in.
    pub(super) fn withdraw(&mut self, stay: Stay) {
        self.guests.leave(stay);
    }

    /// How many network clients there are, those included who are to be refused.
    pub(super) fn guests(&self) -> usize {
        self.guests.inside()
    }

    /// How many network clients there are.
    pub(super) fn sockets(&self) -> usize {
        self.sockets
    }

    /// How many ports there are.
    pub(super) fn ports(&self) -> usize {
        self.slots.len() - self.sockets
    }

    /// The number that the next [`Table::insert`] gives.
    pub(super) fn next_id(&self) -> ConnectionId {
        let slot = u32::try_from(self.slots.vacant_key()).expect("fewer than 2^32 descriptors exist");
        ConnectionId { slot, generation: self.generation }
    }

    /// Takes a connection in.
    pub(super) fn insert(&mut self, link: Link) -> ConnectionId {
        let id = self.next_id();
        self.generation = self.generation.wrapping_add(1);
        if let Link::Socket(socket) = &link {
            self.sockets += 1;
            self.resting += socket.resting();
        }
        self.slots.insert(Entry { generation: id.generation, awaited: NOTHING_AWAITED, link, held: 0 });
        id
    }

    /// Forgets a connection; a socket is closed by that.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        if self.link(id).is_some() {
            let entry = self.slots.remove(id.slot as usize);
            self.held -= entry.held;
            if let Link::Socket(socket) = entry.link {
                self.sockets -= 1;
                self.resting -= socket.resting();
                self.guests.leave(socket.stay());
            }
        }
        if self.slots.is_empty() {
            self.slots.shrink_to_fit();
        }
    }

    /// Weighs what a socket holds in memory, after it was read from or written to.
    pub(super) fn weigh(&mut self, id: ConnectionId) {
        let Some(entry) = self.slots.get_mut(id.slot as usize) else { return };
        let Link::Socket(socket) = &entry.link else { return };
        if entry.generation != id.generation {
            return;
        }
        let held = socket.held();
        self.held = self.held - entry.held + held;
        entry.held = held;
        if held > self.heaviest() {
            self.heaviest = Some((id, held));
        }
    }

    /// What all sockets hold in memory.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// What all sockets take in memory whatever they do.
    pub(super) fn resting(&self) -> usize {
        self.resting
    }

    /// The most that one socket holds, as it was last found.
    pub(super) fn heaviest(&self) -> usize {
        self.heaviest.map_or(0, |(_, held)| held)
    }

    /// Who was last found to hold most, and what he holds now.
    pub(super) fn known_heaviest(&self) -> Option<(ConnectionId, usize)> {
        let (id, _) = self.heaviest?;
        let entry = self.slots.get(id.slot as usize).filter(|entry| entry.generation == id.generation)?;
        Some((id, entry.held))
    }

    /// Looks at every socket for the one that holds most.
    pub(super) fn find_heaviest(&mut self) -> Option<(ConnectionId, usize)> {
        let weights = self.slots.iter().filter(|(_, entry)| entry.held > 0).filter_map(|(slot, entry)| {
            let id = ConnectionId { slot: u32::try_from(slot).ok()?, generation: entry.generation };
            Some((id, entry.held))
        });
        self.heaviest = weights.max_by_key(|(_, held)| *held);
        self.heaviest
    }

    /// Whoever has this number, if he is still there.
    pub(super) fn link(&mut self, id: ConnectionId) -> Option<&mut Link> {
        let entry = self.slots.get_mut(id.slot as usize)?;
        (entry.generation == id.generation).then_some(&mut entry.link)
    }

    /// The broker is to be told once no more than this waits to leave on a connection.
    pub(super) fn await_room(&mut self, id: ConnectionId, most: usize) {
        let entry = self.slots.get_mut(id.slot as usize);
        if let Some(entry) = entry.filter(|entry| entry.generation == id.generation) {
            entry.awaited = u32::try_from(most).unwrap_or(u32::MAX).min(NOTHING_AWAITED - 1);
        }
    }

    /// Whether the broker is to be told so now; it is once. Not of one that takes nothing while memory is short:
    /// what it were sent would be the first to be dropped.
    pub(super) fn has_awaited_room(&mut self, id: ConnectionId, memory: Level) -> bool {
        let entry = self.slots.get_mut(id.slot as usize);
        let Some(entry) = entry.filter(|entry| entry.generation == id.generation) else { return false };
        let Link::Socket(socket) = &entry.link else { return false };
        let has_room = entry.awaited != NOTHING_AWAITED
            && socket.waiting() <= entry.awaited as usize
            && (memory == Level::Ample || !socket.is_blocked());
        if has_room {
            entry.awaited = NOTHING_AWAITED;
        }
        has_room
    }

    /// The socket with this number.
    pub(super) fn socket(&mut self, id: ConnectionId) -> Option<&mut Socket> {
        match self.link(id)? {
            Link::Socket(socket) => Some(socket),
            Link::Port(_) => None,
        }
    }

    /// The port with this number.
    pub(super) fn port(&mut self, id: ConnectionId) -> Option<&mut Port> {
        match self.link(id)? {
            Link::Port(port) => Some(port),
            Link::Socket(_) => None,
        }
    }

    /// The socket in a slot that the kernel names, with its whole number.
    pub(super) fn polled(&mut self, slot: usize) -> Option<(ConnectionId, &mut Socket)> {
        let entry = self.slots.get_mut(slot)?;
        let id = ConnectionId { slot: u32::try_from(slot).ok()?, generation: entry.generation };
        match &mut entry.link {
            Link::Socket(socket) => Some((id, socket)),
            Link::Port(_) => None,
        }
    }
}

/// Stands for no number of bytes.
const NOTHING_AWAITED: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::outbox::Pool;
    use crate::listener::Stream;

    #[test]
    fn who_was_found_to_hold_most_counts_for_what_he_holds_now() {
        let mut table = Table::new(Guests::new(9, None, [None].into_iter()));
        let mut peers = Vec::new();
        let [second, first, _] = [20_000, 30_000, 10_000].map(|bytes| {
            let (stream, peer) = mio::net::UnixStream::pair().unwrap();
            peers.push(peer);
            let stay = table.admit(0, None, Way::Open, 0).unwrap();
            let id = table.insert(Link::Socket(Socket::new(Stream::Unix(stream), stay, 1_000)));
            table.socket(id).unwrap().buffer(&mut Pool::default()).resize(bytes, 0);
            table.weigh(id);
            id
        });
        assert!(table.known_heaviest().is_some_and(|(id, held)| id == first && held >= 30_000));
        table.socket(first).unwrap().fall_silent();
        table.weigh(first);
        assert!(table.known_heaviest().is_some_and(|(id, held)| id == first && held < 10_000));
        assert!(table.find_heaviest().is_some_and(|(id, held)| id == second && held >= 20_000));
        table.remove(second);
        assert_eq!(table.known_heaviest(), None);
    }
}
