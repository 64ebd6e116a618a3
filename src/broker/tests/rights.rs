//! Scripts of who may read and write what: the house's rules, the operator's, and what is counted.
//!
//! What a line of an ACL file means is tested where it is read; here, that every way to a client and
//! from one asks for it.

use std::sync::Arc;

use super::script::{Script, check_with, config, with_route};
use crate::access::Rules;
use crate::broker::{Config, Event, Passwords};
use crate::record::DropReason;

const RULES: &str = "topic read news/#\n\
    user anna\ntopic read a/+\ntopic deny a/secret\ntopic write a/out\n\
    user boss\ntopic readwrite #\n\
    user carl\ntopic write modbus/l/+/+/set\n\
    user bridge:cloud\ntopic write commands/#\ntopic write modbus/l/m/p/set\n";

fn ruled(config: Config) -> Config {
    let rules = Rules::parse(RULES).expect("right");
    Config { rules: Some(Arc::new(rules)), passwords: Passwords::File, ..with_set_topics(config) }
}

fn with_set_topics(config: Config) -> Config {
    Config { set_topics: vec!["modbus/l/+/+/set".into()], ..config }
}

/// Connects a user whose password fits.
fn login(slot: u32, user: &str, rest: &str) -> [String; 3] {
    [
        format!("open {slot} password"),
        format!("{slot} connect {user}-{slot} {rest} user={user} pass=x"),
        format!("{slot} verified"),
    ]
}

fn check(config: Config, logins: &[[String; 3]], events: &[&str], expected: &str) {
    let before = logins.iter().flatten().map(String::as_str);
    let all: Vec<&str> = before.chain(events.iter().copied()).collect();
    check_with(config, &all, expected);
}

#[test]
fn a_denied_publish_is_refused_over_mqtt_5_and_acknowledged_over_older_versions() {
    let denied = ["--", "1 publish x hi q1 id=5 ; publish x hi q2 id=6 ; publish x hi ; ping"];
    let refused = "1 < puback 5 0x87\n1 < pubrec 6 0x87\n1 < pong";
    check(ruled(config()), &[login(1, "anna", "v5 clean")], &denied, refused);
    for version in ["v31", "v311"] {
        let logins = [login(1, "anna", &format!("{version} clean"))];
        check(ruled(config()), &logins, &denied, "1 < puback 5\n1 < pubrec 6\n1 < pong");
    }
}

#[test]
fn a_denied_publish_reaches_nobody_and_an_allowed_one_does() {
    check(
        ruled(config()),
        &[login(1, "anna", "clean"), login(2, "boss", "clean")],
        &["2 subscribe 1 #", "--", "1 publish a/out yes q1 id=1", "1 publish a/in no q1 id=2"],
        "2 < publish a/out yes\n1 < puback 1\n1 < puback 2",
    );
}

#[test]
fn what_was_refused_and_what_was_dropped_are_counted_apart() {
    for (version, refused, dropped) in [("v5", 2, 1), ("v311", 0, 3)] {
        let mut script = Script::new(ruled(with_route(true)));
        let login = login(1, "anna", &format!("{version} clean"));
        script.run(&login.each_ref().map(String::as_str));
        script.run(&["--", "1 publish up/x hi q1 id=5 ; publish up/x hi q2 id=6 ; publish up/x hi"]);
        let counters = script.broker.counters();
        let denied = counters.dropped.get(&DropReason::Denied).copied().unwrap_or(0);
        assert_eq!((counters.not_accepted, denied), (refused, dropped), "{version}");
        assert_eq!(counters.received, 0);
        // One write for all of a call; the route's line goes on adding up.
        assert_eq!(script.said.last(), Some(&format!("write denied {dropped} of r1")), "{version}");
    }
}

