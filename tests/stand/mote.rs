//! A small MQTT-SN client over raw UDP, written from the standard and sharing no code with the gateway.
//!
//! It does only what a test tells it to: nothing is sent again, and what a test does not wait for is set
//! aside in its order.

use std::collections::{BTreeMap, VecDeque};
use std::net::UdpSocket;

use super::HANG;

/// A client at an address of its own.
pub struct Mote {
    socket: UdpSocket,
    next_id: u16,
    /// Type and body of what came and was not waited for.
    aside: VecDeque<(u8, Vec<u8>)>,
    /// Topics that the gateway has registered.
    names: BTreeMap<[u8; 2], String>,
}

/// A message that the gateway published to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Topic name, or the id in decimal where none was registered.
    pub topic: String,
    /// Payload as text.
    pub payload: String,
    /// Whether DUP was set.
    pub dup: bool,
}

/// Message types. // [SN-5.2.2]
pub mod kind {
    pub const CONNECT: u8 = 0x04;
    pub const CONNACK: u8 = 0x05;
    pub const REGISTER: u8 = 0x0A;
    pub const REGACK: u8 = 0x0B;
    pub const PUBLISH: u8 = 0x0C;
    pub const PUBACK: u8 = 0x0D;
    pub const SUBSCRIBE: u8 = 0x12;
    pub const SUBACK: u8 = 0x13;
    pub const PINGREQ: u8 = 0x16;
    pub const PINGRESP: u8 = 0x17;
    pub const DISCONNECT: u8 = 0x18;
}

/// Flags. // [SN-5.3.4]
pub mod flag {
    pub const DUP: u8 = 0x80;
    pub const QOS_1: u8 = 0x20;
    pub const QOS_MINUS_1: u8 = 0x60;
    pub const CLEAN: u8 = 0x04;
    pub const PREDEFINED: u8 = 0x01;
}

impl Mote {
    /// One that will speak to this address.
    pub fn new(gateway: &str) -> Mote {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(gateway).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        Mote { socket, next_id: 0, aside: VecDeque::new(), names: BTreeMap::new() }
    }

    /// Sends octets as they are.
    pub fn send_octets(&self, octets: &[u8]) {
        // A gateway that is gone is seen by what does not come.
        let _ = self.socket.send(octets);
    }

    /// Sends one message.
    pub fn send(&self, kind: u8, body: &[&[u8]]) {
        let body = body.concat();
        let length = u8::try_from(body.len() + 2).expect("no test sends a longer one");
        self.send_octets(&[&[length, kind][..], &body].concat());
    }

    /// The body of the next message of this type.
    pub fn expect(&mut self, kind: u8) -> Vec<u8> {
        match self.aside.iter().position(|(other, _)| *other == kind) {
            Some(at) => self.aside.remove(at).unwrap().1,
            None => loop {
                let (other, body) = self.receive();
                if other == kind {
                    return body;
                }
                self.aside.push_back((other, body));
            },
        }
    }

    /// Connects and waits until that is accepted.
    pub fn connect(&mut self, client_id: &str, flags: u8) {
        self.send(kind::CONNECT, &[&[flags, 1, 0, 60], client_id.as_bytes()]);
        assert_eq!(self.expect(kind::CONNACK), [0], "CONNACK of {client_id}");
    }

    /// Registers a topic; gives its id.
    pub fn register(&mut self, topic: &str) -> [u8; 2] {
        let id = self.take_id();
        self.send(kind::REGISTER, &[&[0, 0], &id, topic.as_bytes()]);
        let answer = self.expect(kind::REGACK);
        assert_eq!((&answer[2..4], answer[4]), (&id[..], 0), "REGACK of {topic}");
        [answer[0], answer[1]]
    }

    /// Publishes with these flags and waits for nothing; gives the message id.
    pub fn publish(&mut self, flags: u8, topic: [u8; 2], payload: &str) -> [u8; 2] {
        let id = if flags & flag::QOS_MINUS_1 == flag::QOS_1 { self.take_id() } else { [0, 0] };
        self.send(kind::PUBLISH, &[&[flags], &topic, &id, payload.as_bytes()]);
        id
    }

