//! From CONNECT to CONNACK: who is it, which session does it get, when does that stand.
//!
//! A session that outlives its connection is committed before CONNACK, and so is the end of one of that name that a
//! clean start or a DISCONNECT throws away; until then, and while a password is being checked, the connection's
//! packets wait.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::authenticate::compact;
use super::claim::Origin;
use super::client::ClientKey;
use super::connection::{Connection, Phase, Problems};
use super::ledger::Step;
use super::memory::{Level, connect_weight, will_weight};
use super::outlet::Outlet;
use super::pace::Kind;
use super::publish::INWARD_BYTES;
use super::rights::{is_port_of_the_house, mounted_topic};
use super::share::is_group;
use super::words::fits;
use super::{Broker, ConnectionId, Effect, Note, Passwords, Trust, Turn, Verdict};
use crate::codec::{ConnAck, Connect, Packet, Properties, Property, Reason, Version, Will};
use crate::record::{
    Now, Presence, ReaderId, RestoredSession, SessionRecord, SessionWill, StoredSubscription, Ticket, Write,
};
use crate::router::filter;
use crate::session::{Backlog, Session, Stage, Weights};

impl Broker {
    pub(super) fn on_connect(&mut self, id: ConnectionId, mut connect: Connect, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.version = connect.version;
        connection.maximum_packet_size = connect.properties.maximum_packet_size();
        if connect.properties.request_problem_information() == Some(0) {
            connection.problems = Problems::Unwanted;
        }
        turn.effects.push(Effect::Speak {
            connection: id,
            version: connect.version,
            maximum_packet_size: connection.maximum_packet_size,
            // [MQTT5-3.1.2-26] [MQTT5-3.1.2-27]
            topic_alias_maximum: connect
                .properties
                .topic_alias_maximum()
                .unwrap_or(0)
                .min(self.config.limits.max_topic_alias),
        });
        if let Some(reason) = self.objection(id, &connect) {
            return self.refuse(id, connect.client_id, reason, turn);
        }
        if connect.properties.authentication_method().is_some() {
            return self.begin_authentication(id, connect, turn);
        }
        let weight = connect_weight(&connect);
        if let Some(connection) = self.connections.get_mut(id) {
            self.memory.held += weight as usize - std::mem::replace(&mut connection.connect, weight) as usize;
        }
        // Nobody needs it longer than the comparison.
        let password = connect.password.take().unwrap_or_default();
        let Some(connection) = self.connections.get_mut(id) else { return };
        match (&connection.peer.trust, connect.username.clone()) {
            (Trust::Port { .. } | Trust::Certificate { .. }, _) => self.admit(id, connect, turn),
            (Trust::Anonymous, None) => self.admit(id, connect, turn),
            (Trust::Anonymous, Some(_)) if self.config.passwords == Passwords::Absent => {
                self.admit(id, connect, turn);
            }
            (Trust::Password, None) => self.refuse(id, connect.client_id, Reason::NotAuthorized, turn),
            (Trust::Anonymous | Trust::Password, Some(username)) => {
                // All of it may wait for long, and is not to keep a read buffer.
                connection.phase = Phase::Verifying(Box::new(compact(connect)));
                let username = ByteString::from(&*username);
                let password = Bytes::copy_from_slice(&password);
                turn.effects.push(Effect::Verify { connection: id, username, password });
            }
        }
    }

    pub(super) fn on_verified(&mut self, id: ConnectionId, verdict: Verdict, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !matches!(connection.phase, Phase::Verifying(_)) {
            return;
        }
        let Phase::Verifying(connect) = std::mem::replace(&mut connection.phase, Phase::Fresh) else {
            return;
        };
        if self.connections.is_gone(id) {
            return self.on_verified_late(id, *connect, verdict, turn);
        }
        let reason = match verdict {
            // The limits may have been reached while it waited.
            Verdict::Accepted => match self.objection(id, &connect) {
                Some(reason) => reason,
                None => {
                    self.admit(id, *connect, turn);
                    return self.go_on(id, turn);
                }
            },
            Verdict::Wrong => Reason::BadUserNameOrPassword,
            Verdict::Busy => Reason::QuotaExceeded,
            Verdict::TooManyFailures => Reason::ConnectionRateExceeded,
        };
        self.refuse(id, connect.client_id, reason, turn);
    }

