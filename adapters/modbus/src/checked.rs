//! A bus's configuration turned into values, once, with every mistake reported.
//!
//! Reads no file and opens nothing: what is checked here is what can be known from the text alone. Keys
//! of problems count from the `[[modbus]]` table itself: `device[0].point[2].register`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use adapter_api::schema::Problem;
use adapter_api::units::parse_duration;

use crate::config::{Config, Device, Point, Serial};
use crate::register::Register;
use crate::value::{Order, Type};

/// A bus that can be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Bus {
    /// Its name in topics.
    pub name: String,
    /// How its devices are reached.
    pub link: Link,
    /// How long a device may think.
    pub timeout: Duration,
    /// The longest after a question that its answer may still come.
    pub late_limit: Duration,
    /// The silence before each question.
    pub quiet: Duration,
    /// Its devices, with different units.
    pub devices: Vec<CheckedDevice>,
}

/// How a bus's devices are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// A serial line.
    Serial(Line),
    /// `host:port`.
    Tcp(String),
}

/// A serial line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Path of the device.
    pub device: String,
    /// Bits a second.
    pub baud: u32,
    /// The bit behind the data.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
}

/// The bit behind the data bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// Makes the ones even.
    Even,
    /// Makes the ones odd.
    Odd,
    /// There is none.
    None,
}

/// A device with its number and its points.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedDevice {
    /// Its name in topics.
    pub name: String,
    /// Its number on the bus.
    pub unit: u8,
    /// What is read of it.
    pub points: Vec<CheckedPoint>,
}

/// A value of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedPoint {
    /// Its name in topics.
    pub name: String,
    /// Its first register.
    pub register: Register,
    /// What the registers hold.
    pub kind: Type,
    /// The order of its bytes.
    pub order: Order,
    /// What the number is multiplied with, where it is not 1.
    pub scale: Option<f64>,
    /// The unit of measure.
    pub unit: Option<String>,
    /// How often it is read.
    pub every: Duration,
}

impl Config {
    /// The bus that this describes, or everything that is wrong with it.
    pub fn check(&self) -> Result<Bus, Vec<Problem>> {
        let mut problems = Problems::default();
        problems.name("name", &self.name);
        let link = self.check_link(&mut problems);
        let timeout = problems.duration("timeout", &self.timeout);
        let late_limit = match &self.late_limit {
            Some(text) => problems.duration("late_limit", text),
            None => timeout * 3,
        };
        if late_limit < timeout {
            problems.add("late_limit", "an answer can be late only after the timeout; give at least as much");
        }
        let quiet = match (&self.quiet, &link) {
            (Some(text), _) => problems.duration("quiet", text),
            (None, Some(Link::Serial(line))) => line.silence(),
            (None, _) => Duration::ZERO,
        };
        let devices = self.check_devices(link.as_ref(), &mut problems);
        match link {
            Some(link) if problems.list.is_empty() => {
                Ok(Bus { name: self.name.clone(), link, timeout, late_limit, quiet, devices })
            }
            _ => Err(problems.list),
        }
    }

    fn check_link(&self, problems: &mut Problems) -> Option<Link> {
        match (&self.serial, &self.tcp) {
            (Some(serial), None) => serial.check(problems).map(Link::Serial),
            (None, Some(address)) => {
                if !is_address(address) {
                    problems
                        .add("tcp", format!("\"{address}\" is no \"host:port\", such as \"192.0.2.20:502\""));
                }
                Some(Link::Tcp(address.clone()))
            }
            (Some(_), Some(_)) => {
                problems.add("tcp", "the bus is reached by `serial` or by `tcp`, not by both");
                None
            }
            (None, None) => {
                problems.add("serial", "nothing says how the bus is reached: give `serial` or `tcp`");
                None
            }
        }
    }

