//! `[[serial]]` as the operator writes it, and the table of its keys.
//!
//! [`Config::check`], in `checked.rs`, turns it into values once. Keys that the contract has and this
//! version has not stand in [`KEYS`] as [`Kind::NotYet`]; kinds of frames, checksums and parsers that it has
//! not are refused by the check.

use adapter_api::schema::{Key, Kind};
use serde::Deserialize;

/// One serial line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its name in topics and in `status`.
    pub name: String,
    /// Path of the device; one under `/dev/serial/by-id` survives replugging.
    pub device: String,
    /// Bits a second.
    pub baud: u32,
    /// 5 to 8.
    pub data_bits: u8,
    /// `none`, `even` or `odd`.
    pub parity: String,
    /// 1 or 2.
    pub stop_bits: u8,
    /// Where a frame ends.
    pub frame: Frame,
    /// What a frame is proved by.
    pub checksum: Checksum,
    /// What is read of a frame.
    pub parse: Parse,
    /// Where readings are published; `serial/<name>` unless given.
    pub topic: Option<String>,
}

/// Where a frame ends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Frame {
    /// `line`.
    pub kind: String,
    /// What ends a line; belongs to no line. With the default, a carriage return before it does not either.
    pub end: String,
    /// The longest line in bytes, without its end; a longer one is not published, nor is a part of it.
    pub max: u32,
}

/// What a frame is proved by.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checksum {
    /// `none`.
    pub kind: String,
}

/// What is read of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parse {
    /// `text`: the whole line is the value; `regex`: named groups are; `raw`: the line's bytes are the
    /// payload as they are.
    pub kind: String,
    /// With `regex` alone: the pattern, found anywhere in the line, with named groups.
    pub pattern: Option<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: String::new(),
            device: String::new(),
            baud: 9_600,
            data_bits: 8,
            parity: "none".to_owned(),
            stop_bits: 1,
            frame: Frame::default(),
            checksum: Checksum::default(),
            parse: Parse::default(),
            topic: None,
        }
    }
}

impl Default for Frame {
    fn default() -> Frame {
        Frame { kind: "line".to_owned(), end: "\n".to_owned(), max: 256 }
    }
}

impl Default for Checksum {
    fn default() -> Checksum {
        Checksum { kind: "none".to_owned() }
    }
}

impl Default for Parse {
    fn default() -> Parse {
        Parse { kind: "text".to_owned(), pattern: None }
    }
}

/// The keys of one `[[serial]]`.
pub const KEYS: &[Key] = &[
    Key::required("name", Kind::Text),
    Key::required("device", Kind::Text),
    Key::not_yet_instead("tcp", "device"),
    Key::not_yet_instead("tcp_listen", "device"),
    Key::optional("baud", Kind::Integer(50, 4_000_000)),
    Key::optional("data_bits", Kind::Integer(5, 8)),
    Key::optional("parity", Kind::Choice(&["none", "even", "odd"])),
    Key::optional("stop_bits", Kind::Integer(1, 2)),
    Key::optional("frame", Kind::Table(FRAME_KEYS)),
    Key::optional("checksum", Kind::Table(CHECKSUM_KEYS)),
    Key::optional("parse", Kind::Table(PARSE_KEYS)),
    Key::optional("topic", Kind::Text),
    Key::optional("format", Kind::NotYet),
];

const FRAME_KEYS: &[Key] = &[
    Key::optional("kind", Kind::Text),
    Key::optional("end", Kind::Text),
    Key::optional("max", Kind::Integer(1, FRAME_MAX as i64)),
];

const CHECKSUM_KEYS: &[Key] = &[Key::optional("kind", Kind::Text)];

const PARSE_KEYS: &[Key] = &[Key::optional("kind", Kind::Text), Key::optional("pattern", Kind::Text)];

/// Bytes of the longest line that can be asked for.
pub(crate) const FRAME_MAX: u32 = 65_536;
