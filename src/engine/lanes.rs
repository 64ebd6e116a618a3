//! Tests of who waits for whom, turn by turn: who says little, who says much, who comes and who goes.
//!
//! What is counted is turns, and what has left in each.

use super::stepped::Stepped;
use super::testing::{connect, publish, subscribe};
use super::turn::Engine;
use crate::codec::{Disconnect, Packet, Properties, QoS, Reason, Version, Will};

fn topics(packets: &[Packet]) -> Vec<&str> {
    let topics = packets.iter().map(|packet| match packet {
        Packet::Publish(publish) => &*publish.topic,
        other => panic!("a PUBLISH, not {other:?}"),
    });
    topics.collect()
}

#[test]
fn a_fan_out_that_never_ends_keeps_nobody_waiting_for_its_end() {
    let mut stepped = Stepped::start(|_| {});
    // More than are flushed at once, and not so many that the speaker himself has to step back.
    let readers = stepped.readers(200, "t", QoS::AtMostOnce);
    let mut speaker = stepped.connect("speaker");
    let mut talker = stepped.connect("talker");
    let leaver = stepped.connect("leaver");
    let sockets = stepped.engine.table.sockets();
    speaker.publish("t", b"x", QoS::AtMostOnce);
    stepped.turn();
    // One comes, one says more than a few words, and one hangs up.
    let mut comer = stepped.open();
    comer.send(&connect(Version::V5, "comer"));
    talker.send_bytes(&talker.bytes(&Packet::PingReq).repeat(100));
    drop(leaver);
    for _ in 0..200 {
        speaker.publish("t", b"x", QoS::AtMostOnce);
        stepped.turn();
        assert!(!stepped.engine.courier.put_off.is_empty(), "the fan-out never ends");
    }
    assert_eq!(comer.take_now().len(), 1, "he is in");
    assert_eq!(talker.take_now().len(), 100);
    assert_eq!(stepped.engine.table.sockets(), sockets, "one more and one less");
    drop(readers);
}

#[test]
fn what_is_said_at_length_leaves_in_large_pieces() {
    let (readers, messages, size) = (100, 1_000, 100);
    let mut stepped = Stepped::start(|parts| parts.limits.max_memory = 8 << 20);
    let gathered = stepped.engine.gathered_max();
    let mut subscribed = stepped.readers(readers, "t", QoS::AtMostOnce);
    let mut flood = stepped.connect("flood");
    let bytes = flood.bytes(&publish("t", &vec![7; size], QoS::AtMostOnce, 0)).repeat(messages);
    flood.send_bytes(&bytes);
    // The first words are brief.
    stepped.turn();
    stepped.engine.counters.most_work = 0;
    let (mut got, mut pieces) = (0, 0);
    stepped.turn_until(5_000, |_| {
        for reader in &mut subscribed {
            let packets = reader.take_now();
            pieces += usize::from(!packets.is_empty());
            got += packets.len();
        }
        got == readers * messages
    });
    // These are a piece too, and what is left at the end is one.
    let rounds = readers * messages * size / gathered + 4;
    assert!(pieces <= readers * rounds, "{pieces} pieces for {readers}, in more than {rounds} rounds");
    let most = stepped.engine.counters.most_work;
    assert!(most < 8_000, "{most} in one turn");
}

#[test]
fn who_is_flooded_is_answered_at_once_and_nobody_is_flushed_for_that() {
    let mut stepped = Stepped::start(|_| {});
    let mut others = stepped.readers(50, "t", QoS::AtMostOnce);
    let mut panel = stepped.reader("panel", "t", QoS::AtMostOnce);
    let mut speaker = stepped.connect("speaker");
    let mut flood = stepped.connect("flood");
    flood.send_bytes(&flood.bytes(&publish("t", &[7; 20], QoS::AtMostOnce, 0)).repeat(1_000));
    stepped.turn_until(5, |engine| engine.courier.put_off.len() == 51);
    for other in &mut others {
        other.take_now();
    }
    for question in [Packet::PingReq, publish("elsewhere", b"x", QoS::AtLeastOnce, 1)].iter().cycle().take(8)
    {
        panel.send(question);
        stepped.turn();
        assert!(
            matches!(panel.take_now().last(), Some(Packet::PingResp | Packet::PubAck(_))),
            "what he is answered is the last of what he is sent in that turn"
        );
        assert!(others.iter_mut().all(|other| other.take_now().is_empty()), "the flood still gathers");
    }
    speaker.publish("t", b"brief", QoS::AtMostOnce);
    stepped.turn();
    for reader in others.iter_mut().chain([&mut panel]) {
        let packets = reader.take_now();
        assert!(matches!(packets.last(), Some(Packet::Publish(last)) if &*last.payload == b"brief"));
    }
    let in_order = stepped.engine.courier.put_off.len();
    assert!(in_order <= 51, "each stands once among those who wait: {in_order}");
}

