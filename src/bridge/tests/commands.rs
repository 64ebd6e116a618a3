//! Down: subscriptions, acknowledgement after the local commit, and what upstream may do to them.
//!
//! Upstream is a script, so that it can do what no broker should.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapter_api::Qos;

use super::host::House;
use super::shelf::{Leaves, Shelf, reading};
use super::upstream::{Play, Step, Upstream, connack, message, suback};
use super::{ReceiveConfig, Running, Status, config, pace, receive};
use crate::bridge::{Commands, Pace, Supply};
use crate::codec::{Carrier, Connect, Packet, Properties, Property, Publish, Reason};
use crate::record::ReaderId;

const READER: ReaderId = ReaderId(7);

/// Sends commands after SUBACK, and again on the next connection what was not acknowledged.
struct Commander {
    waiting: Vec<(u16, &'static str, &'static str)>,
    kept: bool,
    asked: bool,
}

impl Play for Commander {
    fn connect(&mut self, number: usize, _connect: &Connect) -> Vec<Step> {
        let mut steps = vec![Step::Send(connack(number > 1 && self.kept, Reason::Success))];
        if number > 1 && self.kept {
            steps.extend(self.send());
        }
        steps
    }

    fn subscribe(&mut self, _number: usize, packet_id: u16) -> Vec<Step> {
        self.asked = true;
        let mut steps = vec![Step::Send(suback(packet_id, Reason::GrantedQoS1))];
        steps.extend(self.send());
        steps
    }

    fn acknowledged(&mut self, _number: usize, packet_id: u16) -> Vec<Step> {
        self.waiting.retain(|(waiting, ..)| *waiting != packet_id);
        vec![]
    }

    fn idle(&mut self, number: usize) -> Vec<Step> {
        // What is not acknowledged on the first connection comes again on the second.
        let cut = number == 1 && self.kept && self.asked && !self.waiting.is_empty();
        if cut { vec![Step::Cut] } else { vec![] }
    }
}

impl Commander {
    fn send(&self) -> Vec<Step> {
        self.waiting.iter().map(|(id, topic, payload)| Step::Send(message(topic, payload, *id))).collect()
    }
}

const COMMANDS: [(u16, &str, &str); 3] = [
    (1, "sites/barn-7/commands/valve", "open"),
    (2, "sites/barn-7/commands/pump/1", "off"),
    (3, "elsewhere", "not for us"),
];

#[tokio::test]
async fn commands_reach_the_broker_in_order_and_are_acknowledged_after_its_commit() {
    for protocol in [4, 5] {
        let upstream =
            Upstream::start(Commander { waiting: COMMANDS.to_vec(), kept: false, asked: false }).await;
        let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
        let mut config = config(&upstream.url(), protocol);
        config.receive = vec![receive("sites/{gateway}/commands/#", "commands/{1}")];
        let house = House::new();
        house.let_commit(false);
        let supplies = vec![Supply::Stored(READER)];
        let mut running = Running::start(&config, supplies, shelf.handle.clone(), &house);
        house.until("published", |state| !state.published.is_empty()).await;
        running.until("seen", |status| status.counts.received == 3).await;
        // Only what no route takes may have been acknowledged: nothing was committed.
        assert!(upstream.saw().acknowledged.iter().all(|packet_id| *packet_id == 3));
        house.let_commit(true);
        upstream.until("acknowledged", |saw| saw.acknowledged.len() == 3).await;
        let published = house.state().published.clone();
        let own = |topic: &str, payload: &str| (topic.to_owned(), payload.to_owned(), Qos::AtLeastOnce);
        assert_eq!(published, [own("commands/valve", "open"), own("commands/pump/1", "off")]);
        assert_eq!(upstream.saw().filters, ["sites/barn-7/commands/#"]);
        let hello = house.state().hellos[0].clone();
        assert_eq!((hello.client_id.as_str(), hello.user.as_deref()), ("bridge:cloud", Some("bridge:cloud")));
        let connect = upstream.saw().connects[0].clone();
        assert!(!connect.clean_start);
        let expiry = connect.properties.session_expiry();
        assert_eq!(expiry, (protocol == 5).then_some(7 * 86_400));
        running.stop().await;
    }
}