    fn check_devices(&self, link: Option<&Link>, problems: &mut Problems) -> Vec<CheckedDevice> {
        let (mut names, mut units) = (BTreeMap::new(), BTreeMap::new());
        if self.device.len() > DEVICES_MAX {
            problems.add("device", format!("a bus has at most {DEVICES_MAX} devices"));
        }
        let mut devices = Vec::new();
        for (index, device) in self.device.iter().enumerate() {
            let key = format!("device[{index}]");
            problems.unique(&format!("{key}.name"), &device.name, &mut names);
            if matches!(link, Some(Link::Serial(_))) && !(1..=247).contains(&device.unit) {
                let text = format!("unit {} does not exist on a serial line, only 1 to 247", device.unit);
                problems.add(format!("{key}.unit"), text);
            }
            if let Some(other) = units.insert(device.unit, &device.name) {
                problems.add(format!("{key}.unit"), format!("unit {} is \"{other}\" already", device.unit));
            }
            let points = device.check_points(&key, problems);
            devices.push(CheckedDevice { name: device.name.clone(), unit: device.unit, points });
        }
        devices
    }
}

impl Serial {
    fn check(&self, problems: &mut Problems) -> Option<Line> {
        if self.device.is_empty() {
            problems.add("serial.device", "the path of a serial device is missing");
        }
        if !(300..=4_000_000).contains(&self.baud) {
            problems.add("serial.baud", format!("{} is not within 300 and 4000000", self.baud));
        }
        if !(1..=2).contains(&self.stop_bits) {
            problems.add("serial.stop_bits", format!("{} is neither 1 nor 2", self.stop_bits));
        }
        let parity = match self.parity.as_str() {
            "even" => Parity::Even,
            "odd" => Parity::Odd,
            "none" => Parity::None,
            other => {
                problems.add("serial.parity", format!("\"{other}\" is none of even, odd, none"));
                return None;
            }
        };
        Some(Line { device: self.device.clone(), baud: self.baud, parity, stop_bits: self.stop_bits })
    }
}

impl Device {
    fn check_points(&self, device: &str, problems: &mut Problems) -> Vec<CheckedPoint> {
        let mut names = BTreeMap::new();
        if self.point.len() > POINTS_MAX {
            problems.add(format!("{device}.point"), format!("a device has at most {POINTS_MAX} points"));
        }
        let mut points = Vec::new();
        for (index, point) in self.point.iter().enumerate() {
            let key = format!("{device}.point[{index}]");
            problems.unique(&format!("{key}.name"), &point.name, &mut names);
            points.extend(point.check(&key, problems));
        }
        points
    }
}

impl Point {
    fn check(&self, key: &str, problems: &mut Problems) -> Option<CheckedPoint> {
        let every = problems.duration(&format!("{key}.every"), &self.every);
        if every < EVERY_MIN {
            problems.add(format!("{key}.every"), "the shortest period is 5ms");
        }
        let register = match Register::parse(&self.register) {
            Ok(register) => register,
            Err(error) => {
                problems.add(format!("{key}.register"), format!("\"{}\": {error}", self.register));
                return None;
            }
        };
        let kind = self.check_type(register, key, problems)?;
        let end = u32::from(register.address) + u32::from(kind.addresses());
        if end > REGISTERS {
            let text = format!("{register} and what belongs to it reach beyond the last address, 65535");
            problems.add(format!("{key}.register"), text);
        }
        let order = match (&self.order, kind) {
            (Some(_), Type::Bool) => {
                problems.add(format!("{key}.order"), "a single bit has no order");
                Order::Abcd
            }
            (Some(word), _) => Order::parse(word).unwrap_or_else(|| {
                problems.add(format!("{key}.order"), format!("\"{word}\" is none of abcd, cdab, badc, dcba"));
                Order::Abcd
            }),
            (None, _) => Order::Abcd,
        };
        let scale = self.check_scale(kind, key, problems);
        Some(CheckedPoint {
            name: self.name.clone(),
            register,
            kind,
            order,
            scale,
            unit: self.unit.clone(),
            every,
        })
    }

    fn check_type(&self, register: Register, key: &str, problems: &mut Problems) -> Option<Type> {
        let key = format!("{key}.type");
        let is_bit = register.kind.is_bit();
        match self.kind.as_deref().map(|word| (word, Type::parse(word))) {
            None if is_bit => return Some(Type::Bool),
            None => problems.add(key, format!("what {register} holds is not said: give one of {}", words())),
            Some((word, None)) => problems.add(key, format!("\"{word}\" is none of {}", words())),
            Some((word, Some(kind))) if (kind == Type::Bool) != is_bit => {
                problems.add(key, format!("{register} does not hold \"{word}\": coils and discrete inputs hold bool, registers numbers"));
            }
            Some((_, kind)) => return kind,
        }
        None
    }

