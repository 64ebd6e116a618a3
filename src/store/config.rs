//! The `[store]` table: as it is written, and as the store takes it.
//!
//! Raw texts become checked values once, in [`Config::check`]; nothing behind it parses a unit.

use std::collections::BTreeMap;
use std::time::Duration;

use adapter_api::schema::{Key, Kind, Problem};
use adapter_api::units;
use serde::Deserialize;

use super::room::Sizes;
use crate::record::{Bounds, Policy};

/// `[store]` as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The most that pages in use and the WAL may take.
    pub max_size: String,
    /// Free space on the disk below which the store gives way.
    pub min_free_disk: String,
    /// The longest that a message waits for company before its commit.
    pub commit_interval: String,
    /// Messages that make a commit due.
    pub commit_messages: u32,
    /// Bytes that make a commit due.
    pub commit_bytes: String,
    /// What `commit_interval` may become while the flash budget is short.
    pub commit_interval_max: String,
    /// Bytes a day that may be written; or `none`.
    pub flash_budget: String,
    /// What goes when the store is full.
    pub when_full: String,
    /// How long a client that knows no refusal may wait for room.
    pub refuse_timeout: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_size: "1GB".into(),
            min_free_disk: "200MB".into(),
            commit_interval: "20ms".into(),
            commit_messages: 64,
            commit_bytes: "64KB".into(),
            commit_interval_max: "1s".into(),
            flash_budget: "20GB".into(),
            when_full: "drop-oldest".into(),
            refuse_timeout: "30s".into(),
        }
    }
}

/// The keys of `[store]`.
pub const KEYS: &[Key] = &[
    Key::optional("max_size", Kind::Size(MAX_SIZE_MIN, 1_000_000_000_000_000)),
    Key::optional("min_free_disk", Kind::Size(0, 1_000_000_000_000_000)),
    Key::optional("commit_interval", Kind::Duration(0, 60_000)),
    Key::optional("commit_messages", Kind::Integer(1, 8_192)),
    Key::optional("commit_bytes", Kind::Size(1, 4_000_000)),
    Key::optional("commit_interval_max", Kind::Duration(0, 60_000)),
    Key::optional("flash_budget", Kind::SizeOr("none")),
    Key::optional("when_full", Kind::Choice(&["drop-oldest", "drop-newest", "refuse"])),
    Key::optional("refuse_timeout", Kind::Duration(1_000, 3_600_000)),
];

/// `[store]` as the store takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The most that pages in use and the WAL may take, in bytes; at least 1 MB.
    pub max_size: u64,
    /// Free space on the disk below which the store gives way, in bytes.
    pub min_free_disk: u64,
    /// The longest that a message waits for company before its commit.
    pub commit_interval: Duration,
    /// Messages that make a commit due.
    pub commit_messages: u32,
    /// Bytes that make a commit due.
    pub commit_bytes: u64,
    /// What `commit_interval` may become while the flash budget is short.
    pub commit_interval_max: Duration,
    /// Bytes a day that may be written.
    pub flash_budget: Option<u64>,
    /// What gives way when the store is full, of sessions, of retained messages, and of routes that say
    /// nothing of their own.
    pub when_full: Policy,
    /// How long a client that knows no refusal may wait for room.
    pub refuse_timeout: Duration,
    /// The bounds of routes, by their names; those of the others are `when_full` alone.
    pub routes: BTreeMap<String, Bounds>,
}

impl Checked {
    /// The bounds of a route.
    pub fn bounds_of(&self, route: &str) -> Bounds {
        self.routes.get(route).copied().unwrap_or(self.bounds_of_sessions())
    }

    /// The bounds of sessions; those of their queues are the broker's.
    pub fn bounds_of_sessions(&self) -> Bounds {
        Bounds { when_full: self.when_full, ..Bounds::default() }
    }

    /// Bytes that retained messages may take of `max_size`, so that they leave the most of it to what waits.
    pub fn retained(&self) -> u64 {
        self.max_size / RETAINED_SHARE
    }

    /// Bytes of messages that may wait for a commit where somebody refuses: they fit between the place where
    /// the store says that it is full and `max_size`.
    pub fn in_flight(&self) -> u64 {
        Sizes::of(self).headroom() / 2
    }
}

