//! Up: completeness, order, window, and what upstream may do to them.
//!
//! Links are cut at random, with messages sent and not acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::host::House;
use super::shelf::{Leaves, Shelf, reading};
use super::upstream::{Play, Polite, Saw, Step, Upstream, connack, puback, refuse};
use super::{Running, config, forward, pace};
use crate::bridge::{Config, Down, LinkState, Stepped, Supply, Up};
use crate::broker::tests::random::Random;
use crate::codec::{ConnAck, Connect, Decoder, Packet, Properties, Property, Publish, QoS, Reason, Side};
use crate::record::{DropReason, Message, ReaderId};
use crate::unstored;

const READER: ReaderId = ReaderId(7);

/// Cuts the connection at random with messages unacknowledged, answers out of order, and keeps or forgets
/// the session at random.
struct Fickle {
    dice: Random,
    open: Vec<u16>,
    window: usize,
    /// One in so many messages meets a cut; 0: none does.
    cuts: usize,
}

impl Fickle {
    /// Acknowledges some, in any order.
    fn answer(&mut self, most: usize) -> Vec<Step> {
        let pick = |this: &mut Fickle| {
            let at = this.dice.below(this.open.len());
            Step::Send(puback(this.open.swap_remove(at)))
        };
        (0..most).map(|_| pick(self)).collect()
    }
}

impl Play for Fickle {
    fn connect(&mut self, number: usize, connect: &Connect) -> Vec<Step> {
        self.open.clear();
        let kept = number > 1 && !connect.clean_start && self.dice.below(2) == 0;
        vec![Step::Send(connack(kept, Reason::Success))]
    }

    fn publish(&mut self, _number: usize, publish: &Publish) -> Vec<Step> {
        self.open.push(publish.packet_id);
        if self.cuts > 0 && self.dice.below(self.cuts) == 0 {
            let some = self.dice.below(self.open.len());
            let mut steps = self.answer(some);
            steps.push(Step::Cut);
            return steps;
        }
        if self.open.len() >= self.window || self.dice.below(5) == 0 {
            let some = 1 + self.dice.below(self.open.len());
            return self.answer(some);
        }
        vec![]
    }

    fn idle(&mut self, _number: usize) -> Vec<Step> {
        self.answer(self.open.len())
    }
}

/// What became of the messages.
#[derive(Debug)]
struct Passage {
    lost: usize,
    repeated: usize,
    out_of_order: usize,
    too_early: usize,
    most_open: usize,
    connects: usize,
}

/// Sends `count` messages on two topics through a fickle upstream.
async fn pass(count: u64, protocol: u8, leaves: Leaves, seed: u64) -> Passage {
    let play = Fickle { dice: Random(seed), open: Vec::new(), window: 20, cuts: 60 };
    let upstream = Upstream::start(play).await;
    let shelf = Shelf::new(leaves, upstream.witness());
    let mut config = config(&upstream.url(), protocol);
    config.window = 20;
    // With a receive route the session is kept, so that upstream may say so.
    config.receive = vec![super::receive("commands/#", "{topic}")];
    shelf.put(READER, (0..count / 2).map(numbered));
    let supplies = vec![Supply::Stored(READER)];
    let running = Running::start(&config, supplies, shelf.handle.clone(), &House::new());
    shelf.put(READER, (count / 2..count).map(numbered));
    // A route is in order: when the last has come, all others have had their chance. A store that loses
    // may lose the last, too: then there is another.
    for last in count.. {
        shelf.until_empty().await;
        let connects = upstream.saw().connects.len();
        shelf.put(READER, [numbered(last)]);
        let came = |saw: &Saw| saw.publishes.iter().any(|publish| number_of(publish) >= count);
        upstream.until("the last", |saw| came(saw) || saw.connects.len() > connects).await;
        if came(&upstream.saw()) {
            break;
        }
    }
    shelf.until_empty().await;
    running.stop().await;
    let (saw, state) = (upstream.saw(), shelf.state());
    judge(count, &saw, state.too_early)
}

