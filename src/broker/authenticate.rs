//! Enhanced authentication (MQTT 5): AUTH back and forth, before CONNACK and again at any time after it.
//!
//! Here is who may say what, and when. What the data mean is the method's business and lies outside, as
//! passwords do; it remembers nothing, so all that both sides have said is kept here until the end.
//!
//! Invariant: at most one question is out for a connection, and what waits for its end is bounded in time
//! ([`super::connection`]), in number (a share of `max_memory`) and in size.

use bytes::Bytes;
use bytestring::ByteString;

use super::connection::{Connection, Phase};
use super::memory::connect_weight;
use super::words::Said;
use super::{AuthOutcome, Broker, ConnectionId, Effect, Passwords, Trust, Turn};
use crate::codec::{Auth, Connect, Packet, Properties, Property, Reason, Will};

/// What a connection whose CONNECT named a method has beside the others.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// What was said so far: by the client, by us, and so on in turn.
    transcript: Vec<Bytes>,
    stage: Stage,
    /// When the client began, monotonic.
    since: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// Nothing is under way.
    #[default]
    Idle,
    /// The client is to say something.
    Client,
    /// [`Effect::Authenticate`] is not answered.
    Question,
}

impl Broker {
    /// Whether a CONNECT of this peer may name this method: where a certificate or the house itself says who
    /// somebody is, nothing is left to be shown. [MQTT5-4.12.0-1]
    pub(super) fn knows_method(&self, trust: &Trust, method: &str) -> bool {
        let by_name = matches!(trust, Trust::Anonymous | Trust::Password);
        by_name && self.config.passwords == Passwords::File && method == METHOD
    }

