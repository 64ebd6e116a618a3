//! Any bytes on a serial line.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz serial_lines tests/fuzz/corpus/serial_lines tests/fuzz/seeds/serial_lines`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adapter_serial::fuzz::lines(data));