fn judge(count: u64, saw: &Saw, too_early: usize) -> Passage {
    let (mut seen, mut newest) = (BTreeSet::new(), BTreeMap::new());
    let (mut repeated, mut out_of_order) = (0, 0);
    for publish in &saw.publishes {
        let number = number_of(publish);
        if !seen.insert(number) {
            repeated += 1;
            continue;
        }
        let before = newest.insert(publish.topic.to_string(), number).unwrap_or(0);
        out_of_order += usize::from(before > number);
    }
    Passage {
        lost: (0..count).filter(|number| !seen.contains(number)).count(),
        repeated,
        out_of_order,
        too_early,
        most_open: saw.most_open,
        connects: saw.connects.len(),
    }
}

fn numbered(number: u64) -> Message {
    let topic = if number.is_multiple_of(3) { "sensors/slow" } else { "sensors/fast" };
    reading(topic, number.to_string())
}

fn number_of(publish: &Publish) -> u64 {
    std::str::from_utf8(&publish.payload).unwrap().parse().unwrap()
}

#[tokio::test]
async fn nothing_is_lost_and_order_holds_whatever_upstream_does() {
    let fresh = getrandom::u64().unwrap();
    for (protocol, seed) in [(5, 1), (4, 2), (5, fresh), (4, fresh)] {
        let passage = pass(2_000, protocol, Leaves::AtSettle, seed).await;
        println!("protocol {protocol} seed {seed}: {passage:?}");
        assert_eq!((passage.lost, passage.out_of_order, passage.too_early), (0, 0, 0), "seed {seed}");
        assert!(passage.most_open <= 20, "seed {seed}: {passage:?}");
        assert!(passage.connects > 10, "seed {seed}: the link was cut");
        assert!(passage.repeated <= passage.connects * 20, "seed {seed}: {passage:?}");
    }
}

#[tokio::test]
async fn the_check_sees_a_store_that_moves_its_cursor_at_the_send() {
    let passage = pass(1_000, 5, Leaves::AtRead, 3).await;
    assert!(passage.lost > 0, "{passage:?}");
}

/// Runs until the shelf is empty, and hands the upstream back.
async fn drain(play: impl Play, config: impl FnOnce(&mut Config), rows: Vec<Message>) -> (Upstream, Shelf) {
    let upstream = Upstream::start(play).await;
    let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
    let mut written = super::config(&upstream.url(), 5);
    config(&mut written);
    shelf.put(READER, rows);
    let supplies = vec![Supply::Stored(READER)];
    let running = Running::start(&written, supplies, shelf.handle.clone(), &House::new());
    shelf.until_empty().await;
    running.stop().await;
    (upstream, shelf)
}

#[tokio::test]
async fn a_message_keeps_its_retain_flag_properties_and_what_is_left_of_its_expiry() {
    let properties = Properties::from_list(&[
        Property::PayloadFormatIndicator(1),
        Property::UserProperty("b".into(), "2".into()),
        Property::ContentType("text/plain".into()),
        Property::UserProperty("a".into(), "1".into()),
        Property::ResponseTopic("answers".into()),
        Property::CorrelationData(Bytes::from_static(b"\0\x01")),
        Property::UserProperty("b".into(), "2".into()),
    ]);
    let wall = crate::clock::Clock::start().now().wall;
    let message = Message {
        retain: true,
        properties: properties.clone(),
        expiry: Some(1_000),
        received: wall - 100_000,
        unclocked: false,
        ..reading("sensors/a", "x")
    };
    let gone = Message { expiry: Some(50), received: wall - 100_000, ..reading("sensors/b", "late") };
    let (upstream, shelf) = drain(Polite, |_| {}, vec![message, gone]).await;
    let saw = upstream.saw();
    let [publish] = saw.publishes.as_slice() else { panic!("{:?}", saw.publishes) };
    assert_eq!(
        (&*publish.topic, publish.retain, publish.qos),
        ("sites/barn-7/sensors/a", true, QoS::AtLeastOnce)
    );
    assert!(publish.properties.message_expiry().is_some_and(|left| (850..=900).contains(&left)));
    let users: Vec<_> = publish.properties.user_properties().map(|(name, _)| name.to_string()).collect();
    assert_eq!(users, ["b", "a", "b"]);
    assert_eq!(publish.properties.response_topic().as_deref(), Some("answers"));
    assert_eq!(publish.properties.correlation_data().as_deref(), Some(&b"\0\x01"[..]));
    assert_eq!(publish.properties.content_type().as_deref(), Some("text/plain"));
    assert_eq!(publish.properties.payload_format(), Some(1));
    let expired: Vec<_> = shelf.state().dropped.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(expired, [DropReason::Expired]);
}

