//! What a client says and hears a million times over, for the least processor time.
//!
//! A PUBLISH is encoded once, by the house's codec, and copied with another packet id and head of payload
//! each time. What comes is taken apart where it lies, and only as far as it is compared; whatever is rare
//! is left to the house's decoder.

use std::ops::Range;

use bytes::Bytes;
use tidegate::codec::{
    Decoder, Properties, Property, PublishParts, QoS, Side, Version, encode_publish, publish_size,
};

use super::Outcome;

pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;
pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// What a broker says, borrowed from where it was read to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP: its first byte, packet id and reason.
    Ack(u8, u16, u8),
    PingResp,
    /// All others, whole.
    Rare(&'a [u8]),
}

/// PUBLISH.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a [u8],
    pub(crate) qos: u8,
    /// 0 at QoS 0.
    pub(crate) id: u16,
    /// As they came; empty before MQTT 5.
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// A PUBLISH of which only packet id and head of payload change.
pub(crate) struct Template {
    bytes: Vec<u8>,
    topic: Range<usize>,
    /// Where the packet id stands, above QoS 0.
    id: Option<usize>,
    payload: usize,
}

impl Template {
    pub(crate) fn new(version: Version, topic: &str, qos: QoS, payload: &[u8]) -> Template {
        let properties = user_properties(version);
        let parts = PublishParts {
            topic,
            alias: None,
            payload,
            properties: &properties,
            expiry: None,
            subscription_ids: &[],
            packet_id: 1,
            qos,
            dup: false,
            retain: false,
        };
        let mut bytes = Vec::with_capacity(publish_size(version, &parts));
        encode_publish(&mut bytes, version, &parts).expect("a small packet");
        let (_, length) = remaining(&bytes[1..]).expect("our own").expect("whole");
        let begin = 1 + length + 2;
        let topic = begin..begin + topic.len();
        let id = (qos != QoS::AtMostOnce).then_some(topic.end);
        let payload = bytes.len() - payload.len();
        Template { bytes, topic, id, payload }
    }

    pub(crate) fn topic(&self) -> &[u8] {
        &self.bytes[self.topic.clone()]
    }

    /// Appends one message; `head` is laid over the payload's begin.
    pub(crate) fn write(&self, out: &mut Vec<u8>, id: u16, head: &[u8]) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(at) = self.id {
            out[start + at..][..2].copy_from_slice(&id.to_be_bytes());
        }
        out[start + self.payload..][..head.len()].copy_from_slice(head);
    }
}

/// What each message carries over MQTT 5, two of them.
pub(crate) fn user_properties(version: Version) -> Properties {
    match version {
        Version::V5 => Properties::from_list(&[
            Property::UserProperty("unit".into(), "celsius".into()),
            Property::UserProperty("line".into(), "north-7".into()),
        ]),
        _ => Properties::new(),
    }
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(crate) fn answer(out: &mut Vec<u8>, kind: u8, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[kind, 2, high, low]);
}

/// The packet at the front and its length; `None` where its end has not come.
pub(crate) fn hear(bytes: &[u8], version: Version) -> Outcome<Option<(Packet<'_>, usize)>> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, used)) = remaining(rest)? else { return Ok(None) };
    let Some(body) = rest.get(used..used + length) else { return Ok(None) };
    let packet = match first {
        0x30..=0x3f => publish(first, body, version).ok_or("a PUBLISH that is none")?,
        PUBACK | PUBREC | PUBREL | PUBCOMP => match *body {
            [high, low, ref more @ ..] => {
                let reason = more.first().copied().unwrap_or(0);
                Packet::Ack(first, u16::from_be_bytes([high, low]), reason)
            }
            _ => return Err(format!("an acknowledgement {first:#04x} without a packet id")),
        },
        0xd0 => Packet::PingResp,
        _ => Packet::Rare(&bytes[..1 + used + length]),
    };
    Ok(Some((packet, 1 + used + length)))
}

fn publish(first: u8, body: &[u8], version: Version) -> Option<Packet<'_>> {
    let qos = first >> 1 & 3;
    let (length, rest) = body.split_first_chunk()?;
    let (topic, mut rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let mut id = 0;
    if qos > 0 {
        let (bytes, after) = rest.split_first_chunk()?;
        (id, rest) = (u16::from_be_bytes(*bytes), after);
    }
    let mut properties = &rest[..0];
    if version == Version::V5 {
        let (length, used) = remaining(rest).ok()??;
        properties = rest.get(used..used + length)?;
        rest = &rest[used + length..];
    }
    Some(Packet::Publish(Publish { topic, qos, id, properties, payload: rest }))
}

/// A variable byte integer and how many bytes it takes; `None` where it has not come whole.
pub(crate) fn remaining(bytes: &[u8]) -> Outcome<Option<(usize, usize)>> {
    let mut number = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((number, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err("a length of more than four bytes".into()) }
}

/// What a rare packet is to this side.
pub(crate) fn decoded(side: Side, bytes: &[u8], version: Version) -> Outcome<tidegate::codec::Packet> {
    let mut decoder = Decoder::new(side, 1 << 20);
    decoder.set_version(version);
    decoder.feed(Bytes::copy_from_slice(bytes));
    decoder.decode().map_err(|error| error.to_string())?.ok_or("half a packet".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_template_writes_is_heard_again() {
        for version in [Version::V311, Version::V5] {
            for (number, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate()
            {
                let template = Template::new(version, "a/topic", qos, &[9; 200]);
                let mut bytes = Vec::new();
                template.write(&mut bytes, 513, b"head");
                assert_eq!(hear(&bytes[..bytes.len() - 1], version), Ok(None), "not all has come");
                let Ok(Some((Packet::Publish(publish), used))) = hear(&bytes, version) else { panic!() };
                assert_eq!((used, usize::from(publish.qos)), (bytes.len(), number));
                assert_eq!((publish.topic, template.topic()), (&b"a/topic"[..], &b"a/topic"[..]));
                assert_eq!(publish.id, if number == 0 { 0 } else { 513 });
                assert_eq!(publish.properties, user_properties(version).as_bytes());
                assert_eq!((&publish.payload[..4], &publish.payload[4..]), (&b"head"[..], &[9; 196][..]));
            }
        }
    }

    #[test]
    fn acknowledgements_say_their_reason() {
        assert_eq!(hear(&[0x40, 2, 1, 2, 0xd0], Version::V311), Ok(Some((Packet::Ack(PUBACK, 258, 0), 4))));
        assert_eq!(hear(&[0x50, 3, 0, 1, 0x97], Version::V5), Ok(Some((Packet::Ack(PUBREC, 1, 0x97), 5))));
        assert!(hear(&[0x40, 1, 0], Version::V311).is_err());
    }
}