#[tokio::test]
async fn a_command_whose_connection_was_lost_before_the_commit_comes_again() {
    let upstream =
        Upstream::start(Commander { waiting: COMMANDS[..2].to_vec(), kept: true, asked: false }).await;
    let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
    let mut config = config(&upstream.url(), 5);
    config.receive = vec![receive("sites/{gateway}/commands/#", "commands/{1}")];
    let house = House::new();
    house.let_commit(false);
    let supplies = vec![Supply::Stored(READER)];
    let mut running = Running::start(&config, supplies, shelf.handle.clone(), &house);
    running.until("twice there", |status| status.counts.received == 4).await;
    assert_eq!(upstream.saw().acknowledged, [0_u16; 0]);
    house.let_commit(true);
    upstream.until("acknowledged", |saw| saw.acknowledged.len() == 2).await;
    // The session was kept, so nothing was subscribed again.
    assert_eq!(upstream.saw().filters.len(), 1);
    assert_eq!(running.status.borrow().session_present, Some(true));
    running.stop().await;
}

#[tokio::test]
async fn what_an_access_rule_denies_is_counted_and_does_not_block() {
    let upstream =
        Upstream::start(Commander { waiting: COMMANDS[..2].to_vec(), kept: false, asked: false }).await;
    let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
    let mut config = config(&upstream.url(), 5);
    config.receive = vec![receive("sites/{gateway}/commands/#", "commands/{1}")];
    let house = House::new();
    house.state().denied.push("commands/valve".to_owned());
    let supplies = vec![Supply::Stored(READER)];
    let mut running = Running::start(&config, supplies, shelf.handle.clone(), &house);
    upstream.until("acknowledged", |saw| saw.acknowledged.len() == 2).await;
    running.until("counted", |status| status.counts.denied == 1).await;
    running.stop().await;
}

/// Sends these messages after SUBACK.
struct Sender(Vec<Packet>);

impl Play for Sender {
    fn subscribe(&mut self, _number: usize, packet_id: u16) -> Vec<Step> {
        let answer = suback(packet_id, Reason::GrantedQoS1);
        std::iter::once(answer).chain(self.0.drain(..)).map(Step::Send).collect()
    }
}

fn with_properties(packet: Packet, list: &[Property]) -> Packet {
    let Packet::Publish(publish) = packet else { panic!("a message") };
    Packet::Publish(Publish { properties: Properties::from_list(list), ..publish })
}

#[tokio::test]
async fn what_travels_with_a_command_reaches_the_broker() {
    let travelling = [
        Property::PayloadFormatIndicator(1),
        Property::ContentType("application/json".into()),
        Property::ResponseTopic("sites/barn-7/answers".into()),
        Property::CorrelationData(bytes::Bytes::from_static(b"\x00\x01")),
        Property::UserProperty("by".into(), "anna".into()),
        Property::UserProperty("by".into(), "bert".into()),
    ];
    let expiry = Property::MessageExpiryInterval(600);
    let all = [&travelling[..], std::slice::from_ref(&expiry)].concat();
    let deep = Property::ResponseTopic("/".repeat(128).into());
    let command = |id: u16, list: &[Property]| {
        with_properties(message("sites/barn-7/commands/valve", "open", id), list)
    };
    let upstream = Upstream::start(Sender(vec![
        command(1, &all),
        command(2, &[deep, travelling[1].clone()]),
        command(3, &[]),
        command(
            4,
            &[Property::UserProperty("by".into(), "\0".into()), Property::ContentType("\0".into()), expiry],
        ),
    ]))
    .await;
    let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
    let mut config = config(&upstream.url(), 5);
    config.receive = vec![receive("sites/{gateway}/commands/#", "commands/{1}")];
    let house = House::new();
    let running = Running::start(&config, vec![Supply::Stored(READER)], shelf.handle.clone(), &house);
    house.until("published", |state| state.published.len() == 4).await;
    let got = house.state().properties.clone();
    let got = got.into_iter().map(|block| Properties::from_bytes(block, Carrier::ClientPublish).unwrap());
    let got: Vec<Vec<Property>> = got.map(|properties| properties.iter().collect()).collect();
    // The time that it waited here is taken from the expiry, which stands last.
    let Some((Property::MessageExpiryInterval(left), others)) = got[0].split_last() else {
        panic!("{:?}", got[0]);
    };
    assert!((1..=600).contains(left), "{left}");
    assert_eq!(others, travelling);
    // A topic that is none here would end the port.
    assert_eq!(got[1..3], [vec![travelling[1].clone()], vec![]]);
    // Nor is a text with U+0000 one, and what else there is stays.
    assert!(matches!(got[3][..], [Property::MessageExpiryInterval(_)]), "{:?}", got[3]);
    running.stop().await;
}

