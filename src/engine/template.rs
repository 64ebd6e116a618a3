//! One encoding for many copies of a message.
//!
//! Copies of a message follow each other and mostly differ in nothing but the packet id: the first is
//! encoded, the others are its bytes with their own id and topic alias put in.

use std::sync::Arc;

use crate::broker::Copy;
use crate::codec::{Alias, QoS, Version, encode_publish, publish_size};

/// The last copies that were encoded: for MQTT 5 by how they name the topic, and for older versions.
#[derive(Debug, Default)]
pub(super) struct Templates {
    named: Template,
    giving: Template,
    standing: Template,
    older: Template,
}

/// The places in a copy's bytes that differ from connection to connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Places {
    /// The packet id, above QoS 0.
    packet_id: Option<usize>,
    /// The topic alias, where there is one.
    alias: Option<usize>,
}

/// A copy as it leaves, for [`append`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoded<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) places: Places,
    pub(super) topic: &'a str,
}

/// A copy and its bytes.
#[derive(Debug, Default)]
struct Template {
    copy: Option<Copy>,
    bytes: Vec<u8>,
    places: Places,
}

impl Templates {
    /// The copy's bytes with the places of what is its own, for [`append`]; `None` where it cannot be
    /// said in MQTT. The copy is kept until the next, so that its message is known again without counting.
    pub(super) fn encode(&mut self, version: Version, copy: Copy, alias: Alias) -> Option<Encoded<'_>> {
        let template = match (version, alias) {
            (Version::V5, Alias::None) => &mut self.named,
            (Version::V5, Alias::Gives(_)) => &mut self.giving,
            (Version::V5, Alias::Stands(_)) => &mut self.standing,
            (Version::V31 | Version::V311, _) => &mut self.older,
        };
        if !template.copy.as_ref().is_some_and(|last| alike(last, &copy, version)) {
            template.fill(version, copy, alias)?;
        }
        let topic = template.copy.as_ref().map_or("", Copy::topic);
        Some(Encoded { bytes: &template.bytes, places: template.places, topic })
    }

    /// Lets go of the last messages, and of memory that a large one took.
    pub(super) fn release(&mut self) {
        for template in [&mut self.named, &mut self.giving, &mut self.standing, &mut self.older] {
            template.copy = None;
            if template.bytes.capacity() > TEMPLATE_BYTES_MAX {
                template.bytes = Vec::new();
            }
        }
    }
}

impl Template {
    fn fill(&mut self, version: Version, copy: Copy, alias: Alias) -> Option<()> {
        self.copy = None;
        self.bytes.clear();
        let parts = copy.parts(alias);
        encode_publish(&mut self.bytes, version, &parts).ok()?;
        let after_topic = 1 + variable_bytes(&self.bytes, 1) + 2 + parts.topic.len();
        let after_id = if copy.qos == QoS::AtMostOnce { after_topic } else { after_topic + 2 };
        self.places = Places {
            packet_id: (copy.qos != QoS::AtMostOnce).then_some(after_topic),
            // The first property, after the length of all and its own identifier.
            alias: alias.number().map(|_| after_id + variable_bytes(&self.bytes, after_id) + 1),
        };
        self.copy = Some(copy);
        Some(())
    }
}

/// Bytes of the copy.
pub(super) fn size(version: Version, copy: &Copy, alias: Alias) -> usize {
    publish_size(version, &copy.parts(alias))
}

/// How many bytes the variable byte integer takes that stands there.
fn variable_bytes(bytes: &[u8], at: usize) -> usize {
    bytes.iter().skip(at).take_while(|byte| **byte >= 0x80).count() + 1
}

/// Whether the two are the same bytes but for packet id and alias.
fn alike(last: &Copy, next: &Copy, version: Version) -> bool {
    Arc::ptr_eq(&last.message, &next.message)
        && last.qos == next.qos
        && last.dup == next.dup
        && last.retain == next.retain
        && last.hidden == next.hidden
        && (version != Version::V5
            || (last.expiry == next.expiry && last.subscription_ids == next.subscription_ids))
}

/// Appends a copy under its own packet id and alias.
pub(super) fn append(buffer: &mut Vec<u8>, bytes: &[u8], places: Places, packet_id: u16, alias: Alias) {
    let start = buffer.len();
    buffer.extend_from_slice(bytes);
    let own = [(places.packet_id, Some(packet_id)), (places.alias, alias.number())];
    for (place, number) in own {
        if let (Some(at), Some(number)) = (place, number)
            && let Some(place) = buffer.get_mut(start + at..start + at + 2)
        {
            place.copy_from_slice(&number.to_be_bytes());
        }
    }
}

