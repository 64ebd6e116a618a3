//! A serial line's configuration turned into values, once, with every mistake reported.
//!
//! Reads no file and opens nothing: what is checked here is what can be known from the text alone. Keys of
//! problems count from the `[[serial]]` table itself: `parse.pattern`.

use adapter_api::schema::Problem;

use crate::config::{Config, FRAME_MAX};
use crate::reading::Parser;

/// A serial line that can be run.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Its name in topics.
    pub name: String,
    /// Path of the device.
    pub device: String,
    /// Bits a second.
    pub baud: u32,
    /// 5 to 8.
    pub data_bits: u8,
    /// The bit behind the data.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
    /// What ends a line; 1 to 16 bytes.
    pub end: Vec<u8>,
    /// Bytes of the longest line, without its end.
    pub max: usize,
    /// What is read of a line.
    pub parser: Parser,
    /// Where readings are published.
    pub topic: String,
}

/// The bit behind the data bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// There is none.
    None,
    /// Makes the ones even.
    Even,
    /// Makes the ones odd.
    Odd,
}

impl Config {
    /// The line that this describes, or everything that is wrong with it.
    pub fn check(&self) -> Result<Checked, Vec<Problem>> {
        let mut problems = Problems::default();
        self.check_name(&mut problems);
        if self.device.is_empty() {
            problems.add("device", "found nothing, expected the path of a device");
        }
        problems.in_range("baud", self.baud, 50, 4_000_000);
        problems.in_range("data_bits", self.data_bits.into(), 5, 8);
        problems.in_range("stop_bits", self.stop_bits.into(), 1, 2);
        let parity = self.check_parity(&mut problems);
        self.check_frame(&mut problems);
        problems.kind("checksum.kind", &self.checksum.kind, &["none"], CHECKSUMS_NOT_YET);
        let parser = self.check_parse(&mut problems);
        let topic = self.check_topic(&mut problems);
        match parser {
            Some(parser) if problems.list.is_empty() => Ok(Checked {
                name: self.name.clone(),
                device: self.device.clone(),
                baud: self.baud,
                data_bits: self.data_bits,
                parity,
                stop_bits: self.stop_bits,
                end: self.frame.end.clone().into_bytes(),
                max: self.frame.max as usize,
                parser,
                topic,
            }),
            _ => Err(problems.list),
        }
    }

    /// The name is one level of topics.
    fn check_name(&self, problems: &mut Problems) {
        let is_level = |char: char| !matches!(char, '/' | '+' | '#') && !char.is_control();
        if self.name.is_empty() || self.name.len() > NAME_MAX || !self.name.chars().all(is_level) {
            let found = format!("found {:?}, expected a name that can stand in a topic", self.name);
            problems.add("name", &format!("{found}: 1 to {NAME_MAX} bytes without `/`, `+` and `#`"));
        }
    }

    fn check_parity(&self, problems: &mut Problems) -> Parity {
        match self.parity.as_str() {
            "even" => Parity::Even,
            "odd" => Parity::Odd,
            other => {
                if other != "none" {
                    let found = format!("found {other:?}, expected \"none\", \"even\" or \"odd\"");
                    problems.add("parity", &found);
                }
                Parity::None
            }
        }
    }

    fn check_frame(&self, problems: &mut Problems) {
        problems.kind("frame.kind", &self.frame.kind, &["line"], FRAMES_NOT_YET);
        if self.frame.end.is_empty() || self.frame.end.len() > END_MAX {
            let found = format!("found {:?}, expected 1 to {END_MAX} bytes", self.frame.end);
            problems.add("frame.end", &found);
        }
        problems.in_range("frame.max", self.frame.max, 1, FRAME_MAX);
    }

    fn check_parse(&self, problems: &mut Problems) -> Option<Parser> {
        let kind = self.parse.kind.as_str();
        problems.kind("parse.kind", kind, &["text", "regex", "raw"], PARSERS_NOT_YET);
        match (kind, &self.parse.pattern) {
            ("regex", Some(pattern)) => match Parser::regex(pattern) {
                Ok(parser) => Some(parser),
                Err(error) => {
                    problems.add("parse.pattern", &error.to_string());
                    None
                }
            },
            ("regex", None) => {
                problems.add("parse.pattern", "a regex needs a pattern");
                None
            }
            (_, Some(_)) => {
                problems.add("parse.pattern", "only `kind = \"regex\"` has a pattern");
                None
            }
            ("raw", None) => Some(Parser::Raw),
            (_, None) => Some(Parser::Text),
        }
    }

    fn check_topic(&self, problems: &mut Problems) -> String {
        let Some(topic) = &self.topic else { return format!("serial/{}", self.name) };
        let is_name = |char: char| !matches!(char, '+' | '#') && !char.is_control();
        if topic.is_empty() || topic.len() > TOPIC_MAX || !topic.chars().all(is_name) {
            let found = format!("found {topic:?}, expected a topic without `+` and `#`");
            problems.add("topic", &found);
        } else if topic.starts_with('$') || topic == "tidegate" || topic.starts_with("tidegate/") {
            problems
                .add("topic", &format!("found {topic:?}; below `$` and `tidegate/` only tidegate publishes"));
        }
        topic.clone()
    }
}

