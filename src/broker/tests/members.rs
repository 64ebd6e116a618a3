//! Scripts of the members of groups: who is looked at, who leaves, what is held for whom.
//!
//! How many members are looked at is counted, since time says little.

use super::script::{Script, config};
use super::sharing::{KEPT, LIVE, kept, live, narrow};
use crate::record::DropReason;

fn run(script: &mut Script, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        script.run(&[&line]);
    }
}

/// Without names and filters, which others look after.
fn memory(script: &Script) -> u64 {
    (script.broker.memory.queues + script.broker.ledger.weight()) as u64
}

/// A message of one letter on `t/a`.
const WEIGHT: u64 = 100;

#[test]
fn what_is_under_way_from_memory_counts_as_memory() {
    let mut script = Script::new(config());
    script.run(&LIVE);
    script.run(&["1 publish t/a 1 q1 id=1", "1 publish t/a 2 q2 id=2"]);
    assert_eq!(memory(&script), 2 * WEIGHT);
    script.run(&["2 puback 1"]);
    assert_eq!(memory(&script), WEIGHT);
    // Of QoS 2, and sent: it is over with its session.
    script.run(&["3 lost"]);
    assert_eq!(memory(&script), 0);
    script.run(&["1 publish t/a 3 q1 id=3", "1 publish t/a 4 q2 id=4", "2 pubrec 3"]);
    assert_eq!(memory(&script), 2 * WEIGHT);
    script.run(&["2 pubcomp 3", "2 puback 2"]);
    assert_eq!(memory(&script), 0);
}

#[test]
fn what_comes_back_to_memory_counts_once() {
    let mut script = Script::new(narrow(1));
    script.run(&LIVE);
    script.run(&["1 publish t/a 1 q1 id=1", "1 publish t/a 2 q1 id=2", "2 lost"]);
    assert_eq!(memory(&script), 2 * WEIGHT);
    script.run(&["3 puback 1", "3 puback 2"]);
    assert_eq!(memory(&script), 0);
    script.run(&["1 publish t/a 3 q1 id=3", "3 lost"]);
    assert_eq!(memory(&script), 0);
    assert_eq!(script.broker.counters().dropped.get(&DropReason::Purged), Some(&1));
}

#[test]
fn what_is_under_way_from_memory_becomes_a_row_and_counts_no_more() {
    let mut script = Script::new(config());
    script.run(&LIVE);
    script.run(&["1 publish t/a 1 q1 id=1", "open 4", "4 connect c", "commit"]);
    script.run(&["4 subscribe 1 $share/g/t/# q1", "commit", "3 lost", "2 lost"]);
    // In the tail of the log, where it counts too.
    assert_eq!(memory(&script), WEIGHT);
    assert_eq!(script.broker.counters().uncommitted, 1);
}

#[test]
fn who_holds_most_of_what_is_under_way_is_let_go() {
    let mut tight = config();
    tight.limits.max_memory = 40_000;
    let mut script = Script::new(tight);
    script.run(&LIVE);
    let large = "x".repeat(9_000);
    run(&mut script, (1..4).map(|id| format!("1 publish t/a {large} q2 id={id}")));
    assert!(!script.said.iter().any(|line| line.starts_with("close")));
    run(&mut script, (4..7).map(|id| format!("1 publish t/a {large} q2 id={id}")));
    let closed: Vec<&String> = script.said.iter().filter(|line| line.starts_with("close")).collect();
    assert_eq!(closed.len(), 1);
    assert!(memory(&script) < 40_000);
}

#[test]
fn who_leaves_lets_the_others_have_what_waited_for_him() {
    let large = "x".repeat(60);
    let mut script = Script::new(narrow(1));
    script.run(&[
        "open 1",
        "1 connect pub v5 clean",
        "open 2",
        "2 connect a v5 clean",
        "2 subscribe 1 $share/g/t/# q1",
        "open 3",
        "3 connect b v5 clean size=60",
        "3 subscribe 1 $share/g/t/# q1",
    ]);
    run(&mut script, (1..3).map(|id| format!("1 publish t/a {large} q1 id={id}")));
    script.run(&["1 publish t/a small q1 id=3", "--", "2 unsubscribe 2 $share/g/t/#"]);
    assert_eq!(script.said, ["3 < publish t/a small q1 id=1", "2 < unsuback 2 0x00"]);
    assert_eq!(script.broker.counters().dropped.get(&DropReason::TooLarge), Some(&1));
}

