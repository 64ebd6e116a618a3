//! One connection's life: subscribe, wait for the answers, then forward until it ends.
//!
//! A single loop that reacts to upstream, the store, the routes' queues, the local broker and time; what
//! to send and what has arrived is [`Link`]'s to say. Dropped with its connection, it leaves nothing
//! behind but what was settled.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::config::Checked;
use super::downlink::{Done, Downlink, Inbound};
use super::link::{Link, LinkLimits, Origin, Outcome, Parcel, Pulse, Refusal};
use super::random;
use super::routes::{Live, Routes};
use super::runner::{Memory, Pace};
use super::shape::{Limits, Outbound, Retain, Unsendable, shape};
use super::status::{Board, LinkState};
use super::trouble::Trouble;
use super::uplink::{
    Connection, Cuts, Happening, OFFLINE, ONLINE, Overrun, RECEIVE_MAXIMUM, Uplink, Welcome,
};
use crate::clock::Clock;
use crate::codec::{Properties, QoS, Reason};
use crate::record::{DropReason, Message};

/// What a session works with; it owns only its connection.
pub(super) struct Session<'a> {
    pub(super) config: &'a Checked,
    pub(super) pace: &'a Pace,
    pub(super) clock: Clock,
    pub(super) routes: &'a mut Routes,
    pub(super) downlink: Option<&'a mut Downlink>,
    pub(super) board: &'a Board,
    pub(super) memory: &'a mut Memory,
}

/// How a session ended.
pub(super) enum End {
    /// It was told to.
    Stopped,
    /// Something went wrong.
    Failed(Trouble),
}

/// A session at work.
struct Loop<'a> {
    session: Session<'a>,
    kept: Kept,
}

/// What the loop keeps from one turn to the next.
struct Kept {
    uplink: Box<dyn Uplink>,
    link: Link,
    limits: Limits,
    /// What has happened and is not yet reacted to.
    news: VecDeque<Happening>,
    cuts: Cuts,
    /// SUBSCRIBEs without an answer, by route, in order.
    asked: VecDeque<usize>,
    /// UNSUBSCRIBEs without an answer.
    leaving: usize,
    /// Whether all subscriptions so far were granted.
    granted: bool,
    /// Messages from upstream that the downlink has no room for; while there are any, none are read.
    backlog: VecDeque<Inbound>,
    gate: Gate,
}

/// Whether messages are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Not before the subscriptions are answered, or this time (milliseconds) has come.
    Until(u64),
    /// Yes.
    Open,
    /// No more: the bridge is stopping.
    Shut,
}

impl Kept {
    fn live(&self) -> Live {
        if self.gate == Gate::Open && self.link.has_room(0) { Live::Take } else { Live::Leave }
    }
}

impl Session<'_> {
    /// Runs until the connection ends or `stop` turns true.
    pub(super) async fn run(self, connection: Connection, stop: &mut watch::Receiver<bool>) -> End {
        let Connection { uplink, mut happenings, mut written, cuts, guard } = connection;
        let welcome = tokio::select! {
            welcome = first_word(&mut happenings, self.pace.connack) => match welcome {
                Ok(welcome) => welcome,
                Err(trouble) => return End::Failed(trouble),
            },
            () = stopped(stop) => return End::Stopped,
        };
        let mut work = match Loop::new(self, uplink, cuts, &welcome) {
            Ok(work) => work,
            Err(trouble) => return End::Failed(trouble),
        };
        let mut ended = work.subscribe(welcome.session_present);
        if ended.is_ok() {
            ended = work.work(&mut happenings, &mut written, stop).await;
        }
        if ended.is_ok() {
            ended = work.leave(&mut happenings, &mut written).await;
        }
        let ended = ended.map_err(|trouble| work.culprit(trouble, &mut happenings));
        work.close();
        match ended {
            Ok(()) => {
                // Upstream may be slow to close its side; the service is not.
                let _ = timeout(CLOSE_WITHIN, guard.finish()).await;
                End::Stopped
            }
            Err(trouble) => End::Failed(trouble),
        }
    }
}

