//! The poll loop that owns every socket, every codec and the broker.
//!
//! One thread. Each turn takes what has come, from sockets and from other threads, as one batch to the broker, carries
//! out what the broker says, and sends what is to leave, one write for a connection. It waits for nobody: what others are
//! slow at has a bounded queue or a limit with a policy. Connections could be spread over cores by an engine for each,
//! before the one broker. To hand messages over and have an answer takes 2 µs, 0.2 each for ten, 0.035 each for a hundred
//! (x86-64), while a message takes 0.05 at QoS 0 and 0.3 at QoS 1: it pays where one core is full, and costs all others.
//!
//! Invariant: no rule of MQTT lives here; a packet goes to the broker as it was decoded, or goes the way that it knows.

mod inbox;
mod turn;
mod carry;
mod straight;
mod flush;
mod table;
mod told;
mod work;
mod intake;
mod socket;
mod due;
mod outbox;
mod template;
mod port;
mod queue;
mod verify;
mod scram;
mod notes;
mod counters;
mod status;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use adapter_api::units::Rate;

pub use counters::Counters;
pub use inbox::{EngineGone, Inbox, Input, Inputs};
pub use turn::Engine;
pub use verify::{AuthFiles, Effort};

use crate::broker::Broker;
use crate::clock::Clock;
use crate::listener::{HandshakeLimits, Listener};
use crate::store::Handle;
use crate::unstored::Inlet;

/// What an engine is made of.
pub struct Parts {
    /// Where other threads put their inputs.
    pub inbox: Inbox,
    /// The same clock that the broker was started by.
    pub clock: Clock,
    /// The broker.
    pub broker: Broker,
    /// The store's queue.
    pub store: Handle,
    /// Where clients come in.
    pub listeners: Vec<Listener>,
    /// Bounds of connections.
    pub limits: Limits,
    /// Who may come in and what he may do, as it stands on disk.
    pub auth: AuthFiles,
    /// The queues of routes that keep nothing, by the route's index in the broker's configuration; `None`
    /// for the others.
    pub unstored: Vec<Option<Inlet>>,
    /// How the watchdog sees that the loop turns.
    pub heartbeat: Heartbeat,
}

/// The bounds of connections, part of `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Network clients at once; a further one is turned away.
    pub max_connections: usize,
    /// Network clients at once from one address; a further one is refused.
    pub max_connections_per_address: u32,
    /// How fast they may come from one address; faster ones are refused.
    pub max_connect_rate: Option<Rate>,
    /// How often wrong passwords may come from one address.
    pub max_login_failures: Option<Rate>,
    /// Bytes of the largest packet taken; the sender of a larger one is disconnected.
    pub max_packet_size: usize,
    /// Bytes that may wait for one connection. Beyond it QoS 0 is dropped and counted, and the client is
    /// not read on. What is owed at QoS 1 and 2 is bounded by the broker's window.
    pub max_send_buffer: usize,
    /// Bytes that may wait for all of them; near it the slowest are sent no QoS 0.
    pub max_memory: usize,
    /// Of TLS handshakes.
    pub handshakes: HandshakeLimits,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 10_000,
            max_connections_per_address: 10_000,
            max_connect_rate: None,
            max_login_failures: None,
            max_packet_size: 256_000,
            max_send_buffer: 1_000_000,
            max_memory: 64_000_000,
            handshakes: HandshakeLimits::default(),
        }
    }
}

/// A number that grows with every turn of the loop.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat {
    /// The number.
    pub turns: Arc<AtomicU64>,
    /// The loop turns at least this often; `None` lets it sleep while nothing happens.
    pub every: Option<Duration>,
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod stepped;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod lanes;
#[cfg(test)]
mod secure;
#[cfg(test)]
mod readers;
#[cfg(test)]
mod passing;
#[cfg(test)]
mod keeping;
#[cfg(test)]
mod framed;
