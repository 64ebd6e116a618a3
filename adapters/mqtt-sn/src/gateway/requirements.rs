//! The standard's requirements as scripts, each with its number from the list of 143.
//!
//! One test a requirement, or a few that only make sense together; what the codec alone answers for
//! (numbers 1 to 52) stands in `codec::golden`.

use std::time::Duration;

use adapter_api::{FromPort, Qos};

use super::scripts::{check, check_with, play};
use super::{Effect, PortNumber};
use crate::{Checked, QosMinusOne};

/// A client c1 at peer a, connected through port 2 with a clean session.
const CLEAN: [&str; 3] = ["a: connect c1 clean", "2: connected", "---"];

/// The same with a session that is kept.
const KEPT: [&str; 3] = ["a: connect c1", "2: connected", "---"];

fn clean(script: &[&str], expected: &str) {
    check(&[&CLEAN, script].concat(), expected);
}

fn clean_with(change: impl Fn(&mut Checked), script: &[&str], expected: &str) {
    check_with(change, &[&CLEAN, script].concat(), expected);
}

fn kept(script: &[&str], expected: &str) {
    check(&[&KEPT, script].concat(), expected);
}

#[test]
fn sn_008_009_what_is_no_message_is_counted_and_not_answered() {
    let script = [&CLEAN[..], &["a: hex 02 03", "a: hex 05 16", "a: hex", "a: hex 02 ff"]].concat();
    let script: Vec<&str> = script.into_iter().filter(|line| *line != "a: hex").collect();
    let (said, gateway) = play(|_| (), &script);
    assert!(said.is_empty());
    let counters = gateway.counters();
    assert_eq!((counters.ignored_reserved, counters.ignored_malformed, counters.received), (2, 1, 4));
}

#[test]
fn sn_006_143_a_datagram_longer_than_max_packet_is_counted_and_not_read() {
    let long = format!("a: connect {}", "x".repeat(60));
    let (said, gateway) = play(|settings| settings.max_packet = 60, &[&long]);
    assert!(said.is_empty());
    assert_eq!(gateway.counters().ignored_too_large, 1);
}

#[test]
fn sn_010_a_client_id_has_1_to_64_characters() {
    let longest = "x".repeat(64);
    check(&[&format!("a: connect {longest} clean")], &format!("open 2 {longest} clean"));
    check(&[&format!("a: connect {longest}x clean")], "a< connack not-supported");
    check(&["a: hex 06 04 04 01 00 00"], "a< connack not-supported");
}

#[test]
fn sn_014_a_reserved_topic_id_type_is_not_supported() {
    clean(
        &["a: publish reserved:5 7 hi qos1", "a: subscribe 8 reserved:x", "a: unsubscribe 9 reserved:x"],
        "a< puback 5 7 not-supported
         a< suback 0 8 qos0 not-supported
         a< unsuback 9",
    );
}

#[test]
fn sn_018_another_protocol_id_is_not_supported() {
    check(&["a: connect c1 clean protocol=2"], "a< connack not-supported");
}

#[test]
fn sn_016_057_058_searchgw_is_answered_by_gwinfo() {
    check(&["a: searchgw"], "a< gwinfo 1");
    check_with(|settings| settings.gateway_id = 9, &["a: searchgw"], "a< gwinfo 9");
}

#[test]
fn sn_046_a_forwarders_frame_is_counted_and_not_answered() {
    let (said, gateway) = play(|_| (), &["a: hex 05 fe 01 aa bb 03 01 00"]);
    assert!(said.is_empty());
    assert_eq!(gateway.counters().ignored_encapsulated, 1);
}

#[test]
fn sn_063_will_topic_and_message_are_asked_for_before_connack() {
    check(
        &["a: connect c1 clean will", "a: willtopic w/t qos1 retain", "a: willmsg bye", "2: connected"],
        "a< willtopicreq
         a< willmsgreq
         open 2 c1 clean will=w/t:bye:qos1:retain
         a< connack accepted",
    );
}

#[test]
fn sn_064_without_a_will_connack_follows_at_once() {
    check(
        &["a: connect c1 clean", "2: connected"],
        "open 2 c1 clean
         a< connack accepted",
    );
}

#[test]
fn sn_065_what_the_broker_refuses_is_refused() {
    check(&["a: connect c1 clean", "---", "2: closed quota"], "drop 2\na< connack congestion");
    check(&["a: connect c1 clean", "---", "2: closed denied"], "drop 2\na< connack not-supported");
    check(&["a: connect c1 clean will", "---", "a: willtopic w/# qos1"], "a< connack not-supported");
}

#[test]
fn sn_066_067_a_clean_session_begins_and_ends_with_nothing_kept() {
    check(
        &[
            "a: connect c1 will",
            "a: willtopic w",
            "a: willmsg bye",
            "2: connected",
            "a: register 1 t/x",
            "a: disconnect",
            "2: gone",
            "---",
            "a: connect c1 clean",
            "3: connected",
            "a: publish normal:1 2 hi qos1",
        ],
        "open 3 c1 clean
         a< connack accepted
         a< puback 1 2 invalid-topic-id",
    );
}

#[test]
fn sn_068_069_a_kept_session_keeps_its_will_until_another_is_given() {
    let first = [
        "a: connect c1 will",
        "a: willtopic w",
        "a: willmsg one",
        "2: connected",
        "a: disconnect",
        "2: gone",
    ];
    check(&[&first[..], &["---", "a: connect c1"]].concat(), "open 3 c1 kept will=w:one:qos0");
    let again = ["---", "a: connect c1 will", "a: willtopic v qos2", "a: willmsg two"];
    check(
        &[&first[..], &again].concat(),
        "a< willtopicreq
         a< willmsgreq
         open 3 c1 kept will=v:two:qos2",
    );
}

