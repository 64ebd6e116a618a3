//! The engine over real sockets: what a client sees.
//!
//! The store is the test's own and commits when the test says so.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use bytestring::ByteString;

use super::stepped::Stepped;
use super::testing::{
    Client, PATIENCE, Running, StoreMode, broker, connect, connect_kept, puback, publish, small_broker,
    subscribe,
};
use crate::auth::PasswordFile;
use crate::broker::{Passwords, Route, Trust};
use crate::codec::{Packet, Properties, Property, QoS, Reason, Version, encode};
use crate::listener::Config;
use crate::record::ReaderId;
use crate::unstored;

fn start() -> Running {
    Running::start(StoreMode::Prompt, |_| {})
}

// [MQTT5-4.2.0-1] [MQTT311-7.1.1-1]
#[test]
fn a_message_goes_from_any_version_to_any_version() {
    let running = start();
    let versions = [Version::V31, Version::V311, Version::V5];
    let mut subscribers: Vec<Client> = versions
        .iter()
        .map(|version| {
            let mut client = Client::connect(running.address, *version, &format!("sub-{version:?}"));
            client.subscribe("a/b", QoS::AtMostOnce);
            client
        })
        .collect();
    for version in versions {
        let mut publisher = Client::connect(running.address, version, "pub");
        publisher.publish("a/b", format!("{version:?}").as_bytes(), QoS::AtMostOnce);
        for subscriber in &mut subscribers {
            let message = subscriber.message();
            assert_eq!((&*message.topic, &*message.payload), ("a/b", format!("{version:?}").as_bytes()));
        }
        publisher.disconnect();
    }
}

// [MQTT5-3.12.4-1] [MQTT311-3.12.4-1]
#[test]
fn a_packet_may_come_in_any_pieces() {
    let running = start();
    let mut client = Client::open(running.address, Version::V311);
    let packets = [
        connect(Version::V311, "pieces"),
        subscribe("t", QoS::AtMostOnce),
        publish("t", &[7; 300], QoS::AtMostOnce, 0),
        publish("t", b"last", QoS::AtMostOnce, 0),
        Packet::PingReq,
    ];
    let bytes: Vec<u8> = packets.iter().flat_map(|packet| client.bytes(packet)).collect();
    for byte in bytes {
        client.send_bytes(&[byte]);
    }
    assert!(matches!(client.next(), Packet::ConnAck(_)));
    assert!(matches!(client.next(), Packet::SubAck(_)));
    assert_eq!(&*client.message().payload, [7; 300]);
    assert_eq!(&*client.message().payload, b"last");
    assert_eq!(client.next(), Packet::PingResp);
}

#[test]
fn more_than_a_turn_takes_is_taken_in_the_turns_after() {
    let running = start();
    let mut client = Client::connect(running.address, Version::V311, "flood");
    client.subscribe("t", QoS::AtMostOnce);
    let pings = client.bytes(&Packet::PingReq).repeat(50_000);
    let mut writer = client.stream().try_clone().unwrap();
    let sender = std::thread::spawn(move || writer.write_all(&pings).unwrap());
    for _ in 0..50_000 {
        assert_eq!(client.next(), Packet::PingResp);
    }
    sender.join().unwrap();
}

/// One message means a hundred here, and thousands of them come at once. What is counted is the work of the
/// largest turn, since that is what everybody else waits for.
#[test]
fn a_turn_takes_so_much_whatever_is_asked_for() {
    let running = start();
    let mut bystander = Client::connect(running.address, Version::V5, "bystander");
    let readers: Vec<Client> = (0..20)
        .map(|number| {
            let mut client = Client::connect(running.address, Version::V311, &format!("all-{number}"));
            for filter in ["#", "+/#", "+/+/#", "a/#", "a/+/c"] {
                client.subscribe(filter, QoS::AtMostOnce);
            }
            client
        })
        .collect();
    let flood = Client::connect(running.address, Version::V311, "flood");
    let bytes = flood.bytes(&publish("a/b/c", &[7; 1_000], QoS::AtMostOnce, 0)).repeat(2_000);
    let sent = running.count("bytes_in") + bytes.len() as u64;
    let mut stream = flood.into_stream();
    let sender = std::thread::spawn(move || stream.write_all(&bytes).map(|()| stream));
    running.until(|status| {
        bystander.ping();
        status["engine"]["bytes_in"].as_u64() >= Some(sent)
    });
    let most = running.count("most_work");
    assert!(most > 1_000 && most < 8_000, "{most} of 2,000,000 in one turn");
    drop((sender.join().unwrap(), readers));
}

