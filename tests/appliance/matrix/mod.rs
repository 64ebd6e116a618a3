//! Clients that others wrote, each over every transport and version that it has.
//!
//! A client goes through the scenarios by itself, against the real program, and tells which of them went
//! as they must. Every cell of the table is either run or stands in [`CANNOT`] with the reason: one that
//! is neither, or both, is a failure.

mod hop;
mod mosquitto;
mod rumqttc;
mod sketch;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::program;
use crate::stand::{Certificates, Gateway};

/// A client, a version and a transport, and where the gateway is.
struct Cell<'a> {
    client: &'static str,
    version: &'static str,
    transport: &'static str,
    port: u16,
    /// The file of authorities; empty where no TLS is spoken.
    authorities: String,
    /// Before every topic and in every client id.
    prefix: String,
    folder: &'a Path,
}

/// Goes through the scenarios and gives the names of those that went well; panics at the first that did not.
type Run = fn(&Cell) -> Vec<String>;

struct Cannot {
    client: &'static str,
    versions: &'static [&'static str],
    transports: &'static [&'static str],
    scenarios: &'static [&'static str],
    why: &'static str,
}

const VERSIONS: [&str; 3] = ["3.1", "3.1.1", "5"];
const TRANSPORTS: [&str; 4] = ["tcp", "tls", "ws", "wss"];
const SCENARIOS: [&str; 5] = ["login", "pairs", "retained", "will", "kept"];
const OF_5: [&str; 2] = ["properties", "identifier"];
const OF_ALL: &[&str] = &["login", "pairs", "retained", "will", "kept", "properties", "identifier"];

static CLIENTS: [(&str, Run); 8] = [
    ("mosquitto", mosquitto::run),
    ("paho-mqtt", |cell| python(cell, "with_paho.py")),
    ("aiomqtt", |cell| python(cell, "with_aiomqtt.py")),
    ("gmqtt", |cell| python(cell, "with_gmqtt.py")),
    ("MQTT.js", node),
    ("rumqttc", rumqttc::run),
    ("paho C", paho_c),
    ("PubSubClient", sketch::run),
];

const CANNOT: &[Cannot] = &[
    Cannot {
        client: "mosquitto",
        versions: &VERSIONS,
        transports: &["ws", "wss"],
        scenarios: OF_ALL,
        why: "the client library of 2.0.11 has no WebSocket",
    },
    Cannot {
        client: "gmqtt",
        versions: &["3.1"],
        transports: &TRANSPORTS,
        scenarios: OF_ALL,
        why: "it speaks 3.1.1 and 5",
    },
    Cannot {
        client: "gmqtt",
        versions: &["3.1.1", "5"],
        transports: &["ws", "wss"],
        scenarios: OF_ALL,
        why: "it has no WebSocket",
    },
    Cannot {
        client: "rumqttc",
        versions: &["3.1"],
        transports: &TRANSPORTS,
        scenarios: OF_ALL,
        why: "it speaks 3.1.1 and 5",
    },
    Cannot {
        client: "paho C",
        versions: &VERSIONS,
        transports: &["wss"],
        scenarios: OF_ALL,
        why: "1.3.12 now and then stops reading, however packets are framed, unless 100 ms lie between them as at mosquitto's",
    },
    Cannot {
        client: "PubSubClient",
        versions: &["3.1", "5"],
        transports: &TRANSPORTS,
        scenarios: OF_ALL,
        why: "it is built for 3.1.1",
    },
    Cannot {
        client: "PubSubClient",
        versions: &["3.1.1"],
        transports: &["tls", "ws", "wss"],
        scenarios: OF_ALL,
        why: "its socket is the board's own; what it writes is the same over any",
    },
];

// [MQTT311-7.0.0-2] [MQTT31-13] [MQTT311-3.1.2-4] [MQTT311-3.1.2-5]
#[test]
fn clients_of_others_do_all_that_they_can_over_every_transport() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = start(folder.path());
    let authorities = folder.path().join("authority/ca.pem");
    let runs = thread::scope(|scope| {
        // Two at a time keep two cores busy; a client's own cells go one after another.
        let (left, right) = CLIENTS.split_at(CLIENTS.len() / 2);
        let all = |clients: &'static [(&'static str, Run)]| {
            let (gateway, authorities, folder) = (&gateway, &authorities, folder.path());
            scope.spawn(move || {
                clients.iter().flat_map(|client| of_client(client, gateway, authorities, folder)).collect()
            })
        };
        let halves: [thread::ScopedJoinHandle<Vec<Ran>>; 2] = [all(left), all(right)];
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect::<Vec<_>>()
    });
    let table = table(&runs);
    // Past the harness, which shows the words of failures alone.
    std::io::stdout().write_all(table.as_bytes()).unwrap();
    let findings = findings(&runs);
    assert!(findings.is_empty(), "{}\n{table}", findings.join("\n"));
}

/// A client and what of a cell it went through.
struct Ran {
    client: &'static str,
    version: &'static str,
    transport: &'static str,
    scenarios: Vec<String>,
}

fn start(folder: &Path) -> Gateway {
    let passwords = folder.join("passwd");
    let made =
        Command::new(program()).args(["passwd", "-b", "-c"]).arg(&passwords).args(["barn", "right"]).output();
    assert!(made.unwrap().status.success());
    let (cert, key) = Certificates::new(folder, "authority").server("localhost");
    let tls = format!("tls = {{ cert = {cert:?}, key = {key:?} }}");
    let mut text = format!("allow_anonymous = false\n[auth]\npassword_file = {passwords:?}\n");
    for (name, more) in [
        ("tls", tls.clone()),
        ("ws", "protocol = \"ws\"".into()),
        ("wss", format!("protocol = \"ws\"\n{tls}")),
    ] {
        let _ = writeln!(
            text,
            "[[listener]]\nname = {name:?}\nbind = \"127.0.0.1:0\"\nallow_anonymous = false\n{more}"
        );
    }
    // Many wrong passwords in a row are what is asked here.
    text.push_str("[limits]\nmax_login_failures = \"1000/s\"\n");
    Gateway::start(program(), folder, &text)
}

