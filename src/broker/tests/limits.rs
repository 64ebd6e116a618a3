//! Scripts of the limits in bytes: queues of sessions, and all memory together.
//!
//! A message of one letter on `t/a` weighs 100 bytes: 96 and its own.

use super::script::{Script, check_with, config};
use crate::broker::{Config, Event, WhenFull};
use crate::record::DropReason;

fn queues(bytes: u64, when_full: WhenFull) -> Config {
    let mut config = config();
    (config.limits.max_queued_bytes, config.limits.when_queue_full) = (bytes, when_full);
    config
}

pub(super) fn memory(most: usize) -> Config {
    let mut config = config();
    config.limits.max_memory = most;
    config
}

/// `sub` keeps its session and is away, `pub` publishes.
const AWAY: [&str; 8] = [
    "open 1",
    "1 connect pub clean",
    "open 2",
    "2 connect sub",
    "commit",
    "2 subscribe 1 t/# q1",
    "2 lost",
    "commit",
];

fn run(config: Config, events: &[&str]) -> Script {
    let mut script = Script::new(config);
    script.run(&AWAY);
    script.run(events);
    script
}

#[test]
fn the_oldest_go_where_a_queue_has_too_many_bytes() {
    let events = [
        "1 publish t/a 1 q1 id=1",
        "1 publish t/a 2 q1 id=2",
        "commit",
        "--",
        "1 publish t/a 3 q1 id=3",
        "1 publish t/a a-message-of-much-more-weight-than-the-others-have-which-takes-two-of-their-places q1 id=4",
        "commit",
        "open 2",
        "2 connect sub",
        "commit",
    ];
    let script = run(queues(300, WhenFull::DropOldest), &events);
    let told: Vec<&str> =
        script.said.iter().map(String::as_str).filter(|line| !line.starts_with("1 <")).collect();
    assert_eq!(
        told,
        [
            "write message 3 t/a 3 for [r1 q1]",
            "write message 4 t/a a-message-of-much-more-weight-than-the-others-have-which-takes-two-of-their-places for [r1 q1]",
            "write dropped r1/1 queue_full",
            "write dropped r1/2 queue_full",
            "write session sub r1 [t/#]",
            "2 < connack present",
            "2 < publish t/a 3 q1 id=1",
            "2 < publish t/a a-message-of-much-more-weight-than-the-others-have-which-takes-two-of-their-places q1 id=2",
        ]
    );
    assert_eq!(script.broker.counters().lost_by_session.get("sub"), Some(&2));
}

#[test]
fn a_queue_s_bytes_are_known_after_a_restart() {
    let script = run(
        queues(300, WhenFull::DropOldest),
        &[
            "1 publish t/a 1 q1 id=1",
            "1 publish t/a 2 q1 id=2",
            "1 publish t/a 3 q1 id=3",
            "commit",
            "crash",
            "open 1",
            "1 connect pub clean",
            "--",
            "1 publish t/a 4 q1 id=4",
        ],
    );
    assert_eq!(script.said, ["write message 4 t/a 4 for [r1 q1]", "write oldest 1 of r1 after 0"]);
}

#[test]
fn the_newest_goes_where_that_is_the_policy() {
    let mut few = queues(10_000, WhenFull::DropNewest);
    few.limits.max_queued_messages = 2;
    for config in [queues(250, WhenFull::DropNewest), few] {
        let script = run(
            config,
            &[
                "1 publish t/a 1 q1 id=1",
                "1 publish t/a 2 q1 id=2",
                "commit",
                "--",
                "1 publish t/a 3 q1 id=3",
                "open 2",
                "2 connect sub",
                "commit",
                "1 publish t/a 4 q1 id=4",
            ],
        );
        assert_eq!(
            script.said,
            [
                // Nobody who is told keeps it, so nothing is waited for.
                "1 < puback 3",
                "write queue_full 1 of r1",
                "write session sub r1 [t/#]",
                "2 < connack present",
                "2 < publish t/a 1 q1 id=1",
                "2 < publish t/a 2 q1 id=2",
                "write message 3 t/a 4 for [r1 q1]",
                "2 < publish t/a 4 q1 id=3",
            ]
        );
        let counters = script.broker.counters();
        assert_eq!(counters.lost_by_session.get("sub"), Some(&1));
        assert_eq!(counters.dropped.get(&DropReason::QueueFull), Some(&1));
    }
}

