//! Any datagrams, answers of the broker and pauses into the MQTT-SN gateway.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz mqtt_sn tests/fuzz/corpus/mqtt_sn tests/fuzz/seeds/mqtt_sn`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adapter_mqtt_sn::fuzz(data));
