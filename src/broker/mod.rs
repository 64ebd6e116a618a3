//! Every session and the router as one state machine.
//!
//! Takes [`Event`]s and the time, and says in [`Effect`]s what the world should now do. Does nothing to
//! the world itself, so a test can replay any order of events, and the order alone decides.
//!
//! Invariant: a publish that a durable destination wants is answered only after [`Event::Committed`]
//! has covered the write that holds it. Without a store nobody knows who wants what, so none is.

mod effect;
mod limits;
mod counters;
mod connection;
mod aliases;
mod client;
mod outlet;
mod ledger;
mod pace;
mod timers;
mod rights;
mod refuse;
mod rate;
mod claim;
mod place;
mod connect;
mod authenticate;
mod publish;
mod fan;
mod backlog;
mod expire;
mod answer;
mod brief;
mod words;
mod memory;
mod share;
mod choice;
mod aside;
mod draw;
mod repeat;
mod sys;
mod subscribe;
mod depart;
mod ways;
mod stops;
mod atlas;

pub use brief::Heard;
pub use counters::Counters;
pub use effect::{AuthOutcome, ConnectionId, Copy, Effect, Event, Note, Party, Peer, Terms, Trust, Verdict};
pub use limits::{LIMITS_KEYS, Limits, LimitsConfig, WhenFull};
pub use memory::Level;
pub use refuse::Refusals;
pub use rights::is_house_user;
pub use sys::{Carried, Unsent};
pub use ways::{Due, Leg, Way};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytestring::ByteString;

use crate::access::Rules;
use crate::codec::{Packet, QoS, Reason};
use crate::record::{DropReason, Full, Mend, Now, Presence, ReaderId, Restored, Ticket};
use crate::router::{Interest, Retained, Router, Subscriber, filter};
use crate::session::{GroupId, Line};
use atlas::Atlas;
use backlog::{LOOKS_MAX, WALKS_MAX};
use client::{ClientKey, Clients};
use connection::{Connection, Connections, HELD_OF_A_PORT_MAX, Held, Phase};
use fan::Found;
use ledger::{Ledger, Step};
use memory::Memory;
use pace::Pace;
use rate::Spent;
use refuse::Refused;
use share::Groups;
use sys::Sys;
use timers::{Timer, Timers};

/// What the broker is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[limits]`.
    pub limits: Limits,
    /// `[gateway] id`; stands in assigned client ids.
    pub gateway: String,
    /// Routes to upstreams, in the order of [`Effect::Forward`]'s index.
    pub routes: Vec<Route>,
    /// Whether user names can be checked.
    pub passwords: Passwords,
    /// The operator's access rules; without any every client may do what the house allows.
    pub rules: Option<Arc<Rules>>,
    /// Filters of the adapters' `…/set` topics, which move something in the world: only who is granted
    /// them by name publishes there, with and without an ACL file.
    pub set_topics: Vec<ByteString>,
    /// Who refuses what it has no room for.
    pub refusals: Refusals,
}

/// A route as the broker sees it: somebody who wants what its filter covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its reader in the log.
    pub reader: ReaderId,
    /// What it wants; a valid filter.
    pub filter: ByteString,
    /// Whether it is a durable destination.
    pub store: bool,
    /// For logs and figures.
    pub name: String,
}

/// Whether there is a password file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passwords {
    /// A user name that is given is checked.
    File,
    /// There is nothing to check a user name against.
    Absent,
}

