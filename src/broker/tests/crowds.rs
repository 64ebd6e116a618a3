//! Scripts of what a few clients can take from everybody: memory, names, packet ids, places for sessions.
//!
//! They take it by every means that they have, and most of them leave; then somebody honest comes.

use super::limits::memory;
use super::script::{Script, check_with, config};
use crate::codec::Reason;
use crate::router::LOOKED;

/// Filters that all match `a/a/…` of so many levels.
fn overlapping(levels: u32) -> Vec<String> {
    let filter = |number: u32| {
        let level = |place: u32| if number >> place & 1 == 0 { "a" } else { "+" };
        (0..levels).map(level).collect::<Vec<_>>().join("/")
    };
    (0..1 << levels).map(filter).collect()
}

/// Subscribes to each under an identifier of its own.
fn identify(script: &mut Script, slot: u32, filters: &[String]) {
    for (number, filter) in filters.iter().enumerate() {
        script.run(&[&format!("{slot} subscribe 1 {filter} q1 sid={}", number + 1), "commit"]);
    }
}

/// A publish that 256 of these match.
fn matched(packet_id: u32) -> String {
    format!("1 publish a/a/a/a/a/a/a/a - q1 id={packet_id}")
}

#[test]
fn subscription_identifiers_weigh_in_every_queue() {
    let mut config = config();
    config.limits.max_send_buffer = 16_384;
    let mut script = Script::new(config);
    script.run(&["open 1", "1 connect pub v5 clean", "open 2", "2 connect sub v5 clean window=1"]);
    identify(&mut script, 2, &overlapping(8));
    script.run(&[&matched(1), &matched(2)]);
    let waiting = script.broker.memory.queues;
    assert!((1_100..4_000).contains(&waiting), "{waiting}");
    script.run(&["2 puback 1"]);
    assert_eq!(script.broker.memory.queues, 0);
    for packet_id in 3..20 {
        script.run(&[&matched(packet_id)]);
    }
    assert!(script.said.contains(&"2 < disconnect 0x97".to_owned()), "{:?}", script.said.last());
    assert_eq!(script.broker.memory.queues, 0);
}

#[test]
fn who_wants_a_message_weighs_with_it_in_the_tail() {
    let mut script = Script::new(config());
    script.broker.tighten(1, 64);
    script.run(&["open 1", "1 connect pub v5 clean", "open 2", "2 connect sub v5 expiry=60", "commit"]);
    identify(&mut script, 2, &overlapping(8));
    script.run(&["2 lost", "commit", &matched(1), "commit"]);
    let one = script.broker.ledger.weight();
    assert!(one >= 1_100, "{one}");
    // The same readers again: they are there once, as long as one of the rows is.
    script.run(&[&matched(2)]);
    let two = script.broker.ledger.weight();
    assert!((one + 100..one + 200).contains(&two), "{one} {two}");
    script.run(&["commit"]);
    assert_eq!(script.broker.ledger.weight(), one);
    script.run(&["1 publish t x retain q1 id=3", "commit"]);
    assert!(script.broker.ledger.weight() < 200, "{}", script.broker.ledger.weight());
}

#[test]
fn a_large_audience_weighs_with_its_message() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect pub v5 clean"]);
    for slot in 2..102 {
        script.run(&[&format!("open {slot}"), &format!("{slot} connect c{slot}"), "commit"]);
        script.run(&[&format!("{slot} subscribe 1 t q1"), "commit"]);
    }
    script.run(&["1 publish t x q1 id=1"]);
    assert!(script.broker.ledger.weight() > 100 * 16, "{}", script.broker.ledger.weight());
    for packet_id in 2..20 {
        script.run(&[&format!("1 publish t x q1 id={packet_id}")]);
    }
    assert!(script.broker.ledger.weight() < 100 * 40 + 20 * 100, "{}", script.broker.ledger.weight());
}

