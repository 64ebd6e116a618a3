//! Scripts of sessions that outlive their connections: the log, the window, QoS 2.
//!
//! The model stands for the store: `commit`, `rows` and `crash` are its words. Restarts are in `restarts`.

use super::script::{Script, check, check_with, config, with_route};
use crate::broker::Config;

/// `sub` keeps its session on connection 2, `pub` does not.
const PAIR: [&str; 7] =
    ["open 1", "1 connect pub clean", "open 2", "2 connect sub", "commit", "2 subscribe 1 t/# q2", "commit"];

pub(super) fn pair_with(config: Config, events: &[&str], expected: &str) {
    let mut all = PAIR.to_vec();
    if !events.contains(&"--") {
        all.push("--");
    }
    all.extend(events);
    check_with(config, &all, expected);
}

pub(super) fn pair(events: &[&str], expected: &str) {
    pair_with(config(), events, expected);
}

pub(super) fn narrow(max_inflight: u16) -> Config {
    let mut narrow = config();
    narrow.limits.max_inflight = max_inflight;
    narrow
}

#[test]
fn a_publish_for_a_kept_session_is_acknowledged_once_committed() {
    pair(
        &["1 publish t/a x q1 id=9", "commit said"],
        "write message 1 t/a x for [r1 q1]
         2 < publish t/a x q1 id=1
         commit
         1 < puback 9",
    );
}

// [MQTT5-4.5.0-1] [MQTT311-4.5.0-1] [MQTT311-3.1.2-5]
#[test]
fn an_absent_session_counts_as_one_that_is_there() {
    pair(
        &["2 lost", "commit", "--", "1 publish t/a x q1 id=9", "commit"],
        "write message 1 t/a x for [r1 q1]
         1 < puback 9",
    );
}

#[test]
fn qos_0_for_a_kept_session_writes_nothing() {
    pair(
        &["1 publish t/a x", "2 lost", "commit", "1 publish t/a y"],
        "2 < publish t/a x\nwrite session sub r1 [t/#] ended",
    );
}

#[test]
fn a_client_s_answer_settles_its_row() {
    pair(&["1 publish t/a x q1 id=9", "--", "2 puback 1", "2 puback 1"], "write settled r1/1");
}

// [MQTT5-4.3.3-4] [MQTT311-4.3.3-1]
#[test]
fn qos_2_outward_waits_for_each_of_its_commits() {
    pair(
        &[
            "1 publish t/a x q2 id=9",
            "commit 1 said",
            "commit 1 said",
            "2 pubrec 1",
            "commit 1 said",
            "2 pubcomp 1",
        ],
        "write message 1 t/a x for [r1 q2]
         write leased r1/1 id=1
         commit
         1 < pubrec 9
         commit
         2 < publish t/a x q2 id=1
         write received r1/1
         commit
         2 < pubrel 1
         write settled r1/1",
    );
}

// [MQTT5-4.4.0-1] [MQTT5-3.3.1-1] [MQTT5-4.3.2-3] [MQTT5-4.3.3-3] [MQTT5-4.3.3-5] [MQTT5-4.3.3-6]
// [MQTT311-4.4.0-1] [MQTT311-3.3.1-1] [MQTT311-4.3.2-1] [MQTT311-4.3.3-1] [MQTT311-2.3.1-4]
#[test]
fn what_was_under_way_is_repeated_with_its_packet_id() {
    pair(
        &[
            "1 publish t/a x q1 id=1",
            "1 publish t/b y q2 id=2",
            "1 publish t/c z q2 id=3",
            "commit",
            "2 pubrec 3",
            "commit",
            "2 lost",
            "open 2",
            "2 connect sub",
            "--",
            "commit",
        ],
        "2 < connack present
         2 < pubrel 3
         2 < publish t/a x q1 id=1 dup
         2 < publish t/b y q2 id=2 dup",
    );
}

#[test]
fn a_qos_2_message_that_was_never_sent_is_no_repeat() {
    pair(
        &["1 publish t/b y q2 id=2", "2 lost", "commit", "open 2", "2 connect sub", "--", "commit"],
        "2 < connack present
         2 < publish t/b y q2 id=1",
    );
}

