//! When a commit starts, by counts and not by clocks.
//!
//! A publisher with a window of one waits for a sync and never for a timer; with the flash budget spent
//! it waits for company; what gathers while a sync is held open goes with one more commit.

use tidegate::codec::{Packet, QoS};

use crate::program;
use crate::stand::{Client, Gateway, Options};
use crate::sync::Sync;

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
fn with_the_flash_budget_spent_no_client_hastens_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    // Only the tenth message that waits makes a commit due: the interval is stretched to the longest.
    let gateway = Gateway::start(
        program(),
        folder.path(),
        "[store]\nflash_budget = \"1B\"\ncommit_messages = 10\ncommit_interval = \"20ms\"\ncommit_interval_max = \"1m\"\n",
    );
    let connect = |number| Client::connect(gateway.port(), &Options::new(&format!("publisher-{number}")));
    let mut clients: Vec<Client> = (0..10).map(connect).collect();
    // Before its first commit the store has written nothing, and so spent nothing.
    clients[0].publish_retained("one/first");
    assert!(matches!(clients[0].next(), Some(Packet::PubAck(_))));
    let before = commits(&gateway);
    for round in 1..=3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.publish_retained(&format!("one/{number}"));
        }
        for client in &mut clients {
            assert!(matches!(client.next(), Some(Packet::PubAck(_))));
        }
        assert_eq!(commits(&gateway) - before, round);
    }
}

#[test]
fn what_a_hundred_publishers_send_while_one_commit_syncs_goes_with_one_more() {
    let folder = tempfile::tempdir().unwrap();
    let sync = Sync::within(folder.path());
    let wrapper = sync.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let configuration = "[store]\ncommit_interval = \"1m\"\ncommit_interval_max = \"1m\"\n";
    let gateway = Gateway::start_under(program(), folder.path(), configuration, &wrapper);
    let mut absent = Client::connect(gateway.port(), &Options::kept("absent"));
    absent.subscribe("one/#", QoS::AtLeastOnce);
    absent.disconnect();
    let connect = |number| Client::connect(gateway.port(), &Options::new(&format!("publisher-{number}")));
    let mut clients: Vec<Client> = (0..100).map(connect).collect();
    // Takes with it what the absent one left behind.
    clients[0].publish_acknowledged("one/x", "before");
    let before = commits(&gateway);
    sync.hold();
    clients[0].publish("one/x", "0", QoS::AtLeastOnce);
    sync.wait_begun();
    for (number, client) in clients.iter_mut().enumerate().skip(1) {
        client.publish("one/x", number.to_string(), QoS::AtLeastOnce);
        client.send(&Packet::PingReq);
        // Its message is with the store, and not acknowledged.
        assert_eq!(client.next(), Some(Packet::PingResp));
    }
    sync.release();
    for client in &mut clients {
        assert!(matches!(client.next(), Some(Packet::PubAck(_))));
    }
    assert_eq!(commits(&gateway) - before, 2);
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
