//! Promises of `pub` and `sub`, held against a broker that follows a script.
//!
//! Each script says what the broker does; what it does not expect fails the test.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use bytes::Bytes;
use clap::Parser;

use super::subscribe::Subscriber;
use super::*;
use crate::codec::{
    Ack, ConnAck, Decoder, Packet, Properties, Publish, QoS, Reason, Side, SubAck, Version, encode,
};

/// The broker's end of one connection.
struct Peer {
    stream: TcpStream,
    decoder: Decoder,
}

impl Peer {
    /// The next packet; `None` at the end of the connection.
    fn next(&mut self) -> Option<Packet> {
        let mut buffer = [0; 4_096];
        loop {
            if let Some(packet) = self.decoder.decode().expect("well formed") {
                return Some(packet);
            }
            match self.stream.read(&mut buffer).expect("readable") {
                0 => return None,
                length => self.decoder.feed(Bytes::copy_from_slice(&buffer[..length])),
            }
        }
    }

    fn send(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        encode(packet, self.decoder.version().unwrap_or(Version::V311), &mut bytes).expect("writable");
        self.stream.write_all(&bytes).expect("writable");
    }

    fn welcome(&mut self, reason: Reason) {
        assert!(matches!(self.next(), Some(Packet::Connect(_))));
        self.send(&Packet::ConnAck(ConnAck {
            session_present: false,
            reason,
            properties: Properties::new(),
        }));
    }
}

/// A broker that serves one client by this script, and its port.
fn broker(script: impl FnOnce(&mut Peer) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("bound").port().to_string();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("accepted");
        script(&mut Peer { stream, decoder: Decoder::new(Side::Server, 1_000_000) });
    });
    (port, thread)
}

#[derive(Parser)]
#[command(disable_help_flag = true)]
struct PubLine {
    #[command(flatten)]
    args: PubArgs,
}

#[derive(Parser)]
#[command(disable_help_flag = true)]
struct SubLine {
    #[command(flatten)]
    args: SubArgs,
}

/// Publishes with these words to a broker of this script; what it failed with, if it did.
fn check_pub(words: &[&str], script: impl FnOnce(&mut Peer) + Send + 'static) -> Option<String> {
    let (port, thread) = broker(script);
    let line = [&["pub", "-h", "127.0.0.1", "-p", &port], words].concat();
    let result = publish(&PubLine::try_parse_from(line).expect("words").args);
    thread.join().expect("the script was followed");
    result.err().map(|failure| failure.to_string())
}

fn ack(packet_id: u16, reason: Reason) -> Ack {
    Ack { packet_id, reason, properties: Properties::new() }
}

fn publication(peer: &mut Peer) -> Publish {
    match peer.next() {
        Some(Packet::Publish(publish)) => publish,
        other => panic!("not a PUBLISH: {other:?}"),
    }
}

#[test]
fn a_publish_is_done_when_its_exchange_is() {
    let failure = check_pub(&["-t", "a/b", "-m", "x", "-q", "2", "-r"], |peer| {
        peer.welcome(Reason::Success);
        let publish = publication(peer);
        assert!(publish.retain && &*publish.topic == "a/b" && &publish.payload[..] == b"x");
        peer.send(&Packet::PubRec(ack(publish.packet_id, Reason::Success)));
        assert_eq!(peer.next(), Some(Packet::PubRel(ack(publish.packet_id, Reason::Success))));
        peer.send(&Packet::PubComp(ack(publish.packet_id, Reason::Success)));
        assert!(matches!(peer.next(), Some(Packet::Disconnect(_))));
        assert_eq!(peer.next(), None);
    });
    assert_eq!(failure, None);
}

#[test]
fn a_publish_without_its_acknowledgement_has_failed() {
    let failure = check_pub(&["-t", "a", "-m", "x", "-q", "1"], |peer| {
        peer.welcome(Reason::Success);
        publication(peer);
    });
    assert!(failure.expect("it failed").contains("closed the connection"));
}

#[test]
fn a_refusal_is_told_in_words() {
    let failure = check_pub(&["-t", "a", "-m", "x", "-q", "1", "-V", "5"], |peer| {
        peer.welcome(Reason::Success);
        let id = publication(peer).packet_id;
        peer.send(&Packet::PubAck(ack(id, Reason::QuotaExceeded)));
    });
    assert!(failure.expect("it failed").contains("quota exceeded (0x97)"));
    let failure = check_pub(&["-t", "a", "-n"], |peer| peer.welcome(Reason::NotAuthorized));
    assert!(failure.expect("it failed").contains("not authorized"));
}

/// What `sub` prints until it ends well.
fn printed(words: &[&str]) -> String {
    let args = SubLine::try_parse_from(words).expect("words").args;
    let mut out = Vec::new();
    let mut subscriber = Subscriber {
        args: &args,
        out: &mut out,
        deadline: None,
        printed: 0,
        held: Default::default(),
        stands: false,
    };
    subscriber.run().expect("it ends well");
    String::from_utf8(out).expect("text")
}