#[test]
fn what_a_former_member_has_not_acknowledged_goes_to_those_who_remain() {
    live(
        &["1 publish t/a 1 q1 id=1", "2 unsubscribe 2 $share/g/t/#", "--", "2 lost"],
        "3 < publish t/a 1 q1 id=1",
    );
    kept(
        &["1 publish t/a 1 q1 id=1", "2 unsubscribe 2 $share/g/t/#", "commit", "--", "2 lost"],
        "3 < publish t/a 1 q1 id=1
         write session a r1 ended",
    );
}

#[test]
fn what_a_former_member_has_not_acknowledged_waits_for_those_who_are_away() {
    let mut script = Script::new(config());
    script.run(&KEPT);
    script.run(&["3 lost", "1 publish t/a 1 q1 id=1", "2 unsubscribe 2 $share/g/t/#", "commit", "2 lost"]);
    script.run(&["commit", "open 3", "3 connect b", "--", "commit"]);
    assert_eq!(script.said, ["3 < connack present", "3 < publish t/a 1 q1 id=1"]);
}

#[test]
fn what_comes_back_to_memory_keeps_its_order() {
    let mut script = Script::new(narrow(2));
    script.run(&LIVE);
    script.run(&["3 lost", "1 publish t/a 1 q1 id=1", "1 publish t/a 2 q1 id=2", "1 publish t/a 3 q1 id=3"]);
    script.run(&["open 3", "3 connect b v5 clean", "3 subscribe 1 $share/g/t/# q1", "--", "2 lost"]);
    script.run(&["3 puback 1", "3 puback 2"]);
    assert_eq!(script.said, ["3 < publish t/a 1 q1 id=2", "3 < publish t/a 2 q1 id=3"]);
}

const MANY: u64 = 50;

fn many(version: &str, count: u64) -> Script {
    let mut script = Script::new(config());
    script.run(&["open 0", "0 connect pub v5 clean"]);
    for slot in 1..=count {
        run(&mut script, [format!("open {slot}"), format!("{slot} connect m{slot} {version} window=1")]);
        script.run(&["commit"]);
        run(&mut script, [format!("{slot} subscribe 1 $share/g/t/# q1"), "commit".to_owned()]);
    }
    script
}

/// Members that these lines look at, most of them for one line.
fn most_looked_at(script: &mut Script, lines: impl IntoIterator<Item = String>) -> u64 {
    let mut most = 0;
    for line in lines {
        let before = script.broker.groups.looks();
        script.run(&[&line]);
        most = most.max(script.broker.groups.looks() - before);
    }
    most
}

#[test]
fn a_message_looks_at_few_members_and_so_does_an_answer() {
    for version in ["v5 clean", "v5 expiry=60"] {
        let mut script = many(version, MANY);
        let publish = |ids: std::ops::RangeInclusive<u64>| {
            ids.flat_map(|id| [format!("0 publish t/a x q1 id={id}"), "commit".to_owned()])
                .collect::<Vec<_>>()
        };
        let qos_0 = (0..MANY).map(|_| "0 publish t/a x".to_owned());
        assert!(most_looked_at(&mut script, qos_0) <= 4, "{version}");
        assert!(most_looked_at(&mut script, publish(1..=MANY)) <= 4, "{version}");
        // Everybody has what he can take: each that was found so is not looked at again.
        most_looked_at(&mut script, publish(MANY + 1..=MANY + 1));
        assert!(most_looked_at(&mut script, publish(MANY + 2..=MANY * 3)) <= 4, "{version}");
        let answers = (1..=MANY).rev().map(|slot| format!("{slot} puback 1"));
        script.run(&["--"]);
        assert!(most_looked_at(&mut script, answers) <= 4, "{version}");
        let given = script.said.iter().filter(|line| line.contains("< publish")).count() as u64;
        assert_eq!(given, MANY, "{version}: each answer makes room for one");
    }
}

#[test]
fn a_message_for_one_who_is_here_looks_at_few_who_are_away() {
    let mut script = many("v5 expiry=60", MANY);
    run(&mut script, (2..=MANY).map(|slot| format!("{slot} lost")));
    script.run(&["0 publish t/a x", "--"]);
    let events = ["0 publish t/a 1 q1 id=1", "1 puback 1", "0 publish t/a 2", "0 publish t/a 3 q1 id=2"];
    assert!(most_looked_at(&mut script, events.map(str::to_owned)) <= 4);
    assert_eq!(script.said.iter().filter(|line| line.starts_with("1 < publish")).count(), 3);
}

