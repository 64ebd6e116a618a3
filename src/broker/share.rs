//! Shared subscriptions: groups of clients, of whom one gets each message.
//!
//! A group of which a member keeps its session is a reader of the log with a place of its own, from
//! which its members draw: a message waits there for whoever takes it, and goes back when the connection
//! that drew it breaks before its PUBACK. Nobody is picked before he can take it, so an absent member holds
//! nothing up. A group whose members all end with their connections has a queue in RAM instead.
//!
//! Invariant: a message is with one member at a time; whose it is when that one leaves stands in `repeat`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bytestring::ByteString;
use slab::Slab;

use super::aside::Aside;
use super::client::ClientKey;
use super::counters::Counters;
use super::ledger::Ledger;
use super::memory::Memory;
use super::repeat::Ending;
use super::{Broker, Effect, Turn};
use crate::codec::{QoS, RetainHandling, SubscriptionOptions};
use crate::record::{
    DropReason, Mount, ReaderId, RestoredSession, Seq, SessionRecord, StoredSubscription, Want, Write,
};
use crate::router::{Interest, filter};
use crate::session::{Backlog, GroupId, Parcel, Queue, Weights};

/// The members of one shared subscription, and what waits for them.
pub(super) struct Group {
    /// `$share/{name}/{filter}`.
    pub(super) filter: ByteString,
    pub(super) members: BTreeMap<ClientKey, Member>,
    /// How many members there are of each QoS.
    wishes: [u32; 3],
    /// The members that may have room: who was found to have none is not among them until he may again.
    ready: BTreeSet<ClientKey>,
    /// The members that are connected.
    present: BTreeSet<ClientKey>,
    /// Who has had the last message; the next in turn comes after him.
    pub(super) last: ClientKey,
    /// Its place in the log; `None` while no member has kept its session.
    pub(super) backlog: Option<Backlog>,
    /// What waits in RAM.
    pub(super) queue: Queue,
    /// Rows that were drawn and are to be drawn again, as many as windows allow.
    pub(super) again: BTreeSet<Seq>,
    /// The next row has nobody who can take it now; until something happens it is not looked at again.
    pub(super) stuck: bool,
    pub(super) aside: Aside,
    /// Rows that are in exchanges since before a restart.
    pub(super) leased: BTreeSet<Seq>,
    /// Exchanges whose message their member must be sent again.
    pub(super) repeats: VecDeque<(ClientKey, u16)>,
    /// What the store is asked.
    pub(super) question: Option<Question>,
    /// Exchanges under way with members, former ones too.
    pub(super) drawn: usize,
    /// Members that were looked at.
    #[cfg(test)]
    pub(super) looks: std::cell::Cell<u64>,
}

/// One member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) qos: QoS,
    pub(super) retain_as_published: bool,
    pub(super) identifier: Option<u32>,
}

/// What the store is asked for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// The next rows.
    Next,
    /// This row again.
    Row(Seq),
    /// How many wait.
    Count,
}

/// Every group.
#[derive(Default)]
pub(super) struct Groups {
    slots: Slab<Group>,
    /// Bytes that they take, without what waits in them.
    weight: usize,
    by_filter: BTreeMap<ByteString, GroupId>,
    by_reader: BTreeMap<ReaderId, GroupId>,
}

impl Member {
    /// How this member is sent what the group wants.
    pub(super) fn want(&self, of_group: &Want) -> Want {
        Want {
            reader: of_group.reader,
            qos: of_group.qos.min(self.qos),
            retain: self.retain_as_published && of_group.retain,
            subscription_ids: self.identifier.into_iter().collect(),
        }
    }
}

impl Group {
    /// A member comes, or takes part otherwise; true where it is new.
    fn put(&mut self, key: ClientKey, member: Member) -> bool {
        let before = self.members.insert(key, member);
        self.count(member.qos, |count| *count += 1);
        if let Some(before) = before {
            self.count(before.qos, |count| *count -= 1);
        }
        before.is_none()
    }

    /// A member leaves; false where it was none.
    fn take(&mut self, key: ClientKey) -> bool {
        let Some(member) = self.members.remove(&key) else { return false };
        self.count(member.qos, |count| *count -= 1);
        self.miss(key);
        true
    }

    /// A member is connected, and may have room.
    fn welcome(&mut self, key: ClientKey) {
        // Whoever may have room is known to be connected.
        if self.ready.insert(key) {
            self.present.insert(key);
        }
    }

