//! The gateway at work: one UDP socket, one task, one port for each client.
//!
//! Carries datagrams, the broker's words and time to the state machine, and its effects back; knows
//! nothing of MQTT-SN. The task waits for no port: a client whose port takes no more requests loses its
//! QoS 0 publishes or its connection, never the others' time.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adapter_api::{Adapter, FromPort, Health, Host, Port, Running, State, ToPort, clock};
use bytes::Bytes;
use serde_json::Value;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time;

use crate::Checked;
use crate::gateway::{
    Counters, Effect, Event, Gateway, HELD_MAX, Lost, Note, Peer, PortNumber, REQUESTS_MAX,
};

/// The adapter for a checked configuration.
pub fn adapter(settings: Checked) -> Box<dyn Adapter> {
    Box::new(MqttSn { settings })
}

struct MqttSn {
    settings: Checked,
}

impl Adapter for MqttSn {
    fn name(&self) -> String {
        "mqtt-sn".into()
    }

    fn run(self: Box<Self>, host: Arc<dyn Host>, mut stop: watch::Receiver<bool>) -> Running {
        Box::pin(async move {
            // The sender's end gone means that nobody is left to say stop.
            let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
            tokio::pin!(stopped);
            let bound = tokio::select! {
                bound = bind(self.settings.bind, &*host) => bound,
                () = &mut stopped => return,
            };
            let (socket, address) = bound;
            tracing::info!(%address, "MQTT-SN gateway is listening");
            let mut runner = Runner::new(self.settings, socket, address, host);
            runner.run(stopped).await;
            runner.finish().await;
        })
    }
}

/// Binds the socket, again and again: a port that is taken may become free.
async fn bind(wanted: SocketAddr, host: &dyn Host) -> (UdpSocket, SocketAddr) {
    loop {
        match UdpSocket::bind(wanted).await.and_then(|socket| Ok((socket.local_addr()?, socket))) {
            Ok((address, socket)) => return (socket, address),
            Err(error) => {
                tracing::warn!(address = %wanted, %error, "cannot bind the MQTT-SN socket; trying again");
                let reason = format!("cannot bind {wanted}: {error}");
                let counters = Value::Object(serde_json::Map::new());
                host.report(REPORT, Health { state: State::Down, reason: Some(reason), counters });
            }
        }
        time::sleep(BIND_AGAIN_AFTER).await;
    }
}

struct Runner {
    gateway: Gateway,
    socket: UdpSocket,
    /// So many octets of a datagram are read: one too many shows, and more of it is nobody's.
    octets_read: usize,
    address: SocketAddr,
    host: Arc<dyn Host>,
    /// The gateway's time counts from here.
    start: Instant,
    /// Requests on their way to ports.
    ports: BTreeMap<PortNumber, mpsc::Sender<FromPort>>,
    words: mpsc::Receiver<(PortNumber, Said)>,
    say: mpsc::Sender<(PortNumber, Said)>,
    effects: Vec<Effect>,
    reported: Option<Counters>,
}

/// What comes out of a port.
enum Said {
    Word(ToPort),
    Gone,
}

impl Runner {
    fn new(settings: Checked, socket: UdpSocket, address: SocketAddr, host: Arc<dyn Host>) -> Runner {
        let (say, words) = mpsc::channel(WORDS_MAX);
        Runner {
            octets_read: settings.max_packet + 1,
            gateway: Gateway::new(settings),
            socket,
            address,
            host,
            start: clock::monotonic(),
            ports: BTreeMap::new(),
            words,
            say,
            effects: Vec::new(),
            reported: None,
        }
    }

    async fn run(&mut self, mut stopped: impl Future<Output = ()> + Unpin) {
        let mut buffer = vec![0; self.octets_read];
        let mut report = time::interval(REPORT_EVERY);
        report.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let alarm = self.gateway.deadline().map(|due| time::Instant::from_std(self.start + due));
            let event = tokio::select! {
                biased;
                () = &mut stopped => return,
                () = time::sleep_until(alarm.unwrap_or_else(time::Instant::now)), if alarm.is_some() => Event::Tick,
                _ = report.tick() => {
                    self.report();
                    continue;
                }
                // Who is answered comes before who asks: an acknowledgement makes room.
                Some((port, said)) = self.words.recv() => self.hear(port, said),
                received = self.socket.recv_from(&mut buffer) => match received_event(received, &buffer) {
                    Some(event) => event,
                    None => {
                        time::sleep(RECEIVE_AGAIN_AFTER).await;
                        continue;
                    }
                },
            };
            self.handle(event).await;
        }
    }

    fn hear(&mut self, port: PortNumber, said: Said) -> Event {
        match said {
            Said::Word(word) => Event::Word { port, word },
            Said::Gone => {
                self.ports.remove(&port);
                Event::Gone { port }
            }
        }
    }

    async fn handle(&mut self, event: Event) {
        let now = self.now();
        let mut effects = std::mem::take(&mut self.effects);
        self.gateway.handle(event, now, &mut effects);
        // A request that finds no room may have effects of its own.
        while !effects.is_empty() {
            let mut more = Vec::new();
            for effect in effects.drain(..) {
                self.carry_out(effect, now, &mut more).await;
            }
            effects.append(&mut more);
        }
        self.effects = effects;
    }

    async fn carry_out(&mut self, effect: Effect, now: Duration, more: &mut Vec<Effect>) {
        match effect {
            Effect::Send { to, octets } => {
                if let Err(error) = self.socket.send_to(&octets, to.address).await {
                    tracing::debug!(peer = %to.address, %error, "cannot send an MQTT-SN datagram");
                    self.gateway.unsent();
                }
            }
            Effect::Open { port, hello } => {
                let (sender, requests) = mpsc::channel(REQUESTS_QUEUED_MAX);
                self.ports.insert(port, sender);
                tokio::spawn(carry(port, self.host.open(hello), requests, self.say.clone()));
            }
            Effect::Ask { port, request } => {
                if let Some(request) = self.ports.get(&port).and_then(|queue| refused_by(queue, request)) {
                    self.gateway.choked(port, &request, now, more);
                }
            }
            Effect::Drop { port } => drop(self.ports.remove(&port)),
            Effect::Note(note) => log(&note),
        }
    }

    fn report(&mut self) {
        let counters = self.gateway.counters();
        if self.reported.as_ref() == Some(&counters) {
            return;
        }
        let mut object = match serde_json::to_value(&counters) {
            Ok(Value::Object(object)) => object,
            _ => serde_json::Map::new(),
        };
        object.insert("address".into(), self.address.to_string().into());
        let health = Health { state: State::Up, reason: None, counters: Value::Object(object) };
        self.host.report(REPORT, health);
        self.reported = Some(counters);
    }

    /// Tells the clients, and waits a moment for the ports to close.
    async fn finish(&mut self) {
        self.handle(Event::Stop).await;
        let ports_close = async {
            while !self.ports.is_empty() {
                let Some((port, said)) = self.words.recv().await else { return };
                if let Said::Gone = said {
                    self.ports.remove(&port);
                }
            }
        };
        // What is not closed by then is dropped.
        drop(time::timeout(FINISH_WITHIN, ports_close).await);
        self.report();
    }

    fn now(&self) -> Duration {
        clock::monotonic().saturating_duration_since(self.start)
    }
}

