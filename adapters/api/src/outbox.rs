//! Readings on their way to the broker.
//!
//! An in-process client like any other, which publishes at QoS 1. A reading is held until the broker has
//! acknowledged it, over a port that was closed and opened again too: at least once, never lost but by the
//! limit, at which the oldest goes and is counted. Who reads a device never waits for the broker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::{Instant, sleep_until, timeout};

use crate::{Acknowledgement, FromPort, Hello, Host, Port, Qos, Refusal, ToPort};

/// The way of readings to the broker.
pub struct Outbox {
    host: Arc<dyn Host>,
    name: String,
    state: State,
    /// Readings in their order, until they are acknowledged. When full, the oldest that was not sent goes.
    held: VecDeque<Held>,
    /// Of them, how many were sent.
    sent: usize,
    /// Bytes of all readings held.
    bytes: usize,
    next_id: u64,
    /// Nothing is sent before, since the broker has said that it is full.
    resume: Instant,
    /// Whether the log has said that the broker does not take this client.
    has_complained: bool,
    counts: Counts,
}

struct Held {
    id: u64,
    topic: Arc<str>,
    payload: Bytes,
    is_sent: bool,
}

/// What became of readings.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged by the broker.
    pub published: u64,
    /// The oldest where too many waited.
    pub dropped: u64,
    /// Refused by the broker for good: an access rule, a topic.
    pub refused: u64,
    /// Not acknowledged yet.
    pub waiting: u64,
}

enum State {
    /// No port until then.
    Closed(Instant),
    /// The broker has not greeted yet.
    Opening(Port),
    Open(Port),
}

/// What came first.
enum Turn {
    /// A word of the broker; `None` where it is gone.
    Word(Option<ToPort>),
    /// Room for a reading; `None` where the broker is gone.
    Room(Option<OwnedPermit<FromPort>>),
}

impl Outbox {
    /// The outbox of the adapter that goes by this name; access rules see it as the user.
    pub fn new(host: Arc<dyn Host>, name: String) -> Outbox {
        let now = Instant::now();
        Outbox {
            host,
            name,
            state: State::Closed(now),
            held: VecDeque::new(),
            sent: 0,
            bytes: 0,
            next_id: 0,
            resume: now,
            has_complained: false,
            counts: Counts::default(),
        }
    }

    /// Takes a reading, and hands it on where the broker has room; never waits.
    pub fn put(&mut self, topic: &Arc<str>, payload: Bytes) {
        let held = Held { id: self.next_id, topic: Arc::clone(topic), payload, is_sent: false };
        while !self.held.is_empty()
            && (self.held.len() >= READINGS_MAX || self.bytes + held.bytes() > BYTES_MAX)
        {
            // Where all were sent, as few long ones may be, the oldest goes all the same.
            let oldest = self.held.iter().position(|held| !held.is_sent).unwrap_or(0);
            self.take(oldest);
            self.counts.dropped += 1;
        }
        self.next_id += 1;
        self.bytes += held.bytes();
        self.held.push_back(held);
        while self.resume <= Instant::now()
            && let Some(index) = self.to_send()
            && let State::Open(port) = &self.state
            && let Ok(room) = port.sender.clone().try_reserve_owned()
        {
            self.send(index, room);
        }
    }

    /// What became of readings so far.
    pub fn counts(&self) -> Counts {
        Counts { waiting: self.held.len() as u64, ..self.counts }
    }

    /// Does the next thing that is to be done towards the broker. Can be dropped at any time.
    pub async fn step(&mut self) {
        let to_send = self.to_send();
        let port = match &mut self.state {
            State::Closed(until) => {
                sleep_until(*until).await;
                self.state = State::Opening(self.host.open(hello(&self.name)));
                return;
            }
            State::Opening(port) => {
                let word = port.receiver.recv().await;
                return self.hear(word);
            }
            State::Open(port) => port,
        };
        let sender = port.sender.clone();
        let room = async {
            sleep_until(self.resume).await;
            sender.reserve_owned().await
        };
        let turn = tokio::select! {
            biased;
            word = port.receiver.recv() => Turn::Word(word),
            room = room, if to_send.is_some() => Turn::Room(room.ok()),
        };
        match (turn, to_send) {
            (Turn::Word(word), _) => self.hear(word),
            (Turn::Room(Some(room)), Some(index)) => self.send(index, room),
            (Turn::Room(_), _) => self.close(),
        }
    }

