//! The connections, by slot, and what belongs to a connection and not to a session.
//!
//! A connection that waits (for a password, for the commit of its session, for a busy store) holds the
//! packets that come meanwhile, in order. How much it can hold is bounded: it is paused, so no more
//! comes than one read had already decoded.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use bytestring::ByteString;

use super::aliases::Aliases;
use super::authenticate::{Exchange, compact};
use super::client::ClientKey;
use super::pace::{Kind, Rhythm};
use super::rights::{is_device_user, is_house_user};
use super::{ConnectionId, Peer, Trust};
use crate::codec::{Connect, Packet, Properties, Publish, QoS, Reason, Subscription, Version};
use crate::record::Ticket;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) peer: Peer,
    pub(super) phase: Phase,
    pub(super) version: Version,
    /// Its session, from CONNECT on.
    pub(super) client: Option<ClientKey>,
    /// Milliseconds without a packet after which it is dead; 0 is never.
    pub(super) silence: u64,
    /// When its last packet came, and before CONNACK when it was opened; monotonic.
    pub(super) heard: u64,
    /// The earliest deadline that is armed for it.
    pub(super) armed: u64,
    /// The client's Receive Maximum within our own limit.
    pub(super) window: u16,
    /// Credit of a port that is not yet open.
    pub(super) credit: Option<u32>,
    /// The client's Maximum Packet Size.
    pub(super) maximum_packet_size: Option<u32>,
    /// Whether it wants words with what fails.
    pub(super) problems: Problems,
    /// Topic aliases, once one is set.
    pub(super) aliases: Option<Box<Aliases>>,
    /// What its CONNECT weighs, until the session stands.
    pub(super) connect: u32,
    /// Its publishes of QoS 1 and 2 that are not yet answered in full.
    pub(super) unanswered: u32,
    /// Answers that wait for a commit, in their order.
    pub(super) answers: VecDeque<Pending>,
    pub(super) rhythm: Rhythm,
    pub(super) held: VecDeque<Held>,
    pub(super) paused: bool,
    /// Where its CONNECT has named an authentication method.
    pub(super) exchange: Option<Box<Exchange>>,
}

/// Request Problem Information.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problems {
    /// Reason strings may stand in every packet that has them.
    Wanted,
    /// Only in CONNACK and DISCONNECT.
    Unwanted,
}

/// How far a connection is.
#[derive(Debug)]
pub(super) enum Phase {
    /// CONNECT has not come.
    Fresh,
    /// Its password is being checked.
    Verifying(Box<Connect>),
    /// It is to show who it is, by AUTH.
    Authenticating(Box<Connect>),
    /// Its session is being committed; the packet is the CONNACK.
    Opening(Box<Packet>),
    /// CONNACK is sent.
    Open,
    /// As open, but a publish of its waits for the store.
    Waiting,
    /// As open, but a publish of its came too soon, or was much work, and the next waits until then, monotonic.
    Slowed(u64),
    /// As open, but its end has come: what it said before is taken without waiting for its time.
    Ending,
}

/// Something that waits for its connection.
#[derive(Debug)]
pub(super) enum Held {
    Packet(Packet),
    Malformed(Reason),
}

impl Held {
    /// Whether its client has lost it if it is not taken.
    pub(super) fn is_once(&self) -> bool {
        matches!(self, Held::Packet(Packet::Publish(publish)) if publish.qos == QoS::AtMostOnce)
    }

    /// A packet that is to wait.
    pub(super) fn of(packet: Packet) -> Held {
        let mut held = Held::Packet(packet);
        held.own_bytes();
        held
    }

    /// Gives it bytes of its own: a few of them would else keep a whole read buffer, which nobody counts.
    pub(super) fn own_bytes(&mut self) {
        let Held::Packet(packet) = self else { return };
        let own = |text: &mut ByteString| *text = ByteString::from(&**text);
        match packet {
            Packet::Publish(publish) => {
                own(&mut publish.topic);
                publish.payload = Bytes::copy_from_slice(&publish.payload);
            }
            Packet::Subscribe(subscribe) => subscribe.filters.iter_mut().for_each(|one| own(&mut one.filter)),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.filters.iter_mut().for_each(own),
            Packet::Connect(connect) => **connect = compact(Connect::clone(connect)),
            _ => {}
        }
        if let Some(properties) = properties_of(packet) {
            *properties = properties.compact();
        }
    }