    /// A CONNECT that names a method waits until its client has shown who it is.
    pub(super) fn begin_authentication(&mut self, id: ConnectionId, connect: Connect, turn: &mut Turn<'_>) {
        let data = connect.properties.authentication_data();
        let connect = Box::new(compact(connect));
        let weight = weight(&connect);
        let more = weight + data.as_ref().map_or(0, word_weight);
        if self.memory.unproven + more > self.config.limits.max_memory / UNPROVEN_SHARE {
            return self.refuse(id, connect.client_id, Reason::QuotaExceeded, turn);
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        self.memory.unproven += weight;
        connection.phase = Phase::Authenticating(connect);
        connection.exchange = Some(Box::default());
        self.hear(id, data, turn);
        self.arm(id);
    }

    /// What comes between such a CONNECT and its CONNACK.
    pub(super) fn on_unproven(&mut self, id: ConnectionId, packet: Packet, turn: &mut Turn<'_>) {
        match packet {
            Packet::Auth(auth) => self.on_auth(id, &auth, turn),
            Packet::Disconnect(_) => self.drop_connection(id, turn),
            _ => self.expel(id, Reason::ProtocolError, turn), // [MQTT5-3.1.2-30]
        }
    }

    pub(super) fn on_auth(&mut self, id: ConnectionId, auth: &Auth, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let stage = connection.exchange.as_ref().map(|exchange| exchange.stage);
        let named = auth.properties.authentication_method();
        let data = auth.properties.authentication_data();
        let now = turn.now.mono;
        match (stage, auth.reason) {
            // [MQTT5-4.12.0-5] [MQTT5-4.12.1-1]
            _ if named.as_deref() != Some(METHOD) => self.expel(id, Reason::ProtocolError, turn),
            // [MQTT5-4.12.0-3]
            (Some(Stage::Client), Reason::ContinueAuthentication) => {
                self.hear(id, Some(data.unwrap_or_default()), turn);
            }
            (Some(Stage::Idle), Reason::ReAuthenticate) => {
                if let Some(exchange) = self.exchange(id) {
                    exchange.since = now;
                }
                self.hear(id, data, turn);
                self.arm(id);
            }
            // Out of turn, or no method was agreed on at CONNECT. [MQTT5-4.12.0-7]
            _ => self.expel(id, Reason::ProtocolError, turn),
        }
    }

    /// The client has said something; it may leave it to us to ask for the first word.
    fn hear(&mut self, id: ConnectionId, data: Option<Bytes>, turn: &mut Turn<'_>) {
        let Some(exchange) = self.exchange(id) else { return };
        let Some(data) = data else { return self.challenge(id, None, turn) };
        if data.len() > DATA_BYTES_MAX {
            return self.expel(id, Reason::PacketTooLarge, turn);
        }
        exchange.stage = Stage::Question;
        self.keep_word(id, &data);
        let Some(exchange) = self.exchange(id) else { return };
        let transcript = exchange.transcript.clone();
        turn.effects.push(Effect::Authenticate { connection: id, transcript });
    }

    /// It is the client's turn.
    fn challenge(&mut self, id: ConnectionId, data: Option<Bytes>, turn: &mut Turn<'_>) {
        let Some(exchange) = self.exchange(id) else { return };
        exchange.stage = Stage::Client;
        if let Some(data) = &data {
            self.keep_word(id, data);
        }
        self.say_auth(id, Reason::ContinueAuthentication, data, turn); // [MQTT5-4.12.0-2]
    }

    pub(super) fn on_authenticated(&mut self, id: ConnectionId, outcome: AuthOutcome, turn: &mut Turn<'_>) {
        if self.exchange(id).is_none_or(|exchange| exchange.stage != Stage::Question) {
            return;
        }
        // [MQTT5-4.12.0-4] [MQTT5-4.12.1-2]
        let reason = match outcome {
            AuthOutcome::Challenge(data) => return self.challenge(id, Some(data), turn),
            AuthOutcome::Proven { user, data } => return self.on_proven(id, user, data, turn),
            AuthOutcome::Wrong => Reason::NotAuthorized,
            AuthOutcome::Busy => Reason::QuotaExceeded,
            AuthOutcome::TooManyFailures => Reason::ConnectionRateExceeded,
        };
        self.expel(id, reason, turn);
    }

    fn on_proven(&mut self, id: ConnectionId, user: ByteString, data: Bytes, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let named = match &connection.phase {
            Phase::Authenticating(connect) => connect.username.clone(),
            // Who is here stays who he is.
            _ => connection.client.and_then(|key| self.clients.get(key)?.session.user.clone()),
        };
        if named.is_some_and(|named| named != user) {
            return self.expel(id, Reason::NotAuthorized, turn);
        }
        self.forget_words(id);
        let Some(mut connect) = self.take_unproven(id) else {
            return self.say_auth(id, Reason::Success, Some(data), turn);
        };
        connect.username = Some(user);
        // The limits may have been reached while it waited.
        if let Some(reason) = self.objection(id, &connect) {
            return self.refuse(id, connect.client_id, reason, turn);
        }
        // CONNACK says it.
        self.keep_word(id, &data);
        self.admit(id, *connect, turn);
        self.forget_words(id);
        self.go_on(id, turn);
    }

    /// What CONNACK says at the end of an exchange. [MQTT5-4.12.0-5] [MQTT5-4.12.0-6]
    pub(super) fn proof(&self, id: ConnectionId) -> Vec<Property> {
        let exchange = self.connections.get(id).and_then(|connection| connection.exchange.as_ref());
        let data = exchange.and_then(|exchange| exchange.transcript.last().cloned());
        data.map_or_else(Vec::new, |data| said(Some(data)))
    }

    /// A connection whose CONNECT waits is turned away; whether it was one.
    pub(super) fn refuse_unproven(&mut self, id: ConnectionId, reason: Reason, turn: &mut Turn<'_>) -> bool {
        let Some(connect) = self.take_unproven(id) else { return false };
        // CONNACK has no word for a client that takes too long.
        let reason = if reason == Reason::KeepAliveTimeout { Reason::NotAuthorized } else { reason };
        self.refuse(id, connect.client_id, reason, turn);
        true
    }

    fn take_unproven(&mut self, id: ConnectionId) -> Option<Box<Connect>> {
        let connection = self.connections.get_mut(id)?;
        if !matches!(connection.phase, Phase::Authenticating(_)) {
            return None;
        }
        let Phase::Authenticating(connect) = std::mem::replace(&mut connection.phase, Phase::Fresh) else {
            return None;
        };
        self.memory.unproven -= weight(&connect);
        Some(connect)
    }

    /// Keeps what was said, as bytes of its own.
    fn keep_word(&mut self, id: ConnectionId, data: &Bytes) {
        let Some(exchange) = self.exchange(id) else { return };
        exchange.transcript.push(Bytes::copy_from_slice(data));
        self.memory.unproven += word_weight(data);
    }

    /// Nothing is under way any more.
    fn forget_words(&mut self, id: ConnectionId) {
        let Some(exchange) = self.exchange(id) else { return };
        let weight = std::mem::take(exchange).weight();
        self.memory.unproven -= weight;
    }

    /// AUTH, which has neither words nor user properties, so that these never make it too large.
    /// [MQTT5-3.15.2-2] [MQTT5-3.15.2-3]
    fn say_auth(&mut self, id: ConnectionId, reason: Reason, data: Option<Bytes>, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get(id) else { return };
        let packet = Packet::Auth(Auth { reason, properties: Properties::from_list(&said(data)) });
        if Broker::say(connection, packet, turn.effects) == Said::TooLarge {
            self.expel(id, Reason::PacketTooLarge, turn);
        }
    }

    fn exchange(&mut self, id: ConnectionId) -> Option<&mut Exchange> {
        self.connections.get_mut(id)?.exchange.as_deref_mut()
    }
}

impl Connection {
    /// Bytes that wait for its client to show who it is.
    pub(super) fn unproven(&self) -> usize {
        let connect = match &self.phase {
            Phase::Authenticating(connect) => weight(connect),
            _ => 0,
        };
        connect + self.exchange.as_ref().map_or(0, |exchange| exchange.weight())
    }

