//! Counters, and how the line does, as `status` shows it.
//!
//! A change of state is reported at once, counters every few seconds where they changed. A line whose
//! device is open is up, whether it says something or not; what is wrong with what it says stands in the
//! reason.

use std::sync::Arc;
use std::time::Duration;

use adapter_api::{Counts, Health, Host, State};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::framer;
use crate::reading::Unreadable;

/// Counts and reports for one line.
pub(crate) struct Reporter {
    host: Arc<dyn Host>,
    path: String,
    state: State,
    /// Why it is not up.
    reason: Option<String>,
    /// Why the last line was no reading.
    fault: Option<Unreadable>,
    opened: u64,
    not_text: u64,
    unmatched: u64,
    reported: Option<Health>,
    report_at: Instant,
}

impl Reporter {
    pub(crate) fn new(host: Arc<dyn Host>, name: &str) -> Reporter {
        Reporter {
            host,
            path: format!("serial/{name}"),
            state: State::Starting,
            reason: None,
            fault: None,
            opened: 0,
            not_text: 0,
            unmatched: 0,
            reported: None,
            report_at: Instant::now(),
        }
    }

    pub(crate) fn opened(&mut self) {
        self.opened += 1;
        self.fault = None;
        self.turn(State::Up, None);
    }

    pub(crate) fn lost(&mut self, reason: String) {
        self.turn(State::Down, Some(reason));
    }

    /// A line came, and was a reading or not.
    pub(crate) fn line(&mut self, fault: Option<Unreadable>) {
        match fault {
            Some(Unreadable::NotText) => self.not_text += 1,
            Some(Unreadable::Unmatched) => self.unmatched += 1,
            None => {}
        }
        self.fault = fault;
    }

    /// Waits until counters are due.
    pub(crate) async fn due(&self) {
        sleep_until(self.report_at).await;
    }

    /// Reports what changed.
    pub(crate) fn report(&mut self, lines: framer::Counts, readings: Counts) {
        self.report_at = Instant::now() + EVERY;
        let reason = self.reason.clone().or_else(|| self.fault.map(|fault| fault.to_string()));
        let counters = self.counters(lines, readings);
        let health = Health { state: self.state, reason, counters };
        if self.reported.as_ref() != Some(&health) {
            self.host.report(&self.path, health.clone());
            self.reported = Some(health);
        }
    }

    fn counters(&self, lines: framer::Counts, readings: Counts) -> Value {
        json!({
            "opened": self.opened,
            "lines": lines.lines,
            "empty": lines.empty,
            "overlong": lines.overlong,
            "torn": lines.torn,
            "not_text": self.not_text,
            "unmatched": self.unmatched,
            "published": readings.published,
            "dropped": readings.dropped,
            "refused": readings.refused,
            "waiting": readings.waiting,
        })
    }

    fn turn(&mut self, state: State, reason: Option<String>) {
        if self.state == state && self.reason == reason {
            return;
        }
        let why = reason.as_deref().unwrap_or("");
        match state {
            State::Down => tracing::warn!(path = self.path, state = state.as_str(), why, "serial"),
            State::Starting | State::Up => {
                tracing::info!(path = self.path, state = state.as_str(), why, "serial")
            }
        }
        (self.state, self.reason) = (state, reason);
    }
}

/// How often counters are reported where no state changes.
const EVERY: Duration = Duration::from_secs(5);