    /// Does what is to be done towards the broker for as long as something else takes.
    pub async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return done,
                () = self.step() => {}
            }
        }
    }

    /// Hands over what it can in a short time and leaves the broker cleanly.
    pub async fn leave(&mut self) {
        let handing_over = async {
            while !self.held.is_empty() {
                self.step().await;
            }
        };
        // What takes longer is given up with the process.
        let _ = timeout(LEAVE_LIMIT, handing_over).await;
        if let State::Open(port) = &self.state {
            // Without room the broker sees the port dropped, which without a will is the same.
            let _ = port.sender.try_send(FromPort::Close);
        }
    }

    /// The oldest reading that was not sent, where one more may be.
    fn to_send(&self) -> Option<usize> {
        if self.sent < WINDOW { self.held.iter().position(|held| !held.is_sent) } else { None }
    }

    fn send(&mut self, index: usize, room: OwnedPermit<FromPort>) {
        let Some(held) = self.held.get_mut(index) else { return };
        held.is_sent = true;
        self.sent += 1;
        let (id, topic, payload) = (held.id, held.topic.to_string(), held.payload.clone());
        let (qos, properties) = (Qos::AtLeastOnce, Bytes::new());
        room.send(FromPort::Publish { id, topic, payload, qos, retain: false, properties });
    }

    fn hear(&mut self, word: Option<ToPort>) {
        match word {
            Some(ToPort::Connected { .. }) => {
                self.has_complained = false;
                let state = std::mem::replace(&mut self.state, State::Closed(Instant::now()));
                self.state = match state {
                    State::Opening(port) => State::Open(port),
                    other => other,
                };
            }
            Some(ToPort::Published(acknowledgement)) => self.settle(&acknowledgement),
            Some(ToPort::Closed(refusal)) => {
                if !self.has_complained {
                    tracing::warn!(client = %self.name, reason = %refusal, "the broker closed the adapter's session");
                    self.has_complained = true;
                }
                self.close();
            }
            // Nothing else is asked.
            Some(_) => {}
            None => self.close(),
        }
    }

    fn settle(&mut self, acknowledgement: &Acknowledgement) {
        let Some(index) = self.held.iter().position(|held| held.id == acknowledgement.id) else { return };
        match acknowledgement.result {
            Ok(()) => {
                self.counts.published += 1;
                self.take(index);
            }
            // It has room again at some time; then the reading goes in its place.
            Err(Refusal::QuotaExceeded | Refusal::ShuttingDown) => {
                self.resume = Instant::now() + RESUME;
                if let Some(held) = self.held.get_mut(index) {
                    self.sent -= usize::from(held.is_sent);
                    held.is_sent = false;
                }
            }
            Err(_) => {
                self.counts.refused += 1;
                self.take(index);
            }
        }
    }

    fn take(&mut self, index: usize) {
        if let Some(held) = self.held.remove(index) {
            self.sent -= usize::from(held.is_sent);
            self.bytes -= held.bytes();
        }
    }

    /// What was sent and not acknowledged is sent again through the next port.
    fn close(&mut self) {
        self.state = State::Closed(Instant::now() + REOPEN);
        self.sent = 0;
        self.held.iter_mut().for_each(|held| held.is_sent = false);
    }
}

impl Held {
    /// A topic is shared with the adapter, but not with a next one.
    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

fn hello(name: &str) -> Hello {
    Hello {
        client_id: name.to_owned(),
        user: Some(name.to_owned()),
        clean_start: true,
        session_expiry: 0,
        will: None,
        credit: 0,
        waits: false,
    }
}

/// Readings held for the broker. Beyond: the oldest is dropped and counted.
const READINGS_MAX: usize = 1_000;

/// Bytes of readings held for the broker. Beyond: the oldest is dropped and counted.
const BYTES_MAX: usize = 1_000_000;

/// Readings sent and not acknowledged. Beyond: the next wait here.
const WINDOW: usize = 100;

/// Until a port that was closed is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Until a broker that was full is tried again.
const RESUME: Duration = Duration::from_secs(1);

/// How long the end may take for handing over.
const LEAVE_LIMIT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::mpsc;

    use super::*;
    use crate::Health;

    /// The broker's ends of the port that was opened last.
    type End = (mpsc::Receiver<FromPort>, mpsc::Sender<ToPort>);

    #[derive(Default)]
    struct Ends(Mutex<Option<End>>);

    impl Ends {
        fn take(&self) -> End {
            self.0.lock().expect("no test panics with it").take().expect("a port was opened")
        }
    }

    impl Host for Ends {
        fn open(&self, _hello: Hello) -> Port {
            let (sender, from_port) = mpsc::channel(2);
            let (to_port, receiver) = mpsc::channel(WINDOW + 2);
            to_port.try_send(ToPort::Connected { session_present: false }).expect("it is new");
            *self.0.lock().expect("no test panics with it") = Some((from_port, to_port));
            Port { sender, receiver }
        }

        fn report(&self, _path: &str, _health: Health) {}
    }

    async fn opened() -> (Outbox, Arc<Ends>) {
        let ends = Arc::new(Ends::default());
        let mut outbox = Outbox::new(ends.clone(), "serial:scale".to_owned());
        pass(&mut outbox, Duration::from_millis(1)).await;
        (outbox, ends)
    }

