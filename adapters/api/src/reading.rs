//! The time and the quality in a reading's payload, and how both are mended.
//!
//! A reading is JSON in which `"t":<seconds since 1970>` stands right before `"q":"<quality>"`. Where the clock was
//! not yet set when it was taken, the quality says so, and `t` is what the house believed; once the clock is
//! set the same payload can say the truth. Text of a device cannot look like this: its quotes are escaped.

use crate::clock::Wall;

/// What a reading's value is worth, apart from its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// It was measured.
    Good,
    /// It is no value.
    Bad,
}

/// The word for a reading's `q`.
pub fn quality(value: Value, taken: Wall) -> &'static str {
    match (value, taken.set) {
        (Value::Good, true) => GOOD,
        (Value::Bad, true) => BAD,
        (Value::Good, false) => NO_CLOCK,
        (Value::Bad, false) => BAD_NO_CLOCK,
    }
}

/// The number for a reading's `t`: seconds since 1970, exact to the millisecond for the next 280,000 years.
pub fn seconds(taken: Wall) -> f64 {
    taken.millis as f64 / 1_000.0
}

/// How well a mended time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// To the millisecond: its quality no longer speaks of the clock.
    Exactly,
    /// Better than before.
    Nearly,
}

/// Whether the payload is a reading that was taken before the clock was set.
pub fn is_unclocked(payload: &[u8]) -> bool {
    Places::of(payload).is_some()
}

/// The reading with its time moved by so many milliseconds; `None` where it is none that needs it.
pub fn mend(payload: &[u8], shift: i64, mended: Mended) -> Option<Vec<u8>> {
    let places = Places::of(payload)?;
    let taken = std::str::from_utf8(payload.get(places.time.clone())?).ok()?.parse::<f64>().ok()?;
    #[allow(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
    let millis = ((taken * 1_000.0).round() as i64).saturating_add(shift).max(0);
    let mut out = Vec::with_capacity(payload.len() + 8);
    out.extend_from_slice(payload.get(..places.time.start)?);
    let taken = Wall { millis: millis.unsigned_abs(), set: mended == Mended::Exactly };
    serde_json::to_writer(&mut out, &seconds(taken)).ok()?;
    out.extend_from_slice(payload.get(places.time.end..places.quality.start)?);
    out.extend_from_slice(quality(places.value, taken).as_bytes());
    out.extend_from_slice(payload.get(places.quality.end..)?);
    Some(out)
}

/// Where time and quality stand in a reading without a clock.
struct Places {
    time: std::ops::Range<usize>,
    quality: std::ops::Range<usize>,
    value: Value,
}

impl Places {
    fn of(payload: &[u8]) -> Option<Places> {
        let time = find(payload, b"\"t\":")? + b"\"t\":".len();
        let rest = payload.get(time..)?;
        let comma = rest.iter().position(|byte| *byte == b',')?;
        let quality = time + comma + b",\"q\":\"".len();
        if payload.get(time + comma..quality) != Some(b",\"q\":\"") {
            return None;
        }
        let word = payload.get(quality..)?;
        let length = word.iter().position(|byte| *byte == b'"')?;
        let value = match word.get(..length)? {
            word if word == NO_CLOCK.as_bytes() => Value::Good,
            word if word == BAD_NO_CLOCK.as_bytes() => Value::Bad,
            _ => return None,
        };
        Some(Places { time: time..time + comma, quality: quality..quality + length, value })
    }
}

/// Where `needle` begins.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

const GOOD: &str = "good";
const BAD: &str = "bad";
const NO_CLOCK: &str = "no-clock";
const BAD_NO_CLOCK: &str = "bad,no-clock";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload: &str, shift: i64, mended: Mended, expected: Option<&str>) {
        let found = mend(payload.as_bytes(), shift, mended).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(found.as_deref(), expected, "{payload}");
        assert_eq!(is_unclocked(payload.as_bytes()), expected.is_some(), "{payload}");
    }

    #[test]
    fn a_reading_without_a_clock_is_mended() {
        check(
            r#"{"v":23.4,"u":"°C","t":61.123,"q":"no-clock"}"#,
            1_771_234_506_000,
            Mended::Exactly,
            Some(r#"{"v":23.4,"u":"°C","t":1771234567.123,"q":"good"}"#),
        );
        check(
            r#"{"v":null,"t":1771234567.123,"q":"bad,no-clock","status":"ST"}"#,
            -2_000,
            Mended::Exactly,
            Some(r#"{"v":null,"t":1771234565.123,"q":"bad","status":"ST"}"#),
        );
        check(
            r#"{"v":1,"t":0.5,"q":"no-clock"}"#,
            -1_000,
            Mended::Nearly,
            Some(r#"{"v":1,"t":0.0,"q":"no-clock"}"#),
        );
    }

    #[test]
    fn what_is_good_or_no_reading_stays_as_it_is() {
        for payload in [
            r#"{"v":23.4,"t":1771234567.123,"q":"good"}"#,
            r#"{"v":null,"t":1771234567.123,"q":"bad"}"#,
            r#"{"v":"\"t\":1,\"q\":\"no-clock\"","t":1771234567.123,"q":"good"}"#,
            r#"{"t":1,"x":2,"q":"no-clock"}"#,
            r#"{"v":1,"t":,"q":"no-clock"#,
            "no-clock",
            "",
        ] {
            check(payload, 5_000, Mended::Exactly, None);
        }
    }

    #[test]
    fn the_words_of_quality() {
        let at = |set| Wall { millis: 1_500, set };
        assert_eq!(quality(Value::Good, at(true)), "good");
        assert_eq!(quality(Value::Good, at(false)), "no-clock");
        assert_eq!(quality(Value::Bad, at(true)), "bad");
        assert_eq!(quality(Value::Bad, at(false)), "bad,no-clock");
        assert!((seconds(at(true)) - 1.5).abs() < f64::EPSILON);
    }
}
