//! Scripts of `$SYS`.
//!
//! Who reads it, what it says, and that a house in which nobody looks does nothing for it.

use super::super::*;
use super::script::{Script, check, check_with, config, with_route};
use crate::record::{DropReason, Policy, ReaderId, ReaderStatus, Survey};

#[test]
fn who_subscribes_reads_the_figures_of_that_moment_as_retained() {
    check(
        &[
            "open 1",
            "1 connect a clean",
            "open 2",
            "2 connect b clean",
            "--",
            "1 subscribe 1 $SYS/broker/clients/connected,$SYS/broker/version",
        ],
        &format!(
            "1 < suback 1 0x00 0x00
             1 < publish $SYS/broker/clients/connected 2 retain
             1 < publish $SYS/broker/version tidegate_version_{} retain",
            env!("CARGO_PKG_VERSION")
        )
        .replace("tidegate_version_", "tidegate version "),
    );
}

#[test]
fn what_has_changed_follows_every_ten_seconds() {
    check(
        &[
            "open 1",
            "1 connect a clean",
            "1 subscribe 1 $SYS/broker/clients/+",
            "open 2",
            "2 connect b clean",
            "--",
            "after 9999",
            "after 1",
            "2 disconnect",
            "after 10000",
            "after 10000",
        ],
        "1 < publish $SYS/broker/clients/total 2
         1 < publish $SYS/broker/clients/connected 2
         1 < publish $SYS/broker/clients/active 2
         1 < publish $SYS/broker/clients/maximum 2
         close 2
         1 < publish $SYS/broker/clients/total 1
         1 < publish $SYS/broker/clients/connected 1
         1 < publish $SYS/broker/clients/active 1",
    );
}

#[test]
fn where_nobody_reads_there_is_nothing_to_wake_for() {
    let mut script = Script::new(config());
    // Past what was armed for its CONNECT.
    script.run(&["open 1", "1 connect a clean", "after 50000"]);
    assert_eq!(script.broker.deadline(), None);
    script.run(&["1 subscribe 1 $SYS/#"]);
    assert_eq!(script.broker.deadline(), Some(60_000));
    script.run(&["1 unsubscribe 2 $SYS/#", "after 10000"]);
    assert_eq!(script.broker.deadline(), None);
    script.run(&["1 subscribe 3 $share/g/$SYS/#", "after 10000"]);
    assert_eq!(script.broker.deadline(), Some(80_000));
}

#[test]
fn who_was_found_in_the_store_is_told_too() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a", "commit", "1 subscribe 1 $SYS/broker/clients/+ q1", "commit"]);
    script.run(&[
        "crash",
        "open 1",
        "1 connect a",
        "--",
        "commit",
        "open 2",
        "2 connect b clean",
        "after 10000",
    ]);
    let told = |count| format!("1 < publish $SYS/broker/clients/connected {count}");
    assert!(script.said.contains(&told(1)) && script.said.contains(&told(2)), "{:?}", script.said);
}

#[test]
fn nothing_of_it_is_written() {
    let mut script = Script::new(config());
    script.run(&[
        "open 1",
        "1 connect a",
        "commit",
        "1 subscribe 1 $SYS/# q2",
        "commit",
        "--",
        "after 10000",
    ]);
    assert!(
        script.said.iter().any(|line| line.contains("$SYS/broker/uptime 10 seconds")),
        "{:?}",
        script.said
    );
    assert!(!script.said.iter().any(|line| line.contains("write")), "{:?}", script.said);
}

#[test]
fn payloads_are_counted_in_bytes_both_ways() {
    check(
        &[
            "open 1",
            "1 connect a clean",
            "1 subscribe 1 t",
            "1 publish t hello",
            "1 publish u hello",
            "--",
            "1 subscribe 2 $SYS/broker/publish/bytes/+",
        ],
        "1 < suback 2 0x00
         1 < publish $SYS/broker/publish/bytes/received 10 retain
         1 < publish $SYS/broker/publish/bytes/sent 5 retain",
    );
}

#[test]
fn a_route_that_keeps_nothing_may_take_it_upstream() {
    let route = Route {
        reader: ReaderId(1),
        filter: "$SYS/broker/clients/connected".into(),
        store: false,
        name: "sys".into(),
    };
    let with = Config { routes: vec![route], ..config() };
    check_with(
        with,
        &["open 1", "1 connect a clean", "--", "after 10000"],
        "forward 0 $SYS/broker/clients/connected 1",
    );
}

#[test]
fn who_is_away_keeps_nobody_awake_and_is_served_again_when_he_comes() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a", "commit", "1 subscribe 1 $SYS/broker/uptime q1", "commit"]);
    script.run(&["1 lost", "commit", "after 50000"]);
    // What is left is the end of its session.
    assert!(script.broker.deadline().is_none_or(|due| due > 1_000_000));
    script.run(&["open 1", "1 connect a", "commit", "--", "after 10000"]);
    assert!(script.said.iter().any(|line| line.contains("60 seconds")), "{:?}", script.said);
}

