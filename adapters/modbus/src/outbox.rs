//! Readings on their way to the broker.
//!
//! An in-process client like any other, that publishes at QoS 1 and never repeats itself: what the broker
//! has acknowledged is kept, what it refuses is counted. Polling waits for the engine to take a reading
//! but never for an acknowledgement: beyond [`UNACKNOWLEDGED_MAX`] the newest reading is dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use adapter_api::{FromPort, Hello, Host, Port, Qos, ToPort};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};

/// The way to the broker.
pub(crate) struct Outbox {
    host: Arc<dyn Host>,
    name: String,
    state: State,
    /// Readings sent and not acknowledged.
    unacknowledged: usize,
    next_id: u64,
    pub(crate) counts: Counts,
}

/// What became of readings.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Acknowledged by the broker.
    pub(crate) published: u64,
    /// The newest where too many were unacknowledged, and all where there was no broker.
    pub(crate) dropped: u64,
    /// Refused by the broker: an access rule, a limit.
    pub(crate) refused: u64,
}

enum State {
    /// No port until then.
    Closed(Instant),
    /// The broker has not greeted yet.
    Opening(Port),
    Open(Port),
}

impl Outbox {
    pub(crate) fn new(host: Arc<dyn Host>, name: String) -> Outbox {
        let state = State::Closed(Instant::now());
        Outbox { host, name, state, unacknowledged: 0, next_id: 0, counts: Counts::default() }
    }

    /// Waits for the broker's greeting, though not long: a broker that is slow is no reason not to poll.
    pub(crate) async fn greeted(&mut self) {
        let greeting = async {
            while !matches!(self.state, State::Open(_)) {
                self.step().await;
            }
        };
        // Where it takes longer, the first readings are dropped and counted.
        let _ = timeout(GREETING_LIMIT, greeting).await;
    }

    /// Hears the broker for as long as something else takes.
    pub(crate) async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return done,
                () = self.step() => {}
            }
        }
    }

    /// Publishes one reading, waiting for room towards the engine.
    pub(crate) async fn publish(&mut self, topic: &str, payload: Bytes) {
        if !matches!(self.state, State::Open(_)) || self.unacknowledged >= UNACKNOWLEDGED_MAX {
            self.counts.dropped += 1;
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        let topic = topic.to_owned();
        let request = FromPort::Publish { id, topic, payload, qos: Qos::AtLeastOnce, retain: false };
        while let State::Open(Port { sender, receiver }) = &mut self.state {
            // Hearing the broker while waiting, or each could wait for the other.
            let word = tokio::select! {
                biased;
                room = sender.reserve() => {
                    if let Ok(room) = room {
                        room.send(request);
                        self.unacknowledged += 1;
                        return;
                    }
                    None
                }
                word = receiver.recv() => word,
            };
            self.hear(word);
        }
        self.counts.dropped += 1;
    }

    /// Leaves the broker cleanly.
    pub(crate) fn leave(&mut self) {
        if let State::Open(port) = &self.state {
            // Without room the broker sees the port dropped, which without a will is the same.
            let _ = port.sender.try_send(FromPort::Close);
        }
        self.close();
    }

    /// Takes in one word of the broker, or opens the port; can be dropped at any time.
    async fn step(&mut self) {
        match &mut self.state {
            State::Closed(until) => {
                sleep_until(*until).await;
                self.state = State::Opening(self.host.open(self.hello()));
            }
            State::Opening(port) | State::Open(port) => {
                let word = port.receiver.recv().await;
                self.hear(word);
            }
        }
    }

    fn hear(&mut self, word: Option<ToPort>) {
        match word {
            Some(ToPort::Connected { .. }) => {
                let state = std::mem::replace(&mut self.state, State::Closed(Instant::now()));
                self.state = match state {
                    State::Opening(port) => State::Open(port),
                    other => other,
                };
            }
            Some(ToPort::Published(acknowledgement)) => {
                self.unacknowledged = self.unacknowledged.saturating_sub(1);
                match acknowledgement.result {
                    Ok(()) => self.counts.published += 1,
                    Err(_) => self.counts.refused += 1,
                }
            }
            // Nothing is subscribed.
            Some(ToPort::Subscribed { .. } | ToPort::Unsubscribed { .. } | ToPort::Message(_)) => {}
            Some(ToPort::Closed(refusal)) => {
                tracing::warn!(client = %self.name, reason = %refusal, "the broker closed the adapter's session");
                self.close();
            }
            None => self.close(),
        }
    }

    /// What was not acknowledged may or may not be kept: it counts as dropped.
    fn close(&mut self) {
        self.counts.dropped += self.unacknowledged as u64;
        self.unacknowledged = 0;
        self.state = State::Closed(Instant::now() + REOPEN);
    }

    fn hello(&self) -> Hello {
        Hello {
            client_id: self.name.clone(),
            user: Some(self.name.clone()),
            clean_start: true,
            session_expiry: 0,
            will: None,
            credit: 0,
            waits: false,
        }
    }
}

