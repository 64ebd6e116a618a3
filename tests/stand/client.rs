//! A small MQTT client, blocking, that counts what it gets.
//!
//! It does only what a test tells it to: no reconnect, no automatic acknowledgement unless asked.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use tidegate::codec::{
    Ack, Connect, Decoder, Disconnect, Packet, Properties, Property, Publish, QoS, Reason, RetainHandling,
    Side, Subscribe, Subscription, SubscriptionOptions, Version, Will, encode,
};

use super::HANG;

/// A connected client.
pub struct Client {
    socket: TcpStream,
    decoder: Decoder,
    version: Version,
    next_id: u16,
    waiting: VecDeque<Packet>,
    /// Whether CONNACK said that a session was kept.
    pub session_present: bool,
}

/// How to connect.
#[derive(Clone)]
pub struct Options {
    /// Client id.
    pub id: String,
    /// Protocol version.
    pub version: Version,
    /// Whether the session outlives the connection.
    pub kept: bool,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// Topic and payload of its will, QoS 1.
    pub will: Option<(String, String)>,
}

impl Options {
    /// A 3.1.1 client whose session ends with its connection.
    pub fn new(id: &str) -> Options {
        Options { id: id.into(), version: Version::V311, kept: false, login: None, will: None }
    }

    /// The same with a session that is kept.
    pub fn kept(id: &str) -> Options {
        Options { kept: true, ..Options::new(id) }
    }

    fn connect(&self) -> Packet {
        let properties = if self.kept && self.version == Version::V5 {
            Properties::from_list(&[Property::SessionExpiryInterval(u32::MAX)])
        } else {
            Properties::new()
        };
        Packet::Connect(Box::new(Connect {
            version: self.version,
            clean_start: !self.kept,
            keep_alive: 0,
            client_id: self.id.as_str().into(),
            will: self.will.as_ref().map(|(topic, payload)| Will {
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: topic.as_str().into(),
                payload: Bytes::from(payload.clone()),
                properties: Properties::new(),
            }),
            username: self.login.as_ref().map(|login| login.0.as_str().into()),
            password: self.login.as_ref().map(|login| Bytes::from(login.1.clone())),
            properties,
        }))
    }
}

impl Client {
    /// Connects, and panics where it is refused.
    pub fn connect(port: u16, options: &Options) -> Client {
        Client::try_connect(port, options).expect("CONNACK")
    }

    /// A connection on which nothing was said yet.
    pub fn open(port: u16, version: Version) -> Client {
        Client::try_open(port, version).expect("the listener accepts")
    }