    /// Bytes that it takes.
    pub(super) fn weight(&self) -> usize {
        let own = match self {
            Held::Packet(Packet::Publish(publish)) => return Held::weight_of_publish(publish),
            Held::Packet(Packet::Subscribe(subscribe)) => {
                let filters =
                    subscribe.filters.iter().map(|one| one.filter.len() + size_of::<Subscription>());
                filters.sum::<usize>() + subscribe.properties.as_bytes().len()
            }
            Held::Packet(Packet::Unsubscribe(unsubscribe)) => {
                let filters = unsubscribe.filters.iter().map(|filter| filter.len() + size_of::<ByteString>());
                filters.sum::<usize>() + unsubscribe.properties.as_bytes().len()
            }
            Held::Packet(
                Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack),
            ) => ack.properties.as_bytes().len(),
            Held::Packet(Packet::Auth(auth)) => auth.properties.as_bytes().len(),
            Held::Packet(Packet::Disconnect(disconnect)) => disconnect.properties.as_bytes().len(),
            Held::Packet(_) | Held::Malformed(_) => 0,
        };
        own + size_of::<Held>()
    }

    /// The same of a publish alone.
    pub(super) fn weight_of_publish(publish: &Publish) -> usize {
        let own = publish.topic.len() + publish.payload.len() + publish.properties.as_bytes().len();
        own + size_of::<Held>()
    }
}

/// What a client's packet says beside its fields.
fn properties_of(packet: &mut Packet) -> Option<&mut Properties> {
    match packet {
        Packet::Publish(publish) => Some(&mut publish.properties),
        Packet::Subscribe(subscribe) => Some(&mut subscribe.properties),
        Packet::Unsubscribe(unsubscribe) => Some(&mut unsubscribe.properties),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            Some(&mut ack.properties)
        }
        Packet::Disconnect(disconnect) => Some(&mut disconnect.properties),
        Packet::Auth(auth) => Some(&mut auth.properties),
        _ => None,
    }
}

/// An answer and what it waits for.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ticket: Ticket,
    /// `None` where it waits only for the answers before it.
    pub(super) waits: Option<Kind>,
    /// Bytes that it takes.
    pub(super) weight: usize,
    pub(super) answer: Answer,
}

/// The answer to a request.
#[derive(Debug)]
pub(super) enum Answer {
    PubAck(u16, Reason),
    PubRec(u16, Reason),
    PubComp(u16, Reason),
    /// SUBACK or UNSUBACK.
    Other(Box<Packet>),
}

impl Answer {
    /// Bytes that it takes.
    pub(super) fn weight(&self) -> usize {
        let codes = match self {
            Answer::Other(packet) => match &**packet {
                Packet::SubAck(answer) => answer.reasons.len() + size_of::<Packet>(),
                Packet::UnsubAck(answer) => answer.reasons.len() + size_of::<Packet>(),
                _ => size_of::<Packet>(),
            },
            Answer::PubAck(..) | Answer::PubRec(..) | Answer::PubComp(..) => 0,
        };
        codes + size_of::<Pending>()
    }
}

impl Connection {
    pub(super) fn new(id: ConnectionId, peer: Peer, now: u64) -> Connection {
        let (counts, credit) = match &peer.trust {
            Trust::Port { credit, waits, .. } => (*waits, Some(*credit)),
            Trust::Anonymous | Trust::Password | Trust::Certificate { .. } => (true, None),
        };
        Connection {
            id,
            peer,
            phase: Phase::Fresh,
            version: Version::V311,
            client: None,
            silence: 0,
            heard: now,
            armed: u64::MAX,
            window: 0,
            credit,
            maximum_packet_size: None,
            problems: Problems::Wanted,
            aliases: None,
            connect: 0,
            unanswered: 0,
            answers: VecDeque::new(),
            rhythm: Rhythm::new(counts),
            held: VecDeque::new(),
            paused: false,
            exchange: None,
        }
    }

    /// Bytes that are held for it here.
    pub(super) fn weight(&self) -> usize {
        let answers: usize = self.answers.iter().map(|pending| pending.weight).sum();
        let aliases = self.aliases.as_ref().map_or(0, |aliases| aliases.weight());
        self.held_weight() + answers + aliases + self.connect as usize
    }

    fn held_weight(&self) -> usize {
        self.held.iter().map(Held::weight).sum()
    }

    /// Whether so much waits that no more is read. Of those of whom nobody knows who they are, there may be
    /// very many.
    pub(super) fn holds_enough(&self) -> bool {
        let is_stranger = self.client.is_none();
        self.held.len() >= HELD_BEFORE_PAUSE || (is_stranger && self.held_weight() >= HELD_OF_A_STRANGER)
    }

    /// Whether its packets wait.
    pub(super) fn holds(&self) -> bool {
        matches!(self.phase, Phase::Verifying(_) | Phase::Opening(_) | Phase::Waiting | Phase::Slowed(_))
    }