/// Readings that the broker may owe an acknowledgement for. Beyond it the newest are dropped.
const UNACKNOWLEDGED_MAX: usize = 1_000;

/// How long the first poll waits for the broker.
const GREETING_LIMIT: Duration = Duration::from_secs(2);

/// Until a port that was closed is opened again.
const REOPEN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use adapter_api::{Acknowledgement, Health, Refusal};
    use tokio::sync::mpsc;

    use super::*;

    /// Hands out the broker's ends of the ports it opens.
    #[derive(Default)]
    struct Ends(Mutex<Vec<(mpsc::Receiver<FromPort>, mpsc::Sender<ToPort>)>>);

    impl Ends {
        fn newest(&self) -> (mpsc::Receiver<FromPort>, mpsc::Sender<ToPort>) {
            self.0.lock().expect("no test panics with it").pop().expect("a port was opened")
        }
    }

    impl Host for Ends {
        fn open(&self, _hello: Hello) -> Port {
            let (sender, from_port) = mpsc::channel(2);
            let (to_port, receiver) = mpsc::channel(UNACKNOWLEDGED_MAX + 2);
            to_port.try_send(ToPort::Connected { session_present: false }).expect("it is new");
            self.0.lock().expect("no test panics with it").push((from_port, to_port));
            Port { sender, receiver }
        }

        fn report(&self, _path: &str, _health: Health) {}
    }

    async fn opened() -> (Outbox, Arc<Ends>) {
        let ends = Arc::new(Ends::default());
        let mut outbox = Outbox::new(ends.clone(), "modbus:line".to_owned());
        outbox.greeted().await;
        (outbox, ends)
    }

    async fn publish(outbox: &mut Outbox) {
        outbox.publish("modbus/line/device/point", Bytes::from_static(b"{}")).await;
    }

    /// Lets virtual time pass.
    async fn pass(outbox: &mut Outbox, span: Duration) {
        outbox.beside(sleep_until(Instant::now() + span)).await;
    }

    fn answer(id: u64, result: Result<(), Refusal>) -> ToPort {
        ToPort::Published(Acknowledgement { id, result })
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_limit_the_newest_reading_is_dropped_and_counted() {
        let (mut outbox, ends) = opened().await;
        let (mut inbox, to_port) = ends.newest();
        for _ in 0..UNACKNOWLEDGED_MAX {
            publish(&mut outbox).await;
            assert!(inbox.recv().await.is_some());
        }
        publish(&mut outbox).await;
        assert!(inbox.try_recv().is_err(), "the newest goes nowhere");
        assert_eq!(outbox.counts, Counts { published: 0, dropped: 1, refused: 0 });
        to_port.try_send(answer(0, Ok(()))).expect("room");
        to_port.try_send(answer(1, Err(Refusal::NotAuthorized))).expect("room");
        pass(&mut outbox, Duration::from_millis(1)).await;
        publish(&mut outbox).await;
        assert!(inbox.recv().await.is_some(), "with room again, readings go on");
        assert_eq!(outbox.counts, Counts { published: 1, dropped: 1, refused: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_waits_for_room_and_hears_the_broker_meanwhile() {
        let (mut outbox, ends) = opened().await;
        let (mut inbox, to_port) = ends.newest();
        publish(&mut outbox).await;
        publish(&mut outbox).await;
        let engine = async {
            sleep_until(Instant::now() + Duration::from_secs(5)).await;
            to_port.send(answer(0, Ok(()))).await.expect("it is heard");
            sleep_until(Instant::now() + Duration::from_secs(5)).await;
            inbox.recv().await
        };
        let (taken, ()) = tokio::join!(engine, publish(&mut outbox));
        assert!(taken.is_some());
        assert_eq!((outbox.counts.published, outbox.counts.dropped), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_was_closed_is_opened_again() {
        let (mut outbox, ends) = opened().await;
        let (inbox, to_port) = ends.newest();
        publish(&mut outbox).await;
        to_port.try_send(ToPort::Closed(Refusal::TakenOver)).expect("room");
        pass(&mut outbox, Duration::from_millis(1)).await;
        publish(&mut outbox).await;
        assert_eq!(outbox.counts.dropped, 2, "the one that nobody acknowledged and the one without a port");
        drop((inbox, to_port));
        pass(&mut outbox, REOPEN * 2).await;
        let (mut inbox, _to_port) = ends.newest();
        publish(&mut outbox).await;
        assert!(inbox.recv().await.is_some());
    }
}