    /// A member was found to have no room.
    pub(super) fn has_no_room(&mut self, key: ClientKey) {
        self.ready.remove(&key);
    }

    /// A member is not connected any more.
    pub(super) fn miss(&mut self, key: ClientKey) {
        self.ready.remove(&key);
        self.present.remove(&key);
    }

    /// The members that may have room, from the next in turn.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = ClientKey> {
        self.after_the_last(&self.ready)
    }

    /// Every connected member, from the next in turn.
    pub(super) fn present_in_turn(&self) -> impl Iterator<Item = ClientKey> {
        self.after_the_last(&self.present)
    }

    fn after_the_last(&self, keys: &BTreeSet<ClientKey>) -> impl Iterator<Item = ClientKey> {
        let after = (Bound::Excluded(self.last), Bound::Unbounded);
        let keys = keys.range(after).chain(keys.range(..=self.last)).copied();
        keys.inspect(|_| self.look())
    }

    /// A member is looked at.
    pub(super) fn look(&self) {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
    }

    fn count(&mut self, qos: QoS, change: impl FnOnce(&mut u32)) {
        let [once, at_least_once, exactly_once] = &mut self.wishes;
        change(match qos {
            QoS::AtMostOnce => once,
            QoS::AtLeastOnce => at_least_once,
            QoS::ExactlyOnce => exactly_once,
        });
    }

    /// The highest QoS that a member wants.
    fn highest(&self) -> Option<QoS> {
        match self.wishes {
            [0, 0, 0] => None,
            [_, 0, 0] => Some(QoS::AtMostOnce),
            [_, _, 0] => Some(QoS::AtLeastOnce),
            [_, _, _] => Some(QoS::ExactlyOnce),
        }
    }

    /// What waits in RAM is nobody's.
    fn forget_queue(&mut self, reason: DropReason, memory: &mut Memory, counters: &mut Counters) {
        while let Some(parcel) = self.queue.pop() {
            memory.queues -= parcel.weight();
            counters.drop(reason, 1);
        }
    }

    /// Whether a message waits for its members.
    pub(super) fn has_waiting(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.waiting() > 0)
            || !self.queue.is_empty()
            || !self.again.is_empty()
            || self.aside.weight() > 0
    }
}

impl Groups {
    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        self.slots.get(id.0 as usize)
    }

    pub(super) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.slots.get_mut(id.0 as usize)
    }

    pub(super) fn reading(&self, reader: ReaderId) -> Option<GroupId> {
        self.by_reader.get(&reader).copied()
    }

    /// Bytes that all groups take, about, without what waits in them.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// How many groups have members, and the members of all.
    pub(super) fn count(&self) -> (usize, usize) {
        let members = self.slots.iter().map(|(_, group)| group.members.len());
        (members.clone().filter(|count| *count > 0).count(), members.sum())
    }

    /// Bytes in RAM that wait since this client takes no more: its part of what waits for each of its groups.
    pub(super) fn part_of(&self, key: ClientKey, of: &BTreeSet<GroupId>) -> usize {
        let groups = of.iter().filter_map(|id| self.get(*id)).filter(|group| group.present.contains(&key));
        groups.map(|group| group.queue.weight() / group.present.len()).sum()
    }

    /// Whether a client is in the group of this filter.
    pub(super) fn has(&self, filter: &str, key: ClientKey) -> bool {
        let group = self.by_filter.get(filter).and_then(|id| self.get(*id));
        group.is_some_and(|group| group.members.contains_key(&key))
    }

    /// A client has done something after which it may have room for a message of its group.
    pub(super) fn may_take(&mut self, id: GroupId, key: ClientKey) {
        if let Some(group) = self.get_mut(id)
            && group.members.contains_key(&key)
        {
            group.welcome(key);
        }
    }

    /// How many members were looked at.
    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.slots.iter().map(|(_, group)| group.looks.get()).sum()
    }

    pub(super) fn ids(&self) -> Vec<GroupId> {
        self.slots.iter().filter_map(|(slot, _)| u32::try_from(slot).ok().map(GroupId)).collect()
    }

    fn enter(&mut self, filter: &str, backlog: Option<Backlog>) -> GroupId {
        self.weight += group_weight(filter);
        let filter = ByteString::from(filter);
        let reader = backlog.as_ref().map(|backlog| backlog.reader);
        let slot = self.slots.insert(Group {
            filter: filter.clone(),
            members: BTreeMap::new(),
            wishes: [0; 3],
            ready: BTreeSet::new(),
            present: BTreeSet::new(),
            last: ClientKey { slot: 0, serial: 0 },
            backlog,
            queue: Queue::default(),
            again: BTreeSet::new(),
            stuck: false,
            aside: Aside::default(),
            leased: BTreeSet::new(),
            repeats: VecDeque::new(),
            question: None,
            drawn: 0,
            #[cfg(test)]
            looks: std::cell::Cell::default(),
        });
        let id = GroupId(u32::try_from(slot).expect("groups fit into memory, so into 32 bits"));
        self.by_filter.insert(filter, id);
        self.by_reader.extend(reader.map(|reader| (reader, id)));
        id
    }

    fn remove(&mut self, id: GroupId) -> Option<Group> {
        let group = self.slots.try_remove(id.0 as usize)?;
        self.weight -= group_weight(&group.filter);
        self.by_filter.remove(&group.filter);
        if let Some(backlog) = &group.backlog {
            self.by_reader.remove(&backlog.reader);
        }
        Some(group)
    }
}

