//! How much is held in RAM for clients, and what goes when it is too much (`max_memory`).
//!
//! The broker knows what it holds itself: queues of sessions, packets that wait, the log's tail, retained
//! messages, wills, topic aliases, the names and filters of sessions, the ways of messages. What waits in the connections'
//! buffers the engine tells it. Three levels: below three quarters nothing happens; above, the engine is told
//! to spare the slowest readers QoS 0; at the limit nobody new is taken, and whoever holds most is let go,
//! one each time that the engine tells of its buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::client::ClientKey;
use super::connection::Connection;
use super::depart::Cause;
use super::ledger::Ledger;
use super::refuse::Refused;
use super::share::group_weight;
use super::{Broker, ConnectionId, Effect, Turn};
use crate::codec::{Connect, Packet, Reason};
use crate::record::{
    DropReason, Message, Portion, ReaderId, Seq, SessionRecord, SessionWill, StoredSubscription,
};
use crate::router::{Retained, Router, filter};
use crate::session::{Burden, Held, Parcel, Session};

/// How full the memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// There is room.
    #[default]
    Ample,
    /// Three quarters are taken.
    Tight,
    /// All is taken.
    Full,
}

impl Level {
    /// Where so much is held of what may be.
    pub fn of(held: usize, most: usize) -> Level {
        if held >= most {
            Level::Full
        } else if held >= most - most / 4 {
            Level::Tight
        } else {
            Level::Ample
        }
    }
}

/// What is held, in bytes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// In the buffers of connections, as the engine says.
    pub(super) buffers: usize,
    /// The connection with the largest buffer, and what is in it.
    pub(super) heaviest: Option<(ConnectionId, usize)>,
    /// In connections whatever waits in them, as the engine says.
    pub(super) resting: usize,
    /// In the queues of sessions that end with their connection and of their groups, and under way from
    /// these.
    pub(super) queues: usize,
    /// In messages of QoS 2 that were read and wait for the commit of their packet ids.
    leasing: Arc<AtomicUsize>,
    /// Questions to the store that it has not answered.
    pub(super) reads: usize,
    /// In packets and answers that wait for the store, and in requests to connect.
    pub(super) held: usize,
    /// In topic aliases that clients have set.
    pub(super) aliases: usize,
    /// In client ids, user names and the filters of sessions.
    pub(super) names: usize,
    /// In packet ids of publishers that they have not released.
    pub(super) inward: usize,
    /// In wills.
    pub(super) wills: usize,
    /// In what groups know of rows that wait for absent members.
    pub(super) aside: usize,
    /// In CONNECTs that wait for AUTH.
    pub(super) unproven: usize,
    /// Whether somebody was let go since the engine last told of its buffers: what that has left in them is not
    /// known before, and whoever comes next need not be the one to blame.
    pub(super) let_go: bool,
    /// As the engine was told last.
    told: Level,
}

impl Memory {
    /// A question to the store.
    pub(super) fn read(&mut self, reader: ReaderId, after: Seq, limit: Portion) -> Effect {
        self.reads += 1;
        Effect::Read { reader, after, limit }
    }

    /// The message of an exchange that waits for the commit of its packet id. One that the log's tail has too weighs
    /// there.
    pub(super) fn hold(&self, seq: Seq, parcel: Parcel, ledger: &Ledger) -> Box<Held> {
        let is_alone = !ledger.tail_covers(Seq(seq.0.saturating_sub(1)));
        let burden = is_alone.then(|| Burden::new(parcel.weight(), &self.leasing));
        Box::new(Held { parcel, burden })
    }
}

impl Broker {
    /// Bytes that are held for clients.
    pub(super) fn memory_held(&self) -> usize {
        let Memory { aside, inward, resting, .. } = &self.memory;
        self.passing() + self.staying() + self.named() + aside + inward + resting + self.atlas.bytes()
    }

    /// What goes by itself, with its commit or with its connection.
    fn passing(&self) -> usize {
        let Memory { buffers, queues, held, aliases, unproven, .. } = &self.memory;
        let leasing = self.memory.leasing.load(Relaxed);
        buffers + queues + leasing + held + aliases + unproven + self.ledger.sessions_weight()
    }

