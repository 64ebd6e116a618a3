//! The `[mqtt_sn]` table, as written and as checked.
//!
//! [`Config`] is what serde reads; [`Config::check`] turns it once into [`Checked`], which the gateway
//! uses. MQTT-SN knows no password, so every client is anonymous: beyond loopback the operator must say
//! that he wants that.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::time::Duration;

use adapter_api::schema::{Key, Kind, Problem};
use adapter_api::units;
use serde::Deserialize;

/// The table as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// IP address and UDP port.
    pub bind: String,
    /// The number in GWINFO.
    pub gateway_id: u8,
    /// Whether clients that show no password may connect; by default on loopback only.
    pub allow_anonymous: Option<bool>,
    /// The name that access rules see for every client.
    pub user: Option<String>,
    /// Whether publishes without a connection are taken.
    pub allow_qos_minus_1: bool,
    /// Topic names by their number, known to clients beforehand.
    pub predefined: BTreeMap<String, String>,
    /// The longest datagram, either way.
    pub max_packet: String,
    /// Datagrams a second from one address.
    pub max_rate: u32,
    /// Clients that are connected, or whose session is remembered.
    pub max_clients: usize,
    /// Topic ids of one client.
    pub max_topics: usize,
    /// How long a session outlives its connection, where the client wants that.
    pub session_expiry: String,
    /// How long an answer of a client is awaited.
    pub retry_interval: String,
    /// How often a message is sent again before the client counts as lost.
    pub retries: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            bind: "127.0.0.1:10000".into(),
            gateway_id: 1,
            allow_anonymous: None,
            user: None,
            allow_qos_minus_1: false,
            predefined: BTreeMap::new(),
            max_packet: "1400B".into(),
            max_rate: 500,
            max_clients: 1_000,
            max_topics: 256,
            session_expiry: NEVER.into(),
            retry_interval: "10s".into(),
            retries: 3,
        }
    }
}

/// The keys of `[mqtt_sn]`.
pub const KEYS: &[Key] = &[
    Key::optional("bind", Kind::Text),
    Key::optional("gateway_id", Kind::Integer(0, 255)),
    Key::optional("allow_anonymous", Kind::Boolean),
    Key::optional("user", Kind::Text),
    Key::optional("allow_qos_minus_1", Kind::Boolean),
    Key::optional("predefined", Kind::Map),
    Key::optional("advertise", Kind::NotYet),
    Key::optional("max_packet", Kind::Size(60, 65_507)),
    Key::optional("max_rate", Kind::Integer(1, 1_000_000)),
    Key::optional("max_clients", Kind::Integer(1, 100_000)),
    Key::optional("max_topics", Kind::Integer(1, 65_534)),
    Key::optional("session_expiry", Kind::DurationOr(NEVER)),
    Key::optional("retry_interval", Kind::Duration(100, 3_600_000)),
    Key::optional("retries", Kind::Integer(1, 100)),
];

/// The table, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Where to listen; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// The number in GWINFO.
    pub gateway_id: u8,
    /// The name that access rules see.
    pub user: Option<String>,
    /// Whether publishes without a connection are taken.
    pub qos_minus_one: QosMinusOne,
    /// Topic names by their number.
    pub predefined: BTreeMap<u16, String>,
    /// The longest datagram in octets, either way.
    pub max_packet: usize,
    /// Datagrams a second from one address.
    pub max_rate: u32,
    /// Clients that are connected, or whose session is remembered.
    pub max_clients: usize,
    /// Topic ids of one client.
    pub max_topics: usize,
    /// Seconds that a kept session outlives its connection; `u32::MAX` for ever.
    pub session_expiry: u32,
    /// How long an answer of a client is awaited.
    pub retry_interval: Duration,
    /// How often a message is sent again before the client counts as lost.
    pub retries: u32,
}

/// What becomes of publishes without a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosMinusOne {
    /// They are published through one port that all share.
    Accepted,
    /// They are dropped and counted.
    Dropped,
}

impl Config {
    /// Turns what was written into what it means, or says everything that is wrong.
    pub fn check(&self) -> Result<Checked, Vec<Problem>> {
        let mut problems = Vec::new();
        let bind = self.checked_bind(&mut problems);
        let predefined = self.checked_predefined(&mut problems);
        let max_packet = self.checked_max_packet(&mut problems);
        let session_expiry = self.checked_session_expiry(&mut problems);
        let retry_interval = self.checked_retry_interval(&mut problems);
        self.check_limits(&mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Checked {
            bind,
            gateway_id: self.gateway_id,
            user: self.user.clone(),
            qos_minus_one: if self.allow_qos_minus_1 { QosMinusOne::Accepted } else { QosMinusOne::Dropped },
            predefined,
            max_packet,
            max_rate: self.max_rate,
            max_clients: self.max_clients,
            max_topics: self.max_topics,
            session_expiry,
            retry_interval,
            retries: self.retries,
        })
    }

    fn checked_bind(&self, problems: &mut Vec<Problem>) -> SocketAddr {
        let Ok(bind) = self.bind.parse::<SocketAddr>() else {
            let expected = "an IP address and a port such as \"0.0.0.0:10000\" or \"[::1]:10000\"";
            problems.push(found("bind", &self.bind, expected));
            return SocketAddr::from(([127, 0, 0, 1], 0));
        };
        let welcome = self.allow_anonymous.unwrap_or_else(|| bind.ip().is_loopback());
        if !welcome {
            problems.push(Problem {
                key: "allow_anonymous".into(),
                text: format!(
                    "MQTT-SN clients cannot show a password, so nobody could connect to {bind}: set \
                     allow_anonymous = true (and user = \"…\" for the access rules), bind to 127.0.0.1, or \
                     remove [mqtt_sn]"
                ),
            });
        }
        bind
    }