/// States limits in CONNACK.
struct Strict(Vec<Property>);

impl Play for Strict {
    fn connect(&mut self, _number: usize, _connect: &Connect) -> Vec<Step> {
        let properties = Properties::from_list(&self.0);
        vec![Step::Send(Packet::ConnAck(ConnAck {
            session_present: false,
            reason: Reason::Success,
            properties,
        }))]
    }
}

#[tokio::test]
async fn what_upstream_does_not_take_is_not_sent_and_the_rest_flows() {
    let limits = vec![Property::MaximumPacketSize(1_000), Property::RetainAvailable(0)];
    let rows = vec![
        reading("sensors/a", "first"),
        reading("sensors/a", vec![b'x'; 2_000]),
        Message { retain: true, ..reading("sensors/a", "last") },
    ];
    let (upstream, shelf) = drain(Strict(limits), |_| {}, rows).await;
    let kept = |publish: &Publish| (publish.payload.clone(), publish.retain);
    let sent: Vec<_> = upstream.saw().publishes.iter().map(kept).collect();
    assert_eq!(sent, [(Bytes::from_static(b"first"), false), (Bytes::from_static(b"last"), false)]);
    assert_eq!(shelf.state().dropped.first().map(|(reason, _)| *reason), Some(DropReason::TooLarge));

    let (upstream, _) =
        drain(Strict(vec![Property::MaximumQoS(0)]), |_| {}, vec![reading("sensors/a", "x")]).await;
    assert_eq!(upstream.saw().publishes.first().map(|publish| publish.qos), Some(QoS::AtMostOnce));
}

#[tokio::test]
async fn the_window_is_the_smaller_of_ours_and_upstreams_receive_maximum() {
    let rows: Vec<_> = (0..50).map(numbered).collect();
    let (upstream, _) = drain(Strict(vec![Property::ReceiveMaximum(3)]), |_| {}, rows.clone()).await;
    assert!(upstream.saw().most_open <= 3);
    let (upstream, _) = drain(Strict(vec![Property::ReceiveMaximum(1)]), |_| {}, rows.clone()).await;
    assert_eq!(upstream.saw().publishes.len(), 50);
    // A keep alive of 0 from upstream is no reason for pings without end.
    let (upstream, _) =
        drain(Strict(vec![Property::ServerKeepAlive(0)]), |written| written.window = 2, rows).await;
    let saw = upstream.saw();
    assert_eq!((saw.most_open, saw.connects.len()), (2, 1));
}

#[tokio::test]
async fn a_message_as_large_as_the_broker_takes_gets_through() {
    for protocol in [4, 5] {
        let rows = vec![reading("sensors/a", vec![7; 256_000]), reading("sensors/a", vec![8; 300_000])];
        let (upstream, _) = drain(Polite, |written| written.protocol = protocol, rows).await;
        let sizes: Vec<_> = upstream.saw().publishes.iter().map(|publish| publish.payload.len()).collect();
        assert_eq!(sizes, [256_000, 300_000]);
    }
}

/// Refuses by payload: `now` once, `never` always.
struct Picky {
    refused: BTreeSet<Bytes>,
}

impl Play for Picky {
    fn publish(&mut self, _number: usize, publish: &Publish) -> Vec<Step> {
        let reason = match &*publish.payload {
            b"never" => Reason::NotAuthorized,
            b"now" if self.refused.insert(publish.payload.clone()) => Reason::QuotaExceeded,
            _ => Reason::Success,
        };
        vec![Step::Send(refuse(publish.packet_id, reason))]
    }
}

#[tokio::test]
async fn a_refusal_for_now_is_tried_again_and_one_for_good_blocks_nothing() {
    let rows = ["one", "never", "now", "two"].map(|payload| reading("sensors/a", payload)).to_vec();
    let (upstream, shelf) = drain(Picky { refused: BTreeSet::new() }, |_| {}, rows).await;
    let saw = upstream.saw();
    let sent: Vec<_> = saw.publishes.iter().map(|p| std::str::from_utf8(&p.payload).unwrap()).collect();
    assert_eq!(sent, ["one", "never", "now", "two", "now"]);
    let dropped: Vec<_> = shelf.state().dropped.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(dropped, [DropReason::Refused]);
    assert_eq!(shelf.state().settled.len(), 3);
}

