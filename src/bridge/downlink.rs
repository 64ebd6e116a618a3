//! What comes from upstream goes into the broker, and is acknowledged upward once the broker has it.
//!
//! The way in is an in-process client (`bridge:<name>`): the same access rules, and the same
//! acknowledgement after commit as for any client. Messages leave here in the order in which they came,
//! and their receipts in the same order. [MQTT311-4.6.0-2]
//!
//! At most [`PENDING_MAX`] messages are under way; then nothing more is taken, which in the end stops
//! reading from upstream. Where the broker may turn one down for want of room, there is one under way: it is
//! published again until it is taken, so that none overtakes another.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use adapter_api::{Acknowledgement, FromPort, Hello, Host, Port, Qos, Refusal, ToPort};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::uplink::{RECEIVE_MAXIMUM, Receipt};
use crate::codec::{Properties, Property};

/// How commands go into the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Commands {
    /// Several at a time: it turns none down for want of room.
    #[default]
    Together,
    /// One after the other: a store or a route refuses what it has no room for.
    OneByOne,
}

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
    /// Topics here, with the QoS of each; none where it is only to be acknowledged in its turn.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Done {
    /// Which connection it came on.
    pub(super) connection: u64,
    /// To be acknowledged upward.
    pub(super) receipt: Receipt,
    /// The topics here under which the broker did not take it, and why.
    pub(super) denied: Vec<(String, Refusal)>,
}

impl Downlink {
    /// Starts it. What the broker has no room for is published again after `refill`.
    pub(super) fn start(name: &str, host: Arc<dyn Host>, refill: Duration, commands: Commands) -> Downlink {
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
        let worker = Worker {
            hello,
            host,
            from_bridge,
            to_bridge,
            pending: VecDeque::new(),
            next_id: 1,
            refill,
            commands,
            turned_down: None,
        };
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
    refill: Duration,
    commands: Commands,
    /// When the broker had no room for a message the last time.
    turned_down: Option<Instant>,
}

struct Pending {
    inbound: Inbound,
    /// Publishes that the broker has not answered.
    open: Vec<Open>,
    denied: Vec<(String, Refusal)>,
}

struct Open {
    id: u64,
    target: usize,
    state: Asked,
}

/// What the broker has said of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Nothing yet.
    Waiting,
    /// There is no room for it.
    TurnedDown,
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
                Err(End::Bridge) => return,
                // The broker ends a port when it stops, or when somebody else took the client id.
                Err(End::Port) => sleep(REOPEN_AFTER).await,
                Ok(never) => match never {},
            }
        }
    }

    async fn serve(&mut self, port: &mut Port) -> Result<Infallible, End> {
        match port.next().await {
            Some(ToPort::Connected { .. }) => {}
            _ => return Err(End::Port),
        }
        self.say_again(port).await?;
        loop {
            let room = self.pending.len() < self.window();
            let again = self.turned_down.filter(|_| self.is_at_rest()).map(|at| at + self.refill);
            tokio::select! {
                word = port.next() => match word {
                    Some(ToPort::Published(answer)) => self.answered(answer),
                    Some(ToPort::Closed(_)) | None => return Err(End::Port),
                    Some(_) => {}
                },
                inbound = self.from_bridge.recv(), if room => {
                    let inbound = inbound.ok_or(End::Bridge)?;
                    self.take(inbound);
                    self.publish(port, self.pending.len() - 1).await?;
                }
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    // The oldest alone.
                    self.publish(port, 0).await?;
                }
            }
            self.hand_back().await?;
        }
    }

    /// Messages that may be under way: where one may be turned down, the next may find room before it comes again.
    fn window(&self) -> usize {
        match self.commands {
            Commands::OneByOne => 1,
            Commands::Together => PENDING_MAX,
        }
    }

    /// Whether nothing is without an answer, and something was turned down.
    fn is_at_rest(&self) -> bool {
        let open = || self.pending.iter().flat_map(|pending| &pending.open);
        open().next().is_some() && open().all(|open| open.state == Asked::TurnedDown)
    }

    /// What the last port did not answer is said again: rather twice than never.
    async fn say_again(&mut self, port: &Port) -> Result<(), End> {
        for index in 0..self.pending.len() {
            self.publish(port, index).await?;
        }
        Ok(())
    }

    fn take(&mut self, inbound: Inbound) {
        let first = self.next_id;
        let open = (first..).zip(0..inbound.targets.len());
        let open: Vec<Open> = open.map(|(id, target)| Open { id, target, state: Asked::Waiting }).collect();
        self.next_id = open.last().map_or(first, |last| last.id + 1);
        self.pending.push_back(Pending { inbound, open, denied: Vec::new() });
    }

    /// Publishes one message to those of its targets that do not have it, waiting for room in the broker's
    /// inbox.
    async fn publish(&mut self, port: &Port, index: usize) -> Result<(), End> {
        let Some(pending) = self.pending.get_mut(index) else { return Ok(()) };
        let properties = pending.inbound.properties_now();
        let mut answered_by_sending = Vec::new();
        for open in &mut pending.open {
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
            open.state = Asked::Waiting;
            if *qos == Qos::AtMostOnce {
                answered_by_sending.push(open.id);
            }
        }
        pending.open.retain(|open| !answered_by_sending.contains(&open.id));
        Ok(())
    }

    fn answered(&mut self, answer: Acknowledgement) {
        let mut pending = self.pending.iter_mut();
        let found = pending.find(|pending| pending.open.iter().any(|open| open.id == answer.id));
        let Some(pending) = found else { return };
        if matches!(answer.result, Err(Refusal::QuotaExceeded)) {
            // A full store: upstream keeps the message for as long as it is not acknowledged.
            let open = pending.open.iter_mut().filter(|open| open.id == answer.id);
            open.for_each(|open| open.state = Asked::TurnedDown);
            self.turned_down = Some(Instant::now());
            return;
        }
        let answered = pending.open.extract_if(.., |open| open.id == answer.id);
        if let (Some(open), Err(refusal)) = (answered.last(), answer.result)
            && let Some((topic, _)) = pending.inbound.targets.get(open.target)
        {
            pending.denied.push((topic.clone(), refusal));
        }
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

/// Messages that were published into the broker and not answered. Beyond: upstream waits.
const PENDING_MAX: usize = RECEIVE_MAXIMUM as usize;
/// After the broker has closed the port.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
