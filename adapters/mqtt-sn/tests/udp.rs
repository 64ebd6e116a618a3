//! The adapter over real UDP, with a client that writes its own octets and a broker made of channels.
//!
//! Nothing here sleeps or guesses: each step waits for the datagram or the request that it expects.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;

use adapter_api::{
    Acknowledgement, Delivery, FromPort, Health, Hello, Host, Port, Qos, Refusal, State, ToPort,
};
use adapter_mqtt_sn::{Config, adapter};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// A port as the broker sees it.
struct Client {
    hello: Hello,
    requests: mpsc::Receiver<FromPort>,
    words: mpsc::Sender<ToPort>,
}

impl Client {
    async fn asks(&mut self) -> FromPort {
        self.requests.recv().await.expect("the port is open")
    }

    async fn say(&self, word: ToPort) {
        self.words.send(word).await.expect("the port is open");
    }
}

/// A house of channels.
struct House {
    opened: mpsc::Sender<Client>,
    reports: mpsc::Sender<(String, Health)>,
}

impl Host for House {
    fn open(&self, hello: Hello) -> Port {
        let (sender, requests) = mpsc::channel(8);
        let (words, receiver) = mpsc::channel(8);
        self.opened.try_send(Client { hello, requests, words }).expect("the test is there");
        Port { sender, receiver }
    }

    fn report(&self, path: &str, health: Health) {
        // After the test's end nobody reads the last report.
        let _ = self.reports.try_send((path.into(), health));
    }
}

/// The running adapter and what the test holds of it.
struct Running {
    opened: mpsc::Receiver<Client>,
    reports: mpsc::Receiver<(String, Health)>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(bind: &str) -> Running {
        let config = Config { bind: bind.into(), ..Config::default() };
        let (open, opened) = mpsc::channel(64);
        let (report, reports) = mpsc::channel(64);
        let (stop, stopped) = watch::channel(false);
        let house = Arc::new(House { opened: open, reports: report });
        let task = tokio::spawn(adapter(config.check().unwrap()).run(house, stopped));
        Running { opened, reports, stop, task }
    }

    async fn address(&mut self) -> SocketAddr {
        let (path, health) = self.reports.recv().await.unwrap();
        assert_eq!((path.as_str(), health.state), ("mqtt-sn", State::Up));
        health.counters["address"].as_str().unwrap().parse().unwrap()
    }

    async fn device(&mut self) -> Device {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address().await).await.unwrap();
        Device { socket }
    }

    async fn client(&mut self) -> Client {
        self.opened.recv().await.unwrap()
    }
}

/// A sensor on UDP.
struct Device {
    socket: UdpSocket,
}

impl Device {
    async fn says(&self, octets: &[u8]) {
        self.socket.send(octets).await.unwrap();
    }

    async fn hears(&self, expected: &[u8]) {
        let mut buffer = [0; 1_500];
        let length = self.socket.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], expected);
    }

    /// CONNECT as c1 with a clean session and no keep alive.
    async fn connects(&self, running: &mut Running) -> Client {
        self.says(b"\x08\x04\x04\x01\x00\x00c1").await;
        let client = running.client().await;
        client.say(ToPort::Connected { session_present: false }).await;
        self.hears(b"\x03\x05\x00").await;
        client
    }
}

#[tokio::test]
async fn a_publish_is_acknowledged_only_after_the_broker_holds_it() {
    let mut running = Running::start("127.0.0.1:0");
    let device = running.device().await;
    let mut client = device.connects(&mut running).await;
    assert_eq!(client.hello.client_id, "c1");
    assert!(client.hello.waits && client.hello.clean_start && client.hello.session_expiry == 0);

    device.says(b"\x0b\x0a\x00\x00\x00\x01a/b/c").await;
    device.hears(b"\x07\x0b\x00\x01\x00\x01\x00").await;
    device.says(b"\x0b\x0c\x20\x00\x01\x00\x0723.4").await;
    let FromPort::Publish { id, topic, payload, qos, retain, .. } = client.asks().await else {
        panic!("a publish is expected");
    };
    assert_eq!((topic.as_str(), &payload[..], qos, retain), ("a/b/c", &b"23.4"[..], Qos::AtLeastOnce, false));
    // The answer to this comes first: no PUBACK is on its way.
    device.says(b"\x02\x16").await;
    device.hears(b"\x02\x17").await;
    client.say(ToPort::Published(Acknowledgement { id, result: Ok(()) })).await;
    device.hears(b"\x07\x0d\x00\x01\x00\x07\x00").await;
}

#[tokio::test]
async fn a_wildcard_subscription_is_served_with_credit_for_a_few_messages() {
    let mut running = Running::start("127.0.0.1:0");
    let device = running.device().await;
    let mut client = device.connects(&mut running).await;
    assert_eq!(client.hello.credit, 16);

    device.says(b"\x08\x12\x20\x00\x09a/#").await;
    let FromPort::Subscribe { id, filter, qos } = client.asks().await else {
        panic!("a subscribe is expected");
    };
    assert_eq!((filter.as_str(), qos), ("a/#", Qos::AtLeastOnce));
    client.say(ToPort::Subscribed { id, result: Ok(qos) }).await;
    device.hears(b"\x08\x13\x20\x00\x00\x00\x09\x00").await;

    let delivery = Delivery {
        id: 5,
        topic: "a/b".into(),
        payload: "hi".into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
    };
    client.say(ToPort::Message(delivery)).await;
    device.hears(b"\x09\x0a\x00\x01\x00\x01a/b").await;
    device.says(b"\x07\x0b\x00\x01\x00\x01\x00").await;
    device.hears(b"\x09\x0c\x20\x00\x01\x00\x05hi").await;
    device.says(b"\x07\x0d\x00\x01\x00\x05\x00").await;
    assert_eq!(client.asks().await, FromPort::Acknowledge { id: 5 });
    assert_eq!(client.asks().await, FromPort::Grant(1));
}