/// Hangs up on the first publish of its first connections.
struct Hostile {
    angry: usize,
}

impl Play for Hostile {
    fn publish(&mut self, number: usize, publish: &Publish) -> Vec<Step> {
        if number <= self.angry { vec![Step::Cut] } else { vec![Step::Send(puback(publish.packet_id))] }
    }
}

#[tokio::test]
async fn an_upstream_that_hangs_up_on_publishes_loses_nothing() {
    let (upstream, shelf) = drain(Hostile { angry: 5 }, |_| {}, (0..10).map(numbered).collect()).await;
    assert_eq!(upstream.saw().connects.len(), 6);
    assert_eq!(shelf.state().settled.len(), 10);
    assert_eq!(judge(10, &upstream.saw(), 0).out_of_order, 0);
}

#[tokio::test]
async fn several_routes_share_the_window() {
    let upstream = Upstream::start(Polite).await;
    let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
    let mut config = config(&upstream.url(), 5);
    config.window = 4;
    config.forward.push(forward("alarms/+", "alarms/{gateway}/{1}"));
    let other = ReaderId(8);
    shelf.put(READER, (0..400).map(numbered));
    shelf.put(other, (0..40).map(|number| reading("alarms/fire", format!("a{number}"))));
    let supplies = vec![Supply::Stored(READER), Supply::Stored(other)];
    let running = Running::start(&config, supplies, shelf.handle.clone(), &House::new());
    shelf.until_empty().await;
    running.stop().await;
    let saw = upstream.saw();
    let last_alarm = saw.publishes.iter().rposition(|publish| &*publish.topic == "alarms/barn-7/fire");
    assert!(last_alarm.is_some_and(|at| at < 200), "{last_alarm:?}: alarms take their turn");
}

#[tokio::test]
async fn a_route_that_keeps_nothing_counts_what_it_drops() {
    let upstream = Upstream::start(Polite).await;
    let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
    let (inlet, outlet) = unstored::queue("r", unstored::LIMIT);
    let mut config = config(&upstream.url(), 5);
    config.forward = vec![crate::bridge::ForwardConfig { store: false, ..forward("live/#", "{topic}") }];
    // Nobody listens at first.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("mqtt://127.0.0.1:{}", taken.local_addr().unwrap().port());
    drop(taken);
    config.urls = vec![nowhere];
    let supplies = vec![Supply::Unstored(outlet)];
    let mut running = Running::start(&config, supplies, shelf.handle.clone(), &House::new());
    running.until("down", |status| status.trouble == Some("refused")).await;
    inlet.put(&reading("live/a", "lost"));
    while inlet.counts().queued > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(inlet.counts().dropped.get(&DropReason::LinkDown), Some(&1));
    running.stop().await;

    let (inlet, outlet) = unstored::queue("r", unstored::LIMIT);
    config.urls = vec![upstream.url()];
    let supplies = vec![Supply::Unstored(outlet)];
    let mut running = Running::start(&config, supplies, shelf.handle.clone(), &House::new());
    running.until("connected", |status| status.state == LinkState::Connected).await;
    for number in 0..100 {
        inlet.put(&reading("live/a", format!("n{number}")));
    }
    running.until("all there", |status| status.counts.acknowledged == 100).await;
    let counts = inlet.counts();
    assert_eq!((counts.received, counts.delivered, counts.queued), (100, 100, 0));
    running.stop().await;
}

#[tokio::test]
async fn a_message_of_qos_0_upstream_has_arrived_when_it_is_written() {
    let configure = |config: &mut Config| {
        for forward in &mut config.forward {
            forward.qos = 0;
        }
    };
    let rows = (0..200).map(|n| Message { qos: QoS::AtMostOnce, ..numbered(n) }).collect();
    let (upstream, shelf) = drain(Polite, configure, rows).await;
    upstream.until("all there", |saw| saw.publishes.len() == 200).await;
    assert_eq!(upstream.saw().most_open, 0);
    assert_eq!(shelf.state().settled.len(), 200);
}

