//! Decoding and encoding a QoS 0 PUBLISH: 20 bytes of topic, 64 bytes of payload.
//!
//! What is decoded comes in reads of a hundred packets.

use std::hint::black_box;

use bytes::Bytes;
use tidegate::codec::{
    Decoder, Packet, Properties, Property, PublishParts, QoS, Side, Version, encode_publish,
};

use crate::{PAYLOAD, TIMES, TOPIC, measured};

pub(crate) fn decode(version: Version, user_properties: usize) {
    let properties = properties(user_properties);
    let mut read = Vec::new();
    (0..PACKETS_A_READ).for_each(|_| encode_publish(&mut read, version, &parts(&properties)).unwrap());
    let reads = vec![Bytes::from(read); TIMES / PACKETS_A_READ];
    let mut decoder = Decoder::new(Side::Server, 100_000);
    decoder.set_version(version);
    measured(|| {
        for read in reads {
            decoder.feed(read);
            while let Some(packet) = decoder.decode().unwrap() {
                assert!(
                    matches!(black_box(&packet), Packet::Publish(publish) if publish.payload.len() == 64)
                );
            }
        }
    });
}

pub(crate) fn encode(version: Version, user_properties: usize) {
    let properties = properties(user_properties);
    let parts = parts(&properties);
    let mut out = Vec::with_capacity(TIMES * 200);
    measured(|| {
        for _ in 0..TIMES {
            encode_publish(&mut out, version, black_box(&parts)).unwrap();
        }
    });
}

fn properties(user_properties: usize) -> Properties {
    let property = Property::UserProperty("unit".into(), "degrees".into());
    Properties::from_list(&vec![property; user_properties])
}

fn parts(properties: &Properties) -> PublishParts<'_> {
    PublishParts {
        topic: TOPIC,
        alias: None,
        payload: &PAYLOAD,
        properties,
        expiry: None,
        subscription_ids: &[],
        packet_id: 0,
        qos: QoS::AtMostOnce,
        dup: false,
        retain: false,
    }
}

const PACKETS_A_READ: usize = 100;
