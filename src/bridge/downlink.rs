//! What comes from upstream goes into the broker, and is acknowledged upward once the broker has it.
//!
//! The way in is an in-process client (`bridge:<name>`): the same access rules, and the same
//! acknowledgement after commit as for any client. Messages leave here in the order in which they came,
//! and their receipts in the same order. [MQTT311-4.6.0-2]
//!
//! At most [`PENDING_MAX`] messages are under way; then nothing more is taken, which in the end stops
//! reading from upstream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use adapter_api::{Acknowledgement, FromPort, Hello, Host, Port, Qos, Refusal, ToPort};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::uplink::{RECEIVE_MAXIMUM, Receipt};
use crate::codec::{Properties, Property};

/// The bridge's end.
pub(super) struct Downlink {
    /// Messages for the broker. Bounded: who sends waits.
    pub(super) inward: mpsc::Sender<Inbound>,
    /// What became of them, in the same order.
    pub(super) done: mpsc::Receiver<Done>,
    task: JoinHandle<()>,
}

/// A message from upstream and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Inbound {
    /// Which connection it came on, since receipts of an old one are void.
    pub(super) connection: u64,
    /// To be acknowledged upward.
    pub(super) receipt: Receipt,
    /// Topics here, with the QoS of each.
    pub(super) targets: Vec<(String, Qos)>,
    /// Payload.
    pub(super) payload: Bytes,
    /// RETAIN.
    pub(super) retain: bool,
    /// Those that travel with it, its expiry as it was on arrival.
    pub(super) properties: Properties,
    /// When it came.
    pub(super) arrived: Instant,
}

impl Inbound {
    /// Its properties now: the time that it has waited here is taken from its expiry. One that has run out
    /// meanwhile is left a second, and the broker ends it.
    fn properties_now(&self) -> Bytes {
        let Some(expiry) = self.properties.message_expiry() else {
            return self.properties.clone().into_bytes();
        };
        let waited = u32::try_from(self.arrived.elapsed().as_secs()).unwrap_or(u32::MAX);
        let left = if expiry == 0 { 0 } else { expiry.saturating_sub(waited).max(1) };
        self.properties.travelling().with(Property::MessageExpiryInterval(left)).into_bytes()
    }
}

/// The broker has the message, or has refused it for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// Which connection it came on.
    pub(super) connection: u64,
    /// To be acknowledged upward.
    pub(super) receipt: Receipt,
    /// How many of its copies were refused.
    pub(super) denied: u64,
}

impl Downlink {
    /// Starts it.
    pub(super) fn start(name: &str, host: Arc<dyn Host>) -> Downlink {
        let (inward, from_bridge) = mpsc::channel(1);
        // As many receipts as there may be messages: sending one never waits for long.
        let (to_bridge, done) = mpsc::channel(PENDING_MAX);
        let hello = Hello {
            client_id: format!("bridge:{name}"),
            user: Some(format!("bridge:{name}")),
            clean_start: true,
            session_expiry: 0,
            will: None,
            credit: 0,
            waits: false,
        };
        let worker = Worker { hello, host, from_bridge, to_bridge, pending: VecDeque::new(), next_id: 1 };
        Downlink { inward, done, task: tokio::spawn(worker.run()) }
    }
}

impl Drop for Downlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker {
    hello: Hello,
    host: Arc<dyn Host>,
    from_bridge: mpsc::Receiver<Inbound>,
    to_bridge: mpsc::Sender<Done>,
    pending: VecDeque<Pending>,
    next_id: u64,
}

struct Pending {
    inbound: Inbound,
    /// Publishes that the broker has not answered.
    open: Vec<Open>,
    denied: u64,
}

struct Open {
    id: u64,
    target: usize,
}