/// Publishes under one packet id after the other and releases none, until it is closed; how many were taken.
fn unreleased(script: &mut Script, slot: u32, most: u32) -> u32 {
    for packet_id in 1..=most {
        script.run(&["--", &format!("{slot} publish t x q2 id={packet_id}"), "commit"]);
        if script.said.contains(&format!("close {slot}")) {
            return packet_id - 1;
        }
    }
    most
}

#[test]
fn whoever_releases_no_packet_ids_is_closed_in_every_version() {
    for (version, most) in [("v31", 100), ("v311", 100), ("v5 expiry=60", 2)] {
        let mut config = config();
        config.limits.max_inflight = 2;
        let mut script = Script::new(config);
        let connect = format!("1 connect p {version}");
        script.run(&["open 1", &connect, "commit"]);
        let names = script.broker.memory.names;
        assert_eq!(unreleased(&mut script, 1, 200), most, "{version}");
        assert_eq!(script.broker.memory.names, names, "{version}");
        // It goes on where it was, and is closed only for another one.
        script.run(&["open 1", &connect, "commit", "--", "1 publish t x q2 id=1 dup ; pubrel 1", "commit"]);
        assert_eq!(script.said, ["1 < pubrec 1", "write released r1/1", "1 < pubcomp 1"], "{version}");
        script.run(&["1 lost", "commit", "1 connect p clean"]);
    }
}

#[test]
fn packet_ids_that_nobody_releases_leave_room_for_everybody() {
    let mut script = Script::new(memory(1_000_000));
    for slot in 1..=6 {
        script.run(&[&format!("open {slot}"), &format!("{slot} connect c{slot}"), "commit"]);
        unreleased(&mut script, slot, 2_000);
    }
    for restart in [&[][..], &["crash"]] {
        script.run(restart);
        let held = script.broker.counters().memory;
        assert!((55_000..70_000).contains(&held), "{held}");
        script.run(&["open 9", "9 connect new v5 clean keep=9", "--", "9 subscribe 1 sensors/1 q1"]);
        assert_eq!(script.said, ["9 < suback 1 0x01"]);
        assert_eq!(unreleased(&mut script, 9, 19), 19, "as many as it was told");
        script.run(&["9 lost"]);
        assert_eq!(script.broker.counters().memory, held);
    }
}

fn two_under_way(events: &[&str], expected: &str) {
    let mut narrow = config();
    narrow.limits.max_inflight = 2;
    let mut all = vec!["open 1", "1 connect a v5 clean", "1 publish t 1 q2 id=1 ; publish t 2 q2 id=2", "--"];
    all.extend(events);
    check_with(narrow, &all, expected);
}

#[test]
fn a_repeat_of_what_never_came_counts_against_the_receive_maximum() {
    two_under_way(&["1 publish t 1 q2 id=1 dup"], "1 < pubrec 1");
    for repeat in ["1 publish t 3 q2 id=3 dup", "1 publish t 3 q1 id=3 dup"] {
        two_under_way(&[repeat], "1 < disconnect 0x93\nclose 1");
    }
}

#[test]
fn a_release_of_what_never_came_ends_no_exchange() {
    two_under_way(
        &["1 pubrel 8 ; pubrel 9 ; publish t 3 q2 id=3"],
        "1 < pubcomp 8 0x92\n1 < pubcomp 9 0x92\n1 < disconnect 0x93\nclose 1",
    );
    two_under_way(&["1 pubrel 1 ; publish t 3 q2 id=3"], "1 < pubcomp 1\n1 < pubrec 3 0x10");
}

/// How many of so many filters are granted.
fn granted(script: &mut Script, slot: u32, filters: impl IntoIterator<Item = String>) -> usize {
    let mut granted = 0;
    for filter in filters {
        script.run(&["--", &format!("{slot} subscribe 1 {filter} q0"), "commit"]);
        granted += usize::from(script.said.iter().any(|line| line.ends_with("suback 1 0x00")));
    }
    granted
}

