//! Any words of a client that logs in by SCRAM.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz scram tests/fuzz/corpus/scram tests/fuzz/seeds/scram`

#![no_main]

#[path = "../bodies/scram.rs"]
mod scram;

libfuzzer_sys::fuzz_target!(|data: &[u8]| scram::run(data));
