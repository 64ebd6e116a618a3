//! Carries messages up to the cloud's broker, and commands down.
//!
//! The store is the only queue: routes read their rows from it, and a row leaves it when upstream has
//! acknowledged it, so a crash or a lost link repeats at most a window and loses nothing. rumqttc speaks
//! the protocol for one connection at a time over our own dialer; on any error it is dropped, and the
//! next connection begins at the oldest row that is not settled.

mod url;
mod mapping;
mod rounds;
mod config;
mod problems;
mod backoff;
mod shape;
mod link;
mod intake;
mod trouble;
mod tls;
mod dialer;
mod tally;
mod cutter;
mod notes;
mod relay;
mod uplink;
mod login;
mod status;
mod downlink;
mod routes;
mod session;
mod runner;

pub use config::{
    Checked, Config, Flaw, Forward, ForwardConfig, KEYS, Receive, ReceiveConfig, Tls, TlsConfig,
};
pub use downlink::Commands;
pub use mapping::{Filter, MappingError, Template};
pub use routes::Supply;
pub use runner::{Bridge, Pace};
pub use session::ENDS_WITHIN;
pub use status::{Counts, LinkState, Status, Subscription};
pub use trouble::Trouble;
pub use url::{Url, UrlError};

/// A random number, for waits only: where the system has none, a wait is as short as it may be.
fn random() -> u64 {
    #[cfg(test)]
    if let Some(number) = RANDOM.get() {
        return number;
    }
    getrandom::u64().unwrap_or_default()
}

#[cfg(test)]
thread_local! {
    /// What stands in for a random number on this thread, once a test has said so.
    pub(crate) static RANDOM: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use session::{Arrived, Down, Stepped, Up};
