//! Who comes in, how often, and what he may then do: seen by clients that others wrote and by ours.
//!
//! What a line of the ACL file means is held against mosquitto in `rules`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate::codec::{QoS, Reason, Version};

use crate::clients::{run, subscribe, text};
use crate::program;
use crate::stand::{Client, Gateway, Options, wait_for};

const RULES: &str = "user anna\ntopic read a/#\ntopic write a/out\n\nuser boss\ntopic readwrite #\n";

/// Passwords and rules in the folder, and what configures them.
fn secured(folder: &Path) -> String {
    for (user, password) in [("anna", "ebb"), ("boss", "flow")] {
        set_password(&folder.join("passwd"), user, password);
    }
    fs::write(folder.join("acl"), RULES).unwrap();
    let (passwords, rules) = (folder.join("passwd"), folder.join("acl"));
    format!("allow_anonymous = false\n[auth]\npassword_file = {passwords:?}\nacl_file = {rules:?}\n")
}

fn set_password(file: &PathBuf, user: &str, password: &str) {
    let how = if file.exists() { "-b" } else { "-bc" };
    let output =
        Command::new(program()).args(["passwd", how]).arg(file).args([user, password]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn as_user(id: &str, user: &str, password: &str) -> Options {
    Options { login: Some((user.into(), password.into())), ..Options::new(id) }
}

#[test]
fn mosquittos_clients_get_what_the_acl_grants_and_hear_what_it_denies() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), &secured(folder.path()));
    let port = gateway.port().to_string();
    let (anna, boss) = (["-u", "anna", "-P", "ebb"], ["-u", "boss", "-P", "flow"]);
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        let base = ["-p", &port, "-V", version, "-q", "1"];
        let reading = [&base[..], &anna, &["-t", "#", "-v", "-C", "2", "-W", "60"]].concat();
        let subscriber = subscribe(&gateway, &reading);
        for topic in ["a/1", "b/1", "a/2"] {
            run("mosquitto_pub", &[&base[..], &boss, &["-t", topic, "-m", version]].concat());
        }
        let got = text(subscriber.wait_with_output().unwrap());
        assert_eq!(got, format!("a/1 {version}\na/2 {version}\n"));

        let denied = [&base[..], &anna, &["-t", "a/1", "-m", "no"]].concat();
        let output = Command::new("mosquitto_pub").args(&denied).output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.contains("Not authorized"), version == "mqttv5", "{version}: {said}");
    }
    let broker = gateway.status()["broker"].clone();
    assert_eq!((&broker["not_accepted"], &broker["dropped"]["denied"]), (&1.into(), &2.into()));
}

#[test]
fn paho_gets_what_the_acl_grants_and_hears_what_it_denies() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), &secured(folder.path()));
    let top = env!("CARGO_MANIFEST_DIR");
    let python = std::env::var("TIDEGATE_PYTHON").unwrap_or_else(|_| format!("{top}/target/venv/bin/python"));
    let output = Command::new(&python)
        .arg(format!("{top}/tests/appliance/paho_access.py"))
        .arg(gateway.port().to_string())
        .output()
        .unwrap_or_else(|error| panic!("{python}: {error}; tests/setup makes it"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_denied_publish_that_was_acknowledged_stands_in_the_routes_line_also_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let bridge = "[[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:1\"]\n[[bridge.forward]]\nfilter = \"up/#\"\n";
    let configuration = secured(folder.path()) + bridge;
    let mut gateway = Gateway::start(program(), folder.path(), &configuration);
    let mut anna = Client::connect(gateway.port(), &as_user("1", "anna", "ebb"));
    let mut boss = Client::connect(gateway.port(), &as_user("2", "boss", "flow"));
    for number in 0..3 {
        anna.publish_acknowledged("up/x", format!("denied {number}"));
    }
    for number in 0..2 {
        boss.publish_acknowledged("up/x", format!("allowed {number}"));
    }
    let adds_up = |gateway: &Gateway| {
        let route = gateway.route("up/#");
        let figures = ["received", "queued", "delivered"].map(|name| route[name].as_u64().unwrap());
        figures == [5, 2, 0] && route["dropped"]["denied"] == 3
    };
    wait_for("the counts", || adds_up(&gateway).then_some(()));
    gateway.kill();
    gateway.start_again();
    assert!(adds_up(&gateway), "{}", gateway.route("up/#"));
}

#[test]
fn a_crowd_costs_one_comparison_and_a_new_password_counts_soon() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), &secured(folder.path()));
    let connect = |number: usize, password: &str| {
        Client::try_connect(gateway.port(), &as_user(&number.to_string(), "boss", password)).map(drop)
    };
    for number in 0..40 {
        connect(number, "flow").expect("it fits");
    }
    let engine = gateway.status()["engine"].clone();
    assert_eq!((&engine["passwords_compared"], &engine["passwords_remembered"]), (&1.into(), &39.into()));
    set_password(&folder.path().join("passwd"), "boss", "spring");
    // Who logs in has the file looked at; it counts a second later.
    assert_eq!(connect(40, "flow"), Ok(()));
    wait_for("the new password", || gateway.log().contains("the new passwords are in force").then_some(()));
    assert_eq!(connect(41, "flow"), Err(Reason::BadUserNameOrPassword));
    assert_eq!(connect(42, "spring"), Ok(()));
}

