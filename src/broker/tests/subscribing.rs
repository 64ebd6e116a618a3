//! Scripts of SUBSCRIBE and UNSUBSCRIBE, and of retained messages.
//!
//! Each subscription option of MQTT 5 has a promise of its own.

use super::script::{check, check_with, config};

// [MQTT5-3.8.4-1] [MQTT5-3.8.4-2] [MQTT5-3.8.4-6] [MQTT5-3.8.4-7] [MQTT5-3.9.3-1] [MQTT5-2.2.1-6]
#[test]
fn each_filter_is_answered_for_itself() {
    check(
        &["open 1", "1 connect a v5 clean", "--", "1 subscribe 7 a q0, b q1, c q2, d#, $share/g/e"],
        "1 < suback 7 0x00 0x01 0x02 0x8f 0x00",
    );
    // Where nothing is granted, and where there is a session to be committed first, too.
    check(
        &[
            "open 1",
            "1 connect a v5 keep=9 expiry=60",
            "commit",
            "--",
            "1 subscribe 7 d#",
            "1 subscribe 8 a q1",
            "commit",
        ],
        "1 < suback 7 0x8f
         write session a r1 [a]
         1 < suback 8 0x01",
    );
}

// [MQTT5-3.10.4-2] [MQTT5-3.10.4-4] [MQTT5-3.10.4-5] [MQTT5-3.10.4-6] [MQTT5-3.11.3-1] [MQTT5-2.2.1-6]
#[test]
fn unsubscribe_says_what_was_there() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            "1 subscribe 1 a, e, f",
            "--",
            "1 unsubscribe 2 a b c# e",
            "1 publish a x",
            "1 publish e x",
            "1 publish f x",
        ],
        "1 < unsuback 2 0x00 0x11 0x8f 0x00
         1 < publish f x",
    );
}

#[test]
fn the_session_is_committed_before_suback_and_unsuback() {
    check(
        &[
            "open 1",
            "1 connect a",
            "commit",
            "--",
            "1 subscribe 1 t q1",
            "commit said",
            "1 unsubscribe 2 t",
            "commit said",
        ],
        "write session a r1 [t]
         commit
         1 < suback 1 0x01
         write session a r1
         commit
         1 < unsuback 2 0x00",
    );
}

// [MQTT311-3.10.4-4] [MQTT311-3.10.4-5]
#[test]
fn what_changes_nothing_is_answered_at_once() {
    check(
        &["open 1", "1 connect a", "commit", "--", "1 subscribe 1 t/#/x", "1 unsubscribe 2 t"],
        "1 < suback 1 0x8f
         1 < unsuback 2 0x11",
    );
}

// [MQTT5-3.8.4-3] [MQTT311-3.8.4-3]
#[test]
fn a_new_subscription_replaces_the_one_with_its_filter() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            "1 subscribe 1 t q0 sid=4",
            "1 subscribe 2 t q1 sid=5",
            "--",
            "1 publish t x q1 id=1",
        ],
        "1 < publish t x q1 id=1 ids=5
         1 < puback 1",
    );
}

// [MQTT5-3.3.4-2] [MQTT5-3.3.4-3] [MQTT5-3.3.4-4] [MQTT5-3.3.4-5]
#[test]
fn overlapping_subscriptions_bring_one_copy_with_every_identifier() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            "1 subscribe 1 t/# q0 sid=4",
            "1 subscribe 2 t/a q2 sid=5",
            "--",
            "1 publish t/a x q1 id=1",
        ],
        "1 < publish t/a x q1 id=1 ids=5,4
         1 < puback 1",
    );
}

// [MQTT311-3.3.5-1]
#[test]
fn overlapping_subscriptions_of_an_older_client_bring_the_highest_qos() {
    for version in ["v31", "v311"] {
        check(
            &[
                "open 1",
                &format!("1 connect a {version} clean"),
                "1 subscribe 1 t/# q0, t/a q2, +/a q1",
                "--",
                "1 publish t/a x q2 id=1",
            ],
            "1 < publish t/a x q2 id=1
             1 < pubrec 1",
        );
    }
}

// [MQTT5-3.8.3-3]
#[test]
fn no_local_spares_the_publisher() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            "1 subscribe 1 t nl",
            "open 2",
            "2 connect b v5 clean",
            "2 subscribe 1 t nl",
            "--",
            "1 publish t x",
        ],
        "2 < publish t x",
    );
}

// [MQTT311-3.8.3-2]
#[test]
fn each_wildcard_that_is_granted_is_served() {
    for version in ["v31", "v311", "v5 keep=9"] {
        // One at a time: none may hide behind another that covers the same topic.
        for filter in ["#", "a/#", "a/b/c/#", "+/b/c", "a/+/c", "a/b/+", "+/+/#"] {
            check(
                &[
                    "open 1",
                    &format!("1 connect a {version} clean"),
                    "--",
                    &format!("1 subscribe 1 {filter}"),
                    "1 publish a/b/c x",
                ],
                "1 < suback 1 0x00\n1 < publish a/b/c x",
            );
        }
    }
}

// [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
#[test]
fn wildcards_do_not_reach_dollar_topics() {
    check(
        &[
            "open 1",
            "1 connect a clean",
            "1 subscribe 1 #, +/x",
            "--",
            "1 publish $other/x y",
            "1 publish o/x y",
        ],
        "1 < publish o/x y",
    );
}

