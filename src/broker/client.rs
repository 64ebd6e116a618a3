//! The clients that have a session, connected or not, by slot and by client id.
//!
//! A [`ClientKey`] names one session for as long as it lives: a slot is reused, a serial is not.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use bytestring::ByteString;
use foldhash::quality::FixedState;
use hashbrown::HashTable;
use slab::Slab;

use super::claim::Origin;
use super::memory::will_weight;
use super::outlet::Outlet;
use super::{ConnectionId, Counters};
use crate::access::{Access, Bucket};
use crate::record::{ReaderId, SessionWill};
use crate::session::{Backlog, GroupId, Session};

/// Names a session while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientKey {
    pub(super) slot: u32,
    pub(super) serial: u32,
}

/// A session and where it is connected.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) serial: u32,
    pub(super) session: Session,
    /// Its connection, from CONNECT on.
    pub(super) connection: Option<ConnectionId>,
    /// The way out, from CONNACK on.
    pub(super) outlet: Option<Outlet>,
    /// What its connection leaves behind, or has left and is still to be published.
    pub(super) will: Option<Box<SessionWill>>,
    /// When the will is due, monotonic; only while it is away.
    pub(super) will_due: Option<u64>,
    /// When the session ends, monotonic; only while it is away. `None`: never.
    pub(super) ends: Option<u64>,
    /// The earliest deadline that is armed for it.
    pub(super) armed: u64,
    /// When its connection ended: a stamp of the house's time.
    pub(super) ended: Option<u64>,
    /// The groups that it is a member of.
    pub(super) groups: BTreeSet<GroupId>,
    /// Whether it is one of the house's own ports.
    pub(super) house: bool,
    /// Messages that a full queue has cost it since the start.
    pub(super) lost: u64,
    /// What the operator's rules grant it; `None` is everything.
    pub(super) access: Option<Box<Access>>,
    /// Stands before all of its topics.
    pub(super) mount: Option<Arc<str>>,
    pub(super) origin: Origin,
    /// What its names weigh, and what they and its subscriptions do.
    pub(super) called: u32,
    pub(super) names: u32,
    /// What its subscriptions would take elsewhere if they were nobody else's.
    pub(super) routed: u32,
    /// What it has used of `max_publish_rate`; outlives its connection, so that to connect anew does not pay.
    pub(super) allowance: Bucket,
}

impl Client {
    /// Puts a will in place of the one that is there; what that one weighed.
    pub(super) fn set_will(&mut self, will: Option<Box<SessionWill>>) -> usize {
        std::mem::replace(&mut self.will, will).map_or(0, |will| will_weight(&will))
    }
}

/// Every client.
pub(super) struct Clients {
    slots: Slab<Client>,
    /// Slots by client id, which only the session itself holds.
    by_id: HashTable<u32>,
    hash: FixedState,
    by_reader: BTreeMap<ReaderId, ClientKey>,
    /// Those without a connection, by when it ended, that were not yet found to have something waiting.
    absent: BTreeSet<(u64, ClientKey)>,
    next_serial: u32,
}

impl Clients {
    pub(super) fn new(seed: u64) -> Clients {
        Clients {
            slots: Slab::new(),
            by_id: HashTable::new(),
            hash: FixedState::with_seed(seed),
            by_reader: BTreeMap::new(),
            absent: BTreeSet::new(),
            next_serial: 0,
        }
    }

    pub(super) fn named(&self, client_id: &str) -> Option<ClientKey> {
        let is_it = |slot: &u32| {
            self.slots.get(*slot as usize).is_some_and(|client| &*client.session.client_id == client_id)
        };
        let slot = *self.by_id.find(self.hash.hash_one(client_id), is_it)?;
        self.slots.get(slot as usize).map(|client| ClientKey { slot, serial: client.serial })
    }

    pub(super) fn insert(&mut self, session: Session) -> ClientKey {
        let client_id = ByteString::from(&*session.client_id);
        self.next_serial = self.next_serial.wrapping_add(1);
        let serial = self.next_serial;
        let reader = session.backlog.as_ref().map(|backlog| backlog.reader);
        let slot = self.slots.insert(Client {
            serial,
            session: Session { client_id, ..session },
            connection: None,
            outlet: None,
            will: None,
            will_due: None,
            ends: None,
            armed: u64::MAX,
            ended: None,
            groups: BTreeSet::new(),
            house: false,
            lost: 0,
            access: None,
            mount: None,
            origin: Origin::Known,
            called: 0,
            names: 0,
            routed: 0,
            allowance: Bucket::default(),
        });
        let slot = u32::try_from(slot).expect("sessions fit into memory, so into 32 bits");
        let (slots, hash) = (&self.slots, &self.hash);
        let hash_of = |slot: &u32| {
            slots.get(*slot as usize).map_or(0, |client| hash.hash_one(&*client.session.client_id))
        };
        self.by_id.insert_unique(hash_of(&slot), slot, hash_of);
        let key = ClientKey { slot, serial };
        self.by_reader.extend(reader.map(|reader| (reader, key)));
        key
    }

