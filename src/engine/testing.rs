//! A running engine on a free port, a store that obeys, and a client of few words, for tests.
//!
//! Every wait is for an event and ends with a panic after a generous time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{AuthFiles, Engine, Heartbeat, Inbox, Input, Inputs, Limits, Parts};
use crate::broker::{self, Broker, LimitsConfig, Passwords, Route};
use crate::clock::Clock;
use crate::codec::{
    Ack, Connect, Decoder, Disconnect, Packet, Properties, Publish, QoS, Reason, RetainHandling, Side,
    Subscribe, Subscription, SubscriptionOptions, Version, encode,
};
use crate::listener::{Bind, Config, Listener};
use crate::record::{Restored, Ticket};
use crate::store::{Ask, Handle};

/// An engine on its thread.
pub(crate) struct Running {
    pub(crate) inputs: Inputs,
    pub(crate) address: SocketAddr,
    pub(crate) clock: Clock,
    pub(crate) heartbeat: Heartbeat,
    store: Handle,
    /// Lets the store commit once for each word; dropped: always.
    leave: Option<mpsc::Sender<()>>,
    engine: Option<JoinHandle<()>>,
    servant: Option<JoinHandle<()>>,
}

/// How the store of a test behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreMode {
    /// Commits what it is given at once.
    Prompt,
    /// Commits nothing until [`Running::release_store`].
    Held,
}

impl Running {
    /// Starts an engine with one listener that welcomes everybody.
    pub(crate) fn start(mode: StoreMode, arrange: impl FnOnce(&mut Parts)) -> Running {
        let (store, store_inbox) = Handle::channel();
        let listener = Config { bind: "127.0.0.1:0".to_owned(), ..Config::default() }.check().unwrap();
        let (mut parts, inputs) = parts(store.clone(), listener);
        arrange(&mut parts);
        let clock = parts.clock;
        let heartbeat = parts.heartbeat.clone();
        let engine = Engine::new(parts).unwrap();
        let Some(Bind::Tcp(address)) = engine.board().read()[0].bound.clone() else { panic!("not bound") };
        let (leave, leaves) = mpsc::channel();
        let servant = {
            let inputs = inputs.clone();
            thread::spawn(move || serve_store(&store_inbox, &inputs, &leaves))
        };
        Running {
            inputs,
            address,
            clock,
            heartbeat,
            store,
            leave: (mode == StoreMode::Held).then_some(leave),
            engine: Some(thread::spawn(move || engine.run().unwrap())),
            servant: Some(servant),
        }
    }

    /// From now on the store commits at once.
    pub(crate) fn release_store(&mut self) {
        self.leave = None;
    }

    /// What `Input::Status` brings.
    pub(crate) fn status(&self) -> Value {
        let (reply, answer) = oneshot::channel();
        self.inputs.send_blocking(Input::Status(reply)).unwrap();
        answer.blocking_recv().unwrap()
    }

    /// One of the engine's counters.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.status()["engine"][name].as_u64().unwrap()
    }

    /// Where the listener with this number stands.
    pub(crate) fn address_of(&self, listener: usize) -> SocketAddr {
        self.status()["listeners"][listener]["address"].as_str().unwrap().parse().unwrap()
    }

    /// What became of handshakes.
    pub(crate) fn handshakes(&self, how: &str) -> u64 {
        self.status()["handshakes"][how].as_u64().unwrap()
    }

    /// Turns the engine until the condition holds.
    pub(crate) fn until(&self, mut condition: impl FnMut(&Value) -> bool) {
        let start = self.clock.now().mono;
        while !condition(&self.status()) {
            let waited = Duration::from_millis(self.clock.now().mono - start);
            assert!(waited < PATIENCE, "it never came: {}", self.status());
            thread::yield_now();
        }
    }

    /// Stops the engine and waits for its end.
    pub(crate) fn stop(&mut self) {
        // An engine that has ended already is stopped.
        let _ = self.inputs.send_blocking(Input::Stop);
        if let Some(engine) = self.engine.take() {
            engine.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop();
        }
        self.leave = None;
        self.store.close();
        if let Some(servant) = self.servant.take() {
            servant.join().unwrap();
        }
    }
}