#[test]
fn who_tries_wrong_passwords_is_not_compared_for_a_while_and_known_clients_come_in() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = secured(folder.path()) + "[limits]\nmax_login_failures = \"3/h\"\n";
    let gateway = Gateway::start(program(), folder.path(), &configuration);
    let connect = |version, password: &str| {
        let options = Options { version, ..as_user("x", "boss", password) };
        Client::try_connect(gateway.port(), &options).map(drop)
    };
    assert_eq!(connect(Version::V5, "flow"), Ok(()));
    for guess in ["a", "b", "c"] {
        assert_eq!(connect(Version::V5, guess), Err(Reason::BadUserNameOrPassword));
    }
    assert_eq!(connect(Version::V5, "d"), Err(Reason::ConnectionRateExceeded));
    assert_eq!(connect(Version::V311, "e"), Err(Reason::ServerUnavailable));
    assert_eq!(connect(Version::V5, "flow"), Ok(()));
    let engine = gateway.status()["engine"].clone();
    assert_eq!((&engine["passwords_compared"], &engine["over_login_failures"]), (&4.into(), &2.into()));
}

#[test]
fn one_too_many_and_one_too_soon_are_told_so_and_counted() {
    for (limits, listener, counter, reason) in [
        ("max_connections_per_address = 2", "", "over_address_connections", Reason::QuotaExceeded),
        ("max_connect_rate = \"2/h\"", "", "over_connect_rate", Reason::ConnectionRateExceeded),
        ("", "max_connections = 2", "over_listener_connections", Reason::QuotaExceeded),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let configuration = format!("{listener}\n[limits]\n{limits}\n");
        let gateway = Gateway::start(program(), folder.path(), &configuration);
        let connect =
            |id: &str, version| Client::try_connect(gateway.port(), &Options { version, ..Options::new(id) });
        let first = connect("1", Version::V5).expect("one");
        let _second = connect("2", Version::V311).expect("two");
        assert_eq!(connect("3", Version::V5).err(), Some(reason), "{counter}");
        assert_eq!(connect("4", Version::V311).err(), Some(Reason::ServerUnavailable), "{counter}");
        assert_eq!(gateway.status()["engine"][counter], 2, "{counter}");
        if reason == Reason::QuotaExceeded {
            first.disconnect();
            wait_for("the free place", || connect("5", Version::V5).ok());
        }
    }
}