    pub(super) fn remove(&mut self, key: ClientKey) -> Option<Client> {
        self.get(key)?;
        let client = self.slots.try_remove(key.slot as usize)?;
        let hash = self.hash.hash_one(&*client.session.client_id);
        if let Ok(entry) = self.by_id.find_entry(hash, |slot| *slot == key.slot) {
            entry.remove();
        }
        if let Some(backlog) = &client.session.backlog {
            self.by_reader.remove(&backlog.reader);
        }
        if let Some(ended) = client.ended {
            self.absent.remove(&(ended, key));
        }
        Some(client)
    }

    /// Gives a session its place in the log.
    pub(super) fn keep(&mut self, key: ClientKey, backlog: Backlog) {
        let reader = backlog.reader;
        if let Some(client) = self.get_mut(key) {
            client.session.backlog = Some(Box::new(backlog));
            self.by_reader.insert(reader, key);
        }
    }

    /// When the connection of a session ended, a stamp of the house's time; `None` while it has one.
    pub(super) fn set_ended(&mut self, key: ClientKey, ended: Option<u64>) {
        let Some(client) = self.get_mut(key) else { return };
        if let Some(before) = std::mem::replace(&mut client.ended, ended) {
            self.absent.remove(&(before, key));
        }
        self.absent.extend(ended.map(|ended| (ended, key)));
    }

    /// The session that has been without a connection for longest, of those that were not asked for before: one
    /// that has something waiting keeps it until its client is back.
    pub(super) fn next_absent(&mut self) -> Option<ClientKey> {
        self.absent.pop_first().map(|(_, key)| key)
    }

    /// How many sessions outlive their connections.
    pub(super) fn kept(&self) -> usize {
        self.by_reader.len()
    }

    /// The session that reads the log under this name.
    pub(super) fn reading(&self, reader: ReaderId) -> Option<ClientKey> {
        self.by_reader.get(&reader).copied()
    }

    pub(super) fn get(&self, key: ClientKey) -> Option<&Client> {
        self.slots.get(key.slot as usize).filter(|client| client.serial == key.serial)
    }

    pub(super) fn get_mut(&mut self, key: ClientKey) -> Option<&mut Client> {
        self.slots.get_mut(key.slot as usize).filter(|client| client.serial == key.serial)
    }

    pub(super) fn in_slot(&self, slot: u32) -> Option<&Client> {
        self.slots.get(slot as usize)
    }

    pub(super) fn in_slot_mut(&mut self, slot: u32) -> Option<&mut Client> {
        self.slots.get_mut(slot as usize)
    }

    pub(super) fn key_of(&self, slot: u32) -> Option<ClientKey> {
        self.slots.get(slot as usize).map(|client| ClientKey { slot, serial: client.serial })
    }

    /// Every client, in the order of slots.
    pub(super) fn keys(&self) -> Vec<ClientKey> {
        self.slots
            .iter()
            .filter_map(|(slot, client)| {
                Some(ClientKey { slot: u32::try_from(slot).ok()?, serial: client.serial })
            })
            .collect()
    }

    pub(super) fn count(&self, counters: &mut Counters) {
        counters.sessions = self.slots.len() as u64;
        counters.kept_sessions = self.by_reader.len() as u64;
        for (_, Client { session, .. }) in &self.slots {
            let (messages, bytes) = session.waiting();
            counters.queued += messages;
            counters.queued_bytes += bytes;
        }
        let mut losers: Vec<(u64, &ByteString)> = self
            .slots
            .iter()
            .filter(|(_, client)| client.lost > 0)
            .map(|(_, client)| (client.lost, &client.session.client_id))
            .collect();
        losers.sort_unstable_by(|one, other| other.cmp(one));
        losers.truncate(LOSERS_MAX);
        counters.lost_by_session = losers.into_iter().map(|(lost, id)| (String::from(&**id), lost)).collect();
    }
}

/// Sessions that status names with what a full queue has cost them: the worst.
const LOSERS_MAX: usize = 20;
