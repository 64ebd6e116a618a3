//! The fuzz targets' bodies over their seeds and the golden packets, as plain tests.
//!
//! What a fuzzer finds is put into `tests/fuzz/seeds/<target>` together with its fix, and stays here.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that breaks should say where")]

use std::fs;
use std::path::Path;

use tidegate::record;

#[path = "fuzz/bodies/decode.rs"]
mod decode;

#[path = "fuzz/bodies/broker.rs"]
mod broker;

#[path = "fuzz/bodies/config.rs"]
mod config;

#[path = "fuzz/bodies/rules.rs"]
mod rules;

#[test]
fn the_decoder_keeps_its_promises_over_the_corpus() {
    let mut inputs = seeds("decode");
    for file in ["packets.txt", "malformed.txt"] {
        inputs.extend(golden(file).into_iter().flat_map(|bytes| {
            // Every side, version and a few sizes of pieces.
            (0..8).flat_map(|choice| [choice, choice | 2 << 3]).map({
                let bytes = bytes.clone();
                move |choice| [&[choice], &*bytes].concat()
            })
        }));
    }
    assert!(inputs.len() > 3_000, "{} inputs", inputs.len());
    inputs.iter().for_each(|input| decode::run(input));
}

#[test]
fn the_broker_keeps_its_promises_over_the_corpus() {
    for seed in seeds("broker") {
        // A script may end after any byte.
        (0..=seed.len()).for_each(|end| broker::run(&seed[..end]));
    }
}

#[test]
fn the_broker_keeps_its_promises_over_random_scripts() {
    for seed in 0..3_000_u64 {
        broker::run(&random(seed, 300));
    }
}

#[test]
fn the_configuration_keeps_its_promises_over_the_corpus() {
    for seed in seeds("config") {
        // Cut anywhere, a text is still a text.
        (0..=seed.len()).step_by(7).for_each(|end| config::run(&seed[..end]));
        config::run(&seed);
    }
}

#[test]
fn access_rules_keep_their_promises_over_the_corpus() {
    for seed in seeds("rules") {
        (0..=seed.len()).for_each(|end| rules::run(&seed[..end]));
    }
}

#[test]
fn the_serial_framer_keeps_its_promises_over_the_corpus() {
    for seed in seeds("serial_lines") {
        adapter_serial::fuzz::lines(&seed);
    }
}

#[test]
fn the_mqtt_sn_gateway_keeps_its_promises_over_the_corpus() {
    for seed in seeds("mqtt_sn") {
        // A conversation may end after any octet.
        (0..=seed.len()).for_each(|end| adapter_mqtt_sn::fuzz(&seed[..end]));
    }
}

#[test]
fn the_modbus_guard_keeps_its_promises_over_the_corpus() {
    for seed in seeds("modbus_guard") {
        (0..=seed.len()).for_each(|end| adapter_modbus::guard::fuzz::guard(&seed[..end]));
    }
}

/// The same bytes for the same seed.
fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    };
    (0..length).map(|_| next()).collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = root().join("tests/fuzz/seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The bytes of every entry: its lines between the headline and the last.
fn golden(file: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(root().join("tests/golden").join(file)).unwrap();
    let blocks =
        text.split("\n\n").map(str::trim).filter(|block| !block.is_empty() && !block.starts_with('#'));
    blocks
        .map(|block| {
            let mut lines = block.lines();
            lines.next();
            lines.next_back();
            let words = lines.flat_map(str::split_whitespace);
            words.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
        })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
