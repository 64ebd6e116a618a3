//! TLS handshakes, on a thread of their own: they cost milliseconds, and a peer may never finish.
//!
//! The thread polls all of them at once. Each has a time limit, and so many may be under way; beyond that
//! one of the address that holds most gives way, so that a crowd from one machine locks out itself alone.
//! What is finished is handed on as a stream like any other. Whoever is here was counted at the door, so
//! whatever the end of a handshake, it is told.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use rustls::{CertificateError, ServerConnection};
use serde::Serialize;
use tracing::{debug, warn};

use super::certificate::Certificate;
use super::guests::{Address, Stay};
use super::keeper::Keeper;
use super::limiter::Limiter;
use super::secured::Secured;
use super::tls::Made;
use super::{Accepted, Stream};
use crate::broker::{Trust, is_house_user};
use crate::clock::Clock;

/// A way to the thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Handshakes {
    newcomers: SyncSender<(Accepted, Arc<Keeper>)>,
    waker: Arc<Waker>,
    tally: Arc<Tally>,
}

/// How a handshake ended.
#[derive(Debug)]
pub enum Outcome {
    /// Well: he is in.
    Done(Box<Accepted>),
    /// Otherwise: his stay is over.
    Over(Stay),
}

/// Bounds of handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// So many may be under way; beyond that one of the address that holds most gives way.
    pub under_way: usize,
    /// So many of them from one address; beyond that one of its own gives way.
    pub per_address: usize,
    /// How long one may take.
    pub within: Duration,
}

/// What became of handshakes since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct HandshakeCounts {
    /// Under way now, a gauge.
    pub under_way: u64,
    /// Finished.
    pub done: u64,
    /// Failed, whatever for: what is no TLS, a certificate that is not trusted, a peer that left.
    pub failed: u64,
    /// Of those: the client's certificate is revoked.
    pub revoked: u64,
    /// Ended by the time limit.
    pub timed_out: u64,
    /// Ended because too many were under way, in all or from one address.
    pub crowded_out: u64,
}

#[derive(Debug, Default)]
struct Tally {
    ended: AtomicBool,
    /// The files are to be looked at now.
    look: AtomicBool,
    under_way: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    revoked: AtomicU64,
    timed_out: AtomicU64,
    crowded_out: AtomicU64,
}

/// One handshake.
struct Pending {
    /// Its stream is TCP's until the handshake is done.
    accepted: Accepted,
    keeper: Arc<Keeper>,
    connection: ServerConnection,
    made: Arc<Made>,
    /// Bytes that have come.
    heard: usize,
    /// Monotonic milliseconds.
    deadline: u64,
}

/// How one step of a handshake ended.
enum Step {
    /// The peer has to say more.
    Waits,
    Done,
    Failed(Failure),
}

/// Why a handshake failed.
enum Failure {
    Gone,
    /// It does not come to an end.
    TooLong,
    Tls(rustls::Error),
    Stream(io::Error),
}

struct Worker<D> {
    poll: Poll,
    inbox: Receiver<(Accepted, Arc<Keeper>)>,
    /// By number, under which each is polled: in the order of their time limits.
    pending: BTreeMap<usize, Pending>,
    /// The number of the next.
    next: usize,
    keepers: Vec<Arc<Keeper>>,
    limits: HandshakeLimits,
    clock: Clock,
    tally: Arc<Tally>,
    said: Limiter,
    deliver: D,
}

