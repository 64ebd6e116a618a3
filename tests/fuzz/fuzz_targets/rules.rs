//! Any ACL file, and any client that it may concern.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz rules tests/fuzz/corpus/rules tests/fuzz/seeds/rules`

#![no_main]

#[path = "../bodies/rules.rs"]
mod rules;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rules::run(data));