// [MQTT5-4.6.0-5] [MQTT5-4.6.0-6] [MQTT311-4.6.0-5] [MQTT311-4.6.0-6]
#[test]
fn after_the_repeats_the_rest_follows_in_order() {
    pair(
        &[
            "1 publish t/a 1 q1 id=1",
            "2 lost",
            "1 publish t/a 2 q1 id=2",
            "1 publish t/a 3 q1 id=3",
            "open 2",
            "2 connect sub",
            "--",
            "commit",
            "1 publish t/a 4 q1 id=4",
        ],
        "1 < puback 1
         1 < puback 2
         1 < puback 3
         2 < connack present
         2 < publish t/a 1 q1 id=1 dup
         2 < publish t/a 2 q1 id=2
         2 < publish t/a 3 q1 id=3
         write message 4 t/a 4 for [r1 q1]
         2 < publish t/a 4 q1 id=4",
    );
}

#[test]
fn a_full_window_leaves_the_rest_in_the_log() {
    pair_with(
        narrow(1),
        &[
            "1 publish t/a 1 q1 id=1",
            "1 publish t/a 2 q1 id=2",
            "1 publish t/a 3 q1 id=3",
            "commit",
            "--",
            "2 puback 1",
            "2 puback 2",
        ],
        "write settled r1/1
         2 < publish t/a 2 q1 id=2
         write settled r1/2
         2 < publish t/a 3 q1 id=3",
    );
}

#[test]
fn the_oldest_waiting_rows_go_when_the_queue_is_full() {
    let mut few = narrow(1);
    few.limits.max_queued_messages = 2;
    pair_with(
        few,
        &[
            "1 publish t/a 1 q1 id=1",
            "1 publish t/a 2 q1 id=2",
            "1 publish t/a 3 q1 id=3",
            "--",
            "1 publish t/a 4 q1 id=4",
            "1 publish t/a 5 q1 id=5",
            "2 puback 1",
            "2 puback 2",
            "2 puback 3",
        ],
        "write message 4 t/a 4 for [r1 q1]
         write dropped r1/2 queue_full
         write message 5 t/a 5 for [r1 q1]
         write dropped r1/3 queue_full
         write settled r1/1
         2 < publish t/a 4 q1 id=2
         write settled r1/4
         2 < publish t/a 5 q1 id=3
         write settled r1/5",
    );
}

// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6] [MQTT5-3.1.2-5]
#[test]
fn an_expired_row_is_dropped_and_not_delivered() {
    check(
        &[
            "open 1",
            "1 connect pub v5 clean",
            "open 2",
            "2 connect sub",
            "commit",
            "2 subscribe 1 t q1",
            "commit",
            "2 lost",
            "1 publish t old q1 id=1 expiry=5",
            "1 publish t new q1 id=2 expiry=50",
            "commit",
            "after 5000",
            "open 2",
            "2 connect sub",
            "--",
            "commit",
        ],
        "2 < connack present
         write dropped r1/1 expired
         2 < publish t new q1 id=1 expiry=45",
    );
}

// [MQTT5-4.3.3-7]
#[test]
fn expiry_does_not_break_an_exchange_that_has_begun() {
    check(
        &[
            "open 1",
            "1 connect pub v5 clean",
            "open 2",
            "2 connect sub",
            "commit",
            "2 subscribe 1 t q2",
            "commit",
            "1 publish t x q2 id=1 expiry=5",
            "commit",
            "2 lost",
            "after 9000",
            "open 2",
            "2 connect sub",
            "--",
            "commit",
        ],
        "2 < connack present
         2 < publish t x q2 id=1 dup expiry=0",
    );
}

// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
#[test]
fn a_row_too_large_for_the_client_is_dropped_and_the_rest_flows() {
    check(
        &[
            "open 1",
            "1 connect pub clean",
            "open 2",
            "2 connect sub v5 expiry=60 keep=9 size=40",
            "commit",
            "2 subscribe 1 t q1",
            "commit",
            "--",
            "1 publish t this-is-thirty-three-and-too-long q1 id=1",
            "1 publish t short q1 id=2",
        ],
        "write message 1 t this-is-thirty-three-and-too-long for [r1 q1]
         write dropped r1/1 too_large
         write message 2 t short for [r1 q1]
         2 < publish t short q1 id=1",
    );
}

