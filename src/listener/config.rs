//! The keys of `[[listener]]`, raw and checked.
//!
//! Anonymous clients are welcome by default only where no one from outside can come.

use std::sync::Arc;

use adapter_api::schema::{Key, Kind, Problem};
use serde::Deserialize;

use super::Bind;
use super::tls::{Flaw, TLS_KEYS, Tls, TlsConfig};
use crate::broker::Trust;

/// One `[[listener]]` as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name in logs and status; the address where it is left out.
    pub name: Option<String>,
    /// `ADDRESS:PORT` or `unix:PATH`.
    pub bind: String,
    /// `mqtt` or `ws`.
    pub protocol: String,
    /// Origins of the pages whose browsers may come, beside those of the listener's own place.
    pub allowed_origins: Vec<String>,
    /// Whether clients may come without user name and password.
    pub allow_anonymous: Option<bool>,
    /// TLS, where it is spoken.
    pub tls: Option<TlsConfig>,
    /// Clients at a time here; as many as `[limits]` allows where it is left out.
    pub max_connections: Option<u32>,
    /// Put before every topic of its clients, who do not see it.
    pub mount_point: Option<String>,
}

impl Default for Config {
    /// The listener of an empty configuration.
    fn default() -> Config {
        Config {
            name: None,
            bind: "127.0.0.1:1883".to_owned(),
            protocol: "mqtt".to_owned(),
            allowed_origins: Vec::new(),
            allow_anonymous: None,
            tls: None,
            max_connections: None,
            mount_point: None,
        }
    }
}

/// What a `[[listener]]` may hold.
pub const KEYS: &[Key] = &[
    Key::optional("name", Kind::Text),
    Key::required("bind", Kind::Text),
    Key::optional("protocol", Kind::Choice(&["mqtt", "ws"])),
    Key::optional("allowed_origins", Kind::Texts),
    Key::optional("allow_anonymous", Kind::Boolean),
    Key::optional("max_connections", Kind::Integer(1, 1_000_000)),
    Key::optional("mount_point", Kind::Text),
    Key::optional("tls", Kind::Table(TLS_KEYS)),
];

/// A checked listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Name in logs and status.
    pub name: String,
    /// Where.
    pub bind: Bind,
    /// What its clients may do before they have shown a password: never [`Trust::Port`].
    pub trust: Trust,
    /// Clients at a time; further ones are refused with 0x97 (3.1.1: 3).
    pub max_connections: Option<u32>,
    /// Stands before every topic of its clients; ends in `/`.
    pub mount: Option<Arc<str>>,
    /// What is spoken, within TLS where that is spoken too.
    pub protocol: Protocol,
    /// Origins of the pages whose browsers may come over WebSocket, beside those of the listener's own place.
    pub origins: Arc<[String]>,
    /// TLS, where it is spoken.
    pub tls: Option<Tls>,
}

/// What is spoken at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT on the stream itself.
    Mqtt,
    /// MQTT within WebSocket frames.
    WebSocket,
}

impl Config {
    /// What the operator should know of the files that it names, whatever else is wrong: first what makes
    /// them useless, then what is perhaps not meant. `wall` is the time in milliseconds since 1970. Reads files.
    pub fn examine(&self, wall: u64) -> (Vec<Flaw>, Vec<Flaw>) {
        self.tls.as_ref().map(|tls| tls.examine(wall)).unwrap_or_default()
    }

