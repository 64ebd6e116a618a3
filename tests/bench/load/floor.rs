//! The floor under all brokers: one thread, one poll, topics that are exact or end in `#`, no session and no check.
//!
//! It copies a PUBLISH to the subscribers of its topic and acknowledges it. What a broker costs above that is
//! what being a broker costs. It speaks MQTT 3.1.1 over TCP, at QoS 0 and 1.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use tidegate::codec::{self, Side, Version};

use super::packet::{self, Packet, Publish, decoded, hear};
use super::rows::{Load, Shape};

/// As the bench's command line calls it.
pub(crate) const NAME: &str = "floor";

/// Whether it knows how.
pub(crate) fn can(load: Load) -> bool {
    match load {
        Load::Stream(shape, qos) => qos <= 1 && !matches!(shape, Shape::Filters(_)),
        load => load == Load::Latency,
    }
}

/// Serves clients until it is ended.
pub(crate) fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), LISTENER, Interest::READABLE).unwrap();
    let (mut floor, mut events, mut chunk) = (Floor::default(), Events::with_capacity(1_024), vec![0; READ]);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled.unwrap(),
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&listener, &poll),
                Token(id) => {
                    if event.is_writable() {
                        floor.unsent.push(id);
                    }
                    if event.is_readable() && !floor.read(id, &mut chunk) {
                        floor.forget(id);
                    }
                }
            }
        }
        floor.send();
    }
}

#[derive(Default)]
struct Floor {
    clients: HashMap<usize, Client>,
    last: usize,
    /// Subscribers of each topic, and their QoS.
    exact: HashMap<Vec<u8>, Vec<(usize, u8)>>,
    /// What topics begin with, with the subscriber and its QoS.
    under: Vec<(Vec<u8>, usize, u8)>,
    /// Clients that something is to be sent to.
    unsent: Vec<usize>,
}

struct Client {
    socket: TcpStream,
    /// What has come of a packet whose end has not.
    begun: Vec<u8>,
    out: Vec<u8>,
    /// The packet id that was used last.
    id: u16,
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) {
        while let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(true).unwrap();
            socket.set_nodelay(true).unwrap();
            self.last += 1;
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(self.last), both).unwrap();
            self.clients.insert(self.last, Client { socket, begun: Vec::new(), out: Vec::new(), id: 0 });
        }
    }

    /// Handles what the socket has, to its end; whether it is still open.
    fn read(&mut self, id: usize, chunk: &mut [u8]) -> bool {
        loop {
            let Some(client) = self.clients.get_mut(&id) else { return true };
            let count = match client.socket.read(chunk) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            let mut bytes = std::mem::take(&mut client.begun);
            bytes.extend_from_slice(&chunk[..count]);
            let mut at = 0;
            while let Some((packet, used)) = hear(&bytes[at..], Version::V311).expect("a packet") {
                self.handle(id, &packet);
                at += used;
            }
            bytes.drain(..at);
            let Some(client) = self.clients.get_mut(&id) else { return true };
            client.begun = bytes;
            if count < chunk.len() {
                return true;
            }
        }
    }

    fn handle(&mut self, id: usize, packet: &Packet<'_>) {
        match packet {
            Packet::Publish(publish) => self.publish(id, publish),
            Packet::Rare([CONNECT, ..]) => self.answer(id, &[0x20, 2, 0, 0]),
            Packet::Rare(bytes) => match decoded(Side::Server, bytes, Version::V311).expect("a packet") {
                codec::Packet::Subscribe(subscribe) => self.subscribe(id, &subscribe),
                codec::Packet::PingReq => self.answer(id, &[0xd0, 0]),
                _ => {}
            },
            Packet::Ack(..) | Packet::PingResp => {}
        }
    }

    fn subscribe(&mut self, id: usize, subscribe: &codec::Subscribe) {
        let [high, low] = subscribe.packet_id.to_be_bytes();
        let mut answer = vec![0x90, 2 + subscribe.filters.len() as u8, high, low];
        for subscription in &subscribe.filters {
            let (filter, qos) = (subscription.filter.as_bytes(), (subscription.options.qos as u8).min(1));
            match filter.strip_suffix(b"#") {
                Some(begin) => self.under.push((begin.to_vec(), id, qos)),
                None => self.exact.entry(filter.to_vec()).or_default().push((id, qos)),
            }
            answer.push(qos);
        }
        self.answer(id, &answer);
    }

    fn publish(&mut self, from: usize, publish: &Publish<'_>) {
        if publish.qos > 0 {
            let mut answer = Vec::with_capacity(4);
            packet::answer(&mut answer, packet::PUBACK, publish.id);
            self.answer(from, &answer);
        }
        let exact = self.exact.get(publish.topic).into_iter().flatten().copied();
        let under = self.under.iter().filter(|(begin, ..)| publish.topic.starts_with(begin));
        for (id, qos) in exact.chain(under.map(|(_, id, qos)| (*id, *qos))) {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            mark(&mut self.unsent, id, client);
            client.copy(publish, qos.min(publish.qos));
        }
    }

    fn answer(&mut self, id: usize, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        mark(&mut self.unsent, id, client);
        client.out.extend_from_slice(bytes);
    }

    /// Sends to each what there is for it, in one write where the socket takes it.
    fn send(&mut self) {
        for id in std::mem::take(&mut self.unsent) {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            let mut sent = 0;
            while let Some(rest) = client.out.get(sent..).filter(|rest| !rest.is_empty()) {
                match client.socket.write(rest) {
                    Ok(count) => sent += count,
                    // It is told of as readable when the client has gone, and as writable when there is room.
                    Err(_) => break,
                }
            }
            client.out.drain(..sent);
        }
    }

    fn forget(&mut self, id: usize) {
        self.clients.remove(&id);
        self.exact.values_mut().for_each(|subscribers| subscribers.retain(|(other, _)| *other != id));
        self.under.retain(|(_, other, _)| *other != id);
    }
}

/// Something is to be sent to this client, to whom nothing was before.
fn mark(unsent: &mut Vec<usize>, id: usize, client: &Client) {
    if client.out.is_empty() {
        unsent.push(id);
    }
}

impl Client {
    fn copy(&mut self, publish: &Publish<'_>, qos: u8) {
        let id = if qos > 0 { 2 } else { 0 };
        let mut length = 2 + publish.topic.len() + id + publish.payload.len();
        self.out.push(0x30 | qos << 1);
        while length > 0x7f {
            self.out.push(length as u8 | 0x80);
            length >>= 7;
        }
        self.out.push(length as u8);
        self.out.extend_from_slice(&(publish.topic.len() as u16).to_be_bytes());
        self.out.extend_from_slice(publish.topic);
        if qos > 0 {
            self.id = self.id.checked_add(1).unwrap_or(1);
            self.out.extend_from_slice(&self.id.to_be_bytes());
        }
        self.out.extend_from_slice(publish.payload);
    }
}

const LISTENER: Token = Token(usize::MAX);
const READ: usize = 256 << 10;
const CONNECT: u8 = 0x10;