    /// What is wrong with a CONNECT, whoever sends it.
    pub(super) fn objection(&self, id: ConnectionId, connect: &Connect) -> Option<Reason> {
        let limits = &self.config.limits;
        let peer = &self.connections.get(id)?.peer;
        let terms = &peer.terms;
        if let Some(reason) = terms.refusal {
            return Some(reason);
        }
        let method = connect.properties.authentication_method();
        if method.is_some_and(|method| !self.knows_method(&peer.trust, &method)) {
            return Some(Reason::BadAuthenticationMethod); // [MQTT5-4.12.0-1]
        }
        let may_be_empty = match connect.version {
            Version::V31 => false,
            Version::V311 => connect.clean_start, // [MQTT311-3.1.3-8]
            Version::V5 => true,
        };
        if connect.client_id.is_empty() && !may_be_empty {
            return Some(Reason::ClientIdentifierNotValid);
        }
        // Nor does a port that speaks for somebody outside have such a name: it would keep the house out.
        let is_house = self.connections.get(id).is_some_and(Connection::is_of_the_house);
        if !is_house && is_port_of_the_house(&connect.client_id) {
            return Some(Reason::ClientIdentifierNotValid);
        }
        if let Some(will) = &connect.will {
            let topic = mounted_topic(terms.mount.as_ref(), will.topic.clone());
            if filter::check_topic(&will.topic).is_err() || topic.is_err() {
                return Some(Reason::TopicNameInvalid);
            }
            // What the house says of itself is then said once.
            if will.retain && !limits.retain && connect.version == Version::V5 && !is_house {
                return Some(Reason::RetainNotSupported); // [MQTT5-3.2.2-13]
            }
        }
        self.limit_reached(id, connect)
    }

    /// Which limit, or state of the store, forbids that somebody new comes.
    fn limit_reached(&self, id: ConnectionId, connect: &Connect) -> Option<Reason> {
        let limits = &self.config.limits;
        let connection = self.connections.get(id)?;
        let known = self.clients.named(&connect.client_id);
        let former = known.and_then(|key| self.clients.get(key));
        let taken_over = former.is_some_and(|client| client.connection.is_some());
        // The house's own ports take no client's place.
        let is_port = connection.is_port();
        let will =
            connect.will.as_ref().and_then(|will| kept_will(will, connection.peer.terms.mount.as_ref()));
        let will = will.as_ref().map_or(0, will_weight);
        let former_will = former.and_then(|client| client.will.as_deref()).map_or(0, will_weight);
        if !is_port && (self.level() == Level::Full || !self.may_leave(will, former_will)) {
            return Some(Reason::QuotaExceeded);
        }
        if self.network_clients >= limits.max_connections && !taken_over && !is_port {
            return Some(Reason::QuotaExceeded);
        }
        if self.memory.resting >= self.resting_most() && !taken_over && !is_port {
            return Some(Reason::QuotaExceeded);
        }
        // A store that does not commit must not gather what every coming and going would write.
        // One that is absent may have the session: to say that there is none would make the client forget
        // what it still has to send.
        let is_out_of_reach =
            self.store == Presence::Absent || self.ledger.owed() >= OWED_MAX || self.lists_are_full();
        // Nor the wills that they leave. The house's own are few.
        let overdraws = will > 0
            && self.ledger.is_overdrawn(limits.max_packet_size as usize)
            && !connection.is_of_the_house();
        if overdraws || (is_out_of_reach && self.granted_expiry(connect) > 0) {
            return Some(Reason::ServerUnavailable);
        }
        let name = connect.client_id.len() + connect.username.as_ref().map_or(0, |user| user.len());
        if !is_port && name > SHORT_NAME && known.is_none() && self.names_are_full(None) {
            return Some(Reason::QuotaExceeded);
        }
        None
    }