impl Handshakes {
    /// Starts the thread. `deliver` takes who has finished, may wait, and says whether anybody wants more.
    pub(super) fn start(
        keepers: Vec<Arc<Keeper>>,
        limits: HandshakeLimits,
        clock: Clock,
        deliver: impl FnMut(Outcome) -> bool + Send + 'static,
    ) -> io::Result<Handshakes> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (newcomers, inbox) = sync_channel(NEWCOMERS_MAX);
        let tally = Arc::new(Tally::default());
        let mut worker = Worker {
            poll,
            inbox,
            pending: BTreeMap::new(),
            next: 0,
            keepers,
            limits,
            clock,
            tally: tally.clone(),
            said: Limiter::default(),
            deliver,
        };
        thread::Builder::new().name("handshakes".to_owned()).spawn(move || worker.run())?;
        Ok(Handshakes { newcomers, waker, tally })
    }

    /// Begins one, if there is room; whoever is too many for the queue is dropped and counted.
    pub(super) fn begin(&self, accepted: Accepted, keeper: Arc<Keeper>) -> bool {
        self.tally.under_way.fetch_add(1, Ordering::Relaxed);
        let begun = self.newcomers.try_send((accepted, keeper));
        // Counted before it is dropped: the peer sees its end then.
        if begun.is_err() {
            self.tally.end(&self.tally.crowded_out);
        }
        // A waker fails only where the kernel is out of memory; the next one then wakes for both.
        let _ = self.waker.wake();
        begun.is_ok()
    }

    /// Has the files of certificates looked at now.
    pub(super) fn look(&self) {
        self.tally.look.store(true, Ordering::SeqCst);
        // A waker fails only where the kernel is out of memory; the next look comes by itself.
        let _ = self.waker.wake();
    }

    /// Bytes that those under way take, about.
    pub(super) fn resting(&self) -> usize {
        let under_way = self.tally.under_way.load(Ordering::Relaxed);
        usize::try_from(under_way).unwrap_or(usize::MAX).saturating_mul(HANDSHAKE_BYTES)
    }

    /// What became of them so far.
    pub(super) fn counts(&self) -> HandshakeCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        HandshakeCounts {
            under_way: read(&self.tally.under_way),
            done: read(&self.tally.done),
            failed: read(&self.tally.failed),
            revoked: read(&self.tally.revoked),
            timed_out: read(&self.tally.timed_out),
            crowded_out: read(&self.tally.crowded_out),
        }
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.tally.ended.store(true, Ordering::SeqCst);
        let _ = self.waker.wake();
    }
}

impl Default for HandshakeLimits {
    fn default() -> HandshakeLimits {
        HandshakeLimits { under_way: 512, per_address: 128, within: Duration::from_secs(10) }
    }
}

impl Tally {
    fn end(&self, how: &AtomicU64) {
        how.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<D: FnMut(Outcome) -> bool> Worker<D> {
    fn run(&mut self) {
        let mut polled = Events::with_capacity(POLLED_MAX);
        let mut look_at = 0;
        loop {
            let now = self.clock.now().mono;
            let oldest = self.pending.first_key_value().map(|(_, pending)| pending.deadline);
            let next = oldest.map_or(look_at, |deadline| deadline.min(look_at));
            let wait = Duration::from_millis(next.saturating_sub(now));
            match self.poll.poll(&mut polled, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    warn!("no TLS client can come in any more: {error}");
                    return self.give_up();
                }
                _ => {}
            }
            let now = self.clock.now().mono;
            if self.tally.look.swap(false, Ordering::SeqCst) || look_at <= now {
                self.keepers.iter().for_each(|keeper| keeper.look());
                look_at = now + LOOK_EVERY;
            }
            for event in polled.iter().filter(|event| event.token() != WAKER) {
                if !self.advance(event.token().0, now) {
                    return;
                }
            }
            if !self.take_newcomers(now) || !self.end_late(now) {
                return;
            }
        }
    }

    /// Nobody's handshake goes on, so everybody's stay is over: who is here, and who waits to be looked at.
    fn give_up(&mut self) {
        while let Some((_, pending)) = self.pending.pop_first() {
            if !self.end(pending.accepted.stay, |tally| &tally.failed) {
                return;
            }
        }
        while let Ok((accepted, _)) = self.inbox.try_recv() {
            if !self.end(accepted.stay, |tally| &tally.failed) {
                return;
            }
        }
    }

    /// Whether the thread goes on.
    fn take_newcomers(&mut self, now: u64) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok((accepted, keeper)) => {
                    if !self.begin(accepted, keeper, now) {
                        return false;
                    }
                }
                Err(TryRecvError::Empty) => return !self.tally.ended.load(Ordering::SeqCst),
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn begin(&mut self, mut accepted: Accepted, keeper: Arc<Keeper>, now: u64) -> bool {
        keeper.look();
        let stay = accepted.stay;
        let connection = keeper.current().and_then(|made| {
            let connection = ServerConnection::new(made.config.clone()).ok()?;
            Some((made, connection))
        });
        let Some((made, connection)) = connection else { return self.end(stay, |tally| &tally.failed) };
        if !self.make_room(stay.address()) {
            return false;
        }
        let number = self.next;
        self.next = if number == WAKER.0 - 1 { 0 } else { number + 1 };
        // Edge-triggered, so that watching both costs nothing.
        let both = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut accepted.stream, Token(number), both).is_err() {
            return self.end(stay, |tally| &tally.failed);
        }
        let within = u64::try_from(self.limits.within.as_millis()).unwrap_or(u64::MAX);
        let deadline = now.saturating_add(within);
        self.pending.insert(number, Pending { accepted, keeper, connection, made, heard: 0, deadline });
        self.advance(number, now)
    }

