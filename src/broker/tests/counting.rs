//! Scripts of what waits for who is away, where the store has ended some of it by itself.
//!
//! `lose` is the store that gives up a row, whether it is full or finds the row out of date.

use super::script::{Script, config};
use crate::broker::WhenFull;
use crate::record::{ReaderId, Seq};

/// Sixteen messages may wait for who is away and has this filter; so many do, of a log whose tail is so long.
fn away(when_full: WhenFull, filter: &str, waiting: u32, tail: usize) -> Script {
    let mut few = config();
    (few.limits.max_queued_messages, few.limits.when_queue_full) = (16, when_full);
    let mut script = Script::new(few);
    script.broker.tighten(tail, 100);
    script.run(&["open 1", "1 connect pub clean", "open 2", "2 connect sub", "commit"]);
    script.run(&[&format!("2 subscribe 1 {filter} q1"), "commit", "2 lost", "commit"]);
    publish(&mut script, 1..=waiting);
    script
}

fn publish(script: &mut Script, messages: std::ops::RangeInclusive<u32>) {
    for id in messages {
        script.run(&[&format!("1 publish t/a {id} q1 id={id}"), "commit"]);
    }
}

/// The store ends the oldest ten by itself, and a second passes.
fn lose_ten(script: &mut Script, reader: u32) {
    for seq in 1..=10 {
        script.run(&[&format!("lose r{reader}/{seq}")]);
    }
    script.run(&["after 1000", "--"]);
}

/// What was said, save of messages that were taken.
fn told(script: &Script) -> Vec<&str> {
    let said = script.said.iter().map(String::as_str);
    said.filter(|line| !line.starts_with("write message") && !line.starts_with("1 < puback")).collect()
}

fn rows(script: &Script, reader: u32) -> Vec<u64> {
    let rows = script.model.view.rows.get(&ReaderId(reader));
    rows.into_iter().flatten().map(|(Seq(seq), _)| *seq).collect()
}

/// A session and a group, by their readers.
const AWAY: [(&str, u32); 2] = [("t/#", 1), ("$share/g/t/#", 2)];

#[test]
fn what_the_store_has_ended_takes_no_place_from_what_comes() {
    for (filter, reader) in AWAY {
        let mut script = away(WhenFull::DropNewest, filter, 14, 1_000);
        lose_ten(&mut script, reader);
        publish(&mut script, 15..=15);
        assert_eq!(
            told(&script),
            [format!("read r{reader} after 0 limit 1")],
            "it is asked before it is full"
        );
        script.run(&["rows"]);
        publish(&mut script, 16..=26);
        assert_eq!(rows(&script, reader), (11..=26).collect::<Vec<_>>());
        script.run(&["--"]);
        publish(&mut script, 27..=27);
        assert_eq!(told(&script), [format!("write queue_full 1 of r{reader}")], "it is full in truth");
    }
}

#[test]
fn a_queue_that_was_full_takes_messages_again_once_rows_of_it_have_ended() {
    for (filter, reader) in AWAY {
        let mut script = away(WhenFull::DropNewest, filter, 16, 1_000);
        lose_ten(&mut script, reader);
        publish(&mut script, 17..=18);
        let full = format!("write queue_full 1 of r{reader}");
        // Once a second; and nothing waits for the answer.
        assert_eq!(told(&script), [&format!("read r{reader} after 0 limit 1"), &full, &full]);
        script.run(&["rows", "--"]);
        publish(&mut script, 19..=28);
        assert_eq!(told(&script), Vec::<&str>::new());
        assert_eq!(rows(&script, reader).len(), 16);
        assert_eq!(script.broker.counters().queued, if reader == 1 { 16 } else { 0 });
    }
}

#[test]
fn the_oldest_go_only_once_as_many_wait_in_truth() {
    for ((filter, reader), tail) in AWAY.into_iter().zip([4, 1_000]).chain(AWAY.into_iter().zip([1_000, 4])) {
        let mut script = away(WhenFull::DropOldest, filter, 16, tail);
        lose_ten(&mut script, reader);
        publish(&mut script, 17..=18);
        assert_eq!(told(&script), [format!("read r{reader} after 0 limit 1")]);
        script.run(&["rows", "--"]);
        publish(&mut script, 19..=26);
        assert_eq!(told(&script), Vec::<&str>::new(), "there is room");
        publish(&mut script, 27..=28);
        assert_eq!(rows(&script, reader), (13..=28).collect::<Vec<_>>(), "the oldest that were there");
    }
}

#[test]
fn what_a_limit_has_just_taken_is_not_counted_again() {
    for (filter, reader) in AWAY {
        let mut script = away(WhenFull::DropOldest, filter, 17, 4);
        script.run(&["1 publish t/a 18 q1 id=18", "after 1000", "--", "1 publish t/a 19 q1 id=19"]);
        assert_eq!(told(&script), Vec::<&str>::new(), "the write that took one is not committed");
        script.run(&["commit"]);
        assert_eq!(told(&script), [format!("read r{reader} after 0 limit 1")]);
        script.run(&["--", "1 publish t/a 20 q1 id=20", "ask", "commit", "rows", "commit"]);
        assert_eq!(told(&script), [format!("write oldest 2 of r{reader} after 2")]);
        assert_eq!(rows(&script, reader), (5..=20).collect::<Vec<_>>());
    }
}

#[test]
fn an_answer_for_who_is_gone_again_counts_nothing() {
    let mut script = away(WhenFull::DropOldest, "t/#", 16, 4);
    lose_ten(&mut script, 1);
    script.run(&["open 2", "2 connect sub", "commit", "2 lost", "commit", "--", "rows"]);
    assert_eq!(told(&script), ["read r1 after 0 limit 1"]);
    publish(&mut script, 17..=17);
    script.run(&["rows", "--"]);
    publish(&mut script, 18..=26);
    assert_eq!(rows(&script, 1), (11..=26).collect::<Vec<_>>());
}

#[test]
fn a_limit_waits_for_a_count_while_an_answer_is_under_way_that_counts_nothing() {
    for lost in [["2 lost", "--"], ["2 lost", "commit"]] {
        let mut script = away(WhenFull::DropOldest, "t/#", 16, 4);
        lose_ten(&mut script, 1);
        script.run(&["open 2", "2 connect sub", "commit"]);
        script.run(&lost);
        publish(&mut script, 17..=18);
        script.run(&["rows", "rows", "--"]);
        publish(&mut script, 19..=26);
        assert_eq!(rows(&script, 1), (11..=26).collect::<Vec<_>>());
        publish(&mut script, 27..=27);
        assert_eq!(rows(&script, 1), (12..=27).collect::<Vec<_>>());
    }
}

#[test]
fn who_comes_back_while_the_store_counts_gets_all_that_waits_in_order() {
    for (filter, reader) in AWAY {
        let mut script = away(WhenFull::DropOldest, filter, 16, 4);
        lose_ten(&mut script, reader);
        publish(&mut script, 17..=17);
        script.run(&["open 2", "2 connect sub", "commit", "--", "rows", "rows"]);
        let said = script.said.iter().filter_map(|line| line.strip_prefix("2 < publish t/a "));
        let said: Vec<&str> = said.filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(said, ["11", "12", "13", "14", "15", "16", "17"]);
    }
}