#[test]
fn a_slow_reader_loses_qos_0_beyond_its_buffer_and_it_is_counted() {
    let running = Running::start(StoreMode::Prompt, |parts| parts.limits.max_send_buffer = 100_000);
    let mut slow = Client::connect(running.address, Version::V311, "slow");
    slow.subscribe("t", QoS::AtMostOnce);
    let mut publisher = Client::connect(running.address, Version::V311, "pub");
    let mut published = 0_u64;
    while running.count("dropped_send_buffer") == 0 {
        for _ in 0..100 {
            publisher.publish("t", &published.to_be_bytes().repeat(1_000), QoS::AtMostOnce);
            published += 1;
        }
        publisher.ping();
        assert!(published < 100_000, "no kernel buffers that much");
    }
    let dropped = running.count("dropped_send_buffer");
    let figures = running.status()["broker"].clone();
    assert_eq!(figures["dropped"]["send_buffer_full"], dropped);
    assert_eq!(figures["messages_sent"], published - dropped);
    let mut last = None;
    for _ in 0..published - dropped {
        let number = u64::from_be_bytes(slow.message().payload[..8].try_into().unwrap());
        assert!(last < Some(number), "in order");
        last = Some(number);
    }
    publisher.publish("t", b"the end", QoS::AtMostOnce);
    assert_eq!(&*slow.message().payload, b"the end", "it reads again, and gets what comes");
}

#[test]
fn a_client_that_reads_no_answers_is_not_read_on() {
    let (limit, one_turn) = (50_000, 64 << 10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt.sock");
    let running = Running::start(StoreMode::Prompt, |parts| {
        parts.limits.max_send_buffer = limit;
        // A Unix socket's buffers are small, so they are soon full.
        let bind = format!("unix:{}", path.display());
        parts.listeners.push(Config { bind, ..Config::default() }.check().unwrap());
    });
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut start = Vec::new();
    encode(&connect(Version::V311, "deaf"), Version::V311, &mut start).unwrap();
    stream.write_all(&start).unwrap();
    // Writes until the answers that are not read have stopped it.
    let pings = [0xC0, 0].repeat(2_000);
    stream.set_nonblocking(true).unwrap();
    let (mut sent, mut stuck, mut passed) = (0, 0, (0, 0));
    while stuck < 100 {
        let before = (sent, passed);
        while let Ok(count) = stream.write(&pings[sent % 2..]) {
            sent += count;
        }
        // Both of one moment: what was read may take turns to be answered.
        let engine = running.status()["engine"].clone();
        passed = (engine["bytes_in"].as_u64().unwrap(), engine["bytes_out"].as_u64().unwrap());
        stuck = if (sent, passed) == before { stuck + 1 } else { 0 };
    }
    let unanswered = passed.0 - start.len() as u64 + 4 - passed.1;
    assert!(unanswered > 0 && unanswered < limit as u64 + one_turn, "{unanswered} bytes in one outbox");
    stream.set_nonblocking(false).unwrap();
    let mut answers = vec![0; 4 + sent / 2 * 2];
    stream.read_exact(&mut answers).unwrap();
    assert!(answers[4..].chunks(2).all(|answer| answer == [0xD0, 0]), "every one was answered");
}

#[test]
fn thousands_come_and_go_and_leave_nothing_behind() {
    let running = start();
    for round in 0..20 {
        let clients: Vec<Client> = (0..100)
            .map(|number| Client::connect(running.address, Version::V311, &format!("c{number}")))
            .collect();
        for (number, client) in clients.into_iter().enumerate() {
            match (number + round) % 3 {
                0 => client.disconnect(),
                1 => drop(client),
                _ => {
                    let mut client = client;
                    client.send_bytes(&[0; 100]);
                    while client.maybe_next().is_some() {}
                }
            }
        }
    }
    running.until(|status| status["engine"]["sockets"] == 0);
    assert_eq!(running.count("accepted"), 2_000);
}

// [MQTT5-4.13.1-1] [MQTT311-4.8.0-1] [MQTT311-3.1.4-1]
#[test]
fn what_is_no_mqtt_ends_the_connection_and_no_other() {
    let running = start();
    let mut bystander = Client::connect(running.address, Version::V5, "bystander");
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xFF; 64], &[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 1], &[0x30, 0]]
    {
        let mut client = Client::open(running.address, Version::V311);
        client.send_bytes(garbage);
        while client.maybe_next().is_some() {}
        bystander.ping();
        // A guest without a keep alive would stay for ever if this did not end it.
        let mut client = Client::connect(running.address, Version::V311, "guest");
        client.send_bytes(garbage);
        while client.maybe_next().is_some() {}
        bystander.ping();
    }
    assert_eq!(running.count("malformed"), 8);
    running.until(|status| status["engine"]["sockets"] == 1);
}