#[test]
fn an_answer_leaves_before_the_messages_of_the_same_turn() {
    let mut stepped = Stepped::start(|_| {});
    let mut readers = stepped.readers(300, "t", QoS::AtMostOnce);
    let mut speaker = stepped.connect("speaker");
    let mut other = stepped.connect("other");
    speaker.publish("t", b"x", QoS::AtLeastOnce);
    other.send(&Packet::PingReq);
    stepped.turn();
    assert!(matches!(speaker.take_now()[..], [Packet::PubAck(_)]));
    assert_eq!(other.take_now(), [Packet::PingResp]);
    stepped.turn_until(40, |engine| engine.courier.put_off.is_empty());
    assert!(readers.iter_mut().all(|reader| reader.take_now().len() == 1));
}

#[test]
fn an_answer_leaves_with_all_that_stands_before_it() {
    let mut stepped = Stepped::start(|_| {});
    let mut panel = stepped.reader("panel", "t", QoS::AtMostOnce);
    let mut flood = stepped.connect("flood");
    // So many that some are still to be read by then.
    flood.send_bytes(&flood.bytes(&publish("t", &[7; 400], QoS::AtMostOnce, 0)).repeat(430));
    stepped.turn_until(50, |engine| engine.courier.gathered > 100_000);
    assert_eq!(stepped.engine.courier.put_off.len(), 1);
    panel.send(&Packet::PingReq);
    stepped.turn();
    assert!(matches!(panel.take_now().last(), Some(Packet::PingResp)));
}

#[test]
fn who_has_much_to_say_each_time_is_answered_in_one_piece() {
    let mut stepped = Stepped::start(|_| {});
    let reader = stepped.reader("reader", "t", QoS::AtMostOnce);
    let mut speaker = stepped.greet_in(Version::V311, &connect(Version::V311, "speaker"));
    let mut flood = stepped.connect("flood");
    for round in 0..4 {
        // While somebody floods, what is not brief gathers.
        let flooded = flood.bytes(&publish("elsewhere", &[7; 400], QoS::AtMostOnce, 0)).repeat(400);
        flood.send_bytes(&flooded);
        stepped.turn();
        let told = |engine: &Engine| engine.counters.packets_in - engine.counters.passed;
        let before = told(&stepped.engine);
        let words = (1..=32).map(|id| speaker.bytes(&publish("t", b"x", QoS::AtLeastOnce, id)));
        speaker.send_bytes(&words.collect::<Vec<_>>().concat());
        let mut pieces = Vec::new();
        stepped.turn_until(1_000, |_| {
            pieces.extend(Some(speaker.take_now().len()).filter(|answers| *answers > 0));
            pieces.iter().sum::<usize>() == 32
        });
        // Nobody knew before that he has so much.
        assert_eq!(pieces.len() == 1, round > 0, "round {round}: {pieces:?}");
        stepped.turn_until(1_000, |engine| !engine.intake.is_ready());
        // Once its way is known all of it goes straight, but not a packet that a read has cut.
        let told = told(&stepped.engine) - before;
        assert!(round == 0 || told < 8, "round {round}: {told} were told of");
    }
    drop(reader);
}

#[test]
fn who_had_much_to_say_is_served_first_again_once_it_is_little() {
    let mut stepped = Stepped::start(|_| {});
    let mut talker = stepped.connect("talker");
    let mut flood = stepped.connect("flood");
    let mut say = |stepped: &mut Stepped, packets: &[Packet]| {
        packets.iter().for_each(|packet| talker.send(packet));
        let mut answers = 0;
        stepped.turn_until(10, |_| {
            answers += talker.take_now().len();
            answers == packets.len()
        });
    };
    say(&mut stepped, &vec![Packet::PingReq; 17]);
    // Few, but more than the first of a lane is let say at first.
    say(&mut stepped, &["a", "b"].map(|filter| subscribe(filter, QoS::AtMostOnce)));
    flood.send_bytes(&flood.bytes(&publish("elsewhere", &[7; 400], QoS::AtMostOnce, 0)).repeat(400));
    stepped.turn();
    talker.send(&Packet::PingReq);
    stepped.turn();
    assert!(stepped.engine.intake.is_long(), "the flood goes on");
    assert_eq!(talker.take_now(), [Packet::PingResp]);
}

/// CONNECT with a will, for the topic of that name.
fn connect_with_will() -> Packet {
    let Packet::Connect(mut hello) = connect(Version::V5, "leaver") else { panic!("CONNECT") };
    hello.will = Some(Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "will".into(),
        payload: "x".into(),
        properties: Properties::new(),
    });
    Packet::Connect(hello)
}