    fn checked_predefined(&self, problems: &mut Vec<Problem>) -> BTreeMap<u16, String> {
        let mut predefined = BTreeMap::new();
        for (id, topic) in &self.predefined {
            let key = format!("predefined.{id}");
            match id.parse::<u16>() {
                // [SN-5.3.11] 0x0000 and 0xFFFF are reserved.
                Ok(number @ 1..=0xFFFE) if crate::gateway::is_topic_name(topic) => {
                    if predefined.insert(number, topic.clone()).is_some() {
                        problems.push(Problem { key, text: format!("topic id {number} is given twice") });
                    }
                }
                Ok(1..=0xFFFE) => problems.push(found(&key, topic, "a topic name without wildcards")),
                _ => problems.push(found(&key, id, "a topic id from 1 to 65534")),
            }
        }
        predefined
    }

    fn checked_max_packet(&self, problems: &mut Vec<Problem>) -> usize {
        let size = units::parse_size(&self.max_packet).ok().and_then(|size| usize::try_from(size).ok());
        // [SN-7.4] ZigBee's 60 octets are the least that a network of the standard carries.
        match size {
            Some(size @ 60..=65_507) => size,
            _ => {
                problems.push(found("max_packet", &self.max_packet, "a size from \"60B\" to \"65507B\""));
                0
            }
        }
    }

    fn checked_session_expiry(&self, problems: &mut Vec<Problem>) -> u32 {
        if self.session_expiry == NEVER {
            return u32::MAX;
        }
        match units::parse_duration(&self.session_expiry) {
            Ok(duration) => u32::try_from(duration.as_secs()).unwrap_or(u32::MAX),
            Err(expected) => {
                let expected = format!("\"{NEVER}\" or {expected}");
                problems.push(found("session_expiry", &self.session_expiry, &expected));
                0
            }
        }
    }

    fn checked_retry_interval(&self, problems: &mut Vec<Problem>) -> Duration {
        match units::parse_duration(&self.retry_interval) {
            Ok(interval) if interval >= RETRY_INTERVAL_MIN => return interval,
            Ok(_) => problems.push(found("retry_interval", &self.retry_interval, "at least \"100ms\"")),
            Err(expected) => {
                problems.push(found("retry_interval", &self.retry_interval, &expected.to_string()));
            }
        }
        RETRY_INTERVAL_MIN
    }

    fn check_limits(&self, problems: &mut Vec<Problem>) {
        if self.retries == 0 {
            problems.push(found("retries", "0", "at least 1"));
        }
        if self.max_rate == 0 {
            problems.push(found("max_rate", "0", "at least 1"));
        }
        if self.max_clients == 0 {
            problems.push(found("max_clients", "0", "at least 1"));
        }
        if !(1..=65_534).contains(&self.max_topics) {
            problems.push(found("max_topics", &self.max_topics.to_string(), "1 to 65534"));
        }
    }
}

fn found(key: &str, found: &str, expected: &str) -> Problem {
    Problem { key: key.into(), text: format!("found \"{found}\", expected {expected}") }
}

/// Below it a radio network would only hear repetitions.
const RETRY_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The word for a session that is kept until somebody ends it.
const NEVER: &str = "never";

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &Config) -> Vec<String> {
        config.check().err().unwrap_or_default().into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_default_is_right_and_serves_loopback_only() {
        let checked = Config::default().check().unwrap();
        assert_eq!(checked.bind.to_string(), "127.0.0.1:10000");
        assert_eq!(checked.session_expiry, u32::MAX);
        assert_eq!(checked.max_packet, 1_400);
        assert_eq!(checked.retry_interval, Duration::from_secs(10));
    }

    #[test]
    fn beyond_loopback_anonymous_clients_must_be_wanted() {
        let open = Config { bind: "0.0.0.0:10000".into(), ..Config::default() };
        assert_eq!(problems(&open), ["allow_anonymous"]);
        let wanted = Config { allow_anonymous: Some(true), ..open };
        assert_eq!(problems(&wanted), [""; 0]);
        let nobody = Config { allow_anonymous: Some(false), ..Config::default() };
        assert_eq!(problems(&nobody), ["allow_anonymous"]);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let config = Config {
            bind: "somewhere".into(),
            predefined: [("0", "a"), ("1", "a/#"), ("2", "a/b"), ("x", "a")]
                .map(|(id, topic)| (id.into(), topic.into()))
                .into(),
            max_packet: "59B".into(),
            session_expiry: "soon".into(),
            retry_interval: "1".into(),
            retries: 0,
            max_rate: 0,
            max_clients: 0,
            max_topics: 70_000,
            ..Config::default()
        };
        let expected = [
            "bind",
            "predefined.0",
            "predefined.1",
            "predefined.x",
            "max_packet",
            "session_expiry",
            "retry_interval",
            "retries",
            "max_rate",
            "max_clients",
            "max_topics",
        ];
        assert_eq!(problems(&config), expected);
    }

    #[test]
    fn a_session_expiry_is_told_in_seconds() {
        let config = Config { session_expiry: "7d".into(), ..Config::default() };
        assert_eq!(config.check().unwrap().session_expiry, 7 * 24 * 3_600);
    }
}
