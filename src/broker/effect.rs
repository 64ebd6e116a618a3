//! What happens to the broker, and what it wants done.
//!
//! Events come in batches, in the order in which they happened; effects leave in the order in which
//! they must be carried out. A connection is a number here, whatever stands behind it: a socket or an
//! in-process port.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::Level;
use crate::access::Rules;
use crate::codec::{Alias, Packet, PublishParts, QoS, Reason, Version};
use crate::record::{Full, Identifiers, Message, Portion, ReaderId, Rows, Seq, Survey, Ticket, Write};

/// A connection: its slot is reused, its generation is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Index into the engine's table; small and dense.
    pub slot: u32,
    /// Tells two users of a slot apart.
    pub generation: u32,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A connection was opened; its first packet has not come.
    Opened {
        /// Which.
        connection: ConnectionId,
        /// Who is there.
        peer: Peer,
    },
    /// A packet came.
    Packet {
        /// From where.
        connection: ConnectionId,
        /// What.
        packet: Packet,
    },
    /// What came is no MQTT, or too large: the connection must end with this reason.
    Malformed {
        /// From where.
        connection: ConnectionId,
        /// What is wrong.
        reason: Reason,
    },
    /// All packets of one read were handed over, and nothing is left undecoded.
    Drained {
        /// Which.
        connection: ConnectionId,
    },
    /// A port lets the broker send more messages.
    Granted {
        /// Which.
        connection: ConnectionId,
        /// How many more.
        messages: u32,
    },
    /// The connection is gone without DISCONNECT.
    Lost {
        /// Which.
        connection: ConnectionId,
    },
    /// The answer to [`Effect::Verify`].
    Verified {
        /// Which.
        connection: ConnectionId,
        /// What became of it.
        verdict: Verdict,
    },
    /// The answer to [`Effect::Authenticate`].
    Authenticated {
        /// Which.
        connection: ConnectionId,
        /// What became of it.
        outcome: AuthOutcome,
    },
    /// Writes up to this one are on disk.
    Committed {
        /// Up to which.
        through: Ticket,
    },
    /// The answer to [`Effect::Read`].
    Rows(Rows),
    /// Others take nothing more now.
    Full(Full),
    /// The answer to [`Effect::Survey`].
    Surveyed(Survey),
    /// What waits in the buffers of connections, and the largest of them.
    Buffered {
        /// Bytes of all.
        bytes: usize,
        /// Who has most, and how much.
        heaviest: Option<(ConnectionId, usize)>,
    },
    /// The answer to [`Effect::AwaitRoom`].
    Room {
        /// Where.
        connection: ConnectionId,
    },
    /// What connections take whatever waits in them: TLS keeps keys and buffers.
    Resting {
        /// Bytes of all.
        bytes: usize,
    },
    /// The operator's access rules are others now.
    Rules(Arc<Rules>),
    /// Time has passed: see `Broker::deadline`.
    Tick,
    /// The service stops: every client is told.
    Stop,
}

/// What became of a question for a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It fits.
    Accepted,
    /// It does not.
    Wrong,
    /// Too many wait to be compared.
    Busy,
    /// Too many wrong ones came from that address.
    TooManyFailures,
}

/// What became of a step of enhanced authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthOutcome {
    /// The client is to answer this.
    Challenge(Bytes),
    /// The client is this user.
    Proven {
        /// Who.
        user: ByteString,
        /// By which the client knows us.
        data: Bytes,
    },
    /// What it has said is wrong.
    Wrong,
    /// Too many wait for an answer.
    Busy,
    /// Too many wrong ones came from that address.
    TooManyFailures,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// For logs: an address or the port's name.
    pub name: String,
    /// What it may do unasked.
    pub trust: Trust,
    /// What its listener says of it.
    pub terms: Terms,
}

/// On what terms a listener has let a client in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// Stands before every topic of the client, which does not see it.
    pub mount: Option<Arc<str>>,
    /// It is one too many, or too soon: its CONNECT is refused with this.
    pub refusal: Option<Reason>,
}