#[tokio::test]
async fn a_command_for_a_topic_that_is_none_here_is_acknowledged_and_not_in_the_way() {
    let deep = format!("sites/barn-7/commands{}", "/x".repeat(130));
    let upstream = Upstream::start(Sender(vec![
        message(&deep, "open", 1),
        message("sites/barn-7/commands/valve", "open", 2),
    ]))
    .await;
    let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
    let mut config = config(&upstream.url(), 5);
    config.receive = vec![receive("sites/{gateway}/commands/#", "commands/{1}")];
    let house = House::new();
    let mut running = Running::start(&config, vec![Supply::Stored(READER)], shelf.handle.clone(), &house);
    upstream.until("acknowledged", |saw| saw.acknowledged.len() == 2).await;
    assert_eq!(house.state().published.len(), 1);
    running.until("counted", |status| status.counts.unrouted == 1).await;
    running.stop().await;
}

/// Answers no SUBSCRIBE, or refuses it.
struct Unwilling {
    answer: Option<Reason>,
}

impl Play for Unwilling {
    fn subscribe(&mut self, _number: usize, packet_id: u16) -> Vec<Step> {
        self.answer.map(|reason| Step::Send(suback(packet_id, reason))).into_iter().collect()
    }
}

#[tokio::test]
async fn a_refused_or_unanswered_subscription_is_told_and_forwarding_starts_all_the_same() {
    for (answer, told) in [(None, "not answered"), (Some(Reason::NotAuthorized), "refused (not authorized)")]
    {
        let upstream = Upstream::start(Unwilling { answer }).await;
        let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
        let mut config = config(&upstream.url(), 5);
        config.receive = vec![receive("commands/#", "{topic}")];
        shelf.put(READER, [reading("sensors/a", "x")]);
        let mut pace = pace();
        pace.suback = Duration::from_millis(50);
        let supplies = vec![Supply::Stored(READER)];
        let mut running = Running::start_at(&config, supplies, shelf.handle.clone(), &House::new(), pace);
        let status = running.until("forwarded", |status| status.counts.acknowledged == 1).await;
        assert_eq!(status.subscriptions[0].answer, told);
        running.stop().await;
    }
}

/// Sends more at once than anybody can take.
struct Flood;

impl Play for Flood {
    fn subscribe(&mut self, _number: usize, packet_id: u16) -> Vec<Step> {
        let mut steps = vec![Step::Send(suback(packet_id, Reason::GrantedQoS1))];
        steps.extend((1..=500).map(|id| Step::Send(message("commands/a", &id.to_string(), id))));
        steps
    }
}

