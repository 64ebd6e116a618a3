//! The world around an adapter under test: a broker that takes readings, and a Modbus server whose every
//! answer tells which question it answers.
//!
//! Register n holds, in 32 bits, n and the number of the poll that read it. The server takes in what was
//! published before it counts the next question: so each reading belongs to the poll that was counted last,
//! whatever the machine's speed, and its value says whether it does.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod broker;
pub(crate) mod server;
pub(crate) mod wires;

use std::hash::{BuildHasher, Hasher, RandomState};

use broker::Broker;
use server::Reading;

/// Numbers from a seed.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A seed that is new each time.
    pub(crate) fn fresh_seed() -> u64 {
        RandomState::new().build_hasher().finish()
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What was published since the last call, by the register that the last level of the topic names.
pub(crate) fn readings(broker: &Broker) -> Vec<Reading> {
    let readings = broker.take().into_iter().map(|published| {
        let register = published.topic.rsplit('/').next().and_then(|name| name.parse().ok());
        let payload: serde_json::Value = serde_json::from_slice(&published.payload).expect("JSON");
        let value = payload.get("v").and_then(serde_json::Value::as_u64).expect("a value");
        let value = u32::try_from(value).expect("32 bits");
        Reading { register: register.expect("a register's name"), value }
    });
    readings.collect()
}
