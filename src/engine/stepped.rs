//! An engine that turns when the test says so: what was written before a turn is there in it.
//!
//! Its clients come over a Unix socket, where the kernel hands bytes over at once. Nobody serves its store.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use mio::Events;
use tempfile::TempDir;

use super::testing::{Client, connect, parts, subscribe};
use super::turn::Engine;
use super::{Input, Inputs, Parts};
use crate::broker::Effect;
use crate::codec::{Packet, QoS, Version};
use crate::listener::Config;
use crate::record::Write;
use crate::store::{Ask, Handle};

/// The engine.
pub(super) struct Stepped {
    pub(super) engine: Engine,
    polled: Events,
    effects: Vec<Effect>,
    path: PathBuf,
    /// What it needs to stand.
    _kept: (TempDir, Inputs, crate::store::Inbox),
}

impl Stepped {
    /// One that has not turned yet.
    pub(super) fn start(arrange: impl FnOnce(&mut Parts)) -> Stepped {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt.sock");
        let bind = format!("unix:{}", path.display());
        let listener = Config { bind, ..Config::default() }.check().unwrap();
        let (store, asked) = Handle::channel();
        let (mut parts, inputs) = parts(store, listener);
        // A turn in which nothing comes ends all the same.
        parts.heartbeat.every = Some(Duration::from_millis(1));
        arrange(&mut parts);
        Stepped {
            engine: Engine::new(parts).unwrap(),
            polled: Events::with_capacity(1_024),
            effects: Vec::new(),
            path,
            _kept: (folder, inputs, asked),
        }
    }

    /// One turn.
    pub(super) fn turn(&mut self) {
        assert!(self.engine.turn(&mut self.polled, &mut self.effects).unwrap());
    }

    /// Turns until the condition holds, which takes no more turns than that.
    pub(super) fn turn_until(&mut self, most: usize, mut condition: impl FnMut(&mut Engine) -> bool) {
        let mut turns = 0;
        while !condition(&mut self.engine) {
            assert!(turns < most, "not in {turns} turns");
            self.turn();
            turns += 1;
        }
    }

    /// A stream that says nothing.
    pub(super) fn open(&self) -> Client<UnixStream> {
        self.open_in(Version::V5)
    }

    /// The same, of a client of another version.
    pub(super) fn open_in(&self, version: Version) -> Client<UnixStream> {
        Client::over(UnixStream::connect(&self.path).unwrap(), version)
    }

    /// What the store was given since this was asked last, and whether to hurry with it.
    pub(super) fn written(&self) -> Vec<(Vec<Write>, bool)> {
        // Nothing is waited for.
        let asked = self._kept.2.take(Some(Duration::ZERO));
        let written = asked.into_iter().filter_map(|ask| match ask {
            Ask::Writes { batch, hurry } => Some((batch, hurry)),
            _ => None,
        });
        written.collect()
    }

    /// A client that has come in.
    pub(super) fn connect(&mut self, client_id: &str) -> Client<UnixStream> {
        self.greet(&connect(Version::V5, client_id))
    }

    /// The same with a CONNECT of its own.
    pub(super) fn greet(&mut self, hello: &Packet) -> Client<UnixStream> {
        self.greet_in(Version::V5, hello)
    }

    /// The same in another version.
    pub(super) fn greet_in(&mut self, version: Version, hello: &Packet) -> Client<UnixStream> {
        let mut client = self.open_in(version);
        client.send(hello);
        assert!(matches!(self.answer(&mut client), Packet::ConnAck(ack) if !ack.reason.is_error()));
        client
    }

    /// Clients that have subscribed.
    pub(super) fn readers(&mut self, count: usize, filter: &str, qos: QoS) -> Vec<Client<UnixStream>> {
        (0..count).map(|number| self.reader(&format!("reader-{number}"), filter, qos)).collect()
    }

    /// One of them.
    pub(super) fn reader(&mut self, client_id: &str, filter: &str, qos: QoS) -> Client<UnixStream> {
        let mut client = self.connect(client_id);
        client.send(&subscribe(filter, qos));
        assert!(matches!(self.answer(&mut client), Packet::SubAck(_)));
        client
    }

    /// What another thread says.
    pub(super) fn say(&self, input: Input) {
        self._kept.1.send_blocking(input).unwrap();
    }

    /// What a client is answered, alone.
    pub(super) fn answer(&mut self, client: &mut Client<UnixStream>) -> Packet {
        let mut answers = Vec::new();
        self.turn_until(20, |_| {
            answers = client.take_now();
            !answers.is_empty()
        });
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }
}