#[test]
fn a_retained_message_awaits_the_subscriber_and_is_stored_at_qos_0_too() {
    check(
        &[
            "open 1",
            "1 connect a clean",
            "--",
            "1 publish t x retain",
            "open 2",
            "2 connect b clean",
            "2 subscribe 1 + q1",
        ],
        "write message 1 t x for [] retained
         2 < connack
         2 < suback 1 0x01
         2 < publish t x retain",
    );
}

#[test]
fn a_retained_qos_1_message_is_acknowledged_once_committed() {
    check(
        &["open 1", "1 connect a clean", "--", "1 publish t x q1 id=3 retain", "commit said"],
        "write message 1 t x for [] retained
         commit
         1 < puback 3 0x10",
    );
}

#[test]
fn an_empty_payload_clears_what_is_retained() {
    check(
        &[
            "open 1",
            "1 connect a clean",
            "1 publish t x retain",
            "--",
            "1 publish t - retain",
            "1 publish t - retain",
            "1 subscribe 1 t",
        ],
        "write message 2 t - for [] retained
         1 < suback 1 0x00",
    );
}

// [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]
#[test]
fn retain_handling_says_when_retained_messages_come() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            "1 publish t x retain",
            "--",
            "1 subscribe 1 t rh2",
            "1 subscribe 2 t rh1",
            "1 unsubscribe 3 t",
            "1 subscribe 4 t rh1",
            "1 subscribe 5 t rh0",
        ],
        "1 < suback 1 0x00
         1 < suback 2 0x00
         1 < unsuback 3 0x00
         1 < suback 4 0x00
         1 < publish t x retain
         1 < suback 5 0x00
         1 < publish t x retain",
    );
}

// [MQTT5-3.3.1-12] [MQTT5-3.3.1-13]
#[test]
fn retain_as_published_keeps_the_flag() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            "1 subscribe 1 t rap",
            "open 2",
            "2 connect b v5 clean",
            "2 subscribe 1 t",
            "--",
            "1 publish t x retain",
        ],
        "write message 1 t x for [] retained
         1 < publish t x retain
         2 < publish t x",
    );
}

#[test]
fn retained_messages_wait_for_the_window() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean window=2",
            "1 publish t/1 x q1 id=1 retain ; publish t/2 x q1 id=2 retain ; publish t/3 x q1 id=3 retain",
            "commit",
            "--",
            "1 subscribe 1 t/# q1",
            "1 puback 1",
        ],
        "1 < suback 1 0x01
         1 < publish t/1 x q1 id=1 retain
         1 < publish t/2 x q1 id=2 retain
         1 < publish t/3 x q1 id=3 retain",
    );
}

#[test]
fn retained_messages_for_a_kept_session_are_rows_of_its_own() {
    check(
        &[
            "open 1",
            "1 connect a",
            "commit",
            "1 publish t x q1 id=1 retain",
            "commit",
            "--",
            "1 subscribe 1 t q1",
            "commit",
            "1 puback 1",
        ],
        "write session a r1 [t]
         1 < suback 1 0x01
         write message 2 t x for [r1 q1 retain]
         1 < publish t x q1 id=1 retain
         write settled r1/2",
    );
}

// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6]
#[test]
fn an_expired_retained_message_is_not_sent() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            "1 publish t x retain expiry=5",
            "1 publish u y retain expiry=9",
            "after 5000",
            "--",
            "1 subscribe 1 #",
        ],
        "1 < suback 1 0x00
         1 < publish u y retain expiry=4",
    );
}

#[test]
fn retained_messages_outlive_a_crash_if_they_were_committed() {
    check(
        &[
            "open 1",
            "1 connect a clean",
            "1 publish t x retain",
            "commit",
            "1 publish t y retain",
            "crash",
            "open 1",
            "1 connect a clean",
            "--",
            "1 subscribe 1 t",
        ],
        "1 < suback 1 0x00
         1 < publish t x retain",
    );
}

// [MQTT5-3.2.2-13] [MQTT5-3.2.2-14]
#[test]
fn without_a_retained_store_nothing_is_retained() {
    let mut without = config();
    without.limits.retain = false;
    check_with(
        without.clone(),
        &["open 1", "1 connect a clean", "--", "1 publish t x retain", "1 subscribe 1 t"],
        "1 < suback 1 0x00",
    );
    check_with(
        without.clone(),
        &["open 1", "1 connect a v5 clean", "--", "1 publish t x retain"],
        "1 < disconnect 0x9a
         close 1",
    );
    check_with(without, &["open 1", "1 connect a v5 clean will=t:x:retain"], "1 < connack 0x9a\nclose 1");
}

#[test]
fn subscriptions_of_one_client_have_a_limit() {
    let mut script = super::script::Script::new(config());
    script.run(&["open 1", "1 connect a v5 clean"]);
    for number in 0..10_000 {
        script.run(&[&format!("1 subscribe 1 t/{number}")]);
    }
    script.run(&["--", "1 subscribe 1 t/more, t/0 q1", "after 5"]);
    script.run(&["1 unsubscribe 2 t/0", "after 5", "1 subscribe 3 t/more"]);
    // What it has already it may have otherwise.
    let answers: Vec<&String> = script.said.iter().filter(|line| line.starts_with("1 <")).collect();
    assert_eq!(answers, ["1 < suback 1 0x97 0x01", "1 < unsuback 2 0x00", "1 < suback 3 0x00"]);
}
