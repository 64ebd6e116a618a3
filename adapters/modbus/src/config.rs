//! `[[modbus]]` as the operator writes it, and the table of its keys.
//!
//! Durations and names are text here; [`Config::check`], in `checked.rs`, turns them into values once. Keys
//! that the contract has and this version has not stand in [`KEYS`] as [`Kind::NotYet`].

use adapter_api::schema::{Key, Kind};
use serde::Deserialize;

use crate::value::{Order, Type};

/// One bus: a serial line or a TCP connection, and the devices on it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its name in topics and in `status`.
    pub name: String,
    /// A serial line; either this or `tcp`.
    pub serial: Option<Serial>,
    /// `host:port` of a Modbus TCP device or gateway.
    pub tcp: Option<String>,
    /// How long a device may think before it answers; what the line itself needs is added.
    pub timeout: String,
    /// The longest after a question that its answer may still come; default three timeouts. After a
    /// timeout a device on a serial line is not asked again before its late answer came or this has passed.
    pub late_limit: Option<String>,
    /// The silence that a line has before each question; default 3.5 characters, none over TCP.
    pub quiet: Option<String>,
    /// Its devices.
    pub device: Vec<Device>,
}

/// The serial line of a bus. Characters have 8 bits, as RTU needs them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serial {
    /// Path of the device; one under `/dev/serial/by-id` survives replugging.
    pub device: String,
    /// Bits a second.
    pub baud: u32,
    /// `even`, `odd` or `none`.
    pub parity: String,
    /// 1 or 2.
    pub stop_bits: u8,
}

/// A device on a bus.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Device {
    /// Its name in topics and in `status`.
    pub name: String,
    /// Its number: 1 to 247 on a line, 0 to 255 over TCP.
    pub unit: u8,
    /// What is read of it.
    pub point: Vec<Point>,
}

/// A value of a device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Point {
    /// Its name in the topic.
    pub name: String,
    /// Where it stands: `input:0`, `holding:0x10`, `30001`, `coil:5`, `discrete:2`.
    pub register: String,
    /// What the registers hold; may be left out for coils and discrete inputs, which are `bool`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The order of its bytes.
    pub order: Option<String>,
    /// What the number is multiplied with.
    pub scale: Option<f64>,
    /// The unit of measure in the reading.
    pub unit: Option<String>,
    /// How often it is read.
    pub every: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: String::new(),
            serial: None,
            tcp: None,
            timeout: "1s".to_owned(),
            late_limit: None,
            quiet: None,
            device: Vec::new(),
        }
    }
}

impl Default for Serial {
    /// What the standard asks of every device (Modbus over serial line 2.2, 3.3), at the baud rate that is most common.
    fn default() -> Serial {
        Serial { device: String::new(), baud: 9_600, parity: "even".to_owned(), stop_bits: 1 }
    }
}

impl Default for Point {
    fn default() -> Point {
        Point {
            name: String::new(),
            register: String::new(),
            kind: None,
            order: None,
            scale: None,
            unit: None,
            every: "1s".to_owned(),
        }
    }
}

/// The keys of one `[[modbus]]`.
pub const KEYS: &[Key] = &[
    Key::required("name", Kind::Text),
    Key::optional("serial", Kind::Table(SERIAL_KEYS)),
    Key::optional("tcp", Kind::Text),
    Key::not_yet_instead("rtu_over_tcp", "serial"),
    Key::not_yet_instead("tcp_listen", "serial"),
    Key::optional("timeout", Kind::Duration(5, 60_000)),
    Key::optional("late_limit", Kind::Duration(5, 600_000)),
    Key::optional("quiet", Kind::Duration(0, 10_000)),
    Key::optional("device", Kind::Tables(DEVICE_KEYS)),
    Key::optional("format", Kind::NotYet),
];

const SERIAL_KEYS: &[Key] = &[
    Key::required("device", Kind::Text),
    Key::optional("baud", Kind::Integer(300, 4_000_000)),
    Key::optional("parity", Kind::Choice(&["even", "odd", "none"])),
    Key::optional("stop_bits", Kind::Integer(1, 2)),
    Key::optional("data_bits", Kind::NotYet),
    Key::optional("rs485", Kind::NotYet),
];

const DEVICE_KEYS: &[Key] = &[
    Key::required("name", Kind::Text),
    Key::required("unit", Kind::Integer(0, 255)),
    Key::optional("template", Kind::NotYet),
    Key::optional("format", Kind::NotYet),
    Key::optional("point", Kind::Tables(POINT_KEYS)),
];

const POINT_KEYS: &[Key] = &[
    Key::required("name", Kind::Text),
    Key::required("register", Kind::Text),
    Key::optional("type", Kind::Choice(&Type::WORDS)),
    Key::optional("order", Kind::Choice(&Order::WORDS)),
    Key::optional("scale", Kind::Number),
    Key::optional("unit", Kind::Text),
    Key::optional("every", Kind::Duration(5, 86_400_000)),
    Key::optional("deadband", Kind::NotYet),
    Key::optional("max_silence", Kind::NotYet),
    Key::optional("writable", Kind::NotYet),
    Key::optional("format", Kind::NotYet),
];

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    /// A table with every key that this version has.
    fn table(keys: &[Key]) -> Value {
        let mut map = Map::new();
        for key in keys {
            let value = match key.kind {
                Kind::NotYet => continue,
                Kind::Table(keys) => table(keys),
                Kind::Tables(keys) => json!([table(keys)]),
                Kind::Integer(lowest, _) => json!(lowest),
                Kind::Number => json!(1.5),
                Kind::Duration(lowest, _) => json!(format!("{lowest}ms")),
                Kind::Choice(words) => json!(words.first()),
                _ => json!("text"),
            };
            map.insert(key.name.to_owned(), value);
        }
        Value::Object(map)
    }

    #[test]
    fn the_table_of_keys_and_the_structs_agree() {
        let all = table(KEYS);
        let read: Config = serde_json::from_value(all.clone()).expect("each key of the table is read");
        assert!(read.serial.is_some() && read.device.iter().any(|device| !device.point.is_empty()));
        for path in [
            "/rtu_over_tcp",
            "/format",
            "/serial/rs485",
            "/device/0/template",
            "/device/0/point/0/writable",
            "/device/0/point/0/format",
        ] {
            let (parent, name) = path.rsplit_once('/').expect("a path");
            let mut with = all.clone();
            let table = with.pointer_mut(parent).and_then(Value::as_object_mut).expect("a table");
            table.insert(name.to_owned(), json!("text"));
            assert!(serde_json::from_value::<Config>(with).is_err(), "{path} is not in this version");
        }
    }
}