#[test]
fn a_busy_store_takes_the_counts_later() {
    let mut script = Script::new(ruled(with_route(true)));
    script.broker.ledger.bound(4, 1);
    let logins = [login(1, "anna", "clean"), login(2, "boss", "clean")];
    script.run(&logins.each_ref().map(|login| login.each_ref().map(String::as_str)).concat());
    script.run(&["2 publish up/x 1 q1 id=1", "--", "1 publish up/x hi q1 id=5"]);
    assert_eq!(script.said, ["1 < puback 5"]);
    script.run(&["--", "commit"]);
    assert_eq!(script.said, ["2 < puback 1", "write denied 1 of r1"]);
}

#[test]
fn a_reader_gets_what_he_may_read_of_a_broad_subscription() {
    check(
        ruled(config()),
        &[login(1, "anna", "clean"), login(2, "boss", "clean")],
        &[
            "1 subscribe 1 # q1",
            "--",
            "2 publish a/1 yes q1 id=1 ; publish a/secret no q1 id=2 ; publish b no ; publish a/2 yes",
        ],
        "1 < publish a/1 yes q1 id=1
         2 < puback 1
         2 < puback 2 0x10
         1 < publish a/2 yes",
    );
}

#[test]
fn an_absent_reader_is_no_audience_of_what_he_may_not_read() {
    check(
        ruled(config()),
        &[login(1, "anna", ""), login(2, "boss", "clean")],
        &[
            "commit",
            "1 subscribe 1 # q1",
            "commit",
            "1 lost",
            "commit",
            "--",
            "2 publish a/1 yes q1 id=1 ; publish a/secret no q1 id=2",
            "commit",
        ],
        "write message 1 a/1 yes for [r1 q1]\n2 < puback 1\n2 < puback 2 0x10",
    );
}

#[test]
fn a_subscription_that_can_bring_nothing_is_refused() {
    check(
        ruled(config()),
        &[login(1, "anna", "v5 clean")],
        &["--", "1 subscribe 1 a/secret q1,b/# q1,a/+ q1,# q2,a/#/b", "1 unsubscribe 2 a/secret"],
        "1 < suback 1 0x87 0x87 0x01 0x02 0x8f\n1 < unsuback 2 0x11",
    );
}

#[test]
fn retained_messages_are_brought_to_those_who_may_read_them() {
    check(
        ruled(config()),
        &[login(1, "anna", "clean"), login(2, "boss", "clean")],
        &[
            "2 publish a/1 yes retain",
            "2 publish a/secret no retain",
            "2 publish a/z yes retain",
            "2 publish b no retain",
            "commit",
            "--",
            "1 subscribe 1 #",
        ],
        "1 < suback 1 0x00\n1 < publish a/1 yes retain\n1 < publish a/z yes retain",
    );
}

#[test]
fn a_will_is_checked_when_it_is_published() {
    check(
        ruled(with_route(true)),
        &[
            login(1, "boss", "clean"),
            login(2, "anna", "clean will=a/out:gone"),
            login(3, "anna", "clean will=up/x:no"),
        ],
        &["1 subscribe 1 #", "--", "2 lost", "3 lost"],
        "1 < publish a/out gone\nwrite denied 1 of r1",
    );
}

#[test]
fn who_comes_without_a_name_has_the_lines_before_the_first_user() {
    check(
        ruled(config()),
        &[login(1, "boss", "clean")],
        &[
            "open 2",
            "2 connect x clean",
            "2 subscribe 1 #",
            "--",
            "1 publish news/1 yes",
            "1 publish a/1 no",
            "2 publish news/1 x q1 id=1",
        ],
        "2 < publish news/1 yes\n2 < puback 1",
    );
}

#[test]
fn a_name_that_nobody_checked_is_none() {
    let unchecked = Config { passwords: Passwords::Absent, ..ruled(config()) };
    check_with(
        unchecked,
        &["open 1", "1 connect x v5 clean user=boss pass=guess", "--", "1 publish a/1 no q1 id=1"],
        "1 < puback 1 0x87",
    );
}

/// Anna's kept session `c`, which has a subscription; she is away.
const ANNAS: [&str; 8] = [
    "open 1 password",
    "1 connect c user=anna pass=x",
    "1 verified",
    "commit",
    "1 subscribe 1 # q1",
    "commit",
    "1 lost",
    "commit",
];