// [MQTT5-4.3.3-8]
#[test]
fn no_answer_leaves_before_its_commit() {
    // Nothing is committed here: an answer that came would be one too soon.
    pair(
        &["1 publish t/a x q1 id=9"],
        "write message 1 t/a x for [r1 q1]
         2 < publish t/a x q1 id=1",
    );
    pair(
        &["1 publish t/a x q2 id=9"],
        "write message 1 t/a x for [r1 q2]
         write leased r1/1 id=1",
    );
    pair(&["2 publish x y q2 id=4"], "write inward r1/4");
    pair(&["2 publish x y q2 id=4", "commit", "--", "2 pubrel 4"], "write released r1/4");
    pair_with(
        with_route(true),
        &["2 publish up/x y q1 id=4", "2 publish up/x z q2 id=5"],
        "write message 1 up/x y for [r1 q1]
         write message 2 up/x z for [r1 q2] inward r2/5",
    );
}

#[test]
fn qos_2_inward_of_a_kept_session_is_committed_before_pubrec() {
    pair(
        &["2 publish x y q2 id=4", "commit said", "2 pubrel 4", "commit said"],
        "write inward r1/4
         commit
         2 < pubrec 4 0x10
         write released r1/4
         commit
         2 < pubcomp 4",
    );
    pair_with(
        with_route(true),
        &["2 publish up/x y q2 id=4", "commit said"],
        "write message 1 up/x y for [r1 q2] inward r2/4
         commit
         2 < pubrec 4",
    );
}

#[test]
fn a_repeat_before_the_commit_waits_for_it() {
    pair_with(
        with_route(true),
        &[
            "2 publish up/x y q2 id=4",
            "2 lost",
            "open 2",
            "2 connect sub",
            "2 publish up/x y q2 id=4 dup",
            "--",
            "commit 1 said",
            "commit said",
        ],
        "commit
         commit
         2 < connack present
         2 < pubrec 4",
    );
}

#[test]
fn a_session_that_is_no_longer_kept_ends_with_its_connection() {
    check(
        &[
            "open 1",
            "1 connect a v5 expiry=60",
            "commit",
            "1 lost",
            "open 1",
            "1 connect a v5",
            "--",
            "commit",
            "1 lost",
        ],
        "1 < connack present keep=64800
         write lapsed r1",
    );
}

// [MQTT5-3.2.0-1] [MQTT311-3.2.0-1]
#[test]
fn messages_between_connect_and_connack_wait_in_the_log() {
    pair(
        &["2 lost", "commit", "open 2", "2 connect sub", "--", "1 publish t/a x q1 id=1", "commit said"],
        "write message 1 t/a x for [r1 q1]
         commit
         2 < connack present
         2 < publish t/a x q1 id=1
         1 < puback 1",
    );
}

#[test]
fn a_port_that_keeps_its_session_reads_as_far_as_its_credit() {
    check(
        &[
            "open 1",
            "1 connect pub clean",
            "open 2 port credit=1",
            "2 connect sub v5 expiry=60",
            "commit",
            "2 subscribe 1 t q1",
            "commit",
            "1 publish t 1 q1 id=1",
            "1 publish t 2 q1 id=2",
            "commit",
            "--",
            "2 puback 1",
            "2 granted 1",
        ],
        "write settled r1/1
         2 < publish t 2 q1 id=2",
    );
}

// [MQTT5-3.3.4-9]
#[test]
fn the_smaller_window_of_a_new_connection_holds_for_repeats_too() {
    check(
        &[
            "open 1",
            "1 connect pub clean",
            "open 2",
            "2 connect sub v5 expiry=60",
            "commit",
            "2 subscribe 1 t q1",
            "commit",
            "1 publish t 1 q1 id=1",
            "1 publish t 2 q1 id=2",
            "commit",
            "2 lost",
            "open 2",
            "2 connect sub v5 expiry=60 window=1",
            "--",
            "commit",
            "2 puback 1",
        ],
        "2 < connack present keep=64800
         2 < publish t 1 q1 id=1 dup
         write settled r1/1
         2 < publish t 2 q1 id=2 dup",
    );
}

#[test]
fn a_new_port_of_a_session_has_packet_ids_of_its_own() {
    check(
        &[
            "open 3",
            "3 connect watcher clean",
            "3 subscribe 1 t/# q0",
            "open 1 port",
            "1 connect mote v5 expiry=9",
            "commit",
            "1 publish t/a first q2 id=1",
            "commit",
            "1 lost",
            "open 2 port",
            "2 connect mote v5 expiry=9",
            "commit",
            "--",
            "2 publish t/a second q2 id=1",
            "commit",
        ],
        "write released r1/1
         3 < publish t/a second
         write inward r1/1
         2 < pubrec 1",
    );
}

