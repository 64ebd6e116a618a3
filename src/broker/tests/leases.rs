//! Scripts of QoS 2 in groups that outlive connections: whose a message is once it is leased, once it is
//! sent, and after a kill between the two.
//!
//! Sessions a and b are readers 1 and 2, their group is reader 3. `killed` commits what the broker has
//! written and kills it before it hears of that.

use super::script::{Script, config};
use super::sharing::KEPT;
use crate::record::DropReason;

fn kept(events: &[&str]) -> Script {
    let mut script = Script::new(config());
    script.run(&KEPT);
    script.run(events);
    script
}

fn killed(script: &mut Script) {
    script.model.commit(usize::MAX);
    script.run(&["crash"]);
}

/// b comes and has everything read to it.
fn b_comes(script: &mut Script) {
    script.run(&["open 3", "3 connect b"]);
    settle(script);
}

fn settle(script: &mut Script) {
    for _ in 0..4 {
        script.run(&["commit", "rows"]);
    }
}

fn said(script: &Script, start: &str) -> Vec<String> {
    script.said.iter().filter(|line| line.starts_with(start)).cloned().collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn what_was_leased_and_not_sent_goes_to_another_when_its_member_leaves() {
    let script = kept(&["--", "1 publish t/a 1 q2 id=1", "2 lost", "commit"]);
    assert_eq!(
        script.said,
        [
            "write message 1 t/a 1 for [r3 q2]",
            "write leased r3/1 id=1 of r1",
            "write unleased r3/1",
            "write leased r3/1 id=1 of r2",
            "write session a r1 [$share/g/t/#] ended",
            "1 < pubrec 1",
            "3 < publish t/a 1 q2 id=1",
            "write sent r3/1",
        ]
    );
}

#[test]
fn what_was_leased_and_not_sent_outlives_its_member_and_a_restart() {
    let mut script = kept(&["3 lost", "commit", "1 publish t/a 1 q2 id=1"]);
    script.run(&["open 4", "4 connect a clean", "commit", "crash", "--"]);
    b_comes(&mut script);
    assert_eq!(said(&script, "3 < publish"), ["3 < publish t/a 1 q2 id=1"]);
    assert_eq!(said(&script, "write dropped"), NOTHING);
}

#[test]
fn what_a_kill_kept_from_being_sent_is_sent_to_its_holder() {
    let mut script = kept(&["1 publish t/a 1 q2 id=1"]);
    killed(&mut script);
    script.run(&["--"]);
    b_comes(&mut script);
    assert_eq!(said(&script, "3 < publish"), NOTHING);
    script.run(&["open 2", "2 connect a"]);
    settle(&mut script);
    assert_eq!(said(&script, "2 < publish"), ["2 < publish t/a 1 q2 id=1 dup"]);
    assert_eq!(said(&script, "write sent"), ["write sent r3/1"]);
}

#[test]
fn what_a_kill_kept_from_being_sent_goes_to_another_where_its_holder_is_gone() {
    // b has passed it by in the log, or has not.
    for comes_first in [true, false] {
        let mut script = kept(&["1 publish t/a 1 q2 id=1"]);
        killed(&mut script);
        script.run(&["--"]);
        if comes_first {
            b_comes(&mut script);
        }
        script.run(&["open 2", "2 connect a clean"]);
        if !comes_first {
            b_comes(&mut script);
        }
        settle(&mut script);
        assert_eq!(said(&script, "3 < publish"), ["3 < publish t/a 1 q2 id=1"], "{comes_first}");
        assert_eq!(said(&script, "write dropped"), NOTHING);
    }
}

// [MQTT5-4.8.2-5]
#[test]
fn what_was_sent_before_a_restart_goes_to_no_other_where_its_holder_is_gone() {
    for pubrec in [false, true] {
        let mut script = kept(&["1 publish t/a 1 q2 id=1", "commit"]);
        if pubrec {
            script.run(&["2 pubrec 1"]);
        }
        script.run(&["commit", "crash", "--"]);
        b_comes(&mut script);
        script.run(&["open 2", "2 connect a clean"]);
        settle(&mut script);
        assert_eq!(said(&script, "3 < publish"), NOTHING);
        // Who has answered PUBREC has it.
        let purged = u64::from(!pubrec);
        assert_eq!(said(&script, "write dropped r3/1 purged").len() as u64, purged);
        assert_eq!(said(&script, "write settled"), ["write settled r3/1"]);
        let dropped = script.broker.counters().dropped;
        assert_eq!(dropped.get(&DropReason::Purged).copied().unwrap_or(0), purged);
    }
}

// [MQTT5-4.8.2-5]
#[test]
fn an_answer_of_the_store_that_still_has_it_gives_it_to_no_other() {
    let mut script = kept(&["1 publish t/a 1 q2 id=1", "commit", "commit", "crash"]);
    script.run(&["open 3", "3 connect b", "commit", "ask", "open 2", "2 connect a clean", "--"]);
    settle(&mut script);
    assert_eq!(said(&script, "3 < publish"), NOTHING);
}

#[test]
fn what_goes_back_while_the_store_answers_is_given_once() {
    let mut script = kept(&["1 publish t/a 1 q2 id=1"]);
    killed(&mut script);
    script.run(&["open 3", "3 connect b", "commit", "ask", "open 2", "--", "2 connect a clean"]);
    settle(&mut script);
    assert_eq!(said(&script, "3 < publish"), ["3 < publish t/a 1 q2 id=1"]);
}

// [MQTT5-4.8.2-5]
#[test]
fn of_a_member_that_ends_with_its_connection_only_what_was_sent_is_purged() {
    let before = [
        "open 1",
        "1 connect pub v5 clean",
        "open 2",
        "2 connect a",
        "commit",
        "2 subscribe 1 $share/g/t/# q2",
        "commit",
        "2 lost",
        "open 3",
        "3 connect b v5 clean",
        "3 subscribe 1 $share/g/t/# q2",
        "commit",
        "--",
        "1 publish t/a 1 q2 id=1",
    ];
    let mut script = Script::new(config());
    script.run(&before);
    let was_sent = !said(&script, "3 < publish").is_empty();
    killed(&mut script);
    let was_purged = !said(&script, "write dropped r2/1 purged").is_empty();
    assert_eq!(was_sent, was_purged, "{:?}", script.said);
    script.run(&["open 2", "2 connect a"]);
    settle(&mut script);
    assert_eq!(said(&script, "2 < publish").is_empty(), was_purged);
}

#[test]
fn a_row_that_has_come_back_is_the_oldest_that_waits() {
    let mut few = config();
    few.limits.max_queued_messages = 2;
    let mut script = Script::new(few);
    script.run(&KEPT);
    script.run(&["3 lost", "1 publish t/a 1 q2 id=1"]);
    killed(&mut script);
    script.run(&["open 2", "2 connect a clean", "commit", "open 1", "1 connect pub v5 clean", "--"]);
    script.run(&["1 publish t/a 2 q1 id=1", "commit", "1 publish t/a 3 q1 id=2", "commit"]);
    b_comes(&mut script);
    assert_eq!(said(&script, "3 < publish"), ["3 < publish t/a 2 q1 id=1", "3 < publish t/a 3 q1 id=2"]);
    assert_eq!(script.broker.counters().dropped.get(&DropReason::QueueFull), Some(&1));
}

// [MQTT5-4.8.2-4]
#[test]
fn a_packet_id_of_a_member_outlives_the_message_of_its_group() {
    let mut script = kept(&["1 publish t/a 1 q2 id=1", "commit", "commit", "lose r3/1", "--", "crash"]);
    script.run(&["open 2", "2 connect a"]);
    settle(&mut script);
    assert_eq!(said(&script, "write received"), ["write received r3/1"]);
    assert_eq!(said(&script, "2 < "), ["2 < connack present", "2 < pubrel 1"]);
    script.run(&["open 1", "1 connect pub v5 clean", "1 publish t/a 2 q2 id=2", "commit", "2 pubcomp 1"]);
    settle(&mut script);
    assert_eq!(said(&script, "2 < publish"), ["2 < publish t/a 2 q2 id=2"]);
    assert_eq!(said(&script, "write settled"), ["write settled r3/1"]);
}

#[test]
fn a_message_of_a_group_that_is_not_found_again_keeps_its_packet_id() {
    let mut script = kept(&["1 publish t/a 1 q2 id=1", "commit", "commit", "crash", "lose r3/1", "--"]);
    script.run(&["open 2", "2 connect a"]);
    settle(&mut script);
    assert_eq!(said(&script, "write settled"), NOTHING);
    assert_eq!(said(&script, "2 < "), ["2 < connack present", "2 < pubrel 1"]);
}

#[test]
fn an_exchange_without_message_and_holder_is_over_at_the_start() {
    // Of a member that ended with its connection.
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect pub v5 clean", "open 2", "2 connect a", "commit"]);
    script.run(&["2 subscribe 1 $share/g/t/# q2", "commit", "2 lost", "open 3", "3 connect b v5 clean"]);
    script.run(&["3 subscribe 1 $share/g/t/# q2", "commit", "1 publish t/a 1 q2 id=1", "commit"]);
    script.run(&["lose r2/1", "--", "crash"]);
    settle(&mut script);
    assert_eq!(script.said, ["write settled r2/1"]);
    assert_eq!(script.broker.counters().dropped.get(&DropReason::Purged), None);
}

// [MQTT5-4.3.3-4]
#[test]
fn of_what_a_member_refuses_nothing_is_left_after_a_crash() {
    for expiry in ["expiry=60", "clean"] {
        let mut script = Script::new(config());
        script.run(&["open 1", "1 connect pub v5 clean", "open 2", "2 connect a", "commit"]);
        script.run(&["2 subscribe 1 $share/g/t/# q2", "commit", "2 lost", "open 3"]);
        script.run(&[
            &format!("3 connect b v5 {expiry}"),
            "commit",
            "3 subscribe 1 $share/g/t/# q2",
            "commit",
        ]);
        script.run(&["1 publish t/a 1 q2 id=1", "commit", "commit", "3 pubrec 1 0x97", "commit"]);
        assert_eq!(said(&script, "write dropped").len(), 1, "{expiry}");
        assert_eq!(script.model.disk.leases.len(), 0, "{expiry}");
        script.run(&["--", "crash", "open 3", &format!("3 connect b v5 {expiry}")]);
        settle(&mut script);
        assert_eq!(said(&script, "3 < pub"), NOTHING, "{expiry}");
    }
}

#[test]
fn what_is_too_large_for_a_member_is_counted_once_though_its_session_ends_then() {
    for pubrel in [false, true] {
        let mut script = Script::new(config());
        script.run(&["open 1", "1 connect pub v5 clean", "open 2", "2 connect a v5 expiry=60", "commit"]);
        script.run(&["2 subscribe 1 $share/g/t/# q2", "commit"]);
        script.run(&[&format!("1 publish t/a {} q2 id=1", "x".repeat(200)), "commit", "commit", "2 lost"]);
        script.run(&["open 2", "2 connect a v5 expiry=60 size=100", "commit"]);
        if pubrel {
            script.run(&["commit"]);
        }
        assert_eq!(said(&script, "2 < pubrel").len(), usize::from(pubrel));
        script.run(&["--", "open 3", "3 connect a v5 clean", "commit"]);
        assert_eq!(said(&script, "write settled"), ["write settled r2/1"]);
        assert_eq!(script.broker.counters().dropped, [(DropReason::TooLarge, 1)].into());
        assert_eq!(script.model.disk.leases.len(), 0);
    }
}