// [MQTT311-3.1.3-9]
#[test]
fn a_session_of_one_user_is_neither_resumed_nor_ended_by_another() {
    let unruled = Config { passwords: Passwords::File, ..config() };
    for config in [ruled(config()), unruled] {
        for clean in ["", "clean"] {
            let other = format!("2 connect c v5 {clean} user=boss pass=x");
            let come = ["open 2 password", &other, "--", "2 verified", "commit"];
            let refused = "foreign c: boss, not anna\n2 < connack 0x85\nclose 2";
            check_with(config.clone(), &[&ANNAS[..], &come].concat(), refused);
        }
        // Nor by one without a name.
        let come = ["open 2", "--", "2 connect c"];
        let refused = "foreign c: nobody, not anna\n2 < connack 0x85\nclose 2";
        check_with(config.clone(), &[&ANNAS[..], &come].concat(), refused);
        let same = ["open 1 password", "1 connect c user=anna pass=x", "--", "1 verified", "commit"];
        let resumed = "write session c r1 [#]\n1 < connack present";
        check_with(config.clone(), &[&ANNAS[..], &same].concat(), resumed);
        check_with(config, &[&ANNAS[..], &["crash"], &same].concat(), resumed);
    }
}

#[test]
fn a_connection_of_one_user_is_not_pushed_out_by_another() {
    for kept in ["", "clean"] {
        check_with(
            Config { passwords: Passwords::File, ..config() },
            &[
                "open 1 password",
                &format!("1 connect c {kept} user=anna pass=x will=t:gone"),
                "1 verified",
                "commit",
                "open 2 password",
                "2 connect c user=boss pass=x",
                "--",
                "2 verified",
                "1 ping",
            ],
            "foreign c: boss, not anna\n2 < connack 0x85\nclose 2\n1 < pong",
        );
    }
}

#[test]
fn a_session_of_nobody_becomes_that_of_the_first_user_who_wants_it() {
    let begun = ["open 1", "1 connect c", "commit", "1 lost", "commit"];
    let anna = ["open 1 password", "1 connect c user=anna pass=x", "--", "1 verified", "commit"];
    check_with(ruled(config()), &[&begun[..], &anna].concat(), "write session c r1\n1 < connack present");
    check_with(
        ruled(config()),
        &[&begun[..], &anna, &["--", "open 2", "2 connect c"]].concat(),
        "foreign c: nobody, not anna\n2 < connack 0x85\nclose 2",
    );
}

#[test]
fn a_session_of_another_user_is_free_once_it_has_ended() {
    let come = ["open 2 password", "2 connect c clean user=boss pass=x", "--", "2 verified"];
    let ended = ["after 2592000000"];
    check_with(ruled(config()), &[&ANNAS[..], &ended, &come].concat(), "2 < connack");
    // A limit that was lowered holds for what a start finds.
    let mut script = Script::new(ruled(config()));
    script.run(&ANNAS);
    let mut lower = ruled(config());
    lower.limits.max_session_expiry = 1;
    script.configure(lower);
    script.run(&[&["crash", "after 1000"], &come[..]].concat());
    assert_eq!(script.said, ["2 < connack"]);
    let by_herself =
        ["open 1 password", "1 connect c clean user=anna pass=x", "1 verified", "commit", "1 disconnect"];
    check_with(ruled(config()), &[&ANNAS[..], &by_herself, &come].concat(), "2 < connack");
}

#[test]
fn rows_that_new_rules_deny_are_dropped_after_a_restart() {
    let mut script = Script::new(config());
    let before = [
        "open 1",
        "1 connect c",
        "commit",
        "1 subscribe 1 # q1",
        "commit",
        "1 lost",
        "open 2",
        "2 connect d clean",
    ];
    script.run(&before);
    script.run(&[
        "2 publish news/1 a q1 id=1",
        "2 publish secret b q1 id=2",
        "2 publish news/2 c q1 id=3",
        "commit",
    ]);
    script.configure(ruled(config()));
    script.run(&["crash", "open 1", "1 connect c", "commit", "--", "rows", "rows"]);
    assert_eq!(
        script.said,
        ["1 < publish news/1 a q1 id=1 dup", "write dropped r1/2 denied", "1 < publish news/2 c q1 id=2 dup"]
    );
}