    /// Whether CONNACK is sent.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Waiting | Phase::Slowed(_) | Phase::Ending)
    }

    /// Whether what it says is taken at once, and of no weight for a commit: of who waits for one it is to be known
    /// whether he has said all that he may.
    pub(super) fn is_at_ease(&self) -> bool {
        self.is_plainly_open() && !self.rhythm.waits()
    }

    /// Whether what it says is taken at once.
    #[inline]
    pub(super) fn is_plainly_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    pub(super) fn is_slowed(&self) -> bool {
        matches!(self.phase, Phase::Slowed(_))
    }

    pub(super) fn is_port(&self) -> bool {
        matches!(self.peer.trust, Trust::Port { .. })
    }

    /// Whether it is one of the house's own ports.
    pub(super) fn is_house(&self) -> bool {
        matches!(&self.peer.trust, Trust::Port { user: Some(user), .. }
            if &**user == "tidegate" || user.starts_with("tidegate:"))
    }

    /// Whether it is a part of the house, its adapters and bridges among them, and speaks for nobody outside.
    pub(super) fn is_of_the_house(&self) -> bool {
        matches!(&self.peer.trust, Trust::Port { user: Some(user), .. } if is_house_user(user))
    }

    /// Whether it brings readings of a device that our adapter has rendered.
    pub(super) fn is_device(&self) -> bool {
        matches!(&self.peer.trust, Trust::Port { user: Some(user), .. } if is_device_user(user))
    }

    /// Whether so many of its answers wait that another request must wait before it is taken. Bounds what
    /// one client can make us hold while the store does not answer.
    pub(super) fn owes_too_much(&self, packet: &Packet) -> bool {
        let most = match packet {
            Packet::Publish(publish) if publish.qos > QoS::AtMostOnce => return self.owes_too_many(),
            Packet::PubRel(_) => ANSWERS_MAX,
            Packet::Subscribe(_) | Packet::Unsubscribe(_) => SUBSCRIBES_MAX,
            _ => return false,
        };
        self.answers.len() >= most
    }

    /// The same before a PUBLISH of QoS 1 or 2.
    pub(super) fn owes_too_many(&self) -> bool {
        self.answers.len() >= ANSWERS_MAX
    }

    /// When it is dead if nothing comes, or may go on, monotonic.
    pub(super) fn due(&self) -> Option<u64> {
        match self.phase {
            Phase::Fresh | Phase::Authenticating(_) => Some(self.heard + CONNECT_WITHIN),
            Phase::Slowed(until) => Some(until),
            _ if self.paused || self.holds() => None,
            _ => {
                let silent = (self.silence > 0).then(|| self.heard + self.silence);
                silent.into_iter().chain(self.proof_due()).min()
            }
        }
    }
}

/// Every connection.
#[derive(Default)]
pub(super) struct Connections {
    slots: Vec<Option<Box<Connection>>>,
    /// Those that are gone while their password is compared: what they have said is taken after. Their slots
    /// may be others' by now. There are as many at most as passwords may wait, and none comes to them while memory
    /// is tight.
    gone: BTreeMap<ConnectionId, Box<Connection>>,
}

impl Connections {
    pub(super) fn insert(&mut self, connection: Connection) {
        let slot = connection.id.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Box::new(connection));
        }
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let here = self.slots.get(id.slot as usize)?.as_deref().filter(|connection| connection.id == id);
        here.or_else(|| self.gone.get(&id).map(|connection| &**connection))
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let here = self.slots.get_mut(id.slot as usize)?.as_deref_mut();
        let here = here.filter(|connection| connection.id == id);
        here.or_else(|| self.gone.get_mut(&id).map(|connection| &mut **connection))
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let here = self.slots.get_mut(id.slot as usize)?.take_if(|connection| connection.id == id);
        here.or_else(|| self.gone.remove(&id))
    }

    /// Its link is gone, and it is not to be forgotten yet.
    pub(super) fn outlive(&mut self, id: ConnectionId) {
        if let Some(connection) = self.remove(id) {
            self.gone.insert(id, connection);
        }
    }

    /// Whether its link is gone.
    pub(super) fn is_gone(&self, id: ConnectionId) -> bool {
        self.gone.contains_key(&id)
    }

    /// The connection that has this slot now.
    pub(super) fn in_slot(&self, slot: u32) -> Option<ConnectionId> {
        self.slots.get(slot as usize)?.as_deref().map(|connection| connection.id)
    }

    /// Every connection: those that are gone, then the others in the order of slots.
    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        let here = self.slots.iter().flatten().map(|connection| connection.id);
        self.gone.keys().copied().chain(here).collect()
    }
}

/// Answers of one connection that may wait for a commit; further publishes are not read.
const ANSWERS_MAX: usize = 4_096;
/// The same before SUBSCRIBE and UNSUBSCRIBE, each of which writes the whole session.
const SUBSCRIBES_MAX: usize = 64;
/// Milliseconds from the opening of a connection within which CONNECT must come, and what AUTH is to show.
const CONNECT_WITHIN: u64 = 10_000;
/// Packets that a connection holds before it is paused.
const HELD_BEFORE_PAUSE: usize = 16;
/// Bytes that one without a session holds before it is paused.
const HELD_OF_A_STRANGER: usize = 16_384;

/// What waits of a port before its QoS 0 is dropped and counted; its QoS 1 and 2 the port itself bounds.
pub(super) const HELD_OF_A_PORT_MAX: usize = 1_024;