#[test]
fn a_full_queue_of_one_session_is_nobody_else_s() {
    let script = run(
        queues(150, WhenFull::DropNewest),
        &[
            "open 3",
            "3 connect other",
            "commit",
            "3 subscribe 1 t/a q1",
            "commit",
            "1 publish t/a 1 q1 id=1",
            "commit",
            "--",
            "1 publish t/a 2 q1 id=2",
        ],
    );
    assert_eq!(
        script.said,
        ["write message 2 t/a 2 for [r2 q1]", "3 < publish t/a 2 q1 id=2", "write queue_full 1 of r1"]
    );
}

#[test]
fn the_engine_is_told_how_full_the_memory_is() {
    let all = ["--", "buffered 749999", "buffered 750000", "buffered 800000", "buffered 0"];
    check_with(memory(1_000_000), &all, "memory tight\nmemory ample");
    check_with(
        memory(1_000_000),
        &["--", "buffered 1000000", "buffered 750000"],
        "memory full\nmemory tight",
    );
}

#[test]
fn what_connections_take_whatever_they_do_keeps_out_who_is_new_and_lets_nobody_go() {
    let mut script = Script::new(memory(1_000_000));
    script.run(&["open 1", "1 connect a v5 clean keep=9", "buffered 200000 of=1", "--"]);
    let told = script.broker.counters().memory;
    script.handle(vec![Event::Resting { bytes: 740_000 }]);
    assert_eq!(script.broker.counters().memory, told + 740_000);
    script.run(&["open 2", "2 connect b v5 clean keep=9"]);
    script.handle(vec![Event::Resting { bytes: 2_000_000 }]);
    script.run(&["open 3", "3 connect c v5 clean keep=9", "open 4 port", "4 connect d v5 clean keep=9"]);
    script.run(&["open 5", "5 connect a v5 keep=9"]);
    assert_eq!(
        script.said,
        [
            "memory tight",
            "2 < connack",
            "3 < connack 0x97",
            "close 3",
            "4 < connack",
            "1 < disconnect 0x8e",
            "close 1",
            "5 < connack"
        ]
    );
}

#[test]
fn nobody_new_is_taken_where_memory_is_full() {
    for (version, code) in [("v5", "0x97"), ("v311", "0x97")] {
        check_with(
            memory(1_000_000),
            &["buffered 1000000", "open 1", "--", &format!("1 connect a {version} clean")],
            &format!("1 < connack {code}\nclose 1"),
        );
    }
    assert_eq!(crate::codec::Reason::QuotaExceeded.return_code(), 3);
    check_with(
        memory(1_000_000),
        &["buffered 1000000", "open 1 port", "--", "1 connect a v5 clean"],
        "1 < connack",
    );
    check_with(
        memory(1_000_000),
        &[
            "open 1",
            "1 connect a v5 clean",
            "buffered 1000000",
            "--",
            "1 subscribe 1 t q0",
            "buffered 1",
            "1 subscribe 2 t q0",
        ],
        "1 < suback 1 0x97\nmemory ample\n1 < suback 2 0x00",
    );
}

// [MQTT5-3.8.4-3]
#[test]
fn what_a_client_has_subscribed_to_it_may_where_memory_is_full_too() {
    check_with(
        memory(1_000_000),
        &[
            "open 1",
            "1 connect a v5 clean",
            "1 subscribe 1 t q0",
            "1 subscribe 2 $share/g/t q0",
            "buffered 1000000",
            "--",
            "1 subscribe 3 t q1, u q1",
            "1 subscribe 4 $share/g/t q1",
        ],
        "1 < suback 3 0x01 0x97
         1 < suback 4 0x01",
    );
}