#[test]
fn sn_070_an_empty_will_topic_deletes_the_will() {
    check(
        &[
            "a: connect c1 will",
            "a: willtopic w",
            "a: willmsg one",
            "2: connected",
            "a: disconnect",
            "2: gone",
            "---",
            "a: connect c1 will",
            "a: willtopic",
            "3: connected",
        ],
        "a< willtopicreq
         open 3 c1 kept
         a< connack accepted",
    );
}

#[test]
fn sn_071_a_repeated_connect_changes_nothing() {
    check(
        &["a: connect c1 clean", "a: connect c1 clean", "2: connected", "a: connect c1 clean"],
        "open 2 c1 clean
         a< connack accepted
         a< connack accepted",
    );
}

#[test]
fn sn_071_a_connect_after_other_messages_is_a_new_connection_and_publishes_no_will() {
    clean(
        &["a: pingreq", "a: connect c1 clean", "2: gone", "3: connected"],
        "a< pingresp
         ask 2 close
         open 3 c1 clean
         a< connack accepted",
    );
}

#[test]
fn sn_071_a_connect_from_another_address_takes_over() {
    kept(
        &["b: connect c1", "2: gone", "3: connected present", "a: pingreq", "b: pingreq"],
        "ask 2 close
         open 3 c1 kept
         b< connack accepted
         a< disconnect
         b< pingresp",
    );
}

#[test]
fn sn_071_another_client_at_an_address_displaces_the_one_that_was_there() {
    clean(
        &["a: connect c9 clean", "4: connected"],
        "note lost c1 displaced
         drop 2
         open 4 c9 clean
         a< connack accepted",
    );
}

#[test]
fn sn_072_a_repeated_message_of_the_will_handshake_is_asked_on() {
    check(
        &[
            "a: connect c1 clean will",
            "a: connect c1 clean will",
            "a: willtopic w",
            "a: willtopic w",
            "a: connect c1 clean will",
            "a: willmsg bye",
            "a: willmsg bye",
            "2: connected",
            "a: willmsg bye",
        ],
        "a< willtopicreq
         a< willtopicreq
         a< willmsgreq
         a< willmsgreq
         a< willmsgreq
         open 2 c1 clean will=w:bye:qos0
         a< connack accepted
         a< connack accepted",
    );
}

#[test]
fn sn_072_a_handshake_that_is_not_finished_ends_by_itself() {
    let (said, gateway) = play(|_| (), &["a: connect c1 clean will", "wait 40s", "---", "a: willtopic w"]);
    assert_eq!(said, ["a< disconnect"]);
    assert_eq!(gateway.counters().sessions, 0);
}

#[test]
fn sn_073_a_will_update_is_not_supported() {
    clean(
        &["a: willtopicupd w", "a: willmsgupd x"],
        "a< willtopicresp not-supported
         a< willmsgresp not-supported",
    );
}

#[test]
fn sn_075_076_register_gives_an_id_and_the_same_one_again() {
    clean(
        &["a: register 1 t/x", "a: register 2 t/y", "a: register 3 t/x"],
        "a< regack 1 1 accepted
         a< regack 2 2 accepted
         a< regack 1 3 accepted",
    );
}

#[test]
fn sn_077_a_wildcard_cannot_be_registered() {
    clean(
        &["a: register 1 t/#", "a: register 2 t/+/x", "a: hex 06 0a 00 00 00 03"],
        "a< regack 0 1 not-supported
         a< regack 0 2 not-supported
         a< regack 0 3 not-supported",
    );
}

#[test]
fn sn_078_080_a_wildcards_topic_is_registered_before_its_first_message() {
    clean(
        &[
            "a: subscribe 7 t/# qos1",
            "2: subscribed 1 qos1",
            "2: message t/x hi qos1 id=5",
            "a: regack 1 1 accepted",
            "a: puback 1 5 accepted",
            "2: message t/x ho qos0",
        ],
        "ask 2 subscribe 1 t/# qos1
         a< suback 0 7 qos1 accepted
         a< register 1 1 t/x
         a< publish normal:1 5 hi qos1
         ask 2 acknowledge 5
         ask 2 grant 1
         a< publish normal:1 0 ho qos0
         ask 2 grant 1",
    );
}

#[test]
fn sn_079_after_a_reconnection_a_topic_is_registered_again() {
    kept(
        &[
            "a: subscribe 7 t/x qos1",
            "2: subscribed 1 qos1",
            "a: disconnect",
            "2: gone",
            "---",
            "a: connect c1",
            "3: connected present",
            "3: message t/x hi qos1 id=5",
            "a: regack 1 1 accepted",
        ],
        "open 3 c1 kept
         a< connack accepted
         a< register 1 1 t/x
         a< publish normal:1 5 hi qos1",
    );
}

#[test]
fn sn_081_pipelined_registers_and_subscribes_are_all_answered() {
    clean(
        &[
            "a: register 1 t/x",
            "a: register 2 t/y",
            "a: subscribe 3 t/z qos1",
            "a: subscribe 4 t/+ qos0",
            "a: register 5 t/w",
            "2: subscribed 1 qos1",
            "2: subscribed 2 qos0",
        ],
        "a< regack 1 1 accepted
         a< regack 2 2 accepted
         ask 2 subscribe 1 t/z qos1
         ask 2 subscribe 2 t/+ qos0
         a< regack 4 5 accepted
         a< suback 3 3 qos1 accepted
         a< suback 0 4 qos0 accepted",
    );
}