#[tokio::test]
async fn a_flood_from_upstream_waits_and_nothing_of_it_is_lost() {
    let upstream = Upstream::start(Flood).await;
    let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
    let mut config = config(&upstream.url(), 4);
    config.receive = vec![receive("commands/#", "{topic}")];
    let house = House::new();
    house.let_commit(false);
    let supplies = vec![Supply::Stored(READER)];
    let running = Running::start(&config, supplies, shelf.handle.clone(), &house);
    house.until("published", |state| !state.published.is_empty()).await;
    let received = running.status.borrow().counts.received;
    assert!(received < 200, "{received}: the rest is not read");
    house.let_commit(true);
    upstream.until("acknowledged", |saw| saw.acknowledged.len() == 500).await;
    assert_eq!(upstream.saw().acknowledged, (1..=500).collect::<Vec<u16>>());
    assert_eq!(house.state().published.len(), 500);
    running.stop().await;
}

#[tokio::test]
async fn a_command_larger_than_the_broker_takes_is_acknowledged_counted_and_not_in_the_way() {
    for (protocol, size) in [(4, 300_000), (5, 300_000), (4, 3_000_000)] {
        let large = "x".repeat(size);
        let upstream = Upstream::start(Sender(vec![
            message("sites/barn-7/commands/firmware", &large, 1),
            message("sites/barn-7/commands/valve", "open", 2),
            message("sites/barn-7/commands/firmware", &large, 0),
            message("sites/barn-7/commands/pump", "off", 3),
        ]))
        .await;
        let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
        let mut config = config(&upstream.url(), protocol);
        config.receive = vec![receive("sites/{gateway}/commands/#", "commands/{1}")];
        let house = House::new();
        let mut running = Running::start(&config, vec![Supply::Stored(READER)], shelf.handle.clone(), &house);
        upstream.until("acknowledged", |saw| saw.acknowledged.len() == 3).await;
        assert_eq!(house.state().taken, ["open", "off"]);
        let status = running.until("counted", |status| status.counts.received == 4).await;
        assert_eq!((status.counts.too_large, status.counts.connects), (2, 1));
        let announced = upstream.saw().connects[0].properties.maximum_packet_size();
        assert_eq!(announced, (protocol == 5).then_some(256_000));
        running.stop().await;
    }
}

/// Sends some commands after SUBACK and the others when the test says so.
struct InTwo {
    first: Vec<Packet>,
    others: Arc<Mutex<Vec<Packet>>>,
}

impl Play for InTwo {
    fn subscribe(&mut self, _number: usize, packet_id: u16) -> Vec<Step> {
        let answer = suback(packet_id, Reason::GrantedQoS1);
        std::iter::once(answer).chain(self.first.drain(..)).map(Step::Send).collect()
    }

    fn idle(&mut self, _number: usize) -> Vec<Step> {
        self.others.lock().unwrap().drain(..).map(Step::Send).collect()
    }
}

/// Upstream sends ten commands and then thirty, to a house whose store is full at first, for all or for a few.
async fn check_order(fill: impl FnOnce(&House), turned_down: usize) {
    let commands = |ids: std::ops::RangeInclusive<u16>| {
        ids.map(|id| message("commands/valve", &id.to_string(), id)).collect::<Vec<_>>()
    };
    let others = Arc::new(Mutex::new(Vec::new()));
    let upstream = Upstream::start(InTwo { first: commands(1..=10), others: others.clone() }).await;
    let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
    let mut config = config(&upstream.url(), 4);
    config.receive = vec![receive("commands/#", "{topic}")];
    let house = House::new();
    fill(&house);
    let pace = Pace { commands: Commands::OneByOne, ..pace() };
    let supplies = vec![Supply::Stored(READER)];
    let running = Running::start_at(&config, supplies, shelf.handle.clone(), &house, pace);
    house.until("turned down", |state| state.turned_down >= turned_down).await;
    others.lock().unwrap().extend(commands(11..=40));
    house.fill(false);
    upstream.until("acknowledged", |saw| saw.acknowledged.len() == 40).await;
    let expected: Vec<String> = (1..=40).map(|id: u16| id.to_string()).collect();
    assert_eq!(house.state().taken, expected);
    assert_eq!(upstream.saw().acknowledged, (1..=40).collect::<Vec<u16>>());
    running.stop().await;
}

