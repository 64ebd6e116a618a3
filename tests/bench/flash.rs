//! What a steady trickle costs in bytes written to disk: a hundred messages of 100 bytes a second.
//!
//! Ten devices of ten a second each, for a route whose cloud takes them as they come; with the shipped
//! `[store]` and with `commit_interval = "1s"`, at QoS 0 and at QoS 1, where each waits for its
//! acknowledgement. What a message costs at a given size of commit is counted by `cargo test`.

use std::path::Path;
use std::thread;
use std::time::Duration;

use tidegate::codec::QoS;

use crate::process::LEASH;
use crate::publisher::payload;
use crate::stand::{Client, Gateway, Options, monotonic, proof};
use crate::upstream::Upstream;

const DEVICES: u32 = 10;
const PERIOD: Duration = Duration::from_millis(100);

/// Every mix; nothing is asserted but that all arrive.
pub(crate) fn run(program: &Path) {
    let rounds = if proof() { 600 } else { 50 };
    for (name, store) in [
        ("shipped", ""),
        ("commit_interval = 1s", "[store]\ncommit_interval = \"1s\"\n"),
        ("flash_budget = none", "[store]\nflash_budget = \"none\"\n"),
    ] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            measure(program, name, store, qos, rounds);
        }
    }
}

fn measure(program: &Path, name: &str, store: &str, qos: QoS, rounds: u32) {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start();
    let messages = u64::from(rounds * DEVICES);
    upstream.allow(messages + 1);
    let gateway = Gateway::start_under(
        program,
        folder.path(),
        &format!(
            "{store}[[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:{}\"]\n\
             [[bridge.forward]]\nfilter = \"sensors/#\"\nto = \"{{topic}}\"\nqos = 1\n",
            upstream.port,
        ),
        &LEASH,
    );
    gateway.until("the uplink", |status| status["bridges"][0]["state"] == "connected");
    let (before, start) = (gateway.status(), monotonic());
    thread::scope(|scope| {
        for device in 0..DEVICES {
            let mut client = Client::connect(gateway.port(), &Options::new(&format!("device-{device}")));
            scope.spawn(move || {
                for round in 0..rounds {
                    // Not all at once.
                    let due = PERIOD * round + PERIOD * device / DEVICES;
                    while let Some(wait) = due.checked_sub(start.elapsed()).filter(|wait| !wait.is_zero()) {
                        thread::park_timeout(wait);
                    }
                    let topic = format!("sensors/{device}");
                    match qos {
                        QoS::AtMostOnce => drop(client.publish(&topic, payload(round.into()), qos)),
                        _ => client.publish_acknowledged(&topic, payload(round.into())),
                    }
                }
            });
        }
    });
    let took = start.elapsed().as_secs_f64();
    let after = gateway.until("the last settle", |status| status["routes"][0]["delivered"] == messages);
    let figure = |name: &str| {
        let of = |status: &serde_json::Value| status["store"][name].as_u64().unwrap();
        of(&after) - of(&before)
    };
    let (bytes, commits) = (figure("written"), figure("commits"));
    println!(
        "measured: {messages} in {took:.0} s at QoS {}, {name}: {} bytes a message, {:.1} commits a second, {:.1} GB a day",
        qos as u8,
        bytes / messages,
        commits as f64 / took,
        bytes as f64 / took * 86_400.0 / 1e9,
    );
}