/// The broker.
pub struct Broker {
    config: Config,
    /// Whether anything can be kept. Changes only with a new start.
    store: Presence,
    seed: u64,
    connections: Connections,
    clients: Clients,
    router: Router,
    retained: Retained,
    /// When the next of them is looked at, monotonic; never: `u64::MAX`.
    retained_due: u64,
    ledger: Ledger,
    pace: Pace,
    timers: Timers,
    counters: Counters,
    memory: Memory,
    groups: Groups,
    sys: Sys,
    /// When it was made, monotonic.
    started: u64,
    /// What is known of stamps that were taken before the clock was set.
    mend: Mend,
    /// What a start had to say; leaves with the first call.
    unsaid: Vec<Effect>,
    last_reader: u32,
    /// Clients that are no ports: those that `max_connections` counts.
    network_clients: u32,
    assigned_ids: u64,
    spent: Spent,
    /// Connections whose publish waits for the store, longest first.
    waiting: VecDeque<ConnectionId>,
    /// Who takes nothing more for now.
    full: Full,
    /// Of connections whose publishes are held for want of room; few, so that the others pay nothing for it.
    refused: BTreeMap<ConnectionId, Refused>,
    /// Clients whose retained messages go on with the next call, and whose turn was last.
    walkers: BTreeSet<ClientKey>,
    last_walker: ClientKey,
    /// Where messages went lately.
    atlas: Atlas,
    /// Reused by every publish.
    found: Found,
    /// Reused by all that goes a known way.
    stops: Vec<ways::Stop>,
    /// The words of a message that has waited, and behind which no other does, while it is sent.
    emptied: Line,
    /// Whether somebody may not read everything, so that each delivery has to be looked at.
    restricted: bool,
    /// Members of groups that were looked at for their rights since the start.
    member_looks: u64,
    /// Parts of the house that were turned away or put out, and are not back: few, since they stand in the
    /// configuration.
    turned_away: BTreeMap<ByteString, Reason>,
    /// Publishes that were refused and that a stored route would have had; grow.
    not_accepted_by_route: BTreeMap<ReaderId, u64>,
    /// Publishes that readers of the log did not get and that their publishers were not told of; written at
    /// the end of the call.
    shed: BTreeMap<(ReaderId, DropReason), u64>,
}

/// Somebody who wants messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taker {
    /// By its place in the configuration.
    Route(usize),
    /// By its slot.
    Client(u32),
    /// Those who share a subscription.
    Group(GroupId),
}

/// One call of [`Broker::handle`]: its time, and where effects go.
struct Turn<'a> {
    now: Now,
    effects: &'a mut Vec<Effect>,
    /// Retained messages that may still be looked for, for whomever.
    walks: u32,
    /// Places of the retained tree that may still be looked at for them.
    looks: u32,
    /// Whose word is taken without an event, and answered so where he can be.
    heard: Option<Heard>,
}

impl Broker {
    /// A broker with what the store had; `seed` decides hashes and assigned client ids.
    pub fn new(config: Config, seed: u64, restored: Restored, now: Now) -> Broker {
        let mut broker = Broker {
            store: restored.store,
            seed,
            connections: Connections::default(),
            clients: Clients::new(seed),
            router: Router::new(seed.rotate_left(16)),
            retained: Retained::new(now.span.mend),
            retained_due: u64::MAX,
            ledger: Ledger::new(restored.last_seq, &config.refusals),
            pace: Pace::default(),
            timers: Timers::default(),
            counters: Counters::default(),
            memory: Memory::default(),
            groups: Groups::default(),
            sys: Sys::default(),
            started: now.mono,
            mend: now.span.mend,
            unsaid: Vec::new(),
            last_reader: restored.last_reader,
            network_clients: 0,
            assigned_ids: 0,
            spent: Spent::new(seed.rotate_left(40)),
            waiting: VecDeque::new(),
            full: Full::default(),
            refused: BTreeMap::new(),
            walkers: BTreeSet::new(),
            last_walker: ClientKey { slot: 0, serial: 0 },
            atlas: Atlas::new(seed.rotate_left(8), config.limits.max_memory / 16),
            found: Found::default(),
            stops: Vec::new(),
            emptied: Line::default(),
            restricted: config.rules.is_some(),
            member_looks: 0,
            turned_away: BTreeMap::new(),
            not_accepted_by_route: BTreeMap::new(),
            shed: BTreeMap::new(),
            config,
        };
        broker.subscribe_routes();
        for message in restored.retained {
            broker.retained.set(message);
        }
        broker.arm_retained(now);
        broker.restore_sessions(restored.sessions, restored.alive, now);
        broker
    }

    /// Handles what happened, in its order; `events` is drained.
    pub fn handle(&mut self, events: &mut Vec<Event>, now: Now, effects: &mut Vec<Effect>) {
        let mut turn = self.begin_turn(now, effects);
        self.go_on_walking(&mut turn);
        for event in events.drain(..) {
            self.on_event(event, &mut turn);
        }
        self.run_timers(&mut turn);
        self.write_shed(&mut turn);
        self.relieve(&mut turn);
        if self.pace.hasten() {
            turn.effects.push(Effect::Hurry);
        }
    }

