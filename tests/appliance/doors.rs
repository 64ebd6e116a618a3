//! The doors of the appliance, knocked at by clients that others wrote.
//!
//! TLS with and without certificates of clients, renewal while somebody is connected, WebSocket, and what
//! does not belong at a door.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use crate::clients::{run, subscribe, text};
use crate::program;
use crate::stand::{Certificates, Client, Gateway, HANG, Options};
use tidegate::codec::QoS;

/// A gateway with a listener named `tls` of this table, and others of this text.
fn start(folder: &Path, tls: &str, more: &str) -> Gateway {
    let configuration =
        format!("[[listener]]\nname = \"tls\"\nbind = \"127.0.0.1:0\"\ntls = {{ {tls} }}\n{more}");
    Gateway::start(program(), folder, &configuration)
}

fn files((cert, key): &(std::path::PathBuf, std::path::PathBuf)) -> String {
    format!("cert = {cert:?}, key = {key:?}")
}

#[test]
fn mosquittos_clients_speak_tls_in_every_version_and_qos() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Certificates::new(folder.path(), "authority");
    let gateway = start(folder.path(), &files(&authority.server("localhost")), "");
    let (port, ca) = (gateway.port_of("tls").to_string(), authority.ca().display().to_string());
    let secure = ["-h", "localhost", "-p", &port, "--cafile", &ca];
    for (tls, version, qos) in
        [("tlsv1.2", "mqttv31", "0"), ("tlsv1.2", "mqttv311", "1"), ("tlsv1.3", "mqttv5", "2")]
    {
        let topic = format!("doors/{version}");
        let common = [&secure[..], &["--tls-version", tls, "-V", version, "-q", qos, "-t", &topic]].concat();
        let subscriber = subscribe(&gateway, &[&common[..], &["-C", "2", "-W", "60"]].concat());
        for payload in ["first", "second"] {
            run("mosquitto_pub", &[&common[..], &["-m", payload]].concat());
        }
        assert_eq!(text(subscriber.wait_with_output().unwrap()), "first\nsecond\n", "{tls} {version}");
    }
    let other = Certificates::new(folder.path(), "other").ca().display().to_string();
    let distrust = publish(&["-h", "localhost", "-p", &port, "--cafile", &other]);
    assert!(!distrust.status.success(), "whoever trusts another authority stays away");
}

#[test]
fn certificates_of_clients_decide_who_comes_in() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Certificates::new(folder.path(), "authority");
    let (anna, lost) = (authority.client("anna", 7), authority.client("lost-pump", 66));
    let foreign = Certificates::new(folder.path(), "foreign").client("anna", 7);
    let tls = format!(
        "{}, client_ca = {:?}, crl = {:?}, identity = \"cn\"",
        files(&authority.server("localhost")),
        authority.ca(),
        authority.revoke(&[66])
    );
    let gateway = start(folder.path(), &tls, "allow_anonymous = false\n");
    let (port, ca) = (gateway.port_of("tls").to_string(), authority.ca().display().to_string());
    let secure = ["-h", "localhost", "-p", &port, "--cafile", &ca];
    let with = |(cert, key): &(std::path::PathBuf, std::path::PathBuf)| {
        let (cert, key) = (cert.display().to_string(), key.display().to_string());
        publish(&[&secure[..], &["--cert", &cert, "--key", &key]].concat())
    };
    assert!(with(&anna).status.success(), "{:?}", with(&anna));
    assert!(!with(&lost).status.success() && !with(&foreign).status.success());
    assert!(!publish(&secure).status.success(), "without a certificate");
    gateway.until("the refusals", |status| {
        status["handshakes"]["revoked"] == 1 && status["handshakes"]["failed"] == 3
    });
    assert!(gateway.log().contains("lost-pump"), "{}", gateway.log());
    // Ours take the same options.
    let (cert, key) = (anna.0.display().to_string(), anna.1.display().to_string());
    let words =
        [&["pub"], &secure[..], &["--cert", &cert, "--key", &key, "-q", "1", "-t", "x", "-m", "y"]].concat();
    run(program().to_str().unwrap(), &words);
    let words = [&["pub"], &secure[..], &["-q", "1", "-t", "x", "-m", "y"]].concat();
    let refused = Command::new(program()).args(words).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
}

