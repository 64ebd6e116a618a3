//! One connection of a client that does what the session says, and notes what it gets.
//!
//! It answers as it was told to, but always whole to a marker: that is a message of the test's own, by
//! which it knows that everything before has come.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use bytes::Bytes;
use tidegate::codec::{
    Ack, Connect, Decoder, Disconnect, Packet, Properties, Property, Publish, QoS, Reason, RetainHandling,
    Side, Subscribe, Subscription, SubscriptionOptions, Unsubscribe, Version, Will, encode,
};

use crate::event::{Event, Message};
use crate::session::{Answers, Begin, Post};
use crate::stand::HANG;

/// A connection.
pub(crate) struct Peer {
    socket: TcpStream,
    decoder: Decoder,
    version: Version,
    answers: Answers,
    /// Stands before every topic of the session.
    prefix: String,
    /// Filter of its markers.
    mark: String,
    last_id: u16,
    /// As CONNACK says.
    pub(crate) session_present: bool,
    aliases: BTreeMap<String, u16>,
    /// Packet ids of markers that have not ended.
    marks: BTreeSet<u16>,
    /// PUBRECs that no PUBREL has answered.
    owed: BTreeSet<u16>,
    /// Markers that have ended.
    marked: u64,
    /// What it got and nobody has taken yet.
    pub(crate) got: Vec<Event>,
}

/// What ends a wait.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    ConnAck,
    Answer,
    PubRec(bool),
    Pong,
    End,
    Other,
}

impl Peer {
    /// Connects and waits for CONNACK, then has its markers sent to it.
    pub(crate) fn connect(port: u16, id: &str, prefix: &str, version: Version, begin: &Begin) -> Peer {
        Peer::connect_alive(port, id, prefix, version, begin, 600)
    }

    /// The same, and the server is to end it where nothing is said for one and a half seconds.
    pub(crate) fn connect_drowsy(port: u16, id: &str, prefix: &str, version: Version, begin: &Begin) -> Peer {
        Peer::connect_alive(port, id, prefix, version, begin, 1)
    }

