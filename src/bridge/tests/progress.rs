//! Whether the link is called connected while acknowledgements do not come, on one connection and over many.
//!
//! Time is turned by hand, and nothing happens but what a test does.

use super::config;
use super::shelf::{Leaves, Shelf, reading};
use crate::bridge::{Config, Down, LinkState, Stepped, Supply, Up};
use crate::clock::TURNED;
use crate::codec::Reason;
use crate::record::{Now, ReaderId};
use crate::unstored::{self, Inlet};

const READER: ReaderId = ReaderId(7);
/// Somebody else's, a device's session.
const OTHER: ReaderId = ReaderId(8);
/// What is told of a connection that was given up.
const UNCONFIRMED: Option<&str> = Some("cannot make progress: no acknowledgement came for 30s");

struct Stage {
    shelf: Shelf,
    bridge: Stepped,
}

impl Stage {
    /// With keepalive 20s, so that a connection without an answer is given up after 30s.
    fn parts() -> (Shelf, Config) {
        at(1_000);
        let mut written = config("mqtt://192.0.2.1", 5);
        written.keepalive = "20s".to_owned();
        (Shelf::new(Leaves::AtSettle, Default::default()), written)
    }

    /// With one route.
    fn new(status_topic: Option<&str>) -> Stage {
        let (shelf, mut written) = Stage::parts();
        written.status_topic = status_topic.map(str::to_owned);
        let bridge = Stepped::new(&written, &[READER], shelf.handle.clone());
        Stage { shelf, bridge }
    }

    /// The same with one route, which keeps nothing.
    fn unkept() -> (Stage, Inlet) {
        let (shelf, mut written) = Stage::parts();
        for forward in &mut written.forward {
            forward.store = false;
        }
        let (inlet, outlet) = unstored::queue("cloud/sensors", 10_000);
        let supplies = vec![Supply::Unstored(outlet)];
        let bridge = Stepped::supplied(&written, supplies, shelf.handle.clone());
        (Stage { shelf, bridge }, inlet)
    }

    /// A row waits until its connection is given up, and then a limit of the operator's takes it.
    fn wait_in_vain(&mut self) {
        self.shelf.put(READER, [reading("sensors/a", "x")]);
        self.bridge.connect(false);
        self.sent();
        at(31_000);
        self.ping().unwrap_err();
        self.shelf.state().rows.clear();
        self.bridge.connect(false);
        self.is_shown(LinkState::Stalled, UNCONFIRMED);
    }

    /// Turns until a message goes out: its packet id and topic.
    fn sent(&mut self) -> (u16, String) {
        loop {
            self.turn();
            if let Some(packet) = self.bridge.pass_on(1).pop() {
                let Up::Publish { packet_id, topic, .. } = packet else { panic!("{packet:?}") };
                self.turn();
                return (packet_id, topic);
            }
            std::thread::yield_now();
        }
    }

    fn turn(&mut self) {
        self.bridge.turn(64).unwrap();
    }

    /// Upstream answers a ping, and the bridge looks at the link.
    fn ping(&mut self) -> Result<(), String> {
        self.bridge.hear(Down::Heard);
        self.bridge.turn(64)
    }

    fn acknowledge(&mut self, packet_id: u16, reason: Reason) {
        self.bridge.hear(Down::PubAck { packet_id, reason });
        self.turn();
        self.turn();
    }

    #[track_caller]
    fn is_shown(&self, state: LinkState, reason: Option<&str>) {
        let shown = self.bridge.shown();
        assert_eq!((shown.state, shown.reason.as_deref()), (state, reason));
    }
}

fn at(mono: u64) {
    TURNED.set(Some(Now { mono, wall: 1_800_000_000_000 + mono, ..Now::default() }));
}

#[test]
fn connected_is_never_shown_for_an_uplink_whose_acknowledgements_do_not_progress() {
    let mut stage = Stage::new(None);
    stage.shelf.put(READER, [reading("sensors/a", "x")]);
    stage.bridge.connect(false);
    stage.sent();
    at(10_999);
    stage.ping().unwrap();
    stage.is_shown(LinkState::Connected, None);
    at(11_000);
    stage.ping().unwrap();
    stage.is_shown(LinkState::Stalled, Some("cannot make progress: no acknowledgement came for 10s"));
    at(31_000);
    let given_up = stage.ping().unwrap_err();
    assert_eq!(given_up, "make progress: no acknowledgement came for 30s");
    // It takes the next connection as it took the first: that it answers CONNECT confirms nothing.
    at(32_000);
    stage.bridge.connect(false);
    stage.is_shown(LinkState::Stalled, UNCONFIRMED);
    let (packet_id, _) = stage.sent();
    at(61_000);
    stage.ping().unwrap();
    stage.is_shown(LinkState::Stalled, UNCONFIRMED);
    at(62_000);
    let given_up = stage.ping().unwrap_err();
    assert_eq!(given_up, "make progress: no acknowledgement came for 1m");
    at(63_000);
    stage.bridge.connect(false);
    assert_ne!(stage.bridge.shown().state, LinkState::Connected, "{packet_id}");
    let (packet_id, _) = stage.sent();
    stage.acknowledge(packet_id, Reason::Success);
    stage.is_shown(LinkState::Connected, None);
}