// [MQTT5-3.1.4-1] [MQTT311-3.1.4-1]
#[test]
fn a_malformed_connect_ends_its_connection_and_does_not_wait_for_a_better_one() {
    let mut stepped = Stepped::start(|_| {});
    for level in [4, 5] {
        // The reserved flag is set.
        let malformed = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', level, 3, 0, 0, 0, 0, 0];
        let mut client = stepped.open();
        client.send_bytes(&malformed);
        let stream = client.stream();
        stream.set_nonblocking(true).unwrap();
        stepped.turn_until(20, |_| matches!(stream.read(&mut [0]), Ok(0)));
    }
}

// [MQTT5-3.2.2-15]
#[test]
fn a_packet_over_the_limit_ends_the_connection_before_it_is_held() {
    let running = Running::start(StoreMode::Prompt, |parts| parts.limits.max_packet_size = 1_000);
    let mut client = Client::connect(running.address, Version::V311, "large");
    client.send_bytes(&[0x30, 0xE9, 0x07]);
    assert_eq!(client.maybe_next(), None);
    assert_eq!(running.count("malformed"), 1);
}

#[test]
fn a_watched_engine_turns_although_nothing_happens() {
    let running = Running::start(StoreMode::Prompt, |parts| {
        parts.heartbeat.every = Some(std::time::Duration::from_millis(1));
    });
    let turned = || running.heartbeat.turns.load(Ordering::Relaxed);
    let (start, first) = (running.clock.now().mono, turned());
    while turned() < first + 5 {
        let waited = running.clock.now().mono - start;
        assert!(u128::from(waited) < PATIENCE.as_millis(), "it sleeps");
    }
}

#[test]
fn an_idle_engine_sleeps() {
    let running = start();
    let mut client = Client::connect(running.address, Version::V311, "idle");
    client.ping();
    let before = running.count("turns");
    client.ping();
    let turned = running.count("turns") - before;
    assert!(turned < 10, "asked twice, it turned {turned} times");
}

