//! The attacks themselves.
//!
//! Attackers pour out bytes that were made beforehand and sleep in the kernel while the gateway has not
//! taken them, or wait for its answers, so that they are as fast as it lets them be.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use tidegate::codec::{Packet, Properties, Publish, QoS, Unsubscribe, Version, encode};

use super::{A_MOMENT, Attack, Siege};
use crate::hostile::{connect, many};
use crate::program;
use crate::stand::{Client, Options};

/// Every one, from those who say nothing to those who say too much.
pub(super) const ATTACKS: [Attack; 12] = [
    Attack { what: "connections that say nothing", clients: 204, configuration: nothing, run: silence },
    Attack {
        what: "a byte of CONNECT at a time",
        clients: 202,
        configuration: nothing,
        run: bytes_of_connect,
    },
    Attack { what: "halves of large packets", clients: 34, configuration: nothing, run: halves },
    Attack { what: "a storm of clients who come and go", clients: 4, configuration: nothing, run: gusts },
    Attack { what: "a storm of wrong passwords", clients: 10, configuration: passwords, run: guesses },
    Attack {
        what: "readers who do not read",
        clients: READERS + 2,
        configuration: nothing,
        run: deaf_readers,
    },
    Attack { what: "topics of 65,535 bytes", clients: 2, configuration: nothing, run: bombs },
    Attack {
        what: "topics of as many levels as may be",
        clients: 2,
        configuration: nothing,
        run: deep_topics,
    },
    Attack { what: "subscriptions by the hundred", clients: 2, configuration: nothing, run: subscriptions },
    Attack {
        what: "everybody wants everything",
        clients: READERS + 2,
        configuration: nothing,
        run: explosion,
    },
    Attack {
        what: "packets at the limit",
        clients: 2,
        configuration: small_packets,
        run: packets_at_the_limit,
    },
    Attack { what: "packets over the limit", clients: 4, configuration: small_packets, run: packets_over_it },
];

fn silence(siege: &Siege) {
    while siege.goes_on() {
        let silent: Vec<TcpStream> = (0..200).map(|_| dial(siege)).collect();
        settle(siege);
        drop(silent);
        siege.count();
    }
}

fn bytes_of_connect(siege: &Siege) {
    let bytes = connect("slow", Version::V311);
    let mut slow: Vec<(TcpStream, usize)> = Vec::new();
    let mut pacer = Client::connect(siege.port, &Options::new("pacer"));
    while siege.goes_on() {
        slow.resize_with(200, || (dial(siege), 0));
        // All but the last byte, and then from anew.
        slow.retain_mut(|(socket, sent)| {
            *sent += 1;
            *sent < bytes.len() && socket.write(&bytes[*sent - 1..*sent]).is_ok()
        });
        // The gateway has seen to them when it answers.
        pacer.send(&Packet::PingReq);
        assert!(matches!(pacer.next(), Some(Packet::PingResp)));
        siege.count();
    }
}

fn halves(siege: &Siege) {
    // PUBLISH of 250,000 bytes of which half comes.
    let mut bytes = vec![0x30, 0x90, 0xA1, 0x0F, 0, 1, b't'];
    bytes.resize(125_000, b'x');
    while siege.goes_on() {
        let halves: Vec<Client> = (0..30)
            // Once the memory is taken, nobody new is let in.
            .filter_map(|number| {
                Client::try_connect(siege.port, &Options::new(&format!("half-{number}"))).ok()
            })
            .map(|mut client| {
                let _ = client.socket().write_all(&bytes);
                client
            })
            .collect();
        drop(halves);
        siege.count();
    }
}

fn gusts(siege: &Siege) {
    while siege.goes_on() {
        drop(Client::connect(siege.port, &Options::new("gust")));
        siege.count();
    }
}

fn guesses(siege: &Siege) {
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let mut guess = 0;
                while siege.goes_on() {
                    guess += 1;
                    let login = Some(("barn".to_owned(), format!("{number}/{guess}")));
                    let options = Options { login, ..Options::new(&format!("gust-{number}")) };
                    assert!(Client::try_connect(siege.port, &options).is_err());
                    siege.count();
                }
            });
        }
    });
}

fn deaf_readers(siege: &Siege) {
    let readers: Vec<Client> = (0..READERS)
        .map(|number| {
            let mut client = Client::connect(siege.port, &Options::new(&format!("deaf-{number}")));
            client.subscribe("flood/#", QoS::AtMostOnce);
            client
        })
        .collect();
    let loud = Client::connect(siege.port, &Options::new("loud"));
    pour(siege, loud, &publish("flood/x", 10_000).repeat(10));
    drop(readers);
}

fn bombs(siege: &Siege) {
    let bomb = "/".repeat(65_535);
    while siege.goes_on() {
        let mut bomber = Client::connect(siege.port, &Options::new("bomber"));
        bomber.publish(&bomb, "boom", QoS::AtLeastOnce);
        assert!(matches!(bomber.next(), Some(Packet::PubAck(_))), "it has too many levels, and is withheld");
        siege.count();
    }
}