/// Reads nothing after CONNECT, until the test says so: what fits into the socket stays there.
#[tokio::test]
async fn what_counts_as_delivered_at_qos_0_is_in_upstreams_socket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(&format!("mqtt://{}", listener.local_addr().unwrap()), 5);
    config.forward[0].qos = 0;
    let shelf = Shelf::new(Leaves::AtSettle, Default::default());
    let rows = 1_000;
    shelf.put(
        READER,
        (0..rows).map(|_| Message { qos: QoS::AtMostOnce, ..reading("sensors/a", vec![0; 20_000]) }),
    );
    let supplies = vec![Supply::Stored(READER)];
    let mut running = Running::start(&config, supplies, shelf.handle.clone(), &House::new());
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut connect = [0; 200];
    let hello = socket.read(&mut connect).await.unwrap();
    assert!(hello > 0);
    socket.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
    // The socket is full when nothing moves although messages are under way.
    let mut seen = 0;
    while timeout(Duration::from_millis(200), running.status.changed()).await.is_ok() {
        seen += 1;
    }
    assert!(seen > 0 && running.status.borrow().counts.in_flight > 0);
    running.task.abort();
    assert!(running.task.await.is_err_and(|error| error.is_cancelled()));
    let settled = shelf.state().settled.len();
    assert!(0 < settled && settled < rows, "{settled}");
    let mut decoder = Decoder::new(Side::Server, 1 << 20);
    decoder.feed(Bytes::copy_from_slice(&connect[..hello]));
    let (mut arrived, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        while let Some(packet) = decoder.decode().unwrap() {
            arrived += usize::from(matches!(packet, Packet::Publish(_)));
        }
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => decoder.feed(Bytes::copy_from_slice(&buffer[..count])),
        }
    }
    assert!(settled <= arrived, "{settled} were called delivered, {arrived} were there");
}

/// Takes everything and confirms nothing, but answers pings.
struct Mute;

impl Play for Mute {
    fn publish(&mut self, _number: usize, _publish: &Publish) -> Vec<Step> {
        vec![]
    }
}

#[tokio::test]
async fn a_link_that_confirms_nothing_is_not_called_connected_and_is_renewed() {
    let upstream = Upstream::start(Mute).await;
    let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
    let mut checked = config(&upstream.url(), 4).check("barn-7").unwrap();
    // Shorter than any configuration may ask for, so that the test need not wait.
    checked.keepalive = Duration::from_secs(1);
    shelf.put(READER, [numbered(1)]);
    let mut pace = pace();
    pace.stall = Duration::from_millis(50);
    let supplies = vec![Supply::Stored(READER)];
    let house = House::new();
    let mut running = Running::start_checked(checked, supplies, shelf.handle.clone(), &house, pace);
    let stalled = running.until("stalled", |status| status.state == LinkState::Stalled).await;
    assert_eq!(stalled.reason.as_deref(), Some("cannot make progress: no acknowledgement came for 50ms"));
    house
        .until("reported", |state| {
            state
                .reports
                .iter()
                .any(|(path, health)| path == "bridge/cloud" && health.state == adapter_api::State::Down)
        })
        .await;
    // One and a half keep alives later.
    let renewed = running.until("down", |status| status.state == LinkState::Down).await;
    assert_eq!(renewed.trouble, Some("stuck"));
    running.until("again", |status| status.counts.connects == 2).await;
    assert!(!shelf.is_empty());
    running.stop().await;
}

/// Refuses so many publishes for now.
struct Refuser {
    reason: Reason,
    refusals: usize,
}

impl Play for Refuser {
    fn publish(&mut self, _number: usize, publish: &Publish) -> Vec<Step> {
        let refuses = self.refusals > 0;
        self.refusals = self.refusals.saturating_sub(1);
        let reason = if refuses { self.reason } else { Reason::Success };
        vec![Step::Send(refuse(publish.packet_id, reason))]
    }
}

