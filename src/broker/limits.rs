//! `[limits]`: what one client and all of them together may take.
//!
//! [`LimitsConfig`] is the table as it is written, [`Limits`] the checked values that the broker works
//! with. Each policy at the limit stands beside its field.

use adapter_api::schema::{Key, Kind, Problem};
use adapter_api::units::{Rate, parse_duration, parse_rate, parse_size};
use serde::Deserialize;

use super::outlet::Ahead;

/// The table as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// See [`Limits::max_connections`].
    pub max_connections: u32,
    /// See [`Limits::max_connections_per_address`].
    pub max_connections_per_address: u32,
    /// See [`Limits::max_connect_rate`].
    pub max_connect_rate: String,
    /// See [`Limits::max_login_failures`].
    pub max_login_failures: String,
    /// See [`Limits::max_publish_rate`].
    pub max_publish_rate: String,
    /// See [`Limits::max_packet_size`].
    pub max_packet_size: String,
    /// See [`Limits::max_inflight`].
    pub max_inflight: u16,
    /// See [`Limits::max_queued_messages`].
    pub max_queued_messages: u64,
    /// See [`Limits::max_queued_bytes`].
    pub max_queued_bytes: String,
    /// See [`Limits::when_queue_full`].
    pub when_queue_full: String,
    /// See [`Limits::max_send_buffer`].
    pub max_send_buffer: String,
    /// See [`Limits::max_memory`].
    pub max_memory: String,
    /// See [`Limits::max_keepalive`].
    pub max_keepalive: String,
    /// See [`Limits::max_session_expiry`].
    pub max_session_expiry: String,
    /// See [`Limits::max_topic_alias`].
    pub max_topic_alias: u16,
    /// See [`Limits::retain`].
    pub retain: bool,
    /// See [`Limits::response_information`].
    pub response_information: String,
}

/// The checked limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Clients connected at a time; further ones are refused with 0x97 (3.1.1: 3). There are ten times as many
    /// places for sessions that outlive their connections: beyond, the one that was absent for longest ends, if
    /// nothing waits in it, and where there is none such the new one is refused.
    pub max_connections: u32,
    /// Clients from one address (IPv6: one /64) at a time; further ones are refused with 0x97 (3.1.1: 3).
    pub max_connections_per_address: u32,
    /// Clients that come from one address; faster ones are refused with 0x9F (3.1.1: 3). `None`: no limit.
    pub max_connect_rate: Option<Rate>,
    /// Wrong passwords from one address; further ones are not compared and refused with 0x9F (3.1.1: 3),
    /// save those that fitted a moment ago. `None`: no limit.
    pub max_login_failures: Option<Rate>,
    /// Publishes of one client; it is not read on until there is room again. What came before the end of its
    /// connection is taken then, and missing when it is back. `None`: no limit.
    pub max_publish_rate: Option<Rate>,
    /// Bytes of one packet from a client; announced, and a larger one ends the connection (0x95).
    pub max_packet_size: u32,
    /// Receive Maximum both ways; a client that exceeds it is disconnected (0x93). So is one that leaves fifty
    /// times as many packet ids of QoS 2 unreleased, which bounds clients before MQTT 5 that cannot be told, or
    /// more than this number where such ids take a sixteenth of `max_memory`.
    pub max_inflight: u16,
    /// Messages that wait for one session that outlives its connection; see `when_queue_full`.
    pub max_queued_messages: u64,
    /// What they may weigh: their bytes and a little for each. After a restart each message that was
    /// queued before weighs as much as those of the session do on the average, until it is read.
    pub max_queued_bytes: u64,
    /// What goes at either limit; counted for the session.
    pub when_queue_full: WhenFull,
    /// Bytes that wait in RAM for one connection: beyond, QoS 0 is dropped, and a session that ends with
    /// its connection is closed over QoS 1 and 2 (0x97).
    pub max_send_buffer: usize,
    /// Bytes of everything that is held in RAM for clients. At three quarters of it the slowest readers are
    /// sent no QoS 0. At the limit new clients and subscriptions are refused (0x97; 3.1.1: 3), and whoever
    /// holds most is disconnected (0x97): a session that is kept goes on from the disk. Retained messages
    /// and wills have half of it, a quarter of that for wills alone; beyond, a message is not retained
    /// (MQTT 5: refused with 0x97), a client with a will is refused. Client ids, user names, filters of
    /// subscriptions and groups of shared ones have a quarter, of which one session has a quarter; beyond,
    /// new sessions of long names are refused (0x97), and subscriptions but for two kilobytes of each session,
    /// the house's own apart; sessions that outlive their connections have an eighth more for that. What groups
    /// know of rows for absent members has a sixteenth; beyond, `when_queue_full` says which row goes.
    /// Sessions that wait for their commit have an eighth; beyond, one that is kept is refused (0x88; 3.1.1:
    /// 3), and SUBSCRIBE and UNSUBSCRIBE of one wait.
    pub max_memory: usize,
    /// Seconds; a longer Keep Alive is lowered by Server Keep Alive (MQTT 5).
    pub max_keepalive: u16,
    /// Seconds; a longer Session Expiry Interval is lowered. `u32::MAX` never expires.
    pub max_session_expiry: u32,
    /// Topic aliases that one client may set; a higher one ends the connection (0x94).
    pub max_topic_alias: u16,
    /// Whether retained messages are kept; if not, MQTT 5 clients are told so.
    pub retain: bool,
    /// What a client that asks for Response Information is told, `%c` being its client id; empty: nothing.
    pub response_information: String,
}

