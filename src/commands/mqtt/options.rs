//! The options that `pub` and `sub` have in common, and the CONNECT that they amount to.
//!
//! What they mean to the broker is decided here alone; a session of MQTT 5 that is kept without an expiry
//! is kept for ever, as mosquitto has it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args};

use super::super::Failure;
use super::url::{Carrier, Url};
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
    /// The broker's port [default: 1883, with TLS 8883; of ws:// 80, of wss:// 443]
    #[arg(short = 'p', long)]
    pub port: Option<u16>,
    /// Host, port, user, password and topic in one; mqtts:// for TLS, ws:// and wss:// for WebSocket
    #[arg(short = 'L', long, value_name = "mqtt://[user[:password]@]host[:port]/topic", conflicts_with_all = ["host", "port", "unix"])]
    pub url: Option<Url>,
    /// TLS: trust the authorities in this PEM file
    #[arg(long, value_name = "FILE")]
    pub cafile: Option<PathBuf>,
    /// TLS: trust the authorities in this folder's .crt and .pem files
    #[arg(long, value_name = "FOLDER")]
    pub capath: Option<PathBuf>,
    /// TLS: trust the system's authorities, as port 8883 and mqtts:// do where none are named
    #[arg(long)]
    pub tls_use_os_certs: bool,
    /// TLS: the certificate of this client, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// TLS: its key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// TLS: take a certificate for another host name, for tests
    #[arg(long)]
    pub insecure: bool,
    /// TLS: tlsv1.2 or tlsv1.3 alone
    #[arg(long, value_name = "VERSION", value_parser = tls_version)]
    pub tls_version: Option<TlsVersion>,
    /// Connect to this unix socket instead
    #[arg(long, value_name = "PATH", conflicts_with_all = ["cafile", "capath", "cert", "insecure", "tls_use_os_certs", "tls_version"])]
    pub unix: Option<PathBuf>,
    /// Client id; the broker gives one where it is left out
    #[arg(short = 'i', long, value_name = "ID", conflicts_with = "id_prefix")]
    pub id: Option<String>,
    /// Client id made of this and the process's number
    #[arg(short = 'I', long, value_name = "PREFIX")]
    pub id_prefix: Option<String>,
    /// User name, instead of the URL's
    #[arg(short = 'u', long)]
    pub username: Option<String>,
    /// Password, instead of the URL's; other users of the machine can see it here
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD")]
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

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    V12,
    /// 1.3.
    V13,
}

impl ClientArgs {
    /// Where the broker is.
    pub(super) fn address(&self) -> (&str, u16) {
        let (host, port) = match &self.url {
            Some(url) => (url.host.as_str(), url.port),
            None => (self.host.as_str(), self.port),
        };
        let usual = match (self.carrier(), self.wants_tls()) {
            (Carrier::Stream, false) => 1_883,
            (Carrier::Stream, true) => TLS_PORT,
            (Carrier::WebSocket, false) => 80,
            (Carrier::WebSocket, true) => 443,
        };
        (host, port.unwrap_or(usual))
    }

    /// What carries MQTT.
    pub(super) fn carrier(&self) -> Carrier {
        self.url.as_ref().map_or(Carrier::Stream, |url| url.carrier)
    }

    /// Whether TLS is spoken: where it is said, and at its own port.
    pub(super) fn wants_tls(&self) -> bool {
        self.cafile.is_some()
            || self.capath.is_some()
            || self.cert.is_some()
            || self.insecure
            || self.tls_version.is_some()
            || self.tls_use_os_certs
            || self.url.as_ref().is_some_and(|url| url.secure)
            || (self.url.is_none() && self.port == Some(TLS_PORT))
    }

    /// The topic of `-L`.
    pub(super) fn url_topic(&self) -> Option<&str> {
        self.url.as_ref().map(|url| url.topic.as_str())
    }

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
        let url = self.url.as_ref();
        let username = self.username.clone().or_else(|| url?.username.clone());
        let password = self.password.clone().or_else(|| url?.password.clone().map(OsString::from));
        // [MQTT311-3.1.2-22] Only MQTT 5 takes a password without a user name.
        if password.is_some() && username.is_none() {
            return wrong("-P is the password of a user, so it needs -u");
        }
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
            username: username.as_deref().map(Into::into),
            password: password.map(|password| Bytes::from(password.into_vec())),
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

/// What is to be said where the line was refused over an option that mosquitto's command has and this
/// version has not.
pub(in super::super) fn not_yet(command: &str, error: &clap::Error) -> Option<String> {
    let ContextValue::String(option) = error.get(ContextKind::InvalidArg)? else { return None };
    let of_sub = command == "sub" && NOT_YET_OF_SUB.contains(&option.as_str());
    let of_both = ["pub", "sub"].contains(&command) && NOT_YET.contains(&option.as_str());
    let unknown = error.kind() == ErrorKind::UnknownArgument;
    (unknown && (of_sub || of_both)).then(|| format!("{option} of {command} is not in this version"))
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "31" | "mqttv31" => Ok(Version::V31),
        "311" | "mqttv311" => Ok(Version::V311),
        "5" | "mqttv5" => Ok(Version::V5),
        _ => Err("expected 31, 311 or 5".to_owned()),
    }
}

fn tls_version(text: &str) -> Result<TlsVersion, String> {
    match text {
        "tlsv1.2" => Ok(TlsVersion::V12),
        "tlsv1.3" => Ok(TlsVersion::V13),
        _ => Err("expected tlsv1.2 or tlsv1.3".to_owned()),
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

/// Options of mosquitto's two clients that this version has not.
const NOT_YET: &[&str] = &[
    "-A",
    "-D",
    "--property",
    "-M",
    "--max-inflight",
    "-S",
    "-U",
    "--unsubscribe",
    "--ciphers",
    "--keyform",
    "--nodelay",
    "--proxy",
    "--psk",
    "--psk-identity",
    "--tls-alpn",
    "--tls-engine",
    "--tls-engine-kpass-sha1",
];

/// Those of mosquitto_sub alone.
const NOT_YET_OF_SUB: &[&str] =
    &["-F", "-T", "--filter-out", "--pretty", "--random-filter", "--remove-retained"];

/// Where MQTT within TLS is at home.
const TLS_PORT: u16 = 8_883;
