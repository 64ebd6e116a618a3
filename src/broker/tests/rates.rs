//! Scripts of who comes or publishes too fast, and of passwords that are not compared.
//!
//! How much of a rate is left is tested where it is counted; here, what happens to the client.

use std::time::Duration;

use adapter_api::units::Rate;

use super::script::{Script, check_with, config};
use crate::broker::{Config, Passwords};
use crate::record::DropReason;

fn rated(count: u32, seconds: u64) -> Config {
    let mut config = config();
    config.limits.max_publish_rate = Some(Rate { count, per: Duration::from_secs(seconds) });
    config
}

const PAIR: [&str; 6] =
    ["open 1", "1 connect a clean", "open 2", "2 connect b clean", "2 subscribe 1 t", "--"];

#[test]
fn a_client_that_publishes_too_fast_is_read_more_slowly_and_loses_nothing() {
    let fast = ["1 publish t 1 ; publish t 2 ; publish t 3 ; publish t 4 q1 id=4 ; ping"];
    let later = ["after 499", "after 1", "after 499", "after 1"];
    let mut script = Script::new(rated(2, 1));
    script.run(&[&PAIR[..], &fast].concat());
    assert_eq!(script.said, ["2 < publish t 1", "2 < publish t 2", "pause 1"]);
    script.said.clear();
    let mut steps = Vec::new();
    for step in later {
        script.run(&[step]);
        steps.push(std::mem::take(&mut script.said).join(", "));
    }
    let last = "2 < publish t 4, 1 < puback 4, 1 < pong, resume 1";
    assert_eq!(steps, ["", "2 < publish t 3", "", last]);
    assert_eq!(script.broker.counters().slowed, 2);
}

#[test]
fn who_keeps_to_the_rate_never_waits() {
    let mut script = Script::new(rated(2, 1));
    script.run(&PAIR);
    for _ in 0..20 {
        script.run(&["after 500", "1 publish t x"]);
    }
    assert_eq!(script.said, vec!["2 < publish t x"; 20]);
}

#[test]
fn a_slowed_client_is_neither_dead_nor_in_the_others_way() {
    check_with(
        rated(1, 60),
        &[
            "open 1",
            "1 connect a clean keep=1",
            "open 2",
            "2 connect b clean",
            "2 subscribe 1 t",
            "1 publish t 1 ; publish t 2",
            "--",
            "after 30000",
            "2 publish t own",
            "1 lost",
            "after 60000",
        ],
        "2 < publish t own\n2 < publish t 2",
    );
}

#[test]
fn what_came_before_the_end_of_a_slowed_client_is_delivered() {
    let fast = "1 publish t 1 ; publish t 2 ; publish t 3 q1 id=3 ; publish t 4";
    let delivered = ["2 < publish t 1", "pause 1", "2 < publish t 2", "2 < publish t 3", "1 < puback 3"];
    for (end, more) in [
        ("1 disconnect ; lost", &["2 < publish t 4", "close 1"][..]),
        ("1 lost", &["2 < publish t 4"]),
        ("stop", &["2 < publish t 4", "close 1", "close 2"]),
    ] {
        let mut script = Script::new(rated(1, 60));
        script.run(&[&PAIR[..], &[fast, end]].concat());
        assert_eq!(script.said, [&delivered[..], more].concat(), "{end}");
        let counters = script.broker.counters();
        assert!(counters.dropped.is_empty(), "{end}: {:?}", counters.dropped);
        assert_eq!((counters.received, script.broker.memory.held), (4, 0), "{end}");
    }
    // Its own next connection comes before the end of this one is seen.
    let mut script = Script::new(rated(1, 60));
    script.run(&[&PAIR[..], &[fast, "open 3", "--", "3 connect a clean"]].concat());
    let before = ["2 < publish t 2", "2 < publish t 3", "1 < puback 3", "2 < publish t 4"];
    assert_eq!(script.said, [&before[..], &["close 1", "3 < connack"]].concat());
}