#[test]
fn nobody_sets_a_device_without_a_line_that_names_it() {
    let publish = ["--", "1 publish modbus/l/m/p/set 1 q1 id=1"];
    let open = ["open 1", "1 connect x v5 clean"];
    check_with(with_set_topics(config()), &[&open[..], &publish].concat(), "1 < puback 1 0x87");
    check(ruled(config()), &[login(1, "boss", "v5 clean")], &publish, "1 < puback 1 0x87");
    check(ruled(config()), &[login(1, "carl", "v5 clean")], &publish, "1 < puback 1 0x10");
    let bridge = ["open 1 port user=bridge:cloud", "1 connect bridge:cloud v5 clean"];
    check_with(with_set_topics(config()), &[&bridge[..], &publish].concat(), "1 < puback 1 0x87");
    check_with(ruled(config()), &[&bridge[..], &publish].concat(), "1 < puback 1 0x10");
    let other = ["--", "1 publish lamp/set 1 q1 id=1"];
    check_with(with_set_topics(config()), &[&open[..], &other].concat(), "1 < puback 1 0x10");
}

#[test]
fn adapters_are_limited_only_where_they_are_named_and_sensors_like_clients() {
    let publishes = ["--", "1 publish readings/1 x q1 id=1 ; publish commands/1 x q1 id=2"];
    let free = ["open 1 port user=modbus:l", "1 connect modbus:l v5 clean"];
    check_with(ruled(config()), &[&free[..], &publishes].concat(), "1 < puback 1 0x10\n1 < puback 2 0x10");
    let named = ["open 1 port user=bridge:cloud", "1 connect bridge:cloud v5 clean"];
    check_with(ruled(config()), &[&named[..], &publishes].concat(), "1 < puback 1 0x87\n1 < puback 2 0x10");
    for sensor in ["open 1 port", "open 1 port user=sensors"] {
        let sensor = [sensor, "1 connect s v5 clean"];
        check_with(
            ruled(config()),
            &[&sensor[..], &publishes].concat(),
            "1 < puback 1 0x87\n1 < puback 2 0x87",
        );
    }
    let house = ["open 1 port user=tidegate", "1 connect tidegate:states v5 clean"];
    let state = ["--", "1 publish tidegate/status x q1 id=1"];
    check_with(ruled(config()), &[&house[..], &state].concat(), "1 < puback 1 0x10");
}

#[test]
fn a_user_whose_name_begins_like_the_house_is_not_the_house() {
    check(
        ruled(config()),
        &[login(1, "tidegate", "v5 clean")],
        &["--", "1 publish tidegate/status x q1 id=1"],
        "1 < puback 1 0x87",
    );
    check_with(
        config(),
        &["open 1 port user=tidegate-2", "1 connect x v5 clean", "--", "1 publish tidegate/x y q1 id=1"],
        "1 < puback 1 0x87",
    );
}

/// A group in which anna may read a part, and boss all; connection 3 publishes.
fn grouped(rest: &str) -> [[String; 3]; 3] {
    [login(1, "anna", rest), login(2, "boss", rest), login(3, "boss", "v5 clean")]
}

const JOIN: [&str; 3] = ["1 subscribe 1 $share/g/# q1", "2 subscribe 1 $share/g/# q1", "commit"];

#[test]
fn a_shared_message_goes_to_a_member_that_may_read_it() {
    check(
        ruled(config()),
        &grouped("clean"),
        &[
            &JOIN[..],
            &[
                "--",
                "3 publish a/secret 1 ; publish a/secret 2 ; publish a/secret 3 q1 id=1",
                "3 publish a/secret 4 q1 id=2 ; publish a/1 5 q1 id=3 ; publish a/1 6 q1 id=4",
            ],
        ]
        .concat(),
        "2 < publish a/secret 1
         2 < publish a/secret 2
         2 < publish a/secret 3 q1 id=1
         3 < puback 1
         2 < publish a/secret 4 q1 id=2
         3 < puback 2
         1 < publish a/1 5 q1 id=1
         3 < puback 3
         2 < publish a/1 6 q1 id=3
         3 < puback 4",
    );
}

