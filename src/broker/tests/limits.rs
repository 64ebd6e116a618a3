//! Scripts of the limits in bytes: queues of sessions, and all memory together.
//!
//! A message of one letter on `t/a` weighs 100 bytes: 96 and its own.

use super::script::{Script, check_with, config};
use crate::broker::{Config, WhenFull};
use crate::record::DropReason;

fn queues(bytes: u64, when_full: WhenFull) -> Config {
    let mut config = config();
    (config.limits.max_queued_bytes, config.limits.when_queue_full) = (bytes, when_full);
    config
}

fn memory(most: usize) -> Config {
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
            "buffered 1000000 of=2",
            "commit",
            "open 2",
            "2 connect sub v5 expiry=60 keep=9",
            "commit",
        ],
        "2 < disconnect 0x97
         close 2
         write session sub r1 [t] ended
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
}

// [MQTT5-3.5.2-1]
#[test]
fn wills_and_retained_messages_have_half_of_the_memory() {
    let large = "y".repeat(700);
    let publish = format!("1 publish t {large} retain q1 id=1");
    let will = format!("2 connect b v5 clean will=t:{}", "y".repeat(1_500));
    let run = |events: &[&str]| {
        let mut script = Script::new(memory(6_000));
        script.run(events);
        script
    };
    let first = ["open 1", "1 connect a v5 clean", "open 2", &publish, "commit"];
    // MQTT 5 is told, and nothing is routed.
    let mut script = run(&first);
    script.run(&["--", &format!("1 publish u {large} retain q1 id=2"), "1 publish t - retain q1 id=3"]);
    assert_eq!(script.said[0], "1 < puback 2 0x97");
    let mut twice = run(&first);
    twice.run(&["--", &format!("1 publish u {large} retain q2 id=2")]);
    assert_eq!(twice.said, ["1 < pubrec 2 0x97"]);
    // Its publisher knows, so nothing is dropped.
    let counters = script.broker.counters();
    assert_eq!((counters.not_accepted, counters.dropped.get(&DropReason::MemoryFull)), (1, None));
    // The same again takes no more, and an empty one always passes.
    script.run(&["commit", "--", &publish]);
    assert!(script.said[0].ends_with("for [] retained"), "{:?}", script.said);
    // A will counts as well.
    let mut script = run(&first);
    script.run(&["--", &will]);
    assert_eq!(script.said, ["2 < connack 0x97", "close 2"]);
    let mut script = run(&["open 2", &will, "open 1", "1 connect a v5 clean", "--", &publish]);
    assert_eq!(script.said, ["1 < puback 1 0x97"]);
    script.run(&["2 disconnect", "--", &publish]);
    assert!(script.said[0].ends_with("for [] retained"), "{:?}", script.said);
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

/// What is held in RAM after each of these.
fn held(script: &mut Script, events: &[&str]) -> Vec<u64> {
    events
        .iter()
        .map(|event| {
            script.run(&[event]);
            script.broker.counters().memory
        })
        .collect()
}

#[test]
fn topic_aliases_count_until_their_connection_ends() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a v5 clean"]);
    let topic = "t/".repeat(100);
    let set = format!("1 publish {topic} x alias=3");
    let again = format!("1 publish {topic}u x alias=3");
    let steps = held(&mut script, &["1 publish t x", &set, "1 publish - y alias=3", &again, "1 lost"]);
    assert_eq!(steps[0], 1, "a client id of one letter");
    assert!(steps[1] >= 200, "{steps:?}");
    assert_eq!((steps[2], steps[3]), (steps[1], steps[1] + 1));
    assert_eq!(steps[4], 0);
}

#[test]
fn whoever_sets_the_largest_aliases_is_let_go() {
    let mut config = memory(20_000);
    config.limits.max_topic_alias = 100;
    let mut script = Script::new(config);
    script.run(&["open 1", "1 connect a v5 clean", "open 2", "2 connect b v5 clean", "--"]);
    for alias in 1..=100 {
        script.run(&[&format!("1 publish {} x alias={alias}", "t".repeat(1_000))]);
        if script.said.contains(&"close 1".to_owned()) {
            break;
        }
    }
    assert_eq!(script.said, ["memory tight", "1 < disconnect 0x97", "close 1", "memory ample"]);
    assert_eq!(script.broker.counters().memory, 1);
}

