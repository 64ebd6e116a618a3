//! Counters, and how the bus and its devices do, as `status` shows it.
//!
//! A change of state is reported at once, counters every few seconds. A device is up from its first answer,
//! values or exception, until it is dead; what is wrong meanwhile stands in the reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adapter_api::{Counts, Health, Host, State};
use serde::Serialize;
use serde_json::{Value, json};

use crate::checked::Bus;
use crate::line::Heard;
use crate::schedule::Life;

/// Counts and reports for one bus.
pub(crate) struct Reporter {
    host: Arc<dyn Host>,
    path: String,
    bus: Part,
    devices: Vec<Device>,
    foreign: u64,
    crc_errors: u64,
    opened: u64,
    report_at: Duration,
}

struct Device {
    path: String,
    unit: u8,
    part: Part,
    /// What a request was refused with, by its place in the plan.
    exceptions: BTreeMap<usize, String>,
    /// How long after its question the last late answer came, since the last one in time.
    late_by: Option<Duration>,
}

struct Part {
    state: State,
    reason: Option<String>,
    /// Whether the host has not heard it yet.
    is_new: bool,
    /// The state that the log has.
    logged: State,
    /// Until then going down is not logged.
    quiet_until: Option<Duration>,
    tally: Tally,
}

/// How polls ended: `polls = good + timeouts + exceptions`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    polls: u64,
    good: u64,
    timeouts: u64,
    exceptions: u64,
    late: u64,
}

/// How one poll ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With values.
    Good,
    /// The device refused, and with what.
    Exception(String),
    /// Nothing came in time.
    Timeout,
}

impl Reporter {
    pub(crate) fn new(host: Arc<dyn Host>, bus: &Bus, now: Duration) -> Reporter {
        let path = format!("modbus/{}", bus.name);
        let devices = bus.devices.iter().map(|device| Device {
            path: format!("{path}/{}", device.name),
            unit: device.unit,
            part: Part::new(),
            exceptions: BTreeMap::new(),
            late_by: None,
        });
        let devices = devices.collect();
        Reporter {
            host,
            path,
            bus: Part::new(),
            devices,
            foreign: 0,
            crc_errors: 0,
            opened: 0,
            report_at: now,
        }
    }

    /// The line is open.
    pub(crate) fn opened(&mut self, now: Duration) {
        self.opened += 1;
        self.bus.turn(&self.path, State::Up, None, now);
    }

    /// The line is not; then no device can answer.
    pub(crate) fn lost(&mut self, reason: &str, now: Duration) {
        self.bus.turn(&self.path, State::Down, Some(reason.to_owned()), now);
        for device in &mut self.devices {
            device.part.turn(&device.path, State::Down, Some("the line is not open".to_owned()), now);
        }
    }

    /// A poll ended, and so the device lives or not.
    pub(crate) fn ended(&mut self, device: usize, request: usize, ended: &Ended, life: Life, now: Duration) {
        self.bus.tally.add(ended);
        let Some(device) = self.devices.get_mut(device) else { return };
        device.part.tally.add(ended);
        match ended {
            Ended::Good => {
                device.exceptions.remove(&request);
                device.late_by = None;
            }
            Ended::Exception(text) => {
                device.exceptions.insert(request, text.clone());
                device.late_by = None;
            }
            Ended::Timeout => {}
        }
        let exception = device.exceptions.values().next().cloned();
        let (state, reason) = match (ended, life) {
            (Ended::Timeout, Life::Dead) => (State::Down, Some(device.silence())),
            // One silence among answers changes nothing yet.
            (Ended::Timeout, Life::Alive) => return,
            (_, Life::Dead) => (State::Down, exception),
            (_, Life::Alive) => (State::Up, exception),
        };
        device.part.turn(&device.path, state, reason, now);
    }

    /// What else was on the line.
    pub(crate) fn heard(&mut self, heard: &Heard) {
        self.foreign += heard.foreign;
        self.crc_errors += heard.corrupt;
        for (unit, (count, after)) in &heard.late {
            self.bus.tally.late += count;
            if let Some(device) = self.devices.iter_mut().find(|device| device.unit == *unit) {
                device.part.tally.late += count;
                device.late_by = Some(*after);
            }
        }
    }

