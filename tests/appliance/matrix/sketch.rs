//! What a sketch with Arduino's PubSubClient (2.8) writes, byte for byte, its habits included.
//!
//! It writes CONNECT in pieces as a slow modem takes them, publishes at QoS 0 alone, one byte a write
//! between `beginPublish` and `endPublish`, starts packet ids at 2, looks at no SUBACK, forgets a packet
//! over 256 bytes, and after a lost link comes back while its old socket still seems to stand.

use std::io::{Read, Write};
use std::net::TcpStream;

use tidegate::codec::QoS;

use super::{Cell, SCENARIOS};
use crate::stand::{Client, HANG, Options};

/// Goes through all scenarios; the habits are shown along the way.
pub(super) fn run(cell: &Cell) -> Vec<String> {
    login(cell);
    pairs(cell);
    retained(cell);
    will_after_a_half_open_link(cell);
    kept(cell);
    SCENARIOS.map(str::to_owned).to_vec()
}

fn login(cell: &Cell) {
    let (_, code) = Sketch::begin(cell, &Begin { name: "wrong", password: "wrong", ..Begin::default() });
    assert_ne!(code, 0, "MQTT_CONNECT_BAD_CREDENTIALS or UNAUTHORIZED");
}

fn pairs(cell: &Cell) {
    let mut watcher = partner(cell, "watcher");
    watcher.subscribe(&format!("{}/up/+", cell.prefix), QoS::AtLeastOnce);
    let mut sketch = Sketch::connect(cell, "pairs");
    for payload in ["", "21.5", &"x".repeat(1000)] {
        let topic = format!("{}/up/t", cell.prefix);
        sketch.publish_in_pieces(&topic, payload.as_bytes(), false);
        let got = watcher.message();
        assert_eq!((&*got.topic, &got.payload[..], got.qos), (&*topic, payload.as_bytes(), QoS::AtMostOnce));
    }
    for (number, subscribed) in [QoS::AtMostOnce, QoS::AtLeastOnce].into_iter().enumerate() {
        let filter = format!("{}/down/{number}/+", cell.prefix);
        sketch.subscribe(&filter, subscribed);
        for published in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            watcher.publish(&filter.replace('+', "x"), "on", published);
            let (topic, payload, qos) = sketch.message();
            assert_eq!((&*topic, &payload[..]), (&*filter.replace('+', "x"), &b"on"[..]));
            assert_eq!(qos, (published as u8).min(subscribed as u8));
        }
        // It forgets what is over its buffer, acknowledges nothing of it, and goes on.
        watcher.publish(&filter.replace('+', "x"), vec![0; 300], QoS::AtMostOnce);
        watcher.publish(&filter.replace('+', "x"), "small", QoS::AtMostOnce);
        assert_eq!(sketch.message().1, b"small");
    }
    // As after fifteen seconds without a word.
    sketch.socket.write_all(&[0xC0, 0]).unwrap();
    assert_eq!(sketch.packet(), (0xD0, vec![]));
    sketch.socket.write_all(&[0xE0, 0]).unwrap();
    assert_eq!(sketch.socket.read(&mut [0]).unwrap(), 0, "its goodbye is understood");
}

fn retained(cell: &Cell) {
    let topic = format!("{}/retained/a", cell.prefix);
    Sketch::connect(cell, "retaining").publish_in_pieces(&topic, b"kept", true);
    let mut watcher = partner(cell, "early");
    watcher.subscribe(&format!("{}/retained/#", cell.prefix), QoS::AtLeastOnce);
    assert_eq!(watcher.message().payload, b"kept"[..]);
    let mut late = Sketch::connect(cell, "late");
    late.subscribe(&topic.replace("/a", "/+"), QoS::AtLeastOnce);
    assert_eq!(late.message(), (topic, b"kept".to_vec(), 0));
}

fn will_after_a_half_open_link(cell: &Cell) {
    let topic = format!("{}/will/x", cell.prefix);
    let mut watcher = partner(cell, "heir");
    watcher.subscribe(&format!("{}/will/+", cell.prefix), QoS::AtLeastOnce);
    let begin = Begin { name: "dying", will: Some(&topic), ..Begin::default() };
    let (mut old, code) = Sketch::begin(cell, &begin);
    assert_eq!(code, 0);
    // The board has restarted; its old socket stands, and what it had begun to write hangs in it.
    old.socket.write_all(&[0x30, 20, 0]).unwrap();
    let (new, code) = Sketch::begin(cell, &begin);
    assert_eq!(code, 0);
    assert_eq!(watcher.message().payload, b"gone"[..], "the will of the connection that was taken over");
    assert_eq!(old.socket.read(&mut [0]).unwrap_or(0), 0, "the old one is ended");
    drop(new);
    assert_eq!(watcher.message().payload, b"gone"[..], "the will of the one that was cut");
}