#[test]
fn a_mount_point_is_a_house_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let site = "[[listener]]\nname = \"site\"\nbind = \"127.0.0.1:0\"\nmount_point = \"barn-2/\"\n";
    let gateway = Gateway::start(program(), folder.path(), site);
    let lan = gateway.port().to_string();
    let address = gateway.status()["listeners"][1]["address"].as_str().unwrap().to_owned();
    let site = address.rsplit(':').next().unwrap().to_owned();
    let sub = |port: &str| {
        subscribe(&gateway, &["-p", port, "-t", "#", "-T", "tidegate/#", "-v", "-C", "2", "-W", "60"])
    };
    let (inside, outside) = (sub(&site), sub(&lan));
    for (port, topic) in [(&site, "y"), (&lan, "barn-2/x")] {
        run("mosquitto_pub", &["-p", port, "-t", topic, "-m", "hi"]);
    }
    run("mosquitto_pub", &["-p", &lan, "-t", "elsewhere", "-m", "hi"]);
    assert_eq!(text(inside.wait_with_output().unwrap()), "y hi\nx hi\n");
    assert_eq!(text(outside.wait_with_output().unwrap()), "barn-2/y hi\nbarn-2/x hi\n");
}

#[test]
fn a_client_that_publishes_too_fast_is_slowed_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), "[limits]\nmax_publish_rate = \"50/s\"\n");
    let mut reader = Client::connect(gateway.port(), &Options::new("reader"));
    reader.subscribe("fast", QoS::AtMostOnce);
    let mut writer = Client::connect(gateway.port(), &Options::new("writer"));
    for number in 0..150 {
        writer.publish("fast", number.to_string(), QoS::AtMostOnce);
    }
    for number in 0..150 {
        assert_eq!(reader.message().payload, number.to_string());
    }
    assert!(gateway.status()["broker"]["slowed"].as_u64().unwrap() > 0);
}

#[test]
fn a_hangup_brings_new_rules_to_who_is_connected_and_a_broken_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), &secured(folder.path()));
    let hang_up = || {
        let output = Command::new("kill").args(["-HUP", &gateway.pid().to_string()]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let mut anna = Client::connect(gateway.port(), &as_user("1", "anna", "ebb"));
    let mut boss = Client::connect(gateway.port(), &as_user("2", "boss", "flow"));
    anna.subscribe("a/#", QoS::AtLeastOnce);
    let reaches = |boss: &mut Client, anna: &mut Client, topic: &str| {
        boss.publish_acknowledged(topic, "x");
        boss.publish_acknowledged("a/always", "end");
        let got = anna.message().topic.to_string();
        got == topic && anna.message().topic == "a/always"
    };
    assert!(reaches(&mut boss, &mut anna, "a/1"));

    let acl = folder.path().join("acl");
    fs::write(&acl, "user anna\ntopic read a/always\n\nuser boss\ntopic readwrite #\n").unwrap();
    hang_up();
    wait_for("the new rules", || gateway.log().contains("the new access rules are in force").then_some(()));
    assert!(!reaches(&mut boss, &mut anna, "a/1"));

    fs::write(&acl, "nonsense\n").unwrap();
    hang_up();
    hang_up();
    wait_for("the complaint", || gateway.log().contains("line 1: ").then_some(()));
    // Who logs in has the file looked at too, and it is not told again.
    Client::connect(gateway.port(), &as_user("3", "boss", "flow"));
    assert_eq!(gateway.log().matches("line 1: ").count(), 1, "{}", gateway.log());
    let status = gateway.until("a word of it", |status| status["warnings"] != serde_json::json!([]));
    let warning = status["warnings"][0].as_str().unwrap();
    assert!(warning.contains(&format!("{}: line 1: ", acl.display())), "{warning}");
    assert!(!reaches(&mut boss, &mut anna, "a/1"));

    fs::write(&acl, RULES).unwrap();
    Client::connect(gateway.port(), &as_user("4", "boss", "flow"));
    let again = "the new access rules are in force";
    wait_for("the rules of before", || (gateway.log().matches(again).count() == 2).then_some(()));
    assert!(reaches(&mut boss, &mut anna, "a/1"), "soon after somebody logs in");
    gateway.until("nothing amiss", |status| status["warnings"] == serde_json::json!([]));
}
