//! One `[[bridge]]` of the configuration, as written and as checked.
//!
//! [`Config`] is what serde fills, [`KEYS`] what the walk over the file knows, [`Checked`] what the
//! bridge runs on: every text is turned into its value here, once, and every problem is reported.

use std::path::PathBuf;
use std::time::Duration;

use adapter_api::schema::{Key, Kind, Problem};
use serde::Deserialize;

use super::mapping::{Filter, Template, fill_gateway, is_topic};
use super::problems::{Problems, shortened};
use super::rounds;
use super::trouble::Trouble;
use super::url::Url;
use super::{login, tls};
use crate::codec::{QoS, Version};
use crate::record::{Bounds, Keep, Policy};

/// A `[[bridge]]` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its name: topics, logs, the user name of what it receives.
    pub name: String,
    /// Where upstream is.
    pub urls: Vec<String>,
    /// 5 or 4 (3.1.1).
    pub protocol: u8,
    /// Client id; `{gateway}`.
    pub client_id: String,
    /// Over MQTT 5: how long upstream keeps the session where a receive route exists; 7 days where it is not given.
    pub session_expiry: Option<String>,
    /// Off unless given.
    pub status_topic: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// File that holds the password; a relative one is looked for in the systemd credentials first.
    pub password_file: Option<PathBuf>,
    /// For `mqtts` URLs.
    pub tls: Option<TlsConfig>,
    /// Between pings.
    pub keepalive: String,
    /// Sent and not yet acknowledged.
    pub window: u16,
    /// Up.
    pub forward: Vec<ForwardConfig>,
    /// Down.
    pub receive: Vec<ReceiveConfig>,
}

/// `tls` as written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Authorities that are trusted, PEM; the system's where it is not given.
    pub ca: Option<PathBuf>,
    /// Our certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// The name that the certificate must hold, and that is asked for (SNI); the URL's host where it is
    /// not given.
    pub server_name: Option<String>,
}

/// A `[[bridge.forward]]` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ForwardConfig {
    /// Which messages.
    pub filter: String,
    /// Their topic upstream.
    pub to: String,
    /// QoS upstream.
    pub qos: u8,
    /// Whether they are kept until upstream has them.
    pub store: bool,
    /// Beyond this age a message does not go up.
    pub max_age: Option<String>,
    /// Messages that may wait.
    pub max_messages: Option<u64>,
    /// What they may take on disk.
    pub max_bytes: Option<String>,
    /// What gives way where they, or the store, are at their limit; `[store] when_full` where it is not given.
    pub when_full: Option<String>,
    /// Which messages of a topic wait: all, or the latest.
    pub keep: String,
}

/// A `[[bridge.receive]]` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiveConfig {
    /// What is subscribed upstream.
    pub filter: String,
    /// The topic here.
    pub to: String,
    /// QoS of the subscription and of the publish here.
    pub qos: u8,
}

/// A bridge that can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// Where upstream is.
    pub url: Url,
    /// 3.1.1 or 5.
    pub version: Version,
    /// Client id, never empty.
    pub client_id: String,
    /// Seconds that upstream keeps the session where a receive route exists.
    pub session_expiry: u32,
    /// Where online and offline are told.
    pub status_topic: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// How TLS is spoken; used with a `mqtts` URL alone.
    pub tls: Tls,
    /// Between pings; at least 5 s.
    pub keepalive: Duration,
    /// Sent and not yet acknowledged, 1 to 1,000.
    pub window: u16,
    /// Up.
    pub forwards: Vec<Forward>,
    /// Down.
    pub receives: Vec<Receive>,
}

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Which key names it.
    pub key: &'static str,
    /// What is wrong.
    pub trouble: Trouble,
    /// Whether systemd may give it to the service alone.
    pub may_be_credential: bool,
}

/// How TLS is spoken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Authorities; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// Our certificate chain and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the certificate must hold, where it is not the URL's host.
    pub server_name: Option<String>,
}

