//! A reading as the payload that goes to the broker.
//!
//! `{"v":23.4,"u":"V","t":1771234567.123,"q":"good"}`: value, unit, seconds since 1970 at which the last
//! byte of the answer was there, quality. Always valid JSON.

use adapter_api::clock::Wall;
use bytes::Bytes;
use serde::Serialize;

use crate::value::Value;

/// The payload of one reading.
pub fn payload(value: Value, unit: Option<&str>, taken: Wall) -> Bytes {
    let reading = Reading { v: value, u: unit, t: seconds(taken), q: quality(value, taken) };
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

fn quality(value: Value, taken: Wall) -> &'static str {
    match value {
        Value::Nothing => "bad",
        _ if !taken.set => "no-clock",
        _ => "good",
    }
}

/// Exact to the millisecond for the next 280,000 years.
fn seconds(taken: Wall) -> f64 {
    taken.millis as f64 / 1_000.0
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
    }
}