#[test]
fn names_and_filters_count_while_their_session_lasts() {
    let mut script = Script::new(config());
    let filter = "f/".repeat(60);
    let subscribe = format!("1 subscribe 1 {filter} q1");
    let wild = format!("1 subscribe 1 {filter}+ q1");
    let share = format!("1 subscribe 1 $share/g/{filter} q1");
    let take_back = format!("1 unsubscribe 2 {filter} {filter}+ $share/g/{filter}");
    script.run(&["open 1", "1 connect long-name", "commit"]);
    let begun = script.broker.counters().memory;
    assert_eq!(begun, 9);
    let steps = held(&mut script, &[&subscribe, &subscribe, "commit", &wild, "commit", &share, "commit"]);
    assert!(steps[0] > begun + 240, "{steps:?}");
    assert!(steps[2] < steps[1], "an answer that waits weighs too: {steps:?}");
    assert!(steps[4] > steps[2] + 60 * 192, "each level of a filter with a wildcard: {steps:?}");
    // The group's filter is one that is known.
    assert!(steps[6] > steps[4] + 170, "{steps:?}");
    // As a start finds it.
    let kept = script.broker.counters().memory;
    script.run(&["1 lost", "commit", "crash"]);
    assert_eq!(script.broker.counters().memory, kept);
    script.run(&["open 1", "1 connect long-name", "commit"]);
    let steps = held(
        &mut script,
        &[&take_back, "commit", "1 disconnect", "commit", "open 1", "1 connect long-name clean"],
    );
    assert_eq!((steps[1], &steps[3..]), (begun, &[begun, begun, begun][..]));
    script.run(&["1 lost"]);
    assert_eq!(script.broker.counters().memory, 0);
}

#[test]
fn beyond_a_quarter_of_the_memory_only_what_is_known_is_subscribed_to() {
    let mut script = Script::new(memory(100_000));
    script.run(&["open 1", "1 connect a v5 expiry=60", "commit"]);
    let mut granted = 0;
    for number in 0..100 {
        script.run(&["--", &format!("1 subscribe 1 {number}/{} q0", "x".repeat(300)), "commit"]);
        granted += usize::from(script.said.iter().any(|line| line == "1 < suback 1 0x00"));
    }
    assert!(
        (8..10).contains(&granted),
        "one session has a quarter of the quarter, here and in the router: {granted}"
    );
    script.run(&["--", &format!("1 subscribe 1 0/{} q1", "x".repeat(300)), "commit"]);
    assert_eq!(script.said.last().unwrap(), "1 < suback 1 0x01");
    // Others still come in, until they have the rest of it.
    let mut refused = 0;
    for client in 2..100 {
        script.run(&[&format!("open {client}"), "--"]);
        script.run(&[&format!("{client} connect {client}{} v5 clean keep=9", "n".repeat(1_000))]);
        refused += usize::from(script.said.iter().any(|line| line.ends_with("connack 0x97")));
    }
    assert!((70..95).contains(&refused), "{refused}");
    script.run(&["open 200", "--", "200 connect short v5 clean keep=9"]);
    assert_eq!(script.said, ["200 < connack"]);
}

/// A filter or topic of as many levels as there may be; no two numbers share one.
fn deep(number: u32, last: &str) -> String {
    format!("x{number}/{}{last}", "a/".repeat(126))
}

/// How many of these filters the client gets, one after the other.
fn granted(script: &mut Script, client: u32, filters: impl IntoIterator<Item = String>) -> usize {
    let mut granted = 0;
    for filter in filters {
        script.run(&["--", &format!("{client} subscribe 1 {filter} q0")]);
        granted += usize::from(script.said.iter().any(|line| line.ends_with("suback 1 0x00")));
    }
    granted
}

#[test]
fn deep_filters_of_one_session_leave_room_for_those_of_others() {
    let mut script = Script::new(memory(4_000_000));
    script.run(&["open 1", "1 connect a v5 clean", "open 2", "2 connect b v5 clean"]);
    let before = script.broker.counters().memory;
    let deep = || (0..60).map(|number| deep(number, "+"));
    let first = granted(&mut script, 1, deep());
    assert!((8..=12).contains(&first), "{first}");
    assert_eq!(granted(&mut script, 2, (0..3).map(|number| format!("b/{number}/+"))), 3);
    // What is taken back makes room again, whoever else has it.
    assert_eq!(granted(&mut script, 2, deep().take(5)), 5);
    let back: Vec<String> = deep().take(first).collect();
    script.run(&[&format!("1 unsubscribe 2 {}", back.join(" "))]);
    assert_eq!(granted(&mut script, 1, deep()), first);
    // Two who have the same weigh it once.
    let most = (first + 1) * 128 * 210;
    assert!(script.broker.counters().memory - before < most as u64, "{}", script.broker.counters().memory);
}

#[test]
fn the_house_subscribes_where_clients_have_taken_the_room_for_names() {
    let mut script = Script::new(memory(400_000));
    for client in 1..20 {
        script.run(&[&format!("open {client}"), &format!("{client} connect c{client} v5 clean keep=9")]);
        granted(&mut script, client, (0..4).map(|number| deep(client * 4 + number, "+")));
    }
    script.run(&["open 20", "20 connect late v5 clean"]);
    assert_eq!(granted(&mut script, 20, ["t".to_owned()]), 0, "the room is taken");
    script.run(&["open 21 port user=bridge:cloud", "21 connect bridge:cloud v5 clean"]);
    assert_eq!(granted(&mut script, 21, ["t".to_owned()]), 1);
    // One that speaks for somebody outside is a client like others.
    script.run(&["open 22 port", "22 connect guest v5 clean"]);
    assert_eq!(granted(&mut script, 22, ["u".to_owned()]), 0);
}