impl Broker {
    /// Lets a client into a group, or changes how it takes part.
    pub(super) fn join(
        &mut self,
        key: ClientKey,
        subscription: &StoredSubscription,
        effects: &mut Vec<Effect>,
    ) {
        let StoredSubscription { filter, options, identifier } = subscription;
        let Some(client) = self.clients.get_mut(key) else { return };
        let known = self.groups.by_filter.get(filter).copied();
        let id = known.unwrap_or_else(|| self.groups.enter(filter, None));
        let Some(group) = self.groups.get_mut(id) else { return };
        let member = Member {
            qos: options.qos,
            retain_as_published: options.retain_as_published,
            identifier: *identifier,
        };
        let before = group.highest();
        let new = group.put(key, member);
        if client.outlet.is_some() {
            group.welcome(key);
        }
        if new {
            client.groups.insert(id);
            // What none of the others may read it may.
            self.atlas.close();
        }
        let keeps = client.session.backlog.is_some() && options.qos > QoS::AtMostOnce;
        if keeps && group.backlog.is_none() {
            self.keep_group(id, effects);
        }
        self.rank(id, before);
        self.recall(id, key);
    }

    /// Takes a client out of a group; false where it was in none of this filter.
    pub(super) fn leave_group(&mut self, key: ClientKey, filter: &str, turn: &mut Turn<'_>) -> bool {
        let Some(id) = self.groups.by_filter.get(filter).copied() else { return false };
        let Some(group) = self.groups.get_mut(id) else { return false };
        let before = group.highest();
        if !group.take(key) {
            return false;
        }
        if let Some(client) = self.clients.get_mut(key) {
            client.groups.remove(&id);
        }
        self.rank(id, before);
        self.recall(id, key);
        self.close_if_done(id, turn.effects);
        // What waited for him alone is now for others, or for nobody.
        self.pump_group(id, turn);
        true
    }

    /// A client leaves every group, and what it had drawn goes on without it.
    pub(super) fn leave_groups(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        self.release_shared(key, Ending::Session, turn);
        let Some(client) = self.clients.get(key) else { return };
        for id in client.groups.clone() {
            let Some(filter) = self.groups.get(id).map(|group| group.filter.clone()) else { continue };
            self.leave_group(key, &filter, turn);
        }
    }

    /// The group gets its place in the log.
    fn keep_group(&mut self, id: GroupId, effects: &mut Vec<Effect>) {
        self.last_reader += 1;
        let reader = ReaderId(self.last_reader);
        let backlog = Backlog::new(reader, self.ledger.last_seq());
        let Some(group) = self.groups.get_mut(id) else { return };
        let record = group_record(reader, &group.filter);
        group.backlog = Some(backlog);
        self.ledger.write(Write::Session(record.into()), effects);
        // What waits in RAM becomes rows, so that no member draws what a restart would forget.
        while let Some(parcel) = group.queue.pop() {
            self.memory.queues -= parcel.weight();
            log_parcel(group, parcel, &mut self.ledger, effects);
        }
        self.groups.by_reader.insert(reader, id);
    }