    /// Gives a stay back and counts how its handshake ended; whether the thread goes on. In this order,
    /// and both before the stream is dropped: who sees the count, or his end, finds the place free.
    fn end(&mut self, stay: Stay, how: fn(&Tally) -> &AtomicU64) -> bool {
        let goes_on = (self.deliver)(Outcome::Over(stay));
        self.tally.end(how(&self.tally));
        goes_on
    }

    /// Ends one where as many are under way as may be, in all or from this address; whether the thread
    /// goes on.
    fn make_room(&mut self, newcomer: Option<Address>) -> bool {
        let of = |pending: &Pending| pending.accepted.stay.address();
        loop {
            let crowd = if self.pending.len() >= self.limits.under_way.max(1) {
                self.largest_crowd()
            } else if self.pending.values().filter(|pending| of(pending) == newcomer).count()
                >= self.limits.per_address.max(1)
            {
                newcomer
            } else {
                return true;
            };
            let Some(pending) = self.least_worth(crowd).and_then(|number| self.pending.remove(&number))
            else {
                return true;
            };
            debug!(peer = %pending.accepted.peer, "handshake given up: too many are under way");
            if !self.end(pending.accepted.stay, |tally| &tally.crowded_out) {
                return false;
            }
        }
    }

    /// The address that holds most.
    fn largest_crowd(&self) -> Option<Address> {
        let mut held = BTreeMap::new();
        let addresses = self.pending.values().map(|pending| pending.accepted.stay.address());
        addresses.for_each(|address| *held.entry(address).or_insert(0_usize) += 1);
        held.into_iter().max_by_key(|(_, count)| *count).and_then(|(address, _)| address)
    }

    /// Of this address: the oldest that has not yet said what it wants, otherwise the oldest. A crowd can
    /// say that too, so it does not count against others.
    fn least_worth(&self, crowd: Option<Address>) -> Option<usize> {
        let of_the_crowd =
            || self.pending.iter().filter(|(_, pending)| pending.accepted.stay.address() == crowd);
        let silent = of_the_crowd().find(|(_, pending)| pending.connection.protocol_version().is_none());
        silent.or_else(|| of_the_crowd().next()).map(|(number, _)| *number)
    }

    /// Whether the thread goes on.
    fn end_late(&mut self, now: u64) -> bool {
        while let Some(oldest) = self.pending.first_entry()
            && oldest.get().deadline <= now
        {
            let late = oldest.remove();
            debug!(peer = %late.accepted.peer, "handshake given up: it takes too long");
            if !self.end(late.accepted.stay, |tally| &tally.timed_out) {
                return false;
            }
        }
        true
    }

    /// Goes on with one handshake; whether the thread goes on.
    fn advance(&mut self, number: usize, now: u64) -> bool {
        let Some(pending) = self.pending.get_mut(&number) else { return true };
        let step = pending.step();
        if matches!(step, Step::Waits) {
            return true;
        }
        let Some(mut pending) = self.pending.remove(&number) else { return true };
        // Before the engine can register it; fails only for what is not registered.
        let _ = self.poll.registry().deregister(&mut pending.accepted.stream);
        if let Step::Failed(failure) = step {
            self.tell_failure(&pending, &failure, now);
            return self.end(pending.accepted.stay, |tally| &tally.failed);
        }
        let stay = pending.accepted.stay;
        match pending.trust() {
            Ok(trust) => match pending.finish(trust) {
                Some(accepted) => {
                    self.tally.end(&self.tally.done);
                    (self.deliver)(Outcome::Done(Box::new(accepted)))
                }
                None => self.end(stay, |tally| &tally.failed),
            },
            Err(refusal) => {
                let peer = pending.accepted.peer;
                if let Some(missed) = self.said.admit(now) {
                    warn!(%peer, missed, "client refused: {refusal}");
                }
                self.end(stay, |tally| &tally.failed)
            }
        }
    }

