//! When a commit starts, by counts and not by clocks.
//!
//! A publisher with a window of one waits for a sync and never for a timer; with the flash budget spent
//! it waits for the longest interval; what gathers while a sync is held open goes with one more commit.

use tidegate::codec::{Packet, QoS};

use crate::program;
use crate::stand::{Client, Gateway, Options, monotonic};

#[test]
fn a_publisher_with_a_window_of_one_makes_one_commit_a_message_and_waits_for_no_timer() {
    let folder = tempfile::tempdir().unwrap();
    // With a timer in its way a hundred messages would take most of two hours.
    let gateway = Gateway::start(
        program(),
        folder.path(),
        "[store]\ncommit_interval = \"1m\"\ncommit_interval_max = \"1m\"\n",
    );
    let mut absent = Client::connect(gateway.port(), &Options::kept("absent"));
    absent.subscribe("one/#", QoS::AtLeastOnce);
    absent.disconnect();
    let mut client = Client::connect(gateway.port(), &Options::new("publisher"));
    let before = commits(&gateway);
    for number in 0..100 {
        client.publish_acknowledged("one/x", number.to_string());
    }
    assert_eq!(commits(&gateway) - before, 100);
}

#[test]
fn with_the_flash_budget_spent_a_commit_waits_for_the_longest_interval() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(
        program(),
        folder.path(),
        "[store]\nflash_budget = \"1B\"\ncommit_interval = \"20ms\"\ncommit_interval_max = \"1s\"\n",
    );
    let mut absent = Client::connect(gateway.port(), &Options::kept("absent"));
    absent.subscribe("one/#", QoS::AtLeastOnce);
    absent.disconnect();
    let mut client = Client::connect(gateway.port(), &Options::new("publisher"));
    client.publish_acknowledged("one/x", "the first may find a commit under way");
    let (before, start) = (commits(&gateway), monotonic());
    for number in 0..3 {
        client.publish_acknowledged("one/x", number.to_string());
    }
    // Three acknowledgements need three intervals, whatever else the machine does.
    let made = commits(&gateway) - before;
    assert!((3..=4).contains(&made), "{made} commits");
    assert!(start.elapsed() >= std::time::Duration::from_millis(2_900), "{:?}", start.elapsed());
}

#[test]
fn one_burst_of_a_window_makes_few_commits() {
    let folder = tempfile::tempdir().unwrap();
    let gateway =
        Gateway::start(program(), folder.path(), "[store]\ncommit_messages = 8192\ncommit_bytes = \"4MB\"\n");
    let mut absent = Client::connect(gateway.port(), &Options::kept("absent"));
    absent.subscribe("burst/#", QoS::AtLeastOnce);
    absent.disconnect();
    let mut client = Client::connect(gateway.port(), &Options::new("publisher"));
    let before = commits(&gateway);
    for number in 0..500 {
        client.publish("burst/x", number.to_string(), QoS::AtLeastOnce);
    }
    for _ in 0..500 {
        let Some(Packet::PubAck(_)) = client.next() else { panic!("PUBACK") };
    }
    let made = commits(&gateway) - before;
    println!("measured: 500 messages in one burst: {made} commits");
    assert!(made <= 100, "{made} commits for one burst");
}

fn commits(gateway: &Gateway) -> u64 {
    gateway.status()["store"]["commits"].as_u64().unwrap()
}