    /// Turns a connection away before its session stands.
    pub(super) fn refuse(
        &mut self,
        id: ConnectionId,
        client_id: ByteString,
        reason: Reason,
        turn: &mut Turn<'_>,
    ) {
        let Some(mut connection) = self.connections.remove(id) else { return };
        self.forget_held(&mut connection);
        self.counters.connections_refused += 1;
        if connection.is_of_the_house() {
            self.turned_away.insert(client_id.clone(), reason);
        }
        // [MQTT311-3.2.2-6]: no return code says that the topic of a will is wrong.
        if connection.version == Version::V5 || reason != Reason::TopicNameInvalid {
            // [MQTT5-3.2.2-6] [MQTT311-3.2.2-4]
            let answer = ConnAck { session_present: false, reason, properties: Properties::new() };
            Broker::say(&connection, Packet::ConnAck(answer), turn.effects);
        }
        turn.effects.push(Effect::Close { connection: id });
        turn.effects.push(Effect::Note(Note::Refused { client_id, peer: connection.peer.name, reason }));
    }

    /// Gives the connection its session.
    pub(super) fn admit(&mut self, id: ConnectionId, connect: Connect, turn: &mut Turn<'_>) {
        let assigned = connect.client_id.is_empty().then(|| self.assign_client_id());
        let client_id = assigned.clone().unwrap_or_else(|| connect.client_id.clone());
        // [MQTT5-3.1.2-24]
        let answer = Packet::ConnAck(self.connack(id, &connect, assigned.clone(), false));
        if self.connections.get(id).is_some_and(|connection| !fits(&answer, connection)) {
            return self.refuse(id, client_id, Reason::PacketTooLarge, turn);
        }
        let user = self.user_of(id, &connect);
        if self.is_foreign(id, user.as_ref(), &client_id, turn) {
            // The id is a valid text that is not allowed here, which is what this reason says in every version;
            // "not authorized" would make a technician look for a wrong password.
            return self.refuse(id, client_id, Reason::ClientIdentifierNotValid, turn);
        }
        let expiry = self.granted_expiry(&connect);
        if expiry > 0 && !self.make_place(id, &client_id, turn) {
            return self.refuse(id, client_id, Reason::QuotaExceeded, turn);
        }
        let thrown_away = self.supersede(&client_id, &connect, turn);
        let found = self.clients.named(&client_id);
        let session_present = found.is_some();
        let key = match found {
            Some(key) => key,
            None => self.clients.insert(Session::new(client_id, None, expiry)),
        };
        self.remember_rate(key, turn.now.mono);
        if expiry > 0 {
            self.keep(key);
        }
        self.settle_client(id, key, user, &connect);
        self.settle_in(id, key, &connect, turn);
        let answer = self.connack(id, &connect, assigned, session_present);
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.phase = Phase::Opening(Box::new(Packet::ConnAck(answer)));
        self.network_clients += u32::from(!connection.is_port());
        self.counters.clients += 1;
        self.counters.house_clients += u64::from(connection.is_of_the_house());
        let guests = self.counters.clients - self.counters.house_clients;
        self.counters.most_guests = self.counters.most_guests.max(guests);
        let ticket = self.write_session(key, turn).max(thrown_away);
        if ticket == Ticket(0) && !self.connections.is_gone(id) {
            return self.finish_opening(id, turn);
        }
        if let Some(connection) = self.connections.get_mut(id) {
            self.pace.begin(&mut connection.rhythm, Kind::Other, ticket);
        }
        self.ledger.after(ticket, Step::Open(id));
    }

    /// What the session keeps of the CONNECT, its expiry apart: it is the client's until the next one.
    fn settle_client(
        &mut self,
        id: ConnectionId,
        key: ClientKey,
        user: Option<ByteString>,
        connect: &Connect,
    ) {
        let expiry = self.granted_expiry(connect);
        let Some(connection) = self.connections.get(id) else { return };
        let (mount, house) = (connection.peer.terms.mount.clone(), connection.is_house());
        let will = connect.will.as_ref().and_then(|will| kept_will(will, mount.as_ref())).map(Box::new);
        self.memory.wills += will.as_ref().map_or(0, |will| will_weight(will));
        let Some(client) = self.clients.get_mut(key) else { return };
        let finds_mount = client.origin == Origin::Unknown && mount.is_some();
        self.memory.wills -= client.set_will(will);
        client.session.user = user;
        client.session.expiry = expiry;
        client.house = house;
        client.connection = Some(id);
        client.mount = mount;
        client.origin = Origin::Known;
        client.will_due = None; // [MQTT5-3.1.3-9]
        client.ends = None;
        self.clients.set_ended(key, None);
        if finds_mount {
            self.lead_anew(key);
        }
        self.name_anew(key);
        let access = self.access_of(id, key);
        if let Some(client) = self.clients.get_mut(key) {
            client.access = access;
            if !client.session.subscriptions.is_empty() {
                // What it was not to be given before is kept for it from now on.
                self.atlas.close();
            }
        }
    }

