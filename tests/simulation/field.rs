//! The broker's turn: what it hears from its clients, the bridge and the store, and what comes of it.
//!
//! What is on a link when it breaks is lost; a deaf one loses all that is sent on it before that, too.

use super::world::{CLIENTS, World, lock};
use crate::broker::tests::speech;
use crate::broker::{Effect, Event, Peer, Terms, Trust};
use crate::codec::Packet;

impl World {
    /// The broker hears what the store has said meanwhile, or a part of it.
    pub(super) fn tell(&mut self) {
        let mut events = Vec::new();
        let mut tickets = lock(&self.outside.tickets);
        let some = self.random.below(tickets.len() + 1);
        events.extend(tickets.drain(..some).next_back().map(|through| Event::Committed { through }));
        drop(tickets);
        let mut rows = lock(&self.outside.rows);
        let some = self.random.below(rows.len() + 1);
        events.extend(rows.drain(..some).map(Event::Rows));
        drop(rows);
        self.handle(events);
    }

    /// All of it.
    pub(super) fn tell_all(&mut self) {
        let mut events = Vec::new();
        events.extend(
            lock(&self.outside.tickets).drain(..).next_back().map(|through| Event::Committed { through }),
        );
        events.extend(lock(&self.outside.rows).drain(..).map(Event::Rows));
        self.handle(events);
    }

    pub(super) fn handle(&mut self, mut events: Vec<Event>) {
        self.promises.begin(&events);
        if self.random.below(2) == 0 {
            let last = events.iter().rev().find_map(|event| match event {
                Event::Packet { connection, .. } => Some(*connection),
                _ => None,
            });
            events.extend(last.map(|connection| Event::Drained { connection }));
        }
        for event in &events {
            if let Event::Packet { connection, packet } = event {
                let (slot, packet) = (connection.slot, packet.clone());
                if let Packet::Publish(publish) = &packet {
                    self.books.see(&publish.payload);
                }
                self.note(|| format!("{slot} > {packet:?}"));
            }
        }
        let reading = self.process().reading.clone();
        for event in &events {
            if let Event::Rows(rows) = event {
                self.process().reading.remove(&rows.reader);
            }
        }
        let (now, mut effects) = (self.now, Vec::new());
        self.process().broker.handle(&mut events, now, &mut effects);
        let (mut writes, mut hurry) = (Vec::new(), false);
        for effect in effects {
            self.note(|| speech::effect(&effect).unwrap_or_default());
            match effect {
                Effect::Write(write) => {
                    self.on_write(&write);
                    writes.push(write);
                }
                Effect::Hurry => hurry = true,
                Effect::Read { reader, after, limit } => {
                    assert!(limit.rows > 0, "a question has an answer");
                    assert!(self.process().reading.insert(reader), "{reader:?} has one question open");
                    let outside = self.outside.clone();
                    let reply = move |rows| lock(&outside.rows).push_back(rows);
                    self.process().handle.read(reader, after, limit, reply);
                }
                effect => self.on_effect(effect),
            }
        }
        if !writes.is_empty() || hurry {
            self.process().handle.write(writes, hurry);
        }
        self.gather();
        self.check_bounds(&reading);
        for client in self.clients.iter_mut().filter(|client| client.leaving) {
            client.go();
        }
    }

    pub(super) fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Send { connection, packet } if connection.slot == CLIENTS => self.on_port(packet),
            Effect::Close { connection } if connection.slot == CLIENTS => {}
            Effect::Send { connection, packet } => self.on_packet(connection, packet),
            Effect::Deliver(copy) => self.on_copy(&copy),
            Effect::Close { connection } => {
                let client = &mut self.clients[connection.slot as usize];
                if client.connection() == connection {
                    client.go();
                }
            }
            _ => {}
        }
    }

    pub(super) fn publish(&mut self, slot: usize) {
        let mut events = Vec::new();
        for _ in 0..=self.random.below(4) {
            let client = &mut self.clients[slot];
            if client.is_open() && client.unanswered() < 15 {
                let packet = client.publish(&mut self.random);
                self.send(slot, packet, &mut events);
            }
        }
        self.handle(events);
    }

    pub(super) fn answer(&mut self, slot: usize) {
        let mut events = Vec::new();
        self.flush(slot, &mut events);
        for _ in 0..=self.random.below(3) {
            if let Some(packet) = self.clients[slot].next_answer() {
                self.send(slot, packet, &mut events);
            }
        }
        self.handle(events);
    }

    /// What a deaf link is sent is lost as well, else the broker hears it.
    pub(super) fn send(&mut self, slot: usize, packet: Packet, events: &mut Vec<Event>) {
        self.flush(slot, events);
        let client = &self.clients[slot];
        if !client.deaf {
            events.push(Event::Packet { connection: client.connection(), packet });
        }
    }

    /// What the client said at once leaves before what it says later.
    pub(super) fn flush(&mut self, slot: usize, events: &mut Vec<Event>) {
        let connection = self.clients[slot].connection();
        let replies = std::mem::take(&mut self.clients[slot].replies);
        events.extend(replies.into_iter().map(|packet| Event::Packet { connection, packet }));
    }

    pub(super) fn come(&mut self, slot: usize) {
        let mut events = Vec::new();
        if let Some(packet) = self.clients[slot].come(&mut self.random) {
            let connection = self.clients[slot].connection();
            let peer = Peer { name: String::new(), trust: Trust::Anonymous, terms: Terms::default() };
            events.push(Event::Opened { connection, peer });
            events.push(Event::Packet { connection, packet });
        }
        self.handle(events);
    }

    pub(super) fn go(&mut self, slot: usize) {
        let client = &mut self.clients[slot];
        if client.is_here() {
            // What the broker sends before it hears of the loss is lost on the way.
            (client.deaf, client.leaving) = (true, true);
            let connection = client.connection();
            self.handle(vec![Event::Lost { connection }]);
        }
    }

    /// The bridge's own client of the broker.
    pub(super) fn open_port(&mut self) {
        self.port.generation += 1;
        self.commands.clear();
        let connection = self.port;
        let trust = Trust::Port { user: Some("bridge:cloud".into()), credit: 0, waits: false };
        let peer = Peer { name: "port".into(), trust, terms: Terms::default() };
        let packet = speech::packet("connect bridge:cloud v5 clean");
        self.handle(vec![Event::Opened { connection, peer }, Event::Packet { connection, packet }]);
    }

    pub(super) fn publish_commands(&mut self) {
        let mut events = Vec::new();
        while self.commands.len() < 8 {
            let Some(arrived) = self.process().bridge.arrived() else { break };
            assert_eq!(arrived.topics, ["t/9"], "a command goes where its route says");
            self.last_command = self.last_command % 500 + 1;
            let payload = String::from_utf8_lossy(&arrived.payload).into_owned();
            let packet = speech::packet(&format!("publish t/9 {payload} q1 id={}", self.last_command));
            self.commands.insert(self.last_command, arrived);
            events.push(Event::Packet { connection: self.port, packet });
        }
        self.handle(events);
    }

    pub(super) fn on_port(&mut self, packet: Packet) {
        if let Packet::PubAck(ack) = packet {
            assert!(!ack.reason.is_error(), "a command is refused: {ack:?}");
            let arrived = self.commands.remove(&ack.packet_id).expect("a command is answered once");
            self.process().bridge.took(&arrived);
        }
    }
}