    /// The same while more of the same time is still to be told: what is due by then waits for that, and whether a
    /// commit is to be hastened.
    pub fn catch_up(&mut self, events: &mut Vec<Event>, now: Now, effects: &mut Vec<Effect>) {
        let mut turn = self.begin_turn(now, effects);
        for event in events.drain(..) {
            self.on_event(event, &mut turn);
        }
    }

    fn begin_turn<'a>(&mut self, now: Now, effects: &'a mut Vec<Effect>) -> Turn<'a> {
        effects.append(&mut self.unsaid);
        if now.span.mend != self.mend {
            self.age_sessions(now);
        }
        Turn { now, effects, walks: WALKS_MAX, looks: LOOKS_MAX, heard: None }
    }

    /// When [`Event::Tick`] is due at the latest, monotonic milliseconds; 0 is at once.
    pub fn deadline(&self) -> Option<u64> {
        if self.walkers.is_empty() { self.timers.next() } else { Some(0) }
    }

    /// What has been counted.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        self.clients.count(&mut counters);
        self.count_unsent(&mut counters);
        let (groups, members) = self.groups.count();
        counters.subscriptions = (self.router.len() - self.config.routes.len() - groups + members) as u64;
        counters.shared_subscriptions = members as u64;
        counters.retained = self.retained.len() as u64;
        counters.uncommitted = self.ledger.uncommitted() as u64;
        counters.paused = self.waiting.len() as u64;
        counters.waiting_for_room = self.refused.len() as u64;
        counters.memory = self.memory_held() as u64;
        let turned_away = self.turned_away.iter();
        counters.turned_away = turned_away.map(|(id, reason)| (String::from(&**id), *reason)).collect();
        let refused =
            |route: &Route| Some((route.name.clone(), *self.not_accepted_by_route.get(&route.reader)?));
        counters.not_accepted_by_route = self.config.routes.iter().filter_map(refused).collect();
        counters
    }

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_>) {
        match event {
            Event::Opened { connection, peer } => self.on_opened(connection, peer, turn),
            Event::Packet { connection, packet } => self.on_held(connection, Held::Packet(packet), turn),
            Event::Malformed { connection, reason } => {
                self.on_held(connection, Held::Malformed(reason), turn)
            }
            Event::Drained { connection } => {
                if let Some(connection) = self.connections.get_mut(connection) {
                    self.pace.drained(&mut connection.rhythm);
                }
            }
            Event::Granted { connection, messages } => self.on_granted(connection, messages, turn),
            Event::Lost { connection } => self.on_lost(connection, turn),
            Event::Verified { connection, verdict } => self.on_verified(connection, verdict, turn),
            Event::Authenticated { connection, outcome } => self.on_authenticated(connection, outcome, turn),
            Event::Committed { through } => self.on_committed(through, turn),
            Event::Rows(rows) => self.on_rows(rows, turn),
            Event::Full(full) => self.on_full(full, turn),
            Event::Surveyed(survey) => self.on_surveyed(survey, turn),
            Event::Buffered { bytes, heaviest } => {
                (self.memory.buffers, self.memory.heaviest) = (bytes, heaviest);
                self.memory.let_go = false;
            }
            Event::Room { connection } => self.on_room(connection, turn),
            Event::Resting { bytes } => self.memory.resting = bytes,
            Event::Rules(rules) => self.on_rules(rules, turn),
            Event::Tick => {}
            Event::Stop => self.on_stop(turn),
        }
    }

    fn on_opened(&mut self, id: ConnectionId, peer: Peer, turn: &mut Turn<'_>) {
        if let Some(former) = self.connections.in_slot(id.slot) {
            self.on_lost(former, turn);
        }
        if peer.terms.mount.is_some() && !self.restricted {
            self.restrict();
        }
        self.connections.insert(Connection::new(id, peer, turn.now.mono));
        self.arm(id);
    }

    /// A packet is taken, or waits behind those that wait already.
    fn on_held(&mut self, id: ConnectionId, mut held: Held, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        // Until CONNACK the time counts from the opening.
        if connection.is_open() {
            connection.heard = turn.now.mono;
        }
        self.pace.heard(&mut connection.rhythm);
        if connection.holds() {
            // Pausing does not reach who writes to a port: what it may lose is not gathered without end.
            let may_be_lost =
                matches!(&held, Held::Packet(Packet::Publish(publish)) if publish.qos == QoS::AtMostOnce);
            if connection.is_port() && connection.held.len() >= HELD_OF_A_PORT_MAX && may_be_lost {
                self.counters.drop(DropReason::StoreBusy, 1);
                return;
            }
            held.own_bytes();
            self.memory.held += held.weight();
            connection.held.push_back(held);
            if connection.holds_enough() && !connection.paused {
                connection.paused = true;
                turn.effects.push(Effect::Pause { connection: id });
            }
            return;
        }
        self.take(id, held, turn);
    }

    fn take(&mut self, id: ConnectionId, held: Held, turn: &mut Turn<'_>) {
        let packet = match held {
            Held::Packet(packet) => packet,
            Held::Malformed(reason) => return self.expel(id, reason, turn),
        };
        let Some(connection) = self.connections.get(id) else { return };
        if let Phase::Fresh = connection.phase {
            return match packet {
                Packet::Connect(connect) => self.on_connect(id, *connect, turn),
                _ => self.drop_connection(id, turn), // [MQTT5-3.1.0-1] [MQTT311-3.1.0-1]
            };
        }
        if let Phase::Authenticating(_) = connection.phase {
            return self.on_unproven(id, packet, turn);
        }
        if let Some(until) = self.too_soon(id, &packet, turn.now.mono) {
            return self.slow_down(id, packet, until, turn);
        }
        let Some(connection) = self.connections.get(id) else { return };
        if self.owes_too_much(connection, &packet) {
            return self.wait_for_store(id, packet, turn);
        }
        match packet {
            Packet::Publish(publish) if self.is_behind_refused(id, &publish) => {
                self.hold_refused(id, publish, turn);
            }
            Packet::Publish(publish) => self.on_publish(id, publish, turn),
            Packet::PubAck(ack) => self.on_puback(id, &ack, turn),
            Packet::PubRec(ack) => self.on_pubrec(id, &ack, turn),
            Packet::PubRel(ack) => self.on_pubrel(id, ack.packet_id, turn),
            Packet::PubComp(ack) => self.on_pubcomp(id, ack.packet_id, turn),
            Packet::Subscribe(subscribe) => self.on_subscribe(id, subscribe, turn),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(id, unsubscribe, turn),
            Packet::PingReq => self.on_pingreq(id, turn),
            Packet::Disconnect(disconnect) => self.on_disconnect(id, &disconnect, turn),
            Packet::Auth(auth) => self.on_auth(id, &auth, turn),
            // A second CONNECT [MQTT5-3.1.0-2] [MQTT311-3.1.0-2], or what only a server sends.
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => {
                self.expel(id, Reason::ProtocolError, turn);
            }
        }
    }

    /// The packets that waited are taken, until one must wait again.
    fn go_on(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        while let Some(connection) = self.connections.get_mut(id)
            && !connection.holds()
            && let Some(held) = connection.held.pop_front()
        {
            self.memory.held -= held.weight();
            self.take(id, held, turn);
        }
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.holds()
        {
            // It seldom waits, so what that took is given back.
            connection.held = VecDeque::new();
            connection.heard = turn.now.mono;
            if std::mem::take(&mut connection.paused) {
                turn.effects.push(Effect::Resume { connection: id });
            }
            self.arm(id);
        }
    }

    fn on_granted(&mut self, id: ConnectionId, messages: u32, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Some(credit) = &mut connection.credit {
            *credit = credit.saturating_add(messages);
        }
        let Some(key) = connection.client else { return };
        if let Some(outlet) = self.clients.get_mut(key).and_then(|client| client.outlet.as_mut())
            && let Some(credit) = &mut outlet.credit
        {
            *credit = credit.saturating_add(messages);
            self.pump(key, turn);
        }
    }

    fn on_committed(&mut self, through: Ticket, turn: &mut Turn<'_>) {
        self.ledger.commit(through);
        while let Some(step) = self.ledger.next_step() {
            match step {
                Step::Open(id) => self.finish_opening(id, turn),
                Step::Answer(id) => self.send_answers(id, turn),
                Step::Lease(key, packet_id) => self.on_leased(key, packet_id, turn),
                Step::Release(key, packet_id) => self.on_recorded(key, packet_id, turn),
                Step::End(key, packet_id) => self.on_ended(key, packet_id, turn),
                Step::Pump(key) => self.on_shortened(key, turn),
                Step::PumpGroup(id) => self.on_group_shortened(id, turn),
            }
        }
        if !self.ledger.is_relaxed() {
            return;
        }
        for _ in 0..self.waiting.len() {
            let Some(id) = self.waiting.pop_front() else { return };
            if let Some(connection) = self.connections.get_mut(id) {
                connection.phase = Phase::Open;
                self.offer_refused(id, turn);
                self.go_on(id, turn);
            }
        }
    }

    fn subscribe_routes(&mut self) {
        self.watch_sys_of_routes();
        for (index, route) in self.config.routes.iter().enumerate() {
            let interest = Interest {
                qos: crate::codec::QoS::ExactlyOnce,
                no_local: false,
                retain_as_published: true,
                identifier: None,
                dollar_at: 0,
            };
            debug_assert!(
                filter::check_filter(&route.filter).is_ok(),
                "routes are checked with the configuration"
            );
            let index = u32::try_from(index).expect("routes stand in a file, so they are few");
            self.router.subscribe(&route.filter, Subscriber(index), interest);
        }
    }

    /// The router's number for a client: after the routes clients and groups alternate.
    fn subscriber(&self, slot: u32) -> Subscriber {
        Subscriber(self.routes() + slot * 2)
    }

    /// The router's number for a group.
    fn group_subscriber(&self, id: GroupId) -> Subscriber {
        Subscriber(self.routes() + id.0 * 2 + 1)
    }

    /// Who has this number of the router's.
    fn taker(&self, subscriber: Subscriber) -> Taker {
        match subscriber.0.checked_sub(self.routes()) {
            None => Taker::Route(subscriber.0 as usize),
            Some(number) if number.is_multiple_of(2) => Taker::Client(number / 2),
            Some(number) => Taker::Group(GroupId(number / 2)),
        }
    }

    /// How many of the router's numbers are routes.
    fn routes(&self) -> u32 {
        u32::try_from(self.config.routes.len()).expect("routes stand in a file, so they are few")
    }

    /// Lets a connection's next deadline be watched.
    fn arm(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(due) = connection.due()
            && due < connection.armed
        {
            connection.armed = due;
            self.remind(due, Timer::Connection(id));
        }
    }

    /// Lets a client's next deadline be watched.
    fn arm_client(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && let Some(due) = [client.will_due, client.ends].into_iter().flatten().min()
            && due < client.armed
        {
            client.armed = due;
            self.remind(due, Timer::Client(key));
        }
    }

    fn remind(&mut self, due: u64, timer: Timer) {
        self.timers.push(due, timer);
        if self.timers.is_crowded() {
            let Broker { timers, connections, clients, refused, retained_due, .. } = self;
            timers.retain(|due, timer| match timer {
                Timer::Connection(id) => connections.get(id).is_some_and(|known| known.armed == due),
                Timer::Refused(id) => refused.get(&id).is_some_and(|known| known.until == due),
                Timer::Client(key) => clients.get(key).is_some_and(|known| known.armed == due),
                Timer::Retained => *retained_due == due,
                // There is one at a time.
                Timer::Sys => true,
            });
        }
    }

    fn run_timers(&mut self, turn: &mut Turn<'_>) {
        while let Some((due, timer)) = self.timers.pop(turn.now.mono) {
            match timer {
                Timer::Connection(id) => self.on_connection_due(id, due, turn),
                Timer::Refused(id) => self.on_refused_due(id, turn),
                Timer::Client(key) => self.on_client_due(key, due, turn),
                Timer::Sys => self.on_sys_due(turn),
                Timer::Retained => self.on_retained_due(due, turn),
            }
        }
    }

    fn on_connection_due(&mut self, id: ConnectionId, armed: u64, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.armed != armed {
            return;
        }
        connection.armed = u64::MAX;
        match connection.due() {
            Some(due) if due > turn.now.mono => self.arm(id),
            Some(_) if connection.is_slowed() => self.speed_up(id, turn),
            Some(due) if connection.proof_due() == Some(due) => self.expel(id, Reason::NotAuthorized, turn),
            Some(_) => self.expel(id, Reason::KeepAliveTimeout, turn), // [MQTT5-3.1.2-22] [MQTT311-3.1.2-24]
            None => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