/// A template that has grown beyond this is freed when the turn ends.
const TEMPLATE_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use bytestring::ByteString;

    use super::*;
    use crate::broker::ConnectionId;
    use crate::codec::{Decoder, Packet, Properties, Side};
    use crate::record::{Identifiers, Message};

    fn message(payload: usize) -> Arc<Message> {
        Arc::new(Message {
            topic: ByteString::from_static("sensors/1"),
            payload: Bytes::from(vec![7; payload]),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::new(),
            expiry: None,
            received: 0,
            unclocked: false,
        })
    }

    fn copy(message: &Arc<Message>, qos: QoS, packet_id: u16) -> Copy {
        Copy {
            connection: ConnectionId { slot: 0, generation: 0 },
            message: message.clone(),
            packet_id,
            qos,
            dup: false,
            retain: false,
            expiry: None,
            subscription_ids: Identifiers::default(),
            hidden: 0,
        }
    }

    #[test]
    fn every_copy_has_its_own_packet_id_and_the_same_message() {
        for payload in [0, 1, 100, 127, 128, 20_000] {
            let message = message(payload);
            for version in [Version::V31, Version::V311, Version::V5] {
                let (mut templates, mut buffer) = (Templates::default(), Vec::new());
                let ids = [1_u16, 0x1234, 0xFFFF];
                for id in ids {
                    let copy = copy(&message, QoS::AtLeastOnce, id);
                    let Encoded { bytes, places, .. } = templates.encode(version, copy, Alias::None).unwrap();
                    append(&mut buffer, bytes, places, id, Alias::None);
                }
                let mut decoder = Decoder::new(Side::Client, 1 << 20);
                decoder.set_version(version);
                decoder.feed(Bytes::from(buffer));
                for id in ids {
                    let Ok(Some(Packet::Publish(publish))) = decoder.decode() else { panic!("a PUBLISH") };
                    assert_eq!((publish.packet_id, publish.payload), (id, message.payload.clone()));
                }
                assert!(decoder.is_empty());
            }
        }
    }

    #[test]
    fn every_copy_has_its_own_alias() {
        for payload in [0, 100, 20_000] {
            for qos in [QoS::AtMostOnce, QoS::ExactlyOnce] {
                let message = message(payload);
                let (mut templates, mut buffer) = (Templates::default(), Vec::new());
                let aliases = [
                    Alias::Gives(1),
                    Alias::Gives(0x1234),
                    Alias::Stands(1),
                    Alias::Stands(0xFFFF),
                    Alias::None,
                ];
                for alias in aliases {
                    let copy = Copy {
                        expiry: Some(9),
                        subscription_ids: [3].into_iter().collect(),
                        ..copy(&message, qos, 7)
                    };
                    let expected = size(Version::V5, &copy, alias);
                    let Encoded { bytes, places, topic } =
                        templates.encode(Version::V5, copy, alias).unwrap();
                    assert_eq!((topic, bytes.len()), ("sensors/1", expected));
                    append(&mut buffer, bytes, places, 7, alias);
                }
                let mut decoder = Decoder::new(Side::Client, 1 << 20);
                decoder.feed(Bytes::from(buffer));
                for alias in aliases {
                    let Ok(Some(Packet::Publish(publish))) = decoder.decode() else { panic!("a PUBLISH") };
                    let topic = if matches!(alias, Alias::Stands(_)) { "" } else { "sensors/1" };
                    assert_eq!((&*publish.topic, publish.properties.topic_alias()), (topic, alias.number()));
                    assert_eq!(publish.properties.message_expiry(), Some(9));
                    assert_eq!(publish.payload, message.payload);
                }
            }
        }
    }

    #[test]
    fn what_differs_is_encoded_anew() {
        let (first, second) = (message(3), message(4));
        let mut templates = Templates::default();
        let size = |templates: &mut Templates, copy| {
            templates.encode(Version::V5, copy, Alias::None).unwrap().bytes.len()
        };
        let plain = size(&mut templates, copy(&first, QoS::AtMostOnce, 0));
        assert_eq!(size(&mut templates, copy(&second, QoS::AtMostOnce, 0)), plain + 1);
        assert_eq!(size(&mut templates, copy(&first, QoS::AtLeastOnce, 9)), plain + 2);
        let with_expiry = Copy { expiry: Some(5), ..copy(&first, QoS::AtMostOnce, 0) };
        assert_eq!(size(&mut templates, with_expiry), plain + 5);
        let mounted = Copy { hidden: 8, ..copy(&first, QoS::AtMostOnce, 0) };
        assert_eq!(size(&mut templates, mounted), plain - 8);
        let with_id =
            Copy { subscription_ids: [1].into_iter().collect(), ..copy(&first, QoS::AtMostOnce, 0) };
        assert_eq!(size(&mut templates, with_id), plain + 2);
    }
}
