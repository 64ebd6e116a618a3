//! Tests of what goes straight and is kept.
//!
//! It is written in its order, and answered once that is committed.

use std::os::unix::net::UnixStream;

use super::Input;
use super::stepped::Stepped;
use super::testing::{Client, connect, connect_kept, publish, subscribe};
use crate::broker::tests::random::{Random, fresh_seed};
use crate::codec::{Packet, QoS, Version};
use crate::record::{Ticket, Write};

/// What the store was told: the numbers of messages, in their order, how many writes, and whether to hurry.
#[derive(Default)]
struct Told {
    numbers: Vec<u32>,
    writes: u64,
    hurries: u64,
}

impl Told {
    fn hear(&mut self, stepped: &Stepped) {
        for (batch, hurry) in stepped.written() {
            self.writes += batch.len() as u64;
            self.hurries += u64::from(hurry);
            self.numbers.extend(batch.iter().filter_map(|write| match write {
                Write::Message { message, .. } => Some(number_of(&message.payload)),
                _ => None,
            }));
        }
    }

    /// All that was written is committed.
    fn commit(&mut self, stepped: &mut Stepped) {
        self.hear(stepped);
        stepped.say(Input::Committed(Ticket(self.writes)));
        (0..3).for_each(|_| stepped.turn());
        self.hear(stepped);
    }
}

fn number_of(payload: &[u8]) -> u32 {
    u32::from_be_bytes(*payload.first_chunk().unwrap())
}

fn number_of_packet(packet: &Packet) -> u32 {
    let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
    number_of(&publish.payload)
}

/// A session that keeps what is said in `k/#`, and is away.
fn keeper(stepped: &mut Stepped, told: &mut Told) {
    let mut client = stepped.open_in(Version::V311);
    for packet in [connect_kept(Version::V311, "keeper"), subscribe("k/#", QoS::AtLeastOnce)] {
        client.send(&packet);
        stepped.turn_until(20, |engine| engine.broker.counters().uncommitted == 0);
        (0..5).for_each(|_| stepped.turn());
        told.commit(stepped);
        assert_eq!(client.take_now().len(), 1);
    }
    drop(client);
    (0..5).for_each(|_| stepped.turn());
    told.commit(stepped);
}

/// Who keeps what is said in `k/#` and is away, so many of them.
fn keepers(stepped: &mut Stepped, told: &mut Told, count: usize) {
    for number in 0..count {
        let mut client = stepped.open_in(Version::V311);
        for packet in
            [connect_kept(Version::V311, &format!("keeper-{number}")), subscribe("k/#", QoS::AtLeastOnce)]
        {
            client.send(&packet);
            (0..2).for_each(|_| stepped.turn());
            told.commit(stepped);
        }
        assert_eq!(client.take_now().len(), 2);
    }
    (0..5).for_each(|_| stepped.turn());
    told.commit(stepped);
}

/// The packet ids of the answers that have come.
fn answered(client: &mut Client<UnixStream>) -> Vec<u16> {
    let ids = client.take_now().into_iter().filter_map(|packet| match packet {
        Packet::PubAck(ack) => Some(ack.packet_id),
        Packet::PingResp => None,
        other => panic!("{other:?}"),
    });
    ids.collect()
}

#[test]
fn what_is_kept_is_written_in_its_order_and_answered_once_it_is_committed() {
    let fresh = fresh_seed();
    println!("seed {fresh}");
    for (seed, version) in [(1, Version::V311), (2, Version::V5), (fresh, Version::V31)] {
        let (mut random, mut told) = (Random(seed), Told::default());
        let mut stepped = Stepped::start(|parts| parts.limits.max_send_buffer = 1 << 20);
        keeper(&mut stepped, &mut told);
        let mut panel = stepped.reader("panel", "k/1", QoS::AtMostOnce);
        let mut speaker = stepped.greet_in(version, &connect(version, "speaker"));
        let (mut number, mut ended) = (0_u32, 0);
        let (mut shown, mut got) = (Vec::new(), Vec::new());
        for _ in 0..300 {
            let mut bytes = Vec::new();
            for _ in 0..[1, 3, 3, 15][random.below(4)] {
                if number - ended < 18 {
                    number += 1;
                    // Mostly what is known, and some that are like none before.
                    let other = format!("k/{number}");
                    let topic = ["k/1", "k/1", "k/1", "k/2", &other][random.below(5)];
                    shown.extend((topic == "k/1").then_some(number));
                    let id = u16::try_from(number).unwrap();
                    bytes.extend(speaker.bytes(&publish(topic, &number.to_be_bytes(), QoS::AtLeastOnce, id)));
                }
                match random.below(20) {
                    0 => bytes.extend(speaker.bytes(&Packet::PingReq)),
                    1 => bytes.extend(speaker.bytes(&publish("other", b"x", QoS::AtMostOnce, 0))),
                    _ => {}
                }
            }
            let cut = bytes.len() - random.below(4).min(bytes.len());
            speaker.send_bytes(&bytes[..cut]);
            stepped.turn();
            assert_eq!(answered(&mut speaker), [0; 0], "nothing is committed");
            speaker.send_bytes(&bytes[cut..]);
            (0..3).for_each(|_| stepped.turn());
            got.extend(panel.take_now());
            if random.below(2) == 0 {
                told.commit(&mut stepped);
                assert_eq!(told.numbers, (1..=number).collect::<Vec<u32>>(), "seed {seed}");
                let ids: Vec<u32> = answered(&mut speaker).into_iter().map(u32::from).collect();
                assert_eq!(ids, (ended + 1..=number).collect::<Vec<u32>>(), "seed {seed}");
                ended = number;
            }
        }
        (0..3).for_each(|_| stepped.turn());
        got.extend(panel.take_now());
        let shown_to_it: Vec<u32> = got.iter().map(number_of_packet).collect();
        assert_eq!(shown_to_it, shown, "seed {seed}");
        let passed = stepped.engine.counters.passed;
        assert!(passed > u64::from(number) / 2, "{passed} of {number} have gone straight");
    }
}

