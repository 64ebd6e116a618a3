//! Every MQTT-SN client as one state machine.
//!
//! Takes an [`Event`] and the time since the start, and says in [`Effect`]s what the world should now do.
//! Owns no socket, no port and no clock, so a test can replay any order of datagrams, broker's words and
//! time. A peer is an address today; whoever stands behind a forwarder will be one too.
//!
//! Invariant: a publish of QoS 1 or 2 is acknowledged only after the broker's word that it holds it.

mod clients;
mod client;
mod inward;
mod outward;
mod topics;
mod strangers;
mod pace;
mod counters;

use core::net::SocketAddr;
use std::time::Duration;

use adapter_api::{FromPort, Hello, ToPort};
use bytes::Bytes;

use self::clients::Clients;
pub(crate) use self::counters::Counters;
pub(crate) use self::inward::REQUESTS_MAX;
pub(crate) use self::outward::HELD_MAX;
use crate::Checked;
use crate::codec::{Message, TooLong, encode};

/// The gateway: what it may do, what it has counted, and whom it knows.
pub(crate) struct Gateway {
    settings: Checked,
    counters: Counters,
    clients: Clients,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A datagram came.
    Datagram {
        /// From whom.
        from: Peer,
        /// All of it.
        octets: Bytes,
    },
    /// The broker said something to a port.
    Word {
        /// Which port.
        port: PortNumber,
        /// What.
        word: ToPort,
    },
    /// A port has ended, after [`FromPort::Close`] or by itself; nothing more comes from it.
    Gone {
        /// Which port.
        port: PortNumber,
    },
    /// Time has passed: see [`Gateway::deadline`].
    Tick,
    /// The service stops: every client is told, no will is published.
    Stop,
}

/// Something to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Send a datagram.
    Send {
        /// To whom.
        to: Peer,
        /// All of it.
        octets: Bytes,
    },
    /// Open an in-process client.
    Open {
        /// Its number, never used twice.
        port: PortNumber,
        /// Who it is.
        hello: Hello,
    },
    /// Ask the broker something through a port.
    Ask {
        /// Which port.
        port: PortNumber,
        /// What.
        request: FromPort,
    },
    /// Drop a port; if the broker has not ended it, it publishes the will.
    Drop {
        /// Which port.
        port: PortNumber,
    },
    /// Something an operator may want to read.
    Note(Note),
}

/// What the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// A client was lost.
    Lost {
        /// Client id.
        client_id: String,
        /// Why.
        why: Lost,
    },
    /// A message is longer than the network carries; said once for each connection of a client.
    TooLong {
        /// Client id.
        client_id: String,
        /// Topic name.
        topic: String,
        /// How long it is.
        octets: usize,
    },
}

/// Why a client counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nothing came for longer than its keep alive.
    Silent,
    /// It did not answer, however often it was asked.
    Unanswered,
    /// Another client speaks from its address.
    Displaced,
    /// The runner could not hand its requests to the broker.
    Choked,
}

/// Whoever sends datagrams.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Peer {
    /// Where datagrams for it go. A forwarder's node id joins it once forwarders are served.
    pub(crate) address: SocketAddr,
}

/// An in-process client of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortNumber(pub(crate) u64);

impl Gateway {
    pub(crate) fn new(settings: Checked) -> Gateway {
        Gateway { settings, counters: Counters::default(), clients: Clients::default() }
    }

    /// Takes one event at `now`, counted from the start; never panics, whatever a peer or the broker says.
    pub(crate) fn handle(&mut self, event: Event, now: Duration, effects: &mut Vec<Effect>) {
        let Gateway { settings, counters, clients } = self;
        let mut turn = Turn { now, settings, counters, effects };
        match event {
            Event::Datagram { from, octets } => clients.datagram(from, &octets, &mut turn),
            Event::Word { port, word } => clients.word(port, word, &mut turn),
            Event::Gone { port } => clients.gone(port, &mut turn),
            Event::Tick => clients.tick(&mut turn),
            Event::Stop => clients.stop(&mut turn),
        }
    }

    /// The runner could not hand a port's request on without waiting: a QoS 0 publish is only counted,
    /// for anything else the client is lost.
    pub(crate) fn choked(
        &mut self,
        port: PortNumber,
        request: &FromPort,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        self.counters.busy += 1;
        if !matches!(request, FromPort::Publish { qos: adapter_api::Qos::AtMostOnce, .. }) {
            let Gateway { settings, counters, clients } = self;
            clients.choked(port, &mut Turn { now, settings, counters, effects });
        }
    }

    /// A datagram could not be sent; what matters is sent again by its timer.
    pub(crate) fn unsent(&mut self) {
        self.counters.send_failed += 1;
    }

    /// When [`Event::Tick`] is next needed; may be early, never late.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.clients.deadline()
    }

    /// What was counted since the start, and who is there now.
    pub(crate) fn counters(&self) -> Counters {
        let (clients, sleeping, sessions) = self.clients.census();
        Counters { clients, sleeping, sessions, ..self.counters.clone() }
    }

    /// Whether the tables agree with each other; for tests and fuzzing.
    pub(crate) fn is_consistent(&self) -> bool {
        self.clients.is_consistent(&self.settings)
    }
}

/// What the handling of one event may see and say.
struct Turn<'a> {
    now: Duration,
    settings: &'a Checked,
    counters: &'a mut Counters,
    effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    /// Sends a message that may be longer than the network carries.
    fn send(&mut self, to: &Peer, message: &Message) -> Result<(), TooLong> {
        let octets = encode(message, self.settings.max_packet)?;
        self.counters.sent += 1;
        self.effects.push(Effect::Send { to: to.clone(), octets });
        Ok(())
    }

    /// Sends one of the messages of fixed length, all shorter than the shortest `max_packet`.
    fn answer(&mut self, to: &Peer, message: &Message) {
        let sent = self.send(to, message);
        debug_assert!(sent.is_ok(), "{message:?} has no variable part");
    }

    fn ask(&mut self, port: PortNumber, request: FromPort) {
        self.effects.push(Effect::Ask { port, request });
    }
}

/// Whether a text can name a topic: not empty, no wildcard, no NUL. // [SN-6.5] [MQTT-3.3.2-2]
pub(crate) fn is_topic_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['+', '#', '\0']) && text.len() <= usize::from(u16::MAX)
}

#[cfg(test)]
mod scripts;
#[cfg(test)]
mod requirements;
