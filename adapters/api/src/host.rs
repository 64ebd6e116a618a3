//! The house that an adapter runs in, and the adapter itself as the house sees it.
//!
//! The appliance implements [`Host`]; an adapter's tests implement it with channels. Nothing here waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use crate::{Hello, Port};

/// What the appliance offers to an adapter.
pub trait Host: Send + Sync {
    /// Opens an in-process client. Its first word is `Connected` or `Closed`.
    fn open(&self, hello: Hello) -> Port;

    /// States how one part of the adapter does; shown by `status` and, where the appliance publishes
    /// it, retained under `tidegate/<path>/state`. Path segments: `modbus/line-1/meter`.
    fn report(&self, path: &str, health: Health);
}

/// How a bus, a device or a line does.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// The state.
    pub state: State,
    /// Why, in words, where it is not [`State::Up`].
    pub reason: Option<String>,
    /// Counters since the start, a flat JSON object.
    pub counters: Value,
}

/// The state of a bus, device or line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not yet tried.
    Starting,
    /// It answers.
    Up,
    /// It does not; it is tried again.
    Down,
}

impl State {
    /// The word in status and on the state topic.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Up => "up",
            State::Down => "down",
        }
    }
}

/// A running adapter: ends when `stop` turns true, at the latest after a second.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One configured adapter, checked and ready to run on the current-thread runtime.
pub trait Adapter: Send {
    /// Its name in logs: `modbus:line-1`.
    fn name(&self) -> String;

    /// Runs until `stop` turns true. Device trouble is no reason to end: it is reported and tried again.
    fn run(self: Box<Self>, host: Arc<dyn Host>, stop: watch::Receiver<bool>) -> Running;
}