impl<'a> Loop<'a> {
    fn new(
        session: Session<'a>,
        uplink: Box<dyn Uplink>,
        cuts: Cuts,
        welcome: &Welcome,
    ) -> Result<Loop<'a>, Trouble> {
        let config = session.config;
        // [MQTT5-3.2.2.3.3] a Receive Maximum of 0 is an error of upstream's.
        let window = config.window.min(welcome.receive_maximum);
        if window == 0 {
            return Err(lost("upstream allows no message under way"));
        }
        let keepalive = welcome.keepalive.unwrap_or(config.keepalive);
        let silence = keepalive + keepalive / 2;
        let renew = silence.max(session.pace.stall);
        let limits = LinkLimits {
            window: usize::from(window),
            window_bytes: WINDOW_BYTES,
            silence: millis(silence),
            // It shows well before the connection is given up for it.
            stall: millis(session.pace.stall.min(renew / 3)),
            renew: millis(renew),
        };
        let now = session.clock.now();
        session.routes.rewind();
        tracing::info!(bridge = %config.name, url = %config.url, "connected to upstream");
        session.board.change(|status| {
            status.session_present = Some(welcome.session_present);
            status.counts.connects += 1;
        });
        let mut of_upstream = Limits::of(config.version);
        of_upstream.qos = welcome.maximum_qos;
        of_upstream.retain = welcome.retain;
        if let Some(size) = welcome.maximum_packet_size {
            of_upstream.packet_size = of_upstream.packet_size.min(size);
        }
        let gate = Gate::Until(now.mono.saturating_add(millis(session.pace.suback)));
        let kept = Kept {
            uplink,
            link: Link::new(limits, std::mem::take(&mut session.memory.debt), now.mono),
            limits: of_upstream,
            news: VecDeque::new(),
            cuts,
            asked: VecDeque::new(),
            leaving: 0,
            granted: true,
            backlog: VecDeque::new(),
            gate,
        };
        let mut work = Loop { session, kept };
        // That it is connected is not said before it is known what it owes.
        work.watch_over()?;
        Ok(work)
    }

    async fn work(
        &mut self,
        happenings: &mut mpsc::Receiver<Happening>,
        written: &mut watch::Receiver<u64>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Trouble> {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut downlink = self.session.downlink.take();
        let inward = downlink.as_ref().map(|downlink| downlink.inward.clone());
        loop {
            self.watch_over()?;
            self.open_gate()?;
            self.offer()?;
            self.session.routes.flush();
            self.session.routes.read_ahead();
            self.session.board.change(|status| status.counts.in_flight = count(self.kept.link.under_way()));
            let now = self.session.clock.now().mono;
            let wait = Duration::from_millis(self.deadline(now).saturating_sub(now));
            let live = self.kept.live();
            tokio::select! {
                taken = happenings.recv_many(&mut batch, BATCH_MAX), if self.kept.backlog.is_empty() => {
                    if taken == 0 {
                        return Err(lost("the protocol engine has ended"));
                    }
                    self.kept.news.extend(batch.drain(..));
                    self.catch_up()?;
                }
                count = newly_written(written) => self.on_written(count),
                done = receipts(&mut downlink) => self.acknowledge(done)?,
                sent = hand_in(inward.as_ref(), &self.kept.backlog), if !self.kept.backlog.is_empty() => {
                    self.kept.backlog.pop_front();
                    sent?;
                }
                () = self.session.routes.changed(live) => {}
                () = sleep(wait) => {}
                () = stopped(stop) => return Ok(()),
            }
        }
    }

    fn deadline(&self, now: u64) -> u64 {
        let deadline = self.kept.link.deadline(now);
        match self.kept.gate {
            Gate::Until(at) => deadline.min(at),
            Gate::Open | Gate::Shut => deadline,
        }
    }

    /// Says how the link does, and gives it up where it does not move.
    fn watch_over(&mut self) -> Result<(), Trouble> {
        let now = self.session.clock.now();
        let limits = self.kept.link.limits();
        if self.session.routes.are_caught_up() {
            // What a route does not keep is gone with its connection: that it waits no more shows nothing.
            let quiet = if self.session.routes.are_all_stored() { 0 } else { limits.stall };
            self.kept.link.forgive(now.mono, quiet);
        }
        let owed = self.kept.link.owed();
        let refusing = self.kept.link.refusal().map(|Refusal { reason, message }| Trouble::Refusing {
            topic: message.topic.to_string(),
            reason: *reason,
        });
        match self.kept.link.pulse(now.mono) {
            Pulse::Flowing => self.session.board.enter(LinkState::Connected, refusing.as_ref(), now.wall),
            Pulse::Stalled => {
                let trouble = refusing.unwrap_or(Trouble::stuck(owed.max(limits.stall)));
                self.session.board.enter(LinkState::Stalled, Some(&trouble), now.wall)
            }
            Pulse::Silent => return Err(Trouble::Silent { within: Duration::from_millis(limits.silence) }),
            // A refusal before was an answer.
            Pulse::Stuck if refusing.is_some() => return Err(Trouble::stuck(limits.renew)),
            Pulse::Stuck => return Err(Trouble::stuck(owed.saturating_add(limits.renew))),
        };
        Ok(())
    }

    /// Forwarding starts when all subscriptions are answered, or after their time.
    fn open_gate(&mut self) -> Result<(), Trouble> {
        let Gate::Until(at) = self.kept.gate else { return Ok(()) };
        let answered = self.kept.asked.is_empty();
        if !answered && self.session.clock.now().mono < at {
            return Ok(());
        }
        self.kept.gate = Gate::Open;
        for index in std::mem::take(&mut self.kept.asked) {
            self.answer(index, "not answered".to_owned());
        }
        self.tell_status(ONLINE)
    }

    /// Hands messages over while there is room.
    fn offer(&mut self) -> Result<(), Trouble> {
        if self.kept.gate != Gate::Open {
            return Ok(());
        }
        let now = self.session.clock.now().mono;
        while let Some(parcel) = self.kept.link.take_rested(now) {
            self.send(parcel)?;
        }
        while let Some(parcel) = self.session.routes.next(|weight| self.kept.link.has_room(weight)) {
            self.send(parcel)?;
        }
        Ok(())
    }

    fn send(&mut self, parcel: Parcel) -> Result<(), Trouble> {
        let (Origin::Row { route, .. } | Origin::Live { route }) = parcel.origin else { return Ok(()) };
        let Some(forward) = self.session.routes.forward(route) else { return Ok(()) };
        match shape(&parcel.message, forward, &self.kept.limits, &self.session.clock.now()) {
            Ok(outbound) => self.hand_over(parcel, outbound),
            Err(unsendable) => {
                let reason = match unsendable {
                    Unsendable::Expired => DropReason::Expired,
                    Unsendable::TooLarge => DropReason::TooLarge,
                    Unsendable::NoTopic => DropReason::Refused,
                };
                self.session.board.change(|status| match unsendable {
                    Unsendable::Expired => status.counts.expired += 1,
                    Unsendable::TooLarge | Unsendable::NoTopic => status.counts.given_up += 1,
                });
                self.session.routes.given_up(parcel.origin, reason);
                Ok(())
            }
        }
    }

    fn hand_over(&mut self, parcel: Parcel, outbound: Outbound) -> Result<(), Trouble> {
        // First of all: where the engine takes it no more, it is still owed.
        self.kept.link.hand_over(parcel, self.session.clock.now().mono);
        self.kept.uplink.publish(outbound).map_err(overrun)
    }

    /// The bridge's own word; retained, where upstream retains.
    fn tell_status(&mut self, word: &'static str) -> Result<(), Trouble> {
        let Some(topic) = &self.session.config.status_topic else { return Ok(()) };
        let message = Message {
            topic: topic.as_str().into(),
            payload: Bytes::from_static(word.as_bytes()),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Properties::new(),
            expiry: None,
            received: 0,
            unclocked: false,
        };
        let outbound = Outbound {
            topic: topic.clone(),
            payload: message.payload.clone(),
            qos: QoS::AtLeastOnce.min(self.kept.limits.qos),
            retain: self.kept.limits.retain == Retain::Available,
            expiry: None,
            properties: Properties::new(),
        };
        self.hand_over(Parcel { origin: Origin::Status, message: message.into(), refusals: 0 }, outbound)
    }

    /// Reacts to all that has happened.
    fn catch_up(&mut self) -> Result<(), Trouble> {
        while let Some(happening) = self.kept.news.pop_front() {
            self.react(happening)?;
        }
        Ok(())
    }

    /// Why the connection has ended. An engine that has ended takes nothing more, and only what it has
    /// told before says why.
    fn culprit(&mut self, trouble: Trouble, happenings: &mut mpsc::Receiver<Happening>) -> Trouble {
        if trouble != overrun(Overrun) {
            return trouble;
        }
        while let Some(happening) = self.kept.news.pop_front().or_else(|| happenings.try_recv().ok()) {
            if matches!(happening, Happening::Arrived(_)) {
                // It comes again.
                continue;
            }
            // What has arrived upstream has arrived, up to where something goes wrong.
            if let Err(earlier) = self.react(happening) {
                return earlier;
            }
        }
        trouble
    }

    fn react(&mut self, happening: Happening) -> Result<(), Trouble> {
        let now = self.session.clock.now().mono;
        let outcome = match happening {
            Happening::Sent(packet_id) => {
                self.session.board.change(|status| status.counts.sent += 1);
                self.kept.link.on_sent(packet_id).map_err(confused)?;
                self.report_written();
                None
            }
            Happening::Held(packet_id) => {
                self.kept.link.on_held(packet_id).map_err(confused)?;
                None
            }
            Happening::Acknowledged(packet_id, reason) => {
                self.kept.link.on_heard(now);
                let outcome = self.kept.link.on_acknowledged(packet_id, reason, now, random());
                Some(outcome.map_err(confused)?)
            }
            Happening::Subscribed(answer) => {
                self.kept.link.on_heard(now);
                self.on_subscribed(answer);
                None
            }
            Happening::Unsubscribed(answer) => {
                self.kept.link.on_heard(now);
                self.on_unsubscribed(answer);
                None
            }
            Happening::Arrived(arrival) => {
                self.kept.link.on_heard(now);
                self.on_arrival(arrival)?;
                None
            }
            Happening::Heard | Happening::Connected(_) => {
                self.kept.link.on_heard(now);
                None
            }
            Happening::Left => None,
            Happening::Lost(trouble) => return Err(trouble),
        };
        if let Some(outcome) = outcome {
            self.on_outcome(outcome);
        }
        Ok(())
    }

    fn on_written(&mut self, count: u64) {
        self.kept.link.on_written(count);
        self.report_written();
    }

    fn report_written(&mut self) {
        let now = self.session.clock.now().mono;
        while let Some(outcome) = self.kept.link.take_written(now) {
            self.on_outcome(outcome);
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Arrived(parcel) => {
                // Our own word tells nothing of what others want carried.
                self.session.memory.worked |= parcel.origin != Origin::Status;
                self.session.routes.arrived(parcel.origin);
                self.session.board.change(|status| status.counts.acknowledged += 1);
            }
            Outcome::Refused(parcel, reason) => {
                self.tell_refusal(&parcel.message.topic, reason);
                self.session.routes.given_up(parcel.origin, DropReason::Refused);
                self.session.board.change(|status| status.counts.given_up += 1);
            }
            Outcome::Later(topic, reason) => {
                self.tell_refusal(&topic, reason);
                self.session.board.change(|status| status.counts.refused_for_now += 1);
            }
        }
    }

    /// Not each, since an upstream may refuse all: how many there are is counted.
    fn tell_refusal(&mut self, topic: &str, reason: Reason) {
        if self.session.memory.refusals.is_due(self.session.clock.now().mono) {
            let trouble = Trouble::Refusing { topic: topic.to_owned(), reason };
            tracing::warn!(bridge = %self.session.config.name, %topic, "{}", trouble.sentence());
        }
    }

    /// Says offline, waits a moment for what is under way, and disconnects.
    async fn leave(
        &mut self,
        happenings: &mut mpsc::Receiver<Happening>,
        written: &mut watch::Receiver<u64>,
    ) -> Result<(), Trouble> {
        let was_open = self.kept.gate == Gate::Open;
        self.kept.gate = Gate::Shut;
        if was_open {
            self.tell_status(OFFLINE)?;
        }
        let farewell = async {
            let mut asked_to_leave = false;
            loop {
                if !asked_to_leave && self.kept.link.is_quiet() {
                    self.kept.uplink.disconnect().map_err(overrun)?;
                    asked_to_leave = true;
                }
                tokio::select! {
                    happening = happenings.recv() => match happening {
                        Some(Happening::Left) => return Ok(()),
                        // What comes now stays unacknowledged, and comes again.
                        Some(Happening::Arrived(_)) => {}
                        Some(happening) => self.react(happening)?,
                        None => return Err(lost("the protocol engine has ended")),
                    },
                    count = newly_written(written) => self.on_written(count),
                }
            }
        };
        // Where upstream does not answer, its will says offline.
        timeout(FAREWELL_WITHIN, farewell).await.unwrap_or(Ok(()))
    }

    /// Settles what has arrived, and gives up what nobody keeps.
    fn close(self) {
        self.session.memory.debt = self.kept.link.debt(self.session.clock.now().mono);
        for route in self.kept.link.live() {
            self.session.routes.given_up(Origin::Live { route }, DropReason::LinkDown);
        }
        self.session.routes.flush();
        self.session.board.change(|status| status.counts.in_flight = 0);
    }
}

