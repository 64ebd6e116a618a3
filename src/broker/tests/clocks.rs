//! Expiry of messages and sessions, and delayed wills, over restarts and whatever the wall clock does.
//!
//! `off` cuts the power right after a commit, `unset` has the machine come up in 1970, `set` sets its clock then,
//! and `step` moves one that was set.

use super::script::check;

const YEARS: i64 = 10 * 365 * 86_400;

/// A client with a will that waits for a minute in a session of two, gone for 20 seconds.
const WILL: &[&str] = &[
    "open 1",
    "1 connect a v5 expiry=120 delay=60 will=w:gone:retain",
    "commit",
    "1 lost",
    "after 20000",
    "commit",
];

fn with(before: &[&str], script: &[&str], expected: &str) {
    check(&[before, &["--"], script].concat(), expected);
}

const PUBLISHED: &str = "write message 1 w gone for [] retained
    write session a r1 ended";

#[test]
fn a_delayed_will_is_published_at_its_time_over_a_restart() {
    with(WILL, &["off 10000", "after 29000"], "");
    with(WILL, &["off 10000", "after 30000"], PUBLISHED);
    with(WILL, &["crash", "after 39999"], "");
    with(WILL, &["crash", "after 40000"], PUBLISHED);
}

#[test]
fn a_will_whose_time_came_while_the_power_was_off_is_published_at_the_start() {
    with(WILL, &["off 40000"], PUBLISHED);
}

#[test]
fn a_will_is_taken_back_by_who_comes_in_time_after_a_restart() {
    with(
        WILL,
        &["off 10000", "open 1", "1 connect a v5 expiry=120", "commit", "after 100000"],
        "write session a r1
         1 < connack present keep=64800",
    );
}

#[test]
fn without_a_clock_the_time_off_counts_once_it_is_set() {
    with(WILL, &["off 86400000 unset", "after 39000"], "");
    with(WILL, &["off 86400000 unset", "after 40000"], PUBLISHED);
    with(WILL, &["off 35000 unset", "after 1000", "set", "after 3000"], "");
    with(WILL, &["off 35000 unset", "after 1000", "set", "after 4000"], PUBLISHED);
    with(WILL, &["off 70000 unset", "after 1000", "set"], PUBLISHED);
    // Both are over: the session's end publishes the will that is left.
    with(
        WILL,
        &["off 86400000 unset", "after 1000", "set"],
        "write message 1 w gone for [] retained
         write lapsed r1",
    );
}

#[test]
fn a_step_of_the_clock_moves_no_will_and_no_session() {
    for step in [YEARS, -YEARS, 3_600, -3_600] {
        let step = format!("step {step}");
        with(WILL, &[&step, "after 39000"], "");
        with(WILL, &[&step, "after 40000"], PUBLISHED);
        with(WILL, &["after 50000", "--", &step, "after 49000"], "");
        with(WILL, &["after 50000", "commit", "--", &step, "after 50000"], "write lapsed r1");
    }
}

#[test]
fn a_session_ends_at_its_time_over_restarts() {
    let away = &["open 1", "1 connect a v5 expiry=100", "commit", "1 lost", "after 50000", "commit"];
    let removed = "write lapsed r1";
    with(away, &["off 40000", "after 9000"], "");
    with(away, &["off 40000", "after 10000"], removed);
    with(away, &["off 20000", "after 1000", "off 20000", "after 8000"], "");
    with(away, &["off 20000", "after 1000", "off 20000", "after 9000"], removed);
    with(away, &["off 50000"], removed);
    with(away, &["off 86400000 unset", "after 49000"], "");
    with(away, &["off 86400000 unset", "after 1000", "set"], removed);
    with(away, &["off 20000 unset", "after 1000", "set", "after 28000"], "");
    with(away, &["off 20000 unset", "after 1000", "set", "after 29000"], removed);
    // A clock that was never set tells nothing of the first time off; of the second, the whole.
    with(away, &["off 20000 unset", "after 1000", "off 20000", "after 8000"], "");
    with(away, &["off 20000 unset", "after 1000", "off 20000", "after 9000"], removed);
}

#[test]
fn a_session_that_left_without_a_clock_does_not_age_when_it_is_set() {
    with(
        &[
            "off 86400000 unset",
            "open 1",
            "1 connect a v5 expiry=100",
            "commit",
            "1 lost",
            "after 50000",
            "commit",
        ],
        &["set", "after 49000"],
        "",
    );
    let away = &[
        "off 86400000 unset",
        "open 1",
        "1 connect a v5 expiry=100",
        "commit",
        "1 lost",
        "after 50000",
        "commit",
        "set",
        "after 10000",
    ];
    with(away, &["after 39000"], "");
    with(away, &["after 40000"], "write lapsed r1");
    with(away, &["off 10000", "after 29000"], "");
    with(away, &["off 10000", "after 30000"], "write lapsed r1");
}

