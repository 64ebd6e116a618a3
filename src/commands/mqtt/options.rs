//! The options that `pub` and `sub` have in common, and the CONNECT that they amount to.
//!
//! What they mean to the broker is decided here alone; a session of MQTT 5 that is kept without an expiry
//! is kept for ever, as mosquitto has it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{ArgAction, Args};

use super::super::Failure;
use crate::codec::{Connect, Properties, Property, QoS, Version, Will};

/// Who connects where, as mosquitto's clients name it.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
    /// The broker's host
    #[arg(short = 'h', long, default_value = "127.0.0.1")]
    pub host: String,
    /// The broker's port
    #[arg(short = 'p', long, default_value_t = 1883)]
    pub port: u16,
    /// Connect to this unix socket instead
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,
    /// Client id; the broker gives one where it is left out
    #[arg(short = 'i', long, value_name = "ID", conflicts_with = "id_prefix")]
    pub id: Option<String>,
    /// Client id made of this and the process's number
    #[arg(short = 'I', long, value_name = "PREFIX")]
    pub id_prefix: Option<String>,
    /// User name
    #[arg(short = 'u', long)]
    pub username: Option<String>,
    /// Password, which other users of the machine can see here
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD", requires = "username")]
    pub password: Option<OsString>,
    /// Version of the protocol: 31, 311 or 5, also mqttv31, mqttv311, mqttv5
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "311", value_parser = version)]
    pub protocol_version: Version,
    /// Quality of service: 0, 1 or 2
    #[arg(short = 'q', long, default_value = "0", value_parser = qos)]
    pub qos: QoS,
    /// Keep the session when this client goes; needs -i
    #[arg(short = 'c', long)]
    pub disable_clean_session: bool,
    /// Seconds between pings; 0 is none
    #[arg(short = 'k', long, value_name = "SECONDS", default_value_t = 60)]
    pub keepalive: u16,
    /// Seconds that the session outlives the connection (MQTT 5)
    #[arg(short = 'x', long, value_name = "SECONDS")]
    pub session_expiry_interval: Option<u32>,
    /// Tell on standard error which packets pass
    #[arg(short = 'd', long)]
    pub debug: bool,
    /// Tell no errors
    #[arg(long)]
    pub quiet: bool,
    /// The topic on which the broker publishes if this client vanishes
    #[arg(long, value_name = "TOPIC")]
    pub will_topic: Option<String>,
    /// The payload of the will
    #[arg(long, value_name = "PAYLOAD", requires = "will_topic")]
    pub will_payload: Option<OsString>,
    /// The QoS of the will
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value = "0", value_parser = qos)]
    pub will_qos: QoS,
    /// The will is retained
    #[arg(long, requires = "will_topic")]
    pub will_retain: bool,
}

impl ClientArgs {
    /// The CONNECT.
    ///
    /// # Errors
    /// Options that do not go together.
    pub(super) fn connect(&self) -> Result<Connect, Failure> {
        let wrong = |text: &str| Err(Failure::Usage(text.to_owned()));
        if self.disable_clean_session && self.id.is_none() && self.id_prefix.is_none() {
            return wrong("-c keeps the session of a client id, so it needs -i");
        }
        if self.session_expiry_interval.is_some() && self.protocol_version != Version::V5 {
            return wrong("-x is of MQTT 5, so it needs -V 5");
        }
        // [MQTT311-3.1.2-22] Only MQTT 5 takes a password without a user name; clap asks for both.
        let will = self.will_topic.as_ref().map(|topic| Will {
            qos: self.will_qos,
            retain: self.will_retain,
            topic: topic.as_str().into(),
            payload: self.will_payload.clone().map(OsString::into_vec).unwrap_or_default().into(),
            properties: Properties::new(),
        });
        Ok(Connect {
            version: self.protocol_version,
            clean_start: !self.disable_clean_session,
            keep_alive: self.keepalive,
            client_id: self.client_id().into(),
            will,
            username: self.username.as_deref().map(Into::into),
            password: self.password.clone().map(|password| Bytes::from(password.into_vec())),
            properties: self.properties(),
        })
    }

    fn client_id(&self) -> String {
        match (&self.id, &self.id_prefix, self.protocol_version) {
            (Some(id), _, _) => id.clone(),
            (None, Some(prefix), _) => format!("{prefix}{}", std::process::id()),
            // MQTT 3.1 knows no empty client id, and none over 23 letters.
            (None, None, Version::V31) => format!("tidegate-{}", std::process::id()),
            (None, None, _) => String::new(),
        }
    }

    fn properties(&self) -> Properties {
        if self.protocol_version != Version::V5 {
            return Properties::new();
        }
        let kept = self.disable_clean_session.then_some(u32::MAX);
        match self.session_expiry_interval.or(kept) {
            Some(seconds) => Properties::from_list(&[Property::SessionExpiryInterval(seconds)]),
            None => Properties::new(),
        }
    }
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "31" | "mqttv31" => Ok(Version::V31),
        "311" | "mqttv311" => Ok(Version::V311),
        "5" | "mqttv5" => Ok(Version::V5),
        _ => Err("expected 31, 311 or 5".to_owned()),
    }
}

fn qos(text: &str) -> Result<QoS, String> {
    match text {
        "0" => Ok(QoS::AtMostOnce),
        "1" => Ok(QoS::AtLeastOnce),
        "2" => Ok(QoS::ExactlyOnce),
        _ => Err("expected 0, 1 or 2".to_owned()),
    }
}
