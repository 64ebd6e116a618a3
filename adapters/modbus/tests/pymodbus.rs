//! Values of a pymodbus server arrive as readings with unit and time, over TCP and over a serial line.
//!
//! Needs a Python with pymodbus and pyserial (`TIDEGATE_PYTHON`, else `target/venv/bin/python`, which
//! `make` sets up) and socat for the line.

#![allow(clippy::indexing_slicing, reason = "a test that panics has failed, as it should")]

mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use adapter_api::State;
use adapter_api::clock::wall;
use adapter_modbus::{Config, adapter};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use world::broker::Broker;

#[tokio::test]
async fn readings_of_a_pymodbus_server_arrive_over_tcp() {
    let mut server = python(&["tcp"]);
    let port = first_line(server.stdout.take().expect("it is piped"), "pymodbus").await;
    check(&format!(r#""tcp": "127.0.0.1:{port}""#)).await;
}

#[tokio::test]
async fn readings_of_a_pymodbus_server_arrive_over_a_serial_line() {
    let mut line = Command::new("socat")
        .args(["-d", "-d", "pty,raw,echo=0", "pty,raw,echo=0"])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("socat is needed for a serial line: apt-get install socat");
    let mut log = BufReader::new(line.stderr.take().expect("it is piped")).lines();
    let mut ends = Vec::new();
    while ends.len() < 2 {
        let text = log.next_line().await.expect("socat speaks").expect("socat lives");
        ends.extend(text.split_once("PTY is ").map(|(_, path)| path.to_owned()));
    }
    let mut server = python(&["rtu", &ends[0]]);
    first_line(server.stdout.take().expect("it is piped"), "pymodbus").await;
    check(&format!(r#""serial": {{"device": "{}", "baud": 115200, "parity": "none"}}"#, ends[1])).await;
}

async fn check(link: &str) {
    let broker = Broker::new();
    let (stop, stopped) = watch::channel(false);
    let before = wall().millis;
    let bus = config(link).check().expect("a good configuration");
    let running = tokio::spawn(adapter(bus).run(broker.clone(), stopped));
    let mut values = BTreeMap::new();
    let mut rounds = 0;
    // The second round begins when all of the first has been asked, the absent register too.
    while values.len() < EXPECTED.len() || rounds < 2 {
        let reading = broker.next().await;
        let payload: Value = serde_json::from_slice(&reading.payload).expect("JSON");
        let taken = payload.get("t").and_then(Value::as_f64).expect("a time");
        assert!((before as f64 / 1_000.0..=wall().millis as f64 / 1_000.0).contains(&taken), "{taken}");
        let shown = format!("{} {} {}", payload["v"], payload["u"], payload["q"]);
        rounds += usize::from(reading.topic.ends_with("/voltage"));
        values.insert(reading.topic.rsplit('/').next().expect("a name").to_owned(), shown);
        assert!(reading.topic.starts_with("modbus/plant/meter/"), "{}", reading.topic);
    }
    stop.send(true).expect("the adapter listens");
    running.await.expect("the adapter ends");
    let expected: BTreeMap<String, String> =
        EXPECTED.iter().map(|(name, shown)| ((*name).to_owned(), (*shown).to_owned())).collect();
    assert_eq!(values, expected);
    assert_health(&broker);
}

fn assert_health(broker: &Arc<Broker>) {
    let hello = broker.hello().expect("it opened a port");
    assert_eq!((hello.client_id.as_str(), hello.waits), ("modbus:plant", false));
    let health = broker.health("modbus/plant/meter").expect("it is reported");
    assert_eq!(health.state, State::Up);
    let reason = health.reason.expect("one register is not there");
    assert!(
        reason.starts_with("exception 2 (Illegal data address) to a read of 1 from holding:500"),
        "{reason}"
    );
    let counts = |name: &str| health.counters[name].as_u64().expect("a counter");
    assert_eq!(counts("polls"), counts("good") + counts("timeouts") + counts("exceptions"));
    assert!(counts("exceptions") >= 1);
}

fn config(link: &str) -> Config {
    let point = |name: &str, register: &str, kind: &str| json!({"name": name, "register": register, "type": kind, "every": "100ms"});
    let mut points = vec![
        point("u16", "30003", "u16"),
        point("i16", "input:3", "i16"),
        point("u32", "input:0x4", "u32"),
        point("i32", "300007", "i32"),
        point("f64", "input:8", "f64"),
        point("u64", "holding:20", "u64"),
        point("nan", "holding:24", "f32"),
        point("coil", "coil:1", "bool"),
        point("discrete", "10001", "bool"),
        point("absent", "holding:500", "u16"),
    ];
    let mut voltage = point("voltage", "input:0", "f32");
    voltage["unit"] = json!("V");
    points.push(voltage);
    let mut scaled = point("scaled", "40017", "u16");
    scaled["scale"] = json!(0.1);
    points.push(scaled);
    let mut swapped = point("swapped", "input:4", "u32");
    swapped["order"] = json!("cdab");
    points.push(swapped);
    let device = json!([{"name": "meter", "unit": 3, "point": points}]);
    let text =
        format!(r#"{{"name": "plant", "timeout": "2s", "late_limit": "2s", {link}, "device": {device}}}"#);
    serde_json::from_str(&text).expect("a configuration")
}

fn python(arguments: &[&str]) -> Child {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let interpreter = std::env::var_os("TIDEGATE_PYTHON")
        .map_or_else(|| root.join("../../target/venv/bin/python"), PathBuf::from);
    let started = Command::new(&interpreter)
        .arg(root.join("tests/pymodbus_server.py"))
        .args(arguments)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    started.unwrap_or_else(|error| {
        panic!(
            "a Python with pymodbus==3.16.1 and pyserial is needed at {} or where TIDEGATE_PYTHON says: {error}",
            interpreter.display()
        )
    })
}

async fn first_line(output: impl AsyncRead + Unpin, whose: &str) -> String {
    let line = BufReader::new(output).lines().next_line().await.expect("it can be read");
    line.unwrap_or_else(|| panic!("{whose} ended before it served; its words stand above"))
}

const EXPECTED: [(&str, &str); 12] = [
    ("voltage", r#"230.5 "V" "good""#),
    ("u16", r#"60000 null "good""#),
    ("i16", r#"-5 null "good""#),
    ("u32", r#"4000000000 null "good""#),
    ("i32", r#"-70000 null "good""#),
    ("f64", r#"1234.5678 null "good""#),
    ("scaled", r#"23.4 null "good""#),
    ("u64", r#"9223372036854775808 null "good""#),
    ("nan", r#"null null "bad""#),
    ("coil", r#"true null "good""#),
    ("discrete", r#"true null "good""#),
    ("swapped", r#"671149675 null "good""#),
];
