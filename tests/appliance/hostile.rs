//! Peers that mean harm: they say nothing, or half of it, or too much, or do not listen.
//!
//! Whatever they do, the gateway's memory grows by 2 KB for each client and `max_memory` at most, and others are
//! served meanwhile.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use tidegate::codec::{
    Connect, Packet, Properties, QoS, Reason, RetainHandling, Subscribe, Subscription, SubscriptionOptions,
    Version, encode,
};

use crate::program;
use crate::stand::{Client, Gateway, MemoryWatch, Options, monotonic, proof};

/// A gateway, and somebody who only wants his messages.
struct Scene {
    gateway: Gateway,
    honest: Client,
    memory: MemoryWatch,
    /// The most connections that there were.
    clients: u64,
    quiet: Duration,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new(limits: &str) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let configuration = format!("[limits]\nmax_memory = \"{MAX_MEMORY}KB\"\n{limits}");
        let gateway = Gateway::start(program(), folder.path(), &configuration);
        let mut honest = Client::connect(gateway.port(), &Options::new("honest"));
        honest.subscribe("honest", QoS::AtLeastOnce);
        let memory = MemoryWatch::start(&gateway);
        let mut scene = Scene { gateway, honest, memory, clients: 0, quiet: Duration::ZERO, _folder: folder };
        scene.quiet = scene.slowest_of_most();
        scene
    }

    fn port(&self) -> u16 {
        self.gateway.port()
    }

    /// He gets what he sends; how long all but one in a hundred took at most.
    fn slowest_of_most(&mut self) -> Duration {
        let count = if proof() { 500 } else { 20 };
        let mut times: Vec<Duration> = (0..count).map(|number| self.round_trip(number)).collect();
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }

    fn round_trip(&mut self, number: u32) -> Duration {
        let start = monotonic();
        self.honest.publish("honest", number.to_string(), QoS::AtLeastOnce);
        let message = self.honest.message();
        assert_eq!(message.payload, number.to_string().as_bytes());
        start.elapsed()
    }

    /// The best of three tries, since this machine has others to serve.
    fn slowest_of_tries(&mut self) -> Duration {
        (0..3).map(|_| self.slowest_of_most()).min().unwrap()
    }

    /// What `attack` has done or leaves behind harms nobody. It says how many clients it has.
    fn endures(&mut self, what: &str, clients: u64, mut attack: impl FnMut(u16)) {
        attack(self.port());
        let slowest = self.slowest_of_tries();
        self.holds(what, clients, slowest, self.quiet * 4);
    }

    /// The memory is within its bound with so many clients, and the others' wait within this one.
    fn holds(&mut self, what: &str, clients: u64, slowest: Duration, patience: Duration) {
        self.clients = self.clients.max(clients);
        let bound = 2 * self.clients + MAX_MEMORY;
        let growth = self.memory.growth();
        println!(
            "measured: {what}: {growth} KB more at most (allowed {bound}), 99 % within {slowest:?} (quiet {:?})",
            self.quiet
        );
        assert!(growth <= bound, "{what}: {growth} KB more, allowed are {bound}");
        if proof() {
            assert!(slowest <= patience, "{what}: {slowest:?}, quiet {:?}", self.quiet);
        }
    }
}

#[test]
fn who_says_nothing_or_half_of_it_costs_little() {
    let count = if proof() { 9_900 } else { 1_000 };
    let mut scene = Scene::new("");
    let mut silent = Vec::new();
    scene.endures("connections that say nothing", count, |port| {
        silent = (0..count).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    });
    scene.endures("a byte of CONNECT at a time", count, |_| {
        let connect = connect("slow", Version::V311);
        for at in 0..connect.len() - 1 {
            silent.iter_mut().step_by(10).for_each(|socket| drop(socket.write(&connect[at..=at])));
        }
    });
    drop(silent);
    let mut halves = Vec::new();
    scene.endures("halves of large packets", count, |port| {
        halves = (0..200)
            // Once the memory is taken, nobody new is let in.
            .filter_map(|number| Client::try_connect(port, &Options::new(&format!("half-{number}"))).ok())
            .map(|mut client| {
                // A PUBLISH of 250,000 bytes of which half comes.
                let mut bytes = vec![0x30, 0x90, 0xA1, 0x0F, 0, 1, b't'];
                bytes.resize(125_000, b'x');
                client.socket().set_nonblocking(true).unwrap();
                let _ = client.socket().write(&bytes);
                client
            })
            .collect();
    });
}

#[test]
fn who_does_not_listen_is_let_go_or_loses_what_he_may() {
    let mut scene = Scene::new("");
    let mut deaf = Vec::new();
    scene.endures("readers who do not read", 50, |port| {
        deaf = (0..40)
            .map(|number| {
                let mut client = Client::connect(port, &Options::new(&format!("deaf-{number}")));
                client.subscribe("flood/#", [QoS::AtMostOnce, QoS::AtLeastOnce][number % 2]);
                client
            })
            .collect();
        let mut loud = Client::connect(port, &Options::new("loud"));
        for _ in 0..3_000 {
            loud.publish("flood/x", vec![b'x'; 10_000], QoS::AtMostOnce);
        }
        for _ in 0..500 {
            loud.publish_acknowledged("flood/x", vec![b'x'; 10_000]);
        }
    });
}