#[test]
fn a_message_of_qos_0_looks_at_few_of_a_thousand_who_are_away() {
    let mut script = many("v5 expiry=60", 1_001);
    run(&mut script, (1..=1_000).flat_map(|slot| [format!("{slot} lost"), "commit".to_owned()]));
    // The one who is here has no room for another of QoS 1, and so is last asked.
    script.run(&["0 publish t/a 1 q1 id=1", "commit", "0 publish t/a 2 q1 id=2", "commit", "--"]);
    let once = (0..3).map(|_| "0 publish t/a x".to_owned());
    assert!(most_looked_at(&mut script, once.clone()) <= 4);
    assert_eq!(script.said, ["1001 < publish t/a x"; 3]);
    script.run(&["1001 lost", "commit", "--"]);
    assert!(most_looked_at(&mut script, once.clone()) <= 4);
    assert!(script.said.is_empty(), "{:?}", script.said);
    script.run(&["open 7", "7 connect m7 v5 expiry=60", "commit", "--"]);
    assert!(most_looked_at(&mut script, once) <= 4);
    assert_eq!(script.said, ["7 < publish t/a x"; 3]);
}

/// Memory for 400 kB, a group's queue for 40 kB, and a client (2) in twelve groups that acknowledges nothing.
fn slow_member() -> Script {
    let mut config = config();
    (config.limits.max_memory, config.limits.max_send_buffer) = (400_000, 40_000);
    let mut script = Script::new(config);
    script.run(&["open 1", "1 connect pub v5 clean", "open 2", "2 connect slow v5 clean window=1"]);
    let filters: Vec<String> = (0..12).map(|number| format!("$share/g{number}/t q1")).collect();
    script.run(&[&format!("2 subscribe 1 {}", filters.join(","))]);
    script
}

fn closed(script: &Script) -> Vec<&String> {
    script.said.iter().filter(|line| line.starts_with("close")).collect()
}

#[test]
fn who_lets_the_queues_of_his_groups_fill_memory_is_let_go_and_nobody_else() {
    let mut script = slow_member();
    // Another has more in a queue of its own than any group has in its.
    script.run(&["open 3", "3 connect other v5 clean window=1", "3 subscribe 1 o q1"]);
    script.run(&["1 publish o x q1 id=1", &format!("1 publish o {} q1 id=2", "x".repeat(38_000))]);
    let publish = format!("1 publish t {} q1 id=3", "x".repeat(12_000));
    script.run(&[&publish, &publish, &publish, "--", "buffered 0", "buffered 0"]);
    assert_eq!(closed(&script), ["close 2"]);
    assert!(script.broker.counters().memory < 80_000, "{}", script.broker.counters().memory);
    script.run(&["--", "open 4", "4 connect new v5 clean"]);
    assert_eq!(script.said, ["4 < connack keep=64800"]);
}

#[test]
fn what_fills_memory_for_groups_of_whom_nobody_is_here_gives_way() {
    let mut script = slow_member();
    // Its session is kept, though not for these: it wants QoS 0.
    let filters: Vec<String> = (0..12).map(|number| format!("$share/g{number}/t q0")).collect();
    script.run(&["open 3", "3 connect away v5 expiry=60", "commit"]);
    script.run(&[&format!("3 subscribe 1 {}", filters.join(",")), "commit", "3 lost", "commit"]);
    script.run(&["open 4", "4 connect other v5 clean window=1", "4 subscribe 1 o q1"]);
    script.run(&["1 publish o x q1 id=1", &format!("1 publish o {} q1 id=2", "x".repeat(38_000))]);
    let publish = format!("1 publish t {} q1 id=3", "x".repeat(12_000));
    script.run(&[&publish, &publish, &publish, "--", "buffered 0", "buffered 0", "1 ping"]);
    assert_eq!(closed(&script), ["close 2"]);
    assert!(script.broker.counters().memory < 80_000, "{}", script.broker.counters().memory);
    assert_eq!(script.broker.counters().dropped[&DropReason::MemoryFull], 36);
}