#[tokio::test]
async fn commands_stay_in_order_when_the_store_was_full_for_a_while() {
    check_order(|house| house.fill(true), 10).await;
}

#[tokio::test]
async fn commands_stay_in_order_when_the_store_finds_room_while_they_come() {
    check_order(|house| house.state().refuse = 5, 5).await;
}

/// Sends commands and hangs up.
struct Leaver(u16);

impl Play for Leaver {
    fn subscribe(&mut self, number: usize, packet_id: u16) -> Vec<Step> {
        let mut steps = vec![Step::Send(suback(packet_id, Reason::GrantedQoS1))];
        if number == 1 {
            steps.extend((1..=self.0).map(|id| Step::Send(message("commands/a", "x", id))));
            steps.push(Step::Cut);
        }
        steps
    }
}

#[tokio::test]
async fn an_end_that_upstream_made_is_told_as_upstreams() {
    // More than are taken while the broker is slow, so that the news of the end waits behind them.
    let upstream = Upstream::start(Leaver(31)).await;
    let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
    let mut config = config(&upstream.url(), 4);
    config.receive = vec![receive("commands/#", "{topic}")];
    let house = House::new();
    house.let_commit(false);
    let mut pace = pace();
    pace.backoff_first = Duration::from_secs(3_600);
    pace.backoff_last = pace.backoff_first;
    let supplies = vec![Supply::Stored(READER)];
    let running = Running::start_at(&config, supplies, shelf.handle.clone(), &house, pace);
    let mut status = running.status.clone();
    let down = loop {
        shelf.put(READER, [reading("sensors/a", "x")]);
        let down = status.wait_for(|status| status.next_attempt.is_some());
        if let Ok(down) = tokio::time::timeout(Duration::from_millis(20), down).await {
            break down.unwrap().clone();
        }
    };
    assert_eq!(down.reason.as_deref(), Some("cannot stay connected: upstream closed the connection"));
    running.stop().await;
}

/// Keeps every session.
struct Keeper;

impl Play for Keeper {
    fn connect(&mut self, number: usize, _connect: &Connect) -> Vec<Step> {
        vec![Step::Send(connack(number > 1, Reason::Success))]
    }
}

#[tokio::test]
async fn a_receive_route_that_is_gone_is_unsubscribed_on_the_kept_session() {
    for protocol in [4, 5] {
        let folder = tempfile::tempdir().unwrap();
        let upstream = Upstream::start(Keeper).await;
        let shelf = Shelf::new(Leaves::AtSettle, upstream.witness());
        let mut config = config(&upstream.url(), protocol);
        let (kept, gone) = (receive("commands/#", "{topic}"), receive("old/{gateway}/+", "{topic}"));
        let mut run = async |receives: Vec<ReceiveConfig>, gone: usize| {
            config.receive = receives;
            let checked = config.check("barn-7").unwrap();
            let supplies = vec![Supply::Stored(READER)];
            let house = House::new();
            let mut running =
                Running::start_in(folder.path(), checked, supplies, shelf.handle.clone(), &house, pace());
            let granted = |status: &Status| status.subscriptions.iter().all(|one| one.answer == "granted");
            running.until("granted", granted).await;
            upstream.until("unsubscribed", |saw| saw.unsubscribed.len() == gone).await;
            let note = || std::fs::read_to_string(folder.path().join("bridge-cloud.json")).unwrap();
            while gone > 0 && note().contains("old") {
                tokio::task::yield_now().await;
            }
            running.stop().await;
        };
        run(vec![kept.clone(), gone], 0).await;
        run(vec![kept.clone()], 1).await;
        assert_eq!(upstream.saw().unsubscribed, ["old/barn-7/+"]);
        // It is not asked for again.
        run(vec![kept], 1).await;
        assert_eq!(upstream.saw().connects.len(), 3);
    }
}