/// A route up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// `<bridge>:<filter>`: the same as long as bridge and filter are.
    pub name: String,
    /// Which messages.
    pub filter: Filter,
    /// Their topic upstream.
    pub to: Template,
    /// QoS upstream.
    pub qos: QoS,
    /// Whether they are kept until upstream has them.
    pub store: bool,
    /// How much may wait; its policy is that of `when_full`.
    pub bounds: Bounds,
    /// What gives way at a limit, if the route says so itself.
    pub when_full: Option<Policy>,
}

/// A route down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receive {
    /// What is subscribed upstream.
    pub filter: Filter,
    /// The topic here.
    pub to: Template,
    /// QoS of the subscription and of the publish here.
    pub qos: QoS,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: String::new(),
            urls: Vec::new(),
            protocol: 5,
            client_id: "{gateway}".to_owned(),
            session_expiry: None,
            status_topic: None,
            username: None,
            password_file: None,
            tls: None,
            keepalive: "60s".to_owned(),
            window: 100,
            forward: Vec::new(),
            receive: Vec::new(),
        }
    }
}

impl Default for ForwardConfig {
    fn default() -> ForwardConfig {
        ForwardConfig {
            filter: String::new(),
            to: "{topic}".to_owned(),
            qos: 1,
            store: true,
            max_age: None,
            max_messages: None,
            max_bytes: None,
            when_full: None,
            keep: "all".to_owned(),
        }
    }
}

impl Default for ReceiveConfig {
    fn default() -> ReceiveConfig {
        ReceiveConfig { filter: String::new(), to: "{topic}".to_owned(), qos: 1 }
    }
}

impl Config {
    /// Turns texts into values; `gateway` fills `{gateway}`.
    pub fn check(&self, gateway: &str) -> Result<Checked, Vec<Problem>> {
        let mut problems = Problems::default();
        let name = self.check_name(&mut problems);
        let url = self.check_url(&mut problems);
        let version = match self.protocol {
            5 => Some(Version::V5),
            4 => Some(Version::V311),
            found => problems.none("protocol", &format!("found {found}, expected 5 or 4 (3.1.1)")),
        };
        let client_id = self.check_client_id(gateway, &mut problems);
        let session_expiry = self.check_session_expiry(version, &mut problems);
        let status_topic = self.status_topic.as_deref().map(|topic| {
            let filled = problems.mapped("status_topic", topic, fill_gateway(topic, gateway))?;
            if is_topic(&filled) {
                Some(filled)
            } else {
                let text = format!("found \"{topic}\", expected a topic without + and #");
                problems.none("status_topic", &text)
            }
        });
        let keepalive = problems.duration("keepalive", &self.keepalive);
        if keepalive.is_some_and(|keepalive| !(KEEPALIVE_MIN..=KEEPALIVE_MAX).contains(&keepalive)) {
            problems.add("keepalive", &format!("found \"{}\", expected 5s to 65535s", self.keepalive));
        }
        if !(1..=1_000).contains(&self.window) {
            problems.add("window", &format!("found {}, expected 1 to 1000", self.window));
        }
        if self.password_file.is_some() && self.username.is_none() {
            problems.add("password_file", "a password needs a username");
        }
        let tls = self.check_tls(url.as_ref(), &mut problems);
        let forwards = self.check_forwards(gateway, &mut problems);
        let receives = self.check_receives(gateway, &mut problems);
        // Over MQTT 5 upstream is asked not to send us our own messages.
        if version == Some(Version::V311) {
            for round in rounds::find(&forwards, &receives) {
                problems.add(&format!("receive[{}].to", round.receive), &round.to_string());
            }
        }
        let checked = (|| {
            Some(Checked {
                name: name?,
                url: url?,
                version: version?,
                client_id: client_id?,
                session_expiry: session_expiry?,
                status_topic: status_topic.flatten(),
                username: self.username.clone(),
                password_file: self.password_file.clone(),
                tls,
                keepalive: keepalive?,
                window: self.window,
                forwards,
                receives,
            })
        })();
        match checked {
            Some(checked) if problems.0.is_empty() => Ok(checked),
            _ => Err(problems.0),
        }
    }

