//! One encoding for many copies of a message.
//!
//! Copies of a message follow each other and mostly differ in nothing but the packet id: the first is
//! encoded, the others are its bytes with their own id put in.

use std::sync::Arc;

use crate::broker::Copy;
use crate::codec::{PublishParts, QoS, Version, encode_publish};

/// The last copy that was encoded for MQTT 5, and the last for older versions.
#[derive(Debug, Default)]
pub(super) struct Templates {
    modern: Template,
    older: Template,
}

/// A copy and its bytes.
#[derive(Debug, Default)]
struct Template {
    copy: Option<Copy>,
    bytes: Vec<u8>,
    /// Where the packet id stands, above QoS 0.
    id_at: usize,
}

impl Templates {
    /// The copy's bytes with the place of its packet id, for [`append`]; `None` where it cannot be said
    /// in MQTT. The copy is kept until the next, so that its message is known again without counting.
    pub(super) fn encode(&mut self, version: Version, copy: Copy) -> Option<(&[u8], usize)> {
        let template = match version {
            Version::V5 => &mut self.modern,
            Version::V31 | Version::V311 => &mut self.older,
        };
        if !template.copy.as_ref().is_some_and(|last| alike(last, &copy, version)) {
            template.fill(version, copy)?;
        }
        Some((&template.bytes, template.id_at))
    }

    /// Lets go of the last messages, and of memory that a large one took.
    pub(super) fn release(&mut self) {
        for template in [&mut self.modern, &mut self.older] {
            template.copy = None;
            if template.bytes.capacity() > TEMPLATE_BYTES_MAX {
                template.bytes = Vec::new();
            }
        }
    }
}

impl Template {
    fn fill(&mut self, version: Version, copy: Copy) -> Option<()> {
        self.copy = None;
        self.bytes.clear();
        let topic = copy.message.topic.get(usize::from(copy.hidden)..).unwrap_or_default();
        let parts = PublishParts {
            topic,
            payload: &copy.message.payload,
            properties: &copy.message.properties,
            expiry: copy.expiry,
            subscription_ids: &copy.subscription_ids,
            packet_id: copy.packet_id,
            qos: copy.qos,
            dup: copy.dup,
            retain: copy.retain,
        };
        encode_publish(&mut self.bytes, version, &parts).ok()?;
        let length_bytes = self.bytes.iter().skip(1).take_while(|byte| **byte >= 0x80).count() + 1;
        self.id_at = 1 + length_bytes + 2 + topic.len();
        self.copy = Some(copy);
        Some(())
    }
}

/// Whether the two are the same bytes but for the packet id.
fn alike(last: &Copy, next: &Copy, version: Version) -> bool {
    Arc::ptr_eq(&last.message, &next.message)
        && last.qos == next.qos
        && last.dup == next.dup
        && last.retain == next.retain
        && last.hidden == next.hidden
        && (version != Version::V5
            || (last.expiry == next.expiry && last.subscription_ids == next.subscription_ids))
}

/// Appends a copy under its own packet id.
pub(super) fn append(buffer: &mut Vec<u8>, bytes: &[u8], id_at: usize, qos: QoS, packet_id: u16) {
    let start = buffer.len();
    buffer.extend_from_slice(bytes);
    if qos != QoS::AtMostOnce
        && let Some(place) = buffer.get_mut(start + id_at..start + id_at + 2)
    {
        place.copy_from_slice(&packet_id.to_be_bytes());
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
    use crate::record::Message;

    fn message(payload: usize) -> Arc<Message> {
        Arc::new(Message {
            topic: ByteString::from_static("sensors/1"),
            payload: Bytes::from(vec![7; payload]),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::new(),
            expiry: None,
            received_wall: 0,
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
            subscription_ids: Vec::new(),
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
                    let (bytes, id_at) = templates.encode(version, copy).unwrap();
                    append(&mut buffer, bytes, id_at, QoS::AtLeastOnce, id);
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
    fn what_differs_is_encoded_anew() {
        let (first, second) = (message(3), message(4));
        let mut templates = Templates::default();
        let size = |templates: &mut Templates, copy| templates.encode(Version::V5, copy).unwrap().0.len();
        let plain = size(&mut templates, copy(&first, QoS::AtMostOnce, 0));
        assert_eq!(size(&mut templates, copy(&second, QoS::AtMostOnce, 0)), plain + 1);
        assert_eq!(size(&mut templates, copy(&first, QoS::AtLeastOnce, 9)), plain + 2);
        let with_expiry = Copy { expiry: Some(5), ..copy(&first, QoS::AtMostOnce, 0) };
        assert_eq!(size(&mut templates, with_expiry), plain + 5);
        let mounted = Copy { hidden: 8, ..copy(&first, QoS::AtMostOnce, 0) };
        assert_eq!(size(&mut templates, mounted), plain - 8);
        let with_id = Copy { subscription_ids: vec![1], ..copy(&first, QoS::AtMostOnce, 0) };
        assert_eq!(size(&mut templates, with_id), plain + 2);
    }
}
