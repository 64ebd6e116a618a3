//! What one packet, or a disk that stands still, can make the broker do and hold at most.
//!
//! Everything is counted: effects of a call, lists that wait, comparisons. Nothing here is timed.

use super::script::{Script, config};
use crate::broker::backlog::LOOKS_MAX;
use crate::session::COMPARED;

/// A broker that retains so many messages under `r`.
fn retaining(messages: usize) -> Script {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect pub v5 clean"]);
    for message in 0..messages {
        script.run(&[&format!("1 publish r/{message:04} x retain"), "commit"]);
    }
    script.run(&["--"]);
    script
}

/// Whether the engine is to call again at once.
fn goes_on(script: &Script) -> bool {
    script.broker.deadline().is_some_and(|deadline| deadline <= script.now.mono)
}

/// What each further call said, until none is due at once.
fn pieces(script: &mut Script) -> Vec<Vec<String>> {
    let mut pieces = vec![std::mem::take(&mut script.said)];
    while goes_on(script) {
        assert!(pieces.len() < 1_000, "it never ends");
        script.run(&["after 0"]);
        pieces.push(std::mem::take(&mut script.said));
    }
    pieces
}

fn expected(slot: u32, messages: usize) -> Vec<String> {
    (0..messages).map(|message| format!("{slot} < publish r/{message:04} x retain")).collect()
}

#[test]
fn retained_messages_of_one_subscription_come_in_pieces() {
    let mut script = retaining(1_000);
    script.run(&["open 2", "2 connect sub v5 clean", "--", "2 subscribe 1 r/#"]);
    assert_eq!(script.said[0], "2 < suback 1 0x00");
    assert!(script.said.len() <= 257, "{} effects of one call", script.said.len());
    // What is published meanwhile comes between.
    script.run(&["1 publish r/live y"]);
    let pieces = pieces(&mut script);
    assert!(pieces.len() >= 3 && pieces.iter().skip(1).all(|piece| piece.len() <= 256));
    let mut all = pieces.concat();
    all.remove(0);
    assert_ne!(all.last().unwrap(), "2 < publish r/live y");
    all.retain(|line| line != "2 < publish r/live y");
    assert_eq!(all, expected(2, 1_000));
}

#[test]
fn a_thousand_filters_of_one_packet_bring_their_messages_in_pieces() {
    let mut script = retaining(1_000);
    let filters: Vec<String> = (0..1_000).map(|number| format!("r/{number:04}")).collect();
    script.run(&["open 2", "2 connect sub v5 clean", "--", &format!("2 subscribe 1 {}", filters.join(", "))]);
    let pieces = pieces(&mut script);
    assert!(pieces.iter().all(|piece| piece.len() <= 257), "{}", pieces[0].len());
    assert_eq!(pieces.concat()[1..], expected(2, 1_000));
}

#[test]
fn all_who_wait_for_retained_messages_share_one_call() {
    let mut script = retaining(1_000);
    for slot in 2..5 {
        script.run(&[&format!("open {slot}"), &format!("{slot} connect c{slot} v5 clean"), "--"]);
    }
    script.run(&["2 subscribe 1 r/#", "3 subscribe 1 r/#", "4 subscribe 1 r/#"]);
    let pieces = pieces(&mut script);
    let begun = pieces[..4].concat();
    let all = pieces.concat();
    assert!(all.len() <= 3_003 && pieces[1..].iter().all(|piece| piece.len() <= 256));
    for slot in 2..5 {
        let of = |lines: &[String]| -> Vec<String> {
            let is_copy = |line: &&String| line.starts_with(&format!("{slot} < publish"));
            lines.iter().filter(is_copy).cloned().collect()
        };
        assert!(!of(&begun).is_empty(), "{slot} waits for the others");
        assert_eq!(of(&all), expected(slot, 1_000));
    }
}

#[test]
fn what_is_taken_back_or_lost_brings_no_more_retained_messages() {
    for end in ["2 unsubscribe 2 r/#", "2 lost"] {
        let mut script = retaining(1_000);
        script.run(&["open 2", "2 connect sub v5 clean", "2 subscribe 1 r/#", "--", end]);
        let rest = pieces(&mut script).concat();
        assert!(rest.iter().filter(|line| line.contains("publish")).count() <= 256, "{}", rest.len());
        assert!(!goes_on(&script));
    }
}