#[test]
fn whoever_holds_most_is_let_go_and_a_kept_session_loses_nothing() {
    check_with(
        memory(1_000_000),
        &[
            "open 1",
            "1 connect pub v5 clean",
            "open 2",
            "2 connect sub v5 expiry=60",
            "commit",
            "2 subscribe 1 t q1",
            "commit",
            "1 publish t x q1 id=1",
            "commit",
            "--",
            "buffered 1000000 of=1",
            // Only what the engine says once it knows is of now.
            "buffered 1000000 of=2",
            "commit",
            "open 2",
            "2 connect sub v5 expiry=60 keep=9",
            "commit",
        ],
        "memory full
         2 < disconnect 0x97
         close 2
         write session sub r1 [t] ended
         memory ample
         write session sub r1 [t]
         2 < connack present
         2 < publish t x q1 id=1 dup",
    );
}

#[test]
fn a_queue_in_memory_counts_and_its_owner_is_let_go() {
    let mut config = memory(10_000);
    config.limits.max_inflight = 1;
    let mut script = Script::new(config);
    script.run(&[
        "open 1",
        "1 connect pub v5 clean",
        "open 2",
        "2 connect sub v5 clean",
        "2 subscribe 1 t q1",
        "--",
    ]);
    let payload = "x".repeat(1_000);
    for _ in 0..20 {
        script.run(&[&format!("1 publish t {payload} q1 id=1")]);
        if script.said.iter().any(|line| line == "close 2") {
            break;
        }
    }
    assert!(script.said.contains(&"2 < disconnect 0x97".to_owned()), "{:?}", script.said);
    assert!(!script.said.contains(&"close 1".to_owned()));
    assert_eq!(script.broker.counters().memory, 3, "the publisher's name");
    let counters = script.broker.counters();
    assert_eq!(counters.dropped.get(&DropReason::MemoryFull), Some(&counters.received), "none was answered");
}

#[test]
fn what_is_lost_with_a_session_that_a_full_queue_ends_is_counted() {
    for (version, reason) in [("v5", "2 < disconnect 0x97"), ("v311", "close 2")] {
        let mut config = config();
        (config.limits.max_inflight, config.limits.max_send_buffer) = (3, 450);
        let mut script = Script::new(config);
        script.run(&["open 1", "1 connect pub clean", "open 2", &format!("2 connect sub {version} clean")]);
        script.run(&["open 3", "3 connect kept expiry=60", "commit", "3 subscribe 1 t q2", "commit"]);
        script.run(&["2 subscribe 1 t q2"]);
        // Of the first it has said that it came, of the second that it is done with it.
        script.run(&["1 publish t x q2 id=1", "1 publish t x q2 id=2", "commit"]);
        script.run(&["2 pubrec 1", "2 pubrec 2", "2 pubcomp 2", "--"]);
        for id in 3..=20 {
            script.run(&[&format!("1 publish t x q2 id={id}"), "commit"]);
            if script.said.iter().any(|line| line == reason) {
                break;
            }
        }
        let counters = script.broker.counters();
        // Two that are under way, four that wait, and one more.
        assert_eq!(counters.received, 2 + 2 + 4 + 1);
        assert_eq!(counters.dropped.get(&DropReason::QueueFull), Some(&7), "{version}");
        assert_eq!((counters.dropped.len(), counters.queued), (1, 6), "what is kept waits");
    }
}

#[test]
fn what_is_lost_with_a_session_that_was_to_be_kept_once_is_counted() {
    let mut config = memory(100_000);
    config.limits.max_inflight = 2;
    let back = ["open 2", "2 connect sub v5 expiry=60", "commit", "2 lost", "commit"];
    let mut script = run(config, &back);
    for id in 1..=5 {
        script.run(&[&format!("1 publish t/a {id} q1 id={id}"), "commit"]);
    }
    // Two are under way by now, and three wait on disk.
    script.run(&["open 2", "2 connect sub v5", "commit", "rows", "commit"]);
    script.run(&["buffered 1000000 of=2", "buffered 1000000 of=2", "commit"]);
    assert!(script.said.contains(&"2 < disconnect 0x97".to_owned()), "{:?}", script.said);
    assert_eq!(script.broker.counters().dropped.get(&DropReason::MemoryFull), Some(&5));
}

