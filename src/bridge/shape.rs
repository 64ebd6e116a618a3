//! A message of ours as the PUBLISH that upstream gets, or why it gets none. Pure.
//!
//! What upstream has said of its limits is obeyed before a message is handed over, since a peer that is
//! sent more than it takes hangs up, and would do so again with every new connection.

use bytes::Bytes;

use super::config::Forward;
use crate::codec::{Properties, QoS, Version};
use crate::record::{Message, Now};

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

/// The PUBLISH of a message on a route, at this moment.
pub(super) fn shape(
    message: &Message,
    route: &Forward,
    limits: &Limits,
    now: &Now,
) -> Result<Outbound, Unsendable> {
    let expiry = message.remaining(now);
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
        payload: message.mended(&now.span.mend).unwrap_or_else(|| message.payload.clone()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::mapping::{Filter, Template};
    use crate::codec::{Packet, Property, Publish, encode};
    use crate::record::Mend;

    fn route(filter: &str, to: &str, qos: QoS) -> Forward {
        let filter = Filter::parse(filter).unwrap();
        let to = Template::parse(to, &filter, "barn-7").unwrap();
        Forward {
            name: "cloud:a".to_owned(),
            filter,
            to,
            qos,
            store: true,
            bounds: Default::default(),
            when_full: None,
        }
    }

    fn now(wall: u64) -> Now {
        Now::steady(0, wall)
    }

    fn message(topic: &str, payload: usize) -> Message {
        Message {
            topic: topic.into(),
            payload: vec![b'x'; payload].into(),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Properties::from_list(&[Property::UserProperty("a".into(), "b".into())]),
            expiry: Some(10),
            received: 1_000,
            unclocked: false,
        }
    }

    #[test]
    fn the_size_is_that_of_the_encoded_packet() {
        for version in [Version::V311, Version::V5] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
                for payload in [0, 1, 90, 100, 110, 127, 128, 16_300, 16_383, 16_400, 200_000] {
                    let route = route("a/#", "x/{1}", qos);
                    let outbound =
                        shape(&message("a/b", payload), &route, &Limits::of(version), &now(1_000)).unwrap();
                    let mut properties = outbound.properties.clone();
                    if let Some(expiry) = outbound.expiry {
                        properties = properties.with(Property::MessageExpiryInterval(expiry));
                    }
                    let publish = Publish {
                        dup: false,
                        qos,
                        retain: true,
                        topic: outbound.topic.as_str().into(),
                        packet_id: if qos == QoS::AtMostOnce { 0 } else { 1 },
                        properties,
                        payload: outbound.payload.clone(),
                    };
                    let mut bytes = Vec::new();
                    encode(&Packet::Publish(publish), version, &mut bytes).unwrap();
                    assert_eq!(outbound.size(version), bytes.len() as u64, "{version:?} {qos:?} {payload}");
                    let exact =
                        Limits { packet_size: u32::try_from(bytes.len()).unwrap(), ..Limits::of(version) };
                    assert!(shape(&message("a/b", payload), &route, &exact, &now(1_000)).is_ok());
                    let less = Limits { packet_size: exact.packet_size - 1, ..exact };
                    let refused = shape(&message("a/b", payload), &route, &less, &now(1_000));
                    assert_eq!(refused, Err(Unsendable::TooLarge));
                }
            }
        }
    }

    #[test]
    fn what_has_expired_or_has_no_topic_is_not_sent() {
        let limits = Limits::of(Version::V5);
        let plain = route("a/#", "{1}", QoS::AtLeastOnce);
        let at =
            |wall| shape(&message("a/b", 1), &plain, &limits, &now(wall)).map(|outbound| outbound.expiry);
        assert_eq!(at(1_000), Ok(Some(10)));
        assert_eq!(at(10_999), Ok(Some(1)));
        assert_eq!(at(11_000), Err(Unsendable::Expired));
        assert_eq!(at(0), Ok(Some(10)), "a clock that went back takes nothing away");
        assert_eq!(shape(&message("a/", 1), &plain, &limits, &now(1_000)), Err(Unsendable::NoTopic));
        let long = "a/".to_owned() + &"y".repeat(65_000);
        let route = route("a/#", "{topic}/{topic}", QoS::AtLeastOnce);
        assert_eq!(shape(&message(&long, 1), &route, &limits, &now(1_000)), Err(Unsendable::NoTopic));
    }

    #[test]
    fn a_reading_that_had_no_clock_leaves_with_its_time_mended_once_that_is_set() {
        let unset = r#"{"v":1,"t":61.5,"q":"no-clock"}"#;
        let reading = Message { payload: unset.into(), unclocked: true, ..message("a/b", 0) };
        let plain = route("a/#", "{1}", QoS::AtLeastOnce);
        let sent = |reading: &Message, now: &Now| {
            let outbound = shape(reading, &plain, &Limits::of(Version::V5), now).unwrap();
            (String::from_utf8(outbound.payload.to_vec()).unwrap(), outbound.expiry)
        };
        assert_eq!(sent(&reading, &now(2_000)), (unset.to_owned(), Some(9)));
        let mut later = now(1_002_000);
        later.span.mend = Mend { from: 0, exact: 0, to: 1_001_500, gap: 1_000_000, shift: 1_000_000 };
        let mended = r#"{"v":1,"t":1061.5,"q":"good"}"#;
        assert_eq!(sent(&reading, &later), (mended.to_owned(), Some(9)));
        let foreign = Message { unclocked: false, ..reading };
        assert_eq!(sent(&foreign, &later), (unset.to_owned(), Some(9)));
    }
}