#[test]
fn who_can_do_nothing_but_wait_has_the_commit_hastened() {
    let mut stepped = Stepped::start(|_| {});
    let mut told = Told::default();
    keeper(&mut stepped, &mut told);
    let mut speaker = stepped.greet_in(Version::V311, &connect(Version::V311, "speaker"));
    for number in 0..10_u32 {
        let passed = stepped.engine.counters.passed;
        speaker.send(&publish("k/1", &number.to_be_bytes(), QoS::AtLeastOnce, 1));
        let hurries = told.hurries;
        (0..3).for_each(|_| stepped.turn());
        told.hear(&stepped);
        assert_eq!(told.hurries, hurries + 1, "{number}");
        assert_eq!(stepped.engine.counters.passed - passed, u64::from(number > 1));
        told.commit(&mut stepped);
        assert_eq!(answered(&mut speaker), [1]);
    }
}

#[test]
fn who_keeps_a_message_is_work_whether_its_way_is_known_or_not() {
    for topics in [1, 1_000] {
        let mut stepped = Stepped::start(|parts| parts.limits.max_send_buffer = 1 << 20);
        let mut told = Told::default();
        keepers(&mut stepped, &mut told, 100);
        let mut speaker = stepped.greet_in(Version::V311, &connect(Version::V311, "speaker"));
        let said: Vec<u8> = (0..1_000_u16)
            .flat_map(|number| {
                let topic = format!("k/{}", number % topics);
                speaker.bytes(&publish(
                    &topic,
                    &u32::from(number).to_be_bytes(),
                    QoS::AtLeastOnce,
                    number + 1,
                ))
            })
            .collect();
        speaker.send_bytes(&said);
        let mut most = 0;
        for _ in 0..400 {
            let before = told.numbers.len();
            stepped.turn();
            told.hear(&stepped);
            most = most.max(told.numbers.len() - before);
        }
        assert_eq!(told.numbers.len(), 1_000, "all are kept");
        assert!((5..=30).contains(&most), "{most} in one turn, among {topics} topics");
    }
}

#[test]
fn while_one_has_more_to_say_the_others_do_not_have_the_commit_hastened() {
    let mut stepped = Stepped::start(|_| {});
    let mut told = Told::default();
    keeper(&mut stepped, &mut told);
    let mut speakers =
        ["one", "two", "three"].map(|name| stepped.greet_in(Version::V311, &connect(Version::V311, name)));
    for round in 0..9_u32 {
        // Each says as much as it ever did, or one of them does not; all in one turn.
        let said = |speaker: usize| if round > 2 && round as usize % 4 == speaker { 3 } else { 5 };
        for (place, speaker) in speakers.iter_mut().enumerate() {
            for id in 1..=said(place) {
                speaker.send(&publish("k/1", &round.to_be_bytes(), QoS::AtLeastOnce, id));
            }
        }
        let hurries = told.hurries;
        stepped.turn();
        told.hear(&stepped);
        if round > 2 {
            assert_eq!(told.hurries - hurries, u64::from(round % 4 == 3), "{round}");
        }
        told.commit(&mut stepped);
        for (place, speaker) in speakers.iter_mut().enumerate() {
            assert_eq!(answered(speaker), (1..=said(place)).collect::<Vec<u16>>());
        }
    }
    assert!(stepped.engine.counters.passed > 90, "{}", stepped.engine.counters.passed);
}
