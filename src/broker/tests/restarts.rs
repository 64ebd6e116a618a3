//! Scripts of kept sessions over a restart: what is asked of the store, repeated and known again.
//!
//! The preamble, two clients of whom one keeps its session, is that of `keeping`.

use super::super::Effect;
use super::keeping::{narrow, pair, pair_with};
use super::script::{Script, check, config, with_route};
use crate::record::Write;

// [MQTT5-4.4.0-1] [MQTT311-4.4.0-1] [MQTT5-3.3.1-1] [MQTT311-3.3.1-1]
#[test]
fn a_restart_asks_the_store_and_repeats_leases_under_their_ids() {
    pair_with(
        narrow(3),
        &[
            "1 publish t/a 1 q1 id=1",
            "1 publish t/b 2 q2 id=2",
            "1 publish t/c 3 q1 id=3",
            "1 publish t/c 4 q1 id=4",
            "commit",
            "crash",
            "open 2",
            "--",
            "2 connect sub",
            "commit",
            "rows",
            "2 puback 1",
            "2 puback 3",
            "rows",
        ],
        "write session sub r1 [t/#]
         2 < connack present
         read r1 after 0 limit 3
         2 < publish t/a 1 q1 id=1 dup
         2 < publish t/b 2 q2 id=2 dup
         2 < publish t/c 3 q1 id=3 dup
         write settled r1/1
         write settled r1/3
         read r1 after 3 limit 2
         2 < publish t/c 4 q1 id=4 dup",
    );
}

// [MQTT5-4.4.0-1] [MQTT5-4.3.3-5] [MQTT311-4.4.0-1]
#[test]
fn a_restart_repeats_pubrel_for_what_was_past_pubrec() {
    pair(
        &[
            "1 publish t/b 2 q2 id=2",
            "commit",
            "2 pubrec 1",
            "commit",
            "crash",
            "open 2",
            "2 connect sub",
            "--",
            "commit",
            "rows",
            "2 pubcomp 1",
        ],
        "2 < connack present
         2 < pubrel 1
         read r1 after 0 limit 19
         write settled r1/1",
    );
}

/// The store has lost row 1 under its exchange, and row 2 waits.
const ROWLESS: [&str; 6] =
    ["1 publish t/b 1 q2 id=1", "commit", "2 lost", "1 publish t/b 2 q2 id=2", "commit", "lose r1/1"];