#[tokio::test]
async fn a_link_that_refuses_everything_is_not_called_connected_and_says_why() {
    for (reason, words) in [
        (Reason::QuotaExceeded, "quota exceeded): see the quotas there"),
        (Reason::UnspecifiedError, "unspecified error): see upstream's own log"),
    ] {
        let upstream = Upstream::start(Refuser { reason, refusals: usize::MAX }).await;
        let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
        shelf.put(READER, [reading("sensors/a", "x")]);
        let mut pace = pace();
        pace.stall = Duration::from_millis(50);
        let (supplies, house) = (vec![Supply::Stored(READER)], House::new());
        let written = config(&upstream.url(), 5);
        let mut running = Running::start_at(&written, supplies, shelf.handle.clone(), &house, pace);
        let told = running.until("told", |status| status.trouble == Some("refusing")).await;
        let expected = format!("cannot pass on \"sensors/a\": upstream refuses it for now ({words}");
        assert_eq!(told.reason.as_deref(), Some(&*expected));
        let stalled = running.until("stalled", |status| status.state == LinkState::Stalled).await;
        assert_eq!(stalled.reason.as_deref(), Some(&*expected));
        house
            .until("reported", |state| {
                let told = |health: &adapter_api::Health| health.reason.as_deref() == Some(&*expected);
                state
                    .reports
                    .iter()
                    .any(|(_, health)| health.state == adapter_api::State::Down && told(health))
            })
            .await;
        assert_eq!(running.status.borrow().counts.connects, 1);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_refusal_is_told_until_the_message_is_taken() {
    let upstream = Upstream::start(Refuser { reason: Reason::QuotaExceeded, refusals: 1 }).await;
    let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
    shelf.put(READER, [reading("sensors/a", "x")]);
    let supplies = vec![Supply::Stored(READER)];
    let written = config(&upstream.url(), 5);
    let mut running = Running::start(&written, supplies, shelf.handle.clone(), &House::new());
    let told = running.until("told", |status| status.trouble == Some("refusing")).await;
    assert_eq!(told.state, LinkState::Connected);
    let well = |status: &crate::bridge::Status| status.reason.is_none() && status.counts.acknowledged == 1;
    running.until("well again", well).await;
    running.stop().await;
}

#[test]
fn the_bridges_own_word_is_no_sign_that_the_link_works() {
    let shelf = Shelf::new(Leaves::AtSettle, Default::default());
    let mut written = config("mqtt://192.0.2.1", 5);
    written.status_topic = Some("sites/{gateway}/status".to_owned());
    let mut bridge = Stepped::new(&written, &[READER], shelf.handle.clone());
    let carry = |bridge: &mut Stepped, wanted: &str| {
        loop {
            bridge.turn(64).unwrap();
            for packet in bridge.pass_on(64) {
                let Up::Publish { packet_id, topic, .. } = packet else { panic!("{packet:?}") };
                bridge.hear(Down::PubAck { packet_id, reason: Reason::Success });
                bridge.turn(64).unwrap();
                if topic == wanted {
                    return;
                }
            }
            std::thread::yield_now();
        }
    };
    bridge.connect(false);
    carry(&mut bridge, "sites/sim/status");
    assert!(!bridge.has_worked());
    shelf.put(READER, [reading("sensors/a", "x")]);
    carry(&mut bridge, "sites/sim/sensors/a");
    assert!(bridge.has_worked());
}

#[tokio::test]
async fn the_status_topic_says_online_and_at_a_clean_stop_offline() {
    for protocol in [4, 5] {
        let upstream = Upstream::start(Polite).await;
        let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
        let mut config = config(&upstream.url(), protocol);
        config.status_topic = Some("sites/{gateway}/status".to_owned());
        let supplies = vec![Supply::Stored(READER)];
        let running = Running::start(&config, supplies, shelf.handle.clone(), &House::new());
        upstream.until("online", |saw| !saw.publishes.is_empty()).await;
        running.stop().await;
        upstream.until("a farewell", |saw| saw.farewells == 1).await;
        let saw = upstream.saw();
        let said: Vec<_> = saw.publishes.iter().map(|p| (&*p.topic, &*p.payload, p.retain)).collect();
        let topic = "sites/barn-7/status";
        assert_eq!(said, [(topic, &b"online"[..], true), (topic, &b"offline"[..], true)]);
        let will = saw.connects[0].will.as_ref().unwrap();
        assert_eq!((&*will.topic, &*will.payload, will.retain), (topic, &b"offline"[..], true));
    }
}

#[tokio::test]
async fn without_a_receive_route_nothing_is_kept_upstream() {
    let (upstream, _) = drain(Polite, |_| {}, vec![numbered(1)]).await;
    let saw = upstream.saw();
    assert!(saw.connects[0].clean_start && saw.filters.is_empty());
}