#[test]
fn a_message_is_acknowledged_when_it_was_printed() {
    let (port, thread) = broker(|peer| {
        peer.welcome(Reason::Success);
        let Some(Packet::Subscribe(subscribe)) = peer.next() else { panic!("not a SUBSCRIBE") };
        let reasons = vec![Reason::GrantedQoS2];
        let (packet_id, properties) = (subscribe.packet_id, Properties::new());
        peer.send(&Packet::SubAck(SubAck { packet_id, properties, reasons }));
        let message = |qos, packet_id, payload: &'static [u8]| {
            Packet::Publish(Publish {
                dup: false,
                qos,
                retain: false,
                topic: "a/b".into(),
                packet_id,
                properties: Properties::new(),
                payload: Bytes::from_static(payload),
            })
        };
        peer.send(&message(QoS::ExactlyOnce, 7, b"held"));
        assert_eq!(peer.next(), Some(Packet::PubRec(ack(7, Reason::Success))));
        peer.send(&message(QoS::AtLeastOnce, 8, b"one"));
        assert_eq!(peer.next(), Some(Packet::PubAck(ack(8, Reason::Success))));
        // Sent again before its release, it is still one message.
        peer.send(&message(QoS::ExactlyOnce, 7, b"held"));
        assert_eq!(peer.next(), Some(Packet::PubRec(ack(7, Reason::Success))));
        peer.send(&Packet::PubRel(ack(7, Reason::Success)));
        assert_eq!(peer.next(), Some(Packet::PubComp(ack(7, Reason::Success))));
        assert!(matches!(peer.next(), Some(Packet::Disconnect(_))));
    });
    let words = ["sub", "-h", "127.0.0.1", "-p", &port, "-t", "a/#", "-q", "2", "-v", "-C", "2"];
    let out = printed(&words);
    thread.join().expect("the script was followed");
    assert_eq!(out, "a/b one\na/b held\n");
}

#[test]
fn retained_messages_alone_end_with_the_first_other_one() {
    let (port, thread) = broker(|peer| {
        peer.welcome(Reason::Success);
        let Some(Packet::Subscribe(subscribe)) = peer.next() else { panic!("not a SUBSCRIBE") };
        let (packet_id, properties) = (subscribe.packet_id, Properties::new());
        peer.send(&Packet::SubAck(SubAck { packet_id, properties, reasons: vec![Reason::GrantedQoS1] }));
        for (packet_id, retain, payload) in [(1, true, "kept"), (2, false, "live")] {
            peer.send(&Packet::Publish(Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain,
                topic: "a".into(),
                packet_id,
                properties: Properties::new(),
                payload: payload.into(),
            }));
            assert_eq!(peer.next(), Some(Packet::PubAck(ack(packet_id, Reason::Success))));
        }
        assert!(matches!(peer.next(), Some(Packet::Disconnect(_))));
    });
    let words = ["sub", "-h", "127.0.0.1", "-p", &port, "-t", "a", "-q", "1", "--retained-only"];
    let out = printed(&words);
    thread.join().expect("the script was followed");
    assert_eq!(out, "kept\n");
}

#[test]
fn a_login_stands_in_the_url_or_beside_it() {
    let login = |words: &str| {
        let line = ["sub"].into_iter().chain(words.split(' '));
        let client = SubLine::try_parse_from(line).expect("words").args.client;
        let connect = client.connect().expect("they go together");
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        (connect.username.map(|name| name.to_string()), connect.password.map(text))
    };
    let expected =
        |username: &str, password: Option<&str>| (Some(username.to_owned()), password.map(str::to_owned));
    assert_eq!(login("-L mqtt://anna:a@h/t"), expected("anna", Some("a")));
    assert_eq!(login("-L mqtt://h/t -u barn -P b"), expected("barn", Some("b")));
    assert_eq!(login("-L mqtt://anna@h/t -P b"), expected("anna", Some("b")));
    assert_eq!(login("-L mqtt://h/t -u barn"), expected("barn", None));
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let wrong = |words: &[&str]| {
        let line = [&["pub", "-t", "a"], words].concat();
        let Ok(line) = PubLine::try_parse_from(line) else { return true };
        publish(&line.args).is_err_and(|failure| failure.code() == 2)
    };
    assert!(wrong(&["-m", "x", "-n"]), "two messages");
    assert!(wrong(&[]), "no message");
    assert!(wrong(&["-m", "x", "-c"]), "a kept session without a name");
    assert!(wrong(&["-m", "x", "-x", "5"]), "an expiry before MQTT 5");
    assert!(wrong(&["-m", "x", "-q", "3"]));
    assert!(wrong(&["-m", "x", "-P", "secret"]), "a password without a user");
}

#[test]
fn tls_is_spoken_where_it_is_asked_for_and_at_its_own_port() {
    let place = |words: &str| {
        let line = ["pub", "-n"].into_iter().chain(words.split(' '));
        let client = PubLine::try_parse_from(line).map_err(|error| error.to_string())?.args.client;
        Ok::<_, String>((client.wants_tls(), client.address().1))
    };
    for (words, expected) in [
        ("-t x", (false, 1_883)),
        ("-t x -p 8883", (true, 8_883)),
        ("-t x --cafile f", (true, 8_883)),
        ("-t x --capath f -p 1", (true, 1)),
        ("-t x --insecure", (true, 8_883)),
        ("-L mqtt://h/t", (false, 1_883)),
        ("-L mqtts://h/t", (true, 8_883)),
        ("-L mqtts://h:1/t", (true, 1)),
    ] {
        assert_eq!(place(words), Ok(expected), "{words}");
    }
    for words in
        ["-t x -L mqtt://h/t", "-t x --cert c", "-L mqtt://h/t -p 1", "-t x --unix s --cafile f", "-q 1"]
    {
        assert!(place(words).is_err(), "{words}");
    }
}