// [MQTT5-4.3.3-11] [MQTT311-4.3.3-2]
#[test]
fn a_packet_id_whose_message_is_gone_is_not_used_before_its_pubcomp() {
    for version in ["v31", "v311", "v5 keep=9 expiry=1000000"] {
        let come = format!("2 connect sub {version}");
        let after = [
            "--",
            "crash",
            "open 2",
            &come,
            "commit",
            "rows",
            "commit",
            "2 pubcomp 1",
            "commit",
            "2 pubrec 2",
            "commit",
            "2 pubcomp 2",
        ];
        let present = if version == "v31" { "" } else { " present" };
        pair(
            &[&ROWLESS[..], &after].concat(),
            &format!(
                "write received r1/1
                 write session sub r1 [t/#]
                 2 < connack{present}
                 2 < pubrel 1
                 read r1 after 1 limit 19
                 write leased r1/2 id=2
                 2 < publish t/b 2 q2 id=2
                 write settled r1/1
                 write received r1/2
                 2 < pubrel 2
                 write settled r1/2"
            ),
        );
    }
}

#[test]
fn a_second_restart_before_pubcomp_knows_of_the_packet_id_too() {
    let come = ["open 2", "2 connect sub", "commit", "crash", "open 2", "--", "2 connect sub", "commit"];
    pair(
        &[&ROWLESS[..], &["crash"], &come].concat(),
        "write session sub r1 [t/#]
         2 < connack present
         2 < pubrel 1
         read r1 after 1 limit 19",
    );
}

#[test]
fn a_message_that_goes_after_a_restart_keeps_its_packet_id_too() {
    let come = ["open 2", "2 connect sub", "--", "commit", "rows", "commit", "2 pubcomp 1"];
    pair(
        &[&ROWLESS[..5], &["crash", "lose r1/1"], &come].concat(),
        "2 < connack present
         read r1 after 0 limit 20
         write leased r1/2 id=2
         write received r1/1
         2 < publish t/b 2 q2 id=2
         2 < pubrel 1
         write settled r1/1",
    );
}

#[test]
fn an_exchange_whose_message_is_gone_does_not_count_as_one_that_waits() {
    // The one row that there is waits, and is all that may: the next takes its place.
    let mut few = narrow(20);
    few.limits.max_queued_messages = 1;
    let after = ["crash", "open 1", "1 connect pub clean", "--", "1 publish t/b 3 q2 id=3"];
    pair_with(
        few,
        &[&ROWLESS[..], &after].concat(),
        "write message 3 t/b 3 for [r1 q2]
         write oldest 1 of r1 after 1",
    );
}

#[test]
fn rows_for_a_connection_that_is_gone_are_thrown_away_and_asked_for_again() {
    pair(
        &[
            "1 publish t/a 1 q1 id=1",
            "commit",
            "crash",
            "open 2",
            "2 connect sub",
            "commit",
            "ask",
            "2 lost",
            "open 2",
            "2 connect sub",
            "--",
            "commit",
            "rows",
            "rows",
        ],
        "2 < connack present
         read r1 after 0 limit 20
         2 < publish t/a 1 q1 id=1 dup",
    );
}

#[test]
fn a_message_published_while_rows_are_read_comes_after_them() {
    pair(
        &[
            "1 publish t/a 1 q1 id=1",
            "commit",
            "crash",
            "open 2",
            "2 connect sub",
            "commit",
            "ask",
            "open 1",
            "1 connect pub clean",
            "--",
            "1 publish t/a 2 q1 id=1",
            "rows",
            "commit",
        ],
        "write message 2 t/a 2 for [r1 q1]
         2 < publish t/a 1 q1 id=1 dup
         2 < publish t/a 2 q1 id=2
         1 < puback 1",
    );
}

/// The store has lost the first of two unacknowledged rows, and brings what is left; what it had not yet when it was
/// asked comes from RAM.
fn with_the_rest_in_ram(qos: &str, port: &str, after: &[&str], expected: &str) {
    let mut script = Script::new(narrow(4));
    let publish = |seq: u32| format!("1 publish t {seq} {qos} id={seq}");
    let open = format!("open 2 {port}");
    script.run(&["open 1", "1 connect pub clean", &open, "2 connect sub", "commit", "2 subscribe 1 t q2"]);
    script.run(&["commit", &publish(1), &publish(2), "commit", "2 lost"]);
    script.broker.ledger.bound(1, 9);
    script.run(&["commit", "lose r1/1", &open, "2 connect sub", "commit", "ask", &publish(3), "--", "rows"]);
    script.run(after);
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    assert_eq!(script.said, expected, "{:#?}", script.said);
}

#[test]
fn a_port_hears_that_nothing_waits_where_a_row_that_was_under_way_is_gone() {
    with_the_rest_in_ram(
        "q1",
        "port credit=9",
        &["2 ping", "2 puback 2", "2 puback 3"],
        "2 < publish t 2 q1 id=2 dup
         2 < publish t 3 q1 id=3
         write settled r1/1
         write settled r1/2
         write settled r1/3
         2 < pong",
    );
}

// [MQTT5-4.3.3-5] [MQTT311-4.3.3-1]
#[test]
fn a_packet_id_whose_row_is_gone_is_released_once_all_is_read() {
    with_the_rest_in_ram(
        "q2",
        "",
        &["commit", "2 pubcomp 1"],
        "2 < publish t 2 q2 id=2 dup
         write leased r1/3 id=3
         write received r1/1
         1 < pubrec 3
         2 < publish t 3 q2 id=3
         2 < pubrel 1
         write settled r1/1",
    );
}

#[test]
fn no_limit_takes_rows_while_they_are_read() {
    let mut few = narrow(2);
    few.limits.max_queued_messages = 2;
    pair_with(
        few,
        &[
            "2 lost",
            "1 publish t/a 1 q1 id=1",
            "1 publish t/a 2 q1 id=2",
            "commit",
            "crash",
            "open 2",
            "2 connect sub",
            "commit",
            "ask",
            "open 1",
            "1 connect pub clean",
            "1 publish t/a 3 q1 id=1",
            "--",
            "rows",
        ],
        "2 < publish t/a 1 q1 id=1 dup
         2 < publish t/a 2 q1 id=2 dup",
    );
}

#[test]
fn a_repeat_after_a_crash_is_known() {
    pair_with(
        with_route(true),
        &[
            "2 publish up/x y q2 id=4",
            "commit",
            "crash",
            "open 2",
            "2 connect sub",
            "commit",
            "--",
            "2 publish up/x y q2 id=4 dup",
            "2 pubrel 4",
            "commit",
        ],
        "2 < pubrec 4
         write released r2/4
         2 < pubcomp 4",
    );
}

#[test]
fn what_a_crash_took_was_never_acknowledged() {
    pair(
        &["1 publish t/a 1 q1 id=1", "crash"],
        "write message 1 t/a 1 for [r1 q1]
         2 < publish t/a 1 q1 id=1
         write ended r1",
    );
    pair(&["1 publish t/a 1 q1 id=1", "crash", "open 2", "2 connect sub", "commit", "--", "rows"], "");
}

// [MQTT5-3.1.2-23] [MQTT311-3.1.2-4] [MQTT311-4.1.0-1]
#[test]
fn a_port_hears_that_nothing_waits_once_the_log_is_read_and_all_is_acknowledged() {
    check(
        &[
            "open 1",
            "1 connect pub clean",
            "open 2 port credit=1",
            "2 connect sub v5 expiry=60",
            "commit",
            "2 subscribe 1 t q1",
            "commit",
            "2 lost",
            "1 publish t 1 q1 id=1",
            "1 publish t 2 q1 id=2",
            "commit",
            "crash",
            "open 2 port credit=1",
            "2 connect sub v5 expiry=60",
            "commit",
            "--",
            "2 ping",
            "rows",
            "2 puback 1",
            "2 granted 1",
            "rows",
            "2 puback 2",
        ],
        "2 < publish t 1 q1 id=1 dup
         write settled r1/1
         read r1 after 1 limit 1
         2 < publish t 2 q1 id=2 dup
         write settled r1/2
         2 < pong",
    );
}

// [MQTT5-3.1.2-4] [MQTT311-3.1.2-6]
#[test]
fn a_session_that_was_thrown_away_does_not_come_back_with_a_crash() {
    for version in ["v311", "v31", "v5 keep=9"] {
        for away in [&[][..], &["2 lost", "commit"]] {
            let before = ["2 publish x 1 q2 id=9", "1 publish t/a 1 q1 id=1", "commit"];
            let come = ["open 3", &format!("3 connect sub clean {version}")];
            let after = ["--", "commit said", "crash", "open 2", "2 connect sub", "commit"];
            pair(
                &[&before[..], away, &come, &after].concat(),
                "commit
                 3 < connack
                 write session sub r2
                 2 < connack",
            );
        }
    }
    // Nor is it said to be gone to one who came again, since the first of him waited too long.
    let before = ["2 publish x 1 q2 id=9", "1 publish t/a 1 q1 id=1", "commit", "2 lost", "commit"];
    let come = ["open 3", "3 connect sub clean v311", "3 lost", "open 4", "4 connect sub clean v311"];
    let after = ["--", "commit said", "crash", "open 2", "2 connect sub", "commit"];
    pair(
        &[&before[..], &come, &after].concat(),
        "commit
         4 < connack
         write session sub r2
         2 < connack",
    );
    // Nor does it where he who comes has no use for one, and it has just ended.
    for end in [&["2 disconnect expiry=0"][..], &["open 3", "3 connect sub v5 clean", "3 lost"]] {
        let before = ["open 1", "1 connect pub clean", "open 2", "2 connect sub v5 expiry=60", "commit"];
        let come = ["open 4", "--", "4 connect sub v5 keep=9", "commit said"];
        let mut script = Script::new(config());
        script.run(&[&before[..], end, &come].concat());
        assert_eq!(script.said, ["commit", "4 < connack"]);
    }
    // Who never left anything behind waits for nothing.
    let come = ["open 1", "1 connect a v5 keep=9", "1 lost", "open 1", "--", "1 connect a clean"];
    check(&come, "1 < connack");
}

// [MQTT5-3.14.4-3] [MQTT5-3.1.2-10]
#[test]
fn what_ends_a_session_by_its_client_s_wish_waits_for_no_company() {
    let come = ["open 1", "1 connect a v5 expiry=60 will=w:gone:retain", "commit", "--"];
    for end in ["1 disconnect expiry=0", "1 disconnect 0x04 expiry=0"] {
        let mut script = Script::new(config());
        script.run(&come);
        script.run(&[end]);
        assert!(is_prompt(&script), "{end}");
    }
    let mut script = Script::new(config());
    script.run(&come);
    script.run(&["1 disconnect", "commit", "after 60000"]);
    assert!(!is_prompt(&script), "nobody asked for that");
}

/// Whether the store is to commit the end of a session soon.
fn is_prompt(script: &Script) -> bool {
    let ends = |effect: &&Effect| matches!(effect, Effect::Write(write) if is_end(write));
    let ends: Vec<&Effect> = script.effects.iter().filter(ends).collect();
    let [Effect::Write(write)] = ends[..] else { panic!("{ends:?}") };
    !write.is_lazy()
}

fn is_end(write: &Write) -> bool {
    matches!(write, Write::SessionRemoved { .. } | Write::SessionLapsed { .. })
}

#[test]
fn subscriptions_outlive_a_restart() {
    pair(
        &["crash", "open 1", "1 connect pub clean", "--", "1 publish t/a x q1 id=1"],
        "write message 1 t/a x for [r1 q1]",
    );
}

#[test]
fn the_oldest_rows_on_disk_go_when_the_queue_is_full() {
    let mut few = narrow(2);
    few.limits.max_queued_messages = 2;
    pair_with(
        few,
        &[
            "2 lost",
            "1 publish t/a 1 q1 id=1",
            "1 publish t/a 2 q1 id=2",
            "commit",
            "crash",
            "open 1",
            "1 connect pub clean",
            "--",
            "1 publish t/a 3 q1 id=1",
            "commit",
            "open 2",
            "2 connect sub",
            "commit",
            "rows",
        ],
        "write message 3 t/a 3 for [r1 q1]
         write oldest 1 of r1 after 0
         1 < puback 1
         write session sub r1 [t/#]
         2 < connack present
         read r1 after 0 limit 2
         2 < publish t/a 2 q1 id=1 dup
         2 < publish t/a 3 q1 id=2",
    );
}

#[test]
fn rows_that_the_store_has_ended_do_not_count_against_the_queue() {
    let mut few = narrow(1);
    few.limits.max_queued_messages = 3;
    pair_with(
        few,
        &[
            "2 lost",
            "1 publish t/a 1 q1 id=1",
            "1 publish t/a 2 q1 id=2",
            "1 publish t/a 3 q1 id=3",
            "commit",
            "crash",
            "lose r1/1",
            "open 2",
            "2 connect sub",
            "commit",
            "open 1",
            "1 connect pub clean",
            "ask",
            "1 publish t/a 4 q1 id=1",
            "commit",
            "--",
            "rows",
            "1 publish t/a 5 q1 id=2",
            "1 publish t/a 6 q1 id=3",
        ],
        "2 < publish t/a 2 q1 id=1 dup
         write message 5 t/a 5 for [r1 q1]
         write message 6 t/a 6 for [r1 q1]
         write oldest 1 of r1 after 2",
    );
}

#[test]
fn user_properties_keep_their_order_and_repeats_over_a_restart() {
    pair(
        &[
            "2 lost",
            "open 3",
            "3 connect pub5 v5 clean",
            "3 publish t/a x q1 id=1 note=b,a,b",
            "commit",
            "crash",
            "open 2",
            "2 connect sub",
            "--",
            "commit",
            "rows",
        ],
        "2 < connack present
         read r1 after 0 limit 20
         2 < publish t/a x q1 id=1 dup note=b note=a note=b",
    );
}

// [MQTT311-4.1.0-1]
#[test]
fn every_part_of_a_session_is_there_after_a_loss_and_after_a_restart() {
    let lost = "2 < connack present
         2 < pubrel 2
         2 < publish t/a 1 q1 id=1 dup
         2 < publish t/a 4 q1 id=3
         2 < pubrec 9
         1 < connack
         2 < publish t/c 5";
    // A start does not know of a QoS 1 message whether it was sent, so it says that it may have been.
    let restarted = "2 < connack present
         2 < pubrel 2
         read r1 after 0 limit 19
         2 < publish t/a 1 q1 id=1 dup
         2 < publish t/a 4 q1 id=3 dup
         2 < pubrec 9
         1 < connack
         2 < publish t/c 5";
    for (after, expected) in [(&[][..], lost), (&["crash"][..], restarted)] {
        let before = [
            "open 1",
            "1 connect pub clean",
            "open 2",
            "2 connect sub",
            "commit",
            "2 subscribe 1 t/# q2",
            "commit",
            // Unanswered; past PUBREC; from the client and not released.
            "1 publish t/a 1 q1 id=1",
            "1 publish t/a 2 q2 id=2",
            "commit",
            "2 pubrec 2",
            "commit",
            "2 publish x 3 q2 id=9",
            "commit",
            "2 lost",
            // Not yet sent.
            "1 publish t/a 4 q1 id=3",
            "commit",
        ];
        let come = ["open 2", "2 connect sub", "--", "commit", "rows", "2 publish t/b 3 q2 id=9 dup"];
        // Its subscription brings what is published from now on.
        let more = ["open 1", "1 connect pub clean", "1 publish t/c 5 q0"];
        check(&[&before[..], after, &come, &more].concat(), expected);
    }
}