    fn tell_failure(&mut self, pending: &Pending, failure: &Failure, now: u64) {
        let peer = pending.accepted.peer;
        let error = match failure {
            Failure::Gone => return debug!(%peer, "handshake failed: the client has left"),
            Failure::TooLong => return debug!(%peer, "handshake failed: it is longer than any should be"),
            Failure::Stream(error) => return debug!(%peer, "handshake failed: {error}"),
            Failure::Tls(error) => error,
        };
        if matches!(error, rustls::Error::InvalidCertificate(CertificateError::Revoked)) {
            self.tally.revoked.fetch_add(1, Ordering::Relaxed);
        }
        let certificate = pending.made.refused();
        let Some(missed) = self.said.admit(now) else { return };
        warn!(%peer, certificate, missed, "handshake failed: {}", in_words(error));
    }
}

impl Pending {
    fn step(&mut self) -> Step {
        loop {
            if let Err(error) = self.push() {
                return Step::Failed(Failure::Stream(error));
            }
            if !self.connection.is_handshaking() {
                return Step::Done;
            }
            let Stream::Tcp(stream) = &mut self.accepted.stream else { return Step::Failed(Failure::Gone) };
            match self.connection.read_tls(stream) {
                Ok(0) => return Step::Failed(Failure::Gone),
                Ok(_) if self.heard > HEARD_MAX => return Step::Failed(Failure::TooLong),
                Ok(count) => self.heard += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Waits,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Step::Failed(Failure::Stream(error)),
            }
            if let Err(error) = self.connection.process_new_packets() {
                // The alert tells the peer why, where it takes it.
                let _ = self.push();
                return Step::Failed(Failure::Tls(error));
            }
        }
    }

    /// Sends what the peer takes; the rest leaves when it takes more.
    fn push(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.accepted.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// As whom it comes in; an error says why its certificate names nobody who may.
    fn trust(&self) -> Result<Trust, String> {
        let leaf = self.connection.peer_certificates().and_then(|chain| chain.first());
        let (Some(identity), Some(leaf)) = (self.keeper.identity(), leaf) else {
            return Ok(self.accepted.trust.clone());
        };
        let certificate = Certificate::parse(leaf).ok_or("its certificate cannot be looked into")?;
        let user = certificate.user(identity);
        let user = user.ok_or_else(|| format!("its certificate ({certificate}) names no user"))?;
        if is_house_user(&user) {
            return Err(format!("its certificate ({certificate}) has a name of tidegate's own"));
        }
        Ok(Trust::Certificate { user: user.into() })
    }

    /// The stream, and who comes in by it.
    fn finish(self, trust: Trust) -> Option<Accepted> {
        let Pending { mut accepted, connection, .. } = self;
        accepted.trust = trust;
        let Stream::Tcp(stream) = accepted.stream else { return None };
        accepted.stream = Stream::Tls(Box::new(Secured::new(stream, connection)));
        Some(accepted.speaking())
    }
}

/// A failed handshake, for the operator: most often he has the wrong file in a client.
fn in_words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::Revoked => "the client's certificate is revoked".to_owned(),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the client's certificate is from an authority that client_ca does not hold".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the client's certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the client's certificate is not valid yet (is the clock right?)".to_owned()
            }
            CertificateError::UnknownRevocationStatus => {
                "the crl says nothing of the authority of the client's certificate".to_owned()
            }
            other => format!("the client's certificate is not accepted: {other}"),
        },
        rustls::Error::NoCertificatesPresented => "the client shows no certificate".to_owned(),
        rustls::Error::AlertReceived(alert) => format!("the client ends it: {alert:?}"),
        rustls::Error::InvalidMessage(_) => "what came is no TLS".to_owned(),
        other => other.to_string(),
    }
}

/// Under which the waker is polled; handshakes count from 0.
const WAKER: Token = Token(usize::MAX);

/// What a handshake takes: its connection, and what has come and is to leave of its flights.
const HANDSHAKE_BYTES: usize = 16 << 10;

/// Bytes of one handshake, a chain of large certificates among them: what rustls holds of it is bounded
/// by that.
const HEARD_MAX: usize = 32 << 10;

/// What the kernel tells at once; more waits for the next time.
const POLLED_MAX: usize = 256;

/// Who waits for the thread to look at him at all; the next one is closed at once.
const NEWCOMERS_MAX: usize = 1_024;

/// Milliseconds between two looks at the files where nobody comes in.
const LOOK_EVERY: u64 = 30_000;
