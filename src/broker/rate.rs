//! How fast one client may publish (`max_publish_rate`).
//!
//! A publish that comes too soon waits, and all that the client sends behind it: its connection is not
//! read on, TCP slows the sender, and nothing is dropped. What came before the end of its connection is taken at that
//! end and charged to what the client may send once it is back. Adapters have rates of their own and are exempt.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;

use adapter_api::units::Rate;
use foldhash::quality::FixedState;

use super::client::{Client, ClientKey};
use super::connection::{Held, Phase};
use super::{Broker, ConnectionId, Effect, Turn};
use crate::access::Bucket;
use crate::codec::Packet;

impl Broker {
    /// Until when the packet has to wait.
    pub(super) fn too_soon(&mut self, id: ConnectionId, packet: &Packet, now: u64) -> Option<u64> {
        let (rate, client) = self.rated(id, packet)?;
        let allowance = &mut self.clients.get_mut(client)?.allowance;
        match self.connections.get(id)?.phase {
            Phase::Ending => {
                allowance.charge(rate, now);
                None
            }
            _ => allowance.take(rate, now).err(),
        }
    }

    /// The packet waits for the store and is charged once it is taken.
    pub(super) fn give_rate_back(&mut self, id: ConnectionId, packet: &Packet) {
        if let Some((rate, key)) = self.rated(id, packet)
            && let Some(client) = self.clients.get_mut(key)
        {
            client.allowance.give_back(rate);
        }
    }

    /// The rate that holds for the packet, and who is charged.
    fn rated(&self, id: ConnectionId, packet: &Packet) -> Option<(Rate, ClientKey)> {
        let rate = self.config.limits.max_publish_rate?;
        let Packet::Publish(_) = packet else { return None };
        let connection = self.connections.get(id).filter(|connection| !connection.is_port())?;
        Some((rate, connection.client?))
    }

    /// Lets the packet wait.
    pub(super) fn slow_down(&mut self, id: ConnectionId, packet: Packet, until: u64, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.phase = Phase::Slowed(until);
        let held = Held::of(packet);
        self.memory.held += held.weight();
        connection.held.push_front(held);
        if !std::mem::replace(&mut connection.paused, true) {
            turn.effects.push(Effect::Pause { connection: id });
        }
        self.counters.slowed += 1;
        self.arm(id);
    }

    /// Filters may be such that a single topic leads to tens of thousands of places of the tree, and a client may have
    /// a list of thousands to go through. Who causes that rests three times as long as it took, about, so that the
    /// others have their turns between.
    pub(super) fn rest(&mut self, id: ConnectionId, looks: u64, turn: &mut Turn<'_>) {
        if looks <= LOOKS_FREE {
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.is_port() || !matches!(connection.phase, Phase::Open) {
            return;
        }
        connection.phase = Phase::Slowed(turn.now.mono + looks.div_ceil(LOOKS_A_MILLISECOND));
        if !std::mem::replace(&mut connection.paused, true) {
            turn.effects.push(Effect::Pause { connection: id });
        }
        self.counters.slowed += 1;
        self.arm(id);
    }

    /// Its time has come.
    pub(super) fn speed_up(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.phase = Phase::Open;
            self.go_on(id, turn);
        }
    }

    /// The connection ends while its publishes wait for their time: they came before, so they are taken now,
    /// in their order, until one has to wait for the store.
    pub(super) fn take_slowed(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        if self.connections.get(id).is_some_and(|connection| connection.is_slowed()) {
            self.take_held(id, turn);
        }
    }

    /// The connection ends: what it has said before is taken, as far as it can be.
    pub(super) fn take_held(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.phase = Phase::Ending;
        while let Some(connection) = self.connections.get_mut(id)
            && !connection.holds()
            && let Some(held) = connection.held.pop_front()
        {
            self.memory.held -= held.weight();
            self.take(id, held, turn);
        }
    }

    /// A session begins: what one of its name has used is still used.
    pub(super) fn remember_rate(&mut self, key: ClientKey, now: u64) {
        if let Some(client) = self.clients.get_mut(key)
            && let Some(spent) = self.spent.take(&client.session.client_id)
            && !spent.is_full(now)
        {
            client.allowance = spent;
        }
    }

    /// A session is over.
    pub(super) fn leave_rate(&mut self, client: &Client, now: u64) {
        if self.config.limits.max_publish_rate.is_some() {
            self.spent.put(&client.session.client_id, client.allowance, now);
        }
    }
}

/// What clients had used when their sessions ended, for as long as it matters.
pub(super) struct Spent {
    /// By what a client id hashes to: an id may be long, and for two that hash alike it is harmless.
    buckets: BTreeMap<u64, Bucket>,
    hash: FixedState,
    /// How many there may be before those that are full again are looked for.
    crowd: usize,
}

impl Spent {
    pub(super) fn new(seed: u64) -> Spent {
        Spent { buckets: BTreeMap::new(), hash: FixedState::with_seed(seed), crowd: CROWD }
    }

    fn put(&mut self, client_id: &str, bucket: Bucket, now: u64) {
        if bucket.is_full(now) {
            return;
        }
        if self.buckets.len() >= self.crowd {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            self.crowd = (self.buckets.len() * 2).max(CROWD);
        }
        if self.buckets.len() < SPENT_MAX {
            self.buckets.insert(self.hash.hash_one(client_id), bucket);
        }
    }

    fn take(&mut self, client_id: &str) -> Option<Bucket> {
        if self.buckets.is_empty() {
            return None;
        }
        self.buckets.remove(&self.hash.hash_one(client_id))
    }
}

/// Places of the tree or of a list that one packet may lead to without a rest.
const LOOKS_FREE: u64 = 2_048;
/// And how many cost a rest of a millisecond: on a small machine they take a third of that.
const LOOKS_A_MILLISECOND: u64 = 2_048;
/// So few are not looked through.
const CROWD: usize = 1_024;
/// Clients without a session whose use is remembered; that of further ones is forgotten.
const SPENT_MAX: usize = 65_536;
