//! A reading as the payload that goes to the broker.
//!
//! `{"v":23.4,"u":"V","t":1771234567.123,"q":"good"}`: value, unit, seconds since 1970 at which the last
//! byte of the answer was there, quality. Always valid JSON.

use adapter_api::clock::Wall;
use adapter_api::reading::{self, quality, seconds};
use bytes::Bytes;
use serde::Serialize;

use crate::value::Value;

/// The payload of one reading.
pub fn payload(value: Value, unit: Option<&str>, taken: Wall) -> Bytes {
    let reading = Reading { v: value, u: unit, t: seconds(taken), q: quality(worth(value), taken) };
    // Serialising to memory fails only for maps with keys that are not text, and there is no map.
    Bytes::from(serde_json::to_vec(&reading).unwrap_or_default())
}

#[derive(Serialize)]
struct Reading<'a> {
    v: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    u: Option<&'a str>,
    t: f64,
    q: &'static str,
}

/// What is no number is no value.
fn worth(value: Value) -> reading::Value {
    if let Value::Nothing = value { reading::Value::Bad } else { reading::Value::Good }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: Value, unit: Option<&str>, set: bool, shown: &str) {
        let taken = Wall { millis: 1_771_234_567_123, set };
        assert_eq!(std::str::from_utf8(&payload(value, unit, taken)), Ok(shown));
    }

    #[test]
    fn a_reading_carries_value_unit_time_and_quality() {
        check(Value::Float(23.4), Some("V"), true, r#"{"v":23.4,"u":"V","t":1771234567.123,"q":"good"}"#);
        check(Value::Bool(true), None, true, r#"{"v":true,"t":1771234567.123,"q":"good"}"#);
        check(Value::Signed(-1), Some("°C"), false, r#"{"v":-1,"u":"°C","t":1771234567.123,"q":"no-clock"}"#);
    }

    #[test]
    fn what_is_no_number_is_of_bad_quality() {
        check(Value::Nothing, Some("V"), true, r#"{"v":null,"u":"V","t":1771234567.123,"q":"bad"}"#);
        check(Value::Nothing, None, false, r#"{"v":null,"t":1771234567.123,"q":"bad,no-clock"}"#);
    }

    #[test]
    fn a_reading_without_a_clock_can_be_mended() {
        let unset = Wall { millis: 61_123, set: false };
        let set = Wall { millis: 1_771_234_567_123, set: true };
        let shift = 1_771_234_506_000;
        for value in [Value::Float(-0.5), Value::Bool(true), Value::Nothing] {
            let mended = reading::mend(&payload(value, Some("V"), unset), shift, reading::Mended::Exactly);
            assert_eq!(mended.unwrap(), payload(value, Some("V"), set));
        }
    }
}