/// What a peer may do before it has shown a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// A network client where anonymous ones are welcome; a user name that is given is checked all the
    /// same if there is a password file.
    Anonymous,
    /// A network client that must show user name and password.
    Password,
    /// A network client whose certificate says who it is: no password is asked for, and a user name that
    /// it gives counts for nothing.
    Certificate {
        /// The user that the certificate names.
        user: ByteString,
    },
    /// An in-process port, trusted to be who it says.
    Port {
        /// Its user name for access rules.
        user: Option<ByteString>,
        /// Messages that it can take at first.
        credit: u32,
        /// Whether a device waits for its acknowledgements.
        waits: bool,
    },
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The connection speaks this version and accepts packets of at most this size (`None`: no limit) and
    /// this many topic aliases. Comes before anything is sent on it.
    Speak {
        /// Where.
        connection: ConnectionId,
        /// Version of its CONNECT.
        version: Version,
        /// The client's Maximum Packet Size.
        maximum_packet_size: Option<u32>,
        /// The client's Topic Alias Maximum within our own limit.
        topic_alias_maximum: u16,
    },
    /// Send one packet that is not a PUBLISH.
    Send {
        /// Where to.
        connection: ConnectionId,
        /// What.
        packet: Packet,
    },
    /// Send one message. Copies of one message follow each other, so that it is encoded once.
    Deliver(Copy),
    /// Close the connection once what was sent is flushed.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Read nothing more from the connection.
    Pause {
        /// Which.
        connection: ConnectionId,
    },
    /// Read on.
    Resume {
        /// Which.
        connection: ConnectionId,
    },
    /// Check a password; answered by [`Event::Verified`].
    Verify {
        /// Whose.
        connection: ConnectionId,
        /// User name.
        username: ByteString,
        /// Password; empty where none was given.
        password: Bytes,
    },
    /// Go on with SCRAM-SHA-256; answered by [`Event::Authenticated`].
    Authenticate {
        /// Whose.
        connection: ConnectionId,
        /// All that was said so far: by the client, by us, and so on in turn. The client's word is the last.
        transcript: Vec<Bytes>,
    },
    /// Hand a write to the store. The n-th of these since start has ticket n.
    Write(Write),
    /// Commit now: every client that waits for an acknowledgement looks stuck.
    Hurry,
    /// Read a session's rows; answered by [`Event::Rows`].
    Read {
        /// Whose.
        reader: ReaderId,
        /// After which row.
        after: Seq,
        /// How much at most.
        limit: Portion,
    },
    /// Say when no more than so many bytes wait on the connection; answered by [`Event::Room`].
    AwaitRoom {
        /// Where.
        connection: ConnectionId,
        /// So many.
        most: usize,
    },
    /// Ask the store how it and its routes do; answered by [`Event::Surveyed`].
    Survey,
    /// Hand a message to a route that keeps nothing (`store = false`).
    Forward {
        /// Index of the route in the broker's configuration.
        route: usize,
        /// The message.
        message: Arc<Message>,
    },
    /// How full the memory is now: when it is tight, the slowest readers are sent no QoS 0.
    Memory(Level),
    /// Something an operator may want to read; level and fields are the engine's.
    Note(Note),
}

impl Effect {
    /// The connection that it is for.
    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match self {
            Effect::Speak { connection, .. }
            | Effect::Send { connection, .. }
            | Effect::Deliver(Copy { connection, .. })
            | Effect::Close { connection }
            | Effect::Pause { connection }
            | Effect::Resume { connection }
            | Effect::AwaitRoom { connection, .. }
            | Effect::Verify { connection, .. }
            | Effect::Authenticate { connection, .. } => Some(*connection),
            Effect::Write(_)
            | Effect::Hurry
            | Effect::Read { .. }
            | Effect::Survey
            | Effect::Forward { .. }
            | Effect::Memory(_)
            | Effect::Note(_) => None,
        }
    }
}

/// One copy of a message for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Where to.
    pub connection: ConnectionId,
    /// The message.
    pub message: Arc<Message>,
    /// 0 at QoS 0.
    pub packet_id: u16,
    /// QoS of the delivery.
    pub qos: QoS,
    /// DUP.
    pub dup: bool,
    /// RETAIN of the delivery.
    pub retain: bool,
    /// What is left of the message's expiry, in seconds.
    pub expiry: Option<u32>,
    /// Subscription identifiers.
    pub subscription_ids: Identifiers,
    /// Bytes at the start of the topic that the client does not see: its mount point.
    pub hidden: u16,
}

impl Copy {
    /// Its topic, as the client sees it.
    pub fn topic(&self) -> &str {
        self.message.topic.get(usize::from(self.hidden)..).unwrap_or_default()
    }

    /// The PUBLISH that it becomes, its topic written as the alias says.
    pub fn parts(&self, alias: Alias) -> PublishParts<'_> {
        PublishParts {
            topic: if matches!(alias, Alias::Stands(_)) { "" } else { self.topic() },
            alias: alias.number(),
            payload: &self.message.payload,
            properties: &self.message.properties,
            expiry: self.expiry,
            subscription_ids: &self.subscription_ids,
            packet_id: self.packet_id,
            qos: self.qos,
            dup: self.dup,
            retain: self.retain,
        }
    }
}

/// Who made a session or wants one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// User name.
    pub user: Option<ByteString>,
    /// Mount point of the listener.
    pub mount: Option<Arc<str>>,
}

impl fmt::Display for Party {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.user.as_deref().unwrap_or("nobody"))?;
        match &self.mount {
            Some(mount) => write!(out, " at {mount}"),
            None => Ok(()),
        }
    }
}

/// What the log says of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A client's session stands.
    Connected {
        /// Client id.
        client_id: ByteString,
        /// Address.
        peer: String,
    },
    /// A client was turned away.
    Refused {
        /// Client id.
        client_id: ByteString,
        /// Address.
        peer: String,
        /// Why.
        reason: Reason,
    },
    /// A client is turned away since the session of its client id is somebody else's.
    Foreign {
        /// Client id.
        client_id: ByteString,
        /// Address.
        peer: String,
        /// Who came.
        claimant: Party,
        /// Whose the session is.
        owner: Party,
    },
    /// A session without a connection has ended, since another needed its place.
    GaveWay {
        /// Client id.
        client_id: ByteString,
    },
    /// A client has answered a message with an error, and does not get it again.
    RefusedMessage {
        /// Client id.
        client_id: ByteString,
        /// Its reason code.
        reason: Reason,
        /// Its reason string, or the start of it; empty where it gives none.
        words: String,
    },
    /// The connection of a client has broken, without a DISCONNECT.
    Lost {
        /// Client id.
        client_id: ByteString,
        /// Address.
        peer: String,
    },
    /// A client is gone.
    Disconnected {
        /// Client id.
        client_id: ByteString,
        /// Address.
        peer: String,
        /// Why.
        reason: Reason,
    },
}