    /// Checks the values.
    ///
    /// # Errors
    /// Every key that is wrong.
    pub fn check(&self) -> Result<Listener, Vec<Problem>> {
        let mut problems = Vec::new();
        let protocol = match self.protocol.as_str() {
            "ws" => Protocol::WebSocket,
            "mqtt" => Protocol::Mqtt,
            other => {
                let text = format!("found \"{other}\", expected \"mqtt\" or \"ws\"");
                problems.push(Problem { key: "protocol".to_owned(), text });
                Protocol::Mqtt
            }
        };
        if let Some(mount) = &self.mount_point
            && !is_mount_point(mount)
        {
            let text = format!(
                "found \"{mount}\", expected the start of a topic that ends in \"/\", such as \"barn-2/\", without + and #, and not below $ or tidegate/"
            );
            problems.push(Problem { key: "mount_point".to_owned(), text });
        }
        self.check_origins(&mut problems);
        let bind = match self.bind.parse::<Bind>() {
            Ok(bind) => bind,
            Err(expected) => {
                let text = format!("found \"{}\", expected {expected}", self.bind);
                problems.push(Problem { key: "bind".to_owned(), text });
                return Err(problems);
            }
        };
        let tls = self.tls.as_ref().and_then(|tls| tls.check(&mut problems));
        if self.tls.is_some() && matches!(bind, Bind::Unix(_)) {
            let text = "found TLS on a unix socket, which never leaves this machine; expected none";
            problems.push(Problem { key: "tls".to_owned(), text: text.to_owned() });
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let anonymous = self.allow_anonymous.unwrap_or(bind.is_local());
        Ok(Listener {
            name: self.name.clone().unwrap_or_else(|| bind.to_string()),
            trust: if anonymous { Trust::Anonymous } else { Trust::Password },
            max_connections: self.max_connections,
            mount: self.mount_point.as_deref().map(Arc::from),
            bind,
            protocol,
            origins: self.allowed_origins.as_slice().into(),
            tls,
        })
    }
}

impl Config {
    fn check_origins(&self, problems: &mut Vec<Problem>) {
        let mut wrong = |key: String, text: String| problems.push(Problem { key, text });
        for (index, origin) in
            self.allowed_origins.iter().enumerate().filter(|(_, origin)| !is_origin(origin))
        {
            let text = format!(
                "found \"{origin}\", expected what a browser sends, such as \"https://panel.example.com\", without a path or *"
            );
            wrong(format!("allowed_origins[{index}]"), text);
        }
        if self.protocol == "mqtt" && !self.allowed_origins.is_empty() {
            let text = "found origins at a listener for MQTT alone, where no browser comes; expected them with protocol = \"ws\": set it, or remove them";
            wrong("allowed_origins".to_owned(), text.to_owned());
        }
    }
}

fn is_mount_point(mount: &str) -> bool {
    let house = mount.starts_with('$') || mount.starts_with("tidegate/");
    mount.ends_with('/') && mount.len() <= MOUNT_POINT_MAX && !mount.contains(['+', '#', '\0']) && !house
}

/// A scheme and a host, perhaps with a port.
fn is_origin(origin: &str) -> bool {
    let odd =
        |letter: char| !letter.is_ascii_graphic() || matches!(letter, '/' | '*' | '?' | '#' | '@' | ',');
    origin.split_once("://").is_some_and(|(scheme, place)| {
        !scheme.is_empty() && !place.is_empty() && !scheme.contains(odd) && !place.contains(odd)
    })
}

/// Bytes of a mount point: each of its clients' topics becomes longer by it.
const MOUNT_POINT_MAX: usize = 256;

impl Listener {
    /// Whether nobody comes in without a password.
    pub fn wants_passwords(&self) -> bool {
        self.trust == Trust::Password && !self.tls.as_ref().is_some_and(Tls::names_everybody)
    }