#[test]
fn a_port_s_ping_is_answered_after_the_last_piece() {
    let mut script = retaining(600);
    script.run(&["open 2 port credit=2000", "2 connect p v5 clean", "--", "2 subscribe 1 r/# ; ping"]);
    let all = pieces(&mut script).concat();
    assert_eq!(all.last().unwrap(), "2 < pong");
    assert_eq!(all[1..=600], expected(2, 600));
}

#[test]
fn a_filter_that_matches_little_is_looked_for_in_pieces() {
    let mut script = retaining(9_000);
    script.run(&["1 publish r/8999/end last retain", "commit"]);
    script.run(&["open 2", "2 connect sub v5 clean", "--", "2 subscribe 1 r/+/end, r/live q0"]);
    assert_eq!(script.said, ["2 < suback 1 0x00 0x00"], "one call does not look at all of them");
    assert!(goes_on(&script));
    // What is published meanwhile comes between, and what is retained before its place is come to is found.
    script.run(&["1 publish r/live y", "1 publish r/8998/end new retain", "1 publish r/8999/end - retain"]);
    assert_eq!(script.said[1], "2 < publish r/live y", "{:?}", script.said);
    // Four calls were made.
    assert!(4 * LOOKS_MAX < 8_998 && goes_on(&script));
    let pieces = pieces(&mut script);
    let of_walk = "2 < publish r/8998/end new retain";
    assert!(!pieces[0].iter().any(|line| line == of_walk), "{:?}", pieces[0]);
    assert_eq!(pieces.concat().iter().filter(|line| *line == of_walk).count(), 1, "{pieces:?}");
    assert!(!pieces.concat().iter().any(|line| line.ends_with("last retain")));
}

/// A kept session of 300 filters, and memory for about five lists of them.
fn long_list() -> Script {
    let mut config = config();
    config.limits.max_memory = 1_300_000;
    let mut script = Script::new(config);
    let filters: Vec<String> = (0..300).map(|number| format!("{}/{number}", "f".repeat(40))).collect();
    script.run(&["open 1", "1 connect a v5 keep=9 expiry=60", "commit"]);
    script.run(&[&format!("1 subscribe 1 {}", filters.join(", ")), "commit", "--"]);
    script
}

fn lists(script: &Script) -> usize {
    script.said.iter().filter(|line| line.starts_with("write session a r1 [")).count()
}

#[test]
fn comings_and_goings_leave_few_lists_while_the_disk_stands_still() {
    let mut script = long_list();
    let before = script.broker.counters().memory;
    for _ in 0..50 {
        script.run(&["1 lost", "open 1", "1 connect a v5 keep=9 expiry=60"]);
    }
    assert!((3..8).contains(&lists(&script)), "{} lists wait", lists(&script));
    assert!(script.said.contains(&"1 < connack 0x88".to_owned()));
    // They weigh, and leave with their commit.
    assert!(script.broker.counters().memory > before + 100_000, "{}", script.broker.counters().memory);
    // Who leaves nothing behind comes in all the same.
    script.run(&["open 2", "--", "2 connect b v5 clean keep=9"]);
    assert_eq!(script.said, ["2 < connack"]);
    script.run(&["2 lost", "commit", "1 lost", "commit"]);
    assert_eq!(script.broker.counters().memory, before);
    script.run(&["open 1", "1 connect a v5 keep=9 expiry=60", "--", "commit"]);
    assert_eq!(script.said, ["1 < connack present"]);
}

#[test]
fn subscribes_leave_few_lists_while_the_disk_stands_still() {
    let mut script = long_list();
    for packet_id in 1..=30 {
        let filter = packet_id % 3;
        script.run(&[&format!("1 subscribe {packet_id} again/{filter}")]);
        script.run(&[&format!("1 unsubscribe {packet_id} again/{filter}")]);
    }
    assert!((3..8).contains(&lists(&script)), "{} lists wait", lists(&script));
    for _ in 0..60 {
        script.run(&["commit"]);
    }
    let answers = |word: &str| script.said.iter().filter(|line| line.starts_with(word)).count();
    assert_eq!((answers("1 < suback"), answers("1 < unsuback")), (30, 30));
}

fn compared(script: &mut Script, line: &str) -> u64 {
    let before = COMPARED.get();
    script.run(&[line]);
    COMPARED.get() - before
}

