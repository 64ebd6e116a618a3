//! What other threads put to the engine.
//!
//! A bounded queue and a waker: senders towards the engine wait while it is full, the engine never
//! waits for anybody.

use std::sync::Arc;

use adapter_api::{FromPort, Hello, ToPort};
use mio::Waker;
use tokio::sync::mpsc;

use crate::broker::ConnectionId;
use crate::record::{Rows, Ticket};

/// One thing put to the engine.
pub enum Input {
    /// A port was opened; the engine answers on `outward`.
    PortOpened {
        /// The port's number, never used twice.
        port: u64,
        /// Who.
        hello: Hello,
        /// Bounded by the port's credit and the answers that it is owed.
        outward: mpsc::Sender<ToPort>,
    },
    /// A port's request.
    FromPort {
        /// Which port.
        port: u64,
        /// What.
        request: FromPort,
    },
    /// A port was dropped without [`FromPort::Close`].
    PortLost {
        /// Which port.
        port: u64,
    },
    /// The store has committed.
    Committed(Ticket),
    /// The store has read a session's rows.
    Rows(Rows),
    /// A helper thread has checked a password.
    Verified {
        /// Whose.
        connection: ConnectionId,
        /// Whether it fits.
        accepted: bool,
    },
    /// Somebody asks how the engine does: a JSON value comes back.
    Status(tokio::sync::oneshot::Sender<serde_json::Value>),
    /// The service stops: tell every client, flush, end the loop.
    Stop,
}

/// The senders' end.
#[derive(Clone)]
pub struct Inputs {
    sender: mpsc::Sender<Input>,
    waker: Arc<Waker>,
}

/// The engine is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct EngineGone;

impl Inputs {
    /// A queue of this many inputs that wakes the engine's poll.
    pub fn channel(capacity: usize, waker: Arc<Waker>) -> (Inputs, mpsc::Receiver<Input>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Inputs { sender, waker }, receiver)
    }

    /// From a task: waits for room.
    pub async fn send(&self, input: Input) -> Result<(), EngineGone> {
        self.sender.send(input).await.map_err(|_| EngineGone)?;
        self.wake();
        Ok(())
    }

    /// From a plain thread: waits for room.
    pub fn send_blocking(&self, input: Input) -> Result<(), EngineGone> {
        self.sender.blocking_send(input).map_err(|_| EngineGone)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // A waker fails only where the kernel is out of memory; the next tick then brings the input.
        let _ = self.waker.wake();
    }
}