#[test]
fn retained_messages_on_deep_topics_leave_room_for_wills() {
    let mut script = Script::new(memory(4_000_000));
    script.run(&["open 1", "1 connect a v5 clean"]);
    let mut refused = 0;
    for number in 0..30 {
        script.run(&["--", &format!("1 publish {} x retain q1 id=1", deep(number, "z")), "commit"]);
        refused += usize::from(script.said.iter().any(|line| line == "1 < puback 1 0x97"));
    }
    // Each takes 92 kB.
    assert!((13..=15).contains(&refused), "{refused}");
    let held = script.broker.retained.weight();
    assert!(held <= 1_500_000, "what a new topic takes counts before it is there: {held}");
    script.run(&["open 2", "--", "2 connect b v5 clean keep=9 will=t:x"]);
    assert_eq!(script.said, ["2 < connack"]);
}

#[test]
fn whoever_is_back_with_its_will_takes_no_more_than_before() {
    let large = "y".repeat(20_000);
    let connect = format!("2 connect b v5 keep=9 expiry=60 will=t:{large}");
    let other = format!("3 connect c v5 keep=9 will=t:{large}");
    let mut script = Script::new(memory(100_000));
    script.run(&["open 1", "1 connect a v5 clean", "open 2", &connect, "commit"]);
    script.run(&[&format!("1 publish u {} retain q1 id=1", "z".repeat(25_000)), "commit"]);
    script.run(&["open 3", "--", &other]);
    assert_eq!(script.said, ["3 < connack 0x97", "close 3"]);
    script.run(&["open 4", "--", &connect.replace("2 connect", "4 connect"), "commit"]);
    assert!(script.said.contains(&"4 < connack present".to_owned()), "{:?}", script.said);
}

#[test]
fn groups_weigh_what_they_take_and_one_session_does_not_make_all_of_them() {
    let mut script = Script::new(memory(1_000_000));
    script.run(&["open 1", "1 connect a v5 clean", "open 2", "2 connect b v5 clean"]);
    let before = script.broker.counters().memory;
    let groups = || (0..400).map(|number| format!("$share/g{number}/t"));
    let first = granted(&mut script, 1, groups());
    assert!((20..50).contains(&first), "{first}");
    let held = script.broker.counters().memory - before;
    let least = first * size_of::<crate::broker::share::Group>();
    assert!(held > least as u64, "{held} for {first}");
    assert_eq!(granted(&mut script, 2, groups().take(5)), 5);
    let both = script.broker.counters().memory - before;
    assert!(both - held < 5 * 200, "a group is there once: {held} {both}");
    script.run(&["1 lost", "2 lost"]);
    assert_eq!(script.broker.counters().memory, 0);
}

#[test]
fn a_connect_counts_while_its_password_is_compared() {
    let mut config = config();
    config.passwords = crate::broker::Passwords::File;
    let mut script = Script::new(config);
    let long = "p".repeat(5_000);
    let connect = format!("1 connect a clean user=u pass={long} will=t:{long}");
    let steps = held(&mut script, &["open 1 password", &connect, "1 rejected", "open 1 password", &connect]);
    assert!(steps[1] >= 10_000, "{steps:?}");
    assert_eq!((steps[0], steps[2], steps[4]), (0, 0, steps[1]));
    let steps = held(&mut script, &["1 verified", "1 disconnect", "open 1 password", &connect, "1 lost"]);
    assert_eq!((steps[1], steps[4]), (0, 0));
    assert!((5_000..6_000).contains(&steps[0]), "the will is left: {steps:?}");
}

#[test]
fn requests_that_wait_for_the_store_count() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a ; subscribe 1 a/very/long/filter/that/waits q1,b ; unsubscribe 2 c"]);
    let waiting = script.broker.counters().memory;
    assert!(waiting > 100, "{waiting}");
    let steps =
        held(&mut script, &["commit", "commit", "1 unsubscribe 3 a/very/long/filter/that/waits b", "commit"]);
    assert_eq!(steps[3], 1, "{steps:?}");
    script.run(&["1 disconnect", "commit"]);
    assert_eq!(script.broker.counters().memory, 1);
}

#[test]
fn packet_ids_of_qos_2_count_until_they_are_released() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a", "commit"]);
    let steps = held(
        &mut script,
        &["1 publish t x q2 id=1 ; publish t x q2 id=2 ; publish t x q2 id=1", "commit", "crash"],
    );
    assert_eq!(steps[1..], [1 + 2 * 24, 1 + 2 * 24]);
    script.run(&["open 1", "1 connect a", "commit"]);
    let steps = held(&mut script, &["1 pubrel 1 ; pubrel 2 ; pubrel 2", "commit"]);
    assert_eq!(steps[1], 1);
}

#[test]
fn what_every_client_costs_is_bounded() {
    // Ten thousand idle ones are to fit a small machine: what only some of them have is boxed.
    let sizes = (size_of::<crate::broker::client::Client>(), size_of::<crate::broker::Connection>());
    assert!(sizes.0 <= 456 && sizes.1 <= 280, "{sizes:?}");
}