#[test]
fn whoever_takes_all_room_for_names_leaves_everybody_a_few() {
    let mut script = Script::new(memory(1_000_000));
    for slot in 1..=5 {
        script.run(&[&format!("open {slot}"), &format!("{slot} connect c{slot}"), "commit"]);
        let got = granted(
            &mut script,
            slot,
            (0..10).map(|number| format!("{slot}x{number}{}/+", "/a".repeat(100))),
        );
        assert!(got < 10, "{got}");
        script.run(&[&format!("{slot} lost"), "commit"]);
    }
    for restart in [&[][..], &["crash"]] {
        script.run(restart);
        for (slot, connect) in [(8, "keeper v5 expiry=60"), (9, "guest v5 clean")] {
            script.run(&[&format!("open {slot}"), &format!("{slot} connect {connect} keep=9"), "commit"]);
            assert_eq!(granted(&mut script, slot, ["sensors/1".to_owned(), "home/+/state".to_owned()]), 2);
            // A few are not many, nor is one of them long.
            assert!((1..16).contains(&granted(
                &mut script,
                slot,
                (0..50).map(|number| format!("f{number}"))
            )));
            assert_eq!(granted(&mut script, slot, ["x".repeat(2_000)]), 0);
            script.run(&[&format!("{slot} unsubscribe 1 sensors/1 home/+/state"), "commit"]);
            script.run(&[&format!("{slot} disconnect"), "commit"]);
            script.run(&[
                &format!("open {slot}"),
                &format!("{slot} connect keeper v5 clean keep=9"),
                "commit",
            ]);
            script.run(&[&format!("{slot} lost"), "commit"]);
        }
    }
}

/// Two connections and twenty places: `s0` to `s19` came and went, in this order, each after these events.
fn twenty_absent(events: &[&str]) -> Script {
    let mut config = config();
    config.limits.max_connections = 2;
    let mut script = Script::new(config);
    for number in 0..20 {
        script.run(&["open 1", &format!("1 connect s{number}"), "commit"]);
        script.run(events);
        script.run(&["after 10", "1 lost", "commit"]);
    }
    script.run(&["--"]);
    script
}

/// What became of a newcomer.
fn comes(script: &mut Script, connect: &str) -> Vec<String> {
    script.run(&["open 1", "--", &format!("1 connect {connect}"), "commit"]);
    let said = script.said.clone();
    script.run(&["1 lost", "commit"]);
    said.into_iter().filter(|line| !line.starts_with("write session")).collect()
}

#[test]
fn absent_sessions_keep_nobody_out_who_leaves_nothing_behind() {
    let mut script = twenty_absent(&["1 subscribe 1 t q1", "commit"]);
    script.run(&["open 1", "1 connect pub clean", "1 publish t x q1 id=1", "commit"]);
    assert_eq!(comes(&mut script, "guest clean"), ["1 < connack"]);
    // Something waits in each, so none gives way.
    assert_eq!(comes(&mut script, "other"), ["1 < connack 0x97", "close 1"]);
    assert_eq!(comes(&mut script, "s7"), ["1 < connack present", "1 < publish t x q1 id=1"]);
    // Nor does who is here without keeping anything get a place by coming again.
    script.run(&["open 2", "2 connect again clean", "open 3"]);
    assert_eq!(comes(&mut script, "again"), ["1 < connack 0x97", "close 1"]);
    assert_eq!(script.broker.counters().kept_sessions, 20);
}

#[test]
fn the_session_that_was_longest_absent_gives_way_where_nothing_waits_in_it() {
    for restart in [&[][..], &["crash"]] {
        let mut script = twenty_absent(&[]);
        script.run(&["open 1", "1 connect s0", "commit", "1 subscribe 1 t q1", "commit", "1 lost", "commit"]);
        script.run(&["open 1", "1 connect s1", "commit", "1 subscribe 1 t q1", "commit"]);
        script.run(&["open 2", "2 connect pub clean", "1 lost", "2 publish t x q1 id=1", "commit", "2 lost"]);
        script.run(&["after 10"]);
        script.run(restart);
        assert_eq!(comes(&mut script, "n0"), ["gave way s2", "write lapsed r3", "1 < connack"]);
        assert_eq!(comes(&mut script, "s3"), ["1 < connack present"]);
        for number in 4..20 {
            let gone = [format!("gave way s{number}"), format!("write lapsed r{}", number + 1)];
            let said = comes(&mut script, &format!("n{number}"));
            assert_eq!(said[..2], gone, "{said:?}");
            script.run(&["after 10"]);
        }
        // `s0` and `s1` have something, so the next is who came in the place of `s2`.
        assert_eq!(comes(&mut script, "late")[0], "gave way n0");
        let counters = script.broker.counters();
        assert_eq!((counters.kept_sessions, counters.sessions_displaced), (20, 18));
    }
}

