//! A line as the payload that goes to the broker.
//!
//! `{"v":12.05,"u":"kg","t":1771234567.123,"q":"good","status":"ST"}`: value, unit, seconds since 1970 at
//! which the line's last byte was there, quality, and what else the pattern names. Which group becomes
//! what depends on the pattern alone, so that all readings of a line have one shape; [`Parser::regex`] says
//! how. What is a number in decimal notation becomes a number, anything else stays text.

use adapter_api::clock::Wall;
use adapter_api::reading::{self, quality, seconds};
use bytes::Bytes;
use regex::{Captures, Regex, RegexBuilder};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Number, Value};

/// What is read of a line.
#[derive(Debug, Clone)]
pub enum Parser {
    /// The whole line is the value, as text or, where it is one, as a number.
    Text,
    /// Named groups.
    Regex(Groups),
    /// The line's bytes are the payload as they are.
    Raw,
}

/// A pattern and what its named groups become.
#[derive(Debug, Clone)]
pub struct Groups {
    pattern: Regex,
    value: Role,
    /// The group of the unit.
    unit: Option<String>,
    /// Groups that stand beside the value under their own names.
    beside: Vec<String>,
}

/// Where the value comes from.
#[derive(Debug, Clone)]
enum Role {
    /// From this group.
    Group(String),
    /// From several, as an object.
    Object(Vec<String>),
}

/// Why a line is no reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not UTF-8, or with control characters: noise, or another baud rate or parity than the device's.
    #[error("the line is not text; baud rate and parity may not be the device's")]
    NotText,
    /// The pattern is not in it.
    #[error("the line does not match the pattern")]
    Unmatched,
}

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// No regular expression.
    #[error("the pattern is not valid: {0}")]
    Invalid(String),
    /// Nothing would be read.
    #[error("the pattern names no group: write `(?<value>…)` around what is to be read")]
    NoGroup,
    /// A name of the payload itself.
    #[error("the pattern names a group {0:?}, which the payload has already: name it otherwise")]
    Taken(String),
}

impl Parser {
    /// A pattern with named groups, found anywhere in the line. `unit` becomes the unit. `value`
    /// becomes the value, and the other groups stand beside it; without it the one other group does, apart
    /// from `status`, which always stands beside; and where there are several, the value is an object of
    /// them.
    pub fn regex(pattern: &str) -> Result<Parser, BadPattern> {
        let pattern = RegexBuilder::new(pattern)
            .size_limit(PATTERN_SIZE_MAX)
            .build()
            .map_err(|error| BadPattern::Invalid(explain(&error, pattern)))?;
        let names: Vec<String> = pattern.capture_names().flatten().map(String::from).collect();
        if let Some(taken) = names.iter().find(|name| TAKEN.contains(&name.as_str())) {
            return Err(BadPattern::Taken(taken.clone()));
        }
        let unit = names.iter().find(|name| *name == "unit").cloned();
        let others: Vec<String> = names.into_iter().filter(|name| name != "unit").collect();
        let (value, beside) = roles(others).ok_or(BadPattern::NoGroup)?;
        Ok(Parser::Regex(Groups { pattern, value, unit, beside }))
    }

    /// The payload of one line.
    pub fn payload(&self, line: &[u8], taken: Wall) -> Result<Bytes, Unreadable> {
        let reading = match self {
            Parser::Raw => return Ok(Bytes::copy_from_slice(line)),
            Parser::Text => Reading { v: value_of(text_of(line)?), u: None, beside: Vec::new(), taken },
            Parser::Regex(groups) => groups.read(text_of(line)?, taken)?,
        };
        // Serialising to memory fails only for maps with keys that are not text, and there are none.
        Ok(Bytes::from(serde_json::to_vec(&reading).unwrap_or_default()))
    }
}

impl Groups {
    fn read<'a>(&'a self, line: &'a str, taken: Wall) -> Result<Reading<'a>, Unreadable> {
        let captures = self.pattern.captures(line).ok_or(Unreadable::Unmatched)?;
        let v = match &self.value {
            Role::Group(name) => group(&captures, name),
            Role::Object(names) => {
                Value::Object(names.iter().map(|name| (name.clone(), group(&captures, name))).collect())
            }
        };
        // A value whose group took no part in the match was not measured.
        if v.is_null() {
            return Err(Unreadable::Unmatched);
        }
        let u = self.unit.as_ref().and_then(|name| captures.name(name));
        let u = u.map(|unit| unit.as_str().trim());
        let beside = self.beside.iter().map(|name| (name.as_str(), group(&captures, name))).collect();
        Ok(Reading { v, u, beside, taken })
    }
}