    /// It is known at last where a session's own topics begin.
    fn lead_anew(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get(key) else { return };
        let own = |known: &&StoredSubscription| filter::of_share(&known.filter).is_none();
        let subscriptions: Vec<_> = client.session.subscriptions.iter().filter(own).cloned().collect();
        for subscription in &subscriptions {
            self.lead(key, subscription);
        }
    }

    /// What the connection itself keeps of its CONNECT.
    fn settle_in(&mut self, id: ConnectionId, key: ClientKey, connect: &Connect, turn: &mut Turn<'_>) {
        let keep_alive = self.granted_keep_alive(id, connect);
        let max_inflight = self.config.limits.max_inflight;
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.client = Some(key);
        connection.silence = u64::from(keep_alive) * 1_500; // [MQTT5-3.1.2-22] [MQTT311-3.1.2-24]
        connection.heard = turn.now.mono;
        let receive_maximum = connect.properties.receive_maximum().unwrap_or(u16::MAX);
        // A port says by its credit what it can take.
        let own = if connection.is_port() { u16::MAX } else { max_inflight };
        connection.window = receive_maximum.min(own).max(1);
    }

    fn user_of(&self, id: ConnectionId, connect: &Connect) -> Option<ByteString> {
        match &self.connections.get(id)?.peer.trust {
            Trust::Port { user, .. } => user.clone(),
            Trust::Certificate { user } => Some(user.clone()),
            // A name that nobody has checked is none.
            Trust::Anonymous if self.config.passwords == Passwords::Absent => None,
            Trust::Anonymous | Trust::Password => connect.username.as_deref().map(ByteString::from),
        }
    }

    /// A session gets its place in the log when it first is to outlive its connection.
    fn keep(&mut self, key: ClientKey) {
        let kept = self.clients.get(key).is_some_and(|client| client.session.backlog.is_some());
        if !kept {
            self.last_reader += 1;
            let reader = ReaderId(self.last_reader);
            self.clients.keep(key, Backlog::new(reader, self.ledger.last_seq()));
        }
    }

    fn granted_expiry(&self, connect: &Connect) -> u32 {
        let wished = match connect.version {
            Version::V5 => connect.properties.session_expiry().unwrap_or(0), // [MQTT5-3.1.2.11.2]
            Version::V31 | Version::V311 if connect.clean_start => 0,
            Version::V31 | Version::V311 => u32::MAX,
        };
        wished.min(self.config.limits.max_session_expiry)
    }

    /// Seconds; the client's own before MQTT 5, which cannot be told another, and a port's, which cannot
    /// be half dead.
    fn granted_keep_alive(&self, id: ConnectionId, connect: &Connect) -> u16 {
        if self.connections.get(id).is_some_and(|connection| connection.is_port()) {
            return connect.keep_alive;
        }
        let most = self.config.limits.max_keepalive;
        match (connect.version, connect.keep_alive) {
            (Version::V5, 0) => most,
            (Version::V5, wished) => wished.min(most),
            (Version::V31 | Version::V311, wished) => wished,
        }
    }

    fn connack(
        &self,
        id: ConnectionId,
        connect: &Connect,
        assigned: Option<ByteString>,
        session_present: bool,
    ) -> ConnAck {
        let mut list = Vec::new();
        if connect.version == Version::V5 {
            let limits = &self.config.limits;
            let wished = connect.properties.session_expiry().unwrap_or(0);
            if self.granted_expiry(connect) != wished {
                list.push(Property::SessionExpiryInterval(self.granted_expiry(connect)));
            }
            list.push(Property::ReceiveMaximum(limits.max_inflight));
            if !limits.retain {
                list.push(Property::RetainAvailable(0));
            }
            list.push(Property::MaximumPacketSize(limits.max_packet_size));
            let told = self.response_information(connect, assigned.as_deref());
            list.extend(assigned.map(Property::AssignedClientIdentifier)); // [MQTT5-3.2.2-16]
            if limits.max_topic_alias > 0 {
                list.push(Property::TopicAliasMaximum(limits.max_topic_alias));
            }
            list.extend(told);
            let keep_alive = self.granted_keep_alive(id, connect);
            if keep_alive != connect.keep_alive {
                list.push(Property::ServerKeepAlive(keep_alive)); // [MQTT5-3.2.2-21]
            }
            list.extend(self.proof(id));
        }
        ConnAck {
            // 3.1 has no such flag. [MQTT5-3.2.2-3] [MQTT311-3.2.2-2] [MQTT311-3.2.2-3]
            session_present: session_present && connect.version != Version::V31,
            reason: Reason::Success,
            properties: Properties::from_list(&list),
        }
    }

