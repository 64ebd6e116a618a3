//! Carries messages up to the cloud's broker, and commands down.
//!
//! The store is the only queue: routes read their rows from it, and a row leaves it when upstream has
//! acknowledged it, so a crash or a lost link repeats at most a window and loses nothing. rumqttc speaks
//! the protocol for one connection at a time over our own dialer; on any error it is dropped, and the
//! next connection begins at the oldest row that is not settled.

mod url;
mod mapping;
mod config;
mod backoff;
mod shape;
mod link;
mod intake;

pub use config::{Checked, Config, Forward, ForwardConfig, KEYS, Receive, ReceiveConfig, Tls, TlsConfig};
pub use mapping::{Filter, MappingError, Template};
pub use url::{Url, UrlError};
