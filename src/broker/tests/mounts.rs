//! Scripts of mount points: what a client behind one says and sees, and what others do.
//!
//! Connection 1 is behind `barn/`, connection 2 is not.

use super::script::{Script, check, config};
use crate::record::DropReason;

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

/// `a` keeps a session below `barn/`, which wants all that is there, and is away.
const BARNS: [&str; 6] =
    ["open 1 mount=barn/", "1 connect a", "commit", "1 subscribe 1 # q1", "commit", "1 lost"];

#[test]
fn a_session_is_nobody_s_who_comes_through_another_mount_point() {
    for crash in [&["commit"][..], &["commit", "crash"]] {
        for other in ["open 3 mount=shed/", "open 3"] {
            for clean in ["", "clean"] {
                let come = [other, "--", &format!("3 connect a {clean}"), "commit"];
                let mount = other.trim_start_matches("open 3").trim_start_matches(" mount=");
                let at = if mount.is_empty() { String::new() } else { format!(" at {mount}") };
                let refused =
                    format!("foreign a: nobody{at}, not nobody at barn/\n3 < connack 0x85\nclose 3");
                check(&[&BARNS[..], crash, &come].concat(), &refused);
            }
        }
        let same = ["open 1 mount=barn/", "--", "1 connect a", "commit"];
        let resumed = "write session a r1 [barn/#]\n1 < connack present";
        check(&[&BARNS[..], crash, &same].concat(), resumed);
    }
}

/// A session of a store that did not yet say where it was made.
const BEFORE: [&str; 8] = [
    "open 1 mount=barn/",
    "1 connect a",
    "commit",
    "1 subscribe 1 # q1",
    "commit",
    "open 2",
    "2 connect b clean",
    "2 publish barn/1 in q1 id=1",
];

#[test]
fn a_session_of_a_store_of_before_becomes_that_of_the_first_mount_point() {
    let come = ["commit", "crash old", "open 3 mount=shed/", "--", "3 connect a", "commit", "rows"];
    let first = [&BEFORE[..], &come].concat();
    let resumed = "write session a r1 [barn/#]
         3 < connack present
         read r1 after 0 limit 20
         write dropped r1/1 denied";
    check(&first, resumed);
    let second = ["3 lost", "open 4 mount=barn/", "--", "4 connect a"];
    check(
        &[&first[..], &second].concat(),
        "foreign a: nobody at barn/, not nobody at shed/\n4 < connack 0x85\nclose 4",
    );
}