/// What goes when a session's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The messages that have waited longest.
    DropOldest,
    /// The message that comes.
    DropNewest,
}

const WHEN_FULL: &[&str] = &["drop-oldest", "drop-newest"];

/// The keys of `[limits]`.
pub const LIMITS_KEYS: &[Key] = &[
    Key::optional("max_connections", Kind::Integer(1, 1_000_000)),
    Key::optional("max_connections_per_address", Kind::Integer(1, 1_000_000)),
    Key::optional("max_connect_rate", Kind::RateOr(NONE)),
    Key::optional("max_login_failures", Kind::RateOr(NONE)),
    Key::optional("max_publish_rate", Kind::RateOr(NONE)),
    Key::optional("max_packet_size", Kind::Size(1_024, 268_435_455)),
    Key::optional("max_inflight", Kind::Integer(1, 65_535)),
    Key::optional("max_queued_messages", Kind::Integer(1, 1_000_000_000)),
    Key::optional("max_queued_bytes", Kind::Size(1_024, 1_000_000_000_000)),
    Key::optional("when_queue_full", Kind::Choice(WHEN_FULL)),
    Key::optional("max_send_buffer", Kind::Size(16_384, 1_000_000_000)),
    Key::optional("max_memory", Kind::Size(1_000_000, 1_000_000_000_000)),
    Key::optional("max_keepalive", Kind::Duration(1_000, 65_535_000)),
    Key::optional("max_session_expiry", Kind::Duration(1_000, 4_294_967_294_000)),
    Key::optional("max_topic_alias", Kind::Integer(0, 65_535)),
    Key::optional("retain", Kind::Boolean),
    Key::optional("response_information", Kind::Text),
];

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig {
            max_connections: 10_000,
            max_connections_per_address: 10_000,
            max_connect_rate: NONE.into(),
            max_login_failures: "10/m".into(),
            max_publish_rate: NONE.into(),
            max_packet_size: "256KB".into(),
            max_inflight: 20,
            max_queued_messages: 10_000,
            max_queued_bytes: "16MB".into(),
            when_queue_full: "drop-oldest".into(),
            max_send_buffer: "1MB".into(),
            max_memory: "64MB".into(),
            max_keepalive: "18h".into(),
            max_session_expiry: "30d".into(),
            max_topic_alias: 10,
            retain: true,
            response_information: "replies/%c".into(),
        }
    }
}

impl Limits {
    /// Bytes of retained messages of QoS 0 that a client is sent before it is asked what it has taken: with the
    /// half of the buffer that may be full then there is room left for what others publish.
    pub(super) fn ahead(&self) -> Ahead {
        Ahead::of(self.max_send_buffer / 4)
    }
}

