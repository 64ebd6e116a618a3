//! Where adapters meet the engine.
//!
//! [`Field`] is the [`Host`] that adapters run in: each port is a task that hands requests to the
//! engine's inbox and its answers back, and what adapters report is kept for `status` and published.
//! Nothing here looks into a message. Whoever is slow waits, and the engine never for him.

mod relay;
mod parts;
mod states;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use adapter_api::{Health, Hello, Host, Port};
use tokio::runtime::Handle;

pub use parts::{Part, Parts};

use crate::clock::Clock;
use crate::engine::Inputs;

/// The house that adapters run in.
#[derive(Clone)]
pub struct Field {
    inputs: Inputs,
    runtime: Handle,
    /// Numbers of ports.
    opened: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
    parts: Parts,
    clock: Clock,
}

impl Field {
    /// A field whose tasks run on this runtime. It publishes what adapters report until the engine ends, and
    /// clears the topics of states that nobody reports any more.
    pub fn new(inputs: Inputs, clock: Clock, runtime: Handle, stale: Vec<String>) -> Field {
        let field = Field {
            inputs,
            runtime,
            opened: Arc::default(),
            stopping: Arc::default(),
            parts: Parts::default(),
            clock,
        };
        field.runtime.spawn(states::publish(field.clone(), stale));
        field
    }

    /// From now on a port that an adapter drops is no client that was lost: the engine ends it when it stops.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// What adapters have reported, by path.
    pub fn parts(&self) -> Parts {
        self.parts.clone()
    }
}

impl Host for Field {
    fn open(&self, hello: Hello) -> Port {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let (relay, port) = relay::Relay::open(number, hello, self.inputs.clone(), self.stopping.clone());
        self.runtime.spawn(relay.run());
        port
    }

    fn report(&self, path: &str, health: Health) {
        self.parts.report(path, health, self.clock.now().wall);
    }
}

#[cfg(test)]
mod tests;