#[test]
fn sn_082_an_id_belongs_to_one_client() {
    clean(
        &[
            "a: register 1 t/x",
            "b: connect c2 clean",
            "4: connected",
            "---",
            "b: publish normal:1 2 hi qos1",
            "b: register 3 other",
        ],
        "b< puback 1 2 invalid-topic-id
         b< regack 1 3 accepted",
    );
}

#[test]
fn sn_083_a_full_topic_table_is_congestion() {
    clean_with(
        |settings| settings.max_topics = 1,
        &["a: register 1 t/x", "a: register 2 t/y", "a: subscribe 3 t/y"],
        "a< regack 1 1 accepted
         a< regack 0 2 congestion
         a< suback 0 3 qos0 congestion",
    );
}

#[test]
fn sn_084_086_qos_1_is_acknowledged_only_when_the_broker_holds_it() {
    clean(
        &[
            "a: register 1 t/x",
            "---",
            "a: publish normal:1 7 hi qos1 retain",
            "wait 5s",
            "2: published 1",
            "a: publish normal:1 8 hi qos1",
            "2: published 2 quota",
            "a: publish normal:1 9 hi qos1",
            "2: published 3 denied",
        ],
        "ask 2 publish 1 t/x hi qos1 retain
         a< puback 1 7 accepted
         ask 2 publish 2 t/x hi qos1
         a< puback 1 8 congestion
         ask 2 publish 3 t/x hi qos1
         a< puback 1 9 not-supported",
    );
}

#[test]
fn sn_084_qos_2_takes_four_messages() {
    clean(
        &["a: publish short:tt 7 hi qos2", "2: published 1", "a: pubrel 7"],
        "ask 2 publish 1 tt hi qos2
         a< pubrec 7
         a< pubcomp 7",
    );
}

#[test]
fn sn_034_084_qos_0_is_not_acknowledged_whatever_its_message_id() {
    clean(
        &["a: publish short:tt 7 hi qos0", "a: publish short:tt 0 hi qos0"],
        "ask 2 publish 0 tt hi qos0
         ask 2 publish 0 tt hi qos0",
    );
}

#[test]
fn sn_085_an_unknown_id_is_refused_at_every_qos() {
    clean(
        &["a: publish normal:9 0 hi qos0", "a: publish normal:9 7 hi qos1", "a: publish normal:9 8 hi qos2"],
        "a< puback 9 0 invalid-topic-id
         a< puback 9 7 invalid-topic-id
         a< puback 9 8 invalid-topic-id",
    );
}

#[test]
fn sn_086_too_many_open_publishes_are_congestion() {
    let open: Vec<String> = (1..=17).map(|id| format!("a: publish short:tt {id} hi qos1")).collect();
    let mut script = CLEAN.to_vec();
    script.extend(open.iter().take(16).map(String::as_str));
    script.extend(["---", &open[16], "2: published 1", &open[16]]);
    check(
        &script,
        "a< puback 29812 17 congestion
         a< puback 29812 1 accepted
         ask 2 publish 17 tt hi qos1",
    );
}

#[test]
fn sn_087_a_repeated_publish_is_published_once_and_answered_again() {
    clean(
        &[
            "a: publish short:tt 7 hi qos2",
            "a: publish short:tt 7 hi qos2 dup",
            "2: published 1",
            "a: publish short:tt 7 hi qos2 dup",
            "a: pubrel 7",
            "a: pubrel 7",
            "a: publish short:tt 8 hi qos1",
            "a: publish short:tt 8 hi qos1 dup",
            "2: published 2",
        ],
        "ask 2 publish 1 tt hi qos2
         a< pubrec 7
         a< pubrec 7
         a< pubcomp 7
         a< pubcomp 7
         ask 2 publish 2 tt hi qos1
         a< puback 29812 8 accepted",
    );
}

#[test]
fn sn_087_a_publish_of_qos_2_is_known_after_a_reconnection() {
    kept(
        &[
            "a: publish short:tt 7 hi qos2",
            "2: published 1",
            "a: connect c1",
            "2: gone",
            "3: connected present",
            "---",
            "a: publish short:tt 7 hi qos2 dup",
        ],
        "a< pubrec 7",
    );
}

#[test]
fn sn_088_108_one_message_is_under_way_to_a_client() {
    clean(
        &[
            "a: subscribe 7 t/x qos1",
            "2: subscribed 1 qos1",
            "---",
            "2: message t/x one qos1 id=5",
            "2: message t/x two qos1 id=6",
            "a: puback 1 5 accepted",
            "a: puback 1 6 accepted",
        ],
        "a< publish normal:1 5 one qos1
         ask 2 acknowledge 5
         ask 2 grant 1
         a< publish normal:1 6 two qos1
         ask 2 acknowledge 6
         ask 2 grant 1",
    );
}

#[test]
fn sn_089_retain_goes_through_with_an_empty_payload() {
    clean(&["a: publish short:tt 7  qos0 retain"], "ask 2 publish 0 tt  qos0 retain");
}

