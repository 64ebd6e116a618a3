//! A gateway whose database cannot be opened: the field is served, and nobody is told a lie.
//!
//! Subscribers that are there get everything; what somebody absent may want is not acknowledged, and a
//! session that outlives its connection has to wait for the store.

use std::fs;
use std::os::unix::net::UnixDatagram;

use tidegate::codec::{Packet, QoS, Reason};

use crate::program;
use crate::stand::{Client, Gateway, Options};

#[test]
fn a_disk_that_comes_late_finds_nothing_acknowledged_that_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let systemd = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let notify = format!("NOTIFY_SOCKET={}", folder.path().join("notify").display());
    // In the way of the data directory, as an empty mount point of another owner would be.
    fs::write(folder.path().join("data"), b"in the way").unwrap();
    let mut gateway = Gateway::start_under(program(), folder.path(), "", &["env", &notify]);
    assert_serves_without_a_store(&gateway);

    fs::remove_file(folder.path().join("data")).unwrap();
    // The house starts anew, and with it its listener on a free port.
    let status = gateway.until("the store", |status| {
        status["store"]["trouble"].is_null() && status["listeners"][0]["open"] == true
    });
    let address = status["listeners"][0]["address"].as_str().unwrap();
    let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let mut absent = Client::connect(port, &Options::kept("absent"));
    absent.subscribe("t/#", QoS::AtLeastOnce);
    absent.disconnect();
    Client::connect(port, &Options::new("publisher")).publish_acknowledged("t/x", "kept");
    assert_eq!(&*Client::connect(port, &Options::kept("absent")).message().payload, b"kept");

    assert!(gateway.stop().success());
    assert_eq!(told(&systemd), ["READY=1", "READY=1", "STOPPING=1"]);
}

#[test]
fn a_database_of_a_newer_program_is_left_alone_and_the_field_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(program(), folder.path(), "");
    assert!(gateway.stop().success());
    let path = folder.path().join("data/tidegate.db");
    // Its header alone could be a flipped bit: a newer program has a ledger of its own.
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA user_version = 99; DELETE FROM state; DELETE FROM mirror").unwrap();
    drop(newer);
    let before = fs::read(&path).unwrap();
    gateway.start_again();
    let status = gateway.status();
    let trouble = status["store"]["trouble"].as_str().unwrap_or_default();
    assert!(trouble.contains("its version is 99"), "{status}");
    assert_serves_without_a_store(&gateway);
    assert!(gateway.stop().success());
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_start_that_salvages_a_damaged_database_tells_systemd_that_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(program(), folder.path(), "");
    let mut absent = Client::connect(gateway.port(), &Options::kept("absent"));
    absent.subscribe("t/#", QoS::AtLeastOnce);
    absent.disconnect();
    Client::connect(gateway.port(), &Options::new("publisher")).publish_acknowledged("t/x", "kept");
    assert!(gateway.stop().success());
    drop(gateway);
    let path = folder.path().join("data/tidegate.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();

    let systemd = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let notify = format!("NOTIFY_SOCKET={}", folder.path().join("notify").display());
    let mut gateway = Gateway::start_under(program(), folder.path(), "", &["env", &notify]);
    assert_eq!(&*Client::connect(gateway.port(), &Options::kept("absent")).message().payload, b"kept");
    let status = gateway.status();
    let aside = status["store"]["put_aside_as"].as_str().unwrap_or_default();
    assert!(fs::exists(aside).unwrap(), "{status}");
    assert_eq!(status["warnings"].as_array().map_or(0, Vec::len), 0, "it is said once");
    assert!(gateway.stop().success());
    let told = told(&systemd);
    let ready = told.iter().position(|word| word == "READY=1").expect("it was ready");
    assert!(ready > 0, "{told:?}");
    assert!(told[..ready].iter().all(|word| word == "EXTEND_TIMEOUT_USEC=60000000"), "{told:?}");
    assert_eq!(told[ready..], ["READY=1", "STOPPING=1"]);
}

fn assert_serves_without_a_store(gateway: &Gateway) {
    let refused = Client::try_connect(gateway.port(), &Options::kept("absent")).err();
    assert_eq!(refused, Some(Reason::ServerUnavailable));
    let mut subscriber = Client::connect(gateway.port(), &Options::new("subscriber"));
    subscriber.subscribe("t/#", QoS::AtLeastOnce);
    let mut publisher = Client::connect(gateway.port(), &Options::new("publisher"));
    for (payload, qos) in
        [("once", QoS::AtMostOnce), ("first", QoS::AtLeastOnce), ("second", QoS::AtLeastOnce)]
    {
        publisher.publish("t/x", payload, qos);
        assert_eq!(&*subscriber.message().payload, payload.as_bytes());
    }
    publisher.send(&Packet::PingReq);
    assert_eq!(publisher.next(), Some(Packet::PingResp), "no PUBACK came before");
}

/// All that systemd was told, word by word.
fn told(systemd: &UnixDatagram) -> Vec<String> {
    systemd.set_nonblocking(true).unwrap();
    let mut words = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(length) = systemd.recv(&mut buffer) {
        words.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
    }
    words
}
