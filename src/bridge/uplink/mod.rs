//! One connection's protocol engine, whichever version it speaks.
//!
//! [`Uplink`] takes requests and never waits; what happens comes back as [`Happening`]s, in order. The
//! engine below is rumqttc, used for a single connection and never trusted with a message: it is dropped
//! on any error, and nothing that it holds counts as sent.

mod mqtt4;
mod mqtt5;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::cutter::{Cut, Cutter};
use super::dialer::Stream;
use super::relay::{Relay, Verdict};
use super::shape::{Outbound, Retain};
use super::trouble::Trouble;
use crate::codec::{Properties, QoS, Reason, Version};

/// Requests to upstream on one connection.
pub(super) trait Uplink: Send {
    /// Sends a message; told by [`Happening::Sent`] or [`Happening::Held`], in the order of these calls.
    fn publish(&mut self, outbound: Outbound) -> Result<(), Overrun>;
    /// Subscribes to one filter; answered by [`Happening::Subscribed`] in the order of these calls.
    fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<(), Overrun>;
    /// Ends the subscription to one filter; answered by [`Happening::Unsubscribed`] in the order of these
    /// calls.
    fn unsubscribe(&mut self, filter: &str) -> Result<(), Overrun>;
    /// Acknowledges an arrival.
    fn acknowledge(&mut self, receipt: Receipt) -> Result<(), Overrun>;
    /// Leaves cleanly; told by [`Happening::Left`].
    fn disconnect(&mut self) -> Result<(), Overrun>;
}

/// More was asked of the engine than it was made for, or it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("hand over more than the window")]
pub(super) struct Overrun;

/// What happened on the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Happening {
    /// CONNACK with success; always first.
    Connected(Welcome),
    /// The engine has passed a PUBLISH on under this packet id; 0 for QoS 0.
    Sent(u16),
    /// The next PUBLISH waits until the acknowledgement of this packet id has come.
    Held(u16),
    /// PUBACK.
    Acknowledged(u16, Reason),
    /// SUBACK for the oldest SUBSCRIBE without one.
    Subscribed(Result<QoS, Reason>),
    /// UNSUBACK for the oldest UNSUBSCRIBE without one.
    Unsubscribed(Result<(), Reason>),
    /// A message from upstream.
    Arrived(Arrival),
    /// Another sign of life.
    Heard,
    /// DISCONNECT was written.
    Left,
    /// The connection is over; nothing follows.
    Lost(Trouble),
}

/// What upstream says of itself in CONNACK; the defaults where it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Welcome {
    /// Whether it has kept the session.
    pub(super) session_present: bool,
    /// Messages that it takes without having acknowledged them.
    pub(super) receive_maximum: u16,
    /// Bytes of the largest packet.
    pub(super) maximum_packet_size: Option<u32>,
    /// Highest QoS.
    pub(super) maximum_qos: QoS,
    /// Whether it retains messages.
    pub(super) retain: Retain,
    /// The time between pings that it asks for.
    pub(super) keepalive: Option<Duration>,
}

/// A message from upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Topic upstream.
    pub(super) topic: String,
    /// Payload.
    pub(super) payload: Bytes,
    /// RETAIN.
    pub(super) retain: bool,
    /// Those that a server hands on, and what is left of its expiry; none over 3.1.1.
    pub(super) properties: Properties,
    /// What an acknowledgement must name.
    pub(super) receipt: Receipt,
}

/// Names an arrival on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receipt {
    /// Packet id; 0 at QoS 0, and then nothing is sent.
    pub(super) packet_id: u16,
    /// QoS of the delivery.
    pub(super) qos: QoS,
}

/// What CONNECT says, and what bounds the engine.
#[derive(Debug, Clone)]
pub(super) struct Greeting {
    /// 3.1.1 or 5.
    pub(super) version: Version,
    /// Client id.
    pub(super) client_id: String,
    /// Seconds that upstream shall keep the session; `None`: a clean start, and nothing is kept.
    pub(super) keep_session: Option<u32>,
    /// At least 5 s.
    pub(super) keepalive: Duration,
    /// User name and password.
    pub(super) login: Option<(String, String)>,
    /// Topic of the will, which says offline.
    pub(super) status_topic: Option<String>,
    /// Messages that will be under way at most.
    pub(super) window: u16,
    /// Bytes of the largest packet that we take.
    pub(super) packet_size: u32,
    /// How long upstream may take to answer CONNECT.
    pub(super) within: Duration,
}