#[test]
fn an_upstream_that_hangs_up_without_an_acknowledgement_is_not_called_connected_for_long() {
    let mut stage = Stage::new(None);
    stage.shelf.put(READER, [reading("sensors/a", "x")]);
    for seconds in [1, 21] {
        at(seconds * 1_000);
        stage.bridge.connect(false);
        stage.sent();
        stage.is_shown(LinkState::Connected, None);
        at(seconds * 1_000 + 6_000);
        stage.ping().unwrap();
        stage.bridge.lose();
    }
    at(40_000);
    stage.bridge.connect(false);
    stage.is_shown(LinkState::Stalled, Some("cannot make progress: no acknowledgement came for 12s"));
}

#[test]
fn a_link_for_which_nothing_waits_any_more_is_connected() {
    let mut stage = Stage::new(None);
    stage.wait_in_vain();
    while stage.bridge.shown().state != LinkState::Connected {
        stage.turn();
        std::thread::yield_now();
    }
    stage.is_shown(LinkState::Connected, None);
}

#[test]
fn a_link_for_which_nothing_waits_is_connected_though_others_commit_without_end() {
    let mut stage = Stage::new(None);
    stage.wait_in_vain();
    // Asked, answered at the latest with the next commit, taken in, and looked at.
    for _ in 0..4 {
        stage.shelf.commit(OTHER, [reading("devices/b", "x")]);
        stage.turn();
    }
    stage.is_shown(LinkState::Connected, None);
}

#[test]
fn connections_that_end_before_the_bridges_own_word_is_acknowledged_leave_nothing_behind() {
    let mut stage = Stage::new(Some("sites/{gateway}/status"));
    for connection in 0..4 {
        at(1_000 + connection * 10_000);
        stage.bridge.connect(false);
        stage.is_shown(LinkState::Connected, None);
        stage.sent();
        at(6_000 + connection * 10_000);
        stage.ping().unwrap();
        stage.bridge.lose();
    }
}

#[test]
fn a_new_connection_confirms_nothing_where_no_route_keeps_its_messages() {
    let (mut stage, inlet) = Stage::unkept();
    stage.bridge.connect(false);
    for seconds in [1, 32] {
        at(seconds * 1_000);
        inlet.put(&reading("sensors/a", "x"));
        stage.sent();
        at(seconds * 1_000 + 30_000);
        stage.ping().unwrap_err();
        at(seconds * 1_000 + 31_000);
        stage.bridge.connect(false);
        assert_eq!(stage.bridge.shown().state, LinkState::Stalled, "{seconds}");
        if seconds == 1 {
            stage.is_shown(LinkState::Stalled, UNCONFIRMED);
        }
    }
    inlet.put(&reading("sensors/a", "x"));
    let (packet_id, _) = stage.sent();
    stage.acknowledge(packet_id, Reason::Success);
    stage.is_shown(LinkState::Connected, None);
}

#[test]
fn where_no_route_keeps_its_messages_the_link_is_connected_after_a_while_without_any() {
    let (mut stage, inlet) = Stage::unkept();
    stage.bridge.connect(false);
    inlet.put(&reading("sensors/a", "x"));
    stage.sent();
    at(31_000);
    stage.ping().unwrap_err();
    at(32_000);
    stage.bridge.connect(false);
    at(41_999);
    stage.ping().unwrap();
    stage.is_shown(LinkState::Stalled, UNCONFIRMED);
    at(42_000);
    stage.ping().unwrap();
    stage.is_shown(LinkState::Connected, None);
}

#[test]
fn that_the_bridges_own_word_is_acknowledged_confirms_nothing_of_what_waits() {
    let mut stage = Stage::new(Some("sites/{gateway}/status"));
    stage.shelf.put(READER, [reading("sensors/a", "x")]);
    for connection in 0..2 {
        at(1_000 + connection * 40_000);
        stage.bridge.connect(false);
        let mut topics = Vec::new();
        while topics.len() < 2 {
            let (packet_id, topic) = stage.sent();
            if topic.ends_with("/status") {
                stage.acknowledge(packet_id, Reason::Success);
            }
            topics.push(topic);
        }
        if connection == 0 {
            stage.is_shown(LinkState::Connected, None);
            at(31_000);
            stage.ping().unwrap_err();
        }
    }
    stage.is_shown(LinkState::Stalled, UNCONFIRMED);
}

#[test]
fn what_upstream_has_refused_is_told_on_the_next_connection_too() {
    let refused = Some(
        "cannot pass on \"sensors/a\": upstream refuses it for now (quota exceeded): see the quotas there",
    );
    let mut stage = Stage::new(None);
    stage.shelf.put(READER, [reading("sensors/a", "x")]);
    stage.bridge.connect(false);
    let (packet_id, _) = stage.sent();
    stage.acknowledge(packet_id, Reason::QuotaExceeded);
    stage.is_shown(LinkState::Connected, refused);
    at(11_000);
    stage.ping().unwrap();
    stage.is_shown(LinkState::Stalled, refused);
    stage.bridge.lose();
    stage.bridge.connect(false);
    stage.is_shown(LinkState::Stalled, refused);
    let (packet_id, _) = stage.sent();
    stage.acknowledge(packet_id, Reason::Success);
    stage.is_shown(LinkState::Connected, None);
}