#[test]
fn what_becomes_too_long_is_refused() {
    let deep = "/".repeat(127);
    both(
        &["--", &format!("1 subscribe 1 {deep}"), &format!("1 publish {deep} x q1 id=1")],
        "1 < suback 1 0x8f\n1 < puback 1 0x90",
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

// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
#[test]
fn a_packet_is_as_large_as_the_client_sees_it() {
    for (session, filter) in
        [("clean", "t"), ("clean", "$share/g/t"), ("expiry=60", "t"), ("expiry=60", "$share/g/t")]
    {
        let mut script = Script::new(config());
        script.run(&[
            "open 1 mount=a/very/long/mount/point/",
            &format!("1 connect sub v5 keep=9 size=40 {session}"),
            "commit",
            &format!("1 subscribe 1 {filter} q2"),
            "commit",
            "open 2",
            "2 connect pub v5 clean",
        ]);
        for (qos, most) in [("", 34), ("q1 id=1", 32), ("q2 id=2", 32)] {
            let lost =
                |script: &Script| script.broker.counters().dropped.remove(&DropReason::TooLarge).unwrap_or(0);
            let before = lost(&script);
            let mut publish = |length: usize| {
                let payload = "x".repeat(length);
                let said = format!("2 publish a/very/long/mount/point/t {payload} {qos}");
                script.run(&["--", &said, "2 pubrel 2", "commit"]);
                let sent = script.said.iter().filter(|line| line.starts_with("1 < publish t x")).count();
                (sent, lost(&script))
            };
            assert_eq!(publish(most), (1, before), "{session} {filter} {qos}");
            assert_eq!(publish(most + 1), (0, before + 1), "{session} {filter} {qos}");
        }
    }
}

#[test]
fn what_is_sent_again_is_as_large_as_the_client_sees_it() {
    for filter in ["t", "$share/g/t"] {
        let mut script = Script::new(config());
        let fits = "x".repeat(32);
        script.run(&[
            "open 1 mount=a/very/long/mount/point/",
            "1 connect sub v5 keep=9 expiry=60",
            "commit",
            &format!("1 subscribe 1 {filter} q2"),
            "commit",
            "open 2",
            "2 connect pub v5 clean",
            &format!("2 publish a/very/long/mount/point/t {fits} q1 id=1"),
            &format!("2 publish a/very/long/mount/point/t {fits} q2 id=2"),
            "commit",
            "1 lost",
            "open 1 mount=a/very/long/mount/point/",
            "1 connect sub v5 keep=9 expiry=60 size=40",
            "--",
            "commit",
        ]);
        let sent = script.said.iter().filter(|line| line.starts_with("1 < publish t x")).count();
        assert_eq!((sent, script.broker.counters().dropped.len()), (2, 0), "{filter}: {:?}", script.said);
    }
}

// [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
#[test]
fn a_dollar_hides_a_topic_there_too_from_wildcards_at_the_start() {
    both(
        &[
            "1 subscribe 1 # q1 sid=1",
            "1 subscribe 2 +/x q1 sid=2",
            "1 subscribe 3 $foo/+ sid=3",
            "2 subscribe 1 barn/#",
            "--",
            "2 publish barn/$foo/x hidden q1 id=1",
            "2 publish barn/n/x seen",
            "2 publish barn/$foo/x/y hidden",
        ],
        "2 < publish barn/$foo/x hidden
         1 < publish $foo/x hidden ids=3
         2 < puback 1
         1 < publish n/x seen ids=1,2
         2 < publish barn/n/x seen
         2 < publish barn/$foo/x/y hidden",
    );
    // Retained.
    both(
        &[
            "2 publish barn/$foo/x hidden retain",
            "2 publish barn/n/x seen q1 id=1 retain",
            "commit",
            "--",
            "1 subscribe 1 #",
            "1 subscribe 2 +/x q1",
            "1 subscribe 3 $foo/#",
            "2 subscribe 1 barn/#",
        ],
        "1 < suback 1 0x00
         1 < publish n/x seen retain
         1 < suback 2 0x01
         1 < publish n/x seen q1 id=1 retain
         1 < suback 3 0x00
         1 < publish $foo/x hidden retain
         2 < suback 1 0x00
         2 < publish barn/$foo/x hidden retain
         2 < publish barn/n/x seen retain",
    );
}

// [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
#[test]
fn a_dollar_hides_a_topic_from_a_group_s_members_there_and_not_from_others() {
    for qos in ["", "q1 id=1", "q2 id=1"] {
        let mut script = Script::new(config());
        script.run(&BOTH);
        script.run(&["1 subscribe 1 $share/g/# q2"]);
        let publish = format!("2 publish barn/$foo hidden {qos}");
        script.run(&["--", &publish, "2 pubrel 1", "commit"]);
        assert!(!script.said.iter().any(|line| line.contains("hidden")), "{:?}", script.said);
        // One who says the same from outside means those topics too.
        script.run(&["open 3", "3 connect c v5 clean", "3 subscribe 1 $share/g/barn/# q2"]);
        for _ in 0..3 {
            script.run(&["--", &publish, "2 pubrel 1", "commit"]);
            let to = script.said.iter().filter(|line| line.contains("< publish"));
            let to: Vec<_> = to.map(|line| line.split(" id=").next()).collect();
            let qos = qos.trim_end_matches(" id=1");
            let line = format!("3 < publish barn/$foo hidden {qos}");
            assert_eq!(to, [Some(line.trim_end())], "{:?}", script.said);
        }
    }
}

#[test]
fn a_dollar_hides_a_topic_from_a_session_that_is_away_also_after_a_restart() {
    for crash in [
        &["commit"][..],
        &["commit", "crash"],
        &["commit", "crash old", "open 1 mount=barn/", "1 connect a", "commit", "1 lost"],
    ] {
        let mut script = Script::new(config());
        script.run(&BARNS);
        script.run(crash);
        script.run(&["open 2", "2 connect b clean", "--", "2 publish barn/$foo hidden q1 id=1"]);
        assert_eq!(script.said, ["2 < puback 1 0x10"], "{crash:?}");
        script.run(&["--", "2 publish barn/foo seen q1 id=1"]);
        assert_eq!(script.said, ["write message 1 barn/foo seen for [r1 q1]"], "{crash:?}");
    }
}

#[test]
fn who_publishes_for_a_large_group_of_which_nobody_may_read_it_rests_between() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect pub v5 clean keep=9"]);
    // `$` hides it from each of them, wherever their mount point lies.
    for slot in 2..4_100 {
        script.run(&[&format!("open {slot} mount=a/"), &format!("{slot} connect c{slot} v5 clean keep=9")]);
        script.run(&[&format!("{slot} subscribe 1 $share/g/#")]);
    }
    script.run(&["--", "1 publish a/$x 1 ; ping", "after 1"]);
    assert_eq!(script.said, ["pause 1"]);
    script.run(&["--", "after 1", "after 1", "1 publish a/x 2"]);
    assert_eq!(script.said[..2], ["1 < pong", "resume 1"]);
    assert!(script.said[2].ends_with("< publish x 2"), "{:?}", script.said);
}