    /// The router learns what the members want together, where it is not what they wanted before.
    fn rank(&mut self, id: GroupId, before: Option<QoS>) {
        let subscriber = self.group_subscriber(id);
        let Some(group) = self.groups.get(id) else { return };
        let highest = group.highest();
        if highest == before {
            return;
        }
        let Some(inner) = filter::of_share(&group.filter) else { return };
        let inner = ByteString::from(inner);
        match highest {
            Some(qos) => {
                let interest = Interest {
                    qos,
                    no_local: false,
                    retain_as_published: true,
                    identifier: None,
                    // Each member is asked for itself.
                    dollar_at: 0,
                };
                self.router.subscribe(&inner, subscriber, interest);
            }
            None => drop(self.router.unsubscribe(&inner, subscriber)),
        }
    }

    /// A group without members and exchanges is over: what still waits is nobody's.
    pub(super) fn close_if_done(&mut self, id: GroupId, effects: &mut Vec<Effect>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        if !group.members.is_empty() {
            return;
        }
        group.forget_queue(DropReason::Purged, &mut self.memory, &mut self.counters);
        if group.drawn > 0 {
            return;
        }
        self.memory.aside -= group.aside.weight();
        if let Some(backlog) = self.groups.remove(id).and_then(|group| group.backlog) {
            self.ledger.write(Write::SessionLapsed { reader: backlog.reader }, effects);
        }
    }

    /// What waits in RAM for groups of whom nobody is here gives way: nobody could be let go for it.
    pub(super) fn forget_unclaimed(&mut self) {
        for id in self.groups.ids() {
            if let Some(group) = self.groups.get_mut(id).filter(|group| group.present.is_empty()) {
                group.forget_queue(DropReason::MemoryFull, &mut self.memory, &mut self.counters);
            }
        }
    }

    /// A group that was found in the store; its members come with their sessions.
    pub(super) fn restore_group(&mut self, restored: &RestoredSession) {
        let RestoredSession { record, cursor, last, leases, .. } = restored;
        let Some(filter) = record.client_id.strip_prefix(GROUP_MARK) else { return };
        let (rows, bytes) = restored.waiting();
        let backlog = Backlog::restored(record.reader, *cursor, *last, Weights::of(rows, bytes));
        let id = self.groups.enter(filter, Some(backlog));
        if let Some(group) = self.groups.get_mut(id) {
            group.leased = leases.iter().filter(|lease| lease.has_row).map(|lease| lease.seq).collect();
        }
    }

    /// Ends groups that came back without anybody.
    pub(super) fn close_empty_groups(&mut self, effects: &mut Vec<Effect>) {
        for id in self.groups.ids() {
            self.close_if_done(id, effects);
        }
    }
}

/// A message that was in RAM becomes a row of its group.
pub(super) fn log_parcel(group: &mut Group, parcel: Parcel, ledger: &mut Ledger, effects: &mut Vec<Effect>) {
    let Some(backlog) = &mut group.backlog else { return };
    let Parcel { message, want } = parcel;
    let weight = message.weight() as u64;
    let want = Want { reader: backlog.reader, ..want };
    let (seq, _) = ledger.append(message, &[want], false, None, effects);
    backlog.want(seq, weight);
}

/// Whether a session of the store is a group's place in the log.
pub(super) fn is_group(record: &SessionRecord) -> bool {
    record.client_id.starts_with(GROUP_MARK)
}

/// What a group takes with its first member, without what waits in it.
pub(super) fn group_weight(filter: &str) -> usize {
    filter.len() + GROUP_BYTES
}

/// A group in the store: a session under a name that no client can have. [MQTT5-1.5.4-2]
fn group_record(reader: ReaderId, filter: &str) -> SessionRecord {
    let options = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: false,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let inner = filter::of_share(filter).unwrap_or(filter);
    SessionRecord {
        reader,
        client_id: format!("{GROUP_MARK}{filter}").into(),
        user: None,
        expiry: u32::MAX,
        ended: None,
        subscriptions: vec![StoredSubscription { filter: inner.into(), options, identifier: None }],
        will: None,
        mount: Mount::Unknown,
    }
}

/// The group itself, its places by filter and by reader, and its lists for few members, about.
const GROUP_BYTES: usize = 1_536;

/// The name of a group in the store begins with U+0000.
const GROUP_MARK: &str = "\0";