    /// When [`Reporter::report`] is next due.
    pub(crate) fn report_at(&self) -> Duration {
        self.report_at
    }

    /// Reports what changed its state, and everything where that is due.
    pub(crate) fn report(&mut self, readings: Counts, missed: u64, now: Duration) {
        if self.report_at <= now {
            self.report_at = now + EVERY;
            self.bus.log(&self.path, now);
            for device in &mut self.devices {
                device.part.log(&device.path, now);
            }
            self.report_all(readings, missed);
        } else if self.bus.is_new || self.devices.iter().any(|device| device.part.is_new) {
            self.send(readings, missed);
        }
    }

    /// Reports everything.
    pub(crate) fn report_all(&mut self, readings: Counts, missed: u64) {
        self.bus.is_new = true;
        for device in &mut self.devices {
            device.part.is_new = true;
        }
        self.send(readings, missed);
    }

    fn send(&mut self, readings: Counts, missed: u64) {
        if self.bus.is_new {
            let mut counters = json!(self.bus.tally);
            if let Value::Object(map) = &mut counters {
                map.insert("foreign".to_owned(), self.foreign.into());
                map.insert("crc_errors".to_owned(), self.crc_errors.into());
                map.insert("opened".to_owned(), self.opened.into());
                map.insert("missed".to_owned(), missed.into());
                map.insert("published".to_owned(), readings.published.into());
                map.insert("dropped".to_owned(), readings.dropped.into());
                map.insert("refused".to_owned(), readings.refused.into());
                map.insert("waiting".to_owned(), readings.waiting.into());
            }
            self.host.report(&self.path, self.bus.health(counters));
        }
        for device in &mut self.devices {
            if device.part.is_new {
                let counters = json!(device.part.tally);
                self.host.report(&device.path, device.part.health(counters));
            }
        }
    }
}

impl Device {
    fn silence(&self) -> String {
        match self.late_by {
            Some(after) => {
                let millis = after.as_millis();
                format!(
                    "answers come too late, the last {millis} ms after the question: raise the bus's `timeout`"
                )
            }
            None => "no answer".to_owned(),
        }
    }
}

impl Part {
    fn new() -> Part {
        let (state, tally) = (State::Starting, Tally::default());
        Part { state, reason: None, is_new: true, logged: state, quiet_until: None, tally }
    }

    fn turn(&mut self, path: &str, state: State, reason: Option<String>, now: Duration) {
        if self.state == state && self.reason == reason {
            return;
        }
        (self.state, self.reason, self.is_new) = (state, reason, true);
        self.log(path, now);
    }

    /// Logs the state where the log does not have it. Going down is logged once in a while, so that a
    /// device which comes and goes many times a minute does not fill the journal.
    fn log(&mut self, path: &str, now: Duration) {
        let (state, why) = (self.state.as_str(), self.reason.as_deref().unwrap_or(""));
        if self.state == self.logged {
            return;
        }
        if self.state != State::Down {
            tracing::info!(path, state, why, "modbus");
        } else if self.quiet_until.is_none_or(|until| until <= now) {
            self.quiet_until = Some(now + LOG_EVERY);
            tracing::warn!(path, state, why, "modbus");
        } else {
            return;
        }
        self.logged = self.state;
    }

    fn health(&mut self, counters: Value) -> Health {
        self.is_new = false;
        Health { state: self.state, reason: self.reason.clone(), counters }
    }
}

impl Tally {
    fn add(&mut self, ended: &Ended) {
        self.polls += 1;
        match ended {
            Ended::Good => self.good += 1,
            Ended::Exception(_) => self.exceptions += 1,
            Ended::Timeout => self.timeouts += 1,
        }
    }
}

/// How often counters are reported where no state changes.
const EVERY: Duration = Duration::from_secs(5);

/// A part that goes down is logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(30);