fn deep_topics(siege: &Siege) {
    let deep = format!("/{}", vec!["x".repeat(510); 126].join("/"));
    let bombs: Vec<u8> = (0..10).flat_map(|number| publish(&format!("{deep}{number}"), 10)).collect();
    pour(siege, Client::connect(siege.port, &Options::new("bomber")), &bombs);
}

fn subscriptions(siege: &Siege) {
    let mut bytes = Vec::new();
    for hundred in 0..50 {
        let filters: Vec<String> = (0..100).map(|of| format!("many/{hundred}/{of}/+/x")).collect();
        encode(&Packet::Subscribe(many(filters.clone())), Version::V311, &mut bytes).unwrap();
        let filters = filters.into_iter().map(Into::into).collect();
        let end = Unsubscribe { packet_id: 1, properties: Properties::new(), filters };
        encode(&Packet::Unsubscribe(end), Version::V311, &mut bytes).unwrap();
    }
    pour(siege, Client::connect(siege.port, &Options::new("wisher")), &bytes);
}

fn explosion(siege: &Siege) {
    let readers: Vec<Client> = (0..READERS)
        .map(|number| {
            let mut client = Client::connect(siege.port, &Options::new(&format!("all-{number}")));
            for filter in ["#", "+/#", "+/+/#", "a/#", "a/+/c"] {
                client.subscribe(filter, QoS::AtMostOnce);
            }
            client.socket().set_nonblocking(true).unwrap();
            client
        })
        .collect();
    thread::scope(|scope| {
        scope.spawn(|| listen(siege, readers));
        let loud = Client::connect(siege.port, &Options::new("loud"));
        pour(siege, loud, &publish("a/b/c", 1_000).repeat(100));
    });
}

fn packets_at_the_limit(siege: &Siege) {
    pour(siege, Client::connect(siege.port, &Options::new("fits")), &publish("size", LIMIT).repeat(10));
}

fn packets_over_it(siege: &Siege) {
    let over = publish("size", LIMIT + 1);
    while siege.goes_on() {
        let mut client = Client::connect(siege.port, &Options::new("over"));
        let _ = client.socket().write_all(&over);
        assert!(client.next().is_none(), "the connection is closed");
        siege.count();
    }
}

/// Pours out these bytes again and again as this client; what comes back is read and forgotten.
fn pour(siege: &Siege, mut client: Client, bytes: &[u8]) {
    let socket = client.socket();
    let mut ears = socket.try_clone().unwrap();
    let ears = thread::spawn(move || drop(io::copy(&mut ears, &mut io::sink())));
    socket.set_write_timeout(Some(A_MOMENT)).unwrap();
    let mut rest = bytes;
    while siege.goes_on() {
        match socket.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        if rest.is_empty() {
            siege.count();
            rest = bytes;
        }
    }
    let _ = socket.shutdown(Shutdown::Both);
    ears.join().unwrap();
}

/// Reads what comes to these, whoever it comes to.
fn listen(siege: &Siege, mut readers: Vec<Client>) {
    let mut buffer = vec![0; 1 << 18];
    while siege.goes_on() {
        let mut came = false;
        for reader in &mut readers {
            came |= reader.socket().read(&mut buffer).is_ok();
        }
        if !came {
            thread::park_timeout(A_MOMENT);
        }
    }
}

fn dial(siege: &Siege) -> TcpStream {
    TcpStream::connect(("127.0.0.1", siege.port)).unwrap()
}

/// Everybody who knocked before is let in when this returns.
fn settle(siege: &Siege) {
    drop(Client::connect(siege.port, &Options::new("last")));
}

fn publish(topic: &str, size: usize) -> Vec<u8> {
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: topic.into(),
        packet_id: 0,
        properties: Properties::new(),
        payload: vec![b'x'; size].into(),
    };
    let mut bytes = Vec::new();
    encode(&Packet::Publish(publish), Version::V311, &mut bytes).unwrap();
    bytes
}

fn nothing(_: &Path) -> String {
    String::new()
}

fn small_packets(_: &Path) -> String {
    "max_packet_size = \"20KB\"\n".to_owned()
}

/// Each password is compared.
fn passwords(folder: &Path) -> String {
    let file = folder.join("passwd");
    let made =
        Command::new(program()).args(["passwd", "-b", "-c"]).arg(&file).args(["barn", "right"]).output();
    assert!(made.unwrap().status.success());
    format!("max_login_failures = \"100000/s\"\n[auth]\npassword_file = {file:?}\n")
}

/// Who want everything, or do not read.
const READERS: u64 = 20;

/// Bytes of payload that fill a packet of 20,000: a byte of header, three of length, six of the topic.
const LIMIT: usize = 20_000 - (1 + 3 + 6);
