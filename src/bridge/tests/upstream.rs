//! A broker of the test: a script says how it answers, and everything that it saw is written down.
//!
//! It speaks through the appliance's own codec, from the server's side.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::bridge::dialer::Stream;
use crate::codec::{
    Ack, ConnAck, Connect, Decoder, Packet, Properties, Publish, QoS, Reason, Side, SubAck, UnsubAck,
    Version, encode,
};

/// How the upstream of a test behaves. `number` counts connections from 1.
pub(super) trait Play: Send + 'static {
    /// CONNECT came.
    fn connect(&mut self, _number: usize, _connect: &Connect) -> Vec<Step> {
        vec![Step::Send(connack(false, Reason::Success))]
    }

    /// PUBLISH came.
    fn publish(&mut self, _number: usize, publish: &Publish) -> Vec<Step> {
        if publish.qos == QoS::AtMostOnce { vec![] } else { vec![Step::Send(puback(publish.packet_id))] }
    }

    /// SUBSCRIBE came; all its filters are granted.
    fn subscribe(&mut self, _number: usize, packet_id: u16) -> Vec<Step> {
        vec![Step::Send(suback(packet_id, Reason::GrantedQoS1))]
    }

    /// PUBACK came.
    fn acknowledged(&mut self, _number: usize, _packet_id: u16) -> Vec<Step> {
        vec![]
    }

    /// Nothing came for a moment.
    fn idle(&mut self, _number: usize) -> Vec<Step> {
        vec![]
    }
}

/// What the upstream does.
pub(super) enum Step {
    Send(Packet),
    /// Closes the connection; what was sent before may be lost on its way.
    Cut,
}

/// The plain broker that takes everything.
pub(super) struct Polite;

impl Play for Polite {}

/// What an upstream saw.
#[derive(Debug, Default)]
pub(super) struct Saw {
    pub(super) connects: Vec<Connect>,
    pub(super) publishes: Vec<Publish>,
    pub(super) filters: Vec<String>,
    /// Filters of UNSUBSCRIBEs.
    pub(super) unsubscribed: Vec<String>,
    /// Packet ids of our PUBLISHes that the bridge acknowledged.
    pub(super) acknowledged: Vec<u16>,
    /// Payloads whose PUBACK was written.
    pub(super) confirmed: BTreeSet<Bytes>,
    /// The most messages that were ever without PUBACK on one connection.
    pub(super) most_open: usize,
    /// Bytes of the application, beyond TLS.
    pub(super) bytes: usize,
    /// DISCONNECTs.
    pub(super) farewells: usize,
}

pub(super) struct Upstream {
    pub(super) port: u16,
    saw: Arc<Mutex<Saw>>,
    changed: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Upstream {
    pub(super) async fn start(play: impl Play) -> Upstream {
        Upstream::start_over(play, None).await
    }

    pub(super) async fn start_over(play: impl Play, tls: Option<TlsAcceptor>) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let saw = Arc::new(Mutex::new(Saw::default()));
        let changed = watch::channel(0).0;
        let task = tokio::spawn(serve(listener, tls, play, saw.clone(), changed.clone()));
        Upstream { port, saw, changed, task }
    }

    pub(super) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub(super) fn saw(&self) -> MutexGuard<'_, Saw> {
        self.saw.lock().unwrap()
    }

    pub(super) fn witness(&self) -> Arc<Mutex<Saw>> {
        self.saw.clone()
    }

    pub(super) async fn until(&self, what: &str, mut is_so: impl FnMut(&Saw) -> bool) {
        let mut changed = self.changed.subscribe();
        let so = changed.wait_for(|_| is_so(&self.saw.lock().unwrap()));
        if timeout(super::PATIENCE, so).await.is_err() {
            let saw = self.saw();
            let (connects, publishes) = (saw.connects.len(), saw.publishes.len());
            panic!("not {what}: {connects} connects, {publishes} publishes, {:?}", saw.acknowledged);
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    mut play: impl Play,
    saw: Arc<Mutex<Saw>>,
    changed: watch::Sender<u64>,
) {
    let mut number = 0;
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        number += 1;
        let stream: Box<dyn Stream> = match &tls {
            None => Box::new(tcp),
            Some(tls) => match tls.accept(tcp).await {
                Ok(stream) => Box::new(stream),
                Err(_) => continue,
            },
        };
        let connection =
            Served { number, version: Version::V5, open: Vec::new(), saw: &saw, changed: &changed };
        connection.run(stream, &mut play).await;
    }
}

struct Served<'a> {
    number: usize,
    version: Version,
    /// Without PUBACK.
    open: Vec<(u16, Bytes)>,
    saw: &'a Mutex<Saw>,
    changed: &'a watch::Sender<u64>,
}

