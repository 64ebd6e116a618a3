//! Retained messages that run out of time, and what of `max_size` retained messages may take.
//!
//! Whatever ends them, what RAM and disk hold of them is the same.

use super::super::{Config, Refusals};
use super::script::{Script, check, config};
use crate::record::DropReason;

/// One that has a minute left of which 20 seconds are over, and one that stays.
const RETAINED: &[&str] = &[
    "open 1",
    "1 connect a v5 keep=9 clean",
    "1 publish t x q1 id=1 retain expiry=60",
    "1 publish u y q1 id=2 retain",
    "commit",
    "1 lost",
    "after 20000",
    "commit",
    "--",
];

fn with(script: &[&str], expected: &str) {
    check(&[RETAINED, script].concat(), expected);
}

#[test]
fn a_retained_message_that_runs_out_of_time_leaves_the_disk_at_that_time() {
    with(&["after 39999"], "");
    with(&["after 40000"], "write unretained t");
    // Nobody has to clear it any more, and nobody is given it.
    with(
        &[
            "after 40000",
            "open 1",
            "1 connect a v5 keep=9 clean",
            "1 publish t - q1 id=3 retain",
            "crash",
            "open 1",
            "1 connect a v5 keep=9 clean",
            "1 subscribe 1 #",
            "after 100",
        ],
        "write unretained t
         1 < connack
         1 < puback 3 0x10
         1 < connack
         1 < suback 1 0x00
         write unretained t
         1 < publish u y retain",
    );
}

#[test]
fn one_that_ran_out_of_time_while_the_power_was_off_leaves_the_disk_at_the_start() {
    with(&["off 10000", "after 29000"], "");
    with(&["off 10000", "after 30000"], "write unretained t");
    with(&["off 40000", "after 20"], "write unretained t");
    with(&["off 35000 unset", "after 1000", "set", "after 3000"], "");
    with(&["off 35000 unset", "after 1000", "set", "after 4000"], "write unretained t");
    with(&["off 70000 unset", "after 1000", "set", "after 20"], "write unretained t");
}

#[test]
fn one_that_takes_its_place_lasts_as_long_as_it_says_itself() {
    let again = ["open 1", "1 connect a v5 keep=9 clean", "1 publish t z q1 id=3 retain expiry=100"];
    let end = ["commit", "1 lost", "--", "after 99999"];
    with(&[&again[..], &end[..]].concat(), "");
    with(&[&again[..], &end[..], &["after 1"]].concat(), "write unretained t");
}

#[test]
fn many_go_a_few_at_a_time_and_are_counted() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a v5 keep=9 clean"]);
    for at in 1..=1_000 {
        script.run(&[&format!("1 publish t/{at} x retain expiry=1"), "commit"]);
    }
    assert_eq!(script.broker.counters().retained, 1_000);
    script.run(&["after 1000"]);
    assert!(script.broker.counters().retained > 400, "one call is short");
    script.run(&["after 20"]);
    let counters = script.broker.counters();
    assert_eq!((counters.retained, counters.expired), (0, 1_000));
    assert_eq!(script.broker.retained.weight(), 0);
    script.run(&["commit"]);
    assert!(script.model.disk.retained.is_empty());
}

/// Room for two short messages.
fn narrow() -> Config {
    Config { refusals: Refusals { retained: 400, ..Refusals::default() }, ..config() }
}

#[test]
fn what_is_retained_has_a_share_of_the_disk_and_no_more() {
    let mut script = Script::new(narrow());
    script.run(&[
        "open 1",
        "1 connect a v5 keep=9 clean",
        "1 publish a x q1 id=1 retain",
        "1 publish b x q1 id=2 retain",
        "commit",
        "--",
        "1 publish c x q1 id=3 retain",
        "1 publish b y q1 id=4 retain",
        "commit",
        "1 publish a - q1 id=5 retain",
        "1 publish c x q1 id=6 retain",
        "commit",
    ]);
    assert_eq!(
        script.said,
        [
            "1 < puback 3 0x97",
            "write message 3 b y for [] retained",
            "1 < puback 4 0x10",
            "write message 4 a - for [] retained",
            "write message 5 c x for [] retained",
            "1 < puback 5 0x10",
            "1 < puback 6 0x10",
        ]
    );
}

#[test]
fn who_knows_no_refusal_is_routed_and_not_retained() {
    let mut script = Script::new(narrow());
    script.run(&["open 1", "1 connect a v311 clean", "1 subscribe 1 c"]);
    script.run(&["1 publish a x q1 id=1 retain", "1 publish b x q1 id=2 retain", "commit", "--"]);
    script.run(&["1 publish c x q1 id=3 retain", "1 publish c y retain"]);
    assert_eq!(script.said, ["1 < publish c x", "1 < puback 3", "1 < publish c y"]);
    assert_eq!(script.broker.counters().dropped[&DropReason::StoreFull], 2);
}

#[test]
fn one_that_is_retained_ever_anew_leaves_few_reminders() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a v5 keep=9 clean"]);
    for less in 0..3_000 {
        script.run(&[&format!("1 publish t x retain expiry={}", 4_000_000_000_u32 - less), "commit"]);
    }
    assert!(script.broker.timers.len() <= 1_100, "{}", script.broker.timers.len());
    // The last of them is watched all the same.
    script.run(&["1 lost", "--", "after 3999997000999"]);
    assert_eq!(script.broker.counters().expired, 0);
    script.run(&["after 1"]);
    assert_eq!(script.broker.counters().expired, 1);
}