    /// Publishes at QoS 1 and waits for its PUBACK.
    pub fn publish_acknowledged(&mut self, topic: [u8; 2], payload: &str) {
        let id = self.publish(flag::QOS_1, topic, payload);
        let answer = self.expect(kind::PUBACK);
        assert_eq!(answer, [&topic[..], &id, &[0]].concat(), "PUBACK of {payload}");
    }

    /// Subscribes at QoS 1; gives the topic's id, 0 for a wildcard.
    pub fn subscribe(&mut self, filter: &str) -> [u8; 2] {
        let id = self.take_id();
        self.send(kind::SUBSCRIBE, &[&[flag::QOS_1], &id, filter.as_bytes()]);
        let answer = self.expect(kind::SUBACK);
        assert_eq!((answer[0] & flag::QOS_MINUS_1, &answer[3..5], answer[5]), (flag::QOS_1, &id[..], 0));
        let topic = [answer[1], answer[2]];
        if topic != [0, 0] {
            self.names.insert(topic, filter.to_owned());
        }
        topic
    }

    /// The next message of the gateway, acknowledged; what it registers before is taken.
    pub fn message(&mut self) -> Said {
        loop {
            if let Some(said) = self.hear() {
                return said;
            }
        }
    }

    /// Asks whether the gateway is there and waits for its answer.
    pub fn ping(&mut self) {
        self.send(kind::PINGREQ, &[]);
        self.expect(kind::PINGRESP);
    }

    /// Leaves, for so many seconds where it only goes to sleep, and waits for the answer.
    pub fn disconnect(&mut self, sleep: Option<u16>) {
        match sleep {
            Some(seconds) => self.send(kind::DISCONNECT, &[&seconds.to_be_bytes()]),
            None => self.send(kind::DISCONNECT, &[]),
        }
        assert_eq!(self.expect(kind::DISCONNECT), [0_u8; 0]);
    }

    /// Wakes up: everything that the gateway sends until its PINGRESP.
    pub fn wake(&mut self, client_id: &str) -> Vec<Said> {
        self.send(kind::PINGREQ, &[client_id.as_bytes()]);
        let mut said = Vec::new();
        loop {
            if let Some(at) = self.aside.iter().position(|(kind, _)| *kind == kind::PINGRESP) {
                self.aside.remove(at);
                return said;
            }
            said.extend(self.hear());
        }
    }

    /// Takes in one message; what it is not told to do with it is set aside.
    fn hear(&mut self) -> Option<Said> {
        let taken = self.aside.iter().position(|(kind, _)| matches!(*kind, kind::REGISTER | kind::PUBLISH));
        let (kind, body) = match taken {
            Some(at) => self.aside.remove(at).unwrap(),
            None => self.receive(),
        };
        match kind {
            kind::REGISTER => {
                let name = String::from_utf8(body[4..].to_vec()).unwrap();
                self.names.insert([body[0], body[1]], name);
                self.send(kind::REGACK, &[&body[..4], &[0]]);
                None
            }
            kind::PUBLISH => {
                let topic = [body[1], body[2]];
                if body[0] & flag::QOS_MINUS_1 == flag::QOS_1 {
                    self.send(kind::PUBACK, &[&body[1..5], &[0]]);
                }
                let name = self.names.get(&topic).cloned();
                Some(Said {
                    topic: name.unwrap_or_else(|| u16::from_be_bytes(topic).to_string()),
                    payload: String::from_utf8(body[5..].to_vec()).unwrap(),
                    dup: body[0] & flag::DUP != 0,
                })
            }
            _ => {
                self.aside.push_back((kind, body));
                None
            }
        }
    }

    fn receive(&self) -> (u8, Vec<u8>) {
        let mut buffer = [0; 2_048];
        let count = self.socket.recv(&mut buffer).expect("a datagram in time");
        assert_eq!(usize::from(buffer[0]), count, "the length is that of the datagram");
        (buffer[1], buffer[2..count].to_vec())
    }

    fn take_id(&mut self) -> [u8; 2] {
        self.next_id += 1;
        self.next_id.to_be_bytes()
    }
}
