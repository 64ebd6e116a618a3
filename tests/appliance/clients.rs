//! Clients that others wrote.
//!
//! What the matrix does not ask of Debian's mosquitto clients: a gateway that is killed meanwhile, the
//! broker's own figures, and passwords of both makes.

use std::collections::BTreeSet;
use std::process::{Child, Command, Output, Stdio};

use crate::program;
use crate::stand::{Cloud, Gateway, Security, wait_for};

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

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
