//! How the bridge does, for people and programs.
//!
//! One snapshot, changed by the bridge alone and watched by whoever shows it. "Connected" stands here only
//! while acknowledgements come: a link that takes messages and confirms none is "stalled", on the next
//! connection too, until one has come or nothing waits for one.

use std::time::Duration;

use adapter_api::{Health, State};
use serde::{Serialize, Serializer};
use serde_json::json;
use tokio::sync::watch;

use super::config::Checked;
use super::trouble::Trouble;

/// How the bridge does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The bridge's name.
    pub name: String,
    /// Where upstream is.
    pub url: String,
    /// The state.
    pub state: LinkState,
    /// Since when it is in this state, wall clock in milliseconds; told in seconds, as all times are.
    #[serde(serialize_with = "seconds")]
    pub since: u64,
    /// Why it is not connected, or what upstream refuses: "cannot …".
    pub reason: Option<String>,
    /// The same as one word that never changes.
    pub trouble: Option<&'static str>,
    /// When it is tried again, wall clock in milliseconds.
    #[serde(serialize_with = "seconds")]
    pub next_attempt: Option<u64>,
    /// Whether upstream had kept the session at the last connect.
    pub session_present: Option<bool>,
    /// The receive routes' subscriptions, as upstream answered them.
    pub subscriptions: Vec<Subscription>,
    /// Counts since the start.
    pub counts: Counts,
}

/// The state of the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Being made.
    Connecting,
    /// It works.
    Connected,
    /// Connected, but acknowledgements do not come.
    Stalled,
    /// Not there; tried again.
    Down,
}

/// One receive route's subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subscription {
    /// Its filter.
    pub filter: String,
    /// `asked`, `granted`, or why upstream refuses it.
    pub answer: String,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// PUBLISH written, repeats among them.
    pub sent: u64,
    /// Acknowledged by upstream, or written at QoS 0.
    pub acknowledged: u64,
    /// Sent and not acknowledged, now.
    pub in_flight: u64,
    /// Refused by upstream for now; they are sent again.
    pub refused_for_now: u64,
    /// Refused by upstream for good, too large for it, or without a topic there.
    pub given_up: u64,
    /// Run out of time before they could be sent.
    pub expired: u64,
    /// Messages that came from upstream.
    pub received: u64,
    /// Of these, those beyond `[limits] max_packet_size`; acknowledged upward and not published.
    pub too_large: u64,
    /// Of these, those that no receive route takes.
    pub unrouted: u64,
    /// Of these, those that the local broker refused (access rules).
    pub denied: u64,
    /// Connections made.
    pub connects: u64,
    /// Connections lost, and attempts that failed.
    pub failures: u64,
}

/// Where the bridge writes its status.
#[derive(Debug)]
pub(super) struct Board {
    sender: watch::Sender<Status>,
}

impl Board {
    pub(super) fn new(bridge: &Checked, wall: u64) -> Board {
        let subscriptions = bridge
            .receives
            .iter()
            .map(|route| Subscription { filter: route.filter.to_string(), answer: ASKED.to_owned() })
            .collect();
        let (sender, _) = watch::channel(Status {
            name: bridge.name.clone(),
            url: bridge.url.to_string(),
            state: LinkState::Connecting,
            since: wall,
            reason: None,
            trouble: None,
            next_attempt: None,
            session_present: None,
            subscriptions,
            counts: Counts::default(),
        });
        Board { sender }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Status> {
        self.sender.subscribe()
    }

    /// Changes counts and the like.
    pub(super) fn change(&self, change: impl FnOnce(&mut Status)) {
        self.sender.send_modify(change);
    }

    /// Enters a state; `false` where it was in it for the same reason.
    pub(super) fn enter(&self, state: LinkState, trouble: Option<&Trouble>, wall: u64) -> bool {
        self.sender.send_if_modified(|status| {
            let reason = trouble.map(Trouble::sentence);
            if status.state == state && status.reason == reason {
                return false;
            }
            if status.state != state {
                status.since = wall;
            }
            status.state = state;
            status.reason = reason;
            status.trouble = trouble.map(Trouble::word);
            status.next_attempt = None;
            true
        })
    }
}

impl Status {
    /// The same as an adapter reports it, for `tidegate/bridge/<name>/state`.
    pub fn health(&self) -> Health {
        let state = match self.state {
            LinkState::Connecting => State::Starting,
            LinkState::Connected => State::Up,
            LinkState::Stalled | LinkState::Down => State::Down,
        };
        let mut counters = json!(self.counts);
        if let Some(counters) = counters.as_object_mut() {
            counters.insert("link".to_owned(), json!(self.state));
        }
        Health { state, reason: self.reason.clone(), counters }
    }
}

fn seconds<S: Serializer>(millis: &(impl Copy + Into<Option<u64>>), out: S) -> Result<S::Ok, S::Error> {
    let seconds = |millis| Duration::from_millis(millis).as_secs_f64();
    (*millis).into().map(seconds).serialize(out)
}

/// A subscription that upstream has not answered.
pub(super) const ASKED: &str = "asked";