impl Served<'_> {
    async fn run(mut self, mut stream: Box<dyn Stream>, play: &mut impl Play) {
        let mut decoder = Decoder::new(Side::Server, 1 << 20);
        let mut buffer = vec![0; 16 << 10];
        loop {
            let steps = match timeout(IDLE, stream.read(&mut buffer)).await {
                Err(_) => play.idle(self.number),
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(count)) => {
                    self.saw.lock().unwrap().bytes += count;
                    decoder.feed(Bytes::copy_from_slice(&buffer[..count]));
                    let mut steps = Vec::new();
                    while let Some(packet) = decoder.decode().expect("the bridge speaks MQTT") {
                        if let Some(version) = decoder.version() {
                            self.version = version;
                        }
                        steps.extend(self.take(packet, play));
                    }
                    steps
                }
            };
            if self.carry_out(steps, &mut stream).await.is_err() {
                return;
            }
            self.changed.send_modify(|changes| *changes += 1);
        }
    }

    fn take(&mut self, packet: Packet, play: &mut impl Play) -> Vec<Step> {
        let mut saw = self.saw.lock().unwrap();
        match packet {
            Packet::Connect(connect) => {
                saw.connects.push((*connect).clone());
                play.connect(self.number, &connect)
            }
            Packet::Publish(publish) => {
                assert!(!publish.dup || publish.packet_id > 0);
                if publish.packet_id > 0 {
                    let again = self.open.iter().any(|(open, _)| *open == publish.packet_id);
                    assert!(!again, "packet id {} is still open", publish.packet_id);
                    self.open.push((publish.packet_id, publish.payload.clone()));
                }
                saw.most_open = saw.most_open.max(self.open.len());
                let steps = play.publish(self.number, &publish);
                saw.publishes.push(publish);
                steps
            }
            Packet::Subscribe(subscribe) => {
                saw.filters.extend(subscribe.filters.iter().map(|wish| wish.filter.to_string()));
                play.subscribe(self.number, subscribe.packet_id)
            }
            Packet::PubAck(ack) => {
                saw.acknowledged.push(ack.packet_id);
                play.acknowledged(self.number, ack.packet_id)
            }
            Packet::Unsubscribe(unsubscribe) => {
                let reasons = unsubscribe.filters.iter().map(|_| Reason::Success).collect();
                saw.unsubscribed.extend(unsubscribe.filters.iter().map(ToString::to_string));
                let (packet_id, properties) = (unsubscribe.packet_id, Properties::new());
                vec![Step::Send(Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }))]
            }
            Packet::PingReq => vec![Step::Send(Packet::PingResp)],
            Packet::Disconnect(_) => {
                saw.farewells += 1;
                vec![Step::Cut]
            }
            other => panic!("the bridge sends {other:?}"),
        }
    }

    async fn carry_out(&mut self, steps: Vec<Step>, stream: &mut Box<dyn Stream>) -> Result<(), ()> {
        let mut out = Vec::new();
        let mut cut = false;
        for step in steps {
            match step {
                Step::Cut => {
                    cut = true;
                    break;
                }
                Step::Send(packet) => {
                    if let Packet::PubAck(ack) = &packet {
                        let at = self.open.iter().position(|(open, _)| *open == ack.packet_id);
                        if let Some(at) = at {
                            let (_, payload) = self.open.remove(at);
                            self.saw.lock().unwrap().confirmed.insert(payload);
                        }
                    }
                    encode(&packet, self.version, &mut out).unwrap();
                }
            }
        }
        let written = stream.write_all(&out).await;
        let flushed = stream.flush().await;
        if cut {
            // An orderly close or a reset: the bridge must stand both.
            let _ = stream.shutdown().await;
            self.changed.send_modify(|changes| *changes += 1);
        }
        if cut || written.is_err() || flushed.is_err() { Err(()) } else { Ok(()) }
    }
}

pub(super) fn connack(session_present: bool, reason: Reason) -> Packet {
    Packet::ConnAck(ConnAck { session_present, reason, properties: Properties::new() })
}

pub(super) fn puback(packet_id: u16) -> Packet {
    refuse(packet_id, Reason::Success)
}

pub(super) fn refuse(packet_id: u16, reason: Reason) -> Packet {
    Packet::PubAck(Ack { packet_id, reason, properties: Properties::new() })
}

pub(super) fn suback(packet_id: u16, reason: Reason) -> Packet {
    Packet::SubAck(SubAck { packet_id, properties: Properties::new(), reasons: vec![reason] })
}

pub(super) fn message(topic: &str, payload: &str, packet_id: u16) -> Packet {
    let qos = if packet_id == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id,
        properties: Properties::new(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    })
}

const IDLE: Duration = Duration::from_millis(3);
