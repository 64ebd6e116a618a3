//! Plays a session against one server, step by step.
//!
//! After each step a marker goes to every client that is connected, at QoS 2, which no message overtakes;
//! when it has come, so has everything before. So nothing waits for a clock.

use tidegate::codec::{QoS, Version};

use crate::event::Event;
use crate::peer::Peer;
use crate::session::{Act, Answers, Begin, CLIENTS, Post, Session, TOPICS};

/// What each client got in each step.
pub(crate) type Record = Vec<[Vec<Event>; CLIENTS]>;

/// Plays it; `name` is used nowhere else on that server.
pub(crate) fn play(port: u16, name: &str, session: &Session) -> Record {
    let mut stage = Stage::new(port, name, session.versions);
    let mut record = Vec::new();
    for step in &session.steps {
        let late = stage.act(step.client, &step.act);
        stage.settle();
        let mut got: [Vec<Event>; CLIENTS] = Default::default();
        got[step.client] = late;
        for (client, peer) in stage.peers.iter_mut().enumerate() {
            got[client].extend(peer.iter_mut().flat_map(|peer| std::mem::take(&mut peer.got)));
        }
        record.push(got);
    }
    stage.clear();
    record
}

struct Stage {
    port: u16,
    name: String,
    prefix: String,
    versions: [Version; CLIENTS],
    peers: [Option<Peer>; CLIENTS],
    /// What each client has started and not finished.
    started: [Vec<Started>; CLIENTS],
    next_id: u16,
    /// Publishes the markers.
    marker: Peer,
}

/// A QoS 2 exchange of a client that its PUBREL has not ended.
struct Started {
    packet_id: u16,
    post: Post,
    /// Whether its PUBREC was heard.
    heard: bool,
}

const TRANSIENT: Begin =
    Begin { clean: true, expiry: None, will: None, will_delay: None, answers: Answers::All };

impl Stage {
    fn new(port: u16, name: &str, versions: [Version; CLIENTS]) -> Stage {
        let prefix = format!("{name}/");
        let marker = Peer::connect(port, &format!("{name}-marker"), &prefix, Version::V5, &TRANSIENT);
        let (peers, started) = Default::default();
        Stage { port, name: name.to_owned(), prefix, versions, peers, started, next_id: STARTED_FROM, marker }
    }

    fn connect(&self, client: usize, begin: &Begin) -> Peer {
        let id = format!("{}-{client}", self.name);
        Peer::connect(self.port, &id, &self.prefix, self.versions[client], begin)
    }

    /// [MQTT5-4.4.0-1] [MQTT311-4.4.0-1] Sends again what the connection before has not heard the answer to.
    fn resume(&mut self, client: usize) {
        let (Some(peer), started) = (&mut self.peers[client], &mut self.started[client]) else { return };
        if !peer.session_present {
            started.clear();
        }
        started.retain_mut(|started| {
            if started.heard {
                peer.finish(started.packet_id);
                return false;
            }
            started.heard = peer.start(&started.post, started.packet_id, true);
            started.heard
        });
    }

    fn start(&mut self, client: usize, post: &Post, lost: bool) -> Vec<Event> {
        let Some(peer) = &mut self.peers[client] else { return Vec::new() };
        let packet_id = self.next_id;
        self.next_id += 1;
        if peer.start(post, packet_id, false) {
            self.started[client].push(Started { packet_id, post: post.clone(), heard: !lost });
        }
        let peer = if lost { self.peers[client].take() } else { None };
        peer.map(Peer::cut).unwrap_or_default()
    }

    /// Gives what came to a connection that ended.
    fn act(&mut self, client: usize, act: &Act) -> Vec<Event> {
        if let Act::Connect(begin) = act {
            let peer = self.connect(client, begin);
            let old = self.peers[client].replace(peer);
            let late = old.map(Peer::end).unwrap_or_default();
            self.resume(client);
            return late;
        }
        if let Act::Doze(begin) = act {
            let peer = Peer::connect_drowsy(
                self.port,
                &format!("{}-{client}", self.name),
                &self.prefix,
                self.versions[client],
                begin,
            );
            let mut late = self.peers[client].take().map(Peer::end).unwrap_or_default();
            late.extend(peer.end());
            return late;
        }
        match (act, &mut self.peers[client]) {
            (Act::Subscribe { filters, identifier }, Some(peer)) => peer.subscribe(filters, *identifier),
            (Act::Unsubscribe { filters }, Some(peer)) => peer.unsubscribe(filters),
            (Act::Publish(post), Some(peer)) => peer.publish(post),
            (Act::Start { post, lost }, Some(_)) => return self.start(client, post, *lost),
            (Act::Finish, Some(peer)) => {
                self.started[client].drain(..).for_each(|started| peer.finish(started.packet_id));
            }
            (Act::Leave { with_will }, peer @ Some(_)) => {
                return peer.take().map(|peer| peer.leave(*with_will)).unwrap_or_default();
            }
            (Act::Cut, peer @ Some(_)) => return peer.take().map(Peer::cut).unwrap_or_default(),
            _ => return Vec::new(),
        }
        if let Some(peer) = &mut self.peers[client] {
            peer.ping();
        }
        Vec::new()
    }

    fn settle(&mut self) {
        for peer in self.peers.iter_mut().flatten() {
            let marked = peer.marked();
            self.marker.publish_marker(peer.mark());
            peer.settle(marked + 1);
        }
    }

    /// Leaves nothing behind on the server.
    fn clear(mut self) {
        for client in 0..CLIENTS {
            self.connect(client, &TRANSIENT).leave(false);
        }
        for topic in TOPICS {
            self.marker.publish(&Post {
                topic: topic.to_owned(),
                qos: QoS::AtLeastOnce,
                retain: true,
                payload: String::new(),
                expiry: None,
                pair: None,
                alias: false,
            });
        }
        self.marker.leave(false);
    }
}

/// Packet ids of what is started lie beyond those of everything else.
const STARTED_FROM: u16 = 30_000;