    fn put(outbox: &mut Outbox, readings: std::ops::Range<u32>) {
        readings.for_each(|number| outbox.put(&"serial/scale".into(), number.to_string().into()));
    }

    /// Lets virtual time pass.
    async fn pass(outbox: &mut Outbox, span: Duration) {
        outbox.beside(sleep_until(Instant::now() + span)).await;
    }

    /// All readings that the broker gets, each answered so, until nothing more comes.
    async fn serve(
        outbox: &mut Outbox,
        end: &mut End,
        mut answer: impl FnMut(u32) -> Result<(), Refusal>,
    ) -> Vec<u32> {
        let mut got = Vec::new();
        while let Ok(request) = outbox.beside(timeout(Duration::from_millis(10), end.0.recv())).await {
            let Some(FromPort::Publish { id, payload, .. }) = request else { panic!("{request:?}") };
            let number = std::str::from_utf8(&payload).expect("text").parse().expect("a number");
            got.push(number);
            let result = answer(number);
            end.1.send(ToPort::Published(Acknowledgement { id, result })).await.expect("it listens");
        }
        pass(outbox, Duration::from_millis(1)).await;
        got
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_limit_the_oldest_readings_are_dropped_and_counted() {
        let (mut outbox, ends) = opened().await;
        put(&mut outbox, 0..1_500);
        assert_eq!(outbox.counts(), Counts { dropped: 500, waiting: 1_000, ..Counts::default() });
        // Two were handed over at once; of the others the newest stay.
        let got = serve(&mut outbox, &mut ends.take(), |_| Ok(())).await;
        assert_eq!(got, (0..2).chain(502..1_500).collect::<Vec<u32>>());
        assert_eq!(outbox.counts(), Counts { published: 1_000, dropped: 500, ..Counts::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_one_of_bytes_too() {
        let (mut outbox, _ends) = opened().await;
        for _ in 0..5 {
            outbox.put(&"t".into(), vec![0; BYTES_MAX / 4].into());
        }
        assert_eq!(outbox.counts(), Counts { dropped: 2, waiting: 3, ..Counts::default() });
        outbox.put(&"t".into(), vec![0; BYTES_MAX].into());
        assert_eq!(outbox.counts(), Counts { dropped: 5, waiting: 1, ..Counts::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_acknowledged_goes_through_the_next_port() {
        let (mut outbox, ends) = opened().await;
        let (mut inbox, to_port) = ends.take();
        put(&mut outbox, 0..10);
        assert!(inbox.recv().await.is_some(), "it is under way");
        to_port.try_send(ToPort::Closed(Refusal::TakenOver)).expect("room");
        pass(&mut outbox, Duration::from_millis(1)).await;
        put(&mut outbox, 10..20);
        pass(&mut outbox, REOPEN).await;
        let got = serve(&mut outbox, &mut ends.take(), |_| Ok(())).await;
        assert_eq!(got, (0..20).collect::<Vec<u32>>());
        assert_eq!(outbox.counts(), Counts { published: 20, ..Counts::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_broker_has_no_room_for_is_sent_again_and_what_it_forbids_is_counted() {
        let (mut outbox, ends) = opened().await;
        let mut end = ends.take();
        put(&mut outbox, 0..3);
        let refusals = [Err(Refusal::QuotaExceeded), Err(Refusal::NotAuthorized)];
        // The third waits until the broker may have room again.
        assert_eq!(serve(&mut outbox, &mut end, |number| refusals[number as usize]).await, [0, 1]);
        assert_eq!(outbox.counts(), Counts { refused: 1, waiting: 2, ..Counts::default() });
        pass(&mut outbox, RESUME).await;
        assert_eq!(serve(&mut outbox, &mut end, |_| Ok(())).await, [0, 2]);
        assert_eq!(outbox.counts(), Counts { published: 2, refused: 1, ..Counts::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_what_is_held_is_handed_over_in_a_short_time_or_given_up() {
        let (mut outbox, ends) = opened().await;
        let (mut inbox, to_port) = ends.take();
        put(&mut outbox, 0..2);
        let broker = async {
            for _ in 0..2 {
                let Some(FromPort::Publish { id, .. }) = inbox.recv().await else { panic!("a reading") };
                to_port
                    .send(ToPort::Published(Acknowledgement { id, result: Ok(()) }))
                    .await
                    .expect("it listens");
            }
            inbox.recv().await
        };
        let (last, ()) = tokio::join!(broker, outbox.leave());
        assert_eq!((last, outbox.counts().published), (Some(FromPort::Close), 2));
        put(&mut outbox, 2..3);
        let before = Instant::now();
        outbox.leave().await;
        assert!(before.elapsed() >= LEAVE_LIMIT, "it had its time");
        assert_eq!(outbox.counts().waiting, 1);
    }
}