#[test]
fn copies_of_one_message_differ_in_their_packet_ids() {
    let running = start();
    let mut subscribers: Vec<Client> = (0..20)
        .map(|number| {
            let version = if number % 3 == 0 { Version::V311 } else { Version::V5 };
            let mut client = Client::connect(running.address, version, &format!("s{number}"));
            client.subscribe("t", QoS::AtLeastOnce);
            // Each is ahead of the one before, so that the next id of each is another.
            for _ in 0..number {
                client.publish("warm/up", b"", QoS::AtLeastOnce);
                assert!(matches!(client.next(), Packet::PubAck(_)));
            }
            client
        })
        .collect();
    let mut publisher = Client::connect(running.address, Version::V5, "pub");
    for round in 0..50_u8 {
        publisher.publish("t", &[round], QoS::AtLeastOnce);
        for client in &mut subscribers {
            let message = client.message();
            assert_eq!((&*message.payload, message.qos), (&[round][..], QoS::AtLeastOnce));
            client.send(&puback(message.packet_id));
        }
        assert!(matches!(publisher.next(), Packet::PubAck(_)));
    }
}

#[test]
fn a_store_that_does_not_answer_stops_only_who_waits_for_it() {
    let mut running = Running::start(StoreMode::Held, |_| {});
    let mut kept = Client::open(running.address, Version::V311);
    kept.send(&connect_kept(Version::V311, "kept"));
    let mut publisher = Client::connect(running.address, Version::V311, "durable");
    let mut other = Client::connect(running.address, Version::V311, "other");
    other.subscribe("live", QoS::AtMostOnce);
    for number in 0..1_000_u32 {
        publisher.publish("live", &number.to_be_bytes(), QoS::AtMostOnce);
        assert_eq!(&*other.message().payload, number.to_be_bytes());
    }
    running.release_store();
    assert!(matches!(kept.next(), Packet::ConnAck(_)), "the session is kept, so its CONNACK had to wait");
    kept.subscribe("durable", QoS::AtLeastOnce);
    publisher.publish("durable", b"x", QoS::AtLeastOnce);
    assert!(matches!(publisher.next(), Packet::PubAck(_)));
    assert_eq!(&*kept.message().payload, b"x");
}

// [MQTT5-3.1.4-2]
#[test]
fn passwords_are_compared_elsewhere_and_decide() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passwd");
    std::fs::write(&path, format!("anna:{}\n", crate::auth::hash(b"ebb").unwrap())).unwrap();
    let running = Running::start(StoreMode::Prompt, |parts| {
        parts.listeners[0].trust = Trust::Password;
        parts.broker = broker(&parts.clock, Passwords::File, Vec::new());
        parts.auth.passwords = Some(PasswordFile::at(&path));
    });
    let answer = |username: Option<&'static str>, password: &'static [u8]| {
        let mut client = Client::open(running.address, Version::V5);
        let Packet::Connect(mut packet) = connect(Version::V5, "c") else { panic!("CONNECT") };
        packet.username = username.map(ByteString::from_static);
        packet.password = username.map(|_| Bytes::from_static(password));
        client.send(&Packet::Connect(packet));
        let Packet::ConnAck(ack) = client.next() else { panic!("CONNACK first") };
        ack.reason
    };
    assert_eq!(answer(Some("anna"), b"ebb"), Reason::Success);
    assert!(answer(Some("anna"), b"flow").is_error());
    assert!(answer(Some("bert"), b"ebb").is_error());
    assert!(answer(None, b"").is_error());
    // The file is read again once it has changed, by nobody's order, and rested for a second.
    std::fs::write(&path, format!("anna:{}\n# new\n", crate::auth::hash(b"flow").unwrap())).unwrap();
    running.until(|_| answer(Some("anna"), b"flow") == Reason::Success);
}

#[test]
fn without_a_password_file_no_password_fits() {
    let running = Running::start(StoreMode::Prompt, |parts| {
        parts.listeners[0].trust = Trust::Password;
        parts.broker = broker(&parts.clock, Passwords::File, Vec::new());
    });
    let mut client = Client::open(running.address, Version::V5);
    let Packet::Connect(mut packet) = connect(Version::V5, "c") else { panic!("CONNECT") };
    packet.username = Some(ByteString::from_static("anna"));
    client.send(&Packet::Connect(packet));
    assert!(matches!(client.next(), Packet::ConnAck(ack) if ack.reason.is_error()));
}