/// The first word of a connection.
async fn first_word(
    happenings: &mut mpsc::Receiver<Happening>,
    within: Duration,
) -> Result<Welcome, Trouble> {
    match timeout(within, happenings.recv()).await {
        Ok(Some(Happening::Connected(welcome))) => Ok(welcome),
        Ok(Some(Happening::Lost(trouble))) => Err(trouble),
        Ok(_) => Err(lost("upstream answered CONNECT with something else")),
        Err(_) => Err(Trouble::Unanswered { within }),
    }
}

/// Waits until the bridge shall stop, or whoever could say so is gone.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the service is gone, which is a stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// How many QoS 0 messages are written, once that changes; for ever once the stream is closed.
async fn newly_written(written: &mut watch::Receiver<u64>) -> u64 {
    if written.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *written.borrow_and_update()
}

/// The next receipt; for ever where nothing is received.
async fn receipts(downlink: &mut Option<&mut Downlink>) -> Done {
    if let Some(downlink) = downlink
        && let Some(done) = downlink.done.recv().await
    {
        return done;
    }
    std::future::pending().await
}

/// Hands the oldest waiting message to the downlink, waiting for room.
async fn hand_in(inward: Option<&mpsc::Sender<Inbound>>, backlog: &VecDeque<Inbound>) -> Result<(), Trouble> {
    let (Some(inward), Some(inbound)) = (inward, backlog.front()) else { return Ok(()) };
    let permit = inward.reserve().await.map_err(|_| lost("the local broker is gone"))?;
    permit.send(inbound.clone());
    Ok(())
}