#[test]
fn sn_090_091_predefined_ids_are_a_space_of_their_own() {
    clean(
        &[
            "a: register 1 t/x",
            "---",
            "a: publish predefined:1 2 hi qos0",
            "a: publish normal:1 3 hi qos0",
            "a: publish predefined:2 4 hi qos1",
        ],
        "ask 2 publish 0 pre/one hi qos0
         ask 2 publish 0 t/x hi qos0
         a< puback 2 4 invalid-topic-id",
    );
}

#[test]
fn sn_092_095_messages_of_a_predefined_id_come_under_it() {
    clean(
        &[
            "a: subscribe 7 predefined:1 qos1",
            "2: subscribed 1 qos1",
            "2: message pre/one hi qos1 id=5",
            "a: puback 1 5 accepted",
            "a: subscribe 8 predefined:2 qos1",
        ],
        "ask 2 subscribe 1 pre/one qos1
         a< suback 1 7 qos1 accepted
         a< publish predefined:1 5 hi qos1
         ask 2 acknowledge 5
         ask 2 grant 1
         a< suback 0 8 qos0 invalid-topic-id",
    );
}

#[test]
fn sn_093_094_short_names_need_no_registration_and_are_no_wildcards() {
    clean(
        &[
            "a: subscribe 7 short:tt qos0",
            "2: subscribed 1 qos0",
            "2: message tt hi qos0",
            "a: publish short:a# 8 hi qos1",
            "a: subscribe 9 short:/+ qos0",
        ],
        "ask 2 subscribe 1 tt qos0
         a< suback 0 7 qos0 accepted
         a< publish short:tt 0 hi qos0
         ask 2 grant 1
         a< puback 24867 8 invalid-topic-id
         a< suback 0 9 qos0 invalid-topic-id",
    );
}

#[test]
fn sn_096_098_qos_minus_1_is_published_without_a_connection_and_never_answered() {
    check_with(
        |settings| settings.qos_minus_one = QosMinusOne::Accepted,
        &[
            "a: publish predefined:1 0 hi qos-1",
            "b: publish short:tt 0 hi qos-1 retain",
            "b: publish predefined:9 0 hi qos-1",
        ],
        "open 1 mqtt-sn-1 clean waits=false credit=0
         ask 1 publish 0 pre/one hi qos0
         ask 1 publish 0 tt hi qos0 retain",
    );
}

#[test]
fn sn_097_qos_minus_1_with_a_normal_id_is_dropped() {
    let accepted = |settings: &mut Checked| settings.qos_minus_one = QosMinusOne::Accepted;
    let (said, gateway) = play(accepted, &["a: publish normal:1 0 hi qos-1"]);
    assert!(said.is_empty());
    assert_eq!(gateway.counters().ignored_qos_minus_1, 1);
}

#[test]
fn sn_099_qos_minus_1_is_off_unless_it_is_allowed() {
    let (said, gateway) = play(|_| (), &["a: publish predefined:1 0 hi qos-1"]);
    assert!(said.is_empty());
    assert_eq!(gateway.counters().ignored_qos_minus_1, 1);
}

#[test]
fn sn_099_the_shared_port_is_opened_again_but_not_at_once() {
    check_with(
        |settings| settings.qos_minus_one = QosMinusOne::Accepted,
        &[
            "a: publish short:tt 0 one qos-1",
            "1: closed denied",
            "1: gone",
            "---",
            "a: publish short:tt 0 two qos-1",
            "wait 10s",
            "a: publish short:tt 0 three qos-1",
            "a: connect mqtt-sn-1 clean",
        ],
        "open 2 mqtt-sn-1 clean waits=false credit=0
         ask 2 publish 0 tt three qos0
         a< connack not-supported",
    );
}

#[test]
fn sn_100_qos_minus_1_does_not_disturb_a_connection() {
    clean_with(
        |settings| settings.qos_minus_one = QosMinusOne::Accepted,
        &["a: publish short:tt 0 hi qos-1", "a: pingreq"],
        "open 3 mqtt-sn-1 clean waits=false credit=0
         ask 3 publish 0 tt hi qos0
         a< pingresp",
    );
}

#[test]
fn sn_101_103_a_subscription_gives_an_id_and_the_granted_qos() {
    clean(
        &["a: subscribe 7 t/x qos2", "2: subscribed 1 qos1", "a: publish normal:1 8 hi qos0"],
        "ask 2 subscribe 1 t/x qos2
         a< suback 1 7 qos1 accepted
         ask 2 publish 0 t/x hi qos0",
    );
}

#[test]
fn sn_102_a_refused_subscription_says_so_and_gives_no_id() {
    clean(
        &[
            "a: subscribe 7 t/x qos1",
            "2: subscribed 1 qos1 denied",
            "a: subscribe 8 t/y qos1",
            "2: subscribed 2 qos1 quota",
            "a: subscribe 9 t/z qos-1",
            "---",
            "a: publish normal:1 10 hi qos1",
        ],
        "a< puback 1 10 invalid-topic-id",
    );
    clean(
        &["a: subscribe 7 t/x qos1", "---", "2: subscribed 1 qos1 denied", "a: subscribe 9 t/z qos-1"],
        "a< suback 0 7 qos0 not-supported
         a< suback 0 9 qos0 not-supported",
    );
}

#[test]
fn sn_104_unsubscribe_is_always_answered() {
    clean(
        &[
            "a: unsubscribe 7 t/x",
            "2: unsubscribed 1",
            "a: unsubscribe 8 predefined:1",
            "2: unsubscribed 2",
            "a: unsubscribe 9 predefined:2",
            "a: unsubscribe 10 short:tt",
            "2: unsubscribed 3",
        ],
        "ask 2 unsubscribe 1 t/x
         a< unsuback 7
         ask 2 unsubscribe 2 pre/one
         a< unsuback 8
         a< unsuback 9
         ask 2 unsubscribe 3 tt
         a< unsuback 10",
    );
}