    /// None where the value stays as it is, so that whole numbers stay whole.
    fn check_scale(&self, kind: Type, key: &str, problems: &mut Problems) -> Option<f64> {
        let scale = self.scale?;
        if kind == Type::Bool {
            problems.add(format!("{key}.scale"), "a single bit has no scale");
        } else if !scale.is_finite() || scale == 0.0 {
            problems.add(format!("{key}.scale"), format!("{scale} is no scale: give a number other than 0"));
        }
        Some(scale).filter(|scale| (scale - 1.0).abs() > 0.0)
    }
}

impl Line {
    /// 3.5 characters of 11 bits, fixed above 19,200 baud (Modbus over serial line 2.5.1.1).
    fn silence(&self) -> Duration {
        if self.baud > 19_200 { Duration::from_micros(1_750) } else { self.time_of(7) / 2 }
    }

    /// How long so many characters take on the line.
    pub fn time_of(&self, characters: u32) -> Duration {
        Duration::from_secs(1) * characters * 11 / self.baud.max(1)
    }
}

impl Bus {
    /// How long a question for and an answer with so many bytes of values take on the line itself.
    pub fn line_time(&self, bytes: u8) -> Duration {
        match &self.link {
            Link::Serial(line) => line.time_of(8 + 5 + u32::from(bytes)),
            Link::Tcp(_) => Duration::ZERO,
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Link::Serial(line) => f.write_str(&line.device),
            Link::Tcp(address) => f.write_str(address),
        }
    }
}