impl LimitsConfig {
    /// The limits, or everything that is wrong with them.
    pub fn check(&self) -> Result<Limits, Vec<Problem>> {
        let mut problems = Vec::new();
        let limits = Limits {
            max_connections: self.max_connections,
            max_connections_per_address: self.max_connections_per_address,
            max_connect_rate: rate("max_connect_rate", &self.max_connect_rate, &mut problems),
            max_login_failures: rate("max_login_failures", &self.max_login_failures, &mut problems),
            max_publish_rate: rate("max_publish_rate", &self.max_publish_rate, &mut problems),
            max_packet_size: u32::try_from(size("max_packet_size", &self.max_packet_size, &mut problems))
                .unwrap_or(PACKET_MAX)
                .min(PACKET_MAX),
            max_inflight: self.max_inflight.max(1),
            max_queued_messages: self.max_queued_messages.max(1),
            max_send_buffer: usize::try_from(size("max_send_buffer", &self.max_send_buffer, &mut problems))
                .unwrap_or(usize::MAX),
            max_queued_bytes: size("max_queued_bytes", &self.max_queued_bytes, &mut problems),
            when_queue_full: match self.when_queue_full.as_str() {
                "drop-oldest" => WhenFull::DropOldest,
                "drop-newest" => WhenFull::DropNewest,
                other => {
                    let text = format!("found \"{other}\", expected \"drop-oldest\" or \"drop-newest\"");
                    problems.push(Problem { key: "when_queue_full".into(), text });
                    WhenFull::DropOldest
                }
            },
            max_memory: usize::try_from(size("max_memory", &self.max_memory, &mut problems))
                .unwrap_or(usize::MAX),
            max_keepalive: u16::try_from(seconds("max_keepalive", &self.max_keepalive, &mut problems))
                .unwrap_or(u16::MAX),
            max_session_expiry: u32::try_from(seconds(
                "max_session_expiry",
                &self.max_session_expiry,
                &mut problems,
            ))
            .unwrap_or(u32::MAX),
            max_topic_alias: self.max_topic_alias,
            retain: self.retain,
            response_information: self.response_information.clone(),
        };
        if problems.is_empty() { Ok(limits) } else { Err(problems) }
    }
}

fn size(key: &str, text: &str, problems: &mut Vec<Problem>) -> u64 {
    parse_size(text).unwrap_or_else(|expected| {
        problems.push(Problem { key: key.into(), text: format!("found \"{text}\", expected {expected}") });
        0
    })
}

fn seconds(key: &str, text: &str, problems: &mut Vec<Problem>) -> u64 {
    parse_duration(text).map(|duration| duration.as_secs()).unwrap_or_else(|expected| {
        problems.push(Problem { key: key.into(), text: format!("found \"{text}\", expected {expected}") });
        0
    })
}

fn rate(key: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Rate> {
    if text == NONE {
        return None;
    }
    let rate = parse_rate(text).map_err(|expected| {
        let text = format!("found \"{text}\", expected {expected}, or \"{NONE}\"");
        problems.push(Problem { key: key.into(), text });
    });
    rate.ok()
}

/// The word for no limit.
const NONE: &str = "none";

/// The largest packet that MQTT can say.
const PACKET_MAX: u32 = 268_435_455;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let limits = LimitsConfig::default().check().unwrap();
        assert_eq!((limits.max_packet_size, limits.max_send_buffer), (256_000, 1_000_000));
        assert_eq!((limits.max_keepalive, limits.max_session_expiry), (64_800, 2_592_000));
    }

    #[test]
    fn every_wrong_value_is_named() {
        let wrong = LimitsConfig {
            max_keepalive: "long".into(),
            max_packet_size: "5 apples".into(),
            max_publish_rate: "fast".into(),
            ..Default::default()
        };
        let keys: Vec<String> = wrong.check().unwrap_err().into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["max_publish_rate", "max_packet_size", "max_keepalive"]);
    }
}
