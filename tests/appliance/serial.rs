//! A serial device at the real program: what it says reaches subscribers and the cloud.
//!
//! The line is a pty of the test. Noise, overlong lines and lines in pieces come over it, it is unplugged
//! and plugged in again, the uplink is down and the gateway is killed; every whole line arrives once read,
//! and every other one is counted.

use std::path::Path;

use serde_json::{Value, json};
use tidegate::codec::QoS;

use crate::program;
use crate::stand::{Client, Cloud, Gateway, Link, Options, Proxy, Security, SerialWire, wait_for};

#[test]
fn only_whole_lines_become_readings_here_and_in_the_cloud() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(folder.path(), &Security::Plain);
    let mut inside = Client::connect(cloud.inside, &Options::kept("collector"));
    inside.subscribe("sites/#", QoS::AtLeastOnce);
    let mut wire = SerialWire::plug(folder.path());
    let gateway =
        Gateway::start(program(), &folder.path().join("gateway"), &scale(folder.path(), cloud.port));
    let mut local = Client::connect(gateway.port(), &Options::new("dashboard"));
    local.subscribe("serial/#", QoS::AtLeastOnce);
    state_turns(&gateway, "up", "");

    wire.say("\r\nST,GS,+12.05 kg\r\nUS,GS,-0.1");
    assert_eq!(reading(&mut local, "serial/scale"), weight(12.05, "ST"));
    // The gateway has read the first piece of this line.
    wire.say("0 kg\r\n");
    assert_eq!(reading(&mut local, "serial/scale"), weight(-0.1, "US"));
    wire.say(b"\xFF\x00\xFEnoise\r\nhello\r\nST,GS,\xB112.05 kg\r\n\r\n");
    wire.say(format!("ST,GS,+12.05 kg{}ST,GS,+99.99 kg\r\n", "x".repeat(5_000)));
    wire.say("ST,GS,+3.00 kg\r\n");
    assert_eq!(reading(&mut local, "serial/scale"), weight(3.0, "ST"), "nothing came before it");
    for expected in [weight(12.05, "ST"), weight(-0.1, "US"), weight(3.0, "ST")] {
        assert_eq!(reading(&mut inside, "sites/barn-7/serial/scale"), expected);
    }

    let told = settled(&gateway, 3);
    let faults = ["overlong", "not_text", "unmatched", "dropped", "refused"].map(|name| &told[name]);
    assert_eq!(faults, [&json!(1), &json!(2), &json!(1), &json!(0), &json!(0)], "{told}");
    conserved(&gateway, 3);
}

#[test]
fn what_was_read_outlives_the_device_the_uplink_and_the_gateway() {
    const HALF: u32 = 300;
    let folder = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(folder.path(), &Security::Plain);
    let mut inside = Client::connect(cloud.inside, &Options::kept("collector"));
    inside.subscribe("sites/#", QoS::AtLeastOnce);
    let uplink = Proxy::start(cloud.port, Link::Closed);
    let mut wire = SerialWire::plug(folder.path());
    let configuration = scale(folder.path(), uplink.port);
    let mut gateway = Gateway::start(program(), &folder.path().join("gateway"), &configuration);
    state_turns(&gateway, "up", "");
    wire.say("\r\n");
    (0..HALF).for_each(|number| wire.say(line(number)));
    queued(&gateway, u64::from(HALF));

    drop(wire);
    state_turns(&gateway, "down", "cannot open the device");
    settled(&gateway, u64::from(HALF));
    gateway.kill();
    gateway.start_again();
    state_turns(&gateway, "down", "cannot open the device");

    let mut wire = SerialWire::plug(folder.path());
    state_turns(&gateway, "up", "");
    wire.say("\r\n");
    (HALF..2 * HALF).for_each(|number| wire.say(line(number)));
    queued(&gateway, 2 * u64::from(HALF));
    uplink.set(Link::Open);
    for number in 0..2 * HALF {
        let expected = weight(f64::from(number), "ST");
        assert_eq!(reading(&mut inside, "sites/barn-7/serial/scale"), expected);
    }
    let told = settled(&gateway, u64::from(HALF));
    assert_eq!((&told["opened"], &told["dropped"]), (&json!(1), &json!(0)), "{told}");
    conserved(&gateway, 2 * u64::from(HALF));
}

/// A gateway with the scale of this folder and an uplink at this port.
fn scale(folder: &Path, uplink: u16) -> String {
    format!(
        "[[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:{uplink}\"]\n\
         [[bridge.forward]]\nfilter = \"serial/#\"\nto = \"sites/{{gateway}}/{{topic}}\"\nqos = 1\n\
         [[serial]]\nname = \"scale\"\ndevice = {:?}\nframe = {{ kind = \"line\", end = \"\\r\\n\", max = 64 }}\n\
         parse = {{ kind = \"regex\", pattern = '(?<status>ST|US),\\w+,(?<weight>[-+\\d.]+)\\s*(?<unit>\\w+)' }}\n",
        SerialWire::device(folder),
    )
}

fn line(number: u32) -> String {
    format!("ST,GS,+{number} kg\r\n")
}

/// A reading without its time.
fn weight(value: f64, status: &str) -> Value {
    json!({ "v": value, "u": "kg", "q": "good", "status": status })
}

/// The next message, which is a reading of this topic, without its time once that is one.
fn reading(client: &mut Client, topic: &str) -> Value {
    let message = client.message();
    assert_eq!(message.topic, topic);
    let mut payload: Value = serde_json::from_slice(&message.payload).unwrap();
    let time = payload.as_object_mut().unwrap().remove("t").unwrap();
    assert!(time.as_f64().unwrap() > 1_767_225_600.0, "{time} is no time");
    payload["v"] = json!(payload["v"].as_f64().unwrap());
    payload
}

/// Waits until the retained state says this, and why.
fn state_turns(gateway: &Gateway, state: &str, reason: &str) {
    let mut client = Client::connect(gateway.port(), &Options::new("watcher"));
    client.subscribe("tidegate/serial/scale/state", QoS::AtLeastOnce);
    let is_so = |told: &Value| {
        told["state"] == state && told["reason"].as_str().unwrap_or_default().starts_with(reason)
    };
    while !is_so(&serde_json::from_slice(&client.message().payload).unwrap()) {}
}

/// The line's counters once so many readings are published, each line of which is accounted for.
fn settled(gateway: &Gateway, published: u64) -> Value {
    let counters = |status: &Value| status["adapters"]["serial/scale"]["counters"].clone();
    let told = counters(&gateway.until("the readings", |status| counters(status)["published"] == published));
    let sum = |names: &[&str]| names.iter().map(|name| told[*name].as_u64().unwrap()).sum::<u64>();
    let ends = ["published", "dropped", "refused", "waiting", "not_text", "unmatched"];
    assert_eq!(sum(&["lines"]), sum(&ends), "{told}");
    told
}

fn queued(gateway: &Gateway, readings: u64) {
    gateway.until("the readings on disk", |status| status["routes"][0]["queued"] == readings);
}

/// Waits until the route has nothing more to send; what it received is then accounted for.
fn conserved(gateway: &Gateway, received: u64) {
    let route =
        wait_for("an empty queue", || Some(gateway.route("serial")).filter(|line| line["queued"] == 0));
    let dropped: u64 =
        route["dropped"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    let sum = route["delivered"].as_u64().unwrap() + route["expired"].as_u64().unwrap() + dropped;
    assert_eq!((&route["received"], sum, dropped), (&json!(received), received, 0), "{route}");
    println!("measured: {route}");
}