#[derive(Default)]
struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.list.push(Problem { key: key.into(), text: text.into() });
    }

    fn duration(&mut self, key: &str, text: &str) -> Duration {
        parse_duration(text).unwrap_or_else(|expected| {
            self.add(key, format!("\"{text}\" is not {expected}"));
            Duration::from_secs(1)
        })
    }

    /// Names are levels of topics.
    fn name(&mut self, key: &str, name: &str) {
        let is_level = !name.contains(|c: char| matches!(c, '/' | '+' | '#') || c.is_control());
        if name.is_empty() || name.len() > NAME_MAX || !is_level {
            let text =
                format!("\"{name}\" cannot be a level of a topic: 1 to {NAME_MAX} bytes without / + #");
            self.add(key, text);
        }
    }

    fn unique(&mut self, key: &str, name: &str, seen: &mut BTreeMap<String, ()>) {
        self.name(key, name);
        if seen.insert(name.to_owned(), ()).is_some() {
            self.add(key, format!("\"{name}\" is there already"));
        }
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = !host.is_empty() && !host.contains(char::is_whitespace);
        is_host && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

fn words() -> String {
    Type::WORDS.join(", ")
}

/// Units are bytes.
const DEVICES_MAX: usize = 256;

/// More than the largest device has a use for; each is a topic.
const POINTS_MAX: usize = 4_096;

/// The longest name, since three of them make a topic.
const NAME_MAX: usize = 128;

/// Addresses of one kind.
const REGISTERS: u32 = 65_536;

/// The shortest period.
const EVERY_MIN: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        serde_json::from_str(text).expect("a configuration")
    }

    fn check(text: &str, expected: &str) {
        let shown = match parse(text).check() {
            Ok(_) => "good".to_owned(),
            Err(problems) => {
                let lines: Vec<String> =
                    problems.iter().map(|problem| format!("{}: {}", problem.key, problem.text)).collect();
                lines.join("\n")
            }
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_bus_is_read_with_its_defaults() {
        let text = r#"{"name": "line-1", "serial": {"device": "/dev/ttyUSB0"}, "device": [{"name": "meter", "unit": 3,
            "point": [{"name": "l1", "register": "30001", "type": "f32", "scale": 1.0}, {"name": "on", "register": "coil:5"}]}]}"#;
        let bus = parse(text).check().expect("a good bus");
        assert_eq!((bus.timeout, bus.late_limit), (Duration::from_secs(1), Duration::from_secs(3)));
        assert_eq!(bus.quiet, Duration::from_nanos(4_010_416));
        assert_eq!(bus.line_time(4), Duration::from_nanos(19_479_166));
        let points = &bus.devices[0].points;
        assert_eq!((points[0].kind, points[0].scale), (Type::F32, None));
        assert_eq!((points[1].kind, points[1].every), (Type::Bool, Duration::from_secs(1)));
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        check(
            r##"{"name": "a/b", "timeout": "1", "late_limit": "5ms", "device": [
                {"name": "m", "unit": 3, "point": [
                    {"name": "a", "register": "30000", "type": "u16"},
                    {"name": "a", "register": "input:0"},
                    {"name": "b", "register": "coil:5", "type": "u16", "every": "1ms"},
                    {"name": "c", "register": "holding:65535", "type": "u32", "order": "acbd", "scale": 0},
                    {"name": "#", "register": "discrete:1", "order": "abcd", "scale": 2}]},
                {"name": "m", "unit": 3}]}"##,
            "name: \"a/b\" cannot be a level of a topic: 1 to 128 bytes without / + #\n\
             serial: nothing says how the bus is reached: give `serial` or `tcp`\n\
             timeout: \"1\" is not a duration such as \"500ms\", \"30s\", \"15m\", \"12h\" or \"7d\"\n\
             late_limit: an answer can be late only after the timeout; give at least as much\n\
             device[0].point[0].register: \"30000\": registers in this notation count from 1: the first is \"30001\", the same as \"input:0\"\n\
             device[0].point[1].name: \"a\" is there already\n\
             device[0].point[1].type: what input:0 (0x0, 30001, 300001) holds is not said: give one of bool, u16, i16, u32, i32, u64, i64, f32, f64\n\
             device[0].point[2].every: the shortest period is 5ms\n\
             device[0].point[2].type: coil:5 (0x5, 00006, 000006) does not hold \"u16\": coils and discrete inputs hold bool, registers numbers\n\
             device[0].point[3].register: holding:65535 (0xffff, 465536) and what belongs to it reach beyond the last address, 65535\n\
             device[0].point[3].order: \"acbd\" is none of abcd, cdab, badc, dcba\n\
             device[0].point[3].scale: 0 is no scale: give a number other than 0\n\
             device[0].point[4].name: \"#\" cannot be a level of a topic: 1 to 128 bytes without / + #\n\
             device[0].point[4].order: a single bit has no order\n\
             device[0].point[4].scale: a single bit has no scale\n\
             device[1].name: \"m\" is there already\n\
             device[1].unit: unit 3 is \"m\" already",
        );
    }

    #[test]
    fn a_bus_is_reached_in_one_way_that_exists() {
        let line = |serial: &str| format!(r#"{{"name": "x", "serial": {serial}}}"#);
        check(r#"{"name": "x", "tcp": "192.0.2.20:502"}"#, "good");
        check(r#"{"name": "x", "tcp": "[2001:db8::1]:502"}"#, "good");
        check(
            r#"{"name": "x", "tcp": "plc"}"#,
            "tcp: \"plc\" is no \"host:port\", such as \"192.0.2.20:502\"",
        );
        check(
            r#"{"name": "x", "tcp": "plc:502", "serial": {"device": "a"}}"#,
            "tcp: the bus is reached by `serial` or by `tcp`, not by both",
        );
        check(&line(r#"{"device": "a", "parity": "none", "stop_bits": 2, "baud": 115200}"#), "good");
        check(
            &line(r#"{"parity": "mark", "stop_bits": 3, "baud": 1}"#),
            "serial.device: the path of a serial device is missing\n\
             serial.baud: 1 is not within 300 and 4000000\n\
             serial.stop_bits: 3 is neither 1 nor 2\n\
             serial.parity: \"mark\" is none of even, odd, none",
        );
    }

    #[test]
    fn units_are_those_of_the_link() {
        let bus = |link: &str, unit: u8| {
            format!(r#"{{"name": "x", {link}, "device": [{{"name": "m", "unit": {unit}}}]}}"#)
        };
        check(&bus(r#""tcp": "plc:502""#, 0), "good");
        check(&bus(r#""tcp": "plc:502""#, 255), "good");
        check(&bus(r#""serial": {"device": "a"}"#, 247), "good");
        check(
            &bus(r#""serial": {"device": "a"}"#, 0),
            "device[0].unit: unit 0 does not exist on a serial line, only 1 to 247",
        );
    }
}