#[tokio::test]
async fn a_goodbye_closes_the_port_and_the_next_one_opens_after_it() {
    let mut running = Running::start("127.0.0.1:0");
    let device = running.device().await;
    let mut first = device.connects(&mut running).await;
    device.says(b"\x02\x18").await;
    device.hears(b"\x02\x18").await;
    device.says(b"\x08\x04\x04\x01\x00\x00c1").await;
    assert_eq!(first.asks().await, FromPort::Close);
    assert!(running.opened.try_recv().is_err(), "the broker has not closed the first port yet");
    drop(first);
    let second = running.client().await;
    second.say(ToPort::Connected { session_present: false }).await;
    device.hears(b"\x03\x05\x00").await;
}

#[tokio::test]
async fn a_lost_client_s_port_is_dropped_without_a_close() {
    let mut running = Running::start("127.0.0.1:0");
    let device = running.device().await;
    let mut lost = device.connects(&mut running).await;
    // Another client speaks from the address now.
    device.says(b"\x08\x04\x04\x01\x00\x00c2").await;
    assert_eq!(running.client().await.hello.client_id, "c2");
    assert_eq!(lost.requests.recv().await, None);
}

#[tokio::test]
async fn a_broker_that_ends_a_session_ends_it_for_the_device() {
    let mut running = Running::start("127.0.0.1:0");
    let device = running.device().await;
    let client = device.connects(&mut running).await;
    client.say(ToPort::Closed(Refusal::TakenOver)).await;
    device.hears(b"\x02\x18").await;
    device.says(b"\x02\x16").await;
    device.hears(b"\x02\x18").await;
}

#[tokio::test]
async fn at_the_end_devices_are_told_and_ports_closed() {
    let mut running = Running::start("127.0.0.1:0");
    let device = running.device().await;
    let mut client = device.connects(&mut running).await;
    running.stop.send(true).unwrap();
    device.hears(b"\x02\x18").await;
    assert_eq!(client.asks().await, FromPort::Close);
    drop(client);
    running.task.await.unwrap();
}

#[tokio::test]
async fn a_datagram_is_too_long_from_the_first_octet_beyond_the_limit() {
    let mut running = Running::start("127.0.0.1:0");
    let device = running.device().await;
    for octets in [1_400, 1_401, 1_402, 60_000] {
        // As long as it says; of a type that is reserved.
        let long = [&[1][..], &u16::try_from(octets).unwrap().to_be_bytes(), &[0x03]].concat();
        device.says(&[long, vec![0; octets - 4]].concat()).await;
    }
    // Who is answered was heard after them.
    drop(device.connects(&mut running).await);
    running.stop.send(true).unwrap();
    running.task.await.unwrap();
    let mut last = None;
    while let Ok((_, health)) = running.reports.try_recv() {
        last = Some(health.counters);
    }
    let counters = last.unwrap();
    assert_eq!((&counters["ignored_too_large"], &counters["ignored_reserved"]), (&3.into(), &1.into()));
}

#[tokio::test]
async fn a_port_that_is_taken_is_reported_and_does_not_end_the_adapter() {
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut running = Running::start(&other.local_addr().unwrap().to_string());
    let (path, health) = running.reports.recv().await.unwrap();
    assert_eq!((path.as_str(), health.state), ("mqtt-sn", State::Down));
    assert!(health.reason.unwrap().starts_with("cannot bind 127.0.0.1:"));
    running.stop.send(true).unwrap();
    running.task.await.unwrap();
}

#[tokio::test]
async fn a_flood_at_qos_0_is_dropped_and_never_the_rest() {
    let mut running = Running::start("127.0.0.1:0");
    let device = running.device().await;
    let mut client = device.connects(&mut running).await;
    // The broker reads nothing: its queue of 8 and the adapter's fill up, and the adapter serves on.
    for _ in 0..200 {
        device.says(b"\x09\x0c\x02tt\x00\x00hi").await;
        device.says(b"\x02\x16").await;
        device.hears(b"\x02\x17").await;
    }
    device.says(b"\x09\x0c\x22tt\x00\x07hi").await;
    device.says(b"\x02\x16").await;
    device.hears(b"\x02\x17").await;
    let mut taken = 0;
    let id = loop {
        match client.asks().await {
            FromPort::Publish { qos: Qos::AtMostOnce, .. } => taken += 1,
            FromPort::Publish { id, .. } => break id,
            other => panic!("{other:?}"),
        }
    };
    assert!((8..200).contains(&taken), "{taken}");
    client.say(ToPort::Published(Acknowledgement { id, result: Ok(()) })).await;
    device.hears(b"\x07\x0dtt\x00\x07\x00").await;
}
