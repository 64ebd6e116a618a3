//! What other threads put to the engine.
//!
//! A bounded queue and a waker: senders towards the engine wait while it is full, the engine never
//! waits for anybody. The kernel is asked to wake it once for many inputs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adapter_api::{FromPort, Hello, ToPort};
use mio::{Poll, Token, Waker};
use tokio::sync::mpsc;

use super::Effort;
use crate::access::Rules;
use crate::broker::{AuthOutcome, ConnectionId, Verdict};
use crate::listener::Outcome;
use crate::record::{Full, Rows, Survey, Ticket};

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
    /// A client's TLS handshake has ended.
    Shaken(Outcome),
    /// The store has committed.
    Committed(Ticket),
    /// The store has read a session's rows.
    Rows(Rows),
    /// The store says who takes nothing more.
    Full(Full),
    /// The store says how it does.
    Surveyed(Survey),
    /// A helper thread has checked a password.
    Verified {
        /// Whose.
        connection: ConnectionId,
        /// What became of it.
        verdict: Verdict,
        /// What that took.
        effort: Effort,
    },
    /// A helper thread has taken a step of SCRAM.
    Authenticated {
        /// Whose.
        connection: ConnectionId,
        /// What became of it.
        outcome: AuthOutcome,
    },
    /// The access rules are others now.
    Rules(Arc<Rules>),
    /// What is wrong with the files of passwords and rules, in words; empty once all is well.
    FileTroubles(Vec<String>),
    /// Files that may have changed are to be looked at now.
    Reread,
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
    /// Whether the engine has been woken and has not looked since.
    woken: Arc<AtomicBool>,
}

/// The engine's end, and the poll that it sleeps in. Made before the engine, so that the store can have
/// its [`Inputs`] before the broker has what the store restored.
pub struct Inbox {
    pub(super) poll: Poll,
    receiver: mpsc::Receiver<Input>,
    woken: Arc<AtomicBool>,
    inputs: Inputs,
}

/// The engine is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct EngineGone;

impl Inbox {
    /// Opens the queue.
    ///
    /// # Errors
    /// Where the kernel gives no epoll or eventfd.
    pub fn open() -> io::Result<(Inbox, Inputs)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (inputs, receiver) = Inputs::channel(INBOX_INPUTS_MAX, waker);
        let inbox = Inbox { poll, receiver, woken: inputs.woken.clone(), inputs: inputs.clone() };
        Ok((inbox, inputs))
    }

    /// Another sender's end.
    pub(super) fn inputs(&self) -> Inputs {
        self.inputs.clone()
    }

    /// Says that what is put in from now on must wake the engine again; to be called before
    /// [`Inbox::next`], or an input could lie unseen.
    pub(super) fn rearm(&self) {
        self.woken.store(false, Ordering::SeqCst);
    }

    /// The next input, if there is one.
    pub(super) fn next(&mut self) -> Option<Input> {
        self.receiver.try_recv().ok()
    }

    /// Whether something is left.
    pub(super) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

impl Inputs {
    /// A queue of this many inputs that wakes the engine's poll.
    pub fn channel(capacity: usize, waker: Arc<Waker>) -> (Inputs, mpsc::Receiver<Input>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Inputs { sender, waker, woken: Arc::default() }, receiver)
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

    /// Whether the engine is gone.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            // A waker fails only where the kernel is out of memory; the next turn then finds the input.
            let _ = self.waker.wake();
        }
    }
}

/// Inputs that wait for the engine. When full, the sender waits: that is how a flood is slowed.
const INBOX_INPUTS_MAX: usize = 1_024;

/// Under which the waker is polled; connections count from 0.
pub(super) const WAKER: Token = Token(usize::MAX);
