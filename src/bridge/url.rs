//! Where upstream is: `mqtts://host:port` or `mqtt://host:port`. Pure.
//!
//! Nothing is resolved here; a port that is not given is the scheme's own.

use std::fmt;

/// An upstream's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    security: Security,
    host: String,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    Plain,
    Tls,
}

impl Url {
    /// Reads a URL. The port may be left out: 8883 with TLS, else 1883.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Form)?;
        let (security, usual) = match scheme {
            "mqtts" => (Security::Tls, 8883),
            "mqtt" => (Security::Plain, 1883),
            "ws" | "wss" => return Err(UrlError::WebSocket),
            _ => return Err(UrlError::Form),
        };
        if rest.contains('@') {
            return Err(UrlError::User);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, after) = bracketed.split_once(']').ok_or(UrlError::Form)?;
            (host, after.strip_prefix(':').or((!after.is_empty()).then_some("")))
        } else {
            match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            }
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(UrlError::Form)?,
            None => usual,
        };
        if rustls::pki_types::ServerName::try_from(host).is_err() {
            return Err(UrlError::Form);
        }
        Ok(Url { security, host: host.to_owned(), port })
    }

    /// Whether it asks for TLS.
    pub fn is_secure(&self) -> bool {
        self.security == Security::Tls
    }

    /// Host name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.security {
            Security::Plain => "mqtt",
            Security::Tls => "mqtts",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// Why a URL is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not of the form.
    #[error("expected mqtts://host:port or mqtt://host:port")]
    Form,
    /// WebSocket.
    #[error("expected mqtts:// or mqtt://: ws:// and wss:// are not in this version")]
    WebSocket,
    /// A user name in it.
    #[error("expected none: the user name belongs into username, the password into password_file")]
    User,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_printed() {
        for (text, printed) in [
            ("mqtts://broker.example.com:8883", "mqtts://broker.example.com:8883"),
            ("mqtts://broker.example.com", "mqtts://broker.example.com:8883"),
            ("mqtt://10.0.0.1", "mqtt://10.0.0.1:1883"),
            ("mqtt://[::1]:1884/", "mqtt://[::1]:1884"),
            ("mqtt://[::1]", "mqtt://[::1]:1883"),
        ] {
            assert_eq!(Url::parse(text).map(|url| url.to_string()).as_deref(), Ok(printed), "{text}");
        }
    }

    #[test]
    fn other_urls_are_refused() {
        for (text, error) in [
            ("broker.example.com", UrlError::Form),
            ("http://broker.example.com", UrlError::Form),
            ("wss://broker.example.com/mqtt", UrlError::WebSocket),
            ("mqtt://me:secret@broker.example.com", UrlError::User),
            ("mqtt://", UrlError::Form),
            ("mqtt://a:0", UrlError::Form),
            ("mqtt://a:99999", UrlError::Form),
            ("mqtt://a/b", UrlError::Form),
            ("mqtt://[::1]9", UrlError::Form),
        ] {
            assert_eq!(Url::parse(text), Err(error), "{text}");
        }
    }
}
