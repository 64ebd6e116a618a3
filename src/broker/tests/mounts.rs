//! Scripts of mount points: what a client behind one says and sees, and what others do.
//!
//! Connection 1 is behind `barn/`, connection 2 is not.

use super::script::check;

const BOTH: [&str; 4] = ["open 1 mount=barn/", "1 connect a v5 clean", "open 2", "2 connect b v5 clean"];

fn both(events: &[&str], expected: &str) {
    check(&[&BOTH[..], events].concat(), expected);
}

#[test]
fn its_topics_lie_below_the_mount_point_and_it_does_not_see_that() {
    both(
        &[
            "1 subscribe 1 #",
            "2 subscribe 1 #",
            "--",
            "1 publish t hi",
            "2 publish barn/t ho",
            "2 publish t no",
        ],
        "2 < publish barn/t hi
         1 < publish t hi
         2 < publish barn/t ho
         1 < publish t ho
         2 < publish t no",
    );
}

#[test]
fn the_level_of_the_mount_point_itself_is_outside() {
    both(&["1 subscribe 1 # q1", "--", "2 publish barn x q1 id=1"], "2 < puback 1 0x10");
}

#[test]
fn a_filter_is_taken_back_as_it_was_given() {
    both(
        &[
            "1 subscribe 1 t q1",
            "--",
            "1 unsubscribe 2 t,x",
            "1 unsubscribe 3 t",
            "2 publish barn/t x q1 id=1",
        ],
        "1 < unsuback 2 0x11
         1 < unsuback 3 0x00
         2 < puback 1 0x10",
    );
}

#[test]
fn retained_messages_and_wills_lie_there_too() {
    check(
        &[
            "open 1 mount=barn/",
            "1 connect a clean will=w:gone:retain",
            "1 publish r kept retain",
            "commit",
            "1 lost",
            "commit",
            "open 1 mount=barn/",
            "1 connect a clean",
            "open 2",
            "2 connect b clean",
            "--",
            "2 subscribe 1 #",
            "1 subscribe 1 #",
        ],
        "2 < suback 1 0x00
         2 < publish barn/r kept retain
         2 < publish barn/w gone retain
         1 < suback 1 0x00
         1 < publish r kept retain
         1 < publish w gone retain",
    );
}

#[test]
fn an_alias_stands_for_the_topic_as_the_client_says_it() {
    both(
        &["2 subscribe 1 #", "--", "1 publish t 1 alias=1", "1 publish - 2 alias=1"],
        "2 < publish barn/t 1\n2 < publish barn/t 2",
    );
}

#[test]
fn the_houses_topics_are_neither_seen_nor_written_there() {
    both(
        &[
            "1 subscribe 1 $SYS/# q1",
            "1 subscribe 2 tidegate/#",
            "--",
            "1 publish $SYS/x y q1 id=1",
            "1 publish tidegate/x y q1 id=2",
        ],
        "1 < puback 1 0x87\n1 < puback 2 0x87",
    );
}

#[test]
fn a_kept_session_sees_only_what_lies_below_the_mount_point_of_its_connection() {
    check(
        &[
            "open 1",
            "1 connect a",
            "commit",
            "1 subscribe 1 # q1",
            "commit",
            "1 lost",
            "commit",
            "open 2",
            "2 connect b clean",
            "2 publish barn/1 in q1 id=1",
            "2 publish else out q1 id=2",
            "commit",
            "open 1 mount=barn/",
            "1 connect a",
            "--",
            "commit",
        ],
        "1 < connack present
         1 < publish 1 in q1 id=1
         write dropped r1/2 denied",
    );
}

#[test]
fn what_is_unanswered_is_not_repeated_through_another_mount_point() {
    check(
        &[
            "open 1 mount=barn/",
            "1 connect a",
            "commit",
            "1 subscribe 1 # q1",
            "commit",
            "open 2",
            "2 connect b clean",
            "2 publish barn/1 in q1 id=1",
            "commit",
            "1 lost",
            "commit",
            "open 3 mount=shed/",
            "3 connect a",
            "--",
            "commit",
        ],
        "3 < connack present
         write dropped r1/1 denied",
    );
}

#[test]
fn what_becomes_too_long_is_refused() {
    let deep = "/".repeat(127);
    both(
        &["--", &format!("1 subscribe 1 {deep}"), &format!("1 publish {deep} x q1 id=1")],
        "1 < suback 1 0x8f\n1 < disconnect 0x90\nclose 1",
    );
}

#[test]
fn a_client_that_its_listener_refuses_hears_why() {
    check(&["open 1 refused=0x9f", "1 connect a v5 clean"], "1 < connack 0x9f\nclose 1");
    check(&["open 1 refused=0x97", "1 connect a clean"], "1 < connack 0x97\nclose 1");
}

#[test]
fn a_shared_subscription_lies_there_too() {
    both(
        &[
            "1 subscribe 1 $share/g/t q1",
            "--",
            "2 publish t no q1 id=1",
            "2 publish barn/t yes q1 id=2",
            "1 unsubscribe 2 $share/g/t",
            "2 publish barn/t no q1 id=3",
        ],
        "2 < puback 1 0x10
         1 < publish t yes q1 id=1
         2 < puback 2
         1 < unsuback 2 0x00
         2 < puback 3 0x10",
    );
}