#[derive(Default)]
struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, key: &str, text: &str) {
        self.list.push(Problem { key: key.to_owned(), text: text.to_owned() });
    }

    fn in_range(&mut self, key: &str, found: u32, lowest: u32, highest: u32) {
        if found < lowest || found > highest {
            self.add(key, &format!("found {found}, expected {lowest} to {highest}"));
        }
    }

    fn kind(&mut self, key: &str, found: &str, known: &[&str], later: &[&str]) {
        if known.contains(&found) {
            return;
        }
        let expected: Vec<_> = known.iter().map(|word| format!("{word:?}")).collect();
        let expected = expected.join(", ");
        if later.contains(&found) {
            self.add(key, &format!("{found:?} is not in this version, which has {expected}"));
        } else {
            self.add(key, &format!("found {found:?}, expected one of {expected}"));
        }
    }
}

/// Kinds that the product is to have: they are told from typing errors.
const FRAMES_NOT_YET: &[&str] = &[
    "start-stop",
    "fixed",
    "length",
    "idle",
    "slip",
    "cobs",
    "hdlc",
    "regex",
    "nmea",
    "iec62056-21",
    "sml",
    "p1",
    "m-bus",
];
const CHECKSUMS_NOT_YET: &[&str] = &["sum8", "xor8", "lrc", "nmea", "crc8", "crc16", "crc32"];
const PARSERS_NOT_YET: &[&str] = &["delimited", "key-value", "columns", "json", "binary", "hex", "base64"];

/// Bytes of a name.
const NAME_MAX: usize = 64;

/// Bytes of a topic, as MQTT has them.
const TOPIC_MAX: usize = 65_535;

/// Bytes that can end a line.
const END_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let config: Config = toml::from_str(text).unwrap();
        let found = config.check().err().unwrap_or_default();
        let found: Vec<_> =
            found.iter().map(|problem| format!("{}: {}", problem.key, problem.text)).collect();
        assert_eq!(found, expected, "{text}");
    }

    const LINE: &str = "name = 'scale'\ndevice = '/dev/x'\n";

    #[test]
    fn the_contract_s_example_is_right() {
        let config: Config = toml::from_str(
            r#"
            name = "scale"
            device = "/dev/serial/by-id/x"
            baud = 9600
            frame = { kind = "line", end = "\r\n", max = 256 }
            checksum = { kind = "none" }
            parse = { kind = "regex", pattern = '(?<status>ST|US),\w+,(?<weight>[-+\d.]+)\s*(?<unit>\w+)' }
            topic = "scales/1"
            "#,
        )
        .unwrap();
        let checked = config.check().unwrap();
        assert_eq!((&*checked.end, checked.max, &*checked.topic), (&b"\r\n"[..], 256, "scales/1"));
    }

    #[test]
    fn name_and_device_are_enough() {
        let config: Config = toml::from_str(LINE).unwrap();
        let checked = config.check().unwrap();
        assert_eq!(checked.topic, "serial/scale");
        assert_eq!(
            (checked.baud, checked.data_bits, checked.parity, checked.stop_bits),
            (9_600, 8, Parity::None, 1)
        );
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        check(
            r#"
            name = "a/b"
            baud = 10
            parity = "mark"
            stop_bits = 3
            frame = { kind = "line", end = "", max = 0 }
            parse = { kind = "regex", pattern = "(" }
            topic = "a/#"
            "#,
            &[
                "name: found \"a/b\", expected a name that can stand in a topic: 1 to 64 bytes without `/`, `+` and `#`",
                "device: found nothing, expected the path of a device",
                "baud: found 10, expected 50 to 4000000",
                "stop_bits: found 3, expected 1 to 2",
                "parity: found \"mark\", expected \"none\", \"even\" or \"odd\"",
                "frame.end: found \"\", expected 1 to 16 bytes",
                "frame.max: found 0, expected 1 to 65536",
                "parse.pattern: the pattern is not valid: unclosed group, at `(`",
                "topic: found \"a/#\", expected a topic without `+` and `#`",
            ],
        );
    }

    #[test]
    fn what_is_not_built_is_refused_and_told_from_typing_errors() {
        check(
            &format!(
                "{LINE}frame = {{ kind = 'slip' }}\nchecksum = {{ kind = 'crc16' }}\nparse = {{ kind = 'jsn' }}"
            ),
            &[
                "frame.kind: \"slip\" is not in this version, which has \"line\"",
                "checksum.kind: \"crc16\" is not in this version, which has \"none\"",
                "parse.kind: found \"jsn\", expected one of \"text\", \"regex\", \"raw\"",
            ],
        );
    }

    #[test]
    fn a_pattern_and_a_regex_go_together() {
        check(&format!("{LINE}parse = {{ kind = 'regex' }}"), &["parse.pattern: a regex needs a pattern"]);
        check(
            &format!("{LINE}parse = {{ kind = 'raw', pattern = 'x' }}"),
            &["parse.pattern: only `kind = \"regex\"` has a pattern"],
        );
    }

    #[test]
    fn nobody_publishes_where_tidegate_does() {
        for topic in ["$SYS/x", "tidegate/serial/x", "tidegate"] {
            let config: Config = toml::from_str(&format!("{LINE}topic = '{topic}'")).unwrap();
            assert_eq!(config.check().unwrap_err().len(), 1, "{topic}");
        }
    }
}
