//! A message of ours as the PUBLISH that upstream gets, or why it gets none. Pure.
//!
//! What upstream has said of its limits is obeyed before a message is handed over, since a peer that is
//! sent more than it takes hangs up, and would do so again with every new connection.

use bytes::Bytes;

use super::config::Forward;
use crate::codec::{Properties, QoS, Version};
use crate::record::Message;

/// A PUBLISH upward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outbound {
    /// Topic upstream.
    pub(super) topic: String,
    /// Payload.
    pub(super) payload: Bytes,
    /// QoS 0 or 1.
    pub(super) qos: QoS,
    /// RETAIN.
    pub(super) retain: bool,
    /// What is left of its expiry, in seconds (MQTT 5).
    pub(super) expiry: Option<u32>,
    /// Properties that travel (MQTT 5).
    pub(super) properties: Properties,
}

/// What upstream said of itself in CONNACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Which packets it gets.
    pub(super) version: Version,
    /// Bytes of the largest PUBLISH.
    pub(super) packet_size: u32,
    /// Highest QoS that it takes.
    pub(super) qos: QoS,
    /// Whether it takes RETAIN.
    pub(super) retain: Retain,
}

/// Whether upstream retains messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retain {
    /// It does.
    Available,
    /// It would hang up.
    Unavailable,
}

/// Why a message is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsendable {
    /// Its expiry has passed.
    Expired,
    /// Over upstream's Maximum Packet Size.
    TooLarge,
    /// The route makes no topic of its topic.
    NoTopic,
}

impl Limits {
    /// Before upstream has said anything.
    pub(super) fn of(version: Version) -> Limits {
        Limits { version, packet_size: PACKET_MAX, qos: QoS::ExactlyOnce, retain: Retain::Available }
    }
}

/// The PUBLISH of a message on a route, at this wall clock (milliseconds).
pub(super) fn shape(
    message: &Message,
    route: &Forward,
    limits: &Limits,
    wall: u64,
) -> Result<Outbound, Unsendable> {
    let expiry = message.remaining(wall);
    if expiry == Some(0) {
        return Err(Unsendable::Expired);
    }
    let topic = route
        .filter
        .captures(&message.topic)
        .and_then(|captures| route.to.render(&message.topic, &captures))
        .ok_or(Unsendable::NoTopic)?;
    let (expiry, properties) = match limits.version {
        Version::V5 => (expiry, message.properties.clone()),
        Version::V31 | Version::V311 => (None, Properties::new()),
    };
    let outbound = Outbound {
        topic,
        payload: message.payload.clone(),
        // [MQTT5-3.2.2-11] not above Maximum QoS.
        qos: route.qos.min(limits.qos),
        // [MQTT5-3.2.2-14] no RETAIN where it is not available.
        retain: message.retain && limits.retain == Retain::Available,
        expiry,
        properties,
    };
    // [MQTT5-3.2.2-15] not above Maximum Packet Size.
    if outbound.size(limits.version) > u64::from(limits.packet_size) {
        return Err(Unsendable::TooLarge);
    }
    Ok(outbound)
}

impl Outbound {
    /// Bytes on the wire, all headers counted.
    pub(super) fn size(&self, version: Version) -> u64 {
        let packet_id = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        let properties = match version {
            Version::V5 => {
                let expiry = if self.expiry.is_some() { 5 } else { 0 };
                let block = self.properties.as_bytes().len() + expiry;
                block + length_bytes(block)
            }
            Version::V31 | Version::V311 => 0,
        };
        let remaining = 2 + self.topic.len() + packet_id + properties + self.payload.len();
        u64::try_from(1 + length_bytes(remaining) + remaining).unwrap_or(u64::MAX)
    }
}

/// Bytes of a variable byte integer.
fn length_bytes(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

/// The largest packet that MQTT can frame.
pub(super) const PACKET_MAX: u32 = 268_435_460;
