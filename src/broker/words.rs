//! What the broker says to one client: whole, in its words, and within what it takes.
//!
//! A failure is told with the standard's words for it (MQTT 5), unless the client wants none or the
//! packet would be larger than it takes: then the words are left out first. [MQTT5-3.1.2-24]

use super::connection::{Connection, Problems};
use super::{Broker, Effect};
use crate::codec::{Packet, Properties, Property, Reason, Version, encode};

/// Whether a packet left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It did.
    Yes,
    /// The client takes no packet that large, even without words.
    TooLarge,
}

impl Broker {
    /// Sends a packet that is not a PUBLISH.
    pub(super) fn say(connection: &Connection, mut packet: Packet, effects: &mut Vec<Effect>) -> Said {
        if let Some((reason, properties)) = unexplained(&mut packet, connection) {
            *properties = Properties::from_list(&[Property::ReasonString(reason.text().into())]);
            if !fits(&packet, connection)
                && let Some((_, properties)) = unexplained(&mut packet, connection)
            {
                // [MQTT5-3.2.2-19] [MQTT5-3.4.2-2] [MQTT5-3.5.2-2] [MQTT5-3.9.2-1] [MQTT5-3.14.2-3]
                *properties = Properties::new();
            }
        }
        if !fits(&packet, connection) {
            return Said::TooLarge;
        }
        effects.push(Effect::Send { connection: connection.id, packet });
        Said::Yes
    }
}

/// The failure that a packet tells and where its words go; `None` where there is none to explain.
fn unexplained<'a>(packet: &'a mut Packet, connection: &Connection) -> Option<(Reason, &'a mut Properties)> {
    if connection.version != Version::V5 {
        return None;
    }
    let (reason, properties) = match packet {
        Packet::ConnAck(ack) => (ack.reason, &mut ack.properties),
        Packet::Disconnect(disconnect) => (disconnect.reason, &mut disconnect.properties),
        // [MQTT5-3.1.2-29]
        _ if connection.problems == Problems::Unwanted => return None,
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) => (ack.reason, &mut ack.properties),
        Packet::SubAck(ack) => (first_error(&ack.reasons)?, &mut ack.properties),
        Packet::UnsubAck(ack) => (first_error(&ack.reasons)?, &mut ack.properties),
        _ => return None,
    };
    reason.is_error().then_some((reason, properties))
}

fn first_error(reasons: &[Reason]) -> Option<Reason> {
    reasons.iter().copied().find(|reason| reason.is_error())
}

/// Whether the client takes a packet as large as this one, with the words that are in it.
pub(super) fn fits(packet: &Packet, connection: &Connection) -> bool {
    let Some(most) = connection.maximum_packet_size else { return true };
    let mut bytes = Vec::new();
    // What cannot be written is the engine's to report.
    encode(packet, connection.version, &mut bytes).is_err() || bytes.len() as u64 <= u64::from(most)
}