    /// What is wrong with the files that it names, as they are now, whatever else is wrong. Reads files.
    pub fn examine(&self) -> Vec<Flaw> {
        let tls = self.tls.iter().flat_map(tls::examine);
        let mut flaws: Vec<Flaw> =
            tls.map(|(key, trouble)| Flaw { key, trouble, may_be_credential: false }).collect();
        if let Some(file) = &self.password_file
            && let Err(trouble) = login::password(file)
        {
            flaws.push(Flaw { key: "password_file", trouble, may_be_credential: file.is_relative() });
        }
        flaws
    }

    fn check_name(&self, problems: &mut Problems) -> Option<String> {
        // It is a level of `tidegate/bridge/<name>/state` and a part of route names.
        if self.name.is_empty() || self.name.contains(['/', '+', '#', ':', '\0']) {
            let text = format!("found {:?}, expected a name without / + # and :", self.name);
            return problems.none("name", &text);
        }
        Some(self.name.clone())
    }

    fn check_url(&self, problems: &mut Problems) -> Option<Url> {
        match self.urls.as_slice() {
            [url] => match Url::parse(url) {
                Ok(url) => Some(url),
                // What stands before an @ is most likely a password.
                Err(error) if url.contains('@') => {
                    problems.none("urls[0]", &format!("found a URL with an @ (not shown), {error}"))
                }
                Err(error) => problems.none("urls[0]", &format!("found {}, {error}", shortened(url))),
            },
            [] => problems
                .none("urls", "found [], expected one URL such as \"mqtts://broker.example.com:8883\""),
            urls => {
                let text =
                    format!("found {}, expected one: more than one URL is not in this version", urls.len());
                problems.none("urls", &text)
            }
        }
    }

    fn check_client_id(&self, gateway: &str, problems: &mut Problems) -> Option<String> {
        let filled = problems.mapped("client_id", &self.client_id, fill_gateway(&self.client_id, gateway))?;
        if filled.is_empty() || filled.len() > 65_535 || filled.contains('\0') {
            let found = shortened(&self.client_id);
            return problems
                .none("client_id", &format!("found {found}, expected a client id: 1 to 65535 bytes"));
        }
        Some(filled)
    }

    fn check_session_expiry(&self, version: Option<Version>, problems: &mut Problems) -> Option<u32> {
        let key = "session_expiry";
        let text = self.session_expiry.as_deref();
        if let (Some(text), Some(Version::V311)) = (text, version) {
            let cure = "remove it, or set protocol = 5";
            let text = format!(
                "found \"{text}\", expected none with protocol = 4: MQTT 3.1.1 has no word for it, and upstream keeps the session as long as it likes: {cure}"
            );
            return problems.none(key, &text);
        }
        let expiry = problems.duration(key, text.unwrap_or(SESSION_EXPIRY))?;
        problems.seconds(key, expiry)
    }

