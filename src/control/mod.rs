//! How commands reach the running service: one JSON line each way over a unix socket.
//!
//! `{"v":1,"ask":"status"}` is answered by `{"v":1,"status":{…}}` or `{"v":1,"error":"…"}`. The service
//! answers through a closure that it gives to [`Socket::serve`]; what it says of itself is a [`Status`].
//! Who may ask is decided by the socket's mode and, once more, by the peer's credentials.

mod status;
mod peers;
mod server;
mod client;

pub use client::{AskError, ask};
pub use peers::group;
pub use server::{Answer, Socket, SocketError};
pub use status::{
    AdapterStatus, BridgeCounts, BridgeStatus, BrokerStatus, Conservation, GoneRoute, ListenerStatus,
    RouteStatus, Status, StoreFigures, SubscriptionStatus,
};

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The socket's name in `run_dir`.
pub const SOCKET: &str = "control.sock";

/// Whether the socket's path in this folder is one that the kernel takes.
pub fn fits(run_dir: &Path) -> bool {
    beside(run_dir).as_os_str().len() <= PATH_MAX
}

/// Where the socket is made, before it takes its name.
fn beside(run_dir: &Path) -> PathBuf {
    run_dir.join(format!("{SOCKET}.new"))
}

/// Bytes of a socket's path; the kernel keeps one more for a zero.
const PATH_MAX: usize = 107;

/// The version of the lines.
pub const VERSION: u32 = 1;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// How the service does: a [`Status`].
    Status,
}

impl Ask {
    /// Its word on the wire, and the answer's key.
    pub fn as_str(self) -> &'static str {
        match self {
            Ask::Status => "status",
        }
    }

    fn from_word(word: &str) -> Option<Ask> {
        [Ask::Status].into_iter().find(|ask| ask.as_str() == word)
    }
}

/// Bytes of a question. A longer one closes the connection.
const QUESTION_MAX: usize = 64 * 1_024;

/// Bytes of an answer that the client takes: ten thousand sessions fit.
const ANSWER_MAX: u64 = 64 << 20;