#[test]
fn nobody_outside_takes_a_name_of_the_house_through_a_port() {
    for port in ["port", "port user=sensor", "port user=tidegated"] {
        for name in ["bridge:cloud", "serial:scale", "tidegate:states"] {
            let (open, connect) = (format!("open 1 {port}"), format!("1 connect {name} v5 clean"));
            check_with(config(), &[&open, "--", &connect], "1 < connack 0x85\nclose 1");
        }
    }
    for (user, name) in [("bridge:cloud", "bridge:cloud"), ("tidegate:states", "tidegate:states")] {
        let (open, connect) = (format!("open 1 port user={user}"), format!("1 connect {name} v5 clean"));
        check_with(config(), &[&open, "--", &connect], "1 < connack");
    }
}

#[test]
fn a_part_of_the_house_that_is_turned_away_is_named_until_it_is_back() {
    let mut script = Script::new(config());
    script.run(&["open 1 port user=serial:scale", "1 connect bridge:cloud v5 clean"]);
    script.run(&["open 2 port user=bridge:cloud", "--", "2 connect bridge:cloud v5 clean"]);
    assert_eq!(script.said[1..], ["2 < connack 0x85", "close 2"]);
    let away = |script: &Script| script.broker.counters().turned_away.into_iter().collect::<Vec<_>>();
    assert_eq!(away(&script), [("bridge:cloud".to_owned(), Reason::ClientIdentifierNotValid)]);
    let back = ["1 lost", "open 2 port user=bridge:cloud", "2 connect bridge:cloud v5 clean"];
    script.run(&back);
    assert_eq!(away(&script), []);
    script.run(&["2 publish t x sid=1"]);
    assert_eq!(away(&script), [("bridge:cloud".to_owned(), Reason::ProtocolError)]);
    // Others who are turned away are counted alone.
    script.run(&["open 3 port", "3 connect serial:x v5 clean", "stop"]);
    assert_eq!(away(&script).len(), 1);
}

/// Many who have one subscription, and what one more looks at as he makes it, again and twice, and ends it.
fn looked(filter: &str) -> (u64, u64) {
    let mut script = Script::new(memory(1_000_000_000));
    for slot in 1..=500 {
        script.run(&[&format!("open {slot}"), &format!("{slot} connect c{slot} v5 clean")]);
        script.run(&[&format!("{slot} subscribe 1 {filter} q1")]);
    }
    let before = (script.broker.groups.looks(), LOOKED.get());
    script.run(&["open 501", "501 connect late v5 clean", &format!("501 subscribe 1 {filter} q2")]);
    script.run(&[&format!("501 subscribe 1 {filter}, {filter} q1"), &format!("501 unsubscribe 2 {filter}")]);
    script.run(&["250 lost"]);
    (script.broker.groups.looks() - before.0, LOOKED.get() - before.1)
}

#[test]
fn a_filter_that_many_have_is_subscribed_to_without_a_look_at_each() {
    for filter in ["t", "t/+", "$share/g/t"] {
        let (members, subscribers) = looked(filter);
        assert!(
            members <= 10 && subscribers <= 100,
            "{filter}: {members} members, {subscribers} subscribers"
        );
    }
}