#[test]
fn sn_106_107_a_subscription_again_keeps_its_id_and_brings_retained_messages() {
    clean(
        &[
            "a: subscribe 7 t/x qos0",
            "2: subscribed 1 qos0",
            "a: subscribe 8 t/x qos1",
            "a: subscribe 8 t/x qos1 dup",
            "2: subscribed 2 qos1",
            "2: message t/x old qos1 id=5 retain",
        ],
        "ask 2 subscribe 1 t/x qos0
         a< suback 1 7 qos0 accepted
         ask 2 subscribe 2 t/x qos1
         a< suback 1 8 qos1 accepted
         a< publish normal:1 5 old qos1 retain",
    );
}

#[test]
fn sn_109_a_refused_register_ends_the_topic_and_not_the_wildcard() {
    clean(
        &[
            "a: subscribe 7 t/# qos1",
            "2: subscribed 1 qos1",
            "---",
            "2: message t/x hi qos1 id=5",
            "a: regack 1 1 not-supported",
            "2: message t/x ho qos1 id=6",
            "2: message t/y hi qos1 id=7",
        ],
        "a< register 1 1 t/x
         ask 2 acknowledge 5
         ask 2 grant 1
         ask 2 acknowledge 6
         ask 2 grant 1
         a< register 2 2 t/y",
    );
}

#[test]
fn sn_109_a_refused_register_of_a_subscribed_topic_unsubscribes_it() {
    kept(
        &[
            "a: subscribe 7 t/x qos1",
            "2: subscribed 1 qos1",
            "a: connect c1",
            "2: gone",
            "3: connected present",
            "---",
            "3: message t/x hi qos1 id=5",
            "a: regack 1 1 invalid-topic-id",
        ],
        "a< register 1 1 t/x
         ask 3 unsubscribe 0 t/x
         ask 3 acknowledge 5
         ask 3 grant 1",
    );
}

#[test]
fn sn_110_an_id_that_the_client_does_not_know_is_registered_and_the_message_sent_again() {
    clean(
        &[
            "a: subscribe 7 t/x qos1",
            "2: subscribed 1 qos1",
            "---",
            "2: message t/x hi qos1 id=5",
            "a: puback 1 5 invalid-topic-id",
            "a: regack 1 1 accepted",
            "a: puback 1 5 invalid-topic-id",
        ],
        "a< publish normal:1 5 hi qos1
         a< register 1 1 t/x
         a< publish normal:1 5 hi qos1
         ask 2 acknowledge 5
         ask 2 grant 1",
    );
}

#[test]
fn sn_110_at_qos_0_the_next_message_is_registered_first() {
    clean(
        &[
            "a: subscribe 7 t/x qos0",
            "2: subscribed 1 qos0",
            "2: message t/x hi qos0",
            "a: puback 1 0 invalid-topic-id",
            "---",
            "2: message t/x ho qos0",
            "a: regack 1 1 accepted",
        ],
        "a< register 1 1 t/x
         a< publish normal:1 0 ho qos0
         ask 2 grant 1",
    );
}

#[test]
fn sn_111_what_the_network_does_not_carry_is_given_up_and_counted() {
    let long = "x".repeat(60);
    let message = format!("2: message tt {long} qos1 id=5");
    let again = format!("2: message tt {long} qos1 id=6");
    let script =
        [&CLEAN[..], &["a: subscribe 7 short:tt qos1", "2: subscribed 1 qos1", "---", &message, &again]];
    let (said, gateway) = play(|settings| settings.max_packet = 60, &script.concat());
    let expected = [
        "note too-long c1 tt 67",
        "ask 2 acknowledge 5",
        "ask 2 grant 1",
        "ask 2 acknowledge 6",
        "ask 2 grant 1",
    ];
    assert_eq!(said, expected);
    assert_eq!(gateway.counters().dropped_too_long, 2);
}

#[test]
fn sn_112_an_unanswered_publish_is_repeated_and_then_the_client_is_lost() {
    clean(
        &[
            "a: subscribe 7 short:tt qos1",
            "2: subscribed 1 qos1",
            "---",
            "2: message tt hi qos1 id=5",
            "wait 9s",
            "wait 1s",
            "wait 10s",
            "wait 10s",
            "wait 9s",
            "wait 1s",
        ],
        "a< publish short:tt 5 hi qos1
         a< publish short:tt 5 hi qos1 dup
         a< publish short:tt 5 hi qos1 dup
         a< publish short:tt 5 hi qos1 dup
         note lost c1 unanswered
         drop 2",
    );
}

#[test]
fn sn_112_the_interval_and_the_number_of_repetitions_are_the_operators() {
    clean_with(
        |settings| {
            settings.retry_interval = Duration::from_secs(2);
            settings.retries = 1;
        },
        &["2: message t/x hi qos0", "wait 2s", "wait 2s"],
        "a< register 1 1 t/x
         a< register 1 1 t/x
         note lost c1 unanswered
         drop 2",
    );
}