/// A connection under way.
pub(super) struct Connection {
    /// Requests.
    pub(super) uplink: Box<dyn Uplink>,
    /// Answers. Bounded: while nobody takes them, nothing more is read from upstream.
    pub(super) happenings: mpsc::Receiver<Happening>,
    /// How many QoS 0 messages have been written to upstream's socket.
    pub(super) written: watch::Receiver<u64>,
    /// Which arrivals were too large, and so came without their payload.
    pub(super) cuts: Cuts,
    /// Keeps it running.
    pub(super) guard: Guard,
}

/// Tells arrivals that were cut from all others.
pub(super) struct Cuts {
    receiver: mpsc::Receiver<Cut>,
    next: Option<Cut>,
    arrived: u64,
}

/// What runs below a connection. Dropped, it ends at once.
pub(super) struct Guard {
    driver: JoinHandle<()>,
    relay: Relay,
}

impl Connection {
    /// Starts the protocol on a connected stream.
    pub(super) fn open(greeting: &Greeting, stream: Box<dyn Stream>) -> io::Result<Connection> {
        let limit = usize::try_from(greeting.packet_size).unwrap_or(usize::MAX);
        let (tell, cuts) = mpsc::channel(CUTS_MAX);
        let relay = Relay::start(stream, Cutter::new(limit, greeting.version), tell)?;
        let (sender, happenings) = mpsc::channel(HAPPENINGS_MAX);
        let (uplink, driver) = match greeting.version {
            Version::V5 => mqtt5::start(greeting, relay.path(), sender),
            Version::V31 | Version::V311 => mqtt4::start(greeting, relay.path(), sender),
        };
        let written = relay.written();
        let guard = Guard { driver, relay };
        Ok(Connection { uplink, happenings, written, cuts: Cuts::new(cuts), guard })
    }

    /// Where the reason stands if the stream below has failed.
    pub(super) fn verdict(&self) -> Verdict {
        self.guard.relay.verdict()
    }
}

impl Cuts {
    /// What the relay tells.
    pub(super) fn new(receiver: mpsc::Receiver<Cut>) -> Cuts {
        Cuts { receiver, next: None, arrived: 0 }
    }

    /// A message has arrived: what it was, if it was cut. To be asked once for each arrival, in order.
    pub(super) fn of_arrival(&mut self) -> Option<Cut> {
        self.arrived += 1;
        // It is told before the message itself is passed on.
        if self.next.is_none() {
            self.next = self.receiver.try_recv().ok();
        }
        let arrived = self.arrived;
        self.next.take_if(|cut| cut.message == arrived)
    }
}

impl Guard {
    /// Waits until all that was written has gone to upstream and the stream is closed.
    pub(super) async fn finish(mut self) {
        // The engine's end closes first: then the relay sees that nothing more comes.
        self.driver.abort();
        self.relay.finished().await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Requests that the engine's queue must hold: the window, acknowledgements of all that may have arrived,
/// subscriptions, the status and the farewell.
fn request_capacity(greeting: &Greeting) -> usize {
    usize::from(greeting.window) + usize::from(RECEIVE_MAXIMUM) + REQUESTS_BESIDE
}

/// Packet ids of the engine. Twice the window and one, so that acknowledgements out of order seldom find
/// the next id taken, and the engine's own limit is never what holds an acknowledgement back.
fn engine_inflight(window: u16) -> u16 {
    window.saturating_mul(2).saturating_add(1)
}

/// Messages from upstream that may wait for our acknowledgement; MQTT 5 is told so, and a 3.1.1 upstream
/// is held back by not reading.
pub(super) const RECEIVE_MAXIMUM: u16 = 20;
/// The largest SUBSCRIBE burst and what else may be asked for.
const REQUESTS_BESIDE: usize = 1_024;
/// Messages that were cut and wait for the bridge; beyond, nothing more is read from upstream.
const CUTS_MAX: usize = 64;
/// Happenings that wait for the bridge.
const HAPPENINGS_MAX: usize = 32;
/// What the status topic says while the bridge is connected.
pub(super) const ONLINE: &str = "online";
/// What it says else.
pub(super) const OFFLINE: &str = "offline";
/// Said of a connection that upstream closes without a word.
const CLOSED: &str = "upstream closed the connection";
/// Said where CONNECT is not answered.
const NO_CONNACK: &str = "upstream did not answer CONNECT";