    /// How much one question may ask for, so that an answer does not hold much whatever the client's window: the
    /// less, the more wait for answers, so that all of these together bring a seventh of the memory and a row each;
    /// and a single row where what passes has half of it. Of a session a single one is asked for only once none of
    /// its own is under way: so all get on, and what waited on the disk for thousands is not in memory at once.
    pub(super) fn portion(&self) -> Portion {
        let most = self.config.limits.max_memory as u64;
        // One over a square, of which even endlessly many have a small sum.
        let share = most / (self.memory.reads as u64 + ASKED_FREELY).pow(2);
        let bytes = u32::try_from(share).unwrap_or(u32::MAX).min(Portion::BYTES_MAX);
        let is_short = self.passing() as u64 > most / 2 || bytes < PORTION_MIN;
        Portion { rows: if is_short { 1 } else { ROWS_MAX }, bytes }
    }

    /// Messages that stay.
    fn staying(&self) -> usize {
        self.memory.wills + self.ledger.weight() + self.retained.weight()
    }

    /// What sessions are called and subscribe to.
    fn named(&self) -> usize {
        self.memory.names + self.router.weight() + self.groups.weight()
    }

    /// What stays counts up to its half, and names up to their quarter: a database of before, or a limit that
    /// was lowered, may bring more, and nobody could come in to take it away. So do what is set aside and what
    /// connections and packet ids take, which nobody is let go for either. The ways that are known make room by
    /// themselves.
    pub(super) fn level(&self) -> Level {
        Level::of(self.pressing(), self.config.limits.max_memory)
    }

    fn pressing(&self) -> usize {
        let most = self.config.limits.max_memory;
        self.passing()
            + self.staying().min(most / 2)
            + self.named().min(most / 4)
            + self.memory.aside.min(self.aside_most())
            + self.memory.inward.min(self.inward_most())
            + self.memory.resting.min(self.resting_most())
    }

    /// Forgets what is only remembered where there is no room for it beside the rest.
    fn forget_ways(&mut self) {
        if self.pressing() + self.atlas.bytes() >= self.config.limits.max_memory {
            self.atlas.forget();
        }
    }

    /// What groups may know of rows that wait for absent members. Nobody is let go for it, and whom it waits
    /// for has to come in.
    pub(super) fn aside_most(&self) -> usize {
        self.config.limits.max_memory / 16
    }

    /// What packet ids may take that their publishers do not release, those apart that a session may always
    /// have. They stay with their session, and only its client can release them.
    fn inward_most(&self) -> usize {
        self.config.limits.max_memory / 16
    }

    /// Whether a session may hold one more packet id that is not released: always as many as may be under way,
    /// and while there is room more of them, since clients before MQTT 5 cannot be told how many that is, and
    /// others come anew with a window of their own.
    pub(super) fn may_hold_inward(&self, key: ClientKey) -> bool {
        let held = self.clients.get(key).map_or(0, |client| client.session.inward.len());
        let own = usize::from(self.config.limits.max_inflight);
        held < own || (held < own * UNRELEASED_SHARE && self.memory.inward < self.inward_most())
    }

    /// What connections may take before anything waits in them; beyond it nobody new comes in, so that there is
    /// always room for what passes.
    pub(super) fn resting_most(&self) -> usize {
        self.config.limits.max_memory / 4 * 3
    }

    /// Whether a client may have this will in place of its former one. Retained messages and wills have half
    /// of the memory, so that nobody can fill all of it with what stays; an eighth is for wills alone, since
    /// a client that may not leave one does not come in. Of what the others leave free of that one will takes
    /// a small part at most: so a few clients with large ones leave room for many with small ones.
    pub(super) fn may_leave(&self, will: usize, former: usize) -> bool {
        let most = self.config.limits.max_memory;
        let room = (most / 8).max((most / 2).saturating_sub(self.retained.weight()));
        let free = room.saturating_sub(self.memory.wills - former);
        will <= former || will <= free / WILL_SHARE
    }

    /// Whether no names are taken any more but short ones of new sessions, whose number has a limit. They have
    /// a quarter of the memory, and one session a quarter of that, so that nobody takes all of it: whatever
    /// it subscribes to counts as its own there, since who shares it may leave.
    pub(super) fn names_are_full(&self, key: Option<ClientKey>) -> bool {
        let most = self.config.limits.max_memory / 4;
        let own = key
            .and_then(|key| self.clients.get(key))
            .map_or(0, |client| client.names as usize + client.routed as usize);
        self.named() >= most || own >= most / 4
    }