#[test]
fn sn_112_congestion_at_the_client_is_waited_out() {
    clean(
        &[
            "2: message t/x hi qos1 id=5",
            "a: regack 1 1 congestion",
            "wait 10s",
            "a: regack 1 1 accepted",
            "a: puback 1 5 congestion",
            "wait 10s",
            "a: puback 1 5 accepted",
        ],
        "a< register 1 1 t/x
         a< register 1 1 t/x
         a< publish normal:1 5 hi qos1
         a< publish normal:1 5 hi qos1 dup
         ask 2 acknowledge 5
         ask 2 grant 1",
    );
}

#[test]
fn sn_084_112_qos_2_outward_is_acknowledged_at_pubrec_and_released_until_pubcomp() {
    clean(
        &["2: message tt hi qos2 id=5", "a: pubrec 5", "wait 10s", "a: pubrec 5", "a: pubcomp 5"],
        "a< publish short:tt 5 hi qos2
         ask 2 acknowledge 5
         a< pubrel 5
         a< pubrel 5
         a< pubrel 5
         ask 2 grant 1",
    );
}

#[test]
fn sn_084_a_qos_2_message_that_was_taken_is_released_after_a_reconnection_and_not_sent_again() {
    kept(
        &[
            "2: message tt hi qos2 id=5",
            "a: pubrec 5",
            "a: connect c1",
            "2: gone",
            "---",
            "3: connected present",
            "3: message tt ho qos2 id=6",
            "a: pubcomp 5",
        ],
        "a< connack accepted
         a< pubrel 5
         a< publish short:tt 6 ho qos2",
    );
}

#[test]
fn sn_113_pingreq_is_answered() {
    clean(&["a: pingreq", "a: pingreq c1"], "a< pingresp\na< pingresp");
}

#[test]
fn sn_115_116_118_a_silent_client_is_lost_after_its_keep_alive_and_a_tolerance() {
    check(
        &["a: connect c1 clean keep=60", "2: connected", "---", "wait 89s", "wait 1s"],
        "note lost c1 silent
         drop 2",
    );
    check(
        &["a: connect c1 clean keep=100", "2: connected", "---", "wait 109s", "wait 1s"],
        "note lost c1 silent
         drop 2",
    );
    check(
        &[
            "a: connect c1 clean keep=10",
            "2: connected",
            "---",
            "wait 14s",
            "a: pingresp",
            "wait 14s",
            "wait 1s",
        ],
        "note lost c1 silent
         drop 2",
    );
}

#[test]
fn sn_117_keep_alive_0_is_not_supervised() {
    clean(&["wait 30d"], "");
}

#[test]
fn sn_119_120_disconnect_is_answered_and_publishes_no_will() {
    kept(
        &["a: disconnect", "2: gone", "a: connect c1"],
        "a< disconnect
         ask 2 close
         open 3 c1 kept",
    );
}

#[test]
fn sn_119_the_next_connection_waits_for_the_end_of_the_last() {
    clean(
        &["a: disconnect", "a: connect c1 clean", "a: connect c1 clean", "2: gone", "3: connected"],
        "a< disconnect
         ask 2 close
         open 3 c1 clean
         a< connack accepted",
    );
}

#[test]
fn sn_121_122_who_is_not_connected_is_told_so() {
    check(
        &[
            "a: pingreq",
            "a: register 1 t/x",
            "a: publish normal:1 2 hi qos0",
            "a: subscribe 3 t/x",
            "a: puback 1 5 accepted",
            "a: willmsg bye",
            "a: pingresp",
            "a: connack accepted",
        ],
        "a< disconnect
         a< disconnect
         a< disconnect
         a< disconnect
         a< disconnect
         a< disconnect",
    );
}

#[test]
fn sn_123_a_repeated_disconnect_is_answered_a_few_times_and_a_strangers_is_not() {
    clean(
        &[
            "b: disconnect",
            "a: disconnect",
            "---",
            "a: disconnect",
            "a: disconnect",
            "a: disconnect",
            "a: disconnect",
        ],
        "a< disconnect
         a< disconnect
         a< disconnect",
    );
    clean(&["a: disconnect", "---", "wait 40s", "a: disconnect"], "");
}

#[test]
fn sn_124_125_nothing_is_sent_to_a_sleeper() {
    clean(
        &[
            "2: message tt one qos1 id=5",
            "a: disconnect sleep=60",
            "2: message tt two qos1 id=6",
            "2: message tt three qos0",
            "wait 50s",
            "a: disconnect sleep=60",
        ],
        "a< publish short:tt 5 one qos1
         a< disconnect
         a< disconnect",
    );
}

#[test]
fn sn_127_131_what_waits_is_sent_in_order_before_pingresp_and_then_it_sleeps_again() {
    clean(
        &[
            "2: message tt one qos1 id=5",
            "a: disconnect sleep=60",
            "2: message tt two qos0",
            "2: message t/x three qos1 id=6",
            "---",
            "a: pingreq c1",
            "a: puback 0 5 accepted",
            "2: message tt four qos1 id=7",
            "a: regack 1 1 accepted",
            "a: puback 1 6 accepted",
            "a: puback 0 7 accepted",
            "2: drained",
            "2: message tt five qos0",
        ],
        "ask 2 drain
         a< publish short:tt 5 one qos1 dup
         ask 2 acknowledge 5
         ask 2 grant 1
         a< publish short:tt 0 two qos0
         ask 2 grant 1
         a< register 1 1 t/x
         a< publish normal:1 6 three qos1
         ask 2 acknowledge 6
         ask 2 grant 1
         a< publish short:tt 7 four qos1
         ask 2 acknowledge 7
         ask 2 grant 1
         a< pingresp",
    );
}