    fn check_tls(&self, url: Option<&Url>, problems: &mut Problems) -> Tls {
        let Some(tls) = &self.tls else { return Tls::default() };
        if let Some(url) = url.filter(|url| !url.is_secure()) {
            problems.add(
                "tls",
                &format!("found TLS with urls = [\"{url}\"], expected one that begins with mqtts://"),
            );
        }
        let identity = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => problems.none("tls.key", "a certificate needs its key"),
            (None, Some(_)) => problems.none("tls.cert", "a key needs its certificate"),
        };
        let name = tls.server_name.clone();
        if name.as_deref().is_some_and(|name| rustls::pki_types::ServerName::try_from(name).is_err()) {
            let found = name.as_deref().unwrap_or_default();
            problems.add("tls.server_name", &format!("found {found:?}, expected a host name or an address"));
        }
        Tls { ca: tls.ca.clone(), identity, server_name: name }
    }

    fn check_forwards(&self, gateway: &str, problems: &mut Problems) -> Vec<Forward> {
        let mut forwards: Vec<Forward> = Vec::new();
        for (index, forward) in self.forward.iter().enumerate() {
            let at = |key: &str| format!("forward[{index}].{key}");
            let qos = problems.qos(&at("qos"), forward.qos);
            let route = problems.route(&at, &forward.filter, &forward.to, gateway);
            let (Some((filter, to)), Some(qos)) = (route, qos) else { continue };
            let name = format!("{}:{filter}", self.name);
            if forwards.iter().any(|other| other.name == name) {
                problems.add(
                    &at("filter"),
                    &format!("found \"{filter}\", which another forward route has already"),
                );
                continue;
            }
            let told = filter.as_str();
            if forward.store && (told == "$SYS" || told.starts_with("$SYS/")) {
                problems.add(&at("store"), "$SYS is never stored: this route needs store = false");
            }
            let (bounds, when_full) = forward.check_bounds(&at, problems);
            forwards.push(Forward { name, filter, to, qos, store: forward.store, bounds, when_full });
        }
        forwards
    }

    fn check_receives(&self, gateway: &str, problems: &mut Problems) -> Vec<Receive> {
        let mut receives: Vec<Receive> = Vec::new();
        for (index, receive) in self.receive.iter().enumerate() {
            let at = |key: &str| format!("receive[{index}].{key}");
            let qos = problems.qos(&at("qos"), receive.qos);
            let route = problems.route(&at, &receive.filter, &receive.to, gateway);
            let (Some((filter, to)), Some(qos)) = (route, qos) else { continue };
            if receives.iter().any(|other| other.filter == filter) {
                problems.add(
                    &at("filter"),
                    &format!("found \"{filter}\", which another receive route has already"),
                );
                continue;
            }
            let receive = Receive { filter, to, qos };
            let first = rounds::first_level(&receive);
            if let Some(own) = first.filter(|first| ["$SYS", "tidegate"].contains(&&**first)) {
                problems.add(&at("to"), &format!(
                    "{own} is tidegate's own, and whatever comes there is denied: expected another topic, such as \"commands/{{topic}}\""
                ));
            }
            receives.push(receive);
        }
        receives
    }
}

impl ForwardConfig {
    /// How much may wait, and what gives way.
    fn check_bounds(
        &self,
        at: &impl Fn(&str) -> String,
        problems: &mut Problems,
    ) -> (Bounds, Option<Policy>) {
        let age = self.max_age.as_deref().and_then(|text| problems.duration(&at("max_age"), text));
        let bytes = self.max_bytes.as_deref().and_then(|text| problems.size(&at("max_bytes"), text));
        let when_full = self.when_full.as_deref().and_then(|word| {
            let expected = "\"drop-oldest\", \"drop-newest\" or \"refuse\"";
            let text = format!("found {word:?}, expected {expected}");
            Policy::named(word).or_else(|| problems.none(&at("when_full"), &text))
        });
        let keep = match self.keep.as_str() {
            "all" => Keep::All,
            "latest" => Keep::Latest,
            found => {
                problems.add(&at("keep"), &format!("found {found:?}, expected \"all\" or \"latest\""));
                Keep::All
            }
        };
        let given = [
            ("max_age", self.max_age.is_some()),
            ("max_messages", self.max_messages.is_some()),
            ("max_bytes", self.max_bytes.is_some()),
            ("when_full", self.when_full.is_some()),
            ("keep", keep == Keep::Latest),
        ];
        for (key, _) in given.iter().filter(|(_, given)| *given && !self.store) {
            problems.add(&at(key), "a route with store = false keeps nothing that this could bound");
        }
        if age.is_some_and(|age| age.is_zero()) {
            problems.add(&at("max_age"), "expected at least 1ms");
        }
        if self.max_messages == Some(0) || bytes == Some(0) {
            let key = if bytes == Some(0) { "max_bytes" } else { "max_messages" };
            problems.add(&at(key), "expected more than 0");
        }
        let max_age = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let (max_messages, max_bytes) = (self.max_messages, bytes);
        (Bounds { max_age, max_messages, max_bytes, keep, ..Bounds::default() }, when_full)
    }
}

