//! Peers that mean harm and do not stop, and what those beside them wait meanwhile.
//!
//! What is measured is the gateway and not who gets a processor: attackers pour out bytes that were made
//! beforehand and sleep in the kernel while the gateway has not taken them, or wait for its answers, so that
//! they are as fast as it lets them be and hardly work themselves. Whoever comes meanwhile waits for the
//! attacker's share of a turn; at full size he may wait as long as after an attack.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tidegate::codec::{Packet, Properties, Publish, QoS, Unsubscribe, Version, encode};

use crate::hostile::{Scene, connect, many};
use crate::program;
use crate::stand::{Client, Options, wait_for};

/// An attack that goes on until it is told to stop.
struct Siege {
    port: u16,
    over: AtomicBool,
    /// How often it has done its worst.
    rounds: AtomicU64,
}

/// Ends the attack, also where the test fails.
struct Relief<'a>(&'a Siege);

impl Drop for Relief<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl Scene {
    /// While `attack` goes on others are served, and their waits are measured.
    fn endures_meanwhile(&mut self, what: &str, clients: u64, attack: fn(&Siege)) {
        let siege = Siege { port: self.port(), over: AtomicBool::new(false), rounds: AtomicU64::new(0) };
        let (slowest, rounds) = thread::scope(|scope| {
            let relief = Relief(&siege);
            let attacker = scope.spawn(|| attack(&siege));
            wait_for("the attack", || (siege.rounds() > 2 || attacker.is_finished()).then_some(()));
            let before = siege.rounds();
            let slowest = self.slowest_of_tries();
            let rounds = siege.rounds() - before;
            drop(relief);
            attacker.join().unwrap();
            (slowest, rounds)
        });
        assert!(rounds > 0, "{what}: nobody attacked while it was measured");
        self.holds(&format!("{what}, {rounds} times meanwhile"), clients, slowest, self.quiet * 4);
    }
}

impl Siege {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// Pours out these bytes again and again as this client; what comes back is read and forgotten.
    fn pour(&self, mut client: Client, bytes: &[u8]) {
        let socket = client.socket();
        let mut ears = socket.try_clone().unwrap();
        let ears = thread::spawn(move || drop(io::copy(&mut ears, &mut io::sink())));
        socket.set_write_timeout(Some(A_MOMENT)).unwrap();
        let mut rest = bytes;
        while self.goes_on() {
            match socket.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
            if rest.is_empty() {
                self.count();
                rest = bytes;
            }
        }
        let _ = socket.shutdown(Shutdown::Both);
        ears.join().unwrap();
    }
}

#[test]
fn others_are_served_while_topics_and_subscriptions_pour_in() {
    let mut scene = Scene::new("");
    scene.endures_meanwhile("topics of 65,535 bytes", 2, |siege| {
        let bomb = "/".repeat(65_535);
        while siege.goes_on() {
            let mut bomber = Client::connect(siege.port, &Options::new("bomber"));
            bomber.publish(&bomb, "boom", QoS::AtLeastOnce);
            assert!(bomber.next().is_none(), "it has too many levels");
            siege.count();
        }
    });
    scene.endures_meanwhile("topics of as many levels as may be", 2, |siege| {
        let deep = format!("/{}", vec!["x".repeat(510); 126].join("/"));
        let bombs: Vec<u8> = (0..10).flat_map(|number| publish(&format!("{deep}{number}"), 10)).collect();
        siege.pour(Client::connect(siege.port, &Options::new("bomber")), &bombs);
    });
    scene.endures_meanwhile("subscriptions by the hundred", 2, |siege| {
        let mut bytes = Vec::new();
        for hundred in 0..50 {
            let filters: Vec<String> = (0..100).map(|of| format!("many/{hundred}/{of}/+/x")).collect();
            encode(&Packet::Subscribe(many(filters.clone())), Version::V311, &mut bytes).unwrap();
            let filters = filters.into_iter().map(Into::into).collect();
            let end = Unsubscribe { packet_id: 1, properties: Properties::new(), filters };
            encode(&Packet::Unsubscribe(end), Version::V311, &mut bytes).unwrap();
        }
        siege.pour(Client::connect(siege.port, &Options::new("wisher")), &bytes);
    });
    scene.endures_meanwhile("everybody wants everything", READERS + 2, |siege| {
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
            siege.pour(
                Client::connect(siege.port, &Options::new("loud")),
                &publish("a/b/c", 1_000).repeat(100),
            );
        });
    });
}

#[test]
fn others_are_served_while_connections_storm() {
    let mut scene = Scene::new("");
    scene.endures_meanwhile("a byte of CONNECT at a time", 202, |siege| {
        let bytes = connect("slow", Version::V311);
        let mut slow: Vec<(TcpStream, usize)> = Vec::new();
        let mut pacer = Client::connect(siege.port, &Options::new("pacer"));
        while siege.goes_on() {
            slow.resize_with(200, || (TcpStream::connect(("127.0.0.1", siege.port)).unwrap(), 0));
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
    });
    scene.endures_meanwhile("a storm of clients who come and go", 4, |siege| {
        while siege.goes_on() {
            drop(Client::connect(siege.port, &Options::new("gust")));
            siege.count();
        }
    });
}

#[test]
fn others_are_served_while_wrong_passwords_storm() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwd");
    let made =
        Command::new(program()).args(["passwd", "-b", "-c"]).arg(&passwords).args(["barn", "right"]).output();
    assert!(made.unwrap().status.success());
    // Each one is looked at.
    let mut scene =
        Scene::new(&format!("max_login_failures = \"100000/s\"\n[auth]\npassword_file = {passwords:?}\n"));
    scene.endures_meanwhile("a storm of wrong passwords", 10, |siege| {
        thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    let login = Some(("barn".to_owned(), "wrong".to_owned()));
                    let options = Options { login, ..Options::new(&format!("gust-{number}")) };
                    while siege.goes_on() {
                        assert!(Client::try_connect(siege.port, &options).is_err());
                        siege.count();
                    }
                });
            }
        });
    });
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

/// Who want everything.
const READERS: u64 = 20;

/// How long one looks for the end of the attack.
const A_MOMENT: Duration = Duration::from_millis(2);
