//! `-L`: host, port, credentials and topic in one URL, as mosquitto's clients take it.
//!
//! Nothing is decoded in it: a `%` in a password or topic means itself.

use std::str::FromStr;

/// `mqtt://[user[:password]@]host[:port]/topic`, or `mqtts://`, `ws://`, `wss://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub(super) secure: bool,
    pub(super) carrier: Carrier,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) topic: String,
}

/// What carries MQTT's bytes, within TLS or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// The stream itself.
    Stream,
    /// Frames on it.
    WebSocket,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        let (secure, carrier, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (false, Carrier::Stream, rest),
            Some(("mqtts", rest)) => (true, Carrier::Stream, rest),
            Some(("ws", rest)) => (false, Carrier::WebSocket, rest),
            Some(("wss", rest)) => (true, Carrier::WebSocket, rest),
            _ => return Err(EXPECTED.to_owned()),
        };
        let (place, topic) = rest.split_once('/').ok_or(EXPECTED)?;
        let (credentials, address) = match place.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, place),
        };
        let (username, password) = match credentials.map(|both| both.split_once(':').ok_or(both)) {
            None => (None, None),
            Some(Ok((username, password))) => (Some(username.to_owned()), Some(password.to_owned())),
            Some(Err(username)) => (Some(username.to_owned()), None),
        };
        let (host, port) = address_of(address)?;
        if host.is_empty() || topic.is_empty() {
            return Err(EXPECTED.to_owned());
        }
        let (host, topic) = (host.to_owned(), topic.to_owned());
        Ok(Url { secure, carrier, username, password, host, port, topic })
    }
}

/// Host and port; an IPv6 address stands in brackets.
fn address_of(address: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    match port.map(str::parse) {
        None => Ok((host, None)),
        Some(Ok(port)) => Ok((host, Some(port))),
        Some(Err(_)) => Err(EXPECTED.to_owned()),
    }
}

const EXPECTED: &str = "expected mqtt://[user[:password]@]host[:port]/topic, or mqtts://, ws://, wss://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_found() {
        let url: Url = "mqtts://anna:a:b@c@example.com:8884/a/b".parse().unwrap();
        let (username, password) = (Some("anna".to_owned()), Some("a:b@c".to_owned()));
        let (host, topic) = ("example.com".to_owned(), "a/b".to_owned());
        let carrier = Carrier::Stream;
        assert_eq!(url, Url { secure: true, carrier, username, password, host, port: Some(8884), topic });
        let url: Url = "mqtt://[::1]/#".parse().unwrap();
        assert_eq!((&*url.host, url.port, &*url.topic, url.username), ("::1", None, "#", None));
        let url: Url = "mqtt://anna@10.0.0.1:1/t".parse().unwrap();
        assert_eq!((url.username.as_deref(), url.password, url.port), (Some("anna"), None, Some(1)));
        for (text, secure) in [("ws://h/t", false), ("wss://h/t", true)] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.secure, url.carrier), (secure, Carrier::WebSocket));
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused() {
        for text in ["", "x", "http://h/t", "ws://h", "mqtt://h", "mqtt://h/", "mqtt:///t", "mqtt://h:x/t"] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}