#[test]
fn renewed_certificates_are_used_without_dropping_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) =
        (Certificates::new(folder.path(), "first"), Certificates::new(folder.path(), "second"));
    let (cert, key) = first.server("localhost");
    let gateway = start(folder.path(), &files(&(cert.clone(), key.clone())), "");
    let port = gateway.port_of("tls").to_string();
    let trusting = |authority: &Certificates| {
        ["-h", "localhost", "-p", &port, "-q", "1", "-t", "renewal", "--cafile"]
            .map(str::to_owned)
            .into_iter()
            .chain([authority.ca().display().to_string()])
            .collect::<Vec<_>>()
    };
    let words = |owned: &[String], more: &[&'static str]| -> Vec<String> {
        owned.iter().cloned().chain(more.iter().map(|word| (*word).to_owned())).collect()
    };
    let borrowed =
        |words: &[String]| run("mosquitto_pub", &words.iter().map(String::as_str).collect::<Vec<_>>());
    let staying = words(&trusting(&first), &["-C", "3", "-W", "60"]);
    let staying = subscribe(&gateway, &staying.iter().map(String::as_str).collect::<Vec<_>>());
    borrowed(&words(&trusting(&first), &["-m", "before"]));

    // Half a renewal does not fit together: what was there before goes on.
    let renewed = second.server("localhost");
    fs::rename(&renewed.1, &key).unwrap();
    borrowed(&words(&trusting(&first), &["-m", "meanwhile"]));
    assert!(gateway.log().contains("the ones before are used on"), "{}", gateway.log());
    fs::rename(&renewed.0, &cert).unwrap();
    borrowed(&words(&trusting(&second), &["-m", "after"]));
    assert_eq!(text(staying.wait_with_output().unwrap()), "before\nmeanwhile\nafter\n");
    assert!(gateway.log().contains("renewed certificates are used"), "{}", gateway.log());
}

#[test]
fn our_own_clients_speak_tls_by_mosquittos_letters() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Certificates::new(folder.path(), "authority");
    let gateway = start(folder.path(), &files(&authority.server("gateway.example")), "");
    let (port, ca) = (gateway.port_of("tls").to_string(), authority.ca().display().to_string());
    let url = format!("mqtts://127.0.0.1:{port}/ours");
    let ours = program().to_str().unwrap();
    let large = "x".repeat(100_000);
    let message = folder.path().join("message");
    fs::write(&message, &large).unwrap();
    let retained = ["pub", "-L", &url, "--cafile", &ca, "--insecure", "-r", "-q", "1", "-f"];
    run(ours, &[&retained[..], &[message.to_str().unwrap()]].concat());
    for version in ["tlsv1.2", "tlsv1.3"] {
        let got = run(
            ours,
            &[
                "sub",
                "-L",
                &url,
                "--cafile",
                &ca,
                "--insecure",
                "--tls-version",
                version,
                "-C",
                "1",
                "-W",
                "60",
            ],
        );
        assert_eq!(got.trim_end(), large, "{version}");
    }
    // Its certificate is for another name, which only --insecure overlooks.
    let output = Command::new(ours).args(["pub", "-L", &url, "--cafile", &ca, "-m", "x"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("is not for 127.0.0.1"), "{told}");
}

#[test]
fn check_tells_the_line_of_a_file_that_cannot_be_used_and_the_service_starts_without_that_door() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Certificates::new(folder.path(), "authority");
    let (cert, key) = authority.server("localhost");
    let hidden = folder.path().join("hidden");
    fs::rename(&key, &hidden).unwrap();
    let gateway = start(folder.path(), &files(&(cert, key.clone())), "");
    let check = || {
        let file = folder.path().join("tidegate.toml");
        Command::new(program()).args(["check", "--config"]).arg(file).output().unwrap()
    };
    let output = check();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("tidegate.toml:11: listener[tls].tls.key: ") && told.contains("localhost.key"),
        "{told}"
    );

    let doors = gateway.status()["listeners"].clone();
    assert_eq!((&doors[0]["open"], &doors[1]["open"]), (&true.into(), &false.into()));
    assert!(doors[1]["error"].as_str().unwrap().contains("localhost.key"), "{doors}");
    Client::connect(gateway.port(), &Options::new("served")).publish("x", "y", QoS::AtLeastOnce);
    fs::rename(&hidden, &key).unwrap();
    let output = check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_does_not_belong_at_a_tls_door_is_counted_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Certificates::new(folder.path(), "authority");
    let gateway = start(folder.path(), &files(&authority.server("localhost")), "");
    let (plain, tls) = (gateway.port().to_string(), gateway.port_of("tls").to_string());
    let ca = authority.ca().display().to_string();
    assert!(!publish(&["-p", &tls]).status.success(), "plain MQTT at the TLS door");
    assert!(
        !publish(&["-h", "localhost", "-p", &plain, "--cafile", &ca]).status.success(),
        "and the other way"
    );
    gateway.until("both", |status| status["handshakes"]["failed"] == 1 && status["engine"]["malformed"] == 1);
    // Half a hello, and then nothing: ended by the time limit.
    let mut silent = TcpStream::connect(("127.0.0.1", gateway.port_of("tls"))).unwrap();
    silent.set_read_timeout(Some(HANG)).unwrap();
    silent.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    gateway.until("its end", |status| status["handshakes"]["timed_out"] == 1);
    assert!(publish(&["-h", "localhost", "-p", &tls, "--cafile", &ca]).status.success());
}

