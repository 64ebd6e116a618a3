//! Keeps one uplink: dial, run the connection until it ends, wait, dial again.
//!
//! Nothing here holds a message. Why there is no uplink is told as exactly as it is known, and the wait
//! grows until a connection has carried something.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adapter_api::Host;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::config::Checked;
use super::dialer::Dialer;
use super::downlink::{Commands, Downlink};
use super::link::Debt;
use super::login;
use super::notes::Notes;
use super::random;
use super::routes::{Routes, Supply};
use super::session::{End, Session, stopped};
use super::status::{Board, LinkState, Status};
use super::trouble::Trouble;
use super::uplink::{Connection, Greeting};
use crate::clock::Clock;
use crate::store::Handle;

/// A configured bridge, ready to run.
pub struct Bridge {
    config: Checked,
    routes: Routes,
    board: Board,
    clock: Clock,
    pace: Pace,
    packet_size: u32,
    notes: Notes,
}

/// How long each thing may take. The defaults are the product's; tests are quicker.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Each of resolving, reaching and the TLS handshake.
    pub dial: Duration,
    /// The answer to CONNECT.
    pub connack: Duration,
    /// The answers to all SUBSCRIBEs; then forwarding starts all the same.
    pub suback: Duration,
    /// Without a message that upstream takes while some are under way: not "connected" any more.
    pub stall: Duration,
    /// After which a message that the local broker had no room for is published again.
    pub refill: Duration,
    /// Whether it may have no room for one.
    pub commands: Commands,
    /// The first ceiling of the wait between attempts.
    pub backoff_first: Duration,
    /// The last one.
    pub backoff_last: Duration,
    /// How often counts are reported while nothing else changes.
    pub report: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            dial: Duration::from_secs(10),
            connack: Duration::from_secs(10),
            suback: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            refill: Duration::from_secs(1),
            commands: Commands::Together,
            backoff_first: Duration::from_secs(1),
            backoff_last: Duration::from_secs(120),
            report: Duration::from_secs(10),
        }
    }
}

impl Bridge {
    /// A bridge over these supplies, one for each of its forward routes in order. `packet_size` is the
    /// largest packet that the local broker takes, and so the largest that is taken from upstream; in
    /// `folder` it keeps what must outlive this process.
    pub fn new(
        config: Checked,
        supplies: Vec<Supply>,
        store: Handle,
        clock: Clock,
        packet_size: u32,
        folder: &Path,
        pace: Pace,
    ) -> Bridge {
        let notes = Notes::new(folder, &config);
        let board = Board::new(&config, clock.now().wall);
        let routes = Routes::new(&config.forwards, supplies, store);
        Bridge { config, routes, board, clock, pace, packet_size, notes }
    }

    /// How it does, now and at every change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.board.watch()
    }

    /// Runs until `stop` turns true; then ends within [`ENDS_WITHIN`](super::ENDS_WITHIN). `host` is the way in for what
    /// is received, and where the state is reported as `bridge/<name>`.
    pub async fn run(mut self, host: Arc<dyn Host>, mut stop: watch::Receiver<bool>) {
        let reporter = tokio::spawn(report(host.clone(), self.board.watch(), self.pace.report));
        let receives = !self.config.receives.is_empty();
        let mut downlink =
            receives.then(|| Downlink::start(&self.config.name, host, self.pace.refill, self.pace.commands));
        let dialer = Dialer::new(&self.config, self.pace.dial);
        let mut backoff = Backoff::new(self.pace.backoff_first, self.pace.backoff_last);
        let mut memory = Memory { notes: Some(self.notes.clone()), ..Memory::default() };
        memory.stale = begin(self.notes.clone(), &self.config.name).await;
        while !*stop.borrow() {
            let connected = tokio::select! {
                connected = self.connect(&dialer) => connected,
                () = stopped(&mut stop) => break,
            };
            let trouble = match connected {
                Ok(connection) => {
                    let downlink = downlink.as_mut();
                    match self.serve(connection, &dialer, downlink, &mut memory, &mut stop).await {
                        Some(trouble) => trouble,
                        None => break,
                    }
                }
                Err(trouble) => trouble,
            };
            if std::mem::take(&mut memory.worked) {
                backoff.worked();
            }
            self.rest(&trouble, backoff.wait(random()), &mut stop).await;
        }
        let stopping = Trouble::Lost { why: "the service is stopping".to_owned() };
        self.board.enter(LinkState::Down, Some(&stopping), self.clock.now().wall);
        // The last state is published by the broker's own end, if at all.
        reporter.abort();
    }

    /// Dials and starts the protocol. Meanwhile routes that keep nothing keep nothing.
    async fn connect(&mut self, dialer: &Dialer) -> Result<Connection, Trouble> {
        let Bridge { config, routes, pace, packet_size, .. } = self;
        let making = async {
            let greeting = greeting(config, pace, *packet_size).await?;
            let stream = dialer.dial().await?;
            Connection::open(&greeting, stream).map_err(|error| Trouble::Lost { why: error.to_string() })
        };
        tokio::select! {
            made = making => made,
            never = routes.shed() => match never {},
        }
    }

    /// Runs one connection; `None` where the bridge was told to stop.
    async fn serve(
        &mut self,
        connection: Connection,
        dialer: &Dialer,
        downlink: Option<&mut Downlink>,
        memory: &mut Memory,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<Trouble> {
        let began = Instant::now();
        let verdict = connection.verdict();
        memory.number += 1;
        let session = Session {
            config: &self.config,
            pace: &self.pace,
            clock: self.clock,
            routes: &mut self.routes,
            downlink,
            board: &self.board,
            memory,
        };
        let end = session.run(connection, stop).await;
        memory.worked |= began.elapsed() >= WORKED_AFTER;
        match end {
            End::Stopped => None,
            // What ended the stream says more than that it ended.
            End::Failed(trouble @ (Trouble::Lost { .. } | Trouble::Unanswered { .. })) => {
                Some(verdict.take().map_or(trouble, |error| dialer.explain(&error)))
            }
            End::Failed(trouble) => Some(trouble),
        }
    }

    /// Says what is wrong and waits for the next attempt.
    async fn rest(&mut self, trouble: &Trouble, wait: Duration, stop: &mut watch::Receiver<bool>) {
        let now = self.clock.now().wall;
        let news = self.board.enter(LinkState::Down, Some(trouble), now);
        let next = now.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self.board.change(|status| {
            status.counts.failures += 1;
            status.next_attempt = Some(next);
        });
        // The same trouble again is no news: the log says it once.
        if news {
            tracing::warn!(bridge = %self.config.name, url = %self.config.url, "{}", trouble.sentence());
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = stopped(stop) => {}
            never = self.routes.shed() => match never {},
        }
    }
}