#[test]
fn a_route_that_keeps_nothing_gets_its_messages_through_its_queue() {
    let (inlet, mut outlet) = unstored::queue("r", unstored::LIMIT);
    let running = Running::start(StoreMode::Prompt, |parts| {
        let route = Route {
            reader: ReaderId(1),
            filter: ByteString::from_static("up/#"),
            store: false,
            name: "cloud/up".to_owned(),
        };
        parts.broker = broker(&parts.clock, Passwords::Absent, vec![route]);
        parts.unstored = vec![Some(inlet)];
    });
    let mut publisher = Client::connect(running.address, Version::V311, "pub");
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        publisher.publish("up/1", b"x", qos);
    }
    publisher.publish("elsewhere", b"x", QoS::AtMostOnce);
    assert!(
        matches!(publisher.next(), Packet::PubAck(_)),
        "the acknowledgement does not wait for the bridge"
    );
    publisher.ping();
    assert_eq!(outlet.counts().received, 2);
    assert_eq!(
        outlet.take_now(9).iter().map(|message| &*message.topic).collect::<Vec<_>>(),
        ["up/1", "up/1"]
    );
}

#[test]
fn a_client_beyond_the_limit_is_turned_away_and_another_may_take_a_free_place() {
    let running = Running::start(StoreMode::Prompt, |parts| parts.limits.max_connections = 0);
    let places = 64;
    let mut clients: Vec<Client> = (0..places)
        .map(|number| Client::connect(running.address, Version::V311, &format!("c{number}")))
        .collect();
    assert_eq!(Client::open(running.address, Version::V311).maybe_next(), None);
    assert_eq!(running.count("over_max_connections"), 1);
    clients.pop().unwrap().disconnect();
    Client::connect(running.address, Version::V311, "next").ping();
}

#[test]
fn stopping_sends_what_was_promised() {
    let mut running = start();
    let mut subscriber = Client::connect(running.address, Version::V311, "sub");
    subscriber.subscribe("t", QoS::AtMostOnce);
    let mut publisher = Client::connect(running.address, Version::V311, "pub");
    for number in 0..1_000_u32 {
        publisher.publish("t", &number.to_be_bytes(), QoS::AtMostOnce);
    }
    publisher.ping();
    running.stop();
    for number in 0..1_000_u32 {
        assert_eq!(&*subscriber.message().payload, number.to_be_bytes());
    }
    while subscriber.maybe_next().is_some() {}
}

#[test]
fn a_client_that_takes_aliases_is_sent_each_topic_once() {
    let running = start();
    let mut client = Client::open(running.address, Version::V5);
    let Packet::Connect(mut hello) = connect(Version::V5, "aliased") else { panic!("CONNECT") };
    hello.properties =
        Properties::from_list(&[Property::TopicAliasMaximum(3), Property::MaximumPacketSize(40)]);
    client.send(&Packet::Connect(hello));
    assert!(matches!(client.next(), Packet::ConnAck(_)));
    client.subscribe("up/#", QoS::AtLeastOnce);
    let mut plain = Client::connect(running.address, Version::V5, "plain");
    plain.subscribe("up/#", QoS::AtMostOnce);
    let mut publisher = Client::connect(running.address, Version::V311, "pub");
    // At 40 bytes the fourth fits by its name alone, the fifth does not fit at all.
    let (fits, too_large) = ("x".repeat(31), "x".repeat(32));
    for (topic, payload) in [
        ("up/one", "1"),
        ("up/one", "2"),
        ("up/two", "3"),
        ("up/x", &fits),
        ("up/x", &too_large),
        ("up/one", "4"),
    ] {
        publisher.publish(topic, payload.as_bytes(), QoS::AtMostOnce);
    }
    let mut named = std::collections::BTreeMap::new();
    let mut got = Vec::new();
    for _ in 0..5 {
        let message = client.message();
        let alias = message.properties.topic_alias();
        if let Some(alias) = alias.filter(|_| !message.topic.is_empty()) {
            named.insert(alias, message.topic.to_string());
        }
        let topic =
            if message.topic.is_empty() { named[&alias.unwrap()].clone() } else { message.topic.to_string() };
        got.push((topic, alias, message.topic.is_empty()));
    }
    let expected = [
        ("up/one", Some(1), false),
        ("up/one", Some(1), true),
        ("up/two", Some(2), false),
        ("up/x", None, false),
        ("up/one", Some(1), true),
    ];
    assert_eq!(got, expected.map(|(topic, alias, short)| (topic.to_owned(), alias, short)));
    assert_eq!(running.status()["broker"]["dropped"]["too_large"], 1);
    for _ in 0..6 {
        assert_eq!(plain.message().properties.topic_alias(), None);
    }
}