#[test]
fn our_own_clients_speak_websocket_plain_and_within_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Certificates::new(folder.path(), "authority");
    let plain = "[[listener]]\nname = \"ws\"\nbind = \"127.0.0.1:0\"\nprotocol = \"ws\"\n";
    let tls = files(&authority.server("localhost"));
    let gateway = start(folder.path(), &tls, &format!("protocol = \"ws\"\n{plain}"));
    let ours = program().to_str().unwrap();
    let ca = authority.ca().display().to_string();
    let large = "x".repeat(100_000);
    let message = folder.path().join("message");
    fs::write(&message, &large).unwrap();
    let secure = ["--cafile", &ca];
    for (scheme, door, more) in [("ws", "ws", &[][..]), ("wss", "tls", &secure)] {
        let url = format!("{scheme}://localhost:{}/ours/{scheme}", gateway.port_of(door));
        let through = |words: &[&str]| run(ours, &[words, &["-L", &url], more].concat());
        through(&["pub", "-r", "-q", "2", "-f", message.to_str().unwrap()]);
        assert_eq!(through(&["sub", "-C", "1", "-W", "60"]).trim_end(), large, "{scheme}");
        // Many frames in a row, each way.
        let subscriber =
            subscribe(&gateway, &["-p", &gateway.port().to_string(), "-t", "rows", "-C", "500", "-W", "60"]);
        let rows: String = (0..500).map(|row| format!("{row}\n")).collect();
        fs::write(folder.path().join("rows"), &rows).unwrap();
        let url = format!("{scheme}://localhost:{}/rows", gateway.port_of(door));
        let output = Command::new(ours)
            .args(["pub", "-q", "1", "-l", "-L", &url])
            .args(more)
            .stdin(fs::File::open(folder.path().join("rows")).unwrap())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(text(subscriber.wait_with_output().unwrap()), rows);
    }
    let wrong = format!("ws://localhost:{}/x", gateway.port());
    let output = Command::new(ours).args(["pub", "-m", "x", "-L", &wrong]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("speak WebSocket with localhost"), "{told}");
    gateway.until("their ends", |status| status["engine"]["sockets"] == 0);
    assert_eq!(gateway.status()["engine"]["malformed"], 1, "only who came to the wrong door");
}

#[test]
fn what_does_not_belong_at_a_websocket_door_gets_its_status_or_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = "protocol = \"ws\"\n";
    let gateway = Gateway::start(program(), folder.path(), configuration);
    let ask = |request: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port())).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(ask(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(ask(b"GET /mqtt HTTP/1.1\r\nHost: gateway\r\n\r\n").starts_with("HTTP/1.1 426 "));
    assert!(!publish(&["-p", &gateway.port().to_string()]).status.success(), "plain MQTT");
    // Slowly, and never whole: ended like whoever sends no CONNECT.
    assert_eq!(ask(b"GET /mqtt HTTP/1.1\r\nHost: gate"), "");
    gateway
        .until("the counts", |status| status["engine"]["malformed"] == 3 && status["engine"]["sockets"] == 0);
}

fn publish(arguments: &[&str]) -> Output {
    Command::new("mosquitto_pub").args(arguments).args(["-q", "1", "-t", "x", "-m", "y"]).output().unwrap()
}