impl Receive {
    /// What of these topics, given as a filter, is published by it: a filter, where its own template names at
    /// least the first level.
    pub fn lands_on(&self, topics: &str) -> Option<String> {
        rounds::first_level(self)?;
        rounds::landing(self, &Filter::parse(topics).ok()?)
    }
}

impl Forward {
    /// How much may wait, where `[store] when_full` says this.
    pub fn bounds(&self, otherwise: Policy) -> Bounds {
        Bounds { when_full: self.when_full.unwrap_or(otherwise), ..self.bounds }
    }
}

/// How long upstream keeps the session where nothing is said.
const SESSION_EXPIRY: &str = "7d";

/// The keys of a `[[bridge]]`.
pub const KEYS: &[Key] = &[
    Key::required("name", Kind::Text),
    Key::required("urls", Kind::Texts),
    Key::optional("protocol", Kind::Integer(4, 5)),
    Key::optional("client_id", Kind::Text),
    Key::optional("session_expiry", Kind::Duration(1_000, 4_294_967_294_000)),
    Key::optional("status_topic", Kind::Text),
    Key::optional("username", Kind::Text),
    Key::optional("password_file", Kind::Path),
    Key::optional("profile", Kind::NotYet),
    Key::optional("tls", Kind::Table(TLS_KEYS)),
    Key::optional("keepalive", Kind::Duration(5_000, 65_535_000)),
    Key::optional("window", Kind::Integer(1, 1_000)),
    Key::optional("max_rate", Kind::NotYet),
    Key::optional("max_bandwidth", Kind::NotYet),
    Key::optional("monthly_budget", Kind::NotYet),
    Key::optional("forward", Kind::Tables(FORWARD_KEYS)),
    Key::optional("receive", Kind::Tables(RECEIVE_KEYS)),
];

const TLS_KEYS: &[Key] = &[
    Key::optional("ca", Kind::Path),
    Key::optional("cert", Kind::Path),
    Key::optional("key", Kind::Path),
    Key::optional("alpn", Kind::NotYet),
    Key::optional("server_name", Kind::Text),
];

const FORWARD_KEYS: &[Key] = &[
    Key::required("filter", Kind::Text),
    Key::optional("to", Kind::Text),
    Key::optional("qos", Kind::Integer(0, 2)),
    Key::optional("store", Kind::Boolean),
    Key::optional("max_age", Kind::Duration(1, 315_360_000_000)),
    Key::optional("max_messages", Kind::Integer(1, 1_000_000_000_000)),
    Key::optional("max_bytes", Kind::Size(1, 1_000_000_000_000_000)),
    Key::optional("when_full", Kind::Choice(&["drop-oldest", "drop-newest", "refuse"])),
    Key::optional("keep", Kind::Choice(&["all", "latest"])),
    Key::optional("priority", Kind::NotYet),
    Key::optional("catch_up", Kind::NotYet),
];

const RECEIVE_KEYS: &[Key] = &[
    Key::required("filter", Kind::Text),
    Key::optional("to", Kind::Text),
    Key::optional("qos", Kind::Integer(0, 2)),
];

