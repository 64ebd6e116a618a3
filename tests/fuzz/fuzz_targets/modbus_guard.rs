//! Any questions, answers and rubbish on a Modbus line.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz modbus_guard tests/fuzz/corpus/modbus_guard tests/fuzz/seeds/modbus_guard`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adapter_modbus::guard::fuzz::guard(data));
