//! What is counted in instructions: each benchmark does one thing ten thousand times.
//!
//! `counts NAME` runs one of them; it is run under valgrind by the harness beside it, and by
//! `tests/suites/35-counts`, which holds the figures against `baseline`. What leads to the work is not counted:
//! valgrind counts within [`measured`] alone, and in the store's thread.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark that breaks should say where")]

mod packets;
mod routing;
mod copies;
mod append;
mod drain;

// By their names in the appliance, since one of its files is built here as well.
#[cfg(test)]
use tidegate::record;
use tidegate::{broker, codec};

use std::sync::Arc;

use bytes::Bytes;
use tidegate::record::Message;

use codec::{Properties, QoS, Version};

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    match name.as_str() {
        "decode_v3_1_1" => packets::decode(Version::V311, 0),
        "decode_v5" => packets::decode(Version::V5, 0),
        "decode_v5_two_user_properties" => packets::decode(Version::V5, 2),
        "encode_v3_1_1" => packets::encode(Version::V311, 0),
        "encode_v5" => packets::encode(Version::V5, 0),
        "encode_v5_two_user_properties" => packets::encode(Version::V5, 2),
        "match_among_1_000" => routing::find(1_000),
        "match_among_10_000" => routing::find(10_000),
        "match_among_100_000" => routing::find(100_000),
        "route_qos_0" => routing::route(QoS::AtMostOnce),
        "route_qos_1" => routing::route(QoS::AtLeastOnce),
        "pass_v3_1_1" => routing::pass(QoS::AtMostOnce, 1),
        "pass_qos_1" => routing::pass(QoS::AtLeastOnce, 1),
        "pass_qos_2" => routing::pass(QoS::ExactlyOnce, 1),
        "pass_to_1_000" => routing::pass(QoS::AtMostOnce, 1_000),
        "pass_among_1_000" => routing::pass_among(1_000),
        "pass_among_100_000" => routing::pass_among(100_000),
        "keep_qos_1" => routing::keep(),
        "fan_out_to_1_000" => routing::fan_out(1_000),
        "encode_a_copy_alone" => copies::encode(1),
        "encode_copies_of_1_000" => copies::encode(1_000),
        "append_by_100" => append::append(100),
        "drain_among_few" | "drain_among_many" => drain::drain(),
        // What these two drain is left there by another process.
        "wait" => drain::wait(std::env::args().nth(2).unwrap().parse().unwrap()),
        _ => {
            eprintln!("there is no benchmark {name:?}");
            std::process::exit(2);
        }
    }
}

/// What is counted. Valgrind knows it by its name, so it stays a function.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// What is encoded and appended.
fn message() -> Arc<Message> {
    Arc::new(Message {
        topic: TOPIC.into(),
        payload: Bytes::from_static(&PAYLOAD),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::new(),
        expiry: None,
        received: 1_800_000_000_000,
        unclocked: false,
    })
}

/// How often each benchmark does what it counts: the figures are the counts divided by it.
const TIMES: usize = 10_000;

/// 20 bytes.
const TOPIC: &str = "plant/line-1/speed/a";

const PAYLOAD: [u8; 64] = [b'x'; 64];