impl Config {
    /// The checked values, or everything that is wrong.
    pub fn check(&self) -> Result<Checked, Vec<Problem>> {
        let mut problems = Vec::new();
        let flash_budget = match self.flash_budget.as_str() {
            "none" => None,
            text => Some(size(&mut problems, "flash_budget", text)),
        };
        let checked = Checked {
            max_size: size(&mut problems, "max_size", &self.max_size),
            min_free_disk: size(&mut problems, "min_free_disk", &self.min_free_disk),
            commit_interval: duration(&mut problems, "commit_interval", &self.commit_interval),
            commit_messages: self.commit_messages,
            commit_bytes: size(&mut problems, "commit_bytes", &self.commit_bytes),
            commit_interval_max: duration(&mut problems, "commit_interval_max", &self.commit_interval_max),
            flash_budget,
            when_full: Policy::named(&self.when_full).unwrap_or_else(|| {
                let text = format!(
                    "found \"{}\", expected \"drop-oldest\", \"drop-newest\" or \"refuse\"",
                    self.when_full
                );
                wrong(&mut problems, "when_full", text);
                Policy::DropOldest
            }),
            refuse_timeout: duration(&mut problems, "refuse_timeout", &self.refuse_timeout),
            routes: BTreeMap::new(),
        };
        if problems.is_empty() && checked.max_size < MAX_SIZE_MIN {
            let found = units::show_size(checked.max_size);
            wrong(&mut problems, "max_size", format!("found {found}, expected at least 1MB"));
        }
        if self.commit_messages == 0 {
            wrong(&mut problems, "commit_messages", "found 0, expected at least 1".into());
        }
        if problems.is_empty() && checked.commit_interval_max < checked.commit_interval {
            let (interval, max) = (&self.commit_interval, &self.commit_interval_max);
            // One of the two is most likely not given at all.
            if *max == Config::default().commit_interval_max {
                let text = format!(
                    "found \"{interval}\", expected at most commit_interval_max, which is \"{max}\": make this shorter, or that longer"
                );
                wrong(&mut problems, "commit_interval", text);
            } else {
                let text =
                    format!("found \"{max}\", expected at least commit_interval, which is \"{interval}\"");
                wrong(&mut problems, "commit_interval_max", text);
            }
        }
        if problems.is_empty() { Ok(checked) } else { Err(problems) }
    }
}

fn size(problems: &mut Vec<Problem>, key: &str, text: &str) -> u64 {
    units::parse_size(text).unwrap_or_else(|expected| {
        wrong(problems, key, format!("found \"{text}\", expected {expected}"));
        0
    })
}

fn duration(problems: &mut Vec<Problem>, key: &str, text: &str) -> Duration {
    units::parse_duration(text).unwrap_or_else(|expected| {
        wrong(problems, key, format!("found \"{text}\", expected {expected}"));
        Duration::ZERO
    })
}

fn wrong(problems: &mut Vec<Problem>, key: &str, text: String) {
    problems.push(Problem { key: key.into(), text });
}

/// Retained messages have one part of so many.
const RETAINED_SHARE: u64 = 4;

/// Below this there is no room for a WAL and a handful of segments.
const MAX_SIZE_MIN: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        config.check().expect_err("must be refused").into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_default_is_what_the_contract_says() {
        let checked = Config::default().check().unwrap();
        assert_eq!(checked.max_size, 1_000_000_000);
        assert_eq!(checked.min_free_disk, 200_000_000);
        assert_eq!(checked.commit_interval, Duration::from_millis(20));
        assert_eq!((checked.commit_messages, checked.commit_bytes), (64, 64_000));
        assert_eq!(checked.commit_interval_max, Duration::from_secs(1));
        assert_eq!(checked.flash_budget, Some(20_000_000_000));
    }

    #[test]
    fn every_wrong_value_is_reported_at_once() {
        let found = problems(|config| {
            config.max_size = "big".into();
            config.commit_interval = "soon".into();
            config.when_full = "explode".into();
            config.refuse_timeout = "later".into();
        });
        assert_eq!(found, ["max_size", "commit_interval", "when_full", "refuse_timeout"]);
        assert_eq!(problems(|config| config.max_size = "10KB".into()), ["max_size"]);
        assert_eq!(problems(|config| config.commit_interval_max = "1ms".into()), ["commit_interval_max"]);
        assert_eq!(problems(|config| config.commit_interval = "2s".into()), ["commit_interval"]);
        assert_eq!(problems(|config| config.commit_messages = 0), ["commit_messages"]);
    }

    #[test]
    fn no_budget_is_a_word() {
        let config = Config { flash_budget: "none".into(), ..Config::default() };
        assert_eq!(config.check().unwrap().flash_budget, None);
    }
}