/// Of the groups other than the unit: where the value comes from, and which stand beside it.
fn roles(mut others: Vec<String>) -> Option<(Role, Vec<String>)> {
    if let Some(at) = others.iter().position(|name| name == "value") {
        let value = others.remove(at);
        return Some((Role::Group(value), others));
    }
    let (beside, mut values): (Vec<String>, Vec<String>) =
        others.into_iter().partition(|name| name == "status");
    match (values.len(), beside.len()) {
        (0, 0) => None,
        (0, _) => Some((Role::Object(beside), Vec::new())),
        (1, _) => Some((Role::Group(values.remove(0)), beside)),
        _ => Some((Role::Object(values), beside)),
    }
}

struct Reading<'a> {
    v: Value,
    u: Option<&'a str>,
    beside: Vec<(&'a str, Value)>,
    taken: Wall,
}

impl Serialize for Reading<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("v", &self.v)?;
        if let Some(unit) = self.u {
            map.serialize_entry("u", unit)?;
        }
        map.serialize_entry("t", &seconds(self.taken))?;
        map.serialize_entry("q", quality(reading::Value::Good, self.taken))?;
        for (name, value) in &self.beside {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn group(captures: &Captures<'_>, name: &str) -> Value {
    captures.name(name).map_or(Value::Null, |part| value_of(part.as_str()))
}

/// A parity error arrives as a zero byte, and noise seldom as text.
fn text_of(line: &[u8]) -> Result<&str, Unreadable> {
    let text = std::str::from_utf8(line).map_err(|_| Unreadable::NotText)?;
    let is_noise = |char: char| char.is_control() && !matches!(char, '\t' | '\r' | '\n' | '\u{2}' | '\u{3}');
    if text.contains(is_noise) { Err(Unreadable::NotText) } else { Ok(text) }
}

/// A number where the text is one that JSON can say without loss, else the text.
fn value_of(text: &str) -> Value {
    let text = text.trim();
    number_of(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

/// Digits, perhaps with a sign, a point, an exponent: what a device prints for a number.
fn number_of(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_decimal = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    // Leaves out what Rust also reads as numbers: `inf`, `nan`, a second sign.
    if !unsigned.starts_with(|char: char| char.is_ascii_digit() || char == '.')
        || !unsigned.bytes().all(is_decimal)
    {
        return None;
    }
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        // One that does not fit would lose digits as a float: it stays text.
        let positive = text.strip_prefix('+').unwrap_or(text);
        return positive.parse().map(|number: i64| Number::from(number)).ok();
    }
    Number::from_f64(text.parse().ok()?)
}

/// The error's words without its drawing, which needs several lines.
fn explain(error: &regex::Error, pattern: &str) -> String {
    match error {
        regex::Error::Syntax(text) => {
            let last = text.lines().last().unwrap_or_default();
            format!("{}, at `{pattern}`", last.trim_start_matches("error: "))
        }
        regex::Error::CompiledTooBig(limit) => format!("it takes more than {limit} bytes of memory"),
        other => other.to_string(),
    }
}

/// Names of the payload that no group may have.
const TAKEN: &[&str] = &["v", "u", "t", "q"];

/// Bytes that a compiled pattern may take.
const PATTERN_SIZE_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEN_AT: Wall = Wall { millis: 1_771_234_567_123, set: true };

    fn check(parser: &Parser, line: &str, expected: &str) {
        let payload = parser.payload(line.as_bytes(), TAKEN_AT);
        let shown = match &payload {
            Ok(bytes) => std::str::from_utf8(bytes).unwrap().replace(r#""t":1771234567.123,"q":"good""#, "…"),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(shown, expected, "{line}");
    }

    fn regex(pattern: &str) -> Parser {
        Parser::regex(pattern).unwrap()
    }

    #[test]
    fn a_scale_s_weight_is_the_value_and_its_status_stands_beside() {
        let scale = regex(r"(?<status>ST|US),\w+,(?<weight>[-+\d.]+)\s*(?<unit>\w+)");
        check(&scale, "ST,GS,+12.05 kg", r#"{"v":12.05,"u":"kg",…,"status":"ST"}"#);
        check(&scale, "US,NT,-0000.5g", r#"{"v":-0.5,"u":"g",…,"status":"US"}"#);
        check(&scale, "OL,GS,------ kg", "Unmatched");
    }

    #[test]
    fn several_groups_make_an_object_unless_one_is_the_value() {
        check(
            &regex(r"T=(?<temperature>\S+) H=(?<humidity>\S+)"),
            "T=21.5 H=40",
            r#"{"v":{"humidity":40,"temperature":21.5},…}"#,
        );
        check(&regex(r"(?<channel>\d+):(?<value>\S+)"), "3:7.25", r#"{"v":7.25,…,"channel":3}"#);
        check(&regex(r"(?<status>OK|ERR)"), "ERR", r#"{"v":{"status":"ERR"},…}"#);
    }

    #[test]
    fn a_group_that_took_no_part_is_null_beside_and_no_reading_as_the_value() {
        let pattern = regex(r"(?<value>\d+)?;(?<note>\w+)?;");
        check(&pattern, "5;;", r#"{"v":5,…,"note":null}"#);
        check(&pattern, ";x;", "Unmatched");
    }

    #[test]
    fn what_a_number_is() {
        for (text, value) in [
            ("12", "12"),
            ("+7", "7"),
            ("-007", "-7"),
            (" 1.50 ", "1.5"),
            (".5", "0.5"),
            ("5.", "5.0"),
            ("1e3", "1000.0"),
            ("-1.2E-3", "-0.0012"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "\"9223372036854775808\""),
            ("1e999", "\"1e999\""),
            ("1.2.3", "\"1.2.3\""),
            ("--1", "\"--1\""),
            ("inf", "\"inf\""),
            ("nan", "\"nan\""),
            ("0x10", "\"0x10\""),
            ("-", "\"-\""),
            (".", "\".\""),
            ("1,5", "\"1,5\""),
        ] {
            check(&Parser::Text, text, &format!(r#"{{"v":{value},…}}"#));
        }
    }

    #[test]
    fn noise_is_no_reading() {
        let unreadable = |line: &[u8]| Parser::Text.payload(line, TAKEN_AT).unwrap_err();
        assert_eq!(unreadable(b"12\x00.5"), Unreadable::NotText);
        assert_eq!(unreadable(b"12\xFF"), Unreadable::NotText);
        assert_eq!(unreadable(b"\x1b[0m"), Unreadable::NotText);
        assert_eq!(Parser::Raw.payload(b"\x00\xFF", TAKEN_AT).unwrap(), &b"\x00\xFF"[..]);
    }

    #[test]
    fn a_clock_that_is_not_set_is_told() {
        let taken = Wall { millis: 1_000, set: false };
        let payload = Parser::Text.payload(b"1", taken).unwrap();
        assert_eq!(payload, &br#"{"v":1,"t":1.0,"q":"no-clock"}"#[..]);
    }

    #[test]
    fn a_reading_without_a_clock_can_be_mended() {
        let unset = Wall { millis: 61_123, set: false };
        let shift = 1_771_234_506_000;
        for (parser, line) in [
            (Parser::Text, r#""t":1,"q":"no-clock""#),
            (regex(r"(?<value>\d+) (?<status>\w+)"), "12 ST"),
            (regex(r"(?<T>\d+) (?<x>\d+)"), "12 13"),
        ] {
            let payload = |taken| parser.payload(line.as_bytes(), taken).unwrap();
            let mended = reading::mend(&payload(unset), shift, reading::Mended::Exactly);
            assert_eq!(mended.unwrap(), payload(TAKEN_AT), "{line}");
        }
        assert!(!reading::is_unclocked(&Parser::Text.payload(br#""t":1,"q":"no-clock""#, TAKEN_AT).unwrap()));
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_refused() {
        for (pattern, text) in [
            (r"\d+", "the pattern names no group: write `(?<value>…)` around what is to be read"),
            (r"(?<unit>\w+)", "the pattern names no group: write `(?<value>…)` around what is to be read"),
            (
                r"(?<t>\d+)",
                "the pattern names a group \"t\", which the payload has already: name it otherwise",
            ),
            (
                r"(?<value>\w{1000}){1000}",
                "the pattern is not valid: it takes more than 1000000 bytes of memory",
            ),
        ] {
            assert_eq!(Parser::regex(pattern).unwrap_err().to_string(), text);
        }
    }
}
