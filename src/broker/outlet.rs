//! The way out to one connected client: what it can take, and copies for it.
//!
//! Exists from CONNACK to the end of the connection. It bounds what is under way by the client's Receive
//! Maximum or the port's credit, and knows what is too large for the client.

use std::sync::Arc;

use super::{ConnectionId, Copy, Counters, Effect};
use crate::codec::QoS;
use crate::record::{Identifiers, Message, Now};
use crate::session::Flight;

#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) connection: ConnectionId,
    /// Exchanges that may be under way.
    pub(super) window: u16,
    /// Messages that a port may still be sent; `None` for a network client.
    pub(super) credit: Option<u32>,
    /// A port's PINGREQs, answered once nothing waits for it.
    pub(super) pings: u32,
    /// The client's Maximum Packet Size; the highest number where it has named none.
    pub(super) maximum_packet_size: u32,
    /// Stands before the client's topics, unseen by it.
    pub(super) mount: Option<Arc<str>>,
    /// What it may be sent of retained messages of QoS 0.
    pub(super) ahead: Ahead,
}

/// Bytes that may be sent before it is asked what of them has left, or how that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ahead(u32);

impl Ahead {
    /// It is asked, and nothing is sent meanwhile.
    pub(super) const ASKED: Ahead = Ahead(u32::MAX);
    /// There is room for the one that it was asked for, whatever that weighs.
    pub(super) const GRANTED: Ahead = Ahead(u32::MAX - 1);

    /// So many bytes.
    pub(super) fn of(bytes: usize) -> Ahead {
        Ahead(u32::try_from(bytes).unwrap_or(u32::MAX).min(u32::MAX - 2))
    }

    /// Takes what a message weighs, of `full` where there is room anew; false where it is to be asked first.
    pub(super) fn take(&mut self, weight: usize, full: Ahead) -> bool {
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        let left = match *self {
            Ahead::GRANTED => Some(full.0.saturating_sub(weight)),
            Ahead(left) => left.checked_sub(weight),
        };
        *self = left.map_or(Ahead::ASKED, Ahead);
        left.is_some()
    }
}

/// How one copy leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    /// 0 at QoS 0.
    pub(super) packet_id: u16,
    pub(super) qos: QoS,
    pub(super) dup: bool,
    pub(super) retain: bool,
    pub(super) subscription_ids: Identifiers,
}

impl Outlet {
    /// Whether an exchange may begin.
    pub(super) fn has_room(&self, flight: &Flight) -> bool {
        flight.under_way() < self.window && self.credit != Some(0) && flight.len() < usize::from(u16::MAX)
    }

    /// Exchanges that may begin at once.
    pub(super) fn room(&self, flight: &Flight) -> u32 {
        let window = u32::from(self.window.saturating_sub(flight.under_way()));
        self.credit.map_or(window, |credit| credit.min(window))
    }

    /// Whether the client takes a packet of this size. [MQTT5-3.1.2-24]
    pub(super) fn takes(&self, message: &Message, qos: QoS, subscription_ids: &[u32]) -> bool {
        let maximum = self.maximum_packet_size;
        maximum == u32::MAX || {
            let unseen = u64::from(self.hidden(&message.topic));
            packet_size(message, qos, subscription_ids) - unseen <= u64::from(maximum)
        }
    }

    /// Bytes of the topic that the client does not see.
    fn hidden(&self, topic: &str) -> u16 {
        let mount = self.mount.as_deref().filter(|mount| topic.starts_with(*mount));
        mount.and_then(|mount| u16::try_from(mount.len()).ok()).unwrap_or(0)
    }

    /// Sends one copy.
    pub(super) fn deliver(
        &mut self,
        message: Arc<Message>,
        label: Label,
        now: &Now,
        counters: &mut Counters,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(credit) = &mut self.credit {
            *credit = credit.saturating_sub(1);
        }
        counters.sent += 1;
        counters.sent_bytes += message.payload.len() as u64;
        let expiry = message.expiry.and_then(|_| message.remaining(now)); // [MQTT5-3.3.2-6]
        let message = match message.mended(&now.span.mend) {
            Some(payload) => Arc::new(Message { payload, ..Message::clone(&message) }),
            None => message,
        };
        let Label { packet_id, qos, dup, retain, subscription_ids } = label;
        let hidden = self.hidden(&message.topic);
        effects.push(Effect::Deliver(Copy {
            connection: self.connection,
            message,
            packet_id,
            qos,
            dup,
            retain,
            expiry,
            subscription_ids,
            hidden,
        }));
    }
}

/// Bytes of the PUBLISH of MQTT 5, at most, with the topic as the house knows it.
fn packet_size(message: &Message, qos: QoS, subscription_ids: &[u32]) -> u64 {
    let expiry = if message.expiry.is_some() { EXPIRY_PROPERTY } else { 0 };
    let mended = if message.unclocked { MENDED_TIME } else { 0 };
    let identifiers: u64 = subscription_ids.iter().map(|id| 1 + variable_length(u64::from(*id))).sum();
    let properties = length(message.properties.as_bytes()) + expiry + identifiers;
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { 2 };
    let remaining = 2
        + length(message.topic.as_bytes())
        + packet_id
        + variable_length(properties)
        + properties
        + length(&message.payload)
        + mended;
    1 + variable_length(remaining) + remaining
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Bytes of a variable byte integer.
fn variable_length(value: u64) -> u64 {
    match value {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

/// Bytes by which a reading may grow when its time is mended.
const MENDED_TIME: u64 = 16;

/// Bytes of a Message Expiry Interval.
const EXPIRY_PROPERTY: u64 = 5;