    /// Whether a filter is among the few that a session may have where there is no room for names: so nobody can take
    /// it from others. Of those that end with their connection the number is bounded; those that stay, which
    /// may be absent for long, have an eighth of the memory for it.
    pub(super) fn is_spared(&self, key: ClientKey, filter: &str) -> bool {
        let Some(client) = self.clients.get(key) else { return false };
        let own = client.names.saturating_sub(client.called) as usize + client.routed as usize;
        let stays = client.session.backlog.is_some();
        own + subscription_weight(filter) + routed_weight(filter) <= SPARED_BYTES
            && (!stays || self.named() < self.config.limits.max_memory / 8 * 3)
    }

    /// Whether so many sessions wait for their commit that no other is handed to the store for now. They have an
    /// eighth of the memory: each is a list of all that it subscribes to, and a disk that stands still gives
    /// none of it back.
    pub(super) fn lists_are_full(&self) -> bool {
        self.ledger.sessions_weight() >= self.config.limits.max_memory / 8
    }

    /// Whether a packet must wait for the store before it is taken.
    pub(super) fn owes_too_much(&self, connection: &Connection, packet: &Packet) -> bool {
        let lists = matches!(packet, Packet::Subscribe(_) | Packet::Unsubscribe(_)) && self.lists_are_full();
        let client = connection.client.filter(|_| lists).and_then(|key| self.clients.get(key));
        client.is_some_and(|client| client.session.backlog.is_some()) || connection.owes_too_much(packet)
    }

    /// A session is called otherwise than before, or for the first time.
    pub(super) fn name_anew(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let called = name_weight(&client.session);
        let before = std::mem::replace(&mut client.called, u32::try_from(called).unwrap_or(u32::MAX));
        self.weigh_names(key, called, before as usize);
    }

    /// A session has so much more to be called or to subscribe to, and so much less.
    pub(super) fn weigh_names(&mut self, key: ClientKey, more: usize, less: usize) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let names = (client.names as usize + more).saturating_sub(less);
        self.memory.names += names;
        self.memory.names -= client.names as usize;
        client.names = u32::try_from(names).unwrap_or(u32::MAX);
    }

    /// A session has subscribed to so much more, or has taken so much back.
    pub(super) fn weigh_subscriptions(
        &mut self,
        key: ClientKey,
        more: &[StoredSubscription],
        less: &[StoredSubscription],
    ) {
        let sum = |list: &[StoredSubscription], weight: fn(&str) -> usize| {
            list.iter().map(|one| weight(&one.filter)).sum::<usize>()
        };
        self.weigh_names(key, sum(more, subscription_weight), sum(less, subscription_weight));
        let Some(client) = self.clients.get_mut(key) else { return };
        let routed =
            (client.routed as usize + sum(more, routed_weight)).saturating_sub(sum(less, routed_weight));
        client.routed = u32::try_from(routed).unwrap_or(u32::MAX);
    }

    /// What a message lacks to become its topic's retained one, if anything.
    pub(super) fn lacks_to_retain(&self, message: &Message) -> Option<DropReason> {
        if message.payload.is_empty() {
            return None;
        }
        let (most, retained) = (self.config.limits.max_memory, self.retained_with(message));
        if retained > self.retained.weight() && retained + self.memory.wills.max(most / 8) > most / 2 {
            return Some(DropReason::MemoryFull);
        }
        let former = self.retained.of(&message.topic).map_or(0, |former| former.size_retained());
        let size = self.retained.size() - former + message.size_retained();
        (size > self.retained.size() && size > self.config.refusals.retained).then_some(DropReason::StoreFull)
    }

    /// What retained messages would weigh with this one among them, its topic's places included.
    pub(super) fn retained_with(&self, message: &Message) -> usize {
        let former = self.retained.of(&message.topic).map_or(0, |former| Retained::weight_of(former));
        self.retained.weight() - former
            + Retained::weight_of(message)
            + self.retained.places_for(&message.topic)
    }

    /// At the end of a call: the engine is told how it stands, and somebody is let go if need be.
    pub(super) fn relieve(&mut self, turn: &mut Turn<'_>) {
        self.forget_ways();
        // Once the engine knows, it says who has most in its buffers.
        let is_due = self.memory.told == Level::Full && !self.memory.let_go;
        if is_due && self.level() == Level::Full {
            self.forget_unclaimed();
        }
        if is_due
            && self.level() == Level::Full
            && let Some(id) = self.holds_most()
        {
            self.memory.let_go = true;
            self.put_out(id, turn);
        }
        let level = self.level();
        if std::mem::replace(&mut self.memory.told, level) != level {
            turn.effects.push(Effect::Memory(level));
        }
    }

    fn put_out(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get(id) else { return };
        if let Some(key) = connection.client {
            self.count_lost(key, DropReason::MemoryFull);
            self.part(id, Cause::Expelled(Reason::QuotaExceeded), turn);
        } else if !self.refuse_unproven(id, Reason::QuotaExceeded, turn) {
            self.drop_connection(id, turn);
        }
    }

    /// The connection for which most is held, if it is worth anything: a client's, or one whose client nobody
    /// knows yet, its link there or gone.
    fn holds_most(&mut self) -> Option<ConnectionId> {
        let connections = self.connections.ids().into_iter().filter_map(|id| self.connections.get(id));
        let strangers = connections.filter(|connection| connection.client.is_none());
        let strangers = strangers.map(|connection| (connection.id, connection.weight()));
        let queued = self.clients.keys().into_iter().filter_map(|key| {
            let client = self.clients.get(key)?;
            let id = client.connection?;
            let refused = self.refused.get(&id).map_or(0, Refused::weight);
            let waiting = self.connections.get(id).map_or(0, Connection::weight) + refused;
            let own = client.session.line.weight() + client.session.flight.weight();
            Some((id, own + self.groups.part_of(key, &client.groups) + waiting))
        });
        let buffered = self.memory.heaviest.filter(|(id, _)| self.connections.get(*id).is_some());
        let (id, weight) = queued.chain(strangers).chain(buffered).max_by_key(|(_, weight)| *weight)?;
        if weight < WORTH_LETTING_GO {
            return None;
        }
        if buffered.is_some_and(|(heaviest, _)| heaviest == id) {
            // Until the engine says otherwise its buffer is gone with it.
            let (_, buffer) = self.memory.heaviest.take().unwrap_or((id, 0));
            self.memory.buffers = self.memory.buffers.saturating_sub(buffer);
        }
        Some(id)
    }
}