/// Below it, rumqttc refuses to work, and a modem never sleeps.
const KEEPALIVE_MIN: Duration = Duration::from_secs(5);
/// What two bytes of CONNECT can say.
const KEEPALIVE_MAX: Duration = Duration::from_secs(65_535);

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Config {
        let forward = vec![ForwardConfig { filter: "a/#".to_owned(), ..ForwardConfig::default() }];
        let urls = vec!["mqtts://broker.example.com".to_owned()];
        Config { name: "cloud".to_owned(), urls, forward, ..Config::default() }
    }

    /// The keys that are wrong once `change` was made.
    fn wrong(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = minimal();
        change(&mut config);
        let problems = config.check("barn-7").err().unwrap_or_default();
        problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.text)).collect()
    }

    #[test]
    fn what_is_right_becomes_values() {
        let mut config = minimal();
        config.client_id = "gw-{gateway}".to_owned();
        config.status_topic = Some("sites/{gateway}/status".to_owned());
        config.receive =
            vec![ReceiveConfig { filter: "sites/{gateway}/#".to_owned(), ..ReceiveConfig::default() }];
        let checked = config.check("barn-7").unwrap();
        assert_eq!(checked.client_id, "gw-barn-7");
        assert_eq!(checked.status_topic.as_deref(), Some("sites/barn-7/status"));
        assert_eq!(checked.receives[0].filter.as_str(), "sites/barn-7/#");
        assert_eq!(checked.forwards[0].name, "cloud:a/#");
        assert_eq!((checked.session_expiry, checked.keepalive), (604_800, Duration::from_secs(60)));
        assert_eq!((checked.window, checked.version), (100, Version::V5));
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let found = wrong(|config| {
            config.name = "a/b".to_owned();
            config.urls.push("mqtts://second.example.com".to_owned());
            config.protocol = 3;
            config.keepalive = "1s".to_owned();
            config.session_expiry = Some("soon".to_owned());
            config.window = 0;
            config.forward[0].qos = 2;
            config.forward.push(ForwardConfig { filter: "b#".to_owned(), ..ForwardConfig::default() });
            config.forward[0].to = "x/{2}".to_owned();
        });
        let keys: Vec<&str> = found.iter().filter_map(|line| line.split(": ").next()).collect();
        assert_eq!(
            keys,
            [
                "name",
                "urls",
                "protocol",
                "session_expiry",
                "keepalive",
                "window",
                "forward[0].qos",
                "forward[0].to",
                "forward[1].filter"
            ],
            "{found:#?}"
        );
    }

    #[test]
    fn single_problems_say_what_was_expected() {
        type Change<'a> = &'a dyn Fn(&mut Config);
        let checks: [(Change<'_>, &str); 10] = [
            (
                &|config| config.urls.clear(),
                "urls: found [], expected one URL such as \"mqtts://broker.example.com:8883\"",
            ),
            (
                &|config| config.urls = vec!["wss://a".into()],
                "urls[0]: found \"wss://a\", expected mqtts:// or mqtt://: ws:// and wss:// are not in this version",
            ),
            (
                &|config| {
                    config.urls = vec!["mqtt://a".into()];
                    config.tls = Some(TlsConfig::default());
                },
                "tls: found TLS with urls = [\"mqtt://a:1883\"], expected one that begins with mqtts://",
            ),
            (
                &|config| config.tls = Some(TlsConfig { cert: Some("c".into()), ..TlsConfig::default() }),
                "tls.key: a certificate needs its key",
            ),
            (&|config| config.password_file = Some("p".into()), "password_file: a password needs a username"),
            (
                &|config| config.forward[0].qos = 2,
                "forward[0].qos: found 2, expected 0 or 1: QoS 2 is not in this version",
            ),
            (
                &|config| config.forward.push(config.forward[0].clone()),
                "forward[1].filter: found \"a/#\", which another forward route has already",
            ),
            (
                &|config| config.forward[0].filter = "$SYS/#".into(),
                "forward[0].store: $SYS is never stored: this route needs store = false",
            ),
            (
                &|config| config.client_id.clear(),
                "client_id: found \"\", expected a client id: 1 to 65535 bytes",
            ),
            (
                &|config| config.status_topic = Some("a/{topic}".into()),
                "status_topic: found \"a/{topic}\", expected nothing but {gateway} in braces here",
            ),
        ];
        for (change, expected) in checks {
            assert_eq!(wrong(|config| change(config)), [expected]);
        }
    }

    #[test]
    fn what_was_found_is_told_save_where_it_may_be_a_password() {
        type Change<'a> = &'a dyn Fn(&mut Config);
        let checks: [(Change<'_>, &str); 6] = [
            (
                &|config| config.name = "a/b".into(),
                "name: found \"a/b\", expected a name without / + # and :",
            ),
            (
                &|config| config.urls = vec!["http://x".into()],
                "urls[0]: found \"http://x\", expected mqtts://host:port or mqtt://host:port",
            ),
            (
                &|config| config.urls = vec!["mqtt://me:secret@x".into()],
                "urls[0]: found a URL with an @ (not shown), expected none: the user name belongs into username, the password into password_file",
            ),
            (
                &|config| config.urls.push("mqtts://y".into()),
                "urls: found 2, expected one: more than one URL is not in this version",
            ),
            (
                &|config| config.client_id = "{x}".into(),
                "client_id: found \"{x}\", expected nothing but {gateway} in braces here",
            ),
            (
                &|config| {
                    config.protocol = 4;
                    config.session_expiry = Some("1d".into());
                },
                "session_expiry: found \"1d\", expected none with protocol = 4: MQTT 3.1.1 has no word for it, and upstream keeps the session as long as it likes: remove it, or set protocol = 5",
            ),
        ];
        for (change, expected) in checks {
            assert_eq!(wrong(|config| change(config)), [expected]);
        }
    }

    #[test]
    fn a_message_that_would_go_round_for_ever_is_refused() {
        type Routes<'a> = &'a [(&'a str, &'a str)];
        let round = |protocol: u8, forwards: Routes<'_>, receives: Routes<'_>| {
            wrong(|config| {
                config.protocol = protocol;
                let forward = |(filter, to): &(&str, &str)| ForwardConfig {
                    filter: (*filter).to_owned(),
                    to: (*to).to_owned(),
                    ..ForwardConfig::default()
                };
                let receive = |(filter, to): &(&str, &str)| ReceiveConfig {
                    filter: (*filter).to_owned(),
                    to: (*to).to_owned(),
                    ..ReceiveConfig::default()
                };
                config.forward = forwards.iter().map(forward).collect();
                config.receive = receives.iter().map(receive).collect();
            })
        };
        let up = [("#", "sites/{gateway}/{topic}")];
        let down = [("sites/{gateway}/commands/#", "commands/{1}")];
        assert_eq!(
            round(4, &up, &down),
            [
                "receive[0].to: what comes here as \"commands/#\" goes up again by the forward route \"#\" as \"sites/barn-7/commands/#\", and comes back, for ever: expected a topic here that no forward route takes, or protocol = 5, in which upstream does not send us our own messages"
            ]
        );
        assert_eq!(round(5, &up, &down), [""; 0], "there nothing comes back that we sent");
        let well: [(Routes<'_>, Routes<'_>); 6] = [
            (&[("sensors/#", "sites/{gateway}/{topic}")], &down),
            (&up, &[("sites/{gateway}/commands/#", "{topic}")]),
            (&[("commands/+", "sites/{gateway}/done/{1}")], &down),
            (&[("commands/a/#", "{topic}")], &[("commands/b/#", "{topic}")]),
            (&[("+/a", "up/{1}")], &[("up/$own/#", "$own/a")]),
            (&[("a/+", "b/{1}")], &[("b/+/c", "a/{1}/c")]),
        ];
        for (forwards, receives) in well {
            assert_eq!(round(4, forwards, receives), [""; 0], "{forwards:?} {receives:?}");
        }
        let ill: [(Routes<'_>, Routes<'_>); 6] = [
            (&[("a/#", "{topic}")], &[("a/b", "{topic}")]),
            (&[("a/+/x", "b/{1}")], &[("b/#", "a/{1}/x")]),
            (&[("x/+", "y-{1}/z")], &[("+/z", "x/{1}")]),
            (&[("sensors/#", "sites/{gateway}/{topic}"), ("b/c", "{topic}")], &[("b/+", "{topic}")]),
            // Round by two routes.
            (
                &[("one/#", "two/{1}"), ("three/#", "four/{1}")],
                &[("two/#", "three/{1}"), ("four/#", "one/{1}")],
            ),
            (&[("a", "b/c")], &[("b/#", "a")]),
        ];
        for (forwards, receives) in ill {
            assert_ne!(round(4, forwards, receives), [""; 0], "{forwards:?} {receives:?}");
        }
    }

    #[test]
    fn a_command_for_a_topic_of_tidegates_own_is_refused() {
        let told = |filter: &str, to: &str| {
            wrong(|config| {
                let (filter, to) = (filter.to_owned(), to.to_owned());
                config.receive = vec![ReceiveConfig { filter, to, ..ReceiveConfig::default() }];
            })
        };
        assert_eq!(
            told("commands/#", "$SYS/{1}"),
            [
                "receive[0].to: $SYS is tidegate's own, and whatever comes there is denied: expected another topic, such as \"commands/{topic}\""
            ]
        );
        for (filter, to) in [("a/+", "tidegate/{1}"), ("a", "tidegate"), ("tidegate/#", "{topic}")] {
            assert_eq!(told(filter, to).len(), 1, "{filter} {to}");
        }
        for (filter, to) in [("a/+", "tidegates/{1}"), ("+/b", "{1}"), ("a/tidegate/#", "{topic}")] {
            assert_eq!(told(filter, to), [""; 0], "{filter} {to}");
        }
    }

    #[test]
    fn what_a_route_may_have_waiting_becomes_values() {
        let mut config = minimal();
        let forward = &mut config.forward[0];
        forward.max_age = Some("7d".to_owned());
        (forward.max_messages, forward.max_bytes) = (Some(5), Some("2MB".to_owned()));
        forward.keep = "latest".to_owned();
        let checked = config.check("barn-7").unwrap();
        let bounds = Bounds {
            max_age: Some(604_800_000),
            max_messages: Some(5),
            max_bytes: Some(2_000_000),
            when_full: Policy::Refuse,
            keep: Keep::Latest,
        };
        assert_eq!(checked.forwards[0].bounds(Policy::Refuse), bounds, "[store] says what it does not");
        config.forward[0].when_full = Some("drop-newest".to_owned());
        let checked = config.check("barn-7").unwrap();
        assert_eq!(checked.forwards[0].bounds(Policy::Refuse).when_full, Policy::DropNewest);
        config.forward[0].store = false;
        let problems = config.check("barn-7").unwrap_err();
        let keys: Vec<&str> = problems.iter().map(|problem| &*problem.key).collect();
        let wrong = ["max_age", "max_messages", "max_bytes", "when_full", "keep"];
        assert_eq!(keys, wrong.map(|key| format!("forward[0].{key}")));
    }

    #[test]
    fn every_key_of_the_tables_is_a_field_or_not_yet() {
        let known = |keys: &[Key]| {
            keys.iter()
                .filter(|key| !matches!(key.kind, Kind::NotYet))
                .map(|key| key.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            known(KEYS),
            [
                "name",
                "urls",
                "protocol",
                "client_id",
                "session_expiry",
                "status_topic",
                "username",
                "password_file",
                "tls",
                "keepalive",
                "window",
                "forward",
                "receive"
            ]
        );
        assert_eq!(known(TLS_KEYS), ["ca", "cert", "key", "server_name"]);
        assert_eq!(
            known(FORWARD_KEYS),
            ["filter", "to", "qos", "store", "max_age", "max_messages", "max_bytes", "when_full", "keep"]
        );
        assert_eq!(known(RECEIVE_KEYS), ["filter", "to", "qos"]);
    }
}