    /// Where the client may have its answers sent, if it asks. [MQTT5-3.1.2-28]
    fn response_information(&self, connect: &Connect, assigned: Option<&str>) -> Option<Property> {
        let asked = connect.properties.request_response_information() == Some(1);
        let pattern = &self.config.limits.response_information;
        // A client id with a wildcard in it makes no topic.
        let id = assigned.unwrap_or(&connect.client_id);
        let named = !pattern.contains("%c") || !id.contains(['+', '#']);
        let told = asked && !pattern.is_empty() && named;
        told.then(|| Property::ResponseInformation(pattern.replace("%c", id).into()))
    }

    /// The session stands: CONNACK leaves, then what was under way, then what waits.
    pub(super) fn finish_opening(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !matches!(connection.phase, Phase::Opening(_)) {
            return;
        }
        let Phase::Opening(answer) = std::mem::replace(&mut connection.phase, Phase::Open) else { return };
        self.pace.end(&mut connection.rhythm, Kind::Other);
        self.memory.held -= std::mem::take(&mut connection.connect) as usize;
        Broker::say(connection, *answer, turn.effects);
        let Some(key) = connection.client else { return };
        let outlet = Outlet {
            connection: id,
            window: connection.window,
            credit: connection.credit,
            pings: 0,
            maximum_packet_size: connection.maximum_packet_size.unwrap_or(u32::MAX),
            mount: connection.peer.terms.mount.clone(),
            ahead: self.config.limits.ahead(),
        };
        let peer = connection.peer.name.clone();
        let is_house = connection.is_of_the_house();
        self.counters.connections_accepted += 1;
        if let Some(client) = self.clients.get_mut(key) {
            client.outlet = Some(outlet);
            if !client.session.subscriptions.is_empty() {
                self.atlas.close();
            }
            let client_id = client.session.client_id.clone();
            if is_house {
                self.turned_away.remove(&client_id);
            }
            turn.effects.push(Effect::Note(Note::Connected { client_id, peer }));
        }
        self.watch_sys_of(key);
        self.repeat_releases(key, turn);
        self.repeat_shared(key, turn);
        self.pump(key, turn);
        self.go_on(id, turn);
    }

    /// Writes the session as it is now.
    pub(super) fn write_session(&mut self, key: ClientKey, turn: &mut Turn<'_>) -> Ticket {
        let Some(client) = self.clients.get(key) else { return Ticket(0) };
        let Some(backlog) = &client.session.backlog else { return Ticket(0) };
        let record = SessionRecord {
            reader: backlog.reader,
            client_id: client.session.client_id.clone(),
            user: client.session.user.clone(),
            expiry: client.session.expiry,
            ended: client.ended,
            subscriptions: client.session.subscriptions.clone(),
            will: client.will.as_deref().cloned(),
            mount: client.mount_record(),
        };
        self.ledger.write(Write::Session(record.into()), turn.effects)
    }

