//! `[log]`: how much is said.
//!
//! One text: a level for everything, then levels of single rooms: `"info,bridge=debug,modbus=trace"`.

use adapter_api::schema::{Key, Kind, Problem};
use serde::Deserialize;
use tracing::level_filters::LevelFilter;

/// The section as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `"info"`, or with rooms `"info,bridge=debug"`.
    pub level: String,
}

/// The keys of `[log]`.
pub const KEYS: &[Key] = &[Key::optional("level", Kind::Text)];

/// The section, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// For everything that `rooms` does not name.
    pub level: LevelFilter,
    /// For single rooms and adapters.
    pub rooms: Vec<(&'static str, LevelFilter)>,
}

/// The rooms and adapters that have something to say.
pub const ROOMS: &[&str] = &[
    "bridge", "broker", "config", "control", "engine", "field", "listener", "modbus", "mqtt-sn", "serial",
    "service", "store",
];

impl Default for Config {
    fn default() -> Config {
        Config { level: "info".to_owned() }
    }
}

impl Config {
    /// Reads the levels.
    pub fn check(&self) -> Result<Levels, Vec<Problem>> {
        let mut levels = Levels { level: LevelFilter::INFO, rooms: Vec::new() };
        for part in self.level.split(',').map(str::trim) {
            let result = match part.split_once('=') {
                None => level(part).map(|level| levels.level = level),
                Some((room, word)) => {
                    room_level(room.trim(), word.trim()).map(|pair| levels.rooms.push(pair))
                }
            };
            if let Err(text) = result {
                return Err(vec![Problem { key: "level".to_owned(), text }]);
            }
        }
        Ok(levels)
    }
}

fn room_level(room: &str, word: &str) -> Result<(&'static str, LevelFilter), String> {
    match ROOMS.iter().find(|known| **known == room) {
        Some(known) => Ok((known, level(word)?)),
        None => Err(format!("found room {room:?}, expected one of {}", ROOMS.join(", "))),
    }
}

fn level(word: &str) -> Result<LevelFilter, String> {
    match word {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(format!(
            "found {word:?}, expected \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\", then perhaps rooms: \"info,bridge=debug\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_have_levels_of_their_own() {
        let check = |level: &str| Config { level: level.to_owned() }.check();
        let log = check("warn, bridge=debug,modbus=trace").expect("levels");
        assert_eq!(log.level, LevelFilter::WARN);
        assert_eq!(log.rooms, [("bridge", LevelFilter::DEBUG), ("modbus", LevelFilter::TRACE)]);
        assert!(check("loud").is_err());
        assert!(check("").is_err());
        assert!(check("info,brigde=debug").is_err());
    }
}