// [MQTT5-3.14.4-3] [MQTT311-3.14.4-3]
#[test]
fn what_was_said_before_the_end_counts_although_a_write_met_the_end_first() {
    let bye = Packet::Disconnect(Disconnect { reason: Reason::Success, properties: Properties::new() });
    for is_clean in [true, false] {
        let mut stepped = Stepped::start(|_| {});
        let mut watcher = stepped.reader("watcher", "will", QoS::AtMostOnce);
        watcher.send(&subscribe("last", QoS::AtMostOnce));
        stepped.answer(&mut watcher);
        let mut leaver = stepped.greet(&connect_with_will());
        leaver.send(&subscribe("t", QoS::AtMostOnce));
        stepped.answer(&mut leaver);
        let mut speaker = stepped.connect("speaker");
        let sockets = stepped.engine.table.sockets();
        leaver.publish("last", b"x", QoS::AtMostOnce);
        if is_clean {
            leaver.send(&bye);
        }
        drop(leaver);
        speaker.publish("t", b"x", QoS::AtMostOnce);
        // Who says little is served first, so this is written before the end is read.
        stepped.turn_until(20, |engine| engine.table.sockets() < sockets);
        stepped.turn();
        let expected: &[&str] = if is_clean { &["last"] } else { &["last", "will"] };
        assert_eq!(topics(&watcher.take_now()), expected);
    }
}

// [MQTT5-3.14.4-3] [MQTT311-3.14.4-3]
#[test]
fn what_was_said_before_the_end_counts_although_nothing_more_was_read() {
    let limit = 100_000;
    let bye = Packet::Disconnect(Disconnect { reason: Reason::Success, properties: Properties::new() });
    let mut stepped = Stepped::start(|parts| parts.limits.max_send_buffer = limit);
    let mut watcher = stepped.reader("watcher", "will", QoS::AtMostOnce);
    watcher.send(&subscribe("last", QoS::AtMostOnce));
    stepped.answer(&mut watcher);
    let mut leaver = stepped.greet(&connect_with_will());
    leaver.send(&subscribe("t", QoS::AtLeastOnce));
    stepped.answer(&mut leaver);
    let mut speaker = stepped.connect("speaker");
    let sockets = stepped.engine.table.sockets();
    // He takes so little of what he is owed that he is not read on.
    for _ in 0..10 {
        speaker.publish("t", &vec![7; 60_000], QoS::AtLeastOnce);
        assert!(matches!(stepped.answer(&mut speaker), Packet::PubAck(_)));
    }
    stepped.turn_until(20, |engine| engine.courier.put_off.is_empty() && engine.table.held() > limit);
    let read = stepped.engine.counters.bytes_in;
    leaver.publish("last", b"x", QoS::AtMostOnce);
    leaver.send(&bye);
    stepped.turn();
    assert_eq!(stepped.engine.counters.bytes_in, read, "he is not read on");
    drop(leaver);
    stepped.turn_until(20, |engine| engine.table.sockets() < sockets);
    stepped.turn();
    assert_eq!(topics(&watcher.take_now()), ["last"]);
}

#[test]
fn what_is_large_and_for_many_keeps_no_small_message_waiting() {
    let mut stepped = Stepped::start(|_| {});
    let mut readers = stepped.readers(50, "large", QoS::AtMostOnce);
    let mut panel = stepped.reader("panel", "small", QoS::AtMostOnce);
    let mut loud = stepped.connect("loud");
    let mut speaker = stepped.connect("speaker");
    loud.publish("large", &[7; 10_000], QoS::AtMostOnce);
    speaker.publish("small", b"x", QoS::AtMostOnce);
    let mut got = 0;
    for _ in 0..2 {
        stepped.turn();
        let now: usize = readers.iter_mut().map(|reader| reader.take_now().len()).sum();
        assert!(now <= 16, "{now} of 50 large messages in one turn");
        got += now;
    }
    assert_eq!(topics(&panel.take_now()), ["small"]);
    stepped.turn_until(50, |_| {
        got += readers.iter_mut().map(|reader| reader.take_now().len()).sum::<usize>();
        got == 50
    });
}

#[test]
fn who_means_much_to_many_is_served_behind_who_means_little() {
    // A few words behind what meant much do not make him one who says little.
    for has_more in [false, true] {
        let mut stepped = Stepped::start(|_| {});
        let mut readers = stepped.readers(20, "large", QoS::AtMostOnce);
        let mut panel = stepped.connect("panel");
        let mut loud = stepped.connect("loud");
        let mut arrived = || readers.iter_mut().map(|reader| reader.take_now().len()).sum::<usize>();
        for round in 0..5 {
            loud.publish("large", &[7; 7_000], QoS::AtMostOnce);
            if has_more {
                loud.send(&Packet::PingReq);
            }
            panel.send(&Packet::PingReq);
            stepped.turn();
            assert_eq!(panel.take_now(), [Packet::PingResp]);
            let mut got = arrived();
            if round == 0 {
                // Nobody knew yet what he means.
                stepped.engine.counters.most_work = 0;
            } else {
                assert_eq!(got, 0, "what was much leaves in another turn than it came");
            }
            stepped.turn_until(50, |engine| {
                got += arrived();
                got == 20 && !engine.intake.is_ready()
            });
        }
        let most = stepped.engine.counters.most_work;
        assert!(most < 1_500, "{most} in one turn");
    }
}
