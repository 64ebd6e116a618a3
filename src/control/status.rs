//! What the service says of itself, as `status --json` prints it.
//!
//! The service fills it, commands render it. Fields may be added; none changes its meaning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// `[gateway] id`.
    pub gateway: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Every configured listener.
    pub listeners: Vec<ListenerStatus>,
    /// The broker's counters.
    pub broker: BrokerStatus,
    /// The store; `None` where it could not be asked in time.
    pub store: Option<StoreFigures>,
    /// Every configured bridge.
    pub bridges: Vec<BridgeStatus>,
    /// Every forward route.
    pub routes: Vec<RouteStatus>,
    /// Forward routes that the configuration names no more, each with its last line: what waited for it is dropped,
    /// as `purged`.
    pub routes_gone: Vec<GoneRoute>,
    /// Parts of adapters by their path, `modbus/line-1/meter`.
    pub adapters: BTreeMap<String, AdapterStatus>,
    /// What is wrong with the gateway as a whole, in words.
    pub warnings: Vec<String>,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerStatus {
    /// Its name, or its configured address.
    pub name: String,
    /// The bound address, with the real port where 0 was configured; the configured one until bound.
    pub address: String,
    /// Whether clients can come in.
    pub open: bool,
    /// Why it is not open; or what is wrong although it is, say with a certificate that was renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The broker's counters since the start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerStatus {
    /// Clients connected now.
    pub clients: u64,
    /// Sessions, connected or kept.
    pub sessions: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    /// PUBLISH packets received.
    pub messages_received: u64,
    /// PUBLISH packets sent.
    pub messages_sent: u64,
    /// Parts of the house that the broker does not let in, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub turned_away: BTreeMap<String, String>,
    /// Further counters by name.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// How the store does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreFigures {
    /// Pages in use and the WAL, in bytes.
    pub size: u64,
    /// `max_size`.
    pub max_size: u64,
    /// Bytes of damaged databases that were put aside; they count in no limit.
    pub put_aside: u64,
    /// The newest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put_aside_as: Option<String>,
    /// Commits since the start.
    pub commits: u64,
    /// Bytes written to disk since the start.
    pub written: u64,
    /// Why it does not commit, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Whether it is full, for routes and sessions that do not let their oldest go.
    pub full: bool,
    /// Sessions that outlive their connections, their lines added up. Those that are gone stay in it: what still waited
    /// for them is dropped, as `purged`.
    pub sessions: Conservation,
}

/// A conservation line: `received = delivered + queued + expired + dropped`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Conservation {
    /// Counted in the transaction that holds the message.
    pub received: u64,
    /// Acknowledged.
    pub delivered: u64,
    /// Counted from the rows.
    pub queued: u64,
    /// Run out of time.
    pub expired: u64,
    /// By reason.
    pub dropped: BTreeMap<String, u64>,
}

/// One bridge.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeStatus {
    /// Its name.
    pub name: String,
    /// `connected`, `connecting`, `stalled`, `down`.
    pub state: String,
    /// Seconds since 1970 when it came into this state, as in its topic.
    pub since: f64,
    /// Why, in words, where it is not connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The upstream that it speaks to or tries, without its secrets.
    pub url: String,
    /// When it is tried again, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<f64>,
    /// Its receive routes' subscriptions.
    pub subscriptions: Vec<SubscriptionStatus>,
    /// What passed since the start.
    pub counts: BridgeCounts,
}

/// One receive route's subscription.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriptionStatus {
    /// Its filter.
    pub filter: String,
    /// `asked`, `granted`, or why upstream refuses it.
    pub answer: String,
}

/// What passed over a bridge since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeCounts {
    /// PUBLISH packets written, repeats among them.
    pub sent: u64,
    /// Of these, those that upstream acknowledged.
    pub acknowledged: u64,
    /// Sent and not yet acknowledged.
    pub in_flight: u64,
    /// Refused by upstream for now; they are sent again.
    pub refused_for_now: u64,
    /// Refused by upstream for good, too large for it, or without a topic there.
    pub given_up: u64,
    /// Messages that came from upstream.
    pub received: u64,
    /// Of these, those beyond `[limits] max_packet_size`.
    pub too_large: u64,
    /// Of these, those that no receive route takes.
    pub unrouted: u64,
    /// Of these, those that access rules refused.
    pub denied: u64,
    /// Connections made.
    pub connects: u64,
    /// Connections lost, and attempts that failed.
    pub failures: u64,
}

/// The conservation line of one route.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteStatus {
    /// Its name.
    pub name: String,
    /// Its bridge.
    pub bridge: String,
    /// Whether the store does not say: the figures stand for nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
    /// Counted in the transaction that holds the message.
    pub received: u64,
    /// Acknowledged upstream.
    pub delivered: u64,
    /// Counted from the rows.
    pub queued: u64,
    /// Run out of time.
    pub expired: u64,
    /// By reason.
    pub dropped: BTreeMap<String, u64>,
    /// Publishes that it would have had, and that were refused for want of room; since the start, and apart.
    pub not_accepted: u64,
    /// Whether it has reached its limits and refuses or drops what comes.
    pub full: bool,
}

/// A route that the configuration names no more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GoneRoute {
    /// Its name.
    pub name: String,
    /// All that became of its messages.
    #[serde(flatten)]
    pub line: Conservation,
}

/// One part of an adapter.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AdapterStatus {
    /// `starting`, `up` or `down`.
    pub state: String,
    /// Seconds since 1970 when it came into this state, as in its topic.
    pub since: f64,
    /// Why, in words, where it is not up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A flat object of counters.
    pub counters: serde_json::Value,
}

impl RouteStatus {
    /// Its conservation line.
    pub fn line(&self) -> Conservation {
        Conservation {
            received: self.received,
            delivered: self.delivered,
            queued: self.queued,
            expired: self.expired,
            dropped: self.dropped.clone(),
        }
    }
}

impl Conservation {
    /// All that was dropped, whatever the reason.
    pub fn dropped_in_all(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Whether `received = delivered + queued + expired + dropped`.
    pub fn is_conserved(&self) -> bool {
        self.received == self.delivered + self.queued + self.expired + self.dropped_in_all()
    }
}