    fn connect_alive(
        port: u16,
        id: &str,
        prefix: &str,
        version: Version,
        begin: &Begin,
        keep_alive: u16,
    ) -> Peer {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        let mut decoder = Decoder::new(Side::Client, 1 << 20);
        decoder.set_version(version);
        let mut peer = Peer {
            socket,
            decoder,
            version,
            answers: begin.answers,
            prefix: prefix.to_owned(),
            mark: format!("mark/{id}"),
            last_id: 0,
            session_present: false,
            aliases: BTreeMap::new(),
            marks: BTreeSet::new(),
            owed: BTreeSet::new(),
            marked: 0,
            got: Vec::new(),
        };
        let connect = Connect { keep_alive, ..peer.connect_packet(id, begin) };
        peer.send(&Packet::Connect(Box::new(connect)));
        peer.until("CONNACK", |came| *came == Came::ConnAck || *came == Came::End);
        let options = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        let filters = vec![Subscription { filter: peer.mark.as_str().into(), options }];
        let packet_id = peer.take_id();
        peer.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::new(), filters }));
        peer.until("the marker's SUBACK", |came| *came == Came::Answer);
        let asked = peer.got.iter().rposition(|event| matches!(event, Event::Answer(..)));
        peer.got.remove(asked.unwrap());
        peer
    }

    fn connect_packet(&self, id: &str, begin: &Begin) -> Connect {
        let five = self.version == Version::V5;
        let expiry = begin.expiry.filter(|_| five).map(Property::SessionExpiryInterval);
        let will = begin.will.as_ref().map(|post| {
            let delay = begin.will_delay.filter(|_| five).map(Property::WillDelayInterval);
            let mut properties = self.properties(post);
            if let Some(delay) = delay {
                properties = properties.with(delay);
            }
            Will {
                qos: post.qos,
                retain: post.retain,
                topic: format!("{}{}", self.prefix, post.topic).into(),
                payload: Bytes::from(post.payload.clone()),
                properties,
            }
        });
        Connect {
            version: self.version,
            clean_start: begin.clean,
            keep_alive: 0,
            client_id: id.into(),
            will,
            username: None,
            password: None,
            properties: Properties::from_list(expiry.as_slice()),
        }
    }

    /// Subscribes and waits for the answer.
    pub(crate) fn subscribe(&mut self, filters: &[(String, SubscriptionOptions)], identifier: Option<u32>) {
        let packet_id = self.take_id();
        let five = self.version == Version::V5;
        let identifier = identifier.filter(|_| five).map(Property::SubscriptionIdentifier);
        let filter = |(filter, options): &(String, SubscriptionOptions)| {
            let old = SubscriptionOptions {
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::Send,
                ..*options
            };
            // [MQTT5-3.8.3-4] No Local is an error where the subscription is shared.
            let no_local = options.no_local && !filter.starts_with('$');
            let options = if five { SubscriptionOptions { no_local, ..*options } } else { old };
            Subscription { filter: self.prefixed(filter).into(), options }
        };
        let filters = filters.iter().map(filter).collect();
        let properties = Properties::from_list(identifier.as_slice());
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties, filters }));
        self.until("SUBACK", |came| matches!(came, Came::Answer | Came::End));
    }

    /// Unsubscribes and waits for the answer.
    pub(crate) fn unsubscribe(&mut self, filters: &[String]) {
        let packet_id = self.take_id();
        let filters = filters.iter().map(|filter| self.prefixed(filter).into()).collect();
        let properties = Properties::new();
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }));
        self.until("UNSUBACK", |came| matches!(came, Came::Answer | Came::End));
    }

    /// Publishes and goes through the whole exchange.
    pub(crate) fn publish(&mut self, post: &Post) {
        let mut topic = format!("{}{}", self.prefix, post.topic);
        let mut properties = self.properties(post);
        if post.alias && self.version == Version::V5 {
            let next = u16::try_from(self.aliases.len() + 1).unwrap();
            let alias = *self.aliases.entry(topic.clone()).or_insert(next);
            properties = properties.with(Property::TopicAlias(alias));
            if alias != next {
                topic.clear();
            }
        }
        self.exchange(topic, post.payload.clone().into(), post.qos, post.retain, properties);
    }

    /// Publishes at QoS 2 up to PUBREC; whether the exchange goes on. It may be a repeat.
    pub(crate) fn start(&mut self, post: &Post, packet_id: u16, dup: bool) -> bool {
        let (topic, payload) = (format!("{}{}", self.prefix, post.topic).into(), post.payload.clone().into());
        let (qos, retain, properties) = (QoS::ExactlyOnce, post.retain, self.properties(post));
        self.send(&Packet::Publish(Publish { dup, qos, retain, topic, packet_id, properties, payload }));
        let came = self.until("PUBREC", |came| matches!(came, Came::PubRec(_) | Came::End));
        came == Came::PubRec(true)
    }

    /// Ends such an exchange.
    pub(crate) fn finish(&mut self, packet_id: u16) {
        self.send(&Packet::PubRel(success(packet_id)));
        self.until("PUBCOMP", |came| matches!(came, Came::Answer | Came::End));
    }

    /// Publishes a marker to the peer that has this filter.
    pub(crate) fn publish_marker(&mut self, mark: &str) {
        self.exchange(mark.to_owned(), Bytes::new(), QoS::ExactlyOnce, false, Properties::new());
        self.got.clear();
    }

    fn exchange(&mut self, topic: String, payload: Bytes, qos: QoS, retain: bool, properties: Properties) {
        let packet_id = if qos == QoS::AtMostOnce { 0 } else { self.take_id() };
        let (dup, topic) = (false, topic.into());
        self.send(&Packet::Publish(Publish { dup, qos, retain, topic, packet_id, properties, payload }));
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => drop(self.until("PUBACK", |came| matches!(came, Came::Answer | Came::End))),
            QoS::ExactlyOnce => {
                let came = self.until("PUBREC", |came| matches!(came, Came::PubRec(_) | Came::End));
                if came == Came::PubRec(true) {
                    self.send(&Packet::PubRel(success(packet_id)));
                    self.until("PUBCOMP", |came| matches!(came, Came::Answer | Came::End));
                }
            }
        }
    }

    /// Where its markers are published to.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    /// Waits until the marker has come and ended and everything was answered.
    pub(crate) fn settle(&mut self, marked: u64) {
        while self.marked < marked || !self.owed.is_empty() {
            assert!(self.receive("its marker") != Came::End, "{} was hung up on: {:?}", self.mark, self.got);
        }
        self.ping();
    }

    /// Waits until the server has read all that was sent.
    pub(crate) fn ping(&mut self) {
        self.send(&Packet::PingReq);
        self.until("PINGRESP", |came| matches!(came, Came::Pong | Came::End));
    }

    /// How many markers have ended.
    pub(crate) fn marked(&self) -> u64 {
        self.marked
    }

    /// Leaves and waits for the end.
    pub(crate) fn leave(mut self, with_will: bool) -> Vec<Event> {
        let reason = if with_will && self.version == Version::V5 {
            Reason::DisconnectWithWill
        } else {
            Reason::Success
        };
        self.send(&Packet::Disconnect(Disconnect { reason, properties: Properties::new() }));
        self.end()
    }

    /// Ends the socket without a word; the server hangs up once it has noticed.
    pub(crate) fn cut(self) -> Vec<Event> {
        let _ = self.socket.shutdown(Shutdown::Write);
        self.end()
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Vec<Event> {
        // What comes now is not answered.
        self.answers = Answers::None;
        self.until("the end", |came| *came == Came::End);
        self.got
    }

    fn until(&mut self, what: &str, wanted: impl Fn(&Came) -> bool) -> Came {
        loop {
            let came = self.receive(what);
            if wanted(&came) || came == Came::End {
                return came;
            }
        }
    }

    fn receive(&mut self, what: &str) -> Came {
        let Some(packet) = self.read(what) else { return Came::End };
        match packet {
            Packet::ConnAck(answer) => {
                self.session_present = answer.session_present;
                self.got.push(Event::Connected { present: answer.session_present, reason: answer.reason });
                Came::ConnAck
            }
            Packet::SubAck(answer) => self.answer("SUBACK", answer.reasons),
            Packet::UnsubAck(answer) => self.answer("UNSUBACK", answer.reasons),
            Packet::PubAck(ack) => self.answer("PUBACK", vec![ack.reason]),
            Packet::PubComp(ack) => self.answer("PUBCOMP", vec![ack.reason]),
            Packet::PubRec(ack) => {
                self.got.push(Event::Answer("PUBREC", vec![ack.reason]));
                Came::PubRec(!ack.reason.is_error())
            }
            Packet::PingResp => Came::Pong,
            Packet::Publish(publish) => self.take(&publish),
            Packet::PubRel(ack) => self.release(ack.packet_id),
            Packet::Disconnect(disconnect) => {
                self.got.push(Event::Disconnected(disconnect.reason));
                Came::Other
            }
            other => panic!("{other:?} from a server"),
        }
    }

    fn answer(&mut self, name: &'static str, reasons: Vec<Reason>) -> Came {
        self.got.push(Event::Answer(name, reasons));
        Came::Answer
    }

    fn take(&mut self, publish: &Publish) -> Came {
        let marker = *publish.topic == *self.mark;
        if !marker {
            self.got.push(Event::Message(Message::of(publish, &self.prefix)));
        }
        let id = publish.packet_id;
        match publish.qos {
            QoS::AtLeastOnce if self.answers != Answers::None => self.send(&Packet::PubAck(success(id))),
            QoS::ExactlyOnce if marker || self.answers != Answers::None => {
                if marker {
                    self.marks.insert(id);
                }
                self.owed.insert(id);
                self.send(&Packet::PubRec(success(id)));
            }
            _ => {}
        }
        Came::Other
    }

    fn release(&mut self, id: u16) -> Came {
        let asked = self.owed.remove(&id);
        if self.marks.remove(&id) {
            self.marked += 1;
            self.send(&Packet::PubComp(success(id)));
            return Came::Other;
        }
        if !asked {
            // Of an exchange that an earlier connection began.
            self.got.push(Event::Released);
        }
        if self.answers == Answers::All {
            self.send(&Packet::PubComp(success(id)));
        }
        Came::Other
    }

    fn send(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        encode(packet, self.version, &mut bytes).expect("it fits");
        // Where the server has hung up, reading tells it.
        let _ = self.socket.write_all(&bytes);
    }

    fn read(&mut self, what: &str) -> Option<Packet> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(packet) = self.decoder.decode().expect("well-formed packets") {
                return Some(packet);
            }
            match self.socket.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.decoder.feed(Bytes::copy_from_slice(&buffer[..count])),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("{} waited in vain for {what}; so far: {:?}", self.mark, self.got);
                }
                Err(_) => return None,
            }
        }
    }

    fn properties(&self, post: &Post) -> Properties {
        if self.version != Version::V5 {
            return Properties::new();
        }
        let pair = post.pair.clone().map(|(name, value)| Property::UserProperty(name.into(), value.into()));
        let expiry = post.expiry.map(Property::MessageExpiryInterval);
        Properties::from_list(&expiry.into_iter().chain(pair).collect::<Vec<_>>())
    }

    /// The filter below the session's prefix.
    fn prefixed(&self, filter: &str) -> String {
        match filter.strip_prefix("$share/").and_then(|shared| shared.split_once('/')) {
            Some((group, filter)) => format!("$share/{group}/{}{filter}", self.prefix),
            None => format!("{}{filter}", self.prefix),
        }
    }

    fn take_id(&mut self) -> u16 {
        self.last_id += 1;
        self.last_id
    }
}

fn success(packet_id: u16) -> Ack {
    Ack { packet_id, reason: Reason::Success, properties: Properties::new() }
}
