//! What one PUBLISH costs the codec: QoS 1, 20 bytes of topic, 64 bytes of payload.
//!
//! `cargo bench --bench codec` prints the best of many short rounds in nanoseconds a packet. It judges
//! nothing: the machine decides.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that breaks should say where")]

use std::hint::black_box;

use adapter_api::clock::monotonic;
use bytes::Bytes;
use tidegate::codec::{
    Decoder, Packet, Properties, Property, PublishParts, QoS, Side, Version, encode_publish,
};

/// Without optimisation nothing is measured, only run.
const ROUNDS: usize = if cfg!(debug_assertions) { 2 } else { 500 };
const READS: usize = 100;
const PACKETS_A_READ: usize = 100;

fn main() {
    let none = Properties::new();
    let user = Properties::from_list(&[Property::UserProperty("k".into(), "v".into())]);
    for (name, version, properties) in [
        ("3.1.1", Version::V311, &none),
        ("5", Version::V5, &none),
        ("5 with a user property", Version::V5, &user),
    ] {
        let parts = PublishParts {
            topic: "plant/line-1/speed/a",
            alias: None,
            payload: &[b'x'; 64],
            properties,
            expiry: None,
            subscription_ids: &[],
            packet_id: 7,
            qos: QoS::AtLeastOnce,
            dup: false,
            retain: false,
        };
        let decode = best(|| decode_round(version, &parts));
        let encode = best(|| encode_round(version, &parts));
        println!("{name}: decode {decode:.1} ns, encode {encode:.1} ns");
    }
}

fn best(mut round: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let start = monotonic();
        round();
        start.elapsed().as_secs_f64()
    });
    rounds.fold(f64::MAX, f64::min) * 1e9 / (READS * PACKETS_A_READ) as f64
}

fn decode_round(version: Version, parts: &PublishParts<'_>) {
    let mut read = Vec::new();
    (0..PACKETS_A_READ).for_each(|_| encode_publish(&mut read, version, parts).unwrap());
    let mut decoder = Decoder::new(Side::Server, 100_000);
    decoder.set_version(version);
    for _ in 0..READS {
        decoder.feed(Bytes::copy_from_slice(&read));
        while let Some(packet) = decoder.decode().unwrap() {
            assert!(matches!(black_box(&packet), Packet::Publish(publish) if publish.payload.len() == 64));
        }
    }
}

fn encode_round(version: Version, parts: &PublishParts<'_>) {
    let mut out = Vec::with_capacity(1 << 16);
    for _ in 0..READS {
        out.clear();
        (0..PACKETS_A_READ).for_each(|_| encode_publish(&mut out, version, black_box(parts)).unwrap());
        black_box(&out);
    }
}
