//! Where a listener stands: a TCP address or the path of a Unix socket.
//!
//! Names are not resolved: a listener is an address of this machine.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// TCP; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Bind {
    /// Whether only this machine's own programs can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Bind::Tcp(address) => address.ip().is_loopback(),
            Bind::Unix(_) => true,
        }
    }
}

impl FromStr for Bind {
    type Err = NotABind;

    fn from_str(text: &str) -> Result<Bind, NotABind> {
        match text.strip_prefix("unix:") {
            // The kernel keeps 108 bytes for the path, the last one a zero.
            Some(path) if path.starts_with('/') && path.len() < 108 => Ok(Bind::Unix(PathBuf::from(path))),
            Some(_) => Err(NotABind),
            None => text.parse().map(Bind::Tcp).map_err(|_| NotABind),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Tcp(address) => address.fmt(out),
            Bind::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// The text names no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an address and port such as \"127.0.0.1:1883\" or \"[::]:1883\", or \"unix:/path\" of at most 107 bytes"
)]
pub struct NotABind;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed_alike() {
        for text in ["127.0.0.1:1883", "0.0.0.0:0", "[::]:1883", "[::1]:8883", "unix:/run/tidegate/mqtt.sock"]
        {
            assert_eq!(text.parse::<Bind>().unwrap().to_string(), text);
        }
        for text in ["", "1883", "localhost:1883", ":1883", "127.0.0.1", "unix:", "unix:mqtt.sock", "[::]"] {
            assert_eq!(text.parse::<Bind>(), Err(NotABind), "{text}");
        }
    }

    #[test]
    fn loopback_and_unix_sockets_are_local() {
        let local = |text: &str| text.parse::<Bind>().unwrap().is_local();
        assert!(local("127.0.0.1:1883") && local("127.8.8.8:1") && local("[::1]:1") && local("unix:/x"));
        assert!(!local("0.0.0.0:1883") && !local("[::]:1883") && !local("192.0.2.1:1883"));
    }
}