fn kept(cell: &Cell) {
    let begin = Begin { name: "keeper", kept: true, ..Begin::default() };
    let (mut sketch, _) = Sketch::begin(cell, &begin);
    let filter = format!("{}/kept/+", cell.prefix);
    sketch.subscribe(&filter, QoS::AtLeastOnce);
    sketch.subscribe(&filter.replace("kept", "kept-barrier"), QoS::AtLeastOnce);
    sketch.granted(3);
    drop(sketch);
    let mut publisher = partner(cell, "publisher");
    for number in ["1", "2", "3", "4", "5"] {
        publisher.publish_acknowledged(&filter.replace('+', "x"), number);
    }
    let (mut again, code) = Sketch::begin(cell, &begin);
    assert_eq!(code, 0);
    for number in ["1", "2", "3", "4", "5"] {
        let (_, payload, qos) = again.message();
        assert_eq!((&payload[..], qos), (number.as_bytes(), 1));
    }
}

/// The stand's own client at the other end.
fn partner(cell: &Cell, name: &str) -> Client {
    let login = Some(("barn".to_owned(), "right".to_owned()));
    Client::connect(cell.port, &Options { login, ..Options::new(&format!("{name}-{}", cell.prefix)) })
}

struct Begin<'a> {
    name: &'a str,
    password: &'a str,
    will: Option<&'a str>,
    kept: bool,
}

impl Default for Begin<'_> {
    fn default() -> Self {
        Begin { name: "", password: "right", will: None, kept: false }
    }
}

/// A board.
struct Sketch {
    socket: TcpStream,
    next_id: u16,
}

impl Sketch {
    fn connect(cell: &Cell, name: &str) -> Sketch {
        let (sketch, code) = Sketch::begin(cell, &Begin { name, ..Begin::default() });
        assert_eq!(code, 0);
        sketch
    }

    /// Connects; the return code of CONNACK is beside it.
    fn begin(cell: &Cell, begin: &Begin) -> (Sketch, u8) {
        let socket = TcpStream::connect(("127.0.0.1", cell.port)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        let mut sketch = Sketch { socket, next_id: 1 };
        let will = if begin.will.is_some() { 0x04 | 1 << 3 } else { 0 };
        let flags = 0xC0 | will | if begin.kept { 0 } else { 0x02 };
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 15];
        put(&mut body, &format!("{}-{}", begin.name, cell.prefix));
        if let Some(topic) = begin.will {
            put(&mut body, topic);
            put(&mut body, "gone");
        }
        put(&mut body, "barn");
        put(&mut body, begin.password);
        let packet = packet(0x10, &body);
        for piece in packet.chunks(7) {
            sketch.socket.write_all(piece).unwrap();
        }
        let (header, answer) = sketch.packet();
        assert_eq!((header, answer.len()), (0x20, 2));
        (sketch, answer[1])
    }

    /// `beginPublish`, one `write` for each byte, `endPublish`.
    fn publish_in_pieces(&mut self, topic: &str, payload: &[u8], retain: bool) {
        let mut body = Vec::new();
        put(&mut body, topic);
        body.extend_from_slice(payload);
        let packet = packet(0x30 | u8::from(retain), &body);
        let (begin, rest) = packet.split_at(packet.len() - payload.len());
        self.socket.write_all(begin).unwrap();
        for byte in rest {
            self.socket.write_all(&[*byte]).unwrap();
        }
    }

    /// It goes on without a look at the answer.
    fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.next_id += 1;
        let mut body = self.next_id.to_be_bytes().to_vec();
        put(&mut body, filter);
        body.push(qos as u8);
        self.socket.write_all(&packet(0x82, &body)).unwrap();
    }

    /// For the test alone: reads until this SUBACK.
    fn granted(&mut self, id: u16) {
        while self.packet() != (0x90, [&id.to_be_bytes()[..], &[1]].concat()) {}
    }

    /// What its `callback` gets next: topic, payload and QoS.
    fn message(&mut self) -> (String, Vec<u8>, u8) {
        loop {
            let (header, body) = self.packet();
            if header >> 4 != 3 || body.len() > BUFFER_BYTES {
                continue;
            }
            let (qos, topic_end) = (header >> 1 & 3, 2 + usize::from(u16::from_be_bytes([body[0], body[1]])));
            let topic = String::from_utf8(body[2..topic_end].to_vec()).unwrap();
            if qos == 0 {
                return (topic, body[topic_end..].to_vec(), qos);
            }
            let id = &body[topic_end..topic_end + 2];
            self.socket.write_all(&[0x40, 2, id[0], id[1]]).unwrap();
            return (topic, body[topic_end + 2..].to_vec(), qos);
        }
    }

    /// Reads one packet byte by byte: its first byte and what follows its length.
    fn packet(&mut self) -> (u8, Vec<u8>) {
        let header = self.byte();
        let (mut length, mut shift) = (0, 0);
        loop {
            let digit = self.byte();
            length |= usize::from(digit & 0x7F) << shift;
            shift += 7;
            if digit & 0x80 == 0 {
                break;
            }
        }
        (header, (0..length).map(|_| self.byte()).collect())
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.socket.read_exact(&mut byte).unwrap();
        byte[0]
    }
}

fn put(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

fn packet(header: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![header];
    let mut left = body.len();
    loop {
        let digit = u8::try_from(left & 0x7F).unwrap();
        left >>= 7;
        packet.push(if left > 0 { digit | 0x80 } else { digit });
        if left == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// `MQTT_MAX_PACKET_SIZE`.
const BUFFER_BYTES: usize = 256;
