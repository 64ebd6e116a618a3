//! Tests of who waits for whom, turn by turn: who says little, who says much, who comes and who goes.
//!
//! What is counted is turns, and what has left in each.

use super::stepped::Stepped;
use super::testing::{connect, publish};
use crate::codec::{Packet, QoS, Version};

#[test]
fn a_fan_out_that_never_ends_keeps_nobody_waiting_for_its_end() {
    let mut stepped = Stepped::start(|_| {});
    let readers = stepped.readers(300, "t", QoS::AtMostOnce);
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
