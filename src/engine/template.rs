//! One encoding for many copies of a message.
//!
//! Copies of a message follow each other and mostly differ in nothing but the packet id: the first is
//! encoded, the others are its bytes with their own id and topic alias put in. A message that has one copy alone is
//! encoded where it leaves from.

use std::sync::Arc;

use crate::broker::Copy;
use crate::codec::{Alias, QoS, Unwritable, Version, encode_publish, publish_size};

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
struct Places {
    /// The packet id, above QoS 0.
    packet_id: Option<usize>,
    /// The topic alias, where there is one.
    alias: Option<usize>,
}

/// A copy that is about to leave.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    copy: &'a Copy,
    version: Version,
    alias: Alias,
    /// The bytes of one like it; none where nobody else has its message.
    template: Option<&'a Template>,
}

/// A copy and its bytes.
#[derive(Debug, Default)]
struct Template {
    copy: Option<Copy>,
    bytes: Vec<u8>,
    places: Places,
}

impl Templates {
    /// Makes a copy ready to leave; `None` where it is found that it cannot be said in MQTT. A message that others have,
    /// too, is kept until the next, so that it is known again.
    pub(super) fn prepare<'a>(
        &'a mut self,
        version: Version,
        copy: &'a Copy,
        alias: Alias,
    ) -> Option<Prepared<'a>> {
        if Arc::strong_count(&copy.message) == 1 {
            return Some(Prepared { copy, version, alias, template: None });
        }
        let template = match (version, alias) {
            (Version::V5, Alias::None) => &mut self.named,
            (Version::V5, Alias::Gives(_)) => &mut self.giving,
            (Version::V5, Alias::Stands(_)) => &mut self.standing,
            (Version::V31 | Version::V311, _) => &mut self.older,
        };
        if !template.copy.as_ref().is_some_and(|last| alike(last, copy, version)) {
            template.fill(version, copy, alias)?;
        }
        Some(Prepared { copy, version, alias, template: Some(template) })
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
    fn fill(&mut self, version: Version, copy: &Copy, alias: Alias) -> Option<()> {
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
        self.copy = Some(copy.clone());
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

impl Prepared<'_> {
    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        self.template
            .map_or_else(|| size(self.version, self.copy, self.alias), |template| template.bytes.len())
    }

    /// Appends it. On an error, which says that one alone cannot be said in MQTT, the buffer is as it was.
    pub(super) fn append(&self, buffer: &mut Vec<u8>) -> Result<(), Unwritable> {
        let Some(template) = self.template else {
            return encode_publish(buffer, self.version, &self.copy.parts(self.alias));
        };
        let start = buffer.len();
        buffer.extend_from_slice(&template.bytes);
        let Places { packet_id, alias } = template.places;
        let own = [(packet_id, Some(self.copy.packet_id)), (alias, self.alias.number())];
        for (place, number) in own {
            if let (Some(at), Some(number)) = (place, number)
                && let Some(place) = buffer.get_mut(start + at..start + at + 2)
            {
                place.copy_from_slice(&number.to_be_bytes());
            }
        }
        Ok(())
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
                    templates.prepare(version, &copy, Alias::None).unwrap().append(&mut buffer).unwrap();
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
                    let prepared = templates.prepare(Version::V5, &copy, alias).unwrap();
                    assert_eq!(prepared.size(), expected);
                    prepared.append(&mut buffer).unwrap();
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
    fn a_copy_that_nobody_shares_is_the_same_bytes() {
        let aliases = [Alias::None, Alias::Gives(3), Alias::Stands(3)];
        for (version, aliases) in
            [(Version::V31, &aliases[..1]), (Version::V311, &aliases[..1]), (Version::V5, &aliases)]
        {
            for &alias in aliases {
                let mut templates = Templates::default();
                let mut bytes = |copy: Copy| {
                    let mut buffer = b"before".to_vec();
                    let prepared = templates.prepare(version, &copy, alias).unwrap();
                    let (alone, size) = (prepared.template.is_none(), prepared.size());
                    prepared.append(&mut buffer).unwrap();
                    assert_eq!(buffer.len(), b"before".len() + size);
                    (alone, buffer)
                };
                let shared = message(200);
                let (is_alone, expected) = bytes(copy(&shared, QoS::ExactlyOnce, 5));
                assert!(!is_alone);
                let mut alone = copy(&shared, QoS::ExactlyOnce, 5);
                alone.message = Arc::new(Message::clone(&shared));
                assert_eq!(bytes(alone), (true, expected), "{version:?} {alias:?}");
            }
        }
    }

    #[test]
    fn what_differs_is_encoded_anew() {
        let (first, second) = (message(3), message(4));
        let mut templates = Templates::default();
        let size = |templates: &mut Templates, copy| {
            templates.prepare(Version::V5, &copy, Alias::None).unwrap().size()
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