#[test]
fn a_shared_message_that_no_member_may_read_is_nobody_s() {
    check(
        ruled(config()),
        &grouped("clean"),
        &["1 subscribe 1 $share/g/# q1", "--", "3 publish b x q1 id=1 ; publish a/1 y q1 id=2"],
        "3 < puback 1 0x10
         1 < publish a/1 y q1 id=1
         3 < puback 2",
    );
}

/// After anna and boss have joined for good, boss has left, and two of three messages are for him alone.
fn boss_is_away(config: Config, events: &[&str]) -> Script {
    let mut script = Script::new(ruled(config));
    let lines = grouped("v311");
    for line in lines.iter().flatten().map(String::as_str).chain(JOIN) {
        script.run(&[line, "commit"]);
    }
    script.run(&["2 disconnect", "commit", "--"]);
    script.run(&["3 publish b 1 q1 id=1 ; publish a/1 2 q1 id=2 ; publish c 3 q1 id=3", "commit"]);
    script.run(events);
    script
}

fn heard_of(script: &Script, slot: u32) -> Vec<&str> {
    let start = format!("{slot} < publish ");
    script.said.iter().filter_map(|line| line.strip_prefix(&start)).collect()
}

#[test]
fn what_only_an_absent_member_may_read_waits_for_it_and_holds_nothing_up() {
    let script = boss_is_away(config(), &[]);
    assert_eq!(heard_of(&script, 1), ["a/1 2 q1 id=1"]);
    let back = login(2, "boss", "v311");
    for restart in [&["crash", "open 9"][..], &[]] {
        let mut script = boss_is_away(config(), restart);
        script.run(&["--"]);
        for line in &back {
            script.run(&[line, "commit", "rows"]);
        }
        script.run(&["rows", "rows", "rows"]);
        let got: Vec<_> = heard_of(&script, 2).iter().map(|line| line[..3].to_owned()).collect();
        assert!(got.contains(&"b 1".to_owned()) && got.contains(&"c 3".to_owned()), "{:?}", script.said);
        assert_eq!(script.broker.counters().dropped.get(&DropReason::Denied), None);
    }
}

#[test]
fn a_row_that_no_member_may_read_any_more_is_dropped_as_denied() {
    let again = login(2, "boss", "v311 clean");
    let mut script = boss_is_away(config(), &[]);
    script.run(&again.each_ref().map(String::as_str));
    script.run(&["commit"]);
    assert_eq!(heard_of(&script, 2), Vec::<&str>::new());
    assert_eq!(script.broker.counters().dropped.get(&DropReason::Denied), Some(&2));
}

#[test]
fn what_is_set_aside_has_the_limits_of_a_queue() {
    let mut short = config();
    short.limits.max_queued_messages = 1;
    let script = boss_is_away(short, &[]);
    assert_eq!(heard_of(&script, 1), ["a/1 2 q1 id=1"]);
    assert_eq!(script.broker.counters().dropped.get(&DropReason::QueueFull), Some(&1));
}

#[test]
fn what_is_set_aside_counts_until_it_is_taken_up_again() {
    let mut script = boss_is_away(config(), &[]);
    let weight = |script: &mut Script, events: &[&str]| {
        script.run(events);
        script.broker.counters().memory - script.broker.ledger.weight() as u64
    };
    let before = weight(&mut script, &["1 puback 1", "commit"]);
    let after = weight(&mut script, &["3 publish b 4 q1 id=4 ; publish b 5 q1 id=5", "commit"]);
    assert!(after >= before + 2 * 64, "{before} {after}");
    let rules = || Event::Rules(Arc::new(Rules::parse(RULES).expect("right")));
    script.handle(vec![rules()]);
    assert_eq!(weight(&mut script, &["rows"]), after, "set aside once more");
    let left = weight(&mut script, &["1 unsubscribe 2 $share/g/#", "commit"]);
    let back = login(2, "boss", "clean");
    script.run(&back.each_ref().map(String::as_str));
    let gone = weight(&mut script, &["commit", "rows", "2 lost", "1 lost", "3 lost", "commit"]);
    assert!(gone < left, "{gone} {left}");
    assert_eq!(script.broker.memory.aside, 0);
}