#[test]
fn what_is_only_remembered_goes_before_anybody() {
    let mut script = run(memory(1_000_000), &[]);
    for number in 0..1_000 {
        script.run(&[&format!("1 publish t/{number} x ; publish t/{number} x ; publish t/{number} x")]);
    }
    let known = script.broker.atlas.bytes();
    assert!(known > 20_000, "{known}");
    // Both together are too much, and what is in the buffer alone is not.
    script.run(&["buffered 980000 of=1", "--", "buffered 980000 of=1"]);
    assert!(script.broker.atlas.bytes() < 5_000);
    assert!(!script.said.iter().any(|line| line.starts_with("close")), "{:?}", script.said);
}

#[test]
fn who_is_let_go_and_keeps_his_session_loses_nothing() {
    let mut script = run(
        memory(100_000),
        &["open 2", "2 connect sub v5 expiry=60", "commit", "1 publish t/a 1 q1 id=1", "commit", "--"],
    );
    script.run(&["buffered 1000000 of=2", "buffered 1000000 of=2", "commit"]);
    assert!(script.said.contains(&"2 < disconnect 0x97".to_owned()), "{:?}", script.said);
    assert!(script.broker.counters().dropped.is_empty());
}

// [MQTT5-3.5.2-1]
#[test]
fn wills_and_retained_messages_have_half_of_the_memory() {
    let large = "y".repeat(12_000);
    let publish = format!("1 publish t {large} retain q1 id=1");
    let first = ["open 1", "1 connect a v5 clean", &publish, "commit"];
    // MQTT 5 is told, and nothing is routed.
    let mut script = Script::new(memory(60_000));
    script.run(&first);
    script.run(&["--", &format!("1 publish u {large} retain q1 id=2"), "1 publish t - retain q1 id=3"]);
    assert_eq!(script.said[0], "1 < puback 2 0x97");
    let mut twice = Script::new(memory(60_000));
    twice.run(&first);
    twice.run(&["--", &format!("1 publish u {large} retain q2 id=2")]);
    assert_eq!(twice.said, ["1 < pubrec 2 0x97"]);
    // Its publisher knows, so nothing is dropped.
    let counters = script.broker.counters();
    assert_eq!((counters.not_accepted, counters.dropped.get(&DropReason::MemoryFull)), (1, None));
    // The same again takes no more, and an empty one always passes.
    script.run(&["commit", "--", &publish]);
    assert!(script.said[0].ends_with("for [] retained"), "{:?}", script.said);
    // Wills count as well.
    let mut script = Script::new(memory(60_000));
    script.run(&["open 1", "1 connect a v5 clean"]);
    leave_the_largest(&mut script, 2..50);
    assert!((18_000..=30_000).contains(&script.broker.memory.wills), "{}", script.broker.memory.wills);
    script.run(&["--", &publish]);
    assert_eq!(script.said, ["1 < puback 1 0x97"]);
    let goodbyes: Vec<String> = (2..50).map(|slot| format!("{slot} disconnect")).collect();
    script.run(&goodbyes.iter().map(String::as_str).collect::<Vec<_>>());
    script.run(&["--", &publish]);
    assert!(script.said[0].ends_with("for [] retained"), "{:?}", script.said);
}

/// Each of these leaves as large a will as it may, a quarter less of it at each attempt.
fn leave_the_largest(script: &mut Script, slots: std::ops::Range<u32>) {
    for slot in slots {
        let mut size = 100_000;
        loop {
            let connect = format!("{slot} connect large{slot} v5 clean keep=9 will=w:{}", "y".repeat(size));
            script.run(&[&format!("open {slot}"), "--", &connect]);
            if script.said == [format!("{slot} < connack")] || size == 1 {
                break;
            }
            size = (size * 3 / 4).max(1);
        }
    }
}