#[test]
fn a_repeat_that_has_become_too_large_is_dropped_and_the_rest_flows() {
    let of_qos_2 = ["write received r1/1", "write leased r1/2 id=2", "2 < pubrel 1"];
    for (qos, exchange) in [("q1", &[][..]), ("q2", &of_qos_2)] {
        let mut script = Script::new(config());
        script.run(&[
            "open 1",
            "1 connect pub clean",
            "open 2",
            "2 connect sub v5 expiry=60",
            "commit",
            &format!("2 subscribe 1 t {qos}"),
            "commit",
            &format!("1 publish t this-is-thirty-three-and-too-long {qos} id=1"),
            "commit",
            "2 lost",
            &format!("1 publish t short {qos} id=2"),
            "open 2",
            "2 connect sub v5 expiry=60 keep=9 size=40",
            "--",
            "commit",
            "commit",
        ]);
        let said: Vec<&str> =
            script.said.iter().map(String::as_str).filter(|line| !line.starts_with("1 <")).collect();
        let mut expected = vec!["2 < connack present", "write dropped r1/1 too_large"];
        expected.extend(exchange);
        let short = format!("2 < publish t short {qos} id=2");
        expected.push(&short);
        assert_eq!(said, expected);
    }
}

// [MQTT5-3.3.2-5]
#[test]
fn what_expires_at_once_is_for_whom_it_can_start_with_at_once() {
    let publish = |id: u32, payload: &str, more: &str| format!("1 publish t {payload} q1 id={id} {more}");
    for (session, filter) in
        [("clean", "t"), ("clean", "$share/g/t"), ("expiry=60", "t"), ("expiry=60", "$share/g/t")]
    {
        let mut script = Script::new(narrow(1));
        script.run(&[
            "open 1",
            "1 connect pub v5 clean",
            "open 2",
            &format!("2 connect sub v5 {session}"),
            "commit",
            &format!("2 subscribe 1 {filter} q1"),
            "commit",
            "--",
        ]);
        for (id, payload, more) in [(1, "at-once", "expiry=0"), (2, "too-late", "expiry=0"), (3, "later", "")]
        {
            script.run(&[&publish(id, payload, more), "commit"]);
        }
        script.run(&["2 puback 1", "rows", "commit"]);
        let heard = script.said.iter().filter_map(|line| line.strip_prefix("2 < publish t "));
        let heard: Vec<_> = heard.filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(heard, ["at-once", "later"], "{session} {filter}: {:?}", script.said);
        assert_eq!(script.broker.counters().expired, 1, "{session} {filter}");
    }
    // Nor is it kept for who is away.
    for filter in ["t", "$share/g/t"] {
        let mut script = Script::new(config());
        script.run(&[
            "open 1",
            "1 connect pub v5 clean",
            "open 2",
            "2 connect sub v5 expiry=60",
            "commit",
            &format!("2 subscribe 1 {filter} q1"),
            "commit",
            "2 lost",
            &publish(1, "too-late", "expiry=0"),
            "commit",
            "open 2",
            "2 connect sub v5 expiry=60",
            "commit",
            "rows",
        ]);
        assert!(!script.said.iter().any(|line| line.contains("< publish")), "{filter}: {:?}", script.said);
        assert_eq!(script.broker.counters().expired, 1, "{filter}");
    }
}

#[test]
fn what_was_never_sent_gives_its_packet_id_back_without_a_word() {
    let before = [
        "2 lost",
        "open 2",
        "2 connect sub v5 expiry=60 keep=9",
        "commit",
        "1 publish t/a this-is-thirty-three-and-too-long q2 id=1",
        "2 lost",
        "open 2",
        "2 connect sub v5 expiry=60 keep=9 size=40",
        "--",
        "commit",
        "commit",
        "1 publish t/a 2 q2 id=2",
        "commit",
    ];
    pair(
        &before,
        "1 < pubrec 1
         2 < connack present
         write dropped r1/1 too_large
         write settled r1/1
         write message 2 t/a 2 for [r1 q2]
         write leased r1/2 id=2
         1 < pubrec 2
         2 < publish t/a 2 q2 id=2",
    );
}