#[test]
fn who_was_connected_when_the_power_failed_is_away_since_then() {
    let here = &["open 1", "1 connect a v5 expiry=3600", "commit", "after 1000"];
    // The last commit may have been ten minutes before the power failed.
    with(here, &["off 3000000", "after 1199000"], "write ended r1");
    with(here, &["off 3000000", "after 1200000"], "write ended r1\nwrite lapsed r1");
    with(here, &["off 86400000"], "write ended r1\nwrite lapsed r1");
    with(here, &["off 86400000 unset", "after 3599000"], "write ended r1");
}

// [MQTT5-4.1.0-2]
#[test]
fn a_session_that_a_power_cut_ended_does_not_begin_anew_at_every_start() {
    let here = &[
        "open 1",
        "1 connect a v5 expiry=100",
        "commit",
        "after 1000",
        "off 10000",
        "after 60000",
        "commit",
    ];
    with(here, &["off 10000", "after 29000"], "");
    with(here, &["off 10000", "after 30000"], "write lapsed r1");
    let come = "1 connect a v5 expiry=1000 delay=100 will=w:gone:retain";
    let will = &["open 1", come, "commit", "after 1000", "off 10000", "after 60000", "commit"];
    with(will, &["off 10000", "after 29000"], "");
    with(will, &["off 10000", "after 30000"], PUBLISHED);
}

/// A subscriber that is away, and a message of 60 seconds for it.
const QUEUED: &[&str] = &[
    "open 2",
    "2 connect sub v5 expiry=100000",
    "commit",
    "2 subscribe 1 t q1",
    "commit",
    "2 lost",
    "commit",
    "open 1",
    "1 connect pub v5 clean",
    "1 publish t x q1 id=1 expiry=60",
    "1 publish r y q1 id=2 expiry=60 retain",
    "commit",
    "after 10000",
];

fn coming(clock: &[&str], expected: &str) {
    let come = &["open 2", "2 connect sub v5 expiry=100000", "commit", "rows", "2 subscribe 2 r", "commit"];
    let script = [QUEUED, clock, &["--"], come].concat();
    check(&script, &format!("write session sub r1 [t]\n2 < connack present keep=64800\n{expected}"));
}

// [MQTT5-3.3.2-6]
#[test]
fn the_expiry_that_a_message_carries_is_what_is_left_of_it() {
    let left = |seconds: u32| {
        format!(
            "2 < publish t x q1 id=1 expiry={seconds}
             write session sub r1 [t, r]
             2 < suback 2 0x00
             2 < publish r y retain expiry={seconds}"
        )
    };
    // After a restart it may have been sent before.
    let again = |seconds: u32| left(seconds).replace("id=1", "id=1 dup");
    coming(&[], &left(50));
    for step in [YEARS, -YEARS, 40, -40] {
        coming(&[&format!("step {step}"), "after 5000"], &left(45));
    }
    let asked = |seconds: u32| format!("read r1 after 0 limit 20\n{}", again(seconds));
    coming(&["crash", "after 5000"], &asked(45));
    coming(&["off 20000", "after 5000"], &asked(25));
    coming(&["off 20000 unset", "after 5000"], &asked(45));
    coming(&["off 20000 unset", "after 5000", "set", "after 1000"], &asked(24));
    coming(&["off 20000 unset", "after 5000", "off 10000", "after 1000"], &asked(14));
}

#[test]
fn a_message_whose_time_came_while_the_power_was_off_is_dropped() {
    let gone = "read r1 after 0 limit 20
         write dropped r1/1 expired
         write session sub r1 [t, r]
         2 < suback 2 0x00
         write unretained r";
    coming(&["off 50000"], gone);
    coming(&["off 50000 unset", "after 1000", "set"], gone);
}

#[test]
fn a_reading_without_a_clock_is_mended_for_who_gets_it_once_that_is_set() {
    // The machine came up a day later and believes that no time has passed.
    let believed = r#"{"v":1,"t":1800000060.001,"q":"no-clock"}"#;
    let mended = r#"{"v":1,"t":1800086460.0,"q":"good"}"#;
    let publish = format!("1 publish m {believed} q1 id=1 retain");
    let before = [
        "off 86400000 unset",
        "after 10000",
        "open 1 port user=modbus:line-1",
        "1 connect modbus:line-1 v5 clean",
    ];
    let script = |publisher: &[&str], clock: &[&str], expected: &str| {
        let come = ["--", "open 2", "2 connect sub clean", "2 subscribe 1 m"];
        let all = [publisher, &[&publish, "commit"], clock, &come].concat();
        check(&all, &format!("2 < connack\n2 < suback 1 0x00\n2 < publish m {expected} retain"));
    };
    script(&before, &[], believed);
    script(&before, &["after 5000", "set"], mended);
    script(&before, &["after 5000", "set", "after 5000"], mended);
    // What is no reading of ours is nobody's to mend.
    let foreign = ["off 86400000 unset", "after 10000", "open 1", "1 connect plc v5 clean"];
    script(&foreign, &["after 5000", "set"], believed);
}