#[test]
fn topics_and_filters_of_any_shape_are_endured() {
    let mut scene = Scene::new("");
    let bomb = "/".repeat(65_535);
    let plus = vec!["+"; 32_768].join("/");
    scene.endures("topics and filters of 65,535 bytes", 4, |port| {
        let mut wisher = Client::connect(port, &Options::new("wisher"));
        wisher.send(&Packet::Subscribe(many(vec![plus.clone(), "/#".into()])));
        match wisher.next() {
            Some(Packet::SubAck(answer)) => {
                assert!(answer.reasons[0].is_error() && !answer.reasons[1].is_error())
            }
            other => panic!("{other:?} in place of SUBACK"),
        }
        let mut bomber = Client::connect(port, &Options::new("bomber"));
        bomber.publish(&bomb, "boom", QoS::AtLeastOnce);
        assert!(matches!(bomber.next(), Some(Packet::PubAck(_))), "it has too many levels, and is withheld");
        // As many as may be, and as long.
        let deep = format!("/{}", vec!["x".repeat(510); 126].join("/"));
        let mut bomber = Client::connect(port, &Options::new("bomber"));
        for number in 0..100 {
            bomber.publish_acknowledged(&deep, "boom");
            bomber.publish_retained(&format!("/{number}{}", &deep[..64_000]));
        }
    });
    scene.endures("everybody wants everything", 120, |port| {
        let mut all: Vec<Client> = (0..100)
            .map(|number| {
                let mut client = Client::connect(port, &Options::new(&format!("all-{number}")));
                ["#", "+/#", "+/+/#", "a/#", "a/+/c"]
                    .iter()
                    .for_each(|f| client.subscribe(f, QoS::AtLeastOnce));
                client
            })
            .collect();
        let mut loud = Client::connect(port, &Options::new("loud"));
        for _ in 0..200 {
            loud.publish_acknowledged("a/b/c", vec![b'x'; 1_000]);
        }
        all.truncate(0);
    });
    scene.endures("100,000 subscriptions", 120, |port| {
        let clients = if proof() { 10 } else { 2 };
        let mut all = Vec::new();
        for number in 0..clients {
            let mut client = Client::connect(port, &Options::new(&format!("many-{number}")));
            for hundred in 0..100 {
                subscribe_hundred(&mut client, number, hundred);
            }
            all.push(client);
        }
    });
}

#[test]
fn a_packet_of_the_limit_is_taken_and_one_byte_more_is_not() {
    let mut scene = Scene::new("max_packet_size = \"20KB\"\n");
    scene.endures("packets at the limit and beyond", 4, |port| {
        let v5 = |id: &str| Options { version: Version::V5, ..Options::new(id) };
        let mut reader = Client::connect(port, &v5("reader"));
        reader.subscribe("size", QoS::AtLeastOnce);
        // Header, length of two bytes or three, topic, packet id, properties.
        let payload = 20_000 - (1 + 3 + 2 + 4 + 2 + 1);
        let mut fits = Client::connect(port, &v5("fits"));
        fits.publish_acknowledged("size", vec![b'x'; payload]);
        assert_eq!(reader.message().payload.len(), payload);
        let mut over = Client::connect(port, &v5("over"));
        over.publish("size", vec![b'x'; payload + 1], QoS::AtLeastOnce);
        match over.next() {
            Some(Packet::Disconnect(told)) => assert_eq!(told.reason, Reason::PacketTooLarge),
            other => panic!("{other:?} in place of DISCONNECT"),
        }
        assert!(over.next().is_none(), "the connection is closed");
    });
}

fn subscribe_hundred(client: &mut Client, number: u32, hundred: u32) {
    let filters = (0..100).map(|of| format!("many/{number}/{hundred}/{of}/x")).collect();
    client.send(&Packet::Subscribe(many(filters)));
    match client.next() {
        Some(Packet::SubAck(_)) => {}
        other => panic!("{other:?} in place of SUBACK"),
    }
}

pub(super) fn many(filters: Vec<String>) -> Subscribe {
    let options = SubscriptionOptions {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::DoNotSend,
    };
    let filters = filters.into_iter().map(|filter| Subscription { filter: filter.into(), options }).collect();
    Subscribe { packet_id: 1, properties: Properties::new(), filters }
}

pub(super) fn connect(id: &str, version: Version) -> Vec<u8> {
    let connect = Connect {
        version,
        clean_start: true,
        keep_alive: 0,
        client_id: id.into(),
        will: None,
        username: None,
        password: None,
        properties: Properties::new(),
    };
    let mut bytes = Vec::new();
    encode(&Packet::Connect(Box::new(connect)), version, &mut bytes).unwrap();
    bytes
}

/// KB.
const MAX_MEMORY: u64 = 16_000;