fn of_client(
    &(client, run): &(&'static str, Run),
    gateway: &Gateway,
    authorities: &Path,
    folder: &Path,
) -> Vec<Ran> {
    let mut ran = Vec::new();
    for version in VERSIONS {
        for transport in TRANSPORTS {
            if scenarios(version).all(|scenario| cannot(client, version, transport, scenario).is_some()) {
                continue;
            }
            let port = gateway.port_of(if transport == "tcp" { "lan" } else { transport });
            let secure = transport == "tls" || transport == "wss";
            let authorities = if secure { authorities.display().to_string() } else { String::new() };
            // Short, since 3.1 allows client ids of 23 characters.
            let number = CLIENTS.iter().position(|(name, _)| *name == client).unwrap();
            let prefix = format!("{number}/{transport}/{version}");
            let cell = Cell { client, version, transport, port, authorities, prefix, folder };
            ran.push(Ran { client, version, transport, scenarios: run(&cell) });
        }
    }
    ran
}

fn scenarios(version: &str) -> impl Iterator<Item = &'static str> {
    SCENARIOS.into_iter().chain(OF_5.into_iter().take(if version == "5" { 2 } else { 0 }))
}

fn cannot(client: &str, version: &str, transport: &str, scenario: &str) -> Option<&'static Cannot> {
    CANNOT.iter().find(|cannot| {
        cannot.client == client
            && cannot.versions.contains(&version)
            && cannot.transports.contains(&transport)
            && cannot.scenarios.contains(&scenario)
    })
}

/// What was neither run nor excused, or both, or is no scenario at all.
fn findings(runs: &[Ran]) -> Vec<String> {
    let mut findings = Vec::new();
    for (client, _) in CLIENTS {
        for version in VERSIONS {
            for transport in TRANSPORTS {
                let of_cell =
                    |run: &&Ran| (run.client, run.version, run.transport) == (client, version, transport);
                let done: Vec<&str> =
                    runs.iter().filter(of_cell).flat_map(|run| &run.scenarios).map(String::as_str).collect();
                for scenario in scenarios(version) {
                    let excused = cannot(client, version, transport, scenario).is_some();
                    if done.contains(&scenario) == excused {
                        findings
                            .push(format!("{client} {version} {transport} {scenario}: excused is {excused}"));
                    }
                }
                let strange = |name: &&&str| !scenarios(version).any(|scenario| scenario == **name);
                findings.extend(done.iter().filter(strange).map(|name| format!("{client}: what is {name}?")));
            }
        }
    }
    findings
}

/// One line for each client and version, one column for each transport; then the reasons of what is not there.
fn table(runs: &[Ran]) -> String {
    let mut lines: BTreeMap<(&str, &str), [usize; 4]> = BTreeMap::new();
    for run in runs {
        let column = TRANSPORTS.iter().position(|transport| *transport == run.transport).unwrap();
        lines.entry((run.client, run.version)).or_default()[column] = run.scenarios.len();
    }
    let mut text =
        format!("\nmeasured: {} cells of the client matrix, scenarios that went as they must:\n", runs.len());
    let _ = writeln!(text, "{:<14}{:<7}{:>5}{:>5}{:>5}{:>5}", "client", "MQTT", "tcp", "tls", "ws", "wss");
    for ((client, version), counts) in lines {
        let _ = write!(text, "{client:<14}{version:<7}");
        for count in counts {
            let _ = write!(text, "{:>5}", if count == 0 { "-".into() } else { count.to_string() });
        }
        text.push('\n');
    }
    for cannot in CANNOT {
        let (versions, transports) = (cannot.versions.join(" "), cannot.transports.join(" "));
        let _ = writeln!(text, "not {} {versions} over {transports}: {}", cannot.client, cannot.why);
    }
    text
}

fn python(cell: &Cell, script: &str) -> Vec<String> {
    let python =
        std::env::var("TIDEGATE_PYTHON").map_or_else(|_| top().join("target/venv/bin/python"), PathBuf::from);
    let mut command = Command::new(python);
    command.arg("-B").arg(top().join("tests/appliance/matrix").join(script));
    tell(cell, &mut command)
}

fn node(cell: &Cell) -> Vec<String> {
    let mut command = Command::new("node");
    command.env("NODE_PATH", top().join("target/node/node_modules"));
    command.arg(top().join("tests/appliance/matrix/with_mqttjs.cjs"));
    tell(cell, &mut command)
}

fn paho_c(cell: &Cell) -> Vec<String> {
    let program = cell.folder.join("with_paho");
    if !program.exists() {
        let source = top().join("tests/appliance/matrix/with_paho.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source).arg("-lpaho-mqtt3cs");
        let output = compiler.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    tell(cell, &mut Command::new(program))
}

/// Runs a client's program with the cell's arguments; it prints one line for each scenario.
fn tell(cell: &Cell, command: &mut Command) -> Vec<String> {
    let port = cell.port.to_string();
    command.args([cell.version, cell.transport, &port, &cell.authorities, &cell.prefix]);
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/setup brings it"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} {} ended with {}:\n{said}{told}",
        cell.client,
        cell.prefix,
        output.status
    );
    said.lines().map(str::to_owned).collect()
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A payload that fills many reads.
fn large(folder: &Path) -> PathBuf {
    let path = folder.join("large");
    fs::write(&path, "x".repeat(100_000)).unwrap();
    path
}