#[test]
fn a_few_large_wills_keep_no_client_with_a_small_one_out() {
    let mut script = Script::new(memory(1_000_000));
    leave_the_largest(&mut script, 1..60);
    for slot in 100..120 {
        let connect = format!("{slot} connect small{slot} v5 clean keep=9 will=w:{}", "y".repeat(300));
        script.run(&[&format!("open {slot}"), "--", &connect]);
        assert_eq!(script.said, [format!("{slot} < connack")]);
    }
}

#[test]
fn what_stayed_from_before_locks_nobody_out() {
    let large = "y".repeat(700);
    let mut script = Script::new(memory(5_000));
    script.run(&["open 1", "1 connect a v5 clean", &format!("1 publish t {large} retain q1 id=1"), "commit"]);
    script.configure(memory(3_000));
    script.run(&[
        "crash",
        "open 1",
        "--",
        "1 connect a v5 clean",
        "1 publish t - retain q0",
        "1 publish u z retain q1 id=1",
    ]);
    assert!(script.said[0].starts_with("1 < connack keep"), "{:?}", script.said);
    assert!(script.said.iter().any(|line| line.ends_with("for [] retained")), "{:?}", script.said);
}

#[test]
fn a_group_in_ram_does_not_grow_beyond_the_memory() {
    let mut script = Script::new(memory(200_000));
    script.run(&["open 1", "1 connect pub v5 clean"]);
    for group in 0..20 {
        let member = 2 + group / 5;
        if group % 5 == 0 {
            script.run(&[
                &format!("open {member}"),
                &format!("{member} connect sub{member} v5 clean window=1"),
            ]);
        }
        script.run(&[&format!("{member} subscribe {} $share/g{group}/t q1", group + 1)]);
    }
    script.run(&[&format!("1 publish t {} q1 id=1", "x".repeat(20_000))]);
    assert!(script.broker.counters().memory <= 221_000, "{}", script.broker.counters().memory);
    assert!(script.broker.counters().dropped[&DropReason::MemoryFull] > 5);
}

#[test]
fn an_older_client_s_message_is_delivered_and_not_retained() {
    let large = "y".repeat(700);
    let mut script = Script::new(memory(1_000));
    script.run(&[
        "open 1",
        "1 connect a clean",
        "1 subscribe 1 t q0",
        "--",
        &format!("1 publish t {large} retain q1 id=1"),
    ]);
    assert_eq!(script.said, [format!("1 < publish t {large}"), "1 < puback 1".to_owned()]);
    assert_eq!(script.broker.counters().retained, 0);
    assert_eq!(script.broker.counters().dropped.get(&DropReason::MemoryFull), Some(&1));
}

#[test]
fn a_message_that_waits_for_the_store_is_counted_once() {
    let large = "y".repeat(700);
    let mut script = Script::new(Config { routes: super::script::with_route(true).routes, ..memory(1_000) });
    script.broker.ledger.bound(4, 1);
    script.run(&["open 1", "1 connect a clean", "1 publish up/x 1 q1 id=1"]);
    script.run(&[&format!("1 publish up/t {large} retain q1 id=2"), "commit"]);
    assert_eq!(script.broker.counters().dropped.get(&DropReason::MemoryFull), Some(&1));
}

#[test]
fn limits_hold_for_those_who_waited_for_their_password() {
    let passwords = |mut config: Config| {
        config.passwords = crate::broker::Passwords::File;
        config
    };
    let open = |slot: u32| {
        [format!("open {slot} password"), format!("{slot} connect c{slot} v5 clean keep=9 user=u pass=p")]
    };
    let mut one = passwords(config());
    one.limits.max_connections = 1;
    let before = [open(1), open(2)].concat();
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    let refused = "1 < connack\n2 < connack 0x97\nclose 2";
    check_with(one, &[&before[..], &["--", "1 verified", "2 verified"]].concat(), refused);
    let full = ["buffered 1000000", "--", "1 verified"];
    check_with(passwords(memory(1_000_000)), &[&before[..], &full].concat(), "1 < connack 0x97\nclose 1");
}