    /// Until when it is to have shown again who it is, monotonic; `None` where nothing is under way.
    pub(super) fn proof_due(&self) -> Option<u64> {
        let under_way = self.exchange.as_ref().filter(|exchange| exchange.stage != Stage::Idle)?;
        Some(under_way.since + PROOF_WITHIN)
    }
}

impl Exchange {
    fn weight(&self) -> usize {
        self.transcript.iter().map(word_weight).sum()
    }
}

/// The method, in every packet, and what is said by it. [MQTT5-4.12.0-5]
fn said(data: Option<Bytes>) -> Vec<Property> {
    let method = Property::AuthenticationMethod(ByteString::from_static(METHOD));
    [method].into_iter().chain(data.map(Property::AuthenticationData)).collect()
}

/// A CONNECT whose bytes are its own, since it may wait for long; its password is nobody's to compare.
pub(super) fn compact(connect: Connect) -> Connect {
    let text = |text: &ByteString| ByteString::from(&**text);
    Connect {
        client_id: text(&connect.client_id),
        will: connect.will.as_ref().map(|will| Will {
            qos: will.qos,
            retain: will.retain,
            topic: text(&will.topic),
            payload: Bytes::copy_from_slice(&will.payload),
            properties: will.properties.compact(),
        }),
        username: connect.username.as_ref().map(text),
        password: None,
        properties: connect.properties.compact(),
        ..connect
    }
}

/// Without words yet.
fn weight(connect: &Connect) -> usize {
    connect_weight(connect) as usize + size_of::<Exchange>()
}

fn word_weight(data: &Bytes) -> usize {
    data.len() + size_of::<Bytes>()
}

/// The one method. Its name stands in CONNECT, in CONNACK and in every AUTH.
const METHOD: &str = "SCRAM-SHA-256";

/// What a client may say at a time.
const DATA_BYTES_MAX: usize = 1_024;

/// Milliseconds within which a client that has begun to show again who it is has done so.
const PROOF_WITHIN: u64 = 10_000;

/// Those who have yet to show who they are may hold one part in so many of `max_memory`; who comes beyond
/// that is refused (0x97).
const UNPROVEN_SHARE: usize = 8;
