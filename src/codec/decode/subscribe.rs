//! SUBSCRIBE and UNSUBSCRIBE.
//!
//! A filter is checked as a text here; where its wildcards may stand is the router's to know.

use bytestring::ByteString;

use crate::codec::reader::Reader;
use crate::codec::{
    Carrier, Malformed, Properties, QoS, RetainHandling, Subscribe, Subscription, SubscriptionOptions,
    Unsubscribe, Version,
};

pub(super) fn read(reader: &mut Reader<'_>, version: Version) -> Result<Subscribe, Malformed> {
    let packet_id = reader.packet_id()?;
    let properties = match version {
        Version::V5 => reader.properties(Carrier::Subscribe)?,
        Version::V31 | Version::V311 => Properties::new(),
    };
    let mut filters = Vec::new();
    while reader.remaining() > 0 {
        let filter = read_filter(reader)?;
        let options = match version {
            Version::V5 => read_options(reader.byte()?, &filter)?,
            Version::V31 | Version::V311 => read_qos(reader.byte()?)?,
        };
        filters.push(Subscription { filter, options });
    }
    // [MQTT5-3.8.3-2] [MQTT311-3.8.3-3]
    if filters.is_empty() {
        return Err(Malformed::NoFilter);
    }
    Ok(Subscribe { packet_id, properties, filters })
}

pub(super) fn read_unsubscribe(reader: &mut Reader<'_>, version: Version) -> Result<Unsubscribe, Malformed> {
    let packet_id = reader.packet_id()?;
    let properties = match version {
        Version::V5 => reader.properties(Carrier::Unsubscribe)?,
        Version::V31 | Version::V311 => Properties::new(),
    };
    let mut filters = Vec::new();
    while reader.remaining() > 0 {
        filters.push(read_filter(reader)?);
    }
    // [MQTT5-3.10.3-2] [MQTT311-3.10.3-2]
    if filters.is_empty() {
        return Err(Malformed::NoFilter);
    }
    Ok(Unsubscribe { packet_id, properties, filters })
}

fn read_filter(reader: &mut Reader<'_>) -> Result<ByteString, Malformed> {
    let filter = reader.text()?;
    // [MQTT5-4.7.3-1] [MQTT311-4.7.3-1]
    if filter.is_empty() { Err(Malformed::FilterEmpty) } else { Ok(filter) }
}

/// [MQTT311-3.8.3-4]
fn read_qos(bits: u8) -> Result<SubscriptionOptions, Malformed> {
    match QoS::from_bits(bits) {
        Some(qos) => Ok(SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }),
        None if bits == 3 => Err(Malformed::OptionsQoS),
        None => Err(Malformed::OptionsReserved),
    }
}

fn read_options(bits: u8, filter: &str) -> Result<SubscriptionOptions, Malformed> {
    // [MQTT5-3.8.3-5]
    if bits & 0xC0 != 0 {
        return Err(Malformed::OptionsReserved);
    }
    let qos = QoS::from_bits(bits & 0b11).ok_or(Malformed::OptionsQoS)?;
    let retain_handling = match bits >> 4 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(Malformed::OptionsRetainHandling),
    };
    let no_local = bits & 0x04 != 0;
    // [MQTT5-3.8.3-4]
    if no_local && filter.starts_with("$share/") {
        return Err(Malformed::NoLocalShared);
    }
    Ok(SubscriptionOptions { qos, no_local, retain_as_published: bits & 0x08 != 0, retain_handling })
}