/// Somebody whose password is being compared, and who says a lot meanwhile.
fn strangers(config: Config) -> Script {
    let mut script = Script::new(Config { passwords: crate::broker::Passwords::File, ..config });
    script.run(&["open 1", "1 connect pub v5 clean", "open 2", "2 connect sub v5 clean window=1"]);
    script.run(&["2 subscribe 1 t q1", &format!("1 publish t {} q1 id=1", "x".repeat(6_000))]);
    script.run(&["open 3 password", "3 connect c v5 clean user=u pass=p", "--"]);
    script
}

#[test]
fn a_stranger_is_paused_before_he_holds_much() {
    let mut script = strangers(config());
    let publish = format!("3 publish t {}", "x".repeat(9_000));
    script.run(&[&publish]);
    assert!(script.said.is_empty(), "{:?}", script.said);
    script.run(&[&publish]);
    assert_eq!(script.said, ["pause 3"]);
    script.run(&["--", &publish, "3 verified"]);
    assert_eq!(script.said.iter().filter(|line| line.starts_with("2 < publish")).count(), 3);
    assert_eq!(script.said.last().map(String::as_str), Some("resume 3"));
}

#[test]
fn a_stranger_who_holds_most_is_put_out_and_no_client() {
    for gone in [false, true] {
        let mut script = strangers(memory(32_000));
        let before = script.broker.counters().memory;
        script.run(&[&format!("3 publish t {}", "x".repeat(20_000))]);
        if gone {
            script.run(&["3 lost"]);
        }
        script.run(&["--", &format!("1 publish t {} q1 id=2", "x".repeat(9_000))]);
        script.run(&[&format!("1 publish t {} q1 id=3", "x".repeat(4_000)), "buffered 0"]);
        let closed: Vec<&String> = script.said.iter().filter(|line| line.starts_with("close")).collect();
        let expected: &[&str] = if gone { &[] } else { &["close 3"] };
        assert_eq!(closed, expected, "{gone}");
        script.run(&["--", "3 verified"]);
        assert!(script.said.is_empty(), "{gone}: {:?}", script.said);
        assert!(script.broker.counters().memory < before + 14_000, "{gone}");
    }
}

#[test]
fn what_a_stranger_said_before_he_left_is_forgotten_where_memory_is_tight() {
    let mut script = strangers(memory(40_000));
    let before = script.broker.counters().memory;
    script.run(&[&format!("3 publish t {}", "x".repeat(31_000)), "3 lost"]);
    assert!(script.broker.counters().memory <= before, "{}", script.broker.counters().memory);
    assert_eq!(script.broker.counters().not_accepted, 1);
}

#[test]
fn of_those_who_hold_much_one_goes_each_time_that_the_buffers_are_told() {
    let mut config = memory(100_000);
    config.limits.max_inflight = 1;
    let mut script = Script::new(config);
    script.run(&["open 1", "1 connect pub v5 clean"]);
    for slot in [2, 3, 4] {
        script.run(&[&format!("open {slot}"), &format!("{slot} connect c{slot} v5 clean window=1")]);
        script.run(&[&format!("{slot} subscribe 1 t{slot} q1"), &format!("1 publish t{slot} x q1 id=1")]);
        script.run(&[&format!("1 publish t{slot} {} q1 id=2", "x".repeat(5_000))]);
    }
    let closed =
        |script: &Script| script.said.iter().filter(|line| line.starts_with("close")).cloned().collect();
    // Others' buffers are full, too, so that it is not enough.
    script.handle(vec![Event::Buffered {
        bytes: 300_000,
        heaviest: Some((crate::broker::ConnectionId { slot: 2, generation: 1 }, 100_000)),
    }]);
    script.run(&["1 ping", "1 ping", "1 ping"]);
    let once: Vec<String> = closed(&script);
    assert_eq!(once, ["close 2"]);
    script.run(&["buffered 0"]);
    let then: Vec<String> = closed(&script);
    assert_eq!(then, ["close 2"]);
}