/// The port is closed, or the bridge has ended.
enum End {
    Port,
    Bridge,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let mut port = self.host.open(self.hello.clone());
            match self.serve(&mut port).await {
                End::Bridge => return,
                // The broker ends a port when it stops, or when somebody else took the client id.
                End::Port => sleep(REOPEN_AFTER).await,
            }
        }
    }

    async fn serve(&mut self, port: &mut Port) -> End {
        match port.next().await {
            Some(ToPort::Connected { .. }) => {}
            _ => return End::Port,
        }
        // What the last port did not answer is said again: rather twice than never.
        for index in 0..self.pending.len() {
            if self.publish(port, index, Which::Unanswered).await.is_err() {
                return End::Port;
            }
        }
        loop {
            let room = self.pending.len() < PENDING_MAX;
            tokio::select! {
                word = port.next() => match word {
                    Some(ToPort::Published(answer)) => {
                        if self.answered(port, answer).await.is_err() {
                            return End::Port;
                        }
                    }
                    Some(ToPort::Closed(_)) | None => return End::Port,
                    Some(_) => {}
                },
                inbound = self.from_bridge.recv(), if room => match inbound {
                    Some(inbound) => {
                        let open = Vec::with_capacity(inbound.targets.len());
                        self.pending.push_back(Pending { inbound, open, denied: 0 });
                        if self.publish(port, self.pending.len() - 1, Which::All).await.is_err() {
                            return End::Port;
                        }
                    }
                    None => return End::Bridge,
                },
            }
            if self.hand_back().await.is_err() {
                return End::Bridge;
            }
        }
    }

    /// Publishes one message to its targets, waiting for room in the broker's inbox.
    async fn publish(&mut self, port: &Port, index: usize, which: Which) -> Result<(), End> {
        let Some(pending) = self.pending.get_mut(index) else { return Ok(()) };
        if which == Which::All {
            for target in 0..pending.inbound.targets.len() {
                pending.open.push(Open { id: self.next_id, target });
                self.next_id += 1;
            }
        }
        let properties = pending.inbound.properties_now();
        let mut answered_by_sending = Vec::new();
        for open in &pending.open {
            let Some((topic, qos)) = pending.inbound.targets.get(open.target) else { continue };
            let request = FromPort::Publish {
                id: open.id,
                topic: topic.clone(),
                payload: pending.inbound.payload.clone(),
                qos: *qos,
                retain: pending.inbound.retain,
                properties: properties.clone(),
            };
            port.send(request).await.map_err(|_| End::Port)?;
            if *qos == Qos::AtMostOnce {
                answered_by_sending.push(open.id);
            }
        }
        pending.open.retain(|open| !answered_by_sending.contains(&open.id));
        Ok(())
    }

    async fn answered(&mut self, port: &Port, answer: Acknowledgement) -> Result<(), End> {
        let found = self.pending.iter().position(|pending| pending.open.iter().any(|o| o.id == answer.id));
        let Some(index) = found else { return Ok(()) };
        let retry = matches!(answer.result, Err(Refusal::QuotaExceeded));
        if retry {
            // A full store: upstream keeps the message for as long as it is not acknowledged.
            sleep(RETRY_AFTER).await;
            return self.publish(port, index, Which::Unanswered).await;
        }
        if let Some(pending) = self.pending.get_mut(index) {
            pending.open.retain(|open| open.id != answer.id);
            pending.denied += u64::from(answer.result.is_err());
        }
        Ok(())
    }

    /// Hands receipts back, in the order of arrival.
    async fn hand_back(&mut self) -> Result<(), End> {
        while self.pending.front().is_some_and(|pending| pending.open.is_empty()) {
            let Some(Pending { inbound, denied, .. }) = self.pending.pop_front() else { break };
            let done = Done { connection: inbound.connection, receipt: inbound.receipt, denied };
            self.to_bridge.send(done).await.map_err(|_| End::Bridge)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    Unanswered,
}

/// Messages that were published into the broker and not answered. Beyond: upstream waits.
const PENDING_MAX: usize = RECEIVE_MAXIMUM as usize;
/// After the broker has closed the port.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// After the broker has said that a limit is reached.
const RETRY_AFTER: Duration = Duration::from_secs(1);