#[test]
fn at_a_stop_a_will_comes_after_what_its_client_said() {
    let mut script = Script::new(rated(1, 60));
    script.run(&[
        "open 1",
        "1 connect a clean will=t:gone",
        "open 2",
        "2 connect b clean",
        "2 subscribe 1 t",
        "--",
    ]);
    script.run(&["1 publish t 1 ; publish t 2", "stop"]);
    let said: Vec<&str> =
        script.said.iter().map(String::as_str).filter(|line| line.contains("publish")).collect();
    assert_eq!(said, ["2 < publish t 1", "2 < publish t 2", "2 < publish t gone"]);
    let mut script = Script::new(rated(1, 60));
    script.run(&[
        "open 1",
        "1 connect a clean will=t:gone",
        "open 2",
        "2 connect b clean",
        "2 subscribe 1 t",
        "--",
    ]);
    script.run(&["1 publish t 1 ; publish t 2 ; disconnect", "stop"]);
    assert!(!script.said.iter().any(|line| line.contains("gone")), "{:?}", script.said);
}

#[test]
fn what_a_busy_store_could_not_take_is_counted_as_that() {
    let mut script = Script::new(Config { routes: super::script::with_route(true).routes, ..rated(1, 60) });
    script.broker.ledger.bound(4, 1);
    script.run(&PAIR);
    script.run(&["1 publish up/x 1 q1 id=1 ; publish up/x 2 q1 id=2 ; publish up/x 3", "1 lost"]);
    assert_eq!(script.broker.counters().dropped.get(&DropReason::StoreBusy), Some(&1));
}

#[test]
fn what_came_before_a_wrong_password_was_found_out_is_not_accepted() {
    let mut script = Script::new(Config { passwords: Passwords::File, ..rated(1, 60) });
    script.run(&["open 1 password", "1 connect a clean user=u pass=p ; publish t 1", "1 lost", "1 rejected"]);
    let counters = script.broker.counters();
    assert_eq!((counters.not_accepted, counters.dropped.len(), counters.memory), (1, 0, 0));
}

#[test]
fn to_connect_anew_does_not_pay() {
    for clean in ["", "clean"] {
        let mut script = Script::new(rated(2, 1));
        script.run(&PAIR[2..]);
        for round in 0..10 {
            let come = format!("1 connect a {clean}");
            script.run(&["open 1", &come, "commit", "1 publish t x ; publish t x", "1 disconnect"]);
            // Without a pause, what is sent so is due for later: who is back waits for it.
            let slowed = script.broker.counters().slowed;
            assert!(round == 0 || slowed > 0, "{clean:?}");
        }
        // Twenty were sent, each before its end; two are free.
        script.run(&["--", "open 1", &format!("1 connect a {clean}"), "commit", "--", "1 publish t last"]);
        assert_eq!(script.said, ["pause 1"], "{clean:?}");
        script.run(&["--", "after 9499"]);
        assert!(script.said.is_empty(), "{clean:?} {:?}", script.said);
        script.run(&["--", "after 1"]);
        assert_eq!(script.said, ["2 < publish t last", "resume 1"], "{clean:?}");
    }
}

#[test]
fn who_waits_for_the_store_is_charged_once() {
    let mut script = Script::new(Config { routes: super::script::with_route(true).routes, ..rated(3, 60) });
    script.broker.ledger.bound(4, 1);
    script.run(&PAIR);
    let events = ["1 publish up/x 1 q1 id=1 ; publish up/x 2 q1 id=2", "--", "commit", "commit"];
    script.run(&events);
    script.run(&["--", "1 publish t 3"]);
    assert_eq!(script.said, ["2 < publish t 3"], "three were allowed");
}

