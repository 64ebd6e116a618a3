//! Clients that others wrote.
//!
//! Debian's mosquitto_pub and mosquitto_sub in every version and QoS, retained, wills, kept sessions and
//! passwords; paho-mqtt from PyPI.

use std::collections::BTreeSet;
use std::process::{Child, Command, Output, Stdio};

use crate::program;
use crate::stand::{Client, Cloud, Gateway, Options, Security, wait_for};
use tidegate::codec::QoS;

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

// [MQTT311-7.0.0-2] [MQTT31-13]
#[test]
fn mosquittos_clients_publish_and_subscribe_in_every_version_and_qos() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), "");
    let port = gateway.port().to_string();
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let topic = format!("clients/{version}/{qos}");
            let subscriber = subscribe(
                &gateway,
                &["-p", &port, "-V", version, "-q", qos, "-t", &topic, "-C", "2", "-W", "60"],
            );
            for payload in ["first", "second"] {
                run("mosquitto_pub", &["-p", &port, "-V", version, "-q", qos, "-t", &topic, "-m", payload]);
            }
            assert_eq!(
                text(subscriber.wait_with_output().unwrap()),
                "first\nsecond\n",
                "{version} QoS {qos}"
            );
        }
    }
}

#[test]
fn retained_messages_reach_mosquittos_client_and_are_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), "");
    let port = gateway.port().to_string();
    for version in VERSIONS {
        run("mosquitto_pub", &["-p", &port, "-V", version, "-t", "r/1", "-m", "kept", "-r", "-q", "1"]);
        let got = run("mosquitto_sub", &["-p", &port, "-V", version, "-t", "r/#", "-C", "1", "-W", "60"]);
        assert_eq!(got, "kept\n");
        run("mosquitto_pub", &["-p", &port, "-V", version, "-t", "r/1", "-n", "-r", "-q", "1"]);
        assert_eq!(gateway.status()["broker"]["retained"], 0);
    }
}

#[test]
fn the_brokers_own_figures_have_mosquittos_names() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Cloud::start(folder.path(), &Security::Plain);
    let gateway = Gateway::start(program(), folder.path(), "");
    let topics = |port: u16, count: &str| -> BTreeSet<String> {
        let port = port.to_string();
        let all = ["-p", &port, "-t", "$SYS/broker/#", "-F", "%t", "-C", count, "-W", "60"];
        run("mosquitto_sub", &all).lines().map(str::to_owned).collect()
    };
    let (theirs, ours) = (topics(peer.port, "52"), topics(gateway.port(), "51"));
    // It publishes this one once a client has come, too late for the list.
    let late = "$SYS/broker/clients/maximum".to_owned();
    let unknown: Vec<&String> = ours.iter().filter(|topic| !theirs.contains(*topic)).collect();
    assert_eq!(unknown, [&late]);
    let absent: Vec<&String> = theirs.iter().filter(|topic| !ours.contains(*topic)).collect();
    assert_eq!(absent, ["$SYS/broker/heap/current", "$SYS/broker/heap/maximum"]);
}

// [MQTT311-3.1.2-4] [MQTT311-3.1.2-5]
#[test]
fn a_kept_session_of_mosquittos_client_gets_what_came_while_it_was_away_and_the_gateway_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(program(), folder.path(), "");
    for version in VERSIONS {
        let port = gateway.port().to_string();
        let mut kept = vec!["-V", version, "-i", "keeper", "-c", "-q", "1", "-t", "k/#"];
        if version == "mqttv5" {
            kept.extend(["-x", "3600"]);
        }
        let with_port = |port: &'static str| [vec!["-p", port], kept.clone()].concat();
        let first = with_port(Box::leak(port.clone().into_boxed_str()));
        run("mosquitto_sub", &[first, vec!["-E"]].concat());
        for number in ["1", "2", "3"] {
            run("mosquitto_pub", &["-p", &port, "-V", version, "-q", "1", "-t", "k/x", "-m", number]);
        }
        gateway.kill();
        gateway.start_again();
        let again = with_port(Box::leak(gateway.port().to_string().into_boxed_str()));
        let got = run("mosquitto_sub", &[again, vec!["-C", "3", "-W", "60"]].concat());
        assert_eq!(got, "1\n2\n3\n", "{version}");
    }
}

#[test]
fn a_will_is_published_when_mosquittos_client_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), "");
    let port = gateway.port().to_string();
    let mut watcher = Client::connect(gateway.port(), &Options::new("watcher"));
    watcher.subscribe("will/#", QoS::AtLeastOnce);
    for version in VERSIONS {
        let topic = format!("will/{version}");
        let mut lost = subscribe(
            &gateway,
            &[
                "-p",
                &port,
                "-V",
                version,
                "-t",
                "x",
                "--will-topic",
                &topic,
                "--will-payload",
                "gone",
                "--will-qos",
                "1",
            ],
        );
        lost.kill().unwrap();
        lost.wait().unwrap();
        let message = watcher.message();
        assert_eq!((&*message.topic, &message.payload[..]), (&*topic, &b"gone"[..]));
    }
}

#[test]
fn only_the_right_password_opens_a_listener() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwd");
    let theirs =
        Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&file).args(["theirs", "alike"]).status();
    assert!(theirs.unwrap().success());
    let ours =
        Command::new(program()).args(["passwd", "-b"]).arg(&file).args(["barn", "right"]).output().unwrap();
    assert!(ours.status.success(), "{}", String::from_utf8_lossy(&ours.stderr));
    let configuration = format!("allow_anonymous = false\n[auth]\npassword_file = {file:?}\n");
    let gateway = Gateway::start(program(), folder.path(), &configuration);
    let port = gateway.port().to_string();
    for (user, password, accepted) in [
        ("barn", "right", true),
        ("theirs", "alike", true),
        ("barn", "wrong", false),
        ("nobody", "right", false),
    ] {
        let output = Command::new("mosquitto_pub")
            .args(["-p", &port, "-u", user, "-P", password, "-t", "x", "-m", "y", "-q", "1"])
            .output()
            .unwrap();
        assert_eq!(output.status.success(), accepted, "{user} with {password}: {output:?}");
    }
    let anonymous = Command::new("mosquitto_pub").args(["-p", &port, "-t", "x", "-m", "y"]).output().unwrap();
    assert!(!anonymous.status.success());
}

#[test]
fn paho_mqtt_publishes_and_subscribes_in_every_version_and_qos() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), "");
    let top = env!("CARGO_MANIFEST_DIR");
    let python = std::env::var("TIDEGATE_PYTHON").unwrap_or_else(|_| format!("{top}/target/venv/bin/python"));
    let output = Command::new(&python)
        .arg(format!("{top}/tests/appliance/paho_pairs.py"))
        .arg(gateway.port().to_string())
        .output()
        .unwrap_or_else(|error| panic!("{python}: {error}; tests/setup makes it"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = text(output);
    println!("measured: paho: {}", said.trim());
    assert!(said.contains("27 of 27"), "{said}");
}

/// Starts a mosquitto_sub and waits until its subscription stands.
pub(crate) fn subscribe(gateway: &Gateway, arguments: &[&str]) -> Child {
    let before = subscriptions(gateway);
    let child = Command::new("mosquitto_sub").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    wait_for("the subscription", || (subscriptions(gateway) > before).then_some(()));
    child
}

fn subscriptions(gateway: &Gateway) -> u64 {
    gateway.status()["broker"]["subscriptions"].as_u64().unwrap()
}

pub(crate) fn run(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
    text(output)
}

pub(crate) fn text(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}