#[test]
fn a_group_wants_the_highest_qos_of_its_members() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect pub v5 clean"]);
    for (slot, qos) in [(2, "q0"), (3, "q2"), (4, "q1")] {
        script.run(&[&format!("open {slot}"), &format!("{slot} connect c{slot} v5 clean")]);
        script.run(&[&format!("{slot} subscribe 1 $share/g/t {qos}")]);
    }
    let mut sent = |events: &[&str]| {
        script.run(events);
        script.run(&["--", "1 publish t x q2 id=1 ; pubrel 1"]);
        script.said.iter().filter(|line| !line.starts_with('1')).cloned().collect::<Vec<_>>()
    };
    assert_eq!(sent(&["2 lost"]), ["3 < publish t x q2 id=1"]);
    assert_eq!(sent(&["3 subscribe 2 $share/g/t q0", "3 pubrec 1 ; pubcomp 1"]), ["4 < publish t x q1 id=1"]);
    assert_eq!(sent(&["4 puback 1", "4 unsubscribe 2 $share/g/t"]), ["3 < publish t x"]);
    assert_eq!(sent(&["3 lost"]), Vec::<String>::new());
    assert!(script.broker.router.is_empty());
}

/// So many sessions of which so many messages wait on the disk, and all come at once.
const CROWD: u32 = 100;
const WAITING: usize = 10;

/// They have come, and have what the store can bring them before its next commit: so many rows in all, and in the
/// answers to questions that were open at once.
fn come_at_once(script: &mut Script, qos: &str, bytes: usize) -> (usize, usize) {
    script.broker.tighten(1, 64);
    script.run(&["open 0", "0 connect pub v5 clean"]);
    for slot in 1..=CROWD {
        script.run(&[&format!("open {slot}"), &format!("{slot} connect c{slot}"), "commit"]);
        script.run(&[&format!("{slot} subscribe 1 t {qos}"), "commit", &format!("{slot} lost"), "commit"]);
    }
    let payload = "x".repeat(bytes);
    for packet_id in 1..=WAITING {
        script.run(&[&format!("0 publish t {payload} {qos} id={packet_id}"), "commit"]);
        script.run(&[&format!("0 pubrel {packet_id}"), "commit"]);
    }
    script.run(&["--"]);
    for slot in 1..=CROWD {
        script.run(&[&format!("open {slot}"), &format!("{slot} connect c{slot}")]);
    }
    script.run(&["commit"]);
    let (mut rows, mut most) = (0, 0);
    for _ in 0..2 * WAITING {
        script.run(&["ask"]);
        rows += script.rows_in_answers();
        most = most.max(script.rows_in_answers());
        script.run(&["rows"]);
    }
    (rows, most)
}

#[test]
fn what_waits_on_the_disk_for_many_is_not_in_memory_at_once() {
    for (most, bytes, qos) in [
        (1_000_000, 4_000, "q1"),
        (1_000_000, 4_000, "q2"),
        (4_000_000, 20_000, "q1"),
        (4_000_000, 20_000, "q2"),
    ] {
        let mut script = Script::new(memory(most));
        let (rows, at_once) = come_at_once(&mut script, qos, bytes);
        let one_each = CROWD as usize * bytes;
        assert!(at_once * bytes <= one_each + most / 6, "{qos}: {at_once} rows of {bytes} bytes");
        let leased = script.broker.memory_held();
        assert!(qos == "q1" || leased > rows * bytes, "{leased} for {rows} rows");
        // They get all of it, one after the other.
        let mut got = 0;
        for _ in 0..10 * WAITING {
            let said = std::mem::take(&mut script.said);
            for line in said.iter().filter(|line| line.contains(" < pub")) {
                let mut words = line.split(' ');
                let (slot, what) = (words.next().unwrap(), words.nth(1).unwrap());
                let packet_id = line.rsplit("id=").next().unwrap();
                let answer = match (what, qos) {
                    ("publish", "q1") => format!("{slot} puback {packet_id}"),
                    ("publish", _) => format!("{slot} pubrec {packet_id}"),
                    _ => format!("{slot} pubcomp {}", words.next().unwrap()),
                };
                got += usize::from(what == "publish");
                script.run(&[&answer]);
            }
            script.run(&["commit", "rows"]);
        }
        assert_eq!(got, CROWD as usize * WAITING, "{qos}");
        assert!(script.broker.memory_held() < 100_000, "{}", script.broker.memory_held());
    }
}