fn received_event(received: io::Result<(usize, SocketAddr)>, buffer: &[u8]) -> Option<Event> {
    match received {
        Ok((length, address)) => {
            let octets = Bytes::copy_from_slice(buffer.get(..length)?);
            Some(Event::Datagram { from: Peer { address }, octets })
        }
        Err(error) => {
            tracing::debug!(%error, "cannot receive an MQTT-SN datagram");
            None
        }
    }
}

/// Queues a request, or hands it back where the queue has no room for it. The last places are kept for
/// what must not be lost.
fn refused_by(queue: &mpsc::Sender<FromPort>, request: FromPort) -> Option<FromPort> {
    let expendable = matches!(request, FromPort::Publish { qos: adapter_api::Qos::AtMostOnce, .. });
    if expendable && queue.capacity() <= REQUESTS_RESERVED {
        return Some(request);
    }
    match queue.try_send(request) {
        Ok(()) => None,
        Err(mpsc::error::TrySendError::Full(request)) => Some(request),
        // The port has ended; its `Gone` is on the way.
        Err(mpsc::error::TrySendError::Closed(_)) => None,
    }
}

/// Carries requests into one port and its words out of it, until either end is over.
async fn carry(
    number: PortNumber,
    port: Port,
    mut requests: mpsc::Receiver<FromPort>,
    say: mpsc::Sender<(PortNumber, Said)>,
) {
    let Port { sender, mut receiver } = port;
    let inward = async move {
        while let Some(request) = requests.recv().await {
            let last = request == FromPort::Close;
            if sender.send(request).await.is_err() || last {
                // The broker's last words are still to be read, and then the end of them.
                time::sleep(CLOSE_WITHIN).await;
                return;
            }
        }
    };
    let outward = async {
        while let Some(word) = receiver.recv().await {
            if say.send((number, Said::Word(word))).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
    // Before the gateway hears of it, so that the client's next port comes after this one.
    drop(receiver);
    // Nobody listens any more only where the whole runner has ended.
    drop(say.send((number, Said::Gone)).await);
}

fn log(note: &Note) {
    match note {
        Note::Lost { client_id, why } => {
            let reason = match why {
                Lost::Silent => "nothing came within its keep alive or its sleep",
                Lost::Unanswered => "it did not answer",
                Lost::Displaced => "another client speaks from its address",
                Lost::Choked => "the broker took no more from it",
            };
            tracing::info!(%client_id, reason, "MQTT-SN client is lost");
        }
        Note::TooLong { client_id, topic, octets } => {
            tracing::warn!(%client_id, %topic, octets, "message is longer than max_packet and is not sent");
        }
    }
}

/// Where the health report goes.
const REPORT: &str = "mqtt-sn";

/// How often counters are reported, if they have changed.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Words of all ports together. When full, the ports' tasks wait; the broker never does, since it owes
/// each port no more than its credit and its answers.
const WORDS_MAX: usize = 256;

/// Places in a port's queue that QoS 0 publishes leave to others: every request that a client may have
/// open and as much again for the end, and acknowledgement and credit for each message handed out.
const REQUESTS_RESERVED: usize = 2 * (REQUESTS_MAX + HELD_MAX as usize);

/// Requests that wait for one port. Beyond: a QoS 0 publish is dropped and counted, and with anything
/// else the client is lost.
const REQUESTS_QUEUED_MAX: usize = 2 * REQUESTS_RESERVED;

const BIND_AGAIN_AFTER: Duration = Duration::from_secs(5);
const RECEIVE_AGAIN_AFTER: Duration = Duration::from_millis(100);
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
const FINISH_WITHIN: Duration = Duration::from_millis(500);