#[test]
fn aliases_end_with_their_connection_and_what_is_dropped_gives_none() {
    let running = Running::start(StoreMode::Prompt, |parts| parts.limits.max_send_buffer = 16_384);
    let hello = |id: &str| {
        let Packet::Connect(mut hello) = connect(Version::V5, id) else { panic!("CONNECT") };
        hello.properties = Properties::from_list(&[Property::TopicAliasMaximum(9)]);
        Packet::Connect(hello)
    };
    let mut publisher = Client::connect(running.address, Version::V311, "pub");
    for _ in 0..2 {
        let mut client = Client::open(running.address, Version::V5);
        client.send(&hello("again"));
        assert!(matches!(client.next(), Packet::ConnAck(_)));
        client.subscribe("up/#", QoS::AtMostOnce);
        publisher.publish("up/one", b"1", QoS::AtMostOnce);
        assert_eq!(&*client.message().topic, "up/one");
        client.disconnect();
    }
    // One that reads nothing: much is dropped on the way, and what arrives is named all the same.
    let mut slow = Client::open(running.address, Version::V5);
    slow.send(&hello("slow"));
    assert!(matches!(slow.next(), Packet::ConnAck(_)));
    slow.subscribe("up/#", QoS::AtMostOnce);
    let payload = vec![7; 60_000];
    let mut sent = 0;
    while running.count("dropped_send_buffer") < 20 {
        publisher.publish(&format!("up/{}", sent % 7), &payload, QoS::AtMostOnce);
        sent += 1;
    }
    publisher.ping();
    let dropped = running.count("dropped_send_buffer");
    let mut named = std::collections::BTreeSet::new();
    for _ in 0..sent - dropped {
        let message = slow.message();
        match message.properties.topic_alias() {
            Some(alias) if message.topic.is_empty() => assert!(named.contains(&alias), "{alias} is unknown"),
            Some(alias) => drop(named.insert(alias)),
            None => {}
        }
    }
    slow.ping();
}

#[test]
fn memory_is_bounded_whoever_does_not_read() {
    let most = 1_000_000;
    let running = Running::start(StoreMode::Prompt, |parts| {
        parts.limits.max_send_buffer = 1 << 30;
        parts.broker = small_broker(&parts.clock, most);
    });
    let mut slow = Client::connect(running.address, Version::V5, "slow");
    slow.subscribe("t", QoS::AtMostOnce);
    let mut quick = Client::connect(running.address, Version::V5, "quick");
    quick.subscribe("t", QoS::AtMostOnce);
    let mut publisher = Client::connect(running.address, Version::V5, "pub");
    let payload = vec![7; 60_000];
    // Until the slow one's QoS 0 goes; who reads gets every message.
    while running.count("dropped_memory") < 20 {
        publisher.publish("t", &payload, QoS::AtMostOnce);
        assert_eq!(quick.message().payload.len(), payload.len());
        let held = running.status()["broker"]["memory"].as_u64().unwrap();
        assert!(held <= most as u64, "{held}");
    }
    slow.ping_past_messages();
}