fn serve_store(inbox: &crate::store::Inbox, inputs: &Inputs, leaves: &mpsc::Receiver<()>) {
    let mut ticket = 0;
    loop {
        for ask in inbox.take(None) {
            match ask {
                Ask::Writes { batch, .. } => {
                    ticket += batch.len() as u64;
                    // Waits where the store is held; goes on where nobody holds it any more.
                    let _ = leaves.recv();
                    // The engine may have ended.
                    let _ = inputs.send_blocking(Input::Committed(Ticket(ticket)));
                }
                Ask::Close => return,
                _ => {}
            }
        }
    }
}

/// A client over any stream.
pub(crate) struct Client<S = TcpStream> {
    stream: S,
    decoder: Decoder,
    version: Version,
}

impl Client {
    /// Opens the stream and says nothing.
    pub(crate) fn open(address: SocketAddr, version: Version) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client::over(stream, version)
    }

    /// Connects with a clean session.
    pub(crate) fn connect(address: SocketAddr, version: Version, client_id: &str) -> Client {
        let mut client = Client::open(address, version);
        client.greet(client_id);
        client
    }
}

impl<S: Read + Write> Client<S> {
    /// Over a stream that stands.
    pub(crate) fn over(stream: S, version: Version) -> Client<S> {
        let mut decoder = Decoder::new(Side::Client, 1 << 20);
        decoder.set_version(version);
        Client { stream, decoder, version }
    }

    /// Sends CONNECT with a clean session and waits for its answer.
    pub(crate) fn greet(&mut self, client_id: &str) {
        self.send(&connect(self.version, client_id));
        let Packet::ConnAck(ack) = self.next() else { panic!("CONNACK first") };
        assert_eq!(ack.reason, Reason::Success);
    }

    /// Sends a packet.
    pub(crate) fn send(&mut self, packet: &Packet) {
        let bytes = self.bytes(packet);
        self.send_bytes(&bytes);
    }

    /// A packet as this client writes it.
    pub(crate) fn bytes(&self, packet: &Packet) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(packet, self.version, &mut bytes).unwrap();
        bytes
    }

    /// Sends bytes, whatever they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// The next packet.
    pub(crate) fn next(&mut self) -> Packet {
        self.maybe_next().expect("the stream is open")
    }

    /// The next packet; `None` once the stream has ended.
    pub(crate) fn maybe_next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.decoder.decode().unwrap() {
                return Some(packet);
            }
            let mut chunk = vec![0; 65_536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => {
                    chunk.truncate(count);
                    self.decoder.feed(Bytes::from(chunk));
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// The next packet, which is a PUBLISH.
    pub(crate) fn message(&mut self) -> Publish {
        match self.next() {
            Packet::Publish(publish) => publish,
            other => panic!("a PUBLISH, not {other:?}"),
        }
    }

    /// Subscribes to one filter and waits for the answer.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.send(&subscribe(filter, qos));
        let Packet::SubAck(ack) = self.next() else { panic!("SUBACK") };
        assert!(!ack.reasons[0].is_error());
    }

    /// Publishes.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS) {
        self.send(&publish(topic, payload, qos, 1));
    }

    /// Sends PINGREQ and waits until its answer is the next packet: all before it was handled.
    pub(crate) fn ping(&mut self) {
        self.send(&Packet::PingReq);
        assert_eq!(self.next(), Packet::PingResp);
    }

    /// Sends PINGREQ and reads on until its answer comes.
    pub(crate) fn ping_past_messages(&mut self) {
        self.send(&Packet::PingReq);
        while self.next() != Packet::PingResp {}
    }

    /// Leaves.
    pub(crate) fn disconnect(mut self) {
        self.send(&Packet::Disconnect(Disconnect { reason: Reason::Success, properties: Properties::new() }));
        assert_eq!(self.maybe_next(), None);
    }

    /// The stream alone.
    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    /// The stream itself.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl Client<UnixStream> {
    /// Every packet that is there, without waiting for one.
    pub(crate) fn take_now(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        let mut chunk = [0; 16_384];
        self.stream.set_nonblocking(true).unwrap();
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => self.decoder.feed(Bytes::copy_from_slice(&chunk[..count])),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("the stream is broken: {error}"),
            }
            while let Some(packet) = self.decoder.decode().unwrap() {
                packets.push(packet);
            }
        }
        self.stream.set_nonblocking(false).unwrap();
        packets
    }
}

