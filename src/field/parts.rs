//! What adapters have reported, each part under its path.
//!
//! The newest report stands; when its state began is kept over reports that repeat it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapter_api::Health;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// Every part of every adapter that has ever been reported.
#[derive(Debug, Clone, Default)]
pub struct Parts(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    parts: Mutex<BTreeMap<String, Part>>,
    /// Wakes the publisher: a state has changed.
    changed: Notify,
}

/// One bus, device or line.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// As last reported.
    pub health: Health,
    /// When it came into this state, wall clock in milliseconds.
    pub since: u64,
    unpublished: Unpublished,
}

/// What the broker has not been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unpublished {
    Nothing,
    /// Only counters: these can wait, since each publish is a write to flash.
    Counters,
    /// State or reason.
    State,
}

/// Which parts [`Parts::unpublished`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Those whose state or reason is new.
    States,
    /// Those of which anything is new.
    All,
}

impl Parts {
    /// Everything, by path.
    pub fn read(&self) -> BTreeMap<String, Part> {
        self.lock().clone()
    }

    /// Takes a report.
    pub(super) fn report(&self, path: &str, health: Health, wall: u64) {
        let mut parts = self.lock();
        let full = parts.len() >= PARTS_MAX;
        let news = match parts.get_mut(path) {
            Some(part) => part.renew(health, wall),
            None if full => return,
            None => {
                let part = Part { health, since: wall, unpublished: Unpublished::State };
                parts.insert(path.to_owned(), part);
                Unpublished::State
            }
        };
        drop(parts);
        if news == Unpublished::State {
            self.0.changed.notify_one();
        }
    }

    /// Waits until a state has changed.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// What is to be published: path and JSON. It counts as published from now on.
    pub(super) fn unpublished(&self, due: Due) -> Vec<(String, Value)> {
        let least = match due {
            Due::States => Unpublished::State,
            Due::All => Unpublished::Counters,
        };
        let mut parts = self.lock();
        let due = parts.iter_mut().filter(|(_, part)| part.unpublished >= least);
        due.map(|(path, part)| {
            part.unpublished = Unpublished::Nothing;
            (path.clone(), part.json())
        })
        .collect()
    }

    /// All is to be published again: the broker may have lost it.
    pub(super) fn publish_again(&self) {
        for part in self.lock().values_mut() {
            part.unpublished = Unpublished::State;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Part>> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn renew(&mut self, health: Health, wall: u64) -> Unpublished {
        let news = if self.health.state != health.state {
            self.since = wall;
            Unpublished::State
        } else if self.health.reason != health.reason {
            Unpublished::State
        } else if self.health.counters != health.counters {
            Unpublished::Counters
        } else {
            Unpublished::Nothing
        };
        self.health = health;
        self.unpublished = self.unpublished.max(news);
        news
    }

    fn json(&self) -> Value {
        let seconds = std::time::Duration::from_millis(self.since).as_secs_f64();
        json!({
            "state": self.health.state.as_str(),
            "since": seconds,
            "reason": self.health.reason,
            "counters": self.health.counters,
        })
    }
}

/// Parts beyond this many are not kept: no configuration has as many.
const PARTS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use adapter_api::State;

    use super::*;

    fn health(state: State, reason: Option<&str>, polls: u64) -> Health {
        Health { state, reason: reason.map(str::to_owned), counters: json!({ "polls": polls }) }
    }

    fn paths(parts: &Parts, due: Due) -> Vec<String> {
        parts.unpublished(due).into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn a_state_is_published_at_once_and_counters_in_their_time() {
        let parts = Parts::default();
        parts.report("modbus/line-1", health(State::Up, None, 1), 1_500);
        parts.report("serial/scale", health(State::Down, Some("unplugged"), 0), 1_600);
        let published = parts.unpublished(Due::States);
        let expected = json!({ "state": "up", "since": 1.5, "reason": null, "counters": { "polls": 1 } });
        assert_eq!(published[0], ("modbus/line-1".to_owned(), expected));
        assert_eq!(published.len(), 2);

        parts.report("modbus/line-1", health(State::Up, None, 2), 2_000);
        assert!(paths(&parts, Due::States).is_empty());
        assert_eq!(paths(&parts, Due::All), ["modbus/line-1"]);
        assert_eq!(parts.read()["modbus/line-1"].since, 1_500, "it has been up since");

        parts.report("serial/scale", health(State::Down, Some("no such device"), 0), 3_000);
        assert_eq!(paths(&parts, Due::States), ["serial/scale"]);
        assert_eq!(parts.read()["serial/scale"].since, 1_600);
        assert!(paths(&parts, Due::All).is_empty());
    }
}