/// What the next connection should know of the earlier ones.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// How many connections there were: tells the receipts of one from those of another.
    pub(super) number: u64,
    /// Whether all subscriptions were granted on an earlier one, so that a kept session has them.
    pub(super) subscribed: bool,
    /// Whether the last one carried something.
    pub(super) worked: bool,
    /// What waited on the last one without progress.
    pub(super) debt: Debt,
    /// Filters that an earlier configuration has subscribed and this one does not.
    pub(super) stale: BTreeSet<String>,
    /// Where the filters are noted; nowhere, if `None`.
    pub(super) notes: Option<Notes>,
    /// When the log had a refusal, a message that was cut, one that no route takes, and one that is denied here.
    pub(super) refusals: Told,
    pub(super) cuts: Told,
    pub(super) unrouted: Told,
    pub(super) denied: Told,
}

impl Memory {
    /// Upstream keeps nothing for us but what is configured.
    pub(super) fn forget(&mut self) {
        if std::mem::take(&mut self.stale).is_empty() {
            return;
        }
        if let Some(notes) = self.notes.clone() {
            // Where it cannot be written, it is ended once more after the next start.
            tokio::task::spawn_blocking(move || notes.settle());
        }
    }
}

/// When something was said the last time that could be said very often.
#[derive(Debug, Default)]
pub(super) struct Told(Option<u64>);

impl Told {
    /// Whether it is to be said at this time, monotonic, and takes it as said.
    pub(super) fn is_due(&mut self, now: u64) -> bool {
        let due = self.0.is_none_or(|told| now.saturating_sub(told) >= TELL_EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

async fn greeting(config: &Checked, pace: &Pace, packet_size: u32) -> Result<Greeting, Trouble> {
    let for_login = config.clone();
    let login = tokio::task::spawn_blocking(move || login::read(&for_login)).await;
    let login = login.map_err(|error| Trouble::Lost { why: error.to_string() })??;
    Ok(Greeting {
        version: config.version,
        client_id: config.client_id.clone(),
        // What is sent down in an outage must wait for us; without a receive route nothing is.
        keep_session: (!config.receives.is_empty()).then_some(config.session_expiry),
        keepalive: config.keepalive,
        login,
        status_topic: config.status_topic.clone(),
        window: config.window,
        packet_size,
        within: pace.connack,
    })
}

/// What an earlier configuration has subscribed and this one does not.
async fn begin(notes: Notes, bridge: &str) -> BTreeSet<String> {
    let begun = tokio::task::spawn_blocking(move || notes.begin()).await.map_err(io::Error::other);
    begun.flatten().unwrap_or_else(|error| {
        tracing::warn!(%bridge, %error, "cannot note the subscriptions: what a later configuration leaves out may stay subscribed");
        BTreeSet::new()
    })
}

/// Reports the state: at once when it changes, its counts now and then.
async fn report(host: Arc<dyn Host>, mut status: watch::Receiver<Status>, every: Duration) {
    loop {
        let shown = status.borrow_and_update().clone();
        host.report(&format!("bridge/{}", shown.name), shown.health());
        let changed =
            status.wait_for(|status| (status.state, &status.reason) != (shown.state, &shown.reason));
        if let Ok(Err(_)) = timeout(every, changed).await {
            return;
        }
        // Nothing at all has changed: nothing is said.
        if *status.borrow() == shown && status.changed().await.is_err() {
            return;
        }
    }
}

/// A connection that has lasted so long worked, whatever it carried.
const WORKED_AFTER: Duration = Duration::from_secs(60);
/// Milliseconds in which the log has one line of a kind; the counts stand in the status.
const TELL_EVERY: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_all_the_time_is_said_now_and_then() {
        let mut told = Told::default();
        let said: Vec<u64> = (0..200_000).step_by(500).filter(|now| told.is_due(*now)).collect();
        assert_eq!(said, [0, 60_000, 120_000, 180_000]);
    }
}