    /// What was found in the store: groups before their members, and what was under way after both.
    pub(super) fn restore_sessions(&mut self, found: Vec<RestoredSession>, alive: u64, now: Now) {
        let mut unsaid = std::mem::take(&mut self.unsaid);
        let (groups, sessions): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|restored| is_group(&restored.record));
        for group in &groups {
            self.restore_group(group);
        }
        for session in sessions {
            self.restore(session, alive, now, &mut unsaid);
        }
        for group in &groups {
            self.restore_leases(group, &mut unsaid);
        }
        self.close_empty_groups(&mut unsaid);
        self.unsaid = unsaid;
    }

    /// A session that was found in the store; its connection ended at the latest now, and where it is known until
    /// when the house was alive, at the latest then.
    fn restore(&mut self, restored: RestoredSession, alive: u64, now: Now, unsaid: &mut Vec<Effect>) {
        let (rows, bytes) = restored.waiting();
        let weights = Weights::of(rows, bytes);
        let RestoredSession { record, cursor, last, mut leases, inward, .. } = restored;
        // A limit that was lowered since holds for what is found, too: so an operator can end what nobody will.
        let expiry = record.expiry.min(self.config.limits.max_session_expiry);
        let mut session = Session::new(record.client_id, record.user, expiry);
        session.backlog = Some(Box::new(Backlog::restored(record.reader, cursor, last, weights)));
        session.subscriptions = record.subscriptions;
        leases.sort_by_key(|lease| lease.seq);
        leases.retain(|lease| session.flight.restore(lease, None) == Stage::Recording);
        for packet_id in inward {
            session.inward.hold(packet_id, Ticket(0));
        }
        self.memory.inward += session.inward.len() * INWARD_BYTES;
        let key = self.clients.insert(session);
        for lease in leases {
            self.record_release(key, lease.packet_id, (record.reader, lease.seq), unsaid);
        }
        let alive = if alive == 0 { now.house } else { alive };
        let ended = record.ended.unwrap_or(alive).min(now.house);
        if record.ended.is_none() {
            // Else the next start would take it for connected until then. [MQTT5-4.1.0-2]
            self.ledger.write(Write::SessionEnded { reader: record.reader, ended }, unsaid);
        }
        let passed = now.age(ended);
        let Some(client) = self.clients.get_mut(key) else { return };
        let rules = self.config.rules.as_ref();
        let access =
            rules.map(|rules| rules.of_client(client.session.user.as_ref(), &client.session.client_id));
        client.access = access.map(Box::new);
        client.restore_mount(record.mount);
        client.ends = due_after(now.mono, passed, expiry);
        client.will_due = record.will.as_ref().and_then(|will| {
            let delay = will.properties.will_delay().unwrap_or(0).min(expiry);
            due_after(now.mono, passed, delay)
        });
        self.memory.wills += record.will.as_ref().map_or(0, will_weight);
        client.set_will(record.will.map(Box::new));
        self.clients.set_ended(key, Some(ended));
        let Some(client) = self.clients.get(key) else { return };
        let subscriptions = client.session.subscriptions.clone();
        self.name_anew(key);
        self.weigh_subscriptions(key, &subscriptions, &[]);
        for subscription in &subscriptions {
            self.enter_subscription(key, subscription, unsaid);
        }
        self.arm_client(key);
    }

    /// A client id that no client can foresee by counting, nor a restart repeat.
    fn assign_client_id(&mut self) -> ByteString {
        loop {
            self.assigned_ids += 1;
            let first = mix(self.seed ^ self.assigned_ids);
            let second = mix(first ^ self.seed.rotate_left(24));
            let client_id = format!("{}-{first:016x}{:08x}", self.config.gateway, second >> 32);
            if self.clients.named(&client_id).is_none() {
                return client_id.into();
            }
        }
    }
}

/// When `seconds` will have passed, of which `passed` milliseconds have; `None` for never.
pub(super) fn due_after(mono: u64, passed: u64, seconds: u32) -> Option<u64> {
    (seconds != u32::MAX).then(|| mono + (u64::from(seconds) * 1_000).saturating_sub(passed))
}

/// The will as it is kept; its topic was found to be one.
fn kept_will(will: &Will, mount: Option<&Arc<str>>) -> Option<SessionWill> {
    Some(SessionWill {
        qos: will.qos,
        retain: will.retain,
        topic: mounted_topic(mount, ByteString::from(&*will.topic)).ok()?,
        payload: will.payload.to_vec().into(),
        properties: will.properties.compact(),
    })
}

/// Writes that are not committed, beyond which no session that outlives its connection is opened.
const OWED_MAX: u64 = 32_768;

/// Bytes of client id and user name that a new session may always have: the number of sessions bounds them.
const SHORT_NAME: usize = 256;

/// SplitMix64's output function.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