    fn try_open(port: u16, version: Version) -> std::io::Result<Client> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true).unwrap();
        let mut decoder = Decoder::new(Side::Client, 16 << 20);
        decoder.set_version(version);
        let waiting = VecDeque::new();
        Ok(Client { socket, decoder, version, next_id: 0, waiting, session_present: false })
    }

    /// Asks to be connected, and does not wait for the answer; the gateway may be gone.
    pub fn reach(port: u16, options: &Options) -> std::io::Result<Client> {
        let mut client = Client::try_open(port, options.version)?;
        client.try_send(&options.connect())?;
        Ok(client)
    }

    /// Connects; `Err` has the reason.
    pub fn try_connect(port: u16, options: &Options) -> Result<Client, Reason> {
        let mut client = Client::open(port, options.version);
        client.send(&options.connect());
        match client.next().ok_or(Reason::UnspecifiedError)? {
            Packet::ConnAck(answer) if answer.reason == Reason::Success => {
                client.session_present = answer.session_present;
                Ok(client)
            }
            Packet::ConnAck(answer) => Err(answer.reason),
            other => panic!("{other:?} in place of CONNACK"),
        }
    }

    /// Sends one packet.
    pub fn send(&mut self, packet: &Packet) {
        self.try_send(packet).expect("the gateway reads");
    }

    /// Sends one packet to a gateway that may be gone.
    pub fn try_send(&mut self, packet: &Packet) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        encode(packet, self.version, &mut bytes).expect("it fits");
        self.socket.write_all(&bytes)
    }

    /// The next packet; `None` once the connection has ended.
    pub fn next(&mut self) -> Option<Packet> {
        self.waiting.pop_front().or_else(|| self.read(HANG).expect("a packet in time"))
    }

    /// The next packet within so long: `Err` where none came, `Ok(None)` at the end of the connection.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Packet>, ()> {
        match self.waiting.pop_front() {
            Some(packet) => Ok(Some(packet)),
            None => self.read(limit),
        }
    }

    /// Subscribes and waits for the SUBACK.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) {
        let packet_id = self.take_id();
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            properties: Properties::new(),
            filters: vec![Subscription { filter: filter.into(), options }],
        }));
        let mut before = Vec::new();
        loop {
            match self.next().expect("SUBACK") {
                Packet::SubAck(answer) if answer.packet_id == packet_id => {
                    assert!(!answer.reasons[0].is_error(), "{filter}: {answer:?}");
                    self.waiting.extend(before);
                    return;
                }
                other => before.push(other),
            }
        }
    }

    /// Sends a publish, and gives its packet id (0 at QoS 0).
    pub fn publish(&mut self, topic: &str, payload: impl Into<Bytes>, qos: QoS) -> u16 {
        self.try_publish(topic, payload, qos).expect("the gateway reads")
    }

    /// The same to a gateway that may be gone.
    pub fn try_publish(&mut self, topic: &str, payload: impl Into<Bytes>, qos: QoS) -> std::io::Result<u16> {
        let packet_id = if qos == QoS::AtMostOnce { 0 } else { self.take_id() };
        self.try_send(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic: topic.into(),
            packet_id,
            properties: Properties::new(),
            payload: payload.into(),
        }))?;
        Ok(packet_id)
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub fn publish_acknowledged(&mut self, topic: &str, payload: impl Into<Bytes>) {
        let packet_id = self.publish(topic, payload, QoS::AtLeastOnce);
        let mut before = Vec::new();
        loop {
            match self.next().expect("PUBACK") {
                Packet::PubAck(ack) if ack.packet_id == packet_id => break,
                other => before.push(other),
            }
        }
        self.waiting.extend(before);
    }

    /// Publishes at QoS 1, to be retained.
    pub fn publish_retained(&mut self, topic: &str) {
        let packet_id = self.take_id();
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: topic.into(),
            packet_id,
            properties: Properties::new(),
            payload: Bytes::from_static(b"retained"),
        }));
    }

    /// The next message, acknowledged at QoS 1.
    pub fn message(&mut self) -> Publish {
        loop {
            if let Packet::Publish(publish) = self.next().expect("a message") {
                self.acknowledge(&publish);
                return publish;
            }
        }
    }

    /// Acknowledges a QoS 1 message.
    pub fn acknowledge(&mut self, publish: &Publish) {
        if publish.qos == QoS::AtLeastOnce {
            let (packet_id, properties) = (publish.packet_id, Properties::new());
            let _ = self.try_send(&Packet::PubAck(Ack { packet_id, reason: Reason::Success, properties }));
        }
    }

    /// The socket itself, for loads.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Leaves cleanly.
    pub fn disconnect(mut self) {
        let properties = Properties::new();
        let _ = self.try_send(&Packet::Disconnect(Disconnect { reason: Reason::Success, properties }));
    }

    fn take_id(&mut self) -> u16 {
        self.next_id = if self.next_id == u16::MAX { 1 } else { self.next_id + 1 };
        self.next_id
    }

    fn read(&mut self, limit: Duration) -> Result<Option<Packet>, ()> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 16_384];
        loop {
            if let Some(packet) = self.decoder.decode().expect("well-formed packets") {
                return Ok(Some(packet));
            }
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.decoder.feed(Bytes::copy_from_slice(&buffer[..count])),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(());
                }
                Err(_) => return Ok(None),
            }
        }
    }
}