#[test]
fn what_is_set_aside_has_a_share_of_the_memory() {
    let mut small = config();
    small.limits.max_memory = 64_000;
    let mut script = boss_is_away(small, &[]);
    for id in 4..100 {
        script.run(&[&format!("3 publish b/{id} x q1 id={id}"), "commit"]);
    }
    let dropped = script.broker.counters().dropped.get(&DropReason::MemoryFull).copied().unwrap_or(0);
    assert!((50..98).contains(&dropped), "{dropped}");
    assert!(script.broker.memory.aside <= 4_000);
    // So nobody is kept out by it.
    script.run(&["open 9 password", "9 connect new v5 clean keep=9 user=anna pass=x", "--", "9 verified"]);
    assert_eq!(script.said, ["9 < connack"]);
}

#[test]
fn what_is_set_aside_is_looked_at_again_only_where_that_can_help() {
    let mut script = boss_is_away(config(), &[]);
    for id in 4..24 {
        script.run(&[&format!("3 publish b {id} q1 id={id}"), "commit"]);
    }
    script.run(&["1 puback 1"]);
    let before = script.broker.groups.looks();
    for _ in 0..5 {
        script.run(&["1 unsubscribe 2 $share/g/#", "1 subscribe 3 $share/g/# q1", "commit", "1 lost"]);
        let back = login(1, "anna", "v311");
        script.run(&back.each_ref().map(String::as_str));
        script.run(&["commit"]);
    }
    let looked = script.broker.groups.looks() - before;
    assert!(looked <= 60, "{looked} looks for fifteen events");
    // He for whom they wait has them all, and nobody else.
    script.run(&["--"]);
    for line in &login(2, "boss", "v311") {
        script.run(&[line, "commit", "rows"]);
    }
    for packet_id in 1..=22 {
        script.run(&["rows", &format!("2 puback {packet_id}")]);
    }
    assert_eq!(heard_of(&script, 1), Vec::<&str>::new());
    assert_eq!(heard_of(&script, 2).len(), 22, "{:?}", script.said);
}

#[test]
fn a_group_that_one_packet_names_many_times_is_joined_a_few_times() {
    let mut script = boss_is_away(config(), &[]);
    let before = script.broker.groups.looks();
    script.run(&[&format!("1 subscribe 3 {}", vec!["$share/g/# q1"; 1_000].join(", ")), "commit"]);
    let looked = script.broker.groups.looks() - before;
    assert!(looked <= 10, "{looked} looks for one packet");
}

#[test]
fn other_rules_count_at_once_for_who_is_connected_and_who_is_away() {
    let mut script = Script::new(ruled(config()));
    for login in [login(1, "anna", "v5 clean"), login(2, "boss", "clean"), login(3, "anna", "")] {
        script.run(&login.each_ref().map(String::as_str));
    }
    script.run(&["commit", "1 subscribe 1 a/#", "3 subscribe 1 a/# q1", "commit", "3 lost", "commit"]);
    let rules = Rules::parse("user boss\ntopic readwrite #\nuser anna\ntopic read a/new\n").expect("right");
    script.handle(vec![Event::Rules(Arc::new(rules))]);
    // Nothing is written for her who is away.
    script.run(&["--", "2 publish a/1 old q1 id=1 ; publish a/new fresh", "1 publish a/out no q1 id=2"]);
    assert_eq!(script.said, ["2 < puback 1 0x10", "1 < publish a/new fresh", "1 < puback 2 0x87"]);
}

