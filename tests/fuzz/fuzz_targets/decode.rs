//! Any bytes into the MQTT decoder.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz decode tests/fuzz/corpus/decode tests/fuzz/seeds/decode`

#![no_main]

#[path = "../bodies/decode.rs"]
mod decode;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decode::run(data));