/// Appends a packet as a client of MQTT 5 writes it.
pub(crate) fn encode_to(packet: &Packet, bytes: &mut Vec<u8>) {
    encode(packet, Version::V5, bytes).unwrap();
}

/// CONNECT with a clean session.
pub(crate) fn connect(version: Version, client_id: &str) -> Packet {
    Packet::Connect(Box::new(Connect {
        version,
        clean_start: true,
        keep_alive: 0,
        client_id: ByteString::from(client_id),
        will: None,
        username: None,
        password: None,
        properties: Properties::new(),
    }))
}

/// CONNECT with a session that outlives the connection, before MQTT 5.
pub(crate) fn connect_kept(version: Version, client_id: &str) -> Packet {
    let Packet::Connect(mut packet) = connect(version, client_id) else { panic!("CONNECT") };
    packet.clean_start = false;
    Packet::Connect(packet)
}

/// SUBSCRIBE to one filter.
pub(crate) fn subscribe(filter: &str, qos: QoS) -> Packet {
    let options = SubscriptionOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    Packet::Subscribe(Subscribe {
        packet_id: 1,
        properties: Properties::new(),
        filters: vec![Subscription { filter: ByteString::from(filter), options }],
    })
}

/// PUBLISH.
pub(crate) fn publish(topic: &str, payload: &[u8], qos: QoS, packet_id: u16) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: ByteString::from(topic),
        packet_id: if qos == QoS::AtMostOnce { 0 } else { packet_id },
        properties: Properties::new(),
        payload: Bytes::copy_from_slice(payload),
    })
}

/// PUBACK.
pub(crate) fn puback(packet_id: u16) -> Packet {
    Packet::PubAck(Ack { packet_id, reason: Reason::Success, properties: Properties::new() })
}

/// Parts of an engine that welcomes everybody at one listener, and how it is spoken to.
pub(super) fn parts(store: Handle, listener: Listener) -> (Parts, Inputs) {
    let (inbox, inputs) = Inbox::open().unwrap();
    let clock = Clock::start();
    let parts = Parts {
        inbox,
        clock,
        broker: broker(&clock, Passwords::Absent, Vec::new()),
        store,
        listeners: vec![listener],
        limits: Limits::default(),
        auth: AuthFiles::default(),
        unstored: Vec::new(),
        heartbeat: Heartbeat::default(),
    };
    (parts, inputs)
}

/// A broker with nothing restored.
pub(crate) fn broker(clock: &Clock, passwords: Passwords, routes: Vec<Route>) -> Broker {
    limited_broker(clock, LimitsConfig::default(), passwords, routes)
}

/// The same where `max_memory` is so many bytes.
pub(crate) fn small_broker(clock: &Clock, max_memory: usize) -> Broker {
    let limits = LimitsConfig { max_memory: format!("{max_memory}B"), ..LimitsConfig::default() };
    limited_broker(clock, limits, Passwords::Absent, Vec::new())
}

fn limited_broker(clock: &Clock, limits: LimitsConfig, passwords: Passwords, routes: Vec<Route>) -> Broker {
    let (limits, gateway) = (limits.check().unwrap(), "test".to_owned());
    let config = broker::Config {
        limits,
        gateway,
        routes,
        passwords,
        rules: None,
        set_topics: Vec::new(),
        refusals: Default::default(),
    };
    Broker::new(config, 7, Restored::default(), clock.now())
}

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