fn lost(why: &str) -> Trouble {
    Trouble::Lost { why: why.to_owned() }
}

fn overrun(error: Overrun) -> Trouble {
    lost(&error.to_string())
}

fn confused(error: super::link::Confused) -> Trouble {
    lost(&error.to_string())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn count(messages: usize) -> u64 {
    u64::try_from(messages).unwrap_or(u64::MAX)
}

/// Happenings that are taken at once.
const BATCH_MAX: usize = 64;
/// Bytes under way at most, so that a window of large messages does not fill the memory.
const WINDOW_BYTES: usize = 4 << 20;
/// How long upstream may take to confirm what is under way, at a clean end.
const FAREWELL_WITHIN: Duration = Duration::from_millis(700);
/// And then to close its side.
const CLOSE_WITHIN: Duration = Duration::from_millis(300);
/// All that a bridge takes to end, so that who waits for it can wait longer.
pub const ENDS_WITHIN: Duration = FAREWELL_WITHIN.saturating_add(CLOSE_WITHIN);
/// A backlog holds what one batch may bring, no more.
const _: () = assert!(BATCH_MAX >= RECEIVE_MAXIMUM as usize);

mod arrivals;
#[cfg(test)]
mod stepped;
#[cfg(test)]
pub(crate) use stepped::{Arrived, Down, Stepped, Up};