// [MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-11]
#[test]
fn no_topic_alias_is_above_what_the_client_takes() {
    let running = start();
    for most in [None, Some(0), Some(2)] {
        let mut client = Client::open(running.address, Version::V5);
        let Packet::Connect(mut packet) = connect(Version::V5, "aliased") else { panic!("CONNECT") };
        packet.properties =
            Properties::from_list(&most.map(Property::TopicAliasMaximum).into_iter().collect::<Vec<_>>());
        client.send(&Packet::Connect(packet));
        assert!(matches!(client.next(), Packet::ConnAck(ack) if ack.reason == Reason::Success));
        client.subscribe("t/#", QoS::AtMostOnce);
        let mut topics = vec![String::new(); usize::from(most.unwrap_or(0)) + 1];
        for round in 0..3 {
            for number in 0..5 {
                let topic = format!("t/{number}");
                client.publish(&topic, &[round], QoS::AtMostOnce);
                let message = client.message();
                let alias = usize::from(message.properties.topic_alias().unwrap_or(0));
                assert!(alias < topics.len(), "alias {alias} where {most:?} is allowed");
                if !message.topic.is_empty() {
                    topics[alias] = message.topic.to_string();
                }
                assert_eq!(topics[alias], topic);
            }
        }
        client.disconnect();
    }
}

// [MQTT5-3.1.2-24]
#[test]
fn an_answer_that_is_too_large_for_its_client_ends_the_connection_with_the_reason() {
    let running = start();
    let mut client = Client::open(running.address, Version::V5);
    let Packet::Connect(mut packet) = connect(Version::V5, "small") else { panic!("CONNECT") };
    packet.properties = Properties::from_list(&[Property::MaximumPacketSize(40)]);
    client.send(&Packet::Connect(packet));
    assert!(matches!(client.next(), Packet::ConnAck(_)));
    for (filters, fits) in [(35, true), (36, false)] {
        let Packet::Subscribe(mut packet) = subscribe("t", QoS::AtMostOnce) else { panic!("SUBSCRIBE") };
        packet.filters = vec![packet.filters[0].clone(); filters];
        client.send(&Packet::Subscribe(packet));
        match client.next() {
            Packet::SubAck(ack) => assert!(fits && ack.reasons.len() == filters),
            Packet::Disconnect(end) => assert!(!fits && end.reason == Reason::PacketTooLarge),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.maybe_next(), None);
}

// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
#[test]
fn a_repeat_that_is_too_large_for_the_new_connection_counts_as_sent() {
    let running = start();
    let open = |most: u32| {
        let mut client = Client::open(running.address, Version::V5);
        let Packet::Connect(mut packet) = connect_kept(Version::V5, "kept") else { panic!("CONNECT") };
        packet.properties = Properties::from_list(&[
            Property::SessionExpiryInterval(100),
            Property::MaximumPacketSize(most),
            Property::ReceiveMaximum(1),
        ]);
        client.send(&Packet::Connect(packet));
        assert!(matches!(client.next(), Packet::ConnAck(ack) if ack.reason == Reason::Success));
        client
    };
    let mut client = open(1_000);
    client.subscribe("t", QoS::AtLeastOnce);
    let mut publisher = Client::connect(running.address, Version::V5, "pub");
    publisher.publish("t", &[7; 100], QoS::AtLeastOnce);
    assert_eq!(client.message().payload.len(), 100);
    // It was not acknowledged, and the next connection takes less.
    let mut client = open(50);
    publisher.publish("t", b"short", QoS::AtLeastOnce);
    let message = client.message();
    assert_eq!(&*message.payload, b"short");
    client.send(&puback(message.packet_id));
    client.ping();
    let mut client = open(1_000);
    client.ping();
}

#[test]
fn what_every_socket_costs_is_bounded() {
    assert!(size_of::<super::socket::Socket>() <= 176, "{}", size_of::<super::socket::Socket>());
}