#[test]
fn adapters_have_rates_of_their_own() {
    check_with(
        rated(1, 60),
        &[
            "open 1 port user=modbus:l",
            "1 connect modbus:l v5 clean",
            "open 2",
            "2 connect b clean",
            "2 subscribe 1 t",
            "--",
            "1 publish t 1 ; publish t 2 ; publish t 3",
        ],
        "2 < publish t 1\n2 < publish t 2\n2 < publish t 3",
    );
}

#[test]
fn who_cannot_be_checked_now_hears_that_and_not_that_he_is_wrong() {
    let passwords = Config { passwords: Passwords::File, ..config() };
    let open = ["open 1 password", "1 connect a v5 clean user=u pass=p", "--"];
    for (answer, code) in [("unverified", "0x97"), ("barred", "0x9f"), ("rejected", "0x86")] {
        let answer = format!("1 {answer}");
        let expected = format!("1 < connack {code}\nclose 1");
        check_with(passwords.clone(), &[&open[..], &[&*answer]].concat(), &expected);
    }
}

#[test]
fn who_publishes_where_very_many_filters_meet_rests_between() {
    let mut script = Script::new(config());
    let come = |slot| [format!("open {slot}"), format!("{slot} connect c{slot} clean")];
    script.run(&[come(1), come(2), come(3)].concat().iter().map(String::as_str).collect::<Vec<_>>());
    // Each of eleven levels by name and by wildcard: 4,094 places, and every one is looked at.
    let filter = |number: u32| {
        let levels: Vec<&str> =
            (0..11).map(|level| if number >> level & 1 == 0 { "a" } else { "+" }).collect();
        levels.join("/")
    };
    for batch in 0..8 {
        let filters: Vec<String> = (batch * 256..(batch + 1) * 256).map(filter).collect();
        script.run(&["--", &format!("{} subscribe 1 {}", 2 + batch / 4, filters.join(","))]);
        assert!(!script.said[0].contains("0x97"), "there is room for all");
    }
    let deep = ["a"; 11].join("/");
    let twice = format!("1 publish {deep} 1 ; publish {deep} 2 ; publish x 3 ; ping");
    let sent = |number: u32| [2, 3].map(|slot| format!("{slot} < publish {deep} {number}"));
    script.run(&["--", &twice, "2 publish x own", "after 1"]);
    script.said[..2].sort();
    assert_eq!(script.said, [&sent(1)[..], &["pause 1".to_owned()]].concat());
    script.run(&["--", "after 1", "after 1"]);
    script.said.sort();
    assert_eq!(script.said, sent(2));
    script.run(&["--", "after 1", "1 publish x 4"]);
    assert_eq!(script.said, ["1 < pong", "resume 1"]);
    assert_eq!(script.broker.counters().slowed, 2);
    // One alone, too, so that the next turn is another's.
    script.run(&["--", &format!("1 publish {deep} 5"), "after 2"]);
    assert_eq!(script.said[2..], ["pause 1", "resume 1"]);
    // What was said before the end of a connection does not wait.
    script.run(&["--", &twice, "1 lost"]);
    assert_eq!(script.said.iter().filter(|line| line.contains("< publish")).count(), 4);
}

#[test]
fn who_is_slowed_down_ever_again_leaves_few_reminders_and_is_found_dead_all_the_same() {
    let mut config = config();
    config.limits.max_publish_rate = Some(Rate { count: 1, per: Duration::from_millis(10) });
    let mut script = Script::new(config);
    script.run(&["open 1", "1 connect a v5 keep=900 clean"]);
    for _ in 0..3_000 {
        script.run(&["1 publish t x ; publish t y", "after 20", "after 20"]);
    }
    assert!(script.broker.counters().slowed >= 3_000);
    assert!(script.broker.timers.len() <= 1_100, "{}", script.broker.timers.len());
    script.run(&["1 ping", "--", "after 1349999"]);
    assert!(script.said.is_empty(), "{:?}", script.said);
    script.run(&["after 1"]);
    assert_eq!(script.said, ["1 < disconnect 0x8d", "close 1"]);
}
