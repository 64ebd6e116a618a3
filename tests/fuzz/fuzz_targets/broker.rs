//! Any packets of several clients, commits, pauses and power cuts into the whole broker.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz broker tests/fuzz/corpus/broker tests/fuzz/seeds/broker`

#![no_main]

use tidegate::record;

#[path = "../bodies/broker.rs"]
mod broker;

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker::run(data));