#[test]
fn sn_129_130_where_nothing_waits_pingresp_comes_at_the_brokers_word_and_the_sleep_begins_anew() {
    clean(
        &[
            "a: disconnect sleep=60",
            "---",
            "wait 60s",
            "a: pingreq c1",
            "2: drained",
            "wait 89s",
            "a: pingreq c1",
            "2: drained",
            "wait 90s",
        ],
        "ask 2 drain
         a< pingresp
         ask 2 drain
         a< pingresp
         note lost c1 silent
         drop 2",
    );
}

#[test]
fn sn_126_a_sleeper_that_does_not_come_back_is_lost_and_its_will_published() {
    clean(
        &["a: disconnect sleep=100", "wait 109s", "wait 1s"],
        "a< disconnect
         note lost c1 silent
         drop 2",
    );
}

#[test]
fn sn_132_a_repeated_pingreq_starts_nothing_anew() {
    clean(
        &[
            "a: disconnect sleep=60",
            "2: message tt one qos1 id=5",
            "---",
            "a: pingreq c1",
            "a: pingreq c1",
            "a: puback 0 5 accepted",
            "2: drained",
        ],
        "ask 2 drain
         a< publish short:tt 5 one qos1
         ask 2 acknowledge 5
         ask 2 grant 1
         a< pingresp",
    );
}

#[test]
fn sn_131_who_does_not_wait_for_pingresp_gets_the_rest_the_next_time() {
    clean(
        &[
            "a: disconnect sleep=600",
            "2: message tt one qos1 id=5",
            "a: pingreq c1",
            "wait 10s",
            "wait 10s",
            "wait 10s",
            "---",
            "wait 10s",
            "wait 60s",
            "a: pingreq c1",
            "a: puback 0 5 accepted",
            "2: drained",
            "2: drained",
        ],
        "ask 2 drain
         a< publish short:tt 5 one qos1 dup
         ask 2 acknowledge 5
         ask 2 grant 1
         a< pingresp",
    );
}

#[test]
fn sn_133_a_sleeper_that_connects_is_active_and_gets_what_waits() {
    kept(
        &["a: disconnect sleep=60", "2: message tt one qos0", "---", "b: connect c1 keep=10", "wait 15s"],
        "b< connack accepted
         b< publish short:tt 0 one qos0
         ask 2 grant 1
         note lost c1 silent
         drop 2",
    );
    let away = ["a: disconnect sleep=60", "2: message tt one qos0", "---", "a: connect c1 clean", "2: gone"];
    let (said, gateway) = play(|_| (), &[&KEPT[..], &away].concat());
    assert_eq!(said, ["ask 2 close", "open 3 c1 clean"]);
    assert_eq!(gateway.counters().dropped_unsent, 1);
}

#[test]
fn sn_134_a_sleeper_that_says_goodbye_is_disconnected() {
    kept(
        &["a: disconnect sleep=60", "---", "a: disconnect", "2: gone", "wait 30d", "a: connect c1"],
        "a< disconnect
         ask 2 close
         open 3 c1 kept",
    );
    kept(&["a: disconnect sleep=0", "2: gone"], "a< disconnect\nask 2 close");
}

#[test]
fn sn_138_a_sleeper_may_wake_up_at_another_address_and_an_active_client_is_not_moved() {
    clean(
        &["a: disconnect sleep=60", "---", "b: pingreq c1", "2: drained", "a: pingreq c1", "2: drained"],
        "ask 2 drain
         b< pingresp
         ask 2 drain
         a< pingresp",
    );
    clean(&["b: pingreq c1"], "b< disconnect");
}

#[test]
fn sn_139_a_sleeper_that_publishes_is_answered_and_sleeps_on() {
    clean(
        &[
            "a: disconnect sleep=60",
            "---",
            "2: message tt one qos1 id=5",
            "a: publish short:xx 7 hi qos1",
            "2: published 1",
        ],
        "ask 2 publish 1 xx hi qos1
         a< puback 30840 7 accepted",
    );
}

#[test]
fn sn_140_qos_0_messages_of_a_sleeper_that_is_lost_are_counted() {
    let script = [
        &CLEAN[..],
        &["a: disconnect sleep=10", "2: message tt one qos0", "2: message tt two qos1 id=5", "wait 15s"],
    ];
    let (_, gateway) = play(|_| (), &script.concat());
    let counters = gateway.counters();
    assert_eq!((counters.lost, counters.dropped_unsent, counters.sleeping), (1, 1, 0));
}

#[test]
fn an_address_that_sends_more_than_its_rate_is_not_heard_and_the_others_are() {
    let script: Vec<&str> =
        CLEAN.into_iter().chain(["a: pingreq"; 30]).chain(["b: searchgw", "wait 1s", "a: pingreq"]).collect();
    let (said, gateway) = play(|settings| settings.max_rate = 10, &script);
    // Of its twenty the CONNECT was one.
    assert_eq!(said.iter().filter(|line| *line == "a< pingresp").count(), 19 + 1);
    assert!(said.contains(&"b< gwinfo 1".to_owned()));
    assert_eq!(gateway.counters().ignored_too_fast, 11);
}