    /// What the operator should know at every start: anybody on the network may come in here.
    pub fn warning(&self) -> Option<String> {
        let by_certificate = self.tls.as_ref().is_some_and(Tls::wants_certificates);
        let open = self.trust == Trust::Anonymous && !self.bind.is_local() && !by_certificate;
        open.then(|| {
            format!(
                "allow_anonymous lets anybody who can reach {} publish and subscribe without a password",
                self.bind
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bind: &str, allow_anonymous: Option<bool>) -> Listener {
        Config { bind: bind.to_owned(), allow_anonymous, ..Config::default() }.check().unwrap()
    }

    #[test]
    fn anonymous_clients_are_welcome_by_default_only_from_this_machine() {
        assert_eq!(check("127.0.0.1:1883", None).trust, Trust::Anonymous);
        assert_eq!(check("[::1]:1883", None).trust, Trust::Anonymous);
        assert_eq!(check("unix:/run/x.sock", None).trust, Trust::Anonymous);
        assert_eq!(check("0.0.0.0:1883", None).trust, Trust::Password);
        assert_eq!(check("127.0.0.1:1883", Some(false)).trust, Trust::Password);
    }

    #[test]
    fn an_open_door_to_the_network_is_warned_of() {
        assert!(check("0.0.0.0:1883", Some(true)).warning().unwrap().contains("0.0.0.0:1883"));
        assert_eq!(check("0.0.0.0:1883", None).warning(), None);
        assert_eq!(check("127.0.0.1:1883", Some(true)).warning(), None);
    }

    #[test]
    fn a_mount_point_is_the_start_of_a_topic() {
        let mount = |text: &str| {
            let config = Config { mount_point: Some(text.to_owned()), ..Config::default() };
            config.check().map(|listener| listener.mount.map(|mount| mount.to_string()))
        };
        assert_eq!(mount("barn/2/"), Ok(Some("barn/2/".to_owned())));
        for wrong in ["", "barn", "barn/+/", "#/", "$SYS/", "tidegate/x/"] {
            assert!(mount(wrong).is_err_and(|problems| problems[0].key == "mount_point"), "{wrong}");
        }
    }

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        let origins = |text: &str| {
            let (protocol, allowed_origins) = ("ws".to_owned(), vec![text.to_owned()]);
            let config = Config { protocol, allowed_origins, ..Config::default() };
            config.check().map(|listener| listener.origins.to_vec())
        };
        for right in ["https://panel.example.com", "http://[fd00::7]:8080"] {
            assert_eq!(origins(right), Ok(vec![right.to_owned()]));
        }
        for wrong in ["", "*", "null", "panel.example.com", "https://a.example/", "https://*.example", "://a"]
        {
            assert!(origins(wrong).is_err_and(|problems| problems[0].key == "allowed_origins[0]"), "{wrong}");
        }
    }

    #[test]
    fn every_wrong_origin_is_named_and_none_is_taken_where_no_browser_comes() {
        let keys = |protocol: &str, origins: &[&str]| {
            let allowed_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
            let config = Config { protocol: protocol.to_owned(), allowed_origins, ..Config::default() };
            let problems = config.check().err().unwrap_or_default();
            problems.into_iter().map(|problem| problem.key).collect::<Vec<_>>()
        };
        let wrong = ["a", "https://a.example", "*"];
        assert_eq!(keys("ws", &wrong), ["allowed_origins[0]", "allowed_origins[2]"]);
        assert_eq!(keys("mqtt", &["https://a.example"]), ["allowed_origins"]);
        assert_eq!(keys("mqtt", &[]), [""; 0]);
    }

    #[test]
    fn every_wrong_key_is_named() {
        let config = Config { bind: "here".to_owned(), protocol: "http".to_owned(), ..Config::default() };
        let keys: Vec<String> = config.check().unwrap_err().into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["protocol", "bind"]);
    }

    #[test]
    fn tls_wants_its_files_and_an_authority_for_what_concerns_clients() {
        let wrong = |bind: &str, tls: TlsConfig| {
            let config = Config { bind: bind.to_owned(), tls: Some(tls), ..Config::default() };
            config.check().unwrap_err().into_iter().map(|problem| problem.key).collect::<Vec<_>>()
        };
        assert_eq!(wrong("127.0.0.1:1", TlsConfig::default()), ["tls.cert", "tls.key"]);
        let both = TlsConfig { cert: Some("c".into()), key: Some("k".into()), ..TlsConfig::default() };
        assert_eq!(wrong("unix:/run/x.sock", both.clone()), ["tls"]);
        let without_ca = TlsConfig {
            crl: Some("r".into()),
            require_client_cert: Some(true),
            identity: Some("cn".to_owned()),
            ..both.clone()
        };
        let keys = ["tls.crl", "tls.require_client_cert", "tls.identity"];
        assert_eq!(wrong("127.0.0.1:1", without_ca), keys);
        let odd = TlsConfig { client_ca: Some("a".into()), identity: Some("dn".to_owned()), ..both };
        assert_eq!(wrong("127.0.0.1:1", odd), ["tls.identity"]);
    }

    #[test]
    fn who_must_show_a_named_certificate_needs_no_password() {
        let listener = |require_client_cert, identity: Option<&str>, allow_anonymous| {
            let tls = TlsConfig {
                cert: Some("c".into()),
                key: Some("k".into()),
                client_ca: Some("a".into()),
                require_client_cert,
                identity: identity.map(str::to_owned),
                ..TlsConfig::default()
            };
            let bind = "0.0.0.0:8883".to_owned();
            Config { bind, tls: Some(tls), allow_anonymous, ..Config::default() }.check().unwrap()
        };
        assert!(!listener(None, Some("cn"), None).wants_passwords());
        assert!(listener(None, None, None).wants_passwords());
        assert!(listener(Some(false), Some("san"), None).wants_passwords());
        assert_eq!(listener(None, None, Some(true)).warning(), None, "only with a certificate");
        assert!(listener(Some(false), None, Some(true)).warning().is_some());
    }
}
