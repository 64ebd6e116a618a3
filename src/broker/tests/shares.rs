//! Scripts of what counts as held in RAM, and of the shares of it that one client or one kind may have.
//!
//! What a step takes is read from the counters, which add up every account; a share is found by its refusals.

use super::limits::memory;
use super::script::{Script, config};

/// What is held in RAM after each of these.
fn held(script: &mut Script, events: &[&str]) -> Vec<u64> {
    events
        .iter()
        .map(|event| {
            script.run(&[event]);
            // Known ways have a share of their own.
            script.broker.counters().memory - script.broker.atlas.bytes() as u64
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
    assert_eq!(
        script.said,
        ["memory tight", "memory full", "1 < disconnect 0x97", "close 1", "memory ample"]
    );
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
        &[&take_back, "commit", "1 disconnect", "commit", "open 1", "1 connect long-name clean", "commit"],
    );
    assert_eq!([steps[1], steps[3], steps[4], steps[6]], [begun; 4], "{steps:?}");
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
    assert_eq!(granted(&mut script, 20, [deep(200, "+")]), 0, "the room is taken");
    script.run(&["open 21 port user=bridge:cloud", "21 connect bridge:cloud v5 clean"]);
    assert_eq!(granted(&mut script, 21, [deep(201, "+")]), 1);
    // One that speaks for somebody outside is a client like others.
    script.run(&["open 22 port", "22 connect guest v5 clean"]);
    assert_eq!(granted(&mut script, 22, [deep(202, "+")]), 0);
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
    let large = "y".repeat(12_000);
    let connect = format!("2 connect b v5 keep=9 expiry=60 will=t:{large}");
    let other = format!("3 connect c v5 keep=9 will=t:{large}");
    let mut script = Script::new(memory(400_000));
    script.run(&["open 1", "1 connect a v5 clean", "open 2", &connect, "commit"]);
    script.run(&[&format!("1 publish u {} retain q1 id=1", "z".repeat(100_000)), "commit"]);
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
    assert!(sizes.0 <= 424 && sizes.1 <= 280, "{sizes:?}");
}