#[test]
fn figures_are_retained_and_not_counted_as_dropped_where_memory_is_full() {
    let mut tight = config();
    tight.limits.max_memory = 4_000;
    let mut script = Script::new(tight);
    script.run(&["open 1", "1 connect a clean", "1 subscribe 1 $SYS/#", "after 10000", "--"]);
    script.run(&["1 subscribe 2 $SYS/broker/uptime"]);
    assert_eq!(script.broker.counters().dropped.values().sum::<u64>(), 0);
}

#[test]
fn the_store_s_figures_follow_when_it_has_said_them() {
    let mut script = Script::new(refusing());
    script.run(&["open 1", "1 connect a v5 clean", "full store", "1 publish up/x 1 q1 id=1", "--"]);
    script.run(&["1 subscribe 1 $SYS/broker/store/routes/#"]);
    assert!(script.effects.contains(&Effect::Survey), "the store is asked at once");
    script.run(&["--"]);
    let line = ReaderStatus {
        name: "cloud:up/#".into(),
        route: true,
        received: 9,
        delivered: 3,
        queued: 1,
        expired: 1,
        dropped: [(DropReason::QueueFull, 4)].into(),
        full: false,
    };
    let survey = Survey { routes: [(ReaderId(1), line)].into(), ..Survey::default() };
    script.handle(vec![Event::Surveyed(survey.clone())]);
    let told = |figure: &str| format!("1 < publish $SYS/broker/store/routes/cloud:up%2F%23/{figure}");
    let figures = [
        "received 9",
        "delivered 3",
        "queued 1",
        "expired 1",
        "dropped 4",
        "not_accepted 1",
        "dropped/queue_full 4",
    ];
    assert_eq!(script.said, figures.map(told));
    // What has not changed is not said again.
    script.run(&["--"]);
    script.handle(vec![Event::Surveyed(survey)]);
    assert_eq!(script.said, [""; 0]);
    script.run(&["after 10000"]);
    assert!(script.effects.contains(&Effect::Survey), "and again every ten seconds");
}

#[test]
fn routes_without_a_store_and_routes_of_before_have_their_figures_too() {
    let mut script = Script::new(with_route(true));
    script.run(&["open 1", "1 connect a v5 clean", "1 subscribe 1 $SYS/broker/store/#", "--"]);
    let line = |name: &str, reason| ReaderStatus {
        name: name.into(),
        received: 3,
        dropped: [(reason, 3)].into(),
        ..ReaderStatus::default()
    };
    script.handle(vec![Event::Surveyed(Survey {
        routes: [(ReaderId(9), line("cloud:old/#", DropReason::Purged))].into(),
        unstored: vec![line("cloud:live/#", DropReason::LinkDown)],
        ..Survey::default()
    })]);
    for figure in [
        "routes_gone/cloud:old%2F%23/received 3",
        "routes_gone/cloud:old%2F%23/dropped/purged 3",
        "routes/cloud:live%2F%23/received 3",
        "routes/cloud:live%2F%23/delivered 0",
        "routes/cloud:live%2F%23/queued 0",
        "routes/cloud:live%2F%23/not_accepted 0",
        "routes/cloud:live%2F%23/dropped 3",
        "routes/cloud:live%2F%23/dropped/link_down 3",
    ] {
        let line = format!("1 < publish $SYS/broker/store/{figure}");
        assert!(script.said.contains(&line), "{line}: {:#?}", script.said);
    }
    assert!(!script.said.iter().any(|line| line.contains("routes/cloud:old")), "{:#?}", script.said);
}

fn refusing() -> Config {
    let mut config = with_route(true);
    config.refusals.policy = Policy::Refuse;
    config
}

#[test]
fn the_house_s_own_ports_are_no_clients_there() {
    let mut script = Script::new(config());
    script.run(&[
        "open 3 port user=tidegate",
        "3 connect tidegate clean",
        "open 4 port user=modbus:line",
        "4 connect modbus:line",
        "commit",
        // Those of MQTT-SN are somebody outside.
        "open 5 port user=mote",
        "5 connect mote clean",
        "open 1",
        "1 connect a clean",
        "--",
        "1 subscribe 1 $SYS/broker/clients/+",
    ]);
    for (name, count) in [("total", 2), ("connected", 2), ("active", 2), ("maximum", 2), ("disconnected", 0)]
    {
        let line = format!("1 < publish $SYS/broker/clients/{name} {count} retain");
        assert!(script.said.contains(&line), "{line}: {:?}", script.said);
    }
}

#[test]
fn what_the_engine_drops_is_dropped_and_not_sent() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a clean", "1 subscribe 1 t"]);
    for _ in 0..10 {
        script.run(&["1 publish t four"]);
    }
    let unsent = Unsent { send_buffer: 1, memory: 2, too_large: 3, bytes: 24 };
    script.broker.carried(Carried { unsent, ..Carried::default() });
    script.run(&["--", "1 subscribe 1 $SYS/broker/publish/#"]);
    for line in ["messages/sent 4", "bytes/sent 16", "messages/dropped 6"] {
        let line = format!("1 < publish $SYS/broker/publish/{line} retain");
        assert!(script.said.contains(&line), "{line}: {:?}", script.said);
    }
    let dropped = script.broker.counters().dropped;
    let reasons = [(DropReason::SendBufferFull, 1), (DropReason::MemoryFull, 2), (DropReason::TooLarge, 3)];
    assert_eq!(dropped, reasons.into());
}