/// What a will weighs.
pub(super) fn will_weight(will: &SessionWill) -> usize {
    will.topic.len() + will.payload.len() + will.properties.as_bytes().len() + WILL_OVERHEAD
}

/// What a session is called.
pub(super) fn name_weight(session: &Session) -> usize {
    session.client_id.len() + session.user.as_ref().map_or(0, |user| user.len())
}

/// What a subscription weighs in its session; the router has its filter too.
fn subscription_weight(filter: &str) -> usize {
    filter.len() + size_of::<StoredSubscription>()
}

/// What a subscription takes in the router, and as a group, where nobody shares it.
fn routed_weight(filter: &str) -> usize {
    match filter::of_share(filter) {
        Some(inner) => Router::weight_alone(inner) + group_weight(filter),
        None => Router::weight_alone(filter),
    }
}

/// What a session weighs on its way to the store. Its filters may be in nothing else by then.
pub(super) fn record_weight(record: &SessionRecord) -> usize {
    let list: usize = record.subscriptions.iter().map(|one| subscription_weight(&one.filter)).sum();
    size_of::<SessionRecord>() + record.client_id.len() + list + record.will.as_ref().map_or(0, will_weight)
}

/// What a request to connect weighs, its password included.
pub(super) fn connect_weight(connect: &Connect) -> u32 {
    let will = connect
        .will
        .as_ref()
        .map_or(0, |will| will.topic.len() + will.payload.len() + will.properties.as_bytes().len());
    let named = connect.client_id.len() + connect.username.as_ref().map_or(0, |name| name.len());
    let password = connect.password.as_ref().map_or(0, |password| password.len());
    let own = connect.properties.as_bytes().len() + size_of::<Connect>();
    u32::try_from(will + named + password + own).unwrap_or(u32::MAX)
}

/// Rows that one question asks for at most.
const ROWS_MAX: u32 = 128;

/// So many questions may each have a good part of what all of them may.
const ASKED_FREELY: u64 = 8;

/// Bytes of a question that may ask for more than a row.
const PORTION_MIN: u32 = 1 << 10;

/// Packet ids that a session may leave unreleased, for each that may be under way.
const UNRELEASED_SHARE: usize = 50;

/// What the subscriptions of a session may take where there is no room for names: some short ones, or one
/// that is shared.
const SPARED_BYTES: usize = 2_048;

/// A will takes one part of so many of what is free. By default 256 kB are one of 32 MB, and more than a hundred
/// clients, each with as much as it may, leave room for half a kilobyte.
const WILL_SHARE: usize = 16;

/// What a will weighs beside its own bytes.
const WILL_OVERHEAD: usize = 96;

/// A connection that holds less is not let go: that would not help.
const WORTH_LETTING_GO: usize = 4_096;