#[test]
fn ten_thousand_filters_again_are_compared_a_few_times_each() {
    let filters: Vec<String> = (0..9_999).map(|number| format!("t/{number}")).collect();
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a v5 keep=9 expiry=60", "commit"]);
    let first = compared(&mut script, &format!("1 subscribe 1 {}", filters.join(", ")));
    script.run(&["commit", "after 10"]);
    let again = compared(&mut script, &format!("1 subscribe 2 {}", filters.join(", ")));
    assert!(first < 1_000_000 && again < 2_000_000, "{first} and {again}");
    script.run(&["commit", "after 10"]);
    let gone = compared(&mut script, &format!("1 unsubscribe 3 {}", filters.join(" ")));
    assert!(gone < 2_000_000, "{gone}");
    script.run(&["--", "commit", "after 10"]);
    assert_eq!(script.broker.counters().subscriptions, 0);
}

#[test]
fn whoever_is_in_thousands_of_groups_leaves_them_with_a_few_comparisons_each() {
    let mut config = config();
    config.limits.max_memory = 1_000_000_000;
    let filters: Vec<String> = (0..4_000).map(|number| format!("$share/g{number}/t")).collect();
    let subscribe = format!("1 subscribe 1 {}", filters.join(", "));
    for end in [&format!("1 unsubscribe 3 {}", filters.join(" ")), "1 lost"] {
        let mut script = Script::new(config.clone());
        script.run(&["open 1", "1 connect a v5 clean", &subscribe]);
        assert_eq!(script.broker.counters().shared_subscriptions, 4_000);
        let count = compared(&mut script, end);
        assert!(count < 1_000_000, "{count}");
        assert_eq!(script.broker.counters().shared_subscriptions, 0);
    }
}

#[test]
fn one_filter_sixty_thousand_times_is_compared_a_few_times_each() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a v5 keep=9 expiry=60", "commit"]);
    let filters: Vec<String> = (0..500).map(|number| format!("t/{number}")).collect();
    script.run(&[&format!("1 subscribe 1 {}", filters.join(", ")), "commit"]);
    let repeated = vec!["t/499 q1"; 60_000].join(", ");
    let count = compared(&mut script, &format!("1 subscribe 2 {repeated}, t/499 q2"));
    assert!(count < 1_000_000, "{count}");
    script.run(&["commit", "--", "1 publish t/499 x q2 id=1"]);
    assert!(script.said[0].contains("for [r1 q2]"), "the last word counts: {:?}", script.said);
}

#[test]
fn a_full_memory_is_asked_no_list_for_each_filter() {
    let mut config = config();
    config.limits.max_memory = 400_000;
    let mut script = Script::new(config);
    let filters: Vec<String> = (0..500).map(|number| format!("t/{number}")).collect();
    script.run(&["open 1", "1 connect a v5 clean", "--"]);
    let subscribe = format!("1 subscribe 1 {}, $share/g/t", filters.join(", "));
    script.run(&[&subscribe]);
    assert!(script.said[0].contains("0x97"), "{:?}", script.said);
    script.run(&["--"]);
    let count = compared(&mut script, &subscribe);
    assert!(count < 50_000, "{count}");
    // What it has it may have again.
    assert!(script.said[0].starts_with("1 < suback 1 0x00 0x00"), "{:?}", script.said);
}

#[test]
fn whoever_has_very_many_subscriptions_rests_after_each_that_he_changes() {
    for (expiry, changes) in [
        ("clean", ["subscribe 2 t/5 q1", "unsubscribe 2 t/5"].as_slice()),
        ("expiry=60", &["subscribe 2 t/5 q1", "unsubscribe 2 t/5", "subscribe 2 more"]),
    ] {
        for change in changes {
            let mut script = Script::new(config());
            let filters: Vec<String> = (0..8_192).map(|number| format!("t/{number}")).collect();
            script.run(&["open 1", &format!("1 connect a v5 keep=9 {expiry}"), "commit"]);
            script.run(&[&format!("1 subscribe 1 {}", filters.join(", ")), "commit", "after 10", "--"]);
            script.run(&[&format!("1 {change} ; ping"), "commit", "after 3"]);
            assert!(script.said.contains(&"pause 1".to_owned()), "{expiry} {change}");
            assert!(!script.said.contains(&"1 < pong".to_owned()), "{expiry} {change}");
            script.run(&["after 1", "after 1"]);
            assert!(script.said.contains(&"1 < pong".to_owned()), "{expiry} {change}: {:?}", script.said);
        }
    }
}
