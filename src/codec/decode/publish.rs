//! PUBLISH: the packet that everything else is there for, and so the one that is read fastest.
//!
//! Topic, properties and payload are slices of what was fed.

use crate::codec::reader::Reader;
use crate::codec::{Carrier, Malformed, Properties, Publish, QoS, Side, Version};

#[inline]
pub(super) fn read(
    flags: u8,
    reader: &mut Reader<'_>,
    side: Side,
    version: Version,
) -> Result<Publish, Malformed> {
    let dup = flags & 0b1000 != 0;
    // [MQTT5-3.3.1-4] [MQTT311-3.3.1-4]
    let qos = QoS::from_bits((flags >> 1) & 0b11).ok_or(Malformed::QoS3)?;
    // [MQTT5-3.3.1-2] [MQTT311-3.3.1-2]; 3.1 has no such rule.
    if dup && qos == QoS::AtMostOnce && version != Version::V31 {
        return Err(Malformed::DupAtQoS0);
    }
    let topic = reader.topic_name()?;
    // [MQTT5-2.2.1-2]: at QoS 0 there is no packet identifier.
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { reader.packet_id()? };
    let properties = match version {
        Version::V5 => reader.properties(carrier(side))?,
        Version::V31 | Version::V311 => Properties::new(),
    };
    // [MQTT5-4.7.3-1] [MQTT311-4.7.3-1]
    if topic.is_empty() && properties.topic_alias().is_none() {
        return Err(Malformed::TopicMissing);
    }
    let payload = reader.rest();
    Ok(Publish { dup, qos, retain: flags & 1 != 0, topic, packet_id, properties, payload })
}

fn carrier(side: Side) -> Carrier {
    match side {
        Side::Server => Carrier::ClientPublish,
        Side::Client => Carrier::ServerPublish,
    }
}