#[test]
fn other_rules_hold_for_what_is_about_to_be_sent() {
    for (filter, taker) in [("a/#", None), ("$share/g/a/#", Some("1 < publish a/1 old q2 id=1"))] {
        let mut script = Script::new(ruled(config()));
        for login in
            [login(1, "boss", "expiry=9"), login(2, "anna", "v5 expiry=9"), login(3, "boss", "clean")]
        {
            script.run(&login.each_ref().map(String::as_str));
        }
        script.run(&["commit", &format!("2 subscribe 1 {filter} q2"), "commit", "3 publish a/1 old q2 id=1"]);
        // It leaves once that is committed.
        script.run(&["--"]);
        if taker.is_some() {
            script.run(&[&format!("1 subscribe 1 {filter} q2"), "--"]);
        }
        let rules =
            Rules::parse("user boss\ntopic readwrite #\nuser anna\ntopic read a/new\n").expect("right");
        script.handle(vec![Event::Rules(Arc::new(rules))]);
        script.run(&["commit", "commit", "rows", "commit", "commit"]);
        assert_eq!(heard_of(&script, 2), [] as [&str; 0], "{filter}");
        let dropped = script.broker.counters().dropped.get(&DropReason::Denied).copied();
        assert_eq!(dropped.is_some(), taker.is_none(), "{filter}: {dropped:?}");
        if let Some(taker) = taker {
            assert!(script.said.iter().any(|line| line == taker), "{:?}", script.said);
        }
    }
}

#[test]
fn a_group_that_has_back_what_rules_forbid_ends_where_nobody_is_in_it_any_more() {
    let mut script = Script::new(ruled(config()));
    for login in [login(2, "anna", "v5 expiry=9"), login(3, "boss", "clean")] {
        script.run(&login.each_ref().map(String::as_str));
    }
    script.run(&["commit", "2 subscribe 1 $share/g/a/# q2", "commit", "3 publish a/1 old q2 id=1"]);
    script.run(&["2 unsubscribe 2 $share/g/a/#"]);
    let rules = Rules::parse("user boss\ntopic readwrite #\nuser anna\ntopic read a/new\n").expect("right");
    script.handle(vec![Event::Rules(Arc::new(rules))]);
    script.run(&["--", "commit", "commit"]);
    assert!(script.said.iter().any(|line| line.starts_with("write lapsed")), "{:?}", script.said);
    assert!(!script.said.iter().any(|line| line.contains("publish")), "{:?}", script.said);
}

#[test]
fn other_rules_give_what_is_set_aside_to_who_may_read_it_now() {
    let mut script = boss_is_away(config(), &["1 puback 1", "--"]);
    let rules = Rules::parse("user anna\ntopic read #\nuser boss\ntopic readwrite #\n").expect("right");
    script.handle(vec![Event::Rules(Arc::new(rules))]);
    let got: Vec<_> = heard_of(&script, 1).iter().map(|line| line[..3].to_owned()).collect();
    assert_eq!(got, ["b 1", "c 3"]);
}

// [MQTT311-4.3.3-2]
#[test]
fn a_denied_publish_of_qos_2_is_one_however_often_it_is_sent() {
    for session in ["clean", ""] {
        let mut script = Script::new(ruled(config()));
        let login = login(1, "anna", session);
        script.run(&login.each_ref().map(String::as_str));
        script.run(&[
            "commit",
            "--",
            "1 publish x hi q2 id=6",
            "commit",
            "1 publish x hi q2 id=6 dup",
            "commit",
        ]);
        let count = |script: &Script| script.broker.counters().dropped.get(&DropReason::Denied).copied();
        assert_eq!(count(&script), Some(1), "{session}");
        if session.is_empty() {
            // A restart knows it too.
            script.run(&[
                "crash",
                "open 1 password",
                "1 connect anna-1 user=anna pass=x",
                "1 verified",
                "commit",
            ]);
            script.run(&["1 publish x hi q2 id=6 dup", "commit"]);
            assert_eq!(count(&script), None);
        }
        script.run(&["1 pubrel 6", "commit", "--", "1 publish x hi q2 id=6", "commit"]);
        assert_eq!(count(&script), Some(if session.is_empty() { 1 } else { 2 }));
        assert_eq!(script.said.last().map(String::as_str), Some("1 < pubrec 6"));
    }
}