#[test]
fn a_flood_of_new_clients_is_told_to_wait() {
    let comes_and_goes = |number| {
        let port = 2 * number;
        let connect = format!("a: connect c{number} clean");
        [connect, format!("{port}: connected"), "a: disconnect".to_owned(), format!("{port}: gone")]
    };
    let flood: Vec<String> = (1..=64).flat_map(comes_and_goes).collect();
    let mut script: Vec<&str> = flood.iter().map(String::as_str).collect();
    script.extend(["---", "b: connect late", "wait 1s", "b: connect late"]);
    let two = |settings: &mut Checked| settings.max_clients = 2;
    check_with(two, &script, "b< connack congestion\nopen 130 late kept");
    let (_, gateway) = play(two, &script);
    assert_eq!((gateway.counters().refused_newcomers, gateway.counters().refused_connects), (1, 1));
}

#[test]
fn sn_136_a_disconnected_client_is_not_supervised() {
    check(&["a: connect c1 keep=10", "2: connected", "a: disconnect", "2: gone", "---", "wait 30d"], "");
}

#[test]
fn sn_137_138_a_pingreq_names_only_the_client_that_is_connected_there() {
    clean(
        &["b: pingreq c1", "b: pingreq c7", "a: pingreq c7", "a: pingreq c1"],
        "b< disconnect
         b< disconnect
         a< disconnect
         a< pingresp",
    );
}

#[test]
fn all_places_taken_is_congestion_unless_somebody_is_away() {
    let one = |settings: &mut Checked| settings.max_clients = 1;
    let connected = ["a: connect c1", "2: connected", "---"];
    check_with(one, &[&connected[..], &["b: connect c2 clean"]].concat(), "b< connack congestion");
    let away = ["a: disconnect", "2: gone", "---", "b: connect c2 clean"];
    check_with(one, &[&connected[..], &away].concat(), "open 4 c2 clean");
}

#[test]
fn half_open_handshakes_have_a_limit() {
    let peers = (b';'..=b'{').map(char::from);
    let connects: Vec<String> =
        peers.zip(1..).map(|(peer, number)| format!("{peer}: connect c{number} clean will")).collect();
    assert_eq!(connects.len(), 65);
    let mut script: Vec<&str> = connects.iter().map(String::as_str).collect();
    script.insert(64, "---");
    check(&script, "{< connack congestion");
    script.insert(64, "wait 40s");
    check(&script, "{< willtopicreq");
}

#[test]
fn the_operators_user_and_session_expiry_reach_the_broker() {
    let operator = |settings: &mut Checked| {
        settings.user = Some("field".into());
        settings.session_expiry = 3_600;
    };
    check_with(operator, &["a: connect c1"], "open 2 c1 user=field kept=3600");
    check_with(operator, &["a: connect c1 clean"], "open 2 c1 clean user=field");
}

#[test]
fn a_session_that_the_broker_ends_is_ended_for_the_client() {
    kept(&["2: closed taken-over", "2: gone", "a: pingreq"], "drop 2\na< disconnect\na< disconnect");
    kept(&["2: gone"], "drop 2\na< disconnect");
}

#[test]
fn when_the_service_stops_every_client_is_told_and_no_will_is_published() {
    clean(
        &["b: connect c2", "4: connected", "---", "stop"],
        "a< disconnect
         ask 2 close
         b< disconnect
         ask 4 close",
    );
}

#[test]
fn sn_071_a_client_that_moves_does_not_take_its_old_addresss_new_client_along() {
    kept(
        &[
            "a: disconnect",
            "2: gone",
            "a: connect c2 clean",
            "4: connected",
            "b: connect c1",
            "5: connected",
            "---",
            "a: pingreq",
            "b: pingreq",
        ],
        "a< pingresp\nb< pingresp",
    );
}

#[test]
fn a_client_whose_requests_find_no_room_is_told_and_lost_and_a_qos_0_publish_only_counted() {
    let (_, mut gateway) = play(|_| (), &CLEAN);
    let mut effects = Vec::new();
    let publish = |qos| FromPort::Publish {
        id: 1,
        topic: "t".into(),
        payload: "hi".into(),
        qos,
        retain: false,
        properties: Default::default(),
    };
    gateway.choked(PortNumber(2), &publish(Qos::AtMostOnce), Duration::ZERO, &mut effects);
    assert_eq!((gateway.counters().busy, effects.len()), (1, 0));
    gateway.choked(PortNumber(2), &publish(Qos::AtLeastOnce), Duration::ZERO, &mut effects);
    assert!(effects.contains(&Effect::Drop { port: PortNumber(2) }));
    assert_eq!((gateway.counters().lost, gateway.counters().clients), (1, 0));
    assert!(gateway.is_consistent());
}

#[test]
fn sn_021_no_reserved_id_is_ever_assigned() {
    let many = |settings: &mut Checked| {
        settings.max_topics = 65_534;
        settings.max_rate = 3_000;
    };
    let registers: Vec<String> = (1..=3_000).map(|number| format!("a: register {number} {number}")).collect();
    let script: Vec<&str> = CLEAN.into_iter().chain(registers.iter().map(String::as_str)).collect();
    let (said, _) = play(many, &script);
    let expected: Vec<String> = (1..=3_000).map(|id| format!("a< regack {id} {id} accepted")).collect();
    assert_eq!(said, expected);
}

#[test]
fn sn_079_after_a_restart_a_kept_subscription_is_served_by_predefined_or_registered_ids() {
    check(
        &[
            "a: connect c1",
            "2: connected present",
            "---",
            "2: message pre/one hi qos1 id=5",
            "a: puback 1 5 accepted",
            "2: message t/x hi qos1 id=6",
        ],
        "a< publish predefined:1 5 hi qos1
         ask 2 acknowledge 5
         ask 2 grant 1
         a< register 1 1 t/x",
    );
}
