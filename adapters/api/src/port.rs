//! One in-process client of the broker.
//!
//! A [`Port`] is what a TCP connection is to a network client, with packets in place of bytes: the same
//! sessions, QoS, wills, access rules and acknowledgement after commit. Both ways are bounded: what goes
//! in waits for room, and the broker sends out at most as many messages as the port has granted.

use bytes::Bytes;
use tokio::sync::mpsc;

/// The two ends that an adapter holds of its in-process client.
///
/// Dropping the port is a lost connection: the will is published.
#[derive(Debug)]
pub struct Port {
    /// Towards the broker; waits while its inbox is full.
    pub sender: mpsc::Sender<FromPort>,
    /// From the broker.
    pub receiver: mpsc::Receiver<ToPort>,
}

/// The port is closed: the broker is gone or has ended the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker has closed this client")]
pub struct PortClosed;

impl Port {
    /// Sends one request to the broker, waiting for room.
    pub async fn send(&self, request: FromPort) -> Result<(), PortClosed> {
        self.sender.send(request).await.map_err(|_| PortClosed)
    }

    /// The next word of the broker; `None` once it has closed this client.
    pub async fn next(&mut self) -> Option<ToPort> {
        self.receiver.recv().await
    }
}

/// Who an in-process client says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Client id, as in CONNECT.
    pub client_id: String,
    /// The name that access rules see, `bridge:cloud` or `modbus:line-1`.
    pub user: Option<String>,
    /// Whether a kept session of this id is thrown away first.
    pub clean_start: bool,
    /// Seconds that the session outlives the port; 0 ends it with the port, `u32::MAX` never ends it.
    pub session_expiry: u32,
    /// Published when the port is lost without [`FromPort::Close`].
    pub will: Option<Will>,
    /// Messages that the broker may have under way to this port, acknowledged or not, before the port
    /// grants more by [`FromPort::Grant`].
    pub credit: u32,
    /// Whether somebody with a radio waits for acknowledgements (MQTT-SN clients), so that a commit may
    /// be hastened for them. A reading that no device waits for never hastens one.
    pub waits: bool,
}

/// A message that the broker publishes for a port that was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// QoS.
    pub qos: Qos,
    /// Whether it is retained.
    pub retain: bool,
}

/// Quality of service of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
    /// QoS 2.
    ExactlyOnce,
}

/// From an adapter to the broker. `id`s are the adapter's own and come back in the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromPort {
    /// Publishes a message; answered by [`ToPort::Published`] for every QoS above 0, after the commit
    /// where a durable destination wants it. QoS 2 here means: exactly once into the broker, the port
    /// itself never repeats.
    Publish {
        /// Comes back in the answer.
        id: u64,
        /// Topic name.
        topic: String,
        /// Payload.
        payload: Bytes,
        /// QoS.
        qos: Qos,
        /// Whether the broker retains it.
        retain: bool,
        /// MQTT 5 properties as they stand in a PUBLISH to a server, without their length; none where empty.
        /// A block that is not valid there is left out.
        properties: Bytes,
    },
    /// Subscribes to one filter; answered by [`ToPort::Subscribed`].
    Subscribe {
        /// Comes back in the answer.
        id: u64,
        /// Topic filter.
        filter: String,
        /// Highest QoS wished.
        qos: Qos,
    },
    /// Takes one subscription back; answered by [`ToPort::Unsubscribed`].
    Unsubscribe {
        /// Comes back in the answer.
        id: u64,
        /// Topic filter, as subscribed.
        filter: String,
    },
    /// Acknowledges a [`ToPort::Message`] of QoS 1 or 2.
    Acknowledge {
        /// The delivery's `id`.
        id: u16,
    },
    /// Lets the broker send so many messages more.
    Grant(u32),
    /// Asks to be told when nothing waits for this port any more, at the broker or unacknowledged;
    /// answered by [`ToPort::Drained`], so by nothing while messages wait for credit.
    Drain,
    /// Leaves cleanly: no will, and the session is kept for its expiry.
    Close,
}

/// From the broker to an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToPort {
    /// The session stands; always first, or [`ToPort::Closed`] is.
    Connected {
        /// Whether a session was kept.
        session_present: bool,
    },
    /// Answers a publish of QoS 1 or 2.
    Published(Acknowledgement),
    /// Answers a subscribe with the granted QoS.
    Subscribed {
        /// The request's.
        id: u64,
        /// The granted QoS, or why not.
        result: Result<Qos, Refusal>,
    },
    /// Answers an unsubscribe.
    Unsubscribed {
        /// The request's.
        id: u64,
    },
    /// A message for this client.
    Message(Delivery),
    /// Answers a [`FromPort::Drain`].
    Drained,
    /// The broker has ended this client; nothing follows.
    Closed(Refusal),
}

/// The answer to one publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The publish's `id`.
    pub id: u64,
    /// Whether the broker took it; where it did not, it is not kept anywhere.
    pub result: Result<(), Refusal>,
}

/// A message on its way to a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// To be named in [`FromPort::Acknowledge`]; 0 for QoS 0.
    pub id: u16,
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// QoS of this delivery.
    pub qos: Qos,
    /// Whether it comes from the retained store because of a new subscription.
    pub retain: bool,
    /// Whether it may have been sent before.
    pub dup: bool,
}

/// Why the broker said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An access rule forbids it (0x87).
    #[error("not authorized")]
    NotAuthorized,
    /// A limit is reached, try later (0x97).
    #[error("a limit is reached")]
    QuotaExceeded,
    /// The topic or filter is not valid (0x90, 0x8F).
    #[error("the topic is not valid")]
    TopicInvalid,
    /// Another client took the id over (0x8E).
    #[error("another client took the session over")]
    TakenOver,
    /// The service is stopping (0x8B).
    #[error("the service is stopping")]
    ShuttingDown,
    /// Anything else: the MQTT 5 reason code.
    #[error("reason code {0:#04x}")]
    Other(u8),
}
