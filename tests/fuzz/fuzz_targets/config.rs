//! Any text into the configuration.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz config tests/fuzz/corpus/config tests/fuzz/seeds/config`

#![no_main]

#[path = "../bodies/config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| config::run(data));
